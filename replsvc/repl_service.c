/* Birth and death of replsvc, messages of other nodes, and what each turn of the loop ends with. What ends it
 * at start: a damaged identity, a socket that cannot be opened. Nothing that another node sends ever does. */
#include "repl_service.h"

#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "repl_shell.h"
#include "repl_view.h"
#include "telemetry_push.h"

enum { WAITING_BYTES = 1 << 20, FETCH_REQUEST_MAX = 8192, CONTEXTS = 192, POSITION_MAX = 4096 };
/* An asking end has one request under way on each of its connections (repl_fetcher.c). */
enum { CONTEXTS_EACH = 8 };

/* ---- what comes in ---- */

static bool open_message(const struct repl_service *r, struct slice message, struct msg_envelope *envelope,
                         enum repl_stranger *reason)
{
    enum sh_error error = msg_open(message, envelope);
    *reason = error == SH_VERSION_MISMATCH ? REPL_OTHER_VERSION : REPL_MALFORMED;
    if (error != SH_OK)
        return false;
    *reason = REPL_OTHER_CLUSTER;
    return slice_equal(envelope->cluster, r->service->cluster);
}

/* Opens the one kind of message that a port takes. */
static bool open_at_port(const struct repl_service *r, struct slice message, uint32_t type,
                         struct msg_envelope *envelope, void *out, enum repl_stranger *reason)
{
    if (!open_message(r, message, envelope, reason))
        return false;
    *reason = REPL_MALFORMED;
    return envelope->type == type && msg_decode(type, envelope->body, out) == SH_OK;
}

/* To port + 4; false: malformed. */
static bool take_request(struct repl_service *r, uint64_t token, const struct msg_envelope *envelope)
{
    union {
        struct msg_fetch fetch;
        struct msg_digests digests;
        struct msg_checkpoint checkpoint;
    } m;
    if ((envelope->type != MSG_fetch && envelope->type != MSG_digests && envelope->type != MSG_checkpoint) ||
        msg_decode(envelope->type, envelope->body, &m) != SH_OK)
        return false;
    if (envelope->type == MSG_checkpoint)
        repl_view_asked(r, token, envelope->sender, &m.checkpoint);
    else if (envelope->type == MSG_fetch)
        repl_core_asked(r->core, clock_mono_ns(), token, envelope->sender, &m.fetch);
    else
        repl_core_asked_digests(r->core, clock_mono_ns(), token, envelope->sender, &m.digests);
    return true;
}

static void on_fetch(void *arg, uint64_t token, struct slice message)
{
    static const struct repl_action answers[] = {
        [REPL_MALFORMED] = {.kind = REPL_REFUSE, .error = SH_BAD_REQUEST, .text = "malformed"},
        [REPL_OTHER_VERSION] = {.kind = REPL_REFUSE,
                                .error = SH_VERSION_MISMATCH,
                                .text = "another version of the protocol"},
        [REPL_OTHER_CLUSTER] = {.kind = REPL_REFUSE, .error = SH_BAD_REQUEST, .text = "another cluster"},
    };
    struct repl_service *r = arg;
    struct msg_envelope envelope;
    enum repl_stranger reason;
    bool opened = open_message(r, message, &envelope, &reason);
    if (opened && take_request(r, token, &envelope))
        return;
    if (opened)
        reason = REPL_MALFORMED;
    repl_core_stranger(r->core, clock_mono_ns(), reason, envelope.sender);
    struct repl_action answer = answers[reason];
    answer.token = token;
    repl_source_serve(r, &answer);
}

static void on_too_many(void *arg, struct slice message)
{
    struct repl_service *r = arg;
    struct msg_envelope envelope;
    enum repl_stranger reason;
    open_message(r, message, &envelope, &reason); /* whatever it is, but for who says to be its sender */
    repl_core_stranger(r->core, clock_mono_ns(), REPL_TOO_MANY, envelope.sender);
}

static void on_position(void *arg, struct slice message)
{
    struct repl_service *r = arg;
    struct msg_envelope envelope;
    struct msg_position position;
    enum repl_stranger reason;
    if (open_at_port(r, message, MSG_position, &envelope, &position, &reason))
        repl_core_position(r->core, clock_mono_ns(), envelope.sender, &position);
    else
        repl_core_stranger(r->core, clock_mono_ns(), reason, envelope.sender);
}

static void on_answer(void *arg, unsigned slot, uint64_t serial, struct repl_fetched *fetched)
{
    struct repl_service *r = arg;
    struct msg_envelope envelope;
    enum repl_stranger reason;
    int64_t now_ns = clock_mono_ns();
    if (!open_message(r, repl_fetched_message(fetched), &envelope, &reason)) {
        repl_core_stranger(r->core, now_ns, reason, envelope.sender);
        repl_fetched_free(fetched);
        repl_core_fetch_failed(r->core, now_ns, slot, serial);
        return;
    }
    if (repl_core_fetched(r->core, now_ns, slot, serial, envelope.type, envelope.body))
        r->fetched = fetched; /* the action that stores it is next */
    else
        repl_fetched_free(fetched);
    repl_turn(r);
}

static void on_failure(void *arg, unsigned slot, uint64_t serial)
{
    struct repl_service *r = arg;
    repl_core_fetch_failed(r->core, clock_mono_ns(), slot, serial);
}

/* ---- what goes out ---- */

void repl_pack_envelope(struct repl_service *r, uint32_t type)
{
    const struct msg_envelope envelope = {
        .type = type,
        .cluster = r->service->cluster,
        .sender = slice_str(r->service->config->self->id),
        .session = r->service->boot,
    };
    r->body.len = 0;
    msg_pack_envelope(&r->body, &envelope);
}

struct slice repl_pack(struct repl_service *r, uint32_t type, const void *message)
{
    repl_pack_envelope(r, type);
    msg_encode(type, message, &r->body);
    return buf_slice(&r->body);
}

static void do_action(struct repl_service *r, const struct repl_action *a)
{
    switch (a->kind) {
    case REPL_FETCH:
        repl_fetcher_ask(r->fetcher, a->slot, a->serial, a->host, a->port,
                         repl_pack(r, MSG_fetch, &a->fetch));
        break;
    case REPL_CANCEL:
        repl_fetcher_cancel(r->fetcher, a->slot);
        break;
    case REPL_STORE:
        repl_wal_store(r, a);
        break;
    case REPL_SERVE:
    case REPL_REFUSE:
        repl_source_serve(r, a);
        break;
    case REPL_POSITION:
        pipeline_out_send(r->positions_out, a->host, a->port, repl_pack(r, MSG_position, &a->position), 0);
        break;
    case REPL_REPLICATED:
        repl_wal_replicated(r, &a->replicated);
        break;
    case REPL_ASK_DAMAGE:
        repl_wal_ask_damage(r, a);
        break;
    case REPL_REPAIR:
        repl_wal_repair(r, a);
        break;
    case REPL_OWN_LOG:
        repl_wal_own_log(r, a);
        break;
    case REPL_HOLD:
        repl_wal_hold(r, a);
        break;
    case REPL_ASK_LOGS:
        repl_wal_ask_logs(r);
        break;
    case REPL_ASK_DIGESTS:
        repl_fetcher_ask(r->fetcher, a->slot, a->serial, a->host, a->port,
                         repl_pack(r, MSG_digests, &a->digests));
        break;
    case REPL_COMPARE:
        repl_digests_compare(r, a);
        break;
    case REPL_LOOK:
        repl_wal_look(r, &a->look);
        break;
    case REPL_GONE:
        repl_wal_gone(r, &a->gone);
        break;
    case REPL_TELL:
        repl_server_answer(r->server, a->token, repl_pack(r, MSG_fetch_reply, &a->reply), (struct slice){0});
        break;
    case REPL_SERVE_DIGESTS:
        repl_digests_serve(r, a);
        break;
    case REPL_LOOK_BACK:
        repl_back_look(r, a);
        break;
    case REPL_FIND_FORK:
        repl_back_compare(r, a);
        break;
    case REPL_ALARM:
        repl_members_alarm(r, a);
        break;
    case REPL_NOTICE:
        log_line((enum log_level)a->level, 0, a->text,
                 LOG_FIELDS(log_text("member", a->id), log_text("detail", a->detail)));
        break;
    }
}

void repl_turn(struct repl_service *r)
{
    struct repl_action action;
    while (repl_core_next_action(r->core, &action))
        do_action(r, &action);
}

static void on_turn_end(void *arg)
{
    struct repl_service *r = arg;
    repl_turn(r);
    int64_t due_ns = repl_core_due_ns(r->core);
    if (r->tick.slot == 0 || r->tick.due_ns != due_ns)
        loop_timer_set(r->service->loop, &r->tick, due_ns);
}

static void on_tick(void *arg)
{
    struct repl_service *r = arg;
    int64_t now_ns = clock_mono_ns();
    repl_core_tick(r->core, now_ns);
    if (now_ns - r->tidied_ns < NS_PER_S)
        return;
    r->tidied_ns = now_ns;
    repl_source_tidy(r);
    repl_figures_look(r);
}

/* ---- life ---- */

static enum service_exit open_ports(struct repl_service *r)
{
    const struct config_node *self = r->service->config->self;
    const struct pipeline_in_options in = {
        .loop = r->service->loop,
        .host = self->host,
        .port = (uint16_t)(self->port + REPL_POSITIONS_PORT),
        .message_bytes = POSITION_MAX,
        .waiting_bytes = WAITING_BYTES,
        .on_message = on_position,
        .arg = r,
    };
    const struct repl_server_options server = {
        .loop = r->service->loop,
        .host = self->host,
        .port = (uint16_t)(self->port + REPL_FETCH_PORT),
        .contexts = CONTEXTS,
        .each = CONTEXTS_EACH,
        .message_bytes = FETCH_REQUEST_MAX,
        .on_message = on_fetch,
        .on_too_many = on_too_many,
        .arg = r,
    };
    if (pipeline_in_open(&in, &r->positions_in) != SH_OK || repl_server_open(&server, &r->server) != SH_OK)
        return EXIT_FAULT;
    return EXIT_DONE;
}

static void open_peers(struct repl_service *r)
{
    const struct repl_fetcher_options fetcher = {
        .loop = r->service->loop,
        .slots = REPL_SLOTS,
        .message_bytes = REPL_MESSAGE_MAX,
        .on_answer = on_answer,
        .on_failure = on_failure,
        .arg = r,
    };
    struct pipeline_out_options out = pipeline_out_defaults(r->service->loop);
    r->fetcher = repl_fetcher_open(&fetcher);
    r->positions_out = pipeline_out_open(&out);
}

static void open_turns(struct repl_service *r)
{
    r->tick = (struct loop_timer){.fn = on_tick, .arg = r};
    r->hook = (struct loop_hook){.fn = on_turn_end, .arg = r};
    loop_hook_add(r->service->loop, &r->hook);
    loop_timer_after(r->service->loop, &r->tick, 0);
}

static enum service_exit start(struct repl_service *r)
{
    enum service_exit code = service_identity(r->service, vfs_posix(), &r->identity);
    if (code != EXIT_DONE)
        return code;
    const struct config *config = r->service->config;
    const struct repl_options options = {
        .node = config->self->id,
        .log = r->identity.log,
        .compare_interval_ns = (int64_t)config->settings.replication_compare_interval,
    };
    r->core = repl_core_open(&options);
    telemetry_on_gather(repl_figures_gather, r);
    open_turns(r); /* before the server: its hook is to run before the one that sends answers */
    open_peers(r);
    repl_view_open(r);
    if (repl_wal_open(r) != SH_OK || repl_members_open(r) != SH_OK)
        return EXIT_CONFIG;
    code = open_ports(r);
    return code == EXIT_DONE ? repl_link_open(r) : code;
}

enum service_exit repl_open(struct service *service)
{
    struct repl_service *r = xcalloc(1, sizeof *r);
    const char *run_dir = service->config->run_dir;
    service->state = r;
    r->service = service;
    snprintf(r->link_endpoint, sizeof r->link_endpoint, "ipc://%.200s/repl", run_dir);
    snprintf(r->wal_endpoint, sizeof r->wal_endpoint, "ipc://%.200s/wal", run_dir);
    snprintf(r->member_endpoint, sizeof r->member_endpoint, "ipc://%.200s/member", run_dir);
    enum service_exit code = start(r);
    if (code != EXIT_DONE)
        repl_close(service);
    return code;
}

void repl_close(struct service *service)
{
    struct repl_service *r = service->state;
    if (r->core != NULL) {
        loop_timer_cancel(service->loop, &r->tick);
        loop_hook_remove(service->loop, &r->hook);
    }
    if (r->server != NULL)
        repl_server_close(r->server);
    if (r->positions_in != NULL)
        pipeline_in_close(r->positions_in);
    repl_link_close(r);
    repl_view_close(r);
    repl_members_close(r);
    repl_wal_close(r);
    if (r->fetcher != NULL)
        repl_fetcher_close(r->fetcher);
    if (r->positions_out != NULL)
        pipeline_out_close(r->positions_out);
    repl_source_close(r);
    if (r->core != NULL)
        repl_core_close(r->core);
    buf_free(&r->body);
    buf_free(&r->frames);
    free(r);
    service->state = NULL;
}

const char *repl_ping(const struct service *service)
{
    const struct repl_service *r = service->state;
    return r->link_endpoint;
}
