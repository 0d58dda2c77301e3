/* Opening a log: making a new one, or recovering it after whatever happened. docs/wal-format.md, "Recovery".
 *
 * Only the newest segment is read, and the header of the one before. Damage to acknowledged data is entered
 * in the register, kept aside and left where it is; everything else is served. What was never acknowledged is
 * cut. Refused, with nothing changed, is only what could make one position hold two values: a log without any
 * segment, a later format, a mark that contradicts the segments. Nothing here is fatal. */
#include "wal_recovery.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum sh_error wal_recovery_failed(const struct wal_log *log, const char *what, int result)
{
    log_error(what, log_text("dir", log->dir), log_text("error", strerror(-result)));
    return wal_is_full(result) ? SH_DISK_FULL : SH_INTERNAL;
}

static enum sh_error refuse(const struct recovery *r, const char *what)
{
    log_error(
        "walsvc does not start on this log and has changed nothing; look at it with `shanghaictl log verify "
        "--data DIR`, restore its files, or start with an empty data directory",
        log_text("what", what), log_text("dir", r->log->dir), log_text("file", r->file),
        log_uint("durable_end", r->mark.position),
        log_uint("durable_lsn", r->mark.position > 0 ? r->mark.next_lsn - 1 : 0));
    return SH_CORRUPT;
}

/* ---------------------------------------------------------------- a new log */

static enum sh_error create_first_segment(struct wal_log *log, struct wal_state *state)
{
    struct buf body = {0};
    int fd = wal_tail_make_next(log); /* the roll syncs it */
    int old, result = fd;
    uint64_t old_end;
    if (fd >= 0) {
        wal_state_checkpoint(state, frame_body_most(log->segment_size), &body);
        struct wal_frame frame = {.body = buf_slice(&body)};
        frame.header = (struct frame_header){
            .kind = FRAME_CHECKPOINT, .body_bytes = (uint32_t)body.len, .base_lsn = 1, .hlc = state->hlc};
        log->chain = (struct log_chain){.next_lsn = 1};
        result = wal_log_roll(log, fd, &frame, &old, &old_end);
        buf_free(&body);
        log->fs->close(log->fs, fd);
    }
    log->fd = -1;
    return result >= 0 ? SH_OK : wal_recovery_failed(log, "cannot make the first segment", result);
}

/* ---------------------------------------------------------------- what there is */

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
    const struct log_chain mark = {log->mark.durable_lsn + 1, log->mark.checksum, log->mark.durable_end};
    wal_recovery_raise(r, &mark);
    return SH_OK;
}

static enum sh_error open_segments(struct recovery *r)
{
    struct wal_log *log = r->log;
    struct recovered_segment *p = &r->previous;
    uint64_t base = r->bases[r->count - 1];
    segment_name(base, r->file);
    enum sh_error error = segment_open_any(log->fs, log->dir, log->uuid, base, O_RDWR, &log->fd,
                                           &log->segment, &log->limit, &r->header);
    if (error == SH_OK && r->count > 1)
        error = segment_open_any(log->fs, log->dir, log->uuid, r->bases[r->count - 2], O_RDWR, &p->fd,
                                 &p->header, &p->file_bytes, &p->state);
    if (error == SH_VERSION_MISMATCH)
        log_error("the log has a format that this version doesn't know", log_text("dir", log->dir));
    return error;
}

/* ---------------------------------------------------------------- the newest segment's header */

static enum sh_error enter_header(struct recovery *r, uint64_t bytes, const struct log_chain *behind)
{
    const struct segment_header *s = &r->log->segment;
    const struct log_damage_range range = {
        .base_lsn = s->base_lsn,
        .bytes = bytes,
        .position = s->position,
        .first_lsn = s->base_lsn,
        .next_lsn = behind->next_lsn,
        .checksum_before = s->previous_checksum,
        .checksum_after = behind->checksum,
    };
    int result = wal_damage_add(r->damage, &range, r->log->fd);
    return result == 0 ? SH_OK : wal_recovery_failed(r->log, "cannot keep damaged bytes aside", result);
}

/* Nobody knows where the file stands in the log, but its frames may know how far that was durable. */
static enum sh_error look_for_mark(struct recovery *r)
{
    struct segment_search search;
    struct frame_header h;
    enum scan_result result;
    const struct log_chain chain = {.next_lsn = r->log->segment.base_lsn,
                                    .position = UINT64_MAX / 2 + r->scan.offset};
    if (!segment_scan_extent(&r->scan, &r->extent))
        return wal_recovery_failed(r->log, "cannot read the newest segment", r->scan.error);
    r->extent = r->extent < r->scan.end ? r->extent : r->scan.end; /* not even a header */
    segment_search_open(&search, &r->scan, &chain);
    while ((result = segment_search_next(&search, r->extent, &h)) == SCAN_FRAME) {
        const struct log_chain claim = {h.durable_lsn + 1, h.durable_checksum, h.durable_end};
        wal_recovery_raise(r, &claim);
        wal_recovery_hear(r, h.hlc);
    }
    return result == SCAN_FAILED
               ? wal_recovery_failed(r->log, "cannot read the newest segment", r->scan.error)
               : SH_OK;
}

/* The whole file is damage, and the log goes on behind it. */
static enum sh_error give_up_segment(struct recovery *r)
{
    struct wal_log *log = r->log;
    r->drops = log->is_copy;
    enum sh_error error = r->drops ? SH_OK : look_for_mark(r);
    if (error != SH_OK || r->drops)
        return error;
    uint64_t bytes = r->extent > SEGMENT_HEADER_BYTES ? r->extent : SEGMENT_HEADER_BYTES;
    if (r->mark.next_lsn <= log->segment.base_lsn || r->mark.position <= bytes)
        return refuse(r, "nothing tells the position of the newest segment");
    log->segment.position = r->mark.position - bytes;
    r->begins_anew = true;
    error = enter_header(r, bytes, &r->mark);
    if (error == SH_OK)
        error = wal_past_state(r);
    r->state->next_lsn = r->mark.next_lsn;
    r->state->hlc = r->hlc > r->state->hlc ? r->hlc : r->state->hlc;
    return error;
}

static bool mark_contradicts(const struct recovery *r)
{
    const struct segment_header *s = &r->log->segment;
    return r->mark.position > s->position ? r->mark.next_lsn < s->base_lsn : r->mark.next_lsn > s->base_lsn;
}

static enum sh_error walk(struct recovery *r)
{
    struct wal_log *log = r->log;
    bool known = true;
    enum sh_error error = SH_OK;
    segment_scan_open(&r->scan, log->fs, log->fd, log->segment.salt, log->limit);
    r->end = r->scan.offset;
    if (r->header == HEADER_UNKNOWN)
        error = wal_past_header(r, &known);
    if (error != SH_OK)
        return error;
    if (!known)
        return give_up_segment(r);
    if (r->header == HEADER_UNKNOWN)
        r->header = HEADER_FROM_FRAMES;
    if (r->mark.position > 0 && mark_contradicts(r))
        return refuse(r, "the durable mark and the segments are not of one log");
    log->chain = log_chain_of(&log->segment);
    if (r->header != HEADER_GOOD) {
        log->chain.checksum = log->segment.previous_checksum;
        error = enter_header(r, SEGMENT_HEADER_BYTES, &log->chain);
    }
    return error == SH_OK ? wal_recovery_walk(r) : error;
}

/* ---------------------------------------------------------------- recovery */

/* On a full disk the prepared segment makes room for the mark's file; when that is not enough the committer
 * goes on trying. */
static enum sh_error write_mark(struct wal_log *log)
{
    char next[PATH_MAX];
    int result = wal_log_write_mark(log);
    vfs_path(next, log->dir, "next.tmp");
    if (wal_is_full(result) && log->fs->unlink(log->fs, next) == 0)
        result = wal_log_write_mark(log);
    return result == 0 || wal_is_full(result)
               ? SH_OK
               : wal_recovery_failed(log, "cannot write the durable mark", result);
}

static enum sh_error end_log(struct recovery *r)
{
    if (r->begins_anew && r->mark.next_lsn < r->log->segment.base_lsn)
        return refuse(r, "the frames and the segment's name are not of one log");
    if (r->begins_anew)
        return wal_tail_begin_anew(r);
    enum sh_error error = wal_tail_cut(r);
    return error == SH_OK ? wal_tail_sync(r) : error;
}

static enum sh_error recover(struct recovery *r)
{
    const struct vfs *fs = r->log->fs;
    enum sh_error error = open_segments(r);
    if (error == SH_OK)
        error = walk(r);
    if (error == SH_OK && !r->drops)
        error = wal_past_seal(r);
    if (error == SH_OK)
        error = r->drops ? wal_tail_drop(r) : end_log(r);
    segment_scan_free(&r->scan);
    if (r->previous.fd >= 0)
        fs->close(fs, r->previous.fd);
    return error == SH_OK && !r->drops ? write_mark(r->log) : error;
}

/* What the folder holds: a list that the caller frees. */
static enum sh_error look(struct recovery *r, uint64_t **bases)
{
    const struct wal_log *log = r->log;
    int result = segment_list(log->fs, log->dir, bases, &r->count);
    r->bases = *bases;
    return result == 0 ? SH_OK : wal_recovery_failed(log, "cannot list the log's segments", result);
}

static struct recovery begin(struct wal_log *log, const struct vfs *fs, const char *dir, struct id16 uuid,
                             uint64_t segment_size)
{
    *log = (struct wal_log){.fs = fs, .uuid = uuid, .segment_size = segment_size, .fd = -1, .mark_fd = -1};
    snprintf(log->dir, sizeof log->dir, "%s", dir);
    return (struct recovery){.log = log, .previous.fd = -1};
}

enum sh_error wal_log_open(struct wal_log *log, const struct vfs *fs, const char *dir, struct id16 uuid,
                           uint64_t segment_size, bool may_create, const char *quarantine,
                           struct wal_damage *damage, struct wal_state *state)
{
    struct recovery r = begin(log, fs, dir, uuid, segment_size);
    uint64_t *bases = NULL;
    r.state = state;
    r.damage = damage;
    r.quarantine = quarantine;
    enum sh_error error = look(&r, &bases);
    if (error == SH_OK)
        error = read_mark(&r);
    if (error == SH_OK && r.count == 0) {
        if (log->mark.counter > 0 || !may_create)
            error = refuse(&r, "the log has no segment");
        if (error == SH_OK)
            error = create_first_segment(log, state);
        if (error == SH_OK) {
            free(bases);
            error = look(&r, &bases);
        }
    }
    if (error == SH_OK)
        error = recover(&r);
    log->first_lsn = r.count > 0 ? bases[0] : 0;
    free(bases);
    if (error != SH_OK)
        wal_log_close(log);
    return error;
}

/* ---------------------------------------------------------------- a copy */

/* Nothing is left of it, or nothing was ever there. */
static enum sh_error begin_copy(struct recovery *r)
{
    struct wal_log *log = r->log;
    if (r->mark.position > 0)
        log_error("a copy has no segment left, though it had: it is to be fetched again",
                  log_text("dir", log->dir), log_uint("durable_lsn", r->mark.next_lsn - 1));
    int result = wal_log_forget(log);
    return result == 0 || wal_is_full(result)
               ? SH_OK
               : wal_recovery_failed(log, "cannot write the durable mark", result);
}

static enum sh_error open_copy(struct recovery *r)
{
    enum sh_error error = read_mark(r);
    if (error != SH_OK)
        return error;
    if (r->count == 0)
        return begin_copy(r);
    error = recover(r);
    if (error == SH_OK && !r->drops)
        r->log->first_lsn = r->bases[0];
    return error;
}

enum sh_error wal_log_open_copy(struct wal_log *log, const struct vfs *fs, const char *dir, struct id16 uuid,
                                uint64_t segment_size, const char *quarantine, struct wal_damage *damage)
{
    enum sh_error error;
    bool again;
    do { /* once for each segment that goes */
        struct recovery r = begin(log, fs, dir, uuid, segment_size);
        struct wal_state state = {.next_lsn = 1};
        uint64_t *bases = NULL;
        log->is_copy = true;
        r.state = &state;
        r.damage = damage;
        r.quarantine = quarantine;
        error = look(&r, &bases);
        if (error == SH_OK)
            error = open_copy(&r);
        again = error == SH_OK && r.drops;
        free(bases);
        if (error != SH_OK || again)
            wal_log_close(log);
    } while (again);
    return error;
}
