/* replsvc's core: damaged ranges are fetched from another holder and put back; what members still need is
 * held. */
#include "repl_story.h"

/* walsvc of n1, which holds n2's log, has said that something is damaged in it: the third frame. */
static struct repl_damage damage;

static int begin_damaged(void **state)
{
    begin(state);
    peer_hold(&rig, 2, model_log_end(&origin), 1);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    rig.held[1].damaged = 1;
    peer_tell_members(&rig);
    peer_restart(&rig);
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
    damage = (struct repl_damage){.segment = 1,
                                  .offset = place_of_frame(2).position,
                                  .bytes = 1000,
                                  .position = place_of_frame(2).position,
                                  .lsn = place_of_frame(2).next_lsn};
    struct repl_action asked = peer_expect(&rig, REPL_ASK_DAMAGE);
    assert_true(id16_equal(asked.damaged.log, peer_log(2)));
    peer_clear(&rig);
    return 0;
}

static void tell_damage(void)
{
    repl_core_damage(rig.core, rig.now_ns, peer_log(2), &damage);
    struct repl_action action;
    while (repl_core_next_action(rig.core, &action))
        rig.actions[rig.action_count++] = action;
}

static void tell_repaired(const struct msg_repair_reply *reply)
{
    struct buf body = {0};
    struct repl_action action;
    msg_encode(MSG_repair_reply, reply, &body);
    repl_core_repaired(rig.core, rig.now_ns, MSG_repair_reply, buf_slice(&body));
    buf_free(&body);
    while (repl_core_next_action(rig.core, &action))
        rig.actions[rig.action_count++] = action;
}

static void tell_not_repaired(enum sh_error code)
{
    const struct msg_error error = {.code = code, .text = slice_str("because")};
    struct buf body = {0};
    struct repl_action action;
    msg_encode(MSG_error, &error, &body);
    repl_core_repaired(rig.core, rig.now_ns, MSG_error, buf_slice(&body));
    buf_free(&body);
    while (repl_core_next_action(rig.core, &action))
        rig.actions[rig.action_count++] = action;
}

/* What a holder answers to a repair's fetch: the frames from there on. */
static bool answer_frames(const struct repl_action *fetch, size_t first, size_t behind)
{
    const struct msg_fetch_reply reply = {
        .log = fetch->fetch.log,
        .position = fetch->fetch.position,
        .durable_end = model_log_end(&origin).position,
        .segment = 1,
        .bytes = model_log_bytes(&origin, place_of_frame(first).position, place_of_frame(behind).position),
    };
    return peer_reply(&rig, fetch, &reply);
}

static struct repl_action expect_repair_fetch(unsigned node)
{
    struct repl_action fetch = peer_expect_fetch(&rig, 2, node);
    assert_int_equal(fetch.slot, REPL_LOGS_MAX);
    assert_true(fetch.fetch.repair);
    assert_int_equal(fetch.fetch.position, damage.position);
    return fetch;
}

static void test_a_damaged_range_is_fetched_and_put_back(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    assert_true(answer_frames(&fetch, 2, 4));
    struct repl_action repair = peer_expect(&rig, REPL_REPAIR);
    assert_int_equal(repair.repair.offset, damage.offset);
    assert_int_equal(repair.repair.segment, 1);
    tell_repaired(&(struct msg_repair_reply){.whole = true, .next = damage.offset + 2000});
    assert_int_equal(peer_counters(&rig)->repairs, 1);
    peer_expect(&rig, REPL_ASK_DAMAGE); /* is there more? */
    rig.held[1].damaged = 0;
    peer_tell_logs(&rig);
    damage.bytes = 0;
    tell_damage();
    peer_wait(&rig, 60000);
    assert_int_equal(peer_count(&rig, REPL_ASK_DAMAGE), 0);
}

static void test_each_holder_is_asked_in_turn(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    peer_error(&rig, &fetch, SH_CORRUPT);
    fetch = expect_repair_fetch(3);
    peer_fail(&rig, &fetch);
    peer_expect_notice(&rig, "cannot be had from any member");
    peer_wait(&rig, 9900);
    assert_int_equal(peer_count(&rig, REPL_ASK_DAMAGE), 0);
    peer_wait(&rig, 200); /* another time */
    peer_expect(&rig, REPL_ASK_DAMAGE);
}

/* Others may have the same wrong bytes, which no checksum tells. */
static void test_what_differs_from_the_origins_comes_from_there_only(void **state)
{
    (void)state;
    damage.differs = true;
    for (unsigned i = 0; i < 2; i++) {
        tell_damage();
        struct repl_action fetch = expect_repair_fetch(2);
        peer_error(&rig, &fetch, SH_CORRUPT);
        assert_int_equal(peer_fetches(&rig, 2), 0);
        peer_expect_notice(&rig, "cannot be had from any member");
        peer_wait(&rig, 60000);
        peer_expect(&rig, REPL_ASK_DAMAGE);
        peer_clear(&rig);
    }
    peer_member(&rig, 2)->up = false;
    peer_tell_members(&rig);
    tell_damage();
    for (size_t i = 0; i < rig.action_count; i++)
        assert_false(rig.actions[i].kind == REPL_FETCH && rig.actions[i].fetch.repair);
}

static void test_frames_that_are_damaged_too_are_not_handed_over(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    origin.bytes.data[place_of_frame(2).position + 300] ^= 1;
    assert_false(answer_frames(&fetch, 2, 4));
    fetch = expect_repair_fetch(3);
    origin.bytes.data[place_of_frame(2).position + 300] ^= 1;
    assert_true(answer_frames(&fetch, 2, 4));
    peer_expect(&rig, REPL_REPAIR);
}

static void test_frames_of_another_place_are_not_handed_over(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    struct msg_fetch_reply reply = {
        .log = peer_log(2),
        .position = place_of_frame(3).position,
        .segment = 1,
        .bytes = model_log_bytes(&origin, place_of_frame(3).position, place_of_frame(4).position)};
    assert_false(peer_reply(&rig, &fetch, &reply));
    fetch = expect_repair_fetch(3);
    reply.position = damage.position;
    reply.log = peer_log(3);
    assert_false(peer_reply(&rig, &fetch, &reply));
    assert_int_equal(peer_count(&rig, REPL_REPAIR), 0);
}

static void test_the_next_part_comes_from_the_same_holder(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    peer_fail(&rig, &fetch);
    fetch = expect_repair_fetch(3);
    assert_true(answer_frames(&fetch, 2, 3));
    peer_expect(&rig, REPL_REPAIR);
    tell_repaired(&(struct msg_repair_reply){.next = place_of_frame(3).position,
                                             .next_lsn = place_of_frame(3).next_lsn});
    damage.position = place_of_frame(3).position;
    fetch = expect_repair_fetch(3);
    assert_int_equal(fetch.fetch.lsn, place_of_frame(3).next_lsn - 1);
    assert_true(answer_frames(&fetch, 3, 4));
}

static void test_what_walsvc_refuses_is_tried_from_the_next_holder(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    answer_frames(&fetch, 2, 4);
    tell_not_repaired(SH_BAD_REQUEST);
    peer_expect_notice(&rig, "does not take the frames");
    fetch = expect_repair_fetch(3);
    answer_frames(&fetch, 2, 4);
    tell_not_repaired(SH_DISK_FULL); /* no use now */
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_wait(&rig, 10100);
    peer_expect(&rig, REPL_ASK_DAMAGE);
}

/* Nobody has the first range: the second one is asked for, then the other log's, then all again. */
static void test_what_nobody_has_holds_up_nothing_else(void **state)
{
    (void)state;
    peer_hold(&rig, 3, peer_place(100, 9000), 1);
    rig.held[2].damaged = 1;
    peer_tell_logs(&rig);
    tell_damage();
    for (unsigned node = 2; node <= 3; node++) {
        struct repl_action fetch = expect_repair_fetch(node);
        peer_error(&rig, &fetch, SH_CORRUPT);
    }
    peer_wait(&rig, 10100);
    struct repl_action asked = peer_expect(&rig, REPL_ASK_DAMAGE);
    assert_true(id16_equal(asked.damaged.log, peer_log(2)));
    assert_int_equal(asked.damaged.segment, damage.segment);
    assert_int_equal(asked.damaged.offset, damage.offset);
    damage.bytes = 0; /* none is behind it */
    tell_damage();
    asked = peer_expect(&rig, REPL_ASK_DAMAGE);
    assert_true(id16_equal(asked.damaged.log, peer_log(3)));
    assert_int_equal(asked.damaged.segment, 0);
    repl_core_damage(rig.core, rig.now_ns, peer_log(3), &(struct repl_damage){0});
    peer_clear(&rig);
    peer_wait(&rig, 9900);
    assert_int_equal(peer_count(&rig, REPL_ASK_DAMAGE), 0);
    peer_wait(&rig, 200);
    asked = peer_expect(&rig, REPL_ASK_DAMAGE);
    assert_true(id16_equal(asked.damaged.log, peer_log(2)));
    assert_int_equal(asked.damaged.segment, 0);
}

/* Nobody else has it: this must not go round without a pause. */
static void test_a_repair_that_mends_nothing_pauses(void **state)
{
    (void)state;
    unsigned rounds = 0;
    int64_t until_ns = rig.now_ns + 60 * NS_PER_S;
    while (rig.now_ns < until_ns && rounds < 1000) {
        tell_damage();
        while (peer_count(&rig, REPL_ASK_DAMAGE) == 0 && rig.now_ns < until_ns) {
            for (size_t i = 0; i < rig.action_count; i++) {
                struct repl_action fetch = rig.actions[i];
                if (fetch.kind == REPL_FETCH && fetch.slot == REPL_LOGS_MAX && answer_frames(&fetch, 2, 4))
                    tell_repaired(&(struct msg_repair_reply){.next = damage.offset});
            }
            peer_wait(&rig, 5);
        }
        peer_clear(&rig);
        rounds++;
    }
    assert_true(rounds < 100);
}

static void test_a_holder_that_does_not_answer_is_given_up(void **state)
{
    (void)state;
    tell_damage();
    expect_repair_fetch(2);
    peer_clear(&rig);
    peer_wait(&rig, 10100);
    assert_true(peer_count(&rig, REPL_CANCEL) > 0);
    for (;;) { /* among those for what comes next */
        struct repl_action fetch = peer_expect(&rig, REPL_FETCH);
        if (fetch.slot != REPL_LOGS_MAX)
            continue;
        assert_string_equal(fetch.id, "n3");
        break;
    }
}

static void test_the_holder_leaves_meanwhile(void **state)
{
    (void)state;
    tell_damage();
    struct repl_action fetch = expect_repair_fetch(2);
    peer_remove_member(&rig, 2);
    peer_tell_members(&rig);
    peer_fail(&rig, &fetch);
    fetch = expect_repair_fetch(3);
    assert_true(answer_frames(&fetch, 2, 4));
}

/* It was found by the simulation's first second. */
static void test_members_are_told_before_anything_is_damaged(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        peer_restart(&rig);
        peer_tell_members(&rig);
        peer_remove_member(&rig, 3);
        peer_tell_members(&rig);
        peer_add_member(&rig, 3);
        peer_tell_members(&rig);
    }
}

/* ---- holds ---- */

static struct repl_action expect_hold(const char *id, unsigned log)
{
    for (;;) {
        struct repl_action hold = peer_expect(&rig, REPL_HOLD);
        if (strcmp(hold.id, id) == 0 && id16_equal(hold.hold.log, peer_log(log)))
            return hold;
    }
}

static void test_what_a_member_lacks_is_held(void **state)
{
    (void)state;
    peer_hold(&rig, 1, peer_place(100, 9000), 1);
    peer_watermark(&rig, 3, 2, place_of_frame(4));
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
    peer_prove(&rig, 2, peer_place(60, 6000));
    peer_position(&rig, 2, 60, 6000);
    peer_clear(&rig);
    peer_wait(&rig, 5000);
    struct repl_action holds[16];
    size_t count = 0;
    while (peer_count(&rig, REPL_HOLD) > 0)
        holds[count++] = peer_expect(&rig, REPL_HOLD);
    assert_int_equal(count, 3); /* n2's own log it needs from nobody */
    for (size_t i = 0; i < count; i++) {
        bool is_own = id16_equal(holds[i].hold.log, peer_log(1));
        uint64_t lsn = !is_own ? place_of_frame(4).next_lsn : strcmp(holds[i].id, "n2") == 0 ? 61 : 1;
        assert_int_equal(holds[i].hold.lsn, lsn);
        assert_false(holds[i].hold.remove);
    }
    peer_wait(&rig, 20000);
    assert_int_equal(peer_count(&rig, REPL_HOLD), 0); /* nothing new */
}

/* A member that is down asks for no other hold by moving on. */
static void test_a_hold_that_walsvc_refused_is_told_again(void **state)
{
    (void)state;
    peer_clear(&rig);
    peer_wait(&rig, 5000);
    uint64_t lsn = expect_hold("n3", 2).hold.lsn;
    peer_clear(&rig);
    repl_core_hold_refused(rig.core);
    peer_wait(&rig, 5000);
    assert_int_equal(expect_hold("n3", 2).hold.lsn, lsn);
    peer_clear(&rig);
    peer_wait(&rig, 20000);
    assert_int_equal(peer_count(&rig, REPL_HOLD), 0);
}

static void test_holds_of_who_left_are_removed(void **state)
{
    (void)state;
    peer_clear(&rig);
    peer_remove_member(&rig, 3);
    peer_tell_members(&rig);
    assert_true(expect_hold("n3", 1).hold.remove);
    assert_int_equal(peer_count(&rig, REPL_HOLD), 0);
    repl_core_found_hold(rig.core, peer_log(1), slice_str("n7")); /* of before this process */
    repl_core_found_hold(rig.core, peer_log(1), slice_str("n2"));
    peer_tell_members(&rig);
    assert_true(expect_hold("n7", 1).hold.remove);
    assert_int_equal(peer_count(&rig, REPL_HOLD), 0);
}

#define DAMAGED(name) cmocka_unit_test_setup_teardown(name, begin_damaged, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DAMAGED(test_a_damaged_range_is_fetched_and_put_back),
        DAMAGED(test_each_holder_is_asked_in_turn),
        DAMAGED(test_what_differs_from_the_origins_comes_from_there_only),
        DAMAGED(test_frames_that_are_damaged_too_are_not_handed_over),
        DAMAGED(test_frames_of_another_place_are_not_handed_over),
        DAMAGED(test_the_next_part_comes_from_the_same_holder),
        DAMAGED(test_what_walsvc_refuses_is_tried_from_the_next_holder),
        DAMAGED(test_what_nobody_has_holds_up_nothing_else),
        DAMAGED(test_a_repair_that_mends_nothing_pauses),
        DAMAGED(test_a_holder_that_does_not_answer_is_given_up),
        DAMAGED(test_the_holder_leaves_meanwhile),
        TEST(test_members_are_told_before_anything_is_damaged),
        DAMAGED(test_what_a_member_lacks_is_held),
        DAMAGED(test_a_hold_that_walsvc_refused_is_told_again),
        TEST(test_holds_of_who_left_are_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
