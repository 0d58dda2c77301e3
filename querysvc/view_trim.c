/* Which rows go, and what is kept of them. Nothing here is fatal. */
#include "view_trim.h"

#include <stdlib.h>
#include <string.h>

#include "view_apply.h"
#include "view_stream.h"

enum { STREAMS_MAX = 256, ROWS_MAX = 1000 }; /* in a step */

/* ---------------------------------------------------------------- one stream */

static struct view_part *part_of(struct view_part *parts, size_t count, struct id16 log)
{
    for (size_t i = 0; i < count; i++)
        if (id16_equal(parts[i].log, log))
            return &parts[i];
    return NULL;
}

static void take_off(struct view_part *part, const struct view_run *run)
{
    uint64_t last = run->lsn + run->count - 1;
    if (last <= part->gone_lsn)
        return; /* a summary that was merged in did not count it */
    part->gone_lsn = last;
    part->gone_hlc = run->hlc;
    part->count -= run->count < part->count ? run->count : part->count;
    part->bytes -= run->bytes < part->bytes ? run->bytes : part->bytes;
}

/* Gathers the deletion of rows, *rows at most, which counts down. True: no more are to go. */
static bool delete_runs(const struct view_trim *t, struct view_store *store, struct slice stream,
                        struct view_part *part, unsigned *rows, char error[VIEW_ERROR_MAX])
{
    struct buf from = {0}, to = {0};
    struct slice key, row;
    struct view_run run;
    bool is_done = true;
    view_run_key(stream, t->log, 0, &from);
    view_run_key(stream, t->log, t->first_lsn, &to);
    struct view_scan *scan = view_scan_open(store, buf_slice(&from), buf_slice(&to));
    while (view_scan_next(scan, &key, &row, error)) {
        is_done = *rows > 0;
        if (!is_done)
            break;
        if (view_run_key_is(key, stream, t->log, &run.lsn) && view_run_decode(row, &run))
            take_off(part, &run);
        view_store_delete(store, key);
        --*rows;
    }
    view_scan_close(scan);
    buf_free(&from);
    buf_free(&to);
    return is_done;
}

/* The same for a stream, and its summary as it is then. */
static bool trim_stream(const struct view_trim *t, struct view_store *store, struct slice key,
                        struct slice row, unsigned *rows, char error[VIEW_ERROR_MAX])
{
    struct view_summary summary;
    struct buf changed = {0};
    size_t count = 0;
    bool is_done = true;
    if (!view_summary_open(row, &summary))
        return true;
    struct view_part *parts = xcalloc(summary.parts.len / VIEW_PART_BYTES + 1, sizeof *parts);
    while (view_summary_next(&summary, &parts[count]))
        count++;
    struct view_part *part = part_of(parts, count, t->log);
    if (part != NULL) {
        const struct view_part before = *part;
        is_done = delete_runs(t, store, slice_of(key.data + 1, key.len - 1), part, rows, error);
        view_summary_encode(parts, count, &changed);
        if (part->gone_lsn != before.gone_lsn)
            view_store_put(store, key, buf_slice(&changed));
    }
    free(parts);
    buf_free(&changed);
    return is_done;
}

/* ---------------------------------------------------------------- all of them */

void view_trim_begin(struct view_trim *t, struct id16 log, uint64_t first_lsn)
{
    t->log = log;
    t->first_lsn = first_lsn;
    t->stream.len = 0;
}

bool view_trim_step(struct view_trim *t, struct view_store *store, char error[VIEW_ERROR_MAX])
{
    const uint8_t behind = VIEW_STREAM + 1;
    struct buf from = {0};
    struct slice key, row;
    unsigned rows = ROWS_MAX, streams = STREAMS_MAX;
    bool is_done = true;
    view_key_row(VIEW_STREAM, buf_slice(&t->stream), &from);
    struct view_scan *scan = view_scan_open(store, buf_slice(&from), slice_of(&behind, 1));
    error[0] = 0;
    while (is_done && error[0] == 0 && view_scan_next(scan, &key, &row, error)) {
        t->stream.len = 0;
        buf_append(&t->stream, key.data + 1, key.len - 1);
        is_done = streams-- > 0 && trim_stream(t, store, key, row, &rows, error);
    }
    view_scan_close(scan);
    buf_free(&from);
    if (error[0] != 0) {
        view_store_forget(store);
        return false;
    }
    if (is_done)
        t->first_lsn = 0;
    return view_store_write(store, error);
}

void view_trim_free(struct view_trim *t)
{
    buf_free(&t->stream);
}
