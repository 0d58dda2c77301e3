/* The node, by libshanghai. */
#include "obs_poll_parts.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "json_cluster.h"
#include "log.h"

enum { CALL_MS = 2000, SLICE_MS = 100, AT_ONCE = 1024 };

/* ---------------------------------------------------------------- answers */

struct answers {
    struct sh_status status;
    struct sh_nodes nodes;
    struct sh_replicas replicas;
    bool has_nodes, has_replicas;
};

static void keep_status(struct obs_poll *p, const struct answers *a)
{
    struct json_writer j = {0};
    struct sh_health health;
    sh_health(&a->status, a->has_nodes ? &a->nodes : NULL, a->has_replicas ? &a->replicas : NULL, &health);
    json_status_fields(&j, &a->status, &health, a->has_nodes ? &a->nodes : NULL);
    pthread_mutex_lock(&p->lock);
    p->writes = a->status.writes;
    obs_poll_keep(p, OBS_STATUS, &j.out);
    pthread_mutex_unlock(&p->lock);
    buf_free(&j.out);
    sh_health_free(&health);
}

/* Each is one line, as shanghaictl prints it. */
static void keep_lists(struct obs_poll *p, const struct answers *a)
{
    struct json_writer nodes = {0}, replicas = {0};
    json_nodes(&nodes, &a->nodes);
    json_replicas(&replicas, &a->replicas);
    buf_append_str(&nodes.out, "\n");
    buf_append_str(&replicas.out, "\n");
    pthread_mutex_lock(&p->lock);
    p->state = a->has_nodes ? a->nodes.state : p->state;
    if (a->has_nodes)
        obs_poll_keep(p, OBS_NODES, &nodes.out);
    if (a->has_replicas)
        obs_poll_keep(p, OBS_REPLICAS, &replicas.out);
    pthread_mutex_unlock(&p->lock);
    buf_free(&nodes.out);
    buf_free(&replicas.out);
}

static void ask(struct obs_poll *p, struct sh_client *client)
{
    struct answers a = {0};
    if (sh_status(client, &a.status) != SH_OK || obs_poll_is_stopping(p))
        return;
    a.has_nodes = sh_nodes(client, &a.nodes) == SH_OK;
    a.has_replicas = !obs_poll_is_stopping(p) && sh_replicas(client, &a.replicas) == SH_OK;
    keep_status(p, &a);
    keep_lists(p, &a);
    sh_nodes_free(&a.nodes);
    sh_replicas_free(&a.replicas);
}

/* ---------------------------------------------------------------- events */

static enum log_level level_of(enum sh_node_event_kind kind)
{
    switch (kind) {
    case SH_EVENT_DOWN:
    case SH_EVENT_MUST_REJOIN:
    case SH_EVENT_REFUSED:
        return LOG_ERROR;
    case SH_EVENT_SUSPECT:
    case SH_EVENT_LEFT:
    case SH_EVENT_REPLACED:
    case SH_EVENT_UNREACHABLE:
    case SH_EVENT_CLOCK_DRIFT:
    case SH_EVENT_ALARM:
        return LOG_WARN;
    default:
        return LOG_INFO;
    }
}

static void pack_number(msgpack_packer *pk, const char *name, uint64_t number)
{
    mp_pack_cstr(pk, name);
    msgpack_pack_uint64(pk, number);
}

static void tell(struct obs_poll *p, const struct sh_node_event *e)
{
    const char *name = sh_node_event_name(e->kind);
    char kind[64];
    struct buf text = {0}, fields = {0};
    msgpack_packer pk;
    mp_packer(&pk, &fields);
    msgpack_pack_map(&pk, 4);
    mp_pack_cstr(&pk, "node");
    mp_pack_cstr(&pk, e->id);
    pack_number(&pk, "generation", e->generation);
    pack_number(&pk, "incarnation", e->incarnation);
    pack_number(&pk, "number", e->number);
    snprintf(kind, sizeof kind, "node_%s", name);
    buf_printf(&text, "%s: %s%s%s", e->id, name, e->text[0] != 0 ? ": " : "", e->text);
    obs_tell(p->obs, &(struct obs_event){.time_ms = e->wall_ms,
                                         .level = level_of(e->kind),
                                         .service = slice_str("membersvc"),
                                         .kind = slice_str(kind),
                                         .text = buf_slice(&text),
                                         .fields = buf_slice(&fields)});
    buf_free(&text);
    buf_free(&fields);
}

/* Waits for events until due_ns; comes back early when there can be none. */
static void follow(struct obs_poll *p, struct sh_events *events, int64_t due_ns)
{
    struct sh_node_event event;
    for (int i = 0; i < AT_ONCE && clock_mono_ns() < due_ns && !obs_poll_is_stopping(p);) {
        enum sh_error e = sh_events_next(events, SLICE_MS, &event);
        if (e == SH_OK && event.wall_ms >= p->obs->since_ms - OBS_BEFORE_MS)
            tell(p, &event);
        if (e == SH_OK)
            i++;
        else if (e != SH_TIMEOUT && e != SH_TRIMMED && e != SH_CONFLICT)
            return;
    }
}

/* ---------------------------------------------------------------- life */

static struct sh_client *open_client(const struct obs_poll *p)
{
    char endpoint[LINK_ENDPOINT_MAX];
    const char *endpoints[] = {endpoint};
    struct sh_options options = sh_default_options();
    struct sh_client *client;
    snprintf(endpoint, sizeof endpoint, "ipc://%.200s/query", p->obs->service->config->run_dir);
    options.endpoints = endpoints;
    options.endpoint_count = 1;
    options.timeout_ms = CALL_MS;
    options.no_direct = true;
    return sh_open(&options, &client) == SH_OK ? client : NULL;
}

void *obs_poll_node(void *arg)
{
    const struct sh_events_options options = {.follow = true};
    struct obs_poll *p = arg;
    struct sh_client *client = open_client(p);
    struct sh_events *events = NULL;
    int64_t due_ns = clock_mono_ns();
    if (client == NULL || sh_events_open(client, &options, &events) != SH_OK)
        log_error("the node cannot be asked", log_text("error", sh_last_error_detail()));
    while (events != NULL && obs_poll_wait(p, due_ns)) {
        due_ns = clock_mono_ns() + OBS_TURN_MS * INT64_C(1000000);
        ask(p, client);
        follow(p, events, due_ns);
    }
    sh_events_close(events);
    if (client != NULL)
        sh_close(client);
    return NULL;
}
