/* The table of producers: a fixed pool, found by hash, in a list by last LSN. A full pool gives up its
 * oldest. */
#include "wal_producers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 2048, NONE = 0xffff, FIRST_ANSWERS = 4 };
_Static_assert((BUCKETS & (BUCKETS - 1)) == 0, "a mask takes the bucket");
_Static_assert((int)WAL_PRODUCERS_MAX < (int)NONE, "places fit into 16 bits");

struct producer {
    struct id16 id;
    uint32_t epoch;
    uint64_t last_sequence;
    struct wal_answer *answers; /* a ring of `cap`, the oldest at `first` */
    uint16_t cap, first, count;
    uint16_t chain;        /* next in the bucket */
    uint16_t older, newer; /* by last LSN */
};

struct wal_producers {
    struct producer pool[WAL_PRODUCERS_MAX];
    uint16_t buckets[BUCKETS];
    uint16_t oldest, newest;
    size_t count;
};

static void clear(struct wal_producers *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->pool[i].answers);
    memset(t->buckets, 0xff, sizeof t->buckets);
    t->oldest = t->newest = NONE;
    t->count = 0;
}

struct wal_producers *wal_producers_open(void)
{
    struct wal_producers *t = xcalloc(1, sizeof *t);
    clear(t);
    return t;
}

void wal_producers_free(struct wal_producers *t)
{
    clear(t);
    free(t);
}

size_t wal_producers_count(const struct wal_producers *t)
{
    return t->count;
}

/* Ids are random, but a client chooses them: mix all the bytes. */
static unsigned bucket_of(struct id16 id)
{
    uint64_t a, b;
    memcpy(&a, id.bytes, sizeof a);
    memcpy(&b, id.bytes + sizeof a, sizeof b);
    uint64_t mixed = (a ^ (b << 31 | b >> 33)) * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(mixed >> 40) & (BUCKETS - 1);
}

static uint16_t find(const struct wal_producers *t, struct id16 id)
{
    uint16_t at = t->buckets[bucket_of(id)];
    while (at != NONE && !id16_equal(t->pool[at].id, id))
        at = t->pool[at].chain;
    return at;
}

static void unlink_age(struct wal_producers *t, uint16_t at)
{
    struct producer *p = &t->pool[at];
    *(p->older != NONE ? &t->pool[p->older].newer : &t->oldest) = p->newer;
    *(p->newer != NONE ? &t->pool[p->newer].older : &t->newest) = p->older;
}

static void link_newest(struct wal_producers *t, uint16_t at)
{
    struct producer *p = &t->pool[at];
    p->older = t->newest;
    p->newer = NONE;
    *(t->newest != NONE ? &t->pool[t->newest].newer : &t->oldest) = at;
    t->newest = at;
}

static void unlink_bucket(struct wal_producers *t, uint16_t at)
{
    uint16_t *link = &t->buckets[bucket_of(t->pool[at].id)];
    while (*link != at)
        link = &t->pool[*link].chain;
    *link = t->pool[at].chain;
}

/* A place for a new producer, the oldest one's when all are taken. */
static uint16_t take_place(struct wal_producers *t)
{
    if (t->count < WAL_PRODUCERS_MAX)
        return (uint16_t)t->count++;
    uint16_t at = t->oldest;
    unlink_age(t, at);
    unlink_bucket(t, at);
    free(t->pool[at].answers);
    return at;
}

static uint16_t add(struct wal_producers *t, struct id16 id, uint32_t epoch)
{
    uint16_t at = take_place(t);
    unsigned bucket = bucket_of(id);
    t->pool[at] = (struct producer){.id = id, .epoch = epoch, .chain = t->buckets[bucket]};
    t->buckets[bucket] = at;
    link_newest(t, at);
    return at;
}

static struct wal_answer *answer_at(const struct producer *p, unsigned index)
{
    return &p->answers[(p->first + index) % p->cap];
}

static void grow_ring(struct producer *p)
{
    uint16_t cap = p->cap > 0 ? (uint16_t)(2 * p->cap) : FIRST_ANSWERS;
    struct wal_answer *answers = xmalloc(cap * sizeof *answers);
    for (unsigned i = 0; i < p->count; i++)
        answers[i] = *answer_at(p, i);
    free(p->answers);
    p->answers = answers;
    p->cap = cap;
    p->first = 0;
}

static void push_answer(struct producer *p, struct wal_answer answer)
{
    if (p->count == WAL_ANSWERS_MAX) {
        p->first = (uint16_t)((p->first + 1) % p->cap);
        p->count--;
    }
    if (p->count == p->cap)
        grow_ring(p);
    p->count++;
    *answer_at(p, p->count - 1u) = answer;
}

enum wal_verdict wal_producers_judge(const struct wal_producers *t, struct id16 id, uint32_t epoch,
                                     uint64_t sequence, struct wal_answer *answer, uint64_t *expected)
{
    uint16_t at = find(t, id);
    *expected = 1;
    if (at == NONE)
        return sequence == 1 ? WAL_NEW : WAL_EXPIRED;
    const struct producer *p = &t->pool[at];
    if (epoch < p->epoch)
        return WAL_FENCED;
    if (epoch > p->epoch)
        return sequence == 1 ? WAL_NEW : WAL_GAP;
    *expected = p->last_sequence + 1;
    if (sequence > p->last_sequence)
        return sequence == *expected ? WAL_NEW : WAL_GAP;
    uint64_t age = p->last_sequence - sequence;
    if (age >= p->count)
        return WAL_EXPIRED;
    *answer = *answer_at(p, p->count - 1u - (unsigned)age);
    return WAL_REPEATED;
}

bool wal_producers_known(const struct wal_producers *t, struct id16 id)
{
    return find(t, id) != NONE;
}

bool wal_producers_landed(const struct wal_producers *t, struct id16 id, uint32_t epoch, uint64_t sequence)
{
    uint16_t at = find(t, id);
    return at != NONE && t->pool[at].epoch == epoch && sequence <= t->pool[at].last_sequence;
}

void wal_producers_record(struct wal_producers *t, struct id16 id, uint32_t epoch, uint64_t sequence,
                          struct wal_answer answer)
{
    uint16_t at = find(t, id);
    if (at == NONE) {
        at = add(t, id, epoch);
    } else if (t->newest != at) {
        unlink_age(t, at);
        link_newest(t, at);
    }
    struct producer *p = &t->pool[at];
    bool follows = p->epoch == epoch && sequence == p->last_sequence + 1;
    if (!follows) /* another epoch, or a damaged frame lies between: answers are known without gaps or not at
                     all */
        p->first = p->count = 0;
    p->epoch = epoch;
    p->last_sequence = sequence;
    push_answer(p, answer);
}

void wal_producers_halve(struct wal_producers *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct producer *p = &t->pool[i];
        uint16_t gone = p->count / 2;
        p->first = (uint16_t)((p->first + gone) % p->cap);
        p->count = (uint16_t)(p->count - gone);
    }
}

static void encode_producer(const struct producer *p, msgpack_packer *pk)
{
    uint64_t end = 0;
    msgpack_pack_array(pk, 4);
    mp_pack_bin(pk, slice_of(p->id.bytes, sizeof p->id.bytes));
    msgpack_pack_uint32(pk, p->epoch);
    msgpack_pack_uint64(pk, p->last_sequence);
    msgpack_pack_array(pk, 2 * (size_t)p->count);
    for (unsigned i = 0; i < p->count; i++) {
        const struct wal_answer *answer = answer_at(p, i);
        msgpack_pack_uint64(pk, answer->lsn - end);
        msgpack_pack_uint32(pk, answer->count);
        end = answer->lsn + answer->count;
    }
}

void wal_producers_encode(const struct wal_producers *t, msgpack_packer *pk)
{
    msgpack_pack_array(pk, t->count);
    for (uint16_t at = t->oldest; at != NONE; at = t->pool[at].newer)
        encode_producer(&t->pool[at], pk);
}

static bool decode_producer(struct wal_producers *t, struct mp *m)
{
    uint32_t fields, numbers;
    uint64_t epoch, last_sequence, end = 0;
    struct slice bytes;
    struct id16 id;
    if (!mp_array(m, &fields) || fields != 4 || !mp_bin(m, &bytes) || bytes.len != sizeof id.bytes)
        return false;
    memcpy(id.bytes, bytes.data, sizeof id.bytes);
    if (!mp_uint(m, &epoch) || epoch > UINT32_MAX || !mp_uint(m, &last_sequence) || !mp_array(m, &numbers))
        return false;
    if (numbers == 0 || numbers % 2 != 0 || numbers / 2 > WAL_ANSWERS_MAX || find(t, id) != NONE)
        return false;
    struct producer *p = &t->pool[add(t, id, (uint32_t)epoch)];
    p->last_sequence = last_sequence;
    for (uint32_t i = 0; i < numbers / 2; i++) {
        uint64_t gap, count;
        if (!mp_uint(m, &gap) || !mp_uint(m, &count) || count > UINT32_MAX)
            return false;
        push_answer(p, (struct wal_answer){end + gap, (uint32_t)count});
        end += gap + count;
    }
    return true;
}

bool wal_producers_decode(struct wal_producers *t, struct mp *m)
{
    uint32_t count;
    clear(t);
    if (!mp_array(m, &count) || count > WAL_PRODUCERS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!decode_producer(t, m))
            return false;
    return true;
}
