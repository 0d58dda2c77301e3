/* Tidying up as the view's thread does it, a little at a time: looks what waits, asks the loop for what it
 * has to know (who is in the group) or to have done (a clock frame), and takes rows away.
 *
 *   nothing waits ──(a delete, a ttl)──► too young ──► asks who is in the group ──► asks for a clock frame,
 * or ▲                                                      ▲                   drops what may go
 *        └──────────────────────────────────────────────────────┴───────────────────────────┘ */
#ifndef QUERYSVC_VIEW_TIDYING_H
#define QUERYSVC_VIEW_TIDYING_H

#include "view_tidy.h"

struct view_tidying {
    struct id16 own;
    uint64_t keep_ms;
    struct view_clocks clocks;
    struct view_group group;
    bool is_fresh;    /* the group was told since the last look */
    uint64_t from;    /* HLC before which nothing waits */
    int64_t look_ns;  /* when to look next; INT64_MAX: when something has come */
    uint64_t waiting; /* HLC of the oldest that waits; 0: none */
    uint64_t tidied;  /* HLC up to which it was ever done */
    bool wants_group, wants_clock;
    uint64_t applied; /* what a clock frame would say; with wants_clock */
    bool is_compacting;
    unsigned suggested; /* so many times, since it began */
    uint64_t dropped;   /* rows whose room is not freed yet */
};

/* The store was opened, or is an empty one: nothing is known any more. */
void view_tidying_begin(struct view_tidying *t, struct view_store *store);
void view_tidying_end(struct view_tidying *t);
/* Frames of a log were applied; its HLC before that, and what is passed to view_clocks_take. What the clock
 * frames say is gathered: to be written with the rows. */
void view_tidying_applied(struct view_tidying *t, struct view_store *store, const struct view_vector *vector,
                          struct id16 log, uint64_t hlc_before, struct slice frames, uint64_t end);
void view_tidying_take_group(struct view_tidying *t, const struct view_group *group);
/* When look_ns is over. All of `vector` is on disk, or is_flushed is false, and then no clock frame is asked
 * for. False: error, and the store is to be closed. */
bool view_tidying_look(struct view_tidying *t, struct view_store *store, const struct view_vector *vector,
                       bool is_flushed, char error[VIEW_ERROR_MAX]);
/* Time between two looks while something waits, and between two clock frames. */
int64_t view_tidying_pause_ns(uint64_t keep_ms);

#endif
