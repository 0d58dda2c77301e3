/* The rule by which a cluster is healthy, degraded or unavailable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "shanghai.h"

static struct sh_status status;
static struct sh_node members[3];
static struct sh_nodes nodes;
static struct sh_replica followed, follower;
static struct sh_replicas replicas;

/* Three members that are up, and a node that takes writes. */
static int set_good(void **state)
{
    (void)state;
    status = (struct sh_status){.node = "n1", .writable = true};
    memset(members, 0, sizeof members);
    for (unsigned i = 0; i < 3; i++) {
        members[i].id[0] = 'n';
        members[i].id[1] = (char)('1' + i);
        members[i].status = SH_NODE_UP;
    }
    nodes = (struct sh_nodes){
        .node = "n1", .state = SH_STATE_MEMBER, .text = "what to do", .nodes = members, .node_count = 3};
    followed = (struct sh_replica){.log = {7}, .origin = "n2", .peer = "n3", .state = SH_REPLICA_STREAMING};
    follower = (struct sh_replica){.origin = "n1", .peer = "n3", .state = SH_REPLICA_STREAMING};
    replicas = (struct sh_replicas){
        .followed = &followed, .followed_count = 1, .followers = &follower, .follower_count = 1};
    return 0;
}

static void expect(const struct sh_nodes *seen, enum sh_health_level level, const char *reason)
{
    struct sh_health health;
    sh_health(&status, seen, &replicas, &health);
    assert_int_equal(health.level, level);
    assert_int_equal(health.reason_count, reason != NULL);
    if (reason != NULL)
        assert_string_equal(health.reasons[0], reason);
    sh_health_free(&health);
    sh_health_free(&health);
}

static void test_all_up_is_healthy_and_who_left_does_not_count(void **state)
{
    (void)state;
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    members[2].status = SH_NODE_LEFT;
    members[2].drifting = members[2].unreachable = true;
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    assert_string_equal(sh_health_name(SH_HEALTH_GOOD), "healthy");
    assert_string_equal(sh_health_name(SH_HEALTH_UNAVAILABLE), "unavailable");
    assert_string_equal(sh_health_name((enum sh_health_level)3), "unknown");
}

static void test_a_node_that_takes_no_writes_is_unavailable(void **state)
{
    (void)state;
    status.writable = false;
    status.writes = SH_WRITES_AWAY;
    expect(&nodes, SH_HEALTH_UNAVAILABLE, "n1 takes no writes: walsvc does not answer");
    status.writes = SH_WRITES_DISK_FULL;
    expect(&nodes, SH_HEALTH_UNAVAILABLE, "n1 takes no writes: its disk is full");
    status.writes = SH_WRITES_READ_ONLY;
    expect(&nodes, SH_HEALTH_UNAVAILABLE, "n1 takes no writes: it is read-only");
    nodes.state = SH_STATE_LEFT; /* says more, once */
    expect(&nodes, SH_HEALTH_UNAVAILABLE, "what to do");
}

static void test_who_left_or_was_replaced_is_unavailable_before_walsvc_knows(void **state)
{
    (void)state;
    nodes.state = SH_STATE_LEFT;
    expect(&nodes, SH_HEALTH_UNAVAILABLE, "what to do");
    nodes.state = SH_STATE_REPLACED;
    expect(&nodes, SH_HEALTH_UNAVAILABLE, "what to do");
}

static void test_a_member_that_is_not_up_or_not_reached_degrades(void **state)
{
    (void)state;
    members[1].status = SH_NODE_JOINING;
    expect(&nodes, SH_HEALTH_DEGRADED, "n2 is joining");
    members[1].status = SH_NODE_SUSPECT;
    expect(&nodes, SH_HEALTH_DEGRADED, "n2 is suspect");
    members[1].status = SH_NODE_DOWN;
    expect(&nodes, SH_HEALTH_DEGRADED, "n2 is down");
    members[1].status = SH_NODE_MUST_REJOIN;
    expect(&nodes, SH_HEALTH_DEGRADED, "n2 is must_rejoin");
    members[1].status = SH_NODE_UP;
    members[1].unreachable = true;
    expect(&nodes, SH_HEALTH_DEGRADED, "nothing comes from n2, while others reach it");
    members[1].unreachable = false;
    members[1].drifting = true;
    expect(&nodes, SH_HEALTH_DEGRADED, "the clock of n2 is too far away");
}

static void test_an_own_log_that_is_fetched_back_degrades(void **state)
{
    (void)state;
    replicas.log[0] = followed.log[0];
    memcpy(replicas.node, "n1", 3);
    snprintf(followed.origin, sizeof followed.origin, "n1");
    followed.state = SH_REPLICA_FORKED;
    expect(&nodes, SH_HEALTH_DEGRADED, "the log of n1 is fetched back from its copies");
}

static void test_a_node_without_a_cluster_is_degraded(void **state)
{
    (void)state;
    nodes.state = SH_STATE_FOUNDING;
    expect(&nodes, SH_HEALTH_DEGRADED, "n1 is no member yet: what to do");
    nodes.state = SH_STATE_REFUSED;
    expect(&nodes, SH_HEALTH_DEGRADED, "n1 is refused by its cluster: what to do");
    expect(NULL, SH_HEALTH_DEGRADED, "membersvc does not answer: the other nodes are not known");
}

/* Sets a lag just beyond what is allowed. */
static void let_lag(struct sh_replica *r)
{
    r->lag_bytes = (64 << 20) + 1;
    r->lag_ms = 60001;
}

static void test_a_copy_that_is_forked_or_far_behind_degrades(void **state)
{
    (void)state;
    let_lag(&followed);
    expect(&nodes, SH_HEALTH_DEGRADED, "the copy of the log of n2 lags");
    followed.lag_bytes--; /* written all the time, and never quite caught up */
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    let_lag(&followed);
    followed.lag_ms--; /* it has just come back */
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    followed.lag_ms++;
    followed.lag_bytes = 1;
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    followed.state = SH_REPLICA_DISCONNECTED; /* nobody gives the rest */
    expect(&nodes, SH_HEALTH_DEGRADED, "the copy of the log of n2 lags");
    followed.origin[0] = 0; /* it left, and perhaps nobody has the rest */
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    followed = (struct sh_replica){.log = {7}, .origin = "n2", .state = SH_REPLICA_FORKED};
    expect(&nodes, SH_HEALTH_DEGRADED, "the copy of the log of n2 is forked");
    followed.origin[0] = 0;
    expect(&nodes, SH_HEALTH_DEGRADED,
           "the copy of the log of 07000000-0000-0000-0000-000000000000 is forked");
}

static void test_a_follower_that_lags_or_is_silent_degrades(void **state)
{
    (void)state;
    static const char silent[] = "n3 does not tell of its copy of this log";
    let_lag(&follower);
    expect(&nodes, SH_HEALTH_DEGRADED, "the copy of this log on n3 lags");
    follower.seen_ms = 15001; /* says more */
    expect(&nodes, SH_HEALTH_DEGRADED, silent);
    follower.lag_bytes = follower.lag_ms = 0;
    expect(&nodes, SH_HEALTH_DEGRADED, silent);
    follower.seen_ms--;
    expect(&nodes, SH_HEALTH_GOOD, NULL);
    follower.seen_ms = -1;
    expect(&nodes, SH_HEALTH_DEGRADED, silent);
    members[2].status = SH_NODE_DOWN; /* that says it */
    expect(&nodes, SH_HEALTH_DEGRADED, "n3 is down");
}

static void test_without_replsvc_it_is_degraded(void **state)
{
    (void)state;
    struct sh_health health;
    sh_health(&status, &nodes, NULL, &health);
    assert_int_equal(health.level, SH_HEALTH_DEGRADED);
    assert_int_equal(health.reason_count, 1);
    assert_string_equal(health.reasons[0], "replsvc does not answer: logs are not copied");
    sh_health_free(&health);
}

static void test_the_worst_counts_and_comes_first(void **state)
{
    (void)state;
    struct sh_health health;
    status.writable = false;
    status.writes = SH_WRITES_DISK_FULL;
    members[2].status = SH_NODE_DOWN;
    sh_health(&status, &nodes, &replicas, &health);
    assert_int_equal(health.level, SH_HEALTH_UNAVAILABLE);
    assert_int_equal(health.reason_count, 2);
    assert_string_equal(health.reasons[0], "n1 takes no writes: its disk is full");
    assert_string_equal(health.reasons[1], "n3 is down");
    sh_health_free(&health);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all_up_is_healthy_and_who_left_does_not_count, set_good),
        cmocka_unit_test_setup(test_a_node_that_takes_no_writes_is_unavailable, set_good),
        cmocka_unit_test_setup(test_who_left_or_was_replaced_is_unavailable_before_walsvc_knows, set_good),
        cmocka_unit_test_setup(test_a_member_that_is_not_up_or_not_reached_degrades, set_good),
        cmocka_unit_test_setup(test_an_own_log_that_is_fetched_back_degrades, set_good),
        cmocka_unit_test_setup(test_a_node_without_a_cluster_is_degraded, set_good),
        cmocka_unit_test_setup(test_a_copy_that_is_forked_or_far_behind_degrades, set_good),
        cmocka_unit_test_setup(test_a_follower_that_lags_or_is_silent_degrades, set_good),
        cmocka_unit_test_setup(test_without_replsvc_it_is_degraded, set_good),
        cmocka_unit_test_setup(test_the_worst_counts_and_comes_first, set_good),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
