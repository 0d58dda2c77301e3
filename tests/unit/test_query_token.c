/* Tokens of clients: what is applied, what is missing, and what is no token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "query_token.h"

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static struct view_vector vector_of(uint64_t first, uint64_t second)
{
    struct view_vector v = {.count = 0};
    view_pass(&v, log_of(1), first);
    view_pass(&v, log_of(2), second);
    return v;
}

static void test_a_token_is_applied_when_all_of_it_is(void **state)
{
    (void)state;
    const struct view_vector applied = vector_of(10, 20), behind = vector_of(10, 21), other = vector_of(9, 0);
    struct view_place missing;
    struct buf token = {0};
    token_pack(&applied, &token);
    assert_int_equal(token_is_applied(&applied, buf_slice(&token)), 1);
    assert_false(token_missing(&applied, buf_slice(&token), &missing));
    token.len = 0;
    token_pack(&behind, &token);
    assert_int_equal(token_is_applied(&applied, buf_slice(&token)), 0);
    assert_true(token_missing(&applied, buf_slice(&token), &missing));
    assert_true(id16_equal(missing.log, log_of(2)));
    assert_int_equal(missing.lsn, 21);
    token.len = 0;
    token_pack(&other, &token);
    assert_int_equal(token_is_applied(&applied, buf_slice(&token)), 1);
    assert_int_equal(token_is_applied(&(struct view_vector){.count = 0}, buf_slice(&token)), 0);
    assert_int_equal(token_is_applied(&applied, (struct slice){0}), 1);
    buf_free(&token);
}

static void test_a_token_is_read_as_it_was_packed(void **state)
{
    (void)state;
    const struct view_vector packed = vector_of(7, UINT64_MAX);
    struct view_vector got;
    struct buf token = {0};
    token_pack(&packed, &token);
    assert_true(token_read(buf_slice(&token), &got));
    assert_true(view_vector_equal(&packed, &got));
    assert_true(token_read((struct slice){0}, &got));
    assert_int_equal(got.count, 0);
    buf_free(&token);
}

static void assert_malformed(const char *bytes, size_t len)
{
    const struct view_vector applied = vector_of(1, 1);
    struct view_vector got;
    assert_int_equal(token_is_applied(&applied, slice_of(bytes, len)), -1);
    assert_false(token_read(slice_of(bytes, len), &got));
}

static void test_what_is_no_token_is_refused(void **state)
{
    (void)state;
    struct buf many = {0};
    msgpack_packer pk;
    assert_malformed("\x80", 1);                  /* a map */
    assert_malformed("\x91\x01", 2);              /* of a number */
    assert_malformed("\x91\x92\xc4\x01x\x01", 6); /* a uuid of one byte */
    assert_malformed("\x91", 1);                  /* cut short */
    assert_malformed("\x90\x90", 2);              /* something behind it */
    assert_malformed("\xdd\xff\xff\xff\xff", 5);
    mp_packer(&pk, &many);
    msgpack_pack_array(&pk, VIEW_LOGS_MAX + 1);
    for (int i = 0; i < VIEW_LOGS_MAX + 1; i++) {
        const struct id16 log = {{1, (uint8_t)(i >> 8), (uint8_t)i}};
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(log.bytes, sizeof log.bytes));
        msgpack_pack_uint64(&pk, 1);
    }
    assert_malformed((const char *)many.data, many.len);
    buf_free(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_is_applied_when_all_of_it_is),
        cmocka_unit_test(test_a_token_is_read_as_it_was_packed),
        cmocka_unit_test(test_what_is_no_token_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
