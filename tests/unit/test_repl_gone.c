/* replsvc's core: logs that nobody extends any more, and those that were dropped here. */
#include "log_reader_copy.h"
#include "repl_parts.h"
#include "repl_story.h"

enum { GONE = 7, PASS_MS = 2000, STEP_MS = 100 };
static const struct log_chain end_place = {101, 77, 9000};

/* n1 of three holds the log of n7, which is no member. */
static void hold_gone(void)
{
    repl_core_standing(rig.core, true);
    peer_hold(&rig, GONE, end_place, 1);
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
}

/* What walsvc is told next. */
static struct msg_log_gone told(bool taken)
{
    struct msg_log_gone gone = peer_expect(&rig, REPL_GONE).gone;
    peer_gone_told(&rig, taken);
    return gone;
}

static void expect_told(bool gone)
{
    struct msg_log_gone m = told(true);
    assert_true(id16_equal(m.log, peer_log(GONE)));
    assert_int_equal(m.gone, gone);
    if (!gone)
        return;
    assert_int_equal(m.end, end_place.position);
    assert_int_equal(m.lsn, end_place.next_lsn - 1);
    assert_int_equal(m.checksum, end_place.checksum);
}

/* The question that is out; false: none is. */
static bool asked(struct repl_action *out)
{
    for (size_t i = 0; i < rig.action_count; i++) {
        if (rig.actions[i].kind != REPL_FETCH || rig.actions[i].slot != REPL_GONE_SLOT)
            continue;
        *out = rig.actions[i];
        peer_clear(&rig);
        return true;
    }
    return false;
}

static bool is_asked(void)
{
    for (size_t i = 0; i < rig.action_count; i++)
        if (rig.actions[i].kind == REPL_FETCH && rig.actions[i].slot == REPL_GONE_SLOT)
            return true;
    return false;
}

/* Until somebody is asked, or a pass is over. */
static void wait_pass(void)
{
    for (unsigned ms = 0; ms <= PASS_MS && !is_asked(); ms += STEP_MS)
        peer_wait(&rig, STEP_MS);
}

static struct repl_action expect_asked(unsigned node)
{
    struct repl_action ask;
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    assert_true(asked(&ask));
    assert_string_equal(ask.id, id);
    assert_true(id16_equal(ask.fetch.log, peer_log(GONE)));
    assert_int_equal(ask.fetch.position, end_place.position);
    assert_int_equal(ask.fetch.lsn, end_place.next_lsn - 1);
    assert_int_equal(ask.fetch.checksum, end_place.checksum);
    assert_int_equal(ask.fetch.most_bytes, 0);
    return ask;
}

/* The next pass; members that are asked in it say that they have that end. Returns how many were. */
static unsigned pass(void)
{
    struct repl_action ask;
    unsigned count = 0;
    wait_pass();
    for (; asked(&ask); count++)
        peer_reply_state(&rig, &ask, LOG_COPY_END, end_place);
    return count;
}

static void close_it(void)
{
    hold_gone();
    expect_told(false);
    assert_int_equal(pass(), 2);
    wait_pass();
    expect_told(true);
}

static void expect_open(void)
{
    for (unsigned i = 0; i < 3; i++)
        pass();
    wait_pass();
    assert_int_equal(peer_count(&rig, REPL_GONE), 0);
}

/* ---- when it is closed ---- */

static void test_a_log_is_closed_when_all_say_that_they_have_that_end(void **state)
{
    (void)state;
    hold_gone();
    expect_told(false);
    wait_pass();
    struct repl_action ask = expect_asked(2);
    peer_reply_state(&rig, &ask, LOG_COPY_END, end_place);
    ask = expect_asked(3);
    assert_int_equal(peer_count(&rig, REPL_GONE), 0);
    peer_reply_state(&rig, &ask, LOG_COPY_END, end_place);
    expect_told(true);
    assert_int_equal(pass(), 0); /* nobody is asked again */
    assert_int_equal(peer_count(&rig, REPL_GONE), 0);
}

static void test_a_node_alone_closes_the_logs_of_those_that_left(void **state)
{
    (void)state;
    rig.member_count = 0;
    hold_gone();
    expect_told(true);
}

static void test_a_member_with_another_end_keeps_it_open(void **state)
{
    static const struct log_chain longer = {120, 5, 9900};
    static const enum log_copy_state states[] = {LOG_COPY_FRAMES, LOG_COPY_TRIMMED, LOG_COPY_FORKED,
                                                 LOG_COPY_BEHIND};
    struct repl_action ask;
    (void)state;
    hold_gone();
    expect_told(false);
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        wait_pass();
        while (asked(&ask))
            peer_reply_state(&rig, &ask, strcmp(ask.id, "n2") == 0 ? states[i] : LOG_COPY_END, end_place);
    }
    wait_pass();
    ask = expect_asked(2);                              /* and only it, again and again */
    peer_reply_state(&rig, &ask, LOG_COPY_END, longer); /* which is not what was asked for */
    wait_pass();
    ask = expect_asked(2);
    peer_error(&rig, &ask, SH_NOT_FOUND);
    wait_pass();
    ask = expect_asked(2);
    peer_fail(&rig, &ask);
    assert_int_equal(peer_count(&rig, REPL_GONE), 0);
    peer_watermark(&rig, 3, GONE, longer); /* known to have more: nobody need be asked */
    peer_tell_members(&rig);
    assert_int_equal(pass(), 0);
    peer_watermark(&rig, 3, GONE, end_place);
    peer_tell_members(&rig);
    assert_int_equal(pass(), 1);
    wait_pass();
    expect_told(true);
}

static void test_a_member_that_is_down_keeps_it_open_until_it_was_asked(void **state)
{
    (void)state;
    peer_member(&rig, 3)->up = false;
    hold_gone();
    expect_told(false);
    assert_int_equal(pass(), 1);
    expect_open();
    peer_member(&rig, 3)->up = true;
    peer_tell_members(&rig);
    assert_int_equal(pass(), 1);
    peer_member(&rig, 3)->up = false; /* it has said what it has */
    peer_tell_members(&rig);
    wait_pass();
    expect_told(true);
}

static void test_a_member_that_has_not_come_yet_keeps_it_open(void **state)
{
    (void)state;
    struct repl_member *m = peer_add_member(&rig, 4);
    m->log = (struct id16){{0}};
    m->up = false;
    hold_gone();
    expect_told(false);
    expect_open();
    m->log = peer_log(4);
    m->up = true;
    peer_tell_members(&rig);
    assert_int_equal(pass(), 3);
    wait_pass();
    expect_told(true);
}

static void test_the_log_of_a_member_is_never_closed(void **state)
{
    (void)state;
    peer_add_member(&rig, GONE);
    hold_gone();
    expect_told(false);
    assert_int_equal(pass(), 0);
    expect_open();
}

static void test_who_does_not_know_all_members_closes_nothing(void **state)
{
    (void)state;
    hold_gone();
    expect_told(false);
    repl_core_standing(rig.core, false);
    peer_tell_members(&rig);
    expect_open();
    repl_core_standing(rig.core, true);
    assert_int_equal(pass(), 2);
}

static void test_who_gives_no_answer_does_not_stop_the_others(void **state)
{
    (void)state;
    hold_gone();
    expect_told(false);
    wait_pass();
    expect_asked(2);
    peer_wait(&rig, PASS_MS);
    size_t cancels = 0;
    for (size_t i = 0; i < rig.action_count; i++)
        cancels += rig.actions[i].kind == REPL_CANCEL && rig.actions[i].slot == REPL_GONE_SLOT;
    assert_int_equal(cancels, 1);
    expect_asked(3);
}

/* ---- when it is open again ---- */

static void test_it_is_open_again_when_its_node_comes_back(void **state)
{
    (void)state;
    close_it();
    peer_add_member(&rig, GONE);
    peer_tell_members(&rig);
    expect_told(false);
}

static void test_it_is_open_again_until_a_new_member_has_it(void **state)
{
    (void)state;
    close_it();
    peer_add_member(&rig, 4);
    peer_tell_members(&rig);
    expect_told(false);
    assert_int_equal(pass(), 1);
    wait_pass();
    expect_told(true);
}

static void test_another_identity_of_a_member_is_asked_anew(void **state)
{
    (void)state;
    close_it();
    peer_member(&rig, 3)->log = peer_log(9);
    peer_tell_members(&rig);
    expect_told(false);
    assert_int_equal(pass(), 1);
    wait_pass();
    expect_told(true);
}

static void test_it_is_open_again_when_the_copy_has_grown(void **state)
{
    (void)state;
    close_it();
    peer_hold(&rig, GONE, peer_place(110, 9500), 1);
    peer_tell_logs(&rig);
    expect_told(false);
}

static void test_what_walsvc_did_not_take_or_has_forgotten_is_told_again(void **state)
{
    (void)state;
    hold_gone();
    assert_false(told(false).gone);
    assert_int_equal(peer_count(&rig, REPL_GONE), 0);
    wait_pass();
    struct repl_action ask;
    while (asked(&ask))
        peer_reply_state(&rig, &ask, LOG_COPY_END, end_place);
    wait_pass();
    expect_told(true);
    rig.boot.bytes[0] ^= 1;
    peer_tell_logs(&rig);
    expect_told(true);
}

/* ---- dropped here ---- */

static struct repl_closed_log dropped_here(void)
{
    return (struct repl_closed_log){.log = peer_log(GONE), .end = end_place};
}

static void test_what_was_dropped_here_is_not_followed_again(void **state)
{
    struct repl_closed_log closed = dropped_here();
    (void)state;
    close_it();
    peer_watermark(&rig, 2, GONE, end_place);
    peer_tell_members(&rig);
    rig.held_count--;
    peer_tell_closed(&rig, &closed, 1);
    peer_tell_members(&rig);
    peer_clear(&rig);
    peer_wait(&rig, 20000);
    assert_int_equal(peer_fetches(&rig, GONE), 0);
    struct buf followed = {0};
    repl_core_followed(rig.core, rig.now_ns, &followed);
    struct mp m = mp_of(buf_slice(&followed));
    uint32_t count;
    assert_true(mp_array(&m, &count));
    assert_int_equal(count, 2); /* of n2 and n3 */
    buf_free(&followed);
}

static void test_it_is_followed_again_when_it_lives_again(void **state)
{
    struct repl_closed_log closed = dropped_here();
    (void)state;
    repl_core_standing(rig.core, true);
    peer_tell_closed(&rig, &closed, 1);
    peer_add_member(&rig, GONE);
    peer_tell_members(&rig);
    assert_int_equal(peer_fetches(&rig, GONE), 0); /* walsvc would refuse it */
    assert_false(told(false).gone);
    wait_pass();
    expect_told(false); /* again, since it was not taken */
    peer_tell_closed(&rig, NULL, 0);
    peer_tell_members(&rig);
    peer_wait(&rig, 1);
    assert_int_equal(peer_fetches(&rig, GONE), 1);
}

static struct msg_fetch_reply serve_at(struct log_chain place)
{
    struct msg_fetch fetch = peer_fetch(2, GONE, place);
    peer_clear(&rig);
    peer_ask(&rig, 5, 2, &fetch);
    struct repl_action tell = peer_expect(&rig, REPL_TELL);
    assert_int_equal(tell.token, 5);
    assert_true(id16_equal(tell.reply.log, peer_log(GONE)));
    assert_int_equal(tell.reply.durable_end, end_place.position);
    assert_int_equal(tell.reply.durable_lsn, end_place.next_lsn - 1);
    return tell.reply;
}

static void test_others_are_told_where_it_ended(void **state)
{
    struct repl_closed_log closed = dropped_here();
    struct log_chain other = end_place;
    (void)state;
    peer_tell_members(&rig);
    peer_tell_closed(&rig, &closed, 1);
    assert_int_equal(serve_at(end_place).state, LOG_COPY_END);
    assert_int_equal(serve_at(peer_place(200, 20000)).state, LOG_COPY_BEHIND);
    struct msg_fetch_reply trimmed = serve_at(peer_place(50, 5000));
    assert_int_equal(trimmed.state, LOG_COPY_TRIMMED);
    assert_int_equal(trimmed.position, end_place.position);
    assert_int_equal(trimmed.lsn, end_place.next_lsn - 1);
    other.checksum++;
    assert_int_equal(serve_at(other).state, LOG_COPY_FORKED);
    assert_int_equal(serve_at(other).checksum, end_place.checksum);
    struct msg_fetch repair = peer_fetch(2, GONE, end_place);
    repair.repair = true;
    peer_clear(&rig);
    peer_ask(&rig, 6, 2, &repair);
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).error, SH_NOT_FOUND);
    struct msg_fetch unknown = peer_fetch(2, 8, end_place);
    peer_ask(&rig, 7, 2, &unknown);
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).error, SH_NOT_FOUND);
}

/* ---- holds ---- */

/* That of a member for the log: the LSN; 0: none was told. */
static uint64_t hold_for(unsigned node)
{
    char id[16];
    uint64_t lsn = 0;
    snprintf(id, sizeof id, "n%u", node);
    for (size_t i = 0; i < rig.action_count; i++)
        if (rig.actions[i].kind == REPL_HOLD && strcmp(rig.actions[i].id, id) == 0 &&
            id16_equal(rig.actions[i].hold.log, peer_log(GONE)))
            lsn = rig.actions[i].hold.lsn;
    return lsn;
}

/* One that has dropped its copy tells of no watermark any more. */
static void test_nothing_is_held_for_who_has_said_that_it_has_it(void **state)
{
    (void)state;
    hold_gone();
    peer_clear(&rig);
    peer_wait(&rig, 1);
    assert_int_equal(hold_for(2), 1);
    peer_gone_told(&rig, true);
    wait_pass();
    struct repl_action ask = expect_asked(2);
    peer_reply_state(&rig, &ask, LOG_COPY_END, end_place);
    ask = expect_asked(3);
    peer_error(&rig, &ask, SH_NOT_FOUND);
    peer_wait(&rig, 5000);
    assert_int_equal(hold_for(2), end_place.next_lsn);
    assert_int_equal(hold_for(3), 0); /* it stays where it is */
}

static void test_holds_of_logs_that_are_gone_make_room(void **state)
{
    (void)state;
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 2 * REPL_LOGS_MAX; i++) {
        rig.held_count = 1;
        peer_hold(&rig, 10 + i, end_place, 1);
        peer_tell_logs(&rig);
        peer_clear(&rig);
        peer_wait(&rig, 6000);
        assert_true(peer_count(&rig, REPL_HOLD) >= 2); /* for n2 and n3 */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_log_is_closed_when_all_say_that_they_have_that_end),
        TEST(test_a_node_alone_closes_the_logs_of_those_that_left),
        TEST(test_a_member_with_another_end_keeps_it_open),
        TEST(test_a_member_that_is_down_keeps_it_open_until_it_was_asked),
        TEST(test_a_member_that_has_not_come_yet_keeps_it_open),
        TEST(test_the_log_of_a_member_is_never_closed),
        TEST(test_who_does_not_know_all_members_closes_nothing),
        TEST(test_who_gives_no_answer_does_not_stop_the_others),
        TEST(test_it_is_open_again_when_its_node_comes_back),
        TEST(test_it_is_open_again_until_a_new_member_has_it),
        TEST(test_another_identity_of_a_member_is_asked_anew),
        TEST(test_it_is_open_again_when_the_copy_has_grown),
        TEST(test_what_walsvc_did_not_take_or_has_forgotten_is_told_again),
        TEST(test_what_was_dropped_here_is_not_followed_again),
        TEST(test_it_is_followed_again_when_it_lives_again),
        TEST(test_others_are_told_where_it_ended),
        TEST(test_nothing_is_held_for_who_has_said_that_it_has_it),
        TEST(test_holds_of_logs_that_are_gone_make_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
