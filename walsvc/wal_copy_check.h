/* Whether bytes may be appended to the copy of another node's log: the judging part of copy_append. Reads the
 * copy's files where bytes come that are there already; writes nothing.
 *
 * Bytes of a log prove themselves: by the salt in their checksums, which is made of the log's uuid and the
 * segment's base LSN, and by the chain. Entries are not looked at: whoever made the checksums has done so. */
#ifndef WAL_COPY_CHECK_H
#define WAL_COPY_CHECK_H

#include "messages.h"
#include "wal_log.h"
#include "wal_repair_check.h"

enum wal_copy_verdict {
    WAL_COPY_REFUSED,
    WAL_COPY_THERE,   /* nothing is new */
    WAL_COPY_APPENDS, /* behind the last frame */
    WAL_COPY_ROLLS,   /* the next segment, or the first one */
    WAL_COPY_ANEW,    /* a segment behind a gap: what is there is given up */
};

struct wal_copy_piece {
    struct slice bytes;            /* to be written; of a new segment with its header */
    struct log_chain behind;       /* them */
    struct segment_header segment; /* of a new one */
};

/* log: its chain says what the copy holds, written or about to be. On WAL_COPY_REFUSED: SH_BAD_REQUEST: not
 * whole valid frames of this log. SH_CONFLICT: they are, but don't continue what is there; refusal->expected
 * is the position that is wanted next. SH_VERSION_MISMATCH. SH_INTERNAL: a file call failed (logged). */
enum wal_copy_verdict wal_copy_check(const struct wal_log *log, const struct msg_copy_append *message,
                                     struct wal_copy_piece *piece, struct wal_refusal *refusal);

#endif
