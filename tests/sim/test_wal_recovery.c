/* Opening a data directory again: what must survive, what is cut, what is refused. On the simulated disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bytes.h"
#include "crc32c.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 10, PAYLOAD = 100 };
static const char data[] = "/data";

static struct sim_disk *disk;
static struct wal_rig rig;

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
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

static void open_rig(void)
{
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
}

static void crash(enum sim_loss loss)
{
    rig_kill(&rig);
    sim_disk_crash(disk, loss, 1);
}

/* The payload of the n-th entry. */
static struct slice payload_of(uint64_t n)
{
    static char text[PAYLOAD];
    snprintf(text, sizeof text, "entry %llu %090d", (unsigned long long)n, 0);
    return slice_of(text, sizeof text);
}

static uint64_t append_entry(uint64_t producer, uint64_t sequence, uint64_t n)
{
    return rig_append(&rig, producer, 1, sequence, payload_of(n));
}

static void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    uint64_t *seen = arg;
    assert_int_equal(lsn, *seen + 1);
    assert_true(slice_equal(entry->value, payload_of(lsn)));
    *seen = lsn;
}

/* Entry n of these tests has LSN n. */
static void assert_log_holds(uint64_t entries)
{
    uint64_t seen = 0;
    assert_int_equal(rig_read_all(sim_disk_vfs(disk), data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_int_equal(seen, entries);
    struct log_verify_options options = {0};
    struct log_verify_report report;
    assert_int_equal(log_verify(sim_disk_vfs(disk), data, &options, &report), SH_OK);
    assert_int_equal(report.entries, entries);
}

static void append_entries(uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++)
        append_entry(7, n, n);
    assert_true(rig_commit(&rig));
}

static const char *segment_path(uint64_t base_lsn)
{
    static char path[PATH_MAX];
    char name[SEGMENT_NAME_MAX];
    segment_name(base_lsn, name);
    vfs_path(path, rig.dir.log, name);
    return path;
}

static uint8_t *file_bytes(const char *path)
{
    struct slice file = sim_disk_file(disk, path);
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

/* ---------------------------------------------------------------- */

static void test_entries_survive_a_clean_stop(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 10);
    rig_close(&rig);
    open_rig();
    assert_log_holds(10);
    assert_int_equal(rig.log.durable.lsn, 10);
}

static void test_entries_survive_power_loss_over_rolls(void **state)
{
    (void)state;
    open_rig();
    for (uint64_t n = 1; n <= 2000; n += 50)
        append_entries(n, n + 49);
    crash(SIM_LOSE_ALL);
    open_rig();
    assert_true(rig.log.segment.base_lsn > 1);
    assert_log_holds(2000);
}

static void test_the_same_sequence_gets_the_first_answer_after_a_restart(void **state)
{
    (void)state;
    open_rig();
    uint64_t last = 0;
    while (rig.log.segment.base_lsn < 600) {
        last++;
        append_entries(last, last);
    }
    crash(SIM_LOSE_ALL); /* only the checkpoint remembers now */
    open_rig();
    for (uint64_t n = last - 255; n <= last; n++) {
        const struct rig_answer *a = &rig.answers[append_entry(7, n, n)];
        assert_int_equal(a->times, 1);
        assert_int_equal(a->code, SH_OK);
        assert_int_equal(a->reply.lsn, n);
        assert_int_equal(a->reply.count, 1);
    }
    assert_int_equal(rig.answers[append_entry(7, last - 256, 1)].code, SH_SEQUENCE_EXPIRED);
    uint64_t gap = append_entry(7, last + 2, 1);
    assert_int_equal(rig.answers[gap].code, SH_CONFLICT);
    assert_int_equal(rig.answers[gap].expected, last + 1);
    append_entries(last + 1, last + 1);
    assert_log_holds(last + 1);
}

static void test_hlc_goes_on_ahead_of_what_is_stored(void **state)
{
    (void)state;
    open_rig();
    rig.now_ns = clock_real_ns() + 3600 * NS_PER_S; /* a clock that was set back since */
    append_entries(1, 1);
    uint64_t hlc = rig.answers[1].reply.hlc;
    crash(SIM_LOSE_ALL);
    open_rig();
    append_entries(2, 2);
    assert_true(rig.answers[1].reply.hlc > hlc);
}

static void test_unsynced_frames_may_stay_when_the_process_is_killed(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    append_entry(7, 4, 4);
    assert_true(rig_write(&rig));
    crash(SIM_LOSE_NOTHING);
    open_rig();
    assert_log_holds(4);
    uint64_t again = append_entry(7, 4, 4);
    assert_int_equal(rig.answers[again].reply.lsn, 4);
}

/* The kernel reports a failed sync once and may have dropped what it should have written: the next start sees
 * it in the page cache only. It must be written again before it is acknowledged. */
static void test_a_tail_whose_sync_failed_is_written_again(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    append_entry(7, 4, 4);
    assert_true(rig_write(&rig));
    sim_disk_fail_next_sync(disk);
    assert_int_equal(wal_log_sync(&rig.log), -EIO);
    crash(SIM_LOSE_NOTHING);
    open_rig();
    assert_int_equal(rig.answers[append_entry(7, 4, 4)].reply.lsn, 4);
    crash(SIM_LOSE_ALL);
    open_rig();
    assert_log_holds(4);
}

static void test_the_mark_is_durable_once_written(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    rig_close(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    struct log_mark mark;
    assert_int_equal(log_mark_read(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_int_equal(mark.durable_lsn, 3);
}

/* The process is killed between the mark's write and its sync: the next one reads the mark, and nothing else
 * would ever sync it. The rot of the newest frame may not look like a torn tail then. */
static void test_a_mark_that_was_not_synced_is_made_durable(void **state)
{
    (void)state;
    struct log_mark mark;
    open_rig();
    append_entries(1, 3);
    sim_disk_stop_after(disk, 1);
    assert_true(wal_log_write_mark(&rig.log) < 0);
    crash(SIM_LOSE_NOTHING);
    open_rig();
    crash(SIM_LOSE_ALL);
    assert_int_equal(log_mark_read(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
    assert_int_equal(mark.durable_lsn, 3);
    open_rig();
}

static void test_a_former_segment_is_sealed_by_recovery(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 400);
    struct slice first = sim_disk_file(disk, segment_path(1));
    size_t sealed = first.len;
    assert_true(sealed < SEGMENT && rig.log.segment.position == sealed);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", segment_path(1));
    crash(SIM_LOSE_NOTHING);
    sim_disk_resize(disk, path, SEGMENT); /* as it was before it was sealed */
    open_rig();
    assert_int_equal(sim_disk_file(disk, path).len, sealed);
    assert_log_holds(400);
}

static void test_missing_segments_are_refused(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", segment_path(1));
    rig_close(&rig);
    const struct vfs *fs = sim_disk_vfs(disk);
    assert_int_equal(fs->unlink(fs, path), 0);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
    assert_int_equal(fs->rename(fs, "/data/node", "/data/kept"), 0);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
    assert_int_equal(fs->rename(fs, "/data/kept", "/data/node"), 0);
    vfs_path(path, rig.dir.log, "mark");
    assert_int_equal(fs->unlink(fs, path), 0);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
}

static void test_a_damaged_mark_file_costs_nothing_but_itself(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    append_entries(4, 4);
    char path[PATH_MAX];
    vfs_path(path, rig.dir.log, "mark");
    for (unsigned length = 0; length <= 1024; length += 256) {
        rig_close(&rig);
        sim_disk_resize(disk, path, length);
        memset(file_bytes(path), 0x5a, length);
        open_rig();
        assert_log_holds(4);
    }
}

static void test_the_newer_slot_is_the_mark(void **state)
{
    (void)state;
    open_rig();
    for (uint64_t n = 1; n <= 5; n++) {
        struct log_mark mark;
        append_entries(n, n);
        assert_int_equal(wal_log_write_mark(&rig.log), 0);
        assert_int_equal(log_mark_read(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log, &mark), SH_OK);
        assert_int_equal(mark.durable_lsn, n);
    }
}

static void test_one_bad_slot_leaves_the_other_mark(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    rig_close(&rig);
    char path[PATH_MAX];
    vfs_path(path, rig.dir.log, "mark");
    struct log_mark before, after;
    assert_int_equal(log_mark_read(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log, &before), SH_OK);
    file_bytes(path)[log_mark_offset(&before) + 9] ^= 1;
    assert_int_equal(log_mark_read(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log, &after), SH_OK);
    assert_int_equal(after.counter, before.counter - 1);
    assert_true(after.durable_end < before.durable_end);
}

static void test_a_foreign_node_is_refused(void **state)
{
    (void)state;
    open_rig();
    rig_close(&rig);
    struct wal_dir dir;
    assert_int_equal(wal_dir_open(&dir, sim_disk_vfs(disk), data, "n2"), EXIT_CONFIG);
    assert_int_equal(wal_dir_open(&dir, sim_disk_vfs(disk), data, "n1"), EXIT_DONE);
    wal_dir_close(&dir);
}

/* What a later version has written is neither damaged nor ours: told apart, and left alone. */
static void test_files_of_another_version_are_refused_and_left_alone(void **state)
{
    (void)state;
    const struct vfs *fs = sim_disk_vfs(disk);
    struct node_identity identity;
    struct log_mark mark;
    char path[PATH_MAX];
    open_rig();
    append_entries(1, 3);
    rig_close(&rig);
    uint64_t changes = sim_disk_calls(disk);

    /* The segment's header: bytes 6 and 7. */
    uint8_t *bytes = file_bytes(segment_path(1)), crc[4];
    memcpy(crc, bytes + 60, sizeof crc);
    bytes[6] = 2;
    put_u32(bytes + 60, crc32c(segment_salt(rig.dir.identity.log, 1), bytes, 60));
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
    bytes[6] = 1;
    memcpy(bytes + 60, crc, sizeof crc);

    /* Either slot of the mark. */
    vfs_path(path, rig.dir.log, "mark");
    for (unsigned slot = 0; slot < 2; slot++) {
        bytes = file_bytes(path) + (size_t)slot * MARK_SLOT_BYTES;
        bytes[6] = 2;
        put_u32(bytes + 52, crc32c(0, bytes, 52));
        assert_int_equal(log_mark_read(fs, rig.dir.log, rig.dir.identity.log, &mark), SH_VERSION_MISMATCH);
        assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
        bytes[6] = 1;
        put_u32(bytes + 52, crc32c(0, bytes, 52));
    }

    /* The identity. */
    bytes = file_bytes("/data/node");
    size_t len = sim_disk_file(disk, "/data/node").len, checked = len - strlen("checksum 00000000\n");
    char old[512], line[32];
    memcpy(old, bytes, len);
    bytes[strlen("shanghai node ")] = '2';
    assert_int_equal(node_identity_read(fs, data, &identity), SH_CORRUPT); /* a flipped bit, that is */
    snprintf(line, sizeof line, "checksum %08x\n", crc32c(0, bytes, checked));
    memcpy(bytes + checked, line, strlen(line));
    assert_int_equal(node_identity_read(fs, data, &identity), SH_VERSION_MISMATCH);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
    memcpy(bytes, old, len);

    assert_int_equal(sim_disk_calls(disk), changes);
    open_rig();
    assert_log_holds(3);
}

static void test_a_damaged_identity_is_refused_and_nothing_deleted(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    rig_close(&rig);
    size_t len = sim_disk_file(disk, "/data/node").len;
    for (size_t at = 0; at < len; at++) {
        file_bytes("/data/node")[at] ^= 1;
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_CONFIG);
        file_bytes("/data/node")[at] ^= 1;
    }
    open_rig();
    assert_log_holds(3);
}

static void test_a_lost_identity_never_starts_a_second_log(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    rig_close(&rig);
    const struct vfs *fs = sim_disk_vfs(disk);
    assert_int_equal(fs->unlink(fs, "/data/node"), 0);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_CONFIG);
}

static void cut_first_start_short(bool power_loss)
{
    const struct vfs *fs = sim_disk_vfs(disk);
    for (uint64_t calls = 0;; calls++) {
        sim_disk_stop_after(disk, calls);
        enum service_exit code = rig_open(&rig, fs, data, SEGMENT);
        sim_disk_stop_after(disk, UINT64_MAX / 2);
        if (code == EXIT_DONE)
            break;
        assert_int_equal(code, EXIT_FAULT);
        sim_disk_crash(disk, power_loss ? SIM_LOSE_ALL : SIM_LOSE_NOTHING, calls);
    }
    assert_true(rig_prepare(&rig));
    append_entries(1, 3);
    crash(SIM_LOSE_ALL);
    open_rig();
    assert_log_holds(3);
}

static void test_a_first_start_that_was_killed_is_taken_up_again(void **state)
{
    (void)state;
    cut_first_start_short(false);
}

static void test_a_first_start_cut_by_power_loss_is_taken_up_again(void **state)
{
    (void)state;
    cut_first_start_short(true);
}

static void test_a_full_disk_refuses_what_needs_room_and_nothing_else(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 3);
    crash(SIM_LOSE_NOTHING);
    sim_disk_set_full(disk, true);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_false(rig_prepare(&rig)); /* tells the core */
    uint64_t n = 3, number;
    rig.prepares = false;
    do {
        number = append_entry(7, n + 1, n + 1);
        assert_true(rig_commit(&rig));
        n++;
    } while (rig.answers[number].code == SH_OK);
    assert_int_equal(rig.answers[number].code, SH_DISK_FULL);
    assert_true(n > 100);
    assert_log_holds(n - 1);
    sim_disk_set_full(disk, false);
    assert_true(rig_prepare(&rig));
    append_entries(n, n + 10);
    assert_log_holds(n + 10);
}

static bool add_kept(void *arg, const char *name)
{
    char path[PATH_MAX];
    vfs_path(path, "/data/quarantine", name);
    *(size_t *)arg += 1000000 + sim_disk_file(disk, path).len;
    return true;
}

/* A million for each file in the quarantine, and their bytes. */
static size_t kept(void)
{
    size_t sum = 0;
    sim_disk_vfs(disk)->list(sim_disk_vfs(disk), "/data/quarantine", add_kept, &sum);
    return sum;
}

/* Three acknowledged entries and garbage behind, on a disk without room. */
static void tear_on_a_full_disk(char path[PATH_MAX])
{
    open_rig();
    append_entries(1, 3);
    uint64_t offset = rig.log.offset;
    snprintf(path, PATH_MAX, "%s", segment_path(1));
    crash(SIM_LOSE_NOTHING);
    memset(file_bytes(path) + offset, 0xee, 300);
    sim_disk_set_full(disk, true);
}

static void test_a_torn_tail_takes_the_room_of_the_prepared_segment(void **state)
{
    (void)state;
    char path[PATH_MAX];
    tear_on_a_full_disk(path);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_log_holds(3);
    assert_int_equal(kept(), 1000300);
}

static void test_a_torn_tail_that_cannot_be_kept_is_not_cut(void **state)
{
    (void)state;
    char path[PATH_MAX], next[PATH_MAX];
    tear_on_a_full_disk(path);
    vfs_path(next, rig.dir.log, "next.tmp");
    assert_int_equal(sim_disk_vfs(disk)->unlink(sim_disk_vfs(disk), next), 0);
    sim_disk_set_full(disk, true);
    struct buf before = {0};
    buf_append(&before, file_bytes(path), SEGMENT);
    for (unsigned attempt = 0; attempt < 3; attempt++)
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_FAULT);
    assert_memory_equal(file_bytes(path), before.data, SEGMENT);
    assert_int_equal(kept(), 0);
    buf_free(&before);
    sim_disk_set_full(disk, false);
    open_rig(); /* by itself, as soon as there is room */
    assert_log_holds(3);
    assert_int_equal(kept(), 1000300);
}

static void test_smaller_segments_after_a_change_of_the_setting(void **state)
{
    (void)state;
    open_rig();
    append_entries(1, 10);
    rig_close(&rig);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT / 4), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    append_entries(11, 900);
    assert_log_holds(900);
    assert_true(rig.log.limit == SEGMENT / 4);
}

#define WAL_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WAL_TEST(test_entries_survive_a_clean_stop),
        WAL_TEST(test_entries_survive_power_loss_over_rolls),
        WAL_TEST(test_the_same_sequence_gets_the_first_answer_after_a_restart),
        WAL_TEST(test_hlc_goes_on_ahead_of_what_is_stored),
        WAL_TEST(test_unsynced_frames_may_stay_when_the_process_is_killed),
        WAL_TEST(test_a_tail_whose_sync_failed_is_written_again),
        WAL_TEST(test_the_mark_is_durable_once_written),
        WAL_TEST(test_a_mark_that_was_not_synced_is_made_durable),
        WAL_TEST(test_a_former_segment_is_sealed_by_recovery),
        WAL_TEST(test_missing_segments_are_refused),
        WAL_TEST(test_a_damaged_mark_file_costs_nothing_but_itself),
        WAL_TEST(test_the_newer_slot_is_the_mark),
        WAL_TEST(test_one_bad_slot_leaves_the_other_mark),
        WAL_TEST(test_a_foreign_node_is_refused),
        WAL_TEST(test_files_of_another_version_are_refused_and_left_alone),
        WAL_TEST(test_a_damaged_identity_is_refused_and_nothing_deleted),
        WAL_TEST(test_a_lost_identity_never_starts_a_second_log),
        WAL_TEST(test_a_first_start_that_was_killed_is_taken_up_again),
        WAL_TEST(test_a_first_start_cut_by_power_loss_is_taken_up_again),
        WAL_TEST(test_a_full_disk_refuses_what_needs_room_and_nothing_else),
        WAL_TEST(test_a_torn_tail_takes_the_room_of_the_prepared_segment),
        WAL_TEST(test_a_torn_tail_that_cannot_be_kept_is_not_cut),
        WAL_TEST(test_smaller_segments_after_a_change_of_the_setting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
