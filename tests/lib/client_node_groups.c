/* What the node answers when it is of one of two replication groups, "a" and "b". Its value of a key is the
 * name of its group. */
#include "client_node.h"
#include "group.h"

static struct group_set two;

static const struct group_set *groups(struct node *n)
{
    if (two.count == 0)
        group_set_decode(&two, slice_str("\x92\xa1"
                                         "a\xa1"
                                         "b"));
    two.self = group_find(&two, slice_str(n->group));
    return &two;
}

void node_group_hello(struct node *n, struct msg_hello_reply *hello)
{
    if (n->group[0] == 0)
        return;
    hello->group = slice_str(n->group);
    hello->groups = slice_str("\x92\xa1"
                              "b\xa1"
                              "a");
}

/* A well-formed append. */
bool node_refuses_group(struct node *n, struct link_token token, struct slice entries)
{
    if (n->group[0] == 0)
        return false;
    const struct group_verdict v = group_of_entries(groups(n), entries);
    bool good = !v.is_split && (v.group == GROUPS_MAX || v.group == two.self);
    if (!good)
        node_refuse(token, v.is_split ? SH_BAD_REQUEST : SH_WRONG_GROUP, 0);
    n->strangers += !good;
    return !good;
}

static void on_group_of(struct node *n, const struct link_request *request)
{
    struct msg_group_of ask;
    struct buf endpoints = {0};
    msgpack_packer pk;
    if (msg_decode(MSG_group_of, request->body, &ask) != SH_OK)
        return;
    size_t group = ask.group.len > 0 ? group_find(groups(n), ask.group)
                                     : group_of(groups(n), (enum group_kind)ask.kind, ask.name);
    mp_packer(&pk, &endpoints);
    msgpack_pack_array(&pk, n->place_count);
    for (uint32_t i = 0; i < n->place_count; i++)
        mp_pack_cstr(&pk, n->places[i]);
    const struct msg_group_of_reply reply = {.group = slice_str(two.all[group].name),
                                             .here = group == two.self,
                                             .endpoints = group == two.self ? slice_str("\x90") /* none */
                                                                            : buf_slice(&endpoints)};
    n->group_asks++;
    node_answer(request->token, MSG_group_of_reply, &reply);
    buf_free(&endpoints);
}

static void on_get(struct node *n, const struct link_request *request)
{
    struct msg_kv_get ask;
    struct buf rows = {0};
    msgpack_packer pk;
    struct slice key;
    uint32_t count;
    if (msg_decode(MSG_kv_get, request->body, &ask) != SH_OK)
        return;
    struct mp m = mp_of(ask.keys);
    mp_packer(&pk, &rows);
    bool good = mp_array(&m, &count);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; good && i < count && mp_bin(&m, &key); i++) {
        good = group_of(groups(n), GROUP_KEY, key) == two.self;
        msgpack_pack_array(&pk, 7);
        mp_pack_bin(&pk, key);
        mp_pack_bin(&pk, slice_str(n->group));
        msgpack_pack_uint64(&pk, 1);
        mp_pack_bin(&pk, slice_of(n->log.bytes, sizeof n->log.bytes));
        msgpack_pack_uint64(&pk, 1);
        msgpack_pack_uint64(&pk, 0);
        msgpack_pack_nil(&pk);
    }
    const struct msg_kv_get_reply reply = {.rows = buf_slice(&rows)};
    if (good)
        node_answer(request->token, MSG_kv_get_reply, &reply);
    else
        node_refuse(request->token, SH_WRONG_GROUP, 0);
    n->gets += good;
    n->strangers += !good;
    buf_free(&rows);
}

bool node_on_groups(struct node *n, const struct link_request *request)
{
    bool is_ours = n->group[0] != 0 && (request->type == MSG_group_of || request->type == MSG_kv_get);
    if (is_ours && request->type == MSG_group_of)
        on_group_of(n, request);
    else if (is_ours)
        on_get(n, request);
    return is_ours;
}
