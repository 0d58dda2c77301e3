/* The node's own log behind its copies (docs/adr/0010).
 *
 *   own: waits --own_log 0, or 5 s--> regains what was cut off --> serves
 *         |                              |                          |
 *         +------- own_log 1, 2: the process ends; <data>/boot ------+
 *                                    |
 *   copy: is fetched back --own_log 0: the process ends; <data>/boot --> own
 *
 * A file that says what the log is opened as, and cannot be written, costs another round. */
#include "wal_service_parts.h"

#include <stdio.h>
#include <string.h>

#include "clock_frame.h"
#include "log.h"
#include "telemetry_push.h"
#include "wal_fatal.h"

/* ---------------------------------------------------------------- what was cut off comes back */

static void on_regain(void *arg)
{
    struct wal_service *w = arg;
    if (w->regain == NULL || w->commit == NULL)
        return;
    enum wal_regain_state state = wal_regain_step(w->regain, clock_real_ns());
    if (state == WAL_REGAIN_AGAIN)
        loop_timer_after(w->service->loop, &w->regain_timer, 0);
    if (state != WAL_REGAIN_DONE)
        return;
    wal_regain_close(w->regain);
    w->regain = NULL;
    wal_core_let_go(w->core, clock_real_ns());
    wal_service_set_timer(w);
}

void wal_service_regain(struct wal_service *w)
{
    if (w->regain != NULL)
        loop_timer_after(w->service->loop, &w->regain_timer, 0);
}

/* The log may be extended: first by what was cut off it. */
static void take_appends(struct wal_service *w)
{
    const struct wal_regain_options options = {
        .fs = w->dir.fs,
        .data = w->dir.data,
        .log = w->own.uuid,
        .segment_size = w->service->config->settings.wal_segment_size,
        .core = w->core,
    };
    w->regain = wal_regain_open(&options);
    if (w->regain != NULL)
        wal_service_regain(w);
    else
        wal_core_let_go(w->core, clock_real_ns());
    wal_service_set_timer(w);
}

/* ---------------------------------------------------------------- as the own log */

static void go_on(struct wal_service *w)
{
    int result = wal_proof_settle(&w->proof);
    if (result < 0)
        wal_fatal("cannot write down that the log goes on; ending at once", w->dir.data, result);
    loop_timer_cancel(w->service->loop, &w->proof_timer);
    wal_logs_proved(&w->logs);
    take_appends(w);
}

static void on_proof_over(void *arg)
{
    event_warn(
        "log_unproved",
        "the machine was started anew, and no other member says in time how far it has this node's log; "
        "it goes on as it is");
    go_on(arg);
}

static void give_reason(struct wal_service *w, bool forked)
{
    snprintf(w->copy_reason, sizeof w->copy_reason,
             "this node's log is %s: it is fetched back from them, and goes on by itself when it is",
             forked ? "on another chain than its copies" : "behind its copies");
}

/* Others have more of the log, or something else: nothing is appended to it any more. */
static void become_copy(struct wal_service *w, const struct msg_own_log *told)
{
    w->next_own = OWN_BECOMES_COPY;
    w->next_forked = told->verdict == 2;
    give_reason(w, w->next_forked);
    event_warn("log_fetched_back", w->copy_reason, log_slice("who_has_what", told->text));
    wal_core_give_up_writes(w->core, w->copy_reason);
    service_stop(w->service, EXIT_FAULT);
}

/* ---------------------------------------------------------------- as a copy */

bool wal_service_is_fetched_back(const struct wal_service *w, struct id16 log)
{
    return w->is_copy && (id16_is_zero(log) || id16_equal(log, w->own.uuid));
}

static void come_back(struct wal_service *w)
{
    w->next_own = OWN_COMES_BACK;
    event_info("log_complete", "the node's own log is as far as its copies are: it goes on",
               log_uint("durable_lsn", wal_core_stats(w->core).durable_lsn));
    service_stop(w->service, EXIT_FAULT);
}

void wal_service_on_own_copy(void *arg, enum sh_error state, const struct wal_durable *durable)
{
    struct wal_service *w = arg;
    w->own_is_open = state == SH_OK;
    if (state == SH_OK)
        wal_core_moved(w->core, durable);
    else if (state == SH_CORRUPT || state == SH_VERSION_MISMATCH)
        service_stop(w->service, EXIT_CONFIG);
    else if (state != SH_DISK_FULL) /* then it is tried again */
        service_stop(w->service, EXIT_FAULT);
}

/* ---------------------------------------------------------------- what replsvc says */

static void on_own_log(struct wal_service *w, const struct link_request *request)
{
    struct msg_own_log told;
    enum sh_error error = request->local ? msg_decode(MSG_own_log, request->body, &told) : SH_FORBIDDEN;
    if (error != SH_OK) {
        wal_service_refuse(w, request, error, "not a well-formed own_log, or not from this node");
        return;
    }
    if (w->is_copy && told.verdict == 0 && !w->own_is_open) {
        wal_service_refuse(w, request, SH_UNAVAILABLE, "the node's own log is being opened");
        return;
    }
    bool ends = w->next_own != OWN_STAYS;
    if (!ends && w->is_copy && told.verdict == 0)
        come_back(w);
    else if (!ends && !w->is_copy && told.verdict != 0)
        become_copy(w, &told);
    else if (!ends && !w->is_copy && w->proof.waits)
        go_on(w);
    w->body.len = 0;
    msg_encode(MSG_own_log_reply, &(struct msg_own_log_reply){0}, &w->body);
    link_server_answer(w->link, request->token, MSG_own_log_reply, buf_slice(&w->body));
}

/* ---------------------------------------------------------------- clock frames */

/* From the view, which asks again when it still needs it. */
static void on_clock_frame(struct wal_service *w, const struct link_request *request)
{
    struct msg_clock_frame ask;
    struct msg_clock_frame_reply reply = {0};
    struct buf body = {0};
    enum sh_error error = request->local ? msg_decode(MSG_clock_frame, request->body, &ask) : SH_FORBIDDEN;
    if (error == SH_OK && !clock_frame_encode(ask.applied, ask.logs, &body))
        error = SH_BAD_REQUEST;
    if (error == SH_OK)
        error = w->is_copy ? SH_READ_ONLY
                           : wal_core_clock(w->core, buf_slice(&body), clock_real_ns(), &reply.hlc);
    buf_free(&body);
    if (error != SH_OK) {
        wal_service_refuse(w, request, error, "no clock frame is written now");
        return;
    }
    w->body.len = 0;
    msg_encode(MSG_clock_frame_reply, &reply, &w->body);
    link_server_answer(w->link, request->token, MSG_clock_frame_reply, buf_slice(&w->body));
}

/* ---------------------------------------------------------------- dispatch */

bool wal_service_on_own(struct wal_service *w, const struct link_request *request)
{
    if (request->type == MSG_own_log)
        on_own_log(w, request);
    else if (request->type == MSG_clock_frame)
        on_clock_frame(w, request);
    else
        return false;
    return true;
}

/* ---------------------------------------------------------------- life */

void wal_service_open_own(struct wal_service *w, bool is_new)
{
    wal_proof_open(&w->proof, w->dir.fs, w->dir.data, is_new);
    w->is_copy = w->proof.is_copy;
}

void wal_service_tell_opened(const struct wal_service *w, int64_t started_ns)
{
    char uuid[ID_TEXT], status[160];
    id16_format(w->dir.identity.log, uuid);
    uint64_t took_ms = (uint64_t)(clock_mono_ns() - started_ns) / NS_PER_MS;
    if (!w->is_copy)
        log_info("log opened", log_text("log", uuid), log_uint("durable_lsn", w->own.log.durable.lsn),
                 log_uint("durable_end", w->own.log.durable.end), log_uint("took_ms", took_ms));
    if (w->is_copy)
        snprintf(status, sizeof status, "log %s is fetched back from its copies", uuid);
    else
        snprintf(status, sizeof status, "log %s, recovered up to LSN %llu", uuid,
                 (unsigned long long)w->own.log.durable.lsn);
    service_status(status);
}

void wal_service_start_own(struct wal_service *w)
{
    w->proof_timer = (struct loop_timer){.fn = on_proof_over, .arg = w};
    w->regain_timer = (struct loop_timer){.fn = on_regain, .arg = w};
    if (w->is_copy) {
        give_reason(w, w->proof.forked);
        log_warn(w->copy_reason);
        wal_core_give_up_writes(w->core, w->copy_reason);
        return;
    }
    wal_core_hold_back(w->core);
    if (w->proof.waits)
        loop_timer_after(w->service->loop, &w->proof_timer, WAL_PROOF_NS);
    else
        take_appends(w);
}

/* The mark may not have been written on a full disk: the prepared segment makes room. */
static int write_mark(struct wal_service *w)
{
    char next[PATH_MAX];
    int result = wal_log_write_mark(&w->own.log);
    vfs_path(next, w->own.path, "next.tmp");
    if (wal_is_full(result) && w->dir.fs->unlink(w->dir.fs, next) == 0)
        result = wal_log_write_mark(&w->own.log);
    return result;
}

void wal_service_close_own(struct wal_service *w)
{
    int result = 0;
    wal_regain_close(w->regain);
    loop_timer_cancel(w->service->loop, &w->proof_timer);
    loop_timer_cancel(w->service->loop, &w->regain_timer);
    if (w->next_own == OWN_BECOMES_COPY) {
        result = write_mark(w);
        if (result == 0)
            result = wal_proof_begin_copy(&w->proof, w->next_forked);
    } else if (w->next_own == OWN_COMES_BACK) {
        result = wal_forked_forget_progress(w->dir.fs, w->dir.data, w->own.uuid);
        if (result == 0)
            result = wal_proof_end_copy(&w->proof);
    }
    if (result < 0)
        log_error("cannot write down what the node's own log is to be opened as; it is found out anew",
                  log_text("dir", w->dir.data), log_text("error", strerror(-result)));
}
