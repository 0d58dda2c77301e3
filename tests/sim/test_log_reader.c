/* Reading a log beside its writer: across segments, from any LSN, up to the durable end, past damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 10, BATCH = 5 };
static const char data[] = "/data";

static struct sim_disk *disk;
static struct wal_rig rig;
static struct log_reader *reader;

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    reader = log_reader_open(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_reader_close(reader);
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

static struct slice payload(void)
{
    static uint8_t bytes[60];
    return slice_of(bytes, sizeof bytes);
}

/* Frames of BATCH entries, each in a group of its own. */
static void append_frames(uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        rig_append_many(&rig, 0, 0, payload(), BATCH);
        assert_true(rig_commit(&rig));
    }
}

struct result {
    enum sh_error error;
    struct log_read read;
    uint64_t first, last, frames;
};

static struct result read_from(uint64_t from, uint64_t durable_end, size_t max_bytes, uint64_t max_entries)
{
    struct result r = {
        .read = {
            .from = from, .durable_end = durable_end, .max_bytes = max_bytes, .max_entries = max_entries}};
    struct buf out = {0};
    r.error = log_reader_read(reader, &r.read, &out);
    for (size_t at = 0, size; at < out.len; at += size) {
        struct frame_header h;
        assert_int_equal(
            frame_verify(slice_of(out.data + at, out.len - at), r.read.salt, FRAME_BYTES_MAX, &h, &size),
            SH_OK);
        assert_int_equal(h.kind, FRAME_DATA);
        if (r.frames++ == 0)
            r.first = h.base_lsn;
        else
            assert_int_equal(h.base_lsn, r.last + 1);
        r.last = h.base_lsn + h.count - 1;
    }
    if (r.frames > 0)
        assert_int_equal(r.read.next, r.last + 1);
    buf_free(&out);
    return r;
}

static uint64_t end(void)
{
    return rig.log.durable.end;
}

static uint8_t *segment_bytes(uint64_t base, char path[PATH_MAX])
{
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, rig.dir.log, name);
    struct slice file = sim_disk_file(disk, path);
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

struct found {
    unsigned count;
    uint64_t offset, first_lsn, next_lsn;
    char file[PATH_MAX];
};

static void note_damage(void *arg, const struct log_damage *damage)
{
    struct found *found = arg;
    found->count++;
    found->offset = damage->offset;
    found->first_lsn = damage->first_lsn;
    found->next_lsn = damage->next_lsn;
    snprintf(found->file, sizeof found->file, "%s", damage->file);
}

static enum sh_error verify(struct found *found, struct log_verify_report *report)
{
    *found = (struct found){0};
    struct log_verify_options options = {.on_damage = note_damage, .arg = found};
    return log_verify(sim_disk_vfs(disk), data, &options, report);
}

/* ---------------------------------------------------------------- */

static void test_an_empty_log(void **state)
{
    (void)state;
    struct result r = read_from(1, end(), 1000, 1000);
    assert_int_equal(r.error, SH_OK);
    assert_int_equal(r.frames, 0);
    assert_int_equal(r.read.next, 1);
    assert_int_equal(read_from(2, end(), 1000, 1000).error, SH_NOT_FOUND);
}

static void test_everything_in_order_over_segments(void **state)
{
    (void)state;
    append_frames(500);
    uint64_t next = 1, calls = 0;
    for (struct result r;; calls++) {
        r = read_from(next, end(), 10000, 1000);
        assert_int_equal(r.error, SH_OK);
        if (r.frames == 0)
            break;
        assert_int_equal(r.first, next);
        next = r.read.next;
    }
    assert_int_equal(next, 500 * BATCH + 1);
    assert_true(calls > 20 && rig.log.segment.base_lsn > 1);
}

static void test_reading_starts_at_any_lsn(void **state)
{
    (void)state;
    append_frames(400);
    for (uint64_t i = 0; i < 400 * BATCH; i++) {
        uint64_t from = 1 + i * 7919 % (400 * BATCH); /* hither and thither */
        struct result r = read_from(from, end(), 1, 1);
        assert_int_equal(r.error, SH_OK);
        assert_int_equal(r.frames, 1);
        assert_true(r.first <= from && from <= r.last);
    }
}

static void test_limits_of_a_read(void **state)
{
    (void)state;
    append_frames(20);
    assert_int_equal(read_from(1, end(), 0, 0).frames, 1); /* at least one */
    assert_int_equal(read_from(1, end(), 1 << 20, 1).frames, 1);
    assert_int_equal(read_from(1, end(), 1 << 20, BATCH).frames, 1);
    assert_int_equal(read_from(1, end(), 1 << 20, BATCH + 1).frames, 2);
    struct result two = read_from(1, end(), 2 * (FRAME_HEADER_BYTES + 1 + BATCH * 65), 1000);
    assert_int_equal(two.frames, 2);
    assert_int_equal(read_from(two.read.next, end(), 1 << 20, 1000).frames, 18);
}

static void test_nothing_beyond_the_durable_end(void **state)
{
    (void)state;
    append_frames(3);
    uint64_t durable_end = end();
    append_frames(3);
    rig_append(&rig, 0, 1, 0, payload());
    assert_true(rig_write(&rig)); /* written, not synced */
    assert_int_equal(read_from(1, durable_end, 1 << 20, 1000).last, 3 * BATCH);
    assert_int_equal(read_from(3 * BATCH + 1, durable_end, 1 << 20, 1000).frames, 0);
    assert_int_equal(read_from(3 * BATCH + 2, durable_end, 1 << 20, 1000).error, SH_NOT_FOUND);
    struct result r = read_from(3 * BATCH + 1, end(), 1 << 20, 1000);
    assert_int_equal(r.last, 6 * BATCH);
    assert_int_equal(read_from(6 * BATCH + 1, end(), 1 << 20, 1000).frames, 0);
}

static void test_reading_while_writing_over_rolls(void **state)
{
    (void)state;
    uint64_t next = 1;
    for (unsigned turn = 0; turn < 600; turn++) {
        append_frames(1);
        struct result r = read_from(next, end(), 1 << 20, 1000);
        assert_int_equal(r.error, SH_OK);
        assert_int_equal(r.frames, 1);
        next = r.read.next;
    }
    assert_true(rig.log.segment.base_lsn > 1);
}

/* Starts over with segments of 4 MiB. */
static void use_large_segments(void)
{
    rig_kill(&rig);
    log_reader_close(reader);
    sim_disk_close(disk);
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, 4 << 20), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    reader = log_reader_open(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log);
}

static void test_a_frame_larger_than_the_window(void **state)
{
    (void)state;
    use_large_segments();
    static uint8_t large[900 << 10];
    for (unsigned i = 0; i < 3; i++) {
        append_frames(10);
        rig_append(&rig, 0, 1, 0, slice_of(large, sizeof large));
        assert_true(rig_commit(&rig));
    }
    struct result r = read_from(1, end(), 8 << 20, 1000);
    assert_int_equal(r.frames, 33);
    assert_int_equal(read_from(10 * BATCH + 1, end(), 1, 1).frames, 1);
}

/* The places that the reader remembers lie a MiB apart, in several segments. */
static void test_reading_hither_and_thither_in_large_segments(void **state)
{
    (void)state;
    use_large_segments();
    static uint8_t large[50 << 10];
    enum { FRAMES = 300 };
    for (unsigned i = 0; i < FRAMES; i++) {
        rig_append(&rig, 0, 1, 0, slice_of(large, sizeof large));
        assert_true(rig_commit(&rig));
    }
    assert_true(rig.log.segment.base_lsn > FRAMES / 2);
    for (unsigned i = 0; i < 4 * FRAMES; i++) {
        uint64_t from = 1 + (uint64_t)i * 7919 % FRAMES;
        struct result r = read_from(from, end(), 1, 1);
        assert_int_equal(r.error, SH_OK);
        assert_int_equal(r.first, from);
    }
    for (uint64_t from = FRAMES; from > 0; from--)
        assert_int_equal(read_from(from, end(), 1, 1).first, from);
}

static void append_clock(void)
{
    uint64_t hlc;
    assert_int_equal(wal_core_clock(rig.core, slice_str("clock"), rig.now_ns, &hlc), SH_OK);
    assert_true(rig_commit(&rig));
}

/* "c" for each clock frame, "d" for each data frame; *read is changed. */
static void read_kinds(struct log_read *read, char *kinds)
{
    struct buf out = {0};
    struct frame_header h;
    read->durable_end = end();
    read->max_bytes = SIZE_MAX;
    read->max_entries = UINT64_MAX;
    assert_int_equal(log_reader_read(reader, read, &out), SH_OK);
    for (size_t at = 0, size; at < out.len; at += size) {
        assert_int_equal(
            frame_verify(slice_of(out.data + at, out.len - at), read->salt, FRAME_BYTES_MAX, &h, &size),
            SH_OK);
        *kinds++ = h.kind == FRAME_CLOCK ? 'c' : 'd';
    }
    *kinds = 0;
    buf_free(&out);
}

static void test_clock_frames_are_given_to_who_wants_them(void **state)
{
    (void)state;
    char kinds[20];
    append_clock();
    append_frames(2);
    append_clock();
    append_frames(1);
    struct log_read read = {.from = 1};
    read_kinds(&read, kinds);
    assert_string_equal(kinds, "ddd");
    assert_int_equal(read.end, end());
    read = (struct log_read){.from = 1, .clocks = true};
    read_kinds(&read, kinds);
    assert_string_equal(kinds, "cddcd");
    assert_int_equal(read.segment, 1);
    read = (struct log_read){.from = 1 + 2 * BATCH, .clocks = true};
    read_kinds(&read, kinds);
    assert_string_equal(kinds, "cd");
    uint64_t next = 1 + 3 * BATCH;
    append_clock();
    append_clock();
    read = (struct log_read){.from = next, .clocks = true};
    read_kinds(&read, kinds);
    assert_string_equal(kinds, "cc");
    assert_int_equal(read.next, next);
    assert_int_equal(read.end, end());
    append_clock();
    read = (struct log_read){.from = next, .clocks = true}; /* it goes on where it stands */
    read_kinds(&read, kinds);
    assert_string_equal(kinds, "c");
    read = (struct log_read){.from = next, .clocks = true, .durable_lsn = next - 1};
    read_kinds(&read, kinds);
    assert_string_equal(kinds, "");
    assert_int_equal(read.end, 0);
}

static void test_trimmed_is_told_apart_from_not_found(void **state)
{
    (void)state;
    append_frames(500);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(sim_disk_vfs(disk), rig.dir.log, &bases, &count), 0);
    assert_true(count >= 3);
    char path[PATH_MAX];
    segment_bytes(bases[0], path);
    assert_int_equal(read_from(1, end(), 1, 1).error, SH_OK); /* the reader has it open */
    sim_disk_vfs(disk)->unlink(sim_disk_vfs(disk), path);
    struct log_reader *fresh = log_reader_open(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log);
    log_reader_close(reader);
    reader = fresh;
    struct result r = read_from(1, end(), 1, 1);
    assert_int_equal(r.error, SH_TRIMMED);
    assert_int_equal(r.read.first_lsn, bases[1]);
    assert_int_equal(read_from(bases[1], end(), 1, 1).error, SH_OK);
    assert_int_equal(read_from(500 * BATCH + 2, end(), 1, 1).error, SH_NOT_FOUND);
    free(bases);
}

/* Flips one byte in each frame in turn: that frame is corrupt, by file and offset; all others can be read. */
static void test_damage_costs_only_the_damaged_frame(void **state)
{
    (void)state;
    append_frames(300);
    char path[PATH_MAX];
    uint64_t base = rig.log.segment.base_lsn;
    assert_true(base > 1);
    size_t frame = FRAME_HEADER_BYTES + 1 + BATCH * 65;
    for (uint64_t n = 0; n < 50; n++) {
        uint8_t *bytes = segment_bytes(1, path);
        struct result good = read_from(1 + n * BATCH, end(), 1, 1);
        assert_int_equal(good.error, SH_OK);
        /* The frame's place: behind the header and the checkpoint. */
        struct frame_header checkpoint;
        assert_int_equal(frame_header_decode(slice_of(bytes + SEGMENT_HEADER_BYTES, FRAME_HEADER_BYTES), 1000,
                                             &checkpoint),
                         SH_OK);
        size_t at = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + checkpoint.body_bytes + n * frame;
        bytes[at + n * 7 % frame] ^= 0x10;
        struct log_reader *fresh = log_reader_open(sim_disk_vfs(disk), rig.dir.log, rig.dir.identity.log);
        log_reader_close(reader);
        reader = fresh;
        struct result bad = read_from(1 + n * BATCH, end(), 1, 1);
        assert_int_equal(bad.error, SH_CORRUPT);
        assert_int_equal(bad.read.bad_offset, at);
        assert_string_equal(bad.read.bad_file, "00000000000000000001.seg");
        assert_int_equal(bad.read.good_lsn, 1 + (n + 1) * BATCH);
        assert_int_equal(read_from(bad.read.good_lsn, end(), 1, 1).error, SH_OK);
        assert_int_equal(read_from(base, end(), 1, 1).error, SH_OK);
        if (n > 0) {
            struct result before = read_from(1, end(), 1 << 20, 100000);
            assert_int_equal(before.error, SH_OK);
            assert_int_equal(before.last, n * BATCH);
            assert_int_equal(read_from(before.read.next, end(), 1, 1).error, SH_CORRUPT);
        }
        bytes[at + n * 7 % frame] ^= 0x10;
    }
}

/* A payload that is a frame of this segment, made for the LSN that its own frame gets. When that one is
 * damaged, what lies inside it is not taken for the log. */
static void test_a_frame_in_a_damaged_payload_is_not_read(void **state)
{
    (void)state;
    append_frames(1);
    uint8_t forged[FRAME_HEADER_BYTES + 6] = {0};
    struct slice body = slice_of(forged + FRAME_HEADER_BYTES, 6);
    memcpy(forged + FRAME_HEADER_BYTES, "\x91\x93\x00\xa0\xc4\x00", body.len);
    struct frame_header h = {.body_bytes = (uint32_t)body.len, .base_lsn = BATCH + 1, .count = 1};
    frame_encode(&h, rig.log.segment.salt, body, forged);
    uint64_t at = rig.log.offset;
    rig_append(&rig, 0, 1, 0, slice_of(forged, sizeof forged));
    assert_true(rig_commit(&rig));
    append_frames(3);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    char path[PATH_MAX];
    segment_bytes(1, path)[at + FRAME_HEADER_BYTES] ^= 1;
    struct result r = read_from(BATCH + 1, end(), 1 << 20, 1000);
    assert_int_equal(r.error, SH_CORRUPT);
    assert_int_equal(r.read.bad_offset, at);
    assert_int_equal(r.read.good_lsn, BATCH + 2);
    assert_int_equal(read_from(BATCH + 2, end(), 1 << 20, 1000).frames, 3);
    struct found found;
    struct log_verify_report report;
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_int_equal(found.count, 1);
    assert_int_equal(found.next_lsn, BATCH + 2);
    assert_int_equal(report.entries, 4 * BATCH);
}

/* A frame with a right checksum in the place of another: the one behind it doesn't continue it. */
static void test_an_exchanged_frame_breaks_the_chain(void **state)
{
    (void)state;
    append_frames(10);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    char path[PATH_MAX];
    uint8_t *bytes = segment_bytes(1, path);
    struct frame_header h;
    size_t size, at = SEGMENT_HEADER_BYTES;
    do {
        assert_int_equal(
            frame_verify(slice_of(bytes + at, SEGMENT), rig.log.segment.salt, SEGMENT, &h, &size), SH_OK);
        at += size;
    } while (h.base_lsn + h.count <= 2 * BATCH);
    uint8_t *frame = bytes + at - size;
    frame[size - 1] ^= 1;
    frame_encode(&h, rig.log.segment.salt, slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes), frame);
    struct result r = read_from(1, end(), 1 << 20, 1000);
    assert_int_equal(r.last, h.base_lsn + h.count - 1);
    r = read_from(r.read.next, end(), 1 << 20, 1000);
    assert_int_equal(r.error, SH_CORRUPT);
    assert_int_equal(r.read.bad_offset, at);
    struct found found;
    struct log_verify_report report;
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_int_equal(found.offset, at);
}

/* The last one has none behind it, but the mark knows it. */
static void test_verify_sees_an_exchanged_last_frame(void **state)
{
    (void)state;
    append_frames(10);
    uint64_t at = rig.log.offset;
    append_frames(1);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    char path[PATH_MAX];
    uint8_t *frame = segment_bytes(1, path) + at;
    struct frame_header h;
    size_t size;
    assert_int_equal(frame_verify(slice_of(frame, SEGMENT), rig.log.segment.salt, SEGMENT, &h, &size), SH_OK);
    frame[size - 1] ^= 1;
    frame_encode(&h, rig.log.segment.salt, slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes), frame);
    struct found found;
    struct log_verify_report report;
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_int_equal(found.count, 1);
}

/* The same with a segment's header. */
static void test_an_exchanged_segment_breaks_the_chain(void **state)
{
    (void)state;
    append_frames(500);
    uint64_t *bases;
    size_t count;
    char path[PATH_MAX];
    assert_int_equal(segment_list(sim_disk_vfs(disk), rig.dir.log, &bases, &count), 0);
    uint8_t *bytes = segment_bytes(bases[1], path);
    struct segment_header h;
    assert_int_equal(segment_header_decode(slice_of(bytes, SEGMENT_HEADER_BYTES), &h), SH_OK);
    h.previous_checksum ^= 1;
    segment_header_encode(&h, bytes);
    uint64_t next = 1;
    struct result r;
    do {
        r = read_from(next, end(), 1 << 20, 1000);
        next = r.read.next;
    } while (r.error == SH_OK && r.frames > 0);
    assert_int_equal(r.error, SH_CORRUPT);
    assert_int_equal(next, bases[1]);
    struct found found;
    struct log_verify_report report;
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_string_equal(found.file, path);
    free(bases);
}

/* No frame is durable beyond its own start. */
static void test_a_frame_that_claims_too_much_is_refused(void **state)
{
    (void)state;
    struct log_chain chain = {.next_lsn = 5, .checksum = 6, .position = 1000};
    struct frame_header h = {
        .base_lsn = 5, .count = 2, .previous_checksum = 6, .checksum = 9, .durable_end = 1001};
    assert_false(log_chain_follow(&chain, &h));
    h.durable_end = 1000;
    h.durable_lsn = 4;
    h.durable_checksum = 5;
    assert_false(log_chain_follow(&chain, &h)); /* the chain there is another */
    h.durable_lsn = 3;
    h.durable_checksum = 6;
    assert_false(log_chain_follow(&chain, &h));
    h.durable_lsn = 4;
    assert_true(log_chain_follow(&chain, &h));
    assert_int_equal(chain.next_lsn, 7);
    assert_int_equal(chain.checksum, 9);
    assert_int_equal(chain.position, 1000 + FRAME_HEADER_BYTES);
}

static void test_a_missing_segment_is_corrupt_not_the_end(void **state)
{
    (void)state;
    append_frames(500);
    uint64_t *bases;
    size_t count;
    char path[PATH_MAX];
    assert_int_equal(segment_list(sim_disk_vfs(disk), rig.dir.log, &bases, &count), 0);
    segment_bytes(bases[1], path);
    sim_disk_vfs(disk)->unlink(sim_disk_vfs(disk), path);
    struct result r = read_from(bases[1], end(), 1, 1);
    assert_int_equal(r.error, SH_CORRUPT);
    assert_int_equal(r.read.good_lsn, bases[2]);
    r = read_from(1, end(), 1 << 20, 100000);
    assert_int_equal(r.error, SH_OK);
    assert_int_equal(r.last, bases[1] - 1);
    assert_int_equal(read_from(r.read.next, end(), 1, 1).error, SH_CORRUPT);
    assert_int_equal(read_from(bases[2], end(), 1, 1).error, SH_OK);
    free(bases);
}

static void test_the_durable_end_that_the_disk_shows(void **state)
{
    (void)state;
    uint64_t shown, lsn;
    const struct vfs *fs = sim_disk_vfs(disk);
    append_frames(10);
    uint64_t before = end();
    append_frames(1);
    assert_int_equal(log_durable_end(fs, rig.dir.log, rig.dir.identity.log, &shown, &lsn), SH_OK);
    assert_int_equal(shown, before); /* as the last frame knew */
    assert_int_equal(lsn, 10 * BATCH);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    assert_int_equal(log_durable_end(fs, rig.dir.log, rig.dir.identity.log, &shown, &lsn), SH_OK);
    assert_int_equal(shown, end());
    assert_int_equal(lsn, 11 * BATCH);
    struct log_segment *segments;
    size_t count;
    char bad[SEGMENT_NAME_MAX];
    append_frames(500);
    assert_int_equal(log_list_segments(fs, rig.dir.log, rig.dir.identity.log, &segments, &count, bad), SH_OK);
    for (size_t i = 0; i + 1 < count; i++) {
        assert_true(segments[i].sealed);
        assert_int_equal(segments[i].position + segments[i].file_bytes, segments[i + 1].position);
    }
    assert_false(segments[count - 1].sealed);
    free(segments);
}

/* ---------------------------------------------------------------- verify */

static void test_verify_names_every_flipped_byte_below_the_mark(void **state)
{
    (void)state;
    append_frames(200);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    struct found found;
    struct log_verify_report report;
    assert_int_equal(verify(&found, &report), SH_OK);
    assert_int_equal(report.entries, 200 * BATCH);
    assert_int_equal(report.unsynced_bytes, 0);
    uint64_t frames = report.frames, segments = report.segments;
    assert_true(segments > 1);
    const uint64_t bases[] = {1, rig.log.segment.base_lsn};
    char path[PATH_MAX];
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *bytes = segment_bytes(bases[i], path);
        size_t until = i == 0 ? sim_disk_file(disk, path).len : rig.log.offset;
        for (size_t at = 0; at < until; at += 61) {
            bytes[at] ^= 2;
            assert_int_equal(verify(&found, &report), SH_CORRUPT);
            assert_true(found.count >= 1 && found.offset <= at);
            assert_string_equal(found.file, path);
            assert_true(report.frames + 1 >= frames);
            assert_int_equal(report.segments, segments);
            bytes[at] ^= 2;
        }
    }
}

static void test_verify_takes_unsynced_bytes_for_no_damage(void **state)
{
    (void)state;
    append_frames(10);
    uint64_t offset = rig.log.offset;
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    char path[PATH_MAX];
    uint8_t *bytes = segment_bytes(1, path);
    memset(bytes + offset, 0xaa, 1000);
    struct found found;
    struct log_verify_report report;
    assert_int_equal(verify(&found, &report), SH_OK);
    assert_int_equal(report.unsynced_bytes, 1000);
    assert_int_equal(report.entries, 10 * BATCH);
}

/* The end of the newest segment is being written while it is read: the first look sees nothing there. */
static unsigned blind_reads;
static uint64_t blind_from;
static ssize_t blind_pread(const struct vfs *fs, int fd, void *out, size_t len, int64_t offset)
{
    (void)fs;
    ssize_t got = sim_disk_vfs(disk)->pread(sim_disk_vfs(disk), fd, out, len, offset);
    if (blind_reads > 0 && offset + got > (int64_t)blind_from && len > FRAME_HEADER_BYTES && got > 0) {
        size_t keep = blind_from > (uint64_t)offset ? blind_from - (uint64_t)offset : 0;
        memset((char *)out + keep, 0, (size_t)got - keep);
        blind_reads--;
    }
    return got;
}

static void test_verify_looks_twice_beside_a_writer(void **state)
{
    (void)state;
    append_frames(10);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    struct vfs blind = *sim_disk_vfs(disk);
    blind.pread = blind_pread;
    struct log_verify_options options = {0};
    struct log_verify_report report;
    for (unsigned reads = 1; reads <= 2; reads++) {
        blind_reads = reads;
        blind_from = rig.log.offset - 500;
        assert_int_equal(log_verify(&blind, data, &options, &report), SH_OK);
        assert_int_equal(report.entries, 10 * BATCH);
    }
}

static void test_verify_sees_cut_and_missing_files(void **state)
{
    (void)state;
    append_frames(500);
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(sim_disk_vfs(disk), rig.dir.log, &bases, &count), 0);
    char path[PATH_MAX];
    struct found found;
    struct log_verify_report report;
    segment_bytes(bases[1], path);
    size_t whole = sim_disk_file(disk, path).len;
    sim_disk_resize(disk, path, whole - 10);
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_int_equal(found.count, 1);
    assert_int_equal(report.entries, 500 * BATCH - BATCH);
    char newest[PATH_MAX];
    segment_bytes(bases[count - 1], newest);
    sim_disk_resize(disk, newest, rig.log.offset - 1000); /* whole frames and a part of one are gone */
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_int_equal(found.count, 2);
    assert_string_equal(found.file, newest);
    sim_disk_resize(disk, newest, SEGMENT_HEADER_BYTES);
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    assert_string_equal(found.file, newest);
    sim_disk_vfs(disk)->unlink(sim_disk_vfs(disk), path);
    assert_int_equal(verify(&found, &report), SH_CORRUPT);
    free(bases);
}

static bool count_frame(void *arg, const struct log_frame *frame)
{
    uint64_t *frames = arg;
    assert_true(frame->header->base_lsn + frame->header->count > 700);
    return ++*frames < 10;
}

static void test_dump_starts_at_an_lsn_and_ends_when_told(void **state)
{
    (void)state;
    append_frames(500);
    uint64_t frames = 0;
    struct log_verify_options options = {.from_lsn = 700, .on_frame = count_frame, .arg = &frames};
    struct log_verify_report report;
    assert_int_equal(log_verify(sim_disk_vfs(disk), data, &options, &report), SH_OK);
    assert_int_equal(frames, 10);
    assert_int_equal(log_verify(sim_disk_vfs(disk), "/nowhere", &options, &report), SH_NOT_FOUND);
}

#define READER_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        READER_TEST(test_an_empty_log),
        READER_TEST(test_everything_in_order_over_segments),
        READER_TEST(test_reading_starts_at_any_lsn),
        READER_TEST(test_limits_of_a_read),
        READER_TEST(test_nothing_beyond_the_durable_end),
        READER_TEST(test_reading_while_writing_over_rolls),
        READER_TEST(test_a_frame_larger_than_the_window),
        READER_TEST(test_reading_hither_and_thither_in_large_segments),
        READER_TEST(test_clock_frames_are_given_to_who_wants_them),
        READER_TEST(test_trimmed_is_told_apart_from_not_found),
        READER_TEST(test_damage_costs_only_the_damaged_frame),
        READER_TEST(test_a_frame_in_a_damaged_payload_is_not_read),
        READER_TEST(test_an_exchanged_frame_breaks_the_chain),
        READER_TEST(test_verify_sees_an_exchanged_last_frame),
        READER_TEST(test_an_exchanged_segment_breaks_the_chain),
        READER_TEST(test_a_frame_that_claims_too_much_is_refused),
        READER_TEST(test_a_missing_segment_is_corrupt_not_the_end),
        READER_TEST(test_the_durable_end_that_the_disk_shows),
        READER_TEST(test_verify_names_every_flipped_byte_below_the_mark),
        READER_TEST(test_verify_takes_unsynced_bytes_for_no_damage),
        READER_TEST(test_verify_looks_twice_beside_a_writer),
        READER_TEST(test_verify_sees_cut_and_missing_files),
        READER_TEST(test_dump_starts_at_an_lsn_and_ends_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
