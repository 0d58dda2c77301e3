/* log verify and log dump: they read a data directory, whether a node runs or not. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "log.h"
#include "log_reader.h"
#include "log_verify.h"

#define DATA_OPTION                                                                                          \
    {                                                                                                        \
        "data", 'd', CTL_WORD, "DIR", "the node's data directory; without it, that of --config", 0, 0        \
    }

int ctl_fail_no_log(const struct ctl *ctl, const char *data)
{
    char text[CONFIG_PATH_MAX + 64];
    struct stat about;
    if (stat(data, &about) != 0)
        snprintf(text, sizeof text, "%s", strerror(errno));
    else if (!S_ISDIR(about.st_mode))
        snprintf(text, sizeof text, "not a directory");
    else
        snprintf(text, sizeof text, "there is no log in it; a data directory holds log/UUID/*.seg");
    ctl_fail(ctl, data, SH_NOT_FOUND, text);
    return CTL_FAILED;
}

int ctl_fail_path(const struct ctl *ctl, const char *path, int failed_errno)
{
    if (failed_errno == 0 && access(path, R_OK) != 0)
        failed_errno = errno;
    bool forbidden = failed_errno == EACCES || failed_errno == EPERM;
    const char *text = failed_errno != 0 ? strerror(failed_errno) : "cannot be read";
    struct stat about;
    if (!forbidden && stat(path, &about) == 0 && !S_ISREG(about.st_mode) && !S_ISDIR(about.st_mode))
        text = "not a regular file";
    return ctl_fail_text(ctl, path, forbidden ? SH_FORBIDDEN : SH_INTERNAL, text);
}

int ctl_fail_version(const struct ctl *ctl, const char *path)
{
    return ctl_fail_text(ctl, path, SH_VERSION_MISMATCH, "it is of another format version than this tool");
}

/* ---------------------------------------------------------------- verify */

struct walk {
    const struct ctl *ctl;
    struct ctl_progress progress;
    struct json_writer json; /* damages, or one frame */
    uint64_t left;           /* frames to dump */
    struct buf logs;         /* struct log_verified of each */
};

static void on_log(void *arg, const struct log_verified *log)
{
    struct walk *w = arg;
    buf_append(&w->logs, log, sizeof *log);
}

/* The logs that were walked. */
static const struct log_verified *logs_of(const struct walk *w, size_t *count)
{
    *count = w->logs.len / sizeof(struct log_verified);
    return (const struct log_verified *)(const void *)w->logs.data;
}

static void on_damage(void *arg, const struct log_damage *d)
{
    struct walk *w = arg;
    if (w->ctl->format != CTL_JSON) {
        char when[CTL_TEXT_MAX], lsns[64];
        bool accepted = d->accepted_ms != 0;
        if (d->next_lsn > d->first_lsn)
            snprintf(lsns, sizeof lsns, "LSN %" PRIu64 " to %" PRIu64, d->first_lsn, d->next_lsn - 1);
        else
            snprintf(lsns, sizeof lsns, "from LSN %" PRIu64, d->first_lsn);
        ctl_progress_end(&w->progress);
        printf("%s%s%s  %s  offset %" PRIu64 "  bytes %" PRIu64 "  %s: %s%s%s\n",
               ctl_style(w->ctl, accepted ? CTL_YELLOW : CTL_RED), accepted ? "accepted loss" : "damage",
               ctl_style(w->ctl, CTL_PLAIN), d->file, d->offset, d->bytes, lsns, d->what,
               accepted ? "; accepted " : "", accepted ? ctl_time(d->accepted_ms * NS_PER_MS, when) : "");
        return;
    }
    json_open(&w->json, NULL, '{');
    json_uuid(&w->json, "log", d->log.bytes);
    json_text(&w->json, "file", d->file);
    json_uint(&w->json, "offset", d->offset);
    json_uint(&w->json, "bytes", d->bytes);
    json_uint(&w->json, "first_lsn", d->first_lsn);
    json_uint(&w->json, "next_lsn", d->next_lsn);
    json_text(&w->json, "what", d->what);
    if (d->accepted_ms != 0)
        json_int(&w->json, "accepted_ms", d->accepted_ms);
    else
        json_null(&w->json, "accepted_ms");
    json_close(&w->json, '}');
}

static void on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct walk *w = arg;
    char a[CTL_TEXT_MAX], b[CTL_TEXT_MAX], note[80];
    snprintf(note, sizeof note, "%s of %s", ctl_bytes(done, a), ctl_bytes(total, b));
    ctl_progress_show(&w->progress, done, total, note);
}

static void print_report_json(struct walk *w, const struct log_verify_report *r)
{
    json_close(&w->json, ']');
    size_t count;
    const struct log_verified *logs = logs_of(w, &count);
    json_open(&w->json, "each_log", '[');
    for (size_t i = 0; i < count; i++) {
        json_open(&w->json, NULL, '{');
        json_uuid(&w->json, "log", logs[i].log.bytes);
        json_bool(&w->json, "copy", logs[i].is_copy);
        json_uint(&w->json, "segments", logs[i].segments);
        json_uint(&w->json, "entries", logs[i].entries);
        json_uint(&w->json, "last_lsn", logs[i].last_lsn);
        json_uint(&w->json, "damages", logs[i].damages);
        json_close(&w->json, '}');
    }
    json_close(&w->json, ']');
    json_uint(&w->json, "logs", r->logs);
    json_uint(&w->json, "segments", r->segments);
    json_uint(&w->json, "frames", r->frames);
    json_uint(&w->json, "entries", r->entries);
    json_uint(&w->json, "bytes", r->bytes);
    json_uint(&w->json, "accepted_losses", r->accepted);
    json_uint(&w->json, "unsynced_bytes", r->unsynced_bytes);
    json_uint(&w->json, "last_lsn", r->last_lsn);
    json_close(&w->json, '}');
    json_print(&w->json);
}

static void print_logs(const struct walk *w)
{
    char uuid[ID_TEXT], entries[CTL_TEXT_MAX];
    size_t count;
    const struct log_verified *logs = logs_of(w, &count);
    for (size_t i = 0; i < count; i++) {
        const struct log_verified *log = &logs[i];
        id16_format(log->log, uuid);
        printf("log  %s  %s  %s entr%s, up to LSN %" PRIu64 "%s\n", uuid, log->is_copy ? "copy" : "own ",
               ctl_grouped(log->entries, entries), log->entries == 1 ? "y" : "ies", log->last_lsn,
               log->damages > 0 ? ", damaged" : "");
    }
}

static void print_report_text(const struct walk *w, const struct log_verify_report *r)
{
    char entries[CTL_TEXT_MAX], frames[CTL_TEXT_MAX], bytes[CTL_TEXT_MAX];
    bool good = r->damages == 0;
    print_logs(w);
    printf("%s%s%s: %s entr%s in %s frame%s, %" PRIu64 " segment%s, %s%s%s\n",
           ctl_style(w->ctl, good ? CTL_GREEN : CTL_RED), good ? "good" : "damaged",
           ctl_style(w->ctl, CTL_PLAIN), ctl_grouped(r->entries, entries), r->entries == 1 ? "y" : "ies",
           ctl_grouped(r->frames, frames), r->frames == 1 ? "" : "s", r->segments,
           r->segments == 1 ? "" : "s", ctl_bytes(r->bytes, bytes),
           r->accepted > 0 ? ", beside what was accepted as lost" : "",
           r->unsynced_bytes > 0 ? " (and bytes not known to be synced, which is no damage)" : "");
}

static int exit_of(const struct ctl *ctl, enum sh_error e, const char *data,
                   const struct log_verify_report *r)
{
    if (e == SH_OK || e == SH_CORRUPT)
        return e == SH_OK ? CTL_DONE : CTL_NO;
    if (e == SH_NOT_FOUND)
        return ctl_fail_no_log(ctl, data);
    if (e == SH_VERSION_MISMATCH)
        return ctl_fail_version(ctl, r->failed_path);
    return e == SH_INTERNAL ? ctl_fail_path(ctl, r->failed_path, r->failed_errno)
                            : ctl_fail(ctl, data, e, "");
}

static int run_verify(struct ctl *ctl)
{
    struct walk w = {.ctl = ctl};
    struct log_verify_report report;
    struct log_verify_options options = {
        .on_damage = on_damage, .on_log = on_log, .on_progress = on_progress, .arg = &w};
    char data[CONFIG_PATH_MAX];
    log_set_level(LOG_ERROR + 1); /* what fails is told here, once */
    if (!ctl_data_dir(ctl, data, sizeof data))
        return CTL_USAGE;
    ctl_progress_start(&w.progress, "verify");
    json_open(&w.json, NULL, '{');
    json_open(&w.json, "damages", '[');
    enum sh_error e = log_verify(vfs_posix(), data, &options, &report);
    ctl_progress_end(&w.progress);
    if (e == SH_OK || e == SH_CORRUPT) {
        if (ctl->format == CTL_JSON)
            print_report_json(&w, &report);
        else
            print_report_text(&w, &report);
    }
    if (ctl->format != CTL_JSON)
        buf_free(&w.json.out);
    buf_free(&w.logs);
    return exit_of(ctl, e, data, &report);
}

static const struct ctl_option verify_options[] = {
    DATA_OPTION,
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_log_verify = {
    .name = "log verify",
    .values = "",
    .summary = "Check every frame of a data directory",
    .more = "Needs no node, takes no lock, and works beside a running one: what isn't synced yet is no\n"
            "damage. Exit 1 when there is damage: file, offset and LSN are named. Exit 3 when it could not\n"
            "be looked at: no log there, no permission, another format version. A loss that was accepted is\n"
            "named as such, and is no damage.",
    .options = verify_options,
    .reads = true,
    .run = run_verify,
};

/* ---------------------------------------------------------------- dump */

static const char *kind_name(uint8_t kind)
{
    static const char *const names[] = {"data", "checkpoint", "clock", "close", "loss"};
    return kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

static void dump_json(struct walk *w, const struct log_frame *f)
{
    json_open(&w->json, NULL, '{');
    json_uuid(&w->json, "log", f->log.bytes);
    json_text(&w->json, "file", f->file);
    json_uint(&w->json, "offset", f->offset);
    json_text(&w->json, "kind", kind_name(f->header->kind));
    json_uint(&w->json, "lsn", f->header->base_lsn);
    json_uint(&w->json, "count", f->header->count);
    json_uint(&w->json, "body_bytes", f->header->body_bytes);
    json_uint(&w->json, "checksum", f->header->checksum);
    json_uint(&w->json, "hlc", f->header->hlc);
    json_uuid(&w->json, "producer", f->header->producer.bytes);
    json_uint(&w->json, "epoch", f->header->epoch);
    json_uint(&w->json, "sequence", f->header->sequence);
    json_uint(&w->json, "durable_end", f->header->durable_end);
    json_bool(&w->json, "durable", f->durable);
    json_close(&w->json, '}');
    json_print(&w->json);
    w->json = (struct json_writer){0};
}

static bool on_frame(void *arg, const struct log_frame *f)
{
    struct walk *w = arg;
    const struct frame_header *h = f->header;
    char name[SEGMENT_NAME_MAX];
    if (h->base_lsn + h->count <= ctl_number(w->ctl, "from", 0))
        return true;
    if (w->left-- == 0 || !ctl_can_print())
        return false;
    if (w->ctl->format == CTL_JSON) {
        dump_json(w, f);
        return true;
    }
    segment_name(f->segment->base_lsn, name);
    printf("%s %10" PRIu64 "  %-10s lsn %-10" PRIu64 " count %-6u bytes %-8u crc %08x  sequence %" PRIu64
           "%s\n",
           name, f->offset, kind_name(h->kind), h->base_lsn, h->count, h->body_bytes, h->checksum,
           h->sequence, f->durable ? "" : "  not known to be synced");
    return true;
}

static void on_dump_damage(void *arg, const struct log_damage *d)
{
    (void)arg;
    fprintf(stderr, "shanghaictl: %s in %s at offset %" PRIu64 ": %s\n",
            d->accepted_ms != 0 ? "accepted loss" : "damage", d->file, d->offset, d->what);
}

static int run_dump(struct ctl *ctl)
{
    struct walk w = {.ctl = ctl, .left = ctl_number(ctl, "count", UINT64_MAX)};
    struct log_verify_report report;
    struct log_verify_options options = {
        .from_lsn = ctl_number(ctl, "from", 0), .on_damage = on_dump_damage, .on_frame = on_frame, .arg = &w};
    char data[CONFIG_PATH_MAX];
    log_set_level(LOG_ERROR + 1); /* what fails is told here, once */
    if (!ctl_data_dir(ctl, data, sizeof data))
        return CTL_USAGE;
    enum sh_error e = log_verify(vfs_posix(), data, &options, &report);
    return exit_of(ctl, e, data, &report);
}

static const struct ctl_option dump_options[] = {
    DATA_OPTION,
    {"from", 'F', CTL_NUMBER, "LSN", "first entry whose frame is shown", 0, UINT64_MAX},
    {"count", 'n', CTL_NUMBER, "N", "most frames shown", 0, UINT64_MAX},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_log_dump = {
    .name = "log dump",
    .values = "",
    .summary = "List the frames of a data directory, a line each",
    .more =
        "Needs no node, like log verify, and has its exit codes: 1 when there is damage, 3 when it could\n"
        "not be looked at.",
    .options = dump_options,
    .reads = true,
    .run = run_dump,
};
