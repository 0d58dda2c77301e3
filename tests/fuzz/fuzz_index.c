/* Indexes of segments: what decodes can be looked up and encodes to the same bytes. The checksum at the end
 * is made right first, so that what lies behind it is reached. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "segment_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_up(const struct segment_index *index)
{
    for (uint64_t bits = 0; bits < 64; bits++) {
        const struct segment_place *by_lsn = segment_index_at_lsn(index, UINT64_C(1) << bits);
        const struct segment_place *by_hlc = segment_index_before_hlc(index, UINT64_C(1) << bits);
        assert(by_lsn == NULL || (by_lsn->lsn <= UINT64_C(1) << bits && by_lsn->offset < index->end));
        assert(by_hlc == NULL || (by_hlc->hlc < UINT64_C(1) << bits && by_hlc->offset < index->end));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_index index;
    struct buf bytes = {0}, again = {0};
    struct id16 log;
    buf_append(&bytes, data, size);
    if (size >= INDEX_HEADER_BYTES + 4) {
        memcpy(bytes.data, "SHINDX\1", 8);
        put_u32(bytes.data + 84, (uint32_t)((size - INDEX_HEADER_BYTES - 4) / INDEX_PLACE_BYTES));
        memcpy(log.bytes, bytes.data + 8, sizeof log.bytes);
        put_u32(bytes.data + size - 4,
                crc32c(segment_salt(log, get_u64(bytes.data + 24)), bytes.data, size - 4));
    }
    if (segment_index_decode(buf_slice(&bytes), &index) == SH_OK) {
        look_up(&index);
        segment_index_encode(&index, &again);
        assert(again.len == bytes.len);
        assert(memcmp(again.data, bytes.data, bytes.len) == 0);
    }
    segment_index_free(&index);
    buf_free(&bytes);
    buf_free(&again);
    return 0;
}
