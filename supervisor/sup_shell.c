/* The shell around the core: one loop over signals, pidfds, notify sockets, the services' output, the control
 * socket.
 *
 * Each event becomes one step of the core. Its actions are done in a fixed order: obituaries are put together
 * (they quote the life that ended), then signals and new processes, so that a restart waits for nothing, then
 * files, logs and systemd. What fails while the node comes up ends the process with a code; later only the
 * core ends it. */
#include "sup_shell_state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "notify.h"
#include "sup_dirs.h"

/* ------------------------------------------------------------ actions */

/* One event is one death at most. */
static void encode_obituary(struct sup_shell *shell, const struct sup_actions *actions, struct buf *out)
{
    for (unsigned i = 0; i < actions->count; i++) {
        const struct sup_action *a = &actions->list[i];
        if (a->kind == SUP_DO_OBITUARY)
            sup_service_obituary(&shell->services[a->node], a, clock_mono_ns(), out);
    }
}

static void spawn(struct sup_shell *shell, int node)
{
    struct sup_service *s = &shell->services[node];
    int error = sup_service_spawn(s);
    if (error == 0)
        return;
    log_error("a service could not be spawned", log_text("service", s->spec->name),
              log_text("error", strerror(error)));
    shell->failed[shell->failed_count++] = node;
}

static void act(struct sup_shell *shell, const struct sup_action *a)
{
    if (a->kind == SUP_DO_SPAWN)
        spawn(shell, a->node);
    else if (a->kind == SUP_DO_KILL)
        sup_service_kill(&shell->services[a->node], a->signal);
}

/* ------------------------------------------------------------ what people hear of it */

static void log_note(struct sup_shell *shell, const struct sup_action *a)
{
    const struct sup_service *s = &shell->services[a->node];
    char cause[SUP_EXIT_TEXT];
    bool bad = a->state == SUP_BACKOFF || a->state == SUP_HELD || a->state == SUP_FAILED;
    const char *text = a->state == SUP_RUNNING ? "" : sup_exit_text(a->cause, &a->exit, cause);
    log_for(bad ? LOG_WARN : LOG_INFO, 0, "state",
            log_text("name", sup_core_view(shell->core, a->node).spec->name),
            log_text("from", sup_state_name(a->before)), log_text("to", sup_state_name(a->state)),
            log_text("last_exit", text), log_int("service_pid", s->alive ? s->process.pid : 0));
}

static void log_death(const struct sup_service *s, const struct sup_action *a)
{
    char cause[SUP_EXIT_TEXT];
    log_warn("death", log_text("name", s->spec->name),
             log_text("cause", sup_exit_text(a->cause, &a->exit, cause)),
             log_text("core", a->exit.core ? "dumped" : "none"), log_uint("restarts", a->restarts));
}

static void tell_systemd(struct sup_shell *shell)
{
    char summary[SUP_STATUS_MAX + 1], notice[SUP_STATUS_MAX + 16];
    enum sup_state root = sup_core_view(shell->core, 0).state;
    sup_summary(shell->core, summary);
    if (strcmp(summary, shell->summary) != 0) {
        snprintf(notice, sizeof notice, "STATUS=%s", summary);
        notify_try(notice);
    }
    memcpy(shell->summary, summary, sizeof summary);
    if (root == SUP_RUNNING && !shell->up) {
        shell->up = true;
        log_info("ready", log_text("version", SHANGHAI_VERSION));
        sd_notify(0, "READY=1");
    }
    if (root == SUP_STOPPING)
        sd_notify(0, "STOPPING=1");
}

static void end(struct sup_shell *shell, enum service_exit code)
{
    if (code == EXIT_GAVE_UP)
        log_error("the node gives up: a service failed to start, or was restarted too often");
    shell->code = code;
    loop_stop(shell->loop);
}

static void tell_people(struct sup_shell *shell, const struct sup_actions *actions, struct slice obituary)
{
    bool moved = false;
    for (unsigned i = 0; i < actions->count; i++) {
        const struct sup_action *a = &actions->list[i];
        const struct sup_service *s = &shell->services[a->node];
        if (a->kind == SUP_DO_NOTE) {
            log_note(shell, a);
        } else if (a->kind == SUP_DO_OBITUARY) {
            log_death(s, a);
            sup_obituary_write(shell->obituary_dir, s->spec->name, clock_real_ns(), obituary);
        } else if (a->kind == SUP_DO_EXIT) {
            end(shell, a->code);
        }
        moved |= a->kind == SUP_DO_NOTE;
    }
    if (moved)
        tell_systemd(shell);
}

/* ------------------------------------------------------------ steps */

static enum sh_error step_once(struct sup_shell *shell, const struct sup_event *event, const char **text)
{
    const struct sup_actions *actions = sup_core_step(shell->core, event, clock_mono_ns(), random_u64());
    struct buf obituary = {0};
    encode_obituary(shell, actions, &obituary);
    for (unsigned i = 0; i < actions->count; i++)
        act(shell, &actions->list[i]);
    tell_people(shell, actions, buf_slice(&obituary));
    buf_free(&obituary);
    if (text != NULL)
        *text = actions->text;
    return actions->result;
}

static void set_tick(struct sup_shell *shell)
{
    int64_t due_ns = sup_core_deadline(shell->core);
    if (due_ns == INT64_MAX)
        loop_timer_cancel(shell->loop, &shell->tick);
    else
        loop_timer_set(shell->loop, &shell->tick, due_ns);
}

enum sh_error sup_shell_step(struct sup_shell *shell, const struct sup_event *event, const char **text)
{
    enum sh_error error = step_once(shell, event, text);
    while (shell->failed_count > 0) {
        int node = shell->failed[--shell->failed_count];
        step_once(shell, &(struct sup_event){.kind = SUP_SPAWN_FAILED, .node = node}, NULL);
    }
    set_tick(shell);
    return error;
}

static void step(struct sup_shell *shell, enum sup_event_kind kind)
{
    sup_shell_step(shell, &(struct sup_event){.kind = kind}, NULL);
}

static void on_service_event(void *shell, const struct sup_event *event)
{
    sup_shell_step(shell, event, NULL);
}

/* Nobody is called hung whose sign of life waits in a socket. */
static void on_tick(void *arg)
{
    struct sup_shell *shell = arg;
    for (size_t i = 0; i < shell->config.tree_count; i++)
        if (shell->config.tree[i].kind == TREE_SERVICE)
            sup_service_listen(&shell->services[i]);
    step(shell, SUP_TICK);
}

/* Starting and stopping may take what the topology says: systemd's own timeouts are for a supervisor that
 * hangs. */
static void on_ping(void *arg)
{
    struct sup_shell *shell = arg;
    char notice[80] = "WATCHDOG=1";
    if (sup_core_view(shell->core, 0).state != SUP_RUNNING)
        snprintf(notice, sizeof notice, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=%lld",
                 (long long)(4 * shell->ping_ns / NS_PER_US));
    notify_try(notice);
    loop_timer_after(shell->loop, &shell->ping, shell->ping_ns);
}

/* ------------------------------------------------------------ configuration and signals */

static bool take_over(struct sup_shell *shell, struct buf *text)
{
    struct config fresh;
    struct buf errors = {0}, ignored = {0};
    if (!config_load(shell->options->config_file, shell->options->node, &fresh, &errors)) {
        log_error("the configuration has errors and is not taken over",
                  log_slice("errors", buf_slice(&errors)));
        buf_append(text, errors.data, errors.len);
        buf_free(&errors);
        return false;
    }
    config_reload(&shell->config, &fresh, &ignored);
    config_free(&fresh);
    log_set_level((enum log_level)shell->config.settings.log_level);
    log_info("configuration reloaded", log_slice("needs_restart", buf_slice(&ignored)));
    buf_append_str(text, "configuration reloaded");
    if (ignored.len > 0)
        buf_printf(text, "; these changes need a restart: %s", buf_cstr(&ignored));
    buf_free(&errors);
    buf_free(&ignored);
    return true;
}

bool sup_shell_reload(struct sup_shell *shell, struct buf *text)
{
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)(clock_mono_ns() / NS_PER_US));
    bool good = take_over(shell, text);
    if (good)
        step(shell, SUP_RELOAD);
    if (shell->up)
        sd_notify(0, "READY=1");
    return good;
}

static void on_signal(void *arg, uint32_t events)
{
    struct sup_shell *shell = arg;
    struct signalfd_siginfo info;
    (void)events;
    while (read(shell->signals.fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            struct buf unused = {0};
            sup_shell_reload(shell, &unused);
            buf_free(&unused);
        } else {
            log_info("asked to stop", log_uint("signal", info.ssi_signo),
                     log_uint("sender_pid", info.ssi_pid));
            step(shell, SUP_SHUTDOWN);
        }
    }
}

static bool watch_signals(struct sup_shell *shell)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* ignored, as it may be inherited, nobody could be waited for */
    sigprocmask(SIG_SETMASK, &set, NULL);
    shell->signals =
        (struct loop_fd){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .fn = on_signal, .arg = shell};
    if (shell->signals.fd < 0) {
        log_error("signalfd failed", log_text("error", strerror(errno)));
        return false;
    }
    loop_fd_add(shell->loop, &shell->signals, EPOLLIN);
    return true;
}

/* ------------------------------------------------------------ coming up */

/* Descriptors 0, 1 and 2 must be something, or a socket of ours takes their place. */
static void fill_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    close(fd);
}

static enum service_exit load_config(struct sup_shell *shell)
{
    struct buf errors = {0};
    bool good = config_load(shell->options->config_file, shell->options->node, &shell->config, &errors);
    if (!good)
        fwrite(errors.data, 1, errors.len, stderr);
    else
        log_set_level((enum log_level)shell->config.settings.log_level);
    buf_free(&errors);
    return good ? EXIT_DONE : EXIT_CONFIG;
}

static bool find_program_dir(struct sup_shell *shell)
{
    ssize_t n = readlink("/proc/self/exe", shell->program_dir, sizeof shell->program_dir - 1);
    char *slash = NULL;
    if (n > 0) {
        shell->program_dir[n] = 0;
        slash = strrchr(shell->program_dir, '/');
    }
    if (slash == NULL)
        log_error("the own program cannot be found in /proc");
    else
        *slash = 0;
    return slash != NULL;
}

static enum service_exit take_directories(struct sup_shell *shell)
{
    const struct config *c = &shell->config;
    snprintf(shell->log_dir, sizeof shell->log_dir, "%s/log", c->run_dir);
    snprintf(shell->obituary_dir, sizeof shell->obituary_dir, "%s/obituaries", c->data_dir);
    snprintf(shell->control_path, sizeof shell->control_path, "%s/supervisor.sock", c->run_dir);
    enum service_exit code = sup_lock_dir(c->data_dir, &shell->data_lock);
    if (code != EXIT_DONE)
        return code;
    code = sup_lock_dir(c->run_dir, &shell->run_lock);
    if (code == EXIT_DONE && sup_make_dir(shell->log_dir) && sup_make_dir(shell->obituary_dir))
        return EXIT_DONE;
    close(shell->data_lock);
    if (code == EXIT_DONE)
        close(shell->run_lock);
    return code == EXIT_DONE ? EXIT_FAULT : code;
}

static bool open_control(struct sup_shell *shell)
{
    struct sup_control_options options = {
        .loop = shell->loop,
        .path = shell->control_path,
        .cluster = slice_of(shell->config.cluster_id, sizeof shell->config.cluster_id),
        .node = shell->config.self->id,
        .on_command = sup_on_command,
        .arg = shell};
    shell->control = sup_control_open(&options);
    if (shell->control == NULL)
        log_error("the control socket cannot be opened", log_text("socket", shell->control_path),
                  log_text("error", strerror(errno)));
    return shell->control != NULL;
}

static bool open_services(struct sup_shell *shell)
{
    const struct config *c = &shell->config;
    shell->setting = (struct sup_setting){.loop = shell->loop,
                                          .os = shell->options->os,
                                          .config_file = shell->options->config_file,
                                          .node_id = c->self->id,
                                          .run_dir = c->run_dir,
                                          .log_dir = shell->log_dir,
                                          .program_dir = shell->program_dir,
                                          .on_event = on_service_event,
                                          .arg = shell};
    shell->services = xcalloc(c->tree_count, sizeof *shell->services);
    for (size_t i = 0; i < c->tree_count; i++)
        if (c->tree[i].kind == TREE_SERVICE &&
            !sup_service_open(&shell->services[i], &shell->setting, &c->tree[i], (int)i))
            return false;
    return true;
}

static void start_timers(struct sup_shell *shell)
{
    uint64_t watchdog_us = 0;
    shell->tick = (struct loop_timer){.fn = on_tick, .arg = shell};
    shell->ping = (struct loop_timer){.fn = on_ping, .arg = shell};
    if (sd_watchdog_enabled(0, &watchdog_us) > 0) {
        shell->ping_ns = (int64_t)watchdog_us * NS_PER_US / 2;
        loop_timer_after(shell->loop, &shell->ping, 0);
    }
}

/* ------------------------------------------------------------ the whole life */

static void run_tree(struct sup_shell *shell)
{
    shell->core = sup_core_open(shell->config.tree, shell->config.tree_count, shell->config.backoff);
    start_timers(shell);
    log_info("starting", log_text("version", SHANGHAI_VERSION), log_text("data_dir", shell->config.data_dir));
    step(shell, SUP_START);
    loop_run(shell->loop);
    log_info("stopped", log_int("code", shell->code));
    loop_timer_cancel(shell->loop, &shell->tick);
    loop_timer_cancel(shell->loop, &shell->ping);
    sup_core_close(shell->core);
}

static enum service_exit run(struct sup_shell *shell)
{
    shell->loop = loop_open();
    shell->code = EXIT_FAULT;
    if (watch_signals(shell) && open_control(shell) && open_services(shell))
        run_tree(shell);
    for (size_t i = 0; shell->services != NULL && i < shell->config.tree_count; i++)
        if (shell->services[i].notify.fn != NULL && shell->services[i].notify.fd >= 0)
            sup_service_close(&shell->services[i]);
    free(shell->services);
    if (shell->control != NULL)
        sup_control_close(shell->control);
    if (shell->signals.fd >= 0) {
        loop_fd_remove(shell->loop, &shell->signals);
        close(shell->signals.fd);
    }
    loop_close(shell->loop);
    return shell->code;
}

enum service_exit sup_shell_run(const struct sup_options *options)
{
    struct sup_shell shell = {.options = options, .code = EXIT_FAULT};
    fill_standard_descriptors();
    sup_output_unblock_stderr();
    log_setup("shanghaid", options->node);
    enum service_exit code = load_config(&shell);
    if (code != EXIT_DONE)
        return code;
    code = find_program_dir(&shell) ? take_directories(&shell) : EXIT_FAULT;
    if (code == EXIT_DONE) {
        code = run(&shell);
        close(shell.run_lock);
        close(shell.data_lock);
    }
    config_free(&shell.config);
    return code;
}
