/* What is done about damage: repair and accepted losses. Both read a segment or two, and write and sync: they
 * are tasks of the janitor, one request at a time (another one meanwhile is `overloaded`, which bounds memory
 * by one message), so that neither the loop nor the committer ever waits for them.
 *
 *   repair:       look, copy, write, sync ──────────────────────────────────────────────► answer
 *   accept_loss:  look ──► loss frame, by the core and the committer ──► register ──► answer
 *
 * Everything but the janitor's part runs with the loop's turn. */
#ifndef WAL_MEND_H
#define WAL_MEND_H

#include "link.h"
#include "wal_core.h"
#include "wal_store.h"

struct wal_mend;

struct wal_mend_options {
    struct loop *loop;
    struct wal_store *own; /* the node's own log, the only one whose losses are accepted here; borrowed */
    struct wal_core *core;
    struct link_server *link;
};

struct wal_mend *wal_mend_open(const struct wal_mend_options *options);
/* Requests as they came in; each is answered once. store: of the log that is to be repaired, whose threads
 * run, and which is durable up to durable_end. */
void wal_mend_on_repair(struct wal_mend *mend, const struct link_request *request, struct wal_store *store,
                        uint64_t durable_end, const struct msg_repair *message);
void wal_mend_on_accept_loss(struct wal_mend *mend, const struct link_request *request,
                             const struct msg_accept_loss *message);
/* What the core says of the loss frame: it is durable, or will not be. */
void wal_mend_accepted(struct wal_mend *mend);
void wal_mend_refused(struct wal_mend *mend, enum sh_error error, const char *text);
/* A copy's store is about to go. False: not now, a request is in work. */
bool wal_mend_forget(struct wal_mend *mend, const struct wal_store *store);
/* The committer and all janitors have ended, the core and the link have not. What is not done is not
 * answered. */
void wal_mend_close(struct wal_mend *mend);

#endif
