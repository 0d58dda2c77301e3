/* The real file system behind struct vfs: short transfers, whole ones, replaced files, locks, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "descriptors.h"
#include "log_reader.h"
#include "wal_rig.h"

static char dir[PATH_MAX];

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

static int open_file(const char *name, int flags)
{
    char path[PATH_MAX];
    vfs_path(path, dir, name);
    return vfs_posix()->open(vfs_posix(), path, flags, 0640);
}

/* At most three bytes at a time. */
static ssize_t drip_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count, int64_t offset)
{
    (void)fs, (void)count;
    struct iovec first = {iov[0].iov_base, iov[0].iov_len < 3 ? iov[0].iov_len : 3};
    return vfs_posix()->pwritev(vfs_posix(), fd, &first, 1, offset);
}

static ssize_t drip_pread(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset)
{
    (void)fs;
    return vfs_posix()->pread(vfs_posix(), fd, out, len < 5 ? len : 5, offset);
}

static ssize_t no_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count, int64_t offset)
{
    (void)fs, (void)fd, (void)iov, (void)count, (void)offset;
    return 0;
}

static void test_short_transfers_are_completed(void **state)
{
    (void)state;
    struct vfs drip = *vfs_posix();
    drip.pwritev = drip_pwritev;
    drip.pread = drip_pread;
    int fd = open_file("f", O_RDWR | O_CREAT);
    assert_true(fd >= 0);
    struct iovec iov[] = {{"", 0}, {"abcd", 4}, {"", 0}, {"efghijk", 7}, {"l", 1}, {"", 0}};
    assert_int_equal(vfs_writev_all(&drip, fd, iov, 6, 2), 0);
    char out[32];
    assert_int_equal(vfs_read_full(&drip, fd, out, sizeof out, 0), 14);
    assert_memory_equal(out, "\0\0abcdefghijkl", 14);
    assert_int_equal(vfs_read_full(&drip, fd, out, 4, 10), 4);
    assert_int_equal(vfs_read_full(&drip, fd, out, 4, 100), 0);
    vfs_posix()->close(vfs_posix(), fd);
}

static void test_a_write_that_makes_no_progress_is_an_error(void **state)
{
    (void)state;
    struct vfs none = *vfs_posix();
    none.pwritev = no_pwritev;
    assert_int_equal(vfs_write_all(&none, 0, "abc", 3, 0), -EIO);
    assert_int_equal(vfs_write_all(&none, 0, "", 0, 0), 0);
}

static void test_more_vectors_than_a_call_takes(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    static struct iovec iov[COUNT];
    static char out[COUNT];
    for (unsigned i = 0; i < COUNT; i++)
        iov[i] = (struct iovec){"x", 1};
    int fd = open_file("f", O_RDWR | O_CREAT);
    assert_int_equal(vfs_writev_all(vfs_posix(), fd, iov, COUNT, 0), 0);
    assert_int_equal(vfs_read_full(vfs_posix(), fd, out, COUNT, 0), COUNT);
    vfs_posix()->close(vfs_posix(), fd);
}

static bool note_name(void *arg, const char *name)
{
    char *names = arg;
    strncat(names, name, 64);
    return true;
}

static void test_errors_are_negative_errno(void **state)
{
    (void)state;
    const struct vfs *fs = vfs_posix();
    char path[PATH_MAX], names[256] = "";
    int64_t size;
    vfs_path(path, dir, "none");
    assert_int_equal(fs->open(fs, path, O_RDONLY, 0), -ENOENT);
    assert_int_equal(fs->unlink(fs, path), -ENOENT);
    assert_int_equal(fs->rename(fs, path, path), -ENOENT);
    assert_int_equal(fs->mkdir(fs, dir, 0700), -EEXIST);
    assert_int_equal(fs->rmdir(fs, path), -ENOENT);
    assert_int_equal(fs->list(fs, path, note_name, names), -ENOENT);
    assert_int_equal(fs->sync_dir(fs, path), -ENOENT);
    assert_int_equal(fs->size(fs, -1, &size), -EBADF);
    assert_int_equal(fs->fdatasync(fs, -1), -EBADF);
    assert_int_equal(fs->close(fs, -1), -EBADF);
    assert_string_equal(names, "");
}

static void test_only_an_empty_folder_is_removed(void **state)
{
    (void)state;
    const struct vfs *fs = vfs_posix();
    char folder[PATH_MAX], file[PATH_MAX], names[256] = "";
    vfs_path(folder, dir, "folder");
    assert_int_equal(fs->mkdir(fs, folder, 0700), 0);
    assert_int_equal(vfs_replace_file(fs, folder, "f", "value", 5), 0);
    assert_int_equal(fs->rmdir(fs, folder), -ENOTEMPTY);
    vfs_path(file, folder, "f");
    assert_int_equal(fs->unlink(fs, file), 0);
    assert_int_equal(fs->rmdir(fs, folder), 0);
    assert_int_equal(fs->list(fs, folder, note_name, names), -ENOENT);
}

static void test_a_file_is_replaced_as_a_whole(void **state)
{
    (void)state;
    char out[16] = {0}, names[256] = "";
    assert_int_equal(vfs_replace_file(vfs_posix(), dir, "f", "first value", 11), 0);
    assert_int_equal(vfs_replace_file(vfs_posix(), dir, "f", "second", 6), 0);
    int fd = open_file("f", O_RDONLY);
    assert_int_equal(vfs_read_full(vfs_posix(), fd, out, sizeof out, 0), 6);
    assert_string_equal(out, "second");
    vfs_posix()->close(vfs_posix(), fd);
    vfs_posix()->list(vfs_posix(), dir, note_name, names);
    assert_string_equal(names, "f");
    assert_int_equal(vfs_replace_file(vfs_posix(), "/nowhere", "f", "x", 1), -ENOENT);
}

static void test_a_lock_is_held_once(void **state)
{
    (void)state;
    const struct vfs *fs = vfs_posix();
    int a = open_file("lock", O_RDWR | O_CREAT), b = open_file("lock", O_RDWR | O_CREAT);
    assert_int_equal(fs->lock(fs, a), 0);
    assert_int_equal(fs->lock(fs, b), -EWOULDBLOCK);
    fs->close(fs, a);
    assert_int_equal(fs->lock(fs, b), 0);
    fs->close(fs, b);
}

static void test_a_data_directory_in_use_is_refused(void **state)
{
    (void)state;
    struct wal_dir first, second;
    assert_int_equal(wal_dir_open(&first, vfs_posix(), dir, "n1"), EXIT_DONE);
    assert_int_equal(wal_dir_open(&second, vfs_posix(), dir, "n1"), EXIT_IN_USE);
    wal_dir_close(&first);
    assert_int_equal(wal_dir_open(&second, vfs_posix(), dir, "n1"), EXIT_DONE);
    wal_dir_close(&second);
}

static void test_identity_round_trip(void **state)
{
    (void)state;
    struct node_identity in = {.log = id16_random()}, out;
    assert_int_equal(node_identity_read(vfs_posix(), dir, &out), SH_NOT_FOUND);
    memset(in.node, 'n', sizeof in.node - 1);
    assert_int_equal(node_identity_write(vfs_posix(), dir, &in), 0);
    assert_int_equal(node_identity_read(vfs_posix(), dir, &out), SH_OK);
    assert_memory_equal(&in, &out, sizeof in);
    static const char *const bad[] = {"", "shanghai node 1\n",
                                      "shanghai node 1\nnode n1\nlog x\nchecksum 00000000\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(vfs_replace_file(vfs_posix(), dir, "node", bad[i], strlen(bad[i])), 0);
        assert_int_equal(node_identity_read(vfs_posix(), dir, &out), SH_CORRUPT);
    }
}

#define VFS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

static bool stop_at_once(void *arg, const char *name)
{
    (void)arg, (void)name;
    return false;
}

static rlim_t soft_limit(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    return limit.rlim_cur;
}

/* As when strangers' connections have taken them. */
static void test_files_have_a_reserve_of_descriptors(void **state)
{
    (void)state;
    enum { CONNECTIONS = 10, HELD_MAX = 1000 };
    static int held[HELD_MAX];
    unsigned count = 0;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    descriptors_limit(CONNECTIONS);
    rlim_t soft = soft_limit();
    while ((held[count] = open("/", O_PATH | O_CLOEXEC)) >= 0)
        assert_true(++count < HELD_MAX);
    assert_true(count >= CONNECTIONS);
    assert_int_equal(errno, EMFILE);
    int file = open_file("reserve", O_RDWR | O_CREAT);
    assert_true(file >= 0);
    assert_int_equal(open_file("absent", O_RDWR), -ENOENT);
    assert_int_equal(vfs_replace_file(vfs_posix(), dir, "small", "x", 1), 0);
    assert_int_equal(vfs_posix()->list(vfs_posix(), dir, stop_at_once, NULL), 0);
    assert_int_equal(soft_limit(), soft);
    assert_int_equal(open("/", O_PATH | O_CLOEXEC), -1); /* for nobody else */
    vfs_posix()->close(vfs_posix(), file);
    while (count > 0)
        close(held[--count]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        VFS_TEST(test_short_transfers_are_completed),
        VFS_TEST(test_a_write_that_makes_no_progress_is_an_error),
        VFS_TEST(test_more_vectors_than_a_call_takes),
        VFS_TEST(test_errors_are_negative_errno),
        VFS_TEST(test_only_an_empty_folder_is_removed),
        VFS_TEST(test_a_file_is_replaced_as_a_whole),
        VFS_TEST(test_a_lock_is_held_once),
        VFS_TEST(test_a_data_directory_in_use_is_refused),
        VFS_TEST(test_identity_round_trip),
        VFS_TEST(test_files_have_a_reserve_of_descriptors), /* last: it changes the limits */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
