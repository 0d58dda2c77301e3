/* Reading a log as its copies are made from it: whole frames of every kind and segments' headers, byte for
 * byte as on disk, from a place on. docs/replication-protocol.md.
 *
 * A place is a log_chain: what the next frame must continue. At the end of a segment the next bytes are the
 * header of the one behind. */
#ifndef COMMON_LOG_READER_COPY_H
#define COMMON_LOG_READER_COPY_H

#include "log_reader.h"
#include "segment_scan.h"

/* Values are part of the wire format: fetch_reply.state. */
enum log_copy_state {
    LOG_COPY_FRAMES,
    LOG_COPY_END,     /* nothing durable follows */
    LOG_COPY_TRIMMED, /* the place is gone */
    LOG_COPY_FORKED,  /* no frame, or another one, ends there */
    LOG_COPY_BEHIND,  /* it lies beyond the durable end */
};

struct log_copy {
    struct log_chain from; /* in */
    bool anew;             /* in: a segment begins there; what comes before it is not compared */
    bool repair;           /* in: a frame or a segment begins there; what comes before it is not compared */
    uint64_t durable_end;  /* in: position that must not be passed */
    size_t max_bytes;      /* in: one frame is read at least, whatever its size; 0: none, only the state */
    uint64_t max_entries;  /* in: no frame is added once so many entries are there */
    enum log_copy_state state; /* out */
    uint64_t segment;          /* out with FRAMES: base LSN of their segment */
    struct log_chain at; /* out: with FRAMES behind the last of them; with TRIMMED where the first segment
                            left begins; with FORKED what is there: 0 as position when no frame ends there */
};

/* Appends bytes of one segment to out; each frame's checksum and the chain are verified. A reader that is
 * used for this should be used for nothing else, and goes on fastest where it stopped. SH_CORRUPT: damage at
 * the place (logged). SH_NOT_FOUND: there is no segment. SH_INTERNAL (logged). */
enum sh_error log_reader_copy(struct log_reader *reader, struct log_copy *copy, struct buf *out);

#endif
