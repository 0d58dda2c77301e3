/* node join and node leave: what an operator changes. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "member_parts.h"

static __attribute__((format(printf, 3, 4))) enum sh_error say(char text[MEMBER_TEXT_MAX], enum sh_error e,
                                                               const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(text, MEMBER_TEXT_MAX, format, args);
    va_end(args);
    return e;
}

/* Only a member can change who is one. */
static enum sh_error may_change(const struct member_core *core, char text[MEMBER_TEXT_MAX])
{
    if (!core->founded)
        return say(text, SH_UNAVAILABLE, "%s does not belong to a cluster yet", core->id);
    if (!core_is_member(core))
        return say(text, SH_NOT_MEMBER, "%s is not a member any more: ask a member", core->id);
    return SH_OK;
}

/* ------------------------------------------------------------ join */

static bool has_group(const struct member_core *core, const char *group)
{
    for (size_t i = 0; i < core->seed_count; i++)
        if (strcmp(core->seeds[i].group, group) == 0)
            return true;
    for (uint32_t i = 0; i < core->count; i++) {
        struct member_record r;
        table_unpack(core->by_id[i], &r);
        if (strcmp(r.group, group) == 0)
            return true;
    }
    return false;
}

/* What the message says, over what `old` has. */
static enum sh_error fill(const struct member_core *core, const struct msg_node_join *join,
                          const struct member_record *old, struct member_record *r,
                          char text[MEMBER_TEXT_MAX])
{
    bool keeps = old != NULL && join->replace;
    *r = (struct member_record){.status = MEMBER_JOINING};
    struct slice host = join->host.len == 0 && keeps ? slice_str(old->host) : join->host;
    struct slice group = join->group;
    if (group.len == 0)
        group = slice_str(keeps ? old->group : "default");
    r->port = (uint16_t)(join->port == 0 && keeps ? old->port : join->port);
    r->admin_port = (uint16_t)(join->admin_port == 0 && keeps ? old->admin_port : join->admin_port);
    bool fits = member_text(r->id, sizeof r->id, join->id);
    assert(fits); /* it was checked */
    if (!member_text(r->host, sizeof r->host, host) || !config_host_is_valid(r->host))
        return say(text, SH_BAD_REQUEST, "%s", host.len == 0 ? "the host is missing" : "this is no host");
    if (r->port == 0 || join->port > 65531 || join->admin_port > 65535)
        return say(text, SH_BAD_REQUEST, "%s", r->port == 0 ? "the port is missing" : "this is no port");
    if (!member_text(r->group, sizeof r->group, group) || !config_name_is_valid(r->group) ||
        !has_group(core, r->group))
        return say(text, SH_BAD_REQUEST, "the cluster has no such group; its groups are fixed");
    return SH_OK;
}

static enum sh_error check_join(const struct member_core *core, const struct msg_node_join *join,
                                const struct member *m, char text[MEMBER_TEXT_MAX])
{
    bool is_there = m != NULL && m->status != MEMBER_LEFT;
    char id[CONFIG_ID_MAX + 1];
    if (!member_text(id, sizeof id, join->id) || !config_name_is_valid(id))
        return say(text, SH_BAD_REQUEST, "this is no id of a node");
    if (join->replace && !is_there)
        return say(text, SH_NOT_FOUND, "there is no member %s to replace: join it without --replace", id);
    if (join->replace && m == core->self)
        return say(text, SH_BAD_REQUEST, "%s is this node itself: ask another member", id);
    if (!join->replace && is_there)
        return say(text, SH_ALREADY_MEMBER,
                   "%s is a member already; --replace lets another identity take its place", id);
    if (!is_there && core->live_count >= MEMBER_LIVE_MAX)
        return say(text, SH_TOO_LARGE, "the cluster has %d members, the most that it can have",
                   MEMBER_LIVE_MAX);
    if (m == NULL && core->count >= MEMBER_RECORDS_MAX)
        return say(text, SH_TOO_LARGE, "the cluster has known %d ids, the most that it can know",
                   MEMBER_RECORDS_MAX);
    return SH_OK;
}

static const struct member *with_address(const struct member_core *core, const struct member_record *r)
{
    for (uint32_t i = 0; i < core->count; i++) {
        const struct member *m = core->by_id[i];
        if (m->status != MEMBER_LEFT && m->port == r->port && slice_is(table_host(m), r->host) &&
            strcmp(m->id, r->id) != 0)
            return m;
    }
    return NULL;
}

/* Puts the record in force, and tells the member itself, at its old and its new address. */
static const struct member *apply(struct member_core *core, struct member *m, const struct member_record *r)
{
    char host[MEMBER_HOST_MAX + 1] = "";
    struct address before = {.host = slice_str(host)};
    if (m != NULL) {
        member_text(host, sizeof host, table_host(m));
        before = address_of(core, m);
        before.host = slice_str(host);
    }
    merge_record(core, r, "");
    struct member *now = table_find(core, slice_str(r->id));
    if (now == core->self)
        return now;
    struct address to = address_of(core, now);
    if (now->bound)
        wire_send_record(core, &to, now);
    else
        wire_send_heartbeat(core, &to, true, false); /* it may not be founded: it asks when it hears us */
    if (m != NULL && !now->bound)
        wire_send_record(core, &before, now);
    return now;
}

static enum sh_error join_now(struct member_core *core, const struct msg_node_join *join,
                              uint64_t *generation, char text[MEMBER_TEXT_MAX])
{
    struct member_record old, r;
    enum sh_error e = may_change(core, text);
    if (e != SH_OK)
        return e;
    struct member *m = table_find(core, join->id);
    if (m != NULL)
        table_unpack(m, &old);
    e = check_join(core, join, m, text);
    if (e == SH_OK)
        e = fill(core, join, m != NULL ? &old : NULL, &r, text);
    if (e != SH_OK)
        return e;
    const struct member *other = with_address(core, &r);
    if (other != NULL)
        return say(text, SH_CONFLICT, "%s:%u is the address of %s", r.host, (unsigned)r.port, other->id);
    r.generation = m != NULL ? m->generation + 1 : 2; /* 1 is of the founding: see docs/cluster-protocol.md */
    r.since_ms = wire_wall_ms(core);
    if (join->replace) /* asked again, before another identity came: the same one may not come back */
        r.not_log = m->bound ? m->log : old.not_log;
    *generation = apply(core, m, &r)->generation;
    return SH_OK;
}

enum sh_error member_core_join(struct member_core *core, struct member_time now,
                               const struct msg_node_join *join, uint64_t *generation,
                               char text[MEMBER_TEXT_MAX])
{
    core_enter(core, now);
    text[0] = 0;
    enum sh_error e = join_now(core, join, generation, text);
    core_leave(core);
    return e;
}

/* ------------------------------------------------------------ leave */

static uint64_t mark_of(const struct member_watermark *marks, size_t count, struct id16 log)
{
    for (size_t i = 0; i < count; i++)
        if (id16_equal(marks[i].log, log))
            return marks[i].lsn;
    return 0;
}

void change_only_own(const struct member_core *core, const struct member *m, struct id16 log, uint64_t *first,
                     uint64_t *last)
{
    uint64_t held = 0;
    uint64_t own =
        m == core->self ? mark_of(core->marks, core->mark_count, log) : mark_of(m->marks, m->mark_count, log);
    for (uint32_t i = 0; i < core->count; i++) {
        const struct member *other = core->by_id[i];
        uint64_t lsn = other == core->self ? mark_of(core->marks, core->mark_count, log)
                                           : mark_of(other->marks, other->mark_count, log);
        if (other != m && other->status != MEMBER_LEFT && lsn > held)
            held = lsn;
    }
    *first = held < own ? held + 1 : 0;
    *last = held < own ? own : 0;
}

static enum sh_error leave_now(struct member_core *core, const char *id, struct msg_node_leave_reply *reply,
                               char text[MEMBER_TEXT_MAX])
{
    enum sh_error e = may_change(core, text);
    if (e != SH_OK)
        return e;
    struct member *m = table_find(core, slice_str(id));
    if (m == NULL || m->status == MEMBER_LEFT)
        return say(text, SH_NOT_MEMBER, "%.64s %s", id, m == NULL ? "is not a member" : "has left already");
    if (core->live_count == 1)
        return say(text, SH_CONFLICT, "%s is the last member", id);
    struct member_record r;
    table_unpack(m, &r);
    change_only_own(core, m, m->log, &reply->only_first, &reply->only_last);
    r.status = MEMBER_LEFT;
    r.since_ms = wire_wall_ms(core);
    reply->log = m->log;
    reply->generation = m->generation;
    merge_record(core, &r, "");
    struct address to = address_of(core, m);
    if (m != core->self)
        wire_send_record(core, &to, m);
    return SH_OK;
}

enum sh_error member_core_leave(struct member_core *core, struct member_time now, const char *id,
                                struct msg_node_leave_reply *reply, char text[MEMBER_TEXT_MAX])
{
    core_enter(core, now);
    text[0] = 0;
    *reply = (struct msg_node_leave_reply){0};
    enum sh_error e = leave_now(core, id, reply, text);
    core_leave(core);
    return e;
}

enum sh_error member_core_alarm(struct member_core *core, struct member_time now, struct slice id,
                                struct slice text)
{
    char words[256];
    const struct member *m = table_find(core, id);
    if (m == NULL)
        return SH_NOT_MEMBER;
    snprintf(words, sizeof words, "%.*s", (int)text.len, (const char *)text.data);
    core_enter(core, now);
    event_add(core, MEMBER_EVENT_ALARM, m, words);
    core_leave(core);
    return SH_OK;
}
