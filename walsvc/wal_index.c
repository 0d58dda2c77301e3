/* The maker of indexes. Nothing here is fatal. Memory: 16 bytes a segment while the folder is looked through.
 */
#include "wal_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"
#include "segment_index.h"

enum { STEP_BYTES = 1 << 20, SEALED_MAX = 16 };

struct bases {
    uint64_t *all;
    size_t count, cap;
};

struct pair {
    uint64_t base, next;
};

struct wal_index {
    const struct vfs *fs;
    char dir[PATH_MAX];
    struct id16 log;
    struct segment_indexer *indexer; /* NULL: none is being made */
    struct pair making;
    bool making_old;
    struct pair sealed[SEALED_MAX]; /* waiting, the oldest first */
    size_t sealed_count;
    struct bases segments; /* being looked through: those below `left` are still to be looked at */
    size_t left;
    uint64_t made;                                   /* since the look began */
    void (*on_damage)(void *arg, uint64_t base_lsn); /* or NULL */
    void *arg;
};

struct wal_index *wal_index_open(const struct vfs *fs, const char *dir, struct id16 log)
{
    struct wal_index *w = xcalloc(1, sizeof *w);
    w->fs = fs;
    w->log = log;
    snprintf(w->dir, sizeof w->dir, "%s", dir);
    return w;
}

void wal_index_on_damage(struct wal_index *w, void (*fn)(void *arg, uint64_t base_lsn), void *arg)
{
    w->on_damage = fn;
    w->arg = arg;
}

static void stop_making(struct wal_index *w)
{
    if (w->indexer != NULL)
        segment_indexer_close(w->indexer);
    w->indexer = NULL;
}

static void stop_looking(struct wal_index *w)
{
    free(w->segments.all);
    w->segments = (struct bases){0};
    w->left = 0;
}

void wal_index_forget(struct wal_index *w)
{
    stop_making(w);
    stop_looking(w);
    w->sealed_count = 0;
}

void wal_index_close(struct wal_index *w)
{
    wal_index_forget(w);
    free(w);
}

void wal_index_sealed(struct wal_index *w, uint64_t base_lsn, uint64_t next_base_lsn)
{
    if (w->sealed_count < SEALED_MAX) /* otherwise the next start makes it */
        w->sealed[w->sealed_count++] = (struct pair){base_lsn, next_base_lsn};
}

/* ---------------------------------------------------------------- looking through the folder */

struct listing {
    struct wal_index *w;
    struct bases segments, indexes, temporary;
};

static void add_base(struct bases *bases, uint64_t base)
{
    if (bases->count == bases->cap) {
        bases->cap = bases->cap > 0 ? 2 * bases->cap : 64;
        bases->all = xrealloc(bases->all, bases->cap * sizeof *bases->all);
    }
    bases->all[bases->count++] = base;
}

static bool add_name(void *arg, const char *name)
{
    struct listing *list = arg;
    char stem[SEGMENT_NAME_MAX];
    uint64_t base;
    if (segment_name_parse(name, &base)) {
        add_base(&list->segments, base);
    } else if (segment_index_name_parse(name, &base)) {
        add_base(&list->indexes, base);
    } else if (strlen(name) > 4 && strcmp(name + strlen(name) - 4, ".tmp") == 0) {
        snprintf(stem, sizeof stem, "%.*s", (int)strlen(name) - 4, name);
        if (segment_index_name_parse(stem, &base))
            add_base(&list->temporary, base);
    }
    return true;
}

static int compare_bases(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* suffix: "" for the index itself, ".tmp" */
static void remove_index(struct wal_index *w, uint64_t base, const char *suffix)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX], whole[SEGMENT_NAME_MAX + 8];
    segment_index_name(base, name);
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    vfs_path(path, w->dir, whole);
    w->fs->unlink(w->fs, path);
}

static void remove_orphans(struct wal_index *w, const struct listing *list)
{
    const struct bases *segments = &list->segments;
    for (size_t i = 0; i < list->temporary.count; i++)
        remove_index(w, list->temporary.all[i], ".tmp");
    for (size_t i = 0; i < list->indexes.count; i++)
        if (segments->count == 0 || bsearch(&list->indexes.all[i], segments->all, segments->count,
                                            sizeof *segments->all, compare_bases) == NULL)
            remove_index(w, list->indexes.all[i], "");
}

void wal_index_look(struct wal_index *w)
{
    struct listing list = {.w = w};
    int result = w->fs->list(w->fs, w->dir, add_name, &list);
    stop_looking(w);
    if (result == 0) {
        if (list.segments.count > 0)
            qsort(list.segments.all, list.segments.count, sizeof *list.segments.all, compare_bases);
        remove_orphans(w, &list);
        w->segments = list.segments;
        w->left = list.segments.count > 0 ? list.segments.count - 1 : 0; /* the newest one isn't sealed */
        w->made = 0;
    } else {
        log_warn("cannot look for missing indexes", log_text("dir", w->dir),
                 log_text("error", strerror(-result)));
        free(list.segments.all);
    }
    free(list.indexes.all);
    free(list.temporary.all);
}

/* ---------------------------------------------------------------- making one */

static void tell_damage(struct wal_index *w, uint64_t offset, uint64_t lsn)
{
    char name[SEGMENT_NAME_MAX];
    segment_name(w->making.base, name);
    log_error("damage in a sealed segment: no index is made of it", log_text("dir", w->dir),
              log_text("file", name), log_uint("offset", offset), log_uint("lsn", lsn));
    if (w->on_damage != NULL)
        w->on_damage(w->arg, w->making.base);
}

static void begin(struct wal_index *w, struct pair pair, bool is_old)
{
    w->making = pair;
    w->making_old = is_old;
    enum sh_error error = segment_indexer_open(w->fs, w->dir, w->log, pair.base, pair.next, &w->indexer);
    if (error == SH_OK)
        return;
    w->indexer = NULL;
    if (error == SH_CORRUPT)
        tell_damage(w, 0, pair.base);
}

static bool is_gone(struct wal_index *w, uint64_t base)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, w->dir, name);
    int fd = w->fs->open(w->fs, path, O_RDONLY, 0);
    if (fd >= 0)
        w->fs->close(w->fs, fd);
    return fd == -ENOENT;
}

static void write_index(struct wal_index *w)
{
    int result = segment_indexer_write(w->indexer);
    if (result < 0) {
        log_warn(
            "cannot write the index of a segment; reads in it take longer until it is made by a later start",
            log_text("dir", w->dir), log_uint("base_lsn", w->making.base),
            log_text("error", strerror(-result)));
        return;
    }
    failpoint_hit("seal_indexed");
    w->made++;
    if (is_gone(w, w->making.base)) /* trimmed meanwhile */
        remove_index(w, w->making.base, "");
}

static void go_on(struct wal_index *w)
{
    bool done;
    uint64_t offset, lsn;
    enum sh_error error = segment_indexer_step(w->indexer, STEP_BYTES, &done);
    if (error == SH_OK && !done)
        return;
    if (error == SH_OK) {
        write_index(w);
    } else if (error == SH_CORRUPT) {
        segment_indexer_where(w->indexer, &offset, &lsn);
        tell_damage(w, offset, lsn);
    }
    stop_making(w);
}

/* ---------------------------------------------------------------- one step */

/* The next of the segments that are looked through. */
static void look_at_one(struct wal_index *w)
{
    struct segment_index index;
    size_t i = --w->left;
    uint64_t base = w->segments.all[i];
    enum sh_error error = segment_index_read(w->fs, w->dir, w->log, base, &index);
    if (error == SH_OK) {
        segment_index_free(&index);
    } else if (error != SH_INTERNAL) {
        if (error != SH_NOT_FOUND)
            log_warn("the index of a segment is damaged; it is made again", log_text("dir", w->dir),
                     log_uint("base_lsn", base));
        begin(w, (struct pair){base, w->segments.all[i + 1]}, true);
    }
}

enum wal_index_work wal_index_work(const struct wal_index *w)
{
    if (w->sealed_count > 0 || (w->indexer != NULL && !w->making_old))
        return WAL_INDEX_SEALED;
    return w->indexer != NULL || w->segments.all != NULL ? WAL_INDEX_OLD : WAL_INDEX_NONE;
}

void wal_index_step(struct wal_index *w)
{
    if (w->indexer != NULL) {
        go_on(w);
    } else if (w->sealed_count > 0) {
        struct pair pair = w->sealed[0];
        memmove(w->sealed, w->sealed + 1, --w->sealed_count * sizeof *w->sealed);
        begin(w, pair, false);
    } else if (w->left > 0) {
        look_at_one(w);
    } else if (w->segments.all != NULL) {
        if (w->made > 0)
            log_info("missing indexes of segments made", log_text("dir", w->dir), log_uint("count", w->made));
        stop_looking(w);
    }
}
