/* Lists of checksums. Nothing here is fatal. */
#include "given_up.h"

void given_up_pack(const uint32_t *checksums, size_t count, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        msgpack_pack_uint32(&pk, checksums[i]);
}

bool given_up_unpack(struct slice array, uint32_t out[GIVEN_UP_MAX], size_t *count)
{
    struct mp m = mp_of(array);
    uint32_t entries;
    uint64_t checksum;
    *count = 0;
    if (array.len == 0)
        return true;
    if (!mp_array(&m, &entries) || entries > GIVEN_UP_MAX)
        return false;
    for (uint32_t i = 0; i < entries; i++) {
        if (!mp_uint(&m, &checksum) || checksum > UINT32_MAX)
            return false;
        out[i] = (uint32_t)checksum;
    }
    if (!mp_at_end(&m))
        return false;
    *count = entries;
    return true;
}

bool given_up_has(const uint32_t *checksums, size_t count, uint32_t checksum)
{
    for (size_t i = 0; i < count; i++)
        if (checksums[i] == checksum)
            return true;
    return false;
}
