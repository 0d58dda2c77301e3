/* A log of many segments costs a start no more than one of a few: the folder is listed, no segment is opened
 * but the newest and the one before it, and no memory is kept for the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "wal_rig.h"

/* A few are enough for a producer's 256 answers. */
enum { SEGMENT = 64 << 10, FEW = 50, MANY = 300, OPENED_MAX = 64 };

static char data[PATH_MAX];
static struct vfs fs;
static struct wal_rig rig;
static uint64_t opened[OPENED_MAX];
static size_t opened_count;

static int noting_open(const struct vfs *self, const char *path, int flags, mode_t mode)
{
    (void)self;
    uint64_t base;
    if (segment_name_parse(strrchr(path, '/') + 1, &base)) {
        assert_true(opened_count < OPENED_MAX);
        opened[opened_count++] = base;
    }
    return vfs_posix()->open(vfs_posix(), path, flags, mode);
}

static int no_sync(const struct vfs *self, int fd)
{
    (void)self, (void)fd;
    return 0;
}

static int setup(void **state)
{
    (void)state;
    fs = *vfs_posix();
    fs.fsync = fs.fdatasync = no_sync;
    rig_make_dir(data);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_remove_dir(data);
    return 0;
}

static size_t grow_to(size_t segments)
{
    static uint8_t payload[SEGMENT / 8];
    uint64_t *bases;
    size_t count;
    assert_int_equal(rig_open(&rig, &fs, data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    for (count = 0; count < segments;) {
        for (unsigned i = 0; i < 5; i++) {
            uint64_t number =
                rig_append(&rig, 7, 1, rig.log.durable.lsn + 1, slice_of(payload, sizeof payload));
            assert_true(rig_commit(&rig));
            assert_int_equal(rig.answers[number].code, SH_OK);
        }
        assert_int_equal(segment_list(&fs, rig.dir.log, &bases, &count), 0);
        free(bases);
    }
    rig_close(&rig);
    return count;
}

/* Bytes on the heap that a started walsvc holds for its log. */
static size_t memory_of_a_start(size_t *opens)
{
    uint64_t *bases;
    size_t count, before = mallinfo2().uordblks;
    fs.open = noting_open;
    opened_count = 0;
    assert_int_equal(rig_open(&rig, &fs, data, SEGMENT), EXIT_DONE);
    size_t held = mallinfo2().uordblks - before;
    *opens = opened_count;
    fs.open = vfs_posix()->open;
    assert_int_equal(segment_list(&fs, rig.dir.log, &bases, &count), 0);
    for (size_t i = 0; i < opened_count; i++)
        assert_true(opened[i] == bases[count - 1] || opened[i] == bases[count - 2]);
    free(bases);
    rig_kill(&rig);
    return held;
}

static void test_a_start_opens_the_newest_two_segments_and_keeps_nothing_of_the_others(void **state)
{
    (void)state;
    size_t few_opens, many_opens;
    assert_true(grow_to(FEW) < MANY);
    memory_of_a_start(&few_opens); /* what is allocated once and for all */
    size_t few = memory_of_a_start(&few_opens);
    assert_true(grow_to(MANY) >= MANY);
    size_t many = memory_of_a_start(&many_opens);
    assert_int_equal(many_opens, few_opens);
    assert_in_range(many, 0,
                    few + 1024); /* the answers that are remembered are as many, their LSNs are longer */
}

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_a_start_opens_the_newest_two_segments_and_keeps_nothing_of_the_others, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
