/* replsvc's core: the own log is fetched back while it is open as a copy, and forked copies of other logs
 * give way to what their origin has. */
#include "repl_parts.h"
#include "repl_story.h"

enum { PARTS = 5, FRAMES = 12 }; /* frames: so many are the same in both chains */

static struct model_log here, there; /* of one log: what is here, and another end of it */

static void append(struct model_log *log, unsigned fill, bool roll)
{
    model_log_append(log, 500, 10, fill, roll);
    model_log_sync_all(log);
}

/* roll: every so many frames. */
static void make_chains(unsigned node, size_t frames_here, size_t same, unsigned roll)
{
    model_log_free(&here);
    model_log_free(&there);
    model_log_open(&here, peer_log(node));
    model_log_open(&there, peer_log(node));
    for (unsigned i = 0; i < FRAMES; i++) {
        if (i < frames_here)
            append(&here, i < same ? i : 2000 + i, i % roll == roll - 1);
        append(&there, i < same ? i : 1000 + i, i % roll == roll - 1);
    }
}

/* Of the chain's first frame behind the fork. */
static uint32_t first_of(const struct model_log *log)
{
    const struct model_log *other = log == &here ? &there : &here;
    struct slice all = model_log_bytes(other, 0, model_log_end(other).position);
    size_t index = model_log_differs(log, 0, all);
    const struct model_frame *f = &log->frames[index];
    return repl_fork_first(model_log_bytes(log, f->before.position, f->behind.position));
}

static struct log_chain fork_of(void)
{
    struct slice all = model_log_bytes(&there, 0, model_log_end(&there).position);
    return here.frames[model_log_differs(&here, 0, all)].before;
}

/* The own log is open as a copy, and as it is `here`. */
static void open_own_copy(void)
{
    rig.logs.own_copy = true;
    peer_restart(&rig);
    peer_hold(&rig, 1, model_log_end(&here), here.begin.next_lsn);
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
}

static int begin_own(void **state)
{
    begin(state);
    make_chains(1, FRAMES / 2, FRAMES / 2, 4);
    open_own_copy();
    return 0;
}

static int end_both(void **state)
{
    model_log_free(&here);
    model_log_free(&there);
    here = there = (struct model_log){0};
    return end(state);
}

static void assert_no_verdict(void)
{
    assert_int_equal(peer_count(&rig, REPL_OWN_LOG), 0);
}

static void assert_goes_on(void)
{
    assert_int_equal(peer_expect(&rig, REPL_OWN_LOG).verdict, 0);
    peer_tell_logs(&rig);
    peer_wait(&rig, 10000);
    assert_no_verdict(); /* once */
}

/* The oldest fetch of that log that goes to the node; false: there is none. */
static bool take_fetch(unsigned log, unsigned node, struct repl_action *out)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    for (size_t i = 0; i < rig.action_count; i++) {
        struct repl_action *a = &rig.actions[i];
        if (a->kind != REPL_FETCH || !id16_equal(a->fetch.log, peer_log(log)) || strcmp(a->id, id) != 0)
            continue;
        *out = *a;
        memmove(a, a + 1, (size_t)(rig.actions + --rig.action_count - a) * sizeof *a);
        return true;
    }
    return false;
}

static bool asks(unsigned log, unsigned node)
{
    struct repl_action fetch;
    size_t count = rig.action_count;
    if (!take_fetch(log, node, &fetch))
        return false;
    rig.actions[count - 1] = fetch; /* the last one now, which does not matter */
    rig.action_count = count;
    return true;
}

/* walsvc takes the oldest store, as it does with `over`; false: there is none. */
static bool take_store(void)
{
    uint64_t end;
    if (peer_count(&rig, REPL_STORE) == 0)
        return false;
    struct repl_action action = peer_expect(&rig, REPL_STORE);
    const struct repl_store *s = &action.store;
    assert_true(id16_equal(s->log, here.id));
    assert_false(s->anew);
    size_t differs = s->over ? model_log_differs(&here, s->position, s->bytes) : here.count;
    if (differs < here.count && !id16_equal(s->log, peer_log(1)))
        assert_true(given_up_has(s->given_up, s->given_up_count, first_of(&here)));
    if (differs < here.count)
        model_log_cut(&here, differs);
    assert_int_equal(model_log_take(&here, s->position, s->bytes, false, &end), SH_OK);
    model_log_sync_all(&here);
    peer_stored(&rig, &action, model_log_end(&here));
    return true;
}

/* The node has that log; the others of its log's questions are left. */
static void let_answer(unsigned log, unsigned node, const struct model_log *its)
{
    struct repl_action fetch;
    for (bool more = true; more;) {
        more = take_store();
        if (peer_count(&rig, REPL_LOOK_BACK) > 0) {
            peer_look_back(&rig, &here);
            more = true;
        } else if (take_fetch(log, node, &fetch)) {
            if (peer_answer(&rig, &fetch, its) && peer_count(&rig, REPL_FIND_FORK) > 0)
                peer_compare(&rig, &here);
            more = true;
        }
    }
}

static void assert_same(void)
{
    assert_int_equal(here.bytes.len, there.bytes.len);
    assert_memory_equal(here.bytes.data, there.bytes.data, here.bytes.len);
}

static void fail_all(unsigned log, unsigned node)
{
    struct repl_action fetch;
    while (take_fetch(log, node, &fetch))
        peer_fail(&rig, &fetch);
}

static void settle_with(unsigned node)
{
    for (unsigned i = 0; i < 10 && peer_count(&rig, REPL_OWN_LOG) == 0; i++) {
        for (unsigned other = 2; other <= 3; other++)
            if (other != node)
                fail_all(1, other);
        let_answer(1, node, &there);
        peer_wait(&rig, 1000);
    }
}

/* ---- the own log is behind ---- */

static void test_the_own_log_is_fetched_from_who_has_more(void **state)
{
    (void)state;
    struct log_chain before = model_log_end(&here);
    peer_watermark(&rig, 3, 1, model_log_end(&there));
    peer_clear(&rig);
    peer_tell_members(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 1, 3);
    assert_true(fetch.slot < REPL_LOGS_MAX);
    assert_int_equal(fetch.fetch.position, before.position);
    assert_true(peer_answer(&rig, &fetch, &there));
    assert_false(rig.actions[0].kind == REPL_STORE && rig.actions[0].store.over);
    let_answer(1, 3, &there);
    assert_same();
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0);
    peer_wait(&rig, 3000);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0);
}

static void test_it_goes_on_when_nobody_that_answers_has_more(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 1, model_log_end(&there));
    peer_tell_members(&rig);
    let_answer(1, 2, &here);
    assert_no_verdict();
    settle_with(3);
    assert_same();
    assert_goes_on();
}

static void test_time_alone_does_not_let_it_go_on(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        fail_all(1, 2);
        fail_all(1, 3);
        peer_wait(&rig, 1000);
        assert_no_verdict();
    }
}

/* It is up, and known to have more: to go on would be to fork. */
static void test_who_is_known_to_have_more_and_is_silent_is_waited_for(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 1, model_log_end(&there));
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 10; i++) {
        let_answer(1, 2, &here);
        fail_all(1, 3);
        peer_wait(&rig, 1000);
        assert_no_verdict();
    }
    peer_member(&rig, 3)->up = false;
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 5 && peer_count(&rig, REPL_OWN_LOG) == 0; i++) {
        let_answer(1, 2, &here);
        fail_all(1, 3);
        peer_wait(&rig, 1000);
    }
    assert_goes_on();
}

static void test_what_is_trimmed_everywhere_does_not_begin_anew(void **state)
{
    (void)state;
    struct repl_action fetch;
    peer_watermark(&rig, 2, 1, model_log_end(&there));
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 30; i++) {
        while (take_fetch(1, 2, &fetch))
            peer_reply_state(&rig, &fetch, LOG_COPY_TRIMMED, model_log_end(&there));
        fail_all(1, 3);
        assert_int_equal(peer_count(&rig, REPL_STORE), 0);
        assert_no_verdict();
        peer_wait(&rig, 1000);
    }
    assert_int_equal(peer_counters(&rig)->gaps, 0);
    peer_expect_notice(&rig, "node join --replace");
}

static void test_once_it_is_back_it_is_followed_no_more(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 1, model_log_end(&there));
    peer_tell_members(&rig);
    rig.logs.own_copy = false;
    rig.boot = peer_log(101);
    peer_clear(&rig);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    assert_true(peer_count(&rig, REPL_CANCEL) > 0);
    assert_int_equal(peer_fetches(&rig, 1), 0);
    peer_wait(&rig, 10000);
    assert_int_equal(peer_fetches(&rig, 1), 0);
}

/* The link hands the store to the next walsvc, which has another place for it. */
static void test_a_store_that_is_left_over_does_no_harm(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 1, model_log_end(&there));
    peer_tell_members(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 1, 2);
    peer_fail(&rig, &fetch);
    while (take_fetch(1, 3, &fetch) && fetch.slot >= REPL_LOGS_MAX)
        peer_fail(&rig, &fetch);
    assert_true(peer_answer(&rig, &fetch, &there));
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    rig.logs.own_copy = false;
    rig.boot = peer_log(101);
    peer_tell_logs(&rig);
    peer_clear(&rig);
    peer_not_stored(&rig, &store, SH_BAD_REQUEST);
    peer_tell_logs(&rig);
    peer_wait(&rig, 10000);
    assert_int_equal(peer_fetches(&rig, 1), 0);
}

/* ---- the own log is on another chain ---- */

static void fork_own(size_t frames_here, size_t same, unsigned roll)
{
    make_chains(1, frames_here, same, roll);
    open_own_copy();
}

static void test_a_fork_in_the_newest_segment_is_replaced_from_there(void **state)
{
    (void)state;
    fork_own(FRAMES, 9, 100);
    struct log_chain fork = fork_of();
    fail_all(1, 3);
    struct repl_action fetch = peer_expect_fetch(&rig, 1, 2);
    assert_int_equal(fetch.slot, REPL_FORK_SLOT);
    assert_false(peer_answer(&rig, &fetch, &there));
    peer_look_back(&rig, &here);
    fetch = peer_expect_fetch(&rig, 1, 2);
    assert_int_equal(fetch.fetch.position, 0);
    assert_true(peer_answer(&rig, &fetch, &there));
    peer_compare(&rig, &here);
    fetch = peer_expect_fetch(&rig, 1, 2);
    assert_true(fetch.slot < REPL_LOGS_MAX);
    assert_int_equal(fetch.fetch.position, fork.position);
    peer_expect_notice(&rig, "kept aside and replaced");
    assert_true(peer_answer(&rig, &fetch, &there));
    for (size_t i = 0; i < rig.action_count; i++)
        if (rig.actions[i].kind == REPL_STORE)
            assert_true(rig.actions[i].store.over && rig.actions[i].store.given_up_count == 0);
    settle_with(2);
    assert_same();
    assert_goes_on();
    assert_int_equal(peer_counters(&rig)->replaced, 1);
}

static void test_a_fork_segments_back_is_replaced_from_there(void **state)
{
    (void)state;
    for (size_t same = 1; same < FRAMES; same++) {
        fork_own(FRAMES, same, 3);
        settle_with(3);
        assert_same();
        assert_goes_on();
    }
}

/* Their chain is shorter than what is here: what is beyond it goes too. */
static void test_a_shorter_chain_of_others_replaces_a_longer_one(void **state)
{
    (void)state;
    fork_own(FRAMES, PARTS, 3);
    for (unsigned i = 0; i < 20; i++)
        append(&here, 3000 + i, i % 3 == 0);
    open_own_copy();
    peer_watermark(&rig, 2, 1, model_log_end(&there));
    peer_tell_members(&rig);
    settle_with(2);
    assert_same();
    assert_goes_on();
}

static void test_after_the_fork_it_is_appended_as_ever(void **state)
{
    (void)state;
    fork_own(FRAMES, PARTS, 3);
    settle_with(2);
    assert_same();
    append(&there, 7777, true);
    rig.action_count = 0;
    peer_watermark(&rig, 2, 1, model_log_end(&there));
    peer_tell_members(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 1, 2);
    assert_true(peer_answer(&rig, &fetch, &there));
    assert_false(peer_expect(&rig, REPL_STORE).store.over);
}

static void test_what_was_given_up_is_not_taken_again(void **state)
{
    (void)state;
    fork_own(FRAMES, PARTS, 3);
    rig.logs.given_up[0] = first_of(&there);
    rig.logs.given_up_count = 1;
    open_own_copy();
    settle_with(2);
    assert_goes_on();
    assert_int_equal(peer_counters(&rig)->replaced, 0);
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
}

/* The log was cut where the chains part, and nothing has been put there yet. */
static void test_what_was_given_up_is_not_taken_where_it_continues_the_end(void **state)
{
    (void)state;
    fork_own(PARTS, PARTS, 100);
    size_t index = model_log_find(&there, model_log_end(&here).position);
    const struct model_frame *f = &there.frames[index];
    rig.logs.given_up[0] = repl_fork_first(model_log_bytes(&there, f->before.position, f->behind.position));
    rig.logs.given_up_count = 1;
    peer_watermark(&rig, 2, 1, model_log_end(&there));
    open_own_copy();
    settle_with(2);
    assert_goes_on();
    assert_int_equal(here.count, index);
}

static void test_nothing_to_walk_back_to_is_an_alarm(void **state)
{
    (void)state;
    fork_own(FRAMES, 1, 3);
    model_log_trim(&here, 1);
    open_own_copy();
    settle_with(2);
    assert_no_verdict();
    peer_expect_notice(&rig, "node join --replace");
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
}

static void test_a_store_that_is_refused_begins_anew(void **state)
{
    (void)state;
    fork_own(FRAMES, PARTS, 3);
    while (peer_count(&rig, REPL_STORE) == 0) {
        struct repl_action fetch;
        fail_all(1, 3);
        if (peer_count(&rig, REPL_LOOK_BACK) > 0)
            peer_look_back(&rig, &here);
        else if (take_fetch(1, 2, &fetch) && peer_answer(&rig, &fetch, &there) &&
                 peer_count(&rig, REPL_FIND_FORK) > 0)
            peer_compare(&rig, &here);
    }
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    peer_not_stored(&rig, &store, SH_DISK_FULL);
    peer_clear(&rig);
    peer_tell_logs(&rig);
    assert_int_equal(peer_fetches(&rig, 1), 0); /* not at once */
    settle_with(2);
    assert_same();
    assert_goes_on();
}

static void test_when_the_member_goes_another_one_is_taken(void **state)
{
    (void)state;
    struct repl_action fetch;
    fork_own(FRAMES, PARTS, 3);
    while (peer_counters(&rig)->replaced == 0) {
        fail_all(1, 3);
        if (peer_count(&rig, REPL_LOOK_BACK) > 0)
            peer_look_back(&rig, &here);
        else if (take_fetch(1, 2, &fetch) && peer_answer(&rig, &fetch, &there))
            peer_compare(&rig, &here);
    }
    peer_clear(&rig);
    peer_remove_member(&rig, 2);
    peer_tell_members(&rig);
    settle_with(3);
    assert_same();
    assert_goes_on();
}

static void test_two_chains_of_others_are_taken_one_after_the_other(void **state)
{
    (void)state;
    fork_own(FRAMES, PARTS, 3);
    struct model_log third;
    model_log_open(&third, peer_log(1));
    for (unsigned i = 0; i < FRAMES; i++)
        append(&third, i < PARTS - 1 ? i : 9000 + i, i % 3 == 2);
    for (unsigned i = 0; i < 12; i++) {
        let_answer(1, 2, &there);
        let_answer(1, 3, &third);
        if (peer_counters(&rig)->replaced == 1 && rig.logs.given_up_count == 0)
            assert_same();
        peer_wait(&rig, 1000);
    }
    assert_true(peer_counters(&rig)->replaced >= 2); /* walsvc would have said what was given up */
    assert_no_verdict();
    model_log_free(&third);
}

/* ---- a copy of another log ---- */

static int begin_copy(void **state)
{
    begin(state);
    make_chains(2, FRAMES, PARTS, 3);
    peer_restart(&rig);
    peer_hold(&rig, 2, model_log_end(&here), 1);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    return 0;
}

static struct msg_fetch_reply forked(const struct repl_action *fetch, enum log_copy_state state,
                                     const struct buf *given_up)
{
    return (struct msg_fetch_reply){.log = fetch->fetch.log,
                                    .state = state,
                                    .position = fetch->fetch.position,
                                    .checksum = 1,
                                    .durable_end = model_log_end(&there).position,
                                    .durable_lsn = model_log_end(&there).next_lsn - 1,
                                    .given_up = buf_slice(given_up)};
}

static void say(unsigned node, enum log_copy_state state, const uint32_t *checksums, size_t count)
{
    struct buf given_up = {0};
    struct repl_action fetch = peer_expect_fetch(&rig, 2, node);
    given_up_pack(checksums, count, &given_up);
    const struct msg_fetch_reply reply = forked(&fetch, state, &given_up);
    assert_false(peer_reply(&rig, &fetch, &reply));
    buf_free(&given_up);
}

static void test_a_copy_gives_way_to_what_its_origin_gave_up(void **state)
{
    (void)state;
    const uint32_t checksums[] = {12, first_of(&here)};
    say(2, LOG_COPY_FORKED, checksums, 2);
    let_answer(2, 2, &there);
    assert_same();
    assert_int_equal(peer_counters(&rig)->replaced, 1);
}

/* With the same chain at the origin, and nothing longer to say so. */
static void test_a_longer_copy_gives_way_too(void **state)
{
    (void)state;
    const uint32_t checksums[] = {first_of(&here)};
    for (unsigned i = 0; i < 20; i++)
        append(&here, 3000 + i, i % 3 == 0);
    peer_restart(&rig);
    peer_hold(&rig, 2, model_log_end(&here), 1);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    say(2, LOG_COPY_BEHIND, checksums, 1);
    let_answer(2, 2, &there);
    assert_same();
}

/* It has lost its end, and comes back for it. */
static void test_a_copy_that_continues_its_origin_does_not_give_way(void **state)
{
    (void)state;
    const uint32_t checksums[] = {12};
    make_chains(2, FRAMES, FRAMES, 3);
    model_log_cut(&there, PARTS);
    peer_restart(&rig);
    peer_hold(&rig, 2, model_log_end(&here), 1);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 30; i++) {
        struct repl_action fetch;
        if (asks(2, 2) && peer_count(&rig, REPL_LOOK_BACK) == 0) {
            struct buf given_up = {0};
            take_fetch(2, 2, &fetch);
            given_up_pack(checksums, 1, &given_up);
            struct msg_fetch_reply reply = forked(&fetch, LOG_COPY_BEHIND, &given_up);
            if (fetch.slot == REPL_FORK_SLOT) {
                if (peer_answer(&rig, &fetch, &there))
                    peer_compare(&rig, &here);
            } else {
                assert_false(peer_reply(&rig, &fetch, &reply));
            }
            buf_free(&given_up);
        } else if (peer_count(&rig, REPL_LOOK_BACK) > 0) {
            peer_look_back(&rig, &here);
        } else {
            peer_wait(&rig, 1000);
        }
    }
    assert_int_equal(peer_counters(&rig)->checks, 1); /* not each second */
    assert_int_equal(peer_counters(&rig)->replaced, 0);
    assert_int_equal(peer_counters(&rig)->unproved, 0);
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
}

static void assert_does_not_give_way(void)
{
    let_answer(2, 2, &there);
    peer_wait(&rig, 2000);
    assert_int_equal(peer_counters(&rig)->replaced, 0);
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
}

static void test_a_copy_does_not_give_way_to_what_was_not_given_up(void **state)
{
    (void)state;
    const uint32_t checksums[] = {12, 13};
    say(2, LOG_COPY_FORKED, checksums, 2);
    assert_does_not_give_way();
    peer_expect_notice(&rig, "did not give that up");
    assert_int_equal(peer_counters(&rig)->unproved, 1);
}

static void test_a_copy_does_not_give_way_without_a_word_of_it(void **state)
{
    (void)state;
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, model_log_end(&there));
    peer_expect_notice(&rig, "different chains");
    assert_int_equal(peer_count(&rig, REPL_LOOK_BACK), 0);
    assert_does_not_give_way();
}

static void test_a_copy_does_not_give_way_to_another_holder(void **state)
{
    (void)state;
    const uint32_t checksums[] = {first_of(&here)};
    struct log_chain longer = model_log_end(&here);
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    longer.position += 100000;
    peer_fail(&rig, &fetch);
    peer_clear(&rig);
    peer_member(&rig, 2)->up = false;
    peer_watermark(&rig, 3, 2, longer);
    peer_tell_members(&rig);
    say(3, LOG_COPY_FORKED, checksums, 1);
    assert_int_equal(peer_count(&rig, REPL_LOOK_BACK), 0);
    let_answer(2, 3, &there);
    assert_int_equal(peer_counters(&rig)->replaced, 0);
}

static void test_a_word_that_cannot_be_read_is_counted(void **state)
{
    (void)state;
    static const char *const words[] = {"\x91\xa1x", "\x91\xcf\x00\x00\x00\x01\x00\x00\x00\x00", "\xc0",
                                        "\xdc\x00\x11\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1"};
    static const size_t lengths[] = {3, 10, 1, 20};
    for (size_t i = 0; i < 4; i++) {
        struct buf given_up = {0};
        struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
        buf_append(&given_up, words[i], lengths[i]);
        const struct msg_fetch_reply reply = forked(&fetch, LOG_COPY_FORKED, &given_up);
        assert_false(peer_reply(&rig, &fetch, &reply));
        buf_free(&given_up);
        assert_int_equal(peer_counters(&rig)->malformed, i + 1);
        assert_int_equal(peer_count(&rig, REPL_LOOK_BACK), 0);
        peer_wait(&rig, 5000);
    }
}

/* Its LSNs may be those of other entries at the origin. */
static void test_a_copy_that_gives_way_has_no_position_until_it_has(void **state)
{
    (void)state;
    const uint32_t checksums[] = {first_of(&here)};
    struct log_chain longer = model_log_end(&here), fork = fork_of();
    longer.position += 100000;
    peer_watermark(&rig, 3, 2, longer); /* which is on the chain that was given up, too */
    peer_tell_members(&rig);
    peer_clear(&rig);
    peer_restart(&rig);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    say(2, LOG_COPY_FORKED, checksums, 1);
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 3);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, model_log_end(&here));
    peer_wait(&rig, 3000);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0);
    let_answer(2, 2, &there);
    assert_same();
    assert_true(peer_count(&rig, REPL_POSITION) > 0);
    while (peer_count(&rig, REPL_POSITION) > 0)
        assert_true(peer_expect(&rig, REPL_POSITION).position.end > fork.position);
}

/* ---- what is told of the own log ---- */

static void test_the_origin_says_what_it_gave_up(void **state)
{
    (void)state;
    struct buf out = {0};
    uint32_t checksums[GIVEN_UP_MAX];
    size_t count;
    repl_core_given_up(rig.core, peer_log(1), LOG_COPY_FORKED, &out);
    assert_int_equal(out.len, 0);
    rig.logs.given_up_count = GIVEN_UP_MAX;
    for (unsigned i = 0; i < GIVEN_UP_MAX; i++)
        rig.logs.given_up[i] = UINT32_MAX - i;
    peer_tell_logs(&rig);
    repl_core_given_up(rig.core, peer_log(2), LOG_COPY_FORKED, &out); /* of another log */
    repl_core_given_up(rig.core, peer_log(1), LOG_COPY_FRAMES, &out);
    repl_core_given_up(rig.core, peer_log(1), LOG_COPY_END, &out);
    assert_int_equal(out.len, 0);
    repl_core_given_up(rig.core, peer_log(1), LOG_COPY_BEHIND, &out);
    assert_true(given_up_unpack(buf_slice(&out), checksums, &count));
    assert_int_equal(count, GIVEN_UP_MAX);
    assert_int_equal(checksums[15], UINT32_MAX - 15);
    buf_free(&out);
}

static struct msg_replica_info info_of_own(void)
{
    static struct buf out;
    struct mp m;
    uint32_t count;
    struct slice bytes;
    struct msg_replica_info info;
    out.len = 0;
    repl_core_followed(rig.core, rig.now_ns, &out);
    m = mp_of(buf_slice(&out));
    assert_true(mp_array(&m, &count));
    for (uint32_t i = 0; i < count; i++) {
        assert_true(mp_raw(&m, &bytes));
        assert_int_equal(msg_decode(MSG_replica_info, bytes, &info), SH_OK);
        if (id16_equal(info.log, peer_log(1)))
            return info;
    }
    fail_msg("the own log is not told of");
    abort();
}

static void test_the_own_log_is_told_of_while_it_is_fetched_back(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 1, model_log_end(&there));
    peer_tell_members(&rig);
    struct msg_replica_info info = info_of_own();
    assert_true(slice_equal(info.origin, slice_str("n1")));
    assert_true(slice_equal(info.peer, slice_str("n3")));
    assert_int_equal(info.end, model_log_end(&here).position);
    let_answer(1, 3, &there);
    assert_int_equal(info_of_own().end, model_log_end(&there).position);
    fork_own(FRAMES, PARTS, 3);
    peer_watermark(&rig, 3, 1, (struct log_chain){.next_lsn = 1000, .position = 1 << 20});
    peer_tell_members(&rig);
    struct repl_action fetch;
    while (take_fetch(1, 3, &fetch))
        if (fetch.slot < REPL_LOGS_MAX)
            peer_reply_state(&rig, &fetch, LOG_COPY_FORKED, model_log_end(&there));
    assert_int_equal(info_of_own().state, REPL_FORKED);
}

#undef TEST
#define TEST(name)      cmocka_unit_test_setup_teardown(name, begin_own, end_both)
#define TEST_COPY(name) cmocka_unit_test_setup_teardown(name, begin_copy, end_both)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_own_log_is_fetched_from_who_has_more),
        TEST(test_it_goes_on_when_nobody_that_answers_has_more),
        TEST(test_time_alone_does_not_let_it_go_on),
        TEST(test_who_is_known_to_have_more_and_is_silent_is_waited_for),
        TEST(test_what_is_trimmed_everywhere_does_not_begin_anew),
        TEST(test_once_it_is_back_it_is_followed_no_more),
        TEST(test_a_store_that_is_left_over_does_no_harm),
        TEST(test_a_fork_in_the_newest_segment_is_replaced_from_there),
        TEST(test_a_fork_segments_back_is_replaced_from_there),
        TEST(test_a_shorter_chain_of_others_replaces_a_longer_one),
        TEST(test_after_the_fork_it_is_appended_as_ever),
        TEST(test_what_was_given_up_is_not_taken_again),
        TEST(test_what_was_given_up_is_not_taken_where_it_continues_the_end),
        TEST(test_nothing_to_walk_back_to_is_an_alarm),
        TEST(test_a_store_that_is_refused_begins_anew),
        TEST(test_when_the_member_goes_another_one_is_taken),
        TEST(test_two_chains_of_others_are_taken_one_after_the_other),
        TEST_COPY(test_a_copy_gives_way_to_what_its_origin_gave_up),
        TEST_COPY(test_a_longer_copy_gives_way_too),
        TEST_COPY(test_a_copy_that_continues_its_origin_does_not_give_way),
        TEST_COPY(test_a_copy_does_not_give_way_to_what_was_not_given_up),
        TEST_COPY(test_a_copy_does_not_give_way_without_a_word_of_it),
        TEST_COPY(test_a_copy_does_not_give_way_to_another_holder),
        TEST_COPY(test_a_word_that_cannot_be_read_is_counted),
        TEST_COPY(test_a_copy_that_gives_way_has_no_position_until_it_has),
        TEST_COPY(test_the_origin_says_what_it_gave_up),
        TEST(test_the_own_log_is_told_of_while_it_is_fetched_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
