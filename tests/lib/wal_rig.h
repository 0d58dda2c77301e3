/* walsvc without its threads and its link: core, log and data directory on any vfs, one step at a time. */
#ifndef TESTS_WAL_RIG_H
#define TESTS_WAL_RIG_H

#include "wal_core.h"
#include "wal_dir.h"
#include "wal_levels.h"

enum { RIG_ANSWERS_MAX = 8192 };

struct rig_answer {
    unsigned times; /* answered; 0: not yet */
    enum sh_error code;
    uint64_t expected, retry_ms, look_again;
    struct msg_append_reply reply;
    struct msg_watermark_reply watermark;
    struct msg_producer_status_reply status;
    uint64_t settled_lsn;
};

struct wal_rig {
    const struct vfs *fs;
    char data[PATH_MAX];
    struct wal_dir dir;
    struct wal_log log;
    struct wal_core *core;
    struct wal_frame *first, **last; /* handed out by the core */
    int next_fd;                     /* the prepared segment, or -1 */
    bool prepares;  /* set by the first rig_prepare: another segment is prepared after each roll */
    int64_t now_ns; /* real time as the core sees it, and for appends the other one too */
    /* of the next appends: */
    uint64_t session; /* 1 */
    enum wal_level ack;
    uint64_t timeout_ms;
    uint64_t hlc;
    struct slice conditions; /* borrowed until they are answered */
    uint64_t requests;
    struct rig_answer answers[RIG_ANSWERS_MAX]; /* by the request's number */
    struct buf bodies[RIG_ANSWERS_MAX];         /* the requests' bytes, kept like a link keeps them */
    char refusal[WAL_REASON_MAX];               /* text of the last one */
    unsigned losses;                            /* loss frames that are durable */
    enum sh_error loss_error;                   /* why one was refused */
    bool opened;
};

/* Opens the data directory as walsvc does. On anything but EXIT_DONE there is nothing to close. */
enum service_exit rig_open(struct wal_rig *rig, const struct vfs *fs, const char *data,
                           uint64_t segment_size);
/* A clean stop: what waits is committed, the mark written. */
void rig_close(struct wal_rig *rig);
/* The process is gone: memory is freed, nothing is written. */
void rig_kill(struct wal_rig *rig);

/* An append of one event, or of several payloads alike; the request's number. producer 0: no deduplication.
 */
uint64_t rig_append(struct wal_rig *rig, uint64_t producer, uint32_t epoch, uint64_t sequence,
                    struct slice payload);
uint64_t rig_append_many(struct wal_rig *rig, uint64_t producer, uint64_t sequence, struct slice payload,
                         uint32_t count);
uint64_t rig_append_body(struct wal_rig *rig, uint64_t producer, uint32_t epoch, uint64_t sequence,
                         struct slice body);
uint64_t rig_watermark(struct wal_rig *rig, uint64_t newer_than, uint64_t wait_ms, int64_t now_ns);
struct id16 rig_producer(uint64_t number);
/* What the preparer does, when it is needed. False: the disk is full (the core is told) or stopped. */
bool rig_prepare(struct wal_rig *rig);
/* Writes the frames that were handed out, without a sync (none of them may open a segment). */
bool rig_write(struct wal_rig *rig);
/* Writes, syncs and rolls until nothing waits, and tells the core. False: a file call failed; the rig can
 * only be killed. */
bool rig_commit(struct wal_rig *rig);

/* Reads the whole log up to the durable end with a log reader; calls fn for each entry. */
enum sh_error rig_read_all(const struct vfs *fs, const char *data, uint64_t durable_end,
                           void (*fn)(void *arg, uint64_t lsn, const struct entry *entry), void *arg);
/* An empty folder on the real disk, and its end. */
void rig_make_dir(char path[PATH_MAX]);
void rig_remove_dir(const char *path);

#endif
