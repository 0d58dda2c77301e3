/* The link to membersvc: who is in the group, where, and how far the logs are that each holds. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "repl_shell.h"

/* Watermarks make no event: they are looked at again after so long. */
enum { NODES_WAIT_MS = 1000, NODES_AGAIN_MS = 100, ALARMS_MAX = 16 };
enum { STATUS_DOWN = 3, STATUS_LEFT = 5 }; /* of `member` */
enum { STATE_MEMBER = 1 };                 /* of nodes_reply */

/* ---- what it says ---- */

static bool decode_watermarks(struct slice bytes, struct repl_member *out)
{
    struct mp m = mp_of(bytes);
    uint32_t count, parts;
    out->watermark_count = 0;
    if (bytes.len == 0)
        return true;
    if (!mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count && out->watermark_count < REPL_LOGS_MAX; i++) {
        struct repl_watermark *w = &out->watermarks[out->watermark_count];
        struct slice id;
        if (!mp_array(&m, &parts) || parts != 3 || !mp_bin(&m, &id) || id.len != sizeof w->log.bytes ||
            !mp_uint(&m, &w->lsn) || !mp_uint(&m, &w->end))
            return false;
        memcpy(w->log.bytes, id.data, id.len);
        out->watermark_count++;
    }
    return true;
}

static bool copy_text(char *out, size_t size, struct slice text)
{
    if (text.len >= size)
        return false;
    snprintf(out, size, "%.*s", (int)text.len, (const char *)text.data);
    return true;
}

/* *wanted: one of the others of the group, that has not left. */
static bool decode_one(struct slice bytes, const char *group, struct repl_member *out, bool *wanted)
{
    struct msg_node_info info;
    struct msg_member member;
    if (msg_decode(MSG_node_info, bytes, &info) != SH_OK ||
        msg_decode(MSG_member, info.member, &member) != SH_OK)
        return false;
    *wanted = !info.self && member.status != STATUS_LEFT && slice_equal(member.group, slice_str(group));
    if (!*wanted)
        return true;
    out->port = (uint16_t)member.port;
    out->log = member.log;
    out->is_founder = member.generation <= 1;
    out->is_replaced = !id16_is_zero(member.not_log);
    out->up = member.status != STATUS_DOWN && !id16_is_zero(member.log);
    return copy_text(out->id, sizeof out->id, member.id) &&
           copy_text(out->host, sizeof out->host, member.host) && decode_watermarks(info.watermarks, out);
}

bool repl_members_decode(struct slice nodes, const char *group, struct repl_member *out, size_t *count,
                         bool *too_many)
{
    struct mp m = mp_of(nodes);
    uint32_t entries;
    struct slice bytes;
    struct repl_member *spare = xcalloc(1, sizeof *spare);
    bool good = mp_array(&m, &entries);
    *count = 0;
    *too_many = false;
    for (uint32_t i = 0; good && i < entries; i++) {
        bool wanted;
        struct repl_member *member = *count < REPL_MEMBERS_MAX ? &out[*count] : spare;
        good = mp_raw(&m, &bytes) && decode_one(bytes, group, member, &wanted);
        if (!good || !wanted)
            continue;
        if (member == spare)
            *too_many = true;
        else
            ++*count;
    }
    free(spare);
    return good;
}

bool repl_members_has_left(struct slice nodes, struct slice id)
{
    struct mp m = mp_of(nodes);
    uint32_t count;
    struct slice bytes;
    struct msg_node_info info;
    struct msg_member member;
    bool good = mp_array(&m, &count);
    for (uint32_t i = 0; good && i < count; i++) {
        good = mp_raw(&m, &bytes) && msg_decode(MSG_node_info, bytes, &info) == SH_OK &&
               msg_decode(MSG_member, info.member, &member) == SH_OK;
        if (good && slice_equal(member.id, id))
            return member.status == STATUS_LEFT;
    }
    return false;
}

/* ---- the link ---- */

static void ask_nodes(void *arg)
{
    struct repl_service *r = arg;
    const struct msg_nodes nodes = {.next_event = r->next_event, .wait_ms = NODES_WAIT_MS};
    r->body.len = 0;
    msg_encode(MSG_nodes, &nodes, &r->body);
    enum sh_error e =
        link_client_send(r->members, MSG_nodes, 0, buf_slice(&r->body), (struct slice){0}, &r->nodes);
    assert(e == SH_OK); /* ALARMS_MAX leaves room */
}

/* A node that is not founded yet has no group to replicate with. */
static void take_nodes(struct repl_service *r, const struct msg_nodes_reply *reply)
{
    struct repl_member *members = xcalloc(REPL_MEMBERS_MAX, sizeof *members);
    size_t count;
    bool too_many;
    if (!repl_members_decode(reply->nodes, r->service->config->self->group, members, &count, &too_many))
        log_error("membersvc does not say who is in the group");
    else if (reply->state != 0) {
        r->nodes_told.len = 0;
        buf_append(&r->nodes_told, reply->nodes.data, reply->nodes.len);
        repl_core_standing(r->core, reply->state == STATE_MEMBER && !too_many);
        repl_core_members(r->core, clock_mono_ns(), members, count);
    }
    if (too_many)
        log_error("the group has too many members: some are not replicated with",
                  log_uint("most", REPL_MEMBERS_MAX));
    free(members);
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct repl_service *r = arg;
    struct msg_nodes_reply reply;
    bool good = type == MSG_nodes_reply && msg_decode(type, body, &reply) == SH_OK;
    if (number != r->nodes)
        return; /* to an alarm */
    if (good) {
        r->next_event = reply.next_event;
        take_nodes(r, &reply);
    }
    loop_timer_after(r->service->loop, &r->nodes_timer, good ? 0 : NODES_AGAIN_MS * (int64_t)NS_PER_MS);
}

/* Sent again when membersvc was away. Beyond ALARMS_MAX it stands in this service's log only. */
void repl_members_alarm(struct repl_service *r, const struct repl_action *action)
{
    const struct msg_alarm alarm = {.id = slice_str(action->id), .text = slice_str(action->detail)};
    uint64_t number;
    r->body.len = 0;
    msg_encode(MSG_alarm, &alarm, &r->body);
    if (link_client_unanswered(r->members) > ALARMS_MAX ||
        link_client_send(r->members, MSG_alarm, 0, buf_slice(&r->body), (struct slice){0}, &number) != SH_OK)
        log_warn("an alarm does not become an event: too many wait for membersvc",
                 log_text("member", action->id), log_text("detail", action->detail));
}

static void on_state(void *arg, bool connected)
{
    (void)arg;
    log_info(connected ? "membersvc answers" : "membersvc is lost");
}

enum sh_error repl_members_open(struct repl_service *r)
{
    struct link_client_options options = {
        .loop = r->service->loop,
        .endpoint = r->member_endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = 64 << 10,
        .cluster = r->service->cluster,
        .sender = slice_str(r->service->config->self->id),
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = r,
    };
    r->nodes_timer = (struct loop_timer){.fn = ask_nodes, .arg = r};
    enum sh_error e = link_client_open(&options, &r->members);
    if (e == SH_OK)
        ask_nodes(r);
    return e;
}

void repl_members_close(struct repl_service *r)
{
    if (r->members == NULL)
        return;
    loop_timer_cancel(r->service->loop, &r->nodes_timer);
    link_client_close(r->members);
    buf_free(&r->nodes_told);
}
