/* Who follows which log, and how far each copy is. Nothing here is fatal. */
#include "sh_internal.h"

#include <stdlib.h>
#include <string.h>

enum { CLOSED_PARTS = 5 };

const char *sh_replica_state_name(enum sh_replica_state state)
{
    static const char *const names[] = {
        [SH_REPLICA_DISCONNECTED] = "disconnected",
        [SH_REPLICA_CATCHING_UP] = "catching_up",
        [SH_REPLICA_STREAMING] = "streaming",
        [SH_REPLICA_WAITING] = "waiting_for_follower",
        [SH_REPLICA_REPAIRING] = "repairing",
        [SH_REPLICA_TRIMMED] = "trimmed",
        [SH_REPLICA_FORKED] = "forked",
    };
    return (unsigned)state < sizeof names / sizeof names[0] ? names[state] : "unknown";
}

static bool decode_replica(struct mp *m, void *item)
{
    struct sh_replica *out = item;
    struct msg_replica_info info;
    struct slice bytes;
    if (!mp_raw(m, &bytes) || msg_decode(MSG_replica_info, bytes, &info) != SH_OK ||
        !shc_copy(out->origin, sizeof out->origin, info.origin) ||
        !shc_copy(out->peer, sizeof out->peer, info.peer))
        return false;
    memcpy(out->log, info.log.bytes, sizeof out->log);
    out->state = (enum sh_replica_state)info.state;
    out->lsn = info.lsn;
    out->end = info.end;
    out->lag_entries = info.lag_entries;
    out->lag_bytes = info.lag_bytes;
    out->lag_ms = info.lag_ms;
    out->credit = info.credit;
    out->retries = info.retries;
    out->seen_ms = (int64_t)info.seen_ms - 1;
    out->closed = info.closed;
    return true;
}

static bool decode_closed(struct mp *m, void *item)
{
    struct sh_closed_log *out = item;
    uint32_t parts;
    uint64_t checksum, dropped_ns;
    struct slice id;
    if (!mp_array(m, &parts) || parts < CLOSED_PARTS || !mp_bin(m, &id) || id.len != sizeof out->log ||
        !mp_uint(m, &out->end) || !mp_uint(m, &out->lsn) || !mp_uint(m, &checksum) ||
        !mp_uint(m, &dropped_ns))
        return false;
    memcpy(out->log, id.data, id.len);
    out->checksum = (uint32_t)checksum;
    out->dropped_ns = (int64_t)dropped_ns;
    for (uint32_t i = CLOSED_PARTS; i < parts; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

static bool take_replicas(const struct msg_replicas_reply *reply, struct sh_replicas *out)
{
    memcpy(out->log, reply->log.bytes, sizeof out->log);
    out->durable_lsn = reply->durable_lsn;
    out->quorum_lsn = reply->quorum_lsn;
    out->all_lsn = reply->all_lsn;
    const struct shc_items followed = shc_items(reply->followed, sizeof *out->followed, decode_replica),
                           followers = shc_items(reply->followers, sizeof *out->followers, decode_replica),
                           closed = shc_items(reply->closed, sizeof *out->closed, decode_closed);
    out->followed = followed.all;
    out->followed_count = followed.count;
    out->followers = followers.all;
    out->follower_count = followers.count;
    out->closed = closed.all;
    out->closed_count = closed.count;
    return followed.good && followers.good && closed.good &&
           shc_copy(out->node, sizeof out->node, reply->node) &&
           shc_counters(reply->counters, &out->counters, &out->counter_count);
}

enum sh_error sh_replicas(struct sh_client *c, struct sh_replicas *replicas)
{
    struct shc_call call = {.once = true};
    struct msg_replicas ask = {0};
    struct msg_replicas_reply reply;
    memset(replicas, 0, sizeof *replicas);
    enum sh_error e = shc_ask(c, &call, MSG_replicas, &ask, MSG_replicas_reply, &reply);
    if (e == SH_OK && !take_replicas(&reply, replicas)) {
        shc_detail("malformed answer");
        e = SH_INTERNAL;
    }
    if (e != SH_OK)
        sh_replicas_free(replicas);
    shc_call_free(&call);
    return e;
}

void sh_replicas_free(struct sh_replicas *replicas)
{
    free(replicas->followed);
    free(replicas->followers);
    free(replicas->counters);
    free(replicas->closed);
    memset(replicas, 0, sizeof *replicas);
}
