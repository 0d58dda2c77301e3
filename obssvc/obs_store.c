/* The store. What was told is kept as it came; series point into it. */
#include "obs_store.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"

enum { EVENTS_AT_ONCE = 4096, EVENT_PART_MAX = 4096 };

/* All series as a daemon told them once. */
struct told {
    int64_t at_ns;
    struct buf bytes; /* the series point into it */
    struct obs_series *series;
    size_t count;
};

struct daemon {
    char name[65];
    struct id16 boot;
    struct told now, mid, old; /* mid is OBS_RECENT_NS old at most, and old was mid before */
    uint64_t taken, lost;
};

struct kept_event {
    struct obs_event event;
    struct buf bytes;
};

struct obs_store {
    struct daemon daemons[OBS_SERVICES];
    size_t daemon_count;
    struct kept_event events[OBS_EVENTS]; /* event n is events[n % OBS_EVENTS] */
    uint64_t last_event, by_level[LOG_ERROR + 1];
    uint64_t lost_before; /* by processes that are gone */
};

static void forget(struct told *told)
{
    buf_free(&told->bytes);
    free(told->series);
    *told = (struct told){0};
}

struct obs_store *obs_store_open(void)
{
    return xcalloc(1, sizeof(struct obs_store));
}

void obs_store_close(struct obs_store *store)
{
    for (size_t i = 0; i < store->daemon_count; i++) {
        struct daemon *d = &store->daemons[i];
        forget(&d->now);
        forget(&d->mid);
        forget(&d->old);
    }
    for (size_t i = 0; i < OBS_EVENTS; i++)
        buf_free(&store->events[i].bytes);
    free(store);
}

/* ---------------------------------------------------------------- what comes in */

static bool is_label(struct slice text)
{
    return text.len <= OBS_LABEL_BYTES && utf8_valid(text) && memchr(text.data, 0, text.len) == NULL;
}

static const struct metric *metric_named(struct slice name, unsigned *number)
{
    const struct metric *table = metrics_table();
    for (unsigned i = 0; i < TELEMETRY_ALL; i++)
        if (slice_is(name, table[i].name)) {
            *number = i;
            return &table[i];
        }
    return NULL;
}

static unsigned label_count_of(const struct metric *m)
{
    unsigned count = *m->labels != 0;
    for (const char *at = m->labels; *at != 0; at++)
        count += *at == ',';
    return count;
}

static bool read_buckets(struct mp *m, struct obs_series *s)
{
    uint32_t parts, count;
    uint64_t sum, bucket, value, least = 0;
    if (!mp_array(m, &parts) || parts != 2 || !mp_uint(m, &sum))
        return false;
    s->value = (int64_t)sum;
    struct mp look = *m;
    if (!mp_array(&look, &count) || count % 2 != 0)
        return false;
    for (uint32_t i = 0; i < count; i += 2) {
        if (!mp_uint(&look, &bucket) || !mp_uint(&look, &value) || bucket < least ||
            bucket >= TELEMETRY_BUCKETS)
            return false;
        least = bucket + 1;
    }
    return mp_raw(m, &s->buckets);
}

/* *known: false when it is of a metric that we have not. */
static bool read_series(struct mp *m, struct obs_series *s, bool *known)
{
    uint32_t parts, labels;
    struct slice name, skipped;
    *s = (struct obs_series){0};
    if (!mp_array(m, &parts) || parts != 3 || !mp_str(m, &name) || !mp_array(m, &labels) ||
        labels > TELEMETRY_LABELS)
        return false;
    s->label_count = labels;
    for (uint32_t i = 0; i < labels; i++)
        if (!mp_str(m, &s->labels[i]) || !is_label(s->labels[i]))
            return false;
    const struct metric *metric = metric_named(name, &s->metric);
    *known = metric != NULL && labels == label_count_of(metric);
    if (!*known)
        return mp_raw(m, &skipped);
    return metric->kind == METRIC_HISTOGRAM ? read_buckets(m, s) : mp_int(m, &s->value);
}

/* Whether the daemon is the one that keeps it: two that told the same series would spoil each other's. */
static bool is_its_own(const struct obs_series *s, struct slice service)
{
    const struct metric *metric = &metrics_table()[s->metric];
    return strcmp(metric->service, "all") == 0 ? slice_equal(s->labels[0], service)
                                               : slice_is(service, metric->service);
}

static int compare_slices(struct slice a, struct slice b)
{
    int order = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* By metric, then by labels. */
static int compare_series(const void *first, const void *second)
{
    const struct obs_series *a = first, *b = second;
    int order = (a->metric > b->metric) - (a->metric < b->metric);
    for (unsigned i = 0; i < a->label_count && order == 0; i++)
        order = compare_slices(a->labels[i], b->labels[i]);
    return order;
}

/* Sorts, and leaves out what was told before: Prometheus takes nothing where a series stands twice. */
static size_t put_in_order(struct obs_series *all, size_t count)
{
    size_t used = 0;
    qsort(all, count, sizeof *all, compare_series);
    for (size_t i = 0; i < count; i++)
        if (used == 0 || compare_series(&all[used - 1], &all[i]) != 0)
            all[used++] = all[i];
    return used;
}

/* Into a list of its own, which the caller frees. */
static enum sh_error read_all(const struct msg_telemetry *telemetry, struct obs_series **out,
                              size_t *out_count)
{
    struct mp m = mp_of(telemetry->series);
    uint32_t count;
    size_t used = 0;
    if (!mp_array(&m, &count))
        return SH_BAD_REQUEST;
    if (count > OBS_SERIES_MAX)
        return SH_TOO_LARGE;
    struct obs_series *all = xcalloc(count + 1, sizeof *all);
    for (uint32_t i = 0; i < count; i++) {
        bool known;
        if (!read_series(&m, &all[used], &known)) {
            free(all);
            return SH_BAD_REQUEST;
        }
        used += known && is_its_own(&all[used], telemetry->service);
    }
    *out = all;
    *out_count = put_in_order(all, used);
    return SH_OK;
}

/* False: malformed. */
static bool read_event(struct mp *m, uint64_t *number, struct obs_event *e)
{
    uint32_t parts, fields;
    uint64_t time_ms, level;
    if (!mp_array(m, &parts) || parts != 6 || !mp_uint(m, number) || !mp_uint(m, &time_ms) ||
        time_ms > INT64_MAX || !mp_uint(m, &level) || level > LOG_ERROR || !mp_str(m, &e->kind) ||
        !is_label(e->kind) || !mp_str(m, &e->text) || e->text.len > EVENT_PART_MAX)
        return false;
    struct mp look = *m;
    e->time_ms = (int64_t)time_ms;
    e->level = (unsigned)level;
    return mp_map(&look, &fields) && mp_raw(m, &e->fields) && e->fields.len <= EVENT_PART_MAX;
}

static bool take_events(struct obs_store *store, struct daemon *d, struct slice bytes, bool keep)
{
    struct mp m = mp_of(bytes);
    uint32_t count;
    uint64_t number;
    if (!mp_array(&m, &count) || count > EVENTS_AT_ONCE)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct obs_event event = {.service = slice_str(d->name)};
        if (!read_event(&m, &number, &event))
            return false;
        if (keep && number > d->taken) {
            obs_store_add_event(store, &event);
            d->taken = number;
        }
    }
    return true;
}

static struct daemon *daemon_named(const struct obs_store *store, struct slice name)
{
    for (size_t i = 0; i < store->daemon_count; i++)
        if (slice_is(name, store->daemons[i].name))
            return (struct daemon *)(uintptr_t)&store->daemons[i];
    return NULL;
}

/* NULL: there is no room. */
static struct daemon *make_daemon(struct obs_store *store, struct slice name)
{
    struct daemon *d = daemon_named(store, name);
    if (d != NULL || store->daemon_count == OBS_SERVICES)
        return d;
    d = &store->daemons[store->daemon_count++];
    memcpy(d->name, name.data, name.len);
    return d;
}

/* Slices move from the message to a copy of it. */
static void adopt(struct told *told, struct slice bytes, struct obs_series *series, size_t count)
{
    forget(told);
    buf_append(&told->bytes, bytes.data, bytes.len);
    for (size_t i = 0; i < count; i++) {
        for (unsigned l = 0; l < series[i].label_count; l++)
            series[i].labels[l].data = told->bytes.data + (series[i].labels[l].data - bytes.data);
        if (series[i].buckets.len > 0)
            series[i].buckets.data = told->bytes.data + (series[i].buckets.data - bytes.data);
    }
    told->series = series;
    told->count = count;
}

static void move_on(struct daemon *d, int64_t now_ns)
{
    if (d->now.at_ns == 0 || (d->mid.at_ns != 0 && now_ns - d->mid.at_ns < OBS_RECENT_NS))
        return;
    forget(&d->old);
    d->old = d->mid;
    d->mid = d->now;
    d->now = (struct told){0};
}

/* Another process of the daemon's name counts from 0 again. */
static void begin_anew(struct obs_store *store, struct daemon *d, struct id16 boot)
{
    store->lost_before += d->lost;
    d->boot = boot;
    d->taken = 0;
    forget(&d->now);
    forget(&d->mid);
    forget(&d->old);
}

enum sh_error obs_store_take(struct obs_store *store, const struct msg_telemetry *m, int64_t now_ns,
                             uint64_t *taken)
{
    struct obs_series *series;
    size_t count;
    struct daemon checked = {0};
    if (m->service.len == 0 || m->service.len >= sizeof checked.name || !is_label(m->service) ||
        !take_events(store, &checked, m->happened, false))
        return SH_BAD_REQUEST;
    enum sh_error e = read_all(m, &series, &count);
    if (e != SH_OK)
        return e;
    struct daemon *d = make_daemon(store, m->service);
    if (d == NULL) {
        free(series);
        return SH_OVERLOADED;
    }
    if (!id16_equal(d->boot, m->boot))
        begin_anew(store, d, m->boot);
    move_on(d, now_ns);
    d->lost = m->lost;
    adopt(&d->now, m->series, series, count);
    d->now.at_ns = now_ns;
    take_events(store, d, m->happened, true);
    *taken = d->taken;
    return SH_OK;
}

void obs_store_add_event(struct obs_store *store, const struct obs_event *event)
{
    struct kept_event *kept = &store->events[++store->last_event % OBS_EVENTS];
    const struct slice from[] = {event->service, event->kind, event->text, event->fields};
    struct slice *const to[] = {&kept->event.service, &kept->event.kind, &kept->event.text,
                                &kept->event.fields};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof from / sizeof *from; i++)
        bytes += from[i].len;
    kept->event = *event;
    kept->event.id = store->last_event;
    store->by_level[event->level]++;
    kept->bytes.len = 0;
    buf_reserve(&kept->bytes, bytes); /* so that it stays where it is */
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        *to[i] = slice_of(kept->bytes.data + kept->bytes.len, from[i].len);
        buf_append(&kept->bytes, from[i].data, from[i].len);
    }
}

/* ---------------------------------------------------------------- what is there */

static bool is_there(const struct daemon *d, int64_t now_ns)
{
    return now_ns - d->now.at_ns < OBS_SILENT_NS;
}

/* By metric first, then by daemon: *at is metric * OBS_SERVICES * (OBS_SERIES_MAX + 1) + daemon * ... +
 * place. */
const struct obs_series *obs_store_next(const struct obs_store *store, int64_t now_ns, size_t *at)
{
    const size_t each = OBS_SERIES_MAX + 1, all = OBS_SERVICES * each;
    for (; *at < TELEMETRY_ALL * all; *at = (*at / each + 1) * each) {
        size_t metric = *at / all, daemon = *at % all / each;
        if (daemon >= store->daemon_count || !is_there(&store->daemons[daemon], now_ns))
            continue;
        const struct told *told = &store->daemons[daemon].now;
        for (size_t i = *at % each; i < told->count && told->series[i].metric <= metric; i++)
            if (told->series[i].metric == metric) {
                *at = metric * all + daemon * each + i + 1;
                return &told->series[i];
            }
    }
    return NULL;
}

int64_t obs_store_age_ns(const struct obs_store *store, const char *service, int64_t now_ns)
{
    const struct daemon *d = daemon_named(store, slice_str(service));
    return d != NULL ? now_ns - d->now.at_ns : -1;
}

static bool is_wanted(const struct obs_series *s, unsigned metric, const char *label)
{
    return s->metric == metric && (label == NULL || (s->label_count > 0 && slice_is(s->labels[0], label)));
}

int64_t obs_store_total(const struct obs_store *store, unsigned metric, const char *label, int64_t now_ns)
{
    int64_t total = 0;
    size_t at = 0;
    const struct obs_series *s;
    while ((s = obs_store_next(store, now_ns, &at)) != NULL)
        if (is_wanted(s, metric, label))
            total += s->value;
    return total;
}

void obs_series_buckets(const struct obs_series *s, uint64_t counts[TELEMETRY_BUCKETS])
{
    struct mp m = mp_of(s->buckets);
    uint32_t count = 0;
    uint64_t bucket, value;
    mp_array(&m, &count);
    for (uint32_t i = 0; i + 1 < count && mp_uint(&m, &bucket) && mp_uint(&m, &value); i += 2)
        counts[bucket] += value;
}

void obs_store_buckets(const struct obs_store *store, unsigned metric, const char *label, int64_t now_ns,
                       uint64_t counts[TELEMETRY_BUCKETS])
{
    size_t at = 0;
    const struct obs_series *s;
    while ((s = obs_store_next(store, now_ns, &at)) != NULL)
        if (is_wanted(s, metric, label))
            obs_series_buckets(s, counts);
}

/* The daemon whose newest series it is one of. */
static const struct daemon *daemon_of(const struct obs_store *store, const struct obs_series *s)
{
    for (size_t i = 0; i < store->daemon_count; i++) {
        const struct told *now = &store->daemons[i].now;
        if (s >= now->series && s < now->series + now->count)
            return &store->daemons[i];
    }
    return NULL;
}

static bool same_series(const struct obs_series *a, const struct obs_series *b)
{
    if (a->metric != b->metric || a->label_count != b->label_count)
        return false;
    for (unsigned i = 0; i < a->label_count; i++)
        if (!slice_equal(a->labels[i], b->labels[i]))
            return false;
    return true;
}

void obs_store_recent(const struct obs_store *store, const struct obs_series *series,
                      uint64_t counts[TELEMETRY_BUCKETS])
{
    uint64_t before[TELEMETRY_BUCKETS] = {0};
    const struct daemon *d = daemon_of(store, series);
    const struct told *then = d == NULL ? NULL : d->old.at_ns != 0 ? &d->old : &d->mid;
    obs_series_buckets(series, counts);
    for (size_t i = 0; then != NULL && i < then->count; i++)
        if (same_series(&then->series[i], series))
            obs_series_buckets(&then->series[i], before);
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        counts[i] -= before[i];
}

double obs_quantile(const struct metric *metric, const uint64_t counts[TELEMETRY_BUCKETS], double q)
{
    uint64_t total = 0, before = 0;
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        total += counts[i];
    if (total == 0)
        return 0;
    double want = q * (double)total;
    unsigned i = 0;
    while (i < TELEMETRY_BOUNDS && (double)(before + counts[i]) < want)
        before += counts[i++];
    /* Between the bucket's bounds as if what is in it were spread evenly, as Prometheus has it. */
    double least = i == 0 ? 0 : (double)telemetry_bound(i - 1);
    double most = i < TELEMETRY_BOUNDS ? (double)telemetry_bound(i) : least;
    double share = counts[i] > 0 ? (want - (double)before) / (double)counts[i] : 1;
    double value = least + (most - least) * share;
    return metric->unit == METRIC_SECONDS ? value * (double)NS_PER_US : value;
}

const struct obs_event *obs_store_event(const struct obs_store *store, uint64_t behind)
{
    uint64_t first = store->last_event > OBS_EVENTS ? store->last_event - OBS_EVENTS + 1 : 1;
    uint64_t id = behind >= first ? behind + 1 : first;
    return behind < store->last_event ? &store->events[id % OBS_EVENTS].event : NULL;
}

uint64_t obs_store_last_event(const struct obs_store *store)
{
    return store->last_event;
}

uint64_t obs_store_events(const struct obs_store *store, unsigned level)
{
    return store->by_level[level];
}

uint64_t obs_store_lost(const struct obs_store *store)
{
    uint64_t lost = store->lost_before;
    for (size_t i = 0; i < store->daemon_count; i++)
        lost += store->daemons[i].lost;
    return lost;
}
