/* Judging the frames of a repair. Nothing here is fatal: whatever was sent gets an error. */
#include "wal_repair_check.h"

#include <stdio.h>

enum sh_error wal_refuse(struct wal_refusal *refusal, enum sh_error code, uint64_t expected, const char *text)
{
    refusal->code = code;
    refusal->expected = expected;
    snprintf(refusal->text, sizeof refusal->text, "%s", text);
    return code;
}

enum sh_error repair_check_header(struct slice bytes, struct id16 log, uint64_t base_lsn,
                                  struct segment_header *out, struct wal_refusal *refusal)
{
    enum sh_error error = segment_header_decode(bytes, out);
    if (error == SH_VERSION_MISMATCH)
        return wal_refuse(refusal, error, 0, "the segment is of another format version");
    if (error != SH_OK)
        return wal_refuse(refusal, SH_BAD_REQUEST, 0, "at offset 0 a segment's header comes first");
    if (!id16_equal(out->log, log) || out->base_lsn != base_lsn)
        return wal_refuse(refusal, SH_BAD_REQUEST, 0, "the header is that of another log or segment");
    return SH_OK;
}

/* What a frame must be wherever it stands: whole, valid under the salt, its entries well-formed. */
static enum sh_error check_frame(const struct repair_range *range, struct slice bytes, struct frame_header *h,
                                 size_t *size, struct wal_refusal *refusal)
{
    uint32_t count;
    if (frame_verify(bytes, range->salt, FRAME_BYTES_MAX - FRAME_HEADER_BYTES, h, size) != SH_OK)
        return wal_refuse(refusal, SH_BAD_REQUEST, 0, "the bytes are not whole, valid frames");
    struct slice body = slice_of(bytes.data + FRAME_HEADER_BYTES, h->body_bytes);
    if (h->kind == FRAME_DATA && (entries_check(body, &count) != SH_OK || count != h->count))
        return wal_refuse(refusal, SH_BAD_REQUEST, 0, "the entries of a frame are not well-formed");
    return SH_OK;
}

/* The frames fit; do they meet what stands behind them? */
static enum sh_error check_end(const struct repair_range *range, uint64_t to, const struct log_chain *behind,
                               bool *whole, struct wal_refusal *refusal)
{
    bool meets_lsn = behind->next_lsn == range->next_lsn;
    bool meets =
        meets_lsn && range->next_is_certain && behind->checksum == range->next_checksum && to <= range->end;
    *whole = meets && (to == range->end || range->end == UINT64_MAX);
    if (*whole)
        return SH_OK;
    if (to > range->end || behind->next_lsn > range->next_lsn)
        return wal_refuse(refusal, SH_CONFLICT, 0, "the frames run over what stands behind the range");
    if (to == range->end)
        return wal_refuse(refusal, SH_CONFLICT, 0, "the frames don't meet what stands behind the range");
    if (!range->before_is_certain)
        return wal_refuse(
            refusal, SH_CONFLICT, 0,
            "what stands before is damaged too: that comes first, or all of this in one message");
    return SH_OK;
}

enum sh_error repair_check(const struct repair_range *range, struct slice frames, struct log_chain *behind,
                           bool *whole, struct wal_refusal *refusal)
{
    uint64_t at = range->from;
    *behind = range->before;
    while (frames.len > 0) {
        struct frame_header h;
        size_t size;
        enum sh_error error = check_frame(range, frames, &h, &size, refusal);
        if (error != SH_OK)
            return error;
        if (at == SEGMENT_HEADER_BYTES && h.kind != FRAME_CHECKPOINT)
            return wal_refuse(refusal, SH_CONFLICT, 0, "a segment begins with a checkpoint");
        if (!log_chain_follow(behind, &h))
            return wal_refuse(refusal, SH_CONFLICT, at, "the frames don't continue what stands before them");
        frames = slice_of(frames.data + size, frames.len - size);
        at += size;
    }
    return check_end(range, at, behind, whole, refusal);
}
