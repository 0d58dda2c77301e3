/* msgpack: a bounded decoding cursor of our own, and packing by msgpack-c.
 *
 * The cursor allocates nothing and trusts nothing: a count is never larger than the bytes that are left, a
 * nesting never deeper than MP_MAX_DEPTH. A failed call leaves the cursor where it was and returns false. */
#ifndef COMMON_MP_H
#define COMMON_MP_H

#include <msgpack.h>

#include "buf.h"

enum { MP_MAX_DEPTH = 16 };

/* What is left to decode; copy it to look ahead. */
struct mp {
    const uint8_t *at, *end;
};

enum mp_kind {
    MP_END,
    MP_NIL,
    MP_BOOL,
    MP_UINT,
    MP_INT,
    MP_FLOAT,
    MP_STR,
    MP_BIN,
    MP_ARRAY,
    MP_MAP,
    MP_EXT,
    MP_BAD
};

struct mp mp_of(struct slice bytes);
bool mp_at_end(const struct mp *m);
/* The kind of the next value. MP_INT is a negative integer, MP_END the end, MP_BAD a byte that msgpack
 * reserves. */
enum mp_kind mp_peek(const struct mp *m);

bool mp_nil(struct mp *m);
bool mp_bool(struct mp *m, bool *value);
bool mp_uint(struct mp *m, uint64_t *value);
bool mp_int(struct mp *m, int64_t *value);
/* str and bin: the slice points into the message and lives as long as it. */
bool mp_str(struct mp *m, struct slice *value);
bool mp_bin(struct mp *m, struct slice *value);
/* Enters an array of *count values, or a map of *count pairs. */
bool mp_array(struct mp *m, uint32_t *count);
bool mp_map(struct mp *m, uint32_t *count);
/* Steps over one whole value, checking all of it. */
bool mp_skip(struct mp *m);
/* The same, and says which bytes it was. */
bool mp_raw(struct mp *m, struct slice *value);

/* The value of that name in a map; false: there is none, or it is no map. */
bool mp_find(struct slice map, const char *name, struct mp *value);
/* The same, for a text ("" when there is none) and a number (0 when there is none). */
struct slice mp_find_str(struct slice map, const char *name);
int64_t mp_find_int(struct slice map, const char *name);

/* A msgpack-c packer that appends to b; b stays the caller's. */
void mp_packer(msgpack_packer *pk, struct buf *b);
void mp_pack_str(msgpack_packer *pk, struct slice text);
void mp_pack_cstr(msgpack_packer *pk, const char *text);
struct named_count {
    const char *name;
    uint64_t count;
};
/* A map of name to uint. */
void mp_pack_counts(msgpack_packer *pk, const struct named_count *counts, size_t count);
void mp_pack_bin(msgpack_packer *pk, struct slice bytes);
/* Appends one value that is msgpack already. */
void mp_pack_raw(msgpack_packer *pk, struct slice value);

#endif
