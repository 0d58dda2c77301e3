/* What a log's folder holds, as far as decisions about whole segments need it, and their removal.
 *
 * Sealed segments are looked at once; the folder is listed anew each time. Removal is safe against a crash at
 * each step: the oldest goes first, and the folder is synced before the next one goes, so that there is never
 * a hole. Nothing is removed that its own header and the next one's do not confirm. One thread at a time. */
#ifndef WAL_TRIM_H
#define WAL_TRIM_H

#include <stdatomic.h>

#include "log_reader.h"
#include "wal_retention.h"

struct wal_catalog {
    const struct vfs *fs;
    const char *dir; /* the log's; borrowed */
    struct id16 log;
    const atomic_bool *stop; /* set by another thread: a removal ends after the segment it is at; or NULL */
    struct wal_segment *all; /* the oldest first */
    size_t count;
    uint64_t mark_end; /* the durable end that the mark file tells; 0: it cannot be read */
};

void wal_catalog_free(struct wal_catalog *catalog);
/* Looks again. SH_INTERNAL: a file call failed (logged); the catalogue is as it was. */
enum sh_error wal_catalog_refresh(struct wal_catalog *catalog);
/* The first LSN left; 1 in an empty folder. */
uint64_t wal_catalog_first_lsn(const struct wal_catalog *catalog);

struct wal_trimmed {
    uint64_t segments, bytes;
    uint64_t first_lsn, position; /* of what is left */
};
/* Removes the `count` oldest segments; *out says how far it came. 0. -EUCLEAN: a header
 * does not agree with the catalogue, nothing more is removed. -errno of the unlink. *must_end: a sync of the
 * folder failed, the process must end. */
int wal_catalog_remove(struct wal_catalog *catalog, size_t count, struct wal_trimmed *out, bool *must_end);
/* Removes the indexes of segments that are gone, after a trim; a crash can leave some behind until the next
 * one. 0 or -errno. */
int wal_catalog_sweep(const struct wal_catalog *catalog);

#endif
