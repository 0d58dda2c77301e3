/* The preparer. A write or sync that fails for another reason than a full disk is fatal.
 *
 *   wanted --allocate, sync--> ready (told) --zeros, piece by piece, when there is time--> filled
 *   ready, filled --take--> (nothing) --next--> wanted
 *
 * Nothing is written to a file once it is taken: a piece under way is waited for. */
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
    PIECE_BYTES = 512 << 10,
    LEAD_BYTES = 16 << 20,       /* the next segment's zeros against the active one's frames */
    BYTES_PER_S_MOST = 64 << 20, /* of appends, beyond which the disk is not asked for zeros too */
    AHEAD_PAUSE_MS =
        20,       /* between pieces, when there is no hurry: what is under way stands in front of a commit */
    PACE_MS = 50, /* over which the rate of appends is measured */
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
    _Atomic uint64_t used;         /* the active segment's share of bytes used, times segment_size */
    _Atomic int64_t fast_until_ns; /* appends are too fast for zeros until then */
    int64_t pace_ns;               /* the committer's: when pace_offset was the offset */
    uint64_t pace_offset;
    bool was_full;        /* the thread's own */
    pthread_mutex_t lock; /* over what follows */
    pthread_cond_t wake, filled;
    bool wanted, filling;
    uint64_t zeros; /* bytes of the prepared file that were filled */
    int ready;      /* the prepared file, or -1 */
    int old;        /* to be sealed, or -1 */
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
    while (!atomic_load(&p->stop) && p->old < 0 &&
           pthread_cond_timedwait(&p->wake, &p->lock, &due) != ETIMEDOUT)
        continue;
}

void wal_prepare_keep_pace(struct wal_prepare *p, uint64_t offset, uint64_t limit)
{
    int64_t now_ns = clock_mono_ns(), passed_ns = now_ns - p->pace_ns;
    atomic_store(&p->used, (uint64_t)((double)offset / (double)limit * (double)p->segment_size));
    if (offset >= p->pace_offset && passed_ns < PACE_MS * (int64_t)NS_PER_MS)
        return;
    if (offset > p->pace_offset && (offset - p->pace_offset) * 1e9 / (double)passed_ns > BYTES_PER_S_MOST)
        atomic_store(&p->fast_until_ns, now_ns + 4 * PACE_MS * (int64_t)NS_PER_MS);
    p->pace_ns = now_ns;
    p->pace_offset = offset;
}

/* Fills one piece of the prepared file; the last one is followed by a sync. Called with the lock, returns
 * with it. */
static void fill_piece(struct wal_prepare *p)
{
    uint64_t at = p->zeros, left = p->segment_size - at, len = left < PIECE_BYTES ? left : PIECE_BYTES;
    int fd = p->ready;
    p->filling = true;
    pthread_mutex_unlock(&p->lock);
    int result = wal_write_zeros(p->fs, fd, at, at + len);
    if (result == 0)
        result =
            len < left ? p->fs->write_out(p->fs, fd, (int64_t)at, (int64_t)len) : p->fs->fsync(p->fs, fd);
    if (result < 0)
        wal_fatal("cannot fill the next segment", p->dir, result);
    pthread_mutex_lock(&p->lock);
    p->filling = false;
    p->zeros += len;
    pthread_cond_signal(&p->filled);
}

/* The file, or -errno; nothing is left behind on a full disk. */
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
    pthread_mutex_unlock(&p->lock);
    int fd = make_file(p);
    bool is_full = fd == -ENOSPC || fd == -EDQUOT;
    if (fd < 0 && !is_full)
        wal_fatal("cannot prepare the next segment", p->dir, fd);
    if (is_full && !p->was_full)
        log_warn("no room for the next segment: appends will be refused when the active one is full",
                 log_text("dir", p->dir), log_uint("segment_size", p->segment_size));
    if (!is_full && p->was_full)
        log_info("there is room for the next segment again", log_text("dir", p->dir));
    p->was_full = is_full;
    pthread_mutex_lock(&p->lock);
    p->wanted = is_full;
    p->ready = is_full ? -1 : fd;
    p->zeros = 0;
    pthread_mutex_unlock(&p->lock);
    p->on_next(p->arg, is_full ? WAL_NEXT_DISK_FULL : WAL_NEXT_READY);
    pthread_mutex_lock(&p->lock);
    if (is_full)
        pause_for(p, p->retry_ns);
}

/* Called with the lock, returns with it. */
static void fill(struct wal_prepare *p)
{
    if (clock_mono_ns() < atomic_load(&p->fast_until_ns)) {
        pause_for(p, PACE_MS * (int64_t)NS_PER_MS);
        return;
    }
    bool is_ahead = p->zeros >= atomic_load(&p->used) + LEAD_BYTES;
    fill_piece(p);
    if (is_ahead)
        pause_for(p, AHEAD_PAUSE_MS * (int64_t)NS_PER_MS);
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
        else if (atomic_load(&p->stop))
            break;
        else if (p->wanted)
            make_ready(p);
        else if (p->ready < 0 || p->zeros == p->segment_size)
            pthread_cond_wait(&p->wake, &p->lock);
        else
            fill(p);
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
    pthread_cond_init(&p->filled, &attr);
    pthread_condattr_destroy(&attr);
    int result = pthread_create(&p->thread, NULL, run, p);
    if (result != 0)
        wal_fatal("cannot start a thread", p->dir, -result);
    return p;
}

int wal_prepare_take(struct wal_prepare *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->filling)
        pthread_cond_wait(&p->filled, &p->lock);
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
    pthread_cond_destroy(&p->filled);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
