/* replsvc's core: before a log that may have lost its end is extended, others are asked what they have of it.
 */
#include "repl_parts.h"
#include "repl_story.h"

static struct log_chain own = {.next_lsn = 101, .checksum = 0x1234, .position = 9000};

static void tell_waiting(bool waits)
{
    struct repl_action action;
    repl_core_logs(rig.core, rig.now_ns, rig.boot, waits, rig.held, rig.held_count);
    while (repl_core_next_action(rig.core, &action))
        rig.actions[rig.action_count++] = action;
}

static int begin_waiting(void **state)
{
    begin(state);
    peer_restart(&rig);
    peer_hold(&rig, 1, own, 1);
    peer_tell_members(&rig);
    tell_waiting(true);
    return 0;
}

static struct repl_action expect_question(unsigned node)
{
    struct repl_action fetch = peer_expect_fetch(&rig, 1, node);
    assert_int_equal(fetch.slot, REPL_PROOF_SLOT);
    assert_int_equal(fetch.fetch.position, own.position);
    assert_int_equal(fetch.fetch.checksum, own.checksum);
    assert_int_equal(fetch.fetch.wait_ms, 0);
    return fetch;
}

static void assert_verdict(uint64_t verdict, const char *who)
{
    struct repl_action action = peer_expect(&rig, REPL_OWN_LOG);
    assert_int_equal(action.verdict, verdict);
    assert_int_equal(strncmp(action.detail, who, strlen(who)), 0);
    assert_int_equal(peer_fetches(&rig, 1), 0);
    peer_wait(&rig, 10000);
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0); /* once */
}

static void test_nobody_has_more(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0); /* n3 may */
    fetch = expect_question(3);
    peer_reply_state(&rig, &fetch, LOG_COPY_BEHIND, peer_place(50, 4000));
    assert_verdict(0, "");
}

static void test_who_is_known_to_have_more_need_not_be_asked(void **state)
{
    (void)state;
    expect_question(2);
    peer_watermark(&rig, 3, 1, peer_place(120, 11000));
    peer_restart(&rig);
    peer_hold(&rig, 1, own, 1);
    peer_tell_members(&rig);
    tell_waiting(true);
    assert_verdict(1, "n3 has it up to LSN 120");
}

/* A copy that is out of service is told as none. */
static void test_who_held_the_log_says_nothing_by_not_found(void **state)
{
    (void)state;
    expect_question(2);
    peer_watermark(&rig, 2, 1, peer_place(100, 9000));
    peer_watermark(&rig, 3, 1, peer_place(100, 9000));
    peer_restart(&rig);
    peer_hold(&rig, 1, own, 1);
    peer_tell_members(&rig);
    tell_waiting(true);
    struct repl_action fetch = expect_question(2);
    peer_error(&rig, &fetch, SH_NOT_FOUND);
    fetch = expect_question(3);
    peer_error(&rig, &fetch, SH_NOT_FOUND);
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
    peer_wait(&rig, 1000);
    expect_question(2); /* another round */
}

/* Or one of them would be asked twice, and the other one never. */
static void test_members_in_another_order_are_asked_anew(void **state)
{
    (void)state;
    expect_question(2);
    struct repl_member first = rig.members[0];
    rig.members[0] = rig.members[1];
    rig.members[1] = first;
    peer_tell_members(&rig);
    struct repl_action fetch = expect_question(3);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    fetch = expect_question(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    assert_verdict(0, "");
}

static void test_one_has_more(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    peer_error(&rig, &fetch, SH_NOT_FOUND);
    fetch = expect_question(3);
    peer_reply_state(&rig, &fetch, LOG_COPY_FRAMES, peer_place(120, 9999));
    assert_verdict(1, "n3 has it up to LSN 120, here it ends at 100");
}

static void test_one_has_trimmed_beyond_it(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, peer_place(120, 9999));
    assert_verdict(1, "n2");
}

static void test_one_has_other_frames(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, peer_place(120, 9999));
    assert_verdict(2, "n2");
}

static void test_who_does_not_answer_is_left_out(void **state)
{
    (void)state;
    struct repl_action late = expect_question(2);
    peer_clear(&rig);
    peer_wait(&rig, 1100);
    struct repl_action fetch = expect_question(3);
    peer_reply_state(&rig, &late, LOG_COPY_FORKED, peer_place(120, 9999)); /* too late */
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    assert_verdict(0, "");
}

static void test_until_one_answers_all_are_asked_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        struct repl_action fetch = expect_question(2);
        peer_fail(&rig, &fetch);
        fetch = expect_question(3);
        peer_error(&rig, &fetch, SH_UNAVAILABLE);
        peer_clear(&rig);
        peer_wait(&rig, 250);
        assert_int_equal(peer_fetches(&rig, 1), 0);
        peer_wait(&rig, 100);
    }
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
}

static void test_alone_there_is_nobody_to_ask(void **state)
{
    (void)state;
    peer_remove_member(&rig, 2);
    peer_remove_member(&rig, 3);
    peer_tell_members(&rig);
    peer_clear(&rig);
    peer_restart(&rig);
    peer_tell_members(&rig);
    tell_waiting(true);
    assert_verdict(0, "");
}

static void test_members_that_change_are_asked_anew(void **state)
{
    (void)state;
    struct repl_action first = expect_question(2);
    peer_remove_member(&rig, 2);
    peer_tell_members(&rig);
    peer_reply_state(&rig, &first, LOG_COPY_FORKED, peer_place(120, 9999)); /* of who is no member */
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
    struct repl_action fetch = expect_question(3);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    assert_verdict(0, "");
}

static void test_a_walsvc_that_does_not_wait_ends_it(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    tell_waiting(false);
    peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, peer_place(120, 9999));
    peer_clear(&rig);
    peer_wait(&rig, 10000);
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
    assert_int_equal(peer_fetches(&rig, 1), 0);
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_waiting, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nobody_has_more),
        TEST(test_who_is_known_to_have_more_need_not_be_asked),
        TEST(test_who_held_the_log_says_nothing_by_not_found),
        TEST(test_members_in_another_order_are_asked_anew),
        TEST(test_one_has_more),
        TEST(test_one_has_trimmed_beyond_it),
        TEST(test_one_has_other_frames),
        TEST(test_who_does_not_answer_is_left_out),
        TEST(test_until_one_answers_all_are_asked_again),
        TEST(test_alone_there_is_nobody_to_ask),
        TEST(test_members_that_change_are_asked_anew),
        TEST(test_a_walsvc_that_does_not_wait_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
