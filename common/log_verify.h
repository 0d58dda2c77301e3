/* Checks and dumps the logs of a data directory, with no lock and no daemon: `shanghaictl log verify|dump
 * --data DIR`.
 *
 * Every log under <data>/log, every segment, every frame: checksum, chain (over segment ends too), LSNs
 * without gaps, the durable mark (of the copy of another node's log, that of the copy). Works beside a
 * running walsvc: what lies at or above the durable mark is no damage, only not yet synced. Damage is
 * reported by file, offset and LSN, and the walk goes on behind it where a valid frame is found. */
#ifndef COMMON_LOG_VERIFY_H
#define COMMON_LOG_VERIFY_H

#include "frame.h"
#include "vfs.h"

/* A damaged or missing range. Everything is borrowed for the call. */
struct log_damage {
    struct id16 log;
    const char *file;    /* path of the segment or mark file */
    uint64_t offset;     /* in the file: of the first bad frame, or where one is missing */
    uint64_t bytes;      /* up to the next valid frame, or to the end that the file should have */
    uint64_t first_lsn;  /* the first LSN that cannot be read */
    uint64_t next_lsn;   /* the first LSN that can be read again behind it; 0: none in this segment */
    const char *what;    /* a sentence for people, without a full stop */
    int64_t accepted_ms; /* since 1970: the loss was accepted (a loss frame says so); 0: it wasn't */
};

/* One valid frame. Everything is borrowed for the call. */
struct log_frame {
    struct id16 log;
    const char *file; /* path of the segment */
    uint64_t offset;  /* in the file */
    const struct segment_header *segment;
    const struct frame_header *header;
    struct slice body;
    bool durable; /* below the durable mark */
};

/* One log, when it has been walked. */
struct log_verified {
    struct id16 log;
    bool is_copy; /* of another node's log */
    uint64_t segments, entries, damages;
    uint64_t last_lsn; /* of the newest valid entry; 0: none */
};

struct log_verify_report {
    uint64_t logs, segments, frames, entries;
    uint64_t bytes;   /* of valid frames and segment headers */
    uint64_t damages; /* calls of on_damage, but for accepted losses: */
    uint64_t accepted;
    uint64_t
        unsynced_bytes; /* above the durable mark: valid frames not known to be synced, torn ones, garbage */
    uint64_t last_lsn;  /* of the newest valid entry seen, of whichever log */
    /* With SH_INTERNAL and SH_VERSION_MISMATCH: the file or folder, and errno of what failed (0: none). */
    char failed_path[PATH_MAX];
    int failed_errno;
};

/* Any callback may be NULL; all are called on the caller's thread. */
struct log_verify_options {
    struct id16 log;   /* only this log; all zero for every one */
    uint64_t from_lsn; /* segments that end before this LSN are not read; frames below are not handed out; 0
                          for all */
    /* Damage and accepted losses, at the end of their log. */
    void (*on_damage)(void *arg, const struct log_damage *damage);
    /* Each valid frame, system frames too; false ends the walk (SH_OK is returned). */
    bool (*on_frame)(void *arg, const struct log_frame *frame);
    void (*on_log)(void *arg, const struct log_verified *log);
    /* About every MiB, and at the end. */
    void (*on_progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
    void *arg;
};

/* SH_OK: walked, no damage, or only such whose loss was accepted. SH_CORRUPT: walked, report->damages > 0.
 * SH_NOT_FOUND: no data directory, no log in it, or not the one asked for. SH_INTERNAL: a file call failed.
 * SH_VERSION_MISMATCH: a segment, a mark or the identity is of another format version, which is no damage.
 * The report is filled in every case. */
enum sh_error log_verify(const struct vfs *fs, const char *data_dir, const struct log_verify_options *options,
                         struct log_verify_report *report);

#endif
