/* Metrics as clients of the link get them. */
#include <string.h>

#include "obs_parts.h"

static void pack_labels(msgpack_packer *pk, const struct metric *m, const struct obs_series *s)
{
    const char *name = m->labels;
    msgpack_pack_map(pk, s->label_count);
    for (unsigned i = 0; i < s->label_count; i++) {
        size_t len = strcspn(name, ",");
        mp_pack_str(pk, slice_of(name, len));
        mp_pack_str(pk, s->labels[i]);
        name += len + (name[len] == ',');
    }
}

static void pack_histogram(msgpack_packer *pk, const struct obs_store *store, const struct metric *m,
                           const struct obs_series *s)
{
    uint64_t counts[TELEMETRY_BUCKETS] = {0}, recent[TELEMETRY_BUCKETS] = {0}, count = 0;
    obs_series_buckets(s, counts);
    obs_store_recent(store, s, recent);
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        count += counts[i];
    msgpack_pack_array(pk, 3);
    msgpack_pack_uint64(pk, count);
    msgpack_pack_uint64(pk, (uint64_t)obs_quantile(m, recent, 0.50));
    msgpack_pack_uint64(pk, (uint64_t)obs_quantile(m, recent, 0.99));
}

static void pack_series(msgpack_packer *pk, const struct obs_store *store, const struct metric *m,
                        const struct obs_series *s)
{
    bool is_histogram = m->kind == METRIC_HISTOGRAM;
    msgpack_pack_array(pk, is_histogram ? 6 : 5);
    mp_pack_cstr(pk, m->name);
    msgpack_pack_uint8(pk, (uint8_t)m->kind);
    msgpack_pack_uint8(pk, (uint8_t)m->unit);
    pack_labels(pk, m, s);
    msgpack_pack_int64(pk, s->value);
    if (is_histogram)
        pack_histogram(pk, store, m, s);
}

/* Without the array's own head. */
static uint32_t pack_all(const struct obs_store *store, struct slice prefix, struct buf *out)
{
    const struct metric *table = metrics_table();
    const struct obs_series *s;
    msgpack_packer pk;
    uint32_t count = 0;
    size_t at = 0;
    int64_t now_ns = clock_mono_ns();
    mp_packer(&pk, out);
    while ((s = obs_store_next(store, now_ns, &at)) != NULL) {
        const struct metric *m = &table[s->metric];
        if (strncmp(m->name, (const char *)prefix.data, prefix.len) != 0)
            continue;
        pack_series(&pk, store, m, s);
        count++;
    }
    return count;
}

void obs_on_metrics(struct obs *o, const struct link_request *request)
{
    struct msg_metrics m;
    struct buf all = {0}, series = {0}, body = {0};
    msgpack_packer pk;
    enum sh_error e = msg_decode(MSG_metrics, request->body, &m);
    if (e != SH_OK) {
        link_server_refuse(o->server, request->token, &(struct msg_error){.code = e});
        return;
    }
    pthread_mutex_lock(&o->lock);
    uint32_t count = pack_all(o->store, m.prefix, &all);
    pthread_mutex_unlock(&o->lock);
    mp_packer(&pk, &series);
    msgpack_pack_array(&pk, count);
    buf_append(&series, all.data, all.len);
    msg_encode(MSG_metrics_reply, &(struct msg_metrics_reply){.series = buf_slice(&series)}, &body);
    link_server_answer(o->server, request->token, MSG_metrics_reply, buf_slice(&body));
    buf_free(&all);
    buf_free(&series);
    buf_free(&body);
}
