/* The thread that keeps the next segment ready: next.tmp, allocated to its full size and synced, so that no
 * commit into it meets a full disk (docs/adr/0002), and only while the disk keeps its reserve. It also seals:
 * cuts a former segment to its end, syncs it, and makes its index (wal_index.h).
 *
 * A failed sync ends the process. A full disk doesn't: it is told, and tried again each second. */
#ifndef WAL_PREPARE_H
#define WAL_PREPARE_H

#include "vfs.h"
#include "wal_core.h"

struct wal_prepare;

struct wal_prepare_options {
    const struct vfs *fs;
    const char *dir; /* the log's; copied */
    struct id16 log;
    uint64_t segment_size;
    uint64_t disk_reserve;  /* bytes of the disk to be left free, as in wal_disk_reserve */
    int64_t retry_ns;       /* with a full disk */
    int64_t index_delay_ns; /* after the start: when missing indexes begin to be made */
    /* Called on the preparer's thread. WAL_NEXT_DISK_FULL may come several times. */
    void (*on_next)(void *arg, enum wal_next next);
    /* The same: a sealed segment has damage; no index is made of it. May be NULL. */
    void (*on_damage)(void *arg, uint64_t base_lsn);
    void *arg;
};

/* Starts to prepare at once. */
struct wal_prepare *wal_prepare_start(const struct wal_prepare_options *options);
/* The prepared file; it was announced as ready. The caller owns the descriptor and gives the file its name.
 */
int wal_prepare_take(struct wal_prepare *prepare);
/* A segment that is written no more. */
struct wal_sealed {
    int fd;       /* given to the preparer */
    uint64_t end; /* in the file: behind its last frame */
    uint64_t base_lsn, next_base_lsn;
};
/* After that: seals the former segment, and prepares another one. */
void wal_prepare_next(struct wal_prepare *prepare, const struct wal_sealed *old);
/* From any thread; the next try goes by it. */
void wal_prepare_set_reserve(struct wal_prepare *prepare, uint64_t disk_reserve);
/* An index has been removed: looks for missing ones, when nothing else is to be done. From any thread. */
void wal_prepare_look(struct wal_prepare *prepare);
/* What was to be sealed is, and from now on no index is made: the caller changes segments that were. Until
 * wal_prepare_release, which looks for missing indexes. */
void wal_prepare_hold(struct wal_prepare *prepare);
void wal_prepare_release(struct wal_prepare *prepare);
/* Finishes a seal; a half-prepared file stays behind and is made anew by the next start, as is an index. */
void wal_prepare_stop(struct wal_prepare *prepare);

/* Bytes of the disk that are to be left free, for a value of the setting: 0 is a twentieth of the disk, 1 GiB
 * at most. */
uint64_t wal_disk_reserve(const struct vfs *fs, const char *dir, uint64_t setting);

/* ---- two of its steps, which tests run without the thread; 0 or -errno, nothing is logged ---- */
/* Makes next.tmp when disk_reserve bytes are left free then: a descriptor that the caller owns, or -errno;
 * nothing is left behind on a full disk. */
int wal_prepare_make(const struct vfs *fs, const char *dir, uint64_t segment_size, uint64_t disk_reserve);
/* Cuts a former segment to its end and syncs it. The caller closes it. */
int wal_prepare_seal(const struct vfs *fs, int fd, uint64_t end);

#endif
