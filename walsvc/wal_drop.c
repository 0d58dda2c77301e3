/* Removing folders. Nothing here is fatal: the caller ends the process when a sync failed. */
#include "wal_drop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "failpoint.h"

enum { BATCH_MAX = 64, NAME_BYTES = 256 };

struct batch {
    char names[BATCH_MAX][NAME_BYTES];
    size_t count;
};

static bool note(void *arg, const char *name)
{
    struct batch *batch = arg;
    snprintf(batch->names[batch->count++], NAME_BYTES, "%s", name);
    return batch->count < BATCH_MAX;
}

/* So many files at a time; *count: how many there were. */
static int remove_some(const struct vfs *fs, const char *dir, size_t *count)
{
    struct batch *batch = xcalloc(1, sizeof *batch);
    int result = fs->list(fs, dir, note, batch);
    for (size_t i = 0; i < batch->count && result == 0; i++) {
        char path[PATH_MAX];
        vfs_path(path, dir, batch->names[i]);
        result = fs->unlink(fs, path);
        failpoint_hit("drop_unlinked");
    }
    *count = batch->count;
    free(batch);
    return result;
}

int wal_empty_folder(const struct vfs *fs, const char *dir)
{
    size_t count;
    int result;
    do
        result = remove_some(fs, dir, &count);
    while (result == 0 && count == BATCH_MAX);
    return result;
}

int wal_drop_folder(const struct vfs *fs, const char *dir, bool *must_end)
{
    char parent[PATH_MAX];
    vfs_parent(dir, parent);
    *must_end = false;
    int result = wal_empty_folder(fs, dir);
    if (result == 0)
        result = fs->rmdir(fs, dir);
    if (result < 0)
        return result;
    result = fs->sync_dir(fs, parent);
    *must_end = result < 0;
    return result;
}
