/* A forked copy gets the frames of a member, from where both part: what stands there is kept aside by walsvc,
 * and replaced. The own log's, while it is open as a copy; another log's by its origin alone, which has given
 * up what is here. */
#include <stdio.h>

#include "log.h"
#include "repl_parts.h"

#define BEHIND_EACH_NS (60 * NS_PER_S)

void repl_over_begin(struct repl_core *core, struct repl_follow *f, size_t member,
                     const struct log_chain *fork)
{
    char detail[REPL_TEXT_MAX];
    repl_follow_cancel(core, f);
    snprintf(detail, sizeof detail, "from LSN %llu, position %llu on; here it ends at LSN %llu",
             (unsigned long long)fork->next_lsn, (unsigned long long)fork->position,
             (unsigned long long)f->durable.next_lsn - 1);
    repl_notice_each(core, LOG_WARN,
                     "a forked copy gets the frames of a member; what is here is kept aside and replaced",
                     core->members[member].id, detail);
    core->counters.replaced++;
    f->head = *fork;
    f->over = true;
    f->lead = (int)member;
    f->forked = f->anew = f->off_chain = false;
    f->trimmed_ns = 0;
    f->sources[member].avoid_until_ns = 0;
}

void repl_over_end(struct repl_follow *f)
{
    if (!f->over)
        return;
    f->over = false;
    f->lead = -1;
    f->off_chain = true; /* as far as is known */
    if (f->stores == 0)
        f->head = f->durable;
    else
        f->lost = true; /* once none is outstanding, the place is asked for */
}

/* An origin that is behind says each second what it gave up once: mostly it has lost its end, and gets it
 * back. */
void repl_over_note(struct repl_core *core, struct repl_follow *f, int64_t now_ns,
                    const struct msg_fetch_reply *reply)
{
    bool is_behind = reply->state == LOG_COPY_BEHIND;
    if (reply->given_up.len == 0 || f->source < 0 || f->source != repl_origin(core, f->log))
        return;
    if (is_behind && f->parts_ns > 0 && now_ns - f->parts_ns < BEHIND_EACH_NS)
        return;
    if (!given_up_unpack(reply->given_up, f->given_up, &f->given_up_count)) {
        core->counters.malformed++;
        return;
    }
    f->parts = f->given_up_count > 0;
    f->parts_ns = is_behind ? now_ns : f->parts_ns;
    f->parts_end = reply->durable_end < f->durable.position ? reply->durable_end : f->durable.position;
}

void repl_core_given_up(const struct repl_core *core, struct id16 log, enum log_copy_state state,
                        struct buf *out)
{
    bool is_told = state == LOG_COPY_FORKED || state == LOG_COPY_BEHIND;
    if (is_told && id16_equal(log, core->own) && core->given_up_count > 0)
        given_up_pack(core->given_up, core->given_up_count, out);
}
