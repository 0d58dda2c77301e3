/* The preparer. A write or sync that fails for another reason than a full disk is fatal; not so with indexes.
 *
 *   wanted --allocate, sync--> ready (told) --take--> (nothing) --next--> wanted
 *
 * Sealing comes first, then the next segment, and only then, in steps of a few hundred microseconds, indexes:
 * so they hold up nothing. */
#include "wal_prepare.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failpoint.h"
#include "log.h"
#include "telemetry_push.h"
#include "wal_fatal.h"
#include "wal_index.h"

#define RESERVE_MAX (UINT64_C(1) << 30)
enum { FILE_MODE = 0640, RESERVE_SHARE = 20 };
/* Between two steps of making an old index, a MiB each: 64 MiB/s at most. */
#define OLD_INDEX_PAUSE_NS (16 * (int64_t)NS_PER_MS)

struct wal_prepare {
    const struct vfs *fs;
    char dir[PATH_MAX];
    uint64_t segment_size;
    int64_t retry_ns;
    void (*on_next)(void *arg, enum wal_next next);
    void *arg;
    pthread_t thread;
    /* the thread's own */
    bool was_full;
    struct wal_index *index;
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    pthread_cond_t rests;
    bool holds;      /* no index is to be made, */
    bool lets_go;    /* and none is */
    int64_t look_ns; /* when missing indexes are looked for; 0: that was done */
    uint64_t disk_reserve;
    bool stop, wanted;
    int ready;             /* the prepared file, or -1 */
    struct wal_sealed old; /* to be sealed; fd -1 for none */
};

int wal_prepare_seal(const struct vfs *fs, int fd, uint64_t end)
{
    int result = failpoint_step("seal_truncated", fs->truncate(fs, fd, (int64_t)end));
    if (result == 0)
        result = failpoint_step("seal_synced", fs->fsync(fs, fd));
    return result;
}

/* Whether somebody waits until no index is being made. With the lock. */
static bool must_let_go(const struct wal_prepare *p)
{
    return p->holds && !p->lets_go;
}

/* Waits until the end comes, a segment is to be sealed or has become wanted, or the time is over. With the
 * lock. */
static void pause_for(struct wal_prepare *p, int64_t pause_ns)
{
    int64_t due_ns = clock_mono_ns() + pause_ns;
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    bool was_wanted = p->wanted;
    while (!p->stop && p->old.fd < 0 && p->wanted == was_wanted && !must_let_go(p) &&
           pthread_cond_timedwait(&p->wake, &p->lock, &due) != ETIMEDOUT)
        continue;
}

uint64_t wal_disk_reserve(const struct vfs *fs, const char *dir, uint64_t setting)
{
    uint64_t total;
    if (setting > 0)
        return setting;
    if (fs->total_bytes(fs, dir, &total) < 0 || total / RESERVE_SHARE > RESERVE_MAX)
        return RESERVE_MAX;
    return total / RESERVE_SHARE;
}

int wal_prepare_make(const struct vfs *fs, const char *dir, uint64_t segment_size, uint64_t disk_reserve)
{
    char path[PATH_MAX];
    uint64_t room;
    vfs_path(path, dir, "next.tmp");
    fs->unlink(fs, path); /* one that an earlier process left behind: its room counts as free */
    if (fs->free_bytes(fs, dir, &room) == 0 && room < segment_size + disk_reserve)
        return -ENOSPC;
    int fd = fs->open(fs, path, O_RDWR | O_CREAT | O_TRUNC, FILE_MODE);
    if (fd < 0)
        return fd;
    int result = fs->allocate(fs, fd, 0, (int64_t)segment_size);
    if (result == 0)
        result = fs->fsync(fs, fd);
    if (result == 0)
        return fd;
    fs->close(fs, fd);
    if (result == -ENOSPC || result == -EDQUOT)
        fs->unlink(fs, path);
    return result;
}

/* One try. Called with the lock, returns with it. */
static void make_ready(struct wal_prepare *p)
{
    uint64_t reserve = p->disk_reserve;
    pthread_mutex_unlock(&p->lock);
    int fd = wal_prepare_make(p->fs, p->dir, p->segment_size, wal_disk_reserve(p->fs, p->dir, reserve));
    bool is_full = fd == -ENOSPC || fd == -EDQUOT;
    if (fd < 0 && !is_full)
        wal_fatal("cannot prepare the next segment", p->dir, fd);
    if (is_full && !p->was_full)
        event_warn("disk_full",
                   "no room for the next segment: appends will be refused when the active one is full",
                   log_text("dir", p->dir), log_uint("segment_size", p->segment_size),
                   log_uint("disk_reserve", wal_disk_reserve(p->fs, p->dir, reserve)));
    if (!is_full && p->was_full)
        event_info("disk_has_room", "there is room for the next segment again", log_text("dir", p->dir));
    p->was_full = is_full;
    pthread_mutex_lock(&p->lock);
    p->wanted = is_full;
    p->ready = is_full ? -1 : fd;
    pthread_mutex_unlock(&p->lock);
    p->on_next(p->arg, is_full ? WAL_NEXT_DISK_FULL : WAL_NEXT_READY);
    pthread_mutex_lock(&p->lock);
    if (is_full)
        pause_for(p, p->retry_ns);
}

/* Called with the lock, returns with it. */
static void seal_old(struct wal_prepare *p)
{
    struct wal_sealed old = p->old;
    p->old.fd = -1;
    pthread_mutex_unlock(&p->lock);
    int result = wal_prepare_seal(p->fs, old.fd, old.end);
    if (result < 0)
        wal_fatal("cannot seal a segment", p->dir, result);
    p->fs->close(p->fs, old.fd);
    event_info("segment_sealed", "a segment is full, the next one begins", log_text("dir", p->dir),
               log_uint("base_lsn", old.base_lsn), log_uint("bytes", old.end),
               log_uint("next_base_lsn", old.next_base_lsn));
    wal_index_sealed(p->index, old.base_lsn, old.next_base_lsn);
    pthread_mutex_lock(&p->lock);
}

/* One step. Called with the lock, returns with it. */
static void make_indexes(struct wal_prepare *p)
{
    enum wal_index_work work = wal_index_work(p->index);
    pthread_mutex_unlock(&p->lock);
    wal_index_step(p->index);
    pthread_mutex_lock(&p->lock);
    if (work == WAL_INDEX_OLD)
        pause_for(p, OLD_INDEX_PAUSE_NS);
}

/* With the lock. */
static void let_go(struct wal_prepare *p)
{
    wal_index_forget(p->index);
    p->lets_go = true;
    pthread_cond_signal(&p->rests);
}

/* Nothing is urgent. Called with the lock, returns with it. */
static void idle(struct wal_prepare *p)
{
    int64_t left_ns = p->look_ns - clock_mono_ns();
    if (wal_index_work(p->index) != WAL_INDEX_NONE) {
        make_indexes(p);
    } else if (p->look_ns == 0 || p->holds) {
        pthread_cond_wait(&p->wake, &p->lock);
    } else if (left_ns > 0) {
        pause_for(p, left_ns);
    } else {
        p->look_ns = 0;
        pthread_mutex_unlock(&p->lock);
        wal_index_look(p->index);
        pthread_mutex_lock(&p->lock);
    }
}

static void *run(void *arg)
{
    struct wal_prepare *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        if (p->old.fd >= 0)
            seal_old(p);
        else if (must_let_go(p))
            let_go(p);
        else if (p->stop)
            break;
        else if (p->wanted)
            make_ready(p);
        else
            idle(p);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct wal_prepare *wal_prepare_start(const struct wal_prepare_options *o)
{
    struct wal_prepare *p = xcalloc(1, sizeof *p);
    pthread_condattr_t attr;
    *p = (struct wal_prepare){
        .fs = o->fs,
        .segment_size = o->segment_size,
        .disk_reserve = o->disk_reserve,
        .retry_ns = o->retry_ns,
        .on_next = o->on_next,
        .arg = o->arg,
        .look_ns = clock_mono_ns() + o->index_delay_ns,
        .wanted = true,
        .ready = -1,
        .old.fd = -1,
    };
    vfs_path(p->dir, o->dir, "");
    p->dir[strlen(p->dir) - 1] = 0;
    p->index = wal_index_open(o->fs, p->dir, o->log);
    wal_index_on_damage(p->index, o->on_damage, o->arg);
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attr);
    pthread_cond_init(&p->rests, &attr);
    pthread_condattr_destroy(&attr);
    int result = pthread_create(&p->thread, NULL, run, p);
    if (result != 0)
        wal_fatal("cannot start a thread", p->dir, -result);
    return p;
}

int wal_prepare_take(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    int fd = p->ready;
    p->ready = -1;
    pthread_mutex_unlock(&p->lock);
    assert(fd >= 0);
    return fd;
}

void wal_prepare_next(struct wal_prepare *p, const struct wal_sealed *old)
{
    pthread_mutex_lock(&p->lock);
    assert(p->old.fd < 0 && p->ready < 0 && !p->wanted);
    p->old = *old;
    p->wanted = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void wal_prepare_set_reserve(struct wal_prepare *p, uint64_t disk_reserve)
{
    pthread_mutex_lock(&p->lock);
    p->disk_reserve = disk_reserve;
    pthread_mutex_unlock(&p->lock);
}

void wal_prepare_look(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    p->look_ns = clock_mono_ns();
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void wal_prepare_hold(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    p->holds = true;
    pthread_cond_signal(&p->wake);
    while (!p->lets_go)
        pthread_cond_wait(&p->rests, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void wal_prepare_release(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    p->holds = p->lets_go = false;
    p->look_ns = clock_mono_ns();
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void wal_prepare_stop(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    if (p->ready >= 0)
        p->fs->close(p->fs, p->ready);
    wal_index_close(p->index);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->rests);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
