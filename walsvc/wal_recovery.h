/* What the parts of recovery share: wal_recover.c (order of the steps), wal_walk.c (the newest segment's
 * frames, good and bad), wal_past.c (the segments before), wal_tail.c (what is cut, rewritten, or begun
 * anew). */
#ifndef WAL_RECOVERY_H
#define WAL_RECOVERY_H

#include "wal_log.h"

struct recovered_segment {
    int fd; /* -1: there is none */
    struct segment_header header;
    enum header_state state;
    uint64_t file_bytes;
};

struct recovery {
    struct wal_log
        *log; /* log->fd is the newest segment, log->segment its header, log->chain what comes next */
    struct wal_state *state; /* of a copy LSN and HLC only */
    struct wal_damage *damage;
    const char *quarantine;
    const uint64_t *bases; /* of all segments */
    size_t count;
    char file[SEGMENT_NAME_MAX]; /* the newest segment */
    enum header_state header;    /* of the newest segment; UNKNOWN: its position is a guess */
    struct recovered_segment previous;
    struct segment_scan scan;
    struct log_chain mark; /* M: the log is durable up to its position, where the chain is this; position 0:
                              nothing is known */
    uint64_t hlc;          /* the highest seen, in frames that don't count too */
    uint64_t end;          /* in the file: behind the last frame that counts */
    uint64_t extent;       /* in the file: behind the last byte that isn't zero */
    bool looked_behind;    /* extent is known, and the mark is what all frames tell */
    bool begins_anew;      /* the newest segment is bad up to M: the log goes on in a new one */
    bool drops;            /* of a copy's newest segment nothing is any good: it goes */
};

enum sh_error wal_recovery_failed(const struct wal_log *log, const char *what, int result);
/* Raises M. */
void wal_recovery_raise(struct recovery *r, const struct log_chain *mark);

/* A valid frame tells this reading of the clock, but nothing chains it to what stands before: it may be a
 * client's, in a payload. It is believed up to a day ahead of the wall clock. */
void wal_recovery_hear(struct recovery *r, uint64_t hlc);

/* wal_walk.c: takes in every frame that counts, enters every damaged range, finds M and the end. */
enum sh_error wal_recovery_walk(struct recovery *r);

/* wal_past.c. The header of the newest segment, whose file doesn't tell it, from the segment before. False:
 * neither does that one. */
enum sh_error wal_past_header(struct recovery *r, bool *known);
/* The state as it was at the begin of the newest segment, from the segments before. */
enum sh_error wal_past_state(struct recovery *r);
/* Cuts the segment before the newest to its end, or enters what is missing of it. */
enum sh_error wal_past_seal(struct recovery *r);

/* wal_tail.c: what lies behind the last good frame is kept aside and cut. */
enum sh_error wal_tail_cut(struct recovery *r);
/* Makes durable what lies between M and the end. */
enum sh_error wal_tail_sync(struct recovery *r);
/* Makes the file next.tmp of a segment's size: its descriptor, or -errno. */
int wal_tail_make_next(const struct wal_log *log);
/* The log goes on at M in a new segment. */
enum sh_error wal_tail_begin_anew(struct recovery *r);
/* The newest segment of a copy is kept aside and removed. */
enum sh_error wal_tail_drop(struct recovery *r);

#endif
