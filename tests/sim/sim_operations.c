/* What can happen to a log, each with its weight. */
#include "log.h"
#include "log_reader.h"
#include "sim_world.h"

#include <stdio.h>
#include <string.h>

enum { REQUESTS_MOST = RIG_ANSWERS_MAX - 64, ENTRY_BYTES = 8 };

/* ---------------------------------------------------------------- bodies */

enum payload { PAYLOAD_NOISE, PAYLOAD_ZEROS, PAYLOAD_FRAMES, PAYLOADS };

/* Bytes that are valid frames of this segment. They claim no more than is true, or more than can be. */
static void imitate_frames(struct sim_world *w, uint8_t *out, size_t len)
{
    for (size_t at = 0; at + FRAME_HEADER_BYTES <= len; at += FRAME_HEADER_BYTES) {
        struct frame_header h = {
            .kind = world_chance(w, 2) ? FRAME_CLOCK : FRAME_DATA,
            .base_lsn = w->model.next_lsn + world_random(w, 3),
            .count = 1,
            .previous_checksum = w->rig.log.chain.checksum,
            .durable_end = world_chance(w, 2) ? w->rig.log.durable.end : UINT64_C(1) << 40,
            .durable_lsn = w->rig.log.durable.lsn,
        };
        h.count = h.kind == FRAME_DATA;
        frame_encode(&h, w->rig.log.segment.salt, (struct slice){0}, out + at);
    }
}

static struct slice make_payload(struct sim_world *w, size_t len)
{
    static uint8_t bytes[128 << 10];
    enum payload kind = (enum payload)world_random(w, PAYLOADS);
    len = len < sizeof bytes ? len : sizeof bytes;
    memset(bytes, 0, len);
    for (size_t i = 0; kind != PAYLOAD_ZEROS && i < len; i += 1 + i / 8)
        bytes[i] = (uint8_t)world_random(w, 256);
    if (kind == PAYLOAD_FRAMES && (!w->rots || (w->faults & FAULT_LIES) != 0))
        imitate_frames(w, bytes, len);
    return slice_of(bytes, len);
}

static void pack_entry(struct sim_world *w, msgpack_packer *pk, size_t len)
{
    struct entry entry = {.kind = world_random(w, 4), .stream = slice_str(""), .key = slice_str("k")};
    if (entry.kind == ENTRY_EVENT || entry.kind == ENTRY_PUT)
        entry.value = make_payload(w, len);
    entry.delta = (int64_t)world_random(w, 1000) - 500;
    entry_pack(pk, &entry);
}

/* Mostly small, sometimes as large as can be or a little larger. */
static size_t random_size(struct sim_world *w)
{
    uint64_t most = w->model.most_body, size = 1 + world_random(w, 1 + (most >> world_random(w, 10)));
    return world_chance(w, 50) ? most - 40 + world_random(w, 60) : size;
}

static uint32_t make_body(struct sim_world *w, struct buf *body)
{
    msgpack_packer pk;
    size_t left = random_size(w);
    uint32_t count = world_chance(w, 3) ? 1 + (uint32_t)world_random(w, 20) : 1;
    mp_packer(&pk, body);
    msgpack_pack_array(&pk, count);
    for (uint32_t i = 0; i < count; i++) {
        size_t len = count == 1 ? left : world_random(w, 1 + left / count);
        pack_entry(w, &pk, len > ENTRY_BYTES ? len - ENTRY_BYTES : 1);
    }
    return count;
}

/* ---------------------------------------------------------------- appends */

static bool append(struct sim_world *w, uint64_t producer, uint32_t epoch, uint64_t sequence)
{
    struct buf body = {0};
    if (w->rig.requests >= REQUESTS_MOST)
        return false; /* the rig remembers no more answers in one life */
    struct model_request request = {.producer = producer, .epoch = epoch, .sequence = sequence};
    request.count = make_body(w, &body);
    w->rig.now_ns += (int64_t)world_random(w, 3 * NS_PER_MS);
    request.number = w->rig.requests + 1;
    model_append(&w->model, &request, buf_slice(&body));
    rig_append_body(&w->rig, producer, epoch, sequence, buf_slice(&body));
    buf_free(&body);
    w->counts.appends++;
    return true;
}

static uint64_t random_producer(struct sim_world *w)
{
    return 1 + world_random(w, MODEL_PRODUCERS - 1);
}

/* The next sequence as the producer's client counts it: by what is settled, and what it has sent since. */
static struct model_producer producer_state(const struct sim_world *w, uint64_t producer)
{
    struct model_producer p = w->model.producers[producer];
    size_t count = w->model.requests.len / sizeof(struct model_request);
    const struct model_request *all = (const struct model_request *)(const void *)w->model.requests.data;
    for (size_t i = w->model.settled; i < count; i++)
        if (all[i].producer == producer && all[i].body_len <= w->model.most_body)
            p = (struct model_producer){all[i].epoch, all[i].sequence};
    if (p.epoch == 0)
        p.epoch = 1;
    return p;
}

static bool op_append_plain(struct sim_world *w)
{
    return append(w, 0, 1, 0);
}

static bool op_append_next(struct sim_world *w)
{
    uint64_t producer = random_producer(w);
    struct model_producer p = producer_state(w, producer);
    return append(w, producer, p.epoch, p.last + 1);
}

static bool op_append_again(struct sim_world *w)
{
    uint64_t producer = random_producer(w);
    struct model_producer p = producer_state(w, producer);
    uint64_t back = world_random(w, world_chance(w, 4) ? 300 : 3);
    return append(w, producer, p.epoch, p.last > back ? p.last - back : 1);
}

static bool op_append_gap(struct sim_world *w)
{
    uint64_t producer = random_producer(w);
    struct model_producer p = producer_state(w, producer);
    return append(w, producer, p.epoch, p.last + 2 + world_random(w, 3));
}

static bool op_append_epoch(struct sim_world *w)
{
    uint64_t producer = random_producer(w);
    struct model_producer p = producer_state(w, producer);
    bool older = p.epoch > 1 && world_chance(w, 3);
    return append(w, producer, older ? p.epoch - 1 : p.epoch + 1, world_chance(w, 4) ? 2 : 1);
}

/* ---------------------------------------------------------------- what walsvc's threads do */

static void look_at_answers(struct sim_world *w)
{
    model_settle(&w->model, &w->rig);
    model_durable(&w->model, &w->rig);
}

static bool prepare(struct sim_world *w)
{
    bool good = rig_prepare(&w->rig) || wal_core_stats(w->rig.core).next == WAL_NEXT_DISK_FULL;
    w->rig.prepares = false; /* here it is an operation of its own */
    return good;
}

static bool op_prepare(struct sim_world *w)
{
    bool good = prepare(w);
    look_at_answers(w);
    return good;
}

/* A write without a sync belongs to a group whose sync is still to come. */
static bool sync_written(struct sim_world *w)
{
    if (w->rig.log.chain.position == w->rig.log.durable.end)
        return true;
    if (wal_log_sync(&w->rig.log) != 0)
        return false;
    wal_core_durable(w->rig.core, &w->rig.log.durable);
    return true;
}

static bool op_commit(struct sim_world *w)
{
    bool good = sync_written(w) && rig_commit(&w->rig);
    look_at_answers(w);
    if (good && w->rig.next_fd < 0 && world_chance(w, 2))
        good = prepare(w);
    return good;
}

static bool op_write(struct sim_world *w)
{
    for (const struct wal_frame *frame = w->rig.first; frame != NULL; frame = frame->next)
        if (frame->opens_segment)
            return op_commit(w);
    return rig_write(&w->rig);
}

static bool op_mark(struct sim_world *w)
{
    return wal_log_write_mark(&w->rig.log) == 0;
}

/* A clean stop and a start. */
static bool op_restart(struct sim_world *w)
{
    if (!op_commit(w) || !op_mark(w))
        return false;
    world_crash(w);
    return true;
}

/* ---------------------------------------------------------------- readers */

static void check_read(struct sim_world *w, const struct log_read *read, const struct buf *out)
{
    uint64_t lsn = read->from;
    struct frame_header h;
    for (size_t at = 0, size; at < out->len; at += size) {
        struct slice rest = slice_of(out->data + at, out->len - at);
        model_check(frame_verify(rest, read->salt, FRAME_BYTES_MAX, &h, &size) == SH_OK,
                    "the reader returns a bad frame");
        const struct model_frame *f = model_find(&w->model, lsn);
        model_check(f != NULL && !f->is_damaged, "the reader returns LSN %llu", (unsigned long long)lsn);
        model_check_frame(&w->model, f, &h,
                          slice_of(rest.data + FRAME_HEADER_BYTES, size - FRAME_HEADER_BYTES));
        lsn = f->lsn + f->count;
    }
    model_check(lsn == read->next, "the reader goes on at LSN %llu, not %llu", (unsigned long long)read->next,
                (unsigned long long)lsn);
}

static void check_read_error(struct sim_world *w, const struct log_read *read, enum sh_error error)
{
    const struct model_frame *f = model_find(&w->model, read->from);
    if (error == SH_TRIMMED) {
        model_check(read->from < read->first_lsn && read->first_lsn <= w->model.may_trim,
                    "LSN %llu counts as trimmed, up to %llu", (unsigned long long)read->from,
                    (unsigned long long)read->first_lsn);
        return;
    }
    if (error == SH_INTERNAL && sim_disk_faults(w->disk).errors > 0)
        return;
    model_check(error == SH_CORRUPT && f != NULL && f->is_damaged, "reading LSN %llu gives %d",
                (unsigned long long)read->from, (int)error);
    model_check(read->good_lsn == 0 || read->good_lsn > read->from, "nothing to go on at behind damage");
}

static bool op_read(struct sim_world *w)
{
    struct buf out = {0};
    struct log_read read = {
        .from = 1 + world_random(w, w->rig.log.durable.lsn + 1),
        .durable_end = w->rig.log.durable.end,
        .durable_lsn = w->rig.log.durable.lsn,
        .max_bytes = 1 + world_random(w, 20000),
        .max_entries = 1 + world_random(w, 200),
    };
    for (unsigned i = 0; i < 3; i++) {
        enum sh_error error = log_reader_read(w->reader, &read, &out);
        if (error != SH_OK)
            check_read_error(w, &read, error);
        check_read(w, &read, &out);
        model_check(error != SH_OK || out.len > 0 || read.from == w->rig.log.durable.lsn + 1,
                    "the reader sees the end of the log at LSN %llu", (unsigned long long)read.from);
        read.from = read.next;
        out.len = 0;
        if (error != SH_OK)
            break;
    }
    w->counts.reads++;
    buf_free(&out);
    return true;
}

/* `log verify` beside the writer. It sees no damage where there is none. */
static bool op_verify(struct sim_world *w)
{
    if (sim_disk_faults(w->disk).error_one_in == 0)
        model_compare(&w->model, &w->rig, false);
    return true;
}

/* ---------------------------------------------------------------- upkeep */

static uint64_t least_hold(const struct sim_world *w)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < WORLD_HOLDS; i++)
        if (w->holds[i] > 0 && w->holds[i] < least)
            least = w->holds[i];
    return least;
}

/* A member needs entries from some LSN on, or no longer any. */
static bool op_hold(struct sim_world *w)
{
    static const char *const names[WORLD_HOLDS] = {"m1", "m2", "m3"};
    uint64_t i = world_random(w, WORLD_HOLDS), before = w->holds[i];
    uint64_t lsn = 1 + world_random(w, w->rig.log.durable.lsn + 1);
    bool drops = before > 0 && world_chance(w, 3);
    lsn = before > 0 && lsn < before ? before : lsn;
    enum sh_error error = drops ? upkeep_rig_drop(&w->upkeep, WAL_HOLD_MEMBER, names[i])
                                : upkeep_rig_hold(&w->upkeep, WAL_HOLD_MEMBER, names[i], lsn, 0);
    if (error == SH_OK ||
        before > 0) /* when it failed, the file may know of either: the weaker one is certain */
        w->holds[i] = drops ? 0 : lsn;
    return w->upkeep.fatal == 0;
}

static bool op_trim(struct sim_world *w)
{
    uint64_t before = 1 + world_random(w, w->rig.log.durable.lsn + 1), least = least_hold(w);
    uint64_t may = before < least ? before : least;
    if (may > w->model.may_trim)
        w->model.may_trim = may;
    upkeep_rig_trim(&w->upkeep, before, false, NULL);
    if (w->upkeep.trims > 0 && w->upkeep.trimmed_lsn > w->model.trimmed)
        w->model.trimmed = w->upkeep.trimmed_lsn;
    return w->upkeep.fatal == 0;
}

static bool op_tidy(struct sim_world *w)
{
    wal_upkeep_tidy(&w->upkeep.upkeep, w->upkeep.now);
    return w->upkeep.fatal == 0;
}

/* ---------------------------------------------------------------- faults */

static bool op_crash(struct sim_world *w)
{
    world_crash(w);
    return true;
}

/* The machine stops at one of the next calls. */
static bool op_stop(struct sim_world *w)
{
    sim_disk_stop_after(w->disk, world_random(w, 20));
    return true;
}

static bool op_fail_sync(struct sim_world *w)
{
    sim_disk_fail_next_sync(w->disk);
    w->counts.faults++;
    return true;
}

static bool op_full(struct sim_world *w)
{
    w->is_full = !w->is_full;
    sim_disk_set_full(w->disk, w->is_full);
    if (w->is_full)
        w->model.may_be_full = true;
    w->counts.faults += w->is_full;
    return true;
}

static bool has_damage_near(const struct sim_world *w, size_t index)
{
    for (size_t i = index > 0 ? index - 1 : 0; i <= index + 1 && i < w->model.durable; i++)
        if (model_frame_at(&w->model, i)->is_damaged)
            return true;
    return false;
}

/* The durable end that the disk tells whatever else is damaged: by the mark, or by the last durable frame. */
static uint64_t told_end(const struct sim_world *w)
{
    const struct segment_header *newest = &w->rig.log.segment;
    const struct model_frame *last = model_frame_at(&w->model, w->model.durable - 1);
    uint64_t told = w->rig.log.mark.durable_end;
    char name[SEGMENT_NAME_MAX], path[PATH_MAX];
    struct frame_header h;
    size_t size;
    if (last->base != newest->base_lsn)
        return told;
    segment_name(last->base, name);
    vfs_path(path, w->rig.dir.log, name);
    struct slice file = sim_disk_file(w->disk, path);
    if (file.len < last->offset || frame_verify(slice_of(file.data + last->offset, file.len - last->offset),
                                                newest->salt, w->model.most_body, &h, &size) != SH_OK)
        return told;
    return h.durable_end > told ? h.durable_end : told;
}

/* Rot of the last group before its mark is written looks like a torn tail: docs/wal-format.md. */
static bool looks_torn(const struct sim_world *w, const struct model_frame *f)
{
    const struct segment_header *newest = &w->rig.log.segment;
    return f->base == newest->base_lsn &&
           newest->position + f->offset + FRAME_HEADER_BYTES + f->body_len > told_end(w);
}

static bool flip(struct sim_world *w, bool in_newest)
{
    char name[SEGMENT_NAME_MAX], path[PATH_MAX];
    if (w->model.durable == 0 || !w->rots || !world_chance(w, 4))
        return true; /* rarely: who rots all the time has nothing to read left */
    uint64_t index = world_random(w, w->model.durable);
    struct model_frame *f = model_frame_at(&w->model, index);
    if (f->base == 0 || f->is_damaged || (!in_newest && f->base >= w->rig.log.segment.base_lsn))
        return true;
    if ((w->faults & FAULT_NEAR) == 0 && has_damage_near(w, index))
        return true;
    if (looks_torn(w, f))
        return true;
    segment_name(f->base, name);
    vfs_path(path, w->rig.dir.log, name);
    if (sim_disk_file(w->disk, path).data == NULL)
        return true; /* trimmed */
    uint64_t at = f->offset + world_random(w, FRAME_HEADER_BYTES + f->body_len);
    world_note_wound(w, f, sim_disk_file(w->disk, path));
    sim_disk_flip(w->disk, path, at, (uint8_t)(1 << world_random(w, 8)));
    log_info("flip", log_text("file", name), log_uint("offset", f->offset), log_uint("at", at - f->offset),
             log_uint("lsn", f->lsn));
    f->is_damaged = w->model.is_damaged = true;
    w->model.forgets |= in_newest;
    log_reader_close(w->reader); /* it may have read it already */
    w->reader = log_reader_open(w->rig.fs, w->rig.dir.log, w->rig.dir.identity.log);
    w->counts.faults++;
    return true;
}

static bool op_index(struct sim_world *w)
{
    if (wal_index_work(w->index) == WAL_INDEX_NONE)
        wal_index_look(w->index);
    for (unsigned i = 0; i < 20 && wal_index_work(w->index) != WAL_INDEX_NONE; i++)
        wal_index_step(w->index);
    return true;
}

/* An index that rots is only an aid that is gone. */
static bool op_flip_index(struct sim_world *w)
{
    char name[SEGMENT_NAME_MAX + 8], path[PATH_MAX];
    if (w->model.durable == 0)
        return true;
    const struct model_frame *f = model_frame_at(&w->model, world_random(w, w->model.durable));
    snprintf(name, sizeof name, "%020llu.idx", (unsigned long long)f->base);
    vfs_path(path, w->rig.dir.log, name);
    size_t len = sim_disk_file(w->disk, path).len;
    if (len > 0)
        sim_disk_flip(w->disk, path, world_random(w, len), (uint8_t)(1 << world_random(w, 8)));
    w->counts.faults += len > 0;
    return true;
}

static bool op_flip(struct sim_world *w)
{
    return flip(w, false);
}

static bool op_rot(struct sim_world *w)
{
    return flip(w, true);
}

const struct sim_operation sim_operations[] = {
    {"append", 30, 0, op_append_plain},
    {"append next", 60, 0, op_append_next},
    {"append again", 15, 0, op_append_again},
    {"append gap", 3, 0, op_append_gap},
    {"append epoch", 3, 0, op_append_epoch},
    {"commit", 60, 0, op_commit},
    {"write", 15, 0, op_write},
    {"mark", 10, 0, op_mark},
    {"prepare", 15, 0, op_prepare},
    {"restart", 1, 0, op_restart},
    {"read", 15, 0, op_read},
    {"verify", 1, 0, op_verify},
    {"hold", 2, 0, op_hold},
    {"trim", 1, 0, op_trim},
    {"tidy", 2, 0, op_tidy},
    {"scrub", 3, 0, op_scrub},
    {"repair", 2, FAULT_FLIP, op_repair},
    {"wrong repair", 1, FAULT_FLIP, op_repair_wrong},
    {"crash", 2, FAULT_CRASH, op_crash},
    {"stop", 3, FAULT_CRASH, op_stop},
    {"fail a sync", 1, FAULT_SYNC, op_fail_sync},
    {"full or room", 2, FAULT_FULL, op_full},
    {"index", 3, 0, op_index},
    {"flip an index", 2, FAULT_FLIP, op_flip_index},
    {"flip", 1, FAULT_FLIP, op_flip},
    {"rot", 1, FAULT_ROT, op_rot},
    {0},
};
