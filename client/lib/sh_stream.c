/* Streams: events come in answers of up to fetch_bytes, with the position to go on at. Without a session the
 * next answer is asked for while one is consumed. Nothing here is fatal.
 *
 *   fetch ──► answer ──► events, and gaps where some are missing ──► the caller
 *     ▲          │
 *     └──────────┘ */
#include "sh_internal.h"

#include "hlc.h"
#include "log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FETCH_BYTES = 1 << 20,
    FOLLOW_WAIT_MS = 5000,
    LAST_MAX = 1000000,
    LIST_STREAMS = 1000,
    LIST_STREAMS_MAX = 10000,
    EVENT_PARTS = 5,
    GAP_PARTS = 5,
    STREAM_PARTS = 5,
};

struct gap {
    struct id16 log;
    uint64_t from, next;
    enum sh_error code;
    struct slice text; /* in the answer */
    bool told;
};

struct sh_stream {
    struct sh_client *client;
    char *name;
    uint64_t since; /* HLC */
    bool follow, from_end;
    uint32_t last, fetch_bytes;
    struct sh_session *session;  /* the caller's */
    struct sh_session *position; /* where the caller stands */
    struct sh_session *fetched;  /* where the answers that were asked for end */

    struct shc_call call; /* the fetch */
    bool fetching;

    struct buf answer; /* being consumed */
    struct mp events;
    uint32_t events_left;
    struct gap *gaps;
    size_t gap_count, gaps_left;
    bool consuming, at_end; /* at_end: there is nothing behind the answer */
    struct sh_gap gap;      /* the last one that was told */
};

static enum sh_error fail(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

/* ---------------------------------------------------------------- life */

static enum sh_error check_name(const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;
    if (len > STREAM_NAME_MAX)
        return fail(SH_TOO_LARGE, "a stream's name has at most 255 bytes");
    return len == 0 || utf8_valid(slice_of(name, len)) ? SH_OK
                                                       : fail(SH_BAD_REQUEST, "a stream's name is UTF-8");
}

enum sh_error sh_stream_open(struct sh_client *c, const struct sh_stream_options *o,
                             struct sh_stream **stream)
{
    enum sh_error e = check_name(o->stream);
    if (e != SH_OK)
        return e;
    if (o->last > LAST_MAX)
        return fail(SH_BAD_REQUEST, "at most 1,000,000 events before the end");
    struct sh_stream *s = xcalloc(1, sizeof *s);
    s->name = xstrdup(o->stream != NULL ? o->stream : "");
    s->client = shc_client_wait(c, GROUP_STREAM, slice_str(s->name));
    s->since = hlc_of_ms(o->since_ms);
    s->follow = o->follow;
    s->from_end = o->from_end;
    s->last = o->last;
    s->fetch_bytes = o->fetch_bytes > 0 ? o->fetch_bytes : FETCH_BYTES;
    s->session = o->session;
    s->position = sh_session_new();
    s->fetched = sh_session_new();
    if (o->from != NULL && !o->from_end)
        shc_session_copy(s->position, o->from);
    shc_session_copy(s->fetched, s->position);
    *stream = s;
    return SH_OK;
}

void sh_stream_close(struct sh_stream *s)
{
    if (s == NULL)
        return;
    if (s->fetching)
        shc_call_stop(s->client, &s->call);
    shc_call_free(&s->call);
    buf_free(&s->answer);
    sh_session_free(s->position);
    sh_session_free(s->fetched);
    free(s->gaps);
    free(s->name);
    free(s);
}

const struct sh_session *sh_stream_position(const struct sh_stream *s)
{
    return s->position;
}

void sh_stream_gap(const struct sh_stream *s, struct sh_gap *gap)
{
    *gap = s->gap;
}

/* ---------------------------------------------------------------- fetching */

static void fetch(struct sh_stream *s)
{
    struct buf position = {0}, token = {0};
    uint64_t timeout_ms = s->client->options.timeout_ms, most_ms = timeout_ms - timeout_ms / 10;
    uint64_t token_ms = s->session == NULL ? 0 : most_ms < 60000 ? most_ms : 60000;
    shc_session_pack(s->fetched, &position);
    shc_session_pack(s->session, &token);
    const struct msg_stream_read m = {
        .stream = slice_str(s->name),
        .position = buf_slice(&position),
        .since = s->since,
        .from_end = s->from_end,
        .last = s->from_end ? s->last : 0,
        .max_bytes = s->fetch_bytes,
        .max_events = UINT64_MAX,
        .wait_ms = s->follow ? FOLLOW_WAIT_MS : 0,
        .after = buf_slice(&token),
        .after_wait_ms = token_ms,
    };
    s->call.type = MSG_stream_read;
    s->call.reply_type = MSG_stream_read_reply;
    s->call.deadline_ns = s->follow ? INT64_MAX : clock_mono_ns() + (int64_t)timeout_ms * NS_PER_MS;
    s->call.body.len = 0;
    msg_encode(MSG_stream_read, &m, &s->call.body);
    buf_free(&position);
    buf_free(&token);
    shc_call_start(s->client, &s->call);
    s->fetching = true;
}

/* After an error: the next fetch starts where the caller stands. */
static void start_over(struct sh_stream *s)
{
    if (s->fetching)
        shc_call_stop(s->client, &s->call);
    s->fetching = s->consuming = s->at_end = false;
    s->events_left = 0;
    s->gaps_left = 0;
    shc_session_copy(s->fetched, s->position);
}

static bool take_log(struct mp *m, struct id16 *log)
{
    struct slice uuid;
    if (!mp_bin(m, &uuid) || uuid.len != sizeof log->bytes)
        return false;
    memcpy(log->bytes, uuid.data, uuid.len);
    return true;
}

static bool decode_gap(struct mp *m, struct gap *out)
{
    uint32_t parts;
    uint64_t code;
    *out = (struct gap){0};
    if (!mp_array(m, &parts) || parts != GAP_PARTS || !take_log(m, &out->log) || !mp_uint(m, &out->from) ||
        !mp_uint(m, &out->next) || !mp_uint(m, &code) || !mp_str(m, &out->text) || out->next <= out->from)
        return false;
    out->code = code == SH_TRIMMED ? SH_TRIMMED : SH_CORRUPT;
    return true;
}

static bool take_gaps(struct sh_stream *s, struct slice list)
{
    struct mp m = mp_of(list);
    uint32_t count = 0;
    s->gap_count = s->gaps_left = 0;
    if (list.len == 0)
        return true;
    if (!mp_array(&m, &count))
        return false;
    s->gaps = xrealloc(s->gaps, ((size_t)count + 1) * sizeof *s->gaps);
    for (uint32_t i = 0; i < count; i++)
        if (!decode_gap(&m, &s->gaps[i]))
            return false;
    s->gap_count = s->gaps_left = count;
    return true;
}

/* Makes the answer that has come the one that is consumed, and asks for the next. */
static enum sh_error take_answer(struct sh_stream *s)
{
    struct msg_stream_read_reply reply;
    struct buf old = s->answer;
    s->fetching = false;
    if (s->call.error != SH_OK) {
        start_over(s);
        return fail(s->call.error, s->call.detail);
    }
    s->answer = s->call.reply;
    s->call.reply = old;
    bool good = msg_decode(MSG_stream_read_reply, buf_slice(&s->answer), &reply) == SH_OK;
    s->events = mp_of(good ? reply.events : (struct slice){0});
    if (!good || !mp_array(&s->events, &s->events_left) || !take_gaps(s, reply.gaps) ||
        !shc_session_see(s->fetched, reply.position) || !shc_session_see(s->session, reply.applied)) {
        start_over(s);
        return fail(SH_INTERNAL, "the node's answer to a read makes no sense");
    }
    bool is_empty = s->events_left == 0 && s->gaps_left == 0;
    s->consuming = true;
    s->at_end = !reply.more && (s->session == NULL || is_empty); /* or the session has written since */
    s->from_end = false;
    if (s->session == NULL && !is_empty && (reply.more || s->follow))
        fetch(s);
    return SH_OK;
}

static enum sh_error await_answer(struct sh_stream *s, int64_t deadline_ns)
{
    if (!s->fetching)
        fetch(s);
    if (shc_on_own_thread(s->client) && atomic_load(&s->call.done) == 0)
        return fail(SH_BAD_REQUEST, "a callback cannot wait for events");
    if (shc_wait(&s->call.done, 0, s->follow ? deadline_ns : INT64_MAX))
        return take_answer(s);
    if (atomic_load(&s->client->connected))
        return fail(SH_TIMEOUT, "nothing new");
    return fail(SH_UNAVAILABLE, "the node cannot be reached");
}

/* ---------------------------------------------------------------- consuming */

static enum sh_error tell_gap(struct sh_stream *s, struct gap *g)
{
    char uuid[ID_TEXT], text[SHC_DETAIL_MAX];
    id16_format(g->log, uuid);
    snprintf(text, sizeof text, "log %s, LSN %" PRIu64 " to %" PRIu64 ": %.*s", uuid, g->from, g->next - 1,
             (int)(g->text.len < 128 ? g->text.len : 128), (const char *)g->text.data);
    memcpy(s->gap.log, g->log.bytes, sizeof s->gap.log);
    s->gap.from_lsn = g->from;
    s->gap.next_lsn = g->next;
    g->told = true;
    s->gaps_left--;
    shc_session_raise(s->position, g->log, g->next - 1);
    return fail(g->code, text);
}

/* The gap that comes before an event; NULL: none does. lsn UINT64_MAX: the first one of any log. */
static struct gap *gap_before(struct sh_stream *s, struct id16 log, uint64_t lsn)
{
    for (size_t i = 0; i < s->gap_count && s->gaps_left > 0; i++)
        if (!s->gaps[i].told &&
            (lsn == UINT64_MAX || (id16_equal(s->gaps[i].log, log) && s->gaps[i].next <= lsn)))
            return &s->gaps[i];
    return NULL;
}

static bool decode_event(struct mp *m, struct id16 *log, struct sh_event *out)
{
    struct slice payload, headers = {0};
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != EVENT_PARTS || !take_log(m, log) || !mp_uint(m, &out->lsn) ||
        !mp_uint(m, &out->hlc) || !mp_bin(m, &payload) ||
        !(mp_nil(m) || (mp_peek(m) == MP_MAP && mp_raw(m, &headers))))
        return false;
    memcpy(out->log, log->bytes, sizeof out->log);
    out->payload = payload.data;
    out->payload_bytes = payload.len;
    out->headers = headers.data;
    out->headers_bytes = headers.len;
    return true;
}

static enum sh_error next_event(struct sh_stream *s, struct sh_event *event)
{
    struct mp m = s->events;
    struct id16 log;
    *event = (struct sh_event){.kind = SH_ENTRY_EVENT, .stream = s->name, .stream_bytes = strlen(s->name)};
    if (!decode_event(&m, &log, event)) {
        start_over(s);
        return fail(SH_INTERNAL, "the node's answer to a read makes no sense");
    }
    struct gap *gap = gap_before(s, log, event->lsn);
    if (gap != NULL)
        return tell_gap(s, gap);
    s->events = m;
    s->events_left--;
    shc_session_raise(s->position, log, event->lsn);
    shc_session_see_hlc(s->session, event->hlc);
    return SH_OK;
}

enum sh_error sh_stream_next(struct sh_stream *s, uint32_t wait_ms, struct sh_event *event)
{
    int64_t deadline_ns = -1; /* the clock is only read when we have to wait */
    for (;;) {
        if (s->consuming && s->events_left > 0)
            return next_event(s, event);
        if (s->consuming && s->gaps_left > 0)
            return tell_gap(s, gap_before(s, (struct id16){{0}}, UINT64_MAX));
        if (s->consuming) {
            s->consuming = false;
            shc_session_copy(s->position, s->fetched);
            if (s->at_end && !s->follow)
                return fail(SH_NOT_FOUND, "the end of the stream");
        }
        if (deadline_ns < 0)
            deadline_ns = clock_mono_ns() + (int64_t)wait_ms * NS_PER_MS;
        enum sh_error e = await_answer(s, deadline_ns);
        if (e != SH_OK)
            return e;
    }
}

/* ---------------------------------------------------------------- lists */

static char *text_of(struct slice bytes)
{
    char *copy = xmalloc(bytes.len + 1);
    if (bytes.len > 0)
        memcpy(copy, bytes.data, bytes.len);
    copy[bytes.len] = 0;
    return copy;
}

static bool decode_stream(struct mp *m, void *item)
{
    struct sh_stream_info *out = item;
    struct slice name;
    uint32_t parts;
    uint64_t logs;
    if (!mp_array(m, &parts) || parts != STREAM_PARTS || !mp_str(m, &name) || !mp_uint(m, &out->events) ||
        !mp_uint(m, &out->bytes) || !mp_uint(m, &out->hlc) || !mp_uint(m, &logs))
        return false;
    out->logs = (uint32_t)logs;
    out->name = text_of(name);
    out->name_bytes = name.len;
    return true;
}

enum sh_error sh_stream_list(struct sh_client *c, struct sh_session *session,
                             const struct sh_stream_list_options *o, struct sh_streams *streams)
{
    struct shc_call call = {0};
    struct buf token = {0};
    struct msg_stream_list_reply reply;
    uint64_t most_ms = c->options.timeout_ms - c->options.timeout_ms / 10;
    uint32_t most = o->most > 0 ? o->most : LIST_STREAMS;
    memset(streams, 0, sizeof *streams);
    if (o->prefix_bytes > STREAM_NAME_MAX || o->from_bytes > STREAM_NAME_MAX || most > LIST_STREAMS_MAX)
        return fail(SH_TOO_LARGE, "a stream's name has at most 255 bytes, an answer at most 10,000 streams");
    shc_session_pack(session, &token);
    const struct msg_stream_list ask = {
        .prefix = slice_of(o->prefix, o->prefix_bytes),
        .from = slice_of(o->from, o->from_bytes),
        .most = most,
        .after = buf_slice(&token),
        .wait_ms = most_ms < 60000 ? most_ms : 60000,
    };
    enum sh_error e = shc_ask(c, &call, MSG_stream_list, &ask, MSG_stream_list_reply, &reply);
    if (e == SH_OK) {
        const struct shc_items items = shc_items(reply.streams, sizeof *streams->streams, decode_stream);
        streams->streams = items.all;
        streams->count = items.count;
        streams->more = reply.more;
        streams->next = text_of(reply.next);
        streams->next_bytes = reply.next.len;
        if (!items.good || !shc_session_see(session, reply.applied))
            e = fail(SH_INTERNAL, "malformed answer");
    }
    if (e != SH_OK)
        sh_streams_free(streams);
    shc_call_free(&call);
    buf_free(&token);
    return e;
}

void sh_streams_free(struct sh_streams *streams)
{
    for (size_t i = 0; i < streams->count; i++)
        free(streams->streams[i].name);
    free(streams->streams);
    free(streams->next);
    memset(streams, 0, sizeof *streams);
}
