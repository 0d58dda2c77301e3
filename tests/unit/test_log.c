/* Lines that repeat are limited; others are not, nor are those of the debug level. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

static int64_t now_ns = INT64_C(1000000000000);

/* By --wrap. */
int64_t __wrap_clock_mono_ns(void);
int64_t __wrap_clock_mono_ns(void)
{
    return now_ns;
}

/* What fn writes to standard error. */
static void capture(void (*fn)(void), struct buf *out)
{
    int kept = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    dup2(fileno(file), STDERR_FILENO);
    fn();
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    for (int c; (c = fgetc(file)) != EOF;)
        buf_append(out, &(uint8_t){(uint8_t)c}, 1);
    fclose(file);
}

static unsigned count_lines(void (*fn)(void), const char *with)
{
    struct buf out = {0};
    unsigned count = 0;
    capture(fn, &out);
    for (char *line = strtok((char *)(uintptr_t)buf_cstr(&out), "\n"); line != NULL;
         line = strtok(NULL, "\n"))
        count += strstr(line, with) != NULL;
    buf_free(&out);
    return count;
}

static void repeat(void)
{
    for (unsigned i = 0; i < LOG_REPEATS + 7; i++)
        log_warn("again and again", log_uint("i", i));
}

static void once(void)
{
    log_warn("again and again");
}

static void another(void)
{
    log_warn("something else");
}

static void debug(void)
{
    for (unsigned i = 0; i < 2 * LOG_REPEATS; i++)
        log_debug("all of it");
}

static void test_repeats_are_left_out_and_counted(void **state)
{
    (void)state;
    assert_int_equal(count_lines(repeat, "again and again"), LOG_REPEATS);
    assert_int_equal(count_lines(once, "again"), 0);
    assert_int_equal(count_lines(another, "something else"), 1);
    now_ns += LOG_REPEAT_NS - 1;
    assert_int_equal(count_lines(once, "again"), 0);
    now_ns++;
    assert_int_equal(count_lines(once, "\"suppressed\":9}"), 1);
    assert_int_equal(count_lines(once, "again"), 1);
    assert_int_equal(count_lines(once, "suppressed"), 0);
}

static void test_debug_lines_are_all_written(void **state)
{
    (void)state;
    log_set_level(LOG_DEBUG);
    assert_int_equal(count_lines(debug, "all of it"), 2 * LOG_REPEATS);
    log_set_level(LOG_INFO);
    assert_int_equal(count_lines(debug, "all of it"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeats_are_left_out_and_counted),
        cmocka_unit_test(test_debug_lines_are_all_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
