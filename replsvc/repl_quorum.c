/* How far the own log is replicated. */
#include <stdlib.h>

#include "log.h"
#include "repl_parts.h"

#define CAUGHT_UP_NS NS_PER_S

static uint64_t own_lsn(const struct repl_core *core)
{
    return core->held[0].durable.next_lsn - 1;
}

/* It has what there was up to a second ago: at the very end nobody ever is who follows a busy log. */
static bool has_caught_up(struct repl_position_of *p, uint64_t own_end, int64_t now_ns)
{
    bool reached = p->goal_ns > 0 && p->end >= p->goal_end;
    if (!reached && (p->goal_ns == 0 || now_ns - p->goal_ns >= CAUGHT_UP_NS)) {
        p->goal_end = own_end;
        p->goal_ns = now_ns;
    }
    return reached || p->end >= p->goal_end;
}

/* A position beyond the own end is a lie, or this log has lost its end: it acknowledges nothing. */
void repl_quorum_note(struct repl_core *core, int64_t now_ns, size_t member, uint64_t lsn, uint64_t end)
{
    struct repl_position_of *p = &core->positions[member];
    if (!core->knows_logs)
        return;
    if (core->own_copy) { /* what it has may well be more, and says nothing of what will be appended */
        p->seen_ns = now_ns;
        core->counters.positions++;
        return;
    }
    if (lsn > own_lsn(core) || end > core->held[0].durable.position) {
        core->counters.beyond++;
        repl_notice(core, now_ns, LOG_ERROR,
                    "a member says that it has more of this node's log than there is; not counted",
                    core->members[member].id, "");
        return;
    }
    core->counters.positions++;
    p->seen_ns = now_ns;
    if (lsn >= p->lsn && end >= p->end) {
        p->lsn = lsn;
        p->end = end;
    }
    if (p->end == core->held[0].durable.position)
        p->caught_up_ns = now_ns;
    p->counts = p->counts || has_caught_up(p, core->held[0].durable.position, now_ns);
    repl_quorum_tell(core, now_ns);
}

/* Which chain a member's copy is a part of its next fetch shows; one that waits at the end has shown it. */
void repl_quorum_reboot(struct repl_core *core)
{
    core->told = (struct msg_replicated){0};
    for (size_t i = 0; i < core->member_count; i++) {
        struct repl_position_of *p = &core->positions[i];
        p->on_chain = !core->own_copy && repl_serve_is_at_end(core, i);
        if (core->own_copy || p->lsn > own_lsn(core))
            p->lsn = p->end = 0;
    }
}

void repl_quorum_served(struct repl_core *core, int64_t now_ns, size_t member, bool on_chain)
{
    struct repl_position_of *p = &core->positions[member];
    bool is_news = on_chain != p->on_chain;
    p->on_chain = on_chain;
    if (!on_chain)
        p->lsn = p->end = 0;
    if (is_news)
        repl_quorum_tell(core, now_ns);
}

static int descending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static uint64_t later(uint64_t told, uint64_t now)
{
    return told == UINT64_MAX || now > told ? now : told;
}

void repl_quorum_tell(struct repl_core *core, int64_t now_ns)
{
    uint64_t lsns[REPL_MEMBERS_MAX + 1];
    size_t count = 0;
    (void)now_ns;
    if (!core->knows_members || !core->knows_logs || core->own_copy)
        return;
    lsns[count++] = own_lsn(core);
    for (size_t i = 0; i < core->member_count; i++)
        if (core->positions[i].counts)
            lsns[count++] = core->positions[i].on_chain ? core->positions[i].lsn : 0;
    qsort(lsns, count, sizeof lsns[0], descending);
    struct msg_replicated now = {.quorum_lsn = UINT64_MAX, .all_lsn = UINT64_MAX};
    if (core->member_count > 0) {
        now.quorum_lsn = later(core->told.quorum_lsn, lsns[count / 2]);
        now.all_lsn = later(core->told.all_lsn, lsns[count - 1]);
    }
    if (now.quorum_lsn == core->told.quorum_lsn && now.all_lsn == core->told.all_lsn)
        return;
    core->told = now;
    repl_put(core, REPL_REPLICATED)->replicated = now;
}

void repl_quorum_tell_again(struct repl_core *core)
{
    if (core->told.quorum_lsn > 0)
        repl_put(core, REPL_REPLICATED)->replicated = core->told;
}

struct repl_progress repl_core_progress(const struct repl_core *core)
{
    return (struct repl_progress){
        .durable_lsn = core->knows_logs ? own_lsn(core) : 0,
        .quorum_lsn = core->told.quorum_lsn,
        .all_lsn = core->told.all_lsn,
    };
}
