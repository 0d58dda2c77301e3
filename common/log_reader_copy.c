/* Reading a log for its copies. Nothing here is fatal. */
#include "log_reader_copy.h"

#include "log.h"
#include "log_reader_parts.h"

enum { SEEK_TRIES = 8 };

/* ---- standing at the place ---- */

static enum sh_error tell_trimmed(struct log_reader *r, struct log_copy *copy)
{
    enum sh_error error = log_reader_enter(r, 0);
    if (error != SH_OK)
        return error;
    copy->state = LOG_COPY_TRIMMED;
    copy->at = (struct log_chain){r->segment.base_lsn, r->segment.previous_checksum, r->segment.position};
    return SH_OK;
}

static void tell_forked(struct log_copy *copy, struct log_chain at)
{
    copy->state = LOG_COPY_FORKED;
    copy->at = at;
}

static bool is_there(const struct log_chain *chain, const struct log_copy *copy)
{
    return copy->repair || (chain->checksum == copy->from.checksum && chain->next_lsn == copy->from.next_lsn);
}

/* In the segment that the place should be in: from frame to frame. */
static enum sh_error walk_to(struct log_reader *r, struct log_copy *copy)
{
    struct frame_header h;
    struct slice bytes;
    enum sh_error error = log_reader_learn_end(r);
    if (error != SH_OK)
        return error;
    if (copy->from.next_lsn > 0)
        log_reader_skip_to(r, copy->from.next_lsn - 1);
    while (r->chain.position < copy->from.position) {
        switch (log_reader_step(r, copy->durable_end, &h, &bytes, &error)) {
        case STEP_FRAME:
            break;
        case STEP_BAD:
            return SH_CORRUPT;
        case STEP_GONE:
            return SH_NOT_FOUND;
        case STEP_FAILED:
            return error != SH_OK ? error : SH_INTERNAL;
        default:
            tell_forked(copy, (struct log_chain){0});
            return SH_OK;
        }
    }
    if (r->chain.position != copy->from.position)
        tell_forked(copy, (struct log_chain){0});
    else if (!is_there(&r->chain, copy))
        tell_forked(copy, r->chain);
    return SH_OK;
}

/* Begins the bytes with the header of the segment that was entered. */
static enum sh_error take_header(struct log_reader *r, const struct log_copy *copy, struct buf *out)
{
    uint8_t header[SEGMENT_HEADER_BYTES];
    if (r->header != HEADER_GOOD || r->segment.position != copy->from.position)
        return SH_CORRUPT;
    segment_header_encode(&r->segment, header);
    buf_append(out, header, sizeof header);
    return log_reader_learn_end(r);
}

/* The place is where the entered segment begins. */
static enum sh_error begin_segment(struct log_reader *r, struct log_copy *copy, struct buf *out)
{
    const struct log_chain before = {r->segment.base_lsn, r->segment.previous_checksum, r->segment.position};
    if (copy->anew ? before.next_lsn != copy->from.next_lsn : !is_there(&before, copy)) {
        tell_forked(copy, before);
        return SH_OK;
    }
    return take_header(r, copy, out);
}

/* SH_NOT_FOUND: a segment was trimmed since it was listed. */
static enum sh_error try_seek(struct log_reader *r, struct log_copy *copy, struct buf *out)
{
    size_t index = log_reader_segment_of(r, copy->from.next_lsn);
    if (index == r->base_count)
        return tell_trimmed(r, copy);
    enum sh_error error = log_reader_enter(r, index);
    while (error == SH_OK && r->segment.position > copy->from.position && index > 0)
        error = log_reader_enter(r, --index);
    if (error != SH_OK)
        return error;
    if (r->segment.position > copy->from.position ||
        (copy->anew && r->segment.position != copy->from.position))
        return tell_trimmed(r, copy);
    return r->segment.position == copy->from.position ? begin_segment(r, copy, out) : walk_to(r, copy);
}

static enum sh_error seek(struct log_reader *r, struct log_copy *copy, struct buf *out)
{
    enum sh_error error = SH_NOT_FOUND;
    log_reader_leave(r);
    for (unsigned attempt = 0; attempt < SEEK_TRIES && error == SH_NOT_FOUND; attempt++) {
        error = log_reader_refresh(r);
        if (error != SH_OK)
            return error;
        error = try_seek(r, copy, out);
    }
    return error;
}

/* ---- reading on ---- */

/* From the end of a segment into the next one. */
static enum sh_error cross_over(struct log_reader *r, struct log_copy *copy, struct buf *out)
{
    enum sh_error error = log_reader_enter(r, r->current + 1);
    return error == SH_OK ? begin_segment(r, copy, out) : error;
}

static bool has_room(const struct log_copy *copy, size_t filled, uint64_t entries, size_t size)
{
    return filled <= SEGMENT_HEADER_BYTES ||
           (filled + size <= copy->max_bytes && entries < copy->max_entries);
}

static enum sh_error gather(struct log_reader *r, struct log_copy *copy, struct buf *out, size_t before)
{
    struct frame_header h;
    struct slice bytes;
    uint64_t entries = 0;
    enum sh_error error = SH_OK;
    for (bool full = false; !full && error == SH_OK && copy->state == LOG_COPY_FRAMES;) {
        struct log_chain chain = r->chain;
        uint64_t offset = r->scan.offset;
        enum log_step step = log_reader_step(r, copy->durable_end, &h, &bytes, &error);
        full = out->len > before && step != STEP_FRAME;
        if (step == STEP_FRAME && has_room(copy, out->len - before, entries, bytes.len)) {
            buf_append(out, bytes.data, bytes.len);
            entries += h.count;
        } else if (step == STEP_FRAME) {
            r->chain = chain;
            r->scan.offset = offset;
            full = true;
        } else if (step == STEP_FAILED) {
            return error != SH_OK ? error : SH_INTERNAL;
        } else if (full) {
            break;
        } else if (step == STEP_DURABLE_END) {
            copy->state = LOG_COPY_END;
        } else if (step == STEP_SEGMENT_END) {
            error = cross_over(r, copy, out);
        } else {
            error = step == STEP_GONE ? tell_trimmed(r, copy) : SH_CORRUPT;
        }
    }
    return error;
}

enum sh_error log_reader_copy(struct log_reader *r, struct log_copy *copy, struct buf *out)
{
    size_t before = out->len;
    enum sh_error error = SH_OK;
    copy->state = LOG_COPY_FRAMES;
    copy->at = (struct log_chain){0};
    if (copy->from.position > copy->durable_end &&
        !copy->anew) { /* `anew` may be told again where to begin */
        copy->state = LOG_COPY_BEHIND;
        return SH_OK;
    }
    if (r->fd < 0 || copy->anew || r->chain.position != copy->from.position || !is_there(&r->chain, copy))
        error = seek(r, copy, out);
    if (error == SH_OK && copy->state == LOG_COPY_FRAMES && copy->max_bytes > 0)
        error = gather(r, copy, out, before);
    bool is_some =
        error == SH_OK && copy->state == LOG_COPY_FRAMES && out->len - before > SEGMENT_HEADER_BYTES;
    if (is_some) {
        copy->at = r->chain;
        copy->segment = r->segment.base_lsn;
        return SH_OK;
    }
    out->len = before; /* a header alone says nothing */
    if (copy->state == LOG_COPY_FRAMES)
        copy->state = LOG_COPY_END;
    if (error != SH_OK || copy->state != LOG_COPY_END)
        log_reader_leave(r);
    if (error == SH_CORRUPT)
        log_error("damage in a log that is being copied", log_text("dir", r->dir),
                  log_uint("position", copy->from.position));
    return error;
}
