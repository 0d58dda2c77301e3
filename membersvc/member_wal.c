/* The link to walsvc: how far all logs that the node holds are durable, for the others to know, and whether
 * its own may grow. */
#include <assert.h>
#include <string.h>

#include "held_log.h"
#include "log.h"
#include "member_shell.h"

/* Watermarks travel with heartbeats and gossip, which are slower. */
#define WATCH_PAUSE_NS (500 * (int64_t)NS_PER_MS)

/* At most one long poll and two permits are outstanding, so the queue's bound is out of reach. */
static uint64_t ask(struct member_service *m, uint32_t type, const void *message)
{
    uint64_t number;
    m->body.len = 0;
    msg_encode(type, message, &m->body);
    enum sh_error e = link_client_send(m->wal, type, 0, buf_slice(&m->body), (struct slice){0}, &number);
    assert(e == SH_OK);
    return number;
}

/* ---- the permit ---- */

static bool may_write(enum member_state state)
{
    return state != MEMBER_HAS_LEFT && state != MEMBER_REPLACED;
}

void member_wal_turn(struct member_service *m)
{
    struct member_self self = member_core_self(m->core);
    bool allowed = may_write(self.state);
    if (!link_client_is_connected(m->wal) || (allowed == m->may_write && !m->permit_is_due))
        return;
    if (m->permit != 0)
        link_client_forget(m->wal, m->permit);
    struct msg_write_permit permit = {.allowed = allowed};
    if (!allowed)
        permit.reason = slice_str(self.state == MEMBER_HAS_LEFT
                                      ? "the node has left its cluster; it joins again by `node join`"
                                      : "another identity has taken this node's place in the cluster");
    m->permit = ask(m, MSG_write_permit, &permit);
    m->permit_is_due = false;
    m->may_write = allowed;
}

static void on_permit_answer(struct member_service *m, uint32_t type, struct slice body)
{
    struct msg_error error = {0};
    m->permit = 0;
    if (type == MSG_write_permit_reply) {
        log_debug("walsvc has the permit to write", log_text("allowed", m->may_write ? "yes" : "no"));
        return;
    }
    if (type == MSG_error && msg_decode(type, body, &error) != SH_OK)
        error.code = SH_INTERNAL;
    log_warn("walsvc did not take the permit to write", log_text("allowed", m->may_write ? "yes" : "no"),
             log_text("error", sh_error_name((enum sh_error)error.code)), log_slice("text", error.text));
}

/* ---- the watermarks ---- */

static void watch(void *arg)
{
    struct member_service *m = arg;
    struct msg_logs ask_for = {.boot = m->wal_boot, .newer_than = m->logs_version, .wait_ms = LINK_POLL_MS};
    m->watch = ask(m, MSG_logs, &ask_for);
}

/* The node's own log comes first. */
static void take_logs(struct member_service *m, struct slice logs)
{
    struct mp p = mp_of(logs);
    struct held_log held;
    struct id16 all[MEMBER_WATERMARKS_MAX];
    size_t all_count = 0;
    uint32_t count;
    bool good = mp_array(&p, &count);
    for (uint32_t i = 0; good && i < count && (good = held_log_next(&p, &held)); i++) {
        const struct member_watermark mark = {
            .log = held.log, .lsn = held.durable.next_lsn - 1, .end = held.durable.position};
        if (i == 0 && !id16_equal(mark.log, m->identity.log)) {
            log_error("walsvc serves another log: the data directory was replaced; restarting");
            service_stop(m->service, EXIT_FAULT);
            return;
        }
        member_core_watermark(m->core, member_now(), &mark);
        if (all_count < MEMBER_WATERMARKS_MAX)
            all[all_count++] = mark.log;
    }
    if (good)
        member_core_holdings(m->core, member_now(), all, all_count);
    else
        log_warn("walsvc tells its logs in a way that membersvc does not know");
}

static void on_logs(struct member_service *m, uint32_t type, struct slice body)
{
    struct msg_logs_reply reply;
    loop_timer_after(m->service->loop, &m->watch_again, WATCH_PAUSE_NS);
    if (type != MSG_logs_reply || msg_decode(type, body, &reply) != SH_OK)
        return;
    if (reply.version == m->logs_version && id16_equal(reply.boot, m->wal_boot))
        return; /* the wait was over */
    m->wal_boot = reply.boot;
    m->logs_version = reply.version;
    take_logs(m, reply.logs);
}

/* ---- the link ---- */

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct member_service *m = arg;
    if (number == m->permit)
        on_permit_answer(m, type, body);
    else if (number == m->watch)
        on_logs(m, type, body);
}

static void on_state(void *arg, bool connected)
{
    struct member_service *m = arg;
    log_info(connected ? "walsvc answers" : "walsvc is lost");
    m->permit_is_due = true;
}

enum sh_error member_wal_open(struct member_service *m)
{
    struct link_client_options options = {
        .loop = m->service->loop,
        .endpoint = m->wal_link,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = 64 << 10,
        .cluster = m->service->cluster,
        .sender = slice_str(m->service->config->self->id),
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = m,
    };
    m->may_write = true;
    m->permit_is_due = true;
    m->watch_again = (struct loop_timer){.fn = watch, .arg = m};
    enum sh_error e = link_client_open(&options, &m->wal);
    if (e == SH_OK)
        watch(m);
    return e;
}

void member_wal_close(struct member_service *m)
{
    if (m->wal == NULL)
        return;
    loop_timer_cancel(m->service->loop, &m->watch_again);
    link_client_close(m->wal);
}
