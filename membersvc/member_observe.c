/* Who is silent: the members that this node observes, suspicion, and what a node does that hears nobody.
 *
 *   heard ──1.5 intervals──> probed ──suspect_after──> suspect ──down_after, and others agree──> down
 *     ^                        │                          │
 *     └──── any message of it, an answer of it through others, a new incarnation of its ────┘ */
#include <stdio.h>
#include <string.h>

#include "member_parts.h"

int64_t observe_silent_ns(const struct member_core *core, const struct watch *w)
{
    int64_t since_ns = w->member->alive_ns > w->since_ns ? w->member->alive_ns : w->since_ns;
    return core->awake_ns - since_ns;
}

static int64_t probe_after_ns(const struct member_core *core)
{
    return core->timing.heartbeat_ns + core->timing.heartbeat_ns / 2;
}

struct watch *observe_watch(struct member_core *core, const struct member *m)
{
    for (uint32_t i = 0; i < core->watch_count; i++)
        if (core->watches[i].member == m)
            return &core->watches[i];
    return NULL;
}

void observe_forget_opinions(struct member_core *core)
{
    for (uint32_t i = 0; i < core->watch_count; i++)
        memset(core->watches[i].opinions, 0, sizeof core->watches[i].opinions);
}

/* ------------------------------------------------------------ a node that hears nobody */

static void show(struct member_core *core, struct member *m, enum member_status status)
{
    if (m->shown == status || m->status == status)
        return;
    m->shown = (uint8_t)status;
    event_add(core, status == MEMBER_DOWN ? MEMBER_EVENT_DOWN : MEMBER_EVENT_SUSPECT, m,
              "this node hears nobody; only it shows this");
}

static void show_no_more(struct member_core *core, struct member *m)
{
    if (m->shown == 0)
        return;
    m->shown = 0;
    if (m->on_ring)
        event_add(core, m->status == MEMBER_SUSPECT ? MEMBER_EVENT_SUSPECT : MEMBER_EVENT_UP, m, "");
}

static void begin_alone(struct member_core *core)
{
    core->alone = true;
    for (uint32_t i = 0; i < core->ring_count; i++)
        if (core->ring[i] != core->self)
            show(core, core->ring[i], MEMBER_DOWN);
}

/* Those that it observes stay shown until they are heard, or declared: they may be the reason. */
static void end_alone(struct member_core *core)
{
    core->alone = false;
    for (uint32_t i = 0; i < core->ring_count; i++)
        if (observe_watch(core, core->ring[i]) == NULL)
            show_no_more(core, core->ring[i]);
}

static int64_t any_silent_ns(const struct member_core *core)
{
    return core->awake_ns - (core->any_ns > core->opened_ns ? core->any_ns : core->opened_ns);
}

/* ------------------------------------------------------------ signs of life */

static void reach(struct member_core *core, struct member *m, const char *text)
{
    if (!m->unreachable)
        return;
    m->unreachable = false;
    if (m->on_ring)
        event_add(core, MEMBER_EVENT_REACHABLE, m, text);
}

/* After a time in which it heard nobody, those that it observes get their chance to answer its probes: it was
 * this node that was cut off. */
static void hear_again(struct member_core *core)
{
    int64_t since_ns = core->awake_ns - probe_after_ns(core);
    for (uint32_t i = 0; i < core->watch_count; i++)
        if (core->watches[i].since_ns < since_ns)
            core->watches[i].since_ns = since_ns;
}

void observe_heard(struct member_core *core, struct member *m)
{
    if (any_silent_ns(core) > probe_after_ns(core))
        hear_again(core);
    m->heard_ns = core->now.mono_ns;
    m->direct_ns = m->alive_ns = core->awake_ns;
    core->any_ns = core->awake_ns;
    if (core->refused) {
        core->refused = false;
        core_set_text(core, "");
    }
    reach(core, m, "");
    show_no_more(core, m);
    if (core->alone)
        end_alone(core);
}

/* ------------------------------------------------------------ whom it observes */

static void unwatch(struct member_core *core, struct watch *w)
{
    reach(core, w->member, "no longer observed from here");
    if (!core->alone)
        show_no_more(core, w->member);
}

void observe_ring(struct member_core *core)
{
    struct watch old[OBSERVERS_MAX], *kept;
    uint32_t old_count = core->watch_count;
    struct member *observed[OBSERVERS_MAX];
    core->ring_changed = false;
    uint32_t count =
        core->self != NULL && core_is_member(core) ? ring_observed(core, core->self, observed) : 0;
    memcpy(old, core->watches, sizeof old);
    for (uint32_t i = 0; i < count; i++) {
        kept = NULL;
        for (uint32_t k = 0; k < old_count; k++)
            if (old[k].member == observed[i])
                kept = &old[k];
        core->watches[i] =
            kept != NULL ? *kept : (struct watch){.member = observed[i], .since_ns = core->awake_ns};
    }
    core->watch_count = count;
    for (uint32_t k = 0; k < old_count; k++)
        if (observe_watch(core, old[k].member) == NULL)
            unwatch(core, &old[k]);
    if (core->alone && core->ring_count < 2)
        core->alone = false;
}

/* ------------------------------------------------------------ silence */

/* Since this one is probed, others that are asked about it answer: when none does, it is this node that is
 * cut off. */
static bool hears_others(const struct member_core *core, const struct watch *w)
{
    int64_t asked_ns = core->awake_ns - observe_silent_ns(core, w) + probe_after_ns(core);
    return core->any_ns > asked_ns;
}

static void declare(struct member_core *core, struct member *m, enum member_status status, int64_t silent_ns)
{
    struct member_record r;
    char text[64];
    table_unpack(m, &r);
    r.status = status;
    r.since_ms = wire_wall_ms(core);
    snprintf(text, sizeof text, "nothing heard for %.1f s", (double)silent_ns / (double)NS_PER_S);
    if (status == MEMBER_DOWN)
        core->counters.downs++;
    else
        core->counters.suspicions++;
    merge_record(core, &r, text);
}

static void see_reachable(struct member_core *core, struct watch *w, int64_t silent_ns)
{
    struct member *m = w->member;
    int64_t direct_ns = core->awake_ns - (m->direct_ns > w->since_ns ? m->direct_ns : w->since_ns);
    if (m->unreachable || direct_ns < core->timing.suspect_ns || silent_ns >= core->timing.suspect_ns)
        return;
    m->unreachable = true;
    event_add(core, MEMBER_EVENT_UNREACHABLE, m, "others reach it");
}

/* True when the ring has changed. */
static bool step(struct member_core *core, struct watch *w)
{
    struct member *m = w->member;
    int64_t silent_ns = observe_silent_ns(core, w);
    see_reachable(core, w, silent_ns);
    if (silent_ns < probe_after_ns(core)) {
        bool is_direct = core->awake_ns - m->direct_ns < probe_after_ns(core) ||
                         core->awake_ns - w->since_ns < probe_after_ns(core);
        if (is_direct)
            w->probes = 0;
        if (!m->unreachable)
            return false;
    }
    if (core->awake_ns >= w->next_probe_ns) {
        w->next_probe_ns = core->awake_ns + core_probe_ns(core);
        probe_send(core, w);
    }
    bool is_there = m->status < MEMBER_DOWN;
    if (silent_ns >= core->timing.suspect_ns && m->status < MEMBER_SUSPECT) {
        if (hears_others(core, w))
            declare(core, m, MEMBER_SUSPECT, silent_ns);
        else if (m->shown == 0)
            show(core, m, MEMBER_SUSPECT);
    }
    if (silent_ns >= core->timing.down_ns && is_there && hears_others(core, w) && probe_agreed(core, w))
        declare(core, m, MEMBER_DOWN, silent_ns);
    return core->ring_changed;
}

void observe_tick(struct member_core *core)
{
    for (uint32_t i = 0; i < core->watch_count; i++) {
        if (step(core, &core->watches[i])) {
            observe_ring(core);
            i = UINT32_MAX; /* from the first one again */
        }
    }
    if (!core->alone && core->founded && core_is_member(core) && core->ring_count > 1 &&
        any_silent_ns(core) >= core->timing.down_ns)
        begin_alone(core);
}

/* ------------------------------------------------------------ when it is due */

static int64_t earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The next of the thresholds that lies ahead. */
static int64_t watch_due(const struct member_core *core, const struct watch *w)
{
    int64_t heard_ns = core->awake_ns - observe_silent_ns(core, w), due_ns = heard_ns + probe_after_ns(core);
    if (due_ns <= core->awake_ns || w->member->unreachable)
        due_ns = w->next_probe_ns;
    const int64_t marks_ns[] = {core->timing.suspect_ns, core->timing.down_ns};
    for (unsigned i = 0; i < 2; i++)
        if (heard_ns + marks_ns[i] > core->awake_ns)
            due_ns = earliest(due_ns, heard_ns + marks_ns[i]);
    return due_ns;
}

int64_t observe_due(const struct member_core *core)
{
    int64_t due_ns = NO_TIME;
    for (uint32_t i = 0; i < core->watch_count; i++)
        due_ns = earliest(due_ns, watch_due(core, &core->watches[i]));
    if (!core->alone && core->founded && core->ring_count > 1 && core_is_member(core))
        due_ns = earliest(due_ns, core->awake_ns + core->timing.down_ns - any_silent_ns(core));
    return due_ns;
}
