/* Birth and death of membersvc. */
#include "member_service.h"

#include <stdio.h>
#include <stdlib.h>

#include "log.h"

struct member_service {
    struct service *service;
    struct link_server *server;
    char link[LINK_ENDPOINT_MAX];
};

static void on_request(void *arg, const struct link_request *request)
{
    struct member_service *m = arg;
    struct msg_error error = {.code = SH_BAD_REQUEST,
                              .text = slice_str("membersvc does not know this type of message")};
    link_server_refuse(m->server, request->token, &error);
}

static enum service_exit start_server(struct member_service *m)
{
    const struct config *config = m->service->config;
    struct link_server_options options = {
        .loop = m->service->loop,
        .limits = link_server_default_limits(),
        .cluster = m->service->cluster,
        .node = slice_str(config->self->id),
        .boot = m->service->boot,
        .on_request = on_request,
        .arg = m,
    };
    snprintf(m->link, sizeof m->link, "ipc://%.200s/member", config->run_dir);
    m->server = link_server_open(&options);
    if (link_server_listen(m->server, m->link) == SH_OK)
        return EXIT_DONE;
    log_error("cannot listen", log_text("endpoint", m->link));
    return EXIT_FAULT;
}

enum service_exit member_open(struct service *service)
{
    struct member_service *m = xcalloc(1, sizeof *m);
    service->state = m;
    m->service = service;
    enum service_exit code = start_server(m);
    if (code != EXIT_DONE)
        member_close(service);
    return code;
}

void member_reload(struct service *service)
{
    (void)service;
}

void member_close(struct service *service)
{
    struct member_service *m = service->state;
    if (m->server != NULL)
        link_server_close(m->server);
    free(m);
    service->state = NULL;
}

const char *member_ping(const struct service *service)
{
    const struct member_service *m = service->state;
    return m->link;
}
