/* The preparer. A write or sync that fails for another reason than a full disk is fatal.
 *
 *   wanted --allocate, sync--> ready (told) --take--> (nothing) --next--> wanted */
#include "wal_prepare.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "wal_fatal.h"
#include "wal_log.h"

#define RESERVE_MAX (UINT64_C(1) << 30)
enum { FILE_MODE = 0640, RESERVE_SHARE = 20 };

struct wal_prepare {
    const struct vfs *fs;
    char dir[PATH_MAX];
    uint64_t segment_size;
    int64_t retry_ns;
    void (*on_next)(void *arg, enum wal_next next);
    void *arg;
    pthread_t thread;
    bool was_full;        /* the thread's own */
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake;
    uint64_t disk_reserve;
    bool stop, wanted;
    int ready; /* the prepared file, or -1 */
    int old;   /* to be sealed, or -1 */
    uint64_t old_end;
};

static void seal(struct wal_prepare *p, int fd, uint64_t end)
{
    int result = p->fs->truncate(p->fs, fd, (int64_t)end);
    if (result == 0)
        result = p->fs->fsync(p->fs, fd);
    if (result < 0)
        wal_fatal("cannot seal a segment", p->dir, result);
    p->fs->close(p->fs, fd);
}

/* Waits until the end comes, there is other work, or the time is over. With the lock. */
static void pause_for(struct wal_prepare *p, int64_t pause_ns)
{
    int64_t due_ns = clock_mono_ns() + pause_ns;
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    while (!p->stop && p->old < 0 && pthread_cond_timedwait(&p->wake, &p->lock, &due) != ETIMEDOUT)
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

/* The file, or -errno; nothing is left behind on a full disk. */
static int make_file(struct wal_prepare *p, uint64_t reserve)
{
    char path[PATH_MAX];
    uint64_t room;
    vfs_path(path, p->dir, "next.tmp");
    p->fs->unlink(p->fs, path); /* one that an earlier process left behind: its room counts as free */
    if (p->fs->free_bytes(p->fs, p->dir, &room) == 0 &&
        room < p->segment_size + wal_disk_reserve(p->fs, p->dir, reserve))
        return -ENOSPC;
    int fd = p->fs->open(p->fs, path, O_RDWR | O_CREAT | O_TRUNC, FILE_MODE);
    if (fd < 0)
        return fd;
    int result = p->fs->allocate(p->fs, fd, 0, (int64_t)p->segment_size);
    if (result == 0)
        result = p->fs->fsync(p->fs, fd);
    if (result == 0)
        return fd;
    p->fs->close(p->fs, fd);
    if (result == -ENOSPC || result == -EDQUOT)
        p->fs->unlink(p->fs, path);
    return result;
}

/* One try. Called with the lock, returns with it. */
static void make_ready(struct wal_prepare *p)
{
    uint64_t reserve = p->disk_reserve;
    pthread_mutex_unlock(&p->lock);
    int fd = make_file(p, reserve);
    bool is_full = fd == -ENOSPC || fd == -EDQUOT;
    if (fd < 0 && !is_full)
        wal_fatal("cannot prepare the next segment", p->dir, fd);
    if (is_full && !p->was_full)
        log_warn("no room for the next segment: appends will be refused when the active one is full",
                 log_text("dir", p->dir), log_uint("segment_size", p->segment_size),
                 log_uint("disk_reserve", wal_disk_reserve(p->fs, p->dir, reserve)));
    if (!is_full && p->was_full)
        log_info("there is room for the next segment again", log_text("dir", p->dir));
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
    int old = p->old;
    uint64_t end = p->old_end;
    p->old = -1;
    pthread_mutex_unlock(&p->lock);
    seal(p, old, end);
    pthread_mutex_lock(&p->lock);
}

static void *run(void *arg)
{
    struct wal_prepare *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        if (p->old >= 0)
            seal_old(p);
        else if (p->stop)
            break;
        else if (p->wanted)
            make_ready(p);
        else
            pthread_cond_wait(&p->wake, &p->lock);
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
        .wanted = true,
        .ready = -1,
        .old = -1,
    };
    vfs_path(p->dir, o->dir, "");
    p->dir[strlen(p->dir) - 1] = 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&p->wake, &attr);
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

void wal_prepare_next(struct wal_prepare *p, int old, uint64_t old_end)
{
    pthread_mutex_lock(&p->lock);
    assert(p->old < 0 && p->ready < 0 && !p->wanted);
    p->old = old;
    p->old_end = old_end;
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

void wal_prepare_stop(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    if (p->ready >= 0)
        p->fs->close(p->fs, p->ready);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
