/* libshanghai: the C client library of Shanghai.
 *
 * All functions are thread-safe except that one iterator (reader, events, watch) belongs to one thread at a
 * time. A client runs threads of its own for connections. No function ends the process; out of memory does.
 */
#ifndef SHANGHAI_H
#define SHANGHAI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shanghai_error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sh_client;
struct sh_reader;

/* How far an append must be durable before it is answered: on this node, on a majority of the members of its
 * group (this node included), on all of them. */
enum sh_ack { SH_ACK_LOCAL = 0, SH_ACK_QUORUM = 1, SH_ACK_ALL = 2 };

/* How a client behaves; start from sh_default_options(). All values are copied by sh_open. */
struct sh_options {
    /* "ipc:///run/shanghai/n1/query", "tcp://10.0.0.1:4000"; tried in order. Of whichever nodes of the
     * cluster: those of the group that a key or a stream belongs to are found by themselves. */
    const char *const *endpoints;
    size_t endpoint_count;
    uint32_t timeout_ms; /* of each call, over all its retries; 30,000 */
    /* How long the node waits for an append to reach a quorum, or all, from its arrival there; an append that
     * wants one of these may take so much longer than timeout_ms. 5,000; 0: it says what is reached at once.
     */
    uint32_t ack_timeout_ms;
    /* Entries of concurrent callers that wait for the same moment, and want the same acknowledgement, are
     * sent as one frame; the bounds of such a frame: */
    uint32_t batch_entries; /* 4,096 */
    uint32_t batch_bytes;   /* bytes of encoded entries; 1 MiB */
    uint32_t linger_us;     /* how long an entry may wait for company when nothing is outstanding; 0 */
    uint32_t in_flight;     /* append requests that may be unanswered, of each acknowledgement; 4 */
    /* Entries waiting or unanswered, all callers; appends wait beyond; 64 MiB. With several replication
     * groups this and in_flight are those of each. */
    size_t queue_bytes;
    bool at_least_once; /* may re-send an append to another node after an unknown outcome */
    bool no_direct;     /* never append to walsvc's own link; for tests and measurements */
};
/* The defaults named above and none of the flags; the endpoints, which have none, are left to the caller. */
struct sh_options sh_default_options(void);

/* Opens a client; connects in the background. *client is freed with sh_close. SH_BAD_REQUEST: options. */
enum sh_error sh_open(const struct sh_options *options, struct sh_client **client);
/* Drops what is unanswered (its callbacks get SH_UNAVAILABLE) and frees the client. No other call may be
 * running. */
void sh_close(struct sh_client *client);

enum sh_entry_kind {
    SH_ENTRY_EVENT = 0,  /* of a stream */
    SH_ENTRY_PUT = 1,    /* a key gets a value */
    SH_ENTRY_DELETE = 2, /* a key has none any more */
    SH_ENTRY_ADD = 3     /* to a key's counter */
};

/* What an event says beside its payload; the value is any bytes. */
struct sh_header {
    const char *name; /* UTF-8, at least one byte; not NUL-terminated when it was read */
    size_t name_bytes;
    const void *value;
    size_t value_bytes;
};

/* One thing to append; an event when nothing else is said. Borrowed for the call. */
struct sh_entry {
    const char *stream;  /* of an event: NULL or "" for the empty stream; at most 255 bytes of UTF-8 */
    const void *payload; /* of an event; the value of a put */
    size_t payload_bytes;
    enum sh_entry_kind kind;
    const void *key; /* of put, delete, add: 1 to 4,096 bytes */
    size_t key_bytes;
    uint64_t ttl_ms;                 /* of a put: how long it lasts; 0: for ever */
    int64_t delta;                   /* of an add; sums wrap around beyond 64 bits */
    const struct sh_header *headers; /* of an event; NULL: none */
    uint32_t header_count;           /* at most 64 */
};

/* Where the entries of one append call landed. */
struct sh_append_result {
    uint8_t log[16];    /* uuid of the log */
    uint64_t first_lsn; /* the others follow without gaps */
    uint32_t count;
    enum sh_ack ack;   /* level reached; of an append that wanted SH_ACK_LOCAL always that */
    uint64_t hlc;      /* of all entries: with log and LSN the version of what was written; 0 after a retry */
    uint64_t seen_hlc; /* not below `hlc`, also after a retry: for sh_session_wrote */
};

/* Appends 1..65,536 entries, all or none, and waits until they are durable, timeout_ms of the options at
 * most. When `ack` wants more than this node, it is waited for too, ack_timeout_ms of the options at most;
 * then SH_OK comes all the same, and result->ack says what was reached: the entries are durable on this node,
 * and may yet reach the others. Appends that want less never wait for these. A retry after a restart of the
 * node never doubles them. While the node's disk is full it is tried again; SH_DISK_FULL comes when the time
 * is nearly over. All keys and
 * streams of one call belong to one replication group, or it is SH_BAD_REQUEST; it goes to a node of that
 * group. *result, unless NULL, is filled with SH_OK only. The outcome is unknown with SH_TIMEOUT
 * (unless the detail says that the client's queue stayed full, or that it was not appended), with
 * SH_UNAVAILABLE (the client was closed), SH_SEQUENCE_EXPIRED (the node no longer remembers whether an
 * earlier try landed) and SH_INTERNAL (the node's answer makes no sense). Nothing was appended with any other
 * error: SH_BAD_REQUEST (also: in a callback), SH_TOO_LARGE, SH_DISK_FULL, SH_READ_ONLY, ... */
enum sh_error sh_append(struct sh_client *client, const struct sh_entry *entries, uint32_t count,
                        enum sh_ack ack, struct sh_append_result *result);

/* The same without waiting; fn is called once, with sh_append's errors and a result that lives for the call
 * (NULL with an error), on a thread of the client's, one at a time. It must not block: what would wait is
 * refused there with SH_BAD_REQUEST or SH_OVERLOADED, and sh_close and sh_read_close are not allowed. Waits
 * only while queue_bytes is used up, and with a key or a stream until the first node was met, since that one
 * tells which groups there are (SH_TIMEOUT after timeout_ms). With an error returned nothing is appended
 * and fn is not called: these three, SH_UNAVAILABLE (the client is being closed) and SH_TOO_LARGE. Entries
 * are copied. Calls made by one thread, with the same `ack`, are appended in their order, as far as they
 * belong to one group; those of the empty stream among themselves. */
typedef void sh_append_fn(void *arg, enum sh_error error, const struct sh_append_result *result);
enum sh_error sh_append_async(struct sh_client *client, const struct sh_entry *entries, uint32_t count,
                              enum sh_ack ack, sh_append_fn *fn, void *arg);
/* Waits until everything appended so far has been answered, well or not. SH_TIMEOUT after timeout_ms and
 * ack_timeout_ms of the options. */
enum sh_error sh_flush(struct sh_client *client);

/* Who a request was for the log: its producer numbers what it sends. */
struct sh_append_id {
    uint8_t producer[16];
    uint32_t epoch;
    uint64_t sequence;
    uint32_t first, count; /* the call's entries in the request's frame, which others may share: the first
                              one's place, from 0, and how many; count 0: the whole frame */
};
/* The request of this thread's last append, when it ended with an error that leaves its outcome unknown (in
 * the callback of an asynchronous one). False: it did not, or was never sent: then nothing was appended. */
bool sh_last_append(struct sh_append_id *id);

enum sh_landed {
    SH_LANDED,           /* and is durable */
    SH_NOT_LANDED,       /* not yet: while the client lives, or its node is away, it may still */
    SH_LANDED_SOMEWHERE, /* where is not remembered any more */
    SH_LANDED_FORGOTTEN, /* nothing is remembered of this producer */
    SH_LANDED_FENCED     /* a higher epoch has landed: it does not any more; whether it had is forgotten */
};
struct sh_producer_status {
    enum sh_landed landed;
    uint8_t log[16];    /* that was looked in: the own log of the node */
    uint64_t first_lsn; /* with SH_LANDED: of the call's entries, by id->first and id->count */
    uint32_t count;
};
/* Asks the node whether the request landed in its own log. It remembers the last 256 requests of the last
 * 1,024 producers; a request that went to another node it does not know: ask that one. The outcome is unknown
 * no more when the client that sent the request is closed, and its node answers. sh_status's errors. */
enum sh_error sh_producer_status(struct sh_client *client, const struct sh_append_id *id,
                                 struct sh_producer_status *status);
/* "landed", "not_landed", ... A static string. */
const char *sh_landed_name(enum sh_landed landed);

/* Most bytes of one append, where an entry takes its payload, its stream and at most 10 bytes more; 0 before
 * the node has been met. Larger ones get SH_TOO_LARGE. */
size_t sh_append_bytes_max(const struct sh_client *client);

/* ---- keys ---- */

/* What a client has written and seen: reads that are given it answer with nothing older, on any node. One
 * thread at a time. */
struct sh_session;
/* One that has written and seen nothing; freed with sh_session_free. */
struct sh_session *sh_session_new(void);
/* NULL is none. */
void sh_session_free(struct sh_session *session);
/* What was appended is part of it from now on (sh_append_with does it by itself). */
void sh_session_wrote(struct sh_session *session, const struct sh_append_result *result);
/* As text, a line for each log and one for the clock, to be kept or passed on; the caller frees it. */
char *sh_session_text(const struct sh_session *session);
/* Adds what such a text says. SH_BAD_REQUEST: it is none; nothing was added. */
enum sh_error sh_session_take(struct sh_session *session, const char *text);
/* LSN of the last entry of that log that is part of it; 0: none is. */
uint64_t sh_session_lsn(const struct sh_session *session, const uint8_t log[16]);
/* The log's entries up to that LSN are part of it from now on. */
void sh_session_raise(struct sh_session *session, const uint8_t log[16], uint64_t lsn);

struct sh_key {
    const void *bytes; /* 1 to 4,096 */
    size_t len;
};

/* Where a value was written. */
struct sh_version {
    uint8_t log[16];
    uint64_t lsn, hlc;
};

/* ---- appends that depend on something ---- */

enum sh_condition_kind {
    SH_IF_STREAM, /* the last event of a stream is at `at` */
    SH_IF_KEY     /* the value of a key was written at `at` */
};
struct sh_condition {
    enum sh_condition_kind kind;
    const void *name; /* of the stream, at most 255 bytes; the key, 1 to 4,096 */
    size_t name_bytes;
    struct sh_version at; /* LSN 0: the stream has no events; the key has no value, or none any more. Its HLC
                             is not looked at */
};
/* What does not hold. */
struct sh_conflict {
    size_t condition;          /* its index */
    struct sh_version current; /* what is there instead; LSN 0: nothing */
};

struct sh_append_options {
    struct sh_session *session;            /* NULL: none */
    const struct sh_condition *conditions; /* 256 at most */
    size_t condition_count;
    struct sh_conflict *conflict; /* gets what does not hold, when SH_CONFLICT comes for that; may be NULL */
};
/* sh_append with what `options` say (NULL: nothing).
 *
 * Under a session: the entries are written after all that the session has written and seen, on whatever node:
 * a put takes the place of what was read. Views apply them after that too: for it an entry of its own stands
 * before them when the session has seen other logs, which the result leaves out; so at most 65,535 are the
 * caller's. The session has written them then. SH_CLOCK_DRIFT: what was seen is from a clock more than 60 s
 * ahead of this node's.
 *
 * With conditions: nothing is appended unless all of them hold, else SH_CONFLICT, and options->conflict says
 * what is there instead (otherwise, of a producer that lost its place, its condition is SIZE_MAX). They are
 * checked against all that the node has applied, and nothing is written to its own log between that and the
 * append, by whomever: of several who write one key or stream through one node, on condition of what they
 * read, exactly one wins each time. What is written on other nodes meanwhile is not looked at: when two nodes
 * take such an append at a time, both may say that it holds, and the later one by the clocks stays. So let
 * one node write what is written in this way. The node needs its view. A disk that is full is told at once.
 */
enum sh_error sh_append_with(struct sh_client *client, const struct sh_entry *entries, uint32_t count,
                             enum sh_ack ack, const struct sh_append_options *options,
                             struct sh_append_result *result);

/* A key, as one node has applied it. */
struct sh_row {
    void *key;
    size_t key_bytes;
    bool has_value;
    void *value; /* NULL without one */
    size_t value_bytes;
    struct sh_version version; /* of the last put or delete; LSN 0: none */
    int64_t expires_ms;        /* since 1970, by the clock of who wrote it; 0: never */
    bool has_counter;
    int64_t counter;
};

struct sh_rows {
    struct sh_row *rows;
    size_t count;
    bool more;  /* of a scan: there may be more, behind `last` */
    void *last; /* the last key that was looked at; NULL: none */
    size_t last_bytes;
};
/* What the two below have given; zeros are none. */
void sh_rows_free(struct sh_rows *rows);

/* One row for each key, in their order; one that has neither value nor counter has neither flag set. 1 to
 * 1,000 keys, which need not be of one instant. With a session (or NULL) it waits until the node has applied
 * what that holds, which then grows by what the node has applied: SH_TIMEOUT says how far it is.
 * SH_BAD_REQUEST, SH_TOO_LARGE (a key), SH_UNAVAILABLE (the view is not open). The rows are freed with
 * sh_rows_free. */
enum sh_error sh_kv_get(struct sh_client *client, struct sh_session *session, const struct sh_key *keys,
                        size_t count, struct sh_rows *rows);

/* One key, as the node has applied it, without waiting: fn is called once, with sh_kv_get's errors and a row
 * that lives for the call (NULL with an error), under sh_append_async's conditions for callbacks, in which
 * more may be asked for. What waits for the same moment, and belongs to one group, is asked for together.
 * SH_BAD_REQUEST, SH_TOO_LARGE
 * (the key), SH_OVERLOADED (65,536 wait already), SH_UNAVAILABLE (the client is being closed): fn is not
 * called. The key is copied. */
typedef void sh_kv_get_fn(void *arg, enum sh_error error, const struct sh_row *row);
enum sh_error sh_kv_get_async(struct sh_client *client, const struct sh_key *key, sh_kv_get_fn *fn,
                              void *arg);

struct sh_scan_options {
    const void *prefix; /* only keys that begin so; NULL: all */
    size_t prefix_bytes;
    const void *behind; /* only keys behind this one; NULL: from the first one on */
    size_t behind_bytes;
    uint32_t most;  /* rows, at most 10,000; 0: 1,000 */
    bool keys_only; /* values are left out: an empty one stands for each */
};
/* Keys that have a value or a counter, in the order of their bytes, as they were at one instant. With several
 * replication groups: those of the group of the node that answers, one of the user's endpoints. */
enum sh_error sh_kv_scan(struct sh_client *client, struct sh_session *session,
                         const struct sh_scan_options *options, struct sh_rows *rows);

/* ---- cursors: how far a consumer is, kept by the cluster ----
 *
 * A cursor has a name, a position (how far each log is read, as a session holds it), and one owner at a time.
 * A consumer takes it, reads from its position on, and commits what it has processed. Whoever takes it
 * afterwards, on whatever node, gets the highest committed position that node knows, and goes on there:
 * nothing is skipped, and what was processed but not committed, or is not known there yet, comes again. Logs
 * are not trimmed behind it until it expires, ttl_ms after its last commit. */
struct sh_cursor_log {
    uint8_t log[16];
    uint64_t lsn;         /* of the last entry that the position covers */
    bool held;            /* the node that answers has the log, */
    uint64_t durable_lsn; /* up to here */
};
struct sh_cursor_info {
    char name[65];
    uint64_t epoch;
    uint8_t owner[16];
    struct sh_session *position;
    struct sh_version written; /* the entry that set it last */
    int64_t expires_ms;        /* since 1970 */
    uint64_t ttl_ms;
    bool expired;               /* it holds no log back any more; whoever wants it may have it */
    struct sh_cursor_log *logs; /* of the node, and those that only the position names */
    size_t log_count;
};
struct sh_cursors {
    struct sh_cursor_info *cursors;
    size_t count;
    bool more;     /* there may be more, behind `last` */
    char last[65]; /* the last one that was looked at */
};
/* What the two below have given; zeros are none. */
void sh_cursors_free(struct sh_cursors *cursors);
/* One cursor, as a node has applied it; sessions as in sh_kv_get. SH_NOT_FOUND: there is none, or it was
 * deleted. SH_FORBIDDEN: the node keeps no view. Otherwise sh_kv_get's errors. */
enum sh_error sh_cursor_get(struct sh_client *client, struct sh_session *session, const char *name,
                            struct sh_cursors *cursors);

struct sh_cursor_list_options {
    const char *prefix; /* of the names; NULL: all */
    const char *behind; /* only names behind this one; NULL: from the first one on */
    uint32_t most;      /* at most 1,000; 0: so many */
};
/* Cursors by name. */
enum sh_error sh_cursor_list(struct sh_client *client, struct sh_session *session,
                             const struct sh_cursor_list_options *options, struct sh_cursors *cursors);

/* A cursor that is owned. One thread at a time. */
struct sh_cursor;
struct sh_cursor_options {
    const char *name; /* 1 to 64 bytes of UTF-8 without control characters */
    bool take;        /* also from the owner that it has: that one's commits get SH_CONFLICT from then on */
    const struct sh_session
        *position;   /* goes there, also back; NULL: stays where it is, a new one before all */
    uint64_t ttl_ms; /* at most 365 days; 0: as before, of a new one as the node's setting says */
    /* Takes nothing, but goes on as the owner that opened it before, by sh_cursor_epoch; 0: doesn't. */
    uint64_t epoch;
    uint8_t owner[16];
};
/* Takes a cursor, which is made when there is none: the next epoch of it is this client's. With a session the
 * node waits until it has applied what that holds, and the session grows by the taking: who opens it with
 * what the last owner's session held misses none of that one's commits. SH_CONFLICT: another has it, and take
 * is not set; or, with an epoch, that is not in force. SH_OVERLOADED: 256 cursors hold logs back already, and
 * this would be one more. SH_BAD_REQUEST, SH_TOO_LARGE: name, ttl, position. SH_DISK_FULL, SH_READ_ONLY: as
 * of appends; after SH_TIMEOUT it may have been taken. Otherwise sh_kv_get's errors. *cursor is freed with
 * sh_cursor_close, before its client is closed. */
enum sh_error sh_cursor_open(struct sh_client *client, struct sh_session *session,
                             const struct sh_cursor_options *options, struct sh_cursor **cursor);
/* Where it is: what to read on from. Lives until the next commit. */
const struct sh_session *sh_cursor_position(const struct sh_cursor *cursor);
/* Its epoch, and (unless NULL) its owner. */
uint64_t sh_cursor_epoch(const struct sh_cursor *cursor, uint8_t owner[16]);
/* Moves it to a position that covers the one before, durably on the node; NULL leaves it there. Either way it
 * expires a ttl from now. A session (or NULL) grows by it. SH_CONFLICT: somebody else has taken it, or the
 * position would go back; nothing is changed. SH_NOT_FOUND: it was deleted. SH_UNAVAILABLE, when the detail
 * says so: the client has come to another node, which does not know of the taking yet; opening it there anew
 * always works. Otherwise sh_cursor_open's errors; after SH_TIMEOUT it may have moved. */
enum sh_error sh_cursor_commit(struct sh_cursor *cursor, struct sh_session *session,
                               const struct sh_session *position);
/* Frees it; the cursor itself stays, and stays this owner's. NULL does nothing. */
void sh_cursor_close(struct sh_cursor *cursor);
/* Deletes a cursor; epoch 0: whatever it is, otherwise only in that one. Its owner's commits get
 * SH_NOT_FOUND. SH_NOT_FOUND: there is none. SH_CONFLICT: it is in another epoch. Otherwise sh_cursor_open's
 * errors. */
enum sh_error sh_cursor_delete(struct sh_client *client, struct sh_session *session, const char *name,
                               uint64_t epoch);
/* ---- the view: what keys and counters are read from ---- */

/* How far the node's view has got with one log. */
struct sh_view_log {
    uint8_t log[16];
    uint64_t applied_lsn; /* of the last entry that can be read */
    uint64_t flushed_lsn; /* that need not be applied again after a crash */
    uint64_t durable_lsn; /* of the log's last entry, as far as this node holds it; 0: it does not */
};
enum sh_view_state {
    SH_VIEW_FOLLOWING,  /* the logs, as they grow */
    SH_VIEW_REBUILDING, /* from the logs; it has not been up to date since it was opened */
    SH_VIEW_LACKING,    /* entries that are trimmed here: it asks other members for what they came to */
    SH_VIEW_FETCHING,   /* another member's rows */
    SH_VIEW_INSTALLING  /* them */
};
struct sh_view_info {
    bool opened;     /* it can be read */
    char error[257]; /* why not, or why a log's entries are not applied; "": all is well */
    enum sh_view_state state;
    uint32_t
        percent; /* of the entries with SH_VIEW_REBUILDING, of the rows with SH_VIEW_FETCHING; otherwise 0 */
    char peer[65];                        /* with the last two states: whose rows they are */
    uint64_t fetched_bytes, fetched_rows; /* that have come */
    char lacks[257]; /* with SH_VIEW_LACKING: what, why no member has given it yet, and what to do */
    uint64_t rows;   /* an estimate */
    struct sh_view_log *logs;
    size_t log_count;
};
/* How far the node's view is. *info is the caller's, what it points to is freed with sh_view_info_free, and
 * it is all zero after an error. SH_FORBIDDEN: the node keeps no view. Otherwise sh_status's errors. */
enum sh_error sh_view_info(struct sh_client *client, struct sh_view_info *info);
/* Frees the logs, not info itself; does nothing the second time. */
void sh_view_info_free(struct sh_view_info *info);

/* Rows of one kind. */
struct sh_view_kind {
    char kind; /* 'K' values, 'C' counters; docs/view-format.md */
    uint64_t rows;
    uint8_t digest[16];
};
struct sh_view_digest {
    uint8_t digest[16];         /* of all rows: XXH3, 128 bits */
    int64_t at_ms;              /* as asked, or what the node's clock was */
    struct sh_session *applied; /* what these rows have applied: with the same one, and at_ms, all nodes have
                                   the same digest */
    struct sh_view_kind *kinds;
    size_t kind_count;
};
/* Reads all rows of the node's view as they are at one instant: with millions of keys it takes seconds,
 * within timeout_ms of the options. at_ms: values that have expired at this time are none, ms since 1970; 0:
 * the node's clock. *digest is the caller's, what it points to is freed with sh_view_digest_free, and it is
 * all zero after an error. SH_FORBIDDEN: the node keeps no view. SH_UNAVAILABLE: it is not open.
 * SH_OVERLOADED: too many ask. Otherwise sh_status's errors. */
enum sh_error sh_view_digest(struct sh_client *client, int64_t at_ms, struct sh_view_digest *digest);
/* Frees what it points to, not digest itself; does nothing the second time. */
void sh_view_digest_free(struct sh_view_digest *digest);

/* ---- watching keys ---- */
struct sh_watch;
struct sh_watch_options {
    const void *prefix; /* only changes of keys that begin so; NULL: of all */
    size_t prefix_bytes;
    /* What it begins behind; of a log that is not in it, from the first entry on. NULL: from now on, which is
     * what the node has applied when it is asked. */
    const struct sh_session *from;
};
/* A put, a delete or an addition. Pointers live until the next call on the watch. */
struct sh_change {
    enum sh_entry_kind kind;
    const void *key;
    size_t key_bytes;
    const void *value; /* of a put */
    size_t value_bytes;
    int64_t expires_ms; /* of a put: since 1970, by the clock of who wrote it; 0: never */
    int64_t delta;      /* of an addition */
    struct sh_version version;
};
/* Opens a watch; *watch is freed with sh_watch_close, before its client is closed. Options are copied. Asks
 * the node only when `from` is NULL, with sh_kv_get's errors. SH_TOO_LARGE: the prefix. A prefix belongs to
 * no group: with several, it tells of keys of the group of the node that the client is connected to. */
enum sh_error sh_watch_open(struct sh_client *client, const struct sh_watch_options *options,
                            struct sh_watch **watch);
/* The next change that the node has applied: each once, also over restarts of the node, and on another one
 * when the client moves there. Those of one log come in the order of its LSNs; of those that there are, the
 * one with the lowest HLC first, so that within a session cause comes before effect. It tells what was
 * written, whether that is the highest version or not: of several puts of a key, the version says which one
 * holds. SH_TIMEOUT: nothing new within wait_ms; call again. SH_TRIMMED, SH_CORRUPT: some entries are gone on
 * this node, or damaged, and the detail says which; the next call goes on behind them. SH_FORBIDDEN: the node
 * keeps no view. SH_UNAVAILABLE: may be called again. Otherwise sh_status's errors. */
enum sh_error sh_watch_next(struct sh_watch *watch, uint32_t wait_ms, struct sh_change *change);
/* Behind the last change that was given, whose HLC it has seen: what a later watch, on this node or another
 * one, is to begin behind. Lives until the next call on the watch; sh_session_text copies it. */
const struct sh_session *sh_watch_position(const struct sh_watch *watch);
/* Frees it, and what its last change points to. NULL does nothing. */
void sh_watch_close(struct sh_watch *watch);

/* ---- reading ---- */
struct sh_read_options {
    uint8_t log[16];      /* one that the node holds; all zero: the own log of the node that answers first */
    uint64_t from;        /* LSN; 0 and 1: from the start; UINT64_MAX: behind the last entry */
    const char *stream;   /* only this stream's events; NULL for everything */
    bool follow;          /* at the end, wait for more instead of ending */
    uint32_t fetch_bytes; /* bytes asked for at once; 0 for 1 MiB */
    /* Starts at the first entry from `from` on that was appended at this time or later, by the clock of the
     * node; milliseconds since 1970, 0 for none. When older ones are trimmed, that is the first that is left.
     */
    int64_t since_ms;
};
/* One entry read. Pointers live until the next call on the reader. */
struct sh_event {
    uint8_t log[16];
    uint64_t lsn;
    uint64_t hlc; /* hybrid logical clock: milliseconds since 1970 << 16 | count */
    uint8_t kind; /* 0 event, 1 put, 2 delete, 3 add, 4 after what, 5 cursor; others of a newer version */
    const char *stream; /* not NUL-terminated */
    size_t stream_bytes;
    const void *key; /* of a cursor its name */
    size_t key_bytes;
    const void *payload; /* of an event or a put */
    size_t payload_bytes;
    int64_t delta;
    uint64_t ttl_ms;     /* of a put; 0: for ever */
    const void *headers; /* of an event, for sh_event_header */
    size_t headers_bytes;
};
/* The event's header of that number, from 0 on; its pointers live as long as the event's. False: it has no
 * more. */
bool sh_event_header(const struct sh_event *event, uint32_t index, struct sh_header *header);
/* Opens a reader; *reader is freed with sh_read_close, before its client is closed. Options are copied. Asks
 * the node only when `from` is UINT64_MAX, with sh_log_info's errors. SH_BAD_REQUEST: the stream's name is
 * too long. Otherwise sh_read_next tells whether the node holds the log. */
enum sh_error sh_read_open(struct sh_client *client, const struct sh_read_options *options,
                           struct sh_reader **reader);
/* The next entry; wait_ms in milliseconds, for follow only: without it each request to the node may take
 * timeout_ms of the options. SH_NOT_FOUND: the end (never with follow), or the node does not hold the log.
 * SH_TIMEOUT: with follow, nothing new within wait_ms; call again. SH_TRIMMED, SH_CORRUPT: sh_read_position
 * says where to go on. SH_UNAVAILABLE, SH_TIMEOUT: may be called again. SH_CONFLICT: the node that is there
 * now does not have the log that was read so far; a reader never goes on in another one. */
enum sh_error sh_read_next(struct sh_reader *reader, uint32_t wait_ms, struct sh_event *event);
/* LSN of the entry that the next call will return. */
uint64_t sh_read_position(const struct sh_reader *reader);
/* Frees the reader, and what its last event points to. NULL does nothing. */
void sh_read_close(struct sh_reader *reader);

/* ---- streams: the events of all logs that a node holds ----
 * Events come in the order in which the node that is asked got to know them. Of each log, which is what one
 * node wrote, that is the order in which it was written, on every node. Of events of several logs nothing is
 * sure but this: an event that was written under a session (see above) comes after all that the session had
 * seen before, as far as the node holds the logs. So two nodes may show the events of two writers mixed in
 * different ways.
 *
 * A position is a version vector, a struct sh_session as all of them: what was given of each log. It means
 * the same on every node: whoever goes on there, on whatever node, misses nothing and gets nothing twice. */
struct sh_stream;
struct sh_stream_options {
    const char *stream;            /* NULL or "" for the empty stream; at most 255 bytes of UTF-8 */
    const struct sh_session *from; /* events behind that position; NULL: from the start */
    int64_t since_ms;              /* only events of that time or later; as in sh_read_options */
    bool from_end;                 /* from the end, or `last` events before it; `from` is not looked at */
    uint32_t last;                 /* at most 1,000,000 */
    bool follow;                   /* at the end, wait for more instead of ending */
    uint32_t fetch_bytes;          /* bytes asked for at once; 0 for 1 MiB, which is the most */
    /* NULL, or what is waited for and grows as in sh_kv_get; borrowed until the stream is closed, and like it
     * of one thread. */
    struct sh_session *session;
};
/* Opens a reader; *stream is freed with sh_stream_close, before its client is closed. Other options are
 * copied. Waits until the client has met a node, timeout_ms of the options at most, since a stream may belong
 * to another group than that node's; SH_OK all the same. SH_BAD_REQUEST, SH_TOO_LARGE: the stream's name. */
enum sh_error sh_stream_open(struct sh_client *client, const struct sh_stream_options *options,
                             struct sh_stream **stream);
/* The next event; wait_ms in milliseconds, for follow only: without it each request to the node may take
 * timeout_ms of the options. SH_NOT_FOUND: the end (never with follow). SH_TIMEOUT: with follow, nothing new
 * within wait_ms; call again. Otherwise also: the session is not applied in time. SH_TRIMMED, SH_CORRUPT:
 * some events cannot be read on this node, see sh_stream_gap; the next call goes on behind them.
 * SH_UNAVAILABLE, SH_TIMEOUT: may be called again. SH_FORBIDDEN: the node keeps no view. */
enum sh_error sh_stream_next(struct sh_stream *stream, uint32_t wait_ms, struct sh_event *event);
/* Behind the last event that was given, or that could not be; until the next call on the stream. */
const struct sh_session *sh_stream_position(const struct sh_stream *stream);
/* Events of a log, from an LSN on and before another. */
struct sh_gap {
    uint8_t log[16];
    uint64_t from_lsn, next_lsn;
};
/* What the last SH_TRIMMED or SH_CORRUPT was about; all zero before. */
void sh_stream_gap(const struct sh_stream *stream, struct sh_gap *gap);
/* Frees the reader, and what its last event points to. NULL does nothing. */
void sh_stream_close(struct sh_stream *stream);

struct sh_stream_info {
    char *name; /* with a NUL behind it */
    size_t name_bytes;
    uint64_t events, bytes; /* that can still be read; bytes: payloads */
    uint64_t hlc;           /* of the newest one */
    uint32_t logs;          /* that they are in */
};
struct sh_streams {
    struct sh_stream_info *streams; /* in the order of their names' bytes */
    size_t count;
    bool more;  /* there may be more, from `next` on */
    char *next; /* with a NUL behind it */
    size_t next_bytes;
};
struct sh_stream_list_options {
    const char *prefix; /* only names that begin so; NULL: all */
    size_t prefix_bytes;
    const char *from; /* only this name and those behind it; NULL: from the first one on */
    size_t from_bytes;
    uint32_t most; /* at most 10,000; 0: 1,000 */
};
/* Streams that have events, as one node has applied them at one instant. session as in sh_kv_get, whose
 * errors it has. *streams is freed with sh_streams_free, and all zero after an error. */
enum sh_error sh_stream_list(struct sh_client *client, struct sh_session *session,
                             const struct sh_stream_list_options *options, struct sh_streams *streams);
/* Zeros are none. */
void sh_streams_free(struct sh_streams *streams);

/* ---- the node ---- */
enum sh_writes {
    SH_WRITES_TAKEN,
    SH_WRITES_DISK_FULL, /* an append was refused for it, and there is no room yet */
    SH_WRITES_READ_ONLY, /* the node left its cluster, or was replaced */
    SH_WRITES_AWAY       /* walsvc does not answer */
};
struct sh_status {
    char cluster[65], node[65], version[65];
    uint8_t log[16];
    bool writable;         /* appends are taken */
    enum sh_writes writes; /* why not */
    uint64_t first_lsn;    /* that is left */
    uint64_t durable_lsn;  /* of the last durable entry that querysvc knows of */
    uint64_t durable_end;  /* position in the log, in bytes, behind the last durable frame */
    uint64_t disk_bytes;   /* of the segment files, what is allocated ahead included */
    uint64_t uptime_ms;    /* of querysvc */
    uint32_t segments;     /* files */
    uint32_t clients;      /* connected to querysvc, this one included */
    uint64_t commits; /* groups written and synced since walsvc started, as querysvc last heard; 0: unknown */
};
/* Asks the node how it is; status is the caller's, and all zero after an error. SH_TIMEOUT: no answer within
 * timeout_ms of the options; SH_UNAVAILABLE: the node cannot be reached for so long. SH_BAD_REQUEST: in a
 * callback, or the node belongs to another cluster. SH_VERSION_MISMATCH: it speaks another version.
 * SH_INTERNAL: its answer makes no sense. */
enum sh_error sh_status(struct sh_client *client, struct sh_status *status);

struct sh_segment {
    uint64_t base_lsn;   /* of its first entry */
    uint64_t position;   /* of its first byte in the log, in bytes */
    uint64_t file_bytes; /* what is allocated ahead included */
    int64_t created_ns;  /* since 1970 */
    bool sealed;
};
struct sh_log_info {
    uint8_t log[16];
    uint64_t first_lsn, durable_lsn, durable_end; /* as in sh_status */
    struct sh_segment *segments;                  /* oldest first; freed by sh_log_info_free */
    size_t segment_count;
};
/* The segments of a log that the node holds. log: 16 bytes, or NULL for the node's own; info is the caller's,
 * what it points to is freed with sh_log_info_free, and it is all zero after an error. SH_NOT_FOUND: the node
 * does not hold that log. SH_CORRUPT: a segment cannot be read. Otherwise sh_status's errors. The position of
 * a segment whose start is damaged may be a guess. */
enum sh_error sh_log_info(struct sh_client *client, const uint8_t *log, struct sh_log_info *info);
/* Frees the segments, not info itself; does nothing the second time, or after an error. */
void sh_log_info_free(struct sh_log_info *info);

/* ---- replication groups ---- */
enum sh_group_kind { SH_GROUP_KEY, SH_GROUP_STREAM };
/* A group of nodes that hold the same keys and streams (docs/groups.md). */
struct sh_group {
    char name[65];
    bool here;        /* that of the node that has answered */
    char **endpoints; /* of its nodes, those that are up first, as that node sees them */
    size_t endpoint_count;
};
/* Which group a key, or a stream, belongs to: any node knows. All other calls find it by themselves. *group
 * is the caller's, what it points to is freed with sh_group_free, and it is all zero after an error.
 * SH_BAD_REQUEST, SH_TOO_LARGE: the name. Otherwise sh_status's errors. */
enum sh_error sh_group_of(struct sh_client *client, enum sh_group_kind kind, const void *name, size_t bytes,
                          struct sh_group *group);
/* Frees the endpoints, and makes it all zero. */
void sh_group_free(struct sh_group *group);

/* ---- what keeps the log ---- */
struct sh_trim_options {
    uint64_t before_lsn; /* the first LSN that is to stay */
    bool dry_run;        /* only say what would be done */
    const char *release; /* name of holds that are given up first, at most 64 bytes; NULL for none */
    const uint8_t *log;  /* 16 bytes, or NULL for the node's own */
};
struct sh_trim_result {
    uint64_t first_lsn;       /* that is left */
    uint64_t segments, bytes; /* deleted, or that would be */
    char **held_by;           /* what holds back the next segment below before_lsn: "member n2" */
    size_t held_by_count;
    bool
        drops; /* the log is closed, and before_lsn behind its end: all of the copy goes, in the background */
};
/* Deletes whole sealed segments below an LSN, the oldest first, that nothing holds; result is the caller's,
 * what it points to is freed with sh_log_trim_free, and it is all zero after an error. SH_NOT_FOUND: there is
 * no hold of the name to release, or no such log. SH_TRIMMED: the log is closed, and was dropped.
 * SH_FORBIDDEN: connected by tcp. SH_TIMEOUT, SH_UNAVAILABLE: it may have
 * been done. Otherwise sh_status's errors. */
enum sh_error sh_log_trim(struct sh_client *client, const struct sh_trim_options *options,
                          struct sh_trim_result *result);
/* Frees the names, not result itself; does nothing the second time, or after an error. */
void sh_log_trim_free(struct sh_trim_result *result);

enum sh_hold_kind { SH_HOLD_MEMBER = 1, SH_HOLD_VIEW, SH_HOLD_READER, SH_HOLD_BACKUP, SH_HOLD_CURSOR };
/* Keeps segments from being trimmed. */
struct sh_hold {
    enum sh_hold_kind kind;
    char name[65];
    uint64_t lsn;        /* first LSN that is needed */
    int64_t expires_ns;  /* since 1970; 0: never */
    bool broken;         /* it kept too much, and keeps nothing any more */
    uint64_t kept_bytes; /* beyond their retention */
};
struct sh_kept_segment {
    uint64_t base_lsn, next_lsn; /* next_lsn: of the segment behind; 0: it is being written */
    uint64_t position, bytes;
    int64_t last_ns;     /* time of its last entry, ns since 1970; 0: not known */
    bool due;            /* beyond its retention */
    bool damaged_header; /* of it or the next one, beyond what frames tell; it cannot be trimmed */
    bool above_mark;     /* the durable mark does not lie behind it yet */
};
struct sh_damage {
    char file[64];
    uint64_t offset, bytes;       /* in the file */
    uint64_t first_lsn, next_lsn; /* next_lsn: the first one behind it; first_lsn: it holds no entry */
    int64_t found_ns;             /* since 1970 */
    int64_t accepted_ns;          /* since 1970: its loss was accepted; 0: it wasn't */
    bool differs;                 /* it can be read, but it is not what the log's origin has */
    char copy[96];                /* file in data/quarantine with what was there; "": none */
};
struct sh_wal_info {
    struct sh_kept_segment *segments; /* oldest first */
    size_t segment_count;
    struct sh_hold *holds;
    size_t hold_count;
    struct sh_damage *damages;
    size_t damage_count;
    uint64_t retention_bytes;  /* 0: unlimited */
    uint64_t retention_age_ns; /* 0: for ever */
    uint64_t member_hold_max;
    uint64_t disk_free, disk_total, disk_reserve;
    enum { SH_NEXT_PREPARING, SH_NEXT_READY, SH_NEXT_DISK_FULL } next_segment;
    uint64_t scrub_rate; /* bytes a second; 0: off */
    uint64_t scrub_interval_ns, scrub_done, scrub_total, scrub_damages;
    int64_t scrub_last_ns; /* end of the last full pass, ns since 1970; 0: none yet */
    bool scrubbing;
    bool closed; /* nobody extends the log any more, and all of the group hold it up to its end */
};
/* What walsvc knows of a log. log: 16 bytes, or NULL for the node's own; info is the caller's, what it points
 * to is freed with sh_wal_info_free, and it is all zero after an error. SH_UNAVAILABLE at once while walsvc
 * is away. SH_NOT_FOUND: it keeps no such record of that log. SH_TRIMMED: the log is closed, and was dropped
 * here. Otherwise sh_status's errors. */
enum sh_error sh_wal_info(struct sh_client *client, const uint8_t *log, struct sh_wal_info *info);
/* Frees the lists, not info itself; does nothing the second time, or after an error. */
void sh_wal_info_free(struct sh_wal_info *info);

struct sh_loss {
    uint8_t log[16];
    uint64_t first_lsn, last_lsn; /* of the entries that are given up */
    uint64_t begin, end;          /* positions in the log, in bytes, between which they were */
    int64_t accepted_ns;          /* since 1970: they were given up before, then; 0: now */
};
/* Gives up, for good, entries that cannot be read and that nobody has: first_lsn to last_lsn, which must be
 * all that is missing in one place. log: 16 bytes, or NULL for the node's own. On SH_OK the loss stands in
 * the log, durably; *loss (may be NULL) says what it was. Asking again is fine, and changes nothing.
 * SH_CONFLICT: some of it can be read, or more is missing there; the detail says which. SH_TRIMMED,
 * SH_NOT_FOUND: the log begins behind it, or ends before it. SH_FORBIDDEN: connected by tcp. SH_DISK_FULL: no
 * room for the note. Otherwise sh_status's errors; after SH_TIMEOUT the outcome is unknown. */
enum sh_error sh_accept_loss(struct sh_client *client, const uint8_t *log, uint64_t first_lsn,
                             uint64_t last_lsn, struct sh_loss *loss);

/* ---- the cluster ---- */
enum sh_node_status {
    SH_NODE_JOINING,
    SH_NODE_UP,
    SH_NODE_SUSPECT,
    SH_NODE_DOWN,
    SH_NODE_MUST_REJOIN,
    SH_NODE_LEFT
};
/* "joining", "up", ...; "unknown" for a value outside the list. A static string. */
const char *sh_node_status_name(enum sh_node_status status);

/* How the answering node stands to its cluster. */
enum sh_node_state {
    SH_STATE_FOUNDING, /* it knows its topology file only */
    SH_STATE_MEMBER,
    SH_STATE_LEFT,
    SH_STATE_REPLACED,
    SH_STATE_REFUSED /* another identity has its id */
};
/* "founding", "member", ...; as above. */
const char *sh_node_state_name(enum sh_node_state state);

struct sh_watermark {
    uint8_t log[16];
    uint64_t lsn, end; /* of the last durable entry; position behind its frame, in bytes */
};
/* A member, or one that left, as the answering node sees it. */
struct sh_node {
    char id[65], group[65], host[256];
    uint16_t port, admin_port; /* admin_port 0: none */
    enum sh_node_status status;
    int64_t since_ms;     /* when that began, ms since 1970, by the clock of who saw it */
    uint64_t generation;  /* how often the id was joined; 0: only named by a topology file */
    uint64_t incarnation; /* raised by the node itself whenever it starts, moves or refutes */
    uint8_t log[16];      /* its own; all zero until it has come for the first time */
    uint8_t boot[16];
    int64_t born_ms;  /* when its log came to be */
    bool self;        /* the node that answers */
    bool observed;    /* the answering node expects its heartbeats */
    bool unreachable; /* nothing comes from it directly, though others reach it */
    bool drifting;    /* its clock is too far from that of the node that answers */
    int64_t heard_ms; /* age of the last sign of life that came directly; -1: none, or the node itself */
    int64_t ahead_ms; /* of its clock; negative: it is behind */
    struct sh_watermark *watermarks; /* of the logs it holds, as it told last */
    size_t watermark_count;
};
struct sh_counter {
    char name[32];
    uint64_t count;
};
struct sh_nodes {
    char cluster[65], node[65]; /* node: the one that answers */
    enum sh_node_state state;
    char text[513];        /* unless it is a member: what is the matter, and what to do */
    struct sh_node *nodes; /* ordered by id, those that left included */
    size_t node_count;
    struct sh_counter *counters; /* of membersvc, since it started */
    size_t counter_count;
    uint64_t only_first, only_last; /* left or replaced: entries of its log that no member holds; 0: none */
    uint64_t next_event;            /* number that the next event will get */
};
/* Who is in the cluster, and how they are. nodes is the caller's, what it points to is freed with
 * sh_nodes_free, and it is all zero after an error. SH_UNAVAILABLE at once while membersvc is away. Otherwise
 * sh_status's errors. */
enum sh_error sh_nodes(struct sh_client *client, struct sh_nodes *nodes);
/* Frees the lists, not nodes itself; does nothing the second time, or after an error. */
void sh_nodes_free(struct sh_nodes *nodes);

enum sh_replica_state {
    SH_REPLICA_DISCONNECTED,
    SH_REPLICA_CATCHING_UP,
    SH_REPLICA_STREAMING,
    SH_REPLICA_WAITING, /* no credit: the follower's disk is behind */
    SH_REPLICA_REPAIRING,
    SH_REPLICA_TRIMMED, /* what comes next is gone where it was asked for */
    SH_REPLICA_FORKED   /* it differs from what others have */
};
/* "disconnected", "catching_up", "waiting_for_follower", ...; "unknown" for a value outside the list. A
 * static string. */
const char *sh_replica_state_name(enum sh_replica_state state);

/* One log at one node. */
struct sh_replica {
    uint8_t log[16];
    char origin[65]; /* id of the member whose log it is; "": of none that is a member now */
    char peer[65]; /* of a followed log: the member that it comes from, "": none; of a follower: who it is */
    enum sh_replica_state state;
    uint64_t lsn, end;               /* durable there: LSN, position in bytes */
    uint64_t lag_entries, lag_bytes; /* behind the furthest that is known of the log */
    uint64_t lag_ms;                 /* since it was caught up; 0: it is */
    uint64_t credit;                 /* bytes that it would take now; of a followed log */
    uint64_t retries; /* fetches that failed or led to nothing, since replsvc started; of a followed log */
    int64_t seen_ms;  /* age of the last word of it; -1: none yet */
    bool closed;      /* nobody extends the log any more, and all of the group hold it up to its end */
};
/* A log that was closed, and whose copy the node has dropped. */
struct sh_closed_log {
    uint8_t log[16];
    uint64_t lsn, end;  /* where it ended: LSN, position in bytes, */
    uint32_t checksum;  /* of the last frame */
    int64_t dropped_ns; /* since 1970 */
};
struct sh_replicas {
    char node[65];                             /* that answers, */
    uint8_t log[16];                           /* and its own log: */
    uint64_t durable_lsn, quorum_lsn, all_lsn; /* durable on it, on a majority of its group, on all of the
                                                  group; UINT64_MAX: the node is alone */
    struct sh_replica *followed;               /* copies that the node keeps; its own log, too, while that is
                                                  fetched back from the others */
    size_t followed_count;
    struct sh_replica *followers; /* the other members of its group, and the node's own log at them */
    size_t follower_count;
    struct sh_counter *counters; /* of replsvc, since it started */
    size_t counter_count;
    struct sh_closed_log *closed; /* the oldest first */
    size_t closed_count;
};
/* Which logs a node follows, who follows its own, and how far each copy is. replicas is the caller's, what it
 * points to is freed with sh_replicas_free, and it is all zero after an error. SH_UNAVAILABLE at once while
 * replsvc is away. Otherwise sh_status's errors. */
enum sh_error sh_replicas(struct sh_client *client, struct sh_replicas *replicas);
/* Frees the lists, not replicas itself; does nothing the second time, or after an error. */
void sh_replicas_free(struct sh_replicas *replicas);

enum sh_health_level { SH_HEALTH_GOOD, SH_HEALTH_DEGRADED, SH_HEALTH_UNAVAILABLE };
/* "healthy", "degraded", "unavailable"; "unknown" for a value outside the list. A static string. */
const char *sh_health_name(enum sh_health_level level);
struct sh_health {
    enum sh_health_level level;
    char **reasons; /* a clause for people each, the worst first; none when it is good */
    size_t reason_count;
};
/* How a cluster is, as one node sees it (docs/cluster-protocol.md, "Health"). nodes NULL: membersvc does not
 * answer; replicas NULL: replsvc does not. *health is the caller's, what it points to is freed with
 * sh_health_free. */
void sh_health(const struct sh_status *status, const struct sh_nodes *nodes,
               const struct sh_replicas *replicas, struct sh_health *health);
/* Frees the reasons, not health itself; does nothing the second time. */
void sh_health_free(struct sh_health *health);

struct sh_join_options {
    const char *id;
    const char *host;    /* NULL with replace: as before */
    uint16_t port;       /* first of its five ports; 0 with replace: as before */
    uint16_t admin_port; /* 0: none, with replace as before */
    const char *group;   /* NULL: "default", with replace as before */
    bool replace;        /* a new identity takes the place of the member with this id, whose disk was lost */
};
/* Makes a node a member; asked of a member, on its own host. On SH_OK it is on that one's disk and on its way
 * to the others; *generation (may be NULL) says how often the id was joined. SH_ALREADY_MEMBER: it is one,
 * and replace is not set; also when an earlier try of the same call landed. SH_NOT_FOUND: replace, and there
 * is no such member. SH_CONFLICT: another member has that address. SH_TOO_LARGE: there are as many as can be.
 * SH_NOT_MEMBER: the node that is asked has left. SH_DISK_FULL: on the node that is asked; nothing is
 * changed. SH_FORBIDDEN: connected by tcp. SH_BAD_REQUEST: id, host, port or group. SH_UNAVAILABLE at once:
 * membersvc is away, or its node belongs to no cluster yet; when the detail says that it was lost, and with
 * SH_TIMEOUT, it may have been done. Otherwise sh_status's errors. */
enum sh_error sh_node_join(struct sh_client *client, const struct sh_join_options *options,
                           uint64_t *generation);

struct sh_leave_result {
    uint64_t generation;
    uint8_t log[16];                /* its own; all zero when it never came */
    uint64_t only_first, only_last; /* entries of that log that no other member is known to hold; 0: none */
};
/* Takes a node out of the cluster, with what was said of joins; *result (may be NULL) is all zero after an
 * error. SH_NOT_MEMBER: it is no member, or the node that is asked has left. SH_CONFLICT: it is the last one.
 */
enum sh_error sh_node_leave(struct sh_client *client, const char *id, struct sh_leave_result *result);

enum sh_node_event_kind {
    SH_EVENT_JOINING = 1,
    SH_EVENT_UP,
    SH_EVENT_SUSPECT,
    SH_EVENT_DOWN,
    SH_EVENT_MUST_REJOIN,
    SH_EVENT_LEFT,
    SH_EVENT_RESTARTED,
    SH_EVENT_MOVED,    /* another address */
    SH_EVENT_REPLACED, /* another identity may come */
    SH_EVENT_UNREACHABLE,
    SH_EVENT_REACHABLE,
    SH_EVENT_CLOCK_DRIFT,
    SH_EVENT_CLOCK_GOOD,
    SH_EVENT_FOUNDED, /* the node that tells */
    SH_EVENT_REFUSED, /* the node that tells: another identity has its id */
    SH_EVENT_ALARM    /* something to be looked at; the text says what */
};
/* "joining", "up", ...; "unknown" for a value outside the list. A static string. */
const char *sh_node_event_name(enum sh_node_event_kind kind);

/* A change in the cluster, as one node saw it. */
struct sh_node_event {
    uint8_t series[16]; /* numbers count within it */
    uint64_t number;    /* 1, 2, 3, ... without gaps */
    enum sh_node_event_kind kind;
    int64_t wall_ms; /* when that node saw it, ms since 1970 */
    char id[65];     /* whom it is about */
    uint64_t generation, incarnation;
    char text[256]; /* more about it; "": nothing */
};
struct sh_events;
struct sh_events_options {
    uint8_t series[16]; /* that `after` is a number of; all zero: the present one of the node */
    uint64_t after;     /* number of the last event that is known; 0: from the oldest that is kept;
                           UINT64_MAX: only those that come */
    bool follow;        /* at the end, wait for more instead of ending */
};
/* Opens a subscription to what a node sees; *events is freed with sh_events_close, before its client is
 * closed. Options are copied. Asks the node only when `after` is UINT64_MAX, with sh_nodes's errors. */
enum sh_error sh_events_open(struct sh_client *client, const struct sh_events_options *options,
                             struct sh_events **events);
/* The next event: each once, in order, also over restarts of the node. wait_ms in milliseconds, for follow
 * only. SH_NOT_FOUND: the end (never with follow). SH_TIMEOUT: with follow, nothing new within wait_ms; call
 * again. SH_TRIMMED: events were lost, since they are not kept any more; the next call goes on with the
 * oldest that is. SH_CONFLICT: the node that is there now counts in another series; the next call goes on
 * with the oldest of that. SH_UNAVAILABLE (without follow at once while membersvc is away), SH_TIMEOUT: may
 * be called again. Otherwise sh_status's errors. */
enum sh_error sh_events_next(struct sh_events *events, uint32_t wait_ms, struct sh_node_event *event);
/* Number of the last event that was given, or is known: what to go on after; series (may be NULL): of which
 * series, all zero before the node was met. */
uint64_t sh_events_position(const struct sh_events *events, uint8_t series[16]);
/* Frees it. NULL does nothing. */
void sh_events_close(struct sh_events *events);

/* The last error's own sentence as the node gave it ("expected sequence 7"), of this thread; "" for none.
 * Lives until the thread's next call of this library. */
const char *sh_last_error_detail(void);

#ifdef __cplusplus
}
#endif
#endif
