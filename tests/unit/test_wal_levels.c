/* Levels of acknowledgement on their own: what is believed, who is answered when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "wal_levels.h"

static struct wal_levels levels;

static int setup(void **state)
{
    (void)state;
    levels = (struct wal_levels){0};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    wal_levels_free(&levels);
    return 0;
}

static const char *told(uint64_t session, uint64_t quorum_lsn, uint64_t all_lsn)
{
    return wal_levels_told(&levels, session,
                           &(struct msg_replicated){.quorum_lsn = quorum_lsn, .all_lsn = all_lsn}, 100);
}

static enum wal_level level_of(uint64_t lsn, uint32_t count)
{
    return wal_levels_of(&levels, &(struct wal_answer){lsn, count});
}

static void test_the_last_entry_decides(void **state)
{
    (void)state;
    assert_int_equal(level_of(1, 1), WAL_LOCAL);
    assert_null(told(1, 9, 5));
    assert_int_equal(level_of(3, 3), WAL_ALL);
    assert_int_equal(level_of(3, 4), WAL_QUORUM);
    assert_int_equal(level_of(9, 1), WAL_QUORUM);
    assert_int_equal(level_of(9, 2), WAL_LOCAL);
}

static void test_a_number_never_goes_back(void **state)
{
    (void)state;
    assert_null(told(1, 9, 5));
    assert_null(told(1, 8, 3));
    assert_int_equal(levels.quorum_lsn, 9);
    assert_int_equal(levels.all_lsn, 5);
    assert_null(told(2, 10, 4)); /* another one: replsvc was restarted */
    assert_int_equal(levels.quorum_lsn, 10);
    assert_int_equal(levels.all_lsn, 5);
}

static void test_a_node_that_is_alone_may_get_company(void **state)
{
    (void)state;
    assert_null(told(1, UINT64_MAX, UINT64_MAX));
    assert_int_equal(level_of(100, 1), WAL_ALL);
    assert_null(told(1, 7, 6));
    assert_int_equal(levels.quorum_lsn, 7);
    assert_int_equal(levels.all_lsn, 6);
}

static void test_that_a_node_is_alone_is_as_good_as_the_session_that_says_so(void **state)
{
    (void)state;
    assert_null(told(1, UINT64_MAX, UINT64_MAX));
    wal_levels_drop(&levels, 2);
    assert_int_equal(levels.quorum_lsn, UINT64_MAX);
    wal_levels_drop(&levels, 1);
    assert_int_equal(levels.quorum_lsn, 0);
    assert_int_equal(levels.all_lsn, 0);
    assert_null(told(3, 7, 6));
    wal_levels_drop(&levels, 3);
    assert_int_equal(levels.quorum_lsn, 7);
    assert_int_equal(levels.all_lsn, 6);
}

static void test_what_cannot_be_is_not_believed(void **state)
{
    (void)state;
    assert_null(told(1, 9, 5));
    assert_non_null(told(1, 101, 6)); /* durable is 100 */
    assert_non_null(told(1, UINT64_MAX, 101));
    assert_non_null(told(1, 10, 11)); /* all is more than a quorum */
    assert_non_null(told(1, 10, UINT64_MAX));
    assert_int_equal(levels.quorum_lsn, 9);
    assert_int_equal(levels.all_lsn, 5);
    assert_null(told(1, 100, 100));
}

/* ---------------------------------------------------------------- against a plain list */

enum { MODEL_MAX = 200, STEPS = 20000, LSN_MAX = 1000 };

static struct wal_level_wait model[MODEL_MAX];
static size_t model_count;

static void model_remove(size_t i)
{
    model[i] = model[--model_count];
}

/* The popped one must be in the list. */
static void model_take(const struct wal_level_wait *wait)
{
    for (size_t i = 0; i < model_count; i++) {
        if (model[i].token.number == wait->token.number) {
            model_remove(i);
            return;
        }
    }
    fail_msg("answered twice, or after its session was dropped");
}

static void wait_for(uint64_t number, uint64_t lsn, enum wal_level wanted)
{
    if (model_count == MODEL_MAX || level_of(lsn, 1) >= wanted)
        return; /* never waits */
    model[model_count] = (struct wal_level_wait){.token = {(uint64_t)rand() % 5, number},
                                                 .answer = {lsn, 1},
                                                 .wanted = wanted,
                                                 .due_ns = rand() % 1000};
    wal_levels_wait(&levels, &model[model_count++]);
}

static void step_told(void)
{
    struct wal_level_wait wait;
    uint64_t quorum_lsn = levels.quorum_lsn + (uint64_t)rand() % 2;
    assert_null(wal_levels_told(
        &levels, 1000, &(struct msg_replicated){.quorum_lsn = quorum_lsn, .all_lsn = quorum_lsn / 2}, STEPS));
    while (wal_levels_pop_reached(&levels, &wait)) {
        assert_true(level_of(wait.answer.lsn, 1) >= wait.wanted);
        model_take(&wait);
    }
    for (size_t i = 0; i < model_count; i++)
        assert_true(level_of(model[i].answer.lsn, 1) < model[i].wanted);
}

static void step_time(void)
{
    struct wal_level_wait wait;
    int64_t now_ns = rand() % 100, last_ns = 0;
    while (wal_levels_pop_due(&levels, now_ns, &wait)) {
        assert_true(wait.due_ns <= now_ns && wait.due_ns >= last_ns);
        last_ns = wait.due_ns;
        model_take(&wait);
    }
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < model_count; i++)
        due_ns = model[i].due_ns < due_ns ? model[i].due_ns : due_ns;
    assert_true(due_ns > now_ns);
    assert_int_equal(wal_levels_due_ns(&levels), due_ns);
}

static void step_drop(void)
{
    uint64_t session = (uint64_t)rand() % 5;
    wal_levels_drop(&levels, session);
    for (size_t i = 0; i < model_count;)
        if (model[i].token.session == session)
            model_remove(i);
        else
            i++;
}

static void test_everybody_is_answered_once_and_in_time(void **state)
{
    (void)state;
    struct wal_level_wait wait;
    srand(1);
    for (uint64_t i = 1; i <= STEPS; i++) {
        int dice = rand() % 100;
        if (dice < 80)
            wait_for(i, 1 + (uint64_t)rand() % LSN_MAX, rand() % 2 == 0 ? WAL_QUORUM : WAL_ALL);
        else if (dice < 90)
            step_told();
        else if (dice < 98)
            step_time();
        else
            step_drop();
        assert_int_equal(levels.by_due.count, model_count);
    }
    for (uint64_t i = 1; model_count < MODEL_MAX / 2; i++)
        wait_for(STEPS + i, LSN_MAX * 2, WAL_ALL);
    while (wal_levels_pop_any(&levels, &wait))
        model_take(&wait);
    assert_int_equal(model_count, 0);
}

#define LEVELS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LEVELS_TEST(test_the_last_entry_decides),
        LEVELS_TEST(test_a_number_never_goes_back),
        LEVELS_TEST(test_a_node_that_is_alone_may_get_company),
        LEVELS_TEST(test_that_a_node_is_alone_is_as_good_as_the_session_that_says_so),
        LEVELS_TEST(test_what_cannot_be_is_not_believed),
        LEVELS_TEST(test_everybody_is_answered_once_and_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
