/* The digest of all rows. Each kind has a function that adds what is the same on all nodes of one row:
 *
 *   XXH3, 128 bits, of each kind's rows in the order of their keys:
 *       bytes of the key (4), key, bytes of the content (4), content
 *   and of these, for each kind that has rows, in the order of their bytes:
 *       kind (1), rows (8), digest (16)
 *
 * Integers are little-endian. Nothing here is fatal. */
#include "view_digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "view_cursor.h"

enum { ROWS_A_LOOK = 4096 };

struct digesting {
    uint64_t at_ms;
    struct view_digest *out;
    struct view_kind_digest *kind; /* that is being added to; NULL: none yet */
    struct digest_state *state;    /* of that kind */
    struct buf content;
};

enum row_use { ROW_COUNTS, ROW_LEFT_OUT, ROW_MALFORMED };

/* ---------------------------------------------------------------- rows of each kind: what counts of them */

/* A tombstone may be tidied away already, and so may what has expired. */
static enum row_use value_content(struct digesting *d, struct slice row)
{
    struct view_value value;
    if (!view_value_decode(row, &value))
        return ROW_MALFORMED;
    if (value.deleted || (value.expires_ms != 0 && value.expires_ms <= d->at_ms))
        return ROW_LEFT_OUT;
    buf_append(&d->content, row.data, row.len);
    return ROW_COUNTS;
}

static int compare_sums(const void *a, const void *b)
{
    const struct view_sum *x = a, *y = b;
    return memcmp(x->log.bytes, y->log.bytes, sizeof x->log.bytes);
}

/* The sums stand in the order in which their logs came. */
static enum row_use counter_content(struct digesting *d, struct slice row)
{
    struct view_sum sums[VIEW_LOGS_MAX];
    struct view_counter counter;
    size_t count = 0;
    if (!view_counter_open(row, &counter))
        return ROW_MALFORMED;
    while (count < VIEW_LOGS_MAX && view_counter_next(&counter, &sums[count]))
        count++;
    if (counter.sums.len > 0)
        return ROW_MALFORMED;
    qsort(sums, count, sizeof *sums, compare_sums);
    view_counter_encode_sums(sums, count, &d->content);
    return ROW_COUNTS;
}

/* The highest epoch, owner and version are the same on all nodes, and so is the position, as its entry has
 * it. Of a deleted cursor there may be nothing left. */
static enum row_use cursor_content(struct digesting *d, struct slice row)
{
    struct view_cursor cursor;
    if (!view_cursor_decode(row, &cursor))
        return ROW_MALFORMED;
    if (cursor.deleted)
        return ROW_LEFT_OUT;
    buf_append(&d->content, row.data, row.len);
    return ROW_COUNTS;
}

static const struct kind_rule {
    uint8_t kind;
    enum row_use (*content)(struct digesting *d, struct slice row);
} rules[] = {
    {VIEW_KEY, value_content},
    {VIEW_COUNTER, counter_content},
    {VIEW_CURSOR, cursor_content},
};

static const struct kind_rule *rule_of(uint8_t kind)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (rules[i].kind == kind)
            return &rules[i];
    return NULL;
}

/* ---------------------------------------------------------------- all rows */

static void add_sized(struct digest_state *state, struct slice bytes)
{
    uint8_t len[4];
    put_u32(len, (uint32_t)bytes.len);
    digest_add(state, slice_of(len, sizeof len));
    digest_add(state, bytes);
}

static void end_kind(struct digesting *d)
{
    if (d->kind == NULL)
        return;
    d->kind->digest = digest_close(d->state);
    d->kind = NULL;
}

static bool begin_kind(struct digesting *d, uint8_t kind)
{
    if (d->kind != NULL && d->kind->kind == kind)
        return true;
    end_kind(d);
    if (d->out->kind_count == VIEW_DIGEST_KINDS)
        return false;
    d->kind = &d->out->kinds[d->out->kind_count++];
    *d->kind = (struct view_kind_digest){.kind = kind};
    d->state = digest_open();
    return true;
}

static bool add_row(struct digesting *d, struct slice key, struct slice row)
{
    const struct kind_rule *rule = rule_of(key.data[0]);
    if (view_is_vector(key))
        return view_vector_decode(row, &d->out->vector);
    if (rule == NULL)
        return true;
    d->content.len = 0;
    enum row_use use = rule->content(d, row);
    if (use != ROW_COUNTS)
        return use == ROW_LEFT_OUT;
    if (!begin_kind(d, rule->kind))
        return false;
    d->kind->rows++;
    add_sized(d->state, key);
    add_sized(d->state, buf_slice(&d->content));
    return true;
}

static struct digest128 all_kinds(const struct view_digest *out)
{
    struct digest_state *state = digest_open();
    for (size_t i = 0; i < out->kind_count; i++) {
        uint8_t head[9] = {out->kinds[i].kind};
        put_u64(head + 1, out->kinds[i].rows);
        digest_add(state, slice_of(head, sizeof head));
        digest_add(state, slice_of(out->kinds[i].digest.bytes, sizeof out->kinds[i].digest.bytes));
    }
    return digest_close(state);
}

static int compare_places(const void *a, const void *b)
{
    const struct view_place *x = a, *y = b;
    return memcmp(x->log.bytes, y->log.bytes, sizeof x->log.bytes);
}

/* By log, without those of which nothing is applied. */
static void order_vector(struct view_vector *vector)
{
    size_t kept = 0;
    for (size_t i = 0; i < vector->count; i++)
        if (vector->all[i].lsn > 0)
            vector->all[kept++] = vector->all[i];
    vector->count = kept;
    qsort(vector->all, kept, sizeof *vector->all, compare_places);
}

enum sh_error view_digest_make(struct view_store *store, uint64_t at_ms, bool (*must_end)(void *arg),
                               void *arg, struct view_digest *out, char error[VIEW_ERROR_MAX])
{
    struct digesting d = {.at_ms = at_ms, .out = out};
    struct view_scan *scan = view_scan_open_all(store);
    struct slice key, row;
    enum sh_error e = SH_OK;
    out->kind_count = out->vector.count = 0;
    for (uint64_t looked = 1; e == SH_OK && view_scan_next(scan, &key, &row, error); looked++) {
        if (!add_row(&d, key, row)) {
            snprintf(error, VIEW_ERROR_MAX, "a row of the view is malformed");
            e = SH_INTERNAL;
        } else if (looked % ROWS_A_LOOK == 0 && must_end(arg)) {
            snprintf(error, VIEW_ERROR_MAX, "the view is being closed");
            e = SH_UNAVAILABLE;
        }
    }
    if (e == SH_OK && error[0] != 0)
        e = SH_INTERNAL;
    view_scan_close(scan);
    end_kind(&d);
    buf_free(&d.content);
    order_vector(&out->vector);
    out->digest = all_kinds(out);
    return e;
}
