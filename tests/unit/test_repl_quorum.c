/* replsvc's core: how far the own log is replicated, by the positions that its followers push. */
#include "repl_story.h"

enum { ENTRY_BYTES = 100 };

static void close_group(void)
{
    peer_close(&rig);
}

/* n1's log has so many entries, durable here. */
static void own_log(uint64_t lsn)
{
    peer_hold(&rig, 1, peer_place(lsn, lsn * ENTRY_BYTES), 1);
    peer_tell_logs(&rig);
}

/* Of a copy that is on the chain of n1's log, as a fetch has shown. */
static void position(unsigned node, uint64_t lsn)
{
    peer_prove(&rig, node, peer_place(lsn, lsn * ENTRY_BYTES));
    peer_position(&rig, node, lsn, lsn * ENTRY_BYTES);
}

static void open_group(unsigned nodes)
{
    peer_open(&rig, nodes);
    own_log(100);
    for (unsigned node = 2; node <= nodes; node++)
        peer_served(&rig, node, LOG_COPY_FRAMES);
    peer_clear(&rig);
}

static void assert_replicated(uint64_t quorum_lsn, uint64_t all_lsn)
{
    struct repl_progress progress = repl_core_progress(rig.core);
    assert_int_equal(progress.quorum_lsn, quorum_lsn);
    assert_int_equal(progress.all_lsn, all_lsn);
}

/* walsvc was told that, and last. */
static void assert_told(uint64_t quorum_lsn, uint64_t all_lsn)
{
    struct repl_action told = peer_expect(&rig, REPL_REPLICATED);
    while (peer_count(&rig, REPL_REPLICATED) > 0)
        told = peer_expect(&rig, REPL_REPLICATED);
    assert_int_equal(told.replicated.quorum_lsn, quorum_lsn);
    assert_int_equal(told.replicated.all_lsn, all_lsn);
    assert_replicated(quorum_lsn, all_lsn);
}

static void test_alone_everything_is_replicated(void **state)
{
    (void)state;
    peer_open(&rig, 1);
    assert_told(UINT64_MAX, UINT64_MAX);
    own_log(5);
    assert_int_equal(peer_count(&rig, REPL_REPLICATED), 0);
    peer_add_member(&rig, 2); /* not alone any more, and it counts at once: it has all there is */
    peer_tell_members(&rig);
    position(2, 5);
    assert_told(5, 5);
    close_group();
}

static void test_of_two_both_are_needed(void **state)
{
    (void)state;
    open_group(2);
    assert_replicated(0, 0);
    position(2, 60);
    assert_told(60, 60);
    position(2, 100);
    assert_told(100, 100);
    close_group();
}

static void test_of_three_one_other_is_enough(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    assert_told(60, 0);
    position(3, 80);
    assert_told(80, 60);
    position(2, 100);
    assert_told(100, 80);
    close_group();
}

static void test_of_four_two_others_are_needed(void **state)
{
    (void)state;
    open_group(4);
    position(2, 100);
    assert_replicated(0, 0);
    position(3, 70);
    assert_told(70, 0);
    position(4, 10);
    assert_told(70, 10);
    close_group();
}

static void test_of_five_two_others_are_needed(void **state)
{
    (void)state;
    open_group(5);
    position(2, 100);
    assert_replicated(0, 0);
    position(3, 90);
    assert_told(90, 0);
    position(4, 95);
    assert_told(95, 0);
    position(5, 1);
    assert_told(95, 1);
    close_group();
}

static void test_members_that_are_down_count(void **state)
{
    (void)state;
    open_group(3);
    peer_member(&rig, 3)->up = false;
    peer_tell_members(&rig);
    position(2, 100);
    assert_told(100, 0);
    close_group();
}

static void test_the_same_is_not_told_twice(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    assert_told(60, 0);
    position(2, 60);
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
    assert_int_equal(peer_count(&rig, REPL_REPLICATED), 0);
    close_group();
}

static void test_late_positions_take_nothing_back(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    position(3, 60);
    position(2, 40);
    position(3, 0);
    assert_told(60, 60);
    close_group();
}

static void test_positions_beyond_the_end_are_not_believed(void **state)
{
    (void)state;
    open_group(3);
    position(2, 101);
    peer_position(&rig, 3, 50, UINT64_MAX);
    peer_position(&rig, 3, UINT64_MAX, 50);
    assert_replicated(0, 0);
    assert_int_equal(peer_counters(&rig)->beyond, 3);
    assert_int_equal(peer_counters(&rig)->positions, 0);
    peer_expect_notice(&rig, "more of this node's log than there is");
    close_group();
}

/* They may be of a tail that this log has lost, behind which it has gone on otherwise. */
static void test_a_position_counts_as_far_as_the_chain_is_known_to_be_the_same(void **state)
{
    (void)state;
    struct log_chain end = peer_place(100, 100 * ENTRY_BYTES), other = end;
    open_group(3);
    peer_position_at(&rig, 2, peer_place(90, 90 * ENTRY_BYTES));
    assert_replicated(0, 0);
    peer_prove(&rig, 2, peer_place(60, 60 * ENTRY_BYTES));
    assert_replicated(0, 0); /* fetched from there; not known to be durable there */
    peer_position_at(&rig, 2, peer_place(90, 90 * ENTRY_BYTES));
    assert_told(60, 0);
    peer_prove(&rig, 2, peer_place(95, 95 * ENTRY_BYTES));
    peer_position_at(&rig, 2, peer_place(90, 90 * ENTRY_BYTES));
    assert_told(90, 0);
    peer_position_at(&rig, 3, end); /* the very end proves itself */
    assert_told(100, 90);
    other.checksum ^= 1;
    peer_position_at(&rig, 2, other);
    other.checksum ^= 1;
    other.next_lsn--;
    peer_position_at(&rig, 2, other);
    assert_replicated(100, 90);
    assert_int_equal(peer_counters(&rig)->forks, 2);
    assert_int_equal(peer_expect_notice(&rig, "ends with another frame than the log").level, LOG_ERROR);
    end.checksum = 0;
    peer_position_at(&rig, 2, end); /* it does not say */
    assert_replicated(100, 95);
    close_group();
}

/* A fetch that waits at the end here. */
static void test_a_fetch_at_the_end_proves_that_place(void **state)
{
    (void)state;
    struct msg_fetch fetch = peer_fetch(2, 1, peer_place(100, 100 * ENTRY_BYTES));
    open_group(3);
    fetch.wait_ms = 5000;
    peer_ask(&rig, 1, 2, &fetch);
    own_log(110);
    peer_position(&rig, 2, 100, 100 * ENTRY_BYTES);
    assert_told(100, 0);
    peer_prove(&rig, 2, peer_place(111, 111 * ENTRY_BYTES)); /* there is no such place */
    peer_prove(&rig, 9, peer_place(110, 110 * ENTRY_BYTES)); /* nor such a member */
    repl_core_proved(rig.core, peer_log(3), peer_log(2),
                     &(struct log_chain){110, 1, 11000}); /* another log */
    peer_position(&rig, 2, 110, 110 * ENTRY_BYTES);
    assert_replicated(100, 0);
    close_group();
}

static void test_positions_of_strangers_are_not_counted(void **state)
{
    (void)state;
    open_group(3);
    position(7, 100);
    struct msg_position wrong = {.from = peer_log(3), .log = peer_log(1), .lsn = 100, .end = 10000};
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &wrong); /* another identity */
    wrong.from = peer_log(2);
    wrong.log = peer_log(3);
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &wrong); /* another log */
    assert_replicated(0, 0);
    assert_int_equal(peer_counters(&rig)->not_member, 3);
    close_group();
}

static void test_a_joining_member_counts_once_it_has_caught_up(void **state)
{
    (void)state;
    open_group(3);
    position(2, 100);
    position(3, 100);
    assert_told(100, 100);
    peer_add_member(&rig, 4);
    peer_tell_members(&rig);
    own_log(200);
    position(2, 200); /* a majority of those who count, who are three still */
    position(3, 150);
    assert_told(200, 150);
    position(4, 20);
    own_log(300);
    position(2, 300);
    position(3, 300);
    assert_told(300, 300);
    position(4, 300); /* now it has caught up */
    own_log(400);
    peer_clear(&rig);
    position(2, 400);
    assert_replicated(300, 300); /* two of four are no majority */
    position(3, 400);
    assert_told(400, 300);
    close_group();
}

/* A log that is written to without a pause is at its very end nowhere else. */
static void test_a_joining_member_counts_though_the_log_goes_on(void **state)
{
    (void)state;
    uint64_t lsn = 100;
    open_group(3);
    peer_add_member(&rig, 4);
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 40; i++, lsn += 10) { /* n4 is 100 ms behind, always */
        own_log(lsn);
        position(2, lsn);
        position(3, lsn);
        position(4, lsn - 10);
        peer_wait(&rig, 100);
    }
    own_log(lsn);
    position(2, lsn);
    assert_int_equal(repl_core_progress(rig.core).quorum_lsn, lsn - 10); /* three of four are needed */
    close_group();
}

static struct repl_lag lag_of(unsigned index)
{
    struct repl_lag lags[REPL_MEMBERS_MAX];
    assert_true(repl_core_lags(rig.core, rig.now_ns, lags) > index);
    return lags[index];
}

static void assert_lag(unsigned index, uint64_t entries, int64_t most_ms)
{
    struct repl_lag lag = lag_of(index);
    assert_int_equal(lag.entries, entries);
    assert_int_equal(lag.bytes, entries * ENTRY_BYTES);
    assert_in_range(lag.ns / NS_PER_MS, entries > 0 ? most_ms / 2 : 0, most_ms);
}

static void test_a_follower_of_a_busy_log_lags_no_longer_than_it_is_behind(void **state)
{
    (void)state;
    uint64_t lsn = 100;
    open_group(2);
    for (unsigned i = 0; i < 40; i++, lsn += 10) { /* 100 ms behind, always */
        own_log(lsn);
        peer_wait(&rig, 100);
        position(2, lsn - 10);
    }
    assert_lag(0, 10, 200);
    close_group();
}

static void test_a_follower_lags_since_it_has_not_got_the_first_of_what_it_lacks(void **state)
{
    (void)state;
    open_group(2);
    position(2, 100);
    assert_lag(0, 0, 0);
    peer_wait(&rig, 3600 * 1000); /* nothing is written, and nothing heard */
    own_log(110);
    assert_lag(0, 10, 0);
    peer_wait(&rig, 2000);
    own_log(120);
    peer_wait(&rig, 2000);
    assert_lag(0, 20, 4000);
    position(2, 110);
    assert_lag(0, 10, 4000);
    position(2, 120);
    assert_lag(0, 0, 0);
    close_group();
}

static void test_a_member_that_was_never_heard_lags_since_it_is_known(void **state)
{
    (void)state;
    open_group(2);
    peer_add_member(&rig, 3);
    peer_tell_members(&rig);
    peer_wait(&rig, 5000);
    assert_string_equal(lag_of(1).member, "n3");
    assert_lag(1, 100, 5000);
    close_group();
}

static void test_a_member_far_behind_does_not_count_for_being_behind_long(void **state)
{
    (void)state;
    uint64_t lsn = 10000;
    open_group(3);
    peer_add_member(&rig, 4);
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 40; i++, lsn += 10) {
        own_log(lsn);
        position(2, lsn);
        position(3, lsn);
        position(4, i * 10);
        peer_wait(&rig, 100);
    }
    own_log(lsn);
    position(2, lsn);
    assert_int_equal(repl_core_progress(rig.core).quorum_lsn, lsn);
    close_group();
}

static void test_what_is_replicated_never_goes_back(void **state)
{
    (void)state;
    open_group(2);
    position(2, 100);
    assert_told(100, 100);
    peer_member(&rig, 2)->log = peer_log(22); /* wiped: another identity, that has nothing */
    peer_tell_members(&rig);
    peer_position(&rig, 2, 100, 10000);
    assert_replicated(100, 100);
    peer_add_member(&rig, 3);
    peer_tell_members(&rig);
    assert_replicated(100, 100);
    close_group();
}

/* The group does not become smaller by that: of two, none is a majority alone. */
static void test_a_member_that_is_replaced_counts_as_one_that_is_down(void **state)
{
    (void)state;
    open_group(2);
    position(2, 60);
    assert_told(60, 60);
    peer_member(&rig, 2)->is_founder = false;
    peer_member(&rig, 2)->is_replaced = true;
    peer_member(&rig, 2)->up = false;
    peer_member(&rig, 2)->log = (struct id16){{0}}; /* it has not come yet */
    peer_tell_members(&rig);
    own_log(110);
    assert_replicated(60, 60);
    peer_member(&rig, 2)->up = true;
    peer_member(&rig, 2)->log = peer_log(22); /* now it has */
    peer_tell_members(&rig);
    own_log(120);
    assert_replicated(60, 60);
    assert_int_equal(peer_count(&rig, REPL_REPLICATED), 0);
    repl_core_proved(rig.core, peer_log(1), peer_log(22), &(struct log_chain){71, 1, 70 * ENTRY_BYTES});
    const struct msg_position some = {
        .from = peer_log(22), .log = peer_log(1), .lsn = 70, .end = 70 * ENTRY_BYTES};
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &some);
    assert_replicated(70, 70);
    close_group();
}

static void test_who_leaves_is_not_waited_for(void **state)
{
    (void)state;
    open_group(3);
    position(2, 100);
    assert_told(100, 0);
    peer_remove_member(&rig, 3);
    peer_tell_members(&rig);
    assert_told(100, 100);
    close_group();
}

static void test_who_moves_is_the_same(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    position(3, 60);
    snprintf(peer_member(&rig, 2)->host, 8, "h9");
    struct repl_member first = rig.members[0];
    rig.members[0] = rig.members[1]; /* and another number */
    rig.members[1] = first;
    peer_tell_members(&rig);
    assert_told(60, 60);
    position(2, 100);
    assert_told(100, 60);
    close_group();
}

static void test_a_new_walsvc_is_told_again(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    assert_told(60, 0);
    rig.boot = peer_log(101);
    peer_tell_logs(&rig);
    peer_served(&rig, 2, LOG_COPY_FRAMES);
    assert_told(60, 0);
    close_group();
}

/* The log is longer than it was: what was lost before may stand there otherwise now. */
static void test_what_was_proved_holds_on_only_for_the_same_end(void **state)
{
    (void)state;
    open_group(3);
    position(2, 90);
    assert_told(90, 0);
    rig.boot = peer_log(101);
    own_log(120);
    assert_int_equal(repl_core_progress(rig.core).quorum_lsn, 0);
    peer_position(&rig, 2, 90, 90 * ENTRY_BYTES);
    assert_replicated(0, 0);
    position(2, 90);
    assert_told(90, 0);
    close_group();
}

/* Without a start of walsvc, too. */
static void test_what_was_proved_is_dropped_with_the_end_of_the_log(void **state)
{
    (void)state;
    struct log_chain other = peer_place(95, 95 * ENTRY_BYTES);
    open_group(3);
    for (unsigned i = 0; i < 2; i++) {
        position(3, 90);
        own_log(95); /* shorter; then with another end */
        if (i == 1) {
            other.checksum ^= 1;
            peer_hold(&rig, 1, other, 1);
            peer_tell_logs(&rig);
        }
        peer_position(&rig, 2, 92, 92 * ENTRY_BYTES);
        peer_position(&rig, 3, 92, 92 * ENTRY_BYTES);
        assert_replicated(90, 0);
    }
    position(2, 94);
    assert_told(94, 0);
    close_group();
}

static void ask_at_the_end(unsigned node)
{
    struct msg_fetch fetch = peer_fetch(node, 1, peer_place(100, 100 * ENTRY_BYTES));
    peer_ask(&rig, node, node, &fetch);
}

static void test_who_waits_at_the_end_counts_for_a_new_walsvc_at_once(void **state)
{
    (void)state;
    open_group(3);
    ask_at_the_end(2);
    position(2, 100);
    assert_told(100, 0);
    rig.boot = peer_log(101);
    peer_tell_logs(&rig);
    assert_told(100, 0);
    close_group();
}

/* Frames of another holder are proved by where they end: no fetch of the origin is waited for. */
static void test_a_position_where_the_log_has_ended_lately_counts_at_once(void **state)
{
    (void)state;
    struct msg_position at = {.log = peer_log(1), .from = peer_log(2), .lsn = 110, .end = 110 * ENTRY_BYTES};
    open_group(3);
    own_log(110);
    own_log(120);
    at.checksum = peer_place(110, 110 * ENTRY_BYTES).checksum ^ 1;
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &at);
    assert_replicated(0, 0);
    assert_int_equal(peer_counters(&rig)->forks, 1);
    at.checksum ^= 1;
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &at);
    assert_replicated(110, 0);
    at.lsn = 115; /* where it never ended: only so far */
    at.end = 115 * ENTRY_BYTES;
    at.checksum = 77;
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &at);
    assert_replicated(110, 0);
    close_group();
}

/* A longer log than it remembers ends of. */
static void test_old_ends_are_forgotten(void **state)
{
    (void)state;
    struct msg_position at = {.log = peer_log(1), .from = peer_log(2), .lsn = 100, .end = 100 * ENTRY_BYTES};
    open_group(3);
    for (uint64_t lsn = 101; lsn < 1300; lsn++)
        own_log(lsn);
    at.checksum = peer_place(100, 100 * ENTRY_BYTES).checksum;
    repl_core_position(rig.core, rig.now_ns, slice_str("n2"), &at);
    assert_replicated(0, 0);
    close_group();
}

static void test_positions_of_another_chain_do_not_count(void **state)
{
    (void)state;
    static const enum log_copy_state states[] = {LOG_COPY_FORKED, LOG_COPY_BEHIND};
    for (size_t i = 0; i < 2; i++) {
        open_group(3);
        position(2, 60);
        peer_served(&rig, 2, states[i]);
        own_log(200);
        peer_position(&rig, 2, 150, 150 * ENTRY_BYTES);
        assert_replicated(60, 0); /* of before */
        position(2, 160);
        assert_replicated(160, 0);
        close_group();
    }
}

/* What others have then is no lie, and acknowledges nothing that will be appended. */
static void test_while_the_log_is_fetched_back_nothing_is_replicated(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    peer_clear(&rig);
    rig.boot = peer_log(101);
    rig.logs.own_copy = true;
    own_log(50);
    position(2, 150);
    position(3, 40);
    peer_served(&rig, 2, LOG_COPY_FRAMES);
    peer_wait(&rig, 2500);
    assert_int_equal(peer_count(&rig, REPL_REPLICATED), 0);
    assert_int_equal(peer_counters(&rig)->beyond, 0);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0); /* nor is it told to anybody */
    rig.boot = peer_log(102);
    rig.logs.own_copy = false;
    own_log(150);
    assert_replicated(0, 0);
    peer_served(&rig, 2, LOG_COPY_FRAMES);
    assert_replicated(0, 0);
    position(2, 150);
    assert_told(150, 0);
    close_group();
}

/* What followers said of the end that was lost must not count for what is written there now. */
static void test_positions_beyond_a_shorter_log_are_forgotten(void **state)
{
    (void)state;
    open_group(3);
    position(2, 90);
    assert_told(90, 0);
    rig.boot = peer_log(101);
    own_log(70);
    own_log(95);
    peer_served(&rig, 2, LOG_COPY_FRAMES);
    assert_int_equal(repl_core_progress(rig.core).quorum_lsn, 0);
    position(2, 80);
    assert_told(80, 0);
    close_group();
}

static void test_nothing_is_told_before_positions_have_come_again(void **state)
{
    (void)state;
    open_group(3);
    position(2, 60);
    peer_restart(&rig);
    peer_tell_members(&rig);
    position(2, 60); /* before walsvc has said how far the log is */
    peer_tell_logs(&rig);
    assert_int_equal(peer_count(&rig, REPL_REPLICATED), 0);
    peer_served(&rig, 2, LOG_COPY_FRAMES);
    assert_int_equal(peer_count(&rig, REPL_REPLICATED), 0);
    position(2, 60);
    assert_told(60, 0);
    close_group();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_everything_is_replicated),
        cmocka_unit_test(test_of_two_both_are_needed),
        cmocka_unit_test(test_of_three_one_other_is_enough),
        cmocka_unit_test(test_of_four_two_others_are_needed),
        cmocka_unit_test(test_of_five_two_others_are_needed),
        cmocka_unit_test(test_members_that_are_down_count),
        cmocka_unit_test(test_the_same_is_not_told_twice),
        cmocka_unit_test(test_late_positions_take_nothing_back),
        cmocka_unit_test(test_positions_beyond_the_end_are_not_believed),
        cmocka_unit_test(test_a_position_counts_as_far_as_the_chain_is_known_to_be_the_same),
        cmocka_unit_test(test_a_fetch_at_the_end_proves_that_place),
        cmocka_unit_test(test_positions_of_strangers_are_not_counted),
        cmocka_unit_test(test_a_joining_member_counts_once_it_has_caught_up),
        cmocka_unit_test(test_a_joining_member_counts_though_the_log_goes_on),
        cmocka_unit_test(test_a_follower_of_a_busy_log_lags_no_longer_than_it_is_behind),
        cmocka_unit_test(test_a_follower_lags_since_it_has_not_got_the_first_of_what_it_lacks),
        cmocka_unit_test(test_a_member_that_was_never_heard_lags_since_it_is_known),
        cmocka_unit_test(test_a_member_far_behind_does_not_count_for_being_behind_long),
        cmocka_unit_test(test_what_is_replicated_never_goes_back),
        cmocka_unit_test(test_a_member_that_is_replaced_counts_as_one_that_is_down),
        cmocka_unit_test(test_who_leaves_is_not_waited_for),
        cmocka_unit_test(test_who_moves_is_the_same),
        cmocka_unit_test(test_a_new_walsvc_is_told_again),
        cmocka_unit_test(test_what_was_proved_holds_on_only_for_the_same_end),
        cmocka_unit_test(test_what_was_proved_is_dropped_with_the_end_of_the_log),
        cmocka_unit_test(test_who_waits_at_the_end_counts_for_a_new_walsvc_at_once),
        cmocka_unit_test(test_a_position_where_the_log_has_ended_lately_counts_at_once),
        cmocka_unit_test(test_old_ends_are_forgotten),
        cmocka_unit_test(test_positions_of_another_chain_do_not_count),
        cmocka_unit_test(test_while_the_log_is_fetched_back_nothing_is_replicated),
        cmocka_unit_test(test_positions_beyond_a_shorter_log_are_forgotten),
        cmocka_unit_test(test_nothing_is_told_before_positions_have_come_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
