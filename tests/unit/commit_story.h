/* What the tests of the committer share: a log on the real disk with its committer and preparer, calls that
 * can fail, and what comes from the threads. */
#ifndef TESTS_COMMIT_STORY_H
#define TESTS_COMMIT_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "failpoint.h"
#include "log.h"
#include "log_verify.h"
#include "segment_index.h"
#include "wal_commit.h"
#include "wal_rig.h"

enum { SEGMENT = 256 << 10, WAIT_S = 20 };

/* What comes from the threads, for the test's thread. */
static pthread_mutex_t inbox_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t inbox_wake = PTHREAD_COND_INITIALIZER;
static struct wal_durable inbox_durable;
static enum wal_next inbox_next;
static bool has_durable, has_next;
static uint64_t groups;

static struct wal_rig rig; /* its core decides; the committer writes */
static struct wal_prepare *prepare;
static struct wal_commit *commit;
static char data[PATH_MAX];
static struct vfs faulty;
static _Atomic int64_t fail_pwritev_at, fail_fdatasync_at, room_bytes, disk_bytes, slow_us, marks_refused;
static atomic_bool mark_full, quick_disk; /* quick: nothing is synced, the kernel has it */
static uint64_t disk_reserve;

static inline void on_durable(void *arg, const struct wal_durable *durable, bool idle)
{
    (void)arg;
    (void)idle;
    pthread_mutex_lock(&inbox_lock);
    assert_true(durable->lsn >= inbox_durable.lsn && durable->end > inbox_durable.end);
    inbox_durable = *durable;
    has_durable = true;
    groups++;
    pthread_cond_signal(&inbox_wake);
    pthread_mutex_unlock(&inbox_lock);
}

static inline void on_next(void *arg, enum wal_next next)
{
    (void)arg;
    pthread_mutex_lock(&inbox_lock);
    inbox_next = next;
    has_next = true;
    pthread_cond_signal(&inbox_wake);
    pthread_mutex_unlock(&inbox_lock);
}

/* Hands the core what has come, waiting for something for a bounded time; false: nothing came. */
static inline bool take_mail(int64_t wait_ns)
{
    struct timespec due;
    clock_gettime(CLOCK_REALTIME, &due);
    int64_t due_ns = (int64_t)due.tv_sec * NS_PER_S + due.tv_nsec + wait_ns;
    due = (struct timespec){due_ns / NS_PER_S, due_ns % NS_PER_S};
    pthread_mutex_lock(&inbox_lock);
    while (!has_durable && !has_next && pthread_cond_timedwait(&inbox_wake, &inbox_lock, &due) != ETIMEDOUT)
        continue;
    bool durable = has_durable, next = has_next;
    struct wal_durable d = inbox_durable;
    enum wal_next n = inbox_next;
    has_durable = has_next = false;
    pthread_mutex_unlock(&inbox_lock);
    if (durable)
        wal_core_durable(rig.core, &d);
    if (next)
        wal_core_next_segment(rig.core, n, clock_real_ns());
    return durable || next;
}

static inline int faulty_fdatasync(const struct vfs *fs, int fd)
{
    (void)fs;
    if (atomic_fetch_sub(&fail_fdatasync_at, 1) == 1)
        return -EIO;
    return atomic_load(&quick_disk) ? 0 : vfs_posix()->fdatasync(vfs_posix(), fd);
}

static inline ssize_t faulty_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count,
                                     int64_t offset)
{
    (void)fs;
    if (atomic_fetch_sub(&fail_pwritev_at, 1) == 1)
        return -EIO;
    if (atomic_load(&mark_full) && count == 1 && iov[0].iov_len == MARK_SLOT_BYTES) {
        atomic_fetch_add(&marks_refused, 1);
        return -ENOSPC;
    }
    usleep((useconds_t)atomic_load(&slow_us));
    int some = count > 7 ? 7 : count; /* short writes are no failures */
    return vfs_posix()->pwritev(vfs_posix(), fd, iov, some, offset);
}

static inline int faulty_free_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs, (void)path;
    *bytes = (uint64_t)atomic_load(&room_bytes);
    return 0;
}

static inline int faulty_total_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs, (void)path;
    *bytes = (uint64_t)atomic_load(&disk_bytes);
    return 0;
}

/* The file's bytes are free again. */
static inline int faulty_unlink(const struct vfs *fs, const char *path)
{
    (void)fs;
    int result = vfs_posix()->unlink(vfs_posix(), path);
    if (result == 0)
        atomic_fetch_add(&room_bytes, SEGMENT);
    return result;
}

static inline void start(void)
{
    pthread_mutex_lock(&inbox_lock);
    has_durable = has_next = false;
    inbox_durable = rig.log.durable;
    groups = 0;
    pthread_mutex_unlock(&inbox_lock);
    struct wal_prepare_options p = {.fs = &faulty,
                                    .dir = rig.dir.log,
                                    .log = rig.dir.identity.log,
                                    .segment_size = SEGMENT,
                                    .disk_reserve = disk_reserve,
                                    .retry_ns = 20 * NS_PER_MS,
                                    .on_next = on_next};
    prepare = wal_prepare_start(&p);
    struct wal_commit_options c = {.log = &rig.log, .prepare = prepare, .on_durable = on_durable};
    commit = wal_commit_start(&c);
}

static inline void stop(void)
{
    wal_commit_stop(commit);
    wal_prepare_stop(prepare);
}

static inline int setup(void **state)
{
    (void)state;
    faulty = *vfs_posix();
    faulty.fdatasync = faulty_fdatasync;
    faulty.pwritev = faulty_pwritev;
    faulty.free_bytes = faulty_free_bytes;
    faulty.total_bytes = faulty_total_bytes;
    faulty.unlink = faulty_unlink;
    mark_full = quick_disk = false;
    marks_refused = 0;
    disk_bytes = INT64_C(1) << 41;
    disk_reserve = 0;
    fail_fdatasync_at = fail_pwritev_at = slow_us = 0;
    room_bytes = INT64_C(1) << 40;
    rig_make_dir(data);
    assert_int_equal(rig_open(&rig, &faulty, data, SEGMENT), EXIT_DONE);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    if (rig.opened)
        rig_kill(&rig);
    rig_remove_dir(data);
    return 0;
}

static inline void put(void)
{
    if (rig.first != NULL)
        wal_commit_put(commit, rig.first);
    rig.first = NULL;
    rig.last = &rig.first;
}

/* The way of a service's loop: a single small frame is committed here if the committer lets it. */
static inline bool commit_now(void)
{
    struct wal_durable durable;
    assert_non_null(rig.first);
    bool done = wal_commit_now(commit, rig.first, &durable);
    if (!done)
        return false;
    rig.first = NULL;
    rig.last = &rig.first;
    wal_core_durable(rig.core, &durable);
    return true;
}

static inline void wait_for_answer(uint64_t request)
{
    while (rig.answers[request].times == 0) {
        bool came = take_mail((int64_t)WAIT_S * NS_PER_S);
        assert_true(came);
        put();
    }
}

static inline struct slice payload_of(uint64_t n)
{
    static uint8_t bytes[700];
    memset(bytes, (int)n, sizeof bytes);
    memcpy(bytes, &n, sizeof n);
    return slice_of(bytes, 200 + n % 500);
}

static inline void append_and_wait(uint64_t n)
{
    uint64_t request = rig_append(&rig, 7, 1, n, payload_of(n));
    put();
    wait_for_answer(request);
}

static inline void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    uint64_t *seen = arg;
    assert_int_equal(lsn, *seen + 1);
    assert_true(slice_equal(entry->value, payload_of(lsn)));
    *seen = lsn;
}

static inline void assert_log_holds(uint64_t entries)
{
    uint64_t seen = 0;
    assert_int_equal(rig_open(&rig, &faulty, data, SEGMENT), EXIT_DONE);
    assert_int_equal(rig_read_all(vfs_posix(), data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_int_equal(seen, entries);
}

#define COMMIT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
