/* Frames and segment headers: the bytes of the log. docs/wal-format.md has the tables; all integers
 * little-endian.
 *
 * Segment header, 64 bytes, at offset 0 of <base LSN, 20 digits>.seg:
 *    0  6  magic "SHANGA"
 *    6  2  format version (1)
 *    8 16  log uuid
 *   24  4  salt: CRC-32C of (log uuid, base LSN): seed of every checksum in the segment
 *   28  4  checksum of the last frame before this segment, 0 in the first
 *   32  8  base LSN: of the first entry in the segment
 *   40  8  position: bytes of the log before this segment
 *   48  8  created, ns since 1970
 *   56  4  zero
 *   60  4  CRC-32C of bytes 0..59, seeded with the salt
 *
 * Frame header, 88 bytes, then the body:
 *    0  4  magic "SHFR"
 *    4  4  CRC-32C of all that follows, body included, seeded with the segment's salt
 *    8  4  body length in bytes
 *   12  1  kind (enum frame_kind)
 *   13  3  zero
 *   16  8  base LSN: of the first entry; of a system frame the LSN that the next entry will get
 *   24  4  count of entries; 0 in a system frame
 *   28  4  checksum of the frame before (over segment ends too); 0 in the first of the log
 *   32  8  HLC
 *   40 16  producer id, zero for none
 *   56  4  producer epoch
 *   60  4  checksum of the last frame below the durable end; 0 when that is 0
 *   64  8  producer sequence
 *   72  8  durable end known when it was written: a position, counted over all segments
 *   80  8  durable LSN known when it was written */
#ifndef COMMON_FRAME_H
#define COMMON_FRAME_H

#include "clock.h"
#include "mp.h"
#include "shanghai_error.h"

enum {
    SEGMENT_HEADER_BYTES = 64,
    SEGMENT_VERSION = 1,
    FRAME_HEADER_BYTES = 88,
    FRAME_CRC_FROM = 8,    /* the first byte that is under the checksum */
    SEGMENT_NAME_MAX = 32, /* "00000000000000000001.seg" and a NUL */
    FRAME_BYTES_MAX =
        16 << 20, /* of a whole frame, whatever the segment size: bounds every reader's memory */
};

enum frame_kind { FRAME_DATA = 0, FRAME_CHECKPOINT = 1, FRAME_CLOCK = 2, FRAME_CLOSE = 3, FRAME_LOSS = 4 };

struct segment_header {
    struct id16 log;
    uint32_t salt;
    uint32_t previous_checksum;
    uint64_t base_lsn;
    uint64_t position;
    int64_t created_ns;
};

struct frame_header {
    uint32_t checksum;
    uint32_t body_bytes;
    uint8_t kind;
    uint64_t base_lsn;
    uint32_t count;
    uint32_t previous_checksum;
    uint64_t hlc;
    struct id16 producer;
    uint32_t epoch;
    uint64_t sequence;
    uint64_t durable_end;
    uint64_t durable_lsn;
    uint32_t durable_checksum;
};

/* The most bytes of a frame's body in segments of this size: a frame is at most a quarter segment, and at
 * most FRAME_BYTES_MAX. Also the most bytes of the entries of one append. */
uint32_t frame_body_most(uint64_t segment_size);
uint32_t segment_salt(struct id16 log, uint64_t base_lsn);
void segment_name(uint64_t base_lsn, char name[SEGMENT_NAME_MAX]);
bool segment_name_parse(const char *name, uint64_t *base_lsn);
void segment_header_encode(const struct segment_header *h, uint8_t out[SEGMENT_HEADER_BYTES]);
/* SH_CORRUPT: magic, checksum, salt or reserved bytes are wrong. SH_VERSION_MISMATCH. */
enum sh_error segment_header_decode(struct slice bytes, struct segment_header *out);

/* Encodes the header and sets h->checksum over header and body. */
void frame_encode(struct frame_header *h, uint32_t salt, struct slice body, uint8_t out[FRAME_HEADER_BYTES]);
/* Reads a header's fields without its checksum: SH_CORRUPT when magic, kind, reserved bytes or the length
 * (over most_body bytes) cannot be a frame's. */
enum sh_error frame_header_decode(struct slice bytes, uint32_t most_body, struct frame_header *out);
/* Length of the body and checksum as a damaged header tells them. False: the checksum is 0, as in zeroed
 * bytes; that of the frame before the first one is 0 too. */
bool frame_header_extent(struct slice bytes, uint32_t *body_bytes, uint32_t *checksum);
/* The frame that starts at bytes: header decoded, checksum verified over the whole. *size gets its bytes.
 * SH_CORRUPT: not a whole, valid frame. */
enum sh_error frame_verify(struct slice bytes, uint32_t salt, uint32_t most_body, struct frame_header *out,
                           size_t *size);

/* ---- entries: the body of a data frame is a msgpack array of entries, each an array: ----
 *   event   [0, stream (str), payload (bin), headers (map of str to str or bin; may be absent)]
 *   put     [1, key (bin), value (bin), ttl in ms (uint; may be absent)]
 *   delete  [2, key (bin)]
 *   add     [3, key (bin), delta (int)]
 *   after   [4, array of [log uuid (bin 16), LSN (uint)]]: only as the first entry: what whoever wrote the
 *           frame had seen, so that views apply it after that
 *   cursor  [5, name (str), epoch (uint), owner (bin 16), position (version vector, version_vector.h, its
 *            logs in ascending order), ttl in ms (uint), state (uint: 0 set, 1 deleted)]
 * A kind above 5 is stored and passed on: any array that starts with its number. */
enum entry_kind {
    ENTRY_EVENT = 0,
    ENTRY_PUT = 1,
    ENTRY_DELETE = 2,
    ENTRY_ADD = 3,
    ENTRY_AFTER = 4,
    ENTRY_CURSOR = 5,
};
enum { STREAM_NAME_MAX = 255, KEY_MAX = 4096, ENTRIES_MAX = 65536, HEADERS_MAX = 64, AFTER_MAX = 256 };
enum { CURSOR_NAME_MAX = 64 };
#define CURSOR_TTL_MS_MAX UINT64_C(31536000000) /* a year of 365 days */

struct entry {
    uint64_t kind;
    struct slice stream;  /* of an event */
    struct slice key;     /* of put, delete, add; the name of a cursor */
    struct slice value;   /* payload of an event, value of a put, position of a cursor */
    struct slice headers; /* raw msgpack map, or empty */
    struct slice after;   /* of an after: the raw array, 256 positions at most */
    uint64_t ttl_ms;
    int64_t delta;
    uint64_t epoch; /* of a cursor, from here on */
    struct id16 owner;
    bool deleted;
};

/* A cursor's name: 1 to CURSOR_NAME_MAX bytes of UTF-8 without control characters. SH_BAD_REQUEST,
 * SH_TOO_LARGE. */
enum sh_error cursor_name_check(struct slice name);

/* Walks a body and checks every entry. SH_BAD_REQUEST, SH_TOO_LARGE (a name, a key, a count). */
enum sh_error entries_check(struct slice body, uint32_t *count);
/* The same, for who wants to know what they are about: *one_stream: all are events of this *stream, which
 * points into the body. False says nothing. */
enum sh_error entries_check_stream(struct slice body, uint32_t *count, bool *one_stream,
                                   struct slice *stream);
/* Enters a body; then entry_next *count times. */
bool entries_open(struct mp *m, uint32_t *count);
enum sh_error entry_next(struct mp *m, struct entry *out);
void entry_pack(msgpack_packer *pk, const struct entry *e);
/* The next position of an after's array, which was entered. False: there is none. */
bool entry_next_after(struct mp *m, struct id16 *log, uint64_t *lsn);

#endif
