/* Judging a copy_append. Nothing here is fatal. */
#include "wal_copy_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

/* A message as it is gone through. */
struct walk {
    const struct wal_log *log;
    struct wal_refusal *refusal;
    struct slice bytes;            /* that are left */
    struct segment_header segment; /* that they belong to */
    struct log_chain chain;        /* behind what was gone through */
    bool chain_known;              /* else it begins with the first frame */
    int fd; /* of that segment, when bytes of it are there already; -1: its file tells nothing */
    /* The last frame that lies before the copy's end. */
    uint64_t last_offset;
    struct frame_header last;
};

/* No log comes so far; beyond, sums could overflow. */
#define PLACE_MAX (UINT64_MAX / 4)

static const uint32_t most_body = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

static enum wal_copy_verdict refuse(const struct walk *w, enum sh_error code, const char *text)
{
    wal_refuse(w->refusal, code, code == SH_CONFLICT ? w->log->chain.position : 0, text);
    return WAL_COPY_REFUSED;
}

static bool same_chain(const struct log_chain *a, const struct log_chain *b)
{
    return a->position == b->position && a->checksum == b->checksum && a->next_lsn == b->next_lsn;
}

/* ---------------------------------------------------------------- frames */

/* The next frame: SH_OK, or refused. */
static enum sh_error next_frame(struct walk *w)
{
    struct frame_header h;
    size_t size;
    uint64_t before = w->chain.position, end = w->log->chain.position;
    bool first = before == w->segment.position + SEGMENT_HEADER_BYTES;
    if (frame_verify(w->bytes, w->segment.salt, most_body, &h, &size) != SH_OK ||
        first != (h.kind == FRAME_CHECKPOINT))
        return wal_refuse(w->refusal, SH_BAD_REQUEST, 0, "not whole valid frames of one segment of this log");
    if (!w->chain_known)
        w->chain = (struct log_chain){h.base_lsn, h.previous_checksum, before};
    if (!log_chain_follow(&w->chain, &h)) {
        if (before == end && w->chain_known && same_chain(&w->chain, &w->log->chain))
            return wal_refuse(w->refusal, SH_CONFLICT, end, "the frames do not continue the copy");
        return wal_refuse(w->refusal, SH_BAD_REQUEST, 0, "the frames do not continue each other");
    }
    w->chain_known = true;
    if (before < end && w->chain.position >= end && !same_chain(&w->chain, &w->log->chain))
        return wal_refuse(w->refusal, SH_CONFLICT, end, "the frames are on another chain than the copy");
    if (w->chain.position <= end) {
        w->last = h;
        w->last_offset = before - w->segment.position;
    }
    w->bytes.data += size;
    w->bytes.len -= size;
    return SH_OK;
}

/* All frames; *fresh gets those behind the copy's end. */
static enum sh_error all_frames(struct walk *w, struct slice *fresh)
{
    enum sh_error error = SH_OK;
    *fresh = (struct slice){0};
    while (error == SH_OK && w->bytes.len > 0) {
        if (w->chain.position == w->log->chain.position)
            *fresh = w->bytes;
        error = next_frame(w);
    }
    return error;
}

/* ---------------------------------------------------------------- what is there already */

/* Whether another frame stands where the last one should, and a valid one: damage says nothing. */
static enum sh_error compare_last(struct walk *w)
{
    uint8_t head[FRAME_HEADER_BYTES];
    struct segment_scan scan;
    struct frame_header h;
    struct slice bytes;
    const struct vfs *fs = w->log->fs;
    ssize_t got = w->fd < 0 ? 0 : vfs_read_full(fs, w->fd, head, sizeof head, (int64_t)w->last_offset);
    if (got < 0)
        return wal_refuse(w->refusal, SH_INTERNAL, 0, "the copy cannot be read");
    if (got < (ssize_t)sizeof head ||
        frame_header_decode(slice_of(head, sizeof head), most_body, &h) != SH_OK ||
        h.checksum == w->last.checksum)
        return SH_OK;
    segment_scan_open(&scan, fs, w->fd, w->segment.salt, UINT64_MAX);
    scan.offset = w->last_offset;
    enum scan_result result = segment_scan_next(&scan, &h, &bytes);
    segment_scan_free(&scan);
    if (result == SCAN_FAILED)
        return wal_refuse(w->refusal, SH_INTERNAL, 0, "the copy cannot be read");
    if (result == SCAN_FRAME)
        return wal_refuse(w->refusal, SH_CONFLICT, w->log->chain.position,
                          "other frames stand there in the copy");
    return SH_OK;
}

/* Opens the segment of the files that holds the position: SH_OK. SH_TRIMMED: it is not there any more.
 * SH_CORRUPT: its header tells nothing. */
static enum sh_error open_stored(struct walk *w, uint64_t position)
{
    const struct wal_log *log = w->log;
    enum header_state state = HEADER_UNKNOWN;
    enum sh_error error = SH_TRIMMED;
    uint64_t *bases, file_bytes;
    size_t count;
    if (segment_list(log->fs, log->dir, &bases, &count) < 0)
        return SH_INTERNAL;
    while (count-- > 0) {
        int fd;
        error = segment_open_any(log->fs, log->dir, log->uuid, bases[count], O_RDONLY, &fd, &w->segment,
                                 &file_bytes, &state);
        if (error != SH_OK)
            break;
        if (state == HEADER_UNKNOWN)
            error = SH_CORRUPT;
        if (error == SH_OK && w->segment.position <= position) {
            w->fd = fd;
            break;
        }
        log->fs->close(log->fs, fd);
        if (error != SH_OK)
            break;
        error = SH_TRIMMED;
    }
    free(bases);
    return error == SH_NOT_FOUND ? SH_TRIMMED : error;
}

/* The bytes begin before the copy's end. */
static enum wal_copy_verdict check_overlap(struct walk *w, const struct segment_header *header,
                                           struct wal_copy_piece *piece)
{
    uint64_t position = w->chain.position;
    enum sh_error error = SH_OK;
    if (position >= w->log->segment.position) {
        w->segment = w->log->segment;
        w->fd = w->log->fd;
    } else {
        error = open_stored(w, position);
    }
    if (error == SH_TRIMMED || error == SH_CORRUPT) /* nothing to compare with */
        return WAL_COPY_THERE;
    if (error != SH_OK)
        return refuse(w, SH_INTERNAL, "the copy cannot be read");
    if (header != NULL) {
        if (header->position != w->segment.position || header->salt != w->segment.salt)
            return refuse(w, SH_CONFLICT, "no segment begins there in the copy");
        w->chain = log_chain_of(header);
        w->chain_known = true;
    }
    error = all_frames(w, &piece->bytes);
    if (error == SH_OK && piece->bytes.len == 0)
        error = compare_last(w);
    piece->behind = w->chain;
    if (error != SH_OK)
        return WAL_COPY_REFUSED;
    return piece->bytes.len > 0 ? WAL_COPY_APPENDS : WAL_COPY_THERE;
}

/* ---------------------------------------------------------------- a new segment */

static enum wal_copy_verdict check_segment(struct walk *w, struct slice all, bool anew,
                                           struct wal_copy_piece *piece)
{
    const struct log_chain *end = &w->log->chain;
    const struct segment_header *s = &piece->segment;
    struct slice fresh;
    bool gap = s->position > end->position;
    if (gap && !anew)
        return refuse(w, SH_CONFLICT, "bytes are missing before these");
    w->segment = *s;
    w->chain = log_chain_of(s);
    w->chain_known = true;
    if (all_frames(w, &fresh) != SH_OK)
        return WAL_COPY_REFUSED;
    if (gap ? s->base_lsn < end->next_lsn
            : s->previous_checksum != end->checksum || s->base_lsn != end->next_lsn)
        return refuse(w, SH_CONFLICT, "the segment does not continue the copy");
    piece->bytes = all;
    piece->behind = w->chain;
    return gap ? WAL_COPY_ANEW : WAL_COPY_ROLLS;
}

/* SH_OK: the bytes begin with a header of this log (*has), or with a frame. */
static enum sh_error take_header(struct walk *w, const struct msg_copy_append *m, struct segment_header *out,
                                 bool *has)
{
    *has = m->bytes.len >= sizeof "SHANGA" - 1 && memcmp(m->bytes.data, "SHANGA", sizeof "SHANGA" - 1) == 0;
    if (!*has)
        return SH_OK;
    enum sh_error error = segment_header_decode(m->bytes, out);
    if (error == SH_VERSION_MISMATCH)
        return wal_refuse(w->refusal, error, 0, "a segment of a format that this version does not know");
    if (error != SH_OK || !id16_equal(out->log, w->log->uuid) || out->position != m->position ||
        out->base_lsn == 0 || out->base_lsn > PLACE_MAX || out->position > PLACE_MAX)
        return wal_refuse(w->refusal, SH_BAD_REQUEST, 0, "not the header of a segment of this log there");
    if (m->bytes.len == SEGMENT_HEADER_BYTES)
        return wal_refuse(w->refusal, SH_BAD_REQUEST, 0, "a segment comes with its first frame");
    return SH_OK;
}

enum wal_copy_verdict wal_copy_check(const struct wal_log *log, const struct msg_copy_append *m,
                                     struct wal_copy_piece *piece, struct wal_refusal *refusal)
{
    struct walk w = {.log = log, .refusal = refusal, .bytes = m->bytes, .fd = -1};
    bool has_header;
    *piece = (struct wal_copy_piece){0};
    *refusal = (struct wal_refusal){0};
    w.chain.position = m->position;
    if (m->bytes.len == 0)
        return refuse(&w, SH_BAD_REQUEST, "no bytes");
    if (take_header(&w, m, &piece->segment, &has_header) != SH_OK)
        return WAL_COPY_REFUSED;
    if (has_header) {
        w.bytes.data += SEGMENT_HEADER_BYTES;
        w.bytes.len -= SEGMENT_HEADER_BYTES;
    }
    if (m->position < log->chain.position) {
        enum wal_copy_verdict verdict = check_overlap(&w, has_header ? &piece->segment : NULL, piece);
        if (w.fd >= 0 && w.fd != log->fd)
            log->fs->close(log->fs, w.fd);
        return verdict;
    }
    if (has_header)
        return check_segment(&w, m->bytes, m->anew, piece);
    if (m->position > log->chain.position)
        return refuse(&w, SH_CONFLICT, "bytes are missing before these");
    if (log->fd < 0)
        return refuse(&w, SH_BAD_REQUEST, "a log begins with the header of a segment");
    w.segment = log->segment;
    w.chain = log->chain;
    w.chain_known = true;
    if (all_frames(&w, &piece->bytes) != SH_OK)
        return WAL_COPY_REFUSED;
    piece->behind = w.chain;
    return WAL_COPY_APPENDS;
}
