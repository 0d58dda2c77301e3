/* Two views that are merged are the view of who has applied the entries of both, each once; and nothing of
 * the one shows in the other before all of it does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "view_import.h"
#include "view_merge_in.h"
#include "view_store_parts.h"
#include "view_stream.h"
#include "wal_rig.h"

enum { LOGS = 3, FRAMES = 60, ENTRIES = 3, KEYS = 12, ROUNDS = 25 };

static const struct view_store_options small = {.cache_bytes = 1 << 20, .write_buffer_bytes = 1 << 20};
static char dir[PATH_MAX], error[VIEW_ERROR_MAX];

struct one {
    char dir[PATH_MAX];
    struct view_store *store;
    struct view_vector vector;
};

static struct id16 log_of(size_t number)
{
    struct id16 log = {{0}};
    log.bytes[15] = (uint8_t)(number + 1);
    return log;
}

static void open_one(struct one *v, const char *name)
{
    vfs_path(v->dir, dir, name);
    v->store = view_store_open(v->dir, &small, error);
    if (v->store == NULL)
        fail_msg("%s", error);
    assert_int_not_equal(view_vector_load(v->store, &v->vector, error), VIEW_FAILED);
}

static void close_one(struct one *v)
{
    view_store_close(v->store);
    v->store = NULL;
}

static int setup(void **state)
{
    (void)state;
    rig_make_dir(dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_remove_dir(dir);
    return 0;
}

/* ---- logs ---- */

static struct buf logs[LOGS][FRAMES + 1]; /* each frame, from 1 on */

static void pack_any(msgpack_packer *pk)
{
    char key[8];
    struct entry e = {.kind = (enum entry_kind)(ENTRY_EVENT + rand() % 4)};
    snprintf(key, sizeof key, "k%d", rand() % KEYS);
    e.key = slice_str(key);
    if (e.kind == ENTRY_EVENT)
        e.stream = e.value = slice_str(rand() % 2 > 0 ? "one" : "other");
    if (e.kind == ENTRY_PUT)
        e.value = slice_str(key);
    if (e.kind == ENTRY_ADD)
        e.delta = rand() % 100;
    entry_pack(pk, &e);
}

static void make_frame(size_t log, uint64_t number)
{
    struct buf *out = &logs[log][number], body = {0};
    uint8_t header[FRAME_HEADER_BYTES];
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, ENTRIES);
    for (int i = 0; i < ENTRIES; i++)
        pack_any(&pk);
    struct frame_header h = {.kind = FRAME_DATA,
                             .body_bytes = (uint32_t)body.len,
                             .base_lsn = (number - 1) * ENTRIES + 1,
                             .count = ENTRIES,
                             .hlc = number * 100 + (uint64_t)rand() % 100};
    frame_encode(&h, 0, buf_slice(&body), header);
    out->len = 0;
    buf_append(out, header, sizeof header);
    buf_append(out, body.data, body.len);
    buf_free(&body);
}

static void make_logs(void)
{
    for (size_t log = 0; log < LOGS; log++)
        for (uint64_t i = 1; i <= FRAMES; i++)
            make_frame(log, i);
}

static void free_logs(void)
{
    for (size_t log = 0; log < LOGS; log++)
        for (uint64_t i = 1; i <= FRAMES; i++)
            buf_free(&logs[log][i]);
}

/* Up to and with that frame, what is applied already left out. */
static void apply_to(struct one *v, size_t log, uint64_t last)
{
    const struct view_place *place = view_place_of(&v->vector, log_of(log));
    for (uint64_t i = (place != NULL ? place->lsn : 0) / ENTRIES + 1; i <= last; i++) {
        assert_int_equal(view_apply(v->store, &v->vector, log_of(log), buf_slice(&logs[log][i])), SH_OK);
        view_vector_store(v->store, &v->vector);
        assert_true(view_store_write(v->store, error));
    }
}

static void apply_some(struct one *v)
{
    for (size_t log = 0; log < LOGS; log++) {
        const struct view_place *place = view_place_of(&v->vector, log_of(log));
        uint64_t done = (place != NULL ? place->lsn : 0) / ENTRIES;
        apply_to(v, log, done + (uint64_t)rand() % (FRAMES - done + 1));
    }
}

/* ---- rows ---- */

/* A tombstone is as good as nothing. */
static bool is_row(struct slice key, struct slice row)
{
    struct view_value value;
    return key.data[0] != VIEW_META &&
           (key.data[0] != VIEW_KEY || (view_value_decode(row, &value) && !value.deleted));
}

static void assert_equal_parts(struct slice a, struct slice b)
{
    struct view_summary of_a, of_b;
    struct view_part part_a, part_b;
    assert_int_equal(a.len, b.len);
    assert_true(view_summary_open(a, &of_a));
    while (view_summary_next(&of_a, &part_a)) {
        assert_true(view_summary_open(b, &of_b));
        while (view_summary_next(&of_b, &part_b) && !id16_equal(part_a.log, part_b.log))
            ;
        assert_memory_equal(&part_a, &part_b, sizeof part_a);
    }
}

static void assert_equal_rows(struct one *a, struct one *b)
{
    struct view_scan *of_a = view_scan_open(a->store, (struct slice){0}, (struct slice){0});
    struct view_scan *of_b = view_scan_open(b->store, (struct slice){0}, (struct slice){0});
    struct slice key_a, row_a, key_b, row_b;
    size_t rows = 0;
    for (;; rows++) {
        bool has_a, has_b;
        do
            has_a = view_scan_next(of_a, &key_a, &row_a, error);
        while (has_a && !is_row(key_a, row_a));
        do
            has_b = view_scan_next(of_b, &key_b, &row_b, error);
        while (has_b && !is_row(key_b, row_b));
        assert_int_equal(has_a, has_b);
        if (!has_a)
            break;
        assert_true(slice_equal(key_a, key_b));
        if (key_a.data[0] == VIEW_EVENT) { /* each view numbers them by itself */
            struct view_run run_a, run_b;
            assert_true(view_run_decode(row_a, &run_a) && view_run_decode(row_b, &run_b));
            assert_int_equal(run_a.count, run_b.count);
            assert_int_equal(run_a.hlc, run_b.hlc);
            assert_true(run_a.arrival < a->vector.arrivals && run_b.arrival < b->vector.arrivals);
        } else if (key_a.data[0] == VIEW_STREAM) {
            assert_equal_parts(row_a, row_b);
        } else if (key_a.data[0] == VIEW_COUNTER) { /* in whatever order its sums stand */
            int64_t total_a, total_b;
            assert_true(view_counter_total(row_a, &total_a) && view_counter_total(row_b, &total_b));
            assert_int_equal(total_a, total_b);
        } else {
            assert_true(slice_equal(row_a, row_b));
        }
    }
    assert_true(rows > 0);
    view_scan_close(of_a);
    view_scan_close(of_b);
}

/* ---- a transfer ---- */

struct transfer {
    struct view_store *copy;
    struct one *to;
    struct view_scan *own;
    struct view_import *import;
    struct merge_in in;
};

static bool take(void *arg, struct slice key, struct slice change)
{
    struct transfer *t = arg;
    return view_import_add(t->import, t->to->store, key, change, error);
}

static bool next_own(void *arg, struct slice *key, struct slice *row)
{
    struct transfer *t = arg;
    return view_scan_next(t->own, key, row, error);
}

static void begin_transfer(struct transfer *t, struct one *from, struct one *to)
{
    char path[PATH_MAX];
    *t = (struct transfer){.to = to};
    vfs_path(path, dir, "out");
    if (!view_store_copy(from->store, path, error))
        fail_msg("%s", error);
    t->copy = view_store_open_copy(path, &small, error);
    assert_non_null(t->copy);
    assert_int_equal(view_vector_load(t->copy, &t->in.theirs, error), VIEW_FOUND);
    t->in.arrivals = to->vector.arrivals;
    to->vector.arrivals += t->in.theirs.arrivals;
    vfs_path(path, dir, "in");
    t->import = view_import_open(vfs_posix(), path, error);
    assert_non_null(t->import);
}

static unsigned fetch(struct transfer *t)
{
    const struct merge_in_ends ends = {&t->to->vector, next_own, take, t};
    struct buf rows = {0}, from = {0};
    unsigned pieces = 0;
    bool more = true;
    while (more) {
        assert_true(view_export_piece(t->copy, buf_slice(&t->in.last), &rows, &more, error));
        from.len = 0;
        view_behind(buf_slice(&t->in.last), &from);
        t->own = view_scan_open(t->to->store, buf_slice(&from), (struct slice){0});
        assert_int_equal(merge_in_piece(&t->in, &ends, buf_slice(&rows), more), SH_OK);
        view_scan_close(t->own);
        pieces++;
    }
    buf_free(&rows);
    buf_free(&from);
    return pieces;
}

static void end_transfer(struct transfer *t)
{
    char path[PATH_MAX];
    vfs_path(path, dir, "out");
    view_import_close(t->import);
    view_store_close(t->copy);
    assert_true(view_folder_remove(vfs_posix(), path));
    merge_in_free(&t->in);
}

static void install(struct transfer *t, struct one *to)
{
    assert_int_equal(merge_in_vector(&to->vector, &t->in.theirs), SH_OK);
    if (!view_import_install(t->import, to->store, &to->vector, error))
        fail_msg("%s", error);
}

/* Each has applied some of each log; the receiver goes on while rows come, some of which it overtakes. */
static void merge_two(unsigned seed)
{
    struct one from, to, all;
    struct transfer t;
    srand(seed);
    make_logs();
    open_one(&from, "from");
    open_one(&to, "to");
    open_one(&all, "all");
    apply_some(&from);
    apply_some(&to);
    begin_transfer(&t, &from, &to);
    apply_some(&from); /* too late for this copy */
    if (rand() % 2 > 0)
        apply_some(&to);
    fetch(&t);
    if (rand() % 2 > 0)
        apply_some(&to);
    install(&t, &to);
    for (size_t log = 0; log < LOGS; log++)
        apply_to(&all, log, view_place_of(&to.vector, log_of(log))->lsn / ENTRIES);
    assert_equal_rows(&to, &all);
    end_transfer(&t);
    close_one(&to);
    open_one(&to, "to"); /* the vector is on disk, with the rows */
    assert_true(view_is_compared(to.store));
    assert_equal_rows(&to, &all);
    for (size_t log = 0; log < LOGS; log++) {
        apply_to(&to, log, FRAMES); /* the logs go on behind it */
        apply_to(&all, log, FRAMES);
    }
    assert_equal_rows(&to, &all);
    close_one(&from);
    close_one(&to);
    close_one(&all);
    free_logs();
}

static void test_each_entry_counts_once(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        merge_two(seed + round);
        teardown(state);
        setup(state);
    }
}

/* Tombstones go when all members have applied what is older; then one of them loses its view. */
static void drop_tombstones(struct one *v)
{
    struct view_scan *scan = view_scan_open(v->store, (struct slice){0}, (struct slice){0});
    struct slice key, row;
    struct view_value value;
    char *message = NULL;
    while (view_scan_next(scan, &key, &row, error))
        if (key.data[0] == VIEW_KEY && view_value_decode(row, &value) && value.deleted)
            rocksdb_delete(v->store->db, v->store->write, (const char *)key.data, key.len, &message);
    assert_null(message);
    view_scan_close(scan);
}

static void merge_with_dropped(unsigned seed)
{
    struct one from, to, all;
    struct transfer t;
    srand(seed);
    make_logs();
    open_one(&from, "from");
    open_one(&to, "to");
    open_one(&all, "all");
    for (size_t log = 0; log < LOGS; log++) {
        apply_to(&from, log, FRAMES / 2);
        apply_to(&to, log, (uint64_t)rand() % FRAMES / (rand() % 2 > 0 ? 1 : 2));
    }
    drop_tombstones(&from);
    begin_transfer(&t, &from, &to);
    fetch(&t);
    install(&t, &to);
    end_transfer(&t);
    for (size_t log = 0; log < LOGS; log++) {
        uint64_t done = view_place_of(&to.vector, log_of(log))->lsn / ENTRIES;
        apply_to(&from, log, done);
        apply_to(&all, log, done);
    }
    assert_equal_rows(&from, &all);
    assert_equal_rows(&to, &all);
    close_one(&from);
    close_one(&to);
    close_one(&all);
    free_logs();
}

static void test_what_was_deleted_does_not_come_back(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        merge_with_dropped(seed + round);
        teardown(state);
        setup(state);
    }
}

static void test_nothing_shows_before_all_of_it_does(void **state)
{
    (void)state;
    struct one from, to;
    struct transfer t;
    srand(1);
    make_logs();
    open_one(&from, "from");
    open_one(&to, "to");
    apply_to(&from, 0, FRAMES);
    begin_transfer(&t, &from, &to);
    fetch(&t);
    struct view_scan *before = view_scan_open(to.store, (struct slice){0}, (struct slice){0});
    install(&t, &to);
    struct slice key, value;
    assert_false(view_scan_next(before, &key, &value, error)); /* as it was when it was opened */
    view_scan_close(before);
    assert_equal_rows(&to, &from);
    end_transfer(&t);
    close_one(&from);
    close_one(&to);
    free_logs();
}

static void put_large(struct one *v, unsigned count, size_t value_bytes)
{
    char *value = xcalloc(1, value_bytes);
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        struct buf row = {0};
        snprintf(key, sizeof key, "Kk%06u", i);
        random_bytes(value, value_bytes);
        view_value_encode(
            &(struct view_value){.version = {1, log_of(0), i + 1}, .value = slice_of(value, value_bytes)},
            &row);
        view_store_change(v->store, slice_str(key), buf_slice(&row));
        buf_free(&row);
    }
    *view_place_add(&v->vector, log_of(0)) =
        (struct view_place){.log = log_of(0), .lsn = count, .checksum = 1};
    view_vector_store(v->store, &v->vector);
    assert_true(view_store_write(v->store, error));
    free(value);
}

static void test_many_rows_come_in_several_pieces_and_files(void **state)
{
    (void)state;
    struct one from, to;
    struct transfer t;
    open_one(&from, "from");
    open_one(&to, "to");
    put_large(&from, 40, 1 << 20);
    begin_transfer(&t, &from, &to);
    assert_int_equal(fetch(&t), 40); /* a row that is larger than a piece is one */
    assert_true(view_import_bytes(t.import) > 40 << 20);
    install(&t, &to);
    assert_equal_rows(&to, &from);
    end_transfer(&t);
    close_one(&from);
    close_one(&to);
}

static void test_an_empty_view_can_be_merged_too(void **state)
{
    (void)state;
    struct one from, to;
    struct transfer t;
    srand(2);
    make_logs();
    open_one(&from, "from");
    open_one(&to, "to");
    apply_to(&to, 1, FRAMES);
    view_vector_store(from.store, &from.vector);
    assert_true(view_store_write(from.store, error));
    begin_transfer(&t, &from, &to);
    assert_int_equal(fetch(&t), 1);
    install(&t, &to);
    assert_int_equal(view_place_of(&to.vector, log_of(1))->lsn, FRAMES * ENTRIES);
    end_transfer(&t);
    close_one(&from);
    close_one(&to);
    free_logs();
}

static void test_what_was_left_in_the_folder_is_removed(void **state)
{
    (void)state;
    char path[PATH_MAX], file[PATH_MAX];
    vfs_path(path, dir, "in");
    assert_int_equal(mkdir(path, 0700), 0);
    vfs_path(file, path, "0.sst");
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    fclose(out);
    struct view_import *import = view_import_open(vfs_posix(), path, error);
    assert_non_null(import);
    assert_int_equal(access(file, F_OK), -1);
    view_import_close(import);
    assert_int_equal(access(path, F_OK), -1);
    assert_null(view_import_open(vfs_posix(), "/proc/nowhere/in", error));
    assert_true(strlen(error) > 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_each_entry_counts_once),
        TEST(test_what_was_deleted_does_not_come_back),
        TEST(test_nothing_shows_before_all_of_it_does),
        TEST(test_many_rows_come_in_several_pieces_and_files),
        TEST(test_an_empty_view_can_be_merged_too),
        TEST(test_what_was_left_in_the_folder_is_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
