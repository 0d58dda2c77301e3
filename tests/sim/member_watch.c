/* What nodes show, compared with what the simulation knows to be true. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "member_world.h"

enum {
    WELL_S = 60,   /* a node that has been well for so long, in a calm network, is down for nobody */
    LOSS_TAME = 5, /* percent: up to here no false down is a promise */
    MEMORY_NODE = 3 << 20,
    MEMORY_RECORD = 4096 /* of each node for each other one: record, options, queues */
};

/* ------------------------------------------------------------ until when all show an event */

void watch_begin(struct world *w, uint32_t subject, uint32_t kinds, uint64_t generation)
{
    struct watch *t = &w->watch;
    *t = (struct watch){.is_on = true,
                        .subject = subject,
                        .kinds = kinds,
                        .generation = generation,
                        .began_ns = w->net.now_ns};
    for (uint32_t i = 0; i < w->count; i++) {
        t->waits_for[i] = i != subject && world_is_live(w, i);
        t->left += t->waits_for[i];
    }
}

static void note(struct world *w, uint32_t node, uint32_t subject, const struct member_event *e)
{
    struct watch *t = &w->watch;
    if (!t->is_on || subject != t->subject || !t->waits_for[node] || (t->kinds & 1u << e->kind) == 0 ||
        e->generation < t->generation)
        return;
    t->waits_for[node] = false;
    t->left--;
    t->last_ns = w->net.now_ns;
    if (t->first_ns == 0)
        t->first_ns = w->net.now_ns;
}

/* ------------------------------------------------------------ each event */

/* False: an id that no node of the simulation has. */
static bool subject_of(const struct world *w, const char *id, uint32_t *subject)
{
    char *end;
    unsigned long value = strtoul(id + 1, &end, 10);
    *subject = (uint32_t)value;
    return id[0] == 'n' && id[1] != 0 && *end == 0 && value < w->count;
}

static bool is_well(const struct world *w, uint32_t node)
{
    int64_t since_ns = w->nodes[node]->well_since_ns;
    if (since_ns < w->calm_since_ns)
        since_ns = w->calm_since_ns;
    return world_is_live(w, node) && !w->net.is_cut && w->net.flap_count == 0 &&
           w->net.now_ns - since_ns > WELL_S * NS_PER_S;
}

static void on_down(struct world *w, uint32_t node, uint32_t subject)
{
    if (!is_well(w, subject) || !is_well(w, node))
        return;
    w->false_downs++;
    if (w->net.loss_percent <= LOSS_TAME)
        world_fail("%s shows %s as down, which is well, and so is the network", w->nodes[node]->where.id,
                   w->nodes[subject]->where.id);
}

/* One that left is not shown as anything else in the same generation. */
static void check_left(struct world *w, uint32_t node, uint32_t subject, const struct member_event *e)
{
    uint16_t *seen = &w->left_seen[(size_t)node * NET_NODES_MAX + subject];
    bool says_it_is_there = e->kind <= MEMBER_EVENT_MUST_REJOIN;
    if (says_it_is_there && e->generation <= *seen)
        world_fail("%s shows that %s, which left, came back by itself (event %llu, kind %d, generation %llu)",
                   w->nodes[node]->where.id, w->nodes[subject]->where.id, (unsigned long long)e->number,
                   (int)e->kind, (unsigned long long)e->generation);
    if (e->kind == MEMBER_EVENT_LEFT && e->generation > *seen)
        *seen = (uint16_t)e->generation;
}

static void on_event(struct world *w, uint32_t node, const struct member_event *e)
{
    uint32_t subject;
    if (w->is_verbose)
        printf("%12.6f %s: event %llu: %s kind %d, generation %llu, incarnation %llu %s\n",
               (double)w->net.now_ns / 1e9, w->nodes[node]->where.id, (unsigned long long)e->number, e->id,
               (int)e->kind, (unsigned long long)e->generation, (unsigned long long)e->incarnation, e->text);
    if (!subject_of(w, e->id, &subject) || (w->nodes[subject]->membership == SIM_STRANGER && subject != node))
        world_fail("%s has an event about %s, which was never joined", w->nodes[node]->where.id, e->id);
    w->events++;
    check_left(w, node, subject, e);
    if (e->kind == MEMBER_EVENT_DOWN)
        on_down(w, node, subject);
    note(w, node, subject, e);
}

/* A suspicion is counted where it was made public. */
static void count_suspicions(struct world *w, uint32_t node, uint32_t false_ones)
{
    struct sim_node *n = w->nodes[node];
    uint64_t made = member_core_counters(n->core)->suspicions - n->suspicions;
    n->suspicions += made;
    w->false_suspicions += made < false_ones ? made : false_ones;
}

void watch_events(struct world *w, uint32_t node)
{
    struct sim_node *n = w->nodes[node];
    struct member_events events = member_core_events(n->core);
    uint32_t false_ones = 0, subject;
    if (!id16_equal(events.series, n->series))
        world_fail("the series of events of %s has changed", n->where.id);
    if (events.next < n->next_event || events.first > n->next_event ||
        events.next - events.first > MEMBER_EVENTS_MAX)
        world_fail("events of %s: %llu to %llu are kept, %llu comes next", n->where.id,
                   (unsigned long long)events.first, (unsigned long long)events.next,
                   (unsigned long long)n->next_event);
    for (; n->next_event < events.next; n->next_event++) {
        const struct member_event *e = member_core_event(n->core, n->next_event);
        if (e == NULL || e->number != n->next_event)
            world_fail("%s has no event %llu", n->where.id, (unsigned long long)n->next_event);
        on_event(w, node, e);
        if (e->kind == MEMBER_EVENT_SUSPECT && subject_of(w, e->id, &subject) && world_is_live(w, subject))
            false_ones++;
    }
    count_suspicions(w, node, false_ones);
}

/* The type stands behind the version, both in one byte. */
void watch_message(struct world *w, struct slice message)
{
    unsigned type = message.len > 2 && message.data[2] < WORLD_TYPES ? message.data[2] : 0;
    w->traffic.messages[type]++;
    w->traffic.bytes[type] += message.len;
}

/* ------------------------------------------------------------ views against the truth */

static enum member_status true_status(const struct world *w, uint32_t node)
{
    if (w->nodes[node]->membership == SIM_LEFT)
        return MEMBER_LEFT;
    return world_is_live(w, node) ? MEMBER_UP : MEMBER_DOWN;
}

/* Whether the record is as it should be; a node that was joined and never came stays `joining`. */
static bool is_true(const struct world *w, const struct member_record *r, char *why, size_t size)
{
    uint32_t subject;
    if (!subject_of(w, r->id, &subject) || w->nodes[subject]->membership == SIM_STRANGER)
        world_fail("there is a record of %s, which was never joined", r->id);
    const struct sim_node *n = w->nodes[subject];
    enum member_status status = true_status(w, subject);
    bool never_came = status == MEMBER_DOWN && r->status == MEMBER_JOINING && id16_is_zero(r->log);
    if (r->generation != n->generation || (r->status != status && !never_came)) {
        snprintf(why, size, "%s is %s in generation %llu, not %s in %llu", r->id,
                 member_status_name(r->status), (unsigned long long)r->generation, member_status_name(status),
                 (unsigned long long)n->generation);
        return false;
    }
    if (status == MEMBER_UP && (strcmp(r->host, n->where.host) != 0 || !id16_equal(r->log, n->log))) {
        snprintf(why, size, "%s has another address or identity", r->id);
        return false;
    }
    return true;
}

static size_t true_count(const struct world *w)
{
    size_t count = 0;
    for (uint32_t i = 0; i < w->count; i++)
        count += w->nodes[i]->membership != SIM_STRANGER;
    return count;
}

static bool view_is_true(const struct world *w, uint32_t node, char *why, size_t size)
{
    const struct sim_node *n = w->nodes[node];
    size_t count = member_core_count(n->core);
    char text[256];
    for (size_t i = 0; i < count; i++) {
        struct member_view view;
        member_core_view(n->core, world_time(w, n), i, &view);
        if (!is_true(w, view.record, text, sizeof text)) {
            snprintf(why, size, "at %s %s", n->where.id, text);
            return false;
        }
    }
    if (count != true_count(w)) {
        snprintf(why, size, "%s knows of %zu members, not of %zu", n->where.id, count, true_count(w));
        return false;
    }
    return true;
}

static bool knows_its_state(const struct world *w, uint32_t node, char *why, size_t size)
{
    const struct sim_node *n = w->nodes[node];
    if (n->core == NULL || n->is_paused || n->membership == SIM_STRANGER)
        return true;
    enum member_state state = member_core_self(n->core).state, should = MEMBER_MEMBER;
    if (n->membership == SIM_LEFT && n->forgot && state != MEMBER_MEMBER)
        return true;
    if (n->membership == SIM_LEFT)
        should = MEMBER_HAS_LEFT;
    else if (n->other_identity)
        should = state == MEMBER_REPLACED ? MEMBER_REPLACED : MEMBER_REFUSED;
    if (state != should)
        snprintf(why, size, "%s is in state %d, not %d", n->where.id, (int)state, (int)should);
    return state == should;
}

bool watch_is_settled(struct world *w, char *why, size_t size)
{
    uint32_t first = WATCH_NOBODY;
    for (uint32_t i = 0; i < w->count; i++) {
        if (!knows_its_state(w, i, why, size))
            return false;
        if (!world_is_live(w, i))
            continue;
        if (first == WATCH_NOBODY) {
            first = i;
            if (!view_is_true(w, i, why, size))
                return false;
        }
        if (member_core_hash(w->nodes[i]->core) != member_core_hash(w->nodes[first]->core)) {
            snprintf(why, size, "%s and %s have different views", w->nodes[first]->where.id,
                     w->nodes[i]->where.id);
            return false;
        }
    }
    /* The hash says the same of the others; with few nodes look at each. */
    for (uint32_t i = 0; i < w->count && w->count <= 64; i++)
        if (world_is_live(w, i) && !view_is_true(w, i, why, size))
            return false;
    return true;
}

int64_t watch_settle(struct world *w, int64_t most_ns)
{
    int64_t began_ns = w->net.now_ns;
    char why[512] = "";
    while (!watch_is_settled(w, why, sizeof why)) {
        if (w->net.now_ns - began_ns >= most_ns)
            world_fail("not settled after %.0f s of calm: %s", (double)most_ns / 1e9, why);
        world_run_for(w, NS_PER_S);
    }
    return w->net.now_ns - began_ns;
}

/* ------------------------------------------------------------ bounds */

/* What all nodes have allocated; 0 where malloc doesn't tell (a sanitizer's). */
static uint64_t allocated(const struct world *w)
{
    struct mallinfo2 info = mallinfo2();
    uint64_t bytes = info.uordblks + info.hblkhd;
    return bytes > w->net.in_flight_bytes ? bytes - w->net.in_flight_bytes : 0;
}

void watch_bounds(struct world *w)
{
    uint64_t bytes = allocated(w);
    uint64_t most = (64 << 20) + w->count * (uint64_t)(MEMORY_NODE + w->count * MEMORY_RECORD);
    if (bytes > w->memory_most)
        w->memory_most = bytes;
    if (bytes > most)
        world_fail("%u nodes hold %llu bytes", w->count, (unsigned long long)bytes);
}
