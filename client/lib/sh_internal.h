/* libshanghai inside: what its files share.
 *
 *   sh_client.c  options, birth and death, the client's thread, node calls (status, log info)
 *   sh_query.c   the link to querysvc: endpoints, hello, calls with an answer
 *   sh_batch.c   batches: memory, encoding of entries, answers handed to callers
 *   sh_company.c whether a batch waits for callers who are about to come back
 *   sh_append.c  the callers' end of appends: checks, room, coalescing, waiting
 *   sh_send.c    the loop's end of appends: order, sequences, the link they go out by, retries
 *   sh_read.c    readers
 *   sh_log.c     what keeps a log: trims, the state of walsvc
 *   sh_nodes.c   members of the cluster: who and how they are, joins, leaves
 *   sh_replicas.c who follows which log
 *   sh_kv.c      keys: gets and scans                     sh_session.c  what a session has seen
 *   sh_get.c     gets without waiting
 *   sh_health.c  how the cluster is, by one rule
 *   sh_events.c  subscriptions to what happens in the cluster
 *   sh_watch.c   changes of keys as they come
 *
 * Whoever has the loop's turn owns both links: the client's own thread, one of nng's that brings an answer,
 * or a caller on a visit, who sends what he has just added. They and the callers meet in struct shc_queue
 * (under its lock), in mail to the loop, and in words that a caller waits on (futexes). Callbacks never run
 * on a visit. */
#ifndef CLIENT_SH_INTERNAL_H
#define CLIENT_SH_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "frame.h"
#include "link.h"
#include "loop.h"
#include "sh_company.h"
#include "shanghai.h"

enum {
    SHC_DETAIL_MAX = 256,
    SHC_ARRAY_HEAD = 5,                    /* room in front of a batch's entries for the array's own head */
    SHC_MESSAGE_BYTES = (16 << 20) + 4096, /* RECVMAXSZ: as in link_server_default_limits */
    SHC_UNKNOWN_BYTES = 128 << 10, /* bound of a shared batch while the node's own limit, which may be 256
                                      KiB, isn't known */
};

struct sh_client;

/* ---------------------------------------------------------------- mail to the loop */

struct shc_mail {
    struct mail mail; /* first: what the mailbox links */
    void (*fn)(struct sh_client *c, void *arg);
    void *arg;
};
void shc_post(struct sh_client *c, struct shc_mail *mail);
/* The same, but dealt with by the caller when the loop's turn is free. */
void shc_visit(struct sh_client *c, struct shc_mail *mail);
/* How long a call that wants this acknowledgement waits, over all. */
int64_t shc_patience_ns(const struct sh_client *c, enum sh_ack ack);
/* For a new request: not 0, counting on from a number that each client draws. With the loop's turn. */
uint64_t shc_correlation(struct sh_client *c);
/* Whether this is a callback, which must not wait for anything. */
bool shc_on_own_thread(const struct sh_client *c);

/* ---------------------------------------------------------------- waiting on a word */

/* Waits until *word differs from value; false at the deadline (CLOCK_MONOTONIC, ns; INT64_MAX: none). */
bool shc_wait(atomic_uint *word, unsigned value, int64_t deadline_ns);
/* Sets the word and wakes all who wait; touches nothing else of its owner, who may free it at once. */
void shc_set(atomic_uint *word, unsigned value);

/* Keeps the sentence for sh_last_error_detail of this thread. */
void shc_detail(const char *text);
/* Copies a text with a NUL behind it; false when it doesn't fit or holds a NUL itself. */
bool shc_copy(char *out, size_t size, struct slice text);
/* A map of names to numbers; those of a newer version whose name is too long are left out. *out, also when it
 * is malformed (false), is freed by the caller; *count was 0. */
bool shc_counters(struct slice map, struct sh_counter **out, size_t *count);
/* What an array holds; no bytes at all, from a node that does not know the field, are none. Items are zeroed
 * before they are decoded; they, the malformed one included, are the caller's to free. */
struct shc_items {
    void *all;
    size_t count;
    bool good;
};
struct shc_items shc_items(struct slice array, size_t item_bytes, bool (*decode)(struct mp *m, void *item));
/* The first and the last durable LSN of a log, all zero for the node's own; sh_log_info's errors. */
enum sh_error shc_log_ends(struct sh_client *c, const uint8_t log[16], uint64_t *first, uint64_t *last);

/* ---------------------------------------------------------------- batches */

/* One asynchronous call within a batch. */
struct shc_call_back {
    sh_append_fn *fn; /* NULL once it was called */
    void *arg;
    uint32_t first, count; /* index of its first entry in the batch */
    int64_t deadline_ns;
};

/*            add                 send                answer
 *   (none) ───────► OPEN ──► READY ──► SENT ──────────────────► done
 *                              ▲        │ conflict
 *                              │        ▼
 *                              └──── REJECTED     READY again: the same sequence when the outcome is unknown,
 *                                                 a new one when the node has said that it wasn't taken */
enum shc_batch_state { SHC_OPEN, SHC_READY, SHC_SENT, SHC_REJECTED };

struct shc_batch {
    struct shc_batch *next, *next_answered;
    atomic_uint refs; /* the queue, and each synchronous caller */
    atomic_uint done; /* set when error, result and detail are final */

    /* Under the queue's lock: */
    enum shc_batch_state state;
    uint64_t order; /* 1, 2, 3, ... in the order of opening */
    enum sh_ack ack;
    uint32_t count;
    uint32_t live; /* calls that still wait for it */
    bool led;      /* the caller who opened it sees to it that it goes when the time for company is over */
    int64_t opened_ns, sent_ns, deadline_ns; /* sent_ns: first; deadline: of the youngest call */
    int64_t first_deadline_ns;               /* the earliest of all calls */
    struct buf body; /* SHC_ARRAY_HEAD bytes of room, then entries; frozen once not OPEN */
    struct shc_call_back *calls;
    uint32_t call_count, call_capacity, calls_expired;

    /* The loop's: */
    uint64_t sequence;    /* 0: not frozen yet */
    uint64_t correlation; /* from its first send on; whatever becomes of the sequence */
    uint64_t number;      /* of the request on the link, when SENT */
    bool uncertain;       /* may have reached the node without our seeing the answer */
    uint32_t rejections;

    /* The outcome: */
    enum sh_error error;
    struct sh_append_result result;
    char detail[SHC_DETAIL_MAX];
};

enum { SHC_LANES = SH_ACK_ALL + 1 };

/* Appends that want one acknowledgement, the callers' part: they never share a frame with others, nor wait
 * for them. */
struct shc_lane {
    struct shc_batch *open;            /* its last one, while entries may join it */
    bool wake_on_entry, wake_on_close; /* the loop wants to hear of the next entry, the next full batch */
    struct shc_company company;
};

/* What callers and the loop share. */
struct shc_queue {
    pthread_mutex_t lock;
    struct shc_batch *head, **tail; /* all that is unanswered, the oldest first; only the loop takes out */
    struct shc_batch *spare;        /* for use again */
    struct shc_lane lanes[SHC_LANES];
    uint32_t spares;
    uint64_t orders;
    size_t bytes;
    uint32_t room_waiters, flush_waiters;
    pthread_cond_t room, answered;
    bool woken; /* wake is on its way */
    struct shc_mail wake;
};

struct shc_batch *shc_batch_new(struct shc_queue *q, enum sh_ack ack);
/* Nothing joins the batch any more. */
void shc_batch_close(struct shc_queue *q, struct shc_batch *b);
void shc_batch_unref(struct shc_queue *q, struct shc_batch *b);
void shc_batch_free(struct shc_batch *b);
/* Bytes that the entry takes in a batch. */
size_t shc_entry_bytes(const struct sh_entry *e, size_t stream_bytes);
/* Of one that is no event. SH_BAD_REQUEST, SH_TOO_LARGE: *why. */
enum sh_error shc_entry_check(const struct sh_entry *e, const char **why);
/* Appends the entry: the same bytes as entry_pack. */
void shc_entry_put(struct buf *out, const struct sh_entry *e, size_t stream_bytes);
/* The batch's whole msgpack array. */
struct slice shc_batch_array(struct shc_batch *b);

/* ---------------------------------------------------------------- sessions */

/* The token: array of [log uuid, LSN]; empty: nothing to wait for, or no session. */
void shc_session_pack(const struct sh_session *session, struct buf *out);
/* What a node has applied. */
bool shc_session_see(struct sh_session *session, struct slice applied);
/* The same of one log. */
void shc_session_saw(struct sh_session *session, const uint8_t log[16], uint64_t lsn);
/* Freed with sh_session_free. */
struct sh_session *shc_session_copy(const struct sh_session *session);

/* ---------------------------------------------------------------- calls: a request and its answer */

struct shc_call {
    struct sh_client *client;
    struct shc_mail start, stop;
    struct shc_call *next;
    uint32_t type;
    struct buf body;
    int64_t deadline_ns;
    struct loop_timer timer; /* the deadline, or the next try if that comes first */
    int64_t again_ns;        /* when to try again; 0: it is out */
    uint64_t number;
    uint64_t correlation;
    bool once;                             /* in: `unavailable` is an answer too */
    void (*on_end)(struct shc_call *call); /* in: instead of being waited for, with the loop's turn and not on
                                              a visit; may free the call. NULL: none */
    char refusal[SHC_DETAIL_MAX]; /* the last `unavailable` that it was tried again after; empty: none */
    /* Final when done: */
    atomic_uint done;
    enum sh_error error; /* SH_OK: reply is a body of reply_type */
    uint32_t reply_type; /* in: the one that is wanted */
    struct buf reply;
    uint64_t expected; /* of an error */
    char detail[SHC_DETAIL_MAX];
};

/* Starts it; type, body, reply_type and deadline are set. Nothing of it may be touched until it is done. */
void shc_call_start(struct sh_client *c, struct shc_call *call);
/* The same with the loop's turn. */
void shc_call_here(struct sh_client *c, struct shc_call *call);
/* Ends it when it isn't done, and waits for that. */
void shc_call_stop(struct sh_client *c, struct shc_call *call);
void shc_call_free(struct shc_call *call);
/* Encodes, starts, waits: reply is a message struct of reply_type whose slices live as long as the call. */
enum sh_error shc_ask(struct sh_client *c, struct shc_call *call, uint32_t type, const void *message,
                      uint32_t reply_type, void *reply);

/* ---------------------------------------------------------------- the loop's parts */

/* sh_query.c */
struct shc_query {
    struct link_client *link;
    size_t endpoint; /* index of the one in use */
    bool said_hello;
    uint64_t hello; /* number of the request, 0 for none */
    bool know_cluster;
    uint8_t cluster[CLUSTER_ID_BYTES];
    struct shc_call *calls;
    struct loop_timer stuck, hello_again;
};
void shc_query_open(struct sh_client *c);
void shc_query_close(struct sh_client *c);

/* sh_send.c */

/* Whom the log sees behind a lane: a producer of its own, so that neither the order of sequences nor the
 * number of answers that the log remembers lets one lane wait for another. */
struct shc_producer {
    struct id16 id;
    uint64_t next_sequence, settled; /* settled: highest sequence that was answered for good */
    uint32_t sent;
    bool draining;     /* something was rejected: nothing new goes out before all else is answered */
    bool anew;         /* under another id, when drained */
    uint64_t expected; /* by the newest conflict, 0 for none */
};

struct shc_sender {
    struct link_client *link; /* NULL until the first hello */
    char endpoint[LINK_ENDPOINT_MAX];
    struct id16 log;
    bool has_log;
    /* Where the node that the query link has found wants its appends. */
    char wanted_endpoint[LINK_ENDPOINT_MAX];
    struct id16 wanted_log;
    bool move;

    struct shc_producer producers[SHC_LANES];
    bool disk_full;             /* the node's last word */
    struct shc_batch *answered; /* in this turn; their callers are woken at its end */
    bool paused;
    struct loop_timer pause, linger, tick, own_thread;
    bool ticking;
};
void shc_send_open(struct sh_client *c);
void shc_send_close(struct sh_client *c);
/* Sends what may go out now. */
void shc_pump(struct sh_client *c);
/* The query link has met a node: its appends go to this endpoint. */
void shc_send_target(struct sh_client *c, const char *endpoint, struct id16 log);

/* sh_outcome.c */
enum { SHC_DISK_FULL_PAUSE_MS = 200 }; /* before a node with a full disk is asked again */
/* The append link's on_answer. */
void shc_on_append_answer(void *client, uint64_t number, uint32_t type, struct slice body);
/* The batch is answered; nothing joins it any more. Its callbacks run before it leaves the queue, so that
 * sh_flush waits for them too. */
void shc_finish(struct sh_client *c, struct shc_batch *b, enum sh_error error, const char *detail);
/* Answered for good. Its sequence counts as taken even with an error: using it again could hide another
 * batch. */
void shc_settle(struct sh_client *c, struct shc_batch *b, enum sh_error error, const char *detail);
/* One asynchronous call is over; batch: what became of all of it. */
void shc_end_call(const struct shc_call_back *call, enum sh_error error, const char *detail,
                  const struct sh_append_result *batch);
/* Wakes the callers of what was answered. */
void shc_wake_callers(struct sh_client *c);

/* sh_get.c */
struct shc_gets {
    pthread_mutex_t lock;
    struct shc_get *head, **tail; /* waiting, the oldest first */
    uint32_t waiting;
    bool woken; /* the loop knows of them */
    bool closing;
    struct shc_mail wake;
    uint32_t out; /* batches; the loop's */
};
void shc_gets_open(struct shc_gets *gets);
/* Sends what may go out now. */
void shc_gets_pump(struct sh_client *c);
/* Calls back for all that wait; after shc_query_close. */
void shc_gets_end(struct sh_client *c);
void shc_gets_close(struct shc_gets *gets);

/* sh_kv.c: the next row of an answer about keys, which points into the answer; of a key that has nothing,
 * too. False: malformed. */
bool shc_row_next(struct mp *m, struct slice key, struct sh_row *row);

struct sh_client {
    struct sh_options options;
    char **endpoints;
    pthread_t thread;
    struct loop *loop;
    struct mailbox mailbox;
    struct loop_hook hook;
    bool visited; /* this turn is a caller's: no callbacks */
    struct shc_mail quit;
    struct shc_queue queue;
    struct shc_query query;
    struct shc_gets gets;
    struct shc_sender sender;
    uint64_t correlations;  /* the last one; the loop's */
    atomic_bool connected;  /* the query link */
    atomic_uint most_bytes; /* of one append; 0 while unknown */
};

#endif
