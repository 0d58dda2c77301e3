/* A stream's events by the rows of a view: what is indexed, the order of reading, positions, times, what is
 * trimmed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "view_events.h"
#include "view_trim.h"
#include "wal_rig.h"

static const struct view_store_options small = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};
static char dir[PATH_MAX], error[VIEW_ERROR_MAX];
static struct view_store *store;
static struct view_vector vector;
static struct view_events found;

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static void open_view(void)
{
    store = view_store_open(dir, &small, error);
    assert_non_null(store);
    assert_int_not_equal(view_vector_load(store, &vector, error), VIEW_FAILED);
}

static int setup(void **state)
{
    (void)state;
    rig_make_dir(dir);
    open_view();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    view_store_close(store);
    rig_remove_dir(dir);
    return 0;
}

/* Applies a frame: a letter is an event of that stream, with a payload of two bytes, and '.' a put. */
static void write_frame(uint8_t log, uint64_t base_lsn, uint64_t hlc, const char *entries)
{
    struct buf body = {0}, frame = {0};
    msgpack_packer pk;
    uint8_t header[FRAME_HEADER_BYTES];
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, strlen(entries));
    for (const char *e = entries; *e != 0; e++) {
        const struct entry event = {.kind = ENTRY_EVENT, .stream = slice_of(e, 1), .value = slice_str("xy")},
                           put = {.kind = ENTRY_PUT, .key = slice_str("k"), .value = slice_str("v")};
        entry_pack(&pk, *e == '.' ? &put : &event);
    }
    struct frame_header h = {.kind = FRAME_DATA,
                             .body_bytes = (uint32_t)body.len,
                             .base_lsn = base_lsn,
                             .count = (uint32_t)strlen(entries),
                             .hlc = hlc};
    frame_encode(&h, 0, buf_slice(&body), header);
    buf_append(&frame, header, sizeof header);
    buf_append(&frame, body.data, body.len);
    assert_int_equal(view_apply(store, &vector, log_of(log), buf_slice(&frame)), SH_OK);
    view_vector_store(store, &vector);
    assert_true(view_store_write(store, error));
    buf_free(&body);
    buf_free(&frame);
}

static struct view_vector position_of(uint64_t one, uint64_t two)
{
    struct view_vector v = {.count = 0};
    view_pass(&v, log_of(1), one);
    view_pass(&v, log_of(2), two);
    return v;
}

static struct view_events_ask ask_of(const struct view_vector *position)
{
    return (struct view_events_ask){.stream = slice_str("s"),
                                    .position = position,
                                    .max_events = 1000,
                                    .max_bytes = 1 << 20,
                                    .max_jumps = 1000};
}

/* As "log:first-last", for each run, then "| log:LSN" of what is left. */
static void assert_found(const struct view_events_ask *ask, const char *expected)
{
    struct buf text = {0};
    if (!view_events_find(store, ask, &found, error))
        fail_msg("%s", error);
    for (size_t i = 0; i < found.gone_count; i++)
        buf_printf(&text, "gone %u:%u-%u ", found.gone[i].log.bytes[15], (unsigned)found.gone[i].from,
                   (unsigned)found.gone[i].next - 1);
    for (size_t i = 0; i < found.run_count; i++)
        buf_printf(&text, "%u:%u-%u ", found.runs[i].log.bytes[15], (unsigned)found.runs[i].run.lsn,
                   (unsigned)(found.runs[i].run.lsn + found.runs[i].run.count - 1));
    for (size_t i = 0; i < found.rest_count; i++)
        buf_printf(&text, "| %u:%u ", found.rest[i].log.bytes[15], (unsigned)found.rest[i].run.lsn);
    assert_string_equal(buf_cstr(&text), expected);
    buf_free(&text);
}

static struct view_part part_of(const char *stream, uint8_t log)
{
    struct buf key = {0}, row = {0};
    struct view_summary summary;
    struct view_part part = {.lsn = 0};
    view_key_row(VIEW_STREAM, slice_str(stream), &key);
    if (view_store_get(store, buf_slice(&key), &row, error) == VIEW_FOUND) {
        assert_true(view_summary_open(buf_slice(&row), &summary));
        while (view_summary_next(&summary, &part) && !id16_equal(part.log, log_of(log)))
            part = (struct view_part){.lsn = 0};
    }
    buf_free(&key);
    buf_free(&row);
    return part;
}

static void test_events_come_in_the_order_of_arrival(void **state)
{
    (void)state;
    const struct view_vector start = {.count = 0};
    const struct view_events_ask ask = ask_of(&start);
    assert_found(&ask, "");
    write_frame(1, 1, 10, "sst.s");
    write_frame(2, 1, 5, "s");
    write_frame(1, 6, 20, "s");
    write_frame(2, 2, 6, "tts");
    assert_found(&ask, "1:1-2 1:5-5 2:1-1 1:6-6 2:4-4 ");
    assert_int_equal(part_of("s", 1).count, 4);
    assert_int_equal(part_of("s", 1).bytes, 8);
    assert_int_equal(part_of("s", 1).lsn, 6);
    assert_int_equal(part_of("s", 1).hlc, 20);
    assert_int_equal(part_of("s", 2).count, 2);
    assert_int_equal(part_of("t", 2).count, 2);
    assert_int_equal(part_of("u", 1).count, 0);
    assert_int_equal(vector.arrivals, 9);
    assert_int_equal(found.applied.count, 2);
}

static void test_a_position_is_behind_what_was_read(void **state)
{
    (void)state;
    write_frame(1, 1, 1, "ssss");
    write_frame(2, 1, 1, "ss");
    write_frame(1, 5, 2, "ss");
    struct view_vector position = position_of(2, 0);
    struct view_events_ask ask = ask_of(&position);
    assert_found(&ask, "1:3-4 2:1-2 1:5-6 ");
    assert_int_equal(found.runs[0].run.arrival, 2);
    position = position_of(4, 2);
    assert_found(&ask, "1:5-6 ");
    assert_true(view_events_any(store, slice_str("s"), &position));
    position = position_of(6, 2);
    assert_found(&ask, "");
    assert_false(view_events_any(store, slice_str("s"), &position));
    assert_false(view_events_any(store, slice_str("never"), &(struct view_vector){.count = 0}));
    position = position_of(100, 100); /* of a node that is further */
    assert_found(&ask, "");
}

static void test_an_answer_is_bounded_and_says_what_is_left(void **state)
{
    (void)state;
    const struct view_vector start = {.count = 0};
    write_frame(1, 1, 1, "ss");
    write_frame(2, 1, 1, "s");
    write_frame(1, 3, 1, "s.s");
    struct view_events_ask ask = ask_of(&start);
    ask.max_events = 2;
    assert_found(&ask, "1:1-2 | 1:3 | 2:1 ");
    ask.max_events = 3;
    assert_found(&ask, "1:1-2 2:1-1 | 1:3 ");
    ask = ask_of(&start);
    ask.max_bytes = 1;
    assert_found(&ask, "1:1-2 | 1:3 | 2:1 ");
    ask = ask_of(&start);
    ask.max_jumps = 3;
    assert_found(&ask, "1:1-2 2:1-1 1:3-3 | 1:5 ");
}

static void test_earlier_events_are_passed_over(void **state)
{
    (void)state;
    const struct view_vector start = {.count = 0};
    for (uint64_t i = 0; i < 50; i++) {
        write_frame(1, 1 + 2 * i, 10 * i, i % 3 == 0 ? "st" : "ss");
        write_frame(2, 1 + i, 10 * i + 5, "s");
    }
    struct view_events_ask ask = ask_of(&start);
    ask.since = 475;
    assert_found(&ask, "2:48-48 1:97-97 2:49-49 1:99-100 2:50-50 ");
    ask.since = 476;
    assert_found(&ask, "1:97-97 2:49-49 1:99-100 2:50-50 ");
    ask.since = 495;
    assert_found(&ask, "2:50-50 ");
    ask.since = 496;
    assert_found(&ask, "");
    const struct view_vector later = position_of(99, 49);
    ask = ask_of(&later);
    ask.since = 1;
    assert_found(&ask, "1:100-100 2:50-50 ");
}

static void test_the_last_events_are_counted_over_all_logs(void **state)
{
    (void)state;
    const struct view_vector start = {.count = 0};
    struct view_events_ask ask = ask_of(&start);
    ask.from_end = true;
    ask.last = 5;
    assert_found(&ask, "");
    write_frame(1, 1, 1, "sss");
    write_frame(2, 1, 1, "ss");
    write_frame(1, 4, 1, "tss");
    ask.last = 0;
    assert_found(&ask, "");
    ask.last = 1;
    assert_found(&ask, "| 1:6 ");
    ask.last = 3;
    assert_found(&ask, "| 1:5 | 2:2 ");
    ask.last = 6;
    assert_found(&ask, "| 1:2 | 2:1 ");
    ask.last = 7;
    assert_found(&ask, "| 1:1 | 2:1 ");
    ask.last = 1000;
    assert_found(&ask, "| 1:1 | 2:1 ");
}

static void trim(uint8_t log, uint64_t first_lsn, unsigned least_steps)
{
    struct view_trim t = {.first_lsn = 0};
    unsigned steps = 0;
    view_trim_begin(&t, log_of(log), first_lsn);
    for (; t.first_lsn > 0; steps++)
        assert_true(view_trim_step(&t, store, error));
    assert_true(steps >= least_steps);
    view_trim_free(&t);
}

static void test_what_is_trimmed_is_not_counted_but_told(void **state)
{
    (void)state;
    const struct view_vector start = {.count = 0}, second = position_of(1, 0), third = position_of(4, 0);
    write_frame(1, 1, 1, "sts");
    write_frame(1, 4, 2, "s");
    write_frame(2, 1, 3, "s");
    write_frame(1, 5, 4, "ts");
    trim(1, 5, 1);
    struct view_events_ask ask = ask_of(&start);
    assert_found(&ask, "gone 1:1-4 2:1-1 1:6-6 ");
    assert_int_equal(part_of("s", 1).count, 1);
    assert_int_equal(part_of("s", 1).bytes, 2);
    assert_int_equal(part_of("s", 1).gone_lsn, 4);
    assert_int_equal(part_of("t", 1).count, 1);
    assert_int_equal(part_of("s", 2).count, 1);
    ask = ask_of(&second);
    assert_found(&ask, "gone 1:2-4 2:1-1 1:6-6 ");
    ask = ask_of(&third); /* it has missed none */
    assert_found(&ask, "2:1-1 1:6-6 ");
    ask = ask_of(&start);
    ask.since = 3; /* what is gone was older */
    assert_found(&ask, "2:1-1 1:6-6 ");
    ask.since = 2;
    assert_found(&ask, "gone 1:1-4 2:1-1 1:6-6 ");
    ask = ask_of(&start);
    ask.from_end = true;
    ask.last = 10;
    assert_found(&ask, "| 1:6 | 2:1 ");
    trim(1, 100, 1);
    ask = ask_of(&start);
    assert_found(&ask, "gone 1:1-6 2:1-1 ");
    assert_int_equal(part_of("s", 1).count, 0);
    assert_true(view_events_any(store, slice_str("s"), &start));
}

static void test_trims_go_in_steps(void **state)
{
    (void)state;
    for (uint64_t lsn = 1; lsn <= 2500; lsn++)
        write_frame(1, lsn, lsn, lsn % 2 == 0 ? "s" : "t");
    trim(1, 2499, 3);
    assert_int_equal(part_of("s", 1).count, 1);
    assert_int_equal(part_of("t", 1).count, 1);
    trim(1, 2499, 1); /* nothing is taken off twice */
    assert_int_equal(part_of("s", 1).count, 1);
    assert_int_equal(part_of("t", 1).gone_lsn, 2497);
}

/* What a merged summary did not count is not taken off it. */
static void test_rows_behind_what_is_gone_already_are_only_removed(void **state)
{
    (void)state;
    write_frame(1, 1, 1, "ss");
    const struct view_part merged = {log_of(1), 60, 60, 5, 10, 50, 50};
    struct buf row = {0};
    view_summary_encode(&merged, 1, &row);
    view_store_change(store, slice_str("Ss"), buf_slice(&row));
    assert_true(view_store_write(store, error));
    trim(1, 51, 1);
    assert_int_equal(part_of("s", 1).count, 5);
    assert_int_equal(part_of("s", 1).gone_lsn, 50);
    buf_free(&row);
}

static void test_numbers_of_arrival_go_on_after_a_restart(void **state)
{
    (void)state;
    const struct view_vector start = {.count = 0};
    const struct view_events_ask ask = ask_of(&start);
    write_frame(2, 1, 1, "s");
    view_store_close(store);
    open_view();
    write_frame(1, 1, 1, "s");
    assert_found(&ask, "2:1-1 1:1-1 ");
    assert_int_equal(vector.arrivals, 2);
}

static void test_rows_of_a_version_without_streams_are_known(void **state)
{
    (void)state;
    write_frame(1, 1, 1, ".");
    view_store_delete(store, slice_str("Marrivals"));
    assert_true(view_store_write(store, error));
    error[0] = '?';
    assert_int_equal(view_vector_load(store, &vector, error), VIEW_FAILED);
    assert_string_equal(error, "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_events_come_in_the_order_of_arrival),
        TEST(test_a_position_is_behind_what_was_read),
        TEST(test_an_answer_is_bounded_and_says_what_is_left),
        TEST(test_earlier_events_are_passed_over),
        TEST(test_the_last_events_are_counted_over_all_logs),
        TEST(test_what_is_trimmed_is_not_counted_but_told),
        TEST(test_trims_go_in_steps),
        TEST(test_rows_behind_what_is_gone_already_are_only_removed),
        TEST(test_numbers_of_arrival_go_on_after_a_restart),
        TEST(test_rows_of_a_version_without_streams_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
