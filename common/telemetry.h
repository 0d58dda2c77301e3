/* What a daemon counts: counters, gauges and histograms, declared once in metrics.def.
 *
 * Counting is an addition to a word of static memory, from any thread, without a lock: nothing is lost or
 * held up when nobody listens. telemetry_push.h tells obssvc once a second. */
#ifndef COMMON_TELEMETRY_H
#define COMMON_TELEMETRY_H

#include <stdint.h>

#include "mp.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum metric_unit { METRIC_COUNT, METRIC_BYTES, METRIC_SECONDS }; /* seconds are kept in ns */

/* Series that are counted into by number: wal_append has one for each ack level. */
enum telemetry_metric {
#define METRIC(symbol, service, kind, unit, name, label, prose) TELEMETRY_##symbol,
#define DYNAMIC(symbol, service, kind, unit, name, labels, prose)
#include "metrics.def"
#undef METRIC
#undef DYNAMIC
    TELEMETRY_METRICS
};

/* Those that are gathered, behind them. */
enum telemetry_gathered {
    TELEMETRY_GATHERED_FIRST = TELEMETRY_METRICS - 1,
#define METRIC(symbol, service, kind, unit, name, label, prose)
#define DYNAMIC(symbol, service, kind, unit, name, labels, prose) TELEMETRY_##symbol,
#include "metrics.def"
#undef METRIC
#undef DYNAMIC
    TELEMETRY_ALL
};

enum { TELEMETRY_LABEL_VALUES = 6, TELEMETRY_LABELS = 4 };

/* A line of metrics.def. */
struct metric {
    const char *name;    /* "shanghai_wal_entries_total" */
    const char *service; /* "walsvc", or "all" */
    enum metric_kind kind;
    enum metric_unit unit;
    const char *prose;
    const char *labels;   /* "" for none; several with commas between them, of gathered ones */
    unsigned value_count; /* 0: no label, or values that come and go */
    const char *values[TELEMETRY_LABEL_VALUES];
};
/* All TELEMETRY_ALL of them, by telemetry_metric and telemetry_gathered. */
const struct metric *metrics_table(void);
/* "counter", "gauge", "histogram" */
const char *metric_kind_name(enum metric_kind kind);

/* Histograms have a bucket for each bound 1, 2, 3, 4, 6, 8, 12, ... 2^26 and one for what is more, in
 * microseconds (of seconds) or as they are: a quantile is off by half of its value at most. */
enum { TELEMETRY_BOUNDS = 52, TELEMETRY_BUCKETS };
/* The highest value that belongs to the bucket, in microseconds or as it is. */
uint64_t telemetry_bound(unsigned bucket);

/* ---- counting; which: number of the label's value, 0 without a label ---- */
void telemetry_add(enum telemetry_metric counter, unsigned which, uint64_t more);
void telemetry_set(enum telemetry_metric gauge, unsigned which, int64_t value);
/* ns of a histogram of seconds. */
void telemetry_take(enum telemetry_metric histogram, unsigned which, uint64_t value);

/* ---- telling ---- */
/* Appends a series of one that is gathered: labels are as many as it has, and value in its unit (ns of
 * seconds). */
void telemetry_gather(msgpack_packer *pk, enum telemetry_gathered metric, const char *const *labels,
                      int64_t value);
/* Appends the series of a service that were counted, and returns how many: each an array [name, [label
 * values], value], value an int, or of a histogram [sum, [bucket, count, ...]] without the empty ones. */
uint32_t telemetry_pack(msgpack_packer *pk, const char *service);
/* Of this process, four of them. Labels: service. */
uint32_t telemetry_pack_process(msgpack_packer *pk, const char *service);

/* The process begins now. */
void telemetry_begin(void);

/* docs/metrics.md */
void telemetry_document(struct buf *out);

#endif
