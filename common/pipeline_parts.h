/* Inside of the sending end of pipelines: its connections, and how a peer is looked for. */
#ifndef COMMON_PIPELINE_PARTS_H
#define COMMON_PIPELINE_PARTS_H

#include <netinet/in.h>
#include <nng/nng.h>
#include <sys/socket.h>

#include "mail_gate.h"
#include "pipeline.h"

enum { PIPELINE_HOST_MAX = 256 };

enum pipeline_event_kind { PIPELINE_UP, PIPELINE_DOWN, PIPELINE_SENT, PIPELINE_RESOLVED };

struct pipeline_address {
    struct sockaddr_storage any;
    socklen_t len; /* 0: unknown */
};

/* The receiver frees it. */
struct pipeline_event {
    struct mail mail;
    uint64_t id; /* as given to whoever sends it */
    enum pipeline_event_kind kind;
    struct pipeline_address address; /* PIPELINE_RESOLVED */
};

/* ---- pipeline_conn.c: a PUSH socket that is good for one connection ---- */

struct pipeline_conn;

/* Connects in the background. NULL: out of descriptors or memory (logged). */
struct pipeline_conn *pipeline_conn_open(const struct pipeline_address *to, uint64_t id,
                                         struct mailbox *mailbox);
/* Once it is up. The message is copied; PIPELINE_SENT follows, or PIPELINE_DOWN. One at a time. */
bool pipeline_conn_send(struct pipeline_conn *conn, struct slice message);
/* No event comes after this, and it dials rarely. */
void pipeline_conn_mute(struct pipeline_conn *conn);
/* Closes and frees it in a thread of its own, after so long. */
void pipeline_conn_dispose(struct pipeline_conn *conn, unsigned linger_s);

/* ---- pipeline_look.c: who listens there? ---- */

/* A tcp connection of our own, which is given up as soon as it comes about: nng's dialer neither says that it
 * failed, nor may it be closed while it dials (nng #1657); and a SYN that got lost is repeated more and more
 * rarely, so that after a while a new one is wanted. */
struct pipeline_look {
    struct loop *loop;
    struct loop_fd fd; /* -1: none */
    void (*on_end)(void *arg, bool found);
    void *arg;
};

/* Calls on_end once, later. False: it failed at once. */
bool pipeline_look_start(struct pipeline_look *look, const struct pipeline_address *to);
void pipeline_look_stop(struct pipeline_look *look);

/* An address that is written in numbers; false for a name. */
bool pipeline_address_parse(const char *host, uint16_t port, struct pipeline_address *out);
/* "tcp://…" */
bool pipeline_address_url(const struct pipeline_address *address, char *url, size_t size);
/* Looks a name up in a thread of its own, PIPELINE_RESOLVED follows. False: too many do, or no thread. */
bool pipeline_resolve(const char *host, uint16_t port, uint64_t id, struct mail_gate *gate);

#endif
