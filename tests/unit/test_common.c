/* The small parts that everything stands on: msgpack cursor, messages, CRC-32C, HLC, ids, JSON strings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "hlc.h"
#include "log.h"
#include "messages.h"

#define BYTES(...) slice_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_crc32c_has_the_published_value(void **state)
{
    (void)state;
    /* RFC 3720, B.4: 32 bytes of zeros, and the check value of "123456789". */
    static const uint8_t zeros[32];
    assert_int_equal(crc32c(0, zeros, sizeof zeros), 0x8a9136aa);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    assert_int_equal(crc32c_shift(crc32c(0, "1234", 4), 5) ^ crc32c(0, "56789", 5), 0xe3069283);
    for (size_t len = 0; len <= sizeof zeros; len++)
        assert_int_equal(crc32c_shift(0x12345678, len) ^ crc32c(0, zeros, len),
                         crc32c(0x12345678, zeros, len));
    static const uint8_t many[1000003];
    assert_int_equal(crc32c_shift(7, sizeof many) ^ crc32c(0, many, sizeof many),
                     crc32c(7, many, sizeof many));
}

static void test_hlc_only_grows(void **state)
{
    (void)state;
    uint64_t first = hlc_next(0, 5 * NS_PER_S);
    assert_int_equal(hlc_ms(first), 5000);
    uint64_t behind = hlc_next(first, 4 * NS_PER_S);
    assert_true(behind > first);
    assert_true(hlc_next(behind, 6 * NS_PER_S) > behind);
    uint64_t full = first | 0xffff;
    assert_int_equal(hlc_ms(hlc_next(full, 0)), 5001);
}

static void test_ids_survive_their_text_form(void **state)
{
    (void)state;
    struct id16 id = id16_random(), back;
    char text[ID_TEXT];
    id16_format(id, text);
    assert_true(id16_parse(text, &back));
    assert_true(id16_equal(id, back));
    text[3] = 'x';
    assert_false(id16_parse(text, &back));
    assert_false(id16_parse("00", &back));
}

static void test_cursor_reads_what_msgpack_c_packs(void **state)
{
    (void)state;
    static const int64_t numbers[] = {
        0,   1,    127,  128,    255,    256,       65535,     65536,      INT64_MAX, -1,           -32,
        -33, -128, -129, -32768, -32769, INT32_MIN, INT64_MIN, UINT32_MAX, INT32_MAX, -2147483649LL};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        struct buf b = {0};
        msgpack_packer pk;
        mp_packer(&pk, &b);
        msgpack_pack_int64(&pk, numbers[i]);
        struct mp m = mp_of(buf_slice(&b));
        int64_t value;
        assert_true(mp_int(&m, &value));
        assert_true(value == numbers[i]);
        assert_true(mp_at_end(&m));
        buf_free(&b);
    }
}

static void test_cursor_reads_strings_of_every_width(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *text = xcalloc(sizes[i] + 1, 1);
        struct buf b = {0};
        msgpack_packer pk;
        struct slice value;
        mp_packer(&pk, &b);
        mp_pack_str(&pk, slice_of(text, sizes[i]));
        mp_pack_bin(&pk, slice_of(text, sizes[i]));
        struct mp m = mp_of(buf_slice(&b));
        assert_false(mp_bin(&m, &value));
        assert_true(mp_str(&m, &value));
        assert_int_equal(value.len, sizes[i]);
        assert_true(mp_bin(&m, &value));
        assert_int_equal(value.len, sizes[i]);
        assert_true(mp_at_end(&m));
        /* Every shorter buffer is refused. */
        for (size_t cut = 1; cut < 6 && cut <= b.len; cut++) {
            struct mp short_one = mp_of(slice_of(b.data, b.len - cut));
            assert_true(mp_skip(&short_one) || sizes[i] < 5);
            assert_false(mp_skip(&short_one));
        }
        buf_free(&b);
        free(text);
    }
}

/* [v, [v, v]] for values of each width, cut at each of the first and last bytes. */
static void test_skipping_steps_over_all_or_nothing(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 300, 65535, 65536};
    static char text[65536];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf b = {0};
        msgpack_packer pk;
        mp_packer(&pk, &b);
        msgpack_pack_array(&pk, 2);
        mp_pack_str(&pk, slice_of(text, sizes[i]));
        msgpack_pack_array(&pk, 3);
        mp_pack_bin(&pk, slice_of(text, sizes[i]));
        msgpack_pack_int64(&pk, (int64_t)sizes[i]);
        msgpack_pack_int64(&pk, -(int64_t)sizes[i]);
        size_t whole = b.len;
        buf_append(&b, "\x00\xc4", 2);
        struct mp m = mp_of(buf_slice(&b));
        assert_true(mp_skip(&m));
        assert_ptr_equal(m.at, b.data + whole);
        assert_true(mp_skip(&m));
        assert_false(mp_skip(&m)); /* cut off */
        for (size_t len = 0; len < whole; len += len < 40 || len + 10 > whole ? 1 : 1 + whole / 16) {
            m = mp_of(slice_of(b.data, len));
            assert_false(mp_skip(&m));
            assert_ptr_equal(m.at, b.data);
        }
        buf_free(&b);
    }
}

/* Adding to NULL is undefined, so a cursor over nothing stands somewhere, too. */
static void test_a_cursor_over_nothing_is_at_its_end(void **state)
{
    (void)state;
    uint64_t number;
    struct slice value;
    struct mp m = mp_of(slice_of(NULL, 0));
    assert_non_null(m.at);
    assert_true(mp_at_end(&m));
    assert_int_equal(mp_peek(&m), MP_END);
    assert_false(mp_skip(&m));
    assert_false(mp_raw(&m, &value));
    assert_false(mp_uint(&m, &number));
}

static void test_cursor_refuses_counts_beyond_the_bytes(void **state)
{
    (void)state;
    uint32_t count;
    struct slice value;
    struct mp m = mp_of(BYTES(0xdd, 0xff, 0xff, 0xff, 0xff));
    assert_false(mp_array(&m, &count));
    assert_false(mp_skip(&m));
    m = mp_of(BYTES(0xdf, 0x00, 0x00, 0x00, 0x02, 1, 1, 1));
    assert_false(mp_map(&m, &count));
    m = mp_of(BYTES(0xc6, 0xff, 0xff, 0xff, 0xff, 0));
    assert_false(mp_bin(&m, &value));
    m = mp_of(BYTES(0xc1));
    assert_false(mp_skip(&m));
    assert_int_equal(mp_peek(&m), MP_BAD);
    m = mp_of((struct slice){0});
    assert_false(mp_skip(&m));
    assert_int_equal(mp_peek(&m), MP_END);
}

static void test_cursor_refuses_deep_nesting(void **state)
{
    (void)state;
    uint8_t nested[64];
    memset(nested, 0x91, sizeof nested);
    nested[MP_MAX_DEPTH] = 0xc0;
    struct mp m = mp_of(slice_of(nested, MP_MAX_DEPTH + 1));
    assert_true(mp_skip(&m));
    nested[MP_MAX_DEPTH] = 0x91;
    nested[MP_MAX_DEPTH + 1] = 0xc0;
    m = mp_of(slice_of(nested, MP_MAX_DEPTH + 2));
    assert_false(mp_skip(&m));
}

/* Fills a message's struct with values that depend on the field's place, encodes and decodes it. */
static void check_round_trip(const struct msg_type *type)
{
    char in[1024] = {0}, out[1024];
    struct buf first = {0}, second = {0};
    assert_true(type->size <= sizeof in);
    for (size_t i = 0; i < type->field_count; i++) {
        const struct msg_field *f = &type->fields[i];
        void *at = in + f->offset;
        if (f->kind == MSG_uint)
            *(uint64_t *)at = f->limit < 1000 + i ? f->limit : 1000 + i;
        else if (f->kind == MSG_boolean)
            *(bool *)at = true;
        else if (f->kind == MSG_id16)
            memset(at, (int)i + 1, sizeof(struct id16));
        else if (f->kind == MSG_raw)
            *(struct slice *)at = slice_str("\x93\x01\x02\x03");
        else
            *(struct slice *)at = slice_str("text");
    }
    msg_encode(type->number, in, &first);
    assert_int_equal(msg_decode(type->number, buf_slice(&first), out), SH_OK);
    msg_encode(type->number, out, &second);
    assert_true(slice_equal(buf_slice(&first), buf_slice(&second)));
    for (size_t cut = 0; cut < first.len; cut++)
        assert_int_not_equal(msg_decode(type->number, slice_of(first.data, cut), out), SH_OK);
    buf_free(&first);
    buf_free(&second);
}

static void test_every_message_survives_encoding(void **state)
{
    (void)state;
    size_t count;
    const struct msg_type *types = msg_types(&count);
    assert_true(count > 10);
    for (size_t i = 0; i < count; i++)
        check_round_trip(&types[i]);
}

static void test_numbers_and_keys_are_unique(void **state)
{
    (void)state;
    size_t count;
    const struct msg_type *types = msg_types(&count);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(msg_type_of(types[i].number), &types[i]);
        for (size_t f = 0; f < types[i].field_count; f++)
            for (size_t g = 0; g < f; g++)
                assert_int_not_equal(types[i].fields[f].key, types[i].fields[g].key);
    }
}

static void test_unknown_keys_are_skipped_and_needed_ones_are_missed(void **state)
{
    (void)state;
    struct msg_echo echo;
    struct msg_watermark watermark;
    /* {99: [1, {2: 3}], 1: bin "x"} */
    assert_int_equal(msg_decode(MSG_echo, BYTES(0x82, 99, 0x92, 1, 0x81, 2, 3, 1, 0xc4, 1, 'x'), &echo),
                     SH_OK);
    assert_true(slice_is(echo.payload, "x"));
    assert_int_equal(msg_decode(MSG_watermark, BYTES(0x81, 1, 7), &watermark), SH_BAD_REQUEST);
    assert_int_equal(msg_decode(MSG_watermark, BYTES(0x82, 1, 7, 2, 0xcd, 0xff, 0xff), &watermark),
                     SH_TOO_LARGE);
    assert_int_equal(msg_decode(MSG_watermark, BYTES(0x82, 1, 0xa1, 'x', 2, 1), &watermark), SH_BAD_REQUEST);
    assert_int_equal(msg_decode(12345, BYTES(0x80), &echo), SH_BAD_REQUEST);
}

static void test_envelope_survives_and_refuses_other_versions(void **state)
{
    (void)state;
    struct buf b = {0};
    struct msg_envelope out, in = {.type = MSG_echo,
                                   .correlation = 77,
                                   .cluster = slice_str("8 bytes!"),
                                   .sender = slice_str("n1"),
                                   .session = id16_random(),
                                   .number = 5,
                                   .previous = 4};
    msg_pack_envelope(&b, &in);
    assert_true(b.len <= MSG_ENVELOPE_MAX);
    buf_append(&b, "\x80", 1);
    assert_int_equal(msg_open(buf_slice(&b), &out), SH_OK);
    assert_int_equal(out.type, MSG_echo);
    assert_int_equal(out.correlation, 77);
    assert_true(slice_equal(out.cluster, in.cluster));
    assert_true(slice_is(out.sender, "n1"));
    assert_true(id16_equal(out.session, in.session));
    assert_int_equal(out.number, 5);
    assert_int_equal(out.previous, 4);
    for (size_t cut = 0; cut < b.len; cut++)
        assert_int_not_equal(msg_open(slice_of(b.data, cut), &out), SH_OK);
    buf_append(&b, "\x80", 1);
    assert_int_equal(msg_open(buf_slice(&b), &out), SH_BAD_REQUEST);
    b.data[1] = MSG_VERSION + 1;
    for (size_t cut = 8; cut <= b.len; cut++) { /* what can be read of it names who is refused */
        assert_int_equal(msg_open(slice_of(b.data, cut), &out), SH_VERSION_MISMATCH);
        assert_true(out.sender.len == 0 || slice_is(out.sender, "n1"));
        assert_true(id16_is_zero(out.session) || id16_equal(out.session, in.session));
    }
    assert_true(slice_is(out.sender, "n1"));
    assert_true(slice_equal(out.cluster, in.cluster));
    assert_true(id16_equal(out.session, in.session));
    buf_free(&b);
}

static void check_json(struct slice in, const char *expected)
{
    struct buf b = {0};
    json_string(&b, in);
    assert_string_equal(buf_cstr(&b), expected);
    buf_free(&b);
}

static void test_json_strings_are_escaped(void **state)
{
    (void)state;
    check_json(slice_str("a\"b\\c\n\x01"), "\"a\\\"b\\\\c\\n\\u0001\"");
    check_json(slice_str("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
    check_json(slice_str("\xff\xc0\x80x"), "\"\\ufffd\\ufffd\\ufffdx\"");
    assert_false(utf8_valid(slice_str("\xed\xa0\x80")));
    assert_true(utf8_valid(slice_str("\xed\x9f\xbf")));
}

static void test_a_line_below_the_level_is_not_made(void **state)
{
    (void)state;
    unsigned made = 0;
    log_for(LOG_DEBUG, 1, "off", log_uint("made", ++made));
    assert_int_equal(made, 0);
    log_set_level(LOG_DEBUG);
    log_for(LOG_DEBUG, 1, "on", log_uint("made", ++made));
    log_set_level(LOG_INFO);
    assert_int_equal(made, 1);
}

static void test_error_names_are_unique(void **state)
{
    (void)state;
    for (int i = SH_OK; i <= SH_INTERNAL; i++)
        for (int j = SH_OK; j < i; j++)
            assert_string_not_equal(sh_error_name((enum sh_error)i), sh_error_name((enum sh_error)j));
    assert_string_equal(sh_error_name((enum sh_error)999), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_has_the_published_value),
        cmocka_unit_test(test_hlc_only_grows),
        cmocka_unit_test(test_ids_survive_their_text_form),
        cmocka_unit_test(test_cursor_reads_what_msgpack_c_packs),
        cmocka_unit_test(test_cursor_reads_strings_of_every_width),
        cmocka_unit_test(test_skipping_steps_over_all_or_nothing),
        cmocka_unit_test(test_a_cursor_over_nothing_is_at_its_end),
        cmocka_unit_test(test_cursor_refuses_counts_beyond_the_bytes),
        cmocka_unit_test(test_cursor_refuses_deep_nesting),
        cmocka_unit_test(test_every_message_survives_encoding),
        cmocka_unit_test(test_numbers_and_keys_are_unique),
        cmocka_unit_test(test_unknown_keys_are_skipped_and_needed_ones_are_missed),
        cmocka_unit_test(test_envelope_survives_and_refuses_other_versions),
        cmocka_unit_test(test_json_strings_are_escaped),
        cmocka_unit_test(test_a_line_below_the_level_is_not_made),
        cmocka_unit_test(test_error_names_are_unique),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
