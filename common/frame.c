/* The bytes of segment headers and frames. Nothing here is fatal: bad bytes get an error. */
#include "frame.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"

static const uint8_t segment_magic[6] = {'S', 'H', 'A', 'N', 'G', 'A'};
static const uint8_t frame_magic[4] = {'S', 'H', 'F', 'R'};

enum { LSN_DIGITS = 20, SEGMENT_CRC_AT = 60, FRAME_CRC_AT = 4 };

uint32_t frame_body_most(uint64_t segment_size)
{
    uint64_t frame = segment_size / 4;
    assert(frame > FRAME_HEADER_BYTES);
    return (uint32_t)(frame < FRAME_BYTES_MAX ? frame : FRAME_BYTES_MAX) - FRAME_HEADER_BYTES;
}

uint32_t segment_salt(struct id16 log, uint64_t base_lsn)
{
    uint8_t bytes[8];
    put_u64(bytes, base_lsn);
    return crc32c(crc32c(0, log.bytes, sizeof log.bytes), bytes, sizeof bytes);
}

void segment_name(uint64_t base_lsn, char name[SEGMENT_NAME_MAX])
{
    snprintf(name, SEGMENT_NAME_MAX, "%020" PRIu64 ".seg", base_lsn);
}

bool segment_name_parse(const char *name, uint64_t *base_lsn)
{
    uint64_t value = 0;
    if (strlen(name) != LSN_DIGITS + 4 || strcmp(name + LSN_DIGITS, ".seg") != 0)
        return false;
    for (unsigned i = 0; i < LSN_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9')
            return false;
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, name[i] - '0', &value))
            return false;
    }
    *base_lsn = value;
    return value > 0;
}

void segment_header_encode(const struct segment_header *h, uint8_t out[SEGMENT_HEADER_BYTES])
{
    memset(out, 0, SEGMENT_HEADER_BYTES);
    memcpy(out, segment_magic, sizeof segment_magic);
    put_u16(out + 6, SEGMENT_VERSION);
    memcpy(out + 8, h->log.bytes, sizeof h->log.bytes);
    put_u32(out + 24, h->salt);
    put_u32(out + 28, h->previous_checksum);
    put_u64(out + 32, h->base_lsn);
    put_u64(out + 40, h->position);
    put_u64(out + 48, (uint64_t)h->created_ns);
    put_u32(out + SEGMENT_CRC_AT, crc32c(h->salt, out, SEGMENT_CRC_AT));
}

enum sh_error segment_header_decode(struct slice bytes, struct segment_header *out)
{
    const uint8_t *p = bytes.data;
    if (bytes.len < SEGMENT_HEADER_BYTES || memcmp(p, segment_magic, sizeof segment_magic) != 0)
        return SH_CORRUPT;
    *out = (struct segment_header){
        .salt = get_u32(p + 24),
        .previous_checksum = get_u32(p + 28),
        .base_lsn = get_u64(p + 32),
        .position = get_u64(p + 40),
        .created_ns = (int64_t)get_u64(p + 48),
    };
    memcpy(out->log.bytes, p + 8, sizeof out->log.bytes);
    if (get_u32(p + SEGMENT_CRC_AT) != crc32c(out->salt, p, SEGMENT_CRC_AT))
        return SH_CORRUPT;
    if ((p[6] | p[7] << 8) != SEGMENT_VERSION)
        return SH_VERSION_MISMATCH;
    if (out->salt != segment_salt(out->log, out->base_lsn) || get_u32(p + 56) != 0 || out->base_lsn == 0)
        return SH_CORRUPT;
    return SH_OK;
}

void frame_encode(struct frame_header *h, uint32_t salt, struct slice body, uint8_t out[FRAME_HEADER_BYTES])
{
    assert(body.len == h->body_bytes);
    memset(out, 0, FRAME_HEADER_BYTES);
    memcpy(out, frame_magic, sizeof frame_magic);
    put_u32(out + 8, h->body_bytes);
    out[12] = h->kind;
    put_u64(out + 16, h->base_lsn);
    put_u32(out + 24, h->count);
    put_u32(out + 28, h->previous_checksum);
    put_u64(out + 32, h->hlc);
    memcpy(out + 40, h->producer.bytes, sizeof h->producer.bytes);
    put_u32(out + 56, h->epoch);
    put_u32(out + 60, h->durable_checksum);
    put_u64(out + 64, h->sequence);
    put_u64(out + 72, h->durable_end);
    put_u64(out + 80, h->durable_lsn);
    uint32_t crc = crc32c(salt, out + FRAME_CRC_FROM, FRAME_HEADER_BYTES - FRAME_CRC_FROM);
    h->checksum = crc32c(crc, body.data, body.len);
    put_u32(out + FRAME_CRC_AT, h->checksum);
}

/* What no writer writes, whatever the checksum says. */
static bool header_is_plausible(const struct frame_header *h)
{
    if (h->kind > FRAME_LOSS || h->base_lsn == 0)
        return false;
    return h->kind == FRAME_DATA ? h->count >= 1 && h->count <= ENTRIES_MAX : h->count == 0;
}

enum sh_error frame_header_decode(struct slice bytes, uint32_t most_body, struct frame_header *out)
{
    const uint8_t *p = bytes.data;
    if (bytes.len < FRAME_HEADER_BYTES || memcmp(p, frame_magic, sizeof frame_magic) != 0)
        return SH_CORRUPT;
    *out = (struct frame_header){
        .checksum = get_u32(p + FRAME_CRC_AT),
        .body_bytes = get_u32(p + 8),
        .kind = p[12],
        .base_lsn = get_u64(p + 16),
        .count = get_u32(p + 24),
        .previous_checksum = get_u32(p + 28),
        .hlc = get_u64(p + 32),
        .epoch = get_u32(p + 56),
        .sequence = get_u64(p + 64),
        .durable_end = get_u64(p + 72),
        .durable_lsn = get_u64(p + 80),
        .durable_checksum = get_u32(p + 60),
    };
    memcpy(out->producer.bytes, p + 40, sizeof out->producer.bytes);
    bool reserved = (p[13] | p[14] | p[15]) != 0;
    return out->body_bytes > most_body || reserved || !header_is_plausible(out) ? SH_CORRUPT : SH_OK;
}

bool frame_header_extent(struct slice bytes, uint32_t *body_bytes, uint32_t *checksum)
{
    if (bytes.len < FRAME_HEADER_BYTES)
        return false;
    *checksum = get_u32(bytes.data + FRAME_CRC_AT);
    *body_bytes = get_u32(bytes.data + 8);
    return *checksum != 0;
}

enum sh_error frame_verify(struct slice bytes, uint32_t salt, uint32_t most_body, struct frame_header *out,
                           size_t *size)
{
    enum sh_error error = frame_header_decode(bytes, most_body, out);
    if (error != SH_OK)
        return error;
    *size = FRAME_HEADER_BYTES + (size_t)out->body_bytes;
    if (bytes.len < *size)
        return SH_CORRUPT;
    return crc32c(salt, bytes.data + FRAME_CRC_FROM, *size - FRAME_CRC_FROM) == out->checksum ? SH_OK
                                                                                              : SH_CORRUPT;
}
