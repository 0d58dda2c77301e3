/* The sparse index in memory: a sorted array; when it is full every second place goes. Nothing here is fatal.
 */
#include "log_index.h"

#include <stdlib.h>
#include <string.h>

enum { PLACES_MAX = 1024, PLACE_GAP_BYTES = 1 << 20 };

struct log_place {
    uint64_t base_lsn, offset;
    struct log_chain chain;
};

void log_index_free(struct log_index *index)
{
    free(index->places);
    *index = (struct log_index){0};
}

size_t log_index_bytes(const struct log_index *index)
{
    return index->places != NULL ? PLACES_MAX * sizeof *index->places : 0;
}

/* How many places lie at or before the LSN. */
static size_t places_up_to(const struct log_index *index, uint64_t lsn)
{
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (index->places[middle].chain.next_lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool is_near(const struct log_place *place, uint64_t base_lsn, uint64_t offset)
{
    uint64_t gap = place->offset > offset ? place->offset - offset : offset - place->offset;
    return place->base_lsn == base_lsn && gap < PLACE_GAP_BYTES;
}

static void thin_out(struct log_index *index)
{
    size_t kept = 0;
    for (size_t i = 0; i < index->count; i += 2)
        index->places[kept++] = index->places[i];
    index->count = kept;
}

void log_index_note(struct log_index *index, uint64_t base_lsn, uint64_t offset,
                    const struct log_chain *chain)
{
    size_t at = places_up_to(index, chain->next_lsn);
    if (at > 0 && is_near(&index->places[at - 1], base_lsn, offset))
        return;
    if (at < index->count && is_near(&index->places[at], base_lsn, offset))
        return;
    if (offset < PLACE_GAP_BYTES) /* the start of the segment is as good */
        return;
    if (index->places == NULL)
        index->places = xmalloc(PLACES_MAX * sizeof *index->places);
    if (index->count == PLACES_MAX) {
        thin_out(index);
        at = places_up_to(index, chain->next_lsn);
    }
    memmove(index->places + at + 1, index->places + at, (index->count - at) * sizeof *index->places);
    index->places[at] = (struct log_place){base_lsn, offset, *chain};
    index->count++;
}

void log_index_find(const struct log_index *index, uint64_t base_lsn, uint64_t lsn, uint64_t *offset,
                    struct log_chain *chain)
{
    size_t at = places_up_to(index, lsn);
    if (at == 0 || index->places[at - 1].base_lsn != base_lsn)
        return;
    *offset = index->places[at - 1].offset;
    *chain = index->places[at - 1].chain;
}
