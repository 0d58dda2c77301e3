/* The places of all logs. Nothing here is fatal but a broken invariant. */
#include "wal_logs.h"

#include <assert.h>

#include "held_log.h"

void wal_logs_free(struct wal_logs *l)
{
    wal_polls_free(&l->polls);
}

static void answer(struct wal_logs *l, struct link_token token)
{
    struct buf places = {0}, given_up = {0};
    msgpack_packer pk;
    uint32_t served = 0;
    for (size_t i = 0; i < l->count; i++)
        served += !l->all[i].is_hidden;
    mp_packer(&pk, &places);
    msgpack_pack_array(&pk, served);
    for (size_t i = 0; i < l->count; i++) {
        const struct wal_log_place *place = &l->all[i];
        if (place->is_hidden)
            continue;
        const struct held_log held = {
            .log = place->log,
            .durable = {place->durable.lsn + 1, place->durable.checksum, place->durable.end},
            .first_lsn = place->first_lsn,
            .damaged = place->damage != NULL ? wal_damage_open_ranges(place->damage) : 0,
        };
        held_log_pack(&pk, &held);
    }
    if (l->given_up.count > 0)
        wal_given_up_pack(&l->given_up, &given_up);
    struct msg_logs_reply reply = {
        .boot = l->boot,
        .version = l->version,
        .waits = l->waits,
        .closed = l->closed,
        .own_copy = l->own_copy,
        .given_up = buf_slice(&given_up),
        .logs = buf_slice(&places),
    };
    l->reply(l->arg, token, &reply);
    buf_free(&places);
    buf_free(&given_up);
}

/* Answers those who wait for a later version, or whose time is over. */
static void answer_polls(struct wal_logs *l, int64_t now_ns)
{
    for (size_t i = 0; l->opening == 0 && i < l->polls.count;) {
        struct wal_poll poll = l->polls.all[i];
        if (poll.newer_than >= l->version && poll.due_ns > now_ns) {
            i++;
            continue;
        }
        wal_polls_remove(&l->polls, i);
        answer(l, poll.token);
    }
}

static void changed(struct wal_logs *l)
{
    l->version++;
    if (l->polls.count > 0)
        answer_polls(l, INT64_MIN);
}

void wal_logs_ask(struct wal_logs *l, struct link_token token, const struct msg_logs *request, int64_t now_ns)
{
    bool is_news = request->newer_than < l->version || !id16_equal(request->boot, l->boot);
    struct wal_poll poll = {
        .token = token,
        .newer_than = is_news ? 0 : request->newer_than,
        .due_ns = now_ns + (int64_t)request->wait_ms * NS_PER_MS,
    };
    if (l->opening == 0 && (is_news || request->wait_ms == 0))
        answer(l, token);
    else
        wal_polls_add(&l->polls, &poll);
}

size_t wal_logs_add(struct wal_logs *l, struct id16 log)
{
    size_t at = 0;
    while (at < l->count && !l->all[at].is_free)
        at++;
    assert(at < WAL_LOGS_MAX);
    l->all[at] = (struct wal_log_place){.log = log, .first_lsn = 1, .is_hidden = true};
    l->count += at == l->count;
    l->opening++;
    return at;
}

void wal_logs_remove(struct wal_logs *l, size_t index)
{
    l->all[index] = (struct wal_log_place){.is_hidden = true, .is_free = true};
    changed(l);
}

void wal_logs_closed(struct wal_logs *l, uint64_t version)
{
    if (version == l->closed)
        return;
    l->closed = version;
    changed(l);
}

void wal_logs_opened(struct wal_logs *l)
{
    assert(l->opening > 0);
    l->opening--;
}

void wal_logs_moved(struct wal_logs *l, size_t index, const struct wal_durable *durable)
{
    l->all[index].durable = *durable;
    changed(l);
}

void wal_logs_trimmed(struct wal_logs *l, struct id16 log, uint64_t first_lsn)
{
    for (size_t i = 0; i < l->count; i++) {
        if (!id16_equal(l->all[i].log, log) || first_lsn <= l->all[i].first_lsn)
            continue;
        l->all[i].first_lsn = first_lsn;
        changed(l);
    }
}

void wal_logs_proved(struct wal_logs *l)
{
    l->waits = false;
    changed(l);
}

void wal_logs_drop(struct wal_logs *l, uint64_t session)
{
    wal_polls_drop(&l->polls, session);
}

void wal_logs_tick(struct wal_logs *l, int64_t now_ns)
{
    answer_polls(l, now_ns);
}

int64_t wal_logs_due_ns(const struct wal_logs *l)
{
    return l->opening == 0 ? wal_polls_due_ns(&l->polls) : INT64_MAX;
}
