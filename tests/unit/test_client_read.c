/* libshanghai reads: from anywhere, one stream, following, past what is trimmed or damaged. */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_reading_from_anywhere(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct client_tally t = {0};
    client_append_numbers(c, &t, 1, 3000);
    assert_int_equal(sh_flush(c), SH_OK);
    for (unsigned from = 1; from <= 3001; from += 250)
        client_check_numbers(c, from, from, 3000);
    struct sh_reader *r;
    struct sh_event e;
    struct sh_read_options small = {.from = 1, .fetch_bytes = 100};
    assert_int_equal(sh_read_open(c, &small, &r), SH_OK);
    for (unsigned i = 1; i <= 3000; i++) {
        assert_int_equal(sh_read_position(r), i);
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        assert_int_equal(e.lsn, i);
    }
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_a_stream_is_read_alone(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_entry entries[] = {{.stream = "a", .payload = "1", .payload_bytes = 1},
                                 {.stream = "b", .payload = "2", .payload_bytes = 1},
                                 {.stream = "a", .payload = "3", .payload_bytes = 1},
                                 {.payload = "4", .payload_bytes = 1}};
    struct sh_reader *r;
    struct sh_event e;
    assert_int_equal(sh_append(c, entries, 4, SH_ACK_LOCAL, NULL), SH_OK);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.stream = "a"}, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 1);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 3);
    assert_int_equal(e.stream_bytes, 1);
    assert_int_equal(sh_read_next(r, 0, &e), SH_NOT_FOUND);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_following_waits_for_what_is_new(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_reader *r;
    struct sh_event e;
    assert_int_equal(client_append(c, "old", NULL), SH_OK);
    assert_int_equal(
        sh_read_open(c, &(struct sh_read_options){.from = UINT64_MAX, .follow = true, .fetch_bytes = 1}, &r),
        SH_OK);
    assert_int_equal(sh_read_next(r, 20, &e), SH_TIMEOUT);
    assert_int_equal(client_append(c, "new", NULL), SH_OK);
    assert_int_equal(sh_read_next(r, 5000, &e), SH_OK);
    assert_int_equal(e.lsn, 2);
    assert_int_equal(sh_read_next(r, 20, &e), SH_TIMEOUT);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

/* The node of these tests knows nothing of times: the library passes over what is older. Frame n is of ms n.
 */
static void test_reading_since_a_time(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(client_append(c, "x", NULL), SH_OK);
    for (unsigned fetch = 0; fetch < 2; fetch++) {
        struct sh_read_options options = {.since_ms = 6, .fetch_bytes = fetch};
        assert_int_equal(sh_read_open(c, &options, &r), SH_OK);
        for (unsigned i = 6; i <= 9; i++) {
            assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
            assert_int_equal(e.lsn, i);
        }
        assert_int_equal(sh_read_next(r, 0, &e), SH_NOT_FOUND);
        sh_read_close(r);
    }
    struct sh_read_options later = {.since_ms = 6, .from = 8};
    assert_int_equal(sh_read_open(c, &later, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 8);
    sh_read_close(r);
    struct sh_read_options future = {.since_ms = 11, .follow = true};
    assert_int_equal(sh_read_open(c, &future, &r), SH_OK);
    assert_int_equal(client_append(c, "too early", NULL), SH_OK);
    assert_int_equal(client_append(c, "in time", NULL), SH_OK);
    while (sh_read_next(r, 5000, &e) == SH_TIMEOUT)
        continue;
    assert_int_equal(e.lsn, 11);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_trimmed_says_where_to_go_on(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(client_append(c, "x", NULL), SH_OK);
    NODE_SET(n, n->first_lsn = 3);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.from = 1}, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_TRIMMED);
    assert_int_equal(sh_read_position(r), 3);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 3);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_a_frame_damaged_on_its_way_is_noticed(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(client_append(c, "x", NULL), SH_OK);
    NODE_SET(n, n->corrupt_lsn = 3);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.from = 1, .fetch_bytes = 1}, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_CORRUPT);
    assert_int_equal(sh_read_position(r), 3);
    NODE_SET(n, n->corrupt_lsn = 0);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK); /* what comes when it is asked for again */
    assert_int_equal(e.lsn, 3);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_reads_go_on_over_restarts(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_reader *r;
    struct sh_event e;
    struct client_tally t = {0};
    client_append_numbers(c, &t, 1, 400);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.fetch_bytes = 1}, &r), SH_OK);
    for (unsigned i = 1; i <= 400; i++) {
        if (i % 100 == 0)
            node_restart(n);
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        assert_int_equal(e.lsn, i);
    }
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading_from_anywhere),
        cmocka_unit_test(test_a_stream_is_read_alone),
        cmocka_unit_test(test_following_waits_for_what_is_new),
        cmocka_unit_test(test_trimmed_says_where_to_go_on),
        cmocka_unit_test(test_reading_since_a_time),
        cmocka_unit_test(test_a_frame_damaged_on_its_way_is_noticed),
        cmocka_unit_test(test_reads_go_on_over_restarts),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
