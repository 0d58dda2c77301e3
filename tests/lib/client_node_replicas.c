/* What the node answers about replicas: n2's log followed from n3, another of nobody; n2 and n3 follow its
 * own. */
#include "client_node.h"

static void pack(struct buf *out, struct msg_replica_info info)
{
    info.log.bytes[0] = (uint8_t)info.lsn;
    msg_encode(MSG_replica_info, &info, out);
}

static void pack_followed(struct buf *out)
{
    pack(out, (struct msg_replica_info){.origin = slice_str("n2"),
                                        .peer = slice_str("n3"),
                                        .state = SH_REPLICA_WAITING,
                                        .lsn = 20,
                                        .end = 2000,
                                        .lag_entries = 3,
                                        .lag_bytes = 300,
                                        .lag_ms = 1500,
                                        .credit = 4096,
                                        .retries = 2,
                                        .seen_ms = 11});
    pack(out, (struct msg_replica_info){.state = SH_REPLICA_FORKED, .lsn = 40});
}

static void pack_followers(struct buf *out)
{
    pack(out,
         (struct msg_replica_info){
             .origin = slice_str("n1"), .peer = slice_str("n2"), .state = SH_REPLICA_STREAMING, .lsn = 9});
    pack(out, (struct msg_replica_info){.origin = slice_str("n1"), .peer = slice_str("n3"), .seen_ms = 1});
}

void node_on_replicas(struct node *n, struct link_token token)
{
    struct buf followed = {0}, followers = {0}, counters = {0};
    msgpack_packer pk;
    if (n->repl_away) {
        node_refuse(token, SH_UNAVAILABLE, 0);
        return;
    }
    mp_packer(&pk, &followed);
    msgpack_pack_array(&pk, n->odd ? 3 : 2);
    pack_followed(&followed);
    if (n->odd)
        msgpack_pack_array(&pk, 0);
    mp_packer(&pk, &followers);
    msgpack_pack_array(&pk, 2);
    pack_followers(&followers);
    mp_packer(&pk, &counters);
    msgpack_pack_map(&pk, 1);
    mp_pack_cstr(&pk, "fetches");
    msgpack_pack_uint64(&pk, 5);
    const struct msg_replicas_reply reply = {.node = slice_str("n1"),
                                             .log = n->log,
                                             .durable_lsn = 10,
                                             .quorum_lsn = 9,
                                             .all_lsn = 8,
                                             .followed = buf_slice(&followed),
                                             .followers = buf_slice(&followers),
                                             .counters = buf_slice(&counters)};
    node_answer(token, MSG_replicas_reply, &reply);
    buf_free(&followed);
    buf_free(&followers);
    buf_free(&counters);
}
