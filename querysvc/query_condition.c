/* Appends with conditions. What a condition is about is looked up in the view, which has applied the own log
 * up to some LSN; walsvc takes the append only when its log has nothing about that behind it (wal_recent.h),
 * also of clients who append there directly. So nothing can come between the look and the append.
 *
 *   append_if ──► checked ──holds──► sent to walsvc ──► its answer
 *                  ▲    │                  │
 *      applied     │    │ does not hold    │ look again
 *                  │    ▼                  ▼
 *                  │  asked: did it land?  │
 *                  │    │    │ no           ▼
 *                  └────┼────┴─────────► waiting for the view; then it is a conflict if it still does not
 * hold └ yes, before: sent as it is, for its first answer
 *
 * An append that is sent again, since the first querysvc was killed, may have landed, and changed itself what
 * it depends on: so before a conflict walsvc is asked. Nothing here is fatal. */
#include "query.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "view.h"
#include "view_stream.h"

enum {
    CONDITIONS_MAX = 256,
    CONDITION_PARTS = 4,
    WAITS_MAX = 4096,
    FULL_AGAIN_MS = 20,
    KIND_STREAM = 0,
    KIND_KEY = 1,
    /* `state` of producer_status_reply */
    STATUS_NOT_YET = 1,
    STATUS_FORGOTTEN = 3,
};

struct condition {
    uint64_t kind;
    struct slice name;
    struct view_place at; /* LSN 0: nothing is there */
};

/* An append under way. Its slices are lent by the link, until its session is dropped. */
struct conditional {
    struct conditional *next;
    struct query *query;
    struct link_token token;
    uint64_t correlation;
    struct msg_append_if m;
    int64_t due_ns;
    uint64_t look_lsn;           /* the own log has to be applied so far before it is checked */
    bool waits;                  /* for the view; otherwise walsvc has it */
    bool refused;                /* walsvc has said that it has not landed */
    bool gone;                   /* nobody waits for the answer any more */
    uint64_t round;              /* of looks, in which it was looked at */
    uint64_t failed;             /* number of the condition that does not hold, */
    struct view_version current; /* and what is there instead */
};

struct query_conditions {
    struct conditional *all;
    size_t count;
    uint64_t rounds;
    struct loop_timer overdue;
    struct buf key, row, packed, body; /* scratch */
};

static void check(struct conditional *c);

/* Before it is answered: that may drop sessions, its own too, and what they have under way. */
static void take_out(struct conditional *c)
{
    struct query_conditions *qc = c->query->conditions;
    struct conditional **at = &qc->all;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    qc->count--;
}

static void remove_one(struct conditional *c)
{
    take_out(c);
    free(c);
}

static void end(struct conditional *c, const struct msg_error *error)
{
    take_out(c);
    query_refuse_with(c->query, c->token, error);
    free(c);
}

static void end_with(struct conditional *c, enum sh_error code, const char *text)
{
    end(c, &(struct msg_error){.code = code, .text = slice_str(text)});
}

/* With walsvc's answer. */
static void pass_back(struct conditional *c, uint32_t type, struct slice body)
{
    take_out(c);
    if (type != MSG_error || !query_group_on_refusal(c->query, c->token, body))
        link_server_answer(c->query->server, c->token, type, body);
    free(c);
}

/* ---------------------------------------------------------------- conditions */

static enum sh_error next_condition(struct mp *m, struct condition *out)
{
    struct slice log;
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != CONDITION_PARTS || !mp_uint(m, &out->kind) || out->kind > KIND_KEY ||
        !mp_bin(m, &out->name) || !mp_bin(m, &log) || log.len != sizeof out->at.log.bytes ||
        !mp_uint(m, &out->at.lsn) || (out->kind == KIND_KEY && out->name.len == 0))
        return SH_BAD_REQUEST;
    memcpy(out->at.log.bytes, log.data, log.len);
    return out->name.len > (out->kind == KIND_KEY ? KEY_MAX : STREAM_NAME_MAX) ? SH_TOO_LARGE : SH_OK;
}

static enum sh_error check_conditions(struct slice conditions, const char **why)
{
    struct mp m = mp_of(conditions);
    struct condition condition;
    uint32_t count;
    enum sh_error e = SH_OK;
    *why = "an append_if has 1 to 256 conditions";
    if (!mp_array(&m, &count) || count == 0)
        return SH_BAD_REQUEST;
    if (count > CONDITIONS_MAX)
        return SH_TOO_LARGE;
    for (uint32_t i = 0; i < count && e == SH_OK; i++)
        e = next_condition(&m, &condition);
    *why = e == SH_TOO_LARGE ? "a key has at most 4,096 bytes, a stream's name 255" : "a malformed condition";
    return e == SH_OK && !mp_at_end(&m) ? SH_BAD_REQUEST : e;
}

/* ---------------------------------------------------------------- what the view has */

static void malformed_row(char error[VIEW_ERROR_MAX])
{
    snprintf(error, VIEW_ERROR_MAX, "a row of the view is malformed");
}

/* LSN 0: it has none, or not any more; the HLC is that of a tombstone all the same. False: error. */
static bool find_key(struct query_conditions *qc, struct view_store *store, struct slice key,
                     struct view_version *out, char error[VIEW_ERROR_MAX])
{
    struct view_value value;
    qc->row.len = 0;
    view_key_row(VIEW_KEY, key, &qc->key);
    enum view_found found = view_store_get(store, buf_slice(&qc->key), &qc->row, error);
    if (found != VIEW_FOUND)
        return found == VIEW_NOT_FOUND;
    if (!view_value_decode(buf_slice(&qc->row), &value)) {
        malformed_row(error);
        return false;
    }
    *out = value.version;
    if (value.deleted ||
        (value.expires_ms != 0 && value.expires_ms <= (uint64_t)(clock_real_ns() / NS_PER_MS)))
        out->lsn = 0;
    return true;
}

/* The last event of a stream, by HLC, log and LSN, of all logs: what is appended behind it gets a higher HLC.
 * Events that were trimmed count. LSN 0: it has none. False: error. */
static bool find_stream(struct query_conditions *qc, struct view_store *store, struct slice stream,
                        struct view_version *out, char error[VIEW_ERROR_MAX])
{
    struct view_summary summary;
    struct view_part part;
    qc->row.len = 0;
    view_key_row(VIEW_STREAM, stream, &qc->key);
    enum view_found found = view_store_get(store, buf_slice(&qc->key), &qc->row, error);
    if (found != VIEW_FOUND)
        return found == VIEW_NOT_FOUND;
    if (!view_summary_open(buf_slice(&qc->row), &summary)) {
        malformed_row(error);
        return false;
    }
    while (view_summary_next(&summary, &part)) {
        const struct view_version last = {part.hlc, part.log, part.lsn};
        if (view_version_compare(&last, out) > 0)
            *out = last;
    }
    return true;
}

static bool is_at(const struct condition *condition, const struct view_version *current)
{
    if (condition->at.lsn == 0 || current->lsn == 0)
        return condition->at.lsn == current->lsn;
    return condition->at.lsn == current->lsn && id16_equal(condition->at.log, current->log);
}

static uint64_t lsn_of(const struct view_vector *applied, struct id16 log)
{
    const struct view_place *place = view_place_of(applied, log);
    return place != NULL ? place->lsn : 0;
}

/* Whether all hold; c->failed and c->current: the first one that does not. *hlc: what the append has to come
 * after, so that it takes the place of what it was checked against on all nodes. Error empty, or why nothing
 * is known. */
static bool holds(struct conditional *c, struct view_store *store, uint64_t *hlc, char error[VIEW_ERROR_MAX])
{
    struct query_conditions *qc = c->query->conditions;
    struct mp m = mp_of(c->m.conditions);
    struct condition condition;
    uint32_t count;
    mp_array(&m, &count); /* all of it was checked */
    for (uint32_t i = 0; i < count && next_condition(&m, &condition) == SH_OK; i++) {
        struct view_version current = {0};
        bool found = condition.kind == KIND_KEY ? find_key(qc, store, condition.name, &current, error)
                                                : find_stream(qc, store, condition.name, &current, error);
        if (!found)
            return false;
        *hlc = hlc_merge(*hlc, current.hlc);
        if (is_at(&condition, &current))
            continue;
        c->failed = i;
        c->current = current;
        return false;
    }
    return true;
}

/* What the conditions name, and the own log up to where it has to be looked at, is applied. */
static bool is_applied(const struct conditional *c, const struct view_vector *applied,
                       struct view_place *missing)
{
    struct query *q = c->query;
    struct mp m = mp_of(c->m.conditions);
    struct condition condition;
    uint32_t count;
    *missing = (struct view_place){.log = q->own.id, .lsn = c->look_lsn};
    if (c->look_lsn > lsn_of(applied, q->own.id))
        return false;
    mp_array(&m, &count);
    for (uint32_t i = 0; i < count && next_condition(&m, &condition) == SH_OK; i++) {
        *missing = condition.at;
        if (missing->lsn > lsn_of(applied, missing->log) && query_find_log(q, missing->log) != NULL)
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- answers */

static const char *describe(const struct conditional *c, char text[256])
{
    struct mp m = mp_of(c->m.conditions);
    struct condition condition = {0};
    char uuid[ID_TEXT];
    uint32_t count;
    mp_array(&m, &count);
    for (uint64_t i = 0; i <= c->failed; i++)
        next_condition(&m, &condition);
    bool is_key = condition.kind == KIND_KEY;
    id16_format(c->current.log, uuid);
    if (c->current.lsn > 0)
        snprintf(text, 256, "%s %s:%" PRIu64,
                 is_key ? "the key's value is of another version,"
                        : "the stream's last event is another one,",
                 uuid, c->current.lsn);
    else
        snprintf(text, 256, "%s", is_key ? "the key has no value" : "the stream has no events");
    return text;
}

static void refuse_conflict(struct conditional *c)
{
    struct buf current = {0};
    msgpack_packer pk;
    char text[256];
    mp_packer(&pk, &current);
    msgpack_pack_array(&pk, 4);
    msgpack_pack_uint64(&pk, c->failed);
    mp_pack_bin(&pk, slice_of(c->current.log.bytes, sizeof c->current.log.bytes));
    msgpack_pack_uint64(&pk, c->current.lsn);
    msgpack_pack_uint64(&pk, c->current.hlc);
    const struct msg_error error = {
        .code = SH_CONFLICT, .text = slice_str(describe(c, text)), .current = buf_slice(&current)};
    end(c, &error);
    buf_free(&current);
}

static void refuse_late(struct conditional *c, const struct view_place *missing)
{
    const struct view_state *state = query_view_state(c->query);
    char text[VIEW_ERROR_MAX + 160], uuid[ID_TEXT];
    id16_format(missing->log, uuid);
    snprintf(text, sizeof text,
             "log %s is wanted up to LSN %" PRIu64 ", and applied here up to %" PRIu64 "%s%s", uuid,
             missing->lsn, lsn_of(&state->applied, missing->log), state->error[0] != 0 ? ": " : "",
             state->error);
    end_with(c, SH_TIMEOUT, text);
}

static void refuse_full(struct conditional *c, enum sh_error e)
{
    const struct msg_error error = {
        .code = e, .text = slice_str("the queue to walsvc is full"), .retry_ms = FULL_AGAIN_MS};
    end(c, &error);
}

/* ---------------------------------------------------------------- walsvc */

static void on_append_answer(void *arg, uint32_t type, struct slice body)
{
    struct conditional *c = arg;
    struct msg_error error;
    if (c->gone) {
        remove_one(c);
        return;
    }
    if (type == MSG_error && msg_decode(MSG_error, body, &error) == SH_OK && error.code == SH_CONFLICT &&
        error.look_again > 0) {
        c->refused = true;
        c->look_lsn = error.look_again;
        check(c);
        return;
    }
    pass_back(c, type, body);
}

/* Conditions empty: walsvc is known to have the answer. */
static void send_append(struct conditional *c, struct slice conditions, uint64_t hlc)
{
    struct query *q = c->query;
    struct buf *body = &q->conditions->body;
    const struct msg_append m = {
        .producer = c->m.producer,
        .epoch = c->m.epoch,
        .sequence = c->m.sequence,
        .ack = c->m.ack,
        .timeout_ms = c->m.timeout_ms,
        .hlc = hlc,
        .conditions = conditions,
        .entries = c->m.entries,
    };
    body->len = 0;
    msg_encode(MSG_append, &m, body);
    c->waits = false;
    enum sh_error e = query_forward_ask(c->m.ack > 0 ? &q->wal_waiting : &q->wal, MSG_append, c->correlation,
                                        buf_slice(body), on_append_answer, c);
    if (e != SH_OK)
        refuse_full(c, e);
}

/* For walsvc: the same names, and up to where the own log was applied when they were looked at. */
static struct slice pack_conditions(struct conditional *c, uint64_t lsn)
{
    struct buf *packed = &c->query->conditions->packed;
    struct mp m = mp_of(c->m.conditions);
    struct condition condition;
    msgpack_packer pk;
    uint32_t count;
    packed->len = 0;
    mp_packer(&pk, packed);
    mp_array(&m, &count);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count && next_condition(&m, &condition) == SH_OK; i++) {
        msgpack_pack_array(&pk, 3);
        msgpack_pack_uint64(&pk, condition.kind);
        mp_pack_bin(&pk, condition.name);
        msgpack_pack_uint64(&pk, lsn);
    }
    return buf_slice(packed);
}

static void on_status_answer(void *arg, uint32_t type, struct slice body)
{
    struct conditional *c = arg;
    struct msg_producer_status_reply reply;
    if (c->gone) {
        remove_one(c);
        return;
    }
    if (type != MSG_producer_status_reply || msg_decode(type, body, &reply) != SH_OK) {
        pass_back(c, type, body);
    } else if (reply.state == STATUS_NOT_YET || reply.state == STATUS_FORGOTTEN) {
        c->refused = true; /* it is one, unless something has changed that is not applied yet */
        c->look_lsn = reply.last;
        check(c);
    } else { /* it has, or never will: no append of that number is taken any more */
        send_append(c, (struct slice){0}, 0);
    }
}

static void ask_status(struct conditional *c)
{
    struct query *q = c->query;
    struct buf *body = &q->conditions->body;
    const struct msg_producer_status m = {
        .producer = c->m.producer, .epoch = c->m.epoch, .sequence = c->m.sequence};
    body->len = 0;
    msg_encode(MSG_producer_status, &m, body);
    c->waits = false;
    enum sh_error e =
        query_forward_ask(&q->wal, MSG_producer_status, c->correlation, buf_slice(body), on_status_answer, c);
    if (e != SH_OK)
        refuse_full(c, e);
}

/* ---------------------------------------------------------------- checking */

static void fail_row(struct conditional *c, const char *error)
{
    log_error("the view cannot be read", log_text("error", error));
    end_with(c, SH_INTERNAL, error);
}

static void arm_overdue(struct query *q)
{
    struct query_conditions *qc = q->conditions;
    int64_t due_ns = INT64_MAX;
    for (const struct conditional *c = qc->all; c != NULL; c = c->next)
        due_ns = c->waits && c->due_ns < due_ns ? c->due_ns : due_ns;
    if (due_ns == INT64_MAX)
        loop_timer_cancel(q->service->loop, &qc->overdue);
    else
        loop_timer_set(q->service->loop, &qc->overdue, due_ns);
}

static void wait_for_view(struct conditional *c, const struct view_place *missing)
{
    struct query *q = c->query;
    if (loop_now_ns(q->service->loop) >= c->due_ns) {
        refuse_late(c, missing);
    } else if (!c->waits) {
        c->waits = true;
        arm_overdue(q);
        query_probe(q, &q->copies.probes); /* what it waits for may be durable already */
    }
}

/* How far the rows are the store itself says, before they are read: so they may be newer, and never older. */
static void check_rows(struct conditional *c, struct view_store *store)
{
    struct query *q = c->query;
    struct view_vector applied;
    struct view_place missing;
    uint64_t hlc = c->m.hlc;
    char error[VIEW_ERROR_MAX] = "";
    bool is_read = view_vector_load(store, &applied, error) != VIEW_FAILED;
    bool is_there = is_read && is_applied(c, &applied, &missing);
    bool good = is_there && holds(c, store, &hlc, error);
    view_end_read(query_view_of(q));
    if (good)
        send_append(c, pack_conditions(c, lsn_of(&applied, q->own.id)), hlc);
    else if (error[0] != 0)
        fail_row(c, error);
    else if (!is_there)
        wait_for_view(c, &missing);
    else if (c->refused)
        refuse_conflict(c);
    else
        ask_status(c);
}

/* Leaves it waiting when the view is not so far. */
static void check(struct conditional *c)
{
    struct query *q = c->query;
    struct view_place missing;
    if (!is_applied(c, &query_view_state(q)->applied, &missing)) {
        wait_for_view(c, &missing);
        return;
    }
    struct view_store *store = view_begin_read(query_view_of(q));
    if (store != NULL) {
        check_rows(c, store);
        return;
    }
    take_out(c);
    query_view_refuse_closed(q, c->token);
    free(c);
}

/* Each one that waits once. What is answered may take others with it, so then it begins again. */
void query_condition_look(struct query *q)
{
    struct query_conditions *qc = q->conditions;
    uint64_t round = ++qc->rounds;
    for (struct conditional *c = qc->all, *next; c != NULL; c = next) {
        size_t before = qc->count;
        next = c->next;
        if (!c->waits || c->round == round)
            continue;
        c->round = round;
        check(c);
        if (qc->count != before)
            next = qc->all;
    }
    arm_overdue(q);
}

static void on_overdue(void *arg)
{
    query_condition_look(arg);
}

/* ---------------------------------------------------------------- from the link */

static enum sh_error check_request(const struct msg_append_if *m, const char **why)
{
    *why = "a producer has an id, and its sequences start at 1";
    if (id16_is_zero(m->producer) || m->sequence == 0)
        return SH_BAD_REQUEST;
    return check_conditions(m->conditions, why);
}

/* All that it depends on and writes belongs to this node's group. False: answered. */
static bool belongs_here(struct query *q, struct link_token token, const struct msg_append_if *m)
{
    struct mp conditions = mp_of(m->conditions);
    struct condition condition;
    uint32_t count, entries;
    if (q->groups.set.count == 1 || entries_check(m->entries, &entries) != SH_OK)
        return true; /* walsvc refuses it */
    const struct group_verdict verdict = group_of_entries(&q->groups.set, m->entries);
    mp_array(&conditions, &count);
    for (uint32_t i = 0; i < count && next_condition(&conditions, &condition) == SH_OK; i++) {
        enum group_kind kind = condition.kind == KIND_KEY ? GROUP_KEY : GROUP_STREAM;
        if (condition.name.len == 0)
            continue; /* the empty stream belongs to none */
        if (verdict.group != GROUPS_MAX && group_of(&q->groups.set, kind, condition.name) != verdict.group) {
            query_refuse(q, token, SH_BAD_REQUEST,
                         "a condition is of another group than what is to be appended; nothing was", 0);
            return false;
        }
        if (!query_group_check(q, token, kind, condition.name))
            return false;
    }
    return true;
}

void query_on_append_if(struct query *q, const struct link_request *request)
{
    struct query_conditions *qc = q->conditions;
    struct msg_append_if m;
    const char *why = "malformed";
    enum sh_error e = msg_decode(MSG_append_if, request->body, &m);
    if (e == SH_OK)
        e = check_request(&m, &why);
    if (e == SH_OK && qc->count == WAITS_MAX) {
        e = SH_OVERLOADED;
        why = "too many appends with conditions are under way";
    }
    if (e != SH_OK) {
        query_refuse(q, request->token, e, why, 0);
        return;
    }
    if (!belongs_here(q, request->token, &m) || query_view_refuse_absent(q, request->token))
        return;
    struct conditional *c = xcalloc(1, sizeof *c);
    *c = (struct conditional){
        .next = qc->all,
        .query = q,
        .token = request->token,
        .correlation = request->correlation,
        .m = m,
        .due_ns = loop_now_ns(q->service->loop) + (int64_t)m.wait_ms * NS_PER_MS,
    };
    qc->all = c;
    qc->count++;
    check(c);
}

/* Those that walsvc has are freed when its answer comes. */
void query_condition_drop(struct query *q, uint64_t session)
{
    if (q->conditions == NULL)
        return;
    for (struct conditional *c = q->conditions->all, *next; c != NULL; c = next) {
        next = c->next;
        if (c->token.session != session)
            continue;
        c->gone = true;
        c->m = (struct msg_append_if){0};
        if (c->waits)
            remove_one(c);
    }
    arm_overdue(q);
}

void query_condition_open(struct query *q)
{
    q->conditions = xcalloc(1, sizeof *q->conditions);
    q->conditions->overdue = (struct loop_timer){.fn = on_overdue, .arg = q};
}

void query_condition_close(struct query *q)
{
    struct query_conditions *qc = q->conditions;
    if (qc == NULL)
        return;
    loop_timer_cancel(q->service->loop, &qc->overdue);
    while (qc->all != NULL)
        remove_one(qc->all);
    buf_free(&qc->key);
    buf_free(&qc->row);
    buf_free(&qc->packed);
    buf_free(&qc->body);
    free(qc);
    q->conditions = NULL;
}
