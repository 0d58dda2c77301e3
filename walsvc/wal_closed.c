/* The register of closed logs. Nothing here is fatal: the caller ends the process when a sync failed. */
#include "wal_closed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "failpoint.h"
#include "log.h"
#include "mp.h"

enum { HEAD_BYTES = 16, RECORD_BYTES = 48, CRC_BYTES = 4, MAGIC_BYTES = 6, CLOSED_VERSION = 1 };
enum { FILE_BYTES_MAX = HEAD_BYTES + WAL_CLOSED_MAX * RECORD_BYTES + CRC_BYTES };
static const uint8_t closed_magic[MAGIC_BYTES + 2] = {'S', 'H', 'C', 'L', 'O', 'S', CLOSED_VERSION, 0};
static const char name[] = "closed";

/* ---------------------------------------------------------------- the file */

static void encode(const struct wal_closed_log *all, size_t count, struct buf *out)
{
    uint8_t head[HEAD_BYTES] = {0}, crc[CRC_BYTES];
    memcpy(head, closed_magic, sizeof closed_magic);
    put_u32(head + 8, (uint32_t)count);
    buf_append(out, head, sizeof head);
    for (size_t i = 0; i < count; i++) {
        uint8_t record[RECORD_BYTES] = {0};
        memcpy(record, all[i].log.bytes, sizeof all[i].log.bytes);
        put_u64(record + 16, all[i].end);
        put_u64(record + 24, all[i].lsn);
        put_u64(record + 32, (uint64_t)all[i].dropped_ns);
        put_u32(record + 40, all[i].checksum);
        buf_append(out, record, sizeof record);
    }
    put_u32(crc, crc32c(0, out->data, out->len));
    buf_append(out, crc, sizeof crc);
}

static enum sh_error decode(struct wal_closed *c, const uint8_t *bytes, size_t len)
{
    if (len < HEAD_BYTES + CRC_BYTES || memcmp(bytes, closed_magic, MAGIC_BYTES) != 0)
        return SH_CORRUPT;
    len -= CRC_BYTES;
    if (get_u32(bytes + len) != crc32c(0, bytes, len))
        return SH_CORRUPT;
    if (memcmp(bytes, closed_magic, sizeof closed_magic) != 0)
        return SH_VERSION_MISMATCH;
    uint32_t count = get_u32(bytes + 8);
    if (count > WAL_CLOSED_MAX || len != HEAD_BYTES + (size_t)count * RECORD_BYTES)
        return SH_CORRUPT;
    for (c->count = 0; c->count < count; c->count++) {
        const uint8_t *record = bytes + HEAD_BYTES + c->count * RECORD_BYTES;
        struct wal_closed_log *log = &c->all[c->count];
        memcpy(log->log.bytes, record, sizeof log->log.bytes);
        log->end = get_u64(record + 16);
        log->lsn = get_u64(record + 24);
        log->dropped_ns = (int64_t)get_u64(record + 32);
        log->checksum = get_u32(record + 40);
    }
    return SH_OK;
}

static enum sh_error read_file(struct wal_closed *c, const char *path)
{
    int fd = c->fs->open(c->fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_NOT_FOUND;
    uint8_t *bytes = xmalloc(FILE_BYTES_MAX + 1); /* one more: a longer file is damaged */
    ssize_t len = fd < 0 ? fd : vfs_read_full(c->fs, fd, bytes, FILE_BYTES_MAX + 1, 0);
    if (fd >= 0)
        c->fs->close(c->fs, fd);
    enum sh_error error = len < 0 ? SH_INTERNAL : decode(c, bytes, (size_t)len);
    free(bytes);
    if (len < 0)
        log_error("cannot read the register of closed logs", log_text("file", path),
                  log_text("error", strerror((int)-len)));
    return error;
}

enum service_exit wal_closed_open(struct wal_closed *c, const struct vfs *fs, const char *data)
{
    char path[PATH_MAX];
    *c = (struct wal_closed){.fs = fs, .data = data, .version = 1};
    c->all = xcalloc(WAL_CLOSED_MAX, sizeof *c->all);
    pthread_mutex_init(&c->lock, NULL);
    vfs_path(path, data, name);
    enum sh_error error = read_file(c, path);
    if (error == SH_CORRUPT)
        log_error(
            "the register of closed logs is damaged, and empty from now on: a log that was dropped here "
            "comes back if another member still has it",
            log_text("file", path));
    if (error == SH_VERSION_MISMATCH)
        log_error("the register of closed logs has a format that this version doesn't know",
                  log_text("file", path));
    if (error != SH_VERSION_MISMATCH && error != SH_INTERNAL)
        return EXIT_DONE;
    wal_closed_close(c);
    return error == SH_INTERNAL ? EXIT_FAULT : EXIT_CONFIG;
}

void wal_closed_close(struct wal_closed *c)
{
    if (c->all == NULL)
        return;
    free(c->all);
    c->all = NULL;
    pthread_mutex_destroy(&c->lock);
}

/* ---------------------------------------------------------------- with the lock */

static size_t index_of(const struct wal_closed *c, struct id16 log)
{
    size_t i = 0;
    while (i < c->count && !id16_equal(c->all[i].log, log))
        i++;
    return i;
}

/* Takes `all` for the register, once that is on disk. */
static int replace(struct wal_closed *c, const struct wal_closed_log *all, size_t count)
{
    struct buf bytes = {0};
    encode(all, count, &bytes);
    int result = vfs_replace_file(c->fs, c->data, name, bytes.data, bytes.len);
    buf_free(&bytes);
    if (result < 0)
        return result;
    failpoint_hit("closed_written");
    memcpy(c->all, all, count * sizeof *all);
    c->count = count;
    c->version++;
    return 0;
}

/* Without `log`, and without the oldest one when `more` would be too many; then `more`, unless it is NULL. */
static int change(struct wal_closed *c, struct id16 log, const struct wal_closed_log *more)
{
    struct wal_closed_log *all = xcalloc(WAL_CLOSED_MAX + 1, sizeof *all);
    size_t at = index_of(c, log), count = 0;
    for (size_t i = 0; i < c->count; i++)
        if (i != at)
            all[count++] = c->all[i];
    if (more != NULL)
        all[count++] = *more;
    size_t over = count > WAL_CLOSED_MAX;
    int result = replace(c, all + over, count - over);
    free(all);
    return result;
}

/* ---------------------------------------------------------------- from any thread */

uint64_t wal_closed_version(struct wal_closed *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t version = c->version;
    pthread_mutex_unlock(&c->lock);
    return version;
}

bool wal_closed_find(struct wal_closed *c, struct id16 log, struct wal_closed_log *out)
{
    pthread_mutex_lock(&c->lock);
    size_t at = index_of(c, log);
    bool found = at < c->count;
    if (found)
        *out = c->all[at];
    pthread_mutex_unlock(&c->lock);
    return found;
}

int wal_closed_add(struct wal_closed *c, const struct wal_closed_log *log)
{
    pthread_mutex_lock(&c->lock);
    int result = change(c, log->log, log);
    pthread_mutex_unlock(&c->lock);
    return result;
}

int wal_closed_remove(struct wal_closed *c, struct id16 log)
{
    pthread_mutex_lock(&c->lock);
    int result = index_of(c, log) < c->count ? change(c, log, NULL) : 0;
    pthread_mutex_unlock(&c->lock);
    return result;
}

void wal_closed_pack(struct wal_closed *c, struct buf *out, uint64_t *version)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    pthread_mutex_lock(&c->lock);
    *version = c->version;
    msgpack_pack_array(&pk, c->count);
    for (size_t i = 0; i < c->count; i++) {
        const struct wal_closed_log *log = &c->all[i];
        msgpack_pack_array(&pk, 5);
        mp_pack_bin(&pk, slice_of(log->log.bytes, sizeof log->log.bytes));
        msgpack_pack_uint64(&pk, log->end);
        msgpack_pack_uint64(&pk, log->lsn);
        msgpack_pack_uint32(&pk, log->checksum);
        msgpack_pack_uint64(&pk, (uint64_t)log->dropped_ns);
    }
    pthread_mutex_unlock(&c->lock);
}
