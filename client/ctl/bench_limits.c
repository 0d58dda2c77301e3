/* The limits of this machine, measured with as little code as can be between the call and the clock. */
#include "bench_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_echo.h"
#include "buf.h"
#include "clock.h"
#include "heap.h"
#include "histogram.h"
#include "nng_closer.h"
#include "nng_start.h"

enum {
    ROUND_TRIPS = 4000,
    WARM_UP = 200,
    MESSAGE_BYTES = 128,
    PUSH_BYTES = 1 << 20,
    PUSH_MS = 500,
    ECHO_MS = 1000,
    FILE_BYTES = 64 << 20,
    DISK_MS = 500,
    WAIT_MS = 20000 /* the far end is a process that has to start */
};

extern char **environ;

/* ---------------------------------------------------------------- nng's far end */

#define ECHO_NAME  "bench-echo"
#define SINK_NAME  "bench-sink"
#define CROWD_NAME "bench-crowd"

static bool input_has_ended(void)
{
    char byte;
    return read(STDIN_FILENO, &byte, 1) == 0;
}

static void take_messages(nng_socket socket, bool echo)
{
    nng_msg *msg;
    for (;;) {
        int result = nng_recvmsg(socket, &msg, 0);
        if (result == 0 && (!echo || nng_sendmsg(socket, msg, 0) != 0))
            nng_msg_free(msg);
        /* The other end is gone when standard input ends: looked at between two messages. */
        if (result != 0 && input_has_ended())
            return;
    }
}

int bench_far_end(const char *name, const char *url)
{
    nng_socket socket;
    bool crowd = strcmp(name, CROWD_NAME) == 0, echo = crowd || strcmp(name, ECHO_NAME) == 0;
    if (!echo && strcmp(name, SINK_NAME) != 0)
        return -1;
    heap_keep_messages(); /* as everything that is measured beside it, and */
    nng_start();
    if ((echo ? nng_rep0_open(&socket) : nng_pull0_open(&socket)) != 0 ||
        nng_listen(socket, url, NULL, 0) != 0)
        return 1;
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, 100);
    nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, 100);
    if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) < 0)
        return 1;
    if (!crowd)
        take_messages(socket, echo);
    for (bool good = crowd && bench_echo_answer(socket); good && !input_has_ended();)
        usleep(10000);
    _exit(0); /* without a close, which may never return */
}

struct far_end {
    pid_t pid;
    int input; /* it runs until that is closed */
};

static bool start_far_end(const char *name, const char *url, struct far_end *out)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[0], STDIN_FILENO);
    char *argv[] = {(char *)"shanghaictl", (char *)name, (char *)url, NULL};
    bool started = posix_spawn(&out->pid, "/proc/self/exe", &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[0]);
    out->input = pipe_fds[1];
    if (!started)
        close(out->input);
    return started;
}

static void end_far_end(const struct far_end *end)
{
    close(end->input);
    waitpid(end->pid, NULL, 0);
}

/* ---------------------------------------------------------------- nng */

static void close_socket(void *arg)
{
    nng_socket *socket = arg;
    nng_close(*socket);
    free(socket);
}

/* Nobody waits for it: with a message under way it may never return. */
static void close_later(nng_socket socket)
{
    nng_socket *copy = xmalloc(sizeof *copy);
    *copy = socket;
    nng_closer_start(close_socket, copy);
}

static bool dial(nng_socket socket, const char *url)
{
    nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, 10);
    nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, WAIT_MS);
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, WAIT_MS);
    return nng_dial(socket, url, NULL, NNG_FLAG_NONBLOCK) == 0;
}

static uint64_t measure_round_trips(nng_socket socket)
{
    struct histogram *h = xcalloc(1, sizeof *h);
    uint8_t bytes[MESSAGE_BYTES] = {0};
    for (int i = 0; i < ROUND_TRIPS; i++) {
        size_t len = sizeof bytes;
        int64_t start_ns = clock_mono_ns();
        if (nng_send(socket, bytes, sizeof bytes, 0) != 0 || nng_recv(socket, bytes, &len, 0) != 0)
            break;
        if (i >= WARM_UP)
            histogram_add(h, (uint64_t)(clock_mono_ns() - start_ns) / NS_PER_US);
    }
    uint64_t rtt_us = histogram_quantile(h, 0.5);
    free(h);
    return rtt_us;
}

static uint64_t round_trip_us(const char *url)
{
    struct far_end end;
    nng_socket socket;
    uint64_t rtt_us = 0;
    if (!start_far_end(ECHO_NAME, url, &end))
        return 0;
    if (nng_req0_open(&socket) == 0) {
        if (dial(socket, url))
            rtt_us = measure_round_trips(socket);
        close_later(socket);
    }
    end_far_end(&end);
    return rtt_us;
}

/* A socket's path of this process. */
struct ipc {
    char path[480], url[512];
};

static void name_ipc(struct ipc *ipc, const char *dir)
{
    snprintf(ipc->path, sizeof ipc->path, "%s/bench-%d.sock", dir, (int)getpid());
    snprintf(ipc->url, sizeof ipc->url, "ipc://%s", ipc->path);
}

uint64_t bench_nng_rtt_us(const char *dir)
{
    struct ipc ipc;
    name_ipc(&ipc, dir);
    uint64_t rtt_us = round_trip_us(ipc.url);
    unlink(ipc.path);
    return rtt_us;
}

double bench_nng_echoes_per_s(const char *dir)
{
    struct ipc ipc;
    struct far_end end;
    nng_socket socket;
    double rate = 0;
    name_ipc(&ipc, dir);
    if (!start_far_end(CROWD_NAME, ipc.url, &end))
        return 0;
    if (nng_req0_open(&socket) == 0) {
        if (dial(socket, ipc.url))
            rate = bench_echo_rate(socket, ECHO_MS);
        close_later(socket);
    }
    end_far_end(&end);
    unlink(ipc.path);
    return rate;
}

static bool push_one(nng_socket socket)
{
    nng_msg *msg;
    if (nng_msg_alloc(&msg, PUSH_BYTES) != 0)
        return false;
    if (nng_sendmsg(socket, msg, 0) == 0)
        return true;
    nng_msg_free(msg);
    return false;
}

/* What the kernel still holds at the end, a few MB of hundreds, counts too. */
static double measure_pushes(nng_socket socket)
{
    uint64_t pushed = 0;
    if (!push_one(socket)) /* connects */
        return 0;
    int64_t start_ns = clock_mono_ns(), now_ns = start_ns;
    while (now_ns - start_ns < (int64_t)PUSH_MS * NS_PER_MS && push_one(socket)) {
        pushed += PUSH_BYTES;
        now_ns = clock_mono_ns();
    }
    return now_ns > start_ns ? (double)pushed * 1e9 / (double)(now_ns - start_ns) : 0;
}

static double push_bytes_per_s(const char *url)
{
    struct far_end end;
    nng_socket socket;
    double bytes_per_s = 0;
    if (!start_far_end(SINK_NAME, url, &end))
        return 0;
    if (nng_push0_open(&socket) == 0) {
        if (dial(socket, url))
            bytes_per_s = measure_pushes(socket);
        close_later(socket);
    }
    end_far_end(&end);
    return bytes_per_s;
}

/* One that was free a moment ago; false: none. */
static bool loopback_url(char *out, size_t size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool good = bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                getsockname(fd, (struct sockaddr *)&address, &len) == 0;
    close(fd);
    if (good)
        snprintf(out, size, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    return good;
}

void bench_nng_tcp(struct bench_nng *out)
{
    char url[64];
    *out = (struct bench_nng){0};
    if (loopback_url(url, sizeof url))
        out->rtt_us = round_trip_us(url);
    if (loopback_url(url, sizeof url))
        out->bytes_per_s = push_bytes_per_s(url);
}

/* ---------------------------------------------------------------- the disk */

static bool write_all(int fd, const uint8_t *data, size_t len, off_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, data, len, at);
        if (n <= 0)
            return false;
        data += n;
        len -= (size_t)n;
        at += n;
    }
    return true;
}

/* As walsvc prepares a segment: allocated and synced, nothing written yet. */
static bool prepare_file(int fd)
{
    return ftruncate(fd, 0) == 0 && posix_fallocate(fd, 0, FILE_BYTES) == 0 && fsync(fd) == 0;
}

/* A full file is prepared anew, which does not count: walsvc does that in the background. */
static bool measure_disk(int fd, const uint8_t *group, size_t bytes, struct bench_disk *out)
{
    struct histogram *h = xcalloc(1, sizeof *h);
    int64_t spent_ns = 0;
    uint64_t written = 0;
    off_t at = FILE_BYTES;
    bool good = true;
    while (good && spent_ns < (int64_t)DISK_MS * NS_PER_MS) {
        if (at + (off_t)bytes > FILE_BYTES) {
            good = prepare_file(fd);
            at = 0;
        }
        int64_t before_ns = clock_mono_ns();
        good = good && write_all(fd, group, bytes, at) && fdatasync(fd) == 0;
        int64_t took_ns = clock_mono_ns() - before_ns;
        histogram_add(h, (uint64_t)took_ns / NS_PER_US);
        spent_ns += took_ns;
        written += bytes;
        at += (off_t)bytes;
    }
    out->sync_us = histogram_quantile(h, 0.5);
    out->bytes_per_s = (double)written * 1e9 / (double)spent_ns;
    free(h);
    return good;
}

bool bench_bare_disk(const char *dir, size_t group_bytes, struct bench_disk *out)
{
    char path[4096];
    snprintf(path, sizeof path, "%.3800s/shanghai-bench-%d.tmp", dir, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "shanghaictl: %s: %s\n", path, strerror(errno));
        return false;
    }
    unlink(path);
    size_t bytes = group_bytes < 1 ? 1 : group_bytes > FILE_BYTES ? FILE_BYTES : group_bytes;
    uint8_t *group = xcalloc(1, bytes);
    random_bytes(group, bytes);
    bool good = measure_disk(fd, group, bytes, out);
    if (!good)
        fprintf(stderr, "shanghaictl: cannot write to %s: %s\n", dir, strerror(errno));
    free(group);
    close(fd);
    return good;
}
