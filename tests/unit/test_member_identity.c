/* membersvc's cores: who a member is, and how it joins, leaves, moves, and is replaced. */
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

static void begin(struct member_rig *rig, uint32_t count, uint64_t seed)
{
    cores_open(rig, count, seed);
    cores_start_all(rig);
    assert_whole(rig, 10000);
    cores_run(rig, 20000);
}

static struct member_self self_of(const struct member_rig *rig, uint32_t node)
{
    return member_core_self(rig->nodes[node].core);
}

static void test_a_restart_raises_the_incarnation_only(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 1);
    struct member_record before = cores_record(&rig, 0, 1);
    cores_stop(&rig, 1);
    cores_start(&rig, 1);
    cores_run(&rig, 1000);
    struct member_record after = cores_record(&rig, 0, 1);
    assert_int_equal(after.incarnation, before.incarnation + 1);
    assert_int_equal(after.generation, 1);
    assert_int_equal(member_core_counters(rig.nodes[1].core)->refutations, 0); /* nobody had to tell it */
    assert_true(id16_equal(after.log, before.log));
    assert_false(id16_equal(after.boot, before.boot));
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_RESTARTED), 1);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_SUSPECT), 0);
    cores_close(&rig);
}

static void test_a_lost_state_is_adopted_again(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 2);
    cores_stop(&rig, 1);
    rig.nodes[1].saved.len = 0;
    cores_start(&rig, 1);
    assert_whole(&rig, 3000);
    assert_int_equal(cores_record(&rig, 0, 1).generation, 1);
    cores_close(&rig);
}

static void test_a_moved_member_tells_its_new_address(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 3);
    cores_stop(&rig, 1);
    snprintf(rig.nodes[1].where.host, sizeof rig.nodes[1].where.host, "elsewhere");
    cores_start(&rig, 1);
    assert_whole(&rig, 2000);
    assert_string_equal(cores_record(&rig, 0, 1).host, "elsewhere");
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_MOVED), 1);
    cores_run(&rig, 60000);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_SUSPECT), 0);
    cores_close(&rig);
}

static void test_a_wiped_node_is_refused_until_it_replaces(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 4);
    cores_stop(&rig, 1);
    cores_wipe(&rig, 1);
    cores_start(&rig, 1);
    cores_run(&rig, 20000);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_REFUSED);
    assert_non_null(strstr(self_of(&rig, 1).text, "--replace"));
    assert_int_equal(cores_events(&rig, 1, 1, MEMBER_EVENT_REFUSED), 1);
    assert_true(member_core_counters(rig.nodes[0].core)->other_identity > 0);
    assert_true(member_core_counters(rig.nodes[1].core)->refusals > 0);
    assert_true(cores_has_notice(&rig, "node join n2 --replace"));
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_DOWN);
    assert_int_equal(cores_join(&rig, 0, 1, true), SH_OK);
    assert_whole(&rig, 3000);
    assert_int_equal(cores_record(&rig, 2, 1).generation, 2);
    assert_int_equal(cores_events(&rig, 2, 1, MEMBER_EVENT_REPLACED), 1);
    cores_close(&rig);
}

/* A client asks again when the first answer is lost. */
static void test_replacing_twice_keeps_the_old_identity_out(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 6);
    struct id16 old_log = rig.nodes[1].log;
    cores_stop(&rig, 1);
    assert_int_equal(cores_join(&rig, 0, 1, true), SH_OK);
    assert_int_equal(cores_join(&rig, 0, 1, true), SH_OK);
    cores_start(&rig, 1);
    cores_run(&rig, 20000);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_REPLACED);
    assert_true(id16_equal(cores_record(&rig, 0, 1).not_log, old_log));
    assert_true(id16_is_zero(cores_record(&rig, 0, 1).log));
    cores_close(&rig);
}

static void test_the_replaced_one_finds_itself_replaced(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 5);
    struct id16 old_log = rig.nodes[1].log;
    struct member_watermark mark = {old_log, 70, 7000};
    member_core_watermark(rig.nodes[1].core, cores_time(&rig, 1), &mark);
    cores_stop(&rig, 1);
    struct buf old = {0};
    buf_append(&old, rig.nodes[1].saved.data, rig.nodes[1].saved.len);
    cores_wipe(&rig, 1);
    cores_start(&rig, 1);
    assert_int_equal(cores_join(&rig, 0, 1, true), SH_OK);
    cores_run(&rig, 10000);
    assert_true(cores_is_whole(&rig));
    /* The machine with the old disk takes its place on the network. */
    cores_stop(&rig, 1);
    rig.nodes[1].log = old_log;
    rig.nodes[1].saved.len = 0;
    buf_append(&rig.nodes[1].saved, old.data, old.len);
    cores_start(&rig, 1);
    cores_run(&rig, 20000);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_REPLACED);
    assert_int_equal(cores_record(&rig, 0, 1).generation, 2);
    assert_false(id16_equal(cores_record(&rig, 0, 1).log, old_log));
    /* It stays so over a restart, and can be let in again. */
    cores_stop(&rig, 1);
    cores_start(&rig, 1);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_REPLACED);
    assert_int_equal(cores_join(&rig, 0, 1, true), SH_OK);
    assert_whole(&rig, 15000);
    assert_int_equal(cores_record(&rig, 0, 1).generation, 3);
    buf_free(&old);
    cores_close(&rig);
}

static void test_a_node_that_leaves_learns_it_and_names_what_only_it_has(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 6);
    struct member_watermark own = {rig.nodes[1].log, 70, 7000}, copy = {rig.nodes[1].log, 50, 5000};
    member_core_watermark(rig.nodes[1].core, cores_time(&rig, 1), &own);
    member_core_watermark(rig.nodes[2].core, cores_time(&rig, 2), &copy);
    cores_run(&rig, 2000);
    struct msg_node_leave_reply reply;
    char text[MEMBER_TEXT_MAX];
    assert_int_equal(member_core_leave(rig.nodes[0].core, cores_time(&rig, 0), "n2", &reply, text), SH_OK);
    assert_int_equal(reply.only_first, 51);
    assert_int_equal(reply.only_last, 70);
    cores_run(&rig, 2000);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_HAS_LEFT);
    assert_int_equal(self_of(&rig, 1).only_first, 51);
    assert_int_equal(self_of(&rig, 1).only_last, 70);
    assert_int_equal(cores_record(&rig, 2, 1).status, MEMBER_LEFT);
    assert_int_equal(cores_events(&rig, 2, 1, MEMBER_EVENT_LEFT), 1);
    cores_run(&rig, 60000);
    assert_true(member_core_counters(rig.nodes[0].core)->not_member > 0); /* it asks for a new generation */
    assert_int_equal(cores_join(&rig, 0, 1, false), SH_OK);
    assert_whole(&rig, 15000);
    assert_int_equal(cores_record(&rig, 2, 1).generation, 2);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_MEMBER);
    cores_close(&rig);
}

static void test_a_node_that_leaves_by_itself_tells_the_others(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 7);
    assert_int_equal(cores_leave(&rig, 1, 1), SH_OK);
    cores_run(&rig, 3000);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_HAS_LEFT);
    assert_int_equal(cores_record(&rig, 3, 1).status, MEMBER_LEFT);
    cores_run(&rig, 60000);
    assert_int_equal(cores_events(&rig, 3, 1, MEMBER_EVENT_SUSPECT), 0);
    cores_close(&rig);
}

/* Left while nobody could hear it: its own heartbeats say so. */
static void test_a_leave_that_nobody_heard_is_told_later(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 8);
    cores_isolate(&rig, 1, true);
    assert_int_equal(cores_leave(&rig, 1, 1), SH_OK);
    cores_run(&rig, 60000);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_DOWN);
    cores_isolate(&rig, 1, false);
    cores_run(&rig, 60000);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_LEFT);
    assert_int_equal(member_core_hash(rig.nodes[0].core), member_core_hash(rig.nodes[3].core));
    cores_close(&rig);
}

static void test_one_that_left_and_forgot_learns_that_it_left(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 14);
    cores_stop(&rig, 1);
    assert_int_equal(cores_leave(&rig, 0, 1), SH_OK);
    rig.nodes[1].saved.len = 0;
    cores_start(&rig, 1);
    cores_run(&rig, 10000);
    assert_int_equal(self_of(&rig, 1).state, MEMBER_HAS_LEFT);
    cores_close(&rig);
}

static void test_of_two_identities_the_older_one_stays(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 9);
    uint32_t node = cores_add(&rig), twin = cores_add(&rig);
    assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
    cores_run(&rig, 1000);
    rig.nodes[twin].where = rig.nodes[node].where;
    snprintf(rig.nodes[twin].where.host, sizeof rig.nodes[twin].where.host, "twin");
    rig.nodes[twin].list[0] = rig.nodes[twin].where;
    cores_start(&rig, node);
    cores_run(&rig, 1000);
    cores_start(&rig, twin);
    cores_run(&rig, 30000);
    assert_int_equal(self_of(&rig, node).state, MEMBER_MEMBER);
    assert_int_not_equal(self_of(&rig, twin).state, MEMBER_MEMBER);
    assert_true(id16_equal(cores_record(&rig, 2, node).log, rig.nodes[node].log));
    cores_close(&rig);
}

/* ------------------------------------------------------------ errors of join and leave */

static enum sh_error join_as(struct member_rig *rig, uint32_t at, struct msg_node_join join)
{
    char text[MEMBER_TEXT_MAX];
    uint64_t generation;
    enum sh_error e = member_core_join(rig->nodes[at].core, cores_time(rig, at), &join, &generation, text);
    assert_int_equal(e == SH_OK, text[0] == 0);
    return e;
}

static enum sh_error leave_of(struct member_rig *rig, uint32_t at, const char *id)
{
    char text[MEMBER_TEXT_MAX];
    struct msg_node_leave_reply reply;
    enum sh_error e = member_core_leave(rig->nodes[at].core, cores_time(rig, at), id, &reply, text);
    assert_int_equal(e == SH_OK, text[0] == 0);
    return e;
}

static void test_join_says_what_is_wrong(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 10);
    struct msg_node_join good = {.id = slice_str("n9"), .host = slice_str("h9"), .port = 4000}, j;
    j = good, j.id = slice_str("no name");
    assert_int_equal(join_as(&rig, 0, j), SH_BAD_REQUEST);
    j = good, j.host = slice_str("");
    assert_int_equal(join_as(&rig, 0, j), SH_BAD_REQUEST);
    j = good, j.host = slice_str("-h");
    assert_int_equal(join_as(&rig, 0, j), SH_BAD_REQUEST);
    j = good, j.port = 0;
    assert_int_equal(join_as(&rig, 0, j), SH_BAD_REQUEST);
    j = good, j.port = 65534;
    assert_int_equal(join_as(&rig, 0, j), SH_BAD_REQUEST);
    j = good, j.group = slice_str("other");
    assert_int_equal(join_as(&rig, 0, j), SH_BAD_REQUEST);
    j = good, j.host = slice_str("h2");
    assert_int_equal(join_as(&rig, 0, j), SH_CONFLICT);
    j = good, j.replace = true;
    assert_int_equal(join_as(&rig, 0, j), SH_NOT_FOUND);
    assert_int_equal(join_as(&rig, 0, (struct msg_node_join){.id = slice_str("n9"), .replace = true}),
                     SH_NOT_FOUND);
    j = good, j.id = slice_str("n2");
    assert_int_equal(join_as(&rig, 0, j), SH_ALREADY_MEMBER);
    assert_int_equal(join_as(&rig, 0, (struct msg_node_join){.id = slice_str("n1"), .replace = true}),
                     SH_BAD_REQUEST);
    assert_int_equal(join_as(&rig, 0, (struct msg_node_join){.id = slice_str("n2"), .replace = true}), SH_OK);
    assert_int_equal(join_as(&rig, 0, good), SH_OK);
    cores_close(&rig);
}

static void test_leave_says_what_is_wrong(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 11);
    assert_int_equal(leave_of(&rig, 0, "n9"), SH_NOT_MEMBER);
    assert_int_equal(leave_of(&rig, 0, "n2"), SH_OK);
    assert_int_equal(leave_of(&rig, 0, "n2"), SH_NOT_MEMBER);
    assert_int_equal(leave_of(&rig, 0, "n1"), SH_CONFLICT); /* the last one */
    cores_close(&rig);
}

static void test_only_a_member_changes_members(void **state)
{
    (void)state;
    struct member_rig rig;
    struct msg_node_join join = {.id = slice_str("n9"), .host = slice_str("h9"), .port = 4000};
    cores_open(&rig, 2, 12);
    cores_start(&rig, 0);
    assert_int_equal(join_as(&rig, 0, join), SH_UNAVAILABLE);
    assert_int_equal(leave_of(&rig, 0, "n2"), SH_UNAVAILABLE);
    cores_start(&rig, 1);
    assert_whole(&rig, 8000);
    assert_int_equal(leave_of(&rig, 0, "n1"), SH_OK);
    assert_int_equal(join_as(&rig, 0, join), SH_NOT_MEMBER);
    assert_int_equal(leave_of(&rig, 0, "n2"), SH_NOT_MEMBER);
    cores_close(&rig);
}

static void test_a_cluster_has_1024_members_and_knows_2048_ids(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 1, 13);
    cores_start(&rig, 0);
    char id[16], host[16];
    for (unsigned i = 0; i < MEMBER_RECORDS_MAX + 10; i++) {
        snprintf(id, sizeof id, "m%u", i);
        snprintf(host, sizeof host, "x%u", i);
        struct msg_node_join join = {.id = slice_str(id), .host = slice_str(host), .port = 4000};
        if (member_core_count(rig.nodes[0].core) == MEMBER_LIVE_MAX && i == MEMBER_LIVE_MAX - 1) {
            assert_int_equal(join_as(&rig, 0, join), SH_TOO_LARGE);
            assert_int_equal(leave_of(&rig, 0, "m0"), SH_OK);
        }
        enum sh_error wanted = i < MEMBER_RECORDS_MAX - 1 ? SH_OK : SH_TOO_LARGE;
        assert_int_equal(join_as(&rig, 0, join), wanted);
        if (i >= MEMBER_LIVE_MAX - 1 && wanted == SH_OK)
            assert_int_equal(leave_of(&rig, 0, id), SH_OK);
    }
    assert_int_equal(member_core_count(rig.nodes[0].core), MEMBER_RECORDS_MAX);
    cores_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_restart_raises_the_incarnation_only),
        cmocka_unit_test(test_a_lost_state_is_adopted_again),
        cmocka_unit_test(test_a_moved_member_tells_its_new_address),
        cmocka_unit_test(test_a_wiped_node_is_refused_until_it_replaces),
        cmocka_unit_test(test_replacing_twice_keeps_the_old_identity_out),
        cmocka_unit_test(test_the_replaced_one_finds_itself_replaced),
        cmocka_unit_test(test_a_node_that_leaves_learns_it_and_names_what_only_it_has),
        cmocka_unit_test(test_a_node_that_leaves_by_itself_tells_the_others),
        cmocka_unit_test(test_a_leave_that_nobody_heard_is_told_later),
        cmocka_unit_test(test_one_that_left_and_forgot_learns_that_it_left),
        cmocka_unit_test(test_of_two_identities_the_older_one_stays),
        cmocka_unit_test(test_join_says_what_is_wrong),
        cmocka_unit_test(test_leave_says_what_is_wrong),
        cmocka_unit_test(test_only_a_member_changes_members),
        cmocka_unit_test(test_a_cluster_has_1024_members_and_knows_2048_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
