/* Notices of the services. Whatever comes in, nothing here is fatal. */
#include "sup_notify.h"

#include <string.h>
#include <sys/socket.h>

#include "sup_dirs.h"

int sup_notify_open(const char *path)
{
    const int on = 1;
    int fd = sup_bind(SOCK_DGRAM, path);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
    return fd;
}

static void take_status(struct slice value, struct sup_notice *out)
{
    size_t len = value.len < SUP_STATUS_MAX ? value.len : SUP_STATUS_MAX;
    memcpy(out->status, value.data, len);
    out->status[len] = 0;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)out->status[i] < ' ')
            out->status[i] = ' ';
    out->has_status = true;
}

static void take_line(struct slice line, struct sup_notice *out)
{
    static const char status[] = "STATUS=";
    const size_t key = sizeof status - 1;
    if (slice_is(line, "READY=1"))
        out->ready = true;
    else if (slice_is(line, "WATCHDOG=1"))
        out->watchdog = true;
    else if (line.len >= key && memcmp(line.data, status, key) == 0)
        take_status(slice_of(line.data + key, line.len - key), out);
}

void sup_notice_parse(struct slice text, struct sup_notice *out)
{
    while (text.len > 0) {
        const uint8_t *newline = memchr(text.data, '\n', text.len);
        size_t len = newline != NULL ? (size_t)(newline - text.data) : text.len;
        take_line(slice_of(text.data, len), out);
        len += newline != NULL;
        text = slice_of(text.data + len, text.len - len);
    }
}

/* The kernel puts the credentials first, and there is room for nothing else: descriptors sent along are
 * dropped. */
static pid_t sender_of(struct msghdr *message)
{
    struct ucred who = {0};
    struct cmsghdr *c = CMSG_FIRSTHDR(message);
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS)
        memcpy(&who, CMSG_DATA(c), sizeof who);
    return who.pid;
}

bool sup_notify_receive(int fd, struct sup_notice *out)
{
    char text[SUP_NOTICE_MAX];
    union {
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = sizeof text};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return false;
    *out = (struct sup_notice){.sender = sender_of(&message)};
    if ((message.msg_flags & MSG_TRUNC) == 0)
        sup_notice_parse(slice_of(text, (size_t)n), out);
    return true;
}
