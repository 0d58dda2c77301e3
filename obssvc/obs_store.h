/* What daemons have told of themselves: the newest series of each, and the last events of all. Pure; one
 * thread at a time. Input that is not what docs/messages.md says is refused whole. */
#ifndef OBSSVC_OBS_STORE_H
#define OBSSVC_OBS_STORE_H

#include "messages.h"
#include "telemetry.h"

enum {
    OBS_SERVICES = 16,     /* daemons of a node */
    OBS_SERIES_MAX = 4096, /* of a daemon */
    OBS_EVENTS = 1024,     /* kept */
    OBS_LABEL_BYTES = 128
};
/* A daemon that has said nothing for so long is not there: its series are not told any more. */
#define OBS_SILENT_NS (5 * INT64_C(1000000000))

#define OBS_RECENT_NS (10 * INT64_C(1000000000))

/* A series as it was told last. */
struct obs_series {
    unsigned metric; /* of metrics_table */
    struct slice labels[TELEMETRY_LABELS];
    unsigned label_count;
    int64_t value;        /* seconds in ns; of a histogram the sum */
    struct slice buckets; /* of a histogram: array [bucket, count, ...], checked */
};

/* Something that has happened. Its slices live as long as it is kept. */
struct obs_event {
    uint64_t id;                              /* counted by obssvc from 1 on, since its start */
    int64_t time_ms;                          /* since 1970 */
    unsigned level;                           /* enum log_level */
    struct slice service, kind, text, fields; /* fields: a msgpack map */
};

struct obs_store;

struct obs_store *obs_store_open(void);
void obs_store_close(struct obs_store *store);

/* *taken: number of the last of the daemon's events that are here. SH_BAD_REQUEST: malformed; SH_TOO_LARGE:
 * more series than OBS_SERIES_MAX; SH_OVERLOADED: more daemons than OBS_SERVICES. Unknown metrics, those of
 * another version, are passed over, and so are those that another daemon keeps, and a series' second value.
 */
enum sh_error obs_store_take(struct obs_store *store, const struct msg_telemetry *m, int64_t now_ns,
                             uint64_t *taken);
/* An event that obssvc has seen itself; copied. fields: a msgpack map. */
void obs_store_add_event(struct obs_store *store, const struct obs_event *event);

/* The series of the daemons that are there, in the order of metrics_table; NULL at the end. Start with *at =
 * 0. */
const struct obs_series *obs_store_next(const struct obs_store *store, int64_t now_ns, size_t *at);
/* How long ago the daemon told something; -1: it never did, or not since another one of its name. */
int64_t obs_store_age_ns(const struct obs_store *store, const char *service, int64_t now_ns);
/* The sum of a metric over all of its series whose first label is `label` (NULL: of all). */
int64_t obs_store_total(const struct obs_store *store, unsigned metric, const char *label, int64_t now_ns);
/* What a histogram has counted within the last OBS_RECENT_NS to twice that, or since its daemon's start when
 * that is later. */
void obs_store_recent(const struct obs_store *store, const struct obs_series *series,
                      uint64_t counts[TELEMETRY_BUCKETS]);
/* Adds a histogram's counts to those that are there. */
void obs_series_buckets(const struct obs_series *series, uint64_t counts[TELEMETRY_BUCKETS]);
/* Adds all of a metric up, likewise. */
void obs_store_buckets(const struct obs_store *store, unsigned metric, const char *label, int64_t now_ns,
                       uint64_t counts[TELEMETRY_BUCKETS]);
/* The first event behind `id`, or NULL. Ids that were dropped are passed over. */
const struct obs_event *obs_store_event(const struct obs_store *store, uint64_t behind);
uint64_t obs_store_last_event(const struct obs_store *store);
/* How many there were of a level. */
uint64_t obs_store_events(const struct obs_store *store, unsigned level);
/* Events that daemons had no room for. */
uint64_t obs_store_lost(const struct obs_store *store);

/* Appends all series in Prometheus' text format 0.0.4. */
void obs_store_text(const struct obs_store *store, int64_t now_ns, struct buf *out);
/* The value that the share q (0..1) of what was counted does not exceed: in ns of seconds, 0 when there is
 * nothing. */
double obs_quantile(const struct metric *metric, const uint64_t counts[TELEMETRY_BUCKETS], double q);

#endif
