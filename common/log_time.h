/* Finds the first entry of a log that is not older than a time. The HLC never goes back within a log, so the
 * folder is searched by halves: segments by their first frame, then places of the segment's index, then
 * frames.
 *
 * Nothing is taken on trust: where it starts, a frame whose checksum is right must be older than the time. */
#ifndef COMMON_LOG_TIME_H
#define COMMON_LOG_TIME_H

#include "log_reader.h"

struct log_time {
    const struct vfs *fs;
    const char *dir; /* the log's folder */
    struct id16 log;
    uint64_t hlc;         /* in: the time, as the HLC has it (see hlc_of_ms) */
    uint64_t durable_end; /* in: position that must not be passed */
    uint64_t most_bytes;  /* in: of frames read in one call, about */
    uint64_t from;        /* in: only entries from this LSN on, 0 or 1 for all; out: see below */
    bool found;           /* out */
    bool more;            /* out: most_bytes are read; call again */
    uint64_t first_lsn;   /* out with SH_TRIMMED */
};

/* SH_OK, found: `from` is the LSN of the first entry that is not older; or the first LSN of a damaged range
 * in which it may be, so that who reads from there is told so. SH_OK, not found: all entries below `from` are
 * older, and when `more` isn't set there is none from there on up to the durable end. from 0 and 1 start with
 * the first entry that is left; any other that is trimmed gets SH_TRIMMED. SH_NOT_FOUND: from is beyond the
 * end + 1, or there is no segment. SH_INTERNAL (logged). The reader is moved. */
enum sh_error log_time_find(struct log_time *search, struct log_reader *reader);

#endif
