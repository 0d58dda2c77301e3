/* Pipelines between nodes: whole messages one way, to tcp addresses. Whoever uses them can do without any one
 * of the messages; what is told here is only that nothing waits, nothing grows, and that a peer that comes
 * back is reached again.
 *
 * A message waits until its peer is connected, a second at most; beyond that, or beyond the bytes that may
 * wait, it is dropped. "Sent" means handed to the transport. */
#ifndef COMMON_PIPELINE_H
#define COMMON_PIPELINE_H

#include "buf.h"
#include "loop.h"
#include "shanghai_error.h"

/* ------------------------------------------------------------ the sending end */

struct pipeline_out;

struct pipeline_out_options {
    struct loop *loop;
    size_t peer_bytes; /* that may wait for one peer, or one message; the oldest make room */
    unsigned peers;    /* that are connected, or tried, at a time: see pipeline_out_send */
    int64_t idle_ns;   /* a peer that nothing is sent to for so long is disconnected */
};
/* 64 KiB, 64 peers, a minute. */
struct pipeline_out_options pipeline_out_defaults(struct loop *loop);

struct pipeline_out *pipeline_out_open(const struct pipeline_out_options *options);
/* Copies the message. A name is looked up in a thread of its own. fresh_ns: unless 0, a connection that is
 * older than that is replaced by a new one (it may have died with a cable, without knowing).
 *
 * One peer more than there may be takes the place of the one that was used least in the last minute: who is
 * spoken to regularly keeps its connection, however many others are spoken to once. */
void pipeline_out_send(struct pipeline_out *out, const char *host, uint16_t port, struct slice message,
                       int64_t fresh_ns);

struct pipeline_out_stats {
    uint64_t sent, sent_bytes, dropped;
    uint64_t connections; /* that came about */
    unsigned peers;       /* connected, or tried, now */
    unsigned kept;        /* sockets that led to nothing, and cannot be closed yet */
    size_t waiting_bytes;
};
struct pipeline_out_stats pipeline_out_stats(const struct pipeline_out *out);
/* Never waits: sockets are closed in threads of their own. */
void pipeline_out_close(struct pipeline_out *out);

/* ------------------------------------------------------------ the receiving end */

struct pipeline_in;

struct pipeline_in_options {
    struct loop *loop;
    const char *host;
    uint16_t port;
    size_t message_bytes; /* beyond, the connection ends */
    size_t waiting_bytes; /* that may wait for the loop: then nothing is received until it has caught up */
    /* A whole message, borrowed for the call; in the loop's turn. */
    void (*on_message)(void *arg, struct slice message);
    void *arg;
};

/* SH_UNAVAILABLE: could not listen (logged). */
enum sh_error pipeline_in_open(const struct pipeline_in_options *options, struct pipeline_in **out);
void pipeline_in_close(struct pipeline_in *in);

#endif
