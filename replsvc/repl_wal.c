/* The link to walsvc: how far its logs are, frames for its copies, how far its own log is replicated. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "repl_shell.h"

/* From question to question when the answer was there at once, since the log moves faster than it is looked
 * at: what waits for a fetch is sent with what comes meanwhile. An answer that had to be waited for is
 * followed by the next question at once, or a single caller, who waits for a quorum each time, would wait for
 * that too.
 */
#define LOGS_PAUSE_NS   (NS_PER_MS / 2)
#define LOGS_AT_ONCE_NS (NS_PER_MS / 10)
#define LOGS_AGAIN_NS   (100 * (int64_t)NS_PER_MS)
#define LOGS_ALONE_NS                                                                                        \
    (100 * (int64_t)NS_PER_MS) /* nobody waits for what is appended: it isn't to cost an append */
enum { STORE_BYTES_KEY = 3, REPAIR_BYTES_KEY = 4, HEAD_MAX = 192 };

/* What the core lets through, walsvc's link takes. */
_Static_assert(HEAD_MAX + REPL_BYTES_MAX + MSG_ENVELOPE_MAX <= REPL_MESSAGE_MAX,
               "a store fits into a message");

static uint64_t ask(struct repl_service *r, uint32_t type, const void *message)
{
    uint64_t number;
    r->body.len = 0;
    msg_encode(type, message, &r->body);
    enum sh_error e = link_client_send(r->wal, type, 0, buf_slice(&r->body), (struct slice){0}, &number);
    assert(e == SH_OK); /* few are outstanding, and the queue is larger than all windows */
    return number;
}

uint64_t repl_wal_ask(struct repl_service *r, uint32_t type, const void *message)
{
    return ask(r, type, message);
}

/* ---- what others have of the own log ---- */

void repl_wal_own_log(struct repl_service *r, const struct repl_action *action)
{
    const struct msg_own_log message = {.verdict = action->verdict, .text = slice_str(action->detail)};
    r->own_log = ask(r, MSG_own_log, &message);
}

static void on_own_log(struct repl_service *r, uint32_t type, struct slice body)
{
    struct msg_error error;
    r->own_log = 0;
    if (type == MSG_own_log_reply)
        return;
    if (msg_decode(MSG_error, body, &error) == SH_OK)
        log_warn("walsvc does not take what others have of its log; told again later",
                 log_text("error", sh_error_name((enum sh_error)error.code)), log_slice("text", error.text));
    repl_core_not_told(r->core, clock_mono_ns());
}

/* ---- holds ---- */

enum { HOLD_MEMBER = 1 }; /* of `hold` */

void repl_wal_hold(struct repl_service *r, const struct repl_action *action)
{
    const struct msg_hold hold = {.log = action->hold.log,
                                  .name = slice_str(action->id),
                                  .kind = HOLD_MEMBER,
                                  .lsn = action->hold.lsn,
                                  .remove = action->hold.remove};
    ask(r, MSG_hold, &hold);
}

static void on_hold_refused(struct repl_service *r, struct slice body)
{
    struct msg_error error;
    repl_core_hold_refused(r->core);
    if (msg_decode(MSG_error, body, &error) == SH_OK)
        log_warn("walsvc does not keep what a member needs",
                 log_text("error", sh_error_name((enum sh_error)error.code)), log_slice("text", error.text));
}

/* Holds of members that have left since: once, when the members are known. */
static void look_at_holds(struct repl_service *r, const struct held_log *logs, size_t count)
{
    if (r->holds_looked_at || r->nodes_told.len == 0)
        return;
    r->holds_looked_at = true;
    for (size_t i = 0; i < count; i++)
        ask(r, MSG_wal_info, &(struct msg_wal_info){.log = logs[i].log});
}

static void on_wal_info(struct repl_service *r, struct slice body)
{
    struct msg_wal_info_reply reply;
    uint32_t count, parts;
    uint64_t kind;
    struct slice name;
    if (msg_decode(MSG_wal_info_reply, body, &reply) != SH_OK)
        return;
    struct mp m = mp_of(reply.holds);
    if (!mp_array(&m, &count))
        return;
    for (uint32_t i = 0; i < count; i++) {
        if (!mp_array(&m, &parts) || parts < 2 || !mp_uint(&m, &kind) || !mp_str(&m, &name))
            return;
        if (kind == HOLD_MEMBER && repl_members_has_left(buf_slice(&r->nodes_told), name))
            repl_core_found_hold(r->core, reply.log, name);
        for (uint32_t k = 2; k < parts; k++)
            if (!mp_skip(&m))
                return;
    }
}

/* ---- how far its logs are ---- */

static void watch(void *arg)
{
    struct repl_service *r = arg;
    const struct msg_logs logs = {
        .boot = r->wal_boot, .newer_than = r->logs_version, .wait_ms = LINK_POLL_MS};
    r->logs_asked_ns = clock_mono_ns();
    r->logs = ask(r, MSG_logs, &logs);
}

static void watch_again(struct repl_service *r, bool good)
{
    int64_t now_ns = clock_mono_ns(), due_ns = r->logs_asked_ns;
    if (repl_core_is_alone(r->core))
        due_ns += LOGS_ALONE_NS;
    else if (now_ns - due_ns < LOGS_AT_ONCE_NS)
        due_ns += LOGS_PAUSE_NS;
    if (!good)
        due_ns = now_ns + LOGS_AGAIN_NS;
    if (due_ns <= now_ns)
        watch(r);
    else
        loop_timer_set(r->service->loop, &r->logs_timer, due_ns);
}

void repl_wal_ask_logs(struct repl_service *r)
{
    if (r->logs_again == 0)
        r->logs_again = ask(r, MSG_logs, &(struct msg_logs){0});
}

static bool decode_logs(struct slice bytes, struct held_log logs[REPL_LOGS_MAX], size_t *count)
{
    struct mp m = mp_of(bytes);
    uint32_t entries;
    if (!mp_array(&m, &entries) || entries == 0)
        return false;
    *count = entries < REPL_LOGS_MAX ? entries : REPL_LOGS_MAX;
    for (size_t i = 0; i < *count; i++)
        if (!held_log_next(&m, &logs[i]))
            return false;
    return true;
}

/* Of [position, checksum] each, only the checksums are compared. */
static bool decode_given_up(struct slice bytes, struct repl_logs *out)
{
    struct mp m = mp_of(bytes);
    uint32_t entries = 0, parts;
    uint64_t position, checksum;
    if (bytes.len > 0 && (!mp_array(&m, &entries) || entries > GIVEN_UP_MAX))
        return false;
    for (uint32_t i = 0; i < entries; i++) {
        if (!mp_array(&m, &parts) || parts != 2 || !mp_uint(&m, &position) || !mp_uint(&m, &checksum) ||
            checksum > UINT32_MAX)
            return false;
        out->given_up[out->given_up_count++] = (uint32_t)checksum;
    }
    return true;
}

/* False: it makes no sense; asked again later. */
static bool on_logs(struct repl_service *r, uint32_t type, struct slice body)
{
    struct msg_logs_reply reply;
    struct held_log logs[REPL_LOGS_MAX];
    struct repl_logs told = {.held = logs};
    size_t count;
    bool is_read = type == MSG_logs_reply && msg_decode(type, body, &reply) == SH_OK;
    bool good = is_read && decode_logs(reply.logs, logs, &count) && decode_given_up(reply.given_up, &told);
    if (is_read && reply.own_copy && (!good || !id16_equal(logs[0].log, r->identity.log)))
        return false; /* the own log's copy is being opened */
    if (!good) {
        log_warn("walsvc does not say how far its logs are");
        return false;
    }
    if (!id16_equal(logs[0].log, r->identity.log)) {
        log_error("walsvc serves another log: the data directory was replaced; restarting");
        service_stop(r->service, EXIT_FAULT);
        return false;
    }
    if (id16_equal(reply.boot, r->wal_boot) && reply.version < r->logs_version)
        return true; /* the other one was faster */
    if (!repl_closed_is_known(r, &reply))
        return false;
    r->wal_boot = reply.boot;
    r->logs_version = reply.version;
    told.count = count;
    told.boot = reply.boot;
    told.waits = reply.waits;
    told.own_copy = reply.own_copy;
    repl_core_logs(r->core, clock_mono_ns(), &told);
    look_at_holds(r, logs, count);
    return true;
}

/* ---- damage ---- */

static void ask_damage(struct repl_service *r, uint64_t from)
{
    r->damage.from = from;
    r->damage.number = ask(r, MSG_wal_info, &(struct msg_wal_info){.log = r->damage.ask.log, .from = from});
}

void repl_wal_ask_damage(struct repl_service *r, const struct repl_action *action)
{
    r->damage.ask = action->damaged;
    ask_damage(r, action->damaged.segment);
}

static void on_damage(struct repl_service *r, uint32_t type, struct slice body)
{
    struct msg_wal_info_reply reply;
    struct repl_damage damage = {0};
    r->damage.number = 0;
    if (type == MSG_wal_info_reply && msg_decode(type, body, &reply) == SH_OK &&
        !repl_damage_find(&reply, &r->damage.ask, r->damage.from, &damage))
        ask_damage(r, damage.segment);
    else
        repl_core_damage(r->core, clock_mono_ns(), r->damage.ask.log, &damage);
}

void repl_wal_repair(struct repl_service *r, const struct repl_action *action)
{
    const struct msg_repair message = {.log = action->repair.log,
                                       .segment = action->repair.segment,
                                       .offset = action->repair.offset,
                                       .bytes = action->repair.bytes};
    r->body.len = 0;
    msg_encode_head(MSG_repair, &message, REPAIR_BYTES_KEY, &r->body);
    enum sh_error e = link_client_send(r->wal, MSG_repair, 0, buf_slice(&r->body), message.bytes, &r->repair);
    assert(e == SH_OK);
    r->repairing = r->fetched;
    r->fetched = NULL;
}

static void on_repair(struct repl_service *r, uint32_t type, struct slice body)
{
    struct repl_fetched *fetched = r->repairing;
    r->repair = 0;
    r->repairing = NULL;
    repl_core_repaired(r->core, clock_mono_ns(), type, body);
    repl_fetched_free(fetched);
}

/* ---- segments that another member has otherwise ---- */

void repl_wal_look(struct repl_service *r, const struct msg_look *look)
{
    r->look = ask(r, MSG_look, look);
}

static void on_look(struct repl_service *r, uint32_t type, struct slice body)
{
    r->look = 0;
    repl_core_looked(r->core, clock_mono_ns(), type, body);
}

/* ---- frames of copies ---- */

void repl_wal_store(struct repl_service *r, const struct repl_action *action)
{
    struct buf given_up = {0};
    if (action->store.given_up_count > 0)
        given_up_pack(action->store.given_up, action->store.given_up_count, &given_up);
    const struct msg_copy_append message = {
        .log = action->store.log,
        .position = action->store.position,
        .bytes = action->store.bytes,
        .anew = action->store.anew,
        .over = action->store.over,
        .given_up = buf_slice(&given_up),
    };
    struct repl_store_out *store = xcalloc(1, sizeof *store);
    r->body.len = 0;
    msg_encode_head(MSG_copy_append, &message, STORE_BYTES_KEY, &r->body);
    enum sh_error e =
        link_client_send(r->wal, MSG_copy_append, 0, buf_slice(&r->body), message.bytes, &store->number);
    assert(e == SH_OK);
    store->slot = action->slot;
    buf_free(&given_up);
    store->log = action->store.log;
    store->over = action->store.over;
    store->bytes = message.bytes.len;
    store->fetched = r->fetched;
    store->next = r->stores;
    r->stores = store;
    r->fetched = NULL;
}

static bool on_store(struct repl_service *r, uint64_t number, uint32_t type, struct slice body)
{
    for (struct repl_store_out **at = &r->stores; *at != NULL; at = &(*at)->next) {
        struct repl_store_out *store = *at;
        if (store->number != number)
            continue;
        *at = store->next;
        if (store->over) /* what was read before may have been replaced */
            repl_source_forget(r, store->log);
        repl_core_stored(r->core, clock_mono_ns(), store->slot, store->bytes, type, body);
        repl_fetched_free(store->fetched);
        free(store);
        return true;
    }
    return false;
}

/* ---- how far the own log is replicated ---- */

/* One is out at a time: the newest one says all. */
void repl_wal_replicated(struct repl_service *r, const struct msg_replicated *replicated)
{
    r->to_tell = *replicated;
    r->is_to_tell = r->replicated != 0;
    if (r->replicated == 0)
        r->replicated = ask(r, MSG_replicated, replicated);
}

static void on_replicated(struct repl_service *r, uint32_t type, struct slice body)
{
    struct msg_error error = {0};
    r->replicated = 0;
    if (type != MSG_replicated_reply) {
        msg_decode(MSG_error, body, &error);
        log_warn("walsvc does not take how far its log is replicated",
                 log_text("error", sh_error_name((enum sh_error)error.code)), log_slice("text", error.text));
    }
    if (r->is_to_tell)
        repl_wal_replicated(r, &r->to_tell);
}

/* ---- the link ---- */

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct repl_service *r = arg;
    if (number == r->replicated) {
        on_replicated(r, type, body);
    } else if (number == r->logs_again) {
        r->logs_again = 0;
        on_logs(r, type, body);
    } else if (number == r->logs) {
        watch_again(r, on_logs(r, type, body));
    } else if (number == r->damage.number) {
        on_damage(r, type, body);
    } else if (number == r->repair) {
        on_repair(r, type, body);
    } else if (number == r->look) {
        on_look(r, type, body);
    } else if (number == r->own_log) {
        on_own_log(r, type, body);
    } else if (!repl_closed_on_answer(r, number, type, body) && !on_store(r, number, type, body)) {
        if (type == MSG_wal_info_reply)
            on_wal_info(r, body);
        else if (type == MSG_error)
            on_hold_refused(r, body);
    }
}

static void on_state(void *arg, bool connected)
{
    (void)arg;
    log_info(connected ? "walsvc answers" : "walsvc is lost");
}

enum sh_error repl_wal_open(struct repl_service *r)
{
    struct link_client_options options = {
        .loop = r->service->loop,
        .endpoint = r->wal_endpoint,
        .message_bytes = link_server_default_limits().message_bytes,
        .queue_bytes = (size_t)REPL_LOGS_MAX * (REPL_WINDOW_BYTES + REPL_MESSAGE_MAX),
        .cluster = r->service->cluster,
        .sender = slice_str(r->service->config->self->id),
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = r,
    };
    r->logs_timer = (struct loop_timer){.fn = watch, .arg = r};
    enum sh_error e = link_client_open(&options, &r->wal);
    if (e == SH_OK)
        watch(r);
    return e;
}

void repl_wal_close(struct repl_service *r)
{
    if (r->wal == NULL)
        return;
    loop_timer_cancel(r->service->loop, &r->logs_timer);
    link_client_close(r->wal);
    if (r->repairing != NULL)
        repl_fetched_free(r->repairing);
    while (r->stores != NULL) {
        struct repl_store_out *store = r->stores;
        r->stores = store->next;
        repl_fetched_free(store->fetched);
        free(store);
    }
}
