/* cursor: how far consumers are. */
#include "cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_COUNT_MAX = 1000000000 };
#define TTL_OPTION                                                                                           \
    {                                                                                                        \
        "ttl", 't', CTL_TIME, "T",                                                                           \
            "how long it lasts after its last commit, like 12h; as before without it, a new one as "         \
            "query.cursor_ttl says",                                                                         \
            NS_PER_MS, UINT64_C(31536000) * NS_PER_S                                                         \
    }

static uint64_t ttl_ms(const struct ctl *ctl)
{
    return ctl_number(ctl, "ttl", 0) / NS_PER_MS;
}

/* ---------------------------------------------------------------- printing */

static const char *uuid_text(const uint8_t id[16], char out[ID_TEXT])
{
    struct id16 uuid;
    memcpy(uuid.bytes, id, sizeof uuid.bytes);
    id16_format(uuid, out);
    return out;
}

/* Entries that are to come; of logs that the node does not hold none is known. */
static uint64_t behind(const struct sh_cursor_log *log)
{
    return log->held && log->durable_lsn > log->lsn ? log->durable_lsn - log->lsn : 0;
}

static uint64_t all_behind(const struct sh_cursor_info *c)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < c->log_count; i++)
        sum += behind(&c->logs[i]);
    return sum;
}

static void json_cursor(struct json_writer *j, const struct sh_cursor_info *c)
{
    json_open(j, NULL, '{');
    json_text(j, "name", c->name);
    json_uint(j, "epoch", c->epoch);
    json_uuid(j, "owner", c->owner);
    json_bool(j, "expired", c->expired);
    json_int(j, "expires_ms", c->expires_ms);
    json_uint(j, "ttl_ms", c->ttl_ms);
    json_open(j, "written", '{');
    json_uuid(j, "log", c->written.log);
    json_uint(j, "lsn", c->written.lsn);
    json_uint(j, "hlc", c->written.hlc);
    json_uint(j, "time_ms", c->written.hlc >> 16);
    json_close(j, '}');
    json_uint(j, "behind", all_behind(c));
    json_open(j, "logs", '[');
    for (size_t i = 0; i < c->log_count; i++) {
        const struct sh_cursor_log *log = &c->logs[i];
        json_open(j, NULL, '{');
        json_uuid(j, "log", log->log);
        json_uint(j, "lsn", log->lsn);
        if (log->held) {
            json_uint(j, "durable_lsn", log->durable_lsn);
            json_uint(j, "behind", behind(log));
        } else {
            json_null(j, "durable_lsn");
            json_null(j, "behind");
        }
        json_close(j, '}');
    }
    json_close(j, ']');
    json_close(j, '}');
}

static void safe_cell(struct ctl_table *table, const char *text)
{
    struct buf safe = {0};
    ctl_safe(&safe, slice_str(text));
    ctl_table_cell(table, "%s", buf_cstr(&safe));
    buf_free(&safe);
}

static void row_of(const struct ctl *ctl, struct ctl_table *table, const struct sh_cursor_info *c)
{
    char text[CTL_TEXT_MAX], uuid[ID_TEXT];
    safe_cell(table, c->name);
    ctl_table_cell(table, "%" PRIu64, c->epoch);
    ctl_table_cell(table, "%s", uuid_text(c->owner, uuid));
    ctl_table_cell(table, "%s", ctl_grouped(all_behind(c), text));
    ctl_table_cell(table, "%s", ctl_time((int64_t)(c->written.hlc >> 16) * NS_PER_MS, text));
    ctl_table_cell(table, "%s%s%s", c->expired ? ctl_style(ctl, CTL_YELLOW) : "",
                   c->expired ? "expired" : ctl_time(c->expires_ms * NS_PER_MS, text),
                   c->expired ? ctl_style(ctl, CTL_PLAIN) : "");
}

static void print_logs(const struct ctl *ctl, const struct sh_cursor_info *c)
{
    static const char *const heads[] = {"log", ">LSN", ">durable here", ">behind"};
    struct ctl_table table = {0};
    char uuid[ID_TEXT];
    ctl_table_head(&table, 4, heads);
    for (size_t i = 0; i < c->log_count; i++) {
        const struct sh_cursor_log *log = &c->logs[i];
        ctl_table_cell(&table, "%s", uuid_text(log->log, uuid));
        ctl_table_cell(&table, "%" PRIu64, log->lsn);
        if (log->held) {
            ctl_table_cell(&table, "%" PRIu64, log->durable_lsn);
            ctl_table_cell(&table, "%" PRIu64, behind(log));
        } else {
            ctl_table_cell(&table, "not held");
            ctl_table_cell(&table, "-");
        }
    }
    ctl_table_print(ctl, &table);
}

static void print_cursor(const struct ctl *ctl, const struct sh_cursor_info *c)
{
    char text[CTL_TEXT_MAX], uuid[ID_TEXT];
    struct buf name = {0};
    ctl_safe(&name, slice_str(c->name));
    ctl_line(ctl, "cursor", "%s", buf_cstr(&name));
    buf_free(&name);
    ctl_line(ctl, "epoch", "%" PRIu64, c->epoch);
    ctl_line(ctl, "owner", "%s", uuid_text(c->owner, uuid));
    ctl_line(ctl, "written", "%s, LSN %" PRIu64 " of log %s",
             ctl_time((int64_t)(c->written.hlc >> 16) * NS_PER_MS, text), c->written.lsn,
             uuid_text(c->written.log, uuid));
    ctl_line(ctl, "expires", "%s%s", ctl_time(c->expires_ms * NS_PER_MS, text),
             c->expired ? ": it has, and holds nothing back any more" : "");
    ctl_line(ctl, "lasts", "%s after a commit", ctl_duration((int64_t)c->ttl_ms * NS_PER_MS, text));
    printf("\n");
    print_logs(ctl, c);
}

/* ---------------------------------------------------------------- list, show */

struct listing {
    struct json_writer j;
    struct ctl_table table;
    uint64_t count;
};

static enum sh_error list_all(struct ctl_session *run, struct sh_cursor_list_options *o, uint64_t most,
                              struct listing *l)
{
    enum { LIST_MOST = 1000 };
    struct sh_cursors found = {0}, before = {0};
    enum sh_error e = SH_OK;
    do {
        uint64_t left = most - l->count;
        o->most = left < LIST_MOST ? (uint32_t)left : LIST_MOST;
        e = sh_cursor_list(run->client, run->session, o, &found);
        if (e != SH_OK)
            break;
        for (size_t i = 0; i < found.count; i++)
            if (run->ctl->format == CTL_JSON)
                json_cursor(&l->j, &found.cursors[i]);
            else
                row_of(run->ctl, &l->table, &found.cursors[i]);
        l->count += found.count;
        sh_cursors_free(&before);
        before = found; /* keeps its last name */
        o->behind = before.last;
    } while (before.more && l->count < most);
    sh_cursors_free(&before);
    return e;
}

static int run_list(struct ctl *ctl)
{
    static const char *const heads[] = {"cursor", ">epoch", "owner", ">behind", "written", "expires"};
    struct ctl_session run;
    struct listing l = {0};
    struct sh_cursor_list_options o = {
        .prefix = ctl->value_count > 0 ? ctl->values[0] : NULL,
        .behind = ctl_word(ctl, "behind", NULL),
    };
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    ctl_table_head(&l.table, 6, heads);
    json_open(&l.j, NULL, '[');
    enum sh_error e = list_all(&run, &o, ctl_number(ctl, "count", LIST_COUNT_MAX), &l);
    json_close(&l.j, ']');
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "cursor list", e, sh_last_error_detail());
    else if (ctl->format == CTL_JSON)
        json_print(&l.j);
    else if (l.count > 0)
        ctl_table_print(ctl, &l.table);
    else
        printf("there is none\n");
    buf_free(&l.j.out);
    buf_free(&l.table.cells);
    return ctl_session_close(&run, code);
}

static const struct ctl_option list_options[] = {
    {"count", 'n', CTL_NUMBER, "N", "at most N cursors; all without it", 1, LIST_COUNT_MAX},
    {"behind", 'b', CTL_WORD, "NAME", "only cursors whose names come after this one", 0, 0},
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_cursor_list = {
    .name = "cursor list",
    .values = "[PREFIX]",
    .summary = "Cursors, and how many entries they are behind",
    .more = "How far consumers are, as the node has applied it; only those whose names begin with PREFIX.\n"
            "Behind: entries of all logs that the node holds and the cursor has not read yet.",
    .options = list_options,
    .values_most = 1,
    .run = run_list,
};

static int run_show(struct ctl *ctl)
{
    struct ctl_session run;
    struct sh_cursors found;
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_cursor_get(run.client, run.session, ctl->values[0], &found);
    if (e != SH_OK) {
        code = ctl_fail_node(ctl, "cursor show", e, sh_last_error_detail());
    } else if (ctl->format == CTL_JSON) {
        struct json_writer j = {0};
        json_cursor(&j, &found.cursors[0]);
        json_print(&j);
    } else {
        print_cursor(ctl, &found.cursors[0]);
    }
    sh_cursors_free(&found);
    return ctl_session_close(&run, code);
}

static const struct ctl_option show_options[] = {
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_cursor_show = {
    .name = "cursor show",
    .values = "NAME",
    .summary = "A cursor: its owner, who wrote it when, and how far it is in each log",
    .options = show_options,
    .values_least = 1,
    .values_most = 1,
    .run = run_show,
};

/* ---------------------------------------------------------------- take, set */

/* Of the text that a session has, a line for each log. */
static void json_position(struct json_writer *j, const struct sh_session *position)
{
    char *text = sh_session_text(position), *rest = NULL;
    json_open(j, "position", '[');
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *space = strchr(line, ' ');
        *space = 0;
        json_open(j, NULL, '{');
        json_text(j, "log", line);
        json_uint(j, "lsn", strtoull(space + 1, NULL, 10));
        json_close(j, '}');
    }
    json_close(j, ']');
    free(text);
}

static void print_taken(const struct ctl *ctl, const struct sh_cursor *cursor)
{
    uint8_t owner[16];
    char uuid[ID_TEXT];
    uint64_t epoch = sh_cursor_epoch(cursor, owner);
    if (ctl->format == CTL_JSON) {
        struct json_writer j = {0};
        json_open(&j, NULL, '{');
        json_uint(&j, "epoch", epoch);
        json_uuid(&j, "owner", owner);
        json_position(&j, sh_cursor_position(cursor));
        json_close(&j, '}');
        json_print(&j);
        return;
    }
    char *text = sh_session_text(sh_cursor_position(cursor));
    ctl_line(ctl, "epoch", "%" PRIu64, epoch);
    ctl_line(ctl, "owner", "%s", uuid_text(owner, uuid));
    fputs(text, stdout);
    free(text);
}

static int fail_set(const struct ctl *ctl, enum sh_error e)
{
    int code = ctl_fail_node(ctl, ctl->command->name, e, sh_last_error_detail());
    return e == SH_CONFLICT ? CTL_NO : code;
}

/* Opens it, commits to `commit` unless NULL, and says where it is, also (keeps) in the file of --position. */
static int open_cursor(struct ctl *ctl, const struct sh_cursor_options *o, bool commits,
                       const struct sh_session *commit, bool keeps)
{
    struct ctl_session run;
    struct sh_cursor *cursor;
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_cursor_open(run.client, run.session, o, &cursor);
    if (e == SH_OK && commits)
        e = sh_cursor_commit(cursor, run.session, commit);
    if (e == SH_OK) {
        print_taken(ctl, cursor);
        code = keeps ? ctl_session_keep(ctl, "position", sh_cursor_position(cursor)) : CTL_DONE;
    } else {
        code = fail_set(ctl, e);
    }
    sh_cursor_close(cursor);
    return ctl_session_close(&run, code);
}

static int run_take(struct ctl *ctl)
{
    const struct sh_cursor_options o = {
        .name = ctl->values[0], .take = !ctl_has(ctl, "if-free"), .ttl_ms = ttl_ms(ctl)};
    return open_cursor(ctl, &o, false, NULL, true);
}

static const struct ctl_option take_options[] = {
    {"if-free", 'f', CTL_FLAG, NULL, "only when nobody has it: it is new, was deleted, or has expired", 0, 0},
    {"position", 'p', CTL_WORD, "FILE", "leaves its position in FILE, where `read --stream` goes on", 0, 0},
    TTL_OPTION,
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_cursor_take = {
    .name = "cursor take",
    .values = "NAME",
    .summary = "Become the owner of a cursor, which is made when there is none",
    .more = "Prints the epoch and the owner, with which `cursor set` moves it, and its position: a log and "
            "the LSN\n"
            "of the last entry that needs not be read again, in each line. A new one has none: everything is "
            "to be\n"
            "read. Who had it before gets `conflict` as soon as its node knows.",
    .options = take_options,
    .values_least = 1,
    .values_most = 1,
    .run = run_take,
};

/* Adds UUID:LSN. */
static bool take_place(struct sh_session *position, const char *text)
{
    struct buf line = {0};
    struct id16 log;
    char uuid[ID_TEXT] = "";
    const char *colon = strchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof uuid)
        return false;
    memcpy(uuid, text, (size_t)(colon - text));
    if (!id16_parse(uuid, &log))
        return false;
    buf_append(&line, text, (size_t)(colon - text));
    buf_printf(&line, " %s\n", colon + 1);
    bool good = sh_session_take(position, buf_cstr(&line)) == SH_OK;
    buf_free(&line);
    return good;
}

/* Those that are given; false (said): one is none. */
static bool take_places(struct ctl *ctl, struct sh_session *position)
{
    for (int i = 1; i < ctl->value_count; i++) {
        if (take_place(position, ctl->values[i]))
            continue;
        ctl_usage(ctl, "cursor set: a position is a log's uuid, a colon and an LSN, not %s", ctl->values[i]);
        return false;
    }
    return true;
}

/* --position, which a reader has left. CTL_DONE or an exit code (said). */
static int take_file(struct ctl *ctl, struct sh_session **position)
{
    int code = ctl_session_take(ctl, "position", position);
    if (code != CTL_DONE)
        return code;
    char *text = sh_session_text(*position);
    if (text[0] == 0)
        code = ctl_fail_text(ctl, ctl_word(ctl, "position", NULL), SH_NOT_FOUND, "no position stands in it");
    free(text);
    return code;
}

/* Where the cursor is to go: --start, --position, or places; empty without any. */
static int take_position(struct ctl *ctl, struct sh_session **position)
{
    int ways = ctl_has(ctl, "start") + ctl_has(ctl, "position") + (ctl->value_count > 1);
    *position = NULL;
    if (ways > 1) {
        ctl_usage(ctl, "cursor set: --start, --position, or positions");
        return CTL_USAGE;
    }
    if (ctl_has(ctl, "position"))
        return take_file(ctl, position);
    *position = sh_session_new();
    return take_places(ctl, *position) ? CTL_DONE : CTL_USAGE;
}

/* --epoch and --owner; false (said): only one of them, or no uuid. */
static bool take_owner(struct ctl *ctl, struct sh_cursor_options *o)
{
    const char *owner = ctl_word(ctl, "owner", NULL);
    struct id16 id = {{0}};
    o->epoch = ctl_number(ctl, "epoch", 0);
    if ((o->epoch > 0) != (owner != NULL) || (owner != NULL && o->take)) {
        ctl_usage(ctl, "cursor set: --epoch and --owner go together, and without --force");
        return false;
    }
    if (owner != NULL && (!id16_parse(owner, &id) || id16_is_zero(id))) {
        ctl_usage(ctl, "cursor set: --owner is a uuid, not %s", owner);
        return false;
    }
    memcpy(o->owner, id.bytes, sizeof o->owner);
    return true;
}

static int run_set(struct ctl *ctl)
{
    struct sh_cursor_options o = {
        .name = ctl->values[0], .take = ctl_has(ctl, "force"), .ttl_ms = ttl_ms(ctl)};
    bool renews = ctl->value_count == 1 && !ctl_has(ctl, "start") && !ctl_has(ctl, "position");
    struct sh_session *position = NULL;
    int code = take_owner(ctl, &o) ? take_position(ctl, &position) : CTL_USAGE;
    if (code == CTL_DONE) {
        o.position = o.epoch > 0 || renews ? NULL : position;
        code = open_cursor(ctl, &o, o.epoch > 0, renews ? NULL : position, false);
    }
    sh_session_free(position);
    return code;
}

static const struct ctl_option set_options[] = {
    {"epoch", 'e', CTL_NUMBER, "N", "as its owner, in the epoch that `cursor take` has given", 1, UINT64_MAX},
    {"owner", 'o', CTL_WORD, "UUID", "who that owner is", 0, 0},
    {"force", 'F', CTL_FLAG, NULL, "whoever has it, and also back: in a new epoch", 0, 0},
    {"start", 'S', CTL_FLAG, NULL, "before all entries", 0, 0},
    {"position", 'p', CTL_WORD, "FILE", "behind what `read --stream` has printed, which it left in FILE", 0,
     0},
    TTL_OPTION,
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_cursor_set = {
    .name = "cursor set",
    .values = "NAME [UUID:LSN...]",
    .summary = "Move a cursor: for each log the last entry that needs not be read again",
    .more =
        "With --epoch and --owner as a consumer does it, ahead only. Otherwise it is taken, too: when nobody "
        "has\n"
        "it, or with --force from whoever has. Logs that are not named are to be read from their beginning.\n"
        "Without any position it stays where it is, and lasts longer. Exit 1 when somebody else has it, or "
        "it\n"
        "would go back.",
    .options = set_options,
    .values_least = 1,
    .values_most = -1,
    .run = run_set,
};

/* ---------------------------------------------------------------- delete */

static int run_delete(struct ctl *ctl)
{
    struct ctl_session run;
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_cursor_delete(run.client, run.session, ctl->values[0], ctl_number(ctl, "epoch", 0));
    if (e != SH_OK)
        code = fail_set(ctl, e);
    return ctl_session_close(&run, code);
}

static const struct ctl_option delete_options[] = {
    {"epoch", 'e', CTL_NUMBER, "N", "only when it is in this epoch", 1, UINT64_MAX},
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_cursor_delete = {
    .name = "cursor delete",
    .values = "NAME",
    .summary = "Delete a cursor, whoever has it; it holds nothing back any more",
    .more = "Its owner's next commit gets not_found. Exit 1 when there is none.",
    .options = delete_options,
    .values_least = 1,
    .values_most = 1,
    .run = run_delete,
};
