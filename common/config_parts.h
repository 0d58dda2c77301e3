/* Inside of the configuration loader: the keys of each map, declared once, and reading them with every
 * problem noted.
 *
 * Functions that meet a problem note it and go on with a default, so that one pass finds everything. */
#ifndef COMMON_CONFIG_PARTS_H
#define COMMON_CONFIG_PARTS_H

#include "config.h"
#include "config_doc.h"
#include "settings.h"

enum config_map { MAP_TOP, MAP_CLUSTER, MAP_NODE, MAP_ROOT, MAP_SUPERVISOR, MAP_SERVICE };

struct config_key {
    const char *name;
    bool required;
    const char *value;   /* what may stand there, for people */
    const char *initial; /* the default as it would stand in a file; "" for none */
    const char *prose;
    /* Of numbers, durations, sizes and booleans: */
    bool measured;
    enum setting_kind kind;
    uint64_t least, most;
};

/* The keys of a map; those of the top are followed in a file by the groups of settings. */
const struct config_key *config_keys(enum config_map map, size_t *count);
/* How messages name it: "a node". */
const char *config_map_name(enum config_map map);

/* What the parts of the loader share; `places` of the nodes run beside config->nodes. */
struct config_loader {
    struct doc_problems problems;
    struct config *config;
    const struct doc_node *top;
    const struct doc_node *nodes, **places;
    bool tree_is_full;
    char data_pattern[CONFIG_PATH_MAX], run_pattern[CONFIG_PATH_MAX], token_pattern[CONFIG_PATH_MAX];
};

/* A problem at a value. */
__attribute__((format(printf, 3, 4))) void config_problem(struct config_loader *l, const struct doc_node *at,
                                                          const char *format, ...);
/* Whether the value is of the kind; notes it when not. */
bool config_expect(struct config_loader *l, const struct doc_node *node, enum doc_kind kind,
                   const char *name);
/* Notes unknown keys (with the nearest known one) and required ones that are missing. */
void config_check_keys(struct config_loader *l, const struct doc_node *map, enum config_map kind);
/* The text of a key's value; NULL when it is absent, empty or no scalar (noted when present). map may be
 * NULL. */
const char *config_text(struct config_loader *l, const struct doc_node *map, const char *key);
/* A measured key's value, or its default. map may be NULL. */
uint64_t config_measure(struct config_loader *l, const struct doc_node *map, enum config_map kind,
                        const char *key);
/* Which of the words stands there; 0 when absent. map may be NULL. */
unsigned config_choice(struct config_loader *l, const struct doc_node *map, const char *key,
                       const char *const *words, size_t count);
/* A valid name (config_name_is_valid) of at most CONFIG_ID_MAX bytes. Empty when absent or wrong. */
void config_name(struct config_loader *l, const struct doc_node *map, const char *key,
                 char out[CONFIG_ID_MAX + 1]);

extern const char *const config_strategies[3], *const config_restarts[3]; /* in the order of their enums */

/* config_tree.c: reads `supervisor:`, or makes the default tree. */
void config_read_tree(struct config_loader *l);
/* config_check.c: what only shows when all is read: duplicates, ports, directories. */
void config_check(struct config_loader *l);
/* Replaces %n; false when the result doesn't fit. */
bool config_expand(const char *pattern, const char *node, char out[CONFIG_PATH_MAX]);

#endif
