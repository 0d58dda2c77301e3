/* Reading a damaged log, as it is beside a running walsvc: what holds no entry costs none, a read in damage
 * is told exactly where the next entry is, and verify names the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bytes.h"
#include "log.h"
#include "log_verify.h"
#include "rot.h"

static struct log_damage found; /* the last one; its strings are gone */
static uint64_t entries;

static void note_damage(void *arg, const struct log_damage *damage)
{
    (void)arg;
    found = *damage;
}

static uint64_t verify(void)
{
    struct log_verify_options options = {.on_damage = note_damage};
    struct log_verify_report report;
    log_verify(rot_fs, rot_data, &options, &report);
    entries = report.entries;
    return report.damages;
}

static enum sh_error read_from(struct log_reader *reader, uint64_t from, struct log_read *read)
{
    struct buf out = {0};
    *read = (struct log_read){
        .from = from, .durable_end = rot_rig.log.durable.end, .max_bytes = 1 << 20, .max_entries = 100000};
    enum sh_error error = log_reader_read(reader, read, &out);
    buf_free(&out);
    return error;
}

/* One read, by a reader that comes from nowhere. */
static enum sh_error read_once(uint64_t from, struct log_read *read)
{
    struct log_reader *reader = log_reader_open(rot_fs, rot_dir, rot_rig.dir.identity.log);
    enum sh_error error = read_from(reader, from, read);
    log_reader_close(reader);
    return error;
}

static void save(uint64_t base, struct buf *old)
{
    old->len = 0;
    buf_append(old, rot_file(rot_path(base)), sim_disk_file(rot_disk, rot_path(base)).len);
}

static void restore(uint64_t base, const struct buf *old)
{
    memcpy(rot_file(rot_path(base)), old->data, old->len);
}

/* ---------------------------------------------------------------- */

static void test_a_damaged_segment_header_costs_no_entry(void **state)
{
    (void)state;
    uint64_t last, newest = rot_fill(3, &last);
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    const uint64_t bases[] = {1, rot_places[newest - 1].base, newest};
    for (size_t i = 0; i < 3; i++) {
        for (unsigned at = 0; at < SEGMENT_HEADER_BYTES; at++) {
            struct log_read read;
            rot_file(rot_path(bases[i]))[at] ^= 1;
            rot_assert_log(last, 0, 0);
            assert_int_equal(read_once(bases[i] + 3, &read), SH_OK);
            assert_int_equal(verify(), 1);
            assert_int_equal(found.offset, 0);
            assert_int_equal(found.bytes, SEGMENT_HEADER_BYTES);
            assert_int_equal(found.first_lsn, bases[i]);
            assert_int_equal(found.next_lsn, bases[i]);
            assert_int_equal(entries, last);
            rot_file(rot_path(bases[i]))[at] ^= 1;
        }
    }
}

/* Header, checkpoint, and the first n frames. */
static void lose_start(uint64_t base, uint64_t n, uint64_t last)
{
    struct buf old = {0};
    struct log_read read;
    save(base, &old);
    memset(rot_file(rot_path(base)), 0, rot_places[base + n].offset - 7);
    rot_assert_log(last, n > 0 ? base : 0, n);
    assert_int_equal(read_once(base, &read), n > 0 ? SH_CORRUPT : SH_OK);
    assert_int_equal(read.good_lsn, n > 0 ? base + n : 0);
    assert_int_equal(verify(), 1);
    assert_int_equal(found.offset, 0);
    assert_int_equal(found.bytes, rot_places[base + n].offset);
    assert_int_equal(found.next_lsn, base + n);
    assert_int_equal(entries, last - n);
    restore(base, &old);
    buf_free(&old);
}

static void test_the_start_of_a_segment_is_gone(void **state)
{
    (void)state;
    uint64_t last, newest = rot_fill(3, &last);
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    for (uint64_t n = 0; n < 4; n++) {
        lose_start(1, n, last);
        lose_start(rot_places[newest - 1].base, n, last);
        lose_start(newest, n, last);
    }
}

/* Damages the header and each frame that knows its own position: none tells then where the segment lies. */
static void make_position_unknown(uint64_t base)
{
    uint8_t *bytes = rot_file(rot_path(base));
    uint32_t salt = segment_salt(rot_rig.dir.identity.log, base);
    struct frame_header h;
    size_t size, at = SEGMENT_HEADER_BYTES, len = sim_disk_file(rot_disk, rot_path(base)).len;
    bytes[20] ^= 1;
    for (; frame_verify(slice_of(bytes + at, len - at), salt, ROT_SEGMENT, &h, &size) == SH_OK; at += size)
        if (h.durable_checksum == h.previous_checksum || h.kind == FRAME_CHECKPOINT)
            bytes[at + 40] ^= 1;
}

/* Its neighbours do, for sealed segments and for the newest one. Groups are of 20 frames here. */
static void test_a_segment_whose_frames_do_not_know_its_position(void **state)
{
    (void)state;
    uint64_t *bases, n = 0;
    size_t count;
    struct buf old = {0};
    rot_open();
    while (rot_rig.log.segment.base_lsn < 500) {
        for (unsigned i = 0; i < 20; i++, n++)
            rig_append(&rot_rig, 7, 1, n + 1, rot_payload(n + 1));
        assert_true(rig_commit(&rot_rig));
    }
    assert_int_equal(segment_list(rot_fs, rot_dir, &bases, &count), 0);
    assert_true(count >= 3);
    for (size_t i = 0; i < count; i++) {
        uint64_t next = bases[i], good = 0, until = i + 1 < count ? bases[i + 1] : n + 1;
        save(bases[i], &old);
        make_position_unknown(bases[i]);
        while (next < until) {
            struct log_read read;
            enum sh_error error = read_once(next, &read);
            assert_true(error == SH_OK || error == SH_CORRUPT);
            uint64_t to = error == SH_OK ? read.next : read.good_lsn;
            assert_true(to > next);
            good += error == SH_OK ? to - next : 0;
            next = to;
        }
        assert_true(good >= (until - bases[i]) * 9 / 10 - 1);
        restore(bases[i], &old);
    }
    buf_free(&old);
    free(bases);
}

/* Nothing of a segment is left but its name: the others are listed as ever, and what is missing is missing
 * from that file. */
static void test_a_segment_of_which_only_the_name_is_left(void **state)
{
    (void)state;
    struct log_segment *segments;
    struct log_read read;
    size_t count;
    uint64_t last;
    char bad[SEGMENT_NAME_MAX], name[SEGMENT_NAME_MAX];
    for (unsigned i = 0; i < 6; i++) {
        rot_start_over();
        uint64_t newest = rot_fill(4, &last), second = rot_places[rot_places[newest - 1].base - 1].base;
        uint64_t base = i % 3 == 0 ? 1 : i % 3 == 1 ? second : newest;
        uint8_t *bytes = rot_file(rot_path(base));
        size_t size = sim_disk_file(rot_disk, rot_path(base)).len;
        if (i < 3)
            memset(bytes, 0, size);
        else
            sim_disk_resize(rot_disk, rot_path(base), 0);
        assert_int_equal(log_list_segments(rot_fs, rot_dir, rot_rig.dir.identity.log, &segments, &count, bad),
                         SH_OK);
        assert_int_equal(count, 4);
        segment_name(base, name);
        assert_string_equal(bad, name);
        for (size_t k = 0; k < count; k++)
            assert_true(segments[k].base_lsn == base ||
                        segments[k].position + SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES <=
                            rot_rig.log.durable.end);
        free(segments);
        assert_int_equal(read_once(base, &read), SH_CORRUPT);
        assert_string_equal(read.bad_file, name);
        rot_crash(SIM_LOSE_NOTHING);
    }
}

/* Nor does anything beside it, nor the mark: what frames in it know of the durable end tells where it ends.
 */
static void test_the_newest_segment_of_unknown_position_knows_the_durable_end(void **state)
{
    (void)state;
    char mark[PATH_MAX];
    uint64_t n = 0;
    rot_open();
    while (rot_rig.log.segment.base_lsn == 1 || n % 100 != 0) {
        for (unsigned i = 0; i < 20; i++, n++)
            rig_append(&rot_rig, 7, 1, n + 1, rot_payload(n + 1));
        assert_true(rig_commit(&rot_rig));
    }
    uint64_t base = rot_rig.log.segment.base_lsn;
    make_position_unknown(base);
    rot_file(rot_path(1))[rot_rig.log.segment.position - 1] ^= 1;
    vfs_path(mark, rot_dir, "mark");
    rot_crash(SIM_LOSE_NOTHING);
    assert_int_equal(rot_fs->unlink(rot_fs, mark), 0);
    assert_int_equal(rot_try_open(), EXIT_DONE);
    assert_in_range(rot_rig.log.segment.base_lsn, base + 1, n + 1);
}

/* It was the newest one when the reader entered it. */
static void test_a_damaged_header_met_by_a_reader_that_comes_along(void **state)
{
    (void)state;
    struct log_read read;
    rot_open();
    rot_append_noted(1, 10);
    struct log_reader *reader = log_reader_open(rot_fs, rot_dir, rot_rig.dir.identity.log);
    assert_int_equal(read_from(reader, 1, &read), SH_OK);
    uint64_t n = 10;
    while (rot_rig.log.segment.base_lsn == 1) {
        n++;
        rot_append_noted(n, n);
    }
    rot_file(rot_path(n))[20] ^= 1;
    assert_int_equal(read_from(reader, 11, &read), SH_OK);
    assert_int_equal(read.next, n);
    assert_int_equal(read_from(reader, n, &read), SH_OK);
    assert_int_equal(read.next, n + 1);
    log_reader_close(reader);
}

/* The last frame of one segment and the first ones of the next: every read in there is told the same. */
static void test_damage_over_a_segments_end(void **state)
{
    (void)state;
    struct log_read read;
    uint64_t last, base = rot_fill(2, &last);
    rot_file(rot_path(1))[rot_places[base - 1].end - 1] ^= 1;
    memset(rot_file(rot_path(base)), 0, rot_places[base + 2].offset + 1);
    rot_assert_log(last, base - 1, 4);
    for (uint64_t from = base - 1; from < base + 3; from++) {
        assert_int_equal(read_once(from, &read), SH_CORRUPT);
        assert_int_equal(read.good_lsn, base + 3);
    }
    assert_int_equal(read_once(base - 1, &read), SH_CORRUPT);
    assert_string_equal(read.bad_file, "00000000000000000001.seg");
    assert_int_equal(read.bad_offset, rot_places[base - 1].offset);
}

/* A system frame behind damage is not where a read can go on when the data frame behind it is damaged too. */
static void test_a_good_checkpoint_between_damaged_frames(void **state)
{
    (void)state;
    struct log_read read;
    uint64_t last, base = rot_fill(2, &last);
    rot_file(rot_path(1))[rot_places[base - 1].end - 1] ^= 1;
    rot_file(rot_path(base))[rot_places[base].end - 1] ^= 1;
    assert_int_equal(read_once(base - 1, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, base + 1);
    rot_assert_log(last, base - 1, 2);
    assert_int_equal(verify(), 2);
}

/* Nothing behind it is there to be read: the reader says where the next entry will be, if it knows. */
static void test_damage_of_the_newest_entry(void **state)
{
    (void)state;
    struct log_read read;
    rot_open();
    rot_append_noted(1, 10);
    rot_file(rot_path(1))[rot_places[10].end - 1] ^= 1;
    assert_int_equal(read_once(1, &read), SH_OK);
    assert_int_equal(read.next, 10);
    assert_int_equal(read_once(10, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, 0);
    rot_assert_log(10, 10, 1); /* with the durable LSN */
    struct log_reader *reader = log_reader_open(rot_fs, rot_dir, rot_rig.dir.identity.log);
    struct buf out = {0};
    read = (struct log_read){.from = 11, .durable_end = rot_rig.log.durable.end, .durable_lsn = 10};
    assert_int_equal(log_reader_read(reader, &read, &out), SH_OK); /* the next entry to come is not lost */
    assert_int_equal(read.next, 11);
    log_reader_close(reader);
    rot_append_noted(11, 11);
    assert_int_equal(read_once(10, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, 11);
    assert_int_equal(read_once(11, &read), SH_OK);
    rot_assert_log(11, 10, 1);
}

static void test_the_newest_file_is_missing_or_cut_beside_a_reader(void **state)
{
    (void)state;
    struct log_read read;
    uint64_t last, base = rot_fill(2, &last);
    sim_disk_resize(rot_disk, rot_path(base), rot_places[last - 2].offset + 30);
    rot_assert_log(last, last - 2, 3);
    assert_int_equal(read_once(last, &read), SH_CORRUPT);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(base)), 0);
    assert_int_equal(read_once(last, &read), SH_CORRUPT);
    assert_int_equal(read_once(base, &read), SH_CORRUPT);
    rot_assert_log(last, base, last + 1 - base);
}

/* Seen from each place: the damage in three frames of a segment, far from each other. */
static void test_several_ranges_in_a_segment(void **state)
{
    (void)state;
    struct log_read read;
    uint64_t last;
    rot_fill(2, &last);
    for (uint64_t n = 20; n <= 60; n += 20)
        rot_file(rot_path(1))[rot_places[n].offset + 8] ^= 0x40; /* the length */
    for (uint64_t from = 1; from <= 70; from++) {
        bool lost = from == 20 || from == 40 || from == 60;
        assert_int_equal(read_once(from, &read), lost ? SH_CORRUPT : SH_OK);
        assert_int_equal(lost ? read.good_lsn : read.next, lost        ? from + 1
                                                           : from < 20 ? 20
                                                           : from < 40 ? 40
                                                           : from < 60 ? 60
                                                                       : read.next);
    }
    assert_int_equal(verify(), 3);
}

/* A header that continues the chain may not make the frames behind it look like its body, nor may its count
 * hide them. */
static void test_each_bit_of_a_header_costs_one_frame(void **state)
{
    (void)state;
    uint64_t last;
    struct log_read read;
    rot_fill(2, &last);
    for (unsigned bit = 0; bit < 8 * FRAME_HEADER_BYTES; bit++) {
        uint8_t *byte = rot_file(rot_path(1)) + rot_places[30].offset + bit / 8;
        *byte ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(read_once(30, &read), SH_CORRUPT);
        assert_int_equal(read.good_lsn, 31);
        rot_assert_log(last, 30, 1);
        assert_int_equal(verify(), 1);
        assert_int_equal(found.bytes, rot_places[30].end - rot_places[30].offset);
        *byte ^= (uint8_t)(1 << bit % 8);
    }
}

/* The same with the frame behind it damaged too: what looks like the body holds frames that lead out of it.
 */
static void test_a_damaged_length_hides_no_frames(void **state)
{
    (void)state;
    uint64_t last;
    rot_fill(2, &last);
    rot_file(rot_path(1))[rot_places[30].offset + 9] ^= 2; /* 512 more */
    rot_file(rot_path(1))[rot_places[31].end - 1] ^= 1;
    rot_assert_log(last, 30, 2);
    assert_int_equal(verify(), 1);
}

/* When the body seems to end beyond all frames, those in it lead to where the frames end. */
static void test_a_damaged_length_beyond_the_end_hides_no_frames(void **state)
{
    (void)state;
    uint64_t last, base = rot_fill(2, &last);
    rot_file(rot_path(1))[rot_places[30].offset + 10] ^= 1; /* 64 KiB more */
    memset(rot_file(rot_path(1)) + rot_places[31].offset, 0, FRAME_HEADER_BYTES);
    rot_assert_log(last, 30, 2);
    rot_file(rot_path(base))[rot_places[base + 2].offset + 10] ^= 1;
    rot_file(rot_path(base))[rot_places[base + 3].end - 1] ^= 1;
    assert_int_equal(verify(), 2);
    assert_int_equal(entries, last - 4);
    for (uint64_t from = base + 2, good = base + 4; from < good; from++) {
        struct log_read read;
        assert_int_equal(read_once(from, &read), SH_CORRUPT);
        assert_int_equal(read.good_lsn, good);
    }
    rot_crash(SIM_LOSE_NOTHING);
    rot_open();
    assert_int_equal(verify(), 2);
    assert_int_equal(rot_rig.log.durable.lsn, last);
}

/* A payload of valid frames, that an attacker would make who knows everything but what is written around. */
static uint64_t append_imitations(uint64_t lsn, unsigned count)
{
    uint8_t forged[10 * FRAME_HEADER_BYTES];
    const struct wal_log *log = &rot_rig.log;
    uint64_t at = log->offset;
    struct frame_header h = {
        .base_lsn = lsn,
        .count = 1,
        .previous_checksum = log->chain.checksum,
        .durable_end = log->durable.end,
        .durable_lsn = log->durable.lsn,
        .durable_checksum = log->durable.checksum,
    };
    for (unsigned i = 0; i < count; i++, h.base_lsn++, h.previous_checksum = h.checksum)
        frame_encode(&h, log->segment.salt, (struct slice){0}, forged + (size_t)i * FRAME_HEADER_BYTES);
    rig_append(&rot_rig, 0, 1, 0, slice_of(forged, count * FRAME_HEADER_BYTES));
    assert_true(rig_commit(&rot_rig));
    return at;
}

/* Whichever bit of its header is damaged, nothing in the payload is read as a frame. */
static void check_each_bit(uint64_t at, uint64_t good)
{
    for (unsigned bit = 0; bit < 8 * FRAME_HEADER_BYTES; bit++) {
        struct log_read read;
        uint8_t *byte = rot_file(rot_path(1)) + at + bit / 8;
        bool is_length = bit / 8 >= 8 && bit / 8 < 12; /* of the last frame: docs/wal-format.md */
        *byte ^= (uint8_t)(1 << bit % 8);
        if (good > 0 || !is_length) {
            assert_int_equal(read_once(4, &read), SH_CORRUPT);
            assert_int_equal(read.good_lsn, good);
            assert_int_equal(verify(), 1);
            assert_int_equal(entries, good > 0 ? 4 : 3);
        }
        *byte ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_frames_in_a_payload_are_never_read(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 3);
    uint64_t at = append_imitations(4, 5);
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    check_each_bit(at, 0);
    rig_append(&rot_rig, 0, 1, 0, rot_payload(5));
    assert_true(rig_commit(&rot_rig));
    check_each_bit(at, 5);
}

/* The frame before it is damaged, too. */
static void test_frames_in_a_payload_behind_a_damaged_frame_are_never_read(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 3);
    uint64_t at = append_imitations(4, 5);
    rig_append(&rot_rig, 0, 1, 0, rot_payload(5));
    assert_true(rig_commit(&rot_rig));
    rot_file(rot_path(1))[rot_places[3].end - 1] ^= 1;
    for (unsigned bit = 0; bit < 8 * FRAME_HEADER_BYTES; bit++) {
        struct log_read read;
        rot_file(rot_path(1))[at + bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(read_once(3, &read), SH_CORRUPT);
        assert_int_equal(read.good_lsn, 5);
        rot_file(rot_path(1))[at + bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* Where all of the header is gone, those are still not read that don't know what led to it. */
static void test_frames_in_a_payload_that_know_another_chain_are_never_read(void **state)
{
    (void)state;
    struct log_read read;
    rot_open();
    rot_append_noted(1, 3);
    struct wal_log *log = &rot_rig.log;
    uint64_t at = log->offset;
    uint8_t forged[FRAME_HEADER_BYTES];
    struct frame_header h = {.base_lsn = 4, .count = 1, .durable_end = log->durable.end, .durable_lsn = 3};
    h.durable_checksum = log->durable.checksum ^ 1;
    frame_encode(&h, log->segment.salt, (struct slice){0}, forged);
    rig_append(&rot_rig, 0, 1, 0, slice_of(forged, sizeof forged));
    assert_true(rig_commit(&rot_rig));
    rig_append(&rot_rig, 0, 1, 0, rot_payload(5));
    assert_true(rig_commit(&rot_rig));
    memset(rot_file(rot_path(1)) + at, 0, FRAME_HEADER_BYTES);
    assert_int_equal(read_once(4, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, 5);
    assert_int_equal(verify(), 1);
    assert_int_equal(entries, 4);
}

/* A torn tail of which only such a payload is left says what was durable where it begins: the frames that end
 * there know better, though one of them is damaged. */
static void check_torn_payload(uint64_t bad, uint64_t below)
{
    uint8_t forged[FRAME_HEADER_BYTES];
    const struct wal_log *log = &rot_rig.log;
    rot_open();
    rot_append_noted(1, 5);
    struct frame_header h = {.base_lsn = 6, .count = 1, .durable_lsn = 5};
    h.durable_end = log->durable.end - below;
    frame_encode(&h, log->segment.salt, (struct slice){0}, forged);
    uint64_t at = log->offset;
    rig_append(&rot_rig, 0, 1, 0, slice_of(forged, sizeof forged));
    assert_true(rig_write(&rot_rig));
    memset(rot_file(rot_path(1)) + at, 0, FRAME_HEADER_BYTES);
    rot_file(rot_path(1))[bad == 0 ? rot_places[3].end - 1 : rot_places[3].offset + bad] ^= 1;
    rot_crash(SIM_LOSE_NOTHING);
    rot_open();
    assert_int_equal(log->segment.base_lsn, 1);
    rot_assert_log(5, 3, 1);
}

static void test_a_payload_in_a_torn_tail_contradicts_nobody(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < FRAME_HEADER_BYTES; at++) {
        rot_start_over();
        check_torn_payload(at, at % 2);
    }
}

/* A client's payload that is a valid frame with an LSN far ahead, in a frame whose own header is damaged:
 * taken for the log's it would hide what follows. */
static void test_a_frame_in_a_payload_does_not_lead_away(void **state)
{
    (void)state;
    struct log_read read;
    uint8_t forged[FRAME_HEADER_BYTES];
    rot_open();
    rot_append_noted(1, 3);
    struct frame_header h = {.kind = FRAME_CLOCK, .base_lsn = 1000000};
    frame_encode(&h, rot_rig.log.segment.salt, (struct slice){0}, forged);
    uint64_t at = rot_rig.log.offset;
    rig_append(&rot_rig, 0, 1, 0, slice_of(forged, sizeof forged));
    assert_true(rig_commit(&rot_rig));
    rig_append(&rot_rig, 0, 1, 0, rot_payload(5));
    assert_true(rig_commit(&rot_rig));
    memset(rot_file(rot_path(1)) + at, 0, FRAME_HEADER_BYTES);
    assert_int_equal(read_once(4, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, 5);
    assert_int_equal(read_once(5, &read), SH_OK);
}

static uint64_t bytes_read;

static ssize_t counting_pread(const struct vfs *vfs, int fd, void *out, size_t len, int64_t offset)
{
    (void)vfs;
    ssize_t got = rot_fs->pread(rot_fs, fd, out, len, offset);
    bytes_read += got > 0 ? (uint64_t)got : 0;
    return got;
}

/* A client may fill a payload with headers that claim a large body each: to see through them must not cost a
 * walk over what they claim, or a start takes minutes. A large frame behind them is found all the same. */
static void test_headers_that_claim_much_cost_little(void **state)
{
    (void)state;
    enum { FAKES = (1 << 20) / FRAME_HEADER_BYTES, CLAIM = 512 << 10, BODY = 20000, SALT = 7 };
    static uint8_t body[BODY];
    uint8_t header[FRAME_HEADER_BYTES];
    struct frame_header h;
    struct segment_scan scan;
    struct segment_search search;
    struct vfs fs = *rot_fs;
    struct buf bytes = {0};
    buf_append(&bytes, body, SEGMENT_HEADER_BYTES);
    for (unsigned i = 0; i < FAKES; i++) {
        h = (struct frame_header){.kind = FRAME_DATA, .body_bytes = BODY, .base_lsn = 2, .count = 1};
        frame_encode(&h, SALT, slice_of(body, BODY), header);
        put_u32(header + 8, CLAIM);
        buf_append(&bytes, header, sizeof header);
    }
    uint64_t end = bytes.len;
    frame_encode(&h, SALT, slice_of(body, BODY), header);
    buf_append(&bytes, header, sizeof header);
    buf_append(&bytes, body, BODY);
    fs.pread = counting_pread;
    int fd = fs.open(&fs, "/search", O_RDWR | O_CREAT, 0640);
    assert_int_equal(vfs_write_all(&fs, fd, bytes.data, bytes.len, 0), 0);
    for (unsigned there = 0; there < 2; there++) { /* with the bytes that are claimed, and without */
        segment_scan_open(&scan, &fs, fd, SALT, there == 0 ? bytes.len : bytes.len + CLAIM);
        const struct log_chain chain = {.next_lsn = 1, .position = SEGMENT_HEADER_BYTES};
        bytes_read = 0;
        segment_search_open(&search, &scan, &chain);
        assert_int_equal(segment_search_next(&search, scan.end, &h), SCAN_FRAME);
        assert_int_equal(scan.offset, end);
        assert_int_equal(h.body_bytes, BODY);
        assert_int_equal(segment_search_next(&search, scan.end, &h), SCAN_END);
        assert_true(bytes_read < 100 * bytes.len); /* and not half the file for each */
        segment_scan_free(&scan);
    }
    fs.close(&fs, fd);
    buf_free(&bytes);
}

#define DAMAGE_TEST(f) cmocka_unit_test_setup_teardown(f, rot_setup, rot_teardown)

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        DAMAGE_TEST(test_a_damaged_segment_header_costs_no_entry),
        DAMAGE_TEST(test_the_start_of_a_segment_is_gone),
        DAMAGE_TEST(test_a_segment_whose_frames_do_not_know_its_position),
        DAMAGE_TEST(test_a_segment_of_which_only_the_name_is_left),
        DAMAGE_TEST(test_a_damaged_header_met_by_a_reader_that_comes_along),
        DAMAGE_TEST(test_damage_over_a_segments_end),
        DAMAGE_TEST(test_a_good_checkpoint_between_damaged_frames),
        DAMAGE_TEST(test_damage_of_the_newest_entry),
        DAMAGE_TEST(test_the_newest_file_is_missing_or_cut_beside_a_reader),
        DAMAGE_TEST(test_several_ranges_in_a_segment),
        DAMAGE_TEST(test_each_bit_of_a_header_costs_one_frame),
        DAMAGE_TEST(test_a_damaged_length_hides_no_frames),
        DAMAGE_TEST(test_a_damaged_length_beyond_the_end_hides_no_frames),
        DAMAGE_TEST(test_frames_in_a_payload_are_never_read),
        DAMAGE_TEST(test_frames_in_a_payload_behind_a_damaged_frame_are_never_read),
        DAMAGE_TEST(test_frames_in_a_payload_that_know_another_chain_are_never_read),
        DAMAGE_TEST(test_the_newest_segment_of_unknown_position_knows_the_durable_end),
        DAMAGE_TEST(test_a_payload_in_a_torn_tail_contradicts_nobody),
        DAMAGE_TEST(test_a_frame_in_a_payload_does_not_lead_away),
        DAMAGE_TEST(test_headers_that_claim_much_cost_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
