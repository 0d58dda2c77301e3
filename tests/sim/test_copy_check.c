/* What is brought for a copy and isn't its log: named, refused, and nothing is written. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "copy_rig.h"
#include "log.h"

enum { HELD = 9 }; /* units in the copy */
static const char data[] = "/holder";
static struct origin origin, stranger;
static struct sim_disk *disk;
static struct copy_rig rig;

static enum wal_copy_verdict bring(uint64_t position, struct slice bytes, bool anew)
{
    bool good;
    enum wal_copy_verdict verdict = copy_rig_append(&rig, position, bytes, anew, &good);
    assert_true(good);
    return verdict;
}

static enum wal_copy_verdict bring_units(size_t first, size_t behind, bool anew)
{
    return bring(origin.units[first].begin, origin_bytes(&origin, first, behind), anew);
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR + 1);
    origin_make(&origin, 120, 7);
    origin_make(&stranger, 120, 8);
    disk = sim_disk_open();
    assert_int_equal(copy_rig_open(&rig, sim_disk_vfs(disk), data, origin.log, ORIGIN_SEGMENT), SH_OK);
    assert_int_equal(bring_units(0, HELD, false), WAL_COPY_ROLLS);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    copy_rig_close(&rig);
    sim_disk_close(disk);
    origin_free(&origin);
    origin_free(&stranger);
    return 0;
}

/* Nothing of it is taken; what follows is. */
static void refused(enum sh_error code, uint64_t position, struct slice bytes, bool anew)
{
    uint64_t end = rig.files.durable.end;
    assert_int_equal(bring(position, bytes, anew), WAL_COPY_REFUSED);
    assert_int_equal(rig.refusal.code, code);
    assert_int_equal(rig.refusal.expected, code == SH_CONFLICT ? end : 0);
    assert_int_equal(rig.files.durable.end, end);
    copy_rig_check(&rig, &origin);
}

/* Bytes that a test may change. */
static struct slice copy_of(struct slice bytes)
{
    static uint8_t room[ORIGIN_SEGMENT];
    assert_true(bytes.len <= sizeof room);
    memmove(room, bytes.data, bytes.len);
    return slice_of(room, bytes.len);
}

static uint8_t *at(struct slice bytes, size_t offset)
{
    return (uint8_t *)(uintptr_t)bytes.data + offset;
}

static size_t later_segment(void)
{
    size_t unit = origin.count / 2;
    while (!origin.units[unit].opens_segment)
        unit++;
    return unit;
}

/* A frame with a checksum that is right, as only somebody makes it who knows the log. */
static struct slice forge(struct frame_header h, uint32_t salt)
{
    static uint8_t bytes[FRAME_HEADER_BYTES];
    frame_encode(&h, salt, (struct slice){0}, bytes);
    return slice_of(bytes, sizeof bytes);
}

static struct frame_header next_header(void)
{
    return (struct frame_header){
        .base_lsn = rig.files.chain.next_lsn, .count = 1, .previous_checksum = rig.files.chain.checksum};
}

/* ---------------------------------------------------------------- not of this log */

static void test_noise_and_damage_are_refused(void **state)
{
    uint64_t end = rig.files.durable.end;
    struct slice good = origin_bytes(&origin, HELD, HELD + 2), bytes;
    (void)state;
    refused(SH_BAD_REQUEST, end, (struct slice){0}, false);
    refused(SH_BAD_REQUEST, end, slice_str("some text"), false);
    refused(SH_BAD_REQUEST, end, slice_of(good.data, good.len - 1), false);
    refused(SH_BAD_REQUEST, end, slice_of(good.data, FRAME_HEADER_BYTES - 1), false);
    for (size_t i = 0; i < good.len; i += i < 2 * FRAME_HEADER_BYTES ? 1 : 29) {
        bytes = copy_of(good);
        *at(bytes, i) ^= 0x10;
        assert_int_equal(bring(end, bytes, false), WAL_COPY_REFUSED);
        assert_int_equal(rig.files.durable.end, end);
    }
    copy_rig_check(&rig, &origin);
    assert_int_equal(bring(end, good, false), WAL_COPY_APPENDS);
    copy_rig_check(&rig, &origin);
}

static void test_frames_of_another_log_are_refused(void **state)
{
    uint64_t end = rig.files.durable.end;
    size_t later = 1;
    (void)state;
    while (!stranger.units[later].opens_segment)
        later++;
    refused(SH_BAD_REQUEST, end, origin_bytes(&stranger, HELD, HELD + 1), false);
    refused(SH_BAD_REQUEST, stranger.units[later].begin, origin_bytes(&stranger, later, later + 1), true);
    refused(SH_BAD_REQUEST, 0, origin_bytes(&stranger, 0, 1), false);
    refused(SH_BAD_REQUEST, end, forge(next_header(), rig.files.segment.salt + 1), false);
}

static void test_headers_that_lie_are_refused(void **state)
{
    size_t unit = later_segment();
    struct slice bytes = copy_of(origin_bytes(&origin, unit, unit + 1));
    struct segment_header h;
    (void)state;
    copy_rig_fill(&rig, &origin, 7);
    uint64_t end = rig.files.durable.end;
    assert_int_equal(segment_header_decode(bytes, &h), SH_OK);
    refused(SH_BAD_REQUEST, end, slice_of(bytes.data, SEGMENT_HEADER_BYTES), false); /* another place's */
    h.position = end;
    segment_header_encode(&h, at(bytes, 0));
    refused(SH_BAD_REQUEST, end, slice_of(bytes.data, SEGMENT_HEADER_BYTES), false); /* no frame */
    refused(SH_CONFLICT, end, bytes, false); /* a segment with another base LSN than what comes next */
    h.base_lsn = rig.files.chain.next_lsn;
    h.previous_checksum = rig.files.chain.checksum;
    h.salt = segment_salt(origin.log, h.base_lsn);
    segment_header_encode(&h, at(bytes, 0));
    refused(SH_BAD_REQUEST, end, bytes, false); /* the frame has another salt */
    h.position = UINT64_MAX - 100;
    segment_header_encode(&h, at(bytes, 0));
    refused(SH_BAD_REQUEST, h.position, bytes, true);
    h.position = end;
    h.base_lsn = 0;
    h.salt = segment_salt(origin.log, 0);
    segment_header_encode(&h, at(bytes, 0));
    refused(SH_BAD_REQUEST, end, bytes, false);
    h.base_lsn = 1; /* far behind, but with the LSNs of the log's begin */
    h.position = end + 1000;
    h.salt = segment_salt(origin.log, 1);
    struct frame_header checkpoint = {
        .kind = FRAME_CHECKPOINT, .base_lsn = 1, .previous_checksum = h.previous_checksum};
    segment_header_encode(&h, at(bytes, 0));
    memcpy(at(bytes, SEGMENT_HEADER_BYTES), forge(checkpoint, h.salt).data, FRAME_HEADER_BYTES);
    refused(SH_CONFLICT, h.position, slice_of(bytes.data, SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES), true);
}

/* Where the copy has no segment's begin. */
static void test_a_header_within_what_is_there_is_refused(void **state)
{
    uint8_t bytes[SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES];
    struct frame_header checkpoint = {.kind = FRAME_CHECKPOINT, .base_lsn = 1};
    struct segment_header s = {
        .log = origin.log, .salt = segment_salt(origin.log, 1), .base_lsn = 1, .position = 100};
    (void)state;
    segment_header_encode(&s, bytes);
    memcpy(bytes + SEGMENT_HEADER_BYTES, forge(checkpoint, s.salt).data, FRAME_HEADER_BYTES);
    refused(SH_CONFLICT, s.position, slice_of(bytes, sizeof bytes), false);
    refused(SH_CONFLICT, s.position, slice_of(bytes, sizeof bytes), true);
}

static void test_a_header_in_the_middle_is_refused(void **state)
{
    size_t unit = HELD;
    (void)state;
    while (!origin.units[unit].opens_segment)
        unit++;
    refused(SH_BAD_REQUEST, rig.files.durable.end, origin_bytes(&origin, HELD, unit + 1), false);
}

static void test_a_segment_begins_with_its_checkpoint_and_has_no_other(void **state)
{
    struct frame_header h = next_header();
    uint8_t bytes[SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES];
    const struct log_chain *chain = &rig.files.chain;
    struct segment_header s = {.log = origin.log,
                               .salt = segment_salt(origin.log, chain->next_lsn),
                               .previous_checksum = chain->checksum,
                               .base_lsn = chain->next_lsn,
                               .position = chain->position};
    (void)state;
    segment_header_encode(&s, bytes);
    memcpy(bytes + SEGMENT_HEADER_BYTES, forge(h, s.salt).data, FRAME_HEADER_BYTES);
    refused(SH_BAD_REQUEST, chain->position, slice_of(bytes, sizeof bytes), false);
    h.kind = FRAME_CHECKPOINT;
    h.count = 0;
    refused(SH_BAD_REQUEST, chain->position, forge(h, rig.files.segment.salt), false);
}

/* ---------------------------------------------------------------- of this log, but not here */

static void test_a_gap_says_what_is_wanted(void **state)
{
    size_t unit = later_segment();
    (void)state;
    refused(SH_CONFLICT, origin.units[HELD + 1].begin, origin_bytes(&origin, HELD + 1, HELD + 2), false);
    refused(SH_CONFLICT, origin.units[unit].begin, origin_bytes(&origin, unit, unit + 1), false);
    assert_int_equal(bring_units(HELD, HELD + 1, false), WAL_COPY_APPENDS);
}

static void test_another_chain_is_refused(void **state)
{
    struct frame_header h = next_header();
    uint64_t end = rig.files.durable.end;
    uint32_t salt = rig.files.segment.salt;
    (void)state;
    h.previous_checksum++;
    refused(SH_CONFLICT, end, forge(h, salt), false);
    h = next_header();
    h.base_lsn++;
    refused(SH_CONFLICT, end, forge(h, salt), false);
    /* A copy of the log that went another way before: its frames end where others do here, or beyond. */
    uint64_t size = origin.units[HELD - 1].end - origin.units[HELD - 1].begin;
    struct slice last = copy_of(origin_bytes(&origin, HELD - 1, HELD));
    struct frame_header other;
    assert_int_equal(frame_header_decode(last, FRAME_BYTES_MAX, &other), SH_OK);
    other.hlc++;
    frame_encode(&other, salt, slice_of(last.data + FRAME_HEADER_BYTES, other.body_bytes), at(last, 0));
    refused(SH_CONFLICT, end - size, last, false);
    struct slice inner = copy_of(origin_bytes(&origin, HELD - 2, HELD - 1));
    assert_int_equal(frame_header_decode(inner, FRAME_BYTES_MAX, &other), SH_OK);
    other.hlc++;
    frame_encode(&other, salt, slice_of(inner.data + FRAME_HEADER_BYTES, other.body_bytes), at(inner, 0));
    refused(SH_CONFLICT, origin.units[HELD - 2].begin, inner, false);
    refused(SH_CONFLICT, end - 10, forge(next_header(), salt), false); /* over the end */
}

/* ---------------------------------------------------------------- there already */

static void test_what_is_there_is_passed_over(void **state)
{
    uint64_t end = rig.files.durable.end;
    (void)state;
    assert_int_equal(bring_units(0, 3, false), WAL_COPY_THERE);
    assert_int_equal(bring_units(2, 5, false), WAL_COPY_THERE);
    assert_int_equal(bring_units(HELD - 1, HELD, false), WAL_COPY_THERE);
    assert_int_equal(bring_units(0, HELD, true), WAL_COPY_THERE); /* anew, once more */
    assert_int_equal(rig.files.durable.end, end);
    assert_int_equal(bring_units(HELD - 3, HELD + 2, false), WAL_COPY_APPENDS);
    assert_int_equal(rig.files.durable.end, origin.units[HELD + 1].end);
    assert_int_equal(bring_units(0, HELD + 4, false), WAL_COPY_APPENDS);
    copy_rig_fill(&rig, &origin, 4);
    size_t unit = later_segment();
    assert_int_equal(bring_units(unit, unit + 2, false), WAL_COPY_THERE); /* in a sealed segment */
    assert_int_equal(bring_units(unit + 1, unit + 3, false), WAL_COPY_THERE);
    assert_int_equal(bring_units(unit - 1, unit, false), WAL_COPY_THERE);
    copy_rig_check(&rig, &origin);
}

/* Damage there says nothing against those who bring what was there. */
static void test_what_is_there_and_damaged_is_no_conflict(void **state)
{
    char path[PATH_MAX];
    (void)state;
    vfs_path(path, rig.path, "00000000000000000001.seg");
    sim_disk_flip(disk, path, origin.units[4].begin + 5, 1); /* its checksum */
    assert_int_equal(bring_units(3, 5, false), WAL_COPY_THERE);
}

/* ---------------------------------------------------------------- anew */

static void test_anew_gives_up_what_was_there(void **state)
{
    size_t unit = later_segment();
    (void)state;
    assert_int_equal(bring_units(unit, unit + 2, true), WAL_COPY_ANEW);
    assert_int_equal(rig.files.durable.end, origin.units[unit + 1].end);
    copy_rig_check(&rig, &origin);
    assert_int_equal(bring_units(unit, unit + 2, true), WAL_COPY_THERE);
    assert_int_equal(bring_units(unit, unit + 3, true), WAL_COPY_APPENDS);
    assert_int_equal(bring_units(1, 2, false), WAL_COPY_THERE); /* of what is gone */
    copy_rig_fill(&rig, &origin, 3);
    copy_rig_check(&rig, &origin);
    copy_rig_close(&rig);
    assert_int_equal(copy_rig_open(&rig, sim_disk_vfs(disk), data, origin.log, ORIGIN_SEGMENT), SH_OK);
    assert_int_equal(rig.files.durable.end, origin.bytes.len);
    assert_int_equal(rig.files.first_lsn, origin.units[unit].base_lsn);
}

static void test_a_first_segment_may_begin_later_when_anew(void **state)
{
    size_t unit = later_segment();
    (void)state;
    copy_rig_close(&rig);
    assert_int_equal(copy_rig_open(&rig, sim_disk_vfs(disk), "/other", origin.log, ORIGIN_SEGMENT), SH_OK);
    refused(SH_CONFLICT, origin.units[unit].begin, origin_bytes(&origin, unit, unit + 1), false);
    refused(SH_BAD_REQUEST, 0, origin_bytes(&origin, 1, 2), false);
    assert_int_equal(bring_units(unit, unit + 1, true), WAL_COPY_ANEW);
    copy_rig_fill(&rig, &origin, 3);
    copy_rig_check(&rig, &origin);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_noise_and_damage_are_refused),
        CASE(test_frames_of_another_log_are_refused),
        CASE(test_headers_that_lie_are_refused),
        CASE(test_a_header_within_what_is_there_is_refused),
        CASE(test_a_header_in_the_middle_is_refused),
        CASE(test_a_segment_begins_with_its_checkpoint_and_has_no_other),
        CASE(test_a_gap_says_what_is_wanted),
        CASE(test_another_chain_is_refused),
        CASE(test_what_is_there_is_passed_over),
        CASE(test_what_is_there_and_damaged_is_no_conflict),
        CASE(test_anew_gives_up_what_was_there),
        CASE(test_a_first_segment_may_begin_later_when_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
