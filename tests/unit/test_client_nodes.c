/* libshanghai over restarts of a node, and from one node to another. */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_restarts_neither_lose_nor_double_nor_reorder(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.batch_entries = 10;
    o.in_flight = 16;
    o.timeout_ms = 60000;
    n->offer_wal = true;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    for (unsigned round = 0; round < 6; round++) {
        if (round % 2 == 1)
            NODE_SET(n, n->hold = true);
        client_append_numbers(c, &t, round * 1000 + 1, round * 1000 + 1000);
        if (round % 2 == 1) {
            NODE_WAIT(n, n->held_count > 0);
            NODE_SET(n, n->hold = false);
        }
        node_restart(n);
    }
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.called, 6000);
    assert_int_equal(t.failed, 0);
    client_check_numbers(c, 1, 1, 6000);
    sh_close(c);
    node_stop(n);
}

/* The query link's endpoint gives another name for walsvc's: the same log, so the same sequences go on. */
static void test_appends_move_to_another_link_of_the_same_log(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct client_tally t = {0};
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    client_append_numbers(c, &t, 2, 3);
    NODE_WAIT(n, n->held_count > 0);
    NODE_SET(n, (n->offer_wal = true, n->hold = false));
    node_restart(n);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    client_check_numbers(c, 1, 1, 3);
    sh_close(c);
    node_stop(n);
}

static void open_pair(struct node *a, struct node *b, bool at_least_once, struct sh_client **c)
{
    const char *endpoints[] = {a->query, b->query};
    struct sh_options o = client_options(endpoints, 2);
    o.timeout_ms = 3000;
    o.at_least_once = at_least_once;
    assert_int_equal(sh_open(&o, c), SH_OK);
}

static void test_what_may_have_landed_never_goes_to_another_node(void **state)
{
    (void)state;
    struct node *a = node_start(), *b = node_start();
    struct sh_client *c;
    struct sh_status status;
    struct sh_append_result result;
    struct client_tally t = {0};
    open_pair(a, b, false, &c);
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    NODE_SET(a, a->hold = true);
    client_append_numbers(c, &t, 2, 2);
    NODE_WAIT(a, a->held_count == 1);
    node_kill(a);
    assert_int_equal(sh_status(c, &status), SH_OK); /* by the second node */
    assert_memory_equal(status.log, b->log.bytes, 16);
    NODE_WAIT(a, t.called == 1);
    assert_int_equal(t.error, SH_TIMEOUT);
    assert_int_equal(client_append(c, "3", &result), SH_OK); /* a new one does */
    assert_memory_equal(result.log, b->log.bytes, 16);
    assert_int_equal(a->frame_count, 2);
    assert_int_equal(b->frame_count, 1);
    sh_close(c);
    node_stop(a);
    node_stop(b);
}

static void test_at_least_once_goes_to_another_node(void **state)
{
    (void)state;
    struct node *a = node_start(), *b = node_start();
    struct sh_client *c;
    struct client_tally t = {0};
    open_pair(a, b, true, &c);
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    NODE_SET(a, a->hold = true);
    client_append_numbers(c, &t, 2, 2);
    NODE_WAIT(a, a->held_count == 1);
    node_kill(a);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(b->frame_count, 1);
    sh_close(c);
    node_stop(a);
    node_stop(b);
}

static void test_a_dead_first_endpoint_is_passed_over(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {"ipc:///tmp/shc-nobody/query", n->query};
    struct sh_options o = client_options(endpoints, 2);
    struct sh_client *c;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    sh_close(c);
    node_stop(n);
}

/* LSNs of another node's log are other entries. */
static void test_a_reader_never_goes_on_in_another_log(void **state)
{
    (void)state;
    for (unsigned follow = 0; follow < 2; follow++) {
        struct node *a = node_start(), *b = node_start();
        struct sh_client *c, *other = client_open(b);
        struct sh_reader *r;
        struct sh_event e;
        open_pair(a, b, false, &c);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(client_append(other, "b", NULL), SH_OK);
        for (unsigned i = 0; i < 5; i++)
            assert_int_equal(client_append(c, "a", NULL), SH_OK);
        assert_int_equal(sh_read_open(c, &(struct sh_read_options){.fetch_bytes = 1, .follow = follow}, &r),
                         SH_OK);
        assert_int_equal(sh_read_next(r, 5000, &e), SH_OK);
        node_kill(a);
        enum sh_error error;
        while ((error = sh_read_next(r, 5000, &e)) == SH_OK)
            assert_memory_equal(e.log, a->log.bytes, sizeof e.log);
        assert_int_equal(error, SH_CONFLICT);
        sh_read_close(r);
        sh_close(c);
        sh_close(other);
        node_stop(a);
        node_stop(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_restarts_neither_lose_nor_double_nor_reorder),
        cmocka_unit_test(test_appends_move_to_another_link_of_the_same_log),
        cmocka_unit_test(test_what_may_have_landed_never_goes_to_another_node),
        cmocka_unit_test(test_at_least_once_goes_to_another_node),
        cmocka_unit_test(test_a_dead_first_endpoint_is_passed_over),
        cmocka_unit_test(test_a_reader_never_goes_on_in_another_log),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
