/* Cutting a copy where it leaves the chain that its log has: what goes is kept aside first.
 *
 *   1. kept: <data>/forked/<log uuid>-<LSN of the first entry that goes, 20 digits>/<base LSN>.seg, one for
 * each segment of which frames go: its header, then these frames. The folder gets its name when all is
 * synced; a further one of the same name ends with "-2", "-3", ...
 *   2. named: of the node's own log, in the register given-up
 *   3. the durable mark is set back, so that it never says more than there is
 *   4. the later segments go, the newest first
 *   5. what is left behind the place is overwritten with zeros; frames that come are synced with it
 *
 * Before 3 nothing has changed. A crash afterwards leaves a copy that ends somewhere behind the place, on the
 * old chain: the next message does all of it again. */
#ifndef WAL_CUT_H
#define WAL_CUT_H

#include "wal_copy_fork.h"
#include "wal_damage.h"
#include "wal_given_up.h"

struct wal_cut {
    const char *data;              /* the data directory */
    struct wal_log *log;           /* of a copy; all that it has written is durable */
    struct wal_damage *damage;     /* its register */
    struct wal_given_up *given_up; /* of the own log; NULL: it is another node's */
    uint64_t reserve_bytes;        /* of the disk, which are to be left free */
};

/* 0: the log ends at fork->at; named in the log. -ENOSPC, -EDQUOT: no room to keep aside what goes; nothing
 * has changed. Anything else: the process must end. */
int wal_cut(const struct wal_cut *cut, const struct wal_fork *fork);

#endif
