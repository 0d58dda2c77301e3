/* Replication groups: the set of them, and what belongs where. Nothing here is fatal. */
#include "group.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "config.h"

_Static_assert((int)GROUP_NAME_MAX == (int)CONFIG_ID_MAX, "a group is named as the configuration names it");

enum { SHOWN_MAX = 40 };

/* ---------------------------------------------------------------- the set */

static void make_seeds(struct group *g)
{
    uint8_t bytes[1 + GROUP_NAME_MAX];
    size_t len = strlen(g->name);
    memcpy(bytes + 1, g->name, len);
    for (unsigned kind = 0; kind < GROUP_KINDS; kind++) {
        bytes[0] = (uint8_t)kind;
        g->seeds[kind] = XXH3_64bits(bytes, 1 + len);
    }
}

static int compare_groups(const void *a, const void *b)
{
    return strcmp(((const struct group *)a)->name, ((const struct group *)b)->name);
}

/* Sorted, each once, ready for use. */
static void settle(struct group_set *set)
{
    size_t kept = 0;
    qsort(set->all, set->count, sizeof *set->all, compare_groups);
    for (size_t i = 0; i < set->count; i++)
        if (kept == 0 || strcmp(set->all[kept - 1].name, set->all[i].name) != 0)
            set->all[kept++] = set->all[i];
    set->count = kept;
    for (size_t i = 0; i < kept; i++)
        make_seeds(&set->all[i]);
}

void group_set_of_config(struct group_set *set, const struct config *config)
{
    *set = (struct group_set){.self = GROUPS_MAX};
    set->all = xcalloc(config->node_count + 1, sizeof *set->all);
    for (size_t i = 0; i < config->node_count; i++)
        memcpy(set->all[set->count++].name, config->nodes[i].group, sizeof set->all[i].name);
    settle(set);
    assert(set->count <= GROUPS_MAX);
    if (config->self != NULL)
        set->self = group_find(set, slice_str(config->self->group));
}

bool group_set_decode(struct group_set *set, struct slice names)
{
    struct mp m = mp_of(names);
    struct slice name;
    uint32_t count;
    *set = (struct group_set){.self = GROUPS_MAX};
    bool good = mp_array(&m, &count) && count > 0 && count <= GROUPS_MAX;
    if (!good)
        return false;
    set->all = xcalloc(count, sizeof *set->all);
    while (good && set->count < count) {
        good = mp_str(&m, &name) && name.len > 0 && name.len <= GROUP_NAME_MAX &&
               memchr(name.data, 0, name.len) == NULL;
        if (good)
            memcpy(set->all[set->count++].name, name.data, name.len);
    }
    if (good)
        settle(set);
    else
        group_set_free(set);
    return good;
}

void group_set_encode(const struct group_set *set, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, set->count);
    for (size_t i = 0; i < set->count; i++)
        mp_pack_cstr(&pk, set->all[i].name);
}

void group_set_free(struct group_set *set)
{
    free(set->all);
    *set = (struct group_set){.self = GROUPS_MAX};
}

size_t group_find(const struct group_set *set, struct slice name)
{
    for (size_t i = 0; i < set->count; i++)
        if (slice_is(name, set->all[i].name))
            return i;
    return GROUPS_MAX;
}

/* ---------------------------------------------------------------- what belongs where */

size_t group_of(const struct group_set *set, enum group_kind kind, struct slice name)
{
    size_t best = 0;
    uint64_t highest = 0;
    assert(set->count > 0);
    for (size_t i = 0; i < set->count && set->count > 1; i++) {
        uint64_t score = XXH3_64bits_withSeed(name.data, name.len, set->all[i].seeds[kind]);
        if (i > 0 && score <= highest)
            continue;
        best = i;
        highest = score;
    }
    return best;
}

bool group_name_of_entry(const struct entry *entry, enum group_kind *kind, struct slice *name)
{
    bool is_event = entry->kind == ENTRY_EVENT;
    *kind = is_event ? GROUP_STREAM : GROUP_KEY;
    *name = is_event ? entry->stream : entry->key;
    return entry->kind <= ENTRY_ADD && name->len > 0;
}

struct group_verdict group_verdict_begin(void)
{
    return (struct group_verdict){.group = GROUPS_MAX};
}

/* names[0], kinds[0]: of the last one that was looked at, since most entries of a frame are about the same
 * stream. */
void group_verdict_add(struct group_verdict *v, const struct group_set *set, const struct entry *entry)
{
    enum group_kind kind;
    struct slice name;
    if (v->is_split || !group_name_of_entry(entry, &kind, &name) ||
        (v->group != GROUPS_MAX && kind == v->kinds[0] && slice_equal(name, v->names[0])))
        return;
    size_t group = group_of(set, kind, name);
    v->is_split = v->group != GROUPS_MAX && group != v->group;
    unsigned place = v->is_split ? 1 : 0;
    v->kinds[place] = kind;
    v->names[place] = name;
    v->groups[place] = group;
    if (!v->is_split)
        v->group = group;
}

struct group_verdict group_of_entries(const struct group_set *set, struct slice body)
{
    struct group_verdict verdict = group_verdict_begin();
    struct mp m = mp_of(body);
    struct entry entry;
    uint32_t count;
    bool good = entries_open(&m, &count);
    for (uint32_t i = 0; good && i < count && !verdict.is_split; i++) {
        good = entry_next(&m, &entry) == SH_OK;
        if (good)
            group_verdict_add(&verdict, set, &entry);
    }
    return verdict;
}

/* ---------------------------------------------------------------- in words */

static bool is_shown(struct slice name)
{
    bool shown = name.len <= SHOWN_MAX;
    for (size_t i = 0; i < name.len && shown; i++)
        shown = name.data[i] >= ' ' && name.data[i] <= '~';
    return shown;
}

void group_name_text(enum group_kind kind, struct slice name, char *out, size_t size)
{
    const char *what = kind == GROUP_KEY ? "key" : "stream";
    if (is_shown(name))
        snprintf(out, size, "%s `%.*s`", what, (int)name.len, (const char *)name.data);
    else
        snprintf(out, size, "a %s of %zu bytes", what, name.len);
}

void group_split_text(const struct group_verdict *v, const struct group_set *set, char out[GROUP_TEXT_MAX])
{
    char one[SHOWN_MAX + 32], other[SHOWN_MAX + 32];
    assert(v->is_split);
    group_name_text(v->kinds[0], v->names[0], one, sizeof one);
    group_name_text(v->kinds[1], v->names[1], other, sizeof other);
    snprintf(out, GROUP_TEXT_MAX, "the keys belong to two groups: %s to `%s`, %s to `%s`", one,
             set->all[v->groups[0]].name, other, set->all[v->groups[1]].name);
}
