/* Counters of the process. A failed look into /proc leaves series out; nothing here is fatal. */
#include "telemetry.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "descriptors.h"

#define NONE                                                                                                 \
    "", 0,                                                                                                   \
    {                                                                                                        \
        NULL                                                                                                 \
    }
#define OF(label, count, ...)                                                                                \
    label, count,                                                                                            \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

static const struct metric table[TELEMETRY_ALL] = {
#define METRIC(symbol_, service_, kind_, unit_, name_, label_, prose_)                                       \
    [TELEMETRY_##symbol_] = {"shanghai_" name_, service_, METRIC_##kind_, METRIC_##unit_, prose_, label_},
#define DYNAMIC(symbol_, service_, kind_, unit_, name_, labels_, prose_)                                     \
    [TELEMETRY_##symbol_] = {"shanghai_" name_, service_, METRIC_##kind_, METRIC_##unit_, prose_,            \
                             labels_,           0,        {NULL}},
#include "metrics.def"
#undef METRIC
#undef DYNAMIC
};

/* Values of counters and gauges, sums of histograms. Pages of what a daemon does not count are never touched.
 */
static _Atomic uint64_t sums[TELEMETRY_METRICS][TELEMETRY_LABEL_VALUES];
static _Atomic uint64_t buckets[TELEMETRY_METRICS][TELEMETRY_LABEL_VALUES][TELEMETRY_BUCKETS];

const struct metric *metrics_table(void)
{
    return table;
}

const char *metric_kind_name(enum metric_kind kind)
{
    static const char *const names[] = {"counter", "gauge", "histogram"};
    return names[kind];
}

/* ---------------------------------------------------------------- counting */

void telemetry_add(enum telemetry_metric counter, unsigned which, uint64_t more)
{
    atomic_fetch_add_explicit(&sums[counter][which], more, memory_order_relaxed);
}

void telemetry_set(enum telemetry_metric gauge, unsigned which, int64_t value)
{
    atomic_store_explicit(&sums[gauge][which], (uint64_t)value, memory_order_relaxed);
}

/* Two bounds to each doubling: from 2^e to 2^(e+1), the half and the whole. */
static unsigned bucket_of(uint64_t value)
{
    if (value <= 1)
        return 0;
    unsigned e = 63 - (unsigned)__builtin_clzll(value - 1);
    unsigned bucket = e == 0 ? 1 : 2 * e + (value > UINT64_C(3) << (e - 1));
    return bucket < TELEMETRY_BOUNDS ? bucket : TELEMETRY_BOUNDS;
}

uint64_t telemetry_bound(unsigned bucket)
{
    if (bucket < 2)
        return bucket + 1;
    unsigned e = bucket / 2;
    return bucket % 2 == 0 ? UINT64_C(3) << (e - 1) : UINT64_C(2) << e;
}

void telemetry_take(enum telemetry_metric histogram, unsigned which, uint64_t value)
{
    uint64_t size = table[histogram].unit == METRIC_SECONDS ? (value + NS_PER_US - 1) / NS_PER_US : value;
    atomic_fetch_add_explicit(&sums[histogram][which], value, memory_order_relaxed);
    atomic_fetch_add_explicit(&buckets[histogram][which][bucket_of(size)], 1, memory_order_relaxed);
}

/* ---------------------------------------------------------------- telling */

static void pack_buckets(msgpack_packer *pk, _Atomic uint64_t *counts)
{
    uint64_t now[TELEMETRY_BUCKETS];
    size_t filled = 0;
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++) {
        now[i] = atomic_load_explicit(&counts[i], memory_order_relaxed);
        filled += now[i] > 0;
    }
    msgpack_pack_array(pk, 2 * filled);
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        if (now[i] > 0) {
            msgpack_pack_uint8(pk, (uint8_t)i);
            msgpack_pack_uint64(pk, now[i]);
        }
}

static void pack_series(msgpack_packer *pk, const struct metric *m, size_t metric, unsigned which)
{
    uint64_t sum = atomic_load_explicit(&sums[metric][which], memory_order_relaxed);
    msgpack_pack_array(pk, 3);
    mp_pack_cstr(pk, m->name);
    msgpack_pack_array(pk, m->value_count > 0);
    if (m->value_count > 0)
        mp_pack_cstr(pk, m->values[which]);
    if (m->kind == METRIC_GAUGE) {
        msgpack_pack_int64(pk, (int64_t)sum);
    } else if (m->kind == METRIC_COUNTER) {
        msgpack_pack_uint64(pk, sum);
    } else {
        msgpack_pack_array(pk, 2);
        msgpack_pack_uint64(pk, sum);
        pack_buckets(pk, buckets[metric][which]);
    }
}

uint32_t telemetry_pack(msgpack_packer *pk, const char *service)
{
    uint32_t count = 0;
    for (size_t i = 0; i < TELEMETRY_METRICS; i++) {
        const struct metric *m = &table[i];
        unsigned series = m->value_count > 0 ? m->value_count : 1;
        if (strcmp(m->service, service) != 0)
            continue;
        for (unsigned which = 0; which < series; which++)
            pack_series(pk, m, i, which);
        count += series;
    }
    return count;
}

void telemetry_gather(msgpack_packer *pk, enum telemetry_gathered metric, const char *const *labels,
                      int64_t value)
{
    const struct metric *m = &table[metric];
    size_t count = *m->labels != 0;
    for (const char *at = m->labels; *at != 0; at++)
        count += *at == ',';
    assert(count <= TELEMETRY_LABELS);
    msgpack_pack_array(pk, 3);
    mp_pack_cstr(pk, m->name);
    msgpack_pack_array(pk, count);
    for (size_t i = 0; i < count; i++)
        mp_pack_cstr(pk, labels[i]);
    msgpack_pack_int64(pk, value);
}

/* ---------------------------------------------------------------- the process */

static int64_t count_fds(void)
{
    int64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return -1;
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count - 3; /* ., .. and the directory itself */
}

/* Pages; -1: unknown. */
static int64_t resident_pages(void)
{
    int64_t total, resident;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return -1;
    bool good = fscanf(file, "%" SCNd64 " %" SCNd64, &total, &resident) == 2;
    fclose(file);
    return good ? resident : -1;
}

static int64_t start_ns;

void telemetry_begin(void)
{
    start_ns = clock_real_ns();
}

static int64_t cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * NS_PER_S + used.tv_nsec;
}

uint32_t telemetry_pack_process(msgpack_packer *pk, const char *service)
{
    descriptors_lift(); /* when clients have taken all, it is of interest most */
    int64_t fds = count_fds(), pages = resident_pages();
    descriptors_lower();
    uint32_t count = 2;
    telemetry_gather(pk, TELEMETRY_process_cpu, &service, cpu_ns());
    telemetry_gather(pk, TELEMETRY_process_start, &service, start_ns);
    if (pages >= 0)
        telemetry_gather(pk, TELEMETRY_process_memory, &service, pages * sysconf(_SC_PAGESIZE));
    if (fds >= 0)
        telemetry_gather(pk, TELEMETRY_process_fds, &service, fds);
    count += (pages >= 0) + (fds >= 0);
    return count;
}

/* ---------------------------------------------------------------- the document */

void telemetry_document(struct buf *out)
{
    static const char *const units[] = {"", "bytes", "seconds"};
    buf_append_str(
        out,
        "# Metrics\n\n"
        "Generated from `common/metrics.def` by `script/docs`; a test compares the two.\n\n"
        "`/metrics` on a node's `admin_port` tells all of them in Prometheus' text format. Counters begin at "
        "0 "
        "when their daemon starts. Histograms have buckets at 1, 2, 3, 4, 6, 8, 12, ... 2^26, of seconds in "
        "microseconds.\n\n"
        "| metric | kind | unit | labels | kept by | meaning |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < TELEMETRY_ALL; i++) {
        const struct metric *m = &table[i];
        buf_printf(out, "| `%s` | %s | %s | ", m->name, metric_kind_name(m->kind), units[m->unit]);
        if (*m->labels != 0)
            buf_printf(out, "`%s`", m->labels);
        for (unsigned which = 0; which < m->value_count; which++)
            buf_printf(out, "%s`%s`", which == 0 ? ": " : ", ", m->values[which]);
        buf_printf(out, " | %s | %s |\n", strcmp(m->service, "all") == 0 ? "each daemon" : m->service,
                   m->prose);
    }
}
