/* Probes, how long their answers take, and what observers say to each other about a member that is silent.
 *
 *   observer ── probe ──> target ── probe_ack ──> observer
 *   observer ── probe ──> relay ── probe ──> target ── probe_ack ──> relay ── probe_ack ──> observer
 *
 * A relay passes on only what comes from the origin itself, and back only what comes from the target itself:
 * no message goes further than that. */
#include <string.h>

#include "member_parts.h"
#include "telemetry.h"

enum { OPINION_PROBES = 3 }; /* probe intervals that an opinion counts for */

static void send_probe(struct member_core *core, const struct member *to, struct slice target,
                       struct slice origin, struct slice about)
{
    struct address address = address_of(core, to);
    struct msg_probe m = {.from = buf_slice(&core->own_bytes),
                          .wall_ms = wire_wall_ms(core),
                          .target = target,
                          .origin = origin,
                          .about = about};
    wire_begin(core, MSG_probe);
    msg_encode(MSG_probe, &m, &core->message);
    out_send(core, &address, buf_slice(&core->message));
    if (slice_is(target, to->id) && slice_is(origin, core->id) && strcmp(core->timed, to->id) != 0) {
        memcpy(core->timed, to->id, strlen(to->id) + 1);
        core->timed_ns = core->now.mono_ns;
    }
}

void probe_time(struct member_core *core, const struct member *to)
{
    send_probe(core, to, slice_str(to->id), slice_str(core->id), (struct slice){0});
}

static void send_opinion(struct member_core *core, const struct watch *w, const struct member *to)
{
    struct address address = address_of(core, to);
    struct msg_opinion m = {.from = buf_slice(&core->own_bytes),
                            .wall_ms = wire_wall_ms(core),
                            .subject = slice_str(w->member->id),
                            .generation = w->member->generation,
                            .incarnation = w->member->incarnation,
                            .silent_ms = (uint64_t)(observe_silent_ns(core, w) / NS_PER_MS)};
    wire_begin(core, MSG_opinion);
    msg_encode(MSG_opinion, &m, &core->message);
    out_send(core, &address, buf_slice(&core->message));
}

void probe_send(struct member_core *core, struct watch *w)
{
    struct member *others[OBSERVERS_MAX];
    struct slice target = slice_str(w->member->id), about = table_bytes(w->member);
    send_probe(core, w->member, target, slice_str(core->id), about);
    core->counters.probes++;
    if (w->probes++ == 0)
        return;
    uint32_t count = ring_pick(core, w->member, RELAYS, others);
    for (uint32_t i = 0; i < count; i++)
        send_probe(core, others[i], target, slice_str(core->id), about);
    core->counters.probes += count;
    count = ring_observers(core, w->member, others);
    for (uint32_t i = 0; i < count; i++)
        if (others[i] != core->self)
            send_opinion(core, w, others[i]);
}

/* ------------------------------------------------------------ answers */

static void send_ack(struct member_core *core, const struct member *to, struct slice origin,
                     struct slice target)
{
    struct address address = address_of(core, to);
    struct msg_probe_ack m = {.from = buf_slice(&core->own_bytes),
                              .wall_ms = wire_wall_ms(core),
                              .origin = origin,
                              .target = target};
    wire_begin(core, MSG_probe_ack);
    msg_encode(MSG_probe_ack, &m, &core->message);
    out_send(core, &address, buf_slice(&core->message));
}

void probe_on_probe(struct member_core *core, struct member *from, const struct msg_probe *probe)
{
    struct member_record about;
    const struct member *target = table_find(core, probe->target);
    if (slice_is(probe->target, core->id)) {
        if (probe->about.len > 0 && member_decode(probe->about, &about) == SH_OK &&
            strcmp(about.id, core->id) == 0)
            merge_record(core, &about, "");
        if (core_is_member(core))
            send_ack(core, from, probe->origin, buf_slice(&core->own_bytes));
    } else if (target != NULL && target->status != MEMBER_LEFT && slice_is(probe->origin, from->id)) {
        send_probe(core, target, probe->target, probe->origin, probe->about);
        core->counters.probes++;
    }
}

/* It counts when it is an answer to what this node has asked for. */
static void take_ack(struct member_core *core, const struct member_record *r)
{
    struct member *m = table_find(core, slice_str(r->id));
    struct watch *w = m != NULL ? observe_watch(core, m) : NULL;
    if (w == NULL || w->probes == 0 || r->generation != m->generation || !id16_equal(r->log, m->log) ||
        (r->incarnation < m->incarnation && !id16_equal(r->boot, m->boot)))
        return;
    m->alive_ns = core->awake_ns;
    merge_record(core, r, "");
}

/* Straight from the member that was asked last. */
static void take_time(struct member_core *core, const struct member *from)
{
    if (strcmp(core->timed, from->id) != 0)
        return;
    core->timed[0] = 0;
    telemetry_take(TELEMETRY_member_rtt, 0, (uint64_t)(core->now.mono_ns - core->timed_ns));
}

void probe_on_ack(struct member_core *core, struct member *from, const struct msg_probe_ack *ack)
{
    struct member_record r;
    if (member_decode(ack->target, &r) != SH_OK) {
        gate_malformed(core, slice_str(from->id));
        return;
    }
    if (slice_is(ack->origin, core->id)) {
        if (strcmp(r.id, from->id) == 0)
            take_time(core, from);
        take_ack(core, &r);
        return;
    }
    const struct member *origin = table_find(core, ack->origin);
    if (origin != NULL && origin->status != MEMBER_LEFT && strcmp(r.id, from->id) == 0)
        send_ack(core, origin, ack->origin, ack->target);
}

/* ------------------------------------------------------------ opinions */

static struct opinion *opinion_of(const struct watch *w, const struct member *observer)
{
    struct opinion *unused = NULL;
    for (unsigned i = 0; i < OBSERVERS_MAX; i++) {
        const struct opinion *o = &w->opinions[i];
        if (o->observer == observer)
            return (struct opinion *)o;
        if (o->observer == NULL || !o->observer->on_ring)
            unused = (struct opinion *)o;
    }
    return unused;
}

/* Whoever hears a member tells the observer that doesn't: so each of them counts as possible. These answers
 * speak of a short silence, and get none themselves. */
static void contradict(struct member_core *core, const struct watch *w, struct opinion *o)
{
    int64_t most_ns = core->timing.heartbeat_ns + core->timing.heartbeat_ns / 2;
    bool is_due = core->awake_ns - o->answered_ns >= core_probe_ns(core) / 2;
    if (o->silent_ns < most_ns || observe_silent_ns(core, w) >= most_ns || !is_due)
        return;
    o->answered_ns = core->awake_ns;
    send_opinion(core, w, o->observer);
}

void probe_on_opinion(struct member_core *core, struct member *from, const struct msg_opinion *opinion)
{
    struct member *m = table_find(core, opinion->subject);
    struct watch *w = m != NULL ? observe_watch(core, m) : NULL;
    struct opinion *o = w != NULL && m != from ? opinion_of(w, from) : NULL;
    if (o == NULL)
        return;
    uint64_t silent_ms = opinion->silent_ms < INT64_MAX / NS_PER_MS / 2 ? opinion->silent_ms : 0;
    *o = (struct opinion){.observer = from,
                          .generation = opinion->generation,
                          .incarnation = opinion->incarnation,
                          .silent_ns = (int64_t)silent_ms * NS_PER_MS,
                          .came_ns = core->awake_ns,
                          .answered_ns = o->observer == from ? o->answered_ns : NEVER};
    contradict(core, w, o);
}

static bool says_down(const struct member_core *core, const struct watch *w, const struct member *observer)
{
    const struct member *m = w->member;
    for (unsigned i = 0; i < OBSERVERS_MAX; i++) {
        const struct opinion *o = &w->opinions[i];
        int64_t age_ns = core->awake_ns - o->came_ns;
        if (o->observer == observer)
            return o->generation == m->generation && o->incarnation == m->incarnation &&
                   age_ns <= OPINION_PROBES * core_probe_ns(core) &&
                   o->silent_ns + age_ns >= core->timing.down_ns;
    }
    return false;
}

bool probe_agreed(const struct member_core *core, const struct watch *w)
{
    struct member *observers[OBSERVERS_MAX];
    uint32_t count = ring_observers(core, w->member, observers), possible = 0, agree = 0;
    for (uint32_t i = 0; i < count; i++) {
        bool is_self = observers[i] == core->self;
        if (!is_self && core->awake_ns - observers[i]->direct_ns >= core->timing.suspect_ns)
            continue;
        possible++;
        agree += is_self || says_down(core, w, observers[i]);
    }
    return agree >= (possible < AGREE ? possible : AGREE);
}
