#include "model_log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { CHECKPOINT_BYTES = 40 };

void model_log_open(struct model_log *log, struct id16 id)
{
    *log = (struct model_log){.id = id, .begin = {.next_lsn = 1}};
}

void model_log_free(struct model_log *log)
{
    free(log->frames);
    buf_free(&log->bytes);
}

/* ---- places ---- */

static struct log_chain place_of(const struct model_log *log, size_t count)
{
    return count > 0 ? log->frames[count - 1].behind : log->begin;
}

struct log_chain model_log_end(const struct model_log *log)
{
    return place_of(log, log->count);
}

struct log_chain model_log_durable(const struct model_log *log)
{
    return place_of(log, log->durable);
}

struct held_log model_log_tell(const struct model_log *log)
{
    return (struct held_log){
        .log = log->id, .durable = model_log_durable(log), .first_lsn = log->begin.next_lsn};
}

struct slice model_log_bytes(const struct model_log *log, uint64_t from, uint64_t to)
{
    assert(from >= log->begin.position && from <= to && to - log->begin.position <= log->bytes.len);
    return slice_of(log->bytes.data + (from - log->begin.position), to - from);
}

size_t model_log_find(const struct model_log *log, uint64_t position)
{
    size_t low = 0, high = log->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (log->frames[middle].before.position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low < log->count && log->frames[low].before.position == position ? low : log->count;
}

/* ---- writing ---- */

static void push(struct model_log *log, struct model_frame frame, struct slice bytes)
{
    if (log->count == log->cap) {
        log->cap = log->cap > 0 ? 2 * log->cap : 64;
        log->frames = xrealloc(log->frames, log->cap * sizeof *log->frames);
    }
    log->frames[log->count++] = frame;
    buf_append(&log->bytes, bytes.data, bytes.len);
}

/* A frame behind what is in `bytes` (a segment's header, or nothing) at the place `at`. */
static void write_frame(struct model_log *log, struct log_chain at, struct buf *bytes, struct frame_header h,
                        struct slice body)
{
    struct log_chain durable = model_log_durable(log);
    uint8_t header[FRAME_HEADER_BYTES];
    struct model_frame frame = {
        .before = model_log_end(log), .segment = log->segment, .opens = bytes->len > 0};
    h.body_bytes = (uint32_t)body.len;
    h.base_lsn = at.next_lsn;
    h.previous_checksum = at.checksum;
    h.durable_end = durable.position;
    h.durable_lsn = durable.next_lsn - 1;
    h.durable_checksum = durable.checksum;
    frame_encode(&h, segment_salt(log->id, log->segment), body, header);
    bool follows = log_chain_follow(&at, &h);
    assert(follows);
    frame.behind = at;
    buf_append(bytes, header, sizeof header);
    buf_append(bytes, body.data, body.len);
    push(log, frame, buf_slice(bytes));
}

static void begin_segment(struct model_log *log)
{
    static const uint8_t body[CHECKPOINT_BYTES];
    struct log_chain end = model_log_end(log);
    struct segment_header header = {
        .log = log->id,
        .salt = segment_salt(log->id, end.next_lsn),
        .previous_checksum = end.checksum,
        .base_lsn = end.next_lsn,
        .position = end.position,
    };
    struct buf bytes = {0};
    segment_header_encode(&header, buf_reserve(&bytes, SEGMENT_HEADER_BYTES));
    bytes.len = SEGMENT_HEADER_BYTES;
    log->segment = header.base_lsn;
    write_frame(log, log_chain_of(&header), &bytes, (struct frame_header){.kind = FRAME_CHECKPOINT},
                slice_of(body, sizeof body));
    buf_free(&bytes);
}

void model_log_append(struct model_log *log, uint32_t body_bytes, uint32_t entries, uint64_t fill, bool roll)
{
    struct buf bytes = {0};
    /* Two segments of one base LSN would have one name. */
    bool is_new = log->count == 0 || (roll && model_log_end(log).next_lsn > log->segment);
    uint8_t *body = xmalloc(body_bytes + sizeof fill);
    if (is_new)
        begin_segment(log);
    for (size_t i = 0; i < body_bytes; i += sizeof fill, fill += UINT64_C(0x9e3779b97f4a7c15))
        memcpy(body + i, &fill, sizeof fill);
    write_frame(log, model_log_end(log), &bytes, (struct frame_header){.count = entries},
                slice_of(body, body_bytes));
    buf_free(&bytes);
    free(body);
}

void model_log_sync(struct model_log *log, size_t count)
{
    assert(count <= log->count);
    log->durable = count > log->durable ? count : log->durable;
}

void model_log_sync_all(struct model_log *log)
{
    model_log_sync(log, log->count);
}

void model_log_crash(struct model_log *log)
{
    log->count = log->durable;
    log->bytes.len = model_log_end(log).position - log->begin.position;
    if (log->count > 0)
        log->segment = log->frames[log->count - 1].segment;
}

void model_log_trim(struct model_log *log, size_t keep)
{
    size_t from = log->durable;
    while (from > 0 && keep > 0)
        keep -= log->frames[--from].opens;
    if (from == 0 || keep > 0)
        return;
    struct log_chain begin = log->frames[from].before;
    size_t dropped = begin.position - log->begin.position;
    log->bytes.len -= dropped;
    memmove(log->bytes.data, log->bytes.data + dropped, log->bytes.len);
    log->count -= from;
    log->durable -= from;
    memmove(log->frames, log->frames + from, log->count * sizeof *log->frames);
    log->begin = begin;
}

/* ---- a source ---- */

static bool is_place(const struct log_chain *a, const struct log_chain *b)
{
    return a->next_lsn == b->next_lsn && a->checksum == b->checksum;
}

static void gather(const struct model_log *log, size_t at, uint64_t durable_end,
                   const struct repl_serve *serve, struct buf *out)
{
    uint64_t entries = 0, segment = log->frames[at].segment;
    size_t before = out->len;
    for (; at < log->count && log->frames[at].behind.position <= durable_end; at++) {
        const struct model_frame *f = &log->frames[at];
        size_t size = f->behind.position - f->before.position;
        bool is_first = out->len == before;
        if (f->segment != segment ||
            (!is_first && (out->len - before + size > serve->most_bytes || entries >= serve->most_entries)))
            break;
        struct slice bytes = model_log_bytes(log, f->before.position, f->behind.position);
        buf_append(out, bytes.data, bytes.len);
        entries += f->behind.next_lsn - f->before.next_lsn;
    }
}

void model_log_serve(const struct model_log *log, const struct repl_serve *serve, struct buf *out,
                     struct msg_fetch_reply *reply)
{
    const struct log_chain *from = &serve->from;
    size_t at = model_log_find(log, from->position), before = out->len;
    *reply = (struct msg_fetch_reply){
        .log = log->id,
        .state = LOG_COPY_FRAMES,
        .position = from->position,
        .durable_end = serve->durable.position,
        .durable_lsn = serve->durable.next_lsn - 1,
    };
    if (from->position > serve->durable.position && !serve->anew) {
        reply->state = LOG_COPY_BEHIND;
    } else if (from->position < log->begin.position ||
               (serve->anew && (at == log->count || !log->frames[at].opens))) {
        reply->state = LOG_COPY_TRIMMED;
        reply->position = log->begin.position;
        reply->lsn = log->begin.next_lsn - 1;
    } else if (from->position == serve->durable.position) {
        reply->state = is_place(from, &serve->durable) ? LOG_COPY_END : LOG_COPY_FORKED;
        reply->checksum = reply->state == LOG_COPY_FORKED ? serve->durable.checksum : 0;
    } else if (at == log->count || (!serve->anew && !is_place(from, &log->frames[at].before))) {
        reply->state = LOG_COPY_FORKED;
        reply->checksum = at < log->count ? log->frames[at].before.checksum : 0;
    } else if (serve->most_bytes > 0) {
        gather(log, at, serve->durable.position, serve, out);
    }
    if (out->len > before)
        reply->bytes = slice_of(out->data + before, out->len - before);
    if (reply->bytes.len > 0)
        reply->segment = log->frames[at].segment;
    else if (reply->state == LOG_COPY_FRAMES)
        reply->state = LOG_COPY_END;
}

/* ---- what is here ---- */

bool model_log_begins(const struct model_log *log, uint64_t position, struct log_chain *begins)
{
    for (size_t i = log->count; i-- > 0;)
        if (log->frames[i].opens && log->frames[i].before.position <= position) {
            *begins = log->frames[i].before;
            return true;
        }
    return false;
}

/* Frames from there on, of one segment, up to the durable end; the bytes are those of out. */
static bool read_from(const struct model_log *log, const struct log_chain *from, uint64_t durable_end,
                      struct buf *out)
{
    const struct repl_serve serve = {.log = log->id,
                                     .from = *from,
                                     .durable = {.position = durable_end},
                                     .most_bytes = SIZE_MAX,
                                     .most_entries = UINT64_MAX};
    size_t at = model_log_find(log, from->position);
    if (from->position == durable_end)
        return true;
    if (at == log->count || !is_place(from, &log->frames[at].before))
        return false;
    gather(log, at, durable_end, &serve, out);
    return true;
}

bool model_log_parts(const struct model_log *log, const struct repl_find_fork *parts, struct repl_fork *fork)
{
    struct buf own = {0};
    *fork = (struct repl_fork){.at = parts->from};
    bool good = read_from(log, &parts->from, parts->durable_end, &own);
    repl_fork_compare(parts->bytes, buf_slice(&own), fork);
    own.len = 0;
    good = good && (fork->all_same || read_from(log, &fork->at, parts->durable_end, &own));
    fork->has_own = !fork->all_same && own.len > 0;
    fork->own = repl_fork_first(buf_slice(&own));
    buf_free(&own);
    return good;
}

/* ---- a copy ---- */

/* The header before a segment's first frame; it must continue the copy. */
static enum sh_error enter_segment(const struct model_log *log, struct slice bytes, uint64_t *segment,
                                   struct log_chain *at)
{
    struct segment_header header;
    struct log_chain end = model_log_end(log);
    if (segment_header_decode(bytes, &header) != SH_OK || !id16_equal(header.log, log->id) ||
        header.salt != segment_salt(log->id, header.base_lsn))
        return SH_BAD_REQUEST;
    if (header.position != end.position || header.base_lsn != end.next_lsn ||
        header.previous_checksum != end.checksum)
        return SH_CONFLICT;
    *segment = header.base_lsn;
    *at = log_chain_of(&header);
    return SH_OK;
}

static bool is_header(struct slice bytes)
{
    return bytes.len >= SEGMENT_HEADER_BYTES && memcmp(bytes.data, "SHANGA", 6) == 0;
}

/* One frame at the end of the copy. */
static enum sh_error take_frame(struct model_log *log, struct slice *bytes)
{
    struct log_chain at = model_log_end(log);
    struct model_frame frame = {.before = at, .segment = log->segment, .opens = is_header(*bytes)};
    struct frame_header h;
    size_t header_bytes = frame.opens ? SEGMENT_HEADER_BYTES : 0, size;
    if (!frame.opens && log->count == 0)
        return SH_CONFLICT;
    enum sh_error error = frame.opens ? enter_segment(log, *bytes, &frame.segment, &at) : SH_OK;
    if (error != SH_OK)
        return error;
    struct slice rest = slice_of(bytes->data + header_bytes, bytes->len - header_bytes);
    if (frame_verify(rest, segment_salt(log->id, frame.segment), FRAME_BYTES_MAX - FRAME_HEADER_BYTES, &h,
                     &size) != SH_OK)
        return SH_BAD_REQUEST;
    if (!log_chain_follow(&at, &h))
        return SH_CONFLICT;
    frame.behind = at;
    log->segment = frame.segment;
    push(log, frame, slice_of(bytes->data, header_bytes + size));
    *bytes = slice_of(rest.data + size, rest.len - size);
    return SH_OK;
}

static enum sh_error begin_anew(struct model_log *log, struct slice bytes)
{
    struct segment_header header;
    if (!is_header(bytes) || segment_header_decode(bytes, &header) != SH_OK)
        return SH_BAD_REQUEST;
    log->count = log->durable = 0;
    log->bytes.len = 0;
    log->begin = (struct log_chain){header.base_lsn, header.previous_checksum, header.position};
    return SH_OK;
}

enum sh_error model_log_take(struct model_log *log, uint64_t position, struct slice bytes, bool anew,
                             uint64_t *end)
{
    *end = position + bytes.len;
    if (anew && log->begin.position != position) {
        enum sh_error error = begin_anew(log, bytes);
        if (error != SH_OK)
            return error;
    }
    uint64_t have = model_log_end(log).position;
    if (position < log->begin.position || position > have)
        return SH_CONFLICT;
    uint64_t known = *end < have ? *end : have;
    if (!slice_equal(slice_of(bytes.data, known - position), model_log_bytes(log, position, known)))
        return SH_CONFLICT;
    bytes = slice_of(bytes.data + (known - position), bytes.len - (known - position));
    while (bytes.len > 0) {
        enum sh_error error = take_frame(log, &bytes);
        if (error != SH_OK)
            return error;
    }
    return SH_OK;
}

size_t model_log_differs(const struct model_log *log, uint64_t position, struct slice bytes)
{
    size_t index = model_log_find(log, position);
    for (; index < log->count && bytes.len > 0; index++) {
        const struct model_frame *f = &log->frames[index];
        struct slice own = model_log_bytes(log, f->before.position, f->behind.position);
        if (bytes.len < own.len || memcmp(bytes.data, own.data, own.len) != 0)
            return index;
        bytes = slice_of(bytes.data + own.len, bytes.len - own.len);
    }
    return log->count;
}

void model_log_cut(struct model_log *log, size_t index)
{
    log->count = index;
    log->durable = log->durable < index ? log->durable : index;
    log->bytes.len = model_log_end(log).position - log->begin.position;
    log->segment = index > 0 ? log->frames[index - 1].segment : 0;
}
