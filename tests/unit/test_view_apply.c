/* The view on disk: frames become rows, each entry once, whatever is killed when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frame.h"
#include "hlc.h"
#include "view_apply.h"
#include "view_cursor.h"
#include "wal_rig.h"

static const struct view_store_options small = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};
static char dir[PATH_MAX], error[VIEW_ERROR_MAX];
static struct view_store *store;
static struct view_vector vector;

/* ---- frames ---- */

static struct id16 log_of(uint8_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = number;
    return log;
}

/* What one append writes; entries are added to body before. */
static void frame(struct buf *out, uint64_t base_lsn, uint32_t count, uint64_t hlc, struct buf *body)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_header h = {.kind = FRAME_DATA,
                             .body_bytes = (uint32_t)body->len,
                             .base_lsn = base_lsn,
                             .count = count,
                             .hlc = hlc};
    frame_encode(&h, 0, buf_slice(body), header);
    buf_append(out, header, sizeof header);
    buf_append(out, body->data, body->len);
    body->len = 0;
}

static void begin(struct buf *body, msgpack_packer *pk, uint32_t count)
{
    body->len = 0;
    mp_packer(pk, body);
    msgpack_pack_array(pk, count);
}

static void put(msgpack_packer *pk, const char *key, const char *value, uint64_t ttl_ms)
{
    const struct entry e = {
        .kind = ENTRY_PUT, .key = slice_str(key), .value = slice_str(value), .ttl_ms = ttl_ms};
    entry_pack(pk, &e);
}

static void delete (msgpack_packer *pk, const char *key)
{
    const struct entry e = {.kind = ENTRY_DELETE, .key = slice_str(key)};
    entry_pack(pk, &e);
}

static void add(msgpack_packer *pk, const char *key, int64_t delta)
{
    const struct entry e = {.kind = ENTRY_ADD, .key = slice_str(key), .delta = delta};
    entry_pack(pk, &e);
}

/* A frame of one put. */
static void put_frame(struct buf *out, uint64_t lsn, uint64_t hlc, const char *key, const char *value)
{
    struct buf body = {0};
    msgpack_packer pk;
    begin(&body, &pk, 1);
    put(&pk, key, value, 0);
    frame(out, lsn, 1, hlc, &body);
    buf_free(&body);
}

static void add_frame(struct buf *out, uint64_t lsn, const char *key, int64_t delta)
{
    struct buf body = {0};
    msgpack_packer pk;
    begin(&body, &pk, 1);
    add(&pk, key, delta);
    frame(out, lsn, 1, lsn, &body);
    buf_free(&body);
}

static enum sh_error apply(uint8_t log, struct buf *frames)
{
    enum sh_error e = view_apply(store, &vector, log_of(log), buf_slice(frames));
    view_vector_store(store, &vector);
    assert_true(view_store_write(store, error));
    frames->len = 0;
    return e;
}

/* ---- rows ---- */

static enum view_found get(enum view_kind kind, const char *key, struct buf *row)
{
    struct buf name = {0};
    row->len = 0;
    view_key_row(kind, slice_str(key), &name);
    enum view_found found = view_store_get(store, buf_slice(&name), row, error);
    buf_free(&name);
    return found;
}

/* text NULL: deleted, or never there. */
static struct view_value assert_key(const char *key, const char *text)
{
    static struct buf row;
    struct view_value v = {.deleted = true};
    enum view_found found = get(VIEW_KEY, key, &row);
    assert_int_not_equal(found, VIEW_FAILED);
    if (found == VIEW_FOUND)
        assert_true(view_value_decode(buf_slice(&row), &v));
    assert_int_equal(v.deleted, text == NULL);
    if (text != NULL)
        assert_true(slice_is(v.value, text));
    v.value = (struct slice){0};
    buf_free(&row);
    return v;
}

static void assert_counter(const char *key, int64_t want)
{
    struct buf row = {0};
    int64_t total;
    assert_int_equal(get(VIEW_COUNTER, key, &row), VIEW_FOUND);
    assert_true(view_counter_total(buf_slice(&row), &total));
    assert_int_equal(total, want);
    buf_free(&row);
}

/* ---- the store ---- */

static void open_view(void)
{
    store = view_store_open(dir, &small, error);
    if (store == NULL)
        fail_msg("%s", error);
    assert_int_not_equal(view_vector_load(store, &vector, error), VIEW_FAILED);
}

static int setup(void **state)
{
    (void)state;
    rig_make_dir(dir);
    open_view();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (store != NULL)
        view_store_close(store);
    store = NULL;
    rig_remove_dir(dir);
    return 0;
}

static void test_a_frame_is_applied_with_its_versions(void **state)
{
    (void)state;
    struct buf body = {0}, frames = {0};
    msgpack_packer pk;
    begin(&body, &pk, 6);
    put(&pk, "a", "1", 0);
    put(&pk, "b", "2", 500);
    delete (&pk, "c");
    add(&pk, "n", -3);
    put(&pk, "d", "3", INT64_MAX - 10000);
    put(&pk, "e", "4", INT64_MAX - 9999);
    frame(&frames, 1, 6, hlc_of_ms(10000), &body);
    assert_int_equal(apply(1, &frames), SH_OK);
    assert_int_equal(assert_key("a", "1").version.lsn, 1);
    struct view_value b = assert_key("b", "2");
    assert_int_equal(b.version.lsn, 2);
    assert_int_equal(b.version.hlc, hlc_of_ms(10000));
    assert_int_equal(b.expires_ms, 10500);
    assert_int_equal(assert_key("d", "3").expires_ms, INT64_MAX);
    assert_int_equal(assert_key("e", "4").expires_ms, 0);
    assert_key("c", NULL);
    assert_key("never", NULL);
    assert_counter("n", -3);
    assert_int_equal(view_place_of(&vector, log_of(1))->lsn, 6);
    assert_null(view_place_of(&vector, log_of(2)));
    assert_int_equal(view_vector_hlc(&vector), hlc_of_ms(10000));
    buf_free(&body);
    buf_free(&frames);
}

static void test_what_is_applied_is_passed_over(void **state)
{
    (void)state;
    struct buf frames = {0};
    add_frame(&frames, 1, "n", 5);
    assert_int_equal(apply(1, &frames), SH_OK);
    add_frame(&frames, 1, "n", 5);
    add_frame(&frames, 2, "n", 1);
    assert_int_equal(apply(1, &frames), SH_OK);
    assert_counter("n", 6);
    buf_free(&frames);
}

static void set_cursor(msgpack_packer *pk, uint64_t epoch, bool deleted)
{
    const struct entry e = {.kind = ENTRY_CURSOR,
                            .key = slice_str("c"),
                            .value = slice_str("\x90"),
                            .ttl_ms = 500,
                            .epoch = epoch,
                            .owner = log_of(9),
                            .deleted = deleted};
    entry_pack(pk, &e);
}

static void test_a_cursor_is_where_its_highest_epoch_has_it(void **state)
{
    (void)state;
    struct buf body = {0}, frames = {0}, row = {0};
    struct view_cursor c;
    msgpack_packer pk;
    uint64_t before = vector.cursors;
    begin(&body, &pk, 3);
    set_cursor(&pk, 2, false);
    set_cursor(&pk, 1, true);
    put(&pk, "c", "a key", 0);
    frame(&frames, 1, 3, hlc_of_ms(10000), &body);
    assert_int_equal(apply(1, &frames), SH_OK);
    assert_int_equal(vector.cursors, before + 2);
    assert_int_equal(get(VIEW_CURSOR, "c", &row), VIEW_FOUND);
    assert_true(view_cursor_decode(buf_slice(&row), &c));
    assert_int_equal(c.epoch, 2);
    assert_false(c.deleted);
    assert_true(id16_equal(c.owner, log_of(9)));
    assert_int_equal(c.version.lsn, 1);
    assert_int_equal(c.version.hlc, hlc_of_ms(10000));
    assert_int_equal(c.expires_ms, 10500);
    assert_true(slice_is(c.position, "\x90"));
    assert_key("c", "a key");
    buf_free(&body);
    buf_free(&frames);
    buf_free(&row);
}

static void test_a_gap_is_refused(void **state)
{
    (void)state;
    struct buf frames = {0};
    put_frame(&frames, 1, 1, "k", "one");
    put_frame(&frames, 3, 3, "k", "three");
    assert_int_equal(apply(1, &frames), SH_CORRUPT);
    assert_key("k", "one");
    assert_int_equal(view_place_of(&vector, log_of(1))->lsn, 1);
    buf_append(&frames, "not a frame at all", 18);
    assert_int_equal(apply(1, &frames), SH_CORRUPT);
    buf_free(&frames);
}

static void test_an_unknown_kind_stops_the_log_before_its_frame(void **state)
{
    (void)state;
    struct buf body = {0}, frames = {0};
    msgpack_packer pk;
    put_frame(&frames, 1, 1, "k", "one");
    begin(&body, &pk, 2);
    put(&pk, "k", "two", 0);
    msgpack_pack_array(&pk, 2);
    msgpack_pack_uint64(&pk, 99);
    msgpack_pack_nil(&pk);
    frame(&frames, 2, 2, 2, &body);
    put_frame(&frames, 4, 4, "k", "four");
    assert_int_equal(apply(1, &frames), SH_VERSION_MISMATCH);
    assert_key("k", "one");
    assert_int_equal(view_place_of(&vector, log_of(1))->lsn, 1);
    put_frame(&frames, 1, 9, "k", "of another log");
    assert_int_equal(apply(2, &frames), SH_OK);
    assert_key("k", "of another log");
    buf_free(&body);
    buf_free(&frames);
}

static void test_there_is_a_limit_to_logs(void **state)
{
    (void)state;
    struct buf frames = {0};
    put_frame(&frames, 1, 1, "k", "v");
    for (int i = 0; i < VIEW_LOGS_MAX; i++) {
        struct id16 log = log_of((uint8_t)i);
        log.bytes[0] = 1;
        assert_int_equal(view_apply(store, &vector, log, buf_slice(&frames)), SH_OK);
    }
    assert_int_equal(view_apply(store, &vector, log_of(1), buf_slice(&frames)), SH_OVERLOADED);
    view_store_forget(store);
    assert_key("k", NULL);
    buf_free(&frames);
}

static void test_all_of_it_is_there_after_a_clean_end(void **state)
{
    (void)state;
    struct buf frames = {0};
    put_frame(&frames, 1, 1, "k", "v");
    add_frame(&frames, 2, "n", 7);
    apply(3, &frames);
    view_store_close(store);
    open_view();
    assert_int_equal(view_place_of(&vector, log_of(3))->lsn, 2);
    assert_key("k", "v");
    assert_counter("n", 7);
    buf_free(&frames);
}

static void test_whether_there_are_counters_is_known(void **state)
{
    (void)state;
    struct buf frames = {0};
    put_frame(&frames, 1, 1, "k", "v");
    apply(3, &frames);
    assert_false(view_store_has_counters(store));
    view_store_close(store);
    open_view();
    assert_false(view_store_has_counters(store));
    frames.len = 0;
    add_frame(&frames, 2, "n", 7);
    apply(3, &frames);
    assert_true(view_store_has_counters(store));
    view_store_close(store);
    open_view();
    assert_true(view_store_has_counters(store));
    buf_free(&frames);
}

/* Writes frames in a process that is killed, some of them behind the last flush. (Another program: the
 * database's threads do not survive a fork.) */
static void write_and_die(uint64_t first, uint64_t flushed, uint64_t last)
{
    struct buf frames = {0};
    open_view();
    for (uint64_t lsn = first; lsn <= last; lsn++) {
        add_frame(&frames, lsn, "n", 1);
        apply(1, &frames);
        if (lsn == flushed)
            view_store_flush(store, error);
    }
    raise(SIGKILL);
}

static void test_a_kill_takes_rows_and_vector_together(void **state)
{
    (void)state;
    view_store_close(store);
    for (uint64_t life = 0; life < 3; life++) {
        struct buf frames = {0};
        uint64_t first = life * 20 + 1;
        int status;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            char from[24];
            snprintf(from, sizeof from, "%llu", (unsigned long long)first);
            execl("/proc/self/exe", "test_view_apply", dir, from, NULL);
            _exit(1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        open_view();
        uint64_t lsn = view_place_of(&vector, log_of(1))->lsn;
        assert_int_equal(lsn, first + 9); /* what was flushed, and no more was */
        assert_counter("n", (int64_t)lsn);
        for (lsn++; lsn <= first + 19; lsn++)
            add_frame(&frames, lsn, "n", 1);
        assert_int_equal(apply(1, &frames), SH_OK);
        assert_counter("n", (int64_t)first + 19);
        view_store_close(store);
        buf_free(&frames);
    }
    store = NULL;
}

static void test_a_scan_goes_over_the_keys_in_order(void **state)
{
    (void)state;
    struct buf frames = {0}, to = {0};
    const char *keys[] = {"b", "a/2", "a/1", "a0", "a/\xff", "a"};
    for (uint64_t i = 0; i < 6; i++)
        put_frame(&frames, i + 1, i + 1, keys[i], keys[i]);
    apply(1, &frames);
    view_prefix_end(slice_str("Ka/"), &to);
    struct view_scan *scan = view_scan_open(store, slice_str("Ka/"), buf_slice(&to));
    struct slice key, row;
    const char *expected[] = {"Ka/1", "Ka/2", "Ka/\xff"};
    for (size_t i = 0; i < 3; i++) {
        assert_true(view_scan_next(scan, &key, &row, error));
        assert_true(slice_is(key, expected[i]));
    }
    assert_false(view_scan_next(scan, &key, &row, error));
    assert_string_equal(error, "");
    view_scan_close(scan);
    buf_free(&frames);
    buf_free(&to);
}

static void test_several_rows_are_found_at_once(void **state)
{
    (void)state;
    struct buf frames = {0};
    struct view_rows rows;
    struct slice row, keys[VIEW_ROWS_MAX];
    char names[VIEW_ROWS_MAX][8];
    struct view_value value;
    for (unsigned i = 0; i < VIEW_ROWS_MAX; i++) { /* every third is there, some of them on disk */
        snprintf(names[i], sizeof names[i], "Kk%u", VIEW_ROWS_MAX - i);
        keys[i] = slice_str(names[i]);
        if (i % 3 == 0)
            put_frame(&frames, i / 3 + 1, i + 1, names[i] + 1, names[i]);
        if (i == VIEW_ROWS_MAX / 2) {
            apply(1, &frames);
            assert_true(view_store_flush(store, error));
        }
    }
    apply(1, &frames);
    assert_true(view_store_get_many(store, keys, VIEW_ROWS_MAX, &rows, error));
    assert_string_equal(error, "");
    for (unsigned i = 0; i < VIEW_ROWS_MAX; i++) {
        assert_int_equal(view_rows_at(&rows, i, &row), i % 3 == 0);
        if (i % 3 == 0)
            assert_true(view_value_decode(row, &value) && slice_is(value.value, names[i]));
    }
    view_rows_free(&rows);
    view_rows_free(&rows);
    assert_true(view_store_get_many(store, keys, 1, &rows, error));
    assert_true(view_rows_at(&rows, 0, &row));
    view_rows_free(&rows);
    buf_free(&frames);
}

static void test_what_was_forgotten_is_not_written(void **state)
{
    (void)state;
    const struct view_value value = {.version = {1, log_of(1), 1}, .value = slice_str("v")};
    struct buf row = {0};
    view_value_encode(&value, &row);
    view_store_change(store, slice_str("Kforgotten"), buf_slice(&row));
    view_store_forget(store);
    view_store_change(store, slice_str("Kkept"), buf_slice(&row));
    assert_true(view_store_write(store, error));
    assert_key("forgotten", NULL);
    assert_key("kept", "v");
    buf_free(&row);
}

static void test_changes_and_a_deletion_of_one_batch_keep_their_order(void **state)
{
    (void)state;
    const struct view_value value = {.version = {1, log_of(1), 1}, .value = slice_str("v")};
    struct buf row = {0};
    view_value_encode(&value, &row);
    view_store_change(store, slice_str("Kgone"), buf_slice(&row));
    view_store_delete(store, slice_str("Kgone"));
    view_store_delete(store, slice_str("Knew"));
    view_store_change(store, slice_str("Knew"), buf_slice(&row));
    assert_true(view_store_write(store, error));
    assert_key("gone", NULL);
    assert_key("new", "v");
    buf_free(&row);
}

static void test_a_prefix_ends_where_the_next_one_begins(void **state)
{
    (void)state;
    struct buf end = {0};
    view_prefix_end(slice_str("ab"), &end);
    assert_true(slice_is(buf_slice(&end), "ac"));
    end.len = 0;
    view_prefix_end(slice_str("a\xff\xff"), &end);
    assert_true(slice_is(buf_slice(&end), "b"));
    end.len = 0;
    view_prefix_end(slice_str("\xff\xff"), &end);
    assert_int_equal(end.len, 0);
    buf_free(&end);
}

static void test_a_folder_that_cannot_be_opened_is_named(void **state)
{
    (void)state;
    assert_null(view_store_open("/proc/nowhere/view", &small, error));
    assert_true(strlen(error) > 0);
    assert_null(view_store_open(dir, &small, error)); /* in use */
    assert_true(strlen(error) > 0);
}

static void test_a_malformed_vector_is_named(void **state)
{
    (void)state;
    view_store_put(store, slice_str("Mapplied"), slice_str("?"));
    assert_true(view_store_write(store, error));
    assert_int_equal(view_vector_load(store, &vector, error), VIEW_FAILED);
    assert_string_equal(error, "the applied version vector is malformed");
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        uint64_t first = strtoull(argv[2], NULL, 10);
        snprintf(dir, sizeof dir, "%s", argv[1]);
        write_and_die(first, first + 9, first + 14);
    }
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_frame_is_applied_with_its_versions),
        TEST(test_what_is_applied_is_passed_over),
        TEST(test_a_cursor_is_where_its_highest_epoch_has_it),
        TEST(test_a_gap_is_refused),
        TEST(test_an_unknown_kind_stops_the_log_before_its_frame),
        TEST(test_there_is_a_limit_to_logs),
        TEST(test_whether_there_are_counters_is_known),
        TEST(test_all_of_it_is_there_after_a_clean_end),
        TEST(test_a_kill_takes_rows_and_vector_together),
        TEST(test_a_scan_goes_over_the_keys_in_order),
        TEST(test_several_rows_are_found_at_once),
        TEST(test_what_was_forgotten_is_not_written),
        TEST(test_changes_and_a_deletion_of_one_batch_keep_their_order),
        TEST(test_a_prefix_ends_where_the_next_one_begins),
        TEST(test_a_folder_that_cannot_be_opened_is_named),
        TEST(test_a_malformed_vector_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
