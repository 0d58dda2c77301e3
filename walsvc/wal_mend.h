/* What is done about damage: repair and accepted losses. Both read a segment or two, and write and sync: on a
 * thread of their own, one request at a time (another one meanwhile is `overloaded`, which bounds memory by
 * one message), so that neither the loop nor the committer ever waits for them.
 *
 *   repair:       look, copy, write, sync ──────────────────────────────────────────────► answer
 *   accept_loss:  look ──► loss frame, by the core and the committer ──► register ──► answer
 *
 * Everything but the thread's own work runs with the loop's turn. */
#ifndef WAL_MEND_H
#define WAL_MEND_H

#include "link.h"
#include "wal_core.h"
#include "wal_dir.h"

struct wal_mend;

struct wal_mend_options {
    struct loop *loop;
    const struct wal_dir *dir; /* with its register of damage; borrowed */
    struct wal_core *core;
    struct link_server *link;
};

struct wal_mend *wal_mend_start(const struct wal_mend_options *options);
/* Requests as they came in; each is answered once. */
void wal_mend_on_repair(struct wal_mend *mend, const struct link_request *request);
void wal_mend_on_accept_loss(struct wal_mend *mend, const struct link_request *request);
/* What the core says of the loss frame: it is durable, or will not be. */
void wal_mend_accepted(struct wal_mend *mend);
void wal_mend_refused(struct wal_mend *mend, enum sh_error error, const char *text);
/* Ends the thread, after what it is doing; the committer has ended, the core and the link have not. */
void wal_mend_stop(struct wal_mend *mend);

#endif
