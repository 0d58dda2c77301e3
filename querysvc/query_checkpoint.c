/* The view as other nodes' views are given it: replsvc asks for a member. Each has one checkpoint at most:
 *
 *   none ──open──► holding ──► making ──► open ──rows──► open
 *    ▲              (logs)    (thread)     │ close, idle, too old, another one
 *    └───────────────────── leaving ◄──────┘
 *                           (logs)
 *
 * What the logs hold behind the checkpoint's vector is held as long as it is open, so that the other node can
 * go on there. A checkpoint survives nothing: what is left of one is removed at start, and who asked begins
 * anew. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "query.h"
#include "telemetry_push.h"
#include "view.h"
#include "view_fetch.h"
#include "view_import.h"

enum { OUT_MAX = 2, HOLD_READER = 3, HOLD_TTL_MS = 120000, NAME_MAX_BYTES = 64, COPY_CACHE_BYTES = 1 << 20 };
#define IDLE_NS (60 * NS_PER_S)
#define LIFE_NS (6 * 3600 * NS_PER_S)
#define HOLD_NS (30 * NS_PER_S) /* they are renewed as often */
#define LOOK_NS (5 * NS_PER_S)

enum out_state { OUT_NONE, OUT_HOLDING, OUT_MAKING, OUT_OPEN, OUT_LEAVING };

struct out {
    struct query *query;
    enum out_state state;
    char node[FETCH_NODE_MAX + 1];
    uint64_t id;
    struct link_token token; /* of the request to open it */
    char dir[PATH_MAX];
    struct view_store *copy;
    struct view_vector vector; /* of the copy; before, what is held */
    uint64_t total;
    int64_t opened_ns, used_ns, held_ns;
    size_t hold_at; /* the log whose hold is next */
    bool holds;     /* they are being told; else all are */
    bool unwanted;  /* it goes as soon as it is made */
    struct view_work work;
    char error[VIEW_ERROR_MAX];
};

struct query_checkpoints {
    char root[PATH_MAX];
    struct out all[OUT_MAX];
    uint64_t hold_number; /* of the request to walsvc that is out; 0: none is */
    struct out *hold_of;  /* whose; NULL: of one that is gone */
    struct loop_timer timer;
    struct buf rows;
};

static void begin_holds(struct query *q, struct out *o);

/* ---------------------------------------------------------------- its end */

static struct id16 log_at(const struct query *q, size_t at)
{
    return at == 0 ? q->own.id : q->copies.logs[at - 1].id;
}

static void hold_name(const struct out *o, char name[NAME_MAX_BYTES + 1])
{
    snprintf(name, NAME_MAX_BYTES + 1, "checkpoint %.53s", o->node);
}

static void drop(struct query *q, struct out *o)
{
    if (o->state == OUT_MAKING) { /* the view's thread has it */
        o->unwanted = true;
        return;
    }
    if (o->copy != NULL)
        view_store_close(o->copy);
    o->copy = NULL;
    view_folder_remove(q->fs, o->dir);
    o->state = OUT_LEAVING;
    begin_holds(q, o);
}

static void fail(struct query *q, struct out *o, enum sh_error error, const char *text)
{
    query_refuse(q, o->token, error, text, 0);
    drop(q, o);
}

/* ---------------------------------------------------------------- making one */

/* On the view's thread. */
static void make(struct view_work *work, struct view_access *access)
{
    struct out *o = work->arg;
    const struct view_store_options options = {.cache_bytes = COPY_CACHE_BYTES,
                                               .write_buffer_bytes = COPY_CACHE_BYTES};
    o->error[0] = 0;
    if (access->store == NULL || !access->has_room) {
        snprintf(o->error, sizeof o->error, "the view here is not open, or the disk is nearly full");
        return;
    }
    if (!view_store_copy(access->store, o->dir, o->error))
        return;
    o->copy = view_store_open_copy(o->dir, &options, o->error);
    if (o->copy != NULL && view_vector_load(o->copy, &o->vector, o->error) != VIEW_FAILED)
        o->total = view_store_rows(o->copy);
}

static void answer_opened(struct query *q, const struct out *o, struct link_token token)
{
    struct buf vector = {0};
    view_vector_encode(&o->vector, &vector);
    query_answer(q, token, MSG_checkpoint_reply,
                 &(struct msg_checkpoint_reply){
                     .vector = buf_slice(&vector), .total = o->total, .arrivals = o->vector.arrivals});
    buf_free(&vector);
}

static void on_made(void *arg, struct view_work *work)
{
    struct query *q = arg;
    struct out *o = work->arg;
    o->state = OUT_OPEN;
    if (q->closing)
        return;
    o->opened_ns = o->used_ns = loop_now_ns(q->service->loop);
    if (o->unwanted || o->error[0] != 0) {
        fail(q, o, SH_UNAVAILABLE, o->error[0] != 0 ? o->error : "it is not wanted any more");
        return;
    }
    event_info("checkpoint_given", "a member is given a checkpoint of the view", log_text("member", o->node),
               log_uint("rows", o->total));
    answer_opened(q, o, o->token);
}

static void start_making(struct query *q, struct out *o)
{
    o->state = OUT_MAKING;
    o->work = (struct view_work){.fn = make, .done = on_made, .arg = o};
    view_ask(query_view_of(q), &o->work);
}

/* ---------------------------------------------------------------- holds */

static void held(struct query *q, struct out *o)
{
    o->holds = false;
    o->held_ns = loop_now_ns(q->service->loop);
    if (o->state == OUT_HOLDING)
        start_making(q, o);
    else if (o->state == OUT_LEAVING)
        o->state = OUT_NONE;
}

/* True: a request is on its way. */
static bool move_hold(struct query *q, struct out *o)
{
    char name[NAME_MAX_BYTES + 1];
    if (!o->holds)
        return false;
    if (o->hold_at > q->copies.count) {
        held(q, o);
        return false;
    }
    struct id16 log = log_at(q, o->hold_at++);
    const struct view_place *place = view_place_of(&o->vector, log);
    hold_name(o, name);
    q->checkpoints->hold_of = o;
    const struct msg_hold hold = {
        .log = log,
        .name = slice_str(name),
        .kind = HOLD_READER,
        .lsn = (place != NULL ? place->lsn : 0) + 1,
        .ttl_ms = HOLD_TTL_MS,
        .remove = o->state == OUT_LEAVING,
    };
    q->checkpoints->hold_number = query_ask_wal(q, MSG_hold, &hold);
    return true;
}

static void move_holds(struct query *q)
{
    bool moves = q->checkpoints->hold_number != 0;
    for (size_t i = 0; i < OUT_MAX && !moves; i++)
        moves = move_hold(q, &q->checkpoints->all[i]);
}

static void begin_holds(struct query *q, struct out *o)
{
    o->holds = true;
    o->hold_at = 0;
    move_holds(q);
}

/* What the view itself lacks is trimmed: nothing of that log can be held. */
bool query_on_checkpoint_hold(struct query *q, uint64_t number, uint32_t type, struct slice body)
{
    struct query_checkpoints *c = q->checkpoints;
    struct msg_error error;
    if (c == NULL || c->hold_number == 0 || number != c->hold_number)
        return false;
    struct out *o = c->hold_of;
    c->hold_number = 0;
    c->hold_of = NULL;
    if (o != NULL && type == MSG_error && msg_decode(type, body, &error) == SH_OK &&
        error.code != SH_TRIMMED && error.code != SH_NOT_FOUND && o->state == OUT_HOLDING)
        fail(q, o, SH_OVERLOADED, "walsvc does not hold what comes behind the checkpoint");
    move_holds(q);
    return true;
}

/* ---------------------------------------------------------------- requests */

/* Also one that leaves. */
static struct out *find_out(struct query *q, struct slice node)
{
    for (size_t i = 0; i < OUT_MAX; i++)
        if (q->checkpoints->all[i].state != OUT_NONE && slice_is(node, q->checkpoints->all[i].node))
            return &q->checkpoints->all[i];
    return NULL;
}

static void answer_look(struct query *q, struct link_token token)
{
    const struct view_state *state = query_view_state(q);
    struct buf vector = {0};
    if (!state->opened) {
        query_refuse(q, token, SH_UNAVAILABLE, "the view is not open", 0);
        return;
    }
    view_vector_encode(&state->applied, &vector);
    query_answer(q, token, MSG_checkpoint_reply,
                 &(struct msg_checkpoint_reply){.vector = buf_slice(&vector)});
    buf_free(&vector);
}

static struct out *find_room(struct query *q)
{
    for (size_t i = 0; i < OUT_MAX; i++)
        if (q->checkpoints->all[i].state == OUT_NONE)
            return &q->checkpoints->all[i];
    return NULL;
}

static void start(struct query *q, struct out *o, struct link_token token, const struct msg_checkpoint *m)
{
    const struct view_state *state = query_view_state(q);
    char name[32];
    if (q->checkpoints->hold_of == o)
        q->checkpoints->hold_of = NULL; /* it left */
    *o =
        (struct out){.query = q, .state = OUT_HOLDING, .id = m->id, .token = token, .vector = state->flushed};
    snprintf(o->node, sizeof o->node, "%.*s", (int)m->node.len, (const char *)m->node.data);
    snprintf(name, sizeof name, "out-%zu", (size_t)(o - q->checkpoints->all));
    vfs_path(o->dir, q->checkpoints->root, name);
    view_folder_remove(q->fs, o->dir);
    begin_holds(q, o);
}

/* Another one of the same member takes the place of the one before. */
static void open_one(struct query *q, struct link_token token, const struct msg_checkpoint *m)
{
    struct out *o = find_out(q, m->node);
    if (o != NULL && (o->state == OUT_HOLDING || o->state == OUT_MAKING)) {
        query_refuse(q, token, SH_OVERLOADED, "a checkpoint is being made for that member", 0);
        return;
    }
    if (o != NULL && o->state == OUT_OPEN && o->id == m->id) {
        answer_opened(q, o, token);
        return;
    }
    if (o != NULL && o->state == OUT_OPEN)
        drop(q, o);
    o = o != NULL ? o : find_room(q);
    if (o == NULL)
        query_refuse(q, token, SH_OVERLOADED, "as many checkpoints as may be are open", 0);
    else if (!query_view_state(q)->opened)
        query_refuse(q, token, SH_UNAVAILABLE, "the view is not open", 0);
    else
        start(q, o, token, m);
}

static void answer_rows(struct query *q, struct link_token token, const struct msg_checkpoint *m)
{
    struct out *o = find_out(q, m->node);
    char error[VIEW_ERROR_MAX];
    bool more;
    if (o == NULL || o->state != OUT_OPEN || o->id != m->id) {
        query_refuse(q, token, SH_NOT_FOUND, "there is no such checkpoint any more", 0);
        return;
    }
    o->used_ns = loop_now_ns(q->service->loop);
    failpoint_hit("checkpoint_serve");
    if (!view_export_piece(o->copy, m->behind, &q->checkpoints->rows, &more, error)) {
        query_refuse(q, token, SH_UNAVAILABLE, error, 0);
        return;
    }
    struct slice rows = buf_slice(&q->checkpoints->rows);
    struct digest128 digest = merge_in_digest(o->id, m->behind, rows);
    query_answer(q, token, MSG_checkpoint_reply,
                 &(struct msg_checkpoint_reply){
                     .rows = rows, .digest = slice_of(digest.bytes, sizeof digest.bytes), .more = more});
}

static void close_one(struct query *q, struct link_token token, const struct msg_checkpoint *m)
{
    struct out *o = find_out(q, m->node);
    if (o != NULL && o->id == m->id && o->state != OUT_LEAVING)
        drop(q, o);
    query_answer(q, token, MSG_checkpoint_reply, &(struct msg_checkpoint_reply){0});
}

void query_on_checkpoint(struct query *q, const struct link_request *request)
{
    struct msg_checkpoint m;
    enum sh_error e = msg_decode(MSG_checkpoint, request->body, &m);
    if (query_view_refuse_absent(q, request->token))
        return;
    if (e != SH_OK)
        query_refuse(q, request->token, e, "malformed", 0);
    else if (m.step == CHECKPOINT_LOOK)
        answer_look(q, request->token);
    else if (m.id == 0 || m.node.len == 0)
        query_refuse(q, request->token, SH_BAD_REQUEST, "a checkpoint has an id, and somebody who asks", 0);
    else if (m.step == CHECKPOINT_OPEN)
        open_one(q, request->token, &m);
    else if (m.step == CHECKPOINT_ROWS)
        answer_rows(q, request->token, &m);
    else
        close_one(q, request->token, &m);
}

/* ---------------------------------------------------------------- life */

static void look_at(struct query *q, struct out *o, int64_t now_ns)
{
    if (o->state != OUT_OPEN)
        return;
    if (now_ns - o->used_ns > IDLE_NS || now_ns - o->opened_ns > LIFE_NS) {
        log_warn("a checkpoint of the view is not fetched to its end", log_text("member", o->node));
        drop(q, o);
    } else if (!o->holds && now_ns - o->held_ns > HOLD_NS) {
        begin_holds(q, o);
    }
}

static void on_timer(void *arg)
{
    struct query *q = arg;
    for (size_t i = 0; i < OUT_MAX; i++)
        look_at(q, &q->checkpoints->all[i], loop_now_ns(q->service->loop));
    loop_timer_after(q->service->loop, &q->checkpoints->timer, LOOK_NS);
}

static void remove_left(struct query *q)
{
    static const char *const names[] = {"out-0", "out-1", "in"};
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        vfs_path(path, q->checkpoints->root, names[i]);
        view_folder_remove(q->fs, path);
    }
}

void query_checkpoints_open(struct query *q)
{
    struct query_checkpoints *c = xcalloc(1, sizeof *c);
    q->checkpoints = c;
    vfs_path(c->root, q->service->config->data_dir, "checkpoints");
    int result = q->fs->mkdir(q->fs, c->root, 0700);
    if (result < 0 && result != -EEXIST)
        log_error("cannot make the folder of checkpoints", log_text("dir", c->root),
                  log_text("error", strerror(-result)));
    remove_left(q);
    c->timer = (struct loop_timer){.fn = on_timer, .arg = q};
    loop_timer_after(q->service->loop, &c->timer, LOOK_NS);
}

void query_checkpoints_close(struct query *q)
{
    struct query_checkpoints *c = q->checkpoints;
    if (c == NULL)
        return;
    loop_timer_cancel(q->service->loop, &c->timer);
    for (size_t i = 0; i < OUT_MAX; i++)
        if (c->all[i].copy != NULL)
            view_store_close(c->all[i].copy);
    remove_left(q);
    buf_free(&c->rows);
    free(c);
    q->checkpoints = NULL;
}
