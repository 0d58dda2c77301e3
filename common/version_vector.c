/* Version vectors. Nothing here is fatal: bad bytes get false. */
#include "version_vector.h"

#include <stdlib.h>
#include <string.h>

static int log_compare(struct id16 a, struct id16 b)
{
    return memcmp(a.bytes, b.bytes, sizeof a.bytes);
}

bool vector_next(struct mp *m, struct vector_place *out)
{
    struct mp before = *m;
    struct slice log;
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != 2 || !mp_bin(m, &log) || log.len != sizeof out->log.bytes ||
        !mp_uint(m, &out->lsn)) {
        *m = before;
        return false;
    }
    memcpy(out->log.bytes, log.data, log.len);
    return true;
}

bool vector_is_ordered(struct slice bytes)
{
    struct mp m = mp_of(bytes);
    struct vector_place place, before = {0};
    uint32_t count;
    if (!mp_array(&m, &count) || count > VECTOR_LOGS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!vector_next(&m, &place) || (i > 0 && log_compare(before.log, place.log) >= 0))
            return false;
        before = place;
    }
    return mp_at_end(&m);
}

static int place_compare(const void *a, const void *b)
{
    return log_compare(((const struct vector_place *)a)->log, ((const struct vector_place *)b)->log);
}

bool vector_decode(struct slice bytes, struct version_vector *out)
{
    struct mp m = mp_of(bytes);
    uint32_t count;
    size_t kept = 0;
    out->count = 0;
    if (bytes.len == 0)
        return true;
    if (!mp_array(&m, &count) || count > VECTOR_LOGS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!vector_next(&m, &out->all[i]))
            return false;
    if (!mp_at_end(&m))
        return false;
    qsort(out->all, count, sizeof *out->all, place_compare);
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0 && place_compare(&out->all[i - 1], &out->all[i]) == 0)
            return false;
    }
    for (uint32_t i = 0; i < count; i++)
        if (out->all[i].lsn > 0)
            out->all[kept++] = out->all[i];
    out->count = kept;
    return true;
}

void vector_pack(const struct version_vector *vector, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, vector->count);
    for (size_t i = 0; i < vector->count; i++) {
        const struct vector_place *place = &vector->all[i];
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(place->log.bytes, sizeof place->log.bytes));
        msgpack_pack_uint64(&pk, place->lsn);
    }
}

uint64_t vector_lsn(const struct version_vector *vector, struct id16 log)
{
    for (size_t i = 0; i < vector->count; i++)
        if (id16_equal(vector->all[i].log, log))
            return vector->all[i].lsn;
    return 0;
}

bool vector_covers(const struct version_vector *a, const struct version_vector *b,
                   struct vector_place *behind)
{
    size_t at = 0;
    for (size_t i = 0; i < b->count; i++) {
        while (at < a->count && log_compare(a->all[at].log, b->all[i].log) < 0)
            at++;
        bool has = at < a->count && id16_equal(a->all[at].log, b->all[i].log);
        if (has && a->all[at].lsn >= b->all[i].lsn)
            continue;
        if (behind != NULL)
            *behind = b->all[i];
        return false;
    }
    return true;
}
