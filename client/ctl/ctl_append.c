/* What an append depends on, and what became of it, as people write and read it. Nothing is fatal. */
#include "ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool ctl_parse_position(const char *text, const char *nothing, struct sh_version *out)
{
    const char *colon = strchr(text, ':');
    char uuid[ID_TEXT], *end;
    struct id16 log;
    *out = (struct sh_version){.lsn = 0};
    if (nothing != NULL && strcmp(text, nothing) == 0)
        return true;
    if (colon == NULL || (size_t)(colon - text) != sizeof uuid - 1 || colon[1] < '0' || colon[1] > '9')
        return false;
    memcpy(uuid, text, sizeof uuid - 1);
    uuid[sizeof uuid - 1] = 0;
    errno = 0;
    out->lsn = strtoull(colon + 1, &end, 10);
    if (errno != 0 || *end != 0 || out->lsn == 0 || !id16_parse(uuid, &log))
        return false;
    memcpy(out->log, log.bytes, sizeof out->log);
    return true;
}

bool ctl_position(const struct ctl *ctl, const char *option, const char *text, const char *nothing,
                  struct sh_version *out)
{
    if (ctl_parse_position(text, nothing, out))
        return true;
    ctl_usage(ctl, "--%s must be a log's uuid, a colon and an LSN%s%s, not `%s`", option,
              nothing != NULL ? ", or " : "", nothing != NULL ? nothing : "", text);
    return false;
}

/* Fields behind others. */
static void add_current(struct json_writer *j, const struct sh_conflict *conflict)
{
    j->comma = true;
    json_uint(j, "condition", conflict->condition);
    if (conflict->current.lsn == 0) {
        json_null(j, "current");
        return;
    }
    json_open(j, "current", '{');
    json_uuid(j, "log", conflict->current.log);
    json_uint(j, "lsn", conflict->current.lsn);
    json_uint(j, "hlc", conflict->current.hlc);
    json_close(j, '}');
}

static void add_request(struct json_writer *j, const struct sh_append_id *id)
{
    j->comma = true;
    json_open(j, "request", '{');
    json_uuid(j, "producer", id->producer);
    json_uint(j, "epoch", id->epoch);
    json_uint(j, "sequence", id->sequence);
    json_uint(j, "first", id->first);
    json_uint(j, "count", id->count);
    json_close(j, '}');
}

static void add_question(struct buf *text, const struct sh_append_id *id)
{
    struct id16 producer;
    char uuid[ID_TEXT];
    memcpy(producer.bytes, id->producer, sizeof producer.bytes);
    id16_format(producer, uuid);
    buf_printf(text, "; whether it landed says: shanghaictl producer status %s %" PRIu64, uuid, id->sequence);
    if (id->epoch != 1)
        buf_printf(text, " --epoch %" PRIu32, id->epoch);
}

int ctl_fail_append(const struct ctl *ctl, const char *what, enum sh_error error, const char *detail,
                    const struct sh_append_id *id, const struct sh_conflict *conflict)
{
    struct json_writer fields = {0};
    struct buf text = {0};
    bool is_conflict = error == SH_CONFLICT && conflict != NULL && conflict->condition != SIZE_MAX;
    ctl_node_error_text(ctl, error, detail, &text);
    if (is_conflict)
        add_current(&fields, conflict);
    else if (id->sequence > 0)
        add_request(&fields, id);
    if (id->sequence > 0)
        add_question(&text, id);
    int code = ctl_fail_more(ctl, what, error, buf_cstr(&text), buf_cstr(&fields.out));
    buf_free(&fields.out);
    buf_free(&text);
    return is_conflict ? CTL_NO : code;
}
