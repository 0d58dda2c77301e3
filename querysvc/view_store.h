/* The view's rows on disk: RocksDB in one folder, one column family, without its own log. What is written in
 * one batch is there wholly or not at all after a crash, and never without what was written before it; the
 * log that it comes from is what makes up for the rest (docs/view-format.md).
 *
 * One thread writes; any may read. Errors are RocksDB's, in words. */
#ifndef QUERYSVC_VIEW_STORE_H
#define QUERYSVC_VIEW_STORE_H

#include "view_row.h"

struct view_store;

enum { VIEW_ERROR_MAX = 256 };

/* What must be free on the disk as long as the store is open and written: RocksDB 7.8 as Debian builds it
 * aborts the process when it meets a full disk. More than a flush and a compaction, which are kept small,
 * take. */
#define VIEW_ROOM_BYTES (UINT64_C(64) << 20)

struct view_store_options {
    size_t cache_bytes;        /* of blocks that were read; indexes and filters of 256 open files are apart */
    size_t write_buffer_bytes; /* rows that are not on disk yet; twice that while they are being written */
};

/* Makes the folder when it isn't there. NULL: error says why. */
struct view_store *view_store_open(const char *dir, const struct view_store_options *options,
                                   char error[VIEW_ERROR_MAX]);
/* Rows that are not on disk yet go there first: there must be room. */
void view_store_close(struct view_store *store);
/* Nothing is written, nor freed: before the end of the process, when there is no room. */
void view_store_abandon(struct view_store *store);

/* A second view of what is readable now, vector and all, on disk when this returns true: links to the same
 * files, in a folder that isn't there yet (the one above it is). Any thread, while the store is held open. */
bool view_store_copy(struct view_store *store, const char *dir, char error[VIEW_ERROR_MAX]);
/* Only to be read. NULL: error says why. */
struct view_store *view_store_open_copy(const char *dir, const struct view_store_options *options,
                                        char error[VIEW_ERROR_MAX]);
/* Removes the folder, which nobody has open; a kill leaves all of it, or none. */
bool view_store_remove(const char *dir, char error[VIEW_ERROR_MAX]);

/* ---- writing ---- */
void view_store_put(struct view_store *store, struct slice key, struct slice row);
/* A change that is merged (view_merge). Of one key, changes are written behind its puts, whatever came first.
 */
void view_store_change(struct view_store *store, struct slice key, struct slice change);
/* Of what was gathered before. */
void view_store_delete(struct view_store *store, struct slice key);
/* What was gathered since the last one becomes readable, all at once. False: nothing did; the store is to be
 * closed. */
bool view_store_write(struct view_store *store, char error[VIEW_ERROR_MAX]);
/* Forgets what was gathered. */
void view_store_forget(struct view_store *store);
/* Rows that were deleted, or merged, free their room in the background. */
void view_store_compact(struct view_store *store);
/* Whether rows above the lowest level may still keep room of what was deleted. */
bool view_store_is_layered(struct view_store *store);
/* As RocksDB estimates it: from the files' numbers of rows, and of deletions. */
uint64_t view_store_rows(struct view_store *store);
/* All that was written is on disk when this returns true. */
bool view_store_flush(struct view_store *store, char error[VIEW_ERROR_MAX]);

/* ---- reading ---- */
/* False: none was readable when this was called, so no key need be looked up for one. */
bool view_store_has_counters(const struct view_store *store);

enum view_found { VIEW_FOUND, VIEW_NOT_FOUND, VIEW_FAILED };
/* Appends the row to out. */
enum view_found view_store_get(struct view_store *store, struct slice key, struct buf *out,
                               char error[VIEW_ERROR_MAX]);

/* Several at once, for less than one by one. Each may be as large as an entry: VIEW_ROWS_MAX bounds what they
 * take. */
enum { VIEW_ROWS_MAX = 32 };
struct view_rows {
    void *rows[VIEW_ROWS_MAX]; /* the database's; NULL: there is none */
    size_t count;
};
/* Freed with view_rows_free, also after a failure (false). Borrows the keys. */
bool view_store_get_many(struct view_store *store, const struct slice *keys, size_t count,
                         struct view_rows *out, char error[VIEW_ERROR_MAX]);
/* False: there is none. The row lives as long as the rows. */
bool view_rows_at(const struct view_rows *rows, size_t i, struct slice *row);
void view_rows_free(struct view_rows *rows);

/* Rows in the order of their keys, as they are when it is opened. */
struct view_scan;
/* From the first key that is not before `from`, as far as it is before `to`. Both are copied. */
struct view_scan *view_scan_open(struct view_store *store, struct slice from, struct slice to);
/* The rows as they are now, for scans that are to see the same ones; each belongs to its store. */
struct view_snapshot;
struct view_snapshot *view_snapshot_take(struct view_store *store);
void view_snapshot_release(struct view_store *store, struct view_snapshot *snapshot);
/* As view_scan_open, but the rows are those of the snapshot, which is released later than the scan is closed.
 */
struct view_scan *view_scan_open_at(struct view_store *store, const struct view_snapshot *snapshot,
                                    struct slice from, struct slice to);
/* All rows, once: the cache is left to others. */
struct view_scan *view_scan_open_all(struct view_store *store);
/* False: the end, or a failure: then error isn't empty. The slices are valid until the next call. */
bool view_scan_next(struct view_scan *scan, struct slice *key, struct slice *row, char error[VIEW_ERROR_MAX]);
/* The first row that is not before `key`, and from there on; the last one that is not behind it. Within
 * `from` and `to`. False: there is none, or a failure. */
bool view_scan_seek(struct view_scan *scan, struct slice key, struct slice *found, struct slice *row,
                    char error[VIEW_ERROR_MAX]);
bool view_scan_seek_back(struct view_scan *scan, struct slice key, struct slice *found, struct slice *row,
                         char error[VIEW_ERROR_MAX]);
/* The row before. */
bool view_scan_back(struct view_scan *scan, struct slice *key, struct slice *row, char error[VIEW_ERROR_MAX]);
void view_scan_close(struct view_scan *scan);

/* The first key behind `key`; empty: the first one of all, which is empty. */
void view_behind(struct slice key, struct buf *out);
/* The first key behind all that begin with `prefix`; empty: there is none. */
void view_prefix_end(struct slice prefix, struct buf *out);

#endif
