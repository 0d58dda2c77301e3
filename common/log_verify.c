/* The offline walk over all logs of a data directory: folders, marks, identity; segment_verify.c reads the
 * frames. Nothing here is fatal. */
#include "log_verify.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log_reader.h"
#include "segment_verify.h"

struct log_ids {
    struct id16 *all;
    size_t count;
};

static bool add_log(void *arg, const char *name)
{
    struct log_ids *ids = arg;
    struct id16 id;
    if (!id16_parse(name, &id))
        return true;
    ids->all = xrealloc(ids->all, (ids->count + 1) * sizeof *ids->all);
    ids->all[ids->count++] = id;
    return true;
}

static bool has_log(const struct log_ids *ids, struct id16 log)
{
    for (size_t i = 0; i < ids->count; i++)
        if (id16_equal(ids->all[i], log))
            return true;
    return false;
}

static uint64_t size_of(const struct vfs *fs, const char *dir, uint64_t base)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    int64_t size = 0;
    segment_name(base, name);
    vfs_path(path, dir, name);
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd < 0)
        return 0;
    if (fs->size(fs, fd, &size) < 0)
        size = 0;
    fs->close(fs, fd);
    return (uint64_t)size;
}

static void read_mark(struct verify *v)
{
    char path[PATH_MAX];
    vfs_path(path, v->dir, "mark");
    enum sh_error error = log_mark_read(v->fs, v->dir, v->log, &v->mark);
    if (error == SH_CORRUPT)
        verify_damage(v, path, 0, 0, 0, "the durable mark is damaged");
    if (error == SH_VERSION_MISMATCH || error == SH_INTERNAL)
        verify_fail(v, error, path, 0);
    v->durable_end = v->mark.durable_end;
}

/* The segments of one log from the one on that holds from_lsn. */
static void walk_segments(struct verify *v, const uint64_t *bases, size_t count)
{
    size_t first = 0;
    uint64_t lsn, end;
    while (first + 1 < count && bases[first + 1] <= v->options->from_lsn)
        first++;
    for (size_t i = first; i < count; i++)
        v->total_bytes += size_of(v->fs, v->dir, bases[i]);
    if (!v->is_copy && log_durable_end(v->fs, v->dir, v->log, &end, &lsn) == SH_OK && end > v->durable_end)
        v->durable_end = end;
    for (size_t i = first; i < count && v->error == SH_OK && !v->stopped; i++)
        verify_segment(v, bases[i], i + 1 < count ? bases[i + 1] : 0);
}

static void walk_log(struct verify *v, const char *logs, struct id16 log, struct id16 own)
{
    char dir[PATH_MAX], uuid[ID_TEXT];
    uint64_t *bases;
    size_t count;
    id16_format(log, uuid);
    vfs_path(dir, logs, uuid);
    v->log = log;
    v->is_copy = !id16_is_zero(own) && !id16_equal(log, own);
    v->dir = dir;
    v->chain = (struct log_chain){.next_lsn = 1};
    v->chain_known = false;
    const struct log_verify_report before = *v->report;
    v->report->logs++;
    v->report->last_lsn = 0;
    read_mark(v); /* before the list of segments: it must not know of a newer one */
    int result = segment_list(v->fs, dir, &bases, &count);
    if (result < 0) {
        verify_fail(v, SH_INTERNAL, dir, -result);
    } else if (count > 0) {
        walk_segments(v, bases, count);
    } else if (id16_equal(log, own) || v->mark.durable_end > 0) {
        verify_damage(v, dir, 0, 0, 0, "the log has no segment");
    }
    verify_tell(v);
    free(bases);
    struct log_verified done = {
        .log = log,
        .is_copy = v->is_copy,
        .segments = v->report->segments - before.segments,
        .entries = v->report->entries - before.entries,
        .damages = v->report->damages - before.damages,
        .last_lsn = v->report->last_lsn,
    };
    if (before.last_lsn > v->report->last_lsn)
        v->report->last_lsn = before.last_lsn;
    if (v->options->on_log != NULL)
        v->options->on_log(v->options->arg, &done);
}

/* Whose log the directory says is the node's own; zero when it doesn't. */
static struct id16 own_log(struct verify *v, const char *data_dir, const struct log_ids *ids)
{
    char path[PATH_MAX];
    struct node_identity identity;
    vfs_path(path, data_dir, "node");
    enum sh_error error = node_identity_read(v->fs, data_dir, &identity);
    if (error == SH_CORRUPT)
        verify_damage(v, path, 0, 0, 0, "the node's identity is damaged");
    if (error == SH_VERSION_MISMATCH || error == SH_INTERNAL)
        verify_fail(v, error, path, 0);
    if (error != SH_OK)
        return (struct id16){0};
    if (!has_log(ids, identity.log))
        verify_damage(v, path, 0, 0, 0, "the folder of the node's own log is missing");
    return identity.log;
}

static enum sh_error walk_logs(struct verify *v, const char *data_dir, const char *logs,
                               const struct log_ids *ids)
{
    bool all = id16_is_zero(v->options->log);
    if (!all && !has_log(ids, v->options->log))
        return SH_NOT_FOUND;
    struct id16 own = own_log(v, data_dir, ids);
    verify_tell(v);
    for (size_t i = 0; i < ids->count && v->error == SH_OK && !v->stopped; i++)
        if (all || id16_equal(ids->all[i], v->options->log))
            walk_log(v, logs, ids->all[i], own);
    if (v->options->on_progress != NULL)
        v->options->on_progress(v->options->arg, v->total_bytes, v->total_bytes);
    if (v->error != SH_OK)
        return v->error;
    return v->report->damages > 0 ? SH_CORRUPT : SH_OK;
}

enum sh_error log_verify(const struct vfs *fs, const char *data_dir, const struct log_verify_options *options,
                         struct log_verify_report *report)
{
    char logs[PATH_MAX];
    struct log_ids ids = {0};
    struct verify v = {.fs = fs, .options = options, .report = report};
    *report = (struct log_verify_report){0};
    if (strlen(data_dir) > VFS_DIR_MAX)
        return SH_BAD_REQUEST;
    vfs_path(logs, data_dir, "log");
    int result = fs->list(fs, logs, add_log, &ids);
    enum sh_error error = SH_NOT_FOUND;
    if (result < 0 && result != -ENOENT && result != -ENOTDIR) {
        error = SH_INTERNAL;
        verify_fail(&v, error, logs, -result);
    } else if (ids.count > 0) {
        error = walk_logs(&v, data_dir, logs, &ids);
    }
    free(ids.all);
    return error;
}
