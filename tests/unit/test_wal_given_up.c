/* The core of a walsvc whose own log is open as a copy, and the preparer of such a log while it is cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "log.h"
#include "sim_disk.h"
#include "wal_prepare.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 10, HOLDS = 200, WORK = 2000 };

static struct sim_disk *disk;
static const struct vfs *fs;
static struct wal_rig rig;

static int setup(void **state)
{
    (void)state;
    log_set_level((enum log_level)(LOG_ERROR + 1));
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(rig_open(&rig, fs, "/node", SEGMENT), EXIT_DONE);
    rig_prepare(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

/* Nothing is known of the producers: neither a repeated sequence nor an unknown one gets another answer. */
static void test_no_append_gets_another_answer(void **state)
{
    (void)state;
    uint64_t before = rig_append(&rig, 1, 1, 1, slice_str("x"));
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[before].code, SH_OK);
    wal_core_give_up_writes(rig.core, "it is fetched back");
    const uint64_t sequences[] = {1, 2, 7, 0};
    for (size_t i = 0; i < 4; i++) {
        uint64_t number = rig_append(&rig, i == 3 ? 0 : 1 + i % 2, 1, sequences[i], slice_str("x"));
        assert_int_equal(rig.answers[number].code, SH_READ_ONLY);
        assert_string_equal(rig.refusal, "it is fetched back");
    }
    wal_core_refuse_writes(rig.core, "it has left"); /* it cannot be asked to leave this */
    wal_core_allow_writes(rig.core);
    uint64_t number = rig_append(&rig, 0, 1, 0, slice_str("x"));
    assert_int_equal(rig.answers[number].code, SH_READ_ONLY);
    assert_string_equal(rig.refusal, "it is fetched back");
}

/* Who waits behind the place where the log was cut hears of it at once. */
static void test_a_log_that_ends_earlier_is_told(void **state)
{
    (void)state;
    rig_append(&rig, 0, 1, 0, slice_str("x"));
    assert_true(rig_commit(&rig));
    struct wal_durable durable = rig.log.durable;
    wal_core_give_up_writes(rig.core, "it is fetched back");
    uint64_t poll = rig_watermark(&rig, durable.end, 1000, 0);
    assert_int_equal(rig.answers[poll].times, 0);
    durable.end -= 10;
    durable.lsn--;
    wal_core_moved(rig.core, &durable);
    assert_int_equal(rig.answers[poll].times, 1);
    assert_int_equal(rig.answers[poll].watermark.durable_end, durable.end);
    assert_int_equal(wal_core_stats(rig.core).durable_lsn, durable.lsn);
    poll = rig_watermark(&rig, durable.end, 1000, 0);
    durable.end += 5;
    wal_core_moved(rig.core, &durable);
    assert_int_equal(rig.answers[poll].watermark.durable_end, durable.end);
}

/* ---------------------------------------------------------------- the preparer */

static atomic_uint tries, told;

static int full_allocate(const struct vfs *self, int fd, int64_t offset, int64_t size)
{
    (void)self, (void)fd, (void)offset, (void)size;
    atomic_fetch_add(&tries, 1);
    return -ENOSPC;
}

static void on_next(void *arg, enum wal_next next)
{
    (void)arg;
    assert_int_equal(next, WAL_NEXT_DISK_FULL);
    atomic_fetch_add(&told, 1);
}

/* It lets go of the segments all the same, and tries again once for each interruption: the next time is an
 * hour away. */
static void test_on_a_full_disk_the_preparer_waits(void **state)
{
    (void)state;
    struct vfs full = *fs;
    int64_t size;
    full.allocate = full_allocate;
    const struct wal_prepare_options options = {.fs = &full,
                                                .dir = rig.dir.log,
                                                .log = rig.dir.identity.log,
                                                .segment_size = SEGMENT,
                                                .disk_reserve = 1,
                                                .retry_ns = 3600 * NS_PER_S,
                                                .index_delay_ns = 3600 * NS_PER_S,
                                                .on_next = on_next};
    tries = told = 0;
    struct wal_prepare *prepare = wal_prepare_start(&options);
    for (unsigned i = 0; i < HOLDS; i++) {
        wal_prepare_hold(prepare);
        wal_prepare_release(prepare);
        for (unsigned n = 0; n < WORK; n++) /* it has the time to try more often */
            assert_int_equal(fs->size(fs, rig.log.fd, &size), 0);
    }
    wal_prepare_stop(prepare);
    assert_true(tries <= HOLDS + 2);
    assert_int_equal(tries, told);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_no_append_gets_another_answer),
        CASE(test_a_log_that_ends_earlier_is_told),
        CASE(test_on_a_full_disk_the_preparer_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
