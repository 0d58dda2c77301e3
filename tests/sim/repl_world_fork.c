/* Own logs that are set back, as by a disk that lied: what walsvc does then (docs/replication-protocol.md),
 * by the model; and that nothing is lost but what the disk has lost, and nothing is there twice. */
#include <stdlib.h>
#include <string.h>

#include "repl_world.h"

#define PROOF_NS (5 * NS_PER_S)

/* ---- entries ---- */

/* False: not a data frame. */
static bool data_of(const struct model_log *log, size_t index, struct sim_aside *out)
{
    const struct model_frame *f = &log->frames[index];
    struct slice bytes = model_log_bytes(log, f->before.position, f->behind.position);
    struct frame_header h;
    size_t header = f->opens ? SEGMENT_HEADER_BYTES : 0;
    bytes = slice_of(bytes.data + header, bytes.len - header);
    if (frame_header_decode(bytes, FRAME_BYTES_MAX - FRAME_HEADER_BYTES, &h) != SH_OK)
        world_fail("a model has a frame that is none");
    if (h.kind != FRAME_DATA)
        return false;
    *out = (struct sim_aside){.body_bytes = h.body_bytes, .entries = h.count};
    memcpy(&out->id, bytes.data + FRAME_HEADER_BYTES, sizeof out->id);
    return true;
}

static bool holds_id(const struct model_log *log, size_t count, uint64_t id)
{
    struct sim_aside data;
    for (size_t i = count; i-- > 0;)
        if (data_of(log, i, &data) && data.id == id)
            return true;
    return false;
}

static size_t index_from(const struct model_log *log, uint64_t position)
{
    size_t index = 0;
    while (index < log->count && log->frames[index].before.position < position)
        index++;
    return index;
}

void world_fork_note(struct repl_world *w, uint32_t node, size_t log, uint64_t from)
{
    const struct model_log *l = &w->nodes[node].logs[log];
    struct sim_aside data;
    for (size_t i = index_from(l, from); i < l->durable; i++) {
        if (!data_of(l, i, &data))
            continue;
        if (w->entry_count == w->entry_cap) {
            w->entry_cap = w->entry_cap > 0 ? 2 * w->entry_cap : 1024;
            w->entries = xrealloc(w->entries, w->entry_cap * sizeof *w->entries);
        }
        w->entries[w->entry_count++] = (struct sim_entry){log, data.id};
    }
}

static void forget(struct repl_world *w, size_t log, uint64_t id)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->entry_count; i++)
        if (w->entries[i].log != log || w->entries[i].id != id)
            w->entries[kept++] = w->entries[i];
    w->entry_count = kept;
}

static int by_log_and_id(const void *a, const void *b)
{
    const struct sim_entry *x = a, *y = b;
    if (x->log != y->log)
        return (x->log > y->log) - (x->log < y->log);
    return (x->id > y->id) - (x->id < y->id);
}

static struct sim_entry *entries_of(const struct repl_world *w, size_t *count)
{
    size_t most = 0;
    for (size_t log = 0; log < w->count; log++)
        most += w->nodes[log].logs[log].count;
    struct sim_entry *entries = xcalloc(most + 1, sizeof *entries);
    *count = 0;
    for (size_t log = 0; log < w->count; log++)
        for (size_t i = 0; i < w->nodes[log].logs[log].count; i++) {
            struct sim_aside data;
            if (data_of(&w->nodes[log].logs[log], i, &data))
                entries[(*count)++] = (struct sim_entry){log, data.id};
        }
    qsort(entries, *count, sizeof *entries, by_log_and_id);
    return entries;
}

void world_fork_check(struct repl_world *w)
{
    size_t count;
    struct sim_entry *there = entries_of(w, &count);
    for (size_t i = 1; i < count; i++)
        if (by_log_and_id(&there[i - 1], &there[i]) == 0)
            world_fail("an entry of log %zu is there twice", there[i].log);
    for (size_t i = 0; i < w->entry_count; i++)
        if (bsearch(&w->entries[i], there, count, sizeof *there, by_log_and_id) == NULL)
            world_fail("an entry of log %zu is lost", w->entries[i].log);
    free(there);
    w->entry_count = 0;
    for (uint32_t i = 0; i < w->count; i++)
        w->nodes[i].is_behind = false;
}

/* ---- setting back ---- */

static bool is_held_elsewhere(const struct repl_world *w, uint32_t node, uint64_t id)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (i != node && holds_id(&w->nodes[i].logs[node], w->nodes[i].logs[node].durable, id))
            return true;
    return false;
}

/* The first frame that may go: what others have trimmed can't be fetched back. */
static size_t first_held_everywhere(const struct repl_world *w, uint32_t node)
{
    const struct model_log *log = &w->nodes[node].logs[node];
    uint64_t begin = 0;
    for (uint32_t i = 0; i < w->count; i++)
        if (w->nodes[i].logs[node].begin.position > begin)
            begin = w->nodes[i].logs[node].begin.position;
    return index_from(log, begin) + 1;
}

/* As when nobody could be asked in time. */
static void go_on_alone(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    struct model_log *log = &n->logs[node];
    for (uint64_t i = net_random(&w->net, 30); i > 0; i--)
        model_log_append(log, (uint32_t)(sizeof(uint64_t) + net_random(&w->net, 3000)), 1 + (uint32_t)i % 7,
                         net_random(&w->net, UINT64_MAX), net_chance(&w->net, 10));
    model_log_sync_all(log);
    world_fork_note(w, node, node, n->seen[node]);
    n->seen[node] = model_log_end(log).position;
}

/* Once in a round: what was appended again and lost once more before anybody had it is lost for good. */
void world_fork_set_back(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    struct model_log *log = &n->logs[node];
    struct sim_aside data;
    size_t first = first_held_everywhere(w, node);
    if (!w->has_forks || n->is_behind || n->own_copy || n->aside_count > 0 || first >= log->count)
        return;
    size_t most = log->count - first < 100 ? log->count - first : 100;
    size_t from = log->count - 1 - net_random(&w->net, most);
    for (size_t i = from; i < log->count; i++)
        if (data_of(log, i, &data) && !is_held_elsewhere(w, node, data.id))
            forget(w, node, data.id);
    model_log_cut(log, from);
    n->seen[node] = model_log_end(log).position;
    n->is_behind = true;
    w->set_back++;
    if (net_chance(&w->net, 50))
        go_on_alone(w, node);
}

/* ---- walsvc ---- */

static bool has_given_up(const struct repl_node *n, uint32_t checksum)
{
    for (size_t i = 0; i < n->given_up_count; i++)
        if (n->given_up[i] == checksum)
            return true;
    return false;
}

static uint32_t checksum_at(const struct model_log *log, size_t index)
{
    const struct model_frame *f = &log->frames[index];
    return repl_fork_first(model_log_bytes(log, f->before.position, f->behind.position));
}

static void keep_aside(struct repl_world *w, uint32_t node, size_t from)
{
    struct repl_node *n = &w->nodes[node];
    const struct model_log *log = &n->logs[node];
    n->aside = xrealloc(n->aside, (n->aside_count + log->count - from + 1) * sizeof *n->aside);
    for (size_t i = from; i < log->count; i++)
        if (data_of(log, i, &n->aside[n->aside_count])) {
            n->aside_count++;
            w->kept_aside++;
        }
    if (n->given_up_count == GIVEN_UP_MAX)
        memmove(n->given_up, n->given_up + 1, --n->given_up_count * sizeof n->given_up[0]);
    n->given_up[n->given_up_count++] = checksum_at(log, from);
}

static bool is_listed(const struct sim_store *s, uint32_t checksum)
{
    for (size_t i = 0; i < s->given_up_count; i++)
        if (s->given_up[i] == checksum)
            return true;
    return false;
}

enum sh_error world_fork_replace(struct repl_world *w, uint32_t node, const struct sim_store *s)
{
    struct repl_node *n = &w->nodes[node];
    struct model_log *log = &n->logs[s->log];
    struct slice bytes = slice_of(s->bytes, s->len);
    size_t from = model_log_differs(log, s->position, bytes);
    if (from == log->count)
        return SH_OK;
    uint64_t at = log->frames[from].before.position - s->position;
    if (at == s->len)
        return SH_OK; /* they end there */
    uint32_t theirs = repl_fork_first(slice_of(s->bytes + at, s->len - at));
    if (s->log == node ? has_given_up(n, theirs) : !is_listed(s, checksum_at(log, from)))
        world_fail("%s would replace what must stay in log %zu", n->id, s->log);
    if (s->log == node)
        keep_aside(w, node, from);
    model_log_cut(log, from);
    n->syncing[s->log] = n->syncing[s->log] < from ? n->syncing[s->log] : from;
    n->seen[s->log] = model_log_end(log).position;
    return SH_OK;
}

/* As the next start of walsvc does: whoever has heard of it meanwhile has it once. */
static void append_again(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    struct model_log *log = &n->logs[node];
    for (size_t i = 0; i < n->aside_count; i++) {
        const struct sim_aside *a = &n->aside[i];
        if (holds_id(log, log->count, a->id))
            continue;
        model_log_append(log, a->body_bytes, a->entries, a->id, net_chance(&w->net, 3));
        w->appended_again++;
    }
    model_log_sync_all(log);
    world_fork_note(w, node, node, n->seen[node]);
    n->aside_count = 0;
}

/* One that was set back goes on at once now and then, as when nobody could be asked in time: it forks. */
bool world_fork_must_prove(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    if (!w->has_forks)
        return false;
    memset(n->views, 0, sizeof n->views);
    return !(n->is_behind && net_chance(&w->net, 60));
}

void world_fork_started(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    if (n->own_copy)
        return;
    if (n->must_prove)
        world_due(w, node, DUE_PROOF, PROOF_NS);
    if (n->aside_count > 0)
        append_again(w, node);
}

static void start_again(struct repl_world *w, uint32_t node)
{
    world_wal_crash(w, node, false);
    world_due(w, node, DUE_START_WAL, 1 + (int64_t)net_random(&w->net, NS_PER_S / 4));
}

void world_fork_verdict(struct repl_world *w, uint32_t node, uint64_t verdict)
{
    struct repl_node *n = &w->nodes[node];
    if (!w->has_forks)
        world_fail("%s: its log is %llu, by a group in which none was set back", n->id,
                   (unsigned long long)verdict);
    if (!n->is_wal_up)
        return; /* sent again later, as it must be */
    if (verdict == 0) {
        bool was_copy = n->own_copy;
        n->must_prove = n->own_copy = false;
        if (was_copy)
            start_again(w, node);
        else
            world_due(w, node, DUE_PUMP, NS_PER_MS);
    } else if (!n->own_copy) {
        n->own_copy = true;
        start_again(w, node);
    }
}

void world_fork_proof_over(struct repl_world *w, uint32_t node)
{
    if (!w->nodes[node].is_wal_up || w->nodes[node].own_copy)
        return;
    w->nodes[node].must_prove = false;
    world_due(w, node, DUE_PUMP, NS_PER_MS);
}

/* ---- calm ---- */

const char *world_fork_unsettled(const struct repl_world *w, uint32_t node, size_t log)
{
    const struct model_log *here = &w->nodes[node].logs[log], *origin = &w->nodes[log].logs[log];
    const struct repl_node *n = &w->nodes[node];
    if (n->own_copy || n->must_prove || n->aside_count > 0)
        return "has not got its own log back";
    if (here->durable != here->count || model_log_end(here).position != model_log_end(origin).position)
        return "has not all";
    uint64_t from =
        here->begin.position > origin->begin.position ? here->begin.position : origin->begin.position;
    uint64_t end = model_log_end(here).position;
    if (!slice_equal(model_log_bytes(here, from, end), model_log_bytes(origin, from, end)))
        return "has other frames than the origin";
    return NULL;
}
