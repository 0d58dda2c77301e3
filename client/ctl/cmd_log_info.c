/* log info: asks the node, or reads a data directory, which works whether the node runs or not. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config.h"
#include "log.h"
#include "log_reader.h"

/* What is known of the log. */
struct info {
    struct sh_log_info log;
    struct sh_wal_info wal; /* when walsvc answers */
    bool has_wal, is_away;
    int64_t now_ns;
};

static const char *const hold_kinds[] = {"hold", "member", "view", "reader", "backup", "cursor"};
static const char *const next_states[] = {"being prepared", "ready", "no room for it"};

static const char *kind_of(const struct sh_hold *hold)
{
    return hold_kinds[(unsigned)hold->kind < sizeof hold_kinds / sizeof hold_kinds[0] ? hold->kind : 0];
}

/* What walsvc says of the segment; NULL when it doesn't. */
static const struct sh_kept_segment *kept_of(const struct info *info, uint64_t base_lsn)
{
    for (size_t low = 0, high = info->wal.segment_count; low < high;) {
        size_t middle = (low + high) / 2;
        if (info->wal.segments[middle].base_lsn == base_lsn)
            return &info->wal.segments[middle];
        if (info->wal.segments[middle].base_lsn < base_lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* 0: the segment is being written, and holds nothing yet. */
static uint64_t last_lsn(const struct info *info, size_t i)
{
    bool is_last = i + 1 == info->log.segment_count;
    uint64_t next = is_last ? info->log.durable_lsn + 1 : info->log.segments[i + 1].base_lsn;
    return next > info->log.segments[i].base_lsn ? next - 1 : 0;
}

/* Since the last entry of a sealed segment; -1: not known. */
static int64_t age_ns(const struct info *info, size_t i)
{
    if (i + 1 == info->log.segment_count)
        return -1;
    const struct sh_kept_segment *kept = kept_of(info, info->log.segments[i].base_lsn);
    int64_t last_ns =
        kept != NULL && kept->last_ns > 0 ? kept->last_ns : info->log.segments[i + 1].created_ns;
    return info->now_ns > last_ns ? info->now_ns - last_ns : 0;
}

/* Calls fn with the name of each thing that holds the segment back. */
static void each_holder(const struct info *info, const struct sh_kept_segment *s,
                        void (*fn)(void *arg, const char *name), void *arg)
{
    char text[96];
    if (s->next_lsn == 0) {
        fn(arg, "being written");
        return;
    }
    if (s->damaged_header)
        fn(arg, "damaged header");
    if (s->above_mark)
        fn(arg, "durable mark");
    if (!s->due)
        fn(arg, "retention");
    for (size_t i = 0; i < info->wal.hold_count; i++) {
        const struct sh_hold *hold = &info->wal.holds[i];
        if (hold->broken || hold->lsn >= s->next_lsn)
            continue;
        snprintf(text, sizeof text, "%s %s", kind_of(hold), hold->name);
        fn(arg, text);
    }
}

/* ---------------------------------------------------------------- JSON */

static void add_name(void *arg, const char *name)
{
    json_text(arg, NULL, name);
}

static void print_segment_json(struct json_writer *j, const struct info *info, size_t i)
{
    const struct sh_segment *s = &info->log.segments[i];
    const struct sh_kept_segment *kept = kept_of(info, s->base_lsn);
    int64_t age = age_ns(info, i);
    json_open(j, NULL, '{');
    json_uint(j, "base_lsn", s->base_lsn);
    json_uint(j, "last_lsn", last_lsn(info, i));
    json_uint(j, "position", s->position);
    json_uint(j, "file_bytes", s->file_bytes);
    json_uint(j, "created_ms", (uint64_t)(s->created_ns / NS_PER_MS));
    if (age < 0)
        json_null(j, "age_ms");
    else
        json_int(j, "age_ms", age / NS_PER_MS);
    json_bool(j, "sealed", s->sealed);
    if (kept == NULL) {
        json_null(j, "held_by");
    } else {
        json_open(j, "held_by", '[');
        each_holder(info, kept, add_name, j);
        json_close(j, ']');
    }
    json_close(j, '}');
}

static void print_hold_json(struct json_writer *j, const struct sh_hold *hold)
{
    json_open(j, NULL, '{');
    json_text(j, "kind", kind_of(hold));
    json_text(j, "name", hold->name);
    json_uint(j, "lsn", hold->lsn);
    if (hold->expires_ns == 0)
        json_null(j, "expires_ms");
    else
        json_int(j, "expires_ms", hold->expires_ns / NS_PER_MS);
    json_bool(j, "broken", hold->broken);
    json_uint(j, "kept_bytes", hold->kept_bytes);
    json_close(j, '}');
}

static void print_damage_json(struct json_writer *j, const struct sh_damage *d)
{
    json_open(j, NULL, '{');
    json_text(j, "file", d->file);
    json_uint(j, "offset", d->offset);
    json_uint(j, "bytes", d->bytes);
    json_uint(j, "first_lsn", d->first_lsn);
    json_uint(j, "next_lsn", d->next_lsn);
    json_text(j, "state", d->accepted_ns != 0 ? "accepted" : d->differs ? "differs" : "open");
    json_int(j, "found_ms", d->found_ns / NS_PER_MS);
    if (d->accepted_ns == 0)
        json_null(j, "accepted_ms");
    else
        json_int(j, "accepted_ms", d->accepted_ns / NS_PER_MS);
    if (d->copy[0] == 0)
        json_null(j, "copy");
    else
        json_text(j, "copy", d->copy);
    json_close(j, '}');
}

static void print_wal_json(struct json_writer *j, const struct sh_wal_info *w)
{
    json_open(j, "retention", '{');
    json_uint(j, "bytes", w->retention_bytes);
    json_uint(j, "age_ms", w->retention_age_ns / NS_PER_MS);
    json_uint(j, "member_hold_max", w->member_hold_max);
    json_close(j, '}');
    json_open(j, "disk", '{');
    json_uint(j, "free", w->disk_free);
    json_uint(j, "total", w->disk_total);
    json_uint(j, "reserve", w->disk_reserve);
    json_text(j, "next_segment", next_states[w->next_segment]);
    json_close(j, '}');
    json_open(j, "scrub", '{');
    json_uint(j, "rate", w->scrub_rate);
    json_uint(j, "interval_ms", w->scrub_interval_ns / NS_PER_MS);
    json_bool(j, "running", w->scrubbing);
    json_uint(j, "done", w->scrub_done);
    json_uint(j, "total", w->scrub_total);
    json_uint(j, "damages", w->scrub_damages);
    if (w->scrub_last_ns == 0)
        json_null(j, "last_full_pass_ms");
    else
        json_int(j, "last_full_pass_ms", w->scrub_last_ns / NS_PER_MS);
    json_close(j, '}');
    json_open(j, "holds", '[');
    for (size_t i = 0; i < w->hold_count; i++)
        print_hold_json(j, &w->holds[i]);
    json_close(j, ']');
    json_open(j, "damages", '[');
    for (size_t i = 0; i < w->damage_count; i++)
        print_damage_json(j, &w->damages[i]);
    json_close(j, ']');
}

static void print_json(const struct info *info)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_uuid(&j, "log", info->log.log);
    json_uint(&j, "first_lsn", info->log.first_lsn);
    json_uint(&j, "durable_lsn", info->log.durable_lsn);
    json_uint(&j, "durable_end", info->log.durable_end);
    json_open(&j, "segments", '[');
    for (size_t i = 0; i < info->log.segment_count; i++)
        print_segment_json(&j, info, i);
    json_close(&j, ']');
    json_bool(&j, "closed", info->wal.closed);
    json_bool(&j, "walsvc", info->has_wal);
    if (info->has_wal)
        print_wal_json(&j, &info->wal);
    json_close(&j, '}');
    json_print(&j);
}

/* ---------------------------------------------------------------- text */

static void join_name(void *arg, const char *name)
{
    struct buf *names = arg;
    buf_append_str(names, names->len > 0 ? ", " : "");
    ctl_safe(names, slice_str(name));
}

static void print_retention(const struct ctl *ctl, const struct sh_wal_info *w)
{
    char a[CTL_TEXT_MAX], b[CTL_TEXT_MAX];
    if (w->retention_bytes == 0 && w->retention_age_ns == 0)
        ctl_line(ctl, "retention", "unlimited");
    else
        ctl_line(ctl, "retention", "%s, %s",
                 w->retention_bytes == 0 ? "any size" : ctl_bytes(w->retention_bytes, a),
                 w->retention_age_ns == 0 ? "any age" : ctl_duration((int64_t)w->retention_age_ns, b));
}

static void print_disk(const struct ctl *ctl, const struct sh_wal_info *w)
{
    char a[CTL_TEXT_MAX], b[CTL_TEXT_MAX], c[CTL_TEXT_MAX];
    ctl_line(ctl, "disk", "%s free of %s, %s of it in reserve; next segment: %s", ctl_bytes(w->disk_free, a),
             ctl_bytes(w->disk_total, b), ctl_bytes(w->disk_reserve, c), next_states[w->next_segment]);
}

static void print_scrub(const struct ctl *ctl, const struct sh_wal_info *w)
{
    char a[CTL_TEXT_MAX], b[CTL_TEXT_MAX], pass[96] = "", last[CTL_TEXT_MAX + 32] = "no full pass yet";
    if (w->scrubbing)
        snprintf(pass, sizeof pass, "%s of %s done, ", ctl_bytes(w->scrub_done, a),
                 ctl_bytes(w->scrub_total, b));
    if (w->scrub_last_ns > 0)
        snprintf(last, sizeof last, "last full pass %s", ctl_time(w->scrub_last_ns, a));
    if (w->scrub_rate == 0)
        ctl_line(ctl, "scrub", "off; %s", last);
    else
        ctl_line(ctl, "scrub", "%s/s each %s; %s%" PRIu64 " damaged range%s; %s", ctl_bytes(w->scrub_rate, a),
                 ctl_duration((int64_t)w->scrub_interval_ns, b), pass, w->scrub_damages,
                 w->scrub_damages == 1 ? "" : "s", last);
}

static void print_holds(const struct ctl *ctl, const struct info *info)
{
    static const char *const heads[] = {"hold", "name", ">LSN", ">keeps beyond retention", "expires"};
    struct ctl_table table = {0};
    char a[CTL_TEXT_MAX], b[CTL_TEXT_MAX];
    if (info->wal.hold_count == 0)
        return;
    puts("");
    ctl_table_head(&table, 5, heads);
    for (size_t i = 0; i < info->wal.hold_count; i++) {
        const struct sh_hold *hold = &info->wal.holds[i];
        struct buf name = {0};
        ctl_safe(&name, slice_str(hold->name));
        ctl_table_cell(&table, "%s", kind_of(hold));
        ctl_table_cell(&table, "%s", buf_cstr(&name));
        ctl_table_cell(&table, "%" PRIu64, hold->lsn);
        ctl_table_cell(&table, "%s", ctl_bytes(hold->kept_bytes, a));
        ctl_table_cell(&table, "%s",
                       hold->broken            ? "broken: must begin anew"
                       : hold->expires_ns == 0 ? "never"
                                               : ctl_time(hold->expires_ns, b));
        buf_free(&name);
    }
    ctl_table_print(ctl, &table);
}

/* One line, with what to do. */
static void print_damage(const struct ctl *ctl, const struct sh_wal_info *w)
{
    size_t open = 0;
    for (size_t i = 0; i < w->damage_count; i++)
        open += w->damages[i].accepted_ns == 0;
    if (open > 0)
        ctl_line(
            ctl, "damage",
            "%zu open, %zu accepted, see below; stop the node and put the files back from a copy, or give up "
            "what nobody has: shanghaictl log accept-loss FIRST LAST",
            open, w->damage_count - open);
    else if (w->damage_count > 0)
        ctl_line(ctl, "damage", "none open; %zu accepted as lost", w->damage_count);
}

static void add_damage(struct ctl_table *table, const struct sh_damage *d)
{
    struct buf file = {0}, copy = {0};
    char when[CTL_TEXT_MAX];
    ctl_safe(&file, slice_str(d->file));
    ctl_safe(&copy, slice_str(d->copy));
    ctl_table_cell(table, "%s", buf_cstr(&file));
    ctl_table_cell(table, "%" PRIu64, d->offset);
    ctl_table_cell(table, "%" PRIu64, d->bytes);
    if (d->next_lsn > d->first_lsn)
        ctl_table_cell(table, "%" PRIu64 " to %" PRIu64, d->first_lsn, d->next_lsn - 1);
    else
        ctl_table_cell(table, "none");
    if (d->accepted_ns != 0)
        ctl_table_cell(table, "accepted %s", ctl_time(d->accepted_ns, when));
    else
        ctl_table_cell(table, d->differs ? "not as at its origin" : "open");
    ctl_table_cell(table, "%s", d->copy[0] != 0 ? buf_cstr(&copy) : "");
    buf_free(&file);
    buf_free(&copy);
}

static void print_damages(const struct ctl *ctl, const struct sh_wal_info *w)
{
    static const char *const heads[] = {"damaged file", ">offset", ">bytes", "LSN", "state", "copy"};
    struct ctl_table table = {0};
    if (w->damage_count == 0)
        return;
    puts("");
    ctl_table_head(&table, 6, heads);
    for (size_t i = 0; i < w->damage_count; i++)
        add_damage(&table, &w->damages[i]);
    ctl_table_print(ctl, &table);
}

static void print_segments(const struct ctl *ctl, const struct info *info)
{
    static const char *const heads[] = {">first LSN", ">last LSN", ">position", ">size",
                                        ">age",       "state",     "held by"};
    struct ctl_table table = {0};
    char a[CTL_TEXT_MAX];
    ctl_table_head(&table, 7, heads);
    for (size_t i = 0; i < info->log.segment_count; i++) {
        const struct sh_segment *s = &info->log.segments[i];
        const struct sh_kept_segment *kept = kept_of(info, s->base_lsn);
        struct buf names = {0};
        int64_t age = age_ns(info, i);
        if (kept != NULL && kept->next_lsn != 0)
            each_holder(info, kept, join_name, &names);
        ctl_table_cell(&table, "%" PRIu64, s->base_lsn);
        ctl_table_cell(&table, "%" PRIu64, last_lsn(info, i));
        ctl_table_cell(&table, "%" PRIu64, s->position);
        ctl_table_cell(&table, "%s", ctl_bytes(s->file_bytes, a));
        ctl_table_cell(&table, "%s", age < 0 ? "" : ctl_duration(age, a));
        ctl_table_cell(&table, "%s", s->sealed ? "sealed" : "being written");
        ctl_table_cell(&table, "%s", buf_cstr(&names));
        buf_free(&names);
    }
    ctl_table_print(ctl, &table);
}

static void print_text(const struct ctl *ctl, const struct info *info)
{
    char a[CTL_TEXT_MAX], b[CTL_TEXT_MAX];
    struct id16 log;
    char uuid[ID_TEXT];
    memcpy(log.bytes, info->log.log, sizeof log.bytes);
    id16_format(log, uuid);
    ctl_line(ctl, "log", "%s", uuid);
    ctl_line(ctl, "entries", "LSN %s to %s", ctl_grouped(info->log.first_lsn, a),
             ctl_grouped(info->log.durable_lsn, b));
    ctl_line(ctl, "durable", "%s", ctl_bytes(info->log.durable_end, a));
    if (info->wal.closed)
        ctl_line(ctl, "closed", "at LSN %s: nobody extends it, and all of the group hold it up to there",
                 ctl_grouped(info->log.durable_lsn, a));
    if (info->has_wal) {
        print_retention(ctl, &info->wal);
        print_disk(ctl, &info->wal);
        print_scrub(ctl, &info->wal);
        print_damage(ctl, &info->wal);
    } else if (info->is_away) {
        ctl_line(ctl, "walsvc", "does not answer: holds, retention, disk and scrubber are not known");
    }
    puts("");
    print_segments(ctl, info);
    if (info->has_wal) {
        print_holds(ctl, info);
        print_damages(ctl, &info->wal);
    }
}

static void print_info(const struct ctl *ctl, const struct info *info)
{
    if (ctl->format == CTL_JSON)
        print_json(info);
    else
        print_text(ctl, info);
}

/* ---------------------------------------------------------------- sources */

static int fail_file(const struct ctl *ctl, const char *path, enum sh_error error, const char *damage)
{
    if (error == SH_VERSION_MISMATCH)
        return ctl_fail_version(ctl, path);
    return error == SH_INTERNAL ? ctl_fail_path(ctl, path, 0)
                                : ctl_fail(ctl, path, error, error == SH_CORRUPT ? damage : "");
}

/* What the segment files alone tell. */
static int info_of_data(const struct ctl *ctl, const char *data)
{
    struct node_identity node;
    struct log_segment *segments = NULL;
    struct info about_log = {.now_ns = clock_real_ns()};
    struct sh_log_info *info = &about_log.log;
    char dir[PATH_MAX], path[PATH_MAX], uuid[ID_TEXT], bad[SEGMENT_NAME_MAX] = "";
    struct stat about;
    if (stat(data, &about) != 0 || !S_ISDIR(about.st_mode))
        return ctl_fail_no_log(ctl, data);
    snprintf(path, sizeof path, "%.*s/node", CONFIG_PATH_MAX, data);
    enum sh_error e = node_identity_read(vfs_posix(), data, &node);
    if (e == SH_NOT_FOUND)
        return ctl_fail_no_log(ctl, data);
    if (e != SH_OK)
        return fail_file(ctl, path, e, "the node's identity is damaged");
    id16_format(node.log, uuid);
    snprintf(dir, sizeof dir, "%.*s/log/%s", CONFIG_PATH_MAX, data, uuid);
    e = log_list_segments(vfs_posix(), dir, node.log, &segments, &info->segment_count, bad);
    if (e == SH_OK)
        e = log_durable_end(vfs_posix(), dir, node.log, &info->durable_end, &info->durable_lsn);
    if (e == SH_OK) {
        memcpy(info->log, node.log.bytes, sizeof info->log);
        info->first_lsn = segments[0].base_lsn;
        info->segments = xcalloc(info->segment_count, sizeof *info->segments);
        for (size_t i = 0; i < info->segment_count; i++)
            info->segments[i] =
                (struct sh_segment){segments[i].base_lsn, segments[i].position, segments[i].file_bytes,
                                    segments[i].created_ns, segments[i].sealed};
        print_info(ctl, &about_log);
        free(info->segments);
        e = bad[0] != 0 ? SH_CORRUPT : SH_OK;
    }
    free(segments);
    snprintf(path, sizeof path, "%.*s%s%s", PATH_MAX - SEGMENT_NAME_MAX - 1, dir, bad[0] != 0 ? "/" : "",
             bad);
    return e == SH_OK ? CTL_DONE : fail_file(ctl, path, e, "its header is damaged");
}

/* walsvc may be away, or keep no such record of a copy: then the files have to do. */
static enum sh_error ask_node(struct sh_client *client, const uint8_t *log, struct info *info)
{
    enum sh_error e = sh_log_info(client, log, &info->log);
    if (e == SH_NOT_FOUND && log != NULL) {
        if (sh_wal_info(client, log, &info->wal) == SH_TRIMMED)
            return SH_TRIMMED;                    /* it was closed, and dropped here: the detail says so */
        e = sh_log_info(client, log, &info->log); /* with its own detail */
    }
    if (e != SH_OK)
        return e;
    e = sh_wal_info(client, log, &info->wal);
    info->has_wal = e == SH_OK;
    info->is_away = e == SH_UNAVAILABLE || e == SH_TIMEOUT;
    return info->is_away || (log != NULL && e == SH_NOT_FOUND) ? SH_OK : e;
}

static int run_info(struct ctl *ctl)
{
    struct sh_client *client;
    struct info info = {.now_ns = clock_real_ns()};
    char data[CONFIG_PATH_MAX];
    uint8_t log[16];
    log_set_level(LOG_ERROR + 1); /* what fails is told here, once */
    if (ctl_has(ctl, "data") && ctl_has(ctl, "log"))
        return ctl_usage(ctl,
                         "--log is for a node that is asked; --data shows the own log of that directory");
    if (ctl_has(ctl, "data"))
        return ctl_data_dir(ctl, data, sizeof data) ? info_of_data(ctl, data) : CTL_USAGE;
    int code = ctl_open_log(ctl, &client, log);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = ask_node(client, ctl_other_log(log), &info);
    if (e != SH_OK)
        code = ctl_fail_node(ctl, "log info", e, sh_last_error_detail());
    else
        print_info(ctl, &info);
    sh_log_info_free(&info.log);
    sh_wal_info_free(&info.wal);
    sh_close(client);
    return code;
}

static const struct ctl_option info_options[] = {
    {"data", 'd', CTL_WORD, "DIR", "read this data directory instead of asking the node", 0, 0},
    LOG_OPTIONS,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_log_info = {
    .name = "log info",
    .values = "",
    .summary = "The log's segments, and what holds them back",
    .more = "Also shows retention, holds, the disk, the scrubber's progress and damage that is known. While\n"
            "walsvc does not answer, or with --data, what the files tell.",
    .options = info_options,
    .of_log = true,
    .reads = true,
    .run = run_info,
};
