/* Sealed segments are compared with those of other members, by the digests in their indexes: of a copy with
 * the origin's, or with another holder's when that gives no answer; of the own log with one holder's after
 * the other. All logs in turn, then a rest.
 *
 *            the interval is over                  answer                  own digests
 *   resting ──────────────────────► pausing ──► asking ──► reading ──────────────────────► pausing
 *      ▲                            │  ▲  ▲      │            │ one differs                   │
 *      └─── that was the last log ──┘  │  └──────┘            ▼                               │
 *                                      │  none: the         looking: walsvc reads it again    │
 *                                      │  next member         │                               │
 *                                      └──────────────────────┴───────────────────────────────┘
 *
 * Either side may be the one that is wrong. Each reads its own segment when it finds the difference: damage
 * gets into the register, and is repaired from there; an index that lied is made again. When both are whole,
 * and a copy differs from its origin's in the next round too, the copy's segment is fetched from there. A
 * segment that one side has no index of is passed over. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "repl_parts.h"

#define COMPARE_ANSWER_NS (10 * NS_PER_S)
/* Between two requests: whatever a member answers, comparing takes little of this node. */
#define COMPARE_PAUSE_NS (100 * (int64_t)NS_PER_MS)
/* Segments read again of one log in one round; what else differs is for the next one. */
enum { COMPARE_LOOKS = 16 };

static void pause_until(struct repl_core *core, int64_t due_ns)
{
    core->compare.step = COMPARE_PAUSING;
    core->compare.due_ns = due_ns;
}

static void end_log(struct repl_core *core)
{
    core->compare.log = (struct id16){{0}};
}

/* ---- asking ---- */

static bool has_some(const struct repl_member *m, struct id16 log)
{
    return m->up && (id16_equal(m->log, log) || repl_watermark_end(m, log) > 0);
}

/* Who comes next; -1: all who have it were asked in vain. */
static int choose(const struct repl_core *core)
{
    const struct repl_compare *c = &core->compare;
    int origin = repl_origin(core, c->log);
    size_t first = origin >= 0 ? (size_t)origin : c->round;
    for (size_t i = 0; i < core->member_count; i++) {
        size_t member = (first + i) % core->member_count;
        if (!c->tried[member] && has_some(&core->members[member], c->log))
            return (int)member;
    }
    return -1;
}

static bool ask(struct repl_core *core, int64_t now_ns)
{
    struct repl_compare *c = &core->compare;
    int member = id16_is_zero(c->log) ? -1 : choose(core);
    if (member < 0)
        return false;
    struct repl_action *action = repl_put_question(core, REPL_ASK_DIGESTS, REPL_COMPARE_SLOT, (size_t)member);
    c->serial = action->serial;
    action->digests =
        (struct msg_digests){.from = core->own, .log = c->log, .after = c->after, .most = REPL_DIGESTS_MAX};
    snprintf(c->peer, sizeof c->peer, "%s", action->id);
    c->member = member;
    c->step = COMPARE_ASKING;
    c->due_ns = now_ns + COMPARE_ANSWER_NS;
    return true;
}

/* False: that was the last one of this round. */
static bool next_log(struct repl_core *core)
{
    struct repl_compare *c = &core->compare;
    if (c->next_held >= core->held_count)
        return false;
    c->log = core->held[c->next_held++].log;
    memset(c->tried, 0, sizeof c->tried);
    c->after = 0;
    c->looks = 0;
    return true;
}

static void go_on(struct repl_core *core, int64_t now_ns)
{
    struct repl_compare *c = &core->compare;
    while (!ask(core, now_ns))
        if (!next_log(core)) {
            end_log(core);
            c->next_held = 0;
            c->round++;
            c->step = COMPARE_RESTING;
            c->due_ns = now_ns + c->interval_ns;
            return;
        }
}

static void on_vain(struct repl_core *core, int64_t now_ns)
{
    core->compare.tried[core->compare.member] = true;
    pause_until(core, now_ns + COMPARE_PAUSE_NS);
}

void repl_compare_members(struct repl_core *core, int64_t now_ns)
{
    struct repl_compare *c = &core->compare;
    memset(c->tried, 0, sizeof c->tried); /* they have other numbers now */
    if (c->step != COMPARE_ASKING)
        return;
    repl_put(core, REPL_CANCEL)->slot = REPL_COMPARE_SLOT;
    pause_until(core, now_ns + COMPARE_PAUSE_NS);
}

/* ---- what comes ---- */

static bool take_digest(struct mp *m, struct repl_digest *out)
{
    uint32_t parts;
    struct slice digest;
    if (!mp_array(m, &parts) || parts < 3 || !mp_uint(m, &out->base_lsn) || !mp_uint(m, &out->bytes) ||
        !mp_bin(m, &digest) || digest.len != sizeof out->digest.bytes)
        return false;
    memcpy(out->digest.bytes, digest.data, digest.len);
    for (uint32_t i = 3; i < parts; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

/* False: not what a member of ours answers to what was asked. */
static bool take_digests(struct repl_compare *c, const struct msg_digests_reply *reply)
{
    struct mp m = mp_of(reply->segments);
    uint32_t count;
    uint64_t before = c->after;
    c->count = 0;
    if (!mp_array(&m, &count) || count > REPL_DIGESTS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct repl_digest *digest = &c->theirs[i];
        if (!take_digest(&m, digest) || digest->base_lsn <= before || digest->bytes == 0)
            return false;
        before = digest->base_lsn;
    }
    c->count = count;
    c->next = reply->next;
    return mp_at_end(&m) && (c->next == 0 || (count > 0 && c->next == before));
}

static void compare(struct repl_core *core, int64_t now_ns)
{
    struct repl_compare *c = &core->compare;
    if (c->count == 0) {
        end_log(core);
        pause_until(core, now_ns + COMPARE_PAUSE_NS);
        return;
    }
    c->step = COMPARE_READING;
    repl_put(core, REPL_COMPARE)->compare =
        (struct repl_compare_digests){.log = c->log, .theirs = c->theirs, .count = c->count};
}

static void on_bad_answer(struct repl_core *core, int64_t now_ns, uint64_t *counter, const char *text)
{
    (*counter)++;
    repl_notice(core, now_ns, LOG_WARN, text, core->compare.peer, "");
    on_vain(core, now_ns);
}

void repl_compare_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                          struct slice body)
{
    struct repl_compare *c = &core->compare;
    struct msg_digests_reply reply;
    if (c->step != COMPARE_ASKING || c->serial != serial)
        return;
    if (type == MSG_error) {
        core->counters.refused++;
        on_vain(core, now_ns);
    } else if (type != MSG_digests_reply || msg_decode(type, body, &reply) != SH_OK) {
        on_bad_answer(core, now_ns, &core->counters.malformed, "a member answers what cannot be read");
    } else if (!id16_equal(reply.log, c->log)) {
        on_bad_answer(core, now_ns, &core->counters.not_asked_for,
                      "a member sends digests of another log than it was asked for; ignored");
    } else if (!take_digests(c, &reply)) {
        on_bad_answer(core, now_ns, &core->counters.malformed,
                      "a member sends digests that were not asked for, or no digests; ignored");
    } else {
        compare(core, now_ns);
    }
}

void repl_compare_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial)
{
    if (core->compare.step != COMPARE_ASKING || core->compare.serial != serial)
        return;
    core->counters.failed++;
    on_vain(core, now_ns);
}

/* ---- comparing ---- */

/* Whether the origin tells this digest for the second round: it has had the time to read its own segment. */
static bool origin_insists(struct repl_core *core, const struct repl_digest *theirs)
{
    struct repl_compare *c = &core->compare;
    int origin = repl_origin(core, c->log);
    if (origin < 0 || strcmp(core->members[origin].id, c->peer) != 0)
        return false;
    bool again = id16_equal(c->suspect_log, c->log) && c->suspect.base_lsn == theirs->base_lsn &&
                 c->suspect.bytes == theirs->bytes && digest_equal(c->suspect.digest, theirs->digest);
    bool insists = again && c->suspect_round != c->round;
    bool is_free = id16_is_zero(c->suspect_log) || c->round - c->suspect_round > 1;
    if (again || is_free) {
        c->suspect_log = c->log;
        c->suspect = *theirs;
        c->suspect_round = c->round;
    }
    return insists;
}

/* Once for a log and round: somebody has to know, also when it is mended by itself. */
static void alarm(struct repl_core *core, uint64_t segment)
{
    struct repl_compare *c = &core->compare;
    char log[ID_TEXT];
    struct repl_action *action = repl_put(core, REPL_ALARM);
    id16_format(c->log, log);
    snprintf(action->id, sizeof action->id, "%s", c->peer);
    snprintf(action->detail, sizeof action->detail,
             "log %s, segment %" PRIu64 " is not the same there and at %s", log, segment, core->node);
}

static void on_difference(struct repl_core *core, const struct repl_digest *theirs,
                          const struct repl_digest *own)
{
    struct repl_compare *c = &core->compare;
    char detail[REPL_TEXT_MAX], log[ID_TEXT], there[DIGEST_TEXT], here[DIGEST_TEXT];
    core->counters.differences++;
    id16_format(c->log, log);
    digest_format(theirs->digest, there);
    digest_format(own->digest, here);
    snprintf(detail, sizeof detail,
             "log %s, segment %" PRIu64 ": %" PRIu64 " bytes, digest %s there; %" PRIu64
             " bytes, digest %s here, at %s",
             log, theirs->base_lsn, theirs->bytes, there, own->bytes, here, core->node);
    repl_notice_each(core, LOG_ERROR,
                     "a sealed segment is not the same here and at another member; it is read again here",
                     c->peer, detail);
    if (c->looks == 0) /* of this log, in this round */
        alarm(core, theirs->base_lsn);
    repl_put(core, REPL_LOOK)->look =
        (struct msg_look){.log = c->log, .segment = theirs->base_lsn, .origin = origin_insists(core, theirs)};
    c->after = theirs->base_lsn; /* where it goes on then */
    c->step = COMPARE_LOOKING;
}

void repl_core_digests(struct repl_core *core, int64_t now_ns, const struct repl_digest *own, size_t count)
{
    struct repl_compare *c = &core->compare;
    if (c->step != COMPARE_READING || count != c->count)
        return;
    for (size_t i = 0; i < count; i++) {
        const struct repl_digest *theirs = &c->theirs[i];
        if (own[i].bytes == 0)
            continue;
        core->counters.compared++;
        if (own[i].bytes == theirs->bytes && digest_equal(own[i].digest, theirs->digest))
            continue;
        on_difference(core, theirs, &own[i]);
        return;
    }
    c->after = c->next;
    if (c->next == 0)
        end_log(core);
    pause_until(core, now_ns + COMPARE_PAUSE_NS);
}

/* ---- looking ---- */

/* By look_reply.found. What is damaged, or not there any more, is told elsewhere. */
static const char *const found_texts[] = {
    "that segment is whole here, and its index agrees: the other member has to look at its own",
    "that segment is damaged here: the damage is repaired from a holder",
    "that segment is whole here, but its index was wrong: it is made again",
    "that segment could not be read again: it is gone, or not sealed",
    "that segment is whole here, but not what the log's origin has: it is fetched from there",
};

void repl_core_looked(struct repl_core *core, int64_t now_ns, uint32_t type, struct slice body)
{
    struct repl_compare *c = &core->compare;
    struct msg_look_reply reply;
    char detail[REPL_TEXT_MAX], log[ID_TEXT];
    if (c->step != COMPARE_LOOKING)
        return;
    bool good = type == MSG_look_reply && msg_decode(type, body, &reply) == SH_OK;
    id16_format(c->log, log);
    snprintf(detail, sizeof detail, "log %s, segment %" PRIu64, log, c->after);
    repl_notice_each(core, LOG_WARN, found_texts[good ? reply.found : 3], c->peer, detail);
    if (++c->looks >= COMPARE_LOOKS)
        end_log(core);
    pause_until(core, now_ns + COMPARE_PAUSE_NS);
}

/* ---- time ---- */

void repl_compare_tick(struct repl_core *core, int64_t now_ns)
{
    struct repl_compare *c = &core->compare;
    if (c->step == COMPARE_RESTING && c->due_ns == 0) /* it has just started */
        c->due_ns = now_ns + c->interval_ns;
    if (now_ns < repl_compare_due_ns(core))
        return;
    if (c->step != COMPARE_ASKING) {
        go_on(core, now_ns);
        return;
    }
    repl_put(core, REPL_CANCEL)->slot = REPL_COMPARE_SLOT;
    core->counters.failed++;
    on_vain(core, now_ns);
}

int64_t repl_compare_due_ns(const struct repl_core *core)
{
    const struct repl_compare *c = &core->compare;
    bool is_timed = c->step != COMPARE_READING && c->step != COMPARE_LOOKING;
    return c->interval_ns > 0 && is_timed ? c->due_ns : INT64_MAX;
}
