/* fork, exec, reap. Nothing here is fatal to the supervisor but a wait that fails, which cannot be. */
#include "sup_spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

const struct sup_os *sup_os_linux(void)
{
    static const struct sup_os os = {.fork = fork, .pidfd_open = pidfd_open};
    return &os;
}

/* ------------------------------------------------------------ in the child */

/* What systemd meant for this process alone. */
static void clean_environment(void)
{
    static const char *const ours[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                       "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        unsetenv(ours[i]);
}

static void set_number(const char *name, int64_t value)
{
    struct buf text = {0};
    buf_printf(&text, "%lld", (long long)value);
    setenv(name, buf_cstr(&text), 1);
    buf_free(&text);
}

static void set_environment(const struct sup_program *program, pid_t parent)
{
    clean_environment();
    setenv("NOTIFY_SOCKET", program->notify_socket, 1);
    set_number("SHANGHAI_PARENT_PID", parent);
    if (program->watchdog_ns > 0)
        set_number("WATCHDOG_USEC", program->watchdog_ns / NS_PER_US);
}

static void reset_signals(void)
{
    sigset_t none;
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL); /* fails for SIGKILL and SIGSTOP, which have nothing else */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static bool arrange_descriptors(int output)
{
    int null = open("/dev/null", O_RDONLY);
    return null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
           dup2(output, STDERR_FILENO) >= 0 && close_range(3, ~0U, 0) == 0;
}

static bool is_missing(int error)
{
    return error == ENOENT || error == ENOTDIR || error == EACCES || error == ENOEXEC || error == EISDIR;
}

static _Noreturn void run_child(const struct sup_program *program, pid_t parent, int output)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(EXIT_FAULT); /* the parent died in between: nobody is left to tell */
    setsid();              /* Ctrl-C on the terminal is for the supervisor, which stops us in order */
    reset_signals();
    set_environment(program, parent);
    if (arrange_descriptors(output))
        execv(program->path, (char *const *)program->arguments);
    int error = errno;
    log_error("could not execute a service", log_text("program", program->path),
              log_text("error", strerror(error)));
    _exit(is_missing(error) ? EXIT_CONFIG : EXIT_FAULT);
}

/* ------------------------------------------------------------ in the parent */

static void give_up_child(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int sup_spawn(const struct sup_os *os, const struct sup_program *program, struct sup_process *out)
{
    int ends[2];
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    pid_t pid = os->fork();
    int error = errno;
    if (pid == 0)
        run_child(program, parent, ends[1]);
    close(ends[1]);
    int pidfd = pid < 0 ? -1 : os->pidfd_open(pid, 0);
    if (pidfd < 0) {
        error = pid < 0 ? error : errno;
        close(ends[0]);
        if (pid > 0)
            give_up_child(pid);
        return error;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK); /* of the reading end's own description: the child's end blocks */
    *out = (struct sup_process){.pid = pid, .pidfd = pidfd, .output = ends[0]};
    return 0;
}

struct sup_exit sup_reap(const struct sup_process *process)
{
    siginfo_t info = {0};
    int failed;
    kill(-process->pid, SIGKILL); /* the number cannot be somebody else's: its owner isn't reaped yet */
    do
        failed = waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED);
    while (failed != 0 && errno == EINTR);
    assert(failed == 0);
    close(process->pidfd);
    return (struct sup_exit){
        .signalled = info.si_code != CLD_EXITED, .core = info.si_code == CLD_DUMPED, .code = info.si_status};
}
