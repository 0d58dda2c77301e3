/* replsvc's core: what becomes of a copy that walsvc refuses frames for, that nobody has the next frames of
 * any more, or whose source is on another chain. */
#include "repl_story.h"

static struct repl_action store_from(size_t index)
{
    struct repl_action fetch = stand_before(index);
    assert_true(peer_answer(&rig, &fetch, &origin));
    return peer_expect(&rig, REPL_STORE);
}

/* ---- refused by walsvc ---- */

static void test_after_a_conflict_the_place_is_asked_for(void **state)
{
    (void)state;
    struct repl_action store = store_from(2);
    peer_expect_fetch(&rig, 2, 2);
    peer_not_stored(&rig, &store, SH_CONFLICT);
    peer_expect_notice(&rig, "walsvc does not take");
    peer_expect(&rig, REPL_CANCEL); /* of the fetch that is out */
    peer_expect(&rig, REPL_ASK_LOGS);
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_hold(&rig, 2, place_of_frame(4), 1);
    peer_tell_logs(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    assert_int_equal(fetch.fetch.position, place_of_frame(4).position);
}

static void test_the_place_is_asked_for_once_nothing_is_outstanding(void **state)
{
    (void)state;
    struct repl_action stores[2], fetch = stand_before(0);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(peer_answer(&rig, &fetch, &origin));
        stores[i] = peer_expect(&rig, REPL_STORE);
        fetch = peer_expect_fetch(&rig, 2, 2);
    }
    peer_not_stored(&rig, &stores[0], SH_CONFLICT);
    assert_int_equal(peer_count(&rig, REPL_ASK_LOGS), 0);
    peer_tell_logs(&rig); /* as it was before */
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_not_stored(&rig, &stores[1], SH_CONFLICT);
    peer_expect(&rig, REPL_ASK_LOGS);
    peer_tell_logs(&rig);
    assert_int_equal(peer_expect_fetch(&rig, 2, 2).fetch.position, 0);
}

static void test_a_full_disk_is_tried_again_each_second(void **state)
{
    (void)state;
    struct repl_action store = store_from(2);
    for (unsigned i = 0; i < 3; i++) {
        peer_clear(&rig);
        peer_not_stored(&rig, &store, SH_DISK_FULL);
        peer_tell_logs(&rig);
        peer_tell_members(&rig); /* whatever else happens */
        peer_wait(&rig, 950);
        assert_int_equal(peer_fetches(&rig, 2), 0);
        peer_wait(&rig, 100);
        struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
        assert_int_equal(fetch.fetch.position, place_of_frame(2).position);
        assert_int_equal(fetch.fetch.most_bytes, 64 << 10); /* no more than it takes to see */
        assert_true(peer_answer(&rig, &fetch, &origin));
        store = peer_expect(&rig, REPL_STORE);
    }
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    struct log_chain end = place_of_frame(2);
    end.position += store.store.bytes.len;
    peer_stored(&rig, &store, end); /* there is room again */
    assert_true(peer_answer(&rig, &fetch, &origin));
    assert_int_equal(peer_expect_fetch(&rig, 2, 2).fetch.most_bytes, REPL_FETCH_BYTES);
}

static void test_conflicts_without_end_do_not_go_round_at_once(void **state)
{
    (void)state;
    struct repl_action store = store_from(2);
    unsigned stores = 1;
    int64_t until_ns = rig.now_ns + 10 * NS_PER_S;
    while (rig.now_ns < until_ns) {
        peer_clear(&rig);
        peer_not_stored(&rig, &store, SH_CONFLICT);
        peer_tell_logs(&rig);
        while (peer_fetches(&rig, 2) == 0)
            peer_wait(&rig, 10);
        struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
        assert_true(peer_answer(&rig, &fetch, &origin));
        store = peer_expect(&rig, REPL_STORE);
        stores++;
    }
    assert_true(stores <= 12);
}

static void test_a_restarted_walsvc_says_where_to_go_on(void **state)
{
    (void)state;
    stand_before(6);
    rig.boot = peer_log(101);
    peer_hold(&rig, 2, place_of_frame(4), 1); /* that far it was durable */
    peer_tell_logs(&rig);
    peer_expect(&rig, REPL_CANCEL);
    assert_int_equal(peer_expect_fetch(&rig, 2, 2).fetch.position, place_of_frame(4).position);
}

/* The link hands them over again, in order. */
static void test_stores_outlive_a_restart_of_walsvc(void **state)
{
    (void)state;
    struct repl_action stores[2], fetch = stand_before(0);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(peer_answer(&rig, &fetch, &origin));
        stores[i] = peer_expect(&rig, REPL_STORE);
        fetch = peer_expect_fetch(&rig, 2, 2);
    }
    rig.boot = peer_log(101);
    peer_tell_logs(&rig);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t end_at = stores[i].store.position + stores[i].store.bytes.len;
        peer_stored(&rig, &stores[i], place_of_frame(model_log_find(&origin, end_at)));
        assert_int_equal(peer_expect(&rig, REPL_POSITION).position.end, end_at);
    }
    assert_true(peer_answer(&rig, &fetch, &origin)); /* the fetch has stayed out */
}

static void test_stores_that_a_restart_has_spoilt_are_fetched_again(void **state)
{
    (void)state;
    struct repl_action stores[2], fetch = stand_before(0);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(peer_answer(&rig, &fetch, &origin));
        stores[i] = peer_expect(&rig, REPL_STORE);
        fetch = peer_expect_fetch(&rig, 2, 2);
    }
    rig.boot = peer_log(101);
    peer_tell_logs(&rig);
    peer_not_stored(&rig, &stores[0], SH_DISK_FULL);
    peer_not_stored(&rig, &stores[1], SH_CONFLICT);
    peer_clear(&rig);
    peer_tell_logs(&rig);
    peer_wait(&rig, 900);
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_wait(&rig, 200);
    assert_int_equal(peer_expect_fetch(&rig, 2, 2).fetch.position, 0);
}

/* ---- trimmed ---- */

static struct log_chain second_segment(void)
{
    size_t index = 1;
    while (!origin.frames[index].opens)
        index++;
    return place_of_frame(index);
}

static void say_trimmed(unsigned node)
{
    struct repl_action fetch = peer_expect_fetch(&rig, 2, node);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
}

static void test_trimmed_at_one_is_fetched_from_another(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
    fetch = peer_expect_fetch(&rig, 2, 3);
    assert_int_equal(fetch.fetch.position, place_of_frame(2).position);
    assert_false(fetch.fetch.anew);
    assert_true(peer_answer(&rig, &fetch, &origin));
}

/* Until it is certain that nobody has what comes next. */
static void wait_for_the_gap(void)
{
    for (unsigned i = 0; peer_counters(&rig)->gaps == 0; i++) {
        assert_true(i < 10);
        say_trimmed(2);
        if (peer_counters(&rig)->gaps == 0)
            peer_wait(&rig, 5000);
    }
}

static void test_trimmed_everywhere_the_copy_begins_anew_and_names_the_gap(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
    assert_int_equal(peer_counters(&rig)->gaps, 0);
    assert_int_equal(repl_core_counters(rig.core)->gaps, 0);
    peer_wait(&rig, 5000);
    wait_for_the_gap();
    char gap[64];
    snprintf(gap, sizeof gap, "LSN %llu to %llu", (unsigned long long)place_of_frame(2).next_lsn,
             (unsigned long long)second_segment().next_lsn - 1);
    assert_string_equal(peer_expect_notice(&rig, "begins anew").detail, gap);
    fetch = peer_expect_fetch(&rig, 2, 2);
    assert_true(fetch.fetch.anew);
    assert_int_equal(fetch.fetch.position, second_segment().position);
    assert_int_equal(fetch.fetch.lsn, second_segment().next_lsn - 1);
    assert_true(peer_answer(&rig, &fetch, &origin));
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    assert_true(store.store.anew);
    assert_int_equal(store.store.position, second_segment().position);
    assert_false(peer_expect_fetch(&rig, 2, 2).fetch.anew);
}

static void test_a_holder_that_has_said_nothing_yet_is_waited_for(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
    peer_wait(&rig, 4000);
    peer_watermark(&rig, 3, 2, model_log_end(&origin)); /* now it has */
    peer_clear(&rig);
    peer_tell_members(&rig);
    fetch = peer_expect_fetch(&rig, 2, 3);
    assert_true(peer_answer(&rig, &fetch, &origin));
    assert_int_equal(peer_counters(&rig)->gaps, 0);
}

/* Found by the simulation: each waited for the other, which had no more than itself. */
static void test_a_holder_that_has_no_more_is_not_waited_for(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_watermark(&rig, 3, 2, place_of_frame(2));
    peer_tell_members(&rig);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
    peer_wait(&rig, 5000);
    wait_for_the_gap();
}

static void test_an_origin_that_is_down_is_waited_for(void **state)
{
    (void)state;
    peer_member(&rig, 2)->up = false;
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_restart(&rig);
    peer_hold(&rig, 2, place_of_frame(2), 1);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 10; i++) {
        say_trimmed(3);
        peer_wait(&rig, 5000);
    }
    assert_int_equal(peer_counters(&rig)->gaps, 0);
    peer_member(&rig, 2)->up = true;
    peer_tell_members(&rig);
    peer_clear(&rig);
    peer_wait(&rig, 8000);
    assert_false(peer_expect_fetch(&rig, 2, 2).fetch.anew);
}

/* What a source had trimmed then says nothing of what comes next now. */
static void test_a_source_that_had_trimmed_less_is_asked_again(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
    fetch = peer_expect_fetch(&rig, 2, 3);
    assert_true(peer_answer(&rig, &fetch, &origin)); /* up to the second segment */
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    peer_stored(&rig, &store, second_segment());
    for (unsigned i = 0; i < 8; i++) { /* n3 has trimmed that too, and more; n2 has it, and does not answer */
        while (peer_fetches(&rig, 2) == 0)
            peer_wait(&rig, 100);
        fetch = peer_expect(&rig, REPL_FETCH);
        if (id16_equal(fetch.fetch.log, peer_log(2)) && strcmp(fetch.id, "n3") == 0)
            peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, model_log_end(&origin));
    }
    peer_wait(&rig, 60000);
    assert_int_equal(peer_counters(&rig)->gaps, 0);
}

/* Found by garbled answers of the simulation: the copy waited for ever for a segment that never was. */
static void test_a_place_that_is_none_is_given_up(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    for (unsigned i = 0; peer_counters(&rig)->gaps == 0; i++) {
        peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, peer_place(1000000, 100000000));
        if (peer_counters(&rig)->gaps == 0)
            peer_wait(&rig, 5000);
        fetch = peer_expect_fetch(&rig, 2, 2);
    }
    assert_true(fetch.fetch.anew);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, (struct log_chain){.next_lsn = 1});
    peer_clear(&rig);
    peer_wait(&rig, 5000);
    fetch = peer_expect_fetch(&rig, 2, 2);
    assert_false(fetch.fetch.anew);
    assert_int_equal(fetch.fetch.position, place_of_frame(2).position);
    assert_true(peer_answer(&rig, &fetch, &origin));
}

static void test_trimmed_further_meanwhile_begins_still_later(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, second_segment());
    peer_wait(&rig, 5000);
    wait_for_the_gap();
    model_log_trim(&origin, 1);
    assert_true(origin.begin.position > second_segment().position);
    for (unsigned i = 0; peer_counters(&rig)->gaps == 1; i++) {
        assert_true(i < 10);
        fetch = peer_expect_fetch(&rig, 2, 2);
        assert_false(peer_answer(&rig, &fetch, &origin));
        if (peer_counters(&rig)->gaps == 1)
            peer_wait(&rig, 5000);
    }
    fetch = peer_expect_fetch(&rig, 2, 2);
    assert_int_equal(fetch.fetch.position, origin.begin.position);
    assert_true(peer_answer(&rig, &fetch, &origin));
}

static void test_a_source_that_has_trimmed_all_there_could_be_is_asked_rarely(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, (struct log_chain){.next_lsn = 0, .position = 1000000});
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_wait(&rig, 5000);
    peer_expect_fetch(&rig, 2, 2);
}

/* ---- another chain ---- */

static void test_a_fork_is_named_and_nothing_is_stored(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    struct log_chain there = place_of_frame(2);
    there.checksum = 0xabcd;
    peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, there);
    assert_non_null(strstr(peer_expect_notice(&rig, "different chains").detail, "there 0000abcd"));
    assert_int_equal(peer_counters(&rig)->forks, 1);
    peer_clear(&rig);
    peer_wait(&rig, 4900);
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_wait(&rig, 200);
    peer_expect_fetch(&rig, 2, 2); /* it may have been settled */
}

/* It would acknowledge entries that are not here: others stand at those LSNs. */
static void test_a_copy_on_another_chain_has_no_position(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(2);
    peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, peer_place(1, 1));
    peer_clear(&rig);
    peer_wait(&rig, 4900);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0);
    peer_wait(&rig, 200);
    fetch = peer_expect_fetch(&rig, 2, 2);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, place_of_frame(2)); /* settled */
    peer_wait(&rig, 1000);
    assert_int_equal(peer_expect(&rig, REPL_POSITION).position.end, place_of_frame(2).position);
}

static void test_an_origin_that_is_behind_its_copy_is_named(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(6);
    peer_reply_state(&rig, &fetch, LOG_COPY_BEHIND, place_of_frame(2));
    peer_expect_notice(&rig, "less of its own log");
    peer_clear(&rig);
    peer_wait(&rig, 900);
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_wait(&rig, 200);
    peer_expect_fetch(&rig, 2, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_after_a_conflict_the_place_is_asked_for),
        TEST(test_the_place_is_asked_for_once_nothing_is_outstanding),
        TEST(test_a_full_disk_is_tried_again_each_second),
        TEST(test_conflicts_without_end_do_not_go_round_at_once),
        TEST(test_a_restarted_walsvc_says_where_to_go_on),
        TEST(test_stores_outlive_a_restart_of_walsvc),
        TEST(test_stores_that_a_restart_has_spoilt_are_fetched_again),
        TEST(test_trimmed_at_one_is_fetched_from_another),
        TEST(test_trimmed_everywhere_the_copy_begins_anew_and_names_the_gap),
        TEST(test_a_holder_that_has_said_nothing_yet_is_waited_for),
        TEST(test_a_holder_that_has_no_more_is_not_waited_for),
        TEST(test_an_origin_that_is_down_is_waited_for),
        TEST(test_a_source_that_had_trimmed_less_is_asked_again),
        TEST(test_a_place_that_is_none_is_given_up),
        TEST(test_trimmed_further_meanwhile_begins_still_later),
        TEST(test_a_source_that_has_trimmed_all_there_could_be_is_asked_rarely),
        TEST(test_a_fork_is_named_and_nothing_is_stored),
        TEST(test_a_copy_on_another_chain_has_no_position),
        TEST(test_an_origin_that_is_behind_its_copy_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
