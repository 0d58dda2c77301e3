/* The answering end of fetches: a REP socket that listens, one context for each fetch that waits. */
#ifndef REPL_SERVER_H
#define REPL_SERVER_H

#include "loop.h"
#include "messages.h"

struct repl_server;

struct repl_server_options {
    struct loop *loop;
    const char *host;
    uint16_t port;
    unsigned contexts;    /* fetches that may wait */
    unsigned each;        /* of these, on one connection */
    size_t message_bytes; /* RECVMAXSZ of a fetch */
    /* A whole message, borrowed for the call. It must be answered, now or later, unless the server is closed.
     */
    void (*on_message)(void *arg, uint64_t token, struct slice message);
    /* One more than may wait on one connection, of which nothing is answered any more: it is closed as soon
     * as nothing has come for a second, and none of those that wait keeps its place. */
    void (*on_too_many)(void *arg, struct slice message);
    void *arg;
};

/* SH_UNAVAILABLE: could not listen (logged). */
enum sh_error repl_server_open(const struct repl_server_options *options, struct repl_server **out);
/* Sends a whole message: head, then rest; both are copied. */
void repl_server_answer(struct repl_server *server, uint64_t token, struct slice head, struct slice rest);
/* Drops the fetch without an answer. */
void repl_server_abandon(struct repl_server *server, uint64_t token);
void repl_server_close(struct repl_server *server);

#endif
