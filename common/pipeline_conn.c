/* The nng side of a pipeline's sending end. One message is with nng at a time, so that all others can be
 * counted. Nothing here is fatal. */
#include "pipeline_parts.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptors.h"
#include "log.h"
#include "nng_closer.h"
#include "push_socket.h"

enum { REDIAL_FIRST_MS = 10, REDIAL_MOST_MS = 1000, URL_MAX = 128 };

struct pipeline_conn {
    struct push_socket *push;
    nng_aio *aio;
    struct mail_gate *gate;
    uint64_t id;
    unsigned linger_s;
};

/* ---- nng's threads ---- */

static void post(struct pipeline_conn *conn, enum pipeline_event_kind kind)
{
    struct pipeline_event *event = xcalloc(1, sizeof *event);
    event->id = conn->id;
    event->kind = kind;
    if (!mail_gate_post(conn->gate, &event->mail, kind == PIPELINE_SENT))
        free(event);
}

static void on_up(void *arg)
{
    post(arg, PIPELINE_UP);
}

static void on_down(void *arg)
{
    post(arg, PIPELINE_DOWN);
}

/* It fails only when the socket is closed. */
static void on_sent(void *arg)
{
    struct pipeline_conn *conn = arg;
    if (nng_aio_result(conn->aio) == 0) {
        post(conn, PIPELINE_SENT);
    } else {
        nng_msg_free(nng_aio_get_msg(conn->aio));
        nng_aio_set_msg(conn->aio, NULL);
    }
}

/* ---- the loop's ---- */

static void close_conn(void *arg)
{
    struct pipeline_conn *conn = arg;
    sleep(conn->linger_s);
    if (conn->push != NULL)
        push_socket_close(conn->push);
    if (conn->aio != NULL) {
        nng_aio_stop(conn->aio);
        nng_aio_free(conn->aio);
    }
    mail_gate_leave(conn->gate);
    free(conn);
}

static int open_push(struct pipeline_conn *conn, const char *url)
{
    const struct push_options options = {
        .url = url,
        .redial_first_ms = REDIAL_FIRST_MS,
        .redial_most_ms = REDIAL_MOST_MS,
        .on_up = on_up,
        .on_down = on_down,
        .arg = conn,
    };
    int rv = nng_aio_alloc(&conn->aio, on_sent, conn);
    if (rv != 0)
        return rv;
    descriptors_lift();
    rv = push_socket_open(&options, &conn->push);
    descriptors_lower();
    return rv;
}

struct pipeline_conn *pipeline_conn_open(const struct pipeline_address *to, uint64_t id,
                                         struct mailbox *mailbox)
{
    char url[URL_MAX];
    if (!pipeline_address_url(to, url, sizeof url))
        return NULL;
    struct pipeline_conn *conn = xcalloc(1, sizeof *conn);
    conn->id = id;
    conn->gate = mail_gate_open(mailbox);
    int rv = open_push(conn, url);
    if (rv == 0)
        return conn;
    log_error("cannot open a connection", log_text("url", url), log_text("error", nng_strerror(rv)));
    close_conn(conn); /* it has no connection: that doesn't wait */
    return NULL;
}

bool pipeline_conn_send(struct pipeline_conn *conn, struct slice message)
{
    nng_msg *copy;
    if (nng_msg_alloc(&copy, message.len) != 0)
        return false;
    memcpy(nng_msg_body(copy), message.data, message.len);
    nng_aio_set_msg(conn->aio, copy);
    if (push_socket_start(conn->push, conn->aio))
        return true;
    nng_aio_set_msg(conn->aio, NULL);
    nng_msg_free(copy);
    return false;
}

void pipeline_conn_mute(struct pipeline_conn *conn)
{
    mail_gate_shut(conn->gate);
    push_socket_dial_rarely(conn->push);
}

void pipeline_conn_dispose(struct pipeline_conn *conn, unsigned linger_s)
{
    mail_gate_shut(conn->gate);
    conn->linger_s = linger_s;
    nng_closer_start(close_conn, conn);
}
