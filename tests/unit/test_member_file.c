/* data/member on a simulated disk: a crash leaves the old state or the new one, damage is put aside, what is
 * of a newer version is left alone, a disk that fails ends the process, one that is full doesn't. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "member_file.h"
#include "sim_disk.h"

static const char data_dir[] = "/data", path[] = "/data/member";

struct rig {
    struct sim_disk *disk;
    const struct vfs *fs;
    struct loop *loop;
    struct member_file *file;
    unsigned written, full;
};

static void on_written(void *arg, bool full)
{
    struct rig *rig = arg;
    full ? rig->full++ : rig->written++;
}

static void make_folder(const struct vfs *fs)
{
    assert_int_equal(fs->mkdir(fs, data_dir, 0750), 0);
    assert_int_equal(fs->sync_dir(fs, "/"), 0);
}

static void open_rig(struct rig *rig)
{
    *rig = (struct rig){.disk = sim_disk_open(), .loop = loop_open()};
    rig->fs = sim_disk_vfs(rig->disk);
    make_folder(rig->fs);
    rig->file = member_file_open(rig->fs, data_dir, rig->loop, on_written, rig);
}

static void close_rig(struct rig *rig)
{
    member_file_close(rig->file);
    loop_close(rig->loop);
    sim_disk_close(rig->disk);
}

/* Writes, and waits until that is done or refused. */
static void write_text(struct rig *rig, const char *text)
{
    struct buf body = {0};
    unsigned before = rig->written + rig->full;
    int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;
    buf_append_str(&body, text);
    assert_true(member_file_is_idle(rig->file));
    member_file_write(rig->file, &body);
    assert_null(body.data);
    while (rig->written + rig->full == before && clock_mono_ns() < end_ns)
        loop_step(rig->loop, 100);
    assert_int_equal(rig->written + rig->full, before + 1);
    assert_true(member_file_is_idle(rig->file));
}

static void expect_text(const struct vfs *fs, const char *text)
{
    struct buf body = {0};
    assert_int_equal(member_file_read(fs, data_dir, &body), EXIT_DONE);
    assert_string_equal(buf_cstr(&body), text);
    buf_free(&body);
}

static bool note_name(void *arg, const char *name)
{
    snprintf(arg, 64, "%s", name);
    return true;
}

/* The one file in the quarantine, or nothing. */
static void quarantined(const struct vfs *fs, char file[128])
{
    char name[64] = "";
    fs->list(fs, "/data/quarantine", note_name, name);
    snprintf(file, 128, "%s%s", name[0] != 0 ? "/data/quarantine/" : "", name);
}

/* ---- what is written is read ---- */

static void test_what_is_written_is_read(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig);
    expect_text(rig.fs, "");
    write_text(&rig, "one");
    expect_text(rig.fs, "one");
    write_text(&rig, "the second, longer");
    write_text(&rig, "3");
    sim_disk_crash(rig.disk, SIM_LOSE_ALL, 1); /* all that was told to be written is on disk */
    expect_text(rig.fs, "3");
    close_rig(&rig);
}

static void test_the_bytes_are_those_of_the_document(void **state)
{
    static const uint8_t head[] = {'S', 'H', 'M', 'E', 'M', 'B', 0, 1, 0, 0, 0, 9, 0xe3, 0x06, 0x92, 0x83};
    struct rig rig;
    (void)state;
    open_rig(&rig);
    write_text(&rig, "123456789"); /* whose CRC-32C is known */
    struct slice file = sim_disk_file(rig.disk, path);
    assert_int_equal(file.len, sizeof head + 9);
    assert_memory_equal(file.data, head, sizeof head);
    assert_memory_equal(file.data + sizeof head, "123456789", 9);
    close_rig(&rig);
}

static void test_closing_waits_for_the_last_write(void **state)
{
    struct rig rig;
    struct buf body = {0};
    (void)state;
    open_rig(&rig);
    buf_append_str(&body, "last");
    member_file_write(rig.file, &body);
    member_file_close(rig.file);
    assert_int_equal(rig.written, 1);
    expect_text(rig.fs, "last");
    rig.file = member_file_open(rig.fs, data_dir, rig.loop, on_written, &rig);
    close_rig(&rig);
}

/* ---- crashes ---- */

/* As many calls as a whole write makes. */
static uint64_t calls_of_a_write(void)
{
    struct rig rig;
    open_rig(&rig);
    write_text(&rig, "old");
    uint64_t before = sim_disk_calls(rig.disk);
    write_text(&rig, "new, and longer");
    uint64_t calls = sim_disk_calls(rig.disk) - before;
    close_rig(&rig);
    return calls;
}

/* The disk stops at that call; the process that writes ends of it. */
static void crash_at(uint64_t call, enum sim_loss loss, uint64_t seed)
{
    struct sim_disk *disk = sim_disk_open();
    const struct vfs *fs = sim_disk_vfs(disk);
    struct buf body = {0};
    static const uint8_t old[] = {'S',  'H',  'M',  'E', 'M', 'B', 0,   1,   0,   0,   0,   9,  0xe3,
                                  0x06, 0x92, 0x83, '1', '2', '3', '4', '5', '6', '7', '8', '9'};
    make_folder(fs);
    assert_int_equal(vfs_replace_file(fs, data_dir, "member", old, sizeof old), 0);
    sim_disk_stop_after(disk, call);
    uint8_t new[sizeof old + 600];
    memset(new, 'x', sizeof new); /* the bytes don't matter to who replaces them */
    memcpy(new, "SHMEMB\0\1", 8);
    bool done = vfs_replace_file(fs, data_dir, "member", new, sizeof new) == 0;
    sim_disk_crash(disk, loss, seed);
    struct slice file = sim_disk_file(disk, path);
    bool is_old = slice_equal(file, slice_of(old, sizeof old)),
         is_new = slice_equal(file, slice_of(new, sizeof new));
    assert_true(is_new || (is_old && !done));
    if (is_old)
        assert_int_equal(member_file_read(fs, data_dir, &body), EXIT_DONE);
    if (is_old)
        assert_string_equal(buf_cstr(&body), "123456789");
    buf_free(&body);
    sim_disk_close(disk);
}

static void test_a_crash_leaves_the_old_or_the_new_state(void **state)
{
    (void)state;
    uint64_t calls = calls_of_a_write(), seed = random_u64();
    printf("seed %llu\n", (unsigned long long)seed);
    assert_true(calls >= 4);
    for (uint64_t call = 0; call <= calls; call++)
        for (int loss = SIM_LOSE_NOTHING; loss <= SIM_LOSE_SOME; loss++)
            for (uint64_t i = 0; i < (loss == SIM_LOSE_SOME ? 50 : 1); i++)
                crash_at(call, (enum sim_loss)loss, seed + i);
}

/* ---- damage ---- */

static void expect_damaged(struct rig *rig, struct slice before)
{
    char file[128];
    struct buf copy = {0};
    buf_append(&copy, before.data, before.len);
    expect_text(rig->fs, "");
    assert_int_equal(rig->fs->open(rig->fs, path, 0, 0), -ENOENT);
    quarantined(rig->fs, file);
    sim_disk_crash(rig->disk, SIM_LOSE_ALL, 1);
    assert_true(slice_equal(sim_disk_file(rig->disk, file), buf_slice(&copy)));
    assert_int_equal(rig->fs->unlink(rig->fs, file), 0);
    buf_free(&copy);
}

static void test_each_damaged_byte_is_noticed_and_the_file_kept(void **state)
{
    (void)state;
    for (size_t at = 0; at < 16 + 8; at++) {
        struct rig rig;
        open_rig(&rig);
        write_text(&rig, "the body");
        uint8_t bits = at == 7 ? 1 : 0x40; /* the format's version becomes 0: a higher one is no damage */
        if (at != 6) {
            sim_disk_flip(rig.disk, path, at, bits);
            expect_damaged(&rig, sim_disk_file(rig.disk, path));
            write_text(&rig, "goes on");
            expect_text(rig.fs, "goes on");
        }
        close_rig(&rig);
    }
}

static void test_a_cut_or_lengthened_file_is_damaged(void **state)
{
    static const size_t lengths[] = {0, 1, 15, 16, 23, 25, 4096};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct rig rig;
        open_rig(&rig);
        write_text(&rig, "the body");
        sim_disk_resize(rig.disk, path, lengths[i]);
        expect_damaged(&rig, sim_disk_file(rig.disk, path));
        close_rig(&rig);
    }
}

static void test_a_newer_format_is_refused_and_left_alone(void **state)
{
    struct rig rig;
    struct buf body = {0}, copy = {0};
    (void)state;
    open_rig(&rig);
    write_text(&rig, "the body");
    sim_disk_flip(rig.disk, path, 7, 3); /* 1 becomes 2 */
    struct slice file = sim_disk_file(rig.disk, path);
    buf_append(&copy, file.data, file.len);
    assert_int_equal(member_file_read(rig.fs, data_dir, &body), EXIT_CONFIG);
    assert_int_equal(body.len, 0);
    assert_true(slice_equal(sim_disk_file(rig.disk, path), buf_slice(&copy)));
    buf_free(&body);
    buf_free(&copy);
    close_rig(&rig);
}

static void test_a_quarantine_that_cannot_be_made_is_a_fault(void **state)
{
    struct rig rig;
    struct buf body = {0};
    (void)state;
    open_rig(&rig);
    write_text(&rig, "the body");
    sim_disk_flip(rig.disk, path, 20, 1);
    sim_disk_stop_after(rig.disk, 0);
    assert_int_equal(member_file_read(rig.fs, data_dir, &body), EXIT_FAULT);
    buf_free(&body);
    close_rig(&rig);
}

/* ---- disks that fail ---- */

static void test_a_full_disk_is_told_and_a_later_write_succeeds(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig);
    write_text(&rig, "old");
    sim_disk_set_full(rig.disk, true);
    write_text(&rig, "no room for this");
    write_text(&rig, "nor for this");
    assert_int_equal(rig.full, 2);
    expect_text(rig.fs, "old");
    sim_disk_set_full(rig.disk, false);
    write_text(&rig, "again");
    assert_int_equal(rig.written, 2);
    sim_disk_crash(rig.disk, SIM_LOSE_ALL, 1);
    expect_text(rig.fs, "again");
    close_rig(&rig);
}

static void test_a_failed_sync_ends_the_process(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        struct rig rig;
        open_rig(&rig);
        write_text(&rig, "old");
        sim_disk_fail_next_sync(rig.disk);
        write_text(&rig, "new");
        _exit(99); /* it went on */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_the_bytes_are_those_of_the_document),
        cmocka_unit_test(test_closing_waits_for_the_last_write),
        cmocka_unit_test(test_a_crash_leaves_the_old_or_the_new_state),
        cmocka_unit_test(test_each_damaged_byte_is_noticed_and_the_file_kept),
        cmocka_unit_test(test_a_cut_or_lengthened_file_is_damaged),
        cmocka_unit_test(test_a_newer_format_is_refused_and_left_alone),
        cmocka_unit_test(test_a_quarantine_that_cannot_be_made_is_a_fault),
        cmocka_unit_test(test_a_full_disk_is_told_and_a_later_write_succeeds),
        cmocka_unit_test(test_a_failed_sync_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
