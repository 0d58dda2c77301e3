/* The bounded msgpack cursor. Nothing here is fatal: whatever the bytes are, the answer is true or false. */
#include "mp.h"

#include <string.h>

/* Never NULL, which nothing may be added to: not even 0. */
struct mp mp_of(struct slice bytes)
{
    static const uint8_t nothing;
    const uint8_t *at = bytes.data != NULL ? bytes.data : &nothing;
    return (struct mp){at, at + bytes.len};
}

bool mp_at_end(const struct mp *m)
{
    return m->at == m->end;
}

static uint64_t big_endian(const uint8_t *p, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | p[i];
    return value;
}

/* One value's head: its kind, its number (value, length or count), and the bytes the head takes. */
struct head {
    enum mp_kind kind;
    uint64_t number;
    unsigned bytes;
};

/* Shape of the codes 0xc0..0xdf: kind, width of the number that follows, and bytes to add to a length. */
struct shape {
    uint8_t kind, width, extra;
    bool is_signed, is_fixed;
    uint8_t fixed;
};

static const struct shape shapes[32] = {
    [0x00] = {MP_NIL, 0, 0, false, true, 0},    [0x01] = {MP_BAD, 0, 0, false, true, 0},
    [0x02] = {MP_BOOL, 0, 0, false, true, 0},   [0x03] = {MP_BOOL, 0, 0, false, true, 1},
    [0x04] = {MP_BIN, 1, 0, false, false, 0},   [0x05] = {MP_BIN, 2, 0, false, false, 0},
    [0x06] = {MP_BIN, 4, 0, false, false, 0},   [0x07] = {MP_EXT, 1, 1, false, false, 0},
    [0x08] = {MP_EXT, 2, 1, false, false, 0},   [0x09] = {MP_EXT, 4, 1, false, false, 0},
    [0x0a] = {MP_FLOAT, 0, 0, false, true, 4},  [0x0b] = {MP_FLOAT, 0, 0, false, true, 8},
    [0x0c] = {MP_UINT, 1, 0, false, false, 0},  [0x0d] = {MP_UINT, 2, 0, false, false, 0},
    [0x0e] = {MP_UINT, 4, 0, false, false, 0},  [0x0f] = {MP_UINT, 8, 0, false, false, 0},
    [0x10] = {MP_INT, 1, 0, true, false, 0},    [0x11] = {MP_INT, 2, 0, true, false, 0},
    [0x12] = {MP_INT, 4, 0, true, false, 0},    [0x13] = {MP_INT, 8, 0, true, false, 0},
    [0x14] = {MP_EXT, 0, 1, false, true, 1},    [0x15] = {MP_EXT, 0, 1, false, true, 2},
    [0x16] = {MP_EXT, 0, 1, false, true, 4},    [0x17] = {MP_EXT, 0, 1, false, true, 8},
    [0x18] = {MP_EXT, 0, 1, false, true, 16},   [0x19] = {MP_STR, 1, 0, false, false, 0},
    [0x1a] = {MP_STR, 2, 0, false, false, 0},   [0x1b] = {MP_STR, 4, 0, false, false, 0},
    [0x1c] = {MP_ARRAY, 2, 0, false, false, 0}, [0x1d] = {MP_ARRAY, 4, 0, false, false, 0},
    [0x1e] = {MP_MAP, 2, 0, false, false, 0},   [0x1f] = {MP_MAP, 4, 0, false, false, 0},
};

static int64_t sign_extend(uint64_t value, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return (int64_t)(value << shift) >> shift;
}

static struct head read_head(const struct mp *m)
{
    size_t left = (size_t)(m->end - m->at);
    if (left == 0)
        return (struct head){MP_END, 0, 0};
    uint8_t code = *m->at;
    if (code < 0x80)
        return (struct head){MP_UINT, code, 1};
    if (code < 0x90)
        return (struct head){MP_MAP, code & 0x0f, 1};
    if (code < 0xa0)
        return (struct head){MP_ARRAY, code & 0x0f, 1};
    if (code < 0xc0)
        return (struct head){MP_STR, code & 0x1f, 1};
    if (code >= 0xe0)
        return (struct head){MP_INT, (uint64_t)(int64_t)(int8_t)code, 1};
    const struct shape *s = &shapes[code - 0xc0];
    if (s->is_fixed)
        return (struct head){s->kind, (uint64_t)s->fixed + s->extra, 1};
    if (left < 1u + s->width)
        return (struct head){MP_BAD, 0, 0};
    uint64_t number = big_endian(m->at + 1, s->width);
    if (!s->is_signed)
        return (struct head){s->kind, number + s->extra, 1u + s->width};
    int64_t value = sign_extend(number, s->width);
    return (struct head){value < 0 ? MP_INT : MP_UINT, (uint64_t)value, 1u + s->width};
}

enum mp_kind mp_peek(const struct mp *m)
{
    return read_head(m).kind;
}

static bool take_scalar(struct mp *m, enum mp_kind kind, uint64_t *number)
{
    struct head h = read_head(m);
    if (h.kind != kind)
        return false;
    m->at += h.bytes;
    *number = h.number;
    return true;
}

bool mp_nil(struct mp *m)
{
    uint64_t unused;
    return take_scalar(m, MP_NIL, &unused);
}

bool mp_bool(struct mp *m, bool *value)
{
    uint64_t number;
    if (!take_scalar(m, MP_BOOL, &number))
        return false;
    *value = number != 0;
    return true;
}

bool mp_uint(struct mp *m, uint64_t *value)
{
    return take_scalar(m, MP_UINT, value);
}

bool mp_int(struct mp *m, int64_t *value)
{
    struct head h = read_head(m);
    if (h.kind == MP_UINT ? h.number > INT64_MAX : h.kind != MP_INT)
        return false;
    m->at += h.bytes;
    *value = (int64_t)h.number;
    return true;
}

static bool take_bytes(struct mp *m, enum mp_kind kind, struct slice *value)
{
    struct head h = read_head(m);
    if (h.kind != kind || h.number > (size_t)(m->end - m->at) - h.bytes)
        return false;
    *value = slice_of(m->at + h.bytes, (size_t)h.number);
    m->at += h.bytes + h.number;
    return true;
}

bool mp_str(struct mp *m, struct slice *value)
{
    return take_bytes(m, MP_STR, value);
}

bool mp_bin(struct mp *m, struct slice *value)
{
    return take_bytes(m, MP_BIN, value);
}

static bool take_count(struct mp *m, enum mp_kind kind, unsigned bytes_each, uint32_t *count)
{
    struct head h = read_head(m);
    if (h.kind != kind || h.number * bytes_each > (size_t)(m->end - m->at) - h.bytes)
        return false;
    m->at += h.bytes;
    *count = (uint32_t)h.number;
    return true;
}

bool mp_array(struct mp *m, uint32_t *count)
{
    return take_count(m, MP_ARRAY, 1, count);
}

bool mp_map(struct mp *m, uint32_t *count)
{
    return take_count(m, MP_MAP, 2, count);
}

/* Bytes of a value of the kinds that entries are made of and that nothing nests in: fixint, fixstr, bin 8,
 * bin 16; 0 for others, and for what is cut off. */
static inline size_t plain_bytes(const uint8_t *p, size_t left)
{
    size_t bytes = 0;
    if (left == 0)
        return 0;
    if (p[0] < 0x80)
        bytes = 1;
    else if ((p[0] & 0xe0) == 0xa0)
        bytes = 1 + (size_t)(p[0] & 0x1f);
    else if (p[0] == 0xc4 && left >= 2)
        bytes = 2 + (size_t)p[1];
    else if (p[0] == 0xc5 && left >= 3)
        bytes = 3 + ((size_t)p[1] << 8 | p[2]);
    return bytes <= left ? bytes : 0;
}

/* Iterative: left[d] counts the values still to come at depth d. */
bool mp_skip(struct mp *m)
{
    struct mp c = *m;
    uint64_t left[MP_MAX_DEPTH + 1];
    unsigned depth = 0;
    left[0] = 1;
    for (;;) {
        size_t plain;
        while (left[depth] > 0 && (plain = plain_bytes(c.at, (size_t)(c.end - c.at))) > 0) {
            c.at += plain;
            left[depth]--;
        }
        while (left[depth] == 0) {
            if (depth-- == 0) {
                *m = c;
                return true;
            }
        }
        left[depth]--;
        struct head h = read_head(&c);
        size_t behind = (size_t)(c.end - c.at) - h.bytes;
        c.at += h.bytes;
        switch (h.kind) {
        case MP_NIL:
        case MP_BOOL:
        case MP_UINT:
        case MP_INT:
            break;
        case MP_FLOAT:
        case MP_STR:
        case MP_BIN:
        case MP_EXT:
            if (h.number > behind)
                return false;
            c.at += h.number;
            break;
        case MP_ARRAY:
        case MP_MAP:
            h.number *= h.kind == MP_MAP ? 2 : 1;
            if (h.number > behind || depth == MP_MAX_DEPTH)
                return false;
            left[++depth] = h.number;
            break;
        case MP_END:
        case MP_BAD:
            return false;
        }
    }
}

bool mp_raw(struct mp *m, struct slice *value)
{
    const uint8_t *start = m->at;
    if (!mp_skip(m))
        return false;
    *value = slice_of(start, (size_t)(m->at - start));
    return true;
}

bool mp_find(struct slice map, const char *name, struct mp *value)
{
    struct mp m = mp_of(map);
    uint32_t count;
    struct slice key, skipped;
    if (!mp_map(&m, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!mp_str(&m, &key))
            return false;
        *value = m;
        if (slice_is(key, name))
            return true;
        if (!mp_raw(&m, &skipped))
            return false;
    }
    return false;
}

struct slice mp_find_str(struct slice map, const char *name)
{
    struct mp value;
    struct slice text = {0};
    return mp_find(map, name, &value) && mp_str(&value, &text) ? text : (struct slice){0};
}

int64_t mp_find_int(struct slice map, const char *name)
{
    struct mp value;
    int64_t number = 0;
    return mp_find(map, name, &value) && mp_int(&value, &number) ? number : 0;
}

static int write_to_buf(void *data, const char *bytes, size_t len)
{
    buf_append(data, bytes, len);
    return 0;
}

void mp_packer(msgpack_packer *pk, struct buf *b)
{
    msgpack_packer_init(pk, b, write_to_buf);
}

void mp_pack_str(msgpack_packer *pk, struct slice text)
{
    msgpack_pack_str(pk, text.len);
    msgpack_pack_str_body(pk, text.data, text.len);
}

void mp_pack_cstr(msgpack_packer *pk, const char *text)
{
    mp_pack_str(pk, slice_str(text));
}

void mp_pack_counts(msgpack_packer *pk, const struct named_count *counts, size_t count)
{
    msgpack_pack_map(pk, count);
    for (size_t i = 0; i < count; i++) {
        mp_pack_cstr(pk, counts[i].name);
        msgpack_pack_uint64(pk, counts[i].count);
    }
}

void mp_pack_bin(msgpack_packer *pk, struct slice bytes)
{
    msgpack_pack_bin(pk, bytes.len);
    msgpack_pack_bin_body(pk, bytes.data, bytes.len);
}

void mp_pack_raw(msgpack_packer *pk, struct slice value)
{
    pk->callback(pk->data, (const char *)value.data, value.len);
}
