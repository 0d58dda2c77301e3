/* A session as text: what comes back is what went out, and what is none is refused as a whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shanghai.h"

#define FIRST  "11111111-2222-4333-8444-555555555555"
#define SECOND "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

static void assert_text(const struct sh_session *session, const char *expected)
{
    char *text = sh_session_text(session);
    assert_string_equal(text, expected);
    free(text);
}

static void test_a_session_grows_and_never_goes_back(void **state)
{
    (void)state;
    struct sh_session *s = sh_session_new();
    struct sh_append_result wrote = {.first_lsn = 7, .count = 3};
    assert_text(s, "");
    assert_int_equal(sh_session_take(s, FIRST " 5\n" SECOND " 18446744073709551615\n"), SH_OK);
    assert_int_equal(sh_session_take(s, FIRST " 4\n"), SH_OK);
    assert_int_equal(sh_session_take(s, FIRST " 6\n" FIRST " 5\n"), SH_OK);
    assert_int_equal(sh_session_take(s, ""), SH_OK);
    assert_text(s, FIRST " 6\n" SECOND " 18446744073709551615\n");
    memset(wrote.log, 0x11, sizeof wrote.log);
    sh_session_wrote(s, &wrote);
    assert_text(s, FIRST " 6\n" SECOND " 18446744073709551615\n11111111-1111-1111-1111-111111111111 9\n");
    sh_session_free(s);
}

static void test_what_is_no_session_adds_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\n",
        "x",
        FIRST,
        FIRST "\n",
        FIRST " \n",
        FIRST " 5",
        FIRST " 5\r\n",
        FIRST " 5 \n",
        FIRST "  5\n",
        FIRST "\t5\n",
        " " FIRST " 5\n",
        FIRST " -5\n",
        FIRST " +5\n",
        FIRST " 0x5\n",
        FIRST " 18446744073709551616\n",
        FIRST " 99999999999999999999999999\n",
        FIRST "1 5\n",
        "1111111-12222-4333-8444-555555555555 5\n",
        "g1111111-2222-4333-8444-555555555555 5\n",
        SECOND " 5\n" FIRST " x\n",
        SECOND " 5\n\n",
    };
    struct sh_session *s = sh_session_new();
    assert_int_equal(sh_session_take(s, FIRST " 1\n"), SH_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(sh_session_take(s, bad[i]), SH_BAD_REQUEST);
        assert_text(s, FIRST " 1\n");
    }
    sh_session_free(s);
}

/* As many logs as it holds, told apart by their first four bytes. */
static char *many_lines(unsigned count)
{
    enum { LINE_BYTES = 64 };
    char *text = malloc((size_t)count * LINE_BYTES + 1);
    size_t len = 0;
    assert_non_null(text);
    text[0] = 0;
    for (unsigned i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, LINE_BYTES, "%08x-2222-4333-8444-555555555555 1\n", i);
    return text;
}

static void test_a_session_has_256_logs_at_most(void **state)
{
    (void)state;
    struct sh_session *s = sh_session_new();
    char *most = many_lines(256), *more = many_lines(257);
    assert_int_equal(sh_session_take(s, most), SH_OK);
    assert_text(s, most);
    assert_int_equal(sh_session_take(s, more), SH_BAD_REQUEST);
    assert_text(s, most);
    assert_int_equal(sh_session_take(s, FIRST " 3\n"), SH_OK);
    char *text = sh_session_text(s);
    assert_null(strstr(text, "00000000-2222")); /* the oldest has made room */
    assert_non_null(strstr(text, "000000ff-2222"));
    assert_non_null(strstr(text, FIRST " 3\n"));
    free(text);
    free(most);
    free(more);
    sh_session_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_session_grows_and_never_goes_back),
        cmocka_unit_test(test_what_is_no_session_adds_nothing),
        cmocka_unit_test(test_a_session_has_256_logs_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
