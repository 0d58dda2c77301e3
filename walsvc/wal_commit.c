/* The committer. Whatever fails here is fatal: nobody is acknowledged.
 *
 *   idle --put--> gathering (delay) --> writing --> synced: on_durable --> idle
 *   idle for 100 ms after a sync: the durable mark is written, once */
#include "wal_commit.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failpoint.h"
#include "wal_fatal.h"

#define MARK_IDLE_NS (100 * (int64_t)NS_PER_MS)

struct wal_commit {
    struct wal_log *log;
    struct wal_prepare *prepare;
    void (*on_durable)(void *arg, const struct wal_durable *durable);
    void *arg;
    pthread_t thread;
    bool mark_due;        /* the thread's own: there is something new to say */
    bool syncs_skipped;   /* the thread's own: by failpoint; nothing is durable any more */
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;  /* frames or stop */
    pthread_cond_t written;
    struct wal_frame *first, **last; /* waiting */
    bool writing, stop;
    uint64_t groups; /* begun */
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
    wal_prepare_keep_pace(c->prepare, c->log->offset, c->log->limit);
    if (result < 0)
        wal_fatal("cannot write the log; ending at once, nothing of this group is acknowledged", c->log->dir,
                  result);
}

static void roll(struct wal_commit *c, struct wal_frame *checkpoint)
{
    int old;
    uint64_t old_end;
    int result = wal_log_roll(c->log, wal_prepare_take(c->prepare), checkpoint, &old, &old_end);
    if (result < 0)
        wal_fatal("cannot open the next segment; ending at once", c->log->dir, result);
    wal_prepare_next(c->prepare, old, old_end);
}

static void tell(struct wal_commit *c)
{
    if (c->syncs_skipped)
        return;
    c->mark_due = true;
    struct wal_durable durable = c->log->durable;
    c->on_durable(c->arg, &durable);
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

static void commit_all(struct wal_commit *c, struct wal_frame *rest)
{
    while (rest != NULL) {
        struct wal_frame *part = take_part(&rest);
        if (!part->opens_segment)
            write_group(c, part);
        else if (!c->syncs_skipped)
            roll(c, part);
        tell(c);
        while (part != NULL) {
            struct wal_frame *next = part->next;
            wal_frame_free(part);
            part = next;
        }
    }
}

static struct timespec deadline_after(int64_t delay_ns)
{
    int64_t due_ns = clock_mono_ns() + delay_ns;
    return (struct timespec){due_ns / NS_PER_S, due_ns % NS_PER_S};
}

/* Called with the lock; returns with it. */
static void write_mark(struct wal_commit *c)
{
    c->mark_due = false;
    pthread_mutex_unlock(&c->lock);
    int result = wal_log_write_mark(c->log);
    if (result < 0)
        wal_fatal("cannot write the durable mark; ending at once", c->log->dir, result);
    pthread_mutex_lock(&c->lock);
}

/* Waits for frames; false: the end. Called with the lock. */
static bool wait_for_frames(struct wal_commit *c)
{
    struct timespec due = deadline_after(MARK_IDLE_NS);
    while (c->first == NULL && !c->stop) {
        if (!c->mark_due)
            pthread_cond_wait(&c->wake, &c->lock);
        else if (pthread_cond_timedwait(&c->wake, &c->lock, &due) == ETIMEDOUT && c->first == NULL)
            write_mark(c);
    }
    if (c->first != NULL && c->delay_ns > 0 && !c->stop) {
        due = deadline_after(c->delay_ns);
        while (!c->stop && pthread_cond_timedwait(&c->wake, &c->lock, &due) != ETIMEDOUT)
            continue;
    }
    return c->first != NULL;
}

static void *run(void *arg)
{
    struct wal_commit *c = arg;
    pthread_mutex_lock(&c->lock);
    while (wait_for_frames(c)) {
        struct wal_frame *group = c->first;
        c->first = NULL;
        c->last = &c->first;
        c->writing = true;
        c->groups++;
        pthread_mutex_unlock(&c->lock);
        commit_all(c, group);
        pthread_mutex_lock(&c->lock);
        c->writing = false;
        pthread_cond_broadcast(&c->written);
    }
    write_mark(c);
    pthread_mutex_unlock(&c->lock);
    return NULL;
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
