/* kv: keys, written and read. What they are written with is an append like any other. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frame.h"

enum { CONDITIONS_MAX = 256 };
enum { SCAN_COUNT = 1000, SCAN_COUNT_MAX = 1000000000, GET_KEYS_MAX = 1000 };

/* ---------------------------------------------------------------- rows */

static void json_row(struct json_writer *j, const struct sh_row *row, bool keys_only)
{
    json_open(j, NULL, '{');
    json_bytes(j, "key", slice_of(row->key, row->key_bytes));
    if (row->has_value && !keys_only)
        json_bytes(j, "value", slice_of(row->value, row->value_bytes));
    if (row->has_counter)
        json_int(j, "counter", row->counter);
    if (row->version.lsn > 0) {
        json_open(j, "version", '{');
        json_uuid(j, "log", row->version.log);
        json_uint(j, "lsn", row->version.lsn);
        json_uint(j, "hlc", row->version.hlc);
        json_close(j, '}');
    }
    if (row->expires_ms > 0)
        json_int(j, "expires_ms", row->expires_ms);
    json_close(j, '}');
}

/* The value, or the counter, as it is; with its key when there are several. */
static void print_row(const struct ctl *ctl, const struct sh_row *row, bool with_key, bool keys_only)
{
    struct buf line = {0};
    bool raw = ctl->format == CTL_RAW;
    if (with_key) {
        buf_append_str(&line, raw ? "" : ctl_style(ctl, CTL_BOLD));
        if (raw)
            buf_append(&line, row->key, row->key_bytes);
        else
            ctl_safe(&line, slice_of(row->key, row->key_bytes));
        buf_append_str(&line, raw ? "" : ctl_style(ctl, CTL_PLAIN));
        buf_append_str(&line, keys_only ? "" : "\t");
    }
    if (row->has_value && !keys_only && raw)
        buf_append(&line, row->value, row->value_bytes);
    else if (row->has_value && !keys_only)
        ctl_safe(&line, slice_of(row->value, row->value_bytes));
    else if (row->has_counter && !keys_only)
        buf_printf(&line, "%" PRId64, row->counter);
    buf_append_str(&line, "\n");
    fwrite(line.data, 1, line.len, stdout);
    buf_free(&line);
}

/* ---------------------------------------------------------------- get */

static int print_got(const struct ctl *ctl, const struct sh_rows *rows)
{
    struct json_writer j = {0};
    bool all = true;
    if (ctl->format == CTL_JSON)
        json_open(&j, NULL, '[');
    for (size_t i = 0; i < rows->count; i++) {
        const struct sh_row *row = &rows->rows[i];
        bool found = row->has_value || row->has_counter;
        all = all && found;
        if (found && ctl->format == CTL_JSON)
            json_row(&j, row, false);
        else if (found)
            print_row(ctl, row, rows->count > 1, false);
    }
    if (ctl->format == CTL_JSON) {
        json_close(&j, ']');
        json_print(&j);
    }
    if (!all && ctl->format != CTL_JSON)
        fputs(rows->count > 1 ? "some of these keys have no value\n" : "the key has no value\n", stderr);
    return all ? CTL_DONE : CTL_NO;
}

static int run_get(struct ctl *ctl)
{
    struct ctl_session run;
    struct sh_rows rows;
    if (ctl->value_count > GET_KEYS_MAX)
        return ctl_usage(ctl, "kv get: 1,000 keys at most");
    struct sh_key *keys = xcalloc((size_t)ctl->value_count, sizeof *keys);
    for (int i = 0; i < ctl->value_count; i++)
        keys[i] = (struct sh_key){ctl->values[i], strlen(ctl->values[i])};
    int code = ctl_session_open(ctl, &run);
    if (code == CTL_DONE) {
        enum sh_error e = sh_kv_get(run.client, run.session, keys, (size_t)ctl->value_count, &rows);
        code = e == SH_OK ? print_got(ctl, &rows) : ctl_fail_node(ctl, "kv get", e, sh_last_error_detail());
        sh_rows_free(&rows);
        code = ctl_session_close(&run, code);
    }
    free(keys);
    return code;
}

static const struct ctl_option get_options[] = {
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_kv_get = {
    .name = "kv get",
    .values = "KEY...",
    .summary = "The values of keys",
    .more =
        "With several keys, a line each: key, tab, value. A key without a value, but with a counter, shows\n"
        "the counter; --format json shows both. The exit code is 1 when a key has neither.\n"
        "A node answers with what it has applied: what was just written, here or on another node, may be\n"
        "missing for a moment. With --session it waits, as long as --timeout allows, until it has applied\n"
        "what was written and seen with that file.",
    .options = get_options,
    .values_least = 1,
    .values_most = -1,
    .raw = true,
    .reads = true,
    .run = run_get,
};

/* ---------------------------------------------------------------- scan */

struct scan_print {
    struct json_writer j;
    uint64_t rows;
};

static enum sh_error scan_all(struct ctl_session *run, struct sh_scan_options *o, uint64_t most,
                              struct scan_print *print)
{
    struct sh_rows rows = {0}, before = {0};
    enum sh_error e = SH_OK;
    do {
        uint64_t left = most - print->rows;
        o->most = left < SCAN_COUNT ? (uint32_t)left : SCAN_COUNT;
        e = sh_kv_scan(run->client, run->session, o, &rows);
        if (e != SH_OK)
            break;
        for (size_t i = 0; i < rows.count; i++)
            if (run->ctl->format == CTL_JSON)
                json_row(&print->j, &rows.rows[i], o->keys_only);
            else
                print_row(run->ctl, &rows.rows[i], true, o->keys_only);
        print->rows += rows.count;
        sh_rows_free(&before);
        before = rows; /* keeps its last key */
        o->behind = before.last;
        o->behind_bytes = before.last_bytes;
    } while (before.more && print->rows < most && ctl_can_print());
    sh_rows_free(&before);
    return e;
}

static int run_scan(struct ctl *ctl)
{
    struct ctl_session run;
    struct scan_print print = {0};
    const char *behind = ctl_word(ctl, "behind", NULL);
    struct sh_scan_options o = {
        .prefix = ctl->value_count > 0 ? ctl->values[0] : NULL,
        .prefix_bytes = ctl->value_count > 0 ? strlen(ctl->values[0]) : 0,
        .behind = behind,
        .behind_bytes = behind != NULL ? strlen(behind) : 0,
        .keys_only = ctl_has(ctl, "keys-only"),
    };
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    if (ctl->format == CTL_JSON)
        json_open(&print.j, NULL, '[');
    enum sh_error e = scan_all(&run, &o, ctl_number(ctl, "count", SCAN_COUNT_MAX), &print);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "kv scan", e, sh_last_error_detail());
    if (ctl->format == CTL_JSON && e == SH_OK) {
        json_close(&print.j, ']');
        json_print(&print.j);
    } else {
        buf_free(&print.j.out);
    }
    return ctl_session_close(&run, code);
}

static const struct ctl_option scan_options[] = {
    {"count", 'n', CTL_NUMBER, "N", "at most N keys; all without it", 1, SCAN_COUNT_MAX},
    {"behind", 'b', CTL_WORD, "KEY", "only keys that come after this one, to go on where a scan ended", 0, 0},
    {"keys-only", 'k', CTL_FLAG, NULL, "without values and counters", 0, 0},
    CTL_SESSION_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_kv_scan = {
    .name = "kv scan",
    .values = "[PREFIX]",
    .summary = "All keys that begin with a prefix, and their values",
    .more =
        "In the order of their bytes, a line each: key, tab, value; without a value, its counter. All keys\n"
        "without PREFIX. When there are many the node is asked again for each thousand, or each MiB: what "
        "is\n"
        "written meanwhile may be seen, or not. With several replication groups it shows the keys of that\n"
        "node's group (see `group of`).",
    .options = scan_options,
    .values_most = 1,
    .raw = true,
    .reads = true,
    .run = run_scan,
};

/* ---------------------------------------------------------------- writes */

static int report(const struct ctl *ctl, enum sh_ack wanted, const struct sh_append_result *r)
{
    struct id16 log;
    char uuid[ID_TEXT];
    memcpy(log.bytes, r->log, sizeof log.bytes);
    id16_format(log, uuid);
    if (ctl->format == CTL_JSON) {
        struct json_writer j = {0};
        json_open(&j, NULL, '{');
        json_text(&j, "log", uuid);
        json_uint(&j, "lsn", r->first_lsn);
        json_uint(&j, "count", r->count);
        json_uint(&j, "hlc", r->hlc);
        json_text(&j, "ack", ctl_ack_name(r->ack));
        json_close(&j, '}');
        json_print(&j);
    }
    if (r->ack >= wanted)
        return CTL_DONE;
    ctl_fail_text(
        ctl, ctl->command->name, SH_NO_QUORUM,
        "it is durable on this node, did not reach what was asked for in time, and may still do so");
    return CTL_NO;
}

/* What is written, and on what condition. */
struct write {
    const struct sh_entry *entries;
    uint32_t count;
    const struct sh_condition *conditions;
    size_t condition_count;
};

static int write_entries(struct ctl *ctl, const struct write *write)
{
    struct ctl_session run;
    struct sh_append_result result;
    struct sh_append_id id;
    struct sh_conflict conflict = {.condition = SIZE_MAX};
    enum sh_ack wanted;
    if (!ctl_ack(ctl, &wanted))
        return CTL_USAGE;
    int code = ctl_session_open(ctl, &run);
    if (code != CTL_DONE)
        return code;
    const struct sh_append_options options = {
        .session = run.session,
        .conditions = write->conditions,
        .condition_count = write->condition_count,
        .conflict = &conflict,
    };
    enum sh_error e = sh_append_with(run.client, write->entries, write->count, wanted, &options, &result);
    sh_last_append(&id);
    if (e != SH_OK)
        code = ctl_fail_append(ctl, ctl->command->name, e, sh_last_error_detail(), &id, &conflict);
    else
        code = report(ctl, wanted, &result);
    return ctl_session_close(&run, code);
}

/* --if-version and --if-absent, of the one key. False (said): not usable so. */
static bool take_condition(struct ctl *ctl, struct sh_condition *condition, size_t *count)
{
    const char *version = ctl_word(ctl, "if-version", NULL);
    bool is_absent = ctl_has(ctl, "if-absent");
    *condition = (struct sh_condition){
        .kind = SH_IF_KEY, .name = ctl->values[0], .name_bytes = strlen(ctl->values[0])};
    *count = version != NULL || is_absent;
    if (version != NULL && is_absent) {
        ctl_usage(ctl, "--if-version and --if-absent exclude each other");
        return false;
    }
    return version == NULL || ctl_position(ctl, "if-version", version, NULL, &condition->at);
}

static int run_put(struct ctl *ctl)
{
    struct buf input = {0};
    struct sh_condition condition;
    size_t conditions;
    struct sh_entry e = {
        .kind = SH_ENTRY_PUT,
        .key = ctl->values[0],
        .key_bytes = strlen(ctl->values[0]),
        .payload = ctl->values[1],
        .payload_bytes = strlen(ctl->values[1]),
        .ttl_ms = ctl_number(ctl, "ttl", 0) / NS_PER_MS,
    };
    if (!take_condition(ctl, &condition, &conditions))
        return CTL_USAGE;
    if (strcmp(ctl->values[1], "-") == 0) {
        if (!ctl_read_all(stdin, &input))
            return ctl_fail_path(ctl, "standard input", EIO);
        e.payload = buf_cstr(&input);
        e.payload_bytes = input.len;
    }
    int code = write_entries(ctl, &(struct write){&e, 1, &condition, conditions});
    buf_free(&input);
    return code;
}

#define IF_VERSION                                                                                           \
    {                                                                                                        \
        "if-version", 'v', CTL_WORD, "LOG:LSN",                                                              \
            "only if the value was written there, as kv get in JSON says", 0, 0                              \
    }

static const struct ctl_option put_options[] = {
    IF_VERSION,
    {"if-absent", 'A', CTL_FLAG, NULL, "only if the key has no value, or none any more", 0, 0},
    {"ttl", 't', CTL_TIME, "T", "how long the value lasts, like 30s or 12h; for ever without it", NS_PER_MS,
     UINT64_C(3153600000) * NS_PER_S},
    CTL_SESSION_OPTION,
    CTL_ACK_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_kv_put = {
    .name = "kv put",
    .values = "KEY VALUE|-",
    .summary = "Give a key a value",
    .more =
        "It is durable when this ends. With - the value is all of standard input, as it is, its last "
        "newline\n"
        "included. When several nodes write a key, all of them keep the later write, by the clocks of the\n"
        "nodes.\n"
        "With a condition nothing is written when it does not hold: the exit code is 1, and the error says\n"
        "what is there (`current` in JSON). Nothing comes between the look and the write on this node; let\n"
        "one node write a key that is written so, since others are not asked.",
    .options = put_options,
    .values_least = 2,
    .values_most = 2,
    .run = run_put,
};

static int run_del(struct ctl *ctl)
{
    struct sh_condition condition;
    size_t conditions;
    if (!take_condition(ctl, &condition, &conditions))
        return CTL_USAGE;
    if (conditions > 0 && ctl->value_count > 1)
        return ctl_usage(ctl, "kv del: --if-version is of one key");
    struct sh_entry *entries = xcalloc((size_t)ctl->value_count, sizeof *entries);
    for (int i = 0; i < ctl->value_count; i++)
        entries[i] = (struct sh_entry){
            .kind = SH_ENTRY_DELETE, .key = ctl->values[i], .key_bytes = strlen(ctl->values[i])};
    int code =
        write_entries(ctl, &(struct write){entries, (uint32_t)ctl->value_count, &condition, conditions});
    free(entries);
    return code;
}

static const struct ctl_option del_options[] = {
    IF_VERSION,
    CTL_SESSION_OPTION,
    CTL_ACK_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

static const struct ctl_option write_options[] = {
    CTL_SESSION_OPTION,
    CTL_ACK_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_kv_del = {
    .name = "kv del",
    .values = "KEY...",
    .summary = "Delete the values of keys, all or none",
    .more = "Whether they have one or not. Their counters stay as they are. With --if-version the exit code "
            "is 1\n"
            "when the key has another value, or none.",
    .options = del_options,
    .values_least = 1,
    .values_most = -1,
    .run = run_del,
};

/* False: not a number of 64 bits. */
static bool parse_delta(const char *text, int64_t *delta)
{
    char *end;
    errno = 0;
    *delta = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == 0;
}

static int run_incr(struct ctl *ctl)
{
    struct sh_entry e = {
        .kind = SH_ENTRY_ADD, .key = ctl->values[0], .key_bytes = strlen(ctl->values[0]), .delta = 1};
    if (ctl->value_count > 1 && !parse_delta(ctl->values[1], &e.delta))
        return ctl_usage(ctl, "kv incr: not a number of 64 bits: %s", ctl->values[1]);
    return write_entries(ctl, &(struct write){&e, 1, NULL, 0});
}

const struct ctl_command cmd_kv_incr = {
    .name = "kv incr",
    .values = "KEY [N]",
    .summary = "Add to a key's counter, 1 or N",
    .more = "A counter begins at 0, has 64 bits, and is apart from the key's value. Whoever adds on whatever "
            "node,\n"
            "each addition counts exactly once. Before a negative N stands --, as in: kv incr k -- -5\n"
            "It prints nothing; kv get shows the counter.",
    .options = write_options,
    .values_least = 1,
    .values_most = 2,
    .run = run_incr,
};

/* ---------------------------------------------------------------- txn */

struct txn {
    struct sh_entry *entries; /* point into the input */
    uint32_t count, room;
    struct sh_condition conditions[CONDITIONS_MAX];
    size_t condition_count;
};

/* A word of the line, up to a space; NULL: there is none. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \t"), *end = word + strcspn(word, " \t");
    *line = *end != 0 ? end + 1 : end;
    *end = 0;
    return *word != 0 ? word : NULL;
}

/* NULL, or what is wrong with it. */
static const char *add_condition(struct txn *t, const char *key, char **line)
{
    const char *at = next_word(line);
    if (at == NULL || next_word(line) != NULL)
        return "if takes a key, and LOG:LSN or absent";
    if (t->condition_count == CONDITIONS_MAX)
        return "more than 256 conditions";
    struct sh_condition *condition = &t->conditions[t->condition_count++];
    *condition = (struct sh_condition){.kind = SH_IF_KEY, .name = key, .name_bytes = strlen(key)};
    return ctl_parse_position(at, "absent", &condition->at) ? NULL : "not LOG:LSN, nor absent";
}

/* NULL, or what is wrong with the line. */
static const char *add_line(struct txn *t, char *line)
{
    struct sh_entry e = {0};
    const char *verb = next_word(&line), *key = next_word(&line);
    if (verb == NULL)
        return NULL; /* an empty line */
    if (key == NULL)
        return "a key is missing";
    if (strcmp(verb, "if") == 0)
        return add_condition(t, key, &line);
    if (t->count == ENTRIES_MAX)
        return "more than 65,536 operations";
    e.key = key;
    e.key_bytes = strlen(key);
    e.delta = 1;
    if (strcmp(verb, "put") == 0) {
        e.kind = SH_ENTRY_PUT;
        e.payload = line;
        e.payload_bytes = strlen(line);
    } else if (strcmp(verb, "del") == 0) {
        e.kind = SH_ENTRY_DELETE;
        if (next_word(&line) != NULL)
            return "del takes one key";
    } else if (strcmp(verb, "incr") == 0) {
        e.kind = SH_ENTRY_ADD;
        if (*line != 0 && !parse_delta(line, &e.delta))
            return "not a number of 64 bits";
    } else {
        return "an operation is put, del, incr or if";
    }
    if (t->count == t->room) {
        t->room = t->room > 0 ? 2 * t->room : 64;
        t->entries = xrealloc(t->entries, t->room * sizeof *t->entries);
    }
    t->entries[t->count++] = e;
    return NULL;
}

/* False, and said: a line is wrong. */
static bool parse_txn(struct ctl *ctl, struct buf *input, struct txn *t)
{
    char *line = (char *)(uintptr_t)buf_cstr(input);
    const char *behind = line + input->len;
    for (unsigned number = 1; line < behind; number++) {
        char *end = line + strcspn(line, "\n"), *next = end + 1;
        bool has_nul = *end == 0 && end < behind;
        *end = 0;
        const char *why = has_nul ? "a NUL byte" : add_line(t, line);
        if (why != NULL) {
            ctl_usage(ctl, "kv txn: line %u: %s", number, why);
            return false;
        }
        line = next;
    }
    if (t->count == 0)
        ctl_usage(ctl, "kv txn: no operation on standard input");
    return t->count > 0;
}

static int run_txn(struct ctl *ctl)
{
    struct buf input = {0};
    struct txn t = {0};
    int code = CTL_USAGE;
    if (!ctl_read_all(stdin, &input))
        return ctl_fail_path(ctl, "standard input", EIO);
    if (parse_txn(ctl, &input, &t))
        code = write_entries(ctl, &(struct write){t.entries, t.count, t.conditions, t.condition_count});
    free(t.entries);
    buf_free(&input);
    return code;
}

const struct ctl_command cmd_kv_txn = {
    .name = "kv txn",
    .values = "",
    .summary = "Several writes, all or none",
    .more = "Reads operations from standard input, one a line:\n"
            "  put KEY VALUE    the value is the rest of the line\n"
            "  del KEY\n"
            "  incr KEY [N]\n"
            "  if KEY LOG:LSN   nothing is done unless the key's value was written there\n"
            "  if KEY absent    nothing is done unless the key has no value\n"
            "A bad line is named, and then none is done. They are durable together, and on each node become\n"
            "visible together. Their keys belong to one replication group (see `group of`).",
    .options = write_options,
    .run = run_txn,
};
