/* The entries of logs_reply: [uuid, durable end, durable LSN, checksum, first LSN, damaged ranges]. */
#include "held_log.h"

#include <string.h>

enum { PARTS = 6 };

void held_log_pack(msgpack_packer *pk, const struct held_log *held)
{
    msgpack_pack_array(pk, PARTS);
    mp_pack_bin(pk, slice_of(held->log.bytes, sizeof held->log.bytes));
    msgpack_pack_uint64(pk, held->durable.position);
    msgpack_pack_uint64(pk, held->durable.next_lsn - 1);
    msgpack_pack_uint32(pk, held->durable.checksum);
    msgpack_pack_uint64(pk, held->first_lsn);
    msgpack_pack_uint64(pk, held->damaged);
}

bool held_log_next(struct mp *m, struct held_log *out)
{
    uint32_t parts;
    struct slice id;
    uint64_t lsn, checksum;
    if (!mp_array(m, &parts) || parts < PARTS || !mp_bin(m, &id) || id.len != sizeof out->log.bytes ||
        !mp_uint(m, &out->durable.position) || !mp_uint(m, &lsn) || !mp_uint(m, &checksum) ||
        !mp_uint(m, &out->first_lsn) || !mp_uint(m, &out->damaged) || lsn == UINT64_MAX)
        return false;
    memcpy(out->log.bytes, id.data, id.len);
    out->durable.next_lsn = lsn + 1;
    out->durable.checksum = (uint32_t)checksum;
    for (uint32_t i = PARTS; i < parts; i++)
        if (!mp_skip(m))
            return false;
    return true;
}
