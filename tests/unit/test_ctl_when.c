/* Times as people write them on shanghaictl's command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "ctl.h"

static const int64_t now_ns = INT64_C(1795663800123456789); /* 2026-11-26T03:30:00.123456789Z */

static void check(const char *text, int64_t expected_ms)
{
    int64_t ms;
    if (!ctl_parse_time(text, now_ns, &ms))
        fail_msg("refused: %s", text);
    assert_int_equal(ms, expected_ms);
}

static void test_rfc_3339(void **state)
{
    (void)state;
    check("2026-11-26T03:30:00Z", 1795663800000);
    check("2026-11-26t03:30:00z", 1795663800000);
    check("2026-11-26 03:30:00Z", 1795663800000);
    check("2026-11-26T03:30:00.1Z", 1795663800100);
    check("2026-11-26T03:30:00.123999999Z", 1795663800123);
    check("2026-11-26T04:30:00+01:00", 1795663800000);
    check("2026-11-25T18:00:00-09:30", 1795663800000);
    check("1970-01-01T00:00:01Z", 1000);
    check("2024-02-29T00:00:00Z", 1709164800000);
    check("2016-12-31T23:59:60Z", 1483228800000); /* a leap second is the next one */
}

static void test_how_long_ago(void **state)
{
    (void)state;
    check("10m", 1795663200123);
    check("2h", 1795656600123);
    check("1d", 1795577400123);
    check("1500ms", 1795663798623);
    check("0s", 1795663800123);
}

static void test_what_is_no_time(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "x",
        "10",
        "-5m",
        "10x",
        "10m ",
        "m",
        "yesterday",
        "2026-11-26",
        "2026-11-26T03:30:00",
        "2026-11-26T03:30Z",
        "2026-11-26T03:30:00.Z",
        "2026-11-26T03:30:00 Z",
        "2026-11-26T03:30:00Z ",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-11-26T24:00:00Z",
        "2026-11-26T03:60:00Z",
        "2026-11-26T03:30:61Z",
        "2026-11-26T03:30:00+1:00",
        "2026-11-26T03:30:00+0100",
        "2026-11-26T03:30:00+24:00",
        "2026-11-26T03:30:00+01:60",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:30:00+01:00",
        "10000-01-01T00:00:00Z",
        "26-11-26T03:30:00Z",
        "99999999d",
        "9999999999999999999999s",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t ms;
        if (ctl_parse_time(bad[i], now_ns, &ms))
            fail_msg("taken for a time: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rfc_3339),
        cmocka_unit_test(test_how_long_ago),
        cmocka_unit_test(test_what_is_no_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
