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

enum sh_error segment_open(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base_lsn,
                           int flags, int *fd, struct segment_header *header, uint64_t *file_bytes)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    int64_t size = 0;
    segment_name(base_lsn, name);
    vfs_path(path, dir, name);
    *fd = fs->open(fs, path, flags, 0);
    if (*fd == -ENOENT)
        return SH_NOT_FOUND;
    ssize_t len = *fd < 0 ? *fd : vfs_read_full(fs, *fd, bytes, sizeof bytes, 0);
    if (len >= 0)
        len = fs->size(fs, *fd, &size) < 0 ? -EIO : len;
    enum sh_error error = SH_INTERNAL;
    if (len < 0)
        log_error("cannot read a segment", log_text("file", path), log_text("error", strerror((int)-len)));
    else
        error = segment_header_decode(slice_of(bytes, (size_t)len), header);
    if (error == SH_OK && (header->base_lsn != base_lsn || !id16_equal(header->log, log)))
        error = SH_CORRUPT;
    *file_bytes = (uint64_t)size;
    if (error != SH_OK && *fd >= 0) {
        fs->close(fs, *fd);
        *fd = -1;
    }
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

enum sh_error log_list_segments(const struct vfs *fs, const char *dir, struct id16 log,
                                struct log_segment **segments, size_t *count, char bad_file[SEGMENT_NAME_MAX])
{
    uint64_t *bases;
    *segments = NULL;
    enum sh_error error = list_bases(fs, dir, &bases, count);
    if (error != SH_OK)
        return error;
    struct log_segment *list = xcalloc(*count, sizeof *list);
    for (size_t i = 0; i < *count && error == SH_OK; i++) {
        struct segment_header header;
        int fd;
        error = segment_open(fs, dir, log, bases[i], O_RDONLY, &fd, &header, &list[i].file_bytes);
        if (error != SH_OK) {
            segment_name(bases[i], bad_file);
            break;
        }
        fs->close(fs, fd);
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

/* Raises the durable end to what the valid frames of the newest segment tell. */
static enum sh_error durable_in_segment(const struct vfs *fs, const char *dir, struct id16 log, uint64_t base,
                                        uint64_t *end, uint64_t *lsn)
{
    struct segment_header segment;
    struct segment_scan scan;
    struct frame_header h;
    struct slice bytes;
    uint64_t file_bytes;
    int fd;
    enum sh_error error = segment_open(fs, dir, log, base, O_RDONLY, &fd, &segment, &file_bytes);
    if (error != SH_OK)
        return error;
    segment_scan_open(&scan, fs, fd, segment.salt, file_bytes);
    struct log_chain chain = log_chain_of(&segment);
    enum scan_result result;
    while ((result = segment_scan_next(&scan, &h, &bytes)) == SCAN_FRAME && log_chain_follow(&chain, &h)) {
        /* A segment gets its name only when its first frame is synced. */
        bool first = chain.position == segment.position + SEGMENT_HEADER_BYTES + bytes.len;
        uint64_t known = first ? chain.position : h.durable_end;
        if (known > *end) {
            *end = known;
            *lsn = first ? h.base_lsn - 1 : h.durable_lsn;
        }
    }
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
