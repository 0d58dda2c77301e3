/* Recovery's look at the segments before the newest one: the last of them is sealed; when the newest one's
 * header or checkpoint is damaged, they tell what stood there. Nothing here is fatal. */
#include "wal_recovery.h"

#include <fcntl.h>
#include <string.h>

#include "log.h"

/* One segment, walked from its first frame to the last that is valid, over what is damaged. */
struct past_walk {
    struct segment_scan scan;
    struct log_chain chain; /* behind the last valid frame */
    uint64_t end;           /* in the file: behind that frame */
};

static void walk_open(struct past_walk *w, const struct wal_log *log, const struct recovered_segment *s)
{
    *w = (struct past_walk){.chain = log_chain_of(&s->header), .end = SEGMENT_HEADER_BYTES};
    segment_scan_open(&w->scan, log->fs, s->fd, s->header.salt, s->file_bytes);
}

/* The next valid frame: SCAN_FRAME, SCAN_END, SCAN_FAILED. */
static enum scan_result walk_next(struct past_walk *w, struct frame_header *h, struct slice *bytes)
{
    struct segment_search search;
    uint64_t offset = w->scan.offset;
    enum scan_result result = segment_scan_next(&w->scan, h, bytes);
    if (result != SCAN_FRAME || !log_chain_follow(&w->chain, h)) {
        if (result == SCAN_END || result == SCAN_FAILED)
            return result;
        w->scan.offset = offset;
        segment_search_open(&search, &w->scan, &w->chain);
        result = segment_search_next(&search, w->scan.end, h);
        if (result != SCAN_FRAME)
            return result;
        w->chain = (struct log_chain){h->base_lsn, h->previous_checksum,
                                      w->chain.position - offset + w->scan.offset};
        result = segment_scan_next(&w->scan, h, bytes);
        if (result != SCAN_FRAME || !log_chain_follow(&w->chain, h))
            return result == SCAN_FAILED ? result : SCAN_END;
    }
    w->end = w->scan.offset;
    return SCAN_FRAME;
}

static enum sh_error walk_failed(const struct recovery *r, const struct past_walk *w)
{
    return wal_recovery_failed(r->log, "cannot read a segment before the newest", w->scan.error);
}

static enum sh_error open_past(const struct recovery *r, size_t index, struct recovered_segment *s)
{
    const struct wal_log *log = r->log;
    enum sh_error error = segment_open_any(log->fs, log->dir, log->uuid, r->bases[index], O_RDONLY, &s->fd,
                                           &s->header, &s->file_bytes, &s->state);
    if (error == SH_VERSION_MISMATCH)
        log_error("the log has a format that this version doesn't know", log_text("dir", log->dir),
                  log_uint("base_lsn", r->bases[index]));
    return error;
}

/* ---------------------------------------------------------------- what a damaged header said */

enum sh_error wal_past_header(struct recovery *r, bool *known)
{
    const struct recovered_segment *s = &r->previous;
    struct segment_header *header = &r->log->segment;
    struct frame_header h;
    struct slice bytes;
    struct past_walk w;
    enum scan_result result;
    *known = r->count == 1 && header->base_lsn == 1; /* the first of the log */
    if (r->count == 1 || s->state == HEADER_UNKNOWN)
        return SH_OK;
    walk_open(&w, r->log, s);
    while ((result = walk_next(&w, &h, &bytes)) == SCAN_FRAME)
        continue;
    segment_scan_free(&w.scan);
    if (result == SCAN_FAILED)
        return walk_failed(r, &w);
    *known = w.chain.next_lsn == header->base_lsn;
    if (*known) {
        header->position = w.chain.position;
        header->previous_checksum = w.chain.checksum;
    }
    return SH_OK;
}

/* ---------------------------------------------------------------- what a damaged checkpoint said */

/* Whether the segment opens with a good checkpoint, which is taken in then. */
static enum sh_error load_checkpoint(struct recovery *r, const struct recovered_segment *s, bool *loaded)
{
    struct past_walk w;
    struct frame_header h;
    struct slice bytes;
    walk_open(&w, r->log, s);
    enum scan_result result = segment_scan_next(&w.scan, &h, &bytes);
    *loaded = result == SCAN_FRAME && h.kind == FRAME_CHECKPOINT &&
              wal_state_apply(r->state, &h,
                              slice_of(bytes.data + FRAME_HEADER_BYTES, bytes.len - FRAME_HEADER_BYTES));
    segment_scan_free(&w.scan);
    return result == SCAN_FAILED ? walk_failed(r, &w) : SH_OK;
}

static enum sh_error apply_frames(struct recovery *r, const struct recovered_segment *s)
{
    struct past_walk w;
    struct frame_header h;
    struct slice bytes;
    enum scan_result result;
    walk_open(&w, r->log, s);
    while ((result = walk_next(&w, &h, &bytes)) == SCAN_FRAME)
        if (h.kind != FRAME_CHECKPOINT)
            wal_state_apply(r->state, &h, (struct slice){0});
    segment_scan_free(&w.scan);
    return result == SCAN_FAILED ? walk_failed(r, &w) : SH_OK;
}

enum sh_error wal_past_state(struct recovery *r)
{
    const struct vfs *fs = r->log->fs;
    struct recovered_segment s;
    enum sh_error error = SH_OK;
    bool loaded = false;
    size_t first = r->count - 1;
    while (error == SH_OK && first > 0 && !loaded) {
        wal_state_free(r->state);
        wal_state_init(r->state);
        error = open_past(r, --first, &s);
        if (error != SH_OK)
            return error;
        error = load_checkpoint(r, &s, &loaded);
        fs->close(fs, s.fd);
    }
    if (!loaded) {
        wal_state_free(r->state);
        wal_state_init(r->state);
    }
    log_warn("the checkpoint of the newest segment is damaged; what it said is gathered from those before",
             log_text("dir", r->log->dir), log_text("file", r->file), log_uint("from", r->bases[first]),
             log_text("producers", loaded || r->bases[0] == 1 ? "known, but for damaged frames"
                                                              : "known as far as segments are left"));
    for (size_t i = first; error == SH_OK && i + 1 < r->count; i++) {
        error = open_past(r, i, &s);
        if (error != SH_OK)
            return error;
        error = apply_frames(r, &s);
        fs->close(fs, s.fd);
    }
    return error;
}

/* ---------------------------------------------------------------- sealing */

static enum sh_error enter(struct recovery *r, struct log_damage_range range)
{
    const struct recovered_segment *s = &r->previous;
    range.base_lsn = s->header.base_lsn;
    range.position = s->header.position + range.offset;
    int result = wal_damage_add(r->damage, &range, range.offset < s->file_bytes ? s->fd : -1);
    return result == 0 ? SH_OK : wal_recovery_failed(r->log, "cannot keep damaged bytes aside", result);
}

/* The file ends before the newest segment begins: a part of it is gone, or the segment between them is. */
static enum sh_error enter_missing(struct recovery *r, uint64_t end)
{
    const struct recovered_segment *s = &r->previous;
    struct frame_header h;
    struct slice bytes;
    struct past_walk w;
    enum scan_result result;
    walk_open(&w, r->log, s);
    while ((result = walk_next(&w, &h, &bytes)) == SCAN_FRAME)
        continue;
    segment_scan_free(&w.scan);
    if (result == SCAN_FAILED)
        return walk_failed(r, &w);
    return enter(r, (struct log_damage_range){
                        .offset = w.end,
                        .bytes = end - w.end,
                        .first_lsn = w.chain.next_lsn,
                        .next_lsn = r->log->segment.base_lsn,
                        .checksum_before = w.chain.checksum,
                        .checksum_after = r->log->segment.previous_checksum,
                    });
}

/* A crash between naming a segment and sealing the one before it. What lies behind the end there is nothing
 * but zeros, unless the newest one was begun because this one is damaged; then it was kept aside, and is now
 * once more. Whether that is so only an undamaged header can say. */
static enum sh_error cut(struct recovery *r, uint64_t end)
{
    const struct recovered_segment *s = &r->previous;
    const struct vfs *fs = r->log->fs;
    struct segment_scan scan;
    uint64_t extent;
    char name[LOG_DAMAGE_COPY_MAX];
    int result = 0;
    segment_scan_open(&scan, fs, s->fd, s->header.salt, s->file_bytes);
    scan.offset = end;
    if (!segment_scan_extent(&scan, &extent))
        result = scan.error;
    segment_scan_free(&scan);
    if (result == 0 && extent > end && r->header != HEADER_GOOD)
        return SH_OK;
    if (result == 0 && extent > end)
        result = wal_quarantine(fs, r->quarantine, r->log->uuid, s->header.position + end, s->fd, end, extent,
                                name);
    if (wal_is_full(result)) {
        log_warn(
            "the disk is full: the segment before the newest is longer than it should be, and stays so until "
            "what is too much can be kept aside",
            log_text("dir", r->log->dir), log_uint("base_lsn", s->header.base_lsn));
        return SH_OK; /* readers end where the newest one begins */
    }
    if (result == 0)
        result = fs->truncate(fs, s->fd, (int64_t)end);
    if (result == 0)
        result = fs->fsync(fs, s->fd);
    return result == 0 ? SH_OK
                       : wal_recovery_failed(r->log, "cannot seal the segment before the newest", result);
}

enum sh_error wal_past_seal(struct recovery *r)
{
    const struct recovered_segment *s = &r->previous;
    const struct segment_header *newest = &r->log->segment;
    enum sh_error error = SH_OK;
    if (s->fd < 0)
        return SH_OK;
    if (s->state != HEADER_GOOD)
        error = enter(r, (struct log_damage_range){
                             .bytes = SEGMENT_HEADER_BYTES,
                             .first_lsn = s->header.base_lsn,
                             .next_lsn = s->header.base_lsn,
                             .checksum_before = s->header.previous_checksum,
                         });
    if (error != SH_OK || s->state == HEADER_UNKNOWN || r->header == HEADER_UNKNOWN)
        return error;
    uint64_t end = newest->position - s->header.position;
    if (newest->position < s->header.position + SEGMENT_HEADER_BYTES) {
        log_error("the newest segment claims to begin before the one before it", log_text("dir", r->log->dir),
                  log_text("file", r->file));
        return SH_OK;
    }
    if (s->file_bytes < end)
        return enter_missing(r, end);
    return s->file_bytes > end ? cut(r, end) : SH_OK;
}
