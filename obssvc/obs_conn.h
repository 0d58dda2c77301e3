/* The connections of the HTTP server: which of them is closed when there are too many, or when it doesn't get
 * on. libmicrohttpd knows how long a connection was silent; here is what it doesn't know: who was silent for
 * longest, and how long a request may take that comes byte by byte, or an answer that is taken so.
 *
 *              ┌────────────── the answer was taken ─────────────┐
 *   begin ──► ARRIVING ── the request is here ──► ANSWERING ── answer ──► LEAVING
 *             closed after OBS_CONN_ARRIVAL_S     never closed    closed after OBS_CONN_LEAVING_S
 *
 * From any thread. A connection is closed by shutdown(2) of its socket, which its thread then notices. */
#ifndef OBSSVC_OBS_CONN_H
#define OBSSVC_OBS_CONN_H

#include <stdbool.h>
#include <stdint.h>

enum obs_conn_state { OBS_CONN_ARRIVING, OBS_CONN_ANSWERING, OBS_CONN_LEAVING };

enum {
    OBS_CONN_ARRIVAL_S =
        20, /* from the connection's start, or the last answer's end, to the end of a request */
    OBS_CONN_LEAVING_S = 60 /* from the beginning of an answer to its end */
};

struct obs_conns;
struct obs_conn;

/* At most so many stay open. NULL: there is no thread for it. */
struct obs_conns *obs_conns_open(uint32_t most);
/* All connections have ended. */
void obs_conns_close(struct obs_conns *conns);

/* When there are too many with it, the one that was silent for longest is closed, of those that are not
 * ANSWERING. The socket stays the caller's, and must be open until obs_conn_end. */
struct obs_conn *obs_conn_begin(struct obs_conns *conns, int fd);
void obs_conn_end(struct obs_conns *conns, struct obs_conn *conn);
/* It got on; the time of a state counts from when the connection came to it. */
void obs_conn_is(struct obs_conns *conns, struct obs_conn *conn, enum obs_conn_state state);
/* Closes those whose time is over. Called by a thread of its own each second; by tests with a time of their
 * own. */
void obs_conns_sweep(struct obs_conns *conns, int64_t now_ns);

#endif
