/* Crash images: a short life with appends, marks, rolls, seals and a stop is recorded call by call; at each
 * call every disk that a loss of power could leave there is built (each choice of sectors, of their versions,
 * of sizes and names that aren't synced; a sample where there are too many), and a start on it must keep the
 * model. Some of these starts are recorded and cut short themselves, with what they keep aside. */
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

enum { SEGMENT = 8 << 10, LIVES = 2, LIVES_LONG = 16 };
static const char data[] = "/data";

static struct wal_rig rig;
static struct sim_disk *disk;
static struct model model;
static struct sim_images images;
static uint64_t at_call;
static unsigned life;

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
        stopped = !live(groups);
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

static void test_each_image_of_a_life_with_rolls_recovers(void **state)
{
    (void)state;
    const char *is_long = getenv("SHANGHAI_LONG");
    unsigned lives = is_long != NULL && strcmp(is_long, "1") == 0 ? LIVES_LONG : LIVES;
    images = sim_images_open();
    for (life = 0; life < lives; life++)
        images_of_a_life(40);
    assert_true(images.count > 2000);
}

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_image_of_a_life_with_rolls_recovers),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    printf("count: crash images %llu\n", (unsigned long long)images.count);
    return failed;
}
