/* The write permit on a simulated disk: what was answered holds after any crash, and a damaged file never
 * lets anybody write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checked_text.h"
#include "log.h"
#include "sim_images.h"
#include "wal_rig.h"

enum { SEGMENT = 1 << 20 };
static const char data[] = "/data", file[] = "/data/permit", left[] = "n1 has left the cluster";
static struct sim_disk *disk;
static struct wal_rig rig;

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

static enum service_exit restart(enum sim_loss loss, uint64_t seed)
{
    rig_kill(&rig);
    sim_disk_crash(disk, loss, seed);
    return rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT);
}

/* 0: answered, or a frame has to be committed first. */
static int permit(bool allowed, const char *reason)
{
    struct msg_write_permit m = {.allowed = allowed, .reason = slice_str(reason)};
    struct link_token token = {1, ++rig.requests};
    return wal_permit_take(&rig.dir.permit, rig.core, token, &m);
}

/* SH_OK: taken and durable. */
static enum sh_error append(void)
{
    uint64_t number = rig_append(&rig, 0, 0, 0, slice_str("x"));
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[number].times, 1);
    return rig.answers[number].code;
}

static void test_the_permit_survives_a_restart(void **state)
{
    (void)state;
    assert_int_equal(append(), SH_OK);
    assert_int_equal(permit(true, ""), 0); /* as it is without a file */
    assert_null(sim_disk_file(disk, file).data);
    assert_int_equal(permit(false, left), 0);
    assert_int_equal(rig.answers[rig.requests].settled_lsn, 1);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(append(), SH_READ_ONLY);
        assert_string_equal(rig.refusal, left);
        assert_int_equal(restart(SIM_LOSE_ALL, 1), EXIT_DONE);
    }
    assert_int_equal(permit(true, ""), 0);
    assert_int_equal(append(), SH_OK);
    assert_int_equal(restart(SIM_LOSE_ALL, 1), EXIT_DONE);
    assert_int_equal(append(), SH_OK);
    assert_int_equal(rig.log.durable.lsn, 3);
}

static void test_what_is_said_again_is_not_written_again(void **state)
{
    (void)state;
    assert_int_equal(permit(false, left), 0);
    uint64_t calls = sim_disk_calls(disk);
    assert_int_equal(permit(false, left), 0);
    assert_int_equal(sim_disk_calls(disk), calls);
    assert_int_equal(rig.answers[rig.requests].times, 1);
    assert_int_equal(permit(false, "n1 was replaced"), 0);
    assert_true(sim_disk_calls(disk) > calls);
    assert_int_equal(restart(SIM_LOSE_ALL, 1), EXIT_DONE);
    assert_int_equal(append(), SH_READ_ONLY);
    assert_string_equal(rig.refusal, "n1 was replaced");
}

static void test_a_reason_is_one_line_of_text(void **state)
{
    (void)state;
    char reason[257];
    memset(reason, 'r', sizeof reason - 1);
    memcpy(reason, "a\nchecksum 0\x7f", 12);
    reason[256] = 0;
    assert_int_equal(permit(false, reason), 0);
    assert_int_equal(restart(SIM_LOSE_ALL, 1), EXIT_DONE);
    assert_int_equal(append(), SH_READ_ONLY);
    assert_int_equal(strlen(rig.refusal), 256);
    assert_memory_equal(rig.refusal, "a checksum 0 r", 12);
    assert_int_equal(permit(false, ""), 0);
    assert_int_equal(append(), SH_READ_ONLY);
    assert_true(strlen(rig.refusal) > 0);
}

/* ---------------------------------------------------------------- damage */

static void expect_read_only_until_told(void)
{
    assert_int_equal(restart(SIM_LOSE_NOTHING, 1), EXIT_DONE);
    assert_int_equal(append(), SH_READ_ONLY);
    assert_non_null(strstr(rig.refusal, file));
    assert_int_equal(permit(true, ""), 0);
    assert_int_equal(append(), SH_OK);
    assert_int_equal(restart(SIM_LOSE_ALL, 1), EXIT_DONE);
    assert_int_equal(append(), SH_OK);
}

/* Of a file that allows and of one that refuses. */
static void test_a_damaged_file_takes_no_writes_until_membersvc_says_so(void **state)
{
    (void)state;
    for (unsigned allowed = 0; allowed < 2; allowed++) {
        assert_int_equal(permit(false, left), 0);
        assert_int_equal(permit(allowed, allowed ? "" : left), 0);
        size_t len = sim_disk_file(disk, file).len;
        for (size_t at = 0; at < 2 * len; at++) {
            assert_int_equal(permit(false, left), 0);
            assert_int_equal(permit(allowed, allowed ? "" : left), 0);
            if (at < len)
                sim_disk_flip(disk, file, at, 1 + at % 255);
            else
                sim_disk_resize(disk, file, at - len);
            expect_read_only_until_told();
        }
    }
    assert_int_equal(permit(false, left), 0);
    assert_int_equal(permit(true, ""), 0);
    sim_disk_resize(disk, file, sim_disk_file(disk, file).len + 1);
    expect_read_only_until_told();
}

static void test_the_file_of_another_log_takes_no_writes(void **state)
{
    (void)state;
    assert_int_equal(permit(false, left), 0);
    assert_int_equal(permit(true, ""), 0);
    struct slice text = sim_disk_file(disk, file);
    struct buf kept = {0};
    buf_append(&kept, text.data, text.len);
    struct sim_disk *first = disk;
    rig_kill(&rig);
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_int_equal(vfs_replace_file(sim_disk_vfs(disk), data, "permit", kept.data, kept.len), 0);
    expect_read_only_until_told();
    buf_free(&kept);
    sim_disk_close(first);
}

static void test_a_later_version_is_refused(void **state)
{
    (void)state;
    static const char lines[] = "shanghai permit 2\nwhatever\nchecksum 00000000\n";
    assert_int_equal(permit(false, left), 0);
    assert_int_equal(vfs_replace_file(sim_disk_vfs(disk), data, "permit", lines, sizeof lines - 1), 0);
    expect_read_only_until_told(); /* its checksum is wrong: damage */
    struct buf good = {0};
    buf_printf(&good, "shanghai permit 2\nwhatever\n");
    assert_int_equal(checked_text_write(&good, sim_disk_vfs(disk), data, "permit"), 0);
    buf_free(&good);
    assert_int_equal(restart(SIM_LOSE_NOTHING, 1), EXIT_CONFIG);
}

static void test_a_full_disk_lets_nobody_write(void **state)
{
    (void)state;
    assert_int_equal(append(), SH_OK);
    sim_disk_set_full(disk, true);
    int result = permit(false, left);
    assert_true(wal_is_full(result));
    assert_int_equal(rig.answers[rig.requests].times, 0); /* it is not on disk */
    assert_int_equal(append(), SH_READ_ONLY);
    sim_disk_set_full(disk, false);
    assert_int_equal(permit(false, left), 0);
    assert_int_equal(rig.answers[rig.requests].times, 1);
    sim_disk_set_full(disk, true);
    assert_true(wal_is_full(permit(true, "")));
    assert_int_equal(append(), SH_READ_ONLY);
    assert_int_equal(restart(SIM_LOSE_ALL, 1), EXIT_DONE);
    assert_int_equal(append(), SH_READ_ONLY);
}

/* ---------------------------------------------------------------- crashes */

/* What a start may find: of the last answered one and those behind it. */
static bool may_refuse, may_allow;

static void check_image(struct sim_disk *image)
{
    static struct wal_rig other;
    assert_int_equal(rig_open(&other, sim_disk_vfs(image), data, SEGMENT), EXIT_DONE);
    uint64_t number = rig_append(&other, 0, 0, 0, slice_str("x"));
    assert_true(rig_commit(&other));
    if (other.answers[number].code == SH_OK)
        assert_true(may_allow);
    else
        assert_true(may_refuse && strcmp(other.refusal, left) == 0); /* never damaged */
    rig_kill(&other);
}

/* A no, a yes, a no, ..., cut short at each call; false: the disk has stopped. */
static bool live(unsigned steps)
{
    may_allow = true;
    may_refuse = false;
    for (unsigned step = 0; step < steps; step++) {
        bool allows = step % 2 == 1;
        may_allow = may_allow || allows;
        may_refuse = may_refuse || !allows;
        if (permit(allows, left) != 0)
            return false;
        may_allow = allows;
        may_refuse = !allows;
    }
    return true;
}

static void test_every_crash_image_has_the_old_permit_or_the_new_one(void **state)
{
    struct sim_images images = sim_images_open();
    printf("seed %llu\n", (unsigned long long)images.random);
    for (unsigned steps = 1; steps <= 3; steps++) {
        bool stopped = true;
        for (uint64_t calls = 0; stopped; calls++) {
            teardown(state);
            setup(state);
            assert_int_equal(append(), SH_OK);
            sim_disk_record(disk, true);
            sim_disk_stop_after(disk, calls);
            stopped = !live(steps);
            sim_images_each(&images, disk, UINT64_MAX, check_image);
        }
    }
    printf("count: crash images %llu\n", (unsigned long long)images.count);
    assert_true(images.count > 50);
}

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_permit_survives_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_said_again_is_not_written_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_reason_is_one_line_of_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_file_takes_no_writes_until_membersvc_says_so, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_file_of_another_log_takes_no_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_later_version_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_lets_nobody_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_crash_image_has_the_old_permit_or_the_new_one, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
