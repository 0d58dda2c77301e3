/* The self-ping, over bare pairs of sockets (link_conn.h). Nothing here is fatal; sockets that cannot be
 * opened say nothing about the link, and count for nothing.
 *
 *   1  sockets dial, a poll is out
 *   2  it is answered and the pipeline is connected: an echo is pushed, a second poll is out
 *   3  its reply has accepted the echo: answered. A poll that is refused answers as well.
 *
 * That the pipeline is connected is not enough: a listener that nng has lost still shakes hands. */
#include "self_ping.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptors.h"
#include "link_conn.h"
#include "log.h"

enum {
    REPLY_BYTES = 64 << 10,
    PINGS_MISSED_MOST = 2,
    CLOSING_MOST = 64, /* closes that hang: nng closes nothing any more in this process */
};
#define PING_EACH_NS NS_PER_S

struct ping {
    struct link_conn *conn;
    uint64_t generation; /* also the number of its echo */
    bool connected, polled, pushed, answered;
};

struct self_ping {
    struct loop *loop;
    char endpoint[LINK_ENDPOINT_MAX], in_url[LINK_ENDPOINT_MAX], out_url[LINK_ENDPOINT_MAX];
    struct slice cluster, sender;
    struct id16 session;
    void (*on_dead)(const char *endpoint);
    struct mailbox mailbox;
    struct loop_timer timer;
    uint64_t generation, incarnation, received; /* incarnation, received: of the session, for its next poll */
    /* The last ping, and those before it as long as none is answered. */
    struct ping pings[PINGS_MISSED_MOST];
    unsigned count;
    bool crowded; /* no descriptors were left at the last look */
};

/* ---- messages ---- */

static nng_msg *message_of(const struct self_ping *p, uint32_t type, const void *body, uint64_t number)
{
    const struct msg_envelope envelope = {
        .type = type, .cluster = p->cluster, .sender = p->sender, .session = p->session, .number = number};
    struct buf bytes = {0};
    nng_msg *message;
    msg_pack_envelope(&bytes, &envelope);
    msg_encode(type, body, &bytes);
    if (nng_msg_alloc(&message, bytes.len) != 0)
        abort();
    memcpy(nng_msg_body(message), bytes.data, bytes.len);
    buf_free(&bytes);
    return message;
}

static void send_poll(struct self_ping *p, struct ping *ping, uint64_t wait_ms)
{
    const struct msg_poll poll = {.received = p->received, .wait_ms = wait_ms, .incarnation = p->incarnation};
    link_conn_poll(ping->conn, message_of(p, MSG_poll, &poll, 0));
}

static void send_echo(struct self_ping *p, struct ping *ping)
{
    nng_msg *message = message_of(p, MSG_echo, &(struct msg_echo){0}, ping->generation);
    ping->pushed = link_conn_push(ping->conn, message);
    if (ping->pushed)
        send_poll(p, ping, LINK_POLL_MS);
    else
        nng_msg_free(message);
}

static void on_reply(struct self_ping *p, struct ping *ping, struct slice bytes)
{
    struct msg_envelope e;
    struct msg_poll_reply reply;
    if (msg_open(bytes, &e) != SH_OK)
        return;
    if (e.type != MSG_poll_reply) {
        ping->answered = true;
    } else if (msg_decode(MSG_poll_reply, e.body, &reply) == SH_OK) {
        p->incarnation = reply.incarnation;
        p->received = reply.reply;
        ping->polled = true;
        ping->answered = ping->pushed && reply.accepted >= ping->generation;
    }
}

static void on_event(struct self_ping *p, const struct link_event *event)
{
    struct ping *ping = p->pings;
    while (ping < p->pings + p->count && ping->generation != event->generation)
        ping++;
    if (ping == p->pings + p->count)
        return;
    if (event->kind == LINK_PUSH_UP)
        ping->connected = true;
    else if (event->kind == LINK_REPLIED)
        on_reply(p, ping, slice_of(nng_msg_body(event->message), nng_msg_len(event->message)));
    if (ping->connected && ping->polled && !ping->pushed)
        send_echo(p, ping);
}

static void on_mail(void *arg, struct mail *first)
{
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        on_event(arg, (struct link_event *)mail);
        link_event_free((struct link_event *)mail);
    }
}

/* ---- time ---- */

static bool is_answered(const struct self_ping *p)
{
    for (unsigned i = 0; i < p->count; i++)
        if (p->pings[i].answered)
            return true;
    return p->count == 0;
}

/* Only once one was answered: to connect and close at once is what ends a listener. */
static void close_pings(struct self_ping *p)
{
    while (p->count > 0)
        link_conn_dispose(p->pings[--p->count].conn);
}

static void send_ping(struct self_ping *p)
{
    struct ping *ping = &p->pings[p->count];
    *ping = (struct ping){.generation = ++p->generation};
    descriptors_lift();
    enum sh_error error = link_conn_open(p->in_url, p->out_url, LINK_DIAL_AGAIN, REPLY_BYTES,
                                         ping->generation, &p->mailbox, &ping->conn);
    descriptors_lower();
    if (error != SH_OK)
        return;
    p->count++;
    send_poll(p, ping, 0);
}

/* Connections have taken the descriptors: a ping would wait, dead link or not, until some have gone. None is
 * sent as long as there are few left: nng ends a connection that has waited for 10 s, and what is closed
 * before it was accepted ends a listener. Therefore those that are out stay, too; that they are not answered
 * says nothing meanwhile. */
static bool is_crowded(struct self_ping *p)
{
    bool crowded = !descriptors_plenty();
    if (crowded && !p->crowded)
        log_warn("connections have taken the descriptors; no self-pings until some have gone");
    p->crowded = crowded;
    return crowded;
}

static void miss_or_send(struct self_ping *p)
{
    if (p->count > 0)
        log_warn("the self-ping is not answered", log_text("endpoint", p->endpoint),
                 log_uint("times", p->count));
    if (p->count == PINGS_MISSED_MOST || link_conn_closing() > CLOSING_MOST)
        p->on_dead(p->endpoint);
    else
        send_ping(p);
}

static void on_timer(void *arg)
{
    struct self_ping *p = arg;
    loop_timer_after(p->loop, &p->timer, PING_EACH_NS);
    if (is_answered(p))
        close_pings(p);
    if (!is_crowded(p))
        miss_or_send(p);
}

/* ---- life ---- */

struct self_ping *self_ping_open(struct loop *loop, const char *endpoint, struct slice cluster,
                                 struct slice sender, struct id16 session,
                                 void (*on_dead)(const char *endpoint))
{
    struct self_ping *p = xcalloc(1, sizeof *p);
    if (link_endpoint_urls(endpoint, p->in_url, p->out_url) != SH_OK) {
        free(p);
        return NULL;
    }
    snprintf(p->endpoint, sizeof p->endpoint, "%s", endpoint);
    p->loop = loop;
    p->cluster = cluster;
    p->sender = sender;
    p->session = session;
    p->on_dead = on_dead;
    mailbox_open(&p->mailbox, loop, on_mail, p);
    p->timer = (struct loop_timer){.fn = on_timer, .arg = p};
    loop_timer_after(loop, &p->timer, PING_EACH_NS);
    return p;
}

void self_ping_close(struct self_ping *p)
{
    loop_timer_cancel(p->loop, &p->timer);
    close_pings(p);
    mailbox_close(&p->mailbox);
    free(p);
}
