/* The looking part of a repair: finds what stands around the range. Nothing here is fatal. */
#include "wal_repair_job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "telemetry_push.h"

static enum sh_error refuse(struct repair_job *j, enum sh_error code, uint64_t expected, const char *text)
{
    return wal_refuse(j->refusal, code, expected, text);
}

/* ---------------------------------------------------------------- what is there */

static enum sh_error find_neighbours(struct repair_job *j, bool *exists)
{
    uint64_t base = j->request->segment, *bases;
    size_t count;
    int result = segment_list(j->repair->fs, j->repair->dir, &bases, &count);
    if (result < 0 || count == 0) {
        free(bases);
        return repair_failed(j, "cannot list the log's segments", result < 0 ? result : -ENOENT);
    }
    *exists = false;
    for (size_t i = 0; i < count; i++) {
        if (bases[i] < base)
            j->previous = bases[i];
        if (bases[i] > base && j->next == 0)
            j->next = bases[i];
        *exists = *exists || bases[i] == base;
    }
    uint64_t first = bases[0];
    free(bases);
    if (!*exists && j->previous == 0)
        return refuse(j, SH_TRIMMED, first, "the log begins behind that segment");
    if (!*exists && j->next == 0)
        return refuse(j, SH_NOT_FOUND, 0, "the log ends before that segment");
    return SH_OK;
}

static bool is_ours(const struct repair_job *j, const struct segment_header *header, uint64_t base)
{
    return id16_equal(header->log, j->repair->log) && header->base_lsn == base;
}

/* Opens a segment whatever its header is like. *good: it is valid. */
static enum sh_error open_segment(struct repair_job *j, uint64_t base, int flags, int *fd,
                                  struct segment_header *header, bool *good, uint64_t *file_bytes)
{
    const struct vfs *fs = j->repair->fs;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    int64_t size = 0;
    segment_name(base, name);
    vfs_path(path, j->repair->dir, name);
    *fd = fs->open(fs, path, flags, 0);
    ssize_t len = *fd < 0 ? *fd : vfs_read_full(fs, *fd, bytes, sizeof bytes, 0);
    int result = len < 0 ? (int)len : fs->size(fs, *fd, &size);
    if (result < 0)
        return repair_failed(j, "cannot read a segment", result);
    *file_bytes = (uint64_t)size;
    enum sh_error error = segment_header_decode(slice_of(bytes, (size_t)len), header);
    *good = error == SH_OK && is_ours(j, header, base);
    if (error == SH_VERSION_MISMATCH)
        return refuse(j, error, 0, "a segment of the log is of another format version");
    return SH_OK;
}

static void close_file(struct repair_job *j, int fd)
{
    if (fd >= 0)
        j->repair->fs->close(j->repair->fs, fd);
}

/* ---------------------------------------------------------------- what stands before */

/* Walks on until `until`. *chain is that of the last run of good frames, *bad where it ends (`until` when
 * there is no damage behind it). False: a read failed. */
static bool walk(struct segment_scan *scan, struct log_chain *chain, uint64_t position, uint64_t until,
                 uint64_t *bad)
{
    struct frame_header h;
    struct slice bytes;
    struct segment_search search;
    while (scan->offset < until) {
        struct log_chain before = *chain;
        *bad = scan->offset;
        enum scan_result result = segment_scan_next(scan, &h, &bytes);
        if (result == SCAN_FRAME && log_chain_follow(chain, &h))
            continue;
        *chain = before;
        scan->offset = *bad;
        if (result == SCAN_FAILED)
            return false;
        if (result == SCAN_END)
            return true;
        segment_search_open(&search, scan, chain);
        result = segment_search_next(&search, until < scan->end ? until + 1 : scan->end, &h);
        if (result == SCAN_FAILED)
            return false;
        if (result == SCAN_END) {
            scan->offset = *bad;
            return true;
        }
        *chain = (struct log_chain){h.base_lsn, h.previous_checksum, position + scan->offset};
    }
    *bad = scan->offset;
    return true;
}

/* Whether a valid frame stands at the scan's offset or anywhere behind it in the file: SCAN_FRAME, SCAN_END,
 * SCAN_FAILED. Then the segment ends behind it, whatever a header that was sent says. */
static enum scan_result look_for_frames(struct segment_scan *scan, const struct log_chain *chain,
                                        uint64_t file_bytes)
{
    struct segment_search search;
    struct frame_header h;
    struct slice bytes;
    uint64_t offset = scan->offset;
    scan->end = file_bytes;
    enum scan_result result = segment_scan_next(scan, &h, &bytes);
    if (result != SCAN_BAD)
        return result;
    scan->offset = offset;
    segment_search_open(&search, scan, chain);
    return segment_search_next(&search, scan->end, &h);
}

/* The end of the segment before must be where the header that was sent says. */
static enum sh_error compare_with_previous(struct repair_job *j, int fd,
                                           const struct segment_header *previous, uint64_t file_bytes)
{
    const struct segment_header *h = &j->header;
    struct segment_scan scan;
    uint64_t bad;
    uint64_t length = h->position - previous->position; /* huge when it lies before */
    struct log_chain chain = log_chain_of(previous);
    uint64_t end = length < file_bytes ? length : file_bytes;
    segment_scan_open(&scan, j->repair->fs, fd, previous->salt, end);
    enum scan_result beyond = SCAN_END;
    bool read = walk(&scan, &chain, previous->position, end, &bad);
    if (read && length < file_bytes)
        beyond = look_for_frames(&scan, &chain, file_bytes);
    int error = scan.error;
    segment_scan_free(&scan);
    if (!read || beyond == SCAN_FAILED)
        return repair_failed(j, "cannot read the segment before", error);
    if (beyond == SCAN_FRAME)
        return refuse(j, SH_CONFLICT, 0, "the header stands among valid frames of the segment before");
    j->range.before_is_certain = bad == length; /* else its end is damaged, or missing */
    bool continues = chain.position == h->position && chain.next_lsn == h->base_lsn &&
                     chain.checksum == h->previous_checksum;
    if (j->range.before_is_certain && !continues)
        return refuse(j, SH_CONFLICT, 0, "the header doesn't continue the segment before");
    return SH_OK;
}

/* What the segment's header must continue. */
static enum sh_error look_at_previous(struct repair_job *j)
{
    struct segment_header previous;
    uint64_t file_bytes;
    bool good = false;
    int fd = -1;
    const struct segment_header *h = &j->header;
    if (j->previous == 0 && h->base_lsn == 1) {
        j->range.before_is_certain = true;
        return h->position == 0 && h->previous_checksum == 0
                   ? SH_OK
                   : refuse(j, SH_CONFLICT, 0, "the header is not that of a log's first segment");
    }
    if (j->previous == 0)
        return SH_OK; /* trimmed: nothing is left to compare with */
    enum sh_error error = open_segment(j, j->previous, O_RDONLY, &fd, &previous, &good, &file_bytes);
    if (error == SH_OK && good)
        error = compare_with_previous(j, fd, &previous, file_bytes);
    close_file(j, fd);
    return error;
}

/* At offset 0 the header comes first: it must be what is missing, or what is there. */
static enum sh_error take_header(struct repair_job *j)
{
    struct segment_header sent;
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    enum sh_error error =
        repair_check_header(j->request->bytes, j->repair->log, j->request->segment, &sent, j->refusal);
    if (error != SH_OK)
        return error;
    j->frames = slice_of(j->request->bytes.data + sizeof bytes, j->request->bytes.len - sizeof bytes);
    if (j->header_is_good) {
        segment_header_encode(&j->header, bytes);
        j->range.before_is_certain = true;
        bool fits = j->replace_end > 0 && sent.position == j->header.position &&
                    sent.previous_checksum == j->header.previous_checksum;
        return fits || memcmp(bytes, j->request->bytes.data, sizeof bytes) == 0
                   ? SH_OK
                   : refuse(j, SH_CONFLICT, 0, "the segment has another header, which is not damaged");
    }
    j->header = sent;
    return look_at_previous(j);
}

/* Stands before the first byte of the request that is a frame's. */
static enum sh_error find_start(struct repair_job *j)
{
    const struct wal_repair *r = j->repair;
    uint64_t at = j->request->offset, bad;
    j->frames = j->request->bytes;
    if (at == 0) {
        enum sh_error error = take_header(j);
        at = SEGMENT_HEADER_BYTES;
        if (error != SH_OK)
            return error;
    } else if (j->fd < 0 || !j->header_is_good) {
        return refuse(j, SH_CONFLICT, 0, "the segment's header is missing: that comes first");
    } else if (at < SEGMENT_HEADER_BYTES) {
        return refuse(j, SH_BAD_REQUEST, 0, "no frame begins within a segment's header");
    } else {
        j->range.before_is_certain = true;
    }
    j->range.salt = j->header.salt;
    j->range.before = log_chain_of(&j->header);
    uint64_t end = j->durable_end > j->header.position ? j->durable_end - j->header.position : 0;
    end = end < j->file_bytes ? end : j->file_bytes;
    segment_scan_open(&j->scan, r->fs, j->fd, j->header.salt, end);
    if (r->segment == j->request->segment && r->offset == at) { /* right behind the part before */
        j->range.before = r->chain;
        j->scan.offset = at;
    }
    if (!walk(&j->scan, &j->range.before, j->header.position, at, &bad))
        return repair_failed(j, "cannot read the segment", j->scan.error);
    if (j->scan.offset > at || bad == at)
        return j->scan.offset == at ? SH_OK
                                    : refuse(j, SH_CONFLICT, 0, "a valid frame stands across that offset");
    return refuse(j, SH_CONFLICT, bad, "the damage begins further in front");
}

/* Whether the request says of this place what stands there; false refuses. */
static bool is_the_same(struct repair_job *j, uint64_t offset, struct slice there)
{
    uint64_t at = offset - j->range.from;
    return at <= j->frames.len && there.len <= j->frames.len - at &&
           memcmp(j->frames.data + at, there.data, there.len) == 0;
}

/* Whether a valid frame that ends there may go: with all of it, so that nothing is cut in two. */
static bool may_replace(const struct repair_job *j, uint64_t end)
{
    return end <= j->replace_end && end <= j->request->offset + j->request->bytes.len;
}

/* Passes over frames that are good, as long as the request has the same. */
static enum sh_error skip_good(struct repair_job *j)
{
    struct frame_header h;
    struct slice bytes;
    for (;;) {
        struct log_chain before = j->range.before;
        uint64_t at = j->range.from = j->scan.offset;
        enum scan_result result = segment_scan_next(&j->scan, &h, &bytes);
        if (result == SCAN_FAILED)
            return repair_failed(j, "cannot read the segment", j->scan.error);
        bool good = result == SCAN_FRAME && log_chain_follow(&j->range.before, &h);
        if (!good || j->frames.len == 0) {
            j->end_is_met = good;
            j->range.before = before;
            j->scan.offset = at;
            return SH_OK;
        }
        if (!is_the_same(j, at, bytes)) {
            j->range.before = before;
            j->scan.offset = at;
            return may_replace(j, at + bytes.len)
                       ? SH_OK
                       : refuse(j, SH_CONFLICT, 0, "a valid frame stands there, which is not damaged");
        }
        j->frames = slice_of(j->frames.data + bytes.len, j->frames.len - bytes.len);
    }
}

/* ---------------------------------------------------------------- what stands behind */

/* The next segment tells where this one ends, by its header, or else by its first frame. */
static enum sh_error look_at_next(struct repair_job *j)
{
    struct repair_range *range = &j->range;
    struct segment_header next;
    struct segment_scan scan;
    struct frame_header h;
    struct slice bytes;
    uint64_t file_bytes;
    bool good = false;
    int fd = -1;
    range->end = UINT64_MAX;
    range->next_lsn = j->next;
    if (j->next == 0)
        return refuse(j, SH_CONFLICT, 0, "nothing durable stands behind that offset");
    enum sh_error error = open_segment(j, j->next, O_RDONLY, &fd, &next, &good, &file_bytes);
    if (error == SH_OK && good) {
        range->next_is_certain = true;
        range->next_checksum = next.previous_checksum;
        range->end = next.position > j->header.position ? next.position - j->header.position : 0;
    } else if (error == SH_OK) {
        segment_scan_open(&scan, j->repair->fs, fd, segment_salt(j->repair->log, j->next), file_bytes);
        range->next_is_certain = segment_scan_next(&scan, &h, &bytes) == SCAN_FRAME && h.base_lsn == j->next;
        range->next_checksum = range->next_is_certain ? h.previous_checksum : 0;
        segment_scan_free(&scan);
    }
    close_file(j, fd);
    return error;
}

/* When only a frame of the same file bounds a header whose segment before is no help, its position must be
 * right too. */
static enum sh_error check_position(struct repair_job *j)
{
    struct repair_range own = j->range;
    if (j->range.before_is_certain)
        return SH_OK;
    enum sh_error error = look_at_next(j);
    bool right = error == SH_OK && j->range.end == j->file_bytes;
    j->range = own;
    return right || error != SH_OK
               ? error
               : refuse(j, SH_CONFLICT, 0, "nothing around the segment proves its position");
}

static void ends_at(struct repair_range *range, uint64_t offset, uint64_t lsn, uint32_t checksum)
{
    range->end = offset;
    range->next_lsn = lsn;
    range->next_checksum = checksum;
    range->next_is_certain = true;
}

/* Finds the next valid frame that the request doesn't bring again, or else the segment's end. */
static enum sh_error find_end(struct repair_job *j)
{
    struct segment_search search;
    struct frame_header h;
    struct slice bytes;
    enum scan_result result;
    uint64_t to = j->range.from + j->frames.len;
    if (j->end_is_met) {
        ends_at(&j->range, to, j->range.before.next_lsn, j->range.before.checksum);
        return check_position(j);
    }
    segment_search_open(&search, &j->scan, &j->range.before);
    while ((result = segment_search_next(&search, j->scan.end, &h)) == SCAN_FRAME) {
        uint64_t at = j->scan.offset;
        if (at >= to) {
            ends_at(&j->range, at, h.base_lsn, h.previous_checksum);
            return check_position(j);
        }
        /* It may be good, or stand in a payload: the request has the same bytes then. */
        if (segment_scan_next(&j->scan, &h, &bytes) != SCAN_FRAME ||
            (!is_the_same(j, at, bytes) && !may_replace(j, at + bytes.len)))
            return refuse(j, SH_CONFLICT, 0, "the frames run over one that is not damaged");
    }
    return result == SCAN_FAILED ? repair_failed(j, "cannot read the segment", j->scan.error)
                                 : look_at_next(j);
}

/* ---------------------------------------------------------------- one request */

static uint64_t find_replace_end(const struct repair_job *j)
{
    const struct msg_repair *m = j->request;
    struct log_damage_range range;
    bool differs = wal_damage_find(j->repair->damage, m->segment, m->offset, m->bytes.len, &range) &&
                   range.differs && range.offset <= m->offset;
    return differs ? range.offset + range.bytes : 0;
}

static enum sh_error look(struct repair_job *j)
{
    const struct msg_repair *m = j->request;
    bool exists = false;
    if (!id16_is_zero(m->log) && !id16_equal(m->log, j->repair->log))
        return refuse(j, SH_NOT_FOUND, 0, "this node does not hold that log");
    if (m->segment == 0 || m->bytes.len == 0)
        return refuse(j, SH_BAD_REQUEST, 0, "a repair has a segment, and bytes");
    enum sh_error error = find_neighbours(j, &exists);
    if (error == SH_OK && exists)
        error = open_segment(j, m->segment, O_RDWR, &j->fd, &j->header, &j->header_is_good, &j->file_bytes);
    j->replace_end = find_replace_end(j);
    if (error == SH_OK)
        error = find_start(j);
    if (error == SH_OK)
        error = skip_good(j);
    return error == SH_OK ? find_end(j) : error;
}

/* The register is an aid: when it cannot be written, the range is told there for longer than it is damaged.
 */
static void tell_register(const struct repair_job *j, const struct log_chain *behind, bool whole)
{
    const struct wal_repair *r = j->repair;
    const struct msg_repair *m = j->request;
    int result = wal_damage_repaired(r->damage, m->segment, m->offset, m->bytes.len, behind);
    if (result < 0)
        log_warn("the register of damaged ranges cannot be written", log_text("dir", r->dir),
                 log_text("error", strerror(-result)));
    event_info("damage_repaired", "damage repaired", log_text("dir", r->dir), log_uint("segment", m->segment),
               log_uint("offset", m->offset), log_uint("bytes", m->bytes.len),
               log_uint("next_lsn", behind->next_lsn), log_text("whole", whole ? "yes" : "no"));
}

enum sh_error wal_repair(struct wal_repair *r, const struct msg_repair *m, uint64_t durable_end,
                         struct msg_repair_reply *reply, struct wal_refusal *refusal)
{
    struct repair_job j = {
        .repair = r, .request = m, .durable_end = durable_end, .refusal = refusal, .fd = -1};
    struct log_chain behind;
    bool whole = false;
    *refusal = (struct wal_refusal){0};
    enum sh_error error = look(&j);
    if (error == SH_OK)
        error = repair_check(&j.range, j.frames, &behind, &whole, refusal);
    if (error == SH_OK)
        error = repair_write(&j);
    segment_scan_free(&j.scan);
    close_file(&j, j.fd);
    if (error != SH_OK)
        return error;
    r->segment = m->segment;
    r->offset = m->offset + m->bytes.len;
    r->chain = behind;
    whole = whole && r->offset >= j.replace_end; /* it meets what is still to be replaced */
    *reply = (struct msg_repair_reply){
        .log = r->log,
        .segment = m->segment,
        .next = r->offset,
        .next_lsn = behind.next_lsn,
        .whole = whole,
    };
    tell_register(&j, &behind, whole);
    return SH_OK;
}
