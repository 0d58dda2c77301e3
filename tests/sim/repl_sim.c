/* repl_sim [--nodes N] [--loss P] [--seed S] [--hours H] [--disk | --forks] [--verbose]
 *
 * Simulates the replication of a group (docs/testing.md). Everything in a run follows from its seed; a
 * failure prints the command that repeats it. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "histogram.h"
#include "log.h"
#include "repl_world.h"
#include "repl_world_disk.h"

enum { SETTLE_S = 120, FAULTS_S = 40, GARBLE_PERMILLE = 3 };

static struct repl_world world;
static struct histogram settle;
static uint64_t seed, nodes = 3, loss_percent = 5;
static double hours = 0.1;
static bool is_on_disk;

static void tell_how_to_repeat(void)
{
    printf("after %.3f s; to repeat: repl_sim --nodes %llu --loss %llu --seed %llu --hours %g%s --verbose\n",
           (double)world.net.now_ns / 1e9, (unsigned long long)nodes, (unsigned long long)loss_percent,
           (unsigned long long)seed, hours,
           is_on_disk        ? " --disk"
           : world.has_forks ? " --forks"
                             : "");
    fflush(stdout);
}

void world_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("FAILED: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    tell_how_to_repeat();
    _exit(1);
}

/* An assertion of the code under test. */
static void on_abort(int number)
{
    tell_how_to_repeat();
    signal(number, SIG_DFL);
    raise(number);
}

static void run(void)
{
    world.net.loss_percent = (unsigned)loss_percent;
    world.net.duplicate_percent = (unsigned)loss_percent / 2;
    world.net.reorder_percent = (unsigned)loss_percent;
    world.garble_permille = GARBLE_PERMILLE;
    world_open(&world, (uint32_t)nodes, seed);
    if (is_on_disk)
        world_disk_open(&world);
    do {
        int64_t faults_ns = (int64_t)(1 + net_random(&world.net, FAULTS_S)) * NS_PER_S;
        histogram_add(&settle, (uint64_t)world_round(&world, faults_ns, SETTLE_S * NS_PER_S));
    } while ((double)world.net.now_ns < hours * 3600e9);
}

static void tell(void)
{
    for (uint32_t i = 0; i < world.count; i++)
        world_add_counters(&world, repl_core_counters(world.nodes[i].core));
    printf("count: replication seeds 1\ncount: replication rounds %llu\ncount: replication faults %llu\n"
           "count: replication frames %llu\ncount: replication messages %llu\n",
           (unsigned long long)settle.count, (unsigned long long)world.faults,
           (unsigned long long)world.appended_frames, (unsigned long long)world.net.delivered);
    printf("counters:");
#define REPL_COUNTER(name) printf(" " #name " %llu,", (unsigned long long)world.counters.name);
    REPL_COUNTERS(REPL_COUNTER)
#undef REPL_COUNTER
    printf(" set back %llu, kept aside %llu, appended again %llu,", (unsigned long long)world.set_back,
           (unsigned long long)world.kept_aside, (unsigned long long)world.appended_again);
    printf(" garbled %llu, trims %llu\n", (unsigned long long)world.garbled, (unsigned long long)world.trims);
    printf("figure: repl_sim: %llu nodes, %llu %% loss: all equal %.1f/%.1f/%.1f s after the last fault "
           "(p50/p99/max of %llu), %.1f MB compared, %llu LSNs acknowledged by a quorum, at most %.1f MB "
           "unsynced\n",
           (unsigned long long)nodes, (unsigned long long)loss_percent,
           (double)histogram_quantile(&settle, 0.5) / 1e9, (double)histogram_quantile(&settle, 0.99) / 1e9,
           (double)settle.max / 1e9, (unsigned long long)settle.count, (double)world.compared_bytes / 1e6,
           (unsigned long long)world.acknowledged, (double)world.unsynced_most / 1e6);
}

/* ------------------------------------------------------------ arguments */

static void usage(void)
{
    fprintf(stderr,
            "usage: repl_sim [--nodes N] [--loss P] [--seed S] [--hours H] [--disk | --forks] [--verbose]\n"
            "  --disk: copies also by walsvc's real code, on a simulated disk; takes memory\n"
            "  --forks: nodes' own logs are set back, too, as by disks that lie\n");
    exit(2);
}

static uint64_t number_of(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0 || value < least || value > most)
        usage();
    return value;
}

static bool take_option(const char *name, const char *value)
{
    if (strcmp(name, "--seed") == 0)
        seed = number_of(value, 0, UINT64_MAX);
    else if (strcmp(name, "--nodes") == 0)
        nodes = number_of(value, 2, WORLD_NODES_MAX);
    else if (strcmp(name, "--loss") == 0)
        loss_percent = number_of(value, 0, 50);
    else if (strcmp(name, "--hours") == 0)
        hours = strtod(value, NULL);
    else
        return false;
    return true;
}

static void parse_arguments(int argc, char **argv)
{
    seed = random_u64() % 1000000000;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            world.is_verbose = true;
        else if (strcmp(argv[i], "--disk") == 0)
            is_on_disk = true;
        else if (strcmp(argv[i], "--forks") == 0)
            world.has_forks = true;
        else if (i + 1 == argc || !take_option(argv[i], argv[i + 1]))
            usage();
        else
            i++;
    }
    if (is_on_disk && world.has_forks)
        usage();
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    printf("repl_sim --nodes %llu --loss %llu --seed %llu --hours %g%s\n", (unsigned long long)nodes,
           (unsigned long long)loss_percent, (unsigned long long)seed, hours,
           is_on_disk        ? " --disk"
           : world.has_forks ? " --forks"
                             : "");
    fflush(stdout);
    log_set_level((enum log_level)(LOG_ERROR + 1));
    signal(SIGABRT, on_abort);
    run();
    tell();
    world_close(&world);
    return 0;
}
