/* Replication groups, as clients meet them: what belongs to another one is refused with `wrong_group` and the
 * endpoints of that one's nodes, which membersvc tells by a long poll of its own. With one group there is no
 * link, and nothing is looked at. Nothing here is fatal. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "query.h"
#include "query_token.h"

/* What makes no event is seen after so long. */
enum { NODES_WAIT_MS = 5000, NODES_AGAIN_MS = 100, ENDPOINTS_MAX = 16 };
enum { STATUS_JOINING, STATUS_UP, STATUS_SUSPECT, STATUS_DOWN, STATUS_MUST_REJOIN, STATUS_LEFT };

struct query_group_node {
    size_t group;
    unsigned status;
    char host[256];
    uint16_t port;
    struct id16 log, not_log; /* its own, and the one that it had before it was replaced */
};

/* ---------------------------------------------------------------- who is where */

/* Before membersvc has told: as the topology file has it. */
static void take_topology(struct query_groups *g, const struct config *config)
{
    g->nodes = xcalloc(config->node_count + 1, sizeof *g->nodes);
    for (size_t i = 0; i < config->node_count; i++) {
        struct query_group_node *n = &g->nodes[g->count++];
        n->group = group_find(&g->set, slice_str(config->nodes[i].group));
        n->status = STATUS_UP;
        n->port = config->nodes[i].port;
        memcpy(n->host, config->nodes[i].host, sizeof n->host);
    }
}

/* Its group is GROUPS_MAX when it is to be left out. */
static bool decode_node(const struct group_set *set, struct slice bytes, struct query_group_node *out)
{
    struct msg_node_info info;
    struct msg_member member;
    if (msg_decode(MSG_node_info, bytes, &info) != SH_OK ||
        msg_decode(MSG_member, info.member, &member) != SH_OK || member.host.len >= sizeof out->host)
        return false;
    *out = (struct query_group_node){.group = group_find(set, member.group),
                                     .status = (unsigned)member.status,
                                     .port = (uint16_t)member.port,
                                     .log = member.log,
                                     .not_log = member.not_log};
    snprintf(out->host, sizeof out->host, "%.*s", (int)member.host.len, (const char *)member.host.data);
    return true;
}

static void take_nodes(struct query_groups *g, struct slice list)
{
    struct mp m = mp_of(list);
    struct slice bytes;
    uint32_t entries;
    size_t count = 0;
    if (!mp_array(&m, &entries))
        return;
    struct query_group_node *nodes = xcalloc((size_t)entries + 1, sizeof *nodes);
    for (uint32_t i = 0; i < entries; i++) {
        if (!mp_raw(&m, &bytes) || !decode_node(&g->set, bytes, &nodes[count])) {
            log_error("membersvc does not say who is in which group");
            free(nodes);
            return;
        }
        count += nodes[count].group != GROUPS_MAX;
    }
    free(g->nodes);
    g->nodes = nodes;
    g->count = count;
}

/* ---------------------------------------------------------------- tokens */

/* Whether it is, or was, the own log of a node of another group: one that this node will never hold. */
static bool is_elsewhere(const struct query_groups *g, struct id16 log)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->nodes[i].group != g->set.self && !id16_is_zero(log) &&
            (id16_equal(g->nodes[i].log, log) || id16_equal(g->nodes[i].not_log, log)))
            return true;
    return false;
}

struct slice query_group_token(struct query *q, const struct view_vector *applied, struct slice token)
{
    struct query_groups *g = &q->groups;
    struct view_vector *kept;
    if (g->set.count == 1 || token.len == 0)
        return token;
    kept = xcalloc(1, sizeof *kept);
    bool good = token_read(token, kept);
    for (size_t i = 0; good && i < kept->count;) {
        struct id16 log = kept->all[i].log;
        if (view_place_of(applied, log) == NULL && is_elsewhere(g, log))
            kept->all[i] = kept->all[--kept->count];
        else
            i++;
    }
    g->token.len = 0;
    token_pack(kept, &g->token);
    free(kept);
    return good ? buf_slice(&g->token) : token;
}

/* ---------------------------------------------------------------- endpoints */

/* In the order in which they are worth a try; those that left are not. */
static const unsigned worth[] = {STATUS_UP, STATUS_SUSPECT, STATUS_JOINING, STATUS_DOWN, STATUS_MUST_REJOIN};

/* The array, in g->endpoints. */
static struct slice pack_endpoints(struct query_groups *g, size_t group)
{
    const struct query_group_node *chosen[ENDPOINTS_MAX];
    char text[LINK_ENDPOINT_MAX + 64];
    msgpack_packer pk;
    size_t count = 0;
    for (size_t w = 0; w < sizeof worth / sizeof *worth; w++)
        for (size_t i = 0; i < g->count && count < ENDPOINTS_MAX; i++)
            if (g->nodes[i].group == group && g->nodes[i].status == worth[w])
                chosen[count++] = &g->nodes[i];
    g->endpoints.len = 0;
    mp_packer(&pk, &g->endpoints);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "tcp://%s:%u", chosen[i]->host, chosen[i]->port);
        mp_pack_cstr(&pk, text);
    }
    return buf_slice(&g->endpoints);
}

bool query_group_check(struct query *q, struct link_token token, enum group_kind kind, struct slice name)
{
    struct query_groups *g = &q->groups;
    char text[GROUP_TEXT_MAX], what[GROUP_TEXT_MAX / 4];
    size_t group = group_of(&g->set, kind, name);
    if (g->set.count == 1 || name.len == 0 || group == g->set.self)
        return true;
    const char *owner = g->set.all[group].name;
    group_name_text(kind, name, what, sizeof what);
    snprintf(text, sizeof text, "%s belongs to group `%s`", what, owner);
    const struct msg_error error = {.code = SH_WRONG_GROUP,
                                    .text = slice_str(text),
                                    .group = slice_str(owner),
                                    .endpoints = pack_endpoints(g, group)};
    query_refuse_with(q, token, &error);
    return false;
}

bool query_group_check_keys(struct query *q, struct link_token token, struct slice keys)
{
    struct mp m = mp_of(keys);
    struct slice key;
    uint32_t count;
    bool good = q->groups.set.count > 1 && mp_array(&m, &count);
    for (uint32_t i = 0; good && i < count && mp_bin(&m, &key); i++)
        if (!query_group_check(q, token, GROUP_KEY, key))
            return false;
    return true;
}

bool query_group_on_refusal(struct query *q, struct link_token token, struct slice body)
{
    struct query_groups *g = &q->groups;
    struct msg_error error;
    if (g->set.count == 1 || msg_decode(MSG_error, body, &error) != SH_OK || error.code != SH_WRONG_GROUP)
        return false;
    size_t group = group_find(&g->set, error.group);
    if (group == GROUPS_MAX)
        return false;
    error.endpoints = pack_endpoints(g, group);
    link_server_refuse(q->server, token, &error);
    return true;
}

void query_on_group_of(struct query *q, const struct link_request *request)
{
    struct query_groups *g = &q->groups;
    struct msg_group_of ask;
    enum sh_error e = msg_decode(MSG_group_of, request->body, &ask);
    bool by_name = e == SH_OK && ask.group.len == 0;
    size_t group;
    if (e != SH_OK || (by_name && ask.name.len == 0)) {
        query_refuse(q, request->token, e == SH_OK ? SH_BAD_REQUEST : e, "a key or a stream has a name", 0);
        return;
    }
    group = by_name ? group_of(&g->set, (enum group_kind)ask.kind, ask.name) : group_find(&g->set, ask.group);
    if (group == GROUPS_MAX) {
        query_refuse(q, request->token, SH_NOT_FOUND, "the cluster has no such group", 0);
        return;
    }
    const struct msg_group_of_reply reply = {.group = slice_str(g->set.all[group].name),
                                             .here = group == g->set.self,
                                             .endpoints = pack_endpoints(g, group)};
    query_answer(q, request->token, MSG_group_of_reply, &reply);
}

void query_group_hello(struct query *q, struct msg_hello_reply *reply)
{
    struct query_groups *g = &q->groups;
    if (g->set.count == 1)
        return;
    reply->group = slice_str(g->set.all[g->set.self].name);
    reply->groups = buf_slice(&g->names);
}

/* ---------------------------------------------------------------- the link to membersvc */

static void ask_nodes(void *arg)
{
    struct query *q = arg;
    struct query_groups *g = &q->groups;
    struct buf body = {0};
    const struct msg_nodes ask = {.next_event = g->next_event, .wait_ms = NODES_WAIT_MS};
    msg_encode(MSG_nodes, &ask, &body);
    enum sh_error e = link_client_send(g->link, MSG_nodes, 0, buf_slice(&body), (struct slice){0}, &g->asked);
    assert(e == SH_OK); /* one is out at most */
    buf_free(&body);
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct query *q = arg;
    struct query_groups *g = &q->groups;
    struct msg_nodes_reply reply;
    bool good = number == g->asked && type == MSG_nodes_reply && msg_decode(type, body, &reply) == SH_OK;
    if (good) {
        g->next_event = reply.next_event;
        take_nodes(g, reply.nodes);
    }
    loop_timer_after(q->service->loop, &g->again, good ? 0 : NODES_AGAIN_MS * (int64_t)NS_PER_MS);
}

enum sh_error query_group_open(struct query *q)
{
    struct query_groups *g = &q->groups;
    group_set_of_config(&g->set, q->service->config);
    g->again = (struct loop_timer){.fn = ask_nodes, .arg = q};
    if (g->set.count == 1)
        return SH_OK;
    take_topology(g, q->service->config);
    group_set_encode(&g->set, &g->names);
    struct link_client_options options = {
        .loop = q->service->loop,
        .endpoint = q->member.endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = 4096,
        .cluster = q->service->cluster,
        .sender = slice_str(q->service->config->self->id),
        .on_answer = on_answer,
        .arg = q,
    };
    enum sh_error e = link_client_open(&options, &g->link);
    if (e == SH_OK)
        ask_nodes(q);
    return e;
}

void query_group_close(struct query *q)
{
    struct query_groups *g = &q->groups;
    if (g->link != NULL) {
        loop_timer_cancel(q->service->loop, &g->again);
        link_client_close(g->link);
    }
    g->link = NULL;
    group_set_free(&g->set);
    free(g->nodes);
    buf_free(&g->names);
    buf_free(&g->endpoints);
    buf_free(&g->token);
}
