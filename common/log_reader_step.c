/* The log reader within one segment: opening it, finding its end, one frame on. Nothing here is fatal. */
#include "log_reader_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "segment_index.h"

void log_reader_leave(struct log_reader *r)
{
    if (r->fd >= 0)
        r->fs->close(r->fs, r->fd);
    r->fd = -1;
    r->sealed = r->by_index = false;
    segment_scan_forget(&r->scan);
}

enum sh_error log_reader_refresh(struct log_reader *r)
{
    uint64_t *bases;
    size_t count;
    int result = segment_list(r->fs, r->dir, &bases, &count);
    if (result < 0 && result != -ENOENT) {
        log_error("cannot list a log's segments", log_text("dir", r->dir),
                  log_text("error", strerror(-result)));
        return SH_INTERNAL;
    }
    free(r->bases);
    r->bases = bases;
    r->base_count = count;
    for (r->current = 0; r->current < count; r->current++)
        if (r->fd >= 0 && bases[r->current] == r->segment.base_lsn)
            return SH_OK;
    log_reader_leave(r); /* trimmed, or there was none */
    return count > 0 ? SH_OK : SH_NOT_FOUND;
}

/* Where a segment lies whose file doesn't tell it: it ends where the next one begins, or begins where the one
 * before ends. */
static enum sh_error find_position(struct log_reader *r, size_t index, uint64_t file_bytes,
                                   struct segment_header *header)
{
    struct segment_header beside;
    enum header_state state;
    uint64_t beside_bytes;
    int fd;
    bool is_newest = index + 1 == r->base_count;
    if (index == 0 && header->base_lsn == 1) /* where the log begins */
        return SH_OK;
    if (is_newest && index == 0)
        return SH_CORRUPT;
    uint64_t base = r->bases[is_newest ? index - 1 : index + 1];
    enum sh_error error =
        segment_open_any(r->fs, r->dir, r->log, base, O_RDONLY, &fd, &beside, &beside_bytes, &state);
    if (error != SH_OK)
        return error;
    r->fs->close(r->fs, fd);
    if (state == HEADER_UNKNOWN || (!is_newest && beside.position < file_bytes))
        return SH_CORRUPT;
    header->position = is_newest ? beside.position + beside_bytes : beside.position - file_bytes;
    return SH_OK;
}

enum sh_error log_reader_enter(struct log_reader *r, size_t index)
{
    struct segment_header header;
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    enum sh_error error =
        segment_open_any(r->fs, r->dir, r->log, r->bases[index], O_RDONLY, &fd, &header, &file_bytes, &state);
    if (error != SH_OK)
        return error;
    if (state == HEADER_UNKNOWN)
        error = find_position(r, index, file_bytes, &header);
    if (error != SH_OK) {
        r->fs->close(r->fs, fd);
        return error;
    }
    struct buf window = r->scan.window;
    log_reader_leave(r);
    r->fd = fd;
    r->current = index;
    r->segment = header;
    r->header = state;
    segment_scan_open(&r->scan, r->fs, fd, header.salt, 0);
    r->scan.window = window;
    segment_scan_forget(&r->scan);
    r->chain = log_chain_of(&header);
    return SH_OK;
}

enum sh_error log_reader_learn_end(struct log_reader *r)
{
    struct segment_header next;
    enum header_state state = HEADER_UNKNOWN;
    uint64_t file_bytes;
    int64_t size;
    int fd;
    if (r->sealed || r->current + 1 >= r->base_count)
        return SH_OK;
    uint64_t base = r->bases[r->current + 1];
    enum sh_error error =
        segment_open_any(r->fs, r->dir, r->log, base, O_RDONLY, &fd, &next, &file_bytes, &state);
    if (error == SH_OK)
        r->fs->close(r->fs, fd);
    else if (error != SH_NOT_FOUND)
        return error;
    if (state != HEADER_UNKNOWN && next.position >= r->segment.position + r->scan.offset)
        r->end_offset = next.position - r->segment.position;
    else if (r->fs->size(r->fs, r->fd, &size) == 0)
        r->end_offset = (uint64_t)size;
    else
        return SH_INTERNAL;
    r->end_checksum = state == HEADER_GOOD ? next.previous_checksum : 0;
    r->sealed = true;
    return SH_OK;
}

size_t log_reader_segment_of(const struct log_reader *r, uint64_t lsn)
{
    size_t low = 0, high = r->base_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (r->bases[middle] <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? low - 1 : r->base_count;
}

/* Goes on to the place that the segment's index file tells, when that is nearer than where it stands. */
static void go_by_index(struct log_reader *r, uint64_t lsn)
{
    struct segment_index index;
    if (!r->sealed || r->doubted == r->segment.base_lsn || lsn == r->segment.base_lsn ||
        segment_index_read(r->fs, r->dir, r->log, r->segment.base_lsn, &index) != SH_OK)
        return;
    const struct segment_place *place = segment_index_at_lsn(&index, lsn);
    if (place != NULL && place->offset > r->scan.offset && place->offset < r->end_offset) {
        r->scan.offset = place->offset;
        r->chain = (struct log_chain){place->lsn, place->checksum, r->segment.position + place->offset};
        r->by_index = true;
    }
    segment_index_free(&index);
}

void log_reader_skip_to(struct log_reader *r, uint64_t lsn)
{
    log_index_find(&r->index, r->segment.base_lsn, lsn, &r->scan.offset, &r->chain);
    go_by_index(r, lsn);
}

static enum log_step try_step(struct log_reader *r, uint64_t durable_end, struct frame_header *h,
                              struct slice *bytes)
{
    uint64_t place = r->segment.position + r->scan.offset;
    if (r->sealed && r->scan.offset >= r->end_offset)
        return STEP_SEGMENT_END;
    if (place >= durable_end)
        return STEP_DURABLE_END;
    r->scan.end = durable_end - r->segment.position;
    if (r->sealed && r->end_offset < r->scan.end)
        r->scan.end = r->end_offset;
    enum scan_result result = segment_scan_next(&r->scan, h, bytes);
    if (result == SCAN_FAILED) {
        log_error("cannot read a segment", log_text("dir", r->dir), log_uint("base_lsn", r->segment.base_lsn),
                  log_text("error", strerror(-r->scan.error)));
        return STEP_FAILED;
    }
    if (result == SCAN_FRAME && log_chain_follow(&r->chain, h))
        return STEP_FRAME;
    r->scan.offset = place - r->segment.position;
    return STEP_BAD;
}

/* The index file led to a place where no frame continues what it says: either is wrong, and only the frames
 * can tell. */
static void doubt_index(struct log_reader *r)
{
    log_warn("the index of a segment doesn't agree with the segment; reading without it",
             log_text("dir", r->dir), log_uint("base_lsn", r->segment.base_lsn),
             log_uint("offset", r->scan.offset));
    r->doubted = r->segment.base_lsn;
    r->by_index = false;
    r->scan.offset = SEGMENT_HEADER_BYTES;
    r->chain = log_chain_of(&r->segment);
}

enum log_step log_reader_step(struct log_reader *r, uint64_t durable_end, struct frame_header *h,
                              struct slice *bytes, enum sh_error *error)
{
    if (!r->by_index)
        log_index_note(&r->index, r->segment.base_lsn, r->scan.offset, &r->chain);
    enum log_step result = try_step(r, durable_end, h, bytes);
    if (result == STEP_BAD && r->by_index) {
        doubt_index(r);
        result = try_step(r, durable_end, h, bytes);
    }
    r->by_index = false;
    if (result != STEP_BAD || r->sealed)
        return result;
    *error = log_reader_refresh(r);
    if (*error == SH_OK && r->fd >= 0)
        *error = log_reader_learn_end(r);
    if (*error != SH_OK)
        return STEP_FAILED;
    return r->fd < 0 ? STEP_GONE : try_step(r, durable_end, h, bytes);
}
