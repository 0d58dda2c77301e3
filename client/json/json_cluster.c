/* The objects. */
#include "json_cluster.h"

#include <string.h>

#include "local_time.h"

/* ---------------------------------------------------------------- nodes */

static bool is_zero(const uint8_t id[16])
{
    static const uint8_t zero[16];
    return memcmp(id, zero, sizeof zero) == 0;
}

static void json_id(struct json_writer *j, const char *key, const uint8_t id[16])
{
    if (is_zero(id))
        json_null(j, key);
    else
        json_uuid(j, key, id);
}

static void json_watermarks(struct json_writer *j, const struct sh_node *n)
{
    json_open(j, "watermarks", '[');
    for (size_t i = 0; i < n->watermark_count; i++) {
        json_open(j, NULL, '{');
        json_uuid(j, "log", n->watermarks[i].log);
        json_uint(j, "lsn", n->watermarks[i].lsn);
        json_uint(j, "end", n->watermarks[i].end);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void json_node(struct json_writer *j, const struct sh_node *n)
{
    json_open(j, NULL, '{');
    json_text(j, "id", n->id);
    json_text(j, "status", sh_node_status_name(n->status));
    json_int(j, "since_ms", n->since_ms);
    if (n->heard_ms >= 0)
        json_int(j, "heartbeat_age_ms", n->heard_ms);
    else
        json_null(j, "heartbeat_age_ms");
    json_text(j, "host", n->host);
    json_uint(j, "port", n->port);
    json_uint(j, "admin_port", n->admin_port);
    json_text(j, "group", n->group);
    json_id(j, "log", n->log);
    json_uint(j, "generation", n->generation);
    json_uint(j, "incarnation", n->incarnation);
    json_id(j, "boot", n->boot);
    json_bool(j, "self", n->self);
    json_bool(j, "observed", n->observed);
    json_bool(j, "unreachable", n->unreachable);
    json_int(j, "clock_offset_ms", n->ahead_ms);
    json_bool(j, "clock_drift", n->drifting);
    json_watermarks(j, n);
    json_close(j, '}');
}

static void json_node_list(struct json_writer *j, const struct sh_nodes *nodes)
{
    json_open(j, "nodes", '[');
    for (size_t i = 0; i < nodes->node_count; i++)
        json_node(j, &nodes->nodes[i]);
    json_close(j, ']');
}

void json_nodes(struct json_writer *j, const struct sh_nodes *nodes)
{
    json_open(j, NULL, '{');
    json_text(j, "cluster", nodes->cluster);
    json_text(j, "node", nodes->node);
    json_text(j, "state", sh_node_state_name(nodes->state));
    json_text(j, "text", nodes->text);
    if (nodes->only_first > 0) {
        json_uint(j, "only_first", nodes->only_first);
        json_uint(j, "only_last", nodes->only_last);
    }
    json_node_list(j, nodes);
    json_open(j, "counters", '{');
    for (size_t i = 0; i < nodes->counter_count; i++)
        json_uint(j, nodes->counters[i].name, nodes->counters[i].count);
    json_close(j, '}');
    json_uint(j, "next_event", nodes->next_event);
    json_close(j, '}');
}

/* ---------------------------------------------------------------- replicas */

/* The node's own log is among those that it fetches. */
static bool is_fetched_back(const struct sh_replicas *r)
{
    for (size_t i = 0; i < r->followed_count; i++)
        if (memcmp(r->followed[i].log, r->log, sizeof r->log) == 0)
            return true;
    return false;
}

static void json_lsn(struct json_writer *j, const char *key, uint64_t lsn)
{
    if (lsn == UINT64_MAX)
        json_null(j, key);
    else
        json_uint(j, key, lsn);
}

static void json_member(struct json_writer *j, const char *key, const char *id)
{
    if (id[0] == 0)
        json_null(j, key);
    else
        json_text(j, key, id);
}

static void json_place(struct json_writer *j, const struct sh_replica *r)
{
    json_text(j, "state", sh_replica_state_name(r->state));
    json_uint(j, "lsn", r->lsn);
    json_uint(j, "end", r->end);
    json_uint(j, "lag_entries", r->lag_entries);
    json_uint(j, "lag_bytes", r->lag_bytes);
    json_uint(j, "lag_ms", r->lag_ms);
    if (r->seen_ms >= 0)
        json_int(j, "heard_ms", r->seen_ms);
    else
        json_null(j, "heard_ms");
}

static void json_followed(struct json_writer *j, const struct sh_replica *r)
{
    json_open(j, NULL, '{');
    json_uuid(j, "log", r->log);
    json_member(j, "origin", r->origin);
    json_member(j, "source", r->peer);
    json_place(j, r);
    json_uint(j, "credit", r->credit);
    json_uint(j, "retries", r->retries);
    json_bool(j, "closed", r->closed);
    json_close(j, '}');
}

static void json_follower(struct json_writer *j, const struct sh_replica *r)
{
    json_open(j, NULL, '{');
    json_text(j, "follower", r->peer);
    json_place(j, r);
    json_close(j, '}');
}

static void json_closed(struct json_writer *j, const struct sh_closed_log *c)
{
    char when[LOCAL_TIME];
    json_open(j, NULL, '{');
    json_uuid(j, "log", c->log);
    json_uint(j, "lsn", c->lsn);
    json_uint(j, "end", c->end);
    json_uint(j, "checksum", c->checksum);
    json_text(j, "dropped", local_time(c->dropped_ns, when));
    json_close(j, '}');
}

void json_replicas(struct json_writer *j, const struct sh_replicas *r)
{
    json_open(j, NULL, '{');
    json_text(j, "node", r->node);
    json_uuid(j, "log", r->log);
    json_uint(j, "durable_lsn", r->durable_lsn);
    json_lsn(j, "quorum_lsn", r->quorum_lsn);
    json_lsn(j, "all_lsn", r->all_lsn);
    json_bool(j, "fetched_back", is_fetched_back(r));
    json_open(j, "followed", '[');
    for (size_t i = 0; i < r->followed_count; i++)
        json_followed(j, &r->followed[i]);
    json_close(j, ']');
    json_open(j, "followers", '[');
    for (size_t i = 0; i < r->follower_count; i++)
        json_follower(j, &r->followers[i]);
    json_close(j, ']');
    json_open(j, "closed", '[');
    for (size_t i = 0; i < r->closed_count; i++)
        json_closed(j, &r->closed[i]);
    json_close(j, ']');
    json_open(j, "counters", '{');
    for (size_t i = 0; i < r->counter_count; i++)
        json_uint(j, r->counters[i].name, r->counters[i].count);
    json_close(j, '}');
    json_close(j, '}');
}

/* ---------------------------------------------------------------- status */

static const char *writes_name(enum sh_writes writes)
{
    static const char *const names[] = {"taken", "disk_full", "read_only", "walsvc_away"};
    return (unsigned)writes < sizeof names / sizeof names[0] ? names[writes] : "unknown";
}

void json_status_fields(struct json_writer *j, const struct sh_status *s, const struct sh_health *health,
                        const struct sh_nodes *nodes)
{
    json_text(j, "cluster", s->cluster);
    json_text(j, "node", s->node);
    json_text(j, "version", s->version);
    json_uuid(j, "log", s->log);
    json_bool(j, "writable", s->writable);
    json_text(j, "writes", writes_name(s->writes));
    json_uint(j, "first_lsn", s->first_lsn);
    json_uint(j, "durable_lsn", s->durable_lsn);
    json_uint(j, "durable_end", s->durable_end);
    json_uint(j, "segments", s->segments);
    json_uint(j, "disk_bytes", s->disk_bytes);
    json_uint(j, "uptime_ms", s->uptime_ms);
    json_uint(j, "clients", s->clients);
    json_uint(j, "commits", s->commits);
    json_text(j, "health", sh_health_name(health->level));
    json_open(j, "reasons", '[');
    for (size_t i = 0; i < health->reason_count; i++)
        json_text(j, NULL, health->reasons[i]);
    json_close(j, ']');
    if (nodes != NULL)
        json_node_list(j, nodes);
    else
        json_null(j, "nodes");
}

/* ---------------------------------------------------------------- who belongs to it */

void json_joined(struct json_writer *j, const char *id, uint64_t generation)
{
    json_open(j, NULL, '{');
    json_text(j, "id", id);
    json_uint(j, "generation", generation);
    json_close(j, '}');
}

void json_left(struct json_writer *j, const char *id, const struct sh_leave_result *left)
{
    json_open(j, NULL, '{');
    json_text(j, "id", id);
    json_uint(j, "generation", left->generation);
    json_id(j, "log", left->log);
    if (left->only_first > 0) {
        json_uint(j, "only_first", left->only_first);
        json_uint(j, "only_last", left->only_last);
    } else {
        json_null(j, "only_first");
        json_null(j, "only_last");
    }
    json_close(j, '}');
}
