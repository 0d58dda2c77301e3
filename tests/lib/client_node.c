/* The node's process, and what clients do to it. */
#include "client_node.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* Of the node's process alone: */
static struct loop *node_loop;
static struct link_server *node_server;
static struct loop_timer node_timer;

void node_answer(struct link_token token, uint32_t type, const void *message)
{
    struct buf body = {0};
    msg_encode(type, message, &body);
    link_server_answer(node_server, token, type, buf_slice(&body));
    buf_free(&body);
}

void node_refuse(struct link_token token, enum sh_error code, uint64_t expected)
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
        if (!id16_equal(n->frames[i].producer, m->producer) || n->frames[i].epoch != m->epoch)
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
                         .epoch = m->epoch,
                         .hlc = m->hlc,
                         .sequence = m->sequence,
                         .ack = m->ack};
    memcpy(n->arena + s->at, m->entries.data, s->len);
    n->arena_used += s->len;
    n->next_lsn += count;
    return s;
}

static void refuse_conflict(struct node *n, struct link_token token)
{
    struct buf current = {0};
    msgpack_packer pk;
    mp_packer(&pk, &current);
    msgpack_pack_array(&pk, 4);
    msgpack_pack_uint64(&pk, 1);
    mp_pack_bin(&pk, slice_of(n->log.bytes, sizeof n->log.bytes));
    msgpack_pack_uint64(&pk, n->current_lsn);
    msgpack_pack_uint64(&pk, n->current_lsn << 16);
    const struct msg_error error = {.code = SH_CONFLICT, .current = buf_slice(&current)};
    link_server_refuse(node_server, token, &error);
    buf_free(&current);
}

/* The fields of an append_if are among those of an append, but for what it depends on. */
static struct msg_append decode_append(const struct link_request *request)
{
    struct msg_append m;
    struct msg_append_if with;
    enum sh_error e = request->type == MSG_append ? msg_decode(MSG_append, request->body, &m)
                                                  : msg_decode(MSG_append_if, request->body, &with);
    assert(e == SH_OK);
    if (request->type == MSG_append_if)
        m = (struct msg_append){.producer = with.producer,
                                .epoch = with.epoch,
                                .sequence = with.sequence,
                                .ack = with.ack,
                                .timeout_ms = with.timeout_ms,
                                .hlc = with.hlc,
                                .entries = with.entries};
    return m;
}

static void on_append(struct node *n, const struct link_request *request)
{
    struct msg_append m = decode_append(request);
    const struct stored *s;
    if (n->appends < CORRELATIONS_MAX)
        n->correlations[n->appends] = request->correlation;
    n->appends++;
    n->ack_timeout_ms = m.timeout_ms;
    if (n->forget_producers) {
        n->forget_producers = false;
        for (size_t i = 0; i < n->frame_count; i++)
            n->frames[i].producer = (struct id16){{1}};
    }
    if (node_refuses_group(n, request->token, m.entries))
        return;
    uint64_t highest = find_sequence(n, &m, &s);
    if (s == NULL && m.sequence != highest + 1) {
        n->conflicts++;
        node_refuse(request->token, highest == 0 ? SH_SEQUENCE_EXPIRED : SH_CONFLICT, highest + 1);
        return;
    }
    if (s == NULL && request->type == MSG_append_if && n->current_lsn > 0) {
        refuse_conflict(n, request->token);
        return;
    }
    if (n->refuse_after > 0) {
        n->refuse_after--;
    } else if (n->refuse_count > 0) {
        n->refuse_count--;
        node_refuse(request->token, n->refuse, 0);
        return;
    }
    if (s == NULL)
        s = store(n, &m);
    struct msg_append_reply reply = {.log = n->log, .lsn = s->lsn, .count = s->count};
    reply.ack = m.ack > SH_ACK_LOCAL ? n->reached : SH_ACK_LOCAL;
    bool waits = n->hold_others ? m.ack > SH_ACK_LOCAL : n->held_count > 0;
    if ((n->hold || waits) && n->held_count < HELD_MAX)
        n->held[n->held_count++] = (struct held){request->token, reply};
    else
        node_answer(request->token, MSG_append_reply, &reply);
}

static void on_producer_status(struct node *n, const struct link_request *request)
{
    struct msg_producer_status m;
    const struct stored *s;
    enum sh_error e = msg_decode(MSG_producer_status, request->body, &m);
    assert(e == SH_OK);
    const struct msg_append asked = {.producer = m.producer, .epoch = m.epoch, .sequence = m.sequence};
    find_sequence(n, &asked, &s);
    struct msg_producer_status_reply reply = {.log = n->log, .state = 1};
    if (s != NULL)
        reply = (struct msg_producer_status_reply){.log = n->log, .lsn = s->lsn, .count = s->count};
    node_answer(request->token, MSG_producer_status_reply, &reply);
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

static bool holds(const struct node *n, struct id16 log)
{
    return id16_is_zero(log) || id16_equal(log, n->log) || id16_equal(log, n->copy);
}

static void on_log_info(struct node *n, const struct link_request *request)
{
    struct msg_log_info m;
    enum sh_error e = msg_decode(MSG_log_info, request->body, &m);
    assert(e == SH_OK);
    const struct msg_log_info_reply reply = {.log = id16_is_zero(m.log) ? n->log : m.log,
                                             .first_lsn = n->first_lsn,
                                             .durable_lsn = n->next_lsn - 1,
                                             .segments = slice_str("\x90")}; /* none */
    if (holds(n, m.log))
        node_answer(request->token, MSG_log_info_reply, &reply);
    else
        node_refuse(request->token, SH_NOT_FOUND, 0);
}

static void on_read(struct node *n, const struct link_request *request)
{
    struct msg_read m;
    struct buf frames = {0};
    enum sh_error e = msg_decode(MSG_read, request->body, &m);
    assert(e == SH_OK);
    if (!holds(n, m.log)) {
        node_refuse(request->token, SH_NOT_FOUND, 0);
        return;
    }
    if (m.from < n->first_lsn) {
        node_refuse(request->token, SH_TRIMMED, n->first_lsn);
        return;
    }
    struct msg_read_reply reply = {.log = id16_is_zero(m.log) ? n->log : m.log,
                                   .salt = 7,
                                   .next = m.from,
                                   .durable_lsn = n->next_lsn - 1};
    for (size_t i = 0; i < n->frame_count && frames.len < m.max_bytes; i++) {
        const struct stored *s = &n->frames[i];
        if (s->lsn + s->count <= m.from)
            continue;
        pack_frame(n, s, &frames);
        reply.next = s->lsn + s->count;
    }
    reply.frames = buf_slice(&frames);
    node_answer(request->token, MSG_read_reply, &reply);
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
    if (node_on_members(n, request) || node_on_groups(n, request) || node_on_keys(n, request))
        ;
    else if (request->type == MSG_append || request->type == MSG_append_if)
        on_append(n, request);
    else if (request->type == MSG_read)
        on_read(n, request);
    else if (request->type == MSG_log_info)
        on_log_info(n, request);
    else if (request->type == MSG_producer_status)
        on_producer_status(n, request);
    else if (request->type == MSG_replicas)
        node_on_replicas(n, request->token);
    else if (request->type == MSG_status)
        node_answer(request->token, MSG_status_reply, &status);
    else if (request->type == MSG_hello) {
        hello.wal_link = n->offer_wal ? slice_str(n->wal) : (struct slice){0};
        node_group_hello(n, &hello);
        node_answer(request->token, MSG_hello_reply, &hello);
    }
    pthread_mutex_unlock(&n->lock);
}

/* Answers what is held once it needn't be any more. */
static void on_node_timer(void *arg)
{
    struct node *n = arg;
    pthread_mutex_lock(&n->lock);
    bool held = n->hold || n->hold_others;
    for (size_t i = 0; i < n->held_count && !held; i++)
        node_answer(n->held[i].token, MSG_append_reply, &n->held[i].reply);
    n->held_count = held ? n->held_count : 0;
    node_answer_poll(n);
    node_answer_keys(n);
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

int node_helper_start(void **state)
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

void node_kill(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    kill(n->pid, SIGKILL);
    while (kill(n->pid, 0) == 0)
        usleep(1000);
    n->held_count = 0;
    n->parked = false;
    pthread_mutex_unlock(&n->lock);
}

void node_restart(struct node *n)
{
    node_kill(n);
    node_spawn(n);
}

struct node *node_start(void)
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
    n->next_lsn = n->first_lsn = n->event_first = n->event_next = 1;
    n->series = id16_random();
    node_spawn(n);
    return n;
}

void node_stop(struct node *n)
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

/* ---------------------------------------------------------------- clients */

struct sh_options client_options(const char *const *endpoints, size_t count)
{
    struct sh_options o = sh_default_options();
    o.endpoints = endpoints;
    o.endpoint_count = count;
    o.timeout_ms = 10000;
    return o;
}

struct sh_client *client_open(struct node *n)
{
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct sh_client *c;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    return c;
}

struct sh_entry client_entry(const char *text)
{
    return (struct sh_entry){.payload = text, .payload_bytes = strlen(text)};
}

enum sh_error client_append(struct sh_client *c, const char *text, struct sh_append_result *result)
{
    struct sh_entry e = client_entry(text);
    return sh_append(c, &e, 1, SH_ACK_LOCAL, result);
}

void client_on_done(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct client_tally *t = arg;
    if (error != SH_OK) {
        t->error = error;
        atomic_fetch_add(&t->failed, 1);
    } else {
        assert_true(result->first_lsn > atomic_load(&t->lsn));
        atomic_store(&t->lsn, result->first_lsn);
    }
    atomic_fetch_add(&t->called, 1);
}

enum sh_error client_append_async(struct sh_client *c, struct client_tally *t, const char *text)
{
    struct sh_entry e = client_entry(text);
    return sh_append_async(c, &e, 1, SH_ACK_LOCAL, client_on_done, t);
}

void client_check_numbers(struct sh_client *c, uint64_t lsn, unsigned first, unsigned last)
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

void client_append_numbers(struct sh_client *c, struct client_tally *t, unsigned first, unsigned last)
{
    char text[16];
    for (unsigned i = first; i <= last; i++) {
        snprintf(text, sizeof text, "%u", i);
        assert_int_equal(client_append_async(c, t, text), SH_OK);
    }
}
