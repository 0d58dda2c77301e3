/* Reads frames of a log straight from its segment files, beside the one process that writes them.
 *
 * Every frame's checksum and chain are verified. Never reads past the durable end that the caller gives. A
 * reader keeps one file open and remembers where it was, so that reading on costs one pread. One thread at a
 * time. */
#ifndef COMMON_LOG_READER_H
#define COMMON_LOG_READER_H

#include "frame.h"
#include "vfs.h"

struct log_reader;

/* dir: the log's folder, <data>/log/<uuid>. Opening reads nothing: segments are looked up when needed. */
struct log_reader *log_reader_open(const struct vfs *fs, const char *dir, struct id16 log);
void log_reader_close(struct log_reader *reader);

struct log_read {
    uint64_t from;                   /* in: LSN of the first entry wanted, from 1 */
    uint64_t durable_end;            /* in: position that must not be passed */
    size_t max_bytes;                /* in: at least one frame is returned, whatever its size */
    uint64_t max_entries;            /* in: no frame is added once so many entries are there */
    uint64_t durable_lsn;            /* in: of the last entry below the durable end; 0: not known */
    bool clocks;                     /* in: clock frames from there on are wanted, too (docs/wal-format.md) */
    uint32_t salt;                   /* out: of the frames' segment */
    uint64_t segment;                /* out: its base LSN */
    uint64_t next;                   /* out: LSN to go on at */
    uint64_t end;                    /* out with SH_OK: position behind what was looked at; 0: nothing was */
    uint64_t bad_offset;             /* out with SH_CORRUPT: offset in the segment file */
    char bad_file[SEGMENT_NAME_MAX]; /* out with SH_CORRUPT */
    uint64_t good_lsn;  /* out with SH_CORRUPT: the first LSN behind the damage that can be read, or will be
                           when it is  written; 0: not known */
    uint64_t first_lsn; /* out with SH_TRIMMED: the first LSN left */
};

/* Appends whole data frames (system frames are verified and passed over, unless they are clock frames and
 * wanted), all of one segment, to out. The first one holds the LSN `from`, or is a clock frame before it.
 * SH_OK with nothing appended: `from` is at the durable end. SH_TRIMMED, SH_CORRUPT (damage at `from`; damage
 * that holds no entry is passed over), SH_NOT_FOUND (from is beyond the end + 1), SH_INTERNAL (a file call
 * failed, logged). */
enum sh_error log_reader_read(struct log_reader *reader, struct log_read *read, struct buf *out);

/* Bytes of memory that the reader holds between two reads: its window (256 KiB, more after a large frame),
 * what it knows of places, 8 bytes a segment. */
size_t log_reader_bytes(const struct log_reader *reader);
/* Gives its window back when it holds more than that. */
void log_reader_trim(struct log_reader *reader, size_t most_bytes);
/* Closes the file of the segment that it stands in when that was trimmed: open, its room would not be free.
 */
void log_reader_let_go(struct log_reader *reader);

/* ---- what a folder holds ---- */
struct log_segment {
    uint64_t base_lsn, position, file_bytes;
    int64_t created_ns;
    bool sealed; /* every segment but the newest */
};
/* The segments, oldest first (the caller frees *segments). SH_OK: *bad_file is empty, or names a segment in
 * which nothing tells its position, which is what follows from the one before then, or 0. SH_NOT_FOUND: none.
 * SH_VERSION_MISMATCH, SH_INTERNAL (logged): *bad_file. */
enum sh_error log_list_segments(const struct vfs *fs, const char *dir, struct id16 log,
                                struct log_segment **segments, size_t *count,
                                char bad_file[SEGMENT_NAME_MAX]);
/* How much there is, from the names and two headers, whatever the number of segments. */
struct log_extent {
    uint64_t first_lsn;  /* that is left */
    uint64_t disk_bytes; /* of the segment files, what is allocated ahead included */
    size_t segments;
};
/* SH_NOT_FOUND: no segment. SH_CORRUPT: neither the oldest nor the newest header can be read.
 * SH_VERSION_MISMATCH, SH_INTERNAL (logged). first_lsn and segments are right with these three too;
 * disk_bytes lacks what a header that cannot be read could tell. */
enum sh_error log_extent_read(const struct vfs *fs, const char *dir, struct id16 log, struct log_extent *out);
/* The durable end that the disk shows: the highest of the mark file and the marks in the newest segment's
 * frames. For readers without walsvc, and for recovery. */
enum sh_error log_durable_end(const struct vfs *fs, const char *dir, struct id16 log, uint64_t *end,
                              uint64_t *lsn);

/* ---- the data directory ---- */
/* <data>/node: identity made on the first start. SH_NOT_FOUND, SH_CORRUPT, SH_VERSION_MISMATCH, SH_INTERNAL
 * (a file call failed, logged). */
struct node_identity {
    struct id16 log; /* uuid of the node's own log */
    char node[65];
};
enum sh_error node_identity_read(const struct vfs *fs, const char *data_dir, struct node_identity *out);
int node_identity_write(const struct vfs *fs, const char *data_dir, const struct node_identity *identity);

#endif
