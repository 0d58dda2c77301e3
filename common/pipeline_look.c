/* Looking for a peer: by name, and whether somebody listens there. Nothing here is fatal. */
#include "pipeline_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "descriptors.h"
#include "nng_closer.h"

enum { RESOLVERS_MAX = 8, PORT_TEXT = 8 };

static atomic_uint resolvers;

/* ---- addresses ---- */

static bool look_up(const char *host, uint16_t port, int flags, struct pipeline_address *out)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *found;
    char service[PORT_TEXT];
    snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return false;
    memcpy(&out->any, found->ai_addr, found->ai_addrlen);
    out->len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

bool pipeline_address_parse(const char *host, uint16_t port, struct pipeline_address *out)
{
    return look_up(host, port, AI_NUMERICHOST, out);
}

bool pipeline_address_url(const struct pipeline_address *address, char *url, size_t size)
{
    char host[INET6_ADDRSTRLEN + 32], port[PORT_TEXT];
    if (getnameinfo((const struct sockaddr *)&address->any, address->len, host, sizeof host, port,
                    sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return false;
    bool six = address->any.ss_family == AF_INET6;
    snprintf(url, size, six ? "tcp://[%s]:%s" : "tcp://%s:%s", host, port);
    return true;
}

/* ---- names ---- */

struct question {
    char host[PIPELINE_HOST_MAX];
    uint16_t port;
    struct mail_gate *gate;
    uint64_t id;
};

static void resolve(void *arg)
{
    struct question *question = arg;
    struct pipeline_event *event = xcalloc(1, sizeof *event);
    event->id = question->id;
    event->kind = PIPELINE_RESOLVED;
    look_up(question->host, question->port, 0, &event->address);
    if (!mail_gate_post(question->gate, &event->mail, false))
        free(event);
    mail_gate_leave(question->gate);
    free(question);
    atomic_fetch_sub(&resolvers, 1);
}

bool pipeline_resolve(const char *host, uint16_t port, uint64_t id, struct mail_gate *gate)
{
    if (atomic_load(&resolvers) >= RESOLVERS_MAX)
        return false;
    struct question *question = xcalloc(1, sizeof *question);
    snprintf(question->host, sizeof question->host, "%s", host);
    question->port = port;
    question->id = id;
    question->gate = gate;
    mail_gate_hold(gate);
    atomic_fetch_add(&resolvers, 1);
    nng_closer_start(resolve, question);
    return true;
}

/* ---- is somebody there? ---- */

void pipeline_look_stop(struct pipeline_look *look)
{
    if (look->fd.fd < 0)
        return;
    loop_fd_remove(look->loop, &look->fd);
    close(look->fd.fd);
    look->fd.fd = -1;
}

static void on_ready(void *arg, uint32_t events)
{
    struct pipeline_look *look = arg;
    int error = 0;
    socklen_t len = sizeof error;
    (void)events;
    getsockopt(look->fd.fd, SOL_SOCKET, SO_ERROR, &error, &len);
    pipeline_look_stop(look);
    look->on_end(look->arg, error == 0);
}

bool pipeline_look_start(struct pipeline_look *look, const struct pipeline_address *to)
{
    descriptors_lift();
    int fd = socket(to->any.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    descriptors_lower();
    if (fd < 0)
        return false;
    if (connect(fd, (const struct sockaddr *)&to->any, to->len) < 0 && errno != EINPROGRESS) {
        close(fd);
        return false;
    }
    look->fd = (struct loop_fd){.fd = fd, .fn = on_ready, .arg = look};
    loop_fd_add(look->loop, &look->fd, EPOLLOUT);
    return true;
}
