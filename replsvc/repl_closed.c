/* Closed logs, between the core and walsvc: which are closed, and which were dropped here. */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "repl_shell.h"

enum { PARTS = 5 };

/* ---- which are closed ---- */

void repl_wal_gone(struct repl_service *r, const struct msg_log_gone *gone)
{
    r->gone = repl_wal_ask(r, MSG_log_gone, gone);
}

/* A copy that has grown, or is not served now, is told again. */
static void on_gone(struct repl_service *r, uint32_t type, struct slice body)
{
    struct msg_error error = {0};
    r->gone = 0;
    if (type != MSG_log_gone_reply && msg_decode(MSG_error, body, &error) == SH_OK)
        log_debug("walsvc does not take that a log is closed",
                  log_text("error", sh_error_name((enum sh_error)error.code)), log_slice("text", error.text));
    repl_core_gone_told(r->core, clock_mono_ns(), type == MSG_log_gone_reply);
}

/* ---- which were dropped ---- */

static bool decode_one(struct mp *m, struct repl_closed_log *out)
{
    uint32_t parts;
    struct slice id;
    uint64_t end, lsn, checksum, dropped_ns;
    if (!mp_array(m, &parts) || parts < PARTS || !mp_bin(m, &id) || id.len != sizeof out->log.bytes ||
        !mp_uint(m, &end) || !mp_uint(m, &lsn) || !mp_uint(m, &checksum) || !mp_uint(m, &dropped_ns) ||
        lsn == UINT64_MAX)
        return false;
    *out = (struct repl_closed_log){.end = {lsn + 1, (uint32_t)checksum, end},
                                    .dropped_ns = (int64_t)dropped_ns};
    memcpy(out->log.bytes, id.data, id.len);
    for (uint32_t i = PARTS; i < parts; i++)
        if (!mp_skip(m))
            return false;
    return true;
}

static bool take_closed(struct repl_service *r, const struct msg_closed_logs_reply *reply)
{
    struct mp m = mp_of(reply->closed);
    uint32_t count;
    if (!mp_array(&m, &count) || count > REPL_CLOSED_MAX)
        return false;
    struct repl_closed_log *closed = xcalloc(REPL_CLOSED_MAX, sizeof *closed);
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++)
        good = decode_one(&m, &closed[i]);
    if (good) {
        repl_core_closed(r->core, closed, count);
        r->closed_version = reply->version;
    }
    free(closed);
    return good;
}

static void on_closed(struct repl_service *r, uint32_t type, struct slice body)
{
    struct msg_closed_logs_reply reply;
    r->closed_asked = 0;
    if (type == MSG_closed_logs_reply && msg_decode(type, body, &reply) == SH_OK && take_closed(r, &reply))
        repl_wal_ask_logs(r);
    else
        log_warn("walsvc does not say which closed logs it has dropped");
}

bool repl_closed_is_known(struct repl_service *r, const struct msg_logs_reply *logs)
{
    if (!id16_equal(logs->boot, r->closed_boot)) { /* versions count within one */
        r->closed_boot = logs->boot;
        r->closed_version = 0;
    }
    if (logs->closed == r->closed_version)
        return true;
    if (r->closed_asked == 0)
        r->closed_asked = repl_wal_ask(r, MSG_closed_logs, &(struct msg_closed_logs){0});
    return false;
}

bool repl_closed_on_answer(struct repl_service *r, uint64_t number, uint32_t type, struct slice body)
{
    if (number == r->gone)
        on_gone(r, type, body);
    else if (number == r->closed_asked)
        on_closed(r, type, body);
    else
        return false;
    return true;
}
