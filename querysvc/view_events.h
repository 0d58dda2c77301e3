/* Which events of a stream come next for a reader, by the rows of the view: runs in the order in which they
 * arrived here. A reader's position is a version vector: all of the stream up to there it has, in each log;
 * so it means the same on every node. Each log's own order is kept whatever the arrivals say.
 *
 *   rows of log a   ──■■──■──────►┐
 *   rows of log b   ■───────■■───►┼─ the head that arrived first ──► runs
 *   rows of log c   ────■────────►┘
 *
 * All is read as of one instant: what the vector in the store says is applied. */
#ifndef QUERYSVC_VIEW_EVENTS_H
#define QUERYSVC_VIEW_EVENTS_H

#include "view_apply.h"
#include "view_stream.h"

enum { VIEW_RUNS_MAX = 1000 };

struct view_events_ask {
    struct slice stream;
    const struct view_vector *position;
    uint64_t since; /* HLC: earlier events are passed over; 0: none */
    bool from_end;  /* no runs: all is left in `rest`, from so many events before the end on */
    uint64_t last;
    uint64_t max_events, max_bytes; /* about; one run at least */
    unsigned max_jumps;             /* runs that do not follow the one before in its log */
};

struct view_events_run {
    struct id16 log;
    struct view_run run; /* its front may be cut off: that is not wanted; bytes are those of all of it */
};

/* Events that were trimmed. */
struct view_gone {
    struct id16 log;
    uint64_t from, next; /* LSNs: somewhere between; next is to be read */
};

struct view_events {
    struct view_vector applied; /* all of the stream up to there is in what follows, */
    struct view_events_run runs[VIEW_RUNS_MAX];
    size_t run_count;
    struct view_events_run rest[VIEW_LOGS_MAX]; /* but for these, and what is behind them in their logs */
    size_t rest_count;
    struct view_gone gone[VIEW_LOGS_MAX];
    size_t gone_count;
};
/* False: the store failed. A stream that nobody knows has no events. */
bool view_events_find(struct view_store *store, const struct view_events_ask *ask, struct view_events *out,
                      char error[VIEW_ERROR_MAX]);

/* Whether the stream has events, or has lost some, behind a position. A store that fails has: whoever reads
 * it will be told. */
bool view_events_any(struct view_store *store, struct slice stream, const struct view_vector *position);

#endif
