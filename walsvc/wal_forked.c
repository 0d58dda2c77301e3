/* Names in <data>/forked. */
#include "wal_forked.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "failpoint.h"
#include "wal_drop.h"

enum { DIR_MODE = 0750, LSN_DIGITS = 20, UUID_CHARS = ID_TEXT - 1 };
static const char done_suffix[] = ".done";

static void forked_path(const char *data, const char *name, char path[PATH_MAX])
{
    char root[PATH_MAX];
    vfs_path(root, data, "forked");
    if (name[0] == 0)
        snprintf(path, PATH_MAX, "%s", root);
    else
        vfs_path(path, root, name);
}

/* ---------------------------------------------------------------- names */

/* "<uuid>-<20 digits>[-<number>][.done]" of the log. */
static bool parse(const char *name, const char *uuid, struct wal_forked_folder *out, bool *done)
{
    size_t len = strlen(name);
    char *end;
    *out = (struct wal_forked_folder){.number = 1};
    if (len >= sizeof out->name || strncmp(name, uuid, UUID_CHARS) != 0 || name[UUID_CHARS] != '-')
        return false;
    const char *digits = name + UUID_CHARS + 1;
    if (strspn(digits, "0123456789") != LSN_DIGITS)
        return false;
    errno = 0;
    out->lsn = strtoull(digits, &end, 10);
    if (errno != 0)
        return false;
    if (*end == '-') {
        const char *number = end + 1;
        if (*number < '1' || *number > '9')
            return false;
        unsigned long value = strtoul(number, &end, 10);
        if (errno != 0 || value > UINT32_MAX)
            return false;
        out->number = (unsigned)value;
    }
    *done = strcmp(end, done_suffix) == 0;
    snprintf(out->name, sizeof out->name, "%s", name);
    return *done || *end == 0;
}

struct search {
    char uuid[ID_TEXT];
    uint64_t lsn;     /* of which the highest number is looked for */
    unsigned highest; /* 0: there is none */
    struct wal_forked_folder *all;
    size_t count;
};

static bool note_number(void *arg, const char *name)
{
    struct search *search = arg;
    struct wal_forked_folder folder;
    bool done;
    if (parse(name, search->uuid, &folder, &done) && folder.lsn == search->lsn &&
        folder.number > search->highest)
        search->highest = folder.number;
    return true;
}

static bool note_folder(void *arg, const char *name)
{
    struct search *search = arg;
    struct wal_forked_folder folder;
    bool done;
    if (!parse(name, search->uuid, &folder, &done) || done)
        return true;
    search->all = xrealloc(search->all, (search->count + 1) * sizeof *search->all);
    search->all[search->count++] = folder;
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct wal_forked_folder *x = a, *y = b;
    if (x->lsn != y->lsn)
        return x->lsn < y->lsn ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

int wal_forked_list(const struct vfs *fs, const char *data, struct id16 log,
                    struct wal_forked_folder **folders, size_t *count)
{
    struct search search = {0};
    char root[PATH_MAX];
    id16_format(log, search.uuid);
    forked_path(data, "", root);
    int result = fs->list(fs, root, note_folder, &search);
    if (search.count > 1)
        qsort(search.all, search.count, sizeof *search.all, compare);
    *folders = search.all;
    *count = search.count;
    return result == -ENOENT ? 0 : result;
}

/* ---------------------------------------------------------------- making one */

static void making_path(const char *data, struct id16 log, char path[PATH_MAX])
{
    char uuid[ID_TEXT], name[WAL_FORKED_NAME_MAX];
    id16_format(log, uuid);
    snprintf(name, sizeof name, "%s.tmp", uuid);
    forked_path(data, name, path);
}

int wal_forked_begin(const struct vfs *fs, const char *data, struct id16 log, char folder[PATH_MAX])
{
    char root[PATH_MAX];
    forked_path(data, "", root);
    making_path(data, log, folder);
    int result = fs->mkdir(fs, root, DIR_MODE);
    if (result == 0 || result == -EEXIST)
        result = fs->sync_dir(fs, data);
    if (result == 0)
        result = fs->mkdir(fs, folder, DIR_MODE);
    return result == -EEXIST ? wal_empty_folder(fs, folder) : result; /* that of a cut that was cut short */
}

int wal_forked_end(const struct vfs *fs, const char *data, struct id16 log, uint64_t lsn,
                   char name[WAL_FORKED_NAME_MAX])
{
    struct search search = {.lsn = lsn};
    char root[PATH_MAX], folder[PATH_MAX], to[PATH_MAX];
    id16_format(log, search.uuid);
    forked_path(data, "", root);
    making_path(data, log, folder);
    int result = fs->sync_dir(fs, folder);
    if (result == 0)
        result = fs->list(fs, root, note_number, &search);
    int len = snprintf(name, WAL_FORKED_NAME_MAX, "%s-%0*" PRIu64, search.uuid, LSN_DIGITS, lsn);
    if (search.highest > 0)
        snprintf(name + len, (size_t)(WAL_FORKED_NAME_MAX - len), "-%u", search.highest + 1);
    forked_path(data, name, to);
    if (result == 0)
        result = fs->rename(fs, folder, to);
    return result == 0 ? fs->sync_dir(fs, root) : result;
}

int wal_forked_forget_progress(const struct vfs *fs, const char *data, struct id16 log)
{
    struct wal_forked_folder *folders;
    size_t count;
    int result = wal_forked_list(fs, data, log, &folders, &count);
    for (size_t i = 0; i < count && result == 0; i++) {
        char folder[PATH_MAX], path[PATH_MAX];
        forked_path(data, folders[i].name, folder);
        vfs_path(path, folder, "progress");
        result = fs->unlink(fs, path);
        if (result == 0)
            result = fs->sync_dir(fs, folder);
        else if (result == -ENOENT)
            result = 0;
    }
    free(folders);
    return result;
}

int wal_forked_done(const struct vfs *fs, const char *data, const char *name)
{
    char root[PATH_MAX], from[PATH_MAX], to[PATH_MAX], done[WAL_FORKED_NAME_MAX + sizeof done_suffix];
    snprintf(done, sizeof done, "%s%s", name, done_suffix);
    forked_path(data, "", root);
    forked_path(data, name, from);
    forked_path(data, done, to);
    int result = fs->rename(fs, from, to);
    if (result == 0)
        result = fs->sync_dir(fs, root);
    return failpoint_step("regain_done", result);
}
