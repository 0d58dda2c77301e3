/* The data directory: lock, identity, folders. Nothing here is fatal; the exit code says who has to act. */
#include "wal_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

enum { DIR_MODE = 0750, FILE_MODE = 0640 };

static enum service_exit fault(const char *what, const char *path, int result)
{
    log_error(what, log_text("path", path), log_text("error", strerror(-result)));
    return EXIT_FAULT;
}

static int make_dir(const struct vfs *fs, const char *path)
{
    int result = fs->mkdir(fs, path, DIR_MODE);
    return result == -EEXIST ? 0 : result;
}

static enum service_exit take_lock(struct wal_dir *d, const char *logs)
{
    char path[PATH_MAX];
    vfs_path(path, logs, "lock");
    int fd = d->fs->open(d->fs, path, O_RDWR | O_CREAT, FILE_MODE);
    if (fd < 0)
        return fault("cannot open the lock file", path, fd);
    int result = d->fs->lock(d->fs, fd);
    if (result == 0) {
        d->lock_fd = fd;
        return EXIT_DONE;
    }
    d->fs->close(d->fs, fd);
    if (result != -EWOULDBLOCK)
        return fault("cannot lock the data directory", path, result);
    log_error("another walsvc works in this data directory", log_text("lock", path));
    return EXIT_IN_USE;
}

struct log_search {
    struct id16 log;
    unsigned found;
};

static bool note_log(void *arg, const char *name)
{
    struct log_search *search = arg;
    struct id16 log;
    if (id16_parse(name, &log)) {
        search->log = log;
        search->found++;
    }
    return true;
}

/* No identity: either nothing is here yet, or an earlier first start was cut short and left a log without an
 * entry, which is taken up again. */
static enum service_exit begin_identity(struct wal_dir *d, const char *logs, const char *node)
{
    struct log_search search = {0};
    int result = d->fs->list(d->fs, logs, note_log, &search);
    if (result < 0)
        return fault("cannot list the logs", logs, result);
    if (search.found > 1) {
        log_error("the file `node` is missing, and there are several logs; put it back from a copy",
                  log_text("path", d->data));
        return EXIT_CONFIG;
    }
    d->is_new = true;
    d->identity.log = search.found == 1 ? search.log : id16_random();
    snprintf(d->identity.node, sizeof d->identity.node, "%s", node);
    return EXIT_DONE;
}

static enum service_exit find_identity(struct wal_dir *d, const char *logs, const char *node)
{
    switch (node_identity_read(d->fs, d->data, &d->identity)) {
    case SH_OK:
        break;
    case SH_NOT_FOUND:
        return begin_identity(d, logs, node);
    case SH_CORRUPT:
        log_error(
            "the file `node` is damaged; put it back from a copy, or start with an empty data directory",
            log_text("path", d->data));
        return EXIT_CONFIG;
    case SH_VERSION_MISMATCH:
        log_error("the data directory has a format that this version doesn't know",
                  log_text("path", d->data));
        return EXIT_CONFIG;
    default:
        return EXIT_FAULT;
    }
    if (strcmp(d->identity.node, node) == 0)
        return EXIT_DONE;
    log_error("the data directory belongs to another node", log_text("path", d->data),
              log_text("belongs_to", d->identity.node), log_text("started_as", node));
    return EXIT_CONFIG;
}

/* All folders have their names for good before the identity says that there is a log. */
static enum service_exit make_log_dir(struct wal_dir *d, const char *logs)
{
    char uuid[ID_TEXT], parent[PATH_MAX];
    id16_format(d->identity.log, uuid);
    vfs_path(d->log, logs, uuid);
    if (!d->is_new)
        return EXIT_DONE;
    vfs_parent(d->data, parent);
    int result = make_dir(d->fs, d->log);
    if (result == 0)
        result = d->fs->sync_dir(d->fs, logs);
    if (result == 0)
        result = d->fs->sync_dir(d->fs, d->data);
    if (result == 0)
        result = d->fs->sync_dir(d->fs, parent);
    return result == 0 ? EXIT_DONE : fault("cannot make the log's folder", d->log, result);
}

enum service_exit wal_dir_open(struct wal_dir *d, const struct vfs *fs, const char *data_dir,
                               const char *node)
{
    char logs[PATH_MAX];
    *d = (struct wal_dir){.fs = fs, .lock_fd = -1};
    snprintf(d->data, sizeof d->data, "%s", data_dir);
    vfs_path(logs, data_dir, "log");
    vfs_path(d->quarantine, data_dir, "quarantine");
    int result = make_dir(fs, data_dir);
    if (result == 0)
        result = make_dir(fs, logs);
    if (result < 0)
        return fault("cannot make the data directory", logs, result);
    enum service_exit code = take_lock(d, logs);
    if (code == EXIT_DONE)
        code = find_identity(d, logs, node);
    if (code == EXIT_DONE)
        code = make_log_dir(d, logs);
    if (code != EXIT_DONE)
        wal_dir_close(d);
    return code;
}

static enum service_exit write_identity(struct wal_dir *d, const struct wal_state *state)
{
    if (state->next_lsn > 1) {
        log_error("the file `node` is missing, but there is a log with entries; put it back from a copy",
                  log_text("path", d->data), log_text("log", d->log));
        return EXIT_CONFIG;
    }
    int result = node_identity_write(d->fs, d->data, &d->identity);
    if (result < 0)
        return fault("cannot write the node's identity", d->data, result);
    d->is_new = false;
    return EXIT_DONE;
}

/* Whoever wrote it may have been killed before it could. */
static enum service_exit sync_identity(struct wal_dir *d)
{
    int result = d->fs->sync_dir(d->fs, d->data);
    return result == 0 ? EXIT_DONE : fault("cannot sync the data directory", d->data, result);
}

enum service_exit wal_dir_open_log(struct wal_dir *d, struct wal_log *log, uint64_t segment_size,
                                   struct wal_state *state)
{
    enum sh_error error =
        wal_damage_open(d->fs, d->log, d->identity.log, d->quarantine, d->reserve_bytes, &d->damage);
    if (error == SH_OK)
        error = wal_log_open(log, d->fs, d->log, d->identity.log, segment_size, d->is_new, d->quarantine,
                             d->damage, state);
    if (error == SH_CORRUPT || error == SH_VERSION_MISMATCH)
        return EXIT_CONFIG;
    if (error != SH_OK)
        return EXIT_FAULT;
    enum service_exit code = d->is_new ? write_identity(d, state) : sync_identity(d);
    if (code == EXIT_DONE) /* now that what a killed process may have written is synced */
        code = wal_permit_open(&d->permit, d->fs, d->data, d->identity.log);
    if (code == EXIT_DONE)
        code = wal_closed_open(&d->closed, d->fs, d->data);
    if (code != EXIT_DONE)
        wal_log_close(log);
    return code;
}

enum service_exit wal_dir_open_copy(struct wal_dir *d)
{
    enum service_exit code = sync_identity(d);
    return code == EXIT_DONE ? wal_permit_open(&d->permit, d->fs, d->data, d->identity.log) : code;
}

void wal_dir_close(struct wal_dir *d)
{
    wal_damage_close(d->damage);
    d->damage = NULL;
    wal_closed_close(&d->closed);
    if (d->lock_fd >= 0)
        d->fs->close(d->fs, d->lock_fd);
    d->lock_fd = -1;
}
