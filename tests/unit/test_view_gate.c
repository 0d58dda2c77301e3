/* Cause before effect: which frames of a log wait for which entries of others, how long, and what after. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "frame.h"
#include "view_gate.h"

static struct view_gate gate;
static struct view_doubts doubts;
static struct view_vector applied;
static uint8_t not_held; /* number of a log that the node does not hold */

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static bool holds(void *arg, struct id16 log)
{
    (void)arg;
    return log.bytes[15] != not_held;
}

static int setup(void **state)
{
    (void)state;
    memset(&gate, 0, sizeof gate);
    memset(&doubts, 0, sizeof doubts);
    memset(&applied, 0, sizeof applied);
    not_held = 0;
    return 0;
}

/* A frame of one event; before it what its writer had seen of a log: LSN 0: nothing. */
static void frame(struct buf *out, uint64_t base_lsn, uint8_t log, uint64_t lsn)
{
    struct buf body = {0}, after = {0};
    msgpack_packer pk;
    uint8_t header[FRAME_HEADER_BYTES];
    uint32_t count = lsn > 0 ? 2 : 1;
    mp_packer(&pk, &after);
    msgpack_pack_array(&pk, 1);
    msgpack_pack_array(&pk, 2);
    const struct id16 id = log_of(log);
    mp_pack_bin(&pk, slice_of(id.bytes, sizeof id.bytes));
    msgpack_pack_uint64(&pk, lsn);
    const struct entry seen = {.kind = ENTRY_AFTER, .after = buf_slice(&after)},
                       event = {.kind = ENTRY_EVENT};
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, count);
    if (lsn > 0)
        entry_pack(&pk, &seen);
    entry_pack(&pk, &event);
    struct frame_header h = {.kind = FRAME_DATA,
                             .body_bytes = (uint32_t)body.len,
                             .base_lsn = base_lsn,
                             .count = count,
                             .hlc = base_lsn};
    frame_encode(&h, 0, buf_slice(&body), header);
    buf_append(out, header, sizeof header);
    buf_append(out, body.data, body.len);
    buf_free(&body);
    buf_free(&after);
}

static size_t pass(const struct buf *frames, int64_t now_ns)
{
    return view_gate_pass(&gate, &doubts, &applied, log_of(1), buf_slice(frames), holds, NULL, now_ns);
}

static enum view_gate_state look(int64_t now_ns)
{
    return view_gate_look(&gate, &doubts, &applied, now_ns);
}

static void test_a_frame_waits_until_what_its_writer_saw_is_applied(void **state)
{
    (void)state;
    struct buf frames = {0};
    frame(&frames, 1, 0, 0);
    size_t first = frames.len;
    frame(&frames, 2, 2, 7);
    frame(&frames, 4, 0, 0);
    assert_int_equal(pass(&frames, 100), first);
    assert_int_equal(gate.lsn, 7);
    assert_true(id16_equal(gate.log, log_of(2)));
    assert_int_equal(gate.frame, 2);
    view_pass(&applied, log_of(1), 1);
    view_pass(&applied, log_of(2), 6);
    assert_int_equal(look(200), VIEW_GATE_WAITS);
    view_pass(&applied, log_of(2), 7);
    assert_int_equal(look(300), VIEW_GATE_OPEN);
    assert_int_equal(pass(&frames, 300), frames.len);
    assert_int_equal(view_gate_due_ns(&gate), INT64_MAX);
    buf_free(&frames);
}

static void test_what_was_applied_before_does_not_wait(void **state)
{
    (void)state;
    struct buf frames = {0};
    frame(&frames, 1, 2, 7);
    view_pass(&applied, log_of(1), 2);
    assert_int_equal(pass(&frames, 0), frames.len);
    buf_free(&frames);
}

static void test_own_and_unknown_logs_are_not_waited_for(void **state)
{
    (void)state;
    struct buf frames = {0};
    not_held = 3;
    frame(&frames, 1, 1, 99);
    frame(&frames, 3, 3, 99);
    assert_int_equal(pass(&frames, 0), frames.len);
    buf_free(&frames);
}

static void test_a_log_that_stands_still_is_waited_for_once(void **state)
{
    (void)state;
    struct buf frames = {0};
    frame(&frames, 1, 2, 7);
    size_t first = frames.len;
    frame(&frames, 3, 2, 8);
    view_pass(&applied, log_of(2), 5);
    assert_int_equal(pass(&frames, 1000), 0);
    assert_int_equal(view_gate_due_ns(&gate), 1000 + VIEW_GATE_STALL_NS);
    assert_int_equal(look(1000 + VIEW_GATE_STALL_NS - 1), VIEW_GATE_WAITS);
    assert_int_equal(look(1000 + VIEW_GATE_STALL_NS), VIEW_GATE_GAVE_UP);
    assert_int_equal(look(1000 + VIEW_GATE_STALL_NS), VIEW_GATE_OPEN);
    assert_int_equal(pass(&frames, 1000 + VIEW_GATE_STALL_NS), frames.len); /* both, at once */
    view_pass(&applied, log_of(1), 2);
    view_pass(&applied, log_of(2), 6); /* it is alive again */
    assert_int_equal(pass(&frames, 0), first);
    buf_free(&frames);
}

static void test_progress_of_the_log_gives_more_time_up_to_a_bound(void **state)
{
    (void)state;
    struct buf frames = {0};
    int64_t now_ns = 0;
    frame(&frames, 1, 2, UINT64_MAX);
    size_t first = frames.len;
    frame(&frames, 3, 2, 1000);
    assert_int_equal(pass(&frames, 0), 0);
    for (uint64_t lsn = 1;; lsn++) {
        now_ns += VIEW_GATE_STALL_NS / 2;
        view_pass(&applied, log_of(2), lsn);
        enum view_gate_state s = look(now_ns);
        if (s == VIEW_GATE_GAVE_UP)
            break;
        assert_int_equal(s, VIEW_GATE_WAITS);
    }
    assert_int_equal(now_ns, VIEW_GATE_MOST_NS);
    assert_int_equal(pass(&frames, now_ns), first); /* what comes is waited for all the same */
    assert_int_equal(gate.lsn, 1000);
    frames.len = 0;
    frame(&frames, 3, 2, UINT64_MAX); /* and what was not believed, not again */
    view_pass(&applied, log_of(1), 2);
    assert_int_equal(pass(&frames, now_ns), frames.len);
    buf_free(&frames);
}

/* Two logs, each frame of which waits for the other: nothing of either comes before its time is over. */
static void test_logs_that_wait_for_each_other_go_on(void **state)
{
    (void)state;
    struct buf one = {0}, two = {0};
    struct view_gate other = {{{0}}, 0, 0, 0, 0, 0};
    frame(&one, 1, 2, 1);
    frame(&two, 1, 1, 1);
    assert_int_equal(pass(&one, 0), 0);
    assert_int_equal(view_gate_pass(&other, &doubts, &applied, log_of(2), buf_slice(&two), holds, NULL, 0),
                     0);
    assert_int_equal(look(VIEW_GATE_STALL_NS), VIEW_GATE_GAVE_UP);
    assert_int_equal(pass(&one, VIEW_GATE_STALL_NS), one.len);
    view_pass(&applied, log_of(1), 2);
    assert_int_equal(view_gate_look(&other, &doubts, &applied, VIEW_GATE_STALL_NS), VIEW_GATE_OPEN);
    assert_int_equal(view_gate_pass(&other, &doubts, &applied, log_of(2), buf_slice(&two), holds, NULL,
                                    VIEW_GATE_STALL_NS),
                     two.len);
    buf_free(&one);
    buf_free(&two);
}

/* The bound is the frame's, not that of each log that it names. */
static void test_one_frame_has_one_bound(void **state)
{
    (void)state;
    struct buf frames = {0}, after = {0}, body = {0};
    msgpack_packer pk;
    uint8_t header[FRAME_HEADER_BYTES];
    mp_packer(&pk, &after);
    msgpack_pack_array(&pk, 20);
    for (uint8_t i = 0; i < 20; i++) {
        const struct id16 id = log_of((uint8_t)(i + 2));
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(id.bytes, sizeof id.bytes));
        msgpack_pack_uint64(&pk, 5);
    }
    const struct entry seen = {.kind = ENTRY_AFTER, .after = buf_slice(&after)};
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &seen);
    struct frame_header h = {
        .kind = FRAME_DATA, .body_bytes = (uint32_t)body.len, .base_lsn = 1, .count = 1, .hlc = 1};
    frame_encode(&h, 0, buf_slice(&body), header);
    buf_append(&frames, header, sizeof header);
    buf_append(&frames, body.data, body.len);
    int64_t now_ns = 0;
    while (pass(&frames, now_ns) == 0)
        while (look(now_ns) == VIEW_GATE_WAITS)
            now_ns = view_gate_due_ns(&gate);
    assert_true(now_ns <= VIEW_GATE_MOST_NS);
    buf_free(&frames);
    buf_free(&after);
    buf_free(&body);
}

static void test_what_is_no_frame_is_left_to_others(void **state)
{
    (void)state;
    struct buf bytes = {0};
    buf_append_str(&bytes, "neither a header of a frame nor anything else that could be looked at, but long "
                           "enough for one");
    assert_int_equal(pass(&bytes, 0), bytes.len);
    bytes.len = 0;
    frame(&bytes, 1, 2, 7);
    bytes.len--;
    assert_int_equal(pass(&bytes, 0), bytes.len);
    buf_free(&bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, setup)
    const struct CMUnitTest tests[] = {
        TEST(test_a_frame_waits_until_what_its_writer_saw_is_applied),
        TEST(test_what_was_applied_before_does_not_wait),
        TEST(test_own_and_unknown_logs_are_not_waited_for),
        TEST(test_a_log_that_stands_still_is_waited_for_once),
        TEST(test_progress_of_the_log_gives_more_time_up_to_a_bound),
        TEST(test_logs_that_wait_for_each_other_go_on),
        TEST(test_one_frame_has_one_bound),
        TEST(test_what_is_no_frame_is_left_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
