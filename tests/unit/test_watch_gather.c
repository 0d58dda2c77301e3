/* Watches: what of several logs is told, in which order, and how much in one go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "watch_gather.h"

enum { LOGS = 3, FRAMES = 64, LARGE = 100 << 10 };

/* ---- logs, as a reader gives them: each frame one append ---- */

struct kept_frame {
    uint64_t first, count;
    struct buf bytes;
};

static struct kept {
    struct kept_frame frames[FRAMES];
    size_t count;
    uint64_t next;           /* LSN */
    uint64_t trimmed_before; /* the first LSN left; 0: nothing is trimmed */
    uint64_t bad, good;      /* damage from bad to good - 1; good 0: not known where it ends */
    bool failing;
} logs[LOGS];
static struct watch_place places[LOGS];
static struct watch_gather g;

static struct id16 log_of(size_t i)
{
    struct id16 log = {{0}};
    log.bytes[0] = (uint8_t)(i + 1);
    return log;
}

static void append_body(size_t i, uint64_t hlc, struct slice body, uint32_t count)
{
    struct kept *log = &logs[i];
    struct kept_frame *f = &log->frames[log->count++];
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_header h = {.kind = FRAME_DATA,
                             .body_bytes = (uint32_t)body.len,
                             .base_lsn = log->next,
                             .count = count,
                             .hlc = hlc};
    frame_encode(&h, 0, body, header);
    buf_append(&f->bytes, header, sizeof header);
    buf_append(&f->bytes, body.data, body.len);
    f->first = log->next;
    f->count = count;
    log->next += count;
    places[i].applied = log->next - 1;
}

static void append(size_t i, uint64_t hlc, const struct entry *entries, uint32_t count)
{
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, count);
    for (uint32_t k = 0; k < count; k++)
        entry_pack(&pk, &entries[k]);
    append_body(i, hlc, buf_slice(&body), count);
    buf_free(&body);
}

static struct entry put(const char *key, const char *value)
{
    return (struct entry){.kind = ENTRY_PUT, .key = slice_str(key), .value = slice_str(value)};
}

static void put_one(size_t i, uint64_t hlc, const char *key)
{
    const struct entry e = put(key, "v");
    append(i, hlc, &e, 1);
}

static void put_large(size_t i, uint64_t hlc, const char *key)
{
    char *value = malloc(LARGE + 1);
    memset(value, 'x', LARGE);
    value[LARGE] = 0;
    const struct entry e = put(key, value);
    append(i, hlc, &e, 1);
    free(value);
}

static enum sh_error read_kept(void *arg, struct id16 id, struct log_read *read, struct buf *out)
{
    const struct kept *log = &logs[id.bytes[0] - 1];
    (void)arg;
    if (log->failing)
        return SH_INTERNAL;
    if (read->from < log->trimmed_before) {
        read->first_lsn = log->trimmed_before;
        return SH_TRIMMED;
    }
    if (log->bad > 0 && read->from >= log->bad && (log->good == 0 || read->from < log->good)) {
        read->good_lsn = log->good;
        return SH_CORRUPT;
    }
    for (size_t i = 0; i < log->count; i++) {
        const struct kept_frame *f = &log->frames[i];
        if (f->first + f->count <= read->from)
            continue;
        if ((out->len > 0 && out->len + f->bytes.len > read->max_bytes) ||
            (log->bad > 0 && f->first == log->bad))
            break;
        buf_append(out, f->bytes.data, f->bytes.len);
    }
    return out->len > 0 ? SH_OK : SH_NOT_FOUND;
}

static int setup(void **state)
{
    (void)state;
    memset(logs, 0, sizeof logs);
    memset(places, 0, sizeof places);
    for (size_t i = 0; i < LOGS; i++) {
        logs[i].next = 1;
        places[i].log = log_of(i);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < LOGS; i++)
        for (size_t k = 0; k < logs[i].count; k++)
            buf_free(&logs[i].frames[k].bytes);
    buf_free(&g.changes);
    return 0;
}

/* ---- looking ---- */

static enum sh_error look_for(const char *prefix, uint32_t most, size_t max_bytes, size_t max_look)
{
    buf_free(&g.changes);
    g = (struct watch_gather){.places = places,
                              .count = LOGS,
                              .prefix = slice_str(prefix),
                              .most = most,
                              .max_bytes = max_bytes,
                              .max_look = max_look,
                              .read = read_kept};
    return watch_gather(&g);
}

static enum sh_error look(const char *prefix)
{
    return look_for(prefix, 1000, 1 << 20, 1 << 20);
}

/* "a1 b1" of what was gathered: log and LSN of each. */
static const char *gathered(void)
{
    static char text[4096];
    struct mp m = mp_of(buf_slice(&g.changes));
    struct slice log;
    uint32_t parts, count = 0;
    uint64_t lsn;
    size_t len = 0;
    text[0] = 0;
    while (!mp_at_end(&m)) {
        assert_true(mp_array(&m, &parts) && parts == 7 && mp_bin(&m, &log) && mp_uint(&m, &lsn));
        for (uint32_t i = 2; i < parts; i++)
            assert_true(mp_skip(&m));
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%c%llu", len > 0 ? " " : "",
                                'a' + log.data[0] - 1, (unsigned long long)lsn);
        count++;
    }
    assert_int_equal(count, g.gathered);
    return text;
}

static void test_the_oldest_comes_first_and_each_log_keeps_its_order(void **state)
{
    (void)state;
    put_one(0, 10, "k");
    put_one(0, 40, "k");
    put_one(1, 20, "k");
    put_one(1, 30, "k");
    put_one(2, 25, "k");
    assert_int_equal(look(""), SH_OK);
    assert_string_equal(gathered(), "a1 b1 c1 b2 a2");
    assert_false(g.more);
    assert_int_equal(places[0].lsn, 2);
    assert_int_equal(look(""), SH_OK);
    assert_string_equal(gathered(), "");
    assert_false(g.more);
}

static void test_frames_of_one_time_come_by_their_logs_uuid(void **state)
{
    (void)state;
    put_one(2, 10, "k");
    put_one(0, 10, "k");
    put_one(1, 10, "k");
    look("");
    assert_string_equal(gathered(), "a1 b1 c1");
}

static void test_entries_of_other_kinds_are_passed_over(void **state)
{
    (void)state;
    static const char after[] = "\x91\x92\xc4\x10"
                                "another log's id\x07",
                      unknown[] = "\x92"
                                  "\x93\x63\xa1n\x01"
                                  "\x93\x01\xc4\x01k\xc4\x01v";
    const struct entry entries[] = {
        {.kind = ENTRY_AFTER, .after = slice_of(after, sizeof after - 1)},
        {.kind = ENTRY_EVENT, .stream = slice_str("k"), .value = slice_str("v")},
        {.kind = ENTRY_CURSOR,
         .key = slice_str("k"),
         .value = slice_str("\x90"),
         .epoch = 1,
         .owner = log_of(1),
         .ttl_ms = 1},
        put("k", "v"),
    };
    append(0, 10, entries, 4);
    append_body(1, 20, slice_of(unknown, sizeof unknown - 1), 2);
    assert_int_equal(look("k"), SH_OK);
    assert_string_equal(gathered(), "a4 b2");
}

static void test_a_change_says_what_was_written(void **state)
{
    (void)state;
    uint64_t hlc = hlc_of_ms(1000);
    const struct entry entries[] = {
        {.kind = ENTRY_PUT, .key = slice_str("k"), .value = slice_str("v"), .ttl_ms = 500},
        {.kind = ENTRY_DELETE, .key = slice_str("k")},
        {.kind = ENTRY_ADD, .key = slice_str("k"), .delta = -7},
    };
    append(0, hlc, entries, 3);
    look("");
    struct mp m = mp_of(buf_slice(&g.changes));
    for (uint64_t kind = 1; kind <= 3; kind++) {
        struct slice log, key, value;
        uint32_t parts;
        uint64_t lsn, at, got, expires;
        int64_t delta;
        assert_true(mp_array(&m, &parts) && mp_bin(&m, &log) && mp_uint(&m, &lsn) && mp_uint(&m, &at) &&
                    mp_uint(&m, &got) && mp_bin(&m, &key));
        assert_memory_equal(log.data, log_of(0).bytes, 16);
        assert_int_equal(lsn, kind);
        assert_int_equal(at, hlc);
        assert_int_equal(got, kind);
        assert_true(slice_is(key, "k"));
        if (kind == 1)
            assert_true(mp_bin(&m, &value) && slice_is(value, "v"));
        else if (kind == 2)
            assert_true(mp_nil(&m));
        else
            assert_true(mp_int(&m, &delta) && delta == -7);
        assert_true(mp_uint(&m, &expires));
        assert_int_equal(expires, kind == 1 ? 1500 : 0);
    }
    assert_true(mp_at_end(&m));
}

/* As rows have it. */
static void test_a_ttl_beyond_any_clock_is_none(void **state)
{
    (void)state;
    struct entry e = put("k", "v");
    e.ttl_ms = UINT64_C(1) << 63;
    append(0, hlc_of_ms(1000), &e, 1);
    look("");
    struct mp m = mp_of(buf_slice(&g.changes));
    uint32_t parts;
    uint64_t expires;
    assert_true(mp_array(&m, &parts));
    for (uint32_t i = 1; i < parts; i++)
        assert_true(mp_skip(&m));
    assert_true(mp_uint(&m, &expires));
    assert_int_equal(expires, 0);
}

static void test_other_keys_and_events_are_passed_over(void **state)
{
    (void)state;
    const struct entry entries[] = {
        put("a", "v"), put("ab", "v"),  {.kind = ENTRY_EVENT, .stream = slice_str("ab")},
        put("b", "v"), put("abc", "v"),
    };
    append(1, 1, entries, 5);
    look("ab");
    assert_string_equal(gathered(), "b2 b5");
    assert_int_equal(places[1].lsn, 5);
    put_one(1, 2, "x");
    look("ab");
    assert_string_equal(gathered(), "");
    assert_int_equal(places[1].lsn, 6); /* it was looked at */
}

static void test_what_is_not_applied_is_not_told(void **state)
{
    (void)state;
    put_one(0, 1, "k");
    put_one(0, 3, "k");
    put_one(1, 2, "k");
    places[0].applied = 1;
    look("");
    assert_string_equal(gathered(), "a1 b1");
    assert_int_equal(places[0].lsn, 1);
    places[0].applied = 2;
    look("");
    assert_string_equal(gathered(), "a2");
}

static void test_a_position_ahead_of_what_is_applied_waits(void **state)
{
    (void)state;
    put_one(0, 1, "k");
    put_one(0, 2, "k");
    places[0].lsn = 2;
    places[0].applied = 1;
    look("");
    assert_string_equal(gathered(), "");
    assert_int_equal(places[0].lsn, 2);
}

static void test_it_ends_within_a_frame_and_goes_on_there(void **state)
{
    (void)state;
    const struct entry entries[] = {put("k", "1"), put("k", "2"), put("k", "3"), put("k", "4"),
                                    put("k", "5")};
    append(0, 1, entries, 5);
    put_one(1, 2, "k");
    const char *expected[] = {"a1 a2", "a3 a4", "a5 b1"};
    for (int i = 0; i < 3; i++) {
        look_for("", 2, 1 << 20, 1 << 20);
        assert_string_equal(gathered(), expected[i]);
        assert_int_equal(g.more, i < 2);
    }
    look("");
    assert_string_equal(gathered(), "");
}

static void test_bytes_end_it_after_one_change_at_least(void **state)
{
    (void)state;
    for (uint64_t hlc = 1; hlc <= 3; hlc++)
        put_large(0, hlc, "k");
    const char *expected[] = {"a1", "a2", "a3"};
    for (int i = 0; i < 3; i++) {
        look_for("", 1000, 1, 1 << 20);
        assert_string_equal(gathered(), expected[i]);
    }
}

static void test_the_look_is_bounded_when_nothing_matches(void **state)
{
    (void)state;
    for (uint64_t hlc = 1; hlc <= 20; hlc++)
        put_large(hlc % 2, hlc, "k");
    int rounds = 0;
    do {
        uint64_t before = places[0].lsn + places[1].lsn;
        assert_int_equal(look_for("x", 1000, 1 << 20, 3 * LARGE), SH_OK);
        assert_string_equal(gathered(), "");
        assert_in_range(places[0].lsn + places[1].lsn - before, 1, 3);
        rounds++;
    } while (g.more);
    assert_int_equal(places[0].lsn, 10);
    assert_int_equal(places[1].lsn, 10);
    assert_in_range(rounds, 7, 8);
}

static void test_large_frames_of_many_logs_come_in_order_too(void **state)
{
    (void)state;
    for (uint64_t hlc = 1; hlc <= 9; hlc++)
        put_large(hlc % 3, hlc, "k");
    look_for("", 1000, SIZE_MAX, SIZE_MAX);
    assert_string_equal(gathered(), "b1 c1 a1 b2 c2 a2 b3 c3 a3");
}

static void test_trimmed_entries_are_told_and_passed_over(void **state)
{
    (void)state;
    for (uint64_t hlc = 1; hlc <= 5; hlc++)
        put_one(0, hlc, "k");
    put_one(1, 1, "k");
    logs[0].trimmed_before = 4;
    places[0].lsn = 1;
    assert_int_equal(look(""), SH_OK);
    assert_string_equal(gathered(), "");
    assert_true(id16_equal(g.missing.log, log_of(0)));
    assert_int_equal(g.missing.first, 2);
    assert_int_equal(g.missing.last, 3);
    assert_int_equal(g.missing.error, SH_TRIMMED);
    assert_int_equal(places[0].lsn, 3);
    look("");
    assert_int_equal(g.missing.first, 0);
    assert_string_equal(gathered(), "b1 a4 a5");
}

static void test_damage_in_the_middle_comes_behind_what_is_before_it(void **state)
{
    (void)state;
    for (uint64_t hlc = 1; hlc <= 5; hlc++)
        put_one(0, hlc, "k");
    logs[0].bad = 3;
    logs[0].good = 5;
    look("");
    assert_string_equal(gathered(), "a1 a2");
    assert_int_equal(g.missing.first, 0);
    look("");
    assert_string_equal(gathered(), "");
    assert_int_equal(g.missing.first, 3);
    assert_int_equal(g.missing.last, 4);
    assert_int_equal(g.missing.error, SH_CORRUPT);
    look("");
    assert_string_equal(gathered(), "a5");
}

static void test_a_log_that_cannot_be_read_leaves_the_others(void **state)
{
    (void)state;
    for (uint64_t hlc = 1; hlc <= 3; hlc++) {
        put_one(0, hlc, "k");
        put_one(1, hlc, "k");
    }
    logs[0].bad = 1; /* and nobody knows where it ends */
    assert_int_equal(look(""), SH_OK);
    assert_string_equal(gathered(), "b1 b2 b3");
    assert_int_equal(look(""), SH_CORRUPT);
    assert_true(id16_equal(g.failed, log_of(0)));
    assert_int_equal(places[0].lsn, 0);
    logs[0].bad = 0;
    logs[0].failing = true;
    assert_int_equal(look(""), SH_INTERNAL);
    logs[0].failing = false;
    assert_int_equal(look(""), SH_OK);
    assert_string_equal(gathered(), "a1 a2 a3");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_the_oldest_comes_first_and_each_log_keeps_its_order),
        TEST(test_frames_of_one_time_come_by_their_logs_uuid),
        TEST(test_a_change_says_what_was_written),
        TEST(test_a_ttl_beyond_any_clock_is_none),
        TEST(test_entries_of_other_kinds_are_passed_over),
        TEST(test_other_keys_and_events_are_passed_over),
        TEST(test_what_is_not_applied_is_not_told),
        TEST(test_a_position_ahead_of_what_is_applied_waits),
        TEST(test_it_ends_within_a_frame_and_goes_on_there),
        TEST(test_bytes_end_it_after_one_change_at_least),
        TEST(test_the_look_is_bounded_when_nothing_matches),
        TEST(test_large_frames_of_many_logs_come_in_order_too),
        TEST(test_trimmed_entries_are_told_and_passed_over),
        TEST(test_damage_in_the_middle_comes_behind_what_is_before_it),
        TEST(test_a_log_that_cannot_be_read_leaves_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
