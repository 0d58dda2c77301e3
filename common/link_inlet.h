/* The nng side of a link's daemon end: a PULL and a REP socket that listen, and what they receive as mail. */
#ifndef COMMON_LINK_INLET_H
#define COMMON_LINK_INLET_H

#include <nng/nng.h>

#include "link.h"
#include "link_session.h"

struct link_inlet;
struct link_context;

/* A message that came in, or a connection of polls that has gone. The mailbox' owner frees it, message
 * included, with link_arrival_free. */
struct link_arrival {
    struct mail mail;
    struct link_inlet *inlet;
    struct link_context *context; /* of a poll: where to reply; NULL: a request */
    nng_msg *message;             /* NULL: the connection has gone */
    uint32_t connection;          /* of polls: nng's number for it, not 0; used again after 2^31 others */
    bool held_back;               /* the inlet receives no further request until link_inlet_resume */
    /* For the server, which keeps the arrival until it is answered. */
    struct link_item item;
    size_t body_bytes;
};

struct link_inlet_options {
    const char *endpoint;
    struct mailbox *mailbox;
    size_t message_bytes; /* RECVMAXSZ of requests */
    uint32_t contexts;    /* most polls at a time */
};

/* SH_BAD_REQUEST: the endpoint; SH_UNAVAILABLE: could not listen (logged). Polls and requests arrive from now
 * on. */
enum sh_error link_inlet_open(const struct link_inlet_options *options, struct link_inlet **out);
/* Closes the sockets; the mailbox may hold arrivals of it until it is emptied. */
void link_inlet_close(struct link_inlet *inlet);
/* Then no arrival of it may be left. */
void link_inlet_free(struct link_inlet *inlet);

bool link_inlet_is_local(const struct link_inlet *inlet);
/* To be called for each arrival once it has been looked at. */
void link_inlet_taken(struct link_inlet *inlet, struct link_arrival *arrival);
void link_inlet_resume(struct link_inlet *inlet);
/* Sees to it that another poll can come in; false when all contexts are parked. */
bool link_inlet_spare_context(struct link_inlet *inlet);
/* Gives the context back without a reply. */
void link_context_abandon(struct link_context *context);
/* Replies to a poll; takes the message. */
void link_context_reply(struct link_context *context, nng_msg *message);

void link_arrival_free(struct link_arrival *arrival);

#endif
