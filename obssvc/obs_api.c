/* What is at the paths of the admin HTTP API (docs/admin-api.md). On HTTP's threads: the lock is held only to read. */
#include <string.h>

#include "obs_parts.h"

static void fail(struct obs_http_response *response, unsigned status, const char *code, const char *message)
{
    response->status = status;
    buf_printf(&response->body, "{\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"details\":{}}}\n", code, message);
}

static void metrics(struct obs *o, struct obs_http_response *response)
{
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    pthread_mutex_lock(&o->lock);
    obs_store_text(o->store, clock_mono_ns(), &response->body);
    pthread_mutex_unlock(&o->lock);
}

static void health(struct obs *o, struct obs_http_response *response)
{
    (void)o;
    buf_append_str(&response->body, "{\"status\":\"alive\"}\n");
}

static const struct route {
    const char *method, *path;
    void (*answer)(struct obs *o, struct obs_http_response *response);
} routes[] = {
    {"GET", "/metrics", metrics},
    {"GET", "/health", health},
};

static void handle(void *arg, const struct obs_http_request *request, struct obs_http_response *response)
{
    bool has_path = false;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (strcmp(routes[i].path, request->path) != 0)
            continue;
        has_path = true;
        if (strcmp(routes[i].method, request->method) == 0) {
            routes[i].answer(arg, response);
            return;
        }
    }
    if (has_path)
        fail(response, 405, "method_not_allowed", "this path has other methods");
    else
        fail(response, 404, "not_found", "there is nothing at this path");
}

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
