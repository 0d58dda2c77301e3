/* Time, randomness and 16-byte identities. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MS_PER_S = 1000, NS_PER_US = 1000, NS_PER_MS = 1000000, ID_TEXT = 37 };
#define NS_PER_S INT64_C(1000000000)

/* CLOCK_MONOTONIC in ns: for intervals and deadlines. */
int64_t clock_mono_ns(void);
/* CLOCK_REALTIME in ns since 1970: for people and for the HLC only. */
int64_t clock_real_ns(void);

/* Random bytes from the kernel. */
void random_bytes(void *out, size_t len);
uint64_t random_u64(void);

/* A random (version 4) UUID: of a log, a boot, a session, a producer. All zero means none. */
struct id16 {
    uint8_t bytes[16];
};

struct id16 id16_random(void);
bool id16_equal(struct id16 a, struct id16 b);
bool id16_is_zero(struct id16 id);
/* Writes the 36 characters of the usual text form and a NUL. */
void id16_format(struct id16 id, char text[ID_TEXT]);
bool id16_parse(const char *text, struct id16 *id);

#endif
