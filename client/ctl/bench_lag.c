/* Lag of followers, by what the appender saw. */
#include "bench_lag.h"

#include <stdbool.h>
#include <stdlib.h>

#include "buf.h"
#include "clock.h"

enum { POINT_NS = 100000 };

void bench_track_look(struct bench_track *track, int64_t ns, uint64_t lsn)
{
    if (track->count == track->cap) {
        track->cap = track->cap > 0 ? 2 * track->cap : 1024;
        track->points = xrealloc(track->points, track->cap * sizeof *track->points);
    }
    track->points[track->count++] = (struct bench_point){ns, lsn};
}

void bench_track_acknowledged(struct bench_track *track, int64_t ns, uint64_t lsn)
{
    struct bench_point *last = track->count > 0 ? &track->points[track->count - 1] : NULL;
    if (last == NULL || (lsn > last->lsn && ns - last->ns >= POINT_NS))
        bench_track_look(track, ns, lsn);
    else if (lsn > last->lsn)
        last->lsn = lsn;
}

void bench_track_free(struct bench_track *track)
{
    free(track->points);
    *track = (struct bench_track){0};
}

/* at: the first point that is beyond the look's LSN. */
static void measure_look(struct bench_lag *lag, const struct bench_track *acknowledged, size_t at,
                         const struct bench_point *look)
{
    uint64_t entries = 0, age_ns = 0;
    if (at < acknowledged->count && acknowledged->points[at].ns <= look->ns)
        age_ns = (uint64_t)(look->ns - acknowledged->points[at].ns);
    for (; at < acknowledged->count && acknowledged->points[at].ns <= look->ns; at++)
        entries = acknowledged->points[at].lsn - look->lsn;
    histogram_add(&lag->entries, entries);
    histogram_add(&lag->us, age_ns / NS_PER_US);
}

void bench_lag_measure(struct bench_lag *lag, const struct bench_track *acknowledged,
                       const struct bench_track *looks, int64_t until_ns)
{
    size_t at = 0;
    for (size_t i = 0; i < looks->count && looks->points[i].ns <= until_ns; i++) {
        while (at < acknowledged->count && acknowledged->points[at].lsn <= looks->points[i].lsn)
            at++;
        measure_look(lag, acknowledged, at, &looks->points[i]);
    }
}
