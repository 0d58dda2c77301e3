/* The long poll for how far all logs are durable. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "held_log.h"
#include "wal_logs.h"

static const struct id16 own = {{1}}, copy = {{2}}, boot = {{3}};
static struct wal_logs logs;
static struct {
    unsigned count;
    uint64_t number, version, closed;
    uint32_t logs;
    bool own_copy;
    struct slice given_up;
    struct wal_log_place places[WAL_LOGS_MAX];
} last;

static uint8_t given_up[1024];

static void on_reply(void *arg, struct link_token token, const struct msg_logs_reply *reply)
{
    struct mp m = mp_of(reply->logs);
    (void)arg;
    last.count++;
    last.number = token.number;
    last.version = reply->version;
    last.closed = reply->closed;
    last.own_copy = reply->own_copy;
    assert_true(reply->given_up.len < sizeof given_up);
    if (reply->given_up.len > 0)
        memcpy(given_up, reply->given_up.data, reply->given_up.len);
    last.given_up = slice_of(given_up, reply->given_up.len);
    assert_true(id16_equal(reply->boot, boot));
    assert_true(mp_array(&m, &last.logs));
    for (uint32_t i = 0; i < last.logs; i++) {
        struct held_log held;
        assert_true(held_log_next(&m, &held));
        last.places[i] = (struct wal_log_place){
            .log = held.log,
            .durable = {.end = held.durable.position,
                        .lsn = held.durable.next_lsn - 1,
                        .checksum = held.durable.checksum},
            .first_lsn = held.first_lsn,
        };
        assert_int_equal(held.damaged, 0);
    }
    assert_true(mp_at_end(&m));
}

static void ask(uint64_t number, uint64_t newer_than, uint64_t wait_ms)
{
    const struct msg_logs m = {.boot = boot, .newer_than = newer_than, .wait_ms = wait_ms};
    wal_logs_ask(&logs, (struct link_token){number, number}, &m, 0);
}

static int setup(void **state)
{
    (void)state;
    memset(&last, 0, sizeof last);
    logs = (struct wal_logs){
        .boot = boot, .version = 1, .all = {{.log = own, .first_lsn = 1}}, .count = 1, .reply = on_reply};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    wal_logs_free(&logs);
    return 0;
}

static void test_it_tells_of_a_log_that_is_fetched_back(void **state)
{
    (void)state;
    ask(1, 0, 0);
    assert_false(last.own_copy);
    assert_int_equal(last.given_up.len, 0);
    logs.own_copy = true;
    logs.given_up = (struct wal_given_up){{{500, 0xfedcba98}, {700, 3}}, 2};
    ask(2, 0, 0);
    assert_true(last.own_copy);
    struct mp m = mp_of(last.given_up);
    uint32_t count, parts;
    uint64_t position, checksum;
    assert_true(mp_array(&m, &count) && count == 2);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(mp_array(&m, &parts) && parts == 2 && mp_uint(&m, &position) && mp_uint(&m, &checksum));
        assert_int_equal(position, i == 0 ? 500 : 700);
        assert_int_equal(checksum, i == 0 ? 0xfedcba98 : 3);
    }
    assert_true(mp_at_end(&m));
}

static void test_a_poll_is_answered_by_the_next_change(void **state)
{
    const struct wal_durable durable = {.end = 500, .lsn = 7, .checksum = 99};
    (void)state;
    ask(1, 0, 1000);
    assert_int_equal(last.count, 1); /* who knows nothing hears at once */
    assert_int_equal(last.version, 1);
    ask(2, 1, 1000);
    assert_int_equal(last.count, 1);
    wal_logs_moved(&logs, 0, &durable);
    assert_int_equal(last.count, 2);
    assert_int_equal(last.number, 2);
    assert_true(id16_equal(last.places[0].log, own));
    assert_int_equal(last.places[0].durable.end, 500);
    assert_int_equal(last.places[0].durable.lsn, 7);
    assert_int_equal(last.places[0].durable.checksum, 99);
    ask(3, last.version, 1000);
    wal_logs_trimmed(&logs, own, 5);
    assert_int_equal(last.number, 3);
    assert_int_equal(last.places[0].first_lsn, 5);
}

static void test_another_boot_is_answered_at_once(void **state)
{
    const struct msg_logs m = {.boot = {{8}}, .newer_than = 100, .wait_ms = 1000};
    (void)state;
    wal_logs_ask(&logs, (struct link_token){1, 1}, &m, 0);
    assert_int_equal(last.count, 1);
}

static void test_a_poll_ends_when_its_wait_is_over(void **state)
{
    (void)state;
    assert_int_equal(wal_logs_due_ns(&logs), INT64_MAX);
    ask(1, 1, 20);
    ask(2, 1, 10);
    assert_int_equal(wal_logs_due_ns(&logs), 10 * NS_PER_MS);
    wal_logs_tick(&logs, 10 * NS_PER_MS);
    assert_int_equal(last.count, 1);
    assert_int_equal(last.number, 2);
    assert_int_equal(last.version, 1);
    wal_logs_drop(&logs, 1);
    wal_logs_tick(&logs, 20 * NS_PER_MS);
    assert_int_equal(last.count, 1);
    ask(3, 1, 0);
    assert_int_equal(last.count, 2);
}

/* Else a follower would take the log for one that is not here yet. */
static void test_polls_wait_until_every_copy_is_known(void **state)
{
    const struct wal_durable durable = {.end = 40, .lsn = 2}, none = {0};
    size_t index = wal_logs_add(&logs, copy), broken = wal_logs_add(&logs, (struct id16){{4}});
    (void)state;
    ask(1, 0, 0);
    ask(2, 0, 10);
    wal_logs_tick(&logs, NS_PER_S);
    assert_int_equal(wal_logs_due_ns(&logs), INT64_MAX);
    wal_logs_opened(&logs);
    logs.all[index].is_hidden = false;
    wal_logs_moved(&logs, index, &durable);
    assert_int_equal(last.count, 0);
    wal_logs_opened(&logs);
    wal_logs_moved(&logs, broken, &none);
    assert_int_equal(last.count, 2);
    assert_int_equal(last.logs, 2); /* the broken one is not named */
    assert_true(id16_equal(last.places[1].log, copy));
    assert_int_equal(last.places[1].durable.end, 40);
}

static void serve(size_t index, uint64_t end)
{
    const struct wal_durable durable = {.end = end, .lsn = 1};
    wal_logs_opened(&logs);
    logs.all[index].is_hidden = false;
    wal_logs_moved(&logs, index, &durable);
}

static void test_a_copy_that_goes_leaves_its_place_to_another(void **state)
{
    struct id16 log = {{9}};
    (void)state;
    for (uint8_t i = 0; i < WAL_COPIES_MAX; i++) {
        log.bytes[1] = i;
        serve(wal_logs_add(&logs, log), i);
    }
    ask(1, 0, 0);
    assert_int_equal(last.logs, WAL_LOGS_MAX);
    for (uint8_t i = 0; i < 3 * WAL_COPIES_MAX; i++) { /* all of them, again and again */
        size_t gone = 1 + i % WAL_COPIES_MAX;
        ask(2, last.version, 1000);
        wal_logs_remove(&logs, gone);
        assert_int_equal(last.number, 2);
        assert_int_equal(last.logs, WAL_LOGS_MAX - 1);
        log.bytes[1] = (uint8_t)(100 + i);
        assert_int_equal(wal_logs_add(&logs, log), gone);
        serve(gone, 1000);
        ask(3, 0, 0);
        assert_int_equal(last.logs, WAL_LOGS_MAX);
        assert_true(id16_equal(last.places[gone].log, log));
    }
}

static void test_another_register_of_closed_logs_answers_polls(void **state)
{
    (void)state;
    wal_logs_closed(&logs, 4);
    ask(1, 0, 0);
    assert_int_equal(last.closed, 4);
    ask(2, last.version, 1000);
    wal_logs_closed(&logs, 4);
    assert_int_equal(last.count, 1);
    wal_logs_closed(&logs, 5);
    assert_int_equal(last.count, 2);
    assert_int_equal(last.closed, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_it_tells_of_a_log_that_is_fetched_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_poll_is_answered_by_the_next_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_boot_is_answered_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_poll_ends_when_its_wait_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_polls_wait_until_every_copy_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_copy_that_goes_leaves_its_place_to_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_register_of_closed_logs_answers_polls, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
