/* When rows of deleted and expired values may go, and taking them away. Nothing here is fatal. */
#include "view_tidy.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "clock_frame.h"
#include "frame.h"
#include "hlc.h"

static const char clocks_row[] = "Mclocks", tidied_row[] = "Mtidied";
enum { CLOCK_PARTS = 5, DUE_AT = 1, KEY_AT = 9 };

/* ---------------------------------------------------------------- what clock frames say */

struct view_clock *view_clock_of(const struct view_clocks *clocks, struct id16 log)
{
    for (size_t i = 0; i < clocks->count; i++)
        if (id16_equal(clocks->all[i].log, log))
            return &clocks->all[i];
    return NULL;
}

static struct view_clock *find_or_add(struct view_clocks *clocks, struct id16 log)
{
    struct view_clock *clock = view_clock_of(clocks, log);
    if (clock != NULL || clocks->count == VIEW_LOGS_MAX)
        return clock;
    if (clocks->all == NULL)
        clocks->all = xcalloc(VIEW_LOGS_MAX, sizeof *clocks->all);
    clock = &clocks->all[clocks->count++];
    *clock = (struct view_clock){.log = log};
    return clock;
}

void view_clocks_free(struct view_clocks *clocks)
{
    for (size_t i = 0; i < clocks->count; i++)
        buf_free(&clocks->all[i].others);
    free(clocks->all);
    *clocks = (struct view_clocks){0};
}

static void take_clock(struct view_clock *clock, const struct frame_header *h, struct slice body)
{
    uint64_t applied;
    struct slice logs;
    if (h->hlc <= clock->hlc)
        return;
    clock->hlc = h->hlc;
    if (!clock_frame_decode(body, &applied, &logs))
        return;
    clock->applied = applied;
    clock->others.len = 0;
    buf_append(&clock->others, logs.data, logs.len);
}

void view_clocks_take(struct view_clocks *clocks, const struct view_vector *vector, struct id16 log,
                      struct slice frames, uint64_t end)
{
    const struct view_place *place = view_place_of(vector, log);
    struct view_clock *clock = find_or_add(clocks, log);
    uint64_t next = (place != NULL ? place->lsn : 0) + 1;
    struct frame_header h;
    while (clock != NULL && frames.len >= FRAME_HEADER_BYTES &&
           frame_header_decode(slice_of(frames.data, FRAME_HEADER_BYTES), FRAME_BYTES_MAX, &h) == SH_OK &&
           h.body_bytes <= frames.len - FRAME_HEADER_BYTES && h.base_lsn + h.count <= next) {
        if (h.kind == FRAME_CLOCK) {
            take_clock(clock, &h, slice_of(frames.data + FRAME_HEADER_BYTES, h.body_bytes));
            clocks->changed = true;
        }
        frames.data += FRAME_HEADER_BYTES + h.body_bytes;
        frames.len -= FRAME_HEADER_BYTES + h.body_bytes;
    }
    if (clock == NULL || frames.len > 0 || end <= clock->end)
        return;
    clock->end = end;
    clocks->changed = true;
}

void view_clocks_store(struct view_store *store, struct view_clocks *clocks)
{
    struct buf row = {0};
    msgpack_packer pk;
    if (!clocks->changed)
        return;
    mp_packer(&pk, &row);
    msgpack_pack_array(&pk, clocks->count);
    for (size_t i = 0; i < clocks->count; i++) {
        const struct view_clock *clock = &clocks->all[i];
        msgpack_pack_array(&pk, CLOCK_PARTS);
        mp_pack_bin(&pk, slice_of(clock->log.bytes, sizeof clock->log.bytes));
        msgpack_pack_uint64(&pk, clock->end);
        msgpack_pack_uint64(&pk, clock->hlc);
        msgpack_pack_uint64(&pk, clock->applied);
        mp_pack_bin(&pk, buf_slice(&clock->others));
    }
    view_store_put(store, slice_str(clocks_row), buf_slice(&row));
    buf_free(&row);
    clocks->changed = false;
}

static bool load_clock(struct mp *m, struct view_clocks *out)
{
    struct view_clock clock = {0}, *taken;
    struct slice others;
    uint32_t parts;
    if (!mp_array(m, &parts) || parts != CLOCK_PARTS || !clock_frame_log(m, &clock.log) ||
        !mp_uint(m, &clock.end) || !mp_uint(m, &clock.hlc) || !mp_uint(m, &clock.applied) ||
        !mp_bin(m, &others) || (taken = find_or_add(out, clock.log)) == NULL)
        return false;
    *taken = clock;
    buf_append(&taken->others, others.data, others.len);
    return true;
}

enum view_found view_clocks_load(struct view_store *store, struct view_clocks *out,
                                 char error[VIEW_ERROR_MAX])
{
    struct buf row = {0};
    uint32_t count = 0;
    view_clocks_free(out);
    enum view_found found = view_store_get(store, slice_str(clocks_row), &row, error);
    struct mp m = mp_of(buf_slice(&row));
    bool good = found != VIEW_FOUND || (mp_array(&m, &count) && count <= VIEW_LOGS_MAX);
    for (uint32_t i = 0; good && i < count; i++)
        good = load_clock(&m, out);
    if (!good) { /* as if none had come yet: they will come again */
        view_clocks_free(out);
        found = VIEW_NOT_FOUND;
    }
    buf_free(&row);
    return found;
}

/* ---------------------------------------------------------------- the horizon */

/* Entries up to this HLC of that log are applied, all of them. */
static uint64_t reached(const struct view_clocks *clocks, const struct view_vector *vector, struct id16 log)
{
    const struct view_place *place = view_place_of(vector, log);
    const struct view_clock *clock = view_clock_of(clocks, log);
    return hlc_merge(place != NULL ? place->hlc : 0, clock != NULL ? clock->hlc : 0);
}

static bool is_done(const struct view_group_log *g, const struct view_vector *vector)
{
    const struct view_place *place = view_place_of(vector, g->log);
    return g->is_closed && (place != NULL ? place->lsn : 0) >= g->closed_lsn;
}

uint64_t view_tidy_applied(const struct view_group *group, const struct view_clocks *clocks,
                           const struct view_vector *vector)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < group->count; i++) {
        uint64_t hlc = reached(clocks, vector, group->all[i].log);
        if (!is_done(&group->all[i], vector))
            least = hlc < least ? hlc : least;
    }
    return group->known && least < UINT64_MAX ? least : 0;
}

static bool is_in_group(const struct view_group *group, struct id16 log)
{
    for (size_t i = 0; i < group->count; i++)
        if (id16_equal(group->all[i].log, log))
            return true;
    return false;
}

/* Whether another member counts a log that this node has not met. */
static bool knows_others(const struct view_group *group, const struct view_vector *vector,
                         const struct view_clock *clock)
{
    struct mp m = mp_of(buf_slice(&clock->others));
    struct id16 log;
    uint32_t count = 0;
    mp_array(&m, &count);
    for (uint32_t i = 0; i < count; i++)
        if (!clock_frame_log(&m, &log) || (!is_in_group(group, log) && view_place_of(vector, log) == NULL))
            return false;
    return true;
}

uint64_t view_tidy_horizon(const struct view_group *group, const struct view_clocks *clocks,
                           const struct view_vector *vector, uint64_t now_ms, uint64_t keep_ms)
{
    uint64_t horizon = view_tidy_applied(group, clocks, vector);
    uint64_t kept = now_ms > keep_ms ? hlc_of_ms((int64_t)(now_ms - keep_ms)) : 0;
    for (size_t i = 0; i < group->count; i++) {
        if (!group->all[i].is_member)
            continue;
        const struct view_clock *clock = view_clock_of(clocks, group->all[i].log);
        if (clock == NULL || !knows_others(group, vector, clock))
            return 0;
        horizon = clock->applied < horizon ? clock->applied : horizon;
    }
    return kept < horizon ? kept : horizon;
}

bool view_tidy_needs_clock(const struct view_clocks *clocks, const struct view_vector *vector,
                           struct id16 own, uint64_t waiting, uint64_t applied)
{
    const struct view_clock *clock = view_clock_of(clocks, own);
    uint64_t told = clock != NULL ? clock->applied : 0;
    return reached(clocks, vector, own) < waiting || (told < waiting && applied >= waiting);
}

void view_group_pack(const struct view_group *group, struct buf *out)
{
    msgpack_packer pk;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, group->count);
    for (size_t i = 0; i < group->count; i++)
        mp_pack_bin(&pk, slice_of(group->all[i].log.bytes, sizeof group->all[i].log.bytes));
}

/* ---------------------------------------------------------------- rows */

uint64_t view_tidy_due(const struct view_value *value)
{
    if (value->deleted)
        return value->version.hlc;
    if (value->expires_ms == 0)
        return 0;
    uint64_t most = INT64_MAX;
    uint64_t expired = hlc_of_ms((int64_t)(value->expires_ms < most ? value->expires_ms : most));
    return hlc_merge(expired, value->version.hlc);
}

static void put_due(uint8_t *at, uint64_t due)
{
    for (unsigned i = 0; i < sizeof due; i++)
        at[i] = (uint8_t)(due >> (56 - 8 * i));
}

static uint64_t get_due(const uint8_t *at)
{
    uint64_t due = 0;
    for (unsigned i = 0; i < sizeof due; i++)
        due = due << 8 | at[i];
    return due;
}

static void row_key(uint64_t due, struct slice key, struct buf *out)
{
    uint8_t head[KEY_AT] = {VIEW_TIDY};
    put_due(head + DUE_AT, due);
    out->len = 0;
    buf_append(out, head, sizeof head);
    buf_append(out, key.data, key.len);
}

void view_tidy_note(struct view_store *store, const struct view_value *value, struct slice key)
{
    struct buf row = {0};
    uint64_t due = view_tidy_due(value);
    if (due == 0)
        return;
    row_key(due, key, &row);
    view_store_put(store, buf_slice(&row), (struct slice){0});
    buf_free(&row);
}

/* From that HLC on, up to before `to`. */
static struct view_scan *open_scan(struct view_store *store, uint64_t from, uint64_t to)
{
    static const uint8_t behind[] = {VIEW_TIDY + 1};
    struct buf first = {0}, end = {0};
    row_key(from, (struct slice){0}, &first);
    if (to < UINT64_MAX)
        row_key(to, (struct slice){0}, &end);
    else
        buf_append(&end, behind, sizeof behind);
    struct view_scan *scan = view_scan_open(store, buf_slice(&first), buf_slice(&end));
    buf_free(&first);
    buf_free(&end);
    return scan;
}

bool view_tidy_oldest(struct view_store *store, uint64_t from, uint64_t *oldest, bool *none,
                      char error[VIEW_ERROR_MAX])
{
    struct view_scan *scan = open_scan(store, from, UINT64_MAX);
    struct slice key, row;
    *none = !view_scan_next(scan, &key, &row, error);
    if (!*none)
        *oldest = key.len > KEY_AT ? get_due(key.data + DUE_AT) : 0;
    view_scan_close(scan);
    return error[0] == 0;
}

/* What it says is of no use any more: an entry that came later may have taken its place. */
static bool may_go(struct slice row, uint64_t horizon)
{
    struct view_value value;
    if (!view_value_decode(row, &value))
        return false;
    uint64_t due = view_tidy_due(&value);
    return due > 0 && due <= horizon;
}

/* One that waits. False: error. */
static bool drop_one(struct view_store *store, struct slice waiting, uint64_t horizon, size_t *rows,
                     char error[VIEW_ERROR_MAX])
{
    struct buf row = {0};
    struct slice key =
        waiting.len > KEY_AT ? slice_of(waiting.data + KEY_AT, waiting.len - KEY_AT) : (struct slice){0};
    enum view_found found = VIEW_NOT_FOUND;
    if (key.len > 0 && key.data[0] == VIEW_KEY)
        found = view_store_get(store, key, &row, error);
    if (found == VIEW_FOUND && may_go(buf_slice(&row), horizon)) {
        view_store_delete(store, key);
        ++*rows;
    }
    view_store_delete(store, waiting);
    buf_free(&row);
    return found != VIEW_FAILED;
}

static void put_tidied(struct view_store *store, uint64_t horizon)
{
    uint8_t bytes[8];
    put_u64(bytes, horizon);
    view_store_put(store, slice_str(tidied_row), slice_of(bytes, sizeof bytes));
}

bool view_tidy_drop(struct view_store *store, uint64_t from, uint64_t horizon, size_t most, size_t *rows,
                    bool *more, char error[VIEW_ERROR_MAX])
{
    struct view_scan *scan = open_scan(store, from, horizon < UINT64_MAX ? horizon + 1 : horizon);
    struct slice key, row;
    size_t looked = 0;
    bool good = true;
    *rows = 0;
    while (good && looked < most && view_scan_next(scan, &key, &row, error)) {
        good = drop_one(store, key, horizon, rows, error);
        looked++;
    }
    view_scan_close(scan);
    *more = looked == most;
    if (!good || error[0] != 0) {
        view_store_forget(store);
        return false;
    }
    if (looked == 0)
        return true;
    uint64_t tidied = view_tidy_tidied(store, error);
    put_tidied(store, horizon > tidied ? horizon : tidied);
    return view_store_write(store, error);
}

uint64_t view_tidy_tidied(struct view_store *store, char error[VIEW_ERROR_MAX])
{
    struct buf row = {0};
    uint64_t tidied = 0;
    if (view_store_get(store, slice_str(tidied_row), &row, error) == VIEW_FOUND && row.len == sizeof tidied)
        tidied = get_u64(row.data);
    buf_free(&row);
    return tidied;
}
