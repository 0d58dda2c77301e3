/* The link to querysvc: which endpoint is in use, hello, and calls (a request and its answer).
 *
 *   connecting ──► connected ──► hello answered: the node is known; appends get their target
 *       ▲              │ lost, or not there for SWITCH_MS: the next endpoint
 *       └──────────────┘
 *
 * Calls are idempotent: they go to whichever node is there, again and again until their deadline. Nothing
 * here is fatal. */
#include "sh_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SWITCH_MS = 1000, HELLO_AGAIN_MS = 100, CALL_AGAIN_MS = 20 };

static void open_endpoint(struct sh_client *c);

/* ---------------------------------------------------------------- calls */

static struct shc_call **find_call(struct shc_query *query, const struct shc_call *call)
{
    struct shc_call **at = &query->calls;
    while (*at != NULL && *at != call)
        at = &(*at)->next;
    return at;
}

static void end_call(struct sh_client *c, struct shc_call *call, enum sh_error error, const char *detail)
{
    struct shc_call **at = find_call(&c->query, call);
    *at = call->next;
    loop_timer_cancel(c->loop, &call->timer);
    if (call->number > 0 && c->query.link != NULL)
        link_client_forget(c->query.link, call->number);
    call->error = error;
    snprintf(call->detail, sizeof call->detail, "%s", detail);
    if (call->on_end != NULL)
        call->on_end(call);
    else
        shc_set(&call->done, 1);
}

static void call_later(struct sh_client *c, struct shc_call *call, int64_t delay_ms)
{
    call->number = 0;
    call->again_ns = loop_now_ns(c->loop) + delay_ms * NS_PER_MS;
    loop_timer_set(c->loop, &call->timer,
                   call->again_ns < call->deadline_ns ? call->again_ns : call->deadline_ns);
}

/* Not before the node has said who it is; of an append, to no other log once it may have landed. False: it
 * waits for that, or has ended. */
static bool may_go(struct sh_client *c, struct shc_call *call)
{
    const struct shc_query *query = &c->query;
    call->parked = !query->said_hello;
    if (call->parked) {
        loop_timer_set(c->loop, &call->timer, call->deadline_ns);
        return false;
    }
    if (!call->bound)
        return true;
    if (call->uncertain && !id16_equal(call->log, query->log) && !c->options.at_least_once) {
        end_call(c, call, SH_TIMEOUT, "the node is away; the outcome is unknown");
        return false;
    }
    if (!id16_is_zero(call->for_log) && !id16_equal(call->for_log, query->log)) {
        call->moved = true;
        end_call(c, call, SH_UNAVAILABLE, "appends go to another log by now");
        return false;
    }
    call->log = query->log;
    return true;
}

static void send_call(struct sh_client *c, struct shc_call *call)
{
    struct slice none = {0};
    call->again_ns = 0;
    call->number = 0;
    if ((call->bound || call->greets) && !may_go(c, call))
        return;
    enum sh_error e = c->query.link == NULL ? SH_UNAVAILABLE
                                            : link_client_send(c->query.link, call->type, call->correlation,
                                                               buf_slice(&call->body), none, &call->number);
    if (e != SH_OK) {
        call_later(c, call, CALL_AGAIN_MS);
        return;
    }
    if (call->deadline_ns != INT64_MAX)
        loop_timer_set(c->loop, &call->timer, call->deadline_ns);
}

static void on_call_timer(void *arg)
{
    struct shc_call *call = arg;
    struct sh_client *c = call->client;
    if (loop_now_ns(c->loop) < call->deadline_ns)
        send_call(c, call);
    else if (call->bound)
        end_call(c, call, SH_TIMEOUT,
                 call->refusal[0] != 0        ? call->refusal
                 : atomic_load(&c->connected) ? "no answer in time"
                                              : "no answer in time: the node cannot be reached");
    else if (call->refusal[0] != 0)
        end_call(c, call, SH_UNAVAILABLE, call->refusal);
    else if (atomic_load(&c->connected))
        end_call(c, call, SH_TIMEOUT, "no answer in time");
    else
        end_call(c, call, SH_UNAVAILABLE, c->away);
}

static void on_call_error(struct sh_client *c, struct shc_call *call, struct slice body)
{
    struct msg_error error;
    char detail[SHC_DETAIL_MAX];
    if (msg_decode(MSG_error, body, &error) != SH_OK)
        error = (struct msg_error){.code = SH_INTERNAL, .text = slice_str("malformed error")};
    snprintf(detail, sizeof detail, "%.*s", (int)error.text.len, (const char *)error.text.data);
    if ((error.code == SH_OVERLOADED && !call->overload_ends) ||
        (error.code == SH_UNAVAILABLE && !call->once)) {
        if (error.code == SH_UNAVAILABLE)
            memcpy(call->refusal, detail, sizeof detail);
        call->uncertain = call->uncertain || error.code == SH_UNAVAILABLE;
        call_later(c, call, error.retry_ms > 0 ? (int64_t)error.retry_ms : CALL_AGAIN_MS);
        return;
    }
    call->expected = error.expected;
    call->current_bytes = error.current.len;
    if (error.current.len > 0)
        memcpy(call->current, error.current.data, error.current.len); /* its limit is that of the field */
    end_call(c, call, error.code == SH_OK ? SH_INTERNAL : (enum sh_error)error.code, detail);
}

static void on_call_answer(struct sh_client *c, struct shc_call *call, uint32_t type, struct slice body)
{
    call->number = 0;
    if (type == MSG_error) {
        on_call_error(c, call, body);
    } else if (type != call->reply_type) {
        end_call(c, call, SH_INTERNAL, "the node answered with another message");
    } else {
        call->reply.len = 0;
        buf_append(&call->reply, body.data, body.len);
        end_call(c, call, SH_OK, "");
    }
}

static void start_call(struct sh_client *c, void *arg)
{
    struct shc_call *call = arg;
    call->timer = (struct loop_timer){.fn = on_call_timer, .arg = call};
    call->correlation = shc_correlation(c);
    call->next = c->query.calls;
    c->query.calls = call;
    send_call(c, call);
}

static void stop_call(struct sh_client *c, void *arg)
{
    struct shc_call *call = arg;
    if (*find_call(&c->query, call) != NULL)
        end_call(c, call, SH_UNAVAILABLE, "given up");
    shc_set(&call->done, 2);
}

static void prepare_call(struct sh_client *c, struct shc_call *call)
{
    atomic_store(&call->done, 0);
    call->expected = 0;
    call->current_bytes = 0;
    call->uncertain = call->parked = call->moved = false;
    call->refusal[0] = 0;
    call->client = c;
}

void shc_call_start(struct sh_client *c, struct shc_call *call)
{
    prepare_call(c, call);
    call->start = (struct shc_mail){.fn = start_call, .arg = call};
    shc_visit(c, &call->start);
}

void shc_call_here(struct sh_client *c, struct shc_call *call)
{
    prepare_call(c, call);
    start_call(c, call);
}

void shc_call_stop(struct sh_client *c, struct shc_call *call)
{
    call->stop = (struct shc_mail){.fn = stop_call, .arg = call};
    shc_visit(c, &call->stop);
    shc_wait(&call->done, 0, INT64_MAX);
    shc_wait(&call->done, 1, INT64_MAX); /* 2: the loop has seen the stop, and forgets the call */
}

void shc_call_free(struct shc_call *call)
{
    buf_free(&call->body);
    buf_free(&call->reply);
}

enum sh_error shc_ask(struct sh_client *c, struct shc_call *call, uint32_t type, const void *message,
                      uint32_t reply_type, void *reply)
{
    if (shc_on_own_thread(c)) {
        shc_detail("a callback cannot wait for an answer");
        return SH_BAD_REQUEST;
    }
    call->type = type;
    call->reply_type = reply_type;
    call->deadline_ns =
        clock_mono_ns() +
        (call->patience_ns > 0 ? call->patience_ns : (int64_t)c->options.timeout_ms * NS_PER_MS);
    call->body.len = 0;
    msg_encode(type, message, &call->body);
    shc_call_start(c, call);
    shc_wait(&call->done, 0, INT64_MAX);
    if (call->error != SH_OK) {
        shc_detail(call->detail);
        return call->error;
    }
    if (msg_decode(reply_type, buf_slice(&call->reply), reply) == SH_OK)
        return SH_OK;
    shc_detail("malformed answer");
    return SH_INTERNAL;
}

/* ---------------------------------------------------------------- hello */

static const char *endpoint_of(const struct sh_client *c)
{
    return c->endpoints[c->query.endpoint];
}

static bool is_local(const char *endpoint)
{
    return strncmp(endpoint, "ipc:", 4) == 0;
}

/* Leaves this endpoint for the next one after a while, when there is another. */
static void arm_stuck(struct sh_client *c, int64_t delay_ms)
{
    if (c->options.endpoint_count > 1)
        loop_timer_after(c->loop, &c->query.stuck, delay_ms * NS_PER_MS);
}

static void say_hello(struct sh_client *c)
{
    struct shc_query *query = &c->query;
    struct msg_hello hello = {.local = is_local(endpoint_of(c))};
    struct buf body = {0};
    msg_encode(MSG_hello, &hello, &body);
    if (query->hello > 0)
        link_client_forget(query->link, query->hello);
    query->hello = 0;
    if (link_client_send(query->link, MSG_hello, shc_correlation(c), buf_slice(&body), (struct slice){0},
                         &query->hello) != SH_OK)
        loop_timer_after(c->loop, &query->hello_again, HELLO_AGAIN_MS * NS_PER_MS);
    buf_free(&body);
}

static void on_hello_reply(struct sh_client *c, struct slice body)
{
    struct shc_query *query = &c->query;
    struct msg_hello_reply reply;
    char endpoint[LINK_ENDPOINT_MAX];
    if (msg_decode(MSG_hello_reply, body, &reply) != SH_OK || reply.cluster_id.len != CLUSTER_ID_BYTES ||
        (query->know_cluster && memcmp(query->cluster, reply.cluster_id.data, CLUSTER_ID_BYTES) != 0)) {
        loop_timer_after(c->loop, &query->hello_again, HELLO_AGAIN_MS * NS_PER_MS);
        arm_stuck(c, 0); /* another version, or another cluster: not our node */
        return;
    }
    if (c->root == NULL) {
        shc_groups_met(c, &reply);
    } else if (!slice_is(reply.group, c->group)) {
        atomic_store(&c->connected, false); /* where the group's nodes are is asked again, meanwhile */
        loop_timer_after(c->loop, &query->hello_again, HELLO_AGAIN_MS * NS_PER_MS);
        arm_stuck(c, 0);
        return;
    }
    memcpy(query->cluster, reply.cluster_id.data, CLUSTER_ID_BYTES);
    query->know_cluster = true;
    link_client_set_cluster(query->link, slice_of(query->cluster, CLUSTER_ID_BYTES));
    if (reply.wal_link.len > 0 && is_local(endpoint_of(c)) && !c->options.no_direct)
        snprintf(endpoint, sizeof endpoint, "%.*s", (int)reply.wal_link.len,
                 (const char *)reply.wal_link.data);
    else
        snprintf(endpoint, sizeof endpoint, "%s", endpoint_of(c));
    shc_send_target(c, endpoint, reply.log);
    shc_set(&c->most_bytes, (unsigned)reply.max_append_bytes);
    query->said_hello = true;
    query->log = reply.log;
    for (struct shc_call *call = query->calls, *next; call != NULL; call = next) {
        next = call->next; /* it may end here */
        if (call->parked)
            send_call(c, call);
    }
}

/* The link is lost, or left: appends that are out wait for the node's next word, and are sent again to the
 * same log only. */
static void park_bound_calls(struct sh_client *c)
{
    struct shc_query *query = &c->query;
    query->said_hello = false;
    for (struct shc_call *call = query->calls; call != NULL; call = call->next) {
        if (!call->bound || call->number == 0)
            continue;
        link_client_forget(query->link, call->number);
        call->number = 0;
        call->parked = call->uncertain = true;
    }
}

static void on_hello_again(void *arg)
{
    struct sh_client *c = arg;
    if (link_client_is_connected(c->query.link))
        say_hello(c); /* otherwise on_state does */
}

/* ---------------------------------------------------------------- the link */

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct sh_client *c = arg;
    struct shc_query *query = &c->query;
    if (number == query->hello) {
        query->hello = 0;
        if (type == MSG_hello_reply)
            on_hello_reply(c, body);
        else
            loop_timer_after(c->loop, &query->hello_again, HELLO_AGAIN_MS * NS_PER_MS);
        return;
    }
    if (shc_groups_on_answer(c, number, type, body))
        return;
    for (struct shc_call *call = query->calls; call != NULL; call = call->next) {
        if (call->number != number)
            continue;
        on_call_answer(c, call, type, body);
        return;
    }
}

static void on_state(void *arg, bool connected)
{
    struct sh_client *c = arg;
    atomic_store(&c->connected, connected);
    if (connected) {
        loop_timer_cancel(c->loop, &c->query.stuck);
        say_hello(c);
    } else {
        park_bound_calls(c);
        arm_stuck(c, SWITCH_MS);
    }
}

static void on_stuck(void *arg)
{
    struct sh_client *c = arg;
    c->query.endpoint = (c->query.endpoint + 1) % c->options.endpoint_count;
    open_endpoint(c);
}

void shc_query_send(struct sh_client *c, uint32_t type, struct slice body, uint64_t *number)
{
    struct slice none = {0};
    if (c->query.link == NULL ||
        link_client_send(c->query.link, type, shc_correlation(c), body, none, number) != SH_OK)
        *number = 0;
}

const char *shc_query_endpoint(const struct sh_client *c)
{
    return endpoint_of(c);
}

void shc_query_begin_anew(struct sh_client *c)
{
    c->query.endpoint = 0;
    open_endpoint(c);
}

/* Calls that were out go out again by the new link. */
static void open_endpoint(struct sh_client *c)
{
    struct shc_query *query = &c->query;
    if (c->options.endpoint_count == 0)
        return; /* of a group whose nodes are still to be found */
    struct link_client_options options = {
        .loop = c->loop,
        .endpoint = endpoint_of(c),
        .message_bytes = SHC_MESSAGE_BYTES,
        .queue_bytes = SHC_MESSAGE_BYTES,
        .cluster = slice_of(query->cluster, query->know_cluster ? CLUSTER_ID_BYTES : 0),
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = c,
    };
    park_bound_calls(c);
    if (query->link != NULL)
        link_client_close(query->link);
    query->link = NULL;
    query->hello = 0;
    shc_groups_link_closed(c);
    loop_timer_cancel(c->loop, &query->hello_again);
    atomic_store(&c->connected, false);
    if (link_client_open(&options, &query->link) != SH_OK)
        query->link = NULL; /* endpoints were checked by sh_open */
    arm_stuck(c, SWITCH_MS);
    for (struct shc_call *call = query->calls; call != NULL; call = call->next)
        if (call->again_ns == 0 && !call->parked)
            send_call(c, call);
}

void shc_query_open(struct sh_client *c)
{
    c->query.stuck = (struct loop_timer){.fn = on_stuck, .arg = c};
    c->query.hello_again = (struct loop_timer){.fn = on_hello_again, .arg = c};
    open_endpoint(c);
}

void shc_query_close(struct sh_client *c)
{
    struct shc_query *query = &c->query;
    shc_gets_stop(&c->gets); /* a callback may ask for more */
    while (query->calls != NULL)
        end_call(c, query->calls, SH_UNAVAILABLE, "the client was closed");
    loop_timer_cancel(c->loop, &query->stuck);
    loop_timer_cancel(c->loop, &query->hello_again);
    if (query->link != NULL)
        link_client_close(query->link);
}
