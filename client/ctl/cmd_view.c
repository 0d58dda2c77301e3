/* view: how far the node has applied the logs, and a digest by which nodes can be compared. */
#include "cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- view info */

/* Of the member whose log it is; NULL: of none, as far as is known. */
static const char *origin_of(const struct sh_nodes *nodes, const uint8_t log[16])
{
    for (size_t i = 0; i < nodes->node_count; i++)
        if (memcmp(nodes->nodes[i].log, log, sizeof nodes->nodes[i].log) == 0)
            return nodes->nodes[i].id;
    return NULL;
}

static uint64_t behind(const struct sh_view_log *l)
{
    return l->durable_lsn > l->applied_lsn ? l->durable_lsn - l->applied_lsn : 0;
}

static const char *const states[] = {"following", "rebuilding", "lacking", "fetching", "installing"};

static void info_json(const struct sh_view_info *info, const struct sh_nodes *nodes)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_bool(&j, "opened", info->opened);
    json_text(&j, "error", info->error);
    json_text(&j, "state", states[info->state]);
    json_uint(&j, "percent", info->percent);
    json_text(&j, "peer", info->peer);
    json_uint(&j, "fetched_bytes", info->fetched_bytes);
    json_uint(&j, "fetched_rows", info->fetched_rows);
    json_text(&j, "lacks", info->lacks);
    json_uint(&j, "rows", info->rows);
    json_open(&j, "logs", '[');
    for (size_t i = 0; i < info->log_count; i++) {
        const struct sh_view_log *l = &info->logs[i];
        const char *origin = origin_of(nodes, l->log);
        json_open(&j, NULL, '{');
        json_uuid(&j, "log", l->log);
        if (origin != NULL)
            json_text(&j, "origin", origin);
        else
            json_null(&j, "origin");
        json_uint(&j, "applied_lsn", l->applied_lsn);
        json_uint(&j, "flushed_lsn", l->flushed_lsn);
        json_uint(&j, "durable_lsn", l->durable_lsn);
        json_uint(&j, "behind", behind(l));
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_close(&j, '}');
    json_print(&j);
}

static void print_state(const struct ctl *ctl, const struct sh_view_info *info)
{
    char rows[CTL_TEXT_MAX], bytes[CTL_TEXT_MAX];
    struct buf lacks = {0};
    switch (info->state) {
    case SH_VIEW_FOLLOWING:
        ctl_line(ctl, "state", "following the logs");
        break;
    case SH_VIEW_REBUILDING:
        ctl_line(ctl, "state", "rebuilding from the logs, %u %%", (unsigned)info->percent);
        break;
    case SH_VIEW_LACKING:
        ctl_safe(&lacks, slice_str(info->lacks));
        ctl_line(ctl, "state", "lacks trimmed entries: %s", buf_cstr(&lacks));
        buf_free(&lacks);
        break;
    default:
        ctl_line(ctl, "state", "%s rows of %s, %s, %s (%u %%)", states[info->state], info->peer,
                 ctl_grouped(info->fetched_rows, rows), ctl_bytes(info->fetched_bytes, bytes),
                 (unsigned)info->percent);
    }
}

static void info_text(const struct ctl *ctl, const struct sh_view_info *info, const struct sh_nodes *nodes)
{
    static const char *const heads[] = {"LOG", "ORIGIN", ">APPLIED", ">ON DISK", ">DURABLE", ">BEHIND"};
    struct ctl_table table;
    struct buf error = {0};
    ctl_line(ctl, "open", "%s%s%s", ctl_style(ctl, info->opened ? CTL_GREEN : CTL_RED),
             info->opened ? "yes" : "no", ctl_style(ctl, CTL_PLAIN));
    print_state(ctl, info);
    ctl_safe(&error, slice_str(info->error));
    if (error.len > 0)
        ctl_line(ctl, "error", "%s", buf_cstr(&error));
    buf_free(&error);
    if (info->log_count == 0)
        return;
    putchar('\n');
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    for (size_t i = 0; i < info->log_count; i++) {
        const struct sh_view_log *l = &info->logs[i];
        const char *origin = origin_of(nodes, l->log);
        struct id16 log;
        char uuid[ID_TEXT];
        memcpy(log.bytes, l->log, sizeof log.bytes);
        id16_format(log, uuid);
        ctl_table_cell(&table, "%s", uuid);
        ctl_table_cell(&table, "%s", origin != NULL ? origin : "-");
        ctl_table_cell(&table, "%" PRIu64, l->applied_lsn);
        ctl_table_cell(&table, "%" PRIu64, l->flushed_lsn);
        ctl_table_cell(&table, "%" PRIu64, l->durable_lsn);
        ctl_table_cell(&table, "%" PRIu64, behind(l));
    }
    ctl_table_print(ctl, &table);
}

static int run_info(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_view_info info;
    struct sh_nodes nodes;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_view_info(client, &info);
    if (e == SH_OK) {
        sh_nodes(client, &nodes); /* without membersvc the logs have no names */
        if (ctl->format == CTL_JSON)
            info_json(&info, &nodes);
        else
            info_text(ctl, &info, &nodes);
        sh_nodes_free(&nodes);
    } else {
        code = ctl_fail_node(ctl, "view info", e, sh_last_error_detail());
    }
    sh_view_info_free(&info);
    sh_close(client);
    return code;
}

const struct ctl_command cmd_view_info = {
    .name = "view info",
    .values = "",
    .summary = "How far the node's view of keys and counters is",
    .more =
        "Whether it can be read, and why not; how far it is when it is being made again, from the logs or\n"
        "from another member's rows. Of each log that the node holds: the last entry that is "
        "applied\n"
        "(reads show it), the last that is on disk (a crash takes nothing of it), the log's last one here,\n"
        "and how many entries the view is behind. The exit code is 0 whatever it is.",
    .reads = true,
    .run = run_info,
};

/* ---------------------------------------------------------------- view digest */

static const char *kind_name(char kind, char other[8])
{
    switch (kind) {
    case 'K':
        return "values";
    case 'C':
        return "counters";
    default:
        snprintf(other, 8, "%c", kind);
        return other;
    }
}

static void hex(const uint8_t bytes[16], char text[33])
{
    for (size_t i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* Calls fn for each log of the vector: its uuid, and the LSN as digits. */
static void each_log(const struct sh_session *applied,
                     void (*fn)(void *arg, const char *log, const char *lsn), void *arg)
{
    char *text = sh_session_text(applied), *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL && *line != 0) {
        char *lsn = strchr(line, ' ');
        *lsn++ = 0;
        fn(arg, line, lsn);
    }
    free(text);
}

static void log_json(void *arg, const char *log, const char *lsn)
{
    json_uint(arg, log, strtoull(lsn, NULL, 10));
}

static void log_text_line(void *arg, const char *log, const char *lsn)
{
    (void)arg;
    printf("  %s %s\n", log, lsn);
}

static void digest_json(const struct sh_view_digest *d)
{
    struct json_writer j = {0};
    char text[33], other[8];
    json_open(&j, NULL, '{');
    hex(d->digest, text);
    json_text(&j, "digest", text);
    json_int(&j, "at_ms", d->at_ms);
    json_open(&j, "kinds", '[');
    for (size_t i = 0; i < d->kind_count; i++) {
        hex(d->kinds[i].digest, text);
        json_open(&j, NULL, '{');
        json_text(&j, "kind", kind_name(d->kinds[i].kind, other));
        json_uint(&j, "rows", d->kinds[i].rows);
        json_text(&j, "digest", text);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_open(&j, "applied", '{');
    each_log(d->applied, log_json, &j);
    json_close(&j, '}');
    json_close(&j, '}');
    json_print(&j);
}

static void digest_text(const struct ctl *ctl, const struct sh_view_digest *d)
{
    char text[33], rows[CTL_TEXT_MAX], other[8];
    hex(d->digest, text);
    ctl_line(ctl, "digest", "%s", text);
    ctl_line(ctl, "at", "%" PRId64, d->at_ms);
    for (size_t i = 0; i < d->kind_count; i++) {
        hex(d->kinds[i].digest, text);
        ctl_line(ctl, kind_name(d->kinds[i].kind, other), "%s  %s", text,
                 ctl_grouped(d->kinds[i].rows, rows));
    }
    ctl_line(ctl, "applied", "log, LSN");
    each_log(d->applied, log_text_line, NULL);
}

static int run_digest(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_view_digest digest;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_view_digest(client, (int64_t)ctl_number(ctl, "at", 0), &digest);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "view digest", e, sh_last_error_detail());
    else if (ctl->format == CTL_JSON)
        digest_json(&digest);
    else
        digest_text(ctl, &digest);
    sh_view_digest_free(&digest);
    sh_close(client);
    return code;
}

static const struct ctl_option digest_options[] = {
    {"at", 'a', CTL_NUMBER, "MS",
     "judge at this time which values have expired: ms since 1970, as another node's answer says", 1,
     INT64_MAX},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_view_digest = {
    .name = "view digest",
    .values = "",
    .summary = "A digest of all keys and counters, to compare nodes",
    .more =
        "Of all rows as they are at one instant, and what the view has applied then. Nodes that have "
        "applied\n"
        "the same, asked with the same --at, have the same digest. Values that have expired are left out: "
        "by\n"
        "the node's clock, or at MS, which is not to be long ago, since they are tidied away at some time.\n"
        "With millions of keys it takes seconds; --timeout is to allow that.",
    .options = digest_options,
    .reads = true,
    .run = run_digest,
};
