/* The simulated disk. Running out of its small tables is fatal: it is a test's mistake. */
#include "sim_disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 512, INODES_MAX = 4096, FDS_MAX = 4096, OPS_MAX = 4096, PATH_BYTES = 256, SECTOR = 512 };

struct inode {
    struct buf now, durable;
    struct buf dirty; /* a byte for each sector: written since the last sync */
    bool is_dir;
};
struct name {
    char path[PATH_BYTES];
    struct inode *inode;
};
struct names {
    struct name all[NAMES_MAX];
    size_t count;
};
/* A change of the names that no sync_dir has made durable yet; inode NULL: the name goes. */
struct name_op {
    char path[PATH_BYTES], gone[PATH_BYTES];
    struct inode *inode;
};

struct sim_disk {
    struct vfs fs;
    pthread_mutex_t lock;
    struct inode inodes[INODES_MAX];
    size_t inode_count;
    struct names now, durable;
    struct name_op ops[OPS_MAX];
    size_t op_count;
    struct inode *fds[FDS_MAX];
    uint64_t calls, stop_at, random;
    bool is_full, fail_next_sync;
    size_t room; /* of a full disk: what was deleted since */
};

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

/* Counts a call that changes something; false: the disk has stopped. */
static bool may_change(struct sim_disk *d)
{
    if (d->calls >= d->stop_at)
        return false;
    d->calls++;
    return true;
}

static struct name *find_name(struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->all[i].path, path) == 0)
            return &names->all[i];
    return NULL;
}

static void set_name(struct names *names, const char *path, struct inode *inode)
{
    struct name *name = find_name(names, path);
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

/* A name changes now, and durably once its folder is synced. */
static void change_name(struct sim_disk *d, const char *path, struct inode *inode, const char *gone)
{
    assert(d->op_count < OPS_MAX);
    struct name_op *op = &d->ops[d->op_count++];
    *op = (struct name_op){.inode = inode};
    snprintf(op->path, sizeof op->path, "%s", path);
    snprintf(op->gone, sizeof op->gone, "%s", gone);
    set_name(&d->now, path, inode);
    set_name(&d->now, gone, NULL);
}

static void apply_op(struct sim_disk *d, const struct name_op *op)
{
    set_name(&d->durable, op->path, op->inode);
    set_name(&d->durable, op->gone, NULL);
}

static bool is_in(const char *path, const char *dir)
{
    size_t len = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return strncmp(path, dir, len) == 0 && path[len] == '/' && strchr(path + len + 1, '/') == NULL;
}

static struct inode *new_inode(struct sim_disk *d, bool is_dir)
{
    assert(d->inode_count < INODES_MAX);
    struct inode *inode = &d->inodes[d->inode_count++];
    inode->is_dir = is_dir;
    return inode;
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
    struct name *name = find_name(&d->now, path);
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
    if (cuts)
        inode->now.len = 0;
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
    size_t n = len < left ? len : left;
    if (n > 0)
        memcpy(out, data->data + offset, n);
    unlock_disk(d, 0);
    return (ssize_t)n;
}

static void resize(struct buf *data, size_t len)
{
    if (len > data->len)
        memset(buf_reserve(data, len - data->len), 0, len - data->len);
    data->len = len;
}

static void mark_dirty(struct inode *inode, size_t from, size_t to)
{
    size_t sectors = (to + SECTOR - 1) / SECTOR;
    if (sectors > inode->dirty.len)
        resize(&inode->dirty, sectors);
    for (size_t at = from / SECTOR; at < sectors; at++)
        inode->dirty.data[at] = 1;
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

static ssize_t sim_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count, int64_t offset)
{
    struct sim_disk *d = lock_disk(fs);
    struct buf *data = &d->fds[fd]->now;
    size_t total = 0, at = (size_t)offset;
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (!take_room(d, data, at + total))
        return unlock_disk(d, -ENOSPC);
    if (at + total > data->len)
        resize(data, at + total);
    mark_dirty(d->fds[fd], at, at + total);
    for (int i = 0; i < count; i++) {
        memcpy(data->data + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    unlock_disk(d, 0);
    return (ssize_t)total;
}

/* Brings the dirty sectors and the size to the disk. */
static void write_back(struct inode *inode)
{
    resize(&inode->durable, inode->now.len);
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
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    if (d->fail_next_sync) {
        d->fail_next_sync = false;
        inode->dirty.len = 0;
        return unlock_disk(d, -EIO);
    }
    write_back(inode);
    return unlock_disk(d, 0);
}

static int sim_truncate(const struct vfs *fs, int fd, int64_t size)
{
    struct sim_disk *d = lock_disk(fs);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    resize(&d->fds[fd]->now, (size_t)size);
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
        resize(data, end);
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
    struct name *name = find_name(&d->now, from);
    if (name == NULL)
        return unlock_disk(d, -ENOENT);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    change_name(d, to, name->inode, from);
    return unlock_disk(d, 0);
}

static int sim_unlink(const struct vfs *fs, const char *path)
{
    struct sim_disk *d = lock_disk(fs);
    const struct name *name = find_name(&d->now, path);
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
    if (find_name(&d->now, path) != NULL)
        return unlock_disk(d, -EEXIST);
    if (!may_change(d))
        return unlock_disk(d, -EIO);
    change_name(d, path, new_inode(d, true), "");
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
            apply_op(d, &d->ops[i]);
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
    bool exists = find_name(&d->now, path) != NULL;
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
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .lock = sim_lock,
        .free_bytes = sim_free_bytes,
        .total_bytes = sim_total_bytes,
        .forget = sim_forget,
        .state = d,
    };
    d->stop_at = UINT64_MAX;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

void sim_disk_close(struct sim_disk *d)
{
    for (size_t i = 0; i < d->inode_count; i++) {
        buf_free(&d->inodes[i].now);
        buf_free(&d->inodes[i].durable);
        buf_free(&d->inodes[i].dirty);
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
    d->stop_at = d->calls + calls;
}

void sim_disk_fail_next_sync(struct sim_disk *d)
{
    d->fail_next_sync = true;
}

void sim_disk_set_full(struct sim_disk *d, bool full)
{
    d->is_full = full;
    d->room = 0;
}

/* xorshift64* */
static uint64_t next_random(struct sim_disk *d)
{
    d->random ^= d->random >> 12;
    d->random ^= d->random << 25;
    d->random ^= d->random >> 27;
    return d->random * UINT64_C(2685821657736338717);
}

/* One sector that wasn't synced: its new bytes, its old ones, or noise where the two differ. */
static void lose_sector(struct sim_disk *d, uint8_t *now, const uint8_t *old, size_t len)
{
    uint64_t choice = next_random(d) % 8;
    for (size_t i = 0; i < len && choice < 4; i++)
        if (now[i] != old[i])
            now[i] = choice == 0 ? (uint8_t)next_random(d) : old[i];
}

static void lose_some(struct sim_disk *d, struct inode *inode)
{
    size_t now_len = inode->now.len, old_len = inode->durable.len;
    size_t most = now_len > old_len ? now_len : old_len, least = now_len + old_len - most;
    resize(&inode->now, most);
    resize(&inode->durable, most);
    for (size_t at = 0; at < most; at += SECTOR) {
        size_t len = most - at < SECTOR ? most - at : SECTOR;
        if (memcmp(inode->now.data + at, inode->durable.data + at, len) != 0)
            lose_sector(d, inode->now.data + at, inode->durable.data + at, len);
    }
    resize(&inode->now, next_random(d) % 2 == 0 ? most : least);
}

/* A file whose folder is gone is gone. */
static void drop_orphans(struct names *names)
{
    for (size_t i = 0; i < names->count;) {
        char parent[PATH_BYTES];
        snprintf(parent, sizeof parent, "%s", names->all[i].path);
        *strrchr(parent, '/') = 0;
        bool keep = parent[0] == 0 || find_name(names, parent) != NULL;
        if (!keep)
            names->all[i] = names->all[--names->count];
        i = keep ? i + 1 : 0;
    }
}

static void lose_names(struct sim_disk *d, enum sim_loss loss)
{
    size_t kept = loss == SIM_LOSE_SOME ? next_random(d) % (d->op_count + 1) : 0;
    for (size_t i = 0; i < kept; i++)
        apply_op(d, &d->ops[i]);
    d->op_count = 0;
    drop_orphans(&d->durable);
    d->now = d->durable;
}

static void lose_bytes(struct sim_disk *d, struct inode *inode, enum sim_loss loss)
{
    if (loss == SIM_LOSE_SOME)
        lose_some(d, inode);
    struct buf *from = loss == SIM_LOSE_SOME ? &inode->now : &inode->durable;
    struct buf *to = loss == SIM_LOSE_SOME ? &inode->durable : &inode->now;
    to->len = 0;
    buf_append(to, from->data, from->len);
    inode->dirty.len = 0;
}

void sim_disk_crash(struct sim_disk *d, enum sim_loss loss, uint64_t seed)
{
    d->random = seed * 2 + 1;
    memset(d->fds, 0, sizeof d->fds);
    d->stop_at = UINT64_MAX;
    if (loss == SIM_LOSE_NOTHING)
        return;
    lose_names(d, loss);
    for (size_t i = 0; i < d->inode_count; i++)
        lose_bytes(d, &d->inodes[i], loss);
}

struct slice sim_disk_file(struct sim_disk *d, const char *path)
{
    struct name *name = find_name(&d->now, path);
    return name != NULL ? buf_slice(&name->inode->now) : (struct slice){0};
}

void sim_disk_resize(struct sim_disk *d, const char *path, size_t len)
{
    struct name *name = find_name(&d->now, path);
    assert(name != NULL);
    resize(&name->inode->now, len);
    mark_dirty(name->inode, 0, len);
    write_back(name->inode);
}
