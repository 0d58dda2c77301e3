/* How a cluster is, as one node sees it: the rule of docs/cluster-protocol.md, "Health". Pure. */
#include "sh_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

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

void sh_health(const struct sh_status *status, const struct sh_nodes *nodes, struct sh_health *health)
{
    *health = (struct sh_health){0};
    of_writes(health, status, nodes);
    if (nodes == NULL) {
        add(health, SH_HEALTH_DEGRADED, "membersvc does not answer: the other nodes are not known");
        return;
    }
    if (nodes->state == SH_STATE_FOUNDING)
        add(health, SH_HEALTH_DEGRADED, "%s is no member yet: %s", status->node, nodes->text);
    if (nodes->state == SH_STATE_REFUSED)
        add(health, SH_HEALTH_DEGRADED, "%s is refused by its cluster: %s", status->node, nodes->text);
    for (size_t i = 0; i < nodes->node_count; i++)
        of_node(health, &nodes->nodes[i]);
}

void sh_health_free(struct sh_health *health)
{
    for (size_t i = 0; i < health->reason_count; i++)
        free(health->reasons[i]);
    free(health->reasons);
    health->reasons = NULL;
    health->reason_count = 0;
}
