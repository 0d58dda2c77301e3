/* Hybrid logical clock (Kulkarni et al., 2014): 48 bits of milliseconds since 1970, 16 bits of count.
 *
 * A node's clock is always ahead of what it has stored or seen; two readings are never equal. */
#ifndef COMMON_HLC_H
#define COMMON_HLC_H

#include <stdint.h>

/* The next reading after `last`, when the wall clock says `now_ns` (ns since 1970). */
uint64_t hlc_next(uint64_t last, int64_t now_ns);
/* The later of two readings: how a reading from elsewhere is merged. */
uint64_t hlc_merge(uint64_t a, uint64_t b);
/* The milliseconds since 1970 in a reading. */
int64_t hlc_ms(uint64_t hlc);
/* The earliest reading of that millisecond; times outside what a reading can hold get the nearest one. */
uint64_t hlc_of_ms(int64_t ms);

#endif
