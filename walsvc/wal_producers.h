/* Producers and the answers they got: what makes an append idempotent and ordered. Pure.
 *
 * The table follows from the log alone: it is replayed from the frames' headers, and every segment opens with
 * a checkpoint of it. Bounded: 1,024 producers (the one whose last LSN is the lowest goes first), 256 answers
 * each. */
#ifndef WAL_PRODUCERS_H
#define WAL_PRODUCERS_H

#include "mp.h"
#include "clock.h"

enum { WAL_PRODUCERS_MAX = 1024, WAL_ANSWERS_MAX = 256 };

/* Where a request's entries landed. */
struct wal_answer {
    uint64_t lsn;
    uint32_t count;
};

enum wal_verdict {
    WAL_NEW,      /* the next one in sequence: to be appended */
    WAL_REPEATED, /* landed before; *answer says where */
    WAL_GAP,      /* *expected should have come first */
    WAL_FENCED,   /* a higher epoch of this producer has written */
    WAL_EXPIRED,  /* the answer, or the whole producer, is no longer remembered */
};

struct wal_producers;

struct wal_producers *wal_producers_open(void);
void wal_producers_free(struct wal_producers *table);
size_t wal_producers_count(const struct wal_producers *table);
enum wal_verdict wal_producers_judge(const struct wal_producers *table, struct id16 id, uint32_t epoch,
                                     uint64_t sequence, struct wal_answer *answer, uint64_t *expected);
/* Whether anything is remembered of it. */
bool wal_producers_known(const struct wal_producers *table, struct id16 id);
/* Whether it is known that this sequence landed, whatever is remembered of where. */
bool wal_producers_landed(const struct wal_producers *table, struct id16 id, uint32_t epoch,
                          uint64_t sequence);
/* What a frame in the log tells. */
void wal_producers_record(struct wal_producers *table, struct id16 id, uint32_t epoch, uint64_t sequence,
                          struct wal_answer answer);
/* Forgets the older half of each producer's answers (all but the last): to fit a checkpoint into a small
 * segment. */
void wal_producers_halve(struct wal_producers *table);
/* An array, the producer with the lowest last LSN first, of
 *   [id (bin), epoch, last sequence, [gap, count, gap, count, ...]]
 * with the oldest answer first; its LSN is its gap plus the end (LSN + count) of the answer before it. */
void wal_producers_encode(const struct wal_producers *table, msgpack_packer *pk);
/* Replaces the table's contents. False: malformed. */
bool wal_producers_decode(struct wal_producers *table, struct mp *m);

#endif
