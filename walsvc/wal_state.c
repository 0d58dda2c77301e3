/* The log's state and its checkpoint. A checkpoint that cannot fit is a broken invariant, hence fatal. */
#include "wal_state.h"

#include <assert.h>

#include "hlc.h"

enum { KEY_PRODUCERS = 1, KEY_HLC = 2, KEY_ENTRIES = 3, KEY_FRAMES = 4 };

void wal_state_init(struct wal_state *s)
{
    *s = (struct wal_state){.producers = wal_producers_open(), .next_lsn = 1};
}

void wal_state_free(struct wal_state *s)
{
    wal_producers_free(s->producers);
    *s = (struct wal_state){0};
}

static bool load_checkpoint(struct wal_state *s, struct slice body)
{
    struct mp m = mp_of(body);
    uint64_t key, hlc = 0, entries = UINT64_MAX, frames = 0;
    uint32_t pairs;
    bool good = mp_map(&m, &pairs), producers = false;
    for (uint32_t i = 0; good && i < pairs; i++) {
        good = mp_uint(&m, &key);
        if (!good)
            break;
        if (key == KEY_PRODUCERS)
            good = producers = wal_producers_decode(s->producers, &m);
        else if (key == KEY_HLC)
            good = mp_uint(&m, &hlc);
        else if (key == KEY_ENTRIES)
            good = mp_uint(&m, &entries);
        else if (key == KEY_FRAMES)
            good = mp_uint(&m, &frames);
        else
            good = mp_skip(&m);
    }
    if (!good || !producers || entries == UINT64_MAX || !mp_at_end(&m))
        return false;
    s->next_lsn = entries + 1;
    s->hlc = hlc;
    s->frames = frames;
    return true;
}

bool wal_state_apply(struct wal_state *s, const struct frame_header *h, struct slice body)
{
    if (h->kind == FRAME_CHECKPOINT && !load_checkpoint(s, body))
        return false;
    s->hlc = hlc_merge(s->hlc, h->hlc);
    if (h->kind != FRAME_DATA)
        return true;
    if (!id16_is_zero(h->producer)) {
        struct wal_answer answer = {h->base_lsn, h->count};
        wal_producers_record(s->producers, h->producer, h->epoch, h->sequence, answer);
    }
    s->next_lsn = h->base_lsn + h->count;
    s->frames++;
    return true;
}

static void encode(const struct wal_state *s, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_map(&pk, 4);
    msgpack_pack_uint64(&pk, KEY_PRODUCERS);
    wal_producers_encode(s->producers, &pk);
    msgpack_pack_uint64(&pk, KEY_HLC);
    msgpack_pack_uint64(&pk, s->hlc);
    msgpack_pack_uint64(&pk, KEY_ENTRIES);
    msgpack_pack_uint64(&pk, s->next_lsn - 1);
    msgpack_pack_uint64(&pk, KEY_FRAMES);
    msgpack_pack_uint64(&pk, s->frames);
}

void wal_state_checkpoint(struct wal_state *s, size_t most, struct buf *out)
{
    size_t before = out->len;
    encode(s, out);
    for (unsigned halved = 0; out->len - before > most; halved++) {
        assert(1u << halved <= WAL_ANSWERS_MAX);
        wal_producers_halve(s->producers);
        out->len = before;
        encode(s, out);
    }
}
