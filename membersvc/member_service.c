/* Birth and death of membersvc. What ends it at start: a damaged identity, state of another cluster, node or
 * log, a socket that cannot be opened. Nothing that another node or a client sends ever does. */
#include "member_service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "member_shell.h"
#include "telemetry_push.h"

enum { MEMBER_PORT = 2, WAITING_BYTES = 4 << 20, PEER_BYTES = 256 << 10 };

static struct member_timing timing_of(const struct config *config)
{
    const struct settings *s = &config->settings;
    return (struct member_timing){.heartbeat_ns = (int64_t)s->member_heartbeat_interval,
                                  .suspect_ns = (int64_t)s->member_suspect_after,
                                  .down_ns = (int64_t)s->member_down_after,
                                  .drift_ms = s->member_clock_drift / NS_PER_MS};
}

/* The events that are on disk. */
static void note_saved(struct member_service *m, const struct buf *saved)
{
    struct msg_member_state state;
    if (saved->len > 0 && msg_decode(MSG_member_state, buf_slice(saved), &state) == SH_OK)
        m->on_disk_next_event = state.next_event;
    else
        m->on_disk_next_event = member_core_events(m->core).first;
}

static enum sh_error make_core(struct member_service *m, const struct buf *saved, char text[MEMBER_TEXT_MAX])
{
    const struct config *config = m->service->config;
    struct member_options options = {
        .cluster_name = config->cluster,
        .self = config->self,
        .nodes = config->nodes,
        .node_count = config->node_count,
        .log = m->identity.log,
        .boot = m->service->boot,
        .timing = timing_of(config),
        .seed = random_u64(),
    };
    memcpy(options.cluster, config->cluster_id, sizeof options.cluster);
    return member_core_open(&options, member_now(), buf_slice(saved), text, &m->core);
}

/* From what is saved, or else from the topology file. */
static enum service_exit start_core(struct member_service *m)
{
    const char *data_dir = m->service->config->data_dir;
    char text[MEMBER_TEXT_MAX] = "";
    struct buf saved = {0};
    enum service_exit code = member_file_read(m->fs, data_dir, &saved);
    enum sh_error e = code == EXIT_DONE ? make_core(m, &saved, text) : SH_OK;
    if (e == SH_CORRUPT) {
        code = member_file_quarantine(m->fs, data_dir, text);
        saved.len = 0;
        e = code == EXIT_DONE ? make_core(m, &saved, text) : SH_OK;
    }
    if (e != SH_OK) {
        log_error("data/member is not this node's", log_text("dir", data_dir), log_text("reason", text));
        code = EXIT_CONFIG;
    }
    if (code == EXIT_DONE)
        note_saved(m, &saved);
    buf_free(&saved);
    return code;
}

static enum service_exit start_pipelines(struct member_service *m)
{
    const struct config_node *self = m->service->config->self;
    struct pipeline_out_options out = pipeline_out_defaults(m->service->loop);
    const struct pipeline_in_options in = {
        .loop = m->service->loop,
        .host = self->host,
        .port = (uint16_t)(self->port + MEMBER_PORT),
        .message_bytes = MEMBER_MESSAGE_MAX,
        .waiting_bytes = WAITING_BYTES,
        .on_message = member_on_message,
        .arg = m,
    };
    out.peer_bytes = PEER_BYTES;
    m->out = pipeline_out_open(&out);
    return pipeline_in_open(&in, &m->in) == SH_OK ? EXIT_DONE : EXIT_FAULT;
}

static enum service_exit start(struct member_service *m)
{
    enum service_exit code = service_identity(m->service, m->fs, &m->identity);
    if (code == EXIT_DONE)
        code = start_core(m);
    if (code != EXIT_DONE)
        return code;
    if (member_wal_open(m) != SH_OK)
        return EXIT_CONFIG;
    telemetry_on_gather(member_figures_gather, m);
    member_turn_open(m); /* before the server: its hook is to run before the one that sends answers */
    code = start_pipelines(m);
    return code == EXIT_DONE ? member_link_open(m) : code;
}

enum service_exit member_open(struct service *service)
{
    struct member_service *m = xcalloc(1, sizeof *m);
    service->state = m;
    m->service = service;
    m->fs = vfs_posix();
    snprintf(m->link, sizeof m->link, "ipc://%.200s/member", service->config->run_dir);
    snprintf(m->wal_link, sizeof m->wal_link, "ipc://%.200s/wal", service->config->run_dir);
    enum service_exit code = start(m);
    if (code != EXIT_DONE)
        member_close(service);
    return code;
}

void member_reload(struct service *service)
{
    struct member_service *m = service->state;
    struct member_timing timing = timing_of(service->config);
    member_core_set_timing(m->core, member_now(), &timing);
}

void member_close(struct service *service)
{
    struct member_service *m = service->state;
    member_turn_close(m);
    if (m->in != NULL)
        pipeline_in_close(m->in);
    member_link_close(m);
    member_wal_close(m);
    if (m->out != NULL)
        pipeline_out_close(m->out);
    if (m->core != NULL)
        member_core_close(m->core);
    buf_free(&m->body);
    free(m);
    service->state = NULL;
}

const char *member_ping(const struct service *service)
{
    const struct member_service *m = service->state;
    return m->link;
}
