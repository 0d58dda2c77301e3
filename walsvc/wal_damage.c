/* The register of damaged ranges: a sorted array under a lock, written as a whole whenever it changes.
 * Nothing here is fatal; a full disk costs the register's file or a copy, not the entry in memory.
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
 *   72 96  name of the copy in the quarantine, filled up with zeros */
#include "wal_damage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "log.h"

enum { HEAD_BYTES = 32, CRC_AT = 28, RANGE_BYTES = 168, COPY_AT = 72, MAGIC_BYTES = 6, DAMAGE_VERSION = 1 };
static const uint8_t damage_magic[MAGIC_BYTES + 2] = {'S', 'H', 'D', 'M', 'G', 'E', DAMAGE_VERSION, 0};
static const char file_name[] = "damage";
_Static_assert(COPY_AT + WAL_COPY_NAME_MAX == RANGE_BYTES, "a range ends with its copy's name");

struct wal_damage {
    const struct vfs *fs;
    char dir[PATH_MAX], quarantine[PATH_MAX];
    struct id16 log;
    uint64_t reserve_bytes;
    pthread_mutex_t lock;            /* over what follows */
    struct wal_damage_range *ranges; /* by position; room for WAL_DAMAGE_MAX + 1 */
    size_t count;
};

/* ---------------------------------------------------------------- the file */

static void encode_range(const struct wal_damage_range *r, uint8_t out[RANGE_BYTES])
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
    snprintf((char *)out + COPY_AT, WAL_COPY_NAME_MAX, "%s", r->copy);
}

static void decode_range(const uint8_t *p, struct wal_damage_range *r)
{
    *r = (struct wal_damage_range){
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
    };
    snprintf(r->copy, sizeof r->copy, "%.*s", WAL_COPY_NAME_MAX - 1, (const char *)p + COPY_AT);
}

static uint32_t checksum_of(const uint8_t *bytes, size_t len)
{
    return crc32c(crc32c(0, bytes, CRC_AT), bytes + HEAD_BYTES, len - HEAD_BYTES);
}

/* With the lock. */
static int store(struct wal_damage *d)
{
    size_t len = HEAD_BYTES + d->count * RANGE_BYTES;
    uint8_t *bytes = xcalloc(1, len);
    memcpy(bytes, damage_magic, sizeof damage_magic);
    memcpy(bytes + 8, d->log.bytes, sizeof d->log.bytes);
    put_u32(bytes + 24, (uint32_t)d->count);
    for (size_t i = 0; i < d->count; i++)
        encode_range(&d->ranges[i], bytes + HEAD_BYTES + i * RANGE_BYTES);
    put_u32(bytes + CRC_AT, checksum_of(bytes, len));
    int result = vfs_replace_file(d->fs, d->dir, file_name, bytes, len);
    free(bytes);
    if (wal_is_full(result)) {
        log_warn("the disk is full: the register of damaged ranges is not written", log_text("dir", d->dir));
        return 0;
    }
    return result;
}

static bool ranges_are_good(const struct wal_damage *d)
{
    for (size_t i = 0; i < d->count; i++) {
        const struct wal_damage_range *r = &d->ranges[i];
        uint64_t end, in_file;
        if (r->base_lsn == 0 || r->next_lsn < r->first_lsn || strchr(r->copy, '/') != NULL ||
            __builtin_add_overflow(r->position, r->bytes, &end) ||
            __builtin_add_overflow(r->offset, r->bytes, &in_file))
            return false;
        if (i > 0 && r->position < d->ranges[i - 1].position)
            return false;
    }
    return true;
}

static enum sh_error decode(struct wal_damage *d, const uint8_t *bytes, size_t len)
{
    if (len < HEAD_BYTES || (len - HEAD_BYTES) % RANGE_BYTES != 0 ||
        memcmp(bytes, damage_magic, MAGIC_BYTES) != 0 || get_u32(bytes + CRC_AT) != checksum_of(bytes, len))
        return SH_CORRUPT;
    if (memcmp(bytes, damage_magic, sizeof damage_magic) != 0)
        return SH_VERSION_MISMATCH;
    size_t count = (len - HEAD_BYTES) / RANGE_BYTES;
    if (memcmp(bytes + 8, d->log.bytes, sizeof d->log.bytes) != 0 || get_u32(bytes + 24) != count ||
        count > WAL_DAMAGE_MAX)
        return SH_CORRUPT;
    for (size_t i = 0; i < count; i++)
        decode_range(bytes + HEAD_BYTES + i * RANGE_BYTES, &d->ranges[i]);
    d->count = count;
    return ranges_are_good(d) ? SH_OK : SH_CORRUPT;
}

static enum sh_error load(struct wal_damage *d)
{
    enum { MOST = HEAD_BYTES + WAL_DAMAGE_MAX * RANGE_BYTES + 1 };
    char path[PATH_MAX];
    vfs_path(path, d->dir, file_name);
    int fd = d->fs->open(d->fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_OK;
    uint8_t *bytes = xmalloc(MOST);
    ssize_t len = fd < 0 ? fd : vfs_read_full(d->fs, fd, bytes, MOST, 0);
    if (fd >= 0)
        d->fs->close(d->fs, fd);
    enum sh_error error = len < 0 ? SH_INTERNAL : decode(d, bytes, (size_t)len);
    free(bytes);
    if (error == SH_INTERNAL)
        log_error("cannot read the register of damaged ranges", log_text("file", path),
                  log_text("error", strerror((int)-len)));
    if (error == SH_VERSION_MISMATCH)
        log_error("the register of damaged ranges has a format that this version doesn't know",
                  log_text("file", path));
    if (error != SH_CORRUPT)
        return error;
    log_warn(
        "the register of damaged ranges is damaged itself; it begins anew, and damage will be found again",
        log_text("file", path));
    d->count = 0;
    return SH_OK;
}

enum sh_error wal_damage_open(const struct vfs *fs, const char *dir, struct id16 log, const char *quarantine,
                              uint64_t reserve_bytes, struct wal_damage **out)
{
    struct wal_damage *d = xcalloc(1, sizeof *d);
    d->fs = fs;
    d->log = log;
    d->reserve_bytes = reserve_bytes;
    snprintf(d->dir, sizeof d->dir, "%s", dir);
    snprintf(d->quarantine, sizeof d->quarantine, "%s", quarantine);
    d->ranges = xcalloc(WAL_DAMAGE_MAX + 1, sizeof *d->ranges);
    pthread_mutex_init(&d->lock, NULL);
    *out = d;
    enum sh_error error = load(d);
    if (error == SH_OK)
        return SH_OK;
    wal_damage_close(d);
    *out = NULL;
    return error;
}

void wal_damage_close(struct wal_damage *d)
{
    if (d == NULL)
        return;
    pthread_mutex_destroy(&d->lock);
    free(d->ranges);
    free(d);
}

/* ---------------------------------------------------------------- adding */

static uint64_t end_of(const struct wal_damage_range *r)
{
    return r->position + r->bytes;
}

static bool covers(const struct wal_damage_range *outer, const struct wal_damage_range *inner)
{
    return outer->position <= inner->position && end_of(outer) >= end_of(inner);
}

/* `r` gets what `other`, which overlaps or touches it, has beyond it. */
static void unite(struct wal_damage_range *r, const struct wal_damage_range *other)
{
    uint64_t end = end_of(r);
    if (other->position < r->position) {
        r->base_lsn = other->base_lsn;
        r->offset = other->offset;
        r->position = other->position;
        r->checksum_before = other->checksum_before;
    }
    if (end_of(other) > end) {
        end = end_of(other);
        r->checksum_after = other->checksum_after;
    }
    r->bytes = end - r->position;
    r->first_lsn = other->first_lsn < r->first_lsn ? other->first_lsn : r->first_lsn;
    r->next_lsn = other->next_lsn > r->next_lsn ? other->next_lsn : r->next_lsn;
    r->found_ns = other->found_ns < r->found_ns ? other->found_ns : r->found_ns;
    r->accepted_ns = 0;
}

static void take_out(struct wal_damage *d, size_t at)
{
    memmove(d->ranges + at, d->ranges + at + 1, (d->count - at - 1) * sizeof *d->ranges);
    d->count--;
}

static void put_in(struct wal_damage *d, const struct wal_damage_range *range)
{
    size_t at = d->count;
    while (at > 0 && d->ranges[at - 1].position > range->position)
        at--;
    memmove(d->ranges + at + 1, d->ranges + at, (d->count - at) * sizeof *d->ranges);
    d->ranges[at] = *range;
    d->count++;
}

/* One place is there for one more than the most. */
static void make_room(struct wal_damage *d)
{
    size_t nearest = 0;
    uint64_t least = UINT64_MAX;
    if (d->count <= WAL_DAMAGE_MAX)
        return;
    for (size_t i = 0; i + 1 < d->count; i++) {
        uint64_t gap = d->ranges[i + 1].position - end_of(&d->ranges[i]);
        if (gap < least) {
            least = gap;
            nearest = i;
        }
    }
    unite(&d->ranges[nearest], &d->ranges[nearest + 1]);
    take_out(d, nearest + 1);
}

/* Takes out those that overlap or touch the range and adds what they have beyond it. */
static void absorb(struct wal_damage *d, struct wal_damage_range *range)
{
    for (size_t i = 0; i < d->count;) {
        const struct wal_damage_range *r = &d->ranges[i];
        bool touches =
            r->base_lsn == range->base_lsn && (r->position == end_of(range) || range->position == end_of(r));
        if (touches || (r->position < end_of(range) && range->position < end_of(r))) {
            unite(range, r);
            take_out(d, i);
            i = 0; /* it is larger now */
        } else {
            i++;
        }
    }
}

/* 0, also when there was no room; then range->copy is empty. */
static int copy_bytes(const struct wal_damage *d, struct wal_damage_range *range, int fd)
{
    int64_t size = 0;
    uint64_t room, end = range->offset + range->bytes;
    range->copy[0] = 0;
    if (fd < 0)
        return 0;
    int result = d->fs->size(d->fs, fd, &size);
    if (result < 0)
        return result;
    end = end < (uint64_t)size ? end : (uint64_t)size;
    if (end <= range->offset)
        return 0;
    uint64_t bytes = end - range->offset;
    bool low = d->reserve_bytes > 0 && d->fs->free_bytes(d->fs, d->dir, &room) == 0 &&
               (room < bytes || room - bytes < d->reserve_bytes);
    result = low ? -ENOSPC
                 : wal_quarantine(d->fs, d->quarantine, d->log, range->position, fd, range->offset, end,
                                  range->copy);
    if (!wal_is_full(result))
        return result;
    log_warn("no room for a copy of damaged bytes: they are only where they were found",
             log_text("dir", d->dir), log_uint("bytes", bytes));
    return 0;
}

static void tell(const struct wal_damage *d, const struct wal_damage_range *r)
{
    char name[SEGMENT_NAME_MAX];
    segment_name(r->base_lsn, name);
    log_error("damage in the log: what lies there cannot be read, all else can", log_text("dir", d->dir),
              log_text("file", name), log_uint("offset", r->offset), log_uint("bytes", r->bytes),
              log_uint("first_lsn", r->first_lsn), log_uint("next_lsn", r->next_lsn),
              log_text("kept", r->copy));
}

/* Knows the range already, with a copy if there can be one. With the lock. */
static bool is_known(const struct wal_damage *d, const struct wal_damage_range *range, int fd)
{
    for (size_t i = 0; i < d->count; i++)
        if (covers(&d->ranges[i], range))
            return d->ranges[i].copy[0] != 0 || fd < 0;
    return false;
}

static int add(struct wal_damage *d, struct wal_damage_range *range, int fd)
{
    int64_t accepted_ns = 0;
    if (is_known(d, range, fd))
        return 0;
    for (size_t i = 0; i < d->count; i++)
        if (covers(&d->ranges[i], range))
            accepted_ns = d->ranges[i].accepted_ns;
    absorb(d, range);
    range->accepted_ns = accepted_ns;
    int result = copy_bytes(d, range, fd);
    put_in(d, range);
    make_room(d);
    tell(d, range);
    int stored = store(d);
    return result < 0 ? result : stored;
}

int wal_damage_add(struct wal_damage *d, const struct wal_damage_range *range, int fd)
{
    struct wal_damage_range copy = *range;
    copy.copy[0] = 0;
    copy.accepted_ns = 0;
    if (copy.found_ns == 0)
        copy.found_ns = clock_real_ns();
    pthread_mutex_lock(&d->lock);
    int result = add(d, &copy, fd);
    pthread_mutex_unlock(&d->lock);
    return result;
}

/* ---------------------------------------------------------------- mending */

/* Whether the range is changed; *gone: nothing of it is left. */
static bool mend(struct wal_damage_range *r, uint64_t base_lsn, uint64_t offset, uint64_t end,
                 const struct log_chain *behind, bool *gone)
{
    uint64_t range_end = r->offset + r->bytes;
    *gone = false;
    if (r->base_lsn != base_lsn || offset > r->offset || end <= r->offset)
        return false;
    *gone = end >= range_end;
    uint64_t mended = end - r->offset;
    r->offset += mended;
    r->position += mended;
    r->bytes -= *gone ? r->bytes : mended;
    r->first_lsn = behind->next_lsn;
    r->checksum_before = behind->checksum;
    return true;
}

int wal_damage_repaired(struct wal_damage *d, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                        const struct log_chain *behind)
{
    bool changed = false, gone;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count;) {
        changed |= mend(&d->ranges[i], base_lsn, offset, offset + bytes, behind, &gone);
        if (gone)
            take_out(d, i);
        else
            i++;
    }
    int result = changed ? store(d) : 0;
    pthread_mutex_unlock(&d->lock);
    return result;
}

int wal_damage_trimmed(struct wal_damage *d, uint64_t first_lsn)
{
    bool changed = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count;) {
        const struct wal_damage_range *r = &d->ranges[i];
        if (r->base_lsn >= first_lsn) {
            i++;
            continue;
        }
        log_warn("a damaged range is trimmed: it will not be mended", log_uint("base_lsn", r->base_lsn),
                 log_uint("offset", r->offset), log_uint("first_lsn", r->first_lsn));
        take_out(d, i);
        changed = true;
    }
    int result = changed ? store(d) : 0;
    pthread_mutex_unlock(&d->lock);
    return result;
}

int wal_damage_accept(struct wal_damage *d, uint64_t first_lsn, uint64_t next_lsn, int64_t now_ns,
                      size_t *count)
{
    bool changed = false;
    *count = 0;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count; i++) {
        struct wal_damage_range *r = &d->ranges[i];
        if (r->first_lsn < first_lsn || r->next_lsn > next_lsn || r->first_lsn >= next_lsn)
            continue;
        ++*count;
        changed |= r->accepted_ns == 0;
        r->accepted_ns = r->accepted_ns == 0 ? now_ns : r->accepted_ns;
    }
    int result = changed ? store(d) : 0;
    pthread_mutex_unlock(&d->lock);
    return result;
}

/* ---------------------------------------------------------------- looking */

struct wal_damage_range *wal_damage_list(struct wal_damage *d, size_t *count)
{
    struct wal_damage_range *list = NULL;
    pthread_mutex_lock(&d->lock);
    *count = d->count;
    if (d->count > 0) {
        list = xmalloc(d->count * sizeof *list);
        memcpy(list, d->ranges, d->count * sizeof *list);
    }
    pthread_mutex_unlock(&d->lock);
    return list;
}

bool wal_damage_find(struct wal_damage *d, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                     struct wal_damage_range *out)
{
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count && !found; i++) {
        const struct wal_damage_range *r = &d->ranges[i];
        found = r->base_lsn == base_lsn && r->offset < offset + bytes && offset < r->offset + r->bytes;
        if (found)
            *out = *r;
    }
    pthread_mutex_unlock(&d->lock);
    return found;
}
