/* The catalogue of a log's segments, and trimming. Nothing here is fatal: the caller ends the process when a
 * sync failed. */
#include "wal_trim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "hlc.h"
#include "log.h"
#include "log_mark.h"
#include "segment_scan.h"

/* In the year 2096; what claims to be later counts as unknown. */
#define HLC_MS_MAX INT64_C(4000000000000)

void wal_catalog_free(struct wal_catalog *c)
{
    free(c->all);
    c->all = NULL;
    c->count = 0;
}

uint64_t wal_catalog_first_lsn(const struct wal_catalog *c)
{
    return c->count > 0 ? c->all[0].base_lsn : 1;
}

/* The time of the segment's first frame, which is not older than anything before it; 0: it cannot be read.
 * No more than that frame is read. */
static int64_t first_frame_ns(const struct wal_catalog *c, int fd, const struct segment_header *segment)
{
    struct segment_scan scan;
    struct frame_header h;
    struct slice bytes;
    uint8_t head[FRAME_HEADER_BYTES];
    struct log_chain chain = log_chain_of(segment);
    if (vfs_read_full(c->fs, fd, head, sizeof head, SEGMENT_HEADER_BYTES) != sizeof head ||
        frame_header_decode(slice_of(head, sizeof head), FRAME_BYTES_MAX - FRAME_HEADER_BYTES, &h) != SH_OK)
        return 0;
    uint64_t end = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + (uint64_t)h.body_bytes;
    segment_scan_open(&scan, c->fs, fd, segment->salt, end);
    bool good = segment_scan_next(&scan, &h, &bytes) == SCAN_FRAME && log_chain_follow(&chain, &h);
    segment_scan_free(&scan);
    return good && hlc_ms(h.hlc) < HLC_MS_MAX ? hlc_ms(h.hlc) * NS_PER_MS : 0;
}

/* Opens a segment, if it can be told where it lies; *fd is -1 otherwise, and after an error. */
static enum sh_error open_known(const struct wal_catalog *c, uint64_t base, int *fd,
                                struct segment_header *header, uint64_t *file_bytes, enum header_state *state)
{
    enum sh_error error =
        segment_open_any(c->fs, c->dir, c->log, base, O_RDONLY, fd, header, file_bytes, state);
    if (error == SH_OK && *state == HEADER_UNKNOWN) {
        c->fs->close(c->fs, *fd);
        *fd = -1;
    }
    return error == SH_VERSION_MISMATCH ? SH_OK : error;
}

/* Looks at a segment, and completes what is said of the one before it. */
static enum sh_error look_at(const struct wal_catalog *c, uint64_t base, struct wal_segment *out,
                             struct wal_segment *before)
{
    struct segment_header header;
    enum header_state state;
    int fd;
    *out = (struct wal_segment){.base_lsn = base};
    enum sh_error error = open_known(c, base, &fd, &header, &out->bytes, &state);
    if (error != SH_OK)
        return error;
    out->damaged = fd < 0;
    out->rebuilt = fd >= 0 && state != HEADER_GOOD;
    if (before != NULL)
        before->next_lsn = base;
    if (out->damaged && before != NULL)
        before->damaged = true;
    if (out->damaged)
        return SH_OK;
    out->position = header.position;
    out->created_ns = header.created_ns;
    if (before != NULL && before->damaged && before->position == 0 && header.position > before->bytes)
        before->position = header.position - before->bytes; /* a sealed file ends with its last frame */
    if (before != NULL && !before->damaged) {
        uint64_t bytes = header.position - before->position; /* huge when it lies before */
        bool good = header.position >= before->position + SEGMENT_HEADER_BYTES;
        /* What frames tell must be confirmed: a sealed file is just as long as the positions say. */
        if (before->rebuilt || out->rebuilt)
            good = good && bytes == before->bytes;
        before->last_ns = first_frame_ns(c, fd, &header);
        before->damaged = !good;
        before->bytes = good ? bytes : before->bytes;
    }
    c->fs->close(c->fs, fd);
    return SH_OK;
}

/* What is known of it and cannot change any more: it and the next one are as they were. */
static const struct wal_segment *known(const struct wal_catalog *c, uint64_t base, uint64_t next)
{
    for (size_t low = 0, high = c->count; low < high;) {
        size_t middle = (low + high) / 2;
        const struct wal_segment *s = &c->all[middle];
        if (s->base_lsn == base)
            return next != 0 && s->next_lsn == next && !s->damaged ? s : NULL;
        if (s->base_lsn < base)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static enum sh_error look_at_all(struct wal_catalog *c, const uint64_t *bases, size_t count,
                                 struct wal_segment *all)
{
    enum sh_error error = SH_OK;
    bool open = false; /* the one before is to be completed by this one's header */
    for (size_t i = 0; i < count && error == SH_OK; i++) {
        const struct wal_segment *old = known(c, bases[i], i + 1 < count ? bases[i + 1] : 0);
        if (old == NULL || open)
            error = look_at(c, bases[i], &all[i], open ? &all[i - 1] : NULL);
        open = old == NULL || all[i].damaged;
        if (!open)
            all[i] = *old;
    }
    return error;
}

static uint64_t marked_end(const struct wal_catalog *c)
{
    struct log_mark mark;
    return log_mark_read(c->fs, c->dir, c->log, &mark) == SH_OK ? mark.durable_end : 0;
}

enum sh_error wal_catalog_refresh(struct wal_catalog *c)
{
    uint64_t *bases;
    size_t count;
    int result = segment_list(c->fs, c->dir, &bases, &count);
    if (result < 0) {
        log_error("cannot list a log's segments", log_text("dir", c->dir),
                  log_text("error", strerror(-result)));
        return SH_INTERNAL;
    }
    struct wal_segment *all = xcalloc(count + 1, sizeof *all);
    enum sh_error error = look_at_all(c, bases, count, all);
    free(bases);
    if (error != SH_OK) {
        free(all);
        return SH_INTERNAL;
    }
    wal_catalog_free(c);
    c->all = all;
    c->count = count;
    c->mark_end = marked_end(c);
    return SH_OK;
}

/* ---------------------------------------------------------------- removal */

static bool header_agrees(const struct wal_catalog *c, const struct wal_segment *s)
{
    struct segment_header header;
    enum header_state state;
    uint64_t file_bytes;
    int fd;
    if (open_known(c, s->base_lsn, &fd, &header, &file_bytes, &state) != SH_OK || fd < 0)
        return false;
    c->fs->close(c->fs, fd);
    return header.position == s->position;
}

static int remove_oldest(struct wal_catalog *c, const struct wal_segment *s, bool *must_end)
{
    char path[PATH_MAX], name[SEGMENT_NAME_MAX];
    segment_name(s->base_lsn, name);
    vfs_path(path, c->dir, name);
    if (s->next_lsn != s[1].base_lsn || s[1].position != s->position + s->bytes || !header_agrees(c, s) ||
        !header_agrees(c, s + 1)) {
        log_error("a segment is not trimmed: its header, or the next one's, says something else than before",
                  log_text("file", path));
        return -EUCLEAN;
    }
    int result = c->fs->unlink(c->fs, path);
    if (result < 0) {
        log_error("cannot trim a segment", log_text("file", path), log_text("error", strerror(-result)));
        return result;
    }
    failpoint_hit("trim_unlinked");
    result = c->fs->sync_dir(c->fs, c->dir);
    *must_end = result < 0;
    failpoint_hit("trim_dir_synced");
    return result;
}

int wal_catalog_remove(struct wal_catalog *c, size_t count, struct wal_trimmed *out, bool *must_end)
{
    int result = 0;
    size_t removed = 0;
    *must_end = false;
    *out = (struct wal_trimmed){0};
    while (removed < count && removed + 1 < c->count && !(c->stop != NULL && atomic_load(c->stop))) {
        result = remove_oldest(c, &c->all[removed], must_end);
        if (result < 0)
            break;
        out->segments++;
        out->bytes += c->all[removed++].bytes;
    }
    c->count -= removed;
    memmove(c->all, c->all + removed, c->count * sizeof *c->all);
    if (c->count > 0) {
        out->first_lsn = c->all[0].base_lsn;
        out->position = c->all[0].position;
    }
    return result;
}

enum { SWEEP_MAX = 64, LSN_DIGITS = 20 };
struct sweep {
    const struct wal_catalog *catalog;
    char names[SWEEP_MAX][SEGMENT_NAME_MAX];
    size_t count;
};

/* "<base LSN>.idx" of a segment that is gone, or "<base LSN>.idx.tmp". */
static bool note_orphan(void *arg, const char *name)
{
    struct sweep *sweep = arg;
    char segment[SEGMENT_NAME_MAX];
    uint64_t base;
    if (strlen(name) < LSN_DIGITS ||
        (strcmp(name + LSN_DIGITS, ".idx") != 0 && strcmp(name + LSN_DIGITS, ".idx.tmp") != 0))
        return true;
    snprintf(segment, sizeof segment, "%.*s.seg", LSN_DIGITS, name);
    if (segment_name_parse(segment, &base) && base < wal_catalog_first_lsn(sweep->catalog))
        snprintf(sweep->names[sweep->count++], SEGMENT_NAME_MAX, "%s", name);
    return sweep->count < SWEEP_MAX;
}

static int remove_orphans(const struct wal_catalog *c, const struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->count; i++) {
        char path[PATH_MAX];
        vfs_path(path, c->dir, sweep->names[i]);
        int result = c->fs->unlink(c->fs, path);
        if (result < 0 && result != -ENOENT)
            return result;
    }
    return 0;
}

int wal_catalog_sweep(const struct wal_catalog *c)
{
    struct sweep sweep;
    int result;
    do { /* so many at a time */
        sweep = (struct sweep){.catalog = c};
        result = c->fs->list(c->fs, c->dir, note_orphan, &sweep);
        if (result == 0)
            result = remove_orphans(c, &sweep);
    } while (result == 0 && sweep.count == SWEEP_MAX);
    return result;
}
