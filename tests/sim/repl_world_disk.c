/* The copies of a simulated node on a simulated disk, by walsvc's real code, beside the model of them: what
 * one takes, refuses, has durable, keeps through a crash and sends, the other must. */
#include "repl_world_disk.h"

#include <stdlib.h>
#include <string.h>

#include "copy_rig.h"
#include "log_reader_copy.h"
#include "sim_disk.h"

enum { SEGMENT_BYTES = 256 << 10 }; /* a file has that much to begin with, and gets more when it needs it */

struct world_disk {
    struct sim_disk *disk;
    struct copy_rig copies[WORLD_LOGS_MAX];
    bool is_open[WORLD_LOGS_MAX];
};

void world_disk_open(struct repl_world *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        w->nodes[i].disk = xcalloc(1, sizeof *w->nodes[i].disk);
        w->nodes[i].disk->disk = sim_disk_open();
    }
}

static void close_copies(struct world_disk *d)
{
    for (size_t log = 0; log < WORLD_LOGS_MAX; log++) {
        if (d->is_open[log])
            copy_rig_close(&d->copies[log]);
        d->is_open[log] = false;
    }
}

void world_disk_close(struct repl_world *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct world_disk *d = w->nodes[i].disk;
        if (d == NULL)
            continue;
        close_copies(d);
        sim_disk_close(d->disk);
        free(d);
    }
}

static struct copy_rig *copy_of(struct repl_node *n, size_t log)
{
    struct world_disk *d = n->disk;
    if (d->is_open[log])
        return &d->copies[log];
    enum sh_error error =
        copy_rig_open(&d->copies[log], sim_disk_vfs(d->disk), "/data", n->logs[log].id, SEGMENT_BYTES);
    if (error != SH_OK)
        world_fail("%s cannot open its copy of log %zu: %s", n->id, log, sh_error_name(error));
    d->is_open[log] = true;
    return &d->copies[log];
}

static void check_place(const struct repl_node *n, size_t log, const char *when)
{
    const struct copy_rig *copy = &n->disk->copies[log];
    struct log_chain durable = model_log_durable(&n->logs[log]);
    if (copy->files.durable.end != durable.position || copy->files.durable.lsn + 1 != durable.next_lsn)
        world_fail("%s has log %zu durable up to %llu %s, not %llu", n->id, log,
                   (unsigned long long)copy->files.durable.end, when, (unsigned long long)durable.position);
}

void world_disk_synced(struct repl_node *n, size_t log)
{
    if (n->disk == NULL || !n->disk->is_open[log])
        return;
    struct copy_rig *copy = &n->disk->copies[log];
    if (copy->files.fd >= 0 && wal_log_sync(&copy->files) != 0)
        world_fail("%s cannot sync log %zu", n->id, log);
    model_log_sync_all(&n->logs[log]); /* all that is written is in a sync */
    check_place(n, log, "after a sync");
}

void world_disk_take(struct repl_node *n, const struct sim_store *s, enum sh_error error)
{
    bool good;
    if (n->disk == NULL)
        return;
    struct copy_rig *copy = copy_of(n, s->log);
    enum wal_copy_verdict verdict =
        copy_rig_write(copy, s->position, slice_of(s->bytes, s->len), s->anew, &good);
    if (!good)
        world_fail("%s cannot write log %zu", n->id, s->log);
    if ((verdict == WAL_COPY_REFUSED) != (error != SH_OK) || (error != SH_OK && copy->refusal.code != error))
        world_fail("%s: position %llu of log %zu: the model says %s, walsvc %s", n->id,
                   (unsigned long long)s->position, s->log, sh_error_name(error),
                   verdict == WAL_COPY_REFUSED ? copy->refusal.text : "ok");
    if (verdict == WAL_COPY_ANEW)
        world_disk_synced(n, s->log);
}

/* Frame by frame. */
static void fill(struct repl_node *n, size_t log)
{
    const struct model_log *l = &n->logs[log];
    struct copy_rig *copy = copy_of(n, log);
    for (size_t i = 0; i < l->count; i++) {
        bool good;
        const struct model_frame *f = &l->frames[i];
        enum wal_copy_verdict verdict =
            copy_rig_write(copy, f->before.position,
                           model_log_bytes(l, f->before.position, f->behind.position), false, &good);
        if (!good || verdict == WAL_COPY_REFUSED)
            world_fail("%s does not take its first frames of log %zu", n->id, log);
    }
    world_disk_synced(n, log);
}

void world_disk_crash(struct repl_world *w, struct repl_node *n, bool is_power)
{
    if (n->disk == NULL)
        return;
    enum sim_loss power = net_chance(&w->net, 50) ? SIM_LOSE_ALL : SIM_LOSE_SOME;
    close_copies(n->disk);
    sim_disk_crash(n->disk->disk, is_power ? power : SIM_LOSE_NOTHING, net_random(&w->net, UINT64_MAX));
}

/* More than what was durable may have survived, never less. */
static void adopt(struct repl_node *n, size_t log)
{
    struct model_log *l = &n->logs[log];
    uint64_t end = copy_of(n, log)->files.durable.end;
    size_t count = end == model_log_end(l).position ? l->count : model_log_find(l, end);
    if (end < model_log_durable(l).position || (count == l->count && end != model_log_end(l).position))
        world_fail("%s: of log %zu, durable up to %llu, %llu has survived", n->id, log,
                   (unsigned long long)model_log_durable(l).position, (unsigned long long)end);
    model_log_sync(l, count);
    model_log_crash(l);
    check_place(n, log, "after a crash");
}

void world_disk_start(struct repl_world *w, uint32_t node)
{
    struct repl_node *n = &w->nodes[node];
    for (size_t log = 0; log < w->log_count && n->disk != NULL; log++) {
        if (log == node || !n->holds[log])
            continue;
        if (!n->was_on_disk && log == w->count)
            fill(n, log);
        else
            adopt(n, log);
    }
    n->was_on_disk = true;
}

void world_disk_serve(struct repl_node *n, size_t log, const struct repl_serve *serve,
                      const struct msg_fetch_reply *reply)
{
    if (n->disk == NULL || !n->disk->is_open[log])
        return;
    struct copy_rig *copy = &n->disk->copies[log];
    struct log_reader *reader = log_reader_open(copy->fs, copy->path, copy->log);
    struct buf out = {0};
    struct log_copy read = {.from = serve->from,
                            .anew = serve->anew,
                            .durable_end = serve->durable.position,
                            .max_bytes = serve->most_bytes,
                            .max_entries = serve->most_entries};
    enum sh_error error = log_reader_copy(reader, &read, &out);
    if (error != SH_OK || read.state != reply->state || !slice_equal(buf_slice(&out), reply->bytes))
        world_fail("%s reads %zu bytes of log %zu from %llu on (%s, state %d), not %zu (state %llu)", n->id,
                   out.len, log, (unsigned long long)serve->from.position, sh_error_name(error),
                   (int)read.state, reply->bytes.len, (unsigned long long)reply->state);
    buf_free(&out);
    log_reader_close(reader);
}
