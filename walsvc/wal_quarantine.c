/* Copies of torn and of damaged bytes. Nothing here is fatal. */
#include "wal_quarantine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "buf.h"

enum { COPY_BYTES = 1 << 20, FILE_MODE = 0640, DIR_MODE = 0750 };

bool wal_is_full(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

int wal_copy_range(const struct vfs *fs, int from_fd, uint64_t from, uint64_t to, int to_fd, uint64_t at)
{
    uint8_t *chunk = xmalloc(COPY_BYTES);
    int result = 0;
    while (from < to && result == 0) {
        size_t want = to - from < COPY_BYTES ? (size_t)(to - from) : COPY_BYTES;
        ssize_t got = vfs_read_full(fs, from_fd, chunk, want, (int64_t)from);
        if (got <= 0)
            result = got < 0 ? (int)got : -EIO;
        else
            result = vfs_write_all(fs, to_fd, chunk, (size_t)got, (int64_t)at);
        from += got > 0 ? (uint64_t)got : 0;
        at += got > 0 ? (uint64_t)got : 0;
    }
    free(chunk);
    return result;
}

/* Whoever made it may have been killed before it could sync its name. */
static int make_folder(const struct vfs *fs, const char *quarantine)
{
    char parent[PATH_MAX];
    int result = fs->mkdir(fs, quarantine, DIR_MODE);
    if (result < 0 && result != -EEXIST)
        return result;
    vfs_parent(quarantine, parent);
    return fs->sync_dir(fs, parent);
}

int wal_quarantine(const struct vfs *fs, const char *quarantine, struct id16 log, uint64_t position, int fd,
                   uint64_t from, uint64_t to, char name[LOG_DAMAGE_COPY_MAX])
{
    char uuid[ID_TEXT], path[PATH_MAX], text[LOG_DAMAGE_COPY_MAX];
    name[0] = 0;
    id16_format(log, uuid);
    snprintf(text, sizeof text, "%s-%" PRIu64 "-%" PRId64 ".bin", uuid, position, clock_real_ns());
    vfs_path(path, quarantine, text);
    int result = make_folder(fs, quarantine);
    if (result < 0)
        return result;
    int copy = fs->open(fs, path, O_WRONLY | O_CREAT | O_EXCL, FILE_MODE);
    if (copy < 0)
        return copy;
    result = wal_copy_range(fs, fd, from, to, copy, 0);
    if (result == 0)
        result = fs->fsync(fs, copy);
    fs->close(fs, copy);
    if (result == 0)
        result = fs->sync_dir(fs, quarantine);
    if (result < 0)
        fs->unlink(fs, path);
    else
        snprintf(name, LOG_DAMAGE_COPY_MAX, "%s", text);
    return result;
}
