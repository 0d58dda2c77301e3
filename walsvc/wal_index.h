/* Makes the indexes of sealed segments (common/segment_index.h), on the preparer's thread and in small steps:
 * those just sealed first, then those that are missing or damaged, the newest first.
 *
 * An index is an aid: whatever fails here is logged and costs that index until a later start, nothing else.
 * No segment is ever changed. */
#ifndef WAL_INDEX_H
#define WAL_INDEX_H

#include "clock.h"
#include "vfs.h"

struct wal_index;

/* dir: the log's folder; copied. */
struct wal_index *wal_index_open(const struct vfs *fs, const char *dir, struct id16 log);
/* fn is told, on the thread that makes indexes, of each segment in which damage was met. */
void wal_index_on_damage(struct wal_index *index, void (*fn)(void *arg, uint64_t base_lsn), void *arg);
/* What is being made is given up. */
void wal_index_close(struct wal_index *index);
/* A segment has been sealed; the one behind it is there. */
void wal_index_sealed(struct wal_index *index, uint64_t base_lsn, uint64_t next_base_lsn);
/* Nothing is made any more, until it is asked for again: segments are about to change. */
void wal_index_forget(struct wal_index *index);
/* Looks through the folder: removes indexes without a segment and temporary files, then makes what is
 * missing, step by step. */
void wal_index_look(struct wal_index *index);

enum wal_index_work {
    WAL_INDEX_NONE,
    WAL_INDEX_SEALED, /* of a segment just sealed: its bytes are in the page cache */
    WAL_INDEX_OLD,    /* reads from the disk: the caller pauses between two steps */
};
enum wal_index_work wal_index_work(const struct wal_index *index);
/* Does some of it: reads a MiB at most, or one index file. */
void wal_index_step(struct wal_index *index);

#endif
