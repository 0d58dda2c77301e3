/* Readers: frames come in answers of up to fetch_bytes; while one is consumed, the next is already asked for.
 *
 *   fetch ──► answer ──► frames ──► entries ──► the caller
 *     ▲          │
 *     └──────────┘ as soon as the answer is taken
 *
 * Every frame's checksum is verified here once more, and that LSNs go on without a gap. Nothing is fatal. */
#include "sh_internal.h"

#include "hlc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FETCH_BYTES = 1 << 20, FOLLOW_WAIT_MS = 5000 };

struct sh_reader {
    struct sh_client *client;
    struct id16 log;
    char *stream; /* NULL: all */
    size_t stream_bytes;
    bool follow;
    uint32_t fetch_bytes;

    uint64_t since; /* HLC: the first entry not older is still to come; 0 for none */

    struct shc_call call; /* the fetch */
    bool fetching;
    uint64_t fetch_from, fetch_since;

    struct buf answer;      /* being consumed */
    struct slice frames;    /* what is left of it */
    struct id16 answer_log; /* the log being read; zero before the first answer */
    uint32_t salt;
    uint64_t hlc; /* of the frame being consumed */
    struct mp entries;
    uint32_t entries_left;
    uint64_t entry_lsn; /* of the next entry in the frame */
    uint64_t next_lsn;  /* of the next entry for the caller */
    bool at_end;        /* the last answer was empty */
};

static enum sh_error fail(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

enum sh_error sh_read_open(struct sh_client *c, const struct sh_read_options *options,
                           struct sh_reader **reader)
{
    uint64_t from = options->from > 0 ? options->from : 1;
    if (options->stream != NULL && strlen(options->stream) > STREAM_NAME_MAX)
        return fail(SH_BAD_REQUEST, "a stream's name has at most 255 bytes");
    if (options->from == UINT64_MAX) {
        uint64_t first, last;
        enum sh_error e = shc_log_ends(c, options->log, &first, &last);
        if (e != SH_OK)
            return e;
        from = last + 1;
    }
    struct sh_reader *r = xcalloc(1, sizeof *r);
    r->client = c;
    memcpy(r->log.bytes, options->log, sizeof r->log.bytes);
    if (options->stream != NULL) {
        r->stream = xstrdup(options->stream);
        r->stream_bytes = strlen(options->stream);
    }
    r->follow = options->follow;
    r->fetch_bytes = options->fetch_bytes > 0 ? options->fetch_bytes : FETCH_BYTES;
    r->next_lsn = r->fetch_from = from;
    r->since = r->fetch_since = hlc_of_ms(options->since_ms);
    *reader = r;
    return SH_OK;
}

uint64_t sh_read_position(const struct sh_reader *r)
{
    return r->next_lsn;
}

void sh_read_close(struct sh_reader *r)
{
    if (r == NULL)
        return;
    if (r->fetching)
        shc_call_stop(r->client, &r->call);
    shc_call_free(&r->call);
    buf_free(&r->answer);
    free(r->stream);
    free(r);
}

/* ---------------------------------------------------------------- fetching */

static void fetch(struct sh_reader *r)
{
    struct msg_read m = {
        .log = r->log,
        .from = r->fetch_from,
        .max_bytes = r->fetch_bytes,
        .max_entries = UINT64_MAX,
        .wait_ms = r->follow ? FOLLOW_WAIT_MS : 0,
        .since = r->fetch_since,
    };
    r->call.type = MSG_read;
    r->call.reply_type = MSG_read_reply;
    r->call.deadline_ns =
        r->follow ? INT64_MAX : clock_mono_ns() + (int64_t)r->client->options.timeout_ms * NS_PER_MS;
    r->call.body.len = 0;
    msg_encode(MSG_read, &m, &r->call.body);
    shc_call_start(r->client, &r->call);
    r->fetching = true;
}

/* After an error: the next fetch starts where the caller stands. */
static void start_over(struct sh_reader *r)
{
    if (r->fetching)
        shc_call_stop(r->client, &r->call);
    r->fetching = false;
    r->frames.len = 0;
    r->entries_left = 0;
    r->fetch_from = r->next_lsn;
    r->fetch_since = r->since;
}

static enum sh_error fetch_failed(struct sh_reader *r)
{
    const struct shc_call *call = &r->call;
    if ((call->error == SH_TRIMMED || call->error == SH_CORRUPT) && call->expected > r->next_lsn)
        r->next_lsn = call->expected;
    start_over(r);
    /* We stood in this log, at its end at most: the node has another one, or lost what we have read. */
    if (call->error == SH_NOT_FOUND && !id16_is_zero(r->answer_log))
        return fail(SH_CONFLICT, call->detail);
    if (call->error == SH_NOT_FOUND && r->follow && call->expected > 0)
        return SH_OK; /* behind the end, which that is: the entries will come */
    return fail(call->error, call->detail);
}

/* Makes the answer that has come the one that is consumed, and asks for the next. */
static enum sh_error take_answer(struct sh_reader *r)
{
    struct msg_read_reply reply;
    struct buf old = r->answer;
    r->fetching = false;
    if (r->call.error != SH_OK)
        return fetch_failed(r);
    r->answer = r->call.reply;
    r->call.reply = old;
    if (msg_decode(MSG_read_reply, buf_slice(&r->answer), &reply) != SH_OK ||
        (reply.frames.len > 0 && reply.next <= r->fetch_from) ||
        (r->fetch_since > 0 && reply.next < r->fetch_from)) {
        start_over(r);
        return fail(SH_INTERNAL, "the node's answer to a read makes no sense");
    }
    if (!id16_is_zero(r->log) && !id16_equal(r->log, reply.log)) {
        start_over(r);
        return fail(SH_CONFLICT, "the node that is there now has another log");
    }
    r->frames = reply.frames;
    r->salt = reply.salt;
    r->log = r->answer_log = reply.log; /* positions of another node's log are other entries */
    r->at_end = reply.frames.len == 0;
    if (!r->at_end) {
        r->fetch_from = reply.next;
        r->fetch_since = 0;
        fetch(r);
    } else if (r->fetch_since > 0) {
        r->fetch_from = r->next_lsn = reply.next; /* all before are older */
    }
    return SH_OK;
}

static enum sh_error await_answer(struct sh_reader *r, int64_t deadline_ns)
{
    if (r->at_end && !r->follow) {
        r->at_end = false; /* a later call looks again */
        return fail(SH_NOT_FOUND, "the end of the log");
    }
    if (!r->fetching)
        fetch(r);
    if (shc_on_own_thread(r->client) && atomic_load(&r->call.done) == 0)
        return fail(SH_BAD_REQUEST, "a callback cannot wait for entries");
    if (shc_wait(&r->call.done, 0, r->follow ? deadline_ns : INT64_MAX))
        return take_answer(r);
    if (atomic_load(&r->client->connected))
        return fail(SH_TIMEOUT, "nothing new");
    return fail(SH_UNAVAILABLE, "the node cannot be reached");
}

/* ---------------------------------------------------------------- consuming */

/* Whether the frame is of the time that was asked for; if so, its entries are the first, unless `from` lies
 * in it. */
static bool reach_time(struct sh_reader *r, const struct frame_header *h)
{
    bool is_older = h->hlc < r->since;
    uint64_t lsn = is_older ? h->base_lsn + h->count : h->base_lsn;
    if (lsn > r->next_lsn)
        r->next_lsn = lsn;
    if (!is_older)
        r->since = 0;
    return !is_older;
}

static enum sh_error open_frame(struct sh_reader *r)
{
    struct frame_header h;
    size_t size;
    if (frame_verify(r->frames, r->salt, FRAME_BYTES_MAX, &h, &size) != SH_OK) {
        start_over(r);
        return fail(SH_CORRUPT, "a frame's checksum was wrong when it arrived");
    }
    r->entries = mp_of(slice_of(r->frames.data + FRAME_HEADER_BYTES, h.body_bytes));
    r->frames = slice_of(r->frames.data + size, r->frames.len - size);
    r->entries_left = 0;
    if (h.kind != FRAME_DATA || (r->since > 0 && !reach_time(r, &h)))
        return SH_OK;
    if (h.base_lsn > r->next_lsn || !entries_open(&r->entries, &r->entries_left) ||
        r->entries_left != h.count) {
        start_over(r);
        return fail(SH_CORRUPT, "a frame does not follow the one before");
    }
    r->hlc = h.hlc;
    r->entry_lsn = h.base_lsn;
    return SH_OK;
}

static bool is_wanted(const struct sh_reader *r, const struct entry *e)
{
    return r->stream == NULL ||
           (e->kind == ENTRY_EVENT && slice_equal(e->stream, slice_of(r->stream, r->stream_bytes)));
}

static void fill_event(const struct sh_reader *r, const struct entry *e, uint64_t lsn, struct sh_event *out)
{
    *out = (struct sh_event){
        .lsn = lsn,
        .hlc = r->hlc,
        .kind = e->kind < UINT8_MAX ? (uint8_t)e->kind : UINT8_MAX,
        .stream = (const char *)e->stream.data,
        .stream_bytes = e->stream.len,
        .key = e->key.data,
        .key_bytes = e->key.len,
        .payload = e->kind != ENTRY_CURSOR ? e->value.data : NULL,
        .payload_bytes = e->kind != ENTRY_CURSOR ? e->value.len : 0,
        .delta = e->delta,
        .ttl_ms = e->ttl_ms,
        .headers = e->headers.data,
        .headers_bytes = e->headers.len,
    };
    memcpy(out->log, r->answer_log.bytes, sizeof out->log);
}

/* The next wanted entry of the frame: SH_OK; SH_NOT_FOUND when it holds no more. */
static enum sh_error next_in_frame(struct sh_reader *r, struct sh_event *out)
{
    while (r->entries_left > 0) {
        struct entry e;
        if (entry_next(&r->entries, &e) != SH_OK) {
            start_over(r);
            return fail(SH_CORRUPT, "an entry is malformed");
        }
        uint64_t lsn = r->entry_lsn++;
        r->entries_left--;
        if (lsn < r->next_lsn)
            continue;
        r->next_lsn = lsn + 1;
        if (!is_wanted(r, &e))
            continue;
        fill_event(r, &e, lsn, out);
        return SH_OK;
    }
    return SH_NOT_FOUND;
}

enum sh_error sh_read_next(struct sh_reader *r, uint32_t wait_ms, struct sh_event *event)
{
    int64_t deadline_ns = -1; /* the clock is only read when we have to wait */
    for (;;) {
        enum sh_error e = next_in_frame(r, event);
        if (e != SH_NOT_FOUND)
            return e;
        if (r->frames.len > 0) {
            e = open_frame(r);
        } else {
            if (deadline_ns < 0)
                deadline_ns = clock_mono_ns() + (int64_t)wait_ms * NS_PER_MS;
            e = await_answer(r, deadline_ns);
        }
        if (e != SH_OK)
            return e;
    }
}
