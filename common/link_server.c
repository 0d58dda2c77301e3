/* The daemon's end of a link: sessions, what they may hold, and who is answered when.
 *
 * Messages arrive as mail from link_inlet.c; the rules of a session are in link_session.c. Answers gather
 * while a round of the loop runs; then each session that has a parked poll gets one reply with all of them.
 * Sessions are dropped only between callbacks, never inside a call of the service. No input is fatal. */
#include "link.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "link_inlet.h"
#include "link_places.h"
#include "log.h"

enum {
    SESSION_CREDIT_MIN = 64 << 10,
    CREDIT_SLACK = 2, /* a client may not have heard of a smaller credit yet */
    REPLY_OVERHEAD = 256,
    OVERLOADED_RETRY_MS = 20,
    SLOT_BITS = 20, /* of a session's number: its place in the table */
    GONE_KEPT = 64,
};
#define SWEEP_NS NS_PER_S
#define ACTIVE_NS                                                                                            \
    (5 * NS_PER_S) /* a session without requests for so long leaves its credit to the others                 \
                    */
#define QUIET_NS    NS_PER_S
#define LOG_EACH_NS (5 * NS_PER_S)

struct session {
    struct id16 id;
    uint64_t number; /* for the service */
    struct session *chain;
    struct link_receiver receiver;
    struct link_context *poll; /* parked */
    int64_t poll_due_ns;
    uint64_t poll_correlation;
    int64_t seen_ns;      /* last poll, or the reply to it */
    int64_t request_ns;   /* last request */
    uint32_t connection;  /* that its last poll came by; 0: none, or it has gone */
    struct place by_age;  /* all sessions, the one that was seen longest ago first */
    struct place parked;  /* those with a parked poll, the oldest poll first */
    struct place touched; /* those that may get a reply at the end of the round */
    struct place by_connection;
    struct place away; /* those whose connection has gone, longest ago first */
};

struct link_server {
    struct link_server_options options;
    struct buf cluster, node; /* what the options' slices point to */
    struct mailbox mailbox;
    struct loop_hook hook;
    struct loop_timer poll_timer, sweep_timer, answer_timer;
    struct link_inlet **inlets;
    size_t inlet_count;
    struct session **slots, **buckets;
    uint32_t *free_slots;
    uint32_t free_count;
    uint64_t hash_key, serial;
    struct place by_age, parked, touched, away;
    struct place *connections; /* lists of sessions, by their connection's number */
    uint32_t gone[GONE_KEPT];  /* the last connections that have gone; */
    uint64_t gone_count;       /* of so many */
    struct link_server_stats stats;
    size_t answer_bytes; /* part of stats.held_bytes */
    uint32_t active;     /* sessions with requests lately */
    struct buf scratch;
    int64_t complained_ns;
};

struct link_server_limits link_server_default_limits(void)
{
    return (struct link_server_limits){
        .message_bytes = (16u << 20) + 4096,
        .session_bytes = 16u << 20,
        .session_requests = 256,
        .total_bytes = 48u << 20,
        .sessions = 1024,
        .polls = 1024,
        .session_idle_ns = 15 * NS_PER_S,
    };
}

/* ---- sessions ---- */

static uint32_t bucket_count(const struct link_server *server)
{
    return 1u << (32 - __builtin_clz(server->options.limits.sessions));
}

/* Clients choose their ids; the key keeps them from choosing their bucket. */
static struct session **bucket_of(struct link_server *server, const struct id16 *id)
{
    uint64_t halves[2];
    memcpy(halves, id->bytes, sizeof halves);
    uint64_t hash = (halves[0] ^ server->hash_key) * (server->hash_key | 1);
    hash = (hash ^ hash >> 32 ^ halves[1]) * (server->hash_key | 1);
    return &server->buckets[hash >> 40 & (bucket_count(server) - 1)];
}

static struct session *session_find(struct link_server *server, const struct id16 *id)
{
    struct session *s = *bucket_of(server, id);
    while (s != NULL && !id16_equal(s->id, *id))
        s = s->chain;
    return s;
}

static struct session *session_of_token(const struct link_server *server, uint64_t number)
{
    uint64_t slot = number & ((1u << SLOT_BITS) - 1);
    if (slot >= server->options.limits.sessions)
        return NULL;
    struct session *s = server->slots[slot];
    return s != NULL && s->number == number ? s : NULL;
}

static void free_message(struct link_server *server, struct link_arrival *arrival)
{
    if (arrival->message == NULL)
        return;
    server->stats.held_bytes -= nng_msg_len(arrival->message);
    nng_msg_free(arrival->message);
    arrival->message = NULL;
}

static void free_request(struct link_server *server, struct session *s, struct link_arrival *arrival)
{
    link_items_remove(&s->receiver.unanswered, &arrival->item);
    s->receiver.unanswered_bytes -= arrival->body_bytes;
    free_message(server, arrival);
    link_arrival_free(arrival);
}

static struct link_arrival *arrival_of_item(struct link_item *item)
{
    return (struct link_arrival *)((char *)item - offsetof(struct link_arrival, item));
}

/* 0: none any more. */
static void session_set_connection(struct link_server *server, struct session *s, uint32_t connection)
{
    bool own = id16_equal(s->id, server->options.boot); /* self-pings */
    if (s->connection != 0 && !own)
        server->stats.clients--;
    if (connection != 0 && !own)
        server->stats.clients++;
    s->connection = connection;
    place_take(&s->by_connection);
    if (connection != 0)
        place_last(&server->connections[connection & (bucket_count(server) - 1)], &s->by_connection, s);
}

static void reply_to_poll(struct link_server *server, struct session *s);

static void session_drop(struct link_server *server, struct session *s, const char *why)
{
    char id[ID_TEXT];
    id16_format(s->id, id);
    log_debug("session dropped", log_text("session", id), log_text("why", why),
              log_uint("unfetched_bytes", s->receiver.answer_bytes),
              log_uint("unanswered", s->receiver.unanswered.count));
    if (s->poll != NULL)
        reply_to_poll(server, s);
    if (server->options.on_drop != NULL)
        server->options.on_drop(server->options.arg, s->number);
    while (s->receiver.unanswered.first != NULL)
        free_request(server, s, arrival_of_item(s->receiver.unanswered.first));
    server->answer_bytes -= s->receiver.answer_bytes;
    server->stats.held_bytes -= s->receiver.answer_bytes;
    link_receiver_free(&s->receiver);
    struct session **at = bucket_of(server, &s->id);
    while (*at != s)
        at = &(*at)->chain;
    *at = s->chain;
    uint32_t slot = (uint32_t)(s->number & ((1u << SLOT_BITS) - 1));
    server->slots[slot] = NULL;
    server->free_slots[server->free_count++] = slot;
    place_take(&s->by_age);
    place_take(&s->parked);
    place_take(&s->touched);
    place_take(&s->away);
    session_set_connection(server, s, 0);
    server->stats.sessions--;
    server->stats.dropped_sessions++;
    free(s);
}

/* Nothing is on its way from or to the client but, perhaps, the word that the last reply has come. If it
 * hasn't, and the client is alive, that costs its sending again. */
static bool is_settled(const struct session *s)
{
    const struct link_chunk *first = s->receiver.first;
    return s->receiver.unanswered.count == 0 && (first == NULL || (first->reply != 0 && first->next == NULL));
}

/* Who has most likely ended, if anybody; else who is connected and asks for nothing. Of those that are away
 * with something to do nobody goes: they come back. */
static struct session *dispensable(struct link_server *server)
{
    int64_t now = loop_now_ns(server->options.loop);
    for (struct place *p = server->away.next; p != &server->away; p = p->next)
        if (is_settled(p->session))
            return p->session;
    for (struct place *p = server->by_age.next; p != &server->by_age; p = p->next) {
        struct session *s = p->session;
        if (s->poll == NULL && place_is_free(&s->away) && now - s->seen_ns >= QUIET_NS)
            return s;
    }
    return NULL;
}

/* Makes room for one more session. When nobody can be dispensed with the newcomer has to wait, since taking
 * turns would leave nobody time to be answered. */
static bool make_room(struct link_server *server)
{
    if (server->free_count > 0)
        return true;
    struct session *s = dispensable(server);
    if (s == NULL)
        return false;
    session_drop(server, s, "too many sessions");
    return true;
}

static void session_seen(struct link_server *server, struct session *s)
{
    s->seen_ns = loop_now_ns(server->options.loop);
    place_last(&server->by_age, &s->by_age, s);
}

/* NULL: there are too many. */
static struct session *session_open(struct link_server *server, const struct id16 *id)
{
    if (!make_room(server))
        return NULL;
    struct session *s = xcalloc(1, sizeof *s);
    uint32_t slot = server->free_slots[--server->free_count];
    s->id = *id;
    s->number = ++server->serial << SLOT_BITS | slot;
    s->receiver.incarnation = random_u64() | 1;
    server->slots[slot] = s;
    struct session **bucket = bucket_of(server, id);
    s->chain = *bucket;
    *bucket = s;
    server->stats.sessions++;
    session_seen(server, s);
    if (server->sweep_timer.slot == 0)
        loop_timer_after(server->options.loop, &server->sweep_timer, SWEEP_NS);
    return s;
}

/* ---- replies ---- */

/* Wraps a body into a message. The parts are packed straight into nng's memory, for which `bound` is enough.
 */
static nng_msg *message_of(struct link_server *server, uint32_t type, uint64_t correlation,
                           const struct id16 *session, const void *body, size_t bound)
{
    nng_msg *message;
    int rv = nng_msg_alloc(&message, bound);
    assert(rv == 0);
    struct buf packed = {.data = nng_msg_body(message), .cap = bound};
    struct msg_envelope e = {
        .type = type,
        .correlation = correlation,
        .cluster = server->options.cluster,
        .sender = server->options.node,
        .session = *session,
    };
    msg_pack_envelope(&packed, &e);
    msg_encode(type, body, &packed);
    assert(packed.data == nng_msg_body(message) && packed.len <= bound);
    nng_msg_chop(message, bound - packed.len);
    return message;
}

/* The credit of one session, so that all active ones together stay within the total. */
static uint64_t credit_bytes(const struct link_server *server)
{
    const struct link_server_limits *l = &server->options.limits;
    size_t share = l->total_bytes / (server->active > 0 ? server->active : 1);
    share = share > SESSION_CREDIT_MIN ? share : SESSION_CREDIT_MIN;
    return share < l->session_bytes ? share : l->session_bytes;
}

static void unpark(struct link_server *server, struct session *s)
{
    s->poll = NULL;
    place_take(&s->parked);
    server->stats.parked_polls--;
}

static void reply_to_poll(struct link_server *server, struct session *s)
{
    struct msg_poll_reply reply = {
        .incarnation = s->receiver.incarnation,
        .accepted = s->receiver.accepted,
        .credit_bytes = credit_bytes(server),
        .credit_requests = server->options.limits.session_requests,
        .boot = server->options.boot,
    };
    reply.answers = link_receiver_reply(&s->receiver, &reply.reply, loop_now_ns(server->options.loop));
    size_t bound = reply.answers.len + REPLY_OVERHEAD + MSG_ENVELOPE_MAX;
    nng_msg *message = message_of(server, MSG_poll_reply, s->poll_correlation, &s->id, &reply, bound);
    struct link_context *poll = s->poll;
    unpark(server, s);
    session_seen(server, s);
    link_context_reply(poll, message);
}

static void count_refused(struct link_server *server, enum sh_error code, const char *what,
                          struct slice sender)
{
    int64_t now = loop_now_ns(server->options.loop);
    server->stats.refused_messages++;
    if (server->complained_ns != 0 && now - server->complained_ns < LOG_EACH_NS)
        return;
    server->complained_ns = now;
    log_warn("message refused", log_text("what", what), log_text("error", sh_error_name(code)),
             log_slice("sender", sender), log_uint("refused_so_far", server->stats.refused_messages));
}

static void refuse_poll(struct link_server *server, struct link_context *context, const struct id16 *session,
                        enum sh_error code, const char *text)
{
    struct msg_error error = {.code = code, .text = slice_str(text)};
    nng_msg *message = message_of(server, MSG_error, 0, session, &error, REPLY_OVERHEAD + MSG_ENVELOPE_MAX);
    link_context_reply(context, message);
}

/* Answers that are too much for all: who has left some unfetched for longest goes. */
static void evict(struct link_server *server)
{
    while (server->answer_bytes > server->options.limits.total_bytes) {
        struct session *oldest = NULL;
        for (struct place *p = server->by_age.next; p != &server->by_age; p = p->next) {
            struct session *s = p->session;
            if (s->receiver.first != NULL &&
                (oldest == NULL || s->receiver.first->since_ns < oldest->receiver.first->since_ns))
                oldest = s;
        }
        session_drop(server, oldest, "its answers were not fetched");
    }
}

static void on_round_end(void *arg)
{
    struct link_server *server = arg;
    evict(server);
    while (server->touched.next != &server->touched) {
        struct session *s = server->touched.next->session;
        place_take(&s->touched);
        if (s->poll != NULL && link_receiver_ready_ns(&s->receiver) <= loop_now_ns(server->options.loop))
            reply_to_poll(server, s);
    }
    loop_timer_cancel(server->options.loop, &server->answer_timer);
}

/* The hook does the work. The timer makes sure of a further round when a hook behind ours has answered. */
static void touch(struct link_server *server, struct session *s)
{
    if (s->poll == NULL || !place_is_free(&s->touched))
        return;
    place_last(&server->touched, &s->touched, s);
    if (server->answer_timer.slot == 0)
        loop_timer_after(server->options.loop, &server->answer_timer, 0);
}

/* ---- polls ---- */

static void on_poll_timer(void *arg)
{
    struct link_server *server = arg;
    int64_t now = loop_now_ns(server->options.loop), next = INT64_MAX;
    for (struct place *p = server->parked.next, *after; p != &server->parked; p = after) {
        after = p->next;
        if (p->session->poll_due_ns <= now)
            reply_to_poll(server, p->session);
        else if (p->session->poll_due_ns < next)
            next = p->session->poll_due_ns;
    }
    if (next != INT64_MAX)
        loop_timer_set(server->options.loop, &server->poll_timer, next);
}

static void park(struct link_server *server, struct session *s, struct link_context *context)
{
    s->poll = context;
    place_last(&server->parked, &s->parked, s);
    server->stats.parked_polls++;
}

static void wait_with_poll(struct link_server *server, struct session *s, uint64_t wait_ms)
{
    int64_t ready_ns = link_receiver_ready_ns(&s->receiver);
    s->poll_due_ns = loop_now_ns(server->options.loop) + (int64_t)wait_ms * NS_PER_MS;
    if (ready_ns < s->poll_due_ns && ready_ns > 0)
        s->poll_due_ns = ready_ns;
    if (server->poll_timer.slot == 0 || s->poll_due_ns < server->poll_timer.due_ns)
        loop_timer_set(server->options.loop, &server->poll_timer, s->poll_due_ns);
    touch(server, s);
}

static void note_answer_bytes(struct link_server *server, size_t before, size_t after)
{
    server->answer_bytes += after - before;
    server->stats.held_bytes += after - before;
}

/* nng may tell this before it hands over the connection's last poll: see is_gone. */
static void on_connection_gone(struct link_server *server, uint32_t connection)
{
    struct place *list = &server->connections[connection & (bucket_count(server) - 1)];
    server->gone[server->gone_count++ % GONE_KEPT] = connection;
    for (struct place *p = list->next, *after; p != list; p = after) {
        struct session *s = p->session;
        after = p->next;
        if (s->connection != connection)
            continue;
        if (s->poll != NULL) {
            link_context_abandon(s->poll);
            unpark(server, s);
        }
        session_set_connection(server, s, 0);
        session_seen(server, s);
        place_last(&server->away, &s->away, s);
    }
}

static bool is_gone(const struct link_server *server, uint32_t connection)
{
    for (unsigned i = 0; i < GONE_KEPT; i++)
        if (server->gone[i] == connection)
            return true;
    return false;
}

static void on_poll(struct link_server *server, const struct link_arrival *arrival,
                    const struct msg_envelope *e, const struct msg_poll *poll)
{
    struct link_context *context = arrival->context;
    struct session *s = session_find(server, &e->session);
    if (s == NULL)
        s = session_open(server, &e->session);
    if (s == NULL) {
        count_refused(server, SH_OVERLOADED, "poll of a session too many", e->sender);
        refuse_poll(server, context, &e->session, SH_OVERLOADED, "too many sessions");
        return;
    }
    if (s->poll != NULL)
        reply_to_poll(server, s); /* from a connection that is gone; whatever it carries is put back below */
    size_t before = s->receiver.answer_bytes;
    bool known = link_receiver_on_poll(&s->receiver, poll->incarnation, poll->received,
                                       loop_now_ns(server->options.loop));
    note_answer_bytes(server, before, s->receiver.answer_bytes);
    s->poll_correlation = e->correlation;
    place_take(&s->away);
    session_set_connection(server, s, arrival->connection);
    session_seen(server, s);
    park(server, s, context);
    if (!known || poll->wait_ms == 0)
        reply_to_poll(server, s);
    else
        wait_with_poll(server, s, poll->wait_ms);
}

/* ---- what comes in ---- */

static bool is_foreign(const struct link_server *server, const struct msg_envelope *e)
{
    struct slice own = server->options.cluster;
    return e->cluster.len > 0 && own.len > 0 && !slice_equal(e->cluster, own);
}

static void on_poll_arrival(struct link_server *server, struct link_arrival *arrival)
{
    struct msg_envelope e;
    struct msg_poll poll;
    const char *text = "not a poll of this protocol";
    if (is_gone(server, arrival->connection)) { /* nobody would hear the reply */
        link_context_abandon(arrival->context);
        link_arrival_free(arrival);
        return;
    }
    enum sh_error code =
        msg_open(slice_of(nng_msg_body(arrival->message), nng_msg_len(arrival->message)), &e);
    if (code == SH_OK && is_foreign(server, &e)) {
        code = SH_BAD_REQUEST;
        text = "this node belongs to another cluster";
    } else if (code == SH_OK) {
        code = e.type == MSG_poll && !id16_is_zero(e.session) ? msg_decode(MSG_poll, e.body, &poll)
                                                              : SH_BAD_REQUEST;
    }
    if (code == SH_OK) {
        on_poll(server, arrival, &e, &poll);
    } else {
        count_refused(server, code, "poll", e.sender);
        if (code == SH_VERSION_MISMATCH)
            text = "this node speaks another version of the protocol";
        refuse_poll(server, arrival->context, &e.session, code, text);
    }
    if (!link_inlet_spare_context(arrival->inlet) && server->parked.next != &server->parked)
        reply_to_poll(server, server->parked.next->session);
    link_arrival_free(arrival);
}

static bool is_over_limits(const struct link_server *server, const struct session *s,
                           const struct link_arrival *arrival)
{
    const struct link_server_limits *l = &server->options.limits;
    const struct link_receiver *r = &s->receiver;
    size_t len = nng_msg_len(arrival->message);
    if (r->unanswered.count > 0 &&
        (r->unanswered.count >= (size_t)CREDIT_SLACK * l->session_requests ||
         r->unanswered_bytes + arrival->body_bytes > CREDIT_SLACK * l->session_bytes))
        return true;
    return server->stats.held_bytes > 0 && server->stats.held_bytes + len > l->total_bytes;
}

static void hold_request(struct link_server *server, struct session *s, struct link_arrival *arrival,
                         uint64_t number)
{
    int64_t now = loop_now_ns(server->options.loop);
    if (s->request_ns == 0 || now - s->request_ns > ACTIVE_NS)
        server->active++; /* until the next sweep counts them */
    s->request_ns = now;
    link_items_add(&s->receiver.unanswered, &arrival->item, number);
    s->receiver.unanswered_bytes += arrival->body_bytes;
    server->stats.held_bytes += nng_msg_len(arrival->message);
    server->stats.requests++;
}

static void hand_over(struct link_server *server, struct session *s, struct link_arrival *arrival,
                      const struct msg_envelope *e)
{
    struct link_request request = {
        .token = {s->number, e->number},
        .type = e->type,
        .correlation = e->correlation,
        .cluster = e->cluster,
        .sender = e->sender,
        .body = e->body,
        .local = link_inlet_is_local(arrival->inlet),
    };
    if (is_foreign(server, e)) {
        struct msg_error error = {.code = SH_BAD_REQUEST,
                                  .text = slice_str("this node belongs to another cluster")};
        count_refused(server, SH_BAD_REQUEST, "request of another cluster", e->sender);
        link_server_refuse(server, request.token, &error);
    } else if (e->type == MSG_echo) {
        link_server_answer(server, request.token, MSG_echo, e->body);
    } else {
        server->options.on_request(server->options.arg, &request);
    }
}

static void on_request_arrival(struct link_server *server, struct link_arrival *arrival)
{
    struct msg_envelope e;
    enum sh_error code =
        msg_open(slice_of(nng_msg_body(arrival->message), nng_msg_len(arrival->message)), &e);
    if (code == SH_OK &&
        (id16_is_zero(e.session) || e.number == 0 || e.type == MSG_poll || e.type == MSG_poll_reply))
        code = SH_BAD_REQUEST;
    if (code != SH_OK) {
        count_refused(server, code, "request", e.sender);
        link_arrival_free(arrival);
        return;
    }
    struct session *s = session_find(server, &e.session);
    if (s == NULL)
        s = session_open(server, &e.session);
    if (s == NULL || !link_receiver_accept(&s->receiver, e.number, e.previous)) {
        /* One session too many, a stale message, or a gap before it: the client sends again what is missing.
         */
        link_arrival_free(arrival);
        return;
    }
    arrival->body_bytes = e.body.len;
    bool over = is_over_limits(server, s, arrival);
    hold_request(server, s, arrival, e.number);
    if (over) {
        struct msg_error error = {.code = SH_OVERLOADED, .retry_ms = OVERLOADED_RETRY_MS};
        link_server_refuse(server, (struct link_token){s->number, e.number}, &error);
        return;
    }
    hand_over(server, s, arrival, &e);
}

static void on_mail(void *arg, struct mail *first)
{
    struct link_server *server = arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct link_arrival *arrival = (struct link_arrival *)mail;
        struct link_inlet *inlet = arrival->inlet;
        bool held_back = arrival->held_back; /* the last request of its inlet here */
        next = mail->next;
        link_inlet_taken(inlet, arrival);
        if (arrival->message == NULL) {
            on_connection_gone(server, arrival->connection);
            link_arrival_free(arrival);
        } else if (arrival->context != NULL) {
            on_poll_arrival(server, arrival);
        } else {
            on_request_arrival(server, arrival);
        }
        if (held_back)
            link_inlet_resume(inlet);
    }
}

/* ---- the service's side ---- */

void link_server_answer(struct link_server *server, struct link_token token, uint32_t type, struct slice body)
{
    struct session *s = session_of_token(server, token.session);
    if (s == NULL)
        return;
    struct link_item *item = link_items_find(&s->receiver.unanswered, token.number);
    if (item == NULL)
        return;
    if (body.len + REPLY_OVERHEAD + MSG_ENVELOPE_MAX > server->options.limits.message_bytes) {
        log_error("answer too large for the link", log_uint("type", type), log_uint("bytes", body.len));
        link_server_refuse(server, token, &(struct msg_error){.code = SH_TOO_LARGE});
        return;
    }
    size_t before = s->receiver.answer_bytes;
    link_receiver_answer(&s->receiver, token.number, type, body, loop_now_ns(server->options.loop));
    note_answer_bytes(server, before, s->receiver.answer_bytes);
    server->stats.answers++;
    free_request(server, s, arrival_of_item(item)); /* body may have pointed into it */
    touch(server, s);
}

void link_server_unlend(struct link_server *server, struct link_token token)
{
    struct session *s = session_of_token(server, token.session);
    struct link_item *item = s != NULL ? link_items_find(&s->receiver.unanswered, token.number) : NULL;
    if (item != NULL)
        free_message(server, arrival_of_item(item));
}

void link_server_refuse(struct link_server *server, struct link_token token, const struct msg_error *error)
{
    server->scratch.len = 0;
    msg_encode(MSG_error, error, &server->scratch);
    link_server_answer(server, token, MSG_error, buf_slice(&server->scratch));
}

size_t link_server_unfetched(const struct link_server *server, uint64_t session)
{
    const struct session *s = session_of_token(server, session);
    return s != NULL ? s->receiver.answer_bytes : 0;
}

struct link_server_stats link_server_stats(const struct link_server *server)
{
    return server->stats;
}

/* ---- opening and closing ---- */

static void on_sweep(void *arg)
{
    struct link_server *server = arg;
    int64_t now = loop_now_ns(server->options.loop);
    server->active = 0;
    for (struct place *p = server->by_age.next, *after; p != &server->by_age; p = after) {
        struct session *s = p->session;
        after = p->next;
        if (s->poll == NULL && now - s->seen_ns > server->options.limits.session_idle_ns)
            session_drop(server, s, "idle");
        else if (s->request_ns != 0 && now - s->request_ns <= ACTIVE_NS)
            server->active++;
    }
    if (server->stats.sessions > 0)
        loop_timer_after(server->options.loop, &server->sweep_timer, SWEEP_NS);
}

static struct slice keep(struct buf *b, struct slice bytes)
{
    buf_append(b, bytes.data, bytes.len);
    return buf_slice(b);
}

struct link_server *link_server_open(const struct link_server_options *options)
{
    struct link_server *server = xcalloc(1, sizeof *server);
    uint32_t sessions = options->limits.sessions;
    assert(sessions > 0 && sessions < 1u << SLOT_BITS && options->limits.polls > 0);
    server->options = *options;
    server->options.cluster = keep(&server->cluster, options->cluster);
    server->options.node = keep(&server->node, options->node);
    server->slots = xcalloc(sessions, sizeof(struct session *));
    server->buckets = xcalloc(bucket_count(server), sizeof(struct session *));
    server->free_slots = xcalloc(sessions, sizeof(uint32_t));
    for (uint32_t i = sessions; i > 0; i--)
        server->free_slots[server->free_count++] = i - 1;
    server->hash_key = random_u64();
    list_init(&server->by_age);
    list_init(&server->parked);
    list_init(&server->touched);
    list_init(&server->away);
    server->connections = xcalloc(bucket_count(server), sizeof *server->connections);
    for (uint32_t i = 0; i < bucket_count(server); i++)
        list_init(&server->connections[i]);
    mailbox_open(&server->mailbox, options->loop, on_mail, server);
    server->hook = (struct loop_hook){.fn = on_round_end, .arg = server};
    loop_hook_add(options->loop, &server->hook);
    server->poll_timer = (struct loop_timer){.fn = on_poll_timer, .arg = server};
    server->sweep_timer = (struct loop_timer){.fn = on_sweep, .arg = server};
    server->answer_timer = (struct loop_timer){.fn = on_round_end, .arg = server};
    return server;
}

enum sh_error link_server_listen(struct link_server *server, const char *endpoint)
{
    const struct link_server_limits *l = &server->options.limits;
    struct link_inlet_options options = {
        .endpoint = endpoint,
        .mailbox = &server->mailbox,
        .message_bytes = l->message_bytes,
        .contexts = l->polls,
    };
    struct link_inlet *inlet;
    enum sh_error e = link_inlet_open(&options, &inlet);
    if (e != SH_OK)
        return e;
    server->inlets = xrealloc(server->inlets, (server->inlet_count + 1) * sizeof(struct link_inlet *));
    server->inlets[server->inlet_count++] = inlet;
    return SH_OK;
}

static void discard_mail(void *arg, struct mail *first)
{
    (void)arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        link_arrival_free((struct link_arrival *)mail);
    }
}

void link_server_close(struct link_server *server)
{
    struct loop *loop = server->options.loop;
    on_round_end(server); /* the last answers */
    for (size_t i = 0; i < server->inlet_count; i++)
        link_inlet_close(server->inlets[i]);
    server->mailbox.fn = discard_mail;
    mailbox_close(&server->mailbox);
    while (server->by_age.next != &server->by_age) {
        server->by_age.next->session->poll = NULL; /* its context is closed */
        session_drop(server, server->by_age.next->session, "closing");
    }
    for (size_t i = 0; i < server->inlet_count; i++)
        link_inlet_free(server->inlets[i]);
    loop_hook_remove(loop, &server->hook);
    loop_timer_cancel(loop, &server->poll_timer);
    loop_timer_cancel(loop, &server->sweep_timer);
    loop_timer_cancel(loop, &server->answer_timer);
    free(server->inlets);
    free(server->slots);
    free(server->buckets);
    free(server->connections);
    free(server->free_slots);
    buf_free(&server->cluster);
    buf_free(&server->node);
    buf_free(&server->scratch);
    free(server);
}
