/* The rules of a link, without sockets: both ends' cores, and what may get lost, doubled or late between
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "link_session.h"
#include "mp.h"

/* ---- helpers ---- */

static const struct slice empty_map = {(const uint8_t *)"\x80", 1};

/* The numbers of the answers in a reply. */
static unsigned numbers_in(struct slice answers, uint64_t *numbers, unsigned room)
{
    struct mp m = mp_of(answers);
    uint32_t count, parts;
    uint64_t type;
    struct slice body;
    assert_true(mp_array(&m, &count));
    assert_true(count <= room);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(mp_array(&m, &parts) && parts == 3);
        assert_true(mp_uint(&m, &numbers[i]) && mp_uint(&m, &type) && mp_raw(&m, &body));
    }
    assert_true(mp_at_end(&m));
    return count;
}

static void assert_reply(struct link_receiver *r, uint64_t reply, unsigned count, const uint64_t *expected)
{
    uint64_t number, numbers[64];
    unsigned got = numbers_in(link_receiver_reply(r, &number, INT64_MAX - 1), numbers, 64);
    assert_int_equal(number, reply);
    assert_int_equal(got, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(numbers[i], expected[i]);
}
#define assert_answers(r, reply, ...)                                                                        \
    assert_reply(r, reply, sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),                             \
                 (const uint64_t[]){__VA_ARGS__})

/* ---- numbered things ---- */

static void test_items_are_found_by_number_and_keep_their_order(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static struct link_item items[COUNT];
    struct link_items all = {0};
    for (unsigned i = 0; i < COUNT; i++)
        link_items_add(&all, &items[i], 3 * i + 7);
    for (unsigned i = 0; i < COUNT; i += 2)
        link_items_remove(&all, link_items_find(&all, 3 * i + 7));
    assert_int_equal(all.count, COUNT / 2);
    assert_null(link_items_find(&all, 7));
    assert_null(link_items_find(&all, 8));
    unsigned i = 1;
    for (struct link_item *item = all.first; item != NULL; item = item->next, i += 2) {
        assert_int_equal(item->number, 3 * i + 7);
        assert_ptr_equal(link_items_find(&all, item->number), item);
    }
    assert_ptr_equal(all.last, &items[COUNT - 1]);
    link_items_free(&all);
}

/* ---- the daemon's end ---- */

static void test_requests_are_accepted_once_and_in_order(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 1};
    assert_true(link_receiver_accept(&r, 1, 0));
    assert_false(link_receiver_accept(&r, 1, 0)); /* doubled */
    assert_true(link_receiver_accept(&r, 2, 1));
    assert_false(link_receiver_accept(&r, 4, 3)); /* 3 is missing and was not answered */
    assert_true(link_receiver_accept(&r, 3, 2));
    assert_true(link_receiver_accept(&r, 4, 3));
    assert_int_equal(r.accepted, 4);
}

static void test_a_gap_of_answered_requests_is_no_gap(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 1};
    /* A new incarnation; 5 is the first that has no answer, 6 and 7 have one, 8 follows. */
    assert_true(link_receiver_accept(&r, 5, 0));
    assert_true(link_receiver_accept(&r, 8, 5));
    assert_false(link_receiver_accept(&r, 6, 5));
}

static void test_a_number_that_makes_no_sense_is_dropped(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 1, .accepted = 10};
    assert_false(link_receiver_accept(&r, 0, 0));
    assert_false(link_receiver_accept(&r, 11, 11));
    assert_false(link_receiver_accept(&r, 11, UINT64_MAX));
    assert_int_equal(r.accepted, 10);
}

static void test_answers_are_kept_until_a_poll_has_them(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 9};
    link_receiver_answer(&r, 2, 4, empty_map, 0);
    link_receiver_answer(&r, 1, 4, empty_map, 0);
    assert_true(link_receiver_on_poll(&r, 9, 0, 0));
    assert_answers(&r, 1, 2, 1);
    assert_true(link_receiver_ready_ns(&r) == INT64_MAX); /* on its way */
    link_receiver_answer(&r, 3, 4, empty_map, 0);

    assert_true(link_receiver_on_poll(&r, 9, 0, 0)); /* reply 1 was lost */
    assert_answers(&r, 2, 2, 1);
    assert_true(link_receiver_on_poll(&r, 9, 2, 0));
    assert_answers(&r, 3, 3);
    assert_true(link_receiver_on_poll(&r, 9, 3, 0));
    assert_true(link_receiver_ready_ns(&r) == INT64_MAX);
    assert_int_equal(r.answer_bytes, 0);
    assert_reply(&r, 3, 0, NULL);
    link_receiver_free(&r);
}

static void test_a_stale_poll_acknowledges_nothing(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 9};
    link_receiver_answer(&r, 1, 4, empty_map, 0);
    link_receiver_on_poll(&r, 9, 0, 0);
    assert_answers(&r, 1, 1);
    link_receiver_on_poll(&r, 9, 1, 0);
    link_receiver_answer(&r, 2, 4, empty_map, 0);
    assert_answers(&r, 2, 2);
    link_receiver_on_poll(&r, 9, 0, 0); /* sent before either, arrives late: 2 stays */
    assert_answers(&r, 3, 2);
    assert_false(link_receiver_on_poll(&r, 8, 3, 0)); /* of another incarnation: says nothing about ours */
    assert_answers(&r, 4, 2);
    link_receiver_free(&r);
}

static void test_answers_that_are_never_acknowledged_are_sent_more_and_more_rarely(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 9};
    uint64_t reply;
    int64_t now_ns = NS_PER_S, end_ns = now_ns + 100 * NS_PER_S;
    unsigned carried = 0;
    link_receiver_answer(&r, 1, 4, empty_map, now_ns);
    for (; now_ns < end_ns; now_ns += NS_PER_MS) {
        link_receiver_on_poll(&r, 9, 0, now_ns);
        bool due = link_receiver_ready_ns(&r) <= now_ns;
        struct slice answers = link_receiver_reply(&r, &reply, now_ns);
        assert_int_equal(answers.len > 1, due);
        carried += due;
        assert_true(carried >= 3 || now_ns < 2 * NS_PER_S); /* the first ones at once */
    }
    assert_in_range(carried, 20, 40);
    link_receiver_free(&r);
}

static void test_an_empty_reply_after_a_lost_one_acknowledges_nothing(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 9};
    uint64_t reply;
    link_receiver_answer(&r, 1, 4, empty_map, 0);
    for (int i = 0; i < 3; i++) {
        assert_answers(&r, i + 1, 1); /* and lost */
        link_receiver_on_poll(&r, 9, 0, 0);
    }
    assert_int_equal(link_receiver_reply(&r, &reply, 0).len, 1); /* not due yet */
    link_receiver_on_poll(&r, 9, reply, 0);
    assert_answers(&r, 4, 1);
    link_receiver_on_poll(&r, 9, 4, 0);
    assert_int_equal(r.answer_bytes, 0);
    link_receiver_free(&r);
}

static void test_a_reply_is_bounded_but_holds_one_answer_at_least(void **state)
{
    (void)state;
    struct link_receiver r = {.incarnation = 9};
    struct buf large = {0}, half = {0};
    msgpack_packer pk;
    static const uint8_t zeros[LINK_CHUNK_BYTES + 1];
    mp_packer(&pk, &large);
    mp_pack_bin(&pk, slice_of(zeros, sizeof zeros));
    mp_packer(&pk, &half);
    mp_pack_bin(&pk, slice_of(zeros, LINK_CHUNK_BYTES / 2));
    link_receiver_answer(&r, 1, 4, buf_slice(&half), 0);
    link_receiver_answer(&r, 2, 4, buf_slice(&half), 0);
    link_receiver_answer(&r, 3, 4, buf_slice(&large), 0);
    link_receiver_answer(&r, 4, 4, empty_map, 0);
    assert_answers(&r, 1, 1);
    link_receiver_on_poll(&r, 9, 1, 0);
    assert_answers(&r, 2, 2);
    link_receiver_on_poll(&r, 9, 2, 0);
    assert_answers(&r, 3, 3);
    link_receiver_on_poll(&r, 9, 3, 0);
    assert_answers(&r, 4, 4);
    link_receiver_free(&r);
    buf_free(&large);
    buf_free(&half);
}

/* ---- the client's end ---- */

static struct link_out outs[64];
static unsigned dropped;

static void count_drop(struct link_out *out)
{
    (void)out;
    dropped++;
}

static void queue(struct link_sender *s, unsigned count, size_t bytes)
{
    for (unsigned i = 0; i < count; i++)
        link_sender_add(s, &outs[s->last_number], bytes);
}

static void hear(struct link_sender *s, uint64_t incarnation, uint64_t accepted, uint64_t bytes,
                 uint64_t requests)
{
    struct link_news news = {incarnation, s->received + 1, accepted, bytes, requests};
    link_sender_on_reply(s, &news, count_drop);
}

static void assert_sends(struct link_sender *s, uint64_t number, uint64_t previous)
{
    uint64_t p;
    struct link_out *out = link_sender_next(s, &p);
    assert_non_null(out);
    assert_int_equal(out->item.number, number);
    assert_int_equal(p, previous);
    link_sender_sent(s);
}

static void assert_sends_nothing(struct link_sender *s)
{
    uint64_t p;
    assert_null(link_sender_next(s, &p));
}

static void test_nothing_is_sent_before_the_far_end_has_spoken(void **state)
{
    (void)state;
    struct link_sender s = {0};
    queue(&s, 2, 10);
    assert_sends_nothing(&s);
    hear(&s, 1, 0, 100, 10);
    assert_sends(&s, 1, 0);
    link_sender_lost(&s);
    assert_sends_nothing(&s);
    link_items_free(&s.outstanding);
}

static void test_credit_bounds_bytes_and_requests_but_one_may_always_go(void **state)
{
    (void)state;
    struct link_sender s = {0};
    queue(&s, 5, 40);
    hear(&s, 1, 0, 100, 10);
    assert_sends(&s, 1, 0);
    assert_sends(&s, 2, 1);
    assert_sends_nothing(&s); /* 120 bytes */
    hear(&s, 1, 2, 1000, 3);
    assert_sends(&s, 3, 2);
    assert_sends_nothing(&s); /* 4 requests */
    assert_non_null(link_sender_take(&s, 1));
    assert_sends(&s, 4, 3);
    hear(&s, 1, 4, 1, 1);
    assert_sends_nothing(&s);
    for (uint64_t i = 2; i <= 4; i++)
        assert_non_null(link_sender_take(&s, i));
    assert_sends(&s, 5, 0); /* larger than all credit */
    assert_int_equal(s.sent_bytes, 40);
    link_items_free(&s.outstanding);
}

static void test_after_a_broken_connection_only_what_was_not_accepted_is_sent_again(void **state)
{
    (void)state;
    struct link_sender s = {0};
    queue(&s, 5, 1);
    hear(&s, 1, 0, 100, 10);
    for (uint64_t i = 1; i <= 5; i++)
        assert_sends(&s, i, i - 1);
    link_sender_lost(&s);
    hear(&s, 1, 3, 100, 10);
    assert_int_equal(s.sent_count, 3);
    assert_sends(&s, 4, 3);
    assert_sends(&s, 5, 4);
    assert_sends_nothing(&s);
    link_items_free(&s.outstanding);
}

static void test_another_incarnation_gets_all_that_is_unanswered_in_order_with_the_same_numbers(void **state)
{
    (void)state;
    struct link_sender s = {0};
    queue(&s, 6, 1);
    hear(&s, 1, 0, 100, 10);
    for (uint64_t i = 1; i <= 6; i++)
        assert_sends(&s, i, i - 1);
    /* Answers come out of order. */
    link_sender_take(&s, 3);
    link_sender_take(&s, 5);
    assert_null(link_sender_take(&s, 5));
    hear(&s, 2, 0, 100, 10); /* without a broken connection: the session was dropped */
    assert_sends(&s, 1, 0);
    assert_sends(&s, 2, 1);
    assert_sends(&s, 4, 2);
    assert_sends(&s, 6, 4);
    assert_sends_nothing(&s);
    link_items_free(&s.outstanding);
}

static void test_a_forgotten_request_keeps_its_credit_and_is_not_sent_again(void **state)
{
    (void)state;
    struct link_sender s = {0};
    dropped = 0;
    queue(&s, 4, 1);
    hear(&s, 1, 0, 100, 2);
    assert_sends(&s, 1, 0);
    assert_sends(&s, 2, 1);
    assert_null(link_sender_forget(&s, 1));     /* on its way */
    assert_non_null(link_sender_forget(&s, 3)); /* still here */
    assert_null(link_sender_forget(&s, 77));
    assert_sends_nothing(&s);
    assert_int_equal(s.forgotten, 1);
    link_sender_lost(&s);
    hear(&s, 2, 0, 100, 2);
    assert_int_equal(dropped, 1);
    assert_int_equal(s.forgotten, 0);
    assert_sends(&s, 2, 0);
    assert_sends(&s, 4, 2);
    link_items_free(&s.outstanding);
}

/* ---- both ends and a world between them that loses, doubles, delays and restarts ---- */

struct flying {
    uint64_t number, previous;
};

struct world {
    uint32_t seed;
    int64_t now_ns;
    struct link_sender client;
    struct link_receiver server;
    struct flying wires[4][64]; /* old connections may still deliver; the last is the present one */
    unsigned wire_counts[4];
    uint64_t executed; /* highest number executed by this incarnation of the server */
    struct link_out *requests;
};

static unsigned dice(struct world *w, unsigned sides)
{
    w->seed = w->seed * 1664525 + 1013904223;
    return (w->seed >> 16) % sides;
}

static void deliver_one(struct world *w, unsigned wire)
{
    struct flying f = w->wires[wire][0];
    if (w->wire_counts[wire] == 0)
        return;
    memmove(&w->wires[wire][0], &w->wires[wire][1], --w->wire_counts[wire] * sizeof f);
    if (!link_receiver_accept(&w->server, f.number, f.previous))
        return;
    assert_true(f.number > w->executed); /* once, and in order */
    w->executed = f.number;
    link_receiver_answer(&w->server, f.number, 4, empty_map, 0);
}

static void poll_once(struct world *w)
{
    uint64_t reply, numbers[256];
    link_receiver_on_poll(&w->server, w->client.incarnation, w->client.received, w->now_ns);
    struct link_news news = {w->server.incarnation, 0, w->server.accepted, 20, 5 + dice(w, 10)};
    unsigned count = numbers_in(link_receiver_reply(&w->server, &reply, w->now_ns), numbers, 256);
    if (dice(w, 4) == 0)
        return; /* lost on its way */
    news.reply = reply;
    link_sender_on_reply(&w->client, &news, count_drop);
    for (unsigned i = 0; i < count; i++)
        link_sender_take(&w->client, numbers[i]); /* NULL: answered by an earlier incarnation */
}

/* What was in the pipe is lost; what the old socket still holds may be delivered for a while. */
static void break_connection(struct world *w)
{
    unsigned lost = dice(w, w->wire_counts[3] + 1);
    w->wire_counts[3] -= lost;
    memmove(&w->wires[3][0], &w->wires[3][lost], w->wire_counts[3] * sizeof w->wires[3][0]);
    memmove(w->wires, w->wires + 1, 3 * sizeof w->wires[0]);
    memmove(w->wire_counts, w->wire_counts + 1, 3 * sizeof w->wire_counts[0]);
    w->wire_counts[3] = 0;
    link_sender_lost(&w->client);
}

/* The server was killed, or has dropped the session. */
static void forget_session(struct world *w)
{
    link_receiver_free(&w->server);
    w->server = (struct link_receiver){.incarnation = w->server.incarnation + 1};
    w->executed = 0;
}

static void send_some(struct world *w)
{
    uint64_t previous;
    struct link_out *out;
    while (w->wire_counts[3] < 64 && (out = link_sender_next(&w->client, &previous)) != NULL) {
        w->wires[3][w->wire_counts[3]++] = (struct flying){out->item.number, previous};
        link_sender_sent(&w->client);
    }
}

/* Once all are queued there is peace, and it must all come to an end. */
static void live(struct world *w, unsigned total)
{
    unsigned calm = 0;
    while (w->client.last_number < total || w->client.outstanding.count > 0) {
        if (w->client.last_number == total)
            assert_true(calm++ < 5000);
        else if (dice(w, 3) == 0)
            link_sender_add(&w->client, &w->requests[w->client.last_number], 1 + dice(w, 6));
        w->now_ns += NS_PER_S;
        send_some(w);
        for (unsigned i = dice(w, 6); i > 0; i--)
            deliver_one(w, dice(w, 4));
        if (dice(w, 3) == 0)
            poll_once(w);
        unsigned fate = calm == 0 ? dice(w, 200) : 200;
        if (fate < 2)
            forget_session(w);
        if (fate > 0 && fate < 6)
            break_connection(w);
    }
}

static void test_in_a_hostile_world_every_request_is_answered_and_none_executed_out_of_order(void **state)
{
    (void)state;
    enum { TOTAL = 2000, WORLDS = 30 };
    uint32_t seed = (uint32_t)random_u64();
    print_message("seed %u\n", seed);
    for (unsigned i = 0; i < WORLDS; i++) {
        struct world w = {.seed = seed + i, .server = {.incarnation = 1}};
        w.requests = xcalloc(TOTAL, sizeof *w.requests);
        live(&w, TOTAL);
        assert_int_equal(w.client.last_number, TOTAL);
        assert_int_equal(w.client.sent_bytes, 0);
        assert_int_equal(w.client.sent_count, 0);
        link_receiver_free(&w.server);
        link_items_free(&w.client.outstanding);
        free(w.requests);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_are_found_by_number_and_keep_their_order),
        cmocka_unit_test(test_requests_are_accepted_once_and_in_order),
        cmocka_unit_test(test_a_gap_of_answered_requests_is_no_gap),
        cmocka_unit_test(test_a_number_that_makes_no_sense_is_dropped),
        cmocka_unit_test(test_answers_are_kept_until_a_poll_has_them),
        cmocka_unit_test(test_a_stale_poll_acknowledges_nothing),
        cmocka_unit_test(test_answers_that_are_never_acknowledged_are_sent_more_and_more_rarely),
        cmocka_unit_test(test_an_empty_reply_after_a_lost_one_acknowledges_nothing),
        cmocka_unit_test(test_a_reply_is_bounded_but_holds_one_answer_at_least),
        cmocka_unit_test(test_nothing_is_sent_before_the_far_end_has_spoken),
        cmocka_unit_test(test_credit_bounds_bytes_and_requests_but_one_may_always_go),
        cmocka_unit_test(test_after_a_broken_connection_only_what_was_not_accepted_is_sent_again),
        cmocka_unit_test(test_another_incarnation_gets_all_that_is_unanswered_in_order_with_the_same_numbers),
        cmocka_unit_test(test_a_forgotten_request_keeps_its_credit_and_is_not_sent_again),
        cmocka_unit_test(test_in_a_hostile_world_every_request_is_answered_and_none_executed_out_of_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
