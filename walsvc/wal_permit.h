/* Whether the node may take writes, as membersvc said last: the file <data>/permit, and what of it holds.
 *
 *   shanghai permit 1
 *   log 4be0643f-1d98-573b-97cd-ca98a65347dd
 *   writes refused                             or allowed
 *   reason n1 has left the cluster             the text of the refusals; empty with allowed
 *   checksum 0a1b2c3d                          see checked_text.h
 *
 * No file: nobody has ever said anything, and writes are taken. A damaged one, or one of another log: they
 * are refused until membersvc says otherwise. */
#ifndef WAL_PERMIT_H
#define WAL_PERMIT_H

#include "exit_code.h"
#include "wal_core.h"

struct wal_permit {
    const struct vfs *fs;
    const char *data; /* the directory; borrowed */
    struct id16 log;
    bool refused;
    bool known; /* the file says just this, or there is none and nothing is refused */
    char reason[WAL_REASON_MAX];
};

/* Reads the file. EXIT_CONFIG: it is of another version. EXIT_FAULT: a file call failed. Both are logged. */
enum service_exit wal_permit_open(struct wal_permit *permit, const struct vfs *fs, const char *data,
                                  struct id16 log);
/* Tells the core, at the start. */
void wal_permit_start(const struct wal_permit *permit, struct wal_core *core);
/* Takes what membersvc says: the core takes writes only after the file allows it durably, and none from the
 * first moment when it says no. 0: the file says so durably, and the core answers `token`
 * (wal_core_when_settled). -ENOSPC, -EDQUOT: it could not be written, and nothing is allowed that wasn't.
 * Anything else: the process must end. */
int wal_permit_take(struct wal_permit *permit, struct wal_core *core, struct link_token token,
                    const struct msg_write_permit *message);

#endif
