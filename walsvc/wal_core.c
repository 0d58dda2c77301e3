/* The decisions of walsvc. Bad requests are refused; only a broken invariant is fatal. */
#include "wal_core.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "telemetry.h"
#include "wal_queue.h"
#include "wal_recent.h"

enum { RETRY_MS = 10 };
#define DRIFT_MAX_NS (60 * (int64_t)NS_PER_S) /* of the HLC that an append asks for */

/* What was found out about an append's entries. */
struct checked {
    uint32_t count;
    bool one_stream; /* all are events of it */
    struct slice stream;
};

struct wal_core {
    struct id16 log, boot;
    const struct group_set *groups; /* NULL: there is only one */
    uint64_t segment_size;
    size_t queue_bytes;
    uint64_t offset, limit; /* of the segment that the next frame goes to */
    uint64_t position;      /* in the log: behind the last frame handed out */
    enum wal_next next;
    bool was_full; /* an append was refused because there was no room for that one */
    bool read_only;
    bool given_up;               /* for good: the log is open as a copy */
    bool held_back;              /* appends wait */
    bool back_waits;             /* an entry that comes back needs the next segment */
    char reason[WAL_REASON_MAX]; /* with read_only */
    enum wal_writes writes;      /* as the polls were told last */
    struct wal_state state;
    struct wal_durable durable;
    struct wal_recent *recent;
    struct wal_actions actions;
    size_t written_bytes, stalled_bytes; /* of the bodies in the two queues */
    struct wal_waiters waiters;          /* handed out, not yet durable; by LSN */
    struct wal_levels levels;            /* durable, and not yet on as many others as they want */
    struct wal_stalls stalls;            /* need the next segment, and all that came behind them */
    struct wal_polls polls;              /* parked watermark requests */
    struct wal_polls settling;           /* wait until the durable end is at newer_than */
    struct buf loss;                     /* body of a loss frame that waits for the next segment; or empty */
    uint64_t loss_end;                   /* position behind one that was handed out, until durable; or 0 */
};

struct wal_core *wal_core_open(const struct wal_core_options *o)
{
    struct wal_core *c = xcalloc(1, sizeof *c);
    *c = (struct wal_core){
        .log = o->log,
        .boot = o->boot,
        .groups = o->groups != NULL && o->groups->count > 1 ? o->groups : NULL,
        .segment_size = o->segment_size,
        .queue_bytes = o->queue_bytes,
        .offset = o->offset,
        .limit = o->limit,
        .position = o->durable.end,
        .next = WAL_NEXT_PREPARING,
        .state = o->state,
        .durable = o->durable,
        .recent = wal_recent_open(o->state.next_lsn - 1),
        .actions = o->actions,
    };
    return c;
}

void wal_core_close(struct wal_core *c)
{
    wal_state_free(&c->state);
    wal_recent_free(c->recent);
    wal_waiters_free(&c->waiters);
    wal_levels_free(&c->levels);
    wal_stalls_free(&c->stalls);
    wal_polls_free(&c->polls);
    wal_polls_free(&c->settling);
    buf_free(&c->loss);
    free(c);
}

void wal_frame_free(struct wal_frame *frame)
{
    free(frame->owned);
    free(frame);
}

/* An append. */
static void refuse_with(struct wal_core *c, struct link_token token, const struct msg_error *error)
{
    telemetry_add(TELEMETRY_wal_refused, 0, 1);
    c->actions.refuse(c->actions.arg, token, error);
}

static void refuse(struct wal_core *c, struct link_token token, enum sh_error code, const char *text,
                   uint64_t expected)
{
    struct msg_error error = {.code = code, .text = slice_str(text), .expected = expected};
    if (code == SH_OVERLOADED)
        error.retry_ms = RETRY_MS;
    refuse_with(c, token, &error);
}

static void refuse_condition(struct wal_core *c, struct link_token token, uint64_t look_again)
{
    const struct msg_error error = {
        .code = SH_CONFLICT,
        .text = slice_str("written behind what the conditions were checked against"),
        .look_again = look_again,
    };
    refuse_with(c, token, &error);
}

static void reply(struct wal_core *c, const struct wal_level_wait *wait, enum wal_level reached)
{
    struct msg_append_reply r = {.log = c->log,
                                 .lsn = wait->answer.lsn,
                                 .count = wait->answer.count,
                                 .ack = (uint64_t)reached,
                                 .hlc = wait->hlc};
    if (wait->hlc == 0)
        r.clock = c->state.hlc;
    c->actions.reply(c->actions.arg, wait->token, &r);
    if (c->actions.acknowledged != NULL)
        c->actions.acknowledged(c->actions.arg, wait->wanted, wait->came_ns);
}

static void reply_to_wait(struct wal_core *c, const struct wal_level_wait *wait)
{
    reply(c, wait, wal_levels_of(&c->levels, &wait->answer));
}

enum { STATUS_LANDED, STATUS_NOT_YET, STATUS_LANDED_SOMEWHERE, STATUS_FORGOTTEN, STATUS_FENCED };

static void tell_status(struct wal_core *c, struct link_token token, unsigned state,
                        const struct wal_answer *answer)
{
    struct msg_producer_status_reply r = {.log = c->log, .state = state, .last = c->state.next_lsn - 1};
    if (state == STATUS_LANDED) {
        r.lsn = answer->lsn;
        r.count = answer->count;
    }
    c->actions.status(c->actions.arg, token, &r);
}

/* Its entries are durable here: answers it, unless it waits for others. */
static void reply_or_wait(struct wal_core *c, const struct wal_waiter *w)
{
    if (w->asks) {
        tell_status(c, w->token, STATUS_LANDED, &w->answer);
        return;
    }
    const struct wal_level_wait wait = {w->token,  w->answer,       w->hlc,
                                        w->wanted, w->times.due_ns, w->times.came_ns};
    if (w->wanted == WAL_LOCAL) {
        reply(c, &wait, WAL_LOCAL);
        return;
    }
    if (wait.due_ns == 0 || wal_levels_of(&c->levels, &w->answer) >= w->wanted) {
        reply_to_wait(c, &wait);
        return;
    }
    wal_levels_wait(&c->levels, &wait);
    c->actions.unlend(c->actions.arg, w->token);
}

/* A frame for the state as it is: base LSN and HLC are taken now. */
static struct wal_frame *new_frame(struct wal_core *c, enum frame_kind kind, struct slice body,
                                   int64_t now_real_ns)
{
    struct wal_frame *frame = xmalloc(sizeof *frame);
    memset(frame, 0, offsetof(struct wal_frame, encoded));
    frame->body = body;
    frame->header = (struct frame_header){
        .kind = kind,
        .body_bytes = (uint32_t)body.len,
        .base_lsn = c->state.next_lsn,
        .hlc = hlc_next(c->state.hlc, now_real_ns),
    };
    return frame;
}

/* Puts the frame behind the others in its segment. */
static void hand_out(struct wal_core *c, struct wal_frame *frame)
{
    c->offset += FRAME_HEADER_BYTES + frame->body.len;
    c->position += FRAME_HEADER_BYTES + frame->body.len;
    assert(c->offset <= c->limit);
    c->actions.write(c->actions.arg, frame);
}

/* Opens the next segment with a checkpoint. */
static void roll(struct wal_core *c, int64_t now_real_ns)
{
    struct buf body = {0};
    assert(c->next == WAL_NEXT_READY);
    wal_state_checkpoint(&c->state, frame_body_most(c->segment_size), &body);
    struct wal_frame *frame = new_frame(c, FRAME_CHECKPOINT, buf_slice(&body), now_real_ns);
    frame->owned = body.data;
    frame->opens_segment = true;
    c->state.hlc = frame->header.hlc;
    c->next = WAL_NEXT_PREPARING;
    c->limit = c->segment_size;
    c->offset = SEGMENT_HEADER_BYTES;
    c->position += SEGMENT_HEADER_BYTES;
    hand_out(c, frame);
}

/* All keys and streams of a frame belong to this node's group. False: answered here. */
static bool belongs_here(struct wal_core *c, struct link_token token, struct slice entries)
{
    char text[GROUP_TEXT_MAX], name[GROUP_TEXT_MAX / 4];
    if (c->groups == NULL)
        return true;
    const struct group_verdict v = group_of_entries(c->groups, entries);
    if (v.is_split) {
        group_split_text(&v, c->groups, text);
        refuse(c, token, SH_BAD_REQUEST, text, 0);
        return false;
    }
    if (v.group == GROUPS_MAX || v.group == c->groups->self)
        return true;
    const char *group = c->groups->all[v.group].name;
    group_name_text(v.kinds[0], v.names[0], name, sizeof name);
    snprintf(text, sizeof text, "%s belongs to group `%s`; nothing was appended", name, group);
    const struct msg_error error = {
        .code = SH_WRONG_GROUP, .text = slice_str(text), .group = slice_str(group)};
    refuse_with(c, token, &error);
    return false;
}

/* Answers it when that is durable, or is durable already. */
static void answer_landed(struct wal_core *c, const struct wal_waiter *w)
{
    if (w->answer.lsn + w->answer.count - 1 <= c->durable.lsn)
        reply_or_wait(c, w);
    else
        wal_waiters_push(&c->waiters, w);
}

/* A log whose clock is ahead of the wall already is not moved by what it has seen. */
static bool is_drift(const struct wal_core *c, uint64_t hlc, int64_t now_real_ns)
{
    return hlc > c->state.hlc && hlc > hlc_of_ms((now_real_ns + DRIFT_MAX_NS) / NS_PER_MS);
}

/* What a new append of this producer holds, and asks for. SH_OK, or it was refused. */
static enum sh_error judge_new(struct wal_core *c, struct link_token token, const struct msg_append *a,
                               int64_t now_real_ns, struct checked *checked)
{
    uint64_t look_again;
    enum sh_error error =
        entries_check_stream(a->entries, &checked->count, &checked->one_stream, &checked->stream);
    if (error != SH_OK) {
        refuse(c, token, error, "the entries are not well-formed or too large", 0);
        return error;
    }
    if (!belongs_here(c, token, a->entries))
        return SH_WRONG_GROUP;
    if (is_drift(c, a->hlc, now_real_ns)) {
        refuse(c, token, SH_CLOCK_DRIFT,
               "it is to come after what is more than 60 s ahead of this node's clock", 0);
        return SH_CLOCK_DRIFT;
    }
    error = wal_recent_check(c->recent, a->conditions, &look_again);
    if (error == SH_CONFLICT)
        refuse_condition(c, token, look_again);
    else if (error != SH_OK)
        refuse(c, token, error, "the conditions are not well-formed or too large", 0);
    return error;
}

/* SH_OK: it is new and good. Anything else was answered here, or waits for what it repeats. */
static enum sh_error judge(struct wal_core *c, struct link_token token, const struct msg_append *a,
                           struct wal_times times, int64_t now_real_ns, struct checked *checked)
{
    struct wal_answer answer;
    uint64_t expected;
    enum sh_error error = SH_CONFLICT;
    if (!id16_is_zero(a->producer)) {
        enum wal_verdict verdict = wal_producers_judge(c->state.producers, a->producer, (uint32_t)a->epoch,
                                                       a->sequence, &answer, &expected);
        if (verdict == WAL_REPEATED) {
            struct wal_waiter w = {.token = token,
                                   .answer = answer,
                                   .until_lsn = c->state.next_lsn - 1,
                                   .wanted = (enum wal_level)a->ack,
                                   .times = times};
            answer_landed(c, &w);
            return error;
        }
        if (verdict == WAL_GAP && c->read_only)
            refuse(c, token, SH_READ_ONLY, c->reason, 0); /* the one before it was told so, too */
        else if (verdict == WAL_GAP)
            refuse(c, token, error, "a lower sequence of this producer is missing", expected);
        else if (verdict == WAL_FENCED)
            refuse(c, token, error, "fenced: a higher epoch of this producer has written", 0);
        else if (verdict == WAL_EXPIRED)
            refuse(c, token, error = SH_SEQUENCE_EXPIRED, "neither new nor remembered; start a new producer",
                   0);
        if (verdict != WAL_NEW)
            return error;
    }
    if (c->read_only) {
        refuse(c, token, SH_READ_ONLY, c->reason, 0);
        return SH_READ_ONLY;
    }
    return judge_new(c, token, a, now_real_ns, checked);
}

static bool fits(const struct wal_core *c, size_t body_bytes)
{
    return c->offset + FRAME_HEADER_BYTES + body_bytes <= c->limit;
}

/* Everything is decided: gives the entries their LSNs. */
static void admit(struct wal_core *c, struct link_token token, const struct msg_append *a,
                  struct wal_times times, const struct checked *checked, int64_t now_real_ns)
{
    struct wal_frame *frame = new_frame(c, FRAME_DATA, a->entries, now_real_ns);
    struct frame_header *h = &frame->header;
    uint32_t count = checked->count;
    frame->session = token.session;
    if (h->hlc <= a->hlc)
        h->hlc = hlc_next(a->hlc, now_real_ns);
    if (checked->one_stream)
        wal_recent_note(c->recent, WAL_RECENT_STREAM, checked->stream, h->base_lsn + count - 1);
    else
        wal_recent_note_all(c->recent, a->entries, h->base_lsn);
    h->count = count;
    h->producer = a->producer;
    h->epoch = id16_is_zero(a->producer) ? 0 : (uint32_t)a->epoch;
    h->sequence = id16_is_zero(a->producer) ? 0 : a->sequence;
    wal_state_apply(&c->state, h, a->entries);
    struct wal_waiter w = {
        .token = token,
        .answer = {h->base_lsn, count},
        .hlc = h->hlc,
        .until_lsn = c->state.next_lsn - 1,
        .bytes = a->entries.len,
        .wanted = (enum wal_level)a->ack,
        .times = times,
    };
    c->written_bytes += a->entries.len;
    wal_waiters_push(&c->waiters, &w);
    hand_out(c, frame);
}

static void answer_poll(struct wal_core *c, struct link_token token)
{
    struct msg_watermark_reply r = {
        .log = c->log,
        .durable_end = c->durable.end,
        .durable_lsn = c->durable.lsn,
        .boot = c->boot,
        .commits = c->durable.commits,
        .writes = (uint64_t)c->writes,
    };
    c->actions.watermark(c->actions.arg, token, &r);
}

/* Answers those whose frames are durable. */
static void settle(struct wal_core *c)
{
    for (size_t i = 0; i < c->settling.count;) {
        struct wal_poll poll = c->settling.all[i];
        if (poll.newer_than > c->durable.end) {
            i++;
            continue;
        }
        wal_polls_remove(&c->settling, i);
        c->actions.settled(c->actions.arg, poll.token, c->durable.lsn);
    }
}

/* Those that wait for less than there is now; or all. */
static void answer_polls(struct wal_core *c, bool all)
{
    for (size_t i = 0; i < c->polls.count;) {
        struct wal_poll poll = c->polls.all[i];
        if (!all && poll.newer_than >= c->durable.end) {
            i++;
            continue;
        }
        wal_polls_remove(&c->polls, i);
        answer_poll(c, poll.token);
    }
}

/* Appends may be taken from now on, or not any more: whoever waits hears of it. */
static void note_writes(struct wal_core *c)
{
    enum wal_writes writes = c->read_only  ? WAL_WRITES_READ_ONLY
                             : c->was_full ? WAL_WRITES_DISK_FULL
                                           : WAL_WRITES_TAKEN;
    if (writes == c->writes)
        return;
    c->writes = writes;
    answer_polls(c, true);
}

static void refuse_full(struct wal_core *c, struct link_token token)
{
    refuse(c, token, SH_DISK_FULL, "no room for another segment", 0);
    c->was_full = true;
    note_writes(c);
}

/* Takes or answers the request; false: it needs the next segment, which is not there yet, or is held back. */
static bool try_append(struct wal_core *c, struct link_token token, const struct msg_append *a,
                       struct wal_times times, int64_t now_real_ns)
{
    struct checked checked;
    bool needs_roll = !fits(c, a->entries.len);
    if (judge(c, token, a, times, now_real_ns, &checked) != SH_OK)
        return true;
    if (c->next == WAL_NEXT_DISK_FULL && (c->held_back ? c->back_waits : needs_roll)) {
        refuse_full(c, token);
        return true;
    }
    if (c->held_back || (needs_roll && c->next == WAL_NEXT_PREPARING))
        return false;
    if (needs_roll)
        roll(c, now_real_ns);
    admit(c, token, a, times, &checked, now_real_ns);
    return true;
}

static bool is_overloaded(const struct wal_core *c, size_t bytes)
{
    size_t queued = c->written_bytes + c->stalled_bytes;
    return queued > 0 && queued + bytes > c->queue_bytes;
}

void wal_core_append(struct wal_core *c, struct link_token token, const struct msg_append *a,
                     int64_t now_real_ns, int64_t now_ns)
{
    const struct wal_times times = {
        .came_ns = now_ns,
        .due_ns = a->timeout_ms > 0 ? now_ns + (int64_t)a->timeout_ms * NS_PER_MS : 0,
    };
    if (c->given_up) {
        refuse(c, token, SH_READ_ONLY, c->reason, 0);
        return;
    }
    if (a->entries.len > frame_body_most(c->segment_size)) {
        refuse(c, token, SH_TOO_LARGE, "more bytes than a frame can hold", 0);
        return;
    }
    if (!id16_is_zero(a->producer) && a->sequence == 0) {
        refuse(c, token, SH_BAD_REQUEST, "sequences start at 1", 0);
        return;
    }
    if (is_overloaded(c, a->entries.len)) {
        refuse(c, token, SH_OVERLOADED, "too many bytes wait to be committed", 0);
        return;
    }
    if (c->stalls.first == NULL && try_append(c, token, a, times, now_real_ns))
        return;
    wal_stalls_push(&c->stalls, token, a, times);
    c->stalled_bytes += a->entries.len;
}

static void refuse_status(struct wal_core *c, struct link_token token, enum sh_error code, const char *text)
{
    const struct msg_error error = {.code = code, .text = slice_str(text)};
    c->actions.refuse(c->actions.arg, token, &error);
}

void wal_core_producer_status(struct wal_core *c, struct link_token token,
                              const struct msg_producer_status *m)
{
    const struct wal_producers *table = c->state.producers;
    struct wal_waiter w = {.token = token, .until_lsn = c->state.next_lsn - 1, .asks = true};
    uint64_t expected;
    if (c->given_up || c->held_back) { /* what it has is not known yet, or not all of it */
        refuse_status(c, token, SH_UNAVAILABLE, "the node's own log is being completed");
        return;
    }
    if (id16_is_zero(m->producer) || m->sequence == 0) {
        refuse_status(c, token, SH_BAD_REQUEST, "a producer has an id, and its sequences start at 1");
        return;
    }
    enum wal_verdict verdict =
        wal_producers_judge(table, m->producer, (uint32_t)m->epoch, m->sequence, &w.answer, &expected);
    /* As long as the table is not full it has never forgotten one. */
    bool forgotten =
        !wal_producers_known(table, m->producer) && wal_producers_count(table) == WAL_PRODUCERS_MAX;
    if (verdict == WAL_REPEATED)
        answer_landed(c, &w);
    else if (verdict == WAL_FENCED)
        tell_status(c, token, STATUS_FENCED, NULL);
    else if (wal_producers_landed(table, m->producer, (uint32_t)m->epoch, m->sequence))
        tell_status(c, token, STATUS_LANDED_SOMEWHERE, NULL);
    else
        tell_status(c, token, forgotten ? STATUS_FORGOTTEN : STATUS_NOT_YET, NULL);
}

/* Hands out the loss frame, refuses it, or leaves it waiting for the next segment. */
static void try_loss(struct wal_core *c, int64_t now_real_ns)
{
    bool needs_roll = !fits(c, c->loss.len);
    if (c->read_only) {
        buf_free(&c->loss);
        c->actions.loss_refused(c->actions.arg, SH_READ_ONLY, c->reason);
        return;
    }
    if (c->held_back || (needs_roll && c->next == WAL_NEXT_PREPARING))
        return;
    if (needs_roll && c->next == WAL_NEXT_DISK_FULL) {
        buf_free(&c->loss);
        c->actions.loss_refused(c->actions.arg, SH_DISK_FULL, "no room for another segment");
        return;
    }
    if (needs_roll)
        roll(c, now_real_ns);
    struct wal_frame *frame = new_frame(c, FRAME_LOSS, buf_slice(&c->loss), now_real_ns);
    frame->owned = c->loss.data;
    c->loss = (struct buf){0};
    wal_state_apply(&c->state, &frame->header, frame->body);
    hand_out(c, frame);
    c->loss_end = c->position;
}

void wal_core_accept_loss(struct wal_core *c, struct slice body, int64_t now_real_ns)
{
    assert(c->loss.len == 0 && c->loss_end == 0 && body.len > 0);
    buf_append(&c->loss, body.data, body.len);
    try_loss(c, now_real_ns);
}

enum sh_error wal_core_clock(struct wal_core *c, struct slice body, int64_t now_real_ns, uint64_t *hlc)
{
    bool needs_roll = !fits(c, body.len);
    if (body.len > frame_body_most(c->segment_size))
        return SH_TOO_LARGE;
    if (c->read_only)
        return SH_READ_ONLY;
    if (needs_roll && c->next == WAL_NEXT_DISK_FULL)
        return SH_DISK_FULL;
    if (c->held_back || c->stalls.first != NULL || (needs_roll && c->next != WAL_NEXT_READY))
        return SH_UNAVAILABLE;
    if (needs_roll)
        roll(c, now_real_ns);
    uint8_t *bytes = xmalloc(body.len + 1);
    memcpy(bytes, body.data, body.len);
    struct wal_frame *frame = new_frame(c, FRAME_CLOCK, slice_of(bytes, body.len), now_real_ns);
    frame->owned = bytes;
    *hlc = frame->header.hlc;
    wal_state_apply(&c->state, &frame->header, frame->body);
    hand_out(c, frame);
    return SH_OK;
}

/* What waits for a segment is taken or refused, as far as that can be. */
static void go_on(struct wal_core *c, int64_t now_real_ns)
{
    if (c->loss.len > 0)
        try_loss(c, now_real_ns);
    while (c->stalls.first != NULL) {
        struct wal_stall *stall = c->stalls.first;
        if (!try_append(c, stall->token, &stall->request, stall->times, now_real_ns))
            return;
        c->stalled_bytes -= stall->request.entries.len;
        wal_stalls_pop(&c->stalls);
    }
}

void wal_core_next_segment(struct wal_core *c, enum wal_next next, int64_t now_real_ns)
{
    assert(c->next != WAL_NEXT_READY);
    c->next = next;
    c->was_full = c->was_full && next != WAL_NEXT_READY;
    note_writes(c);
    go_on(c, now_real_ns);
}

void wal_core_refuse_writes(struct wal_core *c, const char *reason)
{
    if (!c->given_up)
        snprintf(c->reason, sizeof c->reason, "%s", reason);
    c->read_only = true;
    note_writes(c);
    go_on(c, 0); /* nothing of it is taken */
    assert(c->stalls.first == NULL && c->loss.len == 0);
}

void wal_core_allow_writes(struct wal_core *c)
{
    c->read_only = c->given_up;
    note_writes(c);
}

void wal_core_give_up_writes(struct wal_core *c, const char *reason)
{
    c->given_up = false;
    wal_core_refuse_writes(c, reason);
    c->given_up = true;
}

/* Who waits for more than there is now hears of it: what it has read behind that is old. */
void wal_core_moved(struct wal_core *c, const struct wal_durable *durable)
{
    bool all = durable->end < c->durable.end;
    assert(c->given_up && c->waiters.count == 0);
    c->durable = *durable;
    c->position = durable->end;
    settle(c);
    answer_polls(c, all);
}

enum wal_back wal_core_judge_back(const struct wal_core *c, struct id16 producer, uint32_t epoch,
                                  uint64_t sequence)
{
    struct wal_answer answer;
    uint64_t expected;
    if (wal_producers_landed(c->state.producers, producer, epoch, sequence))
        return WAL_BACK_THERE;
    return wal_producers_judge(c->state.producers, producer, epoch, sequence, &answer, &expected) == WAL_NEW
               ? WAL_BACK_NEW
               : WAL_BACK_OTHER;
}

bool wal_core_append_back(struct wal_core *c, const struct frame_header *header, struct slice body,
                          int64_t now_real_ns)
{
    bool needs_roll = !fits(c, body.len);
    assert(c->held_back && body.len <= frame_body_most(c->segment_size));
    c->back_waits = needs_roll && c->next != WAL_NEXT_READY;
    if (c->back_waits)
        go_on(c, now_real_ns); /* on a full disk nobody waits for this */
    if (c->back_waits || c->read_only)
        return false;
    if (needs_roll)
        roll(c, now_real_ns);
    uint8_t *bytes = xmalloc(body.len + 1);
    memcpy(bytes, body.data, body.len);
    struct wal_frame *frame = new_frame(c, FRAME_DATA, slice_of(bytes, body.len), now_real_ns);
    frame->owned = bytes;
    frame->header.count = header->count;
    frame->header.producer = header->producer;
    frame->header.epoch = header->epoch;
    frame->header.sequence = header->sequence;
    wal_recent_note_all(c->recent, body, frame->header.base_lsn);
    wal_state_apply(&c->state, &frame->header, frame->body);
    hand_out(c, frame);
    return true;
}

void wal_core_hold_back(struct wal_core *c)
{
    c->held_back = true;
}

void wal_core_let_go(struct wal_core *c, int64_t now_real_ns)
{
    c->held_back = c->back_waits = false;
    go_on(c, now_real_ns);
}

void wal_core_when_settled(struct wal_core *c, struct link_token token)
{
    struct wal_poll poll = {.token = token, .newer_than = c->position};
    wal_polls_add(&c->settling, &poll);
    settle(c);
}

void wal_core_durable(struct wal_core *c, const struct wal_durable *durable)
{
    struct wal_waiter w;
    if (durable->end <= c->durable.end)
        return;
    assert(durable->lsn >= c->durable.lsn);
    c->durable = *durable;
    while (wal_waiters_pop(&c->waiters, durable->lsn, &w)) {
        c->written_bytes -= w.bytes;
        reply_or_wait(c, &w);
    }
    if (c->loss_end > 0 && c->loss_end <= durable->end) {
        c->loss_end = 0;
        c->actions.accepted(c->actions.arg);
    }
    settle(c);
    answer_polls(c, false);
}

const char *wal_core_replicated(struct wal_core *c, uint64_t session, const struct msg_replicated *told)
{
    struct wal_level_wait wait;
    const char *refusal = wal_levels_told(&c->levels, session, told, c->durable.lsn);
    if (refusal == NULL)
        while (wal_levels_pop_reached(&c->levels, &wait))
            reply_to_wait(c, &wait);
    return refusal;
}

void wal_core_end_waits(struct wal_core *c)
{
    struct wal_level_wait wait;
    while (wal_levels_pop_any(&c->levels, &wait))
        reply_to_wait(c, &wait);
}

void wal_core_watermark(struct wal_core *c, struct link_token token, const struct msg_watermark *request,
                        int64_t now_ns)
{
    bool is_news = request->writes != 0 && request->writes != 1 + (uint64_t)c->writes;
    if (request->newer_than < c->durable.end || is_news || request->wait_ms == 0) {
        answer_poll(c, token);
        return;
    }
    struct wal_poll poll = {token, request->newer_than, now_ns + (int64_t)request->wait_ms * NS_PER_MS};
    wal_polls_add(&c->polls, &poll);
}

void wal_core_tick(struct wal_core *c, int64_t now_ns)
{
    for (size_t i = 0; i < c->polls.count;) {
        struct wal_poll poll = c->polls.all[i];
        if (poll.due_ns > now_ns) {
            i++;
            continue;
        }
        wal_polls_remove(&c->polls, i);
        answer_poll(c, poll.token);
    }
    struct wal_level_wait wait;
    while (wal_levels_pop_due(&c->levels, now_ns, &wait))
        reply_to_wait(c, &wait);
}

int64_t wal_core_due_ns(const struct wal_core *c)
{
    int64_t levels_ns = wal_levels_due_ns(&c->levels), polls_ns = wal_polls_due_ns(&c->polls);
    return levels_ns < polls_ns ? levels_ns : polls_ns;
}

void wal_core_drop(struct wal_core *c, uint64_t session)
{
    c->stalled_bytes -= wal_stalls_drop(&c->stalls, session);
    wal_waiters_drop(&c->waiters, session);
    wal_levels_drop(&c->levels, session);
    wal_polls_drop(&c->polls, session);
    wal_polls_drop(&c->settling, session);
}

struct wal_core_stats wal_core_stats(const struct wal_core *c)
{
    return (struct wal_core_stats){
        .next_lsn = c->state.next_lsn,
        .frames = c->state.frames,
        .durable_end = c->durable.end,
        .durable_lsn = c->durable.lsn,
        .position = c->position,
        .queued_bytes = c->written_bytes + c->stalled_bytes,
        .waiting = c->waiters.count,
        .stalled = c->stalls.count,
        .waiting_for_others = c->levels.by_due.count,
        .producers = wal_producers_count(c->state.producers),
        .next = c->next,
        .writes = c->writes,
    };
}
