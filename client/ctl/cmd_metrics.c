/* metrics: what a node measures. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

#define PREFIX "shanghai_"

/* ---------------------------------------------------------------- JSON: base units, as Prometheus has them
 */

static void json_value(struct json_writer *j, const char *key, const struct sh_metric *m, int64_t value)
{
    if (m->unit == SH_METRIC_SECONDS)
        json_real(j, key, (double)value / NS_PER_S, 9);
    else
        json_int(j, key, value);
}

static void json_metric(struct json_writer *j, const struct sh_metric *m)
{
    json_open(j, NULL, '{');
    json_text(j, "name", m->name);
    json_text(j, "kind", sh_metric_kind_name(m->kind));
    json_open(j, "labels", '{');
    for (size_t i = 0; i < m->label_count; i++)
        json_text(j, m->labels[i].name, m->labels[i].value);
    json_close(j, '}');
    if (m->kind == SH_METRIC_HISTOGRAM) {
        json_uint(j, "count", m->count);
        json_value(j, "sum", m, m->value);
        json_value(j, "p50", m, (int64_t)m->p50);
        json_value(j, "p99", m, (int64_t)m->p99);
    } else {
        json_value(j, "value", m, m->value);
    }
    json_close(j, '}');
}

static void print_json(const struct sh_metrics *metrics)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '[');
    for (size_t i = 0; i < metrics->count; i++)
        json_metric(&j, &metrics->all[i]);
    json_close(&j, ']');
    json_print(&j);
}

/* ---------------------------------------------------------------- text */

#define LONG_AGO_NS (INT64_C(1000000000) * NS_PER_S) /* of 2001: no duration is as long */

static const char *value_text(const struct sh_metric *m, int64_t value, char out[CTL_TEXT_MAX])
{
    if (m->unit == SH_METRIC_SECONDS)
        return value > LONG_AGO_NS ? ctl_time(value, out) : ctl_duration(value, out);
    if (m->unit == SH_METRIC_BYTES)
        return ctl_bytes((uint64_t)value, out);
    if (value >= 0)
        return ctl_grouped((uint64_t)value, out);
    snprintf(out, CTL_TEXT_MAX, "%" PRId64, value);
    return out;
}

static void labels_cell(struct ctl_table *table, const struct sh_metric *m)
{
    struct buf labels = {0};
    for (size_t i = 0; i < m->label_count; i++) {
        buf_printf(&labels, "%s%s=", i > 0 ? " " : "", m->labels[i].name);
        ctl_safe(&labels, slice_str(m->labels[i].value));
    }
    ctl_table_cell(table, "%s", labels.len > 0 ? buf_cstr(&labels) : "");
    buf_free(&labels);
}

static void add_row(struct ctl_table *table, const struct sh_metric *m)
{
    char value[CTL_TEXT_MAX], p50[CTL_TEXT_MAX], p99[CTL_TEXT_MAX];
    bool is_histogram = m->kind == SH_METRIC_HISTOGRAM, has_any = is_histogram && m->count > 0;
    ctl_table_cell(table, "%s",
                   m->name + (strncmp(m->name, PREFIX, strlen(PREFIX)) == 0 ? strlen(PREFIX) : 0));
    labels_cell(table, m);
    ctl_table_cell(table, "%s", is_histogram ? ctl_grouped(m->count, value) : value_text(m, m->value, value));
    ctl_table_cell(table, "%s", has_any ? value_text(m, (int64_t)m->p50, p50) : "");
    ctl_table_cell(table, "%s", has_any ? value_text(m, (int64_t)m->p99, p99) : "");
}

static void print_text(const struct ctl *ctl, const struct sh_metrics *metrics)
{
    static const char *const heads[] = {"metric", "labels", ">value", ">p50", ">p99"};
    struct ctl_table table;
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    for (size_t i = 0; i < metrics->count; i++)
        add_row(&table, &metrics->all[i]);
    ctl_table_print(ctl, &table);
}

static int run_metrics(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_metrics metrics;
    const char *prefix = ctl->value_count > 0 ? ctl->values[0] : "";
    char whole[128];
    bool has_prefix = strncmp(prefix, PREFIX, strlen(PREFIX)) == 0;
    if (snprintf(whole, sizeof whole, "%s%s", has_prefix ? "" : PREFIX, prefix) >= (int)sizeof whole)
        return ctl_usage(ctl, "no metric has such a long name");
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_metrics(client, whole, &metrics);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "metrics", e, sh_last_error_detail());
    else if (ctl->format == CTL_JSON)
        print_json(&metrics);
    else
        print_text(ctl, &metrics);
    sh_metrics_free(&metrics);
    sh_close(client);
    return code;
}

const struct ctl_command cmd_metrics = {
    .name = "metrics",
    .values = "[PREFIX]",
    .values_most = 1,
    .summary = "What a node measures",
    .more =
        "Of metrics whose name begins with PREFIX, as docs/metrics.md has them; shanghai_ in front of it\n"
        "need not be there. Counters grow from the start of the daemon that keeps them. Of what has a\n"
        "distribution: how many there were, and of the last 10 to 20 s the middle one (p50), and what 99\n"
        "of 100 did not exceed.",
    .reads = true,
    .run = run_metrics,
};
