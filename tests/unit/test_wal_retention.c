/* Holds and retention: what may be trimmed, what is kept for whom, and the register's bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "crc32c.h"
#include "bytes.h"
#include "wal_retention.h"

enum { SEGMENTS = 6, BYTES = 1000 };
static const struct id16 log_id = {{7}};

/* Segments of 100 entries and 1,000 bytes, whose last entries came at 1 s, 2 s, ...; the last one is being
 * written. */
static void make_segments(struct wal_segment segments[SEGMENTS])
{
    for (uint64_t i = 0; i < SEGMENTS; i++)
        segments[i] = (struct wal_segment){
            .base_lsn = 1 + 100 * i,
            .next_lsn = i + 1 < SEGMENTS ? 101 + 100 * i : 0,
            .position = BYTES * i,
            .bytes = BYTES,
            .last_ns = i + 1 < SEGMENTS ? (int64_t)(i + 1) * NS_PER_S : 0,
        };
}

static size_t due(const struct wal_segment *segments, uint64_t bytes, int64_t age_ns, int64_t now_ns)
{
    struct wal_retention rules = {.bytes = bytes, .age_ns = age_ns};
    return wal_retention_due(segments, SEGMENTS, &rules, SEGMENTS * BYTES, now_ns);
}

static struct wal_hold *put(struct wal_holds *holds, enum wal_hold_kind kind, const char *name, uint64_t lsn)
{
    struct wal_hold hold = {.kind = kind, .lsn = lsn};
    snprintf(hold.name, sizeof hold.name, "%s", name);
    return wal_holds_put(holds, &hold);
}

static void test_nothing_is_due_without_limits(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    make_segments(s);
    assert_int_equal(due(s, 0, 0, INT64_MAX), 0);
}

static void test_the_oldest_go_while_the_files_take_too_much(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    make_segments(s);
    assert_int_equal(due(s, SEGMENTS * BYTES, 0, 0), 0);
    assert_int_equal(due(s, SEGMENTS * BYTES - 1, 0, 0), 1);
    assert_int_equal(due(s, 3 * BYTES, 0, 0), 3);
    assert_int_equal(due(s, 1, 0, 0), SEGMENTS - 1); /* never the one that is being written */
}

static void test_segments_go_when_their_last_entry_is_too_old(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    make_segments(s);
    assert_int_equal(due(s, 0, NS_PER_S, 2 * NS_PER_S), 0); /* as old as it may be */
    assert_int_equal(due(s, 0, NS_PER_S, 2 * NS_PER_S + 1), 1);
    assert_int_equal(due(s, 0, NS_PER_S, 4 * NS_PER_S + 1), 3);
    assert_int_equal(due(s, 0, 1, INT64_MAX), SEGMENTS - 1);
    s[1].last_ns = 0; /* not known: it stays, and all behind it */
    assert_int_equal(due(s, 0, 1, INT64_MAX), 1);
}

static void test_damaged_headers_and_the_mark_keep_segments(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    struct wal_retention rules = {.bytes = 1};
    make_segments(s);
    s[2].damaged = true;
    assert_int_equal(due(s, 1, 0, 0), 2);
    assert_int_equal(wal_retention_below(s, SEGMENTS, 1000, SEGMENTS * BYTES), 2);
    s[2].damaged = false;
    assert_int_equal(wal_retention_due(s, SEGMENTS, &rules, 0, 0), 0);
    assert_int_equal(wal_retention_due(s, SEGMENTS, &rules, 2 * BYTES, 0), 1);
    assert_int_equal(wal_retention_due(s, SEGMENTS, &rules, 2 * BYTES + 1, 0), 2);
    assert_int_equal(wal_retention_below(s, SEGMENTS, 1000, 2 * BYTES + 1), 2);
}

static void test_a_trim_takes_whole_segments_below_the_lsn(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    make_segments(s);
    assert_int_equal(wal_retention_below(s, SEGMENTS, 100, UINT64_MAX), 0);
    assert_int_equal(wal_retention_below(s, SEGMENTS, 101, UINT64_MAX), 1);
    assert_int_equal(wal_retention_below(s, SEGMENTS, 300, UINT64_MAX), 2);
    assert_int_equal(wal_retention_below(s, SEGMENTS, UINT64_MAX, UINT64_MAX), SEGMENTS - 1);
}

static void test_a_hold_keeps_its_segment_and_all_behind(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    struct wal_holds holds = {0};
    make_segments(s);
    assert_int_equal(wal_retention_free(s, 4, &holds), 4);
    put(&holds, WAL_HOLD_READER, "r", 300);
    assert_int_equal(wal_retention_free(s, 4, &holds), 2);
    put(&holds, WAL_HOLD_READER, "r", 301);
    assert_int_equal(holds.count, 1);
    assert_int_equal(wal_retention_free(s, 4, &holds), 3);
    put(&holds, WAL_HOLD_MEMBER, "n2", 1);
    assert_int_equal(wal_retention_free(s, 4, &holds), 0);
    wal_holds_find(&holds, WAL_HOLD_MEMBER, slice_str("n2"))->broken = true;
    assert_int_equal(wal_retention_free(s, 4, &holds), 3);
    wal_holds_free(&holds);
}

static void test_a_member_that_keeps_too_much_is_broken(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    struct wal_holds holds = {0};
    make_segments(s);
    put(&holds, WAL_HOLD_MEMBER, "n2", 150);
    put(&holds, WAL_HOLD_VIEW, "view", 350);
    assert_int_equal(wal_retention_break(s, 4, &holds, 3 * BYTES), 0);
    assert_int_equal(wal_holds_find(&holds, WAL_HOLD_MEMBER, slice_str("n2"))->kept_bytes, 3 * BYTES);
    assert_int_equal(wal_holds_find(&holds, WAL_HOLD_VIEW, slice_str("view"))->kept_bytes, BYTES);
    /* Two that lag are both counted: neither hides behind the other. */
    assert_int_equal(wal_retention_break(s, 4, &holds, 3 * BYTES - 1), 1);
    assert_true(wal_holds_find(&holds, WAL_HOLD_MEMBER, slice_str("n2"))->broken);
    assert_false(wal_holds_find(&holds, WAL_HOLD_VIEW, slice_str("view"))->broken);
    assert_true(holds.dirty);
    assert_int_equal(wal_retention_free(s, 4, &holds), 3);
    /* Once broken it keeps nothing, and is not told again. */
    assert_int_equal(wal_retention_break(s, 4, &holds, BYTES), 0);
    wal_holds_free(&holds);
}

/* What a reader keeps anyway is not a member's fault; and a reader is never broken. */
static void test_what_a_reader_keeps_is_not_counted(void **state)
{
    (void)state;
    struct wal_segment s[SEGMENTS];
    struct wal_holds holds = {0};
    make_segments(s);
    put(&holds, WAL_HOLD_MEMBER, "n2", 1);
    put(&holds, WAL_HOLD_READER, "r", 101);
    assert_int_equal(wal_retention_break(s, 4, &holds, BYTES), 0);
    assert_int_equal(wal_holds_find(&holds, WAL_HOLD_MEMBER, slice_str("n2"))->kept_bytes, BYTES);
    assert_int_equal(wal_retention_break(s, 4, &holds, 0), 1);
    assert_false(wal_holds_find(&holds, WAL_HOLD_READER, slice_str("r"))->broken);
    wal_holds_free(&holds);
}

static void test_holds_expire(void **state)
{
    (void)state;
    struct wal_holds holds = {0};
    assert_int_equal(wal_holds_due_ns(&holds), INT64_MAX);
    put(&holds, WAL_HOLD_MEMBER, "n2", 1);
    put(&holds, WAL_HOLD_READER, "a", 1)->expires_ns = 100;
    put(&holds, WAL_HOLD_READER, "b", 1)->expires_ns = 200;
    assert_int_equal(wal_holds_due_ns(&holds), 100);
    assert_int_equal(wal_holds_expire(&holds, 99), 0);
    assert_int_equal(wal_holds_expire(&holds, 100), 1);
    assert_null(wal_holds_find(&holds, WAL_HOLD_READER, slice_str("a")));
    assert_int_equal(wal_holds_expire(&holds, 1000), 1);
    assert_int_equal(wal_holds_expire(&holds, INT64_MAX), 0);
    assert_int_equal(holds.count, 1);
    wal_holds_free(&holds);
}

/* ---------------------------------------------------------------- the file's bytes */

static void encode_some(struct buf *out)
{
    struct wal_holds holds = {0};
    struct wal_hold *hold = put(&holds, WAL_HOLD_MEMBER, "n2", 77);
    hold->broken = true;
    hold =
        put(&holds, WAL_HOLD_CURSOR, "a name as long as a name of a hold can be at the very most: 64 b", 9);
    hold->expires_ns = 5000;
    hold->ttl_ns = 300;
    wal_holds_encode(&holds, log_id, out);
    wal_holds_free(&holds);
}

static void test_the_register_survives_its_file(void **state)
{
    (void)state;
    struct buf bytes = {0};
    struct wal_holds holds;
    encode_some(&bytes);
    assert_int_equal(wal_holds_decode(&holds, log_id, buf_slice(&bytes)), SH_OK);
    assert_int_equal(holds.count, 2);
    assert_int_equal(holds.all[0].kind, WAL_HOLD_MEMBER);
    assert_true(holds.all[0].broken);
    assert_int_equal(holds.all[0].lsn, 77);
    assert_int_equal(holds.all[0].expires_ns, 0);
    assert_int_equal(strlen(holds.all[1].name), 64);
    assert_int_equal(holds.all[1].expires_ns, 5300); /* a ttl later, so that a renewal needs no write */
    assert_false(wal_hold_needs_file(&holds.all[0]));
    holds.all[0].lsn = 76; /* earlier than the file says */
    assert_true(wal_hold_needs_file(&holds.all[0]));
    holds.all[0].lsn = 1000;
    assert_false(wal_hold_needs_file(&holds.all[0]));
    holds.all[1].expires_ns = 5301;
    assert_true(wal_hold_needs_file(&holds.all[1]));
    wal_holds_free(&holds);
    buf_free(&bytes);
}

static void test_each_damaged_byte_of_the_register_is_noticed(void **state)
{
    (void)state;
    struct buf bytes = {0};
    struct wal_holds holds;
    encode_some(&bytes);
    for (size_t i = 0; i < bytes.len; i++) {
        bytes.data[i] ^= 1;
        assert_int_equal(wal_holds_decode(&holds, log_id, buf_slice(&bytes)), SH_CORRUPT);
        bytes.data[i] ^= 1;
        assert_int_equal(wal_holds_decode(&holds, log_id, slice_of(bytes.data, i)), SH_CORRUPT);
    }
    struct id16 other = {{8}};
    assert_int_equal(wal_holds_decode(&holds, other, buf_slice(&bytes)), SH_CORRUPT);
    buf_free(&bytes);
}

static void put_crc(struct buf *bytes)
{
    put_u32(bytes->data + bytes->len - 4, crc32c(0, bytes->data, bytes->len - 4));
}

/* Bytes that carry a good checksum are not trusted either. */
static void test_hostile_registers_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        enum sh_error error;
    } cases[] = {
        {6, 2, SH_VERSION_MISMATCH},  /* version */
        {24, 3, SH_CORRUPT},          /* count */
        {27, 0xff, SH_CORRUPT},       /* count */
        {32, 0, SH_CORRUPT},          /* kind */
        {32, 6, SH_CORRUPT},          /* kind */
        {34, 0, SH_CORRUPT},          /* length of the name */
        {34, 65, SH_CORRUPT},         /* length of the name */
        {34, 5, SH_CORRUPT},          /* length of the name */
        {120 + 24 + 3, 0, SH_CORRUPT} /* a NUL in the name */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf bytes = {0};
        struct wal_holds holds;
        encode_some(&bytes);
        bytes.data[cases[i].at] = cases[i].value;
        put_crc(&bytes);
        assert_int_equal(wal_holds_decode(&holds, log_id, buf_slice(&bytes)), cases[i].error);
        buf_free(&bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_due_without_limits),
        cmocka_unit_test(test_the_oldest_go_while_the_files_take_too_much),
        cmocka_unit_test(test_segments_go_when_their_last_entry_is_too_old),
        cmocka_unit_test(test_damaged_headers_and_the_mark_keep_segments),
        cmocka_unit_test(test_a_trim_takes_whole_segments_below_the_lsn),
        cmocka_unit_test(test_a_hold_keeps_its_segment_and_all_behind),
        cmocka_unit_test(test_a_member_that_keeps_too_much_is_broken),
        cmocka_unit_test(test_what_a_reader_keeps_is_not_counted),
        cmocka_unit_test(test_holds_expire),
        cmocka_unit_test(test_the_register_survives_its_file),
        cmocka_unit_test(test_each_damaged_byte_of_the_register_is_noticed),
        cmocka_unit_test(test_hostile_registers_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
