/* The sending end of pipelines: it never waits, it is bounded, and it comes back to whoever comes back. */
#include "wire_pull.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>

#include "nng_closer.h"
#include "nng_start.h"
#include "pipeline.h"

enum { SMALL = 16, LARGE = 32 << 10, MANY = 40, KILLS = 20, PUT_AWAY_MAX = 16 };

struct rig {
    struct loop *loop;
    struct pipeline_out *out;
    struct pipeline_out_options options;
    struct wire_pull pull;
};

static void open_rig(struct rig *rig, bool accepts)
{
    rig->loop = loop_open();
    rig->options = pipeline_out_defaults(rig->loop);
    rig->out = pipeline_out_open(&rig->options);
    wire_pull_open(&rig->pull, rig->loop, 0, accepts);
}

static void close_rig(struct rig *rig)
{
    pipeline_out_close(rig->out);
    wire_pull_close(&rig->pull);
    loop_close(rig->loop);
    int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (nng_closer_count() > 0 && clock_mono_ns() < end_ns)
        sched_yield();
    assert_int_equal(nng_closer_count(), 0);
}

static void send_to(struct rig *rig, const char *host, uint16_t port, uint64_t number, size_t len,
                    int64_t fresh_ns)
{
    static uint8_t bytes[LARGE];
    memcpy(bytes, &number, sizeof number);
    pipeline_out_send(rig->out, host, port, slice_of(bytes, len), fresh_ns);
}

static void send_one(struct rig *rig, uint64_t number)
{
    send_to(rig, "127.0.0.1", rig->pull.port, number, SMALL, 0);
}

/* Sends numbers until one arrives, as a protocol does that can lose messages; returns the last one. */
static uint64_t send_until_heard(struct rig *rig, uint64_t number)
{
    unsigned before = rig->pull.number_count;
    int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (rig->pull.number_count == before && clock_mono_ns() < end_ns) {
        send_one(rig, number++);
        loop_step(rig->loop, 20);
    }
    assert_true(rig->pull.number_count > before);
    return number;
}

/* ---- what arrives ---- */

static bool has_dropped(const struct rig *rig)
{
    return pipeline_out_stats(rig->out).dropped > 0;
}

/* What has waited for a second is dropped, for whatever reason: a story is told again when the machine was so
 * busy. It returns false when something was dropped. */
static void tell_in_time(bool (*story)(struct rig *rig))
{
    bool in_time = false;
    for (unsigned i = 0; i < 20 && !in_time; i++) {
        struct rig rig;
        open_rig(&rig, true);
        in_time = story(&rig);
        close_rig(&rig);
    }
    assert_true(in_time);
}

static bool first_messages_arrive(struct rig *rig)
{
    for (uint64_t i = 1; i <= 100; i++)
        send_one(rig, i);
    WIRE_WAIT(rig->loop, rig->pull.number_count == 100 || has_dropped(rig));
    if (has_dropped(rig))
        return false;
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(rig->pull.numbers[i], i + 1);
    WIRE_WAIT(rig->loop, pipeline_out_stats(rig->out).sent == 100);
    assert_int_equal(pipeline_out_stats(rig->out).sent_bytes, 100 * SMALL);
    assert_int_equal(pipeline_out_stats(rig->out).connections, 1);
    assert_int_equal(pipeline_out_stats(rig->out).waiting_bytes, 0);
    return true;
}

static void test_the_first_messages_arrive_too_in_order(void **state)
{
    (void)state;
    tell_in_time(first_messages_arrive);
}

static void test_a_name_is_looked_up(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig, true);
    /* Whether ::1 or 127.0.0.1 comes first is the machine's: only one that leads here can arrive. */
    send_to(&rig, "localhost", rig.pull.port, 1, SMALL, 0);
    send_to(&rig, "no-such-host.invalid", rig.pull.port, 2, SMALL, 0);
    WIRE_WAIT(rig.loop, pipeline_out_stats(rig.out).dropped >= 1);
    WIRE_WAIT(rig.loop, pipeline_out_stats(rig.out).dropped + rig.pull.number_count == 2);
    close_rig(&rig);
}

static void test_what_finds_nobody_is_dropped_and_counted(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig, true);
    wire_pull_close(&rig.pull);
    for (uint64_t i = 1; i <= 10; i++)
        send_one(&rig, i);
    WIRE_WAIT(rig.loop, pipeline_out_stats(rig.out).dropped == 10);
    assert_int_equal(pipeline_out_stats(rig.out).waiting_bytes, 0);
    wire_pull_open(&rig.pull, rig.loop, rig.pull.port, true);
    uint64_t next = send_until_heard(&rig, 11);
    assert_true(next > 11 && rig.pull.numbers[0] >= 11);
    close_rig(&rig);
}

/* ---- peers that go ---- */

static void test_a_peer_that_is_killed_is_reached_again(void **state)
{
    struct rig rig;
    uint64_t next = 1;
    (void)state;
    open_rig(&rig, true);
    for (unsigned kills = 0; kills < KILLS; kills++) {
        next = send_until_heard(&rig, next);
        for (unsigned i = 0; i < kills % 3; i++)
            send_one(&rig, next++); /* some may be on their way */
        wire_pull_close(&rig.pull);
        for (unsigned i = 0; i < kills % 4; i++)
            loop_step(rig.loop, 5);
        wire_pull_open(&rig.pull, rig.loop, rig.pull.port, true);
    }
    send_until_heard(&rig, next);
    assert_true(pipeline_out_stats(rig.out).connections > KILLS);
    assert_true(pipeline_out_stats(rig.out).peers == 1);
    close_rig(&rig);
}

/* Without being asked for a fresh one, a connection stays. */
static bool old_one_is_replaced(struct rig *rig)
{
    uint64_t next = send_until_heard(rig, 1);
    send_to(rig, "127.0.0.1", rig->pull.port, next, SMALL, 3600 * NS_PER_S);
    WIRE_WAIT(rig->loop, wire_pull_has(&rig->pull, next) || has_dropped(rig));
    if (has_dropped(rig))
        return false;
    assert_int_equal(rig->pull.greeted, 1);
    send_to(rig, "127.0.0.1", rig->pull.port, ++next, SMALL, 1);
    WIRE_WAIT(rig->loop, wire_pull_has(&rig->pull, next) || has_dropped(rig));
    if (has_dropped(rig))
        return false;
    assert_int_equal(rig->pull.greeted, 2);
    return true;
}

static void test_a_connection_that_is_too_old_is_replaced_when_asked(void **state)
{
    (void)state;
    tell_in_time(old_one_is_replaced);
}

/* ---- peers that don't take anything ---- */

static void test_a_peer_that_reads_nothing_is_bounded_and_goes_on_when_it_reads(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig, true);
    rig.pull.reads = false;
    uint64_t number = 1;
    for (; pipeline_out_stats(rig.out).dropped < 100; number++) { /* more than the kernel keeps */
        assert_true(number < WIRE_NUMBERS_MAX);
        send_to(&rig, "127.0.0.1", rig.pull.port, number, LARGE, 0);
        loop_step(rig.loop, 1);
        assert_true(pipeline_out_stats(rig.out).waiting_bytes <= rig.options.peer_bytes);
    }
    wire_pull_read_on(&rig.pull);
    WIRE_WAIT(rig.loop, pipeline_out_stats(rig.out).waiting_bytes == 0);
    int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (rig.pull.numbers[rig.pull.number_count - 1] < 1 << 20 && clock_mono_ns() < end_ns) {
        send_to(&rig, "127.0.0.1", rig.pull.port, 1 << 20, LARGE, 0); /* again: one may wait too long */
        loop_step(rig.loop, 20);
    }
    assert_true(wire_pull_has(&rig.pull, 1 << 20));
    assert_int_equal(pipeline_out_stats(rig.out).connections, 1);
    close_rig(&rig);
}

/* The kernel takes the first connections, then it drops SYNs: both kinds of silence. */
static void test_a_peer_that_accepts_nothing_is_bounded(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig, false);
    int64_t end_ns = clock_mono_ns() + 60 * NS_PER_S;
    struct pipeline_out_stats stats = {0};
    for (uint64_t i = 1; (stats.dropped < 20 || stats.kept < 1) && clock_mono_ns() < end_ns; i++) {
        send_to(&rig, "127.0.0.1", rig.pull.port, i, SMALL, 1);
        loop_step(rig.loop, 20);
        stats = pipeline_out_stats(rig.out);
        assert_true(stats.kept <= PUT_AWAY_MAX);
        assert_true(stats.waiting_bytes <= rig.options.peer_bytes);
    }
    assert_true(stats.dropped >= 20 && stats.kept >= 1);
    assert_int_equal(pipeline_out_stats(rig.out).connections, 0);
    close_rig(&rig);
}

static void test_it_closes_while_everything_is_on_its_way(void **state)
{
    (void)state;
    for (int accepts = 0; accepts < 2; accepts++) {
        for (unsigned steps = 0; steps < 6; steps++) {
            struct rig rig;
            open_rig(&rig, accepts != 0);
            for (uint64_t i = 1; i <= 3; i++)
                send_one(&rig, i);
            send_to(&rig, "localhost", rig.pull.port, 4, SMALL, 0);
            send_to(&rig, "127.0.0.1", 1, 5, SMALL, 0);
            for (unsigned i = 0; i < steps; i++)
                loop_step(rig.loop, 1);
            close_rig(&rig);
        }
    }
}

/* ---- many ---- */

/* All of 127.0.0.0/8 leads to this machine: so many peers, all of them one puller's port. */
static void test_who_is_spoken_to_regularly_keeps_its_connection_among_many(void **state)
{
    struct rig rig;
    char host[32];
    (void)state;
    open_rig(&rig, true);
    pipeline_out_close(rig.out);
    rig.options.peers = 8;
    rig.out = pipeline_out_open(&rig.options);
    wire_pull_close(&rig.pull);
    wire_pull_open(&rig.pull, rig.loop, rig.pull.port, true);
    uint64_t next = send_until_heard(&rig, 1);
    next = send_until_heard(&rig, next);
    struct wire_conn *regular = NULL;
    for (unsigned i = 0; i < WIRE_CONNS_MAX && regular == NULL; i++)
        if (rig.pull.conns[i].greeted && rig.pull.conns[i].fd.fd >= 0)
            regular = &rig.pull.conns[i];
    assert_non_null(regular);
    int fd = regular->fd.fd;
    for (unsigned i = 1; i <= MANY; i++) {
        snprintf(host, sizeof host, "127.0.1.%u", i);
        send_to(&rig, host, rig.pull.port, next, SMALL, 0); /* refused: the puller listens at 127.0.0.1 */
        loop_step(rig.loop, 1);
        if (i % 5 == 0)
            send_one(&rig, next++);
        assert_true(pipeline_out_stats(rig.out).peers <= 8);
    }
    next = send_until_heard(&rig, next);
    assert_int_equal(regular->fd.fd, fd);
    assert_int_equal(pipeline_out_stats(rig.out).connections, 1);
    close_rig(&rig);
}

static void test_an_idle_peer_is_disconnected_and_connected_again(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig, true);
    pipeline_out_close(rig.out);
    rig.options.idle_ns = 1;
    rig.out = pipeline_out_open(&rig.options);
    uint64_t next = send_until_heard(&rig, 1);
    WIRE_WAIT(rig.loop, pipeline_out_stats(rig.out).peers == 0);
    send_until_heard(&rig, next);
    assert_true(pipeline_out_stats(rig.out).connections >= 2);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_messages_arrive_too_in_order),
        cmocka_unit_test(test_a_name_is_looked_up),
        cmocka_unit_test(test_what_finds_nobody_is_dropped_and_counted),
        cmocka_unit_test(test_a_peer_that_is_killed_is_reached_again),
        cmocka_unit_test(test_a_connection_that_is_too_old_is_replaced_when_asked),
        cmocka_unit_test(test_a_peer_that_reads_nothing_is_bounded_and_goes_on_when_it_reads),
        cmocka_unit_test(test_a_peer_that_accepts_nothing_is_bounded),
        cmocka_unit_test(test_it_closes_while_everything_is_on_its_way),
        cmocka_unit_test(test_who_is_spoken_to_regularly_keeps_its_connection_among_many),
        cmocka_unit_test(test_an_idle_peer_is_disconnected_and_connected_again),
    };
    nng_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
