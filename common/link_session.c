/* The rules of a link for both ends. Pure: nothing here waits, sends or reads a clock, and nothing is fatal.
 */
#include "link_session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "mp.h"

#define RESEND_FIRST_NS (50 * (int64_t)NS_PER_MS)
#define RESEND_MOST_NS  (5 * NS_PER_S)

/* ---- numbered things ---- */

static struct link_item **bucket_of(const struct link_items *items, uint64_t number)
{
    return &items->buckets[number & (items->bucket_count - 1)];
}

/* Numbers mostly follow one another, so their low bits spread them evenly. */
static void items_grow(struct link_items *items)
{
    free(items->buckets);
    items->bucket_count = items->bucket_count > 0 ? 2 * items->bucket_count : 16;
    items->buckets = xcalloc(items->bucket_count, sizeof(struct link_item *));
    for (struct link_item *i = items->first; i != NULL; i = i->next) {
        struct link_item **bucket = bucket_of(items, i->number);
        i->chain = *bucket;
        *bucket = i;
    }
}

void link_items_add(struct link_items *items, struct link_item *item, uint64_t number)
{
    assert(items->last == NULL || items->last->number < number);
    if (items->count >= items->bucket_count)
        items_grow(items);
    struct link_item **bucket = bucket_of(items, number);
    *item = (struct link_item){.prev = items->last, .chain = *bucket, .number = number};
    *bucket = item;
    if (items->last != NULL)
        items->last->next = item;
    else
        items->first = item;
    items->last = item;
    items->count++;
}

struct link_item *link_items_find(const struct link_items *items, uint64_t number)
{
    if (items->count == 0)
        return NULL;
    struct link_item *item = *bucket_of(items, number);
    while (item != NULL && item->number != number)
        item = item->chain;
    return item;
}

void link_items_remove(struct link_items *items, struct link_item *item)
{
    struct link_item **at = bucket_of(items, item->number);
    while (*at != item) {
        assert(*at != NULL);
        at = &(*at)->chain;
    }
    *at = item->chain;
    if (item->prev != NULL)
        item->prev->next = item->next;
    else
        items->first = item->next;
    if (item->next != NULL)
        item->next->prev = item->prev;
    else
        items->last = item->prev;
    items->count--;
}

void link_items_free(struct link_items *items)
{
    free(items->buckets);
    *items = (struct link_items){0};
}

/* ---- the daemon's end ---- */

bool link_receiver_accept(struct link_receiver *r, uint64_t number, uint64_t previous)
{
    if (number <= r->accepted || previous > r->accepted || previous >= number)
        return false;
    r->accepted = number;
    return true;
}

static void drop_first_chunk(struct link_receiver *r)
{
    struct link_chunk *chunk = r->first;
    r->first = chunk->next;
    if (r->first == NULL)
        r->last = NULL;
    r->answer_bytes -= chunk->array.len;
    buf_free(&chunk->array);
    free(chunk);
}

/* The first two times are for connections that break; more often only somebody sends who does not read. */
static int64_t resend_delay_ns(uint32_t sends)
{
    if (sends < 3)
        return 0;
    return sends < 9 ? RESEND_FIRST_NS << (sends - 3) : RESEND_MOST_NS;
}

/* A reply carries one chunk and the next one waits for the next poll; a reply without answers repeats the
 * number of the last that had some. So the poll that names a reply, or a later one, has its answers; and one
 * that names an earlier reply hasn't. */
bool link_receiver_on_poll(struct link_receiver *r, uint64_t incarnation, uint64_t received, int64_t now_ns)
{
    bool known = incarnation == r->incarnation;
    struct link_chunk *chunk = r->first;
    if (chunk == NULL || chunk->reply == 0)
        return known;
    if (known && received >= chunk->reply) {
        drop_first_chunk(r);
    } else {
        chunk->reply = 0;
        chunk->not_before_ns = now_ns + resend_delay_ns(chunk->sends);
    }
    return known;
}

enum { ARRAY_HEADER = 5 };

static struct link_chunk *chunk_for(struct link_receiver *r, size_t bytes, int64_t now_ns)
{
    struct link_chunk *last = r->last;
    if (last != NULL && last->sends == 0 && last->array.len + bytes <= LINK_CHUNK_BYTES)
        return last;
    struct link_chunk *chunk = xcalloc(1, sizeof *chunk);
    chunk->since_ns = now_ns;
    buf_append(&chunk->array, "\xdd\0\0\0\0", ARRAY_HEADER);
    r->answer_bytes += chunk->array.len;
    if (last != NULL)
        last->next = chunk;
    else
        r->first = chunk;
    r->last = chunk;
    return chunk;
}

/* msgpack's array 32: the count is put in place with each answer. */
static void chunk_count_one(struct link_chunk *chunk)
{
    chunk->count++;
    for (int i = 0; i < 4; i++)
        chunk->array.data[1 + i] = (uint8_t)(chunk->count >> (24 - 8 * i));
}

void link_receiver_answer(struct link_receiver *r, uint64_t number, uint32_t type, struct slice body,
                          int64_t now_ns)
{
    struct link_chunk *chunk = chunk_for(r, body.len, now_ns);
    size_t before = chunk->array.len;
    buf_reserve(&chunk->array, body.len + 32);
    msgpack_packer pk;
    mp_packer(&pk, &chunk->array);
    msgpack_pack_array(&pk, 3);
    msgpack_pack_uint64(&pk, number);
    msgpack_pack_uint64(&pk, type);
    mp_pack_raw(&pk, body);
    chunk_count_one(chunk);
    r->answer_bytes += chunk->array.len - before;
}

int64_t link_receiver_ready_ns(const struct link_receiver *r)
{
    return r->first != NULL && r->first->reply == 0 ? r->first->not_before_ns : INT64_MAX;
}

struct slice link_receiver_reply(struct link_receiver *r, uint64_t *reply, int64_t now_ns)
{
    if (link_receiver_ready_ns(r) > now_ns) {
        *reply = r->replies;
        return slice_of("\x90", 1);
    }
    r->first->reply = ++r->replies;
    r->first->sends++;
    *reply = r->replies;
    return buf_slice(&r->first->array);
}

void link_receiver_free(struct link_receiver *r)
{
    while (r->first != NULL)
        drop_first_chunk(r);
    link_items_free(&r->unanswered);
}

/* ---- the client's end ---- */

static struct link_out *out_of(struct link_item *item)
{
    return (struct link_out *)item; /* its first member */
}

void link_sender_add(struct link_sender *s, struct link_out *out, size_t bytes)
{
    out->bytes = bytes;
    out->forgotten = false;
    link_items_add(&s->outstanding, &out->item, ++s->last_number);
    if (s->unsent == NULL)
        s->unsent = &out->item;
}

bool link_sender_has_credit(const struct link_sender *s, size_t bytes)
{
    if (!s->greeted)
        return false;
    return s->sent_count == 0 ||
           (s->sent_count < s->credit_requests && s->sent_bytes + bytes <= s->credit_bytes);
}

struct link_out *link_sender_next(const struct link_sender *s, uint64_t *previous)
{
    if (s->unsent == NULL || !link_sender_has_credit(s, out_of(s->unsent)->bytes))
        return NULL;
    *previous = s->unsent->prev != NULL ? s->unsent->prev->number : 0;
    return out_of(s->unsent);
}

void link_sender_sent(struct link_sender *s)
{
    s->sent_bytes += out_of(s->unsent)->bytes;
    s->sent_count++;
    s->unsent = s->unsent->next;
}

void link_sender_lost(struct link_sender *s)
{
    s->greeted = false;
}

static bool is_sent(const struct link_sender *s, const struct link_item *item)
{
    return s->unsent == NULL || item->number < s->unsent->number;
}

static void take_out(struct link_sender *s, struct link_out *out)
{
    if (is_sent(s, &out->item)) {
        s->sent_bytes -= out->bytes;
        s->sent_count--;
    } else if (s->unsent == &out->item) {
        s->unsent = out->item.next;
    }
    s->forgotten -= out->forgotten;
    link_items_remove(&s->outstanding, &out->item);
}

/* Everything above `accepted` counts as not sent; what nobody wants any more goes. */
static void rewind_to(struct link_sender *s, uint64_t accepted, void (*drop)(struct link_out *out))
{
    struct link_item *next;
    s->sent_bytes = 0;
    s->sent_count = 0;
    for (struct link_item *i = s->outstanding.first; i != NULL && i->number <= accepted; i = i->next) {
        s->sent_bytes += out_of(i)->bytes;
        s->sent_count++;
    }
    for (struct link_item *i = s->outstanding.first; i != NULL; i = next) {
        next = i->next;
        if (i->number > accepted && out_of(i)->forgotten) {
            link_items_remove(&s->outstanding, i);
            s->forgotten--;
            drop(out_of(i));
        }
    }
    s->unsent = s->outstanding.first;
    while (s->unsent != NULL && s->unsent->number <= accepted)
        s->unsent = s->unsent->next;
}

void link_sender_on_reply(struct link_sender *s, const struct link_news *news,
                          void (*drop)(struct link_out *out))
{
    bool renewed = news->incarnation != s->incarnation;
    /* A server that has forgotten the session may still have taken in stale requests of it: it accepts no
     * lower number any more, and `previous` made sure that none that is unanswered was left out. */
    if (renewed || !s->greeted)
        rewind_to(s, news->accepted, drop);
    s->greeted = true;
    s->incarnation = news->incarnation;
    s->received = news->reply;
    s->accepted = news->accepted;
    s->credit_bytes = news->credit_bytes;
    s->credit_requests = (uint32_t)news->credit_requests;
}

struct link_out *link_sender_take(struct link_sender *s, uint64_t number)
{
    struct link_item *item = link_items_find(&s->outstanding, number);
    if (item == NULL)
        return NULL;
    take_out(s, out_of(item));
    return out_of(item);
}

struct link_out *link_sender_forget(struct link_sender *s, uint64_t number)
{
    struct link_item *item = link_items_find(&s->outstanding, number);
    if (item == NULL)
        return NULL;
    if (is_sent(s, item)) {
        s->forgotten += !out_of(item)->forgotten;
        out_of(item)->forgotten = true;
        return NULL;
    }
    return link_sender_take(s, number);
}
