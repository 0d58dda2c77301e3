/* What the core keeps across a restart: the body of data/member. */
#include <stdio.h>
#include <string.h>

#include "member_parts.h"

static void save_members(const struct member_core *core, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, core->founded ? core->count : 0);
    for (uint32_t i = 0; core->founded && i < core->count; i++)
        mp_pack_raw(&pk, table_bytes(core->by_id[i]));
}

static void save_events(const struct member_core *core, struct buf *out)
{
    struct member_events range = core->event_range;
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, range.next - range.first);
    for (uint64_t n = range.first; n < range.next; n++)
        event_encode(core, n, out);
}

void member_core_save(const struct member_core *core, struct buf *out)
{
    struct buf members = {0}, events = {0};
    save_members(core, &members);
    save_events(core, &events);
    struct msg_member_state m = {
        .cluster = slice_of(core->cluster, sizeof core->cluster),
        .node = slice_str(core->id),
        .log = core->own.log,
        .founded = core->founded,
        .state = (uint64_t)member_core_self(core).state,
        .members = buf_slice(&members),
        .series = core->event_range.series,
        .next_event = core->event_range.next,
        .events = buf_slice(&events),
        .born_ms = core->own.born_ms,
    };
    msg_encode(MSG_member_state, &m, out);
    buf_free(&members);
    buf_free(&events);
}

/* ------------------------------------------------------------ loading */

static enum sh_error load_members(struct member_core *core, struct slice members)
{
    struct mp m = mp_of(members);
    uint32_t count;
    if (!mp_array(&m, &count) || count > MEMBER_RECORDS_MAX + 1)
        return SH_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        struct slice bytes;
        struct member_record r;
        if (!mp_raw(&m, &bytes) || member_decode(bytes, &r) != SH_OK || r.generation == 0 ||
            table_find(core, slice_str(r.id)) != NULL)
            return SH_CORRUPT;
        table_set(core, &r);
    }
    return mp_at_end(&m) ? SH_OK : SH_CORRUPT;
}

static enum sh_error load_events(struct member_core *core, const struct msg_member_state *state)
{
    struct mp m = mp_of(state->events);
    uint32_t count;
    if (!mp_array(&m, &count) || count > MEMBER_EVENTS_MAX || state->next_event <= count)
        return SH_CORRUPT;
    core->event_range =
        (struct member_events){state->series, state->next_event - count, state->next_event - count};
    for (uint32_t i = 0; i < count; i++) {
        struct slice bytes;
        struct member_event e;
        if (!mp_raw(&m, &bytes) || event_decode(bytes, &e) != SH_OK || e.number != core->event_range.next)
            return SH_CORRUPT;
        event_restore(core, &e);
    }
    return mp_at_end(&m) ? SH_OK : SH_CORRUPT;
}

/* Whose state it is. */
static enum sh_error check_owner(const struct member_core *core, const struct msg_member_state *state,
                                 struct id16 log, char text[MEMBER_TEXT_MAX])
{
    const char *what = NULL;
    if (!slice_equal(state->cluster, slice_of(core->cluster, sizeof core->cluster)))
        what = "it belongs to another cluster (another name, or other groups)";
    else if (!slice_is(state->node, core->id))
        what = "it belongs to another node";
    else if (!id16_equal(state->log, log))
        what = "it belongs to another log of this node";
    if (what == NULL)
        return SH_OK;
    snprintf(text, MEMBER_TEXT_MAX, "%s", what);
    return SH_CONFLICT;
}

/* As it left off, with an incarnation of its own, the boot of this process and what the topology file says of
 * it now. */
static enum sh_error load_own(struct member_core *core)
{
    struct member_record r;
    if (core->self == NULL)
        return SH_CORRUPT;
    table_unpack(core->self, &r);
    bool is_other = !id16_is_zero(r.log) && !id16_equal(r.log, core->own.log);
    core->has_left = r.status == MEMBER_LEFT;
    core->replaced = !core->has_left && (is_other || id16_equal(r.not_log, core->own.log));
    core->own.generation = r.generation;
    core->own.incarnation = merge_raised(r.incarnation);
    if (!core->replaced)
        core->own.not_log = r.not_log;
    return SH_OK;
}

enum sh_error state_load(struct member_core *core, struct id16 log, struct slice saved,
                         char text[MEMBER_TEXT_MAX])
{
    struct msg_member_state state;
    snprintf(text, MEMBER_TEXT_MAX, "it cannot be read");
    if (msg_decode(MSG_member_state, saved, &state) != SH_OK || state.cluster.len != CLUSTER_ID_BYTES)
        return SH_CORRUPT;
    enum sh_error e = check_owner(core, &state, log, text);
    if (e != SH_OK)
        return e;
    core->own.born_ms = state.born_ms;
    core->founded = state.founded;
    e = load_members(core, state.members);
    if (e == SH_OK)
        e = load_events(core, &state);
    if (e == SH_OK && core->founded)
        e = load_own(core);
    if (e == SH_OK)
        text[0] = 0;
    return e;
}
