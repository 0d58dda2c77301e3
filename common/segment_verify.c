/* The walk over one segment's frames. Nothing here is fatal: damage is told, a failed file call ends the
 * walk.
 *
 * Beside a running walsvc bytes may be read while they are being written. So a bad frame in the newest
 * segment counts only when it lies below the durable mark, and when it is still bad on a second look. */
#include "segment_verify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"

enum { PROGRESS_BYTES = 1 << 20 };

static void tell(void *arg, const struct log_damage *damage)
{
    const struct verify *v = arg;
    v->report->damages += damage->accepted_ms == 0;
    v->report->accepted += damage->accepted_ms != 0;
    if (v->options->on_damage != NULL)
        v->options->on_damage(v->options->arg, damage);
}

void verify_damage(struct verify *v, const char *file, uint64_t offset, uint64_t bytes, uint64_t next_lsn,
                   const char *what)
{
    struct log_damage d = {
        .log = v->log,
        .file = file,
        .offset = offset,
        .bytes = bytes,
        .first_lsn = v->chain.next_lsn,
        .next_lsn = next_lsn,
        .what = what,
    };
    uint64_t position = file == v->file ? v->segment.position + offset : UINT64_MAX;
    if (!verify_losses_hold(&v->losses, &d, position))
        tell(v, &d);
}

void verify_tell(struct verify *v)
{
    verify_losses_tell(&v->losses, tell, v);
}

static void note_loss(struct verify *v, const struct frame_header *h, struct slice body)
{
    struct log_loss loss;
    if (log_loss_decode(body, &loss))
        verify_losses_note(&v->losses, &loss, hlc_ms(h->hlc));
}

void verify_fail(struct verify *v, enum sh_error error, const char *path, int failed_errno)
{
    v->error = error;
    v->report->failed_errno = failed_errno;
    snprintf(v->report->failed_path, sizeof v->report->failed_path, "%s", path);
}

void verify_progress(struct verify *v, uint64_t bytes)
{
    v->done_bytes += bytes;
    if (v->options->on_progress == NULL || v->done_bytes - v->told_bytes < PROGRESS_BYTES)
        return;
    v->told_bytes = v->done_bytes;
    v->options->on_progress(v->options->arg, v->done_bytes, v->total_bytes);
}

/* ---------------------------------------------------------------- good frames */

static void good_frame(struct verify *v, const struct frame_header *h, struct slice bytes)
{
    struct log_verify_report *report = v->report;
    bool durable = !v->is_newest || v->chain.position <= v->durable_end;
    report->frames++;
    report->entries += h->count;
    report->bytes += bytes.len;
    report->unsynced_bytes += durable ? 0 : bytes.len;
    if (h->count > 0)
        report->last_lsn = h->base_lsn + h->count - 1;
    if (h->kind == FRAME_LOSS)
        note_loss(v, h, slice_of(bytes.data + FRAME_HEADER_BYTES, bytes.len - FRAME_HEADER_BYTES));
    verify_progress(v, bytes.len);
    if (v->options->on_frame == NULL || h->base_lsn + h->count <= v->options->from_lsn)
        return;
    struct log_frame frame = {
        .log = v->log,
        .file = v->file,
        .offset = v->scan.offset - bytes.len,
        .segment = &v->segment,
        .header = h,
        .body = slice_of(bytes.data + FRAME_HEADER_BYTES, bytes.len - FRAME_HEADER_BYTES),
        .durable = durable,
    };
    v->stopped = !v->options->on_frame(v->options->arg, &frame);
}

/* The chain must agree with the mark file, where that says how far the log was durable. */
static void compare_with_mark(struct verify *v, uint64_t before)
{
    const struct log_mark *mark = &v->mark;
    if (mark->counter == 0 || mark->durable_end <= before || mark->durable_end > v->chain.position)
        return;
    if (mark->durable_end != v->chain.position || mark->checksum != v->chain.checksum)
        verify_damage(v, v->file, mark->durable_end - v->segment.position, 0, v->chain.next_lsn,
                      "the frames are not those that the durable mark was made for");
}

/* A damaged header is told once it is known whether the first frame is damaged as well: then it is one
 * damage. */
static void tell_header(struct verify *v)
{
    if (!v->bad_header)
        return;
    v->bad_header = false;
    struct log_chain chain = v->chain;
    v->chain.next_lsn = v->segment.base_lsn;
    verify_damage(v, v->file, 0, SEGMENT_HEADER_BYTES, v->segment.base_lsn,
                  "the segment's header is damaged");
    v->chain = chain;
}

/* The next frame, if it is valid and continues the chain. */
static bool take_frame(struct verify *v)
{
    struct frame_header h;
    struct slice bytes;
    uint64_t offset = v->scan.offset, before = v->chain.position;
    if (segment_scan_next(&v->scan, &h, &bytes) != SCAN_FRAME)
        return false;
    if (!log_chain_follow(&v->chain, &h)) {
        v->scan.offset = offset;
        return false;
    }
    tell_header(v);
    compare_with_mark(v, before);
    good_frame(v, &h, bytes);
    return true;
}

/* ---------------------------------------------------------------- bad bytes */

/* Tells the damage at the scan's offset and goes on at the next valid frame that begins before `until`, or at
 * `end`, where the frames end, when there is none. */
static void pass_damage(struct verify *v, uint64_t until, uint64_t end)
{
    struct frame_header h;
    struct segment_search search;
    uint64_t bad = v->scan.offset, from = v->bad_header ? 0 : bad;
    segment_search_open(&search, &v->scan, &v->chain);
    search.end = end;
    search.end_checksum = v->is_newest ? 0 : v->next_checksum;
    bool found = segment_search_next(&search, until < v->scan.end ? until : v->scan.end, &h) == SCAN_FRAME;
    if (!found)
        v->scan.offset = end;
    v->bad_header = false;
    verify_damage(v, v->file, from, v->scan.offset - from, found ? h.base_lsn : 0,
                  found ? "no valid frame here; one follows"
                        : "no valid frame here, and none behind it in this file");
    verify_progress(v, v->scan.offset - bad);
    v->chain_known = found;
    if (found)
        v->chain = (struct log_chain){h.base_lsn, h.previous_checksum, v->segment.position + v->scan.offset};
}

/* Raises M to what frames behind the bad one know. */
static void look_behind(struct verify *v, uint64_t extent)
{
    struct frame_header h;
    struct segment_search search;
    uint64_t bad = v->scan.offset;
    if (v->is_copy)
        return;
    segment_search_open(&search, &v->scan, &v->chain);
    while (segment_search_next(&search, extent, &h) == SCAN_FRAME)
        if (h.durable_end > v->durable_end)
            v->durable_end = h.durable_end;
    v->scan.offset = bad;
}

/* No valid frame at the offset of the newest segment: damage below the mark, or the end of what is written
 * (false). */
static bool pass_in_newest(struct verify *v)
{
    uint64_t extent, bad = v->scan.offset;
    if (!segment_scan_extent(&v->scan, &extent))
        return false;
    look_behind(v, extent);
    if (v->durable_end <= v->segment.position + bad) {
        v->report->unsynced_bytes += extent - bad;
        return false;
    }
    segment_scan_forget(&v->scan);
    if (!take_frame(v))
        pass_damage(v, v->durable_end - v->segment.position + 1, v->durable_end - v->segment.position);
    return true;
}

static void walk_frames(struct verify *v)
{
    while (!v->stopped && v->scan.error == 0 && v->scan.offset < v->end) {
        if (take_frame(v) || v->scan.error < 0)
            continue;
        if (!v->is_newest)
            pass_damage(v, v->end, v->end);
        else if (!pass_in_newest(v))
            break;
    }
    if (v->scan.error < 0) {
        verify_fail(v, SH_INTERNAL, v->file, -v->scan.error);
    }
}

/* ---------------------------------------------------------------- the segment */

/* The damaged header of an only segment, whose frames don't tell either, or of one beside others. */
static void guess_position(struct verify *v, uint64_t base)
{
    if (v->chain_known && v->chain.next_lsn == base) {
        v->segment.previous_checksum = v->chain.checksum;
        v->segment.position = v->chain.position;
    } else if (base > 1 && v->next_position > v->file_bytes) { /* the log begins at LSN 1 */
        v->segment.position = v->next_position - v->file_bytes;
    }
}

/* What it said follows from the frames, else from the segments beside it. */
static void replace_header(struct verify *v, uint64_t base)
{
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    v->bad_header = true;
    enum sh_error error =
        segment_open_any(v->fs, v->dir, v->log, base, O_RDONLY, &fd, &v->segment, &file_bytes, &state);
    if (error != SH_OK) {
        verify_fail(v, SH_INTERNAL, v->file, 0);
        return;
    }
    v->fs->close(v->fs, fd);
    if (state == HEADER_UNKNOWN)
        guess_position(v, base);
}

static int open_file(struct verify *v, uint64_t base)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES] = {0};
    int64_t size;
    int fd = v->fs->open(v->fs, v->file, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    ssize_t len = vfs_read_full(v->fs, fd, bytes, sizeof bytes, 0);
    int result = len < 0 ? (int)len : v->fs->size(v->fs, fd, &size);
    if (result < 0) {
        v->fs->close(v->fs, fd);
        return result;
    }
    v->file_bytes = (uint64_t)size;
    enum sh_error error = segment_header_decode(slice_of(bytes, (size_t)len), &v->segment);
    if (error == SH_OK && (v->segment.base_lsn != base || !id16_equal(v->segment.log, v->log)))
        error = SH_CORRUPT;
    if (error == SH_OK)
        return fd;
    if (error == SH_VERSION_MISMATCH) {
        verify_fail(v, error, v->file, 0);
        v->fs->close(v->fs, fd);
        return -EPROTO;
    }
    replace_header(v, base);
    return fd;
}

static void compare_with_chain(struct verify *v)
{
    const struct segment_header *s = &v->segment;
    if (!v->chain_known)
        return;
    if (s->base_lsn != v->chain.next_lsn || s->position != v->chain.position)
        verify_damage(v, v->file, 0, 0, s->base_lsn, "frames are missing before this segment");
    else if (!v->bad_header && s->previous_checksum != v->chain.checksum)
        verify_damage(v, v->file, 0, 0, s->base_lsn,
                      "the segment doesn't continue the chain of the one before");
}

/* Where the next segment begins, and behind which frame; 0 when there is none, or nothing tells. */
static void look_at_next(struct verify *v, uint64_t base)
{
    struct segment_header next;
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    v->next_position = v->next_checksum = 0;
    if (base == 0 ||
        segment_open_any(v->fs, v->dir, v->log, base, O_RDONLY, &fd, &next, &file_bytes, &state) != SH_OK)
        return;
    v->fs->close(v->fs, fd);
    if (state != HEADER_UNKNOWN)
        v->next_position = next.position;
    if (state == HEADER_GOOD)
        v->next_checksum = next.previous_checksum;
}

/* A sealed segment ends where the next one begins; when that doesn't tell, where its file ends. */
static uint64_t end_of_frames(const struct verify *v)
{
    bool behind = v->next_position >= v->segment.position + SEGMENT_HEADER_BYTES;
    return behind ? v->next_position - v->segment.position : v->file_bytes;
}

/* The newest segment can also end too early. */
static void check_newest_end(struct verify *v)
{
    uint64_t place = v->segment.position + v->scan.offset;
    if (v->error == SH_OK && !v->stopped && place < v->durable_end)
        verify_damage(v, v->file, v->scan.offset, v->durable_end - place, 0,
                      "the file ends below the durable mark");
}

/* Whether the segment has been trimmed since the folder was listed: nothing so old is there any more. */
static bool is_trimmed(const struct verify *v, uint64_t base)
{
    uint64_t *bases;
    size_t count;
    bool trimmed = segment_list(v->fs, v->dir, &bases, &count) == 0 && count > 0 && bases[0] > base;
    free(bases);
    return trimmed;
}

void verify_segment(struct verify *v, uint64_t base, uint64_t next_base)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    snprintf(path, sizeof path, "%s/%s", v->dir, name);
    v->file = path;
    v->bad_header = false;
    look_at_next(v, next_base);
    int fd = open_file(v, base);
    if (fd < 0) {
        if (fd == -ENOENT && is_trimmed(v, base))
            v->chain_known = false;
        else if (v->error == SH_OK)
            verify_fail(v, SH_INTERNAL, path, -fd);
        return;
    }
    compare_with_chain(v);
    v->chain = log_chain_of(&v->segment);
    v->chain_known = true;
    v->is_newest = next_base == 0;
    v->end = end_of_frames(v);
    /* A segment gets its name only when its first frame is synced. */
    uint64_t synced = v->segment.position + SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES;
    if (v->is_newest && v->durable_end < synced)
        v->durable_end = synced;
    v->report->segments++;
    v->report->bytes += SEGMENT_HEADER_BYTES;
    verify_progress(v, SEGMENT_HEADER_BYTES);
    segment_scan_open(&v->scan, v->fs, fd, v->segment.salt, v->end);
    walk_frames(v);
    tell_header(v);
    if (v->is_newest)
        check_newest_end(v);
    segment_scan_free(&v->scan);
    v->fs->close(v->fs, fd);
    v->file = NULL;
}
