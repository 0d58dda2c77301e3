/* The committer: a thread that writes and syncs frames. Everything that waits goes out in one group, one
 * write and one sync; while that runs, the next group gathers. The sync itself is the batching window. A
 * single small frame that meets an idle committer is committed by the caller's thread instead
 * (wal_commit_now).
 *
 * A failed write or sync ends the process. */
#ifndef WAL_COMMIT_H
#define WAL_COMMIT_H

#include "wal_log.h"
#include "wal_prepare.h"

struct wal_commit;

struct wal_commit_options {
    struct wal_log *log;         /* the committer's until wal_commit_stop */
    struct wal_prepare *prepare; /* where a frame that opens a segment gets its file */
    int64_t delay_ns;            /* how long a group waits for company */
    /* Called on the committer's thread after each sync, in order. idle: nothing waits for the next one, so
     * the answers may be given right there. */
    void (*on_durable)(void *arg, const struct wal_durable *durable, bool idle);
    void *arg;
};

struct wal_commit *wal_commit_start(const struct wal_commit_options *options);
/* Takes over a list of frames, in order; bodies are borrowed until on_durable tells that they are durable, or
 * until wal_commit_detach. */
void wal_commit_put(struct wal_commit *commit, struct wal_frame *first);
/* Commits one small frame on the calling thread, and tells how far the log is durable, when nothing else is
 * under way and the disk has been fast lately. False: the frame must be put. Never while another call may
 * put. */
bool wal_commit_now(struct wal_commit *commit, struct wal_frame *frame, struct wal_durable *durable);
/* The bodies of this session's frames are about to be freed: copies those that wait, waits for those that are
 * being written. */
void wal_commit_detach(struct wal_commit *commit, uint64_t session);
void wal_commit_set_delay(struct wal_commit *commit, int64_t delay_ns);
/* Commits what waits, writes the durable mark, ends the thread. */
void wal_commit_stop(struct wal_commit *commit);

#endif
