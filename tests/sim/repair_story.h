/* What the tests of repairs share: a log of several segments with one entry a frame on the simulated disk,
 * its bytes saved aside to play the replica, damage, and requests. */
#ifndef TESTS_REPAIR_STORY_H
#define TESTS_REPAIR_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log_verify.h"
#include "sim_disk.h"
#include "wal_repair.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 10, ENTRIES = 1200, PAYLOAD = 100, SEGMENTS_MAX = 8, FRAMES_MAX = 1000 };
static const char data[] = "/data";

static struct sim_disk *disk;
static struct wal_rig rig;
static struct wal_repair repair;
static struct msg_repair_reply reply;
static struct wal_refusal refusal;

/* The log as it was: its segments' bytes, and where frames begin in them; `at` ends with the end. */
static struct kept {
    uint64_t base;
    struct buf bytes;
    uint64_t at[FRAMES_MAX + 1];
    size_t frames;
} kept[SEGMENTS_MAX];
static size_t kept_count;

static inline struct slice payload_of(uint64_t n)
{
    static char text[PAYLOAD];
    int len = snprintf(text, sizeof text, "entry %llu %080d", (unsigned long long)n, 0);
    return slice_of(text, (size_t)len);
}

static inline const char *path_of(uint64_t base)
{
    static char path[PATH_MAX];
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, rig.dir.log, name);
    return path;
}

static inline uint8_t *bytes_of(uint64_t base)
{
    struct slice file = sim_disk_file(disk, path_of(base));
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

static inline void keep(struct kept *k, uint64_t base)
{
    struct slice file = sim_disk_file(disk, path_of(base));
    size_t size;
    struct frame_header h;
    k->base = base;
    k->bytes.len = 0;
    buf_append(&k->bytes, file.data, file.len);
    k->frames = 0;
    k->at[0] = SEGMENT_HEADER_BYTES;
    while (k->at[k->frames] < file.len &&
           frame_verify(slice_of(file.data + k->at[k->frames], file.len - k->at[k->frames]),
                        segment_salt(rig.dir.identity.log, base), FRAME_BYTES_MAX, &h, &size) == SH_OK) {
        k->at[k->frames + 1] = k->at[k->frames] + size;
        k->frames++;
    }
}

/* With nothing remembered. */
static inline void start_repair(void)
{
    repair = (struct wal_repair){.fs = rig.fs,
                                 .dir = rig.dir.log,
                                 .quarantine = rig.dir.quarantine,
                                 .log = rig.dir.identity.log,
                                 .damage = rig.dir.damage};
}

static inline int setup(void **state)
{
    uint64_t *bases;
    (void)state;
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    for (uint64_t n = 1; n <= ENTRIES; n++) {
        rig_append(&rig, 7, 1, n, payload_of(n));
        assert_true(rig_commit(&rig));
    }
    assert_int_equal(segment_list(rig.fs, rig.dir.log, &bases, &kept_count), 0);
    assert_in_range(kept_count, 4, SEGMENTS_MAX);
    for (size_t i = 0; i < kept_count; i++)
        keep(&kept[i], bases[i]);
    free(bases);
    start_repair();
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < kept_count; i++)
        buf_free(&kept[i].bytes);
    rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

/* ---------------------------------------------------------------- steps */

static inline enum sh_error send_bytes(uint64_t base, uint64_t offset, struct slice bytes)
{
    struct msg_repair request = {.segment = base, .offset = offset, .bytes = bytes};
    memset(&reply, 0, sizeof reply);
    return wal_repair(&repair, &request, rig.log.durable.end, &reply, &refusal);
}

/* The saved bytes of a segment from one offset to another. */
static inline struct slice saved(const struct kept *k, uint64_t from, uint64_t to)
{
    return slice_of(k->bytes.data + from, to - from);
}

static inline enum sh_error send_saved(const struct kept *k, uint64_t from, uint64_t to)
{
    return send_bytes(k->base, from, saved(k, from, to));
}

/* Damage that a crash leaves where it is. */
static inline void overwrite(const char *path, uint64_t offset, const void *bytes, size_t len)
{
    int fd = rig.fs->open(rig.fs, path, O_RDWR, 0);
    assert_true(fd >= 0);
    assert_int_equal(vfs_write_all(rig.fs, fd, bytes, len, (int64_t)offset), 0);
    assert_int_equal(rig.fs->fdatasync(rig.fs, fd), 0);
    rig.fs->close(rig.fs, fd);
}

static inline void flip(const struct kept *k, uint64_t offset)
{
    uint8_t byte = bytes_of(k->base)[offset] ^ 1;
    overwrite(path_of(k->base), offset, &byte, 1);
}

static inline void flip_frame(const struct kept *k, size_t frame)
{
    flip(k, k->at[frame] + FRAME_HEADER_BYTES);
}

static inline enum sh_error verify(void)
{
    struct log_verify_options options = {0};
    struct log_verify_report report;
    return log_verify(rig.fs, data, &options, &report);
}

static inline void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    uint64_t *seen = arg;
    assert_int_equal(lsn, *seen + 1);
    assert_true(slice_equal(entry->value, payload_of(lsn)));
    *seen = lsn;
}

/* All bytes of all segments are as they were, and everything reads back. */
static inline void assert_whole(void)
{
    uint64_t seen = 0;
    for (size_t i = 0; i < kept_count; i++) {
        struct slice file = sim_disk_file(disk, path_of(kept[i].base));
        assert_int_equal(file.len, kept[i].bytes.len);
        assert_memory_equal(file.data, kept[i].bytes.data, file.len);
    }
    assert_int_equal(verify(), SH_OK);
    assert_int_equal(rig_read_all(rig.fs, data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_int_equal(seen, ENTRIES);
}

static inline void assert_repaired(enum sh_error error, const struct kept *k, uint64_t to)
{
    if (error != SH_OK)
        fail_msg("refused: %s", refusal.text);
    assert_true(reply.whole);
    assert_int_equal(reply.segment, k->base);
    assert_int_equal(reply.next, to);
    assert_whole();
}

#define assert_refused(error, wanted, words)                                                                 \
    do {                                                                                                     \
        assert_int_equal(error, wanted);                                                                     \
        assert_int_equal(refusal.code, wanted);                                                              \
        if (strstr(refusal.text, words) == NULL)                                                             \
            fail_msg("another refusal: %s", refusal.text);                                                   \
    } while (0)

#define REPAIR_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
