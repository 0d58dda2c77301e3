/* Supervisors and their children: starting and stopping in order, restarts, escalation. The tables stand in
 * sup_core.c. Fatal: only broken invariants. */
#include "sup_tree.h"

#include <assert.h>
#include <signal.h>

#include "clock.h"

/* ------------------------------------------------------------ small things */

struct sup_action *sup_add_action(struct sup_core *core, enum sup_action_kind kind, int node)
{
    assert(core->actions.count < SUP_ACTIONS_MAX);
    struct sup_action *a = &core->actions.list[core->actions.count++];
    *a = (struct sup_action){.kind = kind, .node = node};
    return a;
}

void sup_set_state(struct sup_core *core, int i, enum sup_state state)
{
    struct sup_node *n = &core->nodes[i];
    if (n->state == state)
        return;
    struct sup_action *a = sup_add_action(core, SUP_DO_NOTE, i);
    a->before = n->state;
    a->state = state;
    a->cause = n->cause;
    a->exit = n->exit;
    n->state = state;
}

void sup_send_signal(struct sup_core *core, int i, int signal)
{
    assert(core->nodes[i].alive);
    sup_add_action(core, SUP_DO_KILL, i)->signal = signal;
}

/* The next child of p behind index i, -1 when there is none. Its first child is the one behind p itself. */
static int next_child(const struct sup_core *core, int p, int i)
{
    for (i++; i < core->count; i++)
        if (core->nodes[i].spec->parent == p)
            return i;
    return -1;
}

int64_t sup_backoff_ns(uint32_t streak, uint64_t random)
{
    const int64_t least = (int64_t)SUP_BACKOFF_LEAST_MS * NS_PER_MS,
                  most = (int64_t)SUP_BACKOFF_MOST_MS * NS_PER_MS;
    if (streak == 0)
        return 0;
    int64_t base = streak > 16 ? most : least << (streak - 1);
    if (base > most)
        base = most;
    int64_t spread = base / 4;
    int64_t delay = base - spread + (int64_t)(random % (uint64_t)(2 * spread + 1));
    return delay < least ? least : delay > most ? most : delay;
}

/* One step's random number, made different for each node (the finaliser of splitmix64). */
static uint64_t node_random(const struct sup_core *core, int i)
{
    uint64_t z = core->random + (uint64_t)(i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t next_backoff(struct sup_core *core, int i)
{
    uint32_t streak = core->nodes[i].streak++;
    return core->backoff ? sup_backoff_ns(streak, node_random(core, i)) : 0;
}

/* OTP's add_restart: true while at most `intensity` restarts, this one included, lie within the period. */
static bool count_restart(struct sup_core *core, struct sup_node *p)
{
    uint32_t most = sup_ring_size(p->spec);
    if (most == 0)
        return false;
    if (p->ring_count == most && p->ring[p->ring_next] >= core->now_ns - p->spec->period_ns)
        return false;
    p->ring[p->ring_next] = core->now_ns;
    p->ring_next = (p->ring_next + 1) % most;
    if (p->ring_count < most)
        p->ring_count++;
    return true;
}

/* ------------------------------------------------------------ starting and stopping a node */

void sup_spawn_node(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    n->alive = true;
    n->started_ns = core->now_ns;
    n->deadline_ns = n->start_by_ns;
    sup_add_action(core, SUP_DO_SPAWN, i);
}

static void start_service(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    assert(!n->alive);
    n->ending = ENDING_NONE;
    n->reload_due = false;
    n->tries = 0;
    n->start_by_ns = sup_start_deadline(core, n);
    sup_set_state(core, i, SUP_STARTING);
    sup_spawn_node(core, i);
}

/* Comes up afresh, with all its children but those that people or a configuration error hold down. */
static void start_supervisor(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    n->started_ns = core->now_ns;
    n->ring_count = n->ring_next = 0;
    n->initial = true;
    n->current = -1;
    n->step = STEP_START;
    n->deadline_ns = SUP_NEVER;
    for (int c = next_child(core, i, i); c >= 0; c = next_child(core, i, c))
        core->nodes[c].due = !core->nodes[c].off && core->nodes[c].state != SUP_HELD;
    sup_set_state(core, i, SUP_STARTING);
}

void sup_start(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    assert(!n->alive && n->step == STEP_IDLE);
    n->due = n->asked = false;
    n->ready_ns = 0;
    if (sup_is_service(n))
        start_service(core, i);
    else
        start_supervisor(core, i);
}

/* The end of a supervisor: all its children stop, then `after`. */
static void begin_ending(struct sup_core *core, int p, enum sup_after after)
{
    struct sup_node *n = &core->nodes[p];
    n->step = STEP_STOP;
    n->after = after;
    n->from = 0;
    n->deadline_ns = SUP_NEVER;
    sup_set_state(core, p, SUP_STOPPING);
    for (int c = next_child(core, p, p); c >= 0; c = next_child(core, p, c)) {
        core->nodes[c].due = false;
        if (core->nodes[c].state == SUP_BACKOFF) {
            core->nodes[c].deadline_ns = SUP_NEVER;
            sup_set_state(core, c, SUP_STOPPED);
        }
    }
}

static void stop_service(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    if (!n->alive) { /* between two tries to start */
        n->asked = false;
        n->deadline_ns = SUP_NEVER;
        sup_child_stopped(core, i);
        sup_set_state(core, i, SUP_STOPPED);
        return;
    }
    if (n->state == SUP_STOPPING) /* hung: its signals are on their way already */
        return;
    n->ending = ENDING_ASKED;
    n->deadline_ns = sup_later(core->now_ns, n->spec->shutdown_timeout_ns);
    sup_set_state(core, i, SUP_STOPPING);
    sup_send_signal(core, i, SIGTERM);
}

void sup_stop(struct sup_core *core, int i)
{
    struct sup_node *n = &core->nodes[i];
    if (sup_at_rest(n)) {
        n->deadline_ns = SUP_NEVER;
        sup_set_state(core, i, SUP_STOPPED);
        return;
    }
    n->asked = true;
    if (sup_is_service(n))
        stop_service(core, i);
    else if (sup_is_ending(n))
        n->after = AFTER_STOPPED;
    else
        begin_ending(core, i, AFTER_STOPPED);
}

void sup_abort(struct sup_core *core, int i, enum sup_ending ending)
{
    struct sup_node *n = &core->nodes[i];
    n->ending = ending;
    n->deadline_ns = sup_later(core->now_ns, (int64_t)SUP_ABORT_GRACE_MS * NS_PER_MS);
    sup_set_state(core, i, SUP_STOPPING);
    sup_send_signal(core, i, SIGABRT);
}

/* ------------------------------------------------------------ what a supervisor does about its children */

/* The restart of a group: stop from `first` on in reverse, wait for the backoff, start them in order. */
static void restart_group(struct sup_core *core, int p, int first, int64_t delay_ns)
{
    struct sup_node *n = &core->nodes[p];
    int64_t until = core->now_ns + delay_ns;
    bool again = n->step == STEP_STOP || n->step == STEP_WAIT; /* a group's restart is under way */
    assert(!again || first <= n->from);
    n->from = first;
    n->wait_until_ns = again && n->wait_until_ns > until ? n->wait_until_ns : until;
    n->step = STEP_STOP;
    n->after = AFTER_RESTART;
    n->deadline_ns = SUP_NEVER;
}

/* Child c of p is down and is to run: OTP's restart/2. */
static void restart(struct sup_core *core, int p, int c)
{
    struct sup_node *child = &core->nodes[c];
    if (!count_restart(core, &core->nodes[p])) {
        sup_set_state(core, c, SUP_FAILED);
        begin_ending(core, p, AFTER_GAVE_UP);
        return;
    }
    child->restarts++;
    int64_t delay = next_backoff(core, c);
    enum tree_strategy strategy = core->nodes[p].spec->strategy;
    if (strategy == TREE_ONE_FOR_ONE && delay == 0) {
        sup_start(core, c);
        return;
    }
    sup_set_state(core, c, SUP_BACKOFF);
    if (strategy == TREE_ONE_FOR_ONE) {
        child->deadline_ns = core->now_ns + delay;
        return;
    }
    child->deadline_ns = SUP_NEVER; /* the group's start brings it back */
    restart_group(core, p, strategy == TREE_ONE_FOR_ALL ? next_child(core, p, p) : c, delay);
}

/* Whether c, just come to rest, belongs to what p is stopping anyway. */
static bool stops_anyway(const struct sup_node *p, int c)
{
    return p->step == STEP_STOP && c >= p->from;
}

void sup_child_started(struct sup_core *core, int c)
{
    int p = core->nodes[c].spec->parent;
    if (p >= 0 && core->nodes[p].current == c)
        core->nodes[p].current = -1;
}

void sup_child_stopped(struct sup_core *core, int c)
{
    struct sup_node *p = &core->nodes[core->nodes[c].spec->parent];
    if (p->current == c)
        p->current = -1;
}

void sup_child_failed_start(struct sup_core *core, int c)
{
    int p = core->nodes[c].spec->parent;
    struct sup_node *supervisor = &core->nodes[p];
    bool awaited = supervisor->current == c;
    sup_child_stopped(core, c);
    if (stops_anyway(supervisor, c)) {
        sup_set_state(core, c, SUP_STOPPED);
    } else if (supervisor->initial && awaited) {
        sup_set_state(core, c, SUP_FAILED);
        begin_ending(core, p, AFTER_FAILED_START);
    } else if (core->nodes[c].spec->restart == TREE_TEMPORARY) {
        sup_set_state(core, c, SUP_FAILED);
    } else {
        restart(core, p, c);
    }
}

void sup_child_exited(struct sup_core *core, int c, bool normal)
{
    struct sup_node *child = &core->nodes[c];
    int p = child->spec->parent;
    enum tree_restart type = child->spec->restart;
    if (core->now_ns - child->ready_ns >= (int64_t)SUP_BACKOFF_RESET_MS * NS_PER_MS)
        child->streak = 0;
    if (stops_anyway(&core->nodes[p], c))
        sup_set_state(core, c, SUP_STOPPED);
    else if (type == TREE_PERMANENT || (type == TREE_TRANSIENT && !normal))
        restart(core, p, c);
    else
        sup_set_state(core, c, normal && sup_is_service(child) ? SUP_STOPPED : SUP_FAILED);
}

/* ------------------------------------------------------------ the steps of a supervisor */

static bool restarts_with_group(const struct sup_node *child)
{
    return !child->off && child->state != SUP_HELD && child->spec->restart != TREE_TEMPORARY;
}

void sup_begin_group_start(struct sup_core *core, int p)
{
    struct sup_node *n = &core->nodes[p];
    n->step = STEP_START;
    n->current = -1;
    n->deadline_ns = SUP_NEVER;
    for (int c = next_child(core, p, p); c >= 0; c = next_child(core, p, c))
        if (c >= n->from && restarts_with_group(&core->nodes[c]))
            core->nodes[c].due = true;
}

void sup_end_root(struct sup_core *core, bool asked)
{
    core->over = true;
    sup_set_state(core, 0, asked ? SUP_STOPPED : SUP_FAILED);
    sup_add_action(core, SUP_DO_EXIT, 0)->code = asked ? EXIT_DONE : EXIT_GAVE_UP;
}

static void finish_ending(struct sup_core *core, int p)
{
    struct sup_node *n = &core->nodes[p];
    bool asked = n->asked;
    n->step = STEP_IDLE;
    n->initial = n->asked = false;
    n->current = -1;
    if (!asked) {
        n->cause = n->after == AFTER_GAVE_UP ? SUP_CAUSE_INTENSITY : SUP_CAUSE_CHILD;
        n->exit = (struct sup_exit){0};
    }
    if (n->spec->parent < 0) {
        sup_end_root(core, asked);
    } else if (asked) {
        sup_child_stopped(core, p);
        sup_set_state(core, p, SUP_STOPPED);
    } else if (n->ready_ns != 0) {
        sup_child_exited(core, p, true);
    } else {
        sup_child_failed_start(core, p);
    }
}

static void finish_stop(struct sup_core *core, int p)
{
    struct sup_node *n = &core->nodes[p];
    if (n->after != AFTER_RESTART) {
        finish_ending(core, p);
    } else if (n->wait_until_ns > core->now_ns) {
        n->step = STEP_WAIT;
        n->deadline_ns = n->wait_until_ns;
    } else {
        sup_begin_group_start(core, p);
    }
}

/* Each pump returns whether it changed something. */
static bool pump_stop(struct sup_core *core, int p)
{
    struct sup_node *n = &core->nodes[p];
    int last = -1;
    for (int c = next_child(core, p, p); c >= 0; c = next_child(core, p, c))
        if (c >= n->from && !sup_at_rest(&core->nodes[c]))
            last = c;
    if (last < 0) {
        finish_stop(core, p);
        return true;
    }
    struct sup_node *child = &core->nodes[last];
    if (child->asked)
        return false;
    if (n->after == AFTER_RESTART && restarts_with_group(child))
        child->restarts++;
    sup_stop(core, last);
    return true;
}

static int first_due(const struct sup_core *core, int p)
{
    for (int c = next_child(core, p, p); c >= 0; c = next_child(core, p, c))
        if (core->nodes[c].due)
            return c;
    return -1;
}

static bool pump_start(struct sup_core *core, int p)
{
    struct sup_node *n = &core->nodes[p];
    if (n->current >= 0)
        return false;
    int c = first_due(core, p);
    if (c >= 0) {
        struct sup_node *child = &core->nodes[c];
        if (child->state == SUP_STOPPING)
            return false;
        if (sup_at_rest(child)) {
            n->current = c;
            sup_start(core, c);
        }
        child->due = false;
        return true;
    }
    n->step = STEP_IDLE;
    if (n->initial) {
        n->initial = false;
        n->ready_ns = core->now_ns;
        sup_set_state(core, p, SUP_RUNNING);
        sup_child_started(core, p);
    }
    return true;
}

static bool pump(struct sup_core *core, int p)
{
    struct sup_node *n = &core->nodes[p];
    switch (n->step) {
    case STEP_IDLE:
        if (n->state != SUP_RUNNING || first_due(core, p) < 0)
            return false;
        n->step = STEP_START;
        return true;
    case STEP_START:
        return pump_start(core, p);
    case STEP_STOP:
        return pump_stop(core, p);
    case STEP_WAIT:
        return false;
    }
    return false;
}

void sup_settle(struct sup_core *core)
{
    bool moved = true;
    while (moved && !core->over) {
        moved = false;
        for (int i = core->count - 1; i >= 0 && !core->over; i--)
            if (!sup_is_service(&core->nodes[i]) && pump(core, i))
                moved = true;
    }
}
