/* Trims and retention on a simulated disk: what goes goes in order, whatever stops it; and damage of no file
 * makes another one go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>

#include "crc32c.h"
#include "kept_log.h"
#include "log.h"
#include "log_verify.h"

/* ---------------------------------------------------------------- trims */

static void test_a_trimmed_log_goes_on(void **state)
{
    (void)state;
    uint64_t first, newest;
    kept_setup();
    size_t count = kept_list(&first, &newest);
    assert_true(count > 5);
    uint64_t third = kept_base_of(2);
    assert_int_equal(upkeep_rig_trim(&kept, third + 1, true, NULL), SH_OK);
    assert_int_equal(kept.trim.segments, 2);
    assert_int_equal(kept.trim.first_lsn, third);
    assert_int_equal(kept_list(&first, NULL), count); /* only said */
    assert_int_equal(upkeep_rig_trim(&kept, third + 1, false, NULL), SH_OK);
    assert_int_equal(kept.trim.segments, 2);
    assert_int_equal(kept.trim.first_lsn, third);
    assert_true(kept.trim.bytes > 2 * (KEPT_SEGMENT - 1000));
    assert_true(upkeep_rig_held_by(&kept, NULL));
    assert_int_equal(kept.trimmed_lsn, third);
    kept_restart(SIM_LOSE_ALL, 1);
    kept_check_log(third, KEPT_ENTRIES);
    assert_true(rig_prepare(&kept_rig));
    kept_append_up_to(KEPT_ENTRIES + 1, KEPT_ENTRIES + 100);
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    kept_list(&first, &newest);
    assert_int_equal(first, newest); /* never the one that is being written */
    kept_restart(SIM_LOSE_ALL, 1);
    kept_check_log(newest, KEPT_ENTRIES + 100);
    kept_teardown();
}

static void test_a_reader_of_a_trimmed_lsn_is_told(void **state)
{
    (void)state;
    struct buf out = {0};
    kept_setup();
    uint64_t third = kept_base_of(2);
    struct log_reader *reader = log_reader_open(kept_fs, kept_rig.log.dir, kept_rig.dir.identity.log);
    struct log_read read = {
        .from = 1, .durable_end = kept_rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
    assert_int_equal(log_reader_read(reader, &read, &out), SH_OK);
    assert_int_equal(upkeep_rig_trim(&kept, third, false, NULL), SH_OK);
    log_reader_close(reader);
    reader = log_reader_open(kept_fs, kept_rig.log.dir, kept_rig.dir.identity.log);
    read.from = 2;
    assert_int_equal(log_reader_read(reader, &read, &out), SH_TRIMMED);
    assert_int_equal(read.first_lsn, third);
    log_reader_close(reader);
    buf_free(&out);
    kept_teardown();
}

/* The end of the process doesn't wait for a long trim. */
static void test_a_trim_ends_when_it_must(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup();
    atomic_store(&kept.stop, true);
    assert_int_equal(upkeep_rig_trim(&kept, kept_base_of(3), false, NULL), SH_OK);
    kept_list(&first, NULL);
    assert_int_equal(first, 1);
    atomic_store(&kept.stop, false);
    assert_int_equal(upkeep_rig_trim(&kept, kept_base_of(3), false, NULL), SH_OK);
    assert_int_equal(kept.trim.segments, 3);
    kept_teardown();
}

/* The disk, where the first look at segment LSN 1 comes just after a trim. */
static struct vfs racing;
static uint64_t trim_before;
static char gone_at_open[PATH_MAX];

static int racing_open(const struct vfs *vfs, const char *path, int flags, mode_t mode)
{
    (void)vfs;
    if (gone_at_open[0] != 0 && strcmp(path, gone_at_open) == 0 && flags == O_RDONLY)
        kept_fs->unlink(kept_fs, path);
    if (trim_before != 0 && strstr(path, "/00000000000000000001.seg") != NULL) {
        uint64_t before = trim_before;
        trim_before = 0;
        assert_int_equal(upkeep_rig_trim(&kept, before, false, NULL), SH_OK);
    }
    return kept_fs->open(kept_fs, path, flags, mode);
}

static void test_whoever_lists_segments_may_meet_a_trim(void **state)
{
    (void)state;
    struct log_verify_options options = {0};
    struct log_verify_report report;
    struct log_segment *segments;
    char bad_file[SEGMENT_NAME_MAX], path[PATH_MAX];
    size_t count;
    kept_setup();
    racing = *kept_fs;
    racing.open = racing_open;
    trim_before = kept_base_of(2);
    assert_int_equal(log_verify(&racing, kept_data, &options, &report), SH_OK);
    assert_int_equal(trim_before, 0);
    kept_teardown();
    kept_setup();
    racing = *kept_fs;
    racing.open = racing_open;
    uint64_t third = trim_before = kept_base_of(2);
    enum sh_error e =
        log_list_segments(&racing, kept_rig.log.dir, kept_rig.dir.identity.log, &segments, &count, bad_file);
    assert_int_equal(e, SH_OK);
    assert_int_equal(trim_before, 0);
    assert_int_equal(segments[0].base_lsn, third);
    free(segments);
    /* One that is missing in the middle is no trim. */
    kept_path_of(kept_base_of(1), ".seg", path);
    snprintf(gone_at_open, sizeof gone_at_open, "%s", path);
    assert_int_not_equal(log_verify(&racing, kept_data, &options, &report), SH_OK);
    gone_at_open[0] = 0;
    assert_int_equal(log_verify(&racing, kept_data, &options, &report), SH_CORRUPT);
    kept_teardown();
}

/* Stopped before each of its file calls; after a start all is well, and what was answered holds. */
static void crash_in_trim(enum sim_loss loss)
{
    bool stopped = true;
    unsigned steps = 0;
    for (uint64_t calls = 0; stopped; calls++) {
        kept_setup();
        uint64_t target = kept_base_of(4), first;
        sim_disk_stop_after(kept_disk, calls);
        enum sh_error answer = upkeep_rig_trim(&kept, target, false, NULL);
        stopped = kept.fatal > 0 || answer != SH_OK;
        kept_restart(loss, calls * 7 + 1);
        kept_list(&first, NULL);
        assert_true(first <= target);
        if (!stopped)
            assert_int_equal(first, target);
        kept_check_log(first, KEPT_ENTRIES);
        assert_int_equal(upkeep_rig_trim(&kept, target, false, NULL), SH_OK);
        assert_int_equal(kept.trim.first_lsn, target);
        kept_check_log(target, KEPT_ENTRIES);
        kept_teardown();
        steps++;
    }
    assert_true(steps > 8); /* four segments: unlink and sync each */
}

static void test_a_trim_may_stop_at_every_step(void **state)
{
    (void)state;
    crash_in_trim(SIM_LOSE_NOTHING);
    crash_in_trim(SIM_LOSE_ALL);
    for (unsigned i = 0; i < 4; i++)
        crash_in_trim(SIM_LOSE_SOME);
}

/* After a failed sync nobody knows what is gone: the process ends. A failed unlink has done nothing. */
static void test_a_failed_sync_after_a_removal_is_fatal(void **state)
{
    (void)state;
    uint64_t first;
    for (unsigned calls = 0; calls < 2; calls++) {
        kept_setup();
        sim_disk_stop_after(kept_disk, calls);
        assert_int_equal(upkeep_rig_trim(&kept, kept_base_of(2), false, NULL), SH_INTERNAL);
        assert_int_equal(kept.fatal, calls);
        kept_list(&first, NULL);
        assert_int_equal(first == 1, calls == 0);
        kept_teardown();
    }
}

static void test_indexes_go_with_their_segments(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup();
    uint64_t third = kept_base_of(2);
    for (size_t i = 0; i < 3; i++) {
        kept_path_of(kept_base_of(i), ".idx", path);
        kept_fs->close(kept_fs, kept_fs->open(kept_fs, path, O_RDWR | O_CREAT, 0640));
    }
    assert_int_equal(upkeep_rig_trim(&kept, third, false, NULL), SH_OK);
    assert_false(kept_exists("00000000000000000001.idx"));
    kept_path_of(third, ".idx", path);
    assert_true(kept_exists(strrchr(path, '/') + 1));
    /* Those that a crash left behind are swept by the next trim, however many. */
    assert_int_equal(upkeep_rig_trim(&kept, kept_base_of(3), false, NULL), SH_OK);
    uint64_t first = kept_base_of(0);
    assert_true(first > 130);
    for (uint64_t lsn = 1; lsn < first; lsn++) {
        kept_path_of(lsn, lsn % 2 == 0 ? ".idx" : ".idx.tmp", path);
        kept_fs->close(kept_fs, kept_fs->open(kept_fs, path, O_RDWR | O_CREAT, 0640));
    }
    assert_int_equal(upkeep_rig_trim(&kept, first + 1, false, NULL), SH_OK); /* takes nothing */
    assert_true(kept_exists("00000000000000000002.idx"));
    assert_int_equal(upkeep_rig_trim(&kept, kept_base_of(1), false, NULL), SH_OK);
    for (uint64_t lsn = 1; lsn < first; lsn++) {
        kept_path_of(lsn, lsn % 2 == 0 ? ".idx" : ".idx.tmp", path);
        assert_false(kept_exists(strrchr(path, '/') + 1));
    }
    kept_teardown();
}

/* ---------------------------------------------------------------- damage never deletes */

/* Zeros in place of a whole file; the second time its bytes are there again. */
static void lose_bytes(const char *path, struct buf *old)
{
    struct slice file = sim_disk_file(kept_disk, path);
    uint8_t *bytes = (uint8_t *)(uintptr_t)file.data;
    if (old->len > 0) {
        memcpy(bytes, old->data, old->len);
        buf_free(old);
        return;
    }
    buf_append(old, bytes, file.len);
    memset(bytes, 0, file.len);
}

static void test_a_segment_of_which_nothing_tells_where_it_lies_stays(void **state)
{
    (void)state;
    for (size_t damaged = 0; damaged < 3; damaged++) {
        char path[PATH_MAX];
        struct buf old = {0};
        kept_setup();
        uint64_t base = kept_base_of(damaged), first;
        size_t count = kept_list(&first, NULL);
        kept_path_of(base, ".seg", path);
        lose_bytes(path, &old);
        assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
        /* The one before it stays too: its end is not known. */
        assert_int_equal(kept.trim.segments, damaged > 0 ? damaged - 1 : 0);
        assert_true(upkeep_rig_held_by(&kept, "a damaged segment header"));
        assert_int_equal(kept_list(&first, NULL), count - kept.trim.segments);
        lose_bytes(path, &old); /* mended */
        assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
        assert_int_equal(kept_list(&first, NULL), 1);
        kept_teardown();
    }
}

/* A flipped bit in a header, which nobody can mend on a node alone, does not let the log grow for ever. */
static void test_a_damaged_header_is_trimmed_when_frames_and_lengths_tell_what_it_said(void **state)
{
    (void)state;
    for (size_t damaged = 0; damaged < 8; damaged++) {
        char path[PATH_MAX];
        kept_setup();
        bool fits = damaged < 4;
        uint64_t base = kept_base_of(damaged % 4), first;
        kept_path_of(base, ".seg", path);
        kept_flip(path, 33);
        if (!fits)
            sim_disk_resize(kept_disk, path, (int64_t)sim_disk_file(kept_disk, path).len - 1);
        assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
        assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
        assert_int_equal(kept_list(&first, NULL) == 1, fits);
        assert_true(fits || first == base);
        kept_teardown();
    }
}

/* The catalogue remembers what it has seen; a file that was damaged since must not be removed by memory. */
static void test_headers_are_looked_at_again_before_a_removal(void **state)
{
    (void)state;
    char path[PATH_MAX];
    struct buf old = {0};
    uint64_t first;
    for (size_t damaged = 0; damaged < 2; damaged++) {
        kept_setup();
        size_t count = kept_list(&first, NULL);
        assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK); /* all are known now */
        kept_path_of(kept_base_of(damaged), ".seg", path);
        lose_bytes(path, &old);
        assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_INTERNAL);
        assert_int_equal(kept_list(&first, NULL), count);
        assert_int_equal(first, 1);
        buf_free(&old);
        kept_teardown();
    }
}

static void put_back(const char *path, const struct buf *bytes)
{
    int fd = kept_fs->open(kept_fs, path, O_WRONLY | O_CREAT, 0640);
    assert_int_equal(vfs_write_all(kept_fs, fd, bytes->data, bytes->len, 0), 0);
    kept_fs->close(kept_fs, fd);
}

/* A segment whose file was missing comes back by a repair, in parts: the catalogue takes it in, whatever it
 * has seen before, and a trim goes over it. */
static void test_a_segment_that_comes_back_is_trimmed_like_others(void **state)
{
    (void)state;
    for (unsigned seen = 0; seen < 8; seen++) { /* before, while it is missing, while a part of it is there */
        char path[PATH_MAX];
        uint64_t first;
        kept_setup();
        if ((seen & 1) != 0)
            assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
        uint64_t second = kept_base_of(1), fourth = kept_base_of(3);
        struct buf bytes = {0}, part = {0};
        kept_path_of(second, ".seg", path);
        struct slice file = sim_disk_file(kept_disk, path);
        buf_append(&bytes, file.data, file.len);
        buf_append(&part, file.data, 1000);
        assert_int_equal(kept_fs->unlink(kept_fs, path), 0);
        if ((seen & 2) != 0)
            assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
        put_back(path, &part);
        wal_upkeep_repaired(&kept.upkeep, second);
        if ((seen & 4) != 0)
            assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
        put_back(path, &bytes);
        wal_upkeep_repaired(&kept.upkeep, second);
        assert_int_equal(upkeep_rig_trim(&kept, second, false, NULL), SH_OK);
        assert_int_equal(kept.trim.first_lsn, second);
        kept_check_log(second, KEPT_ENTRIES);
        assert_int_equal(upkeep_rig_trim(&kept, fourth, false, NULL), SH_OK);
        assert_int_equal(kept.trim.first_lsn, fourth);
        kept_list(&first, NULL);
        assert_int_equal(first, fourth);
        kept_check_log(fourth, KEPT_ENTRIES);
        buf_free(&bytes);
        buf_free(&part);
        kept_teardown();
    }
}

static void test_without_a_mark_nothing_is_trimmed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first;
    kept_setup();
    size_t count = kept_list(&first, NULL);
    vfs_path(path, kept_rig.log.dir, "mark");
    kept_flip(path, 20);
    kept_flip(path, 512 + 20);
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(kept.trim.segments, 0);
    assert_true(upkeep_rig_held_by(&kept, "the durable mark"));
    assert_int_equal(kept_list(&first, NULL), count);
    kept_teardown();
}

/* Whatever is wrong with the register, nothing goes that may have been held, until somebody says so. */
static void lose_register(void (*damage)(const char *path))
{
    char path[PATH_MAX];
    struct wal_upkeep_settings settings = {.retention_bytes = 1};
    uint64_t first;
    kept_setup();
    size_t count = kept_list(&first, NULL);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", 5, 0), SH_OK);
    vfs_path(path, kept_rig.log.dir, "holds");
    damage(path);
    kept.settings = settings;
    kept_restart(SIM_LOSE_NOTHING, 1);
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    assert_true(upkeep_rig_held_by(&kept, "member lost-register"));
    assert_int_equal(kept_list(&first, NULL), count);
    kept_restart(SIM_LOSE_ALL, 1); /* and that is remembered */
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), count);
    assert_int_equal(upkeep_rig_trim(&kept, 0, false, "lost-register"), SH_OK);
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), 1);
    kept_teardown();
}

static void flip_register(const char *path)
{
    kept_flip(path, 40);
}

static void remove_register(const char *path)
{
    assert_int_equal(kept_fs->unlink(kept_fs, path), 0);
}

static void empty_register(const char *path)
{
    sim_disk_resize(kept_disk, path, 0);
}

static void test_a_lost_register_holds_everything(void **state)
{
    (void)state;
    lose_register(flip_register);
    lose_register(remove_register);
    lose_register(empty_register);
}

static void test_a_lost_register_does_not_hold_for_ever(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first;
    kept_setup();
    vfs_path(path, kept_rig.log.dir, "holds");
    kept_flip(path, 0);
    kept.settings = (struct wal_upkeep_settings){.retention_bytes = 1, .member_hold_max = 3 * KEPT_SEGMENT};
    kept_restart(SIM_LOSE_NOTHING, 1);
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), 1);
    kept_teardown();
}

static void test_a_register_of_another_version_is_not_touched(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint8_t bytes[36] = {'S', 'H', 'H', 'O', 'L', 'D', 2};
    kept_setup();
    memcpy(bytes + 8, kept_rig.dir.identity.log.bytes, 16);
    uint32_t crc = crc32c(0, bytes, 32);
    for (unsigned i = 0; i < 4; i++)
        bytes[32 + i] = (uint8_t)(crc >> 8 * i);
    assert_int_equal(vfs_replace_file(kept_fs, kept_rig.log.dir, "holds", bytes, sizeof bytes), 0);
    upkeep_rig_close(&kept);
    uint64_t calls = sim_disk_calls(kept_disk);
    assert_int_equal(upkeep_rig_open(&kept, &kept_rig), EXIT_CONFIG);
    assert_int_equal(sim_disk_calls(kept_disk), calls);
    vfs_path(path, kept_rig.log.dir, "holds");
    assert_memory_equal(sim_disk_file(kept_disk, path).data, bytes, sizeof bytes);
    rig_kill(&kept_rig);
    sim_disk_close(kept_disk);
}

/* ---------------------------------------------------------------- retention */

static void test_retention_by_bytes(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup();
    size_t count = kept_list(&first, NULL);
    kept.settings.retention_bytes = 4 * KEPT_SEGMENT;
    wal_upkeep_set(&kept.upkeep, &kept.settings);
    assert_int_equal(wal_upkeep_tidy(&kept.upkeep, kept.now), INT64_MAX);
    size_t left = kept_list(&first, NULL);
    assert_true(left < count && left >= 4);
    assert_true(first > 1);
    kept_restart(SIM_LOSE_ALL, 1);
    kept_check_log(first, KEPT_ENTRIES);
    kept_teardown();
}

static void test_retention_by_age(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup();
    size_t count = kept_list(&first, NULL);
    kept.settings.retention_age_ns = 100 * NS_PER_S;
    wal_upkeep_set(&kept.upkeep, &kept.settings);
    int64_t due_ns = wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), count);
    assert_in_range(due_ns - kept.now.mono_ns, 99 * NS_PER_S, 101 * NS_PER_S);
    kept.now.real_ns += due_ns - kept.now.mono_ns;
    kept.now.mono_ns = due_ns;
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_true(kept_list(&first, NULL) < count);
    kept.now.real_ns += NS_PER_S;
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), 1); /* what is being written is no matter of age */
    kept_teardown();
}

static void pass_time(int64_t ns)
{
    kept.now.real_ns += ns;
    kept.now.mono_ns += ns;
    wal_upkeep_tidy(&kept.upkeep, kept.now);
}

static void test_a_clock_that_jumps_ahead_ages_nothing_for_a_day(void **state)
{
    (void)state;
    const int64_t hour_ns = 3600 * NS_PER_S;
    uint64_t first;
    kept_setup();
    size_t count = kept_list(&first, NULL);
    kept.settings.retention_age_ns = 100 * hour_ns;
    wal_upkeep_set(&kept.upkeep, &kept.settings);
    pass_time(hour_ns);
    kept.now.real_ns += 1000 * hour_ns;
    pass_time(0);
    pass_time(23 * hour_ns);
    assert_int_equal(kept_list(&first, NULL), count);
    kept.now.real_ns -= 1000 * hour_ns; /* it was set right */
    pass_time(0);
    pass_time(2 * hour_ns);
    assert_int_equal(kept_list(&first, NULL), count);
    kept.now.real_ns += 1000 * hour_ns;
    pass_time(23 * hour_ns);
    kept.now.real_ns += 2 * hour_ns; /* again a bit: a day from now on */
    pass_time(0);
    pass_time(23 * hour_ns);
    assert_int_equal(kept_list(&first, NULL), count);
    assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
    pass_time(hour_ns); /* it is meant so */
    assert_int_equal(kept_list(&first, NULL), 1);
    kept_teardown();
}

/* What is old by the time that has passed since goes as it always does, whether the clock is set right or
 * not.
 */
static void test_behind_a_jump_of_the_clock_time_goes_on(void **state)
{
    (void)state;
    const int64_t hour_ns = 3600 * NS_PER_S;
    uint64_t first;
    for (unsigned set_right = 0; set_right < 2; set_right++) {
        kept_setup();
        kept.settings.retention_age_ns = 10 * hour_ns;
        wal_upkeep_set(&kept.upkeep, &kept.settings);
        kept.now.real_ns += 1000 * hour_ns;
        pass_time(hour_ns);
        kept.now.real_ns -= set_right * 1000 * hour_ns;
        pass_time(8 * hour_ns);
        assert_true(kept_list(&first, NULL) > 1);
        pass_time(2 * hour_ns);
        assert_int_equal(kept_list(&first, NULL), 1);
        kept_teardown();
    }
}

static void test_a_member_that_is_away_is_broken_and_told(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup();
    size_t count = kept_list(&first, NULL);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", 1, 0), SH_OK);
    kept.settings = (struct wal_upkeep_settings){.retention_bytes = 1, .member_hold_max = 100 * KEPT_SEGMENT};
    wal_upkeep_set(&kept.upkeep, &kept.settings);
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), count);
    kept.settings.member_hold_max = 3 * KEPT_SEGMENT;
    wal_upkeep_set(&kept.upkeep, &kept.settings);
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(kept_list(&first, NULL), 1);
    assert_true(kept.upkeep.holds.all[0].broken);
    kept_restart(SIM_LOSE_ALL, 1);
    assert_true(kept.upkeep.holds.all[0].broken); /* shown until its holder comes back */
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", 1, 0), SH_TRIMMED);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", kept.expected, 0), SH_OK);
    assert_false(kept.upkeep.holds.all[0].broken);
    kept_teardown();
}

static void test_an_expiring_hold_is_a_reason_to_look_again(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup();
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_BACKUP, "b", 1, 5000), SH_OK);
    kept.settings.retention_bytes = 1;
    wal_upkeep_set(&kept.upkeep, &kept.settings);
    int64_t due_ns = wal_upkeep_tidy(&kept.upkeep, kept.now);
    assert_int_equal(due_ns, kept.now.mono_ns + 5 * NS_PER_S);
    kept.now.real_ns += 5 * NS_PER_S;
    kept.now.mono_ns = due_ns;
    assert_int_equal(wal_upkeep_tidy(&kept.upkeep, kept.now), INT64_MAX);
    assert_int_equal(kept_list(&first, NULL), 1);
    kept_teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_trimmed_log_goes_on),
        cmocka_unit_test(test_a_reader_of_a_trimmed_lsn_is_told),
        cmocka_unit_test(test_a_trim_ends_when_it_must),
        cmocka_unit_test(test_whoever_lists_segments_may_meet_a_trim),
        cmocka_unit_test(test_a_trim_may_stop_at_every_step),
        cmocka_unit_test(test_a_failed_sync_after_a_removal_is_fatal),
        cmocka_unit_test(test_indexes_go_with_their_segments),
        cmocka_unit_test(test_a_segment_of_which_nothing_tells_where_it_lies_stays),
        cmocka_unit_test(test_a_damaged_header_is_trimmed_when_frames_and_lengths_tell_what_it_said),
        cmocka_unit_test(test_headers_are_looked_at_again_before_a_removal),
        cmocka_unit_test(test_a_segment_that_comes_back_is_trimmed_like_others),
        cmocka_unit_test(test_without_a_mark_nothing_is_trimmed),
        cmocka_unit_test(test_a_lost_register_holds_everything),
        cmocka_unit_test(test_a_lost_register_does_not_hold_for_ever),
        cmocka_unit_test(test_a_register_of_another_version_is_not_touched),
        cmocka_unit_test(test_retention_by_bytes),
        cmocka_unit_test(test_retention_by_age),
        cmocka_unit_test(test_a_clock_that_jumps_ahead_ages_nothing_for_a_day),
        cmocka_unit_test(test_behind_a_jump_of_the_clock_time_goes_on),
        cmocka_unit_test(test_a_member_that_is_away_is_broken_and_told),
        cmocka_unit_test(test_an_expiring_hold_is_a_reason_to_look_again),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
