/* Which damaged range replsvc takes from walsvc's answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "repl_shell.h"

enum { SEGMENT_BYTES = 1000 };

static struct buf segments, damages;
static uint32_t damage_count;

/* Segments of 10 entries each: base LSNs from that one on. */
static void tell_segments(uint64_t from, unsigned count)
{
    msgpack_packer pk;
    segments.len = 0;
    mp_packer(&pk, &segments);
    msgpack_pack_array(&pk, count);
    for (uint64_t base = from; base < from + 10 * count; base += 10) {
        msgpack_pack_array(&pk, 6);
        msgpack_pack_uint64(&pk, base);
        msgpack_pack_uint64(&pk, base + 10);
        msgpack_pack_uint64(&pk, base / 10 * SEGMENT_BYTES);
        for (unsigned i = 0; i < 3; i++)
            msgpack_pack_uint64(&pk, 0);
    }
}

static void add_parts(uint64_t base, uint64_t offset, bool is_accepted, bool differs)
{
    msgpack_packer pk;
    char file[SEGMENT_NAME_MAX];
    segment_name(base, file);
    mp_packer(&pk, &damages);
    msgpack_pack_array(&pk, differs ? 10 : 8);
    mp_pack_cstr(&pk, file);
    msgpack_pack_uint64(&pk, offset);
    msgpack_pack_uint64(&pk, 50);
    msgpack_pack_uint64(&pk, base + 1);
    msgpack_pack_uint64(&pk, base + 2);
    msgpack_pack_uint64(&pk, 1);
    msgpack_pack_uint64(&pk, is_accepted);
    mp_pack_cstr(&pk, "");
    if (differs) {
        msgpack_pack_true(&pk);
        msgpack_pack_nil(&pk); /* something newer */
    }
    damage_count++;
}

static void add_damage(uint64_t base, uint64_t offset, bool is_accepted)
{
    add_parts(base, offset, is_accepted, false);
}

static int forget(void **state)
{
    (void)state;
    buf_free(&segments);
    buf_free(&damages);
    segments = damages = (struct buf){0};
    damage_count = 0;
    return 0;
}

static bool find(struct repl_ask_damage *ask, uint64_t from, struct repl_damage *out)
{
    struct buf all = {0};
    msgpack_packer pk;
    mp_packer(&pk, &all);
    msgpack_pack_array(&pk, damage_count);
    buf_append(&all, damages.data, damages.len);
    const struct msg_wal_info_reply reply = {.segments = buf_slice(&segments), .damages = buf_slice(&all)};
    bool found = repl_damage_find(&reply, ask, from, out);
    buf_free(&all);
    return found;
}

static void test_the_first_range_behind_a_place_is_taken(void **state)
{
    (void)state;
    struct repl_ask_damage ask = {0};
    struct repl_damage damage;
    tell_segments(1, 5);
    add_damage(21, 300, false);
    add_damage(21, 100, false);
    add_damage(11, 400, true);
    add_damage(31, 200, false);
    const struct {
        uint64_t segment, offset;
    } expected[] = {{21, 100}, {21, 300}, {31, 200}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_true(find(&ask, 0, &damage));
        assert_int_equal(damage.segment, expected[i].segment);
        assert_int_equal(damage.offset, expected[i].offset);
        assert_int_equal(damage.position, damage.segment / 10 * SEGMENT_BYTES + damage.offset);
        assert_int_equal(damage.lsn, damage.segment + 1);
        ask.segment = damage.segment;
        ask.offset = damage.offset;
    }
    assert_true(find(&ask, 0, &damage));
    assert_int_equal(damage.bytes, 0);
}

static void test_segments_that_were_not_told_are_asked_for(void **state)
{
    (void)state;
    struct repl_ask_damage ask = {0};
    struct repl_damage damage;
    tell_segments(1, 2);
    add_damage(51, 100, false);
    assert_false(find(&ask, 0, &damage));
    assert_int_equal(damage.segment, 51);
    tell_segments(51, 2);
    assert_true(find(&ask, 51, &damage));
    assert_int_equal(damage.position, 5 * SEGMENT_BYTES + 100);
}

static void test_a_segment_that_there_is_none_of_is_passed_over(void **state)
{
    (void)state;
    struct repl_ask_damage ask = {0};
    struct repl_damage damage;
    tell_segments(61, 1);
    add_damage(51, 100, false);
    add_damage(71, 100, false);
    assert_false(find(&ask, 51, &damage)); /* nothing is there, nor is the next one known */
    assert_int_equal(damage.segment, 71);
    assert_false(find(&ask, 61, &damage)); /* not the other one again */
    assert_int_equal(damage.segment, 71);
    tell_segments(81, 1);
    assert_true(find(&ask, 71, &damage));
    assert_int_equal(damage.bytes, 0);
}

static void test_what_differs_from_the_origins_is_told_apart(void **state)
{
    (void)state;
    struct repl_ask_damage ask = {0};
    struct repl_damage damage;
    tell_segments(1, 5);
    add_parts(11, 0, false, true);
    add_damage(21, 100, false);
    for (uint64_t base = 11; base <= 21; base += 10) {
        assert_true(find(&ask, 0, &damage));
        assert_int_equal(damage.segment, base);
        assert_int_equal(damage.differs, base == 11);
        ask.segment = damage.segment;
    }
}

static void test_what_is_malformed_names_nothing(void **state)
{
    (void)state;
    struct repl_ask_damage ask = {0};
    struct repl_damage damage;
    static const uint8_t garbage[] = {0xdd, 0xff, 0xff, 0xff, 0xff, 0x98, 1};
    const struct msg_wal_info_reply reply = {.damages = slice_of(garbage, sizeof garbage)};
    assert_true(repl_damage_find(&reply, &ask, 0, &damage));
    assert_int_equal(damage.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_first_range_behind_a_place_is_taken, forget),
        cmocka_unit_test_teardown(test_segments_that_were_not_told_are_asked_for, forget),
        cmocka_unit_test_teardown(test_a_segment_that_there_is_none_of_is_passed_over, forget),
        cmocka_unit_test_teardown(test_what_differs_from_the_origins_is_told_apart, forget),
        cmocka_unit_test_teardown(test_what_is_malformed_names_nothing, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
