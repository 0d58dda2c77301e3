/* Which connection of the HTTP server is closed, and when. Each is one end of a pair; the other end sees it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "obs_conn.h"

enum { MOST = 3, ALL = 5 };

static struct rig {
    struct obs_conns *conns;
    struct obs_conn *conn[ALL];
    int ends[ALL][2];
    int64_t begun_ns; /* or a little before */
} rig;

static void begin(unsigned i)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, rig.ends[i]), 0);
    rig.conn[i] = obs_conn_begin(rig.conns, rig.ends[i][0]);
}

static void end(unsigned i)
{
    obs_conn_end(rig.conns, rig.conn[i]);
    close(rig.ends[i][0]);
    close(rig.ends[i][1]);
    rig.conn[i] = NULL;
}

static bool is_open(unsigned i)
{
    char byte;
    return recv(rig.ends[i][1], &byte, 1, MSG_DONTWAIT) != 0;
}

static int open_rig(void **state)
{
    (void)state;
    rig = (struct rig){.conns = obs_conns_open(MOST), .begun_ns = clock_mono_ns()};
    for (unsigned i = 0; i < MOST; i++)
        begin(i);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ALL; i++)
        if (rig.conn[i] != NULL)
            end(i);
    obs_conns_close(rig.conns);
    return 0;
}

static void test_the_first_gives_way_when_all_are_silent(void **state)
{
    (void)state;
    begin(3);
    assert_false(is_open(0));
    begin(4);
    assert_false(is_open(1));
    for (unsigned i = 2; i < ALL; i++)
        assert_true(is_open(i));
}

static void test_who_got_on_stays(void **state)
{
    (void)state;
    obs_conn_is(rig.conns, rig.conn[0], OBS_CONN_ARRIVING);
    begin(3);
    assert_true(is_open(0));
    assert_false(is_open(1));
}

static void test_nobody_is_closed_for_one_that_has_ended(void **state)
{
    (void)state;
    end(1);
    begin(3);
    assert_true(is_open(0));
    begin(4); /* the first gives way, and its end later makes no more room than there is */
    assert_false(is_open(0));
    end(0);
    begin(0);
    assert_false(is_open(2));
    assert_true(is_open(3));
}

static void test_what_is_being_answered_is_never_closed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MOST; i++)
        obs_conn_is(rig.conns, rig.conn[i], OBS_CONN_ANSWERING);
    begin(3);
    obs_conns_sweep(rig.conns, INT64_MAX / 2);
    for (unsigned i = 0; i < MOST; i++)
        assert_true(is_open(i));
    assert_false(is_open(3)); /* it sent nothing for so long */
}

static void test_a_request_must_be_whole_in_time_whatever_comes_of_it(void **state)
{
    (void)state;
    obs_conn_is(rig.conns, rig.conn[0], OBS_CONN_LEAVING);
    obs_conn_is(rig.conns, rig.conn[0], OBS_CONN_ARRIVING);
    obs_conn_is(rig.conns, rig.conn[1], OBS_CONN_LEAVING);
    obs_conns_sweep(rig.conns, rig.begun_ns + (OBS_CONN_ARRIVAL_S - 1) * NS_PER_S);
    for (unsigned i = 0; i < MOST; i++)
        assert_true(is_open(i));
    int64_t then_ns = clock_mono_ns();
    while (clock_mono_ns() < then_ns + 2 * NS_PER_MS)
        ;
    obs_conn_is(rig.conns, rig.conn[2], OBS_CONN_ARRIVING); /* another byte: its time goes on */
    obs_conns_sweep(rig.conns, then_ns + OBS_CONN_ARRIVAL_S * NS_PER_S + NS_PER_MS);
    assert_false(is_open(0));
    assert_true(is_open(1));
    assert_false(is_open(2));
}

static void test_an_answer_must_be_taken_in_time(void **state)
{
    (void)state;
    obs_conn_is(rig.conns, rig.conn[0], OBS_CONN_LEAVING);
    obs_conns_sweep(rig.conns, rig.begun_ns + (OBS_CONN_LEAVING_S - 1) * NS_PER_S);
    assert_true(is_open(0));
    obs_conns_sweep(rig.conns, clock_mono_ns() + (OBS_CONN_LEAVING_S + 1) * NS_PER_S);
    assert_false(is_open(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_first_gives_way_when_all_are_silent, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(test_who_got_on_stays, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(test_nobody_is_closed_for_one_that_has_ended, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(test_what_is_being_answered_is_never_closed, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(test_a_request_must_be_whole_in_time_whatever_comes_of_it, open_rig,
                                        close_rig),
        cmocka_unit_test_setup_teardown(test_an_answer_must_be_taken_in_time, open_rig, close_rig),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
