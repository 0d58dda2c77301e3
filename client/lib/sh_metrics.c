/* What a node measures. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

const char *sh_metric_kind_name(enum sh_metric_kind kind)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    return (unsigned)kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

static bool decode_labels(struct mp *m, struct sh_metric *out)
{
    uint32_t count;
    struct slice name, value;
    if (!mp_map(m, &count) || count > SH_METRIC_LABELS)
        return false;
    for (out->label_count = 0; out->label_count < count; out->label_count++) {
        struct sh_metric_label *label = &out->labels[out->label_count];
        if (!mp_str(m, &name) || !mp_str(m, &value) || !shc_copy(label->name, sizeof label->name, name) ||
            !shc_copy(label->value, sizeof label->value, value))
            return false;
    }
    return true;
}

static bool decode_counts(struct mp *m, struct sh_metric *out)
{
    uint32_t parts;
    return mp_array(m, &parts) && parts == 3 && mp_uint(m, &out->count) && mp_uint(m, &out->p50) &&
           mp_uint(m, &out->p99);
}

static bool decode_metric(struct mp *m, void *item)
{
    struct sh_metric *out = item;
    uint32_t parts;
    uint64_t kind, unit;
    struct slice name;
    memset(out, 0, sizeof *out);
    if (!mp_array(m, &parts) || !mp_str(m, &name) || !shc_copy(out->name, sizeof out->name, name) ||
        !mp_uint(m, &kind) || kind > SH_METRIC_HISTOGRAM || !mp_uint(m, &unit) || unit > SH_METRIC_SECONDS ||
        parts != (kind == SH_METRIC_HISTOGRAM ? 6 : 5) || !decode_labels(m, out) || !mp_int(m, &out->value))
        return false;
    out->kind = (enum sh_metric_kind)kind;
    out->unit = (enum sh_metric_unit)unit;
    return kind != SH_METRIC_HISTOGRAM || decode_counts(m, out);
}

enum sh_error sh_metrics(struct sh_client *c, const char *prefix, struct sh_metrics *metrics)
{
    struct shc_call call = {.once = true};
    const struct msg_metrics ask = {.prefix = slice_str(prefix)};
    struct msg_metrics_reply reply;
    memset(metrics, 0, sizeof *metrics);
    enum sh_error e = shc_ask(c, &call, MSG_metrics, &ask, MSG_metrics_reply, &reply);
    if (e == SH_OK) {
        const struct shc_items items = shc_items(reply.series, sizeof *metrics->all, decode_metric);
        metrics->all = items.all;
        metrics->count = items.count;
        if (!items.good) {
            shc_detail("malformed answer");
            e = SH_INTERNAL;
            sh_metrics_free(metrics);
        }
    }
    shc_call_free(&call);
    return e;
}

void sh_metrics_free(struct sh_metrics *metrics)
{
    free(metrics->all);
    memset(metrics, 0, sizeof *metrics);
}
