/* Indexes of sealed segments: their bytes, and making them. */
#include "index_story.h"

#include <xxhash.h>

#include "bytes.h"
#include "crc32c.h"

/* ---------------------------------------------------------------- bytes */

static void test_an_index_says_what_the_segment_holds(void **state)
{
    (void)state;
    make_indexes();
    for (size_t i = 0; i + 1 < count; i++) {
        struct segment_index index = read_index(i);
        struct slice file = sim_disk_file(disk, path_of(bases[i], false));
        XXH128_canonical_t whole;
        XXH128_canonicalFromHash(&whole, XXH3_128bits(file.data, file.len));
        assert_memory_equal(index.digest.bytes, whole.digest, sizeof whole.digest);
        assert_int_equal(index.end, file.len);
        assert_int_equal(index.next_lsn, bases[i + 1]);
        assert_int_equal(index.frames, (bases[i + 1] - bases[i]) / BATCH + 1);
        assert_int_equal(hlc_ms(index.last_hlc),
                         began_ms + (int64_t)((bases[i + 1] - 2) / BATCH) * MS_A_FRAME);
        assert_true(index.count >= 10);
        for (size_t k = 0; k < index.count; k++) {
            struct frame_header h;
            const struct segment_place *place = &index.places[k];
            uint64_t before = k > 0 ? index.places[k - 1].offset : SEGMENT_HEADER_BYTES;
            assert_in_range(place->offset - before, INDEX_GAP_BYTES, 2 * INDEX_GAP_BYTES);
            assert_int_equal(frame_header_decode(slice_of(file.data + place->offset, FRAME_HEADER_BYTES),
                                                 FRAME_BYTES_MAX, &h),
                             SH_OK);
            assert_int_equal(h.base_lsn, place->lsn);
            assert_int_equal(h.hlc, place->hlc);
            assert_int_equal(h.previous_checksum, place->checksum);
        }
        segment_index_free(&index);
    }
}

static void test_bad_bytes_are_no_index(void **state)
{
    (void)state;
    struct buf good = {0};
    struct segment_index out;
    assert_int_equal(make_index(0), SH_OK);
    struct slice file = sim_disk_file(disk, path_of(bases[0], true));
    buf_append(&good, file.data, file.len);
    for (size_t at = 0; at < good.len; at++) {
        good.data[at] ^= 0x40;
        enum sh_error expected = at == 6 || at == 7 ? SH_VERSION_MISMATCH : SH_CORRUPT;
        assert_int_equal(segment_index_decode(buf_slice(&good), &out), expected);
        good.data[at] ^= 0x40;
    }
    for (size_t len = 0; len < good.len; len++)
        assert_int_equal(segment_index_decode(slice_of(good.data, len), &out), SH_CORRUPT);
    buf_append(&good, "", 1);
    assert_int_equal(segment_index_decode(buf_slice(&good), &out), SH_CORRUPT);
    buf_free(&good);
}

/* Right checksum, but what no maker writes. */
static void test_places_out_of_order_are_no_index(void **state)
{
    (void)state;
    assert_int_equal(make_index(0), SH_OK);
    for (unsigned what = 0; what < 5; what++) {
        struct segment_index index = read_index(0), out;
        struct buf bytes = {0};
        if (what == 0)
            index.places[3].offset = index.places[2].offset;
        else if (what == 1)
            index.places[3].lsn = index.places[2].lsn - 1;
        else if (what == 2)
            index.places[3].hlc = index.places[2].hlc - 1;
        else if (what == 3)
            index.places[index.count - 1].offset = index.end;
        else
            index.places[index.count - 1].lsn = index.next_lsn + 1;
        segment_index_encode(&index, &bytes);
        assert_int_equal(segment_index_decode(buf_slice(&bytes), &out), SH_CORRUPT);
        segment_index_free(&index);
        buf_free(&bytes);
    }
    struct segment_index index = read_index(0), out;
    struct buf bytes = {0};
    segment_index_encode(&index, &bytes);
    bytes.data[INDEX_HEADER_BYTES + 28] = 1; /* reserved */
    uint32_t crc = crc32c(segment_salt(index.log, index.base_lsn), bytes.data, bytes.len - 4);
    put_u32(bytes.data + bytes.len - 4, crc);
    assert_int_equal(segment_index_decode(buf_slice(&bytes), &out), SH_CORRUPT);
    segment_index_free(&index);
    buf_free(&bytes);
}

/* ---------------------------------------------------------------- making */

/* All frames of the test have the same size. */
static size_t frame_bytes(uint64_t base)
{
    struct frame_header checkpoint, h;
    struct slice file = sim_disk_file(disk, path_of(base, false));
    struct slice at = slice_of(file.data + SEGMENT_HEADER_BYTES, file.len - SEGMENT_HEADER_BYTES);
    assert_int_equal(frame_header_decode(at, FRAME_BYTES_MAX, &checkpoint), SH_OK);
    at.data += FRAME_HEADER_BYTES + checkpoint.body_bytes;
    assert_int_equal(frame_header_decode(at, FRAME_BYTES_MAX, &h), SH_OK);
    return FRAME_HEADER_BYTES + h.body_bytes;
}

static void test_no_index_is_made_of_a_damaged_segment(void **state)
{
    (void)state;
    size_t len = sim_disk_file(disk, path_of(bases[1], false)).len;
    for (size_t at = 0; at < len; at += 60000) {
        bytes_of(bases[1])[at] ^= 4;
        assert_int_equal(make_index(1), SH_CORRUPT);
        assert_false(exists(bases[1], true));
        bytes_of(bases[1])[at] ^= 4;
    }
    bytes_of(bases[2])[30] ^= 4; /* the header behind says where the segment ends */
    assert_int_equal(make_index(1), SH_CORRUPT);
    bytes_of(bases[2])[30] ^= 4;
    assert_int_equal(make_index(1), SH_OK);
    size_t whole = sim_disk_file(disk, path_of(bases[2], false)).len;
    const size_t lengths[] = {whole - 1, whole + 1, whole - frame_bytes(bases[2])};
    for (unsigned i = 0; i < 3; i++) {
        sim_disk_resize(disk, path_of(bases[2], false), lengths[i]);
        assert_int_equal(make_index(2), SH_CORRUPT);
    }
}

static uint64_t told_base;

static void on_damage(void *arg, uint64_t base_lsn)
{
    assert_ptr_equal(arg, &told_base);
    told_base = base_lsn;
}

static void work(struct wal_index *w);

static void test_damage_that_an_index_would_hide_is_told(void **state)
{
    (void)state;
    struct wal_index *w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
    wal_index_on_damage(w, on_damage, &told_base);
    for (size_t at = 20; at < 70000; at += 60000) { /* in the header, in a frame */
        told_base = 0;
        bytes_of(bases[1])[at] ^= 4;
        wal_index_sealed(w, bases[1], bases[2]);
        work(w);
        assert_int_equal(told_base, bases[1]);
        bytes_of(bases[1])[at] ^= 4;
    }
    told_base = 0;
    wal_index_sealed(w, bases[1], bases[2]);
    work(w);
    assert_int_equal(told_base, 0);
    wal_index_close(w);
}

/* Between a roll and the cut of the segment before, its file is as long as it was allocated. */
static void test_a_segment_that_is_not_cut_yet_is_not_damaged(void **state)
{
    (void)state;
    struct segment_index cut, uncut;
    assert_int_equal(make_index(1), SH_OK);
    assert_int_equal(segment_index_read(&fs, rig.dir.log, rig.dir.identity.log, bases[1], &cut), SH_OK);
    sim_disk_resize(disk, path_of(bases[1], false), SEGMENT);
    assert_int_equal(make_index(1), SH_OK);
    assert_int_equal(segment_index_read(&fs, rig.dir.log, rig.dir.identity.log, bases[1], &uncut), SH_OK);
    assert_int_equal(uncut.end, cut.end);
    assert_memory_equal(uncut.digest.bytes, cut.digest.bytes, sizeof cut.digest.bytes);
    segment_index_free(&cut);
    segment_index_free(&uncut);
}

/* Right checksums, but not the bytes that were there: what follows doesn't continue them. */
static void test_no_index_is_made_of_an_exchanged_frame_or_header(void **state)
{
    (void)state;
    assert_int_equal(make_index(1), SH_OK);
    struct segment_index index = read_index(1);
    struct frame_header h;
    struct segment_header segment;
    uint8_t *frame = bytes_of(bases[1]) + index.places[4].offset;
    size_t size = frame_bytes(bases[1]);
    assert_int_equal(frame_header_decode(slice_of(frame, size), FRAME_BYTES_MAX, &h), SH_OK);
    frame[size - 1] ^= 1;
    frame_encode(&h, segment_salt(index.log, bases[1]), slice_of(frame + FRAME_HEADER_BYTES, h.body_bytes),
                 frame);
    assert_int_equal(make_index(1), SH_CORRUPT);
    assert_int_equal(bad_offset, index.places[4].offset + size);
    assert_int_equal(bad_lsn, index.places[4].lsn + BATCH);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(make_index(2), SH_OK);
        uint8_t *header = bytes_of(bases[3]);
        uint8_t kept[SEGMENT_HEADER_BYTES];
        memcpy(kept, header, sizeof kept);
        assert_int_equal(segment_header_decode(slice_of(header, SEGMENT_HEADER_BYTES), &segment), SH_OK);
        segment.previous_checksum ^= i == 0;
        segment.position += i;
        segment_header_encode(&segment, header);
        assert_int_equal(make_index(2), SH_CORRUPT);
        memcpy(header, kept, sizeof kept);
    }
    segment_index_free(&index);
}

/* Steps until nothing is left to do. */
static void work(struct wal_index *w)
{
    unsigned steps = 0;
    while (wal_index_work(w) != WAL_INDEX_NONE) {
        wal_index_step(w);
        assert_true(++steps < 1000);
    }
}

static uint64_t hash_of_segments(void)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < count; i++) {
        struct slice file = sim_disk_file(disk, path_of(bases[i], false));
        hash = hash * 31 + XXH3_64bits(file.data, file.len);
    }
    return hash;
}

static void test_missing_and_damaged_indexes_are_made_again(void **state)
{
    (void)state;
    struct wal_index *w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
    uint64_t hash = hash_of_segments();
    char name[SEGMENT_NAME_MAX + 8], path[PATH_MAX];
    make_indexes();
    struct slice good = sim_disk_file(disk, path_of(bases[0], true));
    struct buf kept = {0};
    buf_append(&kept, good.data, good.len);
    ((uint8_t *)(uintptr_t)good.data)[50] ^= 1;
    fs.unlink(&fs, path_of(bases[1], true));
    write_index(path_of(bases[2], true), buf_slice(&kept)); /* that of another segment */
    write_index(path_of(999, true), buf_slice(&kept));      /* of a segment that is gone */
    segment_index_name(bases[1], path);
    snprintf(name, sizeof name, "%.24s.tmp", path);
    vfs_path(path, rig.dir.log, name);
    write_index(path, buf_slice(&kept));
    wal_index_look(w);
    assert_false(exists(999, true));
    assert_null(sim_disk_file(disk, path).data);
    work(w);
    struct slice again = sim_disk_file(disk, path_of(bases[0], true));
    assert_int_equal(again.len, kept.len);
    assert_memory_equal(again.data, kept.data, kept.len);
    for (size_t i = 0; i + 1 < count; i++) {
        struct segment_index index = read_index(i);
        segment_index_free(&index);
    }
    assert_false(exists(bases[count - 1], true));
    assert_int_equal(hash_of_segments(), hash);
    buf_free(&kept);
    wal_index_close(w);
}

static void test_the_newest_missing_index_is_made_first(void **state)
{
    (void)state;
    struct wal_index *w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
    wal_index_look(w);
    while (!exists(bases[count - 2], true))
        wal_index_step(w);
    for (size_t i = 0; i + 2 < count; i++)
        assert_false(exists(bases[i], true));
    assert_int_equal(wal_index_work(w), WAL_INDEX_OLD);
    wal_index_sealed(w, bases[0], bases[1]); /* one that is just sealed doesn't wait for the others */
    assert_int_equal(wal_index_work(w), WAL_INDEX_SEALED);
    while (!exists(bases[0], true))
        wal_index_step(w);
    assert_false(exists(bases[1], true));
    wal_index_close(w); /* in the midst of it */
}

static void test_the_index_of_a_trimmed_segment_goes(void **state)
{
    (void)state;
    struct wal_index *w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
    wal_index_sealed(w, bases[0], bases[1]);
    wal_index_step(w);
    fs.unlink(&fs, path_of(bases[0], false));
    work(w);
    assert_false(exists(bases[0], true));
    wal_index_sealed(w, bases[0], bases[1]);
    work(w);
    assert_false(exists(bases[0], true));
    wal_index_close(w);
}

/* A full disk, or a sync that fails, costs the index only. */
static void test_an_index_that_cannot_be_written_costs_nothing_else(void **state)
{
    (void)state;
    struct wal_index *w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
    uint64_t hash = hash_of_segments();
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.200s.tmp", path_of(bases[0], true));
    sim_disk_set_full(disk, true);
    wal_index_sealed(w, bases[0], bases[1]);
    work(w);
    assert_false(exists(bases[0], true));
    assert_null(sim_disk_file(disk, path).data);
    sim_disk_set_full(disk, false);
    sim_disk_fail_next_sync(disk);
    wal_index_sealed(w, bases[0], bases[1]);
    work(w);
    assert_false(exists(bases[0], true));
    assert_null(sim_disk_file(disk, path).data);
    check_read(2);
    assert_int_equal(hash_of_segments(), hash);
    wal_index_look(w);
    work(w);
    assert_true(exists(bases[0], true));
    wal_index_close(w);
}

/* The process is killed, or power is lost, at each call that changes something: every segment is whole, an
 * index that is there is a good one, and the next start makes it. */
static void test_a_crash_at_each_step_leaves_a_whole_index_or_none(void **state)
{
    (void)state;
    struct segment_index index;
    uint64_t hash = hash_of_segments();
    bool finished = false;
    for (uint64_t calls = 0; !finished; calls++) {
        for (enum sim_loss loss = SIM_LOSE_NOTHING; loss <= SIM_LOSE_SOME; loss++) {
            struct wal_index *w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
            sim_disk_stop_after(disk, calls);
            wal_index_sealed(w, bases[0], bases[1]);
            work(w);
            sim_disk_stop_after(disk, 0);
            bool made = exists(bases[0], true);
            wal_index_close(w);
            rig_kill(&rig);
            log_reader_close(reader);
            reader = NULL;
            sim_disk_crash(disk, loss, calls);
            assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
            fresh_reader();
            assert_int_equal(hash_of_segments(), hash);
            enum sh_error error =
                segment_index_read(&fs, rig.dir.log, rig.dir.identity.log, bases[0], &index);
            assert_true(error == SH_OK || error == SH_NOT_FOUND);
            if (loss == SIM_LOSE_ALL)
                finished = made && error == SH_OK;
            segment_index_free(&index);
            w = wal_index_open(&fs, rig.dir.log, rig.dir.identity.log);
            wal_index_look(w);
            work(w);
            assert_true(exists(bases[0], true));
            wal_index_close(w);
            for (size_t i = 0; i + 1 < count; i++)
                fs.unlink(&fs, path_of(bases[i], true));
        }
        assert_true(calls < 100);
    }
}

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        INDEX_TEST(test_an_index_says_what_the_segment_holds),
        INDEX_TEST(test_bad_bytes_are_no_index),
        INDEX_TEST(test_places_out_of_order_are_no_index),
        INDEX_TEST(test_no_index_is_made_of_a_damaged_segment),
        INDEX_TEST(test_damage_that_an_index_would_hide_is_told),
        INDEX_TEST(test_a_segment_that_is_not_cut_yet_is_not_damaged),
        INDEX_TEST(test_no_index_is_made_of_an_exchanged_frame_or_header),
        INDEX_TEST(test_missing_and_damaged_indexes_are_made_again),
        INDEX_TEST(test_the_newest_missing_index_is_made_first),
        INDEX_TEST(test_the_index_of_a_trimmed_segment_goes),
        INDEX_TEST(test_an_index_that_cannot_be_written_costs_nothing_else),
        INDEX_TEST(test_a_crash_at_each_step_leaves_a_whole_index_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
