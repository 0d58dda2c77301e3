/* membersvc's cores: what is kept across a restart, and events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "member_rig.h"

static void begin(struct member_rig *rig, uint32_t count, uint64_t seed)
{
    cores_open(rig, count, seed);
    cores_start_all(rig);
    assert_true(cores_until(rig, 10000, cores_is_whole));
    cores_run(rig, 20000);
}

static void test_what_was_saved_comes_back(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 1);
    cores_stop(&rig, 3);
    cores_run(&rig, 20000);
    assert_int_equal(cores_leave(&rig, 0, 2), SH_OK);
    cores_run(&rig, 2000);
    struct member_events before = member_core_events(rig.nodes[0].core);
    cores_stop(&rig, 0);
    cores_isolate(&rig, 0, true);
    cores_start(&rig, 0);
    struct member_events after = member_core_events(rig.nodes[0].core);
    assert_true(id16_equal(before.series, after.series));
    assert_int_equal(before.first, after.first);
    assert_int_equal(before.next, after.next);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_MEMBER);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_UP);
    assert_int_equal(cores_record(&rig, 0, 2).status, MEMBER_LEFT);
    assert_int_equal(cores_record(&rig, 0, 3).status, MEMBER_DOWN);
    assert_int_equal(cores_view(&rig, 0, 1).heard_ns, -1);
    cores_close(&rig);
}

static void test_state_of_another_owner_is_refused(void **state)
{
    (void)state;
    struct member_rig rig;
    char text[MEMBER_TEXT_MAX];
    begin(&rig, 3, 2);
    cores_stop(&rig, 0);
    cores_stop(&rig, 1);
    struct id16 log = rig.nodes[0].log;
    rig.nodes[0].log.bytes[3] ^= 1;
    assert_int_equal(cores_try_start(&rig, 0, text), SH_CONFLICT);
    assert_non_null(strstr(text, "another log"));
    rig.nodes[0].log = log;
    struct buf own = rig.nodes[0].saved;
    rig.nodes[0].saved = rig.nodes[1].saved;
    assert_int_equal(cores_try_start(&rig, 0, text), SH_CONFLICT);
    assert_non_null(strstr(text, "another node"));
    rig.nodes[0].saved = own;
    rig.nodes[0].saved.data[3] ^= 0x40; /* the first byte of the cluster's id: map, key, bin, length, it */
    uint8_t *cluster = memchr(rig.nodes[0].saved.data, 0xc4, 8);
    assert_non_null(cluster);
    rig.nodes[0].saved.data[3] ^= 0x40;
    cluster[2] ^= 0x40;
    assert_int_equal(cores_try_start(&rig, 0, text), SH_CONFLICT);
    assert_non_null(strstr(text, "another cluster"));
    cluster[2] ^= 0x40;
    cores_start(&rig, 0);
    cores_start(&rig, 1);
    cores_close(&rig);
}

static void test_damaged_state_is_corrupt_or_valid_and_never_more(void **state)
{
    (void)state;
    struct member_rig rig;
    char text[MEMBER_TEXT_MAX];
    begin(&rig, 3, 3);
    cores_stop(&rig, 0);
    size_t corrupt = 0, whole = rig.nodes[0].saved.len;
    for (size_t i = 0; i < whole; i++) {
        rig.nodes[0].saved.data[i] ^= 0xff;
        enum sh_error e = cores_try_start(&rig, 0, text);
        assert_true(e == SH_OK || e == SH_CORRUPT || e == SH_CONFLICT);
        corrupt += e == SH_CORRUPT;
        rig.nodes[0].saved.data[i] ^= 0xff;
        if (e == SH_OK)
            member_core_close(rig.nodes[0].core);
        rig.nodes[0].core = NULL;
    }
    assert_true(corrupt > 0);
    for (size_t len = 1; len < whole; len++) {
        rig.nodes[0].saved.len = len;
        assert_int_equal(cores_try_start(&rig, 0, text), SH_CORRUPT);
    }
    rig.nodes[0].saved.len = whole;
    cores_close(&rig);
}

static void test_the_version_counts_on_with_each_change(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 4);
    uint64_t version = member_core_version(rig.nodes[0].core);
    cores_run(&rig, 60000);
    assert_int_equal(member_core_version(rig.nodes[0].core), version); /* heartbeats change nothing */
    assert_int_equal(cores_leave(&rig, 1, 2), SH_OK);
    cores_run(&rig, 1000);
    assert_true(member_core_version(rig.nodes[0].core) > version);
    cores_close(&rig);
}

static void test_the_last_1024_events_are_kept(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 5);
    uint32_t node = cores_add(&rig);
    for (unsigned i = 0; i < 700; i++) {
        assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
        assert_int_equal(cores_leave(&rig, 0, node), SH_OK);
    }
    struct member_events range = member_core_events(rig.nodes[0].core);
    assert_int_equal(range.next - range.first, MEMBER_EVENTS_MAX);
    assert_true(range.next > 1400);
    assert_null(member_core_event(rig.nodes[0].core, range.first - 1));
    assert_null(member_core_event(rig.nodes[0].core, range.next));
    for (uint64_t n = range.first; n < range.next; n++)
        assert_int_equal(member_core_event(rig.nodes[0].core, n)->number, n);
    cores_stop(&rig, 0);
    cores_start(&rig, 0);
    struct member_events after = member_core_events(rig.nodes[0].core);
    assert_int_equal(after.next, range.next);
    assert_int_equal(member_core_event(rig.nodes[0].core, range.first)->number, range.first);
    cores_close(&rig);
}

static void test_an_alarm_about_a_member_is_an_event_that_is_kept(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 7);
    struct member_core *core = rig.nodes[0].core;
    uint64_t number = member_core_events(core).next;
    struct slice text = slice_str("a text that is borrowed"); /* of which not all is told */
    text.len = 6;
    assert_int_equal(member_core_alarm(core, cores_time(&rig, 0), slice_str("n9"), text), SH_NOT_MEMBER);
    assert_int_equal(member_core_events(core).next, number);
    assert_int_equal(member_core_alarm(core, cores_time(&rig, 0), slice_str("n2"), text), SH_OK);
    cores_stop(&rig, 0);
    cores_isolate(&rig, 0, true);
    cores_start(&rig, 0);
    const struct member_event *event = member_core_event(rig.nodes[0].core, number);
    assert_non_null(event);
    assert_int_equal(event->kind, MEMBER_EVENT_ALARM);
    assert_string_equal(event->id, "n2");
    assert_string_equal(event->text, "a text");
    cores_close(&rig);
}

static void test_a_lost_state_begins_another_series(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 6);
    struct id16 series = member_core_events(rig.nodes[0].core).series;
    cores_stop(&rig, 0);
    rig.nodes[0].saved.len = 0;
    cores_start(&rig, 0);
    assert_false(id16_equal(series, member_core_events(rig.nodes[0].core).series));
    assert_false(id16_is_zero(member_core_events(rig.nodes[0].core).series));
    cores_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_saved_comes_back),
        cmocka_unit_test(test_state_of_another_owner_is_refused),
        cmocka_unit_test(test_damaged_state_is_corrupt_or_valid_and_never_more),
        cmocka_unit_test(test_the_version_counts_on_with_each_change),
        cmocka_unit_test(test_the_last_1024_events_are_kept),
        cmocka_unit_test(test_an_alarm_about_a_member_is_an_event_that_is_kept),
        cmocka_unit_test(test_a_lost_state_begins_another_series),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
