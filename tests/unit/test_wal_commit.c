/* The committer and the preparer with their threads, on the real disk: order, durability, rolls, the idle
 * mark, indexes, borrowed bytes. */
#include "commit_story.h"

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
    atomic_store(&quick_disk, true); /* or it is the committer's each time */
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
    int64_t end = clock_mono_ns() + WAIT_S * NS_PER_S;
    while (mark.durable_end != rig.log.durable.end && clock_mono_ns() < end)
        assert_int_equal(log_mark_read(vfs_posix(), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_int_equal(mark.durable_end, rig.log.durable.end);
    stop();
}

/* The mark is written 100 ms after the last commit, whoever made it. */
static void test_the_mark_follows_a_commit_by_the_caller(void **state)
{
    (void)state;
    atomic_store(&quick_disk, true);
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
    const int64_t delay_ns = 50 * NS_PER_MS;
    start();
    wal_commit_set_delay(commit, delay_ns);
    uint64_t last = 0;
    int64_t began_ns = clock_mono_ns();
    for (uint64_t n = 1; n <= 10; n++) {
        last = rig_append(&rig, 0, 1, 0, payload_of(n));
        put();
    }
    int64_t took_ns = clock_mono_ns() - began_ns; /* long, where this thread was held up */
    wait_for_answer(last);
    stop();
    assert_true(groups <= 2 + (uint64_t)(took_ns / delay_ns));
}

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
