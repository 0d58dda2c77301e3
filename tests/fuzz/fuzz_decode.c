/* Everything that decodes msgpack, on any bytes: the envelope, each message, entries, the bare cursor. */
#include <assert.h>
#include <string.h>

#include "frame.h"
#include "log_loss.h"
#include "messages.h"
#include "wal_recent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Room for the largest message struct, aligned for all. */
static _Alignas(16) uint8_t decoded[4096];

/* What is decoded and encoded must decode to what encodes the same. */
static void try_body(const struct msg_type *type, struct slice body)
{
    struct buf once = {0}, twice = {0};
    assert(type->size <= sizeof decoded);
    if (msg_decode(type->number, body, decoded) == SH_OK) {
        msg_encode(type->number, decoded, &once);
        enum sh_error e = msg_decode(type->number, buf_slice(&once), decoded);
        assert(e == SH_OK);
        msg_encode(type->number, decoded, &twice);
        assert(slice_equal(buf_slice(&once), buf_slice(&twice)));
    }
    buf_free(&once);
    buf_free(&twice);
}

static void try_message(struct slice message)
{
    struct msg_envelope e;
    if (msg_open(message, &e) != SH_OK)
        return;
    const struct msg_type *type = msg_type_of(e.type);
    if (type != NULL)
        try_body(type, e.body);
}

/* A body that was checked must be walked to its end. */
static void try_entries(struct slice body)
{
    uint32_t count, walked;
    struct mp m = mp_of(body);
    struct entry entry;
    if (entries_check(body, &count) != SH_OK)
        return;
    bool opened = entries_open(&m, &walked);
    assert(opened && walked == count);
    for (uint32_t i = 0; i < count; i++) {
        enum sh_error e = entry_next(&m, &entry);
        assert(e == SH_OK);
    }
    assert(mp_at_end(&m));
}

/* The body of a loss frame: what is accepted says the same when it is encoded. */
static void try_loss(struct slice body)
{
    struct log_loss loss, again;
    struct buf encoded = {0};
    if (!log_loss_decode(body, &loss))
        return;
    assert(loss.first_lsn > 0 && loss.last_lsn >= loss.first_lsn && loss.end >= loss.begin);
    log_loss_encode(&loss, &encoded);
    bool decoded_again = log_loss_decode(buf_slice(&encoded), &again);
    assert(decoded_again && memcmp(&loss, &again, sizeof loss) == 0);
    buf_free(&encoded);
}

/* Names are as long as they may be, and what is told to look at again was noted. */
static void try_conditions(struct slice conditions)
{
    static struct wal_recent *recent;
    uint64_t look_again;
    if (recent == NULL)
        recent = wal_recent_open(1000);
    enum sh_error e = wal_recent_check(recent, conditions, &look_again);
    assert(e == SH_OK || e == SH_CONFLICT || e == SH_BAD_REQUEST || e == SH_TOO_LARGE);
    assert(e != SH_CONFLICT || look_again == 1000);
}

/* Each call moves the cursor or leaves it where it was. */
static void try_cursor(struct slice bytes)
{
    struct mp m = mp_of(bytes);
    struct slice raw;
    while (!mp_at_end(&m)) {
        const uint8_t *before = m.at;
        if (!mp_raw(&m, &raw)) {
            assert(m.at == before);
            break;
        }
        assert(raw.data == before && m.at == before + raw.len && m.at <= m.end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t count;
    const struct msg_type *types = msg_types(&count);
    struct slice input = slice_of(data, size);
    try_message(input);
    try_entries(input);
    try_conditions(input);
    try_cursor(input);
    try_loss(input);
    if (size > 0)
        try_body(&types[data[0] % count], slice_of(data + 1, size - 1));
    return 0;
}
