/* The two requests that mend. A repair whose write or sync fails ends the process. */
#include "wal_mend.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "telemetry_push.h"
#include "wal_fatal.h"
#include "wal_loss.h"
#include "wal_repair.h"

enum { AGAIN_MS = 20 };

/* The one request that is in work: the loop's, or between start and its mail the janitor's. */
struct wal_job {
    struct wal_task task;
    struct mail mail;
    struct wal_mend *mend;
    struct wal_store *store;
    struct link_token token;
    void (*work)(struct wal_mend *mend, struct wal_job *job);   /* on the janitor's thread */
    void (*finish)(struct wal_mend *mend, struct wal_job *job); /* with the loop's turn */
    uint64_t durable_end;
    unsigned cuts;              /* of the copy, when it was durable so far */
    struct wal_refusal refusal; /* code SH_OK: done */
    /* repair */
    struct msg_repair repair; /* its bytes are owned: */
    uint8_t *bytes;
    struct msg_repair_reply repaired;
    /* accept_loss */
    uint64_t durable_lsn;
    struct msg_accept_loss accept;
    struct log_loss loss;
    struct wal_loss_place place;
    int64_t accepted_ns; /* before, ns since 1970; 0: it wasn't */
};

struct wal_mend {
    struct wal_store *own;
    struct wal_core *core;
    struct link_server *link;
    struct mailbox mailbox;
    bool has_ended;           /* the janitors have */
    struct wal_job *job;      /* NULL: nothing is in work */
    struct wal_repair repair; /* of the log that was repaired last; the janitor's that has the job */
    unsigned cuts;            /* of that log then */
};

/* ---------------------------------------------------------------- on the janitor's thread */

static void work(struct wal_task *task)
{
    struct wal_job *job = (struct wal_job *)task;
    job->work(job->mend, job);
    mailbox_put(&job->mend->mailbox, &job->mail);
}

static void repair(struct wal_mend *m, struct wal_job *job)
{
    struct wal_store *store = job->store;
    if (job->cuts != store->cuts) { /* so it ends elsewhere */
        wal_refuse(&job->refusal, SH_OVERLOADED, 0, "the copy was cut meanwhile");
        return;
    }
    if (m->repair.dir != store->path || m->cuts != store->cuts)
        m->repair = (struct wal_repair){.fs = store->dir->fs,
                                        .dir = store->path,
                                        .quarantine = store->dir->quarantine,
                                        .log = store->uuid,
                                        .damage = store->damage};
    m->cuts = store->cuts;
    wal_repair(&m->repair, &job->repair, job->durable_end, &job->repaired, &job->refusal);
    if (m->repair.failed < 0)
        wal_fatal("cannot write a repair; ending at once", store->path, m->repair.failed);
    if (job->refusal.code == SH_OK)
        wal_upkeep_repaired(&store->upkeep, job->repair.segment);
}

static void find_loss(struct wal_mend *m, struct wal_job *job)
{
    const struct wal_store *own = m->own;
    wal_loss_find(own->dir->fs, own->dir->data, own->path, own->uuid, job->accept.first, job->accept.last,
                  job->durable_lsn, &job->loss, &job->place, &job->refusal);
    if (job->refusal.code == SH_OK &&
        !wal_damage_is_accepted(own->damage, job->accept.first, job->accept.last + 1, &job->accepted_ns))
        job->accepted_ns = 0;
}

/* Nobody has entered the range yet: only a reader has met it. */
static int enter_loss(struct wal_mend *m, const struct wal_job *job)
{
    const struct vfs *fs = m->own->dir->fs;
    const struct log_loss *loss = &job->loss;
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    struct log_damage_range range = {
        .base_lsn = job->place.base_lsn,
        .offset = job->place.offset,
        .bytes = loss->end - loss->begin,
        .position = loss->begin,
        .first_lsn = loss->first_lsn,
        .next_lsn = loss->last_lsn + 1,
        .checksum_before = loss->checksum_before,
        .checksum_after = loss->checksum_behind,
    };
    segment_name(range.base_lsn, name);
    vfs_path(path, m->own->path, name);
    int fd = fs->open(fs, path, O_RDONLY, 0);
    int result = wal_damage_add(m->own->damage, &range, fd < 0 ? -1 : fd);
    if (fd >= 0)
        fs->close(fs, fd);
    return result;
}

/* The loss frame is durable, and the truth; the register only spares the others the search for it. */
static void note_loss(struct wal_mend *m, struct wal_job *job)
{
    size_t count;
    uint64_t first = job->loss.first_lsn, next = job->loss.last_lsn + 1;
    int64_t now_ns = clock_real_ns();
    int result = wal_damage_accept(m->own->damage, first, next, now_ns, &count);
    if (result == 0 && count == 0)
        result = enter_loss(m, job);
    if (result == 0 && count == 0)
        result = wal_damage_accept(m->own->damage, first, next, now_ns, &count);
    if (result < 0)
        log_warn("the register of damaged ranges cannot be written", log_text("dir", m->own->path),
                 log_text("error", strerror(-result)));
}

/* ---------------------------------------------------------------- the loop's side */

static void refuse(struct wal_mend *m, struct link_token token, const struct wal_refusal *refusal)
{
    struct msg_error error = {
        .code = refusal->code,
        .text = slice_str(refusal->text),
        .expected = refusal->expected,
        .retry_ms = refusal->code == SH_OVERLOADED ? AGAIN_MS : 0,
    };
    link_server_refuse(m->link, token, &error);
}

static void answer(struct wal_mend *m, struct link_token token, uint32_t type, const void *message)
{
    struct buf body = {0};
    msg_encode(type, message, &body);
    link_server_answer(m->link, token, type, buf_slice(&body));
    buf_free(&body);
}

/* The job is over and answered. */
static void end_job(struct wal_mend *m)
{
    free(m->job->bytes);
    free(m->job);
    m->job = NULL;
}

static void refuse_job(struct wal_mend *m)
{
    refuse(m, m->job->token, &m->job->refusal);
    end_job(m);
}

/* NULL, and refused: another one is in work. */
static struct wal_job *new_job(struct wal_mend *m, const struct link_request *request,
                               struct wal_store *store)
{
    if (m->job != NULL) {
        struct wal_refusal busy;
        wal_refuse(&busy, SH_OVERLOADED, 0, "another repair or loss is in work");
        refuse(m, request->token, &busy);
        return NULL;
    }
    struct wal_job *job = xcalloc(1, sizeof *job);
    job->task.work = work;
    job->mend = m;
    job->store = store;
    job->token = request->token;
    return m->job = job;
}

static void start(struct wal_mend *m, void (*on_thread)(struct wal_mend *, struct wal_job *),
                  void (*finish)(struct wal_mend *, struct wal_job *))
{
    m->job->work = on_thread;
    m->job->finish = finish;
    wal_janitor_do(m->job->store->janitor, &m->job->task);
}

static void on_mail(void *arg, struct mail *first)
{
    struct wal_mend *m = arg;
    assert(first->next == NULL && first == &m->job->mail);
    if (m->job->refusal.code != SH_OK)
        refuse_job(m);
    else
        m->job->finish(m, m->job);
}

/* ---------------------------------------------------------------- the requests */

static void finish_repair(struct wal_mend *m, struct wal_job *job)
{
    answer(m, job->token, MSG_repair_reply, &job->repaired);
    if (job->repaired.whole && job->store->prepare != NULL) /* else the next start makes its index */
        wal_prepare_look(job->store->prepare);
    end_job(m);
}

void wal_mend_on_repair(struct wal_mend *m, const struct link_request *request, struct wal_store *store,
                        uint64_t durable_end, const struct msg_repair *message)
{
    struct wal_job *job = new_job(m, request, store);
    if (job == NULL)
        return;
    job->durable_end = durable_end;
    job->cuts = store->cuts_told;
    job->repair = *message;
    job->bytes = xmalloc(message->bytes.len + 1);
    memcpy(job->bytes, message->bytes.data, message->bytes.len);
    job->repair.bytes.data = job->bytes;
    start(m, repair, finish_repair);
}

static void finish_loss(struct wal_mend *m, struct wal_job *job)
{
    struct msg_accept_loss_reply reply = {
        .log = m->own->uuid,
        .first = job->loss.first_lsn,
        .last = job->loss.last_lsn,
        .begin = job->loss.begin,
        .end = job->loss.end,
        .accepted = (uint64_t)job->accepted_ns,
    };
    if (job->accepted_ns == 0)
        event_warn("loss_accepted", "a loss was accepted: these entries are given up for good",
                   log_text("dir", m->own->path), log_uint("first_lsn", reply.first),
                   log_uint("last_lsn", reply.last), log_uint("begin", reply.begin),
                   log_uint("end", reply.end));
    answer(m, job->token, MSG_accept_loss_reply, &reply);
    end_job(m);
}

static void append_loss(struct wal_mend *m, struct wal_job *job)
{
    struct buf body = {0};
    if (m->has_ended) { /* so has the committer */
        end_job(m);
        return;
    }
    if (job->accepted_ns != 0) {
        finish_loss(m, job);
        return;
    }
    log_loss_encode(&job->loss, &body);
    wal_core_accept_loss(m->core, buf_slice(&body), clock_real_ns());
    buf_free(&body);
}

void wal_mend_on_accept_loss(struct wal_mend *m, const struct link_request *request,
                             const struct msg_accept_loss *message)
{
    struct wal_job *job = new_job(m, request, m->own);
    if (job == NULL)
        return;
    job->durable_lsn = wal_core_stats(m->core).durable_lsn;
    job->accept = *message;
    start(m, find_loss, append_loss);
}

void wal_mend_accepted(struct wal_mend *m)
{
    start(m, note_loss, finish_loss);
}

void wal_mend_refused(struct wal_mend *m, enum sh_error error, const char *text)
{
    wal_refuse(&m->job->refusal, error, 0, text);
    refuse_job(m);
}

/* ---------------------------------------------------------------- life */

struct wal_mend *wal_mend_open(const struct wal_mend_options *o)
{
    struct wal_mend *m = xcalloc(1, sizeof *m);
    *m = (struct wal_mend){.own = o->own, .core = o->core, .link = o->link};
    mailbox_open(&m->mailbox, o->loop, on_mail, m);
    return m;
}

bool wal_mend_forget(struct wal_mend *m, const struct wal_store *store)
{
    if (m->job != NULL) /* m->repair is the janitor's */
        return false;
    if (m->repair.dir == store->path)
        m->repair = (struct wal_repair){0};
    return true;
}

void wal_mend_close(struct wal_mend *m)
{
    m->has_ended = true;
    mailbox_close(&m->mailbox);
    if (m->job != NULL)
        end_job(m);
    free(m);
}
