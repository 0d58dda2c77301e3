/* What is wrong with a topology file as a whole: ids given twice, ports and directories that collide,
 * settings that don't go together. */
#include "config_parts.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "group.h"

enum { NODE_PORTS = 5 };

/* The longest name of a socket in run_dir. */
static const char longest_socket[] = "supervisor.sock";

bool config_expand(const char *pattern, const char *node, char out[CONFIG_PATH_MAX])
{
    size_t len = 0;
    for (const char *at = pattern; *at != 0 && len < CONFIG_PATH_MAX; at++) {
        const char *piece = at;
        size_t piece_len = 1;
        if (at[0] == '%' && at[1] == 'n') {
            piece = node;
            piece_len = strlen(node);
            at++;
        }
        if (len + piece_len >= CONFIG_PATH_MAX)
            return false;
        memcpy(out + len, piece, piece_len);
        len += piece_len;
    }
    out[len] = 0;
    return true;
}

/* ------------------------------------------------------------ nodes */

static bool same_host(const struct config_node *a, const struct config_node *b)
{
    return a->host[0] != 0 && strcasecmp(a->host, b->host) == 0;
}

static bool has_port(const struct config_node *node, unsigned port)
{
    return port != 0 && ((node->port != 0 && port >= node->port && port - node->port < NODE_PORTS) ||
                         port == node->admin_port);
}

/* The lowest port that both use, 0 for none. */
static unsigned shared_port(const struct config_node *a, const struct config_node *b)
{
    for (unsigned i = 0; a->port != 0 && i < NODE_PORTS; i++)
        if (has_port(b, a->port + i))
            return a->port + i;
    return has_port(b, a->admin_port) ? a->admin_port : 0;
}

static void check_own_ports(struct config_loader *l, size_t i)
{
    const struct config_node *node = &l->config->nodes[i];
    if (node->admin_port != 0 && node->port != 0 && node->admin_port >= node->port &&
        node->admin_port < node->port + NODE_PORTS)
        config_problem(l, doc_get(l->places[i], "admin_port"),
                       "`admin_port` %u lies within the node's ports %u to %u", node->admin_port, node->port,
                       node->port + NODE_PORTS - 1);
}

static void check_nodes(struct config_loader *l)
{
    const struct config *c = l->config;
    for (size_t i = 0; i < c->node_count; i++) {
        const struct config_node *node = &c->nodes[i];
        bool twice = false, collides = false;
        check_own_ports(l, i);
        for (size_t j = 0; j < i && !(twice && collides); j++) {
            const struct config_node *other = &c->nodes[j];
            if (!twice && node->id[0] != 0 && strcmp(node->id, other->id) == 0) {
                twice = true;
                config_problem(l, doc_get(l->places[i], "id"), "the id `%s` is taken already in line %u",
                               node->id, l->places[j]->line);
            }
            unsigned port = collides || !same_host(node, other) ? 0 : shared_port(node, other);
            if (port != 0) {
                collides = true;
                config_problem(
                    l, l->places[i],
                    "port %u of node `%s` is used by node `%s` too (line %u); a node needs `port` to "
                    "`port` + %d and `admin_port`",
                    port, node->id, other->id, l->places[j]->line, NODE_PORTS - 1);
            }
        }
    }
}

/* Names that no node before has, up to the first that is one too many. */
static void check_groups(struct config_loader *l)
{
    const struct config *c = l->config;
    size_t groups = 0;
    for (size_t i = 0; i < c->node_count && groups <= GROUPS_MAX; i++) {
        size_t j = 0;
        while (j < i && strcmp(c->nodes[j].group, c->nodes[i].group) != 0)
            j++;
        groups += j == i;
        if (groups > GROUPS_MAX)
            config_problem(l, l->places[i], "more than %d groups", GROUPS_MAX);
    }
}

/* ------------------------------------------------------------ directories */

static bool nodes_share_a_host(const struct config *c)
{
    for (size_t i = 0; i < c->node_count; i++)
        for (size_t j = 0; j < i; j++)
            if (same_host(&c->nodes[i], &c->nodes[j]))
                return true;
    return false;
}

/* The place of a directory's value; when it is the default, of the whole file. */
static const struct doc_node *place_of(const struct config_loader *l, const char *key)
{
    const struct doc_node *at = doc_get(l->top, key);
    return at != NULL ? at : l->top;
}

static const struct config_node *longest_id(const struct config *c)
{
    const struct config_node *longest = &c->nodes[0];
    for (size_t i = 1; i < c->node_count; i++)
        if (strlen(c->nodes[i].id) > strlen(longest->id))
            longest = &c->nodes[i];
    return longest;
}

static void check_lengths(struct config_loader *l)
{
    const struct config_node *node = longest_id(l->config);
    char path[CONFIG_PATH_MAX];
    if (!config_expand(l->data_pattern, node->id, path))
        config_problem(l, place_of(l, "data_dir"), "`data_dir` of node `%s` is longer than %d bytes",
                       node->id, CONFIG_PATH_MAX - 1);
    if (!config_expand(l->token_pattern, node->id, path))
        config_problem(l, place_of(l, "admin_token_file"),
                       "`admin_token_file` of node `%s` is longer than %d bytes", node->id,
                       CONFIG_PATH_MAX - 1);
    bool fits = config_expand(l->run_pattern, node->id, path);
    size_t most = SOCKET_PATH_MAX - sizeof longest_socket; /* a slash takes the NUL's place */
    if (!fits || strlen(path) > most)
        config_problem(
            l, place_of(l, "run_dir"),
            "`run_dir` of node `%s` is too long for a socket's %d bytes: it has %zu, and %zu are left beside "
            "`/%s`",
            node->id, SOCKET_PATH_MAX, fits ? strlen(path) : strlen(l->run_pattern), most, longest_socket);
}

/* Compares paths but for doubled and closing slashes. */
static bool same_path(const char *a, const char *b)
{
    while (*a != 0 && *a == *b) {
        if (*a == '/') {
            a += strspn(a, "/");
            b += strspn(b, "/");
        } else {
            a++;
            b++;
        }
    }
    return a[strspn(a, "/")] == 0 && b[strspn(b, "/")] == 0;
}

static void check_directories(struct config_loader *l)
{
    static const char *const keys[] = {"data_dir", "run_dir"};
    const char *patterns[] = {l->data_pattern, l->run_pattern};
    bool shared = nodes_share_a_host(l->config);
    for (unsigned i = 0; i < 2; i++)
        if (shared && strstr(patterns[i], "%n") == NULL)
            config_problem(l, place_of(l, keys[i]),
                           "`%s` needs `%%n` in it, because several nodes share a host", keys[i]);
    if (same_path(l->data_pattern, l->run_pattern))
        config_problem(l, place_of(l, "run_dir"), "`run_dir` and `data_dir` must differ");
    if (l->config->node_count > 0)
        check_lengths(l);
}

/* ------------------------------------------------------------ settings */

/* The place of the first of the two that is given. */
static const struct doc_node *place_of_member(const struct config_loader *l, const char *one,
                                              const char *other)
{
    const struct doc_node *map = doc_get(l->top, "member");
    if (map == NULL || map->kind != DOC_MAP)
        return l->top;
    const struct doc_node *at = doc_get(map, one);
    if (at == NULL)
        at = doc_get(map, other);
    return at != NULL ? at : map;
}

/* A heartbeat may get lost, and an accused member gets a probe or two in which to refute. */
static void check_member_times(struct config_loader *l)
{
    const struct settings *s = &l->config->settings;
    uint64_t heartbeat = s->member_heartbeat_interval, suspect = s->member_suspect_after;
    struct buf least = {0};
    if (suspect < 2 * heartbeat) {
        setting_format(SETTING_DURATION, 2 * heartbeat, &least);
        config_problem(l, place_of_member(l, "suspect_after", "heartbeat_interval"),
                       "`member.suspect_after` must be at least two heartbeat intervals: %s",
                       buf_cstr(&least));
    }
    least.len = 0;
    if (s->member_down_after < suspect + heartbeat / 5) {
        setting_format(SETTING_DURATION, suspect + heartbeat / 5, &least);
        config_problem(l, place_of_member(l, "down_after", "suspect_after"),
                       "`member.down_after` must be at least `member.suspect_after` and a fifth of a "
                       "heartbeat interval: %s",
                       buf_cstr(&least));
    }
    buf_free(&least);
}

void config_check(struct config_loader *l)
{
    check_nodes(l);
    check_groups(l);
    check_directories(l);
    check_member_times(l);
}
