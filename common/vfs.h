/* All file calls on data go through one table of functions, so that tests run the real code on a simulated
 * disk. (Not those of the supervisor, which keeps locks, obituaries and log lines, and not reading the
 * configuration.)
 *
 * Functions return 0 (or a count) or -errno, and never touch errno's meaning otherwise. */
#ifndef COMMON_VFS_H
#define COMMON_VFS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct vfs {
    /* flags as for open(2); O_CLOEXEC is added. Returns a descriptor of this vfs. */
    int (*open)(const struct vfs *fs, const char *path, int flags, mode_t mode);
    int (*close)(const struct vfs *fs, int fd);
    /* May be short. 0 at the end of the file. */
    ssize_t (*pread)(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset);
    /* May be short. */
    ssize_t (*pwritev)(const struct vfs *fs, int fd, const struct iovec *iov, int count, int64_t offset);
    int (*fdatasync)(const struct vfs *fs, int fd);
    int (*fsync)(const struct vfs *fs, int fd);
    int (*truncate)(const struct vfs *fs, int fd, int64_t size);
    /* Makes the file at least offset + size bytes long, with room on the disk for that range, which reads as
     * zeros where nothing was written. */
    int (*allocate)(const struct vfs *fs, int fd, int64_t offset, int64_t size);
    int (*size)(const struct vfs *fs, int fd, int64_t *size);
    int (*rename)(const struct vfs *fs, const char *from, const char *to);
    int (*unlink)(const struct vfs *fs, const char *path);
    int (*mkdir)(const struct vfs *fs, const char *path, mode_t mode);
    /* An empty folder. */
    int (*rmdir)(const struct vfs *fs, const char *path);
    int (*sync_dir)(const struct vfs *fs, const char *path);
    /* Calls fn for each name but "." and ".."; stops when fn returns false. */
    int (*list)(const struct vfs *fs, const char *path, bool (*fn)(void *arg, const char *name), void *arg);
    /* An exclusive flock without waiting: -EWOULDBLOCK when another process has it. */
    int (*lock)(const struct vfs *fs, int fd);
    int (*free_bytes)(const struct vfs *fs, const char *path, uint64_t *bytes);
    /* The size of the whole disk that holds the path. */
    int (*total_bytes)(const struct vfs *fs, const char *path, uint64_t *bytes);
    /* Drops what the page cache has of the range (of all from offset on: len 0), so that it is read from the
     * disk again. Only advice: nothing depends on it. */
    void (*forget)(const struct vfs *fs, int fd, int64_t offset, int64_t len);
    void *state; /* of a simulated disk */
};

/* The real one. */
const struct vfs *vfs_posix(void);

/* "dir/name". Both were bounded before (VFS_DIR_MAX bytes are enough for every folder of a data directory),
 * so that it fits. */
enum { VFS_DIR_MAX = 3072 };
void vfs_path(char path[PATH_MAX], const char *dir, const char *name);
/* The folder above, "/" at the top, "." of a bare name. */
void vfs_parent(const char *path, char parent[PATH_MAX]);
/* Whole transfers over short ones. vfs_write_all: 0 or -errno. vfs_read_full: the bytes read, short only at
 * the end of the file, or -errno. */
int vfs_write_all(const struct vfs *fs, int fd, const void *data, size_t len, int64_t offset);
int vfs_writev_all(const struct vfs *fs, int fd, struct iovec *iov, int count,
                   int64_t offset); /* changes iov */
ssize_t vfs_read_full(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset);
/* Replaces a small file so that a crash leaves the old or the new one: temporary file, fsync, rename, sync of
 * the directory. dir without a trailing slash. */
int vfs_replace_file(const struct vfs *fs, const char *dir, const char *name, const void *data, size_t len);

#endif
