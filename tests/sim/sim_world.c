/* A world's begin, end and catastrophes. */
#include "sim_world.h"

#include <stdio.h>
#include <string.h>

static const char data[] = "/data";

uint64_t world_random(struct sim_world *w, uint64_t below)
{
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return (w->random * UINT64_C(2685821657736338717) >> 11) % below;
}

bool world_chance(struct sim_world *w, unsigned one_in)
{
    return world_random(w, one_in) == 0;
}

/* The log's uuid comes from the seed: walsvc takes up the empty folder of a first start that was cut short.
 */
static void make_log_folder(struct sim_world *w)
{
    char uuid[ID_TEXT], path[64];
    struct id16 id = rig_producer(1 + world_random(w, UINT64_C(1) << 60));
    const struct vfs *fs = sim_disk_vfs(w->disk);
    id16_format(id, uuid);
    snprintf(path, sizeof path, "/data/log/%s", uuid);
    fs->mkdir(fs, data, 0);
    fs->mkdir(fs, "/data/log", 0);
    fs->mkdir(fs, path, 0);
}

static uint64_t random_segment_size(struct sim_world *w)
{
    static const uint64_t sizes[] = {8 << 10, 16 << 10, 16 << 10, 32 << 10, 64 << 10};
    return sizes[world_random(w, sizeof sizes / sizeof sizes[0])];
}

static void set_faults(struct sim_world *w, bool on)
{
    struct sim_faults faults = {0};
    if (on && (w->faults & FAULT_EIO) != 0 && world_chance(w, 2))
        faults.error_one_in = 200;
    if (on && (w->faults & FAULT_SHORT) != 0 && world_chance(w, 2))
        faults.short_one_in = 5;
    sim_disk_set_faults(w->disk, &faults, world_random(w, UINT64_C(1) << 62));
}

static enum sim_loss random_loss(struct sim_world *w)
{
    static const enum sim_loss all[] = {SIM_LOSE_NOTHING, SIM_LOSE_ALL, SIM_LOSE_SOME, SIM_LOSE_SOME};
    return all[world_random(w, sizeof all / sizeof all[0])];
}

static void fill_disk(struct sim_world *w, bool full)
{
    w->is_full = full;
    sim_disk_set_full(w->disk, full);
}

static bool open_upkeep(struct sim_world *w)
{
    memset(&w->upkeep, 0, sizeof w->upkeep);
    w->upkeep.settings.member_hold_max = UINT64_MAX / 2;
    w->upkeep.settings.scrub_rate = 1 << 20;
    w->upkeep.settings.scrub_interval_ns = NS_PER_S / 10;
    w->upkeep.now = (struct wal_upkeep_time){w->now_ns, NS_PER_S};
    return upkeep_rig_open(&w->upkeep, &w->rig) == EXIT_DONE;
}

/* One start; on its way it may meet its end again. */
static bool try_to_open(struct sim_world *w, bool undisturbed)
{
    bool may_stop = !undisturbed && (w->faults & FAULT_CRASH) != 0 && world_chance(w, 3);
    set_faults(w, !undisturbed);
    if (may_stop)
        sim_disk_stop_after(w->disk, world_random(w, 12));
    if (undisturbed)
        fill_disk(w, false);
    enum service_exit code = rig_open(&w->rig, sim_disk_vfs(w->disk), data, w->segment_size);
    if (code != EXIT_DONE) {
        uint64_t errors = sim_disk_faults(w->disk).errors;
        model_check(code == EXIT_FAULT && !undisturbed && (may_stop || errors > 0 || w->is_full),
                    "walsvc does not start: exit code %d", (int)code);
        return false;
    }
    bool opened = open_upkeep(w);
    if (!opened)
        rig_kill(&w->rig);
    if (may_stop)
        sim_disk_stop_after(w->disk, UINT64_MAX / 2);
    return opened;
}

static void start(struct sim_world *w)
{
    for (unsigned attempt = 0; !try_to_open(w, attempt >= 4); attempt++) {
        w->counts.crashes++;
        sim_disk_crash(w->disk, (w->faults & FAULT_CRASH) != 0 ? random_loss(w) : SIM_LOSE_NOTHING,
                       world_random(w, UINT64_C(1) << 62));
    }
    set_faults(w, false); /* while the model looks */
    w->rig.now_ns = w->now_ns;
    w->model.most_body = frame_body_most(w->segment_size);
    w->model.may_be_full = w->is_full;
    w->reader = log_reader_open(w->rig.fs, w->rig.dir.log, w->rig.dir.identity.log);
    w->index = wal_index_open(w->rig.fs, w->rig.dir.log, w->rig.dir.identity.log);
    w->counts.recoveries++;
    model_durable(&w->model, &w->rig);
    model_compare(&w->model, &w->rig, true);
    set_faults(w, true);
}

static void end_process(struct sim_world *w)
{
    log_reader_close(w->reader);
    upkeep_rig_close(&w->upkeep);
    wal_index_close(w->index);
    w->now_ns = w->rig.now_ns + NS_PER_MS;
    rig_kill(&w->rig);
}

void world_crash(struct sim_world *w)
{
    model_crashed(&w->model, &w->rig);
    end_process(w);
    w->counts.crashes++;
    enum sim_loss loss = (w->faults & FAULT_CRASH) != 0 ? random_loss(w) : SIM_LOSE_NOTHING;
    sim_disk_crash(w->disk, loss, world_random(w, UINT64_C(1) << 62));
    if (world_chance(w, 8))
        w->segment_size = random_segment_size(w);
    start(w);
}

void world_begin(struct sim_world *w)
{
    w->disk = sim_disk_open();
    w->model = (struct model){.next_lsn = 1};
    memset(w->holds, 0, sizeof w->holds);
    w->is_full = false;
    w->rots = (w->faults & (FAULT_FLIP | FAULT_ROT)) != 0 && world_chance(w, 3);
    w->segment_size = random_segment_size(w);
    make_log_folder(w);
    start(w);
}

void world_end(struct sim_world *w)
{
    unsigned faults = w->faults;
    world_crash(w);
    w->faults = FAULT_CRASH;
    set_faults(w, false);
    model_compare(&w->model, &w->rig, false);
    world_repair_all(w);
    model_compare(&w->model, &w->rig, false);
    w->counts.segments += w->rig.log.segment.position / w->segment_size;
    end_process(w);
    w->counts.faults += sim_disk_faults(w->disk).errors;
    w->counts.shorts += sim_disk_faults(w->disk).shorts;
    sim_disk_close(w->disk);
    model_free(&w->model);
    buf_free(&w->wounds);
    buf_free(&w->wounded);
    w->faults = faults;
}
