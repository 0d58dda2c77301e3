/* The paths of the admin HTTP API, and how it says no. */
#include "obs_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "obs_page.h"

/* ---------------------------------------------------------------- answers */

void obs_api_answer(struct obs_http_response *response, struct json_writer *j)
{
    buf_append_str(&j->out, "\n");
    buf_append(&response->body, j->out.data, j->out.len);
    buf_free(&j->out);
}

void obs_api_fail(struct obs_http_response *response, unsigned status, const char *code, const char *message,
                  struct slice details)
{
    struct json_writer j = {0};
    response->status = status;
    response->age_ms = -1;
    response->body.len = 0;
    json_open(&j, NULL, '{');
    json_open(&j, "error", '{');
    json_text(&j, "code", code);
    json_text(&j, "message", message);
    json_raw(&j, "details", details.len > 0 ? details : slice_str("{}"));
    json_close(&j, '}');
    json_close(&j, '}');
    obs_api_answer(response, &j);
}

void obs_api_fail_argument(struct obs_http_response *response, const char *name, const char *message)
{
    struct json_writer j = {0};
    char text[128];
    snprintf(text, sizeof text, "`%s` %s", name, message);
    json_open(&j, NULL, '{');
    json_text(&j, "argument", name);
    json_close(&j, '}');
    obs_api_fail(response, 400, "bad_request", text, buf_slice(&j.out));
    buf_free(&j.out);
}

bool obs_api_number(const struct obs_http_request *request, struct obs_http_response *response,
                    const char *name, uint64_t most, uint64_t initial, uint64_t *out)
{
    const char *text = obs_http_argument(request, name);
    char *end;
    *out = initial;
    if (text == NULL)
        return true;
    bool good = text[0] >= '0' && text[0] <= '9' && strlen(text) <= 19;
    *out = good ? strtoull(text, &end, 10) : 0;
    if (good && *end == 0 && *out <= most)
        return true;
    obs_api_fail_argument(response, name, "is no number, or too large");
    return false;
}

/* ---------------------------------------------------------------- paths */

static void metrics_text(struct obs *o, const struct obs_http_request *request,
                         struct obs_http_response *response)
{
    (void)request;
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    pthread_mutex_lock(&o->lock);
    obs_store_text(o->store, clock_mono_ns(), &response->body);
    pthread_mutex_unlock(&o->lock);
}

static void health(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    (void)o;
    (void)request;
    buf_append_str(&response->body, "{\"status\":\"alive\"}\n");
}

static void page(struct obs *o, const struct obs_http_request *request, struct obs_http_response *response)
{
    (void)o;
    obs_page(request->path, response);
}

/* NULL: the method is not for this path. */
static const struct route {
    const char *path;
    obs_api_fn *get, *post;
} routes[] = {
    {"/metrics", metrics_text, NULL},
    {"/health", health, NULL},
    {"/ready", obs_api_ready, NULL},
    {"/api/v1/status", obs_api_status, NULL},
    {"/api/v1/nodes", obs_api_nodes, obs_api_change_nodes},
    {"/api/v1/replicas", obs_api_replicas, NULL},
    {"/api/v1/services", obs_api_services, NULL},
    {"/api/v1/metrics", obs_api_metrics, NULL},
    {"/api/v1/history", obs_api_history, NULL},
    {"/api/v1/events", obs_api_events, NULL},
    {"/api/v1/logs", obs_api_logs, NULL},
    {"/api/v1/shutdown", NULL, obs_api_shutdown},
};

/* Of all that obs_page_has. */
static const struct route page_route = {NULL, page, NULL};

static const char *methods_of(const struct route *route)
{
    if (route->post == NULL)
        return "GET, HEAD";
    return route->get != NULL ? "GET, HEAD, POST" : "POST";
}

static obs_api_fn *answer_of(const struct route *route, const char *method)
{
    if (strcmp(method, "GET") == 0)
        return route->get;
    return strcmp(method, "POST") == 0 ? route->post : NULL;
}

static void handle(void *arg, const struct obs_http_request *request, struct obs_http_response *response)
{
    const struct route *route = obs_page_has(request->path) ? &page_route : NULL;
    for (size_t i = 0; i < sizeof routes / sizeof *routes && route == NULL; i++)
        if (strcmp(routes[i].path, request->path) == 0)
            route = &routes[i];
    if (route == NULL) {
        obs_api_fail(response, 404, "not_found", "there is nothing at this path", (struct slice){0});
        return;
    }
    obs_api_fn *answer = answer_of(route, request->method);
    if (answer != NULL) {
        answer(arg, request, response);
        return;
    }
    response->allow = methods_of(route);
    obs_api_fail(response, 405, "method_not_allowed", "this path has other methods", (struct slice){0});
}

/* ---------------------------------------------------------------- life */

bool obs_api_open(struct obs *o)
{
    const struct config_node *self = o->service->config->self;
    const struct obs_http_options options = {
        .address = "127.0.0.1", .port = self->admin_port, .handle = handle, .arg = o};
    if (self->admin_port == 0)
        return true;
    o->http = obs_http_open(&options);
    return o->http != NULL;
}

void obs_api_close(struct obs *o)
{
    if (o->http != NULL)
        obs_http_close(o->http);
}
