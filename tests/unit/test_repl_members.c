/* replsvc's core: members come, go, move, and are not who they were. */
#include "repl_story.h"

#include "repl_shell.h"

static void test_a_member_that_comes_is_followed_at_once(void **state)
{
    (void)state;
    peer_clear(&rig);
    peer_add_member(&rig, 4);
    peer_tell_members(&rig);
    peer_expect_fetch(&rig, 4, 4);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
}

static void test_a_member_that_has_never_come_has_no_log_to_follow(void **state)
{
    (void)state;
    peer_clear(&rig);
    struct repl_member *m = peer_add_member(&rig, 4);
    m->log = (struct id16){{0}};
    m->up = false;
    peer_tell_members(&rig);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
    m->log = peer_log(4);
    m->up = true;
    peer_tell_members(&rig);
    peer_expect_fetch(&rig, 4, 4);
}

static void test_the_own_log_is_not_followed(void **state)
{
    (void)state;
    peer_clear(&rig);
    peer_watermark(&rig, 2, 1, peer_place(1000, 100000)); /* whatever somebody else has of it */
    peer_tell_members(&rig);
    peer_wait(&rig, 10000);
    assert_int_equal(peer_fetches(&rig, 1), 0);
}

static void test_the_source_of_a_fetch_leaves(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_clear(&rig);
    peer_remove_member(&rig, 2);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_expect(&rig, REPL_CANCEL);
    assert_false(peer_answer(&rig, &fetch, &origin)); /* nobody waits for it */
    fetch = peer_expect_fetch(&rig, 2, 3);
    assert_int_equal(fetch.fetch.position, place_of_frame(3).position);
    assert_true(peer_answer(&rig, &fetch, &origin));
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    peer_clear(&rig);
    peer_stored(&rig, &store, model_log_end(&origin));
    peer_wait(&rig, 2000);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0); /* there is no origin to tell */
}

static void test_other_members_leave_and_fetches_go_on(void **state)
{
    (void)state;
    peer_add_member(&rig, 4);
    peer_tell_members(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 4, 4);
    peer_clear(&rig);
    peer_remove_member(&rig, 2); /* numbers move */
    peer_tell_members(&rig);
    struct model_log log;
    model_log_open(&log, peer_log(4));
    model_log_append(&log, 100, 1, 1, false);
    model_log_sync_all(&log);
    assert_true(peer_answer(&rig, &fetch, &log));
    peer_expect_fetch(&rig, 4, 4);
    model_log_free(&log);
}

static void test_pauses_move_with_their_members(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_error(&rig, &fetch, SH_CORRUPT); /* five seconds */
    struct repl_member first = rig.members[0];
    rig.members[0] = rig.members[1];
    rig.members[1] = first;
    peer_clear(&rig);
    peer_tell_members(&rig);
    peer_wait(&rig, 4900);
    assert_int_equal(peer_fetches(&rig, 2), 0);
    peer_wait(&rig, 200);
    peer_expect_fetch(&rig, 2, 2);
}

static void test_a_member_that_moved_is_asked_at_its_new_address(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    struct repl_member *m = peer_member(&rig, 2);
    snprintf(m->host, sizeof m->host, "h20");
    m->port = 5000;
    peer_tell_members(&rig);
    assert_true(peer_answer(&rig, &fetch, &origin)); /* it had answered before */
    peer_expect(&rig, REPL_STORE);
    assert_true(peer_count(&rig, REPL_FETCH) > 0);
    struct repl_action next = peer_expect(&rig, REPL_FETCH);
    while (!id16_equal(next.fetch.log, peer_log(2)))
        next = peer_expect(&rig, REPL_FETCH);
    assert_string_equal(next.host, "h20");
    assert_int_equal(next.port, 5004);
}

static void test_a_wiped_member_is_another_one(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_fail(&rig, &fetch); /* it pauses */
    peer_clear(&rig);
    peer_member(&rig, 2)->log = peer_log(22);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_expect_fetch(&rig, 22, 2); /* its new log from it, */
    peer_expect_fetch(&rig, 2, 3);  /* its old one from who has it */
}

static void test_members_that_are_down_are_not_asked(void **state)
{
    (void)state;
    peer_member(&rig, 2)->up = false;
    peer_member(&rig, 3)->up = false;
    peer_restart(&rig);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    peer_wait(&rig, 20000);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0);
    peer_member(&rig, 2)->up = true;
    peer_tell_members(&rig);
    peer_expect_fetch(&rig, 2, 2);
}

static void test_an_idle_group_costs_a_tick_a_second(void **state)
{
    (void)state;
    struct repl_action fetches[2] = {stand_before(origin.count)};
    fetches[1] = peer_expect_fetch(&rig, 3, 3);
    (void)fetches;
    rig.ticks = 0;
    peer_wait(&rig, 4000);
    assert_true(rig.ticks <= 6);
}

/* What is due must be over by then, whatever happens. */
static void test_no_event_leaves_a_tick_due_for_ever(void **state)
{
    (void)state;
    uint64_t random = 7;
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned what = (unsigned)(random >> 60), node = 2 + (unsigned)(random >> 50) % 2;
        if (what == 0)
            peer_member(&rig, node)->up ^= true;
        else if (what == 1)
            peer_watermark(&rig, node, 2 + (unsigned)(random >> 40) % 8, peer_place(i, i * 10));
        else if (what == 2)
            rig.boot = peer_log(50 + i % 100);
        if (what <= 2) {
            peer_tell_members(&rig);
            peer_tell_logs(&rig);
        } else if (peer_count(&rig, REPL_FETCH) > 0) {
            struct repl_action fetch = peer_expect(&rig, REPL_FETCH);
            if (what < 7)
                peer_fail(&rig, &fetch);
            else if (what < 10)
                peer_error(&rig, &fetch, (enum sh_error)(1 + what % 10));
            else
                peer_reply_state(&rig, &fetch, (enum log_copy_state)(1 + random % 4), peer_place(i, i * 9));
        }
        if (i % 16 == 0)
            peer_clear(&rig);
        peer_wait(&rig, (int64_t)(random >> 33) % 300);
    }
    assert_true(rig.ticks < 20000 * 3);
}

/* As membersvc tells one member; not_log: whom it came in the place of. */
static struct repl_member decoded(uint64_t generation, struct id16 not_log)
{
    const struct msg_member m = {.id = slice_str("n2"),
                                 .generation = generation,
                                 .log = peer_log(2),
                                 .host = slice_str("h2"),
                                 .group = slice_str("default"),
                                 .not_log = not_log};
    struct repl_member *out = xcalloc(REPL_MEMBERS_MAX, sizeof *out), first;
    struct buf member = {0}, info = {0}, nodes = {0};
    msgpack_packer pk;
    size_t count;
    bool too_many;
    msg_encode(MSG_member, &m, &member);
    msg_encode(MSG_node_info, &(struct msg_node_info){.member = buf_slice(&member)}, &info);
    mp_packer(&pk, &nodes);
    msgpack_pack_array(&pk, 1);
    buf_append(&nodes, info.data, info.len);
    assert_true(repl_members_decode(buf_slice(&nodes), "default", out, &count, &too_many));
    assert_int_equal(count, 1);
    first = out[0];
    buf_free(&member);
    buf_free(&info);
    buf_free(&nodes);
    free(out);
    return first;
}

static void test_who_counts_before_it_has_come(void **state)
{
    (void)state;
    struct repl_member founder = decoded(1, (struct id16){{0}}), joined = decoded(2, (struct id16){{0}}),
                       replacing = decoded(2, peer_log(22));
    assert_true(founder.is_founder && !founder.is_replaced);
    assert_true(!joined.is_founder && !joined.is_replaced);
    assert_true(!replacing.is_founder && replacing.is_replaced);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_member_that_comes_is_followed_at_once),
        TEST(test_a_member_that_has_never_come_has_no_log_to_follow),
        TEST(test_the_own_log_is_not_followed),
        TEST(test_the_source_of_a_fetch_leaves),
        TEST(test_other_members_leave_and_fetches_go_on),
        TEST(test_pauses_move_with_their_members),
        TEST(test_a_member_that_moved_is_asked_at_its_new_address),
        TEST(test_who_counts_before_it_has_come),
        TEST(test_a_wiped_member_is_another_one),
        TEST(test_members_that_are_down_are_not_asked),
        TEST(test_an_idle_group_costs_a_tick_a_second),
        TEST(test_no_event_leaves_a_tick_due_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
