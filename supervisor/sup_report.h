/* What the supervisor tells people: states, causes, the tree. */
#ifndef SUP_REPORT_H
#define SUP_REPORT_H

#include "sup_core.h"

enum { SUP_EXIT_TEXT = 64, SUP_STATUS_MAX = 200 };

/* "running"; a static string. */
const char *sup_state_name(enum sup_state state);
/* "signal 9 (SIGKILL)", "exit 1", "hung", "" for none; writes to text and returns it. */
const char *sup_exit_text(enum sup_cause cause, const struct sup_exit *exit, char text[SUP_EXIT_TEXT]);

/* What the shell adds to a node's view. */
struct sup_detail {
    pid_t pid;          /* a supervisor: of this process */
    const char *status; /* its last STATUS= */
};

/* Appends the tree as an array of maps, parents before their children; see shanghaid(8). details: one for
 * each node. */
void sup_tree_encode(const struct sup_core *core, const struct sup_detail *details, int64_t now_ns,
                     struct buf *out);
/* One line for systemd: how many services run, and which don't. */
void sup_summary(const struct sup_core *core, char text[SUP_STATUS_MAX + 1]);

/* A key and its value, within a map. */
void sup_pack_text(msgpack_packer *pk, const char *key, const char *value);
void sup_pack_number(msgpack_packer *pk, const char *key, uint64_t value);

#endif
