/* replsvc's core: what others have of the own log, before it is extended after a start, and when a member's
 * fetch shows that it has more of it, or something else. */
#include "repl_parts.h"
#include "repl_story.h"

enum { LOST = 6, ALL = 12 }; /* frames: so many are here, so many there were */

static struct model_log mine, whole, other; /* what is here; what was there; another end of it */
static struct log_chain own;

static void append(struct model_log *log, unsigned fill, bool roll)
{
    model_log_append(log, 500, 10, fill, roll);
    model_log_sync_all(log);
}

static void make_logs(void)
{
    model_log_open(&whole, peer_log(1));
    model_log_open(&mine, peer_log(1));
    model_log_open(&other, peer_log(1));
    for (unsigned i = 0; i < ALL; i++) {
        if (i < LOST)
            append(&mine, i, i % 4 == 3);
        append(&whole, i, i % 4 == 3);
        append(&other, i < LOST - 1 ? i : 1000 + i, i % 4 == 3);
    }
    own = model_log_end(&mine);
}

static int end_logs(void **state)
{
    model_log_free(&mine);
    model_log_free(&whole);
    model_log_free(&other);
    return end(state);
}

static void tell_waiting(bool waits)
{
    rig.logs.waits = waits;
    peer_tell_logs(&rig);
}

static void open_waiting(bool waits)
{
    peer_restart(&rig);
    peer_hold(&rig, 1, own, 1);
    peer_tell_members(&rig);
    tell_waiting(waits);
}

static int begin_waiting(void **state)
{
    begin(state);
    make_logs();
    open_waiting(true);
    return 0;
}

static int begin_serving(void **state)
{
    begin(state);
    make_logs();
    open_waiting(false);
    return 0;
}

/* Of the place at the own end. */
static struct repl_action expect_question(unsigned node)
{
    struct repl_action fetch = peer_expect_fetch(&rig, 1, node);
    assert_int_equal(fetch.slot, REPL_FORK_SLOT);
    assert_int_equal(fetch.fetch.position, own.position);
    assert_int_equal(fetch.fetch.checksum, own.checksum);
    assert_int_equal(fetch.fetch.wait_ms, 0);
    return fetch;
}

static void assert_no_verdict(void)
{
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
}

static void assert_verdict(uint64_t verdict, const char *who)
{
    struct repl_action action = peer_expect(&rig, REPL_OWN_LOG);
    assert_int_equal(action.verdict, verdict);
    assert_int_equal(strncmp(action.detail, who, strlen(who)), 0);
    assert_int_equal(peer_fetches(&rig, 1), 0);
    peer_wait(&rig, 10000);
    peer_tell_logs(&rig);
    assert_no_verdict(); /* once */
}

static bool asks(unsigned node)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    for (size_t i = 0; i < rig.action_count; i++)
        if (rig.actions[i].kind == REPL_FETCH && id16_equal(rig.actions[i].fetch.log, peer_log(1)) &&
            strcmp(rig.actions[i].id, id) == 0)
            return true;
    return false;
}

/* The member has this log, whichever it is: until it isn't asked any more. */
static void let_compare(unsigned node, const struct model_log *its)
{
    assert_true(asks(node));
    while (asks(node)) {
        struct repl_action fetch = peer_expect_fetch(&rig, 1, node);
        if (peer_answer(&rig, &fetch, its))
            peer_compare(&rig, &mine);
        else if (peer_count(&rig, REPL_LOOK_BACK) > 0)
            peer_look_back(&rig, &mine);
    }
}

/* ---- before the log is extended after a start ---- */

static void test_nobody_has_more(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    assert_no_verdict(); /* n3 may */
    fetch = expect_question(3);
    peer_reply_state(&rig, &fetch, LOG_COPY_BEHIND, peer_place(50, 2000));
    assert_verdict(0, "");
}

static void test_who_is_known_to_have_more_need_not_be_asked(void **state)
{
    (void)state;
    expect_question(2);
    peer_watermark(&rig, 3, 1, peer_place(120, 11000));
    open_waiting(true);
    assert_verdict(1, "n3 has it up to LSN 120");
}

/* A copy that is out of service is told as none. */
static void test_who_held_the_log_says_nothing_by_not_found(void **state)
{
    (void)state;
    expect_question(2);
    peer_watermark(&rig, 2, 1, own);
    peer_watermark(&rig, 3, 1, own);
    open_waiting(true);
    struct repl_action fetch = expect_question(2);
    peer_error(&rig, &fetch, SH_NOT_FOUND);
    fetch = expect_question(3);
    peer_error(&rig, &fetch, SH_NOT_FOUND);
    assert_no_verdict();
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
    let_compare(3, &whole);
    assert_verdict(1, "n3 has it up to LSN 120, here it ends at 60");
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
    let_compare(2, &other);
    assert_verdict(2, "n2 has other entries from LSN 51 on, here it ends at 60");
}

/* What was given up here is the member's to mend. */
static void test_what_was_given_up_does_not_count(void **state)
{
    (void)state;
    size_t parts = model_log_find(&other, mine.frames[mine.count - 1].before.position);
    struct slice frame =
        model_log_bytes(&other, other.frames[parts].before.position, other.frames[parts].behind.position);
    rig.logs.given_up[0] = repl_fork_first(frame);
    rig.logs.given_up_count = 1;
    open_waiting(true);
    let_compare(2, &other);
    struct repl_action fetch = expect_question(3);
    peer_fail(&rig, &fetch);
    assert_verdict(0, "");
}

/* By its word alone nothing happens. */
static void test_who_says_that_it_forks_must_show_it(void **state)
{
    (void)state;
    struct repl_action fetch = expect_question(2);
    while (fetch.fetch.position > 0) {
        peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, peer_place(120, 9999));
        peer_look_back(&rig, &mine);
        fetch = peer_expect_fetch(&rig, 1, 2);
    }
    peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, peer_place(120, 9999));
    assert_no_verdict();
    fetch = expect_question(3);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
    assert_verdict(0, "");
}

static void test_who_does_not_answer_is_left_out(void **state)
{
    (void)state;
    struct repl_action late = expect_question(2);
    peer_clear(&rig);
    peer_wait(&rig, 1100);
    struct repl_action fetch = expect_question(3);
    peer_reply_state(&rig, &late, LOG_COPY_FORKED, peer_place(120, 9999)); /* too late */
    assert_int_equal(peer_count(&rig, REPL_LOOK_BACK), 0);
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
    assert_no_verdict();
}

static void test_alone_there_is_nobody_to_ask(void **state)
{
    (void)state;
    peer_remove_member(&rig, 2);
    peer_remove_member(&rig, 3);
    peer_tell_members(&rig);
    open_waiting(true);
    assert_verdict(0, "");
}

static void test_members_that_change_are_asked_anew(void **state)
{
    (void)state;
    struct repl_action first = expect_question(2);
    peer_remove_member(&rig, 2);
    peer_tell_members(&rig);
    peer_reply_state(&rig, &first, LOG_COPY_FORKED, peer_place(120, 9999)); /* of who is no member */
    assert_int_equal(peer_count(&rig, REPL_LOOK_BACK), 0);
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
    assert_no_verdict();
    assert_int_equal(peer_fetches(&rig, 1), 0);
}

/* ---- while it is extended ---- */

static void assert_nothing_is_asked(void)
{
    assert_int_equal(peer_fetches(&rig, 1), 0);
}

static void test_a_member_that_is_longer_is_looked_at(void **state)
{
    (void)state;
    assert_nothing_is_asked();
    peer_served(&rig, 3, LOG_COPY_BEHIND);
    let_compare(3, &whole);
    assert_verdict(1, "n3 has it up to LSN 120, here it ends at 60");
    assert_int_equal(peer_counters(&rig)->checks, 1);
    assert_int_equal(peer_counters(&rig)->unproved, 0);
}

static void test_a_member_on_another_chain_is_looked_at(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_FORKED);
    let_compare(2, &other);
    assert_verdict(2, "n2 has other entries from LSN 51 on");
}

/* It ends before the log does here, and parts from it before. */
static void test_a_shorter_copy_of_another_chain_is_looked_at(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        model_log_append(&mine, 500, 10, 5000 + i, false);
    model_log_sync_all(&mine);
    own = model_log_end(&mine);
    assert_true(own.position > model_log_end(&other).position);
    peer_hold(&rig, 1, own, 1);
    peer_tell_logs(&rig);
    peer_served(&rig, 2, LOG_COPY_FORKED);
    let_compare(2, &other);
    assert_verdict(2, "n2 has other entries from LSN 51 on");
}

/* Several segments back. */
static void test_a_fork_far_back_is_found(void **state)
{
    (void)state;
    model_log_free(&other);
    model_log_open(&other, peer_log(1));
    for (unsigned i = 0; i < ALL; i++)
        append(&other, i < 2 ? i : 1000 + i, i % 4 == 3);
    for (unsigned i = 0; i < 20; i++)
        model_log_append(&mine, 500, 10, 5000 + i, i % 3 == 0);
    model_log_sync_all(&mine);
    own = model_log_end(&mine);
    peer_hold(&rig, 1, own, 1);
    peer_tell_logs(&rig);
    peer_served(&rig, 2, LOG_COPY_FORKED);
    let_compare(2, &other);
    assert_verdict(2, "n2 has other entries from LSN 21 on");
}

/* What the log got since the member was asked, it may have as well. */
static void test_what_is_here_meanwhile_is_not_more(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_BEHIND);
    struct repl_action fetch = expect_question(2);
    peer_hold(&rig, 1, model_log_end(&whole), 1);
    peer_tell_logs(&rig);
    assert_true(peer_answer(&rig, &fetch, &whole));
    peer_compare(&rig, &whole);
    fetch = peer_expect_fetch(&rig, 1, 2);
    while (peer_answer(&rig, &fetch, &whole)) {
        peer_compare(&rig, &whole);
        fetch = peer_expect_fetch(&rig, 1, 2);
    }
    assert_no_verdict();
}

static void test_given_up_frames_are_the_members_to_mend(void **state)
{
    (void)state;
    size_t parts = model_log_find(&other, mine.frames[mine.count - 1].before.position);
    rig.logs.given_up[0] = 77;
    rig.logs.given_up[1] = repl_fork_first(
        model_log_bytes(&other, other.frames[parts].before.position, other.frames[parts].behind.position));
    rig.logs.given_up_count = 2;
    peer_tell_logs(&rig);
    peer_served(&rig, 2, LOG_COPY_FORKED);
    let_compare(2, &other);
    assert_no_verdict();
    assert_int_equal(peer_counters(&rig)->unproved, 0);
}

static void test_a_member_is_looked_at_once_a_minute(void **state)
{
    (void)state;
    unsigned questions = 0;
    for (unsigned i = 0; i < 3 * 60; i++) { /* made-up places, without end */
        peer_served(&rig, 2, i % 2 ? LOG_COPY_FORKED : LOG_COPY_BEHIND);
        if (peer_fetches(&rig, 1) > 0) {
            struct repl_action fetch = expect_question(2);
            peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
            questions++;
        }
        peer_wait(&rig, 1000);
    }
    assert_int_equal(questions, 3);
    assert_no_verdict();
    assert_int_equal(peer_counters(&rig)->checks, 3);
    assert_int_equal(peer_counters(&rig)->unproved, 3);
    peer_expect_notice(&rig, "has no frames to show for it");
}

/* Who sends frames and is silent when it is looked at is asked more and more rarely. */
static void test_who_is_silent_is_looked_at_more_and_more_rarely(void **state)
{
    (void)state;
    unsigned questions = 0;
    for (unsigned i = 0; i < 5 * 60; i++) {
        peer_served(&rig, 2, LOG_COPY_FORKED);
        if (peer_fetches(&rig, 1) > 0) {
            struct repl_action fetch = expect_question(2);
            peer_fail(&rig, &fetch);
            questions++;
        }
        peer_wait(&rig, 1000);
    }
    assert_true(questions >= 6 && questions <= 9);
    assert_no_verdict();
}

/* It sends one frame in each answer, and is silent so many times before each. */
static void let_compare_slowly(unsigned node, const struct model_log *its, unsigned silences)
{
    struct repl_action fetch = expect_question(node);
    peer_answer(&rig, &fetch, its);
    peer_look_back(&rig, &mine);
    while (asks(node)) {
        for (unsigned i = 0; i < silences; i++) {
            struct repl_action again;
            fetch = peer_expect_fetch(&rig, 1, node);
            if (i % 2)
                peer_fail(&rig, &fetch);
            else
                peer_wait(&rig, 5000);
            again = peer_expect_fetch(&rig, 1, node);
            assert_int_equal(again.fetch.position, fetch.fetch.position);
            assert_true(again.fetch.most_bytes < fetch.fetch.most_bytes);
            rig.actions[rig.action_count++] = again;
        }
        fetch = peer_expect_fetch(&rig, 1, node);
        fetch.fetch.most_bytes = 1;
        if (peer_answer(&rig, &fetch, its))
            peer_compare(&rig, &mine);
        else if (peer_count(&rig, REPL_LOOK_BACK) > 0)
            peer_look_back(&rig, &mine);
    }
}

/* However many answers it takes: what was compared before one that is lost is not in vain. */
static void test_an_answer_that_is_lost_is_asked_for_again(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_FORKED);
    let_compare_slowly(2, &other, 3);
    assert_verdict(2, "n2 has other entries from LSN 51");
}

static void test_who_is_silent_for_long_is_asked_no_more(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_FORKED);
    struct repl_action fetch = expect_question(2);
    peer_answer(&rig, &fetch, &other);
    peer_look_back(&rig, &mine);
    for (unsigned i = 0; i < 4; i++) {
        fetch = peer_expect_fetch(&rig, 1, 2);
        assert_int_equal(fetch.slot, REPL_FORK_SLOT);
        peer_fail(&rig, &fetch);
    }
    assert_nothing_is_asked();
    assert_no_verdict();
}

static void test_who_is_down_is_not_asked_again(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_FORKED);
    struct repl_action fetch = expect_question(2);
    peer_answer(&rig, &fetch, &other);
    peer_look_back(&rig, &mine);
    fetch = peer_expect_fetch(&rig, 1, 2);
    peer_member(&rig, 2)->up = false;
    peer_tell_members(&rig);
    peer_fail(&rig, &fetch);
    assert_nothing_is_asked();
    assert_no_verdict();
}

/* Of one, however many say so; the next one then. */
static void test_one_look_is_under_way(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_FORKED);
    peer_served(&rig, 3, LOG_COPY_FORKED);
    struct repl_action fetch = expect_question(2);
    assert_nothing_is_asked();
    peer_fail(&rig, &fetch);
    fetch = expect_question(3);
    peer_wait(&rig, 1100);
    assert_nothing_is_asked();
    assert_no_verdict();
}

static bool answer_with(struct repl_action *fetch, const struct model_log *log, uint64_t position,
                        struct slice bytes, uint64_t segment)
{
    const struct msg_fetch_reply reply = {.log = log->id,
                                          .state = LOG_COPY_FRAMES,
                                          .position = position,
                                          .bytes = bytes,
                                          .durable_end = 1 << 30,
                                          .durable_lsn = 1 << 30,
                                          .segment = segment};
    return peer_reply(&rig, fetch, &reply);
}

static void test_frames_that_do_not_continue_prove_nothing(void **state)
{
    (void)state;
    const struct model_frame *last = &whole.frames[whole.count - 1];
    struct slice bytes = model_log_bytes(&whole, last->before.position, last->behind.position);
    peer_served(&rig, 2, LOG_COPY_BEHIND);
    struct repl_action fetch = expect_question(2);
    assert_false(answer_with(&fetch, &whole, own.position, bytes, last->segment));
    assert_int_equal(peer_counters(&rig)->bad_frames, 1);
    peer_expect_notice(&rig, "damaged, or do not continue");
    assert_no_verdict();
    assert_nothing_is_asked();
}

static void test_frames_of_another_place_or_log_prove_nothing(void **state)
{
    (void)state;
    size_t next = model_log_find(&whole, own.position);
    struct slice bytes = model_log_bytes(&whole, own.position, whole.frames[next].behind.position);
    peer_served(&rig, 2, LOG_COPY_BEHIND);
    struct repl_action fetch = expect_question(2);
    assert_false(answer_with(&fetch, &whole, own.position + 1, bytes, whole.frames[next].segment));
    peer_served(&rig, 3, LOG_COPY_BEHIND);
    fetch = expect_question(3);
    assert_false(answer_with(&fetch, &origin, own.position, bytes, whole.frames[next].segment));
    assert_int_equal(peer_counters(&rig)->not_asked_for, 2);
    assert_no_verdict();
}

static void test_what_cannot_be_read_here_proves_nothing(void **state)
{
    (void)state;
    peer_served(&rig, 2, LOG_COPY_BEHIND);
    struct repl_action fetch = expect_question(2);
    assert_true(peer_answer(&rig, &fetch, &whole));
    struct repl_action action = peer_expect(&rig, REPL_FIND_FORK);
    repl_core_parted(rig.core, rig.now_ns, action.serial, NULL);
    assert_no_verdict();
    assert_int_equal(peer_counters(&rig)->unproved, 1); /* the notice says why, too */
}

static void test_a_verdict_that_is_refused_is_given_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned node = 2; node <= 3; node++) {
            struct repl_action fetch = expect_question(node);
            peer_reply_state(&rig, &fetch, LOG_COPY_END, own);
        }
        assert_int_equal(peer_expect(&rig, REPL_OWN_LOG).verdict, 0);
        repl_core_not_told(rig.core, rig.now_ns);
        peer_wait(&rig, 900);
        assert_nothing_is_asked();
        peer_wait(&rig, 200);
    }
}

static void test_a_walsvc_that_stays_is_told_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        peer_served(&rig, 3, LOG_COPY_BEHIND);
        let_compare(3, &whole);
        assert_verdict(1, "n3");
        peer_served(&rig, 2, LOG_COPY_BEHIND);
        assert_nothing_is_asked();
        peer_wait(&rig, 60000);
        peer_tell_logs(&rig);
        if (peer_fetches(&rig, 1) > 0) {
            struct repl_action fetch = expect_question(2);
            peer_fail(&rig, &fetch);
        }
    }
}

#undef TEST
#define TEST(name)         cmocka_unit_test_setup_teardown(name, begin_waiting, end_logs)
#define TEST_SERVING(name) cmocka_unit_test_setup_teardown(name, begin_serving, end_logs)

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
        TEST(test_what_was_given_up_does_not_count),
        TEST(test_who_says_that_it_forks_must_show_it),
        TEST(test_who_does_not_answer_is_left_out),
        TEST(test_until_one_answers_all_are_asked_again),
        TEST(test_alone_there_is_nobody_to_ask),
        TEST(test_members_that_change_are_asked_anew),
        TEST(test_a_walsvc_that_does_not_wait_ends_it),
        TEST_SERVING(test_a_member_that_is_longer_is_looked_at),
        TEST_SERVING(test_a_member_on_another_chain_is_looked_at),
        TEST_SERVING(test_a_shorter_copy_of_another_chain_is_looked_at),
        TEST_SERVING(test_a_fork_far_back_is_found),
        TEST_SERVING(test_what_is_here_meanwhile_is_not_more),
        TEST_SERVING(test_given_up_frames_are_the_members_to_mend),
        TEST_SERVING(test_a_member_is_looked_at_once_a_minute),
        TEST_SERVING(test_who_is_silent_is_looked_at_more_and_more_rarely),
        TEST_SERVING(test_an_answer_that_is_lost_is_asked_for_again),
        TEST_SERVING(test_who_is_silent_for_long_is_asked_no_more),
        TEST_SERVING(test_who_is_down_is_not_asked_again),
        TEST_SERVING(test_one_look_is_under_way),
        TEST_SERVING(test_frames_that_do_not_continue_prove_nothing),
        TEST_SERVING(test_frames_of_another_place_or_log_prove_nothing),
        TEST_SERVING(test_what_cannot_be_read_here_proves_nothing),
        TEST_SERVING(test_a_walsvc_that_stays_is_told_again),
        TEST(test_a_verdict_that_is_refused_is_given_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
