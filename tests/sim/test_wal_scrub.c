/* The scrubber on a simulated disk: it finds all damage, at its rate, and nothing else. */
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

static void test_the_scrubber_waits_for_its_interval_and_keeps_its_rate(void **state)
{
    (void)state;
    uint64_t first, newest;
    kept_setup_with(&kept_scrubs);
    int64_t due_ns = wal_upkeep_scrub(&kept.upkeep, kept.now);
    assert_int_equal(due_ns, kept.now.mono_ns + 100 * NS_PER_S);
    int64_t began_ns = kept.now.mono_ns;
    assert_true(kept_scrub_a_pass() > 0);
    kept_list(&first, &newest);
    /* All sealed bytes at 1 MiB/s. */
    double bytes = (double)kept_rig.log.segment.position;
    double took_s = (double)(kept.now.mono_ns - began_ns) / (double)NS_PER_S;
    assert_true(took_s > 0.9 * bytes / (1 << 20) && took_s < 1.1 * bytes / (1 << 20) + 0.1);
    assert_int_equal(kept.damages, 0);
    assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
    assert_int_equal(kept.info.scrub_last, kept.now.real_ns);
    assert_false(kept.info.scrubbing);
    kept_teardown();
}

/* A disk that gives no byte of one file from some offset on; and counts what is to be forgotten. */
static struct vfs failing;
static int bad_fd;
static char bad_path[PATH_MAX];
static unsigned forgotten;

static int failing_open(const struct vfs *vfs, const char *path, int flags, mode_t mode)
{
    (void)vfs;
    int fd = kept_fs->open(kept_fs, path, flags, mode);
    if (strcmp(path, bad_path) == 0)
        bad_fd = fd;
    return fd;
}

static ssize_t failing_pread(const struct vfs *vfs, int fd, void *out, size_t len, int64_t offset)
{
    (void)vfs;
    return fd == bad_fd && offset + (int64_t)len > 5000 ? -EIO
                                                        : kept_fs->pread(kept_fs, fd, out, len, offset);
}

static int failing_close(const struct vfs *vfs, int fd)
{
    (void)vfs;
    if (fd == bad_fd)
        bad_fd = -1;
    return kept_fs->close(kept_fs, fd);
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
    kept_setup_with(&kept_scrubs);
    size_t sealed = kept_list(&first, NULL) - 1;
    failing = *kept_fs;
    failing.open = failing_open;
    failing.pread = failing_pread;
    failing.close = failing_close;
    failing.forget = noting_forget;
    bad_fd = -1;
    forgotten = 0;
    kept_path_of(kept_base_of(1), ".seg", bad_path);
    upkeep_rig_close(&kept);
    kept_rig.fs = &failing;
    assert_int_equal(upkeep_rig_open(&kept, &kept_rig), EXIT_DONE);
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, 1);
    assert_int_equal(kept.damage.base_lsn, kept_base_of(1));
    assert_int_equal(kept.damage.next_lsn, kept_base_of(2));
    assert_int_equal(forgotten, sealed); /* each was read from the disk */
    kept_rig.fs = kept_fs;
    kept_teardown();
}

static void test_the_scrubber_can_be_off(void **state)
{
    (void)state;
    kept_setup();
    assert_int_equal(wal_upkeep_scrub(&kept.upkeep, kept.now), INT64_MAX);
    kept_teardown();
}

/* Each sealed segment gets a wrong bit somewhere: each is found, and the rest is read all the same. */
static void test_the_scrubber_finds_damage_and_goes_on(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first;
    kept_setup_with(&kept_scrubs);
    size_t sealed = kept_list(&first, NULL) - 1;
    for (size_t i = 0; i < sealed; i++) {
        kept_path_of(kept_base_of(i), ".seg", path);
        kept_flip(path, 700 + 1700 * i);
    }
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, sealed);
    assert_int_equal(upkeep_rig_ranges(&kept), sealed);
    const struct wal_segment *last = &kept.upkeep.catalog.all[sealed - 1];
    assert_true(kept.damage.next_lsn > kept.damage.first_lsn);
    assert_int_equal(kept.damage.base_lsn, last->base_lsn);
    assert_int_equal(kept.damage.position, last->position + kept.damage.offset);
    assert_true(kept.damage.offset <= 700 + 1700 * (sealed - 1));
    assert_true(kept.damage.offset + kept.damage.bytes > 700 + 1700 * (sealed - 1));
    assert_true(kept.damage.checksum_before != 0 && kept.damage.checksum_after != 0);
    assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
    assert_int_equal(kept.info.scrub_damages, sealed);
    /* Mended, it is forgotten by the next pass. */
    for (size_t i = 0; i < sealed; i++) {
        kept_path_of(kept_base_of(i), ".seg", path);
        kept_flip(path, 700 + 1700 * i);
    }
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, sealed);
    assert_int_equal(upkeep_rig_ranges(&kept), 0);
    assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
    assert_int_equal(kept.info.scrub_damages, 0);
    kept_teardown();
}

static void assert_figures(size_t segments, uint64_t damaged_entries, uint64_t scrubs)
{
    const struct wal_figures *f = &kept.upkeep.figures;
    wal_upkeep_tell_figures(&kept.upkeep);
    assert_int_equal(f->segments, segments);
    assert_int_equal(f->damaged_entries, damaged_entries);
    assert_int_equal(f->scrubs, scrubs);
}

static void test_figures_are_those_of_the_log(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first, newest;
    kept_setup_with(&kept_scrubs);
    assert_true(kept.upkeep.figures.first_position == WAL_FIGURE_UNKNOWN);
    size_t count = kept_list(&first, &newest);
    assert_figures(count, 0, 0);
    assert_int_equal(kept.upkeep.figures.first_position, 0);
    kept_path_of(kept_base_of(1), ".seg", path);
    kept_flip(path, 700);
    kept_scrub_a_pass();
    assert_figures(count, kept.damage.next_lsn - kept.damage.first_lsn, 1);
    kept_flip(path, 700);
    kept_scrub_a_pass();
    assert_figures(count, 0, 2);
    assert_int_equal(upkeep_rig_trim(&kept, newest, false, NULL), SH_OK);
    assert_figures(1, 0, 2);
    assert_int_equal(kept.upkeep.figures.first_position, kept_rig.log.segment.position);
    kept_append_up_to(KEPT_ENTRIES + 1, 2 * KEPT_ENTRIES);
    kept.upkeep.has_grown = true;
    count = kept_list(&first, &newest);
    assert_true(count > 1);
    assert_figures(count, 0, 2);
    kept_teardown();
}

static void test_every_byte_of_a_sealed_segment_is_scrubbed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_with(&kept_scrubs);
    kept_path_of(kept_base_of(1), ".seg", path);
    size_t len = sim_disk_file(kept_disk, path).len;
    for (size_t at = 0; at < len; at += 1 + at % 61) {
        unsigned before = kept.damages;
        kept_flip(path, at);
        kept_scrub_a_pass();
        assert_true(kept.damages > before);
        kept_flip(path, at);
    }
    /* A file that is too short, and one that is gone from under it. */
    unsigned before = kept.damages;
    sim_disk_resize(kept_disk, path, len - 1);
    kept_scrub_a_pass();
    assert_true(kept.damages > before);
    sim_disk_resize(kept_disk, path, 10);
    kept_scrub_a_pass();
    assert_true(kept.damages > before + 1);
    kept_teardown();
}

/* Frames that are valid, but not those that were there: another segment's tail. */
static void test_the_chain_over_segment_ends_is_scrubbed(void **state)
{
    (void)state;
    struct segment_header header;
    char path[PATH_MAX];
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    kept_setup_with(&kept_scrubs);
    kept_path_of(kept_base_of(2), ".seg", path);
    struct slice file = sim_disk_file(kept_disk, path);
    assert_int_equal(segment_header_decode(slice_of(file.data, SEGMENT_HEADER_BYTES), &header), SH_OK);
    header.previous_checksum ^= 1;
    segment_header_encode(&header, bytes);
    memcpy((uint8_t *)(uintptr_t)file.data, bytes, sizeof bytes);
    kept_scrub_a_pass();
    assert_true(kept.damages > 0);
    assert_int_equal(kept.damages, 2); /* where they meet, and the frame there */
    assert_int_equal(kept.damage.base_lsn, kept_base_of(2));
    kept_teardown();
}

static void set_rate(uint64_t rate)
{
    kept.settings.scrub_rate = rate;
    wal_upkeep_set(&kept.upkeep, &kept.settings);
}

/* Nothing of this is damage: a segment that is left half-way, segments that are trimmed under the pass. */
static void test_a_pass_bears_interruptions_and_trims(void **state)
{
    (void)state;
    kept_setup_large();
    uint64_t second = kept_base_of(1), fourth = kept_base_of(3);
    kept.now.real_ns += 100 * NS_PER_S;
    while (kept.upkeep.rounds.scrub.base_lsn != second || kept.upkeep.rounds.scrub.scan.offset < 500000)
        wal_upkeep_scrub(&kept.upkeep, kept.now);
    set_rate(0);
    assert_int_equal(wal_upkeep_scrub(&kept.upkeep, kept.now), INT64_MAX);
    set_rate(1 << 20);
    while (kept.upkeep.rounds.scrub.fd < 0 || kept.upkeep.rounds.scrub.scan.offset < 500000)
        wal_upkeep_scrub(&kept.upkeep, kept.now);
    assert_int_equal(kept.upkeep.rounds.scrub.base_lsn, second);
    assert_int_equal(upkeep_rig_trim(&kept, fourth, false, NULL), SH_OK);
    assert_int_equal(kept.trim.first_lsn, fourth);
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, 0);
    kept_teardown();
}

/* Stands in a segment, behind an offset. */
static void scrub_up_to(uint64_t base, uint64_t offset)
{
    while (kept.upkeep.rounds.scrub.base_lsn != base || kept.upkeep.rounds.scrub.scan.offset < offset)
        wal_upkeep_scrub(&kept.upkeep, kept.now);
}

/* A segment of which only a part was read has not been found good. */
static void test_a_pass_that_is_cut_short_mends_nothing(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_large();
    uint64_t second = kept_base_of(1);
    kept_path_of(second, ".seg", path);
    kept_flip(path, 900000);
    kept_scrub_a_pass();
    assert_int_equal(upkeep_rig_ranges(&kept), 1);
    kept.now.real_ns += 100 * NS_PER_S;
    scrub_up_to(second, 300000);
    set_rate(0);
    assert_int_equal(wal_upkeep_scrub(&kept.upkeep, kept.now), INT64_MAX);
    assert_int_equal(upkeep_rig_ranges(&kept), 1);
    kept_teardown();
}

/* What it has read ahead of a segment is not what stands there after a repair. */
static void test_a_repair_under_the_scrubber_is_seen(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_large();
    uint64_t second = kept_base_of(1);
    kept_path_of(second, ".seg", path);
    for (size_t at = 300000; at < 900000; at += 30000)
        kept_flip(path, at);
    kept.now.real_ns += 100 * NS_PER_S;
    scrub_up_to(second, 200000);
    assert_int_equal(kept.damages, 0);
    for (size_t at = 300000; at < 900000; at += 30000)
        kept_flip(path, at);
    wal_upkeep_repaired(&kept.upkeep, second);
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, 0);
    assert_int_equal(upkeep_rig_ranges(&kept), 0);
    kept_teardown();
}

/* A trim, or the end, never waits for more than a step. */
static void test_a_step_reads_a_quarter_mib(void **state)
{
    (void)state;
    uint64_t bytes;
    kept_setup_large();
    assert_int_equal(upkeep_rig_info(&kept, 0), SH_OK);
    struct wal_scrub *scrub = &kept.upkeep.rounds.scrub;
    assert_true(wal_scrub_enter(scrub, &kept.upkeep.catalog.all[0]));
    unsigned steps = 1;
    for (; wal_scrub_step(scrub, &bytes); steps++)
        assert_in_range(bytes, 256 << 10, (256 << 10) + 30000); /* with the frame that ends it */
    assert_int_equal(steps, 4);
    kept_teardown();
}

static void test_a_missing_segment_is_found(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_with(&kept_scrubs);
    kept_path_of(kept_base_of(2), ".seg", path);
    assert_int_equal(kept_fs->unlink(kept_fs, path), 0);
    kept_scrub_a_pass();
    assert_true(kept.damages > 0);
    assert_int_equal(kept.damage.base_lsn, kept_base_of(1));
    kept_teardown();
}

static void test_a_pass_goes_on_after_a_restart(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup_with(&kept_scrubs);
    kept.now.mono_ns = 1000 * NS_PER_S;
    wal_upkeep_scrub(&kept.upkeep, kept.now); /* progress is there from now on */
    kept.now.real_ns += 100 * NS_PER_S;
    kept.now.mono_ns += 100 * NS_PER_S;
    while (kept.upkeep.rounds.next_lsn < kept_base_of(3)) {
        wal_upkeep_scrub(&kept.upkeep, kept.now);
        kept.now.mono_ns += 40 * NS_PER_S; /* progress is written twice a minute */
    }
    kept_restart(SIM_LOSE_ALL, 1);
    assert_true(kept.upkeep.rounds.next_lsn >= kept_base_of(2));
    kept_list(&first, NULL);
    kept_scrub_a_pass();
    assert_int_equal(kept.upkeep.rounds.next_lsn, 0);
    assert_int_equal(kept.damages, 0);
    kept_teardown();
}

static void test_damaged_progress_begins_anew(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_with(&kept_scrubs);
    wal_upkeep_scrub(&kept.upkeep, kept.now);
    vfs_path(path, kept_rig.log.dir, "scrub");
    for (size_t at = 0; at < 64; at++) {
        kept_flip(path, at);
        kept_restart(SIM_LOSE_NOTHING, 1);
        assert_int_equal(kept.upkeep.rounds.next_lsn, 0);
        assert_int_equal(kept.upkeep.rounds.since_ns, kept.now.real_ns);
        kept_flip(path, at);
    }
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, 0);
    kept_teardown();
}

/* A pass that ended while the clock was years ahead does not put off the next one for years. */
static void test_a_clock_that_is_set_back_does_not_end_scrubbing(void **state)
{
    (void)state;
    kept_setup_with(&kept_scrubs);
    int64_t true_ns = kept.now.real_ns;
    kept.now.real_ns += 1000 * 3600 * NS_PER_S;
    assert_true(kept_scrub_a_pass() > 0);
    kept.now.real_ns = true_ns;
    wal_upkeep_scrub(&kept.upkeep, kept.now);
    assert_true(kept_scrub_a_pass() > 0);
    kept_teardown();
}

/* What the scrubber has found and retention takes is said once more, and forgotten. */
static void test_damaged_entries_may_be_trimmed(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_with(&kept_scrubs);
    kept_path_of(kept_base_of(1), ".seg", path);
    kept_flip(path, 2000);
    kept_scrub_a_pass();
    assert_int_equal(upkeep_rig_ranges(&kept), 1);
    uint64_t third = kept_base_of(2);
    assert_int_equal(upkeep_rig_trim(&kept, third, false, NULL), SH_OK);
    assert_int_equal(kept.trim.first_lsn, third);
    assert_int_equal(upkeep_rig_ranges(&kept), 0);
    kept_teardown();
}

static void test_damage_that_was_trimmed_before_a_crash_is_forgotten(void **state)
{
    (void)state;
    char path[PATH_MAX];
    kept_setup_with(&kept_scrubs);
    kept_path_of(kept_base_of(0), ".seg", path);
    kept_flip(path, 2000);
    kept_scrub_a_pass();
    assert_int_equal(upkeep_rig_ranges(&kept), 1);
    assert_int_equal(kept_fs->unlink(kept_fs, path), 0); /* the trim got as far as this */
    assert_int_equal(kept_fs->sync_dir(kept_fs, kept_rig.log.dir), 0);
    kept_restart(SIM_LOSE_ALL, 1);
    assert_int_equal(upkeep_rig_ranges(&kept), 0);
    kept_teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_scrubber_waits_for_its_interval_and_keeps_its_rate),
        cmocka_unit_test(test_what_the_disk_does_not_give_is_damage),
        cmocka_unit_test(test_the_scrubber_can_be_off),
        cmocka_unit_test(test_a_clock_that_is_set_back_does_not_end_scrubbing),
        cmocka_unit_test(test_the_scrubber_finds_damage_and_goes_on),
        cmocka_unit_test(test_figures_are_those_of_the_log),
        cmocka_unit_test(test_every_byte_of_a_sealed_segment_is_scrubbed),
        cmocka_unit_test(test_the_chain_over_segment_ends_is_scrubbed),
        cmocka_unit_test(test_a_pass_bears_interruptions_and_trims),
        cmocka_unit_test(test_a_pass_that_is_cut_short_mends_nothing),
        cmocka_unit_test(test_a_repair_under_the_scrubber_is_seen),
        cmocka_unit_test(test_a_step_reads_a_quarter_mib),
        cmocka_unit_test(test_a_missing_segment_is_found),
        cmocka_unit_test(test_a_pass_goes_on_after_a_restart),
        cmocka_unit_test(test_damaged_progress_begins_anew),
        cmocka_unit_test(test_damaged_entries_may_be_trimmed),
        cmocka_unit_test(test_damage_that_was_trimmed_before_a_crash_is_forgotten),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
