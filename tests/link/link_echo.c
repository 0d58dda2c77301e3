/* A far end to be killed: a link server that knows nothing but echo, and ends with its parent.
 *
 * link_echo [-c CLUSTER] ENDPOINT...: prints "ready" once it listens. A request of type `read` is answered
 * with read.max_bytes of zeros, so that a test can make large answers. On SIGUSR1 it prints what the server
 * holds. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "link.h"
#include "log.h"

struct echo {
    struct loop *loop;
    struct link_server *server;
    struct loop_fd signals;
};

static void answer_read(struct echo *echo, const struct link_request *request)
{
    struct msg_read read;
    struct buf body = {0};
    if (msg_decode(MSG_read, request->body, &read) != SH_OK || read.max_bytes > 8 << 20) {
        link_server_refuse(echo->server, request->token, &(struct msg_error){.code = SH_BAD_REQUEST});
        return;
    }
    uint8_t *zeros = xcalloc(read.max_bytes, 1);
    struct msg_echo answer = {.payload = slice_of(zeros, read.max_bytes)};
    msg_encode(MSG_echo, &answer, &body);
    link_server_answer(echo->server, request->token, MSG_echo, buf_slice(&body));
    buf_free(&body);
    free(zeros);
}

static void on_request(void *arg, const struct link_request *request)
{
    struct echo *echo = arg;
    if (request->type == MSG_read)
        answer_read(echo, request);
    else if (request->type == MSG_watermark) /* never answered */
        return;
    else
        link_server_refuse(echo->server, request->token, &(struct msg_error){.code = SH_BAD_REQUEST});
}

static void on_signal(void *arg, uint32_t events)
{
    struct echo *echo = arg;
    struct signalfd_siginfo info;
    (void)events;
    if (read(echo->signals.fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (info.ssi_signo == SIGTERM)
        loop_stop(echo->loop);
    struct link_server_stats s = link_server_stats(echo->server);
    printf("{\"sessions\": %u, \"parked\": %u, \"held_bytes\": %zu, \"requests\": %llu, \"refused\": %llu, "
           "\"dropped\": %llu}\n",
           s.sessions, s.parked_polls, s.held_bytes, (unsigned long long)s.requests,
           (unsigned long long)s.refused_messages, (unsigned long long)s.dropped_sessions);
    fflush(stdout);
}

static void watch_signals(struct echo *echo)
{
    sigset_t set, all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    echo->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_CLOEXEC), .fn = on_signal, .arg = echo};
    loop_fd_add(echo->loop, &echo->signals, EPOLLIN);
}

int main(int argc, char **argv)
{
    struct echo echo = {0};
    struct link_server_options options = {.limits = link_server_default_limits(), .boot = id16_random()};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    log_setup("link_echo", "test");
    int opt;
    while ((opt = getopt(argc, argv, "c:")) != -1) {
        if (opt != 'c')
            return 2;
        options.cluster = slice_of(optarg, 8);
    }
    echo.loop = loop_open();
    watch_signals(&echo);
    options.loop = echo.loop;
    options.node = slice_str("n1");
    options.on_request = on_request;
    options.arg = &echo;
    echo.server = link_server_open(&options);
    for (int i = optind; i < argc; i++)
        if (link_server_listen(echo.server, argv[i]) != SH_OK)
            return 1;
    printf("ready\n");
    fflush(stdout);
    loop_run(echo.loop);
    link_server_close(echo.server);
    loop_fd_remove(echo.loop, &echo.signals);
    close(echo.signals.fd);
    loop_close(echo.loop);
    return 0;
}
