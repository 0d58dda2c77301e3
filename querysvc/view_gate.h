/* Cause before effect: a frame that was written by somebody who had seen other logs says so in its first
 * entry (ENTRY_AFTER), and is applied after what he had seen. Pure: logs' progress and time in.
 *
 *   open ──(a frame names what is not applied)──► waiting ──(applied)──► open
 *                                                   │
 *                                                   └──(in vain)──► open, and the log is doubted
 *
 * Only logs that the node holds are waited for, and never for long: nobody can see to it that two logs wait
 * for each other, or one for entries that will never be, and the view stands still. */
#ifndef QUERYSVC_VIEW_GATE_H
#define QUERYSVC_VIEW_GATE_H

#include "view_apply.h"

#define VIEW_GATE_STALL_NS (10 * NS_PER_S) /* without progress of the log that is waited for */
#define VIEW_GATE_MOST_NS  (60 * NS_PER_S) /* for one frame, over all */

/* Logs that were waited for in vain. */
struct view_doubt {
    struct id16 log;
    uint64_t
        stalled_at; /* nothing is waited for while it is applied up to here; UINT64_MAX: that was not it */
    uint64_t lsn;   /* nothing from here on is waited for until it is applied */
};
struct view_doubts {
    struct view_doubt all[VIEW_LOGS_MAX];
    size_t count;
};

/* Of one log. */
struct view_gate {
    struct id16 log; /* that is waited for, */
    uint64_t lsn;    /* up to this one; 0: it is open */
    uint64_t seen;   /* how far that log was applied, */
    int64_t seen_ns; /* since when */
    int64_t begun_ns;
    uint64_t frame; /* the first LSN of the frame that waits; begun_ns is of all that it waits for */
};

/* Bytes of the log's frames that may be applied now: up to the first frame that has to wait, for which the
 * gate is closed then. holds: whether the node holds a log. Bytes that are no frames are left to view_apply.
 */
size_t view_gate_pass(struct view_gate *gate, const struct view_doubts *doubts,
                      const struct view_vector *applied, struct id16 log, struct slice frames,
                      bool (*holds)(void *arg, struct id16 log), void *arg, int64_t now_ns);

enum view_gate_state { VIEW_GATE_OPEN, VIEW_GATE_WAITS, VIEW_GATE_GAVE_UP };
/* Looks at a gate again. VIEW_GATE_GAVE_UP: it has waited in vain, and is open; what for stays in it, but for
 * lsn, until it is closed again. */
enum view_gate_state view_gate_look(struct view_gate *gate, struct view_doubts *doubts,
                                    const struct view_vector *applied, int64_t now_ns);
/* When that is due without progress. INT64_MAX: the gate is open. */
int64_t view_gate_due_ns(const struct view_gate *gate);

#endif
