/* Frames of several logs, merged by their HLC, and the changes in them. */
#include "watch_gather.h"

#include <stdlib.h>
#include <string.h>

#include "view_row.h"

enum { CHUNK_BYTES = 64 << 10, CHANGE_PARTS = 7 };

/* What was read of a log, and not looked at yet. */
struct ahead {
    struct buf frames;
    size_t at;
    uint64_t hlc; /* of the next frame, */
    bool known;   /* when it is known */
    bool ended;   /* there is nothing more now */
};

struct gathering {
    struct watch_gather *g;
    struct ahead *ahead; /* for each place */
    size_t looked;
    enum sh_error error; /* of a log that cannot be read; the others go on */
    msgpack_packer pk;
};

/* ---------------------------------------------------------------- reading */

/* Told by itself, so that it has its place among the changes. */
static void pass_over(struct watch_gather *g, struct watch_place *p, uint64_t next, enum sh_error why)
{
    if (g->gathered == 0) {
        g->missing.log = p->log;
        g->missing.first = p->lsn + 1;
        g->missing.last = next - 1;
        g->missing.error = why;
        p->lsn = next - 1;
    }
    g->more = true;
}

static void give_up(struct gathering *s, size_t i, enum sh_error e)
{
    s->ahead[i].ended = true;
    if (s->error != SH_OK)
        return;
    s->error = e;
    s->g->failed = s->g->places[i].log;
}

/* Reads what follows, when nothing of it is there. False: nothing can be looked at. */
static bool fill(struct gathering *s, size_t i)
{
    struct watch_place *p = &s->g->places[i];
    struct ahead *a = &s->ahead[i];
    struct log_read read = {.from = p->lsn + 1, .max_bytes = CHUNK_BYTES, .max_entries = UINT64_MAX};
    if (a->at < a->frames.len)
        return true;
    a->frames.len = a->at = 0;
    enum sh_error e = s->g->read(s->g->arg, p->log, &read, &a->frames);
    uint64_t next = e == SH_TRIMMED ? read.first_lsn : e == SH_CORRUPT ? read.good_lsn : 0;
    a->ended = e != SH_OK || a->frames.len == 0;
    if (next > p->lsn + 1)
        pass_over(s->g, p, next, e);
    else if (e != SH_OK && e != SH_NOT_FOUND)
        give_up(s, i, e);
    return !a->ended;
}

static void forget(struct ahead *a)
{
    buf_free(&a->frames);
    a->at = 0;
}

static void decode_header(const struct ahead *a, struct frame_header *h)
{
    frame_header_decode(slice_of(a->frames.data + a->at, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, h);
}

/* Finds out the HLC of the next frame. A large one is not kept: one of each log might be too much. */
static void look_ahead(struct gathering *s, size_t i)
{
    struct ahead *a = &s->ahead[i];
    struct frame_header h;
    if (a->known || a->ended || !fill(s, i))
        return;
    decode_header(a, &h);
    a->hlc = h.hlc;
    a->known = true;
    a->ended = h.base_lsn > s->g->places[i].applied;
    if (a->frames.len > CHUNK_BYTES)
        forget(a);
}

/* The log whose next frame is the oldest; `count`: there is none now. */
static size_t find_oldest(struct gathering *s)
{
    struct watch_gather *g = s->g;
    size_t best = g->count;
    for (size_t i = 0; i < g->count && !g->more; i++) {
        const struct ahead *a = &s->ahead[i];
        if (g->places[i].lsn >= g->places[i].applied)
            continue;
        look_ahead(s, i);
        if (a->ended)
            continue;
        if (best == g->count || a->hlc < s->ahead[best].hlc ||
            (a->hlc == s->ahead[best].hlc &&
             memcmp(g->places[i].log.bytes, g->places[best].log.bytes, sizeof g->places[i].log.bytes) < 0))
            best = i;
    }
    return best;
}

/* ---------------------------------------------------------------- looking */

static bool is_wanted(const struct watch_gather *g, const struct entry *e)
{
    return (e->kind == ENTRY_PUT || e->kind == ENTRY_DELETE || e->kind == ENTRY_ADD) &&
           e->key.len >= g->prefix.len &&
           (g->prefix.len == 0 || memcmp(e->key.data, g->prefix.data, g->prefix.len) == 0);
}

static void pack_change(msgpack_packer *pk, const struct watch_place *p, uint64_t hlc, const struct entry *e)
{
    msgpack_pack_array(pk, CHANGE_PARTS);
    mp_pack_bin(pk, slice_of(p->log.bytes, sizeof p->log.bytes));
    msgpack_pack_uint64(pk, p->lsn);
    msgpack_pack_uint64(pk, hlc);
    msgpack_pack_uint64(pk, e->kind);
    mp_pack_bin(pk, e->key);
    if (e->kind == ENTRY_PUT)
        mp_pack_bin(pk, e->value);
    else if (e->kind == ENTRY_ADD)
        msgpack_pack_int64(pk, e->delta);
    else
        msgpack_pack_nil(pk);
    msgpack_pack_uint64(pk, view_value_expires_ms(hlc, e->ttl_ms));
}

static bool is_full(const struct watch_gather *g)
{
    return g->gathered == g->most || g->changes.len >= g->max_bytes;
}

/* Entries of a frame, until there are enough changes. False: they are none. */
static bool look_at_entries(struct gathering *s, struct watch_place *p, const struct frame_header *h,
                            struct slice body)
{
    struct watch_gather *g = s->g;
    struct mp m = mp_of(body);
    struct entry e;
    uint32_t count;
    if (!entries_open(&m, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (entry_next(&m, &e) != SH_OK)
            return false;
        if (h->base_lsn + i <= p->lsn)
            continue;
        if (is_full(g)) {
            g->more = true;
            return true;
        }
        p->lsn = h->base_lsn + i;
        if (!is_wanted(g, &e))
            continue;
        pack_change(&s->pk, p, h->hlc, &e);
        g->gathered++;
    }
    return true;
}

static void look_at_frame(struct gathering *s, size_t i)
{
    struct ahead *a = &s->ahead[i];
    struct frame_header h;
    if (!fill(s, i)) /* again, when it is a large one */
        return;
    decode_header(a, &h);
    if (!look_at_entries(s, &s->g->places[i], &h,
                         slice_of(a->frames.data + a->at + FRAME_HEADER_BYTES, h.body_bytes)))
        give_up(s, i, SH_INTERNAL);
    a->at += FRAME_HEADER_BYTES + h.body_bytes;
    a->known = false;
    s->looked += FRAME_HEADER_BYTES + h.body_bytes;
    if (a->frames.len > CHUNK_BYTES)
        forget(a);
}

enum sh_error watch_gather(struct watch_gather *g)
{
    struct gathering s = {.g = g, .ahead = xcalloc(g->count + 1, sizeof *s.ahead)};
    mp_packer(&s.pk, &g->changes);
    while (!g->more) {
        size_t oldest = find_oldest(&s);
        if (g->more || oldest == g->count)
            break;
        g->more = is_full(g) || s.looked >= g->max_look;
        if (!g->more)
            look_at_frame(&s, oldest);
    }
    for (size_t i = 0; i < g->count; i++)
        forget(&s.ahead[i]);
    free(s.ahead);
    return s.looked == 0 && !g->more ? s.error : SH_OK;
}
