/* The register of chains that were given up: the file <log folder>/given-up of the node's own log.
 *
 *   shanghai given-up 1
 *   log 4be0643f-1d98-573b-97cd-ca98a65347dd
 *   frame 123456 0a1b2c3d                      position and checksum of the first frame that went: one line
 *   checksum 5e6f7a8b                          for each, the oldest first, 16 at most; see checked_text.h
 *
 * What stands here is not taken again, and copies that have it take the node's frames instead
 * (docs/adr/0010). */
#ifndef WAL_GIVEN_UP_H
#define WAL_GIVEN_UP_H

#include "clock.h"
#include "given_up.h"
#include "shanghai_error.h"
#include "vfs.h"

struct wal_given_up_frame {
    uint64_t position;
    uint32_t checksum;
};

struct wal_given_up {
    struct wal_given_up_frame all[GIVEN_UP_MAX]; /* the oldest first */
    size_t count;
};

/* dir: the log's folder. A missing register is empty, and so is a damaged one, which is logged. SH_CONFLICT:
 * it is another log's; SH_VERSION_MISMATCH; SH_INTERNAL: a call failed. All are logged. */
enum sh_error wal_given_up_read(struct wal_given_up *g, const struct vfs *fs, const char *dir,
                                struct id16 log);
/* Enters a frame and writes the register; the oldest one goes when it is full. What is known already changes
 * nothing. 0 or -errno: then nothing has changed. */
int wal_given_up_add(struct wal_given_up *g, const struct vfs *fs, const char *dir, struct id16 log,
                     const struct wal_given_up_frame *frame);
bool wal_given_up_has(const struct wal_given_up *g, uint32_t checksum);
/* given_up of logs_reply. */
void wal_given_up_pack(const struct wal_given_up *g, struct buf *out);

#endif
