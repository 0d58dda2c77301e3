/* libshanghai inside: what its files share.
 *
 *   sh_client.c  options, birth and death, the client's thread, node calls (status, log info)
 *   sh_query.c   the link to querysvc: endpoints, hello, calls with an answer
 *   sh_batch.c   batches: memory, encoding of entries, answers handed to callers
 *   sh_company.c whether a batch waits for callers who are about to come back
 *   sh_condition.c appends with a session or conditions   sh_producer.c whether an append landed
 *   sh_append.c  the callers' end of appends: checks, room, coalescing, waiting
 *   sh_send.c    the loop's end of appends: order, sequences, the link they go out by, retries
 *   sh_read.c    readers
 *   sh_log.c     what keeps a log: trims, the state of walsvc
 *   sh_nodes.c   members of the cluster: who and how they are, joins, leaves
 *   sh_replicas.c who follows which log
 *   sh_metrics.c what the node measures
 *   sh_group.c   replication groups: a client more for each that keys and streams lead to
 *   sh_kv.c      keys: gets and scans                     sh_session.c  what a session has seen
 *   sh_view.c    the view: how far it is, a digest of it
 *   sh_stream.c  streams: events of all logs, lists     sh_header.c   headers of events
 *   sh_cursor.c  cursors: taken, committed, listed
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
#include "group.h"
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
/* A client without endpoints, for shc_query_begin_anew. */
struct sh_client *shc_open_for_group(struct sh_client *root, const char *group, const uint8_t *cluster);
/* The two halves of sh_close but for the groups' clients: it does nothing any more; it is gone. */
void shc_stop(struct sh_client *c);
void shc_free(struct sh_client *c);
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
    uint64_t hlc;    /* what it has to come after; 0: nothing */
    struct id16 log; /* the one that it may land in; all zero: any. No asynchronous calls are in it then */
    bool moved;      /* it was refused here, since appends go to another log */
    struct sh_append_id id; /* as it went out last; sequence 0: it has not, or was refused since */
    uint32_t live;          /* calls that still wait for it */
    bool led; /* the caller who opened it sees to it that it goes when the time for company is over */
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
    struct id16 log; /* that appends go to; all zero: not known yet */
    size_t bytes;
    uint32_t room_waiters, flush_waiters;
    pthread_cond_t room, answered;
    bool closed; /* nothing more is taken */
    bool woken;  /* wake is on its way */
    struct shc_mail wake;
};

struct shc_batch *shc_batch_new(struct shc_queue *q, enum sh_ack ack);
/* Nothing joins the batch any more. */
void shc_batch_close(struct shc_queue *q, struct shc_batch *b);
void shc_batch_unref(struct shc_queue *q, struct shc_batch *b);
void shc_batch_free(struct shc_batch *b);
/* Bytes that the entry takes in a batch. */
size_t shc_entry_bytes(const struct sh_entry *e, size_t stream_bytes);
/* Of one that is no event, or has headers. SH_BAD_REQUEST, SH_TOO_LARGE: *why. */
enum sh_error shc_entry_check(const struct sh_entry *e, const char **why);
enum sh_error shc_headers_check(const struct sh_header *headers, uint32_t count, const char **why);
/* As a msgpack map. */
void shc_headers_pack(const struct sh_header *headers, uint32_t count, struct buf *out);
/* Appends the entry: the same bytes as entry_pack. */
void shc_entry_put(struct buf *out, const struct sh_entry *e, size_t stream_bytes);
/* What an append brings besides what the caller of sh_append gives. */
struct shc_extra {
    uint64_t hlc;        /* to come after; 0: nothing */
    struct slice first;  /* an encoded entry before the others, for which the frame is not shared; or empty */
    struct id16 log;     /* the one log that it may land in; all zero: any */
    int64_t deadline_ns; /* CLOCK_MONOTONIC */
};
/* sh_append's checks; *bytes: what the entries take encoded. */
enum sh_error shc_append_check(struct sh_client *c, const struct sh_entry *entries, uint32_t count,
                               enum sh_ack ack, size_t *bytes);
/* *moved: nothing was appended, since appends go to another log by now. */
enum sh_error shc_append(struct sh_client *c, const struct sh_entry *entries, uint32_t count, enum sh_ack ack,
                         const struct shc_extra *extra, struct sh_append_result *result, bool *moved);
/* The log that appends go to; waits until the node has said it. False: not in time. */
bool shc_wait_for_log(struct sh_client *c, int64_t deadline_ns, struct id16 *log);
/* Keeps for sh_last_append of this thread who the append was, when `error` leaves its outcome unknown;
 * first and count: its entries in the request. */
void shc_keep_append(enum sh_error error, const struct sh_append_id *id, uint32_t first, uint32_t count);
/* The batch's whole msgpack array. */
struct slice shc_batch_array(struct shc_batch *b);

/* ---------------------------------------------------------------- sessions */

/* The token: array of [log uuid, LSN]; empty: nothing to wait for, or no session. */
void shc_session_pack(const struct sh_session *session, struct buf *out);
/* Prepares an append to that log under the session: appends to out an entry of kind `after`, which names what
 * the session has seen of other logs and the log's frames do not come after yet; nothing when there is none.
 */
void shc_session_after(struct sh_session *session, struct id16 target, struct buf *out);
/* The append that was prepared last has landed in that log, for which it was. */
void shc_session_told(struct sh_session *session, struct id16 target);
/* The highest HLC that it has written or seen; 0: none, or no session. */
uint64_t shc_session_hlc(const struct sh_session *session);
/* What a node answered was of that HLC; session may be NULL. */
void shc_session_see_hlc(struct sh_session *session, uint64_t hlc);
void shc_session_copy(struct sh_session *to, const struct sh_session *from);
/* To an LSN, if it is not that far. */
void shc_session_raise(struct sh_session *session, struct id16 log, uint64_t lsn);
/* What a node has applied. False: malformed. */
bool shc_session_see(struct sh_session *session, struct slice applied);

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
    bool once;           /* in: `unavailable` is an answer too */
    bool greets;         /* in: it is not sent before the node has said hello */
    bool bound;          /* in: an append: it stays with the log that it was sent to */
    int64_t patience_ns; /* in: how long it may take; 0: timeout_ms of the options */
    struct id16 log;     /* of a bound one: where it went last */
    struct id16 for_log; /* in: of a bound one: the only log that it may go to; all zero: any */
    bool moved;          /* it was not sent, since that is not the node's log any more */
    bool parked;         /* of these two: waits for the node's hello */
    bool uncertain;      /* of a bound one: may have landed without our seeing the answer */
    bool overload_ends;  /* in: and so is `overloaded` */
    void (*on_end)(struct shc_call *call); /* in: instead of being waited for, with the loop's turn and not on
                                              a visit; may free the call. NULL: none */
    char refusal[SHC_DETAIL_MAX]; /* the last `unavailable` that it was tried again after; empty: none */
    /* Final when done: */
    atomic_uint done;
    enum sh_error error; /* SH_OK: reply is a body of reply_type */
    uint32_t reply_type; /* in: the one that is wanted */
    struct buf reply;
    uint64_t expected;   /* of an error */
    uint8_t current[64]; /* of a conflict, msgpack */
    size_t current_bytes;
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

/* ---------------------------------------------------------------- groups: sh_group.c */

enum { SHC_GROUPS_UNKNOWN, SHC_GROUPS_ONE, SHC_GROUPS_SEVERAL };

struct shc_group {
    _Atomic(struct sh_client *) client; /* NULL: nothing has led there yet */
    int64_t asked_ns;                   /* for its nodes, last; the loop's */
};

struct shc_groups {
    atomic_uint known; /* what follows, until the lock, does not change once there are several */
    struct group_set set;
    struct shc_group *all;
    uint8_t cluster[CLUSTER_ID_BYTES];
    pthread_mutex_t lock;      /* who opens a client */
    pthread_mutex_t callbacks; /* one at a time, whichever client's */
    /* The loop's: */
    uint64_t number; /* of the request for the nodes of group `asked`; 0: none is out */
    size_t asked;
    struct loop_timer look;
};
void shc_groups_open(struct sh_client *c);
/* The thread ends. */
void shc_groups_stop(struct sh_client *c);
/* It has ended: closes the groups' clients. */
void shc_groups_close(struct sh_client *c);
/* A hello of the user's client was answered. */
void shc_groups_met(struct sh_client *c, const struct msg_hello_reply *hello);
/* False: the answer is to another request. */
bool shc_groups_on_answer(struct sh_client *c, uint64_t number, uint32_t type, struct slice body);
void shc_groups_link_closed(struct sh_client *c);
/* Waits until that is known, but in a callback; false: there is one, or it is not known in time. */
bool shc_groups_are_several(struct sh_client *c, int64_t deadline_ns);
/* Whose nodes hold a key or a stream: the user's own client with one group, with an empty name, and as long
 * as nothing is known of groups. Does not wait. */
struct sh_client *shc_client_for(struct sh_client *c, enum group_kind kind, struct slice name);
/* The same, once it is known which groups there are: waits for that, timeout_ms of the options at most, but
 * in a callback. For what goes on for long. */
struct sh_client *shc_client_wait(struct sh_client *c, enum group_kind kind, struct slice name);
/* shc_ask, of a node of the group that the key or stream belongs to. */
enum sh_error shc_ask_group(struct sh_client *c, struct shc_call *call, enum group_kind kind,
                            struct slice name, uint32_t type, const void *message, uint32_t reply_type,
                            void *reply);
/* *c becomes the client to append the entries by. SH_BAD_REQUEST: they belong to two groups. SH_TIMEOUT,
 * SH_OVERLOADED (in a callback): no node was met, so that nothing is known of groups. Nothing was appended.
 */
enum sh_error shc_route(struct sh_client **c, const struct sh_entry *entries, uint32_t count,
                        int64_t deadline_ns);
/* Does it with all clients; the first error. */
enum sh_error shc_groups_flush(struct sh_client *c, enum sh_error (*flush)(struct sh_client *c));
/* Around what may call back. */
void shc_groups_begin_callback(struct sh_client *c);
void shc_groups_end_callback(struct sh_client *c);

/* ---------------------------------------------------------------- the loop's parts */

/* sh_query.c */
struct shc_query {
    struct link_client *link;
    size_t endpoint; /* index of the one in use */
    bool said_hello; /* and was answered, by the node of this log: */
    struct id16 log;
    uint64_t hello; /* number of the request, 0 for none */
    bool know_cluster;
    uint8_t cluster[CLUSTER_ID_BYTES];
    struct shc_call *calls;
    struct loop_timer stuck, hello_again;
};
void shc_query_open(struct sh_client *c);
/* There are other endpoints now: from the first one on. */
void shc_query_begin_anew(struct sh_client *c);
/* The one in use. */
const char *shc_query_endpoint(const struct sh_client *c);
/* A request to the node that is there; *number is 0 when it cannot be sent. */
void shc_query_send(struct sh_client *c, uint32_t type, struct slice body, uint64_t *number);
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
void shc_end_call(struct sh_client *c, const struct shc_call_back *call, enum sh_error error,
                  const char *detail, const struct sh_append_result *batch, const struct sh_append_id *id);
/* Wakes the callers of what was answered. */
void shc_wake_callers(struct sh_client *c);

/* sh_condition.c: a producer of appends with conditions, which one call uses at a time */
struct shc_writer {
    struct shc_writer *next;
    struct id16 id;
    uint32_t epoch;
    uint64_t sequence; /* the last one that was answered well */
};
void shc_writers_free(struct sh_client *c);
/* How long the node may wait with an answer: it gives up before the call does, since it can say how far it
 * is. */
uint64_t shc_wait_ms(const struct sh_client *c);

/* sh_get.c */
struct shc_gets {
    pthread_mutex_t lock;
    struct shc_get *head, **tail; /* waiting, the oldest first */
    uint32_t waiting;
    bool woken;  /* the loop looks at them, or is about to */
    bool mailed; /* `wake` is on its way */
    bool closing;
    struct shc_mail wake;
    uint32_t out; /* batches; the loop's */
};
void shc_gets_open(struct shc_gets *gets);
/* Sends what may go out now. */
void shc_gets_pump(struct sh_client *c);
/* No more are taken. */
void shc_gets_stop(struct shc_gets *gets);
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
    bool stopped; /* the thread has ended */
    struct shc_mail quit;
    struct sh_client *root;         /* of a group's client: the user's; NULL: it is that one */
    char group[GROUP_NAME_MAX + 1]; /* with root: its group, of which all its nodes must be */
    char away[GROUP_NAME_MAX + 64]; /* in words: nobody answers */
    struct shc_mail find;           /* to root: it is new, and has no endpoints */
    struct shc_groups groups;
    struct shc_queue queue;
    struct shc_query query;
    struct shc_gets gets;
    struct shc_sender sender;
    struct shc_writer *writers; /* that are not in use; with the queue's lock */
    uint64_t correlations;      /* the last one; the loop's */
    atomic_bool connected;      /* the query link */
    atomic_uint most_bytes;     /* of one append; 0 while unknown */
};

#endif
