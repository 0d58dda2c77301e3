/* The supervisor's core: OTP's rules by name. */
#include "supervisor_story.h"

/* ------------------------------------------------------------ order */

static void test_children_start_in_order_each_waits_for_ready(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    expect("spawn a ");
    expect_state("root", SUP_STARTING);
    ready("a");
    expect("spawn b ");
    ready("b");
    expect("spawn c ");
    expect_state("root", SUP_STARTING);
    ready("c");
    expect("");
    expect_state("root", SUP_RUNNING);
}

static void test_children_stop_in_reverse_order_each_waits_for_the_exit(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    expect("TERM c ");
    expect_state("c", SUP_STOPPING);
    exits("c", 0);
    expect("TERM b ");
    exits("b", 0);
    expect("TERM a ");
    exits("a", 0);
    expect("exit 0 ");
    expect_state("root", SUP_STOPPED);
}

static void test_shutdown_while_starting_stops_what_is_up(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    ready("a");
    expect("spawn a spawn b ");
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    expect("TERM b ");
    dies("b", SIGTERM);
    expect("TERM a ");
    exits("a", 0);
    expect("exit 0 ");
}

static void test_shutdown_timeout_ends_in_sigkill(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    int64_t asked_ns = now_ns;
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    assert_int_equal(sup_core_deadline(core) - asked_ns, S(5));
    tick();
    expect("TERM c KILL c ");
    dies("c", SIGKILL);
    expect("obituary c TERM b ");
    assert_int_equal(sup_core_view(core, node("c")).cause, SUP_CAUSE_SHUTDOWN_TIMEOUT);
    exits("b", 0);
    exits("a", 0);
    expect("TERM a exit 0 ");
}

static void test_shutdown_timeout_of_zero_kills_at_once(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    tree[3].shutdown_timeout_ns = 0;
    up();
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    assert_int_equal(sup_core_deadline(core), now_ns);
    tick();
    expect("TERM c KILL c ");
}

static void test_nested_supervisor_starts_and_stops_within_the_order(void **unused)
{
    (void)unused;
    tree_count = 0;
    add_supervisor(-1, "root", TREE_ONE_FOR_ONE, 10);
    add_service(0, "a", TREE_PERMANENT);
    int inner = add_supervisor(0, "inner", TREE_ONE_FOR_ONE, 10);
    add_service(inner, "b", TREE_PERMANENT);
    add_service(inner, "c", TREE_PERMANENT);
    add_service(0, "d", TREE_PERMANENT);
    begin();
    ready("a");
    ready("b");
    expect("spawn a spawn b spawn c ");
    expect_state("inner", SUP_STARTING);
    ready("c");
    expect("spawn d ");
    expect_state("inner", SUP_RUNNING);
    ready("d");
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    exits("d", 0);
    exits("c", 0);
    exits("b", 0);
    expect("TERM d TERM c TERM b TERM a ");
    expect_state("inner", SUP_STOPPED);
    exits("a", 0);
    expect("exit 0 ");
}

static void test_supervisor_without_children_is_up_at_once(void **unused)
{
    (void)unused;
    tree_count = 0;
    add_supervisor(-1, "root", TREE_ONE_FOR_ONE, 10);
    add_supervisor(0, "empty", TREE_ONE_FOR_ALL, 10);
    begin();
    expect_state("empty", SUP_RUNNING);
    expect_state("root", SUP_RUNNING);
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    expect("exit 0 ");
}

/* ------------------------------------------------------------ strategies */

static void test_one_for_one_restarts_only_the_child(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    dies("a", SIGSEGV);
    expect("obituary a spawn a ");
    expect_state("b", SUP_RUNNING);
    ready("a");
    expect_state("a", SUP_RUNNING);
    assert_int_equal(sup_core_view(core, node("a")).restarts, 1);
    assert_int_equal(sup_core_view(core, node("b")).restarts, 0);
    expect("");
}

static void test_one_for_one_slow_start_delays_no_other_restart(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    exits("a", 1);
    exits("c", 1);
    expect("obituary a spawn a obituary c spawn c ");
}

static void test_one_for_all_stops_all_in_reverse_and_starts_in_order(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    up();
    dies("b", SIGKILL);
    expect("obituary b TERM c ");
    exits("c", 0);
    expect("TERM a ");
    exits("a", 0);
    expect("spawn a ");
    ready("a");
    ready("b");
    ready("c");
    expect("spawn b spawn c ");
    assert_int_equal(sup_core_view(core, node("a")).restarts, 1);
    assert_int_equal(sup_core_view(core, node("b")).restarts, 1);
}

static void test_one_for_all_during_the_start_begins_the_start_again(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    begin();
    ready("a");
    exits("a", 1); /* b is starting, c was never up */
    expect("spawn a spawn b obituary a TERM b ");
    dies("b", SIGTERM);
    ready("a");
    ready("b");
    expect("spawn a spawn b spawn c ");
    expect_state("root", SUP_STARTING);
    ready("c");
    expect_state("root", SUP_RUNNING);
    assert_int_equal(sup_core_view(core, node("c")).restarts, 0);
}

static void test_rest_for_one_restarts_the_child_and_those_behind_it(void **unused)
{
    (void)unused;
    plant(TREE_REST_FOR_ONE, 10);
    up();
    exits("b", 1);
    expect("obituary b TERM c ");
    exits("c", 0);
    expect("spawn b ");
    ready("b");
    ready("c");
    expect("spawn c ");
    expect_state("a", SUP_RUNNING);
    assert_int_equal(sup_core_view(core, node("a")).restarts, 0);
}

static void test_rest_for_one_earlier_death_during_a_restart_widens_it(void **unused)
{
    (void)unused;
    plant(TREE_REST_FOR_ONE, 10);
    up();
    exits("b", 1);
    expect("obituary b TERM c ");
    exits("a", 1);
    exits("c", 0);
    expect("obituary a spawn a ");
    ready("a");
    ready("b");
    ready("c");
    expect("spawn b spawn c ");
}

static void test_death_of_a_sibling_that_stops_anyway_counts_no_restart(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 1);
    up();
    exits("b", 1);
    exits("a", 1); /* before its turn to be stopped */
    exits("c", 0);
    expect("obituary b TERM c obituary a spawn a ");
    expect_state("root", SUP_RUNNING);
}

static void test_group_restart_starts_children_that_had_ended_normally(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    tree[1].restart = TREE_TRANSIENT;
    up();
    exits("a", 0);
    expect_state("a", SUP_STOPPED);
    exits("c", 1);
    exits("b", 0);
    expect("obituary a obituary c TERM b spawn a ");
}

/* ------------------------------------------------------------ restart types */

static void test_permanent_restarts_after_normal_and_abnormal_exit(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    exits("b", 0);
    expect("obituary b spawn b ");
    ready("b");
    pass_s(6);
    exits("b", 1);
    expect("obituary b spawn b ");
}

static void test_transient_restarts_after_abnormal_exit_only(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    tree[2].restart = TREE_TRANSIENT;
    up();
    dies("b", SIGKILL);
    expect("obituary b spawn b ");
    ready("b");
    exits("b", 0);
    expect("obituary b ");
    expect_state("b", SUP_STOPPED);
    expect_state("root", SUP_RUNNING);
}

static void test_temporary_is_never_restarted(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    tree[2].restart = TREE_TEMPORARY;
    tree[3].restart = TREE_TEMPORARY;
    up();
    exits("b", 1);
    exits("c", 0);
    expect("obituary b obituary c ");
    expect_state("b", SUP_FAILED);
    expect_state("c", SUP_STOPPED);
    expect_state("root", SUP_RUNNING);
}

static void test_temporary_under_one_for_all_goes_down_and_stays_down(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    tree[2].restart = TREE_TEMPORARY;
    up();
    exits("a", 1);
    exits("c", 0);
    exits("b", 0);
    expect("obituary a TERM c TERM b spawn a ");
    ready("a");
    expect("spawn c ");
    ready("c");
    expect("");
    expect_state("b", SUP_STOPPED);
}

static void test_death_of_a_temporary_leaves_its_group_alone(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 0);
    tree[2].restart = TREE_TEMPORARY;
    up();
    exits("b", 1);
    expect("obituary b ");
    expect_state("a", SUP_RUNNING);
}

static void test_temporary_comes_back_with_its_supervisor(void **unused)
{
    (void)unused;
    tree_count = 0;
    add_supervisor(-1, "root", TREE_ONE_FOR_ONE, 10);
    int inner = add_supervisor(0, "inner", TREE_ONE_FOR_ONE, 0);
    add_service(inner, "a", TREE_PERMANENT);
    add_service(inner, "b", TREE_TEMPORARY);
    begin();
    ready("a");
    ready("b");
    exits("b", 1);
    exits("a", 1); /* intensity 0: inner ends, and root starts it afresh */
    ready("a");
    expect("spawn a spawn b obituary b obituary a spawn a spawn b ");
}

/* ------------------------------------------------------------ intensity and escalation */

static void test_intensity_allows_so_many_restarts_and_not_one_more(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 3);
    up();
    for (int i = 0; i < 3; i++) {
        exits("b", 1);
        while (state("b") == SUP_BACKOFF)
            tick();
        ready("b");
    }
    expect("obituary b spawn b obituary b spawn b obituary b spawn b ");
    exits("b", 1);
    expect("obituary b TERM c ");
    expect_state("root", SUP_STOPPING);
    exits("c", 0);
    exits("a", 0);
    expect("TERM a exit 70 ");
    expect_state("root", SUP_FAILED);
}

static void test_intensity_forgets_what_is_older_than_the_period(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 2);
    for (int i = 1; i <= 3; i++)
        tree[i].watchdog_ns = 0;
    up();
    for (int i = 0; i < 20; i++) {
        pass_s(31); /* two within any 60 s, never three */
        exits("b", 1);
        ready("b");
    }
    expect_state("root", SUP_RUNNING);
    expect_state("b", SUP_RUNNING);
}

static void test_intensity_counts_a_restart_exactly_a_period_ago(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 1);
    tree[2].watchdog_ns = 0;
    up();
    exits("b", 1);
    ready("b");
    pass_s(60);
    exits("b", 1);
    expect_state("root", SUP_STOPPING);
}

static void test_intensity_of_zero_allows_no_restart(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    up();
    exits("c", 1);
    expect("obituary c TERM b ");
}

static void test_intensity_is_shared_by_all_children(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 2);
    up();
    exits("a", 1);
    exits("b", 1);
    expect_state("root", SUP_RUNNING);
    exits("c", 1);
    expect_state("root", SUP_STOPPING);
}

static void test_intensity_exceeded_ends_the_supervisor_and_its_parent_restarts_it(void **unused)
{
    (void)unused;
    plant_nested(10, 1, TREE_ONE_FOR_ONE);
    exits("b", 1);
    ready("b");
    exits("b", 1);
    expect("obituary b spawn b obituary b TERM c ");
    expect_state("inner", SUP_STOPPING);
    exits("c", 0);
    expect("spawn b "); /* the whole of inner, afresh and at once */
    expect_state("inner", SUP_STARTING);
    ready("b");
    ready("c");
    expect("spawn c ");
    expect_state("inner", SUP_RUNNING);
    expect_state("a", SUP_RUNNING);
    assert_int_equal(sup_core_view(core, node("inner")).restarts, 1);
    assert_int_equal(sup_core_view(core, node("inner")).cause, SUP_CAUSE_INTENSITY);
}

static void test_intensity_exceeded_at_two_levels_gives_up(void **unused)
{
    (void)unused;
    plant_nested(1, 0, TREE_ONE_FOR_ONE);
    exits("b", 1); /* inner allows none: it ends, root restarts it (its first) */
    exits("c", 0);
    expect("obituary b TERM c spawn b ");
    ready("b");
    ready("c");
    exits("c", 1); /* inner ends again, and that is more than root allows */
    exits("b", 0);
    expect("spawn c obituary c TERM b TERM a ");
    expect_state("inner", SUP_FAILED);
    exits("a", 0);
    expect("exit 70 ");
}

static void test_escalation_applies_the_parents_strategy(void **unused)
{
    (void)unused;
    plant_nested(10, 0, TREE_ONE_FOR_ALL);
    exits("c", 1);
    exits("b", 0);
    expect("obituary c TERM b TERM a ");
    exits("a", 0);
    expect("spawn a ");
    ready("a");
    expect("spawn b ");
}

static void test_transient_supervisor_that_gave_up_is_not_restarted(void **unused)
{
    (void)unused;
    plant_nested(10, 0, TREE_ONE_FOR_ONE);
    tree[node("inner")].restart = TREE_TRANSIENT; /* it ends with OTP's reason `shutdown`: normal */
    exits("c", 1);
    exits("b", 0);
    expect("obituary c TERM b ");
    expect_state("inner", SUP_FAILED);
    expect_state("root", SUP_RUNNING);
}

static void test_restarted_supervisor_counts_from_zero(void **unused)
{
    (void)unused;
    plant_nested(10, 1, TREE_ONE_FOR_ONE);
    exits("b", 1);
    ready("b");
    exits("b", 1);
    exits("c", 0);
    ready("b");
    ready("c");
    exits("c", 1);
    expect_state("inner", SUP_RUNNING);
}

/* ------------------------------------------------------------ failed start */

static void test_failed_start_at_startup_stops_what_is_up_and_gives_up(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    ready("a");
    exits("b", 1);
    expect("spawn a spawn b obituary b TERM a ");
    expect_state("c", SUP_STOPPED);
    exits("a", 0);
    expect("exit 70 ");
}

static void test_failed_start_in_a_nested_supervisor_fails_them_all(void **unused)
{
    (void)unused;
    tree_count = 0;
    add_supervisor(-1, "root", TREE_ONE_FOR_ONE, 10);
    add_service(0, "a", TREE_PERMANENT);
    int inner = add_supervisor(0, "inner", TREE_ONE_FOR_ONE, 10);
    add_service(inner, "b", TREE_PERMANENT);
    add_service(inner, "c", TREE_PERMANENT);
    begin();
    ready("a");
    ready("b");
    exits("c", 1);
    exits("b", 0);
    expect("spawn a spawn b spawn c obituary c TERM b TERM a ");
    exits("a", 0);
    expect("exit 70 ");
    assert_int_equal(sup_core_view(core, node("inner")).cause, SUP_CAUSE_CHILD);
}

static void test_failed_restart_of_an_earlier_child_does_not_fail_the_startup(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    ready("a");
    exits("a", 1);
    exits("a", 1);
    expect("spawn a spawn b obituary a spawn a obituary a ");
    expect_state("a", SUP_BACKOFF);
    ready("b");
    ready("c");
    expect("spawn c ");
    expect_state("root", SUP_RUNNING);
}

static void test_failed_restart_is_tried_again_and_counts(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 3);
    up();
    exits("b", 1);
    exits("b", 1);
    tick();
    exits("b", 1);
    tick();
    expect("obituary b spawn b obituary b spawn b obituary b spawn b ");
    exits("b", 1);
    expect("obituary b TERM c ");
    expect_state("root", SUP_STOPPING);
}

static void test_failed_start_within_rest_for_one_goes_on_from_that_child(void **unused)
{
    (void)unused;
    plant(TREE_REST_FOR_ONE, 10);
    up();
    exits("a", 1);
    exits("c", 0);
    exits("b", 0);
    ready("a");
    expect("obituary a TERM c TERM b spawn a spawn b ");
    exits("b", 1); /* its own first try again is at once */
    expect("obituary b spawn b ");
    ready("b");
    ready("c");
    expect("spawn c ");
    expect_state("a", SUP_RUNNING);
}

static void test_failed_start_within_one_for_all_starts_all_over(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    up();
    exits("c", 1);
    exits("b", 0);
    exits("a", 0);
    ready("a");
    expect("obituary c TERM b TERM a spawn a spawn b ");
    exits("b", 1);
    expect("obituary b TERM a ");
    exits("a", 0);
    expect("spawn a ");
}

static void test_failed_start_of_a_restarted_supervisor_is_its_parents_to_retry(void **unused)
{
    (void)unused;
    plant_nested(2, 0, TREE_ONE_FOR_ONE);
    exits("c", 1);
    exits("b", 0);
    expect("obituary c TERM b spawn b ");
    exits("b", 1); /* inner fails to start: the parent's second restart, after a backoff */
    expect("obituary b ");
    expect_state("inner", SUP_BACKOFF);
    tick();
    exits("b", 1); /* the third is one too many */
    expect("spawn b obituary b TERM a ");
}

static void test_spawn_failure_is_a_failed_start_without_obituary(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    exits("b", 1);
    step((struct sup_event){.kind = SUP_SPAWN_FAILED, .node = node("b")});
    expect("obituary b spawn b ");
    expect_state("b", SUP_BACKOFF);
    assert_int_equal(sup_core_view(core, node("b")).cause, SUP_CAUSE_SPAWN);
    tick();
    expect("spawn b ");
}

static void test_start_timeout_aborts_and_is_a_failed_start(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    int64_t spawned_ns = now_ns;
    tick();
    assert_int_equal(now_ns - spawned_ns, S(10));
    expect("spawn a ABRT a ");
    dies("a", SIGABRT);
    expect("obituary a exit 70 ");
    assert_int_equal(sup_core_view(core, node("a")).cause, SUP_CAUSE_START_TIMEOUT);
}

static void test_ready_after_the_start_timeout_comes_too_late(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    tick();
    ready("a");
    expect_state("a", SUP_STOPPING);
    expect("spawn a ABRT a ");
}

static void test_directory_in_use_is_tried_again_within_the_start_timeout(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    begin();
    for (int i = 0; i < 4; i++) {
        exits("a", EXIT_IN_USE);
        expect_state("a", SUP_STARTING);
        tick();
    }
    expect("spawn a obituary a spawn a obituary a spawn a obituary a spawn a obituary a spawn a ");
    ready("a");
    expect_state("a", SUP_RUNNING);
    expect("spawn b ");
}

static void test_directory_in_use_for_too_long_is_a_failed_start(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    begin();
    int64_t begun_ns = now_ns;
    while (state("a") == SUP_STARTING) {
        exits("a", EXIT_IN_USE);
        if (state("a") == SUP_STARTING)
            tick();
    }
    assert_in_range(now_ns - begun_ns, S(10), S(15));
    expect_state("root", SUP_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_children_start_in_order_each_waits_for_ready),
        T(test_children_stop_in_reverse_order_each_waits_for_the_exit),
        T(test_shutdown_while_starting_stops_what_is_up),
        T(test_shutdown_timeout_ends_in_sigkill),
        T(test_shutdown_timeout_of_zero_kills_at_once),
        T(test_nested_supervisor_starts_and_stops_within_the_order),
        T(test_supervisor_without_children_is_up_at_once),
        T(test_one_for_one_restarts_only_the_child),
        T(test_one_for_one_slow_start_delays_no_other_restart),
        T(test_one_for_all_stops_all_in_reverse_and_starts_in_order),
        T(test_one_for_all_during_the_start_begins_the_start_again),
        T(test_rest_for_one_restarts_the_child_and_those_behind_it),
        T(test_rest_for_one_earlier_death_during_a_restart_widens_it),
        T(test_death_of_a_sibling_that_stops_anyway_counts_no_restart),
        T(test_group_restart_starts_children_that_had_ended_normally),
        T(test_permanent_restarts_after_normal_and_abnormal_exit),
        T(test_transient_restarts_after_abnormal_exit_only),
        T(test_temporary_is_never_restarted),
        T(test_temporary_under_one_for_all_goes_down_and_stays_down),
        T(test_death_of_a_temporary_leaves_its_group_alone),
        T(test_temporary_comes_back_with_its_supervisor),
        T(test_intensity_allows_so_many_restarts_and_not_one_more),
        T(test_intensity_forgets_what_is_older_than_the_period),
        T(test_intensity_counts_a_restart_exactly_a_period_ago),
        T(test_intensity_of_zero_allows_no_restart),
        T(test_intensity_is_shared_by_all_children),
        T(test_intensity_exceeded_ends_the_supervisor_and_its_parent_restarts_it),
        T(test_intensity_exceeded_at_two_levels_gives_up),
        T(test_escalation_applies_the_parents_strategy),
        T(test_transient_supervisor_that_gave_up_is_not_restarted),
        T(test_restarted_supervisor_counts_from_zero),
        T(test_failed_start_at_startup_stops_what_is_up_and_gives_up),
        T(test_failed_start_in_a_nested_supervisor_fails_them_all),
        T(test_failed_restart_of_an_earlier_child_does_not_fail_the_startup),
        T(test_failed_restart_is_tried_again_and_counts),
        T(test_failed_start_within_rest_for_one_goes_on_from_that_child),
        T(test_failed_start_within_one_for_all_starts_all_over),
        T(test_failed_start_of_a_restarted_supervisor_is_its_parents_to_retry),
        T(test_spawn_failure_is_a_failed_start_without_obituary),
        T(test_start_timeout_aborts_and_is_a_failed_start),
        T(test_ready_after_the_start_timeout_comes_too_late),
        T(test_directory_in_use_is_tried_again_within_the_start_timeout),
        T(test_directory_in_use_for_too_long_is_a_failed_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
