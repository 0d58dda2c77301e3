/* How far the own log is replicated.
 *
 * A follower's position names a place in its copy. It counts as far as that copy is known to be on the chain
 * of the log here: an own log that has lost its end, and has gone on otherwise, has copies with another one.
 * Known it is by a position where the log ends, or has ended lately, with the same checksum; and by the place
 * of a fetch, which was found in the files here: a copy that is on the chain there is on it everywhere
 * before. What a follower gets it gets up to such an end, from whomever, so that its positions prove
 * themselves. */
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
    bool reached = p->goal_ns > 0 && p->reached.end >= p->goal_end;
    if (!reached && (p->goal_ns == 0 || now_ns - p->goal_ns >= CAUGHT_UP_NS)) {
        p->goal_end = own_end;
        p->goal_ns = now_ns;
    }
    return reached || p->reached.end >= p->goal_end;
}

static void advance(struct repl_reached *to, uint64_t lsn, uint64_t end)
{
    if (lsn >= to->lsn && end >= to->end)
        *to = (struct repl_reached){lsn, end};
}

static bool is_beyond(const struct repl_core *core, uint64_t lsn, uint64_t end)
{
    return lsn > own_lsn(core) || end > core->held[0].durable.position;
}

/* NULL: the log has not ended there lately. */
static const struct log_chain *end_at(const struct repl_core *core, uint64_t position)
{
    size_t count = core->end_count < REPL_ENDS ? core->end_count : REPL_ENDS;
    for (size_t i = 1; i <= count; i++) { /* mostly it is one of the last */
        const struct log_chain *end = &core->ends[(core->end_count - i) % REPL_ENDS];
        if (end->position <= position)
            return end->position == position ? end : NULL;
    }
    return NULL;
}

/* A follower of a busy log is never at its very end: what counts is when the log ended where it is. */
static void note_lag(struct repl_position_of *p, uint64_t own_end, int64_t now_ns)
{
    if (p->reached.end >= own_end) {
        p->had_all_ns = now_ns;
        p->next_ns = 0;
        return;
    }
    if (p->next_ns > 0 && p->reached.end >= p->next_end) {
        p->had_all_ns = p->next_ns;
        p->next_ns = 0;
    }
    if (p->next_ns == 0) {
        p->next_end = own_end;
        p->next_ns = now_ns;
    }
}

void repl_quorum_note_lag(struct repl_core *core, int64_t now_ns, uint64_t before)
{
    for (size_t i = 0; i < core->member_count; i++) {
        struct repl_position_of *p = &core->positions[i];
        if (p->had_all_ns == 0 || (core->knows_logs && p->reached.end >= before))
            p->had_all_ns = now_ns;
    }
}

/* A position beyond the own end is a lie, or this log has lost its end: it acknowledges nothing. */
void repl_quorum_note(struct repl_core *core, int64_t now_ns, size_t member,
                      const struct msg_position *position)
{
    struct repl_position_of *p = &core->positions[member];
    const struct log_chain *own = &core->held[0].durable;
    if (!core->knows_logs)
        return;
    if (core->own_copy) { /* what it has may well be more, and says nothing of what will be appended */
        p->seen_ns = now_ns;
        core->counters.positions++;
        return;
    }
    if (is_beyond(core, position->lsn, position->end)) {
        core->counters.beyond++;
        repl_notice(core, now_ns, LOG_ERROR,
                    "a member says that it has more of this node's log than there is; not counted",
                    core->members[member].id, "");
        return;
    }
    const struct log_chain *end = position->checksum != 0 ? end_at(core, position->end) : NULL;
    if (end != NULL && (position->checksum != end->checksum || position->lsn != end->next_lsn - 1)) {
        core->counters.forks++;
        repl_notice(
            core, now_ns, LOG_ERROR,
            "a member's copy of this node's log ends with another frame than the log has there; not counted",
            core->members[member].id, "");
        return;
    }
    core->counters.positions++;
    p->seen_ns = now_ns;
    if (end != NULL)
        advance(&p->proved, position->lsn, position->end);
    if (position->end <= p->proved.end)
        advance(&p->reached, position->lsn, position->end);
    else
        advance(&p->reached, p->proved.lsn, p->proved.end);
    note_lag(p, own->position, now_ns);
    p->counts = p->counts || has_caught_up(p, own->position, now_ns);
    repl_quorum_tell(core, now_ns);
}

/* What was fetched from there is not durable there yet: that is for the next position to say. */
void repl_core_proved(struct repl_core *core, struct id16 log, struct id16 by, const struct log_chain *place)
{
    int member = repl_origin(core, by);
    if (member < 0 || !id16_equal(log, core->own) || is_beyond(core, place->next_lsn - 1, place->position))
        return;
    advance(&core->positions[member].proved, place->next_lsn - 1, place->position);
}

void repl_quorum_off_chain(struct repl_core *core, size_t member)
{
    struct repl_position_of *p = &core->positions[member];
    p->proved = p->reached = (struct repl_reached){0};
}

void repl_quorum_own_log(struct repl_core *core, const struct log_chain *before, bool rebooted)
{
    const struct log_chain *now = &core->held[0].durable;
    bool same = now->position == before->position && now->next_lsn == before->next_lsn &&
                now->checksum == before->checksum;
    if (rebooted)
        core->told = (struct msg_replicated){0};
    bool goes_on = !core->own_copy && (same || (!rebooted && now->position > before->position));
    if (!goes_on)
        core->end_count = 0;
    if (!same || core->end_count == 0)
        core->ends[core->end_count++ % REPL_ENDS] = *now;
    if (goes_on)
        return;
    for (size_t i = 0; i < core->member_count; i++)
        repl_quorum_off_chain(core, i);
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
            lsns[count++] = core->positions[i].reached.lsn;
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
