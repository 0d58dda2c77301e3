/* A histogram in constant space. Values below 32 have buckets of their own; above, a bucket is known by the
 * place of the highest bit and the five bits behind it. Nothing is fatal. */
#include "histogram.h"

enum { SUB = 1 << HISTOGRAM_SUB_BITS };

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (shift + 1) * SUB + (unsigned)(value >> shift) - SUB;
}

/* The highest value that falls into the bucket. */
static uint64_t bucket_top(unsigned bucket)
{
    if (bucket < SUB)
        return bucket;
    unsigned shift = bucket / SUB - 1;
    uint64_t low = (uint64_t)(bucket % SUB + SUB) << shift;
    return low + ((UINT64_C(1) << shift) - 1);
}

void histogram_add(struct histogram *h, uint64_t value)
{
    h->counts[bucket_of(value)]++;
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->counts[i] += from->counts[i];
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
}

uint64_t histogram_quantile(const struct histogram *h, double q)
{
    uint64_t below = 0, wanted = (uint64_t)((double)h->count * q);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        below += h->counts[i];
        if (below > wanted || (below == h->count && below > 0))
            return bucket_top(i) < h->max ? bucket_top(i) : h->max;
    }
    return 0;
}
