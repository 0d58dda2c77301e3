/* Appends that want more than this node: what walsvc's core answers, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 1 << 20, REPLSVC = 9, TIMEOUT_MS = 100 };
static const char data[] = "/data";
static struct sim_disk *disk;
static struct wal_rig rig;
static uint64_t sequence;

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    sequence = 0;
    rig.timeout_ms = TIMEOUT_MS;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

/* An entry of producer 1; a number for `answer`. */
static uint64_t append(enum wal_level ack)
{
    rig.ack = ack;
    return rig_append(&rig, 1, 1, ++sequence, slice_str("x"));
}

static uint64_t append_durably(enum wal_level ack)
{
    uint64_t number = append(ack);
    assert_true(rig_commit(&rig));
    return number;
}

/* The same request again. */
static uint64_t append_again(uint64_t sequence_then, enum wal_level ack)
{
    rig.ack = ack;
    return rig_append(&rig, 1, 1, sequence_then, slice_str("x"));
}

static const char *replicated(uint64_t quorum_lsn, uint64_t all_lsn)
{
    return wal_core_replicated(rig.core, REPLSVC,
                               &(struct msg_replicated){.quorum_lsn = quorum_lsn, .all_lsn = all_lsn});
}

static void assert_waits(uint64_t number)
{
    assert_int_equal(rig.answers[number].times, 0);
}

static void assert_done(uint64_t number, uint64_t lsn, enum wal_level reached)
{
    assert_int_equal(rig.answers[number].times, 1);
    assert_int_equal(rig.answers[number].code, SH_OK);
    assert_int_equal(rig.answers[number].reply.lsn, lsn);
    assert_int_equal(rig.answers[number].reply.ack, reached);
}

static int64_t due_ns(void)
{
    return wal_core_due_ns(rig.core);
}

static void test_an_append_waits_for_its_level(void **state)
{
    (void)state;
    uint64_t quorum = append(WAL_QUORUM), all = append(WAL_ALL);
    assert_true(rig_commit(&rig));
    assert_waits(quorum);
    assert_waits(all);
    assert_null(replicated(1, 0));
    assert_done(quorum, 1, WAL_QUORUM);
    assert_null(replicated(2, 1));
    assert_waits(all);
    assert_null(replicated(2, 2));
    assert_done(all, 2, WAL_ALL);
    assert_int_equal(due_ns(), INT64_MAX);
}

static void test_the_last_entry_of_an_append_must_be_there(void **state)
{
    (void)state;
    rig.ack = WAL_QUORUM;
    uint64_t number = rig_append_many(&rig, 1, 1, slice_str("x"), 5);
    assert_true(rig_commit(&rig));
    assert_null(replicated(4, 0));
    assert_waits(number);
    assert_null(replicated(5, 0));
    assert_done(number, 1, WAL_QUORUM);
}

static void test_the_answer_says_the_highest_level(void **state)
{
    (void)state;
    uint64_t quorum = append_durably(WAL_QUORUM);
    assert_null(replicated(1, 1));
    assert_done(quorum, 1, WAL_ALL);
    assert_done(append_again(1, WAL_QUORUM), 1, WAL_ALL);
}

/* Nothing waits for more than it asked for, and nobody counts before the entries are durable here. */
static void test_others_do_not_count_before_this_node(void **state)
{
    (void)state;
    uint64_t number = append(WAL_QUORUM);
    assert_null(replicated(UINT64_MAX, UINT64_MAX));
    assert_waits(number);
    assert_true(rig_commit(&rig));
    assert_done(number, 1, WAL_ALL);
    assert_done(append_durably(WAL_LOCAL), 2, WAL_LOCAL);
}

static void test_local_appends_pass_those_that_wait(void **state)
{
    (void)state;
    uint64_t quorum = append_durably(WAL_QUORUM);
    for (uint64_t lsn = 2; lsn < 10; lsn++) {
        assert_done(append_durably(WAL_LOCAL), lsn, WAL_LOCAL);
        assert_waits(quorum);
    }
}

static void test_what_waits_takes_no_room_in_the_queue(void **state)
{
    (void)state;
    char payload[64 << 10] = {0};
    rig.ack = WAL_QUORUM;
    for (uint64_t i = 1; i <= 64; i++) { /* four times what the queue holds */
        uint64_t number = rig_append(&rig, 1, 1, i, slice_of(payload, sizeof payload));
        rig_prepare(&rig);
        assert_true(rig_commit(&rig));
        assert_waits(number);
        assert_int_equal(rig.bodies[number].cap, 0); /* its bytes were given back */
    }
    assert_int_equal(wal_core_stats(rig.core).waiting_for_others, 64);
    assert_int_equal(wal_core_stats(rig.core).queued_bytes, 0);
    assert_null(replicated(64, 0));
    assert_int_equal(wal_core_stats(rig.core).waiting_for_others, 0);
    for (uint64_t number = 1; number <= 64; number++)
        assert_done(number, number, WAL_QUORUM);
}

static void test_when_the_time_is_over_the_answer_says_what_was_reached(void **state)
{
    (void)state;
    int64_t start_ns = rig.now_ns;
    uint64_t quorum = append(WAL_QUORUM), all = append(WAL_ALL);
    rig.now_ns += 50 * NS_PER_MS; /* the time counts from the arrival, not from the commit */
    assert_true(rig_commit(&rig));
    assert_int_equal(due_ns(), start_ns + TIMEOUT_MS * (int64_t)NS_PER_MS);
    wal_core_tick(rig.core, due_ns() - 1);
    assert_waits(quorum);
    wal_core_tick(rig.core, due_ns());
    assert_done(quorum, 1, WAL_LOCAL);
    assert_done(all, 2, WAL_LOCAL);
    all = append_durably(WAL_ALL);
    assert_null(replicated(3, 1));
    wal_core_tick(rig.core, due_ns());
    assert_done(all, 3, WAL_QUORUM);
}

static void test_without_time_the_answer_comes_at_once(void **state)
{
    (void)state;
    rig.timeout_ms = 0;
    assert_done(append_durably(WAL_ALL), 1, WAL_LOCAL);
    assert_null(replicated(1, 0));
    assert_done(append_again(1, WAL_ALL), 1, WAL_QUORUM);
}

/* An append that waits for a segment longer than it would wait for others is durable all the same. */
static void test_the_time_is_over_before_it_is_durable(void **state)
{
    (void)state;
    char payload[SEGMENT / 5] = {0};
    rig.ack = WAL_QUORUM;
    uint64_t number = 0;
    for (uint64_t i = 1; i <= 5; i++) {
        number = rig_append(&rig, 1, 1, i, slice_of(payload, sizeof payload));
        assert_true(rig_commit(&rig));
    }
    assert_int_equal(wal_core_stats(rig.core).stalled, 1);
    rig.now_ns += 2 * TIMEOUT_MS * (int64_t)NS_PER_MS;
    wal_core_tick(rig.core, rig.now_ns);
    assert_waits(number);
    assert_true(rig_prepare(&rig));
    assert_true(rig_commit(&rig));
    wal_core_tick(rig.core, rig.now_ns);
    assert_done(number, 5, WAL_LOCAL);
}

static void test_a_repeated_sequence_waits_again(void **state)
{
    (void)state;
    uint64_t first = append(WAL_QUORUM);
    uint64_t early = append_again(1, WAL_QUORUM); /* before it is durable */
    append(WAL_LOCAL);
    assert_true(rig_commit(&rig));
    wal_core_tick(rig.core, due_ns());
    assert_done(first, 1, WAL_LOCAL);
    assert_done(early, 1, WAL_LOCAL);
    rig.now_ns += NS_PER_S;
    uint64_t again = append_again(1, WAL_QUORUM);
    assert_int_equal(rig.bodies[again].cap, 0);
    assert_int_equal(due_ns(), rig.now_ns + TIMEOUT_MS * (int64_t)NS_PER_MS);
    assert_done(append_again(1, WAL_LOCAL), 1, WAL_LOCAL);
    assert_waits(again);
    assert_null(replicated(1, 0)); /* its own entry, not what came behind it */
    assert_done(again, 1, WAL_QUORUM);
}

static void test_after_a_restart_it_waits_again_and_has_its_lsn(void **state)
{
    (void)state;
    append_durably(WAL_LOCAL);
    uint64_t number = append_durably(WAL_QUORUM);
    assert_null(replicated(1, 1));
    assert_waits(number);
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    rig.timeout_ms = TIMEOUT_MS;
    uint64_t again = append_again(2, WAL_QUORUM);
    assert_waits(again);
    assert_null(replicated(2, 0));
    assert_done(again, 2, WAL_QUORUM);
}

static void test_a_dropped_session_is_not_waited_for(void **state)
{
    (void)state;
    uint64_t durable = append_durably(WAL_QUORUM);
    uint64_t under_way = append(WAL_QUORUM);
    rig.session = 2;
    uint64_t other = append(WAL_QUORUM);
    wal_core_drop(rig.core, 1);
    assert_true(rig_commit(&rig));
    assert_int_equal(wal_core_stats(rig.core).waiting_for_others, 1);
    assert_null(replicated(3, 3));
    assert_waits(durable);
    assert_done(under_way, 2, WAL_LOCAL); /* to nobody */
    assert_done(other, 3, WAL_ALL);
}

static void test_what_replsvc_said_ends_with_it_when_the_node_was_alone(void **state)
{
    (void)state;
    assert_null(replicated(UINT64_MAX, UINT64_MAX));
    assert_done(append_durably(WAL_QUORUM), 1, WAL_ALL);
    wal_core_drop(rig.core, REPLSVC);
    uint64_t number = append_durably(WAL_QUORUM);
    assert_waits(number);
    assert_null(replicated(2, 0));
    assert_done(number, 2, WAL_QUORUM);
}

static void test_what_is_not_durable_here_is_not_elsewhere(void **state)
{
    (void)state;
    uint64_t number = append_durably(WAL_QUORUM);
    append(WAL_LOCAL); /* has an LSN, and is not durable */
    assert_non_null(replicated(2, 1));
    assert_non_null(replicated(UINT64_MAX, 2));
    assert_waits(number);
    assert_null(replicated(1, 1));
    assert_done(number, 1, WAL_ALL);
}

static void test_a_stop_answers_with_what_was_reached(void **state)
{
    (void)state;
    uint64_t quorum = append_durably(WAL_QUORUM), all = append_durably(WAL_ALL);
    assert_null(replicated(0, 0));
    wal_core_end_waits(rig.core);
    assert_done(quorum, 1, WAL_LOCAL);
    assert_done(all, 2, WAL_LOCAL);
    assert_int_equal(due_ns(), INT64_MAX);
}

#define ACKS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ACKS_TEST(test_an_append_waits_for_its_level),
        ACKS_TEST(test_the_last_entry_of_an_append_must_be_there),
        ACKS_TEST(test_the_answer_says_the_highest_level),
        ACKS_TEST(test_others_do_not_count_before_this_node),
        ACKS_TEST(test_local_appends_pass_those_that_wait),
        ACKS_TEST(test_what_waits_takes_no_room_in_the_queue),
        ACKS_TEST(test_when_the_time_is_over_the_answer_says_what_was_reached),
        ACKS_TEST(test_without_time_the_answer_comes_at_once),
        ACKS_TEST(test_the_time_is_over_before_it_is_durable),
        ACKS_TEST(test_a_repeated_sequence_waits_again),
        ACKS_TEST(test_after_a_restart_it_waits_again_and_has_its_lsn),
        ACKS_TEST(test_a_dropped_session_is_not_waited_for),
        ACKS_TEST(test_what_replsvc_said_ends_with_it_when_the_node_was_alone),
        ACKS_TEST(test_what_is_not_durable_here_is_not_elsewhere),
        ACKS_TEST(test_a_stop_answers_with_what_was_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
