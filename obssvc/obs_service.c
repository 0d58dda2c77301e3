/* Birth and death of obssvc, and the link that daemons tell it by. A port that is taken ends it at start;
 * nothing that anybody sends ever does. */
#include "obs_service.h"

#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "log.h"
#include "obs_parts.h"

/* ---------------------------------------------------------------- the link */

static void on_telemetry(struct obs *o, const struct link_request *request)
{
    struct msg_telemetry m;
    struct msg_telemetry_reply reply;
    struct buf body = {0};
    enum sh_error e = request->local ? msg_decode(MSG_telemetry, request->body, &m) : SH_FORBIDDEN;
    if (e == SH_OK) {
        pthread_mutex_lock(&o->lock);
        e = obs_store_take(o->store, &m, clock_mono_ns(), &reply.happened);
        pthread_mutex_unlock(&o->lock);
    }
    if (e != SH_OK) {
        log_warn("what a daemon tells of itself is refused", log_slice("sender", request->sender),
                 log_text("error", sh_error_name(e)));
        link_server_refuse(o->server, request->token, &(struct msg_error){.code = e});
        return;
    }
    msg_encode(MSG_telemetry_reply, &reply, &body);
    link_server_answer(o->server, request->token, MSG_telemetry_reply, buf_slice(&body));
    buf_free(&body);
}

static void on_request(void *arg, const struct link_request *request)
{
    static const struct msg_error unknown = {.code = SH_BAD_REQUEST};
    struct obs *o = arg;
    if (request->type == MSG_telemetry)
        on_telemetry(o, request);
    else if (request->type == MSG_metrics)
        obs_on_metrics(o, request);
    else
        link_server_refuse(o->server, request->token, &unknown);
}

static bool open_link(struct obs *o)
{
    const struct link_server_options options = {
        .loop = o->service->loop,
        .limits = link_server_default_limits(),
        .cluster = o->service->cluster,
        .node = slice_str(o->service->config->self->id),
        .boot = o->service->boot,
        .on_request = on_request,
        .arg = o,
    };
    snprintf(o->endpoint, sizeof o->endpoint, "ipc://%.200s/obs", o->service->config->run_dir);
    o->server = link_server_open(&options);
    return o->server != NULL && link_server_listen(o->server, o->endpoint) == SH_OK;
}

/* ---------------------------------------------------------------- life */

void obs_tell(struct obs *o, const struct obs_event *event)
{
    pthread_mutex_lock(&o->lock);
    obs_store_add_event(o->store, event);
    pthread_mutex_unlock(&o->lock);
}

enum service_exit obs_open(struct service *service)
{
    struct obs *o = xcalloc(1, sizeof *o);
    service->state = o;
    o->service = service;
    o->since_ms = clock_real_ns() / NS_PER_MS;
    o->store = obs_store_open();
    pthread_mutex_init(&o->lock, NULL);
    obs_sample_open(o);
    o->poll = obs_poll_open(o);
    if (!open_link(o)) {
        log_error("cannot listen", log_text("endpoint", o->endpoint));
        obs_close(service);
        return EXIT_FAULT;
    }
    if (!obs_api_open(o)) {
        obs_close(service);
        return EXIT_FAULT;
    }
    return EXIT_DONE;
}

void obs_close(struct service *service)
{
    struct obs *o = service->state;
    obs_api_close(o);
    obs_poll_close(o->poll);
    obs_sample_close(o);
    if (o->server != NULL)
        link_server_close(o->server);
    obs_store_close(o->store);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

const char *obs_ping(const struct service *service)
{
    const struct obs *o = service->state;
    return o->endpoint;
}
