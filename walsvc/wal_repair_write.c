/* The writing part of a repair. A failed write or sync is left in `failed`: the caller of wal_repair ends the
 * process. */
#include "wal_repair_job.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "segment_index.h"

enum { FILE_MODE = 0640 };
static const char temporary[] = "repair.tmp";

enum sh_error repair_failed(struct repair_job *j, const char *what, int result)
{
    log_error(what, log_text("dir", j->repair->dir), log_uint("segment", j->request->segment),
              log_text("error", strerror(-result)));
    if (wal_is_full(result))
        return wal_refuse(j->refusal, SH_DISK_FULL, 0,
                          "no room for the bytes, or for a copy of the old ones");
    return wal_refuse(j->refusal, SH_INTERNAL, 0, what);
}

/* Whether the register names a copy of these bytes. */
static bool is_kept(const struct repair_job *j, uint64_t from, uint64_t to)
{
    struct log_damage_range range;
    return wal_damage_find(j->repair->damage, j->request->segment, from, to - from, &range) &&
           range.copy[0] != 0 && range.offset <= from && range.offset + range.bytes >= to;
}

static bool can_be_read(const struct repair_job *j, uint64_t from, uint64_t to)
{
    enum { CHUNK = 64 << 10 };
    uint8_t *chunk = xmalloc(CHUNK);
    ssize_t got = 1;
    for (; from < to && got > 0; from += got > 0 ? (uint64_t)got : 0) {
        size_t want = to - from < CHUNK ? (size_t)(to - from) : CHUNK;
        got = vfs_read_full(j->repair->fs, j->fd, chunk, want, (int64_t)from);
    }
    free(chunk);
    return got > 0;
}

/* Copies the bytes that are about to be overwritten. */
static enum sh_error keep_aside(struct repair_job *j)
{
    const struct wal_repair *r = j->repair;
    char name[LOG_DAMAGE_COPY_MAX];
    uint64_t from = j->header_is_good ? j->range.from : 0, to = j->range.from + j->frames.len;
    to = to < j->file_bytes ? to : j->file_bytes;
    if (from >= to || is_kept(j, from, to))
        return SH_OK;
    if (!can_be_read(j, from, to)) { /* a bad sector: nothing is left to be kept, and writing may mend it */
        log_warn("damaged bytes cannot be read, so no copy of them is kept", log_text("dir", r->dir),
                 log_uint("segment", j->request->segment), log_uint("offset", from),
                 log_uint("bytes", to - from));
        return SH_OK;
    }
    int result =
        wal_quarantine(r->fs, r->quarantine, r->log, j->header.position + from, j->fd, from, to, name);
    return result == 0 ? SH_OK : repair_failed(j, "cannot keep damaged bytes aside", result);
}

/* An index describes the segment as it was. It is made again later; if it comes back after a crash, since
 * nobody syncs its removal, a reader finds out by the frames, and the scrubber by the digest. */
static enum sh_error remove_index(struct repair_job *j)
{
    const struct vfs *fs = j->repair->fs;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_index_name(j->request->segment, name);
    vfs_path(path, j->repair->dir, name);
    int result = fs->unlink(fs, path);
    return result == 0 || result == -ENOENT
               ? SH_OK
               : repair_failed(j, "cannot remove the index of a segment", result);
}

/* Nobody may be told that the bytes are durable: the process ends, unless the disk is just full. */
static enum sh_error failed_write(struct repair_job *j, int result)
{
    if (!wal_is_full(result))
        j->repair->failed = result;
    return repair_failed(j, "cannot write a repair", result);
}

/* What is there already is written too: who wrote it may have been killed, or failed, before the sync. (The
 * name of a file that he made is durable: a start syncs the folder.) */
static enum sh_error overwrite(struct repair_job *j)
{
    const struct vfs *fs = j->repair->fs;
    const struct msg_repair *m = j->request;
    int result = vfs_write_all(fs, j->fd, m->bytes.data, m->bytes.len, (int64_t)m->offset);
    if (result == 0)
        result = fs->fdatasync(fs, j->fd);
    return result == 0 ? SH_OK : failed_write(j, result);
}

/* The segment's file is missing. */
static enum sh_error make_file(struct repair_job *j)
{
    const struct vfs *fs = j->repair->fs;
    char from[PATH_MAX], to[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_name(j->request->segment, name);
    vfs_path(to, j->repair->dir, name);
    vfs_path(from, j->repair->dir, temporary);
    int fd = fs->open(fs, from, O_WRONLY | O_CREAT | O_TRUNC, FILE_MODE);
    int result = fd < 0 ? fd : vfs_write_all(fs, fd, j->request->bytes.data, j->request->bytes.len, 0);
    if (result == 0)
        result = fs->fsync(fs, fd);
    if (fd >= 0)
        fs->close(fs, fd);
    if (result == 0)
        result = fs->rename(fs, from, to);
    else if (fd >= 0)
        fs->unlink(fs, from);
    if (result == 0)
        result = fs->sync_dir(fs, j->repair->dir);
    return result == 0 ? SH_OK : failed_write(j, result);
}

enum sh_error repair_write(struct repair_job *j)
{
    enum sh_error error = j->fd < 0 ? SH_OK : keep_aside(j);
    if (error == SH_OK)
        error = remove_index(j);
    if (error != SH_OK)
        return error;
    return j->fd < 0 ? make_file(j) : overwrite(j);
}
