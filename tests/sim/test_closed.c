/* Closed logs in walsvc: the register, when a copy is dropped and when it stays, and a crash at each step. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "copy_rig.h"
#include "crc32c.h"
#include "log.h"
#include "wal_copier.h"
#include "wal_drop.h"

enum { PATIENCE_S = 30, CRASH_SEEDS = 8, CALLS_MAX = 200 };
static const char data[] = HOLDER_DATA;
static const struct wal_upkeep_settings for_ever = {.disk_reserve = 1, .member_hold_max = UINT64_MAX};
static const struct wal_upkeep_settings short_age = {
    .disk_reserve = 1, .member_hold_max = UINT64_MAX, .retention_age_ns = 1};
static const struct wal_upkeep_settings few_bytes = {
    .disk_reserve = 1, .member_hold_max = UINT64_MAX, .retention_bytes = 1};
static struct origin origin;
static struct sim_disk *disk;
static const struct vfs *fs;
static struct wal_dir dir;
static struct wal_closed closed;
static struct wal_copier *copier;
static _Atomic int64_t horizon_ns;

/* What the copier and its janitor have told. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    unsigned news, stays, asked, answers;
    enum sh_error state;
    struct wal_durable durable;
    uint32_t type; /* of the last answer */
    struct buf answer;
} told = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void on_news(void *arg, const struct wal_copy_news *news)
{
    (void)arg;
    pthread_mutex_lock(&told.lock);
    told.news++;
    told.stays += news->stays;
    told.state = news->state;
    told.durable = news->durable;
    free(news->answers);
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.lock);
}

static void on_answer(void *arg, struct link_token token, uint32_t type, struct buf *body)
{
    (void)arg, (void)token;
    pthread_mutex_lock(&told.lock);
    buf_free(&told.answer);
    told.answer = *body;
    told.type = type;
    told.answers++;
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.lock);
}

static void on_drop(void *arg, struct wal_store *store)
{
    (void)arg, (void)store;
    pthread_mutex_lock(&told.lock);
    told.asked++;
    pthread_cond_broadcast(&told.more);
    pthread_mutex_unlock(&told.lock);
}

static void on_index_lost(void *arg, struct wal_store *store)
{
    (void)arg, (void)store;
}

static void on_trimmed(void *arg, struct wal_store *store, uint64_t first_lsn)
{
    (void)arg, (void)store, (void)first_lsn;
}

/* Until the number is more than it was. */
static void wait_beyond(const unsigned *number, unsigned was)
{
    struct timespec due;
    clock_gettime(CLOCK_REALTIME, &due);
    due.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&told.lock);
    while (*number <= was) {
        if (pthread_cond_timedwait(&told.more, &told.lock, &due) == 0)
            continue;
        pthread_mutex_unlock(&told.lock);
        fail_msg("nothing more is told");
    }
    pthread_mutex_unlock(&told.lock);
}

static void start(const struct wal_upkeep_settings *settings)
{
    struct wal_copier_options options = {
        .dir = &dir,
        .closed = &closed,
        .log = origin.log,
        .store = {.settings = *settings,
                  .segment_size = ORIGIN_SEGMENT,
                  .on_answer = on_answer,
                  .on_index_lost = on_index_lost,
                  .on_trimmed = on_trimmed,
                  .on_drop = on_drop,
                  .horizon_ns = &horizon_ns},
        .on_news = on_news,
    };
    copier = wal_copier_start(&options);
    wait_beyond(&told.news, 0);
    assert_int_equal(told.state, SH_OK);
}

/* Puts units of the origin, and waits until they are durable. */
static void put(size_t first, size_t behind)
{
    const struct msg_copy_append m = {.log = origin.log,
                                      .position = origin.units[first].begin,
                                      .bytes = origin_bytes(&origin, first, behind)};
    unsigned was = told.news;
    assert_int_equal(wal_copier_put(copier, (struct link_token){1, first + 1}, &m), SH_OK);
    wait_beyond(&told.news, was);
    assert_int_equal(told.durable.end, origin.units[behind - 1].end);
}

static void fill(void)
{
    for (size_t i = 0; i < origin.count; i++)
        put(i, i + 1);
}

/* Part of the first segment; returns the unit behind. */
static size_t put_some(void)
{
    size_t behind = origin_cut(&origin, 0, 3);
    put(0, behind);
    assert_true(told.durable.lsn > 0);
    return behind;
}

static struct wal_gone gone_at_end(void)
{
    return (struct wal_gone){true, told.durable.end, told.durable.lsn, told.durable.checksum};
}

static void tell_gone(const struct wal_gone *gone)
{
    wal_copier_gone(copier, gone);
}

static bool has_folder(void)
{
    uint64_t *bases = NULL;
    size_t count;
    int result = segment_list(fs, wal_copier_store(copier)->path, &bases, &count);
    free(bases);
    return result == 0;
}

static void expect_stays(void)
{
    unsigned was = told.stays;
    struct wal_closed_log found;
    wal_copier_drop(copier);
    wait_beyond(&told.stays, was);
    assert_int_equal(told.state, SH_OK);
    assert_true(has_folder());
    assert_false(wal_closed_find(&closed, origin.log, &found));
}

static void expect_drops(const struct wal_gone *gone)
{
    unsigned was = told.news;
    struct wal_closed_log found;
    wal_copier_drop(copier);
    wait_beyond(&told.news, was);
    assert_int_equal(told.state, SH_NOT_FOUND);
    assert_false(has_folder());
    assert_true(wal_closed_find(&closed, origin.log, &found));
    assert_int_equal(found.end, gone->end);
    assert_int_equal(found.lsn, gone->lsn);
    assert_int_equal(found.checksum, gone->checksum);
}

static void ask(uint32_t type, const void *message)
{
    struct buf body = {0};
    unsigned was = told.answers;
    msg_encode(type, message, &body);
    assert_int_equal(
        wal_janitor_ask(wal_copier_store(copier)->janitor, (struct link_token){2, 1}, type, buf_slice(&body)),
        SH_OK);
    buf_free(&body);
    wait_beyond(&told.answers, was);
}

static void hold_from(uint64_t lsn, bool remove)
{
    const struct msg_hold hold = {
        .log = origin.log, .name = slice_str("n7"), .kind = WAL_HOLD_MEMBER, .lsn = lsn, .remove = remove};
    ask(MSG_hold, &hold);
    assert_int_equal(told.type, MSG_hold_reply);
}

/* Of the copy as a whole: the segments before the newest one go by themselves. */
static bool trim_drops(uint64_t before, bool dry_run)
{
    const struct msg_log_trim trim = {.log = origin.log, .before = before, .dry_run = dry_run};
    struct msg_log_trim_reply reply;
    ask(MSG_log_trim, &trim);
    assert_int_equal(told.type, MSG_log_trim_reply);
    assert_int_equal(msg_decode(MSG_log_trim_reply, buf_slice(&told.answer), &reply), SH_OK);
    return reply.drops;
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    origin_make(&origin, 120, 7);
    disk = holder_disk(&dir);
    fs = dir.fs;
    assert_int_equal(wal_closed_open(&closed, fs, data), EXIT_DONE);
    told.news = told.stays = told.asked = told.answers = 0;
    horizon_ns = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (copier != NULL) {
        wal_copier_stop(copier);
        wal_copier_free(copier);
    }
    copier = NULL;
    buf_free(&told.answer);
    wal_closed_close(&closed);
    sim_disk_close(disk);
    origin_free(&origin);
    return 0;
}

/* ---------------------------------------------------------------- dropping */

static void test_a_closed_copy_goes_with_its_folder_once_it_is_old(void **state)
{
    (void)state;
    start(&short_age);
    fill();
    struct wal_gone gone = gone_at_end();
    tell_gone(&gone);
    wait_beyond(&told.asked, 0);
    expect_drops(&gone);
}

static void test_a_copy_that_is_not_closed_stays(void **state)
{
    (void)state;
    start(&short_age);
    fill();
    expect_stays();
    struct wal_gone gone = gone_at_end();
    tell_gone(&gone);
    wait_beyond(&told.asked, 0);
    tell_gone(&(struct wal_gone){0}); /* it lives again */
    expect_stays();
}

static void test_a_copy_that_has_grown_since_stays(void **state)
{
    (void)state;
    start(&short_age);
    size_t next = put_some();
    struct wal_gone gone = gone_at_end();
    tell_gone(&gone);
    wait_beyond(&told.asked, 0);
    put(next, next + 1);
    expect_stays();
}

static void test_without_retention_it_stays(void **state)
{
    (void)state;
    start(&for_ever);
    put_some();
    struct wal_gone gone = gone_at_end();
    tell_gone(&gone);
    expect_stays();
    assert_int_equal(told.asked, 0);
}

/* What was never filled has no time. */
static void test_an_empty_copy_goes_if_there_is_a_retention(void **state)
{
    (void)state;
    struct wal_gone gone = {.is_gone = true};
    start(&for_ever);
    tell_gone(&gone);
    expect_stays();
    wal_copier_set(copier, &short_age);
    wait_beyond(&told.asked, 0);
    expect_drops(&gone);
}

static void test_a_hold_that_was_answered_keeps_it(void **state)
{
    (void)state;
    start(&short_age);
    put_some();
    struct wal_gone gone = gone_at_end();
    hold_from(gone.lsn, false);
    tell_gone(&gone);
    expect_stays();
    hold_from(gone.lsn + 1, false); /* it has all of it */
    wait_beyond(&told.asked, 0);
    expect_drops(&gone);
}

static void test_by_bytes_it_goes_when_nothing_as_old_is_left_of_the_own_log(void **state)
{
    (void)state;
    start(&few_bytes);
    put_some();
    struct wal_gone gone = gone_at_end();
    tell_gone(&gone);
    expect_stays();
    atomic_store(&horizon_ns, INT64_MAX);
    expect_drops(&gone);
}

static void test_a_trim_by_hand_up_to_its_end_drops_it(void **state)
{
    (void)state;
    start(&for_ever);
    put_some();
    struct wal_gone gone = gone_at_end();
    assert_false(trim_drops(gone.lsn + 1, false)); /* it isn't closed */
    tell_gone(&gone);
    hold_from(gone.lsn, false);
    assert_false(trim_drops(gone.lsn + 1, false));
    expect_stays();
    hold_from(gone.lsn, true);
    assert_false(trim_drops(gone.lsn, false)); /* the last entry is to stay */
    assert_true(trim_drops(gone.lsn + 1, true));
    assert_int_equal(told.asked, 0);
    assert_true(trim_drops(gone.lsn + 1, false));
    wait_beyond(&told.asked, 0);
    expect_drops(&gone);
}

static void test_on_a_full_disk_it_stays(void **state)
{
    (void)state;
    start(&short_age);
    put_some();
    struct wal_gone gone = gone_at_end();
    tell_gone(&gone);
    wait_beyond(&told.asked, 0);
    sim_disk_set_full(disk, true);
    expect_stays();
    sim_disk_set_full(disk, false);
    expect_drops(&gone);
}

/* ---------------------------------------------------------------- crashes */

static struct wal_closed_log closed_at(const struct wal_durable *durable)
{
    return (struct wal_closed_log){
        .log = origin.log, .end = durable->end, .lsn = durable->lsn, .checksum = durable->checksum};
}

/* What walsvc's next start finds, and does. */
static void check_after_crash(const struct wal_durable *durable, bool was_done)
{
    static struct copy_rig rig;
    struct wal_closed again;
    struct wal_closed_log found;
    char path[PATH_MAX], uuid[ID_TEXT];
    uint64_t *bases = NULL;
    size_t count;
    bool must_end;
    id16_format(origin.log, uuid);
    vfs_path(path, "/holder/log", uuid);
    assert_int_equal(wal_closed_open(&again, fs, data), EXIT_DONE);
    bool has_folder_now = segment_list(fs, path, &bases, &count) == 0;
    free(bases);
    bool is_closed = wal_closed_find(&again, origin.log, &found);
    assert_true(!was_done || (is_closed && !has_folder_now)); /* then it is for good */
    if (is_closed) {
        assert_int_equal(found.end, durable->end);
        if (has_folder_now)
            assert_int_equal(wal_drop_folder(fs, path, &must_end), 0);
        assert_int_equal(segment_list(fs, path, &bases, &count), -ENOENT);
        free(bases);
        assert_int_equal(fs->mkdir(fs, path, 0750), 0);
        assert_int_equal(fs->rmdir(fs, path), 0); /* nothing of it shows again */
    } else {                                      /* nothing has happened */
        assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
        assert_int_equal(rig.files.durable.end, durable->end);
        copy_rig_check(&rig, &origin);
        copy_rig_close(&rig);
    }
    wal_closed_close(&again);
}

/* True: it came to its end before it was stopped. */
static bool drop_and_crash(uint64_t calls, enum sim_loss loss, uint64_t seed)
{
    static struct copy_rig rig;
    struct wal_closed now;
    char path[PATH_MAX], uuid[ID_TEXT];
    bool must_end;
    id16_format(origin.log, uuid);
    vfs_path(path, "/holder/log", uuid);
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
    copy_rig_fill(&rig, &origin, 10);
    assert_true(copy_rig_mark(&rig));
    struct wal_durable durable = rig.files.durable;
    copy_rig_close(&rig);
    assert_int_equal(wal_closed_open(&now, fs, data), EXIT_DONE);
    assert_int_equal(wal_closed_remove(&now, origin.log), 0);
    const struct wal_closed_log log = closed_at(&durable);
    sim_disk_stop_after(disk, calls);
    bool done = wal_closed_add(&now, &log) == 0 && wal_drop_folder(fs, path, &must_end) == 0;
    sim_disk_stop_after(disk, UINT64_MAX);
    wal_closed_close(&now);
    sim_disk_crash(disk, loss, seed);
    check_after_crash(&durable, done);
    return done;
}

static void test_a_crash_at_each_step_leaves_the_copy_or_its_entry(void **state)
{
    static const enum sim_loss losses[] = {SIM_LOSE_NOTHING, SIM_LOSE_ALL, SIM_LOSE_SOME};
    (void)state;
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++)
        for (uint64_t seed = 1; seed <= (losses[i] == SIM_LOSE_SOME ? CRASH_SEEDS : 1); seed++) {
            uint64_t calls = 0;
            while (calls < CALLS_MAX && !drop_and_crash(calls, losses[i], seed))
                calls++;
            assert_in_range(calls, 8, CALLS_MAX - 1); /* each file of the folder is one of them */
        }
}

static void test_a_folder_of_many_files_goes_too(void **state)
{
    (void)state;
    char path[] = "/holder/log/many", name[16];
    bool must_end;
    assert_int_equal(fs->mkdir(fs, path, 0750), 0);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "%u", i);
        assert_int_equal(vfs_replace_file(fs, path, name, "x", 1), 0);
    }
    assert_int_equal(wal_drop_folder(fs, path, &must_end), 0);
    assert_int_equal(fs->rmdir(fs, path), -ENOENT);
    assert_int_equal(wal_drop_folder(fs, path, &must_end), -ENOENT);
    assert_false(must_end);
}

/* ---------------------------------------------------------------- the register */

static struct wal_closed_log numbered(unsigned n)
{
    struct wal_closed_log log = {.end = n * 1000, .lsn = n, .checksum = n + 1, .dropped_ns = n + 2};
    memcpy(log.log.bytes, &n, sizeof n);
    log.log.bytes[15] = 1;
    return log;
}

static void reopen(enum service_exit expected)
{
    wal_closed_close(&closed);
    assert_int_equal(wal_closed_open(&closed, fs, data), expected);
}

static void test_the_register_is_there_after_a_restart(void **state)
{
    (void)state;
    struct wal_closed_log one = numbered(1), two = numbered(2), found;
    uint64_t version = wal_closed_version(&closed);
    assert_int_equal(wal_closed_add(&closed, &one), 0);
    assert_int_equal(wal_closed_add(&closed, &two), 0);
    assert_int_equal(wal_closed_version(&closed), version + 2);
    reopen(EXIT_DONE);
    assert_true(wal_closed_find(&closed, one.log, &found));
    assert_int_equal(found.end, one.end);
    assert_int_equal(found.lsn, one.lsn);
    assert_int_equal(found.checksum, one.checksum);
    assert_int_equal(found.dropped_ns, one.dropped_ns);
    assert_int_equal(wal_closed_remove(&closed, one.log), 0);
    assert_int_equal(wal_closed_remove(&closed, one.log), 0); /* it is not there */
    reopen(EXIT_DONE);
    assert_false(wal_closed_find(&closed, one.log, &found));
    assert_true(wal_closed_find(&closed, two.log, &found));
}

static void test_beyond_its_bound_the_oldest_entry_goes(void **state)
{
    (void)state;
    struct wal_closed_log found;
    for (unsigned i = 0; i <= WAL_CLOSED_MAX; i++) {
        struct wal_closed_log log = numbered(i);
        assert_int_equal(wal_closed_add(&closed, &log), 0);
    }
    reopen(EXIT_DONE);
    assert_int_equal(closed.count, WAL_CLOSED_MAX);
    assert_false(wal_closed_find(&closed, numbered(0).log, &found));
    assert_true(wal_closed_find(&closed, numbered(1).log, &found));
    assert_true(wal_closed_find(&closed, numbered(WAL_CLOSED_MAX).log, &found));
    struct wal_closed_log again = numbered(1); /* is the newest then, and only once */
    assert_int_equal(wal_closed_add(&closed, &again), 0);
    assert_int_equal(closed.count, WAL_CLOSED_MAX);
    assert_true(id16_equal(closed.all[WAL_CLOSED_MAX - 1].log, again.log));
}

static void test_a_register_that_cannot_be_written_is_as_it_was(void **state)
{
    (void)state;
    struct wal_closed_log one = numbered(1), two = numbered(2), found;
    assert_int_equal(wal_closed_add(&closed, &one), 0);
    uint64_t version = wal_closed_version(&closed);
    sim_disk_set_full(disk, true);
    assert_int_equal(wal_closed_add(&closed, &two), -ENOSPC);
    assert_int_equal(wal_closed_remove(&closed, one.log), -ENOSPC);
    sim_disk_set_full(disk, false);
    assert_int_equal(wal_closed_version(&closed), version);
    assert_false(wal_closed_find(&closed, two.log, &found));
    assert_true(wal_closed_find(&closed, one.log, &found));
}

static void test_a_damaged_register_is_an_empty_one_and_a_later_one_is_refused(void **state)
{
    static const char path[] = "/holder/closed";
    (void)state;
    struct wal_closed_log one = numbered(1);
    assert_int_equal(wal_closed_add(&closed, &one), 0);
    size_t len = sim_disk_file(disk, path).len;
    for (size_t at = 0; at < len; at++) {
        sim_disk_flip(disk, path, at, 0x40);
        reopen(EXIT_DONE);
        assert_int_equal(closed.count, 0);
        sim_disk_flip(disk, path, at, 0x40);
    }
    sim_disk_resize(disk, path, len - 1);
    reopen(EXIT_DONE);
    assert_int_equal(closed.count, 0);
    assert_int_equal(wal_closed_add(&closed, &one), 0);
    uint8_t bytes[128], *file = (uint8_t *)(uintptr_t)sim_disk_file(disk, path).data;
    memcpy(bytes, file, len);
    bytes[6] = 2; /* its version, with a checksum that agrees */
    uint32_t crc = crc32c(0, bytes, len - 4);
    for (size_t i = 0; i < 4; i++)
        bytes[len - 4 + i] = (uint8_t)(crc >> 8 * i);
    assert_int_equal(vfs_replace_file(fs, data, "closed", bytes, len), 0);
    reopen(EXIT_CONFIG);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_closed_copy_goes_with_its_folder_once_it_is_old),
        TEST(test_a_copy_that_is_not_closed_stays),
        TEST(test_a_copy_that_has_grown_since_stays),
        TEST(test_without_retention_it_stays),
        TEST(test_an_empty_copy_goes_if_there_is_a_retention),
        TEST(test_a_hold_that_was_answered_keeps_it),
        TEST(test_by_bytes_it_goes_when_nothing_as_old_is_left_of_the_own_log),
        TEST(test_a_trim_by_hand_up_to_its_end_drops_it),
        TEST(test_on_a_full_disk_it_stays),
        TEST(test_a_crash_at_each_step_leaves_the_copy_or_its_entry),
        TEST(test_a_folder_of_many_files_goes_too),
        TEST(test_the_register_is_there_after_a_restart),
        TEST(test_beyond_its_bound_the_oldest_entry_goes),
        TEST(test_a_register_that_cannot_be_written_is_as_it_was),
        TEST(test_a_damaged_register_is_an_empty_one_and_a_later_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
