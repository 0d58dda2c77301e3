/* nodes: who is in the cluster, and how they are, as one node sees it. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

#include "json_cluster.h"

static void print_json(const struct sh_nodes *nodes)
{
    struct json_writer j = {0};
    json_nodes(&j, nodes);
    json_print(&j);
}

/* ---------------------------------------------------------------- text */

const char *ctl_status_style(const struct ctl *ctl, enum sh_node_status status)
{
    if (status == SH_NODE_UP)
        return ctl_style(ctl, CTL_GREEN);
    if (status == SH_NODE_DOWN || status == SH_NODE_MUST_REJOIN)
        return ctl_style(ctl, CTL_RED);
    return status == SH_NODE_LEFT ? "" : ctl_style(ctl, CTL_YELLOW);
}

static void safe_cell(struct ctl_table *table, const char *text)
{
    struct buf safe = {0};
    ctl_safe(&safe, slice_str(text));
    ctl_table_cell(table, "%s", buf_cstr(&safe));
    buf_free(&safe);
}

static void clock_cell(const struct ctl *ctl, struct ctl_table *table, const struct sh_node *n)
{
    char age[CTL_TEXT_MAX];
    int64_t apart_ms = n->ahead_ms < 0 ? -n->ahead_ms : n->ahead_ms;
    if (n->self || n->heard_ms < 0)
        ctl_table_cell(table, "-");
    else if (apart_ms < 1000)
        ctl_table_cell(table, "%+dms", (int)n->ahead_ms);
    else
        ctl_table_cell(table, "%s%s%s%s", ctl_style(ctl, n->drifting ? CTL_RED : ""),
                       n->ahead_ms < 0 ? "-" : "+", ctl_age(apart_ms, age),
                       ctl_style(ctl, n->drifting ? CTL_PLAIN : ""));
}

/* The last entry of its own log that it told of. */
static void lsn_cell(struct ctl_table *table, const struct sh_node *n)
{
    for (size_t i = 0; i < n->watermark_count; i++)
        if (memcmp(n->watermarks[i].log, n->log, sizeof n->log) == 0) {
            ctl_table_cell(table, "%" PRIu64, n->watermarks[i].lsn);
            return;
        }
    ctl_table_cell(table, "-");
}

static void add_row(const struct ctl *ctl, struct ctl_table *table, const struct sh_node *n)
{
    char age[CTL_TEXT_MAX], address[300];
    int64_t since_ms = clock_real_ns() / NS_PER_MS - n->since_ms;
    const char *note = n->self          ? "this node"
                       : n->unreachable ? "unreachable from here, while others reach it"
                       : n->drifting    ? "its clock is too far away"
                                        : "";
    snprintf(address, sizeof address, "%s:%u", n->host, (unsigned)n->port);
    safe_cell(table, n->id);
    ctl_table_cell(table, "%s%s%s", ctl_status_style(ctl, n->status), sh_node_status_name(n->status),
                   n->status == SH_NODE_LEFT ? "" : ctl_style(ctl, CTL_PLAIN));
    ctl_table_cell(table, "%s", ctl_age(since_ms > 0 ? since_ms : 0, age));
    ctl_table_cell(table, "%s", ctl_age(n->heard_ms, age));
    safe_cell(table, address);
    safe_cell(table, n->group);
    ctl_table_cell(table, "%" PRIu64 ".%" PRIu64, n->generation, n->incarnation);
    clock_cell(ctl, table, n);
    lsn_cell(table, n);
    ctl_table_cell(table, "%s", note);
}

void ctl_print_nodes(const struct ctl *ctl, const struct sh_nodes *nodes, bool with_left)
{
    static const char *const heads[] = {"node",  "status",     ">for",   ">heard", "address",
                                        "group", ">gen.incar", ">clock", ">LSN",   ""};
    struct ctl_table table;
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    for (size_t i = 0; i < nodes->node_count; i++)
        if (with_left || nodes->nodes[i].status != SH_NODE_LEFT)
            add_row(ctl, &table, &nodes->nodes[i]);
    ctl_table_print(ctl, &table);
}

static void print_text(const struct ctl *ctl, const struct sh_nodes *nodes)
{
    struct buf text = {0};
    bool good = nodes->state == SH_STATE_MEMBER;
    ctl_safe(&text, slice_str(nodes->text));
    printf("cluster %s, as %s sees it\n", nodes->cluster, nodes->node);
    if (!good)
        printf("%s%s is %s%s: %s\n", ctl_style(ctl, CTL_RED), nodes->node, sh_node_state_name(nodes->state),
               ctl_style(ctl, CTL_PLAIN), buf_cstr(&text));
    if (nodes->only_first > 0)
        printf("LSN %" PRIu64 " to %" PRIu64 " of its log are held by no member that is known\n",
               nodes->only_first, nodes->only_last);
    buf_free(&text);
    ctl_print_nodes(ctl, nodes, true);
}

static int run_nodes(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_nodes nodes;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_nodes(client, &nodes);
    if (e != SH_OK) {
        code = ctl_fail_member(ctl, NULL, e);
    } else {
        if (ctl->format == CTL_JSON)
            print_json(&nodes);
        else
            print_text(ctl, &nodes);
        sh_nodes_free(&nodes);
    }
    sh_close(client);
    return code;
}

const struct ctl_command cmd_nodes = {
    .name = "nodes",
    .values = "",
    .summary = "Who is in the cluster, and how each node is",
    .more = "As the node sees it that is asked, those that left included. Columns: how long it has its\n"
            "status (by the clock of who set it), when it was last heard from directly, address,\n"
            "replication group, how often its id was joined and itself started, how far its clock is\n"
            "from that of the node that answers, and the last durable LSN of its own log that it told of.",
    .reads = true,
    .run = run_nodes,
};
