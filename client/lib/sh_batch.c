/* Batches: their memory, the bytes of their entries, and waiting for their outcome. Nothing here is fatal. */
#include "sh_internal.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPARES_MAX = 16, SPARE_BYTES_MAX = 4 << 20 };

/* ---- waiting ---- */

bool shc_wait(atomic_uint *word, unsigned value, int64_t deadline_ns)
{
    struct timespec until = {.tv_sec = deadline_ns / NS_PER_S, .tv_nsec = deadline_ns % NS_PER_S};
    while (atomic_load_explicit(word, memory_order_acquire) == value) {
        if (deadline_ns != INT64_MAX && clock_mono_ns() >= deadline_ns)
            return false;
        syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline_ns == INT64_MAX ? NULL : &until,
                NULL, FUTEX_BITSET_MATCH_ANY);
    }
    return true;
}

void shc_set(atomic_uint *word, unsigned value)
{
    atomic_store_explicit(word, value, memory_order_release);
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* ---- memory ---- */

static struct shc_batch *take_spare(struct shc_queue *q)
{
    struct shc_batch *b = q->spare;
    if (b == NULL)
        return xcalloc(1, sizeof *b);
    q->spare = b->next;
    q->spares--;
    struct buf body = b->body;
    struct shc_call_back *calls = b->calls;
    uint32_t capacity = b->call_capacity;
    memset(b, 0, sizeof *b);
    b->body = body;
    b->calls = calls;
    b->call_capacity = capacity;
    return b;
}

/* With the queue's lock. */
struct shc_batch *shc_batch_new(struct shc_queue *q, enum sh_ack ack)
{
    struct shc_batch *b = take_spare(q);
    atomic_init(&b->refs, 1);
    atomic_init(&b->done, 0);
    b->ack = ack;
    b->order = ++q->orders;
    b->opened_ns = clock_mono_ns();
    buf_reserve(&b->body, SHC_ARRAY_HEAD);
    b->body.len = SHC_ARRAY_HEAD;
    *q->tail = b;
    q->tail = &b->next;
    q->lanes[ack].open = b;
    return b;
}

void shc_batch_close(struct shc_queue *q, struct shc_batch *b)
{
    if (b->state != SHC_OPEN)
        return;
    assert(q->lanes[b->ack].open == b);
    b->state = SHC_READY;
    q->lanes[b->ack].open = NULL;
}

void shc_batch_free(struct shc_batch *b)
{
    buf_free(&b->body);
    free(b->calls);
    free(b);
}

/* Without the queue's lock. */
void shc_batch_unref(struct shc_queue *q, struct shc_batch *b)
{
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) > 1)
        return;
    pthread_mutex_lock(&q->lock);
    bool keep = q->spares < SPARES_MAX && b->body.cap <= SPARE_BYTES_MAX;
    if (keep) {
        b->next = q->spare;
        q->spare = b;
        q->spares++;
    }
    pthread_mutex_unlock(&q->lock);
    if (!keep)
        shc_batch_free(b);
}

/* ---- bytes ---- */

static size_t str_head_bytes(size_t len)
{
    return len < 32 ? 1 : 2;
}

static size_t bin_head_bytes(size_t len)
{
    return len <= UINT8_MAX ? 2 : len <= UINT16_MAX ? 3 : 5;
}

static struct entry entry_of(const struct sh_entry *e)
{
    return (struct entry){
        .kind = (uint64_t)e->kind,
        .stream = slice_of(e->stream, e->stream != NULL ? strlen(e->stream) : 0),
        .key = slice_of(e->key, e->key_bytes),
        .value = slice_of(e->payload, e->payload_bytes),
        .ttl_ms = e->ttl_ms,
        .delta = e->delta,
    };
}

enum sh_error shc_entry_check(const struct sh_entry *e, const char **why)
{
    *why = NULL;
    if (e->kind == SH_ENTRY_EVENT)
        return shc_headers_check(e->headers, e->header_count, why);
    if (e->header_count > 0)
        *why = "only events have headers";
    else if ((unsigned)e->kind > SH_ENTRY_ADD)
        *why = "an entry is an event, a put, a delete or an add";
    else if (e->key == NULL || e->key_bytes == 0)
        *why = "a key has at least one byte";
    else if (e->stream != NULL)
        *why = "only events are of a stream";
    else if (e->ttl_ms > 0 && e->kind != SH_ENTRY_PUT)
        *why = "only a put lasts for a time";
    if (*why != NULL)
        return SH_BAD_REQUEST;
    *why = "a key has at most 4,096 bytes";
    return e->key_bytes > KEY_MAX ? SH_TOO_LARGE : SH_OK;
}

static void pack(const struct sh_entry *e, struct buf *out)
{
    struct entry entry = entry_of(e);
    struct buf headers = {0};
    msgpack_packer pk;
    if (e->header_count > 0)
        shc_headers_pack(e->headers, e->header_count, &headers);
    entry.headers = buf_slice(&headers);
    mp_packer(&pk, out);
    entry_pack(&pk, &entry);
    buf_free(&headers);
}

/* Keys and headers are few beside plain events: packing twice is cheap enough. */
static size_t packed_bytes(const struct sh_entry *e)
{
    struct sh_entry head = *e;
    struct buf scratch = {0};
    bool has_payload = e->kind == SH_ENTRY_PUT || e->kind == SH_ENTRY_EVENT;
    head.payload_bytes = 0; /* its bytes need not be copied to be counted */
    pack(&head, &scratch);
    size_t bytes =
        scratch.len +
        (has_payload ? bin_head_bytes(e->payload_bytes) - bin_head_bytes(0) + e->payload_bytes : 0);
    buf_free(&scratch);
    return bytes;
}

size_t shc_entry_bytes(const struct sh_entry *e, size_t stream_bytes)
{
    if (e->kind != SH_ENTRY_EVENT || e->header_count > 0)
        return packed_bytes(e);
    return 2 + str_head_bytes(stream_bytes) + stream_bytes + bin_head_bytes(e->payload_bytes) +
           e->payload_bytes;
}

/* A msgpack number behind its code, big-endian. */
static uint8_t *put_number(uint8_t *p, uint8_t code, size_t value, unsigned bytes)
{
    *p++ = code;
    for (unsigned i = bytes; i-- > 0;)
        *p++ = (uint8_t)(value >> 8 * i);
    return p;
}

static uint8_t *put_bytes(uint8_t *p, const void *data, size_t len)
{
    if (len > 0)
        memcpy(p, data, len);
    return p + len;
}

/* By hand, because this runs millions of times a second under the queue's lock: a call through msgpack-c for
 * each of the five parts would cost more than the copying. */
void shc_entry_put(struct buf *out, const struct sh_entry *e, size_t stream_bytes)
{
    if (e->kind != SH_ENTRY_EVENT || e->header_count > 0) {
        pack(e, out);
        return;
    }
    size_t bytes = shc_entry_bytes(e, stream_bytes), len = e->payload_bytes;
    uint8_t *start = buf_reserve(out, bytes), *p = start;
    *p++ = 0x93; /* array of 3 */
    *p++ = ENTRY_EVENT;
    if (stream_bytes < 32)
        *p++ = (uint8_t)(0xa0 | stream_bytes);
    else
        p = put_number(p, 0xd9, stream_bytes, 1);
    p = put_bytes(p, e->stream, stream_bytes);
    if (len <= UINT8_MAX)
        p = put_number(p, 0xc4, len, 1);
    else if (len <= UINT16_MAX)
        p = put_number(p, 0xc5, len, 2);
    else
        p = put_number(p, 0xc6, len, 4);
    p = put_bytes(p, e->payload, len);
    assert(p == start + bytes);
    out->len += bytes;
}

struct slice shc_batch_array(struct shc_batch *b)
{
    uint8_t *entries = b->body.data + SHC_ARRAY_HEAD;
    uint8_t head[SHC_ARRAY_HEAD], *end;
    if (b->count < 16) {
        head[0] = (uint8_t)(0x90 | b->count);
        end = head + 1;
    } else if (b->count <= UINT16_MAX) {
        end = put_number(head, 0xdc, b->count, 2);
    } else {
        end = put_number(head, 0xdd, b->count, 4);
    }
    size_t head_bytes = (size_t)(end - head);
    memcpy(entries - head_bytes, head, head_bytes);
    return slice_of(entries - head_bytes, head_bytes + b->body.len - SHC_ARRAY_HEAD);
}
