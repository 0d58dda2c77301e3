/* The copier.
 *
 *   opening --(full: each second)--> serving --put--> writing --> synced: on_news --> serving
 *                 |                   idle for 100 ms, or busy for a second: the durable mark
 *                 v                                            --drop--> dropped, or serving as before
 *            cannot be served
 *
 * A frame of a copy carries the origin's durable end, not the copy's: so a busy copy writes its mark too, or
 * a loss of power could take more than the last second of it for torn. */
#include "wal_copier.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failpoint.h"
#include "log.h"
#include "telemetry_push.h"
#include "wal_cut.h"
#include "wal_drop.h"
#include "wal_fatal.h"

#define MARK_IDLE_NS  (100 * (int64_t)NS_PER_MS)
#define MARK_BUSY_NS  NS_PER_S
#define RETRY_NS      NS_PER_S
#define RETRY_MOST_NS (60 * NS_PER_S)
enum { DIR_MODE = 0750 };

struct request {
    struct request *next;
    struct link_token token;
    struct msg_copy_append message;
    struct wal_refusal refusal;
};

struct wal_copier {
    struct wal_copier_options options;
    struct wal_store store;
    pthread_t thread;
    /* The thread's own. */
    int next_fd;            /* the prepared segment, once it is taken; or -1 */
    uint64_t next_limit;    /* its size */
    uint64_t new_first_lsn; /* to be told; 0: nothing is */
    struct wal_given_up given_up;
    int64_t marked_ns, synced_ns;
    bool was_full;
    int64_t retry_ns;     /* the last pause before opening was tried again */
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake, rests;
    struct request *first, **last; /* waiting */
    bool working;                  /* requests that were taken off are in use */
    uint64_t session;              /* of the last request; */
    bool several;                  /* those that wait or are in use may be of others, too */
    bool stalls;                   /* the first one waits for the next segment */
    bool stop, runs;               /* runs: the store's threads do */
    bool drops;                    /* the copy is to go, if it may */
    enum sh_error state;
    enum wal_next next;
    struct wal_upkeep_settings settings;
};

static struct timespec timespec_of(int64_t due_ns)
{
    return (struct timespec){due_ns / NS_PER_S, due_ns % NS_PER_S};
}

static void tell(struct wal_copier *c, enum sh_error state, struct wal_copy_answer *answers, size_t count)
{
    struct wal_copy_news news = {.state = state,
                                 .durable = c->store.log.durable,
                                 .first_lsn = c->new_first_lsn,
                                 .cuts = c->store.cuts,
                                 .given_up = c->given_up,
                                 .answers = answers,
                                 .count = count};
    c->new_first_lsn = 0;
    c->options.on_news(c->options.arg, &news);
}

/* Answers the requests before `end`, and frees them. */
static void answer(struct wal_copier *c, struct request *first, const struct request *end,
                   enum sh_error state)
{
    size_t count = 0;
    for (const struct request *r = first; r != end; r = r->next)
        count++;
    struct wal_copy_answer *answers = xcalloc(count + 1, sizeof *answers);
    for (size_t i = 0; i < count; i++) {
        struct request *next = first->next;
        answers[i] = (struct wal_copy_answer){first->token, first->refusal};
        free(first);
        first = next;
    }
    tell(c, state, answers, count);
}

/* ---------------------------------------------------------------- the mark */

/* On a full disk, which only a file system that writes in other places can have, it is tried again. */
static void put_mark(struct wal_copier *c)
{
    struct wal_log *log = &c->store.log;
    int result = log->fd >= 0 ? wal_log_write_mark(log) : 0;
    if (result < 0 && !wal_is_full(result))
        wal_fatal("cannot write the durable mark of a copy; ending at once", log->dir, result);
    if (result < 0 && !c->was_full)
        log_warn("no room for the durable mark of a copy: it is written again until there is",
                 log_text("dir", log->dir));
    c->was_full = result < 0;
    c->marked_ns = clock_mono_ns();
}

/* When it is to be written; INT64_MAX: it says what there is to say. */
static int64_t mark_due_ns(const struct wal_copier *c)
{
    const struct wal_log *log = &c->store.log;
    int64_t idle_ns = c->synced_ns + MARK_IDLE_NS, busy_ns = c->marked_ns + MARK_BUSY_NS;
    if (log->fd < 0 || log->mark.durable_end == log->durable.end)
        return INT64_MAX;
    if (c->was_full)
        return busy_ns;
    return idle_ns < busy_ns ? idle_ns : busy_ns;
}

/* ---------------------------------------------------------------- writing */

static void must(const struct wal_copier *c, int result, const char *what)
{
    if (result < 0)
        wal_fatal(what, c->store.path, result);
}

/* Writes the vectors, and makes all that is written durable. */
static void sync_all(struct wal_copier *c, unsigned *used)
{
    struct wal_log *log = &c->store.log;
    static const char what[] = "cannot write a copy; ending at once, nothing of this group is acknowledged";
    if (*used > 0)
        must(c, wal_log_put(log, log->iov, *used), what);
    *used = 0;
    if (log->durable.end == log->chain.position)
        return;
    must(c, failpoint_step("copy_sync", wal_log_sync(log)), what);
    c->synced_ns = clock_mono_ns();
}

static uint64_t reserve_of(struct wal_copier *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t setting = c->settings.disk_reserve;
    pthread_mutex_unlock(&c->lock);
    return wal_disk_reserve(c->store.log.fs, c->store.path, setting);
}

/* 0, -EAGAIN: the next segment is being prepared, -ENOSPC. */
static int take_next(struct wal_copier *c)
{
    if (c->next_fd >= 0)
        return 0;
    pthread_mutex_lock(&c->lock);
    enum wal_next next = c->next;
    c->stalls = next == WAL_NEXT_PREPARING;
    if (next == WAL_NEXT_READY)
        c->next = WAL_NEXT_PREPARING; /* from when it is used on */
    pthread_mutex_unlock(&c->lock);
    if (next != WAL_NEXT_READY)
        return next == WAL_NEXT_DISK_FULL ? -ENOSPC : -EAGAIN;
    c->next_fd = wal_prepare_take(c->store.prepare);
    c->next_limit = c->store.options.segment_size;
    return 0;
}

/* What the janitor does for the copier, which waits: so nobody else is at the segments. */
struct removal {
    struct wal_task task;
    struct wal_copier *copier;
    uint64_t next_lsn;           /* of the copy that begins anew */
    const struct wal_fork *fork; /* or where it is cut */
    int result;
    bool done;
};

static void end_removal(struct removal *r)
{
    struct wal_copier *c = r->copier;
    pthread_mutex_lock(&c->lock);
    r->done = true;
    pthread_cond_broadcast(&c->rests);
    pthread_mutex_unlock(&c->lock);
}

static void have_removed(struct removal *r)
{
    struct wal_copier *c = r->copier;
    wal_janitor_do(c->store.janitor, &r->task);
    pthread_mutex_lock(&c->lock);
    while (!r->done)
        pthread_cond_wait(&c->rests, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void give_up(struct wal_task *task)
{
    struct removal *r = (struct removal *)task;
    wal_upkeep_give_up(&r->copier->store.upkeep, r->next_lsn);
    end_removal(r);
}

/* First the mark forgets the segments, then they go: after a crash the copy is one that begins later, or
 * empty, and is asked to begin anew once more. The janitor removes them, as it does all others. */
static void begin_anew(struct wal_copier *c, const struct segment_header *header)
{
    struct wal_log *log = &c->store.log;
    struct removal removal = {.task.work = give_up, .copier = c, .next_lsn = header->base_lsn};
    uint64_t *bases = NULL;
    size_t count = 0;
    segment_list(log->fs, log->dir, &bases, &count);
    event_warn("copy_begins_anew",
               "a copy begins anew: nobody has what comes between any more, and what it held is given up",
               log_text("dir", log->dir), log_uint("first_lsn", count > 0 ? bases[0] : 1),
               log_uint("last_lsn", header->base_lsn - 1), log_uint("held_up_to", log->durable.lsn),
               log_uint("position", header->position));
    free(bases);
    if (log->fd < 0)
        return;
    int result = wal_log_forget(log);
    if (!wal_is_full(result)) /* else the old one stays, which is true of what is left after a crash */
        must(c, result, "cannot write the durable mark of a copy; ending at once");
    have_removed(&removal);
}

static bool is_own(const struct wal_copier *c)
{
    return id16_equal(c->store.uuid, c->options.dir->identity.log);
}

static void cut(struct wal_task *task)
{
    struct removal *r = (struct removal *)task;
    struct wal_copier *c = r->copier;
    const struct wal_cut how = {
        .data = c->options.dir->data,
        .log = &c->store.log,
        .damage = c->store.damage,
        .given_up = is_own(c) ? &c->given_up : NULL,
        .reserve_bytes = reserve_of(c),
    };
    wal_upkeep_forget(&c->store.upkeep);
    r->result = wal_cut(&how, r->fork);
    c->store.cuts += r->result == 0;
    end_removal(r);
}

/* Whether what stands at the fork may be replaced by what comes. */
static bool may_replace(struct wal_copier *c, struct request *r, const struct wal_fork *fork)
{
    uint32_t listed[GIVEN_UP_MAX];
    size_t count;
    const uint64_t expected = c->store.log.chain.position;
    if (!given_up_unpack(r->message.given_up, listed, &count))
        wal_refuse(&r->refusal, SH_BAD_REQUEST, 0, "given_up is no array of at most 16 checksums");
    else if (is_own(c) && wal_given_up_has(&c->given_up, fork->comes))
        wal_refuse(
            &r->refusal, SH_CONFLICT, expected,
            "these frames were given up here, since others held something else; they are not taken back");
    else if (!is_own(c) && (!given_up_has(listed, count, fork->goes) || fork->goes == 0))
        wal_refuse(&r->refusal, SH_CONFLICT, expected,
                   "what stands there in the copy was not given up by the node whose log it is");
    return r->refusal.code == SH_OK;
}

/* The message may replace what stands there. False: it was refused; else what it brings goes to the end. */
static bool replace(struct wal_copier *c, struct request *r)
{
    struct wal_fork fork;
    enum wal_fork_verdict verdict = wal_copy_fork(&c->store.log, &r->message, &fork, &r->refusal);
    struct removal removal = {.task.work = cut, .copier = c, .fork = &fork};
    if (verdict != WAL_FORK_FOUND)
        return verdict == WAL_FORK_NONE;
    if (!may_replace(c, r, &fork))
        return false;
    wal_prepare_hold(c->store.prepare);
    have_removed(&removal);
    wal_prepare_release(c->store.prepare);
    if (wal_is_full(removal.result))
        wal_refuse(&r->refusal, SH_DISK_FULL, 0, "no room to keep aside what is to be replaced");
    else
        must(c, removal.result, "cannot cut a copy; ending at once");
    return removal.result == 0;
}

/* The piece begins a segment. 0, -EAGAIN, -ENOSPC, -EDQUOT. */
static int roll(struct wal_copier *c, const struct wal_copy_piece *piece, bool anew)
{
    struct wal_log *log = &c->store.log;
    struct wal_sealed old = {.base_lsn = log->segment.base_lsn, .next_base_lsn = piece->segment.base_lsn};
    int result = take_next(c);
    if (result == 0)
        result = wal_log_room(log, c->next_fd, &c->next_limit, piece->bytes.len, reserve_of(c));
    if (result == -EAGAIN || wal_is_full(result))
        return result;
    must(c, result, "cannot make room in a copy's next segment; ending at once");
    if (anew)
        begin_anew(c, &piece->segment);
    bool first = log->fd < 0;
    result = wal_log_adopt(log, c->next_fd, c->next_limit, &piece->segment, piece->bytes, &piece->behind,
                           &old.fd, &old.end);
    must(c, result, "cannot open the next segment of a copy; ending at once");
    c->next_fd = -1;
    c->synced_ns = clock_mono_ns();
    if (first)
        c->new_first_lsn = piece->segment.base_lsn;
    put_mark(c);
    wal_prepare_next(c->store.prepare, &old);
    return 0;
}

/* Adds the piece to what is to be written. 0, -ENOSPC, -EDQUOT. */
static int add_piece(struct wal_copier *c, const struct wal_copy_piece *piece, unsigned *used)
{
    struct wal_log *log = &c->store.log;
    uint64_t need = piece->behind.position - log->segment.position;
    int result = wal_log_room(log, log->fd, &log->limit, need, reserve_of(c));
    if (wal_is_full(result))
        return result;
    must(c, result, "cannot make room in a copy's segment; ending at once");
    if (*used == WAL_IOV_MAX)
        sync_all(c, used);
    log->iov[(*used)++] = (struct iovec){(void *)(uintptr_t)piece->bytes.data, piece->bytes.len};
    log->chain = piece->behind;
    return 0;
}

/* A request's bytes, as far as they are new. 0, -EAGAIN, -ENOSPC, -EDQUOT. */
static int take_request(struct wal_copier *c, struct request *r, unsigned *used)
{
    struct wal_copy_piece piece;
    if (r->message.over && r->message.position < c->store.log.chain.position) {
        sync_all(c, used); /* the files say all there is to compare */
        if (!replace(c, r))
            return 0;
    }
    enum wal_copy_verdict verdict = wal_copy_check(&c->store.log, &r->message, &piece, &r->refusal);
    if (verdict == WAL_COPY_APPENDS)
        return add_piece(c, &piece, used);
    if (verdict != WAL_COPY_ROLLS && verdict != WAL_COPY_ANEW)
        return 0;
    sync_all(c, used);
    return roll(c, &piece, verdict == WAL_COPY_ANEW);
}

/* Returns the first request that must wait for the next segment; NULL: all are done. */
static struct request *write_group(struct wal_copier *c, struct request *first)
{
    struct request *r;
    unsigned used = 0;
    for (r = first; r != NULL; r = r->next) {
        int result = take_request(c, r, &used);
        if (result == -EAGAIN)
            break;
        if (result < 0)
            wal_refuse(&r->refusal, SH_DISK_FULL, 0, "no room for more of the copy");
    }
    sync_all(c, &used);
    if (r != first)
        answer(c, first, r, SH_OK);
    if (mark_due_ns(c) <= clock_mono_ns()) /* a busy copy's */
        put_mark(c);
    return r;
}

/* ---------------------------------------------------------------- with the lock */

static struct request *take_all(struct wal_copier *c)
{
    struct request *first = c->first;
    c->first = NULL;
    c->last = &c->first;
    return first;
}

static void put_back(struct wal_copier *c, struct request *first)
{
    struct request *behind = c->first, **at = &first;
    while (*at != NULL)
        at = &(*at)->next;
    *at = behind;
    if (behind == NULL)
        c->last = at;
    c->first = first;
}

/* Waits for requests that can be dealt with; false: the end. */
static bool wait_for_work(struct wal_copier *c)
{
    while ((c->first == NULL || c->stalls) && !c->stop && !(c->drops && c->first == NULL)) {
        int64_t due_ns = mark_due_ns(c);
        struct timespec due = timespec_of(due_ns);
        if (due_ns == INT64_MAX) {
            pthread_cond_wait(&c->wake, &c->lock);
        } else if (clock_mono_ns() < due_ns) {
            pthread_cond_timedwait(&c->wake, &c->lock, &due);
        } else {
            pthread_mutex_unlock(&c->lock);
            put_mark(c);
            pthread_mutex_lock(&c->lock);
        }
    }
    return c->first != NULL && !c->stalls;
}

static void serve(struct wal_copier *c)
{
    pthread_mutex_lock(&c->lock);
    while (wait_for_work(c)) {
        struct request *group = take_all(c);
        c->working = true;
        pthread_mutex_unlock(&c->lock);
        struct request *left = write_group(c, group);
        pthread_mutex_lock(&c->lock);
        if (left != NULL)
            put_back(c, left);
        c->working = false;
        pthread_cond_broadcast(&c->rests);
    }
    pthread_mutex_unlock(&c->lock);
    put_mark(c);
}

/* ---------------------------------------------------------------- dropping */

struct decision {
    struct wal_task task;
    struct wal_copier *copier;
    struct wal_gone gone;
    bool done, may;
};

/* On the janitor's thread, behind all that was asked of it: a hold that was answered counts. */
static void decide(struct wal_task *task)
{
    struct decision *d = (struct decision *)task;
    struct wal_copier *c = d->copier;
    struct wal_upkeep_time now = {clock_real_ns(), clock_mono_ns()};
    bool may = wal_upkeep_may_drop(&c->store.upkeep, now);
    pthread_mutex_lock(&c->lock);
    d->gone = c->store.upkeep.gone;
    d->may = may;
    d->done = true;
    pthread_cond_broadcast(&c->rests);
    pthread_mutex_unlock(&c->lock);
}

static bool may_drop(struct wal_copier *c, struct wal_gone *gone)
{
    const struct wal_durable *durable = &c->store.log.durable;
    struct decision d = {.task.work = decide, .copier = c};
    wal_janitor_do(c->store.janitor, &d.task);
    pthread_mutex_lock(&c->lock);
    while (!d.done)
        pthread_cond_wait(&c->rests, &c->lock);
    pthread_mutex_unlock(&c->lock);
    *gone = d.gone;
    return d.may && durable->end == gone->end && durable->checksum == gone->checksum;
}

/* From here on the copy goes, after a crash too. */
static bool enter_closed(struct wal_copier *c, const struct wal_gone *gone)
{
    const struct wal_closed_log log = {.log = c->store.uuid,
                                       .end = gone->end,
                                       .lsn = gone->lsn,
                                       .checksum = gone->checksum,
                                       .dropped_ns = clock_real_ns()};
    int result = wal_closed_add(c->options.closed, &log);
    if (wal_is_full(result)) {
        log_warn("no room for the register of closed logs: the copy stays", log_text("dir", c->store.path));
        return false;
    }
    must(c, result, "cannot write the register of closed logs; ending at once");
    event_warn("copy_dropped", "a closed log is past its retention: its copy is dropped",
               log_text("dir", c->store.path), log_uint("lsn", gone->lsn), log_uint("end", gone->end));
    return true;
}

static void close_store(struct wal_copier *c)
{
    pthread_mutex_lock(&c->lock);
    c->runs = false;
    pthread_mutex_unlock(&c->lock);
    wal_store_stop(&c->store);
    if (c->next_fd >= 0)
        c->options.dir->fs->close(c->options.dir->fs, c->next_fd);
    c->next_fd = -1;
    wal_store_close(&c->store);
    wal_damage_close(c->store.damage);
    c->store.damage = NULL;
}

/* True: there is no copy any more. */
static bool drop(struct wal_copier *c)
{
    struct wal_gone gone;
    bool must_end, drops = may_drop(c, &gone) && enter_closed(c, &gone);
    if (drops) {
        close_store(c);
        int result = wal_drop_folder(c->options.dir->fs, c->store.path, &must_end);
        if (must_end)
            must(c, result, "cannot sync the folder of a copy that is dropped; ending at once");
        if (result < 0)
            log_error("the folder of a dropped copy cannot be removed; the next start tries again",
                      log_text("dir", c->store.path), log_text("error", strerror(-result)));
    }
    pthread_mutex_lock(&c->lock);
    c->drops = false;
    pthread_mutex_unlock(&c->lock);
    struct wal_copy_news news = {
        .state = drops ? SH_NOT_FOUND : SH_OK, .durable = c->store.log.durable, .stays = !drops};
    c->options.on_news(c->options.arg, &news);
    return drops;
}

/* ---------------------------------------------------------------- opening */

static enum sh_error make_dir(const struct wal_copier *c)
{
    const struct vfs *fs = c->options.dir->fs;
    char logs[PATH_MAX];
    vfs_parent(c->store.path, logs);
    int result = fs->mkdir(fs, c->store.path, DIR_MODE);
    if (result == 0 || result == -EEXIST)
        result = fs->sync_dir(fs, logs);
    if (result == 0)
        return SH_OK;
    log_error("cannot make the folder of a copy", log_text("dir", c->store.path),
              log_text("error", strerror(-result)));
    return wal_is_full(result) ? SH_DISK_FULL : SH_INTERNAL;
}

static enum sh_error open_upkeep(struct wal_copier *c)
{
    struct wal_upkeep_time now = {clock_real_ns(), clock_mono_ns()};
    enum service_exit code = wal_store_open(&c->store, &c->options.store);
    if (code != EXIT_DONE)
        return code == EXIT_CONFIG ? SH_VERSION_MISMATCH : SH_INTERNAL;
    wal_upkeep_tidy(&c->store.upkeep, now); /* the register of holds is there before the first segment is */
    return SH_OK;
}

static enum sh_error open_copy(struct wal_copier *c)
{
    const struct wal_dir *dir = c->options.dir;
    struct wal_store *store = &c->store;
    enum sh_error error = make_dir(c);
    if (error == SH_OK && is_own(c))
        error = wal_given_up_read(&c->given_up, dir->fs, store->path, store->uuid);
    if (error == SH_OK)
        error = wal_damage_open(dir->fs, store->path, store->uuid, dir->quarantine, dir->reserve_bytes,
                                &store->damage);
    if (error != SH_OK)
        return error;
    error = wal_log_open_copy(&store->log, dir->fs, store->path, store->uuid, c->options.store.segment_size,
                              dir->quarantine, store->damage);
    if (error == SH_OK) {
        error = open_upkeep(c);
        if (error != SH_OK)
            wal_log_close(&store->log);
    }
    if (error == SH_OK)
        return SH_OK;
    wal_damage_close(store->damage);
    store->damage = NULL;
    return error;
}

static void on_next(void *arg, enum wal_next next)
{
    struct wal_copier *c = arg;
    pthread_mutex_lock(&c->lock);
    c->next = next;
    c->stalls = false;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

static void begin_service(struct wal_copier *c, int64_t began_ns)
{
    const struct wal_log *log = &c->store.log;
    char uuid[ID_TEXT];
    id16_format(c->store.uuid, uuid);
    log_info("copy opened", log_text("log", uuid), log_uint("durable_lsn", log->durable.lsn),
             log_uint("durable_end", log->durable.end),
             log_uint("took_ms", (uint64_t)(clock_mono_ns() - began_ns) / NS_PER_MS));
    c->new_first_lsn = log->first_lsn;
    c->marked_ns = c->synced_ns = clock_mono_ns();
    wal_store_start(&c->store, on_next, c);
    pthread_mutex_lock(&c->lock);
    c->state = SH_OK;
    c->runs = true;
    wal_store_set(&c->store, &c->settings);
    pthread_mutex_unlock(&c->lock);
    answer(c, NULL, NULL, SH_OK);
}

/* A full disk is looked at each second; where a file call failed there is less hope each time. 0: never. */
static int64_t pause_behind(struct wal_copier *c, enum sh_error error)
{
    bool doubles = error == SH_INTERNAL && c->retry_ns > 0;
    int64_t next_ns = doubles ? 2 * c->retry_ns : RETRY_NS;
    if (error != SH_DISK_FULL && error != SH_INTERNAL)
        return 0;
    return c->retry_ns = next_ns < RETRY_MOST_NS ? next_ns : RETRY_MOST_NS;
}

static bool is_to_drop(struct wal_copier *c)
{
    pthread_mutex_lock(&c->lock);
    bool is = c->drops && !c->stop;
    pthread_mutex_unlock(&c->lock);
    return is;
}

/* The copy is not served, for now or until the next start; returns whether to try again. */
static bool refuse_service(struct wal_copier *c, enum sh_error error)
{
    int64_t pause_ns = pause_behind(c, error);
    struct timespec due = timespec_of(clock_mono_ns() + pause_ns);
    bool tells = c->state != error;
    if (tells)
        log_error("the copy of another node's log cannot be opened, and is not served",
                  log_text("dir", c->store.path), log_text("error", sh_error_name(error)));
    pthread_mutex_lock(&c->lock);
    c->state = error;
    struct request *waiting = take_all(c);
    pthread_mutex_unlock(&c->lock);
    for (struct request *r = waiting; r != NULL; r = r->next)
        wal_refuse(&r->refusal, error, 0, "the copy cannot be opened; walsvc's log says why");
    if (tells || waiting != NULL)
        answer(c, waiting, NULL, error);
    if (pause_ns == 0)
        return false;
    pthread_mutex_lock(&c->lock);
    while (!c->stop && pthread_cond_timedwait(&c->wake, &c->lock, &due) != ETIMEDOUT)
        continue;
    bool again = !c->stop;
    pthread_mutex_unlock(&c->lock);
    return again;
}

static void *run(void *arg)
{
    struct wal_copier *c = arg;
    enum sh_error error;
    int64_t began_ns;
    do {
        began_ns = clock_mono_ns();
        error = open_copy(c);
    } while (error != SH_OK && refuse_service(c, error));
    if (error == SH_OK) {
        begin_service(c, began_ns);
        do
            serve(c);
        while (is_to_drop(c) && !drop(c));
    }
    return NULL;
}

/* ---------------------------------------------------------------- from other threads */

struct wal_copier *wal_copier_start(const struct wal_copier_options *o)
{
    struct wal_copier *c = xcalloc(1, sizeof *c);
    char uuid[ID_TEXT], logs[PATH_MAX];
    pthread_condattr_t attr;
    *c = (struct wal_copier){.options = *o, .next_fd = -1, .settings = o->store.settings};
    c->store.dir = o->dir;
    c->store.uuid = o->log;
    id16_format(o->log, uuid);
    vfs_parent(o->dir->log, logs);
    vfs_path(c->store.path, logs, uuid);
    c->last = &c->first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &attr);
    pthread_cond_init(&c->rests, &attr);
    pthread_condattr_destroy(&attr);
    int result = pthread_create(&c->thread, NULL, run, c);
    if (result != 0)
        wal_fatal("cannot start a thread", c->store.path, -result);
    pthread_setname_np(c->thread, "copier");
    return c;
}

enum sh_error wal_copier_put(struct wal_copier *c, struct link_token token,
                             const struct msg_copy_append *message)
{
    struct request *r = xcalloc(1, sizeof *r);
    *r = (struct request){.token = token, .message = *message};
    pthread_mutex_lock(&c->lock);
    enum sh_error state = c->state;
    if (state == SH_OK) {
        bool is_only = c->first == NULL && !c->working;
        c->several = !is_only && (c->several || c->session != token.session);
        c->session = token.session;
        *c->last = r;
        c->last = &r->next;
        pthread_cond_signal(&c->wake);
    }
    pthread_mutex_unlock(&c->lock);
    if (state != SH_OK)
        free(r);
    return state;
}

void wal_copier_detach(struct wal_copier *c, uint64_t session)
{
    pthread_mutex_lock(&c->lock);
    /* A session that has sent nothing is held up by no copy's sync, nor is who drops it. */
    while (c->working && (c->several || c->session == session))
        pthread_cond_wait(&c->rests, &c->lock);
    for (struct request *r = take_all(c), *next; r != NULL; r = next) {
        next = r->next;
        r->next = NULL;
        if (r->token.session == session) {
            free(r);
            continue;
        }
        *c->last = r;
        c->last = &r->next;
    }
    pthread_mutex_unlock(&c->lock);
}

void wal_copier_set(struct wal_copier *c, const struct wal_upkeep_settings *settings)
{
    pthread_mutex_lock(&c->lock);
    c->settings = *settings;
    if (c->runs)
        wal_store_set(&c->store, settings);
    pthread_mutex_unlock(&c->lock);
}

void wal_copier_gone(struct wal_copier *c, const struct wal_gone *gone)
{
    wal_janitor_gone(c->store.janitor, gone);
}

void wal_copier_drop(struct wal_copier *c)
{
    pthread_mutex_lock(&c->lock);
    c->drops = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

struct wal_store *wal_copier_store(struct wal_copier *c)
{
    return &c->store;
}

void wal_copier_stop(struct wal_copier *c)
{
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    if (c->runs)
        wal_store_stop(&c->store);
}

void wal_copier_free(struct wal_copier *c)
{
    while (c->first != NULL) {
        struct request *next = c->first->next;
        free(c->first);
        c->first = next;
    }
    if (c->next_fd >= 0)
        c->options.dir->fs->close(c->options.dir->fs, c->next_fd);
    if (c->runs)
        wal_store_close(&c->store);
    wal_damage_close(c->store.damage);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->rests);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
