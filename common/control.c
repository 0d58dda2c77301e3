/* One command to the supervisor. Nothing is fatal. */
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"

/* Milliseconds until the deadline, rounded up; 0 when it has passed. */
static int left_ms(int64_t deadline_ns)
{
    int64_t left_ns = deadline_ns - clock_mono_ns();
    return left_ns > 0 ? (int)((left_ns + NS_PER_MS - 1) / NS_PER_MS) : 0;
}

/* A full backlog makes connect wait: for so long at most. */
static int connect_to(const char *path, int timeout_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval wait = {.tv_sec = timeout_ms / MS_PER_S, .tv_usec = timeout_ms % MS_PER_S * 1000 + 1};
    size_t len = strlen(path);
    if (len >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, len + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) == 0 &&
        connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    close(fd);
    return -1;
}

static enum sh_error send_command(int fd, const struct msg_svc_command *command)
{
    struct msg_envelope envelope = {.type = MSG_svc_command, .correlation = random_u64()};
    struct buf packet = {0};
    msg_pack_envelope(&packet, &envelope);
    msg_encode(MSG_svc_command, command, &packet);
    ssize_t n = send(fd, packet.data, packet.len, MSG_NOSIGNAL);
    int error = errno;
    buf_free(&packet);
    if (n >= 0)
        return SH_OK;
    return error == EAGAIN ? SH_TIMEOUT : SH_UNAVAILABLE;
}

static enum sh_error wait_for_packet(int fd, int64_t deadline_ns)
{
    struct pollfd watch = {.fd = fd, .events = POLLIN};
    int ready;
    do
        ready = poll(&watch, 1, left_ms(deadline_ns));
    while (ready < 0 && errno == EINTR);
    return ready > 0 ? SH_OK : SH_TIMEOUT;
}

static enum sh_error receive(int fd, struct buf *storage)
{
    ssize_t size = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
    if (size <= 0)
        return SH_UNAVAILABLE;
    if (size > CONTROL_REPLY_MAX)
        return SH_TOO_LARGE;
    storage->len = 0;
    ssize_t n = recv(fd, buf_reserve(storage, (size_t)size), (size_t)size, 0);
    if (n != size)
        return SH_UNAVAILABLE;
    storage->len = (size_t)n;
    return SH_OK;
}

static enum sh_error decode_reply(const struct buf *storage, struct msg_svc_reply *reply)
{
    struct msg_envelope envelope;
    enum sh_error error = msg_open(buf_slice(storage), &envelope);
    if (error == SH_OK && envelope.type != MSG_svc_reply)
        error = SH_BAD_REQUEST;
    return error != SH_OK ? error : msg_decode(MSG_svc_reply, envelope.body, reply);
}

enum sh_error control_call(const char *socket_path, const struct msg_svc_command *command, int timeout_ms,
                           struct buf *storage, struct msg_svc_reply *reply)
{
    int64_t deadline_ns = clock_mono_ns() + (int64_t)timeout_ms * NS_PER_MS;
    int fd = connect_to(socket_path, timeout_ms);
    if (fd < 0)
        return SH_UNAVAILABLE;
    enum sh_error error = send_command(fd, command);
    if (error == SH_OK)
        error = wait_for_packet(fd, deadline_ns);
    if (error == SH_OK)
        error = receive(fd, storage);
    close(fd);
    return error != SH_OK ? error : decode_reply(storage, reply);
}
