/* What the view needs to tidy up: who is in the group and which logs count (asked of replsvc), and clock
 * frames in the own log (asked of walsvc). Nothing is asked while nothing waits. */
#include <stdlib.h>
#include <string.h>

#include "query_view_parts.h"

struct query_tidy {
    bool asking;            /* replsvc */
    bool writing;           /* walsvc, a clock frame */
    int64_t written_ns;     /* when one was asked for last; 0: not yet */
    int64_t pause_ns;       /* between two of them */
    struct view_group told; /* scratch, and what the view was told last */
};

/* False: it isn't sent. While that daemon is away the question waits for it. */
static bool ask_of(struct query *q, struct query_forward *f, uint32_t type, const void *message,
                   query_answer_fn *fn)
{
    struct buf body = {0};
    msg_encode(type, message, &body);
    enum sh_error e = query_forward_ask(f, type, 0, buf_slice(&body), fn, q);
    buf_free(&body);
    return e == SH_OK;
}

/* ---------------------------------------------------------------- who is in the group */

enum { STATE_TRIMMED = 5 };

/* The next log that is followed. */
static bool next_row(struct mp *m, struct msg_replica_info *info)
{
    struct slice row;
    return mp_raw(m, &row) && msg_decode(MSG_replica_info, row, info) == SH_OK;
}

static bool take_followed(struct slice followed, struct id16 own, struct view_group *out)
{
    struct mp m = mp_of(followed);
    struct msg_replica_info info;
    uint32_t count;
    if (!mp_array(&m, &count) || count > VIEW_LOGS_MAX - 1)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!next_row(&m, &info))
            return false;
        if (id16_equal(info.log, own) || info.state >= STATE_TRIMMED)
            return false; /* the own log is fetched back, or entries are missing: not now */
        out->all[out->count++] = (struct view_group_log){.log = info.log,
                                                         .is_member = info.origin.len > 0,
                                                         .is_closed = info.closed,
                                                         .closed_lsn = info.lsn};
    }
    return true;
}

/* How many of these logs belong to members. */
static size_t count_members(const struct view_group *group)
{
    size_t members = 0;
    for (size_t i = 0; i < group->count; i++)
        members += group->all[i].is_member;
    return members;
}

static void take_group(const struct msg_replicas_reply *reply, struct view_group *out)
{
    struct mp m = mp_of(reply->followers);
    uint32_t others = 0;
    out->count = 0;
    out->all[out->count++] = (struct view_group_log){.log = reply->log, .is_member = true};
    out->known = reply->certain && mp_array(&m, &others) && take_followed(reply->followed, reply->log, out) &&
                 count_members(out) == 1 + (size_t)others;
}

static void on_replicas(void *arg, uint32_t type, struct slice body)
{
    struct query *q = arg;
    struct msg_replicas_reply reply;
    if (q->view == NULL) /* the end */
        return;
    struct query_tidy *tidy = query_tidy_of(q);
    tidy->asking = false;
    if (type != MSG_replicas_reply || msg_decode(type, body, &reply) != SH_OK)
        return; /* the view asks again */
    take_group(&reply, &tidy->told);
    view_tell_group(query_view_of(q), &tidy->told);
}

/* ---------------------------------------------------------------- clock frames */

static void on_clock_frame(void *arg, uint32_t type, struct slice body)
{
    struct query *q = arg;
    struct msg_error error;
    if (q->view == NULL)
        return;
    query_tidy_of(q)->writing = false;
    if (type == MSG_error && msg_decode(type, body, &error) == SH_OK)
        log_for(LOG_DEBUG, 0, "no clock frame is written", log_slice("text", error.text));
}

static void write_clock(struct query *q, struct query_tidy *tidy, uint64_t applied)
{
    struct buf logs = {0};
    int64_t now_ns = loop_now_ns(q->service->loop);
    if (tidy->writing || (tidy->written_ns > 0 && now_ns - tidy->written_ns < tidy->pause_ns))
        return;
    view_group_pack(&tidy->told, &logs);
    const struct msg_clock_frame ask = {.applied = applied, .logs = buf_slice(&logs)};
    tidy->writing = ask_of(q, &q->wal, MSG_clock_frame, &ask, on_clock_frame);
    tidy->written_ns = now_ns;
    buf_free(&logs);
}

/* ---------------------------------------------------------------- life */

void query_tidy_look(struct query *q, const struct view_state *state)
{
    struct query_tidy *tidy = query_tidy_of(q);
    if (state->wants_group && !tidy->asking)
        tidy->asking = ask_of(q, &q->repl, MSG_replicas, &(struct msg_replicas){0}, on_replicas);
    if (state->wants_clock)
        write_clock(q, tidy, state->clock_applied);
}

struct query_tidy *query_tidy_open(struct query *q)
{
    enum { FRAMES_EACH = 4 /* in the time that rows stay at least */ };
    struct query_tidy *tidy = xcalloc(1, sizeof *tidy);
    tidy->pause_ns = (int64_t)q->service->config->settings.query_tombstone_keep / FRAMES_EACH;
    return tidy;
}

void query_tidy_close(struct query *q, struct query_tidy *tidy)
{
    (void)q;
    free(tidy);
}
