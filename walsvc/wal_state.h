/* What the log says so far: everything that walsvc must know about its past. Pure; rebuilt from the newest
 * segment's checkpoint frame and the headers of the frames behind it. */
#ifndef WAL_STATE_H
#define WAL_STATE_H

#include "frame.h"
#include "wal_producers.h"

struct wal_state {
    struct wal_producers *producers;
    uint64_t next_lsn; /* of the next entry */
    uint64_t hlc;      /* of the last frame */
    uint64_t frames;   /* data frames so far */
};

/* An empty log. */
void wal_state_init(struct wal_state *state);
void wal_state_free(struct wal_state *state);
/* Takes in a data frame or, by its body too, a checkpoint. Frames come in order. False: a malformed
 * checkpoint. */
bool wal_state_apply(struct wal_state *state, const struct frame_header *h, struct slice body);
/* The body of a checkpoint frame, a map: 1 producers (see wal_producers.h), 2 HLC, 3 entries so far, 4 data
 * frames so far. When it would be larger than `most` bytes, older answers are forgotten first, here too. */
void wal_state_checkpoint(struct wal_state *state, size_t most, struct buf *out);

#endif
