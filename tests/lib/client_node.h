/* A node for tests of libshanghai: a link server with a log in memory, which answers late, refuses, forgets
 * and gets killed as a test orders it. It is a process of its own. And short forms of what clients do to it.
 */
#ifndef TESTS_CLIENT_NODE_H
#define TESTS_CLIENT_NODE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "frame.h"
#include "link.h"
#include "shanghai.h"

enum { FRAMES_MAX = 20000, HELD_MAX = 1024, ARENA_BYTES = 64 << 20, CORRELATIONS_MAX = 16 };

struct stored {
    size_t at, len; /* the frame's body in the arena */
    uint64_t lsn;
    uint32_t count;
    struct id16 producer;
    uint64_t epoch, sequence;
    uint64_t ack, hlc;
};

struct held {
    struct link_token token;
    struct msg_append_reply reply;
};

/* Lives in memory that the test and the node's process share. A process that dies takes its links and what it
 * holds along; the log stays, as on a disk. */
struct node {
    char dir[32], query[64], wal[64];
    pid_t pid;
    struct id16 log;
    struct id16 copy; /* another log that it holds, with the same frames; zero for none */

    pthread_mutex_t lock;
    struct stored frames[FRAMES_MAX];
    size_t frame_count, arena_used;
    uint64_t next_lsn, first_lsn;
    uint64_t corrupt_lsn; /* the frame that holds it is sent with a wrong byte */
    /* orders */
    bool offer_wal, hold, forget_producers;
    bool hold_others;      /* answers no append that wants more than this node */
    enum sh_ack reached;   /* by those */
    enum sh_error refuse;  /* with this... */
    uint32_t refuse_count; /* ...so many appends... */
    uint32_t refuse_after; /* ...after so many accepted ones */
    uint64_t current_lsn; /* refuses new append_ifs: this LSN of its log is there instead; 0: it takes them */
    /* the cluster, client_node_members.c: */
    struct id16 series;
    uint64_t event_first, event_next; /* numbers kept; event n is of the kind n % 15 + 1, about "m<n>" */
    bool member_away, repl_away;      /* refuses what membersvc, or replsvc, would answer */
    enum sh_error member_refuse;      /* joins and leaves, with this */
    bool odd;                         /* answers what makes no sense */
    char joined[128];                 /* the last join or leave, as text */
    bool parked;                      /* a poll for events */
    struct link_token poll;
    uint64_t poll_after;
    /* replication groups, client_node_groups.c: */
    char group[2];      /* "a" or "b"; empty: there is only one */
    char places[4][64]; /* endpoints of the other one's nodes */
    uint32_t place_count;
    uint32_t group_asks;
    uint32_t strangers; /* what came and was of the other one */
    /* keys, client_node_keys.c: */
    enum sh_error keys_refuse;        /* gets and watches, with this */
    uint32_t rows_most;               /* of an answer to gets; 0: all */
    uint64_t watch_first, watch_last; /* LSNs that a watch can tell; first 0: nothing is trimmed */
    /* what it saw */
    uint32_t gets, keys_asked, gets_held, watches;
    uint32_t appends, conflicts;
    uint64_t ack_timeout_ms;                 /* of the last append */
    uint64_t correlations[CORRELATIONS_MAX]; /* of the first appends */
    size_t held_count;
    struct held held[HELD_MAX];
    uint8_t arena[ARENA_BYTES];
} __attribute__((aligned(4096))); /* in pages of its own, which node_stop gives back */

/* The group setup of a test program that starts nodes: must come before anything of nng. */
int node_helper_start(void **state);
struct node *node_start(void);
void node_stop(struct node *n);
/* SIGKILL; with the lock, so that the process doesn't take it along. */
void node_kill(struct node *n);
void node_restart(struct node *n);

/* ---- within the node's process: client_node.c for client_node_*.c ---- */
void node_answer(struct link_token token, uint32_t type, const void *message);
void node_refuse(struct link_token token, enum sh_error code, uint64_t expected);
/* Whether it was about the cluster. With the lock. */
bool node_on_members(struct node *n, const struct link_request *request);
void node_on_replicas(struct node *n, struct link_token token);
void node_group_hello(struct node *n, struct msg_hello_reply *hello);
/* Whether it was about groups, or a key while there are several. With the lock. */
bool node_on_groups(struct node *n, const struct link_request *request);
bool node_refuses_group(struct node *n, struct link_token token, struct slice entries);
/* Whether it was about keys. With the lock. */
bool node_on_keys(struct node *n, const struct link_request *request);
/* Answers gets and a watch that wait when they needn't any more. With the lock. */
void node_answer_keys(struct node *n);
/* Answers the poll that waits when it needn't any more. With the lock. */
void node_answer_poll(struct node *n);

/* Waits until the condition holds, with the node's lock. */
#define NODE_WAIT(n, condition)                                                                              \
    do {                                                                                                     \
        bool holds = false;                                                                                  \
        for (int i_ = 0; i_ < 10000 && !holds; i_++) {                                                       \
            pthread_mutex_lock(&(n)->lock);                                                                  \
            holds = (condition);                                                                             \
            pthread_mutex_unlock(&(n)->lock);                                                                \
            if (!holds)                                                                                      \
                usleep(1000);                                                                                \
        }                                                                                                    \
        assert_true(holds);                                                                                  \
    } while (0)

#define NODE_SET(n, statement)                                                                               \
    do {                                                                                                     \
        pthread_mutex_lock(&(n)->lock);                                                                      \
        statement;                                                                                           \
        pthread_mutex_unlock(&(n)->lock);                                                                    \
    } while (0)

/* ---------------------------------------------------------------- clients */

struct client_tally {
    atomic_uint called, failed;
    _Atomic uint64_t lsn; /* of the last success; must rise */
    enum sh_error error;  /* the last one */
};

/* Default options with a timeout of 10 s. */
struct sh_options client_options(const char *const *endpoints, size_t count);
/* A client of the one node. */
struct sh_client *client_open(struct node *n);
/* An event of the empty stream. */
struct sh_entry client_entry(const char *text);
enum sh_error client_append(struct sh_client *c, const char *text, struct sh_append_result *result);
/* For a struct client_tally. */
void client_on_done(void *arg, enum sh_error error, const struct sh_append_result *result);
enum sh_error client_append_async(struct sh_client *c, struct client_tally *t, const char *text);
/* Numbers first..last must be the log's payloads, once each and in order, from LSN `lsn`. */
void client_check_numbers(struct sh_client *c, uint64_t lsn, unsigned first, unsigned last);
/* Appends first..last, an entry each, without waiting. */
void client_append_numbers(struct sh_client *c, struct client_tally *t, unsigned first, unsigned last);

#endif
