/* The service skeleton, as a real process: this program runs itself with $TEST_SERVICE set as the service. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "service.h"

/* ------------------------------------------------------------ the service under test */

static struct link_server *test_link;
static struct link_client *test_guest;
static char test_endpoint[LINK_ENDPOINT_MAX];

static void no_request(void *arg, const struct link_request *request)
{
    (void)arg, (void)request;
}

static void no_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    (void)arg, (void)number, (void)type, (void)body;
}

/* TEST_SERVICE: plain (no link), link, full (a link that has as many clients as it takes), mute (pings where
 * nobody listens), in_use (open fails), stops (on SIGHUP). */
static bool test_service_is(const char *kind)
{
    return strcmp(getenv("TEST_SERVICE"), kind) == 0;
}

/* A link with one place, which is taken. */
static void open_guest(struct service *service)
{
    struct link_client_options options = {.loop = service->loop,
                                          .endpoint = test_endpoint,
                                          .message_bytes = 64 << 10,
                                          .queue_bytes = 64 << 10,
                                          .on_answer = no_answer};
    link_client_open(&options, &test_guest);
}

static enum service_exit test_open(struct service *service)
{
    if (test_service_is("in_use"))
        return EXIT_IN_USE;
    snprintf(test_endpoint, sizeof test_endpoint, "ipc://%.*s/svc", SOCKET_PATH_MAX,
             service->config->run_dir);
    if (!test_service_is("link") && !test_service_is("full"))
        return EXIT_DONE;
    struct link_server_options options = {.loop = service->loop,
                                          .limits = link_server_default_limits(),
                                          .cluster = service->cluster,
                                          .node = slice_str(service->config->self->id),
                                          .boot = service->boot,
                                          .on_request = no_request};
    if (test_service_is("full"))
        options.limits.sessions = 1;
    test_link = link_server_open(&options);
    if (link_server_listen(test_link, test_endpoint) != SH_OK)
        return EXIT_FAULT;
    if (test_service_is("full"))
        open_guest(service);
    return EXIT_DONE;
}

static void test_reload(struct service *service)
{
    char text[64];
    if (test_service_is("stops"))
        service_stop(service, EXIT_IN_USE);
    snprintf(text, sizeof text, "level %s",
             log_level_name((enum log_level)service->config->settings.log_level));
    service_status(text);
}

static void test_close(struct service *service)
{
    (void)service;
    if (test_link != NULL)
        link_server_close(test_link);
}

static const char *test_ping(const struct service *service)
{
    (void)service;
    return test_service_is("plain") ? NULL : test_endpoint;
}

static int be_the_service(int argc, char **argv)
{
    static const struct service_type type = {.name = "testsvc",
                                             .summary = "a service for tests",
                                             .open = test_open,
                                             .reload = test_reload,
                                             .close = test_close,
                                             .ping = test_ping};
    return service_main(argc, argv, &type);
}

/* ------------------------------------------------------------ starting it */

enum { WAIT_MS = 20000 };

struct world {
    char dir[32], config[64], notify[64];
    int notify_fd;
    struct service_process {
        pid_t pid;
        int output; /* its stdout and stderr */
    } service;
};

static void write_config(struct world *w, const char *rest)
{
    FILE *f = fopen(w->config, "w");
    assert_non_null(f);
    fprintf(f,
            "cluster:\n  name: test\n  nodes:\n    - {id: n1, host: 127.0.0.1, port: 4000}\n"
            "data_dir: %s/data\nrun_dir: %s\n%s",
            w->dir, w->dir, rest);
    assert_int_equal(fclose(f), 0);
}

static int make_world(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(w->dir, sizeof w->dir, "/tmp/shXXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->config, sizeof w->config, "%s/c.yaml", w->dir);
    snprintf(w->notify, sizeof w->notify, "%s/notify", w->dir);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", w->notify);
    w->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(w->notify_fd, (struct sockaddr *)&address, sizeof address), 0);
    write_config(w, "");
    *state = w;
    return 0;
}

static int end_world(void **state)
{
    static const char *const names[] = {"c.yaml", "notify", "svc.in", "svc.out"};
    struct world *w = *state;
    char path[128];
    if (w->service.pid > 0) {
        kill(w->service.pid, SIGKILL);
        waitpid(w->service.pid, NULL, 0);
    }
    if (w->service.output > 0)
        close(w->service.output);
    close(w->notify_fd);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", w->dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(w->dir), 0);
    free(w);
    return 0;
}

static void exec_service(const struct world *w, const char *kind, char *const *args)
{
    const struct rlimit no_core = {0, 0};
    setenv("TEST_SERVICE", kind, 1);
    setenv("NOTIFY_SOCKET", w->notify, 1);
    setrlimit(RLIMIT_CORE, &no_core);
    execv("/proc/self/exe", args);
    _exit(99);
}

/* extra: "NAME=value" for the environment, or NULL. args NULL: the usual ones. */
static void start(struct world *w, const char *kind, const char *extra, char *const *args)
{
    char *usual[] = {"testsvc", "--config", w->config, "--node", "n1", NULL};
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (extra != NULL)
            putenv(xstrdup(extra));
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        exec_service(w, kind, args != NULL ? args : usual);
    }
    close(ends[1]);
    w->service = (struct service_process){pid, ends[0]};
}

static void wait_readable(int fd, const char *what)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, WAIT_MS) != 1)
        fail_msg("waited in vain for %s", what);
}

/* The next notification that begins so; others are passed over. */
static void expect_notify(struct world *w, const char *text)
{
    char got[512];
    do {
        wait_readable(w->notify_fd, text);
        ssize_t n = recv(w->notify_fd, got, sizeof got - 1, 0);
        assert_true(n >= 0);
        got[n] = 0;
    } while (strncmp(got, text, strlen(text)) != 0);
}

static bool has_notification(const struct world *w)
{
    struct pollfd p = {.fd = w->notify_fd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

/* All that it prints until it ends; its status as of waitpid. */
static int wait_end(struct world *w, struct buf *output)
{
    int status;
    ssize_t n;
    do {
        wait_readable(w->service.output, "the end of the service");
        n = read(w->service.output, buf_reserve(output, 4096), 4096);
        assert_true(n >= 0);
        output->len += (size_t)n;
    } while (n > 0);
    assert_int_equal(waitpid(w->service.pid, &status, 0), w->service.pid);
    w->service.pid = 0;
    close(w->service.output);
    w->service.output = 0;
    return status;
}

/* Ends with the exit code; what it printed holds the text. */
static void expect_exit(struct world *w, int code, const char *text)
{
    struct buf output = {0};
    int status = wait_end(w, &output);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code || strstr(buf_cstr(&output), text) == NULL)
        fail_msg("status %x instead of exit code %d with \"%s\":\n%s", status, code, text, buf_cstr(&output));
    buf_free(&output);
}

/* ------------------------------------------------------------ tests */

static void test_help_and_version_are_printed(void **state)
{
    struct world *w = *state;
    start(w, "plain", NULL, (char *[]){"testsvc", "--help", NULL});
    expect_exit(w, EXIT_DONE, "--config FILE");
    start(w, "plain", NULL, (char *[]){"testsvc", "--version", NULL});
    expect_exit(w, EXIT_DONE, "testsvc " SHANGHAI_VERSION);
}

static void test_wrong_usage_is_refused(void **state)
{
    struct world *w = *state;
    start(w, "plain", NULL, (char *[]){"testsvc", NULL});
    expect_exit(w, EXIT_BAD_USAGE, "--config and --node are needed");
    start(w, "plain", NULL, (char *[]){"testsvc", "--nope", NULL});
    expect_exit(w, EXIT_BAD_USAGE, "--nope");
    start(w, "plain", NULL, (char *[]){"testsvc", "--config", w->config, "--node", "n1", "x", NULL});
    expect_exit(w, EXIT_BAD_USAGE, "no arguments");
}

static void test_all_configuration_errors_are_printed(void **state)
{
    struct world *w = *state;
    write_config(w, "wall: {}\nlog: {level: loud}\n");
    start(w, "plain", NULL, NULL);
    struct buf output = {0};
    int status = wait_end(w, &output);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_CONFIG);
    assert_non_null(strstr(buf_cstr(&output), ":7:1: unknown key `wall`"));
    assert_non_null(strstr(buf_cstr(&output), ":8:14: `log.level` must be"));
    assert_false(has_notification(w));
    buf_free(&output);
}

static void test_it_is_ready_and_stops_cleanly(void **state)
{
    struct world *w = *state;
    static const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        start(w, "plain", NULL, NULL);
        expect_notify(w, "READY=1");
        kill(w->service.pid, signals[i]);
        expect_notify(w, "STOPPING=1");
        expect_exit(w, EXIT_DONE, "\"msg\":\"stopped\"");
    }
}

static void test_a_failed_open_gives_its_code_and_is_never_ready(void **state)
{
    struct world *w = *state;
    start(w, "in_use", NULL, NULL);
    expect_exit(w, EXIT_IN_USE, "");
    assert_false(has_notification(w));
}

static void test_a_service_can_stop_itself_with_a_code(void **state)
{
    struct world *w = *state;
    start(w, "stops", NULL, NULL);
    expect_notify(w, "READY=1");
    kill(w->service.pid, SIGHUP);
    expect_exit(w, EXIT_IN_USE, "");
}

static void test_sighup_takes_over_what_may_change(void **state)
{
    struct world *w = *state;
    start(w, "plain", NULL, NULL);
    expect_notify(w, "READY=1");
    write_config(w, "log: {level: warn}\nwal: {segment_size: 8MiB}\n");
    kill(w->service.pid, SIGHUP);
    expect_notify(w, "STATUS=level warn");
    write_config(w, "log: {level: debug\n"); /* broken: nothing changes */
    kill(w->service.pid, SIGHUP);
    struct buf output = {0};
    while (output.len == 0 || strstr(buf_cstr(&output), "not taken over") == NULL) {
        wait_readable(w->service.output, "the complaint about the file");
        ssize_t n = read(w->service.output, buf_reserve(&output, 4096), 4096);
        assert_true(n > 0);
        output.len += (size_t)n;
    }
    assert_false(has_notification(w));
    write_config(w, "log: {level: info}\n");
    kill(w->service.pid, SIGHUP);
    expect_notify(w, "STATUS=level info");
    kill(w->service.pid, SIGTERM);
    expect_exit(w, EXIT_DONE, "stopped");
    buf_free(&output);
}

static void test_the_watchdog_is_fed_while_the_link_answers(void **state)
{
    struct world *w = *state;
    start(w, "link", "WATCHDOG_USEC=400000", NULL);
    expect_notify(w, "READY=1");
    for (int i = 0; i < 5; i++)
        expect_notify(w, "WATCHDOG=1");
    kill(w->service.pid, SIGTERM);
    expect_exit(w, EXIT_DONE, "stopped");
}

static void test_a_link_that_does_not_answer_ends_the_service(void **state)
{
    struct world *w = *state;
    start(w, "mute", "WATCHDOG_USEC=40000000", NULL);
    expect_notify(w, "READY=1");
    expect_exit(w, EXIT_FAULT, "the own link is dead"); /* long before the watchdog's own time */
}

/* Time for three pings: the first one two have to be unanswered. */
static void test_a_link_with_too_many_clients_is_not_taken_for_dead(void **state)
{
    struct world *w = *state;
    start(w, "full", "WATCHDOG_USEC=4000000", NULL);
    expect_notify(w, "READY=1");
    for (int i = 0; i < 5; i++)
        expect_notify(w, "WATCHDOG=1");
}

/* A datagram socket's queue is short: a supervisor that stands still must not hold its services too. */
static void test_notices_that_nobody_takes_hold_nobody(void **state)
{
    struct world *w = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    start(w, "plain", "WATCHDOG_USEC=400000", NULL);
    expect_notify(w, "READY=1");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", w->notify);
    while (sendto(fd, "X", 1, 0, (struct sockaddr *)&address, sizeof address) == 1)
        ; /* until the queue is full */
    assert_int_equal(errno, EAGAIN);
    kill(w->service.pid, SIGTERM);
    expect_exit(w, EXIT_DONE, "stopped");
    close(fd);
}

/* nng #1518: whoever connects to an ipc listener and closes at once can end it. */
static void connect_and_close(const struct world *w, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", w->dir, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connect(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
}

static void test_a_listener_killed_by_a_stranger_ends_the_service(void **state)
{
    struct world *w = *state;
    start(w, "link", "WATCHDOG_USEC=400000", NULL);
    expect_notify(w, "READY=1");
    struct pollfd p = {.fd = w->service.output, .events = POLLIN};
    int64_t end_ns = clock_mono_ns() + INT64_C(60) * NS_PER_S;
    struct buf output = {0};
    while (output.len == 0 || strstr(buf_cstr(&output), "the own link is dead") == NULL) {
        connect_and_close(w, "svc.in");
        assert_true(clock_mono_ns() < end_ns);
        if (poll(&p, 1, 5) == 1) {
            ssize_t n = read(w->service.output, buf_reserve(&output, 4096), 4096);
            assert_true(n > 0);
            output.len += (size_t)n;
        }
    }
    expect_exit(w, EXIT_FAULT, "");
    buf_free(&output);
}

static void test_sigabrt_ends_it_at_once(void **state)
{
    struct world *w = *state;
    struct buf output = {0};
    start(w, "plain", NULL, NULL);
    expect_notify(w, "READY=1");
    kill(w->service.pid, SIGABRT);
    int status = wait_end(w, &output);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    buf_free(&output);
}

/* A process between this one and the service is killed; the service's end of the pipe closes when it has died
 * too. */
static void test_it_dies_with_its_parent(void **state)
{
    struct world *w = *state;
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    pid_t middle = fork();
    if (middle == 0) {
        char own[32];
        snprintf(own, sizeof own, "%d", getpid());
        setenv("SHANGHAI_PARENT_PID", own, 1);
        if (fork() == 0)
            exec_service(w, "plain", (char *[]){"testsvc", "--config", w->config, "--node", "n1", NULL});
        close(ends[0]);
        close(ends[1]);
        pause();
        _exit(0);
    }
    close(ends[1]);
    expect_notify(w, "READY=1");
    struct pollfd p = {.fd = ends[0], .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0);
    kill(middle, SIGKILL);
    wait_readable(ends[0], "the service to die with its parent");
    assert_int_equal(read(ends[0], &byte, 1), 0);
    waitpid(middle, NULL, 0);
    close(ends[0]);
}

static void test_a_parent_that_is_gone_already_is_noticed(void **state)
{
    struct world *w = *state;
    start(w, "plain", "SHANGHAI_PARENT_PID=999999999", NULL);
    expect_exit(w, EXIT_FAULT, "SHANGHAI_PARENT_PID");
    assert_false(has_notification(w));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_world, end_world)

int main(int argc, char **argv)
{
    if (getenv("TEST_SERVICE") != NULL)
        return be_the_service(argc, argv);
    const struct CMUnitTest tests[] = {
        TEST(test_help_and_version_are_printed),
        TEST(test_wrong_usage_is_refused),
        TEST(test_all_configuration_errors_are_printed),
        TEST(test_it_is_ready_and_stops_cleanly),
        TEST(test_a_failed_open_gives_its_code_and_is_never_ready),
        TEST(test_a_service_can_stop_itself_with_a_code),
        TEST(test_sighup_takes_over_what_may_change),
        TEST(test_the_watchdog_is_fed_while_the_link_answers),
        TEST(test_a_link_that_does_not_answer_ends_the_service),
        TEST(test_a_link_with_too_many_clients_is_not_taken_for_dead),
        TEST(test_notices_that_nobody_takes_hold_nobody),
        TEST(test_a_listener_killed_by_a_stranger_ends_the_service),
        TEST(test_sigabrt_ends_it_at_once),
        TEST(test_it_dies_with_its_parent),
        TEST(test_a_parent_that_is_gone_already_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
