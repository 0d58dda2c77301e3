/* Latency histogram with log-spaced buckets: 32 to each doubling, so a quantile is off by at most 3 %; fixed
 * size, no allocation. One thread at a time. */
#ifndef COMMON_HISTOGRAM_H
#define COMMON_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_SUB_BITS = 5, HISTOGRAM_BUCKETS = (64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS };

/* Zero-initialise. */
struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t count, sum, max;
};

void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The value that the share q (0..1) of all values doesn't exceed, within the buckets' precision; 0 when
 * empty. */
uint64_t histogram_quantile(const struct histogram *h, double q);

#endif
