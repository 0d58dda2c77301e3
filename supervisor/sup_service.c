/* Birth, signs of life, and death of one service. Whatever a service does, nothing here is fatal to the
 * supervisor. */
#include "sup_service.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "service.h"
#include "sup_notify.h"

enum { NOTICES_PER_TURN = 64, OUTPUT_CHUNK = 16 << 10, CHUNKS_PER_TURN = 4, CHUNKS_AFTER_DEATH = 64 };

static void tell(struct sup_service *s, enum sup_event_kind kind, struct sup_exit exit)
{
    s->setting->on_event(s->setting->arg, &(struct sup_event){kind, s->node, exit});
}

/* ------------------------------------------------------------ notices */

/* Once in each life: it may repeat without end. */
static void tell_stranger(struct sup_service *s, pid_t sender)
{
    if (!s->stranger_told)
        log_warn("a notice that is not from the service itself is passed over",
                 log_text("service", s->spec->name), log_int("sender_pid", sender));
    s->stranger_told = true;
}

static void take_notice(struct sup_service *s, const struct sup_notice *notice)
{
    if (notice->has_status)
        memcpy(s->status, notice->status, sizeof s->status);
    if (notice->ready)
        tell(s, SUP_READY, (struct sup_exit){0});
    if (notice->watchdog)
        tell(s, SUP_PING, (struct sup_exit){0});
}

void sup_service_listen(struct sup_service *s)
{
    struct sup_notice notice;
    for (int i = 0; i < NOTICES_PER_TURN && sup_notify_receive(s->notify.fd, &notice); i++) {
        if (s->alive && notice.sender == s->process.pid)
            take_notice(s, &notice);
        else
            tell_stranger(s, notice.sender);
    }
}

static void on_notice(void *arg, uint32_t events)
{
    (void)events;
    sup_service_listen(arg);
}

/* ------------------------------------------------------------ output */

static void close_output(struct sup_service *s)
{
    if (s->output.fd < 0)
        return;
    loop_fd_remove(s->setting->loop, &s->output);
    close(s->output.fd);
    s->output.fd = -1;
}

/* Until the pipe is empty, for so many chunks at most: somebody who writes without end must not keep us. */
static void read_output(struct sup_service *s, int chunks)
{
    char data[OUTPUT_CHUNK];
    for (int i = 0; i < chunks && s->output.fd >= 0; i++) {
        ssize_t n = read(s->output.fd, data, sizeof data);
        if (n < 0)
            return;
        if (n == 0)
            close_output(s);
        sup_output_feed(&s->lines, data, (size_t)n);
    }
}

static void on_output(void *arg, uint32_t events)
{
    (void)events;
    read_output(arg, CHUNKS_PER_TURN);
}

/* ------------------------------------------------------------ death */

/* What it has said before its end counts, and is quoted. */
static void on_death(void *arg, uint32_t events)
{
    struct sup_service *s = arg;
    (void)events;
    sup_service_listen(s);
    loop_fd_remove(s->setting->loop, &s->death);
    struct sup_exit exit = sup_reap(&s->process);
    read_output(s, CHUNKS_AFTER_DEATH);
    close_output(s);
    sup_output_end(&s->lines);
    s->alive = false;
    tell(s, SUP_EXITED, exit);
}

void sup_service_obituary(const struct sup_service *s, const struct sup_action *death, int64_t now_ns,
                          struct buf *out)
{
    struct sup_obituary obituary = {.service = s->spec->name,
                                    .time_ns = clock_real_ns(),
                                    .pid = s->process.pid,
                                    .cause = death->cause,
                                    .exit = death->exit,
                                    .uptime_ns = now_ns - s->born_ns,
                                    .restarts = death->restarts,
                                    .output = &s->lines};
    sup_obituary_encode(&obituary, out);
}

/* ------------------------------------------------------------ birth */

static void program_path(const struct sup_service *s, struct buf *out)
{
    if (s->spec->program[0] == '/')
        buf_append_str(out, s->spec->program);
    else
        buf_printf(out, "%s/%s", s->setting->program_dir, s->spec->program);
}

static int spawn(struct sup_service *s, const char *path)
{
    const char *const arguments[] = {path,     "--config",          s->setting->config_file,
                                     "--node", s->setting->node_id, NULL};
    const struct sup_program program = {.path = path,
                                        .arguments = arguments,
                                        .notify_socket = s->notify_path,
                                        .watchdog_ns = s->spec->watchdog_ns};
    return sup_spawn(s->setting->os, &program, &s->process);
}

int sup_service_spawn(struct sup_service *s)
{
    struct buf path = {0};
    assert(!s->alive);
    program_path(s, &path);
    int error = spawn(s, buf_cstr(&path));
    buf_free(&path);
    if (error != 0)
        return error;
    s->alive = true;
    s->stranger_told = false;
    s->status[0] = 0;
    s->born_ns = clock_mono_ns();
    sup_output_begin(&s->lines);
    s->death.fd = s->process.pidfd;
    s->output.fd = s->process.output;
    loop_fd_add(s->setting->loop, &s->death, EPOLLIN);
    loop_fd_add(s->setting->loop, &s->output, EPOLLIN);
    return 0;
}

void sup_service_kill(struct sup_service *s, int signal)
{
    if (s->alive) /* it fails when the process has just ended: then its death is on its way */
        pidfd_send_signal(s->process.pidfd, signal, NULL, 0);
}

bool sup_service_set_log_level(struct sup_service *s, enum log_level level)
{
    siginfo_t info = {.si_signo = SERVICE_LEVEL_SIGNAL, .si_code = SI_QUEUE};
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = (int)level;
    return s->alive && pidfd_send_signal(s->process.pidfd, SERVICE_LEVEL_SIGNAL, &info, 0) == 0;
}

bool sup_service_open(struct sup_service *s, const struct sup_setting *setting, const struct tree_node *spec,
                      int node)
{
    *s = (struct sup_service){.setting = setting, .spec = spec, .node = node};
    /* Not its name: that could be longer than a socket's path allows. */
    snprintf(s->notify_path, sizeof s->notify_path, "%s/notify.%d", setting->run_dir, node);
    s->death = (struct loop_fd){.fd = -1, .fn = on_death, .arg = s};
    s->output = (struct loop_fd){.fd = -1, .fn = on_output, .arg = s};
    s->notify = (struct loop_fd){.fd = sup_notify_open(s->notify_path), .fn = on_notice, .arg = s};
    if (s->notify.fd < 0) {
        log_error("a notify socket cannot be opened", log_text("socket", s->notify_path),
                  log_text("error", strerror(errno)));
        return false;
    }
    loop_fd_add(setting->loop, &s->notify, EPOLLIN);
    sup_output_open(&s->lines, setting->log_dir, spec->name);
    return true;
}

void sup_service_close(struct sup_service *s)
{
    assert(!s->alive);
    loop_fd_remove(s->setting->loop, &s->notify);
    close(s->notify.fd);
    unlink(s->notify_path);
    sup_output_close(&s->lines);
}
