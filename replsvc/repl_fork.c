/* What one member has of a log, and where that parts from what is here.
 *
 *   from the end here: asking ──► it has no more there; frames that continue it ─────────────────► found
 *                        │ another frame ends there, or it is not so far
 *                        ▼
 *   from further back: looking back ──► from a segment: asking ──► another frame there, too ──► looking back
 *                        ▲ a segment before that                     │ frames
 *                        └───────────────────────┐                   ▼
 *                                                │               comparing ──► they part: found
 *                                                │                   │ all the same
 *                                                └─ (none is left)   └──► asking for what comes behind them
 *
 * Whoever is silent once it is asked from further back is asked for the same again, a few times.
 * Nothing is found by a member's word alone: only frames that are valid, and continue what is here, show that
 * it has more, or others. One look is under way at a time. */
#include <stdio.h>

#include "log.h"
#include "repl_parts.h"

#define END_ANSWER_NS    NS_PER_S
#define FRAMES_ANSWER_NS (5 * NS_PER_S)
enum { COMPARED_BYTES = 1 << 20, SILENCES_MOST = 3 };

static void found(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                  const struct repl_fork *fork)
{
    core->proof.look.step = LOOK_NONE;
    repl_proof_found(core, now_ns, finding, fork);
}

static void ask(struct repl_core *core, int64_t now_ns)
{
    struct repl_look_at *l = &core->proof.look;
    struct repl_action *action = repl_put_question(core, REPL_FETCH, REPL_FORK_SLOT, l->member);
    l->serial = action->serial;
    action->fetch = (struct msg_fetch){
        .from = core->own,
        .log = l->log,
        .position = l->at.position,
        .lsn = l->at.next_lsn - 1,
        .checksum = l->at.checksum,
        .most_bytes = l->where == FROM_END ? 1 : COMPARED_BYTES >> l->silences,
        .most_entries = l->where == FROM_END ? 1 : UINT64_MAX,
    };
    l->step = LOOK_ASKING;
    l->due_ns = now_ns + (l->where == FROM_END ? END_ANSWER_NS : FRAMES_ANSWER_NS);
}

static void look_back(struct repl_core *core, uint64_t position)
{
    struct repl_look_at *l = &core->proof.look;
    struct repl_action *action = repl_put(core, REPL_LOOK_BACK);
    l->serial = action->serial = ++core->serial;
    action->back = (struct repl_look_back){.log = l->log, .position = position};
    l->step = LOOK_BACK;
}

void repl_fork_look(struct repl_core *core, int64_t now_ns, struct id16 log, size_t member)
{
    core->proof.look = (struct repl_look_at){
        .where = FROM_END, .log = log, .member = member, .at = *repl_end_here(core, log)};
    ask(core, now_ns);
}

void repl_fork_look_back(struct repl_core *core, struct id16 log, size_t member, uint64_t position)
{
    core->proof.look = (struct repl_look_at){.where = FROM_SEGMENT, .log = log, .member = member};
    look_back(core, position);
}

void repl_fork_stop(struct repl_core *core)
{
    if (core->proof.look.step == LOOK_ASKING)
        repl_put(core, REPL_CANCEL)->slot = REPL_FORK_SLOT;
    core->proof.look.step = LOOK_NONE;
}

/* ---- what is here ---- */

static bool is_awaited(const struct repl_look_at *l, int step, uint64_t serial)
{
    return (int)l->step == step && l->serial == serial;
}

void repl_core_begins(struct repl_core *core, int64_t now_ns, uint64_t serial, const struct log_chain *begins)
{
    struct repl_look_at *l = &core->proof.look;
    if (!is_awaited(l, LOOK_BACK, serial))
        return;
    if (begins == NULL) {
        found(core, now_ns, l->says_behind ? FOUND_SAME : FOUND_STUCK, NULL);
        return;
    }
    l->at = *begins;
    l->where = FROM_SEGMENT;
    ask(core, now_ns);
}

void repl_core_parted(struct repl_core *core, int64_t now_ns, uint64_t serial, const struct repl_fork *fork)
{
    struct repl_look_at *l = &core->proof.look;
    if (!is_awaited(l, LOOK_COMPARING, serial))
        return;
    const struct log_chain *end = repl_end_here(core, l->log);
    if (fork == NULL || end == NULL ||
        (!fork->has_own && fork->at.position < end->position &&
         !fork->all_same)) { /* what is here can't be read, or has moved */
        found(core, now_ns, FOUND_NOTHING, NULL);
    } else if (fork->all_same) {
        l->at = fork->at;
        l->where = FROM_BEHIND;
        ask(core, now_ns);
    } else {
        found(core, now_ns, fork->has_own ? FOUND_OTHER : FOUND_MORE, fork);
    }
}

/* ---- what comes ---- */

static bool on_nonsense(struct repl_core *core, int64_t now_ns, uint64_t *counter, const char *text)
{
    ++*counter;
    repl_notice(core, now_ns, LOG_ERROR, text, core->members[core->proof.look.member].id, "");
    found(core, now_ns, FOUND_NOTHING, NULL);
    return false;
}

/* The body is held on to until they are compared. */
static bool on_frames(struct repl_core *core, int64_t now_ns, const struct msg_fetch_reply *reply)
{
    struct repl_look_at *l = &core->proof.look;
    struct log_chain behind = l->at;
    const struct log_chain *end = repl_end_here(core, l->log);
    if (reply->position != l->at.position)
        return on_nonsense(core, now_ns, &core->counters.not_asked_for,
                           "a member sends other frames than it was asked for; ignored");
    if (!repl_check_bytes(l->log, reply->segment, reply->bytes, false, &behind))
        return on_nonsense(core, now_ns, &core->counters.bad_frames,
                           "a member sends frames that are damaged, or do not continue the log; ignored");
    if (end == NULL) {
        found(core, now_ns, FOUND_NOTHING, NULL);
        return false;
    }
    struct repl_action *action = repl_put(core, REPL_FIND_FORK);
    l->serial = action->serial = ++core->serial;
    action->parts = (struct repl_find_fork){
        .log = l->log, .from = l->at, .durable_end = end->position, .bytes = reply->bytes};
    l->step = LOOK_COMPARING;
    return true;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Another frame ends there, or none: it is asked from further back. Behind frames that it has just sent, that
 * makes no sense. */
static void on_forked(struct repl_core *core, int64_t now_ns, uint64_t its_end)
{
    struct repl_look_at *l = &core->proof.look;
    l->says_behind = false;
    if (l->where == FROM_END)
        look_back(core, lower(its_end, l->at.position));
    else if (l->where == FROM_SEGMENT && l->at.position > 0)
        look_back(core, l->at.position - 1);
    else
        found(core, now_ns, l->where == FROM_SEGMENT ? FOUND_STUCK : FOUND_NOTHING, NULL);
}

/* A copy that is shorter may be another one all the same. Before the log goes on after a start there is no
 * time to look: its own fetches will show it. */
static void on_behind(struct repl_core *core, int64_t now_ns, uint64_t its_end)
{
    struct repl_look_at *l = &core->proof.look;
    if (l->where != FROM_END) {
        found(core, now_ns, FOUND_NOTHING, NULL);
    } else if (core->proof.waits) {
        found(core, now_ns, FOUND_SAME, NULL);
    } else {
        l->says_behind = true;
        look_back(core, lower(its_end, l->at.position));
    }
}

static bool on_reply(struct repl_core *core, int64_t now_ns, const struct msg_fetch_reply *reply)
{
    core->proof.look.its_lsn = reply->durable_lsn;
    core->proof.look.silences = 0;
    switch ((enum log_copy_state)reply->state) {
    case LOG_COPY_FRAMES:
        return on_frames(core, now_ns, reply);
    case LOG_COPY_END:
        found(core, now_ns, FOUND_SAME, NULL);
        break;
    case LOG_COPY_TRIMMED:
        found(core, now_ns, core->proof.look.where == FROM_END ? FOUND_TRIMMED : FOUND_STUCK, NULL);
        break;
    case LOG_COPY_FORKED:
        on_forked(core, now_ns, reply->durable_end);
        break;
    case LOG_COPY_BEHIND:
        on_behind(core, now_ns, reply->durable_end);
        break;
    }
    return false;
}

/* Who never held the log has nothing more of it; a copy that was told of may be out of service. */
static void on_error(struct repl_core *core, int64_t now_ns, struct slice body)
{
    struct repl_look_at *l = &core->proof.look;
    struct msg_error error;
    bool none = msg_decode(MSG_error, body, &error) == SH_OK && error.code == SH_NOT_FOUND &&
                repl_watermark_of(&core->members[l->member], l->log) == NULL;
    core->counters.refused++;
    found(core, now_ns, none ? FOUND_SAME : FOUND_SILENT, NULL);
}

bool repl_fork_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                       struct slice body)
{
    struct repl_look_at *l = &core->proof.look;
    struct msg_fetch_reply reply;
    if (!is_awaited(l, LOOK_ASKING, serial))
        return false;
    if (type == MSG_error) {
        on_error(core, now_ns, body);
        return false;
    }
    if (type != MSG_fetch_reply || msg_decode(type, body, &reply) != SH_OK)
        return on_nonsense(core, now_ns, &core->counters.malformed, "a member answers what cannot be read");
    if (!id16_equal(reply.log, l->log))
        return on_nonsense(core, now_ns, &core->counters.not_asked_for,
                           "a member sends another log than it was asked for; ignored");
    return on_reply(core, now_ns, &reply);
}

/* A look goes through many answers, one after the other: one that is lost is asked for again, or what was
 * compared so far would be in vain, each time. The first question is not: others may answer it. */
static void on_silence(struct repl_core *core, int64_t now_ns)
{
    struct repl_look_at *l = &core->proof.look;
    core->counters.failed++;
    if (l->where != FROM_END && l->silences < SILENCES_MOST && core->members[l->member].up) {
        l->silences++; /* and less is asked for, should the line be slow */
        ask(core, now_ns);
        return;
    }
    found(core, now_ns, FOUND_SILENT, NULL);
}

void repl_fork_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial)
{
    if (is_awaited(&core->proof.look, LOOK_ASKING, serial))
        on_silence(core, now_ns);
}

void repl_fork_tick(struct repl_core *core, int64_t now_ns)
{
    if (core->proof.look.step != LOOK_ASKING || now_ns < core->proof.look.due_ns)
        return;
    repl_put(core, REPL_CANCEL)->slot = REPL_FORK_SLOT;
    on_silence(core, now_ns);
}
