/* What happens to a simulated group: random faults for a while, then calm, in which all nodes must get equal
 * copies of all logs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repl_world.h"

/* A fetch that is lost costs its timeout, 7 s and more: when every fifth message is, that says nothing. */
enum { CALM_LOSS_PERCENT = 5 };

/* ---- lives ---- */

static void drop_stores(struct repl_node *n)
{
    for (size_t i = 0; i < n->store_count; i++)
        free(n->stores[i].bytes);
    n->store_count = 0;
}

void world_core_crash(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    if (n->core == NULL)
        return;
    world_add_counters(w, repl_core_counters(n->core));
    repl_core_close(n->core);
    n->core = NULL;
    n->asked_count = 0;
    drop_stores(n);
    w->crashes++;
}

void world_core_start(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    const struct repl_options options = {.node = n->id, .log = n->logs[node].id};
    if (n->core != NULL || !n->is_on)
        return;
    n->core = repl_core_open(&options);
    n->life++;
    n->replicated = (struct msg_replicated){0};
    world_after_call(w, node);
    world_due(w, node, DUE_VIEW, (int64_t)net_random(&w->net, 200 * (uint64_t)NS_PER_MS));
    world_due(w, node, DUE_PUMP, (int64_t)net_random(&w->net, 200 * (uint64_t)NS_PER_MS));
}

static int64_t up_to(struct repl_world *w, int64_t ns)
{
    return 1 + (int64_t)net_random(&w->net, (uint64_t)ns);
}

/* ---- faults ---- */

static void crash_core(struct repl_world *w, uint32_t node)
{
    world_core_crash(w, node);
    world_due(w, node, DUE_START_CORE, up_to(w, 2 * NS_PER_S));
}

static void crash_wal(struct repl_world *w, uint32_t node)
{
    if (w->nodes[node].is_wal_up)
        world_wal_crash(w, node, false);
    world_due(w, node, DUE_START_WAL, up_to(w, 2 * NS_PER_S));
}

static void turn_on(struct repl_world *w, uint32_t node)
{
    w->nodes[node].is_on = true;
    w->nodes[node].must_prove = world_fork_must_prove(w, node);
    world_due(w, node, DUE_START_WAL, up_to(w, NS_PER_S));
    world_due(w, node, DUE_START_CORE, up_to(w, NS_PER_S));
}

/* The machine is off; it comes back by another fault of this kind, or when it is calm. */
static void power(struct repl_world *w, uint32_t node)
{
    if (!w->nodes[node].is_on) {
        turn_on(w, node);
        return;
    }
    world_core_crash(w, node);
    world_wal_crash(w, node, true);
    w->nodes[node].is_on = false;
    if (net_chance(&w->net, 50))
        world_fork_set_back(w, node);
}

static void cut(struct repl_world *w, uint32_t node)
{
    (void)node;
    w->net.is_cut = !w->net.is_cut;
    w->net.one_way = net_chance(&w->net, 30);
    for (uint32_t i = 0; i < w->count; i++)
        w->net.side[i] = net_chance(&w->net, 50);
}

static void slow_disk(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    n->slow_ns = n->slow_ns > 0 ? 0 : up_to(w, 3 * NS_PER_S);
}

static void refuse(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    n->refuse = n->refuse > 0 ? 0 : 20 + (unsigned)net_random(&w->net, 81);
}

/* Mostly it keeps more than anybody lacks. Where own logs are set back, what is there is counted at the end:
 * nothing is trimmed, and more are. */
static void trim(struct repl_world *w, uint32_t node)
{
    if (w->has_forks && w->nodes[node].is_on) {
        world_core_crash(w, node);
        world_wal_crash(w, node, true);
        world_fork_set_back(w, node);
        turn_on(w, node);
    } else if (!w->has_forks)
        world_wal_trim(w, node, net_random(&w->net, w->log_count),
                       net_chance(&w->net, 70) ? 20 : 1 + net_random(&w->net, 4));
}

static void (*const faults[])(struct repl_world *w, uint32_t node) = {
    crash_core, crash_core, crash_wal, crash_wal, power, power,          cut,
    cut,        slow_disk,  refuse,    trim,      trim,  world_wal_burst};

static void one_fault(struct repl_world *w)
{
    size_t which = net_random(&w->net, sizeof faults / sizeof faults[0]);
    uint32_t node = (uint32_t)net_random(&w->net, w->count);
    if (w->is_verbose)
        printf("%.3f %s: fault %zu\n", (double)w->net.now_ns / 1e9, w->nodes[node].id, which);
    faults[which](w, node);
    w->faults++;
}

/* ---- calm ---- */

static void calm(struct repl_world *w)
{
    w->is_loaded = false;
    w->net.is_cut = false;
    w->net.loss_percent = w->net.loss_percent < CALM_LOSS_PERCENT ? w->net.loss_percent : CALM_LOSS_PERCENT;
    w->garble_permille = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        struct repl_node *n = &w->nodes[i];
        n->slow_ns = 0;
        n->refuse = 0;
        if (!n->is_on)
            turn_on(w, i);
    }
}

/* NULL: all nodes have all of each log, and know it. */
static const char *unsettled(const struct repl_world *w, uint32_t *node, size_t *log)
{
    for (*node = 0; *node < w->count; ++*node) {
        const struct repl_node *n = &w->nodes[*node];
        if (n->core == NULL || !n->is_wal_up)
            return "does not run";
        for (*log = 0; *log < w->log_count; ++*log) {
            uint64_t end = model_log_durable(&n->logs[*log]).position;
            if (w->has_forks && *log < w->count) {
                const char *why = world_fork_unsettled(w, *node, *log);
                if (why != NULL)
                    return why;
                continue;
            }
            if (end != model_log_end(&n->logs[*log]).position ||
                end != w->truth[*log].from + w->truth[*log].bytes.len)
                return "has not all";
        }
        struct repl_progress progress = repl_core_progress(n->core);
        *log = *node;
        if (progress.durable_lsn + 1 != model_log_durable(&n->logs[*node]).next_lsn)
            return "does not know its own end";
        if (progress.quorum_lsn != progress.durable_lsn || progress.all_lsn != progress.durable_lsn)
            return "does not know that all have its log";
    }
    return NULL;
}

/* The longest copy of a log whose origin is gone is all there is of it. */
static void cut_orphan(struct repl_world *w)
{
    struct sim_truth *truth = &w->truth[w->count];
    uint64_t most = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        uint64_t end = model_log_durable(&w->nodes[i].logs[w->count]).position;
        most = end > most ? end : most;
    }
    truth->bytes.len = most - truth->from;
}

/* So that a run's memory has a bound. */
static void trim_all(struct repl_world *w)
{
    for (size_t log = 0; log < w->count; log++) {
        struct sim_truth *truth = &w->truth[log];
        uint64_t from = UINT64_MAX;
        for (uint32_t i = 0; i < w->count; i++) {
            world_wal_trim(w, i, log, 1 + net_random(&w->net, 3));
            uint64_t begin = w->nodes[i].logs[log].begin.position;
            from = begin < from ? begin : from;
        }
        if (from <= truth->from || w->has_forks)
            continue;
        truth->bytes.len -= from - truth->from;
        memmove(truth->bytes.data, truth->bytes.data + (from - truth->from), truth->bytes.len);
        truth->from = from;
    }
}

int64_t world_round(struct repl_world *w, int64_t faults_ns, int64_t settle_most_ns)
{
    int64_t end_ns = w->net.now_ns + faults_ns, begin_ns;
    uint32_t node;
    size_t log = 0;
    unsigned loss = w->net.loss_percent, garbles = w->garble_permille;
    const char *why;
    w->is_loaded = true;
    for (uint32_t i = 0; i < w->count; i++)
        world_due(w, i, DUE_APPEND, up_to(w, NS_PER_S));
    while (w->net.now_ns < end_ns) {
        world_run_for(w, up_to(w, 3 * NS_PER_S));
        one_fault(w);
    }
    calm(w);
    begin_ns = w->net.now_ns;
    cut_orphan(w);
    while ((why = unsettled(w, &node, &log)) != NULL) {
        if (w->net.now_ns - begin_ns > settle_most_ns)
            world_fail("%s %s (log %zu), %.0f s after the last fault", w->nodes[node].id, why, log,
                       (double)settle_most_ns / 1e9);
        world_run_for(w, NS_PER_S / 20);
    }
    int64_t took_ns = w->net.now_ns - begin_ns;
    if (w->has_forks)
        world_fork_check(w);
    trim_all(w);
    w->net.loss_percent = loss;
    w->garble_permille = garbles;
    return took_ns;
}
