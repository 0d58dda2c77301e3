/* Prometheus' text format 0.0.4. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "obs_store.h"

/* Of label values: \, " and line feeds are escaped; of HELP texts only the first and the last. */
static void escape(struct buf *out, struct slice text, bool with_quotes)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '\n')
            buf_append_str(out, "\\n");
        else if (c == '\\' || (c == '"' && with_quotes))
            buf_append(out, (const uint8_t[]){'\\', c}, 2);
        else
            buf_append(out, &c, 1);
    }
}

/* In base units. */
static void number(struct buf *out, const struct metric *m, int64_t value)
{
    if (m->unit == METRIC_SECONDS)
        buf_printf(out, "%.15g", (double)value / NS_PER_S);
    else
        buf_printf(out, "%" PRId64, value);
}

/* {a="x",b="y"}; le: NULL for none. */
static void labels(struct buf *out, const struct metric *m, const struct obs_series *s, const char *le)
{
    const char *name = m->labels;
    if (s->label_count == 0 && le == NULL)
        return;
    for (unsigned i = 0; i < s->label_count; i++) {
        size_t len = strcspn(name, ",");
        buf_printf(out, "%s%.*s=\"", i == 0 ? "{" : ",", (int)len, name);
        escape(out, s->labels[i], true);
        buf_append_str(out, "\"");
        name += len + (name[len] == ',');
    }
    if (le != NULL)
        buf_printf(out, "%sle=\"%s\"", s->label_count == 0 ? "{" : ",", le);
    buf_append_str(out, "}");
}

static void bound_text(const struct metric *m, unsigned bucket, char text[32])
{
    double bound = (double)telemetry_bound(bucket);
    if (bucket == TELEMETRY_BOUNDS)
        snprintf(text, 32, "+Inf");
    else
        snprintf(text, 32, "%.9g", m->unit == METRIC_SECONDS ? bound / 1e6 : bound);
}

/* Each bucket counts all below it, too. */
static void histogram(struct buf *out, const struct metric *m, const struct obs_series *s)
{
    uint64_t counts[TELEMETRY_BUCKETS] = {0}, sum = 0;
    char le[32];
    obs_series_buckets(s, counts);
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++) {
        sum += counts[i];
        bound_text(m, i, le);
        buf_printf(out, "%s_bucket", m->name);
        labels(out, m, s, le);
        buf_printf(out, " %" PRIu64 "\n", sum);
    }
    buf_printf(out, "%s_sum", m->name);
    labels(out, m, s, NULL);
    buf_append_str(out, " ");
    number(out, m, s->value);
    buf_printf(out, "\n%s_count", m->name);
    labels(out, m, s, NULL);
    buf_printf(out, " %" PRIu64 "\n", sum);
}

void obs_store_text(const struct obs_store *store, int64_t now_ns, struct buf *out)
{
    const struct metric *table = metrics_table(), *last = NULL;
    const struct obs_series *s;
    size_t at = 0;
    while ((s = obs_store_next(store, now_ns, &at)) != NULL) {
        const struct metric *m = &table[s->metric];
        if (m != last) {
            buf_printf(out, "# HELP %s ", m->name);
            escape(out, slice_str(m->prose), false);
            buf_printf(out, "\n# TYPE %s %s\n", m->name, metric_kind_name(m->kind));
        }
        last = m;
        if (m->kind == METRIC_HISTOGRAM) {
            histogram(out, m, s);
            continue;
        }
        buf_append_str(out, m->name);
        labels(out, m, s, NULL);
        buf_append_str(out, " ");
        number(out, m, s->value);
        buf_append_str(out, "\n");
    }
}
