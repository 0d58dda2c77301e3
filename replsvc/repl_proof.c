/* Whether another member has more of the own log than there is here, or other frames, and who else is looked
 * at (repl_fork.c) for a chain that parts from what is here. By order:
 *
 *   - The own log waits (the machine was started anew, walsvc/wal_proof.h), or is fetched back: all
 *     members, one after the other. One that has more, or other frames, settles the first (so does one
 *     that is known to have more, whether it can be asked or not); the second goes on until none has.
 *     Who can't be reached is left out, as long as somebody answers.
 *   - The own log is extended as ever, but a member's fetch says that its copy is longer, or another
 *     one: that member, once a minute at most.
 *   - A copy is forked, and its origin says that it gave up a chain: the origin.
 *
 * Frames whose first one was given up are that member's to mend. */
#include <stdio.h>

#include "log.h"
#include "repl_parts.h"

#define PROOF_AGAIN_NS  (300 * (int64_t)NS_PER_MS)
#define BACK_AGAIN_NS   NS_PER_S
#define LOOK_EACH_NS    (60 * NS_PER_S)
#define SILENT_FIRST_NS (2 * NS_PER_S) /* doubled */
/* walsvc ends when it was told that the log is behind or forked: it is told again when it did not. */
#define TELL_EACH_NS (60 * NS_PER_S)

/* ---- verdicts ---- */

static void begin_round(struct repl_core *core, int64_t due_ns)
{
    struct repl_proof *p = &core->proof;
    p->member = 0;
    p->answers = 0;
    p->is_awaited = false;
    p->due_ns = due_ns;
}

static void settle(struct repl_core *core, int64_t now_ns, uint64_t verdict, const char *text)
{
    struct repl_action *action = repl_put(core, REPL_OWN_LOG);
    action->verdict = verdict;
    snprintf(action->detail, sizeof action->detail, "%s", text);
    begin_round(core, 0);
    core->proof.told_ns = now_ns;
}

static void settle_by(struct repl_core *core, int64_t now_ns, const char *id, uint64_t lsn, uint64_t verdict)
{
    char text[REPL_TEXT_MAX];
    uint64_t own_lsn = core->held[0].durable.next_lsn - 1;
    const char *what = verdict == 2 ? "%s has other entries from LSN %llu on, here it ends at %llu"
                                    : "%s has it up to LSN %llu, here it ends at %llu";
    snprintf(text, sizeof text, what, id, (unsigned long long)lsn, (unsigned long long)own_lsn);
    settle(core, now_ns, verdict, text);
}

void repl_core_not_told(struct repl_core *core, int64_t now_ns)
{
    core->proof.told_ns = 0;
    begin_round(core, now_ns + BACK_AGAIN_NS);
}

static bool was_told(const struct repl_core *core, int64_t now_ns)
{
    return core->proof.told_ns > 0 && now_ns - core->proof.told_ns < TELL_EACH_NS;
}

void repl_proof_begin(struct repl_core *core, bool waits, bool rebooted)
{
    struct repl_proof *p = &core->proof;
    if (!rebooted && waits == p->waits)
        return;
    if (p->looks == PROOF_ROUND || rebooted) {
        repl_fork_stop(core);
        p->looks = PROOF_NONE;
    }
    p->waits = waits;
    p->told_ns = 0;
    begin_round(core, 0);
}

void repl_proof_members(struct repl_core *core)
{
    repl_fork_stop(core);
    core->proof.looks = PROOF_NONE;
    begin_round(core, 0);
}

/* ---- who is looked at ---- */

/* By what members were heard to hold. */
static bool is_known_to_be_behind(struct repl_core *core, int64_t now_ns)
{
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_watermark *w = repl_watermark_of(&core->members[i], core->own);
        if (w == NULL || w->end <= core->held[0].durable.position)
            continue;
        settle_by(core, now_ns, core->members[i].id, w->lsn, 1);
        return true;
    }
    return false;
}

/* While the own log is being written to, there is nothing to compare with. */
static bool is_at_rest(struct repl_core *core, int64_t now_ns)
{
    const struct repl_follow *f = repl_follow_of(core, core->own);
    return !core->own_copy || (f != NULL && f->placed && f->stores == 0 && !f->over && now_ns >= f->retry_ns);
}

static void end_round(struct repl_core *core, int64_t now_ns)
{
    struct repl_proof *p = &core->proof;
    if (core->member_count == 0 || (p->answers > 0 && !p->is_awaited))
        settle(core, now_ns, 0, "");
    else
        begin_round(core, now_ns + (core->own_copy ? BACK_AGAIN_NS : PROOF_AGAIN_NS));
}

/* The next member; at the end the verdict, or another round. */
static void go_round(struct repl_core *core, int64_t now_ns)
{
    struct repl_proof *p = &core->proof;
    if (!(p->waits || core->own_copy) || p->due_ns > now_ns || was_told(core, now_ns))
        return;
    p->due_ns = 0;
    if (p->waits && is_known_to_be_behind(core, now_ns))
        return;
    if (!is_at_rest(core, now_ns)) {
        begin_round(core, now_ns + BACK_AGAIN_NS);
    } else if (p->member < core->member_count) {
        p->looks = PROOF_ROUND;
        repl_fork_look(core, now_ns, core->own, p->member);
    } else {
        end_round(core, now_ns);
    }
}

static void look_at_suspects(struct repl_core *core, int64_t now_ns)
{
    if (core->proof.waits || core->own_copy || was_told(core, now_ns))
        return;
    for (size_t i = 0; i < core->member_count; i++) {
        struct repl_position_of *position = &core->positions[i];
        if (!position->suspect)
            continue;
        position->suspect = false;
        core->counters.checks++;
        core->proof.looks = PROOF_SUSPECT;
        core->proof.member = i;
        repl_fork_look(core, now_ns, core->own, i);
        return;
    }
}

static void look_at_origins(struct repl_core *core)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        struct repl_follow *f = &core->follows[i];
        int origin = f->used && f->parts ? repl_origin(core, f->log) : -1;
        if (origin < 0 || f->stores > 0 || f->over || repl_end_here(core, f->log) == NULL)
            continue;
        f->parts = false;
        core->counters.checks++;
        core->proof.looks = PROOF_ORIGIN;
        repl_fork_look_back(core, f->log, (size_t)origin, f->parts_end);
        return;
    }
}

void repl_proof_go(struct repl_core *core, int64_t now_ns)
{
    struct repl_proof *p = &core->proof;
    if (!core->knows_members || !core->knows_logs)
        return;
    if (p->looks == PROOF_NONE)
        go_round(core, now_ns);
    if (p->looks == PROOF_NONE)
        look_at_suspects(core, now_ns);
    if (p->looks == PROOF_NONE)
        look_at_origins(core);
}

void repl_proof_suspect(struct repl_core *core, int64_t now_ns, size_t member)
{
    struct repl_position_of *position = &core->positions[member];
    if (now_ns < position->look_due_ns)
        return;
    position->suspect = true;
    repl_proof_go(core, now_ns);
}

/* ---- what was found ---- */

static bool is_given_up(const struct repl_core *core, const struct repl_fork *fork)
{
    return given_up_has(core->given_up, core->given_up_count, fork->theirs);
}

static void found_of_waiting(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                             const struct repl_fork *fork)
{
    struct repl_proof *p = &core->proof;
    const struct repl_member *m = &core->members[p->member];
    bool is_theirs = fork != NULL && is_given_up(core, fork);
    if ((finding == FOUND_MORE && !is_theirs) || finding == FOUND_TRIMMED) {
        settle_by(core, now_ns, m->id, p->look.its_lsn, 1);
    } else if (finding == FOUND_OTHER && !is_theirs) {
        settle_by(core, now_ns, m->id, fork->at.next_lsn, 2);
    } else {
        p->answers += finding == FOUND_SAME || is_theirs;
        p->member++;
    }
}

/* A member that is up, does not answer, and is known to have more, is waited for. */
static bool has_what_is_not_here(struct repl_core *core, const struct repl_member *m)
{
    const struct log_chain *end = repl_end_here(core, core->own);
    return m->up && end != NULL && repl_watermark_end(m, core->own) > end->position;
}

static void found_of_own_copy(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                              const struct repl_fork *fork)
{
    struct repl_proof *p = &core->proof;
    const struct repl_member *m = &core->members[p->member];
    struct repl_follow *f = repl_follow_of(core, core->own);
    bool is_theirs = fork != NULL && is_given_up(core, fork);
    if (finding == FOUND_STUCK || finding == FOUND_TRIMMED)
        repl_notice(core, now_ns, LOG_ERROR,
                    "a member has other entries of this node's log, and what came before them is gone; the "
                    "log can't be fetched back: let the node begin anew, by `node join --replace`",
                    m->id, "");
    if (finding == FOUND_OTHER && !is_theirs && f != NULL && is_at_rest(core, now_ns)) {
        repl_over_begin(core, f, p->member, &fork->at);
        begin_round(core, now_ns + BACK_AGAIN_NS);
        return;
    }
    if (finding == FOUND_MORE && !is_theirs && f != NULL)
        f->lead = (int)p->member;
    bool is_same = finding == FOUND_SAME || is_theirs;
    bool is_mute = finding == FOUND_SILENT || finding == FOUND_NOTHING;
    p->answers += is_same;
    p->is_awaited = p->is_awaited || (is_mute ? has_what_is_not_here(core, m) : !is_same);
    p->member++;
}

/* Whoever does not answer is looked at again sooner, and then more and more rarely. */
static void put_off(struct repl_position_of *position, int64_t now_ns, bool is_silent)
{
    position->silences = is_silent ? position->silences + 1 : 0;
    int64_t pause_ns = SILENT_FIRST_NS << (position->silences < 5 ? position->silences : 5);
    position->look_due_ns = now_ns + (is_silent && pause_ns < LOOK_EACH_NS ? pause_ns : LOOK_EACH_NS);
}

static void found_of_suspect(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                             const struct repl_fork *fork)
{
    const struct repl_member *m = &core->members[core->proof.member];
    put_off(&core->positions[core->proof.member], now_ns, finding == FOUND_SILENT);
    begin_round(core, 0);
    if (finding == FOUND_MORE && !is_given_up(core, fork)) {
        settle_by(core, now_ns, m->id, core->proof.look.its_lsn, 1);
    } else if (finding == FOUND_OTHER || finding == FOUND_MORE) {
        if (!is_given_up(core, fork))
            settle_by(core, now_ns, m->id, fork->at.next_lsn, 2);
    } else if (finding != FOUND_SILENT) {
        core->counters.unproved++;
        repl_notice(core, now_ns, LOG_WARN,
                    "a member says that it has more of this node's log, or something else, and has no frames "
                    "to show for it; ignored",
                    m->id, "");
    }
}

static void found_of_origin(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                            const struct repl_fork *fork)
{
    struct repl_follow *f = repl_follow_of(core, core->proof.look.log);
    if (f == NULL || f->stores > 0 || f->over)
        return;
    if (finding == FOUND_OTHER && given_up_has(f->given_up, f->given_up_count, fork->own)) {
        repl_over_begin(core, f, core->proof.look.member, &fork->at);
        return;
    }
    if (finding != FOUND_OTHER && finding != FOUND_STUCK)
        return;
    core->counters.unproved++;
    repl_notice(core, now_ns, LOG_ERROR,
                "the copy of a log is on another chain than its origin, which did not give that up, or has "
                "not got what came before it any more",
                core->members[core->proof.look.member].id, "");
}

void repl_proof_found(struct repl_core *core, int64_t now_ns, enum repl_finding finding,
                      const struct repl_fork *fork)
{
    int looks = core->proof.looks;
    core->proof.looks = PROOF_NONE;
    if (looks == PROOF_ORIGIN)
        found_of_origin(core, now_ns, finding, fork);
    else if (looks == PROOF_SUSPECT)
        found_of_suspect(core, now_ns, finding, fork);
    else if (core->own_copy)
        found_of_own_copy(core, now_ns, finding, fork);
    else
        found_of_waiting(core, now_ns, finding, fork);
    repl_proof_go(core, now_ns);
    repl_follow_go(core, now_ns);
}

/* ---- time ---- */

void repl_proof_tick(struct repl_core *core, int64_t now_ns)
{
    repl_fork_tick(core, now_ns);
    repl_proof_go(core, now_ns);
}

int64_t repl_proof_due_ns(const struct repl_core *core)
{
    const struct repl_proof *p = &core->proof;
    bool has_rounds = p->waits || core->own_copy;
    if (p->look.step == LOOK_ASKING)
        return p->look.due_ns;
    return has_rounds && p->looks == PROOF_NONE && p->due_ns > 0 ? p->due_ns : INT64_MAX;
}
