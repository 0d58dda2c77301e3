/* The committer. Whatever fails here is fatal: nobody is acknowledged.
 *
 *   idle --put--> gathering (delay) --> writing --> synced: on_durable --> idle
 *   idle --now--> writing, by the caller --> synced --> idle
 *   idle for 100 ms after a sync: the durable mark is written, once
 *
 * Whoever has set `writing` owns the log's files until it is reset. */
#include "wal_commit.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failpoint.h"
#include "log.h"
#include "telemetry.h"
#include "wal_fatal.h"

#define MARK_IDLE_NS (100 * (int64_t)NS_PER_MS)
/* What the caller's thread, which is the loop's, may be kept busy with: beyond, the committer's own thread
 * has it. */
#define NOW_SYNC_NS (2 * (int64_t)NS_PER_MS)
/* A mark that met a full disk, which only a file system that writes in other places can have, is tried again
 * so much later; nothing that was acknowledged depends on it. */
#define MARK_RETRY_NS (900 * (int64_t)NS_PER_MS)
enum { NOW_BYTES = 32 << 10 };

struct wal_commit {
    struct wal_log *log;
    struct wal_prepare *prepare;
    void (*on_durable)(void *arg, const struct wal_durable *durable, bool idle);
    void *arg;
    pthread_t thread;
    bool mark_was_full;   /* the writer's own */
    bool syncs_skipped;   /* the writer's own: by failpoint; nothing is durable any more */
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;  /* frames, stop, or the mark has become due */
    pthread_cond_t written;
    struct wal_frame *first, **last; /* waiting */
    bool writing, stop;
    bool mark_due;     /* the mark has something new to say, */
    int64_t synced_ns; /* 100 ms after this */
    int64_t took_ns;   /* the last group's write and sync */
    uint64_t groups;   /* begun */
    int64_t delay_ns;
};

static int sync_log(struct wal_commit *c)
{
    enum failpoint action = failpoint_hit("wal_sync");
    if (action == FAILPOINT_SKIP)
        c->syncs_skipped = true;
    if (c->syncs_skipped)
        return 0;
    return action == FAILPOINT_FAIL ? -EIO : wal_log_sync(c->log);
}

static void write_group(struct wal_commit *c, struct wal_frame *first)
{
    int result = wal_log_write(c->log, first);
    if (result == 0)
        result = sync_log(c);
    if (result < 0)
        wal_fatal("cannot write the log; ending at once, nothing of this group is acknowledged", c->log->dir,
                  result);
}

/* False: the disk is full. */
static bool put_mark(struct wal_commit *c)
{
    int result = wal_log_write_mark(c->log);
    bool is_full = result == -ENOSPC || result == -EDQUOT;
    if (result < 0 && !is_full)
        wal_fatal("cannot write the durable mark; ending at once", c->log->dir, result);
    if (is_full && !c->mark_was_full)
        log_warn("no room for the durable mark: it is written again until there is",
                 log_text("dir", c->log->dir));
    c->mark_was_full = is_full;
    return !is_full;
}

static void roll(struct wal_commit *c, struct wal_frame *checkpoint)
{
    struct wal_sealed old = {.base_lsn = c->log->segment.base_lsn};
    int result = wal_log_roll(c->log, wal_prepare_take(c->prepare), checkpoint, &old.fd, &old.end);
    if (result < 0)
        wal_fatal("cannot open the next segment; ending at once", c->log->dir, result);
    put_mark(c); /* from now on a loss of the whole segment is noticed */
    old.next_base_lsn = c->log->segment.base_lsn;
    wal_prepare_next(c->prepare, &old);
}

/* Takes the frames that go to one segment off the list. */
static struct wal_frame *take_part(struct wal_frame **rest)
{
    struct wal_frame *first = *rest, **at = &first->next;
    if (!first->opens_segment)
        while (*at != NULL && !(*at)->opens_segment)
            at = &(*at)->next;
    *rest = *at;
    *at = NULL;
    return first;
}

/* The part has become durable. */
static void count(const struct wal_frame *part, int64_t took_ns)
{
    uint64_t frames = 0, entries = 0, bytes = 0;
    for (; part != NULL; part = part->next) {
        frames++;
        entries += part->header.kind == FRAME_DATA ? part->header.count : 0;
        bytes += FRAME_HEADER_BYTES + part->body.len;
    }
    telemetry_add(TELEMETRY_wal_entries, 0, entries);
    telemetry_add(TELEMETRY_wal_frames, 0, frames);
    telemetry_add(TELEMETRY_wal_bytes, 0, bytes);
    telemetry_take(TELEMETRY_wal_group, 0, frames);
    telemetry_take(TELEMETRY_wal_sync, 0, (uint64_t)took_ns);
}

static void commit_part(struct wal_commit *c, struct wal_frame *part)
{
    int64_t began_ns = clock_mono_ns();
    if (!part->opens_segment)
        write_group(c, part);
    else if (!c->syncs_skipped)
        roll(c, part);
    if (!c->syncs_skipped)
        count(part, clock_mono_ns() - began_ns);
    while (part != NULL) {
        struct wal_frame *next = part->next;
        wal_frame_free(part);
        part = next;
    }
}

/* Commits them all and tells of all but the last part. */
static void commit_group(struct wal_commit *c, struct wal_frame *group)
{
    for (;;) {
        commit_part(c, take_part(&group));
        if (group == NULL)
            return;
        if (!c->syncs_skipped)
            c->on_durable(c->arg, &c->log->durable, false);
    }
}

/* ---- with the lock ---- */

static void begin_writing(struct wal_commit *c)
{
    assert(!c->writing);
    c->writing = true;
    c->groups++;
}

/* Returns whether there is something new to tell: *durable. */
static bool end_writing(struct wal_commit *c, int64_t began_ns, struct wal_durable *durable)
{
    c->writing = false;
    c->synced_ns = clock_mono_ns();
    c->took_ns = c->synced_ns - began_ns;
    c->mark_due = c->mark_due || !c->syncs_skipped;
    *durable = c->log->durable;
    return !c->syncs_skipped;
}

static struct timespec timespec_of(int64_t due_ns)
{
    return (struct timespec){due_ns / NS_PER_S, due_ns % NS_PER_S};
}

/* Called with the lock; returns with it. */
static void write_mark(struct wal_commit *c)
{
    c->mark_due = false;
    c->writing = true;
    pthread_mutex_unlock(&c->lock);
    bool done = put_mark(c);
    pthread_mutex_lock(&c->lock);
    c->writing = false;
    if (!done) {
        c->mark_due = true;
        c->synced_ns = clock_mono_ns() + MARK_RETRY_NS;
    }
    pthread_cond_broadcast(&c->written);
}

/* Waits for frames; false: the end. Called with the lock. */
static bool wait_for_frames(struct wal_commit *c)
{
    while (c->first == NULL && !c->stop) {
        int64_t due_ns = (c->writing ? clock_mono_ns() : c->synced_ns) + MARK_IDLE_NS;
        struct timespec due = timespec_of(due_ns);
        if (!c->mark_due)
            pthread_cond_wait(&c->wake, &c->lock);
        else if (clock_mono_ns() >= due_ns)
            write_mark(c);
        else
            pthread_cond_timedwait(&c->wake, &c->lock, &due);
    }
    if (c->first != NULL && c->delay_ns > 0 && !c->stop) {
        struct timespec due = timespec_of(clock_mono_ns() + c->delay_ns);
        while (!c->stop && pthread_cond_timedwait(&c->wake, &c->lock, &due) != ETIMEDOUT)
            continue;
    }
    return c->first != NULL;
}

static void *run(void *arg)
{
    struct wal_commit *c = arg;
    struct wal_durable durable;
    pthread_mutex_lock(&c->lock);
    while (wait_for_frames(c)) {
        struct wal_frame *group = c->first;
        c->first = NULL;
        c->last = &c->first;
        begin_writing(c);
        pthread_mutex_unlock(&c->lock);
        int64_t began_ns = clock_mono_ns();
        commit_group(c, group);
        pthread_mutex_lock(&c->lock);
        bool tells = end_writing(c, began_ns, &durable), idle = c->first == NULL;
        pthread_cond_broadcast(&c->written);
        pthread_mutex_unlock(&c->lock);
        if (tells)
            c->on_durable(c->arg, &durable, idle);
        pthread_mutex_lock(&c->lock);
    }
    write_mark(c);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

bool wal_commit_now(struct wal_commit *c, struct wal_frame *frame, struct wal_durable *durable)
{
    bool is_small = frame->next == NULL && !frame->opens_segment && frame->body.len <= NOW_BYTES;
    pthread_mutex_lock(&c->lock);
    bool may = is_small && c->first == NULL && !c->writing && !c->syncs_skipped && c->delay_ns == 0 &&
               c->took_ns < NOW_SYNC_NS;
    if (may)
        begin_writing(c);
    pthread_mutex_unlock(&c->lock);
    if (!may)
        return false;
    int64_t began_ns = clock_mono_ns();
    commit_part(c, frame);
    pthread_mutex_lock(&c->lock);
    bool sleeps = !c->mark_due;
    end_writing(c, began_ns, durable);
    if (sleeps && c->mark_due)
        pthread_cond_signal(&c->wake); /* the thread has to see to the mark */
    pthread_mutex_unlock(&c->lock);
    return true;
}

struct wal_commit *wal_commit_start(const struct wal_commit_options *o)
{
    struct wal_commit *c = xcalloc(1, sizeof *c);
    pthread_condattr_t attr;
    *c = (struct wal_commit){
        .log = o->log,
        .prepare = o->prepare,
        .on_durable = o->on_durable,
        .arg = o->arg,
        .delay_ns = o->delay_ns,
        .mark_due = o->log->mark.durable_end != o->log->durable.end, /* the start met a full disk */
    };
    c->last = &c->first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &attr);
    pthread_cond_init(&c->written, &attr);
    pthread_condattr_destroy(&attr);
    int result = pthread_create(&c->thread, NULL, run, c);
    if (result != 0)
        wal_fatal("cannot start a thread", c->log->dir, -result);
    return c;
}

void wal_commit_put(struct wal_commit *c, struct wal_frame *first)
{
    pthread_mutex_lock(&c->lock);
    bool was_idle = c->first == NULL && !c->writing;
    *c->last = first;
    while (*c->last != NULL)
        c->last = &(*c->last)->next;
    if (was_idle)
        pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

void wal_commit_detach(struct wal_commit *c, uint64_t session)
{
    pthread_mutex_lock(&c->lock);
    for (struct wal_frame *frame = c->first; frame != NULL; frame = frame->next) {
        if (frame->owned != NULL || frame->session != session)
            continue;
        frame->owned = xmalloc(frame->body.len);
        memcpy(frame->owned, frame->body.data, frame->body.len);
        frame->body.data = frame->owned;
    }
    uint64_t group = c->groups;
    while (c->writing && c->groups == group)
        pthread_cond_wait(&c->written, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

void wal_commit_set_delay(struct wal_commit *c, int64_t delay_ns)
{
    pthread_mutex_lock(&c->lock);
    c->delay_ns = delay_ns;
    pthread_mutex_unlock(&c->lock);
}

void wal_commit_stop(struct wal_commit *c)
{
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    assert(c->first == NULL);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->written);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
