/* libmicrohttpd behind obs_http.h: threads, each with an epoll of its own. Nothing here is fatal after the
 * start.
 *
 * A request whose beginning is no HTTP, or doesn't fit into CONNECTION_BYTES, libmicrohttpd answers by itself
 * (400, 414, 431, in HTML) and closes the connection; on_request never sees it. */
#include "obs_http.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <strings.h>
#include <sys/socket.h>

#include "clock.h"
#include "log.h"
#include "obs_conn.h"
#include "telemetry.h"

enum {
    THREADS = 4,
    CONNECTION_BYTES =
        128 << 10,             /* for headers, ours and the client's; more than OBS_HTTP_HEADERS_MAX by far */
    LEAVING_CONNECTIONS = 128, /* those that were closed, and whose thread hasn't noticed yet */
    CORRELATION_DIGITS = 16,
    LOGGED_PATH_BYTES = 200,
    CLOSE_MS = 1000,
    CLOSE_LOOK_MS = 2
};

struct obs_http {
    struct MHD_Daemon *daemon;
    struct obs_conns *conns;
    struct obs_http_options options;
    _Atomic uint32_t answering; /* requests that are here, and whose answer is not taken yet */
};

/* One request while it comes. */
struct arrival {
    bool is_bad;   /* its URI */
    bool is_begun; /* its headers are here */
    bool is_whole; /* its body too */
    uint64_t correlation;
    struct buf body;
};

const char *obs_http_argument(const struct obs_http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

static struct obs_conn *conn_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static int fd_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* ---------------------------------------------------------------- answers */

void obs_http_fail(struct obs_http_response *response, unsigned status, const char *code, const char *message)
{
    response->status = status;
    response->content_type = "application/json";
    response->body.len = 0;
    buf_printf(&response->body, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"details\":{}}}\n", code,
               message);
}

static void count(unsigned status)
{
    static const unsigned first = 2; /* 2xx */
    if (status / 100 >= first && status / 100 <= 5)
        telemetry_add(TELEMETRY_http_requests, status / 100 - first, 1);
}

static void add_number(struct MHD_Response *response, const char *name, const char *format, uint64_t number)
{
    char text[32];
    snprintf(text, sizeof text, format, number);
    MHD_add_response_header(response, name, text);
}

static void add_headers(struct MHD_Response *response, uint64_t correlation,
                        const struct obs_http_response *r)
{
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    add_number(response, "X-Correlation-Id", "%016" PRIx64, correlation);
    if (!r->may_cache)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (r->allow != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->allow);
    if (r->policy != NULL)
        MHD_add_response_header(response, "Content-Security-Policy", r->policy);
    if (r->age_ms >= 0)
        add_number(response, "X-Age-Ms", "%" PRIu64, (uint64_t)r->age_ms);
    if (r->status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
}

static enum MHD_Result respond(struct obs_http *http, struct MHD_Connection *connection, uint64_t correlation,
                               const struct obs_http_response *r)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(r->body.len, r->body.data, MHD_RESPMEM_MUST_COPY);
    if (response == NULL)
        return MHD_NO;
    add_headers(response, correlation, r);
    obs_conn_is(http->conns, conn_of(connection), OBS_CONN_LEAVING);
    count(r->status);
    enum MHD_Result result = MHD_queue_response(connection, r->status, response);
    MHD_destroy_response(response);
    return result;
}

static struct obs_http_response new_response(void)
{
    return (struct obs_http_response){
        .status = MHD_HTTP_OK, .content_type = "application/json", .age_ms = -1};
}

static enum MHD_Result refuse(struct obs_http *http, struct MHD_Connection *connection,
                              const struct arrival *a, unsigned status, const char *code, const char *message)
{
    struct obs_http_response response = new_response();
    obs_http_fail(&response, status, code, message);
    enum MHD_Result result = respond(http, connection, a->correlation, &response);
    buf_free(&response.body);
    return result;
}

static const char body_too_large[] = "the request's body is too large";

/* In the midst of a body libmicrohttpd takes no answer; so it is written here, as nothing else is under way
 * then, and ends the connection. */
static enum MHD_Result break_off(struct MHD_Connection *connection, const struct arrival *a)
{
    struct obs_http_response response = new_response();
    struct buf text = {0};
    obs_http_fail(&response, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", body_too_large);
    buf_printf(&text,
               "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: %s\r\n"
               "Content-Length: %zu\r\nX-Correlation-Id: %016" PRIx64 "\r\n\r\n",
               response.content_type, response.body.len, a->correlation);
    buf_append(&text, response.body.data, response.body.len);
    ssize_t sent = send(fd_of(connection), text.data, text.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent; /* whoever takes nothing learns nothing */
    count(response.status);
    buf_free(&response.body);
    buf_free(&text);
    return MHD_NO;
}

/* ---------------------------------------------------------------- requests */

/* Every % has two hexadecimal digits behind it, which are not 00. */
static bool is_good_uri(const char *uri)
{
    if (*uri != '/')
        return false;
    for (; *uri != 0; uri++)
        if (*uri == '%' && (!isxdigit((unsigned char)uri[1]) || !isxdigit((unsigned char)uri[2]) ||
                            (uri[1] == '0' && uri[2] == '0')))
            return false;
    return true;
}

static void *on_uri(void *arg, const char *uri, struct MHD_Connection *connection)
{
    struct obs_http *http = arg;
    struct arrival *a = xcalloc(1, sizeof *a);
    a->is_bad = !is_good_uri(uri);
    obs_conn_is(http->conns, conn_of(connection), OBS_CONN_ARRIVING);
    return a;
}

/* 1 to 16 hexadecimal digits; otherwise one is made. */
static uint64_t correlation_of(struct MHD_Connection *connection)
{
    const char *text = header(connection, "X-Correlation-Id");
    size_t digits = text != NULL ? strspn(text, "0123456789abcdefABCDEF") : 0;
    uint64_t correlation = 0;
    if (digits > 0 && digits <= CORRELATION_DIGITS && text[digits] == 0)
        correlation = strtoull(text, NULL, 16);
    while (correlation == 0)
        correlation = random_u64();
    return correlation;
}

static const char *token_of(struct MHD_Connection *connection)
{
    static const char scheme[] = "Bearer ";
    const char *text = header(connection, MHD_HTTP_HEADER_AUTHORIZATION);
    if (text == NULL || strncasecmp(text, scheme, strlen(scheme)) != 0)
        return NULL;
    text += strlen(scheme);
    return text + strspn(text, " ");
}

/* Of names only localhost and what is below it: a page that has its own name resolved to 127.0.0.1 (DNS
 * rebinding) is not to read on. An address names itself. */
static bool is_host_foreign(struct MHD_Connection *connection)
{
    static const char local[] = "localhost";
    const char *text = header(connection, MHD_HTTP_HEADER_HOST);
    if (text == NULL || text[0] == '[')
        return false;
    size_t len = strcspn(text, ":"), local_len = strlen(local);
    if (strspn(text, "0123456789.") == len)
        return false;
    bool ends_so = len >= local_len && strncasecmp(text + len - local_len, local, local_len) == 0;
    return !ends_so || (len > local_len && text[len - local_len - 1] != '.');
}

/* Any other coding would end with the connection only. */
static bool is_coding_unknown(struct MHD_Connection *connection)
{
    const char *text = header(connection, MHD_HTTP_HEADER_TRANSFER_ENCODING);
    return text != NULL && strcasecmp(text, "chunked") != 0;
}

static bool is_length_too_large(struct MHD_Connection *connection)
{
    const char *text = header(connection, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return text != NULL && strtoull(text, NULL, 10) > OBS_HTTP_BODY_MAX;
}

/* The body comes behind, after a "100 Continue" if the client waits for one. */
static enum MHD_Result on_headers(struct obs_http *http, struct MHD_Connection *connection, struct arrival *a)
{
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    a->is_begun = true;
    a->correlation = correlation_of(connection);
    obs_conn_is(http->conns, conn_of(connection), OBS_CONN_ARRIVING);
    if (size->header_size > OBS_HTTP_HEADERS_MAX)
        return refuse(http, connection, a, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large",
                      "the request's line and headers are too large");
    if (a->is_bad)
        return refuse(http, connection, a, MHD_HTTP_BAD_REQUEST, "bad_request",
                      "the path must begin with / and be percent-encoded");
    if (is_host_foreign(connection))
        return refuse(http, connection, a, MHD_HTTP_FORBIDDEN, "host_not_allowed",
                      "the header Host must be an address or localhost");
    if (is_coding_unknown(connection))
        return refuse(http, connection, a, MHD_HTTP_NOT_IMPLEMENTED, "not_implemented",
                      "the body's transfer coding must be chunked, or none");
    if (is_length_too_large(connection))
        return refuse(http, connection, a, MHD_HTTP_CONTENT_TOO_LARGE, "too_large", body_too_large);
    return MHD_YES;
}

static enum MHD_Result on_body(struct obs_http *http, struct MHD_Connection *connection, struct arrival *a,
                               const char *data, size_t *size)
{
    if (a->body.len + *size > OBS_HTTP_BODY_MAX)
        return break_off(connection, a);
    obs_conn_is(http->conns, conn_of(connection), OBS_CONN_ARRIVING);
    buf_append(&a->body, data, *size);
    *size = 0;
    return MHD_YES;
}

static void log_request(const struct obs_http_request *request, unsigned status, int64_t took_ns)
{
    enum log_level level = strcmp(request->method, "GET") == 0 && status < 500 ? LOG_DEBUG : LOG_INFO;
    log_for(level, request->correlation, "HTTP request", log_text("method", request->method),
            log_slice("path", slice_of(request->path, strnlen(request->path, LOGGED_PATH_BYTES))),
            log_uint("status", status), log_int("took_us", took_ns / NS_PER_US));
}

static enum MHD_Result on_whole(struct obs_http *http, struct MHD_Connection *connection,
                                const struct arrival *a, const char *method, const char *path)
{
    int64_t since_ns = clock_mono_ns();
    const struct obs_http_request request = {
        .method = strcmp(method, "HEAD") == 0 ? "GET" : method, /* libmicrohttpd leaves the body out */
        .path = path,
        .body = buf_slice(&a->body),
        .correlation = a->correlation,
        .token = token_of(connection),
        .connection = connection};
    struct obs_http_response response = new_response();
    obs_conn_is(http->conns, conn_of(connection), OBS_CONN_ANSWERING);
    http->options.handle(http->options.arg, &request, &response);
    int64_t took_ns = clock_mono_ns() - since_ns;
    telemetry_take(TELEMETRY_http_time, 0, (uint64_t)took_ns);
    log_request(&request, response.status, took_ns);
    enum MHD_Result result = respond(http, connection, a->correlation, &response);
    buf_free(&response.body);
    return result;
}

/* Once when the headers are here, then for each piece of the body, then at the end. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *size,
                                  void **state)
{
    struct arrival *a = *state;
    struct obs_http *http = arg;
    (void)version;
    if (!a->is_begun)
        return on_headers(http, connection, a);
    if (*size > 0)
        return on_body(http, connection, a, data, size);
    a->is_whole = true;
    http->answering++;
    return on_whole(http, connection, a, method, url);
}

static void on_end(void *arg, struct MHD_Connection *connection, void **state,
                   enum MHD_RequestTerminationCode how)
{
    struct obs_http *http = arg;
    struct arrival *a = *state;
    (void)how;
    obs_conn_is(http->conns, conn_of(connection), OBS_CONN_ARRIVING);
    if (a == NULL)
        return;
    http->answering -= a->is_whole;
    buf_free(&a->body);
    free(a);
    *state = NULL;
}

/* ---------------------------------------------------------------- life */

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct obs_http *http = arg;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        *context = obs_conn_begin(http->conns, fd_of(connection));
    else
        obs_conn_end(http->conns, *context);
}

static struct MHD_Daemon *start(struct obs_http *http)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(http->options.port)};
    if (inet_pton(AF_INET, http->options.address, &address.sin_addr) != 1)
        return NULL;
    return MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD, http->options.port, NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR,
        &address, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)(OBS_HTTP_CONNECTIONS + LEAVING_CONNECTIONS), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)OBS_HTTP_IDLE_S,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_URI_LOG_CALLBACK, on_uri, http,
        MHD_OPTION_NOTIFY_COMPLETED, on_end, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_END);
}

struct obs_http *obs_http_open(const struct obs_http_options *options)
{
    struct obs_http *http = xcalloc(1, sizeof *http);
    http->options = *options;
    http->conns = obs_conns_open(OBS_HTTP_CONNECTIONS);
    if (http->conns != NULL && (http->daemon = start(http)) != NULL)
        return http;
    log_error("cannot listen for HTTP", log_text("address", options->address),
              log_uint("port", options->port), log_text("error", strerror(errno)));
    if (http->conns != NULL)
        obs_conns_close(http->conns);
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
    const struct timespec pause = {.tv_nsec = CLOSE_LOOK_MS * NS_PER_MS};
    for (int ms = 0; http->answering > 0 && ms < CLOSE_MS; ms += CLOSE_LOOK_MS)
        nanosleep(&pause, NULL);
    MHD_stop_daemon(http->daemon);
    obs_conns_close(http->conns);
    free(http);
}
