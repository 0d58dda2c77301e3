/* Cursors as clients see them, on the loop's thread: got from the view, set by an entry in the own log.
 *
 *   on_cursor_set ──► waiting ──► appending ──► applying ──► forgotten
 *                      │   ▲          │  │ answered
 *                      │   └──────────┘  │
 *                      └──► refused ◄────┘
 *
 * A set is decided by what the view knows, and walsvc takes its entry on condition that the own log has none
 * of that cursor which the view had not applied; otherwise it is decided again, when the view has. So of two
 * that take a cursor on one node the second one gets the next epoch. One set of a name is under way at a
 * time, so that this is rare. Takers on two nodes that have not heard of each other may get the same epoch;
 * then one of them gets `conflict` as soon as its node knows (view_cursor_compare). */
#include "query.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "query_token.h"
#include "view.h"
#include "view_cursor.h"

enum { GET_MOST = 1000, ANSWER_MAX = 1 << 20, LOOKS_MAX = 20000, OPS_MAX = 256 };

/* A set that is under way. */
struct cursor_op {
    struct cursor_op *next;
    struct link_token token;
    bool has_client; /* who waits for an answer */
    bool is_new;     /* one more cursor that holds */
    struct buf body;
    char name[CURSOR_NAME_MAX + 1];
    enum { OP_WAITING, OP_APPENDING, OP_APPLYING } state;
    int64_t due_ns;  /* while it waits */
    uint64_t number; /* of the append */
    uint64_t lsn;    /* to be applied: of the own log before it is decided, then of the entry */
    uint64_t epoch, ttl_ms;
    struct buf position;
};

struct query_cursor {
    struct cursor_op *ops; /* the oldest first */
    size_t count, appending;
    struct loop_timer again;
    struct buf key, row;
    struct cursor_holder *holder;
};

static uint64_t now_ms(void)
{
    return (uint64_t)(clock_real_ns() / NS_PER_MS);
}

/* ---------------------------------------------------------------- rows */

/* *out points into c->row. */
static enum view_found find_cursor(struct query_cursor *c, struct view_store *store, struct slice name,
                                   struct view_cursor *out, char error[VIEW_ERROR_MAX])
{
    c->row.len = 0;
    view_key_row(VIEW_CURSOR, name, &c->key);
    enum view_found found = view_store_get(store, buf_slice(&c->key), &c->row, error);
    if (found == VIEW_FOUND && !view_cursor_decode(buf_slice(&c->row), out)) {
        snprintf(error, VIEW_ERROR_MAX, "a row of the view is malformed");
        return VIEW_FAILED;
    }
    return found;
}

static void pack_log(msgpack_packer *pk, struct id16 log, uint64_t lsn, const struct query_log *held)
{
    msgpack_pack_array(pk, 3);
    mp_pack_bin(pk, slice_of(log.bytes, sizeof log.bytes));
    msgpack_pack_uint64(pk, lsn);
    if (held != NULL)
        msgpack_pack_uint64(pk, held->durable_lsn);
    else
        msgpack_pack_nil(pk);
}

/* All logs of the node, then those that only the position names. */
static void pack_logs(msgpack_packer *pk, struct query *q, const struct version_vector *position)
{
    size_t elsewhere = 0;
    for (size_t i = 0; i < position->count; i++)
        elsewhere += query_find_log(q, position->all[i].log) == NULL;
    msgpack_pack_array(pk, 1 + q->copies.count + elsewhere);
    pack_log(pk, q->own.id, vector_lsn(position, q->own.id), &q->own);
    for (size_t i = 0; i < q->copies.count; i++) {
        const struct query_log *log = &q->copies.logs[i];
        pack_log(pk, log->id, vector_lsn(position, log->id), log);
    }
    for (size_t i = 0; i < position->count; i++)
        if (query_find_log(q, position->all[i].log) == NULL)
            pack_log(pk, position->all[i].log, position->all[i].lsn, NULL);
}

static void pack_cursor(msgpack_packer *pk, struct query *q, struct slice name, const struct view_cursor *c)
{
    struct version_vector position;
    if (!vector_decode(c->position, &position))
        position.count = 0;
    msgpack_pack_array(pk, 11);
    mp_pack_str(pk, name);
    msgpack_pack_uint64(pk, c->epoch);
    mp_pack_bin(pk, slice_of(c->owner.bytes, sizeof c->owner.bytes));
    mp_pack_raw(pk, c->position);
    msgpack_pack_uint64(pk, c->version.hlc);
    mp_pack_bin(pk, slice_of(c->version.log.bytes, sizeof c->version.log.bytes));
    msgpack_pack_uint64(pk, c->version.lsn);
    msgpack_pack_uint64(pk, c->expires_ms);
    msgpack_pack_uint64(pk, c->ttl_ms);
    if (view_cursor_lives(c, now_ms()))
        msgpack_pack_false(pk);
    else
        msgpack_pack_true(pk);
    pack_logs(pk, q, &position);
}

/* ---------------------------------------------------------------- gets */

struct cursor_list {
    struct buf packed, last;
    uint32_t count;
    bool more;
};

static void answer_list(struct query *q, struct link_token token, const struct msg_cursor_get *m,
                        struct cursor_list *list)
{
    struct buf cursors = {0};
    msgpack_packer pk;
    mp_packer(&pk, &cursors);
    msgpack_pack_array(&pk, list->count);
    buf_append(&cursors, list->packed.data, list->packed.len);
    struct msg_cursor_get_reply reply = {
        .cursors = buf_slice(&cursors), .more = list->more, .last = buf_slice(&list->last)};
    if (m->after.len > 0)
        reply.applied = query_view_applied(q);
    query_answer(q, token, MSG_cursor_get_reply, &reply);
    buf_free(&cursors);
}

/* False, with an error: it cannot be read. */
static bool get_one(struct query *q, struct view_store *store, struct slice name, struct cursor_list *list,
                    char error[VIEW_ERROR_MAX])
{
    struct view_cursor cursor;
    msgpack_packer pk;
    enum view_found found = find_cursor(q->cursors, store, name, &cursor, error);
    mp_packer(&pk, &list->packed);
    if (found == VIEW_FOUND && !cursor.deleted) {
        pack_cursor(&pk, q, name, &cursor);
        list->count++;
    }
    return found != VIEW_FAILED;
}

static struct view_scan *open_scan(struct view_store *store, struct slice prefix, struct slice behind)
{
    struct buf from = {0}, to = {0}, first = {0};
    static const uint8_t least = 0;
    view_key_row(VIEW_CURSOR, prefix, &first);
    view_prefix_end(buf_slice(&first), &to);
    view_key_row(VIEW_CURSOR, behind, &from);
    buf_append(&from, &least, sizeof least);
    size_t both = from.len < first.len ? from.len : first.len;
    bool is_within = behind.len > 0 && memcmp(from.data, first.data, both) >= 0;
    struct view_scan *scan =
        view_scan_open(store, is_within ? buf_slice(&from) : buf_slice(&first), buf_slice(&to));
    buf_free(&from);
    buf_free(&to);
    buf_free(&first);
    return scan;
}

static bool list_rows(struct query *q, struct view_scan *scan, uint64_t most, struct cursor_list *list,
                      char error[VIEW_ERROR_MAX])
{
    struct slice key, row;
    struct view_cursor cursor;
    msgpack_packer pk;
    mp_packer(&pk, &list->packed);
    for (uint32_t looks = 0; view_scan_next(scan, &key, &row, error); looks++) {
        list->more = list->count == most || list->packed.len >= ANSWER_MAX || looks == LOOKS_MAX;
        if (list->more)
            return true;
        struct slice name = slice_of(key.data + 1, key.len - 1);
        if (!view_cursor_decode(row, &cursor)) {
            snprintf(error, VIEW_ERROR_MAX, "a row of the view is malformed");
            return false;
        }
        list->last.len = 0;
        buf_append(&list->last, name.data, name.len);
        if (cursor.deleted)
            continue;
        pack_cursor(&pk, q, name, &cursor);
        list->count++;
    }
    return error[0] == 0;
}

void query_cursor_get(struct query *q, struct link_token token, const struct msg_cursor_get *m)
{
    struct cursor_list list = {0};
    char error[VIEW_ERROR_MAX] = "";
    struct view_store *store = view_begin_read(query_view_of(q));
    if (store == NULL) {
        query_view_refuse_closed(q, token);
        return;
    }
    if (!query_view_is_in_store(q, store, m->after, error)) {
        view_end_read(query_view_of(q));
        query_view_refuse_older(q, token, error);
        return;
    }
    bool good;
    if (m->name.len > 0) {
        good = get_one(q, store, m->name, &list, error);
    } else {
        struct view_scan *scan = open_scan(store, m->prefix, m->behind);
        good = list_rows(q, scan, m->most > 0 ? m->most : GET_MOST, &list, error);
        view_scan_close(scan);
    }
    view_end_read(query_view_of(q));
    if (!good)
        query_view_fail(q, token, error);
    else if (m->name.len > 0 && list.count == 0)
        query_refuse(q, token, SH_NOT_FOUND, "there is no such cursor", 0);
    else
        answer_list(q, token, m, &list);
    buf_free(&list.packed);
    buf_free(&list.last);
}

/* ---------------------------------------------------------------- sets under way */

static void free_op(struct cursor_op *op)
{
    buf_free(&op->body);
    buf_free(&op->position);
    free(op);
}

/* *at is what points to it. */
static void forget_op(struct query_cursor *c, struct cursor_op **at)
{
    struct cursor_op *op = *at;
    *at = op->next;
    c->count--;
    free_op(op);
}

static void refuse_op(struct query *q, const struct cursor_op *op, enum sh_error error, const char *text,
                      uint64_t expected)
{
    if (op->has_client)
        query_refuse(q, op->token, error, text, expected);
}

/* An earlier set of the same cursor is not applied yet. */
static bool is_blocked(const struct query_cursor *c, const struct cursor_op *op)
{
    for (const struct cursor_op *o = c->ops; o != op; o = o->next)
        if (strcmp(o->name, op->name) == 0)
            return true;
    return false;
}

/* Of the own log. */
static uint64_t lsn_in(struct query *q, const struct view_vector *applied)
{
    const struct view_place *place = view_place_of(applied, q->own.id);
    return place != NULL ? place->lsn : 0;
}

static uint64_t applied_lsn(struct query *q)
{
    return lsn_in(q, &query_view_state(q)->applied);
}

/* Nothing of this cursor stands in the own log behind that LSN. */
static void pack_condition(struct slice name, uint64_t lsn, struct buf *out)
{
    enum { CONDITION_CURSOR = 2 };
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, 1);
    msgpack_pack_array(&pk, 3);
    msgpack_pack_uint64(&pk, CONDITION_CURSOR);
    mp_pack_bin(&pk, name);
    msgpack_pack_uint64(&pk, lsn);
}

/* known_lsn: of the own log, that it was decided by. hlc: the frame's is higher. */
static void append_entry(struct query *q, struct cursor_op *op, const struct cursor_decision *decided,
                         const struct cursor_ask *ask, uint64_t known_lsn, uint64_t hlc)
{
    struct buf entries = {0}, conditions = {0};
    msgpack_packer pk;
    op->epoch = decided->epoch;
    op->ttl_ms = ask->action == CURSOR_DELETE ? 0 : decided->ttl_ms;
    op->position.len = 0;
    vector_pack(&decided->position, &op->position);
    const struct entry e = {
        .kind = ENTRY_CURSOR,
        .key = slice_str(op->name),
        .value = buf_slice(&op->position),
        .ttl_ms = op->ttl_ms,
        .epoch = decided->epoch,
        .owner = ask->owner,
        .deleted = ask->action == CURSOR_DELETE,
    };
    mp_packer(&pk, &entries);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &e);
    pack_condition(e.key, known_lsn, &conditions);
    const struct msg_append append = {
        .entries = buf_slice(&entries), .conditions = buf_slice(&conditions), .hlc = hlc};
    op->number = query_ask_wal(q, MSG_append, &append);
    op->state = OP_APPENDING;
    q->cursors->appending++;
    buf_free(&entries);
    buf_free(&conditions);
}

/* Those that hold, and those that are about to. */
static size_t count_holding(const struct query_cursor *c)
{
    size_t count = cursor_holder_count(c->holder);
    for (const struct cursor_op *op = c->ops; op != NULL; op = op->next)
        count += op->is_new && op->state != OP_WAITING;
    return count;
}

/* The store itself knows what the set is decided by: a view that is made again shows less than was told.
 * *known_lsn: what it has applied of the own log. */
static bool is_ready(struct query *q, const struct cursor_op *op, struct view_store *store,
                     uint64_t *known_lsn)
{
    struct view_vector applied;
    struct msg_cursor_set m;
    char error[VIEW_ERROR_MAX];
    msg_decode(MSG_cursor_set, buf_slice(&op->body), &m); /* it was checked when it came */
    if (view_vector_load(store, &applied, error) == VIEW_FAILED)
        return false;
    *known_lsn = lsn_in(q, &applied);
    return *known_lsn >= op->lsn && token_is_applied(&applied, query_group_token(q, &applied, m.after)) > 0;
}

/* By what the view knows. False: refused. */
static bool decide(struct query *q, struct cursor_op *op, struct view_store *store, uint64_t known_lsn)
{
    struct query_cursor *c = q->cursors;
    struct view_cursor known;
    struct version_vector position;
    struct cursor_decision decided;
    struct msg_cursor_set m;
    char error[VIEW_ERROR_MAX];
    msg_decode(MSG_cursor_set, buf_slice(&op->body), &m); /* it was checked when it came */
    vector_decode(m.position, &position);
    struct cursor_ask ask = {
        .action = (enum cursor_action)m.action,
        .epoch = m.epoch,
        .owner = m.owner,
        .position = m.position.len > 0 ? &position : NULL,
        .ttl_ms = m.ttl_ms,
        .ttl_default_ms = q->service->config->settings.query_cursor_ttl / NS_PER_MS,
    };
    enum view_found found = find_cursor(c, store, m.name, &known, error);
    if (found == VIEW_FAILED) {
        log_error("the view cannot be read", log_text("error", error));
        refuse_op(q, op, SH_INTERNAL, error, 0);
        return false;
    }
    cursor_decide(&ask, found == VIEW_FOUND ? &known : NULL, now_ms(), &decided);
    op->is_new = ask.action != CURSOR_DELETE && (found != VIEW_FOUND || !view_cursor_lives(&known, now_ms()));
    if (decided.error != SH_OK)
        refuse_op(q, op, decided.error, decided.text, decided.epoch);
    else if (op->is_new && count_holding(c) >= CURSOR_HOLDS_MAX)
        refuse_op(q, op, SH_OVERLOADED, "256 cursors hold entries back already", 0);
    else
        append_entry(q, op, &decided, &ask, known_lsn,
                     found == VIEW_FOUND && known.epoch == decided.epoch ? known.version.hlc : 0);
    return op->state == OP_APPENDING;
}

/* False: it is over. */
static bool run_op(struct query *q, struct cursor_op *op)
{
    struct query_cursor *c = q->cursors;
    if (op->state == OP_APPENDING)
        return true;
    if (op->state == OP_APPLYING) {
        bool is_applied = applied_lsn(q) >= op->lsn;
        if (is_applied && op->is_new)
            cursor_holder_expect(c->holder);
        return !is_applied;
    }
    if (!is_blocked(c, op) && c->appending < CURSOR_APPENDS && applied_lsn(q) >= op->lsn) {
        struct view_store *store = view_begin_read(query_view_of(q));
        uint64_t known_lsn;
        bool ready = store != NULL && is_ready(q, op, store, &known_lsn);
        bool goes_on = ready && decide(q, op, store, known_lsn);
        if (store != NULL)
            view_end_read(query_view_of(q));
        if (ready)
            return goes_on;
    }
    if (loop_now_ns(q->service->loop) < op->due_ns)
        return true;
    if (!query_view_state(q)->opened)
        query_view_refuse_closed(q, op->token);
    else
        refuse_op(q, op, SH_TIMEOUT,
                  "what stands in the node's own log is not applied here yet; nothing was done", 0);
    return false;
}

static void arm(struct query *q)
{
    struct query_cursor *c = q->cursors;
    int64_t due_ns = INT64_MAX;
    for (const struct cursor_op *op = c->ops; op != NULL; op = op->next)
        if (op->state == OP_WAITING && op->due_ns < due_ns)
            due_ns = op->due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &c->again);
    else
        loop_timer_set(q->service->loop, &c->again, due_ns);
}

/* All that can go on. */
static void run_ops(struct query *q)
{
    struct query_cursor *c = q->cursors;
    for (struct cursor_op **at = &c->ops; *at != NULL;) {
        if (run_op(q, *at))
            at = &(*at)->next;
        else
            forget_op(c, at);
    }
    arm(q);
}

static void on_again(void *arg)
{
    run_ops(arg);
}

/* ---------------------------------------------------------------- sets */

/* NULL: in order. */
static const char *check_set(const struct msg_cursor_set *m)
{
    struct version_vector position;
    if (cursor_name_check(m->name) != SH_OK)
        return "a cursor's name has 1 to 64 bytes of UTF-8, and no control characters";
    if (id16_is_zero(m->owner))
        return "an owner is not all zero";
    if (m->action == CURSOR_COMMIT && m->epoch == 0)
        return "a commit names its epoch";
    if (!vector_decode(m->position, &position))
        return "a malformed position: at most 256 logs, each once";
    return NULL;
}

void query_cursor_set(struct query *q, struct link_token token, const struct msg_cursor_set *m)
{
    struct query_cursor *c = q->cursors;
    const char *wrong = check_set(m);
    if (wrong != NULL || c->count == OPS_MAX) {
        query_refuse(q, token, wrong != NULL ? SH_BAD_REQUEST : SH_OVERLOADED,
                     wrong != NULL ? wrong : "too many sets of cursors are under way", 0);
        return;
    }
    struct cursor_op *op = xcalloc(1, sizeof *op), **at = &c->ops;
    op->token = token;
    op->has_client = true;
    op->due_ns = loop_now_ns(q->service->loop) + (int64_t)m->wait_ms * NS_PER_MS;
    memcpy(op->name, m->name.data, m->name.len);
    msg_encode(MSG_cursor_set, m, &op->body);
    while (*at != NULL)
        at = &(*at)->next;
    *at = op;
    c->count++;
    run_ops(q);
}

static void answer_op(struct query *q, struct cursor_op *op, const struct msg_append_reply *done)
{
    const struct msg_cursor_set_reply reply = {
        .epoch = op->epoch,
        .log = done->log,
        .lsn = done->lsn,
        .hlc = done->hlc,
        .position = buf_slice(&op->position),
        .ttl_ms = op->ttl_ms,
    };
    op->state = OP_APPLYING;
    op->lsn = done->lsn;
    if (op->has_client)
        query_answer(q, op->token, MSG_cursor_set_reply, &reply);
    op->has_client = false;
    query_probe(q, &q->copies.probes); /* the view hears of it at once */
}

/* True: something of the cursor was written that the view did not know; it is decided again when it does. */
static bool is_decided_again(struct query *q, struct cursor_op *op, uint32_t type, struct slice body)
{
    struct msg_error error;
    if (type != MSG_error || msg_decode(type, body, &error) != SH_OK || error.code != SH_CONFLICT ||
        error.look_again == 0 || !op->has_client)
        return false;
    op->state = OP_WAITING;
    op->lsn = error.look_again;
    query_probe(q, &q->copies.probes);
    return true;
}

bool query_on_cursor(struct query *q, uint64_t number, uint32_t type, struct slice body)
{
    struct query_cursor *c = q->cursors;
    struct msg_append_reply done;
    if (c == NULL)
        return false;
    if (cursor_holder_answer(c->holder, number, type, body))
        return true;
    struct cursor_op **at = &c->ops;
    while (*at != NULL && ((*at)->state != OP_APPENDING || (*at)->number != number))
        at = &(*at)->next;
    if (*at == NULL)
        return false;
    c->appending--;
    if (type == MSG_append_reply && msg_decode(type, body, &done) == SH_OK) {
        answer_op(q, *at, &done);
    } else if (!is_decided_again(q, *at, type, body)) {
        if ((*at)->has_client)
            link_server_answer(q->server, (*at)->token, type, body); /* why walsvc did not take it */
        forget_op(c, at);
    }
    run_ops(q);
    return true;
}

void query_cursor_drop(struct query *q, uint64_t session)
{
    struct query_cursor *c = q->cursors;
    for (struct cursor_op **at = &c->ops; *at != NULL;) {
        struct cursor_op *op = *at;
        bool is_its = op->has_client && op->token.session == session;
        if (is_its)
            op->has_client = false;
        if (is_its && op->state == OP_WAITING)
            forget_op(c, at);
        else
            at = &op->next;
    }
}

/* ---------------------------------------------------------------- life */

void query_cursor_walsvc(struct query *q)
{
    if (q->cursors != NULL)
        cursor_holder_restart(q->cursors->holder);
}

void query_cursor_look(struct query *q)
{
    run_ops(q);
    cursor_holder_look(q->cursors->holder);
}

void query_cursor_open(struct query *q)
{
    struct query_cursor *c = xcalloc(1, sizeof *c);
    q->cursors = c;
    c->again = (struct loop_timer){.fn = on_again, .arg = q};
    c->holder = cursor_holder_open(q);
}

void query_cursor_close(struct query *q)
{
    struct query_cursor *c = q->cursors;
    cursor_holder_close(c->holder);
    loop_timer_cancel(q->service->loop, &c->again);
    while (c->ops != NULL)
        forget_op(c, &c->ops);
    buf_free(&c->key);
    buf_free(&c->row);
    free(c);
    q->cursors = NULL;
}
