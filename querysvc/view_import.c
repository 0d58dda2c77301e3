/* Files of rows that are taken into the view at once. Nothing here is fatal. */
#include "view_import.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"
#include "mp.h"
#include "view_merge_in.h"
#include "view_store_parts.h"

/* A file's index and filter are made in memory. */
enum { FILE_BYTES = 32 << 20, NAMES_MAX = 64, NAME_BYTES = 64 };

struct view_import {
    const struct vfs *fs;
    char dir[PATH_MAX];
    rocksdb_envoptions_t *env;
    rocksdb_sstfilewriter_t *writer; /* NULL: no file is being written */
    uint8_t kind;                    /* of the rows in it: a file holds rows of one kind */
    unsigned files;                  /* 0, 1, ...: their names */
    uint64_t done_bytes, open_bytes;
};

/* ---------------------------------------------------------------- folders */

struct names {
    char all[NAMES_MAX][NAME_BYTES];
    size_t count;
};

static bool note_name(void *arg, const char *name)
{
    struct names *names = arg;
    if (strlen(name) < NAME_BYTES)
        snprintf(names->all[names->count++], NAME_BYTES, "%s", name);
    return names->count < NAMES_MAX;
}

static int empty_folder(const struct vfs *fs, const char *dir)
{
    struct names *names = xcalloc(1, sizeof *names);
    int result;
    do { /* so many at a time */
        names->count = 0;
        result = fs->list(fs, dir, note_name, names);
        for (size_t i = 0; i < names->count && result == 0; i++) {
            char path[PATH_MAX];
            vfs_path(path, dir, names->all[i]);
            result = fs->unlink(fs, path);
        }
    } while (result == 0 && names->count == NAMES_MAX);
    free(names);
    return result;
}

bool view_folder_remove(const struct vfs *fs, const char *dir)
{
    int result = empty_folder(fs, dir);
    if (result == 0)
        result = fs->rmdir(fs, dir);
    if (result < 0 && result != -ENOENT)
        log_warn("a folder of checkpoints cannot be removed", log_text("dir", dir),
                 log_text("error", strerror(-result)));
    return result == 0 || result == -ENOENT;
}

/* ---------------------------------------------------------------- life */

struct view_import *view_import_open(const struct vfs *fs, const char *dir, char error[VIEW_ERROR_MAX])
{
    error[0] = 0;
    view_folder_remove(fs, dir);
    int result = fs->mkdir(fs, dir, 0700);
    if (result < 0) {
        snprintf(error, VIEW_ERROR_MAX, "%.160s: %s", dir, strerror(-result));
        return NULL;
    }
    struct view_import *import = xcalloc(1, sizeof *import);
    import->fs = fs;
    snprintf(import->dir, sizeof import->dir, "%s", dir);
    import->env = rocksdb_envoptions_create();
    return import;
}

void view_import_close(struct view_import *import)
{
    if (import == NULL)
        return;
    if (import->writer != NULL)
        rocksdb_sstfilewriter_destroy(import->writer);
    rocksdb_envoptions_destroy(import->env);
    view_folder_remove(import->fs, import->dir);
    free(import);
}

uint64_t view_import_bytes(const struct view_import *import)
{
    return import->done_bytes + import->open_bytes;
}

/* ---------------------------------------------------------------- files */

static void path_of(const struct view_import *import, unsigned file, char path[PATH_MAX])
{
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%u.sst", file);
    vfs_path(path, import->dir, name);
}

static bool open_file(struct view_import *import, struct view_store *store, uint8_t kind,
                      char error[VIEW_ERROR_MAX])
{
    char path[PATH_MAX], *message = NULL;
    path_of(import, import->files++, path);
    import->writer = rocksdb_sstfilewriter_create(import->env, store->options);
    import->kind = kind;
    import->open_bytes = 0;
    rocksdb_sstfilewriter_open(import->writer, path, &message);
    return view_store_went_well(message, error);
}

static bool close_file(struct view_import *import, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    if (import->writer == NULL)
        return true;
    rocksdb_sstfilewriter_finish(import->writer, &message);
    rocksdb_sstfilewriter_destroy(import->writer);
    import->writer = NULL;
    import->done_bytes += import->open_bytes;
    import->open_bytes = 0;
    return view_store_went_well(message, error);
}

bool view_import_add(struct view_import *import, struct view_store *store, struct slice key,
                     struct slice change, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    bool fits = import->writer != NULL && import->kind == key.data[0] && import->open_bytes < FILE_BYTES;
    if (!fits && (!close_file(import, error) || !open_file(import, store, key.data[0], error)))
        return false;
    if (key.data[0] == VIEW_TIDY)
        rocksdb_sstfilewriter_put(import->writer, (const char *)key.data, key.len, (const char *)change.data,
                                  change.len, &message);
    else
        rocksdb_sstfilewriter_merge(import->writer, (const char *)key.data, key.len,
                                    (const char *)change.data, change.len, &message);
    import->open_bytes += key.len + change.len;
    return view_store_went_well(message, error);
}

/* ---------------------------------------------------------------- installing */

static bool put(struct view_import *import, struct slice key, struct slice row, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    rocksdb_sstfilewriter_put(import->writer, (const char *)key.data, key.len, (const char *)row.data,
                              row.len, &message);
    return view_store_went_well(message, error);
}

/* In a file of its own, that the others' ranges of keys leave out. */
static bool add_vector(struct view_import *import, struct view_store *store, const struct view_vector *vector,
                       char error[VIEW_ERROR_MAX])
{
    struct buf applied = {0}, arrivals = {0};
    if (!close_file(import, error) || !open_file(import, store, VIEW_META, error))
        return false;
    view_vector_encode(vector, &applied);
    view_arrivals_encode(vector, &arrivals);
    bool good = put(import, view_vector_key(), buf_slice(&applied), error) &&
                put(import, view_arrivals_key(), buf_slice(&arrivals), error) &&
                put(import, view_compared_key(), slice_str(""), error) && close_file(import, error);
    buf_free(&applied);
    buf_free(&arrivals);
    return good;
}

/* One edit of the database's manifest: all files or none. */
static bool take_files(struct view_import *import, struct view_store *store, char error[VIEW_ERROR_MAX])
{
    char *message = NULL, path[PATH_MAX];
    char **paths = xcalloc(import->files, sizeof *paths);
    rocksdb_ingestexternalfileoptions_t *options = rocksdb_ingestexternalfileoptions_create();
    rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
    for (unsigned i = 0; i < import->files; i++) {
        path_of(import, i, path);
        paths[i] = xstrdup(path);
    }
    atomic_store(&store->counters, true); /* some of it may be */
    rocksdb_ingest_external_file(store->db, (const char *const *)paths, import->files, options, &message);
    rocksdb_ingestexternalfileoptions_destroy(options);
    for (unsigned i = 0; i < import->files; i++)
        free(paths[i]);
    free(paths);
    return view_store_went_well(message, error);
}

bool view_import_install(struct view_import *import, struct view_store *store,
                         const struct view_vector *vector, char error[VIEW_ERROR_MAX])
{
    if (!add_vector(import, store, vector, error) || !view_store_flush(store, error))
        return false;
    failpoint_hit("checkpoint_ready");
    bool done = take_files(import, store, error);
    failpoint_hit("checkpoint_installed");
    return done;
}

/* ---------------------------------------------------------------- the other side */

bool view_export_piece(struct view_store *store, struct slice behind, struct buf *rows, bool *more,
                       char error[VIEW_ERROR_MAX])
{
    struct buf from = {0};
    struct slice key, row;
    msgpack_packer pk;
    rows->len = 0;
    mp_packer(&pk, rows);
    view_behind(behind, &from);
    struct view_scan *scan = view_scan_open(store, buf_slice(&from), (struct slice){0});
    *more = false;
    while (view_scan_next(scan, &key, &row, error)) {
        if (key.data[0] == VIEW_META)
            continue;
        *more = rows->len >= MERGE_IN_PIECE_BYTES;
        if (*more)
            break;
        mp_pack_bin(&pk, key);
        mp_pack_bin(&pk, row);
    }
    view_scan_close(scan);
    buf_free(&from);
    return error[0] == 0;
}
