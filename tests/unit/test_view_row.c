/* Versions of a row merge to the same row, in whatever order and grouping they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "view_row.h"

enum { CHANGES_MAX = 12, ROUNDS = 2000 };

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static struct slice value_row(struct buf *out, uint64_t hlc, uint8_t log, uint64_t lsn, const char *text)
{
    size_t start = out->len;
    struct view_value v = {
        .version = {hlc, log_of(log), lsn}, .deleted = text == NULL, .value = slice_str(text ? text : "")};
    buf_reserve(out, 4096); /* what was handed out before stays where it is */
    view_value_encode(&v, out);
    return slice_of(out->data + start, out->len - start);
}

static void assert_value(const struct buf *row, const char *text)
{
    struct view_value v;
    assert_true(view_value_decode(buf_slice(row), &v));
    assert_int_equal(v.deleted, text == NULL);
    assert_true(slice_is(v.value, text ? text : ""));
}

static void test_versions_are_ordered_by_clock_then_log_then_lsn(void **state)
{
    (void)state;
    const struct view_version low = {5, log_of(1), 9}, by_lsn = {5, log_of(1), 10},
                              by_log = {5, log_of(2), 1}, by_hlc = {6, log_of(1), 1};
    assert_int_equal(view_version_compare(&low, &low), 0);
    assert_true(view_version_compare(&low, &by_lsn) < 0);
    assert_true(view_version_compare(&by_lsn, &by_log) < 0);
    assert_true(view_version_compare(&by_log, &by_hlc) < 0);
    assert_true(view_version_compare(&by_hlc, &by_log) > 0);
}

static void test_a_value_comes_back_as_it_was(void **state)
{
    (void)state;
    struct buf row = {0};
    struct view_value out, in = {
                               .version = {UINT64_MAX, log_of(7), 3},
                               .expires_ms = 1234567890123,
                               .value = slice_str("some bytes"),
                           };
    view_value_encode(&in, &row);
    assert_true(view_value_decode(buf_slice(&row), &out));
    assert_int_equal(view_version_compare(&in.version, &out.version), 0);
    assert_int_equal(out.expires_ms, in.expires_ms);
    assert_true(slice_equal(out.value, in.value));
    assert_false(out.deleted);
    for (size_t len = 0; len < 41; len++)
        assert_false(view_value_decode(slice_of(row.data, len), &out));
    row.data[0] = 9;
    assert_false(view_value_decode(buf_slice(&row), &out));
    buf_free(&row);
}

static void test_a_put_that_travels_late_does_not_raise_the_dead(void **state)
{
    (void)state;
    struct buf bytes = {0}, row = {0};
    buf_reserve(&bytes, 1 << 16);
    const struct slice tombstone = value_row(&bytes, 20, 1, 8, NULL),
                       late = value_row(&bytes, 19, 2, 99, "late");
    assert_true(view_merge(slice_str("Kkey"), &tombstone, &late, 1, &row));
    assert_value(&row, NULL);
    buf_free(&bytes);
    buf_free(&row);
}

static void test_of_one_frame_the_last_put_counts(void **state)
{
    (void)state;
    struct buf bytes = {0}, row = {0};
    buf_reserve(&bytes, 1 << 16);
    const struct slice puts[] = {value_row(&bytes, 7, 1, 2, "second"), value_row(&bytes, 7, 1, 1, "first")};
    assert_true(view_merge(slice_str("Kkey"), NULL, puts, 2, &row));
    assert_value(&row, "second");
    buf_free(&bytes);
    buf_free(&row);
}

static struct slice add_row(struct buf *out, uint8_t log, uint64_t lsn, int64_t delta)
{
    size_t start = out->len;
    buf_reserve(out, 4096);
    view_counter_encode_add(&(struct view_sum){log_of(log), lsn, delta}, out);
    return slice_of(out->data + start, out->len - start);
}

static void test_additions_add_up(void **state)
{
    (void)state;
    struct buf bytes = {0}, row = {0}, more = {0};
    int64_t total;
    buf_reserve(&bytes, 1 << 16);
    const struct slice adds[] = {add_row(&bytes, 1, 1, 5), add_row(&bytes, 2, 1, -7),
                                 add_row(&bytes, 1, 4, 10)};
    assert_true(view_merge(slice_str("Ccount"), NULL, adds, 3, &row));
    assert_true(view_counter_total(buf_slice(&row), &total));
    assert_int_equal(total, 8);
    const struct slice before = buf_slice(&row), last = add_row(&bytes, 2, 2, INT64_MAX);
    assert_true(view_merge(slice_str("Ccount"), &before, &last, 1, &more));
    assert_true(view_counter_total(buf_slice(&more), &total));
    assert_int_equal(total, (int64_t)((uint64_t)INT64_MAX + 8)); /* it wraps, and nothing breaks */
    buf_free(&bytes);
    buf_free(&row);
    buf_free(&more);
}

static void test_of_two_views_sums_the_further_one_counts(void **state)
{
    (void)state;
    struct buf here = {0}, there = {0}, row = {0};
    const struct view_sum ours[] = {{log_of(1), 10, 100}, {log_of(2), 3, 7}},
                          theirs[] = {{log_of(1), 8, 90}, {log_of(2), 5, 9}, {log_of(3), 1, 1}};
    struct view_counter counter;
    struct view_sum sum;
    int64_t total;
    view_counter_encode_sums(ours, 2, &here);
    view_counter_encode_sums(theirs, 3, &there);
    const struct slice existing = buf_slice(&here), change = buf_slice(&there);
    assert_true(view_merge(slice_str("Ccount"), &existing, &change, 1, &row));
    assert_true(view_counter_total(buf_slice(&row), &total));
    assert_int_equal(total, 110);
    assert_true(view_counter_open(buf_slice(&row), &counter));
    const uint64_t lsns[] = {10, 5, 1};
    for (size_t i = 0; i < 3; i++) {
        assert_true(view_counter_next(&counter, &sum));
        assert_int_equal(sum.lsn, lsns[i]);
    }
    assert_false(view_counter_next(&counter, &sum));
    buf_free(&here);
    buf_free(&there);
    buf_free(&row);
}

static void test_sums_are_not_added_up_blindly(void **state)
{
    (void)state;
    struct buf bytes = {0}, out = {0};
    const struct view_sum sum = {log_of(1), 10, 100};
    view_counter_encode_sums(&sum, 1, &bytes);
    const struct slice changes[] = {buf_slice(&bytes), buf_slice(&bytes)};
    assert_false(view_merge_changes(slice_str("Ccount"), changes, 2, &out));
    buf_free(&bytes);
    buf_free(&out);
}

static void test_bytes_that_are_no_rows_are_refused(void **state)
{
    (void)state;
    struct buf out = {0};
    const struct slice bad = slice_str("not a row");
    int64_t total;
    assert_false(view_merge(slice_str("Kkey"), NULL, &bad, 1, &out));
    assert_false(view_merge(slice_str("Kkey"), &bad, &bad, 1, &out));
    assert_false(view_merge(slice_str("Ccount"), NULL, &bad, 1, &out));
    assert_false(view_merge(slice_str("Xother"), NULL, &bad, 1, &out));
    assert_false(view_merge((struct slice){0}, NULL, &bad, 1, &out));
    assert_false(view_counter_total(bad, &total));
    assert_false(view_counter_total((struct slice){0}, &total));
    buf_free(&out);
}

/* ---- any order, any grouping ---- */

/* Merges changes as a database may: some first among themselves, in runs, then all onto what is there. */
static void merge_in_runs(struct slice key, const struct slice *changes, size_t count, struct buf *row)
{
    struct buf parts[CHANGES_MAX] = {{0}};
    struct slice runs[CHANGES_MAX];
    size_t run_count = 0;
    for (size_t at = 0; at < count;) {
        size_t len = 1 + (size_t)rand() % (count - at);
        if (len > 1 && view_merge_changes(key, changes + at, len, &parts[run_count])) {
            runs[run_count] = buf_slice(&parts[run_count]);
        } else {
            len = 1;
            runs[run_count] = changes[at];
        }
        run_count++;
        at += len;
    }
    size_t first = 1 + (size_t)rand() % run_count;
    struct buf half = {0};
    assert_true(view_merge(key, NULL, runs, first, &half));
    if (first < run_count) {
        const struct slice existing = buf_slice(&half);
        assert_true(view_merge(key, &existing, runs + first, run_count - first, row));
        buf_free(&half);
    } else {
        *row = half;
    }
    for (size_t i = 0; i < CHANGES_MAX; i++)
        buf_free(&parts[i]);
}

static void shuffle(struct slice *changes, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t other = (size_t)rand() % i;
        struct slice swap = changes[i - 1];
        changes[i - 1] = changes[other];
        changes[other] = swap;
    }
}

static void test_any_order_and_grouping_gives_the_same_value(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct buf bytes = {0}, row = {0}, other = {0};
        struct slice changes[CHANGES_MAX];
        size_t count = 1 + (size_t)rand() % CHANGES_MAX;
        buf_reserve(&bytes, 1 << 16);
        for (size_t i = 0; i < count; i++)
            changes[i] = value_row(&bytes, 1 + (uint64_t)rand() % 4, (uint8_t)(rand() % 3), i,
                                   rand() % 4 == 0 ? NULL : "v");
        merge_in_runs(slice_str("Kk"), changes, count, &row);
        shuffle(changes, count);
        merge_in_runs(slice_str("Kk"), changes, count, &other);
        assert_true(slice_equal(buf_slice(&row), buf_slice(&other)));
        buf_free(&bytes);
        buf_free(&row);
        buf_free(&other);
    }
}

static void test_any_grouping_gives_the_same_sum(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct buf bytes = {0}, row = {0};
        struct slice changes[CHANGES_MAX];
        size_t count = 1 + (size_t)rand() % CHANGES_MAX;
        int64_t want = 0, total;
        buf_reserve(&bytes, 1 << 16);
        for (size_t i = 0; i < count; i++) {
            int64_t delta = rand() % 1000 - 500;
            want += delta;
            changes[i] = add_row(&bytes, (uint8_t)(rand() % 3), i + 1, delta);
        }
        merge_in_runs(slice_str("Cc"), changes, count, &row);
        assert_true(view_counter_total(buf_slice(&row), &total));
        assert_int_equal(total, want);
        buf_free(&bytes);
        buf_free(&row);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_are_ordered_by_clock_then_log_then_lsn),
        cmocka_unit_test(test_a_value_comes_back_as_it_was),
        cmocka_unit_test(test_a_put_that_travels_late_does_not_raise_the_dead),
        cmocka_unit_test(test_of_one_frame_the_last_put_counts),
        cmocka_unit_test(test_additions_add_up),
        cmocka_unit_test(test_of_two_views_sums_the_further_one_counts),
        cmocka_unit_test(test_sums_are_not_added_up_blindly),
        cmocka_unit_test(test_bytes_that_are_no_rows_are_refused),
        cmocka_unit_test(test_any_order_and_grouping_gives_the_same_value),
        cmocka_unit_test(test_any_grouping_gives_the_same_sum),
    };
    unsigned seed = (unsigned)random_u64();
    print_message("seed %u\n", seed);
    srand(seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
