/* top: how a node is, as it changes. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

#include "nng_start.h"
#include "top_screen.h"

enum { ANSWER_MS = 2000, WHAT_MAX = 160 };

/* What the node said at one time. */
struct sample {
    int64_t at_ns; /* 0: there is none */
    struct sh_metrics metrics;
    struct sh_nodes nodes;
    struct sh_replicas replicas;
    bool has_nodes, has_replicas;
};

struct top {
    struct ctl *ctl;
    struct sh_client *client;
    struct sample now, before;
    char problem[WHAT_MAX]; /* why there is nothing newer; "" for none */
};

static void forget(struct sample *s)
{
    sh_metrics_free(&s->metrics);
    sh_nodes_free(&s->nodes);
    sh_replicas_free(&s->replicas);
    memset(s, 0, sizeof *s);
}

static void look(struct top *t)
{
    struct sample s = {0};
    enum sh_error e = sh_metrics(t->client, "", &s.metrics);
    if (e != SH_OK) {
        snprintf(t->problem, sizeof t->problem, "%s: %s", sh_error_name(e), sh_last_error_detail());
        return;
    }
    s.at_ns = clock_mono_ns();
    s.has_nodes = sh_nodes(t->client, &s.nodes) == SH_OK;
    s.has_replicas = sh_replicas(t->client, &s.replicas) == SH_OK;
    forget(&t->before);
    t->before = t->now;
    t->now = s;
    t->problem[0] = 0;
}

/* ---------------------------------------------------------------- metrics */

/* The series of a metric (without shanghai_) whose first label has the value, NULL for any. NULL: there is
 * none. */
static const struct sh_metric *find(const struct sample *s, const char *name, const char *value)
{
    for (size_t i = 0; i < s->metrics.count; i++) {
        const struct sh_metric *m = &s->metrics.all[i];
        if (strcmp(m->name + strlen("shanghai_"), name) == 0 &&
            (value == NULL || (m->label_count > 0 && strcmp(m->labels[0].value, value) == 0)))
            return m;
    }
    return NULL;
}

static bool value_of(const struct sample *s, const char *name, const char *value, int64_t *out)
{
    const struct sh_metric *m = find(s, name, value);
    if (m != NULL)
        *out = m->kind == SH_METRIC_HISTOGRAM ? (int64_t)m->count : m->value;
    return m != NULL;
}

/* A second, of a counter; false: not known, or it began anew. */
static bool rate_of(const struct top *t, const char *name, const char *value, double *out)
{
    int64_t now, before, ns = t->now.at_ns - t->before.at_ns;
    if (t->before.at_ns == 0 || !value_of(&t->now, name, value, &now) ||
        !value_of(&t->before, name, value, &before) || now < before || ns <= 0)
        return false;
    *out = (double)(now - before) * NS_PER_S / (double)ns;
    return true;
}

static int64_t sum_of(const struct sample *s, const char *name)
{
    int64_t sum = 0;
    for (size_t i = 0; i < s->metrics.count; i++)
        if (strcmp(s->metrics.all[i].name + strlen("shanghai_"), name) == 0)
            sum += s->metrics.all[i].value;
    return sum;
}

/* ---------------------------------------------------------------- cells */

static void rate_cell(const struct top *t, struct ctl_table *table, const char *name, const char *value)
{
    char text[CTL_TEXT_MAX];
    double rate;
    ctl_table_cell(table, "%s", rate_of(t, name, value, &rate) ? ctl_rate(rate, text) : "-");
}

static void bytes_rate_cell(const struct top *t, struct ctl_table *table, const char *name)
{
    char text[CTL_TEXT_MAX];
    double rate;
    ctl_table_cell(table, "%s", rate_of(t, name, NULL, &rate) ? ctl_bytes((uint64_t)rate, text) : "-");
}

static void quantile_cells(const struct top *t, struct ctl_table *table, const char *name, const char *value)
{
    char text[CTL_TEXT_MAX];
    const struct sh_metric *m = find(&t->now, name, value);
    uint64_t quantiles[] = {m != NULL ? m->p50 : 0, m != NULL ? m->p99 : 0};
    for (size_t i = 0; i < 2; i++)
        ctl_table_cell(table, "%s", quantiles[i] > 0 ? ctl_duration((int64_t)quantiles[i], text) : "-");
}

static void bytes_cell(const struct top *t, struct ctl_table *table, const char *name, const char *value)
{
    char text[CTL_TEXT_MAX];
    int64_t bytes;
    ctl_table_cell(table, "%s",
                   value_of(&t->now, name, value, &bytes) ? ctl_bytes((uint64_t)bytes, text) : "-");
}

static void number_cell(const struct top *t, struct ctl_table *table, const char *name, const char *value)
{
    char text[CTL_TEXT_MAX];
    int64_t number;
    ctl_table_cell(table, "%s",
                   value_of(&t->now, name, value, &number) ? ctl_grouped((uint64_t)number, text) : "-");
}

/* ---------------------------------------------------------------- parts of the view */

static void print_head(const struct top *t)
{
    char time[CTL_TEXT_MAX], age[CTL_TEXT_MAX];
    const struct ctl *ctl = t->ctl;
    const struct sh_nodes *nodes = &t->now.nodes;
    struct buf problem = {0};
    printf("%s%s%s of cluster %s, %s%s\n", ctl_style(ctl, CTL_BOLD),
           t->now.has_nodes ? nodes->node : "a node", ctl_style(ctl, CTL_PLAIN),
           t->now.has_nodes ? nodes->cluster : "?", ctl_time(clock_real_ns(), time),
           ctl->colour ? "; q quits" : "");
    if (t->problem[0] == 0)
        return;
    ctl_safe(&problem, slice_str(t->problem));
    printf("%snothing new for %s: %s%s\n", ctl_style(ctl, CTL_RED),
           ctl_age((clock_mono_ns() - t->now.at_ns) / NS_PER_MS, age), buf_cstr(&problem),
           ctl_style(ctl, CTL_PLAIN));
    buf_free(&problem);
}

static void print_rates(const struct top *t)
{
    static const char *const heads[] = {"", ">/s", ">bytes/s", ">p50", ">p99", ">refused/s"};
    static const char *const levels[] = {"local", "quorum", "all"};
    struct ctl_table table;
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    ctl_table_cell(&table, "entries, commits");
    rate_cell(t, &table, "wal_entries_total", NULL);
    bytes_rate_cell(t, &table, "wal_written_bytes_total");
    quantile_cells(t, &table, "wal_commit_seconds", NULL);
    rate_cell(t, &table, "wal_refused_appends_total", NULL);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        ctl_table_cell(&table, "appends, %s", levels[i]);
        rate_cell(t, &table, "wal_append_seconds", levels[i]);
        ctl_table_cell(&table, "%s", "");
        quantile_cells(t, &table, "wal_append_seconds", levels[i]);
        ctl_table_cell(&table, "%s", "");
    }
    ctl_table_cell(&table, "keys got");
    rate_cell(t, &table, "query_keys_total", "got");
    ctl_table_cell(&table, "%s", "");
    quantile_cells(t, &table, "query_get_seconds", NULL);
    rate_cell(t, &table, "query_refusals_total", NULL);
    ctl_table_cell(&table, "keys scanned");
    rate_cell(t, &table, "query_keys_total", "scanned");
    ctl_table_cell(&table, "%s", "");
    quantile_cells(t, &table, "query_scan_seconds", NULL);
    ctl_table_cell(&table, "%s", "");
    ctl_table_print(t->ctl, &table);
}

static void print_state(const struct top *t)
{
    char view[CTL_TEXT_MAX], queue[CTL_TEXT_MAX], disk[CTL_TEXT_MAX];
    int64_t clients = 0, waiting = 0, room = 0;
    value_of(&t->now, "query_clients", NULL, &clients);
    value_of(&t->now, "wal_queue_bytes", NULL, &waiting);
    value_of(&t->now, "wal_disk_free_bytes", NULL, &room);
    printf("\n%" PRId64 " clients; %s wait to be committed; the view is %s entries behind; %s of disk free\n",
           clients, ctl_bytes((uint64_t)waiting, queue),
           ctl_grouped((uint64_t)sum_of(&t->now, "query_view_lag_entries"), view),
           ctl_bytes((uint64_t)room, disk));
}

static void print_services(const struct top *t)
{
    static const char *const heads[] = {"service", "state", ">restarts", ">cpu", ">memory", ">fds"};
    const struct ctl *ctl = t->ctl;
    struct ctl_table table;
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    for (size_t i = 0; i < t->now.metrics.count; i++) {
        const struct sh_metric *m = &t->now.metrics.all[i];
        const char *service = m->labels[0].value;
        double cpu;
        if (strcmp(m->name, "shanghai_service_up") != 0)
            continue;
        ctl_table_cell(&table, "%s", service);
        ctl_table_cell(&table, "%s%s%s", ctl_style(ctl, m->value != 0 ? CTL_GREEN : CTL_RED),
                       m->value != 0 ? "running" : "down", ctl_style(ctl, CTL_PLAIN));
        number_cell(t, &table, "service_restarts_total", service);
        if (rate_of(t, "process_cpu_seconds_total", service, &cpu))
            ctl_table_cell(&table, "%.1f %%", cpu / NS_PER_S * 100);
        else
            ctl_table_cell(&table, "-");
        bytes_cell(t, &table, "process_resident_memory_bytes", service);
        number_cell(t, &table, "process_open_fds", service);
    }
    putchar('\n');
    ctl_table_print(ctl, &table);
}

static void print_all(const struct top *t)
{
    print_head(t);
    if (t->now.at_ns == 0)
        return;
    putchar('\n');
    print_rates(t);
    print_state(t);
    print_services(t);
    if (t->now.has_nodes) {
        putchar('\n');
        ctl_print_nodes(t->ctl, &t->now.nodes, false);
    }
    if (t->now.has_replicas && t->now.replicas.follower_count + t->now.replicas.followed_count > 0) {
        putchar('\n');
        ctl_print_replicas(t->ctl, &t->now.replicas);
    }
}

/* ---------------------------------------------------------------- the command */

static void draw(struct top_screen *screen, const struct top *t)
{
    top_screen_begin();
    print_all(t);
    top_screen_show(screen);
}

/* Rates need two looks: without a terminal the first one is not shown. */
static int run_views(struct top *t, struct top_screen *screen, uint64_t views, int64_t each_ns)
{
    int64_t due_ns = clock_mono_ns();
    enum top_event event;
    bool is_first = screen == NULL;
    look(t);
    while (views > 0) {
        if (!is_first) {
            draw(screen, t);
            views--;
        }
        if (views == 0)
            break;
        is_first = false;
        due_ns += each_ns;
        while ((event = top_screen_wait(screen, due_ns)) == TOP_REDRAW)
            draw(screen, t);
        if (event == TOP_QUIT)
            break;
        look(t);
        if (t->problem[0] != 0)
            due_ns = clock_mono_ns(); /* what was not answered has taken its time */
    }
    return t->now.at_ns == 0 ? CTL_FAILED : CTL_DONE;
}

/* An answer is waited for shortly: the view is to go on, and says that there is none. */
static int open_client(const struct ctl *ctl, struct sh_client **client)
{
    struct ctl_endpoints endpoints;
    if (!ctl_find_endpoints(ctl, &endpoints))
        return CTL_USAGE;
    struct sh_options options = ctl_client_options(ctl, &endpoints);
    if (!ctl_has(ctl, "timeout"))
        options.timeout_ms = ANSWER_MS;
    nng_start();
    enum sh_error e = sh_open(&options, client);
    if (e != SH_OK)
        ctl_fail(ctl, endpoints.text[0], e, sh_last_error_detail());
    ctl_endpoints_free(&endpoints);
    return e == SH_OK ? CTL_DONE : CTL_USAGE;
}

static int run_top(struct ctl *ctl)
{
    struct top t = {.ctl = ctl};
    if (ctl->format != CTL_TEXT)
        return ctl_usage(ctl, "top is for people; `shanghaictl metrics` has the same as JSON");
    int code = open_client(ctl, &t.client);
    if (code != CTL_DONE)
        return code;
    struct top_screen *screen = ctl_has(ctl, "count") ? NULL : top_screen_open();
    uint64_t views = ctl_number(ctl, "count", screen != NULL ? UINT64_MAX : 1);
    code = run_views(&t, screen, views, (int64_t)ctl_number(ctl, "interval", NS_PER_S));
    top_screen_close(screen);
    if (code != CTL_DONE)
        fprintf(stderr, "shanghaictl: top: %s\n", t.problem);
    forget(&t.now);
    forget(&t.before);
    sh_close(t.client);
    return code;
}

static const struct ctl_option options[] = {
    {"interval", 'i', CTL_TIME, "T", "time between two looks, 1s without it", UINT64_C(100000000),
     UINT64_C(3600000000000)},
    {"count", 'n', CTL_NUMBER, "N", "print N views one after the other, and end", 1, 1000000},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_top = {
    .name = "top",
    .values = "",
    .summary = "How a node is, live",
    .more =
        "Rates, latencies of the last 10 to 20 s, what waits, services, nodes and copies, anew each second;\n"
        "q quits. Where there is no terminal, or with --count, it prints views as text, one without it.",
    .options = options,
    .reads = true,
    .run = run_top,
};
