/* News: records that changed go to a few members by chance, again and again, until all are likely to have
 * them; heartbeats, and the watermarks that ride on them. */
#include <stdlib.h>
#include <string.h>

#include "member_parts.h"

enum { GOSSIP_MS = 200, GOSSIP_PARTS = 5 };

/* ------------------------------------------------------------ news, the least sent first */

void gossip_drop(struct member_core *core, struct member *m)
{
    if (m->news_left == 0)
        return;
    *(m->news_before != NULL ? &m->news_before->news_behind : &core->news_first) = m->news_behind;
    *(m->news_behind != NULL ? &m->news_behind->news_before : &core->news_last) = m->news_before;
    m->news_before = m->news_behind = NULL;
    m->news_left = 0;
}

/* 4·log2(N + 1). */
static uint16_t times(const struct member_core *core)
{
    uint32_t n = core->ring_count + 1;
    uint16_t log = 1;
    while (n >> log != 0)
        log++;
    return (uint16_t)(4 * log);
}

static void put_last(struct member_core *core, struct member *m, uint16_t left)
{
    m->news_left = left;
    m->news_before = core->news_last;
    m->news_behind = NULL;
    *(core->news_last != NULL ? &core->news_last->news_behind : &core->news_first) = m;
    core->news_last = m;
}

void gossip_news(struct member_core *core, struct member *m)
{
    gossip_drop(core, m);
    m->news_left = times(core);
    m->news_before = NULL;
    m->news_behind = core->news_first;
    *(core->news_first != NULL ? &core->news_first->news_before : &core->news_last) = m;
    core->news_first = m;
}

void gossip_seen(struct member_core *core, struct member *m)
{
    if (m->news_left > 1)
        m->news_left--;
    else
        gossip_drop(core, m);
}

/* As many as fit; what was sent goes to the end, so that the front has been sent the least. */
static struct slice collect(struct member_core *core, uint32_t copies)
{
    struct buf values = {0};
    uint32_t count = 0;
    struct member *last = core->news_last, *m = core->news_first;
    while (m != NULL && values.len + m->record_bytes <= CHUNK_MAX) {
        buf_append(&values, m->record, m->record_bytes);
        count++;
        bool is_last = m == last;
        uint16_t left = m->news_left > copies ? (uint16_t)(m->news_left - copies) : 0;
        struct member *next = m->news_behind;
        gossip_drop(core, m);
        if (left > 0)
            put_last(core, m, left);
        m = is_last ? NULL : next;
    }
    core->array.len = 0;
    msgpack_packer pk;
    mp_packer(&pk, &core->array);
    msgpack_pack_array(&pk, count);
    buf_append(&core->array, values.data, values.len);
    buf_free(&values);
    return count > 0 ? buf_slice(&core->array) : slice_of(NULL, 0);
}

static void send_news(struct member_core *core)
{
    struct member *to[FANOUT];
    uint32_t count = ring_pick(core, NULL, FANOUT, to);
    if (count == 0)
        return;
    struct msg_gossip m = {.from = buf_slice(&core->own_bytes), .wall_ms = wire_wall_ms(core)};
    m.members = collect(core, count);
    wire_begin(core, MSG_gossip);
    msg_encode(MSG_gossip, &m, &core->message);
    for (uint32_t i = 0; i < count; i++) {
        struct address address = address_of(core, to[i]);
        out_send(core, &address, buf_slice(&core->message));
    }
}

/* ------------------------------------------------------------ watermarks */

static void send_marks(struct member_core *core)
{
    struct member_set *mates = &core->sets[SET_MATES];
    core->marks_moved = false;
    if (mates->count == 0)
        return;
    struct msg_gossip m = {.from = buf_slice(&core->own_bytes), .wall_ms = wire_wall_ms(core)};
    m.watermarks = wire_marks(core);
    m.holdings = core->holdings;
    wire_begin(core, MSG_gossip);
    msg_encode(MSG_gossip, &m, &core->message);
    uint32_t most = mates->count <= MATES_MAX ? mates->count : FANOUT;
    uint32_t at = (uint32_t)core_random(core, mates->count);
    for (uint32_t i = 0; i < most; i++) {
        struct address address = address_of(core, mates->at[(at + i) % mates->count]);
        out_send(core, &address, buf_slice(&core->message));
    }
}

static void take_mark(struct member *m, const struct member_watermark *mark)
{
    for (unsigned i = 0; i < m->mark_count; i++) {
        if (!id16_equal(m->marks[i].log, mark->log))
            continue;
        if (mark->lsn >= m->marks[i].lsn) /* messages may overtake each other */
            m->marks[i] = *mark;
        return;
    }
    if (m->mark_count == MEMBER_WATERMARKS_MAX)
        return;
    m->marks = xrealloc(m->marks, (m->mark_count + 1u) * sizeof *m->marks);
    m->marks[m->mark_count++] = *mark;
}

/* What it said before it gave a log up does not bring that back, however late it comes. False: this is such.
 */
static bool take_holdings(struct member *m, uint64_t holdings)
{
    uint64_t known = id16_equal(m->boot, m->holdings_boot) ? m->holdings : 0;
    if (holdings < known)
        return false;
    if (holdings > known)
        m->mark_count = 0;
    m->holdings = holdings;
    m->holdings_boot = m->boot;
    return true;
}

void gossip_take_marks(struct member_core *core, struct member *m, struct slice marks, uint64_t holdings)
{
    struct mp p = mp_of(marks);
    uint32_t count, parts;
    if (marks.len == 0 || !take_holdings(m, holdings))
        return;
    bool good = mp_array(&p, &count);
    for (uint32_t i = 0; good && i < count; i++) {
        struct member_watermark mark;
        struct slice log;
        good = mp_array(&p, &parts) && parts == 3 && mp_bin(&p, &log) && log.len == sizeof mark.log &&
               mp_uint(&p, &mark.lsn) && mp_uint(&p, &mark.end);
        if (!good)
            break;
        memcpy(mark.log.bytes, log.data, log.len);
        take_mark(m, &mark);
    }
    if (!good)
        gate_malformed(core, slice_str(m->id));
}

/* ------------------------------------------------------------ rounds */

void gossip_tick(struct member_core *core)
{
    if (core->now.mono_ns < core->gossip_due_ns)
        return;
    int64_t round_ns = GOSSIP_MS * (int64_t)NS_PER_MS, part_ns = core->timing.heartbeat_ns / GOSSIP_PARTS;
    bool is_idle = core->news_first == NULL && !core->marks_moved;
    if (is_idle)
        return;
    core->gossip_due_ns = core->now.mono_ns + (part_ns < round_ns ? part_ns : round_ns);
    if (core->news_first != NULL)
        send_news(core);
    if (core->marks_moved && core_is_member(core))
        send_marks(core);
    core->marks_moved = false;
}

/* Its observers, the members of its group, and by chance those that nobody expects to be there: so that each
 * of them is tried about five times an interval by all together. */
void gossip_heartbeats(struct member_core *core)
{
    struct member *to[OBSERVERS_MAX];
    struct slice message = wire_heartbeat(core, core->asks_next || core->alone, true);
    const struct member_set *mates = &core->sets[SET_MATES], *tried = &core->sets[SET_TRIED];
    uint32_t count = core->self != NULL ? ring_observers(core, core->self, to) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct address address = address_of(core, to[i]);
        out_send(core, &address, message);
    }
    for (uint32_t i = 0; i < mates->count && mates->count <= MATES_MAX; i++) {
        bool is_done = false;
        for (uint32_t k = 0; k < count; k++)
            is_done = is_done || to[k] == mates->at[i];
        struct address address = address_of(core, mates->at[i]);
        if (!is_done)
            out_send(core, &address, message);
    }
    core->asks_next = false;
    message = wire_heartbeat(core, true, false);
    count = core->alone ? ring_pick(core, NULL, TRIES, to) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct address address = address_of(core, to[i]);
        out_send(core, &address, message);
    }
    uint32_t tries = core->ring_count > 0 ? core->ring_count : 1;
    for (uint32_t i = 0; i < tried->count; i++) {
        struct address address = address_of(core, tried->at[i]);
        if (core_random(core, tries) < TRIES)
            out_send(core, &address, message);
    }
}

/* ------------------------------------------------------------ what comes in */

void gossip_answer_want(struct member_core *core, const struct address *to, struct slice want)
{
    struct mp p = mp_of(want);
    struct chunks c = {.core = core, .to = *to};
    uint32_t count;
    struct slice id;
    if (want.len == 0 || !mp_array(&p, &count))
        return;
    for (uint32_t i = 0; i < count && i < MEMBER_RECORDS_MAX && mp_str(&p, &id); i++) {
        const struct member *m = table_find(core, id);
        if (m != NULL && m->generation > 0)
            chunks_add_member(&c, table_bytes(m));
    }
    chunks_end(&c);
}

/* Of the records that came, those that are newer here. Not an answer that is answered. */
static void answer_newer(struct member_core *core, const struct address *to, struct slice members)
{
    struct mp p = mp_of(members);
    struct chunks c = {.core = core, .to = *to};
    uint32_t count;
    struct slice bytes;
    if (!mp_array(&p, &count))
        return;
    for (uint32_t i = 0; i < count && mp_raw(&p, &bytes); i++) {
        struct member_record r;
        const struct member *m = member_decode(bytes, &r) == SH_OK ? table_find(core, slice_str(r.id)) : NULL;
        if (m != NULL && !slice_equal(bytes, table_bytes(m))) /* merged before: what differs is newer */
            chunks_add_member(&c, table_bytes(m));
    }
    chunks_end(&c);
}

void gossip_on_gossip(struct member_core *core, struct member *from, const struct msg_gossip *gossip)
{
    found_on_members(core, from->id, gossip->members);
    if (!gate_take_members(core, gossip->members)) {
        gate_malformed(core, slice_str(from->id));
        return;
    }
    if (!from->drifting)
        gossip_take_marks(core, from, gossip->watermarks, gossip->holdings);
    if (!core_is_member(core))
        return;
    struct address to = address_of(core, from);
    if (gossip->reply)
        answer_newer(core, &to, gossip->members);
    gossip_answer_want(core, &to, gossip->want);
}
