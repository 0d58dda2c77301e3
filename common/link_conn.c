/* The nng side of a link's client end.
 *
 * nng's callbacks run on nng's threads and post events. A wedged nng (see docs/architecture.md, "The
 * link") may keep a close from ever returning, so sockets are closed by a thread that nobody waits for, and
 * what belongs to them is freed by that thread or never; such a pair no longer knows its client. Fatal: nng
 * running out of memory or descriptors while it opens sockets. */
#include "link_conn.h"

#include <assert.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/req.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

enum {
    /* nng doubles the time from try to try, and waits for a random part of it: a listener that comes back
     * soon is seen within milliseconds, and one that stays away costs little. Each try costs a millisecond of
     * work. */
    REDIAL_FIRST_MS = 10,
    REDIAL_MOST_MS = 500,
    REDIAL_MUTED_MS = 60000,
    /* A pair that dials once: longer than it lives. nng waits for a random part of it, or, at times, not at
     * all (docs/adr/0001); so once can mean twice, seldom more. */
    REDIAL_NEVER_MS = 7 * 24 * 3600 * 1000,
    PUSH_QUEUE = 1024, /* messages inside nng; the credit keeps them fewer */
    CLOSER_STACK = 128 << 10,
    LINGER_S = 1,
};

/* A PUSH socket for one connection.
 *
 * nng 1.5.2 may take a connection whose last message went out while it was being closed for one that can
 * send, and free it (nng #1653). Whatever the socket sends next, and the connection that it gets next, would
 * go through freed memory. So it gets no second connection, and sends nothing once the first is over:
 *
 *   reaper thread: REM_POST ── over = true ── dialer closed ── LINK_PUSH_DOWN ──► connection freed
 *   loop's thread: ... sends under the lock ... ◄── over: nothing is sent ──► a fresh pipeline
 *
 * A dialer that is connected dials nobody, so it is safe to close it then (see link_client.c, limbo). */
struct pipeline {
    struct link_conn *conn;
    nng_socket socket;
    nng_dialer dialer;
    pthread_mutex_t lock;
    bool over; /* under the lock */
};

struct link_conn {
    char push_url[LINK_ENDPOINT_MAX];
    enum link_dial dial;
    struct pipeline *pipeline; /* NULL: none could be opened */
    nng_socket req;
    nng_dialer req_dialer;
    nng_aio *push_aio, *poll_aio, *reply_aio;
    uint64_t generation;
    atomic_uint users; /* itself and its pipelines, those that are being closed too */
    pthread_mutex_t lock;
    struct mailbox *mailbox; /* NULL once muted; under the lock */
    unsigned linger_s;       /* before it is closed */
};

static atomic_uint closing;

void link_event_free(struct link_event *event)
{
    if (event->message != NULL)
        nng_msg_free(event->message);
    free(event);
}

/* ---- nng's threads ---- */

/* Replies are dealt with here and now when nobody has the loop's turn; of what nng reports while it puts up
 * or takes down a connection, the loop's thread hears. */
static void post(struct link_conn *conn, struct link_event values)
{
    struct link_event *event = xmalloc(sizeof *event);
    bool has_turn = false;
    *event = values;
    event->generation = conn->generation;
    pthread_mutex_lock(&conn->lock);
    struct mailbox *mailbox = conn->mailbox;
    struct loop *loop = mailbox != NULL ? mailbox->loop : NULL;
    if (mailbox != NULL && event->kind == LINK_REPLIED)
        has_turn = mailbox_put_turn(mailbox, &event->mail);
    else if (mailbox != NULL)
        mailbox_put(mailbox, &event->mail);
    pthread_mutex_unlock(&conn->lock);
    if (mailbox == NULL)
        link_event_free(event);
    else if (has_turn)
        loop_turn(loop);
}

/* Receiving begins here and not with the send: nng 1.5.2 panics when the same aio sends again after a receive
 * failed while its request had not gone out. */
static void on_poll_sent(void *arg)
{
    struct link_conn *conn = arg;
    if (nng_aio_result(conn->poll_aio) == 0) {
        nng_recv_aio(conn->req, conn->reply_aio);
        return;
    }
    nng_msg_free(nng_aio_get_msg(conn->poll_aio));
    post(conn, (struct link_event){.kind = LINK_POLL_FAILED});
}

static void on_reply(void *arg)
{
    struct link_conn *conn = arg;
    if (nng_aio_result(conn->reply_aio) == 0)
        post(conn, (struct link_event){.kind = LINK_REPLIED, .message = nng_aio_get_msg(conn->reply_aio)});
    else
        post(conn, (struct link_event){.kind = LINK_POLL_FAILED});
}

static void on_push_up(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct pipeline *pipeline = arg;
    (void)pipe, (void)event;
    post(pipeline->conn, (struct link_event){.kind = LINK_PUSH_UP});
}

/* nng may tell this before the other; but closing the dialer waits until that was told. */
static void on_push_down(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct pipeline *pipeline = arg;
    (void)pipe, (void)event;
    pthread_mutex_lock(&pipeline->lock);
    pipeline->over = true;
    pthread_mutex_unlock(&pipeline->lock);
    nng_dialer_close(pipeline->dialer);
    post(pipeline->conn, (struct link_event){.kind = LINK_PUSH_DOWN});
}

/* Of a pair that dials once. */
static void on_req_down(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct link_conn *conn = arg;
    (void)pipe, (void)event;
    nng_dialer_close(conn->req_dialer);
    post(conn, (struct link_event){.kind = LINK_REQ_DOWN});
}

/* ---- the loop's thread ---- */

static int dial(const struct link_conn *conn, nng_socket socket, const char *url, nng_dialer *dialer)
{
    bool once = conn->dial == LINK_DIAL_ONCE;
    int rv = nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, once ? REDIAL_NEVER_MS : REDIAL_FIRST_MS);
    if (rv == 0)
        rv = nng_socket_set_ms(socket, NNG_OPT_RECONNMAXT, once ? REDIAL_NEVER_MS : REDIAL_MOST_MS);
    if (rv == 0)
        rv = nng_dialer_create(dialer, socket, url);
    if (rv != 0)
        return rv;
    nng_dialer_set_bool(*dialer, NNG_OPT_TCP_KEEPALIVE, true); /* means nothing over ipc */
    return nng_dialer_start(*dialer, NNG_FLAG_NONBLOCK);
}

static int open_push(struct link_conn *conn)
{
    struct pipeline *pipeline = xcalloc(1, sizeof *pipeline);
    pipeline->conn = conn;
    conn->pipeline = pipeline;
    atomic_fetch_add(&conn->users, 1);
    pthread_mutex_init(&pipeline->lock, NULL);
    int rv = nng_push0_open(&pipeline->socket);
    if (rv == 0)
        rv = nng_socket_set_int(pipeline->socket, NNG_OPT_SENDBUF, PUSH_QUEUE);
    if (rv == 0)
        rv = nng_pipe_notify(pipeline->socket, NNG_PIPE_EV_ADD_POST, on_push_up, pipeline);
    if (rv == 0)
        rv = nng_pipe_notify(pipeline->socket, NNG_PIPE_EV_REM_POST, on_push_down, pipeline);
    return rv == 0 ? dial(conn, pipeline->socket, conn->push_url, &pipeline->dialer) : rv;
}

static int open_req(struct link_conn *conn, const char *url, size_t reply_bytes)
{
    int rv = nng_req0_open(&conn->req);
    if (rv == 0)
        rv = nng_aio_alloc(&conn->poll_aio, on_poll_sent, conn);
    if (rv == 0)
        rv = nng_aio_alloc(&conn->reply_aio, on_reply, conn);
    /* Never resend by itself: a lost connection is an error at once. */
    if (rv == 0)
        rv = nng_socket_set_ms(conn->req, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (rv == 0)
        rv = nng_socket_set_size(conn->req, NNG_OPT_RECVMAXSZ, reply_bytes);
    if (rv == 0 && conn->dial == LINK_DIAL_ONCE)
        rv = nng_pipe_notify(conn->req, NNG_PIPE_EV_REM_POST, on_req_down, conn);
    return rv == 0 ? dial(conn, conn->req, url, &conn->req_dialer) : rv;
}

enum sh_error link_conn_open(const char *in_url, const char *out_url, enum link_dial dial, size_t reply_bytes,
                             uint64_t generation, struct mailbox *mailbox, struct link_conn **out)
{
    struct link_conn *conn = xcalloc(1, sizeof *conn);
    conn->dial = dial;
    conn->generation = generation;
    conn->mailbox = mailbox;
    conn->users = 1;
    snprintf(conn->push_url, sizeof conn->push_url, "%s", in_url);
    pthread_mutex_init(&conn->lock, NULL);
    int rv = nng_aio_alloc(&conn->push_aio, NULL, NULL);
    if (rv == 0) {
        nng_aio_set_timeout(conn->push_aio, NNG_DURATION_ZERO);
        rv = open_push(conn);
    }
    if (rv == 0)
        rv = open_req(conn, out_url, reply_bytes);
    if (rv == 0) {
        *out = conn;
        return SH_OK;
    }
    link_conn_dispose(conn);
    if (rv == NNG_EINVAL || rv == NNG_EADDRINVAL || rv == NNG_ENOTSUP)
        return SH_BAD_REQUEST;
    log_error("cannot open a connection", log_text("url", in_url), log_text("error", nng_strerror(rv)));
    return SH_UNAVAILABLE;
}

void link_conn_poll(struct link_conn *conn, nng_msg *message)
{
    nng_aio_set_msg(conn->poll_aio, message);
    nng_send_aio(conn->req, conn->poll_aio);
}

/* With its timeout of zero the send is over when the call returns. */
bool link_conn_push(struct link_conn *conn, nng_msg *message)
{
    struct pipeline *pipeline = conn->pipeline;
    if (pipeline == NULL)
        return false;
    pthread_mutex_lock(&pipeline->lock);
    bool sent = !pipeline->over;
    if (sent) {
        nng_aio_set_msg(conn->push_aio, message);
        nng_send_aio(pipeline->socket, conn->push_aio);
        nng_aio_wait(conn->push_aio);
        sent = nng_aio_result(conn->push_aio) == 0;
    }
    pthread_mutex_unlock(&pipeline->lock);
    return sent;
}

static void mute(struct link_conn *conn)
{
    pthread_mutex_lock(&conn->lock);
    conn->mailbox = NULL;
    pthread_mutex_unlock(&conn->lock);
}

static void dial_rarely(nng_dialer dialer)
{
    nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, REDIAL_MUTED_MS);
    nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, REDIAL_MUTED_MS);
}

void link_conn_mute(struct link_conn *conn)
{
    mute(conn);
    if (conn->dial == LINK_DIAL_ONCE)
        return;
    if (conn->pipeline != NULL)
        dial_rarely(conn->pipeline->dialer);
    dial_rarely(conn->req_dialer);
}

static void leave(struct link_conn *conn)
{
    if (atomic_fetch_sub(&conn->users, 1) > 1)
        return;
    pthread_mutex_destroy(&conn->lock);
    free(conn);
}

/* Whatever was not opened is all zero, which nng takes for none. */
static void close_pipeline(struct pipeline *pipeline)
{
    nng_close(pipeline->socket);
    pthread_mutex_destroy(&pipeline->lock);
    leave(pipeline->conn);
    free(pipeline);
}

static void *pipeline_closer(void *arg)
{
    close_pipeline(arg);
    atomic_fetch_sub(&closing, 1);
    return NULL;
}

static void *conn_closer(void *arg)
{
    struct link_conn *conn = arg;
    nng_aio *aios[] = {conn->push_aio, conn->poll_aio, conn->reply_aio};
    sleep(conn->linger_s);
    nng_close(conn->req);
    if (conn->pipeline != NULL)
        close_pipeline(conn->pipeline);
    for (size_t i = 0; i < sizeof aios / sizeof aios[0]; i++) {
        if (aios[i] == NULL)
            continue;
        nng_aio_stop(aios[i]);
        nng_aio_free(aios[i]);
    }
    leave(conn);
    atomic_fetch_sub(&closing, 1);
    return NULL;
}

static void start_closer(void *(*closer)(void *arg), void *arg)
{
    pthread_attr_t attributes;
    pthread_t thread;
    atomic_fetch_add(&closing, 1);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, CLOSER_STACK);
    sigset_t all; /* whichever thread has the turn: signals are none of the closer's business */
    sigfillset(&all);
    pthread_attr_setsigmask_np(&attributes, &all);
    int rv = pthread_create(&thread, &attributes, closer, arg);
    if (rv != 0) /* out of threads: what was to be closed is left open, and counted */
        log_error("cannot start a thread to close a connection", log_text("error", strerror(rv)));
    pthread_attr_destroy(&attributes);
}

bool link_conn_renew_push(struct link_conn *conn)
{
    if (conn->pipeline != NULL)
        start_closer(pipeline_closer, conn->pipeline);
    int rv = open_push(conn);
    if (rv == 0)
        return true;
    log_error("cannot open a connection", log_text("url", conn->push_url),
              log_text("error", nng_strerror(rv)));
    start_closer(pipeline_closer, conn->pipeline);
    conn->pipeline = NULL;
    return false;
}

void link_conn_dispose(struct link_conn *conn)
{
    mute(conn);
    start_closer(conn_closer, conn);
}

void link_conn_dispose_later(struct link_conn *conn)
{
    conn->linger_s = LINGER_S;
    link_conn_dispose(conn);
}

unsigned link_conn_closing(void)
{
    return atomic_load(&closing);
}
