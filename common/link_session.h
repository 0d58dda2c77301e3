/* The rules of a link for both ends, without sockets, clocks or threads: numbering, credit, what is sent
 * again, and how long an answer is kept. link_server.c and link_client.c do what these say; tests run them as
 * they are. */
#ifndef COMMON_LINK_SESSION_H
#define COMMON_LINK_SESSION_H

#include "buf.h"

/* ---- numbered things in rising order, found by number ---- */

struct link_item {
    struct link_item *prev, *next, *chain;
    uint64_t number;
};

struct link_items {
    struct link_item *first, *last;
    struct link_item **buckets; /* chains by number; a power of two of them */
    size_t bucket_count, count;
};

/* The number must be higher than all that are in there. */
void link_items_add(struct link_items *items, struct link_item *item, uint64_t number);
/* NULL when there is none. */
struct link_item *link_items_find(const struct link_items *items, uint64_t number);
void link_items_remove(struct link_items *items, struct link_item *item);
/* Frees the index; the items are the caller's. */
void link_items_free(struct link_items *items);

/* ---- the daemon's end: one for each session ---- */

enum { LINK_CHUNK_BYTES = 1 << 20 };

/* Answers that go out in one reply: at most LINK_CHUNK_BYTES, or one larger answer. */
struct link_chunk {
    struct link_chunk *next;
    uint64_t reply; /* number of the reply that carries it; 0: none yet, or that one was lost */
    uint32_t count;
    uint32_t sends;        /* replies that have carried it */
    int64_t not_before_ns; /* when the next may */
    int64_t since_ns;      /* when its first answer came */
    struct buf array;      /* the answers as one msgpack array */
};

struct link_receiver {
    uint64_t incarnation; /* random, not 0 */
    uint64_t accepted;    /* highest number accepted */
    uint64_t replies;     /* number of the last reply that carried answers */
    struct link_items unanswered;
    size_t unanswered_bytes;
    struct link_chunk *first, *last; /* only the first may be on its way */
    size_t answer_bytes;
};

/* Whether a request is the next one in order; if so it counts as accepted from now on. */
bool link_receiver_accept(struct link_receiver *r, uint64_t number, uint64_t previous);
/* A poll has arrived: forgets the answers that it says have arrived, puts back the others. Returns whether
 * the client knows this session; if not, it must be told at once. What was put back is due again after a
 * while that grows, since each reply that nobody reads costs its connection's memory. */
bool link_receiver_on_poll(struct link_receiver *r, uint64_t incarnation, uint64_t received, int64_t now_ns);
/* Keeps an answer until the client has it. */
void link_receiver_answer(struct link_receiver *r, uint64_t number, uint32_t type, struct slice body,
                          int64_t now_ns);
/* When a reply has something to carry: at once (0), from then on, or not as things are (INT64_MAX). */
int64_t link_receiver_ready_ns(const struct link_receiver *r);
/* The answers for the next reply (a msgpack array, possibly empty), and its number. */
struct slice link_receiver_reply(struct link_receiver *r, uint64_t *reply, int64_t now_ns);
void link_receiver_free(struct link_receiver *r);

/* ---- the client's end ---- */

/* A request until it is answered. */
struct link_out {
    struct link_item item;
    size_t bytes;   /* of the body, for the credit */
    bool forgotten; /* nobody wants the answer any more; its credit is still taken */
};

struct link_sender {
    struct link_items outstanding;
    uint64_t last_number;
    struct link_item *unsent; /* the first that was not sent on this connection; NULL: all were */
    size_t sent_bytes;
    uint32_t sent_count;
    size_t forgotten; /* outstanding ones that nobody waits for */
    bool greeted;     /* a poll_reply has come on this connection: sending is allowed */
    uint64_t incarnation, received, accepted;
    uint64_t credit_bytes;
    uint32_t credit_requests;
};

/* What a poll_reply says. */
struct link_news {
    uint64_t incarnation, reply, accepted, credit_bytes, credit_requests;
};

/* Gives the request the next number and queues it. */
void link_sender_add(struct link_sender *s, struct link_out *out, size_t bytes);
/* The next request to send, if credit allows one, and its `previous`; it counts as sent by link_sender_sent.
 */
struct link_out *link_sender_next(const struct link_sender *s, uint64_t *previous);
void link_sender_sent(struct link_sender *s);
bool link_sender_has_credit(const struct link_sender *s, size_t bytes);
/* The connection is lost: nothing is sent before the next poll_reply. */
void link_sender_lost(struct link_sender *s);
/* Takes in a poll_reply. Decides what is to be sent again, so call it before its answers are handed on.
 * Requests that were forgotten and need not be sent again are handed to drop. */
void link_sender_on_reply(struct link_sender *s, const struct link_news *news,
                          void (*drop)(struct link_out *out));
/* Takes the answered request out; NULL when the number is not outstanding. */
struct link_out *link_sender_take(struct link_sender *s, uint64_t number);
/* Nobody wants the answer. Returns the request when it can be freed, NULL when it is kept for its credit or
 * isn't there. */
struct link_out *link_sender_forget(struct link_sender *s, uint64_t number);

#endif
