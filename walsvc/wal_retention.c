/* The decisions about segments. Nothing here is fatal. */
#include "wal_retention.h"

bool wal_segment_is_marked(const struct wal_segment *s, uint64_t mark_end)
{
    return mark_end > s->position + s->bytes;
}

static bool may_go(const struct wal_segment *s, uint64_t mark_end)
{
    return s->next_lsn != 0 && !s->damaged && wal_segment_is_marked(s, mark_end);
}

size_t wal_retention_due(const struct wal_segment *segments, size_t count, const struct wal_retention *rules,
                         uint64_t mark_end, int64_t now_real_ns)
{
    uint64_t total = 0;
    size_t due = 0;
    for (size_t i = 0; i < count; i++)
        total += segments[i].bytes;
    for (; due < count && may_go(&segments[due], mark_end); due++) {
        const struct wal_segment *s = &segments[due];
        bool over = rules->bytes > 0 && total > rules->bytes;
        bool old = rules->age_ns > 0 && s->last_ns > 0 && now_real_ns - s->last_ns > rules->age_ns;
        if (!over && !old)
            break;
        total -= s->bytes;
    }
    return due;
}

size_t wal_retention_below(const struct wal_segment *segments, size_t count, uint64_t before,
                           uint64_t mark_end)
{
    size_t below = 0;
    while (below < count && may_go(&segments[below], mark_end) && segments[below].next_lsn <= before)
        below++;
    return below;
}

static bool is_kept(const struct wal_segment *s, const struct wal_holds *holds, bool by_lasting)
{
    for (size_t i = 0; i < holds->count; i++)
        if ((by_lasting || !wal_hold_is_lasting(holds->all[i].kind)) &&
            wal_hold_keeps(&holds->all[i], s->next_lsn))
            return true;
    return false;
}

size_t wal_retention_free(const struct wal_segment *segments, size_t due, const struct wal_holds *holds)
{
    size_t free = 0;
    while (free < due && !is_kept(&segments[free], holds, true))
        free++;
    return free;
}

size_t wal_retention_break(const struct wal_segment *segments, size_t due, struct wal_holds *holds,
                           uint64_t member_hold_max)
{
    size_t broken = 0, alone = 0; /* alone: the first so many no hold that expires keeps */
    while (alone < due && !is_kept(&segments[alone], holds, false))
        alone++;
    for (size_t i = 0; i < holds->count; i++) {
        struct wal_hold *hold = &holds->all[i];
        hold->kept_bytes = 0;
        for (size_t s = 0; s < alone && wal_hold_is_lasting(hold->kind); s++)
            hold->kept_bytes += wal_hold_keeps(hold, segments[s].next_lsn) ? segments[s].bytes : 0;
        if (hold->kept_bytes <= member_hold_max)
            continue;
        hold->broken = holds->dirty = true;
        broken++;
    }
    return broken;
}
