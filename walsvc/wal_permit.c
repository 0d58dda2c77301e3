/* The permit's file. Nothing here is fatal. */
#include "wal_permit.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "checked_text.h"
#include "failpoint.h"
#include "log.h"
#include "telemetry_push.h"

static const char name[] = "permit", first_line[] = "shanghai permit 1\n";
enum { REASON_BYTES_MAX = 256 }; /* of the message */
_Static_assert((int)REASON_BYTES_MAX < (int)WAL_REASON_MAX, "a reason fits");

static enum sh_error read_file(struct wal_permit *p)
{
    struct checked_text text;
    struct id16 log;
    char *uuid, *writes, *reason;
    enum sh_error error = checked_text_read(&text, p->fs, p->data, name, first_line);
    if (error != SH_OK)
        return error;
    if (!checked_text_take(&text, "log", &uuid) || !checked_text_take(&text, "writes", &writes) ||
        !checked_text_take(&text, "reason", &reason) || !checked_text_at_end(&text) ||
        !id16_parse(uuid, &log) || strlen(reason) > REASON_BYTES_MAX)
        return SH_CORRUPT;
    if (!id16_equal(log, p->log))
        return SH_CONFLICT;
    p->refused = strcmp(writes, "refused") == 0;
    snprintf(p->reason, sizeof p->reason, "%s", reason);
    return p->refused || strcmp(writes, "allowed") == 0 ? SH_OK : SH_CORRUPT;
}

enum service_exit wal_permit_open(struct wal_permit *p, const struct vfs *fs, const char *data,
                                  struct id16 log)
{
    char path[PATH_MAX];
    *p = (struct wal_permit){.fs = fs, .data = data, .log = log};
    enum sh_error error = read_file(p);
    vfs_path(path, data, name);
    p->known = error == SH_OK || error == SH_NOT_FOUND;
    if (p->known) {
        if (p->refused)
            log_warn("the node does not take writes", log_text("reason", p->reason));
        return EXIT_DONE;
    }
    if (error == SH_INTERNAL)
        return EXIT_FAULT;
    if (error == SH_VERSION_MISMATCH) {
        log_error("the write permit has a format that this version doesn't know", log_text("file", path));
        return EXIT_CONFIG;
    }
    const char *what = error == SH_CONFLICT ? "is of another log" : "is damaged";
    p->refused = true;
    snprintf(p->reason, sizeof p->reason,
             "the file %.300s %s: no writes are taken until membersvc has said whether they may be", path,
             what);
    log_error(p->reason);
    return EXIT_DONE;
}

void wal_permit_start(const struct wal_permit *p, struct wal_core *core)
{
    if (p->refused)
        wal_core_refuse_writes(core, p->reason);
}

/* One line of text: control characters become blanks. */
static void copy_reason(const struct msg_write_permit *m, char out[WAL_REASON_MAX])
{
    static const char unnamed[] = "the node does not take writes now";
    struct slice text = m->allowed ? (struct slice){0} : m->reason;
    if (!m->allowed && text.len == 0)
        text = slice_str(unnamed);
    for (size_t i = 0; i < text.len; i++)
        out[i] = (char)(text.data[i] < 0x20 || text.data[i] == 0x7f ? ' ' : text.data[i]);
    out[text.len] = 0;
}

static int write_file(const struct wal_permit *p)
{
    char uuid[ID_TEXT];
    struct buf lines = {0};
    id16_format(p->log, uuid);
    buf_printf(&lines, "%slog %s\nwrites %s\nreason %s\n", first_line, uuid,
               p->refused ? "refused" : "allowed", p->reason);
    int result = checked_text_write(&lines, p->fs, p->data, name);
    buf_free(&lines);
    failpoint_hit("permit_written");
    return result;
}

int wal_permit_take(struct wal_permit *p, struct wal_core *core, struct link_token token,
                    const struct msg_write_permit *m)
{
    struct wal_permit next = *p;
    copy_reason(m, next.reason);
    next.refused = !m->allowed;
    next.known = true;
    if (next.refused)
        wal_core_refuse_writes(core, next.reason);
    bool is_news = !p->known || p->refused != next.refused || strcmp(p->reason, next.reason) != 0;
    p->known = p->known && !is_news; /* when it fails, who knows what the file says */
    int result = is_news ? write_file(&next) : 0;
    if (result < 0)
        return result;
    if (is_news)
        event_warn(next.refused ? "writes_refused" : "writes_taken",
                   next.refused ? "no writes are taken from now on" : "writes are taken from now on",
                   log_text("reason", next.reason));
    *p = next;
    if (!next.refused)
        wal_core_allow_writes(core);
    wal_core_when_settled(core, token);
    return 0;
}
