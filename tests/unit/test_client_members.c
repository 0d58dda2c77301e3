/* libshanghai about the cluster: members, joins and leaves, subscriptions to events. */
#include "client_node.h"

#include <stdio.h>
#include <string.h>

enum { WAIT_MS = 20000, SHORT_MS = 20 };

static void test_members_come_with_all_that_is_known_of_them(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_nodes nodes;
    assert_int_equal(sh_nodes(c, &nodes), SH_OK);
    assert_string_equal(nodes.cluster, "test");
    assert_string_equal(nodes.node, "n1");
    assert_int_equal(nodes.state, SH_STATE_LEFT);
    assert_string_equal(nodes.text, "it left");
    assert_int_equal(nodes.only_first, 5);
    assert_int_equal(nodes.only_last, 9);
    assert_int_equal(nodes.next_event, 1);
    assert_int_equal(nodes.counter_count, 1);
    assert_string_equal(nodes.counters[0].name, "sent");
    assert_int_equal(nodes.counters[0].count, 12);
    assert_int_equal(nodes.node_count, 3);
    const struct sh_node *own = &nodes.nodes[0], *near = &nodes.nodes[1], *far = &nodes.nodes[2];
    assert_true(own->self && own->heard_ms == -1 && own->watermark_count == 0);
    assert_string_equal(near->id, "n2");
    assert_string_equal(near->host, "10.0.0.2");
    assert_int_equal(near->port, 4002);
    assert_int_equal(near->status, SH_NODE_SUSPECT);
    assert_int_equal(near->since_ms, 5002);
    assert_int_equal(near->generation, 2);
    assert_int_equal(near->heard_ms, 1200);
    assert_int_equal(near->ahead_ms, 30);
    assert_true(near->observed && !near->unreachable && !near->drifting);
    assert_int_equal(near->watermark_count, 1);
    assert_int_equal(near->watermarks[0].log[0], 2);
    assert_int_equal(near->watermarks[0].lsn, 200);
    assert_int_equal(near->watermarks[0].end, 2000);
    assert_int_equal(far->ahead_ms, -40);
    assert_true(far->unreachable && far->drifting && !far->observed && far->heard_ms == -1);
    sh_nodes_free(&nodes);
    sh_nodes_free(&nodes);
    sh_close(c);
    node_stop(n);
}

static void test_an_answer_about_members_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_nodes nodes, nothing = {0};
    NODE_SET(n, n->odd = true);
    assert_int_equal(sh_nodes(c, &nodes), SH_INTERNAL);
    assert_memory_equal(&nodes, &nothing, sizeof nodes);
    NODE_SET(n, n->odd = false);
    assert_int_equal(sh_nodes(c, &nodes), SH_OK);
    sh_nodes_free(&nodes);
    sh_close(c);
    node_stop(n);
}

static void test_joins_and_leaves_say_what_was_asked_for(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_leave_result left;
    uint64_t generation = 0;
    struct sh_join_options join = {
        .id = "n4", .host = "h", .port = 7, .admin_port = 8, .group = "g", .replace = true};
    assert_int_equal(sh_node_join(c, &join, &generation), SH_OK);
    assert_int_equal(generation, 3);
    NODE_SET(n, assert_string_equal(n->joined, "join n4 h 7 8 g 1"));
    join = (struct sh_join_options){.id = "n5"};
    assert_int_equal(sh_node_join(c, &join, NULL), SH_OK);
    NODE_SET(n, assert_string_equal(n->joined, "join n5  0 0  0"));
    assert_int_equal(sh_node_leave(c, "n5", &left), SH_OK);
    NODE_SET(n, assert_string_equal(n->joined, "leave n5"));
    assert_int_equal(left.generation, 2);
    assert_int_equal(left.log[0], 9);
    assert_int_equal(left.only_first, 4);
    assert_int_equal(left.only_last, 8);
    assert_int_equal(sh_node_leave(c, NULL, &left), SH_BAD_REQUEST);
    assert_int_equal(left.only_first, 0);
    join.id = NULL;
    assert_int_equal(sh_node_join(c, &join, NULL), SH_BAD_REQUEST);
    NODE_SET(n, n->member_refuse = SH_CONFLICT);
    assert_int_equal(sh_node_leave(c, "n5", &left), SH_CONFLICT);
    assert_string_equal(sh_last_error_detail(), "as the test wants");
    join.id = "n5";
    assert_int_equal(sh_node_join(c, &join, NULL), SH_CONFLICT);
    sh_close(c);
    node_stop(n);
}

static void test_while_membersvc_is_away_nobody_waits(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_nodes nodes;
    struct sh_events *s;
    struct sh_node_event e;
    NODE_SET(n, n->member_away = true);
    assert_int_equal(sh_nodes(c, &nodes), SH_UNAVAILABLE);
    assert_int_equal(sh_node_leave(c, "n2", NULL), SH_UNAVAILABLE);
    assert_int_equal(sh_events_open(c, &(struct sh_events_options){0}, &s), SH_OK);
    assert_int_equal(sh_events_next(s, 0, &e), SH_UNAVAILABLE);
    NODE_SET(n, (n->member_away = false, n->event_next = 2));
    assert_int_equal(sh_events_next(s, 0, &e), SH_OK);
    sh_events_close(s);
    sh_close(c);
    node_stop(n);
}

static void expect(struct sh_events *s, uint64_t number)
{
    struct sh_node_event e;
    char id[24];
    assert_int_equal(sh_events_next(s, WAIT_MS, &e), SH_OK);
    assert_int_equal(e.number, number);
    assert_int_equal(e.kind, number % 15 + 1);
    assert_int_equal(e.wall_ms, 1000 + number);
    snprintf(id, sizeof id, "m%u", (unsigned)number);
    assert_string_equal(e.id, id);
    assert_string_equal(e.text, "words");
    assert_int_equal(sh_events_position(s, NULL), number);
}

static void expect_all(struct sh_events *s, uint64_t first, uint64_t last)
{
    for (uint64_t i = first; i <= last; i++)
        expect(s, i);
}

static struct sh_events *subscribe(struct sh_client *c, uint64_t after, bool follow)
{
    struct sh_events *s;
    struct sh_events_options o = {.after = after, .follow = follow};
    assert_int_equal(sh_events_open(c, &o, &s), SH_OK);
    return s;
}

static void test_events_that_are_kept_come_once_in_order(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_node_event e;
    uint8_t series[16];
    NODE_SET(n, (n->event_first = 3, n->event_next = 21));
    struct sh_events *s = subscribe(c, 0, false);
    expect_all(s, 3, 20);
    assert_int_equal(sh_events_next(s, 0, &e), SH_NOT_FOUND);
    NODE_SET(n, n->event_next = 23);
    expect_all(s, 21, 22); /* a later call looks again */
    assert_int_equal(sh_events_next(s, 0, &e), SH_NOT_FOUND);
    assert_int_equal(sh_events_position(s, series), 22);
    assert_memory_equal(series, n->series.bytes, sizeof series);
    sh_events_close(s);
    s = subscribe(c, 20, false);
    expect_all(s, 21, 22);
    sh_events_close(s);
    sh_events_close(NULL);
    sh_close(c);
    node_stop(n);
}

static void test_who_follows_gets_what_comes_over_restarts_too(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_node_event e;
    NODE_SET(n, n->event_next = 5);
    struct sh_events *s = subscribe(c, UINT64_MAX, true);
    assert_int_equal(sh_events_next(s, SHORT_MS, &e), SH_TIMEOUT);
    NODE_SET(n, n->event_next = 7);
    expect_all(s, 5, 6);
    NODE_SET(n, n->member_away = true);
    enum sh_error error = sh_events_next(s, SHORT_MS, &e);
    assert_int_equal(error, SH_TIMEOUT);
    node_restart(n);
    do
        error = sh_events_next(s, SHORT_MS, &e);
    while (error == SH_UNAVAILABLE);
    assert_int_equal(error, SH_TIMEOUT);
    NODE_SET(n, (n->member_away = false, n->event_next = 12));
    expect_all(s, 7, 11);
    sh_events_close(s); /* with a poll outstanding */
    sh_close(c);
    node_stop(n);
}

static void test_events_that_are_lost_are_told_once(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_node_event e;
    NODE_SET(n, n->event_next = 3);
    struct sh_events *s = subscribe(c, 0, true);
    expect_all(s, 1, 2);
    NODE_SET(n, (n->event_first = 10, n->event_next = 12));
    assert_int_equal(sh_events_next(s, WAIT_MS, &e), SH_TRIMMED);
    assert_string_equal(sh_last_error_detail(), "events 3 to 9 are not kept any more");
    expect_all(s, 10, 11);
    sh_events_close(s);
    sh_close(c);
    node_stop(n);
}

static void test_a_new_series_is_told_once_and_begins_anew(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_node_event e;
    uint8_t series[16];
    NODE_SET(n, n->event_next = 6);
    struct sh_events *s = subscribe(c, UINT64_MAX, true);
    node_kill(n);
    NODE_SET(n, (n->series = id16_random(), n->event_next = 3));
    node_restart(n);
    assert_int_equal(sh_events_next(s, WAIT_MS, &e), SH_CONFLICT);
    assert_int_equal(sh_events_position(s, series), 0);
    assert_memory_equal(series, n->series.bytes, sizeof series);
    expect_all(s, 1, 2);
    sh_events_close(s);
    sh_close(c);
    node_stop(n);
}

static void test_events_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_node_event e;
    NODE_SET(n, n->event_next = 4);
    struct sh_events *s = subscribe(c, 1, false);
    NODE_SET(n, n->odd = true); /* 3 stands where 2 should */
    assert_int_equal(sh_events_next(s, 0, &e), SH_INTERNAL);
    assert_int_equal(sh_events_position(s, NULL), 1);
    NODE_SET(n, n->odd = false);
    expect_all(s, 2, 3);
    sh_events_close(s);
    sh_close(c);
    node_stop(n);
}

static void test_names_of_statuses_states_and_events(void **state)
{
    (void)state;
    assert_string_equal(sh_node_status_name(SH_NODE_JOINING), "joining");
    assert_string_equal(sh_node_status_name(SH_NODE_LEFT), "left");
    assert_string_equal(sh_node_status_name((enum sh_node_status)99), "unknown");
    assert_string_equal(sh_node_state_name(SH_STATE_REFUSED), "refused");
    assert_string_equal(sh_node_event_name(SH_EVENT_JOINING), "joining");
    assert_string_equal(sh_node_event_name(SH_EVENT_REFUSED), "refused");
    assert_string_equal(sh_node_event_name(SH_EVENT_ALARM), "alarm");
    assert_string_equal(sh_node_event_name((enum sh_node_event_kind)0), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_come_with_all_that_is_known_of_them),
        cmocka_unit_test(test_an_answer_about_members_that_makes_no_sense_is_refused),
        cmocka_unit_test(test_joins_and_leaves_say_what_was_asked_for),
        cmocka_unit_test(test_while_membersvc_is_away_nobody_waits),
        cmocka_unit_test(test_events_that_are_kept_come_once_in_order),
        cmocka_unit_test(test_who_follows_gets_what_comes_over_restarts_too),
        cmocka_unit_test(test_events_that_are_lost_are_told_once),
        cmocka_unit_test(test_a_new_series_is_told_once_and_begins_anew),
        cmocka_unit_test(test_events_that_make_no_sense_are_refused),
        cmocka_unit_test(test_names_of_statuses_states_and_events),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
