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
    /* the active segment */
    int fd;
    struct segment_header segment;
    uint64_t offset;        /* behind the last frame written */
    uint64_t limit;         /* its size: written to the end already */
    struct log_chain chain; /* of the next frame */
    /* what is synced */
    struct wal_durable durable;
    uint32_t durable_checksum;
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
void wal_log_close(struct wal_log *log);

/* Writes frames behind the last one, completing their headers. The list must fit into the segment. */
int wal_log_write(struct wal_log *log, struct wal_frame *first);
/* Makes durable what was written. */
int wal_log_sync(struct wal_log *log);
/* Goes on in the prepared file `fd` (named next.tmp, written to segment_size bytes): header and checkpoint
 * frame are written and synced, then it gets its name. Everything before must be durable. *old and *old_end:
 * the former segment, to be sealed. */
int wal_log_roll(struct wal_log *log, int fd, struct wal_frame *checkpoint, int *old, uint64_t *old_end);
/* Writes the durable mark, when it would say something new; makes its file when there is none. */
int wal_log_write_mark(struct wal_log *log);

/* Writes zeros from one offset to another. */
int wal_write_zeros(const struct vfs *fs, int fd, uint64_t from, uint64_t to);

#endif
