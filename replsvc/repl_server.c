/* The answering end of fetches. Nothing that comes in is fatal. */
#include "repl_server.h"

#include <assert.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pull_socket.h"

enum { URL_MAX = 300, ANSWER_TIMEOUT_MS = 10000, OUTCASTS_MAX = 64 };
#define QUIET_NS NS_PER_S /* so long nothing has come in: then a connection may be closed */
#define LOOK_NS  (QUIET_NS / 4)

enum fetch_context_state { FETCH_RECEIVING, FETCH_WAITING, FETCH_ANSWERING };

/* Only the side whose turn it is touches it: nng's callback, or, while the fetch waits, the loop. */
struct fetch_context {
    struct repl_server *server;
    nng_ctx ctx;
    nng_aio *aio;
    enum fetch_context_state state;
    _Atomic uint32_t pipe; /* where what is not answered yet has come from; 0: nothing is */
};

/* A connection of which nothing is answered any more. */
struct outcast {
    nng_pipe pipe;
    int64_t asked_ns; /* the last time */
};

struct arrival {
    struct mail mail;
    unsigned context;
    nng_msg *message;
};

struct repl_server {
    struct repl_server_options options;
    nng_socket rep;
    struct mailbox mailbox;
    struct fetch_context *contexts;
    struct outcast outcasts[OUTCASTS_MAX];
    size_t outcast_count;
    struct loop_timer look;
    bool closing;
};

static void receive(struct fetch_context *context)
{
    context->state = FETCH_RECEIVING;
    atomic_store(&context->pipe, 0);
    nng_aio_set_timeout(context->aio, NNG_DURATION_INFINITE);
    nng_ctx_recv(context->ctx, context->aio);
}

/* On nng's threads. */
static void on_context(void *arg)
{
    struct fetch_context *context = arg;
    struct repl_server *server = context->server;
    int rv = nng_aio_result(context->aio);
    if (context->state == FETCH_ANSWERING && rv != 0 && nng_aio_get_msg(context->aio) != NULL) {
        nng_msg_free(nng_aio_get_msg(context->aio));
        nng_aio_set_msg(context->aio, NULL);
    }
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
        return;
    if (context->state == FETCH_ANSWERING || rv != 0) {
        receive(context);
        return;
    }
    context->state = FETCH_WAITING;
    atomic_store(&context->pipe, (uint32_t)nng_pipe_id(nng_msg_get_pipe(nng_aio_get_msg(context->aio))));
    struct arrival *arrival = xcalloc(1, sizeof *arrival);
    arrival->context = (unsigned)(context - server->contexts);
    arrival->message = nng_aio_get_msg(context->aio);
    struct loop *loop = server->mailbox.loop;
    if (mailbox_put_turn(&server->mailbox, &arrival->mail))
        loop_turn(loop);
}

/* ---- who asks on and on ---- */

static struct outcast *find_outcast(struct repl_server *server, nng_pipe pipe)
{
    for (size_t i = 0; i < server->outcast_count; i++)
        if (nng_pipe_id(server->outcasts[i].pipe) == nng_pipe_id(pipe))
            return &server->outcasts[i];
    return NULL;
}

/* NULL: there are so many already that of this one no more than the request is dropped. */
static struct outcast *cast_out(struct repl_server *server, nng_pipe pipe)
{
    if (server->outcast_count == OUTCASTS_MAX)
        return NULL;
    struct outcast *outcast = &server->outcasts[server->outcast_count++];
    outcast->pipe = pipe;
    if (server->outcast_count == 1)
        loop_timer_after(server->options.loop, &server->look, LOOK_NS);
    return outcast;
}

/* Answers that nobody reads are held by their contexts until they have gone out, or waited too long. With the
 * connection they go. It is closed when nothing comes in any more: nng 1.5.2, when it closes a connection
 * while it deals with what came in, may wait for ever for the rest, and then closes nothing any more in this
 * process (docs/adr/0001). */
static bool is_one_too_many(struct repl_server *server, struct arrival *arrival)
{
    nng_pipe from = nng_msg_get_pipe(arrival->message);
    struct outcast *outcast = find_outcast(server, from);
    unsigned count = 0;
    for (unsigned i = 0; i < server->options.contexts; i++)
        count += atomic_load(&server->contexts[i].pipe) == (uint32_t)nng_pipe_id(from);
    if (outcast == NULL && count <= server->options.each)
        return false;
    if (outcast == NULL)
        outcast = cast_out(server, from);
    if (outcast != NULL)
        outcast->asked_ns = loop_now_ns(server->options.loop);
    repl_server_abandon(server, arrival->context);
    return true;
}

static void on_look(void *arg)
{
    struct repl_server *server = arg;
    int64_t now_ns = loop_now_ns(server->options.loop);
    for (size_t i = server->outcast_count; i-- > 0;) {
        struct outcast *outcast = &server->outcasts[i];
        if (now_ns - outcast->asked_ns < QUIET_NS)
            continue;
        nng_pipe_close(outcast->pipe); /* unless it has gone */
        *outcast = server->outcasts[--server->outcast_count];
    }
    if (server->outcast_count > 0)
        loop_timer_after(server->options.loop, &server->look, LOOK_NS);
}

/* ---- the loop's ---- */

static void take(struct repl_server *server, struct arrival *arrival)
{
    struct slice message = slice_of(nng_msg_body(arrival->message), nng_msg_len(arrival->message));
    if (is_one_too_many(server, arrival))
        server->options.on_too_many(server->options.arg, message);
    else
        server->options.on_message(server->options.arg, arrival->context, message);
}

static void on_mail(void *arg, struct mail *first)
{
    struct repl_server *server = arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct arrival *arrival = (struct arrival *)mail;
        next = mail->next;
        if (!server->closing)
            take(server, arrival);
        nng_msg_free(arrival->message);
        free(arrival);
    }
}

void repl_server_answer(struct repl_server *server, uint64_t token, struct slice head, struct slice rest)
{
    struct fetch_context *context = &server->contexts[token];
    nng_msg *message;
    assert(context->state == FETCH_WAITING);
    if (nng_msg_alloc(&message, head.len + rest.len) != 0) {
        receive(context);
        return;
    }
    memcpy(nng_msg_body(message), head.data, head.len);
    if (rest.len > 0)
        memcpy((uint8_t *)nng_msg_body(message) + head.len, rest.data, rest.len);
    context->state = FETCH_ANSWERING;
    nng_aio_set_timeout(context->aio, ANSWER_TIMEOUT_MS);
    nng_aio_set_msg(context->aio, message);
    nng_ctx_send(context->ctx, context->aio);
}

void repl_server_abandon(struct repl_server *server, uint64_t token)
{
    assert(server->contexts[token].state == FETCH_WAITING);
    receive(&server->contexts[token]);
}

enum sh_error repl_server_open(const struct repl_server_options *options, struct repl_server **out)
{
    char url[URL_MAX];
    struct repl_server *server = xcalloc(1, sizeof *server);
    server->options = *options;
    server->look = (struct loop_timer){.fn = on_look, .arg = server};
    server->contexts = xcalloc(options->contexts, sizeof *server->contexts);
    mailbox_open(&server->mailbox, options->loop, on_mail, server);
    nng_need(nng_rep0_open(&server->rep), "nng_rep0_open");
    for (unsigned i = 0; i < options->contexts; i++) {
        struct fetch_context *context = &server->contexts[i];
        context->server = server;
        nng_need(nng_ctx_open(&context->ctx, server->rep), "nng_ctx_open");
        nng_need(nng_aio_alloc(&context->aio, on_context, context), "nng_aio_alloc");
        receive(context);
    }
    snprintf(url, sizeof url, "tcp://%s:%u", options->host, options->port);
    enum sh_error e = nng_listen_on(server->rep, url, options->message_bytes);
    if (e == SH_OK)
        *out = server;
    else
        repl_server_close(server);
    return e;
}

void repl_server_close(struct repl_server *server)
{
    server->closing = true;
    loop_timer_cancel(server->options.loop, &server->look);
    for (unsigned i = 0; i < server->options.contexts; i++)
        nng_aio_stop(server->contexts[i].aio);
    nng_close(server->rep);
    mailbox_close(&server->mailbox);
    for (unsigned i = 0; i < server->options.contexts; i++)
        nng_aio_free(server->contexts[i].aio);
    free(server->contexts);
    free(server);
}
