/* Whether the own log may be extended after the machine was started anew.
 *
 * A disk that loses what it said was synced, or that is set back to an older state, leaves a log behind its
 * copies; to extend it then would give positions a second value. So when the kernel's boot id is another one
 * than when the log was last extended, appends wait until the other members have been asked (`own_log`), or
 * nobody has answered in time. The file <data>/boot:
 *
 *   shanghai boot 1
 *   kernel 7c1c0e52-4a63-4b50-8d2c-1f0a3c8f7d11
 *   copy behind                                or forked; only while the own log is open as a copy
 *   checksum 0a1b2c3d                          see checked_text.h
 *
 * When others have more of the log, or another chain, the log is opened as a copy, to be fetched back; the
 * line `copy` says so to the next start, until `own_log` says that it is (docs/adr/0010). A log is opened as
 * a copy by its mark alone: the line is written only when the mark says all that is durable. */
#ifndef WAL_PROOF_H
#define WAL_PROOF_H

#include "clock.h"
#include "vfs.h"

enum { WAL_KERNEL_TEXT = 64 };
#define WAL_PROOF_NS (5 * NS_PER_S) /* how long appends wait at most */

struct wal_proof {
    const struct vfs *fs;
    const char *data; /* the directory; borrowed */
    char kernel[WAL_KERNEL_TEXT];
    bool waits;   /* for a word about the log */
    bool is_copy; /* it is to be opened as a copy, */
    bool forked;  /* for others have another chain */
};

/* is_new: there is nothing that others could have. A missing, damaged or foreign file means that nobody
 * knows. */
void wal_proof_open(struct wal_proof *proof, const struct vfs *fs, const char *data, bool is_new);
/* It may be extended, and that stands on disk, as far as there is room. 0, or -errno: the process must end.
 */
int wal_proof_settle(struct wal_proof *proof);
/* The next start opens the log as a copy; or as the own one, of which is known that it may be extended. 0 or
 * -errno: what the file says is as it was. */
int wal_proof_begin_copy(struct wal_proof *proof, bool forked);
int wal_proof_end_copy(struct wal_proof *proof);

#endif
