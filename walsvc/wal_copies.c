/* The set of copies. Nothing here is fatal but a broken invariant. */
#include "wal_copies_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

enum { RETRY_MS = 1000 };

struct copy_mail {
    struct mail mail;
    struct copy *copy;
    struct wal_copy_news news;
};

/* ---------------------------------------------------------------- from the copiers */

static void post_news(void *arg, const struct wal_copy_news *news)
{
    struct copy *copy = arg;
    struct copy_mail *mail = xmalloc(sizeof *mail);
    *mail = (struct copy_mail){.copy = copy, .news = *news};
    mailbox_put(&copy->set->mailbox, &mail->mail);
}

void wal_copies_refuse(const struct wal_copies *s, struct link_token token, const struct wal_refusal *refusal)
{
    struct msg_error error = {
        .code = refusal->code,
        .text = slice_str(refusal->text),
        .expected = refusal->expected,
        .retry_ms = refusal->code == SH_DISK_FULL || refusal->code == SH_UNAVAILABLE ? RETRY_MS : 0,
    };
    link_server_refuse(s->options.link, token, &error);
}

static void answer(const struct copy *copy, const struct wal_copy_answer *answer,
                   const struct wal_durable *durable)
{
    struct buf body = {0};
    struct msg_copy_append_reply reply = {
        .log = copy->log, .end = durable->end, .lsn = durable->lsn, .checksum = durable->checksum};
    if (answer->refusal.code != SH_OK) {
        wal_copies_refuse(copy->set, answer->token, &answer->refusal);
        return;
    }
    msg_encode(MSG_copy_append_reply, &reply, &body);
    link_server_answer(copy->set->options.link, answer->token, MSG_copy_append_reply, buf_slice(&body));
    buf_free(&body);
}

static bool is_own(const struct wal_copies *s, struct id16 log)
{
    return id16_equal(log, s->options.dir->identity.log);
}

/* Of the own log nothing is told before it is served: who asks takes the first log for the own one. */
static void take_own(struct copy *copy, const struct wal_copy_news *news)
{
    struct wal_copies *s = copy->set;
    s->options.logs->given_up = news->given_up;
    s->options.on_own(s->options.arg, news->state, &news->durable);
}

static void take_news(struct copy *copy, const struct wal_copy_news *news)
{
    struct wal_logs *logs = copy->set->options.logs;
    struct wal_log_place *place = &logs->all[copy->index];
    for (size_t i = 0; i < news->count; i++)
        answer(copy, &news->answers[i], &news->durable);
    if (news->stays || news->state == SH_NOT_FOUND) {
        wal_copies_dropped(copy, news);
        return;
    }
    if (is_own(copy->set, copy->log))
        take_own(copy, news);
    if (is_own(copy->set, copy->log) && news->state != SH_OK)
        return;
    wal_copier_store(copy->copier)->cuts_told = news->cuts;
    bool was_told = copy->told, changes = news->state != copy->state || news->first_lsn != 0;
    copy->told = true;
    copy->state = news->state;
    place->is_hidden = news->state != SH_OK;
    place->damage = news->state == SH_OK && !copy->drops ? wal_copier_store(copy->copier)->damage : NULL;
    if (news->first_lsn > place->first_lsn) /* else the janitor has told of a later trim before */
        place->first_lsn = news->first_lsn;
    if (!was_told)
        wal_logs_opened(logs);
    if (changes || !was_told || place->durable.end != news->durable.end)
        wal_logs_moved(logs, copy->index, &news->durable);
}

static void on_mail(void *arg, struct mail *first)
{
    struct wal_copies *s = arg;
    while (first != NULL) {
        struct copy_mail *mail = (struct copy_mail *)first;
        first = first->next;
        take_news(mail->copy, &mail->news);
        free(mail->news.answers);
        free(mail);
    }
    s->options.on_change(s->options.arg);
}

/* ---------------------------------------------------------------- finding and making them */

struct copy *wal_copies_copy(struct wal_copies *s, struct id16 log)
{
    for (size_t i = 0; i < WAL_LOGS_MAX; i++)
        if (s->all[i].copier != NULL && id16_equal(s->all[i].log, log))
            return &s->all[i];
    return NULL;
}

/* NULL: there are as many copies as may be. */
static struct copy *free_slot(struct wal_copies *s)
{
    size_t most = s->options.own ? WAL_LOGS_MAX : WAL_COPIES_MAX; /* the own one takes none from others */
    for (size_t i = 0; i < most; i++)
        if (s->all[i].copier == NULL)
            return &s->all[i];
    return NULL;
}

static struct copy *add(struct wal_copies *s, struct id16 log)
{
    struct copy *copy = free_slot(s);
    assert(copy != NULL);
    struct wal_copier_options options = {
        .dir = s->options.dir,
        .log = log,
        .store = s->options.store,
        .closed = s->options.closed,
        .on_news = post_news,
        .arg = copy,
    };
    *copy = (struct copy){.set = s, .log = log, .index = wal_logs_add(s->options.logs, log)};
    copy->copier = wal_copier_start(&options);
    return copy;
}

static bool on_name(void *arg, const char *name)
{
    struct wal_copies *s = arg;
    struct id16 log;
    if (!id16_parse(name, &log) || is_own(s, log) || wal_copies_drop_rest(s, log))
        return true;
    if (free_slot(s) != NULL)
        add(s, log);
    else
        log_error("there are more copies of logs than walsvc keeps; this one is not served",
                  log_text("log", name));
    return true;
}

/* A log that nobody has brought anything of yet. Nothing is made on disk unless all of the bytes are good:
 * NULL, and refused. */
static struct copy *begin(struct wal_copies *s, struct link_token token, const struct msg_copy_append *m)
{
    const struct wal_log nothing = {.fs = s->options.dir->fs, .uuid = m->log, .fd = -1, .chain.next_lsn = 1};
    struct wal_copy_piece piece;
    struct wal_refusal refusal;
    if (!wal_copies_may_begin(s, token, m->log))
        return NULL;
    enum wal_copy_verdict verdict = wal_copy_check(&nothing, m, &piece, &refusal);
    if (verdict != WAL_COPY_REFUSED && free_slot(s) != NULL)
        return add(s, m->log);
    if (verdict != WAL_COPY_REFUSED)
        wal_refuse(&refusal, SH_OVERLOADED, 0, "walsvc keeps 64 copies at most");
    wal_copies_refuse(s, token, &refusal);
    return NULL;
}

void wal_copies_on_append(struct wal_copies *s, const struct link_request *request)
{
    struct msg_copy_append m;
    struct wal_refusal refusal = {0};
    enum sh_error error = msg_decode(MSG_copy_append, request->body, &m);
    if (error != SH_OK)
        wal_refuse(&refusal, error, 0, "not a well-formed copy_append");
    else if (id16_is_zero(m.log) || (!s->options.own && is_own(s, m.log)))
        wal_refuse(&refusal, SH_BAD_REQUEST, 0, "not the log of another node");
    else if (m.anew && (m.over || is_own(s, m.log)))
        wal_refuse(&refusal, SH_BAD_REQUEST, 0,
                   "the node's own log never begins anew, nor does one whose frames are replaced");
    if (refusal.code != SH_OK) {
        wal_copies_refuse(s, request->token, &refusal);
        return;
    }
    struct copy *copy = wal_copies_copy(s, m.log);
    if (copy == NULL)
        copy = begin(s, request->token, &m);
    if (copy == NULL)
        return;
    if (copy->drops) {
        wal_refuse(&refusal, SH_UNAVAILABLE, 0, "the copy of a closed log is being dropped");
        wal_copies_refuse(s, request->token, &refusal);
        return;
    }
    error = wal_copier_put(copy->copier, request->token, &m);
    if (error == SH_OK)
        return;
    wal_refuse(&refusal, error, 0, "the copy cannot be opened; walsvc's log says why");
    wal_copies_refuse(s, request->token, &refusal);
}

enum sh_error wal_copies_find(struct wal_copies *s, struct id16 log, struct wal_store **store,
                              uint64_t *durable_end)
{
    struct copy *copy = wal_copies_copy(s, log);
    if (copy == NULL)
        return SH_NOT_FOUND;
    if (!copy->told || copy->drops || s->has_stopped)
        return SH_UNAVAILABLE;
    *store = wal_copier_store(copy->copier);
    *durable_end = s->options.logs->all[copy->index].durable.end;
    return copy->state;
}

void wal_copies_index_lost(struct wal_copies *s, struct id16 log)
{
    struct wal_store *store;
    uint64_t durable_end;
    if (wal_copies_find(s, log, &store, &durable_end) == SH_OK)
        wal_prepare_look(store->prepare);
}

/* ---------------------------------------------------------------- life */

struct wal_copies *wal_copies_open(const struct wal_copies_options *o)
{
    struct wal_copies *s = xcalloc(1, sizeof *s);
    char logs[PATH_MAX];
    s->options = *o;
    vfs_parent(o->dir->log, logs);
    wal_logs_closed(o->logs, wal_closed_version(o->closed));
    mailbox_open(&s->mailbox, o->loop, on_mail, s);
    if (o->own)
        add(s, o->dir->identity.log);
    int result = o->dir->fs->list(o->dir->fs, logs, on_name, s);
    if (result < 0)
        log_error("cannot list the logs: no copy is served", log_text("dir", logs),
                  log_text("error", strerror(-result)));
    return s;
}

void wal_copies_drop(struct wal_copies *s, uint64_t session)
{
    for (size_t i = 0; i < WAL_COPIES_MAX && !s->has_stopped; i++)
        if (s->all[i].copier != NULL)
            wal_copier_detach(s->all[i].copier, session);
}

void wal_copies_set(struct wal_copies *s, const struct wal_upkeep_settings *settings)
{
    s->options.store.settings = *settings;
    for (size_t i = 0; i < WAL_LOGS_MAX; i++)
        if (s->all[i].copier != NULL)
            wal_copier_set(s->all[i].copier, settings);
}

void wal_copies_stop(struct wal_copies *s)
{
    for (size_t i = 0; i < WAL_LOGS_MAX; i++)
        if (s->all[i].copier != NULL)
            wal_copier_stop(s->all[i].copier);
    s->has_stopped = true;
    mailbox_close(&s->mailbox);
}

void wal_copies_close(struct wal_copies *s)
{
    for (size_t i = 0; i < WAL_LOGS_MAX; i++)
        if (s->all[i].copier != NULL)
            wal_copier_free(s->all[i].copier);
    free(s);
}
