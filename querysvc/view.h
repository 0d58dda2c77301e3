/* The view: a thread that follows all logs of the node, and applies what is durable to the store. The loop
 * tells how far the logs are and reads rows; the thread tells when it has applied more.
 *
 *   opening ──► following ──(the store failed)──► closed ──(after a second)──► opening
 *                  │  ▲
 *  the disk is     ▼  │
 *  nearly full   pausing: what is applied can be read
 *
 * A log may end earlier than what was applied of it, or hold other frames there: its node's disk was set
 * back, and others had something else (docs/adr/0010). Then all of the view is made again from the logs.
 *
 * A log whose next entries cannot be read (trimmed, damaged and not accepted as lost) or not understood stops
 * the view of that log, named, and is looked at again each second; the others go on. */
#ifndef QUERYSVC_VIEW_H
#define QUERYSVC_VIEW_H

#include "log_reader.h"
#include "view_tidying.h"

struct view;

struct view_options {
    const struct vfs *fs;
    char data[PATH_MAX]; /* <data>: logs in log/, rows in view/ */
    struct view_store_options store;
    struct id16 own;  /* the node's own log */
    uint64_t keep_ms; /* rows of deleted and expired values stay so long at least */
    /* On the view's thread: more is applied, or its state has changed. */
    void (*on_change)(void *arg);
    void *arg;
};

/* How far a log is durable. */
struct view_log {
    struct id16 log;
    uint64_t durable_end, durable_lsn;
};

struct view *view_open(const struct view_options *options);
/* Writes down what is applied, and ends the thread. */
void view_close(struct view *view);
/* All logs of the node; those that are not among them are not followed any more. */
void view_tell(struct view *view, const struct view_log *logs, size_t count);

/* Who is in the group, as asked for by wants_group. */
void view_tell_group(struct view *view, const struct view_group *group);
/* What is applied by now goes to disk at once. */
void view_flush(struct view *view);

struct view_state {
    bool opened;                /* rows can be read */
    char error[VIEW_ERROR_MAX]; /* why not, or why a log's view has stopped; empty: all is well */
    struct view_vector applied; /* readable */
    struct view_vector flushed; /* on disk: a trim behind it takes nothing that a restart would need */
    uint64_t waiting, tidied;   /* as in view_info_reply */
    bool wants_group;           /* view_tell_group goes on with the work */
    bool wants_clock;           /* and so does a clock frame that says clock_applied */
    uint64_t clock_applied;
};
/* As of the last on_change, or later. */
void view_look(struct view *view, struct view_state *out);

/* Holds the store open while rows are read. NULL: it isn't, and view_look says why. */
struct view_store *view_begin_read(struct view *view);
void view_end_read(struct view *view);
/* Whoever reads for long asks now and then: true, when the store is to be closed and waits for the readers.
 */
bool view_must_end_read(struct view *view);

#endif
