/* The digest of a view's rows: what it depends on, and what not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "view_cursor.h"
#include "view_digest.h"
#include "view_stream.h"
#include "wal_rig.h"

static const struct view_store_options small = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};
static char dir[PATH_MAX], error[VIEW_ERROR_MAX];
static struct view_store *store;

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/shview.XXXXXX");
    assert_non_null(mkdtemp(dir));
    store = view_store_open(dir, &small, error);
    assert_non_null(store);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    view_store_close(store);
    rig_remove_dir(dir);
    return 0;
}

/* ---- rows ---- */

static void change(enum view_kind kind, const char *key, const struct buf *row)
{
    struct buf name = {0};
    view_key_row(kind, slice_str(key), &name);
    view_store_change(store, buf_slice(&name), buf_slice(row));
    assert_true(view_store_write(store, error));
    buf_free(&name);
}

/* text NULL deletes. */
static void put(const char *key, uint8_t log, uint64_t lsn, const char *text, uint64_t expires_ms)
{
    const struct view_value value = {.version = {.hlc = lsn, .log = log_of(log), .lsn = lsn},
                                     .deleted = text == NULL,
                                     .expires_ms = expires_ms,
                                     .value = slice_str(text != NULL ? text : "")};
    struct buf row = {0};
    view_value_encode(&value, &row);
    change(VIEW_KEY, key, &row);
    buf_free(&row);
}

static void add(const char *key, uint8_t log, uint64_t lsn, int64_t delta)
{
    struct buf row = {0};
    view_counter_encode_add(&(struct view_sum){log_of(log), lsn, delta}, &row);
    change(VIEW_COUNTER, key, &row);
    buf_free(&row);
}

/* Of a position that names one log. */
static void set_cursor(const char *name, uint64_t epoch, uint8_t log, uint64_t position, bool deleted)
{
    struct version_vector at = {.count = 1, .all = {{log_of(1), position}}};
    struct buf packed = {0}, row = {0};
    vector_pack(&at, &packed);
    const struct view_cursor cursor = {
        .epoch = epoch,
        .owner = log_of(9),
        .version = {.hlc = position, .log = log_of(log), .lsn = position},
        .expires_ms = 1000,
        .ttl_ms = 1000,
        .deleted = deleted,
        .position = buf_slice(&packed),
    };
    view_cursor_encode(&cursor, &row);
    change(VIEW_CURSOR, name, &row);
    buf_free(&packed);
    buf_free(&row);
}

static void apply(uint8_t log, uint64_t lsn, struct view_vector *vector)
{
    assert_int_equal(view_pass(vector, log_of(log), lsn), SH_OK);
    view_vector_store(store, vector);
    assert_true(view_store_write(store, error));
}

/* ---- digests ---- */

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static bool at_once(void *arg)
{
    (*(unsigned *)arg)++;
    return true;
}

static struct view_digest *digest_at(uint64_t at_ms)
{
    static struct view_digest out;
    assert_int_equal(view_digest_make(store, at_ms, never, NULL, &out, error), SH_OK);
    return &out;
}

static struct digest128 digest(void)
{
    return digest_at(1000)->digest;
}

static void assert_same(struct digest128 a, struct digest128 b)
{
    assert_true(digest_equal(a, b));
}

static void assert_other(struct digest128 a, struct digest128 b)
{
    assert_false(digest_equal(a, b));
}

static void anew(void)
{
    tear_down(NULL);
    set_up(NULL);
}

/* ---- tests ---- */

static void test_the_order_in_which_logs_come_makes_no_difference(void **state)
{
    (void)state;
    put("k", 1, 1, "a", 0);
    put("k", 2, 2, "b", 0);
    add("n", 1, 2, 5);
    add("n", 2, 3, 7);
    const struct digest128 first = digest();
    assert_true(view_store_flush(store, error));
    assert_same(digest(), first);
    anew();
    add("n", 2, 3, 7);
    put("k", 2, 2, "b", 0);
    assert_true(view_store_flush(store, error));
    put("k", 1, 1, "a", 0);
    add("n", 1, 2, 5);
    assert_same(digest(), first);
}

static void test_everything_that_a_row_says_counts(void **state)
{
    (void)state;
    struct digest128 seen[8];
    size_t count = 0;
    seen[count++] = digest();
    put("k", 1, 1, "a", 0);
    seen[count++] = digest();
    put("k", 1, 2, "a", 0); /* another version */
    seen[count++] = digest();
    put("k", 1, 3, "a", 5000); /* which does not last */
    seen[count++] = digest();
    add("n", 1, 4, 0);
    seen[count++] = digest();
    add("n", 1, 5, 1);
    seen[count++] = digest();
    add("n", 2, 1, -1); /* the same sum in all */
    seen[count++] = digest();
    put("n", 1, 6, "", 0);
    seen[count++] = digest();
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            assert_other(seen[i], seen[k]);
}

static void test_keys_and_values_do_not_run_into_each_other(void **state)
{
    (void)state;
    put("ab", 1, 1, "c", 0);
    const struct digest128 first = digest();
    anew();
    put("a", 1, 1, "bc", 0);
    assert_other(digest(), first);
}

static void test_what_has_gone_may_be_there_or_not(void **state)
{
    (void)state;
    put("k", 1, 1, "a", 0);
    const struct digest128 first = digest();
    put("gone", 1, 2, "x", 0);
    put("gone", 1, 3, NULL, 0);
    put("over", 1, 4, "x", 1000);
    assert_same(digest(), first);
    assert_int_equal(digest_at(1000)->kinds[0].rows, 1);
    assert_other(digest_at(999)->digest, first);
    assert_int_equal(digest_at(999)->kinds[0].rows, 2);
}

static void test_the_vector_is_said_by_log_and_does_not_count(void **state)
{
    (void)state;
    struct view_vector vector = {.count = 0};
    put("k", 1, 1, "a", 0);
    const struct digest128 first = digest();
    assert_int_equal(digest_at(0)->vector.count, 0);
    apply(9, 7, &vector);
    apply(5, 0, &vector);
    apply(3, 8, &vector);
    const struct view_digest *d = digest_at(1000);
    assert_same(d->digest, first);
    assert_int_equal(d->vector.count, 2);
    assert_true(id16_equal(d->vector.all[0].log, log_of(3)));
    assert_int_equal(d->vector.all[0].lsn, 8);
    assert_true(id16_equal(d->vector.all[1].log, log_of(9)));
    assert_int_equal(d->vector.all[1].lsn, 7);
}

static void test_each_kind_has_one_of_its_own(void **state)
{
    (void)state;
    assert_int_equal(digest_at(0)->kind_count, 0);
    add("n", 1, 1, 1);
    put("k", 1, 2, "a", 0);
    put("l", 1, 3, "a", 0);
    struct view_digest both = *digest_at(1000);
    assert_int_equal(both.kind_count, 2);
    assert_int_equal(both.kinds[0].kind, VIEW_COUNTER);
    assert_int_equal(both.kinds[0].rows, 1);
    assert_int_equal(both.kinds[1].kind, VIEW_KEY);
    assert_int_equal(both.kinds[1].rows, 2);
    put("l", 1, 4, "b", 0);
    assert_same(digest_at(1000)->kinds[0].digest, both.kinds[0].digest);
    assert_other(digest_at(1000)->kinds[1].digest, both.kinds[1].digest);
}

static void test_cursors_count_unless_they_are_deleted(void **state)
{
    (void)state;
    const struct digest128 none = digest();
    set_cursor("c", 1, 1, 3, false);
    const struct digest128 first = digest();
    assert_other(first, none);
    assert_same(digest_at(9000)->digest, first); /* it has expired, and stays */
    set_cursor("c", 1, 2, 4, false);             /* a commit */
    const struct digest128 second = digest();
    assert_other(second, first);
    set_cursor("c", 2, 1, 2, false); /* another takes it, and goes back */
    const struct digest128 third = digest();
    assert_other(third, second);
    anew();
    set_cursor("c", 2, 1, 2, false);
    set_cursor("c", 1, 2, 4, false);
    set_cursor("c", 1, 1, 3, false);
    assert_same(digest(), third);
    assert_int_equal(digest_at(0)->kind_count, 1);
    assert_int_equal(digest_at(0)->kinds[0].kind, VIEW_CURSOR);
    assert_int_equal(digest_at(0)->kinds[0].rows, 1);
    set_cursor("c", 3, 1, 5, true);
    assert_same(digest(), none);
}

/* Their numbers of arrival are this node's, and what is trimmed too. */
static void test_events_are_the_nodes_own(void **state)
{
    (void)state;
    put("k", 1, 1, "a", 0);
    const struct digest128 first = digest();
    const struct view_part part = {.log = log_of(1), .lsn = 2, .hlc = 2, .count = 1, .bytes = 1};
    struct buf key = {0}, row = {0};
    view_run_encode(&(struct view_run){.lsn = 2, .count = 1, .arrival = 1, .hlc = 2, .bytes = 1}, &row);
    view_run_key(slice_str("s"), log_of(1), 2, &key);
    view_store_put(store, buf_slice(&key), buf_slice(&row));
    row.len = 0;
    view_summary_encode_add(&part, &row);
    change(VIEW_STREAM, "s", &row);
    assert_same(digest(), first);
    buf_free(&key);
    buf_free(&row);
}

static void test_it_ends_when_it_is_told_to(void **state)
{
    (void)state;
    static struct view_digest out;
    unsigned asked = 0;
    char key[16];
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(key, sizeof key, "%u", i);
        put(key, 1, i + 1, "x", 0);
    }
    assert_int_equal(view_digest_make(store, 0, at_once, &asked, &out, error), SH_UNAVAILABLE);
    assert_int_equal(asked, 1);
    assert_int_equal(digest_at(0)->kinds[0].rows, 10000);
}

static void test_a_row_that_is_none_is_named(void **state)
{
    (void)state;
    static struct view_digest out;
    static const char *const keys[] = {"Kx", "Cx", "Mapplied"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        anew();
        view_store_put(store, slice_str(keys[i]), slice_str("nonsense"));
        assert_true(view_store_write(store, error));
        assert_int_equal(view_digest_make(store, 0, never, NULL, &out, error), SH_INTERNAL);
        assert_string_equal(error, "a row of the view is malformed");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_order_in_which_logs_come_makes_no_difference, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_everything_that_a_row_says_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_keys_and_values_do_not_run_into_each_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_has_gone_may_be_there_or_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_vector_is_said_by_log_and_does_not_count, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_each_kind_has_one_of_its_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cursors_count_unless_they_are_deleted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_events_are_the_nodes_own, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_ends_when_it_is_told_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_row_that_is_none_is_named, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
