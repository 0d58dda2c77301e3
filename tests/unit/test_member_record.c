/* A member's record: which of two holds, its hash, and bytes from outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "member.h"

static struct id16 id_of(unsigned value)
{
    struct id16 id = {{0}};
    id.bytes[15] = (uint8_t)value;
    return id;
}

static struct member_record sample(void)
{
    return (struct member_record){
        .id = "n1",
        .group = "default",
        .host = "10.0.0.1",
        .port = 4000,
        .admin_port = 9090,
        .status = MEMBER_UP,
        .generation = 2,
        .incarnation = 7,
        .born_ms = 1000,
        .since_ms = 5000,
        .log = id_of(3),
        .boot = id_of(4),
        .not_log = id_of(5),
    };
}

static void assert_holds(const struct member_record *winner, const struct member_record *loser)
{
    assert_true(member_compare(winner, loser) > 0);
    assert_true(member_compare(loser, winner) < 0);
    assert_int_not_equal(member_hash(winner), member_hash(loser));
}

/* ------------------------------------------------------------ each rule, against all rules below it */

/* What the rules from 4 on go by is as good as can be. */
static struct member_record with_the_rest_at_its_best(struct member_record r)
{
    r.incarnation = 1000;
    r.status = MEMBER_MUST_REJOIN;
    r.boot = id_of(255);
    r.since_ms = 0;
    return r;
}

static void test_the_higher_generation_holds(void **state)
{
    (void)state;
    struct member_record a = sample(), b = with_the_rest_at_its_best(sample());
    a.generation++;
    a.log = id_of(0);
    b.status = MEMBER_LEFT;
    assert_holds(&a, &b);
}

static void test_one_that_left_holds_over_one_that_has_not(void **state)
{
    (void)state;
    struct member_record a = sample(), b = with_the_rest_at_its_best(sample());
    a.status = MEMBER_LEFT;
    a.log = id_of(0);
    assert_holds(&a, &b);
}

static void test_a_bound_one_holds_and_the_older_identity(void **state)
{
    (void)state;
    struct member_record a = sample(), b = with_the_rest_at_its_best(sample());
    b.log = id_of(0);
    b.born_ms = 1; /* of nobody: doesn't count */
    assert_holds(&a, &b);
    b.log = id_of(1);
    b.born_ms = a.born_ms + 1;
    assert_holds(&a, &b);
    b.born_ms = a.born_ms;
    b.log = id_of(4);
    assert_holds(&a, &b);
}

static void test_then_the_incarnation_then_the_status(void **state)
{
    (void)state;
    struct member_record a = sample(), b = with_the_rest_at_its_best(sample());
    b.incarnation = a.incarnation - 1;
    assert_holds(&a, &b);
    for (enum member_status status = MEMBER_UP; status <= MEMBER_LEFT; status++) {
        a = b = sample();
        a.status = status;
        b.status = status - 1;
        b.boot = id_of(255);
        assert_holds(&a, &b);
    }
}

static void test_every_other_field_gives_an_order(void **state)
{
    (void)state;
    const struct member_record base = sample();
    struct member_record a = base;
    a.boot = id_of(5);
    a.since_ms++;
    assert_holds(&a, &base);
    a = base, a.since_ms--, a.host[0] = '0';
    assert_holds(&a, &base);
    a = base, a.host[0] = '2', a.port--;
    assert_holds(&a, &base);
    a = base, a.port++, a.admin_port--;
    assert_holds(&a, &base);
    a = base, a.admin_port++, a.group[0] = 'a';
    assert_holds(&a, &base);
    a = base, a.group[0] = 'e', a.not_log = id_of(1);
    assert_holds(&a, &base);
    a = base, a.not_log = id_of(6);
    assert_holds(&a, &base);
    struct member_record b = base;
    a.log = b.log = id_of(0);
    a.not_log = b.not_log;
    a.born_ms++;
    assert_holds(&a, &b);
    assert_int_equal(member_compare(&base, &base), 0);
}

/* ------------------------------------------------------------ a total order */

static uint64_t random_state;

static unsigned choose(unsigned below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 16) % below);
}

/* Few values of each field, so that all rules come to decide. */
static struct member_record random_record(void)
{
    struct member_record r = sample();
    r.generation = 1 + choose(8) / 7;
    r.status = choose(3) == 0 ? choose(6) : MEMBER_UP;
    r.log = id_of(choose(3));
    r.born_ms = choose(2);
    r.incarnation = 1 + choose(2);
    r.boot = id_of(choose(2));
    r.since_ms = choose(2);
    r.host[0] = (char)('1' + choose(2));
    r.port = (uint16_t)(1 + choose(2));
    r.admin_port = (uint16_t)choose(2);
    r.group[0] = (char)('d' + choose(2));
    r.not_log = id_of(choose(2));
    return r;
}

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

static void test_the_order_is_total(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200000; i++) {
        struct member_record a = random_record(), b = random_record(), c = random_record();
        if (choose(2) == 0) /* close ones */
            b = a, b.since_ms = choose(2), b.admin_port = (uint16_t)choose(2);
        int ab = sign(member_compare(&a, &b)), bc = sign(member_compare(&b, &c));
        int ac = sign(member_compare(&a, &c));
        assert_int_equal(ab, -sign(member_compare(&b, &a)));
        assert_int_equal(ab == 0, member_hash(&a) == member_hash(&b));
        if (ab >= 0 && bc >= 0)
            assert_int_equal(ac, ab > 0 || bc > 0);
    }
}

/* ------------------------------------------------------------ bytes */

static void assert_round_trip(const struct member_record *r)
{
    struct buf bytes = {0};
    struct member_record out;
    member_encode(r, &bytes);
    assert_int_equal(member_decode(buf_slice(&bytes), &out), SH_OK);
    assert_string_equal(r->id, out.id);
    assert_int_equal(member_compare(r, &out), 0);
    assert_int_equal(member_hash(r), member_hash(&out));
    for (size_t len = 0; len < bytes.len; len++) {
        uint8_t *part = xmalloc(len + 1); /* a read beyond is seen by the sanitizer */
        memcpy(part, bytes.data, len);
        assert_int_not_equal(member_decode(slice_of(part, len), &out), SH_OK);
        free(part);
    }
    buf_free(&bytes);
}

static void test_round_trip(void **state)
{
    (void)state;
    struct member_record r = sample();
    assert_round_trip(&r);
    for (unsigned i = 0; i < 200; i++) {
        r = random_record();
        assert_round_trip(&r);
    }
    r = (struct member_record){.port = 1};
    memset(r.id, 'n', sizeof r.id - 1);
    memset(r.group, 'g', sizeof r.group - 1);
    memset(r.host, 'h', sizeof r.host - 1);
    assert_round_trip(&r);
    snprintf(r.host, sizeof r.host, "[fe80::1]");
    r.generation = r.incarnation = INT64_MAX;
    r.born_ms = r.since_ms = UINT64_MAX;
    r.port = 65531;
    r.admin_port = 65535;
    assert_round_trip(&r);
}

/* It is compared between machines. */
static void test_the_hash_never_changes(void **state)
{
    (void)state;
    struct member_record r = sample();
    assert_int_equal(member_hash(&r), UINT64_C(0x09cb8ac15dca9289));
}

static struct msg_member sample_message(void)
{
    return (struct msg_member){
        .id = slice_str("n1"),
        .generation = 1,
        .status = MEMBER_UP,
        .log = id_of(1),
        .incarnation = 1,
        .host = slice_str("10.0.0.1"),
        .port = 4000,
        .group = slice_str("default"),
    };
}

static enum sh_error decode_message(const struct msg_member *m)
{
    struct buf bytes = {0};
    struct member_record out;
    msg_encode(MSG_member, m, &bytes);
    enum sh_error e = member_decode(buf_slice(&bytes), &out);
    buf_free(&bytes);
    return e;
}

static void test_names_that_no_topology_file_could_have_are_refused(void **state)
{
    (void)state;
    static const struct slice bad[] = {
        {(const uint8_t *)"", 0},     {(const uint8_t *)"n 1", 3}, {(const uint8_t *)"-n", 2},
        {(const uint8_t *)"n/1", 3},  {(const uint8_t *)".n", 2},  {(const uint8_t *)"n\n", 2},
        {(const uint8_t *)"n1\0", 3}, {(const uint8_t *)"\0", 1},  {(const uint8_t *)"n\xc3\xa4", 3},
    };
    struct msg_member m = sample_message();
    assert_int_equal(decode_message(&m), SH_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        m = sample_message();
        m.id = bad[i];
        assert_int_equal(decode_message(&m), SH_BAD_REQUEST);
        m = sample_message();
        m.group = bad[i];
        assert_int_equal(decode_message(&m), SH_BAD_REQUEST);
    }
}

static void test_hosts_that_cannot_stand_in_an_endpoint_are_refused(void **state)
{
    (void)state;
    static const struct slice bad[] = {
        {(const uint8_t *)"", 0},        {(const uint8_t *)"a b", 3},  {(const uint8_t *)"a:1", 3},
        {(const uint8_t *)"-a", 2},      {(const uint8_t *)"[]", 2},   {(const uint8_t *)"[::1", 4},
        {(const uint8_t *)"[::g]", 5},   {(const uint8_t *)"a/b", 3},  {(const uint8_t *)"a\0b", 3},
        {(const uint8_t *)"[::1]\0", 6}, {(const uint8_t *)"\xff", 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct msg_member m = sample_message();
        m.host = bad[i];
        assert_int_equal(decode_message(&m), SH_BAD_REQUEST);
    }
}

static void test_values_beyond_their_limits_are_refused(void **state)
{
    (void)state;
    char text[MEMBER_HOST_MAX + 2];
    memset(text, 'a', sizeof text);
    struct msg_member m = sample_message();
    m.status = MEMBER_LEFT + 1;
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.port = 65532;
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.admin_port = 65536;
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.id = slice_of(text, CONFIG_ID_MAX + 1);
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.group = slice_of(text, CONFIG_ID_MAX + 1);
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.host = slice_of(text, MEMBER_HOST_MAX + 1);
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.generation = (uint64_t)INT64_MAX + 1;
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.incarnation = (uint64_t)INT64_MAX + 1;
    assert_int_equal(decode_message(&m), SH_TOO_LARGE);
    m = sample_message(), m.port = 0;
    assert_int_equal(decode_message(&m), SH_BAD_REQUEST);
}

static void test_an_identity_without_an_incarnation_is_refused(void **state)
{
    (void)state;
    struct msg_member m = sample_message();
    m.incarnation = 0;
    assert_int_equal(decode_message(&m), SH_BAD_REQUEST);
    m.log = id_of(0);
    assert_int_equal(decode_message(&m), SH_OK);
}

/* Key 1 alone, a list, nothing, a byte behind the map. */
static void test_what_is_no_record_is_refused(void **state)
{
    (void)state;
    static const uint8_t only_id[] = {0x81, 1, 0xa2, 'n', '1'}, list[] = {0x90};
    struct member_record out;
    assert_int_equal(member_decode(slice_of(only_id, sizeof only_id), &out), SH_BAD_REQUEST);
    assert_int_equal(member_decode(slice_of(list, sizeof list), &out), SH_BAD_REQUEST);
    assert_int_equal(member_decode((struct slice){0}, &out), SH_BAD_REQUEST);
    struct buf bytes = {0};
    struct member_record r = sample();
    member_encode(&r, &bytes);
    buf_append(&bytes, "\xc0", 1);
    assert_int_equal(member_decode(buf_slice(&bytes), &out), SH_BAD_REQUEST);
    buf_free(&bytes);
}

static void test_names_of_statuses(void **state)
{
    (void)state;
    assert_string_equal(member_status_name(MEMBER_JOINING), "joining");
    assert_string_equal(member_status_name(MEMBER_UP), "up");
    assert_string_equal(member_status_name(MEMBER_SUSPECT), "suspect");
    assert_string_equal(member_status_name(MEMBER_DOWN), "down");
    assert_string_equal(member_status_name(MEMBER_MUST_REJOIN), "must_rejoin");
    assert_string_equal(member_status_name(MEMBER_LEFT), "left");
    assert_string_equal(member_status_name((enum member_status)6), "unknown");
}

int main(int argc, char **argv)
{
    random_state = argc > 1 ? strtoull(argv[1], NULL, 10) : random_u64() % 1000000000 + 1;
    printf("seed %llu\n", (unsigned long long)random_state);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_higher_generation_holds),
        cmocka_unit_test(test_one_that_left_holds_over_one_that_has_not),
        cmocka_unit_test(test_a_bound_one_holds_and_the_older_identity),
        cmocka_unit_test(test_then_the_incarnation_then_the_status),
        cmocka_unit_test(test_every_other_field_gives_an_order),
        cmocka_unit_test(test_the_order_is_total),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_the_hash_never_changes),
        cmocka_unit_test(test_names_that_no_topology_file_could_have_are_refused),
        cmocka_unit_test(test_hosts_that_cannot_stand_in_an_endpoint_are_refused),
        cmocka_unit_test(test_values_beyond_their_limits_are_refused),
        cmocka_unit_test(test_an_identity_without_an_incarnation_is_refused),
        cmocka_unit_test(test_what_is_no_record_is_refused),
        cmocka_unit_test(test_names_of_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
