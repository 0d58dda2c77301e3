/* What the tests of indexes share: a log of several segments on the simulated disk, whose reads are counted,
 * and its indexes. */
#ifndef TESTS_INDEX_STORY_H
#define TESTS_INDEX_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hlc.h"
#include "log.h"
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

static inline int counting_open(const struct vfs *self, const char *path, int flags, mode_t mode)
{
    (void)self;
    opens++;
    return sim_disk_vfs(disk)->open(sim_disk_vfs(disk), path, flags, mode);
}

static inline ssize_t counting_pread(const struct vfs *self, int fd, void *out, size_t len, int64_t offset)
{
    (void)self;
    ssize_t got = sim_disk_vfs(disk)->pread(sim_disk_vfs(disk), fd, out, len, offset);
    bytes_read += got > 0 ? (uint64_t)got : 0;
    return got;
}

static inline void fresh_reader(void)
{
    if (reader != NULL)
        log_reader_close(reader);
    reader = log_reader_open(&fs, rig.dir.log, rig.dir.identity.log);
}

static inline void list(void)
{
    free(bases);
    assert_int_equal(segment_list(&fs, rig.dir.log, &bases, &count), 0);
}

/* Frame n (from 0) holds the LSNs 1 + n * BATCH on, of the time began_ms + n * MS_A_FRAME. */
static inline void append_frames(unsigned from, unsigned frames)
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

static inline int setup(void **state)
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

static inline int teardown(void **state)
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

static inline bool exists(uint64_t base, bool index)
{
    return sim_disk_file(disk, path_of(base, index)).data != NULL;
}

static inline uint8_t *bytes_of(uint64_t base)
{
    return (uint8_t *)(uintptr_t)sim_disk_file(disk, path_of(base, false)).data;
}

/* What walsvc does in the background; SH_OK, or why the first one that fails does. */
static inline enum sh_error make_index(size_t i)
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

static inline void make_indexes(void)
{
    for (size_t i = 0; i + 1 < count; i++)
        assert_int_equal(make_index(i), SH_OK);
}

static inline struct segment_index read_index(size_t i)
{
    struct segment_index index;
    assert_int_equal(segment_index_read(&fs, rig.dir.log, rig.dir.identity.log, bases[i], &index), SH_OK);
    return index;
}

static inline void write_index(const char *path, struct slice bytes)
{
    int fd = fs.open(&fs, path, O_RDWR | O_CREAT | O_TRUNC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(vfs_write_all(&fs, fd, bytes.data, bytes.len, 0), 0);
    fs.close(&fs, fd);
}

static inline void store_index(size_t i, const struct segment_index *index)
{
    struct buf bytes = {0};
    segment_index_encode(index, &bytes);
    write_index(path_of(bases[i], true), buf_slice(&bytes));
    buf_free(&bytes);
}

/* Reads one frame; the frame must be the one that holds the LSN, with its payload. */
static inline void check_read(uint64_t lsn)
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

static inline uint64_t last_lsn(void)
{
    return rig.log.durable.lsn;
}

#define INDEX_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
