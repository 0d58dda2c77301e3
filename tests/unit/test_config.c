/* The configuration loader: what is right is taken over, what is wrong is named with its place, all at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "config_doc.h"
#include "log.h"
#include "settings.h"

#define CLUSTER                                                                                              \
    "cluster:\n  name: demo\n  nodes:\n    - {id: n1, host: 127.0.0.1, port: 4000, admin_port: 9090}\n"
enum { CLUSTER_LINES = 4 };

static bool parse(const char *text, const char *node, struct config *out, struct buf *errors)
{
    return config_parse("c.yaml", slice_str(text), node, out, errors);
}

static struct config parse_good(const char *text, const char *node)
{
    struct config c;
    struct buf errors = {0};
    if (!parse(text, node, &c, &errors))
        fail_msg("refused:\n%s", buf_cstr(&errors));
    buf_free(&errors);
    return c;
}

/* All that is said about a text must be exactly this. */
static void expect_errors(const char *text, const char *expected)
{
    struct config c;
    struct buf errors = {0};
    bool good = parse(text, NULL, &c, &errors);
    if (good)
        config_free(&c);
    assert_string_equal(buf_cstr(&errors), expected);
    assert_int_equal(good, expected[0] == 0);
    buf_free(&errors);
}

static void expect_setting_error(const char *group, const char *setting, const char *problem)
{
    char text[512], expected[512];
    snprintf(text, sizeof text, CLUSTER "%s:\n  %s\n", group, setting);
    snprintf(expected, sizeof expected, "c.yaml:%d:%zu: %s\n", CLUSTER_LINES + 2, strcspn(setting, ":") + 5,
             problem);
    expect_errors(text, expected);
}

/* ------------------------------------------------------------ what is right */

static void test_a_minimal_file_gets_all_defaults(void **state)
{
    (void)state;
    struct config c = parse_good(CLUSTER, "n1");
    assert_string_equal(c.cluster, "demo");
    assert_int_equal(c.node_count, 1);
    assert_ptr_equal(c.self, &c.nodes[0]);
    assert_string_equal(c.self->host, "127.0.0.1");
    assert_string_equal(c.self->group, "default");
    assert_int_equal(c.self->port, 4000);
    assert_int_equal(c.self->admin_port, 9090);
    assert_string_equal(c.data_dir, "/var/lib/shanghai/n1");
    assert_string_equal(c.run_dir, "/run/shanghai/n1");
    assert_int_equal(c.settings.wal_segment_size, 64 << 20);
    assert_int_equal(c.settings.log_level, LOG_INFO);
    assert_int_equal(c.settings.wal_commit_delay, 0);
    assert_true(c.backoff);
    config_free(&c);
}

static void test_the_default_tree_runs_all_services(void **state)
{
    (void)state;
    static const char *const names[] = {"walsvc", "membersvc", "replsvc", "querysvc", "obssvc"};
    struct config c = parse_good(CLUSTER, NULL);
    assert_null(c.self);
    assert_int_equal(c.tree_count, 6);
    assert_int_equal(c.tree[0].kind, TREE_SUPERVISOR);
    assert_int_equal(c.tree[0].strategy, TREE_ONE_FOR_ONE);
    assert_int_equal(c.tree[0].intensity, 10);
    assert_int_equal(c.tree[0].period_ns, 60 * NS_PER_S);
    assert_int_equal(c.tree[0].parent, -1);
    for (int i = 1; i < 6; i++) {
        assert_int_equal(c.tree[i].kind, TREE_SERVICE);
        assert_string_equal(c.tree[i].name, names[i - 1]);
        assert_string_equal(c.tree[i].program, c.tree[i].name);
        assert_int_equal(c.tree[i].restart, TREE_PERMANENT);
        assert_int_equal(c.tree[i].parent, 0);
        assert_int_equal(c.tree[i].shutdown_timeout_ns, 5 * NS_PER_S);
        assert_int_equal(c.tree[i].start_timeout_ns, 10 * NS_PER_S);
        assert_int_equal(c.tree[i].watchdog_ns, 10 * NS_PER_S);
    }
    config_free(&c);
}

static void test_settings_take_units(void **state)
{
    (void)state;
    struct config c =
        parse_good(CLUSTER "wal: {segment_size: 16MiB, commit_delay: 250us, queue_bytes: 2097152}\n"
                           "log:\n  level: warn\nlink:\n  sessions: 17\n",
                   NULL);
    assert_int_equal(c.settings.wal_segment_size, 16 << 20);
    assert_int_equal(c.settings.wal_commit_delay, 250 * NS_PER_US);
    assert_int_equal(c.settings.wal_queue_bytes, 2 << 20);
    assert_int_equal(c.settings.log_level, LOG_WARN);
    assert_int_equal(c.settings.link_sessions, 17);
    config_free(&c);
}

static void test_a_nested_tree_keeps_its_order(void **state)
{
    (void)state;
    struct config c =
        parse_good(CLUSTER "supervisor:\n"
                           "  strategy: rest_for_one\n"
                           "  intensity: 3\n"
                           "  period: 500ms\n"
                           "  backoff: false\n"
                           "  children:\n"
                           "    - {service: a, program: /bin/true, restart: temporary, watchdog: 0}\n"
                           "    - supervisor: front\n"
                           "      strategy: one_for_all\n"
                           "      children: [{service: b}, {service: c, restart: transient}]\n"
                           "    - {service: d, shutdown_timeout: 250ms}\n",
                   NULL);
    static const struct {
        const char *name;
        int parent;
    } expected[] = {{"root", -1}, {"a", 0}, {"front", 0}, {"b", 2}, {"c", 2}, {"d", 0}};
    assert_int_equal(c.tree_count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(c.tree[i].name, expected[i].name);
        assert_int_equal(c.tree[i].parent, expected[i].parent);
    }
    assert_false(c.backoff);
    assert_int_equal(c.tree[0].strategy, TREE_REST_FOR_ONE);
    assert_int_equal(c.tree[0].intensity, 3);
    assert_int_equal(c.tree[0].period_ns, 500 * NS_PER_MS);
    assert_string_equal(c.tree[1].program, "/bin/true");
    assert_int_equal(c.tree[1].restart, TREE_TEMPORARY);
    assert_int_equal(c.tree[1].watchdog_ns, 0);
    assert_int_equal(c.tree[2].strategy, TREE_ONE_FOR_ALL);
    assert_int_equal(c.tree[2].intensity, 10);
    assert_int_equal(c.tree[4].restart, TREE_TRANSIENT);
    assert_int_equal(c.tree[5].shutdown_timeout_ns, 250 * NS_PER_MS);
    config_free(&c);
}

static void test_root_settings_alone_keep_the_default_children(void **state)
{
    (void)state;
    struct config c = parse_good(CLUSTER "supervisor: {intensity: 1000, backoff: false}\n", NULL);
    assert_int_equal(c.tree_count, 6);
    assert_int_equal(c.tree[0].intensity, 1000);
    assert_false(c.backoff);
    config_free(&c);
}

static void test_directories_get_the_id_of_the_node(void **state)
{
    (void)state;
    struct config c = parse_good(CLUSTER "data_dir: /d/%n/x-%n\nrun_dir: /r/%n\n", "n1");
    assert_string_equal(c.data_dir, "/d/n1/x-n1");
    assert_string_equal(c.run_dir, "/r/n1");
    config_free(&c);
    c = parse_good(CLUSTER "data_dir: /d/%n\n", NULL);
    assert_string_equal(c.data_dir, "/d/%n");
    assert_string_equal(c.admin_token_file, "");
    config_free(&c);
    c = parse_good(CLUSTER "admin_token_file: /t/%n.token\n", "n1");
    assert_string_equal(c.admin_token_file, "/t/n1.token");
    config_free(&c);
}

static void cluster_id_of(const char *text, uint8_t id[CLUSTER_ID_BYTES])
{
    struct config c = parse_good(text, NULL);
    memcpy(id, c.cluster_id, CLUSTER_ID_BYTES);
    config_free(&c);
}

static void test_the_cluster_id_hangs_on_name_and_groups_only(void **state)
{
    (void)state;
    static const char two[] = "cluster:\n  name: x\n  nodes:\n    - {id: a, host: h1, port: 1, group: g1}\n"
                              "    - {id: b, host: h2, port: 1, group: g2}\n";
    static const char same[] =
        "cluster:\n  name: x\n  nodes:\n    - {id: c, host: h3, port: 9, group: g2}\n"
        "    - {id: d, host: h4, port: 9, group: g1}\n    - {id: e, host: h5, port: 9, group: g2}\n";
    static const char other_group[] =
        "cluster:\n  name: x\n  nodes:\n    - {id: a, host: h1, port: 1, group: g1}\n";
    static const char other_name[] =
        "cluster:\n  name: y\n  nodes:\n    - {id: a, host: h1, port: 1, group: g1}\n"
        "    - {id: b, host: h2, port: 1, group: g2}\n";
    uint8_t id[4][CLUSTER_ID_BYTES];
    cluster_id_of(two, id[0]);
    cluster_id_of(same, id[1]);
    cluster_id_of(other_group, id[2]);
    cluster_id_of(other_name, id[3]);
    assert_memory_equal(id[0], id[1], CLUSTER_ID_BYTES);
    assert_memory_not_equal(id[0], id[2], CLUSTER_ID_BYTES);
    assert_memory_not_equal(id[0], id[3], CLUSTER_ID_BYTES);
    assert_memory_not_equal(id[2], id[3], CLUSTER_ID_BYTES);
}

/* ------------------------------------------------------------ what is wrong */

static void test_everything_wrong_is_reported_at_once_in_order(void **state)
{
    (void)state;
    expect_errors("cluster:\n"
                  "  name: demo\n"
                  "  nodes:\n"
                  "    - {id: n1, host: 127.0.0.1, prot: 4000}\n"
                  "wall:\n"
                  "  segment_size: 1MiB\n"
                  "wal:\n"
                  "  segmnt_size: 64MiB\n"
                  "  commit_delay: 5\n"
                  "supervisor:\n"
                  "  strategy: one_for_al\n",
                  "c.yaml:4:7: a node needs the key `port`\n"
                  "c.yaml:4:33: unknown key `prot` in a node; did you mean `port`?\n"
                  "c.yaml:5:1: unknown key `wall` in the file; did you mean `wal`?\n"
                  "c.yaml:8:3: unknown setting `segmnt_size` in `wal`; did you mean `segment_size`?\n"
                  "c.yaml:9:17: `wal.commit_delay` needs a unit (ns, us, ms, s, m, h, d): `5s`?\n"
                  "c.yaml:11:13: `strategy` must be one_for_one, one_for_all or rest_for_one, not "
                  "`one_for_al`; did you "
                  "mean `one_for_all`?\n");
}

static void test_a_number_beyond_64_bits_is_in_no_range(void **state)
{
    (void)state;
    uint64_t value = 0;
    struct buf problem = {0};
    assert_true(setting_parse(SETTING_COUNT, 0, UINT64_MAX, "18446744073709551615", &value, &problem));
    assert_true(value == UINT64_MAX);
    assert_false(setting_parse(SETTING_COUNT, 0, UINT64_MAX, "18446744073709551616", &value, &problem));
    assert_string_equal(buf_cstr(&problem),
                        "must be between 0 and 18446744073709551615, not `18446744073709551616`");
    assert_false(setting_parse(SETTING_SIZE, 0, UINT64_MAX, "18014398509481984KiB", &value, &problem));
    buf_free(&problem);
}

static void test_wrong_settings_are_named(void **state)
{
    (void)state;
    expect_setting_error(
        "wal", "segment_size: 64MB",
        "`wal.segment_size` has an unknown unit in `64MB`; units are KiB, MiB, GiB, TiB, or none for "
        "bytes; did you mean `MiB`?");
    expect_setting_error("wal", "segment_size: 512KiB",
                         "`wal.segment_size` must be between 1MiB and 1GiB, not `512KiB`");
    expect_setting_error("wal", "segment_size: 99999999999999999999MiB",
                         "`wal.segment_size` must be between 1MiB and 1GiB, not `99999999999999999999MiB`");
    expect_setting_error("wal", "segment_size: 18014398509481985KiB", /* 2^54 + 1 KiB: 1 KiB past 2^64 */
                         "`wal.segment_size` must be between 1MiB and 1GiB, not `18014398509481985KiB`");
    expect_setting_error("wal", "segment_size: large",
                         "`wal.segment_size` must be a size such as 64MiB, not `large`");
    expect_setting_error("wal", "segment_size: -1",
                         "`wal.segment_size` must be a size such as 64MiB, not `-1`");
    expect_setting_error("wal", "segment_size: [1]", "`wal.segment_size` must be a value, not a list");
    expect_setting_error(
        "wal", "commit_delay: 5sec",
        "`wal.commit_delay` has an unknown unit in `5sec`; units are ns, us, ms, s, m, h, d");
    expect_setting_error("wal", "commit_delay: 1s",
                         "`wal.commit_delay` must be between 0 and 100ms, not `1s`");
    expect_setting_error("link", "sessions: 16x", "`link.sessions` must be a plain number, not `16x`");
    expect_setting_error("link", "sessions: 1.5", "`link.sessions` must be a plain number, not `1.5`");
    expect_setting_error("log", "level: warning",
                         "`log.level` must be debug, info, warn or error, not `warning`");
    expect_setting_error("log", "level: wran",
                         "`log.level` must be debug, info, warn or error, not `wran`; did you mean `warn`?");
}

static void test_wrong_kinds_are_named(void **state)
{
    (void)state;
    expect_errors("- a\n", "c.yaml:1:1: the file must be a map, not a list\n");
    expect_errors("cluster: demo\n", "c.yaml:1:10: `cluster` must be a map, not a value\n");
    expect_errors("cluster: {name: [x], nodes: n1}\n", "c.yaml:1:17: `name` must be a value, not a list\n"
                                                       "c.yaml:1:29: `nodes` must be a list, not a value\n");
    expect_errors("cluster: {name: x, nodes: [n1]}\n", "c.yaml:1:28: a node must be a map, not a value\n");
    expect_errors("cluster: {name: x, nodes: []}\n", "c.yaml:1:27: `nodes` needs at least one node\n");
    expect_errors("data_dir: /x\n", "c.yaml:1:1: the file needs the key `cluster`\n");
    expect_errors(CLUSTER "supervisor: 3\n", "c.yaml:5:13: `supervisor` must be a map, not a value\n");
    expect_errors(CLUSTER "wal:\n", "c.yaml:5:5: `wal` is empty; it must be a map\n");
    expect_errors("", "c.yaml:1:1: the file is empty\n");
    expect_errors("# nothing\n", "c.yaml:1:1: the file is empty\n");
}

static void test_wrong_nodes_are_named(void **state)
{
    (void)state;
    expect_errors(
        "cluster:\n"
        "  name: a/b\n"
        "  nodes:\n"
        "    - {id: -x, host: h, port: 0}\n"
        "    - {id: y, host: a b, port: 65532}\n"
        "    - {id: z, host: '[::1]', port: 1, admin_port: 3}\n",
        "c.yaml:2:9: `name` may hold letters, digits, `-`, `_`, `.` and starts with a letter or digit, not "
        "`a/b`\n"
        "c.yaml:4:12: `id` may hold letters, digits, `-`, `_`, `.` and starts with a letter or digit, not "
        "`-x`\n"
        "c.yaml:4:31: `port` must be between 1 and 65531, not `0`\n"
        "c.yaml:5:21: `host` must be a host name, an IPv4 address or an IPv6 address in brackets, not `a b`\n"
        "c.yaml:5:32: `port` must be between 1 and 65531, not `65532`\n"
        "c.yaml:6:51: `admin_port` 3 lies within the node's ports 1 to 5\n");
}

static void test_ids_and_ports_that_collide_are_named(void **state)
{
    (void)state;
    expect_errors("cluster:\n"
                  "  name: x\n"
                  "  nodes:\n"
                  "    - {id: n1, host: h, port: 4000, admin_port: 9090}\n"
                  "    - {id: n1, host: g, port: 4000, admin_port: 9090}\n"
                  "    - {id: n3, host: H, port: 4004}\n"
                  "    - {id: n4, host: h, port: 4010, admin_port: 9090}\n"
                  "    - {id: n5, host: h, port: 4020, admin_port: 4002}\n"
                  "    - {id: n6, host: h, port: 4030}\n",
                  "c.yaml:5:12: the id `n1` is taken already in line 4\n"
                  "c.yaml:6:7: port 4004 of node `n3` is used by node `n1` too (line 4); a node needs `port` "
                  "to `port` + 4 "
                  "and `admin_port`\n"
                  "c.yaml:7:7: port 9090 of node `n4` is used by node `n1` too (line 4); a node needs `port` "
                  "to `port` + 4 "
                  "and `admin_port`\n"
                  "c.yaml:8:7: port 4002 of node `n5` is used by node `n1` too (line 4); a node needs `port` "
                  "to `port` + 4 "
                  "and `admin_port`\n");
}

static void test_wrong_directories_are_named(void **state)
{
    (void)state;
    expect_errors(CLUSTER "data_dir: var/x\nrun_dir: /r/%h\n",
                  "c.yaml:5:11: `data_dir` must be an absolute path, not `var/x`\n"
                  "c.yaml:6:10: `run_dir` holds `%h`; only `%n`, the id of the node, is known\n");
    expect_errors(CLUSTER "admin_token_file: token\n",
                  "c.yaml:5:19: `admin_token_file` must be an absolute path, not `token`\n");
    expect_errors(CLUSTER "data_dir: /a//b/\nrun_dir: /a/b\n",
                  "c.yaml:6:10: `run_dir` and `data_dir` must differ\n");
    expect_errors("cluster: {name: x, nodes: [{id: a, host: h, port: 1}, {id: b, host: h, port: 11}]}\n"
                  "data_dir: /d/%n\nrun_dir: /r\n",
                  "c.yaml:3:10: `run_dir` needs `%n` in it, because several nodes share a host\n");
}

/* The longest socket is run_dir/supervisor.sock: 107 bytes leave 91 for the directory. */
static void test_a_run_directory_fits_a_socket_to_the_byte(void **state)
{
    (void)state;
    char text[512], path[128];
    memset(path, 'r', sizeof path);
    path[0] = '/';
    path[91] = 0;
    snprintf(text, sizeof text, CLUSTER "run_dir: %s\n", path);
    expect_errors(text, "");
    path[91] = 'r';
    path[92] = 0;
    snprintf(text, sizeof text, CLUSTER "run_dir: %s\n", path);
    expect_errors(
        text,
        "c.yaml:5:10: `run_dir` of node `n1` is too long for a socket's 107 bytes: it has 92, and 91 are "
        "left beside `/supervisor.sock`\n");
    path[88] = 0; /* the same with the id of the node in it */
    snprintf(text, sizeof text, CLUSTER "run_dir: %s/%%nx\n", path);
    expect_errors(
        text,
        "c.yaml:5:10: `run_dir` of node `n1` is too long for a socket's 107 bytes: it has 92, and 91 are "
        "left beside `/supervisor.sock`\n");
}

static void test_an_unknown_node_is_named(void **state)
{
    (void)state;
    struct config c;
    struct buf errors = {0};
    assert_false(parse(CLUSTER, "n2", &c, &errors));
    assert_string_equal(buf_cstr(&errors), "c.yaml:4:5: there is no node `n2`; did you mean `n1`?\n");
    errors.len = 0;
    assert_false(parse(CLUSTER, "berlin", &c, &errors));
    assert_string_equal(buf_cstr(&errors), "c.yaml:4:5: there is no node `berlin`\n");
    buf_free(&errors);
}

static void test_wrong_trees_are_named(void **state)
{
    (void)state;
    expect_errors(CLUSTER "supervisor:\n"
                          "  intensity: many\n"
                          "  backoff: no\n"
                          "  children:\n"
                          "    - {service: a, restrat: temporary}\n"
                          "    - {service: a, restart: allways}\n"
                          "    - {servce: b}\n"
                          "    - {service: b, supervisor: b}\n"
                          "    - {supervisor: c}\n"
                          "    - {supervisor: root, children: []}\n"
                          "    - {service: d, program: bin/d, watchdog: 5ms}\n"
                          "    - walsvc\n",
                  "c.yaml:6:14: `intensity` must be a count such as 16, not `many`\n"
                  "c.yaml:7:12: `backoff` must be false or true, not `no`\n"
                  "c.yaml:9:20: unknown key `restrat` in a service; did you mean `restart`?\n"
                  "c.yaml:10:17: the name `a` is taken already in the tree\n"
                  "c.yaml:10:29: `restart` must be permanent, transient or temporary, not `allways`\n"
                  "c.yaml:11:7: a child needs the key `service` or `supervisor`; did you mean `service`?\n"
                  "c.yaml:12:7: a child is either a `service` or a `supervisor`, not both\n"
                  "c.yaml:13:7: a supervisor needs the key `children`\n"
                  "c.yaml:14:20: the name `root` is taken already in the tree\n"
                  "c.yaml:14:36: a supervisor needs at least one child\n"
                  "c.yaml:15:29: `program` must be a name or an absolute path, not `bin/d`\n"
                  "c.yaml:15:46: `watchdog` must be 0 (none) or at least 100ms\n"
                  "c.yaml:16:7: a child must be a map, not a value\n");
}

static void test_a_tree_has_a_bound(void **state)
{
    (void)state;
    struct buf text = {0};
    buf_append_str(&text, CLUSTER "supervisor:\n  children:\n");
    for (int i = 0; i < CONFIG_TREE_MAX + 5; i++)
        buf_printf(&text, "    - {service: s%d}\n", i);
    expect_errors(buf_cstr(&text), "c.yaml:70:7: more than 64 services and supervisors\n");
    buf_free(&text);
}

/* ------------------------------------------------------------ YAML itself */

static void test_yaml_that_could_grow_or_surprise_is_refused(void **state)
{
    (void)state;
    expect_errors("a: &x [1]\nb: *x\n", "c.yaml:1:4: anchors, aliases and tags are not supported\n");
    expect_errors("a: *x\n", "c.yaml:1:4: anchors, aliases and tags are not supported\n");
    expect_errors("a: !!int 3\n", "c.yaml:1:4: anchors, aliases and tags are not supported\n");
    expect_errors(CLUSTER "---\na: 1\n", "c.yaml:5:1: a second document starts here; one is expected\n");
    expect_errors(CLUSTER "log: {level: info}\nlog: {level: warn}\n",
                  "c.yaml:6:1: key `log` is given twice, first in line 5\n");
    expect_errors("? [a]\n: b\n", "c.yaml:1:3: a key must be a plain word\n");
    expect_errors("a: \"\\0\"\n", "c.yaml:1:4: a value cannot hold a NUL character\n");
}

static void test_a_syntax_error_has_its_place(void **state)
{
    (void)state;
    struct config c;
    struct buf errors = {0};
    assert_false(parse("cluster:\n  name: [x\nfoo: bar\n", NULL, &c, &errors));
    assert_memory_equal(buf_cstr(&errors), "c.yaml:3:", 9);
    errors.len = 0;
    assert_false(parse("cluster:\n  name: \xff\n", NULL, &c, &errors));
    assert_memory_equal(buf_cstr(&errors), "c.yaml:2:9: ", 12);
    buf_free(&errors);
}

/* A file of one repeated piece; what is said must hold this, and not take for ever. */
static void expect_refused(const char *head, const char *piece, size_t times, const char *tail,
                           const char *said)
{
    struct config c;
    struct buf text = {0}, errors = {0};
    buf_append_str(&text, head);
    for (size_t i = 0; i < times; i++)
        buf_append_str(&text, piece);
    buf_append_str(&text, tail);
    assert_false(config_parse("c.yaml", buf_slice(&text), NULL, &c, &errors));
    if (strstr(buf_cstr(&errors), said) == NULL)
        fail_msg("said: %.300s", (const char *)errors.data);
    buf_free(&text);
    buf_free(&errors);
}

static void test_hostile_files_meet_bounds(void **state)
{
    (void)state;
    expect_refused("a: ", "[", 500000, "", "nested too deeply");
    expect_refused("a: ", "{a: ", 100000, "", "nested too deeply");
    expect_refused("a:\n", "- x\n", 100000, "", "too many values in the file");
    expect_refused("cluster: {name: x, nodes: [{}", ", {}", 2000, "]}", "more than 1024 nodes");
    expect_refused("", "# 3456789\n", 110000, "", "larger than 1048576 bytes");
    struct buf keys = {0};
    for (int i = 0; i < 300; i++)
        buf_printf(&keys, "k%d: 1\n", i);
    expect_refused(buf_cstr(&keys), "", 0, "", "more than 256 keys in one map");
    keys.len = 0;
    for (int i = 0; i <= 256; i++)
        buf_printf(&keys, "%s{id: n%d, host: h%d, port: 4000, group: g%d}", i > 0 ? ", " : "", i, i, i);
    expect_refused("cluster: {name: x, nodes: [", buf_cstr(&keys), 1, "]}", "more than 256 groups");
    buf_free(&keys);
    expect_refused("cluster: {name: x, nodes: [{}", ", {bad: 1}", 400, "]}", "more problems");
}

/* ------------------------------------------------------------ files, showing, reloading */

static void test_a_file_that_cannot_be_read_is_named(void **state)
{
    (void)state;
    struct config c;
    struct buf errors = {0};
    assert_false(config_load("/nonexistent/c.yaml", NULL, &c, &errors));
    assert_string_equal(buf_cstr(&errors),
                        "/nonexistent/c.yaml: cannot be read: No such file or directory\n");
    errors.len = 0;
    assert_false(config_load("/tmp", NULL, &c, &errors));
    assert_string_equal(buf_cstr(&errors), "/tmp: cannot be read: Is a directory\n");
    buf_free(&errors);
}

static void test_a_file_is_loaded_whole(void **state)
{
    (void)state;
    char path[] = "/tmp/shconfXXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct buf text = {0}, errors = {0};
    while (text.len < 200000)
        buf_append_str(&text, "# a comment that fills the file\n");
    buf_append_str(&text, CLUSTER);
    assert_int_equal(write(fd, text.data, text.len), text.len);
    close(fd);
    struct config c;
    assert_true(config_load(path, "n1", &c, &errors));
    assert_string_equal(c.file, path);
    config_free(&c);
    unlink(path);
    buf_free(&text);
    buf_free(&errors);
}

static void test_what_is_shown_loads_again_and_shows_the_same(void **state)
{
    (void)state;
    struct config c =
        parse_good(CLUSTER "data_dir: '/d \"q\" \\ é/%n'\n"
                           "admin_token_file: '/t: x/%n'\n"
                           "wal: {segment_size: 8MiB, commit_delay: 1500us}\n"
                           "log: {level: debug}\n"
                           "supervisor:\n"
                           "  backoff: false\n"
                           "  children:\n"
                           "    - {service: a, program: /bin/x y, watchdog: 0}\n"
                           "    - {supervisor: s, period: 90s, children: [{supervisor: t, children: "
                           "[{service: b}]}]}\n"
                           "    - {service: c}\n",
                   NULL);
    struct buf once = {0}, again = {0};
    config_show(&c, &once);
    struct config shown = parse_good(buf_cstr(&once), NULL);
    config_show(&shown, &again);
    assert_string_equal(buf_cstr(&once), buf_cstr(&again));
    assert_non_null(strstr(buf_cstr(&once), "segment_size: 8MiB"));
    assert_non_null(strstr(buf_cstr(&once), "commit_delay: 1500us"));
    assert_string_equal(shown.data_dir, c.data_dir);
    assert_string_equal(shown.admin_token_file, c.admin_token_file);
    assert_int_equal(shown.tree_count, c.tree_count);
    config_free(&c);
    config_free(&shown);
    buf_free(&once);
    buf_free(&again);
}

static void test_a_reload_takes_what_may_change_and_names_the_rest(void **state)
{
    (void)state;
    struct config c = parse_good(CLUSTER, "n1");
    struct config fresh =
        parse_good("cluster:\n  name: demo\n  nodes:\n    - {id: n1, host: 127.0.0.1, port: 5000}\n"
                   "log: {level: error}\nwal: {segment_size: 8MiB, commit_delay: 2ms}\n"
                   "run_dir: /r/%n\nadmin_token_file: /t\nsupervisor: {intensity: 3}\n",
                   "n1");
    struct buf ignored = {0};
    config_reload(&c, &fresh, &ignored);
    assert_int_equal(c.settings.log_level, LOG_ERROR);
    assert_int_equal(c.settings.wal_commit_delay, 2 * NS_PER_MS);
    assert_int_equal(c.settings.wal_segment_size, 64 << 20);
    assert_string_equal(buf_cstr(&ignored),
                        "wal.segment_size, cluster.nodes, run_dir, admin_token_file, supervisor");
    ignored.len = 0;
    config_free(&fresh);
    fresh = parse_good(CLUSTER, "n1");
    config_reload(&c, &fresh, &ignored);
    assert_string_equal(buf_cstr(&ignored), "");
    assert_int_equal(c.settings.log_level, LOG_INFO);
    config_free(&fresh);
    config_free(&c);
    buf_free(&ignored);
}

static void test_near_words_are_found_and_far_ones_not(void **state)
{
    (void)state;
    static const char *const words[] = {"port", "admin_port", "host", "id"};
    assert_string_equal(doc_nearest("prot", words, 4), "port");
    assert_string_equal(doc_nearest("adminport", words, 4), "admin_port");
    assert_string_equal(doc_nearest("di", words, 4), "id");
    assert_null(doc_nearest("x", words, 4));
    assert_null(doc_nearest("", words, 4));
    assert_null(doc_nearest("replication", words, 4));
}

static void test_times_of_membership_must_go_together(void **state)
{
    (void)state;
    expect_errors(CLUSTER "member: {heartbeat_interval: 500ms, suspect_after: 1s, down_after: 1100ms}\n", "");
    expect_errors(CLUSTER "member: {heartbeat_interval: 500ms, suspect_after: 999ms, down_after: 5s}\n",
                  "c.yaml:5:52: `member.suspect_after` must be at least two heartbeat intervals: 1s\n");
    expect_errors(CLUSTER "member: {heartbeat_interval: 6s}\n",
                  "c.yaml:5:30: `member.suspect_after` must be at least two heartbeat intervals: 12s\n");
    expect_errors(CLUSTER "member:\n  suspect_after: 15s\n",
                  "c.yaml:6:18: `member.down_after` must be at least `member.suspect_after` and a fifth of a "
                  "heartbeat interval: 16s\n");
    expect_errors(CLUSTER "member: {down_after: 10999ms}\n",
                  "c.yaml:5:22: `member.down_after` must be at least `member.suspect_after` and a fifth of a "
                  "heartbeat interval: 11s\n");
    expect_errors(CLUSTER "member: {heartbeat_interval: 5001ms, down_after: 11s}\n",
                  "c.yaml:5:30: `member.suspect_after` must be at least two heartbeat intervals: 10002ms\n"
                  "c.yaml:5:50: `member.down_after` must be at least `member.suspect_after` and a fifth of a "
                  "heartbeat interval: 11000200us\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_minimal_file_gets_all_defaults),
        cmocka_unit_test(test_the_default_tree_runs_all_services),
        cmocka_unit_test(test_times_of_membership_must_go_together),
        cmocka_unit_test(test_settings_take_units),
        cmocka_unit_test(test_a_nested_tree_keeps_its_order),
        cmocka_unit_test(test_root_settings_alone_keep_the_default_children),
        cmocka_unit_test(test_directories_get_the_id_of_the_node),
        cmocka_unit_test(test_the_cluster_id_hangs_on_name_and_groups_only),
        cmocka_unit_test(test_everything_wrong_is_reported_at_once_in_order),
        cmocka_unit_test(test_a_number_beyond_64_bits_is_in_no_range),
        cmocka_unit_test(test_wrong_settings_are_named),
        cmocka_unit_test(test_wrong_kinds_are_named),
        cmocka_unit_test(test_wrong_nodes_are_named),
        cmocka_unit_test(test_ids_and_ports_that_collide_are_named),
        cmocka_unit_test(test_wrong_directories_are_named),
        cmocka_unit_test(test_a_run_directory_fits_a_socket_to_the_byte),
        cmocka_unit_test(test_an_unknown_node_is_named),
        cmocka_unit_test(test_wrong_trees_are_named),
        cmocka_unit_test(test_a_tree_has_a_bound),
        cmocka_unit_test(test_yaml_that_could_grow_or_surprise_is_refused),
        cmocka_unit_test(test_a_syntax_error_has_its_place),
        cmocka_unit_test(test_hostile_files_meet_bounds),
        cmocka_unit_test(test_a_file_that_cannot_be_read_is_named),
        cmocka_unit_test(test_a_file_is_loaded_whole),
        cmocka_unit_test(test_what_is_shown_loads_again_and_shows_the_same),
        cmocka_unit_test(test_a_reload_takes_what_may_change_and_names_the_rest),
        cmocka_unit_test(test_near_words_are_found_and_far_ones_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
