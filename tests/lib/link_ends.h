/* Both ends of a link on one loop, for tests. */
#ifndef TESTS_LINK_ENDS_H
#define TESTS_LINK_ENDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "link.h"

enum { ANSWERS_MAX = 4096, HELD_MAX = 1024 };

struct ends {
    struct loop *loop;
    struct link_server *server;
    char dir[32], endpoint[64];
    struct link_request held[HELD_MAX]; /* requests that a test answers itself */
    unsigned held_count;
    unsigned drops;
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
void open_ends(struct ends *ends, const struct link_server_limits *limits, struct slice cluster);
/* The server alone, again at the same endpoint. */
void open_server(struct ends *ends, const struct link_server_limits *limits, struct slice cluster);
void close_ends(struct ends *ends);
void open_caller(struct caller *caller, struct ends *ends, struct slice cluster);
/* Sends an echo's body of so many bytes as a request of some type; returns its number. */
uint64_t send_bytes(struct caller *caller, uint32_t type, size_t size);
/* Answers the request that is held there, with an echo of so many bytes. */
void answer_held(struct ends *ends, unsigned index, size_t size);

/* Turns the loop until the condition holds; 10 s at most. */
#define WAIT_UNTIL(ends, condition)                                                                          \
    do {                                                                                                     \
        int64_t end_ns = clock_mono_ns() + 10 * NS_PER_S;                                                    \
        while (!(condition) && clock_mono_ns() < end_ns)                                                     \
            loop_step((ends)->loop, 10);                                                                     \
        assert_true(condition);                                                                              \
    } while (0)

#endif
