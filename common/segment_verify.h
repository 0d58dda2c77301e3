/* Verifies one segment after the other of one log: the part of log_verify that reads frames. */
#ifndef COMMON_SEGMENT_VERIFY_H
#define COMMON_SEGMENT_VERIFY_H

#include "log_mark.h"
#include "log_verify.h"
#include "segment_scan.h"
#include "verify_losses.h"

struct verify {
    const struct vfs *fs;
    const struct log_verify_options *options;
    struct log_verify_report *report;
    uint64_t done_bytes, told_bytes, total_bytes;
    bool stopped;        /* by on_frame */
    enum sh_error error; /* a file call failed, or a version is unknown: the walk ends */
    /* the log */
    struct id16 log;
    bool is_copy; /* of another node's log: its frames don't say how far it is durable here */
    const char *dir;
    struct log_mark mark; /* counter 0: none */
    uint64_t durable_end; /* M, as far as it is known */
    struct log_chain chain;
    bool chain_known; /* what the next segment must continue */
    struct verify_losses losses;
    /* the segment */
    const char *file;
    struct segment_header segment;
    struct segment_scan scan;
    uint64_t file_bytes;
    uint64_t next_position; /* of the segment behind; 0: none, or not known */
    uint32_t next_checksum; /* that the next segment's header names; 0: not known */
    bool bad_header;        /* and it isn't told yet */
    bool is_newest;
    uint64_t end; /* in the file: where the frames must end; of the newest one the file's end */
};

/* next_base: of the segment behind, 0 for none. */
void verify_segment(struct verify *v, uint64_t base, uint64_t next_base);
void verify_damage(struct verify *v, const char *file, uint64_t offset, uint64_t bytes, uint64_t next_lsn,
                   const char *what);
/* The walk over a log has ended: tells its damage. */
void verify_tell(struct verify *v);
/* Ends the walk. failed_errno 0: no file call was it. */
void verify_fail(struct verify *v, enum sh_error error, const char *path, int failed_errno);
void verify_progress(struct verify *v, uint64_t bytes);

#endif
