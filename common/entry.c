/* Entries: walked and checked where they lie, never copied. Nothing here is fatal: bad bytes get an error.
 *
 * All that is appended and read goes through here, so the common shape (an event with a short stream name and
 * no headers) is recognised by its bytes; whatever looks different goes through the cursor. */
#include "frame.h"

#include <assert.h>
#include <string.h>

#include "log.h"
#include "version_vector.h"

static enum sh_error read_stream(struct mp *m, struct slice *stream)
{
    if (!mp_str(m, stream))
        return SH_BAD_REQUEST;
    if (stream->len > STREAM_NAME_MAX)
        return SH_TOO_LARGE;
    return utf8_valid(*stream) ? SH_OK : SH_BAD_REQUEST;
}

static enum sh_error read_key(struct mp *m, struct slice *key)
{
    if (!mp_bin(m, key) || key->len == 0)
        return SH_BAD_REQUEST;
    return key->len > KEY_MAX ? SH_TOO_LARGE : SH_OK;
}

static enum sh_error read_headers(struct mp *m, struct slice *headers)
{
    const uint8_t *start = m->at;
    struct slice part;
    uint32_t pairs;
    if (!mp_map(m, &pairs))
        return SH_BAD_REQUEST;
    if (pairs > HEADERS_MAX)
        return SH_TOO_LARGE;
    for (uint32_t i = 0; i < pairs; i++)
        if (!mp_str(m, &part) || (!mp_str(m, &part) && !mp_bin(m, &part)))
            return SH_BAD_REQUEST;
    *headers = slice_of(start, (size_t)(m->at - start));
    return SH_OK;
}

static enum sh_error read_event(struct mp *m, uint32_t fields, struct entry *out)
{
    if (fields != 2 && fields != 3)
        return SH_BAD_REQUEST;
    enum sh_error error = read_stream(m, &out->stream);
    if (error != SH_OK)
        return error;
    if (!mp_bin(m, &out->value))
        return SH_BAD_REQUEST;
    return fields == 3 ? read_headers(m, &out->headers) : SH_OK;
}

static enum sh_error read_put(struct mp *m, uint32_t fields, struct entry *out)
{
    if (fields != 2 && fields != 3)
        return SH_BAD_REQUEST;
    enum sh_error error = read_key(m, &out->key);
    if (error != SH_OK)
        return error;
    if (!mp_bin(m, &out->value))
        return SH_BAD_REQUEST;
    return fields == 2 || mp_uint(m, &out->ttl_ms) ? SH_OK : SH_BAD_REQUEST;
}

static enum sh_error read_add(struct mp *m, uint32_t fields, struct entry *out)
{
    if (fields != 2)
        return SH_BAD_REQUEST;
    enum sh_error error = read_key(m, &out->key);
    if (error != SH_OK)
        return error;
    return mp_int(m, &out->delta) ? SH_OK : SH_BAD_REQUEST;
}

bool entry_next_after(struct mp *m, struct id16 *log, uint64_t *lsn)
{
    struct slice uuid;
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != 2 || !mp_bin(m, &uuid) || uuid.len != sizeof log->bytes ||
        !mp_uint(m, lsn))
        return false;
    memcpy(log->bytes, uuid.data, uuid.len);
    return true;
}

static enum sh_error read_after(struct mp *m, uint32_t fields, struct entry *out)
{
    const uint8_t *start = m->at;
    struct id16 log;
    uint64_t lsn;
    uint32_t count;
    if (fields != 1 || !mp_array(m, &count))
        return SH_BAD_REQUEST;
    if (count > AFTER_MAX)
        return SH_TOO_LARGE;
    for (uint32_t i = 0; i < count; i++)
        if (!entry_next_after(m, &log, &lsn))
            return SH_BAD_REQUEST;
    out->after = slice_of(start, (size_t)(m->at - start));
    return SH_OK;
}

enum sh_error cursor_name_check(struct slice name)
{
    if (name.len > CURSOR_NAME_MAX)
        return SH_TOO_LARGE;
    if (name.len == 0 || !utf8_valid(name))
        return SH_BAD_REQUEST;
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] < 0x20 || name.data[i] == 0x7f)
            return SH_BAD_REQUEST;
    return SH_OK;
}

static enum sh_error read_cursor(struct mp *m, uint32_t fields, struct entry *out)
{
    struct slice owner;
    uint64_t state;
    if (fields != 6 || !mp_str(m, &out->key))
        return SH_BAD_REQUEST;
    enum sh_error error = cursor_name_check(out->key);
    if (error != SH_OK)
        return error;
    if (!mp_uint(m, &out->epoch) || out->epoch == 0 || !mp_bin(m, &owner) ||
        owner.len != sizeof out->owner.bytes || !mp_raw(m, &out->value) || !vector_is_ordered(out->value) ||
        !mp_uint(m, &out->ttl_ms) || out->ttl_ms > CURSOR_TTL_MS_MAX || !mp_uint(m, &state) || state > 1)
        return SH_BAD_REQUEST;
    memcpy(out->owner.bytes, owner.data, owner.len);
    out->deleted = state == 1;
    return out->deleted || out->ttl_ms > 0 ? SH_OK : SH_BAD_REQUEST;
}

/* A kind of a later version: kept and passed on, if it is well-formed. */
static enum sh_error skip_fields(struct mp *m, uint32_t fields)
{
    for (uint32_t i = 0; i < fields; i++)
        if (!mp_skip(m))
            return SH_BAD_REQUEST;
    return SH_OK;
}

/* Takes [0, stream (fixstr), payload (bin 8 or bin 16)] and returns true, or leaves the cursor and returns
 * false. Whether the stream's name is good is left to the caller. */
static inline bool take_plain_event(struct mp *m, struct slice *stream, struct slice *payload)
{
    const uint8_t *p = m->at;
    size_t left = (size_t)(m->end - p);
    if (left < 5 || p[0] != 0x93 || p[1] != ENTRY_EVENT || (p[2] & 0xe0) != 0xa0)
        return false;
    size_t name = p[2] & 0x1f, used = 3 + name, bytes;
    if (left < used + 2)
        return false;
    *stream = slice_of(p + 3, name);
    if (p[used] == 0xc4) {
        bytes = p[used + 1];
        used += 2;
    } else if (p[used] == 0xc5 && left >= used + 3) {
        bytes = (size_t)p[used + 1] << 8 | p[used + 2];
        used += 3;
    } else {
        return false;
    }
    if (left - used < bytes)
        return false;
    *payload = slice_of(p + used, bytes);
    m->at = p + used + bytes;
    return true;
}

enum sh_error entry_next(struct mp *m, struct entry *out)
{
    uint32_t fields;
    *out = (struct entry){0};
    if (take_plain_event(m, &out->stream, &out->value))
        return out->stream.len == 0 || utf8_valid(out->stream) ? SH_OK : SH_BAD_REQUEST;
    if (!mp_array(m, &fields) || fields == 0 || !mp_uint(m, &out->kind))
        return SH_BAD_REQUEST;
    fields--;
    switch (out->kind) {
    case ENTRY_EVENT:
        return read_event(m, fields, out);
    case ENTRY_PUT:
        return read_put(m, fields, out);
    case ENTRY_DELETE:
        return fields == 1 ? read_key(m, &out->key) : SH_BAD_REQUEST;
    case ENTRY_ADD:
        return read_add(m, fields, out);
    case ENTRY_AFTER:
        return read_after(m, fields, out);
    case ENTRY_CURSOR:
        return read_cursor(m, fields, out);
    default:
        return skip_fields(m, fields);
    }
}

bool entries_open(struct mp *m, uint32_t *count)
{
    return mp_array(m, count);
}

/* `checked` is a stream name that was found to be good before: most entries repeat it. */
static inline bool pass_plain_event(struct mp *m, struct slice *checked, bool *repeated)
{
    struct mp before = *m;
    struct slice stream, payload;
    if (!take_plain_event(m, &stream, &payload))
        return false;
    *repeated = slice_equal(stream, *checked);
    if (!*repeated) {
        if (!utf8_valid(stream)) {
            *m = before;
            return false;
        }
        *checked = stream;
    }
    return true;
}

enum sh_error entries_check_stream(struct slice body, uint32_t *count, bool *one_stream, struct slice *stream)
{
    struct mp m = mp_of(body);
    struct entry entry;
    bool one = true, repeated;
    *stream = (struct slice){0};
    *one_stream = false;
    if (!entries_open(&m, count) || *count == 0)
        return SH_BAD_REQUEST;
    if (*count > ENTRIES_MAX)
        return SH_TOO_LARGE;
    for (uint32_t i = 0; i < *count; i++) {
        if (pass_plain_event(&m, stream, &repeated)) {
            one = one && (repeated || i == 0);
            continue;
        }
        enum sh_error error = entry_next(&m, &entry);
        if (error != SH_OK)
            return error;
        one = false;
        if (entry.kind == ENTRY_AFTER && i > 0)
            return SH_BAD_REQUEST;
    }
    *one_stream = one;
    return mp_at_end(&m) ? SH_OK : SH_BAD_REQUEST;
}

enum sh_error entries_check(struct slice body, uint32_t *count)
{
    struct slice stream;
    bool one_stream;
    return entries_check_stream(body, count, &one_stream, &stream);
}

static void pack_event(msgpack_packer *pk, const struct entry *e)
{
    bool headers = e->headers.len > 0;
    msgpack_pack_array(pk, headers ? 4 : 3);
    msgpack_pack_uint64(pk, e->kind);
    mp_pack_str(pk, e->stream);
    mp_pack_bin(pk, e->value);
    if (headers)
        mp_pack_raw(pk, e->headers);
}

static void pack_cursor(msgpack_packer *pk, const struct entry *e)
{
    msgpack_pack_array(pk, 7);
    msgpack_pack_uint64(pk, e->kind);
    mp_pack_str(pk, e->key);
    msgpack_pack_uint64(pk, e->epoch);
    mp_pack_bin(pk, slice_of(e->owner.bytes, sizeof e->owner.bytes));
    mp_pack_raw(pk, e->value);
    msgpack_pack_uint64(pk, e->ttl_ms);
    msgpack_pack_uint64(pk, e->deleted);
}

void entry_pack(msgpack_packer *pk, const struct entry *e)
{
    assert(e->kind <= ENTRY_CURSOR);
    if (e->kind == ENTRY_EVENT || e->kind == ENTRY_CURSOR) {
        e->kind == ENTRY_EVENT ? pack_event(pk, e) : pack_cursor(pk, e);
        return;
    }
    if (e->kind == ENTRY_AFTER) {
        msgpack_pack_array(pk, 2);
        msgpack_pack_uint64(pk, e->kind);
        mp_pack_raw(pk, e->after);
        return;
    }
    msgpack_pack_array(pk, e->kind == ENTRY_DELETE ? 2 : e->kind == ENTRY_PUT && e->ttl_ms > 0 ? 4 : 3);
    msgpack_pack_uint64(pk, e->kind);
    mp_pack_bin(pk, e->key);
    if (e->kind == ENTRY_PUT)
        mp_pack_bin(pk, e->value);
    if (e->kind == ENTRY_PUT && e->ttl_ms > 0)
        msgpack_pack_uint64(pk, e->ttl_ms);
    if (e->kind == ENTRY_ADD)
        msgpack_pack_int64(pk, e->delta);
}
