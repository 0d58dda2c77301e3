/* Replication groups: which one a key or a stream belongs to, and what a frame's entries come to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "group.h"

/* Names end at a NULL. */
static struct group_set set_of(const char *const *names)
{
    struct group_set set;
    struct buf packed = {0};
    msgpack_packer pk;
    size_t count = 0;
    while (names[count] != NULL)
        count++;
    mp_packer(&pk, &packed);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        mp_pack_cstr(&pk, names[i]);
    assert_true(group_set_decode(&set, buf_slice(&packed)));
    buf_free(&packed);
    return set;
}
#define SET(...) set_of((const char *const[]){__VA_ARGS__, NULL})

static const char *owner(const struct group_set *set, enum group_kind kind, const char *name)
{
    return set->all[group_of(set, kind, slice_str(name))].name;
}

/* What was computed apart from this code. A change would lose all that clusters hold. */
static void test_names_stay_where_they_are(void **state)
{
    (void)state;
    struct group_set two = SET("a", "b"), three = SET("us", "default", "eu");
    char long_name[301];
    memset(long_name, 'k', 300);
    long_name[300] = 0;
    assert_true(two.all[0].seeds[GROUP_KEY] == 0x892b8dfd07cb7c54);
    assert_string_equal(owner(&two, GROUP_KEY, "x"), "a");
    assert_string_equal(owner(&two, GROUP_KEY, "user/1"), "b");
    assert_string_equal(owner(&two, GROUP_KEY, "user/2"), "a");
    assert_string_equal(owner(&two, GROUP_KEY, "orders"), "a");
    assert_string_equal(owner(&two, GROUP_STREAM, "orders"), "b");
    assert_string_equal(owner(&two, GROUP_KEY, long_name), "a");
    assert_string_equal(owner(&two, GROUP_STREAM, long_name), "b");
    assert_string_equal(owner(&three, GROUP_KEY, "user/1"), "default");
    assert_string_equal(owner(&three, GROUP_KEY, "user/2"), "eu");
    assert_string_equal(owner(&three, GROUP_KEY, "orders"), "us");
    assert_string_equal(owner(&three, GROUP_STREAM, "x"), "eu");
    group_set_free(&two);
    group_set_free(&three);
}

static void test_the_order_in_which_groups_are_named_does_not_matter(void **state)
{
    (void)state;
    struct group_set one = SET("a", "b", "c"), other = SET("c", "a", "b", "a");
    assert_int_equal(other.count, 3);
    for (unsigned i = 0; i < 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(group_of(&one, GROUP_KEY, slice_str(name)),
                         group_of(&other, GROUP_KEY, slice_str(name)));
    }
    group_set_free(&one);
    group_set_free(&other);
}

enum { NAMES = 40000 };

static void check_balance(const struct group_set *set, enum group_kind kind, const char *format)
{
    size_t counts[8] = {0}, share = NAMES / set->count;
    for (unsigned i = 0; i < NAMES; i++) {
        char name[300];
        snprintf(name, sizeof name, format, i);
        counts[group_of(set, kind, slice_str(name))]++;
    }
    for (size_t i = 0; i < set->count; i++)
        assert_in_range(counts[i], share - share / 20, share + share / 20); /* 5 %: more than 3 sigma */
}

static void test_groups_get_equal_shares_of_short_and_long_names(void **state)
{
    (void)state;
    struct group_set two = SET("a", "b"), four = SET("default", "g1", "g2", "g3");
    static const char *const formats[] = {"%x", "%u", "user/%u",
                                          "a key of some more bytes, as they may be %u",
                                          "%0250u"}; /* XXH3 takes each of these lengths in another way */
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        check_balance(&two, GROUP_KEY, formats[i]);
        check_balance(&four, GROUP_STREAM, formats[i]);
    }
    group_set_free(&two);
    group_set_free(&four);
}

static void test_a_group_more_takes_its_share_and_moves_nothing_else(void **state)
{
    (void)state;
    struct group_set three = SET("a", "b", "c"), four = SET("a", "b", "c", "bb");
    unsigned moved = 0;
    for (unsigned i = 0; i < NAMES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        const char *before = owner(&three, GROUP_KEY, name), *after = owner(&four, GROUP_KEY, name);
        if (strcmp(before, after) == 0)
            continue;
        assert_string_equal(after, "bb");
        moved++;
    }
    assert_in_range(moved, NAMES / 4 - NAMES / 80, NAMES / 4 + NAMES / 80);
    group_set_free(&three);
    group_set_free(&four);
}

static void test_one_group_owns_everything(void **state)
{
    (void)state;
    struct group_set one = SET("default");
    assert_int_equal(group_of(&one, GROUP_KEY, slice_str("anything")), 0);
    group_set_free(&one);
}

static void test_the_set_is_that_of_the_topology(void **state)
{
    (void)state;
    struct config_node nodes[] = {
        {.id = "n1", .group = "b"}, {.id = "n2", .group = "a"}, {.id = "n3", .group = "b"}};
    struct config config = {.nodes = nodes, .node_count = 3, .self = &nodes[2]};
    struct group_set set, again;
    struct buf packed = {0};
    group_set_of_config(&set, &config);
    assert_int_equal(set.count, 2);
    assert_string_equal(set.all[0].name, "a");
    assert_int_equal(set.self, 1);
    assert_int_equal(group_find(&set, slice_str("a")), 0);
    assert_int_equal(group_find(&set, slice_str("c")), GROUPS_MAX);
    group_set_encode(&set, &packed);
    assert_true(group_set_decode(&again, buf_slice(&packed)));
    assert_int_equal(again.count, 2);
    assert_int_equal(again.self, GROUPS_MAX);
    assert_memory_equal(again.all[1].seeds, set.all[1].seeds, sizeof set.all[1].seeds);
    group_set_free(&set);
    group_set_free(&again);
    buf_free(&packed);
}

static void test_malformed_sets_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {{"", 0},
               {"\x90", 1},
               {"\x91", 1},
               {"\x91\xa0", 2},
               {"\x91\x01", 2},
               {"\x92\xa1"
                "a",
                3},
               {"\x91\xa2"
                "a\0",
                4},
               {"\xa1"
                "a",
                2}};
    struct group_set set;
    struct buf many = {0};
    msgpack_packer pk;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(group_set_decode(&set, slice_of(bad[i].bytes, bad[i].len)));
    mp_packer(&pk, &many);
    msgpack_pack_array(&pk, GROUPS_MAX + 1);
    for (unsigned i = 0; i <= GROUPS_MAX; i++)
        mp_pack_cstr(&pk, "g");
    assert_false(group_set_decode(&set, buf_slice(&many)));
    buf_free(&many);
}

/* ---------------------------------------------------------------- entries */

static struct entry put(const char *key)
{
    return (struct entry){.kind = ENTRY_PUT, .key = slice_str(key), .value = slice_str("v")};
}

static struct entry event(const char *stream)
{
    return (struct entry){.kind = ENTRY_EVENT, .stream = slice_str(stream), .value = slice_str("v")};
}

static struct group_verdict judge(const struct group_set *set, const struct entry *entries, size_t count,
                                  struct buf *body)
{
    msgpack_packer pk;
    uint32_t found;
    mp_packer(&pk, body);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        entry_pack(&pk, &entries[i]);
    assert_int_equal(entries_check(buf_slice(body), &found), SH_OK);
    return group_of_entries(set, buf_slice(body));
}

static void test_a_frame_belongs_where_its_keys_and_streams_do(void **state)
{
    (void)state;
    struct group_set set = SET("a", "b");
    struct buf body = {0};
    const struct entry entries[] = {event(""),
                                    put("x"),
                                    event("x"),
                                    {.kind = ENTRY_DELETE, .key = slice_str("user/2")},
                                    {.kind = ENTRY_ADD, .key = slice_str("orders"), .delta = 1},
                                    put("x")};
    struct group_verdict v = judge(&set, entries, 6, &body);
    assert_false(v.is_split);
    assert_int_equal(v.group, 0);
    group_set_free(&set);
    buf_free(&body);
}

static void test_the_empty_stream_belongs_anywhere(void **state)
{
    (void)state;
    struct group_set set = SET("a", "b");
    struct buf body = {0};
    const struct entry entries[] = {event(""), event("")};
    assert_int_equal(judge(&set, entries, 2, &body).group, GROUPS_MAX);
    group_set_free(&set);
    buf_free(&body);
}

static void test_kinds_of_a_later_version_belong_anywhere(void **state)
{
    (void)state;
    struct group_set set = SET("a", "b");
    static const uint8_t body[] = {0x92, 0x92, 0x07, 0xc4, 0x01, 'x', 0x92, 0x02,
                                   0xc4, 0x06, 'u',  's',  'e',  'r', '/',  '1'};
    struct group_verdict v = group_of_entries(&set, slice_of(body, sizeof body));
    assert_false(v.is_split);
    assert_int_equal(v.group, 1); /* of the delete behind it */
    group_set_free(&set);
}

static void test_two_groups_in_a_frame_are_named(void **state)
{
    (void)state;
    struct group_set set = SET("a", "b");
    struct buf body = {0};
    char text[GROUP_TEXT_MAX];
    const struct entry entries[] = {put("x"), event(""), event("orders"), put("user/2")};
    struct group_verdict v = judge(&set, entries, 4, &body);
    assert_true(v.is_split);
    group_split_text(&v, &set, text);
    assert_string_equal(text, "the keys belong to two groups: key `x` to `a`, stream `orders` to `b`");
    group_set_free(&set);
    buf_free(&body);
}

static void test_what_is_no_short_text_is_not_repeated(void **state)
{
    (void)state;
    char out[80];
    group_name_text(GROUP_KEY, slice_of("a\nb", 3), out, sizeof out);
    assert_string_equal(out, "a key of 3 bytes");
    group_name_text(GROUP_STREAM, slice_str("caf\xc3\xa9"), out, sizeof out);
    assert_string_equal(out, "a stream of 5 bytes");
    group_name_text(GROUP_KEY, slice_str("12345678901234567890123456789012345678901"), out, sizeof out);
    assert_string_equal(out, "a key of 41 bytes");
    group_name_text(GROUP_KEY, slice_str("user/1"), out, sizeof out);
    assert_string_equal(out, "key `user/1`");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_stay_where_they_are),
        cmocka_unit_test(test_the_order_in_which_groups_are_named_does_not_matter),
        cmocka_unit_test(test_groups_get_equal_shares_of_short_and_long_names),
        cmocka_unit_test(test_a_group_more_takes_its_share_and_moves_nothing_else),
        cmocka_unit_test(test_one_group_owns_everything),
        cmocka_unit_test(test_the_set_is_that_of_the_topology),
        cmocka_unit_test(test_malformed_sets_are_refused),
        cmocka_unit_test(test_a_frame_belongs_where_its_keys_and_streams_do),
        cmocka_unit_test(test_the_empty_stream_belongs_anywhere),
        cmocka_unit_test(test_kinds_of_a_later_version_belong_anywhere),
        cmocka_unit_test(test_two_groups_in_a_frame_are_named),
        cmocka_unit_test(test_what_is_no_short_text_is_not_repeated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
