/* Where the frames of a copy_append with `over` leave the chain that the copy has. Reads the copy's files;
 * writes nothing.
 *
 * The frames begin at a place that both chains lead to, or the files must tell that they do. Then frame by
 * frame is compared with what stands there. A frame of the copy that is damaged says nothing by itself: what
 * stands behind it does, by the checksum that it continues. */
#ifndef WAL_COPY_FORK_H
#define WAL_COPY_FORK_H

#include "messages.h"
#include "wal_log.h"
#include "wal_repair_check.h"

struct wal_fork {
    struct log_chain at; /* what stands before this place stays; what comes next is replaced */
    uint64_t base_lsn;   /* of the segment that the copy ends in then */
    uint32_t goes;       /* checksum of the first frame that goes; 0: it cannot be read */
    uint32_t comes;      /* of the first one that comes instead */
};

enum wal_fork_verdict {
    WAL_FORK_REFUSED,
    WAL_FORK_NONE, /* there is no other frame as far as the message goes, or the copy */
    WAL_FORK_FOUND,
};

/* The message begins before the copy's end, and all that log->chain says is in the files. Refused:
 * SH_BAD_REQUEST: not whole valid frames of this log. SH_CONFLICT: it begins where the chains are not the
 * same, or nothing tells whether they are; or the fork lies at the begin of the first segment that is left;
 * refusal->expected is the copy's end. SH_INTERNAL: a file call failed (logged). */
enum wal_fork_verdict wal_copy_fork(const struct wal_log *log, const struct msg_copy_append *message,
                                    struct wal_fork *fork, struct wal_refusal *refusal);

#endif
