/* Whom an open batch waits for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "lib/sh_company.h"

#define US NS_PER_US

static void test_nobody_is_expected_at_first(void **state)
{
    (void)state;
    struct shc_company company = {0};
    assert_false(shc_company_waits(&company, 1));
    assert_false(shc_company_came(&company, 1));
}

static void test_it_waits_until_all_have_come_back(void **state)
{
    (void)state;
    struct shc_company company = {0};
    shc_company_expect(&company, 3, 100 * US, 1000);
    assert_false(shc_company_came(&company, 1001));
    assert_false(shc_company_came(&company, 1002));
    assert_true(shc_company_waits(&company, 1003));
    assert_true(shc_company_came(&company, 1003));
    assert_false(shc_company_waits(&company, 1004));
    assert_false(shc_company_came(&company, 1004)); /* one more has nobody to wait for */
}

static void test_a_lonely_caller_waits_for_nobody(void **state)
{
    (void)state;
    struct shc_company company = {0};
    shc_company_expect(&company, 1, 100 * US, 1000);
    assert_true(shc_company_came(&company, 1001));
    assert_false(shc_company_waits(&company, 1001));
}

static void test_it_waits_as_long_as_the_batch_took_and_half_a_millisecond_at_most(void **state)
{
    (void)state;
    struct shc_company company = {0};
    shc_company_expect(&company, 2, 100 * US, 1000);
    assert_true(shc_company_waits(&company, 1000 + 100 * US - 1));
    assert_false(shc_company_waits(&company, 1000 + 100 * US));
    shc_company_expect(&company, 2, 50 * NS_PER_MS, NS_PER_S);
    assert_true(shc_company_waits(&company, NS_PER_S + 500 * US - 1));
    assert_false(shc_company_waits(&company, NS_PER_S + 500 * US));
    assert_false(shc_company_came(&company, NS_PER_S + 500 * US));
}

static void test_who_is_overdue_is_given_up_and_who_is_not_is_added_to(void **state)
{
    (void)state;
    struct shc_company company = {0};
    shc_company_expect(&company, 5, 100 * US, 1000);
    shc_company_expect(&company, 2, 100 * US, 2000);
    assert_int_equal(company.expected, 7);
    shc_company_expect(&company, 2, 100 * US, NS_PER_S);
    assert_int_equal(company.expected, 2);
    shc_company_expect(&company, 0, 400 * US, NS_PER_S + 1); /* answers that nobody waited for */
    assert_int_equal(company.due_ns, NS_PER_S + 100 * US);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_is_expected_at_first),
        cmocka_unit_test(test_it_waits_until_all_have_come_back),
        cmocka_unit_test(test_a_lonely_caller_waits_for_nobody),
        cmocka_unit_test(test_it_waits_as_long_as_the_batch_took_and_half_a_millisecond_at_most),
        cmocka_unit_test(test_who_is_overdue_is_given_up_and_who_is_not_is_added_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
