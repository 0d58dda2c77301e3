/* Starting on a log whose segments are missing, cut short, or have lost what tells about them; what is
 * refused; and what else can go wrong meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "rot.h"

/* ---------------------------------------------------------------- more than one segment */

static void test_the_newest_segment_is_missing(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(3, &last), end = rot_rig.log.durable.end;
    rig_close(&rot_rig);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(base)), 0);
    rot_fs->sync_dir(rot_fs, rot_dir);
    rot_assert_goes_on(base, last, end);
}

static void test_the_two_newest_segments_are_missing(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(3, &last), end = rot_rig.log.durable.end,
                   second = rot_places[base - 1].base;
    rig_close(&rot_rig);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(base)), 0);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(second)), 0);
    rot_fs->sync_dir(rot_fs, rot_dir);
    rot_assert_goes_on(second, last, end);
}

static void test_a_segment_in_the_middle_is_missing(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(3, &last), second = rot_places[base - 1].base;
    rig_close(&rot_rig);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(second)), 0);
    rot_fs->sync_dir(rot_fs, rot_dir);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, base);
    rot_assert_log(last, second, base - second);
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.base_lsn, 1);
    assert_int_equal(range.first_lsn, second);
    assert_int_equal(range.next_lsn, base);
    assert_int_equal(rot_damages(), 1);
    rot_append(last + 1, last + 5);
    rot_assert_log(last + 5, second, base - second);
}

static void test_the_sealed_segment_is_too_short(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    rig_close(&rot_rig);
    sim_disk_resize(rot_disk, rot_path(1), rot_places[base - 3].offset + 30);
    rot_open();
    rot_assert_log(last, base - 3, 3);
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.offset, rot_places[base - 3].offset);
    assert_int_equal(range.offset + range.bytes, rot_rig.log.segment.position);
    assert_int_equal(rot_kept().bytes, 30);
    rot_append(last + 1, last + 5);
    rig_close(&rot_rig);
    rot_open();
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(rot_kept().files, 1);
    assert_int_equal(rot_damages(), 1);
}

static void test_the_sealed_segment_has_a_bad_header(void **state)
{
    (void)state;
    uint64_t last;
    rot_fill(2, &last);
    rig_close(&rot_rig);
    rot_bytes(1, 9, 1);
    rot_open();
    rot_assert_log(last, 0, 0);
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.offset, 0);
    assert_int_equal(range.bytes, SEGMENT_HEADER_BYTES);
    assert_int_equal(rot_damages(), 1);
}

/* With its header bad or not, a segment that a crash left unsealed is sealed. */
static void test_an_unsealed_segment_with_a_bad_header_is_sealed(void **state)
{
    (void)state;
    uint64_t last;
    rot_fill(2, &last);
    size_t sealed = sim_disk_file(rot_disk, rot_path(1)).len;
    rot_crash(SIM_LOSE_NOTHING);
    sim_disk_resize(rot_disk, rot_path(1), ROT_SEGMENT);
    rot_bytes(1, 9, 1);
    rot_open();
    assert_int_equal(sim_disk_file(rot_disk, rot_path(1)).len, sealed);
    rot_assert_log(last, 0, 0);
}

/* Header, checkpoint and the first frames of the newest segment are gone; so is the mark file, in turn. */
static void lose_start_of_newest(bool mark_too, uint64_t entries)
{
    rot_start_over();
    uint64_t last, base = rot_fill(2, &last);
    assert_int_equal(rot_rig.log.segment.base_lsn, base);
    rig_close(&rot_rig);
    size_t to = entries > 0 ? rot_places[base + entries - 1].offset + 10 : rot_places[base].offset - 3;
    memset(rot_file(rot_path(base)), 0, to);
    rot_keep(rot_path(base));
    char path[PATH_MAX];
    vfs_path(path, rot_dir, "mark");
    if (mark_too)
        assert_int_equal(rot_fs->unlink(rot_fs, path), 0);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, base);
    rot_assert_log(last, base, entries);
    assert_int_equal(rot_damages(), 1);
    uint64_t number = rig_append(&rot_rig, 7, 1, last, rot_payload(last));
    assert_int_equal(rot_rig.answers[number].reply.lsn, last);        /* known from frames that are good */
    number = rig_append(&rot_rig, 7, 1, base - 1, rot_payload(last)); /* before the gap, if there is one */
    assert_int_equal(rot_rig.answers[number].code, entries > 0 ? SH_SEQUENCE_EXPIRED : SH_OK);
    rot_append(last + 1, last + 3);
    rot_crash(SIM_LOSE_ALL);
    rot_open();
    rot_assert_log(last + 3, base, entries);
}

static void test_the_start_of_the_newest_segment_is_gone(void **state)
{
    (void)state;
    for (uint64_t entries = 0; entries <= 3; entries++)
        for (unsigned mark_too = 0; mark_too < 2; mark_too++)
            lose_start_of_newest(mark_too != 0, entries);
}

/* The answers of the former segment are asked for there. */
static void test_a_bad_checkpoint_costs_no_answer(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(3, &last);
    rot_crash(SIM_LOSE_ALL);
    rot_bytes(base, SEGMENT_HEADER_BYTES + 20, 1);
    rot_bytes(rot_places[base - 1].base, SEGMENT_HEADER_BYTES + 20, 1); /* and that of the one before */
    rot_open();
    for (uint64_t n = last - 255; n <= last; n++) {
        const struct rig_answer *a = &rot_rig.answers[rig_append(&rot_rig, 7, 1, n, rot_payload(n))];
        assert_int_equal(a->times, 1);
        assert_int_equal(a->code, SH_OK);
        assert_int_equal(a->reply.lsn, n);
    }
    assert_int_equal(rot_rig.answers[rig_append(&rot_rig, 7, 1, last - 256, rot_payload(1))].code,
                     SH_SEQUENCE_EXPIRED);
    rot_append(last + 1, last + 1);
    rot_assert_log(last + 1, 0, 0);
}

/* No frame of the newest segment tells its position: the one before does. */
static void test_a_lost_position_is_known_from_the_segment_before(void **state)
{
    (void)state;
    uint64_t last;
    uint64_t base = rot_fill(2, &last);
    while (rot_rig.log.segment.base_lsn == base) {
        last++;
        rot_append_noted(last, last);
    }
    base = rot_rig.log.segment.base_lsn; /* one entry in it, which tells */
    for (uint64_t n = last + 1; n <= last + 5; n++)
        rig_append(&rot_rig, 7, 1, n, rot_payload(n));
    assert_true(rig_commit(&rot_rig)); /* one group: only its first frame would */
    rig_close(&rot_rig);
    memset(rot_file(rot_path(base)), 0, rot_places[last].end + 10);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, base);
    rot_assert_log(last + 5, last, 2);
    rot_append(last + 6, last + 8);
    rig_close(&rot_rig);
    rot_open();
    rot_assert_log(last + 8, last, 2);
}

/* The same, and the segment before is no help either: the whole file is given up. */
static void test_a_segment_whose_position_nobody_knows_is_given_up(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    uint64_t end = 0;
    rig_close(&rot_rig);
    struct log_mark mark;
    assert_int_equal(log_mark_read(rot_fs, rot_dir, rot_rig.dir.identity.log, &mark), SH_OK);
    end = mark.durable_end;
    memset(rot_file(rot_path(base)), 0, ROT_SEGMENT);
    rot_entry(base - 1);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, last + 1);
    assert_int_equal(rot_rig.log.segment.position, end);
    assert_int_equal(rot_rig.log.durable.lsn, last);
    rot_append_anew(last + 1, last + 3);
    rig_close(&rot_rig);
    rot_open();
    rot_append_anew(last + 4, last + 5);
}

/* Whatever the guess of where it lies: the segment before is neither cut nor said to lack anything. */
static void give_up(uint8_t noise)
{
    struct log_damage_range range;
    rot_start_over();
    uint64_t last, base = rot_fill(2, &last);
    rig_close(&rot_rig);
    memset(rot_file(rot_path(base)), noise, ROT_SEGMENT);
    rot_keep(rot_path(base));
    rot_entry(base - 1);
    size_t sealed = sim_disk_file(rot_disk, rot_path(1)).len;
    rot_open();
    assert_int_equal(rot_rig.log.durable.lsn, last);
    assert_int_equal(sim_disk_file(rot_disk, rot_path(1)).len, sealed);
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.base_lsn, base);
    rot_assert_log(last, base - 1, last + 2 - base);
}

static void test_a_guessed_position_cuts_nothing(void **state)
{
    (void)state;
    give_up(0);
    give_up(0x11);
}

/* Bytes that aren't zeros behind the end of an unsealed segment are cut on the word of a good header only. */
static void test_what_lies_behind_a_sealed_end(void **state)
{
    (void)state;
    for (unsigned bad_header = 0; bad_header < 2; bad_header++) {
        rot_start_over();
        uint64_t last, base = rot_fill(2, &last);
        size_t sealed = sim_disk_file(rot_disk, rot_path(1)).len;
        rot_crash(SIM_LOSE_NOTHING);
        sim_disk_resize(rot_disk, rot_path(1), ROT_SEGMENT);
        rot_bytes(1, ROT_SEGMENT - 10, 5);
        if (bad_header > 0)
            rot_bytes(base, 9, 1);
        rot_open();
        assert_int_equal(sim_disk_file(rot_disk, rot_path(1)).len, bad_header > 0 ? ROT_SEGMENT : sealed);
        assert_int_equal(rot_kept().files, 1);
        rot_assert_log(last, 0, 0);
    }
}

/* ---------------------------------------------------------------- a segment without entries */

/* Its checkpoint was synced before it got its name; nothing else is in it. */
static void start_empty(bool mark_too)
{
    char path[PATH_MAX];
    rot_start_over();
    rot_open();
    uint64_t end = rot_rig.log.durable.end;
    rig_kill(&rot_rig);
    rot_bytes(1, SEGMENT_HEADER_BYTES + 30, 1);
    vfs_path(path, rot_dir, "mark");
    if (mark_too)
        assert_int_equal(rot_fs->unlink(rot_fs, path), 0);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, 1);
    assert_int_equal(rot_rig.log.segment.position,
                     mark_too ? ROT_SEGMENT : end); /* no position is used twice */
    rot_append(1, 10);
    rot_assert_log(10, 0, 0);
    rot_crash(SIM_LOSE_ALL);
    rot_open();
    rot_assert_log(10, 0, 0);
    assert_int_equal(rot_kept().files, 2); /* the damage, and all of the file that was replaced */
}

static void test_a_bad_checkpoint_of_an_empty_log(void **state)
{
    (void)state;
    start_empty(false);
    start_empty(true);
}

static void test_a_bad_checkpoint_of_a_segment_without_entries(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    rot_crash(SIM_LOSE_NOTHING);
    char path[PATH_MAX];
    vfs_path(path, rot_dir, "mark");
    assert_int_equal(rot_fs->unlink(rot_fs, path), 0);
    uint8_t *bytes = rot_file(rot_path(base));
    memset(bytes + rot_places[base].offset, 0,
           ROT_SEGMENT - rot_places[base].offset); /* as if the roll were all */
    rot_bytes(base, SEGMENT_HEADER_BYTES + 30, 1);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, base);
    rot_assert_log(base - 1, 0, 0);
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.base_lsn, 1);
    assert_int_equal(range.position + range.bytes, rot_rig.log.segment.position);
    assert_int_equal(range.first_lsn, range.next_lsn);
    rot_append(base, base + 10);
    rig_close(&rot_rig);
    rot_open();
    rot_assert_log(base + 10, 0, 0);
    assert_int_equal(rot_ranges(&range), 1);
}

/* ---------------------------------------------------------------- refusals */

static void test_a_log_without_any_segment_is_refused(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    rig_close(&rot_rig);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(1)), 0);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(base)), 0);
    uint64_t changes = sim_disk_calls(rot_disk);
    assert_int_equal(rot_try_open(), EXIT_CONFIG);
    assert_int_equal(sim_disk_calls(rot_disk), changes);
}

static void test_a_segment_that_nothing_tells_of_is_refused(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    rig_close(&rot_rig);
    char path[PATH_MAX];
    vfs_path(path, rot_dir, "mark");
    assert_int_equal(rot_fs->unlink(rot_fs, path), 0);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(1)), 0); /* as if trimmed */
    memset(rot_file(rot_path(base)), 0, ROT_SEGMENT);
    uint64_t changes = sim_disk_calls(rot_disk);
    assert_int_equal(rot_try_open(), EXIT_CONFIG);
    assert_int_equal(sim_disk_calls(rot_disk), changes);
}

/* A mark of a longer log with fewer entries: files of two lives of the log. */
static void test_a_mark_that_contradicts_the_segments_is_refused(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    rig_close(&rot_rig);
    struct log_mark mark = {.log = rot_rig.dir.identity.log,
                            .counter = 100,
                            .durable_end = rot_rig.log.durable.end + 1000,
                            .durable_lsn = base - 2,
                            .checksum = 7};
    uint8_t slot[MARK_SLOT_BYTES];
    char path[PATH_MAX];
    vfs_path(path, rot_dir, "mark");
    log_mark_encode(&mark, slot);
    memcpy(rot_file(path) + log_mark_offset(&mark), slot, sizeof slot);
    uint64_t changes = sim_disk_calls(rot_disk);
    assert_int_equal(rot_try_open(), EXIT_CONFIG);
    assert_int_equal(sim_disk_calls(rot_disk), changes);
}

/* ---------------------------------------------------------------- what else can go wrong */

static void test_a_full_disk_keeps_damage_where_it_is(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 10);
    rig_close(&rot_rig);
    rot_entry(4);
    sim_disk_set_full(rot_disk, true);
    assert_int_equal(rot_try_open(), EXIT_DONE);
    rot_assert_log(10, 4, 1);
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 1);
    assert_string_equal(range.copy, "");
    rig_close(&rot_rig);
    sim_disk_set_full(rot_disk, false);
    rot_open();
    assert_int_equal(rot_ranges(&range), 1);
    assert_true(range.copy[0] != 0);
}

static void test_no_room_for_a_new_segment_gathers_no_copies(void **state)
{
    (void)state;
    uint64_t end = rot_make_ten();
    rot_entry(10);
    rot_bytes(1, end + 100, 50);
    char next[PATH_MAX];
    vfs_path(next, rot_dir, "next.tmp");
    assert_int_equal(rot_fs->unlink(rot_fs, next), 0);
    sim_disk_set_full(rot_disk, true);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rot_try_open(), EXIT_FAULT);
    assert_int_equal(rot_kept().files, 0);
    sim_disk_set_full(rot_disk, false);
    rot_assert_goes_on(10, 10, end);
}

/* Killed at each call of a recovery that has all to do: damage, bytes above the mark, a new segment. */
static void cut_recovery_short(enum sim_loss loss)
{
    uint64_t calls = 0;
    enum service_exit code;
    rot_start_over();
    rot_open();
    rot_append_noted(1, 10);
    uint64_t end = rot_rig.log.durable.end;
    rig_close(&rot_rig);
    rot_entry(3);
    rot_entry(10);
    rot_bytes(1, rot_places[10].end + 10, 200);
    do {
        sim_disk_stop_after(rot_disk, calls++);
        code = rot_try_open();
        sim_disk_stop_after(rot_disk, UINT64_MAX / 2);
        if (code != EXIT_DONE)
            sim_disk_crash(rot_disk, loss, calls);
    } while (code != EXIT_DONE);
    assert_true(calls > 10);
    assert_int_equal(rot_rig.log.segment.position, end);
    assert_int_equal(rot_rig.log.durable.lsn, 10);
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 2);
    assert_int_equal(rot_damages(), 2);
    assert_true(rig_prepare(&rot_rig));
    rot_append_anew(11, 15);
    rot_crash(SIM_LOSE_ALL);
    rot_open();
    assert_int_equal(rot_rig.log.durable.lsn, 15);
}

static void test_a_recovery_from_damage_can_be_cut_short_anywhere(void **state)
{
    (void)state;
    cut_recovery_short(SIM_LOSE_NOTHING);
    cut_recovery_short(SIM_LOSE_ALL);
    for (unsigned i = 0; i < 20; i++)
        cut_recovery_short(SIM_LOSE_SOME);
}

/* ---------------------------------------------------------------- files beside the segments */

static void check_metadata(const char *path, size_t at, bool gone)
{
    struct buf before[2] = {0};
    uint64_t last, base = rot_fill(2, &last);
    rig_close(&rot_rig);
    const uint64_t bases[] = {1, base};
    for (unsigned i = 0; i < 2; i++)
        buf_append(&before[i], rot_file(rot_path(bases[i])), sim_disk_file(rot_disk, rot_path(bases[i])).len);
    struct slice file = sim_disk_file(rot_disk, path);
    bool is_node = strcmp(path, "/data/node") == 0;
    if (gone)
        assert_int_equal(rot_fs->unlink(rot_fs, path), 0);
    else if (at < file.len)
        rot_file(path)[at] ^= 0x10;
    else
        sim_disk_resize(rot_disk, path, file.len / 2);
    enum service_exit code = rot_try_open();
    if (code == EXIT_DONE) {
        assert_true(rig_prepare(&rot_rig));
        rot_assert_log(last, 0, 0);
        rot_append(last + 1, last + 3);
        rig_kill(&rot_rig);
    } else {
        assert_true(is_node && code == EXIT_CONFIG);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct slice now = sim_disk_file(rot_disk, rot_path(bases[i]));
        assert_true(now.len == before[i].len);
        assert_memory_equal(now.data, before[i].data, i == 0 ? now.len : rot_places[last].end);
        buf_free(&before[i]);
    }
}

static void test_damage_to_files_beside_the_segments_costs_no_data(void **state)
{
    (void)state;
    rot_open();
    rig_kill(&rot_rig);
    static const char *const names[] = {"mark", "damage", "next.tmp"};
    for (unsigned i = 0; i < 4; i++) {
        for (size_t at = 0; at < 300; at += 13) {
            char path[PATH_MAX] = "/data/node";
            rot_start_over();
            rot_open();
            rig_kill(&rot_rig);
            if (i < 3)
                vfs_path(path, rot_dir, names[i]);
            if (i == 1) {
                struct wal_damage *damage;
                struct log_damage_range range = {.base_lsn = 1, .offset = 500, .bytes = 10, .position = 500};
                assert_int_equal(wal_damage_open(rot_fs, rot_dir, rot_rig.dir.identity.log,
                                                 "/data/quarantine", 0, &damage),
                                 SH_OK);
                assert_int_equal(wal_damage_add(damage, &range, -1), 0);
                wal_damage_close(damage);
            }
            check_metadata(path, at, at == 0);
        }
    }
}

#define SALVAGE_TEST(f) cmocka_unit_test_setup_teardown(f, rot_setup, rot_teardown)

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        SALVAGE_TEST(test_the_newest_segment_is_missing),
        SALVAGE_TEST(test_the_two_newest_segments_are_missing),
        SALVAGE_TEST(test_a_segment_in_the_middle_is_missing),
        SALVAGE_TEST(test_the_sealed_segment_is_too_short),
        SALVAGE_TEST(test_the_sealed_segment_has_a_bad_header),
        SALVAGE_TEST(test_an_unsealed_segment_with_a_bad_header_is_sealed),
        SALVAGE_TEST(test_the_start_of_the_newest_segment_is_gone),
        SALVAGE_TEST(test_a_bad_checkpoint_costs_no_answer),
        SALVAGE_TEST(test_a_lost_position_is_known_from_the_segment_before),
        SALVAGE_TEST(test_a_segment_whose_position_nobody_knows_is_given_up),
        SALVAGE_TEST(test_a_guessed_position_cuts_nothing),
        SALVAGE_TEST(test_what_lies_behind_a_sealed_end),
        SALVAGE_TEST(test_a_bad_checkpoint_of_an_empty_log),
        SALVAGE_TEST(test_a_bad_checkpoint_of_a_segment_without_entries),
        SALVAGE_TEST(test_a_log_without_any_segment_is_refused),
        SALVAGE_TEST(test_a_segment_that_nothing_tells_of_is_refused),
        SALVAGE_TEST(test_a_mark_that_contradicts_the_segments_is_refused),
        SALVAGE_TEST(test_a_full_disk_keeps_damage_where_it_is),
        SALVAGE_TEST(test_no_room_for_a_new_segment_gathers_no_copies),
        SALVAGE_TEST(test_a_recovery_from_damage_can_be_cut_short_anywhere),
        SALVAGE_TEST(test_damage_to_files_beside_the_segments_costs_no_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
