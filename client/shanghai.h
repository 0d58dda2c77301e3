/* libshanghai: the C client library of Shanghai.
 *
 * All functions are thread-safe except that one iterator (reader, events, watch) belongs to one thread at a
 * time. A client runs threads of its own for connections. No function ends the process; out of memory does.
 *
 * Here is what is written and read; shanghai_admin.h, which comes along, has how nodes, logs and the cluster
 * are, and what is done to them. */
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

/* The last error's own sentence as the node gave it ("expected sequence 7"), of this thread; "" for none.
 * Lives until the thread's next call of this library. */
const char *sh_last_error_detail(void);

#ifdef __cplusplus
}
#endif

#include "shanghai_admin.h"

#endif
