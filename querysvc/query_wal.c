/* The durable end of the own log, brought by long polls to walsvc: by a link of their own, which no append
 * can hold up.
 *
 * Killing walsvc disturbs no read: the last durable end stays valid. */
#include "query.h"

#include <assert.h>

/* While nobody waits at the end of the log, its movements are followed no faster: three messages for each
 * commit would cost a lonely appender as much as the append itself. */
enum { WATCH_PAUSE_MS = 100 };

/* At most two long polls, two probes, two holds and CURSOR_APPENDS small appends are outstanding, so the
 * queue's bound is out of reach. */
uint64_t query_ask_wal(struct query *q, uint32_t type, const void *message)
{
    struct buf body = {0};
    uint64_t number;
    msg_encode(type, message, &body);
    enum sh_error e = link_client_send(q->watch, type, 0, buf_slice(&body), (struct slice){0}, &number);
    assert(e == SH_OK);
    buf_free(&body);
    return number;
}

void query_watch(struct query *q)
{
    if (q->watching)
        return;
    q->watching = true;
    loop_timer_cancel(q->service->loop, &q->watch_again);
    query_ask_wal(q, MSG_watermark,
                  &(struct msg_watermark){
                      .newer_than = q->own.durable_end, .wait_ms = LINK_POLL_MS, .writes = 1 + q->writes});
}

static void on_watch_again(void *arg)
{
    query_watch(arg);
}

/* ---- probes ---- */

static void send_probe(struct query *q, struct query_probes *probes)
{
    const struct msg_watermark watermark = {0};
    const struct msg_logs logs = {0};
    bool own = probes->type == MSG_watermark;
    probes->number = query_ask_wal(q, probes->type, own ? (const void *)&watermark : &logs);
    probes->sent++;
}

uint64_t query_probe(struct query *q, struct query_probes *probes)
{
    if (!link_client_is_connected(q->watch))
        return 0;
    if (probes->done < probes->sent)
        return probes->sent + 1; /* that one may be too old: the next follows as soon as it is done */
    send_probe(q, probes);
    return probes->sent;
}

void query_probe_done(struct query *q, struct query_probes *probes)
{
    if (query_reads_need_probe(q, probes) || query_trims_need_probe(q, probes))
        send_probe(q, probes);
    query_trims_probed(q);
}

/* ---- answers ---- */

/* Two answers may come in either order. The log ends earlier than before only when walsvc has cut it. */
static bool is_newer(const struct query *q, const struct msg_watermark_reply *reply)
{
    return !id16_equal(reply->boot, q->wal_boot) || reply->commits > q->commits;
}

/* Returns false when the answer shows that the data directory is another one now. */
static bool take_watermark(struct query *q, uint32_t type, struct slice body)
{
    struct msg_watermark_reply reply;
    if (type != MSG_watermark_reply || msg_decode(type, body, &reply) != SH_OK)
        return true; /* an error: asked again by the caller */
    if (!id16_equal(reply.log, q->own.id))
        return false;
    if (reply.durable_end > q->own.durable_end || is_newer(q, &reply)) {
        q->own.durable_end = reply.durable_end;
        q->own.durable_lsn = reply.durable_lsn;
    }
    q->wal_boot = reply.boot;
    q->commits = reply.commits;
    q->writes = reply.writes;
    q->heard = true;
    query_wake_reads(q);
    return true;
}

/* Segments are trimmed by walsvc, which tells nobody; it answers the long poll often enough. */
static void tidy_readers(struct query *q)
{
    int64_t now_ns = loop_now_ns(q->service->loop);
    if (now_ns - q->tidied_ns < NS_PER_S)
        return;
    q->tidied_ns = now_ns;
    reader_pool_tidy(&q->readers);
}

static void on_watch_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct query *q = arg;
    bool is_probe = number == q->probes.number;
    if (query_on_copies(q, number, type, body) || query_on_hold(q, number, type, body) ||
        query_on_cursor(q, number, type, body) || query_on_checkpoint_hold(q, number, type, body))
        return;
    if (is_probe)
        q->probes.done++;
    if (!take_watermark(q, type, body)) {
        log_error("walsvc serves another log: the data directory was replaced; restarting");
        service_stop(q->service, EXIT_FAULT);
        return;
    }
    if (is_probe) {
        query_probe_done(q, &q->probes);
        return;
    }
    q->watching = false;
    tidy_readers(q);
    loop_timer_after(q->service->loop, &q->watch_again, WATCH_PAUSE_MS * (int64_t)NS_PER_MS);
}

/* The copies are asked for at once, so that they can be read while walsvc is away. */
static void on_watch_state(void *arg, bool connected)
{
    struct query *q = arg;
    log_info(connected ? "walsvc answers" : "walsvc is lost");
    service_status(connected ? "serving" : "reads only: walsvc is away");
    query_probe(q, &q->copies.probes);
    if (connected)
        query_cursor_walsvc(q);
    query_wake_reads(q); /* those that waited for its word need not any more */
}

enum sh_error query_wal_open(struct query *q)
{
    struct link_client_options options = {
        .loop = q->service->loop,
        .endpoint = q->wal.endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = q->service->config->settings.wal_queue_bytes,
        .cluster = q->service->cluster,
        .sender = slice_str(q->service->config->self->id),
        .on_answer = on_watch_answer,
        .on_state = on_watch_state,
        .arg = q,
    };
    q->watch_again = (struct loop_timer){.fn = on_watch_again, .arg = q};
    q->probes.type = MSG_watermark;
    query_copies_open(q);
    enum sh_error e = link_client_open(&options, &q->watch);
    if (e != SH_OK)
        return e;
    query_watch(q);
    if (q->view != NULL)
        query_watch_copies(q);
    return SH_OK;
}

void query_wal_close(struct query *q)
{
    if (q->watch != NULL)
        link_client_close(q->watch);
    q->watch = NULL;
    loop_timer_cancel(q->service->loop, &q->watch_again);
    query_copies_close(q);
}
