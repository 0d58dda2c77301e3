/* The body of a clock frame, by which a node tells in its own log, beside the frame's HLC, how far its view
 * is (docs/wal-format.md): a msgpack map {1: HLC, 2: array of log uuids (bin 16)}; unknown keys are skipped.
 */
#ifndef COMMON_CLOCK_FRAME_H
#define COMMON_CLOCK_FRAME_H

#include "buf.h"
#include "clock.h"
#include "mp.h"

enum { CLOCK_FRAME_LOGS_MAX = 256, CLOCK_FRAME_LOG_BYTES = 18 /* each one packed */ };

/* Appends the body. logs: the packed array. False: it isn't one; nothing was appended. */
bool clock_frame_encode(uint64_t applied, struct slice logs, struct buf *out);
/* *logs is the packed array, in the body, and in order: read it with mp_array and clock_frame_log. False: it
 * is none; an older version, which told nothing, wrote none. */
bool clock_frame_decode(struct slice body, uint64_t *applied, struct slice *logs);
/* The next uuid of the array. */
bool clock_frame_log(struct mp *m, struct id16 *log);

#endif
