/* Starting on a newest segment that is damaged: acknowledged entries that can be read stay, the damage is
 * entered and kept aside, the log goes on behind it, and no position gets two values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hlc.h"
#include "log.h"
#include "rot.h"

/* ---------------------------------------------------------------- the newest segment */

static void test_any_damaged_byte_below_the_mark_costs_its_frame_only(void **state)
{
    (void)state;
    for (uint64_t at = 0, end = 1; at < end; at += 7) {
        rot_start_over();
        rot_open();
        rot_append_noted(1, 20);
        end = rot_rig.log.offset;
        rig_close(&rot_rig);
        rot_bytes(1, at, 1);
        uint64_t lost = 0;
        for (uint64_t n = 1; n <= 20; n++)
            lost = rot_places[n].offset <= at && at < rot_places[n].end ? n : lost;
        rot_open();
        rot_assert_log(20, lost, lost > 0 ? 1 : 0);
        assert_int_equal(rot_damages(), 1);
        rot_append_anew(21, 25);
        rot_crash(SIM_LOSE_ALL);
        rot_open();
        rot_assert_log(25, lost, lost > 0 ? 1 : 0);
        struct log_damage_range range;
        assert_int_equal(rot_ranges(&range), 1);
        assert_int_equal(range.base_lsn, 1);
        assert_true(range.offset <= at && at < range.offset + range.bytes);
        assert_int_equal(range.next_lsn - range.first_lsn, lost > 0 ? 1 : 0);
        assert_int_equal(rot_kept().files, 1);
        assert_int_equal(rot_kept().bytes, range.bytes);
        assert_int_equal(rot_damages(), 1);
    }
}

/* The mark file is from the start; that entry 2 was durable is only said by entry 3, behind the damage:
 * whichever bit of its header is wrong, its length for one, or byte of its body. */
static void test_damage_is_seen_through_later_frames(void **state)
{
    (void)state;
    uint64_t bits = 1;
    for (uint64_t bit = 0; bit < bits; bit += bit < 8 * FRAME_HEADER_BYTES ? 1 : 8) {
        rot_start_over();
        rot_open();
        rot_append_noted(1, 3);
        bits = 8 * (rot_places[2].end - rot_places[2].offset);
        rot_crash(SIM_LOSE_NOTHING);
        rot_file(rot_path(1))[rot_places[2].offset + bit / 8] ^= (uint8_t)(1 << bit % 8);
        rot_open();
        rot_assert_log(3, 2, 1);
        rot_append_anew(4, 4);
        rot_assert_log(4, 2, 1);
    }
}

/* Only entry 3 says that entry 2 was durable, and stands itself where that ends; what was being written
 * behind it got its header onto the disk and no body. That header continues entry 3, which says nothing about
 * how far the damage goes: entry 3 was acknowledged and stays, whichever bit of entry 2 is wrong. */
static void test_a_torn_frame_does_not_hide_the_one_it_continues(void **state)
{
    (void)state;
    uint64_t bits = 1;
    for (uint64_t bit = 0; bit < bits; bit += bit < 8 * FRAME_HEADER_BYTES ? 1 : 8) {
        rot_start_over();
        rot_open();
        rot_append_noted(1, 3);
        bits = 8 * (rot_places[2].end - rot_places[2].offset);
        rig_append(&rot_rig, 7, 1, 4, rot_payload(4));
        assert_true(rig_write(&rot_rig)); /* never synced */
        rot_crash(SIM_LOSE_NOTHING);
        uint8_t *torn = rot_file(rot_path(1)) + rot_places[3].end;
        memset(torn + FRAME_HEADER_BYTES, 0, 6 + ROT_PAYLOAD);
        rot_file(rot_path(1))[rot_places[2].offset + bit / 8] ^= (uint8_t)(1 << bit % 8);
        rot_keep(rot_path(1));
        rot_open();
        rot_assert_log(3, 2, 1);
        assert_int_equal(rot_rig.log.segment.base_lsn, 1);
        rot_append_anew(4, 4);
        rot_assert_log(4, 2, 1);
    }
}

/* Entry 2's checksum is damaged, and another byte of its header: its count for one, so that the LSN behind it
 * is wrong. */
static void lose_two_bytes(uint64_t at, uint64_t last)
{
    rot_start_over();
    rot_open();
    rot_append_noted(1, last);
    rig_close(&rot_rig);
    rot_bytes(1, rot_places[2].offset + 4, 1);
    rot_bytes(1, rot_places[2].offset + at, 1);
    assert_int_equal(rot_damages(), 1);
    rot_open();
    rot_assert_log(last, 2, 1);
    assert_int_equal(rot_rig.log.segment.base_lsn, 1);
}

/* The valid frame that stands where the length says stays, whether the log ends behind it or goes on. */
static void test_a_damaged_checksum_and_another_byte_cost_their_frame_only(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < FRAME_HEADER_BYTES; at++) {
        if (at >= 4 && at < 12) /* checksum; length: docs/wal-format.md, "Payloads that imitate frames" */
            continue;
        lose_two_bytes(at, 3);
        lose_two_bytes(at, 4);
    }
}

/* The checkpoint's length is damaged, and so is the frame behind it: those that follow are found in what
 * looks like its body, since no client wrote that. */
static void test_nothing_hides_in_a_checkpoint(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 10);
    rig_close(&rot_rig);
    rot_file(rot_path(1))[SEGMENT_HEADER_BYTES + 9] ^= 0x40;
    rot_entry(1);
    rot_open();
    rot_assert_log(10, 1, 1);
    assert_int_equal(rot_rig.log.segment.base_lsn, 1);
}

/* Damage, good frames, and a torn tail behind them. */
static void test_a_torn_tail_behind_damage_is_cut(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 10);
    uint64_t end = rot_rig.log.offset;
    rot_crash(SIM_LOSE_NOTHING);
    rot_entry(4);
    memset(rot_file(rot_path(1)) + end, 0xee, 300);
    rot_keep(rot_path(1));
    rot_open();
    rot_assert_log(10, 4, 1);
    assert_int_equal(rot_rig.log.segment.base_lsn, 1);
    assert_int_equal(rot_rig.log.offset, end);
    assert_int_equal(rot_kept().files, 2);
    rot_append_anew(11, 12);
    rot_crash(SIM_LOSE_ALL);
    rot_open();
    rot_assert_log(12, 4, 1);
}

static void test_several_damaged_ranges(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 30);
    rig_close(&rot_rig);
    rot_bytes(1, 10, 1); /* the header */
    rot_entry(5);
    rot_entry(6);
    rot_entry(20);
    rot_open();
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 3);
    assert_int_equal(rot_damages(), 3);
    rot_append_anew(31, 40);
    rig_close(&rot_rig);
    rot_open();
    assert_int_equal(rot_ranges(&range), 3);
    assert_int_equal(rot_kept().files, 3);
    assert_int_equal(rot_rig.log.durable.lsn, 40);
}

/* Bytes behind the end never held anything: whatever is there is cut like a torn tail. */
static void test_flips_in_the_empty_part_do_no_harm(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 10);
    uint64_t end = rot_rig.log.offset;
    rig_close(&rot_rig);
    for (uint64_t at = end; at < ROT_SEGMENT; at += 1 + (at - end) * 3) {
        rot_bytes(1, at, 1);
        assert_int_equal(rot_damages(), 0);
        rot_open();
        rot_assert_log(10, 0, 0);
        struct log_damage_range range;
        assert_int_equal(rot_ranges(&range), 0);
        rig_close(&rot_rig);
    }
}

/* ---------------------------------------------------------------- bad up to the mark */

static void test_rot_of_the_last_frame_below_the_mark(void **state)
{
    (void)state;
    uint64_t end = rot_make_ten();
    rot_entry(10);
    rot_assert_goes_on(10, 10, end);
}

static void test_a_file_cut_below_the_mark(void **state)
{
    (void)state;
    uint64_t end = rot_make_ten();
    sim_disk_resize(rot_disk, rot_path(1), rot_places[10].end - 1);
    rot_assert_goes_on(10, 10, end);
    rot_start_over();
    end = rot_make_ten();
    sim_disk_resize(rot_disk, rot_path(1), rot_places[7].offset);
    rot_assert_goes_on(7, 10, end);
    rot_start_over();
    end = rot_make_ten();
    sim_disk_resize(rot_disk, rot_path(1), 0);
    rot_assert_goes_on(1, 10, end);
}

static void test_zeros_below_the_mark(void **state)
{
    (void)state;
    uint64_t end = rot_make_ten();
    memset(rot_file(rot_path(1)) + rot_places[9].offset + 5, 0,
           rot_places[10].end - rot_places[9].offset - 5);
    rot_keep(rot_path(1));
    rot_assert_goes_on(9, 10, end);
}

static void test_an_older_copy_of_the_segment(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 3);
    rot_crash(SIM_LOSE_NOTHING);
    struct buf old = {0};
    buf_append(&old, rot_file(rot_path(1)), ROT_SEGMENT);
    rot_open();
    rot_append_noted(4, 4);
    uint64_t end = rot_rig.log.durable.end;
    rig_close(&rot_rig);
    memcpy(rot_file(rot_path(1)), old.data, old.len);
    rot_keep(rot_path(1));
    buf_free(&old);
    rot_assert_goes_on(4, 4, end);
}

/* Makes a frame another one, with a right checksum: its last byte is changed, and it follows `previous`. */
static uint32_t exchange_frame(uint64_t n, uint32_t previous)
{
    uint8_t *frame = rot_file(rot_path(1)) + rot_places[n].offset;
    struct frame_header h;
    size_t size;
    uint32_t salt = segment_salt(rot_rig.dir.identity.log, 1);
    assert_int_equal(frame_verify(slice_of(frame, ROT_SEGMENT), salt, ROT_SEGMENT, &h, &size), SH_OK);
    frame[size - 1] ^= 1;
    h.previous_checksum = previous != 0 ? previous : h.previous_checksum;
    h.durable_checksum = previous != 0 ? previous : h.durable_checksum;
    frame_encode(&h, salt, slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes), frame);
    rot_keep(rot_path(1));
    return h.checksum;
}

/* The same length and a right checksum, but not the frame that was marked: that position is never used again.
 */
static void test_another_frame_in_place_of_the_marked_one(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 3);
    uint64_t end = rot_rig.log.durable.end;
    rig_close(&rot_rig);
    exchange_frame(3, 0);
    assert_int_equal(rot_damages(), 1);
    rot_open();
    struct log_damage_range range;
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.offset, rot_places[3].offset);
    assert_int_equal(rot_rig.log.segment.position, end);
    assert_int_equal(rot_damages(), 1);
    rot_append_anew(4, 5);
}

/* A frame right at the mark that continues another chain than the mark's is no way to go on. */
static void test_a_frame_at_the_mark_that_does_not_continue_it(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 3);
    uint64_t end = rot_rig.log.durable.end;
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    rot_append_noted(4, 4);
    rot_crash(SIM_LOSE_NOTHING);
    exchange_frame(4, exchange_frame(3, 0));
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, 4);
    assert_int_equal(rot_rig.log.segment.position, end);
}

/* Whole frames above the mark, which the damage reaches over: never known to be durable, kept aside. */
static void test_what_lies_above_the_mark_is_kept_aside(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 5);
    uint64_t end = rot_rig.log.durable.end, offset = rot_rig.log.offset;
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    for (uint64_t n = 6; n <= 8; n++)
        rig_append(&rot_rig, 7, 1, n, rot_payload(n));
    assert_true(rig_write(&rot_rig)); /* one group, never synced */
    uint64_t extent = rot_rig.log.offset;
    while (rot_file(rot_path(1))[extent - 1] == 0)
        extent--;
    rot_crash(SIM_LOSE_NOTHING);
    rot_bytes(1, rot_places[5].offset + 20, rot_places[5].end - rot_places[5].offset);
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, 6);
    assert_int_equal(rot_rig.log.segment.position, end);
    rot_assert_log(5, 5, 1);
    assert_int_equal(sim_disk_file(rot_disk, rot_path(1)).len, offset);
    assert_int_equal(rot_kept().files, 2);
    assert_int_equal(rot_kept().bytes, extent - rot_places[5].offset);
    rot_append_anew(6, 7);
    rot_assert_log(7, 5, 1);
}

/* A reading of the clock that was seen is never given again, in frames that are cut too. */
static void test_hlc_never_goes_back_over_damage(void **state)
{
    (void)state;
    rot_open();
    rot_append_noted(1, 4);
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    rot_rig.now_ns = clock_real_ns() + 3600 * NS_PER_S;
    rig_append(&rot_rig, 7, 1, 5, rot_payload(5));
    rig_append(&rot_rig, 7, 1, 6, rot_payload(6));
    assert_true(rig_write(&rot_rig));
    rot_crash(SIM_LOSE_NOTHING);
    rot_bytes(1, rot_places[4].offset + 20, rot_places[4].end - rot_places[4].offset); /* into entry 5 */
    uint64_t hlc = 0;
    struct frame_header h;
    size_t size, at = rot_places[4].end + FRAME_HEADER_BYTES + 6 + ROT_PAYLOAD;
    assert_int_equal(frame_verify(slice_of(rot_file(rot_path(1)) + at, ROT_SEGMENT - at),
                                  segment_salt(rot_rig.dir.identity.log, 1), ROT_SEGMENT, &h, &size),
                     SH_OK);
    hlc = h.hlc;
    rot_open();
    uint64_t number = rig_append(&rot_rig, 0, 1, 0, rot_payload(5));
    assert_true(rig_commit(&rot_rig));
    assert_int_equal(rot_rig.answers[number].reply.lsn, 5);
    assert_true(rot_rig.answers[number].reply.hlc > hlc);
}

/* A client's payload that is a frame, with the last reading of the clock that there can be, in a frame whose
 * header is torn: the clock would begin again at 0 behind it. */
static void test_what_a_payload_says_of_the_clock_is_believed_for_a_day(void **state)
{
    (void)state;
    uint8_t bytes[FRAME_HEADER_BYTES];
    struct frame_header forged = {.kind = FRAME_CLOCK, .base_lsn = 5, .hlc = UINT64_MAX};
    rot_open();
    rot_append_noted(1, 4);
    assert_int_equal(wal_log_write_mark(&rot_rig.log), 0);
    frame_encode(&forged, segment_salt(rot_rig.dir.identity.log, 1), (struct slice){0}, bytes);
    rig_append(&rot_rig, 7, 1, 5, slice_of(bytes, sizeof bytes));
    assert_true(rig_write(&rot_rig));
    rot_crash(SIM_LOSE_NOTHING);
    rot_bytes(1, rot_places[4].end, FRAME_HEADER_BYTES);
    rot_open();
    uint64_t number = rig_append(&rot_rig, 0, 1, 0, rot_payload(5));
    assert_true(rig_commit(&rot_rig));
    uint64_t hlc = rot_rig.answers[number].reply.hlc;
    assert_int_equal(rot_rig.answers[number].reply.lsn, 5);
    assert_in_range(hlc_ms(hlc), rot_rig.now_ns / NS_PER_MS,
                    (clock_real_ns() + 86400 * NS_PER_S) / NS_PER_MS + 1);
    rot_assert_log(5, 1, 0);
}

#define SALVAGE_TEST(f) cmocka_unit_test_setup_teardown(f, rot_setup, rot_teardown)

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        SALVAGE_TEST(test_any_damaged_byte_below_the_mark_costs_its_frame_only),
        SALVAGE_TEST(test_damage_is_seen_through_later_frames),
        SALVAGE_TEST(test_a_torn_frame_does_not_hide_the_one_it_continues),
        SALVAGE_TEST(test_a_damaged_checksum_and_another_byte_cost_their_frame_only),
        SALVAGE_TEST(test_nothing_hides_in_a_checkpoint),
        SALVAGE_TEST(test_a_torn_tail_behind_damage_is_cut),
        SALVAGE_TEST(test_several_damaged_ranges),
        SALVAGE_TEST(test_flips_in_the_empty_part_do_no_harm),
        SALVAGE_TEST(test_rot_of_the_last_frame_below_the_mark),
        SALVAGE_TEST(test_a_file_cut_below_the_mark),
        SALVAGE_TEST(test_zeros_below_the_mark),
        SALVAGE_TEST(test_an_older_copy_of_the_segment),
        SALVAGE_TEST(test_another_frame_in_place_of_the_marked_one),
        SALVAGE_TEST(test_a_frame_at_the_mark_that_does_not_continue_it),
        SALVAGE_TEST(test_what_lies_above_the_mark_is_kept_aside),
        SALVAGE_TEST(test_hlc_never_goes_back_over_damage),
        SALVAGE_TEST(test_what_a_payload_says_of_the_clock_is_believed_for_a_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
