/* Which segments may go: retention by bytes and by age, trims by hand, holds. Pure.
 *
 * Segments go oldest first and whole. One is *due* when a rule wants it gone, and *free* when nothing holds
 * it besides. Neither can be the newest one, nor one that the durable mark does not lie behind, nor one whose
 * headers cannot be trusted: these and all behind them stay. */
#ifndef WAL_RETENTION_H
#define WAL_RETENTION_H

#include "wal_holds.h"

struct wal_segment {
    uint64_t base_lsn;
    uint64_t next_lsn; /* first LSN behind it; 0: it is the newest one */
    uint64_t position; /* of its first byte */
    uint64_t bytes;    /* of the newest one: of the whole file */
    int64_t created_ns;
    int64_t last_ns; /* real time: its last entry is not younger; 0: not known */
    bool damaged;    /* where it lies, or the next one, isn't known */
    bool rebuilt;    /* its header is damaged, but its frames tell what that said */
};

struct wal_retention {
    uint64_t bytes;           /* 0: unlimited */
    int64_t age_ns;           /* 0: for ever */
    uint64_t member_hold_max; /* bytes */
};

/* How many of the oldest segments retention wants gone. mark_end: the durable end that the mark file tells.
 */
size_t wal_retention_due(const struct wal_segment *segments, size_t count, const struct wal_retention *rules,
                         uint64_t mark_end, int64_t now_real_ns);
/* How many of them lie wholly below an LSN. */
size_t wal_retention_below(const struct wal_segment *segments, size_t count, uint64_t before,
                           uint64_t mark_end);
/* How many of `due` segments no hold keeps. */
size_t wal_retention_free(const struct wal_segment *segments, size_t due, const struct wal_holds *holds);
/* Counts what each lasting hold keeps of the segments that are due (kept_bytes), but for what a hold that
 * expires keeps as well. Those that keep more than member_hold_max are broken; returns how many became so.
 */
size_t wal_retention_break(const struct wal_segment *segments, size_t due, struct wal_holds *holds,
                           uint64_t member_hold_max);
/* Whether the durable mark lies behind the segment. */
bool wal_segment_is_marked(const struct wal_segment *segment, uint64_t mark_end);

#endif
