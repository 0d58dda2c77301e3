/* Tidying up, a little at a time. Nothing here is fatal. */
#include "view_tidying.h"

#include <string.h>

#include "hlc.h"
#include "log.h"

enum {
    LOOKS_EACH = 8, /* in the time that rows stay at least */
    PAUSE_MS_MAX = 60000,
    FAR_MS_MAX = 3600000, /* the wall clock may be set */
    ROWS_EACH = 256,
    SUGGESTED_MAX = 12,
    SMALL_ROWS = 65536,
    SHARE = 8 /* of all rows: so many that went are worth the work of freeing their room at once */
};

int64_t view_tidying_pause_ns(uint64_t keep_ms)
{
    uint64_t ms = keep_ms / LOOKS_EACH + 1;
    return (int64_t)(ms < PAUSE_MS_MAX ? ms : PAUSE_MS_MAX) * NS_PER_MS;
}

static uint64_t wall_ms(void)
{
    return (uint64_t)(clock_real_ns() / NS_PER_MS);
}

void view_tidying_begin(struct view_tidying *t, struct view_store *store)
{
    char error[VIEW_ERROR_MAX];
    view_clocks_load(store, &t->clocks, error);
    t->from = t->waiting = 0;
    t->look_ns = 0;
    t->is_fresh = t->wants_group = t->wants_clock = t->is_compacting = false;
    t->tidied = view_tidy_tidied(store, error);
    t->dropped = 0;
}

void view_tidying_end(struct view_tidying *t)
{
    view_clocks_free(&t->clocks);
    t->look_ns = INT64_MAX;
    t->wants_group = t->wants_clock = false;
}

void view_tidying_applied(struct view_tidying *t, struct view_store *store, const struct view_vector *vector,
                          struct id16 log, uint64_t hlc_before, struct slice frames, uint64_t end)
{
    int64_t pause_ns = view_tidying_pause_ns(t->keep_ms);
    int64_t look_ns = clock_mono_ns() + (pause_ns < NS_PER_S ? pause_ns : NS_PER_S);
    t->from = hlc_before < t->from ? hlc_before : t->from;
    t->look_ns = t->look_ns < look_ns ? t->look_ns : look_ns;
    view_clocks_take(&t->clocks, vector, log, frames, end);
    view_clocks_store(store, &t->clocks);
}

void view_tidying_take_group(struct view_tidying *t, const struct view_group *group)
{
    t->group = *group;
    t->is_fresh = true;
    if (t->wants_group)
        t->look_ns = 0;
    t->wants_group = false;
}

/* The rows that are gone take room until what lies above and below them is merged. */
static void compact(struct view_tidying *t, struct view_store *store)
{
    t->is_compacting = view_store_is_layered(store) && t->suggested < SUGGESTED_MAX;
    if (!t->is_compacting)
        return;
    view_store_compact(store);
    t->suggested++;
}

/* If it is worth the work. */
static void begin_compaction(struct view_tidying *t, struct view_store *store)
{
    uint64_t rows = view_store_rows(store);
    if (rows > SMALL_ROWS && t->dropped < rows / SHARE)
        return;
    t->dropped = 0;
    t->suggested = 0;
    t->is_compacting = true;
}

static bool drop(struct view_tidying *t, struct view_store *store, uint64_t horizon, size_t *rows, bool *more,
                 char error[VIEW_ERROR_MAX])
{
    if (!view_tidy_drop(store, t->from, horizon, ROWS_EACH, rows, more, error))
        return false;
    t->tidied = view_tidy_tidied(store, error);
    if (!*more)
        t->from = horizon;
    return true;
}

/* Something waits, and is old enough. */
static bool go_on(struct view_tidying *t, struct view_store *store, const struct view_vector *vector,
                  bool is_flushed, char error[VIEW_ERROR_MAX])
{
    bool more = false;
    size_t rows = 0;
    if (!t->is_fresh) {
        t->wants_group = true;
        return true;
    }
    uint64_t horizon = view_tidy_horizon(&t->group, &t->clocks, vector, wall_ms(), t->keep_ms);
    if (t->waiting <= horizon && !drop(t, store, horizon, &rows, &more, error))
        return false;
    t->dropped += rows;
    if (t->dropped > 0 && !more)
        begin_compaction(t, store);
    if (more) {
        t->look_ns = 0;
        return true;
    }
    t->is_fresh = false;
    if (t->waiting <= horizon || !t->group.known || !is_flushed)
        return true;
    t->applied = view_tidy_applied(&t->group, &t->clocks, vector);
    t->wants_clock = view_tidy_needs_clock(&t->clocks, vector, t->own, t->waiting, t->applied);
    return true;
}

/* Half of the time before it may go: what tells that it may takes its time. */
static uint64_t ripe_ms(const struct view_tidying *t)
{
    return (uint64_t)hlc_ms(t->waiting) + t->keep_ms / 2;
}

bool view_tidying_look(struct view_tidying *t, struct view_store *store, const struct view_vector *vector,
                       bool is_flushed, char error[VIEW_ERROR_MAX])
{
    bool none;
    int64_t now_ns = clock_mono_ns(), pause_ns = view_tidying_pause_ns(t->keep_ms);
    t->wants_clock = false;
    if (t->is_compacting)
        compact(t, store);
    if (!view_tidy_oldest(store, t->from, &t->waiting, &none, error))
        return false;
    t->look_ns = t->is_compacting ? now_ns + pause_ns : INT64_MAX;
    if (none) {
        t->waiting = 0;
        t->wants_group = false;
        return true;
    }
    t->from = t->waiting;
    uint64_t now_ms = wall_ms(), ripe = ripe_ms(t);
    t->look_ns = now_ns + pause_ns;
    if (now_ms >= ripe)
        return go_on(t, store, vector, is_flushed, error);
    uint64_t wait_ms = ripe - now_ms < FAR_MS_MAX ? ripe - now_ms : FAR_MS_MAX;
    if (!t->is_compacting && (int64_t)wait_ms * NS_PER_MS > pause_ns)
        t->look_ns = now_ns + (int64_t)wait_ms * NS_PER_MS;
    return true;
}
