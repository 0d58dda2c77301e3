/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), by ISA-L. */
#ifndef COMMON_CRC32C_H
#define COMMON_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of `len` bytes that follow bytes whose checksum is `before` (0 for none, or a salt). */
uint32_t crc32c(uint32_t before, const void *data, size_t len);
/* What `before` makes of a checksum so many bytes later: crc32c(before, data, len) is crc32c_shift(before,
 * len) ^ crc32c(0, data, len). Takes a microsecond or two, whatever the length. */
uint32_t crc32c_shift(uint32_t before, uint64_t len);

#endif
