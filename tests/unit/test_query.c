/* querysvc's table of requests that another daemon has not answered yet, against a plain array as its model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "query.h"

static void test_pending_answers_in_any_order_find_their_client(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    struct pending_table table = {0};
    struct pending out;
    bool open[COUNT + 1] = {false};
    uint64_t seed = 20261, put = 0, taken = 0;
    while (taken < COUNT) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        if (put < COUNT && (seed >> 60) < 9) {
            put++;
            pending_put(&table, &(struct pending){.number = put, .token = {put * 3, put * 7}, .used = true});
            open[put] = true;
            continue;
        }
        uint64_t number = 1 + (seed >> 33) % COUNT;
        assert_int_equal(pending_take(&table, number, &out), open[number]);
        if (!open[number])
            continue;
        assert_int_equal(out.token.session, number * 3);
        assert_int_equal(out.token.number, number * 7);
        open[number] = false;
        taken++;
    }
    assert_int_equal(table.used, 0);
    pending_free(&table);
}

static void test_pending_table_may_be_empty(void **state)
{
    (void)state;
    struct pending_table table = {0};
    struct pending out;
    assert_false(pending_take(&table, 1, &out));
    pending_free(&table);
}

static void test_the_impatient_are_found_among_the_others(void **state)
{
    (void)state;
    enum { COUNT = 600 };
    struct pending_table table = {0};
    bool found[COUNT + 1] = {false};
    for (uint64_t i = 1; i <= COUNT; i++)
        pending_put(&table, &(struct pending){.number = i, .impatient = i % 7 == 0, .used = true});
    uint64_t *numbers = xcalloc(table.used, sizeof *numbers);
    size_t count = pending_impatient(&table, numbers);
    assert_int_equal(count, COUNT / 7);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(numbers[i] % 7, 0);
        assert_false(found[numbers[i]]);
        found[numbers[i]] = true;
    }
    free(numbers);
    pending_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pending_answers_in_any_order_find_their_client),
        cmocka_unit_test(test_pending_table_may_be_empty),
        cmocka_unit_test(test_the_impatient_are_found_among_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
