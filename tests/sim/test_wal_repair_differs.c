/* A segment of a copy that is valid, and still not what the log's origin has: the register says so, and only
 * then are valid frames replaced, by others that begin and end where they do. */
#include "repair_story.h"

/* The generator of CRC-32C as bytes: flipped anywhere in a message, it leaves the checksum as it is. */
static const uint8_t unseen[] = {0xf1, 0x76, 0xec, 0x05, 0x01};

/* Other payloads in the file, which no checksum tells. */
static void forge(const struct kept *k, size_t frame)
{
    uint8_t bytes[sizeof unseen];
    uint64_t at = k->at[frame + 1] - 50;
    for (size_t i = 0; i < sizeof unseen; i++)
        bytes[i] = bytes_of(k->base)[at + i] ^ unseen[i];
    overwrite(path_of(k->base), at, bytes, sizeof bytes);
    assert_memory_not_equal(bytes_of(k->base), k->bytes.data, k->bytes.len);
    assert_int_equal(verify(), SH_OK);
}

/* As a look enters it. */
static void enter_as(const struct kept *k, bool differs)
{
    int fd = rig.fs->open(rig.fs, path_of(k->base), O_RDONLY, 0);
    const struct log_damage_range range = {
        .base_lsn = k->base,
        .bytes = k->bytes.len,
        .position = (uint64_t)(k - kept) * k->bytes.len,
        .first_lsn = k->base,
        .next_lsn = k[1].base,
        .differs = differs,
    };
    assert_int_equal(wal_damage_add(repair.damage, &range, fd), 0);
    rig.fs->close(rig.fs, fd);
}

static void enter(const struct kept *k)
{
    enter_as(k, true);
}

static size_t ranges(void)
{
    return wal_damage_open_ranges(repair.damage);
}

static void test_only_what_the_register_names_is_replaced(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    forge(k, 20);
    assert_refused(send_saved(k, 0, k->bytes.len), SH_CONFLICT, "not damaged");
    enter_as(k, false); /* as damage it is at most out of date */
    assert_refused(send_saved(k, 0, k->bytes.len), SH_CONFLICT, "not damaged");
    enter(k);
    assert_int_equal(ranges(), 1);
    assert_repaired(send_saved(k, 0, k->bytes.len), k, k->bytes.len);
    assert_int_equal(ranges(), 0);
    forge(k, 20);
    assert_refused(send_saved(k, 0, k->bytes.len), SH_CONFLICT, "not damaged");
}

static void test_it_is_replaced_in_parts(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    size_t step = k->frames / 5;
    for (size_t i = 0; i < k->frames; i += 7)
        forge(k, i == 0 ? 1 : i);
    enter(k);
    uint64_t from = 0;
    for (size_t i = step; i < k->frames; i += step) {
        start_repair(); /* nothing needs to be remembered */
        assert_int_equal(send_saved(k, from, k->at[i]), SH_OK);
        assert_false(reply.whole); /* though it meets what stands behind */
        from = reply.next;
        assert_int_equal(from, k->at[i]);
        assert_int_equal(verify(), SH_OK);
        assert_int_equal(ranges(), 1);
    }
    assert_repaired(send_saved(k, from, k->bytes.len), k, k->bytes.len);
    assert_int_equal(ranges(), 0);
}

/* The process was killed while a part was written: frames of both, and torn ones. */
static void test_what_a_crash_has_left_is_replaced_too(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    forge(k, 20);
    forge(k, 22);
    forge(k, 24);
    enter(k);
    overwrite(path_of(k->base), k->at[20], k->bytes.data + k->at[20], k->at[21] - k->at[20]);
    flip_frame(k, 21);
    flip_frame(k, 23);
    assert_int_equal(send_saved(k, 0, k->at[24]), SH_OK);
    assert_repaired(send_saved(k, k->at[24], k->bytes.len), k, k->bytes.len);
}

static void test_a_header_that_differs_is_replaced(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    uint8_t bytes[SEGMENT_HEADER_BYTES];
    struct segment_header h;
    assert_int_equal(segment_header_decode(buf_slice(&k->bytes), &h), SH_OK);
    h.created_ns++;
    segment_header_encode(&h, bytes);
    overwrite(path_of(k->base), 0, bytes, sizeof bytes);
    enter(k);
    assert_repaired(send_saved(k, 0, k->bytes.len), k, k->bytes.len);
}

/* Makes the frame say something else, with the right checksum for that; *size: without `less` of its last
 * bytes. */
static void write_other_frame(struct buf *out, const struct kept *k, size_t frame, uint32_t less)
{
    struct frame_header h;
    struct slice old = saved(k, k->at[frame], k->at[frame + 1]);
    size_t size;
    uint32_t salt = segment_salt(repair.log, k->base);
    assert_int_equal(frame_verify(old, salt, SEGMENT, &h, &size), SH_OK);
    out->len = 0;
    buf_append(out, old.data, old.len);
    out->len -= less;
    h.body_bytes -= less;
    out->data[out->len - 1] ^= 1;
    frame_encode(&h, salt, slice_of(out->data + FRAME_HEADER_BYTES, h.body_bytes), out->data);
}

static void test_what_does_not_meet_what_stands_around_is_refused(void **state)
{
    (void)state;
    const struct kept *k = &kept[1];
    struct buf other = {0};
    struct segment_header h;
    forge(k, 20);
    enter(k);
    write_other_frame(&other, k, 20, 0); /* another chain */
    assert_refused(send_bytes(k->base, k->at[20], buf_slice(&other)), SH_CONFLICT, "meet");
    write_other_frame(&other, k, 20, 10); /* ends within the one that is there */
    assert_refused(send_bytes(k->base, k->at[20], buf_slice(&other)), SH_CONFLICT, "not damaged");
    buf_append(&other, k->bytes.data + k->at[21], k->at[22] - k->at[21]); /* within the next one */
    assert_refused(send_bytes(k->base, k->at[20], buf_slice(&other)), SH_CONFLICT, "run over");
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        uint8_t bytes[SEGMENT_HEADER_BYTES];
        assert_int_equal(segment_header_decode(buf_slice(&k->bytes), &h), SH_OK);
        h.position += wrong == 0;
        h.previous_checksum += wrong == 1;
        segment_header_encode(&h, bytes);
        assert_refused(send_bytes(k->base, 0, slice_of(bytes, sizeof bytes)), SH_CONFLICT, "another header");
    }
    assert_int_equal(ranges(), 1);
    assert_int_equal(verify(), SH_OK);
    buf_free(&other);
}

/* The process is killed, or power is lost, at each call of a part's repair: what the register still names is
 * asked for again, and then the bytes are the origin's. */
static void crash_at_each_call(enum sim_loss loss)
{
    const struct kept *k = &kept[1];
    struct log_damage_range left = {0};
    uint64_t calls;
    for (calls = 0; left.offset == 0; calls++) {
        forge(k, 20);
        forge(k, 60);
        enter(k);
        sim_disk_stop_after(disk, calls);
        enum sh_error error = send_saved(k, 0, k->at[40]);
        sim_disk_stop_after(disk, UINT64_MAX / 2);
        rig_kill(&rig);
        sim_disk_crash(disk, loss, calls);
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
        start_repair();
        assert_true(wal_damage_find(repair.damage, k->base, 0, SEGMENT, &left));
        assert_true(left.differs && (error == SH_OK || left.offset == 0));
        assert_repaired(send_saved(k, left.offset, k->bytes.len), k, k->bytes.len);
        assert_int_equal(ranges(), 0);
    }
    assert_true(calls > 5);
}

static void test_a_crash_at_each_call(void **state)
{
    (void)state;
    crash_at_each_call(SIM_LOSE_NOTHING);
    crash_at_each_call(SIM_LOSE_ALL);
    crash_at_each_call(SIM_LOSE_SOME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REPAIR_TEST(test_only_what_the_register_names_is_replaced),
        REPAIR_TEST(test_it_is_replaced_in_parts),
        REPAIR_TEST(test_what_a_crash_has_left_is_replaced_too),
        REPAIR_TEST(test_a_header_that_differs_is_replaced),
        REPAIR_TEST(test_what_does_not_meet_what_stands_around_is_refused),
        REPAIR_TEST(test_a_crash_at_each_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
