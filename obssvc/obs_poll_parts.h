/* Inside of the poller. */
#ifndef OBSSVC_OBS_POLL_PARTS_H
#define OBSSVC_OBS_POLL_PARTS_H

#include "obs_parts.h"
#include "obs_poll.h"
#include "obs_tree.h"

enum { OBS_TURN_MS = 1000 };
/* What happened before obssvc began is told too when it is not older: of the time that it was away, and more.
 */
enum { OBS_BEFORE_MS = 15 * 60 * 1000 };

struct obs_answer {
    struct buf text;
    int64_t at_ns; /* 0: never */
};

struct obs_poll {
    struct obs *obs;
    pthread_mutex_t lock; /* over all of the following */
    pthread_cond_t wake;  /* CLOCK_MONOTONIC; for the end only */
    bool stopping;
    struct obs_answer kept[OBS_KEPT];
    enum sh_writes writes;    /* of the last status */
    enum sh_node_state state; /* of the last nodes */
    struct obs_tree *tree;
    pthread_t node, supervisor;
};

/* The threads' bodies. */
void *obs_poll_node(void *arg);
void *obs_poll_supervisor(void *arg);

/* Waits until due_ns; false: the end has come. */
bool obs_poll_wait(struct obs_poll *poll, int64_t due_ns);
bool obs_poll_is_stopping(struct obs_poll *poll);
/* Keeps *text, which is empty afterwards. With the lock. */
void obs_poll_keep(struct obs_poll *poll, enum obs_kept kept, struct buf *text);

#endif
