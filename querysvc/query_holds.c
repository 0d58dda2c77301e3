/* The view's holds: nothing of a log is trimmed that the view would need after a restart. And trims by hand,
 * which wait until the view has gone on as far as they go:
 *
 *   log_trim ──► asks how far the log is ──► the view applies, and flushes ──► its hold is moved ──► passed
 * on to walsvc
 *
 * for WAIT_MS at most: then walsvc says what holds the log. The own log's hold moves by segments: more
 * precise it needs not be, and walsvc can sleep. Those of others move with the view, since a closed log goes
 * as a whole.
 */
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "query_view_parts.h"

enum { HOLD_VIEW = 2, WAIT_MS = 5000, TRIMS_MAX = 64 };

/* What a log's hold says. */
struct view_hold {
    struct id16 log;
    uint64_t lsn; /* that walsvc has answered for; 0: none yet */
};

/* A trim that waits. */
struct waiting_trim {
    struct waiting_trim *next;
    struct link_request request; /* its body is a copy */
    struct buf body;
    struct id16 log;
    uint64_t before;
    struct query_probes *probes; /* of that log */
    uint64_t probe;              /* the one that must be done first */
    int64_t due_ns;
};

struct query_holds {
    struct view_hold all[VIEW_LOGS_MAX];
    size_t count;
    struct view_hold asked; /* the one that is on its way */
    uint64_t number;        /* of its request; 0: none is */
    struct waiting_trim *trims;
    size_t trim_count;
    struct loop_timer overdue;
};

static struct view_hold *hold_of(struct query_holds *h, struct id16 log)
{
    for (size_t i = 0; i < h->count; i++)
        if (id16_equal(h->all[i].log, log))
            return &h->all[i];
    if (h->count == VIEW_LOGS_MAX)
        return NULL;
    h->all[h->count] = (struct view_hold){.log = log};
    return &h->all[h->count++];
}

/* A log that is not there any more, and comes back, has no hold. */
static void forget_gone(struct query *q, struct query_holds *h)
{
    for (size_t i = 0; q->copies.known && i < h->count;) {
        if (query_find_log(q, h->all[i].log) != NULL)
            i++;
        else
            h->all[i] = h->all[--h->count];
    }
}

/* ---------------------------------------------------------------- trims that wait */

/* Up to here the view must be on disk for it. */
static uint64_t needed_lsn(const struct waiting_trim *t, const struct query_log *log)
{
    uint64_t most = log->durable_lsn;
    return t->before > 0 && t->before - 1 < most ? t->before - 1 : most;
}

static uint64_t flushed_lsn(struct query *q, struct id16 log)
{
    const struct view_place *place = view_place_of(&query_view_state(q)->flushed, log);
    return place != NULL ? place->lsn : 0;
}

static bool is_probed(const struct waiting_trim *t)
{
    return t->probe == 0 || t->probes->done >= t->probe;
}

/* Whether some trim needs the exact hold of that log, which is on disk. */
static bool is_trimmed_exactly(struct query *q, struct id16 log)
{
    for (const struct waiting_trim *t = query_holds_of(q)->trims; t != NULL; t = t->next)
        if (id16_equal(t->log, log))
            return true;
    return false;
}

static bool is_covered(struct query *q, const struct waiting_trim *t)
{
    const struct query_log *log = query_find_log(q, t->log);
    if (log == NULL || !query_view_state(q)->opened || q->watch == NULL ||
        !link_client_is_connected(q->watch))
        return true; /* it waits for nothing that could happen soon */
    const struct view_hold *hold = hold_of(query_holds_of(q), t->log);
    uint64_t lsn = needed_lsn(t, log);
    return is_probed(t) && flushed_lsn(q, t->log) >= lsn && (hold == NULL || hold->lsn > lsn);
}

static void arm(struct query *q)
{
    struct query_holds *h = query_holds_of(q);
    int64_t due_ns = INT64_MAX;
    for (const struct waiting_trim *t = h->trims; t != NULL; t = t->next)
        due_ns = t->due_ns < due_ns ? t->due_ns : due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &h->overdue);
    else
        loop_timer_set(q->service->loop, &h->overdue, due_ns);
}

static void free_trim(struct waiting_trim *t)
{
    buf_free(&t->body);
    free(t);
}

/* Than is on disk. */
static bool has_more_applied(struct query *q, struct id16 log)
{
    const struct view_place *place = view_place_of(&query_view_state(q)->applied, log);
    return place != NULL && place->lsn > flushed_lsn(q, log);
}

/* Passes on those that need not wait any more. */
static void look_at_trims(struct query *q)
{
    struct query_holds *h = query_holds_of(q);
    struct waiting_trim **at = &h->trims, *t;
    if (h->trims == NULL)
        return;
    while ((t = *at) != NULL) {
        if (!is_covered(q, t) && loop_now_ns(q->service->loop) < t->due_ns) {
            if (is_probed(t) && has_more_applied(q, t->log))
                view_flush(query_view_of(q));
            at = &t->next;
            continue;
        }
        *at = t->next;
        h->trim_count--;
        query_forward_send(&q->wal, &t->request);
        free_trim(t);
    }
    arm(q);
}

static void on_overdue(void *arg)
{
    look_at_trims(arg);
}

void query_on_trim(struct query *q, const struct link_request *request)
{
    struct msg_log_trim m;
    struct query_holds *h = q->view != NULL ? query_holds_of(q) : NULL;
    const struct query_log *log = NULL;
    if (h != NULL && h->trim_count < TRIMS_MAX && msg_decode(MSG_log_trim, request->body, &m) == SH_OK)
        log = query_find_log(q, m.log);
    if (log == NULL) {
        query_forward_send(&q->wal, request);
        return;
    }
    struct waiting_trim *t = xcalloc(1, sizeof *t);
    buf_append(&t->body, request->body.data, request->body.len);
    t->request = (struct link_request){.token = request->token,
                                       .type = request->type,
                                       .correlation = request->correlation,
                                       .body = buf_slice(&t->body),
                                       .local = request->local};
    t->log = log->id;
    t->before = m.before;
    t->probes = log == &q->own ? &q->probes : &q->copies.probes;
    t->probe = query_probe(q, t->probes);
    t->due_ns = loop_now_ns(q->service->loop) + WAIT_MS * (int64_t)NS_PER_MS;
    t->next = h->trims;
    h->trims = t;
    h->trim_count++;
    query_holds_move(q);
}

void query_trims_probed(struct query *q)
{
    if (q->view != NULL && query_holds_of(q)->trims != NULL)
        query_view_tell(q);
}

bool query_trims_need_probe(struct query *q, const struct query_probes *probes)
{
    if (q->view == NULL)
        return false;
    for (const struct waiting_trim *t = query_holds_of(q)->trims; t != NULL; t = t->next)
        if (t->probes == probes && t->probe > probes->sent)
            return true;
    return false;
}

void query_holds_drop(struct query *q, uint64_t session)
{
    struct query_holds *h = query_holds_of(q);
    struct waiting_trim **at = &h->trims, *t;
    while ((t = *at) != NULL) {
        if (t->request.token.session != session) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        h->trim_count--;
        free_trim(t);
    }
}

/* ---------------------------------------------------------------- moving */

/* The first LSN that is needed. */
static uint64_t needed_from(struct query *q, struct id16 log)
{
    const struct view_place *place = view_place_of(&query_view_state(q)->flushed, log);
    if (place == NULL)
        return 1;
    bool by_segment = id16_equal(log, q->own.id) && place->segment > 0 && !is_trimmed_exactly(q, log);
    return by_segment ? place->segment : place->lsn + 1;
}

static void ask_hold(struct query *q, struct id16 log, uint64_t lsn)
{
    const struct msg_hold ask = {.log = log, .name = slice_str("view"), .kind = HOLD_VIEW, .lsn = lsn};
    query_holds_of(q)->number = query_ask_wal(q, MSG_hold, &ask);
}

static bool is_to_move(struct query *q, struct id16 log)
{
    const struct view_place *place = view_place_of(&query_view_state(q)->flushed, log);
    const struct view_hold *hold = hold_of(query_holds_of(q), log);
    uint64_t lsn = needed_from(q, log);
    bool is_behind = hold != NULL && hold->lsn > (place != NULL ? place->lsn : 0) + 1; /* it was made again */
    return hold != NULL && hold->lsn != lsn && (hold->lsn < lsn || is_behind);
}

/* True: it was to be moved, and is on its way. */
static bool move_hold(struct query *q, struct id16 log)
{
    if (!is_to_move(q, log))
        return false;
    query_holds_of(q)->asked = (struct view_hold){log, needed_from(q, log)};
    ask_hold(q, log, needed_from(q, log));
    return true;
}

bool query_view_is_held(struct query *q)
{
    bool moves = query_holds_of(q)->number != 0 || is_to_move(q, q->own.id);
    for (size_t i = 0; i < q->copies.count && !moves; i++)
        moves = is_to_move(q, q->copies.logs[i].id);
    return !moves;
}

/* One after the other. */
void query_holds_move(struct query *q)
{
    struct query_holds *h = query_holds_of(q);
    if (query_view_state(q)->opened && h->number == 0 && q->watch != NULL) {
        forget_gone(q, h);
        bool moves = move_hold(q, q->own.id);
        for (size_t i = 0; i < q->copies.count && !moves; i++)
            moves = move_hold(q, q->copies.logs[i].id);
    }
    look_at_trims(q);
}

bool query_on_hold(struct query *q, uint64_t number, uint32_t type, struct slice body)
{
    struct msg_error error;
    struct query_holds *h = q->view != NULL ? query_holds_of(q) : NULL;
    if (h == NULL || h->number == 0 || number != h->number)
        return false;
    bool refused = type == MSG_error && msg_decode(type, body, &error) == SH_OK;
    if (refused)
        log_warn("walsvc does not keep what the view needs", log_slice("text", error.text));
    if (refused && error.code == SH_TRIMMED && error.expected > h->asked.lsn) {
        ask_hold(q, h->asked.log, error.expected); /* a member's view may bring what is before */
        return true;
    }
    struct view_hold *hold = hold_of(h, h->asked.log);
    h->number = 0;
    failpoint_hit("view_held");
    if (hold != NULL)
        hold->lsn = h->asked.lsn; /* also when it is refused: asked again when it is to be moved on */
    query_holds_move(q);
    query_fetch_look(q);
    return true;
}

/* ---------------------------------------------------------------- life */

struct query_holds *query_holds_open(struct query *q)
{
    struct query_holds *h = xcalloc(1, sizeof *h);
    h->overdue = (struct loop_timer){.fn = on_overdue, .arg = q};
    return h;
}

void query_holds_close(struct query *q, struct query_holds *h)
{
    loop_timer_cancel(q->service->loop, &h->overdue);
    for (struct waiting_trim *t = h->trims, *next; t != NULL; t = next) {
        next = t->next;
        free_trim(t);
    }
    free(h);
}
