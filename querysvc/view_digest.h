/* A digest of the view's rows: nodes that have applied the same entries have the same one, whatever is
 * written down in another order there, or tidied away already. docs/view-format.md says what goes into it. */
#ifndef QUERYSVC_VIEW_DIGEST_H
#define QUERYSVC_VIEW_DIGEST_H

#include "digest.h"
#include "view_apply.h"

enum { VIEW_DIGEST_KINDS = 16 };

/* Of the rows of one kind. */
struct view_kind_digest {
    uint8_t kind; /* enum view_kind */
    uint64_t rows;
    struct digest128 digest;
};

struct view_digest {
    struct digest128 digest;                          /* over those of all kinds */
    struct view_kind_digest kinds[VIEW_DIGEST_KINDS]; /* that have rows, by `kind` */
    size_t kind_count;
    struct view_vector vector; /* what these rows have applied, by log */
};

/* Of all rows as they are at one instant; a value that has expired at at_ms (ms since 1970) is none. Takes as
 * long as it takes to read all rows: must_end is asked every few thousand rows. SH_OK. SH_UNAVAILABLE: it was
 * to end. SH_INTERNAL: error says why. */
enum sh_error view_digest_make(struct view_store *store, uint64_t at_ms, bool (*must_end)(void *arg),
                               void *arg, struct view_digest *out, char error[VIEW_ERROR_MAX]);

#endif
