/* Changes of keys, gathered from the frames of several logs that lie behind a version vector.
 *
 * The frame with the lowest (HLC, log uuid) comes first, of those that may be looked at now: each log's own
 * order is kept, and what was written after it had been seen elsewhere comes behind that. Frames that may be
 * looked at later may well be older. The work of one call is bounded, and so is its memory: CHUNK_BYTES of
 * each log and one frame. Nothing here is fatal. */
#ifndef QUERYSVC_WATCH_GATHER_H
#define QUERYSVC_WATCH_GATHER_H

#include "log_reader.h"

/* One log of a version vector. */
struct watch_place {
    struct id16 log;
    uint64_t lsn;     /* looked at up to here */
    uint64_t applied; /* may be looked at up to here */
};

struct watch_gather {
    /* In: */
    struct watch_place *places; /* lsn moves on */
    size_t count;
    struct slice prefix;
    uint32_t most;    /* changes; not 0 */
    size_t max_bytes; /* of changes; one may exceed it */
    size_t max_look;  /* bytes of frames; one may exceed it */
    /* As log_reader_read, of which `from`, max_bytes and max_entries are filled in; SH_NOT_FOUND: there is
     * nothing now. */
    enum sh_error (*read)(void *arg, struct id16 log, struct log_read *read, struct buf *out);
    void *arg;
    /* Out: */
    struct buf changes; /* msgpack, one after the other, as in watch_reply; the caller's to free */
    uint32_t gathered;
    bool more; /* it ended early; there may be more to look at */
    /* Entries that cannot be read, which the place was moved behind; first 0: none. Then nothing is
     * gathered. */
    struct watch_missing {
        struct id16 log;
        uint64_t first, last;
        enum sh_error error; /* SH_TRIMMED, SH_CORRUPT */
    } missing;
    struct id16 failed; /* with an error: the log */
};

/* Zeroed but for what is "in". A log that cannot be read, and not be passed over either, is left out; its
 * error is returned when nothing else was looked at: SH_CORRUPT (it is not known where the damage ends),
 * SH_INTERNAL. */
enum sh_error watch_gather(struct watch_gather *g);

#endif
