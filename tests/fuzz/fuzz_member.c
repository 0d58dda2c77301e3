/* membersvc's core, as one member of five. The input is a story: messages that members could have sent, with
 * records and ages that it changes, the same ones again later, bodies and messages of its own bytes, time,
 * joins and leaves, restarts. Whatever comes: what the core says is well-formed, what it keeps is bounded and
 * loads again, and nobody takes its own record from it but by the rules of docs/cluster-protocol.md. */
#include <assert.h>
#include <sanitizer/allocator_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "member_rig.h"

enum {
    NODES = 5,
    OLD_MESSAGES = 4,   /* that can come again */
    TICKS_MAX = 2000,   /* in one step of time: more is a core that is always due */
    HEAP_MAX = 4 << 20, /* that a core may hold after any story of 8 KiB */
    STEPS_MAX = 500,    /* of a story, so that none takes long; */
    WAIT_S_MAX = 120,   /* and seconds that it waits */
    SENDS_MAX = 1 << 20
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Whom it knows at first: made once, by real cores. */
static struct member_record known[NODES + 1]; /* the last one is a stranger */
static struct buf begun;                      /* data/member of the first */
static struct config_node file[NODES];
static uint64_t list; /* hash of the ids in the file */

struct story {
    struct slice input;
    struct member_core *core;
    struct member_time now;
    struct id16 log, boot;
    struct buf old[OLD_MESSAGES];
    unsigned old_count;
    uint64_t next_event;
    size_t heap_before;
    int64_t waited_ns;
};

/* The next bytes of the input as a number; 0 when it is over. */
static uint32_t take(struct story *s, size_t bytes)
{
    uint32_t value = 0;
    for (; bytes > 0 && s->input.len > 0; bytes--) {
        value = value << 8 | s->input.data[0];
        s->input = slice_of(s->input.data + 1, s->input.len - 1);
    }
    return value;
}

static struct slice take_bytes(struct story *s)
{
    size_t len = take(s, 1) * 4;
    struct slice bytes = slice_of(s->input.data, len < s->input.len ? len : s->input.len);
    s->input = slice_of(s->input.data + bytes.len, s->input.len - bytes.len);
    return bytes;
}

/* ------------------------------------------------------------ what must always be true */

static void check_own_word(const struct msg_envelope *e, struct slice from)
{
    struct member_record r;
    assert(slice_is(e->sender, known[0].id));
    enum sh_error error = member_decode(from, &r);
    assert(error == SH_OK);
    assert(strcmp(r.id, known[0].id) == 0);
}

/* All but `refused` begin with the sender's record. */
static void check_message(struct slice bytes)
{
    static _Alignas(16) uint8_t decoded[4096];
    struct msg_envelope e;
    assert(bytes.len <= MEMBER_MESSAGE_MAX);
    enum sh_error error = msg_open(bytes, &e);
    assert(error == SH_OK);
    const struct msg_type *type = msg_type_of(e.type);
    assert(type != NULL);
    assert(type->size <= sizeof decoded);
    error = msg_decode(e.type, e.body, decoded);
    assert(error == SH_OK);
    if (e.type != MSG_refused)
        check_own_word(&e, ((const struct msg_heartbeat *)(const void *)decoded)->from);
}

static void check_sends(struct story *s)
{
    struct member_send send;
    struct member_notice notice;
    size_t bytes = 0, largest = 0;
    for (; member_core_next_send(s->core, &send); bytes += send.message.len) {
        check_message(send.message);
        largest = send.message.len > largest ? send.message.len : largest;
    }
    assert(bytes <= SENDS_MAX + largest);
    while (member_core_next_notice(s->core, &notice))
        assert(notice.id[CONFIG_ID_MAX] == 0);
}

static void check_events(struct story *s)
{
    struct member_events events = member_core_events(s->core);
    assert(events.first <= events.next);
    assert(events.next - events.first <= MEMBER_EVENTS_MAX);
    assert(events.next >= s->next_event);
    for (uint64_t n = s->next_event > events.first ? s->next_event : events.first; n < events.next; n++)
        assert(member_core_event(s->core, n)->number == n);
    s->next_event = events.next;
}

/* The own record in the table, against the state that the core says it is in. */
static void check_self(const struct story *s, const struct member_record *r)
{
    enum member_state state = member_core_self(s->core).state;
    bool is_own = id16_equal(r->log, s->log);
    if (state == MEMBER_MEMBER) {
        assert(is_own);
        assert(r->status == MEMBER_UP);
        assert(r->generation > 0);
        assert(!id16_equal(r->not_log, s->log));
    }
    if (state == MEMBER_HAS_LEFT)
        assert(r->status == MEMBER_LEFT);
    if (state == MEMBER_REPLACED)
        assert(!is_own || id16_equal(r->not_log, s->log));
}

static void check_members(const struct story *s)
{
    size_t count = member_core_count(s->core), selves = 0;
    char before[CONFIG_ID_MAX + 1] = "";
    assert(count <= MEMBER_RECORDS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct member_view view;
        member_core_view(s->core, s->now, i, &view);
        assert(strcmp(before, view.record->id) < 0);
        assert(view.watermark_count <= MEMBER_WATERMARKS_MAX);
        snprintf(before, sizeof before, "%s", view.record->id);
        selves += view.self;
        if (view.self)
            check_self(s, view.record);
    }
    assert(selves == 1);
}

static void check(struct story *s)
{
    check_sends(s);
    check_events(s);
    check_members(s);
    assert(member_core_due_ns(s->core) >= s->now.mono_ns);
    assert(__sanitizer_get_current_allocated_bytes() < s->heap_before + HEAP_MAX);
}

/* ------------------------------------------------------------ what members could say */

static struct member_record change(struct story *s, struct member_record r)
{
    uint32_t how = take(s, 1);
    if ((how & 1) != 0)
        r.incarnation += take(s, 1);
    if ((how & 2) != 0)
        r.generation += take(s, 1) % 8;
    if ((how & 4) != 0)
        r.status = (enum member_status)(take(s, 1) % (MEMBER_LEFT + 1));
    if ((how & 8) != 0)
        r.log.bytes[0] ^= (uint8_t)take(s, 1);
    if ((how & 16) != 0)
        r.boot.bytes[0] ^= (uint8_t)take(s, 1);
    if ((how & 32) != 0)
        r.host[0] = (char)('a' + take(s, 1) % 26);
    if ((how & 64) != 0)
        r.born_ms += (uint64_t)(int64_t)(int8_t)take(s, 1);
    if ((how & 129) == 128)
        r.generation = 0; /* it isn't founded */
    return r;
}

/* What two bits each do not reach. */
static struct member_record change_much(struct story *s, struct member_record r)
{
    switch (take(s, 1) % 8) {
    case 1:
        r.incarnation = INT64_MAX - take(s, 1);
        break;
    case 2:
        r.generation = INT64_MAX - take(s, 1);
        break;
    case 3:
        r.log = (struct id16){{0}};
        break;
    case 4:
        r.not_log = r.log;
        break;
    case 5:
        r.incarnation += UINT64_C(1) << 32;
        break;
    default:
        break;
    }
    return r;
}

static void add_record(struct story *s, uint32_t who, struct buf *out)
{
    struct member_record r = change(s, known[who % (NODES + 1)]);
    if (take(s, 1) % 8 == 0)
        r = change_much(s, r);
    member_encode(&r, out);
}

static void add_records(struct story *s, struct buf *out)
{
    uint32_t count = take(s, 1) % 8;
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++)
        add_record(s, take(s, 1), out);
}

/* Ids, with hashes for a summary. */
static void add_ids(struct story *s, bool with_hashes, struct buf *out)
{
    uint32_t count = take(s, 1) % 8;
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++) {
        if (with_hashes)
            msgpack_pack_array(&pk, 2);
        mp_pack_cstr(&pk, known[take(s, 1) % (NODES + 1)].id);
        if (with_hashes)
            msgpack_pack_uint64(&pk, take(s, 1));
    }
}

static void add_marks(struct story *s, struct buf *out)
{
    uint32_t count = take(s, 1) % 80; /* more than are kept, too */
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++) {
        struct id16 log = {{(uint8_t)i}};
        msgpack_pack_array(&pk, 3);
        mp_pack_bin(&pk, slice_of(log.bytes, sizeof log.bytes));
        msgpack_pack_uint64(&pk, take(s, 1));
        msgpack_pack_uint64(&pk, take(s, 1));
    }
}

static struct slice an_id(struct story *s)
{
    return slice_str(known[take(s, 1) % (NODES + 1)].id);
}

/* The parts that a message is made of; those that it has no field for stay unused. */
struct parts {
    struct buf from, records, ids, marks, target;
    uint64_t wall_ms;
};

static void pack_life(struct story *s, uint32_t type, const struct parts *p, struct buf *out)
{
    struct slice from = buf_slice(&p->from);
    struct msg_heartbeat heartbeat = {
        .from = from, .wall_ms = p->wall_ms, .watermarks = buf_slice(&p->marks)};
    struct msg_probe probe = {.from = from, .wall_ms = p->wall_ms, .about = buf_slice(&p->target)};
    struct msg_probe_ack ack = {.from = from, .wall_ms = p->wall_ms, .target = buf_slice(&p->target)};
    struct msg_opinion opinion = {.from = from, .wall_ms = p->wall_ms};
    if (type == MSG_heartbeat) {
        heartbeat.founded = take(s, 1) % 4 != 0;
        heartbeat.answer = take(s, 1) % 2 != 0;
        heartbeat.list = take(s, 1) % 4 != 0 ? list : 0;
        msg_encode(type, &heartbeat, out);
    } else if (type == MSG_probe) {
        probe.target = an_id(s);
        probe.origin = an_id(s);
        msg_encode(type, &probe, out);
    } else if (type == MSG_probe_ack) {
        ack.origin = an_id(s);
        msg_encode(type, &ack, out);
    } else {
        opinion.subject = an_id(s);
        opinion.generation = take(s, 1) % 4;
        opinion.incarnation = take(s, 1) % 8;
        opinion.silent_ms = take(s, 2);
        msg_encode(type, &opinion, out);
    }
}

static void pack_records(struct story *s, uint32_t type, const struct parts *p, struct buf *out)
{
    struct slice from = buf_slice(&p->from);
    struct msg_gossip gossip = {.from = from,
                                .wall_ms = p->wall_ms,
                                .members = buf_slice(&p->records),
                                .want = buf_slice(&p->ids),
                                .watermarks = buf_slice(&p->marks)};
    struct msg_sync sync = {.from = from, .wall_ms = p->wall_ms, .hash = take(s, 1)};
    struct msg_summary summary = {.from = from, .wall_ms = p->wall_ms, .entries = buf_slice(&p->ids)};
    gossip.reply = sync.hash % 2 != 0;
    if (type == MSG_gossip)
        msg_encode(type, &gossip, out);
    else if (type == MSG_sync)
        msg_encode(type, &sync, out);
    else
        msg_encode(type, &summary, out);
}

static void pack_refused(struct story *s, struct buf *out)
{
    struct msg_refused refused = {
        .code = take(s, 1) % 2 != 0 ? SH_CONFLICT : take(s, 1), .text = slice_str("no"), .boot = s->boot};
    msg_encode(MSG_refused, &refused, out);
}

static void pack_body(struct story *s, uint32_t type, uint32_t sender, struct buf *out)
{
    struct parts p = {.wall_ms =
                          (uint64_t)s->now.wall_ms + (uint64_t)(int64_t)(int8_t)take(s, 1) * 100 /* drift */};
    add_record(s, sender, &p.from);
    if (type == MSG_gossip)
        add_records(s, &p.records);
    if (type == MSG_gossip || type == MSG_summary)
        add_ids(s, type == MSG_summary, &p.ids);
    if (type == MSG_gossip || type == MSG_heartbeat)
        add_marks(s, &p.marks);
    if (type == MSG_probe || type == MSG_probe_ack)
        add_record(s, take(s, 1), &p.target);
    if (type == MSG_refused)
        pack_refused(s, out);
    else if (type == MSG_gossip || type == MSG_sync || type == MSG_summary)
        pack_records(s, type, &p, out);
    else
        pack_life(s, type, &p, out);
    buf_free(&p.from);
    buf_free(&p.records);
    buf_free(&p.ids);
    buf_free(&p.marks);
    buf_free(&p.target);
}

/* ------------------------------------------------------------ what happens */

static void receive(struct story *s, struct slice message)
{
    member_core_receive(s->core, s->now, message);
}

static void begin_message(struct story *s, struct buf *out, uint32_t *type, uint32_t *sender)
{
    static const uint8_t cluster[CLUSTER_ID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8};
    *type = MSG_heartbeat + take(s, 1) % (MSG_refused - MSG_heartbeat + 1);
    *sender = take(s, 1) % (NODES + 1);
    struct msg_envelope e = {.type = *type,
                             .cluster = slice_of(cluster, sizeof cluster),
                             .sender = slice_str(known[*sender].id),
                             .session = known[*sender].boot};
    msg_pack_envelope(out, &e);
}

static void speak(struct story *s)
{
    struct buf *message = &s->old[s->old_count++ % OLD_MESSAGES];
    uint32_t type, sender;
    message->len = 0;
    begin_message(s, message, &type, &sender);
    pack_body(s, type, sender, message);
    receive(s, buf_slice(message));
}

static void speak_again(struct story *s)
{
    const struct buf *message = &s->old[take(s, 1) % OLD_MESSAGES];
    if (message->len > 0)
        receive(s, buf_slice(message));
}

static void speak_badly(struct story *s)
{
    struct buf message = {0};
    uint32_t type, sender;
    begin_message(s, &message, &type, &sender);
    struct slice body = take_bytes(s);
    buf_append(&message, body.data, body.len);
    receive(s, buf_slice(&message));
    buf_free(&message);
}

static void speak_bytes(struct story *s)
{
    receive(s, take_bytes(s));
}

/* Its timers, each when it is due. */
static void pass(struct story *s, int64_t ns)
{
    int64_t end_ns = s->now.mono_ns + ns, wall_ms = s->now.wall_ms - s->now.mono_ns / NS_PER_MS;
    unsigned ticks = 0;
    while (member_core_due_ns(s->core) <= end_ns) {
        s->now.mono_ns = member_core_due_ns(s->core);
        s->now.wall_ms = wall_ms + s->now.mono_ns / NS_PER_MS;
        member_core_tick(s->core, s->now);
        check_sends(s);
        assert(++ticks < TICKS_MAX);
    }
    s->now.mono_ns = end_ns;
    s->now.wall_ms = wall_ms + end_ns / NS_PER_MS;
}

static void wait(struct story *s)
{
    int64_t ns = (int64_t)take(s, 1) * 100 * NS_PER_MS;
    if (s->waited_ns + ns > WAIT_S_MAX * NS_PER_S)
        return;
    s->waited_ns += ns;
    pass(s, ns);
}

/* The process was stopped, and the clock may have been set. */
static void oversleep(struct story *s)
{
    s->now.mono_ns += (int64_t)take(s, 2) * NS_PER_MS;
    s->now.wall_ms += (int64_t)(int8_t)take(s, 1) * NS_PER_S / NS_PER_MS;
    member_core_tick(s->core, s->now);
}

static void join(struct story *s)
{
    struct slice id = an_id(s);
    struct msg_node_join m = {.id = id,
                              .host = take(s, 1) % 2 != 0 ? slice_str("new") : slice_of(NULL, 0),
                              .port = 4000 + take(s, 1),
                              .replace = take(s, 1) % 2 != 0};
    char text[MEMBER_TEXT_MAX];
    uint64_t generation;
    member_core_join(s->core, s->now, &m, &generation, text);
}

static void leave(struct story *s)
{
    struct msg_node_leave_reply reply;
    char text[MEMBER_TEXT_MAX];
    member_core_leave(s->core, s->now, known[take(s, 1) % (NODES + 1)].id, &reply, text);
}

static void write_log(struct story *s)
{
    struct member_watermark mark = {.log = s->log, .lsn = take(s, 2), .end = 1000};
    mark.log.bytes[0] ^= (uint8_t)take(s, 1);
    member_core_watermark(s->core, s->now, &mark);
}

static void open_core(struct story *s, struct slice saved)
{
    struct member_options o = {.cluster_name = "rig",
                               .cluster = {1, 2, 3, 4, 5, 6, 7, 8},
                               .self = &file[0],
                               .nodes = file,
                               .node_count = NODES,
                               .log = s->log,
                               .boot = s->boot,
                               .timing = {5 * NS_PER_S, 10 * NS_PER_S, 15 * NS_PER_S, 10000},
                               .seed = 1};
    char text[MEMBER_TEXT_MAX];
    enum sh_error e = member_core_open(&o, s->now, saved, text, &s->core);
    assert(e == SH_OK);
}

/* What it saved, whatever had come, it can read; or that is lost. */
static void restart(struct story *s)
{
    struct buf saved = {0};
    bool is_lost = take(s, 1) % 4 == 0;
    uint64_t hash = member_core_hash(s->core);
    enum member_state state = member_core_self(s->core).state;
    member_core_save(s->core, &saved);
    member_core_close(s->core);
    open_core(s, is_lost ? slice_of(NULL, 0) : buf_slice(&saved));
    if (is_lost)
        s->next_event = 1;
    else if (state == MEMBER_HAS_LEFT || state == MEMBER_REPLACED) {
        assert(member_core_hash(s->core) == hash);
        assert(member_core_self(s->core).state == state);
    }
    buf_free(&saved);
}

static void (*const steps[])(struct story *) = {
    speak, speak,       speak,     speak, speak, speak,     speak_again, wait,
    wait,  speak_badly, oversleep, join,  leave, write_log, restart,     speak_bytes};

/* ------------------------------------------------------------ the beginning */

static void begin(void)
{
    static struct member_rig rig;
    log_set_level((enum log_level)(LOG_ERROR + 1));
    cores_open(&rig, NODES, 1);
    cores_start_all(&rig);
    bool whole = cores_until(&rig, 10000, cores_is_whole);
    assert(whole);
    cores_run(&rig, 20000);
    for (uint32_t i = 0; i < NODES; i++) {
        known[i] = cores_record(&rig, 0, i);
        file[i] = rig.nodes[i].where;
    }
    known[NODES] = known[1];
    snprintf(known[NODES].id, sizeof known[NODES].id, "stranger");
    snprintf(known[NODES].host, sizeof known[NODES].host, "strange");
    known[NODES].generation = 2;
    member_core_save(rig.nodes[0].core, &begun);
    cores_close(&rig);
}

/* As a node says it that isn't founded. */
static void learn_list(void)
{
    struct story s = {
        .now = {1000 * NS_PER_S, INT64_C(1700001000000)}, .log = known[0].log, .boot = known[0].boot};
    struct member_send send;
    struct msg_envelope e;
    struct msg_heartbeat h;
    open_core(&s, slice_of(NULL, 0));
    while (!member_core_next_send(s.core, &send)) {
        s.now.mono_ns = member_core_due_ns(s.core);
        member_core_tick(s.core, s.now);
    }
    bool good = msg_open(send.message, &e) == SH_OK && e.type == MSG_heartbeat &&
                msg_decode(e.type, e.body, &h) == SH_OK;
    assert(good);
    list = h.list;
    member_core_close(s.core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (begun.len == 0) {
        begin();
        learn_list();
    }
    struct story s = {.input = slice_of(data, size),
                      .now = {1000 * NS_PER_S, INT64_C(1700001000000)},
                      .log = known[0].log,
                      .boot = known[0].boot,
                      .next_event = 1,
                      .heap_before = __sanitizer_get_current_allocated_bytes()};
    open_core(&s, take(&s, 1) % 4 != 0 ? buf_slice(&begun) : slice_of(NULL, 0));
    for (unsigned i = 0; i < STEPS_MAX && s.input.len > 0; i++) {
        steps[take(&s, 1) % (sizeof steps / sizeof steps[0])](&s);
        check(&s);
    }
    pass(&s, 20 * NS_PER_S);
    check(&s);
    member_core_close(s.core);
    for (unsigned i = 0; i < OLD_MESSAGES; i++)
        buf_free(&s.old[i]);
    return 0;
}
