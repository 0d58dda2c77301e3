/* The committer and the preparer with their threads, on the real disk: order, durability, rolls, the idle
 * mark, borrowed bytes, and the end of the process when a write or a sync fails. */
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
static atomic_bool mark_full;
static uint64_t disk_reserve;

static void on_durable(void *arg, const struct wal_durable *durable, bool idle)
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

static void on_next(void *arg, enum wal_next next)
{
    (void)arg;
    pthread_mutex_lock(&inbox_lock);
    inbox_next = next;
    has_next = true;
    pthread_cond_signal(&inbox_wake);
    pthread_mutex_unlock(&inbox_lock);
}

/* Hands the core what has come, waiting for something for a bounded time; false: nothing came. */
static bool take_mail(int64_t wait_ns)
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

static int faulty_fdatasync(const struct vfs *fs, int fd)
{
    (void)fs;
    return atomic_fetch_sub(&fail_fdatasync_at, 1) == 1 ? -EIO : vfs_posix()->fdatasync(vfs_posix(), fd);
}

static ssize_t faulty_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count,
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

static int faulty_free_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs, (void)path;
    *bytes = (uint64_t)atomic_load(&room_bytes);
    return 0;
}

static int faulty_total_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs, (void)path;
    *bytes = (uint64_t)atomic_load(&disk_bytes);
    return 0;
}

/* The file's bytes are free again. */
static int faulty_unlink(const struct vfs *fs, const char *path)
{
    (void)fs;
    int result = vfs_posix()->unlink(vfs_posix(), path);
    if (result == 0)
        atomic_fetch_add(&room_bytes, SEGMENT);
    return result;
}

static void start(void)
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

static void stop(void)
{
    wal_commit_stop(commit);
    wal_prepare_stop(prepare);
}

static int setup(void **state)
{
    (void)state;
    faulty = *vfs_posix();
    faulty.fdatasync = faulty_fdatasync;
    faulty.pwritev = faulty_pwritev;
    faulty.free_bytes = faulty_free_bytes;
    faulty.total_bytes = faulty_total_bytes;
    faulty.unlink = faulty_unlink;
    mark_full = false;
    marks_refused = 0;
    disk_bytes = INT64_C(1) << 41;
    disk_reserve = 0;
    fail_fdatasync_at = fail_pwritev_at = slow_us = 0;
    room_bytes = INT64_C(1) << 40;
    rig_make_dir(data);
    assert_int_equal(rig_open(&rig, &faulty, data, SEGMENT), EXIT_DONE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (rig.opened)
        rig_kill(&rig);
    rig_remove_dir(data);
    return 0;
}

static void put(void)
{
    if (rig.first != NULL)
        wal_commit_put(commit, rig.first);
    rig.first = NULL;
    rig.last = &rig.first;
}

/* The way of a service's loop: a single small frame is committed here if the committer lets it. */
static bool commit_now(void)
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

static void wait_for_answer(uint64_t request)
{
    while (rig.answers[request].times == 0) {
        bool came = take_mail((int64_t)WAIT_S * NS_PER_S);
        assert_true(came);
        put();
    }
}

static struct slice payload_of(uint64_t n)
{
    static uint8_t bytes[700];
    memset(bytes, (int)n, sizeof bytes);
    memcpy(bytes, &n, sizeof n);
    return slice_of(bytes, 200 + n % 500);
}

static void append_and_wait(uint64_t n)
{
    uint64_t request = rig_append(&rig, 7, 1, n, payload_of(n));
    put();
    wait_for_answer(request);
}

static void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    uint64_t *seen = arg;
    assert_int_equal(lsn, *seen + 1);
    assert_true(slice_equal(entry->value, payload_of(lsn)));
    *seen = lsn;
}

static void assert_log_holds(uint64_t entries)
{
    uint64_t seen = 0;
    assert_int_equal(rig_open(&rig, &faulty, data, SEGMENT), EXIT_DONE);
    assert_int_equal(rig_read_all(vfs_posix(), data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_int_equal(seen, entries);
}

/* ---------------------------------------------------------------- */

static void append_mixed(uint64_t n, uint64_t *now)
{
    uint64_t request = rig_append(&rig, 7, 1, n, payload_of(n));
    if (n % 4 != 0 && rig.first != NULL && commit_now()) {
        assert_int_equal(rig.answers[request].times, 1);
        ++*now;
        return;
    }
    put();
    if (n % 4 == 0) /* the next one meets a committer at work, or one that has just become idle */
        return;
    wait_for_answer(request);
}

static void test_commits_by_the_caller_and_by_the_committer_mix(void **state)
{
    (void)state;
    uint64_t now = 0;
    start();
    for (uint64_t n = 1; n <= 2000; n++) {
        append_mixed(n, &now);
        while (take_mail(0))
            put();
    }
    wait_for_answer(2000);
    assert_true(now > 100);
    assert_true(rig.log.segment.base_lsn > 1);
    stop();
    rig_kill(&rig);
    assert_log_holds(2000);
}

static void test_the_caller_commits_no_more_than_one_small_frame(void **state)
{
    (void)state;
    static uint8_t large[40 << 10];
    start();
    append_and_wait(1);
    rig_append(&rig, 7, 1, 2, payload_of(2));
    rig_append(&rig, 7, 1, 3, payload_of(3));
    assert_false(commit_now()); /* two */
    put();
    wait_for_answer(3);
    rig_append(&rig, 7, 1, 4, slice_of(large, sizeof large));
    assert_false(commit_now()); /* a large one */
    put();
    wait_for_answer(4);
    stop();
}

/* A disk that takes long keeps the committer's thread, not the loop's. */
static void test_the_caller_leaves_a_slow_disk_to_the_committer(void **state)
{
    (void)state;
    start();
    append_and_wait(1);
    slow_us = 5000;
    rig_append(&rig, 7, 1, 2, payload_of(2));
    if (!commit_now()) /* it can't know yet */
        put();
    wait_for_answer(2);
    rig_append(&rig, 7, 1, 3, payload_of(3));
    assert_false(commit_now());
    put();
    wait_for_answer(3);
    stop();
}

static void test_the_caller_leaves_a_commit_with_a_delay_to_the_committer(void **state)
{
    (void)state;
    start();
    append_and_wait(1);
    wal_commit_set_delay(commit, NS_PER_MS);
    rig_append(&rig, 7, 1, 2, payload_of(2));
    assert_false(commit_now());
    put();
    wait_for_answer(2);
    stop();
}

/* Commits by the caller never wake the committer's thread; its wait for the mark's time may end in the middle
 * of one. */
static void test_the_mark_follows_many_commits_by_the_caller(void **state)
{
    (void)state;
    uint64_t n = 1;
    start();
    append_and_wait(n);
    slow_us = 700;
    for (int64_t until = clock_mono_ns() + 400 * NS_PER_MS; clock_mono_ns() < until;) {
        n++;
        rig_append(&rig, 7, 1, n, payload_of(n));
        if (commit_now())
            continue;
        put();
        wait_for_answer(n);
    }
    struct log_mark mark = {0};
    int64_t end = clock_mono_ns() + 5 * NS_PER_S;
    while (mark.durable_end != rig.log.durable.end && clock_mono_ns() < end)
        assert_int_equal(log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_int_equal(mark.durable_end, rig.log.durable.end);
    stop();
}

/* The mark is written 100 ms after the last commit, whoever made it. */
static void test_the_mark_follows_a_commit_by_the_caller(void **state)
{
    (void)state;
    start();
    for (uint64_t n = 1;; n++) {
        rig_append(&rig, 7, 1, n, payload_of(n));
        if (commit_now())
            break;
        put();
        wait_for_answer(n);
    }
    int64_t end = clock_mono_ns() + WAIT_S * NS_PER_S;
    struct log_mark mark = {0};
    while (mark.durable_end != rig.log.durable.end && clock_mono_ns() < end)
        assert_int_equal(log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_int_equal(mark.durable_end, rig.log.durable.end);
    stop();
}

/* Else nobody would miss the newest segment if its file were gone after a kill. */
static void test_the_mark_names_a_new_segment_at_once(void **state)
{
    (void)state;
    start();
    uint64_t n = 0;
    while (rig.log.segment.base_lsn == 1)
        append_and_wait(++n);
    struct log_mark mark;
    assert_int_equal(log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_true(mark.durable_end > rig.log.segment.position);
    stop();
}

static void test_many_groups_over_many_segments(void **state)
{
    (void)state;
    start();
    for (uint64_t n = 1; n <= 5000; n++) {
        rig_append(&rig, 7, 1, n, payload_of(n));
        if (n % 3 == 0)
            put();
        while (take_mail(0))
            put();
        if (n % 500 == 0) { /* a slow disk must not fill the queue */
            put();
            wait_for_answer(n);
        }
    }
    for (uint64_t n = 1; n <= 5000; n++) {
        assert_int_equal(rig.answers[n].times, 1);
        assert_int_equal(rig.answers[n].code, SH_OK);
        assert_int_equal(rig.answers[n].reply.lsn, n);
    }
    assert_true(rig.log.segment.base_lsn > 1);
    stop();
    rig_kill(&rig);
    struct log_verify_options options = {0};
    struct log_verify_report report;
    assert_int_equal(log_verify(vfs_posix(), data, &options, &report), SH_OK);
    assert_int_equal(report.entries, 5000);
    assert_int_equal(report.unsynced_bytes, 0); /* the mark was written at the stop */
    assert_true(report.segments > 5);
    struct log_segment *segments;
    size_t count;
    char bad[SEGMENT_NAME_MAX];
    assert_int_equal(
        log_list_segments(vfs_posix(), rig.dir.log, rig.dir.identity.log, &segments, &count, bad), SH_OK);
    for (size_t i = 0; i + 1 < count; i++) /* sealed: cut to its end */
        assert_int_equal(segments[i].position + segments[i].file_bytes, segments[i + 1].position);
    free(segments);
    assert_log_holds(5000);
}

/* Waits until each segment but the newest has its index. */
static void wait_for_indexes(size_t *count)
{
    uint64_t *bases;
    assert_int_equal(segment_list(&faulty, rig.dir.log, &bases, count), 0);
    for (size_t i = 0; i + 1 < *count; i++) {
        struct segment_index index;
        enum sh_error error = SH_NOT_FOUND;
        for (unsigned wait = 0; wait < WAIT_S * 1000 && error != SH_OK; wait++) {
            error = segment_index_read(&faulty, rig.dir.log, rig.dir.identity.log, bases[i], &index);
            if (error != SH_OK)
                usleep(1000);
        }
        assert_int_equal(error, SH_OK);
        assert_int_equal(index.next_lsn, bases[i + 1]);
        segment_index_free(&index);
    }
    free(bases);
}

static void remove_index(const char *name)
{
    char path[PATH_MAX];
    vfs_path(path, rig.dir.log, name);
    assert_int_equal(unlink(path), 0);
}

static void test_sealed_segments_get_their_index_now_or_after_the_next_start(void **state)
{
    (void)state;
    size_t count = 0;
    start();
    for (uint64_t n = 1; count < 4; n++) {
        append_and_wait(n);
        if (n % 100 == 0)
            wait_for_indexes(&count);
    }
    stop();
    rig_kill(&rig);
    remove_index("00000000000000000001.idx");
    assert_int_equal(rig_open(&rig, &faulty, data, SEGMENT), EXIT_DONE);
    start();
    wait_for_indexes(&count);
    stop();
}

static void test_what_waits_goes_out_in_one_group(void **state)
{
    (void)state;
    start();
    for (uint64_t n = 1; n <= 200; n++) /* over the number of vectors in a write too, with short writes */
        rig_append(&rig, 0, 1, 0, slice_str("x"));
    put();
    wait_for_answer(200);
    stop();
    assert_int_equal(groups, 1);
    assert_int_equal(rig.answers[1].times, 1);
}

static void test_a_quiet_log_gets_its_mark_and_stays_quiet(void **state)
{
    (void)state;
    start();
    append_and_wait(1);
    struct log_mark mark;
    int64_t give_up_ns = clock_mono_ns() + (int64_t)WAIT_S * NS_PER_S;
    do {
        assert_int_equal(log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
        assert_true(clock_mono_ns() < give_up_ns);
        usleep(1000);
    } while (mark.durable_lsn != 1);
    uint64_t counter = mark.counter;
    assert_int_equal(mark.durable_end, inbox_durable.end);
    stop();
    assert_int_equal(log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_int_equal(mark.counter, counter); /* nothing new, nothing written */
}

/* A session goes while its frames wait or are being written: its bytes must not be touched afterwards. */
static void test_bytes_of_a_dropped_session_are_not_needed_any_more(void **state)
{
    (void)state;
    start();
    atomic_store(&slow_us, 500);
    uint64_t last = 0;
    for (uint64_t n = 1; n <= 100; n++) {
        last = rig_append(&rig, 0, 1, 0, payload_of(n));
        put();
        usleep(200); /* any moment of the committer's work */
        if (n % 4 == 0) {
            wal_commit_detach(commit, 1);
            for (uint64_t i = n - 3; i <= n; i++)
                memset(rig.bodies[i].data, 0xdd, rig.bodies[i].len);
        }
        while (take_mail(0))
            put();
    }
    wait_for_answer(last);
    stop();
    rig_kill(&rig);
    assert_log_holds(100);
}

static void test_delay_gathers_a_group(void **state)
{
    (void)state;
    start();
    wal_commit_set_delay(commit, 50 * NS_PER_MS);
    uint64_t last = 0;
    for (uint64_t n = 1; n <= 10; n++) {
        last = rig_append(&rig, 0, 1, 0, payload_of(n));
        put();
    }
    wait_for_answer(last);
    stop();
    assert_true(groups <= 2);
}

static void test_a_full_disk_is_told_and_heals(void **state)
{
    (void)state;
    atomic_store(&room_bytes, SEGMENT / 2);
    start();
    uint64_t n = 1, number;
    do {
        number = rig_append(&rig, 7, 1, n, payload_of(n));
        put();
        wait_for_answer(number);
        n++;
    } while (rig.answers[number].code == SH_OK);
    assert_int_equal(rig.answers[number].code, SH_DISK_FULL);
    n--;
    atomic_store(&room_bytes, INT64_C(1) << 40);
    do { /* by itself */
        assert_true(take_mail((int64_t)WAIT_S * NS_PER_S));
        number = rig_append(&rig, 7, 1, n, payload_of(n));
        put();
        wait_for_answer(number);
    } while (rig.answers[number].code == SH_DISK_FULL);
    assert_int_equal(rig.answers[number].code, SH_OK);
    stop();
    rig_kill(&rig);
    assert_log_holds(n);
}

/* Waits for the preparer's word. */
static void wait_for_next(enum wal_next want)
{
    bool said = false;
    while (!said) {
        assert_true(take_mail((int64_t)WAIT_S * NS_PER_S));
        said = wal_core_stats(rig.core).next == want;
    }
}

static void test_the_reserve_is_left_free(void **state)
{
    (void)state;
    disk_reserve = 100000;
    atomic_store(&room_bytes, SEGMENT + 100000 - 1);
    start();
    wait_for_next(WAL_NEXT_DISK_FULL);
    wal_prepare_set_reserve(prepare, 99999);
    wait_for_next(WAL_NEXT_READY);
    stop();
}

static void test_the_default_reserve_is_a_twentieth_and_a_gib_at_most(void **state)
{
    (void)state;
    disk_bytes = 8 << 20;
    assert_int_equal(wal_disk_reserve(&faulty, "", 0), (8 << 20) / 20);
    assert_int_equal(wal_disk_reserve(&faulty, "", 5), 5);
    disk_bytes = INT64_C(1) << 40;
    assert_int_equal(wal_disk_reserve(&faulty, "", 0), 1 << 30);
    assert_int_equal(wal_disk_reserve(&faulty, "", INT64_C(1) << 40), INT64_C(1) << 40);
}

/* The file that an earlier process has prepared takes the very room that a new one needs. */
static void test_a_segment_prepared_before_is_no_full_disk(void **state)
{
    (void)state;
    char path[PATH_MAX];
    vfs_path(path, rig.dir.log, "next.tmp");
    int fd = vfs_posix()->open(vfs_posix(), path, O_RDWR | O_CREAT, 0640);
    assert_true(fd >= 0);
    vfs_posix()->close(vfs_posix(), fd);
    disk_reserve = 1000;
    atomic_store(&room_bytes, 1000);
    start();
    wait_for_next(WAL_NEXT_READY);
    stop();
}

static uint64_t marked_end(void)
{
    struct log_mark mark;
    enum sh_error error = log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark);
    assert_int_equal(error, SH_OK);
    return mark.durable_end;
}

static uint64_t told_end(void)
{
    pthread_mutex_lock(&inbox_lock);
    uint64_t end = inbox_durable.end;
    pthread_mutex_unlock(&inbox_lock);
    return end;
}

static void test_a_mark_that_meets_a_full_disk_is_written_later(void **state)
{
    (void)state;
    atomic_store(&mark_full, true);
    start();
    uint64_t n;
    for (n = 1; n <= 100; n++) {
        uint64_t number = rig_append(&rig, 7, 1, n, payload_of(n));
        put();
        wait_for_answer(number);
        assert_int_equal(rig.answers[number].code, SH_OK);
    }
    while (atomic_load(&marks_refused) < 2)
        usleep(1000);
    assert_true(marked_end() < told_end());
    atomic_store(&mark_full, false);
    while (marked_end() < told_end())
        usleep(1000);
    stop();
    rig_kill(&rig);
    assert_log_holds(n - 1);
}

/* The start had no room for its file; nothing is appended since. */
static void test_a_mark_that_the_start_could_not_make_is_made(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t end = rig.log.durable.end;
    vfs_path(path, rig.log.dir, "mark");
    assert_int_equal(unlink(path), 0);
    vfs_posix()->close(vfs_posix(), rig.log.mark_fd);
    rig.log.mark_fd = -1;
    rig.log.mark = (struct log_mark){0};
    start();
    struct log_mark mark = {0};
    while (log_mark_read(vfs_posix(), rig.log.dir, rig.dir.identity.log, &mark) != SH_OK ||
           mark.durable_end < end)
        usleep(1000);
    stop();
}

/* ---------------------------------------------------------------- the end of the process */

/* Runs fn in a child; the exit status. The parent holds no threads then. */
static int in_child(void (*fn)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        fn();
        _exit(99);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The process should be gone before this returns. */
static void expect_the_end(uint64_t request)
{
    while (rig.answers[request].times == 0 && take_mail((int64_t)WAIT_S * NS_PER_S))
        continue;
    _exit(98);
}

static void append_until_the_end(void)
{
    log_set_level(LOG_ERROR + 1);
    start();
    append_and_wait(1);
    atomic_store(&fail_fdatasync_at, 1); /* EIO once, success on the next */
    uint64_t second = rig_append(&rig, 7, 1, 2, payload_of(2));
    put();
    expect_the_end(second);
}

static void test_a_failed_sync_ends_the_process_and_acknowledges_nobody(void **state)
{
    (void)state;
    assert_int_equal(in_child(append_until_the_end), EXIT_FAULT);
    rig_kill(&rig);
    uint64_t seen = 0;
    assert_int_equal(rig_open(&rig, &faulty, data, SEGMENT), EXIT_DONE);
    assert_int_equal(rig_read_all(vfs_posix(), data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_true(seen == 1 || seen == 2);
}

static void append_with_failing_write(void)
{
    log_set_level(LOG_ERROR + 1);
    start();
    while (!take_mail((int64_t)WAIT_S * NS_PER_S)) /* the preparer has written */
        continue;
    atomic_store(&fail_pwritev_at, 1);
    uint64_t request = rig_append(&rig, 7, 1, 1, payload_of(1));
    put();
    expect_the_end(request);
}

static void test_a_failed_write_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(in_child(append_with_failing_write), EXIT_FAULT);
}

#ifdef SHANGHAI_FAILPOINTS
static void append_with_failing_failpoint(void)
{
    log_set_level(LOG_ERROR + 1);
    failpoint_set("wal_sync=fail@2");
    start();
    append_and_wait(1);
    uint64_t second = rig_append(&rig, 7, 1, 2, payload_of(2));
    put();
    expect_the_end(second);
}

static void test_the_failpoint_fails_a_sync(void **state)
{
    (void)state;
    assert_int_equal(in_child(append_with_failing_failpoint), EXIT_FAULT);
}

static void test_the_failpoint_leaves_groups_written_and_unsynced(void **state)
{
    (void)state;
    failpoint_set("wal_sync=skip@2");
    start();
    append_and_wait(1);
    for (uint64_t n = 2; n <= 4; n++) {
        rig_append(&rig, 7, 1, n, payload_of(n));
        put();
    }
    stop();
    failpoint_set(NULL);
    while (take_mail(0))
        continue;
    for (uint64_t n = 2; n <= 4; n++)
        assert_int_equal(rig.answers[n].times, 0);
    assert_int_equal(rig.log.durable.lsn, 1);
    rig_kill(&rig);
    assert_log_holds(4); /* the process was killed, not the machine */
}
#endif

#define COMMIT_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        COMMIT_TEST(test_many_groups_over_many_segments),
        COMMIT_TEST(test_commits_by_the_caller_and_by_the_committer_mix),
        COMMIT_TEST(test_the_caller_commits_no_more_than_one_small_frame),
        COMMIT_TEST(test_the_caller_leaves_a_slow_disk_to_the_committer),
        COMMIT_TEST(test_the_caller_leaves_a_commit_with_a_delay_to_the_committer),
        COMMIT_TEST(test_the_mark_names_a_new_segment_at_once),
        COMMIT_TEST(test_the_mark_follows_many_commits_by_the_caller),
        COMMIT_TEST(test_the_mark_follows_a_commit_by_the_caller),
        COMMIT_TEST(test_sealed_segments_get_their_index_now_or_after_the_next_start),
        COMMIT_TEST(test_what_waits_goes_out_in_one_group),
        COMMIT_TEST(test_a_quiet_log_gets_its_mark_and_stays_quiet),
        COMMIT_TEST(test_bytes_of_a_dropped_session_are_not_needed_any_more),
        COMMIT_TEST(test_delay_gathers_a_group),
        COMMIT_TEST(test_a_full_disk_is_told_and_heals),
        COMMIT_TEST(test_the_reserve_is_left_free),
        COMMIT_TEST(test_the_default_reserve_is_a_twentieth_and_a_gib_at_most),
        COMMIT_TEST(test_a_segment_prepared_before_is_no_full_disk),
        COMMIT_TEST(test_a_mark_that_meets_a_full_disk_is_written_later),
        COMMIT_TEST(test_a_mark_that_the_start_could_not_make_is_made),
        COMMIT_TEST(test_a_failed_sync_ends_the_process_and_acknowledges_nobody),
        COMMIT_TEST(test_a_failed_write_ends_the_process),
#ifdef SHANGHAI_FAILPOINTS
        COMMIT_TEST(test_the_failpoint_fails_a_sync),
        COMMIT_TEST(test_the_failpoint_leaves_groups_written_and_unsynced),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
