/* member_sim [--nodes N] [--loss P] [--seed S] [--hours H] [--scenario NAME] [--faults LIST] [--row]
 * [--verbose]
 *
 * Simulates a whole cluster of membersvc cores (docs/testing.md). Everything in a run follows from its seed;
 * a failure prints the command that repeats it. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "member_world.h"

enum {
    SETTLE_S = 180, /* of calm, at most, until all views are equal and true */
    SHOWN_S = 60,   /* until all show a change, at most, when more is lost than promises are made for */
    TAME_PERCENT = 5,
    LEAST_LATE_MS = 100, /* that a heartbeat may be late by, and so a crash be shown earlier */
    DETECT_S = 16,       /* promised up to TAME_PERCENT: a crash is shown as down by the first one */
    SMALL_NODES = 100,
    SMALL_REACH_S = 3, /* and a change has reached all nodes, up to SMALL_NODES, */
    REACH_S = 10,      /* or more of them */
    NEW_NODES = 24     /* that the cycle of figures joins before it joins those that left again */
};

struct figures {
    struct histogram found, detect_first, detect_all, up, join, leave, settle;
    struct traffic steady;
    uint64_t false_suspicions;
    int64_t detect_least_ns;
};

static struct world world;
static struct figures figures;
static uint64_t seed, nodes = 10, loss_percent = 5;
static double hours = 1;
static const char *scenario = "figures", *faults = "all";
static bool is_verbose, is_row;

static void tell_how_to_repeat(void)
{
    printf(
        "after %.3f s; to repeat: member_sim --nodes %llu --loss %llu --seed %llu --hours %g --scenario %s "
        "--faults %s --verbose\n",
        (double)world.net.now_ns / 1e9, (unsigned long long)nodes, (unsigned long long)loss_percent,
        (unsigned long long)seed, hours, scenario, faults);
    fflush(stdout);
}

void world_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("FAILED: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    tell_how_to_repeat();
    _exit(1);
}

/* An assertion of the code under test. */
static void on_abort(int number)
{
    tell_how_to_repeat();
    signal(number, SIG_DFL);
    raise(number);
}

/* ------------------------------------------------------------ scenarios */

static int64_t end_ns(void)
{
    return (int64_t)(hours * 3600e9);
}

static void found(struct world *w)
{
    for (uint32_t i = 0; i < w->founders; i++) {
        world_start(w, i);
        world_run_for(w, (int64_t)net_random(&w->net, 5000 / w->founders + 1) * NS_PER_MS);
    }
    histogram_add(&figures.found, (uint64_t)watch_settle(w, SETTLE_S * NS_PER_S));
    w->calm_since_ns = w->net.now_ns;
}

static void steady(struct world *w, int64_t until_ns)
{
    world_run_for(w, 60 * NS_PER_S);
    w->traffic = (struct traffic){0};
    w->false_suspicions = 0;
    while (w->net.now_ns < until_ns) {
        world_run_for(w, 60 * NS_PER_S);
        watch_bounds(w);
    }
    figures.steady = w->traffic;
    figures.false_suspicions = w->false_suspicions;
    watch_settle(w, SETTLE_S * NS_PER_S);
}

/* Until all have shown what watch_begin asked for. */
static void wait_until_shown(struct world *w, const char *what)
{
    while (w->watch.left > 0) {
        if (w->net.now_ns - w->watch.began_ns > SHOWN_S * NS_PER_S)
            world_fail("%zu nodes do not show that %s %s", w->watch.left,
                       w->nodes[w->watch.subject]->where.id, what);
        world_run_for(w, NS_PER_S / 10);
    }
    w->watch.is_on = false;
}

static int64_t shown_after_ns(const struct world *w)
{
    return w->watch.last_ns - w->watch.began_ns;
}

static int64_t reach_ns(void)
{
    return (nodes <= SMALL_NODES ? SMALL_REACH_S : REACH_S) * NS_PER_S;
}

static void promise(const char *what, int64_t took_ns, int64_t most_ns)
{
    if (loss_percent <= TAME_PERCENT && took_ns > most_ns)
        world_fail("%s: %.3f s, promised are %.0f", what, (double)took_ns / 1e9, (double)most_ns / 1e9);
}

/* Everybody is heard again first: a silence that a partition made would count for the crash. */
static void try_crash(struct world *w)
{
    world_run_for(w, 2 * w->timing.heartbeat_ns +
                         (int64_t)net_random(&w->net, (uint64_t)w->timing.heartbeat_ns));
    uint32_t node = world_any_live(w, WATCH_NOBODY);
    watch_begin(w, node, 1u << MEMBER_EVENT_DOWN, 0);
    world_crash(w, node);
    wait_until_shown(w, "is down");
    int64_t first_ns = w->watch.first_ns - w->watch.began_ns;
    if (figures.detect_least_ns == 0 || first_ns < figures.detect_least_ns)
        figures.detect_least_ns = first_ns;
    histogram_add(&figures.detect_first, (uint64_t)first_ns);
    histogram_add(&figures.detect_all, (uint64_t)shown_after_ns(w));
    promise("until a crash was shown", first_ns, DETECT_S * NS_PER_S);
    int64_t least_ns = w->timing.down_ns - w->timing.heartbeat_ns - LEAST_LATE_MS * NS_PER_MS;
    if (loss_percent == 0 && first_ns < least_ns)
        world_fail("a crash was shown after %.3f s already", (double)first_ns / 1e9);
    promise("until all showed it", w->watch.last_ns - w->watch.first_ns, reach_ns());
    world_run_for(w, (int64_t)net_random(&w->net, 60) * NS_PER_S);
    watch_begin(w, node, 1u << MEMBER_EVENT_UP, 0);
    world_start(w, node);
    wait_until_shown(w, "is up again");
    histogram_add(&figures.up, (uint64_t)shown_after_ns(w));
    watch_settle(w, SETTLE_S * NS_PER_S);
}

static void try_join_and_leave(struct world *w)
{
    static uint32_t last;
    if (last == 0 || w->count < w->founders + NEW_NODES)
        last = world_add(w);
    watch_begin(w, last, 1u << MEMBER_EVENT_JOINING | 1u << MEMBER_EVENT_UP, w->nodes[last]->generation + 1);
    enum sh_error e = world_join(w, world_any_live(w, WATCH_NOBODY), last, false);
    if (e != SH_OK)
        world_fail("%s cannot join: %s", w->nodes[last]->where.id, sh_error_name(e));
    if (w->nodes[last]->core == NULL)
        world_start(w, last);
    wait_until_shown(w, "has joined");
    histogram_add(&figures.join, (uint64_t)shown_after_ns(w));
    promise("until a join had reached all", shown_after_ns(w), reach_ns());
    watch_settle(w, SETTLE_S * NS_PER_S);
    watch_begin(w, last, 1u << MEMBER_EVENT_LEFT, w->nodes[last]->generation);
    e = world_leave(w, world_any_live(w, last), last);
    if (e != SH_OK)
        world_fail("%s cannot leave: %s", w->nodes[last]->where.id, sh_error_name(e));
    wait_until_shown(w, "has left");
    histogram_add(&figures.leave, (uint64_t)shown_after_ns(w));
    promise("until a leave had reached all", shown_after_ns(w), reach_ns());
    watch_settle(w, SETTLE_S * NS_PER_S);
}

static void try_partition(struct world *w)
{
    unsigned share = net_chance(&w->net, 50) ? 50 : 10;
    for (uint32_t i = 0; i < w->count; i++)
        w->net.side[i] = net_chance(&w->net, share);
    w->net.is_cut = true;
    w->net.one_way = net_chance(&w->net, 30);
    world_run_for(w, (int64_t)net_random(&w->net, 180) * NS_PER_S);
    world_heal(w);
    histogram_add(&figures.settle, (uint64_t)watch_settle(w, SETTLE_S * NS_PER_S));
}

static void run_figures(struct world *w)
{
    steady(w, end_ns() / 2);
    do {
        try_crash(w);
        try_join_and_leave(w);
        try_partition(w);
        watch_bounds(w);
    } while (w->net.now_ns < end_ns());
}

static void run_steady(struct world *w)
{
    steady(w, end_ns());
}

static void run_chaos(struct world *w)
{
    uint32_t bits;
    faults_parse(faults, &bits);
    do {
        histogram_add(&figures.settle, (uint64_t)faults_round(w, bits, SETTLE_S * NS_PER_S));
    } while (w->net.now_ns < end_ns());
}

static const struct {
    const char *name;
    void (*run)(struct world *w);
} scenarios[] = {{"figures", run_figures}, {"steady", run_steady}, {"chaos", run_chaos}};

static void run(void)
{
    world.timing = (struct member_timing){.heartbeat_ns = 5 * NS_PER_S,
                                          .suspect_ns = 10 * NS_PER_S,
                                          .down_ns = 15 * NS_PER_S,
                                          .drift_ms = 10000};
    world.is_verbose = is_verbose;
    world.net.loss_percent = (unsigned)loss_percent;
    world_open(&world, (uint32_t)nodes, seed);
    found(&world);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        if (strcmp(scenarios[i].name, scenario) == 0)
            scenarios[i].run(&world);
}

/* ------------------------------------------------------------ figures */

static double at(const struct histogram *h, double q)
{
    return (double)(q < 1 ? histogram_quantile(h, q) : h->max) / 1e9;
}

static void tell_times(const char *what, const struct histogram *h)
{
    if (h->count > 0)
        printf("; %s %.1f/%.1f/%.1f s of %llu", what, at(h, 0.5), at(h, 0.99), at(h, 1),
               (unsigned long long)h->count);
}

/* Of the steady part: per node and second. */
static double rate(const uint64_t counts[WORLD_TYPES], unsigned without)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < WORLD_TYPES; i++)
        sum += i == without ? 0 : counts[i];
    double s = (double)figures.steady.node_ns / 1e9;
    return s > 0 ? (double)sum / s : 0;
}

static double suspicions_per_hour(void)
{
    double node_hours = (double)figures.steady.node_ns / 3600e9;
    return node_hours > 0 ? (double)figures.false_suspicions / node_hours : 0;
}

static void tell_line(void)
{
    printf("figure: membership, %llu nodes, %llu %% loss (p50/p99/max)", (unsigned long long)nodes,
           (unsigned long long)loss_percent);
    tell_times("founded", &figures.found);
    tell_times("down shown by the first", &figures.detect_first);
    if (figures.detect_all.count > 0)
        printf(" (least %.1f)", (double)figures.detect_least_ns / 1e9);
    tell_times("by all", &figures.detect_all);
    tell_times("up again", &figures.up);
    tell_times("join", &figures.join);
    tell_times("leave", &figures.leave);
    tell_times("settled after faults", &figures.settle);
    if (figures.steady.node_ns > 0)
        printf(
            "; %.4f false suspicions a node-hour; %.2f messages, %.0f bytes (without summaries %.0f) a node "
            "and second",
            suspicions_per_hour(), rate(figures.steady.messages, 0), rate(figures.steady.bytes, 0),
            rate(figures.steady.bytes, MSG_summary));
    printf("; %llu false downs, %llu events, %.1f MiB\n", (unsigned long long)world.false_downs,
           (unsigned long long)world.events, (double)world.memory_most / (1 << 20));
}

/* A row of the table in docs/cluster-protocol.md. */
static void tell_row(void)
{
    const struct histogram *columns[] = {&figures.detect_first, &figures.detect_all, &figures.join,
                                         &figures.leave, &figures.settle};
    printf("| %llu | %llu %% ", (unsigned long long)nodes, (unsigned long long)loss_percent);
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        printf("| %.1f / %.1f / %.1f ", at(columns[i], 0.5), at(columns[i], 0.99), at(columns[i], 1));
    printf("| %.4f | %llu | %.2f | %.0f | %.0f |\n", suspicions_per_hour(),
           (unsigned long long)world.false_downs, rate(figures.steady.messages, 0),
           rate(figures.steady.bytes, 0), rate(figures.steady.bytes, MSG_summary));
}

static void tell(void)
{
    if (is_row) {
        tell_row();
        return;
    }
    if (is_verbose)
        for (unsigned i = 0; i < WORLD_TYPES; i++)
            if (figures.steady.messages[i] > 0)
                printf("%s: %llu messages, %llu bytes\n", msg_type_of(i) == NULL ? "?" : msg_type_of(i)->name,
                       (unsigned long long)figures.steady.messages[i],
                       (unsigned long long)figures.steady.bytes[i]);
    printf("count: membership seeds 1\ncount: membership messages %llu\ncount: membership events %llu\n"
           "count: membership crashes %llu\ncount: membership faults %llu\n"
           "count: membership node-hours %.0f\n",
           (unsigned long long)world.net.delivered, (unsigned long long)world.events,
           (unsigned long long)world.crashes, (unsigned long long)world.faults,
           (double)world.net.now_ns / 3600e9 * (double)nodes);
    tell_line();
}

/* ------------------------------------------------------------ arguments */

static void usage(void)
{
    fprintf(
        stderr,
        "usage: member_sim [--nodes N] [--loss P] [--seed S] [--hours H] [--scenario NAME] [--faults LIST]\n"
        "                  [--row] [--verbose]\n"
        "  NAME: figures (half of the time quiet, then crashes, joins, leaves, partitions), steady, chaos\n"
        "  LIST, for chaos: all, none, or some of %s\n"
        "  --row: only the row of the table in docs/cluster-protocol.md\n",
        faults_all());
    exit(2);
}

static uint64_t number_of(const char *text, uint64_t most)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0 || value > most)
        usage();
    return value;
}

static bool take_option(const char *name, const char *value)
{
    if (strcmp(name, "--seed") == 0)
        seed = number_of(value, UINT64_MAX);
    else if (strcmp(name, "--nodes") == 0)
        nodes = number_of(value, MEMBER_LIVE_MAX - NEW_NODES);
    else if (strcmp(name, "--loss") == 0)
        loss_percent = number_of(value, 99);
    else if (strcmp(name, "--hours") == 0)
        hours = strtod(value, NULL);
    else if (strcmp(name, "--scenario") == 0)
        scenario = value;
    else if (strcmp(name, "--faults") == 0)
        faults = value;
    else
        return false;
    return true;
}

static void parse_arguments(int argc, char **argv)
{
    uint32_t bits;
    bool is_known = false;
    seed = random_u64() % 1000000000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            is_verbose = true;
        else if (strcmp(argv[i], "--row") == 0)
            is_row = true;
        else if (i + 1 == argc || !take_option(argv[i], argv[i + 1]))
            usage();
        else
            i++;
    }
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        is_known = is_known || strcmp(scenarios[i].name, scenario) == 0;
    if (!is_known || nodes == 0 || !faults_parse(faults, &bits))
        usage();
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    if (!is_row)
        printf("member_sim --nodes %llu --loss %llu --seed %llu --hours %g --scenario %s --faults %s\n",
               (unsigned long long)nodes, (unsigned long long)loss_percent, (unsigned long long)seed, hours,
               scenario, faults);
    fflush(stdout);
    log_set_level(is_verbose ? LOG_DEBUG : (enum log_level)(LOG_ERROR + 1));
    signal(SIGABRT, on_abort);
    run();
    tell();
    world_close(&world);
    return 0;
}
