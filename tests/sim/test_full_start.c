/* A start on a full disk: what was acknowledged is served, whatever cannot be written waits for room. (A torn
 * tail that cannot be kept, and damage up to the durable end: test_wal_recovery, test_salvage_segments.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "rot.h"

static char path[PATH_MAX];

static const char *in_log(const char *name)
{
    vfs_path(path, rot_dir, name);
    return path;
}

static bool exists(const char *name)
{
    return sim_disk_file(rot_disk, in_log(name)).data != NULL;
}

/* Ten entries, and no byte free, not even the prepared segment's. */
static void fill_the_disk(void)
{
    rot_open();
    rot_append_noted(1, 10);
    rig_close(&rot_rig);
    rot_fs->unlink(rot_fs, in_log("next.tmp"));
    sim_disk_set_full(rot_disk, true);
}

static void test_the_mark_waits_for_room(void **state)
{
    (void)state;
    for (unsigned damaged = 0; damaged < 2; damaged++) {
        rot_start_over();
        fill_the_disk();
        if (damaged)
            memset(rot_file(in_log("mark")), 0xee, 1024);
        else
            assert_int_equal(rot_fs->unlink(rot_fs, in_log("mark")), 0);
        sim_disk_set_full(rot_disk, true); /* the file's bytes are none to be had */
        assert_int_equal(rot_try_open(), EXIT_DONE);
        rot_assert_log(10, 11, 0);
        assert_int_equal(rot_rig.log.mark_fd, -1);
        assert_int_equal(wal_log_write_mark(&rot_rig.log), -ENOSPC);
        rot_append(11, 12); /* there is room in the segment */
        sim_disk_set_full(rot_disk, false);
        assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
        rot_crash(SIM_LOSE_ALL);
        struct log_mark mark;
        assert_int_equal(log_mark_read(rot_fs, rot_dir, rot_rig.dir.identity.log, &mark), SH_OK);
        assert_int_equal(mark.durable_lsn, 12);
        rot_open();
        rot_assert_log(12, 13, 0);
    }
}

static void test_the_prepared_segment_makes_room_for_the_mark(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 10);
    rig_close(&rot_rig);
    assert_int_equal(rot_fs->unlink(rot_fs, in_log("mark")), 0);
    assert_true(exists("next.tmp"));
    sim_disk_set_full(rot_disk, true);
    assert_int_equal(rot_try_open(), EXIT_DONE);
    assert_true(exists("mark"));
    assert_false(exists("next.tmp"));
    rot_assert_log(10, 11, 0);
}

/* What lies behind the end of a former segment, and must be kept before it is cut, stays. */
static void test_a_former_segment_stays_too_long(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    assert_true(base > 1);
    size_t sealed = sim_disk_file(rot_disk, rot_path(1)).len;
    rig_close(&rot_rig);
    sim_disk_resize(rot_disk, rot_path(1), sealed + 100);
    memset(rot_file(rot_path(1)) + sealed, 0xee, 100);
    rot_fs->unlink(rot_fs, in_log("next.tmp"));
    sim_disk_set_full(rot_disk, true);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(rot_try_open(), EXIT_DONE);
        rot_assert_log(last, last + 1, 0);
        assert_int_equal(sim_disk_file(rot_disk, rot_path(1)).len, sealed + 100);
        rig_close(&rot_rig);
    }
    assert_int_equal(rot_kept().files, 0);
    sim_disk_set_full(rot_disk, false);
    rot_open();
    assert_int_equal(sim_disk_file(rot_disk, rot_path(1)).len, sealed);
    assert_int_equal(rot_kept().bytes, 100);
    rot_assert_log(last, last + 1, 0);
}

/* ---------------------------------------------------------------- the reserve */

static struct vfs low;

static int low_free_bytes(const struct vfs *v, const char *where, uint64_t *bytes)
{
    (void)v, (void)where;
    *bytes = 5000;
    return 0;
}

/* Damage that a start meets is copied only as far as the disk keeps its reserve. */
static void test_a_start_copies_nothing_below_the_reserve(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 10);
    rig_close(&rot_rig);
    rot_entry(4);
    low = *rot_fs;
    low.free_bytes = low_free_bytes;
    const uint64_t reserves[] = {5000, 1000};
    for (unsigned i = 0; i < 2; i++) {
        struct wal_dir dir;
        struct wal_log log;
        struct wal_state log_state;
        struct log_damage_range range;
        assert_int_equal(wal_dir_open(&dir, &low, rot_data, "n1"), EXIT_DONE);
        dir.reserve_bytes = reserves[i];
        wal_state_init(&log_state);
        assert_int_equal(wal_dir_open_log(&dir, &log, ROT_SEGMENT, &log_state), EXIT_DONE);
        assert_true(wal_damage_find(dir.damage, 1, 0, ROT_SEGMENT, &range));
        assert_int_equal(range.copy[0] != 0, i == 1);
        wal_state_free(&log_state);
        wal_log_close(&log);
        wal_dir_close(&dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_mark_waits_for_room, rot_setup, rot_teardown),
        cmocka_unit_test_setup_teardown(test_the_prepared_segment_makes_room_for_the_mark, rot_setup,
                                        rot_teardown),
        cmocka_unit_test_setup_teardown(test_a_former_segment_stays_too_long, rot_setup, rot_teardown),
        cmocka_unit_test_setup_teardown(test_a_start_copies_nothing_below_the_reserve, rot_setup,
                                        rot_teardown),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
