/* Damaged ranges, of the own log or of copies, are fetched from another holder and put back, one after the
 * other. Whether the bytes fit is walsvc's to say, which looks at what stands around them.
 *
 *   damage told ──► asked ──► fetching ──► writing ──► whole ──► asked again, until nothing is damaged
 *                     ▲          │            │
 *                     └─ waiting ◄────────────┘  nobody has it, or what came does not fit
 *
 * Each pause is followed by the next range, of this log or the next one: what nobody has holds up no other.
 */
#include <stdio.h>

#include "log.h"
#include "log_reader_copy.h"
#include "repl_parts.h"

#define REPAIR_WAIT_NS   (10 * NS_PER_S) /* after all were asked in vain */
#define REPAIR_ANSWER_NS (10 * NS_PER_S)
enum { REPAIR_BYTES = 1 << 20 };

static void ask_damage(struct repl_core *core, struct repl_ask_damage ask)
{
    core->mending = (struct repl_mending){.log = ask.log, .asked = ask, .step = MEND_ASKED, .source = -1};
    repl_put(core, REPL_ASK_DAMAGE)->damaged = ask;
}

void repl_repair_logs(struct repl_core *core, int64_t now_ns)
{
    (void)now_ns;
    if (!id16_is_zero(core->mending.log))
        return;
    for (size_t i = 0; i < core->held_count; i++) {
        if (core->held[i].damaged == 0)
            continue;
        ask_damage(core, (struct repl_ask_damage){.log = core->held[i].log});
        return;
    }
}

static void wait_for_another_time(struct repl_core *core, int64_t now_ns)
{
    core->mending.step = MEND_WAITING;
    core->mending.due_ns = now_ns + REPAIR_WAIT_NS;
}

static bool may_have(const struct repl_core *core, size_t member)
{
    const struct repl_member *m = &core->members[member];
    const struct repl_mending *mending = &core->mending;
    bool is_origin = id16_equal(m->log, mending->log);
    return m->up && (is_origin || (!mending->damage.differs &&
                                   repl_watermark_end(m, mending->log) > mending->damage.position));
}

/* From the next holder in turn; what differs from the origin's comes from there only, since others may have
 * the same wrong bytes. */
static void fetch(struct repl_core *core, int64_t now_ns)
{
    struct repl_mending *mending = &core->mending;
    while (mending->tried < core->member_count) {
        mending->tried++;
        mending->source = (mending->source + 1) % (int)core->member_count;
        if (!may_have(core, (size_t)mending->source))
            continue;
        struct repl_action *action =
            repl_put_question(core, REPL_FETCH, REPL_REPAIR_SLOT, (size_t)mending->source);
        mending->serial = action->serial;
        action->fetch = (struct msg_fetch){
            .from = core->own,
            .log = mending->log,
            .position = mending->damage.position,
            .lsn = mending->damage.lsn > 0 ? mending->damage.lsn - 1 : 0,
            .repair = true,
            .most_bytes = REPAIR_BYTES,
            .most_entries = UINT64_MAX,
        };
        mending->step = MEND_FETCHING;
        mending->due_ns = now_ns + REPAIR_ANSWER_NS;
        return;
    }
    mending->tried = 0;
    repl_notice(core, now_ns, LOG_WARN, "a damaged range of a log cannot be had from any member now", "", "");
    wait_for_another_time(core, now_ns);
}

/* From the same one. */
static void fetch_again(struct repl_core *core, int64_t now_ns)
{
    if (core->mending.source >= 0)
        core->mending.source--;
    if (core->mending.tried > 0)
        core->mending.tried--;
    fetch(core, now_ns);
}

/* No more is known in this log. Behind the last log, what is still damaged, if only by a word that is not the
 * newest, is looked at another time. */
static void go_to_next_log(struct repl_core *core, int64_t now_ns)
{
    struct repl_mending *mending = &core->mending;
    const struct held_log *held = repl_held(core, mending->log);
    size_t at = held != NULL ? (size_t)(held - core->held) : core->held_count;
    for (size_t i = at + 1; i < core->held_count; i++)
        if (core->held[i].damaged > 0) {
            ask_damage(core, (struct repl_ask_damage){.log = core->held[i].log});
            return;
        }
    mending->log = (struct id16){{0}};
    for (size_t i = 0; i < core->held_count && id16_is_zero(mending->log); i++)
        if (core->held[i].damaged > 0)
            mending->log = core->held[i].log;
    mending->next = (struct repl_ask_damage){.log = mending->log};
    wait_for_another_time(core, now_ns);
}

void repl_core_damage(struct repl_core *core, int64_t now_ns, struct id16 log,
                      const struct repl_damage *damage)
{
    struct repl_mending *mending = &core->mending;
    if (mending->step != MEND_ASKED || !id16_equal(mending->log, log))
        return;
    if (damage->bytes == 0) {
        go_to_next_log(core, now_ns);
        return;
    }
    mending->damage = *damage;
    mending->next = (struct repl_ask_damage){log, damage->segment, damage->offset};
    fetch(core, now_ns);
}

static bool on_frames(struct repl_core *core, const struct msg_fetch_reply *reply)
{
    struct repl_mending *mending = &core->mending;
    struct log_chain chain = {.next_lsn = mending->damage.lsn, .position = mending->damage.position};
    if (reply->state != LOG_COPY_FRAMES || !id16_equal(reply->log, mending->log) ||
        reply->position != mending->damage.position || reply->segment != mending->damage.segment ||
        !repl_check_repair(mending->log, reply->segment, reply->bytes, &chain))
        return false;
    repl_put(core, REPL_REPAIR)->repair = (struct repl_repair_bytes){
        .log = mending->log,
        .segment = mending->damage.segment,
        .offset = mending->damage.offset,
        .bytes = reply->bytes,
    };
    core->counters.fetched_bytes += reply->bytes.len;
    mending->step = MEND_WRITING;
    return true;
}

bool repl_repair_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                         struct slice body)
{
    struct msg_fetch_reply reply;
    if (core->mending.step != MEND_FETCHING || core->mending.serial != serial)
        return false;
    if (type == MSG_fetch_reply && msg_decode(type, body, &reply) == SH_OK && on_frames(core, &reply))
        return true;
    core->counters.refused++;
    fetch(core, now_ns);
    return false;
}

void repl_repair_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial)
{
    if (core->mending.step != MEND_FETCHING || core->mending.serial != serial)
        return;
    core->counters.failed++;
    fetch(core, now_ns);
}

/* Damage that begins elsewhere comes first; anything else that walsvc refuses another holder may do better.
 */
static void on_refused(struct repl_core *core, int64_t now_ns, struct slice body)
{
    struct repl_mending *mending = &core->mending;
    struct msg_error error;
    char detail[REPL_TEXT_MAX];
    if (msg_decode(MSG_error, body, &error) != SH_OK)
        error = (struct msg_error){.code = SH_INTERNAL};
    if (error.code == SH_CONFLICT && error.expected > 0 && error.expected < mending->damage.offset) {
        mending->damage.position -= mending->damage.offset - error.expected;
        mending->damage.offset = error.expected;
        mending->damage.lsn = mending->damage.segment;
        fetch_again(core, now_ns);
        return;
    }
    snprintf(detail, sizeof detail, "%s: %.*s", sh_error_name((enum sh_error)error.code), (int)error.text.len,
             (const char *)error.text.data);
    repl_notice(core, now_ns, LOG_WARN, "walsvc does not take the frames for a damaged range",
                core->mending.source >= 0 ? core->members[core->mending.source].id : "", detail);
    if (error.code == SH_CONFLICT || error.code == SH_BAD_REQUEST)
        fetch(core, now_ns);
    else
        wait_for_another_time(core, now_ns);
}

void repl_core_repaired(struct repl_core *core, int64_t now_ns, uint32_t type, struct slice body)
{
    struct repl_mending *mending = &core->mending;
    struct msg_repair_reply reply;
    char detail[REPL_TEXT_MAX];
    if (mending->step != MEND_WRITING)
        return;
    if (type != MSG_repair_reply || msg_decode(type, body, &reply) != SH_OK) {
        on_refused(core, now_ns, body);
        return;
    }
    if (!reply.whole && reply.next > mending->damage.offset) {
        mending->damage.position += reply.next - mending->damage.offset;
        mending->damage.offset = reply.next;
        mending->damage.lsn = reply.next_lsn;
        mending->tried = 0;
        fetch_again(core, now_ns);
        return;
    }
    if (!reply.whole) { /* nothing of it was of use */
        fetch(core, now_ns);
        return;
    }
    core->counters.repairs++;
    snprintf(detail, sizeof detail, "segment %llu, up to offset %llu",
             (unsigned long long)mending->damage.segment, (unsigned long long)reply.next);
    repl_notice(core, now_ns, LOG_WARN, "a damaged range of a log is whole again",
                mending->source >= 0 ? core->members[mending->source].id : "", detail);
    ask_damage(core, mending->asked);
}

void repl_repair_tick(struct repl_core *core, int64_t now_ns)
{
    struct repl_mending *mending = &core->mending;
    if (id16_is_zero(mending->log) || now_ns < repl_repair_due_ns(core))
        return;
    if (mending->step == MEND_FETCHING) {
        repl_put(core, REPL_CANCEL)->slot = REPL_REPAIR_SLOT;
        core->counters.failed++;
        fetch(core, now_ns);
    } else {
        ask_damage(core, mending->next);
    }
}

int64_t repl_repair_due_ns(const struct repl_core *core)
{
    const struct repl_mending *mending = &core->mending;
    bool is_timed = mending->step == MEND_WAITING || mending->step == MEND_FETCHING;
    return !id16_is_zero(mending->log) && is_timed ? mending->due_ns : INT64_MAX;
}

void repl_repair_remap(struct repl_core *core, const int map[REPL_MEMBERS_MAX])
{
    if (id16_is_zero(core->mending.log) || core->mending.source < 0)
        return;
    core->mending.source = map[core->mending.source];
    if (core->mending.source < 0)
        core->mending.tried = 0; /* the others have other numbers now */
}
