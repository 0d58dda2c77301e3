/* The preparer. A write or sync that fails for another reason than a full disk is fatal. */
#include "wal_prepare.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "wal_fatal.h"
#include "wal_log.h"

enum {
    FILE_MODE = 0640,
    CHUNK_BYTES = 512 << 10,
    LATE_CHUNK_BYTES = 4 << 20,
    LEAD_BYTES = 16 << 20,
    PAUSE_MS = 2
};

struct wal_prepare {
    const struct vfs *fs;
    char dir[PATH_MAX];
    uint64_t segment_size;
    int64_t retry_ns;
    void (*on_next)(void *arg, enum wal_next next);
    void *arg;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic uint64_t filled; /* the active segment's share of bytes used, times segment_size */
    pthread_mutex_t lock;    /* over what follows */
    pthread_cond_t wake;
    bool wanted;
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

/* Waits until the end comes or the time is over. */
static void pause_for(struct wal_prepare *p, int64_t pause_ns)
{
    int64_t due_ns = clock_mono_ns() + pause_ns;
    struct timespec due = {due_ns / NS_PER_S, due_ns % NS_PER_S};
    pthread_mutex_lock(&p->lock);
    int result = 0;
    while (!atomic_load(&p->stop) && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&p->wake, &p->lock, &due);
    pthread_mutex_unlock(&p->lock);
}

/* Fills the file in pieces that are written out one by one, and keeps some way ahead of the active segment,
 * no more: what the preparer has under way stands in front of every commit. Only when it has fallen behind
 * are the pieces large. */
static int fill_file(struct wal_prepare *p, int fd)
{
    int result = 0;
    for (uint64_t at = 0, len; at < p->segment_size && result == 0; at += len) {
        uint64_t left = p->segment_size - at, filled = atomic_load(&p->filled);
        len = at < filled ? LATE_CHUNK_BYTES : CHUNK_BYTES;
        len = left < len ? left : len;
        if (atomic_load(&p->stop))
            return -ECANCELED;
        result = wal_write_zeros(p->fs, fd, at, at + len);
        if (result == 0)
            result = p->fs->write_out(p->fs, fd, (int64_t)at, (int64_t)len);
        if (at >= filled + LEAD_BYTES)
            pause_for(p, PAUSE_MS * (int64_t)NS_PER_MS);
    }
    return result == 0 ? p->fs->fsync(p->fs, fd) : result;
}

void wal_prepare_keep_pace(struct wal_prepare *p, uint64_t offset, uint64_t limit)
{
    atomic_store(&p->filled, (uint64_t)((double)offset / (double)limit * (double)p->segment_size));
}

/* The prepared file, or -errno; nothing is left behind on a full disk. */
static int make_file(struct wal_prepare *p)
{
    char path[PATH_MAX];
    uint64_t room;
    vfs_path(path, p->dir, "next.tmp");
    if (p->fs->free_bytes(p->fs, p->dir, &room) == 0 && room < p->segment_size)
        return -ENOSPC;
    int fd = p->fs->open(p->fs, path, O_RDWR | O_CREAT | O_TRUNC, FILE_MODE);
    if (fd < 0)
        return fd;
    int result = fill_file(p, fd);
    if (result == 0)
        return fd;
    p->fs->close(p->fs, fd);
    if (result == -ENOSPC || result == -EDQUOT)
        p->fs->unlink(p->fs, path);
    return result;
}

/* Tries until there is a file or the end has come. */
static int prepare(struct wal_prepare *p)
{
    bool told = false;
    while (!atomic_load(&p->stop)) {
        int fd = make_file(p);
        if (fd >= 0) {
            if (told)
                log_info("there is room for the next segment again", log_text("dir", p->dir));
            return fd;
        }
        if (fd == -ECANCELED)
            break;
        if (fd != -ENOSPC && fd != -EDQUOT)
            wal_fatal("cannot prepare the next segment", p->dir, fd);
        if (!told)
            log_warn("no room for the next segment: appends will be refused when the active one is full",
                     log_text("dir", p->dir), log_uint("segment_size", p->segment_size));
        told = true;
        p->on_next(p->arg, WAL_NEXT_DISK_FULL);
        pause_for(p, p->retry_ns);
    }
    return -1;
}

static void *run(void *arg)
{
    struct wal_prepare *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        if (p->old >= 0) {
            int old = p->old;
            uint64_t end = p->old_end;
            p->old = -1;
            pthread_mutex_unlock(&p->lock);
            seal(p, old, end);
            pthread_mutex_lock(&p->lock);
        } else if (p->wanted && !atomic_load(&p->stop)) {
            p->wanted = false;
            pthread_mutex_unlock(&p->lock);
            int fd = prepare(p);
            pthread_mutex_lock(&p->lock);
            p->ready = fd;
            if (fd >= 0) {
                pthread_mutex_unlock(&p->lock);
                p->on_next(p->arg, WAL_NEXT_READY);
                pthread_mutex_lock(&p->lock);
            }
        } else if (atomic_load(&p->stop)) {
            break;
        } else {
            pthread_cond_wait(&p->wake, &p->lock);
        }
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

void wal_prepare_stop(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    if (p->ready >= 0)
        p->fs->close(p->fs, p->ready);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
