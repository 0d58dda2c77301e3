#include "repl_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TICKS_IN_A_ROW = 100000 };

struct id16 peer_log(unsigned node)
{
    struct id16 id;
    memset(id.bytes, (int)node, sizeof id.bytes);
    return id;
}

struct log_chain peer_place(uint64_t lsn, uint64_t position)
{
    return (struct log_chain){lsn + 1, (uint32_t)(lsn * 7 + position), position};
}

/* ---- the core ---- */

static void collect(struct repl_rig *rig)
{
    struct repl_action action;
    while (repl_core_next_action(rig->core, &action)) {
        assert_true(rig->action_count < RIG_ACTIONS_MAX);
        rig->actions[rig->action_count++] = action;
    }
}

void peer_restart(struct repl_rig *rig)
{
    const struct repl_options options = {
        .node = "n1", .log = peer_log(1), .compare_interval_ns = rig->compare_interval_ns};
    if (rig->core != NULL)
        repl_core_close(rig->core);
    rig->core = repl_core_open(&options);
    peer_clear(rig);
}

void peer_open(struct repl_rig *rig, unsigned nodes)
{
    memset(rig, 0, sizeof *rig);
    rig->now_ns = 1000 * NS_PER_S;
    rig->boot = peer_log(100);
    peer_restart(rig);
    for (unsigned node = 2; node <= nodes; node++)
        peer_add_member(rig, node);
    peer_hold(rig, 1, (struct log_chain){.next_lsn = 1}, 1);
    peer_tell_members(rig);
    peer_tell_logs(rig);
}

void peer_close(struct repl_rig *rig)
{
    repl_core_close(rig->core);
    for (size_t i = 0; i < rig->body_count; i++)
        buf_free(&rig->bodies[i]);
}

const struct repl_counters *peer_counters(const struct repl_rig *rig)
{
    return repl_core_counters(rig->core);
}

/* ---- its group and its walsvc ---- */

struct repl_member *peer_member(struct repl_rig *rig, unsigned node)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    for (size_t i = 0; i < rig->member_count; i++)
        if (strcmp(rig->members[i].id, id) == 0)
            return &rig->members[i];
    fail_msg("no member %s", id);
    abort();
}

struct repl_member *peer_add_member(struct repl_rig *rig, unsigned node)
{
    struct repl_member *m = &rig->members[rig->member_count++];
    *m = (struct repl_member){.port = RIG_BASE_PORT, .log = peer_log(node), .up = true};
    snprintf(m->id, sizeof m->id, "n%u", node);
    snprintf(m->host, sizeof m->host, "h%u", node);
    return m;
}

void peer_remove_member(struct repl_rig *rig, unsigned node)
{
    struct repl_member *m = peer_member(rig, node);
    memmove(m, m + 1, (size_t)(rig->members + --rig->member_count - m) * sizeof *m);
}

void peer_watermark(struct repl_rig *rig, unsigned node, unsigned log, struct log_chain durable)
{
    struct repl_member *m = peer_member(rig, node);
    const struct repl_watermark now = {peer_log(log), durable.next_lsn - 1, durable.position};
    size_t at = 0;
    while (at < m->watermark_count && !id16_equal(m->watermarks[at].log, now.log))
        at++;
    m->watermarks[at] = now;
    m->watermark_count += at == m->watermark_count;
}

void peer_hold(struct repl_rig *rig, unsigned log, struct log_chain durable, uint64_t first_lsn)
{
    size_t at = 0;
    while (at < rig->held_count && !id16_equal(rig->held[at].log, peer_log(log)))
        at++;
    rig->held[at] = (struct held_log){.log = peer_log(log), .durable = durable, .first_lsn = first_lsn};
    rig->held_count += at == rig->held_count;
}

void peer_tell_members(struct repl_rig *rig)
{
    repl_core_members(rig->core, rig->now_ns, rig->members, rig->member_count);
    collect(rig);
}

void peer_tell_logs(struct repl_rig *rig)
{
    rig->logs.boot = rig->boot;
    rig->logs.held = rig->held;
    rig->logs.count = rig->held_count;
    repl_core_logs(rig->core, rig->now_ns, &rig->logs);
    collect(rig);
}

void peer_tell_closed(struct repl_rig *rig, const struct repl_closed_log *closed, size_t count)
{
    repl_core_closed(rig->core, closed, count);
    peer_tell_logs(rig);
}

void peer_gone_told(struct repl_rig *rig, bool taken)
{
    repl_core_gone_told(rig->core, rig->now_ns, taken);
    collect(rig);
}

void peer_wait(struct repl_rig *rig, int64_t ms)
{
    int64_t end_ns = rig->now_ns + ms * NS_PER_MS, due_ns;
    while ((due_ns = repl_core_due_ns(rig->core)) <= end_ns) {
        rig->now_ns = due_ns > rig->now_ns ? due_ns : rig->now_ns;
        repl_core_tick(rig->core, rig->now_ns);
        collect(rig);
        assert_true(repl_core_due_ns(rig->core) > rig->now_ns);
        assert_true(++rig->ticks < TICKS_IN_A_ROW);
    }
    rig->now_ns = end_ns;
}

/* ---- actions ---- */

static struct repl_action take(struct repl_rig *rig, size_t index)
{
    struct repl_action action = rig->actions[index];
    rig->action_count--;
    memmove(rig->actions + index, rig->actions + index + 1, (rig->action_count - index) * sizeof action);
    return action;
}

struct repl_action peer_expect(struct repl_rig *rig, enum repl_action_kind kind)
{
    for (size_t i = 0; i < rig->action_count; i++)
        if (rig->actions[i].kind == kind)
            return take(rig, i);
    fail_msg("no action of kind %d", (int)kind);
    abort();
}

struct repl_action peer_expect_fetch(struct repl_rig *rig, unsigned log, unsigned node)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    for (size_t i = 0; i < rig->action_count; i++) {
        if (rig->actions[i].kind != REPL_FETCH || !id16_equal(rig->actions[i].fetch.log, peer_log(log)))
            continue;
        struct repl_action fetch = take(rig, i);
        assert_string_equal(fetch.id, id);
        assert_int_equal(fetch.port, RIG_BASE_PORT + 4);
        assert_true(id16_equal(fetch.fetch.from, peer_log(1)));
        return fetch;
    }
    fail_msg("no fetch of the log of n%u to %s", log, id);
    abort();
}

struct repl_action peer_expect_notice(struct repl_rig *rig, const char *text)
{
    for (size_t i = 0; i < rig->action_count; i++)
        if (rig->actions[i].kind == REPL_NOTICE && strstr(rig->actions[i].text, text) != NULL)
            return take(rig, i);
    fail_msg("no notice: %s", text);
    abort();
}

size_t peer_count(const struct repl_rig *rig, enum repl_action_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < rig->action_count; i++)
        count += rig->actions[i].kind == kind;
    return count;
}

size_t peer_fetches(const struct repl_rig *rig, unsigned log)
{
    size_t count = 0;
    for (size_t i = 0; i < rig->action_count; i++)
        count += rig->actions[i].kind == REPL_FETCH && id16_equal(rig->actions[i].fetch.log, peer_log(log));
    return count;
}

void peer_clear(struct repl_rig *rig)
{
    rig->action_count = 0;
}

/* ---- answers ---- */

/* Kept until the end: stores point into it. */
static struct slice encode(struct repl_rig *rig, uint32_t type, const void *message)
{
    assert_true(rig->body_count < RIG_BODIES_MAX);
    struct buf *body = &rig->bodies[rig->body_count++];
    msg_encode(type, message, body);
    return buf_slice(body);
}

bool peer_reply(struct repl_rig *rig, const struct repl_action *fetch, const struct msg_fetch_reply *reply)
{
    bool stores = repl_core_fetched(rig->core, rig->now_ns, fetch->slot, fetch->serial, MSG_fetch_reply,
                                    encode(rig, MSG_fetch_reply, reply));
    collect(rig);
    return stores;
}

bool peer_answer(struct repl_rig *rig, const struct repl_action *fetch, const struct model_log *source)
{
    const struct msg_fetch *f = &fetch->fetch;
    const struct repl_serve serve = {
        .log = f->log,
        .from = {f->lsn + 1, (uint32_t)f->checksum, f->position},
        .durable = model_log_durable(source),
        .anew = f->anew,
        .most_bytes = f->most_bytes,
        .most_entries = f->most_entries,
    };
    struct msg_fetch_reply reply;
    struct buf out = {0};
    model_log_serve(source, &serve, &out, &reply);
    bool stores = peer_reply(rig, fetch, &reply);
    buf_free(&out);
    return stores;
}

void peer_reply_state(struct repl_rig *rig, const struct repl_action *fetch, enum log_copy_state state,
                      struct log_chain at)
{
    const struct msg_fetch_reply reply = {
        .log = fetch->fetch.log,
        .state = state,
        .position = state == LOG_COPY_TRIMMED ? at.position : fetch->fetch.position,
        .lsn = state == LOG_COPY_TRIMMED ? at.next_lsn - 1 : 0,
        .checksum = state == LOG_COPY_FORKED ? at.checksum : 0,
        .durable_end = at.position,
        .durable_lsn = at.next_lsn - 1,
    };
    assert_false(peer_reply(rig, fetch, &reply));
}

void peer_error(struct repl_rig *rig, const struct repl_action *fetch, enum sh_error code)
{
    const struct msg_error error = {.code = code, .text = slice_str("because")};
    bool stores = repl_core_fetched(rig->core, rig->now_ns, fetch->slot, fetch->serial, MSG_error,
                                    encode(rig, MSG_error, &error));
    assert_false(stores);
    collect(rig);
}

void peer_fail(struct repl_rig *rig, const struct repl_action *fetch)
{
    repl_core_fetch_failed(rig->core, rig->now_ns, fetch->slot, fetch->serial);
    collect(rig);
}

void peer_stored(struct repl_rig *rig, const struct repl_action *store, struct log_chain durable)
{
    const struct msg_copy_append_reply reply = {.log = store->store.log,
                                                .end = durable.position,
                                                .lsn = durable.next_lsn - 1,
                                                .checksum = durable.checksum};
    repl_core_stored(rig->core, rig->now_ns, store->slot, store->store.bytes.len, MSG_copy_append_reply,
                     encode(rig, MSG_copy_append_reply, &reply));
    collect(rig);
}

void peer_not_stored(struct repl_rig *rig, const struct repl_action *store, enum sh_error code)
{
    const struct msg_error error = {.code = code, .text = slice_str("because")};
    repl_core_stored(rig->core, rig->now_ns, store->slot, store->store.bytes.len, MSG_error,
                     encode(rig, MSG_error, &error));
    collect(rig);
}

void peer_tell(struct repl_rig *rig, const struct repl_action *ask, uint32_t type, const void *message)
{
    assert_false(
        repl_core_fetched(rig->core, rig->now_ns, ask->slot, ask->serial, type, encode(rig, type, message)));
    collect(rig);
}

void peer_digests(struct repl_rig *rig, const struct repl_digest *own, size_t count)
{
    repl_core_digests(rig->core, rig->now_ns, own, count);
    collect(rig);
}

void peer_looked(struct repl_rig *rig, uint32_t type, const void *message)
{
    repl_core_looked(rig->core, rig->now_ns, type, encode(rig, type, message));
    collect(rig);
}

void peer_look_back(struct repl_rig *rig, const struct model_log *here)
{
    struct repl_action back = peer_expect(rig, REPL_LOOK_BACK);
    struct log_chain begins;
    assert_true(id16_equal(back.back.log, here->id));
    bool found = model_log_begins(here, back.back.position, &begins);
    repl_core_begins(rig->core, rig->now_ns, back.serial, found ? &begins : NULL);
    collect(rig);
}

void peer_compare(struct repl_rig *rig, const struct model_log *here)
{
    struct repl_action action = peer_expect(rig, REPL_FIND_FORK);
    struct repl_fork fork;
    assert_true(id16_equal(action.parts.log, here->id));
    bool good = model_log_parts(here, &action.parts, &fork);
    repl_core_parted(rig->core, rig->now_ns, action.serial, good ? &fork : NULL);
    collect(rig);
}

/* ---- others ask ---- */

void peer_served(struct repl_rig *rig, unsigned node, enum log_copy_state state)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    repl_core_served(rig->core, rig->now_ns, slice_str(id), peer_log(1), state);
    collect(rig);
}

void peer_ask_digests(struct repl_rig *rig, uint64_t token, unsigned node, const struct msg_digests *digests)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    repl_core_asked_digests(rig->core, rig->now_ns, token, slice_str(id), digests);
    collect(rig);
}

struct msg_fetch peer_fetch(unsigned from, unsigned log, struct log_chain at)
{
    return (struct msg_fetch){
        .from = peer_log(from),
        .log = peer_log(log),
        .position = at.position,
        .lsn = at.next_lsn - 1,
        .checksum = at.checksum,
        .most_bytes = REPL_FETCH_BYTES,
        .most_entries = UINT64_MAX,
        .wait_ms = REPL_WAIT_MS,
    };
}

void peer_ask(struct repl_rig *rig, uint64_t token, unsigned node, const struct msg_fetch *fetch)
{
    char id[16];
    snprintf(id, sizeof id, "n%u", node);
    repl_core_asked(rig->core, rig->now_ns, token, slice_str(id), fetch);
    collect(rig);
}

void peer_stranger(struct repl_rig *rig, enum repl_stranger reason, const char *sender)
{
    repl_core_stranger(rig->core, rig->now_ns, reason, slice_str(sender));
    collect(rig);
}

void peer_prove(struct repl_rig *rig, unsigned node, struct log_chain place)
{
    repl_core_proved(rig->core, peer_log(1), peer_log(node), &place);
    collect(rig);
}

void peer_position(struct repl_rig *rig, unsigned node, uint64_t lsn, uint64_t end)
{
    peer_position_at(rig, node, (struct log_chain){.next_lsn = lsn + 1, .position = end});
}

void peer_position_at(struct repl_rig *rig, unsigned node, struct log_chain place)
{
    char id[16];
    const struct msg_position position = {.from = peer_log(node),
                                          .log = peer_log(1),
                                          .lsn = place.next_lsn - 1,
                                          .end = place.position,
                                          .checksum = place.checksum};
    snprintf(id, sizeof id, "n%u", node);
    repl_core_position(rig->core, rig->now_ns, slice_str(id), &position);
    collect(rig);
}
