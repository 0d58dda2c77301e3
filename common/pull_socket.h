/* A PULL socket that listens, and hands what it receives to a loop as mail, in order.
 *
 * One receive is armed again after each hand-over. When too many bytes wait in the mailbox, the loop arms it
 * again once it has caught up; until then the senders wait in their sockets. */
#ifndef COMMON_PULL_SOCKET_H
#define COMMON_PULL_SOCKET_H

#include <nng/nng.h>

#include "loop.h"
#include "shanghai_error.h"

struct pull_socket;

struct pull_options {
    const char *url;
    size_t message_bytes; /* RECVMAXSZ: beyond, nng ends the connection */
    size_t waiting_bytes; /* in the mailbox; one message more at most */
    struct mailbox *mailbox;
    /* Makes mail of a message, which it takes over; on nng's threads. held_back: pull_socket_resume has to be
     * called once it has been dealt with. */
    struct mail *(*wrap)(void *arg, nng_msg *message, bool held_back);
    void *arg;
};

/* Nothing is received before pull_socket_start. SH_UNAVAILABLE: could not listen (logged). Fatal: nng running
 * out of memory. */
enum sh_error pull_socket_open(const struct pull_options *options, struct pull_socket **out);
void pull_socket_start(struct pull_socket *pull);
/* To be called for each message once it has been looked at. */
void pull_socket_taken(struct pull_socket *pull, size_t bytes);
void pull_socket_resume(struct pull_socket *pull);
/* The mailbox may hold mail of it until it is emptied. */
void pull_socket_close(struct pull_socket *pull);
/* After that. */
void pull_socket_free(struct pull_socket *pull);

/* Listening, with keepalive; for sockets of other kinds too. SH_UNAVAILABLE: could not (logged). */
enum sh_error nng_listen_on(nng_socket socket, const char *url, size_t message_bytes);
/* Ends the process unless the result of the call is 0. */
void nng_need(int result, const char *call);

#endif
