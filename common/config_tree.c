/* The supervision tree of a topology file, parents before children. Depth is bounded by the document's. */
#include "config_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Shorter ones would kill services that only wait for a processor. */
#define WATCHDOG_LEAST_NS INT64_C(100000000)

static const char *const default_services[] = {"walsvc", "membersvc", "replsvc", "querysvc", "obssvc"};

/* NULL when the tree is full, which is noted once. */
static struct tree_node *add_node(struct config_loader *l, enum tree_kind kind, int parent,
                                  const struct doc_node *at)
{
    struct config *c = l->config;
    if (c->tree_count == CONFIG_TREE_MAX) {
        if (!l->tree_is_full)
            config_problem(l, at, "more than %d services and supervisors", CONFIG_TREE_MAX);
        l->tree_is_full = true;
        return NULL;
    }
    struct tree_node *node = &c->tree[c->tree_count++];
    node->kind = kind;
    node->parent = parent;
    return node;
}

static void check_unique(struct config_loader *l, const struct tree_node *node, const struct doc_node *map,
                         const char *key)
{
    for (const struct tree_node *other = l->config->tree; other < node; other++)
        if (node->name[0] != 0 && strcmp(other->name, node->name) == 0)
            config_problem(l, doc_get(map, key), "the name `%s` is taken already in the tree", node->name);
}

static void read_program(struct config_loader *l, const struct doc_node *map, struct tree_node *node)
{
    const char *text = config_text(l, map, "program");
    if (text == NULL)
        text = node->name;
    else if (strlen(text) >= sizeof node->program)
        config_problem(l, doc_get(map, "program"), "`program` is longer than %zu bytes",
                       sizeof node->program - 1);
    else if (text[0] != '/' &&
             (strchr(text, '/') != NULL || strcmp(text, "..") == 0 || strcmp(text, ".") == 0))
        config_problem(l, doc_get(map, "program"), "`program` must be a name or an absolute path, not `%s`",
                       doc_show(text).text);
    snprintf(node->program, sizeof node->program, "%s", text);
}

/* map is NULL for a service with all defaults. */
static void read_service(struct config_loader *l, const struct doc_node *map, int parent, const char *name)
{
    struct tree_node *node = add_node(l, TREE_SERVICE, parent, map);
    if (node == NULL)
        return;
    if (map == NULL) {
        snprintf(node->name, sizeof node->name, "%s", name);
    } else {
        config_check_keys(l, map, MAP_SERVICE);
        config_name(l, map, "service", node->name);
        check_unique(l, node, map, "service");
    }
    read_program(l, map, node);
    node->restart = (enum tree_restart)config_choice(l, map, "restart", config_restarts, 3);
    node->shutdown_timeout_ns = (int64_t)config_measure(l, map, MAP_SERVICE, "shutdown_timeout");
    node->start_timeout_ns = (int64_t)config_measure(l, map, MAP_SERVICE, "start_timeout");
    node->watchdog_ns = (int64_t)config_measure(l, map, MAP_SERVICE, "watchdog");
    if (node->watchdog_ns != 0 && node->watchdog_ns < WATCHDOG_LEAST_NS)
        config_problem(l, doc_get(map, "watchdog"), "`watchdog` must be 0 (none) or at least 100ms");
}

static void read_supervisor(struct config_loader *l, const struct doc_node *map, int parent);

static void read_child(struct config_loader *l, const struct doc_node *map, int parent)
{
    static const char *const keys[] = {"service", "supervisor"};
    struct buf hint = {0};
    if (!config_expect(l, map, DOC_MAP, "a child"))
        return;
    bool is_service = doc_get(map, "service") != NULL, is_supervisor = doc_get(map, "supervisor") != NULL;
    if (is_service && is_supervisor)
        config_problem(l, map, "a child is either a `service` or a `supervisor`, not both");
    else if (is_service)
        read_service(l, map, parent, NULL);
    else if (is_supervisor)
        read_supervisor(l, map, parent);
    else
        config_problem(l, map, "a child needs the key `service` or `supervisor`%s",
                       doc_hint(&hint, map->first == NULL ? "" : map->first->key, keys, 2));
    buf_free(&hint);
}

static void read_children(struct config_loader *l, const struct doc_node *map, int parent)
{
    const struct doc_node *children = map == NULL ? NULL : doc_get(map, "children");
    if (children == NULL && parent == 0) {
        for (size_t i = 0; i < sizeof default_services / sizeof default_services[0]; i++)
            read_service(l, NULL, parent, default_services[i]);
    }
    if (children == NULL || !config_expect(l, children, DOC_LIST, "`children`"))
        return;
    if (children->count == 0)
        config_problem(l, children, "a supervisor needs at least one child");
    for (const struct doc_node *child = children->first; child != NULL; child = child->next)
        read_child(l, child, parent);
}

/* map is NULL for the root of the default tree. */
static void read_supervisor(struct config_loader *l, const struct doc_node *map, int parent)
{
    enum config_map kind = parent < 0 ? MAP_ROOT : MAP_SUPERVISOR;
    struct tree_node *node = add_node(l, TREE_SUPERVISOR, parent, map);
    if (node == NULL)
        return;
    if (map != NULL)
        config_check_keys(l, map, kind);
    if (kind == MAP_ROOT) {
        snprintf(node->name, sizeof node->name, "root");
        l->config->backoff = config_measure(l, map, kind, "backoff") != 0;
    } else {
        config_name(l, map, "supervisor", node->name);
        check_unique(l, node, map, "supervisor");
    }
    node->strategy = (enum tree_strategy)config_choice(l, map, "strategy", config_strategies, 3);
    node->intensity = (uint32_t)config_measure(l, map, kind, "intensity");
    node->period_ns = (int64_t)config_measure(l, map, kind, "period");
    read_children(l, map, (int)(node - l->config->tree));
}

void config_read_tree(struct config_loader *l)
{
    const struct doc_node *map = doc_get(l->top, "supervisor");
    l->config->tree = xcalloc(CONFIG_TREE_MAX, sizeof *l->config->tree);
    if (map != NULL && !config_expect(l, map, DOC_MAP, "`supervisor`"))
        map = NULL;
    read_supervisor(l, map, -1);
}
