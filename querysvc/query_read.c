/* Reads of logs, the own one and copies: from the segment files, up to the durable end.
 *
 *               on_read ──► ready ──► answered
 *                            │  ▲
 *     at the end of the log  ▼  │  durable end moved, probe done, or overdue
 *                           parked
 *
 * A read at the end waits for wait_ms; one that doesn't want to wait is still parked until walsvc has said
 * how far the log is now, so that a client always finds what it was acknowledged, directly by walsvc too.
 * With walsvc away, what is known has to do. So is one that meets damage, before it is told. A session gets
 * no further answer before it has fetched what it has, so one that doesn't fetch costs a bounded amount of
 * memory. */
#include "query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log_damage.h"

enum {
    ANSWER_BYTES_MAX = 1 << 20, /* frames in one answer, unless a single frame is larger */
    UNFETCHED_MAX = 2 << 20,    /* of one session */
    READS_A_ROUND = 16,         /* then other work gets its turn */
    SEARCH_BYTES_MAX = 8 << 20, /* frames that a search by time looks through in one go */
    LONG_MS = 100,              /* a read that waits so long waits for entries */
    PROBE_MS = 5000, /* how long a read without waiting waits for walsvc's word; its disk may be busy */
};

static void list_init(struct read_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_put(struct read_list *list, struct query_read *r)
{
    r->next = NULL;
    *list->tail = r;
    list->tail = &r->next;
}

static struct query_read *list_take(struct read_list *list)
{
    struct query_read *r = list->head;
    if (r == NULL)
        return NULL;
    list->head = r->next;
    if (list->head == NULL)
        list->tail = &list->head;
    return r;
}

/* Adds to the text when the loss of what lies there was accepted, as walsvc's register says. */
static void tell_acceptance(const struct query *q, struct id16 log, uint64_t lsn, char *text, size_t size)
{
    struct log_damage_range *all = xmalloc(LOG_DAMAGE_MAX * sizeof *all);
    struct tm utc;
    char dir[PATH_MAX];
    size_t count, len = strlen(text);
    reader_pool_dir(&q->readers, log, dir);
    log_damage_read(q->fs, dir, log, all, &count); /* none when it cannot be read */
    for (size_t i = 0; i < count; i++) {
        time_t accepted_s = (time_t)(all[i].accepted_ns / NS_PER_S);
        if (accepted_s > 0 && lsn >= all[i].first_lsn && lsn < all[i].next_lsn)
            strftime(text + len, size - len, "; its loss was accepted on %F at %T UTC",
                     gmtime_r(&accepted_s, &utc));
    }
    free(all);
}

static void refuse_read(struct query *q, const struct query_read *r, const struct query_log *log,
                        enum sh_error e, const struct log_read *read)
{
    char text[200] = "";
    uint64_t expected = 0;
    if (e == SH_CORRUPT) {
        expected = read->good_lsn;
        int len = snprintf(text, sizeof text,
                           "damage in %s at offset %" PRIu64 ": nothing can be read from LSN %" PRIu64,
                           read->bad_file, read->bad_offset, r->from > 0 ? r->from : 1);
        if (expected > 0)
            snprintf(text + len, sizeof text - (size_t)len, " to %" PRIu64, expected - 1);
        tell_acceptance(q, log->id, r->from, text, sizeof text);
        log_for(LOG_ERROR, r->correlation, "read met damage", log_text("file", read->bad_file),
                log_uint("offset", read->bad_offset), log_uint("lsn", r->from));
    } else if (e == SH_TRIMMED) {
        expected = read->first_lsn;
        snprintf(text, sizeof text, "the first LSN left is %" PRIu64, expected);
    } else if (e == SH_NOT_FOUND && log == &q->own && !q->heard) {
        e = SH_UNAVAILABLE; /* it may have been read before we started */
        snprintf(text, sizeof text, "walsvc has not said yet how far the log is");
    } else if (e == SH_NOT_FOUND) {
        expected = log->durable_lsn + 1;
        snprintf(text, sizeof text, "the log ends at LSN %" PRIu64, log->durable_lsn);
    }
    query_refuse(q, r->token, e, text, expected);
}

const struct query_log *query_log_of(struct query *q, const struct query_read *r)
{
    const struct query_log *log = query_find_log(q, r->log);
    if (log == NULL && q->copies.known)
        query_refuse(q, r->token, SH_NOT_FOUND, "this node does not hold that log", 0);
    else if (log == NULL)
        query_refuse(q, r->token, SH_UNAVAILABLE, "walsvc has not said yet which copies there are", 0);
    return log;
}

static void set_due(struct query *q, struct query_read *r, int64_t wait_ms)
{
    if (r->probe > 0 && wait_ms < PROBE_MS)
        wait_ms = PROBE_MS;
    r->due_ns = loop_now_ns(q->service->loop) + wait_ms * NS_PER_MS;
}

/* What looks like damage may be where walsvc has cut the log, and told nobody yet: the read is done again
 * once it was asked. False: it was, or cannot be. */
static bool confirm_damage(struct query *q, const struct query_read *r)
{
    uint64_t probe = r->confirms ? 0 : query_probe(q, r->probes);
    if (probe == 0)
        return false;
    struct query_read *again = xmalloc(sizeof *again);
    *again = *r;
    again->confirms = true;
    again->probe = probe;
    again->waits = false;
    set_due(q, again, 0);
    list_put(&q->ready, again);
    return true;
}

static void answer_read(struct query *q, const struct query_read *r)
{
    const struct query_log *log = query_log_of(q, r);
    if (log == NULL)
        return;
    struct log_read read = {
        .from = r->from,
        .durable_end = log->durable_end,
        .durable_lsn = log->durable_lsn,
        .max_bytes = r->max_bytes < ANSWER_BYTES_MAX ? r->max_bytes : ANSWER_BYTES_MAX,
        .max_entries = r->max_entries,
        .next = r->from,
    };
    q->frames.len = 0;
    enum sh_error e = reader_pool_read(&q->readers, log->id, &read, &q->frames);
    if (e == SH_CORRUPT && confirm_damage(q, r))
        return;
    if (e != SH_OK) {
        refuse_read(q, r, log, e, &read);
        return;
    }
    struct msg_read_reply reply = {
        .log = log->id,
        .salt = read.salt,
        .next = read.next,
        .durable_lsn = log->durable_lsn,
        .frames = buf_slice(&q->frames),
    };
    query_answer(q, r->token, MSG_read_reply, &reply);
}

/* Whether the read has to wait for entries or for word of them. A search by time, which has not found
 * anything below `from`, waits for that word before it looks. */
static bool must_wait(const struct query *q, const struct query_read *r)
{
    const struct query_log *log = query_find_log(q, r->log);
    bool asked = r->probe > r->probes->done && link_client_is_connected(q->watch);
    if (loop_now_ns(q->service->loop) >= r->due_ns)
        return false;
    if (log == NULL)
        return asked;
    if (r->from <= log->durable_lsn)
        return (r->since > 0 || r->confirms) && asked;
    return r->waits || asked;
}

/* At the end of the log, until there is more. */
static void watch_for(struct query *q, const struct query_read *r)
{
    if (!r->waits)
        return;
    if (r->probes == &q->probes)
        query_watch(q);
    else
        query_watch_copies(q);
}

static void answer_nothing_yet(struct query *q, const struct query_read *r)
{
    const struct query_log *log = query_log_of(q, r);
    if (log == NULL)
        return;
    struct msg_read_reply reply = {.log = log->id, .next = r->from, .durable_lsn = log->durable_lsn};
    query_answer(q, r->token, MSG_read_reply, &reply);
}

/* Moves a read to the first entry of its time. False: it is to be looked at again, now or when there is more.
 */
static bool find_since(struct query *q, struct query_read *r)
{
    const struct query_log *log = query_find_log(q, r->log);
    if (log == NULL)
        return true; /* as its answer says */
    struct log_time search = {
        .log = log->id,
        .hlc = r->since,
        .durable_end = log->durable_end,
        .most_bytes = SEARCH_BYTES_MAX,
        .from = r->from,
    };
    enum sh_error e = reader_pool_find_time(&q->readers, &search);
    if (e != SH_OK) {
        struct log_read read = {.first_lsn = search.first_lsn};
        refuse_read(q, r, log, e, &read);
        r->answer = NULL;
        return true;
    }
    r->from = search.from;
    if (search.found)
        r->since = 0;
    else if (search.more || must_wait(q, r))
        return false;
    else
        r->answer = answer_nothing_yet;
    return true;
}

static void arm_overdue(struct query *q)
{
    int64_t due_ns = INT64_MAX;
    for (const struct query_read *r = q->parked.head; r != NULL; r = r->next)
        if (r->due_ns < due_ns)
            due_ns = r->due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &q->overdue);
    else
        loop_timer_set(q->service->loop, &q->overdue, due_ns);
}

/* One round: answers reads in turn, a bounded number of them. */
static void run_reads(void *arg)
{
    struct query *q = arg;
    struct read_list held;
    struct query_read *r;
    int budget = READS_A_ROUND;
    bool parked = false;
    list_init(&held);
    while (budget > 0 && (r = list_take(&q->ready)) != NULL) {
        if (must_wait(q, r)) {
            list_put(&q->parked, r);
            parked = true;
            watch_for(q, r);
        } else if (link_server_unfetched(q->server, r->token.session) > UNFETCHED_MAX) {
            list_put(&held, r); /* looked at again when something happens, its fetching for one */
        } else {
            bool ready = r->since == 0 || find_since(q, r);
            if (ready && r->answer != NULL)
                r->answer(q, r);
            if (ready)
                free(r);
            else
                list_put(&q->ready, r);
            budget--;
        }
    }
    if (q->ready.head != NULL)
        loop_timer_after(q->service->loop, &q->again, 0);
    while ((r = list_take(&held)) != NULL)
        list_put(&q->ready, r);
    if (parked)
        arm_overdue(q);
}

void query_wake_reads(struct query *q)
{
    struct query_read *r;
    while ((r = list_take(&q->parked)) != NULL)
        list_put(&q->ready, r);
}

static bool list_needs_probe(const struct read_list *list, const struct query_probes *probes)
{
    for (const struct query_read *r = list->head; r != NULL; r = r->next)
        if (r->probes == probes && r->probe > probes->sent)
            return true;
    return false;
}

bool query_reads_need_probe(const struct query *q, const struct query_probes *probes)
{
    return list_needs_probe(&q->ready, probes) || list_needs_probe(&q->parked, probes);
}

static void on_overdue(void *arg)
{
    query_wake_reads(arg); /* those that are not due are parked again */
}

static void on_again(void *arg)
{
    (void)arg; /* the round's hook goes on with the work */
}

static struct query_read *new_read(struct query *q, struct link_token token, struct id16 log,
                                   void (*answer)(struct query *q, const struct query_read *r))
{
    struct query_read *r = xcalloc(1, sizeof *r);
    bool own = id16_is_zero(log) || id16_equal(log, q->own.id);
    *r = (struct query_read){
        .answer = answer, .token = token, .log = log, .probes = own ? &q->probes : &q->copies.probes};
    return r;
}

void query_on_read(struct query *q, const struct link_request *request)
{
    struct msg_read m;
    enum sh_error e = msg_decode(MSG_read, request->body, &m);
    if (e != SH_OK) {
        query_refuse(q, request->token, e, "malformed read", 0);
        return;
    }
    struct query_read *r = new_read(q, request->token, m.log, answer_read);
    const struct query_log *log = query_find_log(q, m.log);
    r->correlation = request->correlation;
    r->from = m.from > 0 ? m.from : 1;
    r->since = m.since;
    r->max_bytes = m.max_bytes;
    r->max_entries = m.max_entries > 0 ? m.max_entries : 1;
    bool is_long = m.wait_ms >= LONG_MS;
    if (log == NULL || (!is_long && (r->from > log->durable_lsn || r->since > 0)))
        r->probe = query_probe(q, r->probes);
    r->waits = is_long || r->probe == 0;
    set_due(q, r, (int64_t)m.wait_ms);
    list_put(&q->ready, r);
}

void query_ask_first(struct query *q, struct link_token token, struct id16 log, uint64_t base,
                     void (*answer)(struct query *q, const struct query_read *r))
{
    struct query_read *r = new_read(q, token, log, answer);
    r->from = UINT64_MAX;
    r->base = base;
    r->probe = query_probe(q, r->probes);
    set_due(q, r, 0);
    list_put(&q->ready, r);
}

static void drop_from(struct read_list *list, uint64_t session)
{
    struct read_list keep;
    struct query_read *r;
    list_init(&keep);
    while ((r = list_take(list)) != NULL) {
        if (r->token.session == session)
            free(r);
        else
            list_put(&keep, r);
    }
    while ((r = list_take(&keep)) != NULL)
        list_put(list, r);
}

void query_drop_reads(struct query *q, uint64_t session)
{
    drop_from(&q->ready, session);
    drop_from(&q->parked, session);
}

void query_read_open(struct query *q)
{
    list_init(&q->ready);
    list_init(&q->parked);
    q->hook = (struct loop_hook){.fn = run_reads, .arg = q};
    q->again = (struct loop_timer){.fn = on_again};
    q->overdue = (struct loop_timer){.fn = on_overdue, .arg = q};
    loop_hook_add(q->service->loop, &q->hook);
}

void query_read_close(struct query *q)
{
    struct query_read *r;
    loop_hook_remove(q->service->loop, &q->hook);
    loop_timer_cancel(q->service->loop, &q->again);
    loop_timer_cancel(q->service->loop, &q->overdue);
    query_wake_reads(q);
    while ((r = list_take(&q->ready)) != NULL)
        free(r);
    buf_free(&q->frames);
}
