/* What members still need of the logs that are held here is kept from being trimmed: a hold for each member
 * and log, from the first entry on that the member is not known to have. Followers of a log may fetch it from
 * any holder, so each holder keeps it. */
#include <stdio.h>
#include <string.h>

#include "repl_parts.h"

/* walsvc writes a hold down when it moves into another segment; more often says nothing new. */
#define HOLDS_EACH_NS (5 * NS_PER_S)

static void put(struct repl_core *core, struct id16 log, const char *id, uint64_t lsn, bool remove)
{
    struct repl_action *action = repl_put(core, REPL_HOLD);
    snprintf(action->id, sizeof action->id, "%s", id);
    action->hold = (struct repl_hold){.log = log, .lsn = lsn, .remove = remove};
}

static uint64_t has_up_to(const struct repl_core *core, size_t member, struct id16 log)
{
    const struct repl_member *m = &core->members[member];
    uint64_t lsn = id16_equal(log, core->own) ? core->positions[member].reached.lsn : 0;
    for (size_t i = 0; i < m->watermark_count; i++)
        if (id16_equal(m->watermarks[i].log, log) && m->watermarks[i].lsn > lsn)
            lsn = m->watermarks[i].lsn;
    return lsn;
}

/* The hold that was told for this member and log; logs that are not held any more make room. NULL: no room.
 */
static struct repl_told_hold *told_of(struct repl_core *core, size_t member, struct id16 log)
{
    struct repl_told_hold *holds = core->holds[member];
    struct repl_told_hold *room = NULL;
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        if (!id16_is_zero(holds[i].log) && id16_equal(holds[i].log, log))
            return &holds[i];
        if (room == NULL && (id16_is_zero(holds[i].log) || repl_held(core, holds[i].log) == NULL))
            room = &holds[i];
    }
    if (room != NULL)
        *room = (struct repl_told_hold){.log = log};
    return room;
}

/* Its own log a member needs from nobody, unless it has lost its end: then what is held here is all there is.
 */
static void hold_for(struct repl_core *core, size_t member, const struct held_log *held)
{
    struct repl_told_hold *told = told_of(core, member, held->log);
    uint64_t lsn = has_up_to(core, member, held->log) + 1;
    if (repl_gone_has(core, member, held)) /* perhaps it has dropped its copy */
        lsn = held->durable.next_lsn;
    if (told == NULL || id16_equal(core->members[member].log, held->log))
        return;
    lsn = lsn > held->first_lsn ? lsn : held->first_lsn;
    if (lsn == told->lsn)
        return;
    told->lsn = lsn;
    put(core, held->log, core->members[member].id, lsn, false);
}

void repl_holds_tick(struct repl_core *core, int64_t now_ns)
{
    if (now_ns < core->holds_due_ns)
        return;
    core->holds_due_ns = now_ns + HOLDS_EACH_NS;
    for (size_t i = 0; i < core->held_count && core->knows_members; i++)
        for (size_t member = 0; member < core->member_count; member++)
            hold_for(core, member, &core->held[i]);
}

void repl_holds_release(struct repl_core *core, const char *id)
{
    for (size_t i = 0; i < core->held_count; i++)
        put(core, core->held[i].log, id, 0, true);
}

void repl_core_hold_refused(struct repl_core *core)
{
    for (size_t member = 0; member < REPL_MEMBERS_MAX; member++)
        for (size_t i = 0; i < REPL_LOGS_MAX; i++)
            core->holds[member][i].lsn = 0;
}

void repl_core_found_hold(struct repl_core *core, struct id16 log, struct slice name)
{
    char id[CONFIG_ID_MAX + 1];
    if (!core->knows_members || name.len >= sizeof id || repl_member_of(core, name) >= 0)
        return;
    snprintf(id, sizeof id, "%.*s", (int)name.len, (const char *)name.data);
    put(core, log, id, 0, true);
}
