/* The asking end of fetches.
 *
 *   idle ──ask──► resolving (a name) ──► looking ──► asking ──answer──► idle, with a connection
 *     ▲               │                    │           │
 *     └── failure ◄───┴────────────────────┴───────────┘  the connection is given up
 *
 * Nothing here is fatal. */
#include "repl_fetcher.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptors.h"
#include "log.h"
#include "nng_closer.h"
#include "pipeline_parts.h"
#include "push_socket.h"

enum { REDIAL_FIRST_MS = 10, REDIAL_MOST_MS = 500, LINGER_S = 15, URL_MAX = 128 };

/* A REQ socket; closed in a thread of its own (nng_closer.h). */
struct fetch_conn {
    nng_socket req;
    nng_dialer dialer;
    nng_aio *send, *receive;
    struct mail_gate *gate;
    uint64_t generation;
    bool answered; /* it was connected: closing it is safe at once */
};

struct repl_fetched {
    struct mail mail;
    uint64_t generation;
    nng_msg *message; /* NULL: the connection broke */
};

struct fetch_slot {
    struct repl_fetcher *fetcher;
    unsigned number;
    struct fetch_conn *conn; /* NULL: none */
    char host[PIPELINE_HOST_MAX];
    uint16_t port;
    struct pipeline_address address;
    struct pipeline_look look;
    nng_msg *message; /* to be sent */
    uint64_t serial;  /* of the fetch under way; 0: none */
    uint64_t resolving;
    uint64_t generation; /* of its connection */
};

struct repl_fetcher {
    struct repl_fetcher_options options;
    struct mailbox mailbox, names;
    struct mail_gate *gate; /* for names */
    struct fetch_slot *slots;
    uint64_t generations;
};

struct slice repl_fetched_message(const struct repl_fetched *fetched)
{
    return slice_of(nng_msg_body(fetched->message), nng_msg_len(fetched->message));
}

void repl_fetched_free(struct repl_fetched *fetched)
{
    if (fetched->message != NULL)
        nng_msg_free(fetched->message);
    free(fetched);
}

/* ---- nng's threads ---- */

static void post(struct fetch_conn *conn, nng_msg *message)
{
    struct repl_fetched *fetched = xcalloc(1, sizeof *fetched);
    fetched->generation = conn->generation;
    fetched->message = message;
    if (!mail_gate_post(conn->gate, &fetched->mail, message != NULL))
        repl_fetched_free(fetched);
}

/* Receiving begins here, see link_conn.c. */
static void on_sent(void *arg)
{
    struct fetch_conn *conn = arg;
    if (nng_aio_result(conn->send) == 0) {
        nng_recv_aio(conn->req, conn->receive);
        return;
    }
    nng_msg_free(nng_aio_get_msg(conn->send));
    nng_aio_set_msg(conn->send, NULL);
    post(conn, NULL);
}

static void on_received(void *arg)
{
    struct fetch_conn *conn = arg;
    post(conn, nng_aio_result(conn->receive) == 0 ? nng_aio_get_msg(conn->receive) : NULL);
}

/* ---- connections ---- */

static void close_conn(void *arg)
{
    struct fetch_conn *conn = arg;
    nng_aio *aios[] = {conn->send, conn->receive};
    if (!conn->answered)
        sleep(LINGER_S); /* it may be dialing: nng #1657 */
    nng_close(conn->req);
    for (size_t i = 0; i < sizeof aios / sizeof aios[0]; i++) {
        if (aios[i] == NULL)
            continue;
        nng_aio_stop(aios[i]);
        nng_aio_free(aios[i]);
    }
    mail_gate_leave(conn->gate);
    free(conn);
}

static void dispose(struct fetch_slot *slot)
{
    if (slot->conn == NULL)
        return;
    mail_gate_shut(slot->conn->gate);
    nng_dial_rarely(slot->conn->dialer);
    nng_closer_start(close_conn, slot->conn);
    slot->conn = NULL;
}

static int open_req(struct fetch_conn *conn, const char *url, size_t message_bytes)
{
    int rv = nng_req0_open(&conn->req);
    if (rv == 0)
        rv = nng_aio_alloc(&conn->send, on_sent, conn);
    if (rv == 0)
        rv = nng_aio_alloc(&conn->receive, on_received, conn);
    /* Never resend by itself: a lost connection is an error at once. */
    if (rv == 0)
        rv = nng_socket_set_ms(conn->req, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (rv == 0)
        rv = nng_socket_set_size(conn->req, NNG_OPT_RECVMAXSZ, message_bytes);
    return rv == 0 ? nng_dial_background(conn->req, url, REDIAL_FIRST_MS, REDIAL_MOST_MS, &conn->dialer) : rv;
}

static bool connect_slot(struct fetch_slot *slot)
{
    char url[URL_MAX];
    struct repl_fetcher *fetcher = slot->fetcher;
    if (!pipeline_address_url(&slot->address, url, sizeof url))
        return false;
    struct fetch_conn *conn = xcalloc(1, sizeof *conn);
    conn->gate = mail_gate_open(&fetcher->mailbox);
    conn->generation = slot->generation = ++fetcher->generations;
    descriptors_lift();
    int rv = open_req(conn, url, fetcher->options.message_bytes);
    descriptors_lower();
    slot->conn = conn;
    if (rv == 0)
        return true;
    log_error("cannot open a connection", log_text("url", url), log_text("error", nng_strerror(rv)));
    conn->answered = true; /* it dials nobody */
    dispose(slot);
    return false;
}

/* ---- a fetch ---- */

static void drop_message(struct fetch_slot *slot)
{
    if (slot->message != NULL)
        nng_msg_free(slot->message);
    slot->message = NULL;
}

static void fail(struct fetch_slot *slot)
{
    struct repl_fetcher *fetcher = slot->fetcher;
    uint64_t serial = slot->serial;
    drop_message(slot);
    dispose(slot);
    slot->serial = 0;
    fetcher->options.on_failure(fetcher->options.arg, slot->number, serial);
}

static void send_message(struct fetch_slot *slot)
{
    nng_aio_set_msg(slot->conn->send, slot->message);
    slot->message = NULL;
    nng_send_aio(slot->conn->req, slot->conn->send);
}

static void on_looked(void *arg, bool found)
{
    struct fetch_slot *slot = arg;
    if (found && connect_slot(slot))
        send_message(slot);
    else
        fail(slot);
}

static void look(struct fetch_slot *slot)
{
    slot->look.loop = slot->fetcher->options.loop;
    slot->look.on_end = on_looked;
    slot->look.arg = slot;
    if (!pipeline_look_start(&slot->look, &slot->address))
        fail(slot);
}

static void find_address(struct fetch_slot *slot)
{
    struct repl_fetcher *fetcher = slot->fetcher;
    if (pipeline_address_parse(slot->host, slot->port, &slot->address)) {
        look(slot);
        return;
    }
    slot->resolving = ++fetcher->generations;
    if (!pipeline_resolve(slot->host, slot->port, slot->resolving, fetcher->gate)) {
        slot->resolving = 0;
        fail(slot);
    }
}

void repl_fetcher_ask(struct repl_fetcher *fetcher, unsigned number, uint64_t serial, const char *host,
                      uint16_t port, struct slice message)
{
    struct fetch_slot *slot = &fetcher->slots[number];
    repl_fetcher_cancel(fetcher, number);
    bool same = slot->conn != NULL && slot->port == port && strcmp(slot->host, host) == 0;
    slot->serial = serial;
    if (nng_msg_alloc(&slot->message, message.len) != 0) {
        fail(slot);
        return;
    }
    memcpy(nng_msg_body(slot->message), message.data, message.len);
    if (same) {
        send_message(slot);
        return;
    }
    dispose(slot);
    snprintf(slot->host, sizeof slot->host, "%s", host);
    slot->port = port;
    find_address(slot);
}

/* A connection that still waits for an answer is of no use to the next fetch. */
void repl_fetcher_cancel(struct repl_fetcher *fetcher, unsigned number)
{
    struct fetch_slot *slot = &fetcher->slots[number];
    if (slot->serial == 0)
        return;
    slot->serial = 0;
    slot->resolving = 0;
    drop_message(slot);
    pipeline_look_stop(&slot->look);
    dispose(slot);
}

/* ---- mail ---- */

static struct fetch_slot *slot_of(struct repl_fetcher *fetcher, uint64_t generation)
{
    for (unsigned i = 0; i < fetcher->options.slots; i++)
        if (fetcher->slots[i].conn != NULL && fetcher->slots[i].generation == generation)
            return &fetcher->slots[i];
    return NULL;
}

static void take(struct repl_fetcher *fetcher, struct repl_fetched *fetched)
{
    struct fetch_slot *slot = slot_of(fetcher, fetched->generation);
    if (slot == NULL || slot->serial == 0) {
        repl_fetched_free(fetched);
        return;
    }
    if (fetched->message == NULL) {
        repl_fetched_free(fetched);
        fail(slot);
        return;
    }
    uint64_t serial = slot->serial;
    slot->serial = 0;
    slot->conn->answered = true;
    fetcher->options.on_answer(fetcher->options.arg, slot->number, serial, fetched);
}

static void on_mail(void *arg, struct mail *first)
{
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        take(arg, (struct repl_fetched *)mail);
    }
}

static void on_name(void *arg, struct mail *first)
{
    struct repl_fetcher *fetcher = arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct pipeline_event *event = (struct pipeline_event *)mail;
        next = mail->next;
        for (unsigned i = 0; i < fetcher->options.slots; i++) {
            struct fetch_slot *slot = &fetcher->slots[i];
            if (slot->serial == 0 || slot->resolving != event->id)
                continue;
            slot->resolving = 0;
            slot->address = event->address;
            if (slot->address.len > 0)
                look(slot);
            else
                fail(slot);
        }
        free(event);
    }
}

/* ---- life ---- */

struct repl_fetcher *repl_fetcher_open(const struct repl_fetcher_options *options)
{
    struct repl_fetcher *fetcher = xcalloc(1, sizeof *fetcher);
    fetcher->options = *options;
    fetcher->slots = xcalloc(options->slots, sizeof *fetcher->slots);
    for (unsigned i = 0; i < options->slots; i++)
        fetcher->slots[i] = (struct fetch_slot){.fetcher = fetcher, .number = i, .look.fd.fd = -1};
    mailbox_open(&fetcher->mailbox, options->loop, on_mail, fetcher);
    mailbox_open(&fetcher->names, options->loop, on_name, fetcher);
    fetcher->gate = mail_gate_open(&fetcher->names);
    return fetcher;
}

void repl_fetcher_close(struct repl_fetcher *fetcher)
{
    for (unsigned i = 0; i < fetcher->options.slots; i++) {
        repl_fetcher_cancel(fetcher, i);
        dispose(&fetcher->slots[i]);
    }
    mail_gate_shut(fetcher->gate);
    mail_gate_leave(fetcher->gate);
    mailbox_close(&fetcher->mailbox);
    mailbox_close(&fetcher->names);
    free(fetcher->slots);
    free(fetcher);
}
