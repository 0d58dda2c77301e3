/* The steps of a cut. Nothing here is fatal: the copier ends the process when one fails. */
#include "wal_cut.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"
#include "telemetry_push.h"
#include "segment_index.h"
#include "wal_drop.h"
#include "wal_forked.h"

enum { FILE_MODE = 0640 };

/* A segment of which frames go. */
struct part {
    uint64_t base_lsn;
    uint64_t position;
    bool is_known;     /* the position is; else nothing tells it */
    uint64_t from, to; /* in the file: what goes */
};

/* ---------------------------------------------------------------- what goes */

static int look_at(const struct wal_log *log, uint64_t base, struct part *out)
{
    struct segment_header header;
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    enum sh_error error =
        segment_open_any(log->fs, log->dir, log->uuid, base, O_RDONLY, &fd, &header, &file_bytes, &state);
    if (error != SH_OK)
        return -EIO;
    log->fs->close(log->fs, fd);
    *out = (struct part){.base_lsn = base,
                         .position = header.position,
                         .is_known = state != HEADER_UNKNOWN,
                         .from = SEGMENT_HEADER_BYTES,
                         .to = file_bytes};
    return 0;
}

/* Sets where the frames of each end: a file that is not sealed yet is longer. */
static void find_ends(const struct wal_log *log, struct part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool is_newest = i + 1 == count;
        uint64_t end = is_newest ? log->chain.position : parts[i + 1].position;
        if (parts[i].is_known && (is_newest || parts[i + 1].is_known) && parts[i].position <= end &&
            end - parts[i].position < parts[i].to)
            parts[i].to = end - parts[i].position;
        if (parts[i].to < parts[i].from)
            parts[i].to = parts[i].from; /* cut short by damage: not even a header */
    }
}

/* The segment that stays first, then all behind it; the caller frees them. */
static int find_parts(const struct wal_log *log, const struct wal_fork *fork, struct part **parts,
                      size_t *count)
{
    uint64_t *bases;
    size_t all, first = 0;
    *parts = NULL;
    *count = 0;
    int result = segment_list(log->fs, log->dir, &bases, &all);
    while (result == 0 && first < all && bases[first] < fork->base_lsn)
        first++;
    if (result == 0)
        *parts = xcalloc(all - first + 1, sizeof **parts);
    for (size_t i = first; i < all && result == 0; i++)
        result = look_at(log, bases[i], &(*parts)[(*count)++]);
    free(bases);
    if (result < 0)
        return result;
    assert(*count > 0 && (*parts)[0].base_lsn == fork->base_lsn && fork->at.position > (*parts)[0].position);
    find_ends(log, *parts, *count);
    (*parts)[0].from = fork->at.position - (*parts)[0].position;
    if ((*parts)[0].to < (*parts)[0].from)
        (*parts)[0].to = (*parts)[0].from;
    return 0;
}

/* ---------------------------------------------------------------- 1: kept */

static int open_segment(const struct wal_log *log, const char *dir, uint64_t base, int flags)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, dir, name);
    return log->fs->open(log->fs, path, flags, FILE_MODE);
}

static int keep_part(const struct wal_log *log, const char *folder, const struct part *part)
{
    const struct vfs *fs = log->fs;
    int from = open_segment(log, log->dir, part->base_lsn, O_RDONLY);
    int to = from < 0 ? from : open_segment(log, folder, part->base_lsn, O_WRONLY | O_CREAT | O_TRUNC);
    int result = to < 0 ? to : wal_copy_range(fs, from, 0, SEGMENT_HEADER_BYTES, to, 0);
    if (result == 0)
        result = wal_copy_range(fs, from, part->from, part->to, to, SEGMENT_HEADER_BYTES);
    if (result == 0)
        result = fs->fsync(fs, to);
    if (from >= 0)
        fs->close(fs, from);
    if (to >= 0)
        fs->close(fs, to);
    return result;
}

static int check_room(const struct wal_cut *cut, const struct part *parts, size_t count)
{
    const struct vfs *fs = cut->log->fs;
    uint64_t need = cut->reserve_bytes, room;
    for (size_t i = 0; i < count; i++)
        need += parts[i].to - parts[i].from + SEGMENT_HEADER_BYTES;
    return fs->free_bytes(fs, cut->data, &room) == 0 && room < need ? -ENOSPC : 0;
}

static int keep(const struct wal_cut *cut, const struct wal_fork *fork, const struct part *parts,
                size_t count, char name[WAL_FORKED_NAME_MAX])
{
    const struct wal_log *log = cut->log;
    char folder[PATH_MAX];
    int result = check_room(cut, parts, count);
    if (result == 0)
        result = wal_forked_begin(log->fs, cut->data, log->uuid, folder);
    for (size_t i = 0; i < count && result == 0; i++)
        if (parts[i].to > parts[i].from)
            result = keep_part(log, folder, &parts[i]);
    if (result == 0)
        result = wal_forked_end(log->fs, cut->data, log->uuid, fork->at.next_lsn, name);
    else if (wal_is_full(result))
        wal_empty_folder(log->fs, folder);
    return failpoint_step("cut_kept", result);
}

/* ---------------------------------------------------------------- 2: named */

/* A damaged frame that comes again was not given up. */
static int note_given_up(const struct wal_cut *cut, const struct wal_fork *fork)
{
    const struct wal_log *log = cut->log;
    const struct wal_given_up_frame frame = {fork->at.position, fork->goes};
    if (cut->given_up == NULL || fork->goes == 0 || fork->goes == fork->comes)
        return 0;
    int result = wal_given_up_add(cut->given_up, log->fs, log->dir, log->uuid, &frame);
    return failpoint_step("cut_named", result);
}

/* ---------------------------------------------------------------- 3 to 5: cut */

static int set_mark_back(const struct wal_cut *cut, const struct wal_fork *fork)
{
    struct wal_log *log = cut->log;
    const struct wal_durable before = log->durable;
    log->durable.end = fork->at.position;
    log->durable.lsn = fork->at.next_lsn - 1;
    log->durable.checksum = fork->at.checksum;
    int result = failpoint_step("cut_marked", wal_log_write_mark(log));
    if (wal_is_full(result))
        log->durable = before;
    return result;
}

/* The register is an aid: on a full disk it may say too much. */
static int forget_damage(const struct wal_cut *cut, const struct part *part, const struct wal_fork *fork)
{
    const struct log_chain begin = {.next_lsn = part->base_lsn, .position = part->position};
    bool stays = part->base_lsn == fork->base_lsn;
    int result = wal_damage_repaired(cut->damage, part->base_lsn, stays ? part->from : 0, INT64_MAX,
                                     stays ? &fork->at : &begin);
    return wal_is_full(result) ? 0 : result;
}

static int remove_file(const struct wal_log *log, const char *name)
{
    char path[PATH_MAX];
    vfs_path(path, log->dir, name);
    int result = log->fs->unlink(log->fs, path);
    return result == -ENOENT ? 0 : result;
}

/* None must be there when another segment gets its name, or this one goes on. The folder is still to be
 * synced. */
static int remove_index(const struct wal_log *log, const struct part *part)
{
    char name[SEGMENT_NAME_MAX];
    segment_index_name(part->base_lsn, name);
    return remove_file(log, name);
}

static int remove_part(const struct wal_cut *cut, const struct part *part, const struct wal_fork *fork)
{
    const struct wal_log *log = cut->log;
    char name[SEGMENT_NAME_MAX];
    segment_name(part->base_lsn, name);
    int result = forget_damage(cut, part, fork);
    if (result == 0)
        result = remove_index(log, part);
    if (result == 0)
        result = remove_file(log, name);
    if (result == 0)
        result = log->fs->sync_dir(log->fs, log->dir);
    return failpoint_step("cut_removed", result);
}

/* Overwrites what stands from the place on. */
static int zero_behind(const struct wal_log *log, int fd, const struct segment_header *header, uint64_t from,
                       uint64_t file_bytes)
{
    struct segment_scan scan;
    uint64_t extent;
    segment_scan_open(&scan, log->fs, fd, header->salt, file_bytes);
    scan.offset = from;
    int result = segment_scan_extent(&scan, &extent) ? 0 : scan.error;
    segment_scan_free(&scan);
    return result == 0 ? wal_write_zeros(log->fs, fd, from, extent) : result;
}

/* The segment that stays is the active one again. */
static int open_again(const struct wal_cut *cut, const struct part *part, const struct wal_fork *fork)
{
    struct wal_log *log = cut->log;
    struct segment_header header;
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    if (segment_open_any(log->fs, log->dir, log->uuid, part->base_lsn, O_RDWR, &fd, &header, &file_bytes,
                         &state) != SH_OK)
        return -EIO;
    log->fs->close(log->fs, log->fd);
    log->fd = fd;
    log->segment = header;
    log->limit = file_bytes;
    log->offset = part->from;
    log->chain = fork->at;
    log->durable.commits++; /* what was told before is old */
    int result = forget_damage(cut, part, fork);
    if (result == 0)
        result = remove_index(log, part);
    if (result == 0)
        result = zero_behind(log, fd, &header, part->from, file_bytes);
    if (result == 0 && file_bytes < log->segment_size) {
        result = log->fs->allocate(log->fs, fd, 0, (int64_t)log->segment_size);
        log->limit = result == 0 ? log->segment_size : file_bytes;
        result =
            wal_is_full(result) ? 0 : result; /* it ends where it ended; more is asked for when it comes */
    }
    if (result == 0)
        result = log->fs->sync_dir(log->fs, log->dir);
    return failpoint_step("cut_zeroed", result); /* the zeros are synced with the next frames */
}

static void tell(const struct wal_cut *cut, const struct wal_fork *fork, uint64_t end, const char *kept)
{
    char sums[32];
    snprintf(sums, sizeof sums, "%08" PRIx32 " %08" PRIx32, fork->goes, fork->comes);
    event_warn(
        "chain_given_up",
        cut->given_up != NULL
            ? "the node's own log is on another chain than its copies: what they have stays, its own "
              "part is kept aside and is appended again"
            : "a copy is on a chain that the log's node has given up: it takes the node's frames, its own "
              "part is kept aside",
        log_text("dir", cut->log->dir), log_uint("position", fork->at.position),
        log_uint("first_lsn", fork->at.next_lsn), log_uint("bytes", end - fork->at.position),
        log_text("checksums", sums), log_text("kept", kept));
}

int wal_cut(const struct wal_cut *cut, const struct wal_fork *fork)
{
    struct wal_log *log = cut->log;
    struct part *parts;
    size_t count;
    char kept[WAL_FORKED_NAME_MAX] = "";
    uint64_t end = log->chain.position;
    assert(log->durable.end == end && fork->at.position < end);
    int result = find_parts(log, fork, &parts, &count);
    if (result == 0)
        result = keep(cut, fork, parts, count, kept);
    if (result == 0)
        result = note_given_up(cut, fork);
    if (result == 0)
        result = set_mark_back(cut, fork);
    if (result == 0)
        tell(cut, fork, end, kept);
    for (size_t i = count; result == 0 && i-- > 1;)
        result = remove_part(cut, &parts[i], fork);
    if (result == 0)
        result = open_again(cut, &parts[0], fork);
    free(parts);
    return result;
}
