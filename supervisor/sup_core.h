/* The supervision tree as a pure state machine: events and time in, a bounded list of actions out.
 *
 * OTP's rules (supervisor.erl): children start in order, each waits until the one before it is ready; they
 * stop in reverse; one_for_one, one_for_all, rest_for_one; permanent, transient, temporary; more than
 * `intensity` restarts within `period` end the supervisor, which is its parent's to restart; a start that
 * fails while a supervisor comes up fails that supervisor. Beyond OTP: backoff, a watchdog, services held for
 * a configuration error or stopped by command. No system call, clock or log in here: the shell (sup_shell.c)
 * does the actions. */
#ifndef SUP_CORE_H
#define SUP_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "exit_code.h"

enum {
    SUP_NODES_MAX = CONFIG_TREE_MAX,
    SUP_ACTIONS_MAX = 16 * SUP_NODES_MAX, /* one event moves a node a few times at most */
    SUP_INTENSITY_MAX = 1000000,          /* a larger one counts as this */
    SUP_BACKOFF_LEAST_MS = 50,
    SUP_BACKOFF_MOST_MS = 5000,
    SUP_BACKOFF_RESET_MS = 5000, /* up for so long: the next restart is at once again */
    SUP_ABORT_GRACE_MS = 2000,   /* from SIGABRT to SIGKILL */
    SUP_LATE_MS = 1000, /* a tick that comes later than this says more about us than about the services */
};

enum sup_state { SUP_STOPPED, SUP_STARTING, SUP_RUNNING, SUP_STOPPING, SUP_BACKOFF, SUP_HELD, SUP_FAILED };

/* Why a node last ended. */
enum sup_cause {
    SUP_CAUSE_NONE,
    SUP_CAUSE_EXIT,             /* by itself, or asked to */
    SUP_CAUSE_SIGNAL,           /* a signal that wasn't ours */
    SUP_CAUSE_HUNG,             /* no WATCHDOG=1 in time */
    SUP_CAUSE_START_TIMEOUT,    /* no READY=1 in time */
    SUP_CAUSE_SHUTDOWN_TIMEOUT, /* didn't stop in time, killed */
    SUP_CAUSE_CONFIG,           /* exit code EXIT_CONFIG */
    SUP_CAUSE_SPAWN,            /* there was no process: fork failed */
    SUP_CAUSE_INTENSITY,        /* supervisor: too many restarts */
    SUP_CAUSE_CHILD,            /* supervisor: a child failed to start */
};

/* How a process ended. */
struct sup_exit {
    bool signalled, core;
    int code; /* exit code, or signal */
};

enum sup_event_kind {
    SUP_START,        /* the tree, once */
    SUP_EXITED,       /* node's process is gone: exit */
    SUP_SPAWN_FAILED, /* SUP_DO_SPAWN didn't work */
    SUP_READY,        /* READY=1 */
    SUP_PING,         /* WATCHDOG=1 */
    SUP_TICK,         /* sup_core_deadline has come */
    SUP_COMMAND_START,
    SUP_COMMAND_STOP,
    SUP_COMMAND_RESTART,
    SUP_RELOAD,   /* the configuration was loaded afresh */
    SUP_SHUTDOWN, /* the whole tree */
};

struct sup_event {
    enum sup_event_kind kind;
    int node;
    struct sup_exit exit;
};

enum sup_action_kind {
    SUP_DO_SPAWN,    /* start node's process; failing is told by SUP_SPAWN_FAILED */
    SUP_DO_KILL,     /* send signal to node's process */
    SUP_DO_OBITUARY, /* write down node's death: cause, exit */
    SUP_DO_NOTE,     /* node went from state `before` to `state` (logs, status lines) */
    SUP_DO_EXIT,     /* everything is down: end with code */
};

struct sup_action {
    enum sup_action_kind kind;
    int node;
    int signal;
    enum sup_state before, state;
    enum sup_cause cause;
    struct sup_exit exit;
    uint32_t restarts; /* those before this death */
    enum service_exit code;
};

struct sup_actions {
    struct sup_action list[SUP_ACTIONS_MAX];
    unsigned count;
    enum sh_error result; /* of a command: SH_OK, or why it was refused */
    const char *text;     /* one sentence for people, or NULL; static */
};

struct sup_core;

/* tree is borrowed for the core's life: node 0 is the root, children follow their parents, siblings start in
 * the order of their indices. 1 <= count <= SUP_NODES_MAX. Without backoff every restart is at once. */
struct sup_core *sup_core_open(const struct tree_node *tree, size_t count, bool backoff);
void sup_core_close(struct sup_core *core);

/* now_ns never goes back. random: fresh bits for the jitter. The result lives until the next step. */
const struct sup_actions *sup_core_step(struct sup_core *core, const struct sup_event *event, int64_t now_ns,
                                        uint64_t random);
/* When the next SUP_TICK is due; INT64_MAX for never. */
int64_t sup_core_deadline(const struct sup_core *core);

/* What there is to see of a node. */
struct sup_view {
    const struct tree_node *spec;
    enum sup_state state;
    bool alive;         /* a service: its process exists */
    uint32_t restarts;  /* since the tree started, those by command apart */
    int64_t started_ns; /* of the process, or of the supervisor; 0 for never */
    enum sup_cause cause;
    struct sup_exit exit;
};
struct sup_view sup_core_view(const struct sup_core *core, int node);
size_t sup_core_count(const struct sup_core *core);
/* -1 when there is no such node. */
int sup_core_find(const struct sup_core *core, struct slice name);

/* Delay before the restart that follows `streak` quick deaths in a row: 0, then 50 ms doubling to 5 s, within
 * a quarter of it by `random`, never outside of 50 ms to 5 s. */
int64_t sup_backoff_ns(uint32_t streak, uint64_t random);

#endif
