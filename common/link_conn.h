/* The nng side of a link's client end: a REQ socket, and a PUSH socket that is good for one connection. A
 * link_client goes through many of them.
 *
 * A pair that dials once dials each socket's URL once, and no more after a failure or the end of the
 * connection: over ipc each dial that fails costs nng 1.5.2 a descriptor for a while, and may stop it from
 * ever closing anything again. */
#ifndef COMMON_LINK_CONN_H
#define COMMON_LINK_CONN_H

#include <nng/nng.h>

#include "link.h"

struct link_conn;

enum link_event_kind {
    LINK_REPLIED,     /* the poll's reply: message */
    LINK_POLL_FAILED, /* the poll gets no reply: its connection broke */
    LINK_REQ_DOWN,    /* of a pair that dials once: no poll gets a reply any more. A poll that was sent just
                         before may    not fail: nng keeps it for another connection. */
    LINK_PUSH_UP,     /* the pipeline is connected */
    LINK_PUSH_DOWN,   /* and no more; without having been up, at times. To be renewed. */
};

/* The receiver frees it with link_event_free. */
struct link_event {
    struct mail mail;
    uint64_t generation; /* as given to link_conn_open */
    enum link_event_kind kind;
    nng_msg *message;
};
void link_event_free(struct link_event *event);

enum link_dial {
    LINK_DIAL_ONCE,
    LINK_DIAL_AGAIN, /* until connected; REQ again whenever its connection breaks */
};

/* Connects in the background. SH_BAD_REQUEST: nng makes nothing of the URLs; SH_UNAVAILABLE: out of
 * descriptors or memory. */
enum sh_error link_conn_open(const char *in_url, const char *out_url, enum link_dial dial, size_t reply_bytes,
                             uint64_t generation, struct mailbox *mailbox, struct link_conn **out);
/* Sends a poll, takes the message; LINK_REPLIED or LINK_POLL_FAILED follows. One at a time. */
void link_conn_poll(struct link_conn *conn, nng_msg *message);
/* Sends a request. False: the queue inside nng is full, or the pipeline is down; the message stays the
 * caller's. */
bool link_conn_push(struct link_conn *conn, nng_msg *message);
/* After LINK_PUSH_DOWN: a fresh PUSH socket, which connects in the background. False: out of descriptors or
 * memory; there is no pipeline then. */
bool link_conn_renew_push(struct link_conn *conn);
/* No event comes after this, and it dials rarely from now on; for one that is kept until it is safe to close
 * it. */
void link_conn_mute(struct link_conn *conn);
/* Mutes it, and closes and frees it in a thread of its own, since closing may never return. */
void link_conn_dispose(struct link_conn *conn);
/* The same after a second: for one that may wait to be accepted, since an ipc listener may die of a
 * connection that ends before (nng #1518). */
void link_conn_dispose_later(struct link_conn *conn);
/* How many are being closed now, in this process. */
unsigned link_conn_closing(void);

#endif
