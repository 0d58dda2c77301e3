/* The supervision tree, and what has changed in it since it was looked at before. Pure; one thread at a time.
 *
 * The supervisor is asked each second, so that a state that lasted less may not be seen. A death always is:
 * by its obituary. */
#ifndef OBSSVC_OBS_TREE_H
#define OBSSVC_OBS_TREE_H

#include "obs_store.h"

enum { OBS_DEATHS = 64 /* pairs of service and cause that are told apart */ };

struct obs_tree;

/* Called with what has happened; its slices live for the call. */
typedef void obs_tree_fn(void *arg, const struct obs_event *event);

struct obs_tree *obs_tree_open(obs_tree_fn *fn, void *arg);
void obs_tree_close(struct obs_tree *tree);

/* Whether something has changed by these rows of `svc tree`, so that there may be obituaries: they come
 * first. */
bool obs_tree_differs(const struct obs_tree *tree, struct slice rows);
/* Takes the rows; the first time nothing is told. False: they make no sense. */
bool obs_tree_take(struct obs_tree *tree, struct slice rows, int64_t now_ms);
/* The obituaries, the newest first: those are told that were not there before, the oldest first; the first
 * time those not older than since_ms. */
bool obs_tree_take_obituaries(struct obs_tree *tree, struct slice rows, int64_t since_ms);

/* Appends what is told of services by telemetry_gather, and returns how many series. */
uint32_t obs_tree_gather(const struct obs_tree *tree, msgpack_packer *pk);

#endif
