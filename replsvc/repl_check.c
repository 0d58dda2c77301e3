/* Whether bytes are the frames that were asked for, and where they part from those that are here. Whatever
 * they are, nothing here is fatal. */
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

/* ---- where frames part ---- */

/* A segment's header, if there is one, and the frame behind it; *frame gets its place. 0: no whole one. */
static size_t one_frame(struct slice bytes, size_t *frame, struct frame_header *h)
{
    *frame = begins_segment(bytes) ? SEGMENT_HEADER_BYTES : 0;
    if (bytes.len < *frame + FRAME_HEADER_BYTES)
        return 0;
    struct slice rest = slice_of(bytes.data + *frame, bytes.len - *frame);
    if (frame_header_decode(rest, FRAME_BYTES_MAX - FRAME_HEADER_BYTES, h) != SH_OK ||
        rest.len < FRAME_HEADER_BYTES + (size_t)h->body_bytes)
        return 0;
    return *frame + FRAME_HEADER_BYTES + h->body_bytes;
}

static void step_over(struct log_chain *chain, size_t bytes, const struct frame_header *h)
{
    chain->position += bytes;
    chain->next_lsn = h->base_lsn + h->count;
    chain->checksum = h->checksum;
}

void repl_fork_compare(struct slice theirs, struct slice own, struct repl_fork *fork)
{
    struct frame_header h;
    size_t frame, size;
    while ((size = one_frame(theirs, &frame, &h)) > 0 && own.len >= size &&
           memcmp(theirs.data, own.data, size) == 0) {
        step_over(&fork->at, size, &h);
        theirs = slice_of(theirs.data + size, theirs.len - size);
        own = slice_of(own.data + size, own.len - size);
    }
    fork->all_same = theirs.len == 0;
    fork->theirs = repl_fork_first(theirs);
}

uint32_t repl_fork_first(struct slice frames)
{
    struct frame_header h;
    size_t frame;
    return one_frame(frames, &frame, &h) > 0 ? h.checksum : 0;
}
