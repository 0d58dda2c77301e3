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
#include "wal_dir.h"
#include "wal_janitor.h"

struct wal_mend;

struct wal_mend_options {
    struct loop *loop;
    const struct wal_dir *dir; /* with its register of damage; borrowed */
    struct wal_core *core;
    struct link_server *link;
    struct wal_janitor *janitor;
    struct wal_upkeep *upkeep;   /* the janitor's: it learns what a repair changes */
    void (*on_whole)(void *arg); /* a damaged range is repaired: its segment's index can be made again */
    void *arg;
};

struct wal_mend *wal_mend_open(const struct wal_mend_options *options);
/* Requests as they came in; each is answered once. */
void wal_mend_on_repair(struct wal_mend *mend, const struct link_request *request);
void wal_mend_on_accept_loss(struct wal_mend *mend, const struct link_request *request);
/* What the core says of the loss frame: it is durable, or will not be. */
void wal_mend_accepted(struct wal_mend *mend);
void wal_mend_refused(struct wal_mend *mend, enum sh_error error, const char *text);
/* The committer and the janitor have ended, the core and the link have not. What is not done is not answered.
 */
void wal_mend_close(struct wal_mend *mend);

#endif
