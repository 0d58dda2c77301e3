/* Nodes of the membership simulation: each call into a core, and what comes out of it. */
#include "member_world_parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STORM_MIN = 10000, STORM_NODE = 2000 }; /* messages under way: more is two who answer each other */
enum { SAVE_NODES_MAX = 50, GROUP_NODES = 5, SMALL = 7, QUEUE_MAX = 1 << 20, TICK_LATE_US = 2000 };
static const int64_t WALL_BEGIN_MS = INT64_C(1700000000000);

/* ------------------------------------------------------------ addresses and identities */

void world_set_address(struct sim_node *n, uint32_t node)
{
    snprintf(n->where.host, sizeof n->where.host, "10.%u.%u.%u", n->moves, node / 256, node % 256);
}

/* False: nobody has ever listened there. */
static bool node_of(const char *host, uint16_t port, uint32_t *node, uint32_t *move)
{
    unsigned parts[4] = {0};
    size_t at = 0;
    for (const char *c = host; *c != 0; c++) {
        if (*c == '.' && at < 3)
            at++;
        else if (*c >= '0' && *c <= '9')
            parts[at] = 10 * parts[at] + (unsigned)(*c - '0');
        else
            return false;
    }
    *move = parts[1];
    *node = parts[2] * 256 + parts[3];
    return at == 3 && port == WORLD_PORT + 2;
}

struct id16 world_id(struct world *w)
{
    struct id16 id;
    for (size_t i = 0; i < sizeof id.bytes; i++)
        id.bytes[i] = (uint8_t)(net_random(&w->net, 255) + 1);
    return id;
}

static uint32_t group_of(const struct world *w, uint32_t node)
{
    uint32_t groups = (w->founders + GROUP_NODES - 1) / GROUP_NODES;
    return node < w->founders ? node / GROUP_NODES : node % groups;
}

static struct sim_node *new_node(struct world *w, uint32_t node)
{
    struct sim_node *n = xcalloc(1, sizeof *n);
    snprintf(n->where.id, sizeof n->where.id, "n%u", node);
    if (w->founders <= SMALL)
        snprintf(n->where.group, sizeof n->where.group, "default");
    else
        snprintf(n->where.group, sizeof n->where.group, "g%u", group_of(w, node));
    n->where.port = WORLD_PORT;
    n->where.admin_port = 9090;
    world_set_address(n, node);
    n->log = world_id(w);
    n->mono_offset_ns = (int64_t)net_random(&w->net, 1000000 * (uint64_t)NS_PER_S);
    n->mono_ppm = (int64_t)net_random(&w->net, 41) - 20;
    n->wall_ppm = (int64_t)net_random(&w->net, 41) - 20;
    n->wall_offset_ms = (int64_t)net_random(&w->net, 100) - 50;
    n->began_ns = w->net.now_ns;
    return n;
}

/* ------------------------------------------------------------ clocks */

struct member_time world_time(const struct world *w, const struct sim_node *n)
{
    int64_t passed_ns = w->net.now_ns - n->began_ns;
    return (struct member_time){
        .mono_ns = n->mono_offset_ns + passed_ns + passed_ns / 1000000 * n->mono_ppm,
        .wall_ms = WALL_BEGIN_MS + n->wall_offset_ms + w->net.now_ns / NS_PER_MS +
                   passed_ns / NS_PER_S * n->wall_ppm / 1000,
    };
}

/* Virtual time at which its clock will show mono_ns, and a little later, as timers are. */
static int64_t time_of(struct world *w, const struct sim_node *n, int64_t mono_ns)
{
    int64_t passed_ns = mono_ns - n->mono_offset_ns;
    passed_ns -= passed_ns / 1000000 * n->mono_ppm;
    int64_t at_ns = n->began_ns + passed_ns;
    if (at_ns < w->net.now_ns)
        at_ns = w->net.now_ns;
    return at_ns + (int64_t)(1 + net_random(&w->net, TICK_LATE_US)) * NS_PER_US;
}

/* ------------------------------------------------------------ what comes out of a core */

static void take_notices(struct world *w, const struct sim_node *n)
{
    struct member_notice notice;
    while (member_core_next_notice(n->core, &notice))
        if (w->is_verbose)
            printf("%12.6f %s: %s %s %s\n", (double)w->net.now_ns / 1e9, n->where.id, notice.id, notice.text,
                   notice.detail);
}

static void take_sends(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    struct member_send send;
    size_t bytes = 0, largest = 0;
    while (member_core_next_send(n->core, &send)) {
        uint32_t to, move;
        bytes += send.message.len;
        largest = send.message.len > largest ? send.message.len : largest;
        if (send.message.len > MEMBER_MESSAGE_MAX)
            world_fail("%s sends %zu bytes in one message", n->where.id, send.message.len);
        watch_message(w, send.message);
        if (node_of(send.host, send.port, &to, &move))
            net_send(&w->net, node, to, move, send.message);
    }
    if (bytes > QUEUE_MAX + largest)
        world_fail("%s had %zu bytes to send", n->where.id, bytes);
}

static void schedule(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    int64_t at_ns = time_of(w, n, member_core_due_ns(n->core));
    if (n->tick_at_ns > w->net.now_ns && n->tick_at_ns <= at_ns)
        return; /* comes before: it is looked at again then */
    n->tick_at_ns = at_ns;
    net_tick(&w->net, node, at_ns);
}

/* A disk that is a second behind; of large clusters it is written when a process ends, to save time. */
static void save_if_due(struct world *w, uint32_t node)
{
    const struct sim_node *n = w->nodes[node];
    if (w->founders <= SAVE_NODES_MAX && w->net.now_ns - n->saved_ns >= NS_PER_S &&
        member_core_version(n->core) != n->saved_version)
        world_save(w, node);
}

void world_after_call(struct world *w, uint32_t node)
{
    take_notices(w, w->nodes[node]);
    take_sends(w, node);
    watch_events(w, node);
    save_if_due(w, node);
    schedule(w, node);
}

/* ------------------------------------------------------------ time goes on */

void world_receive(struct world *w, uint32_t node, struct slice message)
{
    struct sim_node *n = w->nodes[node];
    member_core_receive(n->core, world_time(w, n), message);
    world_after_call(w, node);
}

void world_tick(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    n->tick_at_ns = 0;
    w->ticks++;
    member_core_tick(n->core, world_time(w, n));
    world_after_call(w, node);
}

static void deliver(struct world *w, const struct net_event *e)
{
    struct sim_node *n = e->node < w->count ? w->nodes[e->node] : NULL;
    if (n == NULL || n->core == NULL || n->moves != e->move) {
        free(e->bytes);
    } else if (n->is_paused) {
        if (n->waiting_count < WORLD_WAITING_MAX)
            n->waiting[n->waiting_count++] = slice_of(e->bytes, e->len);
        else
            free(e->bytes);
    } else {
        world_receive(w, e->node, slice_of(e->bytes, e->len));
        free(e->bytes);
    }
}

static void step(struct world *w, const struct net_event *e)
{
    if (w->net.count > STORM_MIN + (size_t)w->count * STORM_NODE)
        world_fail("%zu messages are under way", w->net.count);
    if (e->bytes != NULL) {
        deliver(w, e);
        return;
    }
    struct sim_node *n = w->nodes[e->node];
    if (n->core != NULL && !n->is_paused && n->tick_at_ns == e->at_ns)
        world_tick(w, e->node);
}

void world_run_for(struct world *w, int64_t ns)
{
    int64_t end_ns = w->net.now_ns + ns;
    struct net_event e;
    int64_t running = 0;
    for (uint32_t i = 0; i < w->count; i++)
        running += w->nodes[i]->core != NULL;
    w->traffic.node_ns += running * ns;
    while (net_next(&w->net, end_ns, &e))
        step(w, &e);
}

void world_drop_waiting(struct sim_node *n)
{
    for (size_t i = 0; i < n->waiting_count; i++)
        free((void *)(uintptr_t)n->waiting[i].data);
    n->waiting_count = 0;
}

/* ------------------------------------------------------------ the whole */

uint32_t world_add(struct world *w)
{
    assert(w->count < NET_NODES_MAX);
    w->nodes[w->count] = new_node(w, w->count);
    return w->count++;
}

uint32_t world_add_twin(struct world *w, uint32_t node)
{
    uint32_t twin = world_add(w);
    w->nodes[twin]->is_twin = true;
    snprintf(w->nodes[twin]->where.id, sizeof w->nodes[twin]->where.id, "%s", w->nodes[node]->where.id);
    return twin;
}

void world_open(struct world *w, uint32_t founders, uint64_t seed)
{
    w->net.random = seed;
    w->net.now_ns = NS_PER_S;
    w->founders = founders;
    w->left_seen = xcalloc((size_t)NET_NODES_MAX * NET_NODES_MAX, sizeof *w->left_seen);
    w->first = xcalloc(founders, sizeof *w->first);
    for (uint32_t i = 0; i < founders; i++) {
        struct sim_node *n = w->nodes[world_add(w)];
        n->membership = SIM_MEMBER;
        n->generation = 1;
        w->first[i] = n->where;
    }
}

void world_close(struct world *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct sim_node *n = w->nodes[i];
        if (n->core != NULL)
            member_core_close(n->core);
        world_drop_waiting(n);
        buf_free(&n->saved);
        free(n);
    }
    net_free(&w->net);
    free(w->first);
    free(w->left_seen);
}
