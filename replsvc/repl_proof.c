/* Whether another member has more of the own log than there is here, or something else: asked when the
 * machine was started anew, before the log is extended (walsvc/wal_proof.h).
 *
 * Each member is asked for what follows the end of the own log. One that has more, or another frame there,
 * settles it, and so does one that is known to have more, whether it can be asked or not; who can't be
 * reached is left out, as long as somebody answers. */
#include <stdio.h>

#include "log_reader_copy.h"
#include "repl_parts.h"

#define PROOF_ANSWER_NS NS_PER_S
#define PROOF_AGAIN_NS  (300 * (int64_t)NS_PER_MS)

static void settle(struct repl_core *core, uint64_t verdict, const char *text)
{
    struct repl_action *action = repl_put(core, REPL_OWN_LOG);
    action->verdict = verdict;
    snprintf(action->detail, sizeof action->detail, "%s", text);
    core->proof = (struct repl_proof){0};
}

void repl_proof_begin(struct repl_core *core, bool waits)
{
    if (waits != core->proof.waits)
        core->proof = (struct repl_proof){.waits = waits};
}

static void give_up_fetch(struct repl_core *core)
{
    if (core->proof.fetching)
        repl_put(core, REPL_CANCEL)->slot = REPL_PROOF_SLOT;
    core->proof.fetching = false;
}

void repl_proof_members(struct repl_core *core)
{
    give_up_fetch(core);
    core->proof = (struct repl_proof){.waits = core->proof.waits};
}

static void ask(struct repl_core *core, int64_t now_ns)
{
    const struct log_chain *end = &core->held[0].durable;
    struct repl_action *action = repl_put_question(core, REPL_FETCH, REPL_PROOF_SLOT, core->proof.member);
    core->proof.serial = action->serial;
    action->fetch = (struct msg_fetch){
        .from = core->own,
        .log = core->own,
        .position = end->position,
        .lsn = end->next_lsn - 1,
        .checksum = end->checksum,
        .most_bytes = 1,
        .most_entries = 1,
    };
    core->proof.fetching = true;
    core->proof.due_ns = now_ns + PROOF_ANSWER_NS;
}

static void settle_behind(struct repl_core *core, const char *id, uint64_t lsn, uint64_t verdict)
{
    char text[REPL_TEXT_MAX];
    snprintf(text, sizeof text, "%s has it up to LSN %llu, here it ends at %llu", id, (unsigned long long)lsn,
             (unsigned long long)core->held[0].durable.next_lsn - 1);
    settle(core, verdict, text);
}

/* By what members were heard to hold. */
static bool is_known_to_be_behind(struct repl_core *core)
{
    for (size_t i = 0; i < core->member_count; i++) {
        const struct repl_watermark *w = repl_watermark_of(&core->members[i], core->own);
        if (w == NULL || w->end <= core->held[0].durable.position)
            continue;
        settle_behind(core, core->members[i].id, w->lsn, 1);
        return true;
    }
    return false;
}

/* The next member; at the end the verdict, or another round when nobody has answered. */
void repl_proof_go(struct repl_core *core, int64_t now_ns)
{
    struct repl_proof *p = &core->proof;
    if (!p->waits || p->fetching || p->due_ns > now_ns || !core->knows_members || !core->knows_logs)
        return;
    if (is_known_to_be_behind(core))
        return;
    if (p->member < core->member_count) {
        ask(core, now_ns);
        return;
    }
    if (p->answers > 0 || core->member_count == 0) {
        settle(core, 0, "");
        return;
    }
    *p = (struct repl_proof){.waits = true, .due_ns = now_ns + PROOF_AGAIN_NS};
}

static void next(struct repl_core *core, int64_t now_ns, bool answered)
{
    core->proof.fetching = false;
    core->proof.due_ns = 0;
    core->proof.answers += answered;
    core->proof.member++;
    repl_proof_go(core, now_ns);
}

static bool is_expected(const struct repl_core *core, uint64_t serial)
{
    return core->proof.fetching && core->proof.serial == serial && core->proof.member < core->member_count;
}

void repl_proof_fetched(struct repl_core *core, int64_t now_ns, uint64_t serial, uint32_t type,
                        struct slice body)
{
    struct msg_fetch_reply reply;
    struct msg_error error;
    if (!is_expected(core, serial))
        return;
    const struct repl_member *m = &core->members[core->proof.member];
    if (type == MSG_error) { /* who never held the log has nothing more of it; a copy may be out of service */
        bool none = msg_decode(type, body, &error) == SH_OK && error.code == SH_NOT_FOUND;
        next(core, now_ns, none && repl_watermark_of(m, core->own) == NULL);
        return;
    }
    if (type != MSG_fetch_reply || msg_decode(type, body, &reply) != SH_OK ||
        !id16_equal(reply.log, core->own)) {
        next(core, now_ns, false);
        return;
    }
    if (reply.state == LOG_COPY_END || reply.state == LOG_COPY_BEHIND) {
        next(core, now_ns, true);
        return;
    }
    settle_behind(core, m->id, reply.durable_lsn, reply.state == LOG_COPY_FORKED ? 2 : 1);
}

void repl_proof_fetch_failed(struct repl_core *core, int64_t now_ns, uint64_t serial)
{
    if (is_expected(core, serial))
        next(core, now_ns, false);
}

void repl_proof_tick(struct repl_core *core, int64_t now_ns)
{
    if (core->proof.fetching && now_ns >= core->proof.due_ns) {
        give_up_fetch(core);
        next(core, now_ns, false);
    }
    repl_proof_go(core, now_ns);
}

int64_t repl_proof_due_ns(const struct repl_core *core)
{
    return core->proof.waits && core->proof.due_ns > 0 ? core->proof.due_ns : INT64_MAX;
}
