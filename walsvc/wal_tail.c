/* The end of the log, once it is known which frames count: what lies behind is kept aside and cut, what may
 * not be synced is written again and synced; or the log goes on in a new segment. Nothing here is fatal. */
#include "wal_recovery.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

enum { FILE_MODE = 0640 };

/* Keeps the bytes [from, extent) of the newest segment aside. On a full disk they take the room of the
 * prepared segment, which holds nothing. */
static enum sh_error keep_aside(struct recovery *r, uint64_t from, char name[LOG_DAMAGE_COPY_MAX])
{
    struct wal_log *log = r->log;
    uint64_t position = log->segment.position + from;
    int result = wal_quarantine(log->fs, r->quarantine, log->uuid, position, log->fd, from, r->extent, name);
    if (wal_is_full(result) && !r->begins_anew) {
        char next[PATH_MAX];
        vfs_path(next, log->dir, "next.tmp");
        if (log->fs->unlink(log->fs, next) == 0)
            result =
                wal_quarantine(log->fs, r->quarantine, log->uuid, position, log->fd, from, r->extent, name);
    }
    if (wal_is_full(result))
        log_error(
            "the disk is full: a torn tail cannot be kept aside, and is not cut before it is; make room",
            log_text("file", r->file), log_uint("bytes", r->extent - from));
    return result == 0 ? SH_OK : wal_recovery_failed(log, "cannot keep a torn tail aside", result);
}

/* What follows the last good frame was never acknowledged. Nothing is cut that could not be kept: after a
 * loss of power it may be more than it looks like, and the next start tries again. */
enum sh_error wal_tail_cut(struct recovery *r)
{
    struct wal_log *log = r->log;
    char kept[LOG_DAMAGE_COPY_MAX];
    if (r->extent <= r->end)
        return SH_OK;
    enum sh_error error = keep_aside(r, r->end, kept);
    if (error != SH_OK)
        return error;
    log_warn("torn tail cut: bytes that were written but never acknowledged", log_text("dir", log->dir),
             log_text("file", r->file), log_uint("offset", r->end), log_uint("bytes", r->extent - r->end),
             log_uint("next_lsn", log->chain.next_lsn), log_text("quarantine", r->quarantine),
             log_text("kept", kept));
    int result = wal_write_zeros(log->fs, log->fd, r->end, r->extent);
    return result == 0 ? SH_OK : wal_recovery_failed(log, "cannot cut a torn tail", result);
}

/* Writes the good frames above M again, fills up a file that was cut short, syncs the file and its name:
 * whoever wrote them may have been killed before it could. */
enum sh_error wal_tail_sync(struct recovery *r)
{
    struct wal_log *log = r->log;
    uint64_t from = r->mark.position - log->segment.position;
    assert(log->segment.position <= r->mark.position && from <= r->end);
    int result = wal_copy_range(log->fs, log->fd, from, r->end, log->fd, from);
    if (result == 0 && log->limit < log->segment_size) {
        result = log->fs->allocate(log->fs, log->fd, 0, (int64_t)log->segment_size);
        if (result == 0)
            log->limit = log->segment_size;
        else if (wal_is_full(result))
            result = 0; /* it ends where it ended */
    }
    if (result == 0)
        result = log->fs->fsync(log->fs, log->fd);
    if (result == 0)
        result = log->fs->sync_dir(log->fs, log->dir);
    if (result < 0)
        return wal_recovery_failed(log, "cannot make the recovered tail durable", result);
    log->offset = r->end;
    log->durable = (struct wal_durable){
        .end = log->chain.position, .lsn = log->chain.next_lsn - 1, .checksum = log->chain.checksum};
    return SH_OK;
}

/* All of it is fetched again. */
enum sh_error wal_tail_drop(struct recovery *r)
{
    struct wal_log *log = r->log;
    char path[PATH_MAX], kept[LOG_DAMAGE_COPY_MAX] = "";
    const struct log_chain begin = {.next_lsn = log->segment.base_lsn, .position = log->segment.position};
    r->scan.offset = 0;
    r->scan.end = log->limit;
    if (!segment_scan_extent(&r->scan, &r->extent))
        return wal_recovery_failed(log, "cannot read the newest segment", r->scan.error);
    enum sh_error error = r->extent > 0 ? keep_aside(r, 0, kept) : SH_OK;
    if (error != SH_OK)
        return error;
    log_error(
        "nothing in the newest segment of a copy can be used: it is removed, and is to be fetched again",
        log_text("dir", log->dir), log_text("file", r->file), log_text("quarantine", r->quarantine),
        log_text("kept", kept));
    vfs_path(path, log->dir, r->file);
    int result =
        log->fs->unlink(log->fs, path); /* if that is lost with power, the next start does the same */
    if (result == 0)
        result = wal_damage_repaired(r->damage, begin.next_lsn, 0, INT64_MAX, &begin);
    return result == 0 ? SH_OK : wal_recovery_failed(log, "cannot remove a damaged segment", result);
}

/* ---------------------------------------------------------------- a new segment */

int wal_tail_make_next(const struct wal_log *log)
{
    char path[PATH_MAX];
    vfs_path(path, log->dir, "next.tmp");
    int fd = log->fs->open(log->fs, path, O_RDWR | O_CREAT | O_TRUNC, FILE_MODE);
    int result = fd < 0 ? fd : log->fs->allocate(log->fs, fd, 0, (int64_t)log->segment_size);
    if (result < 0 && fd >= 0)
        log->fs->close(log->fs, fd);
    return result < 0 ? result : fd;
}

/* The new segment takes the name of the newest one, which holds no entry that is known of: what is missing
 * now follows the segment before. */
static int enter_replaced(struct recovery *r, uint64_t position)
{
    const struct log_chain *mark = &r->mark;
    uint64_t base = mark->next_lsn;
    int result = wal_damage_repaired(r->damage, base, 0, INT64_MAX, mark);
    if (result < 0 || r->previous.fd < 0 || r->previous.state == HEADER_UNKNOWN)
        return result;
    struct log_damage_range range = {
        .base_lsn = r->previous.header.base_lsn,
        .offset = position - r->previous.header.position,
        .bytes = mark->position - position,
        .position = position,
        .first_lsn = base,
        .next_lsn = base,
        .checksum_after = mark->checksum,
    };
    return wal_damage_add(r->damage, &range, -1);
}

/* Header and checkpoint of the new segment; the former one is closed, cut to its end if it is longer. */
static int roll(struct recovery *r, int next, bool replaces)
{
    struct wal_log *log = r->log;
    struct buf body = {0};
    int old, result;
    uint64_t old_end = r->mark.position - log->segment.position, file_bytes = log->limit;
    wal_state_checkpoint(r->state, frame_body_most(log->segment_size), &body);
    struct wal_frame frame = {.body = buf_slice(&body)};
    log->chain = r->mark;
    log->durable = (struct wal_durable){
        .end = r->mark.position, .lsn = r->mark.next_lsn - 1, .checksum = r->mark.checksum};
    frame.header = (struct frame_header){
        .kind = FRAME_CHECKPOINT,
        .body_bytes = (uint32_t)body.len,
        .base_lsn = r->mark.next_lsn,
        .hlc = r->state->hlc,
    };
    uint64_t unused;
    result = wal_log_roll(log, next, &frame, &old, &unused);
    buf_free(&body);
    if (result == 0 && !replaces && file_bytes > old_end) {
        result = log->fs->truncate(log->fs, old, (int64_t)old_end);
        if (result == 0)
            result = log->fs->fsync(log->fs, old);
    }
    log->fs->close(log->fs, old);
    return result;
}

enum sh_error wal_tail_begin_anew(struct recovery *r)
{
    struct wal_log *log = r->log;
    char kept[LOG_DAMAGE_COPY_MAX] = "";
    bool replaces = r->mark.next_lsn == log->segment.base_lsn;
    uint64_t position = log->segment.position, from = replaces ? 0 : r->mark.position - position;
    enum sh_error error = SH_OK;
    int next = wal_tail_make_next(log); /* before any copy: a full disk must not gather copies */
    if (next < 0)
        return wal_recovery_failed(log, "cannot make a new segment behind the damage", next);
    if (r->extent > from)
        error = keep_aside(r, from, kept);
    if (error != SH_OK) {
        log->fs->close(log->fs, next);
        return error;
    }
    int result = roll(r, next, replaces);
    if (result == 0 && replaces)
        result = enter_replaced(r, position);
    if (result < 0)
        return wal_recovery_failed(log, "cannot go on in a new segment behind the damage", result);
    log_warn("the newest segment is damaged up to its durable end: the log goes on in a new one",
             log_text("dir", log->dir), log_text("file", r->file), log_uint("next_lsn", r->mark.next_lsn),
             log_uint("position", r->mark.position), log_text("quarantine", r->quarantine),
             log_text("kept", kept));
    return SH_OK;
}
