/* walsvc's shell. Requests come from the link into the core, frames go from the core to the committer (once a
 * turn of the loop; a single small one is committed in the turn itself), what the committer and the preparer
 * report comes back by mail, and so do the janitors' answers. What concerns the copies of other nodes' logs
 * goes to wal_copies.c; whether the own log is extended, or is open as a copy itself, is dealt with in
 * wal_service_own.c. Bad requests are refused; what is fatal stands in wal_commit.c, wal_copier.c,
 * wal_prepare.c and wal_upkeep.c. */
#include "wal_service_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "telemetry_push.h"
#include "wal_core.h"
#include "wal_fatal.h"
#include "wal_levels.h"

enum { LINK_SLACK_BYTES = 16 << 20, AGAIN_MS = 100 };

/* From the committer, a preparer or a janitor. */
struct wal_mail {
    struct mail mail;
    enum { MAIL_DURABLE, MAIL_NEXT, MAIL_ANSWER, MAIL_INDEX_LOST, MAIL_TRIMMED, MAIL_DROP } kind;
    struct id16 log; /* of the last three: a copy may be gone when the mail is read */
    uint64_t first_lsn;
    struct wal_durable durable;
    enum wal_next next;
    struct link_token token; /* of an answer: to whom, what */
    uint32_t type;
    struct buf body;
};

/* ---------------------------------------------------------------- from the threads */

/* A committer that has nothing else to do gives the answers itself, when the loop's turn is free. */
static void post_durable(void *arg, const struct wal_durable *durable, bool idle)
{
    struct wal_service *w = arg;
    struct wal_mail *mail = xmalloc(sizeof *mail);
    *mail = (struct wal_mail){.kind = MAIL_DURABLE, .durable = *durable};
    if (!idle)
        mailbox_put(&w->mailbox, &mail->mail);
    else if (mailbox_put_turn(&w->mailbox, &mail->mail))
        loop_turn_once(w->service->loop); /* the next group must not wait for more of it */
}

static void post_next(void *arg, enum wal_next next)
{
    struct wal_service *w = arg;
    struct wal_mail *mail = xmalloc(sizeof *mail);
    *mail = (struct wal_mail){.kind = MAIL_NEXT, .next = next};
    mailbox_put(&w->mailbox, &mail->mail);
}

static void post_of(struct wal_service *w, int kind, const struct wal_store *store, uint64_t first_lsn)
{
    struct wal_mail *mail = xmalloc(sizeof *mail);
    *mail = (struct wal_mail){.kind = kind, .log = store->uuid, .first_lsn = first_lsn};
    mailbox_put(&w->mailbox, &mail->mail);
}

static void post_index_lost(void *arg, struct wal_store *store)
{
    post_of(arg, MAIL_INDEX_LOST, store, 0);
}

static void post_trimmed(void *arg, struct wal_store *store, uint64_t first_lsn)
{
    post_of(arg, MAIL_TRIMMED, store, first_lsn);
}

static void post_drop(void *arg, struct wal_store *store)
{
    post_of(arg, MAIL_DROP, store, 0);
}

static void post_answer(void *arg, struct link_token token, uint32_t type, struct buf *body)
{
    struct wal_service *w = arg;
    struct wal_mail *mail = xmalloc(sizeof *mail);
    *mail = (struct wal_mail){.kind = MAIL_ANSWER, .token = token, .type = type, .body = *body};
    mailbox_put(&w->mailbox, &mail->mail);
}

void wal_service_set_timer(struct wal_service *w)
{
    int64_t due_ns = wal_core_due_ns(w->core), logs_ns = wal_logs_due_ns(&w->logs);
    due_ns = logs_ns < due_ns ? logs_ns : due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(w->service->loop, &w->timer);
    else
        loop_timer_set(w->service->loop, &w->timer, due_ns);
}

static void on_copies_change(void *arg)
{
    wal_service_set_timer(arg);
}

/* Two threads may tell in either order. */
static void take_durable(struct wal_service *w, const struct wal_durable *durable)
{
    w->durable_ns = clock_mono_ns();
    wal_core_durable(w->core, durable);
    if (durable->end > w->logs.all[0].durable.end)
        wal_logs_moved(&w->logs, 0, durable);
    wal_service_regain(w);
}

/* Of the own log, or of a copy, which may be gone by now. */
static void take_of_store(struct wal_service *w, const struct wal_mail *mail)
{
    bool own = id16_equal(mail->log, w->own.uuid);
    if (mail->kind == MAIL_DROP)
        wal_copies_drop_copy(w->copies, mail->log);
    else if (mail->kind == MAIL_TRIMMED)
        wal_logs_trimmed(&w->logs, mail->log, mail->first_lsn);
    else if (!own || w->is_copy)
        wal_copies_index_lost(w->copies, mail->log);
    else if (w->own.prepare != NULL) /* else the next start makes it */
        wal_prepare_look(w->own.prepare);
}

static void take_mail(struct wal_service *w, struct wal_mail *mail)
{
    switch (mail->kind) {
    case MAIL_ANSWER:
        link_server_answer(w->link, mail->token, mail->type, buf_slice(&mail->body));
        break;
    case MAIL_DURABLE:
        take_durable(w, &mail->durable);
        break;
    case MAIL_INDEX_LOST:
    case MAIL_TRIMMED:
    case MAIL_DROP:
        take_of_store(w, mail);
        break;
    case MAIL_NEXT:
        if (w->commit != NULL) { /* at the end nothing new is taken in */
            wal_core_next_segment(w->core, mail->next, clock_real_ns());
            wal_service_regain(w);
        }
        break;
    }
}

static void on_mail(void *arg, struct mail *first)
{
    struct wal_service *w = arg;
    while (first != NULL) {
        struct wal_mail *mail = (struct wal_mail *)first;
        first = first->next;
        take_mail(w, mail);
        buf_free(&mail->body);
        free(mail);
    }
    wal_service_set_timer(w);
}

/* ---------------------------------------------------------------- from the core */

static void queue_frame(void *arg, struct wal_frame *frame)
{
    struct wal_service *w = arg;
    *w->last = frame;
    w->last = &frame->next;
}

static struct wal_frame *take_frames(struct wal_service *w)
{
    struct wal_frame *first = w->first;
    w->first = NULL;
    w->last = &w->first;
    return first;
}

static void flush(void *arg)
{
    struct wal_service *w = arg;
    struct wal_durable durable;
    struct wal_frame *first = take_frames(w);
    if (first == NULL)
        return;
    if (wal_commit_now(w->commit, first, &durable)) {
        take_durable(w, &durable);
        wal_service_set_timer(w);
    } else {
        wal_commit_put(w->commit, first);
    }
}

static void send_reply(void *arg, struct link_token token, const struct msg_append_reply *reply)
{
    struct wal_service *w = arg;
    w->body.len = 0;
    msg_encode(MSG_append_reply, reply, &w->body);
    link_server_answer(w->link, token, MSG_append_reply, buf_slice(&w->body));
}

static void unlend(void *arg, struct link_token token)
{
    struct wal_service *w = arg;
    link_server_unlend(w->link, token);
}

static void send_refusal(void *arg, struct link_token token, const struct msg_error *error)
{
    struct wal_service *w = arg;
    link_server_refuse(w->link, token, error);
}

static void send_watermark(void *arg, struct link_token token, const struct msg_watermark_reply *reply)
{
    struct wal_service *w = arg;
    w->body.len = 0;
    msg_encode(MSG_watermark_reply, reply, &w->body);
    link_server_answer(w->link, token, MSG_watermark_reply, buf_slice(&w->body));
}

static void send_logs(void *arg, struct link_token token, const struct msg_logs_reply *reply)
{
    struct wal_service *w = arg;
    w->body.len = 0;
    msg_encode(MSG_logs_reply, reply, &w->body);
    link_server_answer(w->link, token, MSG_logs_reply, buf_slice(&w->body));
}

static void loss_accepted(void *arg)
{
    struct wal_service *w = arg;
    if (w->mend != NULL) /* else nobody waits for it any more */
        wal_mend_accepted(w->mend);
}

static void loss_refused(void *arg, enum sh_error error, const char *text)
{
    struct wal_service *w = arg;
    if (w->mend != NULL)
        wal_mend_refused(w->mend, error, text);
}

static void send_status(void *arg, struct link_token token, const struct msg_producer_status_reply *reply)
{
    struct wal_service *w = arg;
    w->body.len = 0;
    msg_encode(MSG_producer_status_reply, reply, &w->body);
    link_server_answer(w->link, token, MSG_producer_status_reply, buf_slice(&w->body));
}

/* The permit's file was synced before. */
static void send_permit_reply(void *arg, struct link_token token, uint64_t durable_lsn)
{
    struct wal_service *w = arg;
    struct msg_write_permit_reply reply = {.durable_lsn = durable_lsn};
    w->body.len = 0;
    msg_encode(MSG_write_permit_reply, &reply, &w->body);
    link_server_answer(w->link, token, MSG_write_permit_reply, buf_slice(&w->body));
}

/* ---------------------------------------------------------------- from the link */

void wal_service_refuse(struct wal_service *w, const struct link_request *request, enum sh_error code,
                        const char *text)
{
    struct msg_error refusal = {.code = code, .text = slice_str(text)};
    if (code == SH_OVERLOADED || code == SH_UNAVAILABLE)
        refusal.retry_ms = AGAIN_MS;
    link_server_refuse(w->link, request->token, &refusal);
}

static void on_append(struct wal_service *w, const struct link_request *request)
{
    struct msg_append append;
    enum sh_error error = msg_decode(MSG_append, request->body, &append);
    log_for(LOG_DEBUG, request->correlation, "append", log_uint("sequence", append.sequence),
            log_uint("bytes", request->body.len));
    if (error != SH_OK) {
        telemetry_add(TELEMETRY_wal_refused, 0, 1);
        wal_service_refuse(w, request, error, "not a well-formed append");
        return;
    }
    wal_core_append(w->core, request->token, &append, clock_real_ns(), loop_now_ns(w->service->loop));
    if (append.ack != WAL_LOCAL)
        wal_service_set_timer(w); /* one that is repeated may wait already */
}

static void on_producer_status(struct wal_service *w, const struct link_request *request)
{
    struct msg_producer_status status;
    enum sh_error error = msg_decode(MSG_producer_status, request->body, &status);
    if (error != SH_OK)
        wal_service_refuse(w, request, error, "not a well-formed producer_status");
    else
        wal_core_producer_status(w->core, request->token, &status);
}

static void on_watermark(struct wal_service *w, const struct link_request *request)
{
    struct msg_watermark watermark;
    enum sh_error error = msg_decode(MSG_watermark, request->body, &watermark);
    if (error != SH_OK) {
        wal_service_refuse(w, request, error, "not a well-formed watermark request");
        return;
    }
    if (w->is_copy && !w->own_is_open) { /* how far it goes is not known yet */
        wal_service_refuse(w, request, SH_UNAVAILABLE, "the node's own log is being opened");
        return;
    }
    wal_core_watermark(w->core, request->token, &watermark, loop_now_ns(w->service->loop));
    wal_service_set_timer(w);
}

static void on_logs(struct wal_service *w, const struct link_request *request)
{
    struct msg_logs logs;
    enum sh_error error = msg_decode(MSG_logs, request->body, &logs);
    if (error != SH_OK) {
        wal_service_refuse(w, request, error, "not a well-formed logs request");
        return;
    }
    wal_logs_ask(&w->logs, request->token, &logs, loop_now_ns(w->service->loop));
    wal_service_set_timer(w);
}

/* The log that a request names; zero is the own one. False, and refused: it isn't served here. */
static bool find_store(struct wal_service *w, const struct link_request *request, struct id16 log,
                       struct wal_store **store, uint64_t *durable_end)
{
    *store = &w->own;
    *durable_end = wal_core_stats(w->core).durable_end;
    if (id16_is_zero(log))
        log = w->own.uuid;
    if (!w->is_copy && id16_equal(log, w->own.uuid))
        return true;
    enum sh_error error = wal_copies_find(w->copies, log, store, durable_end);
    if (error == SH_NOT_FOUND && wal_copies_may_begin(w->copies, request->token, log))
        wal_service_refuse(w, request, error, "walsvc does not hold that log");
    else if (error != SH_NOT_FOUND && error != SH_OK)
        wal_service_refuse(w, request, error, "the copy of that log is not served; walsvc's log says why");
    return error == SH_OK;
}

static enum sh_error log_of(const struct link_request *request, struct id16 *log)
{
    union {
        struct msg_log_trim trim;
        struct msg_hold hold;
        struct msg_wal_info info;
        struct msg_look look;
    } m;
    enum sh_error error = msg_decode(request->type, request->body, &m);
    if (error == SH_OK)
        *log = request->type == MSG_log_trim ? m.trim.log
               : request->type == MSG_hold   ? m.hold.log
               : request->type == MSG_look   ? m.look.log
                                             : m.info.log;
    return error;
}

/* From replsvc: never believed when it can't be, since appends are acknowledged by it. */
static void on_replicated(struct wal_service *w, const struct link_request *request)
{
    struct msg_replicated told;
    if (!request->local) {
        wal_service_refuse(w, request, SH_FORBIDDEN, "only on the node itself");
        return;
    }
    enum sh_error error = msg_decode(MSG_replicated, request->body, &told);
    if (error != SH_OK) {
        wal_service_refuse(w, request, error, "not a well-formed replicated");
        return;
    }
    if (w->is_copy) {
        wal_service_refuse(w, request, SH_READ_ONLY, w->copy_reason);
        return;
    }
    const char *why = wal_core_replicated(w->core, request->token.session, &told);
    wal_service_set_timer(w);
    if (why == NULL) {
        w->body.len = 0;
        msg_encode(MSG_replicated_reply, &(struct msg_replicated_reply){0}, &w->body);
        link_server_answer(w->link, request->token, MSG_replicated_reply, buf_slice(&w->body));
        return;
    }
    log_error("replicated LSNs that cannot be; ignored", log_text("why", why),
              log_uint("quorum_lsn", told.quorum_lsn), log_uint("all_lsn", told.all_lsn),
              log_uint("durable_lsn", wal_core_stats(w->core).durable_lsn));
    wal_service_refuse(w, request, SH_BAD_REQUEST, why);
}

/* A well-formed request, in which another node is said to be the log's origin. */
static bool is_about_a_copy(const struct link_request *request)
{
    struct msg_look look;
    return request->type == MSG_look && msg_decode(MSG_look, request->body, &look) == SH_OK && look.origin;
}

/* What a janitor answers. A `look` reads a whole segment: not for everybody. */
static void on_slow_request(struct wal_service *w, const struct link_request *request)
{
    struct id16 log;
    struct wal_store *store;
    uint64_t durable_end;
    enum sh_error error = log_of(request, &log);
    if (error != SH_OK) {
        wal_service_refuse(w, request, error, "the message is not well-formed");
        return;
    }
    if (request->type == MSG_look && !request->local) {
        wal_service_refuse(w, request, SH_FORBIDDEN, "not from this node");
        return;
    }
    if (request->type == MSG_log_trim && wal_service_is_fetched_back(w, log)) {
        wal_service_refuse(w, request, SH_READ_ONLY, w->copy_reason);
        return;
    }
    if (!find_store(w, request, log, &store, &durable_end))
        return;
    if (id16_equal(store->uuid, w->own.uuid) && is_about_a_copy(request)) {
        wal_service_refuse(w, request, SH_BAD_REQUEST, "this node is that log's origin");
        return;
    }
    error = wal_janitor_ask(store->janitor, request->token, request->type, request->body);
    if (error != SH_OK)
        wal_service_refuse(w, request, error, sh_error_text(error));
}

static void on_repair(struct wal_service *w, const struct link_request *request)
{
    struct msg_repair repair;
    struct wal_store *store;
    uint64_t durable_end;
    enum sh_error error = msg_decode(MSG_repair, request->body, &repair);
    if (error != SH_OK)
        wal_service_refuse(w, request, error, "not a well-formed repair");
    else if (find_store(w, request, repair.log, &store, &durable_end))
        wal_mend_on_repair(w->mend, request, store, durable_end, &repair);
}

static void on_accept_loss(struct wal_service *w, const struct link_request *request)
{
    struct msg_accept_loss loss;
    struct wal_store *store;
    uint64_t durable_end;
    enum sh_error error = msg_decode(MSG_accept_loss, request->body, &loss);
    if (error != SH_OK)
        wal_service_refuse(w, request, error, "not a well-formed accept_loss");
    else if (wal_service_is_fetched_back(w, loss.log))
        wal_service_refuse(w, request, SH_READ_ONLY, w->copy_reason);
    else if (!find_store(w, request, loss.log, &store, &durable_end))
        return;
    else if (store != &w->own)
        wal_service_refuse(w, request, SH_BAD_REQUEST, "a loss is accepted by the node whose log it is");
    else
        wal_mend_on_accept_loss(w->mend, request, &loss);
}

/* Written here and now: it changes about never. */
static void on_write_permit(struct wal_service *w, const struct link_request *request)
{
    struct msg_write_permit permit;
    struct msg_error refusal = {.code = msg_decode(MSG_write_permit, request->body, &permit)};
    if (refusal.code != SH_OK) {
        refusal.text = slice_str("not a well-formed write_permit");
        link_server_refuse(w->link, request->token, &refusal);
        return;
    }
    if (w->is_copy && !permit.allowed) { /* nobody knows yet how far the log goes */
        wal_service_refuse(w, request, SH_UNAVAILABLE, w->copy_reason);
        return;
    }
    int result = wal_permit_take(&w->dir.permit, w->core, request->token, &permit);
    if (result < 0 && !wal_is_full(result))
        wal_fatal("cannot write the write permit; ending at once", w->dir.data, result);
    if (result == 0) {
        wal_service_regain(w);
        return;
    }
    refusal.code = SH_DISK_FULL;
    refusal.text = slice_str("no room to write the permit down");
    link_server_refuse(w->link, request->token, &refusal);
}

static void on_request(void *arg, const struct link_request *request)
{
    struct wal_service *w = arg;
    if (request->type == MSG_append)
        on_append(w, request);
    else if (request->type == MSG_watermark)
        on_watermark(w, request);
    else if (request->type == MSG_copy_append)
        wal_copies_on_append(w->copies, request);
    else if (wal_copies_on_closed(w->copies, request))
        return;
    else if (request->type == MSG_logs)
        on_logs(w, request);
    else if (request->type == MSG_log_trim || request->type == MSG_hold || request->type == MSG_wal_info ||
             request->type == MSG_look)
        on_slow_request(w, request);
    else if (request->type == MSG_repair)
        on_repair(w, request);
    else if (request->type == MSG_accept_loss)
        on_accept_loss(w, request);
    else if (request->type == MSG_producer_status)
        on_producer_status(w, request);
    else if (request->type == MSG_write_permit)
        on_write_permit(w, request);
    else if (request->type == MSG_replicated)
        on_replicated(w, request);
    else if (wal_service_on_own(w, request))
        return;
    else
        wal_service_refuse(w, request, SH_BAD_REQUEST, "walsvc does not know this type of message");
}

static void on_drop(void *arg, uint64_t session)
{
    struct wal_service *w = arg;
    wal_core_drop(w->core, session);
    wal_logs_drop(&w->logs, session);
    if (w->copies != NULL)
        wal_copies_drop(w->copies, session);
    if (w->commit == NULL)
        return;
    struct wal_frame *first = take_frames(w); /* not now: nothing may be answered in here */
    if (first != NULL)
        wal_commit_put(w->commit, first);
    wal_commit_detach(w->commit, session);
}

static void on_timer(void *arg)
{
    struct wal_service *w = arg;
    wal_core_tick(w->core, loop_now_ns(w->service->loop));
    wal_logs_tick(&w->logs, loop_now_ns(w->service->loop));
    wal_service_set_timer(w);
}

/* ---------------------------------------------------------------- life */

static void open_core(struct wal_service *w, struct wal_state *state)
{
    const struct settings *settings = &w->service->config->settings;
    group_set_of_config(&w->groups, w->service->config);
    struct wal_core_options options = {
        .log = w->dir.identity.log,
        .boot = w->service->boot,
        .groups = &w->groups,
        .segment_size = settings->wal_segment_size,
        .queue_bytes = settings->wal_queue_bytes,
        .offset = w->own.log.offset,
        .limit = w->own.log.limit,
        .state = *state,
        .durable = w->own.log.durable,
        .actions = {queue_frame, send_reply, send_refusal, send_watermark, loss_accepted, loss_refused,
                    send_permit_reply, unlend, send_status, wal_service_acknowledged, w},
    };
    w->core = wal_core_open(&options);
    wal_permit_start(&w->dir.permit, w->core);
    w->logs = (struct wal_logs){
        .boot = w->service->boot,
        .version = 1,
        .waits = w->proof.waits,
        .own_copy = w->is_copy,
        .given_up = w->given_up,
        .all = {{.log = w->own.uuid,
                 .durable = w->own.log.durable,
                 .first_lsn = w->own.log.first_lsn,
                 .damage = w->own.damage}},
        .count = w->is_copy ? 0 : 1, /* then it comes with the copies */
        .reply = send_logs,
        .arg = w,
    };
}

static struct wal_upkeep_settings upkeep_settings(const struct settings *settings)
{
    return (struct wal_upkeep_settings){
        .retention_bytes = settings->wal_retention_bytes,
        .retention_age_ns = (int64_t)settings->wal_retention_age,
        .member_hold_max = settings->wal_member_hold_max,
        .disk_reserve = settings->wal_disk_reserve,
        .scrub_rate = settings->wal_scrub_rate,
        .scrub_interval_ns = (int64_t)settings->wal_scrub_interval,
    };
}

static struct wal_store_options store_options(struct wal_service *w)
{
    const struct settings *settings = &w->service->config->settings;
    return (struct wal_store_options){
        .settings = upkeep_settings(settings),
        .segment_size = settings->wal_segment_size,
        .on_answer = post_answer,
        .on_index_lost = post_index_lost,
        .on_trimmed = post_trimmed,
        .on_drop = post_drop,
        .horizon_ns = &w->horizon_ns,
        .arg = w,
    };
}

static void start_threads(struct wal_service *w)
{
    wal_store_start(&w->own, post_next, w);
    struct wal_commit_options commit = {
        .log = &w->own.log,
        .prepare = w->own.prepare,
        .delay_ns = (int64_t)w->service->config->settings.wal_commit_delay,
        .on_durable = post_durable,
        .arg = w,
    };
    w->commit = wal_commit_start(&commit);
}

/* What works behind the link. The copies are opened in the background: they hold up nobody. */
static void open_behind_link(struct wal_service *w)
{
    struct wal_mend_options mend = {
        .loop = w->service->loop, .own = &w->own, .core = w->core, .link = w->link};
    struct wal_copies_options copies = {
        .loop = w->service->loop,
        .dir = &w->dir,
        .store = store_options(w),
        .link = w->link,
        .logs = &w->logs,
        .closed = &w->dir.closed,
        .own = w->is_copy,
        .on_change = on_copies_change,
        .on_own = wal_service_on_own_copy,
        .mend = &w->mend,
        .arg = w,
    };
    w->mend = wal_mend_open(&mend);
    w->copies = wal_copies_open(&copies);
}

static enum service_exit start_link(struct wal_service *w)
{
    struct service *service = w->service;
    const struct settings *settings = &service->config->settings;
    struct link_server_options options = {
        .loop = service->loop,
        .limits = link_server_default_limits(),
        .cluster = service->cluster,
        .node = slice_str(service->config->self->id),
        .boot = service->boot,
        .on_request = on_request,
        .on_drop = on_drop,
        .arg = w,
    };
    options.limits.session_bytes = settings->link_session_bytes;
    options.limits.session_requests = (uint32_t)settings->link_session_requests;
    options.limits.sessions = (uint32_t)settings->link_sessions;
    options.limits.total_bytes = settings->wal_queue_bytes + LINK_SLACK_BYTES;
    w->link = link_server_open(&options);
    open_behind_link(w);
    int len = snprintf(w->endpoint, sizeof w->endpoint, "ipc://%s/wal", service->config->run_dir);
    if ((size_t)len < sizeof w->endpoint && link_server_listen(w->link, w->endpoint) == SH_OK)
        return EXIT_DONE;
    log_error("cannot listen", log_text("endpoint", w->endpoint));
    return EXIT_FAULT;
}

/* The own log, recovered. */
static enum service_exit open_own_log(struct wal_service *w, struct wal_state *state)
{
    struct wal_store_options options = store_options(w);
    enum service_exit code =
        wal_dir_open_log(&w->dir, &w->own.log, w->service->config->settings.wal_segment_size, state);
    if (code != EXIT_DONE)
        return code;
    w->own.damage = w->dir.damage;
    options.tells_horizon = true;
    if (wal_given_up_read(&w->given_up, w->dir.fs, w->own.path, w->own.uuid) != SH_OK)
        code = EXIT_CONFIG;
    if (code == EXIT_DONE)
        code = wal_store_open(&w->own, &options);
    if (code != EXIT_DONE)
        wal_log_close(&w->own.log);
    return code;
}

static enum service_exit open_log(struct wal_service *w)
{
    const struct config *config = w->service->config;
    struct wal_state state;
    int64_t started_ns = clock_mono_ns();
    enum service_exit code = wal_dir_open(&w->dir, vfs_posix(), config->data_dir, config->self->id);
    if (code != EXIT_DONE)
        return code;
    w->dir.reserve_bytes = wal_disk_reserve(w->dir.fs, w->dir.data, config->settings.wal_disk_reserve);
    wal_state_init(&state);
    w->own.dir = &w->dir;
    w->own.uuid = w->dir.identity.log;
    memcpy(w->own.path, w->dir.log, sizeof w->own.path);
    bool is_new = w->dir.is_new;
    if (!is_new)
        wal_service_open_own(w, false);
    code = w->is_copy ? wal_dir_open_copy(&w->dir) : open_own_log(w, &state);
    if (code != EXIT_DONE) {
        wal_state_free(&state);
        wal_dir_close(&w->dir);
        return code;
    }
    if (is_new)
        wal_service_open_own(w, true);
    open_core(w, &state);
    wal_service_tell_opened(w, started_ns);
    return EXIT_DONE;
}

enum service_exit wal_open(struct service *service)
{
    struct wal_service *w = xcalloc(1, sizeof *w);
    w->service = service;
    enum service_exit code = open_log(w);
    if (code != EXIT_DONE) {
        free(w);
        return code;
    }
    service->state = w;
    w->last = &w->first;
    w->flush = (struct loop_hook){.fn = flush, .arg = w};
    w->timer = (struct loop_timer){.fn = on_timer, .arg = w};
    mailbox_open(&w->mailbox, service->loop, on_mail, w);
    loop_hook_add(service->loop, &w->flush);
    telemetry_on_gather(wal_service_gather, w);
    if (!w->is_copy)
        start_threads(w);
    wal_service_start_own(w);
    code = start_link(w);
    if (code != EXIT_DONE)
        wal_close(service);
    return code;
}

void wal_reload(struct service *service)
{
    struct wal_service *w = service->state;
    const struct settings *settings = &service->config->settings;
    struct wal_upkeep_settings upkeep = upkeep_settings(settings);
    if (!w->is_copy) {
        wal_commit_set_delay(w->commit, (int64_t)settings->wal_commit_delay);
        wal_store_set(&w->own, &upkeep);
    }
    wal_copies_set(w->copies, &upkeep);
}

/* What was accepted is committed, and its answers go as far as the link, before the end. */
void wal_close(struct service *service)
{
    struct wal_service *w = service->state;
    flush(w);
    if (!w->is_copy) {
        wal_commit_stop(w->commit);
        w->commit = NULL;
        wal_store_stop(&w->own);
    }
    wal_copies_stop(w->copies);
    wal_mend_close(w->mend);
    w->mend = NULL;
    mailbox_close(&w->mailbox);
    wal_core_end_waits(w->core);
    wal_service_close_own(w);
    loop_hook_remove(service->loop, &w->flush);
    loop_timer_cancel(service->loop, &w->timer);
    link_server_close(w->link);
    wal_core_close(w->core);
    group_set_free(&w->groups);
    wal_copies_close(w->copies);
    wal_logs_free(&w->logs);
    if (!w->is_copy)
        wal_store_close(&w->own);
    wal_dir_close(&w->dir);
    buf_free(&w->body);
    free(w);
    service->state = NULL;
}

const char *wal_ping(const struct service *service)
{
    const struct wal_service *w = service->state;
    return w->endpoint;
}
