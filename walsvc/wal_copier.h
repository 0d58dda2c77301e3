/* The copier: the thread that keeps the copy of one other node's log, or of the node's own while that is
 * fetched back. It opens the copy, checks what comes
 * against it (wal_copy_check.h), writes all that waits in one go, syncs it once, and tells how far the copy
 * is durable. Each copy has its own, so that none ever delays an acknowledgement of the node's own log.
 *
 * A failed write or sync ends the process. A full disk doesn't: what needs room is refused until there is. */
#ifndef WAL_COPIER_H
#define WAL_COPIER_H

#include "wal_closed.h"
#include "wal_copy_check.h"
#include "wal_given_up.h"
#include "wal_store.h"

struct wal_copier;

/* What became of a copy_append. */
struct wal_copy_answer {
    struct link_token token;
    struct wal_refusal refusal; /* code SH_OK: it is durable */
};

/* What a copier has to tell. */
struct wal_copy_news {
    enum sh_error state;        /* SH_OK: the copy is served; else why not. SH_NOT_FOUND: it was dropped */
    struct wal_durable durable; /* with SH_OK: how far */
    uint64_t first_lsn;         /* that is left; 0: nothing new of that */
    unsigned cuts;              /* how often it was cut since the start */
    /* Of the node's own log: what was given up of it. */
    struct wal_given_up given_up;
    struct wal_copy_answer *answers;
    size_t count;
    bool stays; /* it was asked to drop the copy, and there is a reason not to */
};

struct wal_copier_options {
    const struct wal_dir *dir; /* borrowed; the own log is the one that it names */
    struct wal_closed *closed; /* the register; borrowed */
    struct id16 log;
    struct wal_store_options store;
    /* On the copier's thread: the first time when the copy is open, or cannot be opened. news->answers is
     * taken over. */
    void (*on_news)(void *arg, const struct wal_copy_news *news);
    void *arg;
};

/* Opens the copy in the background; its folder is made when it isn't there. */
struct wal_copier *wal_copier_start(const struct wal_copier_options *options);
/* Its bytes are borrowed until it is answered, or wal_copier_detach. Anything but SH_OK: the copy cannot be
 * served, and this is not taken. */
enum sh_error wal_copier_put(struct wal_copier *copier, struct link_token token,
                             const struct msg_copy_append *message);
/* The bytes of this session's requests are about to be freed: forgets those that wait, waits for those that
 * are being written. At once when it has sent none. */
void wal_copier_detach(struct wal_copier *copier, uint64_t session);
/* The settings have changed. */
void wal_copier_set(struct wal_copier *copier, const struct wal_upkeep_settings *settings);
/* The log is closed, or not any more. The copy is served. */
void wal_copier_gone(struct wal_copier *copier, const struct wal_gone *gone);
/* Drops the copy of a closed log, if it may (wal_upkeep_may_drop) and still ends where the log is closed:
 * threads end, the register gets the log, its folder goes. on_news tells what became of it. Until then
 * nothing more may be asked of the copy, its janitor included. */
void wal_copier_drop(struct wal_copier *copier);
/* The copy's files and threads; only once on_news has told that it is served. */
struct wal_store *wal_copier_store(struct wal_copier *copier);
/* Ends the threads: writes what waits, as far as there is a segment for it, and the mark. */
void wal_copier_stop(struct wal_copier *copier);
/* After that. */
void wal_copier_free(struct wal_copier *copier);

#endif
