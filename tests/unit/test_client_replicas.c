/* libshanghai about replicas, and logs that are not the node's own. */
#include "client_node.h"

#include <string.h>

static void test_replicas_come_with_all_that_is_known_of_them(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_replicas r;
    assert_int_equal(sh_replicas(c, &r), SH_OK);
    assert_string_equal(r.node, "n1");
    assert_memory_equal(r.log, n->log.bytes, sizeof r.log);
    assert_int_equal(r.durable_lsn, 10);
    assert_int_equal(r.quorum_lsn, 9);
    assert_int_equal(r.all_lsn, 8);
    assert_int_equal(r.counter_count, 1);
    assert_string_equal(r.counters[0].name, "fetches");
    assert_int_equal(r.counters[0].count, 5);
    assert_int_equal(r.followed_count, 2);
    const struct sh_replica *known = &r.followed[0], *unknown = &r.followed[1];
    assert_int_equal(known->log[0], 20);
    assert_string_equal(known->origin, "n2");
    assert_string_equal(known->peer, "n3");
    assert_int_equal(known->state, SH_REPLICA_WAITING);
    assert_int_equal(known->lsn, 20);
    assert_int_equal(known->end, 2000);
    assert_int_equal(known->lag_entries, 3);
    assert_int_equal(known->lag_bytes, 300);
    assert_int_equal(known->lag_ms, 1500);
    assert_int_equal(known->credit, 4096);
    assert_int_equal(known->retries, 2);
    assert_int_equal(known->seen_ms, 10);
    assert_true(unknown->origin[0] == 0 && unknown->peer[0] == 0);
    assert_int_equal(unknown->state, SH_REPLICA_FORKED);
    assert_int_equal(unknown->seen_ms, -1);
    assert_int_equal(r.follower_count, 2);
    assert_string_equal(r.followers[0].peer, "n2");
    assert_int_equal(r.followers[0].seen_ms, -1);
    assert_string_equal(r.followers[1].peer, "n3");
    assert_int_equal(r.followers[1].state, SH_REPLICA_DISCONNECTED);
    assert_int_equal(r.followers[1].seen_ms, 0);
    sh_replicas_free(&r);
    sh_replicas_free(&r);
    sh_close(c);
    node_stop(n);
}

static void test_replicas_that_make_no_sense_or_are_away_are_an_error(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_replicas r, nothing = {0};
    NODE_SET(n, n->odd = true);
    assert_int_equal(sh_replicas(c, &r), SH_INTERNAL);
    assert_memory_equal(&r, &nothing, sizeof r);
    NODE_SET(n, (n->odd = false, n->repl_away = true));
    assert_int_equal(sh_replicas(c, &r), SH_UNAVAILABLE);
    assert_memory_equal(&r, &nothing, sizeof r);
    sh_close(c);
    node_stop(n);
}

static void test_states_have_names(void **state)
{
    (void)state;
    assert_string_equal(sh_replica_state_name(SH_REPLICA_DISCONNECTED), "disconnected");
    assert_string_equal(sh_replica_state_name(SH_REPLICA_WAITING), "waiting_for_follower");
    assert_string_equal(sh_replica_state_name(SH_REPLICA_FORKED), "forked");
    assert_string_equal(sh_replica_state_name((enum sh_replica_state)7), "unknown");
}

/* Of its other log the node has frames of its own one, under that name. */
static void test_a_copy_is_read_and_told_of_by_its_uuid(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_read_options options = {.log = {9}};
    struct sh_log_info info;
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(client_append(c, "x", NULL), SH_OK);
    NODE_SET(n, memcpy(n->copy.bytes, options.log, sizeof options.log));
    assert_int_equal(sh_read_open(c, &options, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_memory_equal(e.log, options.log, sizeof e.log);
    assert_int_equal(e.lsn, 1);
    sh_read_close(r);
    options.from = UINT64_MAX;
    assert_int_equal(sh_read_open(c, &options, &r), SH_OK);
    assert_int_equal(sh_read_position(r), 4);
    sh_read_close(r);
    assert_int_equal(sh_log_info(c, options.log, &info), SH_OK);
    assert_memory_equal(info.log, options.log, sizeof info.log);
    assert_int_equal(info.first_lsn, 1);
    assert_int_equal(info.durable_lsn, 3);
    sh_log_info_free(&info);
    sh_close(c);
    node_stop(n);
}

static void test_a_log_that_is_not_held_is_not_waited_for(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_read_options options = {.log = {9}, .follow = true};
    struct sh_log_info info, nothing = {0};
    struct sh_reader *r;
    struct sh_event e;
    assert_int_equal(sh_read_open(c, &options, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 20000, &e), SH_NOT_FOUND);
    sh_read_close(r);
    options.from = UINT64_MAX;
    assert_int_equal(sh_read_open(c, &options, &r), SH_NOT_FOUND);
    assert_int_equal(sh_log_info(c, options.log, &info), SH_NOT_FOUND);
    assert_memory_equal(&info, &nothing, sizeof info);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replicas_come_with_all_that_is_known_of_them),
        cmocka_unit_test(test_replicas_that_make_no_sense_or_are_away_are_an_error),
        cmocka_unit_test(test_states_have_names),
        cmocka_unit_test(test_a_copy_is_read_and_told_of_by_its_uuid),
        cmocka_unit_test(test_a_log_that_is_not_held_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
