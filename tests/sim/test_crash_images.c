/* Crash images: a short life with appends, marks, rolls, seals and a stop is recorded call by call; at each
 * call every disk that a loss of power could leave there is built (each choice of sectors, of their versions,
 * of sizes and names that aren't synced; a sample where there are too many), and a start on it must keep the
 * model. Some of these starts are recorded and cut short themselves, with what they keep aside.
 *
 * Another life has holds, trims, indexes, the scrubber's register of damage, a repair, and a recovery from
 * damage that goes on in a new segment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "sim_images.h"
#include "sim_model.h"
#include "upkeep_rig.h"
#include "wal_index.h"
#include "wal_repair.h"

enum { SEGMENT = 8 << 10, LIVES = 2, LIVES_LONG = 16 };
static const char data[] = "/data";

static struct wal_rig rig;
static struct sim_disk *disk;
static struct model model;
static struct sim_images images;
static uint64_t at_call;
static unsigned life;
static struct upkeep_rig upkeep;
static bool has_upkeep;
static unsigned repairs;
static uint64_t held; /* no segment from this LSN on may go */

_Noreturn void model_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(" (life %u, at call %llu, image %llu)\n", life, (unsigned long long)at_call,
           (unsigned long long)images.count);
    fflush(stdout);
    abort();
}

/* ---------------------------------------------------------------- a life */

static bool open_rig(struct sim_disk *on)
{
    if (rig_open(&rig, sim_disk_vfs(on), data, SEGMENT) != EXIT_DONE)
        return false;
    model.most_body = frame_body_most(SEGMENT);
    model_durable(&model, &rig);
    return true;
}

static void append(uint64_t producer, size_t bytes, uint8_t fill)
{
    static uint8_t payload[SEGMENT];
    struct buf body = {0};
    msgpack_packer pk;
    memset(payload, fill, bytes);
    struct entry entry = {.kind = ENTRY_EVENT, .stream = slice_str(""), .value = slice_of(payload, bytes)};
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 1);
    entry_pack(&pk, &entry);
    struct model_request request = {.number = rig.requests + 1, .producer = producer, .epoch = 1, .count = 1};
    request.sequence = model.producers[producer].last + 1;
    model_append(&model, &request, buf_slice(&body));
    rig_append_body(&rig, producer, 1, request.sequence, buf_slice(&body));
    buf_free(&body);
}

/* A group of frames of several producers. */
static bool commit_group(unsigned n)
{
    for (unsigned i = 0; i < 1 + (n + life) % 4; i++)
        append(1 + i, 30 + (n * 97 + i * 331 + life * 53) % 1400, n % 4 == 0 ? 0 : (uint8_t)(n + i));
    bool good = rig_commit(&rig);
    model_settle(&model, &rig);
    model_durable(&model, &rig);
    return good;
}

/* False: the disk has stopped. */
static bool live(unsigned groups)
{
    if (!open_rig(disk) || !rig_prepare(&rig))
        return false;
    for (unsigned n = 1; n <= groups; n++) {
        if (!commit_group(n))
            return false;
        if (n % 5 == 0 && wal_log_write_mark(&rig.log) != 0)
            return false;
    }
    return wal_log_write_mark(&rig.log) == 0;
}

/* ---------------------------------------------------------------- a life with upkeep */

static bool open_upkeep(void)
{
    memset(&upkeep, 0, sizeof upkeep);
    upkeep.settings = (struct wal_upkeep_settings){
        .member_hold_max = UINT64_MAX / 2, .scrub_rate = 64 << 20, .scrub_interval_ns = NS_PER_S};
    upkeep.now = (struct wal_upkeep_time){1700000000 * NS_PER_S, NS_PER_S};
    return upkeep_rig_open(&upkeep, &rig) == EXIT_DONE;
}

static void close_upkeep(void)
{
    if (upkeep.rig != NULL)
        upkeep_rig_close(&upkeep);
    upkeep.rig = NULL;
}

static bool hold(uint64_t lsn)
{
    held = held < UINT64_MAX ? lsn : held; /* from now on it may be so */
    bool good = upkeep_rig_hold(&upkeep, WAL_HOLD_MEMBER, "m1", lsn, 0) == SH_OK;
    held = good ? lsn : held;
    return good;
}

static bool trim(void)
{
    uint64_t most = rig.log.durable.lsn + 1;
    most = held < most ? held : most;
    model.may_trim = most > model.may_trim ? most : model.may_trim;
    bool good = upkeep_rig_trim(&upkeep, rig.log.durable.lsn + 1, false, NULL) == SH_OK;
    if (upkeep.trims > 0 && upkeep.trimmed_lsn > model.trimmed)
        model.trimmed = upkeep.trimmed_lsn;
    return good && upkeep.fatal == 0;
}

static void make_indexes(void)
{
    struct wal_index *index = wal_index_open(rig.fs, rig.dir.log, rig.dir.identity.log);
    wal_index_look(index);
    for (unsigned i = 0; i < 100 && wal_index_work(index) != WAL_INDEX_NONE; i++)
        wal_index_step(index);
    wal_index_close(index);
}

static const char *path_of(uint64_t base)
{
    static char path[PATH_MAX];
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, rig.dir.log, name);
    return path;
}

/* The newest durable frame in a sealed segment, or of all. */
static struct model_frame *newest_frame(bool sealed)
{
    model_compare(&model, &rig, false); /* it notes where they are */
    size_t i = model.durable;
    while (i > 0 && sealed && model_frame_at(&model, i - 1)->base >= rig.log.segment.base_lsn)
        i--;
    return i > 0 ? model_frame_at(&model, i - 1) : NULL;
}

static void damage(struct model_frame *f)
{
    sim_disk_flip(disk, path_of(f->base), f->offset + 20, 1);
    f->is_damaged = model.is_damaged = true;
}

static bool scrub(void)
{
    upkeep.now.real_ns += 2 * NS_PER_S;
    for (unsigned i = 0; i < 100 && upkeep.damages == 0; i++) {
        int64_t due_ns = wal_upkeep_scrub(&upkeep.upkeep, upkeep.now);
        if (due_ns > upkeep.now.mono_ns && due_ns < INT64_MAX)
            upkeep.now.mono_ns = due_ns;
    }
    return upkeep.fatal == 0;
}

/* Damage in a sealed segment is found, entered, and repaired. */
static bool repair_a_frame(void)
{
    struct model_frame *f = newest_frame(true);
    struct buf bytes = {0};
    struct msg_repair_reply reply;
    struct wal_refusal refusal;
    struct wal_repair repair = {.fs = rig.fs,
                                .dir = rig.dir.log,
                                .quarantine = rig.dir.quarantine,
                                .log = rig.dir.identity.log,
                                .damage = rig.dir.damage};
    if (f == NULL)
        return true;
    buf_append(&bytes, sim_disk_file(disk, path_of(f->base)).data + f->offset,
               FRAME_HEADER_BYTES + f->body_len);
    damage(f);
    bool good = scrub();
    f->is_unsure = good;
    struct msg_repair request = {.segment = f->base, .offset = f->offset, .bytes = buf_slice(&bytes)};
    good = good && wal_repair(&repair, &request, rig.log.durable.end, &reply, &refusal) == SH_OK;
    buf_free(&bytes);
    repairs += good;
    f->is_damaged = f->is_damaged && !good;
    f->is_unsure = f->is_unsure && !good;
    return good;
}

/* The newest frame is damaged below the mark: the next start goes on in a new segment. */
static bool begin_anew(void)
{
    if (wal_log_write_mark(&rig.log) != 0)
        return false;
    damage(newest_frame(false));
    model.forgets = true;
    close_upkeep();
    model_crashed(&model, &rig);
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_NOTHING, 1);
    sim_disk_stop_after(disk, at_call > sim_disk_calls(disk) ? at_call - sim_disk_calls(disk) : 0);
    if (!open_rig(disk))
        return false;
    model_compare(&model, &rig, true);
    return open_upkeep() && rig_prepare(&rig);
}

static bool upkeep_after(unsigned n)
{
    switch (n) {
    case 6:
        return hold(1);
    case 12:
        return hold(rig.log.segment.base_lsn) && trim();
    case 14:
        make_indexes();
        return true;
    case 16:
        return repair_a_frame();
    case 18:
        return begin_anew();
    default:
        return true;
    }
}

static bool live_with_upkeep(unsigned groups)
{
    if (!open_rig(disk) || !open_upkeep() || !rig_prepare(&rig))
        return false;
    for (unsigned n = 1; n <= groups; n++)
        if (!commit_group(n) || !upkeep_after(n))
            return false;
    model_check(model.trimmed > 1 && repairs > 0 && model.forgets, "the life was too quiet");
    return true;
}

/* ---------------------------------------------------------------- images */

static void copy_buf(struct buf *b)
{
    struct buf copy = {0};
    buf_append(&copy, b->data, b->len);
    *b = copy;
}

static void copy_model(struct model *m)
{
    copy_buf(&m->bodies);
    copy_buf(&m->frames);
    copy_buf(&m->requests);
    copy_buf(&m->places);
}

/* A start on it keeps the model, and so does the one after a further group and a loss of power. */
static void check_image(struct sim_disk *image)
{
    struct model before = model;
    copy_model(&model);
    model_check(open_rig(image), "walsvc does not start");
    model_compare(&model, &rig, true);
    model_check(commit_group(2), "nothing can be appended");
    if (has_upkeep) {
        model_check(open_upkeep(), "the janitor does not start");
        model_check(trim() || upkeep.fatal == 0, "a trim fails");
        close_upkeep();
    }
    model_crashed(&model, &rig);
    rig_kill(&rig);
    sim_disk_crash(image, SIM_LOSE_ALL, 1);
    model_check(open_rig(image), "walsvc does not start again");
    model_compare(&model, &rig, true);
    rig_kill(&rig);
    model_free(&model);
    model = before;
}

/* The start itself is cut short at one of its calls. */
static void cut_start_short(struct sim_disk *image)
{
    sim_disk_record(image, true);
    sim_disk_stop_after(image, sim_images_random(&images, 12));
    if (rig_open(&rig, sim_disk_vfs(image), data, SEGMENT) == EXIT_DONE)
        rig_kill(&rig);
    sim_images_each(&images, image, 4, check_image);
}

/* The images at each call of a life. */
static void images_of_a_life(unsigned groups)
{
    bool stopped = true;
    for (at_call = 0; stopped; at_call++) {
        disk = sim_disk_open();
        model = (struct model){.next_lsn = 1};
        sim_disk_record(disk, true);
        sim_disk_stop_after(disk, at_call);
        held = UINT64_MAX;
        stopped = has_upkeep ? !live_with_upkeep(groups) : !live(groups);
        close_upkeep();
        if (rig.opened) {
            model_crashed(&model, &rig);
            rig_kill(&rig);
        }
        sim_images_each(&images, disk, images.samples, check_image);
        sim_images_each(&images, disk, images.samples / 8, cut_start_short);
        sim_disk_close(disk);
        model_free(&model);
    }
    assert_true(at_call > groups);
}

static unsigned lives(void)
{
    const char *is_long = getenv("SHANGHAI_LONG");
    return is_long != NULL && strcmp(is_long, "1") == 0 ? LIVES_LONG : LIVES;
}

static void test_each_image_of_a_life_with_rolls_recovers(void **state)
{
    (void)state;
    for (life = 0; life < lives(); life++)
        images_of_a_life(40);
    assert_true(images.count > 1000);
}

static void test_each_image_of_a_life_with_upkeep_recovers(void **state)
{
    (void)state;
    uint64_t before = images.count;
    has_upkeep = true;
    for (life = 0; life < lives() / 2; life++)
        images_of_a_life(22);
    has_upkeep = false;
    printf("count: crash images with upkeep %llu\n", (unsigned long long)(images.count - before));
    assert_true(images.count - before > 1000);
}

int main(void)
{
    images = sim_images_open();
    log_set_level((enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_image_of_a_life_with_rolls_recovers),
        cmocka_unit_test(test_each_image_of_a_life_with_upkeep_recovers),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("count: crash images %llu\n", (unsigned long long)images.count);
    return failed;
}
