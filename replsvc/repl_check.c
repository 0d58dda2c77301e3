/* Whether bytes are the frames that were asked for. Whatever they are, nothing here is fatal. */
#include "repl_parts.h"

static bool begins_segment(struct slice bytes)
{
    static const uint8_t magic[] = {'S', 'H', 'A', 'N', 'G', 'A'};
    return bytes.len >= sizeof magic && memcmp(bytes.data, magic, sizeof magic) == 0;
}

static bool check_header(struct id16 log, uint64_t segment, struct slice *bytes, bool anew,
                         struct log_chain *chain)
{
    struct segment_header header;
    if (bytes->len < SEGMENT_HEADER_BYTES ||
        segment_header_decode(slice_of(bytes->data, SEGMENT_HEADER_BYTES), &header) != SH_OK)
        return false;
    if (!id16_equal(header.log, log) || header.base_lsn != segment || header.base_lsn != chain->next_lsn ||
        header.position != chain->position || (!anew && header.previous_checksum != chain->checksum))
        return false;
    *chain = log_chain_of(&header);
    *bytes = slice_of(bytes->data + SEGMENT_HEADER_BYTES, bytes->len - SEGMENT_HEADER_BYTES);
    return true;
}

/* What the bytes continue, by their own word. */
static bool begin_of(struct slice bytes, struct log_chain *chain)
{
    struct frame_header first;
    if (frame_header_decode(bytes, FRAME_BYTES_MAX - FRAME_HEADER_BYTES, &first) != SH_OK ||
        first.base_lsn < chain->next_lsn)
        return false;
    chain->next_lsn = first.base_lsn;
    chain->checksum = first.previous_checksum;
    return true;
}

bool repl_check_repair(struct id16 log, uint64_t segment, struct slice bytes, struct log_chain *chain)
{
    struct log_chain at = *chain;
    bool begins = begins_segment(bytes);
    if (begins)
        at.next_lsn = segment;
    else if (bytes.len < FRAME_HEADER_BYTES || !begin_of(bytes, &at))
        return false;
    if (!repl_check_bytes(log, segment, bytes, begins, &at))
        return false;
    *chain = at;
    return true;
}

bool repl_check_bytes(struct id16 log, uint64_t segment, struct slice bytes, bool anew,
                      struct log_chain *chain)
{
    struct log_chain at = *chain;
    struct frame_header h;
    size_t size;
    uint32_t salt = segment_salt(log, segment);
    bool begins = begins_segment(bytes);
    if (anew && !begins)
        return false;
    if (bytes.len > REPL_BYTES_MAX)
        return false;
    if (begins && !check_header(log, segment, &bytes, anew, &at))
        return false;
    if (bytes.len == 0)
        return false;
    while (bytes.len > 0) {
        if (frame_verify(bytes, salt, FRAME_BYTES_MAX - FRAME_HEADER_BYTES, &h, &size) != SH_OK ||
            !log_chain_follow(&at, &h))
            return false;
        bytes = slice_of(bytes.data + size, bytes.len - size);
    }
    *chain = at;
    return true;
}
