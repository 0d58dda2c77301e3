/* The documents that come from tables in the code are as the tables are. Runs in the root of the checkout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "config.h"
#include "messages.h"
#include "settings.h"
#include "telemetry.h"

static void read_whole(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("%s cannot be read", path);
    size_t n;
    while ((n = fread(buf_reserve(out, 65536), 1, 65536, f)) > 0)
        out->len += n;
    fclose(f);
}

static void expect_document(const char *path, void (*make)(struct buf *out))
{
    struct buf file = {0}, made = {0};
    read_whole(path, &file);
    make(&made);
    if (!slice_equal(buf_slice(&file), buf_slice(&made)))
        fail_msg("%s is not what its tables make: run script/docs", path);
    buf_free(&file);
    buf_free(&made);
}

static void test_messages_are_documented(void **state)
{
    (void)state;
    expect_document("docs/messages.md", msg_document);
}

static void test_configuration_is_documented(void **state)
{
    (void)state;
    expect_document("docs/configuration.md", config_document);
}

static void test_metrics_are_documented(void **state)
{
    (void)state;
    expect_document("docs/metrics.md", telemetry_document);
}

static void test_the_example_shows_the_defaults(void **state)
{
    (void)state;
    expect_document("etc/shanghai.yaml", config_example);
}

/* Takes the "# " off the lines that stand for defaults: what stays must load, and change nothing. */
static void uncomment(struct slice text, struct buf *out)
{
    const char *at = (const char *)text.data, *end = at + text.len;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *rest = stop - at > 2 && memcmp(at, "# ", 2) == 0 ? at + 2 : at;
        bool is_key = memchr(rest, ':', (size_t)(stop - rest)) != NULL && *rest != '#';
        bool is_prose = rest != at && *rest >= 'A' && *rest <= 'Z';
        if (is_key && !is_prose)
            buf_append(out, rest, (size_t)(stop - rest) + 1);
        at = stop + 1;
    }
}

static void test_the_example_is_valid_with_and_without_comments(void **state)
{
    (void)state;
    struct buf text = {0}, bare = {0}, errors = {0}, shown[2] = {{0}};
    struct config c;
    config_example(&text);
    uncomment(buf_slice(&text), &bare);
    const struct buf *variants[] = {&text, &bare};
    for (int i = 0; i < 2; i++) {
        if (!config_parse("example", buf_slice(variants[i]), "n1", &c, &errors))
            fail_msg("%s\n%s", buf_cstr(&errors), (const char *)variants[i]->data);
        config_show(&c, &shown[i]);
        config_free(&c);
    }
    assert_string_equal(buf_cstr(&shown[0]), buf_cstr(&shown[1]));
    assert_non_null(strstr(buf_cstr(&bare), "segment_size"));
    buf_free(&text);
    buf_free(&bare);
    buf_free(&errors);
    buf_free(&shown[0]);
    buf_free(&shown[1]);
}

static void test_each_setting_is_declared_soundly(void **state)
{
    (void)state;
    size_t count;
    const struct setting *table = settings_table(&count);
    assert_int_equal(count * sizeof(uint64_t), sizeof(struct settings));
    for (size_t i = 0; i < count; i++) {
        const char *dot = strchr(table[i].path, '.');
        assert_true(dot != NULL && dot > table[i].path && strchr(dot + 1, '.') == NULL);
        assert_true(table[i].least <= table[i].initial && table[i].initial <= table[i].most);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(table[i].path, table[j].path);
        struct buf text = {0}, problem = {0};
        uint64_t value;
        setting_format(table[i].kind, table[i].initial, &text);
        assert_true(
            setting_parse(table[i].kind, table[i].least, table[i].most, buf_cstr(&text), &value, &problem));
        assert_int_equal(value, table[i].initial);
        buf_free(&text);
        buf_free(&problem);
    }
}

/* A function of the library that is declared on this line: the comment above belongs to it. */
static void check_function(const char *line, bool commented, const struct buf *manual)
{
    char name[64], entry[80];
    const char *at = strstr(line, "sh_"), *open = strchr(line, '(');
    while (at != NULL && strstr(at + 1, "sh_") != NULL && strstr(at + 1, "sh_") < open)
        at = strstr(at + 1, "sh_");
    snprintf(name, sizeof name, "%.*s", (int)(open - at), at);
    snprintf(entry, sizeof entry, "\n.Fn %s ", name);
    if (!commented)
        fail_msg("client/shanghai.h: %s has no comment", name);
    if (strstr((const char *)manual->data, entry) == NULL)
        fail_msg("client/libshanghai.3 leaves out %s", name);
}

static void test_each_function_of_the_library_is_documented(void **state)
{
    (void)state;
    struct buf header = {0}, manual = {0};
    unsigned functions = 0;
    bool commented = false, in_comment = false;
    read_whole("client/shanghai.h", &header);
    read_whole("client/shanghai_admin.h", &header);
    read_whole("client/libshanghai.3", &manual);
    buf_cstr(&header);
    buf_cstr(&manual);
    for (char *line = strtok((char *)header.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        in_comment = in_comment || strncmp(line, "/*", 2) == 0;
        if (in_comment) {
            commented = strncmp(line, "/* ----", 7) != 0;
            in_comment = strstr(line, "*/") == NULL;
        } else if (strncmp(line, "typedef", 7) != 0 && line[0] != ' ') {
            if (line[0] != '#' && strstr(line, "sh_") != NULL && strchr(line, '(') != NULL) {
                check_function(line, commented, &manual);
                functions++;
            }
            commented = false;
        }
    }
    assert_true(functions >= 15);
    buf_free(&header);
    buf_free(&manual);
}

/* Names that begin with sh_ and end before that character, each between line ends; comments and typedefs
 * have none. */
static void list_names(const struct buf *text, char behind, struct buf *out)
{
    const char *at = (const char *)text->data, *line = at, *end = at + text->len;
    buf_append_str(out, "\n");
    for (bool is_comment = false; at < end; at++) {
        line = at > line && at[-1] == '\n' ? at : line;
        is_comment = is_comment ? strncmp(at, "*/", 2) != 0 : strncmp(at, "/*", 2) == 0;
        bool begins = at > (const char *)text->data && strchr(" \n*", at[-1]) != NULL;
        size_t len = strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_");
        if (!is_comment && begins && strncmp(line, "typedef", 7) != 0 && strncmp(at, "sh_", 3) == 0 &&
            at[len] == behind)
            buf_printf(out, "%.*s\n", (int)len, at);
    }
    buf_cstr(out);
}

static void expect_all_of(struct buf *names, struct buf *within, const char *what)
{
    char line[80];
    for (const char *at = buf_cstr(names), *end; (end = strchr(at + 1, '\n')) != NULL; at = end) {
        snprintf(line, sizeof line, "%.*s", (int)(end + 1 - at), at);
        if (strstr(buf_cstr(within), line) == NULL)
            fail_msg("%s: %s", what, line);
    }
}

/* What is missing in the map cannot be called by anybody who links the library. */
static void test_the_map_exports_what_the_headers_declare(void **state)
{
    (void)state;
    struct buf headers = {0}, map = {0}, declared = {0}, exported = {0};
    read_whole("client/shanghai.h", &headers);
    read_whole("client/shanghai_admin.h", &headers);
    read_whole("common/shanghai_error.h", &headers);
    read_whole("client/lib/shanghai.map", &map);
    buf_cstr(&headers);
    buf_cstr(&map);
    list_names(&headers, '(', &declared);
    list_names(&map, ';', &exported);
    assert_non_null(strstr(buf_cstr(&declared), "\nsh_append\n"));
    expect_all_of(&declared, &exported, "client/lib/shanghai.map leaves out");
    expect_all_of(&exported, &declared, "no public header declares");
    buf_free(&headers);
    buf_free(&map);
    buf_free(&declared);
    buf_free(&exported);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages_are_documented),
        cmocka_unit_test(test_configuration_is_documented),
        cmocka_unit_test(test_metrics_are_documented),
        cmocka_unit_test(test_the_example_shows_the_defaults),
        cmocka_unit_test(test_the_example_is_valid_with_and_without_comments),
        cmocka_unit_test(test_each_setting_is_declared_soundly),
        cmocka_unit_test(test_each_function_of_the_library_is_documented),
        cmocka_unit_test(test_the_map_exports_what_the_headers_declare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
