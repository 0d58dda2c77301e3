/* Both ends of a link, each in a process of its own: the far end is tests/link/link_far.c, told what to do
 * over a socket pair; the client is here. nng 1.5.2 may block for ever when both ends of a connection are
 * closed in one process. */
#ifndef TESTS_LINK_ENDS_H
#define TESTS_LINK_ENDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/types.h>

#include "link.h"

enum { ANSWERS_MAX = 4096, HELD_MAX = 1024, HELD_BODY_MAX = 64 };

/* A request that waits at the far end for a test to have it answered. */
struct held {
    struct link_token token;
    uint32_t type;
    uint64_t correlation;
    bool local;
    uint8_t body[HELD_BODY_MAX];
    size_t body_len; /* 0 when it is longer */
};

struct ends {
    struct loop *loop;
    char dir[32], endpoint[64], log[64]; /* the far end's log */
    struct held held[HELD_MAX];
    unsigned held_count;
    unsigned drops;
    /* The far end: */
    pid_t pid;
    struct loop_fd control;
    char line[1024];
    size_t line_len;
    unsigned replies; /* to commands */
    bool ready, gone;
    struct link_server_stats stats;
    uint64_t reply; /* the one number of a reply */
};

struct caller {
    struct ends *ends;
    struct link_client *client;
    uint64_t numbers[ANSWERS_MAX];
    uint32_t types[ANSWERS_MAX], codes[ANSWERS_MAX]; /* codes of errors */
    unsigned answered, ups, downs;
};

extern const struct slice no_rest;

/* 16 requests and 1 MiB a session, 8 MiB in all, 8 sessions and polls, messages of 4 MiB. */
struct link_server_limits small_limits(void);
/* Starts a far end that listens by ipc. cluster: 8 characters, NULL for none. */
void open_ends(struct ends *ends, const struct link_server_limits *limits, const char *cluster);
/* The far end alone, again at the same endpoint. */
void start_far_end(struct ends *ends, const struct link_server_limits *limits, const char *cluster);
/* Has it close its link and end; it must do so well. */
void stop_far_end(struct ends *ends);
void kill_far_end(struct ends *ends);
/* Kills the far end if there is one. */
void close_ends(struct ends *ends);

void open_caller(struct caller *caller, struct ends *ends, struct slice cluster);
/* Sends an echo's body of so many bytes as a request of some type; returns its number. */
uint64_t send_bytes(struct caller *caller, uint32_t type, size_t size);

/* What the far end is told to do. Answers the request that is held there, with an echo of so many bytes: */
void answer_held(struct ends *ends, unsigned index, size_t size);
void refuse_held(struct ends *ends, unsigned index, enum sh_error code, const char *text);
void unlend_held(struct ends *ends, unsigned index);
/* stop_far_end, which answers the request before it closes its link. */
void stop_far_end_with_answer(struct ends *ends, unsigned index);
enum sh_error far_listen(struct ends *ends, const char *endpoint);
size_t far_unfetched(struct ends *ends, uint64_t session);
/* All commands before this one are done when it returns. */
struct link_server_stats far_stats(struct ends *ends);
/* Whether the far end's log holds this text. */
bool far_has_logged(const struct ends *ends, const char *text);

/* Turns the loop until the condition holds; 20 s at most. */
#define WAIT_UNTIL(ends, condition)                                                                          \
    do {                                                                                                     \
        int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;                                                    \
        while (!(condition) && clock_mono_ns() < end_ns)                                                     \
            loop_step((ends)->loop, 10);                                                                     \
        assert_true(condition);                                                                              \
    } while (0)

#endif
