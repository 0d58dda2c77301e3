/* bench append and bench read: rates and latencies, and in the same run what nng and the disk can do alone.
 */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_limits.h"
#include "bench_room.h"
#include "histogram.h"

enum { SAMPLE_MS = 50, SAMPLES_MAX = 4096 };

/* What became of appends. */
struct tally {
    uint64_t appended, errors;
    enum sh_error error; /* the first one */
    char detail[256];
    struct histogram latency_us;
};

struct bench {
    struct ctl *ctl;
    struct sh_client *client;
    struct sh_entry *entries;
    uint32_t batch;
    size_t size;
    enum sh_ack ack;
    int callers, outstanding; /* threads, and appends that each has under way */
    int64_t start_ns, end_ns, stopped_ns;
    struct tally tally;           /* of all callers */
    struct histogram group_bytes; /* bytes of log for each commit, by samples of the status */
};

/* ---------------------------------------------------------------- the commit groups' size */

/* Asks for the status again and again: bytes of log over commits between two answers. */
static void *sample_groups(void *arg)
{
    struct bench *b = arg;
    struct sh_status last, now;
    struct sh_client *client;
    if (ctl_open(b->ctl, &client) != CTL_DONE)
        return NULL;
    bool known = sh_status(client, &last) == SH_OK;
    while (known && clock_mono_ns() < b->end_ns) {
        struct timespec pause = {0, (long)SAMPLE_MS * NS_PER_MS};
        nanosleep(&pause, NULL);
        if (sh_status(client, &now) != SH_OK || now.commits < last.commits)
            break;
        if (now.commits > last.commits)
            histogram_add(&b->group_bytes,
                          (now.durable_end - last.durable_end) / (now.commits - last.commits));
        last = now;
    }
    sh_close(client);
    return NULL;
}

/* ---------------------------------------------------------------- append */

/* A thread that appends: once at least, however late it comes to run. */
struct caller {
    struct bench *b;
    pthread_t thread;
    struct bench_room room;
    struct tally tally; /* its own: a lock that all share would be measured too */
};

struct call {
    struct caller *caller;
    int64_t sent_ns;
};

/* A figure for a quorum is none when there was none. */
static enum sh_error judge(const struct bench *b, enum sh_error error, const struct sh_append_result *result)
{
    return error == SH_OK && result->ack < b->ack ? SH_NO_QUORUM : error;
}

static void record(struct tally *t, enum sh_error error, int64_t sent_ns, uint32_t count)
{
    if (error == SH_OK) {
        t->appended += count;
        histogram_add(&t->latency_us, (uint64_t)(clock_mono_ns() - sent_ns) / NS_PER_US);
    } else if (t->errors++ == 0) {
        t->error = error;
        snprintf(t->detail, sizeof t->detail, "%s", sh_last_error_detail());
    }
}

static void add_tally(struct tally *into, const struct tally *from)
{
    into->appended += from->appended;
    histogram_merge(&into->latency_us, &from->latency_us);
    if (into->errors == 0 && from->errors > 0) {
        into->error = from->error;
        memcpy(into->detail, from->detail, sizeof into->detail);
    }
    into->errors += from->errors;
}

static void on_appended(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct call *call = arg;
    error = judge(call->caller->b, error, result);
    record(&call->caller->tally, error, call->sent_ns, result != NULL ? result->count : 0);
    bench_room_give(&call->caller->room);
    free(call);
}

static void append_in_flight(struct caller *c)
{
    struct bench *b = c->b;
    enum sh_error error;
    do {
        bench_room_take(&c->room);
        struct call *call = xmalloc(sizeof *call);
        *call = (struct call){c, clock_mono_ns()};
        error = sh_append_async(b->client, b->entries, b->batch, b->ack, on_appended, call);
        if (error == SH_OK)
            continue;
        bench_room_give(&c->room);
        free(call);
    } while (error == SH_OK && clock_mono_ns() < b->end_ns);
    for (int i = 0; i < b->outstanding; i++)
        bench_room_take(&c->room);
    if (error != SH_OK)
        record(&c->tally, error, 0, 0);
}

static void append_and_wait(struct caller *c)
{
    struct bench *b = c->b;
    struct sh_append_result result;
    enum sh_error error;
    do {
        int64_t sent_ns = clock_mono_ns();
        error = judge(b, sh_append(b->client, b->entries, b->batch, b->ack, &result), &result);
        record(&c->tally, error, sent_ns, b->batch);
    } while (error == SH_OK && clock_mono_ns() < b->end_ns);
}

static void *run_caller(void *arg)
{
    struct caller *c = arg;
    if (c->b->outstanding == 1)
        append_and_wait(c);
    else
        append_in_flight(c);
    return NULL;
}

static void run_callers(struct bench *b)
{
    struct caller *callers = xcalloc((size_t)b->callers, sizeof *callers);
    int started = 0;
    for (; started < b->callers; started++) {
        struct caller *c = &callers[started];
        c->b = b;
        atomic_init(&c->room.free, b->outstanding);
        if (pthread_create(&c->thread, NULL, run_caller, c) != 0)
            break;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(callers[i].thread, NULL);
        add_tally(&b->tally, &callers[i].tally);
    }
    free(callers);
}

static void run_load(struct bench *b, int64_t duration_ns)
{
    pthread_t sampler;
    b->start_ns = clock_mono_ns();
    b->end_ns = b->start_ns + duration_ns;
    bool sampling = pthread_create(&sampler, NULL, sample_groups, b) == 0;
    run_callers(b);
    b->stopped_ns = clock_mono_ns();
    if (sampling)
        pthread_join(sampler, NULL);
}

struct figures {
    double seconds, rate, bytes_per_s;
    uint64_t group_bytes, rtt_us;
    struct bench_disk disk;
};

static void print_append_json(const struct bench *b, const struct figures *f)
{
    struct json_writer j = {0};
    uint64_t p50_us = histogram_quantile(&b->tally.latency_us, 0.5);
    json_open(&j, NULL, '{');
    json_uint(&j, "entries", b->tally.appended);
    json_uint(&j, "errors", b->tally.errors);
    json_text(&j, "ack", ctl_ack_name(b->ack));
    json_real(&j, "seconds", f->seconds, 3);
    json_real(&j, "rate", f->rate, 0);
    json_real(&j, "bytes_per_s", f->bytes_per_s, 0);
    json_uint(&j, "p50_us", p50_us);
    json_uint(&j, "p99_us", histogram_quantile(&b->tally.latency_us, 0.99));
    json_uint(&j, "p999_us", histogram_quantile(&b->tally.latency_us, 0.999));
    json_uint(&j, "group_bytes", f->group_bytes);
    json_uint(&j, "nng_rtt_us", f->rtt_us);
    json_uint(&j, "disk_sync_us", f->disk.sync_us);
    json_real(&j, "disk_bytes_per_s", f->disk.bytes_per_s, 0);
    json_real(&j, "share_of_disk", f->bytes_per_s / f->disk.bytes_per_s, 3);
    json_real(&j, "p50_to_limit", (double)p50_us / (double)(f->rtt_us + f->disk.sync_us), 3);
    json_close(&j, '}');
    json_print(&j);
}

static void print_append_text(const struct bench *b, const struct figures *f)
{
    char a[CTL_TEXT_MAX], c[CTL_TEXT_MAX];
    const struct ctl *ctl = b->ctl;
    uint64_t p50_us = histogram_quantile(&b->tally.latency_us, 0.5);
    ctl_line(ctl, "rate", "%s entries/s, %s/s", ctl_rate(f->rate, a), ctl_bytes((uint64_t)f->bytes_per_s, c));
    ctl_line(ctl, "latency", "p50 %" PRIu64 " us, p99 %" PRIu64 " us, p99.9 %" PRIu64 " us", p50_us,
             histogram_quantile(&b->tally.latency_us, 0.99), histogram_quantile(&b->tally.latency_us, 0.999));
    ctl_line(ctl, "commits", "%s each (median)", ctl_bytes(f->group_bytes, a));
    ctl_line(ctl, "bare disk", "%s/s at that size, %" PRIu64 " us a write and sync: this run is %.2f of it",
             ctl_bytes((uint64_t)f->disk.bytes_per_s, a), f->disk.sync_us,
             f->bytes_per_s / f->disk.bytes_per_s);
    ctl_line(ctl, "bare nng", "%" PRIu64 " us a round trip: p50 is %.2f of round trip and sync", f->rtt_us,
             (double)p50_us / (double)(f->rtt_us + f->disk.sync_us));
}

static int measure_append(struct bench *b)
{
    struct figures f = {0};
    struct sh_append_result first;
    enum sh_error error =
        judge(b, sh_append(b->client, b->entries, 1, b->ack, &first), &first); /* connects */
    if (error != SH_OK)
        return ctl_fail_node(b->ctl, "bench append", error, sh_last_error_detail());
    run_load(b, (int64_t)ctl_number(b->ctl, "duration", 5 * (uint64_t)NS_PER_S));
    if (b->tally.errors > 0)
        return ctl_fail_node(b->ctl, "bench append", b->tally.error, b->tally.detail);
    const char *dir = ctl_word(b->ctl, "disk-dir", ".");
    f.seconds = (double)(b->stopped_ns - b->start_ns) / 1e9;
    f.rate = (double)b->tally.appended / f.seconds;
    f.bytes_per_s = f.rate * (double)b->size;
    f.group_bytes = histogram_quantile(&b->group_bytes, 0.5);
    if (f.group_bytes == 0)
        f.group_bytes = b->size * b->batch; /* too short a run for a sample */
    f.rtt_us = bench_nng_rtt_us("/tmp");
    if (!bench_bare_disk(dir, f.group_bytes, &f.disk))
        return CTL_FAILED;
    if (b->ctl->format == CTL_JSON)
        print_append_json(b, &f);
    else
        print_append_text(b, &f);
    return CTL_DONE;
}

static int run_bench_append(struct ctl *ctl)
{
    const char *dir = ctl_word(ctl, "disk-dir", ".");
    if (access(dir, W_OK | X_OK) != 0)
        return ctl_usage(ctl, "--disk-dir %s: %s", dir, strerror(errno));
    enum sh_ack ack;
    if (!ctl_ack(ctl, &ack))
        return CTL_USAGE;
    struct bench *b = xcalloc(1, sizeof *b);
    b->ctl = ctl;
    b->ack = ack;
    b->size = (size_t)ctl_number(ctl, "size", 128);
    bool by_callers = ctl_number(ctl, "callers", 0) > 0;
    b->callers = (int)ctl_number(ctl, "callers", 1);
    b->outstanding = (int)ctl_number(ctl, "in-flight", by_callers ? 1 : 64);
    b->batch = (uint32_t)ctl_number(ctl, "batch", by_callers ? 1 : 100);
    uint8_t *payload = xmalloc(b->size);
    random_bytes(payload, b->size);
    b->entries = xcalloc(b->batch, sizeof *b->entries);
    for (uint32_t i = 0; i < b->batch; i++)
        b->entries[i] = (struct sh_entry){.payload = payload, .payload_bytes = b->size};
    int code = ctl_open(ctl, &b->client);
    if (code == CTL_DONE) {
        code = measure_append(b);
        sh_close(b->client);
    }
    free(payload);
    free(b->entries);
    free(b);
    return code;
}

static const struct ctl_option append_options[] = {
    {"size", 's', CTL_SIZE, "BYTES", "payload of an entry, 128 without it", 1, 8 << 20},
    {"batch", 'b', CTL_NUMBER, "N", "entries of an append, 100 without it (1 with --callers)", 1, 65536},
    {"in-flight", 'i', CTL_NUMBER, "N",
     "appends that a thread has under way, 64 without it (1 with --callers: it waits for each)", 1, 65536},
    {"callers", 'C', CTL_NUMBER, "N", "threads that append by one client, 1 without it", 1, 1024},
    CTL_ACK_OPTIONS,
    {"duration", 'd', CTL_TIME, "T", "how long, 5s without it", 1000000, UINT64_C(3600000000000)},
    {"disk-dir", 'D', CTL_WORD, "DIR",
     "where the bare disk is measured: a folder on the data's disk; . without it", 0, 0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_bench_append = {
    .name = "bench append",
    .values = "",
    .summary = "Measure durable appends, and the bare disk and nng beside them",
    .more = "Appends real entries to the node's log.",
    .options = append_options,
    .run = run_bench_append,
};

/* ---------------------------------------------------------------- read */

static int report_read(const struct ctl *ctl, uint64_t entries, uint64_t bytes, double seconds)
{
    char a[CTL_TEXT_MAX], c[CTL_TEXT_MAX];
    if (ctl->format != CTL_JSON) {
        ctl_line(ctl, "rate", "%s entries/s, %s/s", ctl_rate((double)entries / seconds, a),
                 ctl_bytes((uint64_t)((double)bytes / seconds), c));
        return CTL_DONE;
    }
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_uint(&j, "entries", entries);
    json_real(&j, "seconds", seconds, 3);
    json_real(&j, "rate", (double)entries / seconds, 0);
    json_real(&j, "bytes_per_s", (double)bytes / seconds, 0);
    json_close(&j, '}');
    json_print(&j);
    return CTL_DONE;
}

static int run_bench_read(struct ctl *ctl)
{
    struct sh_client *client;
    struct sh_reader *reader = NULL;
    struct sh_event event;
    uint64_t entries = 0, bytes = 0;
    int code = ctl_open(ctl, &client);
    if (code != CTL_DONE)
        return code;
    int64_t start_ns = clock_mono_ns();
    int64_t end_ns = start_ns + (int64_t)ctl_number(ctl, "duration", 5 * (uint64_t)NS_PER_S);
    enum sh_error error;
    do {
        struct sh_read_options options = {.from = ctl_number(ctl, "from", 1)};
        uint64_t before = entries;
        error = sh_read_open(client, &options, &reader);
        /* The clock is read once in a while: it would cost as much as an entry. */
        while (error == SH_OK && (entries == 0 || (entries & 1023) != 0 || clock_mono_ns() < end_ns)) {
            error = sh_read_next(reader, 0, &event);
            entries += error == SH_OK;
            bytes += error == SH_OK ? event.payload_bytes : 0;
        }
        if (reader != NULL)
            sh_read_close(reader);
        if (error == SH_NOT_FOUND && entries > before)
            error = SH_OK; /* the end: from the start again */
    } while (error == SH_OK && clock_mono_ns() < end_ns);
    double seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    if (error != SH_OK)
        code = ctl_fail_node(ctl, "bench read", error,
                             error == SH_NOT_FOUND ? "there are no entries to read" : sh_last_error_detail());
    else
        code = report_read(ctl, entries, bytes, seconds);
    sh_close(client);
    return code;
}

static const struct ctl_option read_options[] = {
    {"from", 'F', CTL_NUMBER, "LSN", "first entry, 1 without it", 0, UINT64_MAX - 1},
    {"duration", 'd', CTL_TIME, "T", "how long, 5s without it", 1000000, UINT64_C(3600000000000)},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_bench_read = {
    .name = "bench read",
    .values = "",
    .summary = "Measure sequential reads of the log, again from its start at its end",
    .options = read_options,
    .reads = true,
    .run = run_bench_read,
};
