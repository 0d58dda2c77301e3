/* Holds, trims and the scrubber on a simulated disk: what is held stays, what goes goes in order, whatever
 * stops it; and damage of any of their files costs no entry. */
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
#include "log.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "upkeep_rig.h"

enum { SEGMENT = 16 << 10, PAYLOAD = 400, ENTRIES = 300 };
static const char data[] = "/data";
static struct wal_rig rig;
static struct upkeep_rig keep;
static struct sim_disk *disk;
static const struct vfs *fs;

static struct slice payload_of(uint64_t n)
{
    static uint8_t bytes[PAYLOAD];
    memset(bytes, (int)n, sizeof bytes);
    memcpy(bytes, &n, sizeof n);
    return slice_of(bytes, sizeof bytes);
}

static void append_up_to(uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n <= to; n++) {
        rig_append(&rig, 7, 1, n, payload_of(n));
        assert_true(rig_commit(&rig));
    }
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
}

/* A log with ENTRIES entries in several segments, and its upkeep. */
static void setup_with(const struct wal_upkeep_settings *settings)
{
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    memset(&keep, 0, sizeof keep);
    keep.now = (struct wal_upkeep_time){rig.now_ns, NS_PER_S};
    if (settings != NULL)
        keep.settings = *settings;
    assert_int_equal(upkeep_rig_open(&keep, &rig), EXIT_DONE);
    assert_int_equal(wal_upkeep_tidy(&keep.upkeep, keep.now), INT64_MAX); /* writes the empty register */
    assert_true(rig_prepare(&rig));
    append_up_to(1, ENTRIES);
}

static void setup(void)
{
    setup_with(NULL);
}

static void teardown(void)
{
    upkeep_rig_close(&keep);
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_close(disk);
}

/* The process ends, and is started again. */
static void restart(enum sim_loss loss, uint64_t seed)
{
    upkeep_rig_close(&keep);
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_crash(disk, loss, seed);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    assert_int_equal(upkeep_rig_open(&keep, &rig), EXIT_DONE);
}

static uint64_t list(uint64_t *first, uint64_t *newest)
{
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(fs, rig.log.dir, &bases, &count), 0);
    *first = bases[0];
    if (newest != NULL)
        *newest = bases[count - 1];
    free(bases);
    return count;
}

static uint64_t base_of(size_t index)
{
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(fs, rig.log.dir, &bases, &count), 0);
    assert_true(index < count);
    uint64_t base = bases[index];
    free(bases);
    return base;
}

static void path_of(uint64_t base, const char *suffix, char path[PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "%020llu%s", (unsigned long long)base, suffix);
    vfs_path(path, rig.log.dir, name);
}

static bool exists(const char *name)
{
    char path[PATH_MAX];
    vfs_path(path, rig.log.dir, name);
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    return fd >= 0;
}

static void flip(const char *path, size_t at)
{
    struct slice bytes = sim_disk_file(disk, path);
    assert_true(at < bytes.len);
    ((uint8_t *)(uintptr_t)bytes.data)[at] ^= 0x10;
}

/* Entries from the first LSN left to the last are there, nothing is damaged, and the producer goes on. */
static void check_log(uint64_t first, uint64_t last)
{
    struct log_verify_options options = {0};
    struct log_verify_report report;
    uint64_t found;
    assert_int_equal(log_verify(fs, data, &options, &report), SH_OK);
    list(&found, NULL);
    assert_int_equal(found, first);
    assert_int_equal(report.entries, last - first + 1);
    assert_int_equal(rig.log.durable.lsn, last);
    uint64_t again = rig_append(&rig, 7, 1, last, payload_of(last));
    assert_int_equal(rig.answers[again].reply.lsn, last);
}

/* ---------------------------------------------------------------- trims */

static void test_a_trimmed_log_goes_on(void **state)
{
    (void)state;
    uint64_t first, newest;
    setup();
    size_t count = list(&first, &newest);
    assert_true(count > 5);
    uint64_t third = base_of(2);
    assert_int_equal(upkeep_rig_trim(&keep, third + 1, true, NULL), SH_OK);
    assert_int_equal(keep.trim.segments, 2);
    assert_int_equal(keep.trim.first_lsn, third);
    assert_int_equal(list(&first, NULL), count); /* only said */
    assert_int_equal(upkeep_rig_trim(&keep, third + 1, false, NULL), SH_OK);
    assert_int_equal(keep.trim.segments, 2);
    assert_int_equal(keep.trim.first_lsn, third);
    assert_true(keep.trim.bytes > 2 * (SEGMENT - 1000));
    assert_true(upkeep_rig_held_by(&keep, NULL));
    assert_int_equal(keep.trimmed_lsn, third);
    restart(SIM_LOSE_ALL, 1);
    check_log(third, ENTRIES);
    assert_true(rig_prepare(&rig));
    append_up_to(ENTRIES + 1, ENTRIES + 100);
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    list(&first, &newest);
    assert_int_equal(first, newest); /* never the one that is being written */
    restart(SIM_LOSE_ALL, 1);
    check_log(newest, ENTRIES + 100);
    teardown();
}

static void test_a_reader_of_a_trimmed_lsn_is_told(void **state)
{
    (void)state;
    struct buf out = {0};
    setup();
    uint64_t third = base_of(2);
    struct log_reader *reader = log_reader_open(fs, rig.log.dir, rig.dir.identity.log);
    struct log_read read = {.from = 1, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
    assert_int_equal(log_reader_read(reader, &read, &out), SH_OK);
    assert_int_equal(upkeep_rig_trim(&keep, third, false, NULL), SH_OK);
    log_reader_close(reader);
    reader = log_reader_open(fs, rig.log.dir, rig.dir.identity.log);
    read.from = 2;
    assert_int_equal(log_reader_read(reader, &read, &out), SH_TRIMMED);
    assert_int_equal(read.first_lsn, third);
    log_reader_close(reader);
    buf_free(&out);
    teardown();
}

/* The end of the process doesn't wait for a long trim. */
static void test_a_trim_ends_when_it_must(void **state)
{
    (void)state;
    uint64_t first;
    setup();
    atomic_store(&keep.stop, true);
    assert_int_equal(upkeep_rig_trim(&keep, base_of(3), false, NULL), SH_OK);
    list(&first, NULL);
    assert_int_equal(first, 1);
    atomic_store(&keep.stop, false);
    assert_int_equal(upkeep_rig_trim(&keep, base_of(3), false, NULL), SH_OK);
    assert_int_equal(keep.trim.segments, 3);
    teardown();
}

/* The disk, where the first look at segment LSN 1 comes just after a trim. */
static struct vfs racing;
static uint64_t trim_before;
static char gone_at_open[PATH_MAX];

static int racing_open(const struct vfs *vfs, const char *path, int flags, mode_t mode)
{
    (void)vfs;
    if (gone_at_open[0] != 0 && strcmp(path, gone_at_open) == 0 && flags == O_RDONLY)
        fs->unlink(fs, path);
    if (trim_before != 0 && strstr(path, "/00000000000000000001.seg") != NULL) {
        uint64_t before = trim_before;
        trim_before = 0;
        assert_int_equal(upkeep_rig_trim(&keep, before, false, NULL), SH_OK);
    }
    return fs->open(fs, path, flags, mode);
}

static void test_whoever_lists_segments_may_meet_a_trim(void **state)
{
    (void)state;
    struct log_verify_options options = {0};
    struct log_verify_report report;
    struct log_segment *segments;
    char bad_file[SEGMENT_NAME_MAX], path[PATH_MAX];
    size_t count;
    setup();
    racing = *fs;
    racing.open = racing_open;
    trim_before = base_of(2);
    assert_int_equal(log_verify(&racing, data, &options, &report), SH_OK);
    assert_int_equal(trim_before, 0);
    teardown();
    setup();
    uint64_t third = trim_before = base_of(2);
    enum sh_error e =
        log_list_segments(&racing, rig.log.dir, rig.dir.identity.log, &segments, &count, bad_file);
    assert_int_equal(e, SH_OK);
    assert_int_equal(trim_before, 0);
    assert_int_equal(segments[0].base_lsn, third);
    free(segments);
    /* One that is missing in the middle is no trim. */
    path_of(base_of(1), ".seg", path);
    snprintf(gone_at_open, sizeof gone_at_open, "%s", path);
    assert_int_not_equal(log_verify(&racing, data, &options, &report), SH_OK);
    gone_at_open[0] = 0;
    assert_int_equal(log_verify(&racing, data, &options, &report), SH_CORRUPT);
    teardown();
}

/* Stopped before each of its file calls; after a start all is well, and what was answered holds. */
static void crash_in_trim(enum sim_loss loss)
{
    bool stopped = true;
    unsigned steps = 0;
    for (uint64_t calls = 0; stopped; calls++) {
        setup();
        uint64_t target = base_of(4), first;
        sim_disk_stop_after(disk, calls);
        enum sh_error answer = upkeep_rig_trim(&keep, target, false, NULL);
        stopped = keep.fatal > 0 || answer != SH_OK;
        restart(loss, calls * 7 + 1);
        list(&first, NULL);
        assert_true(first <= target);
        if (!stopped)
            assert_int_equal(first, target);
        check_log(first, ENTRIES);
        assert_int_equal(upkeep_rig_trim(&keep, target, false, NULL), SH_OK);
        assert_int_equal(keep.trim.first_lsn, target);
        check_log(target, ENTRIES);
        teardown();
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
        setup();
        sim_disk_stop_after(disk, calls);
        assert_int_equal(upkeep_rig_trim(&keep, base_of(2), false, NULL), SH_INTERNAL);
        assert_int_equal(keep.fatal, calls);
        list(&first, NULL);
        assert_int_equal(first == 1, calls == 0);
        teardown();
    }
}

static void test_indexes_go_with_their_segments(void **state)
{
    (void)state;
    char path[PATH_MAX];
    setup();
    uint64_t third = base_of(2);
    for (size_t i = 0; i < 3; i++) {
        path_of(base_of(i), ".idx", path);
        fs->close(fs, fs->open(fs, path, O_RDWR | O_CREAT, 0640));
    }
    assert_int_equal(upkeep_rig_trim(&keep, third, false, NULL), SH_OK);
    assert_false(exists("00000000000000000001.idx"));
    path_of(third, ".idx", path);
    assert_true(exists(strrchr(path, '/') + 1));
    /* One that a crash left behind is swept by the next trim. */
    path_of(1, ".idx", path);
    fs->close(fs, fs->open(fs, path, O_RDWR | O_CREAT, 0640));
    assert_int_equal(upkeep_rig_trim(&keep, third + 1, false, NULL), SH_OK);
    assert_true(exists("00000000000000000001.idx"));
    assert_int_equal(upkeep_rig_trim(&keep, base_of(1), false, NULL), SH_OK);
    assert_false(exists("00000000000000000001.idx"));
    teardown();
}

/* ---------------------------------------------------------------- damage never deletes */

static void test_a_damaged_header_keeps_its_segment(void **state)
{
    (void)state;
    for (size_t damaged = 0; damaged < 3; damaged++) {
        char path[PATH_MAX];
        setup();
        uint64_t base = base_of(damaged), first;
        size_t count = list(&first, NULL);
        path_of(base, ".seg", path);
        flip(path, 33);
        assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
        /* The one before it stays too: its end is not known. */
        assert_int_equal(keep.trim.segments, damaged > 0 ? damaged - 1 : 0);
        assert_true(upkeep_rig_held_by(&keep, "a damaged segment header"));
        assert_int_equal(list(&first, NULL), count - keep.trim.segments);
        flip(path, 33); /* mended */
        assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
        assert_int_equal(list(&first, NULL), 1);
        teardown();
    }
}

/* The catalogue remembers what it has seen; a file that was damaged since must not be removed by memory. */
static void test_headers_are_looked_at_again_before_a_removal(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first;
    for (size_t damaged = 0; damaged < 2; damaged++) {
        setup();
        size_t count = list(&first, NULL);
        assert_int_equal(upkeep_rig_info(&keep, 0), SH_OK); /* all are known now */
        path_of(base_of(damaged), ".seg", path);
        flip(path, 40);
        assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_INTERNAL);
        assert_int_equal(list(&first, NULL), count);
        assert_int_equal(first, 1);
        teardown();
    }
}

static void test_without_a_mark_nothing_is_trimmed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first;
    setup();
    size_t count = list(&first, NULL);
    vfs_path(path, rig.log.dir, "mark");
    flip(path, 20);
    flip(path, 512 + 20);
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(keep.trim.segments, 0);
    assert_true(upkeep_rig_held_by(&keep, "the durable mark"));
    assert_int_equal(list(&first, NULL), count);
    teardown();
}

/* Whatever is wrong with the register, nothing goes that may have been held, until somebody says so. */
static void lose_register(void (*damage)(const char *path))
{
    char path[PATH_MAX];
    struct wal_upkeep_settings settings = {.retention_bytes = 1};
    uint64_t first;
    setup();
    size_t count = list(&first, NULL);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", 5, 0), SH_OK);
    vfs_path(path, rig.log.dir, "holds");
    damage(path);
    keep.settings = settings;
    restart(SIM_LOSE_NOTHING, 1);
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    assert_true(upkeep_rig_held_by(&keep, "member lost-register"));
    assert_int_equal(list(&first, NULL), count);
    restart(SIM_LOSE_ALL, 1); /* and that is remembered */
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), count);
    assert_int_equal(upkeep_rig_trim(&keep, 0, false, "lost-register"), SH_OK);
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), 1);
    teardown();
}

static void flip_register(const char *path)
{
    flip(path, 40);
}

static void remove_register(const char *path)
{
    assert_int_equal(fs->unlink(fs, path), 0);
}

static void empty_register(const char *path)
{
    sim_disk_resize(disk, path, 0);
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
    setup();
    vfs_path(path, rig.log.dir, "holds");
    flip(path, 0);
    keep.settings = (struct wal_upkeep_settings){.retention_bytes = 1, .member_hold_max = 3 * SEGMENT};
    restart(SIM_LOSE_NOTHING, 1);
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), 1);
    teardown();
}

static void test_a_register_of_another_version_is_not_touched(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint8_t bytes[36] = {'S', 'H', 'H', 'O', 'L', 'D', 2};
    setup();
    memcpy(bytes + 8, rig.dir.identity.log.bytes, 16);
    uint32_t crc = crc32c(0, bytes, 32);
    for (unsigned i = 0; i < 4; i++)
        bytes[32 + i] = (uint8_t)(crc >> 8 * i);
    assert_int_equal(vfs_replace_file(fs, rig.log.dir, "holds", bytes, sizeof bytes), 0);
    upkeep_rig_close(&keep);
    uint64_t calls = sim_disk_calls(disk);
    assert_int_equal(upkeep_rig_open(&keep, &rig), EXIT_CONFIG);
    assert_int_equal(sim_disk_calls(disk), calls);
    vfs_path(path, rig.log.dir, "holds");
    assert_memory_equal(sim_disk_file(disk, path).data, bytes, sizeof bytes);
    rig_kill(&rig);
    sim_disk_close(disk);
}

/* ---------------------------------------------------------------- holds */

static void test_what_is_held_is_not_trimmed_and_is_named(void **state)
{
    (void)state;
    setup();
    uint64_t second = base_of(1), third = base_of(2);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", second, 0), SH_OK);
    assert_int_equal(keep.hold.first_lsn, 1);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", third, 1000), SH_OK);
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(keep.trim.segments, 1);
    assert_int_equal(keep.trim.first_lsn, second);
    assert_true(upkeep_rig_held_by(&keep, "member n2"));
    assert_false(upkeep_rig_held_by(&keep, "reader r"));
    assert_int_equal(upkeep_rig_drop(&keep, WAL_HOLD_MEMBER, "n2"), SH_OK);
    assert_int_equal(upkeep_rig_drop(&keep, WAL_HOLD_MEMBER, "n2"), SH_OK); /* no error the second time */
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(keep.trim.first_lsn, third);
    assert_true(upkeep_rig_held_by(&keep, "reader r"));
    keep.now.real_ns += NS_PER_S; /* the reader's time is over */
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    assert_true(keep.trim.segments > 1);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "late", third, 1000), SH_TRIMMED);
    assert_int_equal(keep.expected, keep.trim.first_lsn);
    teardown();
}

static void test_bad_holds_are_refused(void **state)
{
    (void)state;
    char long_name[66];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[65] = 0;
    setup();
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "a\nb", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "\xff", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, long_name, 1, 0), SH_TOO_LARGE);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "m", 1, 5), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", 1, UINT64_C(604800001)), SH_TOO_LARGE);
    assert_int_equal(upkeep_rig_hold(&keep, (enum wal_hold_kind)0, "r", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&keep, (enum wal_hold_kind)6, "r", 1, 0), SH_TOO_LARGE);
    struct msg_hold other = {.log = {{9}}, .kind = WAL_HOLD_MEMBER, .name = slice_str("n2"), .lsn = 1};
    assert_int_equal(upkeep_rig_ask(&keep, MSG_hold, &other), SH_NOT_FOUND);
    assert_int_equal(upkeep_rig_trim(&keep, 0, false, "nobody"), SH_NOT_FOUND);
    assert_int_equal(keep.upkeep.holds.count, 0);
    teardown();
}

static void test_holds_are_bounded(void **state)
{
    (void)state;
    char name[32];
    setup();
    for (unsigned i = 0; i < WAL_HOLDS_MAX; i++) {
        struct wal_hold hold = {.kind = WAL_HOLD_CURSOR, .lsn = 1, .expires_ns = INT64_MAX};
        snprintf(hold.name, sizeof hold.name, "%u", i);
        wal_holds_put(&keep.upkeep.holds, &hold);
    }
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_CURSOR, "one more", 1, 1000), SH_OVERLOADED);
    snprintf(name, sizeof name, "%u", WAL_HOLDS_MAX - 1);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_CURSOR, name, 2, 1000), SH_OK);
    restart(SIM_LOSE_ALL, 1);
    assert_int_equal(keep.upkeep.holds.count, WAL_HOLDS_MAX);
    teardown();
}

/* What was answered is in force after any crash, at whichever file call it comes. */
static void crash_in_holds(enum sim_loss loss)
{
    bool stopped = true;
    for (uint64_t calls = 0; stopped; calls++) {
        uint64_t kept = 0, first;
        setup();
        uint64_t fourth = base_of(3), sixth = base_of(5);
        sim_disk_stop_after(disk, calls);
        /* Three steps; a hold that was answered lasts until its next move is. */
        if (upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", fourth, 0) == SH_OK && keep.fatal == 0)
            kept = fourth;
        if (kept != 0 && upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", fourth + 1, 1000) == SH_OK &&
            keep.fatal == 0 && upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", sixth, 0) == SH_OK)
            stopped = keep.fatal > 0;
        restart(loss, calls * 3 + 1);
        assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
        list(&first, NULL);
        if (kept != 0)
            assert_true(first <= fourth);
        check_log(first, ENTRIES);
        teardown();
    }
}

static void test_a_hold_that_was_answered_survives_a_crash_at_every_step(void **state)
{
    (void)state;
    crash_in_holds(SIM_LOSE_NOTHING);
    crash_in_holds(SIM_LOSE_ALL);
    for (unsigned i = 0; i < 4; i++)
        crash_in_holds(SIM_LOSE_SOME);
}

static void test_a_renewed_hold_is_written_once_a_ttl(void **state)
{
    (void)state;
    setup();
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", 5, 10000), SH_OK);
    uint64_t calls = sim_disk_calls(disk);
    for (unsigned i = 0; i < 10; i++) {
        keep.now.real_ns += NS_PER_S;
        assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", 5 + i % 3, 10000), SH_OK);
    }
    assert_int_equal(sim_disk_calls(disk), calls);
    keep.now.real_ns += NS_PER_S;
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", 5, 10000), SH_OK);
    assert_true(sim_disk_calls(disk) > calls);
    /* Into another segment: written, so that a restart doesn't hold what need not be. */
    calls = sim_disk_calls(disk);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_READER, "r", base_of(2), 10000), SH_OK);
    assert_true(sim_disk_calls(disk) > calls);
    restart(SIM_LOSE_ALL, 1);
    assert_int_equal(keep.upkeep.holds.all[0].lsn, base_of(2));
    teardown();
}

static void test_a_full_disk_takes_no_new_hold_but_lets_go(void **state)
{
    (void)state;
    setup();
    uint64_t third = base_of(2);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", 5, 0), SH_OK);
    sim_disk_set_full(disk, true);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n3", 5, 0), SH_DISK_FULL);
    assert_int_equal(keep.upkeep.holds.count, 1);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", 1, 0), SH_DISK_FULL); /* backwards */
    assert_int_equal(keep.upkeep.holds.all[0].lsn, 5);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", third, 0), SH_OK); /* onwards */
    assert_int_equal(upkeep_rig_trim(&keep, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(keep.trim.first_lsn, third);
    assert_int_equal(keep.fatal, 0);
    assert_int_equal(upkeep_rig_drop(&keep, WAL_HOLD_MEMBER, "n2"), SH_OK);
    sim_disk_set_full(disk, false);
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    restart(SIM_LOSE_ALL, 1);
    assert_int_equal(keep.upkeep.holds.count, 0);
    teardown();
}

static void test_a_failed_sync_of_the_register_is_fatal(void **state)
{
    (void)state;
    setup();
    sim_disk_fail_next_sync(disk);
    upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", 5, 0);
    assert_int_equal(keep.fatal, 1);
    teardown();
}

/* ---------------------------------------------------------------- retention */

static void test_retention_by_bytes(void **state)
{
    (void)state;
    uint64_t first;
    setup();
    size_t count = list(&first, NULL);
    keep.settings.retention_bytes = 4 * SEGMENT;
    wal_upkeep_set(&keep.upkeep, &keep.settings);
    assert_int_equal(wal_upkeep_tidy(&keep.upkeep, keep.now), INT64_MAX);
    size_t left = list(&first, NULL);
    assert_true(left < count && left >= 4);
    assert_true(first > 1);
    restart(SIM_LOSE_ALL, 1);
    check_log(first, ENTRIES);
    teardown();
}

static void test_retention_by_age(void **state)
{
    (void)state;
    uint64_t first;
    setup();
    size_t count = list(&first, NULL);
    keep.settings.retention_age_ns = 100 * NS_PER_S;
    wal_upkeep_set(&keep.upkeep, &keep.settings);
    int64_t due_ns = wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), count);
    assert_in_range(due_ns - keep.now.mono_ns, 99 * NS_PER_S, 101 * NS_PER_S);
    keep.now.real_ns += due_ns - keep.now.mono_ns;
    keep.now.mono_ns = due_ns;
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_true(list(&first, NULL) < count);
    keep.now.real_ns += NS_PER_S;
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), 1); /* what is being written is no matter of age */
    teardown();
}

static void test_a_member_that_is_away_is_broken_and_told(void **state)
{
    (void)state;
    uint64_t first;
    setup();
    size_t count = list(&first, NULL);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", 1, 0), SH_OK);
    keep.settings = (struct wal_upkeep_settings){.retention_bytes = 1, .member_hold_max = 100 * SEGMENT};
    wal_upkeep_set(&keep.upkeep, &keep.settings);
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), count);
    keep.settings.member_hold_max = 3 * SEGMENT;
    wal_upkeep_set(&keep.upkeep, &keep.settings);
    wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(list(&first, NULL), 1);
    assert_true(keep.upkeep.holds.all[0].broken);
    restart(SIM_LOSE_ALL, 1);
    assert_true(keep.upkeep.holds.all[0].broken); /* shown until its holder comes back */
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", 1, 0), SH_TRIMMED);
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_MEMBER, "n2", keep.expected, 0), SH_OK);
    assert_false(keep.upkeep.holds.all[0].broken);
    teardown();
}

static void test_an_expiring_hold_is_a_reason_to_look_again(void **state)
{
    (void)state;
    uint64_t first;
    setup();
    assert_int_equal(upkeep_rig_hold(&keep, WAL_HOLD_BACKUP, "b", 1, 5000), SH_OK);
    keep.settings.retention_bytes = 1;
    wal_upkeep_set(&keep.upkeep, &keep.settings);
    int64_t due_ns = wal_upkeep_tidy(&keep.upkeep, keep.now);
    assert_int_equal(due_ns, keep.now.mono_ns + 5 * NS_PER_S);
    keep.now.real_ns += 5 * NS_PER_S;
    keep.now.mono_ns = due_ns;
    assert_int_equal(wal_upkeep_tidy(&keep.upkeep, keep.now), INT64_MAX);
    assert_int_equal(list(&first, NULL), 1);
    teardown();
}

/* ---------------------------------------------------------------- the scrubber */

static const struct wal_upkeep_settings scrubs = {.scrub_rate = 1 << 20, .scrub_interval_ns = 100 * NS_PER_S};

/* Lets time pass until nothing is due within the interval's half; returns the steps. */
static unsigned scrub_a_pass(void)
{
    unsigned steps = 0;
    keep.now.real_ns += 100 * NS_PER_S;
    for (;;) {
        int64_t due_ns = wal_upkeep_scrub(&keep.upkeep, keep.now);
        if (due_ns - keep.now.mono_ns > 50 * NS_PER_S)
            return steps;
        keep.now.real_ns += due_ns - keep.now.mono_ns;
        keep.now.mono_ns = due_ns;
        assert_true(++steps < 10000);
    }
}

static void test_the_scrubber_waits_for_its_interval_and_keeps_its_rate(void **state)
{
    (void)state;
    uint64_t first, newest;
    setup_with(&scrubs);
    int64_t due_ns = wal_upkeep_scrub(&keep.upkeep, keep.now);
    assert_int_equal(due_ns, keep.now.mono_ns + 100 * NS_PER_S);
    int64_t began_ns = keep.now.mono_ns;
    assert_true(scrub_a_pass() > 0);
    list(&first, &newest);
    /* All sealed bytes at 1 MiB/s. */
    double bytes = (double)rig.log.segment.position;
    double took_s = (double)(keep.now.mono_ns - began_ns) / (double)NS_PER_S;
    assert_true(took_s > 0.9 * bytes / (1 << 20) && took_s < 1.1 * bytes / (1 << 20) + 0.1);
    assert_int_equal(keep.damages, 0);
    assert_int_equal(upkeep_rig_info(&keep, 0), SH_OK);
    assert_int_equal(keep.info.scrub_last, keep.now.real_ns);
    assert_false(keep.info.scrubbing);
    teardown();
}

/* A disk that gives no byte of one file from some offset on; and counts what is to be forgotten. */
static int bad_fd;
static char bad_path[PATH_MAX];
static unsigned forgotten;

static int failing_open(const struct vfs *vfs, const char *path, int flags, mode_t mode)
{
    (void)vfs;
    int fd = fs->open(fs, path, flags, mode);
    if (strcmp(path, bad_path) == 0)
        bad_fd = fd;
    return fd;
}

static ssize_t failing_pread(const struct vfs *vfs, int fd, void *out, size_t len, int64_t offset)
{
    (void)vfs;
    return fd == bad_fd && offset + (int64_t)len > 5000 ? -EIO : fs->pread(fs, fd, out, len, offset);
}

static int failing_close(const struct vfs *vfs, int fd)
{
    (void)vfs;
    if (fd == bad_fd)
        bad_fd = -1;
    return fs->close(fs, fd);
}

static void noting_forget(const struct vfs *vfs, int fd, int64_t offset, int64_t len)
{
    (void)vfs, (void)fd;
    forgotten += offset == 0 && len == 0;
}

static void test_what_the_disk_does_not_give_is_damage(void **state)
{
    (void)state;
    uint64_t first;
    setup_with(&scrubs);
    size_t sealed = list(&first, NULL) - 1;
    racing = *fs;
    racing.open = failing_open;
    racing.pread = failing_pread;
    racing.close = failing_close;
    racing.forget = noting_forget;
    bad_fd = -1;
    forgotten = 0;
    path_of(base_of(1), ".seg", bad_path);
    upkeep_rig_close(&keep);
    rig.fs = &racing;
    assert_int_equal(upkeep_rig_open(&keep, &rig), EXIT_DONE);
    scrub_a_pass();
    assert_int_equal(keep.damages, 1);
    assert_int_equal(keep.damage.base_lsn, base_of(1));
    assert_int_equal(keep.damage.next_lsn, base_of(2));
    assert_int_equal(forgotten, sealed); /* each was read from the disk */
    rig.fs = fs;
    teardown();
}

static void test_the_scrubber_can_be_off(void **state)
{
    (void)state;
    setup();
    assert_int_equal(wal_upkeep_scrub(&keep.upkeep, keep.now), INT64_MAX);
    teardown();
}

/* Each sealed segment gets a wrong bit somewhere: each is found, and the rest is read all the same. */
static void test_the_scrubber_finds_damage_and_goes_on(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first;
    setup_with(&scrubs);
    size_t sealed = list(&first, NULL) - 1;
    for (size_t i = 0; i < sealed; i++) {
        path_of(base_of(i), ".seg", path);
        flip(path, 700 + 1700 * i);
    }
    scrub_a_pass();
    assert_int_equal(keep.damages, sealed);
    assert_int_equal(keep.upkeep.found_count, sealed);
    const struct wal_segment *last = &keep.upkeep.catalog.all[sealed - 1];
    assert_true(keep.damage.next_lsn > keep.damage.first_lsn);
    assert_int_equal(keep.damage.base_lsn, last->base_lsn);
    assert_int_equal(keep.damage.position, last->position + keep.damage.offset);
    assert_true(keep.damage.offset <= 700 + 1700 * (sealed - 1));
    assert_true(keep.damage.offset + keep.damage.bytes > 700 + 1700 * (sealed - 1));
    assert_true(keep.damage.checksum_before != 0 && keep.damage.checksum_after != 0);
    assert_int_equal(upkeep_rig_info(&keep, 0), SH_OK);
    assert_int_equal(keep.info.scrub_damages, sealed);
    /* Mended, it is forgotten by the next pass. */
    for (size_t i = 0; i < sealed; i++) {
        path_of(base_of(i), ".seg", path);
        flip(path, 700 + 1700 * i);
    }
    scrub_a_pass();
    assert_int_equal(keep.damages, sealed);
    assert_int_equal(keep.upkeep.found_count, 0);
    assert_int_equal(upkeep_rig_info(&keep, 0), SH_OK);
    assert_int_equal(keep.info.scrub_damages, 0);
    teardown();
}

static void test_every_byte_of_a_sealed_segment_is_scrubbed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    setup_with(&scrubs);
    path_of(base_of(1), ".seg", path);
    size_t len = sim_disk_file(disk, path).len;
    for (size_t at = 0; at < len; at += 1 + at % 61) {
        unsigned before = keep.damages;
        flip(path, at);
        scrub_a_pass();
        assert_true(keep.damages > before);
        flip(path, at);
    }
    /* A file that is too short, and one that is gone from under it. */
    unsigned before = keep.damages;
    sim_disk_resize(disk, path, len - 1);
    scrub_a_pass();
    assert_true(keep.damages > before);
    sim_disk_resize(disk, path, 10);
    scrub_a_pass();
    assert_true(keep.damages > before + 1);
    teardown();
}

/* Frames that are valid, but not those that were there: another segment's tail. */
static void test_the_chain_over_segment_ends_is_scrubbed(void **state)
{
    (void)state;
    struct segment_header header;
    char path[PATH_MAX];
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    setup_with(&scrubs);
    path_of(base_of(2), ".seg", path);
    struct slice file = sim_disk_file(disk, path);
    assert_int_equal(segment_header_decode(slice_of(file.data, SEGMENT_HEADER_BYTES), &header), SH_OK);
    header.previous_checksum ^= 1;
    segment_header_encode(&header, bytes);
    memcpy((uint8_t *)(uintptr_t)file.data, bytes, sizeof bytes);
    scrub_a_pass();
    assert_true(keep.damages > 0);
    assert_int_equal(keep.upkeep.found[0].base_lsn, base_of(2));
    assert_int_equal(keep.upkeep.found[0].offset, 0);
    teardown();
}

/* Segments of 1 MiB, of which a step reads a quarter. */
static void setup_large(void)
{
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(rig_open(&rig, fs, data, 1 << 20), EXIT_DONE);
    memset(&keep, 0, sizeof keep);
    keep.now = (struct wal_upkeep_time){rig.now_ns, NS_PER_S};
    keep.settings = scrubs;
    assert_int_equal(upkeep_rig_open(&keep, &rig), EXIT_DONE);
    wal_upkeep_scrub(&keep.upkeep, keep.now);
    assert_true(rig_prepare(&rig));
    for (uint64_t n = 1; n <= 300; n++) {
        rig_append_many(&rig, 7, n, payload_of(n), 50);
        assert_true(rig_commit(&rig));
    }
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
}

static void set_rate(uint64_t rate)
{
    keep.settings.scrub_rate = rate;
    wal_upkeep_set(&keep.upkeep, &keep.settings);
}

/* Nothing of this is damage: a segment that is left half-way, segments that are trimmed under the pass. */
static void test_a_pass_bears_interruptions_and_trims(void **state)
{
    (void)state;
    setup_large();
    uint64_t second = base_of(1), fourth = base_of(3);
    keep.now.real_ns += 100 * NS_PER_S;
    while (keep.upkeep.rounds.scrub.base_lsn != second || keep.upkeep.rounds.scrub.scan.offset < 500000)
        wal_upkeep_scrub(&keep.upkeep, keep.now);
    set_rate(0);
    assert_int_equal(wal_upkeep_scrub(&keep.upkeep, keep.now), INT64_MAX);
    set_rate(1 << 20);
    while (keep.upkeep.rounds.scrub.fd < 0 || keep.upkeep.rounds.scrub.scan.offset < 500000)
        wal_upkeep_scrub(&keep.upkeep, keep.now);
    assert_int_equal(keep.upkeep.rounds.scrub.base_lsn, second);
    assert_int_equal(upkeep_rig_trim(&keep, fourth, false, NULL), SH_OK);
    assert_int_equal(keep.trim.first_lsn, fourth);
    scrub_a_pass();
    assert_int_equal(keep.damages, 0);
    teardown();
}

/* A trim, or the end, never waits for more than a step. */
static void test_a_step_reads_a_quarter_mib(void **state)
{
    (void)state;
    uint64_t bytes;
    setup_large();
    assert_int_equal(upkeep_rig_info(&keep, 0), SH_OK);
    struct wal_scrub *scrub = &keep.upkeep.rounds.scrub;
    assert_true(wal_scrub_enter(scrub, &keep.upkeep.catalog.all[0]));
    unsigned steps = 1;
    for (; wal_scrub_step(scrub, &bytes); steps++)
        assert_in_range(bytes, 256 << 10, (256 << 10) + 30000); /* with the frame that ends it */
    assert_int_equal(steps, 4);
    teardown();
}

static void test_a_missing_segment_is_found(void **state)
{
    (void)state;
    char path[PATH_MAX];
    setup_with(&scrubs);
    path_of(base_of(2), ".seg", path);
    assert_int_equal(fs->unlink(fs, path), 0);
    scrub_a_pass();
    assert_true(keep.damages > 0);
    assert_int_equal(keep.upkeep.found[0].base_lsn, base_of(1));
    teardown();
}

static void test_a_pass_goes_on_after_a_restart(void **state)
{
    (void)state;
    uint64_t first;
    setup_with(&scrubs);
    keep.now.mono_ns = 1000 * NS_PER_S;
    wal_upkeep_scrub(&keep.upkeep, keep.now); /* progress is there from now on */
    keep.now.real_ns += 100 * NS_PER_S;
    keep.now.mono_ns += 100 * NS_PER_S;
    while (keep.upkeep.rounds.next_lsn < base_of(3)) {
        wal_upkeep_scrub(&keep.upkeep, keep.now);
        keep.now.mono_ns += 40 * NS_PER_S; /* progress is written twice a minute */
    }
    restart(SIM_LOSE_ALL, 1);
    assert_true(keep.upkeep.rounds.next_lsn >= base_of(2));
    list(&first, NULL);
    scrub_a_pass();
    assert_int_equal(keep.upkeep.rounds.next_lsn, 0);
    assert_int_equal(keep.damages, 0);
    teardown();
}

static void test_damaged_progress_begins_anew(void **state)
{
    (void)state;
    char path[PATH_MAX];
    setup_with(&scrubs);
    wal_upkeep_scrub(&keep.upkeep, keep.now);
    vfs_path(path, rig.log.dir, "scrub");
    for (size_t at = 0; at < 64; at++) {
        flip(path, at);
        restart(SIM_LOSE_NOTHING, 1);
        assert_int_equal(keep.upkeep.rounds.next_lsn, 0);
        assert_int_equal(keep.upkeep.rounds.since_ns, keep.now.real_ns);
        flip(path, at);
    }
    scrub_a_pass();
    assert_int_equal(keep.damages, 0);
    teardown();
}

/* What the scrubber has found and retention takes is said once more, and forgotten. */
static void test_damaged_entries_may_be_trimmed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    setup_with(&scrubs);
    path_of(base_of(1), ".seg", path);
    flip(path, 2000);
    scrub_a_pass();
    assert_int_equal(keep.upkeep.found_count, 1);
    uint64_t third = base_of(2);
    assert_int_equal(upkeep_rig_trim(&keep, third, false, NULL), SH_OK);
    assert_int_equal(keep.trim.first_lsn, third);
    assert_int_equal(keep.upkeep.found_count, 0);
    teardown();
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
        cmocka_unit_test(test_a_damaged_header_keeps_its_segment),
        cmocka_unit_test(test_headers_are_looked_at_again_before_a_removal),
        cmocka_unit_test(test_without_a_mark_nothing_is_trimmed),
        cmocka_unit_test(test_a_lost_register_holds_everything),
        cmocka_unit_test(test_a_lost_register_does_not_hold_for_ever),
        cmocka_unit_test(test_a_register_of_another_version_is_not_touched),
        cmocka_unit_test(test_what_is_held_is_not_trimmed_and_is_named),
        cmocka_unit_test(test_bad_holds_are_refused),
        cmocka_unit_test(test_holds_are_bounded),
        cmocka_unit_test(test_a_hold_that_was_answered_survives_a_crash_at_every_step),
        cmocka_unit_test(test_a_renewed_hold_is_written_once_a_ttl),
        cmocka_unit_test(test_a_full_disk_takes_no_new_hold_but_lets_go),
        cmocka_unit_test(test_a_failed_sync_of_the_register_is_fatal),
        cmocka_unit_test(test_retention_by_bytes),
        cmocka_unit_test(test_retention_by_age),
        cmocka_unit_test(test_a_member_that_is_away_is_broken_and_told),
        cmocka_unit_test(test_an_expiring_hold_is_a_reason_to_look_again),
        cmocka_unit_test(test_the_scrubber_waits_for_its_interval_and_keeps_its_rate),
        cmocka_unit_test(test_what_the_disk_does_not_give_is_damage),
        cmocka_unit_test(test_the_scrubber_can_be_off),
        cmocka_unit_test(test_the_scrubber_finds_damage_and_goes_on),
        cmocka_unit_test(test_every_byte_of_a_sealed_segment_is_scrubbed),
        cmocka_unit_test(test_the_chain_over_segment_ends_is_scrubbed),
        cmocka_unit_test(test_a_pass_bears_interruptions_and_trims),
        cmocka_unit_test(test_a_step_reads_a_quarter_mib),
        cmocka_unit_test(test_a_missing_segment_is_found),
        cmocka_unit_test(test_a_pass_goes_on_after_a_restart),
        cmocka_unit_test(test_damaged_progress_begins_anew),
        cmocka_unit_test(test_damaged_entries_may_be_trimmed),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
