/* A view that lacks entries is merged with a member's: what view_fetch.h decides, done. Questions go to
 * replsvc, which passes them on; rows are written by the view's thread. Nothing here is fatal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "query.h"
#include "telemetry_push.h"
#include "view.h"
#include "view_fetch.h"
#include "view_import.h"

enum { QUEUE_BYTES = 64 << 10, FOLLOWERS_MAX = 1024 };
/* Beside the rows that have come, which a compaction may write once more. */
#define ROOM_BYTES (2 * VIEW_ROOM_BYTES)

/* What the view's thread does for this; one is under way at most. The thread's own then. */
struct fetch_job {
    struct view_work work;
    struct query *query;
    enum fetch_action_kind kind;
    uint64_t id;
    struct buf vector, rows, digest; /* of the answer */
    bool more;
    uint64_t arrivals;
    struct view_import *import;
    struct merge_in in;
    struct view_vector begun; /* what was applied when the first piece was compared with the own rows */
    uint64_t opened;          /* which opening of the store it belongs to */
    char error[VIEW_ERROR_MAX];
};

struct query_fetch {
    struct view_fetch core;
    struct link_client *repl;
    uint64_t number;             /* of the question that is out; 0: none is */
    enum fetch_action_kind asks; /* what it is about */
    struct loop_timer timer;
    struct fetch_job job;
    struct buf body;
    char told[FETCH_TEXT_MAX]; /* that stands in the log already */
};

static void go_on(struct query *q);

static int64_t now_of(const struct query *q)
{
    return loop_now_ns(q->service->loop);
}

/* ---------------------------------------------------------------- on the view's thread */

static bool has_room_for(const struct fetch_job *job)
{
    const struct query *q = job->query;
    uint64_t free_bytes, have = view_import_bytes(job->import);
    return q->fs->free_bytes(q->fs, q->service->config->data_dir, &free_bytes) < 0 ||
           free_bytes >= ROOM_BYTES + have;
}

static void begin_import(struct fetch_job *job, struct view_access *access)
{
    char dir[PATH_MAX], root[PATH_MAX];
    struct view_vector *both = xmalloc(sizeof *both);
    *both = *access->applied;
    merge_in_free(&job->in);
    if (!view_vector_decode(buf_slice(&job->vector), &job->in.theirs))
        snprintf(job->error, sizeof job->error, "malformed version vector");
    else if (merge_in_vector(both, &job->in.theirs) != SH_OK)
        snprintf(job->error, sizeof job->error, "holds another log's entries, or too many logs");
    free(both);
    if (job->error[0] != 0)
        return;
    vfs_path(root, job->query->service->config->data_dir, "checkpoints");
    vfs_path(dir, root, "in");
    job->import = view_import_open(job->query->fs, dir, job->error);
    job->opened = access->opened;
    job->in.theirs.arrivals = job->arrivals;
    access->imports = true;
    job->in.arrivals = access->applied->arrivals;
    access->applied->arrivals += job->arrivals; /* what is applied from now on comes behind what is fetched */
}

struct taking {
    struct fetch_job *job;
    struct view_store *store;
    struct view_scan *own; /* rows behind the last one */
};

static bool take_row(void *arg, struct slice key, struct slice change)
{
    struct taking *t = arg;
    return view_import_add(t->job->import, t->store, key, change, t->job->error);
}

static bool next_own(void *arg, struct slice *key, struct slice *row)
{
    struct taking *t = arg;
    return view_scan_next(t->own, key, row, t->job->error);
}

static const char *bad_piece(const struct fetch_job *job)
{
    struct slice behind = buf_slice(&job->in.last), rows = buf_slice(&job->rows);
    struct digest128 want = merge_in_digest(job->id, behind, rows), have;
    if (job->digest.len != sizeof have.bytes)
        return "a piece has no digest";
    memcpy(have.bytes, job->digest.data, sizeof have.bytes);
    if (!digest_equal(want, have))
        return "a piece's digest is another one";
    return rows.len == 0 && job->more ? "an empty piece, and more to come" : NULL;
}

static enum sh_error merge_piece(struct fetch_job *job, const struct view_access *access)
{
    struct taking taking = {.job = job, .store = access->store};
    const struct merge_in_ends ends = {access->applied, next_own, take_row, &taking};
    struct buf from = {0};
    view_behind(buf_slice(&job->in.last), &from);
    taking.own = view_scan_open(access->store, buf_slice(&from), (struct slice){0});
    enum sh_error error = merge_in_piece(&job->in, &ends, buf_slice(&job->rows), job->more);
    view_scan_close(taking.own);
    buf_free(&from);
    return error;
}

/* Of a log that the member's view has more of, something was applied behind the own rows that its rows were
 * compared with. */
static bool has_gone_on(const struct fetch_job *job, const struct view_vector *applied)
{
    for (size_t i = 0; i < job->in.theirs.count; i++) {
        const struct view_place *theirs = &job->in.theirs.all[i];
        const struct view_place *then = view_place_of(&job->begun, theirs->log);
        const struct view_place *now = view_place_of(applied, theirs->log);
        uint64_t before = then != NULL ? then->lsn : 0;
        if (before < theirs->lsn && (now != NULL ? now->lsn : 0) != before)
            return true;
    }
    return false;
}

static void store_piece(struct fetch_job *job, struct view_access *access)
{
    const char *bad = bad_piece(job);
    if (job->in.last.len == 0)
        job->begun = *access->applied;
    access->imports = true;
    access->awaits = &job->in.theirs;
    if (bad != NULL || !has_room_for(job)) {
        snprintf(job->error, sizeof job->error, "%s", bad != NULL ? bad : "no room on the disk");
        return;
    }
    enum sh_error e = merge_piece(job, access);
    if (e != SH_OK && e != SH_INTERNAL)
        snprintf(job->error, sizeof job->error, "%s",
                 e == SH_VERSION_MISMATCH ? "rows of a kind not known here" : "malformed rows");
    failpoint_hit("checkpoint_piece");
}

static void install(struct fetch_job *job, struct view_access *access)
{
    struct view_vector *both = xmalloc(sizeof *both);
    *both = *access->applied;
    if (merge_in_vector(both, &job->in.theirs) != SH_OK) {
        snprintf(job->error, sizeof job->error, "holds another log's entries, or too many logs");
    } else if (view_import_install(job->import, access->store, both, job->error)) {
        *access->applied = *both;
        access->installed = true;
    } else {
        memcpy(access->error, job->error, sizeof access->error);
        access->failed = true;
    }
    free(both);
}

static void note_compared(struct fetch_job *job, struct view_access *access)
{
    view_set_compared(access->store);
    if (view_store_write(access->store, access->error))
        return;
    memcpy(job->error, access->error, sizeof job->error);
    access->failed = true;
}

static void work(struct view_work *work, struct view_access *access)
{
    struct fetch_job *job = work->arg;
    bool goes_on = job->kind == FETCH_STORE || job->kind == FETCH_INSTALL;
    job->error[0] = 0;
    if (access->store == NULL || !access->has_room)
        snprintf(job->error, sizeof job->error, "the view is not open, or the disk is nearly full");
    else if (goes_on && access->opened != job->opened)
        snprintf(job->error, sizeof job->error, "the view was begun anew");
    else if (goes_on && job->in.last.len > 0 && has_gone_on(job, access->applied))
        snprintf(job->error, sizeof job->error, "the view has gone on meanwhile");
    else if (job->kind == FETCH_BEGIN)
        begin_import(job, access);
    else if (job->kind == FETCH_STORE)
        store_piece(job, access);
    else if (job->kind == FETCH_INSTALL)
        install(job, access);
    else
        note_compared(job, access);
}

/* ---------------------------------------------------------------- what the view is */

struct own {
    struct fetch_own own;
    struct fetch_need needs[VIEW_LOGS_MAX];
    struct id16 held[VIEW_LOGS_MAX + 1];
};

static void find_need(struct query *q, const struct view_place *place, struct own *o)
{
    struct log_extent extent;
    char dir[PATH_MAX];
    reader_pool_dir(&q->readers, place->log, dir);
    if (log_extent_read(q->fs, dir, place->log, &extent) == SH_NOT_FOUND ||
        extent.first_lsn <= place->lsn + 1)
        return; /* what it lacked is there again */
    o->needs[o->own.need_count++] =
        (struct fetch_need){.log = place->log, .applied = place->lsn, .first = extent.first_lsn};
}

/* The caller frees it. */
static struct own *own_of(struct query *q)
{
    const struct view_state *state = query_view_state(q);
    struct own *o = xcalloc(1, sizeof *o);
    for (size_t i = 0; i < state->lacking.count; i++)
        find_need(q, &state->lacking.all[i], o);
    o->held[o->own.held_count++] = q->own.id;
    for (size_t i = 0; i < q->copies.count && i < VIEW_LOGS_MAX; i++)
        o->held[o->own.held_count++] = q->copies.logs[i].id;
    o->own.needs = o->needs;
    o->own.held = o->held;
    o->own.applied = &state->applied;
    o->own.compares = state->opened && state->caught_up && !state->compared;
    return o;
}

void query_fetch_look(struct query *q)
{
    struct query_fetch *f = q->fetch;
    if (f == NULL ||
        (f->core.state != FETCH_IDLE && f->core.state != FETCH_PAUSING && f->core.state != FETCH_SETTLING))
        return;
    const struct view_state *state = query_view_state(q);
    bool lacks = state->lacking.count > 0 || (state->opened && state->caught_up && !state->compared);
    if (f->core.state == FETCH_IDLE && !lacks)
        return;
    if (f->core.state == FETCH_PAUSING && lacks && now_of(q) < view_fetch_due_ns(&f->core))
        return; /* folders are looked into, which must not be with each change */
    struct own *o = own_of(q);
    view_fetch_look(&f->core, now_of(q), &o->own, query_view_is_held(q));
    free(o);
    go_on(q);
}

/* ---------------------------------------------------------------- answers of replsvc */

static bool decode_ids(struct slice followers, char ids[FETCH_MEMBERS_MAX][FETCH_NODE_MAX + 1], size_t *count)
{
    struct mp m = mp_of(followers);
    struct slice bytes;
    uint32_t entries;
    *count = 0;
    if (!mp_array(&m, &entries) || entries > FOLLOWERS_MAX)
        return false;
    for (uint32_t i = 0; i < entries; i++) {
        struct msg_replica_info info;
        if (!mp_raw(&m, &bytes) || msg_decode(MSG_replica_info, bytes, &info) != SH_OK)
            return false;
        if (*count < FETCH_MEMBERS_MAX && info.peer.len > 0 && info.peer.len <= FETCH_NODE_MAX)
            snprintf(ids[(*count)++], FETCH_NODE_MAX + 1, "%.*s", (int)info.peer.len,
                     (const char *)info.peer.data);
    }
    return true;
}

static uint64_t random_id(void)
{
    uint64_t id = random_u64();
    return id != 0 ? id : 1;
}

static void take_members(struct query *q, uint32_t type, struct slice body)
{
    struct msg_replicas_reply reply;
    char ids[FETCH_MEMBERS_MAX][FETCH_NODE_MAX + 1];
    size_t count;
    if (type != MSG_replicas_reply || msg_decode(type, body, &reply) != SH_OK ||
        !decode_ids(reply.followers, ids, &count))
        view_fetch_failed(&q->fetch->core, now_of(q), "replsvc does not say who is there", true);
    else
        view_fetch_listed(&q->fetch->core, now_of(q), ids, count, random_id());
}

static void take_look(struct query *q, const struct msg_checkpoint_reply *reply)
{
    struct view_vector *theirs = xcalloc(1, sizeof *theirs);
    struct own *o = own_of(q);
    if (view_vector_decode(reply->vector, theirs))
        view_fetch_looked(&q->fetch->core, now_of(q), theirs, &o->own);
    else
        view_fetch_failed(&q->fetch->core, now_of(q), "malformed version vector", true);
    free(o);
    free(theirs);
}

static void keep(struct buf *out, struct slice bytes)
{
    out->len = 0;
    buf_append(out, bytes.data, bytes.len);
}

static void take_reply(struct query *q, enum fetch_action_kind asked,
                       const struct msg_checkpoint_reply *reply)
{
    struct query_fetch *f = q->fetch;
    if (asked == FETCH_LOOK) {
        take_look(q, reply);
        return;
    }
    keep(&f->job.vector, reply->vector);
    keep(&f->job.rows, reply->rows);
    keep(&f->job.digest, reply->digest);
    f->job.more = reply->more;
    f->job.arrivals = reply->arrivals;
    view_fetch_done(&f->core, now_of(q), reply->total);
}

/* The member has nothing to be closed that could be: it has forgotten it, or does not answer. */
static void take_error(struct query *q, uint32_t type, struct slice body)
{
    struct msg_error error;
    char text[64] = "malformed answer";
    if (type == MSG_error && msg_decode(type, body, &error) == SH_OK)
        snprintf(text, sizeof text, "%.*s", (int)error.text.len, (const char *)error.text.data);
    view_fetch_failed(&q->fetch->core, now_of(q), text, true);
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct query *q = arg;
    struct query_fetch *f = q->fetch;
    struct msg_checkpoint_reply reply;
    if (number != f->number)
        return;
    f->number = 0;
    if (f->asks == FETCH_LIST)
        take_members(q, type, body);
    else if (type != MSG_checkpoint_reply || msg_decode(type, body, &reply) != SH_OK)
        take_error(q, type, body);
    else
        take_reply(q, f->asks, &reply);
    go_on(q);
}

/* ---------------------------------------------------------------- actions */

static void ask(struct query *q, enum fetch_action_kind kind, uint32_t type, const void *message)
{
    struct query_fetch *f = q->fetch;
    f->body.len = 0;
    msg_encode(type, message, &f->body);
    f->asks = kind;
    if (link_client_send(f->repl, type, 0, buf_slice(&f->body), (struct slice){0}, &f->number) != SH_OK)
        f->number = 0; /* one is out at most: there is room */
}

static void ask_member(struct query *q, const struct fetch_action *action, uint64_t step)
{
    const struct msg_checkpoint m = {
        .step = step,
        .node = slice_str(action->node),
        .id = step == CHECKPOINT_LOOK ? 0 : action->id,
        .behind = step == CHECKPOINT_ROWS ? buf_slice(&q->fetch->job.in.last) : (struct slice){0},
    };
    ask(q, action->kind, MSG_checkpoint, &m);
}

static void drop(struct query_fetch *f)
{
    if (f->job.import != NULL && f->job.query->view != NULL)
        view_import_over(query_view_of(f->job.query));
    view_import_close(f->job.import);
    f->job.import = NULL;
    merge_in_free(&f->job.in);
    buf_free(&f->job.rows);
}

static void on_done(void *arg, struct view_work *done)
{
    struct query *q = arg;
    struct query_fetch *f = q->fetch;
    struct fetch_job *job = done->arg;
    if (q->closing)
        return;
    query_view_refresh(q);
    if (job->error[0] != 0)
        view_fetch_failed(&f->core, now_of(q), job->error, false);
    else if (job->kind == FETCH_STORE)
        view_fetch_stored(&f->core, now_of(q), job->in.rows, job->in.bytes, job->more);
    else
        view_fetch_done(&f->core, now_of(q), 0);
    if (job->kind == FETCH_INSTALL && job->error[0] == 0)
        event_info("view_merged", "the view was merged with a member's",
                   log_text("member", f->core.members[f->core.at].id), log_uint("rows", f->core.rows),
                   log_uint("bytes", f->core.bytes));
    go_on(q);
}

static void give_work(struct query *q, const struct fetch_action *action)
{
    struct fetch_job *job = &q->fetch->job;
    job->query = q;
    job->kind = action->kind;
    job->id = action->id;
    job->work = (struct view_work){.fn = work, .done = on_done, .arg = job};
    view_ask(query_view_of(q), &job->work);
}

static void do_action(struct query *q, const struct fetch_action *action)
{
    switch (action->kind) {
    case FETCH_NOTHING:
        break;
    case FETCH_LIST:
        ask(q, FETCH_LIST, MSG_replicas, &(struct msg_replicas){0});
        break;
    case FETCH_LOOK:
        ask_member(q, action, CHECKPOINT_LOOK);
        break;
    case FETCH_OPEN:
        log_info("the view is merged with a member's", log_text("member", action->node));
        ask_member(q, action, CHECKPOINT_OPEN);
        break;
    case FETCH_ROWS:
        ask_member(q, action, CHECKPOINT_ROWS);
        break;
    case FETCH_CLOSE:
        ask_member(q, action, CHECKPOINT_CLOSE);
        break;
    case FETCH_DROP:
        drop(q->fetch);
        break;
    case FETCH_BEGIN:
    case FETCH_STORE:
    case FETCH_INSTALL:
    case FETCH_NOTE:
        give_work(q, action);
        break;
    }
}

/* A sentence that is new. */
static void tell(struct query_fetch *f)
{
    if (f->core.state != FETCH_PAUSING || strcmp(f->told, f->core.lacks) == 0)
        return;
    memcpy(f->told, f->core.lacks, sizeof f->told);
    if (f->told[0] != 0)
        event_error("view_lacks_entries", "the view lacks entries, and no member gives them",
                    log_text("what", f->told));
}

static void go_on(struct query *q)
{
    struct query_fetch *f = q->fetch;
    struct fetch_action action;
    do {
        action = view_fetch_next(&f->core);
        do_action(q, &action);
    } while (action.kind != FETCH_NOTHING);
    tell(f);
    if (view_fetch_due_ns(&f->core) == INT64_MAX)
        loop_timer_cancel(q->service->loop, &f->timer);
    else
        loop_timer_set(q->service->loop, &f->timer, view_fetch_due_ns(&f->core));
}

static void on_timer(void *arg)
{
    query_fetch_look(arg);
}

/* ---------------------------------------------------------------- what is told */

static uint64_t percent_of(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : part >= whole ? 100 : part * 100 / whole;
}

/* Of the entries that are here, or were. */
static uint64_t applied_percent(struct query *q)
{
    const struct view_state *state = query_view_state(q);
    uint64_t applied = 0, durable = q->own.durable_lsn;
    for (size_t i = 0; i < q->copies.count; i++)
        durable += q->copies.logs[i].durable_lsn;
    for (size_t i = 0; i < state->applied.count; i++)
        applied += state->applied.all[i].lsn;
    return percent_of(applied, durable);
}

void query_fetch_info(struct query *q, struct msg_view_info_reply *reply)
{
    const struct view_fetch *core = &q->fetch->core;
    const struct view_state *state = query_view_state(q);
    bool fetches = core->state >= FETCH_OPENING && core->state <= FETCH_STORING;
    if (fetches || core->state == FETCH_INSTALLING) {
        reply->state = fetches ? VIEW_FETCHING : VIEW_INSTALLING;
        reply->percent = percent_of(core->rows, core->total);
        reply->peer = slice_str(core->members[core->at].id);
        reply->fetched_bytes = core->bytes;
        reply->fetched_rows = core->rows;
    } else if (state->lacking.count > 0) {
        reply->state = VIEW_LACKING;
        reply->lacks = slice_str(core->lacks);
    } else if (state->opened && !state->caught_up) {
        reply->state = VIEW_REBUILDING;
        reply->percent = applied_percent(q);
    }
}

/* ---------------------------------------------------------------- life */

enum sh_error query_fetch_open(struct query *q)
{
    struct query_fetch *f = xcalloc(1, sizeof *f);
    char endpoint[LINK_ENDPOINT_MAX];
    snprintf(endpoint, sizeof endpoint, "ipc://%.200s/repl", q->service->config->run_dir);
    struct link_client_options options = {
        .loop = q->service->loop,
        .endpoint = endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = QUEUE_BYTES,
        .cluster = q->service->cluster,
        .sender = slice_str(q->service->config->self->id),
        .on_answer = on_answer,
        .arg = q,
    };
    view_fetch_init(&f->core);
    f->timer = (struct loop_timer){.fn = on_timer, .arg = q};
    q->fetch = f;
    return link_client_open(&options, &f->repl);
}

void query_fetch_close(struct query *q)
{
    struct query_fetch *f = q->fetch;
    if (f == NULL)
        return;
    loop_timer_cancel(q->service->loop, &f->timer);
    if (f->repl != NULL)
        link_client_close(f->repl);
    drop(f);
    buf_free(&f->job.vector);
    buf_free(&f->job.digest);
    buf_free(&f->body);
    free(f);
    q->fetch = NULL;
}
