/* Copies of other nodes' logs on a simulated disk: the same bytes as the origin's whatever comes in between,
 * and never told to be durable further than what survives. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy_rig.h"
#include "log.h"
#include "log_verify.h"

static const char data[] = "/holder";
static struct origin origin;
static struct sim_disk *disk;
static const struct vfs *fs;
static struct copy_rig rig;

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    origin_make(&origin, 120, 7);
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    copy_rig_close(&rig);
    sim_disk_close(disk);
    origin_free(&origin);
    return 0;
}

/* With an empty disk. */
static void begin_again(void)
{
    copy_rig_close(&rig);
    sim_disk_close(disk);
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
}

static void reopen(enum sim_loss loss, uint64_t seed)
{
    copy_rig_close(&rig);
    sim_disk_crash(disk, loss, seed);
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, ORIGIN_SEGMENT), SH_OK);
}

static void path_of(uint64_t base, char path[PATH_MAX])
{
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, rig.path, name);
}

/* Appends the units [first, behind). */
static void append(size_t first, size_t behind)
{
    bool good;
    enum wal_copy_verdict verdict =
        copy_rig_append(&rig, origin.units[first].begin, origin_bytes(&origin, first, behind), false, &good);
    assert_true(good);
    assert_true(verdict == WAL_COPY_APPENDS || verdict == WAL_COPY_ROLLS);
}

static void fill_up_to(size_t behind)
{
    for (size_t i = 0; i < behind; i++)
        append(i, i + 1);
}

/* Everything is the origin's, up to its end. */
static void check_whole(void)
{
    copy_rig_fill(&rig, &origin, 5);
    assert_int_equal(rig.files.durable.end, origin.bytes.len);
    copy_rig_check(&rig, &origin);
    assert_int_equal(copy_rig_ranges(&rig), 0);
}

/* ---------------------------------------------------------------- whole copies */

static void test_in_any_pieces_it_is_the_same_bytes(void **state)
{
    static const size_t most[] = {1, 2, 3, 7, 1000};
    size_t segments = 0;
    (void)state;
    for (size_t i = 0; i < origin.count; i++)
        segments += origin.units[i].opens_segment;
    assert_true(segments >= 4);
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        begin_again();
        copy_rig_fill(&rig, &origin, most[i]);
        copy_rig_check(&rig, &origin);
        reopen(SIM_LOSE_ALL, 1);
        assert_int_equal(rig.files.durable.end, origin.bytes.len);
        check_whole();
    }
}

static void test_segments_larger_than_its_own_are_taken(void **state)
{
    (void)state;
    copy_rig_close(&rig);
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, 4 << 10), SH_OK);
    check_whole();
    copy_rig_close(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    assert_int_equal(copy_rig_open(&rig, fs, data, origin.log, 4 << 10), SH_OK);
    assert_int_equal(rig.files.durable.end, origin.bytes.len);
    check_whole();
}

/* ---------------------------------------------------------------- torn tails */

/* Overwrites bytes of the copy's newest segment, by position. */
static void overwrite(const uint8_t *bytes, uint64_t from, uint64_t to)
{
    char path[PATH_MAX];
    path_of(rig.files.segment.base_lsn, path);
    int fd = fs->open(fs, path, O_RDWR, 0);
    assert_int_equal(vfs_write_all(fs, fd, bytes, to - from, (int64_t)(from - rig.files.segment.position)),
                     0);
    fs->close(fs, fd);
}

/* The frames of a copy carry what the origin knew, which may be more than the copy has: only its mark counts.
 */
static void test_the_origins_durable_end_is_not_the_copys(void **state)
{
    static const uint8_t zeros[ORIGIN_SEGMENT];
    const struct node_identity own = {.node = "n1", .log = {{9}}};
    struct log_verify_options options = {.log = origin.log};
    struct log_verify_report report;
    (void)state;
    assert_int_equal(node_identity_write(fs, data, &own), 0);
    assert_int_equal(fs->mkdir(fs, "/holder/log/09000000-0000-0000-0000-000000000000", 0750), 0);
    fill_up_to(5);
    assert_true(copy_rig_mark(&rig));
    uint64_t marked = rig.files.durable.end;
    for (size_t i = 5; i < 12; i++)
        append(i, i + 1);
    /* As if that had been one unordered write: what comes first is missing, what comes last is there. */
    overwrite(zeros, origin.units[5].begin, origin.units[5].end);
    assert_int_equal(log_verify(fs, data, &options, &report), SH_OK);
    reopen(SIM_LOSE_NOTHING, 1);
    assert_int_equal(rig.files.durable.end, marked);
    assert_int_equal(copy_rig_ranges(&rig), 0);
    check_whole();
}

static void test_a_tail_torn_at_any_byte_is_cut_and_comes_again(void **state)
{
    static const uint8_t noise[ORIGIN_SEGMENT] = {1, 2, 3};
    unsigned tried = 0;
    size_t behind = origin_cut(&origin, 8, 4);
    uint64_t from = origin.units[8].begin, to = origin.units[behind - 1].end;
    (void)state;
    for (uint64_t torn = from; torn < to; torn += torn - from < 200 ? 1 : 13, tried++) {
        size_t left = 8;
        begin_again();
        fill_up_to(8);
        assert_true(copy_rig_mark(&rig));
        append(8, behind);
        overwrite(noise, torn, to);
        reopen(SIM_LOSE_NOTHING, 1);
        while (origin.units[left].end <= torn)
            left++;
        assert_int_equal(rig.files.durable.end, origin.units[left].begin);
        copy_rig_check(&rig, &origin);
        check_whole();
    }
    assert_true(tried > 200);
}

/* ---------------------------------------------------------------- crashes */

/* The first segments in pieces, with marks; ends when a call fails. *told: the durable end that was told
 * last. */
static void live(size_t units, uint64_t *told)
{
    bool good = true;
    *told = rig.files.durable.end;
    while (good && rig.files.chain.position < origin.units[units].begin) {
        size_t first = origin_find(&origin, rig.files.chain.position);
        size_t behind = origin_cut(&origin, first, 1 + first % 4);
        copy_rig_append(&rig, origin.units[first].begin, origin_bytes(&origin, first, behind), false, &good);
        if (good)
            *told = rig.files.durable.end;
        if (good && first % 3 == 0)
            good = copy_rig_mark(&rig);
    }
}

static void test_what_was_told_survives_a_loss_of_power_at_any_call(void **state)
{
    static const enum sim_loss losses[] = {SIM_LOSE_ALL, SIM_LOSE_SOME, SIM_LOSE_SOME, SIM_LOSE_NOTHING};
    uint64_t told, stops = 0;
    size_t units = origin.count - 1;
    bool done = false;
    (void)state;
    for (uint64_t calls = 1; !done; calls++) {
        for (unsigned i = 0; i < 4; i++, stops++) {
            begin_again();
            sim_disk_stop_after(disk, calls);
            live(units, &told);
            done = rig.files.chain.position >= origin.units[units].begin;
            reopen(losses[i], stops);
            assert_true(rig.files.durable.end >= told);
            copy_rig_check(&rig, &origin);
            assert_int_equal(copy_rig_ranges(&rig), 0);
            told = rig.files.durable.end;
            reopen(SIM_LOSE_ALL, stops); /* what the start told holds too */
            assert_true(rig.files.durable.end >= told);
            check_whole();
        }
    }
    assert_true(stops > 400);
    printf("count: copies that lost power %u\n", (unsigned)stops);
}

/* The origin's last segment. */
static size_t last_segment(void)
{
    size_t unit = origin.count - 1;
    while (!origin.units[unit].opens_segment)
        unit--;
    return unit;
}

/* What is left of the copy after a loss of power in the middle: either what it held, from some segment on, or
 * nothing, or the new segment; never anything with a hole. */
static void lose_power_while_it_begins_anew(uint64_t calls, enum sim_loss loss, uint64_t seed, bool *done)
{
    bool good;
    size_t later = last_segment();
    struct slice bytes = origin_bytes(&origin, later, origin_cut(&origin, later, 2));
    uint64_t position = origin.units[later].begin, new_end = position + bytes.len;
    begin_again();
    fill_up_to(later - 1);
    assert_true(copy_rig_mark(&rig));
    uint64_t old_end = rig.files.durable.end;
    sim_disk_stop_after(disk, calls);
    *done = copy_rig_append(&rig, position, bytes, true, &good) == WAL_COPY_ANEW && good;
    reopen(loss, seed);
    uint64_t end = rig.files.durable.end;
    assert_true(end == new_end || (!*done && end <= old_end));
    assert_int_equal(copy_rig_ranges(&rig), 0);
    copy_rig_check(&rig, &origin);
    copy_rig_append(&rig, position, bytes, true, &good); /* asked for again */
    assert_true(good);
    assert_int_equal(rig.files.durable.end, new_end);
    check_whole();
}

static void test_beginning_anew_survives_a_loss_of_power_at_any_call(void **state)
{
    bool done = false;
    (void)state;
    for (uint64_t calls = 1; !done; calls++) {
        lose_power_while_it_begins_anew(calls, SIM_LOSE_ALL, calls, &done);
        for (uint64_t seed = 1; seed <= 8; seed++)
            lose_power_while_it_begins_anew(calls, SIM_LOSE_SOME, seed, &done);
    }
}

/* ---------------------------------------------------------------- damage */

static void flip(uint64_t position, uint64_t base)
{
    char path[PATH_MAX];
    uint64_t segment = 0;
    for (size_t i = 0; i < origin.count; i++)
        if (origin.units[i].opens_segment && origin.units[i].base_lsn == base)
            segment = origin.units[i].begin;
    path_of(base, path);
    sim_disk_flip(disk, path, position - segment, 0x40);
}

static void test_damage_below_the_mark_is_named_and_the_copy_goes_on(void **state)
{
    size_t behind = origin_cut(&origin, 0, 1000), bad = behind / 2;
    (void)state;
    fill_up_to(behind);
    assert_true(copy_rig_mark(&rig));
    uint64_t end = rig.files.durable.end;
    flip(origin.units[bad].begin + 30, origin.units[bad].base_lsn);
    reopen(SIM_LOSE_NOTHING, 1);
    assert_int_equal(rig.files.durable.end, end);
    assert_int_equal(copy_rig_ranges(&rig), 1);
    append(behind, behind + 1);
}

static void test_a_copy_that_is_damaged_up_to_its_end_comes_again(void **state)
{
    size_t behind = origin_cut(&origin, 0, 1000) - 1;
    (void)state;
    fill_up_to(behind);
    assert_true(copy_rig_mark(&rig));
    flip(origin.units[behind - 1].end - 1, origin.units[behind - 1].base_lsn);
    reopen(SIM_LOSE_NOTHING, 1);
    assert_int_equal(rig.files.durable.end, origin.units[behind - 1].begin);
    reopen(SIM_LOSE_ALL, 1); /* and its mark says so */
    assert_int_equal(rig.files.durable.end, origin.units[behind - 1].begin);
    check_whole();
}

/* Of the newest segment the first frame is gone, or the header too: the one before is the newest then. */
static void test_a_newest_segment_that_is_lost_comes_again(void **state)
{
    size_t last = origin.count / 2;
    (void)state;
    while (!origin.units[last].opens_segment)
        last++;
    for (unsigned i = 0; i < 3; i++) {
        char path[PATH_MAX];
        copy_rig_fill(&rig, &origin, 5);
        begin_again();
        fill_up_to(last + 1);
        assert_true(copy_rig_mark(&rig));
        path_of(origin.units[last].base_lsn, path);
        if (i == 0)
            flip(origin.units[last].begin + SEGMENT_HEADER_BYTES + 10, origin.units[last].base_lsn);
        else if (i == 1)
            sim_disk_resize(disk, path, 10);
        else
            assert_int_equal(fs->unlink(fs, path), 0);
        reopen(SIM_LOSE_NOTHING, 1);
        assert_int_equal(rig.files.durable.end, origin.units[last].begin);
        assert_int_equal(copy_rig_ranges(&rig), 0);
        reopen(SIM_LOSE_ALL, 1);
        assert_int_equal(rig.files.durable.end, origin.units[last].begin);
        check_whole();
    }
}

static void test_a_copy_without_any_segment_left_begins_again(void **state)
{
    char path[PATH_MAX];
    (void)state;
    fill_up_to(3);
    path_of(1, path);
    assert_int_equal(fs->unlink(fs, path), 0);
    reopen(SIM_LOSE_NOTHING, 1);
    assert_int_equal(rig.files.durable.end, 0);
    check_whole();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_any_pieces_it_is_the_same_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_larger_than_its_own_are_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_origins_durable_end_is_not_the_copys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_tail_torn_at_any_byte_is_cut_and_comes_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_told_survives_a_loss_of_power_at_any_call, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_beginning_anew_survives_a_loss_of_power_at_any_call, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_damage_below_the_mark_is_named_and_the_copy_goes_on, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_copy_that_is_damaged_up_to_its_end_comes_again, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_newest_segment_that_is_lost_comes_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_copy_without_any_segment_left_begins_again, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
