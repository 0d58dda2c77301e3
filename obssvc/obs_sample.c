/* Each second: what the daemons have counted, as a point of the history. And what obssvc tells of itself,
 * which it tells itself by its own link, as the other daemons do. */
#include <math.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "obs_parts.h"
#include "telemetry_push.h"

/* ---------------------------------------------------------------- history */

static int64_t told_ns(const struct obs *o, const char *service, int64_t now_ns)
{
    int64_t age_ns = obs_store_age_ns(o->store, service, now_ns);
    return age_ns >= 0 && age_ns < OBS_SILENT_NS ? now_ns - age_ns : -1;
}

static void sample_wal(const struct obs *o, int64_t now_ns, struct obs_counts *c)
{
    c->told_ns = told_ns(o, "walsvc", now_ns);
    c->counters[0] = (uint64_t)obs_store_total(o->store, TELEMETRY_wal_entries, NULL, now_ns);
    c->counters[1] = (uint64_t)obs_store_total(o->store, TELEMETRY_wal_bytes, NULL, now_ns);
    obs_store_buckets(o->store, TELEMETRY_wal_sync, NULL, now_ns, c->buckets[0]);
    obs_store_buckets(o->store, TELEMETRY_wal_append, NULL, now_ns, c->buckets[1]);
}

static void sample_query(const struct obs *o, int64_t now_ns, struct obs_counts *c)
{
    c->told_ns = told_ns(o, "querysvc", now_ns);
    c->counters[0] = (uint64_t)obs_store_total(o->store, TELEMETRY_query_requests, "get", now_ns);
}

/* The greatest of a gauge's series, and their sum; NAN: there are none. */
static void sample_gauges(const struct obs *o, int64_t now_ns, struct obs_sample *sample)
{
    const struct obs_series *s;
    size_t at = 0;
    sample->lag_s = sample->view_lag = NAN;
    while ((s = obs_store_next(o->store, now_ns, &at)) != NULL)
        if (s->metric == TELEMETRY_repl_lag_seconds)
            sample->lag_s = fmax(sample->lag_s, (double)s->value / NS_PER_S);
        else if (s->metric == TELEMETRY_query_view_lag)
            sample->view_lag = (isnan(sample->view_lag) ? 0 : sample->view_lag) + (double)s->value;
}

static void on_timer(void *arg)
{
    struct obs *o = arg;
    struct obs_sample sample = {.time_ms = clock_real_ns() / NS_PER_MS};
    int64_t now_ns = clock_mono_ns();
    pthread_mutex_lock(&o->lock);
    sample_wal(o, now_ns, &sample.wal);
    sample_query(o, now_ns, &sample.query);
    sample_gauges(o, now_ns, &sample);
    obs_history_add(o->history, &sample);
    pthread_mutex_unlock(&o->lock);
    loop_timer_after(o->service->loop, &o->timer, OBS_POINT_EACH_MS * INT64_C(1000000));
}

/* ---------------------------------------------------------------- of itself */

static void gather_events(struct obs *o, msgpack_packer *pk)
{
    pthread_mutex_lock(&o->lock);
    for (unsigned level = LOG_DEBUG; level <= LOG_ERROR; level++) {
        const char *name = log_level_name(level);
        telemetry_gather(pk, TELEMETRY_events, &name, (int64_t)obs_store_events(o->store, level));
    }
    telemetry_gather(pk, TELEMETRY_events_lost, NULL, (int64_t)obs_store_lost(o->store));
    pthread_mutex_unlock(&o->lock);
}

static uint32_t gather(void *arg, msgpack_packer *pk)
{
    struct obs *o = arg;
    const struct config *config = o->service->config;
    const char *const labels[] = {config->self->id, config->cluster, config->self->group, SHANGHAI_VERSION};
    telemetry_gather(pk, TELEMETRY_node_info, labels, 1);
    gather_events(o, pk);
    return 1 + LOG_ERROR + 1 + 1 + obs_poll_gather(o->poll, pk);
}

void obs_sample_open(struct obs *o)
{
    o->history = obs_history_open();
    o->timer = (struct loop_timer){.fn = on_timer, .arg = o};
    loop_timer_after(o->service->loop, &o->timer, 0);
    telemetry_on_gather(gather, o);
}

void obs_sample_close(struct obs *o)
{
    loop_timer_cancel(o->service->loop, &o->timer);
    obs_history_close(o->history);
}
