/* Inside of the membership simulation: what the nodes' lives (member_life.c) need of their calls and
 * addresses (member_world.c). */
#ifndef MEMBER_WORLD_PARTS_H
#define MEMBER_WORLD_PARTS_H

#include "member_world.h"

/* By the seed; never zero. */
struct id16 world_id(struct world *w);
/* By its number and how often it has moved. */
void world_set_address(struct sim_node *n, uint32_t node);
/* Calls into the core, with all that comes out of it. */
void world_tick(struct world *w, uint32_t node);
void world_receive(struct world *w, uint32_t node, struct slice message);
/* What comes out of the core after another call. */
void world_after_call(struct world *w, uint32_t node);
void world_drop_waiting(struct sim_node *n);

#endif
