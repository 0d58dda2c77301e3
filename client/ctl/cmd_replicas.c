/* replicas: which logs a node follows, who follows its own, and how far each copy is. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

#include "json_cluster.h"

enum { CLOSED_SHOWN = 20 };

/* The node's own log, while it is fetched back; NULL: it isn't. */
static const struct sh_replica *own_of(const struct sh_replicas *r)
{
    for (size_t i = 0; i < r->followed_count; i++)
        if (memcmp(r->followed[i].log, r->log, sizeof r->log) == 0)
            return &r->followed[i];
    return NULL;
}

static void print_json(const struct sh_replicas *r)
{
    struct json_writer j = {0};
    json_replicas(&j, r);
    json_print(&j);
}

/* ---------------------------------------------------------------- text */

static const char *style_of(const struct ctl *ctl, enum sh_replica_state state)
{
    if (state == SH_REPLICA_STREAMING)
        return ctl_style(ctl, CTL_GREEN);
    if (state == SH_REPLICA_DISCONNECTED || state == SH_REPLICA_FORKED)
        return ctl_style(ctl, CTL_RED);
    return ctl_style(ctl, CTL_YELLOW);
}

static void safe_cell(struct ctl_table *table, const char *text)
{
    struct buf safe = {0};
    ctl_safe(&safe, slice_str(text));
    ctl_table_cell(table, "%s", buf_cstr(&safe));
    buf_free(&safe);
}

/* The member whose log it is; of one that is no member now, its uuid. */
static void log_cell(struct ctl_table *table, const struct sh_replica *r)
{
    struct id16 log;
    char uuid[ID_TEXT];
    memcpy(log.bytes, r->log, sizeof log.bytes);
    id16_format(log, uuid);
    safe_cell(table, r->origin[0] != 0 ? r->origin : uuid);
}

static void place_cells(const struct ctl *ctl, struct ctl_table *table, const struct sh_replica *r)
{
    char text[CTL_TEXT_MAX];
    if (r->closed)
        ctl_table_cell(table, "closed");
    else
        ctl_table_cell(table, "%s%s%s", style_of(ctl, r->state), sh_replica_state_name(r->state),
                       ctl_style(ctl, CTL_PLAIN));
    ctl_table_cell(table, "%" PRIu64, r->lsn);
    ctl_table_cell(table, "%" PRIu64, r->end);
    ctl_table_cell(table, "%" PRIu64, r->lag_entries);
    ctl_table_cell(table, "%s", ctl_bytes(r->lag_bytes, text));
    ctl_table_cell(table, "%s", r->lag_bytes > 0 ? ctl_age((int64_t)r->lag_ms, text) : "-");
    ctl_table_cell(table, "%s", ctl_age(r->seen_ms, text));
}

static void add_followed(const struct ctl *ctl, struct ctl_table *table, const char *node,
                         const struct sh_replica *r)
{
    char credit[CTL_TEXT_MAX];
    log_cell(table, r);
    safe_cell(table, node);
    safe_cell(table, r->peer[0] != 0 ? r->peer : "-");
    place_cells(ctl, table, r);
    ctl_table_cell(table, "%s", ctl_bytes(r->credit, credit));
    ctl_table_cell(table, "%" PRIu64, r->retries);
}

/* Where it has the log from, with what credit, only the follower knows. */
static void add_follower(const struct ctl *ctl, struct ctl_table *table, const struct sh_replica *r)
{
    log_cell(table, r);
    safe_cell(table, r->peer);
    ctl_table_cell(table, "-");
    place_cells(ctl, table, r);
    ctl_table_cell(table, "-");
    ctl_table_cell(table, "-");
}

/* The last ones; JSON has all. */
static void print_closed(const struct ctl *ctl, const struct sh_replicas *r)
{
    static const char *const heads[] = {"closed log", ">LSN", ">position", "dropped here"};
    struct ctl_table table;
    size_t first = r->closed_count > CLOSED_SHOWN ? r->closed_count - CLOSED_SHOWN : 0;
    if (r->closed_count == 0)
        return;
    puts("");
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    for (size_t i = first; i < r->closed_count; i++) {
        const struct sh_closed_log *c = &r->closed[i];
        struct id16 log;
        char uuid[ID_TEXT], when[CTL_TEXT_MAX];
        memcpy(log.bytes, c->log, sizeof log.bytes);
        id16_format(log, uuid);
        ctl_table_cell(&table, "%s", uuid);
        ctl_table_cell(&table, "%" PRIu64, c->lsn);
        ctl_table_cell(&table, "%" PRIu64, c->end);
        ctl_table_cell(&table, "%s", ctl_time(c->dropped_ns, when));
    }
    ctl_table_print(ctl, &table);
}

static void print_text(const struct ctl *ctl, const struct sh_replicas *r)
{
    static const char *const heads[] = {"log of",    "follower",        "from",   "state", ">LSN",
                                        ">position", ">entries behind", ">bytes", ">for",  ">heard",
                                        ">credit",   ">retries"};
    struct ctl_table table;
    char durable[CTL_TEXT_MAX], quorum[CTL_TEXT_MAX], all[CTL_TEXT_MAX];
    if (r->follower_count == 0)
        printf("nobody follows the log of %s: durable to LSN %s\n", r->node,
               ctl_grouped(r->durable_lsn, durable));
    else
        printf("the log of %s: durable here to LSN %s, on a majority to %s, on all to %s\n", r->node,
               ctl_grouped(r->durable_lsn, durable), ctl_grouped(r->quorum_lsn, quorum),
               ctl_grouped(r->all_lsn, all));
    if (own_of(r) != NULL)
        printf(
            "the log of %s is behind its copies, or on another chain: it is fetched back (%s), and goes on "
            "by itself\n",
            r->node, sh_replica_state_name(own_of(r)->state));
    if (r->follower_count + r->followed_count == 0)
        return;
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    for (size_t i = 0; i < r->follower_count; i++)
        add_follower(ctl, &table, &r->followers[i]);
    for (size_t i = 0; i < r->followed_count; i++)
        add_followed(ctl, &table, r->node, &r->followed[i]);
    ctl_table_print(ctl, &table);
}

void ctl_print_replicas(const struct ctl *ctl, const struct sh_replicas *replicas)
{
    if (ctl->format == CTL_JSON)
        print_json(replicas);
    else {
        print_text(ctl, replicas);
        print_closed(ctl, replicas);
    }
}

static int run_replicas(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_replicas replicas;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_replicas(client, &replicas);
    if (e != SH_OK) {
        code = ctl_fail_member(ctl, NULL, e);
    } else {
        ctl_print_replicas(ctl, &replicas);
        sh_replicas_free(&replicas);
    }
    sh_close(client);
    return code;
}

const struct ctl_command cmd_replicas = {
    .name = "replicas",
    .values = "",
    .summary = "Who follows which log, and how far each copy is",
    .more = "As the node knows it that is asked: its own log at the other members of its group, then the\n"
            "copies that it keeps. Columns: the member whose log it is, who has the copy and from whom,\n"
            "state, durable LSN and position (bytes) of the copy, entries and bytes that it is behind and\n"
            "since when it was not caught up, the last word of it, credit (bytes that it would take now),\n"
            "and fetches that failed or led to nothing. A log that nobody extends any more, and that all of\n"
            "the group hold to its end, is closed; those that were dropped since are listed below. While\n"
            "the node's own log is fetched back, it is one of these copies.",
    .reads = true,
    .run = run_replicas,
};
