/* The register of damaged ranges: what it keeps over restarts, how ranges join and go, and that losing it
 * costs nothing but itself. On the simulated disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bytes.h"
#include "crc32c.h"
#include "log.h"
#include "sim_disk.h"
#include "wal_damage.h"

static const char dir[] = "/log", quarantine[] = "/quarantine", file[] = "/log/damage";
static const struct id16 log_id = {.bytes = {1, 2, 3}};
static struct sim_disk *disk;
static const struct vfs *fs;
static struct wal_damage *damage;
static int segment; /* a file of 4,096 bytes, each its own offset / 16 */

static void open_register(void)
{
    assert_int_equal(wal_damage_open(fs, dir, log_id, quarantine, 0, &damage), SH_OK);
}

static void reopen(void)
{
    wal_damage_close(damage);
    open_register();
}

static int setup(void **state)
{
    uint8_t bytes[4096];
    (void)state;
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(fs->mkdir(fs, dir, 0700), 0);
    assert_int_equal(fs->sync_dir(fs, "/"), 0);
    segment = fs->open(fs, "/log/00000000000000000001.seg", O_RDWR | O_CREAT, 0600);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i / 16);
    assert_int_equal(vfs_write_all(fs, segment, bytes, sizeof bytes, 0), 0);
    open_register();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    wal_damage_close(damage);
    fs->close(fs, segment);
    sim_disk_close(disk);
    return 0;
}

/* A range of the segment at position 10,000. */
static struct log_damage_range range_at(uint64_t offset, uint64_t bytes)
{
    return (struct log_damage_range){
        .base_lsn = 1,
        .offset = offset,
        .bytes = bytes,
        .position = 10000 + offset,
        .first_lsn = offset,
        .next_lsn = offset + bytes,
        .checksum_before = (uint32_t)offset,
        .checksum_after = (uint32_t)(offset + bytes),
    };
}

static void add(uint64_t offset, uint64_t bytes, int fd)
{
    struct log_damage_range range = range_at(offset, bytes);
    assert_int_equal(wal_damage_add(damage, &range, fd), 0);
}

/* The only range there is, or the i-th of `count`. */
static struct log_damage_range entry(size_t i, size_t count)
{
    size_t have;
    struct log_damage_range *list = wal_damage_list(damage, &have), out;
    assert_int_equal(have, count);
    out = list[i];
    free(list);
    return out;
}

static void assert_range(const struct log_damage_range *r, uint64_t offset, uint64_t bytes)
{
    struct log_damage_range want = range_at(offset, bytes);
    assert_int_equal(r->offset, want.offset);
    assert_int_equal(r->bytes, want.bytes);
    assert_int_equal(r->position, want.position);
    assert_int_equal(r->first_lsn, want.first_lsn);
    assert_int_equal(r->next_lsn, want.next_lsn);
    assert_int_equal(r->checksum_before, want.checksum_before);
    assert_int_equal(r->checksum_after, want.checksum_after);
}

static bool count_name(void *arg, const char *name)
{
    (void)name;
    ++*(size_t *)arg;
    return true;
}

static size_t copies(void)
{
    size_t count = 0;
    fs->list(fs, quarantine, count_name, &count);
    return count;
}

static void test_a_range_is_kept_with_a_copy_of_its_bytes(void **state)
{
    (void)state;
    char path[PATH_MAX];
    add(160, 64, segment);
    struct log_damage_range r = entry(0, 1);
    assert_range(&r, 160, 64);
    assert_true(r.found_ns > 0 && r.accepted_ns == 0);
    vfs_path(path, quarantine, r.copy);
    struct slice copy = sim_disk_file(disk, path);
    assert_int_equal(copy.len, 64);
    assert_memory_equal(copy.data, sim_disk_file(disk, "/log/00000000000000000001.seg").data + 160, 64);
    add(4000, 200, segment); /* the file ends before */
    vfs_path(path, quarantine, entry(1, 2).copy);
    assert_int_equal(sim_disk_file(disk, path).len, 96);
}

static void test_a_register_is_synced_when_it_is_told(void **state)
{
    (void)state;
    add(160, 64, segment);
    struct log_damage_range before = entry(0, 1);
    wal_damage_close(damage);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    segment = fs->open(fs, "/log/00000000000000000001.seg", O_RDWR | O_CREAT, 0600);
    open_register();
    struct log_damage_range after = entry(0, 1);
    assert_memory_equal(&before, &after, sizeof before);
    char path[PATH_MAX];
    vfs_path(path, quarantine, after.copy);
    assert_int_equal(sim_disk_file(disk, path).len, 64);
}

static void test_what_is_known_is_not_entered_again(void **state)
{
    (void)state;
    add(160, 64, segment);
    uint64_t calls = sim_disk_calls(disk);
    add(160, 64, segment);
    add(170, 20, segment);
    assert_int_equal(sim_disk_calls(disk), calls);
    assert_int_equal(copies(), 1);
    struct log_damage_range r = entry(0, 1);
    assert_range(&r, 160, 64);
}

static void test_overlapping_and_touching_ranges_become_one(void **state)
{
    (void)state;
    add(200, 100, segment);
    add(500, 100, segment);
    add(100, 50, segment);
    struct log_damage_range r = entry(0, 3);
    assert_range(&r, 100, 50);
    add(250, 250, segment); /* overlaps one, touches another */
    r = entry(1, 2);
    assert_range(&r, 200, 400);
    add(90, 600, segment);
    r = entry(0, 1);
    assert_range(&r, 90, 600);
    struct log_damage_range other = range_at(700, 10);
    other.base_lsn = 700; /* touches, in another segment */
    other.position = 10690;
    assert_int_equal(wal_damage_add(damage, &other, -1), 0);
    entry(0, 2);
}

static void test_a_repair_takes_ranges_out_from_their_front(void **state)
{
    (void)state;
    const struct log_chain chain = {.next_lsn = 240, .checksum = 240};
    add(200, 100, segment);
    add(500, 100, segment);
    assert_int_equal(wal_damage_repaired(damage, 1, 220, 50, &chain), 0);  /* not from its front */
    assert_int_equal(wal_damage_repaired(damage, 2, 200, 100, &chain), 0); /* another segment */
    struct log_damage_range r = entry(0, 2);
    assert_range(&r, 200, 100);
    assert_int_equal(wal_damage_repaired(damage, 1, 200, 40, &chain), 0);
    reopen();
    r = entry(0, 2);
    assert_range(&r, 240, 60);
    assert_int_equal(wal_damage_repaired(damage, 1, 240, 60, &chain), 0);
    reopen();
    r = entry(0, 1);
    assert_range(&r, 500, 100);
}

static void test_an_accepted_loss_stays_accepted(void **state)
{
    (void)state;
    size_t count;
    int64_t when_ns;
    add(200, 100, segment);
    add(500, 100, segment);
    assert_int_equal(wal_damage_accept(damage, 210, 290, 77, &count), 0);
    assert_int_equal(count, 0); /* not all of it */
    assert_int_equal(wal_damage_accept(damage, 200, 300, 77, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(wal_damage_accept(damage, 150, 350, 99, &count), 0);
    assert_int_equal(count, 1);
    add(220, 20, segment);
    reopen();
    assert_int_equal(entry(0, 2).accepted_ns, 77);
    assert_int_equal(entry(1, 2).accepted_ns, 0);
    assert_true(wal_damage_is_accepted(damage, 200, 300, &when_ns));
    assert_int_equal(when_ns, 77);
    assert_false(wal_damage_is_accepted(damage, 199, 300, &when_ns));
    assert_false(wal_damage_is_accepted(damage, 200, 301, &when_ns));
    assert_false(wal_damage_is_accepted(damage, 500, 600, &when_ns));
    add(290, 20, segment); /* more than was accepted */
    assert_int_equal(entry(0, 2).accepted_ns, 0);
    assert_false(wal_damage_is_accepted(damage, 200, 300, &when_ns));
}

static void test_finding_a_range(void **state)
{
    (void)state;
    struct log_damage_range r;
    add(200, 100, segment);
    assert_false(wal_damage_find(damage, 1, 100, 100, &r));
    assert_false(wal_damage_find(damage, 1, 300, 100, &r));
    assert_false(wal_damage_find(damage, 2, 200, 100, &r));
    assert_true(wal_damage_find(damage, 1, 100, 101, &r) && r.offset == 200);
    assert_true(wal_damage_find(damage, 1, 299, 1, &r) && r.offset == 200);
}

static void test_at_most_so_many_ranges(void **state)
{
    (void)state;
    size_t count;
    for (uint64_t i = 0; i < LOG_DAMAGE_MAX; i++)
        add(i * 100, i == 500 ? 99 : 10, -1);
    free(wal_damage_list(damage, &count));
    assert_int_equal(count, LOG_DAMAGE_MAX);
    add(LOG_DAMAGE_MAX * 100, 10, -1);
    free(wal_damage_list(damage, &count));
    assert_int_equal(count, LOG_DAMAGE_MAX);
    reopen();
    struct log_damage_range r = entry(500, LOG_DAMAGE_MAX);
    assert_range(&r, 50000, 110); /* the two nearest */
}

static void test_a_damaged_register_begins_anew(void **state)
{
    (void)state;
    add(200, 100, segment);
    size_t len = sim_disk_file(disk, file).len, count;
    for (size_t at = 0; at < len; at++) {
        uint8_t *bytes = (uint8_t *)(uintptr_t)sim_disk_file(disk, file).data;
        bytes[at] ^= 1;
        reopen();
        assert_null(wal_damage_list(damage, &count));
        bytes[at] ^= 1;
    }
    for (size_t cut = 0; cut < len; cut++) {
        add(200, 100, -1);
        sim_disk_resize(disk, file, cut);
        reopen();
        assert_null(wal_damage_list(damage, &count));
    }
    add(200, 100, -1);
    reopen();
    entry(0, 1);
}

static void test_a_register_of_a_later_version_is_refused(void **state)
{
    (void)state;
    add(200, 100, segment);
    wal_damage_close(damage);
    struct slice bytes = sim_disk_file(disk, file);
    uint8_t *p = (uint8_t *)(uintptr_t)bytes.data;
    p[6] = 2;
    put_u32(p + 28, crc32c(crc32c(0, p, 28), p + 32, bytes.len - 32));
    assert_int_equal(wal_damage_open(fs, dir, log_id, quarantine, 0, &damage), SH_VERSION_MISMATCH);
    assert_null(damage);
}

static void test_a_full_disk_costs_the_copy_and_not_the_entry(void **state)
{
    (void)state;
    sim_disk_set_full(disk, true);
    add(200, 100, segment);
    struct log_damage_range r = entry(0, 1);
    assert_range(&r, 200, 100);
    assert_string_equal(r.copy, "");
    sim_disk_set_full(disk, false);
    add(200, 100, segment); /* found again: now there is room */
    assert_true(entry(0, 1).copy[0] != 0);
    reopen();
    assert_true(entry(0, 1).copy[0] != 0);
}

static ssize_t no_room; /* what free_bytes says */
static int free_bytes(const struct vfs *v, const char *path, uint64_t *bytes)
{
    (void)v, (void)path;
    *bytes = (uint64_t)no_room;
    return 0;
}

static void test_no_copy_below_the_reserve(void **state)
{
    (void)state;
    struct vfs low = *fs;
    low.free_bytes = free_bytes;
    wal_damage_close(damage);
    assert_int_equal(wal_damage_open(&low, dir, log_id, quarantine, 1000, &damage), SH_OK);
    no_room = 1099;
    add(200, 100, segment);
    assert_string_equal(entry(0, 1).copy, "");
    no_room = 1100;
    add(200, 100, segment);
    assert_true(entry(0, 1).copy[0] != 0);
}

static void test_a_failed_sync_is_told(void **state)
{
    (void)state;
    struct log_damage_range range = range_at(200, 100);
    sim_disk_fail_next_sync(disk);
    assert_int_equal(wal_damage_add(damage, &range, segment), -EIO);
    sim_disk_fail_next_sync(disk);
    range = range_at(400, 100);
    assert_int_equal(wal_damage_add(damage, &range, -1), -EIO);
}

static void *add_many(void *arg)
{
    uint64_t first = *(uint64_t *)arg;
    for (uint64_t i = 0; i < 50; i++)
        add((first + 2 * i) * 100, 10, -1);
    return NULL;
}

static void test_threads_may_add_at_once(void **state)
{
    (void)state;
    pthread_t thread;
    uint64_t odd = 1, even = 0;
    pthread_create(&thread, NULL, add_many, &odd);
    add_many(&even);
    pthread_join(thread, NULL);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(entry(i, 100).offset, i * 100);
}

#define DAMAGE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        DAMAGE_TEST(test_a_range_is_kept_with_a_copy_of_its_bytes),
        DAMAGE_TEST(test_a_register_is_synced_when_it_is_told),
        DAMAGE_TEST(test_what_is_known_is_not_entered_again),
        DAMAGE_TEST(test_overlapping_and_touching_ranges_become_one),
        DAMAGE_TEST(test_a_repair_takes_ranges_out_from_their_front),
        DAMAGE_TEST(test_an_accepted_loss_stays_accepted),
        DAMAGE_TEST(test_finding_a_range),
        DAMAGE_TEST(test_at_most_so_many_ranges),
        DAMAGE_TEST(test_a_damaged_register_begins_anew),
        DAMAGE_TEST(test_a_register_of_a_later_version_is_refused),
        DAMAGE_TEST(test_a_full_disk_costs_the_copy_and_not_the_entry),
        DAMAGE_TEST(test_no_copy_below_the_reserve),
        DAMAGE_TEST(test_a_failed_sync_is_told),
        DAMAGE_TEST(test_threads_may_add_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
