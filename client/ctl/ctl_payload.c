/* Entries as lines: raw (the payload and a newline), JSON (one object a line), text (for people). */
#include "ctl.h"

#include <inttypes.h>
#include <string.h>

#include "frame.h"

static const char *const kind_names[] = {"event", "put", "delete", "add", "after", "cursor"};

/* NULL: of a newer version. */
static const char *kind_name(uint8_t kind)
{
    return kind < sizeof kind_names / sizeof kind_names[0] ? kind_names[kind] : NULL;
}

static bool has_key(uint8_t kind)
{
    return kind == ENTRY_CURSOR || (kind != ENTRY_EVENT && kind <= ENTRY_ADD);
}

static void json_headers(struct json_writer *j, const struct sh_event *e)
{
    struct sh_header h;
    char name[256];
    if (!sh_event_header(e, 0, &h))
        return;
    json_open(j, "headers", '{');
    for (uint32_t i = 0; sh_event_header(e, i, &h); i++) {
        snprintf(name, sizeof name, "%.*s", (int)h.name_bytes, h.name);
        json_bytes(j, name, slice_of(h.value, h.value_bytes));
    }
    json_close(j, '}');
}

static void text_headers(const struct sh_event *e, struct buf *line)
{
    struct sh_header h;
    for (uint32_t i = 0; sh_event_header(e, i, &h); i++) {
        buf_append_str(line, i == 0 ? "  [" : " ");
        ctl_safe(line, slice_of(h.name, h.name_bytes));
        buf_append_str(line, "=");
        ctl_safe(line, slice_of(h.value, h.value_bytes));
    }
    buf_append_str(line, sh_event_header(e, 0, &h) ? "]" : "");
}

static void print_json(const struct sh_event *e, bool with_log)
{
    struct json_writer j = {0};
    char kind[16];
    snprintf(kind, sizeof kind, "%u", e->kind);
    json_open(&j, NULL, '{');
    if (with_log)
        json_uuid(&j, "log", e->log);
    json_uint(&j, "lsn", e->lsn);
    json_uint(&j, "time_ms", e->hlc >> 16);
    json_uint(&j, "hlc", e->hlc);
    json_text(&j, "kind", kind_name(e->kind) != NULL ? kind_name(e->kind) : kind);
    if (e->kind == ENTRY_EVENT) {
        json_slice(&j, "stream", slice_of(e->stream, e->stream_bytes));
        json_bytes(&j, "payload", slice_of(e->payload, e->payload_bytes));
        json_headers(&j, e);
    } else if (has_key(e->kind)) {
        json_bytes(&j, "key", slice_of(e->key, e->key_bytes));
        if (e->kind == ENTRY_PUT)
            json_bytes(&j, "payload", slice_of(e->payload, e->payload_bytes));
        if (e->ttl_ms > 0)
            json_uint(&j, "ttl_ms", e->ttl_ms);
        if (e->kind == ENTRY_ADD)
            json_int(&j, "delta", e->delta);
    }
    json_close(&j, '}');
    json_print(&j);
}

static void print_text(const struct ctl *ctl, const struct sh_event *e, bool with_log, struct buf *line)
{
    char time[CTL_TEXT_MAX], uuid[ID_TEXT];
    struct id16 log;
    line->len = 0;
    memcpy(log.bytes, e->log, sizeof log.bytes);
    id16_format(log, uuid);
    if (with_log)
        buf_printf(line, "%.8s", uuid); /* enough to tell the logs of a cluster apart */
    buf_printf(line, "%s%10" PRIu64 "%s  %s  ", ctl_style(ctl, CTL_BOLD), e->lsn, ctl_style(ctl, CTL_PLAIN),
               ctl_time((int64_t)(e->hlc >> 16) * NS_PER_MS, time));
    if (e->kind == ENTRY_EVENT) {
        if (e->stream_bytes > 0 && !with_log) {
            buf_append_str(line, ctl_style(ctl, CTL_GREEN));
            ctl_safe(line, slice_of(e->stream, e->stream_bytes));
            buf_printf(line, "%s  ", ctl_style(ctl, CTL_PLAIN));
        }
        ctl_safe(line, slice_of(e->payload, e->payload_bytes));
        text_headers(e, line);
    } else if (has_key(e->kind)) {
        buf_printf(line, "%s ", kind_name(e->kind));
        ctl_safe(line, slice_of(e->key, e->key_bytes));
        if (e->kind == ENTRY_ADD)
            buf_printf(line, " %+" PRId64, e->delta);
        buf_append_str(line, e->kind == ENTRY_PUT ? " = " : "");
        ctl_safe(line, slice_of(e->payload, e->payload_bytes));
    } else if (e->kind == ENTRY_AFTER) {
        buf_append_str(line, "(what the writer of the next entries had seen)");
    } else {
        buf_printf(line, "(an entry of kind %u, of a newer version)", e->kind);
    }
    buf_append_str(line, "\n");
    fwrite_unlocked(line->data, 1, line->len, stdout);
}

static void print(const struct ctl *ctl, const struct sh_event *e, bool with_log, struct buf *scratch)
{
    if (ctl->format == CTL_JSON) {
        print_json(e, with_log);
    } else if (ctl->format == CTL_RAW) {
        if (e->payload_bytes > 0)
            fwrite_unlocked(e->payload, 1, e->payload_bytes, stdout);
        putc_unlocked('\n', stdout);
    } else {
        print_text(ctl, e, with_log, scratch);
    }
}

void ctl_print_event(const struct ctl *ctl, const struct sh_event *e, struct buf *scratch)
{
    print(ctl, e, false, scratch);
}

void ctl_print_stream_event(const struct ctl *ctl, const struct sh_event *e, struct buf *scratch)
{
    print(ctl, e, true, scratch);
}
