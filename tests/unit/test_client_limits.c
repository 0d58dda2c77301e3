/* libshanghai keeps its bounds: room, deadlines, callbacks, options. */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_a_full_queue_makes_appends_wait(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.queue_bytes = 20;
    o.timeout_ms = 5000; /* long enough for what is sent on a busy machine */
    assert_int_equal(sh_open(&o, &c), SH_OK);
    while (client_append(c, "0", NULL) != SH_OK) /* what was not sent in time makes room again */
        continue;
    NODE_SET(n, n->hold = true);
    assert_int_equal(client_append_async(c, &t, "123456789"), SH_OK); /* 14 bytes encoded */
    int64_t before_ns = clock_mono_ns();
    assert_int_equal(client_append_async(c, &t, "123456789"), SH_TIMEOUT);
    assert_true(clock_mono_ns() - before_ns >= 4990 * (int64_t)NS_PER_MS);
    NODE_WAIT(n, n->held_count == 1);
    NODE_SET(n, n->hold = false);
    assert_int_equal(client_append_async(c, &t, "123456789"), SH_OK);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.called, 2);
    sh_close(c);
    node_stop(n);
}

struct nested {
    struct sh_client *client;
    struct client_tally tally;
    enum sh_error async, sync, status;
};

static void call_from_within(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct nested *nested = arg;
    struct sh_entry e = client_entry("123456789");
    struct sh_status status;
    (void)error;
    (void)result;
    nested->sync = sh_append(nested->client, &e, 1, SH_ACK_LOCAL, NULL);
    nested->status = sh_status(nested->client, &status);
    nested->async = sh_append_async(nested->client, &e, 1, SH_ACK_LOCAL, client_on_done, &nested->tally);
}

static void test_a_callback_may_append_but_never_waits(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct nested nested = {.client = c};
    struct sh_entry e = client_entry("x");
    assert_int_equal(sh_append_async(c, &e, 1, SH_ACK_LOCAL, call_from_within, &nested), SH_OK);
    NODE_WAIT(n, nested.tally.called == 1);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(nested.async, SH_OK);
    assert_int_equal(nested.sync, SH_BAD_REQUEST);
    assert_int_equal(nested.status, SH_BAD_REQUEST);
    assert_int_equal(nested.tally.failed, 0);
    sh_close(c);
    node_stop(n);
}

static void test_no_answer_in_time_is_unknown_and_a_late_one_harmless(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.timeout_ms = 5000; /* long enough for the last append on a busy machine */
    assert_int_equal(sh_open(&o, &c), SH_OK);
    NODE_SET(n, n->hold = true);
    assert_int_equal(client_append(c, "1", NULL), SH_TIMEOUT);
    client_append_numbers(c, &t, 2, 2);
    NODE_WAIT(n, t.called == 1);
    assert_int_equal(t.error, SH_TIMEOUT);
    NODE_WAIT(n, n->held_count == 2);
    NODE_SET(n, n->hold = false);
    assert_int_equal(client_append(c, "3", NULL), SH_OK);
    assert_int_equal(t.called, 1);
    client_check_numbers(c, 1, 1, 3);
    sh_close(c);
    node_stop(n);
}

static void test_nobody_there_is_told_in_time(void **state)
{
    (void)state;
    const char *endpoints[] = {"ipc:///tmp/shc-nobody/query"};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    struct sh_status status;
    o.timeout_ms = 100;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(client_append(c, "1", NULL), SH_TIMEOUT);
    assert_int_equal(sh_status(c, &status), SH_UNAVAILABLE);
    client_append_numbers(c, &t, 1, 3);
    assert_int_equal(sh_flush(c), SH_OK); /* never sent and given up: gone */
    assert_int_equal(t.called, 3);
    assert_int_equal(t.error, SH_TIMEOUT);
    sh_close(c);
}

static void test_close_answers_what_is_open(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct client_tally t = {0};
    struct sh_reader *r;
    struct sh_event e;
    NODE_SET(n, n->hold = true);
    client_append_numbers(c, &t, 1, 10);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.follow = true}, &r), SH_OK);
    (void)sh_read_next(r, 1, &e);
    sh_read_close(r);
    NODE_WAIT(n, n->held_count > 0);
    sh_close(c);
    assert_int_equal(t.called, 10);
    assert_int_equal(t.failed, 10);
    assert_int_equal(t.error, SH_UNAVAILABLE);
    node_stop(n);
}

static void test_the_most_bytes_of_an_append_are_known_once_the_node_is(void **state)
{
    (void)state;
    const char *nobody[] = {"ipc:///tmp/shc-nobody/query"};
    struct sh_options o = client_options(nobody, 1);
    struct node *n = node_start();
    struct sh_client *c;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(sh_append_bytes_max(c), 0);
    sh_close(c);
    c = client_open(n);
    assert_int_equal(client_append(c, "x", NULL), SH_OK);
    size_t most = sh_append_bytes_max(c);
    char *payload = xcalloc(1, most + 1);
    struct sh_entry fits = {.stream = "stream",
                            .payload = payload,
                            .payload_bytes = most - strlen("stream") - 10},
                    large = {.payload = payload, .payload_bytes = most};
    assert_int_equal(sh_append(c, &fits, 1, SH_ACK_LOCAL, NULL), SH_OK);
    assert_int_equal(sh_append(c, &large, 1, SH_ACK_LOCAL, NULL), SH_TOO_LARGE);
    free(payload);
    sh_close(c);
    node_stop(n);
}

static void test_bad_options_are_refused(void **state)
{
    (void)state;
    const char *good[] = {"ipc:///tmp/x"}, *bad[] = {"http://x"};
    struct sh_client *c;
    struct sh_options o = client_options(good, 0);
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = client_options(bad, 1);
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = client_options(good, 1);
    o.in_flight = 0;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    assert_string_not_equal(sh_last_error_detail(), "");
    o = client_options(good, 1);
    o.timeout_ms = 0;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = client_options(good, 1);
    o.batch_entries = ENTRIES_MAX + 1;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = client_options(good, 1);
    o.ack_timeout_ms = 86400001;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_queue_makes_appends_wait),
        cmocka_unit_test(test_a_callback_may_append_but_never_waits),
        cmocka_unit_test(test_no_answer_in_time_is_unknown_and_a_late_one_harmless),
        cmocka_unit_test(test_nobody_there_is_told_in_time),
        cmocka_unit_test(test_close_answers_what_is_open),
        cmocka_unit_test(test_the_most_bytes_of_an_append_are_known_once_the_node_is),
        cmocka_unit_test(test_bad_options_are_refused),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
