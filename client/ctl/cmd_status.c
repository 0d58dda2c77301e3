/* status: how the node is, and its cluster as it sees it. */
#include "cmd.h"

#include <string.h>

#include "json_cluster.h"

/* What was asked of the node. */
struct answers {
    struct sh_status status;
    struct sh_nodes nodes;
    struct sh_replicas replicas;
    bool has_nodes, has_replicas; /* membersvc, replsvc answered */
    struct sh_health health;
};

static void print_json(const struct answers *a)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_status_fields(&j, &a->status, &a->health, a->has_nodes ? &a->nodes : NULL);
    json_close(&j, '}');
    json_print(&j);
}

static void print_health(const struct ctl *ctl, const struct sh_health *health)
{
    static const char *const styles[] = {CTL_GREEN, CTL_YELLOW, CTL_RED};
    ctl_line(ctl, "health", "%s%s%s", ctl_style(ctl, styles[health->level]), sh_health_name(health->level),
             ctl_style(ctl, CTL_PLAIN));
    for (size_t i = 0; i < health->reason_count; i++) {
        struct buf text = {0};
        ctl_safe(&text, slice_str(health->reasons[i]));
        printf("  %s\n", buf_cstr(&text));
        buf_free(&text);
    }
}

static void print_text(const struct ctl *ctl, const struct answers *a)
{
    static const char *const writes[] = {"yes", "no: the disk is full", "no: the node is read-only",
                                         "no: walsvc does not answer"};
    const struct sh_status *s = &a->status;
    struct id16 log;
    char uuid[ID_TEXT], x[CTL_TEXT_MAX], y[CTL_TEXT_MAX];
    memcpy(log.bytes, s->log, sizeof log.bytes);
    id16_format(log, uuid);
    print_health(ctl, &a->health);
    ctl_line(ctl, "node", "%s of cluster %s, version %s", s->node, s->cluster, s->version);
    ctl_line(ctl, "log", "%s", uuid);
    ctl_line(ctl, "writes", "%s%s%s", ctl_style(ctl, s->writable ? CTL_GREEN : CTL_RED), writes[s->writes],
             ctl_style(ctl, CTL_PLAIN));
    ctl_line(ctl, "entries", "LSN %s to %s", ctl_grouped(s->first_lsn, x), ctl_grouped(s->durable_lsn, y));
    ctl_line(ctl, "on disk", "%s in %u segment%s", ctl_bytes(s->disk_bytes, x), s->segments,
             s->segments == 1 ? "" : "s");
    ctl_line(ctl, "up", "%s, %u client%s", ctl_duration((int64_t)s->uptime_ms * NS_PER_MS, x), s->clients,
             s->clients == 1 ? "" : "s");
    if (!a->has_nodes)
        return;
    putchar('\n');
    ctl_print_nodes(ctl, &a->nodes, false);
}

/* Without membersvc and replsvc the status is shown all the same. */
static enum sh_error ask(struct sh_client *client, struct answers *a)
{
    enum sh_error e = sh_status(client, &a->status);
    if (e != SH_OK)
        return e;
    a->has_nodes = sh_nodes(client, &a->nodes) == SH_OK;
    a->has_replicas = sh_replicas(client, &a->replicas) == SH_OK;
    sh_health(&a->status, a->has_nodes ? &a->nodes : NULL, a->has_replicas ? &a->replicas : NULL, &a->health);
    return SH_OK;
}

static int run_status(struct ctl *ctl)
{
    struct sh_client *client;
    struct answers a = {0};
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = ask(client, &a);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "status", e, sh_last_error_detail());
    else if (ctl->format == CTL_JSON)
        print_json(&a);
    else
        print_text(ctl, &a);
    sh_health_free(&a.health);
    sh_nodes_free(&a.nodes);
    sh_replicas_free(&a.replicas);
    sh_close(client);
    return code;
}

const struct ctl_command cmd_status = {
    .name = "status",
    .values = "",
    .summary = "How the node and its cluster are",
    .more =
        "unavailable: this node takes no writes. degraded: it does, but it is no member yet, some node is\n"
        "not up or not reached from here, a clock is too far away, or a copy of a log is forked, silent or\n"
        "far behind. healthy: otherwise. A line for each reason. Exit 0 whatever it is.",
    .reads = true,
    .run = run_status,
};
