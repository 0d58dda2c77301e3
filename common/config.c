/* Loading, freeing and reloading a topology file. Nothing in a file is fatal: all that is wrong with it is
 * listed. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_parts.h"
#include "crc32c.h"

/* ------------------------------------------------------------ the parts of a file */

bool config_host_is_valid(const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    size_t len = strlen(text);
    bool brackets = text[0] == '[' && len > 2 && strspn(text + 1, "0123456789abcdefABCDEF:.") == len - 2 &&
                    text[len - 1] == ']';
    return brackets || (len > 0 && strspn(text, allowed) == len && text[0] != '-');
}

static void read_host(struct config_loader *l, const struct doc_node *map, struct config_node *node)
{
    const char *text = config_text(l, map, "host");
    if (text == NULL)
        return;
    if (strlen(text) >= sizeof node->host)
        config_problem(l, doc_get(map, "host"), "`host` is longer than %zu bytes", sizeof node->host - 1);
    else if (!config_host_is_valid(text))
        config_problem(l, doc_get(map, "host"),
                       "`host` must be a host name, an IPv4 address or an IPv6 address in brackets, not `%s`",
                       doc_show(text).text);
    else
        snprintf(node->host, sizeof node->host, "%s", text);
}

static void read_node(struct config_loader *l, const struct doc_node *map)
{
    struct config *c = l->config;
    if (!config_expect(l, map, DOC_MAP, "a node"))
        return;
    struct config_node *node = &c->nodes[c->node_count];
    l->places[c->node_count++] = map;
    config_check_keys(l, map, MAP_NODE);
    config_name(l, map, "id", node->id);
    read_host(l, map, node);
    node->port = (uint16_t)config_measure(l, map, MAP_NODE, "port");
    node->admin_port = (uint16_t)config_measure(l, map, MAP_NODE, "admin_port");
    if (doc_get(map, "group") != NULL)
        config_name(l, map, "group", node->group);
    else
        snprintf(node->group, sizeof node->group, "default");
}

static void read_nodes(struct config_loader *l, const struct doc_node *list)
{
    if (!config_expect(l, list, DOC_LIST, "`nodes`"))
        return;
    l->nodes = list;
    if (list->count == 0)
        config_problem(l, list, "`nodes` needs at least one node");
    if (list->count > CONFIG_NODES_MAX) {
        config_problem(l, list, "more than %d nodes", CONFIG_NODES_MAX);
        return;
    }
    l->config->nodes = xcalloc(list->count + 1, sizeof *l->config->nodes);
    l->places = xcalloc(list->count + 1, sizeof(struct doc_node *));
    for (const struct doc_node *node = list->first; node != NULL; node = node->next)
        read_node(l, node);
}

static void read_cluster(struct config_loader *l)
{
    const struct doc_node *map = doc_get(l->top, "cluster");
    if (map == NULL || !config_expect(l, map, DOC_MAP, "`cluster`"))
        return;
    config_check_keys(l, map, MAP_CLUSTER);
    config_name(l, map, "name", l->config->cluster);
    const struct doc_node *nodes = doc_get(map, "nodes");
    if (nodes != NULL)
        read_nodes(l, nodes);
}

static void read_directory(struct config_loader *l, const char *key, char pattern[CONFIG_PATH_MAX])
{
    size_t count;
    const struct config_key *known = config_keys(MAP_TOP, &count);
    while (strcmp(known->name, key) != 0)
        known++;
    snprintf(pattern, CONFIG_PATH_MAX, "%s", known->initial);
    const char *text = config_text(l, l->top, key);
    if (text == NULL)
        return;
    const struct doc_node *at = doc_get(l->top, key);
    const char *percent = text;
    while ((percent = strchr(percent, '%')) != NULL && percent[1] == 'n')
        percent += 2;
    if (text[0] != '/')
        config_problem(l, at, "`%s` must be an absolute path, not `%s`", key, doc_show(text).text);
    else if (percent != NULL)
        config_problem(l, at, "`%s` holds `%s`; only `%%n`, the id of the node, is known", key,
                       doc_show(percent).text);
    else if (strlen(text) >= CONFIG_PATH_MAX)
        config_problem(l, at, "`%s` is longer than %d bytes", key, CONFIG_PATH_MAX - 1);
    else
        snprintf(pattern, CONFIG_PATH_MAX, "%s", text);
}

/* ------------------------------------------------------------ settings */

static void unknown_setting(struct config_loader *l, const struct doc_node *at, const char *group, size_t len)
{
    size_t count, near = 0;
    const struct setting *table = settings_table(&count);
    const char **names = xcalloc(count, sizeof *names);
    struct buf hint = {0};
    for (size_t i = 0; i < count; i++)
        if (strncmp(table[i].path, group, len) == 0 && table[i].path[len] == '.')
            names[near++] = table[i].path + len + 1;
    doc_problem(&l->problems, at->key_line, at->key_column, "unknown setting `%s` in `%s`%s",
                doc_show(at->key).text, group, doc_hint(&hint, at->key, names, near));
    buf_free(&hint);
    free(names);
}

static void read_setting(struct config_loader *l, const char *group, const struct doc_node *at)
{
    size_t count, len = strlen(group);
    const struct setting *table = settings_table(&count), *s = NULL;
    for (size_t i = 0; i < count && s == NULL; i++)
        if (strncmp(table[i].path, group, len) == 0 && table[i].path[len] == '.' &&
            strcmp(table[i].path + len + 1, at->key) == 0)
            s = &table[i];
    if (s == NULL) {
        unknown_setting(l, at, group, len);
        return;
    }
    char name[CONFIG_ID_MAX * 2];
    struct buf problem = {0};
    snprintf(name, sizeof name, "`%s`", s->path);
    if (config_expect(l, at, DOC_SCALAR, name) &&
        !setting_parse(s->kind, s->least, s->most, at->text, setting_value(&l->config->settings, s),
                       &problem))
        config_problem(l, at, "%s %s", name, buf_cstr(&problem));
    buf_free(&problem);
}

static bool is_group(const char *key)
{
    size_t count, len = strlen(key);
    const struct setting *table = settings_table(&count);
    for (size_t i = 0; i < count; i++)
        if (strncmp(table[i].path, key, len) == 0 && table[i].path[len] == '.')
            return true;
    return false;
}

static void read_settings(struct config_loader *l)
{
    settings_defaults(&l->config->settings);
    for (const struct doc_node *group = l->top->first; group != NULL; group = group->next) {
        char name[CONFIG_ID_MAX];
        snprintf(name, sizeof name, "`%s`", group->key);
        if (!is_group(group->key) || !config_expect(l, group, DOC_MAP, name))
            continue;
        for (const struct doc_node *at = group->first; at != NULL; at = at->next)
            read_setting(l, group->key, at);
    }
}

/* ------------------------------------------------------------ who this node is */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Two CRC-32C values, of the same text behind "a" and behind "b": the cluster's name and the sorted names of
 * its groups, each followed by a NUL. No secret: it keeps clusters apart that meet by mistake. */
static void make_cluster_id(struct config *c)
{
    const char **groups = xcalloc(c->node_count + 1, sizeof *groups);
    for (size_t i = 0; i < c->node_count; i++)
        groups[i] = c->nodes[i].group;
    qsort(groups, c->node_count, sizeof *groups, compare_names);
    for (unsigned half = 0; half < 2; half++) {
        uint32_t sum = crc32c(0, half == 0 ? "a" : "b", 1);
        sum = crc32c(sum, c->cluster, strlen(c->cluster) + 1);
        for (size_t i = 0; i < c->node_count; i++)
            if (i == 0 || strcmp(groups[i], groups[i - 1]) != 0)
                sum = crc32c(sum, groups[i], strlen(groups[i]) + 1);
        for (unsigned i = 0; i < 4; i++)
            c->cluster_id[half * 4 + i] = (uint8_t)(sum >> (8 * i));
    }
    free(groups);
}

static void choose_self(struct config_loader *l, const char *id)
{
    struct config *c = l->config;
    if (id == NULL || l->nodes == NULL)
        return;
    const char **ids = xcalloc(c->node_count + 1, sizeof *ids);
    struct buf hint = {0};
    for (size_t i = 0; i < c->node_count; i++) {
        ids[i] = c->nodes[i].id;
        if (c->self == NULL && strcmp(ids[i], id) == 0)
            c->self = &c->nodes[i];
    }
    if (c->self == NULL)
        config_problem(l, l->nodes, "there is no node `%s`%s", doc_show(id).text,
                       doc_hint(&hint, id, ids, c->node_count));
    buf_free(&hint);
    free(ids);
}

/* With a node the patterns are known to fit: config_check tried every node. */
static void choose_directories(struct config_loader *l)
{
    struct config *c = l->config;
    snprintf(c->data_dir, sizeof c->data_dir, "%s", l->data_pattern);
    snprintf(c->run_dir, sizeof c->run_dir, "%s", l->run_pattern);
    snprintf(c->admin_token_file, sizeof c->admin_token_file, "%s", l->token_pattern);
    if (c->self == NULL)
        return;
    config_expand(l->data_pattern, c->self->id, c->data_dir);
    config_expand(l->run_pattern, c->self->id, c->run_dir);
    config_expand(l->token_pattern, c->self->id, c->admin_token_file);
}

static void read_top(struct config_loader *l, const char *node)
{
    config_check_keys(l, l->top, MAP_TOP);
    read_cluster(l);
    read_directory(l, "data_dir", l->data_pattern);
    read_directory(l, "run_dir", l->run_pattern);
    read_directory(l, "admin_token_file", l->token_pattern);
    read_settings(l);
    config_read_tree(l);
    config_check(l);
    choose_self(l, node);
    choose_directories(l);
    make_cluster_id(l->config);
}

/* ------------------------------------------------------------ public */

bool config_parse(const char *file, struct slice text, const char *node, struct config *out,
                  struct buf *errors)
{
    struct config_loader l = {.problems = {.file = file}, .config = out};
    *out = (struct config){0};
    if (strlen(file) >= sizeof out->file)
        doc_problem(&l.problems, 0, 0, "the name is longer than %zu bytes", sizeof out->file - 1);
    snprintf(out->file, sizeof out->file, "%s", file);
    struct doc_node *top = doc_parse(text, &l.problems);
    l.top = top;
    if (top != NULL && config_expect(&l, top, DOC_MAP, "the file"))
        read_top(&l, node);
    bool good = l.problems.count == 0;
    doc_problems_print(&l.problems, errors);
    doc_problems_free(&l.problems);
    doc_free(top);
    free(l.places);
    if (!good)
        config_free(out);
    return good;
}

/* Reads at most one byte more than a file may have. 0 or -errno. */
static int read_file(const char *file, struct buf *text)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = 0;
    do {
        text->len += (size_t)n;
        n = read(fd, buf_reserve(text, 65536), 65536);
    } while ((n > 0 && text->len <= DOC_BYTES_MAX) || (n < 0 && errno == EINTR && (n = 0) == 0));
    int error = n < 0 ? -errno : 0;
    close(fd);
    return error;
}

bool config_load(const char *file, const char *node, struct config *out, struct buf *errors)
{
    struct buf text = {0};
    int error = read_file(file, &text);
    bool good = false;
    *out = (struct config){0};
    if (error != 0)
        buf_printf(errors, "%s: cannot be read: %s\n", file, strerror(-error));
    else
        good = config_parse(file, buf_slice(&text), node, out, errors);
    buf_free(&text);
    return good;
}

void config_free(struct config *config)
{
    free(config->nodes);
    free(config->tree);
    *config = (struct config){0};
}

static void note_change(struct buf *ignored, const char *path, bool changed)
{
    if (changed)
        buf_printf(ignored, "%s%s", ignored->len > 0 ? ", " : "", path);
}

static bool same_nodes(const struct config *a, const struct config *b)
{
    if (a->node_count != b->node_count)
        return false;
    for (size_t i = 0; i < a->node_count; i++) {
        const struct config_node *x = &a->nodes[i], *y = &b->nodes[i];
        if (strcmp(x->id, y->id) != 0 || strcmp(x->host, y->host) != 0 || strcmp(x->group, y->group) != 0 ||
            x->port != y->port || x->admin_port != y->admin_port)
            return false;
    }
    return true;
}

static bool same_tree(const struct config *a, const struct config *b)
{
    if (a->tree_count != b->tree_count || a->backoff != b->backoff)
        return false;
    for (size_t i = 0; i < a->tree_count; i++) {
        const struct tree_node *x = &a->tree[i], *y = &b->tree[i];
        if (x->kind != y->kind || strcmp(x->name, y->name) != 0 || x->parent != y->parent ||
            x->strategy != y->strategy || x->intensity != y->intensity || x->period_ns != y->period_ns ||
            strcmp(x->program, y->program) != 0 || x->restart != y->restart ||
            x->shutdown_timeout_ns != y->shutdown_timeout_ns || x->start_timeout_ns != y->start_timeout_ns ||
            x->watchdog_ns != y->watchdog_ns)
            return false;
    }
    return true;
}

void config_reload(struct config *config, const struct config *fresh, struct buf *ignored)
{
    size_t count;
    const struct setting *table = settings_table(&count);
    struct settings next = fresh->settings;
    for (size_t i = 0; i < count; i++) {
        uint64_t *now = setting_value(&config->settings, &table[i]), value = *setting_value(&next, &table[i]);
        if (table[i].reloadable)
            *now = value;
        else
            note_change(ignored, table[i].path, *now != value);
    }
    note_change(ignored, "cluster.name", strcmp(config->cluster, fresh->cluster) != 0);
    note_change(ignored, "cluster.nodes", !same_nodes(config, fresh));
    note_change(ignored, "data_dir", strcmp(config->data_dir, fresh->data_dir) != 0);
    note_change(ignored, "run_dir", strcmp(config->run_dir, fresh->run_dir) != 0);
    note_change(ignored, "admin_token_file", strcmp(config->admin_token_file, fresh->admin_token_file) != 0);
    note_change(ignored, "supervisor", !same_tree(config, fresh));
}
