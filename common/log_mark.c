/* The durable mark's bytes. Nothing here is fatal. */
#include "log_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "log.h"

enum { MARK_CRC_AT = 52 };
enum { MAGIC_BYTES = 6, MARK_VERSION = 1 };
static const uint8_t mark_magic[MAGIC_BYTES + 2] = {'S', 'H', 'M', 'A', 'R', 'K', MARK_VERSION, 0};

void log_mark_encode(const struct log_mark *mark, uint8_t out[MARK_SLOT_BYTES])
{
    memset(out, 0, MARK_SLOT_BYTES);
    memcpy(out, mark_magic, sizeof mark_magic);
    put_u64(out + 8, mark->counter);
    put_u64(out + 16, mark->durable_end);
    put_u64(out + 24, mark->durable_lsn);
    put_u32(out + 32, mark->checksum);
    memcpy(out + 36, mark->log.bytes, sizeof mark->log.bytes);
    put_u32(out + MARK_CRC_AT, crc32c(0, out, MARK_CRC_AT));
}

enum sh_error log_mark_decode(const uint8_t bytes[MARK_SLOT_BYTES], struct id16 log, struct log_mark *out)
{
    if (memcmp(bytes, mark_magic, MAGIC_BYTES) != 0 ||
        get_u32(bytes + MARK_CRC_AT) != crc32c(0, bytes, MARK_CRC_AT))
        return SH_CORRUPT;
    if (memcmp(bytes, mark_magic, sizeof mark_magic) != 0)
        return SH_VERSION_MISMATCH;
    if (memcmp(bytes + 36, log.bytes, sizeof log.bytes) != 0)
        return SH_CORRUPT;
    *out = (struct log_mark){
        .log = log,
        .counter = get_u64(bytes + 8),
        .durable_end = get_u64(bytes + 16),
        .durable_lsn = get_u64(bytes + 24),
        .checksum = get_u32(bytes + 32),
    };
    return SH_OK;
}

enum sh_error log_mark_read(const struct vfs *fs, const char *dir, struct id16 log, struct log_mark *out)
{
    char path[PATH_MAX];
    uint8_t bytes[2 * MARK_SLOT_BYTES] = {0};
    vfs_path(path, dir, "mark");
    *out = (struct log_mark){.log = log};
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_NOT_FOUND;
    ssize_t len = fd < 0 ? fd : vfs_read_full(fs, fd, bytes, sizeof bytes, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    if (len < 0) {
        log_error("cannot read the durable mark", log_text("file", path),
                  log_text("error", strerror((int)-len)));
        return SH_INTERNAL;
    }
    enum sh_error error = SH_CORRUPT;
    for (unsigned slot = 0; slot < 2; slot++) {
        struct log_mark mark;
        enum sh_error decoded = log_mark_decode(bytes + slot * MARK_SLOT_BYTES, log, &mark);
        if (decoded == SH_VERSION_MISMATCH)
            return decoded;
        if (decoded == SH_OK && mark.counter >= out->counter) {
            *out = mark;
            error = SH_OK;
        }
    }
    return error;
}

int64_t log_mark_offset(const struct log_mark *mark)
{
    return (int64_t)(mark->counter % 2) * MARK_SLOT_BYTES;
}
