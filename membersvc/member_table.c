/* The table of members: found by a hash of the id, listed in the order of ids. A record is kept packed, and
 * the hash of the whole view is the sum over all records, so that it costs nothing to keep. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"
#include "member_parts.h"

static uint64_t place_of(struct slice id)
{
    return digest64(id);
}

static uint32_t home_of(const struct member_core *core, uint64_t place)
{
    return (uint32_t)(place & (core->table_cap - 1));
}

struct member *table_find(const struct member_core *core, struct slice id)
{
    if (core->table_cap == 0)
        return NULL;
    for (uint32_t i = home_of(core, place_of(id));; i = (i + 1) & (core->table_cap - 1)) {
        struct member *m = core->table[i];
        if (m == NULL || slice_is(id, m->id))
            return m;
    }
}

static void put_in_table(struct member_core *core, struct member *m)
{
    uint32_t i = home_of(core, m->place);
    while (core->table[i] != NULL)
        i = (i + 1) & (core->table_cap - 1);
    core->table[i] = m;
}

static void make_room(struct member_core *core)
{
    if (core->count < core->cap)
        return;
    core->cap = core->cap > 0 ? core->cap * 2 : 8;
    core->by_id = xrealloc(core->by_id, core->cap * sizeof(struct member *));
    core->ring = xrealloc(core->ring, core->cap * sizeof(struct member *));
    free(core->table);
    core->table_cap = core->cap * 2;
    core->table = xcalloc(core->table_cap, sizeof(struct member *));
    for (uint32_t i = 0; i < core->count; i++)
        put_in_table(core, core->by_id[i]);
}

/* Where in the order of ids it belongs. */
static uint32_t order_of(const struct member_core *core, const char *id)
{
    uint32_t low = 0, high = core->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (strcmp(core->by_id[middle]->id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct member *add(struct member_core *core, const char *id)
{
    make_room(core);
    size_t bytes = strlen(id) + 1;
    struct member *m = xcalloc(1, sizeof *m + bytes);
    memcpy(m->id, id, bytes);
    m->place = place_of(slice_str(id));
    m->heard_ns = m->direct_ns = m->alive_ns = NEVER;
    for (unsigned i = 0; i < ANSWERS; i++)
        m->answered_ns[i] = NEVER;
    for (unsigned i = 0; i < SETS; i++)
        m->slots[i] = NO_SLOT;
    uint32_t at = order_of(core, id);
    memmove(core->by_id + at + 1, core->by_id + at, (core->count - at) * sizeof(struct member *));
    core->by_id[at] = m;
    core->count++;
    put_in_table(core, m);
    return m;
}

/* The bytes, and where in them the host stands: messages go there without unpacking the rest. */
static void pack(struct member_core *core, struct member *m, const struct member_record *r)
{
    core->record.len = 0;
    member_encode(r, &core->record);
    assert(core->record.len <= UINT16_MAX);
    m->record = xrealloc(m->record, core->record.len);
    memcpy(m->record, core->record.data, core->record.len);
    m->record_bytes = (uint16_t)core->record.len;
    struct msg_member fields;
    enum sh_error e = msg_decode(MSG_member, table_bytes(m), &fields);
    assert(e == SH_OK);
    m->host_at = (uint16_t)(fields.host.data - m->record);
    m->host_bytes = (uint16_t)fields.host.len;
}

static void place_in_sets(struct member_core *core, struct member *m, const struct member_record *r)
{
    bool is_there = m->bound && r->status != MEMBER_DOWN && r->status != MEMBER_LEFT && r->generation > 0;
    bool is_mate = is_there && m != core->self && strcmp(r->group, core->own.group) == 0;
    bool is_tried = !is_there && r->status != MEMBER_LEFT && r->generation > 0 && m != core->self;
    if (is_there && !m->on_ring)
        ring_add(core, m);
    if (!is_there && m->on_ring)
        ring_remove(core, m);
    (is_mate ? set_add : set_remove)(core, SET_MATES, m);
    (is_tried ? set_add : set_remove)(core, SET_TRIED, m);
}

/* What was known of another identity, or of an earlier generation, says nothing of this one. */
static void forget_past(struct member *m)
{
    free(m->marks);
    m->marks = NULL;
    m->mark_count = 0;
    m->holdings = 0;
    m->unreachable = m->drifting = false;
}

struct member *table_set(struct member_core *core, const struct member_record *r)
{
    struct member *m = table_find(core, slice_str(r->id));
    bool is_new = m == NULL;
    if (is_new)
        m = add(core, r->id);
    bool was_live = !is_new && m->status != MEMBER_LEFT;
    if (m->bound && (m->generation != r->generation || !id16_equal(m->log, r->log)))
        forget_past(m);
    core->view_hash -= m->hash;
    pack(core, m, r);
    m->hash = digest64(table_bytes(m)); /* member_hash: the bytes are there already */
    core->view_hash += m->hash;
    if (!is_new && (r->incarnation > m->incarnation || r->generation > m->generation))
        m->alive_ns = core->awake_ns; /* nobody but the member itself raises it */
    m->status = (uint8_t)r->status;
    m->port = r->port;
    m->generation = r->generation;
    m->incarnation = r->incarnation;
    m->bound = !id16_is_zero(r->log);
    m->log = r->log;
    m->boot = r->boot;
    m->not_log = r->not_log;
    core->live_count += (r->status != MEMBER_LEFT) - was_live;
    if (strcmp(r->id, core->id) == 0)
        core->self = m;
    place_in_sets(core, m, r);
    core->version++;
    return m;
}

void table_unpack(const struct member *m, struct member_record *out)
{
    enum sh_error e = member_decode(table_bytes(m), out);
    assert(e == SH_OK);
}

struct slice table_bytes(const struct member *m)
{
    return slice_of(m->record, m->record_bytes);
}

struct slice table_host(const struct member *m)
{
    return slice_of(m->record + m->host_at, m->host_bytes);
}

void table_clear(struct member_core *core)
{
    for (uint32_t i = 0; i < core->count; i++) {
        free(core->by_id[i]->record);
        free(core->by_id[i]->marks);
        free(core->by_id[i]);
    }
    if (core->table_cap > 0)
        memset(core->table, 0, core->table_cap * sizeof(struct member *));
    for (unsigned i = 0; i < SETS; i++)
        core->sets[i].count = 0;
    core->count = core->ring_count = core->live_count = core->watch_count = 0;
    core->view_hash = 0;
    core->self = core->news_first = core->news_last = NULL;
    core->ring_changed = true;
}
