/* The core's frame: who is in the group, what walsvc holds, what is due. */
#include "repl_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "repl_parts.h"

/* Positions that were lost on the way are made up for. */
#define POSITIONS_EACH_NS NS_PER_S

struct repl_core *repl_core_open(const struct repl_options *options)
{
    struct repl_core *core = xcalloc(1, sizeof *core);
    snprintf(core->node, sizeof core->node, "%s", options->node);
    core->own = options->log;
    core->compare.interval_ns = options->compare_interval_ns;
    core->members = xcalloc(REPL_MEMBERS_MAX, sizeof *core->members);
    core->follows = xcalloc(REPL_LOGS_MAX, sizeof *core->follows);
    core->holds = xcalloc(REPL_MEMBERS_MAX, sizeof *core->holds);
    core->gone.logs = xcalloc(REPL_LOGS_MAX, sizeof *core->gone.logs);
    core->gone.closed = xcalloc(REPL_CLOSED_MAX, sizeof *core->gone.closed);
    return core;
}

void repl_core_close(struct repl_core *core)
{
    free(core->members);
    free(core->follows);
    free(core->holds);
    free(core->gone.logs);
    free(core->gone.closed);
    free(core->actions);
    free(core);
}

/* ---- membership ---- */

int repl_member_of(const struct repl_core *core, struct slice id)
{
    for (size_t i = 0; i < core->member_count; i++)
        if (slice_equal(slice_str(core->members[i].id), id))
            return (int)i;
    return -1;
}

const struct repl_member *repl_core_member(const struct repl_core *core, struct slice id)
{
    int member = repl_member_of(core, id);
    return member >= 0 ? &core->members[member] : NULL;
}

int repl_origin(const struct repl_core *core, struct id16 log)
{
    for (size_t i = 0; i < core->member_count; i++)
        if (id16_equal(core->members[i].log, log))
            return (int)i;
    return -1;
}

static bool names(const struct repl_member *members, size_t count, const char *id)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(members[i].id, id) == 0)
            return true;
    return false;
}

static int index_of(const struct repl_member *members, size_t count, const struct repl_member *member)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(members[i].id, member->id) == 0 &&
            (id16_equal(members[i].log, member->log) || id16_is_zero(member->log)))
            return (int)i;
    return -1;
}

static void move_holds(struct repl_core *core, const struct repl_member *members, size_t count,
                       const int map[REPL_MEMBERS_MAX])
{
    struct repl_told_hold(*holds)[REPL_LOGS_MAX] = xcalloc(REPL_MEMBERS_MAX, sizeof *holds);
    for (size_t i = 0; i < core->member_count; i++) {
        if (map[i] >= 0)
            memcpy(holds[map[i]], core->holds[i], sizeof holds[0]);
        else if (!names(members, count, core->members[i].id))
            repl_holds_release(core, core->members[i].id);
    }
    free(core->holds);
    core->holds = holds;
}

/* What was known of each member goes on with it; another identity is another member. */
static void move_members(struct repl_core *core, const struct repl_member *members, size_t count,
                         int map[REPL_MEMBERS_MAX])
{
    struct repl_position_of positions[REPL_MEMBERS_MAX] = {{0}};
    for (size_t i = 0; i < core->member_count; i++) {
        map[i] = index_of(members, count, &core->members[i]);
        if (map[i] >= 0)
            positions[map[i]] = core->positions[i];
    }
    memcpy(core->positions, positions, sizeof positions);
    for (size_t slot = 0; slot < REPL_LOGS_MAX; slot++) {
        struct repl_follow *f = &core->follows[slot];
        struct repl_source sources[REPL_MEMBERS_MAX] = {{0}};
        for (size_t i = 0; i < core->member_count; i++)
            if (map[i] >= 0)
                sources[map[i]] = f->sources[i];
        memcpy(f->sources, sources, sizeof sources);
        f->source = f->used && f->source >= 0 ? map[f->source] : -1;
        f->lead = f->used && f->lead >= 0 ? map[f->lead] : -1;
    }
    repl_serve_remap(core, map);
    repl_repair_remap(core, map);
    move_holds(core, members, count, map);
}

void repl_core_members(struct repl_core *core, int64_t now_ns, const struct repl_member *members,
                       size_t count)
{
    int map[REPL_MEMBERS_MAX];
    bool same = count == core->member_count;
    move_members(core, members, count, map);
    for (size_t i = 0; same && i < count; i++)
        same = map[i] == (int)i; /* in the same order too: places in the list are kept */
    if (!same) {
        repl_proof_members(core);
        repl_compare_members(core, now_ns);
    }
    /* Who is there when this begins counts at once; who joins later when it has caught up. */
    for (size_t i = 0; i < count; i++)
        if (members[i].is_founder || members[i].is_replaced ||
            (!core->knows_members && !id16_is_zero(members[i].log)))
            core->positions[i].counts = true;
    memcpy(core->members, members, count * sizeof *members);
    core->member_count = count;
    core->knows_members = true;
    repl_quorum_note_lag(core, now_ns, core->held[0].durable.position);
    repl_gone_members(core, now_ns);
    repl_follow_members(core, now_ns);
    repl_quorum_tell(core, now_ns);
    repl_proof_go(core, now_ns);
    repl_follow_go(core, now_ns);
}

bool repl_core_is_alone(const struct repl_core *core)
{
    return core->knows_members && core->member_count == 0;
}

/* ---- walsvc ---- */

const struct held_log *repl_held(const struct repl_core *core, struct id16 log)
{
    for (size_t i = 0; i < core->held_count; i++)
        if (id16_equal(core->held[i].log, log))
            return &core->held[i];
    return NULL;
}

void repl_cut_held(struct repl_core *core, struct id16 log, const struct log_chain *durable)
{
    for (size_t i = 0; i < core->held_count; i++)
        if (id16_equal(core->held[i].log, log) && core->held[i].durable.position > durable->position)
            core->held[i].durable = *durable;
}

const struct log_chain *repl_end_here(struct repl_core *core, struct id16 log)
{
    if (id16_equal(log, core->own) && !core->own_copy)
        return &core->held[0].durable;
    const struct repl_follow *f = repl_follow_of(core, log);
    return f != NULL && f->placed && f->held && !f->lost ? &f->durable : NULL;
}

static void note_logs(struct repl_core *core, const struct repl_logs *logs)
{
    core->held_count = logs->count < REPL_LOGS_MAX ? logs->count : REPL_LOGS_MAX;
    memcpy(core->held, logs->held, core->held_count * sizeof *logs->held);
    core->wal_boot = logs->boot;
    core->own_copy = logs->own_copy;
    core->given_up_count = logs->given_up_count;
    memcpy(core->given_up, logs->given_up, sizeof core->given_up);
    core->knows_logs = true;
}

void repl_core_logs(struct repl_core *core, int64_t now_ns, const struct repl_logs *logs)
{
    bool rebooted = !id16_equal(logs->boot, core->wal_boot) || logs->own_copy != core->own_copy;
    struct log_chain before = core->held[0].durable;
    repl_quorum_note_lag(core, now_ns, before.position);
    note_logs(core, logs);
    repl_quorum_own_log(core, &before, rebooted);
    repl_serve_wake(core);
    repl_gone_logs(core, now_ns, rebooted);
    repl_follow_logs(core, now_ns, rebooted);
    repl_repair_logs(core, now_ns);
    repl_proof_begin(core, logs->waits, rebooted);
    repl_proof_go(core, now_ns);
    repl_quorum_tell(core, now_ns);
    repl_follow_go(core, now_ns);
}

/* ---- time ---- */

void repl_core_tick(struct repl_core *core, int64_t now_ns)
{
    repl_serve_tick(core, now_ns);
    repl_follow_tick(core, now_ns);
    repl_repair_tick(core, now_ns);
    repl_proof_tick(core, now_ns);
    repl_compare_tick(core, now_ns);
    if (now_ns >= core->positions_due_ns) {
        core->positions_due_ns = now_ns + POSITIONS_EACH_NS;
        repl_follow_push_positions(core);
        repl_quorum_tell_again(core);
    }
    repl_gone_tick(core, now_ns);
    repl_holds_tick(core, now_ns);
    repl_follow_go(core, now_ns);
}

int64_t repl_core_due_ns(const struct repl_core *core)
{
    int64_t due_ns = core->positions_due_ns;
    const int64_t others[] = {core->holds_due_ns,      repl_repair_due_ns(core), repl_proof_due_ns(core),
                              repl_serve_due_ns(core), repl_follow_due_ns(core), repl_compare_due_ns(core),
                              repl_gone_due_ns(core)};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        due_ns = others[i] < due_ns ? others[i] : due_ns;
    return due_ns;
}

/* ---- positions of others ---- */

void repl_core_position(struct repl_core *core, int64_t now_ns, struct slice sender,
                        const struct msg_position *position)
{
    int member = repl_member_of(core, sender);
    if (!core->knows_members)
        return;
    if (member < 0 || id16_is_zero(position->from) ||
        !id16_equal(core->members[member].log, position->from) || !id16_equal(position->log, core->own)) {
        core->counters.not_member++;
        repl_notice_of_stranger(core, now_ns,
                                "a position from who is no member of the group, or of another log; ignored",
                                sender);
        return;
    }
    repl_quorum_note(core, now_ns, (size_t)member, position);
}
