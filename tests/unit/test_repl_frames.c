/* replsvc's core: bytes that are not what was asked for are not handed to walsvc. */
#include "repl_parts.h"
#include "repl_story.h"

/* n1 stands before the third frame: what n2 answers rightly, the frames being those of the first segment. */
static struct repl_action fetch;
static struct msg_fetch_reply reply;
static struct buf bytes;

static int begin_answer(void **state)
{
    begin(state);
    fetch = stand_before(2);
    const struct msg_fetch *f = &fetch.fetch;
    const struct repl_serve serve = {.log = f->log,
                                     .from = {f->lsn + 1, (uint32_t)f->checksum, f->position},
                                     .durable = model_log_durable(&origin),
                                     .most_bytes = f->most_bytes,
                                     .most_entries = f->most_entries};
    bytes = (struct buf){0};
    model_log_serve(&origin, &serve, &bytes, &reply);
    assert_true(reply.bytes.len > 2000); /* several frames */
    return 0;
}

static int end_answer(void **state)
{
    buf_free(&bytes);
    return end(state);
}

static void assert_refused(uint64_t counter)
{
    assert_false(peer_reply(&rig, &fetch, &reply));
    assert_int_equal(peer_count(&rig, REPL_STORE), 0);
    assert_int_equal(peer_fetches(&rig, 2), 0); /* not at once from the same one */
    assert_int_equal(peer_count(&rig, REPL_NOTICE), 1);
    peer_expect_notice(&rig, "a member");
    assert_int_equal(counter, 0);
}

static void assert_bad_frames(void)
{
    assert_refused(peer_counters(&rig)->bad_frames);
    assert_int_equal(peer_counters(&rig)->bad_frames, 1);
    assert_int_equal(peer_counters(&rig)->fetched_bytes, 0);
}

static void assert_not_asked_for(void)
{
    assert_refused(peer_counters(&rig)->not_asked_for);
    assert_int_equal(peer_counters(&rig)->not_asked_for, 1);
}

static void test_good_frames_are_stored(void **state)
{
    (void)state;
    assert_true(peer_reply(&rig, &fetch, &reply));
    struct repl_action store = peer_expect(&rig, REPL_STORE);
    assert_int_equal(store.store.position, place_of_frame(2).position);
    assert_true(slice_equal(store.store.bytes, reply.bytes));
    assert_int_equal(peer_counters(&rig)->fetched_bytes, reply.bytes.len);
}

static void test_another_log_is_refused(void **state)
{
    (void)state;
    reply.log = peer_log(3);
    assert_not_asked_for();
}

static void test_another_place_is_refused(void **state)
{
    (void)state;
    reply.position++;
    assert_not_asked_for();
}

static void test_frames_of_another_place_are_refused(void **state)
{
    (void)state;
    size_t first = origin.frames[2].behind.position - origin.frames[2].before.position;
    reply.bytes = slice_of(reply.bytes.data + first, reply.bytes.len - first);
    assert_bad_frames();
}

static void test_each_damaged_bit_of_a_header_is_seen(void **state)
{
    (void)state;
    for (size_t bit = 0; bit < 8 * FRAME_HEADER_BYTES; bit++) {
        struct log_chain at = place_of_frame(2);
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (repl_check_bytes(peer_log(2), reply.segment, reply.bytes, false, &at))
            fail_msg("bit %zu", bit);
        assert_int_equal(at.position, place_of_frame(2).position); /* where it was */
        bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    bytes.data[bytes.len - 1] ^= 1;
    assert_bad_frames();
}

static void test_each_damaged_bit_of_a_segments_header_is_seen(void **state)
{
    (void)state;
    struct log_chain start = {.next_lsn = 1}, at = start;
    struct slice first = model_log_bytes(&origin, 0, origin.frames[3].before.position);
    struct buf copy = {0};
    buf_append(&copy, first.data, first.len);
    assert_true(repl_check_bytes(peer_log(2), 1, buf_slice(&copy), false, &at));
    assert_int_equal(at.position, first.len);
    for (size_t bit = 0; bit < 8 * SEGMENT_HEADER_BYTES; bit++) {
        for (unsigned anew = 0; anew < 2; anew++) {
            at = start;
            copy.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (repl_check_bytes(peer_log(2), 1, buf_slice(&copy), anew, &at))
                fail_msg("bit %zu", bit);
            copy.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    buf_free(&copy);
}

/* Valid in itself. */
static void write_frame(struct frame_header h, uint32_t salt)
{
    uint8_t header[FRAME_HEADER_BYTES];
    h.body_bytes = 3;
    frame_encode(&h, salt, slice_str("abc"), header);
    bytes.len = 0;
    buf_append(&bytes, header, sizeof header);
    buf_append_str(&bytes, "abc");
    reply.bytes = buf_slice(&bytes);
}

static struct frame_header next_frame(void)
{
    struct log_chain at = place_of_frame(2);
    return (struct frame_header){.base_lsn = at.next_lsn, .count = 1, .previous_checksum = at.checksum};
}

static void test_a_frame_that_continues_is_taken(void **state)
{
    (void)state;
    write_frame(next_frame(), segment_salt(peer_log(2), 1));
    assert_true(peer_reply(&rig, &fetch, &reply));
}

static void test_a_wrong_chain_is_refused(void **state)
{
    (void)state;
    struct frame_header h = next_frame();
    h.previous_checksum ^= 1;
    write_frame(h, segment_salt(peer_log(2), 1));
    assert_bad_frames();
}

static void test_a_gap_of_lsns_is_refused(void **state)
{
    (void)state;
    struct frame_header h = next_frame();
    h.base_lsn++;
    write_frame(h, segment_salt(peer_log(2), 1));
    assert_bad_frames();
}

static void test_a_durable_end_of_the_future_is_refused(void **state)
{
    (void)state;
    struct frame_header h = next_frame();
    h.durable_end = place_of_frame(2).position + 1;
    write_frame(h, segment_salt(peer_log(2), 1));
    assert_bad_frames();
}

static void test_the_salt_of_another_segment_is_refused(void **state)
{
    (void)state;
    write_frame(next_frame(), segment_salt(peer_log(2), 41));
    assert_bad_frames();
}

static void test_the_salt_of_another_log_is_refused(void **state)
{
    (void)state;
    write_frame(next_frame(), segment_salt(peer_log(3), 1));
    assert_bad_frames();
}

static void test_another_segment_is_refused(void **state)
{
    (void)state;
    reply.segment = 41;
    assert_bad_frames();
}

static void test_garbage_is_refused(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (size_t i = 0; i < bytes.len; i++)
        bytes.data[i] = (uint8_t)((random = random * 6364136223846793005u + 1) >> 56);
    assert_bad_frames();
}

/* Good frames, but more than walsvc's link takes at a time. */
static void test_more_than_one_answer_may_hold_is_refused(void **state)
{
    (void)state;
    enum { HALF = FRAME_BYTES_MAX / 2 };
    struct model_log large;
    model_log_open(&large, peer_log(2));
    for (unsigned i = 0; i < 3; i++)
        model_log_append(&large, HALF - FRAME_HEADER_BYTES, 1, i, false);
    model_log_sync_all(&large);
    struct log_chain at = large.frames[1].before;
    struct slice two = model_log_bytes(&large, at.position, large.frames[3].before.position);
    assert_int_equal(two.len, FRAME_BYTES_MAX);
    assert_true(repl_check_bytes(peer_log(2), 1, two, false, &at));
    at = large.begin;
    struct slice all = model_log_bytes(&large, 0, large.frames[3].before.position);
    assert_true(all.len > REPL_BYTES_MAX);
    assert_false(repl_check_bytes(peer_log(2), 1, all, false, &at));
    model_log_free(&large);
}

static void test_half_a_frame_is_refused(void **state)
{
    (void)state;
    reply.bytes.len--;
    assert_bad_frames();
}

static void test_no_bytes_at_all_are_refused(void **state)
{
    (void)state;
    reply.bytes.len = 0;
    assert_bad_frames();
}

static void test_a_header_in_the_middle_is_refused(void **state)
{
    (void)state;
    struct slice both = model_log_bytes(&origin, place_of_frame(2).position, model_log_end(&origin).position);
    reply.bytes = both; /* of two segments */
    assert_bad_frames();
}

static void test_a_header_that_was_there_already_is_refused(void **state)
{
    (void)state;
    reply.bytes = model_log_bytes(&origin, 0, origin.frames[3].before.position);
    assert_bad_frames();
}

static void test_a_header_alone_is_refused(void **state)
{
    (void)state;
    peer_clear(&rig);
    fetch = stand_before(0);
    reply.position = 0;
    reply.bytes = model_log_bytes(&origin, 0, SEGMENT_HEADER_BYTES);
    assert_bad_frames();
}

static void test_a_segment_that_begins_elsewhere_is_refused(void **state)
{
    (void)state;
    size_t second = 3;
    while (!origin.frames[second].opens)
        second++;
    fetch = stand_before(second);
    reply.position = place_of_frame(second).position;
    reply.segment = 1;
    reply.bytes = model_log_bytes(&origin, 0, origin.frames[3].before.position);
    assert_bad_frames();
}

static void test_what_is_no_message_is_refused(void **state)
{
    (void)state;
    static const uint8_t garbage[] = {0xdf, 0xff, 0xff, 0xff, 0xff, 1, 2};
    static const uint32_t types[] = {MSG_fetch_reply, MSG_position, 9999};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        fetch = stand_before(2);
        assert_false(repl_core_fetched(rig.core, rig.now_ns, fetch.slot, fetch.serial, types[i],
                                       slice_of(garbage, sizeof garbage)));
        assert_int_equal(peer_counters(&rig)->malformed, 1);
        assert_int_equal(peer_counters(&rig)->fetched_bytes, 0);
    }
    fetch = stand_before(2);
    assert_false(repl_core_fetched(rig.core, rig.now_ns, fetch.slot, fetch.serial, MSG_error,
                                   slice_of(garbage, sizeof garbage)));
    assert_int_equal(peer_counters(&rig)->refused, 1);
}

static void test_another_holder_is_asked_at_once_instead(void **state)
{
    (void)state;
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_tell_members(&rig);
    bytes.data[bytes.len - 1] ^= 1;
    assert_false(peer_reply(&rig, &fetch, &reply));
    struct repl_action again = peer_expect_fetch(&rig, 2, 3);
    assert_int_equal(again.fetch.position, fetch.fetch.position);
    assert_true(peer_answer(&rig, &again, &origin));
}

#undef TEST
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_answer, end_answer)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_good_frames_are_stored),
        TEST(test_another_log_is_refused),
        TEST(test_another_place_is_refused),
        TEST(test_frames_of_another_place_are_refused),
        TEST(test_each_damaged_bit_of_a_header_is_seen),
        TEST(test_each_damaged_bit_of_a_segments_header_is_seen),
        TEST(test_a_frame_that_continues_is_taken),
        TEST(test_a_wrong_chain_is_refused),
        TEST(test_a_gap_of_lsns_is_refused),
        TEST(test_a_durable_end_of_the_future_is_refused),
        TEST(test_the_salt_of_another_segment_is_refused),
        TEST(test_the_salt_of_another_log_is_refused),
        TEST(test_another_segment_is_refused),
        TEST(test_garbage_is_refused),
        TEST(test_more_than_one_answer_may_hold_is_refused),
        TEST(test_half_a_frame_is_refused),
        TEST(test_no_bytes_at_all_are_refused),
        TEST(test_a_header_in_the_middle_is_refused),
        TEST(test_a_header_that_was_there_already_is_refused),
        TEST(test_a_header_alone_is_refused),
        TEST(test_a_segment_that_begins_elsewhere_is_refused),
        TEST(test_what_is_no_message_is_refused),
        TEST(test_another_holder_is_asked_at_once_instead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
