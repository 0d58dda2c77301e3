/* Rows of streams: where the events of a stream lie, and how many there are. Pure. docs/view-format.md has
 * the bytes.
 *
 * Events that stand side by side in one frame are a run, and have one row. A run is the same on every node,
 * but for its arrival: the number that this node's view gave to its first event. Events count up in it as
 * they are applied, so that reading by arrival is reading in the order in which the node got to know them.
 *
 * A stream's summary has one part for each log. */
#ifndef QUERYSVC_VIEW_STREAM_H
#define QUERYSVC_VIEW_STREAM_H

#include "buf.h"
#include "clock.h"

/* ---- runs ---- */

struct view_run {
    uint64_t lsn;   /* of the first event; in the row's key */
    uint32_t count; /* events; the LSNs have no gap */
    uint64_t arrival;
    uint64_t hlc;   /* of the frame */
    uint32_t bytes; /* payloads */
};
/* The key of the row: by stream, then log, then LSN. Replaces what is in out. */
void view_run_key(struct slice stream, struct id16 log, uint64_t lsn, struct buf *out);
/* Whether the key is of that stream and log; lsn: the one in it. */
bool view_run_key_is(struct slice key, struct slice stream, struct id16 log, uint64_t *lsn);
/* What any such key says. False: it is none. */
bool view_run_key_decode(struct slice key, struct id16 *log, uint64_t *lsn);
/* Appends the row; lsn is not in it. */
void view_run_encode(const struct view_run *run, struct buf *out);
/* Leaves lsn as it is. False: no run. */
bool view_run_decode(struct slice row, struct view_run *out);
/* A row of another view, so that it comes behind what is here: `own` is how far arrivals were here when that
 * view's first row came, to which its own arrivals were added then, before any row was written. Merged
 * (view_merge) into a row that is here already, it changes nothing. Appends the row. False: no run. */
bool view_run_shift(struct slice row, uint64_t own, struct buf *out);
/* The run of two that arrived first stays. */
bool view_run_merge(const struct slice *existing, const struct slice *changes, size_t count, struct buf *out);

/* ---- summaries ---- */

/* Of one log. */
struct view_part {
    struct id16 log;
    uint64_t lsn, hlc;           /* of the last event that is counted */
    uint64_t count, bytes;       /* events and payloads that can still be read */
    uint64_t gone_lsn, gone_hlc; /* of the last event that was trimmed; 0: none was */
};
enum { VIEW_PART_BYTES = 64 };
/* Events that are added to what is counted; gone_lsn and gone_hlc are not looked at. */
void view_summary_encode_add(const struct view_part *add, struct buf *out);
/* What there is: of each log the part that goes further counts. */
void view_summary_encode(const struct view_part *parts, size_t count, struct buf *out);
struct view_summary {
    struct slice parts; /* that are left */
    bool adds;
};
/* False: no summary. */
bool view_summary_open(struct slice row, struct view_summary *summary);
bool view_summary_next(struct view_summary *summary, struct view_part *out);
/* adds: all are additions, and become one; otherwise a whole row. */
bool view_summary_merge(const struct slice *existing, const struct slice *changes, size_t count, bool adds,
                        struct buf *out);

#endif
