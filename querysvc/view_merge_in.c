/* Taking rows of a peer. Nothing here is fatal. */
#include "view_merge_in.h"

#include <string.h>

#include "bytes.h"
#include "frame.h"
#include "view_cursor.h"
#include "view_stream.h"

void merge_in_free(struct merge_in *in)
{
    buf_free(&in->last);
    buf_free(&in->change);
    *in = (struct merge_in){0};
}

/* ---------------------------------------------------------------- vectors */

enum sh_error merge_in_vector(struct view_vector *own, const struct view_vector *theirs)
{
    size_t more = 0;
    for (size_t i = 0; i < theirs->count; i++) {
        const struct view_place *place = &theirs->all[i], *here = view_place_of(own, place->log);
        more += here == NULL;
        if (here != NULL && here->lsn == place->lsn && here->checksum != 0 && place->checksum != 0 &&
            here->checksum != place->checksum)
            return SH_CONFLICT;
    }
    if (own->count + more > VIEW_LOGS_MAX)
        return SH_OVERLOADED;
    for (size_t i = 0; i < theirs->count; i++) {
        struct view_place *here = view_place_add(own, theirs->all[i].log);
        if (here->lsn >= theirs->all[i].lsn)
            continue;
        *here = theirs->all[i];
        here->ahead = true;
    }
    return SH_OK;
}

bool merge_in_helps(const struct view_vector *theirs, struct id16 log, uint64_t applied, uint64_t first)
{
    const struct view_place *place = view_place_of(theirs, log);
    return place != NULL && place->lsn > applied && place->lsn + 1 >= first;
}

/* ---------------------------------------------------------------- kinds of rows */

enum taken { TAKEN_BAD, TAKEN_NOT, TAKEN };

static bool covers(const struct view_vector *vector, struct id16 log, uint64_t lsn)
{
    const struct view_place *place = view_place_of(vector, log);
    return place != NULL && lsn <= place->lsn;
}

/* An entry that is applied here is in the own row, or another one has taken its place, of which perhaps
 * nothing is left. */
static enum taken take_value(struct merge_in *in, const struct view_vector *own, struct slice key,
                             struct slice *row)
{
    (void)key;
    struct view_value value;
    if (!view_value_decode(*row, &value) || !covers(&in->theirs, value.version.log, value.version.lsn) ||
        (value.deleted && value.value.len > 0))
        return TAKEN_BAD;
    return covers(own, value.version.log, value.version.lsn) ? TAKEN_NOT : TAKEN;
}

static enum taken take_counter(struct merge_in *in, const struct view_vector *own, struct slice key,
                               struct slice *row)
{
    (void)key;
    struct view_counter counter;
    struct view_sum sum;
    enum taken taken = TAKEN_NOT;
    if (!view_counter_open(*row, &counter) || counter.adds)
        return TAKEN_BAD;
    while (view_counter_next(&counter, &sum)) {
        if (!covers(&in->theirs, sum.log, sum.lsn))
            return TAKEN_BAD;
        taken = covers(own, sum.log, sum.lsn) ? taken : TAKEN;
    }
    return taken;
}

/* All of the log, or nothing: its part of the summary counts all that the peer has rows of. */
static bool is_wanted(const struct merge_in *in, const struct view_vector *own, struct id16 log)
{
    return !covers(own, log, view_place_of(&in->theirs, log)->lsn);
}

/* Numbered behind what was numbered here when the first row came. */
static enum taken take_run(struct merge_in *in, const struct view_vector *own, struct slice key,
                           struct slice *row)
{
    struct view_run run;
    struct id16 log;
    if (!view_run_key_decode(key, &log, &run.lsn) || !view_run_decode(*row, &run) ||
        run.lsn > UINT64_MAX - run.count || !covers(&in->theirs, log, run.lsn + run.count - 1) ||
        run.arrival > in->theirs.arrivals)
        return TAKEN_BAD;
    in->change.len = 0;
    view_run_shift(*row, in->arrivals, &in->change);
    *row = buf_slice(&in->change);
    return is_wanted(in, own, log) ? TAKEN : TAKEN_NOT;
}

/* Of the logs whose runs are taken. */
static enum taken take_summary(struct merge_in *in, const struct view_vector *own, struct slice key,
                               struct slice *row)
{
    struct view_summary summary;
    struct view_part part, parts[VIEW_LOGS_MAX];
    size_t count = 0, looked = 0;
    (void)key;
    if (!view_summary_open(*row, &summary) || summary.adds)
        return TAKEN_BAD;
    for (; view_summary_next(&summary, &part); looked++) {
        if (looked == VIEW_LOGS_MAX || !covers(&in->theirs, part.log, part.lsn) || part.gone_lsn > part.lsn)
            return TAKEN_BAD;
        if (is_wanted(in, own, part.log))
            parts[count++] = part;
    }
    in->change.len = 0;
    view_summary_encode(parts, count, &in->change);
    *row = buf_slice(&in->change);
    return count > 0 ? TAKEN : TAKEN_NOT;
}

static enum taken take_cursor(struct merge_in *in, const struct view_vector *own, struct slice key,
                              struct slice *row)
{
    struct view_cursor cursor;
    (void)key;
    if (!view_cursor_decode(*row, &cursor) || !covers(&in->theirs, cursor.version.log, cursor.version.lsn))
        return TAKEN_BAD;
    return covers(own, cursor.version.log, cursor.version.lsn) ? TAKEN_NOT : TAKEN;
}

/* By which the peer's tombstones, and values with a ttl, are found when they are to go. */
static enum taken take_tidy(struct merge_in *in, const struct view_vector *own, struct slice key,
                            struct slice *row)
{
    (void)in;
    (void)own;
    (void)key;
    return row->len == 0 ? TAKEN : TAKEN_BAD;
}

/* The same version, deleted: what is put here meanwhile has a higher one. */
static bool lose_value(const struct merge_in *in, struct slice row, struct buf *change)
{
    struct view_value value;
    if (!view_value_decode(row, &value) || value.deleted ||
        !covers(&in->theirs, value.version.log, value.version.lsn))
        return false;
    value.deleted = true;
    value.expires_ms = 0;
    value.value = (struct slice){0};
    view_value_encode(&value, change);
    return true;
}

/* What a view's rows are. Rows about the view itself stay there. */
static const struct kind {
    uint8_t kind;
    size_t key_min, key_max; /* bytes behind the kind */
    /* TAKEN_BAD: not a row of this kind, or one that goes further than the vector tells. TAKEN: *row is the
     * change, which may be made anew in in->change. */
    enum taken (*take)(struct merge_in *in, const struct view_vector *own, struct slice key,
                       struct slice *row);
    /* An own row that the peer has not: true, and a change, when it is to go. NULL: such rows stay. */
    bool (*lose)(const struct merge_in *in, struct slice row, struct buf *change);
} kinds[] = {
    {VIEW_COUNTER, 1, KEY_MAX, take_counter, NULL},
    {VIEW_EVENT, 1, 1 + STREAM_NAME_MAX + sizeof(struct id16) + sizeof(uint64_t), take_run, NULL},
    {VIEW_KEY, 1, KEY_MAX, take_value, lose_value},
    {VIEW_STREAM, 0, STREAM_NAME_MAX, take_summary, NULL},
    {VIEW_TIDY, sizeof(uint64_t) + 2, sizeof(uint64_t) + 1 + KEY_MAX, take_tidy, NULL},
    {VIEW_CURSOR, 1, CURSOR_NAME_MAX, take_cursor, NULL},
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };
_Static_assert((int)KEY_MAX < (int)MERGE_IN_KEY_MAX, "a piece's first row can be asked for");

static const struct kind *kind_of(struct slice key)
{
    for (size_t i = 0; i < KINDS && key.len > 0; i++)
        if (kinds[i].kind == key.data[0])
            return &kinds[i];
    return NULL;
}

/* ---------------------------------------------------------------- pieces */

static int compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.data, b.data, len) : 0;
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static bool next_row(struct mp *m, struct slice *key, struct slice *row)
{
    return mp_bin(m, key) && mp_bin(m, row);
}

static enum sh_error check_piece(struct merge_in *in, const struct view_vector *own, struct slice rows)
{
    struct mp m = mp_of(rows);
    struct slice last = buf_slice(&in->last), key, row;
    while (!mp_at_end(&m)) {
        if (!next_row(&m, &key, &row) || compare(key, last) <= 0)
            return SH_BAD_REQUEST;
        const struct kind *kind = kind_of(key);
        if (kind == NULL)
            return SH_VERSION_MISMATCH;
        if (key.len - 1 < kind->key_min || key.len - 1 > kind->key_max ||
            kind->take(in, own, key, &row) == TAKEN_BAD)
            return SH_BAD_REQUEST;
        last = key;
    }
    return SH_OK;
}

/* Own rows, beside those of the piece. */
struct beside {
    struct slice key, row;
    bool ended;
};

static void own_next(struct beside *own, const struct merge_in_ends *ends)
{
    own->ended = own->ended || !ends->next_own(ends->arg, &own->key, &own->row);
}

/* Those before `to` (NULL: all) are not in the peer's view. */
static bool lose_before(struct beside *own, struct merge_in *in, const struct merge_in_ends *ends,
                        const struct slice *to)
{
    for (; !own->ended && (to == NULL || compare(own->key, *to) < 0); own_next(own, ends)) {
        const struct kind *kind = kind_of(own->key);
        in->change.len = 0;
        if (kind != NULL && kind->lose != NULL && kind->lose(in, own->row, &in->change) &&
            !ends->take(ends->arg, own->key, buf_slice(&in->change)))
            return false;
    }
    return true;
}

static bool take_row(struct merge_in *in, struct beside *own, const struct merge_in_ends *ends,
                     struct slice key, struct slice row)
{
    if (!lose_before(own, in, ends, &key))
        return false;
    if (!own->ended && compare(own->key, key) == 0)
        own_next(own, ends);
    in->rows++;
    in->bytes += key.len + row.len;
    if (kind_of(key)->take(in, ends->own, key, &row) == TAKEN && !ends->take(ends->arg, key, row))
        return false;
    in->last.len = 0;
    buf_append(&in->last, key.data, key.len);
    return true;
}

enum sh_error merge_in_piece(struct merge_in *in, const struct merge_in_ends *ends, struct slice rows,
                             bool more)
{
    struct mp m = mp_of(rows);
    struct beside own = {0};
    struct slice key, row;
    enum sh_error error = check_piece(in, ends->own, rows);
    bool good = error == SH_OK;
    if (good)
        own_next(&own, ends);
    while (good && !mp_at_end(&m)) {
        next_row(&m, &key, &row);
        good = take_row(in, &own, ends, key, row);
    }
    if (good && !more)
        good = lose_before(&own, in, ends, NULL);
    return error != SH_OK ? error : good ? SH_OK : SH_INTERNAL;
}

struct digest128 merge_in_digest(uint64_t id, struct slice behind, struct slice rows)
{
    struct digest_state *state = digest_open();
    uint8_t number[sizeof id];
    put_u64(number, id);
    digest_add(state, slice_of(number, sizeof number));
    digest_add(state, behind);
    digest_add(state, rows);
    return digest_close(state);
}
