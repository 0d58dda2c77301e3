/* Indexes of sealed segments: their bytes, making them, finding an LSN or a time by them; and that a missing,
 * damaged or lying one never costs an entry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bytes.h"
#include "crc32c.h"
#include "hlc.h"
#include "log.h"
#include "log_time.h"
#include "segment_index.h"
#include "sim_disk.h"
#include "wal_index.h"
#include "wal_rig.h"

enum { SEGMENT = 4 << 20, PAYLOAD = 3000, BATCH = 3, FRAMES = 1800, MS_A_FRAME = 7 };
static const char data[] = "/data";
static const int64_t began_ms = 1790000000000;

static struct sim_disk *disk;
static struct vfs fs; /* the simulated disk's, counting */
static uint64_t opens, bytes_read;
static uint64_t bad_offset, bad_lsn; /* where the last index to be made came to an end */
static struct wal_rig rig;
static struct log_reader *reader;
static uint64_t *bases;
static size_t count;

static int counting_open(const struct vfs *self, const char *path, int flags, mode_t mode)
{
    (void)self;
    opens++;
    return sim_disk_vfs(disk)->open(sim_disk_vfs(disk), path, flags, mode);
}

static ssize_t counting_pread(const struct vfs *self, int fd, void *out, size_t len, int64_t offset)
{
    (void)self;
    ssize_t got = sim_disk_vfs(disk)->pread(sim_disk_vfs(disk), fd, out, len, offset);
    bytes_read += got > 0 ? (uint64_t)got : 0;
    return got;
}

static void fresh_reader(void)
{
    if (reader != NULL)
        log_reader_close(reader);
    reader = log_reader_open(&fs, rig.dir.log, rig.dir.identity.log);
}

static void list(void)
{
    free(bases);
    assert_int_equal(segment_list(&fs, rig.dir.log, &bases, &count), 0);
}

/* Frame n (from 0) holds the LSNs 1 + n * BATCH on, of the time began_ms + n * MS_A_FRAME. */
static void append_frames(unsigned from, unsigned frames)
{
    static uint8_t bytes[PAYLOAD];
    for (unsigned i = from; i < from + frames; i++) {
        rig.now_ns = (began_ms + (int64_t)i * MS_A_FRAME) * NS_PER_MS;
        memset(bytes, (int)i, sizeof bytes);
        rig_append_many(&rig, 0, 0, slice_of(bytes, sizeof bytes), BATCH);
        assert_true(rig_commit(&rig));
    }
    list();
}

static int setup(void **state)
{
    (void)state;
    disk = sim_disk_open();
    fs = *sim_disk_vfs(disk);
    fs.open = counting_open;
    fs.pread = counting_pread;
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    fresh_reader();
    append_frames(0, FRAMES);
    assert_true(count >= 4);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    log_reader_close(reader);
    reader = NULL;
    free(bases);
    bases = NULL;
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

static const char *path_of(uint64_t base, bool index)
{
    static char path[PATH_MAX];
    char name[SEGMENT_NAME_MAX];
    if (index)
        segment_index_name(base, name);
    else
        segment_name(base, name);
    vfs_path(path, rig.dir.log, name);
    return path;
}

static bool exists(uint64_t base, bool index)
{
    return sim_disk_file(disk, path_of(base, index)).data != NULL;
}

static uint8_t *bytes_of(uint64_t base)
{
    return (uint8_t *)(uintptr_t)sim_disk_file(disk, path_of(base, false)).data;
}

/* What walsvc does in the background; SH_OK, or why the first one that fails does. */
static enum sh_error make_index(size_t i)
{
    struct segment_indexer *indexer;
    bool done = false;
    enum sh_error error =
        segment_indexer_open(&fs, rig.dir.log, rig.dir.identity.log, bases[i], bases[i + 1], &indexer);
    if (error != SH_OK)
        return error;
    while (error == SH_OK && !done)
        error = segment_indexer_step(indexer, 100000, &done);
    if (error == SH_OK)
        assert_int_equal(segment_indexer_write(indexer), 0);
    segment_indexer_where(indexer, &bad_offset, &bad_lsn);
    segment_indexer_close(indexer);
    return error;
}

static void make_indexes(void)
{
    for (size_t i = 0; i + 1 < count; i++)
        assert_int_equal(make_index(i), SH_OK);
}

static struct segment_index read_index(size_t i)
{
    struct segment_index index;
    assert_int_equal(segment_index_read(&fs, rig.dir.log, rig.dir.identity.log, bases[i], &index), SH_OK);
    return index;
}

static void write_index(const char *path, struct slice bytes)
{
    int fd = fs.open(&fs, path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(vfs_write_all(&fs, fd, bytes.data, bytes.len, 0), 0);
    fs.close(&fs, fd);
}

static void store_index(size_t i, const struct segment_index *index)
{
    struct buf bytes = {0};
    segment_index_encode(index, &bytes);
    write_index(path_of(bases[i], true), buf_slice(&bytes));
    buf_free(&bytes);
}

/* Reads one frame; the frame must be the one that holds the LSN, with its payload. */
static void check_read(uint64_t lsn)
{
    struct log_read read = {
        .from = lsn, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
    struct buf out = {0};
    struct frame_header h;
    struct entry entry;
    uint32_t entries;
    size_t size;
    assert_int_equal(log_reader_read(reader, &read, &out), SH_OK);
    assert_int_equal(frame_verify(buf_slice(&out), read.salt, FRAME_BYTES_MAX, &h, &size), SH_OK);
    assert_int_equal(h.base_lsn, (lsn - 1) / BATCH * BATCH + 1);
    struct mp m = mp_of(slice_of(out.data + FRAME_HEADER_BYTES, h.body_bytes));
    assert_true(entries_open(&m, &entries));
    assert_int_equal(entry_next(&m, &entry), SH_OK);
    assert_int_equal(entry.value.data[17], (uint8_t)((lsn - 1) / BATCH));
    buf_free(&out);
}

static uint64_t last_lsn(void)
{
    return rig.log.durable.lsn;
}

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

/* ---------------------------------------------------------------- by LSN */

/* From any LSN of a large log, a reader that was never there reads less than a MiB before its frame. */
static void test_a_new_reader_comes_to_any_lsn_with_little_reading(void **state)
{
    (void)state;
    uint64_t most = 0, most_without = 0, most_opens = 0;
    for (unsigned with = 0; with < 2; with++) {
        if (with)
            make_indexes();
        for (uint64_t lsn = 1; lsn < bases[count - 1]; lsn += 97) {
            uint64_t *least = with ? &most : &most_without;
            fresh_reader();
            bytes_read = opens = 0;
            check_read(lsn);
            *least = bytes_read > *least ? bytes_read : *least;
            most_opens = opens > most_opens ? opens : most_opens;
        }
    }
    assert_true(most <= 1 << 20);
    assert_true(most_without > 3 << 20);
    assert_true(most_opens <= 3); /* the segment, the one behind, the index; whatever the log's size */
}

/* Every way in which an index with a right checksum can be wrong about a place. */
static void lie(struct segment_index *index, unsigned how, size_t k)
{
    struct segment_place *place = &index->places[k], *next = &index->places[k + 1];
    switch (how) {
    case 0:
        place->offset = next->offset - 1;
        break;
    case 1:
        place->offset += 1000;
        break;
    case 2:
        place->lsn = next->lsn;
        break;
    case 3:
        place->lsn -= BATCH;
        break;
    case 4:
        place->checksum ^= 1;
        break;
    case 5: /* the frame of another place: a true one, but for its LSN */
        place->offset = next->offset - (next->offset - place->offset) / 2;
        break;
    default:
        index->places[k].lsn = index->places[k - 1].lsn;
    }
}

static void test_an_index_that_lies_costs_no_entry(void **state)
{
    (void)state;
    make_indexes();
    for (unsigned how = 0; how < 7; how++) {
        for (size_t k = 1; k < 9; k += 3) {
            struct segment_index index = read_index(1), good = read_index(1);
            lie(&index, how, k);
            store_index(1, &index);
            for (uint64_t lsn = bases[1]; lsn < bases[2]; lsn += 29) {
                fresh_reader();
                check_read(lsn);
            }
            fresh_reader();
            for (uint64_t lsn = good.places[k].lsn + 10; lsn < good.places[k].lsn + 200; lsn += BATCH)
                check_read(lsn);
            store_index(1, &good);
            segment_index_free(&index);
            segment_index_free(&good);
        }
    }
}

/* Once a reader has been misled it goes by what it has seen itself. */
static void test_a_reader_is_misled_once(void **state)
{
    (void)state;
    make_indexes();
    struct segment_index index = read_index(1);
    for (size_t k = 0; k < index.count; k++)
        index.places[k].checksum ^= 1;
    store_index(1, &index);
    check_read(bases[2] - 2);
    bytes_read = 0;
    check_read(bases[2] - 2 - 4 * BATCH);
    assert_true(bytes_read < 2 << 20);
    segment_index_free(&index);
}

static void test_a_damaged_or_foreign_index_is_not_used(void **state)
{
    (void)state;
    make_indexes();
    struct slice other = sim_disk_file(disk, path_of(bases[0], true));
    struct buf kept = {0};
    buf_append(&kept, other.data, other.len);
    write_index(path_of(bases[1], true), buf_slice(&kept));
    ((uint8_t *)(uintptr_t)sim_disk_file(disk, path_of(bases[2], true)).data)[200] ^= 1;
    struct segment_index index;
    for (size_t i = 1; i < 3; i++)
        assert_int_equal(segment_index_read(&fs, rig.dir.log, rig.dir.identity.log, bases[i], &index),
                         SH_CORRUPT);
    struct id16 foreign = {{1}};
    assert_int_equal(segment_index_read(&fs, rig.dir.log, foreign, bases[0], &index), SH_CORRUPT);
    for (uint64_t lsn = 1; lsn < last_lsn(); lsn += 97) {
        fresh_reader();
        check_read(lsn);
    }
    buf_free(&kept);
}

/* Damage at the very place that the index names is told as damage. */
static void test_damage_at_a_place_of_the_index_is_told(void **state)
{
    (void)state;
    make_indexes();
    struct segment_index index = read_index(1);
    const struct segment_place *place = &index.places[5];
    bytes_of(bases[1])[place->offset + 200] ^= 1;
    struct buf out = {0};
    struct log_read read = {
        .from = place->lsn + 1, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
    assert_int_equal(log_reader_read(reader, &read, &out), SH_CORRUPT);
    assert_int_equal(read.bad_offset, place->offset);
    assert_int_equal(read.good_lsn, place->lsn + BATCH);
    fresh_reader();
    check_read(place->lsn + BATCH);
    fresh_reader();
    check_read(place->lsn - 1);
    buf_free(&out);
    segment_index_free(&index);
}

/* ---------------------------------------------------------------- trimming under a reader */

static enum sh_error read_at(uint64_t from, struct log_read *read)
{
    struct buf out = {0};
    *read = (struct log_read){
        .from = from, .durable_end = rig.log.durable.end, .max_bytes = 1 << 20, .max_entries = UINT64_MAX};
    enum sh_error error = log_reader_read(reader, read, &out);
    buf_free(&out);
    return error;
}

static void unlink_segments(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        assert_int_equal(fs.unlink(&fs, path_of(bases[i], false)), 0);
}

static void test_a_segment_trimmed_under_a_reader_is_read_to_its_end(void **state)
{
    (void)state;
    struct log_read read;
    assert_int_equal(read_at(1, &read), SH_OK);
    unlink_segments(0, 1);
    while (read.next < bases[1]) {
        assert_int_equal(read_at(read.next, &read), SH_OK);
        assert_true(read.next > read.from);
    }
    assert_int_equal(read_at(read.next, &read), SH_OK);
    assert_true(read.next > bases[1]);
}

/* The reader stands at the end of a segment, and what comes behind has gone since it listed the folder. */
static void test_the_next_segment_trimmed_under_a_reader_is_told(void **state)
{
    (void)state;
    struct log_read read;
    for (read.next = 1; read.next < bases[1];)
        assert_int_equal(read_at(read.next, &read), SH_OK);
    unlink_segments(0, 3);
    assert_int_equal(read_at(read.next, &read), SH_TRIMMED);
    assert_int_equal(read.first_lsn, bases[3]);
    assert_int_equal(read_at(read.first_lsn, &read), SH_OK);
    assert_int_equal(read_at(last_lsn() + 1, &read), SH_OK); /* the end, */
    assert_int_equal(read.next, last_lsn() + 1);
    assert_int_equal(read_at(last_lsn() + 2, &read), SH_NOT_FOUND); /* and behind it */
}

/* The same when the reader knew of none behind its own: that was the newest one when it came. */
static void test_the_newest_segment_rolled_away_and_trimmed_is_told(void **state)
{
    (void)state;
    struct log_read read;
    uint64_t before = bases[count - 1];
    size_t old_count = count;
    assert_int_equal(read_at(before, &read), SH_OK);
    uint64_t stood = read.next;
    append_frames(FRAMES, FRAMES);
    assert_true(count > old_count + 2);
    unlink_segments(0, count - 1);
    enum sh_error error;
    while ((error = read_at(stood, &read)) == SH_OK) {
        assert_true(read.next > stood);
        stood = read.next;
    }
    assert_int_equal(error, SH_TRIMMED);
    assert_int_equal(read.first_lsn, bases[count - 1]);
}

/* A hole in the middle is no trimming. */
static void test_a_segment_lost_under_a_reader_is_corrupt(void **state)
{
    (void)state;
    struct log_read read;
    for (read.next = 1; read.next < bases[1];)
        assert_int_equal(read_at(read.next, &read), SH_OK);
    unlink_segments(1, 2);
    assert_int_equal(read_at(read.next, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, bases[2]);
}

/* ---------------------------------------------------------------- by time */

static struct log_time time_search(uint64_t from, int64_t ms)
{
    struct log_time t = {
        .fs = &fs,
        .dir = rig.dir.log,
        .log = rig.dir.identity.log,
        .hlc = hlc_of_ms(ms),
        .durable_end = rig.log.durable.end,
        .most_bytes = UINT64_MAX,
        .from = from,
    };
    return t;
}

/* The first entry not older than began_ms + after. */
static void check_time(int64_t after)
{
    struct log_time t = time_search(0, began_ms + after);
    int64_t frame = after <= 0 ? 0 : (after + MS_A_FRAME - 1) / MS_A_FRAME;
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_int_equal(t.found, frame < FRAMES);
    assert_int_equal(t.from, frame < FRAMES ? 1 + (uint64_t)frame * BATCH : last_lsn() + 1);
}

static void check_times(void)
{
    for (int64_t after = -10; after < FRAMES * MS_A_FRAME + 10; after += 11) {
        if (after % 5 == 0)
            fresh_reader();
        check_time(after);
    }
    check_time(INT64_MIN / 2);
    check_time(INT64_MAX / 2);
}

static void test_the_first_entry_since_a_time(void **state)
{
    (void)state;
    check_times();
    make_indexes();
    check_times();
    uint64_t most = 0;
    for (int64_t after = 0; after < (int64_t)(bases[count - 1] - 1) / BATCH * MS_A_FRAME; after += 101) {
        fresh_reader();
        bytes_read = 0;
        check_time(after);
        most = bytes_read > most ? bytes_read : most;
    }
    assert_true(most <= 1 << 20);
}

static void test_an_index_that_lies_about_time_costs_no_entry(void **state)
{
    (void)state;
    make_indexes();
    struct segment_index good = read_index(1);
    for (unsigned how = 0; how < 3; how++) {
        struct segment_index index = read_index(1);
        for (size_t k = 0; k < index.count; k++)
            index.places[k].hlc = how == 0 ? index.first_hlc : how == 1 ? index.last_hlc : good.places[k].hlc;
        for (size_t k = 0; k + 3 < index.count && how == 2; k++)
            index.places[k].lsn = good.places[k + 3].lsn;
        for (size_t k = index.count - 3; k < index.count && how == 2; k++)
            index.places[k].lsn = good.places[index.count - 1].lsn;
        store_index(1, &index);
        check_times();
        segment_index_free(&index);
    }
    segment_index_free(&good);
}

static void test_a_time_search_goes_on_from_where_it_was(void **state)
{
    (void)state;
    unsigned calls = 0;
    int64_t after = (int64_t)(last_lsn() - 20) / BATCH * MS_A_FRAME;
    struct log_time t = time_search(0, began_ms + after);
    t.most_bytes = 1 << 18;
    do {
        assert_int_equal(log_time_find(&t, reader), SH_OK);
        calls++;
    } while (t.more);
    assert_true(t.found && calls > 2);
    assert_int_equal(t.from, 1 + (uint64_t)(after / MS_A_FRAME) * BATCH);
    t = time_search(t.from + 7, 0); /* only from there on */
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_int_equal(t.from, 1 + (uint64_t)(after / MS_A_FRAME) * BATCH + 7);
    t = time_search(last_lsn() + 2, 0);
    assert_int_equal(log_time_find(&t, reader), SH_NOT_FOUND);
}

static void test_a_time_search_in_a_trimmed_log(void **state)
{
    (void)state;
    unlink_segments(0, 2);
    struct log_time t = time_search(0, 0);
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_int_equal(t.from, bases[2]);
    t = time_search(bases[2] - 1, 0);
    assert_int_equal(log_time_find(&t, reader), SH_TRIMMED);
    assert_int_equal(t.first_lsn, bases[2]);
    unlink_segments(2, count);
    t = time_search(0, 0);
    assert_int_equal(log_time_find(&t, reader), SH_NOT_FOUND);
}

/* With entries of that time in a damaged range, who reads from the answer on is told. */
static void test_a_time_search_hides_no_damage(void **state)
{
    (void)state;
    make_indexes();
    struct segment_index index = read_index(1);
    const struct segment_place *place = &index.places[5];
    int64_t at = (int64_t)(place->lsn - 1) / BATCH * MS_A_FRAME;
    struct log_read read;
    bytes_of(bases[1])[place->offset + 200] ^= 1;
    struct log_time t = time_search(0, began_ms + at);
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_true(t.found);
    assert_int_equal(t.from, place->lsn);
    assert_int_equal(read_at(t.from, &read), SH_CORRUPT);
    assert_int_equal(read.good_lsn, place->lsn + BATCH);
    t = time_search(0, began_ms + at + 1); /* it may be in there */
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_int_equal(t.from, place->lsn);
    t = time_search(0, began_ms + at + MS_A_FRAME + 1); /* not any more: the frame behind is older too */
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_int_equal(t.from, place->lsn + 2 * BATCH);
    check_time(at - 1 - MS_A_FRAME);
    segment_index_free(&index);
    for (size_t i = 1; i + 1 < count; i++) /* headers and checkpoints, by which segments are chosen */
        bytes_of(bases[i])[SEGMENT_HEADER_BYTES + 40] ^= 1;
    fresh_reader();
    check_time(0);
    check_time((int64_t)(bases[count - 1] - 1) / BATCH * MS_A_FRAME + 1);
    t = time_search(0, began_ms + (int64_t)(bases[2] - 1) / BATCH * MS_A_FRAME + 1);
    assert_int_equal(log_time_find(&t, reader), SH_OK);
    assert_true(t.found && t.from <= bases[2] + BATCH);
}

#define INDEX_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

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
        INDEX_TEST(test_a_new_reader_comes_to_any_lsn_with_little_reading),
        INDEX_TEST(test_an_index_that_lies_costs_no_entry),
        INDEX_TEST(test_a_reader_is_misled_once),
        INDEX_TEST(test_a_damaged_or_foreign_index_is_not_used),
        INDEX_TEST(test_damage_at_a_place_of_the_index_is_told),
        INDEX_TEST(test_a_segment_trimmed_under_a_reader_is_read_to_its_end),
        INDEX_TEST(test_the_next_segment_trimmed_under_a_reader_is_told),
        INDEX_TEST(test_the_newest_segment_rolled_away_and_trimmed_is_told),
        INDEX_TEST(test_a_segment_lost_under_a_reader_is_corrupt),
        INDEX_TEST(test_the_first_entry_since_a_time),
        INDEX_TEST(test_an_index_that_lies_about_time_costs_no_entry),
        INDEX_TEST(test_a_time_search_goes_on_from_where_it_was),
        INDEX_TEST(test_a_time_search_in_a_trimmed_log),
        INDEX_TEST(test_a_time_search_hides_no_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
