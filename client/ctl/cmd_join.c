/* node join and node leave: who belongs to the cluster. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

#include "json_cluster.h"

/* When it is a daemon of the node that is away. */
static const char *tree_advice(const char *detail)
{
    bool is_daemon = strncmp(detail, "membersvc", 9) == 0 || strncmp(detail, "replsvc", 7) == 0;
    return is_daemon ? "; `shanghaictl svc tree` shows why" : "";
}

/* What to do about a refusal, behind what the node says; "" when that says it. */
static const char *advice(enum sh_error error, const char *detail, bool leaves)
{
    switch (error) {
    case SH_ALREADY_MEMBER:
        return " (when its disk was lost; a node that only moved or started again needs no join)";
    case SH_NOT_MEMBER:
        return leaves ? "; `shanghaictl nodes` shows who is one" : "; use the --endpoint of a member";
    case SH_CONFLICT:
        return leaves ? "; to stop it, use `shanghaictl shutdown`"
                      : "; `shanghaictl nodes` shows all addresses";
    case SH_FORBIDDEN:
        return "; run this on a member's own host, with its ipc endpoint";
    case SH_UNAVAILABLE:
        if (strstr(detail, "does not belong") != NULL)
            return "; use the --endpoint of a member, or see `shanghaictl nodes` for what it waits for";
        if (strstr(detail, "was lost") != NULL)
            return ": it may have been done; `shanghaictl nodes` shows it";
        return tree_advice(detail);
    case SH_TIMEOUT:
        return "; it may have been done: `shanghaictl nodes` shows it";
    default:
        return "";
    }
}

static bool is_answer(enum sh_error error)
{
    return error == SH_ALREADY_MEMBER || error == SH_NOT_MEMBER || error == SH_CONFLICT ||
           error == SH_TOO_LARGE;
}

int ctl_fail_member(const struct ctl *ctl, const char *id, enum sh_error error)
{
    struct buf text = {0}, what = {0};
    const char *detail = sh_last_error_detail(), *name = ctl->command->name;
    bool reached = detail[0] != 0 && strcmp(detail, "the node cannot be reached") != 0 && error != SH_TIMEOUT;
    bool changes = id != NULL;
    int code;
    buf_printf(&what, "%s%s%s", name, changes ? " " : "", changes ? id : "");
    buf_printf(&text, "%s%s", detail,
               changes                   ? advice(error, detail, strcmp(name, "node leave") == 0)
               : error == SH_UNAVAILABLE ? tree_advice(detail)
                                         : "");
    if (reached)
        code = ctl_fail_text(ctl, buf_cstr(&what), error, buf_cstr(&text));
    else
        code = ctl_fail_node(ctl, buf_cstr(&what), error, buf_cstr(&text));
    buf_free(&text);
    buf_free(&what);
    return changes && is_answer(error) ? CTL_NO : code;
}

/* ---------------------------------------------------------------- join */

static void print_join(const struct ctl *ctl, const char *id, bool replace, uint64_t generation)
{
    struct json_writer j = {0};
    if (ctl->format == CTL_JSON) {
        json_joined(&j, id, generation);
        json_print(&j);
        return;
    }
    printf("%s joins (generation %" PRIu64 ")%s\n", id, generation,
           replace ? ": the first other identity that comes takes its place" : "");
    printf("start it with a topology file that names itself and a member; `shanghaictl nodes` shows when it "
           "is up\n");
}

static int run_join(struct ctl *ctl)
{
    struct sh_client *client;
    uint64_t generation;
    struct sh_join_options join = {
        .id = ctl->values[0],
        .host = ctl_word(ctl, "host", NULL),
        .port = (uint16_t)ctl_number(ctl, "port", 0),
        .admin_port = (uint16_t)ctl_number(ctl, "admin-port", 0),
        .group = ctl_word(ctl, "group", NULL),
        .replace = ctl_has(ctl, "replace"),
    };
    if (!join.replace && (join.host == NULL || join.port == 0))
        return ctl_usage(ctl, "node join: --host and --port say where %s listens%s", join.id,
                         join.host == NULL && join.port == 0 ? "" : ": give both");
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_node_join(client, &join, &generation);
    if (e == SH_OK)
        print_join(ctl, join.id, join.replace, generation);
    else
        code = ctl_fail_member(ctl, join.id, e);
    sh_close(client);
    return code;
}

static const struct ctl_option join_options[] = {
    {"host", 'H', CTL_WORD, "H", "where the node listens; with --replace, as before without it", 0, 0},
    {"port", 'p', CTL_NUMBER, "P", "the first of its five ports; with --replace, as before without it", 1,
     65531},
    {"admin-port", 'a', CTL_NUMBER, "P", "port of its admin HTTP API; 0 for none", 0, 65535},
    {"group", 'g', CTL_WORD, "G", "its replication group; `default` without it", 0, 0},
    {"replace", 'r', CTL_FLAG, NULL, "a new identity takes the place of the member, whose disk was lost", 0,
     0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_node_join = {
    .name = "node join",
    .values = "ID",
    .summary = "Make a node a member of the cluster",
    .more =
        "Asked of a member, on its own host. Then start the node; its topology file names itself and one\n"
        "member at least. A node that left joins again like a new one. Exit 1 when it can't be: it is a\n"
        "member already, or another one has that address.",
    .options = join_options,
    .values_least = 1,
    .values_most = 1,
    .run = run_join,
};

/* ---------------------------------------------------------------- leave */

static void print_leave(const struct ctl *ctl, const char *id, const struct sh_leave_result *left)
{
    struct id16 log;
    char uuid[ID_TEXT];
    memcpy(log.bytes, left->log, sizeof log.bytes);
    if (ctl->format == CTL_JSON) {
        struct json_writer j = {0};
        json_left(&j, id, left);
        json_print(&j);
        return;
    }
    id16_format(log, uuid);
    printf("%s has left the cluster; it takes no writes any more once it hears of it\n", id);
    if (left->only_first > 0)
        printf("%sLSN %" PRIu64 " to %" PRIu64 " of its log %s are held by no other member that is known: "
               "keep its data%s\n",
               ctl_style(ctl, CTL_YELLOW), left->only_first, left->only_last, uuid,
               ctl_style(ctl, CTL_PLAIN));
    else if (!id16_is_zero(log))
        printf("no entry of its log %s is known that only it holds\n", uuid);
}

static int run_leave(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_leave_result left;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_node_leave(client, ctl->values[0], &left);
    if (e == SH_OK)
        print_leave(ctl, ctl->values[0], &left);
    else
        code = ctl_fail_member(ctl, ctl->values[0], e);
    sh_close(client);
    return code;
}

const struct ctl_command cmd_node_leave = {
    .name = "node leave",
    .values = "ID",
    .summary = "Take a node out of the cluster",
    .more =
        "Asked of a member, on its own host. Names the entries of its log that only that node is known to\n"
        "hold. Exit 1 when it is no member, or the last one.",
    .values_least = 1,
    .values_most = 1,
    .run = run_leave,
};
