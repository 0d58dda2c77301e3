/* Somebody at the other end of a pipeline who speaks nng's wire format by hand, so that a test says what it
 * accepts, reads and sends: 8 bytes of greeting each way, then frames of a length in 8 bytes. All on the
 * test's own loop; nng 1.5.2 may block for ever when both ends of a connection are closed in one process. */
#ifndef TESTS_WIRE_PULL_H
#define TESTS_WIRE_PULL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "buf.h"
#include "clock.h"
#include "loop.h"

enum { WIRE_CONNS_MAX = 256, WIRE_NUMBERS_MAX = 4096, WIRE_GREETING_BYTES = 8 };

struct wire_pull;

struct wire_conn {
    struct wire_pull *pull;
    struct loop_fd fd; /* -1: none */
    struct buf bytes;  /* read, and not yet understood */
    bool greeted;
};

/* A puller. Each message is a number in 8 bytes, and anything behind it. */
struct wire_pull {
    struct loop *loop;
    uint16_t port;
    struct loop_fd listener; /* -1: closed */
    struct wire_conn conns[WIRE_CONNS_MAX];
    unsigned conn_count; /* accepted so far */
    unsigned greeted;    /* of them, those that greeted */
    bool reads;
    uint64_t numbers[WIRE_NUMBERS_MAX];
    unsigned number_count;
};

/* port 0: any. accepts: else they wait in the backlog, which takes very few. */
void wire_pull_open(struct wire_pull *pull, struct loop *loop, uint16_t port, bool accepts);
/* As a process that is killed leaves it. */
void wire_pull_close(struct wire_pull *pull);
/* Reads what came meanwhile. */
void wire_pull_read_on(struct wire_pull *pull);
bool wire_pull_has(const struct wire_pull *pull, uint64_t number);

/* A pusher: a blocking socket that has greeted. */
int wire_push_connect(uint16_t port);
/* False: it is closed there. */
bool wire_push(int fd, const void *message, size_t len);

/* Turns the loop until the condition holds; 20 s at most. */
#define WIRE_WAIT(loop, condition)                                                                           \
    do {                                                                                                     \
        int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;                                                    \
        while (!(condition) && clock_mono_ns() < end_ns)                                                     \
            loop_step(loop, 10);                                                                             \
        assert_true(condition);                                                                              \
    } while (0)

#endif
