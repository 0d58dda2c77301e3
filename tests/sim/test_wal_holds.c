/* The register of holds on a simulated disk: what was answered is in force after any crash. */
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

static void test_what_is_held_is_not_trimmed_and_is_named(void **state)
{
    (void)state;
    kept_setup();
    uint64_t second = kept_base_of(1), third = kept_base_of(2);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", second, 0), SH_OK);
    assert_int_equal(kept.hold.first_lsn, 1);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", third, 1000), SH_OK);
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(kept.trim.segments, 1);
    assert_int_equal(kept.trim.first_lsn, second);
    assert_true(upkeep_rig_held_by(&kept, "member n2"));
    assert_false(upkeep_rig_held_by(&kept, "reader r"));
    assert_int_equal(upkeep_rig_drop(&kept, WAL_HOLD_MEMBER, "n2"), SH_OK);
    assert_int_equal(upkeep_rig_drop(&kept, WAL_HOLD_MEMBER, "n2"), SH_OK); /* no error the second time */
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(kept.trim.first_lsn, third);
    assert_true(upkeep_rig_held_by(&kept, "reader r"));
    kept.now.real_ns += NS_PER_S; /* the reader's time is over */
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    assert_true(kept.trim.segments > 1);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "late", third, 1000), SH_TRIMMED);
    assert_int_equal(kept.expected, kept.trim.first_lsn);
    kept_teardown();
}

static void test_bad_holds_are_refused(void **state)
{
    (void)state;
    char long_name[66];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[65] = 0;
    kept_setup();
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "a\nb", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "\xff", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, long_name, 1, 0), SH_TOO_LARGE);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "m", 1, 5), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", 1, UINT64_C(604800001)), SH_TOO_LARGE);
    assert_int_equal(upkeep_rig_hold(&kept, (enum wal_hold_kind)0, "r", 1, 0), SH_BAD_REQUEST);
    assert_int_equal(upkeep_rig_hold(&kept, (enum wal_hold_kind)6, "r", 1, 0), SH_TOO_LARGE);
    struct msg_hold other = {.log = {{9}}, .kind = WAL_HOLD_MEMBER, .name = slice_str("n2"), .lsn = 1};
    assert_int_equal(upkeep_rig_ask(&kept, MSG_hold, &other), SH_NOT_FOUND);
    assert_int_equal(upkeep_rig_trim(&kept, 0, false, "nobody"), SH_NOT_FOUND);
    assert_int_equal(kept.upkeep.holds.count, 0);
    kept_teardown();
}

static void test_holds_are_bounded(void **state)
{
    (void)state;
    char name[32];
    kept_setup();
    for (unsigned i = 0; i < WAL_HOLDS_MAX; i++) {
        struct wal_hold hold = {.kind = WAL_HOLD_CURSOR, .lsn = 1, .expires_ns = INT64_MAX};
        snprintf(hold.name, sizeof hold.name, "%u", i);
        wal_holds_put(&kept.upkeep.holds, &hold);
    }
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_CURSOR, "one more", 1, 1000), SH_OVERLOADED);
    snprintf(name, sizeof name, "%u", WAL_HOLDS_MAX - 1);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_CURSOR, name, 2, 1000), SH_OK);
    kept_restart(SIM_LOSE_ALL, 1);
    assert_int_equal(kept.upkeep.holds.count, WAL_HOLDS_MAX);
    kept_teardown();
}

/* What was answered is in force after any crash, at whichever file call it comes. */
static void crash_in_holds(enum sim_loss loss)
{
    bool stopped = true;
    for (uint64_t calls = 0; stopped; calls++) {
        uint64_t held = 0, first;
        kept_setup();
        uint64_t fourth = kept_base_of(3), sixth = kept_base_of(5);
        sim_disk_stop_after(kept_disk, calls);
        /* Three steps; a hold that was answered lasts until its next move is. */
        if (upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", fourth, 0) == SH_OK && kept.fatal == 0)
            held = fourth;
        if (held != 0 && upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", fourth + 1, 1000) == SH_OK &&
            kept.fatal == 0 && upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", sixth, 0) == SH_OK)
            stopped = kept.fatal > 0;
        kept_restart(loss, calls * 3 + 1);
        assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
        kept_list(&first, NULL);
        if (held != 0)
            assert_true(first <= fourth);
        kept_check_log(first, KEPT_ENTRIES);
        kept_teardown();
    }
}

static void test_a_hold_that_was_answered_survives_a_crash_at_every_step(void **state)
{
    (void)state;
    crash_in_holds(SIM_LOSE_NOTHING);
    crash_in_holds(SIM_LOSE_ALL);
    for (unsigned i = 0; i < 4; i++)
        crash_in_holds(SIM_LOSE_SOME);
}

static void test_a_renewed_hold_is_written_once_a_ttl(void **state)
{
    (void)state;
    kept_setup();
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", 5, 10000), SH_OK);
    uint64_t calls = sim_disk_calls(kept_disk);
    for (unsigned i = 0; i < 10; i++) {
        kept.now.real_ns += NS_PER_S;
        assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", 5 + i % 3, 10000), SH_OK);
    }
    assert_int_equal(sim_disk_calls(kept_disk), calls);
    kept.now.real_ns += NS_PER_S;
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", 5, 10000), SH_OK);
    assert_true(sim_disk_calls(kept_disk) > calls);
    /* Into another segment: written, so that a restart doesn't hold what need not be. */
    calls = sim_disk_calls(kept_disk);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_READER, "r", kept_base_of(2), 10000), SH_OK);
    assert_true(sim_disk_calls(kept_disk) > calls);
    kept_restart(SIM_LOSE_ALL, 1);
    assert_int_equal(kept.upkeep.holds.all[0].lsn, kept_base_of(2));
    kept_teardown();
}

static void test_a_full_disk_takes_no_new_hold_but_lets_go(void **state)
{
    (void)state;
    kept_setup();
    uint64_t third = kept_base_of(2);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", 5, 0), SH_OK);
    sim_disk_set_full(kept_disk, true);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n3", 5, 0), SH_DISK_FULL);
    assert_int_equal(kept.upkeep.holds.count, 1);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", 1, 0), SH_DISK_FULL); /* backwards */
    assert_int_equal(kept.upkeep.holds.all[0].lsn, 5);
    assert_int_equal(upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", third, 0), SH_OK); /* onwards */
    assert_int_equal(upkeep_rig_trim(&kept, UINT64_MAX, false, NULL), SH_OK);
    assert_int_equal(kept.trim.first_lsn, third);
    assert_int_equal(kept.fatal, 0);
    assert_int_equal(upkeep_rig_drop(&kept, WAL_HOLD_MEMBER, "n2"), SH_OK);
    sim_disk_set_full(kept_disk, false);
    wal_upkeep_tidy(&kept.upkeep, kept.now);
    kept_restart(SIM_LOSE_ALL, 1);
    assert_int_equal(kept.upkeep.holds.count, 0);
    kept_teardown();
}

static void test_a_failed_sync_of_the_register_is_fatal(void **state)
{
    (void)state;
    kept_setup();
    sim_disk_fail_next_sync(kept_disk);
    upkeep_rig_hold(&kept, WAL_HOLD_MEMBER, "n2", 5, 0);
    assert_int_equal(kept.fatal, 1);
    kept_teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_held_is_not_trimmed_and_is_named),
        cmocka_unit_test(test_bad_holds_are_refused),
        cmocka_unit_test(test_holds_are_bounded),
        cmocka_unit_test(test_a_hold_that_was_answered_survives_a_crash_at_every_step),
        cmocka_unit_test(test_a_renewed_hold_is_written_once_a_ttl),
        cmocka_unit_test(test_a_full_disk_takes_no_new_hold_but_lets_go),
        cmocka_unit_test(test_a_failed_sync_of_the_register_is_fatal),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
