/* Whether bytes may take the place of a damaged range: the judging part of a repair. Pure: the bytes, and
 * what stands around the range, come in. */
#ifndef WAL_REPAIR_CHECK_H
#define WAL_REPAIR_CHECK_H

#include "segment_scan.h"

/* Why a request is not done: a sentence for people, and what its error message may carry. */
struct wal_refusal {
    enum sh_error code;
    char text[160];
    uint64_t expected;
};
/* Fills it in and returns the code. text: without a full stop. */
enum sh_error wal_refuse(struct wal_refusal *refusal, enum sh_error code, uint64_t expected,
                         const char *text);

/* A damaged range of one segment, and what is known of both its sides. */
struct repair_range {
    uint32_t salt;
    uint64_t from; /* in the file: of its first frame */
    /* What that frame must continue. Not certain when the end of the segment before is damaged too: then it
     * is only what the segment's header says. */
    struct log_chain before;
    bool before_is_certain;
    uint64_t end; /* in the file: where it ends; UINT64_MAX when that isn't known */
    /* Of what stands behind it: the LSN, and the checksum that it names as the one before it. */
    uint64_t next_lsn;
    uint32_t next_checksum;
    bool next_is_certain; /* the checksum is known */
};

/* The header at offset 0 of what was sent: SH_BAD_REQUEST, SH_VERSION_MISMATCH. */
enum sh_error repair_check_header(struct slice bytes, struct id16 log, uint64_t base_lsn,
                                  struct segment_header *out, struct wal_refusal *refusal);
/* Whether the frames fit at the front of the range. SH_OK: *behind gets the chain behind them, *whole whether
 * they fill the range and meet what stands behind it; when not, they are its first part. SH_BAD_REQUEST: not
 * whole valid frames. SH_CONFLICT: they are, but don't fit here. */
enum sh_error repair_check(const struct repair_range *range, struct slice frames, struct log_chain *behind,
                           bool *whole, struct wal_refusal *refusal);

#endif
