/* Cursors in the view: rows, how two become one, who may move a cursor where to, and what each node holds
 * back from trims for them. Pure. docs/view-format.md has the rules. */
#ifndef QUERYSVC_VIEW_CURSOR_H
#define QUERYSVC_VIEW_CURSOR_H

#include "frame.h"
#include "version_vector.h"
#include "view_row.h"

/* ---- rows: the cursor with the highest (epoch, owner, version) stays ---- */

struct view_cursor {
    uint64_t epoch;
    struct id16 owner;
    struct view_version version; /* where it was written last */
    uint64_t expires_ms;         /* ms since 1970 */
    uint64_t ttl_ms;
    bool deleted;
    struct slice position; /* borrowed: a version vector */
};
void view_cursor_encode(const struct view_cursor *cursor, struct buf *out);
/* False: not a cursor of this format. */
bool view_cursor_decode(struct slice bytes, struct view_cursor *out);
/* Below, at or above zero. */
int view_cursor_compare(const struct view_cursor *a, const struct view_cursor *b);
/* Somebody has it: neither deleted nor expired. */
bool view_cursor_lives(const struct view_cursor *cursor, uint64_t now_ms);
/* As view_merge; existing may be NULL. */
bool view_cursor_merge(const struct slice *existing, const struct slice *changes, size_t count,
                       struct buf *out);

/* ---- sets ---- */

enum cursor_action {
    CURSOR_COMMIT,    /* by its owner: the position moves ahead */
    CURSOR_TAKE_FREE, /* a new epoch, if nobody has it */
    CURSOR_TAKE,      /* a new epoch, whoever has it */
    CURSOR_DELETE
};

struct cursor_ask {
    enum cursor_action action;
    uint64_t epoch;                        /* of a commit; of a delete 0, or the one that is to be deleted */
    struct id16 owner;                     /* not zero */
    const struct version_vector *position; /* NULL: as it is, of a new cursor the beginning */
    uint64_t ttl_ms;                       /* 0: as it is, of a new cursor ttl_default_ms */
    uint64_t ttl_default_ms;
};

struct cursor_decision {
    enum sh_error error; /* SH_OK: append the entry */
    char text[256];      /* why not */
    uint64_t epoch;      /* of the entry; with SH_CONFLICT the one that is in force */
    uint64_t ttl_ms;
    struct version_vector position;
};
/* What becomes of a set, by what the node knows of the cursor (NULL: nothing).
 * SH_CONFLICT: another epoch or owner, or a position that goes back. SH_NOT_FOUND: there is none to commit or
 * delete. SH_UNAVAILABLE: the epoch is not known here yet. */
void cursor_decide(const struct cursor_ask *ask, const struct view_cursor *known, uint64_t now_ms,
                   struct cursor_decision *out);

/* ---- holds: what a cursor has not read yet is kept, in each log ---- */

enum { CURSOR_HOLDS_MAX = 256 /* cursors that hold, of a node */ };
#define CURSOR_HOLD_MS_MAX UINT64_C(604800000) /* as `hold` allows; held again before it is over */

/* A cursor that lives. */
struct cursor_want {
    char name[CURSOR_NAME_MAX + 1];
    uint64_t expires_ms;
    struct vector_place *places; /* owned */
    size_t place_count;
};
/* In the order of their names. */
struct cursor_wants {
    struct cursor_want all[CURSOR_HOLDS_MAX];
    size_t count;
};
void cursor_wants_clear(struct cursor_wants *wants);
/* Names ascend. False: there are too many. */
bool cursor_wants_add(struct cursor_wants *wants, struct slice name, const struct view_cursor *cursor);

/* What walsvc keeps of one log for a cursor, as far as is known. */
struct cursor_hold {
    char name[CURSOR_NAME_MAX + 1];
    uint64_t lsn; /* that was asked for; walsvc may have had only later ones */
    uint64_t until_ms;
    bool gone; /* its cursor was deleted, or has expired */
};
struct cursor_log {
    struct id16 log;
    bool listed;             /* walsvc has told which there are */
    struct cursor_hold *all; /* in the order of their names */
    size_t count;
};
void cursor_log_free(struct cursor_log *log);
/* It is held so far, from now on. */
void cursor_log_set(struct cursor_log *log, const char *name, uint64_t lsn, uint64_t until_ms);
void cursor_log_remove(struct cursor_log *log, const char *name);
/* Whatever is held for it may go. Holds of cursors that nothing is known of stay, until they expire: the view
 * may be about to learn of them. */
void cursor_log_gone(struct cursor_log *log, struct slice name);

struct cursor_step {
    enum { HOLDS_DONE, HOLDS_SET, HOLDS_REMOVE } kind;
    char name[CURSOR_NAME_MAX + 1];
    uint64_t lsn, ttl_ms;
};
/* The next message that brings the log's holds nearer to what is wanted. caught_up: the view knows all that
 * was in the logs when querysvc started; before, holds are only added, since what it knows may be old. */
void cursor_holds_step(const struct cursor_log *log, const struct cursor_wants *wants, bool caught_up,
                       uint64_t now_ms, struct cursor_step *out);

#endif
