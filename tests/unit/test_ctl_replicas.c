/* What `shanghaictl replicas` prints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "cmd.h"

static struct sh_replica followed[2], followers[2];
static struct sh_replicas replicas;

static int setup(void **state)
{
    (void)state;
    followed[0] = (struct sh_replica){.log = {2},
                                      .origin = "n2",
                                      .peer = "n3",
                                      .state = SH_REPLICA_WAITING,
                                      .lsn = 20,
                                      .end = 2000,
                                      .lag_entries = 3,
                                      .lag_bytes = 3 << 20,
                                      .lag_ms = 1500,
                                      .credit = 4096,
                                      .retries = 2,
                                      .seen_ms = 40};
    followed[1] = (struct sh_replica){.log = {7}, .state = SH_REPLICA_FORKED, .lsn = 40, .seen_ms = -1};
    followers[0] = (struct sh_replica){
        .origin = "n1", .peer = "n2", .state = SH_REPLICA_STREAMING, .lsn = 12345, .end = 99, .seen_ms = 300};
    followers[1] = (struct sh_replica){.origin = "n1", .peer = "n\033[3", .lag_bytes = 99, .seen_ms = -1};
    replicas = (struct sh_replicas){.node = "n1",
                                    .durable_lsn = 12345,
                                    .quorum_lsn = 12345,
                                    .all_lsn = 0,
                                    .followed = followed,
                                    .followed_count = 2,
                                    .followers = followers,
                                    .follower_count = 2};
    return 0;
}

/* What it prints; freed by the caller. */
static char *printed(enum ctl_format format, bool colour)
{
    struct ctl ctl = {.command = &cmd_replicas, .format = format, .colour = colour};
    FILE *usual = stdout;
    char *text = NULL;
    size_t size;
    FILE *memory = open_memstream(&text, &size);
    assert_non_null(memory);
    stdout = memory;
    ctl_print_replicas(&ctl, &replicas);
    stdout = usual;
    assert_int_equal(fclose(memory), 0);
    return text;
}

static void expect(enum ctl_format format, const char *wanted)
{
    char *text = printed(format, false);
    assert_string_equal(text, wanted);
    free(text);
}

static void test_each_copy_has_a_line_in_aligned_columns(void **state)
{
    (void)state;
    /* clang-format off */
    expect(CTL_TEXT,
           "the log of n1: durable here to LSN 12,345, on a majority to 12,345, on all to 0\n"
           "log of                                follower  from  state                   LSN  position  entries behind    bytes   for  heard   credit  retries\n"
           "n1                                    n2        -     streaming             12345        99               0      0 B     -   0.3s        -        -\n"
           "n1                                    n\\x1b[3   -     disconnected              0         0               0     99 B  0.0s      -        -        -\n"
           "n2                                    n1        n3    waiting_for_follower     20      2000               3  3.0 MiB  1.5s   0.0s  4.0 KiB        2\n"
           "07000000-0000-0000-0000-000000000000  n1        -     forked                   40         0               0      0 B     -      -      0 B        0\n");
    /* clang-format on */
}

static void test_a_state_has_its_colour_on_a_terminal(void **state)
{
    (void)state;
    char *text = printed(CTL_TEXT, true);
    assert_non_null(strstr(text, CTL_GREEN "streaming" CTL_PLAIN));
    assert_non_null(strstr(text, CTL_YELLOW "waiting_for_follower" CTL_PLAIN));
    assert_non_null(strstr(text, CTL_RED "forked" CTL_PLAIN));
    assert_non_null(strstr(text, CTL_RED "disconnected" CTL_PLAIN));
    free(text);
}

static void test_json_has_all_that_is_known(void **state)
{
    (void)state;
    replicas.quorum_lsn = UINT64_MAX;
    replicas.followed_count = replicas.follower_count = 1;
    expect(
        CTL_JSON,
        "{\"node\":\"n1\",\"log\":\"00000000-0000-0000-0000-000000000000\",\"durable_lsn\":12345,\"quorum_"
        "lsn\":null,\"all_lsn\":0,\"fetched_back\":false,"
        "\"followed\":[{\"log\":\"02000000-0000-0000-0000-000000000000\",\"origin\":\"n2\",\"source\":\"n3\","
        "\"state\":\"waiting_for_follower\",\"lsn\":20,\"end\":2000,\"lag_entries\":3,\"lag_bytes\":3145728,"
        "\"lag_ms\":1500,"
        "\"heard_ms\":40,\"credit\":4096,\"retries\":2,\"closed\":false}],"
        "\"followers\":[{\"follower\":\"n2\",\"state\":\"streaming\",\"lsn\":12345,\"end\":99,\"lag_"
        "entries\":0,\"lag_bytes\":0,"
        "\"lag_ms\":0,\"heard_ms\":300}],\"closed\":[],\"counters\":{}}\n");
}

static void test_closed_logs_are_told_those_that_were_dropped_too(void **state)
{
    static struct sh_closed_log closed[25];
    (void)state;
    for (unsigned i = 0; i < 25; i++)
        closed[i] = (struct sh_closed_log){.log = {(uint8_t)i},
                                           .lsn = 100 + i,
                                           .end = 5000 + i,
                                           .checksum = 9,
                                           .dropped_ns = 1700000000000000000};
    replicas.closed = closed;
    replicas.closed_count = 25;
    replicas.followed_count = replicas.follower_count = 1;
    replicas.followed[0].closed = true;
    char *text = printed(CTL_TEXT, false);
    assert_non_null(strstr(text, "n2      n1        n3    closed "));
    assert_null(strstr(text, "waiting_for_follower"));
    assert_non_null(strstr(text, "closed log                            LSN  position  dropped here\n"));
    assert_non_null(strstr(text, "18000000-0000-0000-0000-000000000000  124      5024  2023-11-14"));
    assert_null(strstr(text, "04000000-0000-0000-0000-000000000000")); /* the last 20 */
    assert_non_null(strstr(text, "05000000-0000-0000-0000-000000000000"));
    free(text);
    text = printed(CTL_JSON, false);
    assert_non_null(strstr(text, "\"retries\":2,\"closed\":true}"));
    assert_non_null(strstr(text, "\"closed\":[{\"log\":\"00000000-0000-0000-0000-000000000000\",\"lsn\":100,"
                                 "\"end\":5000,\"checksum\":9,\"dropped\":\"2023-11-14"));
    free(text);
    replicas.closed = NULL;
    replicas.closed_count = 0;
    replicas.followed[0].closed = false;
}

static void test_an_own_log_that_is_fetched_back_is_told_of(void **state)
{
    (void)state;
    memcpy(replicas.log, replicas.followed[1].log, sizeof replicas.log);
    snprintf(replicas.followed[1].origin, sizeof replicas.followed[1].origin, "n1");
    snprintf(replicas.followed[1].peer, sizeof replicas.followed[1].peer, "n3");
    char *text = printed(CTL_TEXT, false);
    assert_non_null(strstr(text,
                           "\nthe log of n1 is behind its copies, or on another chain: it is fetched back "
                           "(forked), and goes on by itself\n"));
    assert_non_null(strstr(text, "\nn1      n1        n3    forked                   40"));
    free(text);
    text = printed(CTL_JSON, false);
    assert_non_null(strstr(text, "\"fetched_back\":true,"));
    assert_non_null(strstr(text, "\"origin\":\"n1\",\"source\":\"n3\",\"state\":\"forked\",\"lsn\":40"));
    free(text);
}

static void test_a_node_alone_has_no_table(void **state)
{
    (void)state;
    replicas.followed_count = replicas.follower_count = 0;
    expect(CTL_TEXT, "nobody follows the log of n1: durable to LSN 12,345\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_each_copy_has_a_line_in_aligned_columns, setup),
        cmocka_unit_test_setup(test_a_state_has_its_colour_on_a_terminal, setup),
        cmocka_unit_test_setup(test_json_has_all_that_is_known, setup),
        cmocka_unit_test_setup(test_closed_logs_are_told_those_that_were_dropped_too, setup),
        cmocka_unit_test_setup(test_an_own_log_that_is_fetched_back_is_told_of, setup),
        cmocka_unit_test_setup(test_a_node_alone_has_no_table, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
