/* Fetches of others: judged, answered, or parked until something can be sent. At most one is parked for each
 * member and log. */
#include <stdio.h>

#include "log.h"
#include "repl_parts.h"

static void refuse(struct repl_core *core, uint64_t token, enum sh_error error, const char *text)
{
    struct repl_action *action = repl_put(core, REPL_REFUSE);
    action->token = token;
    action->error = error;
    action->text = text;
}

static void serve(struct repl_core *core, uint64_t token, size_t member, const struct msg_fetch *fetch,
                  const struct held_log *held)
{
    core->counters.served++;
    struct repl_action *action = repl_put(core, REPL_SERVE);
    action->token = token;
    snprintf(action->id, sizeof action->id, "%s", core->members[member].id);
    action->serve = (struct repl_serve){
        .log = fetch->log,
        .by = fetch->from,
        .from = {fetch->lsn + 1, (uint32_t)fetch->checksum, fetch->position},
        .durable = held->durable,
        .anew = fetch->anew,
        .repair = fetch->repair,
        .most_bytes = fetch->most_bytes,
        .most_entries = fetch->most_entries,
    };
}

static void unpark(struct repl_core *core, size_t index)
{
    core->parked[index] = core->parked[--core->parked_count];
}

/* A later fetch for the same takes its place; the answer to the earlier one is wanted no more. */
static void make_room(struct repl_core *core, size_t member, struct id16 log)
{
    size_t oldest = 0;
    for (size_t i = 0; i < core->parked_count; i++) {
        if (core->parked[i].member == member && id16_equal(core->parked[i].fetch.log, log)) {
            refuse(core, core->parked[i].token, SH_UNAVAILABLE, "a later fetch has come");
            unpark(core, i);
            return;
        }
        if (core->parked[i].due_ns < core->parked[oldest].due_ns)
            oldest = i;
    }
    if (core->parked_count < REPL_PARKED_MAX)
        return;
    refuse(core, core->parked[oldest].token, SH_OVERLOADED, "too many fetches wait here");
    unpark(core, oldest);
}

static void park(struct repl_core *core, int64_t now_ns, uint64_t token, size_t member,
                 const struct msg_fetch *fetch)
{
    make_room(core, member, fetch->log);
    core->parked[core->parked_count++] = (struct repl_parked){
        .token = token,
        .member = member,
        .due_ns =
            now_ns + (int64_t)(fetch->wait_ms < REPL_WAIT_MS ? fetch->wait_ms : REPL_WAIT_MS) * NS_PER_MS,
        .fetch = *fetch,
    };
}

/* Another frame that ends there, or none, is told at once. */
static bool is_at_end(const struct msg_fetch *fetch, const struct held_log *held)
{
    return !fetch->anew && !fetch->repair && fetch->position == held->durable.position &&
           fetch->lsn + 1 == held->durable.next_lsn && fetch->checksum == held->durable.checksum;
}

/* Who asks; -1, and refused: nobody who may. */
static int asker_of(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                    struct id16 from)
{
    int member = repl_member_of(core, sender);
    if (!core->knows_members || !core->knows_logs) {
        refuse(core, token, SH_UNAVAILABLE, "this node has just started");
        return -1;
    }
    if (member >= 0 && !id16_is_zero(from) && id16_equal(core->members[member].log, from))
        return member;
    core->counters.not_member++;
    repl_notice_of_stranger(core, now_ns, "a fetch from who is no member of the group, or has another log",
                            sender);
    refuse(core, token, SH_NOT_MEMBER, "not a member of this group, or not with that log");
    return -1;
}

bool repl_core_may_ask(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                       struct id16 from)
{
    return asker_of(core, now_ns, token, sender, from) >= 0;
}

void repl_core_asked_digests(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                             const struct msg_digests *digests)
{
    if (asker_of(core, now_ns, token, sender, digests->from) < 0)
        return;
    if (repl_held(core, digests->log) == NULL) {
        refuse(core, token, SH_NOT_FOUND, "that log is not held here");
    } else if (digests->most == 0) {
        refuse(core, token, SH_BAD_REQUEST, "no segments are wanted");
    } else {
        core->counters.served++;
        struct repl_action *action = repl_put(core, REPL_SERVE_DIGESTS);
        action->token = token;
        action->digests = *digests;
    }
}

void repl_core_asked(struct repl_core *core, int64_t now_ns, uint64_t token, struct slice sender,
                     const struct msg_fetch *fetch)
{
    int member = asker_of(core, now_ns, token, sender, fetch->from);
    if (member < 0)
        return;
    const struct held_log *held = repl_held(core, fetch->log);
    if (fetch->lsn == UINT64_MAX) {
        core->counters.malformed++;
        refuse(core, token, SH_BAD_REQUEST, "nothing comes behind the last LSN there can be");
    } else if (held == NULL) {
        if (repl_gone_serve(core, token, fetch))
            return;
        core->counters.not_held++;
        refuse(core, token, SH_NOT_FOUND, "that log is not held here");
    } else if (is_at_end(fetch, held) && fetch->wait_ms > 0) {
        repl_core_proved(core, fetch->log, fetch->from, &held->durable);
        park(core, now_ns, token, (size_t)member, fetch);
    } else {
        serve(core, token, (size_t)member, fetch, held);
    }
}

void repl_core_served(struct repl_core *core, int64_t now_ns, struct slice asker, struct id16 log,
                      enum log_copy_state state)
{
    int member = repl_member_of(core, asker);
    if (member < 0 || !id16_equal(log, core->own) || (state != LOG_COPY_FORKED && state != LOG_COPY_BEHIND))
        return;
    repl_quorum_off_chain(core, (size_t)member);
    repl_proof_suspect(core, now_ns, (size_t)member);
}

/* Answers what can be answered now, and what has waited long enough. */
static void answer(struct repl_core *core, int64_t now_ns)
{
    for (size_t i = core->parked_count; i-- > 0;) {
        const struct repl_parked *p = &core->parked[i];
        const struct held_log *held = repl_held(core, p->fetch.log);
        if (held == NULL)
            refuse(core, p->token, SH_NOT_FOUND, "that log is not held here any more");
        else if (held->durable.position != p->fetch.position || p->due_ns <= now_ns)
            serve(core, p->token, p->member, &p->fetch, held);
        else
            continue;
        unpark(core, i);
    }
}

void repl_serve_wake(struct repl_core *core)
{
    answer(core, INT64_MIN);
}

void repl_serve_tick(struct repl_core *core, int64_t now_ns)
{
    answer(core, now_ns);
}

int64_t repl_serve_due_ns(const struct repl_core *core)
{
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < core->parked_count; i++)
        due_ns = core->parked[i].due_ns < due_ns ? core->parked[i].due_ns : due_ns;
    return due_ns;
}

void repl_serve_remap(struct repl_core *core, const int map[REPL_MEMBERS_MAX])
{
    for (size_t i = core->parked_count; i-- > 0;) {
        int now = map[core->parked[i].member];
        if (now >= 0) {
            core->parked[i].member = (size_t)now;
            continue;
        }
        refuse(core, core->parked[i].token, SH_NOT_MEMBER, "not a member of this group any more");
        unpark(core, i);
    }
}
