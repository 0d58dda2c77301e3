/* What the machine can do, measured beside a benchmark: the bare round trip of nng and the bare disk. */
#ifndef CTL_BENCH_LIMITS_H
#define CTL_BENCH_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Median of REQ/REP round trips of 128 bytes over ipc, one in flight, to a process of its own; 0 when it
 * failed. dir: a folder for the socket. */
uint64_t bench_nng_rtt_us(const char *dir);

/* Round trips a second with 64 in flight (bench_echo.h), for a second; 0 when it failed. Once in a process's
 * life. */
double bench_nng_echoes_per_s(const char *dir);

struct bench_nng {
    uint64_t rtt_us;
    double bytes_per_s;
};
/* The same over tcp on loopback, and what goes one way in messages of 1 MiB (PUSH/PULL), for half a second;
 * 0 for what failed. */
void bench_nng_tcp(struct bench_nng *out);

/* The far end of these, by its name: returns each message, or drops it, until its standard input ends. -1:
 * there is no such end; otherwise an exit code. */
int bench_far_end(const char *name, const char *url);

struct bench_disk {
    uint64_t sync_us; /* median of one write and fdatasync */
    double bytes_per_s;
};
/* Writes groups of so many bytes, each followed by fdatasync, for about half a second, to a file in dir that
 * was allocated as segments are. False: could not (said). */
bool bench_bare_disk(const char *dir, size_t group_bytes, struct bench_disk *out);

#endif
