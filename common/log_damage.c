/* The bytes of the register of damaged ranges. Nothing here is fatal.
 *
 * The file `damage`, little-endian:
 *    0  8  magic "SHDMGE" and format version 1 (2 bytes)
 *    8 16  log uuid
 *   24  4  count of ranges
 *   28  4  CRC-32C of bytes 0..27 and of all ranges
 * and for each range 168 bytes:
 *    0  8  base LSN of the segment
 *    8  8  offset in its file
 *   16  8  bytes
 *   24  8  position of the first byte
 *   32  8  first LSN in it
 *   40  8  first LSN behind it
 *   48  4  checksum of the last frame before it, 0 when not known
 *   52  4  checksum of the last frame in it, 0 when not known
 *   56  8  found, ns since 1970
 *   64  8  accepted as lost, ns since 1970; 0: it wasn't
 *   72 88  name of the copy in the quarantine, filled up with zeros
 *  160  1  1: its frames are valid, but not those that the origin has
 *  161  7  zero */
#include "log_damage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "log.h"

enum {
    HEAD_BYTES = 32,
    CRC_AT = 28,
    RANGE_BYTES = 168,
    COPY_AT = 72,
    DIFFERS_AT = 160,
    MAGIC_BYTES = 6,
    DAMAGE_VERSION = 1
};
static const uint8_t damage_magic[MAGIC_BYTES + 2] = {'S', 'H', 'D', 'M', 'G', 'E', DAMAGE_VERSION, 0};
_Static_assert(COPY_AT + LOG_DAMAGE_COPY_MAX == DIFFERS_AT, "a copy's name has its place");

static void encode_range(const struct log_damage_range *r, uint8_t out[RANGE_BYTES])
{
    memset(out, 0, RANGE_BYTES);
    put_u64(out, r->base_lsn);
    put_u64(out + 8, r->offset);
    put_u64(out + 16, r->bytes);
    put_u64(out + 24, r->position);
    put_u64(out + 32, r->first_lsn);
    put_u64(out + 40, r->next_lsn);
    put_u32(out + 48, r->checksum_before);
    put_u32(out + 52, r->checksum_after);
    put_u64(out + 56, (uint64_t)r->found_ns);
    put_u64(out + 64, (uint64_t)r->accepted_ns);
    snprintf((char *)out + COPY_AT, LOG_DAMAGE_COPY_MAX, "%s", r->copy);
    out[DIFFERS_AT] = r->differs;
}

static void decode_range(const uint8_t *p, struct log_damage_range *r)
{
    *r = (struct log_damage_range){
        .base_lsn = get_u64(p),
        .offset = get_u64(p + 8),
        .bytes = get_u64(p + 16),
        .position = get_u64(p + 24),
        .first_lsn = get_u64(p + 32),
        .next_lsn = get_u64(p + 40),
        .checksum_before = get_u32(p + 48),
        .checksum_after = get_u32(p + 52),
        .found_ns = (int64_t)get_u64(p + 56),
        .accepted_ns = (int64_t)get_u64(p + 64),
        .differs = p[DIFFERS_AT] == 1,
    };
    snprintf(r->copy, sizeof r->copy, "%.*s", LOG_DAMAGE_COPY_MAX - 1, (const char *)p + COPY_AT);
}

static uint32_t checksum_of(const uint8_t *bytes, size_t len)
{
    return crc32c(crc32c(0, bytes, CRC_AT), bytes + HEAD_BYTES, len - HEAD_BYTES);
}

void log_damage_encode(struct id16 log, const struct log_damage_range *ranges, size_t count, struct buf *out)
{
    size_t len = HEAD_BYTES + count * RANGE_BYTES;
    uint8_t *bytes = xcalloc(1, len);
    memcpy(bytes, damage_magic, sizeof damage_magic);
    memcpy(bytes + 8, log.bytes, sizeof log.bytes);
    put_u32(bytes + 24, (uint32_t)count);
    for (size_t i = 0; i < count; i++)
        encode_range(&ranges[i], bytes + HEAD_BYTES + i * RANGE_BYTES);
    put_u32(bytes + CRC_AT, checksum_of(bytes, len));
    buf_append(out, bytes, len);
    free(bytes);
}

static bool ranges_are_good(const struct log_damage_range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct log_damage_range *r = &ranges[i];
        uint64_t end, in_file;
        if (r->base_lsn == 0 || r->next_lsn < r->first_lsn || strchr(r->copy, '/') != NULL ||
            __builtin_add_overflow(r->position, r->bytes, &end) ||
            __builtin_add_overflow(r->offset, r->bytes, &in_file))
            return false;
        if (i > 0 && r->position < ranges[i - 1].position)
            return false;
    }
    return true;
}

static enum sh_error decode(struct id16 log, const uint8_t *bytes, size_t len,
                            struct log_damage_range *ranges, size_t *count)
{
    if (len < HEAD_BYTES || (len - HEAD_BYTES) % RANGE_BYTES != 0 ||
        memcmp(bytes, damage_magic, MAGIC_BYTES) != 0 || get_u32(bytes + CRC_AT) != checksum_of(bytes, len))
        return SH_CORRUPT;
    if (memcmp(bytes, damage_magic, sizeof damage_magic) != 0)
        return SH_VERSION_MISMATCH;
    size_t found = (len - HEAD_BYTES) / RANGE_BYTES;
    if (memcmp(bytes + 8, log.bytes, sizeof log.bytes) != 0 || get_u32(bytes + 24) != found ||
        found > LOG_DAMAGE_MAX)
        return SH_CORRUPT;
    for (size_t i = 0; i < found; i++)
        decode_range(bytes + HEAD_BYTES + i * RANGE_BYTES, &ranges[i]);
    if (!ranges_are_good(ranges, found))
        return SH_CORRUPT;
    *count = found;
    return SH_OK;
}

enum sh_error log_damage_read(const struct vfs *fs, const char *dir, struct id16 log,
                              struct log_damage_range *ranges, size_t *count)
{
    enum { MOST = HEAD_BYTES + LOG_DAMAGE_MAX * RANGE_BYTES + 1 };
    char path[PATH_MAX];
    *count = 0;
    vfs_path(path, dir, "damage");
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_OK;
    uint8_t *bytes = xmalloc(MOST);
    ssize_t len = fd < 0 ? fd : vfs_read_full(fs, fd, bytes, MOST, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    enum sh_error error = len < 0 ? SH_INTERNAL : decode(log, bytes, (size_t)len, ranges, count);
    free(bytes);
    if (error == SH_INTERNAL)
        log_error("cannot read the register of damaged ranges", log_text("file", path),
                  log_text("error", strerror((int)-len)));
    return error;
}
