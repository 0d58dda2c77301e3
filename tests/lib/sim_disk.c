/* The simulated disk. Running out of its small tables is fatal: it is a test's mistake. */
#include "sim_disk_state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sim_disk *lock_disk(const struct vfs *fs)
{
    struct sim_disk *d = fs->state;
    pthread_mutex_lock(&d->lock);
    return d;
}

static int unlock_disk(struct sim_disk *d, int result)
{
    pthread_mutex_unlock(&d->lock);
    return result;
}

/* xorshift64* */
uint64_t sim_random(struct sim_disk *d)
{
    d->random ^= d->random >> 12;
    d->random ^= d->random << 25;
    d->random ^= d->random >> 27;
    return d->random * UINT64_C(2685821657736338717);
}

static bool chance(struct sim_disk *d, uint32_t one_in)
{
    return one_in > 0 && sim_random(d) % one_in == 0;
}

static bool breaks(struct sim_disk *d)
{
    if (!chance(d, d->faults.error_one_in))
        return false;
    d->faults.errors++;
    return true;
}

/* Counts a call that changes something; false: the disk has stopped, or an error was asked for. */
static bool may_change(struct sim_disk *d)
{
    if (d->calls >= d->stop_at)
        return false;
    d->calls++;
    return !breaks(d);
}

/* How much of a transfer is done. */
static size_t shorten(struct sim_disk *d, size_t len)
{
    if (len < 2 || !chance(d, d->faults.short_one_in))
        return len;
    d->faults.shorts++;
    return 1 + (size_t)(sim_random(d) % (len - 1));
}

struct name *sim_find_name(struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i].path, path) == 0)
            return &names->all[i];
    return NULL;
}

void sim_set_name(struct names *names, const char *path, struct inode *inode)
{
    struct name *name = sim_find_name(names, path);
    if (inode == NULL) {
        if (name != NULL)
            *name = names->all[--names->count];
        return;
    }
    if (name == NULL) {
        assert(names->count < NAMES_MAX);
        name = &names->all[names->count++];
        snprintf(name->path, sizeof name->path, "%s", path);
    }
    name->inode = inode;
}

/* What is in a folder goes with it. */
static void move_contents(struct names *names, const char *from, const char *to)
{
    size_t len = strlen(from);
    for (size_t i = 0; i < names->count; i++) {
        char rest[PATH_BYTES];
        if (strncmp(names->all[i].path, from, len) != 0 || names->all[i].path[len] != '/')
            continue;
        snprintf(rest, sizeof rest, "%s", names->all[i].path + len);
        int size = snprintf(names->all[i].path, PATH_BYTES, "%s%s", to, rest);
        assert(size < PATH_BYTES);
    }
}

/* A name changes now, and durably once its folder is synced. */
static void change_name(struct sim_disk *d, const char *path, struct inode *inode, const char *gone)
{
    assert(d->op_count < OPS_MAX);
    struct name_op *op = &d->ops[d->op_count++];
    *op = (struct name_op){.inode = inode};
    snprintf(op->path, sizeof op->path, "%s", path);
    snprintf(op->gone, sizeof op->gone, "%s", gone);
    sim_apply_op(&d->now, op);
}

void sim_apply_op(struct names *names, const struct name_op *op)
{
    sim_set_name(names, op->path, op->inode);
    sim_set_name(names, op->gone, NULL);
    if (op->inode != NULL && op->inode->is_dir && op->gone[0] != 0)
        move_contents(names, op->gone, op->path);
}

static bool is_in(const char *path, const char *dir)
{
    size_t len = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return strncmp(path, dir, len) == 0 && path[len] == '/' && strchr(path + len + 1, '/') == NULL;
}

static struct inode *new_inode(struct sim_disk *d, bool is_dir)
{
    size_t at = 0;
    while (at < d->inode_count && d->inodes[at].is_used)
        at++;
    assert(at < INODES_MAX);
    if (at == d->inode_count)
        d->inode_count++;
    d->inodes[at].is_dir = is_dir;
    d->inodes[at].is_used = true;
    return &d->inodes[at];
}

static int fd_of(struct sim_disk *d, struct inode *inode)
{
    for (int fd = 0; fd < FDS_MAX; fd++) {
        if (d->fds[fd] == NULL) {
            d->fds[fd] = inode;
            return fd;
        }
    }
    abort();
}

static int sim_open(const struct vfs *fs, const char *path, int flags, mode_t mode)
{
    (void)mode;
    struct sim_disk *d = lock_disk(fs);
    struct name *name = sim_find_name(&d->now, path);
    struct inode *inode = name != NULL ? name->inode : NULL;
    if (inode == NULL && (flags & O_CREAT) == 0)
        return unlock_disk(d, -ENOENT);
    if (inode != NULL && (flags & O_EXCL) != 0)
        return unlock_disk(d, -EEXIST);
    bool cuts = inode != NULL && (flags & O_TRUNC) != 0 && inode->now.len > 0;
    if ((inode == NULL || cuts) && !may_change(d))
        return unlock_disk(d, -EIO);
    if (inode == NULL) {
        inode = new_inode(d, false);
        change_name(d, path, inode, "");
    }
    if (cuts) {
        inode->now.len = 0;
        inode->is_changed = true;
    }
    return unlock_disk(d, fd_of(d, inode));
}

static int sim_close(const struct vfs *fs, int fd)
{
    struct sim_disk *d = lock_disk(fs);
    assert(d->fds[fd] != NULL);
    d->fds[fd] = NULL;
    return unlock_disk(d, 0);
}

static ssize_t sim_pread(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset)
{
    struct sim_disk *d = lock_disk(fs);
    const struct buf *data = &d->fds[fd]->now;
    size_t left = (uint64_t)offset < data->len ? data->len - (size_t)offset : 0;
    size_t n = shorten(d, len < left ? len : left);
    if (breaks(d))
        return unlock_disk(d, -EIO);
    if (n > 0)
        memcpy(out, data->data + offset, n);
    unlock_disk(d, 0);
    return (ssize_t)n;
}

void sim_resize(struct buf *data, size_t len)
{
    if (len > data->len)
        memset(buf_reserve(data, len - data->len), 0, len - data->len);
    data->len = len;
}

static void mark_dirty(struct inode *inode, size_t from, size_t to)
{
    size_t sectors = (to + SECTOR - 1) / SECTOR;
    if (sectors > inode->dirty.len)
        sim_resize(&inode->dirty, sectors);
    for (size_t at = from / SECTOR; at < sectors; at++)
        inode->dirty.data[at] = 1;
    inode->is_changed = true;
}

/* Whether the file may grow to `len` bytes. */
static bool take_room(struct sim_disk *d, const struct buf *data, size_t len)
{
    size_t more = len > data->len ? len - data->len : 0;
    if (!d->is_full)
        return true;
    if (more > d->room)
        return false;
    d->room -= more;
    return true;
}

/* Remembers what the sectors of a range hold now. */
static void record_versions(struct inode *inode, size_t from, size_t to)
{
    for (size_t at = from / SECTOR; at * SECTOR < to; at++) {
        struct sector_version version = {.sector = at};
        size_t left = inode->now.len - at * SECTOR;
        memcpy(version.bytes, inode->now.data + at * SECTOR, left < SECTOR ? left : SECTOR);
        buf_append(&inode->versions, &version, sizeof version);
    }
}

static void write_vectors(struct sim_disk *d, struct inode *inode, const struct iovec *iov, size_t at,
                          size_t total)
{
    struct buf *data = &inode->now;
    size_t from = at, end = at + total;
    if (total == 0)
        return;
    if (end > data->len)
        sim_resize(data, end);
    mark_dirty(inode, at, end);
    for (int i = 0; at < end; at += iov[i++].iov_len) {
        size_t len = iov[i].iov_len < end - at ? iov[i].iov_len : end - at;
        memcpy(data->data + at, iov[i].iov_base, len);
    }
    if (d->is_recording)
        record_versions(inode, from, end);
}

static ssize_t sim_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count, int64_t offset)
{
    struct sim_disk *d = lock_disk(fs);
    size_t total = 0, at = (size_t)offset;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (d->calls >= d->stop_at)
        return unlock_disk(d, -EIO);
    d->calls++;
    if (breaks(d)) { /* after some of it */
        size_t done = (size_t)(sim_random(d) % (total + 1));
        write_vectors(d, d->fds[fd], iov, at, d->is_full ? 0 : done);
        return unlock_disk(d, -EIO);
    }
    total = shorten(d, total);
    if (!take_room(d, &d->fds[fd]->now, at + total))
        return unlock_disk(d, -ENOSPC);
    write_vectors(d, d->fds[fd], iov, at, total);
    unlock_disk(d, 0);
    return (ssize_t)total;
}

static bool is_dirty(const struct inode *inode, size_t sector)
{
    return sector < inode->dirty.len && inode->dirty.data[sector] != 0;
}

/* Versions of sectors that are brought to the disk are history. */
static void forget_versions(struct inode *inode)
{
    struct sector_version *all = (struct sector_version *)(void *)inode->versions.data;
    size_t count = inode->versions.len / sizeof *all, kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!is_dirty(inode, all[i].sector))
            all[kept++] = all[i];
    inode->versions.len = kept * sizeof *all;
}

void sim_write_back(struct inode *inode)
{
    sim_resize(&inode->durable, inode->now.len);
    forget_versions(inode);
    for (size_t at = 0; at < inode->dirty.len && at * SECTOR < inode->now.len; at++) {
        size_t left = inode->now.len - at * SECTOR, len = left < SECTOR ? left : SECTOR;
        if (inode->dirty.data[at])
            memcpy(inode->durable.data + at * SECTOR, inode->now.data + at * SECTOR, len);
    }
    inode->dirty.len = 0;
}

static int sim_sync(const struct vfs *fs, int fd)
{
    struct sim_disk *d = lock_disk(fs);
    struct inode *inode = d->fds[fd];
    if (d->calls >= d->stop_at)
        return unlock_disk(d, -EIO);
    d->calls++;
    if (d->fail_next_sync || breaks(d)) {
        d->fail_next_sync = false;
        inode->dirty.len = 0;
        return unlock_disk(d, -EIO);
    }
    sim_write_back(inode);
    return unlock_disk(d, 0);
}

static int sim_truncate(const struct vfs *fs, int fd, int64_t size)
{
    struct sim_disk *d = lock_disk(fs);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    sim_resize(&d->fds[fd]->now, (size_t)size);
    d->fds[fd]->is_changed = true;
    return unlock_disk(d, 0);
}

static int sim_allocate(const struct vfs *fs, int fd, int64_t offset, int64_t size)
{
    struct sim_disk *d = lock_disk(fs);
    struct buf *data = &d->fds[fd]->now;
    size_t end = (size_t)(offset + size);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    if (!take_room(d, data, end))
        return unlock_disk(d, -ENOSPC);
    if (end > data->len)
        sim_resize(data, end);
    d->fds[fd]->is_changed = true;
    return unlock_disk(d, 0);
}

static int sim_size(const struct vfs *fs, int fd, int64_t *size)
{
    struct sim_disk *d = lock_disk(fs);
    *size = (int64_t)d->fds[fd]->now.len;
    return unlock_disk(d, 0);
}

static int sim_rename(const struct vfs *fs, const char *from, const char *to)
{
    struct sim_disk *d = lock_disk(fs);
    struct name *name = sim_find_name(&d->now, from);
    if (name == NULL)
        return unlock_disk(d, -ENOENT);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    for (size_t i = 0; name->inode->is_dir && i < d->op_count; i++)
        assert(!is_in(d->ops[i].path, from)); /* a folder is synced before it gets another name */
    change_name(d, to, name->inode, from);
    return unlock_disk(d, 0);
}

static int sim_unlink(const struct vfs *fs, const char *path)
{
    struct sim_disk *d = lock_disk(fs);
    const struct name *name = sim_find_name(&d->now, path);
    if (name == NULL)
        return unlock_disk(d, -ENOENT);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    d->room += name->inode->now.len;
    change_name(d, path, NULL, "");
    return unlock_disk(d, 0);
}

static int sim_mkdir(const struct vfs *fs, const char *path, mode_t mode)
{
    (void)mode;
    struct sim_disk *d = lock_disk(fs);
    if (sim_find_name(&d->now, path) != NULL)
        return unlock_disk(d, -EEXIST);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    change_name(d, path, new_inode(d, true), "");
    return unlock_disk(d, 0);
}

static int sim_rmdir(const struct vfs *fs, const char *path)
{
    struct sim_disk *d = lock_disk(fs);
    if (sim_find_name(&d->now, path) == NULL)
        return unlock_disk(d, -ENOENT);
    for (size_t i = 0; i < d->now.count; i++)
        if (is_in(d->now.all[i].path, path))
            return unlock_disk(d, -ENOTEMPTY);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    change_name(d, path, NULL, "");
    return unlock_disk(d, 0);
}

static int sim_sync_dir(const struct vfs *fs, const char *path)
{
    struct sim_disk *d = lock_disk(fs);
    size_t kept = 0;
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    for (size_t i = 0; i < d->op_count; i++) {
        if (is_in(d->ops[i].path, path))
            sim_apply_op(&d->durable, &d->ops[i]);
        else
            d->ops[kept++] = d->ops[i];
    }
    d->op_count = kept;
    return unlock_disk(d, 0);
}

static int sim_list(const struct vfs *fs, const char *path, bool (*fn)(void *arg, const char *name),
                    void *arg)
{
    struct sim_disk *d = lock_disk(fs);
    static _Thread_local char names[NAMES_MAX][128];
    size_t count = 0;
    bool exists = sim_find_name(&d->now, path) != NULL;
    for (size_t i = 0; i < d->now.count; i++)
        if (is_in(d->now.all[i].path, path))
            snprintf(names[count++], sizeof names[0], "%s", d->now.all[i].path + strlen(path) + 1);
    unlock_disk(d, 0);
    for (size_t i = 0; i < count && fn(arg, names[i]); i++)
        continue;
    return exists ? 0 : -ENOENT;
}

static int sim_lock(const struct vfs *fs, int fd)
{
    (void)fs, (void)fd;
    return 0;
}

static int sim_free_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)path;
    struct sim_disk *d = lock_disk(fs);
    *bytes = d->is_full ? 0 : UINT64_C(1) << 40;
    return unlock_disk(d, 0);
}

static int sim_total_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs, (void)path;
    *bytes = UINT64_C(1) << 41;
    return 0;
}

static void sim_forget(const struct vfs *fs, int fd, int64_t offset, int64_t len)
{
    (void)fs, (void)fd, (void)offset, (void)len;
}

struct sim_disk *sim_disk_open(void)
{
    struct sim_disk *d = xcalloc(1, sizeof *d);
    d->fs = (struct vfs){
        .open = sim_open,
        .close = sim_close,
        .pread = sim_pread,
        .pwritev = sim_pwritev,
        .fdatasync = sim_sync,
        .fsync = sim_sync,
        .truncate = sim_truncate,
        .allocate = sim_allocate,
        .size = sim_size,
        .rename = sim_rename,
        .unlink = sim_unlink,
        .mkdir = sim_mkdir,
        .rmdir = sim_rmdir,
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .lock = sim_lock,
        .free_bytes = sim_free_bytes,
        .total_bytes = sim_total_bytes,
        .forget = sim_forget,
        .state = d,
    };
    d->stop_at = UINT64_MAX;
    d->random = 1;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

void sim_disk_close(struct sim_disk *d)
{
    for (size_t i = 0; i < d->inode_count; i++) {
        buf_free(&d->inodes[i].now);
        buf_free(&d->inodes[i].durable);
        buf_free(&d->inodes[i].dirty);
        buf_free(&d->inodes[i].versions);
    }
    pthread_mutex_destroy(&d->lock);
    free(d);
}

const struct vfs *sim_disk_vfs(struct sim_disk *d)
{
    return &d->fs;
}

uint64_t sim_disk_calls(const struct sim_disk *d)
{
    return d->calls;
}

void sim_disk_stop_after(struct sim_disk *d, uint64_t calls)
{
    pthread_mutex_lock(&d->lock);
    d->stop_at = d->calls + calls;
    pthread_mutex_unlock(&d->lock);
}

void sim_disk_fail_next_sync(struct sim_disk *d)
{
    d->fail_next_sync = true;
}

void sim_disk_set_faults(struct sim_disk *d, const struct sim_faults *faults, uint64_t seed)
{
    d->faults.error_one_in = faults->error_one_in;
    d->faults.short_one_in = faults->short_one_in;
    d->random = seed * 2 + 1;
}

struct sim_faults sim_disk_faults(const struct sim_disk *d)
{
    return d->faults;
}

void sim_disk_set_full(struct sim_disk *d, bool full)
{
    pthread_mutex_lock(&d->lock);
    d->is_full = full;
    d->room = 0;
    pthread_mutex_unlock(&d->lock);
}

struct slice sim_disk_file(struct sim_disk *d, const char *path)
{
    struct name *name = sim_find_name(&d->now, path);
    return name != NULL ? buf_slice(&name->inode->now) : (struct slice){0};
}

void sim_disk_resize(struct sim_disk *d, const char *path, size_t len)
{
    struct name *name = sim_find_name(&d->now, path);
    assert(name != NULL);
    sim_resize(&name->inode->now, len);
    mark_dirty(name->inode, 0, len);
    sim_write_back(name->inode);
}

size_t sim_disk_unsynced(struct sim_disk *d, const char *path)
{
    const struct name *name = sim_find_name(&d->now, path);
    assert(name != NULL);
    const struct inode *inode = name->inode;
    size_t now = inode->now.len, durable = inode->durable.len,
           differ = now > durable ? now - durable : durable - now;
    for (size_t i = 0; i < now && i < durable; i++)
        differ += inode->now.data[i] != inode->durable.data[i];
    return differ;
}

void sim_disk_flip(struct sim_disk *d, const char *path, size_t offset, uint8_t bits)
{
    struct name *name = sim_find_name(&d->now, path);
    assert(name != NULL && offset < name->inode->now.len);
    name->inode->now.data[offset] ^= bits;
    if (offset < name->inode->durable.len)
        name->inode->durable.data[offset] ^= bits;
}
