/* Syncs and comparisons that little else rests on: what is told to be on the disk is there, and files that
 * aren't what their names and neighbours say are noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 16 << 10, PAYLOAD = 500 };
static const char data[] = "/data";

static struct sim_disk *disk;
static struct wal_rig rig;

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

static void open_rig(void)
{
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
}

static void append_entries(unsigned count)
{
    static const uint8_t payload[PAYLOAD];
    for (unsigned i = 0; i < count; i++) {
        rig_append(&rig, 0, 1, 0, slice_of(payload, sizeof payload));
        assert_true(rig_commit(&rig));
    }
}

/* The path of a file in the log's folder. */
static const char *in_log(const char *name)
{
    static char path[PATH_MAX];
    vfs_path(path, rig.dir.log, name);
    return path;
}

static const char *segment_path(uint64_t base)
{
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    return in_log(name);
}

static uint8_t *bytes_of(const char *path)
{
    struct slice file = sim_disk_file(disk, path);
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

/* ---------------------------------------------------------------- syncs */

static void test_the_next_segment_is_synced_before_it_is_announced(void **state)
{
    (void)state;
    open_rig();
    assert_int_equal(sim_disk_file(disk, in_log("next.tmp")).len, SEGMENT);
    assert_int_equal(sim_disk_unsynced(disk, in_log("next.tmp")), 0);
}

static void test_a_sealed_segment_has_its_length_for_good(void **state)
{
    (void)state;
    open_rig();
    append_entries(60);
    assert_true(rig.log.segment.base_lsn > 1);
    assert_true(sim_disk_file(disk, segment_path(1)).len < SEGMENT);
    assert_int_equal(sim_disk_unsynced(disk, segment_path(1)), 0);
}

static void test_a_segment_that_recovery_seals_has_its_length_for_good(void **state)
{
    (void)state;
    open_rig();
    append_entries(30);
    assert_true(rig.log.segment.base_lsn > 1);
    size_t sealed = sim_disk_file(disk, segment_path(1)).len;
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_NOTHING, 1);
    sim_disk_resize(disk, segment_path(1), SEGMENT); /* as it was before it was sealed */
    open_rig();
    assert_int_equal(sim_disk_file(disk, segment_path(1)).len, sealed);
    assert_int_equal(sim_disk_unsynced(disk, segment_path(1)), 0);
}

/* The last marked frame is damaged: the log goes on in another segment, and the one with the damage is
 * closed. */
static void test_a_segment_that_is_closed_behind_damage_has_its_length_for_good(void **state)
{
    (void)state;
    open_rig();
    append_entries(5);
    size_t end = rig.log.offset;
    rig_close(&rig);
    sim_disk_flip(disk, segment_path(1), end - 1, 1);
    open_rig();
    assert_int_equal(rig.log.segment.base_lsn, 6);
    assert_int_equal(sim_disk_file(disk, segment_path(1)).len, end);
    assert_int_equal(sim_disk_unsynced(disk, segment_path(1)), 0);
}

/* Killed at one of its calls; the next start goes on in what that has left, synced or not; then power is
 * lost. */
static bool first_start_killed_at(uint64_t call)
{
    const struct vfs *fs = sim_disk_vfs(disk);
    sim_disk_stop_after(disk, call);
    bool killed = rig_open(&rig, fs, data, SEGMENT) != EXIT_DONE;
    if (!killed)
        rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_NOTHING, 1);
    open_rig();
    append_entries(3);
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    open_rig();
    assert_int_equal(rig.log.durable.lsn, 3);
    return killed;
}

static void test_a_killed_first_start_and_then_a_loss_of_power(void **state)
{
    (void)state;
    bool killed = true;
    for (uint64_t call = 0; killed; call++) {
        killed = first_start_killed_at(call);
        teardown(NULL);
        setup(NULL);
    }
}

/* ---------------------------------------------------------------- comparisons */

static void test_a_segment_under_another_name_or_of_another_log_is_refused(void **state)
{
    (void)state;
    open_rig();
    append_entries(30);
    const struct vfs *fs = sim_disk_vfs(disk);
    uint64_t newest = rig.log.segment.base_lsn, file_bytes;
    struct id16 other = rig.log.uuid;
    struct segment_header header;
    int fd;
    other.bytes[0] ^= 1;
    assert_int_equal(segment_open(fs, rig.dir.log, other, 1, O_RDONLY, &fd, &header, &file_bytes),
                     SH_CORRUPT);
    memcpy(bytes_of(segment_path(newest)), bytes_of(segment_path(1)), SEGMENT_HEADER_BYTES);
    assert_int_equal(segment_open(fs, rig.dir.log, rig.log.uuid, newest, O_RDONLY, &fd, &header, &file_bytes),
                     SH_CORRUPT);
}

/* Changes what the newest segment's header says of the frame before it; its own checksum is right. */
static void forge_previous_checksum(uint32_t more)
{
    struct segment_header h;
    uint8_t *bytes = bytes_of(segment_path(rig.log.segment.base_lsn));
    assert_int_equal(segment_header_decode(slice_of(bytes, SEGMENT_HEADER_BYTES), &h), SH_OK);
    h.previous_checksum += more;
    segment_header_encode(&h, bytes);
}

/* Renames the newest segment as if there were entries before it that are in no other. */
static void forge_base(uint64_t more)
{
    char from[PATH_MAX];
    struct segment_header h;
    const struct vfs *fs = sim_disk_vfs(disk);
    snprintf(from, sizeof from, "%s", segment_path(rig.log.segment.base_lsn));
    assert_int_equal(segment_header_decode(slice_of(bytes_of(from), SEGMENT_HEADER_BYTES), &h), SH_OK);
    h.base_lsn += more;
    h.salt = segment_salt(h.log, h.base_lsn);
    segment_header_encode(&h, bytes_of(from));
    assert_int_equal(fs->rename(fs, from, segment_path(h.base_lsn)), 0);
}

struct named {
    unsigned missing, broken;
};

static void note_damage(void *arg, const struct log_damage *damage)
{
    struct named *named = arg;
    named->missing += strstr(damage->what, "frames are missing before this segment") != NULL;
    named->broken += strstr(damage->what, "doesn't continue the chain") != NULL;
}

static struct named verify_names(void)
{
    struct named named = {0};
    struct log_verify_options options = {.on_damage = note_damage, .arg = &named};
    struct log_verify_report report;
    log_verify(sim_disk_vfs(disk), data, &options, &report);
    return named;
}

static void test_verify_compares_where_segments_join(void **state)
{
    (void)state;
    open_rig();
    append_entries(60);
    struct named good = verify_names();
    assert_int_equal(good.missing + good.broken, 0);
    forge_previous_checksum(1);
    struct named broken = verify_names();
    assert_true(broken.missing == 0 && broken.broken == 1);
    forge_previous_checksum((uint32_t)-1);
    forge_base(7);
    struct named missing = verify_names();
    assert_true(missing.missing == 1 && missing.broken == 0);
}

/* Leaves the newest segment with one frame, valid and marked, that isn't its checkpoint. */
static void forge_first_frame(void)
{
    const char *path = segment_path(rig.log.segment.base_lsn);
    uint8_t *frame = bytes_of(path) + SEGMENT_HEADER_BYTES, slots[2 * MARK_SLOT_BYTES] = {0};
    uint32_t salt = rig.log.segment.salt;
    struct frame_header h;
    size_t size;
    assert_int_equal(frame_verify(slice_of(frame, SEGMENT / 2), salt, SEGMENT, &h, &size), SH_OK);
    assert_int_equal(h.kind, FRAME_CHECKPOINT);
    h.kind = FRAME_CLOCK;
    frame_encode(&h, salt, slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes), frame);
    memset(frame + size, 0, SEGMENT - SEGMENT_HEADER_BYTES - size);
    struct log_mark mark = {
        .log = rig.log.uuid,
        .counter = 1,
        .durable_end = rig.log.segment.position + SEGMENT_HEADER_BYTES + size,
        .durable_lsn = h.base_lsn - 1,
        .checksum = h.checksum,
    };
    log_mark_encode(&mark, slots + MARK_SLOT_BYTES);
    assert_int_equal(vfs_replace_file(rig.fs, rig.dir.log, "mark", slots, sizeof slots), 0);
}

static void append_of_a_producer(uint64_t from, uint64_t to)
{
    static const uint8_t payload[PAYLOAD];
    for (uint64_t i = from; i <= to; i++) {
        rig_append(&rig, 7, 1, i, slice_of(payload, sizeof payload));
        assert_true(rig_commit(&rig));
    }
}

/* What the log is like cannot be known from it: neither its LSNs nor its producers begin anew. */
static void test_a_segment_without_its_checkpoint_starts_no_log_anew(void **state)
{
    (void)state;
    open_rig();
    append_of_a_producer(1, 30);
    uint64_t base = rig.log.segment.base_lsn;
    forge_first_frame();
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_NOTHING, 1);
    enum service_exit code = rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT);
    assert_int_equal(code, EXIT_DONE);
    append_of_a_producer(base, base); /* what it had sent next is gone with the forged segment */
    assert_int_equal(rig.answers[1].reply.lsn, base);
    append_of_a_producer(base - 1, base - 1);
    assert_int_equal(rig.answers[2].reply.lsn, base - 1);
}

/* Without header, checkpoint and mark: frames that are left say where the segment stands and how far it was
 * durable. */
static void test_frames_of_a_lost_segment_tell_the_mark(void **state)
{
    (void)state;
    open_rig();
    append_entries(40);
    uint64_t last = rig.log.durable.lsn;
    assert_true(rig.log.offset > 6000);
    rig_kill(&rig);
    memset(bytes_of(segment_path(rig.log.segment.base_lsn)), 0, 4096);
    memset(bytes_of(in_log("mark")), 0, 2 * (size_t)MARK_SLOT_BYTES);
    sim_disk_crash(disk, SIM_LOSE_NOTHING, 1);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig.log.durable.lsn >= last - 1);
}

int main(void)
{
    log_set_level((enum log_level)(LOG_ERROR + 1));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_next_segment_is_synced_before_it_is_announced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_sealed_segment_has_its_length_for_good, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_that_recovery_seals_has_its_length_for_good, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_that_is_closed_behind_damage_has_its_length_for_good,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_killed_first_start_and_then_a_loss_of_power, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_under_another_name_or_of_another_log_is_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_verify_compares_where_segments_join, setup, teardown),
        cmocka_unit_test_setup_teardown(test_frames_of_a_lost_segment_tell_the_mark, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_segment_without_its_checkpoint_starts_no_log_anew, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
