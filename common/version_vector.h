/* A version vector: how far each of several logs has been read, written or applied. On the wire and in
 * entries a msgpack array of [log uuid (bin 16), LSN]. Pure; docs/wal-format.md has the bytes. */
#ifndef COMMON_VERSION_VECTOR_H
#define COMMON_VERSION_VECTOR_H

#include "clock.h"
#include "mp.h"

enum { VECTOR_LOGS_MAX = 256, VECTOR_BYTES_MAX = 16384 };

struct vector_place {
    struct id16 log;
    uint64_t lsn; /* of the last entry */
};

struct version_vector {
    struct vector_place all[VECTOR_LOGS_MAX]; /* by log uuid, each once, no LSN 0 */
    size_t count;
};

/* One element. False: malformed. */
bool vector_next(struct mp *m, struct vector_place *out);
/* Whether all of the bytes are one, with its logs in ascending order: as entries have them. */
bool vector_is_ordered(struct slice bytes);
/* In any order; no bytes at all are an empty one. False: malformed, a log twice, or too many. */
bool vector_decode(struct slice bytes, struct version_vector *out);
/* Ordered. */
void vector_pack(const struct version_vector *vector, struct buf *out);
/* 0: it lacks that log. */
uint64_t vector_lsn(const struct version_vector *vector, struct id16 log);
/* Whether `a` is as far as `b` in every log; *behind (may be NULL) is what `b` has of the first one where it
 * isn't. */
bool vector_covers(const struct version_vector *a, const struct version_vector *b,
                   struct vector_place *behind);

#endif
