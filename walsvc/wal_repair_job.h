/* One repair that is being worked on: what wal_repair.c, which looks, and wal_repair_write.c share. */
#ifndef WAL_REPAIR_JOB_H
#define WAL_REPAIR_JOB_H

#include "wal_repair.h"

/* One request being looked at. */
struct repair_job {
    struct wal_repair *repair;
    const struct msg_repair *request;
    uint64_t durable_end;
    struct wal_refusal *refusal;
    uint64_t previous, next; /* base LSNs of the segments around; 0: none */
    int fd;                  /* of the segment; -1: its file is missing */
    uint64_t file_bytes;
    struct segment_header header; /* as on disk, or as sent */
    bool header_is_good;          /* on disk */
    struct segment_scan scan;     /* of the segment; its offset is where the damage begins */
    struct repair_range range;
    struct slice frames; /* of the request, without what stands there already */
    bool end_is_met;     /* a valid frame follows them already */
    /* In the file: up to there the register says that the frames are not what the origin has, so that they
     * may be replaced by others that begin and end where they do; 0: what is valid stays. */
    uint64_t replace_end;
};

/* Keeps the old bytes aside, removes the index, writes the new bytes, syncs them. SH_OK, SH_DISK_FULL,
 * SH_INTERNAL. */
enum sh_error repair_write(struct repair_job *job);
/* A file call failed (result: -errno): logs it and refuses with SH_DISK_FULL or SH_INTERNAL. */
enum sh_error repair_failed(struct repair_job *job, const char *what, int result);

#endif
