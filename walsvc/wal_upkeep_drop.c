/* Whether the copy of a closed log may go as a whole: its last segment too. Until then it is like any other:
 * its sealed segments go by retention, by hand, and are held.
 *
 * By age: its last frame is older. By bytes: a log that doesn't grow never comes to its limit, so the node's
 * own log tells how far back the limit lets entries be: those of a closed log go when nothing that old is
 * left there. By hand: a trim up to behind its end. Without retention it stays. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "hlc.h"
#include "log.h"
#include "segment_scan.h"
#include "wal_upkeep.h"

/* In the year 2096; what claims to be later counts as unknown. */
#define HLC_MS_MAX INT64_C(4000000000000)
#define LOOK_NS    (60 * NS_PER_S) /* the own log moves on */
#define AGAIN_NS   (10 * NS_PER_S) /* it was asked for, and the copy is still there */

/* Real time of the last frame of a segment; 0: not known, for there is damage before it. */
static int64_t time_of_last(const struct wal_upkeep *u, int fd, const struct segment_header *segment)
{
    struct segment_scan scan;
    struct frame_header h = {0};
    struct slice bytes;
    enum scan_result result = SCAN_BAD;
    uint64_t hlc = 0;
    if (u->gone.end < segment->position + SEGMENT_HEADER_BYTES)
        return 0;
    segment_scan_open(&scan, u->options.fs, fd, segment->salt, u->gone.end - segment->position);
    while ((result = segment_scan_next(&scan, &h, &bytes)) == SCAN_FRAME)
        hlc = h.hlc;
    segment_scan_free(&scan);
    return result == SCAN_END && hlc_ms(hlc) < HLC_MS_MAX ? hlc_ms(hlc) * NS_PER_MS : 0;
}

/* The same of the log, which is read once for each end. */
static int64_t last_ns(struct wal_upkeep *u)
{
    struct segment_header segment;
    uint64_t file_bytes;
    enum header_state state;
    int fd;
    if (u->gone_last.end == u->gone.end)
        return u->gone_last.ns;
    u->gone_last.end = u->gone.end;
    u->gone_last.ns = 0;
    if (segment_open_any(u->options.fs, u->options.dir, u->options.log, u->catalog.all[0].base_lsn, O_RDONLY,
                         &fd, &segment, &file_bytes, &state) != SH_OK)
        return 0;
    if (state != HEADER_UNKNOWN)
        u->gone_last.ns = time_of_last(u, fd, &segment);
    u->options.fs->close(u->options.fs, fd);
    if (u->gone_last.ns == 0)
        log_warn("a closed log's last frame cannot be read: it doesn't go by its age",
                 log_text("dir", u->options.dir));
    return u->gone_last.ns;
}

bool wal_upkeep_gone_is_kept(const struct wal_upkeep *u)
{
    for (size_t i = 0; i < u->holds.count; i++)
        if (wal_hold_keeps(&u->holds.all[i], u->gone.lsn + 1))
            return true;
    return false;
}

/* Real time; INT64_MAX: time alone changes nothing. The catalogue is up to date. */
static int64_t due_ns(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    struct wal_retention rules = wal_upkeep_rules(u);
    if (!u->gone.is_gone || u->catalog.count > 1 || wal_upkeep_gone_is_kept(u))
        return INT64_MAX;
    if (u->drop_by_hand)
        return now.real_ns;
    if (rules.bytes == 0 && rules.age_ns == 0)
        return INT64_MAX;
    if (u->catalog.count == 0)
        return now.real_ns;
    int64_t last = last_ns(u), due = INT64_MAX;
    if (last > 0 && rules.age_ns > 0)
        due = last + rules.age_ns + u->ahead_ns + 1;
    if (rules.bytes > 0) {
        bool is_over = last > 0 && u->options.horizon_ns != NULL && atomic_load(u->options.horizon_ns) > last;
        int64_t look_ns = is_over ? now.real_ns : now.real_ns + LOOK_NS;
        due = look_ns < due ? look_ns : due;
    }
    return due;
}

int64_t wal_upkeep_ask_drop(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    int64_t due = due_ns(u, now);
    if (due > now.real_ns || u->options.on_drop == NULL)
        return due;
    u->options.on_drop(u->options.arg);
    return now.real_ns + AGAIN_NS;
}

bool wal_upkeep_may_drop(struct wal_upkeep *u, struct wal_upkeep_time now)
{
    wal_holds_expire(&u->holds, now.real_ns);
    bool may = wal_catalog_refresh(&u->catalog) == SH_OK && due_ns(u, now) <= now.real_ns;
    if (!may)
        u->drop_by_hand = false;
    return may;
}

void wal_upkeep_gone(struct wal_upkeep *u, const struct wal_gone *gone)
{
    u->gone = *gone;
    u->drop_by_hand = false;
}

void wal_upkeep_tell_horizon(const struct wal_upkeep *u, uint64_t retention_bytes)
{
    const struct wal_catalog *c = &u->catalog;
    bool is_limited = retention_bytes > 0 && c->count > 0 && c->all[0].base_lsn > 1;
    if (u->options.horizon_ns != NULL && u->options.tells_horizon && is_limited)
        atomic_store(u->options.horizon_ns, c->all[0].created_ns);
}
