/* The last 15 minutes, a point each second: rates, quantiles and lags, out of what counters said at each of
 * them. Pure; one thread at a time. */
#ifndef OBSSVC_OBS_HISTORY_H
#define OBSSVC_OBS_HISTORY_H

#include "telemetry.h"

enum { OBS_POINTS = 900, OBS_POINT_EACH_MS = 1000 };

enum obs_curve {
    OBS_APPENDS, /* entries a second */
    OBS_BYTES,
    OBS_COMMIT_P50,
    OBS_COMMIT_P99,
    OBS_APPEND_P50,
    OBS_APPEND_P99,
    OBS_LAG,      /* seconds, of the worst follower */
    OBS_VIEW_LAG, /* entries, of all logs */
    OBS_GETS,     /* requests a second */
    OBS_CURVES
};
/* "appends_per_s", ... */
const char *obs_curve_name(enum obs_curve curve);

struct obs_point {
    int64_t time_ms;          /* since 1970 */
    double value[OBS_CURVES]; /* base units; NAN: not known */
};

/* What one daemon had counted when it told last. */
struct obs_counts {
    int64_t told_ns; /* CLOCK_MONOTONIC; -1: it is not there */
    uint64_t counters[2];
    uint64_t buckets[2][TELEMETRY_BUCKETS];
};
/* What is known at a moment. */
struct obs_sample {
    int64_t time_ms;
    struct obs_counts wal;   /* counters: entries, bytes; buckets: commits, appends */
    struct obs_counts query; /* counters: gets */
    double lag_s, view_lag;  /* NAN: not known */
};

struct obs_history;

struct obs_history *obs_history_open(void);
void obs_history_close(struct obs_history *history);

/* Adds a point; the oldest beyond OBS_POINTS is dropped. A counter that went back counts from 0 on: its
 * daemon was restarted. Between two of a daemon's words its rates stay as they were. */
void obs_history_add(struct obs_history *history, const struct obs_sample *sample);
/* The first point behind `after_ms`, and those that follow it, by *at, which starts at 0; NULL: there are no
 * more. */
const struct obs_point *obs_history_next(const struct obs_history *history, int64_t after_ms, size_t *at);

#endif
