/* libshanghai's acknowledgements: what waits for others holds up nothing else, and has time of its own. */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>

/* One request of each acknowledgement is under way at a time. */
static struct sh_client *open_client(struct node *n, uint32_t timeout_ms)
{
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct sh_client *c;
    o.in_flight = 1;
    o.timeout_ms = timeout_ms;
    o.ack_timeout_ms = 60000;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    return c;
}

static void append(struct sh_client *c, struct client_tally *t, enum sh_ack ack)
{
    struct sh_entry entry = client_entry("x");
    assert_int_equal(sh_append_async(c, &entry, 1, ack, client_on_done, t), SH_OK);
}

static uint32_t entries_of(const struct node *n, enum sh_ack ack)
{
    uint32_t entries = 0;
    for (size_t i = 0; i < n->frame_count; i++)
        entries += n->frames[i].ack == (uint64_t)ack ? n->frames[i].count : 0;
    return entries;
}

static void test_the_answer_says_what_was_reached(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = open_client(n, 10000);
    struct sh_entry entry = client_entry("x");
    struct sh_append_result result;
    for (enum sh_ack reached = SH_ACK_LOCAL; reached <= SH_ACK_ALL; reached++) {
        NODE_SET(n, n->reached = reached);
        assert_int_equal(sh_append(c, &entry, 1, SH_ACK_QUORUM, &result), SH_OK);
        assert_int_equal(result.ack, reached);
        assert_int_equal(n->ack_timeout_ms, 60000);
    }
    sh_close(c);
    node_stop(n);
}

static void test_what_waits_for_others_holds_up_nothing_else(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = open_client(n, 10000);
    struct client_tally quorum = {0}, all = {0};
    struct sh_append_result result;
    NODE_SET(n, (n->hold_others = true, n->reached = SH_ACK_ALL));
    for (unsigned i = 0; i < 10; i++) {
        append(c, &quorum, SH_ACK_QUORUM);
        append(c, &all, SH_ACK_ALL);
    }
    NODE_WAIT(n, n->held_count == 2); /* all that may be under way */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(client_append(c, "x", &result), SH_OK);
    assert_int_equal(quorum.called + all.called, 0);
    NODE_SET(n, n->hold_others = false);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(quorum.called + all.called, 20);
    assert_int_equal(quorum.failed + all.failed, 0);
    assert_int_equal(n->conflicts, 0);
    sh_close(c);
    node_stop(n);
}

static void test_acknowledgements_never_share_a_frame(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = open_client(n, 10000);
    struct client_tally tallies[3] = {{0}};
    NODE_SET(n, n->hold = true);
    for (enum sh_ack ack = SH_ACK_LOCAL; ack <= SH_ACK_ALL; ack++)
        append(c, &tallies[ack], ack);
    NODE_WAIT(n, n->held_count == 3);
    for (unsigned i = 1; i < 100; i++)
        for (enum sh_ack ack = SH_ACK_LOCAL; ack <= SH_ACK_ALL; ack++)
            append(c, &tallies[ack], ack);
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    for (enum sh_ack ack = SH_ACK_LOCAL; ack <= SH_ACK_ALL; ack++) {
        assert_int_equal(tallies[ack].called, 100);
        assert_int_equal(tallies[ack].failed, 0);
        assert_int_equal(entries_of(n, ack), 100);
    }
    assert_int_equal(n->frame_count, 6); /* the first of each, and all of each that gathered meanwhile */
    sh_close(c);
    node_stop(n);
}

/* What waits keeps its sequence however much else is appended meanwhile. */
static void test_each_acknowledgement_is_a_producer(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = open_client(n, 10000);
    struct client_tally t = {0};
    NODE_SET(n, n->hold_others = true);
    append(c, &t, SH_ACK_QUORUM);
    NODE_WAIT(n, n->held_count == 1);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(client_append(c, "x", NULL), SH_OK);
    assert_int_equal(n->frame_count, 6);
    for (size_t i = 1; i < 6; i++) {
        assert_false(id16_equal(n->frames[0].producer, n->frames[i].producer));
        assert_int_equal(n->frames[i].sequence, i);
    }
    NODE_SET(n, n->hold_others = false);
    assert_int_equal(sh_flush(c), SH_OK);
    sh_close(c);
    node_stop(n);
}

static void test_what_waits_is_sent_again_to_the_next_process(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = open_client(n, 10000);
    struct client_tally t = {0};
    NODE_SET(n, (n->hold_others = true, n->reached = SH_ACK_QUORUM));
    append(c, &t, SH_ACK_QUORUM);
    NODE_WAIT(n, n->held_count == 1);
    node_kill(n);
    NODE_SET(n, n->held_count = 0);
    node_restart(n);
    NODE_WAIT(n, n->held_count == 1);
    assert_int_equal(t.called, 0);
    NODE_SET(n, n->hold_others = false);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(t.lsn, 1);
    assert_int_equal(n->frame_count, 1);
    sh_close(c);
    node_stop(n);
}

/* And an append that doesn't wait has no more time than before, though it stands behind one that has. */
static void test_waiting_for_others_has_time_of_its_own(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = open_client(n, 300);
    struct client_tally waiting = {0}, local = {0};
    while (client_append(c, "x", NULL) != SH_OK) /* the node is met */
        continue;
    NODE_SET(n, n->hold = true);
    append(c, &waiting, SH_ACK_QUORUM);
    append(c, &local, SH_ACK_LOCAL);
    assert_int_equal(client_append(c, "x", NULL), SH_TIMEOUT);
    NODE_WAIT(n, local.called == 1);
    assert_int_equal(local.error, SH_TIMEOUT);
    assert_int_equal(waiting.called, 0);
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(waiting.called, 1);
    assert_int_equal(waiting.failed, 0);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_answer_says_what_was_reached),
        cmocka_unit_test(test_what_waits_for_others_holds_up_nothing_else),
        cmocka_unit_test(test_acknowledgements_never_share_a_frame),
        cmocka_unit_test(test_each_acknowledgement_is_a_producer),
        cmocka_unit_test(test_what_waits_is_sent_again_to_the_next_process),
        cmocka_unit_test(test_waiting_for_others_has_time_of_its_own),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
