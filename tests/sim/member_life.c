/* Nodes of the membership simulation: the life of their processes, and what operators ask of them. */
#include "member_world_parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS = 5, SAVED_RECORD_MAX = 1024, SAVED_EVENT_MAX = 512 };

/* ------------------------------------------------------------ the life of a process */

/* As an operator would have it: the members that are there now, or for a founder the file that it began with.
 */
static struct config_node *topology(struct world *w, uint32_t node, size_t *count)
{
    const struct sim_node *n = w->nodes[node];
    bool is_founder = node < w->founders && !n->wants_file;
    size_t size = is_founder ? w->founders : SEEDS + 1;
    struct config_node *list = xcalloc(size, sizeof *list);
    *count = 0;
    bool as_it_was = n->saved.len > 0 && n->membership == SIM_MEMBER && net_chance(&w->net, 50);
    for (uint32_t i = 0; is_founder && i < w->founders; i++)
        list[(*count)++] = as_it_was ? w->first[i] : w->nodes[i]->where;
    if (is_founder) {
        list[node] = n->where;
        return list;
    }
    list[(*count)++] = n->where;
    for (unsigned i = 0; i < SEEDS && world_live_count(w) > 0; i++) {
        const struct config_node *seed = &w->nodes[world_any_live(w, WATCH_NOBODY)]->where;
        bool is_there = false;
        for (size_t k = 0; k < *count; k++)
            is_there = is_there || strcmp(list[k].id, seed->id) == 0;
        if (!is_there)
            list[(*count)++] = *seed;
    }
    if (*count == 1) /* alone in its file it would found a cluster */
        list[(*count)++] = w->nodes[node == 0 ? 1 : 0]->where;
    return list;
}

static void open_core(struct world *w, uint32_t node, const struct config_node *list, size_t count)
{
    struct sim_node *n = w->nodes[node];
    struct member_options options = {
        .cluster_name = "simulated",
        .cluster = {1, 2, 3, 4, 5, 6, 7, 8},
        .nodes = list,
        .node_count = count,
        .log = n->log,
        .boot = world_id(w),
        .timing = w->timing,
        .seed = net_random(&w->net, UINT64_MAX),
    };
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].id, n->where.id) == 0)
            options.self = &list[i];
    char text[MEMBER_TEXT_MAX];
    enum sh_error e = member_core_open(&options, world_time(w, n), buf_slice(&n->saved), text, &n->core);
    if (e != SH_OK)
        world_fail("%s does not start on what it has saved: %s", n->where.id, text);
}

void world_start(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    assert(n->core == NULL);
    if (net_chance(&w->net, 50)) /* the machine has started anew */
        n->mono_offset_ns = (int64_t)net_random(&w->net, 1000000 * (uint64_t)NS_PER_S);
    size_t count;
    struct config_node *list = topology(w, node, &count);
    open_core(w, node, list, count);
    free(list);
    struct member_events events = member_core_events(n->core);
    bool goes_on = n->saved.len > 0;
    if (goes_on && !id16_equal(n->series, events.series))
        world_fail("%s has begun another series of events, though it kept its state", n->where.id);
    if (goes_on && events.next < n->saved_next)
        world_fail("%s forgets events that were on disk", n->where.id);
    memset(w->left_seen + (size_t)node * NET_NODES_MAX, 0, NET_NODES_MAX * sizeof *w->left_seen);
    n->saved_ns = 0;
    n->series = events.series;
    n->next_event = goes_on ? n->saved_next : 1;
    n->suspicions = 0;
    n->well_since_ns = w->net.now_ns;
    n->tick_at_ns = 0;
    world_after_call(w, node);
}

void world_save(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    n->saved.len = 0;
    member_core_save(n->core, &n->saved);
    n->saved_next = member_core_events(n->core).next;
    n->saved_version = member_core_version(n->core);
    n->saved_ns = w->net.now_ns;
    size_t most = 4096 + w->count * (size_t)SAVED_RECORD_MAX + MEMBER_EVENTS_MAX * (size_t)SAVED_EVENT_MAX;
    if (n->saved.len > most)
        world_fail("%s saves %zu bytes", n->where.id, n->saved.len);
}

void world_crash(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    if (n->saved.len == 0 || net_chance(&w->net, 50))
        world_save(w, node);
    member_core_close(n->core);
    n->core = NULL;
    n->is_paused = false;
    world_drop_waiting(n);
    w->crashes++;
}

void world_lose_state(struct world *w, uint32_t node)
{
    assert(w->nodes[node]->core == NULL);
    w->nodes[node]->saved.len = 0;
    w->nodes[node]->forgot = true;
}

void world_wipe(struct world *w, uint32_t node)
{
    world_lose_state(w, node);
    w->nodes[node]->log = world_id(w);
    w->nodes[node]->other_identity = w->nodes[node]->membership == SIM_MEMBER;
}

void world_move(struct world *w, uint32_t node)
{
    assert(w->nodes[node]->core == NULL);
    w->nodes[node]->moves++;
    world_set_address(w->nodes[node], node);
}

void world_pause(struct world *w, uint32_t node)
{
    w->nodes[node]->is_paused = true;
}

/* What has waited and the timers come in either order. */
void world_resume(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    bool ticks_first = net_chance(&w->net, 50);
    n->is_paused = false;
    n->well_since_ns = w->net.now_ns;
    if (ticks_first)
        world_tick(w, node);
    for (size_t i = 0; i < n->waiting_count; i++)
        world_receive(w, node, n->waiting[i]);
    world_drop_waiting(n);
    if (!ticks_first)
        world_tick(w, node);
}

void world_heal(struct world *w)
{
    w->net.is_cut = w->net.one_way = false;
    w->net.flap_count = 0;
    w->calm_since_ns = w->net.now_ns;
}

/* ------------------------------------------------------------ operators */

bool world_is_live(const struct world *w, uint32_t node)
{
    const struct sim_node *n = w->nodes[node];
    return n->core != NULL && !n->is_paused && n->membership == SIM_MEMBER && !n->other_identity;
}

size_t world_live_count(const struct world *w)
{
    size_t count = 0;
    for (uint32_t i = 0; i < w->count; i++)
        count += world_is_live(w, i);
    return count;
}

uint32_t world_any_live(struct world *w, uint32_t except)
{
    for (;;) {
        uint32_t node = (uint32_t)net_random(&w->net, w->count);
        if (node != except && world_is_live(w, node))
            return node;
    }
}

/* The first identity that comes after a join is taken: let it be the right one. */
static void end_twins(struct world *w, const struct sim_node *n)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (w->nodes[i]->is_twin && w->nodes[i]->core != NULL &&
            strcmp(w->nodes[i]->where.id, n->where.id) == 0)
            world_crash(w, i);
}

enum sh_error world_join(struct world *w, uint32_t at, uint32_t node, bool replace)
{
    struct sim_node *asked = w->nodes[at], *n = w->nodes[node];
    struct msg_node_join join = {.id = slice_str(n->where.id),
                                 .host = slice_str(n->where.host),
                                 .port = n->where.port,
                                 .admin_port = n->where.admin_port,
                                 .group = slice_str(n->where.group),
                                 .replace = replace};
    char text[MEMBER_TEXT_MAX];
    uint64_t generation = 0;
    w->last_change_ns = w->net.now_ns;
    end_twins(w, n);
    enum sh_error e = member_core_join(asked->core, world_time(w, asked), &join, &generation, text);
    if (w->is_verbose)
        printf("%12.6f join %s at %s: %s %s\n", (double)w->net.now_ns / 1e9, n->where.id, asked->where.id,
               sh_error_name(e), e == SH_OK ? "" : text);
    if (e == SH_OK && generation > n->generation) {
        n->membership = SIM_MEMBER;
        n->generation = generation;
        n->other_identity = n->forgot = false;
    }
    asked->was_asked = true;
    world_after_call(w, at);
    world_save(w, at);
    return e;
}

enum sh_error world_leave(struct world *w, uint32_t at, uint32_t node)
{
    struct sim_node *asked = w->nodes[at], *n = w->nodes[node];
    struct msg_node_leave_reply reply;
    char text[MEMBER_TEXT_MAX];
    w->last_change_ns = w->net.now_ns;
    enum sh_error e = member_core_leave(asked->core, world_time(w, asked), n->where.id, &reply, text);
    if (w->is_verbose)
        printf("%12.6f leave %s at %s: %s %s\n", (double)w->net.now_ns / 1e9, n->where.id, asked->where.id,
               sh_error_name(e), e == SH_OK ? "" : text);
    if (e == SH_OK && reply.generation >= n->generation) {
        n->membership = SIM_LEFT;
        n->generation = reply.generation;
    }
    asked->was_asked = true;
    world_after_call(w, at);
    world_save(w, at);
    return e;
}
