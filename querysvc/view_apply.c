/* Frames to rows. Nothing here is fatal. */
#include "view_apply.h"

#include <string.h>

#include "frame.h"
#include "hlc.h"
#include "view_cursor.h"
#include "view_stream.h"
#include "view_tidy.h"

static const char applied[] = "Mapplied", arrivals[] = "Marrivals", compared[] = "Mcompared";
enum { PLACE_PARTS = 4, AHEAD_PARTS = 5 }; /* with one more: of a place that is ahead */

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

void view_vector_encode(const struct view_vector *vector, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, vector->count);
    for (size_t i = 0; i < vector->count; i++) {
        const struct view_place *place = &vector->all[i];
        msgpack_pack_array(&pk, place->ahead ? AHEAD_PARTS : PLACE_PARTS);
        mp_pack_bin(&pk, slice_of(place->log.bytes, sizeof place->log.bytes));
        msgpack_pack_uint64(&pk, place->lsn);
        msgpack_pack_uint64(&pk, place->hlc);
        msgpack_pack_uint32(&pk, place->checksum);
        if (place->ahead)
            msgpack_pack_true(&pk);
    }
}

void view_arrivals_encode(const struct view_vector *vector, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_uint64(&pk, vector->arrivals);
}

void view_vector_store(struct view_store *store, const struct view_vector *vector)
{
    struct buf row = {0};
    view_vector_encode(vector, &row);
    view_store_put(store, view_vector_key(), buf_slice(&row));
    row.len = 0;
    view_arrivals_encode(vector, &row);
    view_store_put(store, view_arrivals_key(), buf_slice(&row));
    buf_free(&row);
}

static bool decode_place(struct mp *m, struct view_place *out)
{
    struct slice log;
    uint32_t parts;
    uint64_t checksum;
    *out = (struct view_place){0};
    if (!mp_array(m, &parts) || (parts != PLACE_PARTS && parts != AHEAD_PARTS) || !mp_bin(m, &log) ||
        log.len != sizeof out->log.bytes || !mp_uint(m, &out->lsn) || !mp_uint(m, &out->hlc) ||
        !mp_uint(m, &checksum) || checksum > UINT32_MAX || (parts == AHEAD_PARTS && !mp_bool(m, &out->ahead)))
        return false;
    memcpy(out->log.bytes, log.data, log.len);
    out->checksum = (uint32_t)checksum;
    return out->lsn < UINT64_MAX;
}

bool view_is_vector(struct slice key)
{
    return slice_equal(key, view_vector_key());
}

struct slice view_vector_key(void)
{
    return slice_str(applied);
}

struct slice view_arrivals_key(void)
{
    return slice_str(arrivals);
}

bool view_vector_decode(struct slice row, struct view_vector *out)
{
    struct mp m = mp_of(row);
    uint32_t count;
    out->count = 0;
    if (!mp_array(&m, &count) || count > VIEW_LOGS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++, out->count++)
        if (!decode_place(&m, &out->all[i]) || find(out, out->all[i].log) != NULL)
            return false;
    return mp_at_end(&m);
}

/* Of a vector that was found. */
static enum view_found load_arrivals(struct view_store *store, struct buf *row, uint64_t *out,
                                     char error[VIEW_ERROR_MAX])
{
    row->len = 0;
    enum view_found found = view_store_get(store, view_arrivals_key(), row, error);
    struct mp m = mp_of(buf_slice(row));
    return found == VIEW_FOUND && mp_uint(&m, out) ? VIEW_FOUND : VIEW_FAILED;
}

enum view_found view_vector_load(struct view_store *store, struct view_vector *out,
                                 char error[VIEW_ERROR_MAX])
{
    struct buf row = {0};
    out->count = 0;
    out->arrivals = 0;
    enum view_found found = view_store_get(store, view_vector_key(), &row, error);
    if (found == VIEW_FOUND && !view_vector_decode(buf_slice(&row), out)) {
        static const char text[] = "the applied version vector is malformed";
        memcpy(error, text, sizeof text);
        found = VIEW_FAILED;
    } else if (found == VIEW_FOUND) {
        found = load_arrivals(store, &row, &out->arrivals, error);
    }
    buf_free(&row);
    return found;
}

struct slice view_compared_key(void)
{
    return slice_str(compared);
}

bool view_is_compared(struct view_store *store)
{
    struct buf row = {0};
    char error[VIEW_ERROR_MAX];
    bool is = view_store_get(store, view_compared_key(), &row, error) == VIEW_FOUND;
    buf_free(&row);
    return is;
}

void view_set_compared(struct view_store *store)
{
    view_store_put(store, view_compared_key(), slice_str(""));
}

/* ---------------------------------------------------------------- entries */

void view_key_row(enum view_kind kind, struct slice key, struct buf *out)
{
    const uint8_t first = (uint8_t)kind;
    out->len = 0;
    buf_append(out, &first, sizeof first);
    buf_append(out, key.data, key.len);
}

/* Of frames of one log that are being applied. */
struct applying {
    struct view_store *store;
    struct view_version version; /* of the next entry */
    uint64_t arrivals;           /* events that were numbered */
    struct buf key, row;
    uint64_t cursors;     /* of them */
    struct buf stream;    /* of the run and the part */
    struct view_run run;  /* of the frame; no events: there is none */
    struct view_part add; /* to that stream's summary, of the frames so far */
};

static void apply_value(struct applying *a, const struct entry *e)
{
    const struct view_value value = {
        .version = a->version,
        .deleted = e->kind == ENTRY_DELETE,
        .expires_ms = view_value_expires_ms(a->version.hlc, e->ttl_ms),
        .value = e->value,
    };
    view_value_encode(&value, &a->row);
    view_key_row(VIEW_KEY, e->key, &a->key);
    view_store_change(a->store, buf_slice(&a->key), buf_slice(&a->row));
    view_tidy_note(a->store, &value, buf_slice(&a->key));
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

/* ---- events: runs of one stream have one row, and what comes of it in all frames is added up once ---- */

static void end_run(struct applying *a)
{
    if (a->run.count == 0)
        return;
    a->row.len = 0;
    view_run_encode(&a->run, &a->row);
    view_run_key(buf_slice(&a->stream), a->version.log, a->run.lsn, &a->key);
    view_store_put(a->store, buf_slice(&a->key), buf_slice(&a->row));
    a->add.lsn = a->run.lsn + a->run.count - 1;
    a->add.hlc = a->run.hlc;
    a->add.count += a->run.count;
    a->add.bytes += a->run.bytes;
    a->run.count = 0;
}

static void end_stream(struct applying *a)
{
    end_run(a);
    if (a->add.count == 0)
        return;
    a->row.len = 0;
    view_summary_encode_add(&a->add, &a->row);
    view_key_row(VIEW_STREAM, buf_slice(&a->stream), &a->key);
    view_store_change(a->store, buf_slice(&a->key), buf_slice(&a->row));
    a->add.count = 0;
}

static void apply_event(struct applying *a, const struct entry *e)
{
    bool is_same = slice_equal(e->stream, buf_slice(&a->stream));
    if (a->run.count > 0 && is_same) {
        a->run.count++;
    } else {
        if (!is_same)
            end_stream(a);
        if (a->add.count == 0)
            a->add = (struct view_part){.log = a->version.log};
        a->stream.len = 0;
        buf_append(&a->stream, e->stream.data, e->stream.len);
        a->run = (struct view_run){
            .lsn = a->version.lsn, .count = 1, .arrival = a->arrivals, .hlc = a->version.hlc};
    }
    a->run.bytes += (uint32_t)e->value.len;
    a->arrivals++;
}

static void apply_entry(struct applying *a, const struct entry *e)
{
    if (e->kind == ENTRY_EVENT) {
        apply_event(a, e);
        return;
    }
    end_run(a);
    a->row.len = 0;
    if (e->kind == ENTRY_PUT || e->kind == ENTRY_DELETE)
        apply_value(a, e);
    else if (e->kind == ENTRY_ADD)
        apply_add(a, e);
    else if (e->kind == ENTRY_CURSOR)
        apply_cursor(a, e);
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
        if (e.kind > ENTRY_CURSOR)
            return SH_VERSION_MISMATCH;
    }
    return SH_OK;
}

static enum sh_error apply_frame(struct applying *a, struct view_place *place, const struct frame_header *h,
                                 struct slice body)
{
    enum sh_error error = check_kinds(body, h->count);
    struct mp m = mp_of(body);
    struct entry e;
    uint32_t count;
    if (error != SH_OK)
        return error;
    a->version = (struct view_version){h->hlc, place->log, h->base_lsn};
    entries_open(&m, &count);
    for (uint32_t i = 0; i < count; i++, a->version.lsn++) {
        entry_next(&m, &e);
        apply_entry(a, &e);
    }
    end_run(a);
    *place = (struct view_place){
        .log = place->log, .lsn = h->base_lsn + h->count - 1, .hlc = h->hlc, .checksum = h->checksum};
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

struct view_place *view_place_add(struct view_vector *vector, struct id16 log)
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
    struct view_place *place = view_place_add(vector, log);
    if (place == NULL)
        return SH_OVERLOADED;
    if (lsn <= place->lsn)
        return SH_OK;
    place->lsn = lsn;
    place->checksum = 0; /* that of a frame before says nothing of this one */
    return SH_OK;
}

enum sh_error view_apply(struct view_store *store, struct view_vector *vector, struct id16 log,
                         struct slice frames)
{
    struct view_place *place = view_place_add(vector, log);
    struct applying a = {.store = store, .arrivals = vector->arrivals};
    struct frame_header h;
    struct slice body;
    enum sh_error error = SH_OK;
    if (place == NULL)
        return SH_OVERLOADED;
    while (error == SH_OK && frames.len > 0) {
        if (!next_frame(&frames, &h, &body))
            error = SH_CORRUPT;
        else if (h.kind == FRAME_DATA && h.base_lsn + h.count - 1 > place->lsn)
            error = h.base_lsn == place->lsn + 1 ? apply_frame(&a, place, &h, body) : SH_CORRUPT;
    }
    end_stream(&a);
    vector->arrivals = a.arrivals;
    vector->cursors += a.cursors;
    buf_free(&a.key);
    buf_free(&a.row);
    buf_free(&a.stream);
    return error;
}
