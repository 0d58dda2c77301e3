/* Messages that come in, and who may speak: everything is checked in the order of the table in
 * docs/cluster-protocol.md before anything of it is taken. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "member_parts.h"

/* All but `refused` begin with the same two fields. */
union any_message {
    struct {
        bool none;
        struct slice from;
        uint64_t wall_ms;
    } common;
    struct msg_heartbeat heartbeat;
    struct msg_probe probe;
    struct msg_probe_ack probe_ack;
    struct msg_gossip gossip;
    struct msg_sync sync;
    struct msg_summary summary;
    struct msg_opinion opinion;
    struct msg_refused refused;
};
_Static_assert(offsetof(struct msg_heartbeat, from) == offsetof(union any_message, common.from) &&
                   offsetof(struct msg_opinion, wall_ms) == offsetof(union any_message, common.wall_ms),
               "from and wall_ms come first");

/* Who speaks. */
struct speaker {
    struct member *m;
    struct member_record from;
    bool is_same;   /* its record is the one that is known; `from` is not filled in */
    bool is_drifty; /* its clock is too far away: what it says of time, and of the silence of others, is not
                       taken */
    struct id16 session;
};

void gate_malformed(struct member_core *core, struct slice sender)
{
    core->counters.malformed++;
    bool good = sender.len > 0 && sender.len <= CONFIG_ID_MAX && utf8_valid(sender);
    out_notice(core, LOG_WARN, "malformed", good ? sender : slice_str(""), "message is malformed: ignored",
               "malformed");
}

/* ------------------------------------------------------------ envelopes */

static void refuse(struct member_core *core, const struct msg_envelope *e, enum sh_error code,
                   const char *text)
{
    struct member *m = table_find(core, e->sender);
    if (m == NULL || m == core->self || e->type == MSG_refused || id16_is_zero(e->session))
        return;
    if (wire_may_answer(core, m, ANSWER_REFUSED))
        wire_send_refused(core, m, code, e->session, text);
}

static bool is_ours(struct member_core *core, const struct msg_envelope *e)
{
    if (slice_equal(e->cluster, slice_of(core->cluster, sizeof core->cluster)))
        return true;
    core->counters.other_cluster++;
    out_notice(core, LOG_WARN, "other_cluster", e->sender, "message of another cluster: ignored",
               "other_cluster");
    refuse(core, e, SH_BAD_REQUEST, "the sender belongs to another cluster: names or groups differ");
    return false;
}

static void on_other_version(struct member_core *core, const struct msg_envelope *e)
{
    core->counters.other_version++;
    out_notice(core, LOG_WARN, "other_version", e->sender, "message of another protocol version: ignored",
               "other_version, ours is %d", MSG_VERSION);
    refuse(core, e, SH_VERSION_MISMATCH, "the sender speaks another version of the protocol");
}

static void on_refused(struct member_core *core, const struct msg_envelope *e)
{
    struct msg_refused m;
    char text[MEMBER_TEXT_MAX], cluster[CONFIG_ID_MAX + 1];
    bool good =
        msg_decode(MSG_refused, e->body, &m) == SH_OK && id16_equal(m.boot, core->boot) &&
        utf8_valid(m.text) && utf8_valid(m.cluster) &&
        member_text(text, sizeof text, m.text.len < sizeof text ? m.text : slice_of(m.text.data, 511)) &&
        member_text(cluster, sizeof cluster, m.cluster);
    if (!good) {
        gate_malformed(core, e->sender);
        return;
    }
    core->counters.refusals++;
    out_notice(core, LOG_ERROR, "refused", e->sender, "a member refuses our messages",
               "%s (%s; its cluster: %s)", text, sh_error_name((enum sh_error)m.code), cluster);
    if (m.code == SH_CONFLICT)
        found_on_refused(core, e->sender, text);
}

/* ------------------------------------------------------------ senders */

/* The sender is told what is known of it, at the address that it has now, unless another has that id for
 * certain. */
static void answer_record(struct member_core *core, const struct speaker *s)
{
    struct address to = address_of(core, s->m);
    bool may_be_it = !s->is_same && (!s->m->bound || id16_equal(s->from.log, s->m->log) ||
                                     id16_equal(s->from.log, s->m->not_log));
    if (may_be_it) {
        to.host = slice_str(s->from.host);
        to.port = s->from.port;
    }
    if (wire_may_answer(core, s->m, ANSWER_RECORD))
        wire_send_record(core, &to, s->m);
}

static bool refuse_identity(struct member_core *core, const struct speaker *s)
{
    char log[ID_TEXT];
    id16_format(s->from.log, log);
    core->counters.other_identity++;
    out_notice(core, LOG_ERROR, "other_identity", slice_str(s->m->id),
               "a node with the id of a member has another identity: ignored",
               "log %s at %s:%u; if it is to take that place: node join %s --replace", log, s->from.host,
               (unsigned)s->from.port, s->m->id);
    if (wire_may_answer(core, s->m, ANSWER_REFUSED))
        wire_send_refused(
            core, s->m, SH_CONFLICT, s->session,
            "a member with this id has another identity (another log): `node join ID --replace` "
            "on a member lets this node take its place");
    return false;
}

/* It says that it took a member's place, which others must say first: no alarm for the one, and nothing
 * taken. */
static bool refuse_unheard(struct member_core *core, const struct speaker *s)
{
    core->counters.other_identity++;
    out_notice(core, LOG_INFO, "unheard", slice_str(s->m->id),
               "a node says that it took the place of a member, which is not known here yet: ignored",
               "generation %llu at %s:%u", (unsigned long long)s->from.generation, s->from.host,
               (unsigned)s->from.port);
    return false;
}

static bool refuse_stranger(struct member_core *core, struct slice sender, const struct speaker *s)
{
    core->counters.not_member++;
    bool left = s->m != NULL;
    out_notice(core, LOG_WARN, "not_member", sender,
               left ? "message of a node that has left: ignored"
                    : "message of a node that isn't a member: ignored",
               "not_member");
    if (left)
        answer_record(core, s);
    return false;
}

static bool refuse_stale(struct member_core *core, const struct speaker *s)
{
    core->counters.stale++;
    out_notice(core, LOG_INFO, "stale", slice_str(s->m->id),
               "message of an earlier life of a member: ignored", "generation %llu, incarnation %llu",
               (unsigned long long)s->from.generation, (unsigned long long)s->from.incarnation);
    answer_record(core, s);
    return false;
}

/* Our own id, from elsewhere. */
static bool refuse_self(struct member_core *core, const struct speaker *s)
{
    core->counters.other_identity++;
    out_notice(core, LOG_ERROR, "other_identity", slice_str(core->id),
               "another node speaks with the id of this one: ignored", "at %s:%u", s->from.host,
               (unsigned)s->from.port);
    return false;
}

/* An earlier life, or one that began when it had forgotten all that was before: what it says is of another
 * cluster, perhaps. */
static bool is_earlier(const struct member *m, const struct member_record *r)
{
    struct member_record known;
    table_unpack(m, &known);
    return r->incarnation < m->incarnation || (m->bound && r->born_ms > known.born_ms);
}

/* Whether the record that it speaks with is one of the member that we know. */
static bool is_known(struct member_core *core, const struct speaker *s)
{
    const struct member *m = s->m;
    const struct member_record *r = &s->from;
    if (m == core->self)
        return refuse_self(core, s);
    if (merge_is_leap(m, r)) {
        gate_malformed(core, slice_str(m->id));
        return false;
    }
    bool is_guest = r->generation == 0; /* a node that isn't founded: it only asks */
    bool is_it = m->bound ? id16_equal(r->log, m->log) : !id16_equal(r->log, m->not_log);
    if (m->status == MEMBER_LEFT && r->generation <= m->generation) {
        refuse_stranger(core, slice_str(m->id), s);
        return is_guest && is_it; /* it learns that it left as others learn who is there */
    }
    if (r->generation > m->generation)
        return is_it || refuse_unheard(core, s);
    if (r->generation < m->generation && !is_guest)
        return refuse_stale(core, s);
    if (!is_it)
        return refuse_identity(core, s);
    if (!is_guest && !id16_equal(r->boot, m->boot) && is_earlier(m, r))
        return refuse_stale(core, s);
    return true;
}

static void note_clock(struct member_core *core, struct speaker *s, uint64_t wall_ms)
{
    int64_t theirs = wall_ms > INT64_MAX ? INT64_MAX : (int64_t)wall_ms;
    int64_t ours = core->now.wall_ms > 0 ? core->now.wall_ms : 0; /* both ≥ 0: no overflow */
    s->m->ahead_ms = theirs - ours;
    uint64_t apart = (uint64_t)(s->m->ahead_ms < 0 ? -s->m->ahead_ms : s->m->ahead_ms);
    s->is_drifty = apart > core->timing.drift_ms;
    core->counters.clock_drift += s->is_drifty;
    if (s->is_drifty == s->m->drifting)
        return;
    s->m->drifting = s->is_drifty;
    char text[64];
    snprintf(text, sizeof text, "%lld ms ahead of ours", (long long)s->m->ahead_ms);
    event_add(core, s->is_drifty ? MEMBER_EVENT_CLOCK_DRIFT : MEMBER_EVENT_CLOCK_GOOD, s->m, text);
}

/* Fills in who speaks; false: the message is not to be taken. */
static bool may_speak(struct member_core *core, const struct msg_envelope *e,
                      const union any_message *message, struct speaker *s)
{
    struct slice from = message->common.from;
    s->m = table_find(core, e->sender);
    s->session = e->session;
    s->is_same = s->m != NULL && s->m != core->self && s->m->bound && slice_equal(from, table_bytes(s->m));
    if (s->is_same && s->m->status == MEMBER_LEFT)
        return refuse_stranger(core, e->sender, s);
    if (!s->is_same && (member_decode(from, &s->from) != SH_OK || !slice_is(e->sender, s->from.id) ||
                        id16_is_zero(s->from.log))) {
        gate_malformed(core, e->sender);
        return false;
    }
    if (s->m == NULL && core->founded) {
        refuse_stranger(core, e->sender, s);
        found_on_stranger(core, e->type, &s->from, message);
        return false;
    }
    if (!core->founded)
        return true;
    if (!s->is_same && !is_known(core, s)) {
        if (s->m != core->self && s->from.generation > s->m->generation)
            found_on_stranger(core, e->type, &s->from, message); /* all others may have been replaced, too */
        return false;
    }
    note_clock(core, s, message->common.wall_ms);
    return true;
}

/* What it says of itself. False: nothing else of the message is taken. */
static bool take_from(struct member_core *core, const struct speaker *s)
{
    struct member *m = s->m;
    bool is_known_one = s->is_same || (s->from.generation == m->generation && m->bound);
    if (s->is_drifty && !is_known_one)
        return false;
    if (!s->is_same && !merge_record(core, &s->from, ""))
        answer_record(core, s); /* it doesn't know what we know of it */
    observe_heard(core, m);
    return m->status != MEMBER_LEFT; /* by its own word */
}

/* ------------------------------------------------------------ what is done with them */

/* A node that isn't founded gets what it needs to adopt the cluster; nothing of it is taken. */
static void on_guest(struct member_core *core, uint32_t type, const struct speaker *s,
                     const union any_message *message)
{
    struct address to = {.id = slice_str(s->m->id),
                         .host = slice_str(s->from.host),
                         .port = s->from.port,
                         .fresh = address_of(core, s->m).fresh};
    if (s->is_drifty || !core_is_member(core))
        return;
    if (type == MSG_heartbeat && message->heartbeat.answer && wire_may_answer(core, s->m, ANSWER_HEARTBEAT))
        wire_send_heartbeat(core, &to, false, false);
    if (type == MSG_sync && wire_may_answer(core, s->m, ANSWER_SUMMARY))
        sync_send_summary(core, &to);
    if (type == MSG_gossip)
        gossip_answer_want(core, &to, message->gossip.want);
}

static void on_heartbeat(struct member_core *core, struct member *m, const struct msg_heartbeat *h)
{
    gossip_take_marks(core, m, h->watermarks, h->holdings);
    struct address to = address_of(core, m);
    if (h->answer && wire_may_answer(core, m, ANSWER_HEARTBEAT))
        wire_send_heartbeat(core, &to, false, true);
}

/* Records: all come to agree on them, whatever their clocks say. */
static void on_records(struct member_core *core, uint32_t type, struct member *m,
                       const union any_message *message)
{
    if (type == MSG_gossip)
        gossip_on_gossip(core, m, &message->gossip);
    if (!core_is_member(core)) /* it only listens for a new generation of its own */
        return;
    if (type == MSG_sync)
        sync_on_sync(core, m, message->sync.hash);
    else if (type == MSG_summary)
        sync_on_summary(core, m, &message->summary);
}

/* Who is alive. */
static void on_life(struct member_core *core, uint32_t type, struct member *m,
                    const union any_message *message)
{
    if (!core_is_member(core))
        return;
    if (type == MSG_heartbeat)
        on_heartbeat(core, m, &message->heartbeat);
    else if (type == MSG_probe)
        probe_on_probe(core, m, &message->probe);
    else if (type == MSG_probe_ack)
        probe_on_ack(core, m, &message->probe_ack);
    else if (type == MSG_opinion)
        probe_on_opinion(core, m, &message->opinion);
}

static void on_spoken(struct member_core *core, const struct msg_envelope *e,
                      const union any_message *message)
{
    struct speaker s;
    if (!may_speak(core, e, message, &s))
        return;
    if (!core->founded && s.from.generation > 0 && strcmp(s.from.id, core->id) == 0)
        refuse_self(core, &s);
    else if (!core->founded)
        found_on_message(core, e->type, &s.from, message);
    else if (!s.is_same && s.from.generation == 0)
        on_guest(core, e->type, &s, message);
    else if (take_from(core, &s)) {
        on_records(core, e->type, s.m, message);
        if (!s.is_drifty)
            on_life(core, e->type, s.m, message);
        if (core->forgot) {
            table_unpack(s.m, &s.from);
            found_again(core, &s.from);
        }
    }
}

void gate_receive(struct member_core *core, struct slice bytes)
{
    struct msg_envelope e;
    union any_message message;
    enum sh_error error = bytes.len <= MEMBER_MESSAGE_MAX ? msg_open(bytes, &e) : SH_BAD_REQUEST;
    if (error == SH_VERSION_MISMATCH) {
        on_other_version(core, &e);
        return;
    }
    bool good = error == SH_OK && e.type >= MSG_heartbeat && e.type <= MSG_refused && utf8_valid(e.sender);
    if (!good)
        gate_malformed(core, error == SH_OK ? e.sender : slice_str(""));
    else if (e.type == MSG_refused)
        on_refused(core, &e);
    else if (!is_ours(core, &e))
        return;
    else if (msg_decode(e.type, e.body, &message) != SH_OK)
        gate_malformed(core, e.sender);
    else
        on_spoken(core, &e, &message);
}

/* A record that is here already, byte for byte, needs no decoding: most that come are. */
static bool is_here(struct member_core *core, struct slice record)
{
    struct mp m = mp_of(record);
    uint32_t count;
    uint64_t key;
    struct slice id;
    if (!mp_map(&m, &count) || count == 0 || !mp_uint(&m, &key) || key != 1 || !mp_str(&m, &id))
        return false;
    struct member *known = table_find(core, id);
    if (known == NULL || !slice_equal(record, table_bytes(known)))
        return false;
    gossip_seen(core, known);
    return true;
}

bool gate_take_members(struct member_core *core, struct slice members)
{
    struct mp m = mp_of(members);
    uint32_t count;
    if (members.len == 0)
        return true;
    if (!mp_array(&m, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct slice bytes;
        struct member_record r;
        if (!mp_raw(&m, &bytes))
            return false;
        if (is_here(core, bytes))
            continue;
        if (member_decode(bytes, &r) != SH_OK || r.generation == 0)
            return false;
        merge_record(core, &r, "");
    }
    return mp_at_end(&m);
}
