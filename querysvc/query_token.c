/* Tokens of sessions and readers. Nothing here is fatal. */
#include "query_token.h"

#include <string.h>

bool token_next(struct mp *m, struct view_place *out)
{
    struct slice log;
    uint32_t parts;
    *out = (struct view_place){0};
    if (!mp_array(m, &parts) || parts != 2 || !mp_bin(m, &log) || log.len != sizeof out->log.bytes ||
        !mp_uint(m, &out->lsn))
        return false;
    memcpy(out->log.bytes, log.data, log.len);
    return true;
}

static bool is_missing(const struct view_vector *applied, const struct view_place *want)
{
    const struct view_place *have = view_place_of(applied, want->log);
    return want->lsn > 0 && (have == NULL || have->lsn < want->lsn);
}

int token_is_applied(const struct view_vector *applied, struct slice token)
{
    struct mp m = mp_of(token);
    struct view_place want;
    uint32_t count;
    int is_applied = 1;
    if (token.len == 0)
        return 1;
    if (!mp_array(&m, &count) || count > VIEW_LOGS_MAX)
        return -1;
    for (uint32_t i = 0; i < count; i++) {
        if (!token_next(&m, &want))
            return -1;
        if (is_missing(applied, &want))
            is_applied = 0;
    }
    return mp_at_end(&m) ? is_applied : -1;
}

bool token_missing(const struct view_vector *applied, struct slice token, struct view_place *out)
{
    struct mp m = mp_of(token);
    uint32_t count = 0;
    mp_array(&m, &count);
    for (uint32_t i = 0; i < count && token_next(&m, out); i++)
        if (is_missing(applied, out))
            return true;
    return false;
}

bool token_read(struct slice token, struct view_vector *out)
{
    struct mp m = mp_of(token);
    struct view_place place;
    uint32_t count;
    out->count = 0;
    if (token.len == 0)
        return true;
    if (!mp_array(&m, &count) || count > VIEW_LOGS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!token_next(&m, &place))
            return false;
        view_pass(out, place.log, place.lsn); /* there is room: as many as a vector holds */
    }
    return mp_at_end(&m);
}

void token_pack(const struct view_vector *vector, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, vector->count);
    for (size_t i = 0; i < vector->count; i++) {
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(vector->all[i].log.bytes, sizeof vector->all[i].log.bytes));
        msgpack_pack_uint64(&pk, vector->all[i].lsn);
    }
}
