/* Hybrid logical clock arithmetic. A full count carries into the milliseconds: readings only ever grow. */
#include "hlc.h"

#include "clock.h"

enum { HLC_COUNT_BITS = 16 };

uint64_t hlc_next(uint64_t last, int64_t now_ns)
{
    uint64_t wall = now_ns > 0 ? (uint64_t)(now_ns / NS_PER_MS) << HLC_COUNT_BITS : 0;
    return wall > last ? wall : last + 1;
}

uint64_t hlc_merge(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

int64_t hlc_ms(uint64_t hlc)
{
    return (int64_t)(hlc >> HLC_COUNT_BITS);
}

uint64_t hlc_of_ms(int64_t ms)
{
    const int64_t most = (INT64_C(1) << (64 - HLC_COUNT_BITS)) - 1;
    return ms <= 0 ? 0 : (uint64_t)(ms < most ? ms : most) << HLC_COUNT_BITS;
}
