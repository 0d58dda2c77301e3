/* What is made from the tables: docs/configuration.md, etc/shanghai.yaml, and a configuration shown as YAML.
 */
#include <assert.h>
#include <string.h>

#include "config_parts.h"
#include "log.h"

/* ------------------------------------------------------------ as YAML */

static void show_quoted(struct buf *out, const char *key, const char *text)
{
    buf_append_str(out, key);
    json_string(out, slice_str(text));
}

static void show_measured(struct buf *out, const char *before, enum setting_kind kind, int64_t value)
{
    buf_append_str(out, before);
    setting_format(kind, (uint64_t)value, out);
}

static void show_nodes(const struct config *c, struct buf *out)
{
    for (size_t i = 0; i < c->node_count; i++) {
        const struct config_node *node = &c->nodes[i];
        buf_printf(out, "    - {id: %s, ", node->id);
        show_quoted(out, "host: ", node->host);
        buf_printf(out, ", port: %u, admin_port: %u, group: %s}\n", node->port, node->admin_port,
                   node->group);
    }
}

static void show_service(const struct tree_node *node, const char *indent, struct buf *out)
{
    buf_printf(out, "%s- {service: %s", indent, node->name);
    if (strcmp(node->program, node->name) != 0)
        show_quoted(out, ", program: ", node->program);
    buf_printf(out, ", restart: %s", config_restarts[node->restart]);
    show_measured(out, ", shutdown_timeout: ", SETTING_DURATION, node->shutdown_timeout_ns);
    show_measured(out, ", start_timeout: ", SETTING_DURATION, node->start_timeout_ns);
    show_measured(out, ", watchdog: ", SETTING_DURATION, node->watchdog_ns);
    buf_append_str(out, "}\n");
}

/* Depth is bounded by the file's, the file that made the tree. */
static void show_supervisor(const struct config *c, int index, const char *indent, struct buf *out)
{
    const struct tree_node *node = &c->tree[index];
    struct buf deeper = {0};
    buf_printf(&deeper, "%s    ", indent);
    buf_printf(out, "%sstrategy: %s\n%sintensity: %u\n%speriod: ", indent, config_strategies[node->strategy],
               indent, node->intensity, indent);
    show_measured(out, "", SETTING_DURATION, node->period_ns);
    if (index == 0)
        buf_printf(out, "\n%sbackoff: %s", indent, c->backoff ? "true" : "false");
    buf_printf(out, "\n%schildren:\n", indent);
    for (size_t i = 0; i < c->tree_count; i++) {
        if (c->tree[i].parent != index)
            continue;
        if (c->tree[i].kind == TREE_SERVICE) {
            show_service(&c->tree[i], buf_cstr(&deeper) + 2, out);
        } else {
            buf_printf(out, "%s- supervisor: %s\n", buf_cstr(&deeper) + 2, c->tree[i].name);
            show_supervisor(c, (int)i, buf_cstr(&deeper), out);
        }
    }
    buf_free(&deeper);
}

/* Calls for each setting, with the group's name when a group begins. */
static void show_settings(const struct config *c, struct buf *out)
{
    size_t count;
    const struct setting *table = settings_table(&count);
    struct settings settings = c->settings;
    for (size_t i = 0; i < count; i++) {
        size_t len = strcspn(table[i].path, ".");
        if (i == 0 || strncmp(table[i].path, table[i - 1].path, len + 1) != 0)
            buf_printf(out, "%.*s:\n", (int)len, table[i].path);
        buf_printf(out, "  %s: ", table[i].path + len + 1);
        setting_format(table[i].kind, *setting_value(&settings, &table[i]), out);
        buf_append_str(out, "\n");
    }
}

void config_show(const struct config *config, struct buf *out)
{
    buf_printf(out, "cluster:\n  name: %s\n  nodes:\n", config->cluster);
    show_nodes(config, out);
    show_quoted(out, "data_dir: ", config->data_dir);
    show_quoted(out, "\nrun_dir: ", config->run_dir);
    if (config->admin_token_file[0] != 0)
        show_quoted(out, "\nadmin_token_file: ", config->admin_token_file);
    buf_append_str(out, "\n");
    show_settings(config, out);
    buf_append_str(out, "supervisor:\n");
    show_supervisor(config, 0, "  ", out);
}

/* ------------------------------------------------------------ etc/shanghai.yaml */

static const char example_head[] =
    "# Topology of a Shanghai cluster: the same file on every node.\n"
    "# What is commented out is the default. docs/configuration.md explains each key.\n"
    "\n"
    "cluster:\n"
    "  name: demo\n"
    "  nodes:\n"
    "    - {id: n1, host: 127.0.0.1, port: 4000, admin_port: 9090}\n";

/* Appends a text as comment lines of at most 110 columns. */
static void comment_wrapped(struct buf *out, const char *indent, const char *text)
{
    size_t width = 106 - strlen(indent);
    while (*text != 0) {
        size_t len = strlen(text);
        if (len > width)
            for (len = width; len > 1 && text[len] != ' '; len--)
                ;
        buf_printf(out, "%s# %.*s\n", indent, (int)len, text);
        text += len;
        text += strspn(text, " ");
    }
}

static void comment_lines(struct buf *out, const char *text)
{
    while (*text != 0) {
        size_t len = strcspn(text, "\n");
        buf_printf(out, "# %.*s\n", (int)len, text);
        text += len + (text[len] == '\n');
    }
}

static void example_settings(struct buf *out)
{
    size_t count;
    const struct setting *table = settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        const struct setting *s = &table[i];
        size_t len = strcspn(s->path, ".");
        struct buf prose = {0};
        if (i == 0 || strncmp(s->path, table[i - 1].path, len + 1) != 0)
            buf_printf(out, "\n# %.*s:\n", (int)len, s->path);
        buf_printf(&prose, "%s (", s->prose);
        setting_format(s->kind, s->least, &prose);
        buf_append_str(&prose, " to ");
        setting_format(s->kind, s->most, &prose);
        buf_append_str(&prose, ")");
        comment_wrapped(out, "#   ", buf_cstr(&prose));
        buf_printf(out, "#   %s: ", s->path + len + 1);
        setting_format(s->kind, s->initial, out);
        buf_append_str(out, "\n");
        buf_free(&prose);
    }
}

/* The configuration that the example's head alone makes: all defaults. */
static void load_defaults(struct config *out)
{
    struct buf errors = {0};
    if (!config_parse("example", slice_str(example_head), NULL, out, &errors))
        assert(!"the example is valid");
    buf_free(&errors);
}

void config_example(struct buf *out)
{
    struct config defaults;
    struct buf tree = {0};
    load_defaults(&defaults);
    buf_append_str(out, example_head);
    buf_printf(out, "\n# Where data and sockets are; %%n stands for the id of the node.\n");
    buf_printf(out, "# data_dir: %s\n# run_dir: %s\n", defaults.data_dir, defaults.run_dir);
    example_settings(out);
    buf_append_str(out, "\n# The supervision tree.\n");
    buf_append_str(&tree, "supervisor:\n");
    show_supervisor(&defaults, 0, "  ", &tree);
    comment_lines(out, buf_cstr(&tree));
    buf_free(&tree);
    config_free(&defaults);
}

/* ------------------------------------------------------------ docs/configuration.md */

static const char document_head[] =
    "# Configuration\n"
    "\n"
    "This page is made from the tables in `common/settings.def` and `common/config_keys.c` by "
    "`script/docs`.\n"
    "\n"
    "One YAML file, the topology, is the same on every node: `shanghaid --config FILE --node n1` picks the "
    "node.\n"
    "`etc/shanghai.yaml` is an example with every default as a comment. `shanghaictl config check` tries a "
    "file,\n"
    "`shanghaictl config show` prints what is in effect.\n"
    "\n"
    "All that is wrong with a file is reported at once, a line for each, and nothing is started:\n"
    "\n"
    "    cluster.yaml:4:43: unknown key `prot` in a node; did you mean `port`?\n"
    "    cluster.yaml:9:17: `wal.segment_size` must be between 1MiB and 1GiB, not `512KiB`\n"
    "\n"
    "A file has at most 1 MiB. YAML's anchors, aliases and tags are not supported.\n"
    "\n"
    "## Values\n"
    "\n"
    "| kind | written as |\n"
    "|---|---|\n"
    "| size | a whole number with `KiB`, `MiB`, `GiB` or `TiB`; bytes without a unit |\n"
    "| duration | a whole number with `ns`, `us`, `ms`, `s`, `m`, `h` or `d`; `0` needs no unit |\n"
    "| count, port | a whole number |\n"
    "| boolean | `true` or `false` |\n"
    "| level | `debug`, `info`, `warn` or `error` |\n"
    "| name | letters, digits, `-`, `_`, `.`; starts with a letter or digit; at most 64 bytes |\n"
    "| path | absolute; `%n` stands for the id of the node, nothing else may follow a `%` |\n";

static const char cluster_id_text[] =
    "\nThe id of a cluster stands in every message, so that nodes and clients of different clusters that "
    "meet by mistake\n"
    "refuse each other. It has 8 bytes: two CRC-32C values, little-endian, over the letter `a` (the second "
    "one: `b`),\n"
    "the cluster's name and the sorted names of its groups, each once and followed by a NUL.\n";

static const char directories_text[] = "\n`data_dir` and `run_dir` differ, and hold `%n` when several nodes "
                                       "share a host. The longest socket is\n"
                                       "`run_dir/supervisor.sock`: with it a path has at most 107 bytes.\n";

static const char settings_text[] =
    "\n## Settings\n"
    "\n"
    "Settings are nested maps at the top of the file: `wal.segment_size` is written as\n"
    "\n"
    "    wal:\n"
    "      segment_size: 64MiB\n"
    "\n"
    "What takes effect on *reload* is taken over on SIGHUP to shanghaid (`systemctl reload`); everything "
    "else when the\n"
    "service that uses it is restarted. A file with errors is not taken over.\n"
    "\n"
    "| setting | kind | default | from | to | takes effect | used by | meaning |\n"
    "|---|---|---|---|---|---|---|---|\n";

static const char tree_text[] =
    "\n## The supervision tree\n"
    "\n"
    "`supervisor` is the root supervisor; its children are services and supervisors, at most 64 in all. The "
    "root is\n"
    "called `root`. What is left out has its default. The default tree, written out:\n"
    "\n";

static void document_keys(struct buf *out, const char *title, enum config_map map)
{
    size_t count;
    const struct config_key *keys = config_keys(map, &count);
    buf_printf(out, "\n%s\n\n| key | value | default | meaning |\n|---|---|---|---|\n", title);
    for (size_t i = 0; i < count; i++) {
        const struct config_key *key = &keys[i];
        buf_printf(out, "| `%s` | %s | ", key->name, key->value);
        if (key->required)
            buf_append_str(out, "required");
        else if (key->initial[0] != 0)
            buf_printf(out, "`%s`", key->initial);
        buf_printf(out, " | %s", key->prose);
        if (key->measured && key->kind != SETTING_BOOLEAN) {
            buf_append_str(out, " (");
            setting_format(key->kind, key->least, out);
            buf_append_str(out, " to ");
            setting_format(key->kind, key->most, out);
            buf_append_str(out, ")");
        }
        buf_append_str(out, " |\n");
    }
}

static void document_setting(struct buf *out, const struct setting *s)
{
    buf_printf(out, "| `%s` | %s | `", s->path, setting_kind_name(s->kind));
    setting_format(s->kind, s->initial, out);
    buf_append_str(out, "` | ");
    setting_format(s->kind, s->least, out);
    buf_append_str(out, " | ");
    setting_format(s->kind, s->most, out);
    buf_printf(out, " | %s | %s | %s |\n", s->reloadable ? "reload" : "restart", s->used_by, s->prose);
}

static void document_tree(struct buf *out)
{
    struct config defaults;
    load_defaults(&defaults);
    buf_append_str(out, tree_text);
    buf_append_str(out, "    supervisor:\n");
    show_supervisor(&defaults, 0, "      ", out);
    config_free(&defaults);
    document_keys(out, "### The root (`supervisor`)", MAP_ROOT);
    document_keys(out, "### A supervisor among the children", MAP_SUPERVISOR);
    document_keys(out, "### A service", MAP_SERVICE);
}

void config_document(struct buf *out)
{
    size_t count;
    const struct setting *table = settings_table(&count);
    buf_append_str(out, document_head);
    document_keys(out, "## The top of the file", MAP_TOP);
    buf_append_str(out, directories_text);
    document_keys(out, "## `cluster`", MAP_CLUSTER);
    document_keys(out, "### A node", MAP_NODE);
    buf_append_str(out, cluster_id_text);
    buf_append_str(out, settings_text);
    for (size_t i = 0; i < count; i++)
        document_setting(out, &table[i]);
    document_tree(out);
}
