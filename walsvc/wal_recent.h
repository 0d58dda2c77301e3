/* What the own log's last entries were about: tells whether a stream or a key was written behind an LSN, so
 * that an append can be made to depend on it. Pure.
 *
 * A table of 65,536 LSNs, a hash of the name as index: of each name the last entry, or a later one of another
 * name that shares its place. So it may tell of an entry that there isn't, never miss one that there is; who
 * asks looks at the view up to the LSN that it tells, which knows. After a start every place tells of the
 * last entry then: nothing is known of those before. */
#ifndef WAL_RECENT_H
#define WAL_RECENT_H

#include "buf.h"
#include "shanghai_error.h"

/* What a condition can be about; the numbers of `conditions` in messages. */
enum wal_recent_kind {
    WAL_RECENT_STREAM = 0, /* events of a stream */
    WAL_RECENT_KEY = 1,    /* puts and deletes of a key; additions are no part of its value */
    WAL_RECENT_CURSOR = 2, /* sets and deletes of a cursor */
};

struct wal_recent;

/* last_lsn: of the last entry that the log has. */
struct wal_recent *wal_recent_open(uint64_t last_lsn);
void wal_recent_free(struct wal_recent *recent);
/* The entry with that LSN is about this name; LSNs never go back. */
void wal_recent_note(struct wal_recent *recent, enum wal_recent_kind kind, struct slice name, uint64_t lsn);
/* All entries of a frame's body, which was checked; the first one has that LSN. */
void wal_recent_note_all(struct wal_recent *recent, struct slice body, uint64_t lsn);
/* No entry about this name lies behind the LSN that it returns. */
uint64_t wal_recent_last(const struct wal_recent *recent, enum wal_recent_kind kind, struct slice name);

/* Conditions of an append, as they stand in `append`: array of [kind, name, LSN]; none when it is empty.
 * SH_OK. SH_CONFLICT: one of the names was written behind its LSN, or may have been: *look_again is the
 * highest LSN of such entries. SH_BAD_REQUEST: malformed. SH_TOO_LARGE: a name, the count. */
enum { WAL_CONDITIONS_MAX = 256 };
enum sh_error wal_recent_check(const struct wal_recent *recent, struct slice conditions,
                               uint64_t *look_again);

#endif
