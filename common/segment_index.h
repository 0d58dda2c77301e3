/* The index of a sealed segment: <base LSN, 20 digits>.idx beside its .seg. It says where to start reading
 * for an LSN or a time, and has the digest of the whole segment.
 *
 * It is an aid and nothing else: it can always be made again from the .seg, and whoever reads by it checks
 * the frame at the place against the place. A missing, damaged or lying one costs time, never an entry.
 *
 *    0  6  magic "SHINDX"
 *    6  2  format version (1)
 *    8 16  log uuid
 *   24  8  base LSN: of the first entry in the segment
 *   32  8  next LSN: of the first entry behind the segment
 *   40  8  position of the segment
 *   48  8  end: bytes of the segment
 *   56  8  frames, system frames included
 *   64  8  HLC of the first frame
 *   72  8  HLC of the last frame
 *   80  4  checksum of the last frame
 *   84  4  count of places
 *   88 16  digest of the segment's bytes (common/digest.h)
 *  104 32  for each place: offset of a frame (8), its base LSN (8), its HLC (8), checksum of the frame before
 * (4), zero (4); the offsets ascend then 4 CRC-32C of all before, seeded with the segment's salt */
#ifndef COMMON_SEGMENT_INDEX_H
#define COMMON_SEGMENT_INDEX_H

#include "digest.h"
#include "frame.h"
#include "segment_scan.h"
#include "vfs.h"

enum {
    INDEX_VERSION = 1,
    INDEX_HEADER_BYTES = 104,
    INDEX_PLACE_BYTES = 32,
    INDEX_PLACES_MAX = 4096, /* in a file; the maker keeps to half of it */
    INDEX_GAP_BYTES = 256 << 10,
    INDEX_BYTES_MAX = INDEX_HEADER_BYTES + INDEX_PLACES_MAX * INDEX_PLACE_BYTES + 4,
};

struct segment_place {
    uint64_t offset; /* in the file: of a frame */
    uint64_t lsn;    /* its base LSN */
    uint64_t hlc;
    uint32_t checksum; /* of the frame before */
};

struct segment_index {
    struct id16 log;
    uint64_t base_lsn, next_lsn, position, end, frames, first_hlc, last_hlc;
    uint32_t checksum;
    struct digest128 digest;
    struct segment_place *places; /* ascending */
    size_t count;
};

void segment_index_free(struct segment_index *index);
void segment_index_name(uint64_t base_lsn, char name[SEGMENT_NAME_MAX]);
bool segment_index_name_parse(const char *name, uint64_t *base_lsn);
void segment_index_encode(const struct segment_index *index, struct buf *out);
/* SH_CORRUPT: checksum, magic, or what no maker writes. SH_VERSION_MISMATCH. On SH_OK the caller frees it. */
enum sh_error segment_index_decode(struct slice bytes, struct segment_index *out);
/* Reads the index of a segment. SH_NOT_FOUND: none. SH_CORRUPT: damaged, or of another segment.
 * SH_VERSION_MISMATCH, SH_INTERNAL (logged). On SH_OK the caller frees it. */
enum sh_error segment_index_read(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                                 struct segment_index *out);
/* The last place at or before the LSN, or before the time; NULL: none, the segment's start has to do. */
const struct segment_place *segment_index_at_lsn(const struct segment_index *index, uint64_t lsn);
const struct segment_place *segment_index_before_hlc(const struct segment_index *index, uint64_t hlc);

/* ---- making one: reads the whole segment, in steps ---- */
struct segment_indexer;

/* Begins with a sealed segment and the one behind it, which must continue it. SH_OK: *indexer is to be
 * closed. SH_NOT_FOUND: one of them is gone. SH_CORRUPT: a header is damaged. SH_VERSION_MISMATCH.
 * SH_INTERNAL (logged). */
enum sh_error segment_indexer_open(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                                   uint64_t next_base_lsn, struct segment_indexer **indexer);
/* Reads on, about `bytes`. SH_OK: to be called again while !*done. SH_CORRUPT: a frame is damaged, or the
 * segments don't fit together: no index is made of it. SH_INTERNAL: a read failed. */
enum sh_error segment_indexer_step(struct segment_indexer *indexer, uint64_t bytes, bool *done);
/* Where it stands: with SH_CORRUPT that of the damage, and the LSN that should be there. */
void segment_indexer_where(const struct segment_indexer *indexer, uint64_t *offset, uint64_t *lsn);
/* When done: writes the file (temporary name, fsync, rename, sync of the folder). 0 or -errno; on an error no
 * temporary file is left behind, as far as it can be removed. */
int segment_indexer_write(struct segment_indexer *indexer);
void segment_indexer_close(struct segment_indexer *indexer);

#endif
