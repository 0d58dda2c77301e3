/* Digest of a whole segment: XXH3, 128 bits. It tells copies apart that differ by accident; it is no
 * protection against somebody who wants them to look alike (docs/adr/0006). */
#ifndef COMMON_DIGEST_H
#define COMMON_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct digest128 {
    uint8_t bytes[16]; /* XXH128_canonicalFromHash: as xxh128sum prints it */
};

enum { DIGEST_TEXT = 33 };

struct digest_state;

struct digest_state *digest_open(void);
void digest_add(struct digest_state *state, struct slice bytes);
/* Of all that was added; frees the state. */
struct digest128 digest_close(struct digest_state *state);
/* Hexadecimal. */
void digest_format(struct digest128 digest, char text[DIGEST_TEXT]);
bool digest_equal(struct digest128 a, struct digest128 b);
/* XXH3, 64 bits, of a few bytes; the same on every machine. */
uint64_t digest64(struct slice bytes);

#endif
