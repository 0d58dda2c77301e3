/* The nng side of a link's daemon end.
 *
 * nng's callbacks run on nng's threads, put messages into the loop's mailbox, and take the loop's turn when
 * it is free. Requests: a PULL socket (pull_socket.h). Polls: one context each, from the arrival to the
 * reply. Fatal: nng running out of memory while it opens things. */
#include "link_inlet.h"

#include <assert.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pull_socket.h"

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
    struct pull_socket *pull;
    nng_socket rep;
    struct mailbox *mailbox;
    bool local;
    atomic_uint receiving; /* contexts that can take a poll */
    struct link_context **contexts;
    uint32_t context_count, context_max;
};

void link_arrival_free(struct link_arrival *arrival)
{
    if (arrival->message != NULL)
        nng_msg_free(arrival->message);
    free(arrival);
}

static struct link_arrival *arrival_of(struct link_inlet *inlet, struct link_context *context,
                                       nng_msg *message)
{
    struct link_arrival *arrival = xcalloc(1, sizeof *arrival);
    arrival->inlet = inlet;
    arrival->context = context;
    arrival->message = message;
    return arrival;
}

/* ---- requests ---- */

/* On nng's threads. */
static struct mail *wrap_request(void *arg, nng_msg *message, bool held_back)
{
    struct link_arrival *arrival = arrival_of(arg, NULL, message);
    arrival->held_back = held_back;
    return &arrival->mail;
}

void link_inlet_taken(struct link_inlet *inlet, struct link_arrival *arrival)
{
    if (arrival->context == NULL && arrival->message != NULL)
        pull_socket_taken(inlet->pull, nng_msg_len(arrival->message));
}

void link_inlet_resume(struct link_inlet *inlet)
{
    pull_socket_resume(inlet->pull);
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
    struct link_arrival *arrival = arrival_of(inlet, context, nng_aio_get_msg(context->aio));
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
    nng_need(nng_ctx_open(&context->ctx, inlet->rep), "nng_ctx_open");
    nng_need(nng_aio_alloc(&context->aio, on_context, context), "nng_aio_alloc");
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

static enum sh_error open_sockets(struct link_inlet *inlet, const struct link_inlet_options *options,
                                  const char *in, const char *reply)
{
    const struct pull_options pull = {
        .url = in,
        .message_bytes = options->message_bytes,
        .waiting_bytes = WAITING_BYTES_MAX,
        .mailbox = options->mailbox,
        .wrap = wrap_request,
        .arg = inlet,
    };
    nng_need(nng_rep0_open(&inlet->rep), "nng_rep0_open");
    nng_need(nng_pipe_notify(inlet->rep, NNG_PIPE_EV_REM_POST, on_connection_gone, inlet), "nng_pipe_notify");
    enum sh_error e = pull_socket_open(&pull, &inlet->pull);
    return e == SH_OK ? nng_listen_on(inlet->rep, reply, POLL_BYTES_MAX) : e;
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
    e = open_sockets(inlet, options, in, reply);
    if (e != SH_OK) {
        link_inlet_close(inlet);
        link_inlet_free(inlet);
        return e;
    }
    pull_socket_start(inlet->pull);
    context_open(inlet);
    *out = inlet;
    return SH_OK;
}

void link_inlet_close(struct link_inlet *inlet)
{
    for (uint32_t i = 0; i < inlet->context_count; i++)
        nng_aio_stop(inlet->contexts[i]->aio);
    if (inlet->pull != NULL)
        pull_socket_close(inlet->pull);
    nng_close(inlet->rep);
}

void link_inlet_free(struct link_inlet *inlet)
{
    if (inlet->pull != NULL)
        pull_socket_free(inlet->pull);
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
