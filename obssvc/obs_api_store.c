/* What daemons have told: metrics, events, the last 15 minutes. */
#include <string.h>

#include "clock.h"
#include "log.h"
#include "obs_api.h"

/* ---------------------------------------------------------------- metrics */

static double base_units(const struct metric *m, double value)
{
    return m->unit == METRIC_SECONDS ? value / NS_PER_S : value;
}

static void write_labels(struct json_writer *j, const struct metric *m, const struct obs_series *s)
{
    const char *at = m->labels;
    char name[OBS_LABEL_BYTES];
    json_open(j, "labels", '{');
    for (unsigned i = 0; i < s->label_count; i++) {
        size_t len = strcspn(at, ",");
        memcpy(name, at, len);
        name[len] = 0;
        json_slice(j, name, s->labels[i]);
        at += len + (at[len] == ',');
    }
    json_close(j, '}');
}

static void write_histogram(struct json_writer *j, const struct obs_store *store, const struct metric *m,
                            const struct obs_series *s)
{
    uint64_t counts[TELEMETRY_BUCKETS] = {0}, recent[TELEMETRY_BUCKETS] = {0}, total = 0;
    obs_series_buckets(s, counts);
    obs_store_recent(store, s, recent);
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        total += counts[i];
    json_uint(j, "count", total);
    json_double(j, "sum", base_units(m, (double)s->value));
    json_double(j, "p50", base_units(m, obs_quantile(m, recent, 0.5)));
    json_double(j, "p99", base_units(m, obs_quantile(m, recent, 0.99)));
}

static void write_series(struct json_writer *j, const struct obs_store *store, const struct metric *m,
                         const struct obs_series *s)
{
    json_open(j, NULL, '{');
    json_text(j, "name", m->name);
    json_text(j, "kind", metric_kind_name(m->kind));
    write_labels(j, m, s);
    if (m->kind == METRIC_HISTOGRAM)
        write_histogram(j, store, m, s);
    else if (m->unit == METRIC_SECONDS)
        json_double(j, "value", base_units(m, (double)s->value));
    else
        json_int(j, "value", s->value);
    json_close(j, '}');
}

void obs_api_metrics(struct obs *o, const struct obs_http_request *request,
                     struct obs_http_response *response)
{
    const char *prefix = obs_http_argument(request, "name");
    const struct metric *table = metrics_table();
    const struct obs_series *s;
    struct json_writer j = {0};
    int64_t now_ns = clock_mono_ns();
    size_t at = 0;
    json_open(&j, NULL, '{');
    json_int(&j, "now_ms", clock_real_ns() / NS_PER_MS);
    json_open(&j, "series", '[');
    pthread_mutex_lock(&o->lock);
    while ((s = obs_store_next(o->store, now_ns, &at)) != NULL)
        if (prefix == NULL || strncmp(table[s->metric].name, prefix, strlen(prefix)) == 0)
            write_series(&j, o->store, &table[s->metric], s);
    pthread_mutex_unlock(&o->lock);
    json_close(&j, ']');
    json_close(&j, '}');
    obs_api_answer(response, &j);
}

/* ---------------------------------------------------------------- history */

static void write_points(struct json_writer *j, const struct obs_history *history, int64_t after_ms)
{
    const struct obs_point *p;
    size_t at = 0;
    json_open(j, "points", '[');
    while ((p = obs_history_next(history, after_ms, &at)) != NULL) {
        json_open(j, NULL, '[');
        json_int(j, NULL, p->time_ms);
        for (unsigned i = 0; i < OBS_CURVES; i++)
            json_double(j, NULL, p->value[i]);
        json_close(j, ']');
    }
    json_close(j, ']');
}

void obs_api_history(struct obs *o, const struct obs_http_request *request,
                     struct obs_http_response *response)
{
    struct json_writer j = {0};
    uint64_t after_ms;
    if (!obs_api_number(request, response, "after", INT64_MAX, 0, &after_ms))
        return;
    json_open(&j, NULL, '{');
    json_int(&j, "now_ms", clock_real_ns() / NS_PER_MS);
    json_int(&j, "each_ms", OBS_POINT_EACH_MS);
    json_open(&j, "series", '[');
    for (unsigned i = 0; i < OBS_CURVES; i++)
        json_text(&j, NULL, obs_curve_name((enum obs_curve)i));
    json_close(&j, ']');
    pthread_mutex_lock(&o->lock);
    write_points(&j, o->history, (int64_t)after_ms);
    pthread_mutex_unlock(&o->lock);
    json_close(&j, '}');
    obs_api_answer(response, &j);
}

/* ---------------------------------------------------------------- events */

/* Fields that make no sense are left out. */
static void write_fields(struct json_writer *j, struct slice fields)
{
    struct json_writer object = {0};
    struct mp m = mp_of(fields);
    bool good = json_msgpack(&object, NULL, &m);
    json_raw(j, "fields", good ? buf_slice(&object.out) : slice_str("{}"));
    buf_free(&object.out);
}

static void write_event(struct json_writer *j, const struct obs_event *e)
{
    json_open(j, NULL, '{');
    json_uint(j, "id", e->id);
    json_int(j, "time_ms", e->time_ms);
    json_slice(j, "service", e->service);
    json_text(j, "level", log_level_name((enum log_level)e->level));
    json_slice(j, "kind", e->kind);
    json_slice(j, "text", e->text);
    write_fields(j, e->fields);
    json_close(j, '}');
}

void obs_api_events(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    struct json_writer j = {0};
    uint64_t after, most;
    const struct obs_event *e;
    if (!obs_api_number(request, response, "after", INT64_MAX, 0, &after) ||
        !obs_api_number(request, response, "most", OBS_EVENTS, OBS_EVENTS, &most))
        return;
    json_open(&j, NULL, '{');
    json_open(&j, "events", '[');
    pthread_mutex_lock(&o->lock);
    for (; most > 0 && (e = obs_store_event(o->store, after)) != NULL; after = e->id, most--)
        write_event(&j, e);
    uint64_t last = obs_store_last_event(o->store), lost = obs_store_lost(o->store);
    pthread_mutex_unlock(&o->lock);
    json_close(&j, ']');
    json_uint(&j, "last", last);
    json_uint(&j, "lost", lost);
    json_int(&j, "since_ms", o->since_ms);
    json_close(&j, '}');
    obs_api_answer(response, &j);
}
