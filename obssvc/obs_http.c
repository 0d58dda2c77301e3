/* libmicrohttpd behind obs_http.h: two threads, each with an epoll of its own. Nothing here is fatal after the start. */
#include "obs_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { THREADS = 2 };

struct obs_http {
    struct MHD_Daemon *daemon;
    struct obs_http_options options;
};

/* One request while it comes. */
struct arrival {
    struct buf body;
    bool too_large;
};

const char *obs_http_argument(const struct obs_http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

static enum MHD_Result respond(struct MHD_Connection *connection, const struct obs_http_response *r)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(r->body.len, r->body.data, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    if (!r->may_cache)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    enum MHD_Result result = MHD_queue_response(connection, r->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **state)
{
    struct obs_http *http = arg;
    struct arrival *a = *state;
    (void)version;
    if (a == NULL) {
        *state = xcalloc(1, sizeof *a);
        return MHD_YES;
    }
    if (*size > 0) {
        a->too_large = a->too_large || a->body.len + *size > OBS_HTTP_BODY_MAX;
        if (!a->too_large)
            buf_append(&a->body, data, *size);
        *size = 0;
        return MHD_YES;
    }
    const struct obs_http_request request = {.method = strcmp(method, "HEAD") == 0 ? "GET" : method,
                                             .path = url,
                                             .body = buf_slice(&a->body),
                                             .connection = connection};
    struct obs_http_response response = {.status = MHD_HTTP_OK, .content_type = "application/json"};
    http->options.handle(http->options.arg, &request, &response);
    enum MHD_Result result = respond(connection, &response);
    buf_free(&response.body);
    return result;
}

static void on_end(void *arg, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode how)
{
    struct arrival *a = *state;
    (void)arg;
    (void)connection;
    (void)how;
    if (a != NULL)
        buf_free(&a->body);
    free(a);
    *state = NULL;
}

struct obs_http *obs_http_open(const struct obs_http_options *options)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options->port)};
    struct obs_http *http = xcalloc(1, sizeof *http);
    http->options = *options;
    inet_pton(AF_INET, options->address, &address.sin_addr);
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD, options->port, NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR,
        &address, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)OBS_HTTP_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)OBS_HTTP_IDLE_S,
        MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL, MHD_OPTION_END);
    if (http->daemon != NULL)
        return http;
    log_error("cannot listen for HTTP", log_text("address", options->address),
              log_uint("port", options->port), log_text("error", strerror(errno)));
    free(http);
    return NULL;
}

uint16_t obs_http_port(const struct obs_http *http)
{
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info->port;
}

void obs_http_close(struct obs_http *http)
{
    MHD_stop_daemon(http->daemon);
    free(http);
}
