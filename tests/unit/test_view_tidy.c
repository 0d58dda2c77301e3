/* Tombstones and expired values: when they may go, and what is left of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "clock_frame.h"
#include "frame.h"
#include "hlc.h"
#include "view_tidy.h"
#include "wal_rig.h"

static const struct view_store_options small = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};
static char dir[PATH_MAX], error[VIEW_ERROR_MAX];
static struct view_store *store;
static struct view_clocks clocks;
static struct view_vector vector;
static struct view_group group;

enum { LATE_MS = 1000000 };

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static int setup(void **state)
{
    (void)state;
    vector.count = 0;
    group = (struct view_group){.known = true};
    rig_make_dir(dir);
    store = view_store_open(dir, &small, error);
    assert_non_null(store);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    view_clocks_free(&clocks);
    view_store_close(store);
    rig_remove_dir(dir);
    return 0;
}

/* ---- frames ---- */

static void system_frame(struct buf *out, enum frame_kind kind, uint64_t base_lsn, uint64_t hlc,
                         struct slice body)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_header h = {
        .kind = kind, .body_bytes = (uint32_t)body.len, .base_lsn = base_lsn, .hlc = hlc};
    frame_encode(&h, 0, body, header);
    buf_append(out, header, sizeof header);
    buf_append(out, body.data, body.len);
}

/* One that says it has applied so far, and counts logs 1 to `logs`. */
static void clock_frame(struct buf *out, uint64_t base_lsn, uint64_t hlc, uint64_t applied, uint8_t logs)
{
    struct buf list = {0}, body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &list);
    msgpack_pack_array(&pk, logs);
    for (uint8_t i = 1; i <= logs; i++)
        mp_pack_bin(&pk, slice_of(log_of(i).bytes, sizeof log_of(i).bytes));
    assert_true(clock_frame_encode(applied, buf_slice(&list), &body));
    system_frame(out, FRAME_CLOCK, base_lsn, hlc, buf_slice(&body));
    buf_free(&list);
    buf_free(&body);
}

/* The next frame of that log is a clock frame, and was taken. */
static void take(uint8_t log, uint64_t hlc, uint64_t applied, uint8_t logs)
{
    struct buf frames = {0};
    const struct view_place *place = view_place_of(&vector, log_of(log));
    clock_frame(&frames, (place != NULL ? place->lsn : 0) + 1, hlc, applied, logs);
    view_clocks_take(&clocks, &vector, log_of(log), buf_slice(&frames), 0);
    buf_free(&frames);
}

static void applied(uint8_t log, uint64_t lsn, uint64_t hlc)
{
    for (size_t i = 0; i < vector.count; i++)
        if (id16_equal(vector.all[i].log, log_of(log))) {
            vector.all[i].lsn = lsn;
            vector.all[i].hlc = hlc;
            return;
        }
    vector.all[vector.count++] = (struct view_place){.log = log_of(log), .lsn = lsn, .hlc = hlc};
}

static void member(uint8_t log)
{
    group.all[group.count++] = (struct view_group_log){.log = log_of(log), .is_member = true};
}

static uint64_t horizon(void)
{
    return view_tidy_horizon(&group, &clocks, &vector, LATE_MS, 0);
}

/* ---- the horizon ---- */

static void test_the_least_of_what_all_say_counts(void **state)
{
    (void)state;
    for (uint8_t i = 1; i <= 3; i++) {
        member(i);
        applied(i, 10, 100);
        take(i, 200 + i, 90 + i, 3);
    }
    assert_int_equal(horizon(), 91);
    take(1, 300, 95, 3);
    assert_int_equal(horizon(), 92);
    take(2, 300, 1000, 3);
    take(3, 300, 1000, 3);
    take(1, 301, 1000, 3);
    assert_int_equal(horizon(), 300); /* we have not seen more of 2 and 3 */
    applied(2, 11, 400);
    assert_int_equal(horizon(), 300);
    applied(3, 11, 400);
    assert_int_equal(horizon(), 301);
}

static void test_nothing_goes_while_somebody_says_nothing(void **state)
{
    (void)state;
    member(1);
    take(1, 200, 150, 1);
    assert_int_equal(horizon(), 150);
    member(2);
    assert_int_equal(horizon(), 0);
    applied(2, 1, 500);
    assert_int_equal(horizon(), 0);
    take(2, 600, 140, 2);
    assert_int_equal(horizon(), 140);
    group.known = false;
    assert_int_equal(horizon(), 0);
    group = (struct view_group){.known = true};
    assert_int_equal(horizon(), 0);
}

static void test_what_is_young_is_kept(void **state)
{
    (void)state;
    member(1);
    take(1, hlc_of_ms(LATE_MS), hlc_of_ms(LATE_MS), 1);
    assert_int_equal(view_tidy_horizon(&group, &clocks, &vector, 5000, 1000), hlc_of_ms(4000));
    assert_int_equal(view_tidy_horizon(&group, &clocks, &vector, 5000, 6000), 0);
}

static void test_a_log_that_another_member_counts_must_be_known(void **state)
{
    (void)state;
    member(1);
    member(2);
    take(1, 200, 150, 2);
    take(2, 200, 150, 3); /* it has met a third one */
    assert_int_equal(horizon(), 0);
    applied(3, 7, 10); /* met here, too, and not there any more */
    assert_int_equal(horizon(), 150);
}

static void test_a_closed_log_counts_until_it_is_applied(void **state)
{
    (void)state;
    member(1);
    take(1, 200, 150, 2);
    group.all[group.count++] = (struct view_group_log){.log = log_of(2), .is_closed = true, .closed_lsn = 10};
    assert_int_equal(horizon(), 0);
    applied(2, 9, 30);
    assert_int_equal(horizon(), 30);
    applied(2, 10, 31);
    assert_int_equal(horizon(), 150);
    group.all[1].is_closed = false; /* its node has left, and it is not known to end there */
    assert_int_equal(horizon(), 31);
}

static void test_a_clock_frame_counts_when_all_before_it_is_applied(void **state)
{
    (void)state;
    struct buf frames = {0};
    applied(1, 4, 40);
    clock_frame(&frames, 5, 50, 45, 1);
    clock_frame(&frames, 6, 60, 55, 1); /* behind LSN 5 */
    view_clocks_take(&clocks, &vector, log_of(1), buf_slice(&frames), 1234);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->hlc, 50);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->applied, 45);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->end, 0);
    applied(1, 5, 52);
    view_clocks_take(&clocks, &vector, log_of(1), buf_slice(&frames), 1234);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->hlc, 60);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->end, 1234);
    frames.len = 0;
    system_frame(&frames, FRAME_CLOCK, 6, 70, slice_str("garbage")); /* its HLC is good */
    system_frame(&frames, FRAME_CHECKPOINT, 6, 80, slice_str(""));
    view_clocks_take(&clocks, &vector, log_of(1), buf_slice(&frames), 2000);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->hlc, 70);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->applied, 55);
    buf_free(&frames);
}

static void test_a_clock_frame_is_asked_for_when_it_helps(void **state)
{
    (void)state;
    applied(1, 1, 100);
    assert_true(view_tidy_needs_clock(&clocks, &vector, log_of(1), 101, 0)); /* others wait for its HLC */
    assert_false(view_tidy_needs_clock(&clocks, &vector, log_of(1), 90, 80));
    assert_true(view_tidy_needs_clock(&clocks, &vector, log_of(1), 90, 90)); /* and for what it says */
    take(1, 200, 90, 1);
    assert_false(view_tidy_needs_clock(&clocks, &vector, log_of(1), 90, 95));
    assert_false(view_tidy_needs_clock(&clocks, &vector, log_of(1), 150, 149));
    assert_true(view_tidy_needs_clock(&clocks, &vector, log_of(1), 150, 150));
}

static void test_clocks_are_kept_with_the_rows(void **state)
{
    (void)state;
    assert_int_equal(view_clocks_load(store, &clocks, error), VIEW_NOT_FOUND);
    take(1, 200, 150, 2);
    take(9, 300, 250, 0);
    view_clocks_store(store, &clocks);
    assert_true(view_store_write(store, error));
    view_clocks_free(&clocks);
    assert_int_equal(view_clocks_load(store, &clocks, error), VIEW_FOUND);
    assert_int_equal(clocks.count, 2);
    assert_int_equal(view_clock_of(&clocks, log_of(1))->applied, 150);
    assert_int_equal(view_clock_of(&clocks, log_of(9))->hlc, 300);
    member(1);
    assert_int_equal(horizon(), 0); /* it counts log 2 */
    member(2);
    take(2, 200, 150, 2);
    assert_int_equal(horizon(), 150);
    view_store_put(store, slice_str("Mclocks"), slice_str("garbage"));
    assert_true(view_store_write(store, error));
    assert_int_equal(view_clocks_load(store, &clocks, error), VIEW_NOT_FOUND);
    assert_int_equal(clocks.count, 0);
}

/* ---- rows ---- */

static void change(const char *key, uint64_t hlc, const char *text, uint64_t expires)
{
    struct buf name = {0}, row = {0};
    const struct view_value v = {.version = {.hlc = hlc, .log = log_of(1), .lsn = hlc},
                                 .deleted = text == NULL,
                                 .expires_ms = expires,
                                 .value = slice_str(text != NULL ? text : "")};
    view_value_encode(&v, &row);
    view_key_row(VIEW_KEY, slice_str(key), &name);
    view_store_change(store, buf_slice(&name), buf_slice(&row));
    view_tidy_note(store, &v, buf_slice(&name));
    assert_true(view_store_write(store, error));
    buf_free(&name);
    buf_free(&row);
}

/* Rows of a kind; with a key that begins like that. */
static size_t rows_of(enum view_kind kind, const char *key)
{
    struct buf from = {0}, to = {0};
    struct slice name, row;
    size_t count = 0;
    view_key_row(kind, slice_str(key), &from);
    view_prefix_end(buf_slice(&from), &to);
    struct view_scan *scan = view_scan_open(store, buf_slice(&from), buf_slice(&to));
    while (view_scan_next(scan, &name, &row, error))
        count++;
    view_scan_close(scan);
    buf_free(&from);
    buf_free(&to);
    return count;
}

static size_t drop(uint64_t up_to)
{
    size_t rows;
    bool more;
    assert_true(view_tidy_drop(store, 0, up_to, 1000, &rows, &more, error));
    assert_false(more);
    return rows;
}

static uint64_t oldest(void)
{
    uint64_t hlc = 0;
    bool none;
    assert_true(view_tidy_oldest(store, 0, &hlc, &none, error));
    return none ? 0 : hlc;
}

static void test_a_tombstone_goes_up_to_the_horizon(void **state)
{
    (void)state;
    change("a", 10, "1", 0);
    change("a", 20, NULL, 0);
    change("b", 30, NULL, 0);
    change("c", 5, "stays", 0);
    assert_int_equal(oldest(), 20);
    assert_int_equal(drop(19), 0);
    assert_int_equal(rows_of(VIEW_KEY, ""), 3);
    assert_int_equal(drop(20), 1);
    assert_int_equal(rows_of(VIEW_KEY, "a"), 0);
    assert_int_equal(oldest(), 30);
    assert_int_equal(view_tidy_tidied(store, error), 20);
    assert_int_equal(drop(UINT64_MAX), 1);
    assert_int_equal(oldest(), 0);
    assert_int_equal(rows_of(VIEW_KEY, ""), 1);
    assert_int_equal(rows_of(VIEW_TIDY, ""), 0);
}

/* All that was applied before, in whatever file it stands, goes with the row. */
static void test_an_older_put_that_came_later_does_not_come_back(void **state)
{
    (void)state;
    change("a", 20, NULL, 0);
    assert_true(view_store_flush(store, error));
    change("a", 10, "late", 0);
    assert_int_equal(drop(20), 1);
    assert_int_equal(rows_of(VIEW_KEY, "a"), 0);
    assert_true(view_store_flush(store, error));
    assert_int_equal(rows_of(VIEW_KEY, "a"), 0);
    change("a", 30, "new", 0);
    assert_int_equal(rows_of(VIEW_KEY, "a"), 1);
}

static void test_a_value_that_came_after_the_delete_stays(void **state)
{
    (void)state;
    change("a", 20, NULL, 0);
    change("a", 25, "again", 0);
    assert_int_equal(drop(30), 0);
    assert_int_equal(rows_of(VIEW_KEY, "a"), 1);
    assert_int_equal(rows_of(VIEW_TIDY, ""), 0);
    change("a", 40, NULL, 0);
    change("a", 50, NULL, 0);
    assert_int_equal(drop(40), 0); /* the second one must stay longer */
    assert_int_equal(oldest(), 50);
    assert_int_equal(drop(50), 1);
}

static void test_an_expired_value_goes_like_a_tombstone(void **state)
{
    (void)state;
    change("a", hlc_of_ms(100), "short", 200);
    change("b", hlc_of_ms(100), "long", 5000);
    change("c", hlc_of_ms(100) + 7, "at once", 100);
    change("d", hlc_of_ms(100), "for ever", 0);
    assert_int_equal(oldest(), hlc_of_ms(100) + 7); /* not before what it took the place of */
    assert_int_equal(drop(hlc_of_ms(199)), 1);
    assert_int_equal(drop(hlc_of_ms(200)), 1);
    assert_int_equal(oldest(), hlc_of_ms(5000));
    assert_int_equal(rows_of(VIEW_KEY, ""), 2);
    change("b", hlc_of_ms(300), "longer", 9000);
    assert_int_equal(drop(hlc_of_ms(5000)), 0);
    assert_int_equal(drop(hlc_of_ms(9000)), 1);
    change("e", 1, "beyond what a clock can say", UINT64_MAX);
    assert_true(oldest() > hlc_of_ms(INT64_C(4000000000000)));
}

static void test_so_many_at_a_time(void **state)
{
    (void)state;
    char key[20];
    size_t rows, sum = 0, turns = 0;
    bool more = true;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%u", i);
        change(key, 10 + i, NULL, 0);
    }
    for (; more; turns++) {
        assert_true(view_tidy_drop(store, 0, 1000, 30, &rows, &more, error));
        assert_true(rows <= 30);
        sum += rows;
    }
    assert_int_equal(sum, 100);
    assert_int_equal(turns, 4);
    assert_int_equal(rows_of(VIEW_KEY, ""), 0);
}

static void test_counters_stay(void **state)
{
    (void)state;
    const struct view_sum add = {log_of(1), 1, 5};
    struct buf name = {0}, row = {0};
    view_counter_encode_add(&add, &row);
    view_key_row(VIEW_COUNTER, slice_str("a"), &name);
    view_store_change(store, buf_slice(&name), buf_slice(&row));
    change("a", 20, NULL, 0);
    assert_int_equal(drop(20), 1);
    assert_int_equal(rows_of(VIEW_COUNTER, "a"), 1);
    buf_free(&name);
    buf_free(&row);
}

static void test_bodies_of_clock_frames(void **state)
{
    (void)state;
    struct buf frames = {0}, body = {0};
    struct slice logs;
    uint64_t hlc;
    clock_frame(&frames, 1, 10, 77, 3);
    struct slice good = slice_of(frames.data + FRAME_HEADER_BYTES, frames.len - FRAME_HEADER_BYTES);
    assert_true(clock_frame_decode(good, &hlc, &logs));
    assert_int_equal(hlc, 77);
    for (size_t len = 0; len < good.len; len++)
        assert_false(clock_frame_decode(slice_of(good.data, len), &hlc, &logs));
    assert_false(clock_frame_encode(1, slice_str("\x91\xc4\x02xx"), &body)); /* no uuid */
    assert_false(clock_frame_encode(1, slice_str("\x80"), &body));
    assert_false(clock_frame_encode(1, (struct slice){0}, &body));
    assert_int_equal(body.len, 0);
    buf_free(&frames);
    buf_free(&body);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_least_of_what_all_say_counts),
        TEST(test_nothing_goes_while_somebody_says_nothing),
        TEST(test_what_is_young_is_kept),
        TEST(test_a_log_that_another_member_counts_must_be_known),
        TEST(test_a_closed_log_counts_until_it_is_applied),
        TEST(test_a_clock_frame_counts_when_all_before_it_is_applied),
        TEST(test_a_clock_frame_is_asked_for_when_it_helps),
        TEST(test_clocks_are_kept_with_the_rows),
        TEST(test_a_tombstone_goes_up_to_the_horizon),
        TEST(test_an_older_put_that_came_later_does_not_come_back),
        TEST(test_a_value_that_came_after_the_delete_stays),
        TEST(test_an_expired_value_goes_like_a_tombstone),
        TEST(test_so_many_at_a_time),
        TEST(test_counters_stay),
        TEST(test_bodies_of_clock_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
