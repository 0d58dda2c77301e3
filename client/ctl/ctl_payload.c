/* Entries as lines: raw (the payload and a newline), JSON (one object a line), text (for people). */
#include "ctl.h"

#include <inttypes.h>

#include "frame.h"

static const char *const kind_names[] = {"event", "put", "delete", "add", NULL, "cursor"};

/* NULL: of a newer version. */
static const char *kind_name(uint8_t kind)
{
    return kind < sizeof kind_names / sizeof kind_names[0] ? kind_names[kind] : NULL;
}

static void print_json(const struct sh_event *e)
{
    struct ctl_json j = {0};
    char kind[16];
    snprintf(kind, sizeof kind, "%u", e->kind);
    json_open(&j, NULL, '{');
    json_uint(&j, "lsn", e->lsn);
    json_uint(&j, "time_ms", e->hlc >> 16);
    json_uint(&j, "hlc", e->hlc);
    json_text(&j, "kind", kind_name(e->kind) != NULL ? kind_name(e->kind) : kind);
    if (e->kind == ENTRY_EVENT) {
        json_slice(&j, "stream", slice_of(e->stream, e->stream_bytes));
        json_bytes(&j, "payload", slice_of(e->payload, e->payload_bytes));
    } else if (kind_name(e->kind) != NULL) {
        json_bytes(&j, "key", slice_of(e->key, e->key_bytes));
        if (e->kind == ENTRY_PUT)
            json_bytes(&j, "payload", slice_of(e->payload, e->payload_bytes));
        if (e->kind == ENTRY_ADD)
            json_int(&j, "delta", e->delta);
    }
    json_close(&j, '}');
    json_print(&j);
}

static void print_text(const struct ctl *ctl, const struct sh_event *e, struct buf *line)
{
    char time[CTL_TEXT_MAX];
    line->len = 0;
    buf_printf(line, "%s%10" PRIu64 "%s  %s  ", ctl_style(ctl, CTL_BOLD), e->lsn, ctl_style(ctl, CTL_PLAIN),
               ctl_time((int64_t)(e->hlc >> 16) * NS_PER_MS, time));
    if (e->kind == ENTRY_EVENT) {
        if (e->stream_bytes > 0) {
            buf_append_str(line, ctl_style(ctl, CTL_GREEN));
            ctl_safe(line, slice_of(e->stream, e->stream_bytes));
            buf_printf(line, "%s  ", ctl_style(ctl, CTL_PLAIN));
        }
        ctl_safe(line, slice_of(e->payload, e->payload_bytes));
    } else if (kind_name(e->kind) != NULL) {
        buf_printf(line, "%s ", kind_name(e->kind));
        ctl_safe(line, slice_of(e->key, e->key_bytes));
        if (e->kind == ENTRY_ADD)
            buf_printf(line, " %+" PRId64, e->delta);
        buf_append_str(line, e->kind == ENTRY_PUT ? " = " : "");
        ctl_safe(line, slice_of(e->payload, e->payload_bytes));
    } else {
        buf_printf(line, "(an entry of kind %u, of a newer version)", e->kind);
    }
    buf_append_str(line, "\n");
    fwrite_unlocked(line->data, 1, line->len, stdout);
}

void ctl_print_event(const struct ctl *ctl, const struct sh_event *e, struct buf *scratch)
{
    if (ctl->format == CTL_JSON) {
        print_json(e);
    } else if (ctl->format == CTL_RAW) {
        fwrite_unlocked(e->payload, 1, e->payload_bytes, stdout);
        putc_unlocked('\n', stdout);
    } else {
        print_text(ctl, e, scratch);
    }
}
