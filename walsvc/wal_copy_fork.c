/* Comparing frames with those of a copy. Nothing here is fatal. */
#include "wal_copy_fork.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static const uint32_t most_body = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

/* The segment of the copy that the frames are compared with. */
struct stored {
    int fd;
    struct segment_header header;
    uint64_t before;   /* base LSN of the segment before it; 0: there is none */
    uint64_t next;     /* of the one behind it; 0: it is the newest */
    uint64_t end;      /* position: of the next segment, or of the copy's end */
    uint32_t end_sum;  /* checksum of the last frame before the next segment; 0: not known */
    uint32_t next_sum; /* checksum of the next segment's first frame; 0: it cannot be read */
};

struct judge {
    const struct wal_log *log;
    struct wal_refusal *refusal;
    struct wal_fork *fork;
    struct stored stored;
    struct segment_scan scan;      /* of its file */
    struct segment_header segment; /* that the message's frames are of */
    struct slice bytes;            /* of the message, that are left */
    struct log_chain chain;        /* of the message, behind what was gone through */
    bool chain_known;              /* else it begins with the first frame */
    bool same;                     /* the copy has the same chain there */
    bool compared;                 /* a frame of the copy could be read */
    bool doubts;           /* the copy's frames cannot be read from a place on, up to which they are */
    struct wal_fork doubt; /* the same: the fork may lie there */
};

static enum wal_fork_verdict refuse(struct judge *j, enum sh_error code, const char *text)
{
    wal_refuse(j->refusal, code, code == SH_CONFLICT ? j->log->chain.position : 0, text);
    return WAL_FORK_REFUSED;
}

static enum wal_fork_verdict cannot_read(struct judge *j)
{
    return refuse(j, SH_INTERNAL, "the copy cannot be read");
}

static enum wal_fork_verdict not_there(struct judge *j)
{
    return refuse(j, SH_CONFLICT, "the frames do not begin where both chains are the same");
}

/* ---------------------------------------------------------------- the copy's files */

/* The checksum of a segment's first frame; 0: it cannot be read. */
static uint32_t first_sum(const struct wal_log *log, int fd, const struct segment_header *segment)
{
    struct segment_scan scan;
    struct frame_header h;
    struct slice bytes;
    segment_scan_open(&scan, log->fs, fd, segment->salt, UINT64_MAX);
    bool good = segment_scan_next(&scan, &h, &bytes) == SCAN_FRAME;
    segment_scan_free(&scan);
    return good ? h.checksum : 0;
}

/* Opens a segment whose place is known. SH_CORRUPT: nothing tells it. */
static enum sh_error open_one(const struct wal_log *log, uint64_t base, int *fd,
                              struct segment_header *header, uint64_t *file_bytes, enum header_state *state)
{
    enum sh_error error =
        segment_open_any(log->fs, log->dir, log->uuid, base, O_RDONLY, fd, header, file_bytes, state);
    if (error == SH_OK && *state == HEADER_UNKNOWN) {
        log->fs->close(log->fs, *fd);
        error = SH_CORRUPT;
    }
    return error;
}

/* Where the frames of the segment end. A file that is sealed ends there too; one that is about to be is
 * longer. */
static enum sh_error find_end(const struct wal_log *log, struct stored *s, uint64_t file_bytes)
{
    struct segment_header next;
    enum header_state state;
    uint64_t unused;
    int fd;
    s->end = log->chain.position;
    if (s->next == 0)
        return SH_OK;
    enum sh_error error = open_one(log, s->next, &fd, &next, &unused, &state);
    s->end = s->header.position + file_bytes;
    if (error == SH_CORRUPT)
        return SH_OK;
    if (error != SH_OK)
        return error;
    s->end = next.position;
    s->end_sum = next.previous_checksum;
    s->next_sum = first_sum(log, fd, &next);
    log->fs->close(log->fs, fd);
    return SH_OK;
}

/* The last segment that begins before the position, or at it. SH_TRIMMED: there is none. SH_CORRUPT: its
 * header is damaged, or nothing tells the place of one behind it. */
static enum sh_error open_stored(const struct wal_log *log, uint64_t position, bool at_it, struct stored *s)
{
    enum sh_error error = SH_TRIMMED;
    enum header_state state = HEADER_GOOD;
    uint64_t *bases, file_bytes = 0;
    size_t count;
    if (segment_list(log->fs, log->dir, &bases, &count) < 0)
        return SH_INTERNAL;
    for (size_t i = count; i-- > 0;) {
        error = open_one(log, bases[i], &s->fd, &s->header, &file_bytes, &state);
        if (error != SH_OK)
            break;
        s->before = i > 0 ? bases[i - 1] : 0;
        s->next = i + 1 < count ? bases[i + 1] : 0;
        if (s->header.position < position || (at_it && s->header.position == position))
            break;
        log->fs->close(log->fs, s->fd);
        s->fd = -1;
        error = SH_TRIMMED;
    }
    free(bases);
    if (error != SH_OK) {
        s->fd = -1;
        return error == SH_NOT_FOUND ? SH_TRIMMED : error;
    }
    return state == HEADER_GOOD ? find_end(log, s, file_bytes) : SH_CORRUPT;
}

/* ---------------------------------------------------------------- the fork */

/* The chains part at `at`, where the message's next frame is `comes`. In front of a segment's first frame
 * that is where the segment begins, for none has a header alone. */
static enum wal_fork_verdict found(struct judge *j, const struct log_chain *at, uint32_t goes, uint32_t comes)
{
    const struct stored *s = &j->stored;
    *j->fork = (struct wal_fork){.at = *at, .base_lsn = s->header.base_lsn, .goes = goes, .comes = comes};
    if (at->position > s->header.position + SEGMENT_HEADER_BYTES)
        return WAL_FORK_FOUND;
    j->fork->at = (struct log_chain){s->header.base_lsn, s->header.previous_checksum, s->header.position};
    j->fork->base_lsn = s->before;
    if (s->before == 0)
        return refuse(j, SH_CONFLICT,
                      "the chains part at the begin of the first segment that is left, or before it; let the "
                      "node begin anew, by `node join --replace`");
    return WAL_FORK_FOUND;
}

/* The frames of the copy that come now are of another chain than the message's, and they part before. */
static enum wal_fork_verdict parted_before(struct judge *j)
{
    if (!j->doubts)
        return not_there(j);
    return found(j, &j->doubt.at, 0, j->doubt.comes);
}

static bool same_chain(const struct log_chain *a, const struct log_chain *b)
{
    return a->position == b->position && a->checksum == b->checksum && a->next_lsn == b->next_lsn;
}

/* The message's next frame lies at or behind the end of what the copy has in that segment. `before`: the
 * message's chain in front of it. */
static enum wal_fork_verdict behind_end(struct judge *j, const struct log_chain *before, uint32_t comes)
{
    const struct stored *s = &j->stored;
    const struct log_chain end = {s->next, s->end_sum, s->end};
    if (s->next == 0 && same_chain(before, &j->log->chain)) {
        j->same = true;
        return WAL_FORK_NONE;
    }
    if (s->next == 0 || !same_chain(before, &end))
        return parted_before(j);
    return found(j, before, s->next_sum, comes); /* here the copy has gone on in another segment */
}

/* The copy's frame where the message has h. */
static enum wal_fork_verdict compare(struct judge *j, const struct log_chain *before,
                                     const struct frame_header *h)
{
    struct frame_header old;
    struct slice bytes;
    if (before->position >= j->stored.end)
        return behind_end(j, before, h->checksum);
    j->scan.offset = before->position - j->stored.header.position;
    enum scan_result result = segment_scan_next(&j->scan, &old, &bytes);
    if (result == SCAN_FAILED)
        return cannot_read(j);
    if (result != SCAN_FRAME) {
        if (j->same)
            j->doubt = (struct wal_fork){.at = *before, .comes = h->checksum};
        j->doubts = j->doubts || j->same;
        j->same = false;
        return WAL_FORK_NONE;
    }
    j->compared = true;
    j->same = old.checksum == h->checksum;
    if (j->same) {
        j->doubts = false;
        return WAL_FORK_NONE;
    }
    if (old.previous_checksum == h->previous_checksum && old.base_lsn == h->base_lsn)
        return found(j, before, old.checksum, h->checksum);
    return parted_before(j);
}

/* ---------------------------------------------------------------- the message */

/* The message's next frame; *before: the chain in front of it. SH_OK, or refused. */
static enum sh_error next_frame(struct judge *j, struct log_chain *before, struct frame_header *h)
{
    size_t size;
    bool first = j->chain.position == j->segment.position + SEGMENT_HEADER_BYTES;
    if (frame_verify(j->bytes, j->segment.salt, most_body, h, &size) != SH_OK ||
        first != (h->kind == FRAME_CHECKPOINT))
        return wal_refuse(j->refusal, SH_BAD_REQUEST, 0, "not whole valid frames of one segment of this log");
    if (!j->chain_known)
        j->chain = (struct log_chain){h->base_lsn, h->previous_checksum, j->chain.position};
    j->chain_known = true;
    *before = j->chain;
    if (!log_chain_follow(&j->chain, h))
        return wal_refuse(j->refusal, SH_BAD_REQUEST, 0, "the frames do not continue each other");
    j->bytes = slice_of(j->bytes.data + size, j->bytes.len - size);
    return SH_OK;
}

/* The message ends, and the copy's frames cannot be read from the doubt on. The next one that can be says
 * whether the message's chain leads to it; when it lies behind the message, it may yet. */
static enum wal_fork_verdict settle_doubt(struct judge *j)
{
    struct segment_search search;
    struct frame_header h;
    uint64_t from = j->doubt.at.position - j->stored.header.position, extent;
    j->scan.offset = from;
    if (!segment_scan_extent(&j->scan, &extent))
        return cannot_read(j);
    segment_search_open(&search, &j->scan, &j->doubt.at);
    enum scan_result result = segment_search_next(&search, extent, &h);
    if (result == SCAN_FAILED)
        return cannot_read(j);
    if (result == SCAN_END)
        return WAL_FORK_NONE;
    uint64_t position = j->stored.header.position + j->scan.offset;
    bool leads = position == j->chain.position && h.previous_checksum == j->chain.checksum &&
                 h.base_lsn == j->chain.next_lsn;
    bool may_yet = position > j->chain.position && h.base_lsn >= j->chain.next_lsn;
    return leads || may_yet ? WAL_FORK_NONE : parted_before(j);
}

/* All of them, so that nothing is cut for what turns out to be no whole frames; compared up to the fork, or
 * the copy's end. */
static enum wal_fork_verdict go_through(struct judge *j)
{
    enum wal_fork_verdict verdict = WAL_FORK_NONE;
    struct log_chain before;
    struct frame_header h;
    bool ends = false;
    while (j->bytes.len > 0) {
        if (next_frame(j, &before, &h) != SH_OK)
            return WAL_FORK_REFUSED;
        if (ends)
            continue;
        verdict = compare(j, &before, &h);
        if (verdict == WAL_FORK_REFUSED)
            return verdict;
        ends = verdict == WAL_FORK_FOUND || before.position >= j->stored.end;
    }
    if (verdict == WAL_FORK_NONE && j->doubts)
        verdict = settle_doubt(j);
    if (verdict == WAL_FORK_NONE && !j->compared && !j->same)
        return refuse(j, SH_CONFLICT, "no frame of the copy there can be read, to be compared");
    return verdict;
}

/* The message begins a segment where the copy goes on in one, or begins another one. The frame that stands
 * there says whether the chains are the same so far. */
static enum wal_fork_verdict at_header(struct judge *j, const struct segment_header *header)
{
    struct frame_header old, first;
    struct slice bytes;
    struct log_chain before, at = {header->base_lsn, header->previous_checksum, header->position};
    const struct segment_header *s = &j->stored.header;
    uint32_t goes = 0;
    if (s->position == header->position) {
        if (s->base_lsn != header->base_lsn || s->previous_checksum != header->previous_checksum)
            return not_there(j);
        j->same = s->created_ns == header->created_ns;
        if (j->same)
            return go_through(j);
        goes = first_sum(j->log, j->stored.fd, s);
    } else {
        j->scan.offset = header->position - s->position;
        enum scan_result result = segment_scan_next(&j->scan, &old, &bytes);
        if (result == SCAN_FAILED)
            return cannot_read(j);
        if (result != SCAN_FRAME || old.previous_checksum != header->previous_checksum ||
            old.base_lsn != header->base_lsn)
            return not_there(j);
        goes = old.checksum;
    }
    if (next_frame(j, &before, &first) != SH_OK)
        return WAL_FORK_REFUSED;
    while (j->bytes.len > 0)
        if (next_frame(j, &before, &old) != SH_OK)
            return WAL_FORK_REFUSED;
    return found(j, &at, goes, first.checksum);
}

enum wal_fork_verdict wal_copy_fork(const struct wal_log *log, const struct msg_copy_append *m,
                                    struct wal_fork *fork, struct wal_refusal *refusal)
{
    struct judge j = {.log = log, .refusal = refusal, .fork = fork, .bytes = m->bytes, .stored.fd = -1};
    struct segment_header header;
    bool has_header = segment_header_decode(m->bytes, &header) == SH_OK;
    enum wal_fork_verdict verdict;
    *fork = (struct wal_fork){0};
    *refusal = (struct wal_refusal){0};
    if (has_header && (!id16_equal(header.log, log->uuid) || header.position != m->position ||
                       m->bytes.len == SEGMENT_HEADER_BYTES))
        return refuse(&j, SH_BAD_REQUEST, "not the header of a segment of this log there, with its frames");
    enum sh_error error = open_stored(log, m->position, has_header, &j.stored);
    if (error != SH_OK && j.stored.fd >= 0)
        log->fs->close(log->fs, j.stored.fd);
    if (error == SH_TRIMMED)
        return refuse(&j, SH_CONFLICT,
                      "that lies before the first segment that is left, and cannot be compared; let the node "
                      "begin anew, by `node join --replace`");
    if (error == SH_CORRUPT)
        return refuse(&j, SH_CONFLICT, "the header of a segment of the copy is damaged");
    if (error != SH_OK)
        return cannot_read(&j);
    j.segment = has_header ? header : j.stored.header;
    j.chain_known = has_header;
    j.chain = has_header ? log_chain_of(&header) : (struct log_chain){.position = m->position};
    if (has_header)
        j.bytes = slice_of(m->bytes.data + SEGMENT_HEADER_BYTES, m->bytes.len - SEGMENT_HEADER_BYTES);
    segment_scan_open(&j.scan, log->fs, j.stored.fd, j.stored.header.salt,
                      j.stored.end - j.stored.header.position);
    verdict = has_header ? at_header(&j, &header) : go_through(&j);
    segment_scan_free(&j.scan);
    log->fs->close(log->fs, j.stored.fd);
    return verdict;
}
