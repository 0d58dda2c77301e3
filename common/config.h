/* The topology file: cluster, directories, settings, supervision tree. One YAML file, the same on every node.
 *
 * Everything that is wrong is reported at once as FILE:LINE:COLUMN: message. */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include "messages.h"

enum {
    CONFIG_NODES_MAX = 1024,
    CONFIG_PATH_MAX = 1024,
    CONFIG_ID_MAX = 64,
    CONFIG_TREE_MAX = 64,
    SOCKET_PATH_MAX = 107
};

/* All settings by name: settings.wal_segment_size. Declared in settings.def; sizes in bytes, durations in ns.
 */
struct settings {
#define SETTING(name, path, kind, least, most, initial, reloadable, used_by, prose) uint64_t name;
#include "settings.def"
#undef SETTING
};

struct config_node {
    char id[CONFIG_ID_MAX + 1], host[256], group[CONFIG_ID_MAX + 1];
    uint16_t port, admin_port;
};

/* The supervision tree as declared; node 0 is the root; children follow their parents. */
enum tree_kind { TREE_SUPERVISOR, TREE_SERVICE };
enum tree_strategy { TREE_ONE_FOR_ONE, TREE_ONE_FOR_ALL, TREE_REST_FOR_ONE };
enum tree_restart { TREE_PERMANENT, TREE_TRANSIENT, TREE_TEMPORARY };
struct tree_node {
    enum tree_kind kind;
    char name[CONFIG_ID_MAX + 1];
    int parent; /* index, -1 for the root */
    /* supervisors */
    enum tree_strategy strategy;
    uint32_t intensity; /* restarts within period_ns */
    int64_t period_ns;
    /* services */
    char program[CONFIG_PATH_MAX]; /* a name beside shanghaid's own binary, or an absolute path */
    enum tree_restart restart;
    int64_t shutdown_timeout_ns, start_timeout_ns, watchdog_ns; /* watchdog 0: none */
};

struct config {
    char file[CONFIG_PATH_MAX];
    char cluster[CONFIG_ID_MAX + 1];
    uint8_t cluster_id[CLUSTER_ID_BYTES];
    struct config_node *nodes;
    size_t node_count;
    const struct config_node *self;                           /* NULL when no node was asked for */
    char data_dir[CONFIG_PATH_MAX], run_dir[CONFIG_PATH_MAX]; /* %n replaced by self's id */
    char admin_token_file[CONFIG_PATH_MAX];                   /* likewise; "": there is none */
    struct settings settings;
    struct tree_node *tree;
    size_t tree_count;
    bool backoff; /* supervisor.backoff: wait before restarts after the first (default true; tests switch it
                     off) */
};

/* Whether the text may name a node, group or service: letters, digits, - _ . and a letter or digit first.
 * Its length is not looked at. */
bool config_name_is_valid(const char *text);
/* Whether it may stand in tcp://HOST:PORT: the name of a host, an IPv4 address, or an IPv6 address in
 * brackets. Its length is not looked at. */
bool config_host_is_valid(const char *text);

/* node may be NULL (config check). On errors returns false and appends one line for each to *errors. */
bool config_load(const char *file, const char *node, struct config *out, struct buf *errors);
/* The same for text in memory; file names it in messages. */
bool config_parse(const char *file, struct slice text, const char *node, struct config *out,
                  struct buf *errors);
void config_free(struct config *config);
/* Takes the reloadable settings from a freshly loaded one; appends to *ignored the paths of changed ones that
 * need a restart, as "wal.segment_size, data_dir". */
void config_reload(struct config *config, const struct config *fresh, struct buf *ignored);
/* The effective configuration as YAML (config show). */
void config_show(const struct config *config, struct buf *out);
/* docs/configuration.md, and etc/shanghai.yaml with every default as a comment. */
void config_document(struct buf *out);
void config_example(struct buf *out);

#endif
