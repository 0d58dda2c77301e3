/* Messages that go out: envelope, the own record in each, and what several kinds of them share. */
#include <string.h>

#include "member_parts.h"

bool member_text(char *out, size_t size, struct slice text)
{
    if (text.len >= size || (text.len > 0 && memchr(text.data, 0, text.len) != NULL))
        return false;
    if (text.len > 0)
        memcpy(out, text.data, text.len);
    out[text.len] = 0;
    return true;
}

uint64_t wire_wall_ms(const struct member_core *core)
{
    return core->now.wall_ms > 0 ? (uint64_t)core->now.wall_ms : 0;
}

void wire_begin(struct member_core *core, uint32_t type)
{
    struct msg_envelope e = {.type = type,
                             .cluster = slice_of(core->cluster, sizeof core->cluster),
                             .sender = slice_str(core->id),
                             .session = core->boot};
    core->message.len = 0;
    msg_pack_envelope(&core->message, &e);
}

struct slice wire_marks(struct member_core *core)
{
    if (core->mark_count == 0)
        return slice_of(NULL, 0);
    msgpack_packer pk;
    core->array.len = 0;
    mp_packer(&pk, &core->array);
    msgpack_pack_array(&pk, core->mark_count);
    for (size_t i = 0; i < core->mark_count; i++) {
        msgpack_pack_array(&pk, 3);
        mp_pack_bin(&pk, slice_of(core->marks[i].log.bytes, sizeof core->marks[i].log.bytes));
        msgpack_pack_uint64(&pk, core->marks[i].lsn);
        msgpack_pack_uint64(&pk, core->marks[i].end);
    }
    return buf_slice(&core->array);
}

struct slice wire_heartbeat(struct member_core *core, bool answer, bool news)
{
    struct msg_heartbeat m = {.from = buf_slice(&core->own_bytes),
                              .wall_ms = wire_wall_ms(core),
                              .founded = core->founded,
                              .list = core->founded ? 0 : core->list,
                              .answer = answer};
    if (news) {
        m.watermarks = wire_marks(core);
        m.holdings = core->holdings;
    }
    wire_begin(core, MSG_heartbeat);
    msg_encode(MSG_heartbeat, &m, &core->message);
    return buf_slice(&core->message);
}

void wire_send_heartbeat(struct member_core *core, const struct address *to, bool answer, bool news)
{
    out_send(core, to, wire_heartbeat(core, answer, news));
}

void wire_send_record(struct member_core *core, const struct address *to, const struct member *about)
{
    struct chunks c = {.core = core, .to = *to};
    chunks_add_member(&c, table_bytes(about));
    chunks_end(&c);
}

/* Only to the address that the own records have: whoever is there learns why it isn't heard, or sees by the
 * session that it is meant for another. */
void wire_send_refused(struct member_core *core, const struct member *to, enum sh_error code,
                       struct id16 session, const char *text)
{
    struct address address = address_of(core, to);
    struct msg_refused m = {.code = (uint64_t)code,
                            .text = slice_str(text),
                            .boot = session,
                            .cluster = slice_str(core->cluster_name)};
    wire_begin(core, MSG_refused);
    msg_encode(MSG_refused, &m, &core->message);
    out_send(core, &address, buf_slice(&core->message));
}

bool wire_may_answer(struct member_core *core, struct member *m, enum answer kind)
{
    int64_t apart_ns = kind == ANSWER_REFUSED ? core->timing.heartbeat_ns : core_probe_ns(core);
    if (core->now.mono_ns - m->answered_ns[kind] < apart_ns)
        return false;
    m->answered_ns[kind] = core->now.mono_ns;
    return true;
}

/* ------------------------------------------------------------ records in chunks */

/* The head of an array of 16 bits' count, filled in when it is known. */
static void pack_array(struct buf *out, uint32_t count, const struct buf *values)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    buf_append(out, values->data, values->len);
}

static void send_chunk(struct chunks *c)
{
    struct member_core *core = c->core;
    if (c->member_count == 0 && c->want_count == 0)
        return;
    struct msg_gossip m = {.from = buf_slice(&core->own_bytes),
                           .wall_ms = wire_wall_ms(core),
                           .reply = c->reply && c->member_count > 0};
    struct buf members = {0}, want = {0};
    if (c->member_count > 0)
        pack_array(&members, c->member_count, &c->members);
    if (c->want_count > 0)
        pack_array(&want, c->want_count, &c->want);
    m.members = buf_slice(&members);
    m.want = buf_slice(&want);
    wire_begin(core, MSG_gossip);
    msg_encode(MSG_gossip, &m, &core->message);
    out_send(core, &c->to, buf_slice(&core->message));
    buf_free(&members);
    buf_free(&want);
    c->members.len = c->want.len = 0;
    c->member_count = c->want_count = 0;
}

void chunks_add_member(struct chunks *c, struct slice record)
{
    if (c->members.len + c->want.len + record.len > CHUNK_MAX)
        send_chunk(c);
    buf_append(&c->members, record.data, record.len);
    c->member_count++;
}

void chunks_add_want(struct chunks *c, struct slice id)
{
    if (c->members.len + c->want.len + id.len + 2 > CHUNK_MAX)
        send_chunk(c);
    msgpack_packer pk;
    mp_packer(&pk, &c->want);
    mp_pack_str(&pk, id);
    c->want_count++;
}

void chunks_end(struct chunks *c)
{
    send_chunk(c);
    buf_free(&c->members);
    buf_free(&c->want);
}
