/* kv watch: changes of keys as a node applies them. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 500, SESSION_BYTES_MAX = 1 << 16 };

/* ---------------------------------------------------------------- where to begin */

/* NULL with CTL_DONE: without --from-session, from now on. */
static int open_session(const struct ctl *ctl, struct sh_session **out)
{
    const char *path = ctl_word(ctl, "from-session", NULL);
    *out = NULL;
    if (path == NULL)
        return CTL_DONE;
    FILE *in = fopen(path, "re");
    if (in == NULL)
        return ctl_fail_path(ctl, path, errno);
    char *text = xcalloc(1, SESSION_BYTES_MAX + 1);
    size_t len = fread(text, 1, SESSION_BYTES_MAX, in);
    int code = ferror(in) != 0 ? ctl_fail_path(ctl, path, EIO) : CTL_DONE;
    fclose(in);
    *out = sh_session_new();
    if (code == CTL_DONE && (strlen(text) != len || sh_session_take(*out, text) != SH_OK))
        code = ctl_fail_text(ctl, path, SH_BAD_REQUEST,
                             "not the file of a session: a line for each log, its uuid and an LSN");
    free(text);
    if (code == CTL_DONE)
        return code;
    sh_session_free(*out);
    *out = NULL;
    return code;
}

/* ---------------------------------------------------------------- changes */

static const char *verb_of(enum sh_entry_kind kind)
{
    return kind == SH_ENTRY_PUT ? "put" : kind == SH_ENTRY_DELETE ? "del" : "incr";
}

static void print_json(const struct sh_change *c)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_text(&j, "change", verb_of(c->kind));
    json_bytes(&j, "key", slice_of(c->key, c->key_bytes));
    if (c->kind == SH_ENTRY_PUT)
        json_bytes(&j, "value", slice_of(c->value, c->value_bytes));
    if (c->kind == SH_ENTRY_ADD)
        json_int(&j, "delta", c->delta);
    if (c->expires_ms > 0)
        json_int(&j, "expires_ms", c->expires_ms);
    json_open(&j, "version", '{');
    json_uuid(&j, "log", c->version.log);
    json_uint(&j, "lsn", c->version.lsn);
    json_uint(&j, "hlc", c->version.hlc);
    json_close(&j, '}');
    json_close(&j, '}');
    json_print(&j);
}

static void add_bytes(const struct ctl *ctl, struct buf *line, const void *bytes, size_t len)
{
    if (ctl->format == CTL_RAW)
        buf_append(line, bytes, len);
    else
        ctl_safe(line, slice_of(bytes, len));
}

/* As `kv txn` takes it. */
static void print_line(const struct ctl *ctl, const struct sh_change *c)
{
    struct buf line = {0};
    buf_printf(&line, "%s ", verb_of(c->kind));
    add_bytes(ctl, &line, c->key, c->key_bytes);
    if (c->kind == SH_ENTRY_PUT) {
        buf_append_str(&line, " ");
        add_bytes(ctl, &line, c->value, c->value_bytes);
    } else if (c->kind == SH_ENTRY_ADD) {
        buf_printf(&line, " %" PRId64, c->delta);
    }
    buf_append_str(&line, "\n");
    fwrite(line.data, 1, line.len, stdout);
    buf_free(&line);
}

/* What was printed is flushed before waiting, and a reader that went away ends it with SH_NOT_FOUND. */
static enum sh_error next(struct sh_watch *watch, struct sh_change *change)
{
    enum sh_error e = sh_watch_next(watch, 0, change);
    while (e == SH_TIMEOUT || e == SH_UNAVAILABLE) {
        if (fflush(stdout) != 0 || !ctl_is_read())
            return SH_NOT_FOUND;
        e = sh_watch_next(watch, WAIT_MS, change);
    }
    return e;
}

/* CTL_NO: something was missing. */
static int print_all(const struct ctl *ctl, struct sh_watch *watch, uint64_t left)
{
    struct sh_change change;
    int code = CTL_DONE;
    while (left > 0 && ctl_can_print()) {
        enum sh_error e = next(watch, &change);
        if (e == SH_TRIMMED || e == SH_CORRUPT) {
            fflush(stdout);
            ctl_fail_text(ctl, "kv watch", e, sh_last_error_detail());
            code = CTL_NO;
            continue;
        }
        if (e != SH_OK)
            return e == SH_NOT_FOUND ? code : ctl_fail_node(ctl, "kv watch", e, sh_last_error_detail());
        if (ctl->format == CTL_JSON)
            print_json(&change);
        else
            print_line(ctl, &change);
        left--;
    }
    return code;
}

static int run_watch(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_session *from;
    struct sh_watch *watch = NULL;
    const char *prefix = ctl_word(ctl, "prefix", "");
    int code = open_session(ctl, &from);
    if (code == CTL_DONE)
        code = ctl_open(ctl, &client);
    if (code != CTL_DONE) {
        sh_session_free(from);
        return code;
    }
    const struct sh_watch_options o = {.prefix = prefix, .prefix_bytes = strlen(prefix), .from = from};
    enum sh_error e = sh_watch_open(client, &o, &watch);
    code = e == SH_OK ? print_all(ctl, watch, ctl_number(ctl, "count", UINT64_MAX))
                      : ctl_fail_node(ctl, "kv watch", e, sh_last_error_detail());
    sh_watch_close(watch);
    sh_close(client);
    sh_session_free(from);
    return code;
}

static const struct ctl_option watch_options[] = {
    {"prefix", 'p', CTL_WORD, "P", "only keys that begin so", 0, 0},
    {"from-session", 'S', CTL_WORD, "FILE",
     "begins behind what was written and seen with that session; without it, from now on", 0, 0},
    {"count", 'n', CTL_NUMBER, "N", "ends after N changes", 0, UINT64_MAX},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_kv_watch = {
    .name = "kv watch",
    .values = "",
    .summary = "Changes of keys as the node applies them, until Ctrl-C",
    .more =
        "A line for each put, delete and addition of whatever node, as kv txn takes them; each once, over\n"
        "restarts of the node too. Those of one node come in their order; of those that are there, the\n"
        "oldest first. --format json tells the version of each. An empty FILE begins with the first\n"
        "entries. Exit 1 when entries that were asked for are trimmed or damaged on this node: it says so\n"
        "on standard error, and goes on.",
    .options = watch_options,
    .raw = true,
    .reads = true,
    .run = run_watch,
};
