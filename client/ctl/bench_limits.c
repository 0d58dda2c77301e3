/* The limits of this machine, measured with as little code as can be between the call and the clock. */
#include "bench_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "clock.h"
#include "histogram.h"
#include "nng_start.h"

enum {
    ROUND_TRIPS = 4000,
    WARM_UP = 200,
    MESSAGE_BYTES = 128,
    FILE_BYTES = 64 << 20,
    DISK_MS = 500,
    WAIT_MS = 2000
};

extern char **environ;

int bench_echo(const char *url)
{
    nng_socket socket;
    nng_msg *msg;
    char byte;
    nng_start(); /* as everything that is measured beside it */
    if (nng_rep0_open(&socket) != 0 || nng_listen(socket, url, NULL, 0) != 0)
        return 1;
    /* The other end is gone when standard input ends: looked at between two messages. */
    nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, 100);
    if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) < 0)
        return 1;
    for (;;) {
        int result = nng_recvmsg(socket, &msg, 0);
        if (result == 0 && nng_sendmsg(socket, msg, 0) != 0)
            nng_msg_free(msg);
        if (result != 0 && read(STDIN_FILENO, &byte, 1) == 0)
            break;
    }
    nng_close(socket);
    return 0;
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

uint64_t bench_nng_rtt_us(const char *dir)
{
    char url[512], path[480];
    int pipe_fds[2];
    pid_t pid;
    nng_socket socket;
    uint64_t rtt_us = 0;
    snprintf(path, sizeof path, "%s/bench-%d.sock", dir, (int)getpid());
    snprintf(url, sizeof url, "ipc://%s", path);
    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return 0;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[0], STDIN_FILENO);
    char *argv[] = {(char *)"shanghaictl", (char *)"bench-echo", url, NULL};
    bool started = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[0]);
    if (started && nng_req0_open(&socket) == 0) {
        nng_socket_set_ms(socket, NNG_OPT_RECONNMINT, 10);
        nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, WAIT_MS);
        nng_socket_set_ms(socket, NNG_OPT_RECVTIMEO, WAIT_MS);
        if (nng_dial(socket, url, NULL, NNG_FLAG_NONBLOCK) == 0)
            rtt_us = measure_round_trips(socket);
        nng_close(socket);
    }
    close(pipe_fds[1]);
    if (started)
        waitpid(pid, NULL, 0);
    unlink(path);
    return rtt_us;
}

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
