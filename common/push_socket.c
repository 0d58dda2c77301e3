/* PUSH sockets, and how any socket of ours dials. Nothing here is fatal. */
#include "push_socket.h"

#include <nng/protocol/pipeline0/push.h>
#include <pthread.h>
#include <stdlib.h>

#include "buf.h"

enum { REDIAL_RARELY_MS = 60000 };

struct push_socket {
    nng_socket socket;
    nng_dialer dialer;
    pthread_mutex_t lock;
    bool over; /* under the lock */
    void (*on_up)(void *arg);
    void (*on_down)(void *arg);
    void (*on_closed)(void *arg);
    void *arg;
};

int nng_dial_background(nng_socket socket, const char *url, nng_duration first_ms, nng_duration most_ms,
                        nng_dialer *dialer)
{
    int rv = nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, first_ms);
    if (rv == 0)
        rv = nng_socket_set_ms(socket, NNG_OPT_RECONNMAXT, most_ms);
    if (rv == 0)
        rv = nng_dialer_create(dialer, socket, url);
    if (rv != 0)
        return rv;
    nng_dialer_set_bool(*dialer, NNG_OPT_TCP_KEEPALIVE, true); /* means nothing over ipc */
    return nng_dialer_start(*dialer, NNG_FLAG_NONBLOCK);
}

void nng_dial_rarely(nng_dialer dialer)
{
    nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, REDIAL_RARELY_MS);
    nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, REDIAL_RARELY_MS);
}

/* ---- nng's threads ---- */

static void on_add(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct push_socket *push = arg;
    (void)pipe, (void)event;
    push->on_up(push->arg);
}

/* nng may tell this before the other; but closing the dialer waits until that was told. */
static void on_remove(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct push_socket *push = arg;
    (void)pipe, (void)event;
    pthread_mutex_lock(&push->lock);
    push->over = true;
    pthread_mutex_unlock(&push->lock);
    nng_dialer_close(push->dialer);
    push->on_down(push->arg);
}

/* ---- the owner's thread ---- */

static int open_socket(struct push_socket *push, const struct push_options *options)
{
    int rv = nng_push0_open(&push->socket);
    if (rv == 0)
        rv = nng_socket_set_int(push->socket, NNG_OPT_SENDBUF, options->queue);
    if (rv == 0)
        rv = nng_pipe_notify(push->socket, NNG_PIPE_EV_ADD_POST, on_add, push);
    if (rv == 0)
        rv = nng_pipe_notify(push->socket, NNG_PIPE_EV_REM_POST, on_remove, push);
    return rv == 0 ? nng_dial_background(push->socket, options->url, options->redial_first_ms,
                                         options->redial_most_ms, &push->dialer)
                   : rv;
}

int push_socket_open(const struct push_options *options, struct push_socket **out)
{
    struct push_socket *push = xcalloc(1, sizeof *push);
    push->on_up = options->on_up;
    push->on_down = options->on_down;
    push->on_closed = options->on_closed;
    push->arg = options->arg;
    pthread_mutex_init(&push->lock, NULL);
    int rv = open_socket(push, options);
    if (rv == 0)
        *out = push;
    else
        push_socket_close(push); /* it has no connection: that doesn't wait */
    return rv;
}

bool push_socket_try(struct push_socket *push, nng_aio *aio)
{
    pthread_mutex_lock(&push->lock);
    bool sent = !push->over;
    if (sent) {
        nng_send_aio(push->socket, aio);
        nng_aio_wait(aio);
        sent = nng_aio_result(aio) == 0;
    }
    pthread_mutex_unlock(&push->lock);
    return sent;
}

/* What waits for the connection is safe when that ends: only to begin afterwards is not. */
bool push_socket_start(struct push_socket *push, nng_aio *aio)
{
    pthread_mutex_lock(&push->lock);
    bool begun = !push->over;
    if (begun)
        nng_send_aio(push->socket, aio);
    pthread_mutex_unlock(&push->lock);
    return begun;
}

void push_socket_dial_rarely(struct push_socket *push)
{
    nng_dial_rarely(push->dialer);
}

/* Whatever was not opened is all zero, which nng takes for none. */
void push_socket_close(struct push_socket *push)
{
    nng_close(push->socket);
    pthread_mutex_destroy(&push->lock);
    if (push->on_closed != NULL)
        push->on_closed(push->arg);
    free(push);
}
