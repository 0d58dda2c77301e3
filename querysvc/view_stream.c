/* The bytes of streams' rows, and their merging. Nothing here is fatal.
 *
 *   key of a run   0  1  'E'                      run    0  8  arrival of the first event
 *                  1  1  bytes of the name               8  8  HLC of the frame
 *                  2     the stream's name              16  4  events
 *                    16  log uuid                       20  4  bytes of their payloads
 *                     8  LSN, big-endian
 *
 *   summary        0  1  5 parts, 6 additions     part   0 16  log uuid
 *                  1     parts, 64 bytes each           16  8  LSN of the last event
 *                                                       24  8  its HLC
 *                                                       32  8  events
 *                                                       40  8  bytes of their payloads
 *                                                       48  8  LSN of the last one that was trimmed
 *                                                       56  8  its HLC
 *
 * Integers are little-endian unless it is said. */
#include "view_stream.h"

#include <string.h>

#include "bytes.h"

enum { KIND_RUN = 'E', TAG_PARTS = 5, TAG_ADDITIONS = 6 };
enum { LOG_BYTES = 16, LSN_BYTES = 8, RUN_BYTES = 24 };

/* ---------------------------------------------------------------- runs */

void view_run_key(struct slice stream, struct id16 log, uint64_t lsn, struct buf *out)
{
    const uint8_t head[] = {KIND_RUN, (uint8_t)stream.len};
    uint8_t number[LSN_BYTES];
    for (unsigned i = 0; i < LSN_BYTES; i++)
        number[i] = (uint8_t)(lsn >> 8 * (LSN_BYTES - 1 - i));
    out->len = 0;
    buf_append(out, head, sizeof head);
    buf_append(out, stream.data, stream.len);
    buf_append(out, log.bytes, sizeof log.bytes);
    buf_append(out, number, sizeof number);
}

static uint64_t lsn_of(struct slice key)
{
    uint64_t lsn = 0;
    for (unsigned i = 0; i < LSN_BYTES; i++)
        lsn = lsn << 8 | key.data[key.len - LSN_BYTES + i];
    return lsn;
}

bool view_run_key_is(struct slice key, struct slice stream, struct id16 log, uint64_t *lsn)
{
    if (key.len != 2 + stream.len + LOG_BYTES + LSN_BYTES || key.data[0] != KIND_RUN ||
        key.data[1] != stream.len || !slice_equal(slice_of(key.data + 2, stream.len), stream) ||
        memcmp(key.data + 2 + stream.len, log.bytes, LOG_BYTES) != 0)
        return false;
    *lsn = lsn_of(key);
    return true;
}

bool view_run_key_decode(struct slice key, struct id16 *log, uint64_t *lsn)
{
    if (key.len < 2 || key.data[0] != KIND_RUN || key.len != (size_t)2 + key.data[1] + LOG_BYTES + LSN_BYTES)
        return false;
    memcpy(log->bytes, key.data + 2 + key.data[1], LOG_BYTES);
    *lsn = lsn_of(key);
    return true;
}

void view_run_encode(const struct view_run *run, struct buf *out)
{
    uint8_t *at = buf_reserve(out, RUN_BYTES);
    put_u64(at, run->arrival);
    put_u64(at + 8, run->hlc);
    put_u32(at + 16, run->count);
    put_u32(at + 20, run->bytes);
    out->len += RUN_BYTES;
}

bool view_run_decode(struct slice row, struct view_run *out)
{
    if (row.len != RUN_BYTES)
        return false;
    out->arrival = get_u64(row.data);
    out->hlc = get_u64(row.data + 8);
    out->count = get_u32(row.data + 16);
    out->bytes = get_u32(row.data + 20);
    return out->count > 0;
}

bool view_run_shift(struct slice row, uint64_t own, struct buf *out)
{
    struct view_run run;
    if (!view_run_decode(row, &run))
        return false;
    run.arrival += own;
    view_run_encode(&run, out);
    return true;
}

bool view_run_merge(const struct slice *existing, const struct slice *changes, size_t count, struct buf *out)
{
    struct view_run first = {0}, other;
    for (size_t i = 0; i < count + 1; i++) {
        const struct slice *next = i == 0 ? existing : &changes[i - 1];
        if (next == NULL)
            continue;
        if (!view_run_decode(*next, &other))
            return false;
        if (first.count == 0 || other.arrival < first.arrival)
            first = other;
    }
    view_run_encode(&first, out);
    return true;
}

/* ---------------------------------------------------------------- summaries */

static void part_encode(const struct view_part *part, uint8_t *at)
{
    memcpy(at, part->log.bytes, sizeof part->log.bytes);
    put_u64(at + 16, part->lsn);
    put_u64(at + 24, part->hlc);
    put_u64(at + 32, part->count);
    put_u64(at + 40, part->bytes);
    put_u64(at + 48, part->gone_lsn);
    put_u64(at + 56, part->gone_hlc);
}

static struct view_part part_decode(const uint8_t *at)
{
    struct view_part part = {
        .lsn = get_u64(at + 16),
        .hlc = get_u64(at + 24),
        .count = get_u64(at + 32),
        .bytes = get_u64(at + 40),
        .gone_lsn = get_u64(at + 48),
        .gone_hlc = get_u64(at + 56),
    };
    memcpy(part.log.bytes, at, sizeof part.log.bytes);
    return part;
}

static void encode_parts(uint8_t tag, const struct view_part *parts, size_t count, struct buf *out)
{
    uint8_t *at = buf_reserve(out, 1 + count * VIEW_PART_BYTES);
    out->len += 1 + count * VIEW_PART_BYTES;
    *at = tag;
    for (size_t i = 0; i < count; i++)
        part_encode(&parts[i], at + 1 + i * VIEW_PART_BYTES);
}

void view_summary_encode_add(const struct view_part *add, struct buf *out)
{
    encode_parts(TAG_ADDITIONS, add, 1, out);
}

void view_summary_encode(const struct view_part *parts, size_t count, struct buf *out)
{
    encode_parts(TAG_PARTS, parts, count, out);
}

bool view_summary_open(struct slice row, struct view_summary *summary)
{
    if (row.len % VIEW_PART_BYTES != 1 || (row.data[0] != TAG_PARTS && row.data[0] != TAG_ADDITIONS))
        return false;
    *summary = (struct view_summary){.parts = slice_of(row.data + 1, row.len - 1),
                                     .adds = row.data[0] == TAG_ADDITIONS};
    return true;
}

bool view_summary_next(struct view_summary *summary, struct view_part *out)
{
    if (summary->parts.len == 0)
        return false;
    *out = part_decode(summary->parts.data);
    summary->parts.data += VIEW_PART_BYTES;
    summary->parts.len -= VIEW_PART_BYTES;
    return true;
}

/* Where the log's part stands in what is being made, from `start` on; a new one counts nothing yet. */
static uint8_t *part_of(struct buf *out, size_t start, struct id16 log)
{
    for (size_t at = start; at < out->len; at += VIEW_PART_BYTES)
        if (memcmp(out->data + at, log.bytes, sizeof log.bytes) == 0)
            return out->data + at;
    uint8_t *made = buf_reserve(out, VIEW_PART_BYTES);
    part_encode(&(struct view_part){.log = log}, made);
    out->len += VIEW_PART_BYTES;
    return made;
}

static void add_part(struct view_part *part, const struct view_part *next)
{
    part->count += next->count;
    part->bytes += next->bytes;
    if (next->lsn > part->lsn) {
        part->lsn = next->lsn;
        part->hlc = next->hlc;
    }
}

/* Of two that go as far, the one that still has more. */
static bool goes_further(const struct view_part *next, const struct view_part *part)
{
    return next->lsn != part->lsn ? next->lsn > part->lsn : next->gone_lsn < part->gone_lsn;
}

static void take_change(struct view_summary *change, struct buf *out, size_t start)
{
    struct view_part next;
    while (view_summary_next(change, &next)) {
        uint8_t *at = part_of(out, start, next.log);
        struct view_part part = part_decode(at);
        if (change->adds)
            add_part(&part, &next);
        else if (goes_further(&next, &part))
            part = next;
        part_encode(&part, at);
    }
}

bool view_summary_merge(const struct slice *existing, const struct slice *changes, size_t count, bool adds,
                        struct buf *out)
{
    struct view_summary change;
    encode_parts(adds ? TAG_ADDITIONS : TAG_PARTS, NULL, 0, out);
    size_t start = out->len;
    for (size_t i = 0; i < count + 1; i++) {
        const struct slice *next = i == 0 ? existing : &changes[i - 1];
        if (next == NULL)
            continue;
        if (!view_summary_open(*next, &change) || (adds && !change.adds))
            return false;
        take_change(&change, out, start);
    }
    return true;
}
