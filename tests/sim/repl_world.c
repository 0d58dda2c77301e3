/* Nodes and time of the replication's simulation. */
#include "repl_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "repl_world_disk.h"

enum { TICKS_MOST = 20000 }; /* of one node in a second: more is a core that is busy with nothing */

void world_due(struct repl_world *w, uint32_t node, unsigned what, int64_t after_ns)
{
    int64_t at_ns = w->net.now_ns + after_ns;
    if (w->nodes[node].due_ns[what] == at_ns)
        return;
    w->nodes[node].due_ns[what] = at_ns;
    net_tick(&w->net, what * WORLD_NODES_MAX + node, at_ns);
}

static struct id16 id_of(struct repl_world *w)
{
    struct id16 id;
    for (size_t i = 0; i < sizeof id.bytes; i++)
        id.bytes[i] = (uint8_t)(1 + net_random(&w->net, 255));
    return id;
}

/* The log of a node that is gone: its copies differ in length. */
static void open_orphan(struct repl_world *w, size_t index, struct id16 id)
{
    struct model_log whole;
    unsigned frames = 5 + (unsigned)net_random(&w->net, 60);
    model_log_open(&whole, id);
    for (unsigned i = 0; i < frames; i++)
        model_log_append(&whole, (uint32_t)net_random(&w->net, 20000), 1 + i % 3, i, i % 9 == 8);
    model_log_sync_all(&whole);
    struct slice all = model_log_bytes(&whole, 0, model_log_end(&whole).position);
    buf_append(&w->truth[index].bytes, all.data, all.len);
    for (uint32_t node = 0; node < w->count; node++) {
        uint64_t end;
        size_t most = net_random(&w->net, whole.count + 1);
        if (most == 0)
            continue;
        struct slice part = model_log_bytes(&whole, 0, whole.frames[most - 1].behind.position);
        if (model_log_take(&w->nodes[node].logs[index], 0, part, false, &end) != SH_OK)
            world_fail("the model does not take its own frames");
        model_log_sync_all(&w->nodes[node].logs[index]);
        w->nodes[node].holds[index] = true;
    }
    model_log_free(&whole);
}

static void open_logs(struct repl_world *w)
{
    w->log_count = w->count + 1;
    for (size_t log = 0; log < w->log_count; log++) {
        struct id16 id = id_of(w);
        for (uint32_t node = 0; node < w->count; node++)
            model_log_open(&w->nodes[node].logs[log], id);
        if (log < w->count)
            w->nodes[log].holds[log] = true;
        else
            open_orphan(w, log, id);
    }
}

void world_open(struct repl_world *w, uint32_t nodes, uint64_t seed)
{
    w->net.random = seed;
    w->count = nodes;
    w->nodes = xcalloc(nodes, sizeof *w->nodes);
    open_logs(w);
    for (uint32_t i = 0; i < nodes; i++) {
        struct repl_node *n = &w->nodes[i];
        snprintf(n->id, sizeof n->id, "n%u", i + 1);
        n->is_on = true;
        n->clock_ns = (int64_t)net_random(&w->net, 1000 * (uint64_t)NS_PER_S);
        world_due(w, i, DUE_START_WAL, (int64_t)net_random(&w->net, NS_PER_S));
        world_due(w, i, DUE_START_CORE, (int64_t)net_random(&w->net, NS_PER_S));
        world_due(w, i, DUE_HEARTBEAT, (int64_t)net_random(&w->net, NS_PER_S));
    }
}

void world_close(struct repl_world *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct repl_node *n = &w->nodes[i];
        if (n->core != NULL)
            world_core_crash(w, i);
        for (size_t log = 0; log < w->log_count; log++)
            model_log_free(&n->logs[log]);
        free(n->aside);
    }
    free(w->entries);
    world_disk_close(w);
    for (size_t log = 0; log < w->log_count; log++)
        buf_free(&w->truth[log].bytes);
    free(w->nodes);
    net_free(&w->net);
}

/* Each tick at the due time must move that on. */
static void tick(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    int64_t now_ns = w->net.now_ns + n->clock_ns;
    if (n->core == NULL)
        return;
    repl_core_tick(n->core, now_ns);
    if (repl_core_due_ns(n->core) <= now_ns)
        world_fail("a tick at %s leaves another one due at once", n->id);
    if (w->net.now_ns - n->second_ns >= NS_PER_S) {
        n->second_ns = w->net.now_ns;
        n->ticks = 0;
    }
    if (++n->ticks > TICKS_MOST)
        world_fail("%s ticks without end", n->id);
    world_after_call(w, node);
}

static void happen(struct repl_world *w, uint32_t node, unsigned what)
{
    if (w->nodes[node].due_ns[what] != w->net.now_ns)
        return; /* put off */
    w->nodes[node].due_ns[what] = 0;
    switch (what) {
    case DUE_TICK:
        tick(w, node);
        break;
    case DUE_PUMP:
        world_wal_pump(w, node);
        break;
    case DUE_HEARTBEAT:
        world_heartbeat(w, node);
        break;
    case DUE_VIEW:
        world_view(w, node);
        break;
    case DUE_APPEND:
        world_wal_append(w, node);
        break;
    case DUE_START_CORE:
        world_core_start(w, node);
        break;
    case DUE_START_WAL:
        world_wal_start(w, node);
        break;
    case DUE_PROOF:
        world_fork_proof_over(w, node);
        break;
    default:
        world_wal_synced(w, node, what - DUE_SYNC);
    }
}

void world_run_for(struct repl_world *w, int64_t ns)
{
    struct net_event event;
    int64_t end_ns = w->net.now_ns + ns;
    while (net_next(&w->net, end_ns, &event)) {
        if (event.bytes == NULL)
            happen(w, event.node % WORLD_NODES_MAX, event.node / WORLD_NODES_MAX);
        else
            world_receive(w, &event);
        free(event.bytes);
    }
}

void world_add_counters(struct repl_world *w, const struct repl_counters *counters)
{
#define REPL_COUNTER(name) w->counters.name += counters->name;
    REPL_COUNTERS(REPL_COUNTER)
#undef REPL_COUNTER
}
