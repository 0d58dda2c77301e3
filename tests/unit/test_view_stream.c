/* Rows of streams: their bytes, and that versions merge to the same row however they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "view_row.h"
#include "view_stream.h"

enum { CHANGES_MAX = 10, ROUNDS = 2000 };

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static void test_a_run_comes_back_as_it_was(void **state)
{
    (void)state;
    const struct view_run in = {.lsn = 7, .count = 3, .arrival = 1ull << 40, .hlc = UINT64_MAX, .bytes = 9};
    struct view_run out = {.lsn = 7};
    struct buf row = {0};
    view_run_encode(&in, &row);
    assert_true(view_run_decode(buf_slice(&row), &out));
    assert_int_equal(out.lsn, in.lsn);
    assert_int_equal(out.count, in.count);
    assert_int_equal(out.arrival, in.arrival);
    assert_int_equal(out.hlc, in.hlc);
    assert_int_equal(out.bytes, in.bytes);
    for (size_t len = 0; len < row.len; len++)
        assert_false(view_run_decode(slice_of(row.data, len), &out));
    memset(row.data + 16, 0, 4); /* of no events */
    assert_false(view_run_decode(buf_slice(&row), &out));
    buf_free(&row);
}

static void test_keys_of_runs_stand_by_stream_log_and_lsn(void **state)
{
    (void)state;
    struct buf before = {0}, key = {0};
    const struct {
        const char *stream;
        uint8_t log;
        uint64_t lsn;
    } sorted[] = {{"", 1, 5}, {"a", 1, 255}, {"a", 1, 256}, {"a", 2, 1}, {"b", 1, 1}, {"aa", 1, 1}};
    uint64_t lsn;
    for (size_t i = 0; i < sizeof sorted / sizeof sorted[0]; i++) {
        const struct slice stream = slice_str(sorted[i].stream);
        view_run_key(stream, log_of(sorted[i].log), sorted[i].lsn, &key);
        size_t len = before.len < key.len ? before.len : key.len;
        assert_true(i == 0 || memcmp(before.data, key.data, len) < 0);
        assert_true(view_run_key_is(buf_slice(&key), stream, log_of(sorted[i].log), &lsn));
        assert_int_equal(lsn, sorted[i].lsn);
        assert_false(view_run_key_is(buf_slice(&key), stream, log_of(9), &lsn));
        assert_false(view_run_key_is(buf_slice(&key), slice_str("c"), log_of(sorted[i].log), &lsn));
        before.len = 0;
        buf_append(&before, key.data, key.len);
    }
    buf_free(&before);
    buf_free(&key);
}

/* A row of another view is numbered behind those that are here, in the order that it has there; one that is
 * here already keeps its number. */
static void test_rows_of_another_view_come_behind_the_own_ones(void **state)
{
    (void)state;
    const uint64_t own = 1000;
    const struct view_run first = {.count = 1, .arrival = 3}, second = {.count = 1, .arrival = 4};
    struct buf rows[3] = {{0}}, shifted[2] = {{0}}, merged = {0};
    struct view_run a, b;
    view_run_encode(&first, &rows[0]);
    view_run_encode(&second, &rows[1]);
    assert_true(view_run_shift(buf_slice(&rows[0]), own, &shifted[0]));
    assert_true(view_run_shift(buf_slice(&rows[1]), own, &shifted[1]));
    assert_true(view_run_decode(buf_slice(&shifted[0]), &a) && view_run_decode(buf_slice(&shifted[1]), &b));
    assert_true(a.arrival >= own && a.arrival < b.arrival);
    const struct slice here = buf_slice(&rows[1]), comes = buf_slice(&shifted[0]);
    assert_true(view_merge(slice_str("Ekey"), &here, &comes, 1, &merged));
    assert_true(view_run_decode(buf_slice(&merged), &a));
    assert_int_equal(a.arrival, second.arrival);
    merged.len = 0;
    assert_true(view_merge(slice_str("Ekey"), NULL, &comes, 1, &merged));
    assert_true(view_run_decode(buf_slice(&merged), &a));
    assert_int_equal(a.arrival, own + first.arrival);
    assert_false(view_run_shift(slice_str("no run"), own, &merged));
    for (size_t i = 0; i < 2; i++) {
        buf_free(&rows[i]);
        buf_free(&shifted[i]);
    }
    buf_free(&merged);
}

/* ---- summaries ---- */

static struct view_part find_part(struct slice row, uint8_t log)
{
    struct view_summary summary;
    struct view_part part;
    assert_true(view_summary_open(row, &summary));
    while (view_summary_next(&summary, &part))
        if (id16_equal(part.log, log_of(log)))
            return part;
    return (struct view_part){.lsn = 0};
}

static struct slice add_of(struct buf *bytes, uint8_t log, uint64_t lsn, uint64_t count)
{
    size_t start = bytes->len;
    const struct view_part add = {
        .log = log_of(log), .lsn = lsn, .hlc = lsn * 10, .count = count, .bytes = 2 * count};
    view_summary_encode_add(&add, bytes);
    return slice_of(bytes->data + start, bytes->len - start);
}

static void test_additions_are_added_up_by_log(void **state)
{
    (void)state;
    struct buf bytes = {0}, row = {0}, more = {0};
    buf_reserve(&bytes, 1 << 16); /* what was handed out stays where it is */
    const struct slice first[] = {add_of(&bytes, 1, 3, 3), add_of(&bytes, 2, 1, 1), add_of(&bytes, 1, 9, 2)};
    assert_true(view_merge(slice_str("Ss"), NULL, first, 3, &row));
    struct view_part part = find_part(buf_slice(&row), 1);
    assert_int_equal(part.count, 5);
    assert_int_equal(part.bytes, 10);
    assert_int_equal(part.lsn, 9);
    assert_int_equal(part.hlc, 90);
    assert_int_equal(find_part(buf_slice(&row), 2).count, 1);
    const struct slice next = add_of(&bytes, 2, 2, 4), here = buf_slice(&row);
    assert_true(view_merge(slice_str("Ss"), &here, &next, 1, &more));
    assert_int_equal(find_part(buf_slice(&more), 2).count, 5);
    assert_int_equal(find_part(buf_slice(&more), 1).count, 5);
    buf_free(&bytes);
    buf_free(&row);
    buf_free(&more);
}

/* However changes are grouped before it is known what they change, the row is the same. */
static void test_any_grouping_gives_the_same_summary(void **state)
{
    (void)state;
    struct buf bytes = {0};
    uint64_t seed = 6;
    buf_reserve(&bytes, 1 << 16);
    for (int round = 0; round < ROUNDS; round++) {
        struct slice changes[CHANGES_MAX];
        struct buf whole = {0}, part = {0}, grouped = {0};
        size_t count = 0, want = 2 + (size_t)(round % (CHANGES_MAX - 1));
        bytes.len = 0;
        for (; count < want; count++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            changes[count] = add_of(&bytes, (uint8_t)(seed >> 62), count + 1, seed >> 60);
        }
        size_t split = 1 + (size_t)((seed >> 40) % (want - 1));
        assert_true(view_merge(slice_str("Ss"), NULL, changes, count, &whole));
        assert_true(view_merge_changes(slice_str("Ss"), changes + split - 1, count - split + 1, &part));
        changes[split - 1] = buf_slice(&part);
        assert_true(view_merge(slice_str("Ss"), NULL, changes, split, &grouped));
        for (uint8_t log = 0; log < 4; log++) {
            const struct view_part a = find_part(buf_slice(&whole), log),
                                   b = find_part(buf_slice(&grouped), log);
            assert_int_equal(a.count, b.count);
            assert_int_equal(a.bytes, b.bytes);
            assert_int_equal(a.lsn, b.lsn);
        }
        buf_free(&whole);
        buf_free(&part);
        buf_free(&grouped);
    }
    buf_free(&bytes);
}

static void test_of_another_views_summary_the_part_that_goes_further_counts(void **state)
{
    (void)state;
    const struct view_part own[] = {{log_of(1), 10, 10, 10, 10, 0, 0}, {log_of(2), 5, 5, 5, 5, 0, 0}},
                           other[] = {{log_of(1), 8, 8, 2, 2, 6, 6},
                                      {log_of(2), 9, 9, 4, 4, 5, 5},
                                      {log_of(3), 1, 1, 1, 1, 0, 0}};
    struct buf a = {0}, b = {0}, one = {0}, two = {0};
    view_summary_encode(own, 2, &a);
    view_summary_encode(other, 3, &b);
    const struct slice here = buf_slice(&a), there = buf_slice(&b);
    assert_true(view_merge(slice_str("Ss"), &here, &there, 1, &one));
    assert_true(view_merge(slice_str("Ss"), &there, &here, 1, &two));
    for (uint8_t log = 1; log <= 3; log++) {
        const struct view_part x = find_part(buf_slice(&one), log), y = find_part(buf_slice(&two), log);
        assert_memory_equal(&x, &y, sizeof x);
    }
    assert_int_equal(find_part(buf_slice(&one), 1).count, 10);
    assert_int_equal(find_part(buf_slice(&one), 2).count, 4);
    assert_int_equal(find_part(buf_slice(&one), 2).gone_lsn, 5);
    assert_int_equal(find_part(buf_slice(&one), 3).count, 1);
    one.len = 0;
    assert_false(
        view_merge_changes(slice_str("Ss"), &there, 1, &one)); /* it isn't known what it goes on from */
    const struct slice bad = slice_str("no summary");
    one.len = 0;
    assert_false(view_merge(slice_str("Ss"), &here, &bad, 1, &one));
    buf_free(&a);
    buf_free(&b);
    buf_free(&one);
    buf_free(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_run_comes_back_as_it_was),
        cmocka_unit_test(test_keys_of_runs_stand_by_stream_log_and_lsn),
        cmocka_unit_test(test_rows_of_another_view_come_behind_the_own_ones),
        cmocka_unit_test(test_additions_are_added_up_by_log),
        cmocka_unit_test(test_any_grouping_gives_the_same_summary),
        cmocka_unit_test(test_of_another_views_summary_the_part_that_goes_further_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
