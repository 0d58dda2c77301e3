/* What view_store.c and view_import.c share: RocksDB's handles. */
#ifndef QUERYSVC_VIEW_STORE_PARTS_H
#define QUERYSVC_VIEW_STORE_PARTS_H

#include <rocksdb/c.h>
#include <stdatomic.h>

#include "view_store.h"

struct change;
struct view_store {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    rocksdb_flushoptions_t *flush;
    rocksdb_writebatch_t *batch;
    rocksdb_column_family_handle_t *family; /* the only one */
    struct buf changed;                     /* keys and changes that are not in the batch yet, */
    struct change *changes;                 /* in the order of their coming; view_store.c's own */
    size_t change_count, change_room;
    atomic_bool counters; /* there may be some; set before the first one becomes readable */
};

/* Takes RocksDB's message; true: there was none. */
bool view_store_went_well(char *message, char error[VIEW_ERROR_MAX]);

#endif
