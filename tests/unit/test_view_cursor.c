/* Cursors: rows that merge alike in any order, who may move one where to, and what is held back for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "view_cursor.h"

enum { ROUNDS = 2000, CHANGES = 8, NOW = 1000000, DEFAULT_TTL = 777 };

static struct id16 id(uint8_t number)
{
    struct id16 made = {{0}};
    made.bytes[15] = number;
    return made;
}

/* ---------------------------------------------------------------- rows */

static struct slice row_of(struct buf *out, uint64_t epoch, uint8_t owner, uint64_t hlc, bool deleted)
{
    size_t start = out->len;
    const struct view_cursor c = {.epoch = epoch,
                                  .owner = id(owner),
                                  .version = {hlc, id(1), hlc},
                                  .deleted = deleted,
                                  .position = slice_str("\x90")};
    buf_reserve(out, 4096); /* what was handed out before stays where it is */
    view_cursor_encode(&c, out);
    return slice_of(out->data + start, out->len - start);
}

static void test_a_cursor_comes_back_as_it_was(void **state)
{
    (void)state;
    struct buf row = {0};
    struct view_cursor out, in = {.epoch = UINT64_MAX,
                                  .owner = id(9),
                                  .version = {77, id(3), 5},
                                  .expires_ms = 123456789012,
                                  .ttl_ms = 5000,
                                  .position = slice_str("a position")};
    for (int deleted = 0; deleted < 2; deleted++) {
        row.len = 0;
        in.deleted = deleted == 1;
        view_cursor_encode(&in, &row);
        assert_true(view_cursor_decode(buf_slice(&row), &out));
        assert_int_equal(out.epoch, in.epoch);
        assert_true(id16_equal(out.owner, in.owner));
        assert_int_equal(view_version_compare(&out.version, &in.version), 0);
        assert_int_equal(out.expires_ms, in.expires_ms);
        assert_int_equal(out.ttl_ms, in.ttl_ms);
        assert_int_equal(out.deleted, in.deleted);
        assert_true(slice_equal(out.position, in.position));
    }
    for (size_t len = 0; len < row.len - in.position.len; len++)
        assert_false(view_cursor_decode(slice_of(row.data, len), &out));
    row.data[0] = 1; /* a value's */
    assert_false(view_cursor_decode(buf_slice(&row), &out));
    buf_free(&row);
}

static void assert_wins(struct slice high, struct slice low)
{
    struct buf merged = {0};
    const struct slice changes[] = {low, high};
    assert_true(view_merge(slice_str("Uc"), &high, &low, 1, &merged));
    assert_true(slice_equal(buf_slice(&merged), high));
    merged.len = 0;
    assert_true(view_merge(slice_str("Uc"), &low, &high, 1, &merged));
    assert_true(slice_equal(buf_slice(&merged), high));
    merged.len = 0;
    assert_true(view_merge_changes(slice_str("Uc"), changes, 2, &merged));
    assert_true(slice_equal(buf_slice(&merged), high));
    buf_free(&merged);
}

static void test_epoch_then_owner_then_version_wins(void **state)
{
    (void)state;
    struct buf bytes = {0};
    buf_reserve(&bytes, 1 << 16);
    struct slice low = row_of(&bytes, 3, 5, 10, false);
    assert_wins(row_of(&bytes, 3, 5, 11, false), low);
    assert_wins(row_of(&bytes, 3, 6, 1, false),
                low); /* the other owner's later commits don't bring it back */
    assert_wins(row_of(&bytes, 4, 1, 1, false), low);
    assert_wins(row_of(&bytes, 4, 1, 1, true), low);
    assert_wins(row_of(&bytes, 5, 1, 1, false), row_of(&bytes, 4, 9, 99, true));
    struct buf out = {0};
    const struct slice bad = slice_str("not a cursor");
    assert_false(view_merge(slice_str("Uc"), &low, &bad, 1, &out));
    assert_false(view_merge(slice_str("Uc"), &bad, &low, 1, &out));
    buf_free(&out);
    buf_free(&bytes);
}

static void test_any_order_gives_the_same_row(void **state)
{
    (void)state;
    struct buf bytes = {0}, merged = {0}, first = {0};
    srand(1);
    buf_reserve(&bytes, 1 << 20);
    for (int round = 0; round < ROUNDS; round++) {
        struct slice changes[CHANGES];
        bytes.len = first.len = 0;
        for (int i = 0; i < CHANGES; i++)
            changes[i] = row_of(&bytes, 1 + (uint64_t)rand() % 3, (uint8_t)(rand() % 3), (uint64_t)i + 1,
                                rand() % 4 == 0);
        assert_true(view_merge(slice_str("Uc"), NULL, changes, CHANGES, &first));
        for (int i = CHANGES - 1; i > 0; i--) {
            int k = rand() % (i + 1);
            struct slice swapped = changes[i];
            changes[i] = changes[k];
            changes[k] = swapped;
        }
        struct slice before = {0};
        for (int i = 0; i < CHANGES; i++) {
            struct buf next = {0};
            assert_true(view_merge(slice_str("Uc"), i > 0 ? &before : NULL, &changes[i], 1, &next));
            buf_free(&merged);
            merged = next;
            before = buf_slice(&merged);
        }
        assert_true(slice_equal(before, buf_slice(&first)));
    }
    buf_free(&bytes);
    buf_free(&merged);
    buf_free(&first);
}

/* ---------------------------------------------------------------- sets */

static struct buf position_bytes;
static struct version_vector there;

static struct version_vector position(uint64_t first, uint64_t second)
{
    struct version_vector made = {.count = 0};
    if (first > 0)
        made.all[made.count++] = (struct vector_place){id(1), first};
    if (second > 0)
        made.all[made.count++] = (struct vector_place){id(2), second};
    return made;
}

static struct view_cursor known_at(uint64_t epoch, uint8_t owner, uint64_t first, uint64_t second)
{
    const struct version_vector at = position(first, second);
    position_bytes.len = 0;
    vector_pack(&at, &position_bytes);
    return (struct view_cursor){.epoch = epoch,
                                .owner = id(owner),
                                .ttl_ms = 500,
                                .expires_ms = NOW + 1,
                                .position = buf_slice(&position_bytes)};
}

static struct cursor_decision decide(enum cursor_action action, uint64_t epoch, uint8_t owner,
                                     const struct view_cursor *known)
{
    const struct cursor_ask ask = {.action = action,
                                   .epoch = epoch,
                                   .owner = id(owner),
                                   .position = there.count > 0 ? &there : NULL,
                                   .ttl_default_ms = DEFAULT_TTL};
    struct cursor_decision out;
    cursor_decide(&ask, known, NOW, &out);
    there.count = 0;
    return out;
}

static void assert_at(const struct cursor_decision *d, uint64_t first, uint64_t second)
{
    const struct version_vector at = position(first, second);
    assert_int_equal(d->error, SH_OK);
    assert_int_equal(d->position.count, at.count);
    assert_true(vector_covers(&d->position, &at, NULL) && vector_covers(&at, &d->position, NULL));
}

static void test_who_takes_a_new_cursor_has_its_first_epoch(void **state)
{
    (void)state;
    for (enum cursor_action action = CURSOR_TAKE_FREE; action <= CURSOR_TAKE; action++) {
        struct cursor_decision d = decide(action, 0, 1, NULL);
        assert_at(&d, 0, 0);
        assert_int_equal(d.epoch, 1);
        assert_int_equal(d.ttl_ms, DEFAULT_TTL);
        there = position(7, 0);
        d = decide(action, 0, 1, NULL);
        assert_at(&d, 7, 0);
    }
}

static void test_who_takes_one_goes_on_where_it_is(void **state)
{
    (void)state;
    struct view_cursor known = known_at(4, 2, 10, 20);
    struct cursor_decision d = decide(CURSOR_TAKE, 0, 1, &known);
    assert_at(&d, 10, 20);
    assert_int_equal(d.epoch, 5);
    assert_int_equal(d.ttl_ms, 500);
    there = position(3, 0); /* back, too */
    d = decide(CURSOR_TAKE, 0, 1, &known);
    assert_at(&d, 3, 0);
    d = decide(CURSOR_TAKE_FREE, 0, 1, &known);
    assert_int_equal(d.error, SH_CONFLICT);
    assert_int_equal(d.epoch, 4);
    assert_non_null(strstr(d.text, "00000000-0000-0000-0000-000000000002"));
    known.expires_ms = NOW;
    d = decide(CURSOR_TAKE_FREE, 0, 1, &known);
    assert_at(&d, 10, 20);
    assert_int_equal(d.epoch, 5);
    known.deleted = true;
    d = decide(CURSOR_TAKE_FREE, 0, 1, &known);
    assert_at(&d, 0, 0); /* what was deleted begins anew, in an epoch that nobody had */
    assert_int_equal(d.epoch, 5);
    known.epoch = UINT64_MAX;
    assert_int_equal(decide(CURSOR_TAKE, 0, 1, &known).error, SH_CONFLICT);
}

static void test_taking_twice_is_taking_once(void **state)
{
    (void)state;
    struct view_cursor known = known_at(4, 1, 10, 20);
    struct cursor_decision d = decide(CURSOR_TAKE_FREE, 0, 1, &known);
    assert_at(&d, 10, 20);
    assert_int_equal(d.epoch, 4);
    there = position(11, 20);
    d = decide(CURSOR_TAKE, 0, 1, &known);
    assert_at(&d, 11, 20);
    assert_int_equal(d.epoch, 4);
    there = position(9, 20); /* back: only in a new one */
    d = decide(CURSOR_TAKE, 0, 1, &known);
    assert_at(&d, 9, 20);
    assert_int_equal(d.epoch, 5);
}

static void test_only_its_owner_commits_and_only_ahead(void **state)
{
    (void)state;
    struct view_cursor known = known_at(4, 1, 10, 20);
    static const struct {
        uint64_t epoch;
        uint8_t owner;
        uint64_t first, second;
        enum sh_error error;
    } cases[] = {
        {4, 1, 10, 20, SH_OK},        {4, 1, 11, 20, SH_OK},       {4, 1, 10, 21, SH_OK},
        {4, 1, 9, 21, SH_CONFLICT},   {4, 1, 11, 0, SH_CONFLICT},  {3, 1, 11, 20, SH_CONFLICT},
        {4, 2, 11, 20, SH_CONFLICT},  {3, 2, 11, 20, SH_CONFLICT}, {5, 1, 11, 20, SH_UNAVAILABLE},
        {5, 2, 1, 1, SH_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        there = position(cases[i].first, cases[i].second);
        struct cursor_decision d = decide(CURSOR_COMMIT, cases[i].epoch, cases[i].owner, &known);
        assert_int_equal(d.error, cases[i].error);
        if (d.error == SH_OK)
            assert_at(&d, cases[i].first, cases[i].second);
        if (d.error == SH_OK)
            assert_int_equal(d.epoch, 4);
    }
    struct cursor_decision d = decide(CURSOR_COMMIT, 4, 1, &known);
    assert_at(&d, 10, 20); /* stays there, and lasts longer */
    known.expires_ms = NOW - 1;
    assert_int_equal(decide(CURSOR_COMMIT, 4, 1, &known).error, SH_OK);
    known.deleted = true;
    assert_int_equal(decide(CURSOR_COMMIT, 4, 1, &known).error, SH_NOT_FOUND);
    assert_int_equal(decide(CURSOR_COMMIT, 5, 1, &known).error, SH_UNAVAILABLE);
    assert_int_equal(decide(CURSOR_COMMIT, 1, 1, NULL).error, SH_NOT_FOUND);
}

static void test_what_is_deleted_is_in_a_new_epoch(void **state)
{
    (void)state;
    struct view_cursor known = known_at(4, 1, 10, 20);
    struct cursor_decision d = decide(CURSOR_DELETE, 0, 9, &known);
    assert_at(&d, 0, 0);
    assert_int_equal(d.epoch, 5);
    assert_int_equal(decide(CURSOR_DELETE, 4, 9, &known).error, SH_OK);
    assert_int_equal(decide(CURSOR_DELETE, 3, 9, &known).error, SH_CONFLICT);
    assert_int_equal(decide(CURSOR_DELETE, 5, 9, &known).error, SH_CONFLICT);
    assert_int_equal(decide(CURSOR_DELETE, 0, 9, NULL).error, SH_NOT_FOUND);
    known = known_at(5, 9, 0, 0);
    known.deleted = true;
    assert_int_equal(decide(CURSOR_DELETE, 0, 8, &known).error, SH_NOT_FOUND);
    d = decide(CURSOR_DELETE, 0, 9, &known); /* the same request once more */
    assert_int_equal(d.error, SH_OK);
    assert_int_equal(d.epoch, 5);
}

/* ---------------------------------------------------------------- holds */

static struct cursor_wants wants;
static struct cursor_log held;

static int setup_holds(void **state)
{
    (void)state;
    held = (struct cursor_log){.log = id(1), .listed = true};
    return 0;
}

static int teardown_holds(void **state)
{
    (void)state;
    cursor_wants_clear(&wants);
    cursor_log_free(&held);
    return 0;
}

static void want(const char *name, uint64_t first, uint64_t left_ms)
{
    struct view_cursor c = known_at(1, 1, first, 5);
    c.expires_ms = NOW + left_ms;
    assert_true(cursor_wants_add(&wants, slice_str(name), &c));
}

static struct cursor_step step(bool caught_up)
{
    struct cursor_step out;
    cursor_holds_step(&held, &wants, caught_up, NOW, &out);
    return out;
}

static void assert_set(const char *name, uint64_t lsn, uint64_t ttl_ms)
{
    struct cursor_step s = step(true);
    assert_int_equal(s.kind, HOLDS_SET);
    assert_string_equal(s.name, name);
    assert_int_equal(s.lsn, lsn);
    assert_int_equal(s.ttl_ms, ttl_ms);
    cursor_log_set(&held, s.name, s.lsn, NOW + s.ttl_ms);
}

static void assert_done(void)
{
    assert_int_equal(step(true).kind, HOLDS_DONE);
}

static void test_each_cursor_holds_behind_its_position(void **state)
{
    (void)state;
    want("a", 41, 60000);
    want("b", 0, CURSOR_HOLD_MS_MAX + 1);
    assert_set("a", 42, 60000);
    assert_set("b", 1, CURSOR_HOLD_MS_MAX);
    assert_done();
    held.log = id(3); /* of which the positions know nothing */
    held.count = 0;
    assert_set("a", 1, 60000);
    assert_set("b", 1, CURSOR_HOLD_MS_MAX);
    assert_done();
}

static void test_a_hold_moves_with_its_cursor_and_is_renewed_in_time(void **state)
{
    (void)state;
    want("a", 41, 60000);
    cursor_log_set(&held, "a", 42, NOW + 30000);
    assert_done();
    cursor_log_set(&held, "a", 42, NOW + 29999);
    assert_set("a", 42, 60000);
    cursor_log_set(&held, "a", 42, NOW - 1);
    assert_set("a", 42, 60000);
    cursor_log_set(&held, "a", 30, NOW + 60000);
    assert_set("a", 42, 60000);
    cursor_log_set(&held, "a", 50, NOW + 60000); /* it was set back */
    assert_set("a", 42, 60000);
    assert_done();
}

static void test_what_is_gone_lets_go_and_what_is_not_known_stays(void **state)
{
    (void)state;
    want("b", 41, 60000);
    cursor_log_set(&held, "c", 1, NOW + 5);
    cursor_log_set(&held, "a", 1, NOW + 5);
    cursor_log_set(&held, "b", 42, NOW + 60000);
    assert_done();
    cursor_log_gone(&held, slice_str("c"));
    cursor_log_gone(&held, slice_str("never"));
    struct cursor_step s = step(true);
    assert_int_equal(s.kind, HOLDS_REMOVE);
    assert_string_equal(s.name, "c");
    cursor_log_remove(&held, "c");
    cursor_log_remove(&held, "never");
    assert_done();
    assert_int_equal(held.count, 2);
    cursor_log_gone(&held, slice_str("b")); /* and came again */
    assert_done();
}

static void test_a_view_that_is_behind_adds_holds_only(void **state)
{
    (void)state;
    want("a", 41, 60000);
    want("b", 7, 60000);
    cursor_log_set(&held, "a", 100, NOW + 5);
    cursor_log_set(&held, "c", 1, NOW + 5);
    cursor_log_gone(&held, slice_str("c"));
    struct cursor_step s = step(false);
    assert_int_equal(s.kind, HOLDS_SET);
    assert_string_equal(s.name, "b");
    cursor_log_set(&held, "b", s.lsn, NOW + s.ttl_ms);
    assert_int_equal(step(false).kind, HOLDS_DONE);
    assert_set("a", 42, 60000);
    assert_int_equal(step(true).kind, HOLDS_REMOVE);
}

static void test_what_has_expired_meanwhile_is_not_held(void **state)
{
    (void)state;
    want("a", 41, 0);
    assert_done();
    cursor_log_set(&held, "a", 42, NOW);
    assert_done();
    cursor_log_gone(&held, slice_str("a"));
    assert_int_equal(step(true).kind, HOLDS_REMOVE);
}

static void test_256_cursors_hold(void **state)
{
    (void)state;
    char name[8];
    struct view_cursor c = known_at(1, 1, 5, 0);
    for (int i = 0; i < CURSOR_HOLDS_MAX; i++) {
        snprintf(name, sizeof name, "c%03d", i);
        want(name, 1, 60000);
    }
    assert_false(cursor_wants_add(&wants, slice_str("d"), &c));
    for (int i = 0; i < CURSOR_HOLDS_MAX; i++) {
        snprintf(name, sizeof name, "c%03d", i);
        assert_set(name, 2, 60000);
    }
    assert_done();
}

int main(void)
{
#define HOLDS(name) cmocka_unit_test_setup_teardown(name, setup_holds, teardown_holds)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cursor_comes_back_as_it_was),
        cmocka_unit_test(test_epoch_then_owner_then_version_wins),
        cmocka_unit_test(test_any_order_gives_the_same_row),
        cmocka_unit_test(test_who_takes_a_new_cursor_has_its_first_epoch),
        cmocka_unit_test(test_who_takes_one_goes_on_where_it_is),
        cmocka_unit_test(test_taking_twice_is_taking_once),
        cmocka_unit_test(test_only_its_owner_commits_and_only_ahead),
        cmocka_unit_test(test_what_is_deleted_is_in_a_new_epoch),
        HOLDS(test_each_cursor_holds_behind_its_position),
        HOLDS(test_a_hold_moves_with_its_cursor_and_is_renewed_in_time),
        HOLDS(test_what_is_gone_lets_go_and_what_is_not_known_stays),
        HOLDS(test_a_view_that_is_behind_adds_holds_only),
        HOLDS(test_what_has_expired_meanwhile_is_not_held),
        HOLDS(test_256_cursors_hold),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_free(&position_bytes);
    return failed;
}
