/* A tree under test for the supervisor's core: time is virtual, processes are played, and what the core wants
 * done is a story to compare. Included by one test program at a time: everything is static. */
#ifndef SUPERVISOR_STORY_H
#define SUPERVISOR_STORY_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "sup_core.h"

#define UNUSED     __attribute__((unused))
#define S(seconds) ((seconds)*NS_PER_S)
#define MS(ms)     ((ms) * (int64_t)NS_PER_MS)

/* ------------------------------------------------------------ a tree under test */

/* The story so far: "spawn a", "TERM a", "obituary a", "exit 70", each followed by a space. */
static struct tree_node tree[SUP_NODES_MAX];
static size_t tree_count;
static struct sup_core *core;
static int64_t now_ns;
static uint64_t jitter;
static bool backoff;
static char story[4096];

static UNUSED int add_supervisor(int parent, const char *name, enum tree_strategy strategy,
                                 uint32_t intensity)
{
    struct tree_node *n = &tree[tree_count];
    *n = (struct tree_node){.kind = TREE_SUPERVISOR, .parent = parent, .strategy = strategy};
    n->intensity = intensity;
    n->period_ns = S(60);
    snprintf(n->name, sizeof n->name, "%s", name);
    return (int)tree_count++;
}

static UNUSED int add_service(int parent, const char *name, enum tree_restart restart)
{
    struct tree_node *n = &tree[tree_count];
    *n = (struct tree_node){.kind = TREE_SERVICE, .parent = parent, .restart = restart};
    n->shutdown_timeout_ns = S(5);
    n->start_timeout_ns = S(10);
    n->watchdog_ns = S(10);
    snprintf(n->name, sizeof n->name, "%s", name);
    return (int)tree_count++;
}

static UNUSED void tell(const char *verb, const char *name)
{
    size_t len = strlen(story);
    assert_true(len + strlen(verb) + strlen(name) + 3 < sizeof story);
    snprintf(story + len, sizeof story - len, "%s%s%s ", verb, *name ? " " : "", name);
}

static UNUSED void tell_action(const struct sup_action *a)
{
    const char *name = tree[a->node].name;
    if (a->kind == SUP_DO_SPAWN)
        tell("spawn", name);
    else if (a->kind == SUP_DO_KILL)
        tell(sigabbrev_np(a->signal), name);
    else if (a->kind == SUP_DO_OBITUARY)
        tell("obituary", name);
    else if (a->kind == SUP_DO_EXIT)
        tell(a->code == EXIT_DONE ? "exit 0" : "exit 70", "");
}

static UNUSED enum sh_error step(struct sup_event event)
{
    const struct sup_actions *actions = sup_core_step(core, &event, now_ns, jitter);
    for (unsigned i = 0; i < actions->count; i++)
        tell_action(&actions->list[i]);
    return actions->result;
}

static UNUSED int node(const char *name)
{
    int i = sup_core_find(core, slice_str(name));
    assert_true(i >= 0);
    return i;
}

static UNUSED void ready(const char *name)
{
    step((struct sup_event){.kind = SUP_READY, .node = node(name)});
}

static UNUSED void exits(const char *name, int code)
{
    step((struct sup_event){.kind = SUP_EXITED, .node = node(name), .exit = {.code = code}});
}

static UNUSED void dies(const char *name, int signal)
{
    step((struct sup_event){SUP_EXITED, node(name), {.signalled = true, .code = signal}});
}

static UNUSED enum sh_error command(enum sup_event_kind kind, const char *name)
{
    return step((struct sup_event){.kind = kind, .node = node(name)});
}

/* Goes to the time of the next deadline and ticks. */
static UNUSED void tick(void)
{
    int64_t due_ns = sup_core_deadline(core);
    assert_true(due_ns < INT64_MAX);
    now_ns = due_ns > now_ns ? due_ns : now_ns;
    step((struct sup_event){.kind = SUP_TICK});
}

static UNUSED void pass_s(int64_t seconds)
{
    now_ns += S(seconds);
}

static UNUSED enum sup_state state(const char *name)
{
    return sup_core_view(core, node(name)).state;
}

/* The story since the last call. */
#define expect(text)                                                                                         \
    do {                                                                                                     \
        assert_string_equal(story, text);                                                                    \
        story[0] = 0;                                                                                        \
    } while (0)

static UNUSED void expect_state(const char *name, enum sup_state wanted)
{
    assert_int_equal(state(name), wanted);
}

static UNUSED void begin(void)
{
    core = sup_core_open(tree, tree_count, backoff);
    now_ns = S(1000);
    step((struct sup_event){.kind = SUP_START});
}

/* A root with a, b, c, all permanent unless changed before up(). */
static UNUSED void plant(enum tree_strategy strategy, uint32_t intensity)
{
    tree_count = 0;
    add_supervisor(-1, "root", strategy, intensity);
    add_service(0, "a", TREE_PERMANENT);
    add_service(0, "b", TREE_PERMANENT);
    add_service(0, "c", TREE_PERMANENT);
}

static UNUSED void up(void)
{
    begin();
    ready("a");
    ready("b");
    ready("c");
    expect("spawn a spawn b spawn c ");
    expect_state("root", SUP_RUNNING);
}

static UNUSED int setup(void **unused)
{
    (void)unused;
    story[0] = 0;
    jitter = 0;
    backoff = true;
    core = NULL;
    return 0;
}

static UNUSED int teardown(void **unused)
{
    (void)unused;
    if (core != NULL)
        sup_core_close(core);
    return 0;
}

/* Keeps a child's watchdog quiet while time passes. */
static UNUSED void ping_all(void)
{
    for (size_t i = 0; i < tree_count; i++)
        if (tree[i].kind == TREE_SERVICE)
            step((struct sup_event){.kind = SUP_PING, .node = (int)i});
}

/* root one_for_one [a, inner one_for_one [b, c]] */
static UNUSED void plant_nested(uint32_t outer, uint32_t inner_intensity, enum tree_strategy strategy)
{
    tree_count = 0;
    add_supervisor(-1, "root", strategy, outer);
    add_service(0, "a", TREE_PERMANENT);
    int inner = add_supervisor(0, "inner", TREE_ONE_FOR_ONE, inner_intensity);
    add_service(inner, "b", TREE_PERMANENT);
    add_service(inner, "c", TREE_PERMANENT);
    begin();
    ready("a");
    ready("b");
    ready("c");
    expect("spawn a spawn b spawn c ");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
