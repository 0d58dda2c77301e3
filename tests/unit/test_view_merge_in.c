/* What a member says of its view is looked at before anything of it is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "frame.h"
#include "view_cursor.h"
#include "view_merge_in.h"
#include "view_stream.h"

enum { TAKEN_MAX = 8 };

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static void place(struct view_vector *vector, uint8_t log, uint64_t lsn, uint32_t checksum)
{
    vector->all[vector->count++] =
        (struct view_place){.log = log_of(log), .lsn = lsn, .hlc = lsn, .checksum = checksum};
}

/* ---- vectors ---- */

static void test_the_vector_becomes_the_maximum_of_both(void **state)
{
    (void)state;
    struct view_vector own = {0}, theirs = {0};
    place(&own, 1, 10, 100);
    place(&own, 2, 20, 200);
    place(&theirs, 2, 25, 250);
    place(&theirs, 1, 7, 70);
    place(&theirs, 3, 5, 50);
    assert_int_equal(merge_in_vector(&own, &theirs), SH_OK);
    assert_int_equal(own.count, 3);
    const struct view_place *one = view_place_of(&own, log_of(1)), *two = view_place_of(&own, log_of(2)),
                            *three = view_place_of(&own, log_of(3));
    assert_int_equal(one->lsn, 10);
    assert_false(one->ahead);
    assert_int_equal(two->lsn, 25);
    assert_int_equal(two->checksum, 250);
    assert_true(two->ahead);
    assert_int_equal(three->lsn, 5);
    assert_true(three->ahead);
}

static void test_views_of_different_chains_are_not_merged(void **state)
{
    (void)state;
    struct view_vector own = {0}, theirs = {0};
    place(&own, 1, 10, 100);
    place(&theirs, 2, 5, 50);
    place(&theirs, 1, 10, 101);
    assert_int_equal(merge_in_vector(&own, &theirs), SH_CONFLICT);
    assert_int_equal(own.count, 1);
    theirs.all[1].checksum = 0; /* a loss was passed over there */
    assert_int_equal(merge_in_vector(&own, &theirs), SH_OK);
}

/* Of the frame before the loss there is a checksum, not of the one that ends there. */
static void test_a_view_that_has_passed_over_a_loss_is_of_no_other_chain(void **state)
{
    (void)state;
    struct view_vector own = {0}, theirs = {0};
    place(&own, 1, 10, 100);
    place(&theirs, 1, 12, 120);
    assert_int_equal(view_pass(&own, log_of(1), 12), SH_OK);
    assert_int_equal(merge_in_vector(&own, &theirs), SH_OK);
    place(&own, 2, 10, 100);
    assert_int_equal(view_pass(&own, log_of(2), 10), SH_OK); /* nothing was passed over */
    place(&theirs, 2, 10, 101);
    assert_int_equal(merge_in_vector(&own, &theirs), SH_CONFLICT);
}

static void test_more_logs_than_there_is_room_for(void **state)
{
    (void)state;
    struct view_vector own = {0}, theirs = {0};
    for (unsigned i = 0; i < VIEW_LOGS_MAX; i++)
        place(&own, (uint8_t)i, 1, 1);
    place(&theirs, 1, 9, 9);
    assert_int_equal(merge_in_vector(&own, &theirs), SH_OK);
    struct id16 other = {{1}};
    theirs.all[theirs.count++] = (struct view_place){.log = other, .lsn = 1};
    assert_int_equal(merge_in_vector(&own, &theirs), SH_OVERLOADED);
    assert_int_equal(own.count, VIEW_LOGS_MAX);
}

static void test_who_helps(void **state)
{
    (void)state;
    struct view_vector theirs = {0};
    place(&theirs, 1, 50, 1);
    assert_true(merge_in_helps(&theirs, log_of(1), 10, 51));
    assert_true(merge_in_helps(&theirs, log_of(1), 10, 30));
    assert_false(merge_in_helps(&theirs, log_of(1), 10, 52)); /* an entry would still be lacking */
    assert_false(merge_in_helps(&theirs, log_of(1), 50, 51)); /* it has no more than is here */
    assert_false(merge_in_helps(&theirs, log_of(2), 0, 1));
}

static void test_a_vector_survives_its_bytes_and_nothing_else_is_one(void **state)
{
    (void)state;
    struct view_vector in = {0}, out;
    struct buf row = {0}, bad = {0};
    place(&in, 1, 10, 100);
    place(&in, 2, UINT64_MAX - 1, UINT32_MAX);
    in.all[1].ahead = true;
    view_vector_encode(&in, &row);
    assert_true(view_vector_decode(buf_slice(&row), &out));
    assert_true(view_vector_equal(&in, &out));
    assert_int_equal(out.all[0].checksum, 100);
    assert_false(out.all[0].ahead);
    assert_true(out.all[1].ahead);
    for (size_t len = 0; len < row.len; len++)
        assert_false(view_vector_decode(slice_of(row.data, len), &out));
    buf_append(&row, "", 1);
    assert_false(view_vector_decode(buf_slice(&row), &out));
    in.all[1].log = log_of(1); /* the same log twice */
    view_vector_encode(&in, &bad);
    assert_false(view_vector_decode(buf_slice(&bad), &out));
    bad.len = 0;
    in.count = 1;
    in.all[0].lsn = UINT64_MAX; /* nothing could come behind */
    view_vector_encode(&in, &bad);
    assert_false(view_vector_decode(buf_slice(&bad), &out));
    buf_free(&row);
    buf_free(&bad);
}

/* ---- pieces ---- */

struct piece {
    struct buf bytes;
    struct merge_in in;
    char taken[TAKEN_MAX][64];
    struct buf change[TAKEN_MAX];
    size_t count;
    struct view_vector applied; /* here */
    struct {
        const char *key;
        uint64_t lsn; /* of log 1 */
    } own[TAKEN_MAX];
    size_t own_count, own_at;
    struct buf own_row;
    bool more; /* no piece is the last one */
};

static void begin(struct piece *p)
{
    *p = (struct piece){.more = true};
    place(&p->in.theirs, 1, 10, 1);
    place(&p->in.theirs, 2, 20, 2);
}

static void end(struct piece *p)
{
    buf_free(&p->bytes);
    buf_free(&p->own_row);
    for (size_t i = 0; i < TAKEN_MAX; i++)
        buf_free(&p->change[i]);
    merge_in_free(&p->in);
}

static void add_bytes(struct piece *p, struct slice key, struct slice row)
{
    msgpack_packer pk;
    mp_packer(&pk, &p->bytes);
    mp_pack_bin(&pk, key);
    mp_pack_bin(&pk, row);
}

static void add_value(struct piece *p, const char *key, uint8_t log, uint64_t lsn)
{
    struct buf row = {0};
    view_value_encode(&(struct view_value){.version = {1, log_of(log), lsn}, .value = slice_str("v")}, &row);
    add_bytes(p, slice_str(key), buf_slice(&row));
    buf_free(&row);
}

static void add_counter(struct piece *p, const char *key, uint8_t log, uint64_t lsn)
{
    struct buf row = {0};
    view_counter_encode_sums(&(struct view_sum){log_of(log), lsn, 5}, 1, &row);
    add_bytes(p, slice_str(key), buf_slice(&row));
    buf_free(&row);
}

static bool take(void *arg, struct slice key, struct slice change)
{
    struct piece *p = arg;
    assert_true(change.len > 0 || key.data[0] == VIEW_TIDY);
    assert_in_range(p->count, 0, TAKEN_MAX - 1);
    memcpy(p->taken[p->count], key.data, key.len);
    buf_append(&p->change[p->count++], change.data, change.len);
    return true;
}

static bool next_own(void *arg, struct slice *key, struct slice *row)
{
    struct piece *p = arg;
    if (p->own_at == p->own_count)
        return false;
    p->own_row.len = 0;
    view_value_encode(
        &(struct view_value){.version = {1, log_of(1), p->own[p->own_at].lsn}, .value = slice_str("own")},
        &p->own_row);
    *row = buf_slice(&p->own_row);
    *key = slice_str(p->own[p->own_at++].key);
    return true;
}

static enum sh_error give(struct piece *p)
{
    const struct merge_in_ends ends = {&p->applied, next_own, take, p};
    enum sh_error error = merge_in_piece(&p->in, &ends, buf_slice(&p->bytes), p->more);
    p->bytes.len = 0;
    return error;
}

static void test_rows_are_taken_in_order(void **state)
{
    (void)state;
    struct piece p;
    begin(&p);
    add_counter(&p, "Cb", 1, 10);
    add_value(&p, "Ka", 2, 20);
    assert_int_equal(give(&p), SH_OK);
    add_value(&p, "Kb", 1, 1);
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(give(&p), SH_OK); /* an empty one */
    assert_int_equal(p.count, 3);
    assert_string_equal(p.taken[0], "Cb");
    assert_string_equal(p.taken[2], "Kb");
    assert_int_equal(p.in.rows, 3);
    assert_true(slice_is(buf_slice(&p.in.last), "Kb"));
    end(&p);
}

/* After a good row; nothing of the piece is taken. */
static void refuse(struct piece *p, enum sh_error error)
{
    size_t before = p->count;
    assert_int_equal(give(p), error);
    assert_int_equal(p->count, before);
}

static void test_keys_that_do_not_ascend(void **state)
{
    (void)state;
    struct piece p;
    begin(&p);
    add_value(&p, "Kb", 1, 1);
    assert_int_equal(give(&p), SH_OK);
    add_value(&p, "Kb", 1, 1); /* the same again: a transfer would never end */
    refuse(&p, SH_BAD_REQUEST);
    add_value(&p, "Ka", 1, 1);
    refuse(&p, SH_BAD_REQUEST);
    add_value(&p, "Kd", 1, 1);
    add_value(&p, "Kc", 1, 1);
    refuse(&p, SH_BAD_REQUEST);
    add_value(&p, "Kc", 1, 1);
    assert_int_equal(give(&p), SH_OK);
    end(&p);
}

static void test_rows_that_go_further_than_the_vector(void **state)
{
    (void)state;
    struct piece p;
    begin(&p);
    add_value(&p, "Ka", 1, 1);
    add_value(&p, "Kb", 1, 11);
    refuse(&p, SH_BAD_REQUEST);
    add_value(&p, "Kb", 3, 1); /* of a log that it does not tell */
    refuse(&p, SH_BAD_REQUEST);
    add_counter(&p, "Ca", 2, 21); /* entries up to 20 are applied behind it: they would count twice */
    refuse(&p, SH_BAD_REQUEST);
    add_counter(&p, "Ca", 3, 1);
    refuse(&p, SH_BAD_REQUEST);
    end(&p);
}

static void test_bytes_that_are_no_rows(void **state)
{
    (void)state;
    struct piece p;
    struct buf row = {0};
    char long_key[KEY_MAX + 2];
    begin(&p);
    add_bytes(&p, slice_str("Ka"), slice_str("not a value"));
    refuse(&p, SH_BAD_REQUEST);
    add_bytes(&p, slice_str("Ca"), slice_str(""));
    refuse(&p, SH_BAD_REQUEST);
    view_counter_encode_add(&(struct view_sum){log_of(1), 1, 5}, &row); /* would be added, not compared */
    add_bytes(&p, slice_str("Ca"), buf_slice(&row));
    refuse(&p, SH_BAD_REQUEST);
    row.len = 0;
    view_value_encode(&(struct view_value){.version = {1, log_of(1), 1},
                                           .deleted = true,
                                           .value = slice_str("but a value")},
                      &row);
    add_bytes(&p, slice_str("Ka"), buf_slice(&row));
    refuse(&p, SH_BAD_REQUEST);
    add_bytes(&p, slice_str(""), slice_str(""));
    refuse(&p, SH_BAD_REQUEST);
    add_value(&p, "K", 1, 1); /* of no key */
    refuse(&p, SH_BAD_REQUEST);
    memset(long_key, 'K', sizeof long_key);
    row.len = 0;
    view_value_encode(&(struct view_value){.version = {1, log_of(1), 1}}, &row);
    add_bytes(&p, slice_of(long_key, sizeof long_key), buf_slice(&row));
    refuse(&p, SH_BAD_REQUEST);
    buf_append(&p.bytes, "\xc0", 1);
    refuse(&p, SH_BAD_REQUEST);
    add_value(&p, "Ka", 1, 1);
    p.bytes.len--; /* cut off */
    refuse(&p, SH_BAD_REQUEST);
    buf_free(&row);
    end(&p);
}

static void test_a_kind_of_rows_that_is_not_known(void **state)
{
    (void)state;
    struct piece p;
    begin(&p);
    add_value(&p, "Ka", 1, 1);
    add_bytes(&p, slice_str("\xffx"), slice_str("?"));
    refuse(&p, SH_VERSION_MISMATCH);
    add_bytes(&p, slice_str("Mapplied"), slice_str("?")); /* about the view itself */
    refuse(&p, SH_VERSION_MISMATCH);
    end(&p);
}

static struct slice run_key(struct buf *out, uint8_t log, uint64_t lsn)
{
    view_run_key(slice_str("s"), log_of(log), lsn, out);
    return buf_slice(out);
}

static void add_run(struct piece *p, uint8_t log, uint64_t lsn, uint32_t count, uint64_t arrival)
{
    struct buf key = {0}, row = {0};
    view_run_encode(&(struct view_run){.count = count, .arrival = arrival, .hlc = 1}, &row);
    add_bytes(p, run_key(&key, log, lsn), buf_slice(&row));
    buf_free(&key);
    buf_free(&row);
}

static void add_summary(struct piece *p, const struct view_part *parts, size_t count)
{
    struct buf row = {0};
    view_summary_encode(parts, count, &row);
    add_bytes(p, slice_str("Ss"), buf_slice(&row));
    buf_free(&row);
}

/* Log 1 goes further there, log 2 here. */
static void test_events_come_behind_those_that_are_here(void **state)
{
    (void)state;
    struct piece p;
    struct view_run run;
    struct view_summary summary;
    struct view_part part;
    const struct view_part parts[] = {{.log = log_of(1), .lsn = 10, .count = 3},
                                      {.log = log_of(2), .lsn = 5, .count = 1}};
    begin(&p);
    p.in.theirs.arrivals = 100;
    p.in.arrivals = 1000;
    place(&p.applied, 1, 4, 1);
    place(&p.applied, 2, 20, 1);
    add_run(&p, 1, 1, 2, 7); /* counted in the part, and perhaps trimmed here before */
    add_run(&p, 1, 10, 1, 9);
    add_run(&p, 2, 5, 1, 8);
    add_summary(&p, parts, 2);
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(p.count, 3);
    assert_true(slice_is(buf_slice(&p.in.last), "Ss"));
    assert_true(view_run_decode(buf_slice(&p.change[0]), &run));
    assert_int_equal(run.arrival, 1007);
    assert_true(view_run_decode(buf_slice(&p.change[1]), &run));
    assert_int_equal(run.arrival, 1009);
    assert_true(view_summary_open(buf_slice(&p.change[2]), &summary));
    assert_true(view_summary_next(&summary, &part));
    assert_true(id16_equal(part.log, log_of(1)));
    assert_false(view_summary_next(&summary, &part));
    end(&p);
}

static void add_cursor(struct piece *p, const char *key, uint8_t log, uint64_t lsn)
{
    struct buf row = {0};
    view_cursor_encode(&(struct view_cursor){.epoch = 1, .version = {1, log_of(log), lsn}}, &row);
    add_bytes(p, slice_str(key), buf_slice(&row));
    buf_free(&row);
}

static void test_cursors_and_what_is_to_be_tidied_up(void **state)
{
    (void)state;
    struct piece p;
    static const char tidy[] = "T12345678Kk";
    begin(&p);
    place(&p.applied, 1, 5, 1);
    add_bytes(&p, slice_str(tidy), slice_str(""));
    add_cursor(&p, "Ua", 1, 5);
    add_cursor(&p, "Ub", 1, 6);
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(p.count, 2);
    assert_string_equal(p.taken[0], tidy);
    assert_string_equal(p.taken[1], "Ub");
    add_cursor(&p, "Uc", 1, 11);
    refuse(&p, SH_BAD_REQUEST);
    add_bytes(&p, slice_str("Uc"), slice_str("?"));
    refuse(&p, SH_BAD_REQUEST);
    end(&p);
    begin(&p);
    add_bytes(&p, slice_str("T12345678K"), slice_str(""));
    refuse(&p, SH_BAD_REQUEST);
    add_bytes(&p, slice_str(tidy), slice_str("?"));
    refuse(&p, SH_BAD_REQUEST);
    end(&p);
}

static void test_the_empty_stream_is_one_too(void **state)
{
    (void)state;
    struct piece p;
    struct buf key = {0}, row = {0};
    begin(&p);
    p.in.theirs.arrivals = 1;
    view_run_encode(&(struct view_run){.count = 1}, &row);
    view_run_key((struct slice){0}, log_of(1), 1, &key);
    add_bytes(&p, buf_slice(&key), buf_slice(&row));
    row.len = 0;
    view_summary_encode(&(struct view_part){.log = log_of(1), .lsn = 1, .count = 1}, 1, &row);
    add_bytes(&p, slice_str("S"), buf_slice(&row));
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(p.count, 2);
    buf_free(&key);
    buf_free(&row);
    end(&p);
}

static void test_events_that_go_further_than_the_vector(void **state)
{
    (void)state;
    struct piece p;
    struct buf key = {0}, row = {0};
    const struct view_part further = {.log = log_of(1), .lsn = 11, .count = 1},
                           other = {.log = log_of(3), .lsn = 1, .count = 1},
                           gone = {.log = log_of(1), .lsn = 5, .count = 1, .gone_lsn = 6};
    begin(&p);
    p.in.theirs.arrivals = 100;
    add_run(&p, 1, 10, 2, 1);
    refuse(&p, SH_BAD_REQUEST);
    add_run(&p, 3, 1, 1, 1);
    refuse(&p, SH_BAD_REQUEST);
    add_run(&p, 1, 1, 1, 101); /* a number that it has not given */
    refuse(&p, SH_BAD_REQUEST);
    add_run(&p, 1, UINT64_MAX, 2, 1);
    refuse(&p, SH_BAD_REQUEST);
    add_run(&p, 1, 1, 0, 1);
    refuse(&p, SH_BAD_REQUEST);
    view_run_encode(&(struct view_run){.count = 1}, &row);
    run_key(&key, 1, 1);
    add_bytes(&p, slice_of(key.data, key.len - 1), buf_slice(&row));
    refuse(&p, SH_BAD_REQUEST);
    const struct view_part *parts[] = {&further, &other, &gone};
    for (size_t i = 0; i < 3; i++) {
        add_summary(&p, parts[i], 1);
        refuse(&p, SH_BAD_REQUEST);
    }
    row.len = 0;
    view_summary_encode_add(&(struct view_part){.log = log_of(1), .lsn = 1, .count = 1}, &row);
    add_bytes(&p, slice_str("Ss"), buf_slice(&row));
    refuse(&p, SH_BAD_REQUEST);
    buf_free(&key);
    buf_free(&row);
    end(&p);
}

static bool take_none(void *arg, struct slice key, struct slice change)
{
    (void)arg;
    (void)key;
    (void)change;
    return false;
}

static void test_a_row_that_cannot_be_written_ends_it(void **state)
{
    (void)state;
    struct piece p;
    begin(&p);
    add_value(&p, "Ka", 1, 1);
    const struct merge_in_ends ends = {&p.applied, next_own, take_none, &p};
    assert_int_equal(merge_in_piece(&p.in, &ends, buf_slice(&p.bytes), true), SH_INTERNAL);
    end(&p);
}

static void test_what_is_applied_here_is_not_taken(void **state)
{
    (void)state;
    struct piece p;
    struct buf row = {0};
    const struct view_sum both[] = {{log_of(1), 5, 1}, {log_of(2), 20, 1}};
    begin(&p);
    place(&p.applied, 1, 5, 1);
    add_counter(&p, "Ca", 1, 5);
    add_counter(&p, "Cb", 1, 6);
    view_counter_encode_sums(both, 2, &row);
    add_bytes(&p, slice_str("Cc"), buf_slice(&row));
    add_value(&p, "Ka", 1, 5); /* it isn't here: it was deleted, and the tombstone has gone */
    add_value(&p, "Kb", 1, 6);
    add_value(&p, "Kc", 2, 1);
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(p.count, 4);
    assert_string_equal(p.taken[0], "Cb");
    assert_string_equal(p.taken[1], "Cc");
    assert_string_equal(p.taken[2], "Kb");
    assert_string_equal(p.taken[3], "Kc");
    assert_int_equal(p.in.rows, 6);
    assert_true(slice_is(buf_slice(&p.in.last), "Kc"));
    buf_free(&row);
    end(&p);
}

static void own(struct piece *p, const char *key, uint64_t lsn)
{
    p->own[p->own_count].key = key;
    p->own[p->own_count++].lsn = lsn;
}

/* The peer has applied their puts, and has nothing of them: they were deleted. */
static void test_values_that_a_peer_has_no_more_go(void **state)
{
    (void)state;
    struct piece p;
    begin(&p);
    place(&p.applied, 1, 12, 1);
    own(&p, "Ca", 1); /* counters stay */
    own(&p, "Ka", 10);
    own(&p, "Kb", 11); /* the peer has not come so far */
    own(&p, "Kc", 1);
    own(&p, "Kx", 1);
    add_value(&p, "Kb0", 2, 1);
    add_value(&p, "Kc", 2, 1);
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(p.count, 3);
    assert_string_equal(p.taken[0], "Ka");
    assert_string_equal(p.taken[1], "Kb0");
    assert_string_equal(p.taken[2], "Kc");
    p.more = false; /* the last piece: nothing comes behind */
    p.own_at = 4;
    assert_int_equal(give(&p), SH_OK);
    assert_int_equal(p.count, 4);
    assert_string_equal(p.taken[3], "Kx");
    end(&p);
}

static void test_a_digest_is_of_one_piece_of_one_checkpoint(void **state)
{
    (void)state;
    struct digest128 digest = merge_in_digest(7, slice_str("Ka"), slice_str("rows"));
    assert_true(digest_equal(digest, merge_in_digest(7, slice_str("Ka"), slice_str("rows"))));
    assert_false(digest_equal(digest, merge_in_digest(8, slice_str("Ka"), slice_str("rows"))));
    assert_false(digest_equal(digest, merge_in_digest(7, slice_str("Kb"), slice_str("rows"))));
    assert_false(digest_equal(digest, merge_in_digest(7, slice_str("Ka"), slice_str("row"))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_vector_becomes_the_maximum_of_both),
        cmocka_unit_test(test_views_of_different_chains_are_not_merged),
        cmocka_unit_test(test_a_view_that_has_passed_over_a_loss_is_of_no_other_chain),
        cmocka_unit_test(test_more_logs_than_there_is_room_for),
        cmocka_unit_test(test_who_helps),
        cmocka_unit_test(test_a_vector_survives_its_bytes_and_nothing_else_is_one),
        cmocka_unit_test(test_rows_are_taken_in_order),
        cmocka_unit_test(test_keys_that_do_not_ascend),
        cmocka_unit_test(test_rows_that_go_further_than_the_vector),
        cmocka_unit_test(test_bytes_that_are_no_rows),
        cmocka_unit_test(test_a_kind_of_rows_that_is_not_known),
        cmocka_unit_test(test_events_come_behind_those_that_are_here),
        cmocka_unit_test(test_cursors_and_what_is_to_be_tidied_up),
        cmocka_unit_test(test_the_empty_stream_is_one_too),
        cmocka_unit_test(test_events_that_go_further_than_the_vector),
        cmocka_unit_test(test_a_row_that_cannot_be_written_ends_it),
        cmocka_unit_test(test_what_is_applied_here_is_not_taken),
        cmocka_unit_test(test_values_that_a_peer_has_no_more_go),
        cmocka_unit_test(test_a_digest_is_of_one_piece_of_one_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
