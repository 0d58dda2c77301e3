/* Clock frames in the node's own log: they take no LSN, and their HLC counts, also after a restart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 10 };
static const char data[] = "/data";

static struct sim_disk *disk;
static struct wal_rig rig;

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
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

static enum sh_error try_clock(struct slice body, uint64_t *hlc)
{
    return wal_core_clock(rig.core, body, rig.now_ns, hlc);
}

static uint64_t clock_hlc(void)
{
    uint64_t hlc = 0;
    assert_int_equal(try_clock(slice_str("clock"), &hlc), SH_OK);
    return hlc;
}

static void test_it_takes_no_lsn_and_its_hlc_lies_between(void **state)
{
    (void)state;
    uint64_t before = rig_append(&rig, 0, 0, 0, slice_str("a")), hlc = clock_hlc();
    uint64_t behind = rig_append(&rig, 0, 0, 0, slice_str("b"));
    assert_int_equal(rig.first->next->header.kind, FRAME_CLOCK);
    assert_int_equal(rig.first->next->header.base_lsn, 2);
    assert_true(slice_is(rig.first->next->body, "clock"));
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[behind].reply.lsn, 2);
    assert_true(rig.answers[before].reply.hlc < hlc && hlc < rig.answers[behind].reply.hlc);
}

static void test_after_a_restart_no_entry_has_a_lower_hlc(void **state)
{
    (void)state;
    int64_t then_ns = rig.now_ns;
    rig.now_ns += 3600 * NS_PER_S; /* the clock is wrong for a while */
    rig_append(&rig, 0, 0, 0, slice_str("a"));
    uint64_t hlc = clock_hlc();
    assert_true(rig_commit(&rig));
    rig_close(&rig);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    rig.now_ns = then_ns;
    assert_int_equal(wal_core_stats(rig.core).next_lsn, 2);
    uint64_t behind = rig_append(&rig, 0, 0, 0, slice_str("b"));
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.answers[behind].reply.lsn, 2);
    assert_true(rig.answers[behind].reply.hlc > hlc);
    assert_true(clock_hlc() > rig.answers[behind].reply.hlc);
}

static void test_it_is_written_now_or_not_at_all(void **state)
{
    (void)state;
    static const uint8_t bytes[SEGMENT];
    struct slice large = slice_of(bytes, SEGMENT / 5);
    uint64_t hlc = 0;
    enum sh_error error;
    assert_int_equal(try_clock(slice_of(bytes, SEGMENT / 4), &hlc), SH_TOO_LARGE);
    while ((error = try_clock(large, &hlc)) == SH_OK)
        assert_true(rig_commit(&rig));
    assert_int_equal(error, SH_UNAVAILABLE); /* the next segment is not there */
    wal_core_next_segment(rig.core, WAL_NEXT_DISK_FULL, rig.now_ns);
    assert_int_equal(try_clock(large, &hlc), SH_DISK_FULL);
    assert_null(rig.first);
    assert_true(rig_prepare(&rig));
    assert_int_equal(try_clock(large, &hlc), SH_OK);
    assert_true(rig.first->opens_segment);
    assert_int_equal(rig.first->next->header.kind, FRAME_CLOCK);
    assert_true(rig_commit(&rig));
    wal_core_hold_back(rig.core);
    assert_int_equal(try_clock(slice_str("clock"), &hlc), SH_UNAVAILABLE);
    wal_core_let_go(rig.core, rig.now_ns);
    wal_core_refuse_writes(rig.core, "not now");
    assert_int_equal(try_clock(slice_str("clock"), &hlc), SH_READ_ONLY);
    assert_null(rig.first);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_it_takes_no_lsn_and_its_hlc_lies_between),
        TEST(test_after_a_restart_no_entry_has_a_lower_hlc),
        TEST(test_it_is_written_now_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
