/* The skeleton of every daemon: what comes before and after its own work. Fatal: a wrong configuration
 * (EXIT_CONFIG), a failed open (its own code), a self-ping that stays unanswered (EXIT_FAULT). */
#include "service.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "descriptors.h"
#include "heap.h"
#include "log.h"
#include "nng_start.h"
#include "notify.h"
#include "self_ping.h"
#include "telemetry_push.h"

enum {
    TICKS_PER_WATCHDOG = 4,
    DESCRIPTORS_PER_CLIENT = 4, /* two connections, and two fresh ones beside them when they are replaced */
};

/* A running service and what the skeleton keeps beside it. */
struct skeleton {
    struct service service;
    const struct service_type *type;
    const char *config_file, *node;
    struct config config;
    struct loop_fd signals;
    int64_t tick_ns; /* of the watchdog */
    struct loop_timer tick;
    struct self_ping *ping; /* NULL: none */
};

/* ------------------------------------------------------------ arguments */

static void print_help(const struct service_type *type)
{
    printf("usage: %s --config FILE --node ID\n"
           "       %s --help | --version\n"
           "\n"
           "%s: %s.\n"
           "It is started by shanghaid, and can be run alone.\n"
           "\n"
           "  --config FILE   topology file, the same on every node\n"
           "  --node ID       which of its nodes this is\n"
           "\n"
           "Signals: SIGTERM and SIGINT stop cleanly, SIGHUP takes over reloadable settings, SIGURG with a\n"
           "value (see shanghaictl svc log-level) sets the level of log lines.\n"
           "\n"
           "Environment:\n"
           "  NOTIFY_SOCKET         where to tell READY=1, STATUS= and WATCHDOG=1 (sd_notify protocol)\n"
           "  WATCHDOG_USEC         time after which silence means that the service hangs\n"
           "  SHANGHAI_PARENT_PID   process id of the parent, with which the service dies\n"
           "\n"
           "Exit codes:\n"
           "  %d   stopped cleanly\n"
           "  %d   failed\n"
           "  %d   wrong usage\n"
           "  %d  another process holds the directory\n"
           "  %d  wrong configuration\n",
           type->name, type->name, type->name, type->summary, EXIT_DONE, EXIT_FAULT, EXIT_BAD_USAGE,
           EXIT_IN_USE, EXIT_CONFIG);
}

static int usage_error(const struct service_type *type, const char *problem)
{
    fprintf(stderr, "%s: %s; see %s --help\n", type->name, problem, type->name);
    return EXIT_BAD_USAGE;
}

/* -1: go on; anything else is the exit code. */
static int read_arguments(struct skeleton *s, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"node", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {0}};
    int option;
    while ((option = getopt_long(argc, argv, "c:n:hV", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            s->config_file = optarg;
            break;
        case 'n':
            s->node = optarg;
            break;
        case 'h':
            print_help(s->type);
            return EXIT_DONE;
        case 'V':
            printf("%s %s\n", s->type->name, SHANGHAI_VERSION);
            return EXIT_DONE;
        default: /* getopt has said what is wrong */
            return EXIT_BAD_USAGE;
        }
    }
    if (optind < argc)
        return usage_error(s->type, "it takes no arguments besides options");
    if (s->config_file == NULL || s->node == NULL)
        return usage_error(s->type, "--config and --node are needed");
    return -1;
}

/* ------------------------------------------------------------ the process */

/* Dies with the parent that is named, also when that one died before this call. */
static bool bind_to_parent(void)
{
    const char *text = getenv("SHANGHAI_PARENT_PID");
    if (text == NULL)
        return true;
    char *end;
    long parent = strtol(text, &end, 10);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || *end != 0 || getppid() != parent) {
        log_error("the parent named by SHANGHAI_PARENT_PID is gone", log_text("parent", text));
        return false;
    }
    return true;
}

/* Blocks all signals but those that mean a fault of this process or ask it for a core; threads inherit that.
 */
static void block_signals(void)
{
    static const int open[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGQUIT};
    sigset_t set;
    sigfillset(&set);
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
        sigdelset(&set, open[i]);
    sigprocmask(SIG_SETMASK, &set, NULL);
}

static void print_lines(const struct buf *lines)
{
    fwrite(lines->data, 1, lines->len, stderr);
}

static bool load_config(struct skeleton *s)
{
    struct buf errors = {0};
    bool good = config_load(s->config_file, s->node, &s->config, &errors);
    if (!good)
        print_lines(&errors);
    buf_free(&errors);
    return good;
}

/* ------------------------------------------------------------ signals */

/* It takes a socket each time. */
static void notify(const char *line)
{
    descriptors_lift();
    sd_notify(0, line);
    descriptors_lower();
}

void service_stop(struct service *service, enum service_exit code)
{
    if (!service->stopping)
        service->code = code;
    service->stopping = true;
    loop_stop(service->loop);
}

void service_status(const char *text)
{
    char notice[256];
    snprintf(notice, sizeof notice, "STATUS=%.200s", text);
    notify_try(notice);
}

/* A file with errors changes nothing. */
static void reload(struct skeleton *s)
{
    struct config fresh;
    struct buf errors = {0}, ignored = {0};
    if (!config_load(s->config_file, s->node, &fresh, &errors)) {
        log_error("the configuration has errors and is not taken over",
                  log_slice("errors", buf_slice(&errors)));
    } else {
        config_reload(&s->config, &fresh, &ignored);
        config_free(&fresh);
        log_set_level((enum log_level)s->config.settings.log_level);
        if (s->type->reload != NULL)
            s->type->reload(&s->service);
        log_info("configuration reloaded", log_slice("needs_restart", buf_slice(&ignored)));
    }
    buf_free(&errors);
    buf_free(&ignored);
}

static void set_level(const struct signalfd_siginfo *info)
{
    if (info->ssi_code != SI_QUEUE || info->ssi_int < LOG_DEBUG || info->ssi_int > LOG_ERROR)
        return;
    enum log_level level = (enum log_level)info->ssi_int;
    bool hides = level > LOG_INFO; /* this line, too: it comes before */
    if (!hides)
        log_set_level(level);
    log_info("the level of log lines is set", log_text("to", log_level_name(level)));
    log_set_level(level);
}

static void on_signal(void *arg, uint32_t events)
{
    struct skeleton *s = arg;
    struct signalfd_siginfo info;
    (void)events;
    while (read(s->signals.fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            reload(s);
        } else if (info.ssi_signo == SERVICE_LEVEL_SIGNAL) {
            set_level(&info);
        } else {
            log_info("asked to stop", log_uint("signal", info.ssi_signo));
            service_stop(&s->service, EXIT_DONE);
        }
    }
}

static void watch_signals(struct skeleton *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SERVICE_LEVEL_SIGNAL);
    s->signals =
        (struct loop_fd){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .fn = on_signal, .arg = s};
    if (s->signals.fd < 0) {
        log_error("signalfd failed", log_text("error", strerror(errno)));
        abort();
    }
    loop_fd_add(s->service.loop, &s->signals, EPOLLIN);
}

/* ------------------------------------------------------------ the watchdog */

static void on_tick(void *arg)
{
    struct skeleton *s = arg;
    loop_timer_after(s->service.loop, &s->tick, s->tick_ns);
    notify_try("WATCHDOG=1");
}

static void on_dead_link(const char *endpoint)
{
    log_error("the own link is dead, ending to get a fresh one", log_text("endpoint", endpoint));
    _exit(EXIT_FAULT); /* a clean stop would wait for what is dead */
}

static void start_watchdog(struct skeleton *s)
{
    const char *endpoint = s->type->ping == NULL ? NULL : s->type->ping(&s->service);
    uint64_t watchdog_us = 0;
    if (sd_watchdog_enabled(0, &watchdog_us) <= 0)
        return;
    s->tick_ns = (int64_t)watchdog_us * NS_PER_US / TICKS_PER_WATCHDOG;
    s->tick = (struct loop_timer){.fn = on_tick, .arg = s};
    loop_timer_after(s->service.loop, &s->tick, s->tick_ns);
    if (endpoint != NULL)
        s->ping = self_ping_open(s->service.loop, endpoint, s->service.cluster, slice_str(s->config.self->id),
                                 s->service.boot, on_dead_link);
}

static void stop_watchdog(struct skeleton *s)
{
    loop_timer_cancel(s->service.loop, &s->tick);
    if (s->ping != NULL)
        self_ping_close(s->ping);
}

/* ------------------------------------------------------------ the whole life */

static enum service_exit run(struct skeleton *s)
{
    struct service *service = &s->service;
    service->loop = loop_open();
    service->config = &s->config;
    service->boot = id16_random();
    service->cluster = slice_of(s->config.cluster_id, sizeof s->config.cluster_id);
    watch_signals(s);
    enum service_exit code = s->type->open(service);
    if (code == EXIT_DONE) {
        start_watchdog(s);
        telemetry_push_open(service, s->type->name);
        log_info("ready", log_text("version", SHANGHAI_VERSION));
        notify("READY=1");
        loop_run(service->loop);
        notify_try("STOPPING=1");
        stop_watchdog(s);
        telemetry_push_close();
        s->type->close(service);
        code = service->code;
        log_info("stopped", log_int("code", code));
    }
    loop_fd_remove(service->loop, &s->signals);
    close(s->signals.fd);
    loop_close(service->loop);
    return code;
}

int service_main(int argc, char **argv, const struct service_type *type)
{
    struct skeleton s = {.type = type};
    telemetry_begin();
    int code = read_arguments(&s, argc, argv);
    if (code >= 0)
        return code;
    block_signals();
    heap_keep_messages();
    log_setup(type->name, s.node);
    if (!bind_to_parent())
        return EXIT_FAULT;
    if (!load_config(&s))
        return EXIT_CONFIG;
    log_set_level((enum log_level)s.config.settings.log_level);
    descriptors_limit(DESCRIPTORS_PER_CLIENT * s.config.settings.link_sessions);
    nng_start();
    code = run(&s);
    config_free(&s.config);
    return code;
}
