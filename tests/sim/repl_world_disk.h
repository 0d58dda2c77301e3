/* walsvc's real copies under the replication's simulation (repl_world.h), with --disk. */
#ifndef REPL_WORLD_DISK_H
#define REPL_WORLD_DISK_H

#include "repl_world.h"

void world_disk_open(struct repl_world *w);
void world_disk_close(struct repl_world *w);
/* What the model has said of a copy_append, walsvc must say too. */
void world_disk_take(struct repl_node *n, const struct sim_store *store, enum sh_error error);
void world_disk_synced(struct repl_node *n, size_t log);
/* The process is gone, or the power. */
void world_disk_crash(struct repl_world *w, struct repl_node *n, bool is_power);
/* Opens what is there; the model keeps what has survived. */
void world_disk_start(struct repl_world *w, uint32_t node);
/* What the model sends, the files must have. */
void world_disk_serve(struct repl_node *n, size_t log, const struct repl_serve *serve,
                      const struct msg_fetch_reply *reply);

#endif
