/* group of: which replication group holds a key or a stream, and where its nodes are. */
#include "cmd.h"

#include <string.h>

static void print_json(const char *name, bool is_stream, const struct sh_group *group)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_bytes(&j, is_stream ? "stream" : "key", slice_str(name));
    json_text(&j, "group", group->name);
    json_bool(&j, "here", group->here);
    json_open(&j, "endpoints", '[');
    for (size_t i = 0; i < group->endpoint_count; i++)
        json_text(&j, NULL, group->endpoints[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    json_print(&j);
}

static void print_text(const struct ctl *ctl, const struct sh_group *group)
{
    struct buf endpoints = {0};
    for (size_t i = 0; i < group->endpoint_count; i++) {
        buf_append_str(&endpoints, i > 0 ? ", " : "");
        ctl_safe(&endpoints, slice_str(group->endpoints[i]));
    }
    ctl_line(ctl, "group", "%s%s", group->name, group->here ? " (that of the node that was asked)" : "");
    ctl_line(ctl, "nodes", "%s", buf_cstr(&endpoints));
    buf_free(&endpoints);
}

static int run_of(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_group group;
    const char *name = ctl->values[0];
    bool is_stream = ctl_has(ctl, "stream");
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e =
        sh_group_of(client, is_stream ? SH_GROUP_STREAM : SH_GROUP_KEY, name, strlen(name), &group);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "group of", e, sh_last_error_detail());
    else if (ctl->format == CTL_JSON)
        print_json(name, is_stream, &group);
    else
        print_text(ctl, &group);
    sh_group_free(&group);
    sh_close(client);
    return code;
}

static const struct ctl_option of_options[] = {
    {"stream", 's', CTL_FLAG, NULL, "NAME is that of a stream, not a key", 0, 0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_group_of = {
    .name = "group of",
    .values = "NAME",
    .summary = "Which replication group holds a key or a stream",
    .more =
        "And the endpoints of the group's nodes, those that are up first, as the node at the endpoint sees\n"
        "them. Any node of the cluster knows; all other commands go to the right group by themselves.",
    .options = of_options,
    .values_least = 1,
    .values_most = 1,
    .run = run_of,
};
