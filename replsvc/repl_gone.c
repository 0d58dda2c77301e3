/* Closed logs: those that nobody extends any more, because their node has left or was replaced, and that all
 * of the group hold up to the same place. walsvc drops their copies after retention; what is left is an entry
 * in its register, by which this node still says where the log ended.
 *
 *            no member has it as its own          each member, asked for what follows
 *            log, all members are bound           the end here, has nothing more
 *   held  ──────────────────────────────► asked ────────────────────────────────────► gone: walsvc is told
 *     ▲                                                                                  │
 *     └─── a member has it as its own log again; another one came; the copy has grown ◄──┘
 *
 * That all have the same end is asked for, by `fetch`, not taken from watermarks: the answer compares the
 * checksum as well, and who has dropped its copy already answers by its register. */
#include "log_reader_copy.h"
#include "repl_parts.h"

#define PASS_EACH_NS  (2 * NS_PER_S)
#define ANSWER_NS     (2 * NS_PER_S)
#define TELL_AGAIN_NS NS_PER_S

/* ---- what is known ---- */

static const struct repl_closed_log *closed_of(const struct repl_core *core, struct id16 log)
{
    for (size_t i = 0; i < core->gone.closed_count; i++)
        if (id16_equal(core->gone.closed[i].log, log))
            return &core->gone.closed[i];
    return NULL;
}

bool repl_gone_is_closed(const struct repl_core *core, struct id16 log)
{
    return repl_held(core, log) == NULL && closed_of(core, log) != NULL;
}

static bool same_place(const struct log_chain *a, const struct log_chain *b)
{
    return a->position == b->position && a->next_lsn == b->next_lsn && a->checksum == b->checksum;
}

static struct repl_gone_log *find(const struct repl_core *core, struct id16 log)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++)
        if (!id16_is_zero(core->gone.logs[i].log) && id16_equal(core->gone.logs[i].log, log))
            return &core->gone.logs[i];
    return NULL;
}

/* What is known of a copy with that end; logs that are not held any more make room. */
static struct repl_gone_log *entry_of(struct repl_core *core, const struct held_log *held)
{
    struct repl_gone_log *g = find(core, held->log);
    for (size_t i = 0; i < REPL_LOGS_MAX && g == NULL; i++) {
        struct repl_gone_log *slot = &core->gone.logs[i];
        if (!id16_is_zero(slot->log) && repl_held(core, slot->log) != NULL)
            continue;
        g = slot;
        *g = (struct repl_gone_log){.log = held->log, .end = held->durable};
    }
    if (!same_place(&g->end, &held->durable))
        g->has_count = 0;
    g->end = held->durable;
    return g;
}

static bool has(const struct repl_gone_log *g, struct id16 member)
{
    for (size_t i = 0; i < g->has_count; i++)
        if (id16_equal(g->has[i], member))
            return true;
    return false;
}

bool repl_gone_has(const struct repl_core *core, size_t member, const struct held_log *held)
{
    const struct repl_gone_log *g = find(core, held->log);
    return g != NULL && same_place(&g->end, &held->durable) && has(g, core->members[member].log);
}

bool repl_gone_is_gone(const struct repl_core *core, struct id16 log)
{
    const struct repl_gone_log *g = find(core, log);
    return g != NULL && g->told == REPL_TOLD_GONE;
}

/* ---- the rule ---- */

/* Nobody extends it, and nobody is known to have another end. */
static bool may_be_gone(const struct repl_core *core, const struct held_log *held)
{
    if (!core->gone.is_certain || !core->knows_members || repl_origin(core, held->log) >= 0)
        return false;
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_member *m = &core->members[i];
        const struct repl_watermark *w = repl_watermark_of(m, held->log);
        if (id16_is_zero(m->log) || (w != NULL && w->end != held->durable.position))
            return false;
    }
    return true;
}

static bool is_gone(const struct repl_core *core, const struct held_log *held, const struct repl_gone_log *g)
{
    bool gone = may_be_gone(core, held);
    for (size_t i = 0; gone && i < core->member_count; i++)
        gone = has(g, core->members[i].log);
    return gone;
}

/* ---- telling walsvc: one at a time ---- */

static void tell(struct repl_core *core, struct id16 log, bool gone, const struct log_chain *end)
{
    struct repl_action *action = repl_put(core, REPL_GONE);
    action->gone = (struct msg_log_gone){.log = log, .gone = gone};
    if (gone) {
        action->gone.end = end->position;
        action->gone.lsn = end->next_lsn - 1;
        action->gone.checksum = end->checksum;
    }
    core->gone.is_telling = true;
    core->gone.telling = action->gone;
}

static void tell_next(struct repl_core *core, int64_t now_ns)
{
    if (core->gone.is_telling || now_ns < core->gone.tell_ns || !core->knows_members || !core->knows_logs)
        return;
    for (size_t i = 1; i < core->held_count; i++) {
        const struct held_log *held = &core->held[i];
        struct repl_gone_log *g = entry_of(core, held);
        bool gone = is_gone(core, held, g);
        if (g->told != (gone ? REPL_TOLD_GONE : REPL_TOLD_NOT)) {
            tell(core, held->log, gone, &held->durable);
            return;
        }
    }
    for (size_t i = 0; i < core->gone.closed_count; i++) {
        struct repl_closed_log *closed = &core->gone.closed[i];
        if (closed->lives || repl_origin(core, closed->log) < 0 || repl_held(core, closed->log) != NULL)
            continue;
        tell(core, closed->log, false, NULL);
        return;
    }
}

void repl_core_gone_told(struct repl_core *core, int64_t now_ns, bool taken)
{
    const struct msg_log_gone *told = &core->gone.telling;
    struct repl_gone_log *g = find(core, told->log);
    core->gone.is_telling = false;
    if (!taken)
        core->gone.tell_ns = now_ns + TELL_AGAIN_NS;
    else if (g != NULL && (!told->gone || g->end.position == told->end))
        g->told = told->gone ? REPL_TOLD_GONE : REPL_TOLD_NOT;
    for (size_t i = 0; i < core->gone.closed_count && taken && !told->gone; i++)
        if (id16_equal(core->gone.closed[i].log, told->log))
            core->gone.closed[i].lives = true; /* until the register without it comes */
    tell_next(core, now_ns);
}

/* ---- asking the members ---- */

static void ask(struct repl_core *core, int64_t now_ns, const struct held_log *held, size_t member)
{
    struct repl_gone *gone = &core->gone;
    struct repl_action *action = repl_put_question(core, REPL_FETCH, REPL_GONE_SLOT, member);
    action->fetch = (struct msg_fetch){
        .from = core->own,
        .log = held->log,
        .position = held->durable.position,
        .lsn = held->durable.next_lsn - 1,
        .checksum = held->durable.checksum,
    };
    gone->serial = action->serial;
    gone->is_asking = true;
    gone->asked = *held;
    gone->asked_member = core->members[member].log;
    gone->due_ns = now_ns + ANSWER_NS;
}

/* The next member that has not said yet that it has that end; then the next log; then a pause. */
static void go(struct repl_core *core, int64_t now_ns)
{
    struct repl_gone *gone = &core->gone;
    if (gone->is_asking || now_ns < gone->due_ns || !core->knows_members || !core->knows_logs)
        return;
    for (; gone->at_log < core->held_count; gone->at_log++, gone->at_member = 0) {
        const struct held_log *held = &core->held[gone->at_log];
        struct repl_gone_log *g = gone->at_log > 0 ? entry_of(core, held) : NULL; /* 0: the own one */
        while (g != NULL && may_be_gone(core, held) && gone->at_member < core->member_count) {
            size_t member = gone->at_member++;
            if (!core->members[member].up || has(g, core->members[member].log))
                continue;
            ask(core, now_ns, held, member);
            return;
        }
    }
    gone->at_log = gone->at_member = 0;
    gone->due_ns = now_ns + PASS_EACH_NS;
    tell_next(core, now_ns);
}

static void answered(struct repl_core *core, int64_t now_ns)
{
    core->gone.is_asking = false;
    core->gone.due_ns = now_ns;
    go(core, now_ns);
}

void repl_gone_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                       struct slice body)
{
    struct repl_gone *gone = &core->gone;
    struct msg_fetch_reply reply;
    if (!gone->is_asking || serial != gone->serial)
        return;
    struct repl_gone_log *g = find(core, gone->asked.log);
    bool ends_there = type == MSG_fetch_reply && msg_decode(type, body, &reply) == SH_OK &&
                      id16_equal(reply.log, gone->asked.log) && reply.state == LOG_COPY_END &&
                      reply.durable_end == gone->asked.durable.position;
    if (ends_there && g != NULL && same_place(&g->end, &gone->asked.durable) &&
        g->has_count < REPL_MEMBERS_MAX && !has(g, gone->asked_member))
        g->has[g->has_count++] = gone->asked_member;
    answered(core, now_ns);
}

void repl_gone_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial)
{
    if (core->gone.is_asking && serial == core->gone.serial)
        answered(core, now_ns);
}

/* ---- what changes ---- */

bool repl_core_is_certain(const struct repl_core *core)
{
    return core->gone.is_certain && core->knows_members && core->knows_logs;
}

void repl_core_standing(struct repl_core *core, bool is_certain)
{
    core->gone.is_certain = is_certain;
}

void repl_core_closed(struct repl_core *core, const struct repl_closed_log *closed, size_t count)
{
    core->gone.closed_count = count < REPL_CLOSED_MAX ? count : REPL_CLOSED_MAX;
    for (size_t i = 0; i < core->gone.closed_count; i++)
        core->gone.closed[i] = closed[i];
}

/* Who has what of a log is known by identity; those that are gone make room. */
static void forget_strangers(const struct repl_core *core, struct repl_gone_log *g)
{
    for (size_t i = g->has_count; i-- > 0;)
        if (repl_origin(core, g->has[i]) < 0)
            g->has[i] = g->has[--g->has_count];
}

void repl_gone_members(struct repl_core *core, int64_t now_ns)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++)
        forget_strangers(core, &core->gone.logs[i]);
    tell_next(core, now_ns);
}

void repl_gone_logs(struct repl_core *core, int64_t now_ns, bool rebooted)
{
    for (size_t i = 0; i < REPL_LOGS_MAX && rebooted; i++)
        core->gone.logs[i].told = REPL_TOLD_NOTHING;
    tell_next(core, now_ns);
}

void repl_gone_tick(struct repl_core *core, int64_t now_ns)
{
    if (core->gone.is_asking && now_ns >= core->gone.due_ns) {
        repl_put(core, REPL_CANCEL)->slot = REPL_GONE_SLOT;
        answered(core, now_ns);
    }
    go(core, now_ns);
}

int64_t repl_gone_due_ns(const struct repl_core *core)
{
    return core->knows_members && core->knows_logs ? core->gone.due_ns : INT64_MAX;
}

/* ---- asked by others ---- */

bool repl_gone_serve(struct repl_core *core, uint64_t token, const struct msg_fetch *fetch)
{
    const struct repl_closed_log *closed = closed_of(core, fetch->log);
    if (closed == NULL || fetch->repair)
        return false;
    const struct log_chain *end = &closed->end;
    const struct log_chain from = {fetch->lsn + 1, (uint32_t)fetch->checksum, fetch->position};
    struct repl_action *action = repl_put(core, REPL_TELL);
    action->token = token;
    action->reply = (struct msg_fetch_reply){
        .log = fetch->log,
        .state = LOG_COPY_END,
        .position = fetch->position,
        .durable_end = end->position,
        .durable_lsn = end->next_lsn - 1,
    };
    core->counters.served++;
    if (from.position > end->position) {
        action->reply.state = LOG_COPY_BEHIND;
    } else if (from.position < end->position) {
        action->reply.state = LOG_COPY_TRIMMED;
        action->reply.position = end->position;
        action->reply.lsn = end->next_lsn - 1;
    } else if (!same_place(&from, end)) {
        action->reply.state = LOG_COPY_FORKED;
        action->reply.checksum = end->checksum;
    }
    return true;
}
