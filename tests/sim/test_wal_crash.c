/* Power loss at every step: the workload rolls over several segments; the disk stops before each of its calls
 * in turn and comes back without, or with only some of, what wasn't synced. Whatever was acknowledged must be
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 16 << 10, ENTRIES = 120, GROUP = 3 };
static const char data[] = "/data";
static struct wal_rig rig;

static struct slice payload_of(uint64_t n)
{
    static uint8_t bytes[400];
    memset(bytes, n % 4 == 0 ? 0 : (int)n, sizeof bytes);
    memcpy(bytes, &n, sizeof n);
    return slice_of(bytes, sizeof bytes - n % 50);
}

static void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    uint64_t *seen = arg;
    assert_int_equal(lsn, *seen + 1);
    assert_true(slice_equal(entry->value, payload_of(lsn)));
    *seen = lsn;
}

/* Appends entries last + 1 .. ENTRIES in groups, over rolls; returns the last one that was acknowledged. */
static uint64_t work(uint64_t last)
{
    if (!rig_prepare(&rig))
        return last;
    for (uint64_t n = last + 1; n <= ENTRIES; n += GROUP) {
        uint64_t request = 0;
        for (uint64_t i = n; i < n + GROUP; i++)
            request = rig_append(&rig, 7, 1, i, payload_of(i));
        bool good = rig_commit(&rig);
        if (rig.answers[request].times == 1 && rig.answers[request].code == SH_OK)
            last = n + GROUP - 1;
        if (!good)
            return last;
    }
    if (wal_log_write_mark(&rig.log) == 0)
        rig_kill(&rig);
    return last;
}

/* The log holds every acknowledged entry, and nothing but whole groups' entries in order. */
static uint64_t check_recovered(const struct vfs *fs, uint64_t acknowledged)
{
    uint64_t seen = 0;
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    assert_int_equal(rig_read_all(fs, data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_true(seen >= acknowledged);
    assert_int_equal(seen, rig.log.durable.lsn);
    struct log_verify_options options = {0};
    struct log_verify_report report;
    assert_int_equal(log_verify(fs, data, &options, &report), SH_OK);
    assert_int_equal(report.entries, seen);
    /* The producer is asked for the next one, and the last one is repeated. */
    if (seen > 0) {
        uint64_t again = rig_append(&rig, 7, 1, seen, payload_of(seen));
        assert_int_equal(rig.answers[again].reply.lsn, seen);
    }
    return seen;
}

/* false: the work was done before the disk stopped. */
static bool crash_at(uint64_t calls, enum sim_loss first, enum sim_loss second, uint64_t seed)
{
    struct sim_disk *disk = sim_disk_open();
    const struct vfs *fs = sim_disk_vfs(disk);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    sim_disk_stop_after(disk, calls);
    uint64_t acknowledged = work(0);
    bool crashed = rig.opened;
    if (crashed) {
        rig_kill(&rig);
        sim_disk_crash(disk, first, seed);
        uint64_t recovered = check_recovered(fs, acknowledged);
        /* A second crash while it goes on. */
        sim_disk_stop_after(disk, 5 + seed % 23);
        acknowledged = work(recovered);
        if (rig.opened)
            rig_kill(&rig);
        sim_disk_crash(disk, second, seed + 1);
        check_recovered(fs, acknowledged);
        rig_kill(&rig);
    }
    sim_disk_close(disk);
    return crashed;
}

static void crash_everywhere(enum sim_loss first, enum sim_loss second, uint64_t seeds)
{
    uint64_t calls = 0;
    for (bool crashed = true; crashed; calls++) {
        crashed = false;
        for (uint64_t seed = 1; seed <= seeds; seed++)
            crashed |= crash_at(calls, first, second, calls * 100 + seed);
    }
    assert_true(calls > 100);
}

static void test_kill_at_every_step(void **state)
{
    (void)state;
    crash_everywhere(SIM_LOSE_NOTHING, SIM_LOSE_NOTHING, 1);
}

/* What the killed process had not synced must be synced before anything that stands on it counts. */
static void test_kill_at_every_step_then_power_loss(void **state)
{
    (void)state;
    crash_everywhere(SIM_LOSE_NOTHING, SIM_LOSE_ALL, 23);
}

static void test_power_loss_at_every_step(void **state)
{
    (void)state;
    crash_everywhere(SIM_LOSE_ALL, SIM_LOSE_ALL, 1);
}

static void test_power_loss_with_torn_and_garbled_sectors_at_every_step(void **state)
{
    (void)state;
    crash_everywhere(SIM_LOSE_SOME, SIM_LOSE_SOME, 8);
}

/* Recovery itself is cut short at each of its calls, again and again, and must still come to the same end. */
static void test_power_loss_at_every_step_of_recovery(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct sim_disk *disk = sim_disk_open();
        const struct vfs *fs = sim_disk_vfs(disk);
        assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
        sim_disk_stop_after(disk, 60 + seed);
        uint64_t acknowledged = work(0);
        assert_true(rig.opened);
        rig_kill(&rig);
        sim_disk_crash(disk, SIM_LOSE_SOME, seed);
        for (uint64_t calls = 0;; calls++) {
            sim_disk_stop_after(disk, calls);
            enum service_exit code = rig_open(&rig, fs, data, SEGMENT);
            if (code == EXIT_DONE)
                break;
            assert_int_equal(code, EXIT_FAULT);
            sim_disk_crash(disk, SIM_LOSE_SOME, seed + calls);
        }
        rig_kill(&rig);
        sim_disk_crash(disk, SIM_LOSE_ALL, seed);
        check_recovered(fs, acknowledged);
        rig_kill(&rig);
        sim_disk_close(disk);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_at_every_step),
        cmocka_unit_test(test_kill_at_every_step_then_power_loss),
        cmocka_unit_test(test_power_loss_at_every_step),
        cmocka_unit_test(test_power_loss_with_torn_and_garbled_sectors_at_every_step),
        cmocka_unit_test(test_power_loss_at_every_step_of_recovery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
