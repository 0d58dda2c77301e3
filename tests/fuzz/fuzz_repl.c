/* replsvc's core in the middle of its life: answers to its fetches, fetches and positions of others, answers
 * of its walsvc, of any bytes. What it hands to walsvc must be good frames, within its window. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_log.h"
#include "repl_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NODES = 3, FRAMES = 24, STORES_MAX = 64 };

/* What the core has asked for and not been answered. */
struct pending {
    struct repl_action fetch[REPL_SLOTS];
    bool is_out[REPL_SLOTS];
    struct {
        struct repl_action action;
        struct buf body;
    } stores[STORES_MAX];
    size_t store_count;
    bool is_repairing;
    struct buf repair_body;
    bool is_comparing;
    struct repl_compare_digests compare;
    bool is_looking;
    bool is_looking_back, is_parting;
    struct repl_action back, parts;
    struct buf parts_body;
};

struct story {
    struct repl_core *core;
    int64_t now_ns;
    struct repl_member members[NODES];
    struct held_log held[NODES];
    struct model_log log; /* of n2 */
    struct model_log own; /* of n1, as others have it */
    size_t own_frames;    /* of these, here */
    bool is_own_copy;
    struct pending pending;
    struct buf body; /* that the core looks at */
    uint64_t token, unanswered;
};

/* The input, piece by piece; zeros behind its end. */
struct input {
    const uint8_t *at, *end;
};

static uint8_t take_byte(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static struct slice take_bytes(struct input *in)
{
    size_t len = take_byte(in) | (size_t)take_byte(in) << 8, left = (size_t)(in->end - in->at);
    struct slice bytes = slice_of(in->at, len < left ? len : left);
    in->at += bytes.len;
    return bytes;
}

static struct id16 log_of(unsigned node)
{
    struct id16 id;
    memset(id.bytes, (int)node, sizeof id.bytes);
    return id;
}

/* ---- what comes out ---- */

/* The log that has this uuid. */
static struct model_log *log_named(struct story *s, struct id16 log)
{
    return id16_equal(log, log_of(1)) ? &s->own : &s->log;
}

/* No input makes frames that are good, but those that n2 has of its log, and others of n1's. */
static void check_store(struct story *s, const struct repl_action *a)
{
    struct pending *p = &s->pending;
    const struct repl_store *store = &a->store;
    const struct model_log *log = log_named(s, store->log);
    assert(p->store_count < STORES_MAX && a->slot < REPL_LOGS_MAX);
    assert(store->bytes.data >= s->body.data &&
           store->bytes.data + store->bytes.len <= s->body.data + s->body.len);
    assert(id16_equal(store->log, log->id) && !(store->over && store->anew));
    assert(
        slice_equal(store->bytes, model_log_bytes(log, store->position, store->position + store->bytes.len)));
    assert(store->given_up_count == 0 || (store->over && log != &s->own));
    assert(s->core->follows[a->slot].unsynced <= REPL_WINDOW_BYTES);
    p->stores[p->store_count].action = *a;
    p->stores[p->store_count++].body = s->body;
    s->body = (struct buf){0};
}

static void take_actions(struct story *s)
{
    struct repl_action a;
    struct pending *p = &s->pending;
    while (repl_core_next_action(s->core, &a)) {
        if (a.kind == REPL_FETCH || a.kind == REPL_ASK_DIGESTS) {
            p->fetch[a.slot] = a;
            p->is_out[a.slot] = true;
        } else if (a.kind == REPL_CANCEL) {
            p->is_out[a.slot] = false;
        } else if (a.kind == REPL_STORE) {
            check_store(s, &a);
        } else if (a.kind == REPL_REPAIR) {
            p->is_repairing = true;
            buf_free(&p->repair_body);
            p->repair_body = s->body;
            s->body = (struct buf){0};
        } else if (a.kind == REPL_LOOK_BACK) {
            p->is_looking_back = true;
            p->back = a;
        } else if (a.kind == REPL_FIND_FORK) {
            p->is_parting = true;
            p->parts = a;
            buf_free(&p->parts_body);
            p->parts_body = s->body;
            s->body = (struct buf){0};
        } else if (a.kind == REPL_OWN_LOG) {
            assert(a.verdict <= 2 && !(s->is_own_copy && a.verdict > 0));
        } else if (a.kind == REPL_COMPARE) {
            assert(a.compare.count > 0 && a.compare.count <= REPL_DIGESTS_MAX);
            p->is_comparing = true;
            p->compare = a.compare;
        } else if (a.kind == REPL_LOOK) {
            assert(!p->is_looking);
            p->is_looking = true;
        } else if (a.kind == REPL_SERVE || a.kind == REPL_SERVE_DIGESTS || a.kind == REPL_REFUSE) {
            assert(s->unanswered > 0);
            s->unanswered--;
        } else if (a.kind == REPL_REPLICATED) {
            assert(a.replicated.all_lsn <= a.replicated.quorum_lsn);
        }
    }
    assert(s->unanswered == s->core->parked_count && s->core->parked_count <= REPL_PARKED_MAX);
}

/* ---- what comes in ---- */

static void set_body(struct story *s, struct slice bytes)
{
    s->body.len = 0;
    buf_reserve(&s->body, 1); /* a message is somewhere, also when it is empty */
    buf_append(&s->body, bytes.data, bytes.len);
}

static void give_body(struct story *s, unsigned slot, uint32_t type)
{
    struct pending *p = &s->pending;
    uint64_t serial = p->fetch[slot].serial;
    p->is_out[slot] = false;
    size_t stores = p->store_count;
    bool was_repairing = p->is_repairing, was_parting = p->is_parting;
    bool holds = repl_core_fetched(s->core, s->now_ns, slot, serial, type, buf_slice(&s->body));
    p->is_repairing = p->is_parting = false;
    take_actions(s);
    assert(holds == (p->store_count > stores || p->is_repairing || p->is_parting));
    p->is_repairing = p->is_repairing || was_repairing;
    p->is_parting = p->is_parting || was_parting;
}

static void any_answer(struct story *s, struct input *in)
{
    static const uint32_t types[] = {MSG_fetch_reply, MSG_error, MSG_position, MSG_digests_reply};
    unsigned slot = take_byte(in) % REPL_SLOTS;
    uint32_t type = types[take_byte(in) % 4];
    set_body(s, take_bytes(in));
    if (s->pending.store_count < STORES_MAX)
        give_body(s, slot, type);
}

static struct slice any_sender(struct input *in)
{
    static const char *const names[] = {"n2", "n3", "n1", "nobody", ""};
    return slice_str(names[take_byte(in) % 5]);
}

/* A good answer to what was asked, of which some bytes are others. */
static void nearly_good_answer(struct story *s, struct input *in)
{
    static const unsigned slots[] = {0, 1, 2, 3, REPL_REPAIR_SLOT, REPL_FORK_SLOT};
    unsigned slot = slots[take_byte(in) % 6];
    const struct msg_fetch *f = &s->pending.fetch[slot].fetch;
    const struct repl_serve serve = {.log = f->log,
                                     .from = {f->lsn + 1, (uint32_t)f->checksum, f->position},
                                     .durable = model_log_durable(log_named(s, f->log)),
                                     .anew = f->anew,
                                     .most_bytes = 1 + 64u * take_byte(in),
                                     .most_entries = UINT64_MAX};
    struct buf out = {0};
    struct msg_fetch_reply reply;
    if (!s->pending.is_out[slot] || s->pending.store_count == STORES_MAX)
        return;
    model_log_serve(log_named(s, f->log), &serve, &out, &reply);
    reply.given_up = take_bytes(in);
    s->body.len = 0;
    msg_encode(MSG_fetch_reply, &reply, &s->body);
    buf_free(&out);
    struct slice changes = take_bytes(in);
    for (size_t i = 0; i + 2 < changes.len; i += 3)
        s->body.data[(changes.data[i] | changes.data[i + 1] << 8) % s->body.len] ^= changes.data[i + 2];
    give_body(s, slot, MSG_fetch_reply);
}

static void pack_digest(msgpack_packer *pk, uint64_t base, struct input *in)
{
    const uint8_t digest[16] = {take_byte(in) % 4};
    msgpack_pack_array(pk, 3);
    msgpack_pack_uint64(pk, base);
    msgpack_pack_uint64(pk, 1000);
    mp_pack_bin(pk, slice_of(digest, take_byte(in) == 0 ? 15 : 16));
}

/* Mostly what was asked for, of any count, with any word about what is behind it. */
static void any_digests(struct story *s, struct input *in)
{
    struct repl_action *ask = &s->pending.fetch[REPL_COMPARE_SLOT];
    struct msg_digests_reply reply = {.log = log_of(take_byte(in) == 0 ? 3 : 2)};
    struct buf segments = {0};
    msgpack_packer pk;
    size_t count = take_byte(in) % (REPL_DIGESTS_MAX + 2);
    uint64_t base = ask->digests.after;
    if (!s->pending.is_out[REPL_COMPARE_SLOT])
        return;
    if (take_byte(in) > 0)
        reply.log = ask->digests.log;
    mp_packer(&pk, &segments);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++)
        pack_digest(&pk, base += take_byte(in), in);
    reply.segments = buf_slice(&segments);
    reply.next = take_byte(in) % 2 ? base : take_byte(in);
    s->body.len = 0;
    msg_encode(MSG_digests_reply, &reply, &s->body);
    buf_free(&segments);
    give_body(s, REPL_COMPARE_SLOT, MSG_digests_reply);
}

/* What the shell has read, and what walsvc has found. */
static void go_on_comparing(struct story *s, struct input *in)
{
    struct repl_digest own[REPL_DIGESTS_MAX];
    struct pending *p = &s->pending;
    if (p->is_comparing) {
        for (size_t i = 0; i < p->compare.count; i++) {
            own[i] = p->compare.theirs[i];
            own[i].digest.bytes[0] = take_byte(in) % 4;
        }
        p->is_comparing = false;
        repl_core_digests(s->core, s->now_ns, own, p->compare.count);
    } else if (p->is_looking) {
        p->is_looking = false;
        repl_core_looked(s->core, s->now_ns, MSG_look_reply, take_bytes(in));
    }
    take_actions(s);
}

/* What is here of a log: as others have it, up to a frame, or nothing of use. */
static void go_on_looking(struct story *s, struct input *in)
{
    struct pending *p = &s->pending;
    uint8_t what = take_byte(in);
    struct repl_fork fork;
    struct log_chain begins;
    if (p->is_looking_back) {
        p->is_looking_back = false;
        bool found = model_log_begins(log_named(s, p->back.back.log), p->back.back.position, &begins);
        repl_core_begins(s->core, s->now_ns, p->back.serial, found && what % 8 > 0 ? &begins : NULL);
    } else if (p->is_parting) {
        p->is_parting = false;
        bool good = model_log_parts(log_named(s, p->parts.parts.log), &p->parts.parts, &fork);
        if (what % 4 == 0 && good) { /* it parts at once */
            fork = (struct repl_fork){.at = p->parts.parts.from, .has_own = true, .theirs = what, .own = 1};
        }
        repl_core_parted(s->core, s->now_ns, p->parts.serial, good ? &fork : NULL);
    }
    take_actions(s);
}

static void any_served(struct story *s, struct input *in)
{
    struct slice sender = any_sender(in);
    repl_core_served(s->core, s->now_ns, sender, log_of(1 + take_byte(in) % 2),
                     (enum log_copy_state)(take_byte(in) % 5));
    take_actions(s);
}

static void any_question(struct story *s, struct input *in)
{
    struct msg_digests digests;
    struct slice sender = any_sender(in);
    if (msg_decode(MSG_digests, take_bytes(in), &digests) != SH_OK)
        return;
    s->unanswered++;
    repl_core_asked_digests(s->core, s->now_ns, ++s->token, sender, &digests);
    take_actions(s);
}

static void any_fetch(struct story *s, struct input *in)
{
    struct msg_fetch fetch;
    struct slice sender = any_sender(in);
    if (msg_decode(MSG_fetch, take_bytes(in), &fetch) != SH_OK)
        return;
    s->unanswered++;
    repl_core_asked(s->core, s->now_ns, ++s->token, sender, &fetch);
    take_actions(s);
}

static void any_position(struct story *s, struct input *in)
{
    struct msg_position position;
    struct slice sender = any_sender(in);
    if (msg_decode(MSG_position, take_bytes(in), &position) != SH_OK)
        return;
    repl_core_position(s->core, s->now_ns, sender, &position);
    take_actions(s);
}

/* walsvc says of the oldest store what it would. */
static void answer_store(struct story *s, bool is_taken)
{
    struct pending *p = &s->pending;
    struct buf body = {0};
    if (p->store_count == 0)
        return;
    struct repl_action a = p->stores[0].action;
    struct buf kept = p->stores[0].body;
    p->store_count--;
    memmove(p->stores, p->stores + 1, p->store_count * sizeof p->stores[0]);
    struct msg_copy_append_reply reply = {
        .log = a.store.log, .end = a.store.position + a.store.bytes.len, .lsn = 1 + a.store.position / 100};
    const struct msg_error error = {.code = SH_CONFLICT, .text = slice_str("no")};
    msg_encode(is_taken ? MSG_copy_append_reply : MSG_error,
               is_taken ? (const void *)&reply : (const void *)&error, &body);
    repl_core_stored(s->core, s->now_ns, a.slot, a.store.bytes.len,
                     is_taken ? MSG_copy_append_reply : MSG_error, buf_slice(&body));
    take_actions(s);
    buf_free(&body);
    buf_free(&kept);
}

static void answer_repair(struct story *s, struct input *in)
{
    static const uint32_t types[] = {MSG_repair_reply, MSG_error};
    uint32_t type = types[take_byte(in) % 2];
    struct slice body = take_bytes(in);
    if (!s->pending.is_repairing)
        return;
    s->pending.is_repairing = false;
    repl_core_repaired(s->core, s->now_ns, type, body);
    take_actions(s);
}

static void tell_damage(struct story *s, struct input *in)
{
    const struct repl_damage damage = {.segment = 1,
                                       .offset = 64u * take_byte(in),
                                       .bytes = take_byte(in),
                                       .position = 64u * take_byte(in),
                                       .lsn = take_byte(in)};
    repl_core_damage(s->core, s->now_ns, log_of(2), &damage);
    take_actions(s);
}

static void tell_logs(struct story *s, uint8_t what)
{
    s->held[1].damaged = what % 2;
    if (s->own_frames + what % 3 < s->own.count)
        s->own_frames += what % 3;
    s->held[0].durable = s->own.frames[s->own_frames].before;
    s->is_own_copy = what % 7 == 6;
    const struct repl_logs logs = {.boot = log_of(100 + what / 64),
                                   .waits = what % 5 == 4 && !s->is_own_copy,
                                   .own_copy = s->is_own_copy,
                                   .given_up = {what},
                                   .given_up_count = what % 2,
                                   .held = s->held,
                                   .count = 2};
    repl_core_logs(s->core, s->now_ns, &logs);
    take_actions(s);
}

static void tell_members(struct story *s, uint8_t what)
{
    s->members[what % 2].up = what & 4;
    s->members[what % 2].watermarks[0] = (struct repl_watermark){log_of(2), what, 64u * what};
    s->members[what % 2].watermarks[1] = (struct repl_watermark){log_of(1), what, 64u * what};
    s->members[what % 2].watermark_count = what & 8 ? 1 + (what & 32) / 32 : 0;
    repl_core_members(s->core, s->now_ns, s->members, what & 16 ? 1 : 2);
    take_actions(s);
}

static void tick(struct story *s, uint8_t how_long)
{
    s->now_ns += 1 + (int64_t)how_long * how_long * NS_PER_MS / 2;
    repl_core_tick(s->core, s->now_ns);
    take_actions(s);
    assert(repl_core_due_ns(s->core) > s->now_ns);
}

static void step(struct story *s, struct input *in)
{
    switch (take_byte(in) % 16) {
    case 0:
        any_answer(s, in);
        break;
    case 1:
    case 2:
        nearly_good_answer(s, in);
        break;
    case 3:
        any_fetch(s, in);
        break;
    case 4:
        any_position(s, in);
        break;
    case 5:
        answer_store(s, take_byte(in) % 4 > 0);
        break;
    case 6:
        answer_repair(s, in);
        break;
    case 7:
        tell_damage(s, in);
        break;
    case 8:
        tell_logs(s, take_byte(in));
        break;
    case 9:
        tell_members(s, take_byte(in));
        break;
    case 10:
        any_digests(s, in);
        break;
    case 11:
        go_on_comparing(s, in);
        break;
    case 12:
        any_question(s, in);
        break;
    case 13:
        go_on_looking(s, in);
        break;
    case 14:
        any_served(s, in);
        break;
    default:
        tick(s, take_byte(in));
    }
}

/* ---- the story ---- */

static void begin(struct story *s)
{
    const struct repl_options options = {.node = "n1", .log = log_of(1), .compare_interval_ns = NS_PER_S};
    s->now_ns = NS_PER_S;
    s->core = repl_core_open(&options);
    model_log_open(&s->log, log_of(2));
    for (unsigned i = 0; i < FRAMES; i++)
        model_log_append(&s->log, 40, 2, i, i % 7 == 6);
    model_log_sync_all(&s->log);
    model_log_open(&s->own, log_of(1));
    for (unsigned i = 0; i < FRAMES; i++)
        model_log_append(&s->own, 40, 2, i, i % 7 == 6);
    model_log_sync_all(&s->own);
    s->own_frames = 6;
    for (unsigned i = 0; i < 2; i++) {
        struct repl_member *m = &s->members[i];
        *m = (struct repl_member){.port = 4000, .log = log_of(2 + i), .up = true};
        snprintf(m->id, sizeof m->id, "n%u", 2 + i);
        snprintf(m->host, sizeof m->host, "h%u", 2 + i);
    }
    s->held[0] = (struct held_log){.log = log_of(1), .durable = s->own.frames[6].before, .first_lsn = 1};
    s->held[1] = (struct held_log){.log = log_of(2), .durable = s->log.frames[3].before, .first_lsn = 1};
    tell_logs(s, 0);
    repl_core_members(s->core, s->now_ns, s->members, 2);
    take_actions(s);
}

static void end(struct story *s)
{
    for (size_t i = 0; i < s->pending.store_count; i++)
        buf_free(&s->pending.stores[i].body);
    buf_free(&s->pending.repair_body);
    buf_free(&s->pending.parts_body);
    buf_free(&s->body);
    model_log_free(&s->log);
    model_log_free(&s->own);
    repl_core_close(s->core);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    struct story *s = xcalloc(1, sizeof *s);
    begin(s);
    while (in.at < in.end)
        step(s, &in);
    end(s);
    free(s);
    return 0;
}
