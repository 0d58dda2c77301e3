/* Crash images of what changes a log beside its appends: a trim, and a start on damage that keeps copies
 * aside, enters the register and goes on in a new segment. At each of their calls every disk that a loss of
 * power could leave is built; a start on it finds all that must be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kept_log.h"
#include "log.h"
#include "rot.h"
#include "sim_images.h"

static struct sim_images images;

/* ---------------------------------------------------------------- a trim */

static uint64_t target;
static bool is_answered;

static void use_kept_disk(struct sim_disk *disk)
{
    kept_disk = disk;
    kept_fs = sim_disk_vfs(disk);
}

/* Nothing but segments that were to go is gone, what was answered holds, and the trim goes on. */
static void check_trimmed(struct sim_disk *image)
{
    struct sim_disk *stopped = kept_disk;
    uint64_t first;
    use_kept_disk(image);
    assert_int_equal(rig_open(&kept_rig, kept_fs, kept_data, KEPT_SEGMENT), EXIT_DONE);
    assert_int_equal(upkeep_rig_open(&kept, &kept_rig), EXIT_DONE);
    kept_list(&first, NULL);
    assert_true(is_answered ? first == target : first <= target);
    kept_check_log(first, KEPT_ENTRIES);
    assert_int_equal(upkeep_rig_trim(&kept, target, false, NULL), SH_OK);
    kept_check_log(target, KEPT_ENTRIES);
    upkeep_rig_close(&kept);
    rig_kill(&kept_rig);
    use_kept_disk(stopped);
}

static void test_each_image_of_a_trim(void **state)
{
    (void)state;
    uint64_t before = images.count, calls = 0;
    for (is_answered = false; !is_answered; calls++) {
        kept_setup();
        target = kept_base_of(4);
        sim_disk_record(kept_disk, true);
        sim_disk_stop_after(kept_disk, calls);
        is_answered = upkeep_rig_trim(&kept, target, false, NULL) == SH_OK && kept.fatal == 0;
        upkeep_rig_close(&kept);
        rig_kill(&kept_rig);
        sim_images_each(&images, kept_disk, images.samples, check_trimmed);
        sim_disk_close(kept_disk);
    }
    assert_true(calls > 8); /* four segments: unlink and sync each */
    assert_true(images.count - before > calls);
}

/* ---------------------------------------------------------------- a start on damage */

enum { LAST = 10, LOST = 3 };
static uint64_t mark_end;

/* Two damaged frames and bytes above the mark. */
static void make_damage(void)
{
    mark_end = rot_make_ten();
    rot_entry(LOST);
    rot_entry(LAST);
    rot_bytes(1, rot_places[LAST].end + 10, 200);
}

static void use_rot_disk(struct sim_disk *disk)
{
    rot_disk = disk;
    rot_fs = sim_disk_vfs(disk);
}

/* The start is done as if it had never begun before, and what it kept aside is there. */
static void check_salvaged(struct sim_disk *image)
{
    struct sim_disk *stopped = rot_disk;
    struct log_damage_range range;
    use_rot_disk(image);
    rot_open();
    assert_int_equal(rot_rig.log.segment.position, mark_end);
    assert_int_equal(rot_rig.log.durable.lsn, LAST);
    assert_int_equal(rot_ranges(&range), 2);
    assert_int_equal(range.first_lsn, LOST);
    assert_true(range.copy[0] != 0);
    assert_true(rot_kept().files >= 3); /* two ranges, and what lay above the mark */
    assert_int_equal(rot_damages(), 2);
    rot_append_anew(LAST + 1, LAST + 5);
    rot_crash(SIM_LOSE_ALL);
    rot_open();
    assert_int_equal(rot_rig.log.durable.lsn, LAST + 5);
    assert_int_equal(rot_damages(), 2);
    rig_kill(&rot_rig);
    use_rot_disk(stopped);
}

static void test_each_image_of_a_start_on_damage(void **state)
{
    (void)state;
    uint64_t before = images.count, calls = 0;
    bool is_open = false;
    for (; !is_open; calls++) {
        rot_start_over();
        make_damage();
        sim_disk_record(rot_disk, true);
        sim_disk_stop_after(rot_disk, calls);
        is_open = rot_try_open() == EXIT_DONE;
        if (is_open)
            rig_kill(&rot_rig);
        sim_images_each(&images, rot_disk, images.samples, check_salvaged);
    }
    assert_true(calls > 10);
    assert_true(images.count - before > 2 * calls);
}

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    images = sim_images_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_image_of_a_trim),
        cmocka_unit_test_setup_teardown(test_each_image_of_a_start_on_damage, rot_setup, rot_teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("count: crash images %llu\n", (unsigned long long)images.count);
    return failed;
}
