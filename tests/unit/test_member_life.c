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
    if (!rig_until(rig, most_ms, rig_is_whole))
        fail_msg("not whole: %s", buf_cstr(&rig->notices));
}

static void test_nodes_with_one_list_found_their_cluster(void **state)
{
    (void)state;
    struct member_rig rig;
    rig_open(&rig, 3, 1);
    rig_start_all(&rig);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_FOUNDING);
    assert_whole(&rig, 10000);
    assert_int_equal(rig_record(&rig, 0, 2).generation, 1);
    assert_int_equal(rig_events(&rig, 1, 1, MEMBER_EVENT_FOUNDED), 1);
    rig_close(&rig);
}

static void test_a_dead_member_is_suspect_then_down_then_up(void **state)
{
    (void)state;
    struct member_rig rig;
    rig_open(&rig, 3, 2);
    rig_start_all(&rig);
    assert_whole(&rig, 10000);
    rig_run(&rig, 30000);
    rig_stop(&rig, 2);
    rig_run(&rig, 11000);
    assert_int_equal(rig_record(&rig, 0, 2).status, MEMBER_SUSPECT);
    rig_run(&rig, 6000);
    assert_int_equal(rig_record(&rig, 0, 2).status, MEMBER_DOWN);
    assert_int_equal(rig_record(&rig, 1, 2).status, MEMBER_DOWN);
    rig_start(&rig, 2);
    assert_whole(&rig, 3000);
    assert_int_equal(rig_events(&rig, 0, 2, MEMBER_EVENT_SUSPECT), 1);
    assert_int_equal(rig_events(&rig, 0, 2, MEMBER_EVENT_DOWN), 1);
    assert_int_equal(rig_events(&rig, 0, 2, MEMBER_EVENT_RESTARTED), 1);
    assert_int_equal(member_core_counters(rig.nodes[0].core)->suspicions +
                             member_core_counters(rig.nodes[1].core)->suspicions >
                         0,
                     1);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nodes_with_one_list_found_their_cluster),
        cmocka_unit_test(test_a_dead_member_is_suspect_then_down_then_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
