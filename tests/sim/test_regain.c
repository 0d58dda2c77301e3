/* What was cut off the own log comes again at its end: in order, each entry once, through crashes, over
 * segment ends, and on a full disk later. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fork_rig.h"
#include "log.h"
#include "sim_images.h"
#include "wal_forked.h"
#include "wal_regain.h"

static struct fork_rig f;
static struct sim_disk *disk;
static const struct vfs *fs;
static struct wal_rig rig;
static struct wal_regain *regain;
static struct sim_images images;

static void use_disk(struct sim_disk *to)
{
    disk = to;
    fs = sim_disk_vfs(to);
}

/* The own log was a, and has become b; what was cut off it is kept. */
static void begin(const struct origin_fork *how)
{
    struct sim_disk *made;
    fork_rig_make(&f, how, &made);
    f.data = ORIGIN_DATA;
    use_disk(made);
    assert_int_equal(fork_rig_open(&f, fs, true), SH_OK);
    assert_true(fork_rig_bring(&f, fork_rig_start(&f), 7));
    assert_true(copy_rig_mark(&f.rig));
    copy_rig_close(&f.rig);
}

static void end(void)
{
    sim_disk_close(disk);
    fork_rig_free(&f);
}

static void open_own(void)
{
    assert_int_equal(rig_open(&rig, fs, ORIGIN_DATA, ORIGIN_SEGMENT), EXIT_DONE);
    const struct wal_regain_options options = {.fs = fs,
                                               .data = rig.dir.data,
                                               .log = rig.dir.identity.log,
                                               .segment_size = ORIGIN_SEGMENT,
                                               .core = rig.core};
    wal_core_hold_back(rig.core);
    regain = wal_regain_open(&options);
}

static void kill_own(void)
{
    wal_regain_close(regain);
    rig_kill(&rig);
}

/* As far as it goes. False: a file call failed, or it waits for room. */
static bool go_on(void)
{
    enum wal_regain_state state = regain == NULL ? WAL_REGAIN_DONE : WAL_REGAIN_AGAIN;
    while (state != WAL_REGAIN_DONE) {
        state = wal_regain_step(regain, rig.now_ns);
        if (state == WAL_REGAIN_WAITS && (!rig_commit(&rig) || (rig.next_fd < 0 && !rig_prepare(&rig))))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- what must be there */

struct frame {
    struct slice body;
    struct id16 producer;
    uint64_t sequence;
};

/* Data frames from the place on; the caller frees them. */
static size_t frames_of(const struct origin *o, uint64_t from, struct frame **out)
{
    size_t count = 0;
    *out = xcalloc(o->count + 1, sizeof **out);
    for (size_t i = 0; i < o->count; i++) {
        struct frame_header h;
        uint64_t at = o->units[i].begin + (o->units[i].opens_segment ? SEGMENT_HEADER_BYTES : 0);
        assert_int_equal(
            frame_header_decode(slice_of(o->bytes.data + at, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h),
            SH_OK);
        if (h.kind == FRAME_DATA && o->units[i].begin >= from)
            (*out)[count++] = (struct frame){slice_of(o->bytes.data + at + FRAME_HEADER_BYTES, h.body_bytes),
                                             h.producer, h.sequence};
    }
    return count;
}

static bool others_have(const struct frame *frame, const struct frame *theirs, size_t count)
{
    for (size_t i = 0; i < count && !id16_is_zero(frame->producer); i++)
        if (id16_equal(frame->producer, theirs[i].producer) && frame->sequence == theirs[i].sequence)
            return true;
    return false;
}

/* The log is b, then those frames of a that b has not, in order; without `missing` of them. */
static void check_log(size_t missing)
{
    struct origin now;
    struct frame *theirs, *mine, *all;
    size_t at = 0;
    origin_read(&now, disk);
    size_t count_b = frames_of(&f.b, 0, &theirs), count_a = frames_of(&f.a, f.fork.position, &mine);
    size_t count = frames_of(&now, 0, &all);
    assert_true(count >= count_b);
    for (; at < count_b; at++) {
        assert_int_equal(all[at].body.len, theirs[at].body.len);
        assert_memory_equal(all[at].body.data, theirs[at].body.data, theirs[at].body.len);
    }
    for (size_t i = 0; i < count_a; i++) {
        if (others_have(&mine[i], theirs, count_b))
            continue;
        bool is_there = at < count && all[at].body.len == mine[i].body.len &&
                        memcmp(all[at].body.data, mine[i].body.data, mine[i].body.len) == 0;
        assert_true(is_there || missing > 0);
        missing -= !is_there;
        at += is_there;
    }
    assert_int_equal(missing, 0);
    assert_int_equal(at, count); /* nothing twice */
    free(theirs);
    free(mine);
    free(all);
    origin_free(&now);
}

static size_t folders_left(void)
{
    struct wal_forked_folder *folders;
    size_t count;
    assert_int_equal(wal_forked_list(fs, ORIGIN_DATA, f.a.log, &folders, &count), 0);
    free(folders);
    return count;
}

/* ---------------------------------------------------------------- tests */

/* The second has more on the other side: of its producers all is there. */
static void test_each_entry_comes_once_and_in_order(void **state)
{
    const struct origin_fork hows[] = {{.common = 20, .tail_a = 300, .tail_b = 60, .seed = 5},
                                       {.common = 20, .tail_a = 50, .tail_b = 200, .seed = 6},
                                       {.common = 3, .tail_a = 1200, .tail_b = 1, .seed = 7}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        begin(&hows[i]);
        open_own();
        assert_non_null(regain);
        assert_true(go_on());
        kill_own();
        sim_disk_crash(disk, SIM_LOSE_ALL, 1);
        check_log(0);
        assert_int_equal(folders_left(), 0);
        open_own();
        assert_null(regain);
        rig_kill(&rig);
        end();
    }
}

static void finish_and_check(void)
{
    open_own();
    assert_true(go_on());
    kill_own();
    check_log(0);
    assert_int_equal(folders_left(), 0);
}

static void check_image(struct sim_disk *image)
{
    struct sim_disk *stopped = disk;
    use_disk(image);
    finish_and_check();
    use_disk(stopped);
}

static void test_each_image_of_coming_again(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 400, .tail_b = 20, .seed = 9};
    bool is_done = false;
    uint64_t calls = 0;
    (void)state;
    for (; !is_done; calls++) {
        begin(&how);
        open_own();
        sim_disk_record(disk, true);
        sim_disk_stop_after(disk, calls);
        is_done = go_on();
        kill_own();
        sim_images_each(&images, disk, images.samples / 16, check_image);
        end();
    }
    assert_true(calls > 20);
}

/* Many batches, each third frame without a producer: a kill anywhere makes nothing come twice. */
static void test_kills_in_the_middle_of_many_batches(void **state)
{
    const struct origin_fork how = {.common = 3, .tail_a = 1500, .tail_b = 2, .seed = 11};
    bool is_done = false;
    uint64_t kills = 0;
    (void)state;
    begin(&how);
    for (; !is_done; kills++) {
        open_own();
        sim_disk_stop_after(disk, 5 + kills * 7 % 31);
        is_done = go_on();
        kill_own();
        sim_disk_crash(disk, kills % 2 == 0 ? SIM_LOSE_NOTHING : SIM_LOSE_SOME, kills);
    }
    assert_true(kills > 5);
    check_log(0);
    end();
}

static bool has_progress(void)
{
    struct wal_forked_folder *folders;
    char path[PATH_MAX];
    size_t count;
    assert_int_equal(wal_forked_list(fs, ORIGIN_DATA, f.a.log, &folders, &count), 0);
    assert_int_equal(count, 1);
    snprintf(path, sizeof path, "%s/forked/%s/progress", ORIGIN_DATA, folders[0].name);
    free(folders);
    return sim_disk_file(disk, path).data != NULL;
}

/* What the start before has written down of it is gone: the log's producers tell. */
static void test_without_its_progress_nothing_comes_twice(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 700, .tail_b = 20, .seed = 13};
    unsigned had_progress = 0;
    (void)state;
    begin(&how);
    for (unsigned round = 1; round < 5; round++) {
        open_own();
        sim_disk_stop_after(disk, 14 * round);
        assert_false(go_on());
        kill_own();
        sim_disk_crash(disk, SIM_LOSE_NOTHING, round);
        had_progress += has_progress();
        assert_int_equal(wal_forked_forget_progress(fs, ORIGIN_DATA, f.a.log), 0);
        sim_disk_crash(disk, SIM_LOSE_ALL, round);
        assert_false(has_progress());
    }
    assert_true(had_progress > 0);
    finish_and_check();
    end();
}

static void test_on_a_full_disk_it_waits_and_appends_are_told(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 300, .tail_b = 20, .seed = 15};
    (void)state;
    begin(&how);
    open_own();
    uint64_t early = rig_append(&rig, 0, 1, 0, slice_str("waits"));
    sim_disk_set_full(disk, true);
    assert_false(go_on());
    assert_int_equal(wal_regain_step(regain, rig.now_ns), WAL_REGAIN_WAITS);
    assert_int_equal(rig.answers[early].code, SH_DISK_FULL);
    uint64_t late = rig_append(&rig, 0, 1, 0, slice_str("x"));
    assert_int_equal(rig.answers[late].code, SH_DISK_FULL);
    assert_int_equal(folders_left(), 1);
    sim_disk_set_full(disk, false);
    assert_true(go_on());
    uint64_t held = rig_append(&rig, 0, 1, 0, slice_str("x"));
    assert_int_equal(rig.answers[held].times, 0);
    kill_own();
    check_log(0);
    end();
}

static void test_while_no_writes_are_taken_it_waits(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 30, .tail_b = 20, .seed = 17};
    (void)state;
    begin(&how);
    open_own();
    wal_core_refuse_writes(rig.core, "the node has left");
    uint64_t before = wal_core_stats(rig.core).position;
    enum wal_regain_state now;
    do
        now = wal_regain_step(regain, rig.now_ns);
    while (now == WAL_REGAIN_AGAIN);
    assert_int_equal(now, WAL_REGAIN_WAITS);
    assert_int_equal(wal_core_stats(rig.core).position, before);
    wal_core_allow_writes(rig.core);
    assert_true(go_on());
    kill_own();
    check_log(0);
    end();
}

/* Appends that came meanwhile stand behind it. */
static void test_appends_wait_until_it_is_done(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 30, .tail_b = 20, .seed = 19};
    (void)state;
    begin(&how);
    open_own();
    uint64_t number = rig_append(&rig, 0, 1, 0, slice_str("behind"));
    assert_true(go_on());
    assert_int_equal(rig.answers[number].times, 0);
    uint64_t next = wal_core_stats(rig.core).next_lsn;
    wal_core_let_go(rig.core, rig.now_ns);
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[number].reply.lsn, next);
    kill_own();
    end();
}

/* What is damaged stays in its folder, which is named; the rest comes. */
static void test_a_damaged_frame_is_passed_over(void **state)
{
    const struct origin_fork how = {.common = 10, .tail_a = 90, .tail_b = 3, .seed = 21};
    struct wal_forked_folder *folders;
    char path[PATH_MAX];
    uint64_t *bases;
    size_t count;
    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        begin(&how);
        assert_int_equal(wal_forked_list(fs, ORIGIN_DATA, f.a.log, &folders, &count), 0);
        snprintf(path, sizeof path, "%s/forked/%s", ORIGIN_DATA, folders[0].name);
        assert_int_equal(segment_list(fs, path, &bases, &count), 0);
        size_t len = strlen(path);
        path[len] = '/';
        segment_name(bases[first], path + len + 1);
        struct slice file = sim_disk_file(disk, path);
        size_t at = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES;
        if (first > 0) { /* behind the checkpoint, the first data frame */
            struct frame_header h;
            assert_int_equal(
                frame_header_decode(slice_of(file.data + SEGMENT_HEADER_BYTES, FRAME_HEADER_BYTES),
                                    FRAME_BYTES_MAX, &h),
                SH_OK);
            at += h.body_bytes + FRAME_HEADER_BYTES;
        }
        sim_disk_flip(disk, path, at, 1);
        free(bases);
        free(folders);
        open_own();
        assert_true(go_on());
        kill_own();
        check_log(1);
        assert_int_equal(folders_left(), 0);
        end();
    }
}

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    images = sim_images_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_entry_comes_once_and_in_order),
        cmocka_unit_test(test_each_image_of_coming_again),
        cmocka_unit_test(test_kills_in_the_middle_of_many_batches),
        cmocka_unit_test(test_without_its_progress_nothing_comes_twice),
        cmocka_unit_test(test_on_a_full_disk_it_waits_and_appends_are_told),
        cmocka_unit_test(test_while_no_writes_are_taken_it_waits),
        cmocka_unit_test(test_appends_wait_until_it_is_done),
        cmocka_unit_test(test_a_damaged_frame_is_passed_over),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("count: crash images %llu\n", (unsigned long long)images.count);
    return failed;
}
