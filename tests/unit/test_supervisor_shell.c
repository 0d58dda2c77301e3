/* The parts of the supervisor's shell: spawning with calls that fail, output, notices, the control socket's
 * client.
 *
 * This program also plays the service that it supervises: called with --config, it is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "clock.h"
#include "control.h"
#include "sup_notify.h"
#include "sup_output.h"
#include "sup_service.h"
#include "sup_shell.h"

static char self[512], dir[64];

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *fds = opendir("/proc/self/fd");
    assert_non_null(fds);
    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

static int make_dir(void **unused)
{
    (void)unused;
    snprintf(dir, sizeof dir, "/tmp/shXXXXXX");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **unused)
{
    (void)unused;
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/rm", "rm", "-rf", dir, (char *)NULL);
        _exit(1);
    }
    return waitpid(pid, NULL, 0) != pid;
}

/* ------------------------------------------------------------ spawning */

/* Each call takes one away, and fails once there is none left to take. */
static int forks_left, pidfds_left;
static pid_t last_pid;

static pid_t scarce_fork(void)
{
    if (forks_left-- > 0)
        return last_pid = fork();
    errno = EAGAIN;
    return -1;
}

static int scarce_pidfd_open(pid_t pid, unsigned flags)
{
    if (pidfds_left-- > 0)
        return pidfd_open(pid, flags);
    errno = EMFILE;
    return -1;
}

static const struct sup_os scarce = {scarce_fork, scarce_pidfd_open};

static int spawn(const char *path, struct sup_process *out)
{
    const char *const arguments[] = {path, "-c", "echo said; exit 3", NULL};
    return sup_spawn(&scarce, &(struct sup_program){path, arguments, "/nonexistent", 0}, out);
}

static void test_fork_failure_leaves_nothing_behind(void **unused)
{
    (void)unused;
    struct sup_process process;
    unsigned before = open_descriptors();
    forks_left = 0;
    assert_int_equal(spawn("/bin/sh", &process), EAGAIN);
    assert_int_equal(open_descriptors(), before);
}

static void test_pidfd_failure_leaves_nothing_behind(void **unused)
{
    (void)unused;
    struct sup_process process;
    unsigned before = open_descriptors();
    forks_left = 1;
    pidfds_left = 0;
    assert_int_equal(spawn("/bin/sh", &process), EMFILE);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(waitpid(last_pid, NULL, WNOHANG), -1); /* killed and reaped */
}

/* Waits for the end and reads what was said. */
static struct sup_exit collect(struct sup_process *process, char *said, size_t size)
{
    struct pollfd watch = {.fd = process->pidfd, .events = POLLIN};
    assert_int_equal(poll(&watch, 1, 20000), 1);
    struct sup_exit exit = sup_reap(process);
    ssize_t n = read(process->output, said, size - 1);
    said[n > 0 ? n : 0] = 0;
    close(process->output);
    return exit;
}

static void test_process_is_spawned_and_reaped(void **unused)
{
    (void)unused;
    struct sup_process process;
    char said[64];
    unsigned before = open_descriptors();
    forks_left = pidfds_left = 1;
    assert_int_equal(spawn("/bin/sh", &process), 0);
    struct sup_exit exit = collect(&process, said, sizeof said);
    assert_false(exit.signalled);
    assert_int_equal(exit.code, 3);
    assert_string_equal(said, "said\n");
    assert_int_equal(open_descriptors(), before);
}

static void test_program_that_does_not_exist_is_a_configuration_error(void **unused)
{
    (void)unused;
    struct sup_process process;
    char said[512];
    forks_left = pidfds_left = 1;
    assert_int_equal(spawn("/nonexistent/program", &process), 0);
    struct sup_exit exit = collect(&process, said, sizeof said);
    assert_int_equal(exit.code, EXIT_CONFIG);
    assert_non_null(strstr(said, "/nonexistent/program"));
}

/* The child goes on only when its parent is gone. */
static pid_t late_fork(void)
{
    pid_t parent = getpid(), pid = fork();
    while (pid == 0 && getppid() == parent)
        poll(NULL, 0, 1);
    return pid;
}

static void test_child_whose_parent_is_gone_is_never_executed(void **unused)
{
    (void)unused;
    static const struct sup_os late = {late_fork, pidfd_open};
    const char *const arguments[] = {"/bin/sh", "-c", "exit 3", NULL};
    int status;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* the orphan is ours then */
    pid_t parent = fork();
    if (parent == 0) {
        struct sup_process process;
        _exit(sup_spawn(&late, &(struct sup_program){"/bin/sh", arguments, "/nonexistent", 0}, &process));
    }
    assert_int_equal(waitpid(parent, &status, 0), parent);
    assert_true(waitpid(-1, &status, 0) > 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAULT);
}

/* ------------------------------------------------------------ a whole shell whose fork fails */

/* The played service: its first life ends after READY=1, later ones last. With a "configuration" of that name
 * it has its say and ends. */
static int play_service(const char *config)
{
    char mark[128];
    if (strcmp(config, "last words") == 0) {
        sd_notify(0, "READY=1");
        dprintf(STDERR_FILENO, "farewell\n");
        return 5;
    }
    snprintf(mark, sizeof mark, "%s/mark", getenv("TEST_DIR"));
    int fd = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
    sd_notify(0, "READY=1");
    if (fd >= 0)
        return 1;
    for (;;)
        pause();
}

static int intensity = 10;

static void write_config(char *path, size_t size)
{
    snprintf(path, size, "%s/c.yaml", dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file,
            "cluster:\n  name: t\n  nodes:\n    - {id: n1, host: 127.0.0.1, port: 4000, admin_port: 9090}\n"
            "data_dir: %s/data\nrun_dir: %s/run\nsupervisor:\n  intensity: %d\n  children:\n"
            "    - {service: a, program: %s, watchdog: 0}\n",
            dir, dir, intensity, self);
    fclose(file);
}

/* Runs a shell in a child: of its forks `good` succeed, then `bad` fail, all later ones succeed. */
static int good, bad;

static pid_t flaky_fork(void)
{
    if (good-- > 0 || bad-- <= 0)
        return fork();
    errno = EAGAIN;
    return -1;
}

static pid_t start_shell(int first_good, int then_bad)
{
    static const struct sup_os flaky = {flaky_fork, pidfd_open};
    char config[128];
    write_config(config, sizeof config);
    setenv("TEST_DIR", dir, 1);
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        good = first_good;
        bad = then_bad;
        _exit((int)sup_shell_run(&(struct sup_options){config, "n1", &flaky}));
    }
    return pid;
}

static int exit_code_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The service's map of the tree's answer: whether it says `state` with so many restarts. */
static bool tree_says(struct slice tree, const char *state, uint64_t restarts)
{
    struct mp m = mp_of(tree);
    uint32_t nodes, pairs = 0;
    bool good_state = false, good_restarts = false;
    assert_true(mp_array(&m, &nodes) && nodes == 2 && mp_skip(&m) && mp_map(&m, &pairs));
    while (pairs-- > 0) {
        struct slice key, text;
        uint64_t number;
        assert_true(mp_str(&m, &key));
        struct mp value = m;
        if (slice_is(key, "state"))
            good_state = mp_str(&value, &text) && slice_is(text, state);
        if (slice_is(key, "restarts"))
            good_restarts = mp_uint(&value, &number) && number == restarts;
        assert_true(mp_skip(&m));
    }
    return good_state && good_restarts;
}

/* Asks until the answer is as wanted; false after 20 s. */
static bool wait_for_tree(const char *state, uint64_t restarts)
{
    char path[128];
    snprintf(path, sizeof path, "%s/run/supervisor.sock", dir);
    const struct msg_svc_command command = {.command = slice_str("tree")};
    bool arrived = false;
    struct buf storage = {0};
    for (int i = 0; i < 2000 && !arrived; i++) {
        struct msg_svc_reply reply;
        arrived = control_call(path, &command, 1000, &storage, &reply) == SH_OK && reply.code == SH_OK &&
                  tree_says(reply.tree, state, restarts);
        if (!arrived)
            poll(NULL, 0, 10);
    }
    buf_free(&storage);
    return arrived;
}

static void test_fork_failure_of_a_restart_is_tried_again(void **unused)
{
    (void)unused;
    pid_t shell = start_shell(1, 3);
    bool back = wait_for_tree("running", 4);
    kill(shell, SIGTERM);
    assert_int_equal(exit_code_of(shell), EXIT_DONE);
    assert_true(back);
}

static void test_fork_failure_at_startup_gives_up(void **unused)
{
    (void)unused;
    assert_int_equal(exit_code_of(start_shell(0, 1000)), EXIT_GAVE_UP);
}

static void test_fork_that_fails_on_and_on_gives_up(void **unused)
{
    (void)unused;
    intensity = 3;
    assert_int_equal(exit_code_of(start_shell(1, 1000)), EXIT_GAVE_UP);
    intensity = 10;
}

/* ------------------------------------------------------------ one service */

static struct sup_event heard[8];
static unsigned heard_count;

static void hear(void *unused, const struct sup_event *event)
{
    (void)unused;
    assert_true(heard_count < 8);
    heard[heard_count++] = *event;
}

static void test_last_words_count_whatever_is_noticed_first(void **unused)
{
    (void)unused;
    struct loop *loop = loop_open();
    struct sup_service *s = xcalloc(1, sizeof *s);
    struct tree_node spec = {.kind = TREE_SERVICE, .name = "svc"};
    const struct sup_setting setting = {.loop = loop,
                                        .os = sup_os_linux(),
                                        .config_file = "last words",
                                        .node_id = "n1",
                                        .run_dir = dir,
                                        .log_dir = dir,
                                        .program_dir = "/nonexistent",
                                        .on_event = hear};
    snprintf(spec.program, sizeof spec.program, "%s", self);
    heard_count = 0;
    assert_true(sup_service_open(s, &setting, &spec, 1));
    assert_int_equal(sup_service_spawn(s), 0);
    struct pollfd watch = {.fd = s->process.pidfd, .events = POLLIN};
    assert_int_equal(poll(&watch, 1, 20000), 1);
    s->death.fn(s->death.arg, 0); /* before its notices and its output were looked at */
    assert_int_equal(heard_count, 2);
    assert_int_equal(heard[0].kind, SUP_READY);
    assert_int_equal(heard[1].kind, SUP_EXITED);
    assert_int_equal(heard[1].exit.code, 5);
    assert_int_equal(sup_output_kept(&s->lines), 1);
    assert_true(slice_is(sup_output_line(&s->lines, 0), "farewell"));
    sup_service_close(s);
    free(s);
    loop_close(loop);
}

/* ------------------------------------------------------------ the control socket's client */

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void test_control_call_names_what_went_wrong(void **unused)
{
    (void)unused;
    char path[128];
    struct buf storage = {0};
    struct msg_svc_reply reply;
    const struct msg_svc_command command = {.command = slice_str("tree")};
    snprintf(path, sizeof path, "%s/sock", dir);
    assert_int_equal(control_call(path, &command, 100, &storage, &reply), SH_UNAVAILABLE);
    int listener = listen_at(path); /* takes no connection: it stays in the backlog */
    assert_int_equal(control_call(path, &command, 100, &storage, &reply), SH_TIMEOUT);
    while (control_call(path, &command, 20, &storage, &reply) == SH_TIMEOUT)
        ; /* until the backlog is full */
    assert_int_equal(control_call(path, &command, 100, &storage, &reply), SH_UNAVAILABLE);
    close(listener);
    assert_int_equal(control_call(path, &command, 100, &storage, &reply), SH_UNAVAILABLE);
    char too_long[256];
    memset(too_long, 'x', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = 0;
    assert_int_equal(control_call(too_long, &command, 100, &storage, &reply), SH_UNAVAILABLE);
    buf_free(&storage);
}

static void answer_once(int listener, const void *answer, size_t len)
{
    char packet[4096];
    int fd = accept(listener, NULL, NULL);
    if (recv(fd, packet, sizeof packet, 0) > 0 && len > 0)
        send(fd, answer, len, MSG_NOSIGNAL);
    _exit(0);
}

static enum sh_error call_with_answer(const void *answer, size_t len)
{
    char path[128];
    struct buf storage = {0};
    struct msg_svc_reply reply;
    const struct msg_svc_command command = {.command = slice_str("tree")};
    snprintf(path, sizeof path, "%s/sock2", dir);
    unlink(path);
    int listener = listen_at(path);
    pid_t pid = fork();
    if (pid == 0)
        answer_once(listener, answer, len);
    close(listener);
    enum sh_error error = control_call(path, &command, 20000, &storage, &reply);
    assert_int_equal(exit_code_of(pid), 0);
    buf_free(&storage);
    return error;
}

static void test_control_call_takes_no_strange_answer(void **unused)
{
    (void)unused;
    assert_int_equal(call_with_answer("", 0), SH_UNAVAILABLE);
    assert_int_equal(call_with_answer("garbage", 7), SH_BAD_REQUEST);
    struct buf command = {0};
    msg_pack_envelope(&command, &(struct msg_envelope){.type = MSG_svc_command});
    msg_encode(MSG_svc_command, &(struct msg_svc_command){.command = slice_str("tree")}, &command);
    assert_int_equal(call_with_answer(command.data, command.len), SH_BAD_REQUEST);
    command.data[1] = MSG_VERSION + 1; /* behind the array's head; a small number is its own code */
    assert_int_equal(call_with_answer(command.data, command.len), SH_VERSION_MISMATCH);
    buf_free(&command);
}

/* ------------------------------------------------------------ notices and output */

static void test_notice_lines_are_told_apart(void **unused)
{
    (void)unused;
    struct sup_notice n = {0};
    sup_notice_parse(slice_str("X=1\nREADY=1\nSTATUS=a\tb\nWATCHDOG=1"), &n);
    assert_true(n.ready && n.watchdog && n.has_status);
    assert_string_equal(n.status, "a b");
    n = (struct sup_notice){0};
    sup_notice_parse(slice_str("READY=0\nREADY=10\nREADY\nWATCHDOG=trigger\n\n\nSTATU"), &n);
    assert_false(n.ready || n.watchdog || n.has_status);
    char longest[1000] = "STATUS=";
    memset(longest + 7, 'x', sizeof longest - 8);
    sup_notice_parse(slice_str(longest), &n);
    assert_int_equal(strlen(n.status), SUP_STATUS_MAX);
}

static void expect_kept(const struct sup_output *o, unsigned i, const char *text)
{
    assert_true(slice_is(sup_output_line(o, i), text));
}

static void test_output_is_cut_into_lines_however_it_comes(void **unused)
{
    (void)unused;
    struct sup_output *o = xcalloc(1, sizeof *o);
    int before = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
    sup_output_open(o, dir, "svc");
    for (const char *c = "one\n\ntwo\n"; *c != 0; c++)
        sup_output_feed(o, c, 1);
    sup_output_feed(o, "three\nfour", 10);
    assert_int_equal(sup_output_kept(o), 4);
    sup_output_end(o);
    sup_output_end(o);
    assert_int_equal(sup_output_kept(o), 5);
    static const char *const lines[] = {"one", "", "two", "three", "four"};
    for (unsigned i = 0; i < 5; i++)
        expect_kept(o, i, lines[i]);
    for (int i = 0; i < 100; i++) {
        char line[16];
        int len = snprintf(line, sizeof line, "n%d\n", i);
        sup_output_feed(o, line, (size_t)len);
    }
    assert_int_equal(sup_output_kept(o), SUP_LINES_KEPT);
    expect_kept(o, 0, "n80");
    expect_kept(o, SUP_LINES_KEPT - 1, "n99");
    sup_output_begin(o);
    assert_int_equal(sup_output_kept(o), 0);
    sup_output_close(o);
    dup2(before, STDERR_FILENO);
    close(before);
    close(null);
    free(o);
}

#define T(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--config") == 0)
        return play_service(argv[2]);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return 1;
    const struct CMUnitTest tests[] = {
        T(test_fork_failure_leaves_nothing_behind),
        T(test_pidfd_failure_leaves_nothing_behind),
        T(test_process_is_spawned_and_reaped),
        T(test_program_that_does_not_exist_is_a_configuration_error),
        T(test_child_whose_parent_is_gone_is_never_executed),
        T(test_fork_failure_of_a_restart_is_tried_again),
        T(test_fork_failure_at_startup_gives_up),
        T(test_fork_that_fails_on_and_on_gives_up),
        T(test_last_words_count_whatever_is_noticed_first),
        T(test_control_call_names_what_went_wrong),
        T(test_control_call_takes_no_strange_answer),
        T(test_notice_lines_are_told_apart),
        T(test_output_is_cut_into_lines_however_it_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
