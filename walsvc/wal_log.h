/* The log's files, as their one writer sees them: the active segment, rolling to the next one, the durable
 * mark.
 *
 * After wal_log_open everything here belongs to the committer's thread. Functions return 0 or -errno and log
 * nothing; a failed write or sync leaves the log unusable: the process must end (see wal_fatal). */
#ifndef WAL_LOG_H
#define WAL_LOG_H

#include <limits.h>

#include "log_mark.h"
#include "segment_scan.h"
#include "wal_core.h"
#include "wal_damage.h"

enum { WAL_IOV_MAX = 1024 };

struct wal_log {
    const struct vfs *fs;
    char dir[PATH_MAX]; /* <data>/log/<uuid> */
    struct id16 uuid;
    uint64_t segment_size; /* of new segments */
    bool is_copy;          /* of another node's log: frames come from there, with their durable ends */
    uint64_t first_lsn;    /* that was left when it was opened; 0: nothing was there */
    /* the active segment */
    int fd; /* -1 in a copy that holds nothing yet */
    struct segment_header segment;
    uint64_t offset;        /* behind the last frame written */
    uint64_t limit;         /* its size: written to the end already */
    struct log_chain chain; /* of the next frame */
    /* what is synced */
    struct wal_durable durable;
    int mark_fd;          /* -1: not opened, or not made, yet */
    struct log_mark mark; /* as on disk; counter 0: there is none */
    struct iovec iov[WAL_IOV_MAX];
};

/* Opens the log for appending: makes it when the folder holds nothing, recovers it otherwise (wal_recover.c).
 * `state` gets what the log says. quarantine: folder for what is cut off a torn tail. damage: gets what is
 * found damaged, which is no error. SH_CORRUPT: the log has no segment though it should, or it cannot be
 * known where it goes on. SH_VERSION_MISMATCH. SH_DISK_FULL: no room for a new segment, or for what must be
 * kept before it is cut. SH_INTERNAL: a file call failed. All are logged. */
enum sh_error wal_log_open(struct wal_log *log, const struct vfs *fs, const char *dir, struct id16 uuid,
                           uint64_t segment_size, bool may_create, const char *quarantine,
                           struct wal_damage *damage, struct wal_state *state);
/* Opens the copy of another node's log, in the same way but for this: how far it is durable only its own mark
 * says, since the frames tell that of the origin; what cannot be told apart is cut, kept aside and named, for
 * it is fetched again; and a copy may hold nothing, or begin behind LSN 1. SH_CORRUPT: the mark and the
 * segments are not of one log. */
enum sh_error wal_log_open_copy(struct wal_log *log, const struct vfs *fs, const char *dir, struct id16 uuid,
                                uint64_t segment_size, const char *quarantine, struct wal_damage *damage);
void wal_log_close(struct wal_log *log);

/* Writes frames behind the last one, completing their headers. The list must fit into the segment. */
int wal_log_write(struct wal_log *log, struct wal_frame *first);
/* Makes durable what was written. */
int wal_log_sync(struct wal_log *log);
/* Goes on in the prepared file `fd` (named next.tmp, written to segment_size bytes): header and checkpoint
 * frame are written and synced, then it gets its name. Everything before must be durable. *old and *old_end:
 * the former segment, to be sealed. */
int wal_log_roll(struct wal_log *log, int fd, struct wal_frame *checkpoint, int *old, uint64_t *old_end);
/* ---- a copy: bytes as they came from elsewhere, checked by the caller (wal_copy_check.h) ---- */
/* Writes bytes behind the last ones; log->chain is already what comes behind them. The vectors are changed.
 */
int wal_log_put(struct wal_log *log, struct iovec *iov, unsigned count);
/* Makes room for `need` bytes in the active segment, or in a prepared file: *limit is its size. The origin's
 * segments may be larger than what is prepared here. -ENOSPC also when `reserve` bytes would not be left
 * free; nothing has changed then. */
int wal_log_room(const struct wal_log *log, int fd, uint64_t *limit, uint64_t need, uint64_t reserve);
/* As wal_log_roll, with the header and the frames that have come; `bytes` is all of them. *old: -1 when the
 * copy held nothing. limit: the size of the prepared file. */
int wal_log_adopt(struct wal_log *log, int fd, uint64_t limit, const struct segment_header *header,
                  struct slice bytes, const struct log_chain *behind, int *old, uint64_t *old_end);
/* The copy holds nothing any more, and its mark says so; the caller removes the segments. */
int wal_log_forget(struct wal_log *log);

/* Writes the durable mark, when it would say something new; makes its file when there is none. */
int wal_log_write_mark(struct wal_log *log);

/* Writes zeros from one offset to another. */
int wal_write_zeros(const struct vfs *fs, int fd, uint64_t from, uint64_t to);

#endif
