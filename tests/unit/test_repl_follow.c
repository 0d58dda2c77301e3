/* replsvc's core: whom it asks for a log, how much, and what it does when nothing comes. */
#include "repl_story.h"

static void test_a_new_member_is_asked_for_all_of_its_log(void **state)
{
    (void)state;
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    assert_string_equal(fetch.host, "h2");
    assert_int_equal(fetch.fetch.position, 0);
    assert_int_equal(fetch.fetch.lsn, 0);
    assert_int_equal(fetch.fetch.most_bytes, REPL_FETCH_BYTES);
    assert_int_equal(fetch.fetch.wait_ms, REPL_WAIT_MS);
    peer_expect_fetch(&rig, 3, 3);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0); /* not its own one */
}

static void test_nothing_is_fetched_before_walsvc_has_said_what_there_is(void **state)
{
    (void)state;
    peer_restart(&rig);
    peer_tell_members(&rig);
    peer_wait(&rig, 3000);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
    peer_hold(&rig, 2, peer_place(7, 700), 1);
    peer_tell_logs(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    assert_int_equal(fetch.fetch.position, 700);
    assert_int_equal(fetch.fetch.lsn, 7);
    assert_int_equal(fetch.fetch.checksum, peer_place(7, 700).checksum);
}

static void test_one_fetch_is_out_for_a_log(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        peer_watermark(&rig, 2, 2, peer_place(10 + i, 1000 + i));
        peer_tell_members(&rig);
        peer_tell_logs(&rig);
        peer_wait(&rig, 100);
    }
    peer_expect_fetch(&rig, 2, 2);
    peer_expect_fetch(&rig, 3, 3);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
}

static void test_the_next_fetch_goes_out_while_frames_are_stored(void **state)
{
    (void)state;
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    assert_true(peer_answer(&rig, &fetch, &origin));
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    assert_int_equal(store.store.position, 0);
    assert_memory_equal(store.store.bytes.data, origin.bytes.data, store.store.bytes.len);
    fetch = peer_expect_fetch(&rig, 2, 2);
    assert_int_equal(fetch.fetch.position, store.store.bytes.len); /* a segment */
    assert_int_equal(fetch.fetch.most_bytes, REPL_FETCH_BYTES);
}

static void test_what_is_durable_is_told_to_the_origin_at_once(void **state)
{
    (void)state;
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    peer_answer(&rig, &fetch, &origin);
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    assert_int_equal(peer_count(&rig, REPL_POSITION), 0);
    struct log_chain end = place_of_frame(model_log_find(&origin, store.store.bytes.len));
    peer_stored(&rig, &store, end);
    struct repl_action position = peer_expect(&rig, REPL_POSITION);
    assert_string_equal(position.host, "h2");
    assert_int_equal(position.port, RIG_BASE_PORT + 3);
    assert_int_equal(position.position.lsn, end.next_lsn - 1);
    assert_int_equal(position.position.end, end.position);
    assert_true(id16_equal(position.position.log, peer_log(2)));
    assert_true(id16_equal(position.position.from, peer_log(1)));
    peer_wait(&rig, 1000); /* and again, should it be lost */
    position = peer_expect(&rig, REPL_POSITION);
    assert_int_equal(position.position.lsn, end.next_lsn - 1);
}

/* A log of frames of a megabyte. */
static void make_large(size_t megabytes)
{
    model_log_free(&origin);
    model_log_open(&origin, peer_log(2));
    for (size_t i = 0; i < megabytes; i++)
        model_log_append(&origin, (1 << 20) - 200, 1, i, false);
    model_log_sync_all(&origin);
}

static void test_no_more_is_fetched_than_may_be_unsynced(void **state)
{
    (void)state;
    struct repl_action stores[8], fetch = peer_expect_fetch(&rig, 2, 2);
    size_t count = 0;
    uint64_t bytes = 0;
    make_large(20);
    for (;;) {
        assert_true(peer_answer(&rig, &fetch, &origin));
        stores[count] = peer_expect(&rig, REPL_STORE);
        bytes += stores[count++].store.bytes.len;
        if (peer_count(&rig, REPL_FETCH) == 1) /* n3's */
            break;
        fetch = peer_expect_fetch(&rig, 2, 2);
        assert_true(fetch.fetch.most_bytes <= REPL_WINDOW_BYTES - bytes);
    }
    assert_true(bytes > REPL_WINDOW_BYTES - (64 << 10) && bytes <= REPL_WINDOW_BYTES);
    peer_wait(&rig, 60000); /* as long as it takes */
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
    assert_int_equal(repl_core_counters(rig.core)->exhausted, 1);
    peer_clear(&rig);
    peer_stored(&rig, &stores[0], peer_place(4, stores[0].store.bytes.len));
    peer_expect_fetch(&rig, 2, 2);
}

static void test_a_frame_larger_than_the_credit_is_taken(void **state)
{
    (void)state;
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    model_log_free(&origin);
    model_log_open(&origin, peer_log(2));
    model_log_append(&origin, 1, 1, 0, false);
    model_log_append(&origin, FRAME_BYTES_MAX - FRAME_HEADER_BYTES, 1, 0, false);
    model_log_sync_all(&origin);
    assert_true(peer_answer(&rig, &fetch, &origin));
    fetch = peer_expect_fetch(&rig, 2, 2);
    assert_true(peer_answer(&rig, &fetch, &origin));
    peer_expect_fetch(&rig, 3, 3);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0); /* no credit */
}

static void test_a_source_that_fails_is_asked_again_more_and_more_rarely(void **state)
{
    (void)state;
    int64_t last_ns = 0;
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    for (unsigned i = 0; i < 12; i++) {
        int64_t failed_ns = rig.now_ns;
        peer_fail(&rig, &fetch);
        peer_clear(&rig);
        while (peer_fetches(&rig, 2) == 0)
            peer_wait(&rig, 10);
        fetch = peer_expect_fetch(&rig, 2, 2);
        assert_true(rig.now_ns - failed_ns >= last_ns);
        last_ns = rig.now_ns - failed_ns;
    }
    assert_true(last_ns >= 4 * NS_PER_S && last_ns <= 6 * NS_PER_S);
    assert_true(peer_counters(&rig)->failed >= 12);
    assert_false(peer_answer(&rig, &fetch, &(struct model_log){.id = peer_log(2), .begin = {.next_lsn = 1}}));
    peer_wait(&rig, 200);
    fetch = peer_expect_fetch(&rig, 2, 2);
    peer_fail(&rig, &fetch);
    peer_wait(&rig, 60); /* forgotten by an answer */
    peer_expect_fetch(&rig, 2, 2);
}

static void test_a_fetch_without_an_answer_ends(void **state)
{
    (void)state;
    struct repl_action late = peer_expect_fetch(&rig, 2, 2);
    peer_wait(&rig, 6900);
    peer_clear(&rig);
    peer_wait(&rig, 200);
    assert_true(peer_count(&rig, REPL_CANCEL) > 0);
    peer_expect_fetch(&rig, 2, 2);
    assert_false(peer_answer(&rig, &late, &origin)); /* too late */
    peer_fail(&rig, &late);
    peer_fail(&rig, &late);
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
    assert_int_equal(peer_counters(&rig)->failed, 2); /* n2 and n3, by time */
}

static void test_another_holder_is_asked_when_the_origin_is_down(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_member(&rig, 2)->up = false;
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_fail(&rig, &fetch);
    fetch = peer_expect_fetch(&rig, 2, 3);
    assert_true(peer_answer(&rig, &fetch, &origin));
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    peer_member(&rig, 2)->up = true;
    peer_tell_members(&rig);
    peer_stored(&rig, &store, model_log_end(&origin));
    assert_string_equal(peer_expect(&rig, REPL_POSITION).host, "h2"); /* whoever they came from */
}

static void test_a_holder_that_has_no_more_is_not_asked(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_member(&rig, 2)->up = false;
    peer_watermark(&rig, 3, 2, place_of_frame(3));
    peer_tell_members(&rig);
    peer_fail(&rig, &fetch);
    peer_expect_fetch(&rig, 3, 3);
    peer_wait(&rig, 4000);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
}

static void test_who_has_most_is_asked(void **state)
{
    (void)state;
    peer_add_member(&rig, 4);
    struct repl_action fetch = stand_before(3);
    peer_member(&rig, 2)->up = false;
    peer_watermark(&rig, 3, 2, place_of_frame(6));
    peer_watermark(&rig, 4, 2, place_of_frame(8));
    peer_tell_members(&rig);
    peer_fail(&rig, &fetch);
    peer_expect_fetch(&rig, 2, 4);
}

static void test_an_origin_that_gives_nothing_is_left_when_another_has_more(void **state)
{
    (void)state;
    stand_before(3);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_wait(&rig, 1900);
    peer_clear(&rig);
    peer_wait(&rig, 200);
    assert_true(peer_count(&rig, REPL_CANCEL) == 1);
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 3);
    peer_wait(&rig, 100);
    assert_true(peer_answer(&rig, &fetch, &origin));
    peer_expect_fetch(&rig, 2, 2); /* and back to the origin */
}

static void test_the_time_for_that_begins_when_it_is_known(void **state)
{
    (void)state;
    stand_before(3);
    peer_wait(&rig, 4000); /* nothing to send, as far as anybody knows */
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_wait(&rig, 900); /* frames are on their way */
    assert_int_equal(peer_count(&rig, REPL_CANCEL), 0);
}

static void test_an_origin_is_not_left_when_nobody_else_has_more(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_watermark(&rig, 2, 2, model_log_end(&origin)); /* by its own word */
    peer_tell_members(&rig);
    peer_wait(&rig, 4900); /* over a slow line it takes that long */
    assert_int_equal(peer_count(&rig, REPL_CANCEL), 0);
    assert_true(peer_answer(&rig, &fetch, &origin));
}

static void test_patience_grows_so_that_a_slow_line_gets_through(void **state)
{
    (void)state;
    int64_t most_ns = 0;
    stand_before(3);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    for (unsigned i = 0; i < 400; i++) { /* neither ever answers */
        int64_t asked_ns = rig.now_ns;
        peer_clear(&rig);
        while (peer_count(&rig, REPL_CANCEL) == 0)
            peer_wait(&rig, 100);
        most_ns = rig.now_ns - asked_ns > most_ns ? rig.now_ns - asked_ns : most_ns;
        if (rig.now_ns > 1200 * NS_PER_S)
            break;
    }
    assert_true(most_ns >= 8 * NS_PER_S && most_ns <= 15 * NS_PER_S);
}

static void test_less_is_asked_for_over_a_line_that_is_too_slow(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    uint64_t most = fetch.fetch.most_bytes;
    for (unsigned i = 0; i < 20; i++) {
        peer_clear(&rig);
        while (peer_count(&rig, REPL_CANCEL) == 0) /* nothing came in time */
            peer_wait(&rig, 100);
        while (peer_fetches(&rig, 2) == 0)
            peer_wait(&rig, 100);
        fetch = peer_expect_fetch(&rig, 2, 2);
        assert_true(fetch.fetch.most_bytes < most || most == 64 << 10);
        most = fetch.fetch.most_bytes;
    }
    assert_int_equal(most, 64 << 10);
    assert_true(peer_answer(&rig, &fetch, &origin));
    assert_int_equal(peer_expect_fetch(&rig, 2, 2).fetch.most_bytes, REPL_FETCH_BYTES);
}

static void test_a_lie_about_the_end_is_forgotten(void **state)
{
    (void)state;
    struct buf out = {0};
    struct mp m;
    uint32_t count;
    struct slice info;
    struct msg_replica_info replica;
    stand_before(origin.count);
    peer_watermark(&rig, 3, 2, peer_place(UINT64_MAX - 10, UINT64_MAX - 10));
    peer_tell_members(&rig);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    repl_core_followed(rig.core, rig.now_ns, &out);
    m = mp_of(buf_slice(&out));
    assert_true(mp_array(&m, &count));
    for (uint32_t i = 0; i < count; i++) {
        assert_true(mp_raw(&m, &info));
        assert_int_equal(msg_decode(MSG_replica_info, info, &replica), SH_OK);
        assert_int_equal(replica.lag_bytes, 0);
    }
    buf_free(&out);
}

static void test_an_origin_that_does_not_wait_is_not_asked_without_a_pause(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(origin.count);
    unsigned fetches = 0;
    int64_t until_ns = rig.now_ns + 10 * NS_PER_S;
    while (rig.now_ns < until_ns) {
        assert_false(peer_answer(&rig, &fetch, &origin));
        peer_clear(&rig);
        while (peer_fetches(&rig, 2) == 0)
            peer_wait(&rig, 10);
        fetch = peer_expect_fetch(&rig, 2, 2);
        fetches++;
    }
    assert_true(fetches <= 110);
}

static void test_errors_pause_the_source(void **state)
{
    (void)state;
    static const struct {
        enum sh_error error;
        int64_t pause_ms;
    } rows[] = {{SH_UNAVAILABLE, 250}, {SH_OVERLOADED, 250}, {SH_NOT_FOUND, 250},
                {SH_NOT_MEMBER, 5000}, {SH_CORRUPT, 5000},   {SH_BAD_REQUEST, 5000}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct repl_action fetch = stand_before(3);
        peer_error(&rig, &fetch, rows[i].error);
        peer_clear(&rig);
        peer_wait(&rig, rows[i].pause_ms - 10);
        assert_int_equal(peer_fetches(&rig, 2), 0);
        peer_wait(&rig, 20);
        peer_expect_fetch(&rig, 2, 2);
        assert_int_equal(peer_counters(&rig)->refused, 1);
    }
}

static void test_damage_at_the_origin_is_gone_round(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_error(&rig, &fetch, SH_CORRUPT);
    peer_expect_notice(&rig, "refuses to send");
    peer_expect_fetch(&rig, 2, 3);
}

static void test_logs_of_who_is_gone_are_completed(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 9, peer_place(50, 5000)); /* n9 is no member any more */
    peer_tell_members(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 9, 3);
    assert_int_equal(fetch.fetch.position, 0);
    peer_member(&rig, 3)->watermark_count = 0; /* nobody has it */
    peer_tell_members(&rig);
    peer_expect(&rig, REPL_CANCEL);
    assert_false(peer_answer(&rig, &fetch, &origin));
}

static void test_members_logs_are_followed_before_those_of_who_is_gone(void **state)
{
    (void)state;
    peer_member(&rig, 2)->log = (struct id16){{0}}; /* has never come */
    peer_restart(&rig);
    for (unsigned i = 0; i < REPL_LOGS_MAX; i++)
        peer_watermark(&rig, 3, 100 + i, peer_place(1, 200));
    peer_add_member(&rig, 4);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    peer_expect_fetch(&rig, 4, 4);
    peer_expect_notice(&rig, "too many logs");
}

static void test_a_holder_that_has_no_more_after_all_is_left_alone_for_a_second(void **state)
{
    (void)state;
    struct repl_action fetch = stand_before(3);
    peer_member(&rig, 2)->up = false;
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    peer_fail(&rig, &fetch);
    fetch = peer_expect_fetch(&rig, 2, 3);
    peer_reply_state(&rig, &fetch, LOG_COPY_END, place_of_frame(3));
    peer_clear(&rig);
    peer_wait(&rig, 900);
    assert_int_equal(peer_count(&rig, REPL_FETCH), 0);
    peer_wait(&rig, 200);
    peer_expect_fetch(&rig, 2, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_new_member_is_asked_for_all_of_its_log),
        TEST(test_nothing_is_fetched_before_walsvc_has_said_what_there_is),
        TEST(test_one_fetch_is_out_for_a_log),
        TEST(test_the_next_fetch_goes_out_while_frames_are_stored),
        TEST(test_what_is_durable_is_told_to_the_origin_at_once),
        TEST(test_no_more_is_fetched_than_may_be_unsynced),
        TEST(test_a_frame_larger_than_the_credit_is_taken),
        TEST(test_a_source_that_fails_is_asked_again_more_and_more_rarely),
        TEST(test_a_fetch_without_an_answer_ends),
        TEST(test_another_holder_is_asked_when_the_origin_is_down),
        TEST(test_a_holder_that_has_no_more_is_not_asked),
        TEST(test_who_has_most_is_asked),
        TEST(test_an_origin_that_gives_nothing_is_left_when_another_has_more),
        TEST(test_the_time_for_that_begins_when_it_is_known),
        TEST(test_an_origin_is_not_left_when_nobody_else_has_more),
        TEST(test_patience_grows_so_that_a_slow_line_gets_through),
        TEST(test_less_is_asked_for_over_a_line_that_is_too_slow),
        TEST(test_a_lie_about_the_end_is_forgotten),
        TEST(test_an_origin_that_does_not_wait_is_not_asked_without_a_pause),
        TEST(test_errors_pause_the_source),
        TEST(test_damage_at_the_origin_is_gone_round),
        TEST(test_logs_of_who_is_gone_are_completed),
        TEST(test_members_logs_are_followed_before_those_of_who_is_gone),
        TEST(test_a_holder_that_has_no_more_after_all_is_left_alone_for_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
