/* The answer to wal_info. Nothing here is fatal. */
#include "wal_upkeep.h"

#include <stdlib.h>

/* As messages.def says. */
enum { FLAG_SEALED = 1, FLAG_DUE = 2, FLAG_DAMAGED = 4, FLAG_UNMARKED = 8 };

static void pack_segment(msgpack_packer *pk, const struct wal_segment *s, bool is_due, uint64_t mark_end)
{
    unsigned flags = s->next_lsn != 0 ? FLAG_SEALED : 0;
    flags |= is_due ? FLAG_DUE : 0;
    flags |= s->damaged ? FLAG_DAMAGED : 0;
    flags |= s->next_lsn != 0 && !wal_segment_is_marked(s, mark_end) ? FLAG_UNMARKED : 0;
    msgpack_pack_array(pk, 6);
    msgpack_pack_uint64(pk, s->base_lsn);
    msgpack_pack_uint64(pk, s->next_lsn);
    msgpack_pack_uint64(pk, s->position);
    msgpack_pack_uint64(pk, s->bytes);
    msgpack_pack_uint64(pk, (uint64_t)s->last_ns);
    msgpack_pack_uint64(pk, flags);
}

/* Returns the base LSN to go on from, 0 for none. */
static uint64_t pack_segments(const struct wal_catalog *c, uint64_t from, size_t due, struct buf *out)
{
    msgpack_packer pk;
    size_t first = 0;
    mp_packer(&pk, out);
    while (first < c->count && c->all[first].base_lsn < from)
        first++;
    size_t count = c->count - first < WAL_INFO_SEGMENTS ? c->count - first : WAL_INFO_SEGMENTS;
    msgpack_pack_array(&pk, count);
    for (size_t i = first; i < first + count; i++)
        pack_segment(&pk, &c->all[i], i < due, c->mark_end);
    return first + count < c->count ? c->all[first + count].base_lsn : 0;
}

static void pack_holds(const struct wal_holds *holds, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, holds->count);
    for (size_t i = 0; i < holds->count; i++) {
        const struct wal_hold *hold = &holds->all[i];
        msgpack_pack_array(&pk, 6);
        msgpack_pack_uint64(&pk, hold->kind);
        mp_pack_cstr(&pk, hold->name);
        msgpack_pack_uint64(&pk, hold->lsn);
        msgpack_pack_uint64(&pk, (uint64_t)hold->expires_ns);
        hold->broken ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk);
        msgpack_pack_uint64(&pk, hold->kept_bytes);
    }
}

static void pack_damages(const struct wal_upkeep *u, struct buf *out)
{
    msgpack_packer pk;
    char file[SEGMENT_NAME_MAX];
    size_t count;
    struct log_damage_range *ranges = wal_damage_list(u->options.damage, &count);
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        segment_name(ranges[i].base_lsn, file);
        msgpack_pack_array(&pk, 9);
        mp_pack_cstr(&pk, file);
        msgpack_pack_uint64(&pk, ranges[i].offset);
        msgpack_pack_uint64(&pk, ranges[i].bytes);
        msgpack_pack_uint64(&pk, ranges[i].first_lsn);
        msgpack_pack_uint64(&pk, ranges[i].next_lsn);
        msgpack_pack_uint64(&pk, (uint64_t)ranges[i].found_ns);
        msgpack_pack_uint64(&pk, (uint64_t)ranges[i].accepted_ns);
        mp_pack_cstr(&pk, ranges[i].copy);
        ranges[i].differs ? msgpack_pack_true(&pk) : msgpack_pack_false(&pk);
    }
    free(ranges);
}

static void fill_scrub(const struct wal_upkeep *u, struct msg_wal_info_reply *reply)
{
    const struct wal_catalog *c = &u->catalog;
    const struct wal_rounds *r = &u->rounds;
    uint64_t at = wal_rounds_position(r);
    reply->scrub_rate = r->rate;
    reply->scrub_interval = (uint64_t)r->interval_ns;
    reply->scrubbing = r->next_lsn != 0;
    reply->scrub_last = (uint64_t)r->last_ns;
    reply->scrub_damages = r->damages;
    if (c->count > 1) {
        reply->scrub_total = c->all[c->count - 1].position - c->all[0].position;
        reply->scrub_done = at > c->all[0].position ? at - c->all[0].position : 0;
    }
}

static void fill_disk(const struct wal_upkeep *u, struct msg_wal_info_reply *reply)
{
    const struct vfs *fs = u->options.fs;
    if (fs->free_bytes(fs, u->options.dir, &reply->disk_free) < 0)
        reply->disk_free = 0;
    if (fs->total_bytes(fs, u->options.dir, &reply->disk_total) < 0)
        reply->disk_total = 0;
    reply->disk_reserve = wal_disk_reserve(fs, u->options.dir, u->options.settings.disk_reserve);
    reply->next_segment = u->next;
}

void wal_upkeep_info(struct wal_upkeep *u, const struct msg_wal_info *ask, struct wal_upkeep_time now,
                     struct buf *answer)
{
    struct wal_retention rules = wal_upkeep_rules(u);
    const struct wal_catalog *c = &u->catalog;
    struct buf segments = {0}, holds = {0}, damages = {0};
    size_t due = wal_retention_due(c->all, c->count, &rules, c->mark_end, now.real_ns - u->ahead_ns);
    wal_holds_expire(&u->holds, now.real_ns);
    struct msg_wal_info_reply reply = {
        .log = u->options.log,
        .next = pack_segments(c, ask->from, due, &segments),
        .retention_bytes = rules.bytes,
        .retention_age = (uint64_t)rules.age_ns,
        .member_hold_max = rules.member_hold_max,
        .closed = u->gone.is_gone,
    };
    pack_holds(&u->holds, &holds);
    pack_damages(u, &damages);
    fill_scrub(u, &reply);
    fill_disk(u, &reply);
    reply.segments = buf_slice(&segments);
    reply.holds = buf_slice(&holds);
    reply.damages = buf_slice(&damages);
    msg_encode(MSG_wal_info_reply, &reply, answer);
    buf_free(&segments);
    buf_free(&holds);
    buf_free(&damages);
}
