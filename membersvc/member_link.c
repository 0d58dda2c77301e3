/* membersvc's link: who is in the cluster, joins and leaves, and events by long poll. What it tells of is on
 * disk first. Nothing that a client sends is fatal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "member_shell.h"

enum { EVENTS_MOST = 256 /* in an answer, unless asked for otherwise */ };

static void answer(struct member_service *m, struct link_token token, uint32_t type, const void *message)
{
    m->body.len = 0;
    msg_encode(type, message, &m->body);
    link_server_answer(m->server, token, type, buf_slice(&m->body));
}

static void refuse(struct member_service *m, struct link_token token, enum sh_error code, const char *text)
{
    struct msg_error error = {.code = code, .text = slice_str(text)};
    link_server_refuse(m->server, token, &error);
}

/* ---- what waits ---- */

static struct member_waiter *add_waiter(struct member_service *m, struct link_token token, struct slice body)
{
    struct member_waiter **at = &m->waiters;
    struct member_waiter *w = xmalloc(sizeof *w + body.len);
    *w = (struct member_waiter){.token = token, .len = body.len};
    if (body.len > 0)
        memcpy(w->body, body.data, body.len);
    while (*at != NULL)
        at = &(*at)->next;
    *at = w;
    return w;
}

static void on_drop(void *arg, uint64_t session)
{
    struct member_service *m = arg;
    for (struct member_waiter **at = &m->waiters; *at != NULL;) {
        struct member_waiter *w = *at;
        if (w->token.session == session) {
            *at = w->next;
            free(w);
        } else {
            at = &w->next;
        }
    }
}

/* ---- nodes ---- */

static void pack_watermarks(const struct member_view *view, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, view->watermark_count);
    for (size_t i = 0; i < view->watermark_count; i++) {
        const struct member_watermark *mark = &view->watermarks[i];
        msgpack_pack_array(&pk, 3);
        mp_pack_bin(&pk, slice_of(mark->log.bytes, sizeof mark->log.bytes));
        msgpack_pack_uint64(&pk, mark->lsn);
        msgpack_pack_uint64(&pk, mark->end);
    }
}

static void pack_node(const struct member_view *view, struct buf *out)
{
    struct buf record = {0}, watermarks = {0};
    member_encode(view->record, &record);
    struct msg_node_info info = {
        .member = buf_slice(&record),
        .self = view->self,
        .observed = view->observed,
        .unreachable = view->unreachable,
        .drifting = view->drifting,
        .heard_ms = view->heard_ns < 0 ? 0 : (uint64_t)(view->heard_ns / NS_PER_MS) + 1,
        .ahead_ms = view->ahead_ms > 0 ? (uint64_t)view->ahead_ms : 0,
        .behind_ms = view->ahead_ms < 0 ? (uint64_t)-view->ahead_ms : 0,
    };
    if (view->watermark_count > 0) {
        pack_watermarks(view, &watermarks);
        info.watermarks = buf_slice(&watermarks);
    }
    msg_encode(MSG_node_info, &info, out);
    buf_free(&record);
    buf_free(&watermarks);
}

static void pack_nodes(const struct member_service *m, struct buf *out)
{
    struct member_time now = member_now();
    size_t count = member_core_count(m->core);
    struct member_view view;
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        member_core_view(m->core, now, i, &view);
        pack_node(&view, out);
    }
}

static void pack_counters(const struct member_service *m, struct buf *out)
{
    const struct member_counters *c = member_core_counters(m->core);
    struct pipeline_out_stats stats = pipeline_out_stats(m->out);
    const struct named_count counts[] = {
#define NAMED_COUNT(name) {#name, c->name},
        MEMBER_COUNTERS(NAMED_COUNT)
#undef NAMED_COUNT
            {"connections", stats.connections},
        {"undelivered", stats.dropped},
    };
    msgpack_packer pk;
    mp_packer(&pk, out);
    mp_pack_counts(&pk, counts, sizeof counts / sizeof counts[0]);
}

static void answer_nodes(struct member_service *m, struct link_token token)
{
    struct member_self self = member_core_self(m->core);
    struct buf nodes = {0}, counters = {0};
    pack_nodes(m, &nodes);
    pack_counters(m, &counters);
    struct msg_nodes_reply reply = {
        .cluster = slice_str(m->service->config->cluster),
        .node = slice_str(m->service->config->self->id),
        .state = (uint64_t)self.state,
        .nodes = buf_slice(&nodes),
        .only_first = self.only_first,
        .only_last = self.only_last,
        .counters = buf_slice(&counters),
        .text = slice_str(self.text),
        .next_event = m->on_disk_next_event,
    };
    answer(m, token, MSG_nodes_reply, &reply);
    buf_free(&nodes);
    buf_free(&counters);
}

static void on_nodes(struct member_service *m, const struct link_request *request)
{
    struct msg_nodes ask;
    enum sh_error e = msg_decode(MSG_nodes, request->body, &ask);
    if (e != SH_OK) {
        refuse(m, request->token, e, "malformed");
        return;
    }
    if (ask.next_event == 0 || ask.wait_ms == 0) {
        answer_nodes(m, request->token);
        return;
    }
    struct member_waiter *w = add_waiter(m, request->token, (struct slice){0});
    w->nodes = true;
    w->after = ask.next_event - 1;
    w->due_ns = loop_now_ns(m->service->loop) + (int64_t)ask.wait_ms * NS_PER_MS;
}

/* ---- join and leave ---- */

/* What is done is answered once it is on disk. On a full one nothing is begun. */
static bool is_refused(struct member_service *m, const struct link_request *request)
{
    if (m->full)
        refuse(m, request->token, SH_DISK_FULL, "the disk is full: nothing can be changed now");
    return m->full;
}

static void answer_later(struct member_service *m, struct link_token token, uint32_t type,
                         const void *message)
{
    m->body.len = 0;
    msg_encode(type, message, &m->body);
    struct member_waiter *w = add_waiter(m, token, buf_slice(&m->body));
    w->type = type;
    w->version = member_core_version(m->core);
}

static void on_join(struct member_service *m, const struct link_request *request)
{
    struct msg_node_join join;
    struct msg_node_join_reply reply = {0};
    char text[MEMBER_TEXT_MAX] = "malformed";
    enum sh_error e = msg_decode(MSG_node_join, request->body, &join);
    if (e == SH_OK && is_refused(m, request))
        return;
    if (e == SH_OK)
        e = member_core_join(m->core, member_now(), &join, &reply.generation, text);
    if (e != SH_OK) {
        refuse(m, request->token, e, text);
        return;
    }
    log_for(LOG_INFO, request->correlation, "node join", log_slice("member", join.id),
            log_uint("generation", reply.generation));
    answer_later(m, request->token, MSG_node_join_reply, &reply);
}

static void on_leave(struct member_service *m, const struct link_request *request)
{
    struct msg_node_leave leave;
    struct msg_node_leave_reply reply = {0};
    char text[MEMBER_TEXT_MAX] = "malformed", id[CONFIG_ID_MAX + 1];
    enum sh_error e = msg_decode(MSG_node_leave, request->body, &leave);
    if (e == SH_OK && !member_text(id, sizeof id, leave.id))
        e = SH_BAD_REQUEST;
    if (e == SH_OK && is_refused(m, request))
        return;
    if (e == SH_OK)
        e = member_core_leave(m->core, member_now(), id, &reply, text);
    if (e != SH_OK) {
        refuse(m, request->token, e, text);
        return;
    }
    log_for(LOG_INFO, request->correlation, "node leave", log_text("member", id),
            log_uint("generation", reply.generation));
    answer_later(m, request->token, MSG_node_leave_reply, &reply);
}

/* ---- events ---- */

/* Answered once it is on disk. */
static void on_alarm(struct member_service *m, const struct link_request *request)
{
    struct msg_alarm alarm;
    enum sh_error e = request->local ? msg_decode(MSG_alarm, request->body, &alarm) : SH_FORBIDDEN;
    if (e == SH_OK)
        e = member_core_alarm(m->core, member_now(), alarm.id, alarm.text);
    if (e != SH_OK)
        refuse(m, request->token, e, "not a well-formed alarm of this node about a member");
    else
        answer_later(m, request->token, MSG_alarm_reply, &(struct msg_alarm_reply){0});
}

static void pack_event(const struct member_event *e, struct buf *out)
{
    struct msg_event event = {
        .number = e->number,
        .kind = (uint64_t)e->kind,
        .wall_ms = e->wall_ms,
        .id = slice_str(e->id),
        .generation = e->generation,
        .incarnation = e->incarnation,
        .text = slice_str(e->text),
    };
    msg_encode(MSG_event, &event, out);
}

static void answer_events(struct member_service *m, struct link_token token, uint64_t after, uint64_t most)
{
    struct member_events kept = member_core_events(m->core);
    uint64_t from = after + 1 > kept.first ? after + 1 : kept.first, end = m->on_disk_next_event;
    uint64_t count = from < end ? end - from : 0;
    count = count < most ? count : most;
    struct buf list = {0};
    msgpack_packer pk;
    mp_packer(&pk, &list);
    msgpack_pack_array(&pk, count);
    for (uint64_t i = 0; i < count; i++)
        pack_event(member_core_event(m->core, from + i), &list);
    struct msg_events_reply reply = {.series = kept.series, .first = kept.first, .events = buf_slice(&list)};
    answer(m, token, MSG_events_reply, &reply);
    buf_free(&list);
}

/* Whoever asks for another series learns at once that there is a new one, when there is one to keep. */
static void on_events(struct member_service *m, const struct link_request *request)
{
    struct msg_events ask;
    enum sh_error e = msg_decode(MSG_events, request->body, &ask);
    if (e != SH_OK) {
        refuse(m, request->token, e, "malformed");
        return;
    }
    bool known = id16_is_zero(ask.series) || id16_equal(ask.series, member_core_events(m->core).series);
    bool is_other = !known && m->on_disk > 0;
    struct member_waiter *w = add_waiter(m, request->token, (struct slice){0});
    w->after = known ? ask.after : 0;
    w->after = w->after < UINT64_MAX ? w->after : UINT64_MAX - 1;
    w->most = ask.most > 0 ? ask.most : EVENTS_MOST;
    w->due_ns = is_other ? 0 : loop_now_ns(m->service->loop) + (int64_t)ask.wait_ms * NS_PER_MS;
}

/* ---- answers ---- */

static bool answer_when_ready(struct member_service *m, const struct member_waiter *w, int64_t now_ns)
{
    bool ready = w->version > 0 ? w->version <= m->on_disk
                                : w->due_ns <= now_ns || w->after + 1 < m->on_disk_next_event;
    if (ready && w->version > 0)
        link_server_answer(m->server, w->token, w->type, slice_of(w->body, w->len));
    else if (ready && w->nodes)
        answer_nodes(m, w->token);
    else if (ready)
        answer_events(m, w->token, w->after, w->most);
    return ready;
}

void member_link_answer(struct member_service *m)
{
    struct loop *loop = m->service->loop;
    int64_t now_ns = loop_now_ns(loop), due_ns = INT64_MAX;
    for (struct member_waiter **at = &m->waiters; *at != NULL;) {
        struct member_waiter *w = *at;
        if (answer_when_ready(m, w, now_ns)) {
            *at = w->next;
            free(w);
            continue;
        }
        if (w->version == 0 && w->due_ns < due_ns)
            due_ns = w->due_ns;
        at = &w->next;
    }
    if (due_ns == INT64_MAX)
        loop_timer_cancel(loop, &m->due);
    else if (m->due.slot == 0 || m->due.due_ns != due_ns)
        loop_timer_set(loop, &m->due, due_ns);
}

static void on_due(void *arg)
{
    (void)arg; /* the turn's end answers */
}

/* ---- the link ---- */

static void on_request(void *arg, const struct link_request *request)
{
    struct member_service *m = arg;
    log_for(LOG_DEBUG, request->correlation, "request", log_uint("type", request->type),
            log_uint("bytes", request->body.len));
    switch (request->type) {
    case MSG_nodes:
        on_nodes(m, request);
        break;
    case MSG_node_join:
        on_join(m, request);
        break;
    case MSG_node_leave:
        on_leave(m, request);
        break;
    case MSG_events:
        on_events(m, request);
        break;
    case MSG_alarm:
        on_alarm(m, request);
        break;
    default:
        refuse(m, request->token, SH_BAD_REQUEST, "membersvc does not know this type of message");
    }
}

enum service_exit member_link_open(struct member_service *m)
{
    const struct config *config = m->service->config;
    struct link_server_options options = {
        .loop = m->service->loop,
        .limits = link_server_default_limits(),
        .cluster = m->service->cluster,
        .node = slice_str(config->self->id),
        .boot = m->service->boot,
        .on_request = on_request,
        .on_drop = on_drop,
        .arg = m,
    };
    m->due = (struct loop_timer){.fn = on_due, .arg = m};
    m->server = link_server_open(&options);
    if (link_server_listen(m->server, m->link) == SH_OK)
        return EXIT_DONE;
    log_error("cannot listen", log_text("endpoint", m->link));
    return EXIT_FAULT;
}

void member_link_close(struct member_service *m)
{
    if (m->server == NULL)
        return;
    link_server_close(m->server);
    loop_timer_cancel(m->service->loop, &m->due);
    while (m->waiters != NULL) {
        struct member_waiter *w = m->waiters;
        m->waiters = w->next;
        free(w);
    }
}
