/* The register of holds: who still needs entries of the log, from which LSN on. Pure, but for reading and
 * writing its file, <log folder>/holds. docs/adr/0007 says why it is as it is; all integers little-endian.
 *
 *    0  8  magic "SHHOLD" and format version 1 (2 bytes)
 *    8 16  log uuid
 *   24  4  count of records, at most WAL_HOLDS_MAX
 *   28  4  zero
 *   32     records of 88 bytes:
 *            0  1  kind (enum wal_hold_kind)
 *            1  1  1: broken, it keeps nothing any more
 *            2  1  bytes of the name
 *            3  5  zero
 *            8  8  first LSN needed
 *           16  8  expiry, ns since 1970; 0 for none
 *           24 64  name, zeros behind
 *    .  4  CRC-32C of all before */
#ifndef WAL_HOLDS_H
#define WAL_HOLDS_H

#include "clock.h"
#include "messages.h"
#include "vfs.h"

enum { WAL_HOLDS_MAX = 1024, WAL_HOLD_NAME_MAX = 64, WAL_HOLD_TEXT = 96 };

enum wal_hold_kind {
    WAL_HOLD_MEMBER = 1,
    WAL_HOLD_VIEW = 2,
    WAL_HOLD_READER = 3,
    WAL_HOLD_BACKUP = 4,
    WAL_HOLD_CURSOR = 5
};

struct wal_hold {
    enum wal_hold_kind kind;
    bool broken; /* it kept more than it may (member_hold_max) */
    char name[WAL_HOLD_NAME_MAX + 1];
    uint64_t lsn;       /* first LSN needed */
    int64_t expires_ns; /* real time; 0: never */
    int64_t ttl_ns;
    uint64_t kept_bytes; /* of segments beyond their retention, as last counted */
    /* what the file says of it; 0: nothing yet */
    uint64_t file_lsn;
    int64_t file_expires_ns;
};

struct wal_holds {
    struct wal_hold *all; /* in no order */
    size_t count, cap;
    bool dirty; /* the file says something else, which would do after a restart, too */
};

void wal_holds_free(struct wal_holds *holds);
/* NULL when there is none. */
struct wal_hold *wal_holds_find(const struct wal_holds *holds, enum wal_hold_kind kind, struct slice name);
/* Adds one or changes the one of that kind and name. The register must not be full when it is new. */
struct wal_hold *wal_holds_put(struct wal_holds *holds, const struct wal_hold *hold);
void wal_holds_remove(struct wal_holds *holds, struct wal_hold *hold);
/* Removes those that have expired; returns how many. */
size_t wal_holds_expire(struct wal_holds *holds, int64_t now_real_ns);
/* When the next one expires (real time); INT64_MAX: none does. */
int64_t wal_holds_due_ns(const struct wal_holds *holds);

/* A member's or the view's: it lasts until it is removed, or broken. */
bool wal_hold_is_lasting(enum wal_hold_kind kind);
/* Whether entries below `next_lsn`, as far as they are not below its LSN, are kept by it. */
bool wal_hold_keeps(const struct wal_hold *hold, uint64_t next_lsn);
/* "member n2" */
void wal_hold_text(const struct wal_hold *hold, char text[WAL_HOLD_TEXT]);

/* Whether a restart could trim what this hold keeps now, since the file doesn't know of it: it has to be
 * written before the holder is answered. */
bool wal_hold_needs_file(const struct wal_hold *hold);
/* Writes the file, synced. 0 or -errno. Expiries are written a ttl later than they are, so that a hold that
 * is renewed all the time needs one write each ttl. */
int wal_holds_write(struct wal_holds *holds, const struct vfs *fs, const char *dir, struct id16 log);
/* SH_NOT_FOUND: no file. SH_CORRUPT: damaged, or another log's. SH_VERSION_MISMATCH. SH_INTERNAL: a file call
 * failed, logged. */
enum sh_error wal_holds_read(struct wal_holds *holds, const struct vfs *fs, const char *dir, struct id16 log);

/* The file's bytes, for the two above and for tests. */
void wal_holds_encode(const struct wal_holds *holds, struct id16 log, struct buf *out);
enum sh_error wal_holds_decode(struct wal_holds *holds, struct id16 log, struct slice bytes);

#endif
