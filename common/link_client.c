/* The client's end of a link: one session over as many pairs of sockets as it takes.
 *
 *   AWAY        over ipc only: no process holds the far end's sockets, we look for one again and again
 *   CONNECTING  sockets dial, a hello poll (wait 0) is out; fresh sockets when that leads to nothing in time
 *   CONNECTED   the hello poll was answered and the pipeline is up: requests flow, a long poll is always out
 *
 * A broken connection leads to AWAY over ipc: dialling in vain is what nng does badly (docs/adr/0001). Over
 * tcp it leads back to CONNECTING with the same REQ socket, which dials by itself, and a fresh PUSH socket. A
 * poll that is overdue leads to fresh ones. Old sockets may still deliver requests: link.h says why that does
 * no harm. What is sent again is decided by link_session.c when the first poll_reply comes. Nothing here is
 * fatal. */
#include "link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "link_conn.h"
#include "link_presence.h"
#include "link_session.h"
#include "log.h"

enum {
    REPLY_BYTES_MIN = 2 * LINK_CHUNK_BYTES, /* a reply holds a chunk of answers at least */
    QUEUED_OVERHEAD = 128,                  /* what a request costs beside its body */
    LIMBO_MAX = 16,
    CLOSING_MAX = 64, /* closes that hang, before no more sockets are replaced */
    LOOKS_MIN = 2,    /* that find the far end before it is dialled: it may be about to listen, or to end */
    LOOK_SHARE = 8,   /* the next look comes after this part of the time that it was away, within these: */
};
#define LOOK_FIRST_NS    ((int64_t)NS_PER_MS)
#define LOOK_MOST_NS     (100 * (int64_t)NS_PER_MS)
#define REPLACE_FIRST_NS (100 * (int64_t)NS_PER_MS)
#define REPLACE_MOST_NS  (5 * NS_PER_S)
#define OVERDUE_NS       (2 * NS_PER_S)
#define REPOLL_FIRST_NS  (2 * (int64_t)NS_PER_MS)
#define REFUSED_NS       NS_PER_S
#define PUSH_RETRY_NS    NS_PER_MS
#define LIMBO_NS         NS_PER_S
#define STALLED_NS       (5 * NS_PER_S)
#define LOG_EACH_NS      (30 * NS_PER_S)

struct request {
    struct link_out out; /* first */
    uint32_t type;
    bool was_sent; /* at least once */
    uint64_t correlation;
    size_t len;        /* of the body: head and rest */
    struct slice rest; /* its owner keeps it until the answer */
    uint8_t head[];
};

struct link_client {
    struct link_client_options options;
    char in_url[LINK_ENDPOINT_MAX], out_url[LINK_ENDPOINT_MAX];
    struct buf cluster, sender_id, endpoint; /* what the options point to */
    struct id16 session;
    struct link_sender sender;
    size_t queued_bytes, reply_bytes;
    struct mailbox mailbox;

    struct link_conn *conn; /* NULL: away, or none could be opened */
    uint64_t generation;
    bool local; /* over ipc */
    bool connected;
    bool push_is_up;
    bool push_is_due;   /* over ipc: to be renewed once the far end is seen */
    bool poll_is_out;   /* on the current sockets */
    bool poll_is_due;   /* at the end of the turn */
    unsigned attempts;  /* pairs of sockets that led to nothing since it was connected */
    unsigned failures;  /* polls that failed since it was connected */
    int64_t stalled_ns; /* since when the server has accepted nothing that it should have; 0: it does */
    int64_t away_ns;    /* since when it is not connected */
    unsigned sightings; /* looks in a row that found the far end */
    struct loop_hook hook;
    struct loop_timer replace_timer, repoll_timer, push_timer, limbo_timer, look_timer;
    /* Pairs that led to nothing, kept until the far end answers. To close one while it dials is dangerous: an
     * ipc listener dies for good when a connection ends before it was accepted (nng #1518; a stopped or busy
     * process accepts late), and over tcp nng itself may crash (#1657). The oldest of too many is closed all
     * the same: a listener that is lost is noticed by its process, a client that waits for ever by nobody. */
    struct link_conn *limbo[LIMBO_MAX];
    unsigned limbo_count;
    struct buf scratch;
    int64_t complained_ns;
};

/* ---- messages ---- */

static void pack_envelope(struct link_client *c, uint32_t type, uint64_t correlation, uint64_t number,
                          uint64_t previous)
{
    struct msg_envelope e = {
        .type = type,
        .correlation = correlation,
        .cluster = c->options.cluster,
        .sender = c->options.sender,
        .session = c->session,
        .number = number,
        .previous = previous,
    };
    c->scratch.len = 0;
    msg_pack_envelope(&c->scratch, &e);
}

/* The scratch bytes followed by rest. */
static nng_msg *message_of(struct link_client *c, struct slice rest)
{
    nng_msg *message;
    int rv = nng_msg_alloc(&message, c->scratch.len + rest.len);
    assert(rv == 0);
    uint8_t *at = nng_msg_body(message);
    memcpy(at, c->scratch.data, c->scratch.len);
    if (rest.len > 0)
        memcpy(at + c->scratch.len, rest.data, rest.len);
    return message;
}

static void send_poll(struct link_client *c, uint64_t wait_ms)
{
    struct msg_poll poll = {
        .received = c->sender.received, .wait_ms = wait_ms, .incarnation = c->sender.incarnation};
    assert(!c->poll_is_out);
    c->poll_is_due = false;
    pack_envelope(c, MSG_poll, 0, 0, 0);
    msg_encode(MSG_poll, &poll, &c->scratch);
    link_conn_poll(c->conn, message_of(c, (struct slice){0}));
    c->poll_is_out = true;
}

static void flush(struct link_client *c)
{
    struct link_out *out;
    uint64_t previous;
    if (!c->connected)
        return;
    while ((out = link_sender_next(&c->sender, &previous)) != NULL) {
        struct request *request = (struct request *)out;
        pack_envelope(c, request->type, request->correlation, out->item.number, previous);
        buf_append(&c->scratch, request->head, request->len - request->rest.len);
        nng_msg *message = message_of(c, request->rest);
        if (!link_conn_push(c->conn, message)) {
            nng_msg_free(message);
            loop_timer_after(c->options.loop, &c->push_timer, PUSH_RETRY_NS);
            return;
        }
        request->was_sent = true;
        link_sender_sent(&c->sender);
    }
}

/* ---- connecting ---- */

static void tell_state(struct link_client *c)
{
    if (c->options.on_state != NULL)
        c->options.on_state(c->options.arg, c->connected);
}

static int64_t replace_delay_ns(const struct link_client *c)
{
    int64_t delay = REPLACE_FIRST_NS << (c->attempts < 8 ? c->attempts : 8);
    return delay < REPLACE_MOST_NS ? delay : REPLACE_MOST_NS;
}

static enum sh_error connect_afresh(struct link_client *c)
{
    enum sh_error e = link_conn_open(c->in_url, c->out_url, c->local ? LINK_DIAL_ONCE : LINK_DIAL_AGAIN,
                                     c->reply_bytes, ++c->generation, &c->mailbox, &c->conn);
    loop_timer_after(c->options.loop, &c->replace_timer, replace_delay_ns(c));
    if (e == SH_OK) {
        send_poll(c, 0);
    } else {
        c->conn = NULL;  /* tried again by the timer */
        c->generation++; /* the half that was opened may have told something */
    }
    return e;
}

static void free_oldest_limbo(struct link_client *c)
{
    link_conn_dispose(c->limbo[0]);
    memmove(c->limbo, c->limbo + 1, --c->limbo_count * sizeof c->limbo[0]);
}

static void on_limbo_timer(void *arg)
{
    struct link_client *c = arg;
    while (c->limbo_count > 0)
        free_oldest_limbo(c);
}

/* Nothing counts any more that was heard on the connection. */
static void disconnect(struct link_client *c)
{
    link_sender_lost(&c->sender);
    if (!c->connected)
        return;
    c->connected = false;
    c->away_ns = loop_now_ns(c->options.loop);
    loop_timer_cancel(c->options.loop, &c->limbo_timer);
    loop_timer_after(c->options.loop, &c->replace_timer, replace_delay_ns(c));
    if (c->local)
        loop_timer_after(c->options.loop, &c->look_timer, LOOK_FIRST_NS);
    tell_state(c);
}

/* Not closed: see limbo. */
static void put_away(struct link_client *c)
{
    struct loop *loop = c->options.loop;
    loop_timer_cancel(loop, &c->replace_timer);
    loop_timer_cancel(loop, &c->repoll_timer);
    loop_timer_cancel(loop, &c->push_timer);
    c->push_is_up = false;
    c->push_is_due = false;
    c->poll_is_out = c->poll_is_due = false;
    c->generation++; /* what it has told and we have not read yet means nothing any more */
    if (c->conn == NULL)
        return;
    if (c->limbo_count == LIMBO_MAX)
        free_oldest_limbo(c);
    link_conn_mute(c->conn);
    c->limbo[c->limbo_count++] = c->conn;
    c->conn = NULL;
}

static bool sees_far_end(const struct link_client *c)
{
    return link_socket_is_bound(c->in_url) && link_socket_is_bound(c->out_url);
}

static void go_away(struct link_client *c)
{
    put_away(c);
    c->sightings = 0;
    c->attempts = 0;
}

static int64_t look_delay_ns(const struct link_client *c)
{
    int64_t delay = (loop_now_ns(c->options.loop) - c->away_ns) / LOOK_SHARE;
    if (delay < LOOK_FIRST_NS || c->sightings == 1)
        return LOOK_FIRST_NS;
    return delay < LOOK_MOST_NS ? delay : LOOK_MOST_NS;
}

static void dial_what_is_missing(struct link_client *c)
{
    if (c->conn == NULL && c->replace_timer.slot == 0)
        connect_afresh(c);
    else if (c->push_is_due)
        link_conn_renew_push(c->conn); /* or else replace_timer takes fresh sockets */
    c->push_is_due = false;
}

/* As long as it is not connected, also when sockets dial: who is killed before he accepts tells nobody. */
static void on_look_timer(void *arg)
{
    struct link_client *c = arg;
    if (!sees_far_end(c))
        go_away(c);
    else if (++c->sightings >= LOOKS_MIN)
        dial_what_is_missing(c);
    loop_timer_after(c->options.loop, &c->look_timer, look_delay_ns(c));
}

static void start_over(struct link_client *c)
{
    disconnect(c);
    if (c->local && !sees_far_end(c)) {
        go_away(c);
    } else {
        put_away(c);
        connect_afresh(c);
    }
}

/* It takes too long: nng's dialer may be stuck, so other sockets are tried; but no more of them while closes
 * hang. */
static void on_replace_timer(void *arg)
{
    struct link_client *c = arg;
    if (c->connected)
        log_warn("no answer to a poll", log_text("endpoint", c->options.endpoint));
    else
        log_debug("no connection yet", log_text("endpoint", c->options.endpoint),
                  log_uint("attempts", ++c->attempts),
                  log_text("missing", !c->push_is_up ? "pipeline" : "reply"));
    if (link_conn_closing() <= CLOSING_MAX)
        start_over(c);
    else
        loop_timer_after(c->options.loop, &c->replace_timer, REPLACE_MOST_NS);
}

static void on_repoll_timer(void *arg)
{
    struct link_client *c = arg;
    if (!c->poll_is_out)
        send_poll(c, 0);
    if (c->replace_timer.slot == 0)
        loop_timer_after(c->options.loop, &c->replace_timer, replace_delay_ns(c));
}

/* The first hello goes out at once; a far end that keeps breaking off is asked more and more slowly. */
static void on_poll_failed(struct link_client *c)
{
    disconnect(c);
    if (c->local) {
        go_away(c);
        return;
    }
    if (c->failures++ == 0) {
        send_poll(c, 0);
        return;
    }
    int64_t delay = REPOLL_FIRST_NS << (c->failures < 8 ? c->failures : 8);
    loop_timer_after(c->options.loop, &c->repoll_timer, delay);
}

/* ---- what the far end says ---- */

static void free_request(struct link_client *c, struct request *request)
{
    c->queued_bytes -= request->len + QUEUED_OVERHEAD;
    free(request);
}

/* For link_sender_on_reply, which knows no client; forgotten requests were taken off queued_bytes before. */
static void drop_forgotten(struct link_out *out)
{
    free(out);
}

static void deliver(struct link_client *c, uint64_t number, uint32_t type, struct slice body)
{
    struct link_out *out = link_sender_take(&c->sender, number);
    if (out == NULL)
        return;
    if (out->forgotten) {
        free(out);
        return;
    }
    free_request(c, (struct request *)out);
    c->options.on_answer(c->options.arg, number, type, body);
}

static bool deliver_all(struct link_client *c, struct slice answers)
{
    struct mp m = mp_of(answers);
    uint32_t count, parts;
    if (!mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number, type;
        struct slice body;
        if (!mp_array(&m, &parts) || parts != 3 || !mp_uint(&m, &number) || !mp_uint(&m, &type) ||
            type > UINT32_MAX || !mp_raw(&m, &body))
            return false;
        deliver(c, number, (uint32_t)type, body);
    }
    return true;
}

static void complain(struct link_client *c, const char *what, enum sh_error code, struct slice text)
{
    int64_t now = loop_now_ns(c->options.loop);
    if (c->complained_ns != 0 && now - c->complained_ns < LOG_EACH_NS)
        return;
    c->complained_ns = now;
    log_warn(what, log_text("endpoint", c->options.endpoint), log_text("error", sh_error_name(code)),
             log_slice("text", text));
}

/* Tells all that waits. Of what was sent once nobody knows whether it was done, perhaps by a predecessor. */
static void refuse_all(struct link_client *c, const struct msg_error *error)
{
    const struct msg_error unknown = {.code = SH_UNAVAILABLE, .text = error->text};
    struct buf bodies[2] = {0};
    msg_encode(MSG_error, error, &bodies[false]);
    msg_encode(MSG_error, &unknown, &bodies[true]);
    for (uint64_t last = c->sender.last_number;;) {
        struct link_item *first = c->sender.outstanding.first;
        if (first == NULL || first->number > last)
            break;
        deliver(c, first->number, MSG_error, buf_slice(&bodies[((struct request *)first)->was_sent]));
    }
    buf_free(&bodies[false]);
    buf_free(&bodies[true]);
}

/* The far end will have nothing to do with us (another version, another cluster), or it has too many clients;
 * then we wait. */
static void on_refused(struct link_client *c, const struct msg_error *error)
{
    complain(c, "the far end refuses this link", (enum sh_error)error->code, error->text);
    disconnect(c);
    loop_timer_after(c->options.loop, &c->repoll_timer, REFUSED_NS);
    loop_timer_cancel(c->options.loop, &c->replace_timer);
    if (error->code != SH_OVERLOADED)
        refuse_all(c, error);
}

/* Whether the pipeline swallows what is sent: a reply each poll, yet nothing of what was sent is accepted. */
static bool is_stalled(struct link_client *c, uint64_t accepted_before)
{
    const struct link_item *unsent = c->sender.unsent;
    const struct link_item *last = unsent != NULL ? unsent->prev : c->sender.outstanding.last;
    int64_t now = loop_now_ns(c->options.loop);
    if (last == NULL || last->number <= c->sender.accepted || c->sender.accepted != accepted_before) {
        c->stalled_ns = 0;
        return false;
    }
    if (c->stalled_ns == 0)
        c->stalled_ns = now;
    return now - c->stalled_ns > STALLED_NS;
}

static void become_connected(struct link_client *c)
{
    if (c->connected || !c->sender.greeted || !c->push_is_up)
        return;
    c->connected = true;
    loop_timer_cancel(c->options.loop, &c->look_timer);
    c->attempts = 0;
    c->failures = 0;
    c->stalled_ns = 0;
    loop_timer_after(c->options.loop, &c->replace_timer, LINK_POLL_MS * (int64_t)NS_PER_MS + OVERDUE_NS);
    if (c->limbo_count > 0 && c->limbo_timer.slot == 0)
        loop_timer_after(c->options.loop, &c->limbo_timer, LIMBO_NS);
    tell_state(c);
    flush(c);
}

static void on_poll_reply(struct link_client *c, const struct msg_poll_reply *reply)
{
    struct link_news news = {reply->incarnation, reply->reply, reply->accepted, reply->credit_bytes,
                             reply->credit_requests};
    uint64_t accepted_before = c->sender.accepted;
    link_sender_on_reply(&c->sender, &news, drop_forgotten);
    if (c->connected) {
        loop_timer_after(c->options.loop, &c->replace_timer, LINK_POLL_MS * (int64_t)NS_PER_MS + OVERDUE_NS);
        if (is_stalled(c, accepted_before)) {
            complain(c, "the far end doesn't see the requests", SH_UNAVAILABLE, (struct slice){0});
            start_over(c);
            return;
        }
    }
    become_connected(c);
    if (!deliver_all(c, reply->answers))
        complain(c, "bad answers", SH_BAD_REQUEST, (struct slice){0});
    c->poll_is_due = true; /* what the answers lead to goes first: somebody waits for that */
    flush(c);
}

/* A poll is always out: when the far end dies it fails at once, even if nng no longer tells of the pipeline's
 * end. */
static void on_turn_end(void *arg)
{
    struct link_client *c = arg;
    if (c->poll_is_due)
        send_poll(c, c->connected ? LINK_POLL_MS : 0);
}

/* Bytes that make no sense are as good as no reply: replace_timer is left to run out. */
static void on_reply_message(struct link_client *c, nng_msg *message)
{
    struct msg_envelope e;
    struct msg_poll_reply reply;
    struct msg_error error;
    enum sh_error code = msg_open(slice_of(nng_msg_body(message), nng_msg_len(message)), &e);
    if (code == SH_OK && e.type == MSG_poll_reply && msg_decode(MSG_poll_reply, e.body, &reply) == SH_OK) {
        on_poll_reply(c, &reply);
    } else if (code == SH_OK && e.type == MSG_error && msg_decode(MSG_error, e.body, &error) == SH_OK) {
        on_refused(c, &error);
    } else if (code == SH_VERSION_MISMATCH) {
        on_refused(c, &(struct msg_error){.code = SH_VERSION_MISMATCH});
    } else {
        complain(c, "bad reply to a poll", SH_BAD_REQUEST, (struct slice){0});
    }
}

static void on_event(struct link_client *c, const struct link_event *event)
{
    if (event->generation != c->generation)
        return;
    switch (event->kind) {
    case LINK_REPLIED:
        c->poll_is_out = false;
        on_reply_message(c, event->message);
        return;
    case LINK_POLL_FAILED:
    case LINK_REQ_DOWN:
        c->poll_is_out = false;
        on_poll_failed(c);
        return;
    case LINK_PUSH_UP:
        c->push_is_up = true;
        become_connected(c);
        return;
    case LINK_PUSH_DOWN:
        c->push_is_up = false;
        disconnect(c);
        c->push_is_due = c->local;
        c->sightings = 0;
        if (!c->local)
            link_conn_renew_push(c->conn); /* or else replace_timer takes fresh sockets */
        return;
    }
}

static void on_mail(void *arg, struct mail *first)
{
    struct link_client *c = arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        on_event(c, (struct link_event *)mail);
        link_event_free((struct link_event *)mail);
    }
}

static void on_push_timer(void *arg)
{
    flush(arg);
}

/* ---- the user's side ---- */

static struct slice keep(struct buf *b, struct slice bytes)
{
    b->len = 0;
    buf_append(b, bytes.data, bytes.len);
    return buf_slice(b);
}

enum sh_error link_client_open(const struct link_client_options *options, struct link_client **out)
{
    char in_url[LINK_ENDPOINT_MAX], out_url[LINK_ENDPOINT_MAX];
    enum sh_error e = link_endpoint_urls(options->endpoint, in_url, out_url);
    if (e != SH_OK)
        return e;
    struct link_client *c = xcalloc(1, sizeof *c);
    c->options = *options;
    buf_append_str(&c->endpoint, options->endpoint);
    c->options.endpoint = buf_cstr(&c->endpoint);
    c->options.cluster = keep(&c->cluster, options->cluster);
    c->options.sender = keep(&c->sender_id, options->sender);
    c->reply_bytes = options->message_bytes > REPLY_BYTES_MIN ? options->message_bytes : REPLY_BYTES_MIN;
    memcpy(c->in_url, in_url, sizeof in_url);
    memcpy(c->out_url, out_url, sizeof out_url);
    c->session = id16_random();
    mailbox_open(&c->mailbox, options->loop, on_mail, c);
    c->replace_timer = (struct loop_timer){.fn = on_replace_timer, .arg = c};
    c->repoll_timer = (struct loop_timer){.fn = on_repoll_timer, .arg = c};
    c->push_timer = (struct loop_timer){.fn = on_push_timer, .arg = c};
    c->limbo_timer = (struct loop_timer){.fn = on_limbo_timer, .arg = c};
    c->hook = (struct loop_hook){.fn = on_turn_end, .arg = c};
    loop_hook_add(options->loop, &c->hook);
    c->look_timer = (struct loop_timer){.fn = on_look_timer, .arg = c};
    c->local = link_is_ipc(c->in_url);
    c->away_ns = loop_now_ns(options->loop);
    if (c->local)
        loop_timer_after(options->loop, &c->look_timer, LOOK_FIRST_NS);
    if ((!c->local || sees_far_end(c)) && connect_afresh(c) == SH_BAD_REQUEST) {
        link_client_close(c);
        return SH_BAD_REQUEST;
    }
    *out = c;
    return SH_OK;
}

enum sh_error link_client_send(struct link_client *c, uint32_t type, uint64_t correlation, struct slice head,
                               struct slice rest, uint64_t *number)
{
    size_t len = head.len + rest.len;
    if (len + MSG_ENVELOPE_MAX > c->options.message_bytes)
        return SH_TOO_LARGE;
    if (c->queued_bytes + len + QUEUED_OVERHEAD > c->options.queue_bytes)
        return SH_OVERLOADED;
    struct request *request = xmalloc(sizeof *request + head.len);
    request->type = type;
    request->was_sent = false;
    request->correlation = correlation;
    request->len = len;
    request->rest = rest;
    memcpy(request->head, head.data, head.len);
    c->queued_bytes += len + QUEUED_OVERHEAD;
    link_sender_add(&c->sender, &request->out, len);
    *number = request->out.item.number;
    flush(c);
    return SH_OK;
}

void link_client_forget(struct link_client *c, uint64_t number)
{
    struct link_item *item = link_items_find(&c->sender.outstanding, number);
    if (item == NULL || ((struct link_out *)item)->forgotten)
        return;
    size_t len = ((struct request *)item)->len;
    struct link_out *out = link_sender_forget(&c->sender, number);
    c->queued_bytes -= len + QUEUED_OVERHEAD;
    free(out);
}

bool link_client_has_credit(const struct link_client *c, size_t bytes)
{
    return c->connected && c->sender.unsent == NULL && link_sender_has_credit(&c->sender, bytes);
}

size_t link_client_unanswered(const struct link_client *c)
{
    return c->sender.outstanding.count - c->sender.forgotten;
}

bool link_client_is_connected(const struct link_client *c)
{
    return c->connected;
}

void link_client_set_cluster(struct link_client *c, struct slice cluster)
{
    c->options.cluster = keep(&c->cluster, cluster);
}

void link_client_close(struct link_client *c)
{
    struct loop *loop = c->options.loop;
    if (c->conn != NULL)
        link_conn_dispose(c->conn);
    while (c->limbo_count > 0)
        link_conn_dispose_later(c->limbo[--c->limbo_count]);
    c->generation++; /* the mail that is left means nothing any more */
    mailbox_close(&c->mailbox);
    loop_timer_cancel(loop, &c->replace_timer);
    loop_timer_cancel(loop, &c->repoll_timer);
    loop_timer_cancel(loop, &c->push_timer);
    loop_timer_cancel(loop, &c->limbo_timer);
    loop_timer_cancel(loop, &c->look_timer);
    loop_hook_remove(loop, &c->hook);
    for (struct link_item *item = c->sender.outstanding.first, *next; item != NULL; item = next) {
        next = item->next;
        free(item);
    }
    link_items_free(&c->sender.outstanding);
    buf_free(&c->cluster);
    buf_free(&c->sender_id);
    buf_free(&c->endpoint);
    buf_free(&c->scratch);
    free(c);
}
