/* How far followers are behind a log: what was acknowledged when, against what each of them had when it was
 * looked at. */
#ifndef CTL_BENCH_LAG_H
#define CTL_BENCH_LAG_H

#include <stddef.h>
#include <stdint.h>

#include "histogram.h"

/* By this time, up to this LSN. */
struct bench_point {
    int64_t ns;
    uint64_t lsn;
};

/* Points in the order of time. Zero-initialise. */
struct bench_track {
    struct bench_point *points;
    size_t count, cap;
};

/* Acknowledged up to this LSN. What comes within 0.1 ms of a point counts as if it had come with that point,
 * which bounds the memory: 160 KB for each second. An LSN that is not higher than the last one says nothing.
 */
void bench_track_acknowledged(struct bench_track *track, int64_t ns, uint64_t lsn);
/* A look at a follower, which had this LSN. */
void bench_track_look(struct bench_track *track, int64_t ns, uint64_t lsn);
void bench_track_free(struct bench_track *track);

/* By the looks at a follower up to a time, a histogram of each, zero-initialised: how many of the entries
 * that were acknowledged by then it lacked, and for how many us the oldest of them had been acknowledged. */
struct bench_lag {
    struct histogram entries, us;
};
void bench_lag_measure(struct bench_lag *lag, const struct bench_track *acknowledged,
                       const struct bench_track *looks, int64_t until_ns);

#endif
