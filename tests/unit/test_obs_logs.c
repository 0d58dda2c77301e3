/* Lines of the services' logs, as they are found in files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"
#include "obs_logs.h"

static char dir[] = "/tmp/shlogsXXXXXX";
static struct config config;

static void write_log(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/log/%s", dir, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* A line of that second, with the level and more members of the object. */
#define LINE(second, level, more)                                                                            \
    "{\"time\":\"2026-01-01T00:00:0" second "Z\",\"level\":\"" level "\"" more "}\n"

/* The seconds of the lines that are found, in their order. */
static void expect_seconds(const struct obs_logs_query *query, const char *seconds)
{
    struct json_writer j = {0};
    char found[64] = "";
    obs_logs_read(&config, query, &j, NULL);
    size_t count = 0;
    for (const char *at = buf_cstr(&j.out); (at = strstr(at, "00:00:0")) != NULL && count + 1 < sizeof found;
         at++)
        found[count++] = at[7];
    found[count] = 0;
    if (strcmp(found, seconds) != 0)
        fail_msg("%s: not %s but %s", buf_cstr(&j.out), seconds, found);
    buf_free(&j.out);
}

static void test_old_and_present_lines_of_all_services_in_order(void **state)
{
    (void)state;
    write_log("a.log.1", LINE("1", "info", "") LINE("3", "info", ""));
    write_log("a.log", LINE("5", "info", ""));
    write_log("b.log", LINE("2", "info", "") LINE("4", "info", ""));
    expect_seconds(&(struct obs_logs_query){.most = 100}, "12345");
    expect_seconds(&(struct obs_logs_query){.most = 3}, "345");
    expect_seconds(&(struct obs_logs_query){.most = 0}, "");
    expect_seconds(&(struct obs_logs_query){.most = 100, .service = "b"}, "24");
}

static void test_lines_are_chosen_by_level_and_id(void **state)
{
    (void)state;
    write_log("a.log.1", "");
    write_log("a.log",
              LINE("1", "debug", ",\"correlation_id\":\"00000000000000ff\"") LINE("2", "warn", "")
                  LINE("3", "error", ",\"correlation_id\":\"00000000000000ff\"") LINE("4", "loud", ""));
    write_log("b.log", LINE("5", "info", ",\"correlation_id\":\"0000000000000ff0\""));
    expect_seconds(&(struct obs_logs_query){.most = 9, .least = LOG_WARN}, "23");
    expect_seconds(&(struct obs_logs_query){.most = 9, .correlation = 0xff}, "13");
    expect_seconds(&(struct obs_logs_query){.most = 9, .correlation = 0xff, .least = LOG_ERROR}, "3");
    expect_seconds(&(struct obs_logs_query){.most = 9, .correlation = 0xf}, "");
}

static void test_what_is_no_line_is_passed_over(void **state)
{
    (void)state;
    write_log("a.log", "double free or corruption\n\n{\"time\":\n" LINE(
                           "1", "info", "") "{}\n[1]\n"
                                            "{\"time\":\"2026-01-01T00:00:07Z\",\"level\":\"info\"");
    write_log("b.log", "{\"time\":\"2026-01-01T00:00:08Z\",\"level\":\"info\",\"x\":\"\xff\"}\n");
    expect_seconds(&(struct obs_logs_query){.most = 9}, "1");
}

static void test_files_may_be_absent(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/log/a.log", dir);
    unlink(path);
    write_log("a.log.1", LINE("1", "info", ""));
    write_log("b.log", "");
    expect_seconds(&(struct obs_logs_query){.most = 9}, "1");
}

static int make_dir(void **state)
{
    struct buf errors = {0};
    char text[512], path[128];
    (void)state;
    if (mkdtemp(dir) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/log", dir);
    snprintf(text, sizeof text,
             "cluster: {name: c, nodes: [{id: n1, host: h, port: 1}]}\nrun_dir: %s\n"
             "supervisor: {children: [{service: a}, {service: b}]}\n",
             dir);
    bool good = mkdir(path, 0700) == 0 && config_parse("c", slice_str(text), "n1", &config, &errors);
    buf_free(&errors);
    return good ? 0 : -1;
}

static int remove_dir(void **state)
{
    static const char *const names[] = {"log/a.log", "log/a.log.1", "log/b.log"};
    char path[128];
    (void)state;
    config_free(&config);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/log", dir);
    return rmdir(path) == 0 ? rmdir(dir) : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_old_and_present_lines_of_all_services_in_order),
        cmocka_unit_test(test_lines_are_chosen_by_level_and_id),
        cmocka_unit_test(test_what_is_no_line_is_passed_over),
        cmocka_unit_test(test_files_may_be_absent),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
