/* Streams as clients see them. The view's rows say which events come next (view_events.h); what they hold is
 * read from the segment files, those that stand side by side in a log in one go.
 *
 *               on_stream ──► ready ──► answered
 *                              │  ▲
 *     nothing to read, or the  ▼  │  more is applied, or the wait is over
 *     token is not applied    parked
 *
 * As with reads of logs, a session gets no further answer before it has fetched what it has, and damage is
 * told only once walsvc was asked how far the log is: it may have been cut there. */
#include "query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "query_token.h"
#include "view.h"
#include "view_events.h"

enum {
    ANSWER_MAX = 1 << 20,
    UNFETCHED_MAX = 2 << 20, /* of one session */
    ASKS_MAX = 4096,
    ASKS_A_ROUND = 8,         /* then other work gets its turn */
    JUMPS_MAX = 256,          /* places in the segment files that one answer looks at */
    WINDOW_BYTES = 256 << 10, /* frames read at a time, unless a single one is larger */
    GAPS_MAX = 256,
    PROBE_MS = 100,    /* how long walsvc's word is waited for */
    LOOKS_MAX = 20000, /* rows that one list looks at */
};

struct ask {
    struct ask *next;
    struct link_token token;
    uint32_t type;
    struct buf body;      /* a copy */
    int64_t due_ns;       /* when to answer that there is nothing */
    int64_t after_due_ns; /* or that the token is not applied */
    int64_t probe_due_ns; /* damage was met: walsvc's word is waited for until then; 0: it was not */
    bool asked;           /* walsvc, how far the logs are: what it waits for may be durable already */
};

struct ask_list {
    struct ask *head, **tail;
};

struct query_streams {
    struct ask_list ready, parked;
    size_t count;
    struct loop_hook hook;
    struct loop_timer again, overdue;
    struct view_events events; /* scratch of one answer, as are: */
    struct view_vector position;
    struct buf packed, gaps, token;
};

static void list_init(struct ask_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_put(struct ask_list *list, struct ask *a)
{
    a->next = NULL;
    *list->tail = a;
    list->tail = &a->next;
}

static struct ask *list_take(struct ask_list *list)
{
    struct ask *a = list->head;
    if (a == NULL)
        return NULL;
    list->head = a->next;
    if (list->head == NULL)
        list->tail = &list->head;
    return a;
}

static void ask_free(struct query_streams *s, struct ask *a)
{
    buf_free(&a->body);
    free(a);
    s->count--;
}

/* ---------------------------------------------------------------- events out of frames */

/* What is gathered for one answer. */
struct answering {
    struct query *q;
    struct ask *ask;
    struct slice stream;
    uint64_t max_bytes, max_events;
    struct view_vector *position; /* all of the stream up to there is in the answer, or told to be missing */
    msgpack_packer pk, gap_pk;
    struct buf *packed, *gaps;
    uint32_t count, gap_count;
    bool is_full;
    enum sh_error error; /* what ended it early; with text */
    char text[200];
};

static void stop(struct answering *a, enum sh_error error, const char *text)
{
    a->error = error;
    snprintf(a->text, sizeof a->text, "%s", text);
}

static void pack_gap(struct answering *a, struct id16 log, uint64_t from, uint64_t next, enum sh_error code,
                     const char *text)
{
    msgpack_pack_array(&a->gap_pk, 5);
    mp_pack_bin(&a->gap_pk, slice_of(log.bytes, sizeof log.bytes));
    msgpack_pack_uint64(&a->gap_pk, from);
    msgpack_pack_uint64(&a->gap_pk, next);
    msgpack_pack_uint64(&a->gap_pk, code);
    mp_pack_cstr(&a->gap_pk, text);
    a->gap_count++;
    a->is_full = a->is_full || a->gap_count >= GAPS_MAX;
}

static void pack_event(struct answering *a, struct id16 log, uint64_t lsn, uint64_t hlc,
                       const struct entry *e)
{
    msgpack_pack_array(&a->pk, 5);
    mp_pack_bin(&a->pk, slice_of(log.bytes, sizeof log.bytes));
    msgpack_pack_uint64(&a->pk, lsn);
    msgpack_pack_uint64(&a->pk, hlc);
    mp_pack_bin(&a->pk, e->value);
    if (e->headers.len > 0)
        mp_pack_raw(&a->pk, e->headers);
    else
        msgpack_pack_nil(&a->pk);
    a->count++;
    a->is_full = a->is_full || a->packed->len >= a->max_bytes || a->count >= a->max_events;
}

/* Takes a frame's events from *lsn to last. False: they are not what the view says. */
static bool take_frame(struct answering *a, struct id16 log, const struct frame_header *h, struct slice body,
                       uint64_t *lsn, uint64_t last)
{
    struct mp m = mp_of(body);
    struct entry e;
    uint32_t count;
    if (!entries_open(&m, &count))
        return false;
    for (uint64_t at = h->base_lsn; at < h->base_lsn + count && at <= last && !a->is_full; at++) {
        if (entry_next(&m, &e) != SH_OK)
            return false;
        if (at < *lsn)
            continue;
        if (e.kind != ENTRY_EVENT || !slice_equal(e.stream, a->stream))
            return false;
        pack_event(a, log, at, h->hlc, &e);
        *lsn = at + 1;
    }
    return true;
}

static bool take_frames(struct answering *a, struct id16 log, struct slice frames, uint64_t *lsn,
                        uint64_t last)
{
    struct frame_header h;
    while (frames.len >= FRAME_HEADER_BYTES && *lsn <= last && !a->is_full) {
        if (frame_header_decode(slice_of(frames.data, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h) != SH_OK ||
            h.body_bytes > frames.len - FRAME_HEADER_BYTES ||
            !take_frame(a, log, &h, slice_of(frames.data + FRAME_HEADER_BYTES, h.body_bytes), lsn, last))
            return false;
        frames.data += FRAME_HEADER_BYTES + h.body_bytes;
        frames.len -= FRAME_HEADER_BYTES + h.body_bytes;
    }
    return true;
}

/* Runs of one log that stand side by side. */
struct stretch {
    struct id16 log;
    uint64_t lsn, last; /* the next LSN that is wanted, and the last one */
    const struct view_events_run *runs;
    size_t count;
};

/* Where to go on when the read of s->lsn failed: behind what is missing, but at least behind its run. */
static uint64_t behind_missing(const struct stretch *s, uint64_t told)
{
    if (told > s->lsn)
        return told;
    for (size_t i = 0; i < s->count; i++) {
        const struct view_run *run = &s->runs[i].run;
        if (s->lsn >= run->lsn && s->lsn < run->lsn + run->count)
            return run->lsn + run->count;
    }
    return s->last + 1;
}

/* A part of a log cannot be read: names it, and goes on behind it. */
static void miss(struct answering *a, struct stretch *s, enum sh_error code, uint64_t told, const char *text)
{
    uint64_t next = behind_missing(s, told);
    pack_gap(a, s->log, s->lsn, next, code, text);
    view_pass(a->position, s->log, next - 1);
    s->lsn = next;
}

/* True: walsvc is to be asked first. */
static bool must_confirm(struct answering *a, const struct stretch *s)
{
    struct query *q = a->q;
    bool own = id16_equal(s->log, q->own.id);
    if (a->ask->probe_due_ns != 0 || query_probe(q, own ? &q->probes : &q->copies.probes) == 0)
        return false;
    a->ask->probe_due_ns = loop_now_ns(q->service->loop) + (int64_t)PROBE_MS * NS_PER_MS;
    return true;
}

static void on_failed_read(struct answering *a, struct stretch *s, enum sh_error e,
                           const struct log_read *read)
{
    char text[120];
    if (e == SH_TRIMMED) {
        snprintf(text, sizeof text, "the first LSN left is %" PRIu64, read->first_lsn);
        miss(a, s, e, read->first_lsn, text);
    } else if (e == SH_CORRUPT && must_confirm(a, s)) {
        stop(a, SH_CORRUPT, "");
    } else if (e == SH_CORRUPT) {
        snprintf(text, sizeof text, "damage in %s at offset %" PRIu64, read->bad_file, read->bad_offset);
        miss(a, s, e, read->good_lsn, text);
    } else if (e == SH_NOT_FOUND || e == SH_OK) {
        stop(a, SH_UNAVAILABLE, "it is not known yet how far a log is");
    } else {
        stop(a, e, "a log cannot be read");
    }
}

/* One read of the log. */
static void read_some(struct answering *a, struct stretch *s, const struct query_log *log)
{
    struct query *q = a->q;
    struct log_read read = {
        .from = s->lsn,
        .durable_end = log->durable_end,
        .durable_lsn = log->durable_lsn,
        .max_bytes = WINDOW_BYTES,
        .max_entries = s->last - s->lsn + 1,
    };
    q->frames.len = 0;
    enum sh_error e = reader_pool_read(&q->readers, s->log, &read, &q->frames);
    if (e != SH_OK || q->frames.len == 0) {
        on_failed_read(a, s, e, &read);
        return;
    }
    if (take_frames(a, s->log, buf_slice(&q->frames), &s->lsn, s->last))
        return;
    log_warn("a log does not hold what the view says", log_uint("lsn", s->lsn));
    stop(a, SH_UNAVAILABLE,
         "a log does not hold what the view says: its node's disk was set back, and the "
         "view is being made again");
}

static void take_stretch(struct answering *a, struct stretch *s)
{
    const struct view_place *passed = view_place_of(a->position, s->log);
    const struct query_log *log = query_find_log(a->q, s->log);
    if (passed != NULL && passed->lsn >= s->lsn)
        s->lsn = passed->lsn + 1;
    if (log == NULL && !a->q->copies.known)
        stop(a, SH_UNAVAILABLE, "walsvc has not said yet which copies there are");
    else if (log == NULL && s->lsn <= s->last)
        miss(a, s, SH_TRIMMED, s->last + 1, "this node does not hold the log any more");
    while (log != NULL && s->lsn <= s->last && !a->is_full && a->error == SH_OK)
        read_some(a, s, log);
}

/* ---------------------------------------------------------------- one answer of events */

static size_t stretch_of(const struct view_events *events, size_t first, struct stretch *out)
{
    const struct view_events_run *run = &events->runs[first];
    *out = (struct stretch){.log = run->log, .lsn = run->run.lsn, .runs = run};
    size_t at = first;
    do
        out->last = events->runs[at].run.lsn + events->runs[at].run.count - 1;
    while (++at < events->run_count && id16_equal(events->runs[at].log, run->log) &&
           events->runs[at].run.lsn == out->last + 1);
    out->count = at - first;
    return at;
}

static void lower(struct view_vector *vector, struct id16 log, uint64_t lsn)
{
    for (size_t i = 0; i < vector->count; i++)
        if (id16_equal(vector->all[i].log, log) && vector->all[i].lsn >= lsn)
            vector->all[i].lsn = lsn - 1;
}

/* Raises the position to what the answer has: all that is applied, but for what begins with `left` and with
 * the runs from `at` on. */
static bool raise_position(struct view_vector *position, const struct view_events *events,
                           const struct stretch *left, size_t at)
{
    struct view_vector reached = events->applied;
    if (left->lsn <= left->last)
        lower(&reached, left->log, left->lsn);
    for (; at < events->run_count; at++)
        lower(&reached, events->runs[at].log, events->runs[at].run.lsn);
    for (size_t i = 0; i < events->rest_count; i++)
        lower(&reached, events->rest[i].log, events->rest[i].run.lsn);
    for (size_t i = 0; i < reached.count; i++)
        if (view_pass(position, reached.all[i].log, reached.all[i].lsn) != SH_OK)
            return false;
    return true;
}

/* False: more is left. */
static bool take_events(struct answering *a, const struct view_events *events)
{
    struct stretch s = {.lsn = 1};
    size_t at = 0;
    char text[64];
    for (size_t i = 0; i < events->gone_count; i++) {
        const struct view_gone *gone = &events->gone[i];
        snprintf(text, sizeof text, "trimmed up to LSN %" PRIu64, gone->next - 1);
        pack_gap(a, gone->log, gone->from, gone->next, SH_TRIMMED, text);
        view_pass(a->position, gone->log, gone->next - 1);
    }
    while (at < events->run_count && !a->is_full && a->error == SH_OK) {
        at = stretch_of(events, at, &s);
        take_stretch(a, &s);
    }
    if (!raise_position(a->position, events, &s, at))
        stop(a, SH_OVERLOADED, "a position has at most 256 logs");
    return s.lsn > s.last && at == events->run_count && events->rest_count == 0;
}

static void answer_events(struct query *q, struct link_token token, const struct msg_stream_read *m,
                          const struct answering *a, bool more)
{
    struct query_streams *s = q->streams;
    struct buf events = {0}, gaps = {0};
    msgpack_packer pk;
    mp_packer(&pk, &events);
    msgpack_pack_array(&pk, a->count);
    buf_append(&events, s->packed.data, s->packed.len);
    mp_packer(&pk, &gaps);
    msgpack_pack_array(&pk, a->gap_count);
    buf_append(&gaps, s->gaps.data, s->gaps.len);
    s->token.len = 0;
    token_pack(&s->position, &s->token);
    struct msg_stream_read_reply reply = {
        .events = buf_slice(&events), .position = buf_slice(&s->token), .more = more};
    if (a->gap_count > 0)
        reply.gaps = buf_slice(&gaps);
    if (m->after.len > 0)
        reply.applied = query_view_applied(q);
    query_answer(q, token, MSG_stream_read_reply, &reply);
    buf_free(&events);
    buf_free(&gaps);
}

/* Finds what comes next. False: nothing is there, or it was refused: *answered. */
static bool find_events(struct query *q, const struct ask *ask, const struct msg_stream_read *m,
                        bool may_wait, bool *answered)
{
    struct query_streams *s = q->streams;
    char error[VIEW_ERROR_MAX] = "";
    const struct view_events_ask find = {
        .stream = m->stream,
        .position = &s->position,
        .since = m->since,
        .from_end = m->from_end,
        .last = m->last,
        .max_events = m->max_events,
        .max_bytes = m->max_bytes < ANSWER_MAX ? m->max_bytes : ANSWER_MAX,
        .max_jumps = JUMPS_MAX,
    };
    token_read(m->position, &s->position); /* it was looked at when it came */
    if (m->from_end)
        s->position.count = 0;
    struct view_store *store = view_begin_read(query_view_of(q));
    *answered = store == NULL;
    if (store == NULL) {
        query_view_refuse_closed(q, ask->token);
        return false;
    }
    bool is_new = query_view_is_in_store(q, store, m->after, error),
         any = is_new && (!may_wait || view_events_any(store, m->stream, &s->position)),
         good = is_new && (!any || view_events_find(store, &find, &s->events, error));
    view_end_read(query_view_of(q));
    if (!good) {
        query_view_refuse_older(q, ask->token, error);
        *answered = true;
    }
    return good && any;
}

/* False: there is nothing yet, and the reader wants to wait. */
static bool answer_read(struct query *q, struct ask *ask, const struct msg_stream_read *m)
{
    struct query_streams *s = q->streams;
    bool answered, may_wait = !m->from_end && loop_now_ns(q->service->loop) < ask->due_ns;
    struct answering a = {
        .q = q,
        .ask = ask,
        .stream = m->stream,
        .max_bytes = m->max_bytes < ANSWER_MAX ? m->max_bytes : ANSWER_MAX,
        .max_events = m->max_events,
        .position = &s->position,
        .packed = &s->packed,
        .gaps = &s->gaps,
    };
    if (!find_events(q, ask, m, may_wait, &answered))
        return answered;
    s->packed.len = s->gaps.len = 0;
    mp_packer(&a.pk, &s->packed);
    mp_packer(&a.gap_pk, &s->gaps);
    bool is_all = take_events(&a, &s->events), is_empty = a.count == 0 && a.gap_count == 0;
    if (is_empty && a.error == SH_CORRUPT)
        return false; /* looked at again then */
    if (is_empty && a.error != SH_OK)
        query_refuse(q, ask->token, a.error, a.text, 0);
    else if (is_empty && is_all && may_wait)
        return false;
    else
        answer_events(q, ask->token, m, &a, !is_all);
    return true;
}

/* ---------------------------------------------------------------- lists */

struct listed {
    uint64_t events, bytes, hlc;
    uint32_t logs;
};

static bool sum_up(struct slice row, struct listed *out)
{
    struct view_summary summary;
    struct view_part part;
    *out = (struct listed){0};
    if (!view_summary_open(row, &summary))
        return false;
    while (view_summary_next(&summary, &part)) {
        if (part.count == 0)
            continue;
        out->events += part.count;
        out->bytes += part.bytes;
        out->hlc = part.hlc > out->hlc ? part.hlc : out->hlc;
        out->logs++;
    }
    return true;
}

static void pack_stream(msgpack_packer *pk, struct slice name, const struct listed *l)
{
    msgpack_pack_array(pk, 5);
    mp_pack_str(pk, name);
    msgpack_pack_uint64(pk, l->events);
    msgpack_pack_uint64(pk, l->bytes);
    msgpack_pack_uint64(pk, l->hlc);
    msgpack_pack_uint32(pk, l->logs);
}

static struct view_scan *open_list(struct view_store *store, const struct msg_stream_list *m)
{
    struct buf from = {0}, prefix = {0}, to = {0};
    view_key_row(VIEW_STREAM, m->prefix, &prefix);
    view_key_row(VIEW_STREAM, m->from, &from);
    view_prefix_end(buf_slice(&prefix), &to);
    size_t len = from.len < prefix.len ? from.len : prefix.len;
    int order = memcmp(from.data, prefix.data, len);
    bool is_before = order < 0 || (order == 0 && from.len < prefix.len);
    struct view_scan *scan =
        view_scan_open(store, is_before ? buf_slice(&prefix) : buf_slice(&from), buf_slice(&to));
    buf_free(&from);
    buf_free(&prefix);
    buf_free(&to);
    return scan;
}

/* Packs streams; next: the name that it stopped before, empty with *more false. */
static uint32_t list(struct view_scan *scan, const struct msg_stream_list *m, struct buf *packed,
                     struct buf *next, bool *more, char error[VIEW_ERROR_MAX])
{
    msgpack_packer pk;
    struct slice key, row;
    struct listed listed;
    uint32_t count = 0;
    unsigned looks = 0;
    mp_packer(&pk, packed);
    *more = false;
    while (!*more && view_scan_next(scan, &key, &row, error)) {
        struct slice name = slice_of(key.data + 1, key.len - 1);
        *more = count == m->most || packed->len >= ANSWER_MAX || looks++ == LOOKS_MAX;
        if (*more) {
            buf_append(next, name.data, name.len);
        } else if (!sum_up(row, &listed)) {
            snprintf(error, VIEW_ERROR_MAX, "a stream's summary is malformed");
            return count;
        } else if (listed.events > 0) {
            pack_stream(&pk, name, &listed);
            count++;
        }
    }
    return count;
}

static void answer_list(struct query *q, const struct ask *ask, const struct msg_stream_list *m)
{
    struct query_streams *s = q->streams;
    char error[VIEW_ERROR_MAX] = "";
    struct buf streams = {0}, next = {0};
    msgpack_packer pk;
    struct view_store *store = view_begin_read(query_view_of(q));
    if (store == NULL) {
        query_view_refuse_closed(q, ask->token);
        return;
    }
    if (!query_view_is_in_store(q, store, m->after, error)) {
        view_end_read(query_view_of(q));
        query_view_refuse_older(q, ask->token, error);
        return;
    }
    struct view_scan *scan = open_list(store, m);
    struct msg_stream_list_reply reply = {0};
    s->packed.len = 0;
    uint32_t count = list(scan, m, &s->packed, &next, &reply.more, error);
    view_scan_close(scan);
    view_end_read(query_view_of(q));
    mp_packer(&pk, &streams);
    msgpack_pack_array(&pk, count);
    buf_append(&streams, s->packed.data, s->packed.len);
    reply.streams = buf_slice(&streams);
    reply.next = buf_slice(&next);
    if (m->after.len > 0)
        reply.applied = query_view_applied(q);
    if (error[0] != 0)
        query_view_fail(q, ask->token, error);
    else
        query_answer(q, ask->token, MSG_stream_list_reply, &reply);
    buf_free(&streams);
    buf_free(&next);
}

/* ---------------------------------------------------------------- asks, one after the other */

union any_ask {
    struct msg_stream_read read;
    struct msg_stream_list list;
};

static struct slice after_of(const struct ask *ask, const union any_ask *m)
{
    return ask->type == MSG_stream_read ? m->read.after : m->list.after;
}

/* False: it waits. */
static bool answer(struct query *q, struct ask *ask)
{
    union any_ask m;
    msg_decode(ask->type, buf_slice(&ask->body), &m); /* it was, when it came */
    const struct view_vector *applied = &query_view_state(q)->applied;
    struct slice after = query_group_token(q, applied, after_of(ask, &m));
    if (token_is_applied(applied, after) == 0) {
        if (loop_now_ns(q->service->loop) < ask->after_due_ns)
            return false;
        query_view_refuse_late(q, ask->token, after);
        return true;
    }
    if (loop_now_ns(q->service->loop) < ask->probe_due_ns)
        return false;
    if (ask->type == MSG_stream_read)
        return answer_read(q, ask, &m.read);
    answer_list(q, ask, &m.list);
    return true;
}

static void arm_overdue(struct query *q)
{
    struct query_streams *s = q->streams;
    int64_t due_ns = INT64_MAX;
    int64_t now_ns = loop_now_ns(q->service->loop);
    for (const struct ask *a = s->parked.head; a != NULL; a = a->next) {
        const int64_t dues[] = {a->due_ns, a->after_due_ns, a->probe_due_ns};
        for (size_t i = 0; i < sizeof dues / sizeof dues[0]; i++)
            if (dues[i] > now_ns && dues[i] < due_ns)
                due_ns = dues[i];
    }
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &s->overdue);
    else
        loop_timer_set(q->service->loop, &s->overdue, due_ns);
}

static void park(struct query *q, struct ask *a)
{
    list_put(&q->streams->parked, a);
    if (!a->asked)
        query_probe(q, &q->copies.probes);
    a->asked = true;
}

/* One round: a bounded number of them. */
static void run_asks(void *arg)
{
    struct query *q = arg;
    struct query_streams *s = q->streams;
    struct ask_list held;
    struct ask *a;
    bool parked = false;
    list_init(&held);
    for (int budget = ASKS_A_ROUND; budget > 0 && (a = list_take(&s->ready)) != NULL; budget--) {
        if (link_server_unfetched(q->server, a->token.session) > UNFETCHED_MAX) {
            list_put(&held, a); /* looked at again when something happens, its fetching for one */
        } else if (answer(q, a)) {
            ask_free(s, a);
        } else {
            park(q, a);
            parked = true;
        }
    }
    if (s->ready.head != NULL)
        loop_timer_after(q->service->loop, &s->again, 0);
    while ((a = list_take(&held)) != NULL)
        list_put(&s->ready, a);
    if (parked)
        arm_overdue(q);
}

void query_streams_wake(struct query *q)
{
    struct query_streams *s = q->streams;
    struct ask *a;
    while ((a = list_take(&s->parked)) != NULL)
        list_put(&s->ready, a);
}

static void on_overdue(void *arg)
{
    query_streams_wake(arg); /* those that are not due are parked again */
}

static void on_again(void *arg)
{
    (void)arg; /* the round's hook goes on with the work */
}

/* NULL, or what is wrong. */
static const char *check(const struct link_request *request, union any_ask *m, enum sh_error *code)
{
    static const struct view_vector nothing;
    struct view_vector position;
    *code = msg_decode(request->type, request->body, m);
    if (*code != SH_OK)
        return "malformed";
    *code = SH_BAD_REQUEST;
    bool is_read = request->type == MSG_stream_read;
    if (token_is_applied(&nothing, is_read ? m->read.after : m->list.after) < 0)
        return "a malformed token";
    if (is_read && !token_read(m->read.position, &position))
        return "a malformed position";
    if (is_read && !utf8_valid(m->read.stream))
        return "a stream's name is UTF-8";
    if (is_read ? m->read.max_events == 0 : m->list.most == 0)
        return is_read ? "no events are asked for" : "no streams are asked for";
    return NULL;
}

static int64_t due_after(const struct query *q, uint64_t ms)
{
    return loop_now_ns(q->service->loop) + (int64_t)ms * NS_PER_MS;
}

void query_on_stream(struct query *q, const struct link_request *request)
{
    struct query_streams *s = q->streams;
    union any_ask m;
    enum sh_error code;
    if (query_view_refuse_absent(q, request->token))
        return;
    const char *wrong = check(request, &m, &code);
    if (wrong == NULL && s->count == ASKS_MAX) {
        wrong = "too many requests read streams";
        code = SH_OVERLOADED;
    }
    if (wrong != NULL) {
        query_refuse(q, request->token, code, wrong, 0);
        return;
    }
    bool is_read = request->type == MSG_stream_read;
    if (is_read && !query_group_check(q, request->token, GROUP_STREAM, m.read.stream))
        return;
    struct ask *a = xcalloc(1, sizeof *a);
    a->token = request->token;
    a->type = request->type;
    a->due_ns = due_after(q, is_read ? m.read.wait_ms : 0);
    a->after_due_ns = due_after(q, is_read ? m.read.after_wait_ms : m.list.wait_ms);
    buf_append(&a->body, request->body.data, request->body.len);
    list_put(&s->ready, a);
    s->count++;
}

static void drop_from(struct query_streams *s, struct ask_list *list, uint64_t session)
{
    struct ask_list keep;
    struct ask *a;
    list_init(&keep);
    while ((a = list_take(list)) != NULL)
        if (a->token.session == session)
            ask_free(s, a);
        else
            list_put(&keep, a);
    while ((a = list_take(&keep)) != NULL)
        list_put(list, a);
}

void query_streams_drop(struct query *q, uint64_t session)
{
    drop_from(q->streams, &q->streams->ready, session);
    drop_from(q->streams, &q->streams->parked, session);
}

void query_streams_open(struct query *q)
{
    struct query_streams *s = xcalloc(1, sizeof *s);
    q->streams = s;
    list_init(&s->ready);
    list_init(&s->parked);
    s->hook = (struct loop_hook){.fn = run_asks, .arg = q};
    s->again = (struct loop_timer){.fn = on_again};
    s->overdue = (struct loop_timer){.fn = on_overdue, .arg = q};
    loop_hook_add(q->service->loop, &s->hook);
}

void query_streams_close(struct query *q)
{
    struct query_streams *s = q->streams;
    struct ask *a;
    loop_hook_remove(q->service->loop, &s->hook);
    loop_timer_cancel(q->service->loop, &s->again);
    loop_timer_cancel(q->service->loop, &s->overdue);
    query_streams_wake(q);
    while ((a = list_take(&s->ready)) != NULL)
        ask_free(s, a);
    buf_free(&s->packed);
    buf_free(&s->gaps);
    buf_free(&s->token);
    free(s);
    q->streams = NULL;
}
