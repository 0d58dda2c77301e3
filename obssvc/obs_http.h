/* The HTTP server on admin_port: libmicrohttpd with threads of its own. It knows limits, methods and headers;
 * what is at a path, the handler says. Whatever a client sends ends its own request or connection at most.
 *
 * On one IPv4 address. */
#ifndef OBSSVC_OBS_HTTP_H
#define OBSSVC_OBS_HTTP_H

#include "buf.h"

struct obs_http;

enum {
    OBS_HTTP_BODY_MAX = 64 << 10,    /* of a request; beyond: 413 */
    OBS_HTTP_HEADERS_MAX = 32 << 10, /* of a request, its line included; beyond: 431 */
    OBS_HTTP_CONNECTIONS = 256,      /* beyond, the one that was silent for longest is closed */
    OBS_HTTP_IDLE_S = 15             /* a connection that sends or takes nothing for so long is closed */
};
/* How long a request and an answer may take in all: obs_conn.h. */

/* Everything is borrowed for the call. */
struct obs_http_request {
    const char *method; /* "GET", "HEAD" told as "GET", "POST", or whatever the client says */
    const char *path;   /* percent-decoded, without its query; begins with / */
    struct slice body;
    uint64_t correlation; /* from X-Correlation-Id, or made; not 0; goes back in the answer's header */
    const char *token;    /* of "Authorization: Bearer TOKEN", or NULL */
    void *connection;
};
/* The value of ?name=value, percent-decoded, or NULL. */
const char *obs_http_argument(const struct obs_http_request *request, const char *name);

struct obs_http_response {
    unsigned status;          /* 200 unless the handler says otherwise */
    const char *content_type; /* a static string; "application/json" unless the handler says otherwise */
    const char *allow;        /* with 405: the methods */
    const char *policy;       /* Content-Security-Policy, or NULL */
    int64_t age_ms;           /* X-Age-Ms: how old it is what is told; -1, as it begins: nothing to tell */
    bool may_cache;           /* else Cache-Control: no-store */
    struct buf body;
};
/* Makes it an error, {"error":{"code":...,"message":...,"details":{}}}. code, message: nothing to escape. */
void obs_http_fail(struct obs_http_response *response, unsigned status, const char *code,
                   const char *message);

struct obs_http_options {
    const char *address; /* "127.0.0.1" */
    uint16_t port;       /* 0: the kernel chooses, for tests */
    /* Called by several threads at once; may take its time, which holds up no other connection but those of
     * the same thread. Not called for a request that is refused here: its URI is none (400), it is too long
     * (413, 431). */
    void (*handle)(void *arg, const struct obs_http_request *request, struct obs_http_response *response);
    void *arg;
};

/* NULL: cannot listen (logged). */
struct obs_http *obs_http_open(const struct obs_http_options *options);
uint16_t obs_http_port(const struct obs_http *http);
/* Waits for the answers that are under way, a second at most: who orders a shutdown shall hear of it. */
void obs_http_close(struct obs_http *http);

#endif
