/* The ring that observers are taken from: all members that are there, ordered by a hash of the id. The same
 * on every machine, so that all whose views are the same know who observes whom. */
#include <assert.h>
#include <string.h>

#include "member_parts.h"

static int compare(const struct member *a, const struct member *b)
{
    return a->place != b->place ? (a->place > b->place ? 1 : -1) : strcmp(a->id, b->id);
}

/* Where it stands, or would stand. */
static uint32_t find(const struct member_core *core, const struct member *m)
{
    uint32_t low = 0, high = core->ring_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (compare(core->ring[middle], m) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void ring_add(struct member_core *core, struct member *m)
{
    uint32_t at = find(core, m);
    memmove(core->ring + at + 1, core->ring + at, (core->ring_count - at) * sizeof(struct member *));
    core->ring[at] = m;
    core->ring_count++;
    m->on_ring = true;
    core->ring_changed = true;
}

void ring_remove(struct member_core *core, struct member *m)
{
    uint32_t at = find(core, m);
    assert(at < core->ring_count && core->ring[at] == m);
    core->ring_count--;
    memmove(core->ring + at, core->ring + at + 1, (core->ring_count - at) * sizeof(struct member *));
    m->on_ring = false;
    core->ring_changed = true;
}

static uint32_t neighbours(const struct member_core *core, const struct member *m, bool behind,
                           struct member *out[OBSERVERS_MAX])
{
    uint32_t n = core->ring_count;
    if (!m->on_ring)
        return 0;
    uint32_t at = find(core, m), count = n - 1 < OBSERVERS_MAX ? n - 1 : OBSERVERS_MAX;
    for (uint32_t i = 0; i < count; i++)
        out[i] = core->ring[behind ? (at + 1 + i) % n : (at + n - 1 - i) % n];
    return count;
}

uint32_t ring_observers(const struct member_core *core, const struct member *m,
                        struct member *out[OBSERVERS_MAX])
{
    return neighbours(core, m, true, out);
}

uint32_t ring_observed(const struct member_core *core, const struct member *m,
                       struct member *out[OBSERVERS_MAX])
{
    return neighbours(core, m, false, out);
}

/* Walks on from a place by chance in steps by chance: enough for few out of many. */
uint32_t ring_pick(struct member_core *core, const struct member *except, uint32_t most, struct member **out)
{
    uint32_t n = core->ring_count, count = 0;
    for (uint32_t tries = 0; n > 0 && count < most && tries < 4 * most; tries++) {
        struct member *m = core->ring[core_random(core, n)];
        bool is_good = m != core->self && m != except;
        for (uint32_t i = 0; i < count; i++)
            is_good = is_good && out[i] != m;
        if (is_good)
            out[count++] = m;
    }
    /* With few on the ring chance alone may miss some. */
    uint32_t start = n > 0 ? (uint32_t)core_random(core, n) : 0;
    for (uint32_t i = 0; i < n && i < 4 * most && count < most; i++) {
        struct member *m = core->ring[(start + i) % n];
        bool is_good = m != core->self && m != except;
        for (uint32_t k = 0; k < count; k++)
            is_good = is_good && out[k] != m;
        if (is_good)
            out[count++] = m;
    }
    return count;
}

void set_add(struct member_core *core, enum member_set_name name, struct member *m)
{
    struct member_set *set = &core->sets[name];
    if (m->slots[name] != NO_SLOT)
        return;
    if (set->count == set->cap) {
        set->cap = set->cap > 0 ? set->cap * 2 : 8;
        set->at = xrealloc(set->at, set->cap * sizeof(struct member *));
    }
    m->slots[name] = set->count;
    set->at[set->count++] = m;
}

void set_remove(struct member_core *core, enum member_set_name name, struct member *m)
{
    struct member_set *set = &core->sets[name];
    uint32_t slot = m->slots[name];
    if (slot == NO_SLOT)
        return;
    set->at[slot] = set->at[--set->count];
    set->at[slot]->slots[name] = slot;
    m->slots[name] = NO_SLOT;
}
