/* Bytes from disk and from clients: frames, segment headers, marks, entries. Whatever is accepted must be
 * consistent. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "frame.h"
#include "log.h"
#include "log_mark.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_frame(struct slice bytes, uint32_t salt)
{
    struct frame_header h;
    size_t frame_bytes;
    uint8_t header[FRAME_HEADER_BYTES];
    if (frame_verify(bytes, salt, 1 << 20, &h, &frame_bytes) != SH_OK)
        return;
    assert(frame_bytes <= bytes.len && frame_bytes == FRAME_HEADER_BYTES + h.body_bytes);
    struct frame_header again = h;
    frame_encode(&again, salt, slice_of(bytes.data + FRAME_HEADER_BYTES, h.body_bytes), header);
    assert(again.checksum == h.checksum && memcmp(header, bytes.data, sizeof header) == 0);
}

static void try_segment(struct slice bytes)
{
    struct segment_header h;
    uint8_t again[SEGMENT_HEADER_BYTES];
    if (segment_header_decode(bytes, &h) != SH_OK)
        return;
    segment_header_encode(&h, again);
    assert(memcmp(again, bytes.data, sizeof again) == 0);
}

/* An entry by the cursor alone, where it is an event without headers. */
static enum sh_error slow_next(struct mp *m, struct entry *out)
{
    struct mp c = *m;
    uint32_t fields;
    *out = (struct entry){0};
    if (!mp_array(&c, &fields) || fields != 3 || !mp_uint(&c, &out->kind) || out->kind != ENTRY_EVENT)
        return entry_next(m, out);
    *m = c;
    if (!mp_str(m, &out->stream))
        return SH_BAD_REQUEST;
    if (out->stream.len > STREAM_NAME_MAX)
        return SH_TOO_LARGE;
    return utf8_valid(out->stream) && mp_bin(m, &out->value) ? SH_OK : SH_BAD_REQUEST;
}

static enum sh_error both_ways(struct mp *m, bool is_first)
{
    struct mp c = *m;
    struct entry quick, slow;
    enum sh_error error = entry_next(m, &quick);
    assert(slow_next(&c, &slow) == error);
    assert(error != SH_OK ||
           (m->at == c.at && quick.kind == slow.kind && slice_equal(quick.stream, slow.stream) &&
            slice_equal(quick.value, slow.value)));
    return error == SH_OK && quick.kind == ENTRY_AFTER && !is_first ? SH_BAD_REQUEST : error;
}

/* The quick walk of entries_check and the cursor's must agree on every input. */
static void try_entries(struct slice body)
{
    uint32_t count, again = 0;
    enum sh_error error = entries_check(body, &count);
    struct mp m = mp_of(body);
    enum sh_error slow = SH_OK;
    if (!entries_open(&m, &again) || again == 0)
        slow = SH_BAD_REQUEST;
    else if (again > ENTRIES_MAX)
        slow = SH_TOO_LARGE;
    for (uint32_t i = 0; slow == SH_OK && i < again; i++)
        slow = both_ways(&m, i == 0);
    if (slow == SH_OK && !mp_at_end(&m))
        slow = SH_BAD_REQUEST;
    assert(error == slow && (error != SH_OK || count == again));
}

/* The first bytes of the input with a right checksum: to get behind it. */
static void try_with_checksum(struct slice bytes)
{
    uint8_t frame[FRAME_HEADER_BYTES + 256];
    struct frame_header h;
    if (bytes.len < FRAME_HEADER_BYTES || frame_header_decode(bytes, 256, &h) != SH_OK)
        return;
    size_t body =
        bytes.len - FRAME_HEADER_BYTES < h.body_bytes ? bytes.len - FRAME_HEADER_BYTES : h.body_bytes;
    h.body_bytes = (uint32_t)body;
    memcpy(frame + FRAME_HEADER_BYTES, bytes.data + FRAME_HEADER_BYTES, body);
    frame_encode(&h, 7, slice_of(frame + FRAME_HEADER_BYTES, body), frame);
    try_frame(slice_of(frame, FRAME_HEADER_BYTES + body), 7);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice bytes = slice_of(data, size);
    struct log_mark mark;
    try_frame(bytes, 7);
    try_with_checksum(bytes);
    try_segment(bytes);
    try_entries(bytes);
    if (size >= MARK_SLOT_BYTES)
        log_mark_decode(data, (struct id16){0}, &mark);
    return 0;
}
