/* What the view's thread keeps: the store, and what is told of it. Nothing here is fatal. */
#include "view_parts.h"

#include <stdio.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"
#include "telemetry_push.h"

static const char no_room[] =
    "less than 64 MiB are free on the disk: the view stands still until there is more";
/* What is applied later is not on disk yet: it is held in the logs, and applied again after a kill. */
#define FLUSH_NS NS_PER_S
/* The same when a segment has ended: the view should hold back as little as it can. */
#define SEGMENT_FLUSH_NS (NS_PER_S / 5)

/* ---------------------------------------------------------------- telling */

/* Of a log that is stopped. */
void view_describe(const struct view *v, const struct followed *f, char text[VIEW_ERROR_MAX])
{
    char uuid[ID_TEXT];
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    id16_format(f->log.log, uuid);
    snprintf(text, VIEW_ERROR_MAX, "log %s, behind LSN %llu: %s", uuid,
             (unsigned long long)(place != NULL ? place->lsn : 0), sh_error_text(f->stopped));
}

/* Of a log that waits for another one. */
void view_describe_wait(const struct followed *f, const struct view_gate *gate, char text[VIEW_ERROR_MAX])
{
    char uuid[ID_TEXT], other[ID_TEXT];
    id16_format(f->log.log, uuid);
    id16_format(gate->log, other);
    snprintf(text, VIEW_ERROR_MAX,
             "log %s, LSN %llu: waits for log %s, wanted up to LSN %llu, applied up to %llu", uuid,
             (unsigned long long)gate->frame, other, (unsigned long long)gate->lsn,
             (unsigned long long)gate->seen);
}

/* What keeps the whole view, or else the first log that is stopped, or that waits. */
static void find_error(const struct view *v, char text[VIEW_ERROR_MAX])
{
    memcpy(text, v->error, sizeof v->error);
    for (size_t i = 0; i < v->count && text[0] == 0; i++)
        if (v->all[i].stopped != SH_OK)
            view_describe(v, &v->all[i], text);
    for (size_t i = 0; i < v->count && text[0] == 0; i++)
        if (v->all[i].gate.lsn > 0)
            view_describe_wait(&v->all[i], &v->all[i].gate, text);
}

bool view_is_behind(const struct view *v, const struct followed *f)
{
    const struct view_place *place = view_place_of(&v->applied, f->log.log);
    return f->log.durable_lsn > (place != NULL ? place->lsn : 0);
}

/* Whether nothing is left to be applied; a log that is stopped is not waited for. */
static bool is_caught_up(const struct view *v)
{
    bool waits = v->count == 0;
    for (size_t i = 0; i < v->count && !waits; i++)
        waits = v->all[i].stopped == SH_OK && view_is_behind(v, &v->all[i]);
    return !waits;
}

static void find_lacking(const struct view *v, struct view_vector *out)
{
    out->count = 0;
    for (size_t i = 0; i < v->count; i++) {
        const struct view_place *place = view_place_of(&v->applied, v->all[i].log.log);
        if (v->all[i].stopped == SH_TRIMMED)
            out->all[out->count++] =
                (struct view_place){.log = v->all[i].log.log, .lsn = place != NULL ? place->lsn : 0};
    }
}

void view_publish(struct view *v)
{
    char error[VIEW_ERROR_MAX]; /* of the store, or the disk */
    find_error(v, error);
    v->caught_up = v->caught_up || (v->store != NULL && is_caught_up(v));
    pthread_mutex_lock(&v->lock);
    v->state.opened = v->store != NULL;
    v->state.applied = v->applied;
    v->state.flushed = v->flushed;
    v->state.waiting = v->tidying.waiting;
    v->state.tidied = v->tidying.tidied;
    v->state.wants_group = v->tidying.wants_group;
    v->state.wants_clock = v->tidying.wants_clock;
    v->state.clock_applied = v->tidying.applied;
    v->state.caught_up = v->caught_up;
    v->state.compared = v->compared;
    find_lacking(v, &v->state.lacking);
    memcpy(v->state.error, error, sizeof error);
    pthread_mutex_unlock(&v->lock);
    v->options.on_change(v->options.arg);
}

void view_name_error(struct view *v, const char *what)
{
    if (strncmp(v->error, what, sizeof v->error - 1) == 0)
        return;
    snprintf(v->error, sizeof v->error, "%s", what);
    event_error("view_stopped", "the view cannot go on", log_text("error", what), log_text("dir", v->rows));
}

/* ---------------------------------------------------------------- the store */

static void set_store(struct view *v, struct view_store *store)
{
    pthread_rwlock_wrlock(&v->reading);
    v->store = store;
    pthread_rwlock_unlock(&v->reading);
}

void view_close_store(struct view *v)
{
    struct view_store *store = v->store;
    atomic_store(&v->closing, true);
    set_store(v, NULL);
    atomic_store(&v->closing, false);
    failpoint_hit("view_closing");
    if (store != NULL)
        view_store_close(store);
    failpoint_hit("view_closed");
    view_tidying_end(&v->tidying);
    v->closed_ns = clock_mono_ns();
}

/* Otherwise the view stands still, before it takes the last of it. */
bool view_has_room(struct view *v)
{
    uint64_t free_bytes;
    bool has = v->options.fs->free_bytes(v->options.fs, v->options.data, &free_bytes) < 0 ||
               free_bytes >= VIEW_ROOM_BYTES;
    if (!has)
        view_name_error(v, no_room);
    else if (strcmp(v->error, no_room) == 0)
        v->error[0] = 0;
    v->paused_ns = has ? 0 : clock_mono_ns();
    return has;
}

/* Rows that an earlier version made, without those of streams, are removed. */
static struct view_store *open_rows(struct view *v, char error[VIEW_ERROR_MAX])
{
    struct view_store *store = view_store_open(v->rows, &v->options.store, error);
    if (store == NULL || view_vector_load(store, &v->applied, error) != VIEW_FAILED)
        return store;
    view_store_close(store);
    if (error[0] != 0)
        return NULL;
    event_warn("view_made_again", "the view is of an earlier version, and is made again from all logs",
               log_text("dir", v->rows));
    v->applied.count = 0;
    v->applied.arrivals = 0;
    return view_store_remove(v->rows, error) ? view_store_open(v->rows, &v->options.store, error) : NULL;
}

/* What it says is applied is on disk. */
bool view_open_store(struct view *v)
{
    char error[VIEW_ERROR_MAX]; /* of the store, or the disk */
    v->closed_ns = clock_mono_ns();
    if (!view_has_room(v))
        return false;
    struct view_store *store = open_rows(v, error);
    failpoint_hit("view_opened");
    if (store == NULL) {
        view_name_error(v, error);
        return false;
    }
    v->error[0] = 0;
    v->trimmed.count = 0;
    v->trim.first_lsn = 0;
    v->applied.cursors++; /* its rows are other ones */
    v->flushed = v->applied;
    v->flushed_ns = clock_mono_ns();
    view_tidying_begin(&v->tidying, store);
    for (size_t i = 0; i < v->count; i++)
        v->all[i].looked_end = 0;
    v->opened++;
    v->came_ns = clock_mono_ns();
    v->awaited.count = 0;
    v->caught_up = false;
    v->compared = view_is_compared(store);
    set_store(v, store);
    return true;
}

void view_fail_store(struct view *v, const char *error)
{
    view_name_error(v, error);
    view_close_store(v);
}

void view_flush_now(struct view *v)
{
    char error[VIEW_ERROR_MAX]; /* of the store, or the disk */
    v->flushed_ns = clock_mono_ns();
    if ((view_vector_equal(&v->flushed, &v->applied) && !v->has_unflushed) || !view_has_room(v))
        return;
    failpoint_hit("view_flush");
    if (!view_store_flush(v->store, error)) {
        view_fail_store(v, error);
        return;
    }
    failpoint_hit("view_flushed");
    v->flushed = v->applied;
    v->has_unflushed = false;
}

/* Whether a flush would let go of a segment. */
static bool has_left_segment(const struct view *v)
{
    for (size_t i = 0; i < v->applied.count; i++) {
        const struct view_place *place = &v->applied.all[i],
                                *flushed = view_place_of(&v->flushed, place->log);
        if (place->segment != 0 && (flushed == NULL || flushed->segment != place->segment) &&
            (flushed == NULL || flushed->lsn < place->lsn))
            return true;
    }
    return false;
}

/* When what is applied goes to disk, if it is not asked for before; INT64_MAX: it is there. */
int64_t view_flush_due_ns(const struct view *v)
{
    if (view_vector_equal(&v->flushed, &v->applied) && !v->has_unflushed)
        return INT64_MAX;
    return v->flushed_ns + (has_left_segment(v) ? SEGMENT_FLUSH_NS : FLUSH_NS);
}
