/* CRC-32C by ISA-L, whose function wants and gives the register without the final inversion. */
#include "crc32c.h"

#include <assert.h>
#include <isa-l/crc.h>
#include <limits.h>

uint32_t crc32c(uint32_t before, const void *data, size_t len)
{
    assert(len <= INT_MAX);
    return ~crc32_iscsi((unsigned char *)(uintptr_t)data, (int)len, ~before);
}
