/* replsvc's core: fetches of others are judged, answered, or held until there is something to send. */
#include "repl_story.h"

static struct log_chain own = {.next_lsn = 101, .checksum = 0x1234, .position = 9000};
static uint64_t token;

static int begin_serving(void **state)
{
    begin(state);
    peer_hold(&rig, 1, own, 1);
    peer_hold(&rig, 2, peer_place(20, 2000), 1);
    peer_tell_logs(&rig);
    peer_clear(&rig);
    return 0;
}

static void assert_refused_with(enum sh_error error)
{
    struct repl_action refusal = peer_expect(&rig, REPL_REFUSE);
    assert_int_equal(refusal.token, token);
    assert_int_equal(refusal.error, error);
    assert_int_equal(peer_count(&rig, REPL_SERVE), 0);
}

static void ask(unsigned node, struct msg_fetch fetch)
{
    peer_ask(&rig, ++token, node, &fetch);
}

static struct repl_serve assert_served(uint64_t which)
{
    struct repl_action serve = peer_expect(&rig, REPL_SERVE);
    assert_int_equal(serve.token, which);
    return serve.serve;
}

static void test_frames_that_are_there_are_served_at_once(void **state)
{
    (void)state;
    struct msg_fetch fetch = peer_fetch(2, 1, peer_place(50, 4000));
    fetch.most_entries = 77;
    ask(2, fetch);
    struct repl_serve serve = assert_served(token);
    assert_true(id16_equal(serve.log, peer_log(1)));
    assert_int_equal(serve.from.position, 4000);
    assert_int_equal(serve.from.next_lsn, 51);
    assert_int_equal(serve.from.checksum, peer_place(50, 4000).checksum);
    assert_int_equal(serve.durable.position, own.position);
    assert_int_equal(serve.most_bytes, REPL_FETCH_BYTES);
    assert_int_equal(serve.most_entries, 77);
    assert_int_equal(peer_counters(&rig)->served, 1);
}

static void test_copies_are_served_too(void **state)
{
    (void)state;
    ask(3, peer_fetch(3, 2, peer_place(5, 500)));
    assert_int_equal(assert_served(token).durable.position, 2000);
}

static void test_at_the_end_a_fetch_waits_for_more(void **state)
{
    (void)state;
    ask(2, peer_fetch(2, 1, own));
    peer_wait(&rig, 3000);
    peer_tell_logs(&rig); /* nothing new */
    assert_int_equal(peer_count(&rig, REPL_SERVE), 0);
    peer_hold(&rig, 1, peer_place(110, 9900), 1);
    peer_tell_logs(&rig);
    assert_int_equal(assert_served(token).durable.position, 9900);
    peer_wait(&rig, 10000);
    assert_int_equal(peer_count(&rig, REPL_SERVE), 0); /* once */
}

static void test_a_fetch_waits_as_long_as_it_says(void **state)
{
    (void)state;
    struct msg_fetch fetch = peer_fetch(2, 1, own);
    fetch.wait_ms = 1200;
    ask(2, fetch);
    peer_wait(&rig, 1190);
    assert_int_equal(peer_count(&rig, REPL_SERVE), 0);
    peer_wait(&rig, 20);
    assert_served(token);
    fetch.wait_ms = 0;
    ask(2, fetch);
    assert_served(token);
}

static void test_no_fetch_waits_longer_than_five_seconds(void **state)
{
    (void)state;
    struct msg_fetch fetch = peer_fetch(2, 1, own);
    fetch.wait_ms = 10000; /* the most that the message can say */
    ask(2, fetch);
    peer_wait(&rig, REPL_WAIT_MS + 10);
    assert_served(token);
}

/* Another chain ends there: nothing is gained by waiting. */
static void test_only_at_the_very_end_a_fetch_waits(void **state)
{
    (void)state;
    struct log_chain at = own;
    at.checksum++;
    ask(2, peer_fetch(2, 1, at));
    assert_served(token);
    at = own;
    at.next_lsn++;
    ask(2, peer_fetch(2, 1, at));
    assert_served(token);
    at = own;
    at.position++; /* beyond the end: behind, says the reader */
    ask(2, peer_fetch(2, 1, at));
    assert_served(token);
}

static void test_a_later_fetch_takes_the_place_of_one_that_waits(void **state)
{
    (void)state;
    ask(2, peer_fetch(2, 1, own));
    uint64_t first = token;
    ask(2, peer_fetch(2, 1, own));
    struct repl_action refusal = peer_expect(&rig, REPL_REFUSE);
    assert_int_equal(refusal.token, first);
    assert_int_equal(refusal.error, SH_UNAVAILABLE);
    ask(2, peer_fetch(2, 2, peer_place(20, 2000))); /* of another log */
    ask(3, peer_fetch(3, 1, own));                  /* of another member */
    assert_int_equal(peer_count(&rig, REPL_REFUSE), 0);
    peer_wait(&rig, 6000);
    assert_int_equal(peer_count(&rig, REPL_SERVE), 3);
}

static void test_fetches_that_wait_are_bounded(void **state)
{
    (void)state;
    enum { LOGS = REPL_LOGS_MAX - 3, MEMBERS = 4 };
    for (unsigned i = 0; i < LOGS; i++)
        peer_hold(&rig, 100 + i, peer_place(1, 100), 1);
    peer_add_member(&rig, 4);
    peer_add_member(&rig, 5);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    peer_clear(&rig);
    for (unsigned member = 2; member < 2 + MEMBERS; member++)
        for (unsigned i = 0; i < LOGS; i++) {
            ask(member, peer_fetch(member, 100 + i, peer_place(1, 100)));
            rig.now_ns += NS_PER_MS;
        }
    assert_int_equal(peer_count(&rig, REPL_REFUSE), LOGS * MEMBERS - 128);
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).error, SH_OVERLOADED);
    peer_wait(&rig, 6000);
    assert_int_equal(peer_count(&rig, REPL_SERVE), 128);
}

static void test_strangers_are_refused(void **state)
{
    (void)state;
    ask(7, peer_fetch(7, 1, own));
    assert_refused_with(SH_NOT_MEMBER);
    peer_expect_notice(&rig, "no member");
    ask(2, peer_fetch(7, 1, own)); /* another identity */
    assert_refused_with(SH_NOT_MEMBER);
    struct msg_fetch fetch = peer_fetch(2, 1, own);
    fetch.from = (struct id16){{0}};
    peer_member(&rig, 3)->log = (struct id16){{0}}; /* has never come */
    peer_tell_members(&rig);
    ask(3, fetch);
    assert_refused_with(SH_NOT_MEMBER);
    assert_int_equal(peer_counters(&rig)->not_member, 3);
}

static void test_strangers_do_not_fill_the_log(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        ask(1000 + i, peer_fetch(7, 1, own));
        peer_position(&rig, 1000 + i, 1, 1);
    }
    assert_int_equal(peer_count(&rig, REPL_REFUSE), 1000);
    assert_int_equal(peer_count(&rig, REPL_NOTICE), 2);
    assert_int_equal(peer_counters(&rig)->not_member, 2000);
    assert_string_equal(peer_expect_notice(&rig, "a fetch").detail, "n1000");
}

static void assert_stranger(enum repl_stranger reason, const uint64_t *counter, const char *said)
{
    for (unsigned i = 1; i <= 2; i++) {
        peer_stranger(&rig, reason, "somebody");
        assert_int_equal(*counter, i);
    }
    struct repl_action notice = peer_expect_notice(&rig, said);
    assert_string_equal(notice.detail, "somebody");
}

/* What is told of one does not hide another. */
static void test_each_kind_of_stranger_is_counted_and_told_once(void **state)
{
    (void)state;
    const struct repl_counters *c = peer_counters(&rig);
    assert_stranger(REPL_MALFORMED, &c->malformed, "a replication message is malformed: refused");
    assert_stranger(REPL_OTHER_VERSION, &c->other_version,
                    "a replication message of another protocol version: refused");
    assert_stranger(REPL_OTHER_CLUSTER, &c->other_cluster,
                    "a replication message of another cluster: refused");
    assert_stranger(REPL_TOO_MANY, &c->too_many, "without reading the answers: the connection is closed");
    assert_int_equal(peer_count(&rig, REPL_NOTICE), 0);
}

static void test_logs_that_are_not_held_are_not_found(void **state)
{
    (void)state;
    ask(2, peer_fetch(2, 9, own));
    assert_refused_with(SH_NOT_FOUND);
    assert_int_equal(peer_counters(&rig)->not_held, 1);
}

static void test_nothing_comes_behind_the_last_lsn(void **state)
{
    (void)state;
    struct msg_fetch fetch = peer_fetch(2, 1, own);
    fetch.lsn = UINT64_MAX;
    ask(2, fetch);
    assert_refused_with(SH_BAD_REQUEST);
    fetch.log = peer_log(9); /* held or not */
    ask(2, fetch);
    assert_refused_with(SH_BAD_REQUEST);
    assert_int_equal(peer_counters(&rig)->malformed, 2);
    assert_int_equal(peer_counters(&rig)->not_held, 0);
}

static void test_absurd_numbers_do_no_harm(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0, 1, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
    enum { COUNT = sizeof numbers / sizeof numbers[0] };
    for (unsigned i = 0; i < COUNT * COUNT * COUNT; i++) {
        struct msg_fetch fetch = peer_fetch(2, 1, own);
        fetch.position = numbers[i % COUNT];
        fetch.lsn = numbers[i / COUNT % COUNT];
        fetch.checksum = numbers[i / COUNT / COUNT];
        fetch.most_bytes = fetch.most_entries = numbers[i % COUNT];
        fetch.anew = i % 2;
        fetch.repair = i % 3 == 1;
        ask(2, fetch);
        assert_int_equal(peer_count(&rig, REPL_SERVE) + peer_count(&rig, REPL_REFUSE), 1);
        peer_clear(&rig);
    }
}

static void test_nobody_is_served_before_it_is_known_who_may_ask(void **state)
{
    (void)state;
    peer_restart(&rig);
    peer_tell_logs(&rig);
    ask(2, peer_fetch(2, 1, own));
    assert_refused_with(SH_UNAVAILABLE);
    peer_restart(&rig);
    peer_tell_members(&rig);
    ask(2, peer_fetch(2, 1, own));
    assert_refused_with(SH_UNAVAILABLE);
}

static void test_who_leaves_waits_no_longer(void **state)
{
    (void)state;
    ask(2, peer_fetch(2, 1, own));
    uint64_t of_n2 = token;
    ask(3, peer_fetch(3, 1, own));
    uint64_t of_n3 = token;
    peer_remove_member(&rig, 2);
    peer_tell_members(&rig);
    struct repl_action refusal = peer_expect(&rig, REPL_REFUSE);
    assert_int_equal(refusal.token, of_n2);
    assert_int_equal(refusal.error, SH_NOT_MEMBER);
    ask(3, peer_fetch(3, 1, own)); /* who is another number now, is the same */
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).token, of_n3);
}

static void test_who_has_another_identity_waits_no_longer(void **state)
{
    (void)state;
    ask(2, peer_fetch(2, 1, own));
    peer_member(&rig, 2)->log = peer_log(22);
    peer_tell_members(&rig);
    assert_refused_with(SH_NOT_MEMBER);
}

static void test_a_log_that_goes_is_not_waited_for(void **state)
{
    (void)state;
    ask(3, peer_fetch(3, 2, peer_place(20, 2000)));
    rig.held_count--;
    peer_tell_logs(&rig);
    assert_refused_with(SH_NOT_FOUND);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_serving, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_frames_that_are_there_are_served_at_once),
        TEST(test_copies_are_served_too),
        TEST(test_at_the_end_a_fetch_waits_for_more),
        TEST(test_a_fetch_waits_as_long_as_it_says),
        TEST(test_no_fetch_waits_longer_than_five_seconds),
        TEST(test_only_at_the_very_end_a_fetch_waits),
        TEST(test_a_later_fetch_takes_the_place_of_one_that_waits),
        TEST(test_fetches_that_wait_are_bounded),
        TEST(test_strangers_are_refused),
        TEST(test_strangers_do_not_fill_the_log),
        TEST(test_each_kind_of_stranger_is_counted_and_told_once),
        TEST(test_logs_that_are_not_held_are_not_found),
        TEST(test_nothing_comes_behind_the_last_lsn),
        TEST(test_absurd_numbers_do_no_harm),
        TEST(test_nobody_is_served_before_it_is_known_who_may_ask),
        TEST(test_who_leaves_waits_no_longer),
        TEST(test_who_has_another_identity_waits_no_longer),
        TEST(test_a_log_that_goes_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
