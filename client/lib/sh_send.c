/* Appends, the loop's end: which batch goes out, under which sequence, by which link. (What its answer means:
 * sh_outcome.c.)
 *
 * Each acknowledgement that can be asked for is a lane, a producer of its own with in_flight requests: what
 * waits for a quorum, for seconds maybe, holds up nothing that doesn't. Within a lane:
 *
 * The log takes the sequences of a producer in order and without gaps, and remembers what it has answered.
 * So:
 * - A batch is frozen, with its sequence, at its first send. As long as its outcome is unknown it is sent
 * again under the same sequence, and gets the first answer again if it had landed.
 * - A refusal leaves a gap: everything behind it gets a conflict. Then nothing new goes out until all else is
 *   answered (draining), and what was rejected goes again, in order, from the sequence that the log expects;
 * or as a new producer, when that sequence was used before.
 * - A node with a full disk is asked again until shortly before the time of the first caller is over; it has
 *   not taken the batch then, and SH_DISK_FULL says so.
 * - A batch that may have reached one log never goes to another one (but with at_least_once): the sender
 * stays with its node until that batch is answered or nobody waits for it any more.
 *
 * Nothing here is fatal but a broken invariant. */
#include "sh_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TICK_MAX_MS = 250, LANE_EPOCH = 1 };

/* ---------------------------------------------------------------- sending */

static void start_producer(struct shc_producer *p)
{
    p->id = id16_random();
    p->next_sequence = 1;
    p->settled = p->expected = 0;
    p->draining = p->anew = false;
}

/* It has not landed, or not in the log that it goes to now. With the queue's lock. */
static void forget_sequence(struct shc_batch *b)
{
    b->sequence = b->id.sequence = 0;
    b->uncertain = false;
}

/* Everything frozen is answered: what was rejected gets new sequences. With the queue's lock. */
static void end_drain(struct sh_client *c, enum sh_ack ack)
{
    struct shc_producer *p = &c->sender.producers[ack];
    if (!p->anew && p->expected == p->settled + 1) {
        p->next_sequence = p->expected;
        p->draining = false;
        p->expected = 0;
    } else {
        start_producer(p); /* a refused sequence was left out, or the log has forgotten this producer */
    }
    for (struct shc_batch *b = c->queue.head; b != NULL; b = b->next) {
        if (b->ack != ack || b->state != SHC_REJECTED)
            continue;
        b->state = SHC_READY;
        forget_sequence(b);
    }
}

/* Nobody waits for it, and it is not on its way: it must not go any more, since its callers may have asked
 * whether it landed. */
static bool is_given_up(const struct shc_batch *b)
{
    return b->live == 0 && b->sequence == 0;
}

/* The first batch of the lane that may go; NULL when there is none. With the queue's lock. */
static struct shc_batch *first_unsent(struct sh_client *c, enum sh_ack ack)
{
    struct shc_producer *p = &c->sender.producers[ack];
    struct shc_batch *b = c->queue.head;
    if (p->draining) {
        while (b != NULL && (b->ack != ack || b->state != SHC_READY || b->sequence == 0))
            b = b->next;
        if (b != NULL || p->sent > 0)
            return b;
        end_drain(c, ack);
        b = c->queue.head;
    }
    while (b != NULL && (b->ack != ack || b->state == SHC_SENT || is_given_up(b)))
        b = b->next;
    return b;
}

/* Whether the open batch still waits for company; *wake_ns gets the time when that is over, if it is earlier,
 * unless a caller sees to that. With the queue's lock. */
static bool lingers(struct sh_client *c, const struct shc_batch *b, int64_t *wake_ns)
{
    struct shc_lane *lane = &c->queue.lanes[b->ack];
    int64_t now_ns = clock_mono_ns(), due_ns = b->opened_ns + (int64_t)c->options.linger_us * NS_PER_US;
    bool has_company = shc_company_waits(&lane->company, now_ns);
    if (has_company && due_ns < lane->company.due_ns)
        due_ns = lane->company.due_ns;
    if (b->state != SHC_OPEN || now_ns >= due_ns)
        return false;
    if ((!has_company || !b->led) && due_ns < *wake_ns)
        *wake_ns = due_ns;
    lane->wake_on_close = true;
    return true;
}

/* What the lane would send now; without anything, arranges who wakes us: an entry when there is none, an
 * answer or the link otherwise. With the queue's lock. */
static struct shc_batch *choose_in_lane(struct sh_client *c, enum sh_ack ack, int64_t *wake_ns)
{
    struct shc_queue *q = &c->queue;
    struct shc_sender *s = &c->sender;
    const struct shc_producer *p = &s->producers[ack];
    bool able = s->link != NULL && !s->paused && p->sent < c->options.in_flight;
    struct shc_batch *b = able ? first_unsent(c, ack) : NULL;
    q->lanes[ack].wake_on_close = false;
    q->lanes[ack].wake_on_entry = q->head == NULL || (able && b == NULL && !p->draining);
    return b != NULL && !lingers(c, b, wake_ns) ? b : NULL;
}

/* Chooses what goes out now: of all lanes the oldest, for which the others wait when it needs credit. */
static struct shc_batch *choose(struct sh_client *c)
{
    struct shc_queue *q = &c->queue;
    struct shc_sender *s = &c->sender;
    struct shc_batch *b = NULL;
    int64_t wake_ns = INT64_MAX;
    pthread_mutex_lock(&q->lock);
    for (enum sh_ack ack = SH_ACK_LOCAL; ack <= SH_ACK_ALL; ack++) {
        struct shc_batch *next = choose_in_lane(c, ack, &wake_ns);
        if (next != NULL && (b == NULL || next->order < b->order))
            b = next;
    }
    if (wake_ns != INT64_MAX)
        loop_timer_set(c->loop, &s->linger, wake_ns);
    if (b != NULL && !link_client_has_credit(s->link, b->body.len))
        b = NULL;
    if (b != NULL)
        shc_batch_close(q, b);
    if (b != NULL && b->sent_ns == 0)
        b->sent_ns = clock_mono_ns();
    pthread_mutex_unlock(&q->lock);
    return b;
}

/* The body up to the entries, which follow as they are. */
static void append_head(struct sh_client *c, const struct shc_batch *b, struct buf *head)
{
    static const uint8_t placeholder[] = {0xc0}; /* nil, one byte, where the entries go */
    struct msg_append m = {
        .producer = c->sender.producers[b->ack].id,
        .epoch = LANE_EPOCH,
        .sequence = b->sequence,
        .ack = b->ack,
        .timeout_ms = c->options.ack_timeout_ms,
        .hlc = b->hlc,
        .entries = slice_of(placeholder, sizeof placeholder),
    };
    msg_encode(MSG_append, &m, head);
    assert(head->data[head->len - 1] == placeholder[0]);
    head->len -= sizeof placeholder;
}

/* What a caller on a visit leaves to the client's own thread, since it may call back. */
static bool leave_to_own_thread(struct sh_client *c)
{
    if (c->visited)
        loop_timer_after(c->loop, &c->sender.own_thread, 0);
    return c->visited;
}

/* Nothing but the batch itself is affected: it got no sequence yet, or gives it back. */
static bool refuse_unsent(struct sh_client *c, struct shc_batch *b, enum sh_error error, const char *detail)
{
    struct shc_producer *p = &c->sender.producers[b->ack];
    if (b->sequence > 0 && b->sequence + 1 == p->next_sequence)
        p->next_sequence--;
    pthread_mutex_lock(&c->queue.lock);
    forget_sequence(b);
    pthread_mutex_unlock(&c->queue.lock);
    if (leave_to_own_thread(c))
        return false;
    shc_finish(c, b, error, detail);
    return true;
}

/* For callers whose time is over. */
static void name_batch(struct sh_client *c, struct shc_batch *b)
{
    pthread_mutex_lock(&c->queue.lock);
    b->id.epoch = LANE_EPOCH;
    b->id.sequence = b->sequence;
    memcpy(b->id.producer, c->sender.producers[b->ack].id.bytes, sizeof b->id.producer);
    pthread_mutex_unlock(&c->queue.lock);
}

/* False: no more can be sent in this turn. */
static bool send_batch(struct sh_client *c, struct shc_batch *b)
{
    struct shc_producer *p = &c->sender.producers[b->ack];
    struct slice entries = shc_batch_array(b);
    if (b->sequence == 0 && !id16_is_zero(b->log) && !id16_equal(b->log, c->sender.log)) {
        b->moved = !id16_equal(b->log, c->sender.wanted_log);
        if (!b->moved)
            return false; /* the link is about to follow */
        return refuse_unsent(c, b, SH_UNAVAILABLE, "appends go to another log by now");
    }
    b->moved = false;
    if (b->sequence == 0) {
        unsigned most = atomic_load(&c->most_bytes);
        if (most > 0 && entries.len > most)
            return refuse_unsent(c, b, SH_TOO_LARGE, "the entries exceed what the node takes in one append");
        b->sequence = p->next_sequence++;
    }
    if (b->correlation == 0)
        b->correlation = shc_correlation(c);
    struct buf head = {0};
    append_head(c, b, &head);
    name_batch(c, b);
    enum sh_error e =
        link_client_send(c->sender.link, MSG_append, b->correlation, buf_slice(&head), entries, &b->number);
    buf_free(&head);
    if (e != SH_OK && !b->uncertain)
        return refuse_unsent(c, b, e, "the append does not fit into a message");
    assert(e == SH_OK);
    b->state = SHC_SENT;
    p->sent++;
    return true;
}

static int64_t tick_ns(const struct sh_client *c)
{
    int64_t tick_ms = c->options.timeout_ms / 20;
    return (tick_ms < 1 ? 1 : tick_ms > TICK_MAX_MS ? TICK_MAX_MS : tick_ms) * NS_PER_MS;
}

static void arm_tick(struct sh_client *c)
{
    struct shc_sender *s = &c->sender;
    if (s->ticking)
        return;
    s->ticking = true;
    loop_timer_after(c->loop, &s->tick, tick_ns(c));
}

static void try_move(struct sh_client *c);

static bool has_batches(struct sh_client *c)
{
    pthread_mutex_lock(&c->queue.lock);
    bool any = c->queue.head != NULL;
    pthread_mutex_unlock(&c->queue.lock);
    return any;
}

/* The link for appends is opened for the first one only: a client that just reads, and is soon gone, must not
 * connect to walsvc and close at once, which ends an ipc listener (nng #1518). */
void shc_pump(struct sh_client *c)
{
    struct shc_batch *b;
    if (c->sender.move && has_batches(c) && !leave_to_own_thread(c))
        try_move(c);
    while ((b = choose(c)) != NULL && send_batch(c, b))
        continue;
    if (has_batches(c))
        arm_tick(c);
}

/* ---------------------------------------------------------------- deadlines */

/* One asynchronous call whose time is over; false when there is none. */
static bool expire_one(struct sh_client *c, int64_t now_ns)
{
    struct shc_queue *q = &c->queue;
    struct shc_call_back call = {0};
    struct sh_append_id id = {.sequence = 0};
    pthread_mutex_lock(&q->lock);
    for (struct shc_batch *b = q->head; b != NULL && call.fn == NULL; b = b->next) {
        if (b->calls_expired == b->call_count)
            continue;
        if (b->calls[b->calls_expired].deadline_ns > now_ns)
            continue;
        call = b->calls[b->calls_expired++];
        id = b->id;
        b->live--;
    }
    pthread_mutex_unlock(&q->lock);
    if (call.fn != NULL)
        shc_end_call(c, &call, SH_TIMEOUT, "no answer in time", &(struct sh_append_result){0}, &id);
    return call.fn != NULL;
}

/* A batch that never went out and that nobody waits for. */
static struct shc_batch *find_orphan(struct shc_queue *q)
{
    pthread_mutex_lock(&q->lock);
    struct shc_batch *b = q->head;
    while (b != NULL && (b->live > 0 || b->sequence > 0))
        b = b->next;
    if (b != NULL)
        shc_batch_close(q, b);
    pthread_mutex_unlock(&q->lock);
    return b;
}

/* A batch that the full disk has kept out, and whose first caller has no time left for another try; NULL when
 * there is none. */
static struct shc_batch *find_kept_out(struct sh_client *c)
{
    struct shc_queue *q = &c->queue;
    int64_t until_ns = loop_now_ns(c->loop) + 2 * tick_ns(c) + SHC_DISK_FULL_PAUSE_MS * (int64_t)NS_PER_MS;
    if (!c->sender.disk_full)
        return NULL;
    pthread_mutex_lock(&q->lock);
    struct shc_batch *b = q->head;
    while (b != NULL && (b->state == SHC_SENT || (b->state == SHC_READY && b->uncertain) ||
                         b->first_deadline_ns > until_ns))
        b = b->next;
    if (b != NULL)
        shc_batch_close(q, b);
    pthread_mutex_unlock(&q->lock);
    return b;
}

static void on_tick(void *arg)
{
    struct sh_client *c = arg;
    struct shc_batch *b;
    c->sender.ticking = false;
    while ((b = find_kept_out(c)) != NULL)
        shc_settle(c, b, SH_DISK_FULL, "the node's disk is full or below its reserve");
    while (expire_one(c, loop_now_ns(c->loop)))
        ;
    while ((b = find_orphan(&c->queue)) != NULL)
        shc_finish(c, b, SH_TIMEOUT, "no answer in time; not sent");
} /* the round's hook arms the next tick */

static void on_linger(void *arg)
{
    (void)arg; /* the round's hook sends */
}

/* ---------------------------------------------------------------- the link, and moving to another one */

static void on_state(void *arg, bool connected)
{
    struct sh_client *c = arg;
    if (connected)
        return; /* the round's hook sends */
    pthread_mutex_lock(&c->queue.lock);
    for (struct shc_batch *b = c->queue.head; b != NULL; b = b->next)
        b->uncertain = b->uncertain || b->state == SHC_SENT;
    pthread_mutex_unlock(&c->queue.lock);
}

/* Whether a batch that may have reached the old log is still waited for. */
static bool must_stay(struct sh_client *c)
{
    bool stay = false;
    pthread_mutex_lock(&c->queue.lock);
    for (struct shc_batch *b = c->queue.head; b != NULL && !stay; b = b->next)
        stay = b->live > 0 && (b->state == SHC_SENT || b->uncertain);
    pthread_mutex_unlock(&c->queue.lock);
    return stay;
}

/* What may have reached the old log and isn't waited for ends here. */
static void drop_unknown(struct sh_client *c)
{
    struct shc_batch *b;
    do {
        pthread_mutex_lock(&c->queue.lock);
        b = c->queue.head;
        while (b != NULL && b->state != SHC_SENT && !b->uncertain)
            b = b->next;
        pthread_mutex_unlock(&c->queue.lock);
        if (b != NULL)
            shc_finish(c, b, SH_TIMEOUT, "the node is away; the outcome is unknown");
    } while (b != NULL);
}

/* Whatever is frozen goes out again by the next link, under the same sequence if that leads to the same log.
 */
static void take_back(struct sh_client *c, bool same_log)
{
    struct shc_sender *s = &c->sender;
    pthread_mutex_lock(&c->queue.lock);
    for (struct shc_batch *b = c->queue.head; b != NULL; b = b->next) {
        if (b->state == SHC_SENT) {
            b->state = SHC_READY;
            b->uncertain = true;
            s->producers[b->ack].sent--;
        }
        if (!same_log && b->state != SHC_OPEN) {
            b->state = SHC_READY;
            forget_sequence(b);
        }
    }
    pthread_mutex_unlock(&c->queue.lock);
    for (unsigned i = 0; i < SHC_LANES; i++) {
        assert(s->producers[i].sent == 0);
        if (!same_log)
            start_producer(&s->producers[i]);
    }
}

static void open_link(struct sh_client *c)
{
    struct shc_sender *s = &c->sender;
    struct link_client_options options = {
        .loop = c->loop,
        .endpoint = s->wanted_endpoint,
        .message_bytes = SHC_MESSAGE_BYTES,
        .queue_bytes = SIZE_MAX / 4, /* options.queue_bytes bounds what gets here */
        .cluster = slice_of(c->query.cluster, sizeof c->query.cluster),
        .on_answer = shc_on_append_answer,
        .on_state = on_state,
        .arg = c,
    };
    snprintf(s->endpoint, sizeof s->endpoint, "%s", s->wanted_endpoint);
    s->log = s->wanted_log;
    if (link_client_open(&options, &s->link) != SH_OK)
        s->link = NULL; /* a malformed endpoint from the node: as if it were away */
}

static void try_move(struct sh_client *c)
{
    struct shc_sender *s = &c->sender;
    bool same_log = s->has_log && id16_equal(s->log, s->wanted_log);
    if (s->has_log && !same_log && !c->options.at_least_once) {
        if (must_stay(c))
            return; /* tried again with each round */
        drop_unknown(c);
    }
    s->move = false;
    if (s->link != NULL)
        link_client_close(s->link);
    take_back(c, same_log || !s->has_log);
    open_link(c);
    s->has_log = true;
}

void shc_send_target(struct sh_client *c, const char *endpoint, struct id16 log)
{
    struct shc_sender *s = &c->sender;
    snprintf(s->wanted_endpoint, sizeof s->wanted_endpoint, "%s", endpoint);
    s->wanted_log = log;
    pthread_mutex_lock(&c->queue.lock);
    c->queue.log = log;
    pthread_mutex_unlock(&c->queue.lock);
    s->move = s->link == NULL || strcmp(endpoint, s->endpoint) != 0 || !id16_equal(log, s->log);
} /* the round's hook moves */

static void on_pause_over(void *arg)
{
    struct sh_client *c = arg;
    c->sender.paused = false; /* the round's hook sends */
}

void shc_send_open(struct sh_client *c)
{
    struct shc_sender *s = &c->sender;
    for (unsigned i = 0; i < SHC_LANES; i++)
        start_producer(&s->producers[i]);
    s->pause = (struct loop_timer){.fn = on_pause_over, .arg = c};
    s->linger = (struct loop_timer){.fn = on_linger};
    s->own_thread = (struct loop_timer){.fn = on_linger};
    s->tick = (struct loop_timer){.fn = on_tick, .arg = c};
}

void shc_send_close(struct sh_client *c)
{
    struct shc_sender *s = &c->sender;
    struct shc_batch *b;
    loop_timer_cancel(c->loop, &s->pause);
    loop_timer_cancel(c->loop, &s->linger);
    loop_timer_cancel(c->loop, &s->own_thread);
    loop_timer_cancel(c->loop, &s->tick);
    if (s->link != NULL)
        link_client_close(s->link);
    pthread_mutex_lock(&c->queue.lock);
    c->queue.closed = true; /* a callback may append again */
    pthread_mutex_unlock(&c->queue.lock);
    while ((b = c->queue.head) != NULL) {
        shc_batch_close(&c->queue, b);
        shc_finish(c, b, SH_UNAVAILABLE, "the client was closed");
    }
    shc_wake_callers(c);
}
