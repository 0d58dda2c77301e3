/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), by ISA-L. */
#ifndef COMMON_CRC32C_H
#define COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `len` bytes that follow bytes whose checksum is `before` (0 for none, or a salt). */
uint32_t crc32c(uint32_t before, const void *data, size_t len);

#endif
