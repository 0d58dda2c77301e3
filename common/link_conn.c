/* The nng side of a link's client end.
 *
 * nng's callbacks run on nng's threads and post events. A wedged nng (see docs/architecture.md, "The
 * link") may keep a close from ever returning, so sockets are closed by a thread that nobody waits for, and
 * what belongs to them is freed by that thread or never; such a pair no longer knows its client. Fatal: nng
 * running out of memory or descriptors while it opens sockets. */
#include "link_conn.h"

#include <assert.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "mail_gate.h"
#include "nng_closer.h"
#include "push_socket.h"

enum {
    /* nng doubles the time from try to try, and waits for a random part of it: a listener that comes back
     * soon is seen within milliseconds, and one that stays away costs little. Each try costs a millisecond of
     * work. */
    REDIAL_FIRST_MS = 10,
    REDIAL_MOST_MS = 500,
    /* A pair that dials once: longer than it lives. nng waits for a random part of it, or, at times, not at
     * all (docs/adr/0001); so once can mean twice, seldom more. */
    REDIAL_NEVER_MS = 7 * 24 * 3600 * 1000,
    PUSH_QUEUE = 1024, /* messages inside nng; the credit keeps them fewer */
    LINGER_S = 1,
};

struct link_conn {
    char push_url[LINK_ENDPOINT_MAX];
    enum link_dial dial;
    struct push_socket *push; /* NULL: none could be opened */
    nng_socket req;
    nng_dialer req_dialer;
    nng_aio *push_aio, *poll_aio, *reply_aio;
    uint64_t generation;
    atomic_uint users; /* itself and its PUSH sockets, those that are being closed too */
    struct mail_gate *gate;
    unsigned linger_s; /* before it is closed */
};

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
    *event = values;
    event->generation = conn->generation;
    if (!mail_gate_post(conn->gate, &event->mail, event->kind == LINK_REPLIED))
        link_event_free(event);
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

static void on_push_up(void *arg)
{
    post(arg, (struct link_event){.kind = LINK_PUSH_UP});
}

static void on_push_down(void *arg)
{
    post(arg, (struct link_event){.kind = LINK_PUSH_DOWN});
}

static void leave(void *arg)
{
    struct link_conn *conn = arg;
    if (atomic_fetch_sub(&conn->users, 1) > 1)
        return;
    mail_gate_leave(conn->gate);
    free(conn);
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

static nng_duration redial_ms(const struct link_conn *conn, nng_duration ms)
{
    return conn->dial == LINK_DIAL_ONCE ? REDIAL_NEVER_MS : ms;
}

static int open_push(struct link_conn *conn)
{
    const struct push_options options = {
        .url = conn->push_url,
        .queue = PUSH_QUEUE,
        .redial_first_ms = redial_ms(conn, REDIAL_FIRST_MS),
        .redial_most_ms = redial_ms(conn, REDIAL_MOST_MS),
        .on_up = on_push_up,
        .on_down = on_push_down,
        .on_closed = leave,
        .arg = conn,
    };
    conn->push = NULL;
    atomic_fetch_add(&conn->users, 1);
    return push_socket_open(&options, &conn->push);
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
    return rv == 0 ? nng_dial_background(conn->req, url, redial_ms(conn, REDIAL_FIRST_MS),
                                         redial_ms(conn, REDIAL_MOST_MS), &conn->req_dialer)
                   : rv;
}

enum sh_error link_conn_open(const char *in_url, const char *out_url, enum link_dial dial, size_t reply_bytes,
                             uint64_t generation, struct mailbox *mailbox, struct link_conn **out)
{
    struct link_conn *conn = xcalloc(1, sizeof *conn);
    conn->dial = dial;
    conn->generation = generation;
    conn->gate = mail_gate_open(mailbox);
    conn->users = 1;
    snprintf(conn->push_url, sizeof conn->push_url, "%s", in_url);
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

bool link_conn_push(struct link_conn *conn, nng_msg *message)
{
    if (conn->push == NULL)
        return false;
    nng_aio_set_msg(conn->push_aio, message);
    return push_socket_try(conn->push, conn->push_aio);
}

void link_conn_mute(struct link_conn *conn)
{
    mail_gate_shut(conn->gate);
    if (conn->dial == LINK_DIAL_ONCE)
        return;
    if (conn->push != NULL)
        push_socket_dial_rarely(conn->push);
    nng_dial_rarely(conn->req_dialer);
}

static void close_push(void *arg)
{
    push_socket_close(arg);
}

static void close_conn(void *arg)
{
    struct link_conn *conn = arg;
    nng_aio *aios[] = {conn->push_aio, conn->poll_aio, conn->reply_aio};
    sleep(conn->linger_s);
    nng_close(conn->req);
    if (conn->push != NULL)
        push_socket_close(conn->push);
    for (size_t i = 0; i < sizeof aios / sizeof aios[0]; i++) {
        if (aios[i] == NULL)
            continue;
        nng_aio_stop(aios[i]);
        nng_aio_free(aios[i]);
    }
    leave(conn);
}

bool link_conn_renew_push(struct link_conn *conn)
{
    if (conn->push != NULL)
        nng_closer_start(close_push, conn->push);
    int rv = open_push(conn);
    if (rv == 0)
        return true;
    log_error("cannot open a connection", log_text("url", conn->push_url),
              log_text("error", nng_strerror(rv)));
    return false;
}

void link_conn_dispose(struct link_conn *conn)
{
    mail_gate_shut(conn->gate);
    nng_closer_start(close_conn, conn);
}

void link_conn_dispose_later(struct link_conn *conn)
{
    conn->linger_s = LINGER_S;
    link_conn_dispose(conn);
}

unsigned link_conn_closing(void)
{
    return nng_closer_count();
}
