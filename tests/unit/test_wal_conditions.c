/* Appends that depend on something: on what the log has of a stream or a key, on a clock; and what the log
 * says of a producer's request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "wal_recent.h"
#include "wal_rig.h"

enum { SEGMENT = 1 << 20, NAMES = 20000 };

static struct wal_rig rig;
static char data[PATH_MAX];
static struct buf conditions;

static void open_rig(void)
{
    assert_int_equal(rig_open(&rig, vfs_posix(), data, SEGMENT), EXIT_DONE);
}

static int setup(void **state)
{
    (void)state;
    rig_make_dir(data);
    open_rig();
    conditions.len = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_kill(&rig);
    rig_remove_dir(data);
    buf_free(&conditions);
    return 0;
}

static struct entry event_of(const char *stream)
{
    return (struct entry){.kind = ENTRY_EVENT, .stream = slice_str(stream), .value = slice_str("x")};
}

static struct entry put_of(const char *key)
{
    return (struct entry){.kind = ENTRY_PUT, .key = slice_str(key), .value = slice_str("x")};
}

static uint64_t append_all(uint64_t producer, uint64_t sequence, const struct entry *entries, uint32_t count)
{
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++)
        entry_pack(&pk, &entries[i]);
    uint64_t number = rig_append_body(&rig, producer, 1, sequence, buf_slice(&body));
    buf_free(&body);
    rig.conditions = (struct slice){0};
    rig.hlc = 0;
    return number;
}

static uint64_t append_one(struct entry entry)
{
    return append_all(0, 0, &entry, 1);
}

struct condition {
    enum wal_recent_kind kind;
    const char *name;
    uint64_t lsn;
};

/* For the next append. */
static void require_all(const struct condition *all, uint32_t count)
{
    msgpack_packer pk;
    conditions.len = 0;
    mp_packer(&pk, &conditions);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++) {
        msgpack_pack_array(&pk, 3);
        msgpack_pack_uint64(&pk, all[i].kind);
        mp_pack_bin(&pk, slice_str(all[i].name));
        msgpack_pack_uint64(&pk, all[i].lsn);
    }
    rig.conditions = buf_slice(&conditions);
}

static void require(enum wal_recent_kind kind, const char *name, uint64_t lsn)
{
    require_all(&(struct condition){kind, name, lsn}, 1);
}

static void assert_landed(uint64_t number, uint64_t lsn)
{
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[number].times, 1);
    assert_int_equal(rig.answers[number].code, SH_OK);
    assert_int_equal(rig.answers[number].reply.lsn, lsn);
}

static void assert_refused(uint64_t number, enum sh_error code, uint64_t look_again)
{
    assert_int_equal(rig.answers[number].times, 1);
    assert_int_equal(rig.answers[number].code, code);
    assert_int_equal(rig.answers[number].look_again, look_again);
}

/* ---------------------------------------------------------------- conditions */

static void test_nothing_behind_the_lsn_is_good(void **state)
{
    (void)state;
    assert_landed(append_one(put_of("k")), 1);
    assert_landed(append_one(event_of("s")), 2);
    require(WAL_RECENT_KEY, "k", 1);
    assert_landed(append_one(put_of("k")), 3);
    require(WAL_RECENT_STREAM, "s", 2);
    assert_landed(append_one(event_of("s")), 4);
    require(WAL_RECENT_KEY, "never", 0);
    assert_landed(append_one(put_of("never")), 5);
}

static void test_what_came_between_is_told_with_its_lsn(void **state)
{
    (void)state;
    const struct entry several[] = {event_of("s"), put_of("k"), event_of("t"), put_of("l")};
    assert_landed(append_all(0, 0, several, 4), 1);
    require(WAL_RECENT_KEY, "k", 1);
    assert_refused(append_one(put_of("k")), SH_CONFLICT, 2);
    require(WAL_RECENT_STREAM, "s", 0);
    assert_refused(append_one(event_of("s")), SH_CONFLICT, 1);
    require(WAL_RECENT_STREAM, "t", 2);
    assert_refused(append_one(event_of("t")), SH_CONFLICT, 3);
    assert_null(rig.first); /* nothing of them was taken */
    require(WAL_RECENT_KEY, "l", 4);
    assert_landed(append_one(put_of("l")), 5);
}

static void test_a_delete_counts_and_an_addition_does_not(void **state)
{
    (void)state;
    const struct entry gone = {.kind = ENTRY_DELETE, .key = slice_str("k")};
    const struct entry more = {.kind = ENTRY_ADD, .key = slice_str("n"), .delta = 1};
    assert_landed(append_one(gone), 1);
    assert_landed(append_one(more), 2);
    require(WAL_RECENT_KEY, "k", 0);
    assert_refused(append_one(put_of("k")), SH_CONFLICT, 1);
    require(WAL_RECENT_KEY, "n", 0);
    assert_landed(append_one(put_of("n")), 3);
}

static void test_a_stream_and_a_key_of_one_name_are_apart(void **state)
{
    (void)state;
    assert_landed(append_one(event_of("name")), 1);
    require(WAL_RECENT_KEY, "name", 0);
    assert_landed(append_one(put_of("name")), 2);
    require(WAL_RECENT_STREAM, "name", 1);
    assert_landed(append_one(event_of("name")), 3);
}

static void test_sets_and_deletes_of_a_cursor_count(void **state)
{
    (void)state;
    struct entry set = {.kind = ENTRY_CURSOR, .key = slice_str("c"), .value = slice_str("\x90"), .ttl_ms = 1};
    set.epoch = 1;
    require(WAL_RECENT_CURSOR, "c", 0);
    assert_landed(append_one(set), 1);
    require(WAL_RECENT_CURSOR, "c", 0);
    assert_refused(append_one(set), SH_CONFLICT, 1);
    set.deleted = true;
    require(WAL_RECENT_CURSOR, "c", 1);
    assert_landed(append_one(set), 2);
    require(WAL_RECENT_CURSOR, "c", 1);
    assert_refused(append_one(set), SH_CONFLICT, 2);
    require(WAL_RECENT_KEY, "c", 0);
    assert_landed(append_one(put_of("c")), 3);
}

/* Both wait in one group, and neither is durable: the first one has won all the same. */
static void test_of_two_in_one_group_the_first_wins(void **state)
{
    (void)state;
    require(WAL_RECENT_KEY, "k", 0);
    uint64_t first = append_one(put_of("k"));
    require(WAL_RECENT_KEY, "k", 0);
    uint64_t second = append_one(put_of("k"));
    assert_int_equal(rig.answers[first].times, 0);
    assert_refused(second, SH_CONFLICT, 1);
    assert_landed(first, 1);
}

static void test_an_append_without_conditions_comes_between(void **state)
{
    (void)state;
    assert_landed(append_one(put_of("k")), 1);
    uint64_t direct = append_one(put_of("k"));
    require(WAL_RECENT_KEY, "k", 1);
    assert_refused(append_one(put_of("k")), SH_CONFLICT, 2);
    assert_landed(direct, 2);
}

static void test_all_conditions_must_hold_and_the_last_lsn_is_told(void **state)
{
    (void)state;
    const struct entry entries[] = {put_of("a"), put_of("b"), event_of("s")};
    assert_landed(append_all(0, 0, entries, 3), 1);
    require_all((struct condition[]){{WAL_RECENT_KEY, "a", 1}, {WAL_RECENT_STREAM, "s", 3}}, 2);
    assert_landed(append_one(put_of("c")), 4);
    require_all((struct condition[]){{WAL_RECENT_KEY, "a", 1}, {WAL_RECENT_KEY, "b", 1}}, 2);
    assert_refused(append_one(put_of("c")), SH_CONFLICT, 2);
    require_all((struct condition[]){{WAL_RECENT_STREAM, "s", 0}, {WAL_RECENT_KEY, "b", 1}}, 2);
    assert_refused(append_one(put_of("c")), SH_CONFLICT, 3);
}

/* It was good when it came, and isn't any more when there is room for it. */
static void test_one_that_waits_for_a_segment_is_checked_in_its_turn(void **state)
{
    (void)state;
    static uint8_t large[200 << 10];
    struct entry filler = {.kind = ENTRY_EVENT, .value = slice_of(large, sizeof large)};
    while (wal_core_stats(rig.core).stalled == 0) {
        append_one(filler);
        assert_true(rig_commit(&rig));
    }
    uint64_t direct = append_one(put_of("k"));
    require(WAL_RECENT_KEY, "k", 0);
    uint64_t number = append_one(put_of("k"));
    assert_int_equal(rig.answers[number].times, 0);
    assert_true(rig_prepare(&rig));
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[direct].code, SH_OK);
    assert_refused(number, SH_CONFLICT, rig.answers[direct].reply.lsn);
}

/* It is told where it landed, whatever was written since. */
static void test_a_repeated_one_gets_the_first_answer_whatever_holds_now(void **state)
{
    (void)state;
    struct entry put = put_of("k");
    require(WAL_RECENT_KEY, "k", 0);
    assert_landed(append_all(7, 1, &put, 1), 1);
    assert_landed(append_one(put), 2);
    require(WAL_RECENT_KEY, "k", 0);
    assert_landed(append_all(7, 1, &put, 1), 1);
    require(WAL_RECENT_KEY, "k", 0);
    assert_refused(append_all(7, 2, &put, 1), SH_CONFLICT, 2);
    require(WAL_RECENT_KEY, "k", 2);
    assert_landed(append_all(7, 2, &put, 1), 3); /* the refused one took no sequence */
}

static void test_after_a_start_nothing_is_known_of_what_was_before(void **state)
{
    (void)state;
    assert_landed(append_one(put_of("k")), 1);
    assert_landed(append_one(put_of("other")), 2);
    rig_close(&rig);
    open_rig();
    require(WAL_RECENT_KEY, "k", 1);
    assert_refused(append_one(put_of("k")), SH_CONFLICT, 2);
    require(WAL_RECENT_KEY, "k", 2);
    assert_landed(append_one(put_of("k")), 3);
}

/* Names that share a place are told of too much, none of too little. */
static void test_no_entry_is_missed_among_many_names(void **state)
{
    (void)state;
    struct wal_recent *recent = wal_recent_open(0);
    unsigned exact = 0;
    char name[32];
    for (uint64_t i = 1; i <= 10 * NAMES; i++) {
        int len = snprintf(name, sizeof name, "name %llu", (unsigned long long)(i % NAMES));
        wal_recent_note(recent, WAL_RECENT_STREAM, slice_of(name, (size_t)len), i);
    }
    for (uint64_t i = 9 * NAMES + 1; i <= 10 * NAMES; i++) {
        int len = snprintf(name, sizeof name, "name %llu", (unsigned long long)(i % NAMES));
        uint64_t last = wal_recent_last(recent, WAL_RECENT_STREAM, slice_of(name, (size_t)len));
        assert_in_range(last, i, 10 * NAMES);
        exact += last == i;
    }
    assert_true(exact > NAMES / 2);
    wal_recent_free(recent);
}

static void test_conditions_that_are_none_are_refused(void **state)
{
    (void)state;
    char stream[STREAM_NAME_MAX + 2];
    struct condition *many = xcalloc(WAL_CONDITIONS_MAX + 1, sizeof *many);
    memset(stream, 's', sizeof stream - 1);
    stream[sizeof stream - 1] = 0;
#define BYTES(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
    const struct slice bad[] = {
        BYTES(0x80),                                     /* a map */
        BYTES(0x91, 0x01),                               /* no condition */
        BYTES(0x91, 0x92, 0x01, 0xc4, 0x01, 'k'),        /* no LSN */
        BYTES(0x91, 0x93, 0x03, 0xc4, 0x01, 'k', 0x00),  /* a kind that isn't there */
        BYTES(0x91, 0x93, 0x01, 0xa1, 'k', 0x00),        /* a text */
        BYTES(0x91, 0x93, 0x01, 0xc4, 0x01, 'k', 0xff),  /* below zero */
        BYTES(0x90, 0x90),                               /* two values */
        BYTES(0xdd, 0xff, 0xff, 0xff, 0xff, 0x93, 0x01), /* more than there are bytes */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rig.conditions = bad[i];
        assert_refused(append_one(put_of("k")), SH_BAD_REQUEST, 0);
    }
    for (unsigned i = 0; i <= WAL_CONDITIONS_MAX; i++)
        many[i] = (struct condition){WAL_RECENT_KEY, "k", 0};
    require_all(many, WAL_CONDITIONS_MAX + 1);
    assert_refused(append_one(put_of("k")), SH_TOO_LARGE, 0);
    require(WAL_RECENT_STREAM, stream, 0);
    assert_refused(append_one(put_of("k")), SH_TOO_LARGE, 0);
    require_all(many, WAL_CONDITIONS_MAX);
    assert_landed(append_one(put_of("k")), 1);
    free(many);
}

/* ---------------------------------------------------------------- what it comes after */

static uint64_t hlc_of(uint64_t number)
{
    return rig.answers[number].reply.hlc;
}

static void test_a_frame_gets_a_higher_hlc_than_it_asks_for(void **state)
{
    (void)state;
    uint64_t ahead = hlc_of_ms(rig.now_ns / NS_PER_MS + 59000) + 7;
    rig.hlc = ahead;
    uint64_t number = append_one(put_of("k"));
    assert_landed(number, 1);
    assert_int_equal(hlc_of(number), ahead + 1);
    number = append_one(put_of("k")); /* and so do those behind it */
    assert_landed(number, 2);
    assert_int_equal(hlc_of(number), ahead + 2);
    rig.hlc = 5; /* long ago: no matter */
    number = append_one(put_of("k"));
    assert_landed(number, 3);
    assert_int_equal(hlc_of(number), ahead + 3);
}

static void test_what_is_too_far_ahead_is_clock_drift(void **state)
{
    (void)state;
    rig.hlc = hlc_of_ms(rig.now_ns / NS_PER_MS + 60001);
    assert_refused(append_one(put_of("k")), SH_CLOCK_DRIFT, 0);
    rig.hlc = UINT64_MAX;
    assert_refused(append_one(put_of("k")), SH_CLOCK_DRIFT, 0);
    assert_landed(append_one(put_of("k")), 1);
}

/* A clock that was set back by an hour: what the log itself has said comes back to it. */
static void test_the_logs_own_clock_is_no_drift(void **state)
{
    (void)state;
    uint64_t number = append_one(put_of("k"));
    assert_landed(number, 1);
    uint64_t seen = hlc_of(number);
    rig.now_ns -= 3600 * (int64_t)NS_PER_S;
    rig.hlc = seen;
    number = append_one(put_of("k"));
    assert_landed(number, 2);
    assert_int_equal(hlc_of(number), seen + 1);
}

/* ---------------------------------------------------------------- producers */

enum { LANDED, NOT_YET, LANDED_SOMEWHERE, FORGOTTEN, FENCED };

static uint64_t ask(uint64_t producer, uint32_t epoch, uint64_t sequence)
{
    const struct msg_producer_status m = {
        .producer = rig_producer(producer), .epoch = epoch, .sequence = sequence};
    uint64_t number = ++rig.requests;
    wal_core_producer_status(rig.core, (struct link_token){1, number}, &m);
    return number;
}

static void assert_state(uint64_t number, unsigned expected)
{
    assert_int_equal(rig.answers[number].times, 1);
    assert_int_equal(rig.answers[number].code, SH_OK);
    assert_int_equal(rig.answers[number].status.state, expected);
}

static void test_a_request_has_landed_when_it_is_durable(void **state)
{
    (void)state;
    const struct entry three[] = {put_of("a"), put_of("b"), put_of("c")};
    append_all(1, 1, three, 1);
    append_all(1, 2, three, 3);
    uint64_t number = ask(1, 1, 2);
    assert_int_equal(rig.answers[number].times, 0);
    assert_true(rig_commit(&rig));
    assert_state(number, LANDED);
    assert_int_equal(rig.answers[number].status.lsn, 2);
    assert_int_equal(rig.answers[number].status.count, 3);
    number = ask(1, 1, 1);
    assert_state(number, LANDED);
    assert_int_equal(rig.answers[number].status.lsn, 1);
    assert_int_equal(rig.answers[number].status.last, 4);
    rig_close(&rig);
    open_rig();
    number = ask(1, 1, 2);
    assert_state(number, LANDED);
    assert_int_equal(rig.answers[number].status.lsn, 2);
}

static void test_what_did_not_come_may_come_yet(void **state)
{
    (void)state;
    struct entry put = put_of("k");
    assert_state(ask(1, 1, 1), NOT_YET); /* no producer was ever forgotten */
    append_all(1, 1, &put, 1);
    assert_true(rig_commit(&rig));
    append_all(0, 0, &put, 1); /* not durable yet */
    uint64_t number = ask(1, 1, 2);
    assert_state(number, NOT_YET);
    assert_int_equal(rig.answers[number].status.last, 2);
    assert_state(ask(1, 1, 9), NOT_YET);
    assert_state(ask(1, 2, 1), NOT_YET);
}

static void test_a_lower_epoch_is_fenced(void **state)
{
    (void)state;
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &(struct entry){.kind = ENTRY_PUT, .key = slice_str("k"), .value = slice_str("x")});
    rig_append_body(&rig, 1, 3, 1, buf_slice(&body));
    buf_free(&body);
    assert_true(rig_commit(&rig));
    assert_state(ask(1, 2, 1), FENCED);
    assert_state(ask(1, 3, 1), LANDED);
}

static void test_where_an_old_request_landed_is_forgotten(void **state)
{
    (void)state;
    struct entry put = put_of("k");
    for (uint64_t sequence = 1; sequence <= WAL_ANSWERS_MAX + 1; sequence++)
        append_all(1, sequence, &put, 1);
    assert_true(rig_commit(&rig));
    assert_state(ask(1, 1, 1), LANDED_SOMEWHERE);
    assert_state(ask(1, 1, 2), LANDED);
    for (uint64_t other = 2; other <= WAL_PRODUCERS_MAX + 1; other++)
        append_all(other, 1, &put, 1);
    assert_true(rig_commit(&rig));
    assert_state(ask(1, 1, 2), FORGOTTEN);
    assert_state(ask(2, 1, 1), LANDED);
}

static void test_a_producer_that_is_none_is_refused(void **state)
{
    (void)state;
    assert_refused(ask(0, 1, 1), SH_BAD_REQUEST, 0);
    assert_refused(ask(1, 1, 0), SH_BAD_REQUEST, 0);
    wal_core_hold_back(rig.core);
    assert_refused(ask(1, 1, 1), SH_UNAVAILABLE, 0);
}

#define RIG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_nothing_behind_the_lsn_is_good),
        RIG_TEST(test_what_came_between_is_told_with_its_lsn),
        RIG_TEST(test_a_delete_counts_and_an_addition_does_not),
        RIG_TEST(test_a_stream_and_a_key_of_one_name_are_apart),
        RIG_TEST(test_sets_and_deletes_of_a_cursor_count),
        RIG_TEST(test_of_two_in_one_group_the_first_wins),
        RIG_TEST(test_an_append_without_conditions_comes_between),
        RIG_TEST(test_all_conditions_must_hold_and_the_last_lsn_is_told),
        RIG_TEST(test_one_that_waits_for_a_segment_is_checked_in_its_turn),
        RIG_TEST(test_a_repeated_one_gets_the_first_answer_whatever_holds_now),
        RIG_TEST(test_after_a_start_nothing_is_known_of_what_was_before),
        cmocka_unit_test(test_no_entry_is_missed_among_many_names),
        RIG_TEST(test_conditions_that_are_none_are_refused),
        RIG_TEST(test_a_frame_gets_a_higher_hlc_than_it_asks_for),
        RIG_TEST(test_what_is_too_far_ahead_is_clock_drift),
        RIG_TEST(test_the_logs_own_clock_is_no_drift),
        RIG_TEST(test_a_request_has_landed_when_it_is_durable),
        RIG_TEST(test_what_did_not_come_may_come_yet),
        RIG_TEST(test_a_lower_epoch_is_fenced),
        RIG_TEST(test_where_an_old_request_landed_is_forgotten),
        RIG_TEST(test_a_producer_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
