/* The view: a thread that follows all logs of the node, and applies what is durable to the store. The loop
 * tells how far the logs are, and it and others read rows; the thread tells when it has applied more.
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
#include "loop.h"
#include "view_tidying.h"

struct view;
struct view_work;

struct view_options {
    const struct vfs *fs;
    char data[PATH_MAX]; /* <data>: logs in log/, rows in view/ */
    struct view_store_options store;
    struct id16 own;  /* the node's own log */
    uint64_t keep_ms; /* rows of deleted and expired values stay so long at least */
    /* On the view's thread: more is applied, or its state has changed. */
    void (*on_change)(void *arg);
    /* On the view's thread: the work is done, or could not be (view_close). */
    void (*on_work)(void *arg, struct view_work *work);
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
/* No rows are being made ready any more: nothing is awaited. */
void view_import_over(struct view *view);

struct view_state {
    bool opened;                /* rows can be read */
    char error[VIEW_ERROR_MAX]; /* why not, or why a log's view has stopped; empty: all is well */
    struct view_vector applied; /* readable */
    struct view_vector flushed; /* on disk: a trim behind it takes nothing that a restart would need */
    uint64_t waiting, tidied;   /* as in view_info_reply */
    bool wants_group;           /* view_tell_group goes on with the work */
    bool wants_clock;           /* and so does a clock frame that says clock_applied */
    uint64_t clock_applied;
    struct view_vector lacking; /* of these logs the next entries are trimmed: how far they are applied */
    bool caught_up;             /* all that could be applied was, once since it was opened */
    bool compared;              /* it was compared with another member's since it was begun */
};
/* As of the last on_change, or later. */
void view_look(struct view *view, struct view_state *out);

/* ---- work on the view's thread, which alone writes ---- */

struct view_access {
    struct view_store *store; /* NULL: it isn't open */
    bool has_room;            /* something may be written to the disk */
    uint64_t opened; /* how often the store was opened so far: with another number it is another view */
    /* What is applied. Changed by work that has changed the rows too, on disk, and sets `installed`. */
    struct view_vector *applied;
    bool installed;
    bool imports; /* rows are being made ready: for a while none are tidied away */
    /* NULL, or the logs of which nothing is applied meanwhile, where it is not so far yet: a put up to there
     * may have been deleted where the rows come from, which these don't tell. Copied. */
    const struct view_vector *awaits;
    bool failed;                /* the store has failed, and is to be opened again: error */
    char error[VIEW_ERROR_MAX]; /* why the work could not be done; empty: it was */
};
struct view_work {
    struct mail mail; /* for who is told of its end */
    struct view_work *next;
    void (*fn)(struct view_work *work, struct view_access *access);
    void (*done)(void *arg, struct view_work *work); /* for who is told; not called here */
    void *arg;
};
/* fn is called on the view's thread, between two chunks, in the order of the calls; then on_work of the
 * options is told. Not called in the midst of a frame: what is applied is consistent. */
void view_ask(struct view *view, struct view_work *work);

/* Holds the store open while rows are read. NULL: it isn't, or is being closed, and view_look says why. Any
 * thread, once at a time. */
struct view_store *view_begin_read(struct view *view);
void view_end_read(struct view *view);
/* Whoever reads for long asks now and then: true, when the store is to be closed and waits for the readers.
 */
bool view_must_end_read(struct view *view);

#endif
