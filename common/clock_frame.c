/* The body of a clock frame. Nothing here is fatal. */
#include "clock_frame.h"

#include <string.h>

enum { KEY_APPLIED = 1, KEY_LOGS = 2 };

bool clock_frame_log(struct mp *m, struct id16 *log)
{
    struct slice id;
    if (!mp_bin(m, &id) || id.len != sizeof log->bytes)
        return false;
    memcpy(log->bytes, id.data, id.len);
    return true;
}

static bool are_logs(struct slice logs)
{
    struct mp m = mp_of(logs);
    struct id16 log;
    uint32_t count;
    if (!mp_array(&m, &count) || count > CLOCK_FRAME_LOGS_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (!clock_frame_log(&m, &log))
            return false;
    return mp_at_end(&m);
}

bool clock_frame_encode(uint64_t applied, struct slice logs, struct buf *out)
{
    msgpack_packer pk;
    if (!are_logs(logs))
        return false;
    mp_packer(&pk, out);
    msgpack_pack_map(&pk, 2);
    msgpack_pack_uint64(&pk, KEY_APPLIED);
    msgpack_pack_uint64(&pk, applied);
    msgpack_pack_uint64(&pk, KEY_LOGS);
    buf_append(out, logs.data, logs.len);
    return true;
}

bool clock_frame_decode(struct slice body, uint64_t *applied, struct slice *logs)
{
    struct mp m = mp_of(body);
    uint64_t key;
    uint32_t pairs;
    bool has_applied = false, has_logs = false, good = mp_map(&m, &pairs);
    for (uint32_t i = 0; good && i < pairs; i++) {
        good = mp_uint(&m, &key);
        if (good && key == KEY_APPLIED)
            good = has_applied = mp_uint(&m, applied);
        else if (good && key == KEY_LOGS)
            good = has_logs = mp_raw(&m, logs);
        else
            good = good && mp_skip(&m);
    }
    return good && has_applied && has_logs && mp_at_end(&m) && are_logs(*logs);
}
