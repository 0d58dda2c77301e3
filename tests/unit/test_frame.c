/* Frames, segment headers, entries: every bit counts, and no input is trusted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "frame.h"
#include "log.h"

static struct segment_header sample_segment(void)
{
    struct segment_header h = {
        .previous_checksum = 0x01020304,
        .base_lsn = 77,
        .position = UINT64_C(0x0102030405060708),
        .created_ns = INT64_C(1700000000000000000),
    };
    for (unsigned i = 0; i < sizeof h.log.bytes; i++)
        h.log.bytes[i] = (uint8_t)(i + 1);
    h.salt = segment_salt(h.log, h.base_lsn);
    return h;
}

static void test_segment_header_round_trip(void **state)
{
    (void)state;
    struct segment_header h = sample_segment(), out;
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    segment_header_encode(&h, bytes);
    assert_int_equal(segment_header_decode(slice_of(bytes, sizeof bytes), &out), SH_OK);
    assert_memory_equal(&h, &out, sizeof h);
}

/* The bytes are a format: these must never change. */
static void test_bytes_of_the_format(void **state)
{
    (void)state;
    static const uint8_t segment[SEGMENT_HEADER_BYTES] = {
        'S',  'H',  'A',  'N',  'G',  'A',  1,    0,    1,    2,    3,    4,    5,    6,    7,    8,
        9,    10,   11,   12,   13,   14,   15,   16,   0x1c, 0x0e, 0x25, 0xed, 0x04, 0x03, 0x02, 0x01,
        77,   0,    0,    0,    0,    0,    0,    0,    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,
        0x00, 0x00, 0x2a, 0x36, 0xfe, 0x9c, 0x97, 0x17, 0,    0,    0,    0,    0x01, 0x51, 0x08, 0x3c,
    };
    uint8_t bytes[SEGMENT_HEADER_BYTES], frame[FRAME_HEADER_BYTES];
    struct segment_header h = sample_segment();
    segment_header_encode(&h, bytes);
    assert_memory_equal(bytes, segment, sizeof segment);
    struct frame_header f = {.body_bytes = 3, .base_lsn = 1, .count = 2, .hlc = 3, .epoch = 4, .sequence = 5};
    frame_encode(&f, 9, slice_str("abc"), frame);
    assert_memory_equal(frame, "SHFR", 4);
    assert_int_equal(f.checksum, 0xa38bb8c2); /* computed by another implementation */
}

static void test_any_flipped_bit_of_a_segment_header_is_seen(void **state)
{
    (void)state;
    struct segment_header h = sample_segment(), out;
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    for (unsigned bit = 0; bit < 8 * SEGMENT_HEADER_BYTES; bit++) {
        segment_header_encode(&h, bytes);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(segment_header_decode(slice_of(bytes, sizeof bytes), &out), SH_CORRUPT);
    }
    for (size_t len = 0; len < SEGMENT_HEADER_BYTES; len++)
        assert_int_equal(segment_header_decode(slice_of(bytes, len), &out), SH_CORRUPT);
}

static void test_segment_names(void **state)
{
    (void)state;
    char name[SEGMENT_NAME_MAX];
    uint64_t base;
    segment_name(42, name);
    assert_string_equal(name, "00000000000000000042.seg");
    assert_true(segment_name_parse(name, &base));
    assert_int_equal(base, 42);
    segment_name(UINT64_MAX, name);
    assert_true(segment_name_parse(name, &base) && base == UINT64_MAX);
    static const char *const bad[] = {
        "",
        "next.tmp",
        "mark",
        "00000000000000000000.seg",
        "0000000000000000001.seg",
        "000000000000000000001.seg",
        "0000000000000000000a.seg",
        "00000000000000000001.tmp",
        "00000000000000000001.seg~",
        "18446744073709551616.seg",
        "99999999999999999999.seg",
        "-0000000000000000001.seg",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(segment_name_parse(bad[i], &base));
}

static size_t sample_frame(uint8_t *out, struct frame_header *h, size_t body_bytes)
{
    *h = (struct frame_header){
        .body_bytes = (uint32_t)body_bytes,
        .kind = FRAME_DATA,
        .base_lsn = 10,
        .count = 3,
        .previous_checksum = 4,
        .hlc = 5,
        .producer.bytes = {6},
        .epoch = 7,
        .sequence = 8,
        .durable_end = 9,
        .durable_lsn = 10,
        .durable_checksum = 11,
    };
    memset(out + FRAME_HEADER_BYTES, 0, body_bytes);
    frame_encode(h, 99, slice_of(out + FRAME_HEADER_BYTES, body_bytes), out);
    return FRAME_HEADER_BYTES + body_bytes;
}

static void test_frame_round_trip(void **state)
{
    (void)state;
    uint8_t bytes[512];
    struct frame_header h, out;
    size_t size, len = sample_frame(bytes, &h, 100);
    assert_int_equal(frame_verify(slice_of(bytes, sizeof bytes), 99, 100, &out, &size), SH_OK);
    assert_int_equal(size, len);
    assert_memory_equal(&h, &out, sizeof h);
    assert_int_equal(frame_verify(slice_of(bytes, len), 98, 100, &out, &size), SH_CORRUPT); /* another salt */
    assert_int_equal(frame_verify(slice_of(bytes, len), 99, 99, &out, &size), SH_CORRUPT);
}

static void test_any_flipped_bit_of_a_frame_is_seen(void **state)
{
    (void)state;
    uint8_t bytes[512];
    struct frame_header h, out;
    size_t size, len = sample_frame(bytes, &h, 60);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(frame_verify(slice_of(bytes, len), 99, 400, &out, &size), SH_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t shorter = 0; shorter < len; shorter++)
        assert_int_equal(frame_verify(slice_of(bytes, shorter), 99, 400, &out, &size), SH_CORRUPT);
}

/* A body of zeros of another length is another frame. */
static void test_zeros_are_counted(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES + 600] = {0};
    struct frame_header h, out;
    size_t size;
    for (size_t body = 0; body <= 512; body++) {
        sample_frame(bytes, &h, body);
        bytes[8] ^= 1; /* one byte more or less */
        assert_int_equal(frame_verify(slice_of(bytes, sizeof bytes), 99, 600, &out, &size), SH_CORRUPT);
    }
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(frame_verify(slice_of(bytes, sizeof bytes), 0, 600, &out, &size), SH_CORRUPT);
}

static void test_headers_that_no_writer_writes_are_refused(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header out;
    const struct frame_header bad[] = {
        {.base_lsn = 1, .count = 0, .kind = FRAME_DATA},
        {.base_lsn = 1, .count = 1, .kind = FRAME_CHECKPOINT},
        {.base_lsn = 0, .count = 1, .kind = FRAME_DATA},
        {.base_lsn = 1, .count = ENTRIES_MAX + 1},
        {.base_lsn = 1, .count = 0, .kind = FRAME_LOSS + 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct frame_header h = bad[i];
        frame_encode(&h, 1, (struct slice){0}, bytes);
        assert_int_equal(frame_header_decode(slice_of(bytes, sizeof bytes), 100, &out), SH_CORRUPT);
    }
}

/* ---------------------------------------------------------------- entries */

static enum sh_error check(const char *bytes, size_t len)
{
    uint32_t count;
    return entries_check(slice_of(bytes, len), &count);
}
#define CHECK(literal) check(literal, sizeof(literal) - 1)

/* An after of so many positions, and an event beside it. */
static enum sh_error check_after(uint32_t positions, bool is_first, size_t uuid_bytes)
{
    static const uint8_t uuid[16] = {7};
    struct buf body = {0}, after = {0};
    msgpack_packer pk;
    uint32_t count;
    mp_packer(&pk, &after);
    msgpack_pack_array(&pk, positions);
    for (uint32_t i = 0; i < positions; i++) {
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(uuid, uuid_bytes));
        msgpack_pack_uint64(&pk, i);
    }
    const struct entry seen = {.kind = ENTRY_AFTER, .after = buf_slice(&after)},
                       event = {.kind = ENTRY_EVENT};
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 2);
    entry_pack(&pk, is_first ? &seen : &event);
    entry_pack(&pk, is_first ? &event : &seen);
    enum sh_error e = entries_check(buf_slice(&body), &count);
    buf_free(&body);
    buf_free(&after);
    return e;
}

static void test_what_the_writer_had_seen_comes_first(void **state)
{
    (void)state;
    assert_int_equal(check_after(0, true, 16), SH_OK);
    assert_int_equal(check_after(AFTER_MAX, true, 16), SH_OK);
    assert_int_equal(check_after(AFTER_MAX + 1, true, 16), SH_TOO_LARGE);
    assert_int_equal(check_after(1, true, 15), SH_BAD_REQUEST);
    assert_int_equal(check_after(1, false, 16), SH_BAD_REQUEST);
    assert_int_equal(CHECK("\x91\x91\x04"), SH_BAD_REQUEST);         /* nothing in it */
    assert_int_equal(CHECK("\x91\x92\x04\x01"), SH_BAD_REQUEST);     /* no array */
    assert_int_equal(CHECK("\x91\x93\x04\x90\xc0"), SH_BAD_REQUEST); /* more than that */
}

static void test_entries_round_trip_an_after(void **state)
{
    (void)state;
    const struct entry in = {.kind = ENTRY_AFTER,
                             .after = slice_of("\x91\x92\xc4\x10"
                                               "0123456789abcdef"
                                               "\x05",
                                               21)};
    struct buf body = {0};
    msgpack_packer pk;
    uint32_t count;
    struct entry out;
    struct id16 log;
    uint64_t lsn;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &in);
    struct mp m = mp_of(buf_slice(&body)), positions;
    assert_true(entries_open(&m, &count));
    assert_int_equal(entry_next(&m, &out), SH_OK);
    assert_int_equal(out.kind, ENTRY_AFTER);
    assert_true(slice_equal(out.after, in.after));
    positions = mp_of(out.after);
    assert_true(mp_array(&positions, &count));
    assert_true(entry_next_after(&positions, &log, &lsn));
    assert_memory_equal(log.bytes, "0123456789abcdef", 16);
    assert_int_equal(lsn, 5);
    assert_false(entry_next_after(&positions, &log, &lsn));
    buf_free(&body);
}

static void test_entries_of_each_kind(void **state)
{
    (void)state;
    struct entry in[] = {
        {.kind = ENTRY_EVENT, .stream = slice_str("orders"), .value = slice_str("payload")},
        {.kind = ENTRY_EVENT,
         .stream = slice_str(""),
         .value = slice_str(""),
         .headers = slice_str("\x81\xa1k\xa1v")},
        {.kind = ENTRY_PUT, .key = slice_str("k"), .value = slice_str("v")},
        {.kind = ENTRY_PUT, .key = slice_str("k"), .value = slice_str("v"), .ttl_ms = 5000},
        {.kind = ENTRY_DELETE, .key = slice_str("k")},
        {.kind = ENTRY_ADD, .key = slice_str("k"), .delta = -3},
        {.kind = ENTRY_CURSOR,
         .key = slice_str("c"),
         .value = slice_str("\x90"),
         .ttl_ms = 5000,
         .epoch = UINT64_MAX,
         .owner = {"some owner"}},
        {.kind = ENTRY_CURSOR,
         .key = slice_str("c"),
         .value = slice_str("\x90"),
         .epoch = 1,
         .deleted = true},
    };
    const uint32_t most = sizeof in / sizeof in[0];
    struct buf body = {0};
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, most);
    for (uint32_t i = 0; i < most; i++)
        entry_pack(&pk, &in[i]);
    uint32_t count;
    assert_int_equal(entries_check(buf_slice(&body), &count), SH_OK);
    assert_int_equal(count, most);
    struct mp m = mp_of(buf_slice(&body));
    assert_true(entries_open(&m, &count));
    for (uint32_t i = 0; i < most; i++) {
        struct entry out;
        assert_int_equal(entry_next(&m, &out), SH_OK);
        assert_int_equal(out.kind, in[i].kind);
        assert_true(slice_equal(out.stream, in[i].stream) && slice_equal(out.key, in[i].key));
        assert_true(slice_equal(out.value, in[i].value) && slice_equal(out.headers, in[i].headers));
        assert_int_equal(out.ttl_ms, in[i].ttl_ms);
        assert_int_equal(out.delta, in[i].delta);
        assert_int_equal(out.epoch, in[i].epoch);
        assert_true(id16_equal(out.owner, in[i].owner));
        assert_int_equal(out.deleted, in[i].deleted);
    }
    assert_true(mp_at_end(&m));
    for (size_t len = 0; len < body.len; len++)
        assert_int_equal(entries_check(slice_of(body.data, len), &count), SH_BAD_REQUEST);
    buf_append(&body, "\xc0", 1);
    assert_int_equal(entries_check(buf_slice(&body), &count), SH_BAD_REQUEST);
    buf_free(&body);
}

/* [5, "c", 1, owner, position, ttl, state], of which parts can be other ones. */
struct cursor_parts {
    const char *name;
    uint64_t epoch, ttl_ms, state;
    size_t owner_bytes;
    struct slice position;
    uint32_t fields;
};

static enum sh_error check_cursor(struct cursor_parts parts)
{
    static const uint8_t owner[17];
    struct buf body = {0};
    msgpack_packer pk;
    uint32_t count;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    msgpack_pack_array(&pk, parts.fields);
    msgpack_pack_uint64(&pk, ENTRY_CURSOR);
    mp_pack_cstr(&pk, parts.name);
    msgpack_pack_uint64(&pk, parts.epoch);
    mp_pack_bin(&pk, slice_of(owner, parts.owner_bytes));
    mp_pack_raw(&pk, parts.position);
    msgpack_pack_uint64(&pk, parts.ttl_ms);
    msgpack_pack_uint64(&pk, parts.state);
    if (parts.fields == 8)
        msgpack_pack_nil(&pk);
    enum sh_error e = entries_check(buf_slice(&body), &count);
    buf_free(&body);
    return e;
}

static void test_a_cursor_is_checked_in_every_part(void **state)
{
    (void)state;
    static const uint8_t swapped[] = "\x92\x92\xc4\x10"
                                     "bbbbbbbbbbbbbbbb\x01\x92\xc4\x10"
                                     "aaaaaaaaaaaaaaaa\x01";
    char name[CURSOR_NAME_MAX + 2] = "";
    const struct cursor_parts good = {"c", 1, 5000, 0, 16, slice_str("\x90"), 7};
    struct cursor_parts p = good;
    assert_int_equal(check_cursor(p), SH_OK);
    memset(name, 'n', CURSOR_NAME_MAX);
    p.name = name;
    assert_int_equal(check_cursor(p), SH_OK);
    name[CURSOR_NAME_MAX] = 'n';
    assert_int_equal(check_cursor(p), SH_TOO_LARGE);
    static const char *const names[] = {"", "a\nb", "\x7f", "\xff"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        p.name = names[i];
        assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    }
    p = good;
    p.epoch = 0;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p = good;
    p.owner_bytes = 15;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p.owner_bytes = 17;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p = good;
    p.position = slice_of(swapped, sizeof swapped - 1);
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p.position = slice_str("\xc0");
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p = good;
    p.ttl_ms = CURSOR_TTL_MS_MAX;
    assert_int_equal(check_cursor(p), SH_OK);
    p.ttl_ms++;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p.ttl_ms = 0;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p.state = 1;
    assert_int_equal(check_cursor(p), SH_OK);
    p.state = 2;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
    p = good;
    p.fields = 8;
    assert_int_equal(check_cursor(p), SH_BAD_REQUEST);
}

/* The quick way through entries_check and the thorough one must agree, whatever the sizes. */
static void test_payloads_and_names_of_every_size(void **state)
{
    (void)state;
    static const size_t payloads[] = {0, 1, 127, 128, 255, 256, 4095, 65535, 65536, 70000};
    static uint8_t bytes[70000];
    char name[STREAM_NAME_MAX + 1];
    memset(name, 'n', sizeof name);
    for (size_t n = 0; n <= STREAM_NAME_MAX + 1; n++) {
        for (size_t p = 0; p < sizeof payloads / sizeof payloads[0]; p++) {
            struct entry entry = {.stream = slice_of(name, n), .value = slice_of(bytes, payloads[p])};
            struct buf body = {0};
            msgpack_packer pk;
            uint32_t count;
            mp_packer(&pk, &body);
            msgpack_pack_array(&pk, 2);
            entry_pack(&pk, &entry);
            entry_pack(&pk, &entry);
            assert_int_equal(entries_check(buf_slice(&body), &count),
                             n > STREAM_NAME_MAX ? SH_TOO_LARGE : SH_OK);
            assert_int_equal(entries_check(slice_of(body.data, body.len - 1), &count),
                             n > STREAM_NAME_MAX ? SH_TOO_LARGE : SH_BAD_REQUEST);
            buf_free(&body);
        }
    }
}

/* An event without headers, read by the cursor; *m stays where it is. */
static bool event_by_cursor(const struct mp *m, struct slice *stream, struct slice *payload)
{
    struct mp c = *m;
    uint32_t fields;
    uint64_t kind;
    return mp_array(&c, &fields) && fields == 3 && mp_uint(&c, &kind) && kind == ENTRY_EVENT &&
           mp_str(&c, stream) && utf8_valid(*stream) && mp_bin(&c, payload) && mp_at_end(&c);
}

static void check_event(struct slice bytes)
{
    struct mp m = mp_of(bytes);
    struct slice stream, payload;
    struct entry out;
    bool is_good = event_by_cursor(&m, &stream, &payload);
    assert_int_equal(entry_next(&m, &out), is_good ? SH_OK : SH_BAD_REQUEST);
    if (!is_good)
        return;
    assert_true(mp_at_end(&m));
    assert_true(out.stream.data == stream.data && out.stream.len == stream.len);
    assert_true(out.value.data == payload.data && out.value.len == payload.len);
    assert_int_equal(out.kind, ENTRY_EVENT);
    assert_true(out.key.len == 0 && out.headers.len == 0);
}

static void test_events_read_as_the_cursor_reads_them(void **state)
{
    (void)state;
    static const size_t payloads[] = {0, 1, 255, 256, 300, 65535, 65536};
    static uint8_t bytes[65536];
    char name[40];
    memset(name, 'n', sizeof name);
    for (size_t n = 0; n <= sizeof name; n++) {
        for (size_t p = 0; p < sizeof payloads / sizeof payloads[0]; p++) {
            struct entry entry = {.stream = slice_of(name, n), .value = slice_of(bytes, payloads[p])};
            struct buf body = {0};
            msgpack_packer pk;
            mp_packer(&pk, &body);
            entry_pack(&pk, &entry);
            check_event(buf_slice(&body));
            for (size_t len = 0; len < body.len; len += len < n + 8 ? 1 : 1 + body.len / 8)
                check_event(slice_of(body.data, len));
            if (n > 0) {
                body.data[3 + (n > 31)] = 0xff; /* in the name */
                check_event(buf_slice(&body));
            }
            buf_free(&body);
        }
    }
}

static void test_entries_that_are_refused(void **state)
{
    (void)state;
    assert_int_equal(CHECK(""), SH_BAD_REQUEST);
    assert_int_equal(CHECK("\x90"), SH_BAD_REQUEST);                         /* none */
    assert_int_equal(CHECK("\xdd\xff\xff\xff\xff"), SH_BAD_REQUEST);         /* a count without bytes */
    assert_int_equal(CHECK("\x91\x92\x00\xa0"), SH_BAD_REQUEST);             /* no payload */
    assert_int_equal(CHECK("\x91\x93\x00\xa1\xff\xc4\x00"), SH_BAD_REQUEST); /* a name that isn't UTF-8 */
    assert_int_equal(CHECK("\x91\x93\x00\xa0\xa0"), SH_BAD_REQUEST);         /* a str payload */
    assert_int_equal(CHECK("\x91\x93\x01\xc4\x00\xc4\x00"), SH_BAD_REQUEST); /* an empty key */
    assert_int_equal(CHECK("\x91\x92\x02\xa1k"), SH_BAD_REQUEST);            /* a str key */
    assert_int_equal(CHECK("\x91\x93\x03\xc4\x01k\xc0"), SH_BAD_REQUEST);    /* a delta that is nil */
    assert_int_equal(CHECK("\x91\x94\x00\xa0\xc4\x00\x81\xc4\x00\xa0"),
                     SH_BAD_REQUEST);                                            /* a header's name in bin */
    assert_int_equal(CHECK("\x91\x95\x00\xa0\xc4\x00\x80\xc0"), SH_BAD_REQUEST); /* more than an event has */
    assert_int_equal(CHECK("\x91\x91\xa0"), SH_BAD_REQUEST); /* a kind that is no number */
    assert_int_equal(CHECK("\x92\x93\x00\xa0\xc4\x00\x90"), SH_BAD_REQUEST);
}

static void test_kinds_of_later_versions_are_passed_on(void **state)
{
    (void)state;
    assert_int_equal(CHECK("\x91\x91\x63"), SH_OK);
    assert_int_equal(CHECK("\x91\x93\xcd\x12\x34\x81\xc0\xc0\xcb\x00\x00\x00\x00\x00\x00\x00\x00"), SH_OK);
    assert_int_equal(CHECK("\x91\x93\x63\xc0"), SH_BAD_REQUEST);
}

static void test_too_many_of_anything(void **state)
{
    (void)state;
    struct buf body = {0};
    msgpack_packer pk;
    uint32_t count;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, ENTRIES_MAX + 1);
    for (uint32_t i = 0; i <= ENTRIES_MAX; i++)
        buf_append(&body, "\x91\x63", 2);
    assert_int_equal(entries_check(buf_slice(&body), &count), SH_TOO_LARGE);
    body.len = 0;
    buf_append(&body, "\x91\x94\x00\xa0\xc4\x00", 6);
    msgpack_pack_map(&pk, HEADERS_MAX + 1);
    for (uint32_t i = 0; i <= HEADERS_MAX; i++)
        buf_append(&body, "\xa0\xa0", 2);
    assert_int_equal(entries_check(buf_slice(&body), &count), SH_TOO_LARGE);
    body.len = 0;
    static char key[KEY_MAX + 1];
    buf_append(&body, "\x91\x92\x02", 3);
    mp_pack_bin(&pk, slice_of(key, sizeof key));
    assert_int_equal(entries_check(buf_slice(&body), &count), SH_TOO_LARGE);
    buf_free(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segment_header_round_trip),
        cmocka_unit_test(test_bytes_of_the_format),
        cmocka_unit_test(test_any_flipped_bit_of_a_segment_header_is_seen),
        cmocka_unit_test(test_segment_names),
        cmocka_unit_test(test_frame_round_trip),
        cmocka_unit_test(test_any_flipped_bit_of_a_frame_is_seen),
        cmocka_unit_test(test_zeros_are_counted),
        cmocka_unit_test(test_headers_that_no_writer_writes_are_refused),
        cmocka_unit_test(test_entries_of_each_kind),
        cmocka_unit_test(test_what_the_writer_had_seen_comes_first),
        cmocka_unit_test(test_entries_round_trip_an_after),
        cmocka_unit_test(test_a_cursor_is_checked_in_every_part),
        cmocka_unit_test(test_payloads_and_names_of_every_size),
        cmocka_unit_test(test_events_read_as_the_cursor_reads_them),
        cmocka_unit_test(test_entries_that_are_refused),
        cmocka_unit_test(test_kinds_of_later_versions_are_passed_on),
        cmocka_unit_test(test_too_many_of_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
