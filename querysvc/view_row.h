/* Rows of the view, and how two versions of one become one: whatever order entries come in, all nodes end
 * with the same rows. Pure. docs/view-format.md has the rules and the bytes.
 *
 * A row is written blindly, as a change that is merged when somebody reads it or the database tidies up; so
 * each kind of value here is merged with others of its kind, in any order, any number at a time. */
#ifndef QUERYSVC_VIEW_ROW_H
#define QUERYSVC_VIEW_ROW_H

#include "buf.h"
#include "clock.h"

/* The first byte of a row's key: what it is. */
enum view_kind {
    VIEW_META = 'M',
    VIEW_KEY = 'K',     /* a key's value */
    VIEW_COUNTER = 'C', /* a key's counter */
    VIEW_EVENT = 'E',   /* a run of a stream's events (view_stream.h) */
    VIEW_STREAM = 'S',  /* a stream's summary */
    VIEW_CURSOR = 'U',  /* view_cursor.h */
    VIEW_TIDY = 'T',    /* a value that is to go one day (view_tidy.h) */
};

/* ---- a key's value: the put or delete with the highest version wins; of one version, the tombstone: a view
 * that was merged in (view_merge_in.h) has shown that it is gone ---- */

/* Where it was written; ordered by HLC, then log, then LSN. */
struct view_version {
    uint64_t hlc;
    struct id16 log;
    uint64_t lsn;
};
/* Below, at or above zero. */
int view_version_compare(const struct view_version *a, const struct view_version *b);

struct view_value {
    struct view_version version;
    bool deleted;        /* a tombstone: no value */
    uint64_t expires_ms; /* ms since 1970 from which on it is gone; 0: never */
    struct slice value;  /* borrowed */
};
/* Of a put in a frame of that HLC. Ends where a reading of the clock does, a signed number: a ttl beyond that
 * is as good as none. */
uint64_t view_value_expires_ms(uint64_t hlc, uint64_t ttl_ms);
void view_value_encode(const struct view_value *value, struct buf *out);
/* False: not a value of this format. */
bool view_value_decode(struct slice bytes, struct view_value *out);

/* ---- a counter: one sum for each log, so that each entry counts once ---- */

struct view_sum {
    struct id16 log;
    uint64_t lsn; /* of the last entry that is in the sum */
    int64_t sum;
};
/* An entry that adds. */
void view_counter_encode_add(const struct view_sum *add, struct buf *out);
/* Sums that another view has: of each log the one that goes further counts. */
void view_counter_encode_sums(const struct view_sum *sums, size_t count, struct buf *out);
/* Modulo 2^64, as each sum is. False: not a counter. */
bool view_counter_total(struct slice bytes, int64_t *total);
/* The sums, one after the other. */
struct view_counter {
    struct slice sums; /* that are left */
    bool adds;         /* what is not known yet is added to */
};
/* False: not a counter. */
bool view_counter_open(struct slice bytes, struct view_counter *counter);
bool view_counter_next(struct view_counter *counter, struct view_sum *out);

/* ---- merging ---- */

/* Appends to out what becomes of the row `key` that was `existing` (NULL: it wasn't there) by changes that
 * follow it, in order. False: bytes that are no row's of this kind. */
bool view_merge(struct slice key, const struct slice *existing, const struct slice *changes, size_t count,
                struct buf *out);
/* Makes one change of several, without knowing what was there. False: it can't be done; no harm. */
bool view_merge_changes(struct slice key, const struct slice *changes, size_t count, struct buf *out);

#endif
