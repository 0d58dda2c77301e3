/* Appending to the log's files. Nothing here is fatal: the committer ends the process when something fails.
 */
#include "wal_log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "failpoint.h"

enum { ZEROS_BYTES = 1 << 20, ROOM_SHARE = 4 };

int wal_write_zeros(const struct vfs *fs, int fd, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[ZEROS_BYTES];
    int result = 0;
    while (from < to && result == 0) {
        size_t len = to - from < sizeof zeros ? (size_t)(to - from) : sizeof zeros;
        result = vfs_write_all(fs, fd, zeros, len, (int64_t)from);
        from += len;
    }
    return result;
}

/* Completes the header and adds the frame to the vectors. */
static void add_frame(struct wal_log *log, struct wal_frame *frame, unsigned *used)
{
    struct frame_header *h = &frame->header;
    h->previous_checksum = log->chain.checksum;
    h->durable_end = log->durable.end;
    h->durable_lsn = log->durable.lsn;
    h->durable_checksum = log->durable.checksum;
    frame_encode(h, log->segment.salt, frame->body, frame->encoded);
    bool follows = log_chain_follow(&log->chain, h);
    assert(follows);
    log->iov[(*used)++] = (struct iovec){frame->encoded, sizeof frame->encoded};
    if (frame->body.len > 0)
        log->iov[(*used)++] = (struct iovec){(void *)(uintptr_t)frame->body.data, frame->body.len};
}

static int write_vectors(struct wal_log *log, unsigned used)
{
    int result = vfs_writev_all(log->fs, log->fd, log->iov, (int)used, (int64_t)log->offset);
    log->offset = log->chain.position - log->segment.position;
    return result;
}

int wal_log_write(struct wal_log *log, struct wal_frame *first)
{
    unsigned used = 0;
    int result = 0;
    for (struct wal_frame *frame = first; frame != NULL && result == 0; frame = frame->next) {
        if (used + 2 > WAL_IOV_MAX) {
            result = write_vectors(log, used);
            used = 0;
        }
        add_frame(log, frame, &used);
    }
    assert(log->chain.position <= log->segment.position + log->limit);
    return result == 0 && used > 0 ? write_vectors(log, used) : result;
}

static void all_durable(struct wal_log *log)
{
    log->durable.end = log->chain.position;
    log->durable.lsn = log->chain.next_lsn - 1;
    log->durable.checksum = log->chain.checksum;
}

int wal_log_sync(struct wal_log *log)
{
    int result = log->fs->fdatasync(log->fs, log->fd);
    if (result < 0)
        return result;
    log->durable.commits++;
    all_durable(log);
    return 0;
}

/* Gives the prepared file its name, for good. */
static int name_segment(struct wal_log *log)
{
    char from[PATH_MAX], to[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_name(log->segment.base_lsn, name);
    vfs_path(from, log->dir, "next.tmp");
    vfs_path(to, log->dir, name);
    int result = failpoint_step("roll_named", log->fs->rename(log->fs, from, to));
    if (result == 0)
        result = failpoint_step("roll_dir_synced", log->fs->sync_dir(log->fs, log->dir));
    return result;
}

/* The file `fd` becomes the active one; log->segment is its header, which is still to be set. */
static void leave_segment(struct wal_log *log, int fd, uint64_t limit, int *old, uint64_t *old_end)
{
    assert(log->durable.end == log->chain.position);
    *old = log->fd;
    *old_end = log->offset;
    log->fd = fd;
    log->offset = 0;
    log->limit = limit;
}

/* Writes its first bytes, and gives it its name. */
static int begin_segment(struct wal_log *log, unsigned used)
{
    assert(log->chain.position <= log->segment.position + log->limit);
    int result = failpoint_step("roll_written", write_vectors(log, used));
    if (result == 0)
        result = failpoint_step("roll_synced", log->fs->fdatasync(log->fs, log->fd));
    if (result == 0)
        result = name_segment(log);
    if (result == 0)
        all_durable(log);
    return result;
}

int wal_log_roll(struct wal_log *log, int fd, struct wal_frame *checkpoint, int *old, uint64_t *old_end)
{
    uint8_t header[SEGMENT_HEADER_BYTES];
    unsigned used = 1;
    assert(checkpoint->next == NULL);
    leave_segment(log, fd, log->segment_size, old, old_end);
    log->segment = (struct segment_header){
        .log = log->uuid,
        .salt = segment_salt(log->uuid, log->chain.next_lsn),
        .previous_checksum = log->chain.checksum,
        .base_lsn = log->chain.next_lsn,
        .position = log->chain.position,
        .created_ns = clock_real_ns(),
    };
    segment_header_encode(&log->segment, header);
    log->iov[0] = (struct iovec){header, sizeof header};
    log->chain.position += sizeof header;
    add_frame(log, checkpoint, &used);
    return begin_segment(log, used);
}

int wal_log_room(const struct wal_log *log, int fd, uint64_t *limit, uint64_t need, uint64_t reserve)
{
    uint64_t most = need + log->segment_size / ROOM_SHARE, room;
    if (need <= *limit)
        return 0;
    if (log->fs->free_bytes(log->fs, log->dir, &room) == 0 && room < most - *limit + reserve)
        return -ENOSPC;
    int result = log->fs->allocate(log->fs, fd, 0, (int64_t)most);
    if (result == 0)
        *limit = most;
    return result;
}

int wal_log_put(struct wal_log *log, struct iovec *iov, unsigned count)
{
    assert(log->chain.position <= log->segment.position + log->limit);
    int result = vfs_writev_all(log->fs, log->fd, iov, (int)count, (int64_t)log->offset);
    log->offset = log->chain.position - log->segment.position;
    return result;
}

int wal_log_adopt(struct wal_log *log, int fd, uint64_t limit, const struct segment_header *header,
                  struct slice bytes, const struct log_chain *behind, int *old, uint64_t *old_end)
{
    leave_segment(log, fd, limit, old, old_end);
    log->segment = *header;
    log->chain = *behind;
    log->iov[0] = (struct iovec){(void *)(uintptr_t)bytes.data, bytes.len};
    return begin_segment(log, 1);
}

int wal_log_forget(struct wal_log *log)
{
    if (log->fd >= 0)
        log->fs->close(log->fs, log->fd);
    log->fd = -1;
    log->segment = (struct segment_header){0};
    log->offset = log->limit = 0;
    log->chain = (struct log_chain){.next_lsn = 1};
    log->durable = (struct wal_durable){.commits = log->durable.commits};
    return log->mark.counter > 0 || log->mark_fd >= 0 ? wal_log_write_mark(log) : 0;
}

static int sync_mark(struct wal_log *log, const struct log_mark *mark)
{
    uint8_t slot[MARK_SLOT_BYTES];
    log_mark_encode(mark, slot);
    int result = vfs_write_all(log->fs, log->mark_fd, slot, sizeof slot, log_mark_offset(mark));
    result = failpoint_step("mark_written", result);
    if (result == 0)
        result = failpoint_step("mark_synced", log->fs->fdatasync(log->fs, log->mark_fd));
    return result;
}

static int make_mark(struct wal_log *log)
{
    uint8_t slots[2 * MARK_SLOT_BYTES];
    const struct log_mark mark = {.log = log->uuid, .counter = 1};
    log_mark_encode(&mark, slots);
    memcpy(slots + MARK_SLOT_BYTES, slots, MARK_SLOT_BYTES);
    int result = vfs_replace_file(log->fs, log->dir, "mark", slots, sizeof slots);
    if (result == 0)
        log->mark = mark;
    return result;
}

/* Whoever wrote the mark that was found may have been killed before its sync, or that failed: it is written
 * again, and synced. */
static int open_mark(struct wal_log *log)
{
    char path[PATH_MAX];
    bool found = log->mark.counter > 0; /* neither missing nor damaged */
    int result = found ? 0 : make_mark(log);
    if (result < 0)
        return result;
    vfs_path(path, log->dir, "mark");
    log->mark_fd = log->fs->open(log->fs, path, O_RDWR, 0);
    if (log->mark_fd < 0)
        return log->mark_fd;
    result = found ? sync_mark(log, &log->mark) : 0;
    if (result < 0) {
        log->fs->close(log->fs, log->mark_fd);
        log->mark_fd = -1;
    }
    return result;
}

int wal_log_write_mark(struct wal_log *log)
{
    int opened = log->mark_fd < 0 ? open_mark(log) : 0;
    if (opened < 0)
        return opened;
    if (log->mark.durable_end == log->durable.end)
        return 0;
    struct log_mark mark = {
        .log = log->uuid,
        .counter = log->mark.counter + 1,
        .durable_end = log->durable.end,
        .durable_lsn = log->durable.lsn,
        .checksum = log->durable.checksum,
    };
    int result = sync_mark(log, &mark);
    if (result == 0)
        log->mark = mark;
    return result;
}

void wal_log_close(struct wal_log *log)
{
    if (log->fd >= 0)
        log->fs->close(log->fs, log->fd);
    if (log->mark_fd >= 0)
        log->fs->close(log->fs, log->mark_fd);
    log->fd = log->mark_fd = -1;
}
