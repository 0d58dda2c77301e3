/* Opening a log: making a new one, or recovering it after whatever happened. docs/wal-format.md, "Recovery".
 *
 * Only the newest segment is read. M, the durable mark, is the highest durable end that the mark file or any
 * valid frame tells, frames behind the first bad byte included. Bad bytes below M are damage to acknowledged
 * data: nothing is touched, the caller refuses to start. Bad bytes from M on are a torn tail: kept aside,
 * cut, synced. What lies between M and the end is written again before it is synced: an earlier sync may have
 * failed and dropped it (fsync reports a failure once). Nothing here is fatal. */
#include "wal_log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { COPY_BYTES = 1 << 20, FILE_MODE = 0640, DIR_MODE = 0750 };

struct recovery {
    struct wal_log *log;
    struct wal_state *state;
    const char *quarantine;
    char file[SEGMENT_NAME_MAX];
    struct segment_scan scan;
    uint64_t first_end; /* in the file: behind the checkpoint frame, which was synced before the file had its
                           name */
    uint64_t mark, mark_lsn; /* M, and its LSN */
    uint64_t end;            /* in the file: behind the last good frame */
    uint64_t extent;         /* in the file: behind the last byte that isn't zero */
    bool mark_differs; /* the chain has another checksum at the mark file's durable end, or no frame ends
                          there */
};

static bool is_full(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

static enum sh_error failed(const struct wal_log *log, const char *what, int result)
{
    log_error(what, log_text("dir", log->dir), log_text("error", strerror(-result)));
    return is_full(result) ? SH_DISK_FULL : SH_INTERNAL;
}

static enum sh_error damaged(const struct recovery *r, uint64_t offset, uint64_t lsn, const char *what)
{
    log_error(
        "acknowledged data is damaged: walsvc does not start on it and has changed nothing; keep a copy of "
        "the "
        "data directory, look at it with `shanghaictl log verify --data DIR`, restore the file or start with "
        "an empty data directory",
        log_text("what", what), log_text("dir", r->log->dir), log_text("file", r->file),
        log_uint("offset", offset), log_uint("lsn", lsn), log_uint("durable_end", r->mark),
        log_uint("durable_lsn", r->mark_lsn));
    return SH_CORRUPT;
}

/* ---------------------------------------------------------------- a new log */

static enum sh_error create_first_segment(struct wal_log *log, struct wal_state *state)
{
    char path[PATH_MAX];
    struct buf body = {0};
    vfs_path(path, log->dir, "next.tmp");
    int fd = log->fs->open(log->fs, path, O_RDWR | O_CREAT | O_TRUNC, FILE_MODE);
    int result = fd < 0 ? fd : log->fs->allocate(log->fs, fd, 0, (int64_t)log->segment_size);
    if (result == 0) { /* which syncs it */
        int old;
        uint64_t old_end;
        wal_state_checkpoint(state, frame_body_most(log->segment_size), &body);
        struct wal_frame frame = {.body = buf_slice(&body)};
        frame.header = (struct frame_header){
            .kind = FRAME_CHECKPOINT, .body_bytes = (uint32_t)body.len, .base_lsn = 1, .hlc = state->hlc};
        log->chain = (struct log_chain){.next_lsn = 1};
        result = wal_log_roll(log, fd, &frame, &old, &old_end);
        buf_free(&body);
    }
    if (fd >= 0)
        log->fs->close(log->fs, fd);
    log->fd = -1;
    return result == 0 ? SH_OK : failed(log, "cannot make the first segment", result);
}

/* ---------------------------------------------------------------- the newest segment */

/* A crash between naming a segment and sealing the one before it: its end follows from the header of the
 * next. */
static enum sh_error seal_previous(struct recovery *r, uint64_t base)
{
    struct wal_log *log = r->log;
    struct segment_header header;
    uint64_t file_bytes;
    int fd, result = 0;
    enum sh_error error = segment_open(log->fs, log->dir, log->uuid, base, O_RDWR, &fd, &header, &file_bytes);
    uint64_t end = log->segment.position - header.position;
    if (error == SH_OK && file_bytes > end) {
        result = log->fs->truncate(log->fs, fd, (int64_t)end);
        if (result == 0)
            result = log->fs->fsync(log->fs, fd);
    }
    if (error == SH_OK)
        log->fs->close(log->fs, fd);
    if (result < 0)
        return failed(log, "cannot seal the segment before the newest", result);
    if (error == SH_OK && file_bytes >= end)
        return SH_OK;
    if (error == SH_INTERNAL || error == SH_VERSION_MISMATCH)
        return error;
    segment_name(base, r->file);
    return damaged(r, error == SH_OK ? file_bytes : 0, 0,
                   "a sealed segment is shorter than it was, or has no header");
}

static enum sh_error open_newest(struct recovery *r, const uint64_t *bases, size_t count)
{
    struct wal_log *log = r->log;
    uint64_t base = bases[count - 1];
    segment_name(base, r->file);
    enum sh_error error =
        segment_open(log->fs, log->dir, log->uuid, base, O_RDWR, &log->fd, &log->segment, &log->limit);
    if (error == SH_VERSION_MISMATCH)
        log_error("the log has a format that this version doesn't know", log_text("dir", log->dir),
                  log_text("file", r->file));
    if (error == SH_CORRUPT)
        return damaged(r, 0, base, "the header of the newest segment is damaged");
    if (error != SH_OK)
        return error;
    log->chain = log_chain_of(&log->segment);
    segment_scan_open(&r->scan, log->fs, log->fd, log->segment.salt, log->limit);
    return SH_OK;
}

static enum sh_error read_mark(struct recovery *r)
{
    struct wal_log *log = r->log;
    enum sh_error error = log_mark_read(log->fs, log->dir, log->uuid, &log->mark);
    if (error == SH_CORRUPT)
        log_warn("the durable mark is damaged; it is made again from the frames", log_text("dir", log->dir));
    if (error == SH_VERSION_MISMATCH)
        log_error("the durable mark has a format that this version doesn't know", log_text("dir", log->dir));
    if (error == SH_INTERNAL || error == SH_VERSION_MISMATCH)
        return error;
    r->mark = log->mark.durable_end;
    r->mark_lsn = log->mark.durable_lsn;
    return SH_OK;
}

static void raise_mark(struct recovery *r, uint64_t end, uint64_t lsn)
{
    if (end > r->mark) {
        r->mark = end;
        r->mark_lsn = lsn;
    }
}

/* Whether the chain so far contradicts the mark file. */
static void compare_with_mark(struct recovery *r, uint64_t before)
{
    const struct log_mark *mark = &r->log->mark;
    const struct log_chain *chain = &r->log->chain;
    if (mark->durable_end <= before || mark->durable_end > chain->position)
        return;
    r->mark_differs = mark->durable_end != chain->position || mark->checksum != chain->checksum;
}

static bool take_frame(struct recovery *r, const struct frame_header *h, struct slice bytes)
{
    struct log_chain chain = r->log->chain;
    bool first = r->first_end == 0;
    struct slice body = slice_of(bytes.data + FRAME_HEADER_BYTES, bytes.len - FRAME_HEADER_BYTES);
    if (!log_chain_follow(&chain, h) || (first && h->kind != FRAME_CHECKPOINT) ||
        !wal_state_apply(r->state, h, body))
        return false;
    uint64_t before = r->log->chain.position;
    r->log->chain = chain;
    compare_with_mark(r, before);
    raise_mark(r, h->durable_end, h->durable_lsn);
    if (first) {
        r->first_end = r->scan.offset;
        raise_mark(r, chain.position, h->base_lsn - 1);
    }
    return true;
}

/* Takes in every good frame up to the first bad byte, then looks at what lies behind. */
static enum sh_error walk(struct recovery *r)
{
    struct frame_header h;
    struct slice bytes;
    struct segment_search search;
    enum scan_result result;
    do {
        r->end = r->scan.offset;
        result = segment_scan_next(&r->scan, &h, &bytes);
    } while (result == SCAN_FRAME && take_frame(r, &h, bytes));
    r->scan.offset = r->end;
    if (result == SCAN_FAILED || !segment_scan_extent(&r->scan, &r->extent))
        return failed(r->log, "cannot read the newest segment", r->scan.error);
    segment_search_open(&search, &r->scan, &r->log->chain);
    while ((result = segment_search_next(&search, r->extent, &h)) == SCAN_FRAME)
        raise_mark(r, h.durable_end, h.durable_lsn);
    return result == SCAN_FAILED ? failed(r->log, "cannot read the newest segment", r->scan.error) : SH_OK;
}

static enum sh_error judge(const struct recovery *r)
{
    const struct wal_log *log = r->log;
    if (r->first_end == 0)
        return damaged(r, SEGMENT_HEADER_BYTES, log->segment.base_lsn, "the segment's checkpoint is damaged");
    if (r->mark > log->segment.position + r->end)
        return damaged(r, r->end, log->chain.next_lsn, "no valid frame below the durable mark");
    if (r->mark_differs)
        return damaged(r, log->mark.durable_end - log->segment.position, log->mark.durable_lsn,
                       "the frames are not those that the durable mark was made for");
    return SH_OK;
}

/* ---------------------------------------------------------------- the tail */

/* Copies a range of the segment, into another file or over itself. */
static int copy_range(const struct vfs *fs, int from_fd, uint64_t from, uint64_t to, int to_fd, uint64_t at)
{
    uint8_t *chunk = xmalloc(COPY_BYTES);
    int result = 0;
    while (from < to && result == 0) {
        size_t want = to - from < COPY_BYTES ? (size_t)(to - from) : COPY_BYTES;
        ssize_t got = vfs_read_full(fs, from_fd, chunk, want, (int64_t)from);
        if (got <= 0)
            result = got < 0 ? (int)got : -EIO;
        else
            result = vfs_write_all(fs, to_fd, chunk, (size_t)got, (int64_t)at);
        from += got > 0 ? (uint64_t)got : 0;
        at += got > 0 ? (uint64_t)got : 0;
    }
    free(chunk);
    return result;
}

static int keep_aside(struct recovery *r, char kept[PATH_MAX])
{
    const struct vfs *fs = r->log->fs;
    char uuid[ID_TEXT], name[128];
    id16_format(r->log->uuid, uuid);
    snprintf(name, sizeof name, "%s-%" PRIu64 "-%" PRId64 ".bin", uuid, r->log->segment.position + r->end,
             clock_real_ns());
    vfs_path(kept, r->quarantine, name);
    int result = fs->mkdir(fs, r->quarantine, DIR_MODE);
    if (result < 0 && result != -EEXIST)
        return result;
    int fd = fs->open(fs, kept, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE);
    if (fd < 0)
        return fd;
    result = copy_range(fs, r->log->fd, r->end, r->extent, fd, 0);
    if (result == 0)
        result = fs->fsync(fs, fd);
    fs->close(fs, fd);
    if (result < 0)
        fs->unlink(fs, kept);
    return result == 0 ? fs->sync_dir(fs, r->quarantine) : result;
}

/* What follows the last good frame was never acknowledged: kept aside and overwritten. On a full disk it
 * takes the room of the prepared segment, which holds nothing. Nothing is cut that could not be kept: after a
 * loss of power it may be more than it looks like, and the next start tries again. */
static enum sh_error cut_tail(struct recovery *r)
{
    struct wal_log *log = r->log;
    char kept[PATH_MAX];
    if (r->extent == r->end)
        return SH_OK;
    int result = keep_aside(r, kept);
    if (is_full(result)) {
        char next[PATH_MAX];
        vfs_path(next, log->dir, "next.tmp");
        if (log->fs->unlink(log->fs, next) == 0)
            result = keep_aside(r, kept);
    }
    if (is_full(result))
        log_error(
            "the disk is full: a torn tail cannot be kept aside, and is not cut before it is; make room",
            log_text("file", r->file), log_uint("bytes", r->extent - r->end));
    if (result < 0)
        return failed(log, "cannot keep a torn tail aside", result);
    log_warn("torn tail cut: bytes that were written but never acknowledged", log_text("dir", log->dir),
             log_text("file", r->file), log_uint("offset", r->end), log_uint("bytes", r->extent - r->end),
             log_uint("next_lsn", log->chain.next_lsn), log_text("kept", kept));
    result = wal_write_zeros(log->fs, log->fd, r->end, r->extent);
    return result == 0 ? SH_OK : failed(log, "cannot cut a torn tail", result);
}

/* Writes the good frames above M again, fills up a file that was cut short, syncs the file and its name:
 * whoever wrote them may have been killed before it could. */
static enum sh_error make_durable(struct recovery *r)
{
    struct wal_log *log = r->log;
    uint64_t from = r->mark - log->segment.position;
    assert(from >= r->first_end && from <= r->end);
    int result = copy_range(log->fs, log->fd, from, r->end, log->fd, from);
    if (result == 0 && log->limit < log->segment_size) {
        result = log->fs->allocate(log->fs, log->fd, 0, (int64_t)log->segment_size);
        if (result == 0)
            log->limit = log->segment_size;
        else if (is_full(result))
            result = 0; /* it ends where it ended */
    }
    if (result == 0)
        result = log->fs->fsync(log->fs, log->fd);
    if (result == 0)
        result = log->fs->sync_dir(log->fs, log->dir);
    if (result < 0)
        return failed(log, "cannot make the recovered tail durable", result);
    log->offset = r->end;
    log->durable = (struct wal_durable){.end = log->chain.position, .lsn = log->chain.next_lsn - 1};
    log->durable_checksum = log->chain.checksum;
    return SH_OK;
}

static enum sh_error open_mark(struct wal_log *log)
{
    char path[PATH_MAX];
    uint8_t slots[2 * MARK_SLOT_BYTES];
    int result = 0;
    if (log->mark.counter == 0) { /* none, or damaged */
        log->mark = (struct log_mark){.log = log->uuid, .counter = 1};
        log_mark_encode(&log->mark, slots);
        memcpy(slots + MARK_SLOT_BYTES, slots, MARK_SLOT_BYTES);
        result = vfs_replace_file(log->fs, log->dir, "mark", slots, sizeof slots);
    }
    vfs_path(path, log->dir, "mark");
    if (result == 0)
        log->mark_fd = result = log->fs->open(log->fs, path, O_RDWR, 0);
    if (result >= 0)
        result = wal_log_write_mark(log);
    return result == 0 ? SH_OK : failed(log, "cannot write the durable mark", result);
}

static enum sh_error recover(struct recovery *r, const uint64_t *bases, size_t count)
{
    enum sh_error error = read_mark(r);
    if (error == SH_OK)
        error = open_newest(r, bases, count);
    if (error == SH_OK)
        error = walk(r);
    if (error == SH_OK)
        error = judge(r);
    if (error == SH_OK && count > 1)
        error = seal_previous(r, bases[count - 2]);
    if (error == SH_OK)
        error = cut_tail(r);
    if (error == SH_OK)
        error = make_durable(r);
    segment_scan_free(&r->scan);
    return error == SH_OK ? open_mark(r->log) : error;
}

enum sh_error wal_log_open(struct wal_log *log, const struct vfs *fs, const char *dir, struct id16 uuid,
                           uint64_t segment_size, bool may_create, const char *quarantine,
                           struct wal_state *state)
{
    struct recovery r = {.log = log, .state = state, .quarantine = quarantine};
    uint64_t *bases = NULL;
    size_t count = 0;
    *log = (struct wal_log){.fs = fs, .uuid = uuid, .segment_size = segment_size, .fd = -1, .mark_fd = -1};
    snprintf(log->dir, sizeof log->dir, "%s", dir);
    int result = segment_list(fs, dir, &bases, &count);
    enum sh_error error = result == 0 ? SH_OK : failed(log, "cannot list the log's segments", result);
    if (error == SH_OK && count == 0) {
        error = read_mark(&r);
        snprintf(r.file, sizeof r.file, "mark");
        if (error == SH_OK && (log->mark.counter > 0 || !may_create))
            error = damaged(&r, 0, 1, "the log has no segment");
        if (error == SH_OK)
            error = create_first_segment(log, state);
        if (error == SH_OK && segment_list(fs, dir, &bases, &count) < 0)
            error = SH_INTERNAL;
    }
    if (error == SH_OK)
        error = recover(&r, bases, count);
    free(bases);
    if (error != SH_OK)
        wal_log_close(log);
    return error;
}
