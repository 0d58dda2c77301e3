/* The control socket. Whatever a client sends, it gets an answer with an error's name or is closed; nothing
 * is fatal. */
#include "sup_control.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "sup_dirs.h"

struct connection {
    struct loop_fd watch; /* fd -1: free */
    struct sup_control *control;
    uint64_t number; /* counts up: the lowest is the oldest */
};

struct sup_control {
    struct sup_control_options options;
    struct loop_fd listener;
    struct connection connections[SUP_CONTROL_MOST];
    uint64_t accepted;
};

static void close_connection(struct connection *c)
{
    loop_fd_remove(c->control->options.loop, &c->watch);
    close(c->watch.fd);
    c->watch.fd = -1;
}

/* ------------------------------------------------------------ one command */

static void encode_reply(const struct sup_control *control, uint64_t correlation,
                         const struct sup_reply *reply, struct buf *out)
{
    struct msg_envelope envelope = {.type = MSG_svc_reply,
                                    .correlation = correlation,
                                    .cluster = control->options.cluster,
                                    .sender = slice_str(control->options.node)};
    msg_pack_envelope(out, &envelope);
    msg_encode(MSG_svc_reply, &reply->message, out);
}

static enum sh_error decode_command(const struct sup_control *control, struct slice packet,
                                    struct msg_envelope *envelope, struct msg_svc_command *command)
{
    if (packet.len > SUP_CONTROL_BYTES) /* and cut, perhaps */
        return SH_TOO_LARGE;
    enum sh_error error = msg_open(packet, envelope);
    if (error != SH_OK)
        return error;
    if (envelope->type != MSG_svc_command)
        return SH_BAD_REQUEST;
    if (envelope->cluster.len > 0 && !slice_equal(envelope->cluster, control->options.cluster))
        return SH_BAD_REQUEST;
    return msg_decode(MSG_svc_command, envelope->body, command);
}

/* Returns whether the connection goes on. */
static bool answer(struct connection *c, struct slice packet)
{
    struct sup_control *control = c->control;
    struct sup_reply reply = {0};
    struct msg_envelope envelope = {0};
    struct msg_svc_command command;
    struct buf out = {0};
    enum sh_error error = decode_command(control, packet, &envelope, &command);
    if (error == SH_OK) {
        control->options.on_command(control->options.arg, envelope.correlation, &command, &reply);
    } else {
        reply.message.code = (uint64_t)error;
        reply.message.text = slice_str(sh_error_text(error));
        log_for(LOG_WARN, envelope.correlation, "bad command on the control socket",
                log_text("error", sh_error_name(error)));
    }
    if (reply.message.text.len > SUP_TEXT_BYTES)
        reply.message.text.len = SUP_TEXT_BYTES;
    encode_reply(control, envelope.correlation, &reply, &out);
    bool sent = send(c->watch.fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)out.len;
    buf_free(&out);
    buf_free(&reply.text);
    buf_free(&reply.tree);
    buf_free(&reply.obituaries);
    return sent && error == SH_OK;
}

/* One packet at each turn of the loop, so that nobody keeps the others waiting. */
static void on_packet(void *arg, uint32_t events)
{
    struct connection *c = arg;
    uint8_t packet[SUP_CONTROL_BYTES + 1];
    (void)events;
    ssize_t n = recv(c->watch.fd, packet, sizeof packet, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !answer(c, slice_of(packet, (size_t)n)))
        close_connection(c);
}

/* ------------------------------------------------------------ connections */

/* A free place, made by closing the oldest when there is none. */
static struct connection *free_place(struct sup_control *control)
{
    struct connection *oldest = &control->connections[0];
    for (int i = 0; i < SUP_CONTROL_MOST; i++) {
        struct connection *c = &control->connections[i];
        if (c->watch.fd < 0)
            return c;
        if (c->number < oldest->number)
            oldest = c;
    }
    close_connection(oldest);
    return oldest;
}

static void on_connection(void *arg, uint32_t events)
{
    struct sup_control *control = arg;
    const int send_bytes = 2 * SUP_REPLY_BYTES;
    (void)events;
    int fd = accept4(control->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
    struct connection *c = free_place(control);
    c->number = ++control->accepted;
    c->watch = (struct loop_fd){.fd = fd, .fn = on_packet, .arg = c};
    loop_fd_add(control->options.loop, &c->watch, EPOLLIN);
}

/* ------------------------------------------------------------ life */

struct sup_control *sup_control_open(const struct sup_control_options *options)
{
    int fd = sup_bind(SOCK_SEQPACKET, options->path);
    if (fd < 0 || listen(fd, SUP_CONTROL_BACKLOG) != 0)
        return NULL;
    struct sup_control *control = xcalloc(1, sizeof *control);
    control->options = *options;
    control->listener = (struct loop_fd){.fd = fd, .fn = on_connection, .arg = control};
    for (int i = 0; i < SUP_CONTROL_MOST; i++) {
        control->connections[i].control = control;
        control->connections[i].watch.fd = -1;
    }
    loop_fd_add(options->loop, &control->listener, EPOLLIN);
    return control;
}

void sup_control_close(struct sup_control *control)
{
    for (int i = 0; i < SUP_CONTROL_MOST; i++)
        if (control->connections[i].watch.fd >= 0)
            close_connection(&control->connections[i]);
    loop_fd_remove(control->options.loop, &control->listener);
    close(control->listener.fd);
    unlink(control->options.path);
    free(control);
}
