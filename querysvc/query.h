/* querysvc: what its files share. One loop thread owns everything.
 *
 *   query_service.c  birth and death, dispatch of requests, hello, status, log info
 *   query_forward.c  requests passed on to another daemon, and its answers back
 *   query_wal.c      the own log's durable end, by a link to walsvc of its own
 *   query_copies.c   which copies the node holds and their durable ends, by the same link
 *   query_read.c     reads: queue, fairness, long polls
 *   query_pending.c  table of the requests that another daemon has not answered yet
 *   query_readers.c  a bounded pool of log readers
 *   query_digest.c   digests of the view, each by a thread of its own
 *   query_condition.c appends with conditions: checked against the view, and by walsvc behind that
 *   query_cursor.c   cursors: got and set
 *   query_cursor_holds.c  what they hold back
 *   query_view.c     what asks for the view (view.h), which its own thread keeps, and waits for it; scans
 *   query_gets.c     keys from the view, many of them by threads of their own
 *   query_rows.c     keys as they are looked up, and as clients get them
 *   query_view_info.c  how far that is
 *   query_holds.c    what the view holds back from trims, and trims that wait for it
 *   query_tidy.c     what the view needs to take deleted and expired rows away
 *   query_fetch.c    a view that lacks entries is merged with a member's
 *   query_checkpoint.c  the view as members are given it
 *   query_stream.c   events of streams, by the view's rows, from the segment files; lists of streams
 *   query_token.c    version vectors of clients
 *   query_watch.c    what the view applies, told as it comes
 *   query_group.c    replication groups: what belongs to another one, and where that is */
#ifndef QUERYSVC_QUERY_H
#define QUERYSVC_QUERY_H

#include "group.h"
#include "log.h"
#include "log_reader.h"
#include "log_time.h"
#include "service.h"

/* Gets the answer to a request; the body is borrowed for the call. */
typedef void query_answer_fn(void *arg, uint32_t type, struct slice body);

/* ---- query_pending.c: number of a request at another daemon -> whom to answer ---- */
struct pending {
    uint64_t number;
    struct link_token token;
    query_answer_fn *fn; /* a request of querysvc's own: gets the answer; NULL: the client does */
    void *arg;
    bool impatient; /* does not wait for the daemon to come back */
    bool used;
};

struct pending_table {
    struct pending *slots; /* open addressing; a power of two */
    size_t capacity, used;
};

void pending_put(struct pending_table *table, const struct pending *p);
/* Takes it out; false when there is none. */
bool pending_take(struct pending_table *table, uint64_t number, struct pending *out);
/* The numbers of all that are impatient, into room for `used` of them; returns how many there are. */
size_t pending_impatient(const struct pending_table *table, uint64_t *numbers);
void pending_free(struct pending_table *table);

/* ---- query_forward.c: to one daemon, by one link; for each the far end's credit is the bound ---- */
struct query_forward {
    struct query *query;
    const char *daemon; /* its name, for people */
    char endpoint[LINK_ENDPOINT_MAX];
    struct link_client *link; /* NULL: not open */
    struct pending_table pending;
};

/* For run_dir/<socket>; daemon is borrowed. Does not wait for the daemon to be there. */
enum sh_error query_forward_open(struct query *q, struct query_forward *f, const char *daemon,
                                 const char *socket, size_t queue_bytes);
void query_forward_close(struct query_forward *f);
/* A request of any type: the daemon gets the same bytes, the client gets its answer. While the daemon is away
 * it waits, and is sent again to the one that comes. */
void query_forward_send(struct query_forward *f, const struct link_request *request);
/* The same, but `unavailable` at once while the daemon is away, and when it is lost before it has answered.
 */
void query_forward_now(struct query_forward *f, const struct link_request *request);

/* A request of querysvc's own, which waits like those: fn gets the answer, once, if there is one before the
 * end. SH_OVERLOADED, SH_TOO_LARGE: it was not sent. */
enum sh_error query_forward_ask(struct query_forward *f, uint32_t type, uint64_t correlation,
                                struct slice body, query_answer_fn *fn, void *arg);

/* ---- query_readers.c ---- */
enum { CURSOR_APPENDS = 32 /* of sets of cursors, unanswered */ };
enum { QUERY_SEGMENTS = 1000 /* in one answer to log_info */ };

struct reader_slot {
    struct log_reader *reader; /* NULL: not open */
    struct id16 log;
    uint64_t next; /* LSN at which it would go on without a seek */
    uint64_t used; /* when it was last used, by count */
};

struct reader_pool {
    const struct vfs *fs;
    char root[CONFIG_PATH_MAX];
    size_t slot_count, slot_bytes; /* most readers; most bytes that each keeps between two reads */
    struct reader_slot *slots;
    uint64_t uses, tidied; /* tidied: uses at the last reader_pool_tidy */
};

/* root: the folder of all logs, <data>/log. */
void reader_pool_open(struct reader_pool *pool, const struct vfs *fs, const char *root, size_t slot_count,
                      size_t slot_bytes);
enum sh_error reader_pool_read(struct reader_pool *pool, struct id16 log, struct log_read *read,
                               struct buf *out);
/* fs and dir of the search are filled in. */
enum sh_error reader_pool_find_time(struct reader_pool *pool, struct log_time *search);
/* <root>/<uuid of the log>. */
void reader_pool_dir(const struct reader_pool *pool, struct id16 log, char out[PATH_MAX]);
/* Bytes that its readers hold now. */
size_t reader_pool_bytes(const struct reader_pool *pool);
/* Readers that were idle since the last call let go of files that were trimmed. */
void reader_pool_tidy(struct reader_pool *pool);
void reader_pool_close(struct reader_pool *pool);

/* ---- how far logs are ---- */
struct query_log {
    struct id16 id;
    uint64_t durable_end, durable_lsn;
};

/* Questions to walsvc how far logs are now; one is out at most. */
struct query_probes {
    uint32_t type;       /* MSG_watermark: the own log; MSG_logs: the copies */
    uint64_t number;     /* of the last one's request */
    uint64_t sent, done; /* how many */
};

struct query_view;
struct query_digest;
struct query_streams;
struct query_fetch;
struct query_checkpoints;
struct view;
struct view_state;
struct query_conditions;
struct query_watches;

struct query_copies {
    struct query_log *logs;
    size_t count;
    bool known; /* walsvc has said it */
    struct id16 boot;
    uint64_t version; /* of what it has said */
    struct query_probes probes;
    uint64_t watch; /* number of the long poll's request; 0: it isn't out */
    bool wanted;    /* somebody waits for it to be sent */
    struct loop_timer pause;
};

/* ---- query_group.c ---- */
struct query_group_node;

struct query_groups {
    struct group_set set;
    struct buf names;               /* all of them, as hello_reply has them */
    struct query_group_node *nodes; /* of all groups, as membersvc told last; none with one group */
    size_t count;
    struct buf endpoints, token; /* scratch: of one answer, of one request */
    struct link_client *link;    /* NULL: not open; with one group it never is */
    uint64_t asked, next_event;
    struct loop_timer again;
};

/* ---- query_read.c ---- */

/* A read that waits its turn (ready) or for new entries (parked); or another question that has to be answered
 * as of now, so that walsvc is asked first how far the log is. */
struct query_read {
    struct query_read *next;
    void (*answer)(struct query *q, const struct query_read *r);
    struct link_token token;
    struct id16 log;
    uint64_t correlation;
    uint64_t from, max_bytes, max_entries;
    uint64_t base;  /* of log info: base LSN of the first segment wanted */
    uint64_t since; /* HLC: the first entry not older is still to be found, from `from` on; 0 for none */
    int64_t due_ns; /* at the end of the log: when to answer that there is nothing */
    bool waits;     /* at the end of the log, until then; otherwise only for the probe */
    bool
        confirms; /* damage was met: walsvc's word is waited for, since the log may have been cut meanwhile */
    struct query_probes *probes; /* of that log */
    uint64_t probe;              /* the one that must be done first; 0 for none */
};

struct read_list {
    struct query_read *head, **tail;
};

struct query {
    struct service *service;
    const struct vfs *fs;
    struct link_server *server;
    char query_link[LINK_ENDPOINT_MAX];
    int64_t started_ns;

    struct query_forward wal; /* appends, and what else walsvc answers */
    struct query_forward
        wal_waiting;             /* appends that wait for others, whose number must not hold up the rest */
    struct query_forward member; /* what membersvc answers at once */
    struct query_forward member_events; /* and its long polls, whose number must not hold up the rest */
    struct query_forward obs;
    struct query_forward repl;
    struct link_client *watch; /* durable ends: for the own log and for the copies each one long poll, and at
                                  most one probe */
    struct query_log own;
    struct id16 wal_boot; /* walsvc's, when it was heard last */
    uint64_t commits;
    uint64_t writes; /* whether walsvc takes appends, as in watermark_reply */
    bool heard;      /* from walsvc; until then the durable end is what the files show, which may be less */
    bool watching;   /* the long poll is out */
    struct loop_timer watch_again; /* when it goes out again, if nobody wants it before */
    struct query_probes probes;
    struct query_copies copies;
    struct query_view *view;               /* NULL: not open */
    struct query_digest *digest;           /* the same */
    struct query_streams *streams;         /* the same */
    struct query_cursor *cursors;          /* the same */
    struct query_fetch *fetch;             /* the same */
    struct query_checkpoints *checkpoints; /* the same */
    struct query_conditions *conditions;
    struct query_groups groups;
    struct query_watches *watches; /* NULL: not open, as without a view */
    bool closing;                  /* nothing new begins */

    struct reader_pool readers;
    int64_t tidied_ns; /* when the pool was tidied; the loop's time */
    struct read_list ready, parked;
    struct buf frames, body; /* scratch: of one read, of one answer */
    struct loop_hook hook;
    struct loop_timer again, overdue;
};

void query_read_open(struct query *q);
void query_read_close(struct query *q);
void query_on_read(struct query *q, const struct link_request *request);
/* Calls answer, with that log and base, once walsvc has said how far the log is, or is away. log: all zero
 * for the own one. */
void query_ask_first(struct query *q, struct link_token token, struct id16 log, uint64_t base,
                     void (*answer)(struct query *q, const struct query_read *r));
/* The log that it is about; NULL (answered) when the node does not hold it. */
const struct query_log *query_log_of(struct query *q, const struct query_read *r);
void query_drop_reads(struct query *q, uint64_t session);
/* A durable end, or what is known of it, has moved on. */
void query_wake_reads(struct query *q);
/* Whether some read waits for a probe that has not been sent. */
bool query_reads_need_probe(const struct query *q, const struct query_probes *probes);

/* ---- query_wal.c ---- */
/* After q->wal, whose endpoint it takes. */
enum sh_error query_wal_open(struct query *q);
void query_wal_close(struct query *q);
/* Somebody waits for the own log's durable end to move on. */
void query_watch(struct query *q);
/* Makes sure that a probe of that kind is asked for from now on; returns its number, or 0 when walsvc is
 * away. */
uint64_t query_probe(struct query *q, struct query_probes *probes);
/* The answer to a probe was taken. */
void query_probe_done(struct query *q, struct query_probes *probes);
/* Sends a message to walsvc by the link for durable ends; returns the request's number. */
uint64_t query_ask_wal(struct query *q, uint32_t type, const void *message);

/* ---- query_copies.c ---- */
void query_copies_open(struct query *q);
void query_copies_close(struct query *q);
/* The own log, or a copy; NULL when the node holds none of it, as far as is known. */
const struct query_log *query_find_log(const struct query *q, struct id16 log);
/* Somebody waits for the durable end of a copy to move on. */
void query_watch_copies(struct query *q);
/* An answer of walsvc's. False: to another question. */
bool query_on_copies(struct query *q, uint64_t number, uint32_t type, struct slice body);

/* ---- query_group.c ---- */
struct view_vector;

/* After q->member, whose endpoint it takes. */
enum sh_error query_group_open(struct query *q);
void query_group_close(struct query *q);
/* Whether the key, or the stream, belongs to this node's group; false: answered with wrong_group. An empty
 * name belongs anywhere. */
bool query_group_check(struct query *q, struct link_token token, enum group_kind kind, struct slice name);
/* The same of a msgpack array of keys, as far as it is one. */
bool query_group_check_keys(struct query *q, struct link_token token, struct slice keys);
/* An error of walsvc's: a wrong_group is answered here, with endpoints. False: it is another one. */
bool query_group_on_refusal(struct query *q, struct link_token token, struct slice body);
/* A session names the logs of all groups that it was used with: the token without those that this node will
 * never hold, as they say nothing about its keys. A log that nobody knows may be that of a new member, and
 * stays. What is malformed comes back as it is. Lives until the next call. */
struct slice query_group_token(struct query *q, const struct view_vector *applied, struct slice token);
/* Fills in what it says of groups. */
void query_group_hello(struct query *q, struct msg_hello_reply *reply);
void query_on_group_of(struct query *q, const struct link_request *request);

/* ---- query_view.c ---- */
void query_view_open(struct query *q);
void query_view_close(struct query *q);
/* How far the logs are has changed. */
void query_view_tell(struct query *q);
/* What the view answers: kv_get, kv_scan, cursor_get, cursor_set. */
void query_on_view(struct query *q, const struct link_request *request);
void query_view_drop(struct query *q, uint64_t session);
/* The view may have changed. */
void query_view_refresh(struct query *q);

/* ---- query_holds.c ---- */
void query_on_trim(struct query *q, const struct link_request *request);
/* Whether some trim waits for a probe that has not been sent. */
bool query_trims_need_probe(struct query *q, const struct query_probes *probes);
/* A probe was answered. */
void query_trims_probed(struct query *q);
/* Whether walsvc knows of all logs what the view needs. */
bool query_view_is_held(struct query *q);
/* An answer of walsvc's. False: to another question. */
bool query_on_hold(struct query *q, uint64_t number, uint32_t type, struct slice body);

/* For those who read the view: */
struct view_store;
struct view *query_view_of(struct query *q);
const struct view_state *query_view_state(struct query *q);
/* All that rows which were read before may show, as a token; until the next call. The thread tells the loop
 * later of what can be read already: this asks the store itself. */
struct slice query_view_applied(struct query *q);
/* True, and refused: the node keeps no view. */
bool query_view_refuse_absent(struct query *q, struct link_token token);
/* What the store itself says is what its rows are: the thread tells of it later, when the next request may
 * have read them already; and a view that is made again shows less than it told of before. Between
 * view_begin_read and view_end_read; error has VIEW_ERROR_MAX bytes. False: less than the token wants (error
 * is empty), or it cannot be read. */
bool query_view_is_in_store(struct query *q, struct view_store *store, struct slice after, char *error);
/* After a false one. */
void query_view_refuse_older(struct query *q, struct link_token token, const char *error);
/* The store is not open. */
void query_view_refuse_closed(struct query *q, struct link_token token);

/* ---- query_condition.c ---- */
void query_condition_open(struct query *q);
/* After the links to walsvc, which call back no more. */
void query_condition_close(struct query *q);
void query_on_append_if(struct query *q, const struct link_request *request);
/* More is applied. */
void query_condition_look(struct query *q);
void query_condition_drop(struct query *q, uint64_t session);
/* The store failed. */
void query_view_fail(struct query *q, struct link_token token, const char *error);
/* What the token says is not applied, and the time is over. */
void query_view_refuse_late(struct query *q, struct link_token token, struct slice after);

/* ---- query_view_info.c ---- */
void query_on_view_info(struct query *q, const struct link_request *request);

/* ---- query_watch.c ---- */
/* Before the server: its hook is to run before the one that sends answers. */
void query_watch_open(struct query *q);
void query_watch_close(struct query *q);
void query_on_watch(struct query *q, const struct link_request *request);
/* More is applied. */
void query_watch_wake(struct query *q);
void query_watch_drop(struct query *q, uint64_t session);

/* ---- query_digest.c ---- */
/* Within the life of an open query_view. */
void query_digest_open(struct query *q);
void query_digest_close(struct query *q);
void query_on_view_digest(struct query *q, const struct link_request *request);
void query_digest_drop(struct query *q, uint64_t session);
/* ---- query_stream.c ---- */
void query_streams_open(struct query *q);
void query_streams_close(struct query *q);
/* stream_read and stream_list. */
void query_on_stream(struct query *q, const struct link_request *request);
/* More is applied, or the view's state has changed. */
void query_streams_wake(struct query *q);
void query_streams_drop(struct query *q, uint64_t session);
/* ---- query_fetch.c ---- */
enum {
    VIEW_FOLLOWING,
    VIEW_REBUILDING,
    VIEW_LACKING,
    VIEW_FETCHING,
    VIEW_INSTALLING
}; /* of view_info_reply */
/* Within the life of an open query_view, but for its close: that comes behind it. */
enum sh_error query_fetch_open(struct query *q);
void query_fetch_close(struct query *q);
/* The view, or what is held of it, has changed. */
void query_fetch_look(struct query *q);
/* Fills in what view_info_reply says of it. */
void query_fetch_info(struct query *q, struct msg_view_info_reply *reply);

/* ---- query_checkpoint.c ---- */
enum { CHECKPOINT_LOOK, CHECKPOINT_OPEN, CHECKPOINT_ROWS, CHECKPOINT_CLOSE }; /* `step` of the message */
/* As query_fetch_open and query_fetch_close. */
void query_checkpoints_open(struct query *q);
void query_checkpoints_close(struct query *q);
void query_on_checkpoint(struct query *q, const struct link_request *request);
/* An answer of walsvc's. False: to another question. */
bool query_on_checkpoint_hold(struct query *q, uint64_t number, uint32_t type, struct slice body);

/* ---- query_cursor.c; its functions are called while there is a view ---- */
struct query_cursor;
void query_cursor_open(struct query *q);
void query_cursor_close(struct query *q);
/* Their tokens are applied, as far as was told. */
void query_cursor_get(struct query *q, struct link_token token, const struct msg_cursor_get *m);
void query_cursor_set(struct query *q, struct link_token token, const struct msg_cursor_set *m);
/* More is applied, or the logs have changed. */
void query_cursor_look(struct query *q);
void query_cursor_drop(struct query *q, uint64_t session);
/* walsvc is there again. There may be no view. */
void query_cursor_walsvc(struct query *q);
/* An answer of walsvc's. False: to another question, or there is no view. */
bool query_on_cursor(struct query *q, uint64_t number, uint32_t type, struct slice body);

/* ---- query_cursor_holds.c ---- */
struct cursor_holder;
struct cursor_holder *cursor_holder_open(struct query *q);
void cursor_holder_close(struct cursor_holder *h);
/* Rows of cursors, or the logs, may have changed. */
void cursor_holder_look(struct cursor_holder *h);
/* walsvc is there, and may be another one than before, which kept less. */
void cursor_holder_restart(struct cursor_holder *h);
/* As query_on_cursor. */
bool cursor_holder_answer(struct cursor_holder *h, uint64_t number, uint32_t type, struct slice body);
/* A new cursor is applied; it will be seen when rows are read again. */
void cursor_holder_expect(struct cursor_holder *h);
/* Cursors that hold, those included. */
size_t cursor_holder_count(const struct cursor_holder *h);

/* ---- query_figures.c ---- */
/* A request has come. */
void query_count(uint32_t type);
/* For telemetry_on_gather. */
uint32_t query_figures_gather(void *query, msgpack_packer *pk);

/* ---- query_service.c ---- */
enum service_exit query_open(struct service *service);
void query_close(struct service *service);
const char *query_ping(const struct service *service);
void query_refuse(struct query *q, struct link_token token, enum sh_error code, const char *text,
                  uint64_t expected);
void query_refuse_with(struct query *q, struct link_token token, const struct msg_error *error);
void query_answer(struct query *q, struct link_token token, uint32_t type, const void *message);

#endif
