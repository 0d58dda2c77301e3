/* How far the log's entries are durable elsewhere, and the appends that wait for it. Pure.
 *
 * An append comes in here once it is durable on this node, and leaves when the level it wants is reached,
 * when its time is over, or when its session is dropped. Appends that want no more than `local` never do.
 * Bounded by the credit of the link's sessions: a request that waits is unanswered. */
#ifndef WAL_LEVELS_H
#define WAL_LEVELS_H

#include "link.h"
#include "wal_producers.h"

/* The numbers of `ack` in messages. */
enum wal_level { WAL_LOCAL, WAL_QUORUM, WAL_ALL };

struct wal_level_wait {
    struct link_token token;
    struct wal_answer answer;
    uint64_t hlc;
    enum wal_level wanted;
    int64_t due_ns, came_ns;
};

struct wal_level_waiter;

/* A binary heap: what is reached, or due, first is on top. */
struct wal_level_heap {
    struct wal_level_waiter **all;
    size_t count, cap;
};

/* All zero: nothing is known of the others yet. */
struct wal_levels {
    uint64_t quorum_lsn, all_lsn;    /* UINT64_MAX: whatever is durable here */
    uint64_t session;                /* that told so */
    struct wal_level_heap by_lsn[2]; /* of those that want a quorum, and all */
    struct wal_level_heap by_due;    /* everyone */
};

void wal_levels_free(struct wal_levels *levels);
/* Takes over what a session tells; durable_lsn: of the log here. NULL, or why nothing of it is believed. */
const char *wal_levels_told(struct wal_levels *levels, uint64_t session, const struct msg_replicated *told,
                            uint64_t durable_lsn);
/* The highest level of an answer whose entries are durable here. */
enum wal_level wal_levels_of(const struct wal_levels *levels, const struct wal_answer *answer);
void wal_levels_wait(struct wal_levels *levels, const struct wal_level_wait *wait);
/* Take out one that has reached what it wants, one that has waited long enough, any one; false: there is
 * none.
 */
bool wal_levels_pop_reached(struct wal_levels *levels, struct wal_level_wait *out);
bool wal_levels_pop_due(struct wal_levels *levels, int64_t now_ns, struct wal_level_wait *out);
bool wal_levels_pop_any(struct wal_levels *levels, struct wal_level_wait *out);
/* When the next one is due; INT64_MAX: never. */
int64_t wal_levels_due_ns(const struct wal_levels *levels);
/* The session's appends are forgotten, and that whatever is durable here counts, if that is its word. */
void wal_levels_drop(struct wal_levels *levels, uint64_t session);

#endif
