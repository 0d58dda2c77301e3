/* Rows of another node's view become changes that are merged into the own ones, by the same rules as entries
 * (view_row.h). Pure. What comes is another node's word: each piece is looked at as a whole before anything
 * of it is taken.
 *
 * Each entry counts once: a row of a peer says of each log how far it goes, and what goes further counts. So
 * rows may be merged with what is there however far that is, as long as the version vector becomes the
 * maximum of both in the same step (docs/adr/0012). */
#ifndef QUERYSVC_VIEW_MERGE_IN_H
#define QUERYSVC_VIEW_MERGE_IN_H

#include "digest.h"
#include "shanghai_error.h"
#include "view_apply.h"

enum {
    MERGE_IN_PIECE_BYTES = 256 << 10, /* a piece ends behind the row that reaches it */
    MERGE_IN_KEY_MAX = 4352           /* of a row's key, its kind included */
};

struct merge_in {
    struct view_vector theirs; /* what the rows hold */
    uint64_t arrivals;    /* events that were numbered here before theirs, whose numbers were then added */
    struct buf last;      /* key of the last row that was taken */
    uint64_t rows, bytes; /* that have come */
    struct buf change;    /* scratch */
};
void merge_in_free(struct merge_in *in);

/* Makes *own the maximum of both. SH_CONFLICT: the same entry has another checksum in the two: one of the
 * views is of a log that is no more. SH_OVERLOADED: more logs than there is room for. Then *own is as it was.
 */
enum sh_error merge_in_vector(struct view_vector *own, const struct view_vector *theirs);

/* How far `theirs` reaches of a log whose entries are left from `first` on, and `applied` up to: whether a
 * view that is merged with it goes on. */
bool merge_in_helps(const struct view_vector *theirs, struct id16 log, uint64_t applied, uint64_t first);

/* What a piece is merged with, and where its changes go. */
struct merge_in_ends {
    const struct view_vector *own; /* what is applied here */
    /* The own rows behind the last one that was taken, in order. False: there are no more. */
    bool (*next_own)(void *arg, struct slice *key, struct slice *row);
    /* A change to a row; keys ascend. False: it cannot be taken, and that ends it. */
    bool (*take)(void *arg, struct slice key, struct slice change);
    void *arg;
};
/* Takes what a piece has that isn't here, and what it shows to be gone: a value that the peer must have had,
 * and has no more, was deleted, and the tombstone has gone too. more: other pieces follow. SH_OK.
 * SH_BAD_REQUEST: keys that don't ascend, rows that go further than the vector tells, bytes that are no rows;
 * SH_VERSION_MISMATCH: a kind of rows that this version does not know: nothing of the piece was taken.
 * SH_INTERNAL: take refused. */
enum sh_error merge_in_piece(struct merge_in *in, const struct merge_in_ends *ends, struct slice rows,
                             bool more);

/* Of a piece: what its sender says of it. */
struct digest128 merge_in_digest(uint64_t id, struct slice behind, struct slice rows);

#endif
