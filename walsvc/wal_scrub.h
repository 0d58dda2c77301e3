/* Reads sealed segments again, step by step, to find damage before anybody needs the entries.
 *
 * Every frame's checksum and chain is verified, over segment ends too, and read from the disk, not from the
 * page cache; the segment's digest is compared with that of its index. A step reads 256 KiB, or one frame
 * when that is larger; behind damage it goes on to the next valid frame, the rest of the segment at most. One
 * thread at a time. */
#ifndef WAL_SCRUB_H
#define WAL_SCRUB_H

#include "digest.h"
#include "segment_scan.h"
#include "wal_retention.h"

/* A damaged range. Everything is borrowed for the call. */
struct wal_scrub_damage {
    const char *file; /* path of the segment */
    const char *what; /* a sentence for people, without a full stop */
    int fd;           /* of the file; -1: it cannot be opened */
    uint64_t base_lsn;
    uint64_t offset;   /* in the file: of the first bad byte */
    uint64_t bytes;    /* up to the next good one; 0: a place where two parts don't fit together */
    uint64_t position; /* in the log: of the first bad byte */
    uint64_t first_lsn,
        next_lsn; /* of the first entry that is lost, of the first one behind; equal: none is */
    uint32_t checksum_before,
        checksum_after; /* of the frame before it, of the last one in it; 0: not known */
};

struct wal_scrub {
    const struct vfs *fs;
    const char *dir; /* the log's; borrowed */
    struct id16 log;
    void (*on_damage)(void *arg, const struct wal_scrub_damage *damage);
    void *arg;
    /* the segment; fd is -1 for none */
    int fd;
    char file[PATH_MAX];
    uint64_t position, base_lsn, next_lsn, end; /* end: in the file */
    bool clean;                                 /* no damage was met in it */
    /* Behind a clean segment: its index is damaged, or tells another digest than `digest`. */
    bool index_is_damaged, digest_differs;
    struct digest128 digest, expected;
    struct digest_state *digest_state; /* NULL: there is nothing to compare with */
    struct segment_scan scan;
    struct log_chain chain;
    bool chain_known; /* the chain stands at the end of a whole segment, which the next one must continue */
};

void wal_scrub_open(struct wal_scrub *scrub, const struct vfs *fs, const char *dir, struct id16 log,
                    void (*on_damage)(void *arg, const struct wal_scrub_damage *damage), void *arg);
/* Goes to a sealed segment; false: it cannot be opened (damage, told) or is gone. */
bool wal_scrub_enter(struct wal_scrub *scrub, const struct wal_segment *segment);
/* One step; *bytes: how far it came. False: the segment is done, and closed. */
bool wal_scrub_step(struct wal_scrub *scrub, uint64_t *bytes);
void wal_scrub_leave(struct wal_scrub *scrub);

#endif
