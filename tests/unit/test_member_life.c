/* membersvc's cores: how a cluster begins, and how its members find out who is alive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "member_rig.h"

static void assert_whole(struct member_rig *rig, int64_t most_ms)
{
    if (!cores_until(rig, most_ms, cores_is_whole))
        fail_msg("not whole: %s", buf_cstr(&rig->notices));
}

static void begin(struct member_rig *rig, uint32_t count, uint64_t seed)
{
    cores_open(rig, count, seed);
    cores_start_all(rig);
    assert_whole(rig, 10000);
    cores_run(rig, 20000);
}

static const struct member_counters *counters(const struct member_rig *rig, uint32_t node)
{
    return member_core_counters(rig->nodes[node].core);
}

static uint64_t suspicions(const struct member_rig *rig)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < rig->count; i++)
        sum += rig->nodes[i].core != NULL ? counters(rig, i)->suspicions : 0;
    return sum;
}

/* ------------------------------------------------------------ the first members */

static void test_a_node_alone_in_its_file_founds_at_once(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 1, 1);
    cores_start(&rig, 0);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_MEMBER);
    assert_int_equal(cores_record(&rig, 0, 0).generation, 1);
    cores_run(&rig, 60000);
    assert_int_equal(cores_record(&rig, 0, 0).status, MEMBER_UP);
    cores_close(&rig);
}

static void test_nodes_with_one_list_found_their_cluster(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 3, 2);
    cores_start_all(&rig);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_FOUNDING);
    assert_whole(&rig, 2000);
    assert_int_equal(cores_record(&rig, 0, 2).generation, 1);
    assert_int_equal(cores_events(&rig, 1, 1, MEMBER_EVENT_FOUNDED), 1);
    cores_close(&rig);
}

static uint64_t list_hash(const struct member_rig *rig)
{
    struct msg_envelope e;
    struct msg_heartbeat h = {0};
    assert_true(rig->on_way_count > 0);
    assert_int_equal(msg_open(buf_slice(&rig->on_way[0].bytes), &e), SH_OK);
    assert_int_equal(e.type, MSG_heartbeat);
    assert_int_equal(msg_decode(e.type, e.body, &h), SH_OK);
    return h.list;
}

static void test_who_has_the_list_and_is_not_in_it_is_malformed(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 3, 17);
    cores_start(&rig, 0);
    while (rig.on_way_count == 0)
        cores_run(&rig, 1);
    struct member_record r = cores_record(&rig, 0, 0);
    struct buf from = {0};
    snprintf(r.id, sizeof r.id, "n9");
    member_encode(&r, &from);
    struct msg_heartbeat h = {
        .from = buf_slice(&from), .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms, .list = list_hash(&rig)};
    cores_inject(&rig, 0, MSG_heartbeat, &h, "n9", r.boot, 1, NULL);
    assert_int_equal(counters(&rig, 0)->malformed, 1);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_FOUNDING);
    buf_free(&from);
    cores_close(&rig);
}

/* Others may be members of a cluster that doesn't know these. */
static void test_half_of_the_list_founds_nothing(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 4, 16);
    cores_start(&rig, 0);
    cores_start(&rig, 1);
    cores_run(&rig, 60000);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_FOUNDING);
    assert_int_equal(member_core_self(rig.nodes[1].core).state, MEMBER_FOUNDING);
    assert_non_null(strstr(member_core_self(rig.nodes[0].core).text, "more than half"));
    cores_start(&rig, 2);
    assert_whole(&rig, 2000);
    cores_close(&rig);
}

static void test_nodes_with_other_lists_wait_and_are_named(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 3, 3);
    rig.nodes[1].list_count = 2; /* without n3 */
    cores_start(&rig, 0);
    cores_start(&rig, 1);
    cores_run(&rig, 20000);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_FOUNDING);
    assert_int_equal(member_core_self(rig.nodes[1].core).state, MEMBER_FOUNDING);
    assert_true(cores_has_notice(&rig, "n1: n2: the topology file of another node names other nodes"));
    cores_start(&rig, 2); /* the same list as n1 */
    assert_whole(&rig, 12000);
    cores_close(&rig);
}

static void test_a_late_founder_adopts_what_the_others_have(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 3, 4);
    cores_start(&rig, 0);
    cores_start(&rig, 1);
    cores_run(&rig, 30000);
    assert_int_equal(cores_record(&rig, 0, 2).status, MEMBER_JOINING);
    cores_start(&rig, 2);
    assert_whole(&rig, 2000);
    assert_int_equal(cores_events(&rig, 2, 2, MEMBER_EVENT_FOUNDED), 1);
    cores_close(&rig);
}

static void test_a_node_that_was_not_joined_says_so(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 5);
    uint32_t stranger = cores_add(&rig);
    cores_start(&rig, stranger);
    cores_run(&rig, 25000);
    assert_int_equal(member_core_self(rig.nodes[stranger].core).state, MEMBER_FOUNDING);
    assert_non_null(strstr(member_core_self(rig.nodes[stranger].core).text, "node join"));
    assert_true(cores_has_notice(&rig, "n3: n3: this node has not found its cluster"));
    assert_int_equal(member_core_count(rig.nodes[0].core), 2);
    assert_int_equal(cores_join(&rig, 0, stranger, false), SH_OK);
    assert_whole(&rig, 2000);
    assert_int_equal(cores_record(&rig, 1, stranger).generation, 2);
    assert_string_equal(member_core_self(rig.nodes[stranger].core).text, "");
    cores_close(&rig);
}

static void test_adopting_goes_on_through_loss(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 5, 6);
    uint32_t node = cores_add(&rig);
    rig.loss_percent = 40;
    assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
    cores_start(&rig, node);
    cores_run(&rig, 60000);
    assert_int_equal(member_core_self(rig.nodes[node].core).state, MEMBER_MEMBER);
    rig.loss_percent = 0;
    assert_whole(&rig, 30000);
    cores_close(&rig);
}

/* ------------------------------------------------------------ signs of life */

static bool third_is_suspect(struct member_rig *rig)
{
    return cores_record(rig, 0, 2).status == MEMBER_SUSPECT;
}

static bool second_is_suspect(struct member_rig *rig)
{
    return cores_record(rig, 0, 1).status == MEMBER_SUSPECT;
}

static bool second_is_suspect_for_third(struct member_rig *rig)
{
    return cores_record(rig, 2, 1).status == MEMBER_SUSPECT;
}

static void test_a_dead_member_is_suspect_then_down_then_up(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 7);
    cores_stop(&rig, 2);
    assert_true(cores_until(&rig, 11000, third_is_suspect));
    assert_true(counters(&rig, 0)->probes > 0);
    cores_run(&rig, 6000);
    assert_int_equal(cores_record(&rig, 0, 2).status, MEMBER_DOWN);
    assert_int_equal(cores_record(&rig, 1, 2).status, MEMBER_DOWN);
    assert_true(suspicions(&rig) > 0);
    assert_true(counters(&rig, 0)->downs + counters(&rig, 1)->downs > 0);
    cores_start(&rig, 2);
    assert_whole(&rig, 1000);
    assert_int_equal(cores_events(&rig, 0, 2, MEMBER_EVENT_SUSPECT), 1);
    assert_int_equal(cores_events(&rig, 0, 2, MEMBER_EVENT_DOWN), 1);
    assert_int_equal(cores_events(&rig, 0, 2, MEMBER_EVENT_RESTARTED), 1);
    cores_close(&rig);
}

/* It stands in no topology file, so it is tried as a member only. */
static void test_a_member_that_is_down_is_tried_for_ever(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 16);
    uint32_t node = cores_add(&rig);
    assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
    cores_start(&rig, node);
    assert_whole(&rig, 5000);
    cores_isolate(&rig, node, true);
    cores_run(&rig, 3600000);
    assert_int_equal(cores_record(&rig, 0, node).status, MEMBER_DOWN);
    uint64_t sent = 0;
    for (uint32_t i = 0; i < 3; i++)
        sent -= rig.nodes[i].sent[MSG_heartbeat];
    cores_run(&rig, 60000);
    for (uint32_t i = 0; i < 3; i++)
        sent += rig.nodes[i].sent[MSG_heartbeat];
    assert_in_range(sent, 3 * 2 * 11 + 3 * 10, 3 * 2 * 14 + 3 * 14); /* to each other, and to it */
    cores_isolate(&rig, node, false);
    assert_whole(&rig, 7000);
    cores_close(&rig);
}

static void test_calm_members_never_suspect_each_other(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 12, 8);
    cores_run(&rig, 3600000);
    assert_int_equal(suspicions(&rig), 0);
    assert_true(cores_is_whole(&rig));
    cores_close(&rig);
}

static void test_a_member_others_reach_is_unreachable_and_not_down(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 5, 9);
    rig.cut[2][0] = rig.cut[0][2] = true;
    cores_run(&rig, 60000);
    struct member_view view = cores_view(&rig, 0, 2);
    assert_true(view.unreachable);
    assert_int_equal(view.record->status, MEMBER_UP);
    assert_int_equal(cores_events(&rig, 0, 2, MEMBER_EVENT_UNREACHABLE), 1);
    assert_int_equal(cores_events(&rig, 1, 2, MEMBER_EVENT_DOWN), 0);
    assert_int_equal(cores_record(&rig, 1, 0).status, MEMBER_UP);
    rig.cut[2][0] = rig.cut[0][2] = false;
    cores_run(&rig, 10000);
    assert_false(cores_view(&rig, 0, 2).unreachable);
    assert_int_equal(cores_events(&rig, 0, 2, MEMBER_EVENT_REACHABLE), 1);
    cores_close(&rig);
}

/* Nothing gets from n3 to n1, and no relay helps: its other observers hear it, and say so. */
static void test_one_observer_alone_declares_nobody_down(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 5, 10);
    rig.cut[2][0] = true;
    for (uint32_t i = 0; i < 5; i++)
        rig.cut[0][i] = true; /* its probes don't get out, opinions of others come in */
    cores_run(&rig, 120000);
    assert_int_equal(counters(&rig, 0)->downs, 0);
    assert_int_not_equal(cores_record(&rig, 0, 2).status, MEMBER_DOWN);
    cores_close(&rig);
}

static void test_sides_of_a_partition_agree_each_and_heal(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 6, 11);
    for (uint32_t a = 0; a < 3; a++)
        for (uint32_t b = 3; b < 6; b++)
            rig.cut[a][b] = rig.cut[b][a] = true;
    cores_run(&rig, 40000);
    assert_int_equal(cores_record(&rig, 0, 4).status, MEMBER_DOWN);
    assert_int_equal(cores_record(&rig, 4, 0).status, MEMBER_DOWN);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_UP);
    memset(rig.cut, 0, sizeof rig.cut);
    assert_whole(&rig, 15000);
    assert_true(counters(&rig, 0)->refutations > 0);
    cores_close(&rig);
}

/* ------------------------------------------------------------ a node that hears nobody */

static void test_an_isolated_node_shows_others_down_and_changes_no_record(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 12);
    cores_isolate(&rig, 0, true);
    uint64_t hash = member_core_hash(rig.nodes[0].core);
    cores_run(&rig, 60000);
    assert_int_equal(member_core_hash(rig.nodes[0].core), hash);
    assert_int_equal(counters(&rig, 0)->suspicions, 0);
    for (uint32_t i = 1; i < 4; i++) {
        assert_int_equal(cores_record(&rig, 0, i).status, MEMBER_DOWN);
        assert_int_equal(cores_events(&rig, 0, i, MEMBER_EVENT_DOWN), 1);
        assert_int_equal(cores_record(&rig, i, 0).status, MEMBER_DOWN);
    }
    cores_isolate(&rig, 0, false);
    assert_whole(&rig, 10000);
    cores_run(&rig, 20000);
    assert_int_equal(cores_events(&rig, 1, 2, MEMBER_EVENT_SUSPECT), 0); /* what it showed did not spread */
    assert_int_equal(cores_events(&rig, 0, 2, MEMBER_EVENT_UP) - cores_events(&rig, 0, 2, MEMBER_EVENT_DOWN),
                     1);
    cores_close(&rig);
}

/* Whom it hears first proves nothing about those whom it has not heard yet. */
static void test_a_node_that_was_cut_off_accuses_nobody(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 15);
    cores_isolate(&rig, 0, true);
    cores_run(&rig, 60000);
    rig.cut[0][1] = rig.cut[1][0] = false;
    cores_run(&rig, 6000);
    cores_isolate(&rig, 0, false);
    assert_whole(&rig, 10000);
    assert_int_equal(counters(&rig, 0)->suspicions, 0);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(cores_events(&rig, 0, i, MEMBER_EVENT_SUSPECT), 1);
    cores_close(&rig);
}

/* What is shown as down needs no word that it is suspect. */
static void test_a_suspicion_of_who_is_shown_down_is_no_event(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 16);
    cores_isolate(&rig, 0, true);
    cores_run(&rig, 60000);
    cores_stop(&rig, 1);
    assert_true(cores_until(&rig, 12000, second_is_suspect_for_third));
    cores_isolate(&rig, 0, false);
    cores_run(&rig, 60000);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_DOWN);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_SUSPECT), 1);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_DOWN), 1);
    cores_close(&rig);
}

static void test_of_two_the_survivor_shows_the_other_as_down(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 13);
    cores_stop(&rig, 1);
    assert_true(cores_until(&rig, 12000, second_is_suspect));
    cores_run(&rig, 8000);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_DOWN);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_SUSPECT), 1);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_DOWN), 1);
    cores_run(&rig, 600000);
    cores_start(&rig, 1);
    assert_whole(&rig, 1000);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_UP);
    cores_close(&rig);
}

/* ------------------------------------------------------------ self-doubt */

static void test_a_node_that_was_stopped_accuses_nobody(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 5, 14);
    rig.nodes[0].is_paused = true;
    cores_run(&rig, 60000);
    assert_int_equal(cores_record(&rig, 1, 0).status, MEMBER_DOWN);
    rig.nodes[0].is_paused = false;
    for (uint32_t i = 0; i < 5; i++)
        rig.cut[i][0] = true; /* what has waited is lost: it wakes to silence */
    cores_run(&rig, 3000);
    memset(rig.cut, 0, sizeof rig.cut);
    assert_whole(&rig, 10000);
    cores_run(&rig, 10000);
    assert_true(counters(&rig, 0)->doubts > 0);
    assert_int_equal(counters(&rig, 0)->suspicions, 0);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_DOWN), 0);
    assert_true(cores_has_notice(&rig, "this process was stopped or starved"));
    cores_close(&rig);
}

/* ------------------------------------------------------------ timers */

static void test_a_changed_interval_is_in_force_at_once(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 15);
    struct member_timing fast = {NS_PER_S / 10, NS_PER_S / 5, 3 * NS_PER_S / 10, 10000};
    for (uint32_t i = 0; i < 3; i++)
        member_core_set_timing(rig.nodes[i].core, cores_time(&rig, i), &fast);
    cores_run(&rig, 1000);
    assert_true(cores_is_whole(&rig));
    cores_stop(&rig, 2);
    cores_run(&rig, 600);
    assert_int_equal(cores_record(&rig, 0, 2).status, MEMBER_DOWN);
    cores_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_node_alone_in_its_file_founds_at_once),
        cmocka_unit_test(test_nodes_with_one_list_found_their_cluster),
        cmocka_unit_test(test_who_has_the_list_and_is_not_in_it_is_malformed),
        cmocka_unit_test(test_half_of_the_list_founds_nothing),
        cmocka_unit_test(test_nodes_with_other_lists_wait_and_are_named),
        cmocka_unit_test(test_a_late_founder_adopts_what_the_others_have),
        cmocka_unit_test(test_a_node_that_was_not_joined_says_so),
        cmocka_unit_test(test_adopting_goes_on_through_loss),
        cmocka_unit_test(test_a_dead_member_is_suspect_then_down_then_up),
        cmocka_unit_test(test_a_member_that_is_down_is_tried_for_ever),
        cmocka_unit_test(test_calm_members_never_suspect_each_other),
        cmocka_unit_test(test_a_member_others_reach_is_unreachable_and_not_down),
        cmocka_unit_test(test_one_observer_alone_declares_nobody_down),
        cmocka_unit_test(test_sides_of_a_partition_agree_each_and_heal),
        cmocka_unit_test(test_an_isolated_node_shows_others_down_and_changes_no_record),
        cmocka_unit_test(test_a_node_that_was_cut_off_accuses_nobody),
        cmocka_unit_test(test_a_suspicion_of_who_is_shown_down_is_no_event),
        cmocka_unit_test(test_of_two_the_survivor_shows_the_other_as_down),
        cmocka_unit_test(test_a_node_that_was_stopped_accuses_nobody),
        cmocka_unit_test(test_a_changed_interval_is_in_force_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
