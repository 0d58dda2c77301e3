/* Subscriptions: events come by long polls; the next poll goes out when the answer before is used up.
 *
 *   fetch ──► answer ──► events ──► the caller
 *
 * The place is a number within a series. A poll asks for what follows it, and what comes must: a gap, or
 * another series, is told, once, and then the place is where the answer begins. Nothing is fatal. */
#include "sh_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FOLLOW_WAIT_MS = 5000 };

struct sh_events {
    struct sh_client *client;
    bool follow;
    struct id16 series; /* zero: not met yet */
    uint64_t after;     /* number of the last event known */
    struct shc_call call;
    bool fetching;
    struct buf answer; /* being consumed */
    struct mp list;    /* what is left of it... */
    uint32_t left;     /* ...so many events */
    bool at_end;       /* the last answer held none */
};

static enum sh_error fail(enum sh_error error, const char *text)
{
    shc_detail(text);
    return error;
}

/* ---------------------------------------------------------------- opening */

/* The place behind the last event: the series first, so that another one that begins now is noticed. */
static enum sh_error find_end(struct sh_events *s)
{
    struct msg_events ask = {.series = s->series, .after = UINT64_MAX - 1};
    struct msg_events_reply reply;
    struct sh_nodes nodes;
    struct shc_call call = {.once = true};
    enum sh_error e = shc_ask(s->client, &call, MSG_events, &ask, MSG_events_reply, &reply);
    if (e == SH_OK)
        s->series = reply.series;
    shc_call_free(&call);
    if (e == SH_OK)
        e = sh_nodes(s->client, &nodes);
    if (e != SH_OK)
        return e;
    s->after = nodes.next_event > 0 ? nodes.next_event - 1 : 0;
    sh_nodes_free(&nodes);
    return SH_OK;
}

enum sh_error sh_events_open(struct sh_client *c, const struct sh_events_options *options,
                             struct sh_events **events)
{
    struct sh_events *s = xcalloc(1, sizeof *s);
    s->client = c;
    s->follow = options->follow;
    s->after = options->after;
    memcpy(s->series.bytes, options->series, sizeof s->series.bytes);
    enum sh_error e = s->after == UINT64_MAX ? find_end(s) : SH_OK;
    if (e == SH_OK)
        *events = s;
    else
        free(s);
    return e;
}

uint64_t sh_events_position(const struct sh_events *s, uint8_t series[16])
{
    if (series != NULL)
        memcpy(series, s->series.bytes, sizeof s->series.bytes);
    return s->after;
}

void sh_events_close(struct sh_events *s)
{
    if (s == NULL)
        return;
    if (s->fetching)
        shc_call_stop(s->client, &s->call);
    shc_call_free(&s->call);
    buf_free(&s->answer);
    free(s);
}

/* ---------------------------------------------------------------- fetching */

static void fetch(struct sh_events *s)
{
    struct msg_events m = {
        .series = s->series,
        .after = s->after,
        .wait_ms = s->follow ? FOLLOW_WAIT_MS : 0,
    };
    s->call.type = MSG_events;
    s->call.reply_type = MSG_events_reply;
    s->call.once = !s->follow;
    s->call.deadline_ns =
        s->follow ? INT64_MAX : clock_mono_ns() + (int64_t)s->client->options.timeout_ms * NS_PER_MS;
    s->call.body.len = 0;
    msg_encode(MSG_events, &m, &s->call.body);
    shc_call_start(s->client, &s->call);
    s->fetching = true;
}

static enum sh_error tell_of_series(struct sh_events *s, struct id16 series)
{
    s->series = series;
    s->after = 0;
    return fail(SH_CONFLICT, "events are counted anew: the node lost its file of members, or is another one");
}

static enum sh_error tell_of_gap(struct sh_events *s, uint64_t first)
{
    char text[SHC_DETAIL_MAX];
    snprintf(text, sizeof text, "events %" PRIu64 " to %" PRIu64 " are not kept any more", s->after + 1,
             first - 1);
    s->after = first - 1;
    return fail(SH_TRIMMED, text);
}

/* Makes the answer that has come the one that is consumed. */
static enum sh_error take_answer(struct sh_events *s)
{
    struct msg_events_reply reply;
    struct buf old = s->answer;
    s->fetching = false;
    if (s->call.error != SH_OK)
        return fail(s->call.error, s->call.detail);
    s->answer = s->call.reply;
    s->call.reply = old;
    struct mp list = {0};
    uint32_t count = 0;
    if (msg_decode(MSG_events_reply, buf_slice(&s->answer), &reply) == SH_OK)
        list = mp_of(reply.events);
    if (!mp_array(&list, &count))
        return fail(SH_INTERNAL, "the node's answer about events makes no sense");
    if (!id16_is_zero(s->series) && !id16_equal(s->series, reply.series))
        return tell_of_series(s, reply.series);
    s->series = reply.series;
    if (s->after > 0 && reply.first > s->after + 1)
        return tell_of_gap(s, reply.first);
    s->list = list;
    s->left = count;
    s->at_end = count == 0;
    return SH_OK;
}

static enum sh_error await_answer(struct sh_events *s, int64_t deadline_ns)
{
    if (s->at_end && !s->follow) {
        s->at_end = false; /* a later call looks again */
        return fail(SH_NOT_FOUND, "the end of the events");
    }
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

static bool decode_event(const struct sh_events *s, struct slice bytes, struct sh_node_event *out)
{
    struct msg_event m;
    memset(out, 0, sizeof *out);
    if (msg_decode(MSG_event, bytes, &m) != SH_OK || !shc_copy(out->id, sizeof out->id, m.id) ||
        !shc_copy(out->text, sizeof out->text, m.text))
        return false;
    memcpy(out->series, s->series.bytes, sizeof out->series);
    out->number = m.number;
    out->kind = (enum sh_node_event_kind)m.kind;
    out->wall_ms = (int64_t)m.wall_ms;
    out->generation = m.generation;
    out->incarnation = m.incarnation;
    return true;
}

static enum sh_error next_in_answer(struct sh_events *s, struct sh_node_event *event)
{
    struct slice bytes;
    s->left--;
    bool good = mp_raw(&s->list, &bytes) && decode_event(s, bytes, event);
    good = good && (s->after == 0 ? event->number > 0 : event->number == s->after + 1);
    if (!good) {
        memset(event, 0, sizeof *event);
        s->left = 0;
        return fail(SH_INTERNAL, "the node's answer about events makes no sense");
    }
    s->after = event->number;
    return SH_OK;
}

enum sh_error sh_events_next(struct sh_events *s, uint32_t wait_ms, struct sh_node_event *event)
{
    int64_t deadline_ns = clock_mono_ns() + (int64_t)wait_ms * NS_PER_MS;
    while (s->left == 0) {
        enum sh_error e = await_answer(s, deadline_ns);
        if (e != SH_OK)
            return e;
    }
    return next_in_answer(s, event);
}
