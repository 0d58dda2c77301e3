/* All copies that walsvc keeps, the node's own log among them while it is fetched back, as the loop sees
 * them: finds them at the start, makes new ones, hands over what comes for them, answers. Everything with the
 * loop's turn. */
#ifndef WAL_COPIES_H
#define WAL_COPIES_H

#include "wal_copier.h"
#include "wal_logs.h"
#include "wal_mend.h"

struct wal_copies;

struct wal_copies_options {
    struct loop *loop;
    const struct wal_dir *dir; /* borrowed */
    struct wal_store_options store;
    struct link_server *link;
    struct wal_logs *logs; /* gets the copies' places; holds the own log's, */
    bool own;              /* unless that is open as a copy: then it is the first copy, and logs is empty */
    struct wal_closed *closed;    /* the register of closed logs; borrowed */
    void (*on_change)(void *arg); /* logs has changed by itself */
    /* The own log as a copy: how far it is durable, or why it cannot be served. */
    void (*on_own)(void *arg, enum sh_error state, const struct wal_durable *durable);
    struct wal_mend **mend; /* where it is, or NULL is; may be at work on a copy */
    void *arg;
};

/* Begins to open every copy there is, in the background. */
struct wal_copies *wal_copies_open(const struct wal_copies_options *options);
void wal_copies_on_append(struct wal_copies *copies, const struct link_request *request);
/* SH_OK: *store, whose threads run, and how far it is durable. SH_NOT_FOUND. SH_UNAVAILABLE: the copy is
 * being opened. Else why it is not served. */
enum sh_error wal_copies_find(struct wal_copies *copies, struct id16 log, struct wal_store **store,
                              uint64_t *durable_end);
/* An index of that copy was removed, to be made again. */
void wal_copies_index_lost(struct wal_copies *copies, struct id16 log);
/* ---- closed logs: wal_copies_gone.c ---- */
/* log_gone and closed_logs; false: it is another request. */
bool wal_copies_on_closed(struct wal_copies *copies, const struct link_request *request);
/* False, and refused (trimmed): the log was closed and dropped here, and does not live again. */
bool wal_copies_may_begin(struct wal_copies *copies, struct link_token token, struct id16 log);
/* The janitor says that the copy of a closed log may go: it is dropped in the background, if that is so. */
void wal_copies_drop_copy(struct wal_copies *copies, struct id16 log);
/* ---- */
void wal_copies_drop(struct wal_copies *copies, uint64_t session);
void wal_copies_set(struct wal_copies *copies, const struct wal_upkeep_settings *settings);
/* Ends their threads; what they have done is answered. */
void wal_copies_stop(struct wal_copies *copies);
void wal_copies_close(struct wal_copies *copies);

#endif
