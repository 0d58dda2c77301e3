/* replsvc's own link: who follows what. */
#include "log.h"
#include "repl_view.h"

static void pack_counters(const struct repl_service *r, struct buf *out)
{
    const struct repl_counters *c = repl_core_counters(r->core);
    const struct named_count counts[] = {
#define NAMED_COUNT(name) {#name, c->name},
        REPL_COUNTERS(NAMED_COUNT)
#undef NAMED_COUNT
    };
    msgpack_packer pk;
    mp_packer(&pk, out);
    mp_pack_counts(&pk, counts, sizeof counts / sizeof counts[0]);
}

static void on_replicas(struct repl_service *r, struct link_token token)
{
    struct buf followed = {0}, followers = {0}, counters = {0}, closed = {0};
    struct repl_progress progress = repl_core_progress(r->core);
    int64_t now_ns = clock_mono_ns();
    repl_core_followed(r->core, now_ns, &followed);
    repl_core_followers(r->core, now_ns, &followers);
    pack_counters(r, &counters);
    repl_core_closed_logs(r->core, &closed);
    const struct msg_replicas_reply reply = {
        .node = slice_str(r->service->config->self->id),
        .log = r->identity.log,
        .durable_lsn = progress.durable_lsn,
        .quorum_lsn = progress.quorum_lsn,
        .all_lsn = progress.all_lsn,
        .followed = buf_slice(&followed),
        .followers = buf_slice(&followers),
        .counters = buf_slice(&counters),
        .closed = buf_slice(&closed),
        .certain = repl_core_is_certain(r->core),
    };
    r->body.len = 0;
    msg_encode(MSG_replicas_reply, &reply, &r->body);
    link_server_answer(r->link, token, MSG_replicas_reply, buf_slice(&r->body));
    buf_free(&followed);
    buf_free(&followers);
    buf_free(&counters);
    buf_free(&closed);
}

static void on_request(void *arg, const struct link_request *request)
{
    struct repl_service *r = arg;
    const struct msg_error refusal = {.code = SH_BAD_REQUEST,
                                      .text = slice_str("replsvc does not know this type of message")};
    if (request->type == MSG_replicas)
        on_replicas(r, request->token);
    else if (request->type == MSG_checkpoint)
        repl_view_ask(r, request);
    else
        link_server_refuse(r->link, request->token, &refusal);
}

enum service_exit repl_link_open(struct repl_service *r)
{
    struct link_server_options options = {
        .loop = r->service->loop,
        .limits = link_server_default_limits(),
        .cluster = r->service->cluster,
        .node = slice_str(r->service->config->self->id),
        .boot = r->service->boot,
        .on_request = on_request,
        .arg = r,
    };
    r->link = link_server_open(&options);
    if (link_server_listen(r->link, r->link_endpoint) == SH_OK)
        return EXIT_DONE;
    log_error("cannot listen", log_text("endpoint", r->link_endpoint));
    return EXIT_FAULT;
}

void repl_link_close(struct repl_service *r)
{
    if (r->link != NULL)
        link_server_close(r->link);
}
