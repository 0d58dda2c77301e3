/* Appends, what becomes of them: what the answer to a batch means, and telling its callers. The loop's end;
 * the rules stand above sh_send.c. Nothing here is fatal but a broken invariant. */
#include "sh_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNKNOWN_PAUSE_MS = 20, REJECTED_PAUSE_MS = 10 };

static struct shc_producer *producer_of(struct sh_client *c, const struct shc_batch *b)
{
    return &c->sender.producers[b->ack];
}

static void unlink_batch(struct shc_queue *q, struct shc_batch *b)
{
    struct shc_batch **at = &q->head;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    if (q->tail == &b->next)
        q->tail = at;
    q->bytes -= b->body.len - SHC_ARRAY_HEAD;
    if (q->room_waiters > 0)
        pthread_cond_broadcast(&q->room);
    if (q->flush_waiters > 0)
        pthread_cond_broadcast(&q->answered);
}

void shc_end_call(struct sh_client *c, const struct shc_call_back *call, enum sh_error error,
                  const char *detail, const struct sh_append_result *batch, const struct sh_append_id *id)
{
    struct sh_append_result result = *batch;
    result.first_lsn += call->first;
    result.count = call->count;
    shc_detail(detail);
    shc_groups_begin_callback(c);
    shc_keep_append(error, id, call->first, call->count);
    call->fn(call->arg, error, error == SH_OK ? &result : NULL);
    shc_groups_end_callback(c);
}

/* With the queue's lock. */
static void expect_callers(struct shc_queue *q, const struct shc_batch *b)
{
    int64_t now_ns = clock_mono_ns();
    if (b->sent_ns != 0)
        shc_company_expect(&q->lanes[b->ack].company, atomic_load(&b->refs) - 1, now_ns - b->sent_ns, now_ns);
}

void shc_finish(struct sh_client *c, struct shc_batch *b, enum sh_error error, const char *detail)
{
    struct shc_queue *q = &c->queue;
    assert(b->state != SHC_OPEN);
    b->error = error;
    snprintf(b->detail, sizeof b->detail, "%s", detail != NULL ? detail : "");
    for (uint32_t i = b->calls_expired; i < b->call_count; i++)
        shc_end_call(c, &b->calls[i], error, b->detail, &b->result, &b->id);
    if (b->state == SHC_SENT)
        producer_of(c, b)->sent--;
    pthread_mutex_lock(&q->lock);
    unlink_batch(q, b);
    expect_callers(q, b);
    pthread_mutex_unlock(&q->lock);
    b->next_answered = c->sender.answered;
    c->sender.answered = b;
}

void shc_wake_callers(struct sh_client *c)
{
    struct shc_batch *b;
    while ((b = c->sender.answered) != NULL) {
        c->sender.answered = b->next_answered;
        if (atomic_load(&b->refs) > 1)
            shc_set(&b->done, 1);
        shc_batch_unref(&c->queue, b);
    }
}

static void pause_sending(struct sh_client *c, int64_t pause_ms)
{
    struct shc_sender *s = &c->sender;
    s->paused = true;
    loop_timer_after(c->loop, &s->pause, pause_ms * NS_PER_MS);
}

/* Not known whether it landed: again, as it is. */
static void send_again(struct sh_client *c, struct shc_batch *b, int64_t pause_ms)
{
    assert(b->state == SHC_SENT && b->sequence > 0);
    b->state = SHC_READY;
    b->uncertain = true;
    producer_of(c, b)->sent--;
    pause_sending(c, pause_ms);
}

/* Known not to have landed: again once everything else is answered, under a sequence that fits then. */
static void reject(struct sh_client *c, struct shc_batch *b)
{
    struct shc_producer *p = producer_of(c, b);
    assert(b->state == SHC_SENT);
    b->state = SHC_REJECTED;
    p->sent--;
    p->draining = true;
    if (++b->rejections > 1)
        pause_sending(c, REJECTED_PAUSE_MS);
}

void shc_settle(struct sh_client *c, struct shc_batch *b, enum sh_error error, const char *detail)
{
    struct shc_producer *p = producer_of(c, b);
    if (b->sequence > p->settled)
        p->settled = b->sequence;
    shc_finish(c, b, error, detail);
}

static void on_append_reply(struct sh_client *c, struct shc_batch *b, struct slice body)
{
    struct msg_append_reply reply;
    if (msg_decode(MSG_append_reply, body, &reply) != SH_OK || reply.count != b->count) {
        shc_settle(c, b, SH_INTERNAL, "the node's answer to an append makes no sense");
        return;
    }
    c->sender.disk_full = false;
    memcpy(b->result.log, reply.log.bytes, sizeof b->result.log);
    b->result.first_lsn = reply.lsn;
    b->result.count = b->count;
    b->result.ack = (enum sh_ack)reply.ack;
    b->result.hlc = reply.hlc;
    b->result.seen_hlc = reply.hlc > reply.clock ? reply.hlc : reply.clock;
    shc_settle(c, b, SH_OK, NULL);
}

static void on_error(struct sh_client *c, struct shc_batch *b, struct slice body)
{
    struct shc_sender *s = &c->sender;
    struct shc_producer *p = producer_of(c, b);
    struct msg_error error;
    char detail[SHC_DETAIL_MAX];
    if (msg_decode(MSG_error, body, &error) != SH_OK)
        error = (struct msg_error){.code = SH_INTERNAL, .text = slice_str("malformed error")};
    snprintf(detail, sizeof detail, "%.*s", (int)error.text.len, (const char *)error.text.data);
    switch (error.code) {
    case SH_OVERLOADED: /* the same sequence is right whether an earlier try has landed or not */
        send_again(c, b, error.retry_ms > 0 ? (int64_t)error.retry_ms : REJECTED_PAUSE_MS);
        return;
    case SH_DISK_FULL: /* it knows the sequence, and that nothing of it has landed */
        s->disk_full = true;
        send_again(c, b, SHC_DISK_FULL_PAUSE_MS);
        b->uncertain = false;
        return;
    case SH_UNAVAILABLE:
        send_again(c, b, UNKNOWN_PAUSE_MS);
        return;
    case SH_CONFLICT:
        if (error.expected == 0 || error.expected > b->sequence)
            break;
        p->expected = error.expected;
        reject(c, b);
        return;
    case SH_SEQUENCE_EXPIRED:
        p->anew = p->draining = true;
        if (b->uncertain)
            break; /* it may have landed: its callers must know */
        reject(c, b);
        return;
    default:
        break;
    }
    shc_settle(c, b, (enum sh_error)error.code, detail);
}

void shc_on_append_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct sh_client *c = arg;
    pthread_mutex_lock(&c->queue.lock);
    struct shc_batch *b = c->queue.head;
    while (b != NULL && (b->state != SHC_SENT || b->number != number))
        b = b->next;
    pthread_mutex_unlock(&c->queue.lock);
    if (b == NULL)
        return;
    if (type == MSG_append_reply)
        on_append_reply(c, b, body);
    else if (type == MSG_error)
        on_error(c, b, body);
    else
        shc_settle(c, b, SH_INTERNAL, "the node answered an append with another message");
}
