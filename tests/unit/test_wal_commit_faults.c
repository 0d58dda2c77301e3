/* The committer and the preparer on a disk that is full or fails: what waits, and the end of the process when
 * a write or a sync fails. */
#include "commit_story.h"

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

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
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
