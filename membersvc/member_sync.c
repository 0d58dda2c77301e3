/* Anti-entropy: two members compare their views, whatever gossip has lost.
 *
 *   A ── sync: hash of my view ──> B        each second heartbeat interval, to one by chance
 *   A <── summary: ids and hashes ── B      when B's hash is another one
 *   A ── gossip: mine that differ (reply), ids that I lack (want) ──> B
 *   A <── gossip: mine that are newer ── B
 *
 * A takes a summary only when it has asked for it, and nothing answers the last gossip: it ends there. */
#include <stdlib.h>
#include <string.h>

#include "member_parts.h"

enum { SYNC_INTERVALS = 2, SYNCS_TIMED = 5 };

void sync_tick(struct member_core *core)
{
    struct member *to;
    if (core->now.mono_ns < core->sync_due_ns)
        return;
    core->sync_due_ns = core->now.mono_ns + SYNC_INTERVALS * core->timing.heartbeat_ns -
                        (int64_t)core_random(core, (uint64_t)core->timing.heartbeat_ns / 5);
    if (!core_is_member(core) || ring_pick(core, NULL, 1, &to) == 0)
        return;
    struct address address = address_of(core, to);
    struct msg_sync m = {
        .from = buf_slice(&core->own_bytes), .wall_ms = wire_wall_ms(core), .hash = core->view_hash};
    memcpy(core->sync_with, to->id, strlen(to->id) + 1);
    wire_begin(core, MSG_sync);
    msg_encode(MSG_sync, &m, &core->message);
    out_send(core, &address, buf_slice(&core->message));
    if (core->syncs++ % SYNCS_TIMED == 0)
        probe_time(core, to);
}

void sync_send_summary(struct member_core *core, const struct address *to)
{
    msgpack_packer pk;
    core->array.len = 0;
    mp_packer(&pk, &core->array);
    msgpack_pack_array(&pk, core->count);
    for (uint32_t i = 0; i < core->count; i++) {
        msgpack_pack_array(&pk, 2);
        mp_pack_cstr(&pk, core->by_id[i]->id);
        msgpack_pack_uint64(&pk, core->by_id[i]->hash);
    }
    struct msg_summary m = {.from = buf_slice(&core->own_bytes),
                            .wall_ms = wire_wall_ms(core),
                            .entries = buf_slice(&core->array)};
    wire_begin(core, MSG_summary);
    msg_encode(MSG_summary, &m, &core->message);
    out_send(core, to, buf_slice(&core->message));
}

void sync_on_sync(struct member_core *core, struct member *from, uint64_t hash)
{
    struct address to = address_of(core, from);
    if (hash != core->view_hash && wire_may_answer(core, from, ANSWER_SUMMARY))
        sync_send_summary(core, &to);
}

bool sync_entry(struct mp *m, struct slice *id, uint64_t *hash, bool *bad)
{
    uint32_t parts;
    if (mp_at_end(m))
        return false;
    bool good = mp_array(m, &parts) && parts == 2 && mp_str(m, id) && mp_uint(m, hash);
    *bad = !good;
    return good;
}

/* Which records both have, by their place in the order of ids: each then needs looking at once only. */
static bool compare(struct member_core *core, struct chunks *c, struct mp m, bool *has)
{
    struct slice id;
    uint64_t hash;
    bool bad = false;
    while (sync_entry(&m, &id, &hash, &bad)) {
        const struct member *mine = table_find(core, id);
        if (mine == NULL) {
            chunks_add_want(c, id);
            continue;
        }
        uint32_t low = 0, high = core->count;
        while (low + 1 < high) {
            uint32_t middle = low + (high - low) / 2;
            *(strcmp(core->by_id[middle]->id, mine->id) <= 0 ? &low : &high) = middle;
        }
        has[low] = true;
        if (mine->hash != hash)
            chunks_add_member(c, table_bytes(mine));
    }
    return !bad;
}

void sync_on_summary(struct member_core *core, struct member *from, const struct msg_summary *summary)
{
    struct mp m = mp_of(summary->entries);
    uint32_t count;
    if (strcmp(core->sync_with, from->id) != 0)
        return;
    core->sync_with[0] = 0;
    if (!mp_array(&m, &count)) {
        gate_malformed(core, slice_str(from->id));
        return;
    }
    struct chunks c = {.core = core, .to = address_of(core, from), .reply = true};
    bool *has = xcalloc(core->count, sizeof *has);
    if (!compare(core, &c, m, has))
        gate_malformed(core, slice_str(from->id));
    for (uint32_t i = 0; i < core->count; i++)
        if (!has[i])
            chunks_add_member(&c, table_bytes(core->by_id[i]));
    chunks_end(&c);
    free(has);
}
