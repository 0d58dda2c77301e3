/* querysvc's readers: how many there are and what they hold is bounded, whatever is read; and what it asks
 * the folder about the log costs the same whatever the number of segments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hlc.h"
#include "log.h"
#include "query.h"
#include "wal_rig.h"

enum { SEGMENT = 4 << 20, LARGE = 900 << 10, LARGE_FRAMES = 20, SMALL_FRAMES = 2000 };

static char data[PATH_MAX];
static struct wal_rig rig;
static struct vfs fs;
static int open_files, most_open, opens;

static int counting_open(const struct vfs *self, const char *path, int flags, mode_t mode)
{
    (void)self;
    int fd = vfs_posix()->open(vfs_posix(), path, flags, mode);
    opens++;
    open_files += fd >= 0;
    most_open = open_files > most_open ? open_files : most_open;
    return fd;
}

static int counting_close(const struct vfs *self, int fd)
{
    (void)self;
    open_files--;
    return vfs_posix()->close(vfs_posix(), fd);
}

static void append(size_t bytes, unsigned frames)
{
    uint8_t *payload = xcalloc(1, bytes);
    for (unsigned i = 0; i < frames; i++) {
        rig.now_ns += NS_PER_MS;
        rig_append(&rig, 0, 1, 0, slice_of(payload, bytes));
        assert_true(rig_commit(&rig));
    }
    free(payload);
}

/* LSN n is frame n: some small ones, large ones over several segments, and small ones again. */
static int setup(void **state)
{
    (void)state;
    fs = *vfs_posix();
    fs.open = counting_open;
    fs.close = counting_close;
    rig_make_dir(data);
    assert_int_equal(rig_open(&rig, vfs_posix(), data, SEGMENT), EXIT_DONE);
    rig.now_ns = INT64_C(1790000000) * NS_PER_S;
    assert_true(rig_prepare(&rig));
    append(100, SMALL_FRAMES);
    append(LARGE, LARGE_FRAMES);
    append(100, SMALL_FRAMES);
    open_files = most_open = opens = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_kill(&rig);
    rig_remove_dir(data);
    return 0;
}

static void open_pool(struct reader_pool *pool, size_t readers, size_t bytes)
{
    char root[PATH_MAX];
    vfs_path(root, data, "log");
    reader_pool_open(pool, &fs, root, readers, bytes);
}

static enum sh_error read_at(struct reader_pool *pool, uint64_t from, uint64_t *next)
{
    struct buf out = {0};
    struct log_read read = {
        .from = from, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = UINT64_MAX};
    enum sh_error e = reader_pool_read(pool, rig.dir.identity.log, &read, &out);
    if (e == SH_OK)
        assert_true(out.len > 0);
    *next = read.next;
    buf_free(&out);
    return e;
}

static void test_readers_and_their_memory_are_bounded(void **state)
{
    (void)state;
    enum { READERS = 3, BYTES = 400 << 10 };
    uint64_t next, last = rig.log.durable.lsn;
    struct reader_pool pool;
    open_pool(&pool, READERS, BYTES);
    for (unsigned i = 0; i < 400; i++) { /* as if many clients read, each elsewhere */
        uint64_t from = i % 3 == 0 ? SMALL_FRAMES + 1 + i % LARGE_FRAMES : 1 + i * 7919 % last;
        assert_int_equal(read_at(&pool, from, &next), SH_OK);
        assert_int_equal(next, from + 1);
        assert_true(reader_pool_bytes(&pool) <= READERS * BYTES);
    }
    assert_true(most_open <= READERS + 1); /* one is opened while another is looked at */
    assert_true(reader_pool_bytes(&pool) > 0);
    reader_pool_close(&pool);
    assert_int_equal(open_files, 0);
}

static void test_reading_on_costs_no_seek(void **state)
{
    (void)state;
    struct reader_pool pool;
    uint64_t a = 1, b = 500, c = 1000;
    open_pool(&pool, 3, 1 << 20);
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(read_at(&pool, a, &a), SH_OK);
        assert_int_equal(read_at(&pool, b, &b), SH_OK);
        assert_int_equal(read_at(&pool, c, &c), SH_OK);
    }
    assert_true(opens <= 3 * 3);
    int before = opens;
    assert_int_equal(read_at(&pool, 300, &b), SH_OK); /* takes the place of a, that was idle for longest */
    assert_int_equal(read_at(&pool, c, &c), SH_OK);
    assert_int_equal(read_at(&pool, 600, &b), SH_OK);
    int after = opens;
    assert_true(after > before);
    assert_int_equal(read_at(&pool, a, &a), SH_OK);
    assert_true(opens > after);
    reader_pool_close(&pool);
}

/* Its slots are all there are, whatever log is read: the copy of a log, here a folder that links to the same
 * files, under a name of its own. */
static void test_readers_move_between_logs(void **state)
{
    (void)state;
    struct reader_pool pool;
    struct id16 other = id16_random();
    struct buf out = {0};
    char dir[PATH_MAX];
    open_pool(&pool, 2, 400 << 10);
    reader_pool_dir(&pool, other, dir);
    assert_int_equal(symlink(rig.dir.log, dir), 0);
    for (uint64_t lsn = 1; lsn <= 20; lsn++) {
        struct log_read read = {
            .from = lsn, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
        out.len = 0;
        assert_int_equal(reader_pool_read(&pool, rig.dir.identity.log, &read, &out), SH_OK);
        assert_int_equal(read.next, lsn + 1);
        /* its files are of another log, which must be noticed */
        assert_int_equal(reader_pool_read(&pool, other, &read, &out), SH_CORRUPT);
        assert_true(open_files <= 2 && reader_pool_bytes(&pool) <= 2 * (400 << 10));
    }
    reader_pool_close(&pool);
    assert_int_equal(open_files, 0);
    assert_int_equal(unlink(dir), 0);
    buf_free(&out);
}

/* A file that was trimmed takes room on the disk for as long as somebody has it open. */
static void test_idle_readers_let_go_of_trimmed_files(void **state)
{
    (void)state;
    struct reader_pool pool;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint64_t next;
    open_pool(&pool, 3, 1 << 20);
    assert_int_equal(read_at(&pool, 1, &next), SH_OK);
    assert_int_equal(read_at(&pool, rig.log.durable.lsn, &next), SH_OK);
    assert_int_equal(open_files, 2);
    segment_name(1, name);
    vfs_path(path, rig.dir.log, name);
    assert_int_equal(fs.unlink(&fs, path), 0);
    reader_pool_tidy(&pool); /* until now they were in use */
    assert_int_equal(open_files, 2);
    reader_pool_tidy(&pool);
    assert_int_equal(open_files, 1);
    assert_int_equal(read_at(&pool, 2, &next), SH_TRIMMED);
    reader_pool_close(&pool);
}

static void test_a_search_by_time_uses_the_pool(void **state)
{
    (void)state;
    struct reader_pool pool;
    open_pool(&pool, 2, 300 << 10);
    for (uint64_t lsn = 1; lsn <= rig.log.durable.lsn; lsn += 37) {
        struct log_time search = {.log = rig.dir.identity.log,
                                  .hlc = hlc_of_ms(INT64_C(1790000000000) + (int64_t)lsn),
                                  .durable_end = rig.log.durable.end,
                                  .most_bytes = UINT64_MAX};
        assert_int_equal(reader_pool_find_time(&pool, &search), SH_OK);
        assert_true(search.found);
        assert_int_equal(search.from, lsn);
        assert_true(reader_pool_bytes(&pool) <= 2 * (300 << 10));
    }
    assert_true(most_open <= 3);
    reader_pool_close(&pool);
    assert_int_equal(open_files, 0);
}

static void test_the_extent_of_the_log_costs_two_opens(void **state)
{
    (void)state;
    struct log_extent extent;
    struct log_segment *segments;
    size_t count;
    uint64_t bytes = 0;
    char bad[SEGMENT_NAME_MAX], path[PATH_MAX], name[SEGMENT_NAME_MAX];
    assert_int_equal(log_extent_read(&fs, rig.dir.log, rig.dir.identity.log, &extent), SH_OK);
    assert_int_equal(opens, 2);
    assert_int_equal(log_list_segments(&fs, rig.dir.log, rig.dir.identity.log, &segments, &count, bad),
                     SH_OK);
    for (size_t i = 0; i < count; i++)
        bytes += segments[i].file_bytes;
    assert_true(count > 4);
    assert_int_equal(extent.segments, count);
    assert_int_equal(extent.first_lsn, 1);
    assert_int_equal(extent.disk_bytes, bytes);
    segment_name(1, name);
    vfs_path(path, rig.dir.log, name);
    int fd = fs.open(&fs, path, O_WRONLY, 0);
    assert_int_equal(vfs_write_all(&fs, fd, "X", 1, 0), 0);
    fs.close(&fs, fd);
    assert_int_equal(log_extent_read(&fs, rig.dir.log, rig.dir.identity.log, &extent), SH_OK);
    assert_int_equal(extent.segments, count);
    free(segments);
}

#define READERS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        READERS_TEST(test_readers_and_their_memory_are_bounded),
        READERS_TEST(test_reading_on_costs_no_seek),
        READERS_TEST(test_readers_move_between_logs),
        READERS_TEST(test_idle_readers_let_go_of_trimmed_files),
        READERS_TEST(test_a_search_by_time_uses_the_pool),
        READERS_TEST(test_the_extent_of_the_log_costs_two_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
