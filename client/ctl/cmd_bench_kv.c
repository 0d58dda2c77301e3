/* bench kv: keys loaded, got one by one and by the hundred, scanned; and in the same run what nng and the
 * disk can do alone. */
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench_limits.h"
#include "bench_room.h"
#include "histogram.h"

enum {
    BATCH = 100,
    IN_FLIGHT = 64,
    GET_CALLERS = 4, /* threads that get batches */
    SCAN_ROWS = 10000,
    KEY_BYTES = 16,
    POOL_BYTES = 1 << 20, /* random bytes that values are parts of */
};
#define KEY_PREFIX "bench/"

struct rate {
    double seconds, rate;
    struct histogram latency_us;
};

struct bench {
    struct ctl *ctl;
    struct sh_client *client;
    uint32_t keys;
    uint64_t rate;   /* of keys put a second; 0: as fast as it goes */
    uint32_t stride; /* what is coprime to keys: they are loaded in an order that is not theirs */
    size_t size;
    uint8_t *pool;
    enum sh_error error; /* the first one */
    char detail[256];
    pthread_mutex_t lock; /* over error and detail */
    struct rate put, get, batch, scan;
    double behind_s; /* until the view had all that was put */
    uint64_t nng_rtt_us;
    double nng_echoes_per_s;
    struct bench_disk disk;
};

static void fail(struct bench *b, enum sh_error error, const char *detail)
{
    pthread_mutex_lock(&b->lock);
    if (b->error == SH_OK) {
        b->error = error;
        snprintf(b->detail, sizeof b->detail, "%s", detail);
    }
    pthread_mutex_unlock(&b->lock);
}

static bool has_failed(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    bool failed = b->error != SH_OK;
    pthread_mutex_unlock(&b->lock);
    return failed;
}

static void name_key(uint32_t number, char out[KEY_BYTES + 1])
{
    snprintf(out, KEY_BYTES + 1, KEY_PREFIX "%010u", number);
}

static void check_row(struct bench *b, const struct sh_row *row)
{
    if (!row->has_value || row->value_bytes != b->size)
        fail(b, SH_INTERNAL, "a key that was put does not have its value");
}

static void note(struct rate *r, int64_t start_ns, uint64_t count)
{
    r->seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    r->rate = (double)count / r->seconds;
}

static uint64_t micros_since(int64_t start_ns)
{
    return (uint64_t)(clock_mono_ns() - start_ns) / NS_PER_US;
}

/* ---------------------------------------------------------------- puts */

struct loading {
    struct bench *b;
    struct bench_room room;
    struct sh_append_result last; /* the one that reaches furthest */
};

struct put {
    struct loading *loading;
    int64_t sent_ns;
};

static void on_put(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct put *put = arg;
    struct loading *l = put->loading;
    if (error != SH_OK)
        fail(l->b, error, sh_last_error_detail());
    else if (result->first_lsn > l->last.first_lsn)
        l->last = *result;
    histogram_add(&l->b->put.latency_us, micros_since(put->sent_ns));
    free(put);
    bench_room_give(&l->room);
}

/* The keys with these places in the order of loading. */
static void put_batch(struct loading *l, uint32_t first, uint32_t count)
{
    struct bench *b = l->b;
    char names[BATCH][KEY_BYTES + 1];
    struct sh_entry entries[BATCH];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = (uint32_t)((uint64_t)(first + i) * b->stride % b->keys);
        name_key(number, names[i]);
        entries[i] = (struct sh_entry){
            .kind = SH_ENTRY_PUT,
            .key = names[i],
            .key_bytes = KEY_BYTES,
            .payload = b->pool + (uint64_t)number * 7919 % (POOL_BYTES - b->size),
            .payload_bytes = b->size,
        };
    }
    struct put *put = xmalloc(sizeof *put);
    *put = (struct put){l, clock_mono_ns()};
    bench_room_take(&l->room);
    enum sh_error e = sh_append_async(b->client, entries, count, SH_ACK_LOCAL, on_put, put);
    if (e == SH_OK)
        return;
    fail(b, e, sh_last_error_detail());
    free(put);
    bench_room_give(&l->room);
}

/* How long the view takes to have all of it. */
static void await_view(struct bench *b, const struct sh_append_result *last)
{
    struct sh_session *session = sh_session_new();
    struct sh_rows rows;
    struct sh_key key = {KEY_PREFIX, sizeof KEY_PREFIX};
    int64_t start_ns = clock_mono_ns();
    sh_session_wrote(session, last);
    enum sh_error e = sh_kv_get(b->client, session, &key, 1, &rows);
    if (e != SH_OK)
        fail(b, e, sh_last_error_detail());
    b->behind_s = (double)(clock_mono_ns() - start_ns) / 1e9;
    sh_rows_free(&rows);
    sh_session_free(session);
}

/* Until the key with that place is due. */
static void keep_pace(const struct bench *b, int64_t start_ns, uint32_t at)
{
    if (b->rate == 0)
        return;
    int64_t due_ns = start_ns + (int64_t)((double)at * 1e9 / (double)b->rate);
    const struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static void load(struct bench *b)
{
    struct loading l = {.b = b};
    atomic_init(&l.room.free, IN_FLIGHT);
    int64_t start_ns = clock_mono_ns();
    for (uint32_t at = 0; at < b->keys && !has_failed(b); at += BATCH) {
        keep_pace(b, start_ns, at);
        put_batch(&l, at, b->keys - at < BATCH ? b->keys - at : BATCH);
    }
    for (int i = 0; i < IN_FLIGHT; i++)
        bench_room_take(&l.room);
    note(&b->put, start_ns, b->keys);
    if (!has_failed(b))
        await_view(b, &l.last);
}

/* ---------------------------------------------------------------- single gets */

/* IN_FLIGHT of them; each asks for the next key when it is answered. */
struct getting {
    struct bench *b;
    int64_t end_ns;
    uint64_t done; /* on one thread of the client's at a time */
    struct bench_room room;
};

struct getter {
    struct getting *all;
    uint64_t random;
    int64_t sent_ns;
};

static uint32_t next_number(uint64_t *random, uint32_t keys)
{
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407); /* Knuth's MMIX */
    return (uint32_t)((*random >> 33) * keys >> 31);
}

static void get_next(struct getter *g);

static void on_got(void *arg, enum sh_error error, const struct sh_row *row)
{
    struct getter *g = arg;
    struct bench *b = g->all->b;
    if (error != SH_OK)
        fail(b, error, sh_last_error_detail());
    else
        check_row(b, row);
    g->all->done++;
    histogram_add(&b->get.latency_us, micros_since(g->sent_ns));
    if (error == SH_OK && clock_mono_ns() < g->all->end_ns)
        get_next(g);
    else
        bench_room_give(&g->all->room);
}

static void get_next(struct getter *g)
{
    struct bench *b = g->all->b;
    char name[KEY_BYTES + 1];
    name_key(next_number(&g->random, b->keys), name);
    const struct sh_key key = {name, KEY_BYTES};
    g->sent_ns = clock_mono_ns();
    enum sh_error e = sh_kv_get_async(b->client, &key, on_got, g);
    if (e == SH_OK)
        return;
    fail(b, e, sh_last_error_detail());
    bench_room_give(&g->all->room);
}

static void get_singly(struct bench *b, int64_t duration_ns)
{
    struct getter getters[IN_FLIGHT];
    int64_t start_ns = clock_mono_ns();
    struct getting all = {.b = b, .end_ns = start_ns + duration_ns};
    atomic_init(&all.room.free, 0);
    for (int i = 0; i < IN_FLIGHT; i++) {
        getters[i] = (struct getter){.all = &all, .random = random_u64()};
        get_next(&getters[i]);
    }
    for (int i = 0; i < IN_FLIGHT; i++)
        bench_room_take(&all.room);
    note(&b->get, start_ns, all.done);
}

/* ---------------------------------------------------------------- batches of gets */

struct batch_caller {
    struct bench *b;
    pthread_t thread;
    int64_t end_ns;
    uint64_t done;
    struct histogram latency_us;
};

static void get_batch(struct batch_caller *c, uint64_t *random)
{
    char names[BATCH][KEY_BYTES + 1];
    struct sh_key keys[BATCH];
    struct sh_rows rows;
    for (int i = 0; i < BATCH; i++) {
        name_key(next_number(random, c->b->keys), names[i]);
        keys[i] = (struct sh_key){names[i], KEY_BYTES};
    }
    int64_t start_ns = clock_mono_ns();
    enum sh_error e = sh_kv_get(c->b->client, NULL, keys, BATCH, &rows);
    histogram_add(&c->latency_us, micros_since(start_ns));
    if (e != SH_OK)
        fail(c->b, e, sh_last_error_detail());
    for (size_t i = 0; i < rows.count; i++)
        check_row(c->b, &rows.rows[i]);
    c->done += rows.count;
    sh_rows_free(&rows);
}

static void *run_batch_caller(void *arg)
{
    struct batch_caller *c = arg;
    uint64_t random = random_u64();
    do
        get_batch(c, &random);
    while (clock_mono_ns() < c->end_ns && !has_failed(c->b));
    return NULL;
}

static void get_batches(struct bench *b, int64_t duration_ns)
{
    struct batch_caller *callers = xcalloc(GET_CALLERS, sizeof *callers);
    int64_t start_ns = clock_mono_ns();
    uint64_t done = 0;
    int started = 0;
    for (; started < GET_CALLERS; started++) {
        callers[started].b = b;
        callers[started].end_ns = start_ns + duration_ns;
        if (pthread_create(&callers[started].thread, NULL, run_batch_caller, &callers[started]) != 0)
            break;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(callers[i].thread, NULL);
        done += callers[i].done;
        histogram_merge(&b->batch.latency_us, &callers[i].latency_us);
    }
    note(&b->batch, start_ns, done);
    free(callers);
}

/* ---------------------------------------------------------------- scan */

static void scan(struct bench *b)
{
    struct sh_rows rows = {0}, before = {0};
    struct sh_scan_options o = {
        .prefix = KEY_PREFIX, .prefix_bytes = sizeof KEY_PREFIX - 1, .most = SCAN_ROWS};
    uint64_t done = 0;
    int64_t start_ns = clock_mono_ns();
    do {
        enum sh_error e = sh_kv_scan(b->client, NULL, &o, &rows);
        if (e != SH_OK)
            fail(b, e, sh_last_error_detail());
        done += rows.count;
        sh_rows_free(&before);
        before = rows; /* keeps its last key */
        o.behind = before.last;
        o.behind_bytes = before.last_bytes;
    } while (before.more && !has_failed(b));
    note(&b->scan, start_ns, done);
    sh_rows_free(&before);
    if (done != b->keys)
        fail(b, SH_INTERNAL, "a scan has not as many keys as were put: a bench with more of them ran before");
}

/* ---------------------------------------------------------------- report */

static void json_rate(struct json_writer *j, const char *name, const struct rate *r, bool timed)
{
    json_open(j, name, '{');
    json_real(j, "seconds", r->seconds, 3);
    json_real(j, "rate", r->rate, 0);
    if (timed) {
        json_uint(j, "p50_us", histogram_quantile(&r->latency_us, 0.5));
        json_uint(j, "p99_us", histogram_quantile(&r->latency_us, 0.99));
    }
    json_close(j, '}');
}

static void print_json(const struct bench *b)
{
    struct json_writer j = {0};
    json_open(&j, NULL, '{');
    json_uint(&j, "keys", b->keys);
    json_uint(&j, "size", b->size);
    json_rate(&j, "put", &b->put, true);
    json_real(&j, "view_behind_s", b->behind_s, 3);
    json_rate(&j, "get", &b->get, true);
    json_rate(&j, "get_batch", &b->batch, true);
    json_rate(&j, "scan", &b->scan, false);
    json_uint(&j, "nng_rtt_us", b->nng_rtt_us);
    json_real(&j, "nng_echoes_per_s", b->nng_echoes_per_s, 0);
    json_real(&j, "get_to_echo", b->get.rate / b->nng_echoes_per_s, 3);
    json_uint(&j, "disk_sync_us", b->disk.sync_us);
    json_real(&j, "disk_bytes_per_s", b->disk.bytes_per_s, 0);
    json_close(&j, '}');
    json_print(&j);
}

static void print_rate(const struct ctl *ctl, const char *name, const char *what, const struct rate *r)
{
    char text[CTL_TEXT_MAX];
    ctl_line(ctl, name, "%s %s/s, p50 %" PRIu64 " us, p99 %" PRIu64 " us", ctl_rate(r->rate, text), what,
             histogram_quantile(&r->latency_us, 0.5), histogram_quantile(&r->latency_us, 0.99));
}

static void print_text(const struct bench *b)
{
    char text[CTL_TEXT_MAX];
    const struct ctl *ctl = b->ctl;
    print_rate(ctl, "put", "keys by 100, durable:", &b->put);
    ctl_line(ctl, "view", "%.3f s behind at the end of that", b->behind_s);
    print_rate(ctl, "get", "keys, 64 in flight:", &b->get);
    print_rate(ctl, "get", "keys by 100:", &b->batch);
    ctl_line(ctl, "scan", "%s keys/s", ctl_rate(b->scan.rate, text));
    ctl_line(ctl, "bare nng",
             "%s round trips/s, 64 in flight: single gets are %.2f of it; %" PRIu64 " us one by one",
             ctl_rate(b->nng_echoes_per_s, text), b->get.rate / b->nng_echoes_per_s, b->nng_rtt_us);
    ctl_line(ctl, "bare disk", "%s/s by what 100 keys take, %" PRIu64 " us a write and sync",
             ctl_bytes((uint64_t)b->disk.bytes_per_s, text), b->disk.sync_us);
}

/* ---------------------------------------------------------------- running */

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

static void choose_stride(struct bench *b)
{
    b->stride = (uint32_t)((double)b->keys * 0.618) | 1; /* far apart */
    while (common_divisor(b->stride, b->keys) != 1)
        b->stride += 2;
}

static int measure(struct bench *b)
{
    const struct ctl *ctl = b->ctl;
    int64_t duration_ns = (int64_t)ctl_number(ctl, "duration", 5 * (uint64_t)NS_PER_S);
    void (*const timed[])(struct bench *, int64_t) = {get_singly, get_batches};
    load(b);
    for (size_t i = 0; i < 2 && b->error == SH_OK; i++)
        timed[i](b, duration_ns);
    if (b->error == SH_OK)
        scan(b);
    if (b->error != SH_OK)
        return ctl_fail_node(ctl, "bench kv", b->error, b->detail);
    b->nng_rtt_us = bench_nng_rtt_us("/tmp");
    b->nng_echoes_per_s = bench_nng_echoes_per_s("/tmp");
    if (!bench_bare_disk(ctl_word(ctl, "disk-dir", "."), (b->size + KEY_BYTES) * BATCH, &b->disk))
        return CTL_FAILED;
    if (ctl->format == CTL_JSON)
        print_json(b);
    else
        print_text(b);
    return CTL_DONE;
}

static int run_bench_kv(struct ctl *ctl)
{
    const char *dir = ctl_word(ctl, "disk-dir", ".");
    if (access(dir, W_OK | X_OK) != 0)
        return ctl_usage(ctl, "--disk-dir %s: %s", dir, strerror(errno));
    struct bench *b = xcalloc(1, sizeof *b);
    b->ctl = ctl;
    b->keys = (uint32_t)ctl_number(ctl, "keys", 1000000);
    b->rate = ctl_number(ctl, "rate", 0);
    b->size = (size_t)ctl_number(ctl, "size", 128);
    b->pool = xmalloc(POOL_BYTES);
    random_bytes(b->pool, POOL_BYTES);
    pthread_mutex_init(&b->lock, NULL);
    choose_stride(b);
    int code = ctl_open(ctl, &b->client);
    if (code == CTL_DONE) {
        code = measure(b);
        sh_close(b->client);
    }
    pthread_mutex_destroy(&b->lock);
    free(b->pool);
    free(b);
    return code;
}

static const struct ctl_option kv_options[] = {
    {"keys", 'k', CTL_NUMBER, "N", "how many, 1,000,000 without it", 1, 100000000},
    {"size", 's', CTL_SIZE, "BYTES", "value of a key, 128 without it", 1, 64 << 10},
    {"rate", 'r', CTL_NUMBER, "N", "keys/s to put, as many as possible without it", 1, 1000000000},
    {"duration", 'd', CTL_TIME, "T", "how long each kind of get is measured, 5s without it", 1000000,
     UINT64_C(3600000000000)},
    {"disk-dir", 'D', CTL_WORD, "DIR",
     "where the bare disk is measured: a folder on the data's disk; . without it", 0, 0},
    {NULL, 0, CTL_FLAG, NULL, NULL, 0, 0},
};

const struct ctl_command cmd_bench_kv = {
    .name = "bench kv",
    .values = "",
    .summary = "Measure puts, gets and a scan of keys, and the bare disk and nng beside them",
    .more =
        "Puts real keys, bench/0000000000 and so on, in batches of 100, 64 in flight, in an order that is\n"
        "not theirs; tells how long the view took to have them then; gets keys at random, single ones 64\n"
        "in flight, and by the hundred in four threads; and scans all.",
    .options = kv_options,
    .run = run_bench_kv,
};
