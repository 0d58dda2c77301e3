/* Members of the cluster: who they are and how, joins and leaves. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

static const char *name_of(const char *const *names, size_t count, unsigned value)
{
    return value < count && names[value] != NULL ? names[value] : "unknown";
}
#define NAME_OF(names, value) name_of(names, sizeof(names) / sizeof(names)[0], (unsigned)(value))

const char *sh_node_status_name(enum sh_node_status status)
{
    static const char *const names[] = {
        [SH_NODE_JOINING] = "joining",         [SH_NODE_UP] = "up",
        [SH_NODE_SUSPECT] = "suspect",         [SH_NODE_DOWN] = "down",
        [SH_NODE_MUST_REJOIN] = "must_rejoin", [SH_NODE_LEFT] = "left",
    };
    return NAME_OF(names, status);
}

const char *sh_node_state_name(enum sh_node_state state)
{
    static const char *const names[] = {
        [SH_STATE_FOUNDING] = "founding", [SH_STATE_MEMBER] = "member",   [SH_STATE_LEFT] = "left",
        [SH_STATE_REPLACED] = "replaced", [SH_STATE_REFUSED] = "refused",
    };
    return NAME_OF(names, state);
}

const char *sh_node_event_name(enum sh_node_event_kind kind)
{
    static const char *const names[] = {
        [SH_EVENT_JOINING] = "joining",         [SH_EVENT_UP] = "up",
        [SH_EVENT_SUSPECT] = "suspect",         [SH_EVENT_DOWN] = "down",
        [SH_EVENT_MUST_REJOIN] = "must_rejoin", [SH_EVENT_LEFT] = "left",
        [SH_EVENT_RESTARTED] = "restarted",     [SH_EVENT_MOVED] = "moved",
        [SH_EVENT_REPLACED] = "replaced",       [SH_EVENT_UNREACHABLE] = "unreachable",
        [SH_EVENT_REACHABLE] = "reachable",     [SH_EVENT_CLOCK_DRIFT] = "clock_drift",
        [SH_EVENT_CLOCK_GOOD] = "clock_good",   [SH_EVENT_FOUNDED] = "founded",
        [SH_EVENT_REFUSED] = "refused",         [SH_EVENT_ALARM] = "alarm",
    };
    return NAME_OF(names, kind);
}

bool shc_copy(char *out, size_t size, struct slice text)
{
    if (text.len >= size || (text.len > 0 && memchr(text.data, 0, text.len) != NULL))
        return false;
    if (text.len > 0)
        memcpy(out, text.data, text.len);
    out[text.len] = 0;
    return true;
}

struct shc_items shc_items(struct slice array, size_t item_bytes, bool (*decode)(struct mp *m, void *item))
{
    struct shc_items items = {.good = true};
    struct mp m = mp_of(array);
    uint32_t count;
    if (array.len == 0)
        return items;
    items.good = mp_array(&m, &count);
    if (items.good)
        items.all = xcalloc((size_t)count + 1, item_bytes); /* count: at most the bytes that came */
    while (items.good && items.count < count)
        items.good = decode(&m, (uint8_t *)items.all + items.count++ * item_bytes);
    return items;
}

/* ---------------------------------------------------------------- nodes */

static bool decode_watermark(struct mp *m, void *item)
{
    struct sh_watermark *out = item;
    uint32_t fields;
    struct slice log;
    if (!mp_array(m, &fields) || fields < 3 || !mp_bin(m, &log) || log.len != sizeof out->log ||
        !mp_uint(m, &out->lsn) || !mp_uint(m, &out->end))
        return false;
    memcpy(out->log, log.data, sizeof out->log);
    for (uint32_t i = 3; i < fields; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

static bool decode_record(struct slice bytes, struct sh_node *out)
{
    struct msg_member record;
    if (msg_decode(MSG_member, bytes, &record) != SH_OK || !shc_copy(out->id, sizeof out->id, record.id) ||
        !shc_copy(out->group, sizeof out->group, record.group) ||
        !shc_copy(out->host, sizeof out->host, record.host))
        return false;
    out->port = (uint16_t)record.port;
    out->admin_port = (uint16_t)record.admin_port;
    out->status = (enum sh_node_status)record.status;
    out->since_ms = (int64_t)record.since_ms;
    out->generation = record.generation;
    out->incarnation = record.incarnation;
    out->born_ms = (int64_t)record.born_ms;
    memcpy(out->log, record.log.bytes, sizeof out->log);
    memcpy(out->boot, record.boot.bytes, sizeof out->boot);
    return true;
}

static bool decode_node(struct mp *m, void *item)
{
    struct sh_node *out = item;
    struct msg_node_info info;
    struct slice bytes;
    if (!mp_raw(m, &bytes) || msg_decode(MSG_node_info, bytes, &info) != SH_OK ||
        !decode_record(info.member, out))
        return false;
    out->self = info.self;
    out->observed = info.observed;
    out->unreachable = info.unreachable;
    out->drifting = info.drifting;
    out->heard_ms = info.self ? -1 : (int64_t)info.heard_ms - 1;
    out->ahead_ms = (int64_t)info.ahead_ms - (int64_t)info.behind_ms;
    const struct shc_items watermarks = shc_items(info.watermarks, sizeof *out->watermarks, decode_watermark);
    out->watermarks = watermarks.all;
    out->watermark_count = watermarks.count;
    return watermarks.good;
}

bool shc_counters(struct slice map, struct sh_counter **out, size_t *out_count)
{
    struct mp m = mp_of(map);
    struct slice name;
    uint32_t count;
    if (!mp_map(&m, &count))
        return false;
    *out = xcalloc((size_t)count + 1, sizeof **out);
    for (uint32_t i = 0; i < count; i++) {
        struct sh_counter *c = &(*out)[*out_count];
        if (!mp_str(&m, &name) || !mp_uint(&m, &c->count))
            return false;
        *out_count += shc_copy(c->name, sizeof c->name, name);
    }
    return true;
}

static bool take_nodes(const struct msg_nodes_reply *reply, struct sh_nodes *out)
{
    out->state = (enum sh_node_state)reply->state;
    out->only_first = reply->only_first;
    out->only_last = reply->only_last;
    out->next_event = reply->next_event;
    const struct shc_items nodes = shc_items(reply->nodes, sizeof *out->nodes, decode_node);
    out->nodes = nodes.all;
    out->node_count = nodes.count;
    return nodes.good && shc_copy(out->cluster, sizeof out->cluster, reply->cluster) &&
           shc_copy(out->node, sizeof out->node, reply->node) &&
           shc_copy(out->text, sizeof out->text, reply->text) &&
           shc_counters(reply->counters, &out->counters, &out->counter_count);
}

enum sh_error sh_nodes(struct sh_client *c, struct sh_nodes *nodes)
{
    struct shc_call call = {.once = true};
    struct msg_nodes ask = {0};
    struct msg_nodes_reply reply;
    memset(nodes, 0, sizeof *nodes);
    enum sh_error e = shc_ask(c, &call, MSG_nodes, &ask, MSG_nodes_reply, &reply);
    if (e == SH_OK && !take_nodes(&reply, nodes)) {
        shc_detail("malformed answer");
        e = SH_INTERNAL;
    }
    if (e != SH_OK) {
        sh_nodes_free(nodes);
        memset(nodes, 0, sizeof *nodes);
    }
    shc_call_free(&call);
    return e;
}

void sh_nodes_free(struct sh_nodes *nodes)
{
    for (size_t i = 0; i < nodes->node_count; i++)
        free(nodes->nodes[i].watermarks);
    free(nodes->nodes);
    free(nodes->counters);
    nodes->nodes = NULL;
    nodes->counters = NULL;
    nodes->node_count = nodes->counter_count = 0;
}

/* ---------------------------------------------------------------- join and leave */

static enum sh_error no_id(void)
{
    shc_detail("the id is missing");
    return SH_BAD_REQUEST;
}

enum sh_error sh_node_join(struct sh_client *c, const struct sh_join_options *options, uint64_t *generation)
{
    struct shc_call call = {.once = true};
    struct msg_node_join_reply reply;
    if (options->id == NULL)
        return no_id();
    struct msg_node_join ask = {
        .id = slice_str(options->id),
        .host = options->host != NULL ? slice_str(options->host) : (struct slice){0},
        .port = options->port,
        .admin_port = options->admin_port,
        .group = options->group != NULL ? slice_str(options->group) : (struct slice){0},
        .replace = options->replace,
    };
    enum sh_error e = shc_ask(c, &call, MSG_node_join, &ask, MSG_node_join_reply, &reply);
    if (e == SH_OK && generation != NULL)
        *generation = reply.generation;
    shc_call_free(&call);
    return e;
}

enum sh_error sh_node_leave(struct sh_client *c, const char *id, struct sh_leave_result *result)
{
    struct shc_call call = {.once = true};
    struct msg_node_leave_reply reply;
    struct sh_leave_result left = {0};
    if (result != NULL)
        *result = left;
    if (id == NULL)
        return no_id();
    struct msg_node_leave ask = {.id = slice_str(id)};
    enum sh_error e = shc_ask(c, &call, MSG_node_leave, &ask, MSG_node_leave_reply, &reply);
    if (e == SH_OK && result != NULL) {
        left = (struct sh_leave_result){
            .generation = reply.generation, .only_first = reply.only_first, .only_last = reply.only_last};
        memcpy(left.log, reply.log.bytes, sizeof left.log);
        *result = left;
    }
    shc_call_free(&call);
    return e;
}
