/* How a cluster is, as one node sees it: the rule of docs/cluster-protocol.md, "Health". Pure. */
#include "sh_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A copy lags when it is more than LAG_BYTES behind and was not caught up for LAG_MS. Followers tell of
 * theirs each second. */
enum { LAG_BYTES = 64 << 20, LAG_MS = 60 * 1000, SILENT_MS = 15 * 1000 };

const char *sh_health_name(enum sh_health_level level)
{
    static const char *const names[] = {"healthy", "degraded", "unavailable"};
    return (unsigned)level < sizeof names / sizeof names[0] ? names[level] : "unknown";
}

static __attribute__((format(printf, 3, 4))) void add(struct sh_health *h, enum sh_health_level level,
                                                      const char *format, ...)
{
    char text[640];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    h->reasons = xrealloc(h->reasons, (h->reason_count + 1) * sizeof *h->reasons);
    h->reasons[h->reason_count++] = xstrdup(text);
    h->level = level > h->level ? level : h->level;
}

/* left and replaced come here too: the node may not have been told yet that it takes no writes. */
static void of_writes(struct sh_health *h, const struct sh_status *status, const struct sh_nodes *nodes)
{
    bool is_out = nodes != NULL && (nodes->state == SH_STATE_LEFT || nodes->state == SH_STATE_REPLACED);
    if (is_out)
        add(h, SH_HEALTH_UNAVAILABLE, "%s", nodes->text);
    if (status->writable || (is_out && status->writes == SH_WRITES_READ_ONLY))
        return;
    if (status->writes == SH_WRITES_DISK_FULL)
        add(h, SH_HEALTH_UNAVAILABLE, "%s takes no writes: its disk is full", status->node);
    else if (status->writes == SH_WRITES_READ_ONLY)
        add(h, SH_HEALTH_UNAVAILABLE, "%s takes no writes: it is read-only", status->node);
    else
        add(h, SH_HEALTH_UNAVAILABLE, "%s takes no writes: walsvc does not answer", status->node);
}

static void of_node(struct sh_health *h, const struct sh_node *n)
{
    if (n->status == SH_NODE_LEFT)
        return;
    if (n->status != SH_NODE_UP)
        add(h, SH_HEALTH_DEGRADED, "%s is %s", n->id, sh_node_status_name(n->status));
    if (n->unreachable)
        add(h, SH_HEALTH_DEGRADED, "nothing comes from %s, while others reach it", n->id);
    if (n->drifting)
        add(h, SH_HEALTH_DEGRADED, "the clock of %s is too far away", n->id);
}

/* A log that is written all the time is caught up at no instant: unless nobody gives the rest, only with the
 * bytes does the time tell. */
static bool lags(const struct sh_replica *r)
{
    bool is_much = r->lag_bytes > LAG_BYTES || (r->lag_bytes > 0 && r->state == SH_REPLICA_DISCONNECTED);
    return is_much && r->lag_ms > LAG_MS;
}

/* Of a log of no member now there may be entries that nobody has any more. */
static void of_followed(struct sh_health *h, const struct sh_replica *r)
{
    char uuid[ID_TEXT];
    struct id16 log;
    bool is_member = r->origin[0] != 0;
    memcpy(log.bytes, r->log, sizeof log.bytes);
    id16_format(log, uuid);
    if (r->state == SH_REPLICA_FORKED)
        add(h, SH_HEALTH_DEGRADED, "the copy of the log of %s is forked", is_member ? r->origin : uuid);
    else if (is_member && lags(r))
        add(h, SH_HEALTH_DEGRADED, "the copy of the log of %s lags", r->origin);
}

static bool is_up(const struct sh_nodes *nodes, const char *id)
{
    for (size_t i = 0; nodes != NULL && i < nodes->node_count; i++)
        if (strcmp(nodes->nodes[i].id, id) == 0)
            return nodes->nodes[i].status == SH_NODE_UP;
    return false;
}

/* One that is not up is told of as a member. */
static void of_follower(struct sh_health *h, const struct sh_replica *r, const struct sh_nodes *nodes)
{
    if (!is_up(nodes, r->peer))
        return;
    if (r->seen_ms < 0 || r->seen_ms > SILENT_MS)
        add(h, SH_HEALTH_DEGRADED, "%s does not tell of its copy of this log", r->peer);
    else if (lags(r))
        add(h, SH_HEALTH_DEGRADED, "the copy of this log on %s lags", r->peer);
}

static void of_replicas(struct sh_health *h, const struct sh_replicas *replicas, const struct sh_nodes *nodes)
{
    if (replicas == NULL) {
        add(h, SH_HEALTH_DEGRADED, "replsvc does not answer: logs are not copied");
        return;
    }
    for (size_t i = 0; i < replicas->followed_count; i++) {
        const struct sh_replica *r = &replicas->followed[i];
        if (memcmp(r->log, replicas->log, sizeof r->log) == 0)
            add(h, SH_HEALTH_DEGRADED, "the log of %s is fetched back from its copies", replicas->node);
        else
            of_followed(h, r);
    }
    for (size_t i = 0; i < replicas->follower_count; i++)
        of_follower(h, &replicas->followers[i], nodes);
}

static void of_nodes(struct sh_health *h, const struct sh_nodes *nodes)
{
    if (nodes == NULL) {
        add(h, SH_HEALTH_DEGRADED, "membersvc does not answer: the other nodes are not known");
        return;
    }
    if (nodes->state == SH_STATE_FOUNDING)
        add(h, SH_HEALTH_DEGRADED, "%s is no member yet: %s", nodes->node, nodes->text);
    if (nodes->state == SH_STATE_REFUSED)
        add(h, SH_HEALTH_DEGRADED, "%s is refused by its cluster: %s", nodes->node, nodes->text);
    for (size_t i = 0; i < nodes->node_count; i++)
        of_node(h, &nodes->nodes[i]);
}

void sh_health(const struct sh_status *status, const struct sh_nodes *nodes,
               const struct sh_replicas *replicas, struct sh_health *health)
{
    *health = (struct sh_health){0};
    of_writes(health, status, nodes);
    of_nodes(health, nodes);
    of_replicas(health, replicas, nodes);
}

void sh_health_free(struct sh_health *health)
{
    for (size_t i = 0; i < health->reason_count; i++)
        free(health->reasons[i]);
    free(health->reasons);
    health->reasons = NULL;
    health->reason_count = 0;
}
