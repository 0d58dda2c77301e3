/* nng's wire format by hand. */
#include "wire_pull.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PROTOCOL_PUSH = 0x50, PROTOCOL_PULL = 0x51, LENGTH_BYTES = 8, READ_BYTES = 64 << 10 };

static void close_conn(struct wire_conn *conn)
{
    if (conn->fd.fd < 0)
        return;
    loop_fd_remove(conn->pull->loop, &conn->fd);
    close(conn->fd.fd);
    conn->fd.fd = -1;
    buf_free(&conn->bytes);
}

static void drop_front(struct buf *b, size_t len)
{
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

static void take_frames(struct wire_conn *conn)
{
    struct wire_pull *pull = conn->pull;
    struct buf *b = &conn->bytes;
    uint64_t len, number;
    if (!conn->greeted && b->len >= WIRE_GREETING_BYTES) {
        conn->greeted = true;
        pull->greeted++;
        drop_front(b, WIRE_GREETING_BYTES);
    }
    while (conn->greeted && b->len >= LENGTH_BYTES) {
        memcpy(&len, b->data, sizeof len);
        len = be64toh(len);
        if (b->len < LENGTH_BYTES + len)
            return;
        assert_true(len >= sizeof number && pull->number_count < WIRE_NUMBERS_MAX);
        memcpy(&number, b->data + LENGTH_BYTES, sizeof number);
        pull->numbers[pull->number_count++] = number;
        drop_front(b, LENGTH_BYTES + (size_t)len);
    }
}

static void on_readable(void *arg, uint32_t events)
{
    struct wire_conn *conn = arg;
    (void)events;
    if (!conn->pull->reads && conn->greeted)
        return;
    ssize_t n = recv(conn->fd.fd, buf_reserve(&conn->bytes, READ_BYTES), READ_BYTES, MSG_DONTWAIT);
    if (n > 0) {
        conn->bytes.len += (size_t)n;
        take_frames(conn);
    } else if (n == 0 || errno != EAGAIN) {
        close_conn(conn);
    }
}

static void on_accept(void *arg, uint32_t events)
{
    static const uint8_t greeting[WIRE_GREETING_BYTES] = {0, 'S', 'P', 0, 0, PROTOCOL_PULL, 0, 0};
    struct wire_pull *pull = arg;
    (void)events;
    int fd = accept4(pull->listener.fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct wire_conn *conn = pull->conns;
    while (conn < pull->conns + WIRE_CONNS_MAX && conn->fd.fd >= 0)
        conn++;
    assert_true(conn < pull->conns + WIRE_CONNS_MAX);
    send(fd, greeting, sizeof greeting, MSG_NOSIGNAL);
    *conn = (struct wire_conn){.pull = pull, .fd = {.fd = fd, .fn = on_readable, .arg = conn}};
    pull->conn_count++;
    /* Not readable without end while nobody reads: then wire_pull_read_on looks again. */
    loop_fd_add(pull->loop, &conn->fd, pull->reads ? EPOLLIN : EPOLLIN | EPOLLET);
}

/* None of those that the kernel gives to who asks for none in particular: it would be gone when it is closed,
 * to be opened again. */
static void bind_to_any(int fd, struct sockaddr_in *at)
{
    int result = -1;
    for (unsigned i = 0; i < 1000 && result != 0; i++) {
        at->sin_port = htons((uint16_t)(10000 + random_u64() % 20000));
        result = bind(fd, (struct sockaddr *)at, sizeof *at);
    }
    assert_int_equal(result, 0);
}

void wire_pull_open(struct wire_pull *pull, struct loop *loop, uint16_t port, bool accepts)
{
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    memset(pull, 0, sizeof *pull);
    pull->loop = loop;
    pull->reads = true;
    for (unsigned i = 0; i < WIRE_CONNS_MAX; i++)
        pull->conns[i].fd.fd = -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (port == 0)
        bind_to_any(fd, &at);
    else
        assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, accepts ? 128 : 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    pull->port = ntohs(at.sin_port);
    pull->listener = (struct loop_fd){.fd = fd, .fn = on_accept, .arg = pull};
    loop_fd_add(loop, &pull->listener, accepts ? EPOLLIN : 0);
}

void wire_pull_close(struct wire_pull *pull)
{
    for (unsigned i = 0; i < WIRE_CONNS_MAX; i++)
        close_conn(&pull->conns[i]);
    if (pull->listener.fd < 0)
        return;
    loop_fd_remove(pull->loop, &pull->listener);
    close(pull->listener.fd);
    pull->listener.fd = -1;
}

void wire_pull_read_on(struct wire_pull *pull)
{
    pull->reads = true;
    for (unsigned i = 0; i < WIRE_CONNS_MAX; i++) {
        struct wire_conn *conn = &pull->conns[i];
        if (conn->fd.fd < 0)
            continue;
        loop_fd_remove(pull->loop, &conn->fd);
        loop_fd_add(pull->loop, &conn->fd, EPOLLIN);
    }
}

bool wire_pull_has(const struct wire_pull *pull, uint64_t number)
{
    for (unsigned i = 0; i < pull->number_count; i++)
        if (pull->numbers[i] == number)
            return true;
    return false;
}

static bool write_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, (const uint8_t *)data + done, len - done, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

int wire_push_connect(uint16_t port)
{
    static const uint8_t greeting[WIRE_GREETING_BYTES] = {0, 'S', 'P', 0, 0, PROTOCOL_PUSH, 0, 0};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint8_t theirs[WIRE_GREETING_BYTES];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_true(write_all(fd, greeting, sizeof greeting));
    assert_int_equal(recv(fd, theirs, sizeof theirs, MSG_WAITALL), sizeof theirs);
    return fd;
}

bool wire_push(int fd, const void *message, size_t len)
{
    uint64_t length = htobe64(len);
    return write_all(fd, &length, sizeof length) && write_all(fd, message, len);
}
