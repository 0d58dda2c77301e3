/* The durable mark: <log folder>/mark, two slots of 512 bytes that are written in turn, so that a torn write
 * leaves the other one. docs/wal-format.md has the table; all integers little-endian.
 *
 *    0  8  magic "SHMARK" and format version 1 (2 bytes)
 *    8  8  counter: the higher one of the two valid slots counts
 *   16  8  durable end: a position
 *   24  8  durable LSN
 *   32  4  checksum of the last frame below the durable end
 *   36 16  log uuid
 *   52  4  CRC-32C of bytes 0..51; the rest is zero */
#ifndef COMMON_LOG_MARK_H
#define COMMON_LOG_MARK_H

#include "clock.h"
#include "shanghai_error.h"
#include "vfs.h"

enum { MARK_SLOT_BYTES = 512 };

struct log_mark {
    struct id16 log;
    uint64_t counter, durable_end, durable_lsn;
    uint32_t checksum;
};

void log_mark_encode(const struct log_mark *mark, uint8_t out[MARK_SLOT_BYTES]);
/* SH_CORRUPT, also when it is another log's. SH_VERSION_MISMATCH. */
enum sh_error log_mark_decode(const uint8_t bytes[MARK_SLOT_BYTES], struct id16 log, struct log_mark *out);
/* The newest valid slot. SH_NOT_FOUND: no file. SH_CORRUPT: a file without a valid slot. SH_VERSION_MISMATCH:
 * a slot of another version of the format. SH_INTERNAL, logged. */
enum sh_error log_mark_read(const struct vfs *fs, const char *dir, struct id16 log, struct log_mark *out);
/* Where the mark's slot belongs in the file. */
int64_t log_mark_offset(const struct log_mark *mark);

#endif
