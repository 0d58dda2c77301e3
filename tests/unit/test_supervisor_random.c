/* The supervisor's core: whatever happens in whatever order, the tree keeps its invariants and can be shut
 * down. */
#include "supervisor_story.h"

/* ------------------------------------------------------------ anything at any time */

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void random_tree(uint64_t *seed)
{
    tree_count = 0;
    add_supervisor(-1, "root", (enum tree_strategy)(next_random(seed) % 3),
                   (uint32_t)(next_random(seed) % 8));
    int supervisors[SUP_NODES_MAX] = {0}, supervisor_count = 1;
    unsigned size = 2 + next_random(seed) % 12;
    for (unsigned i = 0; i < size; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%u", i);
        int parent = supervisors[next_random(seed) % (unsigned)supervisor_count];
        if (next_random(seed) % 3 == 0) {
            int made = add_supervisor(parent, name, (enum tree_strategy)(next_random(seed) % 3),
                                      (uint32_t)(next_random(seed) % 5));
            supervisors[supervisor_count++] = made;
        } else {
            add_service(parent, name, (enum tree_restart)(next_random(seed) % 3));
        }
    }
}

/* One random event that can happen: the world is the set of processes that spawn and kill have made. */
static void random_event(uint64_t *seed, const bool *alive)
{
    static const int codes[] = {0, 1, EXIT_IN_USE, EXIT_CONFIG};
    int i = (int)(next_random(seed) % tree_count);
    unsigned what = next_random(seed) % 16;
    now_ns += (int64_t)(next_random(seed) % (uint64_t)MS(400));
    if (what < 5 && alive[i])
        step((struct sup_event){.kind = SUP_READY, .node = i});
    else if (what < 8 && alive[i])
        step((struct sup_event){SUP_EXITED, i, {.code = codes[next_random(seed) % 4]}});
    else if (what == 8 && alive[i])
        step((struct sup_event){SUP_EXITED, i, {.signalled = true, .code = SIGKILL}});
    else if (what < 12 && sup_core_deadline(core) < INT64_MAX)
        tick();
    else if (what == 12)
        step((struct sup_event){.kind = SUP_COMMAND_START, .node = i});
    else if (what == 13)
        step((struct sup_event){.kind = SUP_COMMAND_STOP, .node = i});
    else if (what == 14)
        step((struct sup_event){.kind = SUP_COMMAND_RESTART, .node = i});
    else if (what == 15)
        step((struct sup_event){.kind = SUP_RELOAD});
}

static void read_alive(bool *alive)
{
    for (size_t i = 0; i < tree_count; i++)
        alive[i] = sup_core_view(core, (int)i).alive;
}

/* Whatever happened: processes that stop when asked, and time, bring the tree down. */
static void shut_down(void)
{
    bool alive[SUP_NODES_MAX];
    step((struct sup_event){.kind = SUP_SHUTDOWN});
    for (int i = 0; i < 1000 && state("root") != SUP_STOPPED && state("root") != SUP_FAILED; i++) {
        read_alive(alive);
        int stopping = -1;
        for (size_t k = 0; k < tree_count; k++)
            if (alive[k] && sup_core_view(core, (int)k).state == SUP_STOPPING)
                stopping = (int)k;
        if (stopping >= 0)
            step((struct sup_event){SUP_EXITED, stopping, {.signalled = true, .code = SIGTERM}});
        else
            tick();
    }
    for (size_t k = 0; k < tree_count; k++)
        assert_false(sup_core_view(core, (int)k).alive);
    assert_true(state("root") == SUP_STOPPED || state("root") == SUP_FAILED);
}

static void test_random_lives_always_end_in_a_clean_shutdown(void **unused)
{
    (void)unused;
    for (uint64_t run = 1; run <= 3000; run++) {
        uint64_t seed = run * UINT64_C(0x9e3779b97f4a7c15);
        print_message("%s", run == 3000 ? "seeds 1 to 3000\n" : "");
        random_tree(&seed);
        begin();
        bool alive[SUP_NODES_MAX];
        for (int i = 0; i < 200; i++) {
            read_alive(alive);
            random_event(&seed, alive);
            story[0] = 0;
        }
        shut_down();
        story[0] = 0;
        sup_core_close(core);
        core = NULL;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_random_lives_always_end_in_a_clean_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
