/* Watches: what this node applies, told as it comes, on the loop's thread.
 *
 *        on_watch ──► ready ──► answered: changes, something missing, or so much looked at that it is enough
 *                      │  ▲
 *    nothing to look   ▼  │  more is applied, or overdue
 *                     parked
 *
 * A parked one remembers how far it has looked. Each look has a bound, and so has a round; sessions that do
 * not fetch get no further answer. Nothing here is fatal. */
#include "query.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "query_token.h"
#include "view.h"
#include "watch_gather.h"

enum {
    ANSWER_MAX = 1 << 20,
    LOOK_MAX = 1 << 20,      /* bytes of frames in one go */
    LOOKS_A_ROUND = 8,       /* then other work gets its turn */
    WATCHES_MAX = 1024,      /* of all sessions */
    MOST_MAX = 10000,        /* changes in an answer */
    UNFETCHED_MAX = 2 << 20, /* of one session */
    PAUSE_MS = 5,            /* between two looks at what is applied, whatever its pace */
};

struct watch {
    struct watch *next;
    struct link_token token;
    struct buf prefix;
    struct watch_place *places;
    size_t count;
    uint32_t most;
    size_t max_bytes;
    int64_t due_ns;
};

struct watch_list {
    struct watch *head, **tail;
};

struct query_watches {
    struct watch_list ready, parked;
    size_t count;
    struct loop_hook hook;
    struct loop_timer again, overdue, pause;
};

/* ---------------------------------------------------------------- lists */

static void list_init(struct watch_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_put(struct watch_list *list, struct watch *w)
{
    w->next = NULL;
    *list->tail = w;
    list->tail = &w->next;
}

static struct watch *list_take(struct watch_list *list)
{
    struct watch *w = list->head;
    if (w == NULL)
        return NULL;
    list->head = w->next;
    if (list->head == NULL)
        list->tail = &list->head;
    return w;
}

static void list_move(struct watch_list *from, struct watch_list *to)
{
    struct watch *w;
    while ((w = list_take(from)) != NULL)
        list_put(to, w);
}

static void end_watch(struct query *q, struct watch *w)
{
    q->watches->count--;
    buf_free(&w->prefix);
    free(w->places);
    free(w);
}

/* ---------------------------------------------------------------- version vectors */

static struct watch_place *place_of(struct watch *w, struct id16 log)
{
    for (size_t i = 0; i < w->count; i++)
        if (id16_equal(w->places[i].log, log))
            return &w->places[i];
    return NULL;
}

/* NULL: there is no room for one more. */
static struct watch_place *find_or_add(struct watch *w, struct id16 log)
{
    struct watch_place *p = place_of(w, log);
    if (p != NULL || w->count == VIEW_LOGS_MAX)
        return p;
    w->places = xrealloc(w->places, (w->count + 1) * sizeof *w->places);
    p = &w->places[w->count++];
    *p = (struct watch_place){.log = log};
    return p;
}

/* What it names of other groups' logs, none of which ever comes, is left to whoever asks. */
static bool take_from(struct query *q, struct watch *w, struct slice from)
{
    struct view_vector vector;
    if (!token_read(query_group_token(q, &query_view_state(q)->applied, from), &vector))
        return false;
    for (size_t i = 0; i < vector.count; i++)
        find_or_add(w, vector.all[i].log)->lsn = vector.all[i].lsn;
    return true;
}

/* How far may be looked now. False: there are too many logs. */
static bool take_applied(struct watch *w, const struct view_vector *applied)
{
    for (size_t i = 0; i < w->count; i++)
        w->places[i].applied = 0;
    for (size_t i = 0; i < applied->count; i++) {
        struct watch_place *p = find_or_add(w, applied->all[i].log);
        if (p == NULL)
            return false;
        p->applied = applied->all[i].lsn;
    }
    return true;
}

static void pack_position(const struct watch *w, struct buf *out)
{
    struct view_vector vector = {.count = w->count};
    for (size_t i = 0; i < w->count; i++)
        vector.all[i] = (struct view_place){.log = w->places[i].log, .lsn = w->places[i].lsn};
    token_pack(&vector, out);
}

/* ---------------------------------------------------------------- answers */

static void pack_missing(const struct watch_missing *missing, struct buf *out)
{
    msgpack_packer pk;
    if (missing->first == 0)
        return;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, 4);
    mp_pack_bin(&pk, slice_of(missing->log.bytes, sizeof missing->log.bytes));
    msgpack_pack_uint64(&pk, missing->first);
    msgpack_pack_uint64(&pk, missing->last);
    msgpack_pack_uint64(&pk, missing->error);
}

static void answer(struct query *q, const struct watch *w, const struct watch_gather *g)
{
    struct buf changes = {0}, position = {0}, missing = {0};
    msgpack_packer pk;
    mp_packer(&pk, &changes);
    msgpack_pack_array(&pk, g->gathered);
    buf_append(&changes, g->changes.data, g->changes.len);
    pack_position(w, &position);
    pack_missing(&g->missing, &missing);
    const struct msg_watch_reply reply = {
        .changes = buf_slice(&changes), .position = buf_slice(&position), .missing = buf_slice(&missing)};
    query_answer(q, w->token, MSG_watch_reply, &reply);
    buf_free(&changes);
    buf_free(&position);
    buf_free(&missing);
}

static void refuse(struct query *q, const struct watch *w, const struct watch_gather *g, enum sh_error e)
{
    const struct watch_place *p = place_of((struct watch *)(uintptr_t)w, g->failed);
    char text[ID_TEXT + 80], uuid[ID_TEXT];
    id16_format(g->failed, uuid);
    snprintf(text, sizeof text, "log %s cannot be read from LSN %" PRIu64 " on", uuid,
             (p != NULL ? p->lsn : 0) + 1);
    query_refuse(q, w->token, e, text, 0);
}

/* ---------------------------------------------------------------- looking */

static enum sh_error read_log(void *arg, struct id16 id, struct log_read *read, struct buf *out)
{
    struct query *q = arg;
    const struct query_log *log = query_find_log(q, id);
    if (log == NULL && q->copies.known) { /* closed, and its copy is gone */
        const struct view_place *place = view_place_of(&query_view_state(q)->applied, id);
        read->first_lsn = (place != NULL ? place->lsn : 0) + 1;
        return SH_TRIMMED;
    }
    if (log == NULL || log->durable_lsn < read->from)
        return SH_NOT_FOUND;
    read->durable_end = log->durable_end;
    read->durable_lsn = log->durable_lsn;
    return reader_pool_read(&q->readers, id, read, out);
}

/* True: it is answered. */
static bool look(struct query *q, struct watch *w)
{
    struct watch_gather g = {
        .prefix = buf_slice(&w->prefix),
        .most = w->most,
        .max_bytes = w->max_bytes,
        .max_look = LOOK_MAX,
        .read = read_log,
        .arg = q,
    };
    if (!take_applied(w, &query_view_state(q)->applied)) {
        query_refuse(q, w->token, SH_TOO_LARGE, "the position and this node have more than 256 logs", 0);
        return true;
    }
    g.places = w->places;
    g.count = w->count;
    enum sh_error e = watch_gather(&g);
    bool has_news = g.gathered > 0 || g.missing.first > 0 || g.more;
    bool answers = has_news || e != SH_OK || loop_now_ns(q->service->loop) >= w->due_ns;
    if (e != SH_OK)
        refuse(q, w, &g, e);
    else if (answers)
        answer(q, w, &g);
    buf_free(&g.changes);
    return answers;
}

static void arm_overdue(struct query *q)
{
    struct query_watches *ws = q->watches;
    int64_t due_ns = INT64_MAX;
    for (const struct watch *w = ws->parked.head; w != NULL; w = w->next)
        due_ns = w->due_ns < due_ns ? w->due_ns : due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &ws->overdue);
    else
        loop_timer_set(q->service->loop, &ws->overdue, due_ns);
}

/* One round: a bounded number of looks. */
static void run_watches(void *arg)
{
    struct query *q = arg;
    struct query_watches *ws = q->watches;
    struct watch_list held;
    struct watch *w;
    bool parked = false;
    list_init(&held);
    for (int looks = 0; looks < LOOKS_A_ROUND && (w = list_take(&ws->ready)) != NULL; looks++) {
        if (link_server_unfetched(q->server, w->token.session) > UNFETCHED_MAX) {
            list_put(&held, w); /* looked at again when something happens, its fetching for one */
        } else if (look(q, w)) {
            end_watch(q, w);
        } else {
            list_put(&ws->parked, w);
            parked = true;
        }
    }
    if (ws->ready.head != NULL)
        loop_timer_after(q->service->loop, &ws->again, 0);
    list_move(&held, &ws->ready);
    if (parked)
        arm_overdue(q);
}

static void on_again(void *arg)
{
    (void)arg; /* the round's hook goes on with the work */
}

static void on_wake(void *arg)
{
    struct query *q = arg;
    list_move(&q->watches->parked, &q->watches->ready); /* those that find nothing are parked again */
}

void query_watch_wake(struct query *q)
{
    struct query_watches *ws = q->watches;
    if (ws != NULL && ws->parked.head != NULL && ws->pause.slot == 0)
        loop_timer_after(q->service->loop, &ws->pause, PAUSE_MS * (int64_t)NS_PER_MS);
}

/* ---------------------------------------------------------------- requests */

/* Behind all that rows which were read before may show. */
static void answer_now(struct query *q, struct link_token token)
{
    static const uint8_t none[] = {0x90};
    const struct msg_watch_reply reply = {.changes = slice_of(none, sizeof none),
                                          .position = query_view_applied(q)};
    query_answer(q, token, MSG_watch_reply, &reply);
}

/* NULL: it is refused. */
static struct watch *new_watch(struct query *q, const struct link_request *request, const struct msg_watch *m)
{
    struct watch *w = xcalloc(1, sizeof *w);
    q->watches->count++;
    w->token = request->token;
    w->most = (uint32_t)m->most;
    w->max_bytes = m->max_bytes > 0 && m->max_bytes < ANSWER_MAX ? (size_t)m->max_bytes : ANSWER_MAX;
    w->due_ns = loop_now_ns(q->service->loop) + (int64_t)m->wait_ms * NS_PER_MS;
    buf_append(&w->prefix, m->prefix.data, m->prefix.len);
    if (take_from(q, w, m->from))
        return w;
    end_watch(q, w);
    query_refuse(q, request->token, SH_BAD_REQUEST, "a malformed version vector", 0);
    return NULL;
}

void query_on_watch(struct query *q, const struct link_request *request)
{
    struct msg_watch m;
    if (query_view_refuse_absent(q, request->token))
        return;
    enum sh_error e = msg_decode(MSG_watch, request->body, &m);
    if (e != SH_OK) {
        query_refuse(q, request->token, e, "malformed", 0);
    } else if (m.most == 0 || m.most > MOST_MAX) {
        query_refuse(q, request->token, SH_BAD_REQUEST, "1 to 10,000 changes are asked for", 0);
    } else if (!query_view_state(q)->opened) {
        query_view_refuse_closed(q, request->token);
    } else if (m.from.len == 0) {
        answer_now(q, request->token);
    } else if (q->watches->count == WATCHES_MAX) {
        query_refuse(q, request->token, SH_OVERLOADED, "too many watches wait on this node", 0);
    } else {
        struct watch *w = new_watch(q, request, &m);
        if (w != NULL)
            list_put(&q->watches->ready, w);
    }
}

static void drop_from(struct query *q, struct watch_list *list, uint64_t session)
{
    struct watch_list keep;
    struct watch *w;
    list_init(&keep);
    while ((w = list_take(list)) != NULL) {
        if (w->token.session == session)
            end_watch(q, w);
        else
            list_put(&keep, w);
    }
    list_move(&keep, list);
}

void query_watch_drop(struct query *q, uint64_t session)
{
    if (q->watches == NULL)
        return;
    drop_from(q, &q->watches->ready, session);
    drop_from(q, &q->watches->parked, session);
}

/* ---------------------------------------------------------------- life */

void query_watch_open(struct query *q)
{
    struct query_watches *ws = xcalloc(1, sizeof *ws);
    q->watches = ws;
    list_init(&ws->ready);
    list_init(&ws->parked);
    ws->hook = (struct loop_hook){.fn = run_watches, .arg = q};
    ws->again = (struct loop_timer){.fn = on_again};
    ws->overdue = (struct loop_timer){.fn = on_wake, .arg = q};
    ws->pause = (struct loop_timer){.fn = on_wake, .arg = q};
    loop_hook_add(q->service->loop, &ws->hook);
}

void query_watch_close(struct query *q)
{
    struct query_watches *ws = q->watches;
    struct watch *w;
    if (ws == NULL)
        return;
    loop_hook_remove(q->service->loop, &ws->hook);
    loop_timer_cancel(q->service->loop, &ws->again);
    loop_timer_cancel(q->service->loop, &ws->overdue);
    loop_timer_cancel(q->service->loop, &ws->pause);
    list_move(&ws->parked, &ws->ready);
    while ((w = list_take(&ws->ready)) != NULL)
        end_watch(q, w);
    free(ws);
    q->watches = NULL;
}
