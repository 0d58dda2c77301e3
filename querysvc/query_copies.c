/* The logs of other nodes that this one holds copies of, and how far each copy is durable: by `logs` to
 * walsvc. Nobody waits most of the time, and then nothing is asked, unless there is a view, which follows all
 * of them; the durable ends that were told last stay valid. */
#include "query.h"

#include <stdlib.h>

#include "held_log.h"

/* `logs` is answered with each commit of any log, of which a reader who waits at a copy needs not know at
 * once whatever the pace. */
enum { PAUSE_MS = 5, ERROR_PAUSE_MS = 100 };

/* ---- what the node holds ---- */

const struct query_log *query_find_log(const struct query *q, struct id16 log)
{
    if (id16_is_zero(log) || id16_equal(log, q->own.id))
        return &q->own;
    for (size_t i = 0; i < q->copies.count; i++)
        if (id16_equal(log, q->copies.logs[i].id))
            return &q->copies.logs[i];
    return NULL;
}

/* False: malformed; then nothing has changed. */
static bool decode_logs(struct query *q, struct slice list)
{
    struct mp m = mp_of(list);
    uint32_t count;
    bool good = mp_array(&m, &count);
    struct query_log *logs =
        good ? xcalloc((size_t)count + 1, sizeof *logs) : NULL; /* of the bytes that came */
    struct held_log held;
    size_t kept = 0;
    for (uint32_t i = 0; good && i < count; i++) {
        good = held_log_next(&m, &held);
        if (good && id16_equal(held.log, q->own.id) && held.durable.position > q->own.durable_end) {
            q->own.durable_end = held.durable.position;
            q->own.durable_lsn = held.durable.next_lsn - 1;
        }
        if (!good || id16_equal(held.log, q->own.id))
            continue;
        logs[kept].id = held.log;
        logs[kept].durable_end = held.durable.position;
        logs[kept++].durable_lsn = held.durable.next_lsn - 1;
    }
    if (!good) {
        free(logs);
        return false;
    }
    free(q->copies.logs);
    q->copies.logs = logs;
    q->copies.count = kept;
    return true;
}

static bool take_logs(struct query *q, uint32_t type, struct slice body)
{
    struct query_copies *c = &q->copies;
    struct msg_logs_reply reply;
    if (type != MSG_logs_reply || msg_decode(type, body, &reply) != SH_OK)
        return false;
    if (c->known && id16_equal(reply.boot, c->boot) && reply.version < c->version)
        return true; /* the other question was answered later, and came first */
    if (!decode_logs(q, reply.logs))
        return false;
    c->known = true;
    c->boot = reply.boot;
    c->version = reply.version;
    query_view_tell(q);
    return true;
}

/* ---- the long poll ---- */

void query_watch_copies(struct query *q)
{
    struct query_copies *c = &q->copies;
    if (c->watch != 0)
        return;
    c->wanted = c->pause.slot != 0;
    if (c->wanted)
        return; /* sent when the pause is over */
    const struct msg_logs ask = {.boot = c->boot, .newer_than = c->version, .wait_ms = LINK_POLL_MS};
    c->watch = query_ask_wal(q, MSG_logs, &ask);
}

static void on_pause_over(void *arg)
{
    struct query *q = arg;
    if (q->copies.wanted || q->view != NULL)
        query_watch_copies(q);
}

bool query_on_copies(struct query *q, uint64_t number, uint32_t type, struct slice body)
{
    struct query_copies *c = &q->copies;
    bool is_watch = number == c->watch, is_probe = number == c->probes.number;
    if (!is_watch && !is_probe)
        return false;
    bool good = take_logs(q, type, body);
    if (is_probe)
        c->probes.done++;
    else
        c->watch = 0;
    query_wake_reads(q);
    if (is_probe)
        query_probe_done(q, &c->probes);
    else
        loop_timer_after(q->service->loop, &c->pause,
                         (good ? PAUSE_MS : ERROR_PAUSE_MS) * (int64_t)NS_PER_MS);
    return true;
}

void query_copies_open(struct query *q)
{
    q->copies.probes.type = MSG_logs;
    q->copies.pause = (struct loop_timer){.fn = on_pause_over, .arg = q};
}

void query_copies_close(struct query *q)
{
    loop_timer_cancel(q->service->loop, &q->copies.pause);
    free(q->copies.logs);
}
