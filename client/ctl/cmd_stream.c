/* Streams of all nodes' logs: read and tail with --stream, and their list. */
#include "cmd.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FOLLOW_WAIT_MS = 500, LIST_MOST = 1000 };

/* ---------------------------------------------------------------- events */

struct stream_run {
    const struct ctl *ctl;
    struct sh_stream *stream;
    struct sh_session *session; /* of --session; NULL without */
    struct buf scratch;
    uint64_t left; /* events to print */
    bool gaps;     /* some events could not be read */
};

static bool may_come_back(enum sh_error e)
{
    return e == SH_TIMEOUT || e == SH_UNAVAILABLE;
}

/* What was printed is behind whoever reads the position. */
static int keep_place(const struct stream_run *r)
{
    if (fflush(stdout) != 0)
        return CTL_FAILED; /* ctl_finish says so */
    int code = CTL_DONE;
    if (ctl_has(r->ctl, "position"))
        code = ctl_session_keep(r->ctl, "position", sh_stream_position(r->stream));
    return code == CTL_DONE ? ctl_session_keep(r->ctl, "session", r->session) : code;
}

/* The next event; when following, what is printed is flushed and its position kept before waiting. *code: an
 * exit code, when the end was meant. */
static enum sh_error next_event(struct stream_run *r, bool follow, struct sh_event *event, int *code)
{
    enum sh_error e = sh_stream_next(r->stream, 0, event);
    while (follow && may_come_back(e)) {
        *code = keep_place(r);
        if (*code != CTL_DONE || !ctl_is_read())
            return SH_NOT_FOUND;
        e = sh_stream_next(r->stream, FOLLOW_WAIT_MS, event);
    }
    return e;
}

static bool tell_gap(struct stream_run *r, enum sh_error e)
{
    char text[400];
    if (e != SH_TRIMMED && e != SH_CORRUPT)
        return false;
    snprintf(text, sizeof text, "%s, %s; what comes behind them, and in other logs, follows",
             e == SH_TRIMMED ? "events were removed by retention" : "events are damaged",
             sh_last_error_detail());
    ctl_fail_text(r->ctl, r->ctl->command->name, e, text);
    r->gaps = true;
    return true;
}

static int print_all(struct stream_run *r, bool follow)
{
    struct sh_event event;
    int code = CTL_DONE;
    while (r->left > 0) {
        enum sh_error e = next_event(r, follow, &event, &code);
        if (tell_gap(r, e))
            continue;
        if (e == SH_NOT_FOUND)
            break;
        if (e != SH_OK) {
            fflush(stdout);
            return ctl_fail_node(r->ctl, r->ctl->command->name, e, sh_last_error_detail());
        }
        ctl_print_stream_event(r->ctl, &event, &r->scratch);
        if (!ctl_can_print())
            return CTL_DONE; /* ctl_finish says so */
        r->left--;
    }
    if (code == CTL_DONE)
        code = keep_place(r);
    return code != CTL_DONE ? code : r->gaps ? CTL_NO : CTL_DONE;
}

static int open_and_print(struct ctl *ctl, struct sh_client *client, struct sh_stream_options *options,
                          uint64_t count)
{
    struct stream_run r = {.ctl = ctl, .session = options->session, .left = count};
    enum sh_error e = sh_stream_open(client, options, &r.stream);
    if (e != SH_OK)
        return ctl_fail_node(ctl, ctl->command->name, e, sh_last_error_detail());
    int code = print_all(&r, options->follow);
    sh_stream_close(r.stream);
    buf_free(&r.scratch);
    return code;
}

/* --stream, --since, --follow, and the files. */
static int take_options(const struct ctl *ctl, struct sh_stream_options *o, struct sh_session **position)
{
    *position = NULL;
    if (!ctl_stream(ctl, &o->stream) || !ctl_since(ctl, &o->since_ms))
        return CTL_USAGE;
    o->follow = ctl_has(ctl, "follow");
    int code = ctl_session_take(ctl, "position", position);
    if (code == CTL_DONE)
        code = ctl_session_take(ctl, "session", &o->session);
    o->from = *position;
    return code;
}

static int run(struct ctl *ctl, struct sh_stream_options *options, uint64_t count)
{
    struct sh_client *client;
    struct sh_session *position;
    int code = take_options(ctl, options, &position);
    if (code == CTL_DONE)
        code = ctl_open(ctl, &client);
    if (code == CTL_DONE) {
        code = open_and_print(ctl, client, options, count);
        sh_close(client);
    }
    sh_session_free(position);
    sh_session_free(options->session);
    return code;
}

bool ctl_is_of_all_logs(const struct ctl *ctl)
{
    return ctl_has(ctl, "stream") && !ctl_has(ctl, "log") && !ctl_has(ctl, "from") &&
           !(ctl_node_names_log(ctl) && ctl_has(ctl, "node"));
}

int ctl_stream_read(struct ctl *ctl)
{
    struct sh_stream_options options = {0};
    return run(ctl, &options, ctl_number(ctl, "count", UINT64_MAX));
}

int ctl_stream_tail(struct ctl *ctl)
{
    enum { LINES = 10, LINES_MAX = 1000000 };
    uint64_t lines = ctl_number(ctl, "lines", LINES);
    struct sh_stream_options options = {.from_end = !ctl_has(ctl, "since") && !ctl_has(ctl, "position")};
    if (lines > LINES_MAX)
        return ctl_usage(ctl, "tail: at most 1,000,000 events before the end of a stream");
    options.last = (uint32_t)lines;
    return run(ctl, &options, UINT64_MAX);
}

/* ---------------------------------------------------------------- list */

static void print_json(struct json_writer *j, const struct sh_stream_info *s)
{
    json_open(j, NULL, '{');
    json_slice(j, "stream", slice_of(s->name, s->name_bytes));
    json_uint(j, "events", s->events);
    json_uint(j, "bytes", s->bytes);
    json_uint(j, "newest_ms", s->hlc >> 16);
    json_uint(j, "logs", s->logs);
    json_close(j, '}');
}

static void add_row(struct ctl_table *table, const struct sh_stream_info *s)
{
    char events[CTL_TEXT_MAX], bytes[CTL_TEXT_MAX], time[CTL_TEXT_MAX];
    struct buf name = {0};
    if (s->name_bytes == 0)
        buf_append_str(&name, "(the empty stream)");
    else
        ctl_safe(&name, slice_of(s->name, s->name_bytes));
    ctl_table_cell(table, "%s", buf_cstr(&name));
    ctl_table_cell(table, "%s", ctl_grouped(s->events, events));
    ctl_table_cell(table, "%s", ctl_bytes(s->bytes, bytes));
    ctl_table_cell(table, "%" PRIu32, s->logs);
    ctl_table_cell(table, "%s", ctl_time((int64_t)(s->hlc >> 16) * NS_PER_MS, time));
    buf_free(&name);
}

/* All pages into the one or the other. */
static enum sh_error list_all(struct sh_client *client, struct sh_session *session, const char *prefix,
                              struct json_writer *j, struct ctl_table *table)
{
    struct sh_streams page = {0}, before = {0};
    struct sh_stream_list_options o = {
        .prefix = prefix, .prefix_bytes = prefix != NULL ? strlen(prefix) : 0, .most = LIST_MOST};
    enum sh_error e = SH_OK;
    do {
        e = sh_stream_list(client, session, &o, &page);
        if (e != SH_OK)
            break;
        for (size_t i = 0; i < page.count; i++)
            if (j != NULL)
                print_json(j, &page.streams[i]);
            else
                add_row(table, &page.streams[i]);
        sh_streams_free(&before);
        before = page; /* keeps the name to go on at */
        o.from = before.next;
        o.from_bytes = before.next_bytes;
    } while (before.more);
    sh_streams_free(&before);
    return e;
}

static int run_list(struct ctl *ctl)
{
    static const char *const heads[] = {"stream", ">events", ">size", ">logs", "newest"};
    struct json_writer j = {0};
    struct ctl_table table = {0};
    struct ctl_session run;
    const char *prefix = ctl->value_count > 0 ? ctl->values[0] : NULL;
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    json_open(&j, NULL, '[');
    ctl_table_head(&table, sizeof heads / sizeof heads[0], heads);
    enum sh_error e = list_all(run.client, run.session, prefix, ctl->format == CTL_JSON ? &j : NULL, &table);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "stream list", e, sh_last_error_detail());
    if (e == SH_OK && ctl->format == CTL_JSON) {
        json_close(&j, ']');
        json_print(&j);
    } else if (e == SH_OK) {
        ctl_table_print(ctl, &table);
    }
    buf_free(&j.out);
    buf_free(&table.cells);
    return ctl_session_close(&run, code);
}

static const struct ctl_option list_options[] = {
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_stream_list = {
    .name = "stream list",
    .values = "[PREFIX]",
    .summary = "Streams that have events, with counts and sizes",
    .more =
        "As the node has applied them, of all logs that it holds. It counts the events that can still be\n"
        "read: what retention has removed is not in it, and a stream of which nothing is left is not\n"
        "shown. The size is that of the payloads. Without PREFIX all streams, in the order of their\n"
        "names' bytes.",
    .options = list_options,
    .values_most = 1,
    .run = run_list,
};
