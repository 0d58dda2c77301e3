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
    if (!repl_given_up_unpack(reply->given_up, f->given_up, &f->given_up_count)) {
        core->counters.malformed++;
        return;
    }
    f->parts = f->given_up_count > 0;
    f->parts_ns = is_behind ? now_ns : f->parts_ns;
    f->parts_end = reply->durable_end < f->durable.position ? reply->durable_end : f->durable.position;
}

bool repl_has_checksum(const uint32_t *checksums, size_t count, uint32_t checksum)
{
    for (size_t i = 0; i < count; i++)
        if (checksums[i] == checksum)
            return true;
    return false;
}

void repl_given_up_pack(const uint32_t *checksums, size_t count, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        msgpack_pack_uint32(&pk, checksums[i]);
}

bool repl_given_up_unpack(struct slice array, uint32_t out[REPL_GIVEN_UP_MAX], size_t *count)
{
    struct mp m = mp_of(array);
    uint32_t entries;
    uint64_t checksum;
    *count = 0;
    if (!mp_array(&m, &entries) || entries > REPL_GIVEN_UP_MAX)
        return false;
    for (uint32_t i = 0; i < entries; i++) {
        if (!mp_uint(&m, &checksum) || checksum > UINT32_MAX)
            return false;
        out[i] = (uint32_t)checksum;
    }
    *count = entries;
    return mp_at_end(&m);
}

void repl_core_given_up(const struct repl_core *core, struct id16 log, enum log_copy_state state,
                        struct buf *out)
{
    bool is_told = state == LOG_COPY_FORKED || state == LOG_COPY_BEHIND;
    if (is_told && id16_equal(log, core->own) && core->given_up_count > 0)
        repl_given_up_pack(core->given_up, core->given_up_count, out);
}
