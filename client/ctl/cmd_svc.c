/* svc and shutdown: what is said to the supervisor on this machine, by its control socket. */
#include "cmd.h"

#include <inttypes.h>
#include <string.h>

#include "config.h"
#include "control.h"
#include "log.h"

/* One command and its answer; CTL_DONE or an exit code (said). */
static int call(struct ctl *ctl, const char *command, const char *service, uint64_t limit,
                struct buf *storage, struct msg_svc_reply *reply)
{
    char dir[CONFIG_PATH_MAX], path[CONFIG_PATH_MAX + 32];
    if (!ctl_run_dir(ctl, dir, sizeof dir))
        return CTL_USAGE;
    snprintf(path, sizeof path, "%s/supervisor.sock", dir);
    struct msg_svc_command message = {
        .command = slice_str(command), .service = slice_str(service), .limit = limit};
    enum sh_error e = control_call(path, &message, (int)ctl_timeout_ms(ctl), storage, reply);
    if (e == SH_UNAVAILABLE) {
        const char *problem = ctl_socket_problem(path);
        return ctl_fail(ctl, path, e, problem != NULL ? problem : "nobody listens; is shanghaid running?");
    }
    if (e != SH_OK)
        return ctl_fail(ctl, path, e, "");
    if (reply->code == SH_OK)
        return CTL_DONE;
    char text[256];
    snprintf(text, sizeof text, "%.*s", (int)reply->text.len, (const char *)reply->text.data);
    return ctl_fail(ctl, ctl->command->name, (enum sh_error)reply->code, text);
}

/* ---------------------------------------------------------------- rows of the answer */

static void cell(struct ctl_table *table, struct slice text)
{
    struct buf safe = {0};
    ctl_safe(&safe, text);
    ctl_table_cell(table, "%s", buf_cstr(&safe));
    buf_free(&safe);
}

static int print_rows(struct ctl *ctl, struct slice rows,
                      void (*row)(struct ctl_table *table, struct slice map), struct ctl_table *table)
{
    struct mp m = mp_of(rows);
    uint32_t count = 0;
    struct slice map;
    if (rows.len > 0 && !mp_array(&m, &count))
        return ctl_fail(ctl, ctl->command->name, SH_INTERNAL, "the supervisor's answer makes no sense");
    for (uint32_t i = 0; i < count && mp_raw(&m, &map); i++)
        row(table, map);
    ctl_table_print(ctl, table);
    return CTL_DONE;
}

static int print_json_rows(struct ctl *ctl, struct slice rows)
{
    struct json_writer j = {0};
    struct mp m = mp_of(rows.len > 0 ? rows : slice_of("\x90", 1));
    if (!json_msgpack(&j, NULL, &m))
        return ctl_fail(ctl, ctl->command->name, SH_INTERNAL, "the supervisor's answer makes no sense");
    json_print(&j);
    return CTL_DONE;
}

/* ---------------------------------------------------------------- tree */

static void tree_row(struct ctl_table *table, struct slice map)
{
    char up[CTL_TEXT_MAX];
    int64_t pid = mp_find_int(map, "pid");
    struct slice name = mp_find_str(map, "name");
    ctl_table_cell(table, "%*s%.*s", (int)(2 * mp_find_int(map, "depth")), "", (int)name.len,
                   (const char *)name.data);
    cell(table, mp_find_str(map, "state"));
    if (pid > 0)
        ctl_table_cell(table, "%" PRId64, pid);
    else
        ctl_table_cell(table, "-");
    ctl_table_cell(table, "%" PRId64, mp_find_int(map, "restarts"));
    ctl_table_cell(table, "%s", pid > 0 ? ctl_duration(mp_find_int(map, "uptime_ms") * NS_PER_MS, up) : "-");
    cell(table, mp_find_str(map, "last_exit"));
    cell(table, mp_find_str(map, "status"));
}

static int run_tree(struct ctl *ctl)
{
    static const char *const heads[] = {"name", "state", ">pid", ">restarts", ">up", "last exit", "status"};
    struct buf storage = {0};
    struct msg_svc_reply reply;
    struct ctl_table table = {0};
    int code = call(ctl, "tree", "", 0, &storage, &reply);
    if (code == CTL_DONE && ctl->format == CTL_JSON) {
        code = print_json_rows(ctl, reply.tree);
    } else if (code == CTL_DONE) {
        ctl_table_head(&table, 7, heads);
        code = print_rows(ctl, reply.tree, tree_row, &table);
    }
    buf_free(&storage);
    return code;
}

const struct ctl_command cmd_svc_tree = {.name = "svc tree",
                                         .values = "",
                                         .summary = "The supervision tree and how each service is",
                                         .reads = true,
                                         .run = run_tree};

/* ---------------------------------------------------------------- obituaries */

static void obituary_row(struct ctl_table *table, struct slice map)
{
    char time[CTL_TEXT_MAX], up[CTL_TEXT_MAX];
    ctl_table_cell(table, "%s", ctl_time(mp_find_int(map, "time_ms") * NS_PER_MS, time));
    cell(table, mp_find_str(map, "service"));
    ctl_table_cell(table, "%" PRId64, mp_find_int(map, "pid"));
    cell(table, mp_find_str(map, "cause"));
    ctl_table_cell(table, "%s", ctl_duration(mp_find_int(map, "uptime_ms") * NS_PER_MS, up));
    ctl_table_cell(table, "%" PRId64, mp_find_int(map, "restarts"));
}

/* The last lines of the newest one help most. */
static void print_last_lines(struct slice rows)
{
    struct mp m = mp_of(rows), lines;
    uint32_t count, line_count;
    struct slice map, line;
    if (!mp_array(&m, &count) || count == 0 || !mp_raw(&m, &map) || !mp_find(map, "lines", &lines) ||
        !mp_array(&lines, &line_count) || line_count == 0)
        return;
    printf("\nLast lines of the newest:\n");
    for (uint32_t i = 0; i < line_count && mp_str(&lines, &line); i++) {
        struct buf safe = {0};
        ctl_safe(&safe, line);
        printf("  %s\n", buf_cstr(&safe));
        buf_free(&safe);
    }
}

static int run_obituary(struct ctl *ctl)
{
    static const char *const heads[] = {"time", "service", ">pid", "cause", ">was up", ">restarts"};
    struct buf storage = {0};
    struct msg_svc_reply reply;
    struct ctl_table table = {0};
    const char *service = ctl->value_count > 0 ? ctl->values[0] : "";
    int code = call(ctl, "obituary", service, ctl_number(ctl, "limit", 10), &storage, &reply);
    if (code == CTL_DONE && ctl->format == CTL_JSON) {
        code = print_json_rows(ctl, reply.obituaries);
    } else if (code == CTL_DONE) {
        struct mp m = mp_of(reply.obituaries);
        uint32_t count;
        if (reply.obituaries.len == 0 || (mp_array(&m, &count) && count == 0)) {
            puts("no service has died");
        } else {
            ctl_table_head(&table, 6, heads);
            code = print_rows(ctl, reply.obituaries, obituary_row, &table);
            print_last_lines(reply.obituaries);
        }
    }
    buf_free(&storage);
    return code;
}

static const struct ctl_option obituary_options[] = {
    {"limit", 'n', CTL_NUMBER, "N", "most deaths listed, 10 without it", 1, 1000},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_svc_obituary = {
    .name = "svc obituary",
    .values = "[SERVICE]",
    .summary = "How services died, the newest first",
    .options = obituary_options,
    .values_most = 1,
    .reads = true,
    .run = run_obituary,
};

/* ---------------------------------------------------------------- commands */

static int order_with(struct ctl *ctl, const char *command, const char *service, uint64_t number)
{
    struct buf storage = {0};
    struct msg_svc_reply reply;
    int code = call(ctl, command, service, number, &storage, &reply);
    if (code == CTL_DONE && ctl->format == CTL_JSON) {
        struct json_writer j = {0};
        json_open(&j, NULL, '{');
        json_bool(&j, "done", true);
        json_slice(&j, "text", reply.text);
        json_close(&j, '}');
        json_print(&j);
    } else if (code == CTL_DONE) {
        struct buf safe = {0};
        ctl_safe(&safe, reply.text.len > 0 ? reply.text : slice_str("done"));
        puts(buf_cstr(&safe));
        buf_free(&safe);
    }
    buf_free(&storage);
    return code;
}

static int order(struct ctl *ctl, const char *command, const char *service)
{
    return order_with(ctl, command, service, 0);
}

static int run_log_level(struct ctl *ctl)
{
    for (enum log_level level = LOG_DEBUG; level <= LOG_ERROR; level++)
        if (strcmp(log_level_name(level), ctl->values[0]) == 0)
            return order_with(ctl, "log-level", ctl->value_count > 1 ? ctl->values[1] : "", level);
    return ctl_usage(ctl, "LEVEL is debug, info, warn or error, not `%s`", ctl->values[0]);
}

static int run_restart(struct ctl *ctl)
{
    return order(ctl, "restart", ctl->values[0]);
}

static int run_stop(struct ctl *ctl)
{
    return order(ctl, "stop", ctl->values[0]);
}

static int run_start(struct ctl *ctl)
{
    return order(ctl, "start", ctl->values[0]);
}

static int run_shutdown(struct ctl *ctl)
{
    return order(ctl, "shutdown", "");
}

const struct ctl_command cmd_svc_restart = {.name = "svc restart",
                                            .values = "NAME",
                                            .summary = "Stop a service or supervisor and start it again",
                                            .values_least = 1,
                                            .values_most = 1,
                                            .run = run_restart};
const struct ctl_command cmd_svc_stop = {.name = "svc stop",
                                         .values = "NAME",
                                         .summary = "Stop a service or supervisor until it is started again",
                                         .values_least = 1,
                                         .values_most = 1,
                                         .run = run_stop};
const struct ctl_command cmd_svc_start = {.name = "svc start",
                                          .values = "NAME",
                                          .summary = "Start what was stopped, has failed or is held down",
                                          .values_least = 1,
                                          .values_most = 1,
                                          .run = run_start};
const struct ctl_command cmd_svc_log_level = {
    .name = "svc log-level",
    .values = "LEVEL [NAME]",
    .summary = "Set the least level of log lines while services run",
    .more = "LEVEL is debug, info, warn or error; NAME a service or supervisor, without it the whole node.\n"
            "It lasts until the service is restarted or the configuration reloaded (log.level).",
    .values_least = 1,
    .values_most = 2,
    .run = run_log_level,
};
const struct ctl_command cmd_shutdown = {
    .name = "shutdown", .values = "", .summary = "Stop the whole node cleanly", .run = run_shutdown};
