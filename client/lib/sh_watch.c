/* Watches: changes come by long polls; the next poll goes out when the answer before is used up.
 *
 *   fetch ──► answer ──► changes ──► the caller
 *
 * The place is a version vector. It is raised with each change that the caller gets, and with the answer's
 * own vector behind the last of them, since that passes over all that was looked at. Nothing is fatal. */
#include "sh_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FOLLOW_WAIT_MS = 5000, MOST = 1000, CHANGE_PARTS = 7, MISSING_PARTS = 4 };

struct sh_watch {
    struct sh_client *client;
    struct buf prefix;
    struct sh_session *position; /* behind what the caller got */
    struct shc_call call;
    bool fetching;
    struct buf answer; /* being consumed */
    struct mp list;    /* what is left of it... */
    uint32_t left;     /* ...so many changes */
    struct slice next; /* the place behind the answer */
};

static enum sh_error fail(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

static enum sh_error malformed(struct sh_watch *w)
{
    w->left = 0;
    w->next.len = 0;
    return fail(SH_INTERNAL, "the node's answer to a watch makes no sense");
}

/* ---------------------------------------------------------------- opening */

/* The place behind all that the node has applied. */
static enum sh_error find_now(struct sh_watch *w)
{
    const struct msg_watch ask = {.most = 1};
    struct msg_watch_reply reply;
    struct shc_call call = {0};
    enum sh_error e = shc_ask(w->client, &call, MSG_watch, &ask, MSG_watch_reply, &reply);
    if (e == SH_OK && !shc_session_see(w->position, reply.position))
        e = malformed(w);
    shc_call_free(&call);
    return e;
}

enum sh_error sh_watch_open(struct sh_client *c, const struct sh_watch_options *o, struct sh_watch **watch)
{
    if (o->prefix_bytes > KEY_MAX)
        return fail(SH_TOO_LARGE, "a key has at most 4,096 bytes");
    struct sh_watch *w = xcalloc(1, sizeof *w);
    w->client = c;
    buf_append(&w->prefix, o->prefix, o->prefix_bytes);
    w->position = sh_session_new();
    if (o->from != NULL)
        shc_session_copy(w->position, o->from);
    enum sh_error e = o->from == NULL ? find_now(w) : SH_OK;
    if (e == SH_OK)
        *watch = w;
    else
        sh_watch_close(w);
    return e;
}

const struct sh_session *sh_watch_position(const struct sh_watch *w)
{
    return w->position;
}

void sh_watch_close(struct sh_watch *w)
{
    if (w == NULL)
        return;
    if (w->fetching)
        shc_call_stop(w->client, &w->call);
    shc_call_free(&w->call);
    sh_session_free(w->position);
    buf_free(&w->prefix);
    buf_free(&w->answer);
    free(w);
}

/* ---------------------------------------------------------------- fetching */

static void fetch(struct sh_watch *w)
{
    struct buf from = {0};
    shc_session_pack(w->position, &from);
    const struct msg_watch m = {
        .prefix = buf_slice(&w->prefix), .from = buf_slice(&from), .most = MOST, .wait_ms = FOLLOW_WAIT_MS};
    w->call.type = MSG_watch;
    w->call.reply_type = MSG_watch_reply;
    w->call.deadline_ns = INT64_MAX;
    w->call.body.len = 0;
    msg_encode(MSG_watch, &m, &w->call.body);
    buf_free(&from);
    shc_call_start(w->client, &w->call);
    w->fetching = true;
}

static enum sh_error tell_of_missing(struct sh_watch *w, const struct msg_watch_reply *reply)
{
    struct mp m = mp_of(reply->missing);
    struct slice log;
    struct id16 id;
    uint32_t parts;
    uint64_t first, last, error;
    char text[SHC_DETAIL_MAX], uuid[ID_TEXT];
    if (!mp_array(&m, &parts) || parts != MISSING_PARTS || !mp_bin(&m, &log) || log.len != sizeof id.bytes ||
        !mp_uint(&m, &first) || !mp_uint(&m, &last) || !mp_uint(&m, &error) ||
        (error != SH_TRIMMED && error != SH_CORRUPT) || !shc_session_see(w->position, reply->position))
        return malformed(w);
    memcpy(id.bytes, log.data, log.len);
    id16_format(id, uuid);
    snprintf(text, sizeof text, "entries %" PRIu64 " to %" PRIu64 " of log %s are %s on this node", first,
             last, uuid, error == SH_TRIMMED ? "trimmed" : "damaged");
    return fail((enum sh_error)error, text);
}

/* Makes the answer that has come the one that is consumed. */
static enum sh_error take_answer(struct sh_watch *w)
{
    struct msg_watch_reply reply;
    struct buf old = w->answer;
    w->fetching = false;
    if (w->call.error != SH_OK)
        return fail(w->call.error, w->call.detail);
    w->answer = w->call.reply;
    w->call.reply = old;
    if (msg_decode(MSG_watch_reply, buf_slice(&w->answer), &reply) != SH_OK)
        return malformed(w);
    if (reply.missing.len > 0)
        return tell_of_missing(w, &reply);
    w->list = mp_of(reply.changes);
    w->next = reply.position;
    return mp_array(&w->list, &w->left) ? SH_OK : malformed(w);
}

static enum sh_error await_answer(struct sh_watch *w, int64_t deadline_ns)
{
    if (w->next.len > 0 && !shc_session_see(w->position, w->next))
        return malformed(w);
    w->next.len = 0;
    if (!w->fetching)
        fetch(w);
    if (shc_on_own_thread(w->client) && atomic_load(&w->call.done) == 0)
        return fail(SH_BAD_REQUEST, "a callback cannot wait for changes");
    if (shc_wait(&w->call.done, 0, deadline_ns))
        return take_answer(w);
    if (atomic_load(&w->client->connected))
        return fail(SH_TIMEOUT, "nothing new");
    return fail(SH_UNAVAILABLE, "the node cannot be reached");
}

/* ---------------------------------------------------------------- consuming */

static bool decode_value(struct mp *m, struct sh_change *out)
{
    struct slice value;
    if (out->kind == SH_ENTRY_DELETE)
        return mp_nil(m);
    if (out->kind == SH_ENTRY_ADD)
        return mp_int(m, &out->delta);
    if (!mp_bin(m, &value))
        return false;
    out->value = value.data;
    out->value_bytes = value.len;
    return true;
}

static bool decode_change(struct mp *m, struct sh_change *out)
{
    struct slice log, key;
    uint32_t parts;
    uint64_t kind, expires;
    memset(out, 0, sizeof *out);
    if (!mp_array(m, &parts) || parts != CHANGE_PARTS || !mp_bin(m, &log) ||
        log.len != sizeof out->version.log || !mp_uint(m, &out->version.lsn) ||
        !mp_uint(m, &out->version.hlc) || !mp_uint(m, &kind) || kind < SH_ENTRY_PUT || kind > SH_ENTRY_ADD ||
        !mp_bin(m, &key))
        return false;
    memcpy(out->version.log, log.data, log.len);
    out->kind = (enum sh_entry_kind)kind;
    out->key = key.data;
    out->key_bytes = key.len;
    if (!decode_value(m, out) || !mp_uint(m, &expires))
        return false;
    out->expires_ms = (int64_t)expires;
    return true;
}

static void pass(struct sh_watch *w, const struct sh_version *version)
{
    struct id16 log;
    memcpy(log.bytes, version->log, sizeof log.bytes);
    shc_session_raise(w->position, log, version->lsn);
    shc_session_see_hlc(w->position, version->hlc);
}

enum sh_error sh_watch_next(struct sh_watch *w, uint32_t wait_ms, struct sh_change *change)
{
    int64_t deadline_ns = -1; /* the clock is only read when we have to wait */
    while (w->left == 0) {
        if (deadline_ns < 0)
            deadline_ns = clock_mono_ns() + (int64_t)wait_ms * NS_PER_MS;
        enum sh_error e = await_answer(w, deadline_ns);
        if (e != SH_OK)
            return e;
    }
    w->left--;
    if (!decode_change(&w->list, change)) {
        memset(change, 0, sizeof *change);
        return malformed(w);
    }
    pass(w, &change->version);
    return SH_OK;
}
