/* Both ends of a link, for tests: the far end as a child process, and callers. */
#include "link_ends.h"

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

const struct slice no_rest = {0};

/* ---- what the far end tells ---- */

static void on_held(struct ends *ends, const char *line)
{
    struct held h = {0};
    int local, at = 0;
    unsigned byte;
    assert_true(ends->held_count < HELD_MAX);
    assert_int_equal(sscanf(line, "request %" SCNu64 " %" SCNu64 " %u %" SCNu64 " %d %n", &h.token.session,
                            &h.token.number, &h.type, &h.correlation, &local, &at),
                     5);
    h.local = local != 0;
    for (const char *hex = line + at; h.body_len < HELD_BODY_MAX && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        h.body[h.body_len++] = (uint8_t)byte;
    ends->held[ends->held_count++] = h;
}

static void on_dropped(struct ends *ends, uint64_t session)
{
    unsigned kept = 0;
    ends->drops++;
    for (unsigned i = 0; i < ends->held_count; i++)
        if (ends->held[i].token.session != session)
            ends->held[kept++] = ends->held[i];
    ends->held_count = kept;
}

static void on_line(struct ends *ends, const char *line)
{
    struct link_server_stats *s = &ends->stats;
    uint64_t session;
    if (strcmp(line, "ready") == 0)
        ends->ready = true;
    else if (strncmp(line, "request ", strlen("request ")) == 0)
        on_held(ends, line);
    else if (sscanf(line, "drop %" SCNu64, &session) == 1)
        on_dropped(ends, session);
    else if (sscanf(line, "stats %u %u %u %zu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &s->sessions,
                    &s->clients, &s->parked_polls, &s->held_bytes, &s->requests, &s->answers,
                    &s->refused_messages, &s->dropped_sessions) == 8 ||
             sscanf(line, "listening %" SCNu64, &ends->reply) == 1 ||
             sscanf(line, "unfetched %" SCNu64, &ends->reply) == 1)
        ends->replies++;
    else
        fail_msg("the far end says: %s", line);
}

static void on_control(void *arg, uint32_t events)
{
    struct ends *ends = arg;
    (void)events;
    ssize_t n = recv(ends->control.fd, ends->line + ends->line_len, sizeof ends->line - ends->line_len, 0);
    if (n <= 0) {
        ends->gone = true;
        loop_fd_remove(ends->loop, &ends->control);
        return;
    }
    ends->line_len += (size_t)n;
    char *end;
    while ((end = memchr(ends->line, '\n', ends->line_len)) != NULL) {
        size_t len = (size_t)(end - ends->line) + 1;
        *end = 0;
        on_line(ends, ends->line);
        ends->line_len -= len;
        memmove(ends->line, ends->line + len, ends->line_len);
    }
}

/* ---- the far end's life ---- */

struct link_server_limits small_limits(void)
{
    struct link_server_limits limits = link_server_default_limits();
    limits.session_requests = 16;
    limits.session_bytes = 1 << 20;
    limits.total_bytes = 8 << 20;
    limits.sessions = 8;
    limits.polls = 8;
    limits.message_bytes = 4 << 20;
    return limits;
}

/* link_far stands beside this program. */
static void far_path(char path[PATH_MAX])
{
    char own[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", own, sizeof own - 1);
    assert_true(len > 0);
    own[len] = 0;
    assert_true(snprintf(path, PATH_MAX, "%s/link_far", dirname(own)) < PATH_MAX);
}

static void spawn_far_end(struct ends *ends, char **argv, int control)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, control, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, control, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, ends->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_int_equal(posix_spawn(&ends->pid, argv[0], &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
}

void start_far_end(struct ends *ends, const struct link_server_limits *l, const char *cluster)
{
    char path[PATH_MAX], limits[128];
    int pair[2];
    far_path(path);
    snprintf(limits, sizeof limits, "-l%u,%zu,%zu,%u,%u,%zu,%u", l->session_requests, l->session_bytes,
             l->total_bytes, l->sessions, l->polls, l->message_bytes,
             (unsigned)(l->session_idle_ns / NS_PER_MS));
    char *argv[] = {path, "-i", limits, ends->endpoint, NULL, NULL, NULL};
    if (cluster != NULL) {
        argv[3] = "-c";
        argv[4] = (char *)cluster;
        argv[5] = ends->endpoint;
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    spawn_far_end(ends, argv, pair[1]);
    close(pair[1]);
    ends->line_len = 0;
    ends->ready = ends->gone = false;
    ends->control = (struct loop_fd){.fd = pair[0], .fn = on_control, .arg = ends};
    loop_fd_add(ends->loop, &ends->control, EPOLLIN);
    WAIT_UNTIL(ends, ends->ready);
}

void open_ends(struct ends *ends, const struct link_server_limits *limits, const char *cluster)
{
    *ends = (struct ends){.loop = loop_open(), .dir = "/tmp/shXXXXXX"};
    assert_non_null(mkdtemp(ends->dir));
    snprintf(ends->endpoint, sizeof ends->endpoint, "ipc://%s/link", ends->dir);
    snprintf(ends->log, sizeof ends->log, "%s/log", ends->dir);
    start_far_end(ends, limits, cluster);
}

/* Its exit status, as waitpid tells it. */
static int await_far_end(struct ends *ends)
{
    int status;
    assert_int_equal(waitpid(ends->pid, &status, 0), ends->pid);
    if (!ends->gone)
        loop_fd_remove(ends->loop, &ends->control);
    close(ends->control.fd);
    ends->pid = 0;
    return status;
}

static void tell(struct ends *ends, const char *line)
{
    size_t len = strlen(line);
    assert_int_equal(send(ends->control.fd, line, len, MSG_NOSIGNAL), (ssize_t)len);
}

void stop_far_end(struct ends *ends)
{
    tell(ends, "stop\n");
    WAIT_UNTIL(ends, ends->gone);
    assert_int_equal(await_far_end(ends), 0);
}

void kill_far_end(struct ends *ends)
{
    kill(ends->pid, SIGKILL);
    await_far_end(ends);
}

void close_ends(struct ends *ends)
{
    static const char *const files[] = {"link.in", "link.out", "log"};
    if (ends->pid != 0)
        kill_far_end(ends);
    loop_close(ends->loop);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", ends->dir, files[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(ends->dir), 0);
}

/* ---- commands ---- */

void answer_held(struct ends *ends, unsigned index, size_t size)
{
    char line[128];
    const struct link_token *token = &ends->held[index].token;
    snprintf(line, sizeof line, "answer %" PRIu64 " %" PRIu64 " %zu\n", token->session, token->number, size);
    tell(ends, line);
}

void refuse_held(struct ends *ends, unsigned index, enum sh_error code, const char *text)
{
    char line[256];
    const struct link_token *token = &ends->held[index].token;
    snprintf(line, sizeof line, "refuse %" PRIu64 " %" PRIu64 " %u %s\n", token->session, token->number,
             (unsigned)code, text);
    tell(ends, line);
}

static void tell_of_held(struct ends *ends, const char *command, unsigned index)
{
    char line[128];
    const struct link_token *token = &ends->held[index].token;
    snprintf(line, sizeof line, "%s %" PRIu64 " %" PRIu64 "\n", command, token->session, token->number);
    tell(ends, line);
}

void unlend_held(struct ends *ends, unsigned index)
{
    tell_of_held(ends, "unlend", index);
}

void stop_far_end_with_answer(struct ends *ends, unsigned index)
{
    tell_of_held(ends, "last", index);
    stop_far_end(ends);
}

static void ask(struct ends *ends, const char *line)
{
    unsigned replies = ends->replies;
    tell(ends, line);
    WAIT_UNTIL(ends, ends->replies > replies);
}

enum sh_error far_listen(struct ends *ends, const char *endpoint)
{
    char line[128];
    snprintf(line, sizeof line, "listen %s\n", endpoint);
    ask(ends, line);
    return (enum sh_error)ends->reply;
}

size_t far_unfetched(struct ends *ends, uint64_t session)
{
    char line[64];
    snprintf(line, sizeof line, "unfetched %" PRIu64 "\n", session);
    ask(ends, line);
    return ends->reply;
}

struct link_server_stats far_stats(struct ends *ends)
{
    ask(ends, "stats\n");
    return ends->stats;
}

bool far_has_logged(const struct ends *ends, const char *text)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen(ends->log, "r");
    assert_non_null(file);
    while (!found && fgets(line, sizeof line, file) != NULL)
        found = strstr(line, text) != NULL;
    fclose(file);
    return found;
}

/* ---- callers ---- */

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct caller *caller = arg;
    struct msg_error error = {0};
    assert_true(caller->answered < ANSWERS_MAX);
    if (type == MSG_error)
        assert_int_equal(msg_decode(MSG_error, body, &error), SH_OK);
    caller->codes[caller->answered] = (uint32_t)error.code;
    caller->types[caller->answered] = type;
    caller->numbers[caller->answered++] = number;
}

static void on_state(void *arg, bool connected)
{
    struct caller *caller = arg;
    caller->ups += connected;
    caller->downs += !connected;
    assert_int_equal(link_client_is_connected(caller->client), connected);
}

void open_caller(struct caller *caller, struct ends *ends, struct slice cluster)
{
    *caller = (struct caller){.ends = ends};
    struct link_client_options options = {
        .loop = ends->loop,
        .endpoint = ends->endpoint,
        .message_bytes = 4 << 20,
        .queue_bytes = 16 << 20,
        .cluster = cluster,
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = caller,
    };
    assert_int_equal(link_client_open(&options, &caller->client), SH_OK);
}

uint64_t send_bytes(struct caller *caller, uint32_t type, size_t size)
{
    static const uint8_t zeros[4 << 20];
    struct buf body = {0};
    uint64_t number;
    msg_encode(MSG_echo, &(struct msg_echo){.payload = slice_of(zeros, size)}, &body);
    assert_int_equal(link_client_send(caller->client, type, 7, buf_slice(&body), no_rest, &number), SH_OK);
    buf_free(&body);
    return number;
}
