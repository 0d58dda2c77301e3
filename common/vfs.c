/* The real file system behind struct vfs. Nothing here is fatal: callers decide what a failure means. */
#include "vfs.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "descriptors.h"

static int result_of(int result)
{
    return result < 0 ? -errno : result;
}

/* O_NONBLOCK means nothing to a file; a fifo in a file's place must not be waited for. */
static int open_file(const char *path, int flags, mode_t mode)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC | O_NONBLOCK, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Connections may have taken all descriptors; files have a reserve. */
static int posix_open(const struct vfs *fs, const char *path, int flags, mode_t mode)
{
    (void)fs;
    int fd = open_file(path, flags, mode);
    if (fd < 0 && errno == EMFILE) {
        descriptors_lift();
        fd = open_file(path, flags, mode);
        int cause = errno;
        descriptors_lower();
        errno = cause;
    }
    return result_of(fd);
}

static int posix_close(const struct vfs *fs, int fd)
{
    (void)fs;
    return result_of(close(fd));
}

static ssize_t posix_pread(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset)
{
    (void)fs;
    ssize_t n;
    do
        n = pread(fd, out, len, offset);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t posix_pwritev(const struct vfs *fs, int fd, const struct iovec *iov, int count, int64_t offset)
{
    (void)fs;
    ssize_t n;
    do
        n = pwritev(fd, iov, count, offset);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int posix_fdatasync(const struct vfs *fs, int fd)
{
    (void)fs;
    return result_of(fdatasync(fd));
}

static int posix_fsync(const struct vfs *fs, int fd)
{
    (void)fs;
    return result_of(fsync(fd));
}

static int posix_truncate(const struct vfs *fs, int fd, int64_t size)
{
    (void)fs;
    return result_of(ftruncate(fd, size));
}

static int posix_allocate(const struct vfs *fs, int fd, int64_t offset, int64_t size)
{
    (void)fs;
    int error;
    do
        error = posix_fallocate(fd, offset, size);
    while (error == EINTR);
    return -error;
}

static int posix_size(const struct vfs *fs, int fd, int64_t *size)
{
    (void)fs;
    struct stat st;
    int result = result_of(fstat(fd, &st));
    if (result == 0)
        *size = st.st_size;
    return result;
}

static int posix_rename(const struct vfs *fs, const char *from, const char *to)
{
    (void)fs;
    return result_of(rename(from, to));
}

static int posix_unlink(const struct vfs *fs, const char *path)
{
    (void)fs;
    return result_of(unlink(path));
}

static int posix_mkdir(const struct vfs *fs, const char *path, mode_t mode)
{
    (void)fs;
    return result_of(mkdir(path, mode));
}

static int posix_rmdir(const struct vfs *fs, const char *path)
{
    (void)fs;
    return result_of(rmdir(path));
}

static int posix_sync_dir(const struct vfs *fs, const char *path)
{
    int fd = posix_open(fs, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int result = posix_fsync(fs, fd);
    posix_close(fs, fd);
    return result;
}

static int posix_list(const struct vfs *fs, const char *path, bool (*fn)(void *arg, const char *name),
                      void *arg)
{
    (void)fs;
    DIR *dir = opendir(path);
    if (dir == NULL && errno == EMFILE) {
        descriptors_lift();
        dir = opendir(path);
        int cause = errno;
        descriptors_lower();
        errno = cause;
    }
    if (dir == NULL)
        return -errno;
    int result = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !fn(arg, entry->d_name))
            break;
    }
    closedir(dir);
    return result;
}

static int posix_lock(const struct vfs *fs, int fd)
{
    (void)fs;
    return result_of(flock(fd, LOCK_EX | LOCK_NB));
}

static int posix_free_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs;
    struct statvfs st;
    int result = result_of(statvfs(path, &st));
    if (result == 0)
        *bytes = (uint64_t)st.f_bavail * st.f_frsize;
    return result;
}

static int posix_total_bytes(const struct vfs *fs, const char *path, uint64_t *bytes)
{
    (void)fs;
    struct statvfs st;
    int result = result_of(statvfs(path, &st));
    if (result == 0)
        *bytes = (uint64_t)st.f_blocks * st.f_frsize;
    return result;
}

static void posix_forget(const struct vfs *fs, int fd, int64_t offset, int64_t len)
{
    (void)fs;
    posix_fadvise(fd, offset, len, POSIX_FADV_DONTNEED);
}

const struct vfs *vfs_posix(void)
{
    static const struct vfs fs = {
        .open = posix_open,
        .close = posix_close,
        .pread = posix_pread,
        .pwritev = posix_pwritev,
        .fdatasync = posix_fdatasync,
        .fsync = posix_fsync,
        .truncate = posix_truncate,
        .allocate = posix_allocate,
        .size = posix_size,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .mkdir = posix_mkdir,
        .rmdir = posix_rmdir,
        .sync_dir = posix_sync_dir,
        .list = posix_list,
        .lock = posix_lock,
        .free_bytes = posix_free_bytes,
        .total_bytes = posix_total_bytes,
        .forget = posix_forget,
    };
    return &fs;
}

int vfs_write_all(const struct vfs *fs, int fd, const void *data, size_t len, int64_t offset)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};
    return vfs_writev_all(fs, fd, &iov, 1, offset);
}

/* Steps over `done` bytes of the vectors; returns how many vectors are finished. */
static int advance(struct iovec *iov, int count, size_t done)
{
    int i = 0;
    while (i < count && done >= iov[i].iov_len)
        done -= iov[i++].iov_len;
    if (i < count) {
        iov[i].iov_base = (char *)iov[i].iov_base + done;
        iov[i].iov_len -= done;
    }
    return i;
}

int vfs_writev_all(const struct vfs *fs, int fd, struct iovec *iov, int count, int64_t offset)
{
    int finished = advance(iov, count, 0);
    while (finished < count) {
        int batch = count - finished < IOV_MAX ? count - finished : IOV_MAX;
        ssize_t n = fs->pwritev(fs, fd, iov + finished, batch, offset);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return -EIO;
        offset += n;
        finished += advance(iov + finished, count - finished, (size_t)n);
    }
    return 0;
}

ssize_t vfs_read_full(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = fs->pread(fs, fd, (char *)out + done, len - done, offset + (int64_t)done);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int write_temporary(const struct vfs *fs, const char *path, const void *data, size_t len)
{
    int fd = fs->open(fs, path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    if (fd < 0)
        return fd;
    int result = vfs_write_all(fs, fd, data, len, 0);
    if (result == 0)
        result = fs->fsync(fs, fd);
    fs->close(fs, fd);
    return result;
}

int vfs_replace_file(const struct vfs *fs, const char *dir, const char *name, const void *data, size_t len)
{
    char temporary[PATH_MAX], path[PATH_MAX];
    int a = snprintf(temporary, sizeof temporary, "%s/%s.tmp", dir, name);
    int b = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (a < 0 || b < 0 || (size_t)a >= sizeof temporary || (size_t)b >= sizeof path)
        return -ENAMETOOLONG;
    int result = write_temporary(fs, temporary, data, len);
    if (result == 0)
        result = fs->rename(fs, temporary, path);
    return result == 0 ? fs->sync_dir(fs, dir) : result;
}

void vfs_path(char path[PATH_MAX], const char *dir, const char *name)
{
    int len = snprintf(path, PATH_MAX, "%s/%s", dir, name);
    assert(len > 0 && len < PATH_MAX);
}

void vfs_parent(const char *path, char parent[PATH_MAX])
{
    snprintf(parent, PATH_MAX, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL)
        snprintf(parent, PATH_MAX, ".");
    else
        slash[slash == parent ? 1 : 0] = 0;
}
