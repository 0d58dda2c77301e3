/* Keys of the maps in a topology file, and reading values by key. Problems are noted, nothing is fatal but a
 * key that the tables don't have. */
#include "config_parts.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MS      UINT64_C(1000000)
#define SECOND  UINT64_C(1000000000)
#define HOUR    (3600 * SECOND)
#define WORD    .measured = false
#define REQUIRE .required = true

static const struct config_key top_keys[] = {
    {"cluster", REQUIRE, .value = "map", .initial = "",
     .prose = "the nodes, the same in the file of every node"},
    {"data_dir", .value = "path", .initial = "/var/lib/shanghai/%n",
     .prose = "what must survive; absolute, `%n` stands for the id of the node"},
    {"run_dir", .value = "path", .initial = "/run/shanghai/%n",
     .prose = "sockets; absolute, `%n` stands for the id of the node. Its sockets' names must fit into the "
              "107 bytes "
              "that the kernel has for them"},
    {"admin_token_file", .value = "path", .initial = "",
     .prose = "its first line is the token that the admin HTTP API wants of whoever changes something; "
              "absolute, `%n` "
              "stands for the id of the node. Only the node's user may be able to read it. Without it "
              "nothing can be "
              "changed there (docs/admin-api.md)"},
    {"supervisor", .value = "map", .initial = "",
     .prose = "the supervision tree; absent: the default tree below"},
};

static const struct config_key cluster_keys[] = {
    {"name", REQUIRE, .value = "name", .initial = "", .prose = "name of the cluster; part of its id"},
    {"nodes", REQUIRE, .value = "list of nodes", .initial = "", .prose = "1 to 1,024 nodes"},
};

static const struct config_key node_keys[] = {
    {"id", REQUIRE, .value = "name", .initial = "", .prose = "the node's id, unique in the cluster"},
    {"host", REQUIRE, .value = "host name or address", .initial = "",
     .prose = "where its ports are listened on, and where the others reach it"},
    {"port", REQUIRE, .value = "port", .initial = "",
     .prose = "first of five ports in a row: clients (2), membership, replication (2)", .measured = true,
     .kind = SETTING_COUNT, .least = 1, .most = 65531},
    {"admin_port", .value = "port", .initial = "0", .prose = "port of the admin HTTP API; 0 for none",
     .measured = true, .kind = SETTING_COUNT, .least = 0, .most = 65535},
    {"group", .value = "name", .initial = "default",
     .prose = "replication group: its nodes hold each other's logs, and the keys and streams that belong to "
              "it (docs/groups.md). The set of groups, at most 256, is part of the cluster's id"},
};

/* What a supervisor has, whether it is the root or not. */
#define SUPERVISOR_KEYS                                                                                      \
    {"strategy", .value = "one_for_one, one_for_all or rest_for_one", .initial = "one_for_one",              \
     .prose =                                                                                                \
         "who is restarted when a child ends: it alone, all children, or it and those that start after it"}, \
        {"intensity",                                                                                        \
         .value = "count",                                                                                   \
         .initial = "10",                                                                                    \
         .prose =                                                                                            \
             "most restarts within the period; beyond, the supervisor stops its children and fails itself",  \
         .measured = true,                                                                                   \
         .kind = SETTING_COUNT,                                                                              \
         .least = 0,                                                                                         \
         .most = 1000000},                                                                                   \
    {                                                                                                        \
        "period", .value = "duration", .initial = "60s", .prose = "the period of the intensity",             \
                  .measured = true, .kind = SETTING_DURATION, .least = MS, .most = 24 * HOUR                 \
    }

static const struct config_key root_keys[] = {
    SUPERVISOR_KEYS,
    {"backoff", .value = "boolean", .initial = "true",
     .prose = "wait longer and longer (50ms to 5s) before restarts after the first; false is for tests",
     .measured = true, .kind = SETTING_BOOLEAN, .least = 0, .most = 1},
    {"children", .value = "list of services and supervisors",
     .initial = "walsvc, membersvc, replsvc, querysvc, obssvc",
     .prose = "started in this order, stopped in reverse"},
};

static const struct config_key supervisor_keys[] = {
    {"supervisor", REQUIRE, .value = "name", .initial = "",
     .prose = "name of the supervisor, unique in the tree"},
    SUPERVISOR_KEYS,
    {"children", REQUIRE, .value = "list of services and supervisors", .initial = "",
     .prose = "started in this order, stopped in reverse"},
};

static const struct config_key service_keys[] = {
    {"service", REQUIRE, .value = "name", .initial = "", .prose = "name of the service, unique in the tree"},
    {"program", .value = "name or absolute path", .initial = "the service's name",
     .prose = "what is run; a name is looked for beside shanghaid"},
    {"restart", .value = "permanent, transient or temporary", .initial = "permanent",
     .prose = "restarted always, after a failure only, or never"},
    {"shutdown_timeout", .value = "duration", .initial = "5s", .prose = "between SIGTERM and SIGKILL",
     .measured = true, .kind = SETTING_DURATION, .least = 0, .most = HOUR},
    {"start_timeout", .value = "duration", .initial = "10s",
     .prose = "how long it may take to be ready; beyond, it is killed, which counts as a failed start",
     .measured = true, .kind = SETTING_DURATION, .least = 10 * MS, .most = HOUR},
    {"watchdog", .value = "duration", .initial = "10s",
     .prose = "a service that is silent for so long hangs, and is killed and restarted; 0 for none, else at "
              "least 100ms",
     .measured = true, .kind = SETTING_DURATION, .least = 0, .most = HOUR},
};

#define KEYS(table) *count = sizeof(table) / sizeof((table)[0]), table
const struct config_key *config_keys(enum config_map map, size_t *count)
{
    switch (map) {
    case MAP_TOP:
        return KEYS(top_keys);
    case MAP_CLUSTER:
        return KEYS(cluster_keys);
    case MAP_NODE:
        return KEYS(node_keys);
    case MAP_ROOT:
        return KEYS(root_keys);
    case MAP_SUPERVISOR:
        return KEYS(supervisor_keys);
    case MAP_SERVICE:
        return KEYS(service_keys);
    }
    abort();
}

const char *config_map_name(enum config_map map)
{
    static const char *const names[] = {"the file",     "`cluster`", "a node", "the root supervisor",
                                        "a supervisor", "a service"};
    return names[map];
}

const char *const config_strategies[3] = {"one_for_one", "one_for_all", "rest_for_one"};
const char *const config_restarts[3] = {"permanent", "transient", "temporary"};

/* ------------------------------------------------------------ reading by key */

void config_problem(struct config_loader *l, const struct doc_node *at, const char *format, ...)
{
    char text[480];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    doc_problem(&l->problems, at->line, at->column, "%s", text);
}

bool config_expect(struct config_loader *l, const struct doc_node *node, enum doc_kind kind, const char *name)
{
    if (node->kind == kind && (kind != DOC_SCALAR || node->text[0] != 0))
        return true;
    if (node->kind == DOC_SCALAR && node->text[0] == 0)
        config_problem(l, node, "%s is empty; it must be %s", name, doc_kind_name(kind));
    else
        config_problem(l, node, "%s must be %s, not %s", name, doc_kind_name(kind),
                       doc_kind_name(node->kind));
    return false;
}

/* All keys that may stand in a map: at the top the groups of settings too, each as often as it has settings.
 */
static size_t known_keys(enum config_map kind, const char **names, size_t room, char groups[][CONFIG_ID_MAX])
{
    size_t count, settings, all = 0;
    const struct config_key *keys = config_keys(kind, &count);
    for (size_t i = 0; i < count; i++)
        names[all++] = keys[i].name;
    const struct setting *table = settings_table(&settings);
    for (size_t i = 0; kind == MAP_TOP && i < settings; i++) {
        assert(all < room);
        size_t len = strcspn(table[i].path, ".");
        snprintf(groups[i], CONFIG_ID_MAX, "%.*s", (int)len, table[i].path);
        names[all++] = groups[i];
    }
    return all;
}

void config_check_keys(struct config_loader *l, const struct doc_node *map, enum config_map kind)
{
    enum { ROOM = 256 };
    const char *names[ROOM];
    char groups[ROOM][CONFIG_ID_MAX];
    struct buf hint = {0};
    size_t count, known = known_keys(kind, names, ROOM, groups);
    for (const struct doc_node *child = map->first; child != NULL; child = child->next) {
        bool found = false;
        for (size_t i = 0; i < known && !found; i++)
            found = strcmp(child->key, names[i]) == 0;
        if (!found)
            doc_problem(&l->problems, child->key_line, child->key_column, "unknown key `%s` in %s%s",
                        doc_show(child->key).text, config_map_name(kind),
                        doc_hint(&hint, child->key, names, known));
    }
    const struct config_key *keys = config_keys(kind, &count);
    for (size_t i = 0; i < count; i++)
        if (keys[i].required && doc_get(map, keys[i].name) == NULL)
            config_problem(l, map, "%s needs the key `%s`", config_map_name(kind), keys[i].name);
    buf_free(&hint);
}

const char *config_text(struct config_loader *l, const struct doc_node *map, const char *key)
{
    const struct doc_node *node = map == NULL ? NULL : doc_get(map, key);
    char name[CONFIG_ID_MAX];
    snprintf(name, sizeof name, "`%s`", key);
    if (node == NULL || !config_expect(l, node, DOC_SCALAR, name))
        return NULL;
    return node->text;
}

uint64_t config_measure(struct config_loader *l, const struct doc_node *map, enum config_map kind,
                        const char *name)
{
    size_t count;
    const struct config_key *key = config_keys(kind, &count);
    while (strcmp(key->name, name) != 0)
        key++;
    assert(key->measured);
    struct buf problem = {0};
    uint64_t value = 0;
    if (key->initial[0] != 0 &&
        !setting_parse(key->kind, key->least, key->most, key->initial, &value, &problem))
        abort();
    const char *text = config_text(l, map, name);
    if (text != NULL && !setting_parse(key->kind, key->least, key->most, text, &value, &problem))
        config_problem(l, doc_get(map, name), "`%s` %s", name, buf_cstr(&problem));
    buf_free(&problem);
    return value;
}

unsigned config_choice(struct config_loader *l, const struct doc_node *map, const char *key,
                       const char *const *words, size_t count)
{
    const char *text = config_text(l, map, key);
    if (text == NULL)
        return 0;
    for (unsigned i = 0; i < count; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    struct buf hint = {0};
    config_problem(l, doc_get(map, key), "`%s` must be %s, %s or %s, not `%s`%s", key, words[0], words[1],
                   words[2], doc_show(text).text, doc_hint(&hint, text, words, count));
    buf_free(&hint);
    return 0;
}

static bool is_letter_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool config_name_is_valid(const char *text)
{
    bool good = is_letter_or_digit(text[0]);
    for (const char *at = text; good && *at != 0; at++)
        good = is_letter_or_digit(*at) || strchr("-_.", *at) != NULL;
    return good;
}

void config_name(struct config_loader *l, const struct doc_node *map, const char *key,
                 char out[CONFIG_ID_MAX + 1])
{
    const char *text = config_text(l, map, key);
    out[0] = 0;
    if (text == NULL)
        return;
    if (!config_name_is_valid(text))
        config_problem(
            l, doc_get(map, key),
            "`%s` may hold letters, digits, `-`, `_`, `.` and starts with a letter or digit, not `%s`", key,
            doc_show(text).text);
    else if (strlen(text) > CONFIG_ID_MAX)
        config_problem(l, doc_get(map, key), "`%s` is longer than %d bytes", key, CONFIG_ID_MAX);
    else
        snprintf(out, CONFIG_ID_MAX + 1, "%s", text);
}
