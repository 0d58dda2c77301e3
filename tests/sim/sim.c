/* sim [--seed N] [--steps N] [--faults LIST] [--verbose]: a random life of the log on a simulated disk,
 * checked against a model. Everything in a run follows from its seed; a failure prints the command that
 * repeats it. */
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "sim_world.h"

enum { WORLD_STEPS = 1500 };

static struct sim_world world;
static uint64_t seed, steps = 20000, step;
static const char *faults = "crash,eio,sync,full,short,flip,rot";
static bool is_verbose;
static const char *operation = "begin";

/* Time and identities follow from the seed too: the linker puts these in the place of the real ones. */
int64_t __wrap_clock_real_ns(void);
struct id16 __wrap_id16_random(void);

int64_t __wrap_clock_real_ns(void)
{
    return world.now_ns += 1000;
}

struct id16 __wrap_id16_random(void)
{
    return rig_producer(1 + world_random(&world, UINT64_C(1) << 60));
}

static void tell_how_to_repeat(void)
{
    printf("in step %llu (%s); to repeat: sim --seed %llu --steps %llu --faults %s --verbose\n",
           (unsigned long long)step, operation, (unsigned long long)seed, (unsigned long long)steps, faults);
    fflush(stdout);
}

void model_fail(const char *format, ...)
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

static const struct sim_operation *choose(void)
{
    unsigned total = 0;
    for (const struct sim_operation *o = sim_operations; o->name != NULL; o++)
        total += (o->needs & ~world.faults) == 0 ? o->weight : 0;
    uint64_t at = world_random(&world, total);
    for (const struct sim_operation *o = sim_operations;; o++) {
        unsigned weight = (o->needs & ~world.faults) == 0 ? o->weight : 0;
        if (at < weight)
            return o;
        at -= weight;
    }
}

static unsigned parse_faults(const char *text)
{
    static const struct {
        const char *name;
        unsigned bit;
    } all[] = {{"crash", FAULT_CRASH}, {"eio", FAULT_EIO},   {"sync", FAULT_SYNC}, {"full", FAULT_FULL},
               {"short", FAULT_SHORT}, {"flip", FAULT_FLIP}, {"rot", FAULT_ROT},   {"near", FAULT_NEAR},
               {"lies", FAULT_LIES},   {"none", 0}};
    unsigned bits = 0;
    char copy[128], *rest = copy, *part;
    snprintf(copy, sizeof copy, "%s", text);
    while ((part = strsep(&rest, ",")) != NULL) {
        size_t i = 0;
        while (i < sizeof all / sizeof all[0] && strcmp(all[i].name, part) != 0)
            i++;
        if (i == sizeof all / sizeof all[0])
            return UINT32_MAX;
        bits |= all[i].bit;
    }
    return bits;
}

static void run(void)
{
    world.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1; /* never 0 for a seed of 32 bits */
    world.now_ns = 1700000000 * NS_PER_S;
    for (step = 0; step < steps;) {
        world_begin(&world);
        for (uint64_t end = step + WORLD_STEPS; step < end && step < steps; step++) {
            const struct sim_operation *o = choose();
            operation = o->name;
            if (is_verbose)
                printf("%llu: %s; durable LSN %llu, end %llu\n", (unsigned long long)step, o->name,
                       (unsigned long long)world.rig.log.durable.lsn,
                       (unsigned long long)world.rig.log.durable.end);
            if (!o->run(&world))
                world_crash(&world);
        }
        operation = "end";
        world_end(&world);
    }
}

static void tell(int64_t took_ns)
{
    const struct sim_counts *c = &world.counts;
    printf("count: simulation seeds 1\ncount: simulation steps %llu\ncount: simulated crashes %llu\n"
           "count: injected faults %llu\ncount: simulated repairs %llu\n",
           (unsigned long long)step, (unsigned long long)c->crashes, (unsigned long long)c->faults,
           (unsigned long long)c->repairs);
    printf("%llu damaged frames could not be repaired\n", (unsigned long long)c->unrepaired);
    printf("%llu appends, %llu reads, %llu recoveries, %llu segments, %llu short transfers\n",
           (unsigned long long)c->appends, (unsigned long long)c->reads, (unsigned long long)c->recoveries,
           (unsigned long long)c->segments, (unsigned long long)c->shorts);
    printf("figure: simulation: %.0f steps/s\n", (double)step * 1e9 / (double)took_ns);
}

static uint64_t number_of(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0) {
        fprintf(stderr, "sim: not a number: %s\n", text);
        exit(2);
    }
    return value;
}

static void usage(void)
{
    fprintf(stderr, "usage: sim [--seed N] [--steps N] [--faults LIST] [--verbose]\n"
                    "  LIST: some of crash,eio,sync,full,short,flip,rot,near,lies, or none\n");
    exit(2);
}

static void parse_arguments(int argc, char **argv)
{
    seed = random_u64() % 1000000000;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--verbose") == 0)
            is_verbose = true;
        else if (value == NULL)
            usage();
        else if (strcmp(argv[i], "--seed") == 0)
            seed = number_of(value), i++;
        else if (strcmp(argv[i], "--steps") == 0)
            steps = number_of(value), i++;
        else if (strcmp(argv[i], "--faults") == 0)
            faults = value, i++;
        else
            usage();
    }
    world.faults = parse_faults(faults);
    if (world.faults == UINT32_MAX)
        usage();
}

int main(int argc, char **argv)
{
    parse_arguments(argc, argv);
    printf("sim --seed %llu --steps %llu --faults %s\n", (unsigned long long)seed, (unsigned long long)steps,
           faults);
    fflush(stdout);
    log_set_level(is_verbose ? LOG_DEBUG : (enum log_level)(LOG_ERROR + 1));
    mallopt(M_MMAP_THRESHOLD, 64 << 20); /* the windows of readers come and go */
    signal(SIGABRT, on_abort);
    int64_t began_ns = clock_mono_ns();
    run();
    tell(clock_mono_ns() - began_ns);
    return 0;
}
