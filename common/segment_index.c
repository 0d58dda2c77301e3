/* The bytes of a segment's index, and looking things up in one. Nothing here is fatal: bad bytes get an
 * error. */
#include "segment_index.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "log.h"

enum { MAGIC_BYTES = 6, LSN_DIGITS = 20, PLACES_AT = INDEX_HEADER_BYTES, CRC_BYTES = 4 };
static const char index_magic[] = "SHINDX";

void segment_index_free(struct segment_index *index)
{
    free(index->places);
    *index = (struct segment_index){0};
}

void segment_index_name(uint64_t base_lsn, char name[SEGMENT_NAME_MAX])
{
    snprintf(name, SEGMENT_NAME_MAX, "%020" PRIu64 ".idx", base_lsn);
}

bool segment_index_name_parse(const char *name, uint64_t *base_lsn)
{
    char segment[SEGMENT_NAME_MAX];
    if (strlen(name) != LSN_DIGITS + 4 || strcmp(name + LSN_DIGITS, ".idx") != 0)
        return false;
    snprintf(segment, sizeof segment, "%.*s.seg", LSN_DIGITS, name);
    return segment_name_parse(segment, base_lsn);
}

static void put_header(const struct segment_index *index, uint8_t *p)
{
    memcpy(p, index_magic, MAGIC_BYTES);
    put_u16(p + 6, INDEX_VERSION);
    memcpy(p + 8, index->log.bytes, sizeof index->log.bytes);
    put_u64(p + 24, index->base_lsn);
    put_u64(p + 32, index->next_lsn);
    put_u64(p + 40, index->position);
    put_u64(p + 48, index->end);
    put_u64(p + 56, index->frames);
    put_u64(p + 64, index->first_hlc);
    put_u64(p + 72, index->last_hlc);
    put_u32(p + 80, index->checksum);
    put_u32(p + 84, (uint32_t)index->count);
    memcpy(p + 88, index->digest.bytes, sizeof index->digest.bytes);
}

static void put_place(const struct segment_place *place, uint8_t *p)
{
    put_u64(p, place->offset);
    put_u64(p + 8, place->lsn);
    put_u64(p + 16, place->hlc);
    put_u32(p + 24, place->checksum);
    put_u32(p + 28, 0);
}

void segment_index_encode(const struct segment_index *index, struct buf *out)
{
    size_t size = PLACES_AT + index->count * INDEX_PLACE_BYTES;
    uint8_t *p = buf_reserve(out, size + CRC_BYTES);
    put_header(index, p);
    for (size_t i = 0; i < index->count; i++)
        put_place(&index->places[i], p + PLACES_AT + i * INDEX_PLACE_BYTES);
    put_u32(p + size, crc32c(segment_salt(index->log, index->base_lsn), p, size));
    out->len += size + CRC_BYTES;
}

static void get_header(const uint8_t *p, struct segment_index *out)
{
    *out = (struct segment_index){
        .base_lsn = get_u64(p + 24),
        .next_lsn = get_u64(p + 32),
        .position = get_u64(p + 40),
        .end = get_u64(p + 48),
        .frames = get_u64(p + 56),
        .first_hlc = get_u64(p + 64),
        .last_hlc = get_u64(p + 72),
        .checksum = get_u32(p + 80),
        .count = get_u32(p + 84),
    };
    memcpy(out->log.bytes, p + 8, sizeof out->log.bytes);
    memcpy(out->digest.bytes, p + 88, sizeof out->digest.bytes);
}

/* Reads the places; false: not in order, or outside the segment. */
static bool get_places(const uint8_t *p, struct segment_index *out)
{
    struct segment_place before = {
        .offset = SEGMENT_HEADER_BYTES, .lsn = out->base_lsn, .hlc = out->first_hlc};
    for (size_t i = 0; i < out->count; i++, p += INDEX_PLACE_BYTES) {
        struct segment_place *place = &out->places[i];
        *place = (struct segment_place){get_u64(p), get_u64(p + 8), get_u64(p + 16), get_u32(p + 24)};
        if (get_u32(p + 28) != 0 || place->offset <= before.offset || place->lsn < before.lsn ||
            place->hlc < before.hlc)
            return false;
        before = *place;
    }
    return before.offset < out->end && before.lsn <= out->next_lsn && before.hlc <= out->last_hlc;
}

enum sh_error segment_index_decode(struct slice bytes, struct segment_index *out)
{
    const uint8_t *p = bytes.data;
    *out = (struct segment_index){0};
    if (bytes.len < PLACES_AT + CRC_BYTES || memcmp(p, index_magic, MAGIC_BYTES) != 0)
        return SH_CORRUPT;
    if ((p[6] | p[7] << 8) != INDEX_VERSION)
        return SH_VERSION_MISMATCH;
    struct segment_index index;
    get_header(p, &index);
    size_t size = bytes.len - CRC_BYTES;
    if (index.count > INDEX_PLACES_MAX || size != PLACES_AT + index.count * INDEX_PLACE_BYTES ||
        get_u32(p + size) != crc32c(segment_salt(index.log, index.base_lsn), p, size))
        return SH_CORRUPT;
    index.places = xcalloc(index.count > 0 ? index.count : 1, sizeof *index.places);
    if (!get_places(p + PLACES_AT, &index)) {
        free(index.places);
        return SH_CORRUPT;
    }
    *out = index;
    return SH_OK;
}

enum sh_error segment_index_read(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                                 struct segment_index *out)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    struct buf bytes = {0};
    int64_t size = 0;
    *out = (struct segment_index){0};
    segment_index_name(base_lsn, name);
    vfs_path(path, dir, name);
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd == -ENOENT)
        return SH_NOT_FOUND;
    ssize_t len = fd < 0 ? fd : fs->size(fs, fd, &size);
    if (len == 0 && size <= INDEX_BYTES_MAX)
        len = vfs_read_full(fs, fd, buf_reserve(&bytes, (size_t)size + 1), (size_t)size, 0);
    if (fd >= 0)
        fs->close(fs, fd);
    enum sh_error error = SH_INTERNAL;
    if (len < 0)
        log_warn("cannot read a segment's index", log_text("file", path),
                 log_text("error", strerror((int)-len)));
    else
        error = segment_index_decode(slice_of(bytes.data, (size_t)len), out);
    buf_free(&bytes);
    if (error != SH_OK || (out->base_lsn == base_lsn && id16_equal(out->log, log)))
        return error;
    segment_index_free(out);
    return SH_CORRUPT;
}

const struct segment_place *segment_index_at_lsn(const struct segment_index *index, uint64_t lsn)
{
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (index->places[middle].lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &index->places[low - 1] : NULL;
}

const struct segment_place *segment_index_before_hlc(const struct segment_index *index, uint64_t hlc)
{
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (index->places[middle].hlc < hlc)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &index->places[low - 1] : NULL;
}
