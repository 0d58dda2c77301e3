/* How far all logs that walsvc holds are durable, and the long polls for that (`logs`). Pure. A change costs
 * a copy of a few words when nobody waits. Damage answers no poll that waits; the next answer tells of it. */
#ifndef WAL_LOGS_H
#define WAL_LOGS_H

#include "wal_core.h"
#include "wal_damage.h"
#include "wal_given_up.h"
#include "wal_queue.h"

/* The node's own log and so many copies. */
enum { WAL_COPIES_MAX = 64, WAL_LOGS_MAX = WAL_COPIES_MAX + 1 };

struct wal_log_place {
    struct id16 log;
    struct wal_durable durable;
    uint64_t first_lsn;        /* that is left */
    bool is_hidden;            /* a copy that is not served */
    bool is_free;              /* hidden, and no log's: the next one's */
    struct wal_damage *damage; /* its register; NULL: none is open */
};

struct wal_logs {
    struct id16 boot;
    uint64_t version;
    uint64_t closed;                        /* version of the register of closed logs */
    bool waits;                             /* for `own_log` */
    bool own_copy;                          /* the own log is open as a copy */
    struct wal_given_up given_up;           /* of the own log */
    struct wal_log_place all[WAL_LOGS_MAX]; /* the own one first */
    size_t count;
    size_t opening; /* copies of which nothing is known yet: polls wait for them, however long that takes */
    struct wal_polls polls;
    void (*reply)(void *arg, struct link_token token, const struct msg_logs_reply *reply);
    void *arg;
};

void wal_logs_free(struct wal_logs *logs);
void wal_logs_ask(struct wal_logs *logs, struct link_token token, const struct msg_logs *request,
                  int64_t now_ns);
/* A copy is being opened, and hidden; its place in `all`. There must be room. */
size_t wal_logs_add(struct wal_logs *logs, struct id16 log);
/* One of those has been, or cannot be; wal_logs_moved comes next. */
void wal_logs_opened(struct wal_logs *logs);
/* How far it is durable has changed, or what else its place says. */
void wal_logs_moved(struct wal_logs *logs, size_t index, const struct wal_durable *durable);
/* The copy is gone. */
void wal_logs_remove(struct wal_logs *logs, size_t index);
/* The register of closed logs has another version. */
void wal_logs_closed(struct wal_logs *logs, uint64_t version);
/* The own log waits no longer. */
void wal_logs_proved(struct wal_logs *logs);
/* What is lower than what was told says nothing, nor does what is told of a copy that is gone. */
void wal_logs_trimmed(struct wal_logs *logs, struct id16 log, uint64_t first_lsn);
void wal_logs_drop(struct wal_logs *logs, uint64_t session);
/* Answers what has waited long enough. */
void wal_logs_tick(struct wal_logs *logs, int64_t now_ns);
/* When wal_logs_tick is due; INT64_MAX: never. */
int64_t wal_logs_due_ns(const struct wal_logs *logs);

#endif
