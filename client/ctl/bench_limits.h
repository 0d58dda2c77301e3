/* What the machine can do, measured beside a benchmark: the bare round trip of nng and the bare disk. */
#ifndef CTL_BENCH_LIMITS_H
#define CTL_BENCH_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Median of REQ/REP round trips of 128 bytes over ipc, one in flight, to a process of its own; 0 when it
 * failed. dir: a folder for the socket. */
uint64_t bench_nng_rtt_us(const char *dir);
/* The far end of that: answers on url until its standard input ends. */
int bench_echo(const char *url);

struct bench_disk {
    uint64_t sync_us; /* median of one write and fdatasync */
    double bytes_per_s;
};
/* Writes groups of so many bytes, each followed by fdatasync, for about half a second, to a file in dir that
 * was allocated as segments are. False: could not (said). */
bool bench_bare_disk(const char *dir, size_t group_bytes, struct bench_disk *out);

#endif
