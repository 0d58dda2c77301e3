/* What others ask the view's thread for, and rows of what was trimmed. Nothing here is fatal. */
#include "view_parts.h"

#include <errno.h>
#include <stdlib.h>

#include "segment_scan.h"

#define AHEAD_NS  (60 * NS_PER_S)  /* until a log is there, of which a member's view brought rows */
#define IMPORT_NS (120 * NS_PER_S) /* more than it takes until the next piece comes, or it is given up */

/* ---------------------------------------------------------------- rows of what was trimmed */

/* The first LSN that is left of a log; all of one that is not held any more is gone, unless it may be about
 * to come. 0: not known. */
static uint64_t first_left(const struct view *v, const struct view_place *place, bool is_held)
{
    char uuid[ID_TEXT], dir[PATH_MAX];
    uint64_t *bases = NULL, first = 0;
    size_t count = 0;
    id16_format(place->log, uuid);
    vfs_path(dir, v->logs, uuid);
    int result = segment_list(v->options.fs, dir, &bases, &count);
    bool may_come = place->ahead && clock_mono_ns() < v->came_ns + AHEAD_NS;
    if (result == 0 && count > 0)
        first = bases[0];
    else if (!is_held && !may_come && (result == 0 || result == -ENOENT))
        first = place->lsn + 1;
    free(bases);
    return first;
}

/* Chooses a log that has lost entries since its rows were looked through. */
static void find_trimmed(struct view *v)
{
    v->trimmed_ns = clock_mono_ns();
    for (size_t i = 0; i < v->applied.count && v->is_told; i++) {
        const struct view_place *place = &v->applied.all[i], *done = view_place_of(&v->trimmed, place->log);
        uint64_t first = first_left(v, place, view_holds(v, place->log));
        if (first <= 1 || (done != NULL && done->lsn >= first))
            continue;
        view_trim_begin(&v->trim, place->log, first);
        view_pass(&v->trimmed, place->log, first);
        return;
    }
}

void view_trim_rows(struct view *v)
{
    char error[VIEW_ERROR_MAX];
    if (v->store == NULL || v->paused_ns > 0)
        return;
    if (v->trim.first_lsn == 0 && clock_mono_ns() >= v->trimmed_ns + VIEW_RETRY_NS)
        find_trimmed(v);
    if (v->trim.first_lsn > 0 && view_has_room(v) && !view_trim_step(&v->trim, v->store, error))
        view_fail_store(v, error);
}

/* ---------------------------------------------------------------- work of others */

/* Rows came from elsewhere, with a vector that is further: the logs go on there. */
static void go_on_behind(struct view *v)
{
    v->flushed = v->applied;
    v->came_ns = clock_mono_ns();
    v->applied.cursors++;
    v->awaited.count = 0;
    v->tidy_again_ns = 0;
    v->tidying.from = 0; /* rows may have come that may go, */
    v->tidying.look_ns = 0;
    v->trimmed.count = 0; /* or are of what is not in the logs here */
    v->trim.first_lsn = 0;
    for (size_t i = 0; i < v->count; i++) {
        v->all[i].stopped = SH_OK;
        v->all[i].verified = false;
    }
}

static void do_work(struct view *v, struct view_work *work)
{
    struct view_access access = {.store = v->store,
                                 .has_room = v->store != NULL && view_has_room(v),
                                 .opened = v->opened,
                                 .applied = &v->applied};
    work->fn(work, &access);
    if (access.imports)
        v->tidy_again_ns = clock_mono_ns() + IMPORT_NS;
    if (access.awaits != NULL) {
        v->awaited = *access.awaits;
        v->awaited_ns = clock_mono_ns() + IMPORT_NS;
    }
    if (access.failed)
        view_fail_store(v, access.error);
    else if (access.installed)
        go_on_behind(v);
    if (v->store != NULL)
        v->compared = view_is_compared(v->store);
    view_publish(v);
    v->options.on_work(v->options.arg, work);
}

static struct view_work *next_work(struct view *v)
{
    pthread_mutex_lock(&v->lock);
    struct view_work *work = v->works;
    if (work != NULL)
        v->works = work->next;
    pthread_mutex_unlock(&v->lock);
    return work;
}

void view_do_works(struct view *v)
{
    struct view_work *work;
    while ((work = next_work(v)) != NULL)
        do_work(v, work);
}
