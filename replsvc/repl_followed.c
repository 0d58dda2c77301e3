/* Which logs are followed, and where their copies stand: by what members and walsvc say. */
#include "log.h"
#include "repl_parts.h"

/* ---- which logs ---- */

struct repl_follow *repl_follow_of(struct repl_core *core, struct id16 log)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++)
        if (core->follows[i].used && id16_equal(core->follows[i].log, log))
            return &core->follows[i];
    return NULL;
}

static struct repl_follow *find_or_add(struct repl_core *core, int64_t now_ns, struct id16 log)
{
    struct repl_follow *f = repl_follow_of(core, log);
    for (size_t i = 0; i < REPL_LOGS_MAX && f == NULL; i++) {
        if (core->follows[i].used)
            continue;
        f = &core->follows[i];
        *f = (struct repl_follow){.log = log,
                                  .used = true,
                                  .source = -1,
                                  .lead = -1,
                                  .head = {.next_lsn = 1},
                                  .durable = {.next_lsn = 1},
                                  .caught_up_ns = now_ns};
    }
    if (f == NULL)
        repl_notice(core, now_ns, LOG_ERROR, "too many logs: one is not followed", "", "");
    return f;
}

void repl_follow_note_best(struct repl_follow *f, int64_t now_ns, uint64_t lsn, uint64_t end)
{
    if (end <= f->best_end)
        return;
    if (f->best_end <= f->head.position)
        f->more_ns = now_ns;
    f->best_end = end;
    f->best_lsn = lsn;
}

void repl_follow_note_caught_up(struct repl_follow *f, int64_t now_ns)
{
    repl_follow_note_best(f, now_ns, f->durable.next_lsn - 1, f->durable.position);
    if (f->durable.position == f->best_end)
        f->caught_up_ns = now_ns;
}

static void follow_one(struct repl_core *core, int64_t now_ns, struct id16 log)
{
    if (id16_is_zero(log) || (id16_equal(log, core->own) && !core->own_copy) ||
        repl_gone_is_closed(core, log))
        return;
    struct repl_follow *f = find_or_add(core, now_ns, log);
    if (f != NULL && !f->placed && core->knows_logs)
        f->placed = true; /* walsvc did not name it: there is no copy yet */
}

const struct repl_watermark *repl_watermark_of(const struct repl_member *m, struct id16 log)
{
    for (size_t i = 0; i < m->watermark_count; i++)
        if (id16_equal(m->watermarks[i].log, log))
            return &m->watermarks[i];
    return NULL;
}

uint64_t repl_watermark_end(const struct repl_member *m, struct id16 log)
{
    const struct repl_watermark *w = repl_watermark_of(m, log);
    return w != NULL ? w->end : 0;
}

static bool is_known(const struct repl_core *core, struct id16 log)
{
    bool known = repl_origin(core, log) >= 0;
    for (size_t i = 0; i < core->member_count && !known; i++)
        known = repl_watermark_end(&core->members[i], log) > 0;
    return known;
}

/* There is no copy here, and nobody has it any more, or it was dropped here. */
static bool is_done_with(const struct repl_core *core, const struct repl_follow *f)
{
    return repl_gone_is_closed(core, f->log) || (!f->held && !is_known(core, f->log));
}

static void forget_gone(struct repl_core *core)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        struct repl_follow *f = &core->follows[i];
        if (!f->used || f->stores > 0 || !is_done_with(core, f))
            continue;
        repl_follow_cancel(core, f);
        f->used = false;
    }
}

/* Who was asked may be no member any more; of whom another chain was taken, may be down. */
static void leave_gone(struct repl_core *core)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        struct repl_follow *f = &core->follows[i];
        if (f->used && f->source < 0)
            repl_follow_cancel(core, f);
        if (f->used && f->over && (f->lead < 0 || !core->members[f->lead].up)) {
            repl_follow_cancel(core, f);
            repl_over_end(f);
        }
    }
}

void repl_follow_leave_own(struct repl_core *core)
{
    struct repl_follow *f = core->own_copy ? NULL : repl_follow_of(core, core->own);
    if (f == NULL || f->stores > 0)
        return;
    repl_follow_cancel(core, f);
    f->used = false;
}

/* By what members say now: what one of them has taken back counts no more. */
static void count_best(struct repl_core *core, struct repl_follow *f, int64_t now_ns)
{
    bool had_more = f->best_end > f->head.position;
    f->best_end = f->durable.position;
    f->best_lsn = f->durable.next_lsn - 1;
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_watermark *w = repl_watermark_of(&core->members[i], f->log);
        if (w == NULL || w->end <= f->best_end)
            continue;
        f->best_end = w->end;
        f->best_lsn = w->lsn;
    }
    if (!had_more)
        f->more_ns = now_ns;
}

/* The members' own logs come before those of who is gone, should there be too many. */
void repl_follow_members(struct repl_core *core, int64_t now_ns)
{
    leave_gone(core);
    forget_gone(core);
    for (size_t i = 0; i < core->member_count; i++)
        follow_one(core, now_ns, core->members[i].log);
    for (size_t i = 0; i < core->member_count; i++)
        for (size_t k = 0; k < core->members[i].watermark_count; k++)
            follow_one(core, now_ns, core->members[i].watermarks[k].log);
    for (size_t i = 0; i < REPL_LOGS_MAX; i++)
        if (core->follows[i].used)
            count_best(core, &core->follows[i], now_ns);
}

/* ---- how far walsvc is ---- */

static void stand_at(struct repl_core *core, struct repl_follow *f, const struct held_log *held)
{
    static const struct log_chain start = {.next_lsn = 1};
    repl_follow_cancel(core, f);
    f->held = held != NULL;
    f->durable = f->head = held != NULL ? held->durable : start;
    f->first_lsn = held != NULL ? held->first_lsn : 0;
    f->placed = true;
    f->lost = f->anew = f->over = false;
    f->lead = -1;
    f->trimmed_ns = 0;
}

/* What was handed over since stands in walsvc's queue: its answers say more than this. */
void repl_follow_logs(struct repl_core *core, int64_t now_ns, bool rebooted)
{
    repl_follow_leave_own(core);
    for (size_t i = core->own_copy ? 0 : 1; i < core->held_count; i++)
        find_or_add(core, now_ns, core->held[i].log);
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        struct repl_follow *f = &core->follows[i];
        if (!f->used || f->stores > 0)
            continue;
        const struct held_log *held = repl_held(core, f->log);
        if (held == NULL && repl_gone_is_closed(core, f->log)) {
            repl_follow_cancel(core, f);
            f->used = false;
            continue;
        }
        if (!f->placed || f->lost || rebooted)
            stand_at(core, f, held);
        else if (held != NULL)
            f->first_lsn = held->first_lsn;
        repl_follow_note_caught_up(f, now_ns);
    }
}
