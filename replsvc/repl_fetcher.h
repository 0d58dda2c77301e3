/* The asking end of fetches: a slot for each followed log, with a REQ socket that is good until a fetch
 * fails. Whether somebody listens is found out before nng dials (see common/pipeline_parts.h). */
#ifndef REPL_FETCHER_H
#define REPL_FETCHER_H

#include "loop.h"
#include "messages.h"

struct repl_fetcher;

/* An answer: a whole message. The receiver frees it. */
struct repl_fetched;
struct slice repl_fetched_message(const struct repl_fetched *fetched);
void repl_fetched_free(struct repl_fetched *fetched);

struct repl_fetcher_options {
    struct loop *loop;
    unsigned slots;
    size_t message_bytes; /* RECVMAXSZ */
    /* One of the two for each fetch that isn't cancelled. */
    void (*on_answer)(void *arg, unsigned slot, uint64_t serial, struct repl_fetched *fetched);
    void (*on_failure)(void *arg, unsigned slot, uint64_t serial);
    void *arg;
};
struct repl_fetcher *repl_fetcher_open(const struct repl_fetcher_options *options);
/* Sends a whole message, which is copied. One at a time in a slot. */
void repl_fetcher_ask(struct repl_fetcher *fetcher, unsigned slot, uint64_t serial, const char *host,
                      uint16_t port, struct slice message);
/* Its answer is wanted no more. */
void repl_fetcher_cancel(struct repl_fetcher *fetcher, unsigned slot);
void repl_fetcher_close(struct repl_fetcher *fetcher);

#endif
