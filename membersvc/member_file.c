/* data/member.
 *
 * offset bytes
 *      0     6  "SHMEMB"
 *      6     2  format version, big-endian
 *      8     4  length of the body, big-endian
 *     12     4  CRC-32C of the body, big-endian
 *     16        the body
 *
 * Fatal: a write or a sync that fails, but for a full disk: what a failed sync has left in the page cache is
 * not to be trusted, and is not synced again. On a full disk a later write begins with a file of its own. */
#include "member_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "crc32c.h"
#include "log.h"

enum {
    MAGIC_BYTES = 6,
    VERSION_AT = 6,
    LENGTH_AT = 8,
    CRC_AT = 12,
    HEADER_BYTES = 16,
    FORMAT_VERSION = 1,
    DIR_MODE = 0750
};

static const char file_name[] = "member", magic[] = "SHMEMB";

static uint32_t get_big(const uint8_t *p, size_t bytes)
{
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | p[i];
    return value;
}

static void put_big(uint8_t *p, size_t bytes, uint32_t value)
{
    for (size_t i = bytes; i > 0; i--, value >>= 8)
        p[i - 1] = (uint8_t)value;
}

/* ------------------------------------------------------------ reading */

enum check { CHECK_GOOD, CHECK_DAMAGED, CHECK_NEWER };

static enum check check(const struct buf *file)
{
    if (file->len < HEADER_BYTES || memcmp(file->data, magic, MAGIC_BYTES) != 0)
        return CHECK_DAMAGED;
    uint32_t version = get_big(file->data + VERSION_AT, 2);
    if (version > FORMAT_VERSION)
        return CHECK_NEWER;
    size_t len = file->len - HEADER_BYTES;
    if (version != FORMAT_VERSION || get_big(file->data + LENGTH_AT, 4) != len || len == 0 ||
        get_big(file->data + CRC_AT, 4) != crc32c(0, file->data + HEADER_BYTES, len))
        return CHECK_DAMAGED;
    return CHECK_GOOD;
}

/* The whole file; -EFBIG beyond what one can be. */
static int read_file(const struct vfs *fs, const char *path, struct buf *out)
{
    int64_t size;
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    int result = fs->size(fs, fd, &size);
    if (result == 0 && size > HEADER_BYTES + MEMBER_FILE_BODY_MAX)
        result = -EFBIG;
    if (result == 0) {
        ssize_t len = vfs_read_full(fs, fd, buf_reserve(out, (size_t)size + 1), (size_t)size, 0);
        result = len < 0 ? (int)len : 0;
        out->len = len < 0 ? 0 : (size_t)len;
    }
    fs->close(fs, fd);
    return result;
}

/* A file that cannot be read is as good as a damaged one. */
static enum service_exit judge(const struct vfs *fs, const char *data_dir, int result, const struct buf *file)
{
    if (result == -EIO)
        return member_file_quarantine(fs, data_dir, "it cannot be read");
    if (result == -EFBIG)
        return member_file_quarantine(fs, data_dir, "it is too large");
    if (result < 0) {
        log_error("cannot read what is known of the members", log_text("dir", data_dir),
                  log_text("file", file_name), log_text("error", strerror(-result)));
        return EXIT_FAULT;
    }
    switch (check(file)) {
    case CHECK_GOOD:
        return EXIT_DONE;
    case CHECK_NEWER:
        log_error("data/member was written by a newer version, which has to be started again",
                  log_text("dir", data_dir), log_uint("format", get_big(file->data + VERSION_AT, 2)),
                  log_uint("known", FORMAT_VERSION));
        return EXIT_CONFIG;
    case CHECK_DAMAGED:
        break;
    }
    return member_file_quarantine(fs, data_dir, "header, length or checksum are wrong");
}

enum service_exit member_file_read(const struct vfs *fs, const char *data_dir, struct buf *body)
{
    char path[PATH_MAX];
    struct buf file = {0};
    vfs_path(path, data_dir, file_name);
    body->len = 0;
    int result = read_file(fs, path, &file);
    if (result == -ENOENT)
        return EXIT_DONE;
    enum service_exit code = judge(fs, data_dir, result, &file);
    if (code == EXIT_DONE && result == 0 && check(&file) == CHECK_GOOD)
        buf_append(body, file.data + HEADER_BYTES, file.len - HEADER_BYTES);
    buf_free(&file);
    return code;
}

/* The new name first: a loss of power may leave both, but never none. */
static int move(const struct vfs *fs, const char *data_dir, const char *folder, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    vfs_path(from, data_dir, file_name);
    vfs_path(to, folder, name);
    int result = fs->mkdir(fs, folder, DIR_MODE);
    if (result == 0 || result == -EEXIST)
        result = fs->sync_dir(fs, data_dir);
    if (result == 0)
        result = fs->rename(fs, from, to);
    if (result == 0)
        result = fs->sync_dir(fs, folder);
    return result == 0 ? fs->sync_dir(fs, data_dir) : result;
}

enum service_exit member_file_quarantine(const struct vfs *fs, const char *data_dir, const char *why)
{
    char folder[PATH_MAX], name[64];
    vfs_path(folder, data_dir, "quarantine");
    snprintf(name, sizeof name, "%s-%" PRId64, file_name, clock_real_ns());
    int result = move(fs, data_dir, folder, name);
    if (result == 0) {
        log_error("data/member is damaged, and was moved to the quarantine: the topology file names the "
                  "members until one of them answers",
                  log_text("dir", folder), log_text("file", name), log_text("reason", why));
        return EXIT_DONE;
    }
    log_error("data/member is damaged, and cannot be moved to the quarantine", log_text("dir", folder),
              log_text("reason", why), log_text("error", strerror(-result)));
    return EXIT_FAULT;
}

/* ------------------------------------------------------------ writing */

struct done {
    struct mail mail;
    bool full;
};

struct member_file {
    const struct vfs *fs;
    const char *data_dir;
    struct mailbox mailbox;
    void (*on_written)(void *arg, bool full);
    void *arg;
    bool idle; /* the loop's */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct buf next; /* under the lock, as these are: */
    bool has_next, stop;
};

static bool is_full(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

static void fatal(const struct member_file *file, int result)
{
    log_error("cannot write what is known of the members", log_text("dir", file->data_dir),
              log_text("file", file_name), log_text("error", strerror(-result)));
    _exit(EXIT_FAULT);
}

static void write_one(struct member_file *file, const struct buf *body)
{
    struct buf bytes = {0};
    uint8_t header[HEADER_BYTES] = {0};
    memcpy(header, magic, MAGIC_BYTES);
    put_big(header + VERSION_AT, 2, FORMAT_VERSION);
    put_big(header + LENGTH_AT, 4, (uint32_t)body->len);
    put_big(header + CRC_AT, 4, crc32c(0, body->data, body->len));
    buf_append(&bytes, header, sizeof header);
    buf_append(&bytes, body->data, body->len);
    int result = vfs_replace_file(file->fs, file->data_dir, file_name, bytes.data, bytes.len);
    buf_free(&bytes);
    if (result < 0 && !is_full(result))
        fatal(file, result);
    struct done *done = xcalloc(1, sizeof *done);
    done->full = result < 0;
    mailbox_put(&file->mailbox, &done->mail);
}

static void *writer(void *arg)
{
    struct member_file *file = arg;
    pthread_mutex_lock(&file->lock);
    while (file->has_next || !file->stop) {
        if (!file->has_next) {
            pthread_cond_wait(&file->wake, &file->lock);
            continue;
        }
        struct buf body = file->next;
        file->next = (struct buf){0};
        file->has_next = false;
        pthread_mutex_unlock(&file->lock);
        write_one(file, &body);
        buf_free(&body);
        pthread_mutex_lock(&file->lock);
    }
    pthread_mutex_unlock(&file->lock);
    return NULL;
}

static void on_mail(void *arg, struct mail *first)
{
    struct member_file *file = arg;
    for (struct mail *mail = first, *next; mail != NULL; mail = next) {
        next = mail->next;
        file->idle = true;
        file->on_written(file->arg, ((struct done *)mail)->full);
        free(mail);
    }
}

struct member_file *member_file_open(const struct vfs *fs, const char *data_dir, struct loop *loop,
                                     void (*on_written)(void *arg, bool full), void *arg)
{
    struct member_file *file = xcalloc(1, sizeof *file);
    file->fs = fs;
    file->data_dir = data_dir;
    file->on_written = on_written;
    file->arg = arg;
    file->idle = true;
    pthread_mutex_init(&file->lock, NULL);
    pthread_cond_init(&file->wake, NULL);
    mailbox_open(&file->mailbox, loop, on_mail, file);
    int rv = pthread_create(&file->thread, NULL, writer, file);
    if (rv != 0) {
        log_error("cannot start a thread", log_text("error", strerror(rv)));
        abort();
    }
    return file;
}

bool member_file_is_idle(const struct member_file *file)
{
    return file->idle;
}

void member_file_write(struct member_file *file, struct buf *body)
{
    file->idle = false;
    pthread_mutex_lock(&file->lock);
    file->next = *body;
    file->has_next = true;
    *body = (struct buf){0};
    pthread_cond_signal(&file->wake);
    pthread_mutex_unlock(&file->lock);
}

void member_file_close(struct member_file *file)
{
    pthread_mutex_lock(&file->lock);
    file->stop = true;
    pthread_cond_signal(&file->wake);
    pthread_mutex_unlock(&file->lock);
    pthread_join(file->thread, NULL);
    mailbox_close(&file->mailbox);
    pthread_cond_destroy(&file->wake);
    pthread_mutex_destroy(&file->lock);
    free(file);
}
