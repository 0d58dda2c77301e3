/* Requests that another daemon has not answered yet, by their number there: a hash table with linear probing.
 * Numbers count up, so that number modulo capacity hardly ever collides. */
#include "query.h"

#include <assert.h>
#include <stdlib.h>

enum { FIRST_CAPACITY = 256 };

static struct pending *slot_of(const struct pending_table *table, uint64_t number)
{
    size_t at = number & (table->capacity - 1);
    while (table->slots[at].used && table->slots[at].number != number)
        at = (at + 1) & (table->capacity - 1);
    return &table->slots[at];
}

static void grow(struct pending_table *table)
{
    struct pending_table old = *table;
    table->capacity = old.capacity > 0 ? old.capacity * 2 : FIRST_CAPACITY;
    table->slots = xcalloc(table->capacity, sizeof *table->slots);
    for (size_t i = 0; i < old.capacity; i++)
        if (old.slots[i].used)
            *slot_of(table, old.slots[i].number) = old.slots[i];
    free(old.slots);
}

void pending_put(struct pending_table *table, const struct pending *p)
{
    assert(p->used);
    if (table->used * 2 >= table->capacity)
        grow(table);
    struct pending *slot = slot_of(table, p->number);
    assert(!slot->used);
    *slot = *p;
    table->used++;
}

/* Closes the gap that a removal leaves (Knuth, The Art of Computer Programming 3, 6.4, algorithm R). */
static void close_gap(struct pending_table *table, size_t gap)
{
    size_t mask = table->capacity - 1;
    for (size_t at = (gap + 1) & mask; table->slots[at].used; at = (at + 1) & mask) {
        size_t home = table->slots[at].number & mask;
        if (((at - home) & mask) < ((at - gap) & mask))
            continue;
        table->slots[gap] = table->slots[at];
        gap = at;
    }
    table->slots[gap].used = false;
}

bool pending_take(struct pending_table *table, uint64_t number, struct pending *out)
{
    if (table->capacity == 0)
        return false;
    struct pending *slot = slot_of(table, number);
    if (!slot->used)
        return false;
    *out = *slot;
    table->used--;
    close_gap(table, (size_t)(slot - table->slots));
    return true;
}

size_t pending_impatient(const struct pending_table *table, uint64_t *numbers)
{
    size_t count = 0;
    for (size_t i = 0; i < table->capacity; i++)
        if (table->slots[i].used && table->slots[i].impatient)
            numbers[count++] = table->slots[i].number;
    return count;
}

void pending_free(struct pending_table *table)
{
    free(table->slots);
    *table = (struct pending_table){0};
}
