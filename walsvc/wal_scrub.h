/* Reads sealed segments again, step by step, to find damage before anybody needs the entries.
 *
 * Every frame's checksum and chain is verified, over segment ends too, and read from the disk, not from the
 * page cache. A step reads 256 KiB, or one frame when that is larger; behind damage it goes on to the next
 * valid frame, the rest of the segment at most. One thread at a time. */
#ifndef WAL_SCRUB_H
#define WAL_SCRUB_H

#include "log_verify.h"
#include "segment_scan.h"
#include "wal_retention.h"

struct wal_scrub {
    const struct vfs *fs;
    const char *dir; /* the log's; borrowed */
    struct id16 log;
    void (*on_damage)(void *arg, const struct log_damage *damage);
    void *arg;
    /* the segment; fd is -1 for none */
    int fd;
    char file[PATH_MAX];
    uint64_t position, base_lsn, next_lsn, end; /* end: in the file */
    struct segment_scan scan;
    struct log_chain chain;
    bool chain_known; /* what the next segment must continue */
};

void wal_scrub_open(struct wal_scrub *scrub, const struct vfs *fs, const char *dir, struct id16 log,
                    void (*on_damage)(void *arg, const struct log_damage *damage), void *arg);
/* Goes to a sealed segment; false: it cannot be opened (damage, told) or is gone. */
bool wal_scrub_enter(struct wal_scrub *scrub, const struct wal_segment *segment);
/* One step; *bytes: how far it came. False: the segment is done, and closed. */
bool wal_scrub_step(struct wal_scrub *scrub, uint64_t *bytes);
void wal_scrub_leave(struct wal_scrub *scrub);

#endif
