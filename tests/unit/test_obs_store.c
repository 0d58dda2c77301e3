/* What obssvc makes of what daemons tell: it takes what is well-formed and refuses anything else whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "obs_store.h"

static struct obs_store *store;
static struct buf series, happened; /* of the message that is being made */
static msgpack_packer pk;
static int64_t now_ns;
static uint64_t taken, lost;
static struct id16 boot;

static int open_store(void **state)
{
    (void)state;
    store = obs_store_open();
    now_ns = 1000 * NS_PER_S;
    lost = taken = 0;
    boot = (struct id16){{1}};
    return 0;
}

static int close_store(void **state)
{
    (void)state;
    obs_store_close(store);
    buf_free(&series);
    buf_free(&happened);
    series = happened = (struct buf){0};
    return 0;
}

/* ---------------------------------------------------------------- messages */

static void begin(uint32_t count)
{
    series.len = 0;
    mp_packer(&pk, &series);
    msgpack_pack_array(&pk, count);
}

static void begin_events(uint32_t count)
{
    happened.len = 0;
    mp_packer(&pk, &happened);
    msgpack_pack_array(&pk, count);
}

static void head(const char *metric, const char *label)
{
    msgpack_pack_array(&pk, 3);
    mp_pack_cstr(&pk, metric);
    msgpack_pack_array(&pk, label != NULL);
    if (label != NULL)
        mp_pack_cstr(&pk, label);
}

static void number(const char *metric, const char *label, int64_t value)
{
    head(metric, label);
    msgpack_pack_int64(&pk, value);
}

static void histogram(const char *metric, const char *label, uint64_t sum, unsigned count,
                      const uint64_t *counts)
{
    head(metric, label);
    msgpack_pack_array(&pk, 2);
    msgpack_pack_uint64(&pk, sum);
    msgpack_pack_array(&pk, count);
    for (unsigned i = 0; i < count; i++)
        msgpack_pack_uint64(&pk, counts[i]);
}

static void event(uint64_t id, uint64_t level, const char *kind, const char *text)
{
    msgpack_pack_array(&pk, 6);
    msgpack_pack_uint64(&pk, id);
    msgpack_pack_uint64(&pk, 1700000000000 + id);
    msgpack_pack_uint64(&pk, level);
    mp_pack_cstr(&pk, kind);
    mp_pack_cstr(&pk, text);
    msgpack_pack_map(&pk, 1);
    mp_pack_cstr(&pk, "id");
    msgpack_pack_uint64(&pk, id);
}

/* What was made; without anything, nothing was counted and has happened. */
static enum sh_error tell(const char *service)
{
    static const struct slice none = {(const uint8_t *)"\x90", 1};
    const struct msg_telemetry m = {.service = slice_str(service),
                                    .boot = boot,
                                    .series = series.len > 0 ? buf_slice(&series) : none,
                                    .happened = happened.len > 0 ? buf_slice(&happened) : none,
                                    .lost = lost};
    enum sh_error e = obs_store_take(store, &m, now_ns, &taken);
    for (size_t i = 0; i < series.len; i++) /* it has copied what it keeps */
        series.data[i] = 0xc1;
    for (size_t i = 0; i < happened.len; i++)
        happened.data[i] = 0xc1;
    series.len = happened.len = 0;
    return e;
}

static char *text(void)
{
    static struct buf out;
    out.len = 0;
    obs_store_text(store, now_ns, &out);
    char *copy = xstrdup(buf_cstr(&out));
    buf_free(&out);
    out = (struct buf){0};
    return copy;
}

static void assert_text(const char *expected)
{
    char *is = text();
    if (strstr(is, expected) == NULL)
        fail_msg("no \"%s\" in:\n%s", expected, is);
    free(is);
}

static unsigned count_of(const char *part)
{
    unsigned count = 0;
    char *all = text();
    for (const char *at = all; (at = strstr(at, part)) != NULL; at++)
        count++;
    free(all);
    return count;
}

/* ---------------------------------------------------------------- series */

static void test_series_are_told_as_text(void **state)
{
    (void)state;
    begin(4);
    number("shanghai_wal_entries_total", NULL, 42);
    number("shanghai_wal_durable_lsn", "a\"b\\c\nd", 7);
    number("shanghai_process_cpu_seconds_total", "walsvc", 1500000000);
    histogram("shanghai_wal_commit_seconds", NULL, 3000, 4, (const uint64_t[]){0, 2, 2, 1});
    assert_int_equal(tell("walsvc"), SH_OK);
    assert_text("# HELP shanghai_wal_entries_total ");
    assert_text("# TYPE shanghai_wal_entries_total counter\nshanghai_wal_entries_total 42\n");
    assert_text("\nshanghai_wal_durable_lsn{log=\"a\\\"b\\\\c\\nd\"} 7\n");
    assert_text("\nshanghai_process_cpu_seconds_total{service=\"walsvc\"} 1.5\n");
    assert_text("# TYPE shanghai_wal_commit_seconds histogram\n"
                "shanghai_wal_commit_seconds_bucket{le=\"1e-06\"} 2\n"
                "shanghai_wal_commit_seconds_bucket{le=\"2e-06\"} 2\n"
                "shanghai_wal_commit_seconds_bucket{le=\"3e-06\"} 3\n");
    assert_text("shanghai_wal_commit_seconds_bucket{le=\"+Inf\"} 3\n"
                "shanghai_wal_commit_seconds_sum 3e-06\nshanghai_wal_commit_seconds_count 3\n");
}

static void test_the_newest_message_counts(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= 3; i++) {
        begin(2);
        number("shanghai_wal_entries_total", NULL, i);
        number("shanghai_wal_durable_lsn", i == 1 ? "gone" : "log", i);
        assert_int_equal(tell("walsvc"), SH_OK);
    }
    assert_int_equal(obs_store_total(store, TELEMETRY_wal_entries, NULL, now_ns), 3);
    assert_int_equal(count_of("{log=\"gone\"}"), 0);
}

static void test_daemons_stand_beside_each_other_under_one_name(void **state)
{
    (void)state;
    static const char *const services[] = {"walsvc", "replsvc", "querysvc"};
    for (unsigned i = 0; i < 3; i++) {
        begin(1);
        number("shanghai_process_open_fds", services[i], 10);
        assert_int_equal(tell(services[i]), SH_OK);
    }
    assert_int_equal(obs_store_total(store, TELEMETRY_process_fds, NULL, now_ns), 30);
    assert_int_equal(obs_store_total(store, TELEMETRY_process_fds, "replsvc", now_ns), 10);
    assert_int_equal(count_of("# TYPE shanghai_process_open_fds gauge"), 1);
    assert_int_equal(count_of("shanghai_process_open_fds{"), 3);
}

static void test_a_daemon_that_is_silent_is_not_told(void **state)
{
    (void)state;
    begin(1);
    number("shanghai_wal_entries_total", NULL, 1);
    assert_int_equal(tell("walsvc"), SH_OK);
    now_ns += OBS_SILENT_NS - 1;
    assert_int_equal(count_of("shanghai_wal_entries_total 1"), 1);
    now_ns += 1;
    assert_int_equal(count_of("shanghai_wal_entries_total"), 0);
    assert_true(obs_store_age_ns(store, "walsvc", now_ns) == OBS_SILENT_NS);
    assert_true(obs_store_age_ns(store, "replsvc", now_ns) == -1);
    assert_int_equal(tell("walsvc"), SH_OK);
    assert_true(obs_store_age_ns(store, "walsvc", now_ns) == 0);
}

static void test_unknown_metrics_and_those_of_others_are_passed_over(void **state)
{
    (void)state;
    begin(7);
    number("shanghai_of_another_version", "a", 1);
    number("shanghai_wal_refused_appends_total", "a", 1); /* with a label that it has not here */
    number("shanghai_wal_durable_lsn", NULL, 1);          /* without one that it has */
    histogram("shanghai_of_another_version_too", NULL, 1, 2, (const uint64_t[]){900, 1});
    number("shanghai_query_clients", NULL, 5);
    number("shanghai_process_open_fds", "querysvc", 5);
    number("shanghai_wal_entries_total", NULL, 1);
    assert_int_equal(tell("walsvc"), SH_OK);
    assert_int_equal(count_of("# TYPE "), 1);
    assert_int_equal(obs_store_total(store, TELEMETRY_wal_entries, NULL, now_ns), 1);
}

static void test_no_series_stands_twice(void **state)
{
    (void)state;
    begin(5);
    number("shanghai_wal_durable_lsn", "b", 1);
    number("shanghai_wal_entries_total", NULL, 1);
    number("shanghai_wal_durable_lsn", "a", 1);
    number("shanghai_wal_durable_lsn", "b", 1);
    number("shanghai_wal_entries_total", NULL, 1);
    assert_int_equal(tell("walsvc"), SH_OK);
    assert_int_equal(count_of("\nshanghai_wal_entries_total "), 1);
    assert_int_equal(count_of("shanghai_wal_durable_lsn{log=\"b\"}"), 1);
    assert_int_equal(count_of("shanghai_wal_durable_lsn{log=\"a\"}"), 1);
}

static void test_quantiles_lie_in_their_bucket(void **state)
{
    (void)state;
    const struct metric *seconds = &metrics_table()[TELEMETRY_wal_sync],
                        *plain = &metrics_table()[TELEMETRY_wal_group];
    uint64_t counts[TELEMETRY_BUCKETS] = {0};
    assert_true(obs_quantile(plain, counts, 0.5) == 0);
    counts[4] = 10; /* above 4, up to 6 */
    assert_true(obs_quantile(plain, counts, 0.5) == 5);
    assert_true(obs_quantile(plain, counts, 1) == 6);
    assert_true(obs_quantile(seconds, counts, 0.5) == 5 * NS_PER_US);
    counts[0] = 90;
    assert_true(obs_quantile(plain, counts, 0.5) < 1);
    assert_true(obs_quantile(plain, counts, 0.99) > 5 && obs_quantile(plain, counts, 0.99) < 6);
    counts[TELEMETRY_BOUNDS] = 1000000;
    assert_true(obs_quantile(plain, counts, 0.99) == 1 << 26);
}

/* ---------------------------------------------------------------- events */

static void test_an_event_is_taken_once(void **state)
{
    (void)state;
    for (uint64_t last = 2; last <= 4; last++) {
        begin_events((uint32_t)last);
        for (uint64_t i = 1; i <= last; i++)
            event(i, LOG_WARN, "tested", "well");
        assert_int_equal(tell("walsvc"), SH_OK);
        assert_int_equal(taken, last);
    }
    assert_int_equal(obs_store_last_event(store), 4);
    const struct obs_event *e = obs_store_event(store, 3);
    assert_int_equal(e->id, 4);
    assert_int_equal(e->time_ms, 1700000000004);
    assert_int_equal(e->level, LOG_WARN);
    assert_true(slice_is(e->service, "walsvc") && slice_is(e->kind, "tested") && slice_is(e->text, "well"));
    assert_int_equal(e->fields.len, 5);
    assert_null(obs_store_event(store, 4));
    assert_null(obs_store_event(store, UINT64_MAX));
}

static void test_another_process_counts_its_events_anew(void **state)
{
    (void)state;
    lost = 3;
    begin_events(1);
    event(9, LOG_INFO, "first", "life");
    assert_int_equal(tell("walsvc"), SH_OK);
    assert_int_equal(obs_store_lost(store), 3);
    boot.bytes[0]++;
    lost = 1;
    begin_events(1);
    event(1, LOG_INFO, "second", "life");
    assert_int_equal(tell("walsvc"), SH_OK);
    assert_int_equal(taken, 1);
    assert_int_equal(obs_store_last_event(store), 2);
    assert_int_equal(obs_store_lost(store), 4);
}

static void test_the_oldest_events_make_room(void **state)
{
    (void)state;
    const struct obs_event mine = {.time_ms = 1,
                                   .level = LOG_INFO,
                                   .service = slice_str("obssvc"),
                                   .kind = slice_str("mine"),
                                   .text = slice_str("own"),
                                   .fields = slice_of("\x80", 1)};
    uint64_t seen = 0, behind = 0;
    for (unsigned i = 0; i < OBS_EVENTS + 10; i++)
        obs_store_add_event(store, &mine);
    for (const struct obs_event *e; (e = obs_store_event(store, behind)) != NULL; behind = e->id)
        seen++;
    assert_int_equal(seen, OBS_EVENTS);
    assert_int_equal(behind, OBS_EVENTS + 10);
    assert_int_equal(obs_store_event(store, 0)->id, 11);
}

/* ---------------------------------------------------------------- what is malformed */

static void test_a_service_has_a_good_name(void **state)
{
    (void)state;
    char longest[OBS_LABEL_BYTES] = {0};
    memset(longest, 'x', 65);
    assert_int_equal(tell(""), SH_BAD_REQUEST);
    assert_int_equal(tell("\xff"), SH_BAD_REQUEST);
    assert_int_equal(tell(longest), SH_BAD_REQUEST);
    longest[64] = 0;
    assert_int_equal(tell(longest), SH_OK);
}

static void test_there_are_only_so_many_services(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= OBS_SERVICES; i++) {
        char name[32];
        snprintf(name, sizeof name, "service%u", i);
        assert_int_equal(tell(name), i < OBS_SERVICES ? SH_OK : SH_OVERLOADED);
    }
    assert_int_equal(tell("service0"), SH_OK);
}

/* Bytes as a message could have them, and nothing of the good series beside them is taken. */
static void test_malformed_series_are_refused_whole(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
#define BAD(text) {text, sizeof text - 1}
        BAD("\x80"),                 /* no array */
        BAD("\x91\xc0"),             /* a series is nil */
        BAD("\x91\x93\x01\x90\x01"), /* its name a number */
        BAD("\x91\x92\xa1x\x90"),    /* it has no value */
        BAD("\x91\x93\xa1x\x95\xa1"
            "a\xa1"
            "a\xa1"
            "a\xa1"
            "a\xa1"
            "a\x01"),                                                           /* five labels */
        BAD("\x91\x93\xa1x\x91\x07\x01"),                                       /* a label is a number */
        BAD("\x91\x93\xa1x\x91\xa1\xff\x01"),                                   /* no UTF-8 */
        BAD("\x91\x93\xa1x\x91\xa1\x00\x01"),                                   /* a NUL */
        BAD("\x91\x93\xb6shanghai_query_clients\x90\xcb\0\0\0\0\0\0\0\0"),      /* a float */
        BAD("\x91\x93\xbbshanghai_wal_commit_seconds\x90\x01"),                 /* a number for a histogram */
        BAD("\x91\x93\xbbshanghai_wal_commit_seconds\x90\x92\x01\x91\x01"),     /* a bucket without count */
        BAD("\x91\x93\xbbshanghai_wal_commit_seconds\x90\x92\x01\x92\x35\x01"), /* bucket 53 of 53 */
        BAD("\x91\x93\xbbshanghai_wal_commit_seconds\x90\x92\x01\x94\x02\x01\x01\x01"), /* out of order */
        BAD("\x91\x93\xbbshanghai_wal_commit_seconds\x90\x92\x01\x94\x02\x01\x02\x01"), /* twice */
        BAD("\x91\x93\xbbshanghai_wal_commit_seconds\x90\x92\xff\x90"),                 /* a negative sum */
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        buf_append(&series, bad[i].bytes, bad[i].len);
        if (tell("walsvc") != SH_BAD_REQUEST)
            fail_msg("number %zu was taken", i);
    }
    begin(2);
    number("shanghai_wal_entries_total", NULL, 1);
    msgpack_pack_nil(&pk);
    begin_events(1);
    event(1, LOG_INFO, "good", "but not taken");
    assert_int_equal(tell("walsvc"), SH_BAD_REQUEST);
    assert_int_equal(count_of("shanghai"), 0);
    assert_int_equal(obs_store_last_event(store), 0);
    assert_true(obs_store_age_ns(store, "walsvc", now_ns) == -1);
}

static void test_too_many_series_are_too_large(void **state)
{
    (void)state;
    for (unsigned more = 0; more < 2; more++) {
        begin(OBS_SERIES_MAX + more);
        for (unsigned i = 0; i < OBS_SERIES_MAX + more; i++) {
            char log[32];
            snprintf(log, sizeof log, "log%u", i);
            number("shanghai_wal_durable_lsn", log, 1);
        }
        assert_int_equal(tell("walsvc"), more == 0 ? SH_OK : SH_TOO_LARGE);
    }
    assert_int_equal(obs_store_total(store, TELEMETRY_wal_durable, NULL, now_ns), OBS_SERIES_MAX);
}

static void test_malformed_events_are_refused_whole(void **state)
{
    (void)state;
    static const struct {
        uint64_t level;
        const char *kind, *text;
    } bad[] = {{LOG_ERROR + 1, "kind", "text"}, {UINT64_MAX, "kind", "text"}, {LOG_INFO, "\xff", "text"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        begin_events(2);
        event(1, LOG_INFO, "good", "first");
        event(2, bad[i].level, bad[i].kind, bad[i].text);
        assert_int_equal(tell("walsvc"), SH_BAD_REQUEST);
    }
    static const char *const parts[] = {"\x91\xc0",
                                        "\x91\x90",
                                        "\x91\x96\x01\x01\x01\xa1k\xa1t\xc0",
                                        "\x80",
                                        "\x91\x96\x01\x01\x01\xa1k\xa1t\x90",
                                        "\x91\x96\xff\x01\x01\xa1k\xa1t\x80"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        buf_append_str(&happened, parts[i]);
        assert_int_equal(tell("walsvc"), SH_BAD_REQUEST);
    }
    assert_int_equal(obs_store_last_event(store), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_store, close_store)
    const struct CMUnitTest tests[] = {
        TEST(test_series_are_told_as_text),
        TEST(test_the_newest_message_counts),
        TEST(test_daemons_stand_beside_each_other_under_one_name),
        TEST(test_a_daemon_that_is_silent_is_not_told),
        TEST(test_unknown_metrics_and_those_of_others_are_passed_over),
        TEST(test_no_series_stands_twice),
        TEST(test_quantiles_lie_in_their_bucket),
        TEST(test_an_event_is_taken_once),
        TEST(test_another_process_counts_its_events_anew),
        TEST(test_the_oldest_events_make_room),
        TEST(test_a_service_has_a_good_name),
        TEST(test_there_are_only_so_many_services),
        TEST(test_malformed_series_are_refused_whole),
        TEST(test_too_many_series_are_too_large),
        TEST(test_malformed_events_are_refused_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
