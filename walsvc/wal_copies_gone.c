/* Closed logs: which copies are, and their end. Only a full disk is not fatal here. */
#include <inttypes.h>
#include <string.h>

#include "log.h"
#include "wal_copies_parts.h"
#include "wal_drop.h"
#include "wal_fatal.h"

enum { REFUSAL_TEXT_MAX = 160 };

/* ---------------------------------------------------------------- log_gone */

static void answer(const struct wal_copies *s, struct link_token token)
{
    struct buf body = {0};
    msg_encode(MSG_log_gone_reply, &(struct msg_log_gone_reply){0}, &body);
    link_server_answer(s->options.link, token, MSG_log_gone_reply, buf_slice(&body));
    buf_free(&body);
}

/* Out of the register, durably: a copy may begin. */
static void live_again(const struct wal_copies *s, struct id16 log, struct wal_refusal *refusal)
{
    int result = wal_closed_remove(s->options.closed, log);
    if (wal_is_full(result)) {
        wal_refuse(refusal, SH_DISK_FULL, 0, "no room for the register of closed logs");
        return;
    }
    if (result < 0)
        wal_fatal("cannot write the register of closed logs; ending at once", s->options.dir->data, result);
    wal_logs_closed(s->options.logs, wal_closed_version(s->options.closed));
}

static bool ends_there(const struct copy *copy, const struct msg_log_gone *m)
{
    const struct wal_durable *durable = &copy->set->options.logs->all[copy->index].durable;
    return durable->end == m->end && durable->lsn == m->lsn && durable->checksum == m->checksum;
}

static void take_gone(struct wal_copies *s, const struct msg_log_gone *m, struct wal_refusal *refusal)
{
    struct copy *copy = wal_copies_copy(s, m->log);
    struct wal_closed_log closed;
    bool is_closed = wal_closed_find(s->options.closed, m->log, &closed);
    if (id16_is_zero(m->log) || id16_equal(m->log, s->options.dir->identity.log))
        wal_refuse(refusal, SH_BAD_REQUEST, 0, "not the log of another node");
    else if (copy != NULL && (!copy->told || copy->state != SH_OK || copy->drops))
        wal_refuse(refusal, SH_UNAVAILABLE, 0, "the copy is not served now, or is being dropped");
    else if (copy == NULL && m->gone && !is_closed)
        wal_refuse(refusal, SH_NOT_FOUND, 0, "walsvc does not hold that log");
    else if (copy != NULL && m->gone && !ends_there(copy, m))
        wal_refuse(refusal, SH_CONFLICT, 0, "the copy ends at another place");
    else if (copy == NULL && !m->gone)
        live_again(s, m->log, refusal);
    if (refusal->code != SH_OK || copy == NULL)
        return;
    const struct wal_gone gone = {m->gone, m->end, m->lsn, (uint32_t)m->checksum};
    wal_copier_gone(copy->copier, &gone);
}

static void on_gone(struct wal_copies *s, const struct link_request *request)
{
    struct msg_log_gone m;
    struct wal_refusal refusal = {0};
    enum sh_error error = msg_decode(MSG_log_gone, request->body, &m);
    if (!request->local)
        wal_refuse(&refusal, SH_FORBIDDEN, 0, "only on the node itself");
    else if (error != SH_OK)
        wal_refuse(&refusal, error, 0, "not a well-formed log_gone");
    else
        take_gone(s, &m, &refusal);
    if (refusal.code != SH_OK)
        wal_copies_refuse(s, request->token, &refusal);
    else
        answer(s, request->token);
}

/* ---------------------------------------------------------------- dropping */

void wal_copies_drop_copy(struct wal_copies *s, struct id16 log)
{
    struct copy *copy = wal_copies_copy(s, log);
    struct wal_mend *mend = *s->options.mend;
    if (copy == NULL || !copy->told || copy->state != SH_OK || copy->drops || s->has_stopped ||
        mend == NULL || !wal_mend_forget(mend, wal_copier_store(copy->copier)))
        return;
    copy->drops = true;
    s->options.logs->all[copy->index].damage = NULL; /* it goes before the copier says so */
    wal_copier_drop(copy->copier);
}

void wal_copies_dropped(struct copy *copy, const struct wal_copy_news *news)
{
    struct wal_copies *s = copy->set;
    struct wal_logs *logs = s->options.logs;
    copy->drops = false;
    if (news->stays) {
        logs->all[copy->index].damage = wal_copier_store(copy->copier)->damage;
        return;
    }
    if (!s->has_stopped)
        wal_copier_stop(copy->copier);
    wal_copier_free(copy->copier);
    copy->copier = NULL;
    wal_logs_remove(logs, copy->index);
    wal_logs_closed(logs, wal_closed_version(s->options.closed));
}

bool wal_copies_drop_rest(struct wal_copies *s, struct id16 log)
{
    const struct wal_dir *dir = s->options.dir;
    struct wal_closed_log closed;
    char uuid[ID_TEXT], logs[PATH_MAX], path[PATH_MAX];
    bool must_end;
    if (!wal_closed_find(s->options.closed, log, &closed))
        return false;
    id16_format(log, uuid);
    vfs_parent(dir->log, logs);
    vfs_path(path, logs, uuid);
    int result = wal_drop_folder(dir->fs, path, &must_end);
    if (must_end)
        wal_fatal("cannot sync the folder of a copy that is dropped; ending at once", path, result);
    if (result < 0)
        log_error("the folder of a dropped copy cannot be removed; the next start tries again",
                  log_text("dir", path), log_text("error", strerror(-result)));
    return true;
}

/* ---------------------------------------------------------------- the register */

bool wal_copies_may_begin(struct wal_copies *s, struct link_token token, struct id16 log)
{
    struct wal_closed_log closed;
    struct wal_refusal refusal;
    char text[REFUSAL_TEXT_MAX];
    if (!wal_closed_find(s->options.closed, log, &closed))
        return true;
    snprintf(text, sizeof text, "the log was closed at LSN %" PRIu64 ", and its copy here was dropped",
             closed.lsn);
    wal_refuse(&refusal, SH_TRIMMED, closed.lsn + 1, text);
    wal_copies_refuse(s, token, &refusal);
    return false;
}

static void on_closed_logs(struct wal_copies *s, const struct link_request *request)
{
    struct buf body = {0}, closed = {0};
    struct msg_closed_logs_reply reply = {0};
    wal_closed_pack(s->options.closed, &closed, &reply.version);
    reply.closed = buf_slice(&closed);
    msg_encode(MSG_closed_logs_reply, &reply, &body);
    link_server_answer(s->options.link, request->token, MSG_closed_logs_reply, buf_slice(&body));
    buf_free(&body);
    buf_free(&closed);
}

bool wal_copies_on_closed(struct wal_copies *s, const struct link_request *request)
{
    if (request->type == MSG_log_gone)
        on_gone(s, request);
    if (request->type == MSG_closed_logs)
        on_closed_logs(s, request);
    return request->type == MSG_log_gone || request->type == MSG_closed_logs;
}
