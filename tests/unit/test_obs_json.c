/* JSON of others: what is an object and what is not, and what its members say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "obs_json.h"

static void expect_object(const char *text, bool is_one)
{
    if (obs_json_is_object(slice_str(text)) != is_one)
        fail_msg("%s: %s", text, is_one ? "is an object" : "is none");
}

static void test_objects(void **state)
{
    static const char *const good[] = {
        "{}",
        " {\n} ",
        "{\"a\":1}",
        "{\"a\":-0.5e+10,\"b\":[],\"c\":[1,{\"x\":null}],\"d\":\"\\u00e9\\\"\\/\"}",
        "{\"\\ud83d\\ude00\":true , \"b\" : false}",
        "{\"a\":0}",
        "{\"ä\":\"ö\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        expect_object(good[i], true);
}

static void test_what_is_none(void **state)
{
    static const char *const bad[] = {
        "",
        "[]",
        "1",
        "{",
        "}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\":1}{",
        "{\"a\":01}",
        "{\"a\":1.}",
        "{\"a\":.5}",
        "{\"a\":1e}",
        "{\"a\":+1}",
        "{\"a\":nul}",
        "{\"a\":'x'}",
        "{a:1}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\\ud83d\"}",
        "{\"a\":\"\\ude00\"}",
        "{\"a\":\"\\",
        "{\"a\":\"\\u1",
        "{\"a\":\"\xff\"}",
        "{\"a\":[1 2]}",
        "{\"a\":[1}",
        "{\"a\" 1}",
        "{\"a\":-}",
        "{\"a\":1} x",
        "{\"a\":\"x}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_object(bad[i], false);
    assert_false(obs_json_is_object(slice_of("{\"a\":\"\\\0\"}", 10)));
}

static void test_depth_is_bounded(void **state)
{
    static const char good[] = "{\"a\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}",
                      bad[] = "{\"a\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}";
    (void)state;
    assert_int_equal(sizeof good, sizeof "{\"a\":}" + 2 * (OBS_JSON_DEPTH - 1));
    expect_object(good, true);
    expect_object(bad, false);
}

static void test_members(void **state)
{
    struct slice rest = slice_str(" { \"a\" : [1, {\"b\":2}] ,\"b\":\"x\", \"b\":7 }"), value;
    struct obs_json_member member;
    (void)state;
    assert_true(obs_json_is_object(rest));
    assert_true(obs_json_find(rest, "b", &value));
    assert_true(slice_is(value, "7"));
    assert_false(obs_json_find(rest, "c", &value));
    assert_true(obs_json_next(&rest, &member));
    assert_true(slice_is(member.name, "a"));
    assert_true(slice_is(member.value, "[1, {\"b\":2}]"));
    assert_true(obs_json_next(&rest, &member));
    assert_true(slice_is(member.value, "\"x\""));
    assert_true(obs_json_next(&rest, &member));
    assert_false(obs_json_next(&rest, &member));
    rest = slice_str("{}");
    assert_false(obs_json_next(&rest, &member));
}

static void test_texts(void **state)
{
    char out[8];
    (void)state;
    assert_true(obs_json_text(slice_str("\"a\\n\\u00e9\\\\\""), out, sizeof out));
    assert_string_equal(out, "a\né\\");
    assert_true(obs_json_text(slice_str("\"\\ud83d\\ude00\""), out, sizeof out));
    assert_string_equal(out, "😀");
    assert_true(obs_json_text(slice_str("\"\\u20ac\""), out, sizeof out));
    assert_string_equal(out, "€");
    assert_true(obs_json_text(slice_str("\"1234567\""), out, sizeof out));
    assert_false(obs_json_text(slice_str("\"12345678\""), out, sizeof out));
    assert_false(obs_json_text(slice_str("\"a\\u0000\""), out, sizeof out));
    assert_false(obs_json_text(slice_str("7"), out, sizeof out));
}

static void test_numbers_and_truth(void **state)
{
    uint64_t number;
    bool truth;
    (void)state;
    assert_true(obs_json_uint(slice_str("65535"), 65535, &number));
    assert_int_equal(number, 65535);
    assert_false(obs_json_uint(slice_str("65536"), 65535, &number));
    assert_false(obs_json_uint(slice_str("9"), 8, &number));
    assert_true(obs_json_uint(slice_str("18446744073709551615"), UINT64_MAX, &number));
    assert_true(number == UINT64_MAX);
    assert_false(obs_json_uint(slice_str("18446744073709551616"), UINT64_MAX, &number));
    assert_false(obs_json_uint(slice_str("-1"), 10, &number));
    assert_false(obs_json_uint(slice_str("1.0"), 10, &number));
    assert_false(obs_json_uint(slice_str("\"1\""), 10, &number));
    assert_true(obs_json_bool(slice_str("true"), &truth) && truth);
    assert_true(obs_json_bool(slice_str("false"), &truth) && !truth);
    assert_false(obs_json_bool(slice_str("1"), &truth));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_what_is_none),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_numbers_and_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
