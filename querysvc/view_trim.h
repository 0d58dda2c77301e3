/* Takes the rows of events out that are no longer in their log, a bounded number at a time. What is left of
 * them is in the summaries: up to where events are gone. */
#ifndef QUERYSVC_VIEW_TRIM_H
#define QUERYSVC_VIEW_TRIM_H

#include "view_store.h"

struct view_trim {
    struct id16 log;
    uint64_t first_lsn; /* that is left of the log; 0: nothing is under way */
    struct buf stream;  /* the first one that is still to be looked at */
};
void view_trim_begin(struct view_trim *trim, struct id16 log, uint64_t first_lsn);
/* One batch, which is written. False: the store failed. first_lsn is 0 when all is done. */
bool view_trim_step(struct view_trim *trim, struct view_store *store, char error[VIEW_ERROR_MAX]);
/* Also when nothing is under way. */
void view_trim_free(struct view_trim *trim);

#endif
