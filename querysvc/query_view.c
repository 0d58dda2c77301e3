/* The view as clients see it: scans, on the loop's thread, and who answers all else. A request with a
 * session's token waits until all of that is applied here, or its time is over.
 *
 *            on_kv_get ──► answered
 *                 │            ▲
 *    token ahead  ▼            │  applied, or over
 *                waiting ──────┘
 */
#include "query.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "query_rows.h"
#include "query_token.h"
#include "query_view_parts.h"
#include "telemetry.h"

enum {
    LOOKS_MAX = 20000,
    WAITS_MAX = 4096,
};

/* A request that waits for its token. */
struct view_wait {
    struct view_wait *next;
    struct link_token token;
    uint32_t type;
    struct buf body; /* a copy */
    int64_t due_ns;
};

struct query_view {
    struct view *view;
    struct view_state state; /* as looked at last */
    bool stale;              /* it has changed since */
    struct mailbox mailbox;
    struct mail mail;     /* the one that wakes the loop */
    struct mailbox works; /* that are done */
    atomic_bool posted;
    struct view_wait *waits;
    size_t wait_count;
    struct loop_timer overdue;
    struct query_gets *gets;
    struct buf rows, applied;
    struct query_holds *holds;
    struct query_tidy *tidy;
};

/* ---------------------------------------------------------------- state */

struct view *query_view_of(struct query *q)
{
    return q->view->view;
}

const struct view_state *query_view_state(struct query *q)
{
    struct query_view *qv = q->view;
    if (qv->stale)
        view_look(qv->view, &qv->state);
    qv->stale = false;
    return &qv->state;
}

bool query_view_is_in_store(struct query *q, struct view_store *store, struct slice after, char *error)
{
    struct view_vector applied;
    error[0] = 0;
    return after.len == 0 || (view_vector_load(store, &applied, error) != VIEW_FAILED &&
                              token_is_applied(&applied, query_group_token(q, &applied, after)) > 0);
}

struct slice query_view_applied(struct query *q)
{
    struct query_view *qv = q->view;
    struct view_vector applied = query_view_state(q)->applied;
    char error[VIEW_ERROR_MAX];
    struct view_store *store = view_begin_read(qv->view);
    if (store != NULL) {
        if (view_vector_load(store, &applied, error) == VIEW_FAILED)
            applied = query_view_state(q)->applied;
        view_end_read(qv->view);
    }
    qv->applied.len = 0;
    token_pack(&applied, &qv->applied);
    return buf_slice(&qv->applied);
}

/* ---------------------------------------------------------------- answers */

void query_view_refuse_closed(struct query *q, struct link_token token)
{
    const struct view_state *state = query_view_state(q);
    char text[VIEW_ERROR_MAX + 40];
    snprintf(text, sizeof text, "the view is not open: %s",
             state->error[0] != 0 ? state->error : "it is being opened");
    query_refuse(q, token, SH_UNAVAILABLE, text, 0);
}

void query_view_fail(struct query *q, struct link_token token, const char *error)
{
    log_error("the view cannot be read", log_text("error", error));
    query_refuse(q, token, SH_INTERNAL, error, 0);
}

void query_view_refuse_older(struct query *q, struct link_token token, const char *error)
{
    if (error[0] != 0)
        query_view_fail(q, token, error);
    else
        query_refuse(q, token, SH_UNAVAILABLE, "the view is being made again", 0);
}

/* ---- scans: values and counters, which stand in two places, by key ---- */

struct side {
    struct view_scan *scan;
    struct slice key, row; /* of the next one, without its kind */
    bool ended;
};

static void side_next(struct side *side, char error[VIEW_ERROR_MAX])
{
    side->ended = !view_scan_next(side->scan, &side->key, &side->row, error);
    if (!side->ended)
        side->key = slice_of(side->key.data + 1, side->key.len - 1);
}

static int key_compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.data, b.data, len) : 0;
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static void side_open(struct side *side, struct view_store *store, const struct view_snapshot *snapshot,
                      enum view_kind kind, const struct msg_kv_scan *m, char error[VIEW_ERROR_MAX])
{
    struct buf from = {0}, prefix = {0}, to = {0};
    static const uint8_t least = 0;
    view_key_row(kind, m->prefix, &prefix);
    view_prefix_end(buf_slice(&prefix), &to);
    bool is_within = m->behind.len > 0 && key_compare(m->behind, m->prefix) >= 0;
    view_key_row(kind, is_within ? m->behind : m->prefix, &from);
    if (is_within)
        buf_append(&from, &least, 1); /* the first key behind it */
    side->scan = view_scan_open_at(store, snapshot, buf_slice(&from), buf_slice(&to));
    buf_free(&from);
    buf_free(&prefix);
    buf_free(&to);
    side_next(side, error);
}

struct scanning {
    struct side values, counters;
    struct buf last;
    uint32_t rows;
    uint64_t hlc;
    bool more;
};

/* Takes the next key off both sides. */
static bool scan_row(struct scanning *s, struct key_row *row, char error[VIEW_ERROR_MAX])
{
    int order = s->values.ended ? 1 : s->counters.ended ? -1 : key_compare(s->values.key, s->counters.key);
    struct slice key = order <= 0 ? s->values.key : s->counters.key;
    *row = (struct key_row){0};
    s->last.len = 0;
    buf_append(&s->last, key.data, key.len);
    if (order <= 0 && !key_row_take(s->values.row, row, &s->hlc)) {
        snprintf(error, VIEW_ERROR_MAX, "a row of the view is malformed");
        return false;
    }
    if (order >= 0)
        row->has_counter = view_counter_total(s->counters.row, &row->counter);
    return true;
}

/* Behind the one that was packed; the row's slices end here. */
static void scan_on(struct scanning *s, char error[VIEW_ERROR_MAX])
{
    if (!s->values.ended && slice_equal(s->values.key, buf_slice(&s->last)))
        side_next(&s->values, error);
    if (error[0] == 0 && !s->counters.ended && slice_equal(s->counters.key, buf_slice(&s->last)))
        side_next(&s->counters, error);
}

static void scan(struct scanning *s, const struct msg_kv_scan *m, struct buf *packed,
                 char error[VIEW_ERROR_MAX])
{
    msgpack_packer pk;
    struct key_row row;
    unsigned looks = 0;
    mp_packer(&pk, packed);
    while (error[0] == 0 && !(s->values.ended && s->counters.ended)) {
        s->more = s->rows == m->most || packed->len >= ROWS_BYTES || looks == LOOKS_MAX;
        if (s->more || !scan_row(s, &row, error))
            return;
        if (row.has_value || row.has_counter) {
            key_row_pack(&pk, buf_slice(&s->last), &row, m->keys_only);
            s->rows++;
        }
        looks++;
        scan_on(s, error);
    }
}

/* Both sides as they are at one instant. */
static void scan_store(struct scanning *s, struct view_store *store, const struct msg_kv_scan *m,
                       struct buf *packed, char error[VIEW_ERROR_MAX])
{
    struct view_snapshot *snapshot = view_snapshot_take(store);
    side_open(&s->values, store, snapshot, VIEW_KEY, m, error);
    if (error[0] == 0)
        side_open(&s->counters, store, snapshot, VIEW_COUNTER, m, error);
    scan(s, m, packed, error);
    view_scan_close(s->values.scan);
    if (s->counters.scan != NULL)
        view_scan_close(s->counters.scan);
    view_snapshot_release(store, snapshot);
}

static void reply_scan(struct query *q, struct link_token token, const struct msg_kv_scan *m,
                       const struct scanning *s, const struct buf *packed)
{
    struct query_view *qv = q->view;
    msgpack_packer pk;
    qv->rows.len = 0;
    mp_packer(&pk, &qv->rows);
    msgpack_pack_array(&pk, s->rows);
    buf_append(&qv->rows, packed->data, packed->len);
    struct msg_kv_scan_reply reply = {
        .rows = buf_slice(&qv->rows), .more = s->more, .last = buf_slice(&s->last), .hlc = s->hlc};
    if (m->after.len > 0)
        reply.applied = query_view_applied(q);
    query_answer(q, token, MSG_kv_scan_reply, &reply);
}

static void answer_scan(struct query *q, struct link_token token, const struct msg_kv_scan *m)
{
    struct query_view *qv = q->view;
    char error[VIEW_ERROR_MAX] = "";
    struct scanning s = {0};
    struct buf packed = {0};
    if (m->most == 0) {
        query_refuse(q, token, SH_BAD_REQUEST, "no rows are asked for", 0);
        return;
    }
    int64_t began_ns = clock_mono_ns();
    struct view_store *store = view_begin_read(qv->view);
    if (store == NULL) {
        query_view_refuse_closed(q, token);
        return;
    }
    bool is_new = query_view_is_in_store(q, store, m->after, error);
    if (is_new)
        scan_store(&s, store, m, &packed, error);
    view_end_read(qv->view);
    if (!is_new || error[0] != 0)
        query_view_refuse_older(q, token, error);
    else
        reply_scan(q, token, m, &s, &packed);
    telemetry_take(TELEMETRY_query_scan, 0, (uint64_t)(clock_mono_ns() - began_ns));
    telemetry_add(TELEMETRY_query_got, 1, s.rows);
    buf_free(&packed);
    buf_free(&s.last);
}

/* ---------------------------------------------------------------- waiting for a token */

static void arm_overdue(struct query *q)
{
    struct query_view *qv = q->view;
    int64_t due_ns = INT64_MAX;
    for (const struct view_wait *w = qv->waits; w != NULL; w = w->next)
        due_ns = w->due_ns < due_ns ? w->due_ns : due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &qv->overdue);
    else
        loop_timer_set(q->service->loop, &qv->overdue, due_ns);
}

static void wait_for(struct query *q, const struct link_request *request, uint64_t wait_ms)
{
    struct query_view *qv = q->view;
    if (qv->wait_count == WAITS_MAX) {
        query_refuse(q, request->token, SH_OVERLOADED, "too many requests wait for the view", 0);
        return;
    }
    struct view_wait *w = xcalloc(1, sizeof *w);
    w->token = request->token;
    w->type = request->type;
    w->due_ns = loop_now_ns(q->service->loop) + (int64_t)wait_ms * NS_PER_MS;
    buf_append(&w->body, request->body.data, request->body.len);
    w->next = qv->waits;
    qv->waits = w;
    qv->wait_count++;
    arm_overdue(q);
    query_probe(q, &q->copies.probes); /* what it waits for may be durable already */
}

/* What may wait for a session's token. */
union waiting_message {
    struct msg_kv_get get;
    struct msg_kv_scan scan;
    struct msg_cursor_get cursor_get;
    struct msg_cursor_set cursor_set;
};

/* Decodes it: its token, and how long it waits. */
static enum sh_error open_message(uint32_t type, struct slice body, union waiting_message *m,
                                  struct slice *after, uint64_t *wait_ms)
{
    enum sh_error e = msg_decode(type, body, m);
    if (e != SH_OK)
        return e;
    *after = type == MSG_kv_get       ? m->get.after
             : type == MSG_kv_scan    ? m->scan.after
             : type == MSG_cursor_get ? m->cursor_get.after
                                      : m->cursor_set.after;
    *wait_ms = type == MSG_kv_get       ? m->get.wait_ms
               : type == MSG_kv_scan    ? m->scan.wait_ms
               : type == MSG_cursor_get ? m->cursor_get.wait_ms
                                        : m->cursor_set.wait_ms;
    return SH_OK;
}

static void answer_request(struct query *q, struct link_token token, uint32_t type, struct slice body)
{
    union waiting_message m;
    if (msg_decode(type, body, &m) != SH_OK)
        query_refuse(q, token, SH_BAD_REQUEST, "malformed", 0);
    else if (type == MSG_kv_get)
        query_gets_answer(q, token, &m.get);
    else if (type == MSG_kv_scan)
        answer_scan(q, token, &m.scan);
    else if (type == MSG_cursor_get)
        query_cursor_get(q, token, &m.cursor_get);
    else
        query_cursor_set(q, token, &m.cursor_set);
}

void query_view_refuse_late(struct query *q, struct link_token token, struct slice after)
{
    const struct view_state *state = query_view_state(q);
    char text[VIEW_ERROR_MAX + 160], uuid[ID_TEXT];
    struct view_place want;
    token_missing(&state->applied, after, &want);
    const struct view_place *have = view_place_of(&state->applied, want.log);
    id16_format(want.log, uuid);
    snprintf(text, sizeof text, "log %s is wanted up to LSN %llu, and applied here up to %llu%s%s", uuid,
             (unsigned long long)want.lsn, (unsigned long long)(have != NULL ? have->lsn : 0),
             state->error[0] != 0 ? ": " : "", state->error);
    query_refuse(q, token, SH_TIMEOUT, text, 0);
}

static struct slice after_of(uint32_t type, struct slice body)
{
    union waiting_message m;
    struct slice after = {0};
    uint64_t wait_ms;
    open_message(type, body, &m, &after, &wait_ms); /* it was, before */
    return after;
}

/* Answers those whose token is applied, and those whose time is over. */
static void look_at_waits(struct query *q)
{
    struct query_view *qv = q->view;
    struct view_wait **at = &qv->waits, *w;
    while ((w = *at) != NULL) {
        struct slice after =
            query_group_token(q, &query_view_state(q)->applied, after_of(w->type, buf_slice(&w->body)));
        bool is_over = loop_now_ns(q->service->loop) >= w->due_ns;
        if (token_is_applied(&query_view_state(q)->applied, after) == 0 && !is_over) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        qv->wait_count--;
        if (token_is_applied(&query_view_state(q)->applied, after) == 0)
            query_view_refuse_late(q, w->token, after);
        else
            answer_request(q, w->token, w->type, buf_slice(&w->body));
        buf_free(&w->body);
        free(w);
    }
    arm_overdue(q);
}

static void on_overdue(void *arg)
{
    look_at_waits(arg);
}

bool query_view_refuse_absent(struct query *q, struct link_token token)
{
    if (q->view == NULL)
        query_refuse(q, token, SH_FORBIDDEN,
                     "this node keeps no view: set query.view to true, and restart querysvc", 0);
    return q->view == NULL;
}

void query_on_view(struct query *q, const struct link_request *request)
{
    union waiting_message m;
    struct slice after;
    uint64_t wait_ms;
    enum sh_error e = open_message(request->type, request->body, &m, &after, &wait_ms);
    if (e != SH_OK) {
        query_refuse(q, request->token, e, "malformed", 0);
        return;
    }
    if ((request->type == MSG_kv_get && !query_group_check_keys(q, request->token, m.get.keys)) ||
        query_view_refuse_absent(q, request->token))
        return;
    const struct view_vector *vector = &query_view_state(q)->applied;
    int applied = token_is_applied(vector, query_group_token(q, vector, after));
    if (applied < 0)
        query_refuse(q, request->token, SH_BAD_REQUEST, "a malformed token", 0);
    else if (applied == 0)
        wait_for(q, request, wait_ms);
    else
        answer_request(q, request->token, request->type, request->body);
}

void query_view_drop(struct query *q, uint64_t session)
{
    struct query_view *qv = q->view;
    struct view_wait **at, *w;
    if (qv == NULL)
        return;
    query_gets_drop(qv->gets, session);
    query_cursor_drop(q, session);
    query_streams_drop(q, session);
    query_holds_drop(q, session);
    at = &qv->waits;
    while ((w = *at) != NULL) {
        if (w->token.session != session) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        qv->wait_count--;
        buf_free(&w->body);
        free(w);
    }
}

/* ---------------------------------------------------------------- life */

/* One mail at most is under way: whatever has changed meanwhile, it finds. */
static void on_change(void *arg)
{
    struct query *q = arg;
    if (!atomic_exchange(&q->view->posted, true))
        mailbox_put(&q->view->mailbox, &q->view->mail);
}

void query_view_refresh(struct query *q)
{
    q->view->stale = true;
    look_at_waits(q);
    query_condition_look(q);
    query_streams_wake(q);
    query_holds_move(q);
    query_cursor_look(q);
    query_tidy_look(q, query_view_state(q));
    query_watch_wake(q);
}

static void on_mail(void *arg, struct mail *first)
{
    struct query *q = arg;
    (void)first;
    if (q->view->view == NULL)
        return; /* it was closed */
    atomic_store(&q->view->posted, false);
    query_view_refresh(q);
    query_fetch_look(q);
}

static void on_work(void *arg, struct view_work *work)
{
    struct query *q = arg;
    mailbox_put(&q->view->works, &work->mail);
}

static void on_works(void *arg, struct mail *first)
{
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        struct view_work *work = (struct view_work *)mail;
        next = mail->next;
        work->done(arg, work);
    }
}

void query_view_tell(struct query *q)
{
    struct view_log logs[VIEW_LOGS_MAX];
    size_t count = 0;
    if (q->view == NULL)
        return;
    logs[count++] = (struct view_log){q->own.id, q->own.durable_end, q->own.durable_lsn};
    for (size_t i = 0; i < q->copies.count && count < VIEW_LOGS_MAX; i++)
        logs[count++] = (struct view_log){q->copies.logs[i].id, q->copies.logs[i].durable_end,
                                          q->copies.logs[i].durable_lsn};
    view_tell(q->view->view, logs, count);
    query_holds_move(q);
    query_cursor_look(q);
}

struct query_gets *query_gets_of(struct query *q)
{
    return q->view->gets;
}

struct query_holds *query_holds_of(struct query *q)
{
    return q->view->holds;
}

struct query_tidy *query_tidy_of(struct query *q)
{
    return q->view->tidy;
}

void query_view_open(struct query *q)
{
    const struct config *config = q->service->config;
    struct query_view *qv = xcalloc(1, sizeof *qv);
    struct view_options options = {
        .fs = q->fs,
        .store = {.cache_bytes = config->settings.query_cache_bytes,
                  .write_buffer_bytes = config->settings.query_write_buffer_bytes},
        .own = q->own.id,
        .keep_ms = config->settings.query_tombstone_keep / NS_PER_MS,
        .on_change = on_change,
        .on_work = on_work,
        .arg = q,
    };
    snprintf(options.data, sizeof options.data, "%s", config->data_dir);
    q->view = qv;
    query_streams_open(q);
    qv->overdue = (struct loop_timer){.fn = on_overdue, .arg = q};
    mailbox_open(&qv->mailbox, q->service->loop, on_mail, q);
    mailbox_open(&qv->works, q->service->loop, on_works, q);
    qv->holds = query_holds_open(q);
    qv->tidy = query_tidy_open(q);
    qv->view = view_open(&options);
    qv->gets = query_gets_open(q, qv->view);
    query_cursor_open(q);
}

void query_view_close(struct query *q)
{
    struct query_view *qv = q->view;
    if (qv == NULL)
        return;
    query_cursor_close(q);
    query_gets_close(qv->gets);
    view_close(qv->view);
    qv->view = NULL;
    mailbox_close(&qv->mailbox);
    mailbox_close(&qv->works);
    loop_timer_cancel(q->service->loop, &qv->overdue);
    query_streams_close(q);
    for (struct view_wait *w = qv->waits, *next; w != NULL; w = next) {
        next = w->next;
        buf_free(&w->body);
        free(w);
    }
    query_holds_close(q, qv->holds);
    query_tidy_close(q, qv->tidy);
    buf_free(&qv->rows);
    buf_free(&qv->applied);
    free(qv);
    q->view = NULL;
}
