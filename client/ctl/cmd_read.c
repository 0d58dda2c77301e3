/* read and tail: entries of the log to standard output. */
#include "cmd.h"

#include <inttypes.h>

enum { FOLLOW_WAIT_MS = 500 };

struct print_run {
    const struct ctl *ctl;
    struct sh_reader *reader;
    struct buf scratch;
    uint64_t left; /* entries to print */
    uint64_t at;   /* the reader's position before the last call */
    bool any;      /* printed */
};

static bool may_come_back(enum sh_error e)
{
    return e == SH_TIMEOUT || e == SH_UNAVAILABLE;
}

/* Prints until the end, the count or an error. When following, what is printed is flushed before waiting,
 * and a reader that went away ends it. */
static enum sh_error print_all(struct print_run *p, bool follow)
{
    struct sh_event event;
    enum sh_error e = SH_OK;
    while (p->left > 0) {
        p->at = sh_read_position(p->reader);
        e = sh_read_next(p->reader, 0, &event);
        if (follow && may_come_back(e)) {
            if (fflush(stdout) != 0)
                return SH_OK;
            e = sh_read_next(p->reader, FOLLOW_WAIT_MS, &event);
            if (may_come_back(e) && ctl_is_read())
                continue;
            if (may_come_back(e))
                return SH_OK;
        }
        if (e != SH_OK)
            break;
        ctl_print_event(p->ctl, &event, &p->scratch);
        if (!ctl_can_print())
            return SH_OK; /* ctl_finish says so */
        p->left--;
        p->any = true;
    }
    return e == SH_NOT_FOUND ? SH_OK : e;
}

/* Says where it stopped, and where to go on when that is known. */
static int fail_at(const struct print_run *p, uint64_t from, enum sh_error e)
{
    char what[64], text[320];
    uint64_t at = p->reader != NULL ? p->at : from;
    uint64_t next = p->reader != NULL ? sh_read_position(p->reader) : at;
    snprintf(what, sizeof what, "%s: LSN %" PRIu64, p->ctl->command->name, at);
    snprintf(text, sizeof text, "%s", sh_last_error_detail());
    if ((e == SH_CORRUPT || e == SH_TRIMMED) && next > at)
        snprintf(text, sizeof text, "%s; go on with `shanghaictl read --from %" PRIu64 "`",
                 sh_last_error_detail(), next);
    return ctl_fail_node(p->ctl, what, e, text);
}

/* The end of the log is no error, but an LSN behind it is: that of no entry, and not of the next one either.
 * So is a log that the node does not hold. */
static int check_start(const struct ctl *ctl, struct sh_client *client, const struct sh_read_options *options)
{
    uint64_t first, last, from = options->from;
    char what[64], detail[64];
    enum sh_error e = ctl_log_ends(client, options->log, &first, &last);
    if (e != SH_OK)
        return ctl_fail_node(ctl, ctl->command->name, e, sh_last_error_detail());
    if (from <= last + 1)
        return CTL_DONE;
    snprintf(what, sizeof what, "%s: LSN %" PRIu64, ctl->command->name, from);
    snprintf(detail, sizeof detail, "the log ends at LSN %" PRIu64, last);
    return ctl_fail_node(ctl, what, SH_NOT_FOUND, detail);
}

static int print_from(struct ctl *ctl, struct sh_client *client, const struct sh_read_options *options,
                      uint64_t count)
{
    struct print_run p = {.ctl = ctl, .left = count};
    enum sh_error e = sh_read_open(client, options, &p.reader);
    if (e == SH_OK)
        e = print_all(&p, options->follow);
    int code = CTL_DONE;
    if (e != SH_OK) {
        fflush(stdout);
        code = fail_at(&p, options->from, e);
    } else if (!p.any && (ctl_other_log(options->log) != NULL || (options->from > 1 && !options->follow))) {
        code = check_start(ctl, client, options);
    }
    if (p.reader != NULL)
        sh_read_close(p.reader);
    buf_free(&p.scratch);
    return code;
}

/* --stream, --since and --follow, then the client and the log. */
static int open_read(struct ctl *ctl, struct sh_read_options *options, struct sh_client **client)
{
    *options = (struct sh_read_options){.follow = ctl_has(ctl, "follow")};
    if (!ctl_stream(ctl, &options->stream) || !ctl_since(ctl, &options->since_ms))
        return CTL_USAGE;
    return ctl_open_log(ctl, client, options->log);
}

/* True, and said: an option that only reads of all logs have. */
static bool has_stream_option(const struct ctl *ctl)
{
    const char *option = ctl_has(ctl, "position") ? "position" : ctl_has(ctl, "session") ? "session" : NULL;
    if (option != NULL)
        ctl_usage(ctl, "--%s is for streams of all logs: with --stream, without --from, --log and --node",
                  option);
    return option != NULL;
}

static int run_read(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_read_options options;
    if (ctl_is_of_all_logs(ctl))
        return ctl_stream_read(ctl);
    if (has_stream_option(ctl))
        return CTL_USAGE;
    int code = open_read(ctl, &options, &client);
    if (code != CTL_DONE)
        return code;
    options.from = ctl_number(ctl, "from", 1);
    code = print_from(ctl, client, &options, ctl_number(ctl, "count", UINT64_MAX));
    sh_close(client);
    return code;
}

/* The LSN of the entry so many before the end; 1 with --since, which says where to start. */
static enum sh_error find_lines(const struct ctl *ctl, struct sh_client *client,
                                struct sh_read_options *options)
{
    uint64_t first, last, lines = ctl_number(ctl, "lines", 10);
    options->from = 1;
    if (ctl_has(ctl, "since"))
        return SH_OK;
    enum sh_error e = ctl_log_ends(client, options->log, &first, &last);
    if (e == SH_OK && last >= lines)
        options->from = last - lines + 1;
    if (e == SH_OK && options->from < first)
        options->from = first;
    return e;
}

static int run_tail(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_read_options options;
    if (ctl_has(ctl, "lines") && ctl_has(ctl, "since"))
        return ctl_usage(ctl, "--lines and --since both say where to start; give one of them");
    if (ctl_has(ctl, "lines") && ctl_has(ctl, "position"))
        return ctl_usage(ctl, "--lines and --position both say where to start; give one of them");
    if (ctl_is_of_all_logs(ctl))
        return ctl_stream_tail(ctl);
    if (has_stream_option(ctl))
        return CTL_USAGE;
    int code = open_read(ctl, &options, &client);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = find_lines(ctl, client, &options);
    if (e == SH_OK)
        code = print_from(ctl, client, &options, UINT64_MAX);
    else
        code = ctl_fail_node(ctl, "tail", e, sh_last_error_detail());
    sh_close(client);
    return code;
}

#define SINCE_OPTION                                                                                         \
    {                                                                                                        \
        "since", 'S', CTL_WORD, "TIME",                                                                      \
            "only entries of this time or later: 2026-11-26T03:30:00Z, or how long ago: 10m, 2h", 0, 0       \
    }

#define STREAM_OPTIONS                                                                                       \
    {"stream", 's', CTL_WORD, "S", "only events of this stream, of all logs that the node holds", 0, 0},     \
        {"position",                                                                                         \
         'p',                                                                                                \
         CTL_WORD,                                                                                           \
         "FILE",                                                                                             \
         "with --stream: go on where FILE says, on whatever node, and say in it where this ended",           \
         0,                                                                                                  \
         0},                                                                                                 \
    {                                                                                                        \
        "session", 0, CTL_WORD, "FILE",                                                                      \
            "with --stream: see what was written and seen with FILE, on whatever node", 0, 0                 \
    }

static const struct ctl_option read_options[] = {
    {"from", 'F', CTL_NUMBER, "LSN", "first entry, 1 without it", 0, UINT64_MAX - 1},
    {"count", 'n', CTL_NUMBER, "N", "most entries printed", 0, UINT64_MAX},
    SINCE_OPTION,
    STREAM_OPTIONS,
    LOG_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_read = {
    .name = "read",
    .values = "",
    .summary = "Read entries of the log",
    .more =
        "Exit 1 when --from is behind the end of the log; at the end there is nothing to print, which is 0.\n"
        "Exit 1 too where entries are damaged or trimmed: it says from which LSN on to read again.\n"
        "--format raw prints each payload and a newline; --format json one object a line, with\n"
        "\"payload\" for UTF-8 and \"payload_base64\" for other bytes.\n\n"
        "With --stream, the events of that stream in all logs: what every node has written, as far as the\n"
        "node has applied it. They come in the order in which this node got to know them: of each log that\n"
        "is its own order, and what was written with a session comes after what that had seen; other events\n"
        "of several logs may come in another order on another node. Events that cannot be read are named on\n"
        "standard error, the others are printed, and the exit code is 1. With --from, --log or --node it is\n"
        "one log, of which the events of the stream are shown.",
    .options = read_options,
    .raw = true,
    .of_log = true,
    .reads = true,
    .run = run_read,
};

static const struct ctl_option tail_options[] = {
    {"lines", 'n', CTL_NUMBER, "N", "start N entries before the end of the log, 10 without it", 0,
     UINT64_MAX},
    {"follow", 'f', CTL_FLAG, NULL, "wait for more, until Ctrl-C; over restarts of the node too", 0, 0},
    SINCE_OPTION,
    STREAM_OPTIONS,
    LOG_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_tail = {
    .name = "tail",
    .values = "",
    .summary = "Print the newest entries, and with -f those that come",
    .more = "With --stream, the newest events of that stream in all logs, as read --stream has them.",
    .options = tail_options,
    .raw = true,
    .of_log = true,
    .reads = true,
    .run = run_tail,
};
