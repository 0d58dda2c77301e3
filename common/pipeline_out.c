/* The sending end of pipelines: the peers, and what each of them is at.
 *
 *   passive   known, so that it is remembered how often it is spoken to; nothing is open
 *   looking   somebody wants to reach it: its name is looked up, then whether it listens (pipeline_look.c);
 *             when not, again after a while, as long as there is something to send
 *   dialing   nng connects; when that takes too long, the socket is put away and we look again
 *   up        one message after the other goes out
 *
 * A connection is good for once. When it is over, the next message looks for the peer again. Nothing here is
 * fatal; out of descriptors, a peer is as good as away. */
#include "pipeline.h"

#include <assert.h>
#include <nng/nng.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "nng_closer.h"
#include "pipeline_parts.h"

enum {
    KNOWN_MAX = 2048, /* peers, passive ones included */
    PUT_AWAY_MAX = 16,
    CLOSING_MAX = 64,  /* closes that hang, before no more sockets are replaced */
    LINGER_S = 1,      /* what closes with everything may still be dialing */
    BACKOFF_STEPS = 5, /* 320 ms: a message meets three looks at least */
};
#define KEEP_NS      NS_PER_S       /* how long a message waits */
#define LOOK_NS      NS_PER_S       /* for an answer to a SYN */
#define DIAL_NS      (2 * NS_PER_S) /* for nng's hello, to somebody who listens */
#define BACKOFF_NS   (10 * (int64_t)NS_PER_MS)
#define STEADY_NS    NS_PER_S        /* a connection that was up for so long was a good one */
#define RESOLVED_NS  (30 * NS_PER_S) /* how long an address stands for a name */
#define PUT_AWAY_NS  (15 * NS_PER_S) /* nng gives up a hello after 10 s; then it dials no more */
#define HALF_LIFE_NS (15 * NS_PER_S) /* of what a use counts */
#define SWEEP_NS     NS_PER_S
#define FORGET_NS    (120 * NS_PER_S)

struct waiting {
    struct waiting *next;
    int64_t since_ns;
    size_t len;
    uint8_t bytes[];
};

struct peer {
    struct peer *next;
    struct pipeline_out *out;
    char host[PIPELINE_HOST_MAX];
    uint16_t port;
    uint64_t id;     /* of the question for its address */
    uint64_t weight; /* uses, as they count at used_ns, in 1/1024 */
    int64_t used_ns;
    bool active; /* all that follows is of active ones only */
    struct waiting *head, **tail;
    size_t waiting_bytes;
    struct pipeline_address address;
    bool is_name, resolving;
    int64_t resolved_ns;
    struct pipeline_look look;
    struct pipeline_conn *conn;
    uint64_t conn_id;
    bool up, sending;
    size_t sending_bytes;
    int64_t opened_ns; /* the connection, or the look for it */
    unsigned failures;
    int64_t not_before_ns; /* the next look */
    struct loop_timer timer;
};

/* A socket that led to nothing, kept until it doesn't dial any more. */
struct put_away {
    struct pipeline_conn *conn;
    int64_t since_ns;
};

struct pipeline_out {
    struct pipeline_out_options options;
    struct mailbox mailbox;
    struct mail_gate *gate;
    struct peer *peers;
    size_t known;
    uint64_t ids;
    struct put_away put_away[PUT_AWAY_MAX];
    struct loop_timer sweep;
    struct pipeline_out_stats stats;
};

static void advance(struct peer *peer);

static int64_t now_of(const struct peer *peer)
{
    return loop_now_ns(peer->out->options.loop);
}

/* ---- what waits ---- */

static struct waiting *take_first(struct peer *peer)
{
    struct waiting *first = peer->head;
    peer->head = first->next;
    if (peer->head == NULL)
        peer->tail = &peer->head;
    peer->waiting_bytes -= first->len;
    peer->out->stats.waiting_bytes -= first->len;
    return first;
}

static void drop_first(struct peer *peer)
{
    free(take_first(peer));
    peer->out->stats.dropped++;
}

static void drop_old(struct peer *peer)
{
    while (peer->head != NULL && now_of(peer) - peer->head->since_ns > KEEP_NS)
        drop_first(peer);
}

static void drop_all(struct peer *peer)
{
    while (peer->head != NULL)
        drop_first(peer);
}

static void put(struct peer *peer, struct slice message)
{
    struct waiting *w = xmalloc(sizeof *w + message.len);
    while (peer->head != NULL && peer->waiting_bytes + message.len > peer->out->options.peer_bytes)
        drop_first(peer);
    *w = (struct waiting){.since_ns = now_of(peer), .len = message.len};
    memcpy(w->bytes, message.data, message.len);
    *peer->tail = w;
    peer->tail = &w->next;
    peer->waiting_bytes += message.len;
    peer->out->stats.waiting_bytes += message.len;
}

static void pump(struct peer *peer)
{
    drop_old(peer);
    while (peer->head != NULL && !peer->sending) {
        struct waiting *w = take_first(peer);
        peer->sending = pipeline_conn_send(peer->conn, slice_of(w->bytes, w->len));
        peer->sending_bytes = w->len;
        free(w);
        if (!peer->sending) { /* the connection is over; its end is about to be told */
            peer->out->stats.dropped++;
            return;
        }
    }
}

/* ---- its connection ---- */

/* Not closed while it may be dialing: nng might crash (#1657). */
static void put_away(struct peer *peer)
{
    struct pipeline_out *out = peer->out;
    struct put_away *place = out->put_away;
    while (place < out->put_away + PUT_AWAY_MAX && place->conn != NULL)
        place++;
    assert(place < out->put_away + PUT_AWAY_MAX);
    pipeline_conn_mute(peer->conn);
    *place = (struct put_away){peer->conn, now_of(peer)};
    out->stats.kept++;
}

static void let_go(struct peer *peer)
{
    if (peer->conn == NULL)
        return;
    if (peer->up)
        pipeline_conn_dispose(peer->conn, 0);
    else if (peer->out->stats.kept < PUT_AWAY_MAX)
        put_away(peer);
    else
        pipeline_conn_dispose(peer->conn, LINGER_S);
    if (peer->sending)
        peer->out->stats.dropped++;
    peer->conn = NULL;
    peer->up = peer->sending = false;
}

static bool may_replace(const struct peer *peer)
{
    return nng_closer_count() <= CLOSING_MAX && (peer->up || peer->out->stats.kept < PUT_AWAY_MAX);
}

/* The next look waits, longer from time to time. */
static void back_off(struct peer *peer)
{
    unsigned steps = peer->failures < BACKOFF_STEPS ? peer->failures : BACKOFF_STEPS;
    peer->failures++;
    peer->not_before_ns = now_of(peer) + (BACKOFF_NS << steps);
}

static void connect_to(struct peer *peer)
{
    struct pipeline_out *out = peer->out;
    peer->conn_id = ++out->ids;
    peer->conn = pipeline_conn_open(&peer->address, peer->conn_id, &out->mailbox);
    if (peer->conn == NULL) {
        back_off(peer);
        advance(peer);
    } else {
        loop_timer_after(out->options.loop, &peer->timer, DIAL_NS);
    }
}

static void on_look_end(void *arg, bool found)
{
    struct peer *peer = arg;
    loop_timer_cancel(peer->out->options.loop, &peer->timer);
    if (found) {
        connect_to(peer);
        return;
    }
    back_off(peer);
    advance(peer);
}

/* Whether the address is known, and not from too long ago. */
static bool has_address(struct peer *peer)
{
    if (peer->address.len > 0 && (!peer->is_name || now_of(peer) - peer->resolved_ns < RESOLVED_NS))
        return true;
    peer->is_name = !pipeline_address_parse(peer->host, peer->port, &peer->address);
    if (peer->is_name && !peer->resolving)
        peer->resolving = pipeline_resolve(peer->host, peer->port, peer->id, peer->out->gate);
    return !peer->is_name;
}

static void look_for(struct peer *peer)
{
    if (!has_address(peer)) {
        if (!peer->resolving) {
            back_off(peer);
            loop_timer_set(peer->out->options.loop, &peer->timer, peer->not_before_ns);
        }
        return;
    }
    peer->opened_ns = now_of(peer);
    bool begun = pipeline_look_start(&peer->look, &peer->address);
    if (!begun)
        back_off(peer);
    loop_timer_set(peer->out->options.loop, &peer->timer,
                   begun ? now_of(peer) + LOOK_NS : peer->not_before_ns);
}

/* Does what is next for what waits; all else has its event. */
static void advance(struct peer *peer)
{
    if (peer->up) {
        pump(peer);
        return;
    }
    drop_old(peer);
    if (peer->conn != NULL || peer->look.fd.fd >= 0 || peer->resolving || peer->timer.slot != 0 ||
        peer->head == NULL)
        return;
    if (now_of(peer) < peer->not_before_ns)
        loop_timer_set(peer->out->options.loop, &peer->timer, peer->not_before_ns);
    else
        look_for(peer);
}

/* No answer to the SYN, no hello from who listens, or time for the next look. */
static void on_timer(void *arg)
{
    struct peer *peer = arg;
    if (peer->look.fd.fd >= 0) {
        pipeline_look_stop(&peer->look);
        back_off(peer);
    } else if (peer->conn != NULL && !may_replace(peer)) {
        loop_timer_after(peer->out->options.loop, &peer->timer, DIAL_NS);
    } else if (peer->conn != NULL) {
        let_go(peer);
        back_off(peer);
    }
    advance(peer);
}

static void on_up(struct peer *peer)
{
    loop_timer_cancel(peer->out->options.loop, &peer->timer);
    peer->up = true;
    peer->opened_ns = now_of(peer);
    peer->out->stats.connections++;
    pump(peer);
}

static void on_down(struct peer *peer)
{
    loop_timer_cancel(peer->out->options.loop, &peer->timer);
    if (peer->up && now_of(peer) - peer->opened_ns > STEADY_NS)
        peer->failures = 0;
    peer->up = true; /* it was, and dials nobody: it may be closed */
    let_go(peer);
    back_off(peer);
    advance(peer);
}

static void on_sent(struct peer *peer)
{
    peer->sending = false;
    peer->out->stats.sent++;
    peer->out->stats.sent_bytes += peer->sending_bytes;
    pump(peer);
}

static void on_resolved(struct peer *peer, const struct pipeline_address *address)
{
    peer->resolving = false;
    if (!peer->active)
        return;
    peer->address = *address;
    peer->resolved_ns = now_of(peer);
    if (address->len == 0)
        back_off(peer);
    advance(peer);
}

static struct peer *peer_of(struct pipeline_out *out, const struct pipeline_event *event)
{
    bool is_answer = event->kind == PIPELINE_RESOLVED;
    struct peer *peer = out->peers;
    while (peer != NULL &&
           (is_answer ? peer->id != event->id : peer->conn == NULL || peer->conn_id != event->id))
        peer = peer->next;
    return peer;
}

static void on_event(struct pipeline_out *out, const struct pipeline_event *event)
{
    struct peer *peer = peer_of(out, event);
    if (peer == NULL)
        return;
    switch (event->kind) {
    case PIPELINE_UP:
        on_up(peer);
        return;
    case PIPELINE_DOWN:
        on_down(peer);
        return;
    case PIPELINE_SENT:
        on_sent(peer);
        return;
    case PIPELINE_RESOLVED:
        on_resolved(peer, &event->address);
        return;
    }
}

static void on_mail(void *arg, struct mail *first)
{
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        on_event(arg, (struct pipeline_event *)mail);
        free(mail);
    }
}

/* ---- which peers ---- */

/* How much it was used lately. */
static uint64_t weight_of(const struct peer *peer)
{
    int64_t halves = (now_of(peer) - peer->used_ns) / HALF_LIFE_NS;
    return halves < 63 ? peer->weight >> halves : 0;
}

static void use(struct peer *peer)
{
    int64_t age_ns = now_of(peer) - peer->used_ns, part_ns = age_ns % HALF_LIFE_NS;
    uint64_t weight = weight_of(peer); /* between two halves in a straight line */
    weight -= weight / 2 * (uint64_t)(part_ns / NS_PER_MS) / (uint64_t)(HALF_LIFE_NS / NS_PER_MS);
    peer->weight = weight + 1024;
    peer->used_ns = now_of(peer);
}

static void make_passive(struct peer *peer)
{
    loop_timer_cancel(peer->out->options.loop, &peer->timer);
    pipeline_look_stop(&peer->look);
    let_go(peer);
    drop_all(peer);
    peer->active = false;
    peer->failures = 0;
    peer->not_before_ns = 0;
    peer->address.len = 0;
    peer->out->stats.peers--;
}

static bool is_less_used(const struct peer *a, const struct peer *b)
{
    uint64_t weight_a = weight_of(a), weight_b = weight_of(b);
    return weight_a != weight_b ? weight_a < weight_b : a->used_ns < b->used_ns;
}

static struct peer *least_used(const struct pipeline_out *out, bool active)
{
    struct peer *least = NULL;
    for (struct peer *peer = out->peers; peer != NULL; peer = peer->next)
        if (peer->active == active && (least == NULL || is_less_used(peer, least)))
            least = peer;
    return least;
}

static void forget(struct pipeline_out *out, struct peer *peer)
{
    struct peer **at = &out->peers;
    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    out->known--;
    free(peer);
}

static void make_active(struct peer *peer)
{
    struct pipeline_out *out = peer->out;
    if (out->stats.peers == out->options.peers)
        make_passive(least_used(out, true));
    peer->active = true;
    out->stats.peers++;
}

static struct peer *add_peer(struct pipeline_out *out, const char *host, uint16_t port)
{
    struct peer *passive = out->known == KNOWN_MAX ? least_used(out, false) : NULL;
    if (passive != NULL)
        forget(out, passive);
    struct peer *peer = xcalloc(1, sizeof *peer);
    peer->out = out;
    strncpy(peer->host, host, sizeof peer->host - 1);
    peer->port = port;
    peer->id = ++out->ids;
    peer->tail = &peer->head;
    peer->timer = (struct loop_timer){.fn = on_timer, .arg = peer};
    peer->look =
        (struct pipeline_look){.loop = out->options.loop, .fd.fd = -1, .on_end = on_look_end, .arg = peer};
    peer->next = out->peers;
    out->peers = peer;
    out->known++;
    return peer;
}

static struct peer *find_peer(struct pipeline_out *out, const char *host, uint16_t port)
{
    for (struct peer *peer = out->peers; peer != NULL; peer = peer->next)
        if (peer->port == port && strcmp(peer->host, host) == 0)
            return peer;
    return add_peer(out, host, port);
}

static void close_put_away(struct pipeline_out *out, struct put_away *place)
{
    pipeline_conn_dispose(place->conn, 0);
    place->conn = NULL;
    out->stats.kept--;
}

static void on_sweep(void *arg)
{
    struct pipeline_out *out = arg;
    int64_t now_ns = loop_now_ns(out->options.loop);
    loop_timer_after(out->options.loop, &out->sweep, SWEEP_NS);
    for (unsigned i = 0; i < PUT_AWAY_MAX; i++)
        if (out->put_away[i].conn != NULL && now_ns - out->put_away[i].since_ns > PUT_AWAY_NS)
            close_put_away(out, &out->put_away[i]);
    for (struct peer *peer = out->peers, *next; peer != NULL; peer = next) {
        next = peer->next;
        if (peer->active && now_ns - peer->used_ns > out->options.idle_ns)
            make_passive(peer);
        if (!peer->active && now_ns - peer->used_ns > FORGET_NS)
            forget(out, peer);
    }
}

/* ---- the user's side ---- */

struct pipeline_out_options pipeline_out_defaults(struct loop *loop)
{
    return (struct pipeline_out_options){
        .loop = loop, .peer_bytes = 64 << 10, .peers = 64, .idle_ns = 60 * NS_PER_S};
}

struct pipeline_out *pipeline_out_open(const struct pipeline_out_options *options)
{
    struct pipeline_out *out = xcalloc(1, sizeof *out);
    out->options = *options;
    mailbox_open(&out->mailbox, options->loop, on_mail, out);
    out->gate = mail_gate_open(&out->mailbox);
    out->sweep = (struct loop_timer){.fn = on_sweep, .arg = out};
    loop_timer_after(options->loop, &out->sweep, SWEEP_NS);
    return out;
}

/* A connection, or an attempt at one, that is too old to be trusted. */
static void renew(struct peer *peer, int64_t fresh_ns)
{
    if (peer->conn == NULL || now_of(peer) - peer->opened_ns <= fresh_ns || !may_replace(peer))
        return;
    loop_timer_cancel(peer->out->options.loop, &peer->timer);
    let_go(peer);
}

void pipeline_out_send(struct pipeline_out *out, const char *host, uint16_t port, struct slice message,
                       int64_t fresh_ns)
{
    struct peer *peer = find_peer(out, host, port);
    use(peer);
    if (!peer->active)
        make_active(peer);
    if (fresh_ns > 0)
        renew(peer, fresh_ns);
    put(peer, message);
    advance(peer);
}

struct pipeline_out_stats pipeline_out_stats(const struct pipeline_out *out)
{
    return out->stats;
}

void pipeline_out_close(struct pipeline_out *out)
{
    for (unsigned i = 0; i < PUT_AWAY_MAX; i++)
        if (out->put_away[i].conn != NULL)
            pipeline_conn_dispose(out->put_away[i].conn, LINGER_S);
    out->stats.kept = PUT_AWAY_MAX; /* what is dialing is closed after a while */
    while (out->peers != NULL) {
        if (out->peers->active)
            make_passive(out->peers);
        forget(out, out->peers);
    }
    loop_timer_cancel(out->options.loop, &out->sweep);
    mail_gate_shut(out->gate);
    mail_gate_leave(out->gate);
    mailbox_close(&out->mailbox);
    free(out);
}
