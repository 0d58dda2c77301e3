/* A far end for tests: a link server in a process of its own, that can be told what to do, killed, or
 * stopped.
 *
 * link_far [-i] [-c CLUSTER] [-l LIMITS] ENDPOINT...: prints "ready" once it listens, and ends with its
 * parent. Echoes are answered by the link. A `read` is answered with read.max_bytes of zeros, a `log_info` in
 * a hook of the loop that runs behind the link's own. All other requests are told on standard output and wait
 * for a command:
 *
 *   request SESSION NUMBER TYPE CORRELATION LOCAL BODY    body in hexadecimal, "-" when it is long
 *   drop SESSION                                          with all its requests
 *
 * With -i commands come on standard input, a line each, done in order:
 *
 *   answer SESSION NUMBER BYTES       with an echo of so many zeros
 *   refuse SESSION NUMBER CODE TEXT
 *   unlend SESSION NUMBER
 *   last SESSION NUMBER               answers it with an echo, once it has been told to stop
 *   listen ENDPOINT                   prints "listening ERROR"
 *   unfetched SESSION                 prints "unfetched BYTES"
 *   stats                             prints "stats" and the numbers of struct link_server_stats in its order
 *   stop                              as SIGTERM: closes the link, and ends
 *
 * LIMITS: session_requests,session_bytes,total_bytes,sessions,polls,message_bytes,idle_ms */
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "link.h"
#include "log.h"
#include "nng_start.h"

enum { LATE_MAX = 64, BODY_SHOWN_MAX = 64, ANSWER_MAX = 8 << 20 };

struct far {
    struct loop *loop;
    struct link_server *server;
    struct loop_fd signals, commands;
    struct loop_hook hook;
    struct link_token late[LATE_MAX]; /* answered by the hook */
    unsigned late_count;
    struct link_token last; /* session 0: none */
    char line[1024];        /* the beginning of a command */
    size_t line_len;
};

static void answer(struct far *far, struct link_token token, size_t size)
{
    struct buf body = {0};
    uint8_t *zeros = xcalloc(size + 1, 1);
    msg_encode(MSG_echo, &(struct msg_echo){.payload = slice_of(zeros, size)}, &body);
    link_server_answer(far->server, token, MSG_echo, buf_slice(&body));
    buf_free(&body);
    free(zeros);
}

static void refuse(struct far *far, struct link_token token, unsigned code, const char *text)
{
    struct msg_error error = {.code = code, .text = slice_str(text)};
    link_server_refuse(far->server, token, &error);
}

/* ---- the link ---- */

static void answer_late(void *arg)
{
    struct far *far = arg;
    while (far->late_count > 0)
        answer(far, far->late[--far->late_count], 1);
}

static void answer_read(struct far *far, const struct link_request *request)
{
    struct msg_read read;
    if (msg_decode(MSG_read, request->body, &read) != SH_OK || read.max_bytes > ANSWER_MAX)
        refuse(far, request->token, SH_BAD_REQUEST, "");
    else
        answer(far, request->token, read.max_bytes);
}

static void on_request(void *arg, const struct link_request *request)
{
    struct far *far = arg;
    if (request->type == MSG_read) {
        answer_read(far, request);
        return;
    }
    if (request->type == MSG_log_info && far->late_count < LATE_MAX) {
        far->late[far->late_count++] = request->token;
        return;
    }
    printf("request %" PRIu64 " %" PRIu64 " %u %" PRIu64 " %d ", request->token.session,
           request->token.number, request->type, request->correlation, request->local);
    if (request->body.len > BODY_SHOWN_MAX)
        printf("-");
    for (size_t i = 0; i < request->body.len && request->body.len <= BODY_SHOWN_MAX; i++)
        printf("%02x", request->body.data[i]);
    printf("\n");
}

static void on_drop(void *arg, uint64_t session)
{
    (void)arg;
    printf("drop %" PRIu64 "\n", session);
}

/* ---- commands ---- */

static void print_stats(struct far *far)
{
    struct link_server_stats s = link_server_stats(far->server);
    printf("stats %u %u %u %zu %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", s.sessions, s.clients,
           s.parked_polls, s.held_bytes, s.requests, s.answers, s.refused_messages, s.dropped_sessions);
}

static void obey(struct far *far, const char *line)
{
    struct link_token token;
    size_t size;
    unsigned code;
    char text[256];
    if (sscanf(line, "answer %" SCNu64 " %" SCNu64 " %zu", &token.session, &token.number, &size) == 3)
        answer(far, token, size);
    else if (sscanf(line, "refuse %" SCNu64 " %" SCNu64 " %u %255[^\n]", &token.session, &token.number, &code,
                    text) == 4)
        refuse(far, token, code, text);
    else if (sscanf(line, "unlend %" SCNu64 " %" SCNu64, &token.session, &token.number) == 2)
        link_server_unlend(far->server, token);
    else if (sscanf(line, "last %" SCNu64 " %" SCNu64, &token.session, &token.number) == 2)
        far->last = token;
    else if (sscanf(line, "listen %255s", text) == 1)
        printf("listening %u\n", link_server_listen(far->server, text));
    else if (sscanf(line, "unfetched %" SCNu64, &token.session) == 1)
        printf("unfetched %zu\n", link_server_unfetched(far->server, token.session));
    else if (strcmp(line, "stats") == 0)
        print_stats(far);
    else if (strcmp(line, "stop") == 0)
        loop_stop(far->loop);
    else
        abort();
}

static void on_commands(void *arg, uint32_t events)
{
    struct far *far = arg;
    (void)events;
    ssize_t n = read(STDIN_FILENO, far->line + far->line_len, sizeof far->line - far->line_len);
    if (n <= 0)
        _exit(1); /* who commands is gone */
    far->line_len += (size_t)n;
    char *end;
    while ((end = memchr(far->line, '\n', far->line_len)) != NULL) {
        size_t len = (size_t)(end - far->line) + 1;
        *end = 0;
        obey(far, far->line);
        far->line_len -= len;
        memmove(far->line, far->line + len, far->line_len);
    }
    assert(far->line_len < sizeof far->line);
}

/* ---- the process ---- */

static void on_signal(void *arg, uint32_t events)
{
    struct far *far = arg;
    struct signalfd_siginfo info;
    (void)events;
    if (read(far->signals.fd, &info, sizeof info) == (ssize_t)sizeof info)
        loop_stop(far->loop);
}

static void watch_signals(struct far *far)
{
    sigset_t set, all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    far->signals = (struct loop_fd){.fd = signalfd(-1, &set, SFD_CLOEXEC), .fn = on_signal, .arg = far};
    loop_fd_add(far->loop, &far->signals, EPOLLIN);
}

static bool parse_limits(const char *text, struct link_server_limits *l)
{
    unsigned idle_ms;
    int n = sscanf(text, "%u,%zu,%zu,%u,%u,%zu,%u", &l->session_requests, &l->session_bytes, &l->total_bytes,
                   &l->sessions, &l->polls, &l->message_bytes, &idle_ms);
    l->session_idle_ns = idle_ms * (int64_t)NS_PER_MS;
    return n == 7;
}

static bool parse(struct link_server_options *options, bool *commanded, int argc, char **argv)
{
    int opt;
    while ((opt = getopt(argc, argv, "ic:l:")) != -1) {
        if (opt == 'i')
            *commanded = true;
        else if (opt == 'c')
            options->cluster = slice_str(optarg);
        else if (opt != 'l' || !parse_limits(optarg, &options->limits))
            return false;
    }
    return true;
}

static void close_far(struct far *far, bool commanded)
{
    if (far->last.session != 0)
        answer(far, far->last, 1);
    link_server_close(far->server);
    if (commanded)
        loop_fd_remove(far->loop, &far->commands);
    loop_hook_remove(far->loop, &far->hook);
    loop_fd_remove(far->loop, &far->signals);
    close(far->signals.fd);
    loop_close(far->loop);
}

int main(int argc, char **argv)
{
    struct far far = {0};
    bool commanded = false;
    struct link_server_options options = {.limits = link_server_default_limits(), .boot = id16_random()};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    log_setup("link_far", "test");
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (!parse(&options, &commanded, argc, argv))
        return 2;
    nng_start();
    far.loop = loop_open();
    watch_signals(&far);
    options.loop = far.loop;
    options.node = slice_str("n1");
    options.on_request = on_request;
    options.on_drop = on_drop;
    options.arg = &far;
    far.server = link_server_open(&options);
    far.hook = (struct loop_hook){.fn = answer_late, .arg = &far};
    loop_hook_add(far.loop, &far.hook);
    for (int i = optind; i < argc; i++)
        if (link_server_listen(far.server, argv[i]) != SH_OK)
            return 1;
    far.commands = (struct loop_fd){.fd = STDIN_FILENO, .fn = on_commands, .arg = &far};
    if (commanded)
        loop_fd_add(far.loop, &far.commands, EPOLLIN);
    printf("ready\n");
    loop_run(far.loop);
    close_far(&far, commanded);
    return 0;
}
