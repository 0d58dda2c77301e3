/* What comes out: messages to send, and notices for the log. Both queues are bounded. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "log.h"
#include "member_parts.h"
#include "telemetry.h"

enum { SENDS_KEPT = 64 << 10, MEMBER_PORT = 2 };

/* In front of each message that waits, followed by id and host, each with a NUL, and the message. */
struct waiting {
    uint32_t message_bytes;
    uint16_t id_bytes, host_bytes, port; /* bytes without the NUL */
    bool fresh;
};

static struct waiting first_of(const struct member_core *core)
{
    struct waiting head;
    memcpy(&head, core->sends.data + core->sends_at, sizeof head);
    return head;
}

static size_t bytes_of(const struct waiting *head)
{
    return sizeof *head + head->id_bytes + 1u + head->host_bytes + 1u + head->message_bytes;
}

/* What was taken makes room. */
static void tidy(struct member_core *core)
{
    struct buf *b = &core->sends;
    if (core->sends_at == b->len) {
        core->sends_at = b->len = 0;
        if (b->cap > SENDS_KEPT)
            buf_free(b);
    } else if (core->sends_at > b->len / 2) {
        memmove(b->data, b->data + core->sends_at, b->len - core->sends_at);
        b->len -= core->sends_at;
        core->sends_at = 0;
    }
}

struct address address_of(const struct member_core *core, const struct member *m)
{
    return (struct address){.id = slice_str(m->id),
                            .host = table_host(m),
                            .port = m->port,
                            .fresh = core->awake_ns - m->direct_ns > core->timing.suspect_ns};
}

void out_send(struct member_core *core, const struct address *to, struct slice message)
{
    struct waiting head = {.message_bytes = (uint32_t)message.len,
                           .id_bytes = (uint16_t)to->id.len,
                           .host_bytes = (uint16_t)to->host.len,
                           .port = (uint16_t)(to->port + MEMBER_PORT),
                           .fresh = to->fresh};
    while (core->sends_at < core->sends.len &&
           core->sends.len - core->sends_at + bytes_of(&head) > SENDS_MAX) {
        struct waiting oldest = first_of(core);
        core->sends_at += bytes_of(&oldest);
        core->counters.dropped++;
    }
    tidy(core);
    buf_append(&core->sends, &head, sizeof head);
    buf_append(&core->sends, to->id.data, to->id.len);
    buf_append(&core->sends, "", 1);
    buf_append(&core->sends, to->host.data, to->host.len);
    buf_append(&core->sends, "", 1);
    buf_append(&core->sends, message.data, message.len);
    core->counters.sent++;
    core->counters.sent_bytes += message.len;
    telemetry_add(TELEMETRY_member_sent, 0, 1);
    telemetry_add(TELEMETRY_member_sent_bytes, 0, message.len);
}

bool member_core_next_send(struct member_core *core, struct member_send *out)
{
    if (core->sends_at == core->sends.len)
        return false;
    struct waiting head = first_of(core);
    const uint8_t *at = core->sends.data + core->sends_at + sizeof head;
    out->id = (const char *)at;
    out->host = (const char *)at + head.id_bytes + 1;
    out->port = head.port;
    out->fresh = head.fresh;
    out->message = slice_of(at + head.id_bytes + 1 + head.host_bytes + 1, head.message_bytes);
    core->sends_at += bytes_of(&head);
    return true;
}

/* ------------------------------------------------------------ notices */

/* Whether it is a minute since this was said last. When all places are taken by what is younger, nothing is:
 * whoever invents senders doesn't fill the log. */
static bool may_complain(struct member_core *core, const char *key, struct slice id)
{
    const int64_t minute_ns = 60 * NS_PER_S;
    uint64_t name = digest64(slice_str(key)) * 31 + digest64(id);
    struct complaint *oldest = &core->complaints[0];
    for (unsigned i = 0; i < COMPLAINTS_MAX; i++) {
        struct complaint *c = &core->complaints[i];
        if (c->key == name && core->now.mono_ns - c->at_ns < minute_ns)
            return false;
        if (c->key == name || c->at_ns < oldest->at_ns)
            oldest = c;
        if (c->key == name)
            break;
    }
    if (core->now.mono_ns - oldest->at_ns < minute_ns)
        return false;
    *oldest = (struct complaint){name, core->now.mono_ns};
    return true;
}

static struct member_notice *next_notice(struct member_core *core)
{
    if (core->notice_count == core->notice_cap && core->notice_cap < NOTICES_MAX) {
        uint32_t cap = core->notice_cap > 0 ? core->notice_cap * 2 : 4;
        struct member_notice *more = xcalloc(cap, sizeof *more);
        for (uint32_t i = 0; i < core->notice_count; i++)
            more[i] = core->notices[(core->notice_first + i) % core->notice_cap];
        free(core->notices);
        core->notices = more;
        core->notice_first = 0;
        core->notice_cap = cap;
    }
    if (core->notice_count == core->notice_cap) {
        core->notice_first = (core->notice_first + 1) % core->notice_cap;
        core->notice_count--;
    }
    return &core->notices[(core->notice_first + core->notice_count++) % core->notice_cap];
}

void out_notice(struct member_core *core, int level, const char *key, struct slice id, const char *text,
                const char *format, ...)
{
    if (key[0] != 0 && !may_complain(core, key, id))
        return;
    struct member_notice *n = next_notice(core);
    *n = (struct member_notice){.level = level, .text = text};
    size_t bytes = id.len < sizeof n->id - 1 ? id.len : sizeof n->id - 1;
    if (bytes > 0)
        memcpy(n->id, id.data, bytes);
    va_list args;
    va_start(args, format);
    vsnprintf(n->detail, sizeof n->detail, format, args);
    va_end(args);
}

bool member_core_next_notice(struct member_core *core, struct member_notice *out)
{
    if (core->notice_count == 0)
        return false;
    *out = core->notices[core->notice_first];
    core->notice_first = (core->notice_first + 1) % core->notice_cap;
    if (--core->notice_count == 0) {
        free(core->notices);
        core->notices = NULL;
        core->notice_cap = core->notice_first = 0;
    }
    return true;
}
