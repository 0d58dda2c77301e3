/* Levels of acknowledgement. Nothing here is fatal but a broken invariant. */
#include "wal_levels.h"

#include <assert.h>
#include <stdlib.h>

enum { FIRST_CAP = 64, BY_LSN = 0, BY_DUE = 1 };

struct wal_level_waiter {
    struct wal_level_wait wait;
    uint64_t last_lsn;
    size_t at[2]; /* its index in its heap by LSN, and in the one by time */
};

/* ---------------------------------------------------------------- heaps */

static bool is_before(const struct wal_level_waiter *a, const struct wal_level_waiter *b, int key)
{
    return key == BY_LSN ? a->last_lsn < b->last_lsn : a->wait.due_ns < b->wait.due_ns;
}

static void put_at(struct wal_level_heap *h, size_t at, struct wal_level_waiter *w, int key)
{
    h->all[at] = w;
    w->at[key] = at;
}

static void sift_up(struct wal_level_heap *h, size_t at, int key)
{
    struct wal_level_waiter *w = h->all[at];
    for (size_t above; at > 0 && is_before(w, h->all[above = (at - 1) / 2], key); at = above)
        put_at(h, at, h->all[above], key);
    put_at(h, at, w, key);
}

static void sift_down(struct wal_level_heap *h, size_t at, int key)
{
    struct wal_level_waiter *w = h->all[at];
    for (size_t below; (below = 2 * at + 1) < h->count; at = below) {
        if (below + 1 < h->count && is_before(h->all[below + 1], h->all[below], key))
            below++;
        if (!is_before(h->all[below], w, key))
            break;
        put_at(h, at, h->all[below], key);
    }
    put_at(h, at, w, key);
}

static void heap_add(struct wal_level_heap *h, struct wal_level_waiter *w, int key)
{
    if (h->count == h->cap) {
        h->cap = h->cap > 0 ? 2 * h->cap : FIRST_CAP;
        h->all = xrealloc(h->all, h->cap * sizeof *h->all);
    }
    put_at(h, h->count++, w, key);
    sift_up(h, h->count - 1, key);
}

static void heap_remove(struct wal_level_heap *h, struct wal_level_waiter *w, int key)
{
    size_t at = w->at[key];
    assert(at < h->count && h->all[at] == w);
    struct wal_level_waiter *last = h->all[--h->count];
    if (last == w)
        return;
    put_at(h, at, last, key);
    sift_up(h, at, key);
    sift_down(h, last->at[key], key);
}

/* Leaves the session's out; the last heap that they are in frees them. */
static void heap_filter(struct wal_level_heap *h, uint64_t session, int key)
{
    size_t kept = 0;
    for (size_t i = 0; i < h->count; i++) {
        struct wal_level_waiter *w = h->all[i];
        if (w->wait.token.session != session)
            put_at(h, kept++, w, key);
        else if (key == BY_DUE)
            free(w);
    }
    h->count = kept;
    for (size_t i = kept / 2; i-- > 0;)
        sift_down(h, i, key);
}

/* ---------------------------------------------------------------- what is known */

/* A number never goes back, but for UINT64_MAX: the node was alone, and is not any more. */
static uint64_t forward(uint64_t known, uint64_t told)
{
    return known == UINT64_MAX || told > known ? told : known;
}

const char *wal_levels_told(struct wal_levels *l, uint64_t session, const struct msg_replicated *told,
                            uint64_t durable_lsn)
{
    if (told->quorum_lsn != UINT64_MAX && told->quorum_lsn > durable_lsn)
        return "quorum_lsn lies beyond what is durable here";
    if (told->all_lsn != UINT64_MAX && told->all_lsn > durable_lsn)
        return "all_lsn lies beyond what is durable here";
    if (told->all_lsn > told->quorum_lsn)
        return "what all have, a quorum has";
    l->quorum_lsn = forward(l->quorum_lsn, told->quorum_lsn);
    l->all_lsn = forward(l->all_lsn, told->all_lsn);
    l->session = session;
    return NULL;
}

static enum wal_level level_of(const struct wal_levels *l, uint64_t last_lsn)
{
    return last_lsn <= l->all_lsn ? WAL_ALL : last_lsn <= l->quorum_lsn ? WAL_QUORUM : WAL_LOCAL;
}

static uint64_t last_of(const struct wal_answer *answer)
{
    return answer->lsn + answer->count - 1;
}

enum wal_level wal_levels_of(const struct wal_levels *l, const struct wal_answer *answer)
{
    return level_of(l, last_of(answer));
}

/* ---------------------------------------------------------------- who waits */

static struct wal_level_heap *heap_of(struct wal_levels *l, enum wal_level wanted)
{
    assert(wanted == WAL_QUORUM || wanted == WAL_ALL);
    return &l->by_lsn[wanted - WAL_QUORUM];
}

void wal_levels_wait(struct wal_levels *l, const struct wal_level_wait *wait)
{
    struct wal_level_waiter *w = xmalloc(sizeof *w);
    *w = (struct wal_level_waiter){.wait = *wait, .last_lsn = last_of(&wait->answer)};
    heap_add(heap_of(l, wait->wanted), w, BY_LSN);
    heap_add(&l->by_due, w, BY_DUE);
}

static void take_out(struct wal_levels *l, struct wal_level_waiter *w, struct wal_level_wait *out)
{
    heap_remove(heap_of(l, w->wait.wanted), w, BY_LSN);
    heap_remove(&l->by_due, w, BY_DUE);
    *out = w->wait;
    free(w);
}

bool wal_levels_pop_reached(struct wal_levels *l, struct wal_level_wait *out)
{
    for (enum wal_level wanted = WAL_QUORUM; wanted <= WAL_ALL; wanted++) {
        const struct wal_level_heap *h = heap_of(l, wanted);
        if (h->count == 0 || level_of(l, h->all[0]->last_lsn) < wanted)
            continue;
        take_out(l, h->all[0], out);
        return true;
    }
    return false;
}

int64_t wal_levels_due_ns(const struct wal_levels *l)
{
    return l->by_due.count > 0 ? l->by_due.all[0]->wait.due_ns : INT64_MAX;
}

bool wal_levels_pop_due(struct wal_levels *l, int64_t now_ns, struct wal_level_wait *out)
{
    return wal_levels_due_ns(l) <= now_ns && wal_levels_pop_any(l, out);
}

bool wal_levels_pop_any(struct wal_levels *l, struct wal_level_wait *out)
{
    if (l->by_due.count == 0)
        return false;
    take_out(l, l->by_due.all[0], out);
    return true;
}

void wal_levels_drop(struct wal_levels *l, uint64_t session)
{
    if (session == l->session) {
        l->quorum_lsn = l->quorum_lsn == UINT64_MAX ? 0 : l->quorum_lsn;
        l->all_lsn = l->all_lsn == UINT64_MAX ? 0 : l->all_lsn;
    }
    for (int i = 0; i < 2; i++)
        heap_filter(&l->by_lsn[i], session, BY_LSN);
    heap_filter(&l->by_due, session, BY_DUE);
}

void wal_levels_free(struct wal_levels *l)
{
    for (size_t i = 0; i < l->by_due.count; i++)
        free(l->by_due.all[i]);
    for (int i = 0; i < 2; i++)
        free(l->by_lsn[i].all);
    free(l->by_due.all);
    *l = (struct wal_levels){0};
}
