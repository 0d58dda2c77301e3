/* Tombstones and expired values: when their rows may go, and taking them away (docs/adr/0012).
 *
 * A row goes when no put with a lower HLC than what it says can come any more, at any member: each node tells
 * in clock frames of its own log up to which HLC its view has applied every log. Since a log's HLC only
 * grows, what stands behind such a frame is higher.
 *
 * Each delete, and each put with a ttl, leaves a second row, by which what waits is found in order:
 *
 *   'T', HLC (8 bytes, big-endian) from which on it may go, key of the row that it is about -> nothing
 *
 * The decisions are pure. */
#ifndef QUERYSVC_VIEW_TIDY_H
#define QUERYSVC_VIEW_TIDY_H

#include "view_apply.h"

/* ---- what clock frames say ---- */

/* Of one log. */
struct view_clock {
    struct id16 log;
    uint64_t end;      /* position behind what was read of it; 0: not known */
    uint64_t hlc;      /* of its last clock frame behind which nothing is missing; 0: none yet */
    uint64_t applied;  /* what that one says */
    struct buf others; /* and the logs that it counts: packed, as in the frame */
};

struct view_clocks {
    struct view_clock *all;
    size_t count; /* at most VIEW_LOGS_MAX */
    bool changed; /* since they were stored */
};

/* NULL: nothing is known of that log. */
struct view_clock *view_clock_of(const struct view_clocks *clocks, struct id16 log);
/* Takes what the clock frames among these whole frames say, once the data frames before them are applied: as
 * far as `vector` goes. end: position behind them, or 0. */
void view_clocks_take(struct view_clocks *clocks, const struct view_vector *vector, struct id16 log,
                      struct slice frames, uint64_t end);
void view_clocks_free(struct view_clocks *clocks);
/* Gathers them, when they have changed; then view_store_write. */
void view_clocks_store(struct view_store *store, struct view_clocks *clocks);
/* VIEW_NOT_FOUND: there are none yet. */
enum view_found view_clocks_load(struct view_store *store, struct view_clocks *out,
                                 char error[VIEW_ERROR_MAX]);

/* ---- who counts ---- */

/* A log that the node holds. */
struct view_group_log {
    struct id16 log;
    bool is_member; /* a member of the group has it as its own */
    bool is_closed; /* nobody extends it behind closed_lsn */
    uint64_t closed_lsn;
};

struct view_group {
    bool known; /* all members of the group, and all logs: otherwise nothing is tidied up */
    size_t count;
    struct view_group_log all[VIEW_LOGS_MAX];
};

/* HLC up to which a view that has applied `vector` has applied every log; 0: not known. */
uint64_t view_tidy_applied(const struct view_group *group, const struct view_clocks *clocks,
                           const struct view_vector *vector);
/* HLC up to which rows may go. vector: what is applied here. now_ms: ms since 1970. */
uint64_t view_tidy_horizon(const struct view_group *group, const struct view_clocks *clocks,
                           const struct view_vector *vector, uint64_t now_ms, uint64_t keep_ms);
/* Whether a clock frame in the own log would bring the horizon nearer to what waits at HLC `waiting`, for us
 * or for others. applied: view_tidy_applied of what is on disk. */
bool view_tidy_needs_clock(const struct view_clocks *clocks, const struct view_vector *vector,
                           struct id16 own, uint64_t waiting, uint64_t applied);
/* The packed array of the logs that count, for the frame. */
void view_group_pack(const struct view_group *group, struct buf *out);

/* ---- rows ---- */

/* HLC from which on a delete, or a value with a ttl, is of no use; 0: it is of use for ever. */
uint64_t view_tidy_due(const struct view_value *value);
/* Gathers the row by which the row `key` is found again, if it has to be. */
void view_tidy_note(struct view_store *store, const struct view_value *value, struct slice key);
/* HLC of the first one that waits, from `from` on; *none: nothing does. False: error. */
bool view_tidy_oldest(struct view_store *store, uint64_t from, uint64_t *oldest, bool *none,
                      char error[VIEW_ERROR_MAX]);
/* Takes away what may go up to the horizon, from `from` on: at most so many rows are looked at. Written in
 * one batch, with the horizon. *more: there may be more. *rows: how many went. False: error, and the store is
 * to be closed. */
bool view_tidy_drop(struct view_store *store, uint64_t from, uint64_t horizon, size_t most, size_t *rows,
                    bool *more, char error[VIEW_ERROR_MAX]);
/* HLC up to which this view was ever tidied up; 0: it never was. A view whose own vector is not past that
 * everywhere must not take these rows beside its own: it would keep values that were deleted. */
uint64_t view_tidy_tidied(struct view_store *store, char error[VIEW_ERROR_MAX]);

#endif
