/* What changes something: who belongs to the cluster, and the end of the node. Each wants the token, and is a
 * line of the log. Joins and leaves one at a time: each may hold a thread of the HTTP server for ORDER_MS. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "control.h"
#include "json_cluster.h"
#include "log.h"
#include "obs_api.h"
#include "obs_json.h"
#include "obs_token.h"
#include "shanghai.h"

enum { ORDER_MS = 2500 }; /* within the supervisor's patience at a stop, with what the poller takes */

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* ---------------------------------------------------------------- who may */

static const struct {
    unsigned status;
    const char *code, *message;
} refusals[] = {
    [OBS_TOKEN_NOT_CONFIGURED] = {403, "forbidden", "no token is configured: see `admin_token_file`"},
    [OBS_TOKEN_UNREADABLE] = {403, "token_unreadable",
                              "the file of `admin_token_file` cannot be read, or is empty"},
    [OBS_TOKEN_EXPOSED] = {403, "token_exposed",
                           "others than its owner may read or write the file of `admin_token_file`"},
    [OBS_TOKEN_ABSENT] = {401, "unauthenticated", "this needs `Authorization: Bearer TOKEN`"},
    [OBS_TOKEN_WRONG] = {401, "unauthenticated", "this is not the token"},
};

/* False (answered, logged): this one may not. */
static bool may_order(const struct obs *o, const struct obs_http_request *request,
                      struct obs_http_response *response)
{
    enum obs_token token = obs_token_check(o->service->config->admin_token_file, request->token);
    if (token == OBS_TOKEN_RIGHT)
        return true;
    obs_api_fail(response, refusals[token].status, refusals[token].code, refusals[token].message,
                 (struct slice){0});
    log_for(LOG_WARN, request->correlation, "an order over HTTP was refused", log_text("path", request->path),
            log_text("error", refusals[token].code), log_text("why", refusals[token].message));
    return false;
}

/* ---------------------------------------------------------------- errors of the node */

static unsigned status_of(enum sh_error e)
{
    switch (e) {
    case SH_BAD_REQUEST:
        return 400;
    case SH_FORBIDDEN:
        return 403;
    case SH_NOT_FOUND:
    case SH_NOT_MEMBER:
        return 404;
    case SH_ALREADY_MEMBER:
    case SH_CONFLICT:
    case SH_TOO_LARGE:
        return 409;
    case SH_OVERLOADED:
    case SH_UNAVAILABLE:
        return 503;
    case SH_TIMEOUT:
        return 504;
    case SH_DISK_FULL:
        return 507;
    default:
        return 500;
    }
}

static void answer_error(const struct obs_http_request *request, struct obs_http_response *response,
                         enum sh_error e, const char *detail)
{
    const char *text = detail[0] != 0 ? detail : sh_error_text(e);
    obs_api_fail(response, status_of(e), sh_error_name(e), text, (struct slice){0});
    log_for(LOG_WARN, request->correlation, "an order over HTTP failed", log_text("path", request->path),
            log_text("error", sh_error_name(e)), log_text("why", text));
}

/* ---------------------------------------------------------------- what is ordered */

/* A body of /api/v1/nodes. */
struct change {
    char action[16], id[CONFIG_ID_MAX + 1], host[256], group[CONFIG_ID_MAX + 1];
    uint64_t port, admin_port;
    bool replace;
};

static const char *read_text(struct slice value, char *out, size_t size)
{
    return obs_json_text(value, out, size) ? NULL : "must be a text, and not too long";
}

static const char *read_port(struct slice value, uint64_t *out)
{
    return obs_json_uint(value, UINT16_MAX, out) ? NULL : "must be a port";
}

/* NULL: it is fine. */
static const char *read_member(const struct obs_json_member *m, struct change *c)
{
    if (slice_is(m->name, "action"))
        return read_text(m->value, c->action, sizeof c->action);
    if (slice_is(m->name, "id"))
        return read_text(m->value, c->id, sizeof c->id);
    if (slice_is(m->name, "host"))
        return read_text(m->value, c->host, sizeof c->host);
    if (slice_is(m->name, "group"))
        return read_text(m->value, c->group, sizeof c->group);
    if (slice_is(m->name, "port"))
        return read_port(m->value, &c->port);
    if (slice_is(m->name, "admin_port"))
        return read_port(m->value, &c->admin_port);
    if (slice_is(m->name, "replace"))
        return obs_json_bool(m->value, &c->replace) ? NULL : "must be true or false";
    return "is not known";
}

static bool is_one_of_ours(const struct change *c)
{
    return strcmp(c->action, "join") == 0 || strcmp(c->action, "leave") == 0;
}

/* False (answered): it makes no sense. */
static bool read_change(const struct obs_http_request *request, struct obs_http_response *response,
                        struct change *c)
{
    struct slice rest = request->body;
    struct obs_json_member member;
    char name[64];
    *c = (struct change){0};
    if (!obs_json_is_object(rest)) {
        obs_api_fail(response, 400, "bad_request", "the body is no JSON object", (struct slice){0});
        return false;
    }
    while (obs_json_next(&rest, &member)) {
        const char *problem = read_member(&member, c);
        snprintf(name, sizeof name, "%.*s", (int)member.name.len, (const char *)member.name.data);
        if (problem != NULL) {
            obs_api_fail_argument(response, name, problem);
            return false;
        }
    }
    if (is_one_of_ours(c) && c->id[0] != 0)
        return true;
    if (c->id[0] == 0)
        obs_api_fail_argument(response, "id", "says which node, and is missing");
    else
        obs_api_fail_argument(response, "action", "must be `join` or `leave`");
    return false;
}

static enum sh_error join(struct sh_client *client, const struct change *c, struct json_writer *j)
{
    uint64_t generation;
    const struct sh_join_options options = {
        .id = c->id,
        .host = c->host[0] != 0 ? c->host : NULL,
        .port = (uint16_t)c->port,
        .admin_port = (uint16_t)c->admin_port,
        .group = c->group[0] != 0 ? c->group : NULL,
        .replace = c->replace,
    };
    enum sh_error e = sh_node_join(client, &options, &generation);
    if (e == SH_OK)
        json_joined(j, c->id, generation);
    return e;
}

static enum sh_error leave(struct sh_client *client, const struct change *c, struct json_writer *j)
{
    struct sh_leave_result left;
    enum sh_error e = sh_node_leave(client, c->id, &left);
    if (e == SH_OK)
        json_left(j, c->id, &left);
    return e;
}

static enum sh_error change_nodes(const struct obs *o, const struct change *c, struct json_writer *j)
{
    char endpoint[LINK_ENDPOINT_MAX];
    const char *endpoints[] = {endpoint};
    struct sh_options options = sh_default_options();
    struct sh_client *client;
    snprintf(endpoint, sizeof endpoint, "ipc://%.200s/query", o->service->config->run_dir);
    options.endpoints = endpoints;
    options.endpoint_count = 1;
    options.timeout_ms = ORDER_MS;
    enum sh_error e = sh_open(&options, &client);
    if (e != SH_OK)
        return e;
    e = strcmp(c->action, "join") == 0 ? join(client, c, j) : leave(client, c, j);
    sh_close(client);
    return e;
}

void obs_api_change_nodes(struct obs *o, const struct obs_http_request *request,
                          struct obs_http_response *response)
{
    struct json_writer j = {0};
    struct change c;
    if (!may_order(o, request, response) || !read_change(request, response, &c))
        return;
    if (pthread_mutex_trylock(&one_at_a_time) != 0) {
        answer_error(request, response, SH_OVERLOADED, "another order is under way");
        return;
    }
    log_for(LOG_INFO, request->correlation, "order over HTTP", log_text("action", c.action),
            log_text("id", c.id));
    enum sh_error e = change_nodes(o, &c, &j);
    pthread_mutex_unlock(&one_at_a_time);
    if (e == SH_OK)
        obs_api_answer(response, &j);
    else
        answer_error(request, response, e, sh_last_error_detail());
    buf_free(&j.out);
}

/* ---------------------------------------------------------------- the end */

void obs_api_shutdown(struct obs *o, const struct obs_http_request *request,
                      struct obs_http_response *response)
{
    const struct msg_svc_command message = {.command = slice_str("shutdown")};
    struct msg_svc_reply reply = {0};
    struct buf storage = {0};
    struct json_writer j = {0};
    char path[CONFIG_PATH_MAX + 32];
    if (!may_order(o, request, response))
        return;
    log_for(LOG_INFO, request->correlation, "order over HTTP", log_text("action", "shutdown"));
    snprintf(path, sizeof path, "%s/supervisor.sock", o->service->config->run_dir);
    enum sh_error e = control_call(path, &message, ORDER_MS, &storage, &reply);
    if (e == SH_OK && reply.code == SH_OK) {
        response->status = 202;
        json_open(&j, NULL, '{');
        json_bool(&j, "done", true);
        json_slice(&j, "text", reply.text);
        json_close(&j, '}');
        obs_api_answer(response, &j);
    } else {
        answer_error(request, response, e != SH_OK ? e : (enum sh_error)reply.code, "");
    }
    buf_free(&storage);
}
