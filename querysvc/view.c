/* The view's thread. Nothing here is fatal: a store that fails is closed, and opened again. */
#include "view_parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failpoint.h"
#include "log.h"
#include "log_damage.h"
#include "telemetry_push.h"

enum { CHUNK_BYTES = 1 << 20 };

/* ---------------------------------------------------------------- the logs */

static void stop_log(struct view *v, struct followed *f, enum sh_error why)
{
    char text[VIEW_ERROR_MAX];
    f->again_ns = clock_mono_ns() + VIEW_RETRY_NS;
    if (f->stopped == why)
        return;
    f->stopped = why;
    view_describe(v, f, text);
    log_error("a log's entries are not applied to the view", log_text("what", text));
}

/* What was accepted as lost is passed over; returns the LSN behind it, or 0. */
static uint64_t behind_loss(struct view *v, const struct followed *f, uint64_t lsn)
{
    struct log_damage_range *ranges = xcalloc(LOG_DAMAGE_MAX, sizeof *ranges);
    char uuid[ID_TEXT], dir[PATH_MAX];
    uint64_t behind = 0;
    size_t count;
    id16_format(f->log.log, uuid);
    vfs_path(dir, v->logs, uuid);
    if (log_damage_read(v->options.fs, dir, f->log.log, ranges, &count) == SH_OK)
        for (size_t i = 0; i < count; i++)
            if (ranges[i].accepted_ns != 0 && ranges[i].first_lsn <= lsn && ranges[i].next_lsn > lsn)
                behind = ranges[i].next_lsn;
    free(ranges);
    return behind;
}

static struct followed *followed(struct view *v, struct id16 log)
{
    for (size_t i = 0; i < v->count; i++)
        if (id16_equal(v->all[i].log.log, log))
            return &v->all[i];
    return NULL;
}

bool view_holds(void *view, struct id16 log)
{
    return followed(view, log) != NULL;
}

static uint64_t hlc_of(const struct view *v, const struct followed *f)
{
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    return place != NULL ? place->hlc : 0;
}

/* Where its segment begins: a hold needs not say more. */
static void note_segment(struct view *v, const struct followed *f, uint64_t segment)
{
    for (size_t i = 0; i < v->applied.count && segment > 0; i++)
        if (id16_equal(v->applied.all[i].log, f->log.log))
            v->applied.all[i].segment = segment;
}

/* Up to a frame that has to wait for another log. */
static enum sh_error apply(struct view *v, struct followed *f, const struct log_read *read)
{
    char error[VIEW_ERROR_MAX]; /* of the store, or the disk */
    uint64_t hlc_before = hlc_of(v, f);
    size_t bytes = view_gate_pass(&f->gate, &v->doubts, &v->applied, f->log.log, buf_slice(&v->frames),
                                  view_holds, v, clock_mono_ns());
    if (bytes == 0)
        return SH_OK;
    struct slice frames = slice_of(v->frames.data, bytes);
    enum sh_error result = view_apply(v->store, &v->applied, f->log.log, frames);
    view_tidying_applied(&v->tidying, v->store, &v->applied, f->log.log, hlc_before, frames,
                         bytes == v->frames.len ? read->end : 0);
    view_vector_store(v->store, &v->applied);
    note_segment(v, f, read->segment);
    v->has_unflushed = true;
    failpoint_hit("view_gathered");
    if (!view_store_write(v->store, error)) {
        view_fail_store(v, error);
        return SH_INTERNAL;
    }
    failpoint_hit("view_applied");
    return result;
}

/* Whether the entry that was applied last is another one in the log now. What cannot be read says nothing. */
static bool holds_other_frames(struct view *v, struct followed *f)
{
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    struct frame_header h;
    if (place == NULL || place->lsn == 0)
        return false;
    if (f->log.durable_lsn < place->lsn)
        return !place->ahead; /* what came with a checkpoint is still to come to the copy */
    if (f->verified || place->checksum == 0)
        return false;
    f->verified = true;
    struct log_read read = {.from = place->lsn,
                            .durable_end = f->log.durable_end,
                            .durable_lsn = f->log.durable_lsn,
                            .max_bytes = 1,
                            .max_entries = 1};
    v->frames.len = 0;
    if (log_reader_read(f->reader, &read, &v->frames) != SH_OK ||
        frame_header_decode(buf_slice(&v->frames), FRAME_BYTES_MAX, &h) != SH_OK)
        return false;
    bool same = h.base_lsn + h.count - 1 == place->lsn && h.checksum == place->checksum;
    if (same)
        view_place_add(&v->applied, f->log.log)->ahead = false;
    return !same;
}

/* From nothing, as when the folder had been removed. */
static void make_again(struct view *v, const struct followed *f)
{
    char error[VIEW_ERROR_MAX], uuid[ID_TEXT];
    id16_format(f->log.log, uuid);
    event_warn("view_made_again",
               "a log holds other entries than were applied to the view, which is made again from all logs",
               log_text("log", uuid), log_uint("durable_lsn", f->log.durable_lsn));
    view_close_store(v);
    v->applied.count = v->flushed.count = 0;
    bool removed = view_store_remove(v->rows, error);
    failpoint_hit("view_removed");
    if (removed)
        view_open_store(v);
    else
        view_name_error(v, error);
}

/* One chunk. */
static void step_log(struct view *v, struct followed *f)
{
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    struct log_read read = {
        .from = (place != NULL ? place->lsn : 0) + 1,
        .durable_end = f->log.durable_end,
        .durable_lsn = f->log.durable_lsn,
        .clocks = true,
        .max_bytes = CHUNK_BYTES,
        .max_entries = UINT64_MAX,
    };
    v->frames.len = 0;
    enum sh_error e = log_reader_read(f->reader, &read, &v->frames);
    if (e == SH_CORRUPT) {
        uint64_t behind = behind_loss(v, f, read.from);
        if (behind > 0 && view_pass(&v->applied, f->log.log, behind - 1) == SH_OK)
            e = SH_OK;
    }
    if (e == SH_OK)
        e = apply(v, f, &read);
    if (v->store == NULL)
        return;
    if (e != SH_OK)
        stop_log(v, f, e);
    else
        f->stopped = SH_OK;
}

/* Whether its next frame waits for another log. */
static bool is_waiting(struct view *v, struct followed *f, int64_t now_ns)
{
    const struct view_gate before = f->gate;
    char text[VIEW_ERROR_MAX];
    enum view_gate_state state = view_gate_look(&f->gate, &v->doubts, &v->applied, now_ns);
    if (state == VIEW_GATE_GAVE_UP) {
        view_describe_wait(f, &before, text);
        log_warn(
            "a frame is applied to the view before what its writer had seen in another log, which does not "
            "come",
            log_text("what", text));
    }
    return state == VIEW_GATE_WAITS;
}

/* Whether its next entry is in rows that are on their way, and were compared with those that are here: a key
 * that was deleted there, and that it put, would stay. */
static bool is_awaited(const struct view *v, const struct followed *f, int64_t now_ns)
{
    const struct view_place *until = view_place_of(&v->awaited, f->log.log),
                            *place = view_place_of(&v->applied, f->log.log);
    return until != NULL && now_ns < v->awaited_ns && (place != NULL ? place->lsn : 0) < until->lsn;
}

static bool has_work(struct view *v, struct followed *f, int64_t now_ns)
{
    return !is_awaited(v, f, now_ns) && !is_waiting(v, f, now_ns) && view_is_behind(v, f) &&
           (f->stopped == SH_OK || now_ns >= f->again_ns);
}

/* All entries are applied; whether there may be clock frames behind the last one. */
static bool may_have_clocks(const struct view *v, const struct followed *f)
{
    const struct view_clock *clock = view_clock_of(&v->tidying.clocks, f->log.log);
    uint64_t end = clock != NULL && clock->end > f->looked_end ? clock->end : f->looked_end;
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    bool is_done = f->log.durable_lsn <= (place != NULL ? place->lsn : 0);
    return is_done && f->stopped == SH_OK && f->log.durable_end > end;
}

/* What cannot be read is of no concern before an entry stands behind it. */
static void read_clocks(struct view *v, struct followed *f)
{
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    struct log_read read = {
        .from = (place != NULL ? place->lsn : 0) + 1,
        .durable_end = f->log.durable_end,
        .clocks = true,
        .max_bytes = CHUNK_BYTES,
        .max_entries = UINT64_MAX,
    };
    v->frames.len = 0;
    enum sh_error e = log_reader_read(f->reader, &read, &v->frames);
    if (e == SH_OK && v->frames.len > 0)
        apply(v, f, &read);
    f->looked_end = e == SH_OK && read.end > 0 && v->frames.len > 0 ? read.end : f->log.durable_end;
}

/* A chunk of each log that has more. False: there was nothing to do. */
static bool step(struct view *v)
{
    bool worked = false;
    if (v->count > 0 && !view_has_room(v))
        return false;
    for (size_t i = 0; i < v->count && v->store != NULL; i++) {
        if (holds_other_frames(v, &v->all[i])) {
            make_again(v, &v->all[i]);
            return true;
        }
        if (has_work(v, &v->all[i], clock_mono_ns()))
            step_log(v, &v->all[i]);
        else if (may_have_clocks(v, &v->all[i]))
            read_clocks(v, &v->all[i]);
        else
            continue;
        worked = true;
    }
    return worked;
}

static void follow(struct view *v, const struct view_log *log)
{
    char uuid[ID_TEXT], dir[PATH_MAX];
    struct followed *f = followed(v, log->log);
    if (f == NULL && v->count == VIEW_LOGS_MAX)
        return;
    if (f == NULL) {
        id16_format(log->log, uuid);
        vfs_path(dir, v->logs, uuid);
        f = &v->all[v->count++];
        *f = (struct followed){.reader = log_reader_open(v->options.fs, dir, log->log)};
    }
    if (log->durable_lsn < f->log.durable_lsn) { /* its readers know places that are no more */
        log_reader_close(f->reader);
        id16_format(log->log, uuid);
        vfs_path(dir, v->logs, uuid);
        f->reader = log_reader_open(v->options.fs, dir, log->log);
        f->verified = false;
        f->looked_end = 0;
    }
    f->log = *log;
}

/* What the loop has told. */
static void take_told(struct view *v)
{
    struct view_log told[VIEW_LOGS_MAX];
    pthread_mutex_lock(&v->lock);
    size_t count = v->told_count;
    memcpy(told, v->told, count * sizeof *told);
    v->is_told = v->is_told || count > 0;
    v->news = false;
    if (v->group_told)
        view_tidying_take_group(&v->tidying, &v->told_group);
    v->group_told = false;
    if (v->import_over)
        v->awaited.count = 0;
    v->import_over = false;
    pthread_mutex_unlock(&v->lock);
    for (size_t i = 0; i < v->count;) {
        size_t k = 0;
        while (k < count && !id16_equal(told[k].log, v->all[i].log.log))
            k++;
        if (k < count) {
            i++;
            continue;
        }
        log_reader_close(v->all[i].reader);
        v->all[i] = v->all[--v->count];
    }
    for (size_t i = 0; i < count; i++)
        follow(v, &told[i]);
}

/* ---------------------------------------------------------------- the thread */

static int64_t tidy_due_ns(const struct view *v)
{
    return v->tidying.look_ns > v->tidy_again_ns ? v->tidying.look_ns : v->tidy_again_ns;
}

/* When there is something to do without news. */
static int64_t due_ns(const struct view *v)
{
    int64_t due;
    if (v->store == NULL)
        return v->closed_ns + VIEW_RETRY_NS;
    if (v->paused_ns > 0)
        return v->paused_ns + VIEW_RETRY_NS;
    if (v->trim.first_lsn > 0)
        return 0;
    due = view_flush_due_ns(v);
    if (tidy_due_ns(v) < due)
        due = tidy_due_ns(v);
    for (size_t i = 0; i < v->count; i++) {
        if (is_awaited(v, &v->all[i], clock_mono_ns()))
            continue;
        if (v->all[i].stopped != SH_OK && v->all[i].again_ns < due)
            due = v->all[i].again_ns;
        if (view_gate_due_ns(&v->all[i].gate) < due)
            due = view_gate_due_ns(&v->all[i].gate);
    }
    if (v->trimmed_ns + VIEW_RETRY_NS < due)
        due = v->trimmed_ns + VIEW_RETRY_NS;
    return due;
}

/* False: the end. */
static bool wait_for_work(struct view *v)
{
    int64_t due = due_ns(v);
    struct timespec until = {due / NS_PER_S, due % NS_PER_S};
    pthread_mutex_lock(&v->lock);
    while (!v->news && !v->stop && v->works == NULL) {
        if (due == INT64_MAX)
            pthread_cond_wait(&v->wake, &v->lock);
        else if (pthread_cond_timedwait(&v->wake, &v->lock, &until) == ETIMEDOUT)
            break;
    }
    bool goes_on = !v->stop;
    pthread_mutex_unlock(&v->lock);
    return goes_on;
}

static bool must_stop(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    bool stop = v->stop;
    pthread_mutex_unlock(&v->lock);
    return stop;
}

/* Somebody waits for what is applied to be on disk. */
static bool take_flush_asked(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    bool asked = v->flush_asked;
    v->flush_asked = false;
    pthread_mutex_unlock(&v->lock);
    return asked;
}

/* What a clock frame tells must be on disk. */
static void tidy_up(struct view *v)
{
    char error[VIEW_ERROR_MAX]; /* of the store, or the disk */
    if (!view_has_room(v))
        return;
    view_flush_now(v);
    if (v->store == NULL)
        return;
    uint64_t tidied = v->tidying.tidied;
    bool is_flushed = view_vector_equal(&v->flushed, &v->applied);
    if (!view_tidying_look(&v->tidying, v->store, &v->applied, is_flushed, error))
        view_fail_store(v, error);
    v->has_unflushed = v->has_unflushed || v->tidying.tidied > tidied;
}

static void *run(void *arg)
{
    struct view *v = arg;
    view_open_store(v);
    view_publish(v);
    while (wait_for_work(v)) {
        bool changed = false;
        take_told(v);
        view_do_works(v);
        if (v->store == NULL)
            changed = clock_mono_ns() >= v->closed_ns + VIEW_RETRY_NS && view_open_store(v);
        while (v->store != NULL && !must_stop(v) && step(v)) {
            if (take_flush_asked(v) || clock_mono_ns() >= view_flush_due_ns(v))
                view_flush_now(v);
            view_trim_rows(v);
            view_publish(v);
            take_told(v);
            view_do_works(v);
        }
        view_trim_rows(v);
        if (v->store != NULL && (take_flush_asked(v) || clock_mono_ns() >= view_flush_due_ns(v))) {
            view_flush_now(v);
            changed = true;
        }
        if (v->store != NULL && clock_mono_ns() >= tidy_due_ns(v)) {
            tidy_up(v);
            changed = true;
        }
        if (changed)
            view_publish(v);
    }
    if (v->store != NULL && view_has_room(v))
        view_close_store(v);
    else if (v->store != NULL)
        view_store_abandon(v->store);
    v->store = NULL; /* the loop has stopped reading */
    view_do_works(v);
    return NULL;
}

/* ---------------------------------------------------------------- from the loop */

struct view *view_open(const struct view_options *o)
{
    struct view *v = xcalloc(1, sizeof *v);
    pthread_condattr_t attr;
    v->options = *o;
    v->tidying = (struct view_tidying){.own = o->own, .keep_ms = o->keep_ms, .look_ns = INT64_MAX};
    vfs_path(v->logs, o->data, "log");
    vfs_path(v->rows, o->data, "view");
    pthread_rwlock_init(&v->reading, NULL);
    pthread_mutex_init(&v->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&v->wake, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&v->thread, NULL, run, v) != 0) {
        log_error("cannot start a thread; ending at once", log_text("thread", "view"));
        abort();
    }
    pthread_setname_np(v->thread, "view");
    return v;
}

void view_close(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    v->stop = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
    pthread_join(v->thread, NULL);
    for (size_t i = 0; i < v->count; i++)
        log_reader_close(v->all[i].reader);
    pthread_cond_destroy(&v->wake);
    pthread_mutex_destroy(&v->lock);
    pthread_rwlock_destroy(&v->reading);
    buf_free(&v->frames);
    view_trim_free(&v->trim);
    view_tidying_end(&v->tidying);
    free(v);
}

void view_tell(struct view *v, const struct view_log *logs, size_t count)
{
    count = count < VIEW_LOGS_MAX ? count : VIEW_LOGS_MAX;
    pthread_mutex_lock(&v->lock);
    memcpy(v->told, logs, count * sizeof *logs);
    v->told_count = count;
    v->news = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

void view_tell_group(struct view *v, const struct view_group *group)
{
    pthread_mutex_lock(&v->lock);
    v->told_group = *group;
    v->group_told = v->news = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

void view_flush(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    v->flush_asked = v->news = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

void view_import_over(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    v->import_over = v->news = true;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

void view_ask(struct view *v, struct view_work *work)
{
    work->next = NULL;
    pthread_mutex_lock(&v->lock);
    struct view_work **last = &v->works;
    while (*last != NULL)
        last = &(*last)->next;
    *last = work;
    pthread_cond_signal(&v->wake);
    pthread_mutex_unlock(&v->lock);
}

void view_look(struct view *v, struct view_state *out)
{
    pthread_mutex_lock(&v->lock);
    *out = v->state;
    pthread_mutex_unlock(&v->lock);
}

struct view_store *view_begin_read(struct view *v)
{
    if (atomic_load(&v->closing))
        return NULL; /* readers that came one after the other would keep it open for ever */
    pthread_rwlock_rdlock(&v->reading);
    struct view_store *store = v->store;
    if (store == NULL)
        pthread_rwlock_unlock(&v->reading);
    return store;
}

void view_end_read(struct view *v)
{
    pthread_rwlock_unlock(&v->reading);
}

bool view_must_end_read(struct view *v)
{
    return atomic_load(&v->closing);
}
