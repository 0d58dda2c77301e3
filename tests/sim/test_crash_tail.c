/* Torn tails: frames that were written and not synced, cut or overwritten at every byte. Every start must
 * succeed, keep each acknowledged frame, hand out nothing that isn't whole, and keep aside what it cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 16 << 10, ACKNOWLEDGED = 3, TORN = 3, NOISE_SEEDS = 1 };
static const char data[] = "/data";

enum harm { HARM_CUT, HARM_ZEROS, HARM_NOISE };

/* A log with acknowledged frames and torn ones behind, as bytes. */
struct image {
    struct buf segment, mark, node;
    char dir[PATH_MAX], segment_path[PATH_MAX], mark_path[PATH_MAX];
    size_t acknowledged_end, ends[TORN]; /* in the segment file */
};

typedef struct slice (*payload_fn)(uint64_t n);

static struct slice text_payload(uint64_t n)
{
    static char text[64];
    snprintf(text, sizeof text, "payload of entry %llu", (unsigned long long)n);
    return slice_of(text, 30);
}

static size_t zero_bytes;
static struct slice zero_payload(uint64_t n)
{
    static const uint8_t zeros[1024];
    return slice_of(zeros, zero_bytes + (size_t)n % 3);
}

/* Bytes that are a valid frame of this segment, but the payload of a client. */
static uint32_t salt;
static struct slice frame_payload(uint64_t n)
{
    static uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header h = {.kind = FRAME_CLOCK, .base_lsn = n, .durable_end = UINT64_C(1) << 40};
    frame_encode(&h, salt, (struct slice){0}, bytes);
    return slice_of(bytes, sizeof bytes);
}

/* The same, and it claims no more than it could: that all before it is durable. */
static uint64_t frame_offset; /* of the next frame while an image is made */
static struct slice liar_payload(uint64_t n)
{
    enum { OUTER = FRAME_HEADER_BYTES + 6 /* array, event, stream, bin */, INNER = 3 };
    static uint64_t offsets[16];
    static uint8_t bytes[INNER * FRAME_HEADER_BYTES];
    if (frame_offset > 0)
        offsets[n] = frame_offset;
    for (unsigned i = 0; i < INNER; i++) {
        struct frame_header h = {.kind = FRAME_CLOCK,
                                 .base_lsn = n,
                                 .durable_end = offsets[n] + OUTER + i * (uint64_t)FRAME_HEADER_BYTES};
        frame_encode(&h, salt, (struct slice){0}, bytes + (size_t)i * FRAME_HEADER_BYTES);
    }
    return slice_of(bytes, sizeof bytes);
}

static void copy_file(struct sim_disk *disk, const char *path, struct buf *out)
{
    struct slice file = sim_disk_file(disk, path);
    buf_append(out, file.data, file.len);
}

static void make_image(struct image *image, payload_fn payload)
{
    static struct wal_rig rig;
    struct sim_disk *disk = sim_disk_open();
    *image = (struct image){0};
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    salt = rig.log.segment.salt;
    for (uint64_t n = 1; n <= ACKNOWLEDGED; n++) {
        frame_offset = rig.log.offset;
        rig_append(&rig, 7, 1, n, payload(n));
        assert_true(rig_commit(&rig));
    }
    image->acknowledged_end = rig.log.offset;
    for (unsigned i = 0; i < TORN; i++) {
        uint64_t n = ACKNOWLEDGED + 1 + i;
        frame_offset = rig.log.offset;
        rig_append(&rig, 7, 1, n, payload(n));
        assert_true(rig_write(&rig));
        image->ends[i] = rig.log.offset;
    }
    snprintf(image->dir, sizeof image->dir, "%s", rig.dir.log);
    vfs_path(image->segment_path, image->dir, "00000000000000000001.seg");
    vfs_path(image->mark_path, image->dir, "mark");
    copy_file(disk, image->segment_path, &image->segment);
    copy_file(disk, image->mark_path, &image->mark);
    copy_file(disk, "/data/node", &image->node);
    frame_offset = 0;
    rig_kill(&rig);
    sim_disk_close(disk);
}

static void free_image(struct image *image)
{
    buf_free(&image->segment);
    buf_free(&image->mark);
    buf_free(&image->node);
}

static void put_file(const struct vfs *fs, const char *dir, const char *name, const void *bytes, size_t len)
{
    assert_int_equal(vfs_replace_file(fs, dir, name, bytes, len), 0);
}

/* A disk that holds the image with the segment's bytes replaced. */
static struct sim_disk *disk_of(const struct image *image, const struct buf *segment)
{
    struct sim_disk *disk = sim_disk_open();
    const struct vfs *fs = sim_disk_vfs(disk);
    fs->mkdir(fs, data, 0);
    fs->mkdir(fs, "/data/log", 0);
    fs->mkdir(fs, image->dir, 0);
    fs->sync_dir(fs, "/");
    fs->sync_dir(fs, data);
    fs->sync_dir(fs, "/data/log");
    put_file(fs, image->dir, "00000000000000000001.seg", segment->data, segment->len);
    put_file(fs, image->dir, "mark", image->mark.data, image->mark.len);
    put_file(fs, data, "node", image->node.data, image->node.len);
    return disk;
}

struct expectation {
    payload_fn payload;
    uint64_t seen;
};

static void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    struct expectation *e = arg;
    assert_int_equal(lsn, e->seen + 1);
    assert_true(slice_equal(entry->value, e->payload(lsn)));
    e->seen = lsn;
}

struct kept {
    const struct vfs *fs;
    unsigned files;
    struct buf bytes;
};

static bool note_kept(void *arg, const char *name)
{
    struct kept *kept = arg;
    char path[PATH_MAX];
    uint8_t chunk[SEGMENT];
    vfs_path(path, "/data/quarantine", name);
    int fd = kept->fs->open(kept->fs, path, 0, 0);
    ssize_t len = vfs_read_full(kept->fs, fd, chunk, sizeof chunk, 0);
    kept->fs->close(kept->fs, fd);
    kept->files++;
    buf_append(&kept->bytes, chunk, (size_t)len);
    return true;
}

static size_t extent_of(const struct buf *segment)
{
    size_t extent = segment->len;
    while (extent > 0 && segment->data[extent - 1] == 0)
        extent--;
    return extent;
}

/* What was cut lies in the quarantine, byte for byte. */
static void check_kept(const struct image *image, const struct buf *segment, const struct vfs *fs,
                       unsigned whole)
{
    size_t end = whole > 0 ? image->ends[whole - 1] : image->acknowledged_end, extent = extent_of(segment);
    struct kept kept = {.fs = fs};
    fs->list(fs, "/data/quarantine", note_kept, &kept);
    if (extent > end) {
        assert_int_equal(kept.files, 1);
        assert_true(slice_equal(buf_slice(&kept.bytes), slice_of(segment->data + end, extent - end)));
    } else {
        assert_int_equal(kept.files, 0);
    }
    buf_free(&kept.bytes);
}

/* Starts on the harmed segment; `whole` torn frames are untouched by the harm. */
static void check_start(const struct image *image, const struct buf *segment, payload_fn payload,
                        unsigned whole)
{
    static struct wal_rig rig;
    struct sim_disk *disk = disk_of(image, segment);
    const struct vfs *fs = sim_disk_vfs(disk);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    struct expectation e = {.payload = payload};
    assert_int_equal(rig_read_all(fs, data, rig.log.durable.end, check_entry, &e), SH_OK);
    assert_int_equal(e.seen, rig.log.durable.lsn);
    assert_int_equal(e.seen, ACKNOWLEDGED + whole);

    check_kept(image, segment, fs, whole);

    /* It goes on, and nothing of the old tail comes back after the next crash. */
    rig_append(&rig, 7, 1, ACKNOWLEDGED + whole + 1, payload(ACKNOWLEDGED + whole + 1));
    assert_true(rig_commit(&rig));
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    e.seen = 0;
    assert_int_equal(rig_read_all(fs, data, rig.log.durable.end, check_entry, &e), SH_OK);
    assert_int_equal(e.seen, ACKNOWLEDGED + whole + 1);
    check_kept(image, segment, fs, whole);
    struct log_verify_options options = {0};
    struct log_verify_report report;
    assert_int_equal(log_verify(fs, data, &options, &report), SH_OK);
    rig_kill(&rig);
    sim_disk_close(disk);
}

/* Harms everything from `at` on (up to `to` for zeros and noise). */
static void harm_bytes(struct buf *segment, enum harm harm, size_t at, size_t to)
{
    if (harm == HARM_CUT) {
        segment->len = at;
        return;
    }
    for (size_t i = at; i < to; i++)
        segment->data[i] = harm == HARM_ZEROS ? 0 : (uint8_t)(segment->data[i] ^ (1 + random() % 255));
}

/* How many torn frames still have all their bytes; trailing zeros that are harmed with zeros are no harm. */
static unsigned whole_frames(const struct image *image, const struct buf *segment)
{
    unsigned whole = 0;
    while (whole < TORN && image->ends[whole] <= segment->len &&
           memcmp(segment->data, image->segment.data, image->ends[whole]) == 0)
        whole++;
    return whole;
}

/* With AddressSanitizer a start takes some fifty times as long, nearly all of it in the kernel: there a
 * sample is taken. */
#ifdef __SANITIZE_ADDRESS__
enum { BYTES_A_STEP = 12 };
#else
enum { BYTES_A_STEP = 1 };
#endif

static size_t step(void)
{
    return 1 + (size_t)random() % (2 * BYTES_A_STEP - 1);
}

static void harm_every_byte(enum harm harm, payload_fn payload, bool single_bytes)
{
    struct image image;
    make_image(&image, payload);
    size_t end = image.ends[TORN - 1];
    for (size_t at = image.acknowledged_end; at <= end; at += step()) {
        struct buf segment = {0};
        buf_append(&segment, image.segment.data, image.segment.len);
        harm_bytes(&segment, harm, at, single_bytes && at < end ? at + 1 : end);
        check_start(&image, &segment, payload, whole_frames(&image, &segment));
        buf_free(&segment);
    }
    free_image(&image);
}

static void test_tail_cut_at_every_byte(void **state)
{
    (void)state;
    harm_every_byte(HARM_CUT, text_payload, false);
}

static void test_tail_zeroed_from_every_byte_on(void **state)
{
    (void)state;
    harm_every_byte(HARM_ZEROS, text_payload, false);
}

static void test_tail_garbled_from_every_byte_on(void **state)
{
    (void)state;
    harm_every_byte(HARM_NOISE, text_payload, false);
}

/* The frames behind the bad byte are whole: a group is one unordered write. They are cut too. */
static void test_every_single_byte_zeroed_or_garbled(void **state)
{
    (void)state;
    harm_every_byte(HARM_ZEROS, text_payload, true);
    harm_every_byte(HARM_NOISE, text_payload, true);
}

static void test_payloads_of_zeros_of_every_length(void **state)
{
    (void)state;
    for (zero_bytes = 0; zero_bytes <= 40; zero_bytes++)
        harm_every_byte(HARM_CUT, zero_payload, false);
    static const size_t larger[] = {255, 256, 511, 512, 600};
    for (size_t i = 0; i < sizeof larger / sizeof larger[0]; i++) {
        zero_bytes = larger[i];
        harm_every_byte(HARM_ZEROS, zero_payload, false);
    }
}

static void test_payloads_that_look_like_frames_prove_nothing(void **state)
{
    (void)state;
    harm_every_byte(HARM_CUT, frame_payload, false);
    harm_every_byte(HARM_NOISE, frame_payload, true);
}

static struct slice honest_then_liar_payload(uint64_t n)
{
    return n == ACKNOWLEDGED + 1 ? text_payload(n) : liar_payload(n);
}

/* The first torn frame is damaged anywhere, its header too: the whole ones behind are looked at, not into. */
static void test_lies_in_whole_frames_behind_a_torn_one_prove_nothing(void **state)
{
    (void)state;
    struct image image;
    make_image(&image, honest_then_liar_payload);
    for (size_t at = image.acknowledged_end; at < image.ends[0]; at += step()) {
        struct buf segment = {0};
        buf_append(&segment, image.segment.data, image.segment.len);
        harm_bytes(&segment, HARM_NOISE, at, at + 1);
        check_start(&image, &segment, honest_then_liar_payload, 0);
        buf_free(&segment);
    }
    free_image(&image);
}

/* What lies in a frame's body proves nothing, whether that frame is whole or not, as long as its header is.
 */
static void test_payloads_that_lie_about_what_is_durable_prove_nothing(void **state)
{
    (void)state;
    struct image image;
    harm_every_byte(HARM_CUT, liar_payload, false);
    make_image(&image, liar_payload);
    size_t start = image.acknowledged_end;
    for (unsigned i = 0; i < TORN; start = image.ends[i++]) {
        for (size_t at = start + FRAME_HEADER_BYTES; at < image.ends[i]; at += step()) {
            struct buf segment = {0};
            buf_append(&segment, image.segment.data, image.segment.len);
            harm_bytes(&segment, HARM_NOISE, at, at + 1);
            if (at % 2 == 0) /* another frame is torn as well */
                segment.data[image.ends[TORN - 1] - 1] ^= 1;
            check_start(&image, &segment, liar_payload, whole_frames(&image, &segment));
            buf_free(&segment);
        }
    }
    free_image(&image);
}

int main(void)
{
    srandom(4711);
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tail_cut_at_every_byte),
        cmocka_unit_test(test_tail_zeroed_from_every_byte_on),
        cmocka_unit_test(test_tail_garbled_from_every_byte_on),
        cmocka_unit_test(test_every_single_byte_zeroed_or_garbled),
        cmocka_unit_test(test_payloads_of_zeros_of_every_length),
        cmocka_unit_test(test_payloads_that_look_like_frames_prove_nothing),
        cmocka_unit_test(test_lies_in_whole_frames_behind_a_torn_one_prove_nothing),
        cmocka_unit_test(test_payloads_that_lie_about_what_is_durable_prove_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
