/* The segment files of a log's folder: names, headers, the durable end they show. Nothing here is fatal. */
#include "log_reader.h"
#include "segment_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "log_mark.h"

/* Opens the file and reads its first bytes. SH_NOT_FOUND, SH_INTERNAL (logged). */
static enum sh_error open_file(const struct vfs *fs, const char *dir, uint64_t base_lsn, int flags, int *fd,
                               uint8_t bytes[SEGMENT_HEADER_BYTES], size_t *len, uint64_t *file_bytes)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    int64_t size = 0;
    segment_name(base_lsn, name);
    vfs_path(path, dir, name);
    *fd = fs->open(fs, path, flags, 0);
    if (*fd == -ENOENT)
        return SH_NOT_FOUND;
    ssize_t got = *fd < 0 ? *fd : vfs_read_full(fs, *fd, bytes, SEGMENT_HEADER_BYTES, 0);
    if (got >= 0)
        got = fs->size(fs, *fd, &size) < 0 ? -EIO : got;
    *len = got > 0 ? (size_t)got : 0;
    *file_bytes = (uint64_t)size;
    if (got >= 0)
        return SH_OK;
    log_error("cannot read a segment", log_text("file", path), log_text("error", strerror((int)-got)));
    return SH_INTERNAL;
}

static enum sh_error open_header(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                                 int flags, int *fd, struct segment_header *header, uint64_t *file_bytes)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    size_t len;
    enum sh_error error = open_file(fs, dir, base_lsn, flags, fd, bytes, &len, file_bytes);
    if (error == SH_OK)
        error = segment_header_decode(slice_of(bytes, len), header);
    if (error == SH_OK && (header->base_lsn != base_lsn || !id16_equal(header->log, log)))
        error = SH_CORRUPT;
    return error;
}

static void close_file(const struct vfs *fs, int *fd)
{
    if (*fd >= 0)
        fs->close(fs, *fd);
    *fd = -1;
}

enum sh_error segment_open(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                           int flags, int *fd, struct segment_header *header, uint64_t *file_bytes)
{
    enum sh_error error = open_header(fs, dir, log, base_lsn, flags, fd, header, file_bytes);
    if (error != SH_OK)
        close_file(fs, fd);
    return error;
}

/* A frame that was written when all before it was durable knows its own position. */
static bool knows_position(const struct frame_header *h, uint64_t offset)
{
    return h->kind != FRAME_CHECKPOINT && h->durable_checksum == h->previous_checksum &&
           h->durable_lsn + 1 == h->base_lsn && h->durable_end > offset;
}

/* What a damaged header said, from the frames. SCAN_FRAME: they know; SCAN_END: they don't; SCAN_FAILED. */
static enum scan_result ask_frames(struct segment_scan *scan, struct segment_header *header)
{
    struct frame_header h;
    struct slice bytes;
    struct segment_search search;
    enum scan_result result = segment_scan_next(scan, &h, &bytes);
    if (result == SCAN_FRAME && h.kind == FRAME_CHECKPOINT && h.base_lsn == header->base_lsn) {
        header->position = h.durable_end; /* all before a segment is durable when it is begun */
        header->previous_checksum = h.previous_checksum;
        return SCAN_FRAME;
    }
    if (result == SCAN_FAILED)
        return result;
    scan->offset = SEGMENT_HEADER_BYTES;
    /* The position isn't known yet, so any will do that is beyond all that frames may claim. */
    const struct log_chain chain = {.next_lsn = header->base_lsn, .position = UINT64_MAX / 2 + scan->offset};
    segment_search_open(&search, scan, &chain);
    while ((result = segment_search_next(&search, scan->end, &h)) == SCAN_FRAME) {
        if (!knows_position(&h, scan->offset))
            continue;
        header->position = h.durable_end - scan->offset;
        break;
    }
    return result;
}

static enum sh_error rebuild_header(const struct vfs *fs, int fd, uint64_t file_bytes,
                                    struct segment_header *header, enum header_state *state)
{
    struct segment_scan scan;
    segment_scan_open(&scan, fs, fd, header->salt, file_bytes);
    enum scan_result result = ask_frames(&scan, header);
    segment_scan_free(&scan);
    *state = result == SCAN_FRAME ? HEADER_FROM_FRAMES : HEADER_UNKNOWN;
    if (result != SCAN_FAILED)
        return SH_OK;
    log_error("cannot read a segment", log_uint("base_lsn", header->base_lsn),
              log_text("error", strerror(-scan.error)));
    return SH_INTERNAL;
}

enum sh_error segment_open_any(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                               int flags, int *fd, struct segment_header *header, uint64_t *file_bytes,
                               enum header_state *state)
{
    *state = HEADER_GOOD;
    enum sh_error error = open_header(fs, dir, log, base_lsn, flags, fd, header, file_bytes);
    if (error == SH_CORRUPT) {
        *header =
            (struct segment_header){.log = log, .salt = segment_salt(log, base_lsn), .base_lsn = base_lsn};
        error = rebuild_header(fs, *fd, *file_bytes, header, state);
    }
    if (error != SH_OK)
        close_file(fs, fd);
    return error;
}

struct base_list {
    uint64_t *bases;
    size_t count, cap;
};

static bool add_base(void *arg, const char *name)
{
    struct base_list *list = arg;
    uint64_t base;
    if (!segment_name_parse(name, &base))
        return true;
    if (list->count == list->cap) {
        list->cap = list->cap > 0 ? 2 * list->cap : 64;
        list->bases = xrealloc(list->bases, list->cap * sizeof *list->bases);
    }
    list->bases[list->count++] = base;
    return true;
}

static int compare_bases(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int segment_list(const struct vfs *fs, const char *dir, uint64_t **bases, size_t *count)
{
    struct base_list list = {0};
    int result = fs->list(fs, dir, add_base, &list);
    if (result < 0) {
        free(list.bases);
        list = (struct base_list){0};
    } else if (list.count > 0) {
        qsort(list.bases, list.count, sizeof *list.bases, compare_bases);
    }
    *bases = list.bases;
    *count = list.count;
    return result;
}

static enum sh_error list_bases(const struct vfs *fs, const char *dir, uint64_t **bases, size_t *count)
{
    int result = segment_list(fs, dir, bases, count);
    if (result == 0)
        return *count > 0 ? SH_OK : SH_NOT_FOUND;
    if (result == -ENOENT)
        return SH_NOT_FOUND;
    log_error("cannot list a log's segments", log_text("dir", dir), log_text("error", strerror(-result)));
    return SH_INTERNAL;
}

static enum sh_error list_once(const struct vfs *fs, const char *dir, struct id16 log,
                               struct log_segment **segments, size_t *count, char bad_file[SEGMENT_NAME_MAX])
{
    uint64_t *bases;
    *segments = NULL;
    bad_file[0] = 0;
    enum sh_error error = list_bases(fs, dir, &bases, count);
    if (error != SH_OK)
        return error;
    struct log_segment *list = xcalloc(*count, sizeof *list);
    for (size_t i = 0; i < *count && error == SH_OK; i++) {
        struct segment_header header;
        enum header_state state;
        int fd;
        error = segment_open_any(fs, dir, log, bases[i], O_RDONLY, &fd, &header, &list[i].file_bytes, &state);
        if (error != SH_OK) {
            segment_name(bases[i], bad_file);
            break;
        }
        fs->close(fs, fd);
        if (state == HEADER_UNKNOWN) {
            segment_name(bases[i], bad_file);
            if (i > 0)
                header.position = list[i - 1].position + list[i - 1].file_bytes;
        }
        list[i].base_lsn = header.base_lsn;
        list[i].position = header.position;
        list[i].created_ns = header.created_ns;
        list[i].sealed = i + 1 < *count;
    }
    free(bases);
    if (error != SH_OK) {
        free(list);
        return error;
    }
    *segments = list;
    return SH_OK;
}

/* A segment can be trimmed between the listing and its turn: then the folder is listed anew. */
enum sh_error log_list_segments(const struct vfs *fs, const char *dir, struct id16 log,
                                struct log_segment **segments, size_t *count, char bad_file[SEGMENT_NAME_MAX])
{
    enum { LIST_ATTEMPTS = 100 };
    enum sh_error error = SH_NOT_FOUND;
    for (unsigned attempt = 0; attempt < LIST_ATTEMPTS && error == SH_NOT_FOUND; attempt++)
        error = list_once(fs, dir, log, segments, count, bad_file);
    return error;
}

/* Sealed segments are as long as their positions say. */
enum sh_error log_extent_read(const struct vfs *fs, const char *dir, struct id16 log, struct log_extent *out)
{
    uint64_t *bases;
    *out = (struct log_extent){0};
    enum sh_error error = list_bases(fs, dir, &bases, &out->segments);
    if (error != SH_OK)
        return error;
    const uint64_t ends[] = {bases[0], bases[out->segments - 1]};
    struct segment_header headers[2];
    uint64_t file_bytes[2];
    enum sh_error errors[2];
    for (unsigned i = 0; i < 2; i++) {
        int fd;
        errors[i] = segment_open(fs, dir, log, ends[i], O_RDONLY, &fd, &headers[i], &file_bytes[i]);
        if (errors[i] == SH_OK)
            fs->close(fs, fd);
    }
    out->first_lsn = bases[0];
    free(bases);
    if (errors[0] != SH_OK && errors[1] != SH_OK)
        return errors[1];
    if (errors[1] == SH_OK)
        out->disk_bytes = file_bytes[1];
    if (errors[0] == SH_OK && errors[1] == SH_OK && headers[1].position > headers[0].position)
        out->disk_bytes += headers[1].position - headers[0].position;
    return SH_OK;
}

static void raise_end(uint64_t known, uint64_t known_lsn, uint64_t *end, uint64_t *lsn)
{
    if (known > *end) {
        *end = known;
        *lsn = known_lsn;
    }
}

/* What all valid frames tell, those behind damage too. */
static enum scan_result durable_in_frames(struct segment_scan *scan, const struct segment_header *segment,
                                          uint64_t *end, uint64_t *lsn)
{
    struct segment_search search;
    struct frame_header h;
    struct slice bytes;
    struct log_chain chain = log_chain_of(segment);
    enum scan_result result;
    uint64_t offset;
    while (offset = scan->offset,
           (result = segment_scan_next(scan, &h, &bytes)) == SCAN_FRAME && log_chain_follow(&chain, &h)) {
        /* A segment gets its name only when its first frame is synced. */
        if (offset == SEGMENT_HEADER_BYTES)
            raise_end(chain.position, h.base_lsn - 1, end, lsn);
        raise_end(h.durable_end, h.durable_lsn, end, lsn);
    }
    if (result == SCAN_FAILED || result == SCAN_END)
        return result;
    scan->offset = offset;
    segment_search_open(&search, scan, &chain);
    while ((result = segment_search_next(&search, scan->end, &h)) == SCAN_FRAME)
        raise_end(h.durable_end, h.durable_lsn, end, lsn);
    return result;
}

/* Raises the durable end to what the newest segment tells. */
static enum sh_error durable_in_segment(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base,
                                        uint64_t *end, uint64_t *lsn)
{
    struct segment_header segment;
    struct segment_scan scan;
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    enum sh_error error = segment_open_any(fs, dir, log, base, O_RDONLY, &fd, &segment, &file_bytes, &state);
    if (error != SH_OK)
        return error;
    segment_scan_open(&scan, fs, fd, segment.salt, file_bytes);
    enum scan_result result = SCAN_END;
    if (state != HEADER_UNKNOWN)
        result = durable_in_frames(&scan, &segment, end, lsn);
    segment_scan_free(&scan);
    fs->close(fs, fd);
    return result == SCAN_FAILED ? SH_INTERNAL : SH_OK;
}

enum sh_error log_durable_end(const struct vfs *fs, const char *dir, struct id16 log, uint64_t *end,
                              uint64_t *lsn)
{
    struct log_mark mark;
    uint64_t *bases;
    size_t count;
    enum sh_error error = log_mark_read(fs, dir, log, &mark);
    *end = error == SH_OK ? mark.durable_end : 0;
    *lsn = error == SH_OK ? mark.durable_lsn : 0;
    if (error == SH_INTERNAL || error == SH_VERSION_MISMATCH)
        return error;
    error = list_bases(fs, dir, &bases, &count);
    if (error == SH_OK)
        error = durable_in_segment(fs, dir, log, bases[count - 1], end, lsn);
    free(bases);
    return error;
}
