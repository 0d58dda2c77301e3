/* Birth and death of querysvc, and its short answers. A damaged identity or a socket that cannot be opened
 * ends it at start; nothing that a client sends ever does. */
#include "query.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "telemetry_push.h"

enum {
    NODE_TEXT_MAX = 320,
    SMALL_QUEUE_BYTES = 1 << 20, /* of requests of at most some hundred bytes */
    APPEND_ACK = 4,              /* key of `ack` in `append` */
};

void query_answer(struct query *q, struct link_token token, uint32_t type, const void *message)
{
    q->body.len = 0;
    msg_encode(type, message, &q->body);
    link_server_answer(q->server, token, type, buf_slice(&q->body));
}

void query_refuse_with(struct query *q, struct link_token token, const struct msg_error *error)
{
    telemetry_add(TELEMETRY_query_refusals, 0, 1);
    link_server_refuse(q->server, token, error);
}

void query_refuse(struct query *q, struct link_token token, enum sh_error code, const char *text,
                  uint64_t expected)
{
    const struct msg_error error = {.code = code, .text = slice_str(text), .expected = expected};
    query_refuse_with(q, token, &error);
}

static void on_hello(struct query *q, const struct link_request *request)
{
    struct msg_hello hello;
    enum sh_error e = msg_decode(MSG_hello, request->body, &hello);
    if (e != SH_OK) {
        query_refuse(q, request->token, e, "malformed hello", 0);
        return;
    }
    const struct config *config = q->service->config;
    struct msg_hello_reply reply = {
        .cluster = slice_str(config->cluster),
        .cluster_id = q->service->cluster,
        .node = slice_str(config->self->id),
        .log = q->own.id,
        .version = slice_str(SHANGHAI_VERSION),
        .wal_link = hello.local && request->local ? slice_str(q->wal.endpoint) : (struct slice){0},
        .max_append_bytes = frame_body_most(config->settings.wal_segment_size),
    };
    query_group_hello(q, &reply);
    query_answer(q, request->token, MSG_hello_reply, &reply);
}

/* The segments of a log; none when there is none yet, or with an error, which names the file. */
static enum sh_error list_segments(struct query *q, struct id16 log, struct log_segment **segments,
                                   size_t *count, char bad_file[SEGMENT_NAME_MAX])
{
    char dir[PATH_MAX];
    reader_pool_dir(&q->readers, log, dir);
    enum sh_error e = log_list_segments(q->fs, dir, log, segments, count, bad_file);
    if (e != SH_OK)
        *count = 0;
    return e == SH_NOT_FOUND ? SH_OK : e;
}

enum { WRITES_TAKEN = 0, WRITES_AWAY = 3 }; /* `writes` of status_reply */

static void answer_status(struct query *q, const struct query_read *r)
{
    struct log_extent extent;
    char dir[PATH_MAX];
    reader_pool_dir(&q->readers, q->own.id, dir);
    log_extent_read(q->fs, dir, q->own.id, &extent); /* of damage log info and reads tell */
    const struct config *config = q->service->config;
    uint64_t writes = link_client_is_connected(q->watch) ? q->writes : WRITES_AWAY;
    struct msg_status_reply reply = {
        .cluster = slice_str(config->cluster),
        .node = slice_str(config->self->id),
        .version = slice_str(SHANGHAI_VERSION),
        .log = q->own.id,
        .writable = writes == WRITES_TAKEN,
        .writes = writes,
        .first_lsn = extent.segments > 0 ? extent.first_lsn : 1,
        .durable_lsn = q->own.durable_lsn,
        .durable_end = q->own.durable_end,
        .segments = extent.segments,
        .disk_bytes = extent.disk_bytes,
        .uptime_ms = (uint64_t)((clock_mono_ns() - q->started_ns) / NS_PER_MS),
        .clients = link_server_stats(q->server).clients,
        .commits = q->commits,
    };
    query_answer(q, r->token, MSG_status_reply, &reply);
}

static void answer_log_info(struct query *q, const struct query_read *r)
{
    const struct query_log *log = query_log_of(q, r);
    if (log == NULL)
        return;
    struct log_segment *segments;
    char bad_file[SEGMENT_NAME_MAX] = "", text[96];
    size_t count;
    enum sh_error e = list_segments(q, log->id, &segments, &count, bad_file);
    if (e != SH_OK) {
        snprintf(text, sizeof text, "a segment cannot be read: %s", bad_file);
        query_refuse(q, r->token, e, text, 0);
        return;
    }
    struct buf list = {0};
    msgpack_packer pk;
    size_t first = 0;
    while (first < count && segments[first].base_lsn < r->base)
        first++;
    size_t end = count - first > QUERY_SEGMENTS ? first + QUERY_SEGMENTS : count;
    mp_packer(&pk, &list);
    msgpack_pack_array(&pk, end - first);
    for (size_t i = first; i < end; i++) {
        msgpack_pack_array(&pk, 5);
        msgpack_pack_uint64(&pk, segments[i].base_lsn);
        msgpack_pack_uint64(&pk, segments[i].position);
        msgpack_pack_uint64(&pk, segments[i].file_bytes);
        msgpack_pack_uint64(&pk, (uint64_t)segments[i].created_ns);
        segments[i].sealed ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk);
    }
    struct msg_log_info_reply reply = {
        .log = log->id,
        .first_lsn = count > 0 ? segments[0].base_lsn : 1,
        .durable_lsn = log->durable_lsn,
        .durable_end = log->durable_end,
        .segments = buf_slice(&list),
        .next = end < count ? segments[end].base_lsn : 0,
    };
    query_answer(q, r->token, MSG_log_info_reply, &reply);
    buf_free(&list);
    free(segments);
}

static void on_log_info(struct query *q, const struct link_request *request)
{
    struct msg_log_info ask;
    enum sh_error e = msg_decode(MSG_log_info, request->body, &ask);
    if (e != SH_OK)
        query_refuse(q, request->token, e, "malformed", 0);
    else
        query_ask_first(q, request->token, ask.log, ask.from, answer_log_info);
}

/* What gives up data for good, or says who is in the cluster, is for who is on this node: nothing shows yet
 * who else a client is. */
static bool may_ask(const struct link_request *request)
{
    return request->local || (request->type != MSG_log_trim && request->type != MSG_accept_loss &&
                              request->type != MSG_node_join && request->type != MSG_node_leave &&
                              request->type != MSG_checkpoint);
}

/* Whether an append wants more than this node. Looks no further than it must; what is malformed, walsvc
 * refuses. */
static bool waits_for_others(struct slice body)
{
    struct mp m = mp_of(body);
    uint32_t pairs;
    uint64_t key, ack;
    if (!mp_map(&m, &pairs))
        return false;
    for (; pairs > 0 && mp_uint(&m, &key); pairs--) {
        if (key == APPEND_ACK)
            return mp_uint(&m, &ack) && ack > 0;
        if (!mp_skip(&m))
            return false;
    }
    return false;
}

/* False: no other daemon answers this. */
static bool pass_on(struct query *q, const struct link_request *request)
{
    switch (request->type) {
    case MSG_append:
        query_forward_send(waits_for_others(request->body) ? &q->wal_waiting : &q->wal, request);
        break;
    case MSG_accept_loss:
        query_forward_send(&q->wal, request);
        break;
    case MSG_wal_info:
    case MSG_producer_status:
        query_forward_now(&q->wal, request);
        break;
    case MSG_nodes:
    case MSG_node_join:
    case MSG_node_leave:
        query_forward_now(&q->member, request);
        break;
    case MSG_events:
        query_forward_now(&q->member_events, request);
        break;
    case MSG_replicas:
        query_forward_now(&q->repl, request);
        break;
    case MSG_metrics:
        query_forward_now(&q->obs, request);
        break;
    default:
        return false;
    }
    return true;
}

static void on_request(void *arg, const struct link_request *request)
{
    struct query *q = arg;
    query_count(request->type);
    log_for(LOG_DEBUG, request->correlation, "request", log_uint("type", request->type),
            log_uint("bytes", request->body.len));
    if (!may_ask(request)) {
        query_refuse(q, request->token, SH_FORBIDDEN, "only for clients on the node itself, by ipc", 0);
        return;
    }
    if (pass_on(q, request))
        return;
    switch (request->type) {
    case MSG_append_if:
        query_on_append_if(q, request);
        break;
    case MSG_log_trim:
        query_on_trim(q, request);
        break;
    case MSG_read:
        query_on_read(q, request);
        break;
    case MSG_kv_get:
    case MSG_kv_scan:
    case MSG_cursor_get:
    case MSG_cursor_set:
        query_on_view(q, request);
        break;
    case MSG_stream_read:
    case MSG_stream_list:
        query_on_stream(q, request);
        break;
    case MSG_view_info:
        query_on_view_info(q, request);
        break;
    case MSG_view_digest:
        query_on_view_digest(q, request);
        break;
    case MSG_checkpoint:
        query_on_checkpoint(q, request);
        break;
    case MSG_group_of:
        query_on_group_of(q, request);
        break;
    case MSG_watch:
        query_on_watch(q, request);
        break;
    case MSG_hello:
        on_hello(q, request);
        break;
    case MSG_status:
        query_ask_first(q, request->token, q->own.id, 0, answer_status);
        break;
    case MSG_log_info:
        on_log_info(q, request);
        break;
    default:
        query_refuse(q, request->token, SH_BAD_REQUEST, "querysvc does not know this type of message", 0);
    }
}

static void on_drop(void *arg, uint64_t session)
{
    query_drop_reads(arg, session);
    query_view_drop(arg, session);
    query_digest_drop(arg, session);
    query_condition_drop(arg, session);
    query_watch_drop(arg, session);
}

/* Names of everything, and what the disk shows of the log. walsvc has made the identity before we start. */
static enum service_exit find_log(struct query *q)
{
    const struct config *config = q->service->config;
    struct node_identity identity;
    char root[CONFIG_PATH_MAX], dir[PATH_MAX];
    enum service_exit code = service_identity(q->service, q->fs, &identity);
    if (code != EXIT_DONE)
        return code;
    q->own.id = identity.log;
    snprintf(q->query_link, sizeof q->query_link, "ipc://%.200s/query", config->run_dir);
    snprintf(root, sizeof root, "%.*s/log", (int)sizeof root - 8, config->data_dir);
    reader_pool_open(&q->readers, q->fs, root, config->settings.query_readers,
                     config->settings.query_reader_bytes);
    reader_pool_dir(&q->readers, q->own.id, dir);
    enum sh_error e = log_durable_end(q->fs, dir, q->own.id, &q->own.durable_end, &q->own.durable_lsn);
    if (e != SH_OK)
        log_warn("the durable end is not known yet", log_text("error", sh_error_name(e)));
    return EXIT_DONE;
}

static enum service_exit start_server(struct query *q)
{
    const struct config *config = q->service->config;
    struct link_server_options options = {
        .loop = q->service->loop,
        .limits = link_server_default_limits(),
        .cluster = q->service->cluster,
        .node = slice_str(config->self->id),
        .boot = q->service->boot,
        .on_request = on_request,
        .on_drop = on_drop,
        .arg = q,
    };
    char tcp_link[NODE_TEXT_MAX];
    options.limits.session_bytes = config->settings.link_session_bytes;
    options.limits.session_requests = (uint32_t)config->settings.link_session_requests;
    options.limits.sessions = (uint32_t)config->settings.link_sessions;
    q->server = link_server_open(&options);
    snprintf(tcp_link, sizeof tcp_link, "tcp://%s:%u", config->self->host, config->self->port);
    const char *links[] = {q->query_link, tcp_link};
    for (size_t i = 0; i < 2; i++) {
        if (link_server_listen(q->server, links[i]) == SH_OK)
            continue;
        log_error("cannot listen", log_text("endpoint", links[i]));
        return EXIT_FAULT;
    }
    return EXIT_DONE;
}

static enum sh_error open_links(struct query *q)
{
    size_t wal_bytes = q->service->config->settings.wal_queue_bytes;
    enum sh_error e = query_forward_open(q, &q->wal, "walsvc", "wal", wal_bytes);
    if (e == SH_OK)
        e = query_forward_open(q, &q->wal_waiting, "walsvc", "wal", wal_bytes);
    if (e == SH_OK)
        e = query_forward_open(q, &q->member, "membersvc", "member", SMALL_QUEUE_BYTES);
    if (e == SH_OK)
        e = query_forward_open(q, &q->member_events, "membersvc", "member", SMALL_QUEUE_BYTES);
    if (e == SH_OK)
        e = query_forward_open(q, &q->repl, "replsvc", "repl", SMALL_QUEUE_BYTES);
    if (e == SH_OK)
        e = query_forward_open(q, &q->obs, "obssvc", "obs", SMALL_QUEUE_BYTES);
    if (e == SH_OK)
        e = query_group_open(q);
    if (e == SH_OK)
        e = query_wal_open(q);
    return e == SH_OK && q->view != NULL ? query_fetch_open(q) : e;
}

static enum service_exit start(struct query *q)
{
    enum service_exit code = find_log(q);
    if (code != EXIT_DONE)
        return code;
    query_condition_open(q);
    if (q->service->config->settings.query_view) {
        query_checkpoints_open(q); /* removes what is left of the last life before there is a view */
        query_view_open(q);
        query_digest_open(q);
        query_watch_open(q);
    }
    if (open_links(q) != SH_OK)
        return EXIT_CONFIG;
    telemetry_on_gather(query_figures_gather, q);
    query_read_open(q); /* before the server: its hook is to run before the one that sends answers */
    return start_server(q);
}

enum service_exit query_open(struct service *service)
{
    struct query *q = xcalloc(1, sizeof *q);
    service->state = q;
    q->service = service;
    q->fs = vfs_posix();
    q->started_ns = clock_mono_ns();
    enum service_exit code = start(q);
    if (code != EXIT_DONE)
        query_close(service);
    return code;
}

void query_close(struct service *service)
{
    struct query *q = service->state;
    q->closing = true;
    if (q->ready.tail != NULL)
        query_read_close(q);
    query_wal_close(q);
    query_digest_close(q);
    query_view_close(q);
    query_fetch_close(q);
    query_checkpoints_close(q);
    query_group_close(q);
    query_watch_close(q);
    query_forward_close(&q->wal);
    query_forward_close(&q->wal_waiting);
    query_forward_close(&q->member);
    query_forward_close(&q->member_events);
    query_forward_close(&q->repl);
    query_forward_close(&q->obs);
    query_condition_close(q);
    reader_pool_close(&q->readers);
    if (q->server != NULL)
        link_server_close(q->server);
    buf_free(&q->body);
    free(q);
    service->state = NULL;
}

const char *query_ping(const struct service *service)
{
    const struct query *q = service->state;
    return q->query_link;
}
