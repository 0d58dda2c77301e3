/* walsvc of a simulated node: a model of its logs, its queue of copy_appends, and a disk that takes its time.
 */
#include <stdlib.h>
#include <string.h>

#include "repl_world.h"
#include "repl_world_disk.h"

enum { BIG_FRAME = 1 << 20, BURST_BYTES = 24 << 20, UNSYNCED_OVER = 2 << 20 };

/* ---- the truth ---- */

/* What has become durable here is what the origin has made durable, byte for byte; or it is the origin. */
static void compare(struct repl_world *w, uint32_t node, size_t log)
{
    struct repl_node *n = &w->nodes[node];
    struct model_log *l = &n->logs[log];
    struct sim_truth *truth = &w->truth[log];
    uint64_t end = model_log_durable(l).position, known = truth->from + truth->bytes.len;
    uint64_t from = n->seen[log] > l->begin.position ? n->seen[log] : l->begin.position;
    if (w->has_forks && log < w->count) {
        world_fork_note(w, node, log, from);
        n->seen[log] = end;
        return;
    }
    if (log == node && end > known) {
        struct slice more = model_log_bytes(l, known, end);
        buf_append(&truth->bytes, more.data, more.len);
        known = end;
    }
    if (end > known)
        world_fail("%s has more of log %zu than its origin", n->id, log);
    from = from > truth->from ? from : truth->from;
    if (end > from && !slice_equal(model_log_bytes(l, from, end),
                                   slice_of(truth->bytes.data + (from - truth->from), end - from)))
        world_fail("%s has other bytes of log %zu than its origin", n->id, log);
    w->compared_bytes += end > from ? end - from : 0;
    n->seen[log] = end;
}

/* ---- syncs ---- */

static int64_t sync_ns(struct repl_world *w, const struct repl_node *n)
{
    return 200 * NS_PER_US + (int64_t)net_random(&w->net, 3 * NS_PER_MS) +
           (n->slow_ns > 0 ? (int64_t)net_random(&w->net, (uint64_t)n->slow_ns) : 0);
}

static void start_sync(struct repl_world *w, uint32_t node, size_t log)
{
    struct repl_node *n = &w->nodes[node];
    struct model_log *l = &n->logs[log];
    if (n->due_ns[DUE_SYNC + log] != 0 || l->durable == l->count)
        return;
    n->syncing[log] = l->count;
    world_due(w, node, DUE_SYNC + (unsigned)log, sync_ns(w, n));
}

static void pump_soon(struct repl_world *w, uint32_t node)
{
    if (w->nodes[node].due_ns[DUE_PUMP] == 0)
        world_due(w, node, DUE_PUMP, 50 * NS_PER_US + (int64_t)net_random(&w->net, NS_PER_MS));
}

void world_wal_synced(struct repl_world *w, uint32_t node, size_t log)
{
    struct repl_node *n = &w->nodes[node];
    if (!n->is_wal_up)
        return;
    model_log_sync(&n->logs[log], n->syncing[log]);
    world_disk_synced(n, log);
    compare(w, node, log);
    start_sync(w, node, log);
    pump_soon(w, node);
}

/* ---- copy_append ---- */

/* What replsvc has fetched of a log and walsvc has not answered. */
static uint64_t unsynced(const struct repl_node *n, size_t log)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < n->store_count; i++)
        bytes += n->stores[i].log == log ? n->stores[i].len : 0;
    return bytes;
}

void world_wal_store(struct repl_world *w, uint32_t node, const struct repl_action *a)
{
    struct repl_node *n = &w->nodes[node];
    size_t log = 0;
    while (log < w->log_count && !id16_equal(n->logs[log].id, a->store.log))
        log++;
    bool is_own = log == node && !n->own_copy && !w->has_forks;
    if (log == w->log_count || is_own || n->store_count == STORES_MAX)
        world_fail("%s stores what is no copy, or too much", n->id);
    struct sim_store *s = &n->stores[n->store_count++];
    *s = (struct sim_store){.slot = a->slot,
                            .log = log,
                            .position = a->store.position,
                            .anew = a->store.anew,
                            .over = a->store.over,
                            .given_up_count = a->store.given_up_count,
                            .len = a->store.bytes.len,
                            .bytes = xmalloc(a->store.bytes.len + 1)};
    memcpy(s->bytes, a->store.bytes.data, s->len);
    memcpy(s->given_up, a->store.given_up, sizeof s->given_up);
    uint64_t bytes = unsynced(n, log);
    w->unsynced_most = bytes > w->unsynced_most ? bytes : w->unsynced_most;
    if (bytes > REPL_WINDOW_BYTES + UNSYNCED_OVER)
        world_fail("%s has %llu bytes of log %zu that are not durable", n->id, (unsigned long long)bytes,
                   log);
    pump_soon(w, node);
}

static void drop_store(struct repl_node *n, size_t index)
{
    free(n->stores[index].bytes);
    n->store_count--;
    memmove(n->stores + index, n->stores + index + 1, (n->store_count - index) * sizeof *n->stores);
}

static void answer(struct repl_world *w, uint32_t node, size_t index, uint32_t type, const void *message)
{
    struct repl_node *n = &w->nodes[node];
    struct buf body = {0};
    unsigned slot = n->stores[index].slot;
    size_t len = n->stores[index].len;
    drop_store(n, index);
    msg_encode(type, message, &body);
    repl_core_stored(n->core, w->net.now_ns + n->clock_ns, slot, len, type, buf_slice(&body));
    buf_free(&body);
    world_after_call(w, node);
}

static void refuse(struct repl_world *w, uint32_t node, size_t index, enum sh_error code)
{
    const struct msg_error error = {.code = code, .text = slice_str("the model says so")};
    answer(w, node, index, MSG_error, &error);
}

static void tell_durable(struct repl_world *w, uint32_t node, size_t index)
{
    const struct model_log *log = &w->nodes[node].logs[w->nodes[node].stores[index].log];
    struct log_chain durable = model_log_durable(log);
    const struct msg_copy_append_reply reply = {
        .log = log->id, .end = durable.position, .lsn = durable.next_lsn - 1, .checksum = durable.checksum};
    answer(w, node, index, MSG_copy_append_reply, &reply);
}

/* False: it was refused, and is gone. */
static bool take(struct repl_world *w, uint32_t node, size_t index)
{
    struct repl_node *n = &w->nodes[node];
    struct sim_store *s = &n->stores[index];
    struct model_log *log = &n->logs[s->log];
    enum sh_error error = SH_DISK_FULL;
    if (s->log == node && !n->own_copy) {
        refuse(w, node, index, SH_BAD_REQUEST); /* of before walsvc has taken it up again */
        return false;
    }
    if (!net_chance(&w->net, n->refuse)) {
        if (s->over)
            world_fork_replace(w, node, s);
        error = model_log_take(log, s->position, slice_of(s->bytes, s->len), s->anew, &s->end);
        world_disk_take(n, s, error);
    }
    if (error == SH_BAD_REQUEST)
        world_fail("%s hands over frames that are not good", n->id);
    if (error != SH_OK) {
        refuse(w, node, index, error);
        return false;
    }
    n->holds[s->log] = true;
    s->is_taken = true;
    start_sync(w, node, s->log);
    return true;
}

static void tell_logs(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    struct held_log logs[WORLD_LOGS_MAX];
    size_t count = 0;
    logs[count++] = model_log_tell(&n->logs[node]);
    for (size_t log = 0; log < w->log_count; log++)
        if (log != node && n->holds[log])
            logs[count++] = model_log_tell(&n->logs[log]);
    struct repl_logs told = {.boot = n->boot,
                             .waits = n->must_prove && !n->own_copy,
                             .own_copy = n->own_copy,
                             .held = logs,
                             .count = count,
                             .given_up_count = n->given_up_count};
    memcpy(told.given_up, n->given_up, sizeof told.given_up);
    repl_core_logs(n->core, w->net.now_ns + n->clock_ns, &told);
    world_after_call(w, node);
}

void world_wal_pump(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    if (!n->is_wal_up || n->core == NULL)
        return;
    for (size_t i = 0; i < n->store_count;) {
        struct sim_store *s = &n->stores[i];
        if (!s->is_taken && !take(w, node, i))
            continue;
        if (model_log_durable(&n->logs[n->stores[i].log]).position >= n->stores[i].end)
            tell_durable(w, node, i);
        else
            i++;
    }
    tell_logs(w, node);
}

/* ---- the own log ---- */

static bool is_writable(const struct repl_node *n)
{
    return n->is_wal_up && !n->must_prove && !n->own_copy;
}

/* What it is made of tells an entry from all others. */
static void append(struct repl_world *w, uint32_t node, uint32_t bytes)
{
    struct model_log *log = &w->nodes[node].logs[node];
    bytes = bytes < sizeof(uint64_t) ? sizeof(uint64_t) : bytes;
    model_log_append(log, bytes, 1 + (uint32_t)net_random(&w->net, 100), net_random(&w->net, UINT64_MAX),
                     net_chance(&w->net, 3));
    w->appended_frames++;
    start_sync(w, node, node);
}

void world_wal_append(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    if (!w->is_loaded)
        return;
    if (is_writable(n))
        append(w, node, (uint32_t)net_random(&w->net, net_chance(&w->net, 2) ? 200000 : 3000));
    world_due(w, node, DUE_APPEND, (int64_t)net_random(&w->net, 100 * (uint64_t)NS_PER_MS));
}

void world_wal_burst(struct repl_world *w, uint32_t node)
{
    size_t bytes = net_random(&w->net, BURST_BYTES);
    for (size_t done = 0; done < bytes && is_writable(&w->nodes[node]);) {
        uint32_t size = (uint32_t)net_random(&w->net, BIG_FRAME);
        append(w, node, size);
        done += size;
    }
}

/* ---- acknowledgements ---- */

/* The frame with that LSN is the same one there, and durable. */
static bool holds_same(const struct model_log *log, const struct model_log *origin, uint64_t lsn)
{
    size_t low = 0, high = origin->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (origin->frames[middle].behind.next_lsn <= lsn)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == origin->count)
        return false;
    const struct log_chain *behind = &origin->frames[low].behind;
    size_t next = model_log_find(log, behind->position), count = next;
    if (behind->position == model_log_end(log).position)
        count = log->count;
    else if (next == log->count)
        return false;
    return count > 0 && count <= log->durable && log->frames[count - 1].behind.checksum == behind->checksum;
}

static unsigned holders(const struct repl_world *w, uint32_t node, uint64_t lsn)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        const struct model_log *log = &w->nodes[i].logs[node], *origin = &w->nodes[node].logs[node];
        bool has = model_log_durable(log).next_lsn > lsn;
        count += has && (!w->has_forks || holds_same(log, origin, lsn));
    }
    return count;
}

/* What walsvc answers by it is true. */
void world_wal_replicated(struct repl_world *w, uint32_t node, const struct msg_replicated *told)
{
    struct repl_node *n = &w->nodes[node];
    if (told->quorum_lsn == UINT64_MAX || told->all_lsn > told->quorum_lsn)
        world_fail("%s: quorum %llu, all %llu", n->id, (unsigned long long)told->quorum_lsn,
                   (unsigned long long)told->all_lsn);
    if (told->quorum_lsn < n->replicated.quorum_lsn || told->all_lsn < n->replicated.all_lsn)
        world_fail("%s: what is replicated goes back", n->id);
    if (told->quorum_lsn > 0 && holders(w, node, told->quorum_lsn) <= w->count / 2)
        world_fail("%s: LSN %llu is not durable on a majority", n->id, (unsigned long long)told->quorum_lsn);
    if (told->all_lsn > 0 && holders(w, node, told->all_lsn) < w->count)
        world_fail("%s: LSN %llu is not durable on all", n->id, (unsigned long long)told->all_lsn);
    w->acknowledged += told->quorum_lsn - n->replicated.quorum_lsn;
    n->replicated = *told;
}

/* ---- its life ---- */

void world_wal_crash(struct repl_world *w, uint32_t node, bool is_power)
{
    struct repl_node *n = &w->nodes[node];
    n->is_wal_up = false;
    world_disk_crash(w, n, is_power);
    for (size_t log = 0; log < w->log_count; log++) {
        if (n->disk == NULL || log == node) /* else the disk says what is lost */
            model_log_crash(&n->logs[log]);
        n->due_ns[DUE_SYNC + log] = 0;
        n->seen[log] = model_log_durable(&n->logs[log]).position;
    }
    for (size_t i = 0; i < n->store_count; i++)
        n->stores[i].is_taken = false;
    w->crashes++;
}

void world_wal_start(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    if (!n->is_on)
        return;
    if (!n->is_wal_up)
        world_disk_start(w, node);
    for (size_t log = 0; log < w->log_count; log++)
        compare(w, node, log);
    n->is_wal_up = true;
    world_fork_started(w, node);
    n->replicated = (struct msg_replicated){0};
    for (size_t i = 0; i < sizeof n->boot.bytes; i++)
        n->boot.bytes[i] = (uint8_t)(1 + net_random(&w->net, 255));
    pump_soon(w, node);
}

void world_wal_trim(struct repl_world *w, uint32_t node, size_t log, size_t keep)
{
    struct repl_node *n = &w->nodes[node];
    uint64_t before = n->logs[log].begin.position;
    if (!n->is_wal_up || n->due_ns[DUE_SYNC + log] != 0)
        return; /* n->syncing counts frames */
    if (n->disk != NULL && log != node)
        return; /* the files of copies are not trimmed here */
    model_log_trim(&n->logs[log], keep);
    w->trims += n->logs[log].begin.position > before;
    pump_soon(w, node);
}
