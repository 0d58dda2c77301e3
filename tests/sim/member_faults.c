/* Random faults: each is a row with a function that begins it. They end when the round ends, at the latest;
 * a new one is a function and a row. */
#include <stdio.h>
#include <string.h>

#include "member_world.h"

enum {
    KEPT_LIVE = 2, /* so many are left alone, so that there is a cluster to come back to */
    QUIET_S = 60,  /* a state is only lost when what was joined has long reached everybody */
    NEW_NODES_MIN = 4
};

static uint32_t any(struct world *w)
{
    return (uint32_t)net_random(&w->net, w->count);
}

/* A live one that may be taken away; false: none is left. */
static bool victim(struct world *w, uint32_t *node)
{
    if (world_live_count(w) <= KEPT_LIVE)
        return false;
    *node = world_any_live(w, WATCH_NOBODY);
    return true;
}

static bool is_quiet(const struct world *w)
{
    int64_t since_ns = w->calm_since_ns > w->last_change_ns ? w->calm_since_ns : w->last_change_ns;
    return !w->net.is_cut && w->net.flap_count == 0 && w->net.now_ns - since_ns > QUIET_S * NS_PER_S;
}

/* There is an end to those who come anew, so that the size stays what was asked for; others join again. */
static uint32_t new_nodes_most(const struct world *w)
{
    return NEW_NODES_MIN + w->founders / 4;
}

/* ------------------------------------------------------------ of a node */

static bool crash(struct world *w)
{
    uint32_t node;
    if (!victim(w, &node))
        return false;
    world_crash(w, node);
    return true;
}

static bool restart(struct world *w)
{
    uint32_t node = any(w);
    if (w->nodes[node]->core == NULL && !w->nodes[node]->is_twin) {
        world_start(w, node);
        return true;
    }
    if (w->nodes[node]->is_paused || w->nodes[node]->membership == SIM_STRANGER)
        return false;
    world_crash(w, node);
    world_start(w, node);
    return true;
}

static bool lose_state(struct world *w)
{
    uint32_t node;
    if (!is_quiet(w) || !victim(w, &node))
        return false;
    world_crash(w, node);
    world_lose_state(w, node);
    world_start(w, node);
    return true;
}

static bool wipe(struct world *w)
{
    uint32_t node;
    if (!is_quiet(w) || !victim(w, &node))
        return false;
    world_crash(w, node);
    world_wipe(w, node);
    world_start(w, node);
    return true;
}

static bool move(struct world *w)
{
    uint32_t node;
    if (!victim(w, &node) || w->nodes[node]->moves == 255)
        return false;
    world_crash(w, node);
    world_move(w, node);
    world_start(w, node);
    return true;
}

static bool pause_node(struct world *w)
{
    uint32_t node;
    if (!victim(w, &node))
        return false;
    world_pause(w, node);
    return true;
}

static bool resume(struct world *w)
{
    uint32_t node = any(w);
    if (!w->nodes[node]->is_paused)
        return false;
    world_resume(w, node);
    return true;
}

/* Up to an hour, to either side; or just at the edge of what is allowed. */
static bool jump(struct world *w)
{
    int64_t most_ms = net_chance(&w->net, 50) ? 3600 * MS_PER_S : 12 * MS_PER_S;
    w->nodes[any(w)]->wall_offset_ms = (int64_t)net_random(&w->net, 2 * (uint64_t)most_ms) - most_ms;
    return true;
}

static bool power_cut(struct world *w)
{
    if (!net_chance(&w->net, 20))
        return false;
    for (uint32_t i = 0; i < w->count; i++)
        if (w->nodes[i]->core != NULL)
            world_crash(w, i);
    for (uint32_t i = 0; i < w->count; i++)
        if (w->nodes[i]->membership != SIM_STRANGER)
            world_start(w, i);
    return true;
}

/* ------------------------------------------------------------ of the network */

static bool cut(struct world *w, bool one_way)
{
    if (w->net.is_cut) {
        w->net.is_cut = false;
        w->calm_since_ns = w->net.now_ns;
        return true;
    }
    unsigned share = net_chance(&w->net, 50) ? 50 : 10;
    for (uint32_t i = 0; i < NET_NODES_MAX; i++)
        w->net.side[i] = net_chance(&w->net, share);
    if (net_chance(&w->net, 25)) { /* one alone */
        memset(w->net.side, 0, sizeof w->net.side);
        w->net.side[any(w)] = 1;
    }
    w->net.is_cut = true;
    w->net.one_way = one_way;
    return true;
}

static bool partition(struct world *w)
{
    return cut(w, false);
}

static bool asymmetric(struct world *w)
{
    return cut(w, true);
}

static bool flap(struct world *w)
{
    if (w->net.flap_count == NET_FLAPS_MAX)
        return false;
    w->net.flaps[w->net.flap_count++] =
        (struct net_flap){any(w), any(w), (int64_t)(100 + net_random(&w->net, 20000)) * NS_PER_MS};
    return true;
}

/* ------------------------------------------------------------ of operators */

static bool is_paused_or_gone(const struct world *w, uint32_t node)
{
    return w->nodes[node]->core == NULL || w->nodes[node]->is_paused;
}

/* Whom nobody has joined speaks to the members. */
static bool stranger(struct world *w)
{
    if (w->count >= w->founders + new_nodes_most(w) || world_live_count(w) == 0)
        return false;
    world_start(w, world_add(w));
    return true;
}

/* A second machine with a member's id. When that one is about to be bound anew, it could take its place. */
static bool twin(struct world *w)
{
    if (!is_quiet(w) || w->count >= w->founders + new_nodes_most(w) || world_live_count(w) == 0)
        return false;
    world_start(w, world_add_twin(w, world_any_live(w, WATCH_NOBODY)));
    return true;
}

static bool join(struct world *w)
{
    uint32_t node = any(w);
    if (world_live_count(w) == 0 || w->nodes[node]->is_twin)
        return false;
    if (w->nodes[node]->membership == SIM_MEMBER) {
        if (w->count >= w->founders + new_nodes_most(w))
            return false;
        node = world_add(w);
    }
    world_join(w, world_any_live(w, node), node, false);
    if (w->nodes[node]->core == NULL)
        world_start(w, node);
    return true;
}

static bool leave(struct world *w)
{
    uint32_t node = any(w);
    if (world_live_count(w) <= KEPT_LIVE || w->nodes[node]->membership != SIM_MEMBER ||
        w->nodes[node]->was_asked)
        return false;
    world_leave(w, net_chance(&w->net, 20) && world_is_live(w, node) ? node : world_any_live(w, node), node);
    return true;
}

static bool replace(struct world *w)
{
    uint32_t node = any(w);
    if (!w->nodes[node]->other_identity || world_live_count(w) == 0)
        return false;
    world_join(w, world_any_live(w, node), node, true);
    return true;
}

static bool write(struct world *w)
{
    uint32_t node = any(w);
    if (is_paused_or_gone(w, node))
        return false;
    struct sim_node *n = w->nodes[node];
    struct member_watermark mark = {.log = n->log, .lsn = (uint64_t)w->net.now_ns / 1000000};
    mark.end = mark.lsn * 100;
    member_core_watermark(n->core, world_time(w, n), &mark);
    return true;
}

static const struct fault {
    const char *name;
    bool (*begin)(struct world *w);
} faults[] = {
    {"crash", crash},       {"restart", restart},     {"lost", lose_state}, {"wipe", wipe},
    {"move", move},         {"pause", pause_node},    {"resume", resume},   {"clock", jump},
    {"power", power_cut},   {"partition", partition}, {"asym", asymmetric}, {"flap", flap},
    {"stranger", stranger}, {"twin", twin},           {"join", join},       {"leave", leave},
    {"replace", replace},   {"write", write},         {"duplicate", NULL},  {"reorder", NULL},
};
enum { FAULT_KINDS = sizeof faults / sizeof faults[0] };

bool faults_parse(const char *list, uint32_t *bits)
{
    char copy[256], *rest = copy, *part;
    snprintf(copy, sizeof copy, "%s", list);
    *bits = 0;
    if (strcmp(list, "all") == 0)
        *bits = (1u << FAULT_KINDS) - 1;
    if (strcmp(list, "all") == 0 || strcmp(list, "none") == 0)
        return true;
    while ((part = strsep(&rest, ",")) != NULL) {
        size_t i = 0;
        while (i < FAULT_KINDS && strcmp(faults[i].name, part) != 0)
            i++;
        if (i == FAULT_KINDS)
            return false;
        *bits |= 1u << i;
    }
    return true;
}

const char *faults_all(void)
{
    static char text[256];
    size_t len = 0;
    for (size_t i = 0; i < FAULT_KINDS; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", i > 0 ? "," : "", faults[i].name);
    return text;
}

static bool is_asked_for(uint32_t bits, const char *name)
{
    for (size_t i = 0; i < FAULT_KINDS; i++)
        if ((bits & 1u << i) != 0 && strcmp(faults[i].name, name) == 0)
            return true;
    return false;
}

static void begin_one(struct world *w, uint32_t bits)
{
    size_t kind = (size_t)net_random(&w->net, FAULT_KINDS);
    if ((bits & 1u << kind) == 0 || faults[kind].begin == NULL || !faults[kind].begin(w))
        return;
    w->faults++;
    if (w->is_verbose)
        printf("%12.6f fault: %s\n", (double)w->net.now_ns / 1e9, faults[kind].name);
}

/* Whether a knows an address at which b listens. */
static bool knows(const struct world *w, uint32_t a, uint32_t b)
{
    const struct sim_node *n = w->nodes[a];
    for (size_t i = 0; i < member_core_count(n->core); i++) {
        struct member_view view;
        member_core_view(n->core, world_time(w, n), i, &view);
        if (strcmp(view.record->id, w->nodes[b]->where.id) == 0)
            return strcmp(view.record->host, w->nodes[b]->where.host) == 0;
    }
    return false;
}

/* Marks all that can learn of each other by way of this one: who left tells nobody of others. */
static void mark_met(const struct world *w, uint32_t node, bool *met)
{
    met[node] = true;
    if (!world_is_live(w, node))
        return;
    for (uint32_t i = 0; i < w->count; i++)
        if (!met[i] && w->nodes[i]->core != NULL && w->nodes[i]->membership != SIM_STRANGER &&
            (knows(w, node, i) || knows(w, i, node)))
            mark_met(w, i, met);
}

/* Those between whom nobody knows an address any more, since all have moved or left meanwhile, can't find
 * each other: an operator gives them a topology file that names who is there. */
static void help_the_lost(struct world *w)
{
    static bool met[NET_NODES_MAX];
    memset(met, 0, sizeof met);
    if (world_live_count(w) == 0)
        return;
    mark_met(w, world_any_live(w, WATCH_NOBODY), met);
    for (uint32_t i = 0; i < w->count; i++) {
        if (met[i] || w->nodes[i]->core == NULL || w->nodes[i]->membership == SIM_STRANGER)
            continue;
        world_crash(w, i);
        w->nodes[i]->wants_file = true;
        world_start(w, i);
        w->nodes[i]->wants_file = false;
    }
}

/* The network and the clocks are as they should be, who was paused goes on, and who crashed comes back, or in
 * a cluster that is large enough stays away by chance. Strangers and twins go. */
static void calm(struct world *w)
{
    world_heal(w);
    w->net.duplicate_percent = w->net.reorder_percent = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        struct sim_node *n = w->nodes[i];
        n->wall_offset_ms = 0;
        if (n->is_paused)
            world_resume(w, i);
        if (n->core == NULL && (n->membership == SIM_MEMBER || n->was_asked) &&
            (world_live_count(w) < 4 || n->was_asked || net_chance(&w->net, 80)))
            world_start(w, i);
        if (n->core != NULL && n->membership == SIM_STRANGER)
            world_crash(w, i);
    }
    help_the_lost(w);
}

int64_t faults_round(struct world *w, uint32_t bits, int64_t settle_most_ns)
{
    uint64_t steps = 1 + net_random(&w->net, 60);
    w->net.duplicate_percent = is_asked_for(bits, "duplicate") ? 5 : 0;
    w->net.reorder_percent = is_asked_for(bits, "reorder") ? 10 : 0;
    for (uint64_t i = 0; i < steps; i++) {
        begin_one(w, bits);
        int64_t most_ns = net_chance(&w->net, 80) ? NS_PER_S : 30 * NS_PER_S;
        world_run_for(w, (int64_t)net_random(&w->net, (uint64_t)most_ns));
    }
    calm(w);
    int64_t took_ns = watch_settle(w, settle_most_ns);
    for (uint32_t i = 0; i < w->count; i++)
        w->nodes[i]->was_asked = false;
    watch_bounds(w);
    return took_ns;
}
