/* Frames of another chain replace those of a copy: wherever the chains part, through a crash at each file
 * operation, and not where they must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "fork_rig.h"
#include "log.h"
#include "query.h"
#include "segment_index.h"
#include "sim_images.h"
#include "wal_cut.h"
#include "wal_forked.h"

static struct fork_rig f;
static struct sim_disk *disk;
static const struct vfs *fs;
static struct sim_images images;

static void use_disk(struct sim_disk *to)
{
    disk = to;
    fs = sim_disk_vfs(to);
}

/* The copy holds all of a. */
static void begin(const struct origin_fork *how, bool own)
{
    fork_rig_make(&f, how, NULL);
    use_disk(sim_disk_open());
    assert_int_equal(fork_rig_open(&f, fs, own), SH_OK);
    f.rig.over = false;
    copy_rig_fill(&f.rig, &f.a, 7);
    f.rig.over = true;
    assert_true(copy_rig_mark(&f.rig));
}

static void end(void)
{
    sim_disk_close(disk);
    fork_rig_free(&f);
}

static void check_is_b(void)
{
    assert_int_equal(f.rig.files.durable.end, f.b.bytes.len);
    copy_rig_check(&f.rig, &f.b);
    assert_int_equal(copy_rig_ranges(&f.rig), 0);
}

/* The checksum of a's first frame behind the fork. */
static uint32_t first_of_a(void)
{
    size_t unit = 0;
    struct frame_header h;
    while (f.a.units[unit].begin < f.fork.position)
        unit++;
    uint64_t at = f.a.units[unit].begin + (f.a.units[unit].opens_segment ? SEGMENT_HEADER_BYTES : 0);
    assert_int_equal(
        frame_header_decode(slice_of(f.a.bytes.data + at, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h), SH_OK);
    return h.checksum;
}

/* ---------------------------------------------------------------- everywhere */

/* What the chains do at the fork itself. */
static struct {
    unsigned a_rolls, b_rolls, both;
} seen;

static bool rolls_at_fork(const struct origin *o)
{
    for (size_t i = 0; i < o->count; i++)
        if (o->units[i].begin == f.fork.position)
            return o->units[i].opens_segment;
    return false;
}

static void replace_all(const struct origin_fork *how, size_t most)
{
    begin(how, true);
    bool a = rolls_at_fork(&f.a), b = rolls_at_fork(&f.b);
    seen.a_rolls += a && !b;
    seen.b_rolls += b && !a;
    seen.both += a && b;
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), most));
    check_is_b();
    assert_int_equal(fork_rig_check_kept(&f, fs), 1);
    assert_int_equal(f.given_up.count, 1);
    assert_int_equal(f.given_up.all[0].position, f.fork.position);
    assert_int_equal(f.given_up.all[0].checksum, first_of_a());
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), most)); /* it is all there, and stays */
    assert_int_equal(fork_rig_check_kept(&f, fs), 1);
    copy_rig_close(&f.rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    assert_int_equal(fork_rig_open(&f, fs, true), SH_OK);
    check_is_b();
    assert_int_equal(f.given_up.count, 1);
    copy_rig_close(&f.rig);
    end();
}

static void test_another_chain_replaces_the_copys_wherever_they_part(void **state)
{
    (void)state;
    for (unsigned common = 1; common < 60; common++) {
        struct origin_fork how = {
            .common = common, .tail_a = common % 3 * 30 + 5, .tail_b = 40, .seed = common};
        replace_all(&how, common % 4 * 5 + 1);
        how.first_a = 1; /* one of them rolls at the fork, or both do */
        how.first_b = 3000;
        how.seed = 3;
        replace_all(&how, 3);
        how.first_a = 3000;
        how.first_b = 1;
        replace_all(&how, 100);
        how.first_b = 3001;
        replace_all(&how, 100);
    }
    assert_true(seen.a_rolls > 0 && seen.b_rolls > 0 && seen.both > 0);
}

/* ---------------------------------------------------------------- crashes */

static struct origin_fork crash_how = {.common = 30, .tail_a = 60, .tail_b = 50, .seed = 7};

/* Whether the copy ends where a frame of that chain ends, with its checksum. */
static bool is_on(const struct origin *o)
{
    const struct log_chain *end_of_copy = &f.rig.files.chain;
    struct frame_header h;
    for (size_t i = 0; i < o->count; i++) {
        uint64_t at = o->units[i].begin + (o->units[i].opens_segment ? SEGMENT_HEADER_BYTES : 0);
        if (o->units[i].end != end_of_copy->position)
            continue;
        assert_int_equal(
            frame_header_decode(slice_of(o->bytes.data + at, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h),
            SH_OK);
        return h.checksum == end_of_copy->checksum;
    }
    return false;
}

/* What a start finds is one of the chains, up to somewhere behind the fork; then the same messages do the
 * rest. */
static void check_image(struct sim_disk *image)
{
    struct sim_disk *stopped = disk;
    use_disk(image);
    struct fork_rig saved = f;
    assert_int_equal(fork_rig_open(&f, fs, true), SH_OK);
    uint64_t found = f.rig.files.durable.end;
    assert_true(found >= f.fork.position);
    if (is_on(&f.a))
        copy_rig_check(&f.rig, &f.a);
    else
        copy_rig_check(&f.rig, &f.b);
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), 5));
    check_is_b();
    fork_rig_check_kept(&f, fs);
    assert_int_equal(f.given_up.count, 1);
    assert_int_equal(f.given_up.all[0].checksum, first_of_a());
    copy_rig_close(&f.rig);
    f = saved;
    use_disk(stopped);
}

static void stop_at_each_call(uint64_t samples)
{
    uint64_t calls = 0, least = 0;
    bool is_done = false;
    for (; !is_done; calls++) {
        begin(&crash_how, true);
        sim_disk_record(disk, true);
        sim_disk_stop_after(disk, calls);
        is_done = fork_rig_bring(&f, fork_rig_start(&f), 5);
        copy_rig_close(&f.rig);
        sim_images_each(&images, disk, samples, check_image);
        end();
        least++;
    }
    assert_true(least > 30); /* keeping several segments, register, mark, removals, zeros */
}

static void test_each_image_of_a_cut(void **state)
{
    (void)state;
    stop_at_each_call(images.samples / 8);
}

/* The process is killed: all that was written is there. */
static void test_a_kill_at_each_step_of_a_cut(void **state)
{
    bool is_done = false;
    (void)state;
    for (uint64_t calls = 0; !is_done; calls++) {
        begin(&crash_how, true);
        sim_disk_stop_after(disk, calls);
        is_done = fork_rig_bring(&f, fork_rig_start(&f), 5);
        copy_rig_close(&f.rig);
        sim_disk_crash(disk, SIM_LOSE_NOTHING, 1);
        struct sim_disk *same = disk;
        check_image(same);
        end();
    }
}

/* ---------------------------------------------------------------- what is refused */

/* Everything is as it was. */
static void check_untouched(void)
{
    struct wal_forked_folder *folders;
    size_t count;
    assert_int_equal(f.rig.files.durable.end, f.a.bytes.len);
    copy_rig_check(&f.rig, &f.a);
    assert_int_equal(f.given_up.count, 0);
    assert_int_equal(wal_forked_list(fs, "/holder", f.a.log, &folders, &count), 0);
    assert_int_equal(count, 0);
    free(folders);
}

static enum sh_error refused(uint64_t position, struct slice bytes)
{
    bool good;
    assert_int_equal(copy_rig_append(&f.rig, position, bytes, false, &good), WAL_COPY_REFUSED);
    assert_true(good);
    check_untouched();
    return f.rig.refusal.code;
}

static void test_frames_from_behind_the_fork_on_are_refused(void **state)
{
    (void)state;
    begin(&crash_how, true);
    size_t unit = origin_find(&f.b, f.fork.position) + 1;
    assert_true(f.b.units[unit].begin < f.a.bytes.len);
    assert_int_equal(refused(f.b.units[unit].begin, origin_bytes(&f.b, unit, origin_cut(&f.b, unit, 3))),
                     SH_CONFLICT);
    assert_int_equal(f.rig.refusal.expected, f.a.bytes.len);
    size_t segment = unit;
    while (!f.b.units[segment].opens_segment)
        segment++;
    assert_true(f.b.units[segment].begin < f.a.bytes.len);
    assert_int_equal(
        refused(f.b.units[segment].begin, origin_bytes(&f.b, segment, origin_cut(&f.b, segment, 3))),
        SH_CONFLICT);
    copy_rig_close(&f.rig);
    end();
}

static void test_nothing_is_cut_for_what_is_no_whole_frames(void **state)
{
    (void)state;
    begin(&crash_how, true);
    size_t unit = fork_rig_start(&f), behind = origin_cut(&f.b, unit, 100);
    struct slice bytes = origin_bytes(&f.b, unit, behind);
    assert_true(f.b.units[behind - 1].begin > f.fork.position);
    uint8_t *copy = xmalloc(bytes.len);
    memcpy(copy, bytes.data, bytes.len);
    copy[bytes.len - 1] ^= 1; /* in the last frame, behind the fork */
    assert_int_equal(refused(f.b.units[unit].begin, slice_of(copy, bytes.len)), SH_BAD_REQUEST);
    assert_int_equal(refused(f.b.units[unit].begin, slice_of(bytes.data, bytes.len - 1)), SH_BAD_REQUEST);
    assert_int_equal(refused(f.b.units[unit].begin, slice_of(bytes.data, SEGMENT_HEADER_BYTES)),
                     SH_BAD_REQUEST);
    free(copy);
    copy_rig_close(&f.rig);
    end();
}

/* Valid frames, one of which is missing between two others. */
static void test_nothing_is_cut_for_frames_that_do_not_continue_each_other(void **state)
{
    struct buf bytes = {0};
    (void)state;
    begin(&crash_how, true);
    size_t unit = fork_rig_start(&f), behind = origin_cut(&f.b, unit, 100), gone = behind - 2;
    assert_true(f.b.units[gone].begin > f.fork.position);
    struct slice front = origin_bytes(&f.b, unit, gone), rest = origin_bytes(&f.b, gone + 1, behind);
    buf_append(&bytes, front.data, front.len);
    buf_append(&bytes, rest.data, rest.len);
    assert_int_equal(refused(f.b.units[unit].begin, buf_slice(&bytes)), SH_BAD_REQUEST);
    buf_free(&bytes);
    copy_rig_close(&f.rig);
    end();
}

/* Behind the fork both chains have a frame at the same place, of which nothing tells that it is the first one
 * that is other but the checksum of the one before. */
static void test_a_frame_at_the_same_place_of_another_chain_is_no_fork(void **state)
{
    const struct origin_fork how = {
        .common = 5, .tail_a = 9, .tail_b = 9, .first_a = 100, .first_b = 100, .seed = 23};
    (void)state;
    begin(&how, true);
    size_t unit = origin_find(&f.b, f.fork.position) + 1;
    assert_int_equal(f.a.units[unit].begin, f.b.units[unit].begin);
    assert_false(f.b.units[unit].opens_segment);
    assert_int_equal(refused(f.b.units[unit].begin, origin_bytes(&f.b, unit, origin_cut(&f.b, unit, 3))),
                     SH_CONFLICT);
    copy_rig_close(&f.rig);
    end();
}

/* The reader stands behind the fork, on the chain that goes. */
static void test_a_reader_goes_on_with_the_frames_that_came(void **state)
{
    struct reader_pool pool;
    struct buf out = {0};
    uint64_t from = 1;
    (void)state;
    begin(&crash_how, true);
    reader_pool_open(&pool, fs, "/holder/log", 2, 1 << 20);
    while (from < f.fork.next_lsn + 3) {
        struct log_read read = {
            .from = from, .durable_end = f.a.bytes.len, .max_bytes = 1, .max_entries = UINT64_MAX};
        assert_int_equal(reader_pool_read(&pool, f.a.log, &read, &out), SH_OK);
        from = read.next;
    }
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), 7));
    while (from < f.rig.files.chain.next_lsn) {
        struct log_read read = {
            .from = from, .durable_end = f.b.bytes.len, .max_bytes = 1, .max_entries = UINT64_MAX};
        assert_int_equal(reader_pool_read(&pool, f.a.log, &read, &out), SH_OK);
        from = read.next;
    }
    buf_free(&out);
    reader_pool_close(&pool);
    copy_rig_close(&f.rig);
    end();
}

/* An index tells of frames that are gone: none must be left, after a loss of power either. */
static void test_no_index_outlives_the_frames_that_it_tells_of(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 60, .tail_b = 2, .seed = 25};
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint64_t *bases;
    size_t count;
    (void)state;
    begin(&how, true);
    assert_int_equal(segment_list(fs, f.rig.path, &bases, &count), 0);
    assert_true(count > 2 && fork_rig_start(&f) == 0);
    for (size_t i = 0; i < count; i++) {
        segment_index_name(bases[i], name);
        assert_int_equal(vfs_replace_file(fs, f.rig.path, name, "x", 1), 0);
    }
    assert_true(fork_rig_bring(&f, 0, 100));
    copy_rig_close(&f.rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    for (size_t i = 0; i < count; i++) {
        segment_index_name(bases[i], name);
        vfs_path(path, f.rig.path, name);
        assert_int_equal(fs->open(fs, path, 0, 0), -ENOENT);
    }
    free(bases);
    end();
}

/* The segments up to that with the fork are trimmed. */
static void trim_first(void)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(fs, f.rig.path, &bases, &count), 0);
    segment_name(bases[0], name);
    vfs_path(path, f.rig.path, name);
    assert_int_equal(fs->unlink(fs, path), 0);
    free(bases);
}

static void test_a_fork_before_the_first_segment_that_is_left_is_refused(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 90, .tail_b = 50, .seed = 9};
    (void)state;
    begin(&how, true);
    size_t unit = fork_rig_start(&f);
    assert_int_equal(unit, 0);
    trim_first();
    bool good;
    struct slice bytes = origin_bytes(&f.b, unit, origin_cut(&f.b, unit, 100));
    assert_int_equal(copy_rig_append(&f.rig, 0, bytes, false, &good), WAL_COPY_REFUSED);
    assert_int_equal(f.rig.refusal.code, SH_CONFLICT);
    assert_non_null(strstr(f.rig.refusal.text, "node join --replace"));
    assert_int_equal(f.rig.files.durable.end, f.a.bytes.len);
    copy_rig_close(&f.rig);
    end();
}

/* The first segment that is left begins with the first frame that goes. */
static void test_a_fork_at_the_begin_of_the_first_segment_is_refused(void **state)
{
    struct origin_fork how = {.tail_a = 40, .tail_b = 40, .first_a = 3000, .first_b = 3001, .seed = 3};
    (void)state;
    bool both = false;
    while (!both) {
        how.common++;
        begin(&how, true);
        both = rolls_at_fork(&f.a) && rolls_at_fork(&f.b);
        if (both)
            break;
        copy_rig_close(&f.rig);
        end();
    }
    while (true) {
        uint64_t *bases;
        size_t count;
        assert_int_equal(segment_list(fs, f.rig.path, &bases, &count), 0);
        uint64_t first = bases[0];
        free(bases);
        if (first == f.fork.next_lsn)
            break;
        trim_first();
    }
    size_t unit = origin_find(&f.b, f.fork.position);
    bool good;
    struct slice bytes = origin_bytes(&f.b, unit, origin_cut(&f.b, unit, 3));
    assert_int_equal(copy_rig_append(&f.rig, f.fork.position, bytes, false, &good), WAL_COPY_REFUSED);
    assert_int_equal(f.rig.refusal.code, SH_CONFLICT);
    assert_non_null(strstr(f.rig.refusal.text, "node join --replace"));
    assert_int_equal(f.rig.files.durable.end, f.a.bytes.len);
    copy_rig_close(&f.rig);
    end();
}

/* ---------------------------------------------------------------- full disks, damage, registers */

static void test_a_full_disk_leaves_everything_as_it_was(void **state)
{
    bool good;
    (void)state;
    begin(&crash_how, true);
    size_t unit = fork_rig_start(&f), behind = origin_cut(&f.b, unit, 100);
    sim_disk_set_full(disk, true);
    assert_int_equal(
        copy_rig_append(&f.rig, f.b.units[unit].begin, origin_bytes(&f.b, unit, behind), false, &good),
        WAL_COPY_REFUSED);
    assert_true(good && f.rig.was_full);
    check_untouched();
    sim_disk_set_full(disk, false);
    assert_true(fork_rig_bring(&f, unit, 100));
    check_is_b();
    assert_int_equal(fork_rig_check_kept(&f, fs), 1);
    copy_rig_close(&f.rig);
    end();
}

/* A byte of a frame rots: of the unit that lies so many before the fork. */
static void rot(int units)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    const struct origin_unit *unit = &f.a.units[origin_find(&f.b, f.fork.position) - (size_t)units];
    uint64_t position = 0;
    for (size_t i = 0; i < f.a.count; i++)
        if (f.a.units[i].opens_segment && f.a.units[i].begin <= unit->begin)
            position = f.a.units[i].begin;
    segment_name(unit->base_lsn, name);
    vfs_path(path, f.rig.path, name);
    sim_disk_flip(disk, path, unit->end - 1 - position, 1);
}

/* What stands behind a damaged frame tells whether it was the same. */
static void test_damage_before_the_fork_is_no_fork(void **state)
{
    (void)state;
    for (int units = 1; units < 4; units++) {
        for (size_t most = 1; most < 9; most += 7) {
            begin(&crash_how, true);
            size_t unit = fork_rig_start(&f);
            rot(units);
            size_t at = unit;
            while (f.b.units[at].begin < f.fork.position) {
                bool good;
                size_t behind = origin_cut(&f.b, at, most);
                enum wal_copy_verdict verdict = copy_rig_append(&f.rig, f.b.units[at].begin,
                                                                origin_bytes(&f.b, at, behind), false, &good);
                /* a message of nothing but the damaged frame cannot be compared */
                assert_true(verdict != WAL_COPY_REFUSED || (most == 1 && f.rig.refusal.code == SH_CONFLICT));
                at = behind;
            }
            assert_true(fork_rig_bring(&f, at, most));
            assert_int_equal(f.given_up.count, 1);
            assert_int_equal(f.given_up.all[0].position, f.fork.position);
            assert_int_equal(f.rig.files.durable.end, f.b.bytes.len);
            assert_int_equal(fork_rig_check_kept(&f, fs), 1);
            copy_rig_close(&f.rig);
            end();
        }
    }
}

/* The first frame that goes is damaged: the fork is there, but what was given up has no name. */
static void test_damage_at_the_fork_is_kept_and_not_named(void **state)
{
    (void)state;
    begin(&crash_how, true);
    rot(0);
    size_t unit = fork_rig_start(&f);
    assert_true(origin_cut(&f.b, unit, 100) > origin_find(&f.b, f.fork.position) + 2);
    assert_true(fork_rig_bring(&f, unit, 100));
    check_is_b();
    assert_int_equal(f.given_up.count, 0);
    copy_rig_close(&f.rig);
    end();
}

static void test_the_register_keeps_the_newest_sixteen(void **state)
{
    struct wal_given_up g, again;
    const struct id16 log = {{1}};
    (void)state;
    use_disk(sim_disk_open());
    assert_int_equal(fs->mkdir(fs, "/d", 0750), 0);
    assert_int_equal(wal_given_up_read(&g, fs, "/d", log), SH_OK);
    for (uint32_t i = 1; i <= GIVEN_UP_MAX + 3; i++) {
        const struct wal_given_up_frame frame = {UINT64_MAX - i, UINT32_MAX - i};
        assert_int_equal(wal_given_up_add(&g, fs, "/d", log, &frame), 0);
        assert_int_equal(wal_given_up_add(&g, fs, "/d", log, &frame), 0); /* it is known */
    }
    assert_int_equal(wal_given_up_read(&again, fs, "/d", log), SH_OK);
    assert_int_equal(again.count, GIVEN_UP_MAX);
    for (size_t i = 0; i < GIVEN_UP_MAX; i++) {
        assert_int_equal(again.all[i].position, g.all[i].position);
        assert_int_equal(again.all[i].checksum, g.all[i].checksum);
    }
    assert_true(wal_given_up_has(&again, UINT32_MAX - 4));
    assert_false(wal_given_up_has(&again, UINT32_MAX - 3));
    assert_int_equal(wal_given_up_read(&again, fs, "/d", (struct id16){{2}}), SH_CONFLICT);
    sim_disk_flip(disk, "/d/given-up", 80, 1);
    assert_int_equal(wal_given_up_read(&again, fs, "/d", log), SH_OK);
    assert_int_equal(again.count, 0);
    sim_disk_close(disk);
}

/* A second tail that was cut off at the same LSN does not take the place of the first. */
static void test_a_folder_never_replaces_another_one(void **state)
{
    (void)state;
    begin(&crash_how, true);
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), 5));
    struct origin swap = f.a;
    f.a = f.b;
    f.b = swap;
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), 5)); /* the rule against that is the copier's */
    check_is_b();
    assert_int_equal(f.given_up.count, 2);
    struct wal_forked_folder *folders;
    size_t count;
    assert_int_equal(wal_forked_list(fs, "/holder", f.a.log, &folders, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(folders[0].lsn, f.fork.next_lsn);
    assert_int_equal(folders[1].lsn, f.fork.next_lsn);
    assert_int_equal(folders[1].number, 2);
    free(folders);
    copy_rig_close(&f.rig);
    end();
}

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    images = sim_images_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_another_chain_replaces_the_copys_wherever_they_part),
        cmocka_unit_test(test_each_image_of_a_cut),
        cmocka_unit_test(test_a_kill_at_each_step_of_a_cut),
        cmocka_unit_test(test_frames_from_behind_the_fork_on_are_refused),
        cmocka_unit_test(test_nothing_is_cut_for_what_is_no_whole_frames),
        cmocka_unit_test(test_nothing_is_cut_for_frames_that_do_not_continue_each_other),
        cmocka_unit_test(test_a_frame_at_the_same_place_of_another_chain_is_no_fork),
        cmocka_unit_test(test_a_reader_goes_on_with_the_frames_that_came),
        cmocka_unit_test(test_no_index_outlives_the_frames_that_it_tells_of),
        cmocka_unit_test(test_a_fork_before_the_first_segment_that_is_left_is_refused),
        cmocka_unit_test(test_a_fork_at_the_begin_of_the_first_segment_is_refused),
        cmocka_unit_test(test_a_full_disk_leaves_everything_as_it_was),
        cmocka_unit_test(test_damage_before_the_fork_is_no_fork),
        cmocka_unit_test(test_damage_at_the_fork_is_kept_and_not_named),
        cmocka_unit_test(test_the_register_keeps_the_newest_sixteen),
        cmocka_unit_test(test_a_folder_never_replaces_another_one),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("count: crash images %llu\n", (unsigned long long)images.count);
    return failed;
}
