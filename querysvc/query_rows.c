/* Keys are looked up in bunches, which RocksDB does for less than one by one. */
#include "query_rows.h"

#include <stdio.h>

#include "clock.h"
#include "hlc.h"

enum { FIRST_ROWS = 16, LARGE_BYTES = 256 << 10 };

static uint64_t now_ms(void)
{
    return (uint64_t)(clock_real_ns() / NS_PER_MS);
}

bool key_row_take(struct slice row, struct key_row *out, uint64_t *hlc)
{
    if (!view_value_decode(row, &out->value))
        return false;
    *hlc = hlc_merge(*hlc, out->value.version.hlc);
    out->has_value = !out->value.deleted && (out->value.expires_ms == 0 || out->value.expires_ms > now_ms());
    return true;
}

void key_row_pack(msgpack_packer *pk, struct slice key, const struct key_row *row, bool keys_only)
{
    const struct view_version *v = &row->value.version;
    if (!row->has_value && !row->has_counter) {
        msgpack_pack_nil(pk);
        return;
    }
    msgpack_pack_array(pk, 7);
    mp_pack_bin(pk, key);
    if (row->has_value)
        mp_pack_bin(pk, keys_only ? (struct slice){0} : row->value.value);
    else
        msgpack_pack_nil(pk);
    msgpack_pack_uint64(pk, v->hlc);
    mp_pack_bin(pk, slice_of(v->log.bytes, sizeof v->log.bytes));
    msgpack_pack_uint64(pk, v->lsn);
    msgpack_pack_uint64(pk, row->value.expires_ms);
    if (row->has_counter)
        msgpack_pack_int64(pk, row->counter);
    else
        msgpack_pack_nil(pk);
}

/* ---------------------------------------------------------------- lookups */

/* Keys that are looked up at once: the value of each and, where there are any at all, the counter. */
struct lookup {
    struct slice keys[VIEW_ROWS_MAX];
    struct view_rows rows;
    size_t count;
    size_t stride; /* rows of a key: the value's, and the counter's with 2 */
};

/* The next ones of a request. */
static enum sh_error next_lookup(struct mp *keys, size_t count, struct lookup *lookup)
{
    lookup->count = count;
    for (size_t i = 0; i < count; i++) {
        if (!mp_bin(keys, &lookup->keys[i]) || lookup->keys[i].len == 0)
            return SH_BAD_REQUEST;
        if (lookup->keys[i].len > KEY_MAX)
            return SH_TOO_LARGE;
    }
    return SH_OK;
}

/* Its rows are to be freed, in any case. */
static bool find_rows(struct view_store *store, struct lookup *lookup, struct buf *scratch,
                      char error[VIEW_ERROR_MAX])
{
    static const uint8_t kinds[] = {VIEW_KEY, VIEW_COUNTER};
    struct slice names[VIEW_ROWS_MAX];
    size_t bytes = 0, stride = lookup->stride;
    for (size_t i = 0; i < lookup->count; i++)
        bytes += stride * (lookup->keys[i].len + 1);
    scratch->len = 0;
    buf_reserve(scratch, bytes); /* so that it stays where it is */
    for (size_t i = 0; i < stride * lookup->count; i++) {
        const struct slice *key = &lookup->keys[i / stride];
        names[i] = slice_of(scratch->data + scratch->len, key->len + 1);
        buf_append(scratch, &kinds[i % stride], 1);
        buf_append(scratch, key->data, key->len);
    }
    return view_store_get_many(store, names, stride * lookup->count, &lookup->rows, error);
}

static bool take_row(const struct lookup *lookup, size_t i, struct key_row *out, uint64_t *hlc)
{
    struct slice row;
    *out = (struct key_row){0};
    if (lookup->stride > 1 && view_rows_at(&lookup->rows, i * lookup->stride + 1, &row))
        out->has_counter = view_counter_total(row, &out->counter);
    return !view_rows_at(&lookup->rows, i * lookup->stride, &row) || key_row_take(row, out, hlc);
}

/* Ends early when there are many bytes; returns how many rows it has packed. */
static uint32_t pack_rows(const struct lookup *lookup, struct buf *packed, uint64_t *hlc,
                          char error[VIEW_ERROR_MAX])
{
    msgpack_packer pk;
    struct key_row row;
    uint32_t done = 0;
    mp_packer(&pk, packed);
    while (done < lookup->count && packed->len < ROWS_BYTES) {
        if (!take_row(lookup, done, &row, hlc)) {
            snprintf(error, VIEW_ERROR_MAX, "a row of the view is malformed");
            return done;
        }
        key_row_pack(&pk, lookup->keys[done++], &row, false);
    }
    return done;
}

/* Where rows are large, keys are looked up one by one; where they are not, twice as many each time. */
static enum sh_error look_up(struct view_store *store, struct mp *keys, uint32_t count, struct buf *packed,
                             uint32_t *done, struct key_rows *out, char error[VIEW_ERROR_MAX])
{
    struct lookup lookup;
    uint32_t most = out->bunch > 0 ? out->bunch : FIRST_ROWS;
    enum sh_error e = SH_OK;
    while (e == SH_OK && *done < count && packed->len < ROWS_BYTES) {
        size_t before = packed->len;
        struct mp again = *keys;
        lookup.stride = view_store_has_counters(store) ? 2 : 1;
        uint32_t bunch = most / (uint32_t)lookup.stride;
        bunch = bunch == 0 ? 1 : bunch;
        e = next_lookup(keys, count - *done < bunch ? count - *done : bunch, &lookup);
        if (e != SH_OK)
            break;
        bool found = find_rows(store, &lookup, &out->names, error);
        bool is_late =
            lookup.stride == 1 && view_store_has_counters(store); /* the first ones came meanwhile */
        if (found && !is_late)
            *done += pack_rows(&lookup, packed, &out->hlc, error);
        view_rows_free(&lookup.rows);
        e = error[0] != 0 ? SH_INTERNAL : SH_OK;
        if (packed->len - before > LARGE_BYTES)
            most = 1;
        else if (most < VIEW_ROWS_MAX)
            most *= 2;
        if (is_late)
            *keys = again;
    }
    out->bunch = most < FIRST_ROWS ? most : FIRST_ROWS;
    return e;
}

enum sh_error key_rows_get(struct view_store *store, struct mp keys, uint32_t count, struct key_rows *out,
                           char error[VIEW_ERROR_MAX])
{
    msgpack_packer pk;
    struct buf packed = {0};
    uint32_t done = 0;
    out->hlc = 0;
    error[0] = 0;
    enum sh_error e = look_up(store, &keys, count, &packed, &done, out, error);
    out->rows.len = 0;
    mp_packer(&pk, &out->rows);
    msgpack_pack_array(&pk, done);
    buf_append(&out->rows, packed.data, packed.len);
    buf_free(&packed);
    return e;
}

void key_rows_free(struct key_rows *rows)
{
    buf_free(&rows->rows);
    buf_free(&rows->names);
}
