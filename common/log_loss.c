/* The codec of a loss frame's body, a msgpack map. Nothing here is fatal. */
#include "log_loss.h"

enum { KEY_FIRST = 1, KEY_LAST, KEY_BEGIN, KEY_END, KEY_BEFORE, KEY_BEHIND, KEYS = KEY_BEHIND };

void log_loss_encode(const struct log_loss *loss, struct buf *out)
{
    const uint64_t values[KEYS] = {loss->first_lsn, loss->last_lsn,        loss->begin,
                                   loss->end,       loss->checksum_before, loss->checksum_behind};
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_map(&pk, KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        msgpack_pack_uint64(&pk, i + 1);
        msgpack_pack_uint64(&pk, values[i]);
    }
}

bool log_loss_decode(struct slice body, struct log_loss *out)
{
    uint64_t values[KEYS] = {0}, key;
    unsigned seen = 0;
    uint32_t pairs;
    struct mp m = mp_of(body);
    if (!mp_map(&m, &pairs))
        return false;
    for (uint32_t i = 0; i < pairs; i++) {
        if (!mp_uint(&m, &key))
            return false;
        bool known = key >= KEY_FIRST && key <= KEYS;
        if (known ? !mp_uint(&m, &values[key - 1]) : !mp_skip(&m))
            return false;
        seen |= known ? 1u << (key - 1) : 0;
    }
    *out = (struct log_loss){
        .first_lsn = values[KEY_FIRST - 1],
        .last_lsn = values[KEY_LAST - 1],
        .begin = values[KEY_BEGIN - 1],
        .end = values[KEY_END - 1],
        .checksum_before = (uint32_t)values[KEY_BEFORE - 1],
        .checksum_behind = (uint32_t)values[KEY_BEHIND - 1],
    };
    return mp_at_end(&m) && seen == (1u << KEYS) - 1 && out->first_lsn > 0 &&
           out->last_lsn >= out->first_lsn && out->end >= out->begin &&
           values[KEY_BEFORE - 1] <= UINT32_MAX && values[KEY_BEHIND - 1] <= UINT32_MAX;
}
