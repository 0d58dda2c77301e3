/* The virtual network of the membership simulation does what its faults say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "clock.h"
#include "member_net.h"

enum { MESSAGES = 20000 };

static uint64_t seed;

static struct net *begin(void **state)
{
    struct net *net = *state = xcalloc(1, sizeof *net);
    net->random = seed;
    return net;
}

static int end(void **state)
{
    net_free(*state);
    free(*state);
    return 0;
}

/* How many of the messages arrive. */
static unsigned arrive(struct net *net, uint32_t from, uint32_t to, unsigned count)
{
    struct net_event e;
    unsigned arrived = 0;
    for (unsigned i = 0; i < count; i++)
        net_send(net, from, to, 7, slice_str("message"));
    while (net_next(net, net->now_ns + NS_PER_S, &e)) {
        assert_int_equal(e.node, to);
        assert_int_equal(e.move, 7);
        assert_true(slice_is(slice_of(e.bytes, e.len), "message"));
        free(e.bytes);
        arrived++;
    }
    return arrived;
}

static void test_events_come_in_the_order_of_time(void **state)
{
    struct net *net = begin(state);
    struct net_event e;
    int64_t last_ns = 0;
    uint64_t last_order = 0;
    for (unsigned i = 0; i < 5000; i++)
        net_tick(net, i, (int64_t)net_random(net, 1000));
    for (unsigned i = 0; i < 5000; i++) {
        assert_true(net_next(net, 1000, &e));
        assert_true(e.at_ns > last_ns || (e.at_ns == last_ns && (i == 0 || e.order > last_order)));
        assert_int_equal(net->now_ns, e.at_ns);
        last_ns = e.at_ns;
        last_order = e.order;
    }
    assert_false(net_next(net, 2000, &e));
    assert_int_equal(net->now_ns, 2000);
}

static void test_time_stops_before_what_is_not_due(void **state)
{
    struct net *net = begin(state);
    struct net_event e;
    net_tick(net, 1, 50);
    assert_false(net_next(net, 49, &e));
    assert_int_equal(net->now_ns, 49);
    assert_true(net_next(net, 50, &e));
}

static void test_messages_are_lost_and_doubled_as_often_as_is_said(void **state)
{
    struct net *net = begin(state);
    assert_int_equal(arrive(net, 1, 2, MESSAGES), MESSAGES);
    net->loss_percent = 20;
    assert_in_range(arrive(net, 1, 2, MESSAGES), MESSAGES * 0.77, MESSAGES * 0.83);
    net->loss_percent = 0;
    net->duplicate_percent = 5;
    assert_in_range(arrive(net, 1, 2, MESSAGES), MESSAGES * 1.03, MESSAGES * 1.07);
    assert_int_equal(net->in_flight_bytes, 0);
}

static void test_nothing_passes_a_partition_but_its_open_way(void **state)
{
    struct net *net = begin(state);
    net->side[2] = 1;
    net->is_cut = true;
    assert_int_equal(arrive(net, 1, 2, 100), 0);
    assert_int_equal(arrive(net, 2, 1, 100), 0);
    assert_int_equal(arrive(net, 1, 3, 100), 100);
    net->one_way = true;
    assert_int_equal(arrive(net, 1, 2, 100), 100);
    assert_int_equal(arrive(net, 2, 1, 100), 0);
}

static void test_a_flapping_link_is_down_every_other_period(void **state)
{
    struct net *net = begin(state);
    net->flaps[net->flap_count++] = (struct net_flap){1, 2, 3 * NS_PER_S};
    for (unsigned s = 0; s < 30; s++) { /* arrive takes a second */
        net->now_ns = s * NS_PER_S + 1;
        unsigned up = s / 3 % 2 == 0 ? 10 : 0;
        assert_int_equal(arrive(net, s % 2 == 0 ? 1 : 2, s % 2 == 0 ? 2 : 1, 10), up);
        net->now_ns = s * NS_PER_S + 1;
        assert_int_equal(arrive(net, 1, 3, 10), 10);
    }
}

static void test_what_is_reordered_overtakes(void **state)
{
    struct net *net = begin(state);
    struct net_event e;
    uint64_t last = 0, overtaken = 0;
    net->reorder_percent = 10;
    for (unsigned i = 0; i < MESSAGES; i++) {
        net->now_ns = i * (int64_t)NS_PER_MS;
        net_send(net, 1, 2, 0, slice_str("x"));
    }
    for (int64_t end_ns = net->now_ns + NS_PER_S; net_next(net, end_ns, &e); free(e.bytes)) {
        overtaken += e.order < last;
        last = e.order;
    }
    assert_in_range(overtaken, MESSAGES / 20, MESSAGES / 2);
}

int main(int argc, char **argv)
{
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : random_u64() % 1000000000;
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_events_come_in_the_order_of_time, end),
        cmocka_unit_test_teardown(test_time_stops_before_what_is_not_due, end),
        cmocka_unit_test_teardown(test_messages_are_lost_and_doubled_as_often_as_is_said, end),
        cmocka_unit_test_teardown(test_nothing_passes_a_partition_but_its_open_way, end),
        cmocka_unit_test_teardown(test_a_flapping_link_is_down_every_other_period, end),
        cmocka_unit_test_teardown(test_what_is_reordered_overtakes, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
