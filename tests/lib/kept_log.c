/* The log that the tests share. What goes wrong here fails the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>

#include "kept_log.h"
#include "log_verify.h"

enum { PAYLOAD = 400 };
const char kept_data[] = "/data";
struct wal_rig kept_rig;
struct upkeep_rig kept;
struct sim_disk *kept_disk;
const struct vfs *kept_fs;

struct slice kept_payload_of(uint64_t n)
{
    static uint8_t bytes[PAYLOAD];
    memset(bytes, (int)n, sizeof bytes);
    memcpy(bytes, &n, sizeof n);
    return slice_of(bytes, sizeof bytes);
}

void kept_append_up_to(uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n <= to; n++) {
        rig_append(&kept_rig, 7, 1, n, kept_payload_of(n));
        assert_true(rig_commit(&kept_rig));
    }
    assert_int_equal(wal_log_write_mark(&kept_rig.log), 0);
}

/* A log with KEPT_ENTRIES entries in several segments, and its upkeep. */
void kept_setup_with(const struct wal_upkeep_settings *settings)
{
    kept_disk = sim_disk_open();
    kept_fs = sim_disk_vfs(kept_disk);
    assert_int_equal(rig_open(&kept_rig, kept_fs, kept_data, KEPT_SEGMENT), EXIT_DONE);
    memset(&kept, 0, sizeof kept);
    kept.now = (struct wal_upkeep_time){kept_rig.now_ns, NS_PER_S};
    if (settings != NULL)
        kept.settings = *settings;
    assert_int_equal(upkeep_rig_open(&kept, &kept_rig), EXIT_DONE);
    assert_int_equal(wal_upkeep_tidy(&kept.upkeep, kept.now), INT64_MAX); /* writes the empty register */
    assert_true(rig_prepare(&kept_rig));
    kept_append_up_to(1, KEPT_ENTRIES);
}

void kept_setup(void)
{
    kept_setup_with(NULL);
}

void kept_teardown(void)
{
    upkeep_rig_close(&kept);
    if (kept_rig.opened)
        rig_kill(&kept_rig);
    sim_disk_close(kept_disk);
}

/* The process ends, and is started again. */
void kept_restart(enum sim_loss loss, uint64_t seed)
{
    upkeep_rig_close(&kept);
    if (kept_rig.opened)
        rig_kill(&kept_rig);
    sim_disk_crash(kept_disk, loss, seed);
    assert_int_equal(rig_open(&kept_rig, kept_fs, kept_data, KEPT_SEGMENT), EXIT_DONE);
    assert_int_equal(upkeep_rig_open(&kept, &kept_rig), EXIT_DONE);
}

uint64_t kept_list(uint64_t *first, uint64_t *newest)
{
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(kept_fs, kept_rig.log.dir, &bases, &count), 0);
    *first = bases[0];
    if (newest != NULL)
        *newest = bases[count - 1];
    free(bases);
    return count;
}

uint64_t kept_base_of(size_t index)
{
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(kept_fs, kept_rig.log.dir, &bases, &count), 0);
    assert_true(index < count);
    uint64_t base = bases[index];
    free(bases);
    return base;
}

void kept_path_of(uint64_t base, const char *suffix, char path[PATH_MAX])
{
    char name[64];
    snprintf(name, sizeof name, "%020llu%s", (unsigned long long)base, suffix);
    vfs_path(path, kept_rig.log.dir, name);
}

bool kept_exists(const char *name)
{
    char path[PATH_MAX];
    vfs_path(path, kept_rig.log.dir, name);
    int fd = kept_fs->open(kept_fs, path, O_RDONLY, 0);
    if (fd >= 0)
        kept_fs->close(kept_fs, fd);
    return fd >= 0;
}

void kept_flip(const char *path, size_t at)
{
    struct slice bytes = sim_disk_file(kept_disk, path);
    assert_true(at < bytes.len);
    ((uint8_t *)(uintptr_t)bytes.data)[at] ^= 0x10;
}

/* Entries from the first LSN left to the last are there, nothing is damaged, and the producer goes on. */
void kept_check_log(uint64_t first, uint64_t last)
{
    struct log_verify_options options = {0};
    struct log_verify_report report;
    uint64_t found;
    assert_int_equal(log_verify(kept_fs, kept_data, &options, &report), SH_OK);
    kept_list(&found, NULL);
    assert_int_equal(found, first);
    assert_int_equal(report.entries, last - first + 1);
    assert_int_equal(kept_rig.log.durable.lsn, last);
    uint64_t again = rig_append(&kept_rig, 7, 1, last, kept_payload_of(last));
    assert_int_equal(kept_rig.answers[again].reply.lsn, last);
}

const struct wal_upkeep_settings kept_scrubs = {.scrub_rate = 1 << 20, .scrub_interval_ns = 100 * NS_PER_S};

/* Segments of 1 MiB, of which a step reads a quarter. */
void kept_setup_large(void)
{
    kept_disk = sim_disk_open();
    kept_fs = sim_disk_vfs(kept_disk);
    assert_int_equal(rig_open(&kept_rig, kept_fs, kept_data, 1 << 20), EXIT_DONE);
    memset(&kept, 0, sizeof kept);
    kept.now = (struct wal_upkeep_time){kept_rig.now_ns, NS_PER_S};
    kept.settings = kept_scrubs;
    assert_int_equal(upkeep_rig_open(&kept, &kept_rig), EXIT_DONE);
    wal_upkeep_scrub(&kept.upkeep, kept.now);
    assert_true(rig_prepare(&kept_rig));
    for (uint64_t n = 1; n <= 300; n++) {
        rig_append_many(&kept_rig, 7, n, kept_payload_of(n), 50);
        assert_true(rig_commit(&kept_rig));
    }
    assert_int_equal(wal_log_write_mark(&kept_rig.log), 0);
}

/* Lets time pass until nothing is due within the interval's half; returns the steps. */
unsigned kept_scrub_a_pass(void)
{
    unsigned steps = 0;
    kept.now.real_ns += 100 * NS_PER_S;
    for (;;) {
        int64_t due_ns = wal_upkeep_scrub(&kept.upkeep, kept.now);
        if (due_ns - kept.now.mono_ns > 50 * NS_PER_S)
            return steps;
        kept.now.real_ns += due_ns - kept.now.mono_ns;
        kept.now.mono_ns = due_ns;
        assert_true(++steps < 10000);
    }
}
