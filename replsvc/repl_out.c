/* What comes out of the core: actions, notices, and answers to questions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "repl_parts.h"

#define NOTICE_EACH_NS (60 * NS_PER_S)

struct repl_action *repl_put(struct repl_core *core, enum repl_action_kind kind)
{
    if (core->action_first > 0 && core->action_first == core->action_count)
        core->action_first = core->action_count = 0;
    if (core->action_count == core->action_cap) {
        core->action_cap = core->action_cap > 0 ? 2 * core->action_cap : 16;
        core->actions = xrealloc(core->actions, core->action_cap * sizeof *core->actions);
    }
    struct repl_action *action = &core->actions[core->action_count++];
    *action = (struct repl_action){.kind = kind};
    return action;
}

struct repl_action *repl_put_question(struct repl_core *core, enum repl_action_kind kind, unsigned slot,
                                      size_t member)
{
    const struct repl_member *m = &core->members[member];
    struct repl_action *action = repl_put(core, kind);
    action->slot = slot;
    action->serial = ++core->serial;
    snprintf(action->host, sizeof action->host, "%s", m->host);
    snprintf(action->id, sizeof action->id, "%s", m->id);
    action->port = (uint16_t)(m->port + 4);
    return action;
}

bool repl_core_next_action(struct repl_core *core, struct repl_action *out)
{
    if (core->action_first == core->action_count)
        return false;
    *out = core->actions[core->action_first++];
    return true;
}

void repl_notice_each(struct repl_core *core, int level, const char *text, const char *id, const char *detail)
{
    struct repl_action *action = repl_put(core, REPL_NOTICE);
    action->level = level;
    action->text = text;
    snprintf(action->id, sizeof action->id, "%s", id);
    snprintf(action->detail, sizeof action->detail, "%s", detail);
}

/* The place of what was told last of this, or of the one that is longest ago. */
void repl_notice(struct repl_core *core, int64_t now_ns, int level, const char *text, const char *id,
                 const char *detail)
{
    size_t at = 0;
    for (size_t i = 0; i < REPL_NOTICES; i++) {
        bool same = core->notices[i].text == text && strcmp(core->notices[i].id, id) == 0;
        if (same && now_ns - core->notices[i].told_ns < NOTICE_EACH_NS)
            return;
        if (same) {
            at = i;
            break;
        }
        if (core->notices[i].told_ns < core->notices[at].told_ns)
            at = i;
    }
    core->notices[at].text = text;
    core->notices[at].told_ns = now_ns;
    snprintf(core->notices[at].id, sizeof core->notices[at].id, "%s", id);
    repl_notice_each(core, level, text, id, detail);
}

void repl_notice_of_stranger(struct repl_core *core, int64_t now_ns, const char *text, struct slice sender)
{
    char detail[CONFIG_ID_MAX + 1];
    snprintf(detail, sizeof detail, "%.*s", (int)sender.len, (const char *)sender.data);
    repl_notice(core, now_ns, LOG_WARN, text, "", detail);
}

/* ---- questions ---- */

static uint64_t behind(uint64_t furthest, uint64_t here)
{
    return furthest > here ? furthest - here : 0;
}

static uint64_t age_ms(int64_t since_ns, int64_t now_ns)
{
    return since_ns > 0 && now_ns > since_ns ? (uint64_t)(now_ns - since_ns) / NS_PER_MS : 0;
}

void repl_core_followed(const struct repl_core *core, int64_t now_ns, struct buf *out)
{
    msgpack_packer pk;
    size_t count = 0;
    for (size_t i = 0; i < REPL_LOGS_MAX; i++)
        count += core->follows[i].used;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < REPL_LOGS_MAX; i++) {
        const struct repl_follow *f = &core->follows[i];
        if (!f->used)
            continue;
        int origin = repl_origin(core, f->log);
        bool is_own = id16_equal(f->log, core->own);
        uint64_t lag_bytes = behind(f->best_end, f->durable.position);
        struct msg_replica_info info = {
            .log = f->log,
            .origin = slice_str(origin >= 0 ? core->members[origin].id
                                : is_own    ? core->node
                                            : ""),
            .peer = slice_str(f->source >= 0 ? core->members[f->source].id : ""),
            .state = repl_follow_state(core, f),
            .lsn = f->durable.next_lsn - 1,
            .end = f->durable.position,
            .lag_entries = behind(f->best_lsn, f->durable.next_lsn - 1),
            .lag_bytes = lag_bytes,
            .lag_ms = lag_bytes > 0 ? age_ms(f->caught_up_ns, now_ns) : 0,
            .credit = repl_follow_credit(f),
            .retries = f->retries,
            .closed = repl_gone_is_gone(core, f->log),
            .seen_ms = f->progress_ns > 0 ? 1 + age_ms(f->progress_ns, now_ns) : 0,
        };
        msg_encode(MSG_replica_info, &info, out);
    }
}

void repl_core_closed_logs(const struct repl_core *core, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, core->gone.closed_count);
    for (size_t i = 0; i < core->gone.closed_count; i++) {
        const struct repl_closed_log *closed = &core->gone.closed[i];
        msgpack_pack_array(&pk, 5);
        mp_pack_bin(&pk, slice_of(closed->log.bytes, sizeof closed->log.bytes));
        msgpack_pack_uint64(&pk, closed->end.position);
        msgpack_pack_uint64(&pk, closed->end.next_lsn - 1);
        msgpack_pack_uint32(&pk, closed->end.checksum);
        msgpack_pack_uint64(&pk, (uint64_t)closed->dropped_ns);
    }
}

static enum repl_state follower_state(const struct repl_core *core, size_t member, uint64_t lag_bytes)
{
    if (!core->members[member].up || core->positions[member].seen_ns == 0)
        return REPL_DISCONNECTED;
    return lag_bytes > (1 << 20) ? REPL_CATCHING_UP : REPL_STREAMING;
}

void repl_core_followers(const struct repl_core *core, int64_t now_ns, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, core->member_count);
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_position_of *p = &core->positions[i];
        const struct log_chain *own = &core->held[0].durable;
        uint64_t lag_bytes = core->knows_logs ? behind(own->position, p->reached.end) : 0;
        struct msg_replica_info info = {
            .log = core->own,
            .origin = slice_str(core->node),
            .peer = slice_str(core->members[i].id),
            .state = follower_state(core, i, lag_bytes),
            .lsn = p->reached.lsn,
            .end = p->reached.end,
            .lag_entries = core->knows_logs ? behind(own->next_lsn - 1, p->reached.lsn) : 0,
            .lag_bytes = lag_bytes,
            .lag_ms = lag_bytes > 0 ? age_ms(p->had_all_ns, now_ns) : 0,
            .seen_ms = p->seen_ns > 0 ? 1 + age_ms(p->seen_ns, now_ns) : 0,
        };
        msg_encode(MSG_replica_info, &info, out);
    }
}

size_t repl_core_lags(const struct repl_core *core, int64_t now_ns, struct repl_lag out[REPL_MEMBERS_MAX])
{
    const struct log_chain *own = &core->held[0].durable;
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_position_of *p = &core->positions[i];
        out[i] = (struct repl_lag){.member = core->members[i].id};
        if (!core->knows_logs || own->position <= p->reached.end)
            continue;
        out[i].entries = behind(own->next_lsn - 1, p->reached.lsn);
        out[i].bytes = own->position - p->reached.end;
        out[i].ns = now_ns > p->had_all_ns ? now_ns - p->had_all_ns : 0;
    }
    return core->member_count;
}

const struct repl_counters *repl_core_counters(const struct repl_core *core)
{
    return &core->counters;
}

void repl_core_stranger(struct repl_core *core, int64_t now_ns, enum repl_stranger reason,
                        struct slice sender)
{
    static const char *const texts[] = {
        [REPL_MALFORMED] = "a replication message is malformed: refused",
        [REPL_OTHER_VERSION] = "a replication message of another protocol version: refused",
        [REPL_OTHER_CLUSTER] = "a replication message of another cluster: refused",
        [REPL_TOO_MANY] = "somebody asks on and on without reading the answers: the connection is closed",
    };
    struct repl_counters *c = &core->counters;
    uint64_t *const counters[] = {
        [REPL_MALFORMED] = &c->malformed,
        [REPL_OTHER_VERSION] = &c->other_version,
        [REPL_OTHER_CLUSTER] = &c->other_cluster,
        [REPL_TOO_MANY] = &c->too_many,
    };
    ++*counters[reason];
    repl_notice_of_stranger(core, now_ns, texts[reason], sender);
}
