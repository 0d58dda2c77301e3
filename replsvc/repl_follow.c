/* Followed logs: whom to ask for what comes next, and what becomes of it.
 *
 *   choose a source ──► fetch ──► frames ──► store ──► durable ──► position to the origin
 *        ▲                │          │          │
 *        └── next one ◄───┴── none ──┘          └── refused: once nothing is outstanding, the place is asked
 * for
 *
 * One fetch is outstanding for a log; what was fetched and is not durable yet is bounded by the window. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "log_reader_copy.h"
#include "repl_parts.h"

/* How long a source may give nothing though another one has more, or take beyond the wait that was asked for;
 * doubled from failure to failure, so that a large answer gets through a slow line. */
#define PATIENCE_NS       (2 * NS_PER_S)
#define END_AT_LEAST_NS   (100 * (int64_t)NS_PER_MS)
#define BACK_TO_ORIGIN_NS (5 * NS_PER_S)
#define STORE_AGAIN_NS    NS_PER_S
#define AVOID_LONG_NS     (5 * NS_PER_S)
#define GAP_AFTER_NS      (10 * NS_PER_S) /* others may have what is trimmed, and not have said so yet */
#define FAILED_FIRST_NS   (50 * (int64_t)NS_PER_MS) /* doubled from failure to failure, up to AVOID_LONG */
enum { CREDIT_LEAST = 64 << 10, STREAMING_BYTES = 1 << 20, FAILURES_MOST = 7, PATIENCE_DOUBLED_MOST = 2 };

/* ---- whom to ask ---- */

void repl_follow_cancel(struct repl_core *core, struct repl_follow *f)
{
    if (f->fetching)
        repl_put(core, REPL_CANCEL)->slot = (unsigned)(f - core->follows);
    f->fetching = false;
}

static bool may_ask(const struct repl_core *core, const struct repl_follow *f, size_t member, int64_t now_ns)
{
    const struct repl_member *m = &core->members[member];
    return m->up && f->sources[member].avoid_until_ns <= now_ns &&
           (id16_equal(m->log, f->log) || repl_watermark_end(m, f->log) > 0);
}

/* While frames are replaced, whose they are. The origin; else who is known to have most, when that is more
 * than is here. */
static int choose(const struct repl_core *core, const struct repl_follow *f, int64_t now_ns)
{
    int origin = repl_origin(core, f->log), best = -1;
    uint64_t best_end = f->head.position;
    bool may_lead = f->lead >= 0 && core->members[f->lead].up && f->sources[f->lead].avoid_until_ns <= now_ns;
    if (f->over)
        return may_lead ? f->lead : -1;
    if (origin >= 0 && may_ask(core, f, (size_t)origin, now_ns))
        return origin;
    for (size_t i = 0; i < core->member_count; i++) {
        uint64_t end = repl_watermark_end(&core->members[i], f->log);
        if (end > best_end && may_ask(core, f, i, now_ns)) {
            best = (int)i;
            best_end = end;
        }
    }
    return best < 0 && may_lead ? f->lead : best;
}

uint64_t repl_follow_credit(const struct repl_follow *f)
{
    uint64_t left = f->unsynced < REPL_WINDOW_BYTES ? REPL_WINDOW_BYTES - f->unsynced : 0;
    return left < REPL_FETCH_BYTES ? left : REPL_FETCH_BYTES;
}

static int64_t patience_ns(const struct repl_follow *f)
{
    unsigned failures = f->sources[f->source].failures;
    return PATIENCE_NS << (failures < PATIENCE_DOUBLED_MOST ? failures : PATIENCE_DOUBLED_MOST);
}

/* An answer that was too large for the line within the time would be so each time: less is asked for. So it
 * is while walsvc refuses what comes, for hours maybe when the disk is full. */
static uint64_t most_bytes(const struct repl_follow *f)
{
    uint64_t credit = repl_follow_credit(f), most = REPL_FETCH_BYTES >> f->sources[f->source].failures;
    most = most > CREDIT_LEAST && !f->refused ? most : CREDIT_LEAST;
    return credit < most ? credit : most;
}

static void send_fetch(struct repl_core *core, struct repl_follow *f, int64_t now_ns)
{
    struct repl_action *action =
        repl_put_question(core, REPL_FETCH, (unsigned)(f - core->follows), (size_t)f->source);
    f->serial = action->serial;
    action->fetch = (struct msg_fetch){
        .from = core->own,
        .log = f->log,
        .position = f->head.position,
        .lsn = f->head.next_lsn - 1,
        .checksum = f->head.checksum,
        .anew = f->anew,
        .most_bytes = most_bytes(f),
        .most_entries = UINT64_MAX,
        .wait_ms = REPL_WAIT_MS,
    };
    f->fetching = true;
    f->asked_ns = now_ns;
    f->fetch_due_ns = now_ns + REPL_WAIT_MS * (int64_t)NS_PER_MS + patience_ns(f);
    core->counters.fetches++;
}

static bool may_fetch(const struct repl_core *core, const struct repl_follow *f, int64_t now_ns)
{
    bool is_followed = f->used && (core->own_copy || !id16_equal(f->log, core->own));
    return is_followed && core->knows_members && f->placed && !f->fetching && !f->lost &&
           now_ns >= f->retry_ns && repl_follow_credit(f) >= CREDIT_LEAST && !(f->anew && f->stores > 0);
}

void repl_follow_go(struct repl_core *core, int64_t now_ns)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        struct repl_follow *f = &core->follows[i];
        if (!may_fetch(core, f, now_ns))
            continue;
        f->source = choose(core, f, now_ns);
        if (f->source >= 0)
            send_fetch(core, f, now_ns);
    }
}

/* ---- positions ---- */

/* Whoever the frames came from. Of a copy that is known to be on another chain the origin hears nothing. */
static void push_position(struct repl_core *core, const struct repl_follow *f)
{
    int origin = repl_origin(core, f->log);
    if (origin < 0 || !core->members[origin].up || !f->held || f->forked || f->off_chain || f->over)
        return;
    struct repl_action *action = repl_put(core, REPL_POSITION);
    snprintf(action->host, sizeof action->host, "%s", core->members[origin].host);
    action->port = (uint16_t)(core->members[origin].port + 3);
    action->position = (struct msg_position){
        .from = core->own,
        .log = f->log,
        .end = f->durable.position,
        .lsn = f->durable.next_lsn - 1,
        .checksum = f->durable.checksum,
    };
}

void repl_follow_push_positions(struct repl_core *core)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++)
        if (core->follows[i].used)
            push_position(core, &core->follows[i]);
}

/* ---- what comes ---- */

static const char *source_id(const struct repl_core *core, const struct repl_follow *f)
{
    return f->source >= 0 ? core->members[f->source].id : "";
}

static void avoid(struct repl_follow *f, int64_t until_ns)
{
    if (f->source >= 0)
        f->sources[f->source].avoid_until_ns = until_ns;
    f->retries++;
}

/* Nobody answered: again soon, then more rarely. */
static void note_failure(struct repl_core *core, struct repl_follow *f, int64_t now_ns)
{
    core->counters.failed++;
    core->counters.retries++;
    f->fetching = false;
    if (f->source < 0)
        return;
    struct repl_source *s = &f->sources[f->source];
    int64_t pause_ns = FAILED_FIRST_NS << s->failures;
    if (s->failures < FAILURES_MOST)
        s->failures++;
    avoid(f, now_ns + (pause_ns < AVOID_LONG_NS ? pause_ns : AVOID_LONG_NS));
}

void repl_core_fetch_failed(struct repl_core *core, int64_t now_ns, unsigned slot, uint64_t serial)
{
    if (slot == REPL_REPAIR_SLOT) {
        repl_repair_fetch_failed(core, now_ns, serial);
        return;
    }
    if (slot == REPL_FORK_SLOT) {
        repl_fork_fetch_failed(core, now_ns, serial);
        return;
    }
    if (slot == REPL_COMPARE_SLOT) {
        repl_compare_fetch_failed(core, now_ns, serial);
        return;
    }
    if (slot == REPL_GONE_SLOT) {
        repl_gone_fetch_failed(core, now_ns, serial);
        return;
    }
    struct repl_follow *f = &core->follows[slot];
    if (!f->used || !f->fetching || f->serial != serial)
        return;
    note_failure(core, f, now_ns);
    repl_follow_go(core, now_ns);
}

static void on_error(struct repl_core *core, struct repl_follow *f, int64_t now_ns, struct slice body)
{
    struct msg_error error;
    char detail[REPL_TEXT_MAX];
    core->counters.refused++;
    if (msg_decode(MSG_error, body, &error) != SH_OK)
        error = (struct msg_error){.code = SH_BAD_REQUEST};
    bool soon = error.code == SH_UNAVAILABLE || error.code == SH_OVERLOADED || error.code == SH_NOT_FOUND;
    core->counters.retries++;
    avoid(f, now_ns + (soon ? (int64_t)NS_PER_S / 4 : AVOID_LONG_NS));
    snprintf(detail, sizeof detail, "%s: %.*s", sh_error_name((enum sh_error)error.code), (int)error.text.len,
             (const char *)error.text.data);
    if (!soon)
        repl_notice(core, now_ns, LOG_WARN, "a member refuses to send a log", source_id(core, f), detail);
}

static void on_malformed(struct repl_core *core, struct repl_follow *f, int64_t now_ns, uint64_t *counter,
                         const char *text)
{
    ++*counter;
    core->counters.retries++;
    avoid(f, now_ns + AVOID_LONG_NS);
    repl_notice(core, now_ns, LOG_ERROR, text, source_id(core, f), "");
}

static bool has_trimmed(const struct repl_source *s, const struct log_chain *head)
{
    return s->is_trimmed && s->first.position > head->position;
}

/* The origin is waited for, also while it is down. */
static bool may_have_next(const struct repl_core *core, const struct repl_follow *f, size_t member)
{
    const struct repl_member *m = &core->members[member];
    bool is_origin = id16_equal(m->log, f->log);
    return (is_origin || (m->up && repl_watermark_end(m, f->log) > f->head.position)) &&
           !has_trimmed(&f->sources[member], &f->head);
}

/* Of what is left of the log at those who are up, the first place. NULL: somebody may have what comes next.
 */
static const struct repl_source *first_left(const struct repl_core *core, const struct repl_follow *f)
{
    const struct repl_source *first = NULL;
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_source *s = &f->sources[i];
        if (may_have_next(core, f, i))
            return NULL;
        if (core->members[i].up && has_trimmed(s, &f->head) &&
            (first == NULL || s->first.position < first->first.position))
            first = s;
    }
    return first;
}

/* Nobody has what comes next any more: the copy begins anew behind the gap. */
static void begin_anew(struct repl_core *core, struct repl_follow *f, int64_t now_ns)
{
    const struct repl_source *first = first_left(core, f);
    char detail[REPL_TEXT_MAX];
    if (first == NULL)
        return;
    snprintf(detail, sizeof detail, "LSN %llu to %llu", (unsigned long long)f->head.next_lsn,
             (unsigned long long)first->first.next_lsn - 1);
    repl_notice(core, now_ns, LOG_ERROR,
                "entries of a log are trimmed everywhere and missing here; the copy begins anew behind them",
                source_id(core, f), detail);
    core->counters.gaps++;
    f->head = first->first;
    f->anew = true;
    f->trimmed_ns = 0;
    for (size_t i = 0; i < REPL_MEMBERS_MAX; i++)
        if (!has_trimmed(&f->sources[i], &f->head))
            f->sources[i].avoid_until_ns = 0;
}

/* There is no such segment. */
static void give_up_anew(struct repl_follow *f)
{
    if (f->anew)
        f->head = f->durable;
    f->anew = false;
}

static void on_trimmed(struct repl_core *core, struct repl_follow *f, int64_t now_ns,
                       const struct msg_fetch_reply *reply)
{
    avoid(f, now_ns + AVOID_LONG_NS);
    if (reply->lsn == UINT64_MAX)
        return;
    f->sources[f->source].is_trimmed = true;
    f->sources[f->source].first = (struct log_chain){.next_lsn = reply->lsn + 1, .position = reply->position};
    if (reply->position < f->head.position)
        give_up_anew(f); /* there is more left than was said */
    if (f->trimmed_ns == 0)
        f->trimmed_ns = now_ns;
    bool is_own = id16_equal(f->log, core->own); /* of which nothing is given up that is here */
    if (f->stores == 0 && !is_own && now_ns - f->trimmed_ns >= GAP_AFTER_NS)
        begin_anew(core, f, now_ns);
}

/* The body is held on to by the store. */
static bool on_frames(struct repl_core *core, struct repl_follow *f, int64_t now_ns,
                      const struct msg_fetch_reply *reply)
{
    struct log_chain chain = f->head;
    if (reply->position != f->head.position) {
        on_malformed(core, f, now_ns, &core->counters.not_asked_for,
                     "a member sends other frames than it was asked for; ignored");
        return false;
    }
    if (!repl_check_bytes(f->log, reply->segment, reply->bytes, f->anew, &chain)) {
        on_malformed(core, f, now_ns, &core->counters.bad_frames,
                     "a member sends frames that are damaged, or do not continue the log; ignored");
        return false;
    }
    if (id16_equal(f->log, core->own) &&
        given_up_has(core->given_up, core->given_up_count, repl_fork_first(reply->bytes))) {
        avoid(f, now_ns + AVOID_LONG_NS); /* cut off here, and not to come back so */
        return false;
    }
    struct repl_action *action = repl_put(core, REPL_STORE);
    action->slot = (unsigned)(f - core->follows);
    action->store = (struct repl_store){
        .log = f->log, .position = f->head.position, .bytes = reply->bytes, .anew = f->anew, .over = f->over};
    if (f->over && !id16_equal(f->log, core->own)) {
        action->store.given_up_count = f->given_up_count;
        memcpy(action->store.given_up, f->given_up, sizeof f->given_up);
    }
    core->counters.fetched_bytes += reply->bytes.len;
    f->head = chain;
    f->anew = false;
    f->trimmed_ns = 0;
    f->stores++;
    f->unsynced += reply->bytes.len;
    core->counters.exhausted += repl_follow_credit(f) < CREDIT_LEAST;
    return true;
}

static void on_forked(struct repl_core *core, struct repl_follow *f, int64_t now_ns,
                      const struct msg_fetch_reply *reply)
{
    char detail[REPL_TEXT_MAX];
    avoid(f, now_ns + AVOID_LONG_NS);
    if (f->anew) {
        give_up_anew(f);
        return;
    }
    if (f->over) {
        repl_over_end(f);
        return;
    }
    core->counters.forks++;
    f->forked = true;
    repl_over_note(core, f, now_ns, reply);
    snprintf(detail, sizeof detail, "at LSN %llu, position %llu: here %08x, there %08x",
             (unsigned long long)f->head.next_lsn - 1, (unsigned long long)f->head.position, f->head.checksum,
             (uint32_t)reply->checksum);
    repl_notice(core, now_ns, LOG_ERROR, "the copy of a log and its source are on different chains",
                source_id(core, f), detail);
}

/* A copy whose place it knows is a part of its log. */
static void note_origin(struct repl_core *core, struct repl_follow *f, enum log_copy_state state)
{
    bool was_off_chain = f->off_chain;
    f->off_chain = state == LOG_COPY_FORKED || state == LOG_COPY_BEHIND;
    if (was_off_chain)
        push_position(core, f);
}

static bool leave_over(struct repl_follow *f, int64_t now_ns)
{
    avoid(f, now_ns + NS_PER_S);
    repl_over_end(f);
    return false;
}

static bool on_reply(struct repl_core *core, struct repl_follow *f, int64_t now_ns,
                     const struct msg_fetch_reply *reply)
{
    if (f->source >= 0) {
        f->sources[f->source].failures = 0;
        f->sources[f->source].is_trimmed = false;
    }
    f->forked = false;
    if (f->source >= 0 && f->source == repl_origin(core, f->log))
        note_origin(core, f, (enum log_copy_state)reply->state);
    if (reply->state != LOG_COPY_FRAMES && f->stores == 0 && f->over)
        return leave_over(f, now_ns); /* it has no more that replaces anything */
    if (reply->state != LOG_COPY_FRAMES && f->source == f->lead && !f->over)
        f->lead = -1;
    repl_follow_note_best(f, now_ns, reply->durable_lsn, reply->durable_end);
    switch ((enum log_copy_state)reply->state) {
    case LOG_COPY_FRAMES:
        f->progress_ns = now_ns;
        return on_frames(core, f, now_ns, reply);
    case LOG_COPY_END:
        f->progress_ns = now_ns;
        if (f->source != repl_origin(core, f->log))
            avoid(f, now_ns + NS_PER_S); /* it has no more than is here: who has? */
        else if (now_ns - f->asked_ns < END_AT_LEAST_NS)
            avoid(f, now_ns + END_AT_LEAST_NS); /* it does not wait as it was asked to */
        break;
    case LOG_COPY_TRIMMED:
        on_trimmed(core, f, now_ns, reply);
        break;
    case LOG_COPY_FORKED:
        on_forked(core, f, now_ns, reply);
        break;
    case LOG_COPY_BEHIND:
        avoid(f, now_ns + NS_PER_S);
        repl_over_note(core, f, now_ns, reply);
        if (f->source >= 0 && f->source == repl_origin(core, f->log) && f->stores == 0)
            repl_notice(core, now_ns, LOG_ERROR, "a member has less of its own log than its copy here",
                        source_id(core, f), "");
        break;
    }
    return false;
}

bool repl_core_fetched(struct repl_core *core, int64_t now_ns, unsigned slot, uint64_t serial, uint32_t type,
                       struct slice body)
{
    if (slot == REPL_REPAIR_SLOT)
        return repl_repair_fetched(core, now_ns, serial, type, body);
    if (slot == REPL_FORK_SLOT)
        return repl_fork_fetched(core, now_ns, serial, type, body);
    if (slot == REPL_COMPARE_SLOT) {
        repl_compare_fetched(core, now_ns, serial, type, body);
        return false;
    }
    if (slot == REPL_GONE_SLOT) {
        repl_gone_fetched(core, now_ns, serial, type, body);
        return false;
    }
    struct repl_follow *f = &core->follows[slot];
    struct msg_fetch_reply reply;
    bool stores = false;
    if (!f->used || !f->fetching || f->serial != serial)
        return false;
    f->fetching = false;
    if (type == MSG_error)
        on_error(core, f, now_ns, body);
    else if (type != MSG_fetch_reply || msg_decode(type, body, &reply) != SH_OK)
        on_malformed(core, f, now_ns, &core->counters.malformed, "a member answers what cannot be read");
    else if (!id16_equal(reply.log, f->log))
        on_malformed(core, f, now_ns, &core->counters.not_asked_for,
                     "a member sends another log than it was asked for; ignored");
    else
        stores = on_reply(core, f, now_ns, &reply);
    repl_follow_go(core, now_ns);
    repl_proof_go(core, now_ns); /* the origin may be one to be looked at */
    return stores;
}

/* ---- what is stored ---- */

static void on_store_refused(struct repl_core *core, struct repl_follow *f, int64_t now_ns, struct slice body)
{
    struct msg_error error;
    if (msg_decode(MSG_error, body, &error) != SH_OK)
        error = (struct msg_error){.code = SH_INTERNAL};
    /* What follows a store that was refused conflicts too, which says nothing new. */
    bool is_news = error.code != SH_CONFLICT || (f->refused && !f->lost);
    if (is_news)
        f->retry_ns = now_ns + STORE_AGAIN_NS;
    f->refused = f->lost = true;
    repl_follow_cancel(core, f);
    char detail[REPL_TEXT_MAX];
    snprintf(detail, sizeof detail, "%s: %.*s", sh_error_name((enum sh_error)error.code), (int)error.text.len,
             (const char *)error.text.data);
    repl_notice(core, now_ns, LOG_WARN, "walsvc does not take frames of a copy; fetched again", "", detail);
}

/* What is durable now. A copy whose frames were replaced may end before where it did. */
static void on_stored(struct repl_core *core, struct repl_follow *f, int64_t now_ns, size_t bytes,
                      const struct msg_copy_append_reply *reply)
{
    bool moved = reply->end != f->durable.position;
    f->held = true;
    f->refused = false;
    f->durable = (struct log_chain){reply->lsn + 1, (uint32_t)reply->checksum, reply->end};
    if (f->over && reply->end == f->head.position - f->unsynced)
        f->over = false; /* it ends where these bytes do: all of it is there */
    repl_cut_held(core, f->log, &f->durable);
    core->counters.stored_bytes += bytes;
    repl_follow_note_caught_up(f, now_ns);
    if (moved)
        push_position(core, f);
}

void repl_core_stored(struct repl_core *core, int64_t now_ns, unsigned slot, size_t bytes, uint32_t type,
                      struct slice body)
{
    struct repl_follow *f = &core->follows[slot];
    struct msg_copy_append_reply reply;
    assert(f->used && f->stores > 0 && f->unsynced >= bytes);
    f->stores--;
    f->unsynced -= bytes;
    if (type == MSG_copy_append_reply && msg_decode(type, body, &reply) == SH_OK)
        on_stored(core, f, now_ns, bytes, &reply);
    else
        on_store_refused(core, f, now_ns, body);
    if (f->lost && f->stores == 0) {
        f->placed = false;
        repl_put(core, REPL_ASK_LOGS);
    }
    repl_follow_leave_own(core);
    repl_follow_go(core, now_ns);
    repl_proof_go(core, now_ns);
}

/* ---- time ---- */

static int64_t stalled_ns(const struct repl_follow *f)
{
    int64_t since_ns = f->progress_ns > f->asked_ns ? f->progress_ns : f->asked_ns;
    return (f->more_ns > since_ns ? f->more_ns : since_ns) + patience_ns(f);
}

static bool another_has_more(const struct repl_core *core, const struct repl_follow *f, int64_t now_ns)
{
    for (size_t i = 0; i < core->member_count; i++)
        if ((int)i != f->source && may_ask(core, f, i, now_ns) &&
            repl_watermark_end(&core->members[i], f->log) > f->head.position)
            return true;
    return false;
}

/* What is over is forgotten, so that it is due no more. */
static void end_pauses(struct repl_follow *f, int64_t now_ns)
{
    if (f->retry_ns <= now_ns)
        f->retry_ns = 0;
    for (size_t i = 0; i < REPL_MEMBERS_MAX; i++)
        if (f->sources[i].avoid_until_ns <= now_ns)
            f->sources[i].avoid_until_ns = 0;
}

/* Who was not the first choice is left for it now and then. */
static bool is_away_from_origin(const struct repl_core *core, const struct repl_follow *f, int64_t now_ns)
{
    int origin = repl_origin(core, f->log);
    return origin >= 0 && f->source != origin && now_ns - f->asked_ns >= BACK_TO_ORIGIN_NS &&
           may_ask(core, f, (size_t)origin, now_ns);
}

void repl_follow_tick(struct repl_core *core, int64_t now_ns)
{
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        struct repl_follow *f = &core->follows[i];
        if (!f->used)
            continue;
        end_pauses(f, now_ns);
        if (!f->fetching)
            continue;
        bool failed =
            now_ns >= f->fetch_due_ns || (now_ns >= stalled_ns(f) && another_has_more(core, f, now_ns));
        if (!failed && !is_away_from_origin(core, f, now_ns))
            continue;
        repl_follow_cancel(core, f);
        if (failed)
            note_failure(core, f, now_ns);
    }
}

static int64_t sooner(int64_t due_ns, int64_t than_ns)
{
    return due_ns > 0 && due_ns < than_ns ? due_ns : than_ns;
}

static int64_t due_of(const struct repl_core *core, const struct repl_follow *f)
{
    int64_t due_ns = sooner(f->retry_ns, INT64_MAX);
    for (size_t i = 0; i < core->member_count; i++)
        due_ns = sooner(f->sources[i].avoid_until_ns, due_ns);
    if (!f->fetching)
        return due_ns;
    due_ns = sooner(f->fetch_due_ns, due_ns);
    return another_has_more(core, f, 0) ? sooner(stalled_ns(f), due_ns) : due_ns; /* 0: not who is avoided */
}

int64_t repl_follow_due_ns(const struct repl_core *core)
{
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        if (!core->follows[i].used)
            continue;
        int64_t due = due_of(core, &core->follows[i]);
        due_ns = due < due_ns ? due : due_ns;
    }
    return due_ns;
}

enum repl_state repl_follow_state(const struct repl_core *core, const struct repl_follow *f)
{
    (void)core;
    if (f->forked)
        return REPL_FORKED;
    if (f->anew || f->trimmed_ns > 0)
        return REPL_TRIMMED;
    if (f->lost || repl_follow_credit(f) < CREDIT_LEAST)
        return REPL_WAITING;
    if (f->source < 0 || (!f->fetching && f->stores == 0))
        return REPL_DISCONNECTED;
    uint64_t behind = f->best_end > f->durable.position ? f->best_end - f->durable.position : 0;
    return behind > STREAMING_BYTES ? REPL_CATCHING_UP : REPL_STREAMING;
}
