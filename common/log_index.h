/* Places in a log that a reader has been at: at least a MiB apart, bounded, so that coming back costs little.
 * What a segment's index file (segment_index.h) is for sealed segments, this is for the newest one, and for
 * those without.
 */
#ifndef COMMON_LOG_INDEX_H
#define COMMON_LOG_INDEX_H

#include "segment_scan.h"

struct log_index {
    struct log_place *places; /* by LSN */
    size_t count;
};

void log_index_free(struct log_index *index);
/* Bytes of memory that it takes. */
size_t log_index_bytes(const struct log_index *index);
/* Remembers a frame's start, when it is far enough from those that are known. */
void log_index_note(struct log_index *index, uint64_t base_lsn, uint64_t offset,
                    const struct log_chain *chain);
/* Moves offset and chain to the best known place in the segment at or before the LSN, if there is one. */
void log_index_find(const struct log_index *index, uint64_t base_lsn, uint64_t lsn, uint64_t *offset,
                    struct log_chain *chain);

#endif
