/* What a frame changes in the view, and how far each log is applied: the version vector, which is written in
 * the same batch as the rows, so that after a crash each entry counts exactly once. */
#ifndef QUERYSVC_VIEW_APPLY_H
#define QUERYSVC_VIEW_APPLY_H

#include "shanghai_error.h"
#include "view_store.h"

enum { VIEW_LOGS_MAX = 256 };

/* How far one log is applied. */
struct view_place {
    struct id16 log;
    uint64_t lsn;      /* of the last entry */
    uint64_t hlc;      /* of its frame */
    uint32_t checksum; /* of that frame: another chain has another one. 0: not known, it was passed over */
    uint64_t segment;  /* base LSN of the segment that it stands in; 0: not known. Not stored */
    bool
        ahead; /* its rows came with a member's checkpoint: the log here may end earlier until it is copied */
};

struct view_vector {
    struct view_place all[VIEW_LOGS_MAX];
    size_t count;
    uint64_t arrivals; /* events that were numbered; not a part of what two vectors are compared by */
    uint64_t cursors;  /* not kept: another number tells that rows of cursors may have changed */
};
/* NULL: nothing of that log is applied. */
const struct view_place *view_place_of(const struct view_vector *vector, struct id16 log);
/* Makes one where nothing of the log is applied. NULL: there is no room for one more. */
struct view_place *view_place_add(struct view_vector *vector, struct id16 log);
bool view_vector_equal(const struct view_vector *a, const struct view_vector *b);
/* The highest HLC that was applied; 0: none. */
uint64_t view_vector_hlc(const struct view_vector *vector);

/* What the store says. VIEW_NOT_FOUND: nothing is applied yet. VIEW_FAILED: error; it is empty when the rows
 * are those of an earlier version, which had none of streams: they are to be made again. */
enum view_found view_vector_load(struct view_store *store, struct view_vector *out,
                                 char error[VIEW_ERROR_MAX]);

/* Gathers what these whole data frames of a log change, as a log reader gives them, and moves the vector on;
 * what is applied already is passed over. SH_OK. SH_VERSION_MISMATCH: an entry is of a kind that this version
 * does not know: the frames before are gathered. SH_CORRUPT: the bytes are no frames that continue what was
 * applied. SH_OVERLOADED: more than VIEW_LOGS_MAX logs. */
enum sh_error view_apply(struct view_store *store, struct view_vector *vector, struct id16 log,
                         struct slice frames);
/* Entries up to that LSN are lost, and that was accepted: the log goes on behind them. SH_OVERLOADED as
 * above. */
enum sh_error view_pass(struct view_vector *vector, struct id16 log, uint64_t lsn);
/* The bytes of its row. */
void view_vector_encode(const struct view_vector *vector, struct buf *out);
/* Whether that row's key is the vector's. */
bool view_is_vector(struct slice key);
/* Its row, without arrivals. False: malformed; nothing of it is trusted. */
bool view_vector_decode(struct slice row, struct view_vector *out);
/* The key of its row. */
struct slice view_vector_key(void);
/* The key and the bytes of the row behind it, which has the arrivals. */
struct slice view_arrivals_key(void);
void view_arrivals_encode(const struct view_vector *vector, struct buf *out);
/* Whether this view, since it was begun, was compared with another member's: perhaps that had entries of logs
 * that are nowhere any more. */
bool view_is_compared(struct view_store *store);
/* The key of the row that says so; behind those two. */
struct slice view_compared_key(void);
/* Gathers that; then view_store_write. */
void view_set_compared(struct view_store *store);
/* Gathers the vector itself; then view_store_write. */
void view_vector_store(struct view_store *store, const struct view_vector *vector);

/* The keys of rows. */
void view_key_row(enum view_kind kind, struct slice key, struct buf *out);

#endif
