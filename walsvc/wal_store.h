/* What walsvc has of each log that it holds, of its own and of every copy: the files, the register of damage,
 * and the two threads that look after them, preparer and janitor. Who appends (wal_commit.h, wal_copier.h)
 * comes on top. */
#ifndef WAL_STORE_H
#define WAL_STORE_H

#include "wal_dir.h"
#include "wal_janitor.h"
#include "wal_prepare.h"

struct wal_store;

/* What the threads tell, each on its own thread, with the options' arg. */
struct wal_store_options {
    struct wal_upkeep_settings settings;
    uint64_t segment_size;
    void (*on_answer)(void *arg, struct link_token token, uint32_t type, struct buf *body);
    void (*on_index_lost)(void *arg, struct wal_store *store);
    void (*on_trimmed)(void *arg, struct wal_store *store, uint64_t first_lsn);
    void (*on_drop)(void *arg, struct wal_store *store); /* see wal_upkeep.h */
    _Atomic int64_t *horizon_ns;                         /* the same */
    bool tells_horizon;
    void *arg;
};

struct wal_store {
    /* The caller fills these in; the store stays where it is. */
    const struct wal_dir *dir; /* the data directory; borrowed */
    struct id16 uuid;
    char path[PATH_MAX];       /* <data>/log/<uuid> */
    struct wal_damage *damage; /* borrowed */
    struct wal_log log;        /* the appender's while the threads run */
    /* The store's own. */
    struct wal_store_options options;
    struct wal_upkeep upkeep; /* the janitor's while it runs */
    atomic_bool stop_janitor;
    unsigned cuts;      /* of a copy: how often it was cut (wal_cut.h); the janitor's while it runs */
    unsigned cuts_told; /* those that the loop has heard of */
    struct wal_janitor *janitor; /* NULL: the threads don't run */
    struct wal_prepare *prepare;
    void (*on_next)(void *arg, enum wal_next next);
    void *next_arg;
};

/* Opens the upkeep; as wal_upkeep_open. */
enum service_exit wal_store_open(struct wal_store *store, const struct wal_store_options *options);
/* Starts the threads. on_next: what the preparer says of the next segment, on its thread. */
void wal_store_start(struct wal_store *store, void (*on_next)(void *arg, enum wal_next next), void *arg);
void wal_store_set(struct wal_store *store, const struct wal_upkeep_settings *settings);
/* Ends the threads; nobody appends any more. */
void wal_store_stop(struct wal_store *store);
/* Closes upkeep and log. */
void wal_store_close(struct wal_store *store);

#endif
