/* The register of closed logs that were dropped here: <data>/closed. A log whose node has left or was
 * replaced is closed at the place up to which all members hold it; once its retention is over, its copy goes,
 * and what is left of it is its entry here: so it is not followed again from a member that still has it, and
 * this node can still say where it ended. 1,024 at most; beyond, the oldest goes. All integers little-endian.
 *
 *    0  8  magic "SHCLOS" and format version 1 (2 bytes)
 *    8  4  count of records, at most WAL_CLOSED_MAX
 *   12  4  zero
 *   16     records of 48 bytes, the oldest first:
 *            0 16  log uuid
 *           16  8  end: a position
 *           24  8  LSN of the last entry
 *           32  8  dropped, ns since 1970
 *           40  4  checksum of the last frame
 *           44  4  zero
 *    .  4  CRC-32C of all before
 *
 * Any thread; a change is on disk before it counts. */
#ifndef WAL_CLOSED_H
#define WAL_CLOSED_H

#include <pthread.h>

#include "buf.h"
#include "clock.h"
#include "exit_code.h"
#include "shanghai_error.h"
#include "vfs.h"

enum { WAL_CLOSED_MAX = 1024 };

struct wal_closed_log {
    struct id16 log;
    uint64_t end, lsn;
    uint32_t checksum;
    int64_t dropped_ns; /* real time */
};

struct wal_closed {
    const struct vfs *fs;
    const char *data; /* the directory; borrowed */
    pthread_mutex_t lock;
    uint64_t version; /* counts on with each change */
    struct wal_closed_log *all;
    size_t count;
};

/* Reads the file; a damaged one is named, and an empty one from now on. EXIT_CONFIG: it is of a later
 * version. EXIT_FAULT: a file call failed. Both are logged, and nothing is open then. */
enum service_exit wal_closed_open(struct wal_closed *closed, const struct vfs *fs, const char *data);
void wal_closed_close(struct wal_closed *closed);
uint64_t wal_closed_version(struct wal_closed *closed);
/* False: it isn't there. */
bool wal_closed_find(struct wal_closed *closed, struct id16 log, struct wal_closed_log *out);
/* 0, or -errno: nothing has changed then, as far as anybody can know. */
int wal_closed_add(struct wal_closed *closed, const struct wal_closed_log *log);
int wal_closed_remove(struct wal_closed *closed, struct id16 log);
/* The array of closed_logs_reply; *version: which one. */
void wal_closed_pack(struct wal_closed *closed, struct buf *out, uint64_t *version);

#endif
