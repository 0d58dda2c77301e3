/* Putting frames of a damaged range back: what is taken, what becomes of the old bytes, and faults and
 * crashes at every step. */
#include <errno.h>

#include "repair_story.h"

static bool add_copy(void *arg, const char *name)
{
    char path[PATH_MAX];
    vfs_path(path, rig.dir.quarantine, name);
    *(struct slice *)arg = sim_disk_file(disk, path);
    return true;
}

/* The bytes of a file in the quarantine; empty when there is none. */
static struct slice a_copy(void)
{
    struct slice copy = {0};
    rig.fs->list(rig.fs, rig.dir.quarantine, add_copy, &copy);
    return copy;
}

/* ---------------------------------------------------------------- what is taken */

static void test_a_frame_in_the_middle_of_a_segment(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    assert_repaired(send_saved(k, k->at[20], k->at[21]), k, k->at[21]);
}

static void test_the_last_frames_of_a_segment(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, k->frames - 2);
    flip_frame(k, k->frames - 1);
    assert_repaired(send_saved(k, k->at[k->frames - 2], k->at[k->frames]), k, k->at[k->frames]);
}

static void test_a_header(void **state)
{
    (void)state;
    for (size_t i = 0; i < kept_count; i++) { /* the active segment's too */
        flip(&kept[i], 41);
        assert_repaired(send_saved(&kept[i], 0, SEGMENT_HEADER_BYTES), &kept[i], SEGMENT_HEADER_BYTES);
    }
}

static void test_a_checkpoint(void **state)
{
    (void)state;
    for (size_t i = 0; i < kept_count; i++) {
        flip_frame(&kept[i], 0);
        assert_repaired(send_saved(&kept[i], kept[i].at[0], kept[i].at[1]), &kept[i], kept[i].at[1]);
    }
}

static void test_header_and_first_frames(void **state)
{
    (void)state;
    memset(bytes_of(kept[2].base), 0, kept[2].at[3]);
    assert_repaired(send_saved(&kept[2], 0, kept[2].at[3]), &kept[2], kept[2].at[3]);
}

static void test_a_frame_of_the_active_segment(void **state)
{
    (void)state;
    const struct kept *k = &kept[kept_count - 1];
    flip_frame(k, 2);
    assert_repaired(send_saved(k, k->at[2], k->at[3]), k, k->at[3]);
}

/* The log went on in a new segment, at its durable end: what is missing before can still come back. */
static void test_what_the_log_went_on_behind(void **state)
{
    (void)state;
    const struct kept *k = &kept[kept_count - 1];
    uint64_t last = k->frames - 1, seen = 0;
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    for (unsigned missing = 0; missing < 2; missing++) { /* the last frame; then the whole file */
        rig_kill(&rig);
        if (missing)
            assert_int_equal(rig.fs->unlink(rig.fs, path_of(k->base)), 0);
        else
            flip_frame(k, last);
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
        start_repair();
        assert_int_equal(rig.log.segment.base_lsn, ENTRIES + 1);
        uint64_t from = missing ? 0 : k->at[last];
        assert_int_equal(send_saved(k, from, k->at[k->frames]), SH_OK);
        assert_true(reply.whole);
        assert_int_equal(verify(), SH_OK);
        seen = 0;
        assert_int_equal(rig_read_all(rig.fs, data, rig.log.durable.end, check_entry, &seen), SH_OK);
        assert_int_equal(seen, ENTRIES);
    }
}

static void test_a_whole_segment(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    memset(bytes_of(k->base), 0x5a, k->bytes.len);
    assert_repaired(send_saved(k, 0, k->bytes.len), k, k->bytes.len);
}

static void test_a_segment_in_parts(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    memset(bytes_of(k->base), 0, k->bytes.len);
    assert_int_equal(send_saved(k, 0, SEGMENT_HEADER_BYTES), SH_OK);
    for (size_t i = 0; i < k->frames; i++) {
        assert_false(reply.whole);
        assert_int_equal(reply.next, k->at[i]);
        if (i % 7 == 0) /* nothing needs to be remembered */
            start_repair();
        assert_int_equal(send_saved(k, k->at[i], k->at[i + 1]), SH_OK);
    }
    assert_repaired(SH_OK, k, k->bytes.len);
    assert_int_equal(reply.next_lsn, kept[2].base);
}

static void test_a_file_that_is_missing(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < kept_count; i++) {
        bool trimmed = i == 0;
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s", path_of(kept[i].base));
        assert_int_equal(rig.fs->unlink(rig.fs, path), 0);
        if (trimmed) { /* as far as anybody can see */
            assert_refused(send_saved(&kept[i], 0, kept[i].bytes.len), SH_TRIMMED, "begins behind");
            assert_int_equal(refusal.expected, kept[1].base);
            int fd = rig.fs->open(rig.fs, path, O_WRONLY | O_CREAT, 0640); /* damage, now */
            assert_true(fd >= 0);
            rig.fs->close(rig.fs, fd);
        }
        assert_repaired(send_saved(&kept[i], 0, kept[i].bytes.len), &kept[i], kept[i].bytes.len);
    }
}

static void test_two_files_that_are_missing_side_by_side(void **state)
{
    (void)state;
    const struct kept *a = &kept[1], *b = &kept[2];
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(a->base)), 0);
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(b->base)), 0);
    assert_refused(send_saved(b, 0, b->at[5]), SH_CONFLICT, "comes first");
    assert_int_equal(send_saved(a, 0, a->at[5]), SH_OK); /* a part first */
    assert_false(reply.whole);
    assert_int_equal(send_saved(a, a->at[5], a->bytes.len), SH_OK);
    assert_false(reply.whole); /* nobody knows that this is its end */
    assert_int_equal(reply.next_lsn, b->base);
    assert_repaired(send_saved(b, 0, b->bytes.len), b, b->bytes.len);
}

static void test_a_file_that_was_cut_short(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    sim_disk_resize(disk, path_of(k->base), k->at[10] + 7);
    assert_repaired(send_saved(k, k->at[10], k->bytes.len), k, k->bytes.len);
    sim_disk_resize(disk, path_of(k->base), 10);
    assert_repaired(send_saved(k, 0, k->bytes.len), k, k->bytes.len);
    sim_disk_resize(disk, path_of(k->base), k->at[10]);
    assert_repaired(send_saved(k, k->at[10], k->bytes.len), k, k->bytes.len);
}

static void test_several_ranges_of_one_segment(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 10);
    flip_frame(k, 20);
    flip_frame(k, 30);
    assert_int_equal(send_saved(k, k->at[20], k->at[21]), SH_OK); /* in any order */
    assert_true(reply.whole);
    assert_int_equal(send_saved(k, k->at[30], k->at[31]), SH_OK);
    assert_repaired(send_saved(k, k->at[10], k->at[11]), k, k->at[11]);
    flip_frame(k, 10);
    flip_frame(k, 20);
    assert_repaired(send_saved(k, k->at[5], k->at[25]), k, k->at[25]); /* good ones among them */
}

/* Both sides of a segment's end at once: the front one first, or else all of the other in one message. */
static void test_damage_on_both_sides_of_a_segments_end(void **state)
{
    (void)state;
    const struct kept *a = &kept[1], *b = &kept[2];
    flip_frame(a, a->frames - 1);
    memset(bytes_of(b->base), 0, b->at[5]);
    assert_refused(send_saved(b, 0, b->at[3]), SH_CONFLICT, "comes first");
    assert_int_equal(send_saved(b, 0, b->at[5]), SH_OK);
    assert_true(reply.whole);
    memset(bytes_of(b->base), 0, b->at[5]);
    assert_int_equal(send_saved(a, a->at[a->frames - 1], a->bytes.len), SH_OK);
    assert_false(reply.whole); /* the next segment doesn't tell where this one ends */
    assert_int_equal(send_saved(b, 0, b->at[3]), SH_OK);
    assert_repaired(send_saved(b, b->at[3], b->at[5]), b, b->at[5]);
}

static void test_asking_again_does_no_harm(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    assert_repaired(send_saved(k, k->at[20], k->at[21]), k, k->at[21]);
    assert_repaired(send_saved(k, k->at[20], k->at[21]), k, k->at[21]);
    assert_repaired(send_saved(k, 0, k->bytes.len), k, k->bytes.len);
    assert_repaired(send_saved(k, 0, SEGMENT_HEADER_BYTES), k, SEGMENT_HEADER_BYTES);
}

/* A client may have put a frame into a payload, and guessed the salt: it bounds nothing. */
static void test_a_frame_in_a_payload_bounds_nothing(void **state)
{
    (void)state;
    struct buf fake = {0};
    struct frame_header h = {.kind = FRAME_DATA, .base_lsn = 5000, .count = 1, .body_bytes = 4};
    buf_reserve(&fake, FRAME_HEADER_BYTES);
    fake.len = FRAME_HEADER_BYTES;
    buf_append(&fake, "fake", 4);
    frame_encode(&h, rig.log.segment.salt, slice_of(fake.data + FRAME_HEADER_BYTES, 4), fake.data);
    rig_append(&rig, 8, 1, 1, buf_slice(&fake));
    rig_append(&rig, 8, 1, 2, payload_of(1));
    assert_true(rig_commit(&rig));
    buf_free(&fake);
    struct kept *k = &kept[kept_count - 1];
    keep(k, k->base);
    size_t frame = k->frames - 2;
    bytes_of(k->base)[k->at[frame]] ^= 1; /* its header: the search cannot know where it ends */
    assert_int_equal(send_saved(k, k->at[frame], k->at[frame + 1]), SH_OK);
    assert_true(reply.whole);
    assert_memory_equal(bytes_of(k->base), k->bytes.data, k->bytes.len);
}

static void test_a_reader_sees_what_was_repaired(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    struct log_reader *reader = log_reader_open(rig.fs, rig.dir.log, rig.dir.identity.log);
    struct log_read read = {
        .from = k->base + 10, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
    struct buf out = {0};
    flip_frame(k, 11);
    assert_int_equal(log_reader_read(reader, &read, &out), SH_CORRUPT);
    assert_int_equal(send_saved(k, k->at[11], k->at[12]), SH_OK);
    assert_int_equal(log_reader_read(reader, &read, &out), SH_OK);
    assert_int_equal(read.next, k->base + 11);
    buf_free(&out);
    log_reader_close(reader);
}

/* ---------------------------------------------------------------- the old bytes, the register */

static void test_the_old_bytes_are_kept(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    struct buf old = {0};
    buf_append(&old, bytes_of(k->base) + k->at[20], k->at[21] - k->at[20]);
    assert_repaired(send_saved(k, k->at[15], k->at[21]), k, k->at[21]);
    assert_true(slice_equal(a_copy(), buf_slice(&old))); /* and none of the good ones */
    buf_free(&old);
}

static void enter(const struct kept *k, uint64_t from, uint64_t to, int fd)
{
    struct log_damage_range range = {.base_lsn = k->base,
                                     .offset = from,
                                     .bytes = to - from,
                                     .position = from,
                                     .first_lsn = 1,
                                     .next_lsn = 2};
    assert_int_equal(wal_damage_add(repair.damage, &range, fd), 0);
}

static size_t registered(void)
{
    size_t count;
    free(wal_damage_list(repair.damage, &count));
    return count;
}

static bool count_name(void *arg, const char *name)
{
    (void)name;
    ++*(size_t *)arg;
    return true;
}

static size_t copies(void)
{
    size_t count = 0;
    rig.fs->list(rig.fs, rig.dir.quarantine, count_name, &count);
    return count;
}

static void test_a_copy_that_the_register_names_is_enough(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    flip_frame(k, 40);
    int fd = rig.fs->open(rig.fs, path_of(k->base), O_RDONLY, 0);
    enter(k, k->at[20], k->at[21], fd);
    enter(k, k->at[40], k->at[41], -1); /* no room for a copy then */
    rig.fs->close(rig.fs, fd);
    assert_int_equal(copies(), 1);
    assert_int_equal(send_saved(k, k->at[20], k->at[21]), SH_OK);
    assert_int_equal(copies(), 1);
    assert_int_equal(send_saved(k, k->at[40], k->at[41]), SH_OK);
    assert_int_equal(copies(), 2);
}

static void test_a_repaired_range_goes_out_of_the_register(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    flip_frame(k, 21);
    enter(k, k->at[20], k->at[22], -1);
    assert_int_equal(send_saved(k, k->at[20], k->at[21]), SH_OK);
    assert_int_equal(registered(), 1);
    struct log_damage_range left;
    assert_true(wal_damage_find(repair.damage, k->base, 0, SEGMENT, &left));
    assert_int_equal(left.offset, k->at[21]);
    assert_int_equal(send_saved(k, k->at[21], k->at[22]), SH_OK);
    assert_int_equal(registered(), 0);
    rig_kill(&rig);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    start_repair();
    assert_int_equal(registered(), 0);
}

/* ---------------------------------------------------------------- the index */

static struct vfs spying;
static char index_path[PATH_MAX];
static unsigned writes;
static bool keeps_index;

static bool has_index(void)
{
    int fd = rig.fs->open(rig.fs, index_path, O_RDONLY, 0);
    if (fd >= 0)
        rig.fs->close(rig.fs, fd);
    return fd >= 0;
}

/* The repair's bytes are written once there is no index. (Its copy goes out of the segment, before.) */
static ssize_t spying_pwritev(const struct vfs *vfs, int fd, const struct iovec *iov, int count,
                              int64_t offset)
{
    (void)vfs;
    writes++;
    assert_false(has_index());
    return rig.fs->pwritev(rig.fs, fd, iov, count, offset);
}

static int spying_unlink(const struct vfs *vfs, const char *path)
{
    (void)vfs;
    if (strcmp(path, index_path) == 0 && keeps_index)
        return -EROFS;
    return rig.fs->unlink(rig.fs, path);
}

static void test_the_index_goes_before_bytes_change(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    for (unsigned missing = 0; missing < 2; missing++) {
        snprintf(index_path, sizeof index_path, "%s", path_of(k->base));
        memcpy(strrchr(index_path, '.'), ".idx", 5);
        rig.fs->close(rig.fs, rig.fs->open(rig.fs, index_path, O_WRONLY | O_CREAT, 0640));
        flip_frame(k, 20);
        int fd = rig.fs->open(rig.fs, path_of(k->base), O_RDONLY, 0);
        enter(k, k->at[20], k->at[21], fd); /* there is a copy: only the repair writes */
        rig.fs->close(rig.fs, fd);
        if (missing)
            assert_int_equal(rig.fs->unlink(rig.fs, path_of(k->base)), 0);
        spying = *rig.fs;
        spying.pwritev = spying_pwritev;
        spying.unlink = spying_unlink;
        repair.fs = &spying;
        writes = 0;
        keeps_index = true;
        uint64_t from = missing ? 0 : k->at[20], to = missing ? k->bytes.len : k->at[21];
        assert_refused(send_saved(k, from, to), SH_INTERNAL, "index");
        assert_int_equal(writes, 0);
        assert_int_equal(repair.failed, 0);
        assert_int_equal(verify(), SH_CORRUPT);
        keeps_index = false;
        assert_repaired(send_saved(k, from, to), k, to);
        assert_true(writes > 0);
        assert_false(has_index());
    }
}

/* ---------------------------------------------------------------- faults */

static void test_a_full_disk_refuses_and_changes_nothing(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    sim_disk_set_full(disk, true);
    assert_refused(send_saved(k, k->at[20], k->at[21]), SH_DISK_FULL, "no room");
    assert_int_equal(repair.failed, 0);
    assert_int_equal(copies(), 0);
    assert_int_equal(verify(), SH_CORRUPT);
    sim_disk_set_full(disk, false);
    assert_repaired(send_saved(k, k->at[20], k->at[21]), k, k->at[21]);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", path_of(k->base));
    assert_int_equal(rig.fs->unlink(rig.fs, path), 0);
    assert_int_equal(rig.fs->sync_dir(rig.fs, rig.dir.log), 0);
    sim_disk_set_full(disk, true);
    assert_refused(send_saved(k, 0, k->bytes.len), SH_DISK_FULL, "no room");
    assert_int_equal(repair.failed, 0);
    sim_disk_set_full(disk, false);
    assert_repaired(send_saved(k, 0, k->bytes.len), k, k->bytes.len);
}

/* What the failed sync should have written is gone from the disk, though not from memory. */
static void test_a_failed_sync_is_fatal_and_the_next_repair_writes_again(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    flip_frame(k, 20);
    enter(k, k->at[20], k->at[21], rig.log.fd); /* so that there is a copy, whatever it is of */
    sim_disk_fail_next_sync(disk);
    assert_int_equal(send_saved(k, k->at[20], k->at[21]), SH_INTERNAL);
    assert_int_equal(repair.failed, -EIO);
    start_repair();
    assert_int_equal(send_saved(k, k->at[20], k->at[21]), SH_OK);
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_int_equal(verify(), SH_OK);
}

/* Stops the disk at every call of a repair in turn. What is left is the damage or the repair, nothing else
 * has changed, and the same request ends it. */
static void crash_at_each_call(const struct kept *k, uint64_t from, uint64_t to,
                               void (*harm)(const struct kept *), enum sim_loss loss)
{
    for (uint64_t calls = 0;; calls++) {
        harm(k);
        sim_disk_stop_after(disk, calls);
        enum sh_error error = send_saved(k, from, to);
        sim_disk_stop_after(disk, UINT64_MAX / 2);
        rig_kill(&rig);
        sim_disk_crash(disk, loss, calls);
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
        start_repair();
        if (error == SH_OK) {
            assert_whole(); /* what was answered stays */
            assert_true(calls > 3);
            return;
        }
        for (size_t i = 0; i < kept_count; i++)
            if (&kept[i] != k)
                assert_memory_equal(bytes_of(kept[i].base), kept[i].bytes.data, kept[i].bytes.len);
        assert_repaired(send_saved(k, from, to), k, to);
        rig_kill(&rig);
        sim_disk_crash(disk, SIM_LOSE_ALL, calls);
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
        start_repair();
        assert_whole(); /* durably, whatever the first attempt had written and not synced */
    }
}

static void harm_frames(const struct kept *k)
{
    static uint8_t noise[SEGMENT];
    memset(noise, 0x77, sizeof noise);
    overwrite(path_of(k->base), k->at[20], noise, k->at[40] - k->at[20]);
}

static void harm_header(const struct kept *k)
{
    static const uint8_t zeros[SEGMENT];
    overwrite(path_of(k->base), 0, zeros, k->at[3]);
}

static void harm_active(const struct kept *k)
{
    flip_frame(k, 2);
    flip_frame(k, 3);
}

static void harm_name(const struct kept *k)
{
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(k->base)), 0);
    assert_int_equal(rig.fs->sync_dir(rig.fs, rig.dir.log), 0);
}

static void test_a_crash_at_each_step(void **state)
{
    (void)state;
    static const enum sim_loss losses[] = {SIM_LOSE_NOTHING, SIM_LOSE_ALL, SIM_LOSE_SOME};
    const struct kept *k = &kept[1], *active = &kept[kept_count - 1];
    for (size_t i = 0; i < 3; i++) {
        crash_at_each_call(active, active->at[2], active->at[4], harm_active, losses[i]);
        crash_at_each_call(k, k->at[20], k->at[40], harm_frames, losses[i]);
        crash_at_each_call(k, 0, k->at[3], harm_header, losses[i]);
        crash_at_each_call(k, 0, k->bytes.len, harm_name, losses[i]);
    }
}

struct worst {
    uint64_t base, offset, bytes;
    unsigned count;
};

static void on_damage(void *arg, const struct log_damage *d)
{
    struct worst *worst = arg;
    if (worst->count++ > 0 || !segment_name_parse(strrchr(d->file, '/') + 1, &worst->base))
        return;
    worst->offset = d->offset;
    worst->bytes = d->bytes;
}

/* Damage of random places and lengths, as `log verify` names it, is repaired from the front. */
static void test_random_damage_is_repaired_as_verify_names_it(void **state)
{
    (void)state;
    unsigned seed = 4711;
    print_message("seed %u\n", seed);
    srand(seed);
    for (unsigned round = 0; round < 200; round++) {
        const struct kept *k = &kept[(size_t)rand() % (kept_count - 1)];
        size_t from = (size_t)rand() % k->bytes.len, len = 1 + (size_t)rand() % 5000;
        len = len < k->bytes.len - from ? len : k->bytes.len - from;
        uint8_t *bytes = bytes_of(k->base);
        for (size_t i = 0; i < len; i++)
            bytes[from + i] ^= (uint8_t)(1 + rand() % 255);
        for (;;) {
            struct worst worst = {0};
            struct log_verify_options options = {.on_damage = on_damage, .arg = &worst};
            struct log_verify_report report;
            if (log_verify(rig.fs, data, &options, &report) == SH_OK)
                break;
            assert_int_equal(worst.base, k->base);
            uint64_t to = worst.offset + worst.bytes;
            if (send_saved(k, worst.offset, to) != SH_OK)
                fail_msg("round %u, bytes %zu at %zu: %s", round, len, from, refusal.text);
        }
        assert_memory_equal(bytes_of(k->base), k->bytes.data, k->bytes.len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REPAIR_TEST(test_a_frame_in_the_middle_of_a_segment),
        REPAIR_TEST(test_the_last_frames_of_a_segment),
        REPAIR_TEST(test_a_header),
        REPAIR_TEST(test_a_checkpoint),
        REPAIR_TEST(test_header_and_first_frames),
        REPAIR_TEST(test_a_frame_of_the_active_segment),
        REPAIR_TEST(test_what_the_log_went_on_behind),
        REPAIR_TEST(test_a_whole_segment),
        REPAIR_TEST(test_a_segment_in_parts),
        REPAIR_TEST(test_a_file_that_is_missing),
        REPAIR_TEST(test_two_files_that_are_missing_side_by_side),
        REPAIR_TEST(test_a_file_that_was_cut_short),
        REPAIR_TEST(test_several_ranges_of_one_segment),
        REPAIR_TEST(test_damage_on_both_sides_of_a_segments_end),
        REPAIR_TEST(test_asking_again_does_no_harm),
        REPAIR_TEST(test_a_frame_in_a_payload_bounds_nothing),
        REPAIR_TEST(test_a_reader_sees_what_was_repaired),
        REPAIR_TEST(test_the_old_bytes_are_kept),
        REPAIR_TEST(test_a_copy_that_the_register_names_is_enough),
        REPAIR_TEST(test_a_repaired_range_goes_out_of_the_register),
        REPAIR_TEST(test_the_index_goes_before_bytes_change),
        REPAIR_TEST(test_a_full_disk_refuses_and_changes_nothing),
        REPAIR_TEST(test_a_failed_sync_is_fatal_and_the_next_repair_writes_again),
        REPAIR_TEST(test_a_crash_at_each_step),
        REPAIR_TEST(test_random_damage_is_repaired_as_verify_names_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
