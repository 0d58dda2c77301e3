/* The scrubber's rounds: when a pass over the log begins, which segment comes next, at which pace.
 *
 * Progress is kept in <log folder>/scrub, which is only an aid: without it, or when it is damaged, the next
 * pass begins anew. All integers little-endian:
 *
 *    0  8  magic "SHSCRB" and format version 1 (2 bytes)
 *    8 16  log uuid
 *   24  8  base LSN from which the pass under way goes on; 0: none is
 *   32  8  end of the last full pass, ns since 1970; 0: none yet
 *   40  8  from when on the interval counts, ns since 1970
 *   48  8  damaged ranges found by the pass under way, or the last one
 *   56  4  zero
 *   60  4  CRC-32C of bytes 0 to 59 */
#ifndef WAL_ROUNDS_H
#define WAL_ROUNDS_H

#include "wal_scrub.h"
#include "wal_trim.h"

struct wal_rounds {
    struct wal_scrub scrub;
    struct wal_catalog *catalog; /* borrowed */
    uint64_t rate;               /* bytes a second; 0: off */
    int64_t interval_ns;
    uint64_t next_lsn; /* 0: no pass is under way */
    int64_t last_ns;   /* real time */
    int64_t since_ns;  /* real time */
    uint64_t damages;
    uint64_t passes;  /* that have ended since the start */
    int64_t saved_ns; /* monotonic: when progress was last written; 0: it never was */
};

/* Reads the progress. The scrubber's callback is the caller's, who counts what it is told in `damages`. */
void wal_rounds_open(struct wal_rounds *rounds, struct wal_catalog *catalog, int64_t now_real_ns,
                     void (*on_damage)(void *arg, const struct wal_scrub_damage *damage), void *arg);
/* Does one step when it is due; returns when the next one is (monotonic; INT64_MAX: never). *result: 0, or
 * -errno of writing the progress. */
int64_t wal_rounds_step(struct wal_rounds *rounds, int64_t now_real_ns, int64_t now_mono_ns, int *result);
/* The place that the pass under way has reached, as a position; 0: none is. */
uint64_t wal_rounds_position(const struct wal_rounds *rounds);
void wal_rounds_close(struct wal_rounds *rounds);

#endif
