/* bench replicate: how fast the followers of a node's log get what is appended to it, how far they are behind
 * meanwhile, and what an append to a quorum takes; in the same run what nng and the disk can do alone. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench_lag.h"
#include "bench_limits.h"
#include "bench_room.h"

#define WHAT "bench replicate"
enum { LOOK_MS = 5 };
#define SLICE_NS   (NS_PER_S / 2)
#define STALLED_NS (30 * NS_PER_S)

struct follower {
    char id[65];
    uint64_t lsn;
    int64_t moved_ns;   /* when that was seen first */
    int64_t reached_ns; /* when it was seen to have all; 0: not yet */
    struct bench_track looks;
    struct bench_lag *lag;
};

struct bench {
    struct ctl *ctl;
    struct sh_client *client, *watcher; /* the one appends, the other looks at the followers */
    struct sh_entry *entries;
    uint32_t batch;
    size_t size;
    uint64_t rate; /* entries/s; 0: as fast as it goes */
    int in_flight;
    struct bench_room room;
    int64_t start_ns, end_ns, stopped_ns;
    struct bench_track acknowledged;
    uint64_t appended;
    enum sh_error error; /* the first one of appends, */
    char detail[256];
    enum sh_error watch_error; /* of looking at followers */
    char watch_detail[256];
    struct follower *followers;
    size_t follower_count;
    _Atomic uint64_t last_lsn; /* of the run; UINT64_MAX: it is not over */
};

/* ---------------------------------------------------------------- the followers */

static bool watch_fails(struct bench *b, enum sh_error error, const char *detail)
{
    b->watch_error = error;
    snprintf(b->watch_detail, sizeof b->watch_detail, "%s", detail);
    return false;
}

static bool find_followers(struct bench *b)
{
    struct sh_replicas replicas;
    enum sh_error e = sh_replicas(b->watcher, &replicas);
    if (e != SH_OK)
        return watch_fails(b, e, sh_last_error_detail());
    bool good = replicas.follower_count > 0 || watch_fails(b, SH_NOT_FOUND, "nobody follows the node's log");
    b->followers = xcalloc(replicas.follower_count + 1, sizeof *b->followers);
    for (size_t i = 0; good && i < replicas.follower_count; i++) {
        char detail[128];
        snprintf(detail, sizeof detail, "%s does not follow at the moment", replicas.followers[i].peer);
        good =
            replicas.followers[i].state != SH_REPLICA_DISCONNECTED || watch_fails(b, SH_UNAVAILABLE, detail);
        snprintf(b->followers[i].id, sizeof b->followers[i].id, "%s", replicas.followers[i].peer);
        b->followers[i].lag = xcalloc(1, sizeof *b->followers[i].lag);
        b->follower_count++;
    }
    sh_replicas_free(&replicas);
    return good;
}

static void free_followers(struct bench *b)
{
    for (size_t i = 0; i < b->follower_count; i++) {
        bench_track_free(&b->followers[i].looks);
        free(b->followers[i].lag);
    }
    free(b->followers);
}

/* The time of a look is that of its answer: nobody seems closer than he is. */
static void note_look(struct follower *f, const struct sh_replicas *replicas, int64_t now_ns,
                      uint64_t last_lsn)
{
    for (size_t i = 0; i < replicas->follower_count; i++) {
        const struct sh_replica *r = &replicas->followers[i];
        if (strcmp(r->peer, f->id) != 0)
            continue;
        if (r->lsn != f->lsn || f->moved_ns == 0)
            f->moved_ns = now_ns;
        f->lsn = r->lsn;
        if (f->reached_ns == 0 && r->lsn >= last_lsn)
            f->reached_ns = now_ns;
        bench_track_look(&f->looks, now_ns, r->lsn);
    }
}

/* False: there will be no more looks. */
static bool look(struct bench *b)
{
    struct sh_replicas replicas;
    uint64_t last_lsn = atomic_load(&b->last_lsn);
    size_t missing = 0;
    enum sh_error e = sh_replicas(b->watcher, &replicas);
    if (e != SH_OK)
        return watch_fails(b, e, sh_last_error_detail());
    int64_t now_ns = clock_mono_ns();
    for (size_t i = 0; i < b->follower_count; i++) {
        struct follower *f = &b->followers[i];
        note_look(f, &replicas, now_ns, last_lsn);
        missing += f->reached_ns == 0;
        if (f->reached_ns != 0 || last_lsn == UINT64_MAX || now_ns - f->moved_ns < STALLED_NS)
            continue;
        char detail[128];
        snprintf(detail, sizeof detail, "%s has got nothing for %d s", f->id, (int)(STALLED_NS / NS_PER_S));
        watch_fails(b, SH_TIMEOUT, detail);
        break;
    }
    sh_replicas_free(&replicas);
    return missing > 0 && b->watch_error == SH_OK;
}

/* Until all followers have all, or one of them gets nothing any more. */
static void *watch(void *arg)
{
    struct bench *b = arg;
    while (look(b))
        nanosleep(&(struct timespec){0, (long)LOOK_MS * NS_PER_MS}, NULL);
    return NULL;
}

/* What was before the run is not of it. */
static bool wait_for_followers(struct bench *b, uint64_t lsn)
{
    atomic_store(&b->last_lsn, lsn);
    watch(b);
    for (size_t i = 0; i < b->follower_count; i++) {
        b->followers[i].reached_ns = 0;
        b->followers[i].looks.count = 0;
    }
    atomic_store(&b->last_lsn, UINT64_MAX);
    return b->watch_error == SH_OK;
}

/* ---------------------------------------------------------------- the load */

static void append_fails(struct bench *b, enum sh_error error)
{
    if (b->error == SH_OK)
        snprintf(b->detail, sizeof b->detail, "%s", sh_last_error_detail());
    b->error = b->error == SH_OK ? error : b->error;
}

/* One at a time, and the appender reads nothing of this before it has all its room back. */
static void on_appended(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct bench *b = arg;
    if (error == SH_OK) {
        b->appended += result->count;
        bench_track_acknowledged(&b->acknowledged, clock_mono_ns(), result->first_lsn + result->count - 1);
    } else {
        append_fails(b, error);
    }
    bench_room_give(&b->room);
}

/* The time of the append with that number, counted from 0. */
static void pace(const struct bench *b, uint64_t number)
{
    if (b->rate == 0)
        return;
    int64_t due_ns = b->start_ns + (int64_t)((double)number * b->batch * 1e9 / (double)b->rate);
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static void append_all(struct bench *b)
{
    enum sh_error error;
    uint64_t number = 0;
    b->start_ns = clock_mono_ns();
    b->end_ns = b->start_ns + (int64_t)ctl_number(b->ctl, "duration", 5 * (uint64_t)NS_PER_S);
    do {
        pace(b, number++);
        bench_room_take(&b->room);
        error = sh_append_async(b->client, b->entries, b->batch, SH_ACK_LOCAL, on_appended, b);
    } while (error == SH_OK && clock_mono_ns() < b->end_ns);
    for (int i = error == SH_OK ? 0 : 1; i < b->in_flight; i++)
        bench_room_take(&b->room);
    b->stopped_ns = clock_mono_ns();
    if (error != SH_OK)
        append_fails(b, error);
}

/* The last LSN is known to the watcher in any case, so that it ends. */
static bool run_load(struct bench *b)
{
    pthread_t watcher;
    if (pthread_create(&watcher, NULL, watch, b) != 0)
        return watch_fails(b, SH_INTERNAL, "no thread can be started");
    append_all(b);
    const struct bench_track *track = &b->acknowledged;
    atomic_store(&b->last_lsn, track->count > 0 ? track->points[track->count - 1].lsn : 0);
    pthread_join(watcher, NULL);
    return b->watch_error == SH_OK && b->error == SH_OK;
}

/* ---------------------------------------------------------------- what came of it */

struct limits {
    struct bench_nng nng;
    struct bench_disk disk;
};

static bool measure_limits(const struct bench *b, size_t group_bytes, struct limits *out)
{
    bench_nng_tcp(&out->nng);
    return bench_bare_disk(ctl_word(b->ctl, "disk-dir", "."), group_bytes, &out->disk);
}

static void json_limits(struct json_writer *j, const struct limits *l)
{
    json_uint(j, "nng_tcp_rtt_us", l->nng.rtt_us);
    json_real(j, "nng_tcp_bytes_per_s", l->nng.bytes_per_s, 0);
    json_uint(j, "disk_sync_us", l->disk.sync_us);
    json_real(j, "disk_bytes_per_s", l->disk.bytes_per_s, 0);
}

static void print_limits(const struct ctl *ctl, const struct limits *l)
{
    char text[CTL_TEXT_MAX];
    ctl_line(ctl, "bare nng", "tcp on loopback: %" PRIu64 " us a round trip, %s/s by messages of 1 MiB",
             l->nng.rtt_us, ctl_bytes((uint64_t)l->nng.bytes_per_s, text));
    ctl_line(ctl, "bare disk", "%s/s at that size, %" PRIu64 " us a write and sync",
             ctl_bytes((uint64_t)l->disk.bytes_per_s, text), l->disk.sync_us);
}

struct figures {
    double seconds, rate;
    uint64_t group_bytes;
    struct limits limits;
};

static double seconds_of(const struct bench *b, const struct follower *f)
{
    return (double)(f->reached_ns - b->start_ns) / 1e9;
}

static void json_follower(struct json_writer *j, const struct bench *b, const struct follower *f)
{
    double rate = (double)b->appended / seconds_of(b, f);
    json_open(j, NULL, '{');
    json_text(j, "follower", f->id);
    json_real(j, "seconds", seconds_of(b, f), 3);
    json_real(j, "rate", rate, 0);
    json_real(j, "bytes_per_s", rate * (double)b->size, 0);
    json_uint(j, "looks", f->lag->us.count);
    json_uint(j, "lag_p50_us", histogram_quantile(&f->lag->us, 0.5));
    json_uint(j, "lag_p99_us", histogram_quantile(&f->lag->us, 0.99));
    json_uint(j, "lag_p50_entries", histogram_quantile(&f->lag->entries, 0.5));
    json_uint(j, "lag_p99_entries", histogram_quantile(&f->lag->entries, 0.99));
    json_close(j, '}');
}

static void print_json(const struct bench *b, const struct figures *f)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_uint(&j, "entries", b->appended);
    json_real(&j, "seconds", f->seconds, 3);
    json_real(&j, "rate", f->rate, 0);
    json_real(&j, "bytes_per_s", f->rate * (double)b->size, 0);
    json_open(&j, "followers", '[');
    for (size_t i = 0; i < b->follower_count; i++)
        json_follower(&j, b, &b->followers[i]);
    json_close(&j, ']');
    json_uint(&j, "group_bytes", f->group_bytes);
    json_limits(&j, &f->limits);
    json_close(&j, '}');
    json_print(&j);
}

static void print_follower(const struct bench *b, const struct follower *f)
{
    char rate[CTL_TEXT_MAX], bytes[CTL_TEXT_MAX], p50[CTL_TEXT_MAX], p99[CTL_TEXT_MAX];
    double per_s = (double)b->appended / seconds_of(b, f);
    ctl_line(b->ctl, f->id,
             "%s entries/s, %s/s: had all after %.2f s; behind p50 %.1f ms, p99 %.1f ms; %s and %s entries",
             ctl_rate(per_s, rate), ctl_bytes((uint64_t)(per_s * (double)b->size), bytes), seconds_of(b, f),
             (double)histogram_quantile(&f->lag->us, 0.5) / 1e3,
             (double)histogram_quantile(&f->lag->us, 0.99) / 1e3,
             ctl_grouped(histogram_quantile(&f->lag->entries, 0.5), p50),
             ctl_grouped(histogram_quantile(&f->lag->entries, 0.99), p99));
}

static void print_text(const struct bench *b, const struct figures *f)
{
    char rate[CTL_TEXT_MAX], bytes[CTL_TEXT_MAX];
    ctl_line(b->ctl, "appended", "%s entries/s, %s/s for %.2f s", ctl_rate(f->rate, rate),
             ctl_bytes((uint64_t)(f->rate * (double)b->size), bytes), f->seconds);
    for (size_t i = 0; i < b->follower_count; i++)
        print_follower(b, &b->followers[i]);
    ctl_line(b->ctl, "commits", "%s each (mean)", ctl_bytes(f->group_bytes, bytes));
    print_limits(b->ctl, &f->limits);
}

static int report_load(struct bench *b, const struct sh_status *before, const struct sh_status *after)
{
    struct figures f = {.seconds = (double)(b->stopped_ns - b->start_ns) / 1e9,
                        .group_bytes = b->size * b->batch};
    f.rate = (double)b->appended / f.seconds;
    if (after->commits > before->commits)
        f.group_bytes = (after->durable_end - before->durable_end) / (after->commits - before->commits);
    for (size_t i = 0; i < b->follower_count; i++)
        bench_lag_measure(b->followers[i].lag, &b->acknowledged, &b->followers[i].looks, b->stopped_ns);
    if (!measure_limits(b, f.group_bytes, &f.limits))
        return CTL_FAILED;
    if (b->ctl->format == CTL_JSON)
        print_json(b, &f);
    else
        print_text(b, &f);
    return CTL_DONE;
}

static int fail(const struct bench *b)
{
    if (b->watch_error != SH_OK && b->watch_detail[0] != 0)
        return ctl_fail_text(b->ctl, WHAT, b->watch_error, b->watch_detail);
    if (b->watch_error != SH_OK)
        return ctl_fail_member(b->ctl, NULL, b->watch_error);
    return ctl_fail_node(b->ctl, WHAT, b->error, b->detail);
}

static int measure_load(struct bench *b, uint64_t first_lsn)
{
    struct sh_status before, after;
    if (!find_followers(b) || !wait_for_followers(b, first_lsn))
        return fail(b);
    enum sh_error e = sh_status(b->client, &before);
    if (e == SH_OK && !run_load(b))
        return fail(b);
    if (e == SH_OK)
        e = sh_status(b->client, &after);
    return e == SH_OK ? report_load(b, &before, &after)
                      : ctl_fail_node(b->ctl, WHAT, e, sh_last_error_detail());
}

/* ---------------------------------------------------------------- quorum */

/* One caller for a while, one append at least; the first one, behind the last one of the other level, is not
 * counted. slice_ns > 0. */
static enum sh_error append_slice(struct bench *b, int64_t slice_ns, enum sh_ack ack, struct histogram *us)
{
    struct sh_append_result result;
    enum sh_error e = sh_append(b->client, b->entries, 1, ack, &result);
    int64_t sent_ns = clock_mono_ns(), end_ns = sent_ns + slice_ns;
    while (e == SH_OK && result.ack >= ack && sent_ns < end_ns) {
        e = sh_append(b->client, b->entries, 1, ack, &result);
        int64_t now_ns = clock_mono_ns();
        histogram_add(us, (uint64_t)(now_ns - sent_ns) / NS_PER_US);
        sent_ns = now_ns;
    }
    return e == SH_OK && result.ack < ack ? SH_NO_QUORUM : e;
}

static enum sh_error append_in_turn(struct bench *b, struct histogram us[2])
{
    int64_t duration_ns = (int64_t)ctl_number(b->ctl, "duration", 5 * (uint64_t)NS_PER_S);
    int64_t end_ns = clock_mono_ns() + duration_ns;
    int64_t slice_ns = duration_ns < 2 * SLICE_NS ? duration_ns / 2 : SLICE_NS;
    enum sh_error e;
    do {
        e = append_slice(b, slice_ns, SH_ACK_LOCAL, &us[0]);
        if (e == SH_OK)
            e = append_slice(b, slice_ns, SH_ACK_QUORUM, &us[1]);
    } while (e == SH_OK && clock_mono_ns() < end_ns);
    return e;
}

static void json_latency(struct json_writer *j, const char *name, const struct histogram *us)
{
    json_open(j, name, '{');
    json_uint(j, "entries", us->count);
    json_uint(j, "p50_us", histogram_quantile(us, 0.5));
    json_uint(j, "p99_us", histogram_quantile(us, 0.99));
    json_close(j, '}');
}

static void print_latency(const struct ctl *ctl, const char *name, const struct histogram *us)
{
    char count[CTL_TEXT_MAX];
    ctl_line(ctl, name, "p50 %" PRIu64 " us, p99 %" PRIu64 " us, of %s entries", histogram_quantile(us, 0.5),
             histogram_quantile(us, 0.99), ctl_grouped(us->count, count));
}

static void print_quorum(const struct ctl *ctl, const struct histogram us[2], const struct limits *l)
{
    double ratio = (double)histogram_quantile(&us[1], 0.5) / (double)histogram_quantile(&us[0], 0.5);
    struct json_writer j = {0};
    if (ctl->format != CTL_JSON) {
        print_latency(ctl, "local", &us[0]);
        print_latency(ctl, "quorum", &us[1]);
        ctl_line(ctl, "ratio", "%.2f of the p50", ratio);
        print_limits(ctl, l);
        return;
    }
    json_open(&j, NULL, '{');
    json_latency(&j, "local", &us[0]);
    json_latency(&j, "quorum", &us[1]);
    json_real(&j, "ratio", ratio, 3);
    json_limits(&j, l);
    json_close(&j, '}');
    json_print(&j);
}

static int measure_quorum(struct bench *b)
{
    struct limits limits;
    struct histogram *us = xcalloc(2, sizeof *us);
    int code = CTL_FAILED;
    enum sh_error e = append_in_turn(b, us);
    if (e != SH_OK) {
        code = ctl_fail_node(b->ctl, WHAT, e, sh_last_error_detail());
    } else if (measure_limits(b, b->size, &limits)) {
        print_quorum(b->ctl, us, &limits);
        code = CTL_DONE;
    }
    free(us);
    return code;
}

/* ---------------------------------------------------------------- the command */

static int measure(struct bench *b)
{
    struct sh_append_result first;
    int code = ctl_open(b->ctl, &b->client);
    if (code == CTL_DONE)
        code = ctl_open(b->ctl, &b->watcher);
    if (code != CTL_DONE)
        return code;
    enum sh_error e = sh_append(b->client, b->entries, 1, SH_ACK_LOCAL, &first); /* connects */
    if (e != SH_OK)
        return ctl_fail_node(b->ctl, WHAT, e, sh_last_error_detail());
    return ctl_has(b->ctl, "quorum") ? measure_quorum(b) : measure_load(b, first.first_lsn);
}

static int run_bench_replicate(struct ctl *ctl)
{
    const char *dir = ctl_word(ctl, "disk-dir", ".");
    if (access(dir, W_OK | X_OK) != 0)
        return ctl_usage(ctl, "--disk-dir %s: %s", dir, strerror(errno));
    if (ctl_has(ctl, "quorum") &&
        (ctl_has(ctl, "batch") || ctl_has(ctl, "in-flight") || ctl_has(ctl, "rate")))
        return ctl_usage(
            ctl, "--quorum is one entry at a time: --batch, --in-flight and --rate do not go with it");
    struct bench b = {
        .ctl = ctl,
        .size = (size_t)ctl_number(ctl, "size", 128),
        .batch = (uint32_t)ctl_number(ctl, "batch", 100),
        .in_flight = (int)ctl_number(ctl, "in-flight", 64),
        .rate = ctl_number(ctl, "rate", 0),
    };
    atomic_init(&b.room.free, b.in_flight);
    atomic_init(&b.last_lsn, UINT64_MAX);
    uint8_t *payload = xmalloc(b.size);
    random_bytes(payload, b.size);
    b.entries = xcalloc(b.batch, sizeof *b.entries);
    for (uint32_t i = 0; i < b.batch; i++)
        b.entries[i] = (struct sh_entry){.payload = payload, .payload_bytes = b.size};
    int code = measure(&b);
    sh_close(b.client);
    sh_close(b.watcher);
    bench_track_free(&b.acknowledged);
    free_followers(&b);
    free(payload);
    free(b.entries);
    return code;
}

static const struct ctl_option replicate_options[] = {
    {"size", 's', CTL_SIZE, "BYTES", "payload of an entry, 128 without it", 1, 8 << 20},
    {"batch", 'b', CTL_NUMBER, "N", "entries of an append, 100 without it", 1, 65536},
    {"in-flight", 'i', CTL_NUMBER, "N", "appends under way, 64 without it", 1, 65536},
    {"rate", 'r', CTL_NUMBER, "N", "entries/s to append, as many as possible without it", 1, 1000000000},
    {"quorum", 'q', CTL_FLAG, NULL,
     "one caller, one entry at a time, local and quorum in turn: what the wait for a majority takes", 0, 0},
    {"duration", 'd', CTL_TIME, "T", "how long, 5s without it", 1000000, UINT64_C(600000000000)},
    {"disk-dir", 'D', CTL_WORD, "DIR",
     "where the bare disk is measured: a folder on the data's disk; . without it", 0, 0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_bench_replicate = {
    .name = "bench replicate",
    .values = "",
    .summary = "Measure how fast followers get the node's log, and the bare disk and nng beside it",
    .more = "Appends real entries to the node's log, and looks at its followers each 5 ms. The rate of a\n"
            "follower is what was appended over the time until it had all. Behind it is, at a look, for as\n"
            "long as the oldest entry that it lacks has been acknowledged here.",
    .options = replicate_options,
    .run = run_bench_replicate,
};
