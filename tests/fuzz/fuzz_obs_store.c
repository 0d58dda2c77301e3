/* What daemons tell obssvc, of any bytes: it is refused, or what is kept can be walked, told and counted. */
#include <assert.h>
#include <stdlib.h>

#include "clock.h"
#include "log.h"
#include "obs_store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MESSAGES_MAX = 8, TEXT_MAX = 64 << 20 };

static void walk(const struct obs_store *store, int64_t now_ns)
{
    const struct obs_series *s;
    const struct obs_event *e;
    unsigned metric = 0;
    size_t at = 0, count = 0;
    while ((s = obs_store_next(store, now_ns, &at)) != NULL) {
        uint64_t counts[TELEMETRY_BUCKETS] = {0};
        assert(s->metric >= metric && s->metric < TELEMETRY_ALL);
        metric = s->metric;
        obs_series_buckets(s, counts);
        assert(obs_quantile(&metrics_table()[metric], counts, 0.99) >= 0);
        count++;
    }
    assert(count <= (size_t)OBS_SERVICES * OBS_SERIES_MAX);
    for (uint64_t behind = 0; (e = obs_store_event(store, behind)) != NULL; behind = e->id) {
        struct mp m = mp_of(e->fields);
        bool whole = mp_skip(&m) && mp_at_end(&m);
        assert(whole && e->id > behind && e->level <= LOG_ERROR && utf8_valid(e->text));
    }
}

/* The input: for each message a byte for its daemon, two for the length of what the message decodes from. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const services[] = {"walsvc", "replsvc", "member", "\xff\xff\xff\xff\xff\xff"};
    struct obs_store *store = obs_store_open();
    struct buf text = {0};
    int64_t now_ns = NS_PER_S;
    for (unsigned i = 0; i < MESSAGES_MAX && size >= 3; i++) {
        size_t len = data[1] | (size_t)data[2] << 8;
        const struct slice service = slice_of(services[data[0] % 4], 6);
        data += 3;
        size -= 3;
        len = len < size ? len : size;
        uint8_t *bytes = xmalloc(len + 1); /* on its own, so that no slice may point into it later */
        for (size_t b = 0; b < len; b++)
            bytes[b] = data[b];
        struct mp m = {bytes, bytes + len};
        uint64_t taken;
        struct msg_telemetry told = {.service = service, .boot = {{(uint8_t)(i / 2)}}};
        if (mp_raw(&m, &told.series) && mp_raw(&m, &told.happened) &&
            obs_store_take(store, &told, now_ns, &taken) == SH_OK)
            assert(obs_store_age_ns(store, "none", now_ns) == -1);
        free(bytes);
        walk(store, now_ns);
        data += len;
        size -= len;
        now_ns += NS_PER_S;
    }
    obs_store_text(store, now_ns, &text);
    assert(text.len < TEXT_MAX);
    buf_free(&text);
    obs_store_close(store);
    return 0;
}
