/* The nng side of a link's daemon end.
 *
 * nng's callbacks run on nng's threads, put messages into the loop's mailbox, and take the loop's turn when
 * it is free. Requests: one receive that is armed again after the hand-over, so their order is kept; when too
 * many bytes wait in the mailbox, the loop arms it again once it has caught up, and the senders wait in their
 * sockets. Polls: one context each, from the arrival to the reply. Fatal: nng running out of memory while it
 * opens things. */
#include "link_inlet.h"

#include <assert.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

enum {
    WAITING_BYTES_MAX = 4 << 20, /* requests in the mailbox, before receiving is held back */
    POLL_BYTES_MAX = 4096,
    REPLY_TIMEOUT_MS = 5000, /* a peer that does not read gives its context back after this */
};

enum context_state { CONTEXT_RECEIVING, CONTEXT_PARKED, CONTEXT_REPLYING };

struct link_context {
    struct link_inlet *inlet;
    nng_ctx ctx;
    nng_aio *aio;
    /* Only the side whose turn it is touches it: nng's callback or, while parked, the loop. */
    enum context_state state;
};

struct link_inlet {
    nng_socket pull, rep;
    nng_aio *pull_aio;
    struct mailbox *mailbox;
    bool local;
    atomic_size_t waiting_bytes;
    atomic_uint receiving; /* contexts that can take a poll */
    struct link_context **contexts;
    uint32_t context_count, context_max;
};

static void need(int rv, const char *what)
{
    if (rv == 0)
        return;
    log_error("nng failed", log_text("call", what), log_text("error", nng_strerror(rv)));
    abort();
}

void link_arrival_free(struct link_arrival *arrival)
{
    if (arrival->message != NULL)
        nng_msg_free(arrival->message);
    free(arrival);
}

static struct link_arrival *arrival_of(struct link_inlet *inlet, struct link_context *context, nng_aio *aio)
{
    struct link_arrival *arrival = xcalloc(1, sizeof *arrival);
    arrival->inlet = inlet;
    arrival->context = context;
    arrival->message = nng_aio_get_msg(aio);
    return arrival;
}

/* ---- requests (nng's threads) ---- */

static void on_pulled(void *arg)
{
    struct link_inlet *inlet = arg;
    int rv = nng_aio_result(inlet->pull_aio);
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    if (rv != 0) {
        nng_recv_aio(inlet->pull, inlet->pull_aio);
        return;
    }
    struct link_arrival *arrival = arrival_of(inlet, NULL, inlet->pull_aio);
    size_t len = nng_msg_len(arrival->message);
    bool hold_back = atomic_fetch_add(&inlet->waiting_bytes, len) + len > WAITING_BYTES_MAX;
    arrival->held_back = hold_back;
    struct loop *loop = inlet->mailbox->loop;
    bool has_turn = mailbox_put_turn(inlet->mailbox, &arrival->mail);
    if (!hold_back) /* before the turn: what comes next must not wait for it */
        nng_recv_aio(inlet->pull, inlet->pull_aio);
    if (has_turn)
        loop_turn(loop);
}

void link_inlet_taken(struct link_inlet *inlet, struct link_arrival *arrival)
{
    if (arrival->context == NULL && arrival->message != NULL)
        atomic_fetch_sub(&inlet->waiting_bytes, nng_msg_len(arrival->message));
}

void link_inlet_resume(struct link_inlet *inlet)
{
    nng_recv_aio(inlet->pull, inlet->pull_aio);
}

/* ---- polls ---- */

static void context_receive(struct link_context *context)
{
    context->state = CONTEXT_RECEIVING;
    atomic_fetch_add(&context->inlet->receiving, 1);
    nng_aio_set_timeout(context->aio, NNG_DURATION_INFINITE);
    nng_ctx_recv(context->ctx, context->aio);
}

/* On nng's threads. */
static void on_context(void *arg)
{
    struct link_context *context = arg;
    struct link_inlet *inlet = context->inlet;
    int rv = nng_aio_result(context->aio);
    if (context->state == CONTEXT_RECEIVING)
        atomic_fetch_sub(&inlet->receiving, 1);
    else if (rv != 0 && nng_aio_get_msg(context->aio) != NULL) {
        nng_msg_free(nng_aio_get_msg(context->aio));
        nng_aio_set_msg(context->aio, NULL);
    }
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    if (context->state == CONTEXT_REPLYING || rv != 0) {
        context_receive(context);
        return;
    }
    context->state = CONTEXT_PARKED;
    struct loop *loop = inlet->mailbox->loop;
    struct link_arrival *arrival = arrival_of(inlet, context, context->aio);
    arrival->connection = (uint32_t)nng_msg_get_pipe(arrival->message).id;
    if (mailbox_put_turn(inlet->mailbox, &arrival->mail))
        loop_turn(loop);
}

/* On the thread that reaps connections, which must not wait: the loop is woken and does the rest. May
 * overtake the last poll of the connection. */
static void on_connection_gone(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct link_inlet *inlet = arg;
    struct link_arrival *arrival = xcalloc(1, sizeof *arrival);
    (void)event;
    arrival->inlet = inlet;
    arrival->connection = (uint32_t)pipe.id;
    mailbox_put(inlet->mailbox, &arrival->mail);
}

static void context_open(struct link_inlet *inlet)
{
    struct link_context *context = xcalloc(1, sizeof *context);
    context->inlet = inlet;
    need(nng_ctx_open(&context->ctx, inlet->rep), "nng_ctx_open");
    need(nng_aio_alloc(&context->aio, on_context, context), "nng_aio_alloc");
    inlet->contexts[inlet->context_count++] = context;
    context_receive(context);
}

bool link_inlet_spare_context(struct link_inlet *inlet)
{
    if (atomic_load(&inlet->receiving) > 0)
        return true;
    if (inlet->context_count == inlet->context_max)
        return false;
    context_open(inlet);
    return true;
}

void link_context_reply(struct link_context *context, nng_msg *message)
{
    assert(context->state == CONTEXT_PARKED);
    context->state = CONTEXT_REPLYING;
    nng_aio_set_timeout(context->aio, REPLY_TIMEOUT_MS);
    nng_aio_set_msg(context->aio, message);
    nng_ctx_send(context->ctx, context->aio);
}

void link_context_abandon(struct link_context *context)
{
    assert(context->state == CONTEXT_PARKED);
    context_receive(context);
}

/* ---- opening and closing ---- */

static enum sh_error listen_on(nng_socket socket, const char *url, size_t message_bytes)
{
    nng_listener listener;
    need(nng_socket_set_size(socket, NNG_OPT_RECVMAXSZ, message_bytes), NNG_OPT_RECVMAXSZ);
    if (strncmp(url, "ipc://", strlen("ipc://")) == 0)
        unlink(url + strlen("ipc://")); /* nng would probe it, which can end a listener for good */
    int rv = nng_listener_create(&listener, socket, url);
    if (rv == 0) {
        nng_listener_set_bool(listener, NNG_OPT_TCP_KEEPALIVE, true); /* means nothing over ipc */
        rv = nng_listener_start(listener, 0);
    }
    if (rv == 0)
        return SH_OK;
    log_error("cannot listen", log_text("url", url), log_text("error", nng_strerror(rv)));
    return SH_UNAVAILABLE;
}

enum sh_error link_inlet_open(const struct link_inlet_options *options, struct link_inlet **out)
{
    char in[LINK_ENDPOINT_MAX], reply[LINK_ENDPOINT_MAX];
    enum sh_error e = link_endpoint_urls(options->endpoint, in, reply);
    if (e != SH_OK)
        return e;
    struct link_inlet *inlet = xcalloc(1, sizeof *inlet);
    inlet->mailbox = options->mailbox;
    inlet->local = strncmp(in, "ipc://", strlen("ipc://")) == 0;
    inlet->context_max = options->contexts;
    inlet->contexts = xcalloc(options->contexts, sizeof(struct link_context *));
    need(nng_pull0_open(&inlet->pull), "nng_pull0_open");
    need(nng_rep0_open(&inlet->rep), "nng_rep0_open");
    need(nng_pipe_notify(inlet->rep, NNG_PIPE_EV_REM_POST, on_connection_gone, inlet), "nng_pipe_notify");
    need(nng_aio_alloc(&inlet->pull_aio, on_pulled, inlet), "nng_aio_alloc");
    e = listen_on(inlet->pull, in, options->message_bytes);
    if (e == SH_OK)
        e = listen_on(inlet->rep, reply, POLL_BYTES_MAX);
    if (e != SH_OK) {
        link_inlet_close(inlet);
        link_inlet_free(inlet);
        return e;
    }
    nng_recv_aio(inlet->pull, inlet->pull_aio);
    context_open(inlet);
    *out = inlet;
    return SH_OK;
}

void link_inlet_close(struct link_inlet *inlet)
{
    nng_aio_stop(inlet->pull_aio);
    for (uint32_t i = 0; i < inlet->context_count; i++)
        nng_aio_stop(inlet->contexts[i]->aio);
    nng_close(inlet->pull);
    nng_close(inlet->rep);
}

void link_inlet_free(struct link_inlet *inlet)
{
    nng_aio_free(inlet->pull_aio);
    for (uint32_t i = 0; i < inlet->context_count; i++) {
        nng_aio_free(inlet->contexts[i]->aio);
        free(inlet->contexts[i]);
    }
    free(inlet->contexts);
    free(inlet);
}

bool link_inlet_is_local(const struct link_inlet *inlet)
{
    return inlet->local;
}
