/* Searching a log by time. Nothing here is fatal.
 *
 * All reading of frames goes through the log reader, which verifies them; a damaged range is passed over when
 * what lies behind it is still older than the time. */
#include "log_time.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "segment_index.h"

enum { PIECE_BYTES = 128 << 10, CHECKPOINT_BYTES = 4 << 10, TRIES = 8 };

/* The HLC of a segment's first frame, which is verified; false: it cannot be known. */
static bool first_hlc(const struct log_time *t, uint64_t base, uint64_t *hlc)
{
    struct segment_header segment;
    struct segment_scan scan;
    struct frame_header h;
    struct slice bytes;
    uint64_t file_bytes;
    int fd;
    if (segment_open(t->fs, t->dir, t->log, base, O_RDONLY, &fd, &segment, &file_bytes) != SH_OK)
        return false;
    uint64_t near = SEGMENT_HEADER_BYTES + CHECKPOINT_BYTES;
    segment_scan_open(&scan, t->fs, fd, segment.salt, near < file_bytes ? near : file_bytes);
    enum scan_result result = segment_scan_next(&scan, &h, &bytes);
    if (result != SCAN_FRAME) { /* it may be a long one */
        scan.end = file_bytes;
        segment_scan_forget(&scan);
        result = segment_scan_next(&scan, &h, &bytes);
    }
    if (result == SCAN_FRAME)
        *hlc = h.hlc;
    segment_scan_free(&scan);
    t->fs->close(t->fs, fd);
    return result == SCAN_FRAME;
}

/* Of the segments behind `low` the last one that begins before the time; low when there is none. Those whose
 * first frame is damaged are passed over. */
static size_t last_before(const struct log_time *t, const uint64_t *bases, size_t low, size_t high)
{
    while (high - low > 1) {
        size_t middle = (low + high) / 2, known = middle;
        uint64_t hlc;
        while (known < high && !first_hlc(t, bases[known], &hlc))
            known++;
        if (known < high && hlc < t->hlc)
            low = known;
        else
            high = middle;
    }
    return low;
}

/* The place of the last segment that begins at or before the LSN; 0 when there is none. */
static size_t segment_of(const uint64_t *bases, size_t count, uint64_t lsn)
{
    size_t at = 0;
    for (size_t step = count; step > 0; step /= 2)
        while (at + step < count && bases[at + step] <= lsn)
            at += step;
    return at;
}

/* What the index of the segment proposes to start at; 0 for nothing. */
static uint64_t proposed(const struct log_time *t, uint64_t base)
{
    struct segment_index index;
    if (segment_index_read(t->fs, t->dir, t->log, base, &index) != SH_OK)
        return 0;
    const struct segment_place *place = segment_index_before_hlc(&index, t->hlc);
    uint64_t lsn = place != NULL ? place->lsn : 0;
    segment_index_free(&index);
    return lsn;
}

static enum sh_error read_piece(const struct log_time *t, struct log_reader *reader, struct log_read *read,
                                struct buf *out)
{
    read->durable_end = t->durable_end;
    read->max_bytes = PIECE_BYTES;
    read->max_entries = UINT64_MAX;
    out->len = 0;
    return log_reader_read(reader, read, out);
}

/* Whether the frame at the LSN is older than the time. */
static bool is_older(const struct log_time *t, struct log_reader *reader, uint64_t lsn, struct buf *out)
{
    struct log_read read = {.from = lsn};
    struct frame_header h;
    return read_piece(t, reader, &read, out) == SH_OK && out->len > 0 &&
           frame_header_decode(buf_slice(out), FRAME_BYTES_MAX, &h) == SH_OK && h.hlc < t->hlc;
}

/* Goes on to the last segment that begins before the time. */
static enum sh_error go_to_segment(struct log_time *t, uint64_t *base)
{
    uint64_t *bases;
    size_t count;
    enum sh_error error = SH_OK;
    int result = segment_list(t->fs, t->dir, &bases, &count);
    if (result == -ENOENT || (result == 0 && count == 0)) {
        error = SH_NOT_FOUND;
    } else if (result < 0) {
        log_error("cannot list a log's segments", log_text("dir", t->dir),
                  log_text("error", strerror(-result)));
        error = SH_INTERNAL;
    } else if (t->from > 1 && t->from < bases[0]) {
        t->first_lsn = bases[0];
        error = SH_TRIMMED;
    } else {
        size_t segment = segment_of(bases, count, t->from);
        *base = bases[last_before(t, bases, segment, count)];
        t->from = *base > t->from ? *base : t->from;
    }
    free(bases);
    return error;
}

/* Goes on as far as the index of the segment allows. */
static void go_by_index(struct log_time *t, struct log_reader *reader, uint64_t base, struct buf *out)
{
    uint64_t lsn = proposed(t, base);
    if (lsn <= t->from)
        return;
    if (is_older(t, reader, lsn, out))
        t->from = lsn;
    else
        log_warn("the index of a segment doesn't agree with the segment; searching without it",
                 log_text("dir", t->dir), log_uint("base_lsn", base), log_uint("lsn", lsn));
}

/* Looks through whole frames for one that is not older. */
static bool find_in(struct log_time *t, const struct buf *frames, uint64_t *lsn)
{
    struct frame_header h;
    for (size_t at = 0; at < frames->len; at += FRAME_HEADER_BYTES + (size_t)h.body_bytes) {
        struct slice bytes = slice_of(frames->data + at, frames->len - at);
        if (frame_header_decode(bytes, FRAME_BYTES_MAX, &h) != SH_OK)
            return false; /* the reader has verified it */
        *lsn = h.base_lsn;
        if (h.hlc >= t->hlc)
            return true;
    }
    return false;
}

/* Frame by frame, from `from` on. gap: the first LSN of the damage before the next piece, 0 for none. */
static enum sh_error walk(struct log_time *t, struct log_reader *reader, struct buf *out)
{
    uint64_t gap = 0, lsn = 0, read_bytes = 0;
    struct log_read read = {.from = t->from};
    while (read_bytes < t->most_bytes || gap > 0) {
        enum sh_error error = read_piece(t, reader, &read, out);
        read_bytes += out->len;
        if (error == SH_CORRUPT && read.good_lsn > read.from) {
            gap = gap > 0 ? gap : read.from;
            read.from = read.good_lsn;
            continue;
        }
        bool is_end = error == SH_CORRUPT || error == SH_NOT_FOUND || (error == SH_OK && out->len == 0);
        t->found = error == SH_CORRUPT || (!is_end && error == SH_OK && find_in(t, out, &lsn));
        if (gap > 0 && (is_end || (t->found && lsn <= read.from))) {
            t->found = true;
            t->from = gap; /* what is older lies before the damage, what isn't behind it */
            return SH_OK;
        }
        t->first_lsn = read.first_lsn;
        if (error != SH_OK && error != SH_CORRUPT)
            return error;
        if (t->found || is_end) {
            t->from = t->found && lsn > read.from ? lsn : read.from;
            return SH_OK;
        }
        gap = 0;
        read.from = t->from = read.next;
    }
    t->more = true;
    return SH_OK;
}

enum sh_error log_time_find(struct log_time *t, struct log_reader *reader)
{
    struct buf out = {0};
    uint64_t base, asked = t->from;
    enum sh_error error;
    t->found = t->more = false;
    for (unsigned attempt = 0; attempt < TRIES; attempt++) {
        error = go_to_segment(t, &base);
        if (error == SH_OK) {
            go_by_index(t, reader, base, &out);
            error = walk(t, reader, &out);
        }
        if (error != SH_TRIMMED || asked > 1)
            break;
        t->from = asked; /* trimmed meanwhile: the first entry is another one now */
    }
    buf_free(&out);
    return error;
}
