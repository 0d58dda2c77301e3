/* Birth and death of a client, its thread, mail to it, and the calls about the node.
 *
 * The client's own thread opens the links and blocks all signals first: nng's threads inherit that. Fatal: no
 * thread to be had. */
#include "sh_internal.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static _Thread_local char last_detail[SHC_DETAIL_MAX];

void shc_detail(const char *text)
{
    snprintf(last_detail, sizeof last_detail, "%s", text);
}

const char *sh_last_error_detail(void)
{
    return last_detail;
}

int64_t shc_patience_ns(const struct sh_client *c, enum sh_ack ack)
{
    int64_t patience_ms = c->options.timeout_ms;
    if (ack != SH_ACK_LOCAL)
        patience_ms += c->options.ack_timeout_ms;
    return patience_ms * (int64_t)NS_PER_MS;
}

uint64_t shc_correlation(struct sh_client *c)
{
    if (++c->correlations == 0)
        c->correlations++; /* 0 means none */
    return c->correlations;
}

/* ---------------------------------------------------------------- options */

struct sh_options sh_default_options(void)
{
    return (struct sh_options){
        .timeout_ms = 30000,
        .ack_timeout_ms = 5000,
        .batch_entries = 4096,
        .batch_bytes = 1 << 20,
        .in_flight = 4,
        .queue_bytes = 64 << 20,
    };
}

static enum sh_error check_options(const struct sh_options *o)
{
    char in[LINK_ENDPOINT_MAX], out[LINK_ENDPOINT_MAX];
    const char *wrong = NULL;
    if (o->endpoints == NULL || o->endpoint_count == 0)
        wrong = "an endpoint is needed";
    else if (o->timeout_ms == 0 || o->timeout_ms > 86400000)
        wrong = "timeout_ms is between 1 and 86,400,000";
    else if (o->ack_timeout_ms > 86400000)
        wrong = "ack_timeout_ms is at most 86,400,000";
    else if (o->batch_entries == 0 || o->batch_entries > ENTRIES_MAX)
        wrong = "batch_entries is between 1 and 65,536";
    else if (o->batch_bytes == 0 || o->queue_bytes == 0)
        wrong = "batch_bytes and queue_bytes are above 0";
    else if (o->in_flight == 0 || o->in_flight > 1024)
        wrong = "in_flight is between 1 and 1,024";
    for (size_t i = 0; wrong == NULL && i < o->endpoint_count; i++)
        if (o->endpoints[i] == NULL || link_endpoint_urls(o->endpoints[i], in, out) != SH_OK)
            wrong = "an endpoint is ipc:///path (short enough for a socket's 107 bytes) or tcp://host:port";
    if (wrong == NULL)
        return SH_OK;
    shc_detail(wrong);
    return SH_BAD_REQUEST;
}

/* ---------------------------------------------------------------- the thread */

void shc_post(struct sh_client *c, struct shc_mail *mail)
{
    mailbox_put(&c->mailbox, &mail->mail);
}

void shc_visit(struct sh_client *c, struct shc_mail *mail)
{
    if (!mailbox_put_turn(&c->mailbox, &mail->mail))
        return;
    c->visited = true;
    mailbox_turn_once(&c->mailbox);
}

static void on_mail(void *arg, struct mail *first)
{
    struct sh_client *c = arg;
    while (first != NULL) {
        struct shc_mail *mail = (struct shc_mail *)first;
        first = first->next; /* before fn: the mail may be gone then */
        mail->fn(c, mail->arg);
    }
}

static void on_wake(struct sh_client *c, void *arg)
{
    (void)arg;
    pthread_mutex_lock(&c->queue.lock);
    c->queue.woken = false;
    pthread_mutex_unlock(&c->queue.lock);
} /* the round's hook sends */

static void on_quit(struct sh_client *c, void *arg)
{
    (void)arg;
    loop_stop(c->loop);
}

static void on_round(void *arg)
{
    struct sh_client *c = arg;
    shc_pump(c); /* before the callers are woken, which takes its time when there are many */
    shc_gets_pump(c);
    shc_wake_callers(c);
    c->visited = false;
}

static void *run(void *arg)
{
    struct sh_client *c = arg;
    c->hook = (struct loop_hook){.fn = on_round, .arg = c};
    loop_hook_add(c->loop, &c->hook); /* before the links: what it queues goes out in the same round */
    shc_send_open(c);
    shc_query_open(c);
    loop_run(c->loop);
    shc_groups_stop(c);
    shc_send_close(c);
    shc_query_close(c);
    shc_gets_end(c);
    loop_hook_remove(c->loop, &c->hook);
    return NULL;
}

static void start_thread(struct sh_client *c)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&c->thread, NULL, run, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        fprintf(stderr, "libshanghai: no thread: %s\n", strerror(failed));
        abort();
    }
    pthread_setname_np(c->thread, "shanghai");
}

static void queue_init(struct shc_queue *q)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->room, &monotonic);
    pthread_cond_init(&q->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    q->tail = &q->head;
    for (unsigned i = 0; i < SHC_LANES; i++)
        q->lanes[i].wake_on_entry = true;
    q->wake = (struct shc_mail){.fn = on_wake};
}

static void queue_free(struct shc_queue *q)
{
    assert(q->head == NULL);
    while (q->spare != NULL) {
        struct shc_batch *b = q->spare;
        q->spare = b->next;
        shc_batch_free(b);
    }
    pthread_cond_destroy(&q->room);
    pthread_cond_destroy(&q->answered);
    pthread_mutex_destroy(&q->lock);
}

static struct sh_client *new_client(const struct sh_options *options)
{
    struct sh_client *c = xcalloc(1, sizeof *c);
    c->options = *options;
    c->endpoints = xcalloc(options->endpoint_count + 1, sizeof *c->endpoints);
    for (size_t i = 0; i < options->endpoint_count; i++)
        c->endpoints[i] = xstrdup(options->endpoints[i]);
    c->options.endpoints = NULL;
    queue_init(&c->queue);
    shc_gets_open(&c->gets);
    c->correlations = random_u64(); /* once: for each request the system call would be felt */
    c->loop = loop_open();
    mailbox_open(&c->mailbox, c->loop, on_mail, c);
    c->quit = (struct shc_mail){.fn = on_quit};
    snprintf(c->away, sizeof c->away, "the node cannot be reached");
    shc_groups_open(c);
    return c;
}

enum sh_error sh_open(const struct sh_options *options, struct sh_client **client)
{
    enum sh_error e = check_options(options);
    if (e != SH_OK)
        return e;
    *client = new_client(options);
    start_thread(*client);
    return SH_OK;
}

struct sh_client *shc_open_for_group(struct sh_client *root, const char *group, const uint8_t *cluster)
{
    struct sh_options options = root->options;
    options.endpoints = NULL;
    options.endpoint_count = 0;
    struct sh_client *c = new_client(&options);
    c->root = root;
    snprintf(c->group, sizeof c->group, "%s", group);
    snprintf(c->away, sizeof c->away, "no node of group `%s` can be reached", group);
    memcpy(c->query.cluster, cluster, sizeof c->query.cluster);
    c->query.know_cluster = true;
    start_thread(c);
    return c;
}

enum { CLOSE_WAIT_MS = 250 };

/* Connecting to an ipc socket and closing at once can end its listener for good (nng #1518). So a client that
 * is closed right after it was opened first waits for the node's hello, which says that both of its
 * connections are taken; not for long, since there may be no node. */
static void await_hello(struct sh_client *c)
{
    int64_t due_ns = clock_mono_ns() + (int64_t)CLOSE_WAIT_MS * NS_PER_MS;
    const struct timespec pause = {0, NS_PER_MS};
    while (atomic_load(&c->most_bytes) == 0 && clock_mono_ns() < due_ns)
        nanosleep(&pause, NULL);
}

void shc_stop(struct sh_client *c)
{
    await_hello(c);
    shc_post(c, &c->quit);
    pthread_join(c->thread, NULL);
    c->stopped = true;
}

void shc_free(struct sh_client *c)
{
    mailbox_close(&c->mailbox);
    loop_close(c->loop);
    shc_writers_free(c);
    queue_free(&c->queue);
    shc_gets_close(&c->gets);
    for (size_t i = 0; i < c->options.endpoint_count; i++)
        free(c->endpoints[i]);
    free(c->endpoints);
    free(c);
}

void sh_close(struct sh_client *c)
{
    if (c == NULL)
        return;
    shc_stop(c);
    shc_groups_close(c);
    shc_free(c);
}

/* ---------------------------------------------------------------- the node */

size_t sh_append_bytes_max(const struct sh_client *c)
{
    unsigned most = atomic_load(&c->most_bytes);
    return most > SHC_ARRAY_HEAD ? most - SHC_ARRAY_HEAD : 0;
}

static void copy_text(char *out, size_t size, struct slice text)
{
    snprintf(out, size, "%.*s", (int)text.len, (const char *)text.data);
}

enum sh_error sh_status(struct sh_client *c, struct sh_status *status)
{
    struct shc_call call = {0};
    struct msg_status ask = {0};
    struct msg_status_reply reply;
    memset(status, 0, sizeof *status);
    enum sh_error e = shc_ask(c, &call, MSG_status, &ask, MSG_status_reply, &reply);
    if (e == SH_OK) {
        copy_text(status->cluster, sizeof status->cluster, reply.cluster);
        copy_text(status->node, sizeof status->node, reply.node);
        copy_text(status->version, sizeof status->version, reply.version);
        memcpy(status->log, reply.log.bytes, sizeof status->log);
        status->writable = reply.writable;
        status->writes = reply.writable || reply.writes != 0 ? (enum sh_writes)reply.writes : SH_WRITES_AWAY;
        status->first_lsn = reply.first_lsn;
        status->durable_lsn = reply.durable_lsn;
        status->durable_end = reply.durable_end;
        status->disk_bytes = reply.disk_bytes;
        status->uptime_ms = reply.uptime_ms;
        status->segments = (uint32_t)reply.segments;
        status->clients = (uint32_t)reply.clients;
        status->commits = reply.commits;
    }
    shc_call_free(&call);
    return e;
}

static bool decode_segment(struct mp *m, struct sh_segment *out)
{
    uint32_t fields;
    uint64_t created;
    if (!mp_array(m, &fields) || fields < 5 || !mp_uint(m, &out->base_lsn) || !mp_uint(m, &out->position) ||
        !mp_uint(m, &out->file_bytes) || !mp_uint(m, &created) || !mp_bool(m, &out->sealed))
        return false;
    out->created_ns = (int64_t)created;
    for (uint32_t i = 5; i < fields; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

/* Adds those of one answer. */
static enum sh_error decode_segments(struct slice list, struct sh_log_info *info)
{
    struct mp m = mp_of(list);
    uint32_t count;
    if (!mp_array(&m, &count))
        return SH_INTERNAL;
    info->segments = xrealloc(info->segments, (info->segment_count + count + 1) * sizeof *info->segments);
    for (uint32_t i = 0; i < count; i++)
        if (!decode_segment(&m, &info->segments[info->segment_count++]))
            return SH_INTERNAL;
    return SH_OK;
}

static enum sh_error ask_log_info(struct sh_client *c, const uint8_t *log, uint64_t *from,
                                  struct sh_log_info *info)
{
    struct shc_call call = {0};
    struct msg_log_info ask = {.from = *from};
    struct msg_log_info_reply reply;
    if (log != NULL)
        memcpy(ask.log.bytes, log, sizeof ask.log.bytes);
    enum sh_error e = shc_ask(c, &call, MSG_log_info, &ask, MSG_log_info_reply, &reply);
    if (e == SH_OK) {
        info->first_lsn = reply.first_lsn;
        memcpy(info->log, reply.log.bytes, sizeof info->log);
        info->durable_lsn = reply.durable_lsn;
        info->durable_end = reply.durable_end;
        e = reply.next == 0 || reply.next > *from ? decode_segments(reply.segments, info) : SH_INTERNAL;
        *from = reply.next;
    }
    shc_call_free(&call);
    return e;
}

enum sh_error sh_log_info(struct sh_client *c, const uint8_t *log, struct sh_log_info *info)
{
    uint64_t from = 0;
    enum sh_error e;
    memset(info, 0, sizeof *info);
    do
        e = ask_log_info(c, log, &from, info);
    while (e == SH_OK && from != 0);
    if (e != SH_OK) {
        sh_log_info_free(info);
        memset(info, 0, sizeof *info);
    }
    return e;
}

/* The own log's by status, which opens fewer files. */
enum sh_error shc_log_ends(struct sh_client *c, const uint8_t log[16], uint64_t *first, uint64_t *last)
{
    static const uint8_t own[16];
    struct sh_status status = {0};
    struct sh_log_info info = {0};
    uint64_t from = UINT64_MAX; /* no segment has that LSN: none is listed */
    bool is_own = memcmp(log, own, sizeof own) == 0;
    enum sh_error e = is_own ? sh_status(c, &status) : ask_log_info(c, log, &from, &info);
    *first = is_own ? status.first_lsn : info.first_lsn;
    *last = is_own ? status.durable_lsn : info.durable_lsn;
    sh_log_info_free(&info);
    return e;
}

void sh_log_info_free(struct sh_log_info *info)
{
    free(info->segments);
    info->segments = NULL;
    info->segment_count = 0;
}

enum sh_error sh_accept_loss(struct sh_client *c, const uint8_t *log, uint64_t first_lsn, uint64_t last_lsn,
                             struct sh_loss *loss)
{
    struct shc_call call = {0};
    struct msg_accept_loss ask = {.first = first_lsn, .last = last_lsn};
    struct msg_accept_loss_reply reply;
    struct sh_loss lost = {0};
    if (log != NULL)
        memcpy(ask.log.bytes, log, sizeof ask.log.bytes);
    enum sh_error e = shc_ask(c, &call, MSG_accept_loss, &ask, MSG_accept_loss_reply, &reply);
    if (e == SH_OK) {
        lost = (struct sh_loss){
            .first_lsn = reply.first,
            .last_lsn = reply.last,
            .begin = reply.begin,
            .end = reply.end,
            .accepted_ns = (int64_t)reply.accepted,
        };
        memcpy(lost.log, reply.log.bytes, sizeof lost.log);
    }
    if (loss != NULL)
        *loss = lost;
    shc_call_free(&call);
    return e;
}
