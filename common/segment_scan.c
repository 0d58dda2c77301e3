/* Walking one segment. Nothing here is fatal: bad bytes and failed reads are results. */
#include "segment_scan.h"

#include <assert.h>
#include <string.h>

#include "crc32c.h"

enum { SUM_BYTES = 4096, SUMMED_LEAST = 2 * SUM_BYTES };

static const uint8_t magic[4] = {'S', 'H', 'F', 'R'};

void segment_scan_open(struct segment_scan *scan, const struct vfs *fs, int fd, uint32_t salt, uint64_t end)
{
    *scan =
        (struct segment_scan){.fs = fs, .fd = fd, .salt = salt, .offset = SEGMENT_HEADER_BYTES, .end = end};
}

void segment_scan_free(struct segment_scan *scan)
{
    buf_free(&scan->window);
    buf_free(&scan->sums);
}

void segment_scan_forget(struct segment_scan *scan)
{
    scan->window.len = 0;
    buf_free(&scan->sums);
}

/* The bytes at offset that are in the window. */
static struct slice window_at(const struct segment_scan *scan, uint64_t offset)
{
    if (offset < scan->window_at || offset >= scan->window_at + scan->window.len)
        return (struct slice){0};
    size_t skip = (size_t)(offset - scan->window_at);
    return slice_of(scan->window.data + skip, scan->window.len - skip);
}

/* At least `need` bytes from offset on, fewer only at `end` or at the end of the file. False: a read failed.
 */
static bool fill(struct segment_scan *scan, uint64_t offset, size_t need, struct slice *bytes)
{
    uint64_t left = scan->end > offset ? scan->end - offset : 0;
    *bytes = window_at(scan, offset);
    if (bytes->len < need && bytes->len < left) {
        size_t want = need > SCAN_WINDOW_BYTES ? need : SCAN_WINDOW_BYTES;
        want = want < left ? want : (size_t)left;
        scan->window.len = 0;
        uint8_t *room = buf_reserve(&scan->window, want);
        ssize_t got = vfs_read_full(scan->fs, scan->fd, room, want, (int64_t)offset);
        if (got < 0) {
            scan->error = (int)got;
            return false;
        }
        scan->window.len = (size_t)got;
        scan->window_at = offset;
        *bytes = buf_slice(&scan->window);
    }
    if (bytes->len > left) /* the caller has drawn the end nearer */
        bytes->len = (size_t)left;
    return true;
}

static const uint32_t most_body = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

/* What could be a frame's header at `offset`: SCAN_FRAME, else SCAN_BAD. */
static enum scan_result header_at(struct segment_scan *scan, uint64_t offset, struct frame_header *h)
{
    struct slice bytes;
    if (!fill(scan, offset, FRAME_HEADER_BYTES, &bytes))
        return SCAN_FAILED;
    return frame_header_decode(bytes, most_body, h) == SH_OK ? SCAN_FRAME : SCAN_BAD;
}

static uint32_t sum_of_blocks(const struct segment_scan *scan, size_t blocks)
{
    uint32_t sum;
    memcpy(&sum, scan->sums.data + blocks * sizeof sum, sizeof sum);
    return sum;
}

/* The checksum of the file's bytes from sums_from up to `to`. False: the file ends before, or a read failed
 * (*failed). */
static bool sum_up_to(struct segment_scan *scan, uint64_t to, uint32_t *sum, bool *failed)
{
    uint8_t bytes[SUM_BYTES];
    size_t blocks = (size_t)((to - scan->sums_from) / SUM_BYTES);
    size_t known = scan->sums.len / sizeof *sum - 1;
    ssize_t want = SUM_BYTES, got = SUM_BYTES;
    for (; known < blocks && got == want; known++) {
        uint64_t at = scan->sums_from + known * SUM_BYTES;
        got = vfs_read_full(scan->fs, scan->fd, bytes, SUM_BYTES, (int64_t)at);
        *sum = got == want ? crc32c(sum_of_blocks(scan, known), bytes, SUM_BYTES) : 0;
        if (got == want)
            buf_append(&scan->sums, sum, sizeof *sum);
    }
    if (got == want) {
        want = (ssize_t)((to - scan->sums_from) % SUM_BYTES);
        got = vfs_read_full(scan->fs, scan->fd, bytes, (size_t)want, (int64_t)to - want);
    }
    *failed = got < 0;
    if (got == want)
        *sum = crc32c(sum_of_blocks(scan, blocks), bytes, (size_t)want);
    return got == want;
}

/* Whether a header that claims much is found out without a walk over its body. */
static bool is_found_out(struct segment_scan *scan, uint64_t offset, size_t size,
                         const struct frame_header *h)
{
    uint32_t before, all;
    bool failed;
    uint64_t from = offset + FRAME_CRC_FROM, to = offset + size;
    if (scan->sums.len == 0 || offset < scan->sums_from || size < SUMMED_LEAST)
        return false;
    if (!sum_up_to(scan, from, &before, &failed) || !sum_up_to(scan, to, &all, &failed))
        return !failed;
    return (all ^ crc32c_shift(before ^ scan->salt, to - from)) != h->checksum;
}

/* The frame at `offset`, which the caller knows to lie below the end. */
static enum scan_result frame_at(struct segment_scan *scan, uint64_t offset, struct frame_header *h,
                                 struct slice *bytes)
{
    size_t size;
    enum scan_result result = header_at(scan, offset, h);
    if (result != SCAN_FRAME)
        return result;
    size = FRAME_HEADER_BYTES + (size_t)h->body_bytes;
    if (size > scan->end - offset || is_found_out(scan, offset, size, h))
        return SCAN_BAD;
    if (!fill(scan, offset, size, bytes))
        return SCAN_FAILED;
    if (frame_verify(*bytes, scan->salt, most_body, h, &size) != SH_OK)
        return SCAN_BAD;
    bytes->len = size;
    return SCAN_FRAME;
}

enum scan_result segment_scan_next(struct segment_scan *scan, struct frame_header *h, struct slice *bytes)
{
    if (scan->offset >= scan->end)
        return SCAN_END;
    enum scan_result result = frame_at(scan, scan->offset, h, bytes);
    if (result == SCAN_FRAME)
        scan->offset += bytes->len;
    return result;
}

/* Puts offset at the next place where the magic begins before `until`, or at `until`. */
static bool find_magic(struct segment_scan *scan, uint64_t until)
{
    while (scan->offset < until) {
        struct slice bytes;
        if (!fill(scan, scan->offset, sizeof magic, &bytes))
            return false;
        if (bytes.len < sizeof magic) {
            scan->offset = until;
            break;
        }
        const uint8_t *found = memmem(bytes.data, bytes.len, magic, sizeof magic);
        if (found != NULL) {
            scan->offset += (uint64_t)(found - bytes.data);
            break;
        }
        scan->offset += bytes.len - (sizeof magic - 1);
    }
    return true;
}

static bool all_zero(struct slice bytes)
{
    return bytes.len == 0 || (bytes.data[0] == 0 && memcmp(bytes.data, bytes.data + 1, bytes.len - 1) == 0);
}

bool segment_scan_extent(struct segment_scan *scan, uint64_t *behind)
{
    struct slice bytes;
    *behind = scan->offset;
    for (uint64_t at = scan->offset; at < scan->end; at += bytes.len) {
        if (!fill(scan, at, 1, &bytes))
            return false;
        if (bytes.len == 0)
            break;
        if (all_zero(bytes))
            continue;
        size_t last = bytes.len;
        while (bytes.data[last - 1] == 0)
            last--;
        *behind = at + last;
    }
    return true;
}

bool log_chain_follow(struct log_chain *chain, const struct frame_header *h)
{
    if (h->previous_checksum != chain->checksum || h->base_lsn != chain->next_lsn)
        return false;
    if (h->durable_end > chain->position)
        return false;
    if (h->durable_end == chain->position &&
        (h->durable_checksum != chain->checksum || h->durable_lsn != chain->next_lsn - 1))
        return false;
    chain->checksum = h->checksum;
    chain->next_lsn += h->count;
    chain->position += FRAME_HEADER_BYTES + (uint64_t)h->body_bytes;
    return true;
}

struct log_chain log_chain_of(const struct segment_header *segment)
{
    return (struct log_chain){
        .next_lsn = segment->base_lsn,
        .checksum = segment->previous_checksum,
        .position = segment->position + SEGMENT_HEADER_BYTES,
    };
}

void segment_search_open(struct segment_search *s, struct segment_scan *scan, const struct log_chain *chain)
{
    *s = (struct segment_search){
        .scan = scan,
        .end = UINT64_MAX,
        .from = *chain,
        .chain = *chain,
        .position = chain->position - scan->offset,
        .body_end = scan->offset,
        .bad = scan->offset,
        .at = scan->offset + 1,
        .last = scan->offset,
    };
    if (scan->sums.len > 0 && scan->offset >= scan->sums_from)
        return;
    const uint32_t none = 0;
    scan->sums.len = 0;
    scan->sums_from = scan->offset;
    buf_append(&scan->sums, &none, sizeof none);
}

/* Whether the header at the scan's offset may be that of a frame. */
static bool may_count(const struct segment_search *s, const struct frame_header *h)
{
    const struct log_chain *from = &s->from;
    if (h->durable_end > s->position + s->scan->offset)
        return false;
    if (h->durable_end == from->position &&
        (h->durable_checksum != from->checksum || h->durable_lsn != from->next_lsn - 1))
        return false;
    return h->base_lsn >= from->next_lsn && h->base_lsn - from->next_lsn <= s->scan->offset - s->bad;
}

/* Whether there is a header at `at` that names the checksum as that of the frame before it. */
static enum scan_result names(struct segment_search *s, uint64_t at, uint32_t checksum,
                              struct frame_header *h)
{
    enum scan_result result = header_at(s->scan, at, h);
    s->scan->offset = at;
    struct log_chain chain = {h->base_lsn, checksum, s->position + at};
    if (result == SCAN_FRAME && (!may_count(s, h) || !log_chain_follow(&chain, h)))
        return SCAN_BAD;
    return result;
}

/* Looks for the end of the frame at `at`, whose header is damaged: there stands a header that names its
 * checksum. The chain goes on with that. */
static enum scan_result find_end(struct segment_search *s, uint64_t at, uint64_t until)
{
    struct frame_header h;
    struct slice bytes;
    uint32_t checksum, body_bytes;
    enum scan_result result = SCAN_BAD;
    if (!fill(s->scan, at, FRAME_HEADER_BYTES, &bytes))
        return SCAN_FAILED;
    if (!frame_header_extent(bytes, &body_bytes, &checksum))
        return SCAN_BAD;
    uint64_t most = at + FRAME_BYTES_MAX + 1, behind = at + FRAME_HEADER_BYTES + body_bytes;
    most = most < until ? most : until;
    if (behind == s->end || (s->end_checksum != 0 && checksum == s->end_checksum)) {
        s->body_end = s->end; /* nothing stands behind it, nor does anything in it continue it */
        s->chain.next_lsn = UINT64_MAX;
    }
    if (behind < most)
        result = names(s, behind, checksum, &h);
    s->scan->offset = result == SCAN_FRAME ? behind : at + 1;
    while (result == SCAN_BAD && s->scan->offset < most) {
        if (!find_magic(s->scan, most))
            return SCAN_FAILED;
        behind = s->scan->offset;
        result = behind < most ? names(s, behind, checksum, &h) : SCAN_BAD;
        s->scan->offset = behind + 1;
    }
    if (result != SCAN_FRAME)
        return result;
    s->chain = (struct log_chain){h.base_lsn, checksum, s->position + behind};
    s->body_end = s->at = behind;
    return SCAN_FRAME;
}

/* The checksum in the last header is damaged, since nothing names it: then a valid frame with the next LSN
 * stands at its body's end, which is `at`. The chain goes on with that. When its LSN is another one (the
 * count is damaged too, or the length), or not known, there is a gap: it isn't a damaged one to pass over. */
static enum scan_result trust_length(struct segment_search *s, uint64_t at, uint64_t until)
{
    struct frame_header h;
    struct slice bytes;
    if (at == s->last || at >= until)
        return SCAN_BAD;
    s->scan->offset = at;
    enum scan_result result = frame_at(s->scan, at, &h, &bytes);
    if (result != SCAN_FRAME)
        return result;
    struct log_chain before = {s->chain.next_lsn, h.previous_checksum, s->position + at}, chain = before;
    if (!may_count(s, &h))
        return SCAN_BAD;
    s->gap = !log_chain_follow(&chain, &h);
    if (s->gap)
        return SCAN_BAD;
    s->chain = before;
    return SCAN_FRAME;
}

/* No header at `at` continues the chain: goes on where something else tells that the last frame ends, or the
 * one at `at`, whose header is damaged then. Who wrote that one knew the checksum of the one before it; so
 * when both tell a place, the further one counts. */
static enum scan_result find_next(struct segment_search *s, uint64_t at, uint64_t until)
{
    enum scan_result result = find_end(s, s->last, until);
    if (result == SCAN_FAILED || at == s->last || at >= until || (result == SCAN_FRAME && s->body_end <= at))
        return result;
    if (result == SCAN_BAD)
        result = trust_length(s, at, until);
    if (result == SCAN_FAILED || s->body_end == at)
        return result == SCAN_BAD && !s->gap ? find_end(s, at, until) : result;
    const struct segment_search first = *s;
    enum scan_result other = find_end(s, at, until);
    if (other == SCAN_BAD || (other == SCAN_FRAME && s->body_end < first.body_end)) {
        s->chain = first.chain;
        s->body_end = first.body_end;
        s->at = first.at;
    }
    return other == SCAN_FAILED ? other : SCAN_FRAME;
}

/* Goes from header to header, whatever their bodies are, to the next valid frame. SCAN_BAD: there is a gap.
 */
static enum scan_result follow_headers(struct segment_search *s, uint64_t until, struct frame_header *h)
{
    struct slice bytes;
    bool is_clients = true; /* what is in the last body */
    enum scan_result result = SCAN_FRAME;
    while (result == SCAN_FRAME) {
        uint64_t at = s->body_end;
        result = at < until ? header_at(s->scan, at, h) : SCAN_BAD;
        if (result == SCAN_FAILED)
            return result;
        if (result != SCAN_FRAME || !log_chain_follow(&s->chain, h)) {
            result = find_next(s, at, until);
            continue;
        }
        s->last = at;
        s->body_end = at + FRAME_HEADER_BYTES + h->body_bytes;
        is_clients = h->kind == FRAME_DATA;
        s->at = at + 1;
        result = frame_at(s->scan, at, h, &bytes);
        if (result == SCAN_FRAME) {
            s->at = s->last = s->bad = s->body_end;
            s->from = s->chain;
            s->scan->offset = at;
        }
        if (result != SCAN_BAD)
            return result;
        result = SCAN_FRAME;
    }
    s->gap = true;
    s->body_end = is_clients ? s->body_end : 0;
    return result;
}

/* The valid frame at the scan's offset lies in what may be a body: SCAN_FRAME when it cannot be a client's,
 * since it continues the header before the body, or since the frames from it on continue each other to beyond
 * the body's end, or to the end of the search where the body ends beyond that. SCAN_BAD: none of those up to
 * s->at can count. */
static enum scan_result leave_body(struct segment_search *s, const struct frame_header *first)
{
    uint64_t at = s->scan->offset;
    struct log_chain chain = s->chain;
    struct frame_header h;
    struct slice bytes;
    enum scan_result result;
    if (log_chain_follow(&chain, first))
        return SCAN_FRAME;
    chain = (struct log_chain){first->base_lsn, first->previous_checksum, s->position + at};
    while ((result = frame_at(s->scan, at, &h, &bytes)) == SCAN_FRAME && log_chain_follow(&chain, &h)) {
        at += bytes.len;
        if (at > s->body_end || (at == s->end && chain.checksum == s->end_checksum))
            return SCAN_FRAME;
    }
    if (at > s->scan->offset)
        s->at = at - 1;
    return result == SCAN_FAILED ? result : SCAN_BAD;
}

/* The frame at s->at: SCAN_FRAME when it is valid and counts. */
static enum scan_result candidate(struct segment_search *s, struct frame_header *h)
{
    struct slice bytes;
    s->scan->offset = s->at;
    enum scan_result result = header_at(s->scan, s->at, h);
    if (result != SCAN_FRAME || !may_count(s, h))
        return result == SCAN_FAILED ? result : SCAN_BAD;
    result = frame_at(s->scan, s->at, h, &bytes);
    uint64_t size = FRAME_HEADER_BYTES + (uint64_t)h->body_bytes;
    if (result == SCAN_FRAME && s->at < s->body_end)
        result = leave_body(s, h);
    s->at += result == SCAN_FRAME ? size : 0;
    return result;
}

enum scan_result segment_search_next(struct segment_search *s, uint64_t until, struct frame_header *h)
{
    struct segment_scan *scan = s->scan;
    assert(until <= scan->end);
    if (!s->gap) {
        enum scan_result result = follow_headers(s, until, h);
        if (result != SCAN_BAD)
            return result;
    }
    for (; s->at < until; s->at++) {
        scan->offset = s->at;
        if (!find_magic(scan, until))
            return SCAN_FAILED;
        s->at = scan->offset;
        if (s->at >= until)
            break;
        enum scan_result result = candidate(s, h);
        if (result == SCAN_BAD)
            continue;
        s->body_end = 0;
        return result;
    }
    return SCAN_END;
}
