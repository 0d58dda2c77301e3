/* What is done about damage: the scrubber looks for it, and repairs bring back what was flipped, in any
 * order, whole or with more than is needed, and wrong ones that must be refused. */
#include "sim_world.h"
#include "wal_repair.h"

#include <string.h>

static struct sim_wound *wound_at(const struct sim_world *w, size_t index)
{
    return (struct sim_wound *)(void *)w->wounds.data + index;
}

static size_t wound_count(const struct sim_world *w)
{
    return w->wounds.len / sizeof(struct sim_wound);
}

void world_note_wound(struct sim_world *w, const struct model_frame *f, struct slice file)
{
    struct sim_wound wound = {.lsn = f->lsn, .base = f->base, .offset = f->offset, .at = w->wounded.len};
    wound.len = FRAME_HEADER_BYTES + f->body_len;
    buf_append(&w->wounded, file.data + f->offset, wound.len);
    buf_append(&w->wounds, &wound, sizeof wound);
}

static struct model_frame *frame_of(const struct sim_world *w, const struct sim_wound *wound)
{
    struct model_frame *f = model_find(&w->model, wound->lsn);
    bool may_be = f != NULL && (f->is_damaged || f->is_unsure);
    return may_be && f->base == wound->base && f->offset == wound->offset ? f : NULL;
}

static enum sh_error send_repair(struct sim_world *w, uint64_t base, uint64_t offset, struct slice bytes,
                                 int *failed)
{
    struct msg_repair request = {.segment = base, .offset = offset, .bytes = bytes};
    struct msg_repair_reply reply;
    struct wal_refusal refusal;
    struct wal_repair repair = {.fs = w->rig.fs,
                                .dir = w->rig.dir.log,
                                .quarantine = w->rig.dir.quarantine,
                                .log = w->rig.dir.identity.log,
                                .damage = w->rig.dir.damage};
    memset(&reply, 0, sizeof reply);
    enum sh_error error = wal_repair(&repair, &request, w->rig.log.durable.end, &reply, &refusal);
    *failed = repair.failed;
    return error;
}

/* Readers may have read the damage already. */
static void open_reader_again(struct sim_world *w)
{
    log_reader_close(w->reader);
    w->reader = log_reader_open(w->rig.fs, w->rig.dir.log, w->rig.dir.identity.log);
}

/* The damaged frame, sometimes with the undamaged one behind it. */
static void request_of(struct sim_world *w, const struct sim_wound *wound, struct buf *bytes)
{
    const struct model_frame *f = model_find(&w->model, wound->lsn);
    const struct model_frame *next = model_find(&w->model, f->lsn + f->count);
    char name[SEGMENT_NAME_MAX], path[PATH_MAX];
    buf_append(bytes, w->wounded.data + wound->at, wound->len);
    if (next == NULL || next->is_damaged || next->base != f->base ||
        next->offset != wound->offset + wound->len || !world_chance(w, 2))
        return;
    segment_name(f->base, name);
    vfs_path(path, w->rig.dir.log, name);
    struct slice file = sim_disk_file(w->disk, path);
    if (file.len >= next->offset + FRAME_HEADER_BYTES + next->body_len)
        buf_append(bytes, file.data + next->offset, FRAME_HEADER_BYTES + next->body_len);
}

static bool repair(struct sim_world *w, const struct sim_wound *wound)
{
    struct buf bytes = {0};
    int failed;
    struct model_frame *f = frame_of(w, wound);
    if (f == NULL)
        return true;
    request_of(w, wound, &bytes);
    enum sh_error error = send_repair(w, wound->base, wound->offset, buf_slice(&bytes), &failed);
    buf_free(&bytes);
    f->is_damaged = f->is_damaged && error != SH_OK;
    f->is_unsure = failed != 0 || (f->is_unsure && error != SH_OK);
    w->counts.repairs += error == SH_OK;
    open_reader_again(w);
    return failed == 0;
}

bool op_repair(struct sim_world *w)
{
    return wound_count(w) == 0 || repair(w, wound_at(w, world_random(w, wound_count(w))));
}

/* Bytes that were never written there: whatever is answered, not SH_OK. */
bool op_repair_wrong(struct sim_world *w)
{
    struct buf bytes = {0};
    int failed;
    if (wound_count(w) == 0)
        return true;
    const struct sim_wound *wound = wound_at(w, world_random(w, wound_count(w)));
    buf_append(&bytes, w->wounded.data + wound->at, wound->len);
    uint64_t offset = wound->offset;
    if (world_chance(w, 2))
        bytes.data[world_random(w, bytes.len)] ^= (uint8_t)(1 << world_random(w, 8));
    else
        offset += world_chance(w, 2) ? wound->len : 1;
    enum sh_error error = send_repair(w, wound->base, offset, buf_slice(&bytes), &failed);
    model_check(error != SH_OK, "a wrong repair was taken");
    buf_free(&bytes);
    return failed == 0;
}

void world_repair_all(struct sim_world *w)
{
    for (size_t i = 0; i < wound_count(w); i++)
        for (size_t k = 0; k < wound_count(w); k++) /* those before it in the file must come first */
            model_check(repair(w, wound_at(w, k)), "a repair fails without a fault");
    for (size_t i = 0; i < wound_count(w); i++) {
        const struct model_frame *f = frame_of(w, wound_at(w, i));
        w->counts.unrepaired += f != NULL && f->lsn > w->model.trimmed;
    }
}

static bool has_damage(const struct sim_world *w)
{
    for (size_t i = 0; i < model_frame_count(&w->model); i++)
        if (model_frame_at(&w->model, i)->is_damaged)
            return true;
    return false;
}

bool op_scrub(struct sim_world *w)
{
    struct upkeep_rig *u = &w->upkeep;
    u->damages = 0;
    for (unsigned i = 0; i < 20; i++) {
        int64_t due_ns = wal_upkeep_scrub(&u->upkeep, u->now);
        if (due_ns == INT64_MAX)
            break;
        int64_t later_ns = due_ns > u->now.mono_ns ? due_ns - u->now.mono_ns : 0;
        u->now.mono_ns += later_ns;
        u->now.real_ns += later_ns;
    }
    model_check(u->damages == 0 || has_damage(w) || sim_disk_faults(w->disk).errors > 0,
                "the scrubber sees damage where there is none");
    return u->fatal == 0;
}
