/* Appending again what was cut off the node's own log (wal_forked.h), before appends are taken.
 *
 * Folder by folder, frame by frame: a frame whose producer and sequence the log has by now is passed over,
 * each other one gets a new LSN. Frames without a producer get one that is made of the log, the LSN of the
 * folder and the checksum of its first frame, with the sequence 1, 2, ... So nothing comes twice: what is
 * durable is in the log's table of producers. And since that remembers only so many, the folder's file
 * `progress` says after each batch how far it is:
 *
 *   shanghai regain 1
 *   frames 512                                 so many data frames are durable, or were passed over,
 *   made 12                                    and so many of them have the producer that was made
 *   checksum 0a1b2c3d                          see checked_text.h
 *
 * A batch is 256 frames at most: less than the table of producers holds. */
#ifndef WAL_REGAIN_H
#define WAL_REGAIN_H

#include "wal_core.h"
#include "wal_forked.h"

struct wal_regain;

struct wal_regain_options {
    const struct vfs *fs;
    const char *data; /* the directory; borrowed */
    struct id16 log;
    uint64_t segment_size;
    struct wal_core *core; /* which holds appends back */
};

/* NULL: there is nothing to append again, or the folder cannot be listed (logged). */
struct wal_regain *wal_regain_open(const struct wal_regain_options *options);
enum wal_regain_state {
    WAL_REGAIN_AGAIN, /* to be called again soon: a step ends after a batch */
    WAL_REGAIN_WAITS, /* when more of the log is durable, there is a next segment, or writes are taken again
                       */
    WAL_REGAIN_DONE,
};
/* Goes on, as far as that can be now. */
enum wal_regain_state wal_regain_step(struct wal_regain *regain, int64_t now_real_ns);
/* NULL does nothing. */
void wal_regain_close(struct wal_regain *regain);

#endif
