/* RocksDB, set up to be small. Nothing here is fatal: whoever owns the store closes it after a failure. */
#include "view_store_parts.h"

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vfs.h"

enum { CHANGES = 1024 };
enum { BITS_A_KEY = 10, BLOCK_BYTES = 4096, OPEN_FILES = 256, BACKGROUND_JOBS = 2, LOG_FILES = 2 };
/* So small that a compaction fits into VIEW_ROOM_BYTES beside a flush. */
enum { FILE_BYTES = 8 << 20, LEVEL_BYTES = 32 << 20, COMPACTION_BYTES = 40 << 20 };

/* Of what is gathered: where it lies in `changed`, the key first. */
struct change {
    size_t at, key_len, len;
    const uint8_t *key; /* while they are being sorted */
};

struct view_scan {
    rocksdb_iterator_t *rows;
    rocksdb_readoptions_t *read;
    struct buf from, to; /* the database keeps pointing at them */
    bool begun;
};

bool view_store_went_well(char *message, char error[VIEW_ERROR_MAX])
{
    error[0] = 0;
    if (message == NULL)
        return true;
    snprintf(error, VIEW_ERROR_MAX, "%s", message);
    rocksdb_free(message);
    return false;
}

/* ---------------------------------------------------------------- the merge operator */

static char *give(bool good, struct buf *merged, unsigned char *success, size_t *len)
{
    *success = good;
    *len = good ? merged->len : 0;
    if (good)
        return merged->data != NULL ? (char *)merged->data : xmalloc(1);
    buf_free(merged);
    return NULL;
}

enum { FEW = 8 };

/* Few, as nearly always, lie in `few`; otherwise they are to be freed. */
static struct slice *slices(const char *const *list, const size_t *lens, int count, struct slice few[FEW])
{
    struct slice *out = count <= FEW ? few : xcalloc((size_t)count, sizeof *out);
    for (int i = 0; i < count; i++)
        out[i] = slice_of(list[i], lens[i]);
    return out;
}

static char *full_merge(void *state, const char *key, size_t key_len, const char *existing,
                        size_t existing_len, const char *const *list, const size_t *lens, int count,
                        unsigned char *success, size_t *len)
{
    (void)state;
    struct buf merged = {0};
    struct slice few[FEW], *changes = slices(list, lens, count, few), row = slice_of(existing, existing_len);
    bool good =
        view_merge(slice_of(key, key_len), existing != NULL ? &row : NULL, changes, (size_t)count, &merged);
    if (changes != few)
        free(changes);
    return give(good, &merged, success, len);
}

static char *partial_merge(void *state, const char *key, size_t key_len, const char *const *list,
                           const size_t *lens, int count, unsigned char *success, size_t *len)
{
    (void)state;
    struct buf merged = {0};
    struct slice few[FEW], *changes = slices(list, lens, count, few);
    bool good = view_merge_changes(slice_of(key, key_len), changes, (size_t)count, &merged);
    if (changes != few)
        free(changes);
    return give(good, &merged, success, len);
}

static void free_merged(void *state, const char *value, size_t len)
{
    (void)state;
    (void)len;
    free((void *)(uintptr_t)value);
}

static const char *merge_name(void *state)
{
    (void)state;
    return "shanghai.view.1";
}

static void no_state(void *state)
{
    (void)state;
}

/* ---------------------------------------------------------------- life */

static rocksdb_block_based_table_options_t *table_options(struct view_store *s, size_t cache_bytes)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    s->cache = rocksdb_cache_create_lru(cache_bytes);
    rocksdb_block_based_options_set_block_cache(table, s->cache);
    rocksdb_block_based_options_set_block_size(table, BLOCK_BYTES);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 0); /* open files keep them */
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(BITS_A_KEY));
    return table;
}

static void set_options(struct view_store *s, const struct view_store_options *o)
{
    rocksdb_block_based_table_options_t *table = table_options(s, o->cache_bytes);
    s->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(s->options, 1);
    rocksdb_options_set_write_buffer_size(s->options, o->write_buffer_bytes);
    rocksdb_options_set_max_write_buffer_number(s->options, 2);
    rocksdb_options_set_max_background_jobs(s->options, BACKGROUND_JOBS);
    rocksdb_options_set_max_open_files(s->options, OPEN_FILES);
    rocksdb_options_set_table_cache_numshardbits(s->options,
                                                 0); /* in shards, some would be full long before */
    rocksdb_options_set_keep_log_file_num(s->options, LOG_FILES);
    rocksdb_options_set_target_file_size_base(s->options, FILE_BYTES);
    rocksdb_options_set_max_bytes_for_level_base(s->options, LEVEL_BYTES);
    rocksdb_options_set_max_compaction_bytes(s->options, COMPACTION_BYTES);
    rocksdb_options_set_compression(s->options, rocksdb_lz4_compression);
    rocksdb_options_set_merge_operator(
        s->options,
        rocksdb_mergeoperator_create(NULL, no_state, full_merge, partial_merge, free_merged, merge_name));
    rocksdb_options_set_block_based_table_factory(s->options, table); /* copies them */
    rocksdb_block_based_options_destroy(table);
}

/* What is to be removed is first renamed: a kill leaves all of it, or nothing under its name. */
static void name_gone(const char *dir, char gone[PATH_MAX])
{
    snprintf(gone, PATH_MAX, "%.*s.gone", VFS_DIR_MAX, dir);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

/* True: it isn't there any more, or never was. */
static bool remove_all(const char *dir)
{
    enum { DESCRIPTORS = 4 };
    return nftw(dir, remove_one, DESCRIPTORS, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT;
}

static bool find_counter(struct view_store *s, char error[VIEW_ERROR_MAX])
{
    static const uint8_t first[] = {VIEW_COUNTER}, behind[] = {VIEW_COUNTER + 1};
    struct slice key, row;
    struct view_scan *scan =
        view_scan_open(s, slice_of(first, sizeof first), slice_of(behind, sizeof behind));
    bool found = view_scan_next(scan, &key, &row, error);
    view_scan_close(scan);
    return found;
}

static struct view_store *open_at(const char *dir, const struct view_store_options *o, bool read_only,
                                  char error[VIEW_ERROR_MAX])
{
    struct view_store *s = xcalloc(1, sizeof *s);
    char *message = NULL;
    set_options(s, o);
    s->read = rocksdb_readoptions_create();
    s->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(s->write, 1);
    s->flush = rocksdb_flushoptions_create();
    s->batch = rocksdb_writebatch_create();
    const char *const names[] = {"default"};
    const rocksdb_options_t *const options[] = {s->options};
    if (read_only)
        s->db = rocksdb_open_for_read_only_column_families(s->options, dir, 1, names, options, &s->family, 0,
                                                           &message);
    else
        s->db = rocksdb_open_column_families(s->options, dir, 1, names, options, &s->family, &message);
    bool good = view_store_went_well(message, error);
    if (good)
        atomic_init(&s->counters, find_counter(s, error));
    if (good && error[0] == 0)
        return s;
    view_store_close(s);
    return NULL;
}

struct view_store *view_store_open(const char *dir, const struct view_store_options *o,
                                   char error[VIEW_ERROR_MAX])
{
    char gone[PATH_MAX];
    name_gone(dir, gone);
    remove_all(gone); /* of a removal that was not finished; if it cannot be, it only takes room */
    return open_at(dir, o, false, error);
}

struct view_store *view_store_open_copy(const char *dir, const struct view_store_options *o,
                                        char error[VIEW_ERROR_MAX])
{
    return open_at(dir, o, true, error);
}

bool view_store_copy(struct view_store *s, const char *dir, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    rocksdb_checkpoint_t *copy = rocksdb_checkpoint_object_create(s->db, &message);
    if (!view_store_went_well(message, error))
        return false;
    message = NULL;
    rocksdb_checkpoint_create(copy, dir, 0, &message);
    rocksdb_checkpoint_object_destroy(copy);
    return view_store_went_well(message, error);
}

void view_store_close(struct view_store *s)
{
    if (s->family != NULL)
        rocksdb_column_family_handle_destroy(s->family);
    if (s->db != NULL)
        rocksdb_close(s->db);
    rocksdb_writebatch_destroy(s->batch);
    rocksdb_flushoptions_destroy(s->flush);
    rocksdb_writeoptions_destroy(s->write);
    rocksdb_readoptions_destroy(s->read);
    rocksdb_options_destroy(s->options);
    rocksdb_cache_destroy(s->cache);
    buf_free(&s->changed);
    free(s->changes);
    free(s);
}

void view_store_abandon(struct view_store *s)
{
    rocksdb_cancel_all_background_work(s->db, 0);
}

bool view_store_remove(const char *dir, char error[VIEW_ERROR_MAX])
{
    char gone[PATH_MAX];
    name_gone(dir, gone);
    error[0] = 0;
    if (!remove_all(gone) || (rename(dir, gone) < 0 && errno != ENOENT) || !remove_all(gone))
        snprintf(error, VIEW_ERROR_MAX, "cannot remove %.200s: %s", dir, strerror(errno));
    return error[0] == 0;
}

/* ---------------------------------------------------------------- writing */

void view_store_put(struct view_store *s, struct slice key, struct slice row)
{
    rocksdb_writebatch_put(s->batch, (const char *)key.data, key.len, (const char *)row.data, row.len);
}

void view_store_change(struct view_store *s, struct slice key, struct slice change)
{
    if (s->change_count == s->change_room) {
        s->change_room = s->change_room > 0 ? 2 * s->change_room : CHANGES;
        s->changes = xrealloc(s->changes, s->change_room * sizeof *s->changes);
    }
    if (key.data[0] == VIEW_COUNTER)
        atomic_store(&s->counters, true);
    s->changes[s->change_count++] =
        (struct change){.at = s->changed.len, .key_len = key.len, .len = change.len};
    buf_append(&s->changed, key.data, key.len);
    buf_append(&s->changed, change.data, change.len);
}

bool view_store_has_counters(const struct view_store *s)
{
    return atomic_load(&s->counters);
}

/* By their keys; those of one key stay in the order of their coming. */
static int compare_changes(const void *first, const void *second)
{
    const struct change *a = first, *b = second;
    int order = memcmp(a->key, b->key, a->key_len < b->key_len ? a->key_len : b->key_len);
    if (order == 0)
        order = (a->key_len > b->key_len) - (a->key_len < b->key_len);
    return order != 0 ? order : (a->at > b->at) - (a->at < b->at);
}

static void forget_changes(struct view_store *s)
{
    s->change_count = s->changed.len = 0;
}

/* In the order of their keys each goes into the database's memory beside the one before, which takes a third
 * less time than from the top. */
static void batch_changes(struct view_store *s)
{
    if (s->change_count == 0)
        return;
    for (size_t i = 0; i < s->change_count; i++)
        s->changes[i].key = s->changed.data + s->changes[i].at;
    qsort(s->changes, s->change_count, sizeof *s->changes, compare_changes);
    for (size_t i = 0; i < s->change_count; i++) {
        const struct change *c = &s->changes[i];
        rocksdb_writebatch_merge(s->batch, (const char *)c->key, c->key_len,
                                 (const char *)c->key + c->key_len, c->len);
    }
    forget_changes(s);
}

void view_store_delete(struct view_store *s, struct slice key)
{
    batch_changes(s); /* so that it comes behind them */
    rocksdb_writebatch_delete(s->batch, (const char *)key.data, key.len);
}

void view_store_compact(struct view_store *s)
{
    char *message = NULL, error[VIEW_ERROR_MAX];
    rocksdb_suggest_compact_range(s->db, "", 0, "ÿ", 1, &message);
    view_store_went_well(message, error); /* it was a suggestion */
}

bool view_store_is_layered(struct view_store *s)
{
    enum { LEVELS = 7 };
    char name[40];
    unsigned filled = 0;
    for (unsigned level = 0; level < LEVELS; level++) {
        snprintf(name, sizeof name, "rocksdb.num-files-at-level%u", level);
        char *value = rocksdb_property_value(s->db, name);
        filled += value != NULL && strcmp(value, "0") != 0;
        if (level == 0 && value != NULL && strcmp(value, "0") != 0)
            filled++; /* its files lie over each other */
        if (value != NULL)
            rocksdb_free(value);
    }
    return filled > 1;
}

uint64_t view_store_rows(struct view_store *s)
{
    uint64_t rows = 0;
    return rocksdb_property_int(s->db, "rocksdb.estimate-num-keys", &rows) == 0 ? rows : 0;
}

bool view_store_write(struct view_store *s, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    batch_changes(s);
    rocksdb_write(s->db, s->write, s->batch, &message);
    rocksdb_writebatch_clear(s->batch);
    return view_store_went_well(message, error);
}

void view_store_forget(struct view_store *s)
{
    forget_changes(s);
    rocksdb_writebatch_clear(s->batch);
}

bool view_store_flush(struct view_store *s, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    rocksdb_flush(s->db, s->flush, &message);
    return view_store_went_well(message, error);
}

/* ---------------------------------------------------------------- reading */

enum view_found view_store_get(struct view_store *s, struct slice key, struct buf *out,
                               char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    size_t len;
    rocksdb_pinnableslice_t *row =
        rocksdb_get_pinned(s->db, s->read, (const char *)key.data, key.len, &message);
    if (!view_store_went_well(message, error))
        return VIEW_FAILED;
    if (row == NULL)
        return VIEW_NOT_FOUND;
    const char *bytes = rocksdb_pinnableslice_value(row, &len);
    buf_append(out, bytes, len);
    rocksdb_pinnableslice_destroy(row);
    return VIEW_FOUND;
}

struct view_snapshot *view_snapshot_take(struct view_store *s)
{
    return (struct view_snapshot *)(uintptr_t)rocksdb_create_snapshot(s->db);
}

void view_snapshot_release(struct view_store *s, struct view_snapshot *snapshot)
{
    rocksdb_release_snapshot(s->db, (const rocksdb_snapshot_t *)snapshot);
}

/* The first error's text is kept, the others' are freed. */
static bool all_went_well(char **messages, size_t count, char error[VIEW_ERROR_MAX])
{
    char other[VIEW_ERROR_MAX];
    bool good = true;
    error[0] = 0;
    for (size_t i = 0; i < count; i++)
        good = view_store_went_well(messages[i], good ? error : other) && good;
    return good;
}

bool view_store_get_many(struct view_store *s, const struct slice *keys, size_t count, struct view_rows *out,
                         char error[VIEW_ERROR_MAX])
{
    const char *names[VIEW_ROWS_MAX] = {NULL};
    size_t lens[VIEW_ROWS_MAX] = {0};
    char *messages[VIEW_ROWS_MAX];
    assert(count <= VIEW_ROWS_MAX);
    for (size_t i = 0; i < count; i++) {
        names[i] = (const char *)keys[i].data;
        lens[i] = keys[i].len;
        messages[i] = NULL;
    }
    out->count = count;
    rocksdb_batched_multi_get_cf(s->db, s->read, s->family, count, names, lens,
                                 (rocksdb_pinnableslice_t **)out->rows, messages, false);
    return all_went_well(messages, count, error);
}

bool view_rows_at(const struct view_rows *rows, size_t i, struct slice *row)
{
    size_t len;
    if (rows->rows[i] == NULL)
        return false;
    const char *bytes = rocksdb_pinnableslice_value(rows->rows[i], &len);
    *row = slice_of(bytes, len);
    return true;
}

void view_rows_free(struct view_rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        if (rows->rows[i] != NULL)
            rocksdb_pinnableslice_destroy(rows->rows[i]);
    rows->count = 0;
}

struct view_scan *view_scan_open(struct view_store *s, struct slice from, struct slice to)
{
    return view_scan_open_at(s, NULL, from, to);
}

struct view_scan *view_scan_open_at(struct view_store *s, const struct view_snapshot *snapshot,
                                    struct slice from, struct slice to)
{
    struct view_scan *scan = xcalloc(1, sizeof *scan);
    buf_append(&scan->from, from.data, from.len);
    buf_append(&scan->to, to.data, to.len);
    scan->read = rocksdb_readoptions_create();
    if (snapshot != NULL)
        rocksdb_readoptions_set_snapshot(scan->read, (const rocksdb_snapshot_t *)snapshot);
    if (from.len > 0)
        rocksdb_readoptions_set_iterate_lower_bound(scan->read, (const char *)scan->from.data,
                                                    scan->from.len);
    rocksdb_readoptions_set_fill_cache(scan->read, 0); /* which is for gets: a scan would empty it */
    if (to.len > 0)
        rocksdb_readoptions_set_iterate_upper_bound(scan->read, (const char *)scan->to.data, scan->to.len);
    scan->rows = rocksdb_create_iterator(s->db, scan->read);
    return scan;
}

struct view_scan *view_scan_open_all(struct view_store *s)
{
    struct view_scan *scan = xcalloc(1, sizeof *scan);
    scan->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(scan->read, 0);
    scan->rows = rocksdb_create_iterator(s->db, scan->read);
    return scan;
}

/* The row that it stands at. */
static bool here(struct view_scan *scan, struct slice *key, struct slice *row, char error[VIEW_ERROR_MAX])
{
    char *message = NULL;
    size_t len;
    error[0] = 0;
    scan->begun = true;
    if (!rocksdb_iter_valid(scan->rows)) {
        rocksdb_iter_get_error(scan->rows, &message);
        view_store_went_well(message, error);
        return false;
    }
    const char *bytes = rocksdb_iter_key(scan->rows, &len);
    *key = slice_of(bytes, len);
    bytes = rocksdb_iter_value(scan->rows, &len);
    *row = slice_of(bytes, len);
    return true;
}

bool view_scan_next(struct view_scan *scan, struct slice *key, struct slice *row, char error[VIEW_ERROR_MAX])
{
    if (!scan->begun)
        rocksdb_iter_seek(scan->rows, (const char *)scan->from.data, scan->from.len);
    else if (rocksdb_iter_valid(scan->rows))
        rocksdb_iter_next(scan->rows);
    return here(scan, key, row, error);
}

bool view_scan_seek(struct view_scan *scan, struct slice key, struct slice *found, struct slice *row,
                    char error[VIEW_ERROR_MAX])
{
    rocksdb_iter_seek(scan->rows, (const char *)key.data, key.len);
    return here(scan, found, row, error);
}

bool view_scan_seek_back(struct view_scan *scan, struct slice key, struct slice *found, struct slice *row,
                         char error[VIEW_ERROR_MAX])
{
    rocksdb_iter_seek_for_prev(scan->rows, (const char *)key.data, key.len);
    return here(scan, found, row, error);
}

bool view_scan_back(struct view_scan *scan, struct slice *key, struct slice *row, char error[VIEW_ERROR_MAX])
{
    if (rocksdb_iter_valid(scan->rows))
        rocksdb_iter_prev(scan->rows);
    return here(scan, key, row, error);
}

void view_scan_close(struct view_scan *scan)
{
    rocksdb_iter_destroy(scan->rows);
    rocksdb_readoptions_destroy(scan->read);
    buf_free(&scan->from);
    buf_free(&scan->to);
    free(scan);
}

void view_behind(struct slice key, struct buf *out)
{
    static const uint8_t least = 0;
    buf_append(out, key.data, key.len);
    if (key.len > 0)
        buf_append(out, &least, 1);
}

void view_prefix_end(struct slice prefix, struct buf *out)
{
    size_t len = prefix.len;
    while (len > 0 && prefix.data[len - 1] == UINT8_MAX)
        len--;
    if (len == 0)
        return;
    buf_append(out, prefix.data, len);
    out->data[out->len - 1]++;
}
