/* Little-endian integers in files, whatever the machine. */
#ifndef COMMON_BYTES_H
#define COMMON_BYTES_H

#include <stdint.h>

static inline void put_u16(uint8_t *p, uint16_t value)
{
    for (unsigned i = 0; i < sizeof value; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static inline void put_u32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < sizeof value; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static inline void put_u64(uint8_t *p, uint64_t value)
{
    for (unsigned i = 0; i < sizeof value; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static inline uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t get_u64(const uint8_t *p)
{
    return (uint64_t)get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

#endif
