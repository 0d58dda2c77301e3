/* The register of holds. Nothing here is fatal: a damaged file is a result. */
#include "wal_holds.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "log.h"

enum { HEAD_BYTES = 32, RECORD_BYTES = 88, NAME_AT = 24, CRC_BYTES = 4, MAGIC_BYTES = 6, HOLDS_VERSION = 1 };
enum { FILE_BYTES_MAX = HEAD_BYTES + WAL_HOLDS_MAX * RECORD_BYTES + CRC_BYTES };
static const uint8_t holds_magic[MAGIC_BYTES + 2] = {'S', 'H', 'H', 'O', 'L', 'D', HOLDS_VERSION, 0};

void wal_holds_free(struct wal_holds *holds)
{
    free(holds->all);
    *holds = (struct wal_holds){0};
}

struct wal_hold *wal_holds_find(const struct wal_holds *holds, enum wal_hold_kind kind, struct slice name)
{
    for (size_t i = 0; i < holds->count; i++)
        if (holds->all[i].kind == kind && slice_is(name, holds->all[i].name))
            return &holds->all[i];
    return NULL;
}

struct wal_hold *wal_holds_put(struct wal_holds *holds, const struct wal_hold *hold)
{
    struct wal_hold *known = wal_holds_find(holds, hold->kind, slice_str(hold->name));
    if (known == NULL) {
        assert(holds->count < WAL_HOLDS_MAX);
        if (holds->count == holds->cap) {
            holds->cap = holds->cap > 0 ? 2 * holds->cap : 16;
            holds->all = xrealloc(holds->all, holds->cap * sizeof *holds->all);
        }
        known = &holds->all[holds->count++];
        known->file_lsn = 0;
        known->file_expires_ns = 0;
    }
    uint64_t file_lsn = known->file_lsn;
    int64_t file_expires_ns = known->file_expires_ns;
    *known = *hold;
    known->file_lsn = file_lsn;
    known->file_expires_ns = file_expires_ns;
    return known;
}

void wal_holds_remove(struct wal_holds *holds, struct wal_hold *hold)
{
    *hold = holds->all[--holds->count];
    holds->dirty = true;
}

size_t wal_holds_expire(struct wal_holds *holds, int64_t now_real_ns)
{
    size_t expired = 0;
    for (size_t i = 0; i < holds->count;) {
        struct wal_hold *hold = &holds->all[i];
        if (hold->expires_ns == 0 || hold->expires_ns > now_real_ns) {
            i++;
            continue;
        }
        wal_holds_remove(holds, hold);
        expired++;
    }
    return expired;
}

int64_t wal_holds_due_ns(const struct wal_holds *holds)
{
    int64_t due_ns = INT64_MAX;
    for (size_t i = 0; i < holds->count; i++)
        if (holds->all[i].expires_ns != 0 && holds->all[i].expires_ns < due_ns)
            due_ns = holds->all[i].expires_ns;
    return due_ns;
}

bool wal_hold_is_lasting(enum wal_hold_kind kind)
{
    return kind == WAL_HOLD_MEMBER || kind == WAL_HOLD_VIEW;
}

bool wal_hold_keeps(const struct wal_hold *hold, uint64_t next_lsn)
{
    return !hold->broken && next_lsn > hold->lsn;
}

void wal_hold_text(const struct wal_hold *hold, char text[WAL_HOLD_TEXT])
{
    static const char *const kinds[] = {"hold", "member", "view", "reader", "backup", "cursor"};
    snprintf(text, WAL_HOLD_TEXT, "%s %s", kinds[hold->kind], hold->name);
}

/* ---------------------------------------------------------------- the file */

bool wal_hold_needs_file(const struct wal_hold *hold)
{
    if (hold->file_lsn == 0 || hold->lsn < hold->file_lsn)
        return true;
    return hold->expires_ns > hold->file_expires_ns;
}

/* The expiry as it goes into the file. */
static int64_t written_expiry(const struct wal_hold *hold)
{
    return hold->expires_ns == 0 ? 0 : hold->expires_ns + hold->ttl_ns;
}

static void encode_record(const struct wal_hold *hold, uint8_t out[RECORD_BYTES])
{
    size_t len = strlen(hold->name);
    memset(out, 0, RECORD_BYTES);
    out[0] = (uint8_t)hold->kind;
    out[1] = hold->broken;
    out[2] = (uint8_t)len;
    put_u64(out + 8, hold->lsn);
    put_u64(out + 16, (uint64_t)written_expiry(hold));
    memcpy(out + NAME_AT, hold->name, len);
}

void wal_holds_encode(const struct wal_holds *holds, struct id16 log, struct buf *out)
{
    size_t before = out->len;
    uint8_t head[HEAD_BYTES] = {0}, crc[CRC_BYTES];
    memcpy(head, holds_magic, sizeof holds_magic);
    memcpy(head + 8, log.bytes, sizeof log.bytes);
    put_u32(head + 24, (uint32_t)holds->count);
    buf_append(out, head, sizeof head);
    for (size_t i = 0; i < holds->count; i++) {
        encode_record(&holds->all[i], buf_reserve(out, RECORD_BYTES));
        out->len += RECORD_BYTES;
    }
    put_u32(crc, crc32c(0, out->data + before, out->len - before));
    buf_append(out, crc, sizeof crc);
}

static bool decode_record(const uint8_t *bytes, struct wal_hold *out)
{
    size_t len = bytes[2];
    if (bytes[0] < WAL_HOLD_MEMBER || bytes[0] > WAL_HOLD_CURSOR || len == 0 || len > WAL_HOLD_NAME_MAX)
        return false;
    *out = (struct wal_hold){
        .kind = (enum wal_hold_kind)bytes[0],
        .broken = bytes[1] != 0,
        .lsn = get_u64(bytes + 8),
        .expires_ns = (int64_t)get_u64(bytes + 16),
    };
    memcpy(out->name, bytes + NAME_AT, len);
    return strlen(out->name) == len;
}

enum sh_error wal_holds_decode(struct wal_holds *holds, struct id16 log, struct slice bytes)
{
    *holds = (struct wal_holds){0};
    if (bytes.len < HEAD_BYTES + CRC_BYTES || memcmp(bytes.data, holds_magic, MAGIC_BYTES) != 0)
        return SH_CORRUPT;
    size_t len = bytes.len - CRC_BYTES;
    if (get_u32(bytes.data + len) != crc32c(0, bytes.data, len))
        return SH_CORRUPT;
    if (memcmp(bytes.data, holds_magic, sizeof holds_magic) != 0)
        return SH_VERSION_MISMATCH;
    uint32_t count = get_u32(bytes.data + 24);
    if (memcmp(bytes.data + 8, log.bytes, sizeof log.bytes) != 0 || count > WAL_HOLDS_MAX ||
        len != HEAD_BYTES + (size_t)count * RECORD_BYTES)
        return SH_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        struct wal_hold hold;
        if (!decode_record(bytes.data + HEAD_BYTES + (size_t)i * RECORD_BYTES, &hold)) {
            wal_holds_free(holds);
            return SH_CORRUPT;
        }
        struct wal_hold *put = wal_holds_put(holds, &hold);
        put->file_lsn = hold.lsn;
        put->file_expires_ns = hold.expires_ns;
    }
    return SH_OK;
}

int wal_holds_write(struct wal_holds *holds, const struct vfs *fs, const char *dir, struct id16 log)
{
    struct buf bytes = {0};
    wal_holds_encode(holds, log, &bytes);
    int result = vfs_replace_file(fs, dir, "holds", bytes.data, bytes.len);
    buf_free(&bytes);
    holds->dirty = result < 0;
    for (size_t i = 0; i < holds->count && result == 0; i++) {
        holds->all[i].file_lsn = holds->all[i].lsn;
        holds->all[i].file_expires_ns = written_expiry(&holds->all[i]);
    }
    return result;
}

enum sh_error wal_holds_read(struct wal_holds *holds, const struct vfs *fs, const char *dir, struct id16 log)
{
    char path[PATH_MAX];
    vfs_path(path, dir, "holds");
    *holds = (struct wal_holds){0};
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_NOT_FOUND;
    uint8_t *bytes = xmalloc(FILE_BYTES_MAX + 1); /* one more: a longer file is damaged */
    ssize_t len = fd < 0 ? fd : vfs_read_full(fs, fd, bytes, FILE_BYTES_MAX + 1, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    enum sh_error error = SH_INTERNAL;
    if (len < 0)
        log_error("cannot read the register of holds", log_text("file", path),
                  log_text("error", strerror((int)-len)));
    else
        error = wal_holds_decode(holds, log, slice_of(bytes, (size_t)len));
    free(bytes);
    return error;
}
