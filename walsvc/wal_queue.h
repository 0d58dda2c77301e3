/* The three queues of walsvc's core: appends that wait for durability, appends that wait for a segment,
 * parked watermark requests. Pure; bounded by the credit of the link's sessions. */
#ifndef WAL_QUEUE_H
#define WAL_QUEUE_H

#include "wal_levels.h"

/* Of an append. */
struct wal_times {
    int64_t came_ns;
    int64_t due_ns; /* when it wants more than WAL_LOCAL; 0: it does not wait for that */
};

/* ---- answered when the durable LSN has reached until_lsn; a ring in that order ---- */
struct wal_waiter {
    struct link_token token;
    struct wal_answer answer;
    uint64_t hlc, until_lsn;
    size_t bytes;
    enum wal_level wanted;
    struct wal_times times;
    bool asks; /* is no append: asks whether that one landed */
};
struct wal_waiters {
    struct wal_waiter *ring;
    size_t cap, first, count;
};
void wal_waiters_push(struct wal_waiters *queue, const struct wal_waiter *waiter);
bool wal_waiters_pop(struct wal_waiters *queue, uint64_t durable_lsn, struct wal_waiter *out);
/* The session's want no more than durability from now on. */
void wal_waiters_drop(struct wal_waiters *queue, uint64_t session);
void wal_waiters_free(struct wal_waiters *queue);

/* ---- first in, first out ---- */
struct wal_stall {
    struct wal_stall *next;
    struct link_token token;
    struct msg_append request; /* its slices are lent */
    struct wal_times times;
};
struct wal_stalls {
    struct wal_stall *first, *last;
    size_t count;
};
void wal_stalls_push(struct wal_stalls *queue, struct link_token token, const struct msg_append *request,
                     struct wal_times times);
void wal_stalls_pop(struct wal_stalls *queue);
/* Removes the session's; returns the bytes of their entries. */
size_t wal_stalls_drop(struct wal_stalls *queue, uint64_t session);
void wal_stalls_free(struct wal_stalls *queue);

/* ---- in no order ---- */
struct wal_poll {
    struct link_token token;
    uint64_t newer_than;
    int64_t due_ns;
};
struct wal_polls {
    struct wal_poll *all;
    size_t count, cap;
};
void wal_polls_add(struct wal_polls *polls, const struct wal_poll *poll);
/* The last one takes its place. */
void wal_polls_remove(struct wal_polls *polls, size_t index);
/* Removes the session's. */
void wal_polls_drop(struct wal_polls *polls, uint64_t session);
/* When the first one's wait is over; INT64_MAX: never. */
int64_t wal_polls_due_ns(const struct wal_polls *polls);
void wal_polls_free(struct wal_polls *polls);

#endif
