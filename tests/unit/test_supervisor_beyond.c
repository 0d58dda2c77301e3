/* The supervisor's core beyond OTP: backoff, watchdog, configuration errors, commands. */
#include "supervisor_story.h"

/* ------------------------------------------------------------ backoff */

static void test_backoff_doubles_from_50_ms_to_5_s(void **unused)
{
    (void)unused;
    const int64_t base_ms[] = {50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    assert_int_equal(sup_backoff_ns(0, 12345), 0);
    for (uint32_t i = 0; i < 10; i++) {
        int64_t least = INT64_MAX, most = 0;
        for (uint64_t random = 0; random < 20000; random++) {
            int64_t delay = sup_backoff_ns(i + 1, random * UINT64_C(0x9e3779b97f4a7c15));
            least = delay < least ? delay : least;
            most = delay > most ? delay : most;
        }
        int64_t low = MS(base_ms[i]) * 3 / 4, high = MS(base_ms[i]) * 5 / 4;
        low = low < MS(50) ? MS(50) : low;
        high = high > MS(5000) ? MS(5000) : high;
        assert_in_range(least, low, low + MS(base_ms[i]) / 100);
        assert_in_range(most, high - MS(base_ms[i]) / 100, high);
    }
    assert_in_range(sup_backoff_ns(UINT32_MAX, 0), MS(3750), MS(5000));
}

static void test_first_restart_is_at_once_the_next_ones_wait(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 100);
    tree[1].watchdog_ns = tree[3].watchdog_ns = 0;
    up();
    exits("b", 1);
    expect("obituary b spawn b ");
    const int64_t base_ms[] = {50, 100, 200, 400, 800, 1600, 3200, 5000, 5000};
    for (unsigned i = 0; i < 9; i++) {
        ready("b");
        jitter += 77;
        exits("b", 1);
        expect_state("b", SUP_BACKOFF);
        expect("obituary b ");
        int64_t delay = sup_core_deadline(core) - now_ns;
        assert_in_range(delay, MS(base_ms[i]) * 3 / 4, MS(base_ms[i]) * 5 / 4);
        tick();
        expect("spawn b ");
    }
}

static void test_without_backoff_every_restart_is_at_once(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 100);
    backoff = false;
    up();
    for (int i = 0; i < 20; i++) {
        exits("b", 1);
        expect("obituary b spawn b ");
    }
}

static void test_backoff_is_reset_after_5_s_up(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 100);
    up();
    for (int i = 0; i < 3; i++) {
        exits("b", 1);
        if (state("b") == SUP_BACKOFF)
            tick();
        ready("b");
    }
    now_ns += MS(4999);
    exits("b", 1);
    expect_state("b", SUP_BACKOFF);
    tick();
    ready("b");
    pass_s(5);
    exits("b", 1);
    expect_state("b", SUP_STARTING);
}

static void test_group_stops_at_once_and_starts_after_the_backoff(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    up();
    exits("b", 1);
    exits("c", 0);
    exits("a", 0);
    ready("a");
    ready("b");
    ready("c");
    expect("obituary b TERM c TERM a spawn a spawn b spawn c ");
    exits("b", 1);
    exits("c", 0);
    exits("a", 0);
    expect("obituary b TERM c TERM a ");
    expect_state("b", SUP_BACKOFF);
    int64_t died_ns = now_ns;
    tick();
    assert_in_range(now_ns - died_ns, MS(50), MS(63));
    expect("spawn a ");
}

static void test_widened_group_restart_keeps_the_longer_backoff(void **unused)
{
    (void)unused;
    plant(TREE_REST_FOR_ONE, 10);
    up();
    exits("c", 1);
    exits("c", 1); /* waits for its backoff */
    story[0] = 0;
    int64_t due_ns = sup_core_deadline(core);
    exits("a", 1); /* its own restart would be at once */
    exits("b", 0);
    expect("obituary a TERM b ");
    assert_int_equal(sup_core_deadline(core), due_ns);
    tick();
    expect("spawn a ");
}

static void test_tries_on_a_directory_in_use_cost_no_backoff_later(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    exits("a", EXIT_IN_USE);
    tick();
    ready("a");
    story[0] = 0;
    exits("a", 1);
    expect("obituary a spawn a ");
}

static void test_shutdown_during_backoff_starts_nothing_more(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    exits("c", 1);
    exits("c", 1);
    expect_state("c", SUP_BACKOFF);
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    expect("obituary c spawn c obituary c TERM b ");
    exits("b", 0);
    exits("a", 0);
    expect("TERM a exit 0 ");
}

/* ------------------------------------------------------------ watchdog */

static void test_hung_service_is_aborted_killed_and_restarted(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    tree[1].watchdog_ns = tree[3].watchdog_ns = 0;
    up();
    int64_t ready_ns = now_ns;
    tick();
    assert_int_equal(now_ns - ready_ns, S(10));
    expect("ABRT b ");
    expect_state("b", SUP_STOPPING);
    int64_t aborted_ns = now_ns;
    tick();
    assert_int_equal(now_ns - aborted_ns, S(2));
    expect("KILL b ");
    dies("b", SIGKILL);
    expect("obituary b spawn b ");
    assert_int_equal(sup_core_view(core, node("b")).cause, SUP_CAUSE_HUNG);
    assert_int_equal(sup_core_view(core, node("b")).restarts, 1);
}

static void test_watchdog_ping_moves_the_deadline(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    for (int i = 0; i < 5; i++) {
        pass_s(9);
        ping_all();
        assert_int_equal(sup_core_deadline(core) - now_ns, S(10));
    }
    expect("");
}

static void test_hung_service_that_exits_cleanly_on_abort_is_still_hung(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    tree[2].restart = TREE_TRANSIENT;
    tree[1].watchdog_ns = tree[3].watchdog_ns = 0;
    up();
    tick();
    exits("b", 0);
    expect("ABRT b obituary b spawn b ");
}

static void test_late_tick_accuses_nobody(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    pass_s(10 + 3); /* this process stood still for 3 s */
    step((struct sup_event){.kind = SUP_TICK});
    expect("");
    assert_int_equal(sup_core_deadline(core) - now_ns, S(10));
    tick();
    expect("ABRT a ABRT b ABRT c ");
}

static void test_late_tick_gives_a_service_that_starts_its_time_again(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    pass_s(10 + 3);
    step((struct sup_event){.kind = SUP_TICK});
    expect("spawn a ");
    assert_int_equal(sup_core_deadline(core) - now_ns, S(10));
    tick();
    expect("ABRT a ");
}

/* ------------------------------------------------------------ configuration errors */

static void test_configuration_error_at_startup_holds_the_service_and_starts_the_rest(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    begin();
    exits("a", EXIT_CONFIG);
    expect("spawn a obituary a spawn b ");
    expect_state("a", SUP_HELD);
    ready("b");
    ready("c");
    expect_state("root", SUP_RUNNING);
    assert_int_equal(sup_core_view(core, node("a")).cause, SUP_CAUSE_CONFIG);
}

static void test_held_service_comes_back_with_a_reload(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    begin();
    exits("a", EXIT_CONFIG);
    ready("b");
    ready("c");
    expect("spawn a obituary a spawn b spawn c ");
    step((struct sup_event){.kind = SUP_RELOAD});
    expect("HUP b HUP c spawn a ");
    exits("a", EXIT_CONFIG); /* no better */
    expect_state("a", SUP_HELD);
    step((struct sup_event){.kind = SUP_RELOAD});
    ready("a");
    expect_state("a", SUP_RUNNING);
}

static void test_held_service_comes_back_with_a_start_command(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    up();
    exits("b", EXIT_CONFIG);
    expect("obituary b ");
    expect_state("b", SUP_HELD);
    assert_int_equal(command(SUP_COMMAND_START, "b"), SH_OK);
    expect("spawn b ");
}

static void test_held_service_is_passed_over_by_a_group_restart(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    up();
    exits("b", EXIT_CONFIG);
    exits("a", 1);
    exits("c", 0);
    ready("a");
    expect("obituary b obituary a TERM c spawn a spawn c ");
}

static void test_reload_waits_for_a_service_that_is_starting(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    begin();
    step((struct sup_event){.kind = SUP_RELOAD});
    expect("spawn a ");
    ready("a");
    expect("HUP a spawn b ");
}

/* ------------------------------------------------------------ commands */

static void test_stop_command_holds_a_service_down(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    up();
    assert_int_equal(command(SUP_COMMAND_STOP, "b"), SH_OK);
    expect("TERM b ");
    exits("b", 0);
    expect("");
    expect_state("b", SUP_STOPPED);
    expect_state("root", SUP_RUNNING);
}

static void test_stopped_service_stays_down_through_a_group_restart(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 10);
    up();
    command(SUP_COMMAND_STOP, "b");
    exits("b", 0);
    exits("a", 1);
    exits("c", 0);
    ready("a");
    expect("TERM b obituary a TERM c spawn a spawn c ");
}

static void test_stopped_and_held_services_stay_down_through_a_restart_of_their_supervisor(void **unused)
{
    (void)unused;
    tree_count = 0;
    add_supervisor(-1, "root", TREE_ONE_FOR_ONE, 10);
    int inner = add_supervisor(0, "inner", TREE_ONE_FOR_ONE, 0);
    add_service(inner, "a", TREE_PERMANENT);
    add_service(inner, "b", TREE_PERMANENT);
    add_service(inner, "c", TREE_PERMANENT);
    up();
    command(SUP_COMMAND_STOP, "a");
    exits("a", 0);
    exits("b", EXIT_CONFIG);
    exits("c", 1); /* more than inner allows: root starts it afresh */
    expect("TERM a obituary b obituary c spawn c ");
    expect_state("a", SUP_STOPPED);
    expect_state("b", SUP_HELD);
}

static void test_start_command_clears_the_backoff(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    exits("b", 1);
    exits("b", 1);
    story[0] = 0;
    command(SUP_COMMAND_START, "b");
    exits("b", 1);
    expect("spawn b obituary b spawn b ");
}

static void test_start_command_brings_it_back(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    up();
    command(SUP_COMMAND_STOP, "b");
    exits("b", 0);
    assert_int_equal(command(SUP_COMMAND_START, "b"), SH_OK);
    expect("TERM b spawn b ");
    ready("b");
    expect_state("b", SUP_RUNNING);
    assert_int_equal(command(SUP_COMMAND_START, "b"), SH_OK); /* up already: nothing to do */
    expect("");
}

static void test_start_command_during_the_stop_starts_it_afterwards(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    up();
    command(SUP_COMMAND_STOP, "b");
    command(SUP_COMMAND_START, "b");
    expect("TERM b ");
    exits("b", 0);
    expect("spawn b ");
}

static void test_restart_command_stops_and_starts_and_counts_nothing(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ALL, 0);
    up();
    for (int i = 0; i < 5; i++) {
        assert_int_equal(command(SUP_COMMAND_RESTART, "b"), SH_OK);
        expect("TERM b ");
        exits("b", 0);
        expect("spawn b ");
        ready("b");
    }
    expect_state("root", SUP_RUNNING);
    assert_int_equal(sup_core_view(core, node("b")).restarts, 0);
}

static void test_restart_command_cuts_the_backoff_short(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 10);
    up();
    exits("b", 1);
    exits("b", 1);
    expect_state("b", SUP_BACKOFF);
    story[0] = 0;
    command(SUP_COMMAND_RESTART, "b");
    expect("spawn b ");
    command(SUP_COMMAND_RESTART, "b"); /* also while it is starting */
    expect("TERM b ");
    dies("b", SIGTERM);
    expect("spawn b ");
}

static void test_start_command_cuts_the_backoff_of_a_group_short(void **unused)
{
    (void)unused;
    plant(TREE_REST_FOR_ONE, 10);
    up();
    exits("c", 1);
    exits("c", 1);
    expect_state("c", SUP_BACKOFF);
    story[0] = 0;
    command(SUP_COMMAND_START, "c");
    assert_int_equal(sup_core_deadline(core), now_ns);
    tick();
    expect("spawn c ");
}

static void test_commands_on_a_supervisor_reach_its_children(void **unused)
{
    (void)unused;
    plant_nested(0, 0, TREE_ONE_FOR_ONE);
    command(SUP_COMMAND_STOP, "inner");
    exits("c", 0);
    exits("b", 0);
    expect("TERM c TERM b ");
    expect_state("inner", SUP_STOPPED);
    expect_state("root", SUP_RUNNING);
    assert_int_equal(command(SUP_COMMAND_START, "b"), SH_CONFLICT);
    assert_int_equal(command(SUP_COMMAND_RESTART, "inner"), SH_OK);
    ready("b");
    ready("c");
    expect("spawn b spawn c ");
    command(SUP_COMMAND_RESTART, "inner");
    exits("c", 0);
    exits("b", 0);
    expect("TERM c TERM b spawn b ");
}

static void test_start_of_a_supervisor_starts_what_was_stopped_below_it(void **unused)
{
    (void)unused;
    plant_nested(0, 0, TREE_ONE_FOR_ONE);
    command(SUP_COMMAND_STOP, "c");
    exits("c", 0);
    command(SUP_COMMAND_STOP, "inner");
    exits("b", 0);
    expect("TERM c TERM b ");
    command(SUP_COMMAND_START, "inner");
    ready("b");
    expect("spawn b spawn c ");
}

static void test_failed_service_can_be_started_by_command(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    tree[2].restart = TREE_TEMPORARY;
    up();
    exits("b", 1);
    command(SUP_COMMAND_START, "b");
    expect("obituary b spawn b ");
    exits("b", 1); /* a temporary child's failed start is not tried again either */
    expect("obituary b ");
    expect_state("b", SUP_FAILED);
}

static void test_root_takes_no_such_command(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    up();
    assert_int_equal(command(SUP_COMMAND_STOP, "root"), SH_BAD_REQUEST);
    assert_int_equal(command(SUP_COMMAND_RESTART, "root"), SH_BAD_REQUEST);
    expect("");
}

static void test_stop_command_while_the_node_starts_lets_the_others_come_up(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    begin();
    command(SUP_COMMAND_STOP, "a");
    dies("a", SIGTERM);
    expect("spawn a TERM a spawn b ");
    command(SUP_COMMAND_STOP, "c");
    ready("b");
    expect("");
    expect_state("root", SUP_RUNNING);
}

static void test_stop_command_between_two_tries_to_start(void **unused)
{
    (void)unused;
    plant(TREE_ONE_FOR_ONE, 0);
    begin();
    exits("a", EXIT_IN_USE);
    story[0] = 0;
    command(SUP_COMMAND_STOP, "a");
    expect("spawn b ");
    expect_state("a", SUP_STOPPED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_backoff_doubles_from_50_ms_to_5_s),
        T(test_first_restart_is_at_once_the_next_ones_wait),
        T(test_without_backoff_every_restart_is_at_once),
        T(test_backoff_is_reset_after_5_s_up),
        T(test_group_stops_at_once_and_starts_after_the_backoff),
        T(test_widened_group_restart_keeps_the_longer_backoff),
        T(test_tries_on_a_directory_in_use_cost_no_backoff_later),
        T(test_shutdown_during_backoff_starts_nothing_more),
        T(test_hung_service_is_aborted_killed_and_restarted),
        T(test_watchdog_ping_moves_the_deadline),
        T(test_hung_service_that_exits_cleanly_on_abort_is_still_hung),
        T(test_late_tick_accuses_nobody),
        T(test_late_tick_gives_a_service_that_starts_its_time_again),
        T(test_configuration_error_at_startup_holds_the_service_and_starts_the_rest),
        T(test_held_service_comes_back_with_a_reload),
        T(test_held_service_comes_back_with_a_start_command),
        T(test_held_service_is_passed_over_by_a_group_restart),
        T(test_reload_waits_for_a_service_that_is_starting),
        T(test_stop_command_holds_a_service_down),
        T(test_stopped_service_stays_down_through_a_group_restart),
        T(test_stopped_and_held_services_stay_down_through_a_restart_of_their_supervisor),
        T(test_start_command_clears_the_backoff),
        T(test_start_command_brings_it_back),
        T(test_start_command_during_the_stop_starts_it_afterwards),
        T(test_restart_command_stops_and_starts_and_counts_nothing),
        T(test_restart_command_cuts_the_backoff_short),
        T(test_start_command_cuts_the_backoff_of_a_group_short),
        T(test_commands_on_a_supervisor_reach_its_children),
        T(test_start_of_a_supervisor_starts_what_was_stopped_below_it),
        T(test_failed_service_can_be_started_by_command),
        T(test_root_takes_no_such_command),
        T(test_stop_command_while_the_node_starts_lets_the_others_come_up),
        T(test_stop_command_between_two_tries_to_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
