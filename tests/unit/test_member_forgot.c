/* membersvc's cores: nodes that forgot their cluster, or that were away until they knew nobody any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "member_rig.h"

static void assert_whole(struct member_rig *rig, int64_t most_ms)
{
    if (!cores_until(rig, most_ms, cores_is_whole))
        fail_msg("not whole: %s", buf_cstr(&rig->notices));
}

/* n1 and n2 by their file; the others joined, and have a file that names themselves and n1. */
static void begin(struct member_rig *rig, uint32_t joined, uint64_t seed)
{
    cores_open(rig, 2, seed);
    cores_start_all(rig);
    assert_whole(rig, 10000);
    for (uint32_t i = 0; i < joined; i++) {
        uint32_t node = cores_add(rig);
        cores_start(rig, node);
        assert_int_equal(cores_join(rig, 0, node, false), SH_OK);
        assert_whole(rig, 10000);
    }
    cores_run(rig, 20000);
}

static enum member_state state_of(const struct member_rig *rig, uint32_t node)
{
    return member_core_self(rig->nodes[node].core).state;
}

static void stop_and_forget(struct member_rig *rig, uint32_t node)
{
    cores_stop(rig, node);
    rig->nodes[node].saved.len = 0;
    rig->now_ns += NS_PER_S; /* a later start */
}

/* Both have founded a cluster of their own before anybody reaches them. */
static void found_beside(struct member_rig *rig)
{
    for (uint32_t node = 2; node < rig->count; node++)
        cores_isolate(rig, node, true);
    for (uint32_t node = 2; node < rig->count; node++)
        for (uint32_t to = 2; to < rig->count; to++)
            rig->cut[node][to] = false;
    cores_start(rig, 0);
    cores_start(rig, 1);
    cores_run(rig, 30000);
    assert_int_equal(state_of(rig, 0), MEMBER_MEMBER);
    assert_int_equal(state_of(rig, 1), MEMBER_MEMBER);
    assert_int_equal(member_core_count(rig->nodes[0].core), 2);
    memset(rig->cut, 0, sizeof rig->cut);
}

/* Their file names neither n3 nor n4. */
static void test_two_that_forgot_at_once_come_back(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 1);
    stop_and_forget(&rig, 0);
    stop_and_forget(&rig, 1);
    found_beside(&rig);
    assert_whole(&rig, 30000);
    assert_int_equal(member_core_count(rig.nodes[0].core), 4);
    assert_int_equal(cores_record(&rig, 2, 0).generation, 1);
    assert_true(cores_has_notice(&rig, "n1: n1: this node had founded a cluster beside"));
    cores_close(&rig);
}

static void test_one_alone_in_its_file_that_forgot_comes_back(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 1, 2);
    cores_start(&rig, 0);
    uint32_t other = cores_add(&rig);
    cores_start(&rig, other);
    assert_int_equal(cores_join(&rig, 0, other, false), SH_OK);
    assert_whole(&rig, 10000);
    stop_and_forget(&rig, 0);
    cores_start(&rig, 0); /* founds its cluster at once */
    assert_int_equal(member_core_count(rig.nodes[0].core), 1);
    assert_whole(&rig, 30000);
    assert_int_equal(member_core_count(rig.nodes[0].core), 2);
    cores_close(&rig);
}

static bool both_are_refused(struct member_rig *rig)
{
    return state_of(rig, 0) == MEMBER_REFUSED && state_of(rig, 1) == MEMBER_REFUSED;
}

static void test_two_that_were_wiped_at_once_are_refused(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 3);
    for (uint32_t node = 0; node < 2; node++) {
        stop_and_forget(&rig, node);
        cores_wipe(&rig, node);
    }
    found_beside(&rig);
    assert_true(cores_until(&rig, 60000, both_are_refused));
    cores_run(&rig, 60000);
    assert_true(both_are_refused(&rig)); /* and they found no other one */
    assert_int_equal(cores_join(&rig, 2, 0, true), SH_OK);
    assert_int_equal(cores_join(&rig, 2, 1, true), SH_OK);
    assert_whole(&rig, 30000);
    assert_int_equal(cores_record(&rig, 3, 0).generation, 2);
    cores_close(&rig);
}

/* With n1's id, boot and another log. */
static void speak_in_the_name_of_first(struct member_rig *rig, uint32_t to)
{
    struct member_record r = cores_record(rig, to, 0);
    struct buf from = {0};
    r.log.bytes[0] ^= 1;
    member_encode(&r, &from);
    struct msg_heartbeat h = {
        .from = buf_slice(&from), .wall_ms = (uint64_t)cores_time(rig, to).wall_ms, .founded = true};
    cores_inject(rig, to, MSG_heartbeat, &h, r.id, r.boot, 1, NULL);
    buf_free(&from);
}

static void test_a_refusal_that_another_provoked_changes_nothing(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 4);
    for (unsigned i = 0; i < 10; i++) {
        speak_in_the_name_of_first(&rig, 2);
        cores_run(&rig, 6000);
        assert_int_equal(state_of(&rig, 0), MEMBER_MEMBER);
    }
    assert_true(member_core_counters(rig.nodes[0].core)->refusals > 5);
    assert_int_equal(cores_events(&rig, 0, 0, MEMBER_EVENT_REFUSED), 0);
    assert_int_equal(cores_events(&rig, 0, 0, MEMBER_EVENT_FOUNDED), 1);
    cores_close(&rig);
}

/* n1 left before; n3 and n4 were started before they were joined, with a file that names n2, too: they
 * founded a cluster of their own, in which n5 was joined. */
static void test_a_cluster_founded_beside_another_goes_into_it(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 0, 8);
    assert_int_equal(cores_leave(&rig, 1, 0), SH_OK);
    cores_run(&rig, 20000);
    cores_stop(&rig, 0);
    uint32_t third = cores_add(&rig), fourth = cores_add(&rig), fifth = cores_add(&rig);
    for (uint32_t node = third; node <= fourth; node++) {
        rig.nodes[node].list[0] = rig.nodes[1].where;
        rig.nodes[node].list[1] = rig.nodes[third].where;
        rig.nodes[node].list[2] = rig.nodes[fourth].where;
        rig.nodes[node].list_count = 3;
        cores_start(&rig, node);
    }
    cores_isolate(&rig, 1, true);
    cores_run(&rig, 10000);
    assert_int_equal(cores_join(&rig, third, fifth, false), SH_OK);
    cores_start(&rig, fifth);
    cores_run(&rig, 10000);
    assert_int_equal(cores_record(&rig, fourth, fifth).status, MEMBER_UP);
    cores_isolate(&rig, 1, false);
    assert_int_equal(cores_join(&rig, 1, third, false), SH_OK);
    assert_int_equal(cores_join(&rig, 1, fourth, false), SH_OK);
    assert_whole(&rig, 60000);
    assert_int_equal(member_core_count(rig.nodes[third].core), 5);
    assert_int_equal(cores_record(&rig, fifth, 0).status, MEMBER_LEFT);
    assert_int_equal(cores_record(&rig, 1, fifth).generation, 2);
    cores_close(&rig);
}

/* Nobody whom it knew is there any more; its new file names n3, which joined while it was away. */
static void test_one_that_knows_nobody_comes_back_by_its_file(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 0, 5);
    cores_stop(&rig, 1);
    uint32_t third = cores_add(&rig), fourth = cores_add(&rig);
    cores_start(&rig, third);
    cores_start(&rig, fourth);
    assert_int_equal(cores_join(&rig, 0, third, false), SH_OK);
    assert_int_equal(cores_join(&rig, 0, fourth, false), SH_OK);
    assert_whole(&rig, 10000);
    assert_int_equal(cores_leave(&rig, third, 0), SH_OK);
    cores_run(&rig, 30000);
    cores_stop(&rig, 0);
    snprintf(rig.nodes[1].where.host, sizeof rig.nodes[1].where.host, "elsewhere");
    rig.nodes[1].list[0] = rig.nodes[third].where;
    cores_start(&rig, 1);
    assert_whole(&rig, 60000);
    assert_int_equal(member_core_count(rig.nodes[1].core), 4);
    assert_int_equal(cores_record(&rig, 1, 0).status, MEMBER_LEFT);
    cores_close(&rig);
}

/* Nobody is left with the identity that n3 knows, who could tell it of the others. */
static void test_one_whose_members_were_all_replaced_comes_back(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 1, 9);
    cores_stop(&rig, 2);
    for (uint32_t node = 0; node < 2; node++) {
        cores_stop(&rig, node);
        cores_wipe(&rig, node);
        cores_start(&rig, node);
        assert_int_equal(cores_join(&rig, 1 - node, node, true), SH_OK);
        assert_whole(&rig, 20000);
    }
    cores_start(&rig, 2);
    assert_whole(&rig, 30000);
    assert_int_equal(cores_record(&rig, 2, 0).generation, 2);
    cores_close(&rig);
}

static bool second_has_left(struct member_rig *rig)
{
    return state_of(rig, 1) == MEMBER_HAS_LEFT;
}

/* n2 knows n3 as one that left; since then that one joined again, and n1 is elsewhere, with another file. */
static void test_one_that_hears_nobody_tries_those_that_left(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 1, 6);
    assert_int_equal(cores_leave(&rig, 0, 2), SH_OK);
    cores_run(&rig, 20000);
    cores_stop(&rig, 1);
    assert_int_equal(cores_join(&rig, 0, 2, false), SH_OK);
    assert_int_equal(cores_leave(&rig, 0, 1), SH_OK);
    cores_run(&rig, 20000);
    cores_stop(&rig, 0);
    snprintf(rig.nodes[0].where.host, sizeof rig.nodes[0].where.host, "elsewhere");
    rig.nodes[0].list[1] = rig.nodes[2].where;
    cores_start(&rig, 0);
    cores_start(&rig, 1);
    assert_true(cores_until(&rig, 90000, second_has_left));
    cores_close(&rig);
}

/* Its silence begins when it belongs to the cluster, not when it began to wait for that. */
static void test_one_that_waited_long_shows_nobody_as_down(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 0, 7);
    uint32_t node = cores_add(&rig);
    cores_start(&rig, node);
    cores_run(&rig, 60000);
    assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
    assert_whole(&rig, 10000);
    cores_run(&rig, 30000);
    assert_int_equal(cores_events(&rig, node, 0, MEMBER_EVENT_DOWN), 0);
    assert_int_equal(cores_events(&rig, node, 1, MEMBER_EVENT_DOWN), 0);
    cores_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_that_forgot_at_once_come_back),
        cmocka_unit_test(test_one_alone_in_its_file_that_forgot_comes_back),
        cmocka_unit_test(test_two_that_were_wiped_at_once_are_refused),
        cmocka_unit_test(test_a_refusal_that_another_provoked_changes_nothing),
        cmocka_unit_test(test_a_cluster_founded_beside_another_goes_into_it),
        cmocka_unit_test(test_one_that_knows_nobody_comes_back_by_its_file),
        cmocka_unit_test(test_one_whose_members_were_all_replaced_comes_back),
        cmocka_unit_test(test_one_that_hears_nobody_tries_those_that_left),
        cmocka_unit_test(test_one_that_waited_long_shows_nobody_as_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
