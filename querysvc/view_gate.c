/* Which frames wait for which entries of other logs. Nothing here is fatal. */
#include "view_gate.h"

#include "frame.h"

static uint64_t applied_of(const struct view_vector *applied, struct id16 log)
{
    const struct view_place *place = view_place_of(applied, log);
    return place != NULL ? place->lsn : 0;
}

/* ---------------------------------------------------------------- doubts */

static struct view_doubt *doubt_of(struct view_doubts *doubts, struct id16 log)
{
    for (size_t i = 0; i < doubts->count; i++)
        if (id16_equal(doubts->all[i].log, log))
            return &doubts->all[i];
    return NULL;
}

static bool is_doubted(const struct view_doubts *doubts, struct id16 log, uint64_t lsn, uint64_t have)
{
    const struct view_doubt *d = doubt_of((struct view_doubts *)(uintptr_t)doubts, log);
    return d != NULL && (d->stalled_at == have || (lsn >= d->lsn && have < d->lsn));
}

/* NULL: there is no room, and the log is waited for again each time. */
static struct view_doubt *make_doubt(struct view_doubts *doubts, struct id16 log)
{
    struct view_doubt *d = doubt_of(doubts, log);
    if (d != NULL || doubts->count == VIEW_LOGS_MAX)
        return d;
    d = &doubts->all[doubts->count++];
    *d = (struct view_doubt){.log = log, .stalled_at = UINT64_MAX, .lsn = UINT64_MAX};
    return d;
}

static void doubt(struct view_doubts *doubts, const struct view_gate *g, bool has_stalled)
{
    struct view_doubt *d = make_doubt(doubts, g->log);
    if (d == NULL)
        return;
    if (has_stalled)
        d->stalled_at = g->seen;
    else if (g->lsn < d->lsn || d->lsn <= g->seen)
        d->lsn = g->lsn;
}

/* ---------------------------------------------------------------- frames */

struct passing {
    struct view_gate *gate;
    const struct view_doubts *doubts;
    const struct view_vector *applied;
    struct id16 log;
    bool (*holds)(void *arg, struct id16 log);
    void *arg;
    int64_t now_ns;
    uint64_t frame; /* that is looked at */
};

static void close_gate(const struct passing *p, struct id16 log, uint64_t lsn, uint64_t have)
{
    struct view_gate *g = p->gate;
    if (g->lsn == lsn && id16_equal(g->log, log))
        return;
    int64_t begun_ns = g->frame == p->frame ? g->begun_ns : p->now_ns;
    *g = (struct view_gate){log, lsn, have, p->now_ns, begun_ns, p->frame};
}

/* Whether a frame with this body may be applied now. */
static bool may_pass(const struct passing *p, struct slice body)
{
    struct mp m = mp_of(body), positions;
    struct entry first;
    struct id16 log;
    uint64_t lsn;
    uint32_t count;
    if (!entries_open(&m, &count) || count == 0 || entry_next(&m, &first) != SH_OK ||
        first.kind != ENTRY_AFTER)
        return true;
    positions = mp_of(first.after);
    if (!mp_array(&positions, &count))
        return true;
    for (uint32_t i = 0; i < count && entry_next_after(&positions, &log, &lsn); i++) {
        uint64_t have = applied_of(p->applied, log);
        if (have >= lsn || id16_equal(log, p->log) || is_doubted(p->doubts, log, lsn, have) ||
            !p->holds(p->arg, log))
            continue;
        close_gate(p, log, lsn, have);
        return false;
    }
    return true;
}

size_t view_gate_pass(struct view_gate *gate, const struct view_doubts *doubts,
                      const struct view_vector *applied, struct id16 log, struct slice frames,
                      bool (*holds)(void *arg, struct id16 log), void *arg, int64_t now_ns)
{
    struct passing p = {gate, doubts, applied, log, holds, arg, now_ns, 0};
    uint64_t have = applied_of(applied, log);
    size_t at = 0;
    struct frame_header h;
    while (frames.len - at >= FRAME_HEADER_BYTES) {
        const uint8_t *frame = frames.data + at;
        if (frame_header_decode(slice_of(frame, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h) != SH_OK ||
            h.body_bytes > frames.len - at - FRAME_HEADER_BYTES)
            break;
        p.frame = h.base_lsn;
        if (h.kind == FRAME_DATA && h.base_lsn + h.count - 1 > have &&
            !may_pass(&p, slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes)))
            return at;
        at += FRAME_HEADER_BYTES + h.body_bytes;
    }
    gate->lsn = 0;
    return frames.len;
}

/* ---------------------------------------------------------------- waiting */

enum view_gate_state view_gate_look(struct view_gate *g, struct view_doubts *doubts,
                                    const struct view_vector *applied, int64_t now_ns)
{
    if (g->lsn == 0)
        return VIEW_GATE_OPEN;
    uint64_t have = applied_of(applied, g->log);
    if (have != g->seen) {
        g->seen = have;
        g->seen_ns = now_ns;
    }
    bool has_stalled = now_ns - g->seen_ns >= VIEW_GATE_STALL_NS,
         is_over = now_ns - g->begun_ns >= VIEW_GATE_MOST_NS;
    if (have < g->lsn && !has_stalled && !is_over)
        return VIEW_GATE_WAITS;
    if (have < g->lsn)
        doubt(doubts, g, has_stalled);
    enum view_gate_state state = have < g->lsn ? VIEW_GATE_GAVE_UP : VIEW_GATE_OPEN;
    g->lsn = 0;
    return state;
}

int64_t view_gate_due_ns(const struct view_gate *g)
{
    int64_t stall_ns = g->seen_ns + VIEW_GATE_STALL_NS, most_ns = g->begun_ns + VIEW_GATE_MOST_NS;
    if (g->lsn == 0)
        return INT64_MAX;
    return stall_ns < most_ns ? stall_ns : most_ns;
}
