/* A ring of points, and the counts that the newest one was made of. */
#include "obs_history.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "obs_store.h"

enum { WAL_ENTRIES, WAL_BYTES };
enum { WAL_COMMIT, WAL_APPEND };
enum { QUERY_GETS };

struct obs_history {
    struct obs_point points[OBS_POINTS]; /* number n is points[n % OBS_POINTS] */
    size_t added;
    struct obs_counts wal, query; /* before */
};

const char *obs_curve_name(enum obs_curve curve)
{
    static const char *const names[OBS_CURVES] = {
        [OBS_APPENDS] = "appends_per_s",
        [OBS_BYTES] = "bytes_per_s",
        [OBS_COMMIT_P50] = "commit_p50_s",
        [OBS_COMMIT_P99] = "commit_p99_s",
        [OBS_APPEND_P50] = "append_p50_s",
        [OBS_APPEND_P99] = "append_p99_s",
        [OBS_LAG] = "lag_s",
        [OBS_VIEW_LAG] = "view_lag_entries",
        [OBS_GETS] = "gets_per_s",
    };
    return names[curve];
}

struct obs_history *obs_history_open(void)
{
    struct obs_history *history = xcalloc(1, sizeof *history);
    history->wal.told_ns = history->query.told_ns = -1;
    return history;
}

void obs_history_close(struct obs_history *history)
{
    free(history);
}

static uint64_t more(uint64_t before, uint64_t now)
{
    return now >= before ? now - before : now;
}

static double rate(const struct obs_counts *before, const struct obs_counts *now, unsigned counter)
{
    double s = (double)(now->told_ns - before->told_ns) / NS_PER_S;
    return (double)more(before->counters[counter], now->counters[counter]) / s;
}

/* Seconds, of what was counted between the two; NAN: nothing was. */
static double quantile(const struct obs_counts *before, const struct obs_counts *now, unsigned which,
                       double q)
{
    static const struct metric seconds = {.kind = METRIC_HISTOGRAM, .unit = METRIC_SECONDS};
    uint64_t counts[TELEMETRY_BUCKETS], total = 0;
    bool restarted = false;
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        restarted = restarted || now->buckets[which][i] < before->buckets[which][i];
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++) {
        counts[i] = now->buckets[which][i] - (restarted ? 0 : before->buckets[which][i]);
        total += counts[i];
    }
    return total > 0 ? obs_quantile(&seconds, counts, q) / NS_PER_S : NAN;
}

/* Whether the daemon has told something since; when it has not, its curves are as they were, or not known. */
static bool has_news(struct obs_history *h, const struct obs_counts *before, const struct obs_counts *now,
                     const enum obs_curve *curves, size_t count, struct obs_point *point)
{
    bool is_old = now->told_ns >= 0 && now->told_ns == before->told_ns && h->added > 0;
    for (size_t i = 0; i < count; i++)
        point->value[curves[i]] = is_old ? h->points[(h->added - 1) % OBS_POINTS].value[curves[i]] : NAN;
    return before->told_ns >= 0 && now->told_ns > before->told_ns;
}

static void add_wal(struct obs_history *h, const struct obs_counts *now, struct obs_point *point)
{
    static const enum obs_curve curves[] = {OBS_APPENDS,    OBS_BYTES,      OBS_COMMIT_P50,
                                            OBS_COMMIT_P99, OBS_APPEND_P50, OBS_APPEND_P99};
    if (has_news(h, &h->wal, now, curves, sizeof curves / sizeof *curves, point)) {
        point->value[OBS_APPENDS] = rate(&h->wal, now, WAL_ENTRIES);
        point->value[OBS_BYTES] = rate(&h->wal, now, WAL_BYTES);
        point->value[OBS_COMMIT_P50] = quantile(&h->wal, now, WAL_COMMIT, 0.5);
        point->value[OBS_COMMIT_P99] = quantile(&h->wal, now, WAL_COMMIT, 0.99);
        point->value[OBS_APPEND_P50] = quantile(&h->wal, now, WAL_APPEND, 0.5);
        point->value[OBS_APPEND_P99] = quantile(&h->wal, now, WAL_APPEND, 0.99);
    }
    h->wal = *now;
}

static void add_query(struct obs_history *h, const struct obs_counts *now, struct obs_point *point)
{
    static const enum obs_curve curves[] = {OBS_GETS};
    if (has_news(h, &h->query, now, curves, 1, point))
        point->value[OBS_GETS] = rate(&h->query, now, QUERY_GETS);
    h->query = *now;
}

void obs_history_add(struct obs_history *h, const struct obs_sample *sample)
{
    struct obs_point point = {.time_ms = sample->time_ms};
    add_wal(h, &sample->wal, &point);
    add_query(h, &sample->query, &point);
    point.value[OBS_LAG] = sample->lag_s;
    point.value[OBS_VIEW_LAG] = sample->view_lag;
    h->points[h->added++ % OBS_POINTS] = point;
}

const struct obs_point *obs_history_next(const struct obs_history *h, int64_t after_ms, size_t *at)
{
    size_t oldest = h->added > OBS_POINTS ? h->added - OBS_POINTS : 0;
    if (*at < oldest)
        *at = oldest;
    while (*at < h->added && h->points[*at % OBS_POINTS].time_ms <= after_ms)
        (*at)++;
    return *at < h->added ? &h->points[(*at)++ % OBS_POINTS] : NULL;
}
