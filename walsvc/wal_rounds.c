/* The scrubber's rounds. Nothing here is fatal. */
#include "wal_rounds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "telemetry_push.h"

enum { PROGRESS_BYTES = 64, CRC_AT = 60, MAGIC_BYTES = 8 };
static const uint8_t progress_magic[MAGIC_BYTES] = {'S', 'H', 'S', 'C', 'R', 'B', 1, 0};

#define SAVE_NS  (30 * NS_PER_S)
#define LOOK_NS  (3600 * NS_PER_S) /* the wall clock is looked at so often: it may be set */
#define RETRY_NS NS_PER_S

/* ---------------------------------------------------------------- progress */

static bool decode(struct wal_rounds *r, const uint8_t bytes[PROGRESS_BYTES])
{
    if (memcmp(bytes, progress_magic, MAGIC_BYTES) != 0 ||
        memcmp(bytes + 8, r->scrub.log.bytes, sizeof r->scrub.log.bytes) != 0 ||
        get_u32(bytes + CRC_AT) != crc32c(0, bytes, CRC_AT))
        return false;
    r->next_lsn = get_u64(bytes + 24);
    r->last_ns = (int64_t)get_u64(bytes + 32);
    r->since_ns = (int64_t)get_u64(bytes + 40);
    r->damages = get_u64(bytes + 48);
    return r->since_ns >= 0 && r->since_ns < INT64_MAX / 2;
}

static bool load(struct wal_rounds *r)
{
    const struct vfs *fs = r->scrub.fs;
    char path[PATH_MAX];
    uint8_t bytes[PROGRESS_BYTES];
    vfs_path(path, r->scrub.dir, "scrub");
    int fd = fs->open(fs, path, O_RDONLY, 0);
    if (fd < 0)
        return false;
    bool good = vfs_read_full(fs, fd, bytes, sizeof bytes, 0) == sizeof bytes && decode(r, bytes);
    fs->close(fs, fd);
    return good;
}

static int save_progress(struct wal_rounds *r)
{
    uint8_t bytes[PROGRESS_BYTES] = {0};
    memcpy(bytes, progress_magic, MAGIC_BYTES);
    memcpy(bytes + 8, r->scrub.log.bytes, sizeof r->scrub.log.bytes);
    put_u64(bytes + 24, r->next_lsn);
    put_u64(bytes + 32, (uint64_t)r->last_ns);
    put_u64(bytes + 40, (uint64_t)r->since_ns);
    put_u64(bytes + 48, r->damages);
    put_u32(bytes + CRC_AT, crc32c(0, bytes, CRC_AT));
    return vfs_replace_file(r->scrub.fs, r->scrub.dir, "scrub", bytes, sizeof bytes);
}

void wal_rounds_open(struct wal_rounds *r, struct wal_catalog *catalog, int64_t now_real_ns,
                     void (*on_damage)(void *arg, const struct wal_scrub_damage *damage), void *arg)
{
    *r = (struct wal_rounds){.catalog = catalog};
    wal_scrub_open(&r->scrub, catalog->fs, catalog->dir, catalog->log, on_damage, arg);
    if (!load(r)) {
        r->next_lsn = r->damages = 0;
        r->last_ns = 0;
        r->since_ns = now_real_ns;
    } else {
        r->saved_ns = 1;
    }
}

void wal_rounds_close(struct wal_rounds *r)
{
    wal_scrub_leave(&r->scrub);
}

uint64_t wal_rounds_position(const struct wal_rounds *r)
{
    if (r->next_lsn == 0)
        return 0;
    if (r->scrub.fd >= 0)
        return r->scrub.position + r->scrub.scan.offset;
    for (size_t i = 0; i < r->catalog->count; i++)
        if (r->catalog->all[i].base_lsn >= r->next_lsn)
            return r->catalog->all[i].position;
    return 0;
}

/* ---------------------------------------------------------------- the round */

/* The first sealed segment from next_lsn on; NULL when the pass is through. */
static const struct wal_segment *next_segment(const struct wal_rounds *r)
{
    for (size_t i = 0; i < r->catalog->count; i++)
        if (r->catalog->all[i].base_lsn >= r->next_lsn)
            return r->catalog->all[i].next_lsn != 0 ? &r->catalog->all[i] : NULL;
    return NULL;
}

static int64_t begin_due(const struct wal_rounds *r, int64_t now_real_ns, int64_t now_mono_ns)
{
    int64_t wait_ns = r->since_ns + r->interval_ns - now_real_ns;
    return now_mono_ns + (wait_ns < LOOK_NS ? wait_ns : LOOK_NS);
}

static void end_pass(struct wal_rounds *r, int64_t now_real_ns)
{
    r->next_lsn = 0;
    r->passes++;
    r->last_ns = r->since_ns = now_real_ns;
    r->scrub.chain_known = false;
    event_info("log_scrubbed", "scrubbed the whole log", log_text("dir", r->scrub.dir),
               log_uint("damages", r->damages));
}

/* Stands in a segment afterwards, or the pass has ended (false). */
static bool go_on(struct wal_rounds *r, int64_t now_real_ns)
{
    const struct wal_segment *segment;
    while ((segment = next_segment(r)) != NULL) {
        if (wal_scrub_enter(&r->scrub, segment))
            return true;
        r->next_lsn = segment->next_lsn;
    }
    end_pass(r, now_real_ns);
    return false;
}

static int64_t scrub_a_step(struct wal_rounds *r, int64_t now_mono_ns)
{
    uint64_t bytes;
    if (!wal_scrub_step(&r->scrub, &bytes))
        r->next_lsn = r->scrub.next_lsn;
    return now_mono_ns + (int64_t)((double)bytes * (double)NS_PER_S / (double)r->rate);
}

int64_t wal_rounds_step(struct wal_rounds *r, int64_t now_real_ns, int64_t now_mono_ns, int *result)
{
    int64_t due_ns = now_mono_ns;
    uint64_t before = r->next_lsn;
    *result = 0;
    if (r->rate == 0) {
        wal_scrub_leave(&r->scrub);
        return INT64_MAX;
    }
    if (r->since_ns > now_real_ns) /* the clock was set back: the interval counts anew */
        r->since_ns = now_real_ns;
    if (r->next_lsn == 0 && begin_due(r, now_real_ns, now_mono_ns) > now_mono_ns) {
        due_ns = begin_due(r, now_real_ns, now_mono_ns);
    } else if (r->scrub.fd >= 0) {
        due_ns = scrub_a_step(r, now_mono_ns);
    } else if (wal_catalog_refresh(r->catalog) != SH_OK) {
        return now_mono_ns + RETRY_NS;
    } else {
        if (r->next_lsn == 0) {
            r->next_lsn = 1;
            r->damages = 0;
        }
        go_on(r, now_real_ns);
    }
    bool save = r->next_lsn == 0 ? before != 0 || r->saved_ns == 0
                                 : r->next_lsn != before && now_mono_ns - r->saved_ns >= SAVE_NS;
    if (save) {
        *result = save_progress(r);
        r->saved_ns = now_mono_ns;
    }
    return due_ns;
}
