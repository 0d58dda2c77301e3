/* The file `damage` in a log's folder: the register of ranges that cannot be read. Its bytes, and reading it.
 * walsvc keeps it (wal_damage.h); others read it to tell more about what they find damaged.
 *
 * It is an aid: nothing depends on it, and a damaged one is as good as none. */
#ifndef COMMON_LOG_DAMAGE_H
#define COMMON_LOG_DAMAGE_H

#include "buf.h"
#include "clock.h"
#include "shanghai_error.h"
#include "vfs.h"

enum { LOG_DAMAGE_MAX = 1024, LOG_DAMAGE_COPY_MAX = 88 };

struct log_damage_range {
    uint64_t base_lsn; /* names the segment whose file the bytes are in, or are missing from */
    uint64_t offset;   /* in that file: of the first bad byte */
    uint64_t bytes; /* from there, up to the next good byte; more than the file has, when it is cut short */
    uint64_t position;        /* in the log: of the first bad byte */
    uint64_t first_lsn;       /* of the first entry that may be in there */
    uint64_t next_lsn;        /* of the first entry behind; first_lsn: there is none in it */
    uint32_t checksum_before; /* of the last frame before it, which a repair must continue; 0: not known */
    uint32_t checksum_after;  /* of the last frame in it, which the frame behind continues; 0: not known */
    int64_t found_ns;         /* since 1970 */
    int64_t accepted_ns;      /* since 1970: the loss was accepted; 0: it wasn't */
    bool differs;             /* its frames are valid, but not those that the origin has */
    char copy[LOG_DAMAGE_COPY_MAX]; /* file in data/quarantine; "": not copied (yet) */
};

/* Appends the file's bytes to out. */
void log_damage_encode(struct id16 log, const struct log_damage_range *ranges, size_t count, struct buf *out);
/* Reads the file in the log folder `dir`. ranges: room for LOG_DAMAGE_MAX; in the order of their positions.
 * No file is an empty register. SH_CORRUPT: damaged, or of another log. SH_VERSION_MISMATCH: of a later
 * format. SH_INTERNAL: a file call failed (logged). *count is 0 on all of these. */
enum sh_error log_damage_read(const struct vfs *fs, const char *dir, struct id16 log,
                              struct log_damage_range *ranges, size_t *count);

#endif
