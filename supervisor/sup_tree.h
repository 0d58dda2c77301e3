/* Inside of the core: the tree's nodes, and what happens between supervisors and their children. Only
 * sup_core.c and sup_tree.c include this. */
#ifndef SUP_TREE_H
#define SUP_TREE_H

#include "sup_core.h"

#define SUP_NEVER INT64_MAX

/* Why a service is stopping. */
enum sup_ending { ENDING_NONE, ENDING_ASKED, ENDING_KILLED, ENDING_HUNG, ENDING_START_TIMEOUT };

enum sup_step { STEP_IDLE, STEP_START, STEP_STOP, STEP_WAIT };
enum sup_after { AFTER_RESTART, AFTER_STOPPED, AFTER_FAILED_START, AFTER_GAVE_UP };

struct sup_node {
    const struct tree_node *spec;
    enum sup_state state;
    bool due;   /* its supervisor's start step is to start it */
    bool asked; /* its supervisor or a command wants it down */
    bool off;   /* stopped by command, until started by command */
    uint32_t streak, restarts;
    int64_t started_ns, ready_ns; /* ready_ns 0: not in this life */
    int64_t deadline_ns;          /* what for depends on the state, see sup_core.c */
    enum sup_cause cause;
    struct sup_exit exit;

    /* services */
    bool alive;
    bool reload_due; /* SIGHUP once it is ready */
    enum sup_ending ending;
    int64_t start_by_ns;
    uint32_t tries; /* of this start that ended with EXIT_IN_USE */

    /* supervisors */
    enum sup_step step;
    enum sup_after after;
    bool initial;          /* coming up: a failed start is its own */
    int current;           /* the child that the start step waits for, -1 for none */
    int from;              /* lowest child of the stop step and of the start behind it */
    int64_t wait_until_ns; /* backoff of a group's restart */
    int64_t *ring;         /* times of the last restarts, sup_ring_size of them at most */
    uint32_t ring_count, ring_next;
};

struct sup_core {
    struct sup_node nodes[SUP_NODES_MAX];
    int count;
    int64_t now_ns;
    uint64_t random;
    bool backoff, over;
    struct sup_actions actions;
};

static inline bool sup_at_rest(const struct sup_node *n)
{
    return n->state == SUP_STOPPED || n->state == SUP_BACKOFF || n->state == SUP_HELD ||
           n->state == SUP_FAILED;
}

static inline bool sup_is_service(const struct sup_node *n)
{
    return n->spec->kind == TREE_SERVICE;
}

static inline bool sup_is_ending(const struct sup_node *supervisor)
{
    return supervisor->step == STEP_STOP && supervisor->after != AFTER_RESTART;
}

static inline int64_t sup_later(int64_t now_ns, int64_t delay_ns)
{
    return delay_ns > SUP_NEVER - now_ns ? SUP_NEVER : now_ns + delay_ns;
}

/* Until when a service that starts now must be ready. */
static inline int64_t sup_start_deadline(const struct sup_core *core, const struct sup_node *service)
{
    int64_t timeout_ns = service->spec->start_timeout_ns;
    return timeout_ns > 0 ? sup_later(core->now_ns, timeout_ns) : SUP_NEVER;
}

static inline uint32_t sup_ring_size(const struct tree_node *supervisor)
{
    return supervisor->intensity < SUP_INTENSITY_MAX ? supervisor->intensity : SUP_INTENSITY_MAX;
}

/* The actions of this step. */
struct sup_action *sup_add_action(struct sup_core *core, enum sup_action_kind kind, int node);
void sup_send_signal(struct sup_core *core, int i, int signal);
void sup_set_state(struct sup_core *core, int i, enum sup_state state);

/* Starts a node that is down. */
void sup_start(struct sup_core *core, int i);
/* Spawns a service that is starting. */
void sup_spawn_node(struct sup_core *core, int i);
/* Has a node brought down, and not started again by itself. */
void sup_stop(struct sup_core *core, int i);
/* A service that doesn't answer: SIGABRT leaves a core to look at; SIGKILL follows. */
void sup_abort(struct sup_core *core, int i, enum sup_ending ending);

/* What c's supervisor hears: c is ready; is at rest because it was asked to be, or held; went down before it
 * was ready; was up and has ended by itself (normal: exit code 0, or OTP's `shutdown` of a supervisor that
 * gave up). */
void sup_child_started(struct sup_core *core, int c);
void sup_child_stopped(struct sup_core *core, int c);
void sup_child_failed_start(struct sup_core *core, int c);
void sup_child_exited(struct sup_core *core, int c, bool normal);

/* The backoff of a group's restart is over. */
void sup_begin_group_start(struct sup_core *core, int p);
/* The root is down. */
void sup_end_root(struct sup_core *core, bool asked);
/* Runs the steps of all supervisors until nothing moves any more. */
void sup_settle(struct sup_core *core);

#endif
