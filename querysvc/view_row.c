/* The rows' bytes and their merging. Nothing here is fatal.
 *
 *   value      0  1  1 value, 2 tombstone        counter    0  1  3 sums, 4 additions
 *              1  8  HLC                                    then for each log, 32 bytes:
 *              9 16  log uuid                               0 16  log uuid
 *             25  8  LSN                                   16  8  LSN of the last entry in it
 *             33  8  expires, ms since 1970, or 0          24  8  sum (two's complement)
 *             41     the value's bytes
 *
 * Integers are little-endian. */
#include "view_row.h"

#include <string.h>

#include "bytes.h"
#include "hlc.h"
#include "view_cursor.h"
#include "view_stream.h"

enum { TAG_VALUE = 1, TAG_TOMBSTONE = 2, TAG_SUMS = 3, TAG_ADDITIONS = 4 };
enum { VALUE_HEAD = 41, SUM_BYTES = 32 };

/* ---------------------------------------------------------------- values */

int view_version_compare(const struct view_version *a, const struct view_version *b)
{
    if (a->hlc != b->hlc)
        return a->hlc < b->hlc ? -1 : 1;
    int order = memcmp(a->log.bytes, b->log.bytes, sizeof a->log.bytes);
    if (order != 0)
        return order;
    return a->lsn < b->lsn ? -1 : a->lsn > b->lsn;
}

uint64_t view_value_expires_ms(uint64_t hlc, uint64_t ttl_ms)
{
    uint64_t now_ms = (uint64_t)hlc_ms(hlc);
    if (ttl_ms == 0 || ttl_ms > INT64_MAX - now_ms)
        return 0;
    return now_ms + ttl_ms;
}

void view_value_encode(const struct view_value *v, struct buf *out)
{
    uint8_t *at = buf_reserve(out, VALUE_HEAD);
    at[0] = v->deleted ? TAG_TOMBSTONE : TAG_VALUE;
    put_u64(at + 1, v->version.hlc);
    memcpy(at + 9, v->version.log.bytes, sizeof v->version.log.bytes);
    put_u64(at + 25, v->version.lsn);
    put_u64(at + 33, v->expires_ms);
    out->len += VALUE_HEAD;
    buf_append(out, v->value.data, v->value.len);
}

bool view_value_decode(struct slice bytes, struct view_value *out)
{
    const uint8_t *at = bytes.data;
    if (bytes.len < VALUE_HEAD || (at[0] != TAG_VALUE && at[0] != TAG_TOMBSTONE))
        return false;
    *out = (struct view_value){
        .version = {.hlc = get_u64(at + 1), .lsn = get_u64(at + 25)},
        .deleted = at[0] == TAG_TOMBSTONE,
        .expires_ms = get_u64(at + 33),
        .value = slice_of(at + VALUE_HEAD, bytes.len - VALUE_HEAD),
    };
    memcpy(out->version.log.bytes, at + 9, sizeof out->version.log.bytes);
    return true;
}

/* The bytes of the highest version. */
static bool merge_values(const struct slice *existing, const struct slice *changes, size_t count,
                         struct buf *out)
{
    struct view_value best = {0}, other;
    struct slice winner = {0};
    for (size_t i = 0; i < count + 1; i++) {
        const struct slice *next = i == 0 ? existing : &changes[i - 1];
        if (next == NULL)
            continue;
        if (!view_value_decode(*next, &other))
            return false;
        int order = winner.data == NULL ? 1 : view_version_compare(&other.version, &best.version);
        if (order > 0 || (order == 0 && other.deleted && !best.deleted)) {
            winner = *next;
            best = other;
        }
    }
    buf_append(out, winner.data, winner.len);
    return true;
}

/* ---------------------------------------------------------------- counters */

static void sum_encode(const struct view_sum *sum, uint8_t *at)
{
    memcpy(at, sum->log.bytes, sizeof sum->log.bytes);
    put_u64(at + 16, sum->lsn);
    put_u64(at + 24, (uint64_t)sum->sum);
}

static struct view_sum sum_decode(const uint8_t *at)
{
    struct view_sum sum = {.lsn = get_u64(at + 16), .sum = (int64_t)get_u64(at + 24)};
    memcpy(sum.log.bytes, at, sizeof sum.log.bytes);
    return sum;
}

static void encode_sums(uint8_t tag, const struct view_sum *sums, size_t count, struct buf *out)
{
    uint8_t *at = buf_reserve(out, 1 + count * SUM_BYTES);
    out->len += 1 + count * SUM_BYTES;
    *at = tag;
    for (size_t i = 0; i < count; i++)
        sum_encode(&sums[i], at + 1 + i * SUM_BYTES);
}

void view_counter_encode_add(const struct view_sum *add, struct buf *out)
{
    encode_sums(TAG_ADDITIONS, add, 1, out);
}

void view_counter_encode_sums(const struct view_sum *sums, size_t count, struct buf *out)
{
    encode_sums(TAG_SUMS, sums, count, out);
}

bool view_counter_open(struct slice bytes, struct view_counter *counter)
{
    if (bytes.len % SUM_BYTES != 1 || (bytes.data[0] != TAG_SUMS && bytes.data[0] != TAG_ADDITIONS))
        return false;
    *counter = (struct view_counter){.sums = slice_of(bytes.data + 1, bytes.len - 1),
                                     .adds = bytes.data[0] == TAG_ADDITIONS};
    return true;
}

bool view_counter_next(struct view_counter *counter, struct view_sum *out)
{
    if (counter->sums.len == 0)
        return false;
    *out = sum_decode(counter->sums.data);
    counter->sums.data += SUM_BYTES;
    counter->sums.len -= SUM_BYTES;
    return true;
}

static int64_t add_wrapping(int64_t a, int64_t b)
{
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

bool view_counter_total(struct slice bytes, int64_t *total)
{
    struct view_counter counter;
    struct view_sum sum;
    *total = 0;
    if (!view_counter_open(bytes, &counter))
        return false;
    while (view_counter_next(&counter, &sum))
        *total = add_wrapping(*total, sum.sum);
    return true;
}

/* Where the log's sum stands in what is being made, from `start` on; a new one counts nothing yet. */
static uint8_t *sum_of(struct buf *out, size_t start, struct id16 log)
{
    for (size_t at = start; at < out->len; at += SUM_BYTES)
        if (memcmp(out->data + at, log.bytes, sizeof log.bytes) == 0)
            return out->data + at;
    uint8_t *made = buf_reserve(out, SUM_BYTES);
    sum_encode(&(struct view_sum){.log = log}, made);
    out->len += SUM_BYTES;
    return made;
}

static void take_change(struct view_counter *change, struct buf *out, size_t start)
{
    struct view_sum next;
    while (view_counter_next(change, &next)) {
        uint8_t *at = sum_of(out, start, next.log);
        struct view_sum sum = sum_decode(at);
        if (change->adds)
            sum.sum = add_wrapping(sum.sum, next.sum);
        else if (next.lsn > sum.lsn)
            sum.sum = next.sum;
        if (next.lsn > sum.lsn)
            sum.lsn = next.lsn;
        sum_encode(&sum, at);
    }
}

/* Additions alone can be added up before it is known what they are added to: `adds`. */
static bool merge_counters(const struct slice *existing, const struct slice *changes, size_t count, bool adds,
                           struct buf *out)
{
    struct view_counter change;
    encode_sums(adds ? TAG_ADDITIONS : TAG_SUMS, NULL, 0, out);
    size_t start = out->len;
    for (size_t i = 0; i < count + 1; i++) {
        const struct slice *next = i == 0 ? existing : &changes[i - 1];
        if (next == NULL)
            continue;
        if (!view_counter_open(*next, &change) || (adds && !change.adds))
            return false;
        take_change(&change, out, start);
    }
    return true;
}

/* ---------------------------------------------------------------- any row */

bool view_merge(struct slice key, const struct slice *existing, const struct slice *changes, size_t count,
                struct buf *out)
{
    if (key.len == 0 || count == 0)
        return false;
    if (key.data[0] == VIEW_KEY)
        return merge_values(existing, changes, count, out);
    if (key.data[0] == VIEW_COUNTER)
        return merge_counters(existing, changes, count, false, out);
    if (key.data[0] == VIEW_EVENT)
        return view_run_merge(existing, changes, count, out);
    if (key.data[0] == VIEW_STREAM)
        return view_summary_merge(existing, changes, count, false, out);
    if (key.data[0] == VIEW_CURSOR)
        return view_cursor_merge(existing, changes, count, out);
    return false;
}

bool view_merge_changes(struct slice key, const struct slice *changes, size_t count, struct buf *out)
{
    if (key.len == 0 || count == 0)
        return false;
    if (key.data[0] == VIEW_KEY)
        return merge_values(NULL, changes, count, out);
    if (key.data[0] == VIEW_COUNTER)
        return merge_counters(NULL, changes, count, true, out);
    if (key.data[0] == VIEW_EVENT)
        return view_run_merge(NULL, changes, count, out);
    if (key.data[0] == VIEW_STREAM)
        return view_summary_merge(NULL, changes, count, true, out);
    if (key.data[0] == VIEW_CURSOR)
        return view_cursor_merge(NULL, changes, count, out);
    return false;
}
