/* Repair: puts frames of a damaged range back, as a replica has brought them.
 *
 * What may be written is decided by looking at the disk, not by what anybody remembers: bytes go only where
 * no valid frame stands, only when they continue what stands before them, and the last of them must meet what
 * stands behind. (Where the register says that a copy differs from what the log's origin has, valid frames go
 * too, in place of which others begin and end.) What is there already, and the same, does no harm, so that a
 * repair that was cut short is just asked for again. The old bytes are copied to the quarantine first; the
 * new ones are synced before the answer; the segment's index is removed before. A crash leaves the damage, or
 * frames of the repair: both are told apart by every reader.
 *
 * Runs beside the committer, which never writes below the durable end; it has descriptors of its own. One
 * call at a time, on a thread that nobody waits for: a call reads up to two segments (the one before, to its
 * end, and this one), and writes one message's bytes. A range that comes in parts is not walked again for
 * each. */
#ifndef WAL_REPAIR_H
#define WAL_REPAIR_H

#include "messages.h"
#include "wal_damage.h"
#include "wal_repair_check.h"

struct wal_repair {
    const struct vfs *fs;
    const char *dir;        /* of the log */
    const char *quarantine; /* made when needed */
    struct id16 log;
    struct wal_damage *damage; /* where a repaired range goes out of */
    int failed;                /* -errno of a write or sync: the process must end (see wal_fatal) */
    /* Where the last part ended; offset 0: nowhere. */
    uint64_t segment, offset;
    struct log_chain chain;
};

/* durable_end: position that is not passed. SH_OK: the bytes are durable, the reply is filled in.
 * SH_BAD_REQUEST: not whole valid frames. SH_CONFLICT: nothing is damaged there, or they don't fit;
 * refusal->expected: the offset in the file at which the damage begins, when it does elsewhere; 0 else.
 * SH_TRIMMED, SH_NOT_FOUND: no such segment. SH_VERSION_MISMATCH. SH_DISK_FULL: no room for the old bytes or
 * the new; nothing is overwritten. SH_INTERNAL: a file call failed, logged; `failed` when it was a write. */
enum sh_error wal_repair(struct wal_repair *repair, const struct msg_repair *request, uint64_t durable_end,
                         struct msg_repair_reply *reply, struct wal_refusal *refusal);

#endif
