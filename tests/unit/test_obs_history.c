/* The last 15 minutes: what points say of the counters that they come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "clock.h"
#include "obs_history.h"

enum { ENTRIES, BYTES };
enum { COMMITS, APPENDS };

static struct obs_sample at(int64_t second)
{
    return (struct obs_sample){.time_ms = second * MS_PER_S,
                               .wal.told_ns = second * NS_PER_S,
                               .query.told_ns = second * NS_PER_S,
                               .lag_s = NAN,
                               .view_lag = NAN};
}

static struct obs_point last_of(const struct obs_history *h)
{
    struct obs_point last = {0};
    const struct obs_point *p;
    size_t place = 0;
    while ((p = obs_history_next(h, 0, &place)) != NULL)
        last = *p;
    return last;
}

static void test_rates_are_what_came_between_two_words(void **state)
{
    struct obs_history *h = obs_history_open();
    struct obs_sample s = at(1);
    (void)state;
    s.wal.counters[ENTRIES] = 1000;
    obs_history_add(h, &s);
    assert_true(isnan(last_of(h).value[OBS_APPENDS]));
    assert_true(isnan(last_of(h).value[OBS_GETS]));
    s = at(3);
    s.wal.counters[ENTRIES] = 1500;
    s.wal.counters[BYTES] = 64;
    s.query.counters[0] = 20;
    obs_history_add(h, &s);
    assert_true(last_of(h).value[OBS_APPENDS] == 250);
    assert_true(last_of(h).value[OBS_BYTES] == 32);
    assert_true(last_of(h).value[OBS_GETS] == 10);
    obs_history_close(h);
}

static void test_a_rate_stays_until_the_next_word(void **state)
{
    struct obs_history *h = obs_history_open();
    struct obs_sample s = at(1);
    (void)state;
    obs_history_add(h, &s);
    s = at(2);
    s.wal.counters[ENTRIES] = 7;
    obs_history_add(h, &s);
    s.time_ms += MS_PER_S;
    obs_history_add(h, &s);
    assert_true(last_of(h).value[OBS_APPENDS] == 7);
    obs_history_close(h);
}

static void test_a_restarted_daemon_counts_from_zero(void **state)
{
    struct obs_history *h = obs_history_open();
    struct obs_sample s = at(1);
    (void)state;
    s.wal.counters[ENTRIES] = 1000000;
    s.wal.buckets[COMMITS][4] = 50;
    obs_history_add(h, &s);
    s = at(2);
    s.wal.counters[ENTRIES] = 30;
    s.wal.buckets[COMMITS][10] = 1;
    obs_history_add(h, &s);
    assert_true(last_of(h).value[OBS_APPENDS] == 30);
    assert_true(last_of(h).value[OBS_COMMIT_P50] > (double)telemetry_bound(9) / 1e6);
    assert_true(last_of(h).value[OBS_COMMIT_P50] <= (double)telemetry_bound(10) / 1e6);
    obs_history_close(h);
}

static void test_a_daemon_that_is_away_leaves_gaps(void **state)
{
    struct obs_history *h = obs_history_open();
    struct obs_sample s = at(1);
    (void)state;
    obs_history_add(h, &s);
    s = at(2);
    s.query.counters[0] = 5;
    s.wal.told_ns = -1;
    obs_history_add(h, &s);
    assert_true(isnan(last_of(h).value[OBS_APPENDS]));
    assert_true(last_of(h).value[OBS_GETS] == 5);
    s = at(3);
    s.wal.counters[ENTRIES] = 9;
    obs_history_add(h, &s); /* since when is not known */
    assert_true(isnan(last_of(h).value[OBS_APPENDS]));
    s = at(4);
    s.wal.counters[ENTRIES] = 11;
    obs_history_add(h, &s);
    assert_true(last_of(h).value[OBS_APPENDS] == 2);
    obs_history_close(h);
}

static void test_quantiles_are_of_what_came_between(void **state)
{
    struct obs_history *h = obs_history_open();
    struct obs_sample s = at(1);
    (void)state;
    s.wal.buckets[APPENDS][2] = 1000; /* long ago, and fast */
    obs_history_add(h, &s);
    s.time_ms += MS_PER_S, s.wal.told_ns += NS_PER_S;
    obs_history_add(h, &s);
    assert_true(isnan(last_of(h).value[OBS_APPEND_P50])); /* nothing came */
    s.time_ms += MS_PER_S, s.wal.told_ns += NS_PER_S;
    s.wal.buckets[APPENDS][20] = 90;
    s.wal.buckets[APPENDS][30] = 10;
    obs_history_add(h, &s);
    struct obs_point p = last_of(h);
    assert_true(p.value[OBS_APPEND_P50] > (double)telemetry_bound(19) / 1e6);
    assert_true(p.value[OBS_APPEND_P50] <= (double)telemetry_bound(20) / 1e6);
    assert_true(p.value[OBS_APPEND_P99] > (double)telemetry_bound(29) / 1e6);
    assert_true(p.value[OBS_APPEND_P99] <= (double)telemetry_bound(30) / 1e6);
    obs_history_close(h);
}

static void test_fifteen_minutes_are_kept(void **state)
{
    struct obs_history *h = obs_history_open();
    size_t place = 0, count = 0;
    const struct obs_point *p, *first = NULL;
    (void)state;
    for (int64_t i = 1; i <= 2 * OBS_POINTS + 7; i++) {
        struct obs_sample s = at(i);
        s.lag_s = (double)i;
        obs_history_add(h, &s);
    }
    for (; (p = obs_history_next(h, 0, &place)) != NULL; count++)
        first = first == NULL ? p : first;
    assert_int_equal(count, OBS_POINTS);
    assert_int_equal(first->time_ms, (OBS_POINTS + 8) * MS_PER_S);
    assert_true(first->value[OBS_LAG] == OBS_POINTS + 8);
    place = 0;
    p = obs_history_next(h, (2 * OBS_POINTS + 6) * INT64_C(1000), &place);
    assert_int_equal(p->time_ms, (2 * OBS_POINTS + 7) * INT64_C(1000));
    assert_null(obs_history_next(h, 0, &place));
    obs_history_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates_are_what_came_between_two_words),
        cmocka_unit_test(test_a_rate_stays_until_the_next_word),
        cmocka_unit_test(test_a_restarted_daemon_counts_from_zero),
        cmocka_unit_test(test_a_daemon_that_is_away_leaves_gaps),
        cmocka_unit_test(test_quantiles_are_of_what_came_between),
        cmocka_unit_test(test_fifteen_minutes_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
