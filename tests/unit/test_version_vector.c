/* Version vectors: packed in order, read in any, compared log by log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "version_vector.h"

static struct vector_place at(uint8_t log, uint64_t lsn)
{
    struct vector_place place = {.lsn = lsn};
    place.log.bytes[15] = log;
    return place;
}

/* As somebody else may pack them: in the order given. */
static struct slice pack(struct buf *out, const struct vector_place *places, size_t count)
{
    msgpack_packer pk;
    out->len = 0;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        msgpack_pack_array(&pk, 2);
        mp_pack_bin(&pk, slice_of(places[i].log.bytes, sizeof places[i].log.bytes));
        msgpack_pack_uint64(&pk, places[i].lsn);
    }
    return buf_slice(out);
}

static void test_it_is_read_in_any_order_and_packed_in_one(void **state)
{
    (void)state;
    struct buf bytes = {0}, again = {0};
    struct version_vector v;
    const struct vector_place places[] = {at(9, 90), at(1, 10), at(5, 0), at(4, UINT64_MAX)};
    assert_false(vector_is_ordered(pack(&bytes, places, 4)));
    assert_true(vector_decode(buf_slice(&bytes), &v));
    assert_int_equal(v.count, 3); /* LSN 0 is as good as none */
    assert_int_equal(vector_lsn(&v, at(4, 0).log), UINT64_MAX);
    assert_int_equal(vector_lsn(&v, at(5, 0).log), 0);
    vector_pack(&v, &again);
    assert_true(vector_is_ordered(buf_slice(&again)));
    const struct vector_place ordered[] = {at(1, 10), at(4, UINT64_MAX), at(9, 90)};
    assert_true(slice_equal(buf_slice(&again), pack(&bytes, ordered, 3)));
    for (size_t len = 1; len < again.len; len++) {
        assert_false(vector_decode(slice_of(again.data, len), &v));
        assert_false(vector_is_ordered(slice_of(again.data, len)));
    }
    buf_append(&again, "\xc0", 1);
    assert_false(vector_decode(buf_slice(&again), &v));
    assert_false(vector_is_ordered(buf_slice(&again)));
    assert_true(vector_decode((struct slice){0}, &v));
    assert_int_equal(v.count, 0);
    assert_false(vector_is_ordered((struct slice){0}));
    buf_free(&bytes);
    buf_free(&again);
}

static void test_a_log_stands_in_it_once_and_256_at_most(void **state)
{
    (void)state;
    static struct vector_place places[VECTOR_LOGS_MAX + 1];
    static struct version_vector v;
    struct buf bytes = {0};
    for (int i = 0; i <= VECTOR_LOGS_MAX; i++) {
        places[i] = at((uint8_t)i, 1);
        places[i].log.bytes[0] = (uint8_t)(i >> 8);
    }
    assert_true(vector_decode(pack(&bytes, places, VECTOR_LOGS_MAX), &v));
    assert_int_equal(v.count, VECTOR_LOGS_MAX);
    bytes.len = 0;
    vector_pack(&v, &bytes);
    assert_true(bytes.len <= VECTOR_BYTES_MAX);
    assert_false(vector_decode(pack(&bytes, places, VECTOR_LOGS_MAX + 1), &v));
    assert_false(vector_is_ordered(buf_slice(&bytes)));
    const struct vector_place twice[] = {at(1, 1), at(1, 2)}, apart[] = {at(1, 1), at(2, 1), at(1, 1)};
    assert_false(vector_decode(pack(&bytes, twice, 2), &v));
    assert_false(vector_is_ordered(buf_slice(&bytes)));
    assert_false(vector_decode(pack(&bytes, apart, 3), &v));
    buf_free(&bytes);
}

static struct version_vector of(const struct vector_place *places, size_t count)
{
    struct version_vector v = {.count = count};
    memcpy(v.all, places, count * sizeof *places);
    return v;
}

static void test_one_covers_another_when_it_is_as_far_everywhere(void **state)
{
    (void)state;
    const struct vector_place some[] = {at(1, 5), at(3, 7)};
    struct version_vector none = {.count = 0}, v = of(some, 2), other;
    struct vector_place behind;
    assert_true(vector_covers(&none, &none, &behind));
    assert_true(vector_covers(&v, &none, &behind));
    assert_true(vector_covers(&v, &v, &behind));
    assert_false(vector_covers(&none, &v, &behind));
    assert_int_equal(behind.lsn, 5);
    const struct vector_place more[] = {at(0, 1), at(1, 5), at(2, 9), at(3, 8)};
    other = of(more, 4);
    assert_true(vector_covers(&other, &v, &behind));
    assert_false(vector_covers(&v, &other, NULL));
    const struct vector_place less[] = {at(1, 5), at(2, 9), at(3, 6), at(4, 1)};
    other = of(less, 4);
    assert_false(vector_covers(&other, &v, &behind));
    assert_int_equal(behind.lsn, 7);
    assert_int_equal(behind.log.bytes[15], 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_is_read_in_any_order_and_packed_in_one),
        cmocka_unit_test(test_a_log_stands_in_it_once_and_256_at_most),
        cmocka_unit_test(test_one_covers_another_when_it_is_as_far_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
