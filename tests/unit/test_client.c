/* libshanghai against a node that the tests control: a link server with a log in memory, which answers late,
 * refuses, forgets and gets killed. It is a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"
#include "link.h"
#include "shanghai.h"

/* ================================================================ the node */

enum { FRAMES_MAX = 20000, HELD_MAX = 1024, ARENA_BYTES = 64 << 20 };

struct stored {
    size_t at, len; /* the frame's body in the arena */
    uint64_t lsn;
    uint32_t count;
    struct id16 producer;
    uint64_t sequence;
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

    pthread_mutex_t lock;
    struct stored frames[FRAMES_MAX];
    size_t frame_count, arena_used;
    uint64_t next_lsn, first_lsn;
    uint64_t corrupt_lsn; /* the frame that holds it is sent with a wrong byte */
    /* orders */
    bool offer_wal, hold, forget_producers;
    enum sh_error refuse;  /* with this... */
    uint32_t refuse_count; /* ...so many appends... */
    uint32_t refuse_after; /* ...after so many accepted ones */
    /* what it saw */
    uint32_t appends, conflicts;
    size_t held_count;
    struct held held[HELD_MAX];
    uint8_t arena[ARENA_BYTES];
};

/* Of the node's process alone: */
static struct loop *node_loop;
static struct link_server *node_server;
static struct loop_timer node_timer;

static void answer(struct link_token token, uint32_t type, const void *message)
{
    struct buf body = {0};
    msg_encode(type, message, &body);
    link_server_answer(node_server, token, type, buf_slice(&body));
    buf_free(&body);
}

static void refuse(struct link_token token, enum sh_error code, uint64_t expected)
{
    struct msg_error e = {.code = code, .text = slice_str("as the test wants"), .expected = expected};
    link_server_refuse(node_server, token, &e);
}

/* The highest sequence of the producer, and the frame with this one. */
static uint64_t find_sequence(struct node *n, const struct msg_append *m, const struct stored **found)
{
    uint64_t highest = 0;
    *found = NULL;
    for (size_t i = 0; i < n->frame_count; i++) {
        if (!id16_equal(n->frames[i].producer, m->producer))
            continue;
        highest = n->frames[i].sequence > highest ? n->frames[i].sequence : highest;
        if (n->frames[i].sequence == m->sequence)
            *found = &n->frames[i];
    }
    return highest;
}

static const struct stored *store(struct node *n, const struct msg_append *m)
{
    uint32_t count;
    enum sh_error e = entries_check(m->entries, &count);
    assert(e == SH_OK && n->frame_count < FRAMES_MAX && n->arena_used + m->entries.len <= ARENA_BYTES);
    struct stored *s = &n->frames[n->frame_count++];
    *s = (struct stored){.at = n->arena_used,
                         .len = m->entries.len,
                         .lsn = n->next_lsn,
                         .count = count,
                         .producer = m->producer,
                         .sequence = m->sequence};
    memcpy(n->arena + s->at, m->entries.data, s->len);
    n->arena_used += s->len;
    n->next_lsn += count;
    return s;
}

static void on_append(struct node *n, const struct link_request *request)
{
    struct msg_append m;
    const struct stored *s;
    enum sh_error e = msg_decode(MSG_append, request->body, &m);
    assert(e == SH_OK);
    n->appends++;
    if (n->forget_producers) {
        n->forget_producers = false;
        for (size_t i = 0; i < n->frame_count; i++)
            n->frames[i].producer = (struct id16){{1}};
    }
    uint64_t highest = find_sequence(n, &m, &s);
    if (s == NULL && m.sequence != highest + 1) {
        n->conflicts++;
        refuse(request->token, highest == 0 ? SH_SEQUENCE_EXPIRED : SH_CONFLICT, highest + 1);
        return;
    }
    if (n->refuse_after > 0) {
        n->refuse_after--;
    } else if (n->refuse_count > 0) {
        n->refuse_count--;
        refuse(request->token, n->refuse, 0);
        return;
    }
    if (s == NULL)
        s = store(n, &m);
    struct msg_append_reply reply = {.log = n->log, .lsn = s->lsn, .count = s->count};
    if ((n->hold || n->held_count > 0) && n->held_count < HELD_MAX)
        n->held[n->held_count++] = (struct held){request->token, reply};
    else
        answer(request->token, MSG_append_reply, &reply);
}

static void pack_frame(struct node *n, const struct stored *s, struct buf *out)
{
    uint8_t header[FRAME_HEADER_BYTES];
    struct slice body = slice_of(n->arena + s->at, s->len);
    struct frame_header h = {
        .body_bytes = (uint32_t)s->len, .base_lsn = s->lsn, .count = s->count, .hlc = s->lsn << 16};
    frame_encode(&h, 7, body, header);
    buf_append(out, header, sizeof header);
    buf_append(out, body.data, body.len);
    if (n->corrupt_lsn >= s->lsn && n->corrupt_lsn < s->lsn + s->count)
        out->data[out->len - 1] ^= 1;
}

static void on_read(struct node *n, const struct link_request *request)
{
    struct msg_read m;
    struct buf frames = {0};
    enum sh_error e = msg_decode(MSG_read, request->body, &m);
    assert(e == SH_OK);
    if (m.from < n->first_lsn) {
        refuse(request->token, SH_TRIMMED, n->first_lsn);
        return;
    }
    struct msg_read_reply reply = {.log = n->log, .salt = 7, .next = m.from, .durable_lsn = n->next_lsn - 1};
    for (size_t i = 0; i < n->frame_count && frames.len < m.max_bytes; i++) {
        const struct stored *s = &n->frames[i];
        if (s->lsn + s->count <= m.from)
            continue;
        pack_frame(n, s, &frames);
        reply.next = s->lsn + s->count;
    }
    reply.frames = buf_slice(&frames);
    answer(request->token, MSG_read_reply, &reply);
    buf_free(&frames);
}

static void on_request(void *arg, const struct link_request *request)
{
    struct node *n = arg;
    struct msg_hello_reply hello = {.cluster = slice_str("test"),
                                    .cluster_id = slice_str("12345678"),
                                    .node = slice_str("n1"),
                                    .log = n->log,
                                    .version = slice_str("1"),
                                    .max_append_bytes = 1 << 20};
    struct msg_status_reply status = {.cluster = slice_str("test"),
                                      .node = slice_str("n1"),
                                      .version = slice_str("1"),
                                      .log = n->log,
                                      .writable = true,
                                      .first_lsn = 1};
    pthread_mutex_lock(&n->lock);
    status.durable_lsn = n->next_lsn - 1;
    if (request->type == MSG_append)
        on_append(n, request);
    else if (request->type == MSG_read)
        on_read(n, request);
    else if (request->type == MSG_status)
        answer(request->token, MSG_status_reply, &status);
    else if (request->type == MSG_hello) {
        hello.wal_link = n->offer_wal ? slice_str(n->wal) : (struct slice){0};
        answer(request->token, MSG_hello_reply, &hello);
    }
    pthread_mutex_unlock(&n->lock);
}

/* Answers what is held once it needn't be any more. */
static void on_node_timer(void *arg)
{
    struct node *n = arg;
    pthread_mutex_lock(&n->lock);
    for (size_t i = 0; i < n->held_count && !n->hold; i++)
        answer(n->held[i].token, MSG_append_reply, &n->held[i].reply);
    n->held_count = n->hold ? n->held_count : 0;
    pthread_mutex_unlock(&n->lock);
    loop_timer_after(node_loop, &node_timer, 2 * NS_PER_MS);
}

static _Noreturn void node_main(struct node *n)
{
    node_loop = loop_open();
    struct link_server_options options = {.loop = node_loop,
                                          .limits = link_server_default_limits(),
                                          .cluster = slice_str("12345678"),
                                          .node = slice_str("n1"),
                                          .boot = id16_random(),
                                          .on_request = on_request,
                                          .arg = n};
    node_server = link_server_open(&options);
    if (link_server_listen(node_server, n->query) != SH_OK ||
        link_server_listen(node_server, n->wal) != SH_OK)
        _exit(1);
    node_timer = (struct loop_timer){.fn = on_node_timer, .arg = n};
    on_node_timer(n);
    loop_run(node_loop);
    _exit(0);
}

/* ---- processes: nng must not be used on both sides of a fork, so all nodes are forked by a helper that was
 * itself forked before nng was used at all ---- */

static int helper = -1;
static struct node *nodes; /* all there may be, in shared memory */
enum { NODES_MAX = 64 };
static size_t nodes_used;

static _Noreturn void helper_main(int channel)
{
    uint32_t index;
    signal(SIGCHLD, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(channel, &index, sizeof index) == sizeof index) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(channel);
            node_main(&nodes[index]);
        }
        if (write(channel, &pid, sizeof pid) != sizeof pid)
            break;
    }
    _exit(0);
}

static int start_helper(void **state)
{
    int pair[2];
    (void)state;
    nodes = mmap(NULL, NODES_MAX * sizeof *nodes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(nodes != MAP_FAILED);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(pair[0]);
        helper_main(pair[1]);
    }
    close(pair[1]);
    helper = pair[0];
    return 0;
}

static void node_spawn(struct node *n)
{
    uint32_t index = (uint32_t)(n - nodes);
    assert_int_equal(write(helper, &index, sizeof index), sizeof index);
    assert_int_equal(read(helper, &n->pid, sizeof n->pid), sizeof n->pid);
    assert_true(n->pid > 0);
}

/* SIGKILL; with the lock, so that the process doesn't take it along. */
static void node_kill(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    kill(n->pid, SIGKILL);
    while (kill(n->pid, 0) == 0)
        usleep(1000);
    n->held_count = 0;
    pthread_mutex_unlock(&n->lock);
}

static void node_restart(struct node *n)
{
    node_kill(n);
    node_spawn(n);
}

static struct node *node_start(void)
{
    assert_true(nodes_used < NODES_MAX);
    struct node *n = &nodes[nodes_used++];
    pthread_mutexattr_t shared;
    snprintf(n->dir, sizeof n->dir, "/tmp/shcXXXXXX");
    assert_non_null(mkdtemp(n->dir));
    snprintf(n->query, sizeof n->query, "ipc://%s/query", n->dir);
    snprintf(n->wal, sizeof n->wal, "ipc://%s/wal", n->dir);
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&n->lock, &shared);
    n->log = id16_random();
    n->next_lsn = n->first_lsn = 1;
    node_spawn(n);
    return n;
}

static void node_stop(struct node *n)
{
    static const char *const names[] = {"query.in", "query.out", "wal.in", "wal.out"};
    char path[64];
    node_kill(n);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", n->dir, names[i]);
        unlink(path);
    }
    rmdir(n->dir);
    madvise(n, sizeof *n, MADV_REMOVE);
}

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

/* ================================================================ the client */

static struct sh_options options_for(const char *const *endpoints, size_t count)
{
    struct sh_options o = sh_default_options();
    o.endpoints = endpoints;
    o.endpoint_count = count;
    o.timeout_ms = 10000;
    return o;
}

static struct sh_client *client_for(struct node *n)
{
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct sh_client *c;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    return c;
}

static struct sh_entry entry(const char *text)
{
    return (struct sh_entry){.payload = text, .payload_bytes = strlen(text)};
}

static enum sh_error append(struct sh_client *c, const char *text, struct sh_append_result *result)
{
    struct sh_entry e = entry(text);
    return sh_append(c, &e, 1, SH_ACK_LOCAL, result);
}

struct tally {
    atomic_uint called, failed;
    _Atomic uint64_t lsn; /* of the last success; must rise */
    enum sh_error error;  /* the last one */
};

static void on_done(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct tally *t = arg;
    if (error != SH_OK) {
        t->error = error;
        atomic_fetch_add(&t->failed, 1);
    } else {
        assert_true(result->first_lsn > atomic_load(&t->lsn));
        atomic_store(&t->lsn, result->first_lsn);
    }
    atomic_fetch_add(&t->called, 1);
}

static enum sh_error append_async(struct sh_client *c, struct tally *t, const char *text)
{
    struct sh_entry e = entry(text);
    return sh_append_async(c, &e, 1, SH_ACK_LOCAL, on_done, t);
}

/* Numbers first..last must be the log's payloads, once each and in order, from LSN `lsn`. */
static void check_numbers(struct sh_client *c, uint64_t lsn, unsigned first, unsigned last)
{
    struct sh_reader *r;
    struct sh_event e;
    struct sh_read_options o = {.from = lsn};
    char text[16];
    assert_int_equal(sh_read_open(c, &o, &r), SH_OK);
    for (unsigned i = first; i <= last; i++) {
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        snprintf(text, sizeof text, "%u", i);
        assert_int_equal(e.payload_bytes, strlen(text));
        assert_memory_equal(e.payload, text, e.payload_bytes);
        assert_int_equal(e.lsn, lsn + (i - first));
    }
    assert_int_equal(sh_read_next(r, 0, &e), SH_NOT_FOUND);
    sh_read_close(r);
}

static void append_numbers(struct sh_client *c, struct tally *t, unsigned first, unsigned last)
{
    char text[16];
    for (unsigned i = first; i <= last; i++) {
        snprintf(text, sizeof text, "%u", i);
        assert_int_equal(append_async(c, t, text), SH_OK);
    }
}

/* ================================================================ appends */

static void test_an_append_says_where_it_landed(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct sh_append_result result;
    struct sh_entry entries[] = {entry("a"), {"s", "", 0}, {"", "b", 1}};
    assert_int_equal(append(c, "first", &result), SH_OK);
    assert_int_equal(result.first_lsn, 1);
    assert_int_equal(sh_append(c, entries, 3, SH_ACK_QUORUM, &result), SH_OK);
    assert_int_equal(result.first_lsn, 2);
    assert_int_equal(result.count, 3);
    assert_int_equal(result.ack, SH_ACK_LOCAL);
    assert_memory_equal(result.log, n->log.bytes, 16);
    assert_int_equal(append(c, "last", NULL), SH_OK);
    sh_close(c);
    node_stop(n);
}

static void test_entries_have_the_bytes_that_everybody_writes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 200000};
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    char *payload = xcalloc(1, 200000);
    char stream[256];
    memset(stream, 's', sizeof stream);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t len = 0; len < 256; len += len == 31 ? 1 : 31) {
            stream[len] = 0;
            struct sh_entry e = {stream, payload, sizes[i]};
            struct entry same = {.stream = slice_of(stream, len), .value = slice_of(payload, sizes[i])};
            struct buf wanted = {0};
            msgpack_packer pk;
            mp_packer(&pk, &wanted);
            msgpack_pack_array(&pk, 1);
            entry_pack(&pk, &same);
            assert_int_equal(sh_append(c, &e, 1, SH_ACK_LOCAL, NULL), SH_OK);
            const struct stored *got = &n->frames[n->frame_count - 1];
            assert_int_equal(got->len, wanted.len);
            assert_memory_equal(n->arena + got->at, wanted.data, wanted.len);
            buf_free(&wanted);
            stream[len] = 's';
        }
    }
    free(payload);
    sh_close(c);
    node_stop(n);
}

static void test_what_waits_goes_out_as_one_frame(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct tally t = {0};
    assert_int_equal(append(c, "0", NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    append_numbers(c, &t, 1, 4);
    NODE_WAIT(n, n->appends >= 2);
    append_numbers(c, &t, 5, 1000);
    NODE_WAIT(n, n->held_count > 0);
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.called, 1000);
    assert_int_equal(t.failed, 0);
    assert_true(n->appends < 50);
    check_numbers(c, 1, 0, 1000);
    sh_close(c);
    node_stop(n);
}

static void test_a_frame_keeps_its_bounds(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    o.batch_entries = 7;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    append_numbers(c, &t, 1, 700);
    assert_int_equal(sh_flush(c), SH_OK);
    for (size_t i = 0; i < n->frame_count; i++)
        assert_true(n->frames[i].count <= 7);
    check_numbers(c, 1, 1, 700);
    sh_close(c);
    node_stop(n);
}

static void test_linger_waits_for_company(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    o.linger_us = 100000;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(append(c, "0", NULL), SH_OK);
    append_numbers(c, &t, 1, 1);
    usleep(2000);
    append_numbers(c, &t, 2, 2);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(n->appends, 2);
    check_numbers(c, 1, 0, 2);
    sh_close(c);
    node_stop(n);
}

struct caller {
    pthread_t thread;
    struct sh_client *client;
    unsigned number;
    uint64_t lsns[100];
};

static void *call_many(void *arg)
{
    struct caller *caller = arg;
    for (unsigned i = 0; i < 100; i++) {
        char text[32];
        struct sh_append_result result;
        snprintf(text, sizeof text, "%u.%u", caller->number, i);
        if (append(caller->client, text, &result) == SH_OK)
            caller->lsns[i] = result.first_lsn;
    }
    return NULL;
}

static void test_each_of_many_callers_gets_its_own_lsn(void **state)
{
    (void)state;
    enum { CALLERS = 12 };
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct caller callers[CALLERS];
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.client = c, .number = i};
        pthread_create(&callers[i].thread, NULL, call_many, &callers[i]);
    }
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){0}, &r), SH_OK);
    for (unsigned k = 0; k < CALLERS * 100; k++) {
        unsigned number, i;
        char text[32];
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        snprintf(text, sizeof text, "%.*s", (int)e.payload_bytes, (const char *)e.payload);
        assert_int_equal(sscanf(text, "%u.%u", &number, &i), 2);
        assert_int_equal(callers[number].lsns[i], e.lsn);
    }
    assert_int_equal(sh_read_next(r, 0, &e), SH_NOT_FOUND);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

/* ================================================================ refusals */

static void test_overloaded_is_tried_again_in_order(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    o.batch_entries = 5;
    o.in_flight = 8;
    n->refuse = SH_OVERLOADED;
    n->refuse_count = 3;
    n->refuse_after = 5;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    append_numbers(c, &t, 1, 500);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(n->refuse_count, 0);
    assert_true(n->conflicts > 0);
    check_numbers(c, 1, 1, 500);
    sh_close(c);
    node_stop(n);
}

static void test_unknown_outcome_is_tried_again_under_its_sequence(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    NODE_SET(n, (n->refuse = SH_UNAVAILABLE, n->refuse_count = 2));
    assert_int_equal(append(c, "1", NULL), SH_OK);
    assert_int_equal(append(c, "2", NULL), SH_OK);
    check_numbers(c, 1, 1, 2);
    sh_close(c);
    node_stop(n);
}

static void test_a_refused_frame_fails_its_callers_only(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally bad = {0}, good = {0};
    struct sh_client *c;
    o.batch_entries = 1;
    o.in_flight = 16;
    n->refuse = SH_DISK_FULL;
    n->refuse_after = 10;
    n->refuse_count = 1;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    append_numbers(c, &good, 1, 10);
    append_numbers(c, &bad, 999, 999);
    append_numbers(c, &good, 11, 300);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(bad.failed, 1);
    assert_int_equal(bad.error, SH_DISK_FULL);
    assert_int_equal(good.failed, 0);
    check_numbers(c, 1, 1, 300);
    sh_close(c);
    node_stop(n);
}

static void test_a_forgotten_producer_starts_anew_unseen(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(append(c, "x", NULL), SH_OK);
    NODE_SET(n, n->forget_producers = true);
    struct sh_append_result result;
    assert_int_equal(append(c, "y", &result), SH_OK);
    assert_int_equal(result.first_lsn, 4);
    assert_int_equal(append(c, "z", &result), SH_OK);
    assert_int_equal(result.first_lsn, 5);
    assert_int_equal(n->frame_count, 5);
    sh_close(c);
    node_stop(n);
}

static void test_expired_after_an_unknown_outcome_is_told(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct tally t = {0};
    assert_int_equal(append(c, "1", NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    append_numbers(c, &t, 2, 2);
    NODE_WAIT(n, n->held_count == 1);
    NODE_SET(n, (n->forget_producers = true, n->hold = false));
    node_restart(n); /* its answer is lost, and so is the memory of the producer */
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 1);
    assert_int_equal(t.error, SH_SEQUENCE_EXPIRED);
    assert_int_equal(append(c, "3", NULL), SH_OK);
    check_numbers(c, 1, 1, 3);
    sh_close(c);
    node_stop(n);
}

static void test_bad_entries_are_refused_before_they_spoil_anything(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = 0;
    char *big = xcalloc(1, 2 << 20);
    struct sh_entry long_name = {name, "", 0}, no_utf8 = {"\xff", "", 0}, missing = {NULL, NULL, 1};
    struct sh_entry too_big = {NULL, big, 2 << 20}, good = entry("x");
    assert_int_equal(append(c, "0", NULL), SH_OK);
    assert_int_equal(sh_append(c, &long_name, 1, 0, NULL), SH_TOO_LARGE);
    assert_int_equal(sh_append(c, &no_utf8, 1, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, &missing, 1, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, &too_big, 1, 0, NULL), SH_TOO_LARGE);
    assert_string_not_equal(sh_last_error_detail(), "");
    assert_int_equal(sh_append(c, &good, 0, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, &good, 1, (enum sh_ack)3, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, NULL, 1, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append_async(c, &good, 1, 0, NULL, NULL), SH_BAD_REQUEST);
    assert_int_equal(append(c, "1", NULL), SH_OK);
    check_numbers(c, 1, 0, 1);
    free(big);
    sh_close(c);
    node_stop(n);
}

/* The node's limit isn't known yet when the call is made. */
static void test_too_large_for_the_node_before_it_is_known(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct tally small = {0}, large = {0};
    char *big = xcalloc(1, 2 << 20);
    struct sh_entry e = {NULL, big, 2 << 20};
    append_numbers(c, &small, 1, 1);
    enum sh_error at_once = sh_append_async(c, &e, 1, SH_ACK_LOCAL, on_done, &large);
    append_numbers(c, &small, 2, 3);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_true(at_once == SH_TOO_LARGE || (large.failed == 1 && large.error == SH_TOO_LARGE));
    assert_int_equal(small.failed, 0);
    check_numbers(c, 1, 1, 3);
    free(big);
    sh_close(c);
    node_stop(n);
}

/* ================================================================ bounds and time */

static void test_a_full_queue_makes_appends_wait(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    o.queue_bytes = 20;
    o.timeout_ms = 300;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    NODE_SET(n, n->hold = true);
    assert_int_equal(append_async(c, &t, "123456789"), SH_OK); /* 14 bytes encoded */
    int64_t before_ns = clock_mono_ns();
    assert_int_equal(append_async(c, &t, "123456789"), SH_TIMEOUT);
    assert_true(clock_mono_ns() - before_ns >= 290 * NS_PER_MS);
    NODE_WAIT(n, n->held_count == 1);
    NODE_SET(n, n->hold = false);
    assert_int_equal(append_async(c, &t, "123456789"), SH_OK);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.called, 2);
    sh_close(c);
    node_stop(n);
}

struct nested {
    struct sh_client *client;
    struct tally tally;
    enum sh_error async, sync, status;
};

static void call_from_within(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct nested *nested = arg;
    struct sh_entry e = entry("123456789");
    struct sh_status status;
    (void)error;
    (void)result;
    nested->sync = sh_append(nested->client, &e, 1, SH_ACK_LOCAL, NULL);
    nested->status = sh_status(nested->client, &status);
    nested->async = sh_append_async(nested->client, &e, 1, SH_ACK_LOCAL, on_done, &nested->tally);
}

static void test_a_callback_may_append_but_never_waits(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct nested nested = {.client = c};
    struct sh_entry e = entry("x");
    assert_int_equal(sh_append_async(c, &e, 1, SH_ACK_LOCAL, call_from_within, &nested), SH_OK);
    NODE_WAIT(n, nested.tally.called == 1);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(nested.async, SH_OK);
    assert_int_equal(nested.sync, SH_BAD_REQUEST);
    assert_int_equal(nested.status, SH_BAD_REQUEST);
    assert_int_equal(nested.tally.failed, 0);
    sh_close(c);
    node_stop(n);
}

static void test_no_answer_in_time_is_unknown_and_a_late_one_harmless(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    o.timeout_ms = 200;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    NODE_SET(n, n->hold = true);
    assert_int_equal(append(c, "1", NULL), SH_TIMEOUT);
    append_numbers(c, &t, 2, 2);
    NODE_WAIT(n, t.called == 1);
    assert_int_equal(t.error, SH_TIMEOUT);
    NODE_WAIT(n, n->held_count == 2);
    NODE_SET(n, n->hold = false);
    assert_int_equal(append(c, "3", NULL), SH_OK);
    assert_int_equal(t.called, 1);
    check_numbers(c, 1, 1, 3);
    sh_close(c);
    node_stop(n);
}

static void test_nobody_there_is_told_in_time(void **state)
{
    (void)state;
    const char *endpoints[] = {"ipc:///tmp/shc-nobody/query"};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    struct sh_status status;
    o.timeout_ms = 100;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(append(c, "1", NULL), SH_TIMEOUT);
    assert_int_equal(sh_status(c, &status), SH_UNAVAILABLE);
    append_numbers(c, &t, 1, 3);
    while (t.called < 3)
        usleep(1000);
    assert_int_equal(t.error, SH_TIMEOUT);
    assert_int_equal(sh_flush(c), SH_OK); /* never sent and given up: gone */
    sh_close(c);
}

static void test_close_answers_what_is_open(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct tally t = {0};
    struct sh_reader *r;
    struct sh_event e;
    NODE_SET(n, n->hold = true);
    append_numbers(c, &t, 1, 10);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.follow = true}, &r), SH_OK);
    (void)sh_read_next(r, 1, &e);
    sh_read_close(r);
    NODE_WAIT(n, n->held_count > 0);
    sh_close(c);
    assert_int_equal(t.called, 10);
    assert_int_equal(t.failed, 10);
    assert_int_equal(t.error, SH_UNAVAILABLE);
    node_stop(n);
}

static void test_bad_options_are_refused(void **state)
{
    (void)state;
    const char *good[] = {"ipc:///tmp/x"}, *bad[] = {"http://x"};
    struct sh_client *c;
    struct sh_options o = options_for(good, 0);
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = options_for(bad, 1);
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = options_for(good, 1);
    o.in_flight = 0;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    assert_string_not_equal(sh_last_error_detail(), "");
    o = options_for(good, 1);
    o.timeout_ms = 0;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
    o = options_for(good, 1);
    o.batch_entries = ENTRIES_MAX + 1;
    assert_int_equal(sh_open(&o, &c), SH_BAD_REQUEST);
}

/* ================================================================ restarts and other nodes */

static void test_restarts_neither_lose_nor_double_nor_reorder(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = options_for(endpoints, 1);
    struct tally t = {0};
    struct sh_client *c;
    o.batch_entries = 10;
    o.in_flight = 16;
    o.timeout_ms = 60000;
    n->offer_wal = true;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    for (unsigned round = 0; round < 6; round++) {
        if (round % 2 == 1)
            NODE_SET(n, n->hold = true);
        append_numbers(c, &t, round * 1000 + 1, round * 1000 + 1000);
        if (round % 2 == 1) {
            NODE_WAIT(n, n->held_count > 0);
            NODE_SET(n, n->hold = false);
        }
        node_restart(n);
    }
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.called, 6000);
    assert_int_equal(t.failed, 0);
    check_numbers(c, 1, 1, 6000);
    sh_close(c);
    node_stop(n);
}

/* The query link's endpoint gives another name for walsvc's: the same log, so the same sequences go on. */
static void test_appends_move_to_another_link_of_the_same_log(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct tally t = {0};
    assert_int_equal(append(c, "1", NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    append_numbers(c, &t, 2, 3);
    NODE_WAIT(n, n->held_count > 0);
    NODE_SET(n, (n->offer_wal = true, n->hold = false));
    node_restart(n);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    check_numbers(c, 1, 1, 3);
    sh_close(c);
    node_stop(n);
}

static void open_pair(struct node *a, struct node *b, bool at_least_once, struct sh_client **c)
{
    const char *endpoints[] = {a->query, b->query};
    struct sh_options o = options_for(endpoints, 2);
    o.timeout_ms = 3000;
    o.at_least_once = at_least_once;
    assert_int_equal(sh_open(&o, c), SH_OK);
}

static void test_what_may_have_landed_never_goes_to_another_node(void **state)
{
    (void)state;
    struct node *a = node_start(), *b = node_start();
    struct sh_client *c;
    struct sh_status status;
    struct sh_append_result result;
    struct tally t = {0};
    open_pair(a, b, false, &c);
    assert_int_equal(append(c, "1", NULL), SH_OK);
    NODE_SET(a, a->hold = true);
    append_numbers(c, &t, 2, 2);
    NODE_WAIT(a, a->held_count == 1);
    node_kill(a);
    assert_int_equal(sh_status(c, &status), SH_OK); /* by the second node */
    assert_memory_equal(status.log, b->log.bytes, 16);
    NODE_WAIT(a, t.called == 1);
    assert_int_equal(t.error, SH_TIMEOUT);
    assert_int_equal(append(c, "3", &result), SH_OK); /* a new one does */
    assert_memory_equal(result.log, b->log.bytes, 16);
    assert_int_equal(a->frame_count, 2);
    assert_int_equal(b->frame_count, 1);
    sh_close(c);
    node_stop(a);
    node_stop(b);
}

static void test_at_least_once_goes_to_another_node(void **state)
{
    (void)state;
    struct node *a = node_start(), *b = node_start();
    struct sh_client *c;
    struct tally t = {0};
    open_pair(a, b, true, &c);
    assert_int_equal(append(c, "1", NULL), SH_OK);
    NODE_SET(a, a->hold = true);
    append_numbers(c, &t, 2, 2);
    NODE_WAIT(a, a->held_count == 1);
    node_kill(a);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(b->frame_count, 1);
    sh_close(c);
    node_stop(a);
    node_stop(b);
}

static void test_a_dead_first_endpoint_is_passed_over(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {"ipc:///tmp/shc-nobody/query", n->query};
    struct sh_options o = options_for(endpoints, 2);
    struct sh_client *c;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(append(c, "1", NULL), SH_OK);
    sh_close(c);
    node_stop(n);
}

/* ================================================================ reading */

static void test_reading_from_anywhere(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct tally t = {0};
    append_numbers(c, &t, 1, 3000);
    assert_int_equal(sh_flush(c), SH_OK);
    for (unsigned from = 1; from <= 3001; from += 250)
        check_numbers(c, from, from, 3000);
    struct sh_reader *r;
    struct sh_event e;
    struct sh_read_options small = {.from = 1, .fetch_bytes = 100};
    assert_int_equal(sh_read_open(c, &small, &r), SH_OK);
    for (unsigned i = 1; i <= 3000; i++) {
        assert_int_equal(sh_read_position(r), i);
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        assert_int_equal(e.lsn, i);
    }
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_a_stream_is_read_alone(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct sh_entry entries[] = {{"a", "1", 1}, {"b", "2", 1}, {"a", "3", 1}, {NULL, "4", 1}};
    struct sh_reader *r;
    struct sh_event e;
    assert_int_equal(sh_append(c, entries, 4, SH_ACK_LOCAL, NULL), SH_OK);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.stream = "a"}, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 1);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 3);
    assert_int_equal(e.stream_bytes, 1);
    assert_int_equal(sh_read_next(r, 0, &e), SH_NOT_FOUND);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_following_waits_for_what_is_new(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct sh_reader *r;
    struct sh_event e;
    assert_int_equal(append(c, "old", NULL), SH_OK);
    assert_int_equal(
        sh_read_open(c, &(struct sh_read_options){.from = UINT64_MAX, .follow = true, .fetch_bytes = 1}, &r),
        SH_OK);
    assert_int_equal(sh_read_next(r, 20, &e), SH_TIMEOUT);
    assert_int_equal(append(c, "new", NULL), SH_OK);
    assert_int_equal(sh_read_next(r, 5000, &e), SH_OK);
    assert_int_equal(e.lsn, 2);
    assert_int_equal(sh_read_next(r, 20, &e), SH_TIMEOUT);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_trimmed_says_where_to_go_on(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(append(c, "x", NULL), SH_OK);
    NODE_SET(n, n->first_lsn = 3);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.from = 1}, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_TRIMMED);
    assert_int_equal(sh_read_position(r), 3);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(e.lsn, 3);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_a_frame_damaged_on_its_way_is_noticed(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(append(c, "x", NULL), SH_OK);
    NODE_SET(n, n->corrupt_lsn = 3);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.from = 1, .fetch_bytes = 1}, &r), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
    assert_int_equal(sh_read_next(r, 0, &e), SH_CORRUPT);
    assert_int_equal(sh_read_position(r), 3);
    NODE_SET(n, n->corrupt_lsn = 0);
    assert_int_equal(sh_read_next(r, 0, &e), SH_OK); /* what comes when it is asked for again */
    assert_int_equal(e.lsn, 3);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

static void test_reads_go_on_over_restarts(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_for(n);
    struct sh_reader *r;
    struct sh_event e;
    struct tally t = {0};
    append_numbers(c, &t, 1, 400);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){.fetch_bytes = 1}, &r), SH_OK);
    for (unsigned i = 1; i <= 400; i++) {
        if (i % 100 == 0)
            node_restart(n);
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        assert_int_equal(e.lsn, i);
    }
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_append_says_where_it_landed),
        cmocka_unit_test(test_entries_have_the_bytes_that_everybody_writes),
        cmocka_unit_test(test_what_waits_goes_out_as_one_frame),
        cmocka_unit_test(test_a_frame_keeps_its_bounds),
        cmocka_unit_test(test_linger_waits_for_company),
        cmocka_unit_test(test_each_of_many_callers_gets_its_own_lsn),
        cmocka_unit_test(test_overloaded_is_tried_again_in_order),
        cmocka_unit_test(test_unknown_outcome_is_tried_again_under_its_sequence),
        cmocka_unit_test(test_a_refused_frame_fails_its_callers_only),
        cmocka_unit_test(test_a_forgotten_producer_starts_anew_unseen),
        cmocka_unit_test(test_expired_after_an_unknown_outcome_is_told),
        cmocka_unit_test(test_bad_entries_are_refused_before_they_spoil_anything),
        cmocka_unit_test(test_too_large_for_the_node_before_it_is_known),
        cmocka_unit_test(test_a_full_queue_makes_appends_wait),
        cmocka_unit_test(test_a_callback_may_append_but_never_waits),
        cmocka_unit_test(test_no_answer_in_time_is_unknown_and_a_late_one_harmless),
        cmocka_unit_test(test_nobody_there_is_told_in_time),
        cmocka_unit_test(test_close_answers_what_is_open),
        cmocka_unit_test(test_bad_options_are_refused),
        cmocka_unit_test(test_restarts_neither_lose_nor_double_nor_reorder),
        cmocka_unit_test(test_appends_move_to_another_link_of_the_same_log),
        cmocka_unit_test(test_what_may_have_landed_never_goes_to_another_node),
        cmocka_unit_test(test_at_least_once_goes_to_another_node),
        cmocka_unit_test(test_a_dead_first_endpoint_is_passed_over),
        cmocka_unit_test(test_reading_from_anywhere),
        cmocka_unit_test(test_a_stream_is_read_alone),
        cmocka_unit_test(test_following_waits_for_what_is_new),
        cmocka_unit_test(test_trimmed_says_where_to_go_on),
        cmocka_unit_test(test_a_frame_damaged_on_its_way_is_noticed),
        cmocka_unit_test(test_reads_go_on_over_restarts),
    };
    return cmocka_run_group_tests(tests, start_helper, NULL);
}
