/* Reading a log beside its writer. Nothing here is fatal.
 *
 * A reader stands in one segment, before one frame: `scan` has the place in the file, `chain` what the frame
 * there must continue. The end of a segment is only known when there is a newer one, so an invalid frame in
 * the newest known segment first asks the folder whether there is one by now, and is damage only if not. */
#include "log_reader_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { ENTER_TRIES = 8 };

struct log_reader *log_reader_open(const struct vfs *fs, const char *dir, struct id16 log)
{
    struct log_reader *r = xcalloc(1, sizeof *r);
    *r = (struct log_reader){.fs = fs, .dir = xstrdup(dir), .log = log, .fd = -1};
    return r;
}

void log_reader_close(struct log_reader *r)
{
    log_reader_leave(r);
    segment_scan_free(&r->scan);
    log_index_free(&r->index);
    free(r->bases);
    free(r->dir);
    free(r);
}

static enum sh_error blame(struct log_reader *r, struct log_read *read, uint64_t base, uint64_t offset,
                           uint64_t good)
{
    segment_name(base, read->bad_file);
    read->bad_offset = offset;
    read->good_lsn = good;
    log_error("damage in a log", log_text("dir", r->dir), log_text("file", read->bad_file),
              log_uint("offset", offset), log_uint("lsn", read->from), log_uint("readable_from", good));
    return SH_CORRUPT;
}

/* ---------------------------------------------------------------- from segment to segment, and past damage
 */

/* A segment has gone since the folder was listed: trimmed with all before it, or missing. *index: of the one
 * behind it in the new list. */
static enum sh_error list_without(struct log_reader *r, uint64_t base, struct log_read *read, size_t *index)
{
    enum sh_error error = log_reader_refresh(r);
    if (error != SH_OK)
        return error;
    if (r->bases[0] > read->from) {
        read->first_lsn = r->bases[0];
        return SH_TRIMMED;
    }
    for (*index = 0; *index < r->base_count && r->bases[*index] <= base;)
        ++*index;
    return SH_OK;
}

/* Enters the first segment from bases[index] on in which something can be read, and knows its end. *none:
 * there is none. */
static enum sh_error enter_readable(struct log_reader *r, size_t index, struct log_read *read, bool *none)
{
    *none = false;
    while (index < r->base_count) {
        uint64_t base = r->bases[index++];
        enum sh_error error = log_reader_enter(r, index - 1);
        if (error == SH_OK)
            return log_reader_learn_end(r);
        if (error == SH_NOT_FOUND)
            error = list_without(r, base, read, &index);
        else if (error == SH_CORRUPT)
            error = SH_OK;
        if (error != SH_OK)
            return error;
    }
    *none = true;
    return SH_OK;
}

/* Stands before a bad frame: goes to the next valid one, in this segment or behind it. *none: there is none
 * below the durable end. */
static enum sh_error skip_bad(struct log_reader *r, struct log_read *read, bool *none)
{
    struct frame_header h;
    struct segment_search search;
    bool to_segment_end = r->sealed && r->scan.end == r->end_offset;
    segment_search_open(&search, &r->scan, &r->chain);
    search.end = r->scan.end;
    search.end_checksum = to_segment_end ? r->end_checksum : 0;
    enum scan_result result = segment_search_next(&search, r->scan.end, &h);
    *none = false;
    if (result == SCAN_FAILED)
        return SH_INTERNAL;
    if (result == SCAN_FRAME) {
        r->chain = (struct log_chain){
            .next_lsn = h.base_lsn,
            .checksum = h.previous_checksum,
            .position = r->segment.position + r->scan.offset,
        };
        return SH_OK;
    }
    *none = !to_segment_end;
    return to_segment_end ? enter_readable(r, r->current + 1, read, none) : SH_OK;
}

/* Where a read can go on: the LSN of the next data frame that is valid, else of the next entry to come, 0 if
 * that isn't known. */
static enum sh_error find_good(struct log_reader *r, struct log_read *read, bool none, uint64_t *good)
{
    struct frame_header h;
    struct slice bytes;
    enum sh_error error = SH_OK;
    while (error == SH_OK && !none) {
        enum log_step result = log_reader_step(r, read->durable_end, &h, &bytes, &error);
        *good = result == STEP_FRAME ? h.base_lsn : r->chain.next_lsn;
        if (result == STEP_DURABLE_END || (result == STEP_FRAME && h.kind == FRAME_DATA))
            return SH_OK;
        if (result == STEP_FAILED)
            return error != SH_OK ? error : SH_INTERNAL;
        if (result == STEP_GONE) {
            read->first_lsn = r->bases[0];
            return SH_TRIMMED;
        }
        if (result == STEP_BAD)
            error = skip_bad(r, read, &none);
        else if (result == STEP_SEGMENT_END)
            error = enter_readable(r, r->current + 1, read, &none);
    }
    *good = read->durable_lsn > 0 ? read->durable_lsn + 1 : 0;
    return error;
}

/* Stands behind damage at a segment's offset (none: there is nothing behind it). That is of no concern to a
 * read that begins behind it too. */
static enum sh_error pass(struct log_reader *r, struct log_read *read, uint64_t base, uint64_t offset,
                          bool none)
{
    uint64_t good;
    if (!none && r->chain.next_lsn <= read->from)
        return SH_OK;
    enum sh_error error = find_good(r, read, none, &good);
    log_reader_leave(r);
    return error == SH_OK ? blame(r, read, base, offset, good) : error;
}

static enum sh_error pass_damage(struct log_reader *r, struct log_read *read)
{
    uint64_t base = r->segment.base_lsn, offset = r->scan.offset;
    bool none;
    enum sh_error error = skip_bad(r, read, &none);
    return error == SH_OK ? pass(r, read, base, offset, none) : error;
}

/* Goes from the end of a segment into the next one, which must continue it. */
static enum sh_error cross_over(struct log_reader *r, struct log_read *read)
{
    struct log_chain before = r->chain;
    uint64_t left = r->segment.base_lsn, left_at = r->scan.offset, base = r->bases[r->current + 1];
    bool none;
    enum sh_error error = enter_readable(r, r->current + 1, read, &none);
    if (error != SH_OK)
        return error;
    const struct segment_header *s = &r->segment;
    if (none || r->chain.next_lsn > before.next_lsn) {
        bool is_cut_short = !none && s->base_lsn == base; /* nothing lies between: the former one lacks it */
        return pass(r, read, is_cut_short ? left : base, is_cut_short ? left_at : 0, none);
    }
    if (r->header != HEADER_GOOD) {
        r->chain = before;
        r->chain.position = s->position + SEGMENT_HEADER_BYTES;
        return SH_OK;
    }
    if (s->base_lsn == before.next_lsn && s->previous_checksum == before.checksum &&
        s->position == before.position)
        return SH_OK;
    error = blame(r, read, s->base_lsn, 0, s->base_lsn);
    log_reader_leave(r);
    return error;
}

/* Opens the segment that holds `from`, bases[*index]. SH_CORRUPT: nothing can be read in it. */
static enum sh_error enter_at(struct log_reader *r, struct log_read *read, size_t *index)
{
    for (unsigned attempt = 0; attempt < ENTER_TRIES; attempt++) {
        *index = log_reader_segment_of(r, read->from);
        if (*index == r->base_count) {
            read->first_lsn = r->bases[0];
            return SH_TRIMMED;
        }
        enum sh_error error = log_reader_enter(r, *index);
        if (error != SH_NOT_FOUND)
            return error;
        error = log_reader_refresh(r); /* trimmed since it was listed */
        if (error != SH_OK)
            return error;
    }
    log_error("segments go faster than they can be opened", log_text("dir", r->dir));
    return SH_INTERNAL;
}

/* Stands somewhere before `from` in its segment, as near as is known. */
static enum sh_error seek(struct log_reader *r, struct log_read *read)
{
    enum sh_error error = SH_OK;
    bool none;
    size_t index = 0;
    if (r->base_count == 0 || read->from >= r->bases[r->base_count - 1] || read->from < r->bases[0])
        error = log_reader_refresh(r);
    if (error == SH_OK)
        error = enter_at(r, read, &index);
    if (error == SH_OK)
        error = log_reader_learn_end(r);
    if (error == SH_CORRUPT) {
        uint64_t base = r->bases[index];
        error = enter_readable(r, index + 1, read, &none);
        return error == SH_OK ? pass(r, read, base, 0, none) : error;
    }
    if (error == SH_OK)
        log_reader_skip_to(r, read->from);
    return error;
}

/* Whether a frame still belongs into the answer. */
static bool has_room(const struct log_read *read, const struct buf *out, size_t before, uint64_t entries,
                     size_t size)
{
    size_t filled = out->len - before;
    return filled == 0 || (filled + size <= read->max_bytes && entries < read->max_entries);
}

static enum sh_error end_of_log(struct log_reader *r, const struct log_read *read)
{
    return r->chain.next_lsn < read->from ? SH_NOT_FOUND : SH_OK;
}

/* A clock frame holds no entry: it stands before the one of its base LSN. */
static bool is_wanted(const struct log_read *read, const struct frame_header *h)
{
    if (h->kind == FRAME_CLOCK)
        return read->clocks && h->base_lsn >= read->from;
    return h->kind == FRAME_DATA && h->base_lsn + h->count > read->from;
}

/* Appends frames from `from` on until something ends it. */
static enum sh_error gather(struct log_reader *r, struct log_read *read, struct buf *out)
{
    struct frame_header h;
    struct slice bytes;
    size_t before = out->len;
    uint64_t entries = 0;
    enum sh_error error = SH_OK;
    while (error == SH_OK) {
        uint64_t offset = r->scan.offset;
        struct log_chain chain = r->chain;
        enum log_step result = log_reader_step(r, read->durable_end, &h, &bytes, &error);
        if (result == STEP_FAILED)
            return error != SH_OK ? error : SH_INTERNAL;
        if (result == STEP_DURABLE_END)
            return end_of_log(r, read);
        if (result != STEP_FRAME) {
            if (out->len > before)
                return SH_OK;
            error = result == STEP_BAD    ? pass_damage(r, read)
                    : result == STEP_GONE ? seek(r, read)
                                          : cross_over(r, read);
            continue;
        }
        if (!is_wanted(read, &h))
            continue;
        if (h.base_lsn > read->from && out->len == before)
            return blame(r, read, r->segment.base_lsn, offset, h.base_lsn);
        if (!has_room(read, out, before, entries, bytes.len)) {
            r->scan.offset = offset;
            r->chain = chain;
            return SH_OK;
        }
        buf_append(out, bytes.data, bytes.len);
        entries += h.count;
        read->salt = r->segment.salt;
        read->segment = r->segment.base_lsn;
        read->next = h.base_lsn + h.count;
    }
    return error;
}

enum sh_error log_reader_read(struct log_reader *r, struct log_read *read, struct buf *out)
{
    if (read->from == 0)
        read->from = 1;
    read->next = read->from;
    read->good_lsn = read->bad_offset = read->first_lsn = read->segment = read->end = 0;
    read->bad_file[0] = 0;
    enum sh_error error = SH_OK;
    if (read->durable_lsn > 0 && read->from == read->durable_lsn + 1) /* whatever is damaged before it */
        return SH_OK;
    if (r->fd < 0 || r->chain.next_lsn != read->from)
        error = seek(r, read);
    if (error == SH_OK)
        error = gather(r, read, out);
    if (error == SH_OK && r->fd >= 0)
        read->end = r->segment.position + r->scan.offset;
    return error;
}

size_t log_reader_bytes(const struct log_reader *r)
{
    return sizeof *r + r->scan.window.cap + r->scan.sums.cap + r->base_count * sizeof *r->bases +
           log_index_bytes(&r->index);
}

void log_reader_trim(struct log_reader *r, size_t most_bytes)
{
    if (log_reader_bytes(r) > most_bytes)
        segment_scan_free(&r->scan);
}

void log_reader_let_go(struct log_reader *r)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    if (r->fd < 0)
        return;
    segment_name(r->segment.base_lsn, name);
    vfs_path(path, r->dir, name);
    int fd = r->fs->open(r->fs, path, O_RDONLY, 0);
    if (fd >= 0)
        r->fs->close(r->fs, fd);
    if (fd == -ENOENT)
        log_reader_leave(r);
}
