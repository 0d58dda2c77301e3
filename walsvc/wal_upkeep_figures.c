/* What the janitor knows of its log, for whoever counts. Nothing here is fatal. */
#include <stdlib.h>

#include "wal_upkeep.h"

/* A damaged header says nothing of where its segment lies: the first good one behind does. */
static uint64_t first_position(const struct wal_catalog *c)
{
    uint64_t before = 0;
    for (size_t i = 0; i < c->count; i++) {
        if (!c->all[i].damaged)
            return c->all[i].position > before ? c->all[i].position - before : 0;
        before += c->all[i].bytes;
    }
    return WAL_FIGURE_UNKNOWN;
}

static uint64_t damaged_entries(struct wal_damage *damage)
{
    size_t count;
    uint64_t entries = 0;
    struct log_damage_range *ranges = wal_damage_list(damage, &count);
    for (size_t i = 0; i < count; i++)
        entries += ranges[i].accepted_ns == 0 ? ranges[i].next_lsn - ranges[i].first_lsn : 0;
    free(ranges);
    return entries;
}

void wal_upkeep_tell_figures(struct wal_upkeep *u)
{
    struct wal_figures *f = &u->figures;
    if (u->has_grown && wal_catalog_refresh(&u->catalog) == SH_OK)
        u->has_grown = false;
    uint64_t first = first_position(&u->catalog), at = wal_rounds_position(&u->rounds);
    atomic_store(&f->first_position, first);
    atomic_store(&f->segments, u->catalog.count);
    atomic_store(&f->damaged_entries,
                 wal_damage_open_ranges(u->options.damage) > 0 ? damaged_entries(u->options.damage) : 0);
    atomic_store(&f->scrubbed_bytes, at > first ? at - first : 0);
    atomic_store(&f->scrubs, u->rounds.passes);
}
