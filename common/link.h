/* The link: the one way to talk to a daemon (docs/architecture.md, "The link").
 *
 * Two nng sockets, each carrying data one way at a time: requests are pushed in order (PUSH to PULL), answers
 * and credit come back by one long poll (REQ to REP). Endpoint "ipc:///run/x/query" names the sockets
 * /run/x/query.in (PULL) and /run/x/query.out (REP); "tcp://host:port" names port and port + 1.
 *
 * Requests of a session are numbered 1, 2, 3, ... and carry `previous`, the highest lower number that was
 * unanswered when they were sent (0: none). The server accepts a request exactly when number > last &&
 * previous <= last, where last is the highest number it has accepted from that session (0 for a session it
 * doesn't know). So whatever stale sockets still deliver, requests are accepted in order, once; all else is
 * dropped and sent again by the client. A server that has forgotten a session (restart, expiry) gives it a
 * new incarnation; the client sees that in the next poll_reply and sends all that is unanswered again, in
 * order, with the same numbers. Answers may come in another order than the requests; they are kept until the
 * client's next poll says it has them. */
#ifndef COMMON_LINK_H
#define COMMON_LINK_H

#include "loop.h"
#include "messages.h"

enum { LINK_ENDPOINT_MAX = 256, LINK_POLL_MS = 5000 };

/* ------------------------------------------------------------ the daemon's end */

struct link_server;

struct link_server_limits {
    size_t message_bytes;      /* RECVMAXSZ; a larger message closes the connection (in nng) */
    size_t session_bytes;      /* credit: unanswered request bytes of one session */
    uint32_t session_requests; /* credit: unanswered requests of one session */
    size_t total_bytes;        /* request and answer bytes held for all sessions; beyond: overloaded */
    uint32_t sessions; /* most sessions; one that has gone, or is quiet, makes room for a new one, which else
                          must wait */
    uint32_t polls;    /* most parked polls; beyond, the oldest is answered empty */
    int64_t session_idle_ns; /* a session that doesn't poll for so long is dropped */
};
/* Bounds for a service inside a node: 16 MiB + 4 KiB messages, 16 MiB and 256 requests a session, 48 MiB in
 * all, 1,024 sessions and polls, 15 s. */
struct link_server_limits link_server_default_limits(void);

/* Names one request until it is answered; a plain value. Answering for a session that is gone does nothing.
 */
struct link_token {
    uint64_t session; /* the server's own number for the session; never reused */
    uint64_t number;
};

/* A request as it is handed over. Everything is borrowed and lives until the request is answered with
 * link_server_answer (or the session is dropped, see on_drop): the server keeps the message. */
struct link_request {
    struct link_token token;
    uint32_t type;
    uint64_t correlation;
    struct slice cluster, sender;
    struct slice body;
    bool local; /* came in by ipc */
};

struct link_server_options {
    struct loop *loop;
    struct link_server_limits limits;
    struct slice cluster; /* own cluster id (8 bytes): another one in a request is refused with bad_request */
    struct slice node;    /* own node id */
    struct id16 boot;
    /* Called on the loop for each accepted request, in order within a session. Answer now or later. An `echo`
     * is answered by the link itself. */
    void (*on_request)(void *arg, const struct link_request *request);
    /* The session is gone (idle, evicted, over a limit): its unanswered requests' bytes are about to be
     * freed. NULL when the service keeps no slices of requests past on_request. */
    void (*on_drop)(void *arg, uint64_t session);
    void *arg;
};

struct link_server *link_server_open(const struct link_server_options *options);
/* Listens on an endpoint too (several are fine). The ipc socket's directory must exist; a stale socket file
 * is removed first (the caller holds a lock that makes it stale). SH_UNAVAILABLE: could not listen. */
enum sh_error link_server_listen(struct link_server *server, const char *endpoint);
/* body: one msgpack map, copied. */
void link_server_answer(struct link_server *server, struct link_token token, uint32_t type,
                        struct slice body);
/* Gives the request's bytes back before it is answered: none of its slices may be used any more. It still
 * counts against its session's credit, but takes no memory from the others. */
void link_server_unlend(struct link_server *server, struct link_token token);
/* Answers with an error message; text may be NULL. */
void link_server_refuse(struct link_server *server, struct link_token token, const struct msg_error *error);
/* Bytes of answers of this session that the client has not fetched yet (so that a service produces no more
 * for one that doesn't fetch). */
size_t link_server_unfetched(const struct link_server *server, uint64_t session);

struct link_server_stats {
    uint32_t sessions;
    uint32_t clients; /* sessions whose connection is there, the service's own (self-pings) left out */
    uint32_t parked_polls;
    size_t held_bytes;
    uint64_t requests, answers, refused_messages, dropped_sessions;
};
struct link_server_stats link_server_stats(const struct link_server *server);
/* Not from one of its callbacks; calls on_drop for each session that is left. The last answers go out as far
 * as polls wait for them; they may be lost with the connection. */
void link_server_close(struct link_server *server);

/* ------------------------------------------------------------ the client's end */

struct link_client;

struct link_client_options {
    struct loop *loop;
    const char *endpoint;
    size_t message_bytes; /* RECVMAXSZ, and the most bytes of a request, envelope included; not more than the
                             server's */
    size_t queue_bytes;   /* requests held here, sent and unsent; beyond: SH_OVERLOADED */
    struct slice cluster; /* 8 bytes, or empty when not known yet */
    struct slice sender;  /* node id, or empty */
    /* An answer; body is borrowed for the call. The number is what link_client_send returned; each number is
     * answered at most once. type MSG_error carries a struct msg_error. */
    void (*on_answer)(void *arg, uint64_t number, uint32_t type, struct slice body);
    /* The far end answers (true) or is lost (false). May be NULL. */
    void (*on_state)(void *arg, bool connected);
    void *arg;
};

/* Connects in the background and for ever. SH_BAD_REQUEST: the endpoint is malformed. The client sends
 * nothing before the loop runs. When the far end refuses the link (another version or cluster), all requests
 * are answered with its error, those that were sent once with SH_UNAVAILABLE, and it is asked again each
 * second. */
enum sh_error link_client_open(const struct link_client_options *options, struct link_client **out);
/* Queues a request and sends it as soon as credit allows; the body is head followed by rest (one msgpack map
 * together; rest may be empty). head is copied; rest is borrowed, unchanged, until the request is answered or
 * forgotten or the client closed. SH_OVERLOADED: queue_bytes. SH_TOO_LARGE: message_bytes. */
enum sh_error link_client_send(struct link_client *client, uint32_t type, uint64_t correlation,
                               struct slice head, struct slice rest, uint64_t *number);
/* Gives up waiting for an answer: it is not sent again and its answer is ignored. */
void link_client_forget(struct link_client *client, uint64_t number);
/* Whether a request of so many bytes would go out at once. */
bool link_client_has_credit(const struct link_client *client, size_t bytes);
/* Requests that were sent or queued and have no answer yet. */
size_t link_client_unanswered(const struct link_client *client);
bool link_client_is_connected(const struct link_client *client);
void link_client_set_cluster(struct link_client *client, struct slice cluster);
/* Not from one of its callbacks. What is unanswered is forgotten without a callback. */
void link_client_close(struct link_client *client);

/* "ipc:///x/query" to "ipc:///x/query.in" and "….out"; "tcp://h:7" to ports 7 and 8. An ipc path must fit
 * into the 107 bytes of a socket's name. */
enum sh_error link_endpoint_urls(const char *endpoint, char in[LINK_ENDPOINT_MAX],
                                 char out[LINK_ENDPOINT_MAX]);

#endif
