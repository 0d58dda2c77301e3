/* Finding the next events of a stream. Nothing here is fatal. */
#include "view_events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of one log: the row of the stream that comes next. */
struct head {
    struct view_scan *scan;
    struct id16 log;
    struct view_run run;
    uint64_t from; /* the first LSN wanted */
    bool ended;
};

struct finding {
    struct view_store *store;
    const struct view_events_ask *ask;
    struct view_events *out;
    struct head heads[VIEW_LOGS_MAX];
    size_t head_count;
    struct buf key;
    char *error;
};

static uint64_t lsn_of(const struct view_vector *vector, struct id16 log)
{
    const struct view_place *place = view_place_of(vector, log);
    return place != NULL ? place->lsn : 0;
}

/* ---------------------------------------------------------------- one log */

/* What a scan has found; a row that is none of this stream and log ends it. */
static void take_row(struct finding *f, struct head *h, bool found, struct slice key, struct slice row)
{
    h->ended = !found || !view_run_key_is(key, f->ask->stream, h->log, &h->run.lsn);
    if (!h->ended && !view_run_decode(row, &h->run)) {
        snprintf(f->error, VIEW_ERROR_MAX, "a row of a stream is malformed");
        h->ended = true;
    }
}

/* The run that the LSN is in, or else the first one behind it. */
static void seek(struct finding *f, struct head *h, uint64_t lsn)
{
    struct slice key, row;
    view_run_key(f->ask->stream, h->log, lsn, &f->key);
    bool found = view_scan_seek_back(h->scan, buf_slice(&f->key), &key, &row, f->error);
    take_row(f, h, found, key, row);
    if (f->error[0] != 0 || (!h->ended && h->run.lsn + h->run.count > lsn))
        return;
    view_run_key(f->ask->stream, h->log, lsn, &f->key);
    found = view_scan_seek(h->scan, buf_slice(&f->key), &key, &row, f->error);
    take_row(f, h, found, key, row);
}

static void next_run(struct finding *f, struct head *h)
{
    struct slice key, row;
    bool found = view_scan_next(h->scan, &key, &row, f->error);
    take_row(f, h, found, key, row);
}

static void run_before(struct finding *f, struct head *h)
{
    struct slice key, row;
    bool found = view_scan_back(h->scan, &key, &row, f->error);
    take_row(f, h, found, key, row);
}

/* By halves: the clock never goes back within a log. */
static void seek_time(struct finding *f, struct head *h)
{
    uint64_t low = h->from, high = lsn_of(&f->out->applied, h->log) + 1;
    seek(f, h, low);
    while (low < high && f->error[0] == 0) {
        uint64_t middle = low + (high - low) / 2;
        seek(f, h, middle);
        if (h->ended || h->run.hlc >= f->ask->since)
            high = middle;
        else
            low = h->run.lsn + h->run.count;
    }
    if (f->error[0] == 0)
        seek(f, h, low);
}

/* Without what comes before the first one that is wanted. */
static void cut_front(struct head *h)
{
    if (h->ended || h->run.lsn >= h->from)
        return;
    uint32_t before = (uint32_t)(h->from - h->run.lsn);
    h->run.lsn += before;
    h->run.arrival += before;
    h->run.count -= before;
}

static struct head *open_head(struct finding *f, struct id16 log)
{
    struct head *h = &f->heads[f->head_count++];
    struct buf from = {0}, to = {0};
    *h = (struct head){.log = log, .ended = true};
    view_run_key(f->ask->stream, log, 0, &from);
    view_run_key(f->ask->stream, log, lsn_of(&f->out->applied, log) + 1, &to);
    h->scan = view_scan_open(f->store, buf_slice(&from), buf_slice(&to));
    buf_free(&from);
    buf_free(&to);
    return h;
}

/* ---------------------------------------------------------------- all logs */

static void tell_gone(struct finding *f, const struct view_part *part, uint64_t from)
{
    if (f->ask->since > part->gone_hlc || f->ask->from_end)
        return;
    f->out->gone[f->out->gone_count++] = (struct view_gone){part->log, from, part->gone_lsn + 1};
}

static void add_log(struct finding *f, const struct view_part *part)
{
    uint64_t from = lsn_of(f->ask->position, part->log) + 1;
    if (f->ask->from_end)
        from = 1;
    if (f->head_count == VIEW_LOGS_MAX)
        return;
    if (from <= part->gone_lsn) {
        tell_gone(f, part, from);
        from = part->gone_lsn + 1;
    }
    if (part->lsn < from)
        return;
    struct head *h = open_head(f, part->log);
    h->from = from;
    if (f->ask->since > 0 && !f->ask->from_end)
        seek_time(f, h);
    else if (!f->ask->from_end)
        seek(f, h, from);
}

/* Of the heads that have not ended, by arrival; two views that were merged may have used a number twice. */
static struct head *choose(struct finding *f, bool is_last)
{
    struct head *best = NULL;
    for (size_t i = 0; i < f->head_count; i++) {
        struct head *h = &f->heads[i];
        if (h->ended)
            continue;
        bool is_before = best == NULL || h->run.arrival < best->run.arrival ||
                         (h->run.arrival == best->run.arrival &&
                          memcmp(h->log.bytes, best->log.bytes, sizeof h->log.bytes) < 0);
        if (best == NULL || is_before != is_last)
            best = h;
    }
    return best;
}

/* Goes back from the end until `last` events are counted; the heads begin there. */
static void go_back(struct finding *f)
{
    struct head *h;
    uint64_t left = f->ask->last;
    for (size_t i = 0; i < f->head_count && f->error[0] == 0; i++) { /* at their last runs */
        struct slice key, row;
        h = &f->heads[i];
        view_run_key(f->ask->stream, h->log, UINT64_MAX, &f->key);
        bool found = view_scan_seek_back(h->scan, buf_slice(&f->key), &key, &row, f->error);
        take_row(f, h, found, key, row);
        h->from = lsn_of(&f->out->applied, h->log) + 1;
    }
    while (left > 0 && f->error[0] == 0 && (h = choose(f, true)) != NULL) {
        uint64_t taken = h->run.count < left ? h->run.count : left;
        left -= taken;
        h->from = h->run.lsn + h->run.count - taken;
        if (left > 0)
            run_before(f, h);
    }
    for (size_t i = 0; i < f->head_count && f->error[0] == 0; i++)
        seek(f, &f->heads[i], f->heads[i].from);
}

/* ---------------------------------------------------------------- the runs that come next */

/* Whether a run stands where the one before, of the same log, has ended. */
static bool follows(const struct view_events *out, const struct head *h)
{
    if (out->run_count == 0)
        return false;
    const struct view_events_run *before = &out->runs[out->run_count - 1];
    return id16_equal(before->log, h->log) && before->run.lsn + before->run.count == h->run.lsn;
}

static void merge(struct finding *f)
{
    struct view_events *out = f->out;
    struct head *h;
    uint64_t events = 0, bytes = 0;
    unsigned jumps = 0;
    while (!f->ask->from_end && f->error[0] == 0 && (h = choose(f, false)) != NULL) {
        jumps += !follows(out, h);
        bool is_full = out->run_count == VIEW_RUNS_MAX || events >= f->ask->max_events ||
                       bytes >= f->ask->max_bytes || jumps > f->ask->max_jumps;
        if (is_full && out->run_count > 0)
            break;
        out->runs[out->run_count++] = (struct view_events_run){h->log, h->run};
        events += h->run.count;
        bytes += h->run.bytes;
        next_run(f, h);
    }
    for (size_t i = 0; i < f->head_count; i++)
        if (!f->heads[i].ended)
            out->rest[out->rest_count++] = (struct view_events_run){f->heads[i].log, f->heads[i].run};
}

static bool find_parts(struct finding *f, struct slice row)
{
    struct view_summary summary;
    struct view_part part;
    if (!view_summary_open(row, &summary)) {
        snprintf(f->error, VIEW_ERROR_MAX, "a stream's summary is malformed");
        return false;
    }
    while (f->error[0] == 0 && view_summary_next(&summary, &part))
        add_log(f, &part);
    if (f->ask->from_end && f->error[0] == 0)
        go_back(f);
    for (size_t i = 0; i < f->head_count; i++)
        cut_front(&f->heads[i]);
    return f->error[0] == 0;
}

bool view_events_find(struct view_store *store, const struct view_events_ask *ask, struct view_events *out,
                      char error[VIEW_ERROR_MAX])
{
    struct finding *f = xcalloc(1, sizeof *f);
    struct buf row = {0};
    *f = (struct finding){.store = store, .ask = ask, .out = out, .error = error};
    out->run_count = out->rest_count = out->gone_count = 0;
    error[0] = 0;
    enum view_found found = view_vector_load(store, &out->applied, error); /* first: what it says is there */
    view_key_row(VIEW_STREAM, ask->stream, &f->key);
    if (found == VIEW_FOUND)
        found = view_store_get(store, buf_slice(&f->key), &row, error);
    if (found == VIEW_FOUND && find_parts(f, buf_slice(&row)))
        merge(f);
    for (size_t i = 0; i < f->head_count; i++)
        view_scan_close(f->heads[i].scan);
    buf_free(&f->key);
    buf_free(&row);
    free(f);
    return error[0] == 0;
}

bool view_events_any(struct view_store *store, struct slice stream, const struct view_vector *position)
{
    struct buf key = {0}, row = {0};
    struct view_summary summary;
    struct view_part part;
    char error[VIEW_ERROR_MAX];
    bool any = false;
    view_key_row(VIEW_STREAM, stream, &key);
    enum view_found found = view_store_get(store, buf_slice(&key), &row, error);
    if (found == VIEW_FOUND && view_summary_open(buf_slice(&row), &summary))
        while (!any && view_summary_next(&summary, &part))
            any = part.lsn > lsn_of(position, part.log);
    buf_free(&key);
    buf_free(&row);
    return any || found == VIEW_FAILED;
}
