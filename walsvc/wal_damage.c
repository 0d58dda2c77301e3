/* The register of damaged ranges: a sorted array under a lock, written as a whole whenever it changes.
 * Nothing here is fatal; a full disk costs the register's file or a copy, not the entry in memory. */
#include "wal_damage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "telemetry_push.h"

struct wal_damage {
    const struct vfs *fs;
    char dir[PATH_MAX], quarantine[PATH_MAX];
    struct id16 log;
    pthread_mutex_t lock; /* over what follows */
    uint64_t reserve_bytes;
    struct log_damage_range *ranges; /* by position; room for LOG_DAMAGE_MAX + 1 */
    size_t count;
};

/* ---------------------------------------------------------------- the file */

/* With the lock. */
static int store(struct wal_damage *d)
{
    struct buf bytes = {0};
    log_damage_encode(d->log, d->ranges, d->count, &bytes);
    int result = vfs_replace_file(d->fs, d->dir, "damage", bytes.data, bytes.len);
    buf_free(&bytes);
    if (wal_is_full(result)) {
        log_warn("the disk is full: the register of damaged ranges is not written", log_text("dir", d->dir));
        return 0;
    }
    return result;
}

static enum sh_error load(struct wal_damage *d)
{
    enum sh_error error = log_damage_read(d->fs, d->dir, d->log, d->ranges, &d->count);
    if (error == SH_VERSION_MISMATCH)
        log_error("the register of damaged ranges has a format that this version doesn't know",
                  log_text("dir", d->dir));
    if (error != SH_CORRUPT)
        return error;
    log_warn(
        "the register of damaged ranges is damaged itself; it begins anew, and damage will be found again",
        log_text("dir", d->dir));
    return SH_OK;
}

enum sh_error wal_damage_open(const struct vfs *fs, const char *dir, struct id16 log, const char *quarantine,
                              uint64_t reserve_bytes, struct wal_damage **out)
{
    struct wal_damage *d = xcalloc(1, sizeof *d);
    d->fs = fs;
    d->log = log;
    d->reserve_bytes = reserve_bytes;
    snprintf(d->dir, sizeof d->dir, "%s", dir);
    snprintf(d->quarantine, sizeof d->quarantine, "%s", quarantine);
    d->ranges = xcalloc(LOG_DAMAGE_MAX + 1, sizeof *d->ranges);
    pthread_mutex_init(&d->lock, NULL);
    *out = d;
    enum sh_error error = load(d);
    if (error == SH_OK)
        return SH_OK;
    wal_damage_close(d);
    *out = NULL;
    return error;
}

void wal_damage_set_reserve(struct wal_damage *d, uint64_t reserve_bytes)
{
    pthread_mutex_lock(&d->lock);
    d->reserve_bytes = reserve_bytes;
    pthread_mutex_unlock(&d->lock);
}

void wal_damage_close(struct wal_damage *d)
{
    if (d == NULL)
        return;
    pthread_mutex_destroy(&d->lock);
    free(d->ranges);
    free(d);
}

/* ---------------------------------------------------------------- adding */

static uint64_t end_of(const struct log_damage_range *r)
{
    return r->position + r->bytes;
}

static bool covers(const struct log_damage_range *outer, const struct log_damage_range *inner)
{
    return outer->position <= inner->position && end_of(outer) >= end_of(inner);
}

/* `r` gets what `other`, which overlaps or touches it, has beyond it. */
static void unite(struct log_damage_range *r, const struct log_damage_range *other)
{
    uint64_t end = end_of(r);
    if (other->position < r->position) {
        r->base_lsn = other->base_lsn;
        r->offset = other->offset;
        r->position = other->position;
        r->checksum_before = other->checksum_before;
    }
    if (end_of(other) > end) {
        end = end_of(other);
        r->checksum_after = other->checksum_after;
    }
    r->bytes = end - r->position;
    r->first_lsn = other->first_lsn < r->first_lsn ? other->first_lsn : r->first_lsn;
    r->next_lsn = other->next_lsn > r->next_lsn ? other->next_lsn : r->next_lsn;
    r->found_ns = other->found_ns < r->found_ns ? other->found_ns : r->found_ns;
    r->accepted_ns = 0;
    r->differs = r->differs || other->differs;
}

static void take_out(struct wal_damage *d, size_t at)
{
    memmove(d->ranges + at, d->ranges + at + 1, (d->count - at - 1) * sizeof *d->ranges);
    d->count--;
}

static void put_in(struct wal_damage *d, const struct log_damage_range *range)
{
    size_t at = d->count;
    while (at > 0 && d->ranges[at - 1].position > range->position)
        at--;
    memmove(d->ranges + at + 1, d->ranges + at, (d->count - at) * sizeof *d->ranges);
    d->ranges[at] = *range;
    d->count++;
}

/* One place is there for one more than the most. */
static void make_room(struct wal_damage *d)
{
    size_t nearest = 0;
    uint64_t least = UINT64_MAX;
    if (d->count <= LOG_DAMAGE_MAX)
        return;
    for (size_t i = 0; i + 1 < d->count; i++) {
        uint64_t gap = d->ranges[i + 1].position - end_of(&d->ranges[i]);
        if (gap < least) {
            least = gap;
            nearest = i;
        }
    }
    unite(&d->ranges[nearest], &d->ranges[nearest + 1]);
    take_out(d, nearest + 1);
}

/* Takes out those that overlap or touch the range and adds what they have beyond it. */
static void absorb(struct wal_damage *d, struct log_damage_range *range)
{
    for (size_t i = 0; i < d->count;) {
        const struct log_damage_range *r = &d->ranges[i];
        bool touches =
            r->base_lsn == range->base_lsn && (r->position == end_of(range) || range->position == end_of(r));
        if (touches || (r->position < end_of(range) && range->position < end_of(r))) {
            unite(range, r);
            take_out(d, i);
            i = 0; /* it is larger now */
        } else {
            i++;
        }
    }
}

/* 0, also when there was no room; then range->copy is empty. */
static int copy_bytes(const struct wal_damage *d, struct log_damage_range *range, int fd)
{
    int64_t size = 0;
    uint64_t room, end = range->offset + range->bytes;
    range->copy[0] = 0;
    if (fd < 0)
        return 0;
    int result = d->fs->size(d->fs, fd, &size);
    if (result < 0)
        return result;
    end = end < (uint64_t)size ? end : (uint64_t)size;
    if (end <= range->offset)
        return 0;
    uint64_t bytes = end - range->offset;
    bool low = d->reserve_bytes > 0 && d->fs->free_bytes(d->fs, d->dir, &room) == 0 &&
               (room < bytes || room - bytes < d->reserve_bytes);
    result = low ? -ENOSPC
                 : wal_quarantine(d->fs, d->quarantine, d->log, range->position, fd, range->offset, end,
                                  range->copy);
    if (!wal_is_full(result))
        return result;
    log_warn("no room for a copy of damaged bytes: they are only where they were found",
             log_text("dir", d->dir), log_uint("bytes", bytes));
    return 0;
}

static void tell(const struct wal_damage *d, const struct log_damage_range *r)
{
    char name[SEGMENT_NAME_MAX];
    segment_name(r->base_lsn, name);
    event_error("damage_found",
                r->differs ? "a copy is not what the log's origin has, though its frames are valid"
                           : "damage in the log: what lies there cannot be read, all else can",
                log_text("dir", d->dir), log_text("file", name), log_uint("offset", r->offset),
                log_uint("bytes", r->bytes), log_uint("first_lsn", r->first_lsn),
                log_uint("next_lsn", r->next_lsn), log_text("kept", r->copy));
}

/* Knows the range already, with a copy if there can be one. With the lock. */
static bool is_known(const struct wal_damage *d, const struct log_damage_range *range, int fd)
{
    for (size_t i = 0; i < d->count; i++)
        if (covers(&d->ranges[i], range) && (d->ranges[i].differs || !range->differs))
            return d->ranges[i].copy[0] != 0 || fd < 0;
    return false;
}

static int add(struct wal_damage *d, struct log_damage_range *range, int fd)
{
    int64_t accepted_ns = 0;
    if (is_known(d, range, fd))
        return 0;
    for (size_t i = 0; i < d->count; i++)
        if (covers(&d->ranges[i], range))
            accepted_ns = d->ranges[i].accepted_ns;
    absorb(d, range);
    range->accepted_ns = accepted_ns;
    int result = copy_bytes(d, range, fd);
    put_in(d, range);
    make_room(d);
    tell(d, range);
    int stored = store(d);
    return result < 0 ? result : stored;
}

int wal_damage_add(struct wal_damage *d, const struct log_damage_range *range, int fd)
{
    struct log_damage_range copy = *range;
    copy.copy[0] = 0;
    copy.accepted_ns = 0;
    if (copy.found_ns == 0)
        copy.found_ns = clock_real_ns();
    pthread_mutex_lock(&d->lock);
    int result = add(d, &copy, fd);
    pthread_mutex_unlock(&d->lock);
    return result;
}

/* ---------------------------------------------------------------- mending */

/* Whether the range is changed; *gone: nothing of it is left. */
static bool mend(struct log_damage_range *r, uint64_t base_lsn, uint64_t offset, uint64_t end,
                 const struct log_chain *behind, bool *gone)
{
    uint64_t range_end = r->offset + r->bytes;
    *gone = false;
    if (r->base_lsn != base_lsn || offset > r->offset || end <= r->offset)
        return false;
    *gone = end >= range_end;
    uint64_t mended = end - r->offset;
    r->offset += mended;
    r->position += mended;
    r->bytes -= *gone ? r->bytes : mended;
    r->first_lsn = behind->next_lsn;
    r->checksum_before = behind->checksum;
    return true;
}

static int take_good(struct wal_damage *d, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                     const struct log_chain *behind, bool only_read)
{
    bool changed = false, gone;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count;) {
        if (only_read && d->ranges[i].differs) {
            i++;
            continue;
        }
        changed |= mend(&d->ranges[i], base_lsn, offset, offset + bytes, behind, &gone);
        if (gone)
            take_out(d, i);
        else
            i++;
    }
    int result = changed ? store(d) : 0;
    pthread_mutex_unlock(&d->lock);
    return result;
}

int wal_damage_repaired(struct wal_damage *d, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                        const struct log_chain *behind)
{
    return take_good(d, base_lsn, offset, bytes, behind, false);
}

int wal_damage_found_good(struct wal_damage *d, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                          const struct log_chain *behind)
{
    return take_good(d, base_lsn, offset, bytes, behind, true);
}

int wal_damage_trimmed(struct wal_damage *d, uint64_t first_lsn)
{
    bool changed = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count;) {
        const struct log_damage_range *r = &d->ranges[i];
        if (r->base_lsn >= first_lsn) {
            i++;
            continue;
        }
        log_warn("a damaged range is trimmed: it will not be mended", log_uint("base_lsn", r->base_lsn),
                 log_uint("offset", r->offset), log_uint("first_lsn", r->first_lsn));
        take_out(d, i);
        changed = true;
    }
    int result = changed ? store(d) : 0;
    pthread_mutex_unlock(&d->lock);
    return result;
}

int wal_damage_accept(struct wal_damage *d, uint64_t first_lsn, uint64_t next_lsn, int64_t now_ns,
                      size_t *count)
{
    bool changed = false;
    *count = 0;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count; i++) {
        struct log_damage_range *r = &d->ranges[i];
        if (r->first_lsn < first_lsn || r->next_lsn > next_lsn || r->first_lsn >= next_lsn)
            continue;
        ++*count;
        changed |= r->accepted_ns == 0;
        r->accepted_ns = r->accepted_ns == 0 ? now_ns : r->accepted_ns;
    }
    int result = changed ? store(d) : 0;
    pthread_mutex_unlock(&d->lock);
    return result;
}

/* ---------------------------------------------------------------- looking */

bool wal_damage_is_accepted(struct wal_damage *d, uint64_t first_lsn, uint64_t next_lsn, int64_t *when_ns)
{
    uint64_t lsn = first_lsn;
    *when_ns = INT64_MAX;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count && lsn < next_lsn; i++) {
        const struct log_damage_range *r = &d->ranges[i];
        if (r->accepted_ns == 0 || r->first_lsn > lsn || r->next_lsn <= lsn)
            continue;
        lsn = r->next_lsn;
        *when_ns = r->accepted_ns < *when_ns ? r->accepted_ns : *when_ns;
    }
    pthread_mutex_unlock(&d->lock);
    return lsn >= next_lsn;
}

size_t wal_damage_open_ranges(struct wal_damage *d)
{
    size_t count = 0;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count; i++)
        count += d->ranges[i].accepted_ns == 0;
    pthread_mutex_unlock(&d->lock);
    return count;
}

struct log_damage_range *wal_damage_list(struct wal_damage *d, size_t *count)
{
    struct log_damage_range *list = NULL;
    pthread_mutex_lock(&d->lock);
    *count = d->count;
    if (d->count > 0) {
        list = xmalloc(d->count * sizeof *list);
        memcpy(list, d->ranges, d->count * sizeof *list);
    }
    pthread_mutex_unlock(&d->lock);
    return list;
}

bool wal_damage_find(struct wal_damage *d, uint64_t base_lsn, uint64_t offset, uint64_t bytes,
                     struct log_damage_range *out)
{
    bool found = false;
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < d->count && !found; i++) {
        const struct log_damage_range *r = &d->ranges[i];
        found = r->base_lsn == base_lsn && r->offset < offset + bytes && offset < r->offset + r->bytes;
        if (found)
            *out = *r;
    }
    pthread_mutex_unlock(&d->lock);
    return found;
}
