/* The supervision tree. Fatal: only broken invariants (an exit of a process that doesn't exist, a tree beyond
 * its bounds).
 *
 * A service, by state and event ("start" and "stop" come from its supervisor or a command; a "-" changes
 * nothing):
 *
 *           | start       | stop          | READY   | exited                          | deadline
 * ----------+-------------+---------------+---------+---------------------------------+---------------------------
 * stopped,  | spawn,      | stopped       | -       | cannot be                       | -
 * failed    |  -> starting|               |         |                                 |
 * held      | the same    | stopped       | -       | cannot be                       | -
 * backoff   | the same    | stopped       | -       | cannot be                       | spawn, -> starting
 * starting  | -           | SIGTERM,      | running | 78: held; 75: spawn again later;| SIGABRT, -> stopping
 *           |             |  -> stopping  |         |  else failed start              |  (start timeout)
 * running   | -           | SIGTERM,      | -       | 78: held; else by restart type: | SIGABRT, -> stopping
 *           |             |  -> stopping  |         |  restart, stopped or failed     |  (hung; WATCHDOG=1
 * moves it) stopping  | once gone   | -             | -       | stopped when asked to stop,     | SIGKILL |
 * |               |         |  else as from starting, running |
 *
 * A supervisor has the same states but held, and a step within them:
 *
 *   idle   nothing to do; a child that is due takes it to start
 *   start  children that are due are started, the lowest first, one after the other has become ready
 *   stop   children from `from` on are stopped, the highest first, one after the other is gone; then `after`
 * says: restart   wait for the backoff, then start (one_for_all, rest_for_one) stopped, failed start, gave up
 * it is at rest itself, and its parent hears of it wait   the backoff of a group's restart; the deadline
 * takes it to start
 *
 * one_for_one restarts children one by one, beside these steps: one that takes long to come back delays no
 * other. Where OTP would queue an exit until a start in progress is over, it is handled at once here. */
#include "sup_tree.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>

#include "clock.h"

/* ------------------------------------------------------------ events */

static enum sup_cause cause_of(const struct sup_node *n, const struct sup_exit *exit)
{
    if (n->ending == ENDING_HUNG)
        return SUP_CAUSE_HUNG;
    if (n->ending == ENDING_START_TIMEOUT)
        return SUP_CAUSE_START_TIMEOUT;
    if (n->ending == ENDING_KILLED && exit->signalled && exit->code == SIGKILL)
        return SUP_CAUSE_SHUTDOWN_TIMEOUT;
    if (exit->signalled)
        return SUP_CAUSE_SIGNAL;
    return exit->code == EXIT_CONFIG ? SUP_CAUSE_CONFIG : SUP_CAUSE_EXIT;
}

/* Stopping as it was asked to is no death worth an obituary. */
static bool is_clean_stop(const struct sup_node *n, const struct sup_exit *exit)
{
    return n->ending == ENDING_ASKED && exit->code == (exit->signalled ? SIGTERM : 0);
}

static void on_start_ended(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    bool in_use = n->cause == SUP_CAUSE_EXIT && n->exit.code == EXIT_IN_USE;
    if (in_use && core->now_ns < n->start_by_ns) /* its predecessor isn't quite gone: it is still starting */
        n->deadline_ns = core->now_ns + sup_backoff_ns(++n->tries, core->random);
    else
        sup_child_failed_start(core, i);
}

static void on_exited(struct sup_core *core, int i, const struct sup_exit *exit)
{
    struct sup_node *n = &core->nodes[i];
    assert(n->alive);
    bool asked = n->asked;
    n->alive = n->asked = false;
    n->deadline_ns = SUP_NEVER;
    n->cause = cause_of(n, exit);
    n->exit = *exit;
    if (!is_clean_stop(n, exit)) {
        struct sup_action *a = sup_add_action(core, SUP_DO_OBITUARY, i);
        a->cause = n->cause;
        a->exit = *exit;
        a->restarts = n->restarts;
    }
    if (asked) {
        sup_child_stopped(core, i);
        sup_set_state(core, i, SUP_STOPPED);
    } else if (n->cause == SUP_CAUSE_CONFIG) {
        sup_child_stopped(core, i);
        sup_set_state(core, i, SUP_HELD);
    } else if (n->ready_ns == 0) {
        on_start_ended(core, i);
    } else {
        sup_child_exited(core, i, n->cause == SUP_CAUSE_EXIT && exit->code == 0);
    }
}

static void on_spawn_failed(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    assert(n->alive && n->state == SUP_STARTING);
    n->alive = false;
    n->deadline_ns = SUP_NEVER;
    n->cause = SUP_CAUSE_SPAWN;
    n->exit = (struct sup_exit){0};
    sup_child_failed_start(core, i);
}

static int64_t watchdog_deadline(const struct sup_core *core, const struct sup_node *n)
{
    return n->spec->watchdog_ns > 0 ? sup_later(core->now_ns, n->spec->watchdog_ns) : SUP_NEVER;
}

static void on_ready(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    if (n->state != SUP_STARTING || !n->alive)
        return;
    n->ready_ns = core->now_ns;
    n->deadline_ns = watchdog_deadline(core, n);
    sup_set_state(core, i, SUP_RUNNING);
    sup_child_started(core, i);
    if (n->reload_due)
        sup_send_signal(core, i, SIGHUP);
    n->reload_due = false;
}

static void on_ping(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    if (n->state == SUP_RUNNING)
        n->deadline_ns = watchdog_deadline(core, n);
}

static void expire_service(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    if (n->state == SUP_STARTING && n->alive) {
        sup_abort(core, i, ENDING_START_TIMEOUT);
    } else if (n->state == SUP_STARTING) {
        sup_spawn_node(core, i);
    } else if (n->state == SUP_RUNNING) {
        sup_abort(core, i, ENDING_HUNG);
    } else {
        assert(n->state == SUP_STOPPING);
        if (n->ending == ENDING_ASKED)
            n->ending = ENDING_KILLED;
        n->deadline_ns = SUP_NEVER;
        sup_send_signal(core, i, SIGKILL);
    }
}

/* When this process itself was held up (SIGSTOP, a frozen machine), silence proves nothing: everybody gets
 * the time again. */
static void forgive_lateness(struct sup_core *core)
{
    int64_t due = sup_core_deadline(core);
    if (due == SUP_NEVER || core->now_ns - due < (int64_t)SUP_LATE_MS * NS_PER_MS)
        return;
    for (int i = 0; i < core->count; i++) {
        struct sup_node *n = &core->nodes[i];
        if (!sup_is_service(n) || !n->alive)
            continue;
        if (n->state == SUP_RUNNING)
            n->deadline_ns = watchdog_deadline(core, n);
        if (n->state == SUP_STARTING)
            n->deadline_ns = n->start_by_ns = sup_start_deadline(core, n);
    }
}

static void on_tick(struct sup_core *core)
{
    forgive_lateness(core);
    for (int i = 0; i < core->count; i++) {
        struct sup_node *n = &core->nodes[i];
        if (n->deadline_ns > core->now_ns)
            continue;
        if (n->state == SUP_BACKOFF) {
            n->deadline_ns = SUP_NEVER;
            sup_start(core, i);
        } else if (sup_is_service(n)) {
            expire_service(core, i);
        } else {
            assert(n->step == STEP_WAIT);
            sup_begin_group_start(core, i);
        }
    }
}

static void release_held(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    const struct sup_node *p = &core->nodes[n->spec->parent];
    n->streak = 0;
    n->due = !sup_at_rest(p) && !sup_is_ending(p);
    sup_set_state(core, i, SUP_STOPPED);
}

static void on_reload(struct sup_core *core)
{
    for (int i = 0; i < core->count; i++) {
        struct sup_node *n = &core->nodes[i];
        if (n->state == SUP_HELD)
            release_held(core, i);
        else if (sup_is_service(n) && n->state == SUP_STARTING)
            n->reload_due = n->alive; /* before READY=1, SIGHUP might still kill it */
        else if (sup_is_service(n) && n->state == SUP_RUNNING)
            sup_send_signal(core, i, SIGHUP);
    }
}

/* ------------------------------------------------------------ commands */

static void refuse(struct sup_core *core, enum sh_error error, const char *text)
{
    core->actions.result = error;
    core->actions.text = text;
}

static bool is_below(const struct sup_core *core, int i, int ancestor)
{
    while (i > ancestor)
        i = core->nodes[i].spec->parent;
    return i == ancestor;
}

/* Takes back what holds a node, or anything below it, down; what is down below a supervisor that is up, comes
 * up. */
static void forgive(struct sup_core *core, int i)
{
    for (int k = i; k < core->count; k++) {
        struct sup_node *n = &core->nodes[k];
        if (!is_below(core, k, i))
            continue;
        n->off = false;
        n->streak = 0;
        if (k == i)
            continue;
        if (n->state == SUP_HELD)
            release_held(core, k);
        else if (n->state == SUP_STOPPED || n->state == SUP_FAILED)
            n->due = core->nodes[n->spec->parent].state == SUP_RUNNING;
    }
}

/* Starts a node, or lets its supervisor's start step do so once it is gone. */
static void command_start(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    struct sup_node *p = &core->nodes[n->spec->parent];
    if (sup_at_rest(p) || sup_is_ending(p)) {
        refuse(core, SH_CONFLICT, "its supervisor is not running");
        return;
    }
    forgive(core, i);
    n->due = true;
    if (p->step == STEP_WAIT && i >= p->from) { /* part of a group that waits for its backoff: go on */
        p->deadline_ns = core->now_ns;
    } else if (sup_at_rest(n)) {
        n->deadline_ns = SUP_NEVER;
        sup_set_state(core, i, SUP_STOPPED);
    }
}

static void command_stop(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    n->off = true;
    n->due = false;
    sup_stop(core, i);
}

static void command_restart(struct sup_core *core, int i)
{
    struct sup_node *p = &core->nodes[core->nodes[i].spec->parent];
    if (!sup_at_rest(&core->nodes[i]) && !sup_at_rest(p) && !sup_is_ending(p))
        sup_stop(core, i);
    command_start(core, i);
}

static void on_command(struct sup_core *core, const struct sup_event *event)
{
    int i = event->node;
    if (i == 0)
        refuse(core, SH_BAD_REQUEST, "the root cannot be started or stopped by itself: use shutdown");
    else if (event->kind == SUP_COMMAND_START)
        command_start(core, i);
    else if (event->kind == SUP_COMMAND_STOP)
        command_stop(core, i);
    else
        command_restart(core, i);
}

static void on_shutdown(struct sup_core *core)
{
    if (sup_at_rest(&core->nodes[0]))
        sup_end_root(core, true);
    else
        sup_stop(core, 0);
}

static void dispatch(struct sup_core *core, const struct sup_event *event)
{
    int i = event->node;
    assert(i >= 0 && i < core->count);
    switch (event->kind) {
    case SUP_START:
        sup_start(core, 0);
        break;
    case SUP_EXITED:
        on_exited(core, i, &event->exit);
        break;
    case SUP_SPAWN_FAILED:
        on_spawn_failed(core, i);
        break;
    case SUP_READY:
        on_ready(core, i);
        break;
    case SUP_PING:
        on_ping(core, i);
        break;
    case SUP_TICK:
        on_tick(core);
        break;
    case SUP_COMMAND_START:
    case SUP_COMMAND_STOP:
    case SUP_COMMAND_RESTART:
        on_command(core, event);
        break;
    case SUP_RELOAD:
        on_reload(core);
        break;
    case SUP_SHUTDOWN:
        on_shutdown(core);
        break;
    }
}

const struct sup_actions *sup_core_step(struct sup_core *core, const struct sup_event *event, int64_t now_ns,
                                        uint64_t random)
{
    assert(now_ns >= core->now_ns);
    core->now_ns = now_ns;
    core->random = random;
    core->actions.count = 0;
    core->actions.result = SH_OK;
    core->actions.text = NULL;
    if (!core->over) {
        dispatch(core, event);
        sup_settle(core);
    }
    return &core->actions;
}

int64_t sup_core_deadline(const struct sup_core *core)
{
    int64_t least = SUP_NEVER;
    for (int i = 0; i < core->count; i++)
        if (core->nodes[i].deadline_ns < least)
            least = core->nodes[i].deadline_ns;
    return least;
}

/* ------------------------------------------------------------ life and view */

struct sup_core *sup_core_open(const struct tree_node *tree, size_t count, bool backoff)
{
    assert(count >= 1 && count <= SUP_NODES_MAX && tree[0].kind == TREE_SUPERVISOR && tree[0].parent < 0);
    struct sup_core *core = xcalloc(1, sizeof *core);
    core->count = (int)count;
    core->backoff = backoff;
    for (int i = 0; i < core->count; i++) {
        struct sup_node *n = &core->nodes[i];
        assert(i == 0 ||
               (tree[i].parent >= 0 && tree[i].parent < i && tree[tree[i].parent].kind == TREE_SUPERVISOR));
        n->spec = &tree[i];
        n->deadline_ns = SUP_NEVER;
        n->current = -1;
        if (!sup_is_service(n))
            n->ring = xcalloc(sup_ring_size(&tree[i]) + 1u, sizeof *n->ring);
    }
    return core;
}

void sup_core_close(struct sup_core *core)
{
    for (int i = 0; i < core->count; i++)
        free(core->nodes[i].ring);
    free(core);
}

struct sup_view sup_core_view(const struct sup_core *core, int node)
{
    assert(node >= 0 && node < core->count);
    const struct sup_node *n = &core->nodes[node];
    return (struct sup_view){n->spec, n->state, n->alive, n->restarts, n->started_ns, n->cause, n->exit};
}

size_t sup_core_count(const struct sup_core *core)
{
    return (size_t)core->count;
}

int sup_core_find(const struct sup_core *core, struct slice name)
{
    for (int i = 0; i < core->count; i++)
        if (slice_is(name, core->nodes[i].spec->name))
            return i;
    return -1;
}
