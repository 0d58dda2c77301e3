/* The queues of the core. Nothing here is fatal but a broken order. */
#include "wal_queue.h"

#include <assert.h>
#include <stdlib.h>

enum { FIRST_CAP = 64 };

static void grow_waiters(struct wal_waiters *q)
{
    size_t cap = q->cap > 0 ? 2 * q->cap : FIRST_CAP;
    struct wal_waiter *ring = xmalloc(cap * sizeof *ring);
    for (size_t i = 0; i < q->count; i++)
        ring[i] = q->ring[(q->first + i) % q->cap];
    free(q->ring);
    *q = (struct wal_waiters){.ring = ring, .cap = cap, .count = q->count};
}

void wal_waiters_push(struct wal_waiters *q, const struct wal_waiter *waiter)
{
    if (q->count == q->cap)
        grow_waiters(q);
    if (q->count > 0)
        assert(q->ring[(q->first + q->count - 1) % q->cap].until_lsn <= waiter->until_lsn);
    q->ring[(q->first + q->count++) % q->cap] = *waiter;
}

bool wal_waiters_pop(struct wal_waiters *q, uint64_t durable_lsn, struct wal_waiter *out)
{
    if (q->count == 0 || q->ring[q->first].until_lsn > durable_lsn)
        return false;
    *out = q->ring[q->first];
    q->first = (q->first + 1) % q->cap;
    q->count--;
    return true;
}

void wal_waiters_drop(struct wal_waiters *q, uint64_t session)
{
    for (size_t i = 0; i < q->count; i++) {
        struct wal_waiter *w = &q->ring[(q->first + i) % q->cap];
        if (w->token.session == session)
            w->wanted = WAL_LOCAL;
    }
}

void wal_waiters_free(struct wal_waiters *q)
{
    free(q->ring);
    *q = (struct wal_waiters){0};
}

void wal_stalls_push(struct wal_stalls *q, struct link_token token, const struct msg_append *request,
                     struct wal_times times)
{
    struct wal_stall *stall = xmalloc(sizeof *stall);
    *stall = (struct wal_stall){.token = token, .request = *request, .times = times};
    *(q->last != NULL ? &q->last->next : &q->first) = stall;
    q->last = stall;
    q->count++;
}

void wal_stalls_pop(struct wal_stalls *q)
{
    struct wal_stall *stall = q->first;
    q->first = stall->next;
    if (q->first == NULL)
        q->last = NULL;
    q->count--;
    free(stall);
}

size_t wal_stalls_drop(struct wal_stalls *q, uint64_t session)
{
    struct wal_stalls kept = {0};
    size_t bytes = 0;
    while (q->first != NULL) {
        if (q->first->token.session != session)
            wal_stalls_push(&kept, q->first->token, &q->first->request, q->first->times);
        else
            bytes += q->first->request.entries.len;
        wal_stalls_pop(q);
    }
    *q = kept;
    return bytes;
}

void wal_stalls_free(struct wal_stalls *q)
{
    while (q->first != NULL)
        wal_stalls_pop(q);
}

void wal_polls_add(struct wal_polls *p, const struct wal_poll *poll)
{
    if (p->count == p->cap) {
        p->cap = p->cap > 0 ? 2 * p->cap : FIRST_CAP;
        p->all = xrealloc(p->all, p->cap * sizeof *p->all);
    }
    p->all[p->count++] = *poll;
}

void wal_polls_remove(struct wal_polls *p, size_t index)
{
    assert(index < p->count);
    p->all[index] = p->all[--p->count];
}

void wal_polls_drop(struct wal_polls *p, uint64_t session)
{
    for (size_t i = 0; i < p->count;) {
        if (p->all[i].token.session == session)
            wal_polls_remove(p, i);
        else
            i++;
    }
}

int64_t wal_polls_due_ns(const struct wal_polls *p)
{
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < p->count; i++)
        due_ns = p->all[i].due_ns < due_ns ? p->all[i].due_ns : due_ns;
    return due_ns;
}

void wal_polls_free(struct wal_polls *p)
{
    free(p->all);
    *p = (struct wal_polls){0};
}
