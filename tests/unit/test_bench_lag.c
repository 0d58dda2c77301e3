/* How far a follower is behind, by what was acknowledged when and what it had at each look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench_lag.h"
#include "buf.h"
#include "clock.h"

static struct bench_lag *lag;
static struct bench_track acknowledged, looks;

static int begin(void **state)
{
    (void)state;
    lag = xcalloc(1, sizeof *lag);
    return 0;
}

static int end(void **state)
{
    (void)state;
    bench_track_free(&acknowledged);
    bench_track_free(&looks);
    free(lag);
    return 0;
}

/* Within the precision of a histogram. */
static void assert_about(uint64_t value, uint64_t expected)
{
    assert_in_range(value, expected - expected / 30, expected + expected / 30);
}

static void test_the_oldest_entry_that_is_lacking_counts(void **state)
{
    (void)state;
    bench_track_acknowledged(&acknowledged, 1 * NS_PER_MS, 100);
    bench_track_acknowledged(&acknowledged, 3 * NS_PER_MS, 200);
    bench_track_acknowledged(&acknowledged, 5 * NS_PER_MS, 300);
    bench_track_look(&looks, 6 * NS_PER_MS, 100); /* since 3 ms: 3 ms, 200 entries */
    bench_lag_measure(lag, &acknowledged, &looks, INT64_MAX);
    assert_int_equal(lag->us.count, 1);
    assert_about(histogram_quantile(&lag->us, 0.5), 3000);
    assert_about(histogram_quantile(&lag->entries, 0.5), 200);
}

static void test_within_an_acknowledgement_its_own_time_counts(void **state)
{
    (void)state;
    bench_track_acknowledged(&acknowledged, 1 * NS_PER_MS, 100);
    bench_track_look(&looks, 9 * NS_PER_MS, 40);
    bench_lag_measure(lag, &acknowledged, &looks, INT64_MAX);
    assert_about(histogram_quantile(&lag->us, 0.5), 8000);
    assert_about(histogram_quantile(&lag->entries, 0.5), 60);
}

static void test_who_has_all_that_was_acknowledged_by_then_is_not_behind(void **state)
{
    (void)state;
    bench_track_acknowledged(&acknowledged, 1 * NS_PER_MS, 100);
    bench_track_acknowledged(&acknowledged, 7 * NS_PER_MS, 200);
    bench_track_look(&looks, 6 * NS_PER_MS, 100);
    bench_track_look(&looks, 6 * NS_PER_MS, 150); /* before the appender knew */
    bench_track_look(&looks, 8 * NS_PER_MS, 200);
    bench_lag_measure(lag, &acknowledged, &looks, INT64_MAX);
    assert_int_equal(lag->us.count, 3);
    assert_int_equal(lag->us.max, 0);
    assert_int_equal(lag->entries.max, 0);
}

static void test_each_look_counts_until_the_time_is_over(void **state)
{
    (void)state;
    bench_track_acknowledged(&acknowledged, 0, 10);
    for (int ms = 1; ms <= 100; ms++)
        bench_track_look(&looks, (int64_t)ms * NS_PER_MS, 0);
    bench_lag_measure(lag, &acknowledged, &looks, (int64_t)50 * NS_PER_MS);
    assert_int_equal(lag->us.count, 50);
    assert_about(lag->us.max, 50000);
    assert_int_equal(lag->us.sum, 50 * 51 / 2 * 1000);
}

static void test_acknowledgements_close_together_are_one(void **state)
{
    (void)state;
    for (uint64_t us = 0; us < 1000; us++)
        bench_track_acknowledged(&acknowledged, (int64_t)us * NS_PER_US, us + 1);
    assert_int_equal(acknowledged.count, 10);
    assert_int_equal(acknowledged.points[0].ns, 0);
    assert_int_equal(acknowledged.points[9].lsn, 1000);
    bench_track_acknowledged(&acknowledged, NS_PER_S, 1000); /* says nothing new */
    assert_int_equal(acknowledged.count, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_oldest_entry_that_is_lacking_counts, begin, end),
        cmocka_unit_test_setup_teardown(test_within_an_acknowledgement_its_own_time_counts, begin, end),
        cmocka_unit_test_setup_teardown(test_who_has_all_that_was_acknowledged_by_then_is_not_behind, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_each_look_counts_until_the_time_is_over, begin, end),
        cmocka_unit_test_setup_teardown(test_acknowledgements_close_together_are_one, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
