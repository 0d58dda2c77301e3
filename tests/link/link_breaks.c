/* A far end whose pipeline breaks off again and again at the worst moments, and a client that has to live.
 *
 * link_breaks [-n BREAKS] PATH
 * The far end is a thread that speaks nng's wire protocol by hand on PATH.in and PATH.out: it answers each
 * poll at once, and ends each connection of the pipeline after the greeting or some bytes. The client sends a
 * few requests as soon as it is connected, so connections end while nng adds them or sends over them, some
 * hundred times a second; and few requests make a queue that is empty again when they do, which is when
 * nng 1.5.2 goes wrong (link_conn.c, struct pipeline). Freed memory is overwritten and kept for a while, so
 * that whoever still uses it crashes. Prints one JSON object after so many BREAKS; exits 1 when there are
 * none for 20 s. */
#include <assert.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "link.h"
#include "link_conn.h"
#include "log.h"

enum {
    REQUESTS = 3,
    REQUEST_BYTES = 200,
    HANG_S = 20,
    CHECK_MS = 10,
    PATIENCE_MS = 5,
    POLLERS = 64,     /* connections for polls; the oldest makes room */
    IPC_HEAD = 1 + 8, /* message type, length */
    GREETING_BYTES = 8,
    FRAME_BYTES_MAX = 4096,
    PULL = 0x51, /* protocol numbers of nng */
    REP = 0x31,
};

struct far_end {
    int in, out;
    int pollers[POLLERS];
    unsigned poller_count;
    uint64_t replies;
    atomic_uint breaks;
    atomic_bool ending;
};

struct run {
    struct loop *loop;
    struct link_client *client;
    struct loop_timer check;
    struct far_end far_end;
    unsigned breaks, seen, connected;
    int64_t moved_ns; /* when there was another break */
};

/* ---- memory ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { KEPT = 4096, GARBAGE = 0xa5 };

extern void __libc_free(void *block); /* glibc's own */

/* In place of the C library's, for nng too. */
void free(void *block)
{
    static _Atomic(void *) kept[KEPT];
    static atomic_uint next;
    if (block == NULL)
        return;
    memset(block, GARBAGE, malloc_usable_size(block));
    __libc_free(atomic_exchange(&kept[atomic_fetch_add(&next, 1) % KEPT], block));
}
#endif

/* ---- the far end, a thread of its own ---- */

static int listen_on(const char *path, const char *suffix)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path, sizeof address.sun_path, "%s%s", path, suffix);
    assert(n > 0 && (size_t)n < sizeof address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 128) != 0) {
        perror(address.sun_path);
        exit(1);
    }
    return fd;
}

static bool receive(int fd, void *bytes, size_t len)
{
    return recv(fd, bytes, len, MSG_WAITALL) == (ssize_t)len;
}

static bool transmit(int fd, const void *bytes, size_t len)
{
    return send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool greet(int fd, uint8_t protocol)
{
    const uint8_t mine[GREETING_BYTES] = {0, 'S', 'P', 0, 0, protocol, 0, 0};
    uint8_t theirs[GREETING_BYTES];
    return transmit(fd, mine, sizeof mine) && receive(fd, theirs, sizeof theirs);
}

/* At once, or after some of the requests, whole ones or not; they come only once the client's poll was
 * answered, so they are not waited for. */
static void break_pipeline(struct far_end *far, int fd)
{
    uint8_t bytes[REQUESTS * REQUEST_BYTES];
    uint64_t dice = random_u64();
    struct timeval patience = {.tv_usec = PATIENCE_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (greet(fd, PULL) && dice % 16 != 0)
        receive(fd, bytes, 1 + dice / 16 % (2 * REQUEST_BYTES));
    close(fd);
    atomic_fetch_add(&far->breaks, 1);
}

static void answer_poll(struct far_end *far, int fd, const struct msg_envelope *poll, const uint8_t id[4])
{
    struct msg_envelope envelope = {.type = MSG_poll_reply, .session = poll->session};
    struct msg_poll_reply reply = {
        .reply = ++far->replies,
        .incarnation = 1,
        .credit_bytes = 1 << 20,
        .credit_requests = REQUESTS,
        .answers = slice_of("\x90", 1), /* none */
    };
    struct buf out = {0};
    const uint8_t head[IPC_HEAD] = {1};
    buf_append(&out, head, sizeof head);
    buf_append(&out, id, 4);
    msg_pack_envelope(&out, &envelope);
    msg_encode(MSG_poll_reply, &reply, &out);
    for (size_t i = 0, len = out.len - IPC_HEAD; i < 8; i++)
        out.data[IPC_HEAD - 1 - i] = (uint8_t)(len >> 8 * i);
    transmit(fd, out.data, out.len);
    buf_free(&out);
}

/* False: the connection is over. */
static bool serve_poll(struct far_end *far, int fd)
{
    uint8_t head[IPC_HEAD], frame[FRAME_BYTES_MAX];
    struct msg_envelope envelope;
    uint64_t len = 0;
    if (!receive(fd, head, sizeof head))
        return false;
    for (size_t i = 1; i < IPC_HEAD; i++)
        len = len << 8 | head[i];
    if (len <= 4 || len > sizeof frame || !receive(fd, frame, len))
        return false;
    if (msg_open(slice_of(frame + 4, len - 4), &envelope) == SH_OK && envelope.type == MSG_poll)
        answer_poll(far, fd, &envelope, frame);
    return true;
}

static void drop_poller(struct far_end *far, unsigned i)
{
    close(far->pollers[i]);
    memmove(far->pollers + i, far->pollers + i + 1, (--far->poller_count - i) * sizeof far->pollers[0]);
}

static void accept_poller(struct far_end *far)
{
    int fd = accept(far->out, NULL, NULL);
    if (fd < 0)
        return;
    if (!greet(fd, REP)) {
        close(fd);
        return;
    }
    if (far->poller_count == POLLERS)
        drop_poller(far, 0);
    far->pollers[far->poller_count++] = fd;
}

static void *far_end_main(void *arg)
{
    struct far_end *far = arg;
    while (!atomic_load(&far->ending)) {
        struct pollfd fds[2 + POLLERS] = {{.fd = far->in, .events = POLLIN},
                                          {.fd = far->out, .events = POLLIN}};
        for (unsigned i = 0; i < far->poller_count; i++)
            fds[2 + i] = (struct pollfd){.fd = far->pollers[i], .events = POLLIN};
        if (poll(fds, 2 + far->poller_count, CHECK_MS) <= 0)
            continue;
        for (unsigned i = far->poller_count; i-- > 0;)
            if (fds[2 + i].revents != 0 && !serve_poll(far, far->pollers[i]))
                drop_poller(far, i);
        int fd = fds[0].revents != 0 ? accept(far->in, NULL, NULL) : -1;
        if (fd >= 0)
            break_pipeline(far, fd);
        if (fds[1].revents != 0)
            accept_poller(far);
    }
    while (far->poller_count > 0)
        drop_poller(far, 0);
    close(far->in);
    close(far->out);
    return NULL;
}

/* ---- the client ---- */

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    (void)arg, (void)type, (void)body;
    fprintf(stderr, "an answer to %llu, and there is none\n", (unsigned long long)number);
    exit(1);
}

static void on_state(void *arg, bool connected)
{
    struct run *run = arg;
    run->connected += connected;
}

static void on_check(void *arg)
{
    struct run *run = arg;
    int64_t now = clock_mono_ns();
    unsigned breaks = atomic_load(&run->far_end.breaks);
    if (breaks != run->seen)
        run->moved_ns = now;
    run->seen = breaks;
    if (now - run->moved_ns > HANG_S * (int64_t)NS_PER_S) {
        fprintf(stderr, "no connection for too long: %u breaks, connected %u times, closing %u\n", breaks,
                run->connected, link_conn_closing());
        exit(1);
    }
    if (breaks >= run->breaks)
        loop_stop(run->loop);
    else
        loop_timer_after(run->loop, &run->check, CHECK_MS * (int64_t)NS_PER_MS);
}

static void send_requests(struct link_client *client)
{
    static const uint8_t payload[REQUEST_BYTES];
    struct msg_echo echo = {.payload = slice_of(payload, sizeof payload)};
    struct buf body = {0};
    msg_encode(MSG_echo, &echo, &body);
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint64_t number;
        enum sh_error e = link_client_send(client, MSG_echo, 0, buf_slice(&body), (struct slice){0}, &number);
        assert(e == SH_OK);
    }
    buf_free(&body);
}

static const char *parse(struct run *run, int argc, char **argv)
{
    int opt;
    while ((opt = getopt(argc, argv, "n:")) != -1)
        run->breaks = opt == 'n' ? (unsigned)strtoul(optarg, NULL, 10) : 0;
    if (argc - optind != 1 || run->breaks == 0) {
        fprintf(stderr, "usage: link_breaks [-n BREAKS] PATH\n");
        exit(2);
    }
    return argv[optind];
}

int main(int argc, char **argv)
{
    struct run run = {.breaks = 1000};
    const char *path = parse(&run, argc, argv);
    char endpoint[LINK_ENDPOINT_MAX];
    snprintf(endpoint, sizeof endpoint, "ipc://%s", path);
    log_setup("link_breaks", "test");
    run.far_end.in = listen_on(path, ".in");
    run.far_end.out = listen_on(path, ".out");
    run.loop = loop_open();
    run.check = (struct loop_timer){.fn = on_check, .arg = &run};
    struct link_client_options options = {
        .loop = run.loop,
        .endpoint = endpoint,
        .message_bytes = 1 << 20,
        .queue_bytes = 1 << 20,
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = &run,
    };
    enum sh_error e = link_client_open(&options, &run.client);
    assert(e == SH_OK);
    send_requests(run.client);
    pthread_t thread;
    int rv = pthread_create(&thread, NULL, far_end_main, &run.far_end);
    assert(rv == 0);
    int64_t started_ns = run.moved_ns = clock_mono_ns();
    loop_timer_after(run.loop, &run.check, CHECK_MS * (int64_t)NS_PER_MS);
    loop_run(run.loop);
    printf("{\"breaks\": %u, \"connected\": %u, \"seconds\": %.2f, \"closes_that_hang\": %u}\n", run.seen,
           run.connected, (double)(clock_mono_ns() - started_ns) / NS_PER_S, link_conn_closing());
    link_client_close(run.client);
    atomic_store(&run.far_end.ending, true);
    pthread_join(thread, NULL);
    loop_close(run.loop);
    return 0;
}
