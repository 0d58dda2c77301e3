/* Frames to rows. Nothing here is fatal. */
#include "view_apply.h"

#include <string.h>

#include "frame.h"
#include "hlc.h"
#include "view_cursor.h"

static const char applied[] = "Mapplied";
enum { PLACE_PARTS = 4 };

/* ---------------------------------------------------------------- the vector */

static struct view_place *find(struct view_vector *vector, struct id16 log)
{
    for (size_t i = 0; i < vector->count; i++)
        if (id16_equal(vector->all[i].log, log))
            return &vector->all[i];
    return NULL;
}

const struct view_place *view_place_of(const struct view_vector *vector, struct id16 log)
{
    return find((struct view_vector *)(uintptr_t)vector, log);
}

bool view_vector_equal(const struct view_vector *a, const struct view_vector *b)
{
    bool equal = a->count == b->count;
    for (size_t i = 0; equal && i < a->count; i++)
        equal = id16_equal(a->all[i].log, b->all[i].log) && a->all[i].lsn == b->all[i].lsn;
    return equal;
}

uint64_t view_vector_hlc(const struct view_vector *vector)
{
    uint64_t hlc = 0;
    for (size_t i = 0; i < vector->count; i++)
        hlc = hlc_merge(hlc, vector->all[i].hlc);
    return hlc;
}

void view_vector_store(struct view_store *store, const struct view_vector *vector)
{
    struct buf row = {0};
    msgpack_packer pk;
    mp_packer(&pk, &row);
    msgpack_pack_array(&pk, vector->count);
    for (size_t i = 0; i < vector->count; i++) {
        const struct view_place *place = &vector->all[i];
        msgpack_pack_array(&pk, PLACE_PARTS);
        mp_pack_bin(&pk, slice_of(place->log.bytes, sizeof place->log.bytes));
        msgpack_pack_uint64(&pk, place->lsn);
        msgpack_pack_uint64(&pk, place->hlc);
        msgpack_pack_uint32(&pk, place->checksum);
    }
    view_store_put(store, slice_str(applied), buf_slice(&row));
    buf_free(&row);
}

static bool decode_place(struct mp *m, struct view_place *out)
{
    struct slice log;
    uint32_t parts;
    uint64_t checksum;
    if (!mp_array(m, &parts) || parts != PLACE_PARTS || !mp_bin(m, &log) ||
        log.len != sizeof out->log.bytes || !mp_uint(m, &out->lsn) || !mp_uint(m, &out->hlc) ||
        !mp_uint(m, &checksum) || checksum > UINT32_MAX)
        return false;
    memcpy(out->log.bytes, log.data, log.len);
    out->checksum = (uint32_t)checksum;
    return true;
}

static bool decode_vector(struct slice row, struct view_vector *out)
{
    struct mp m = mp_of(row);
    uint32_t count;
    if (!mp_array(&m, &count) || count > VIEW_LOGS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!decode_place(&m, &out->all[i]))
            return false;
    out->count = count;
    return mp_at_end(&m);
}

enum view_found view_vector_load(struct view_store *store, struct view_vector *out,
                                 char error[VIEW_ERROR_MAX])
{
    struct buf row = {0};
    out->count = 0;
    enum view_found found = view_store_get(store, slice_str(applied), &row, error);
    if (found == VIEW_FOUND && !decode_vector(buf_slice(&row), out)) {
        static const char text[] = "the applied version vector is malformed";
        memcpy(error, text, sizeof text);
        found = VIEW_FAILED;
    }
    buf_free(&row);
    return found;
}

/* ---------------------------------------------------------------- entries */

void view_key_row(enum view_kind kind, struct slice key, struct buf *out)
{
    const uint8_t first = (uint8_t)kind;
    out->len = 0;
    buf_append(out, &first, sizeof first);
    buf_append(out, key.data, key.len);
}

/* Of a frame that is being applied. */
struct applying {
    struct view_store *store;
    struct view_version version; /* of the next entry */
    struct buf key, row;
    uint64_t cursors; /* of them */
};

/* Ends where a reading of the clock does: a ttl beyond that is as good as none. */
static uint64_t expires_ms(uint64_t hlc, uint64_t ttl_ms)
{
    uint64_t now_ms = (uint64_t)hlc_ms(hlc);
    if (ttl_ms == 0 || ttl_ms > UINT64_MAX - now_ms)
        return 0;
    return now_ms + ttl_ms;
}

static void apply_value(struct applying *a, const struct entry *e)
{
    const struct view_value value = {
        .version = a->version,
        .deleted = e->kind == ENTRY_DELETE,
        .expires_ms = expires_ms(a->version.hlc, e->ttl_ms),
        .value = e->value,
    };
    view_value_encode(&value, &a->row);
    view_key_row(VIEW_KEY, e->key, &a->key);
    view_store_change(a->store, buf_slice(&a->key), buf_slice(&a->row));
}

static void apply_add(struct applying *a, const struct entry *e)
{
    const struct view_sum add = {a->version.log, a->version.lsn, e->delta};
    view_counter_encode_add(&add, &a->row);
    view_key_row(VIEW_COUNTER, e->key, &a->key);
    view_store_change(a->store, buf_slice(&a->key), buf_slice(&a->row));
}

static void apply_cursor(struct applying *a, const struct entry *e)
{
    const struct view_cursor cursor = {
        .epoch = e->epoch,
        .owner = e->owner,
        .version = a->version,
        .expires_ms = (uint64_t)hlc_ms(a->version.hlc) + e->ttl_ms,
        .ttl_ms = e->ttl_ms,
        .deleted = e->deleted,
        .position = e->value,
    };
    view_cursor_encode(&cursor, &a->row);
    view_key_row(VIEW_CURSOR, e->key, &a->key);
    view_store_change(a->store, buf_slice(&a->key), buf_slice(&a->row));
    a->cursors++;
}

static void apply_entry(struct applying *a, const struct entry *e)
{
    a->row.len = 0;
    if (e->kind == ENTRY_PUT || e->kind == ENTRY_DELETE)
        apply_value(a, e);
    else if (e->kind == ENTRY_ADD)
        apply_add(a, e);
    else if (e->kind == ENTRY_CURSOR)
        apply_cursor(a, e);
}

static bool is_known(uint64_t kind)
{
    return kind <= ENTRY_ADD || kind == ENTRY_CURSOR;
}

/* All or nothing of it, so the kinds are looked at before anything is gathered. */
static enum sh_error check_kinds(struct slice body, uint32_t expected)
{
    struct mp m = mp_of(body);
    struct entry e;
    uint32_t count;
    if (!entries_open(&m, &count) || count != expected)
        return SH_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        if (entry_next(&m, &e) != SH_OK)
            return SH_CORRUPT;
        if (!is_known(e.kind))
            return SH_VERSION_MISMATCH;
    }
    return SH_OK;
}

static enum sh_error apply_frame(struct view_store *store, struct view_vector *vector,
                                 struct view_place *place, const struct frame_header *h, struct slice body)
{
    struct applying a = {.store = store, .version = {h->hlc, place->log, h->base_lsn}};
    enum sh_error error = check_kinds(body, h->count);
    struct mp m = mp_of(body);
    struct entry e;
    uint32_t count;
    if (error != SH_OK)
        return error;
    entries_open(&m, &count);
    for (uint32_t i = 0; i < count; i++, a.version.lsn++) {
        entry_next(&m, &e);
        apply_entry(&a, &e);
    }
    *place = (struct view_place){place->log, h->base_lsn + h->count - 1, h->hlc, h->checksum};
    vector->cursors += a.cursors;
    buf_free(&a.key);
    buf_free(&a.row);
    return SH_OK;
}

/* Takes the next frame off. */
static bool next_frame(struct slice *frames, struct frame_header *h, struct slice *body)
{
    if (frames->len < FRAME_HEADER_BYTES ||
        frame_header_decode(slice_of(frames->data, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, h) != SH_OK ||
        h->body_bytes > frames->len - FRAME_HEADER_BYTES)
        return false;
    *body = slice_of(frames->data + FRAME_HEADER_BYTES, h->body_bytes);
    frames->data += FRAME_HEADER_BYTES + h->body_bytes;
    frames->len -= FRAME_HEADER_BYTES + h->body_bytes;
    return true;
}

/* NULL: there is no room for one more. */
static struct view_place *find_or_add(struct view_vector *vector, struct id16 log)
{
    struct view_place *place = find(vector, log);
    if (place != NULL || vector->count == VIEW_LOGS_MAX)
        return place;
    place = &vector->all[vector->count++];
    *place = (struct view_place){.log = log};
    return place;
}

enum sh_error view_pass(struct view_vector *vector, struct id16 log, uint64_t lsn)
{
    struct view_place *place = find_or_add(vector, log);
    if (place == NULL)
        return SH_OVERLOADED;
    place->lsn = lsn > place->lsn ? lsn : place->lsn;
    return SH_OK;
}

enum sh_error view_apply(struct view_store *store, struct view_vector *vector, struct id16 log,
                         struct slice frames)
{
    struct view_place *place = find_or_add(vector, log);
    struct frame_header h;
    struct slice body;
    enum sh_error error = SH_OK;
    if (place == NULL)
        return SH_OVERLOADED;
    while (error == SH_OK && frames.len > 0) {
        if (!next_frame(&frames, &h, &body))
            return SH_CORRUPT;
        if (h.kind != FRAME_DATA || h.base_lsn + h.count - 1 <= place->lsn)
            continue;
        error = h.base_lsn == place->lsn + 1 ? apply_frame(store, vector, place, &h, body) : SH_CORRUPT;
    }
    return error;
}
