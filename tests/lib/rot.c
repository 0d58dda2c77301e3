/* A log that rots. A misuse by a test fails it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rot.h"

#include "log_verify.h"

const char rot_data[] = "/data";
struct sim_disk *rot_disk;
const struct vfs *rot_fs;
struct wal_rig rot_rig;
char rot_dir[PATH_MAX];
struct rot_place rot_places[ROT_ENTRIES_MAX];

int rot_setup(void **state)
{
    (void)state;
    rot_disk = sim_disk_open();
    rot_fs = sim_disk_vfs(rot_disk);
    return 0;
}

int rot_teardown(void **state)
{
    (void)state;
    if (rot_rig.opened)
        rig_kill(&rot_rig);
    sim_disk_close(rot_disk);
    return 0;
}

void rot_start_over(void)
{
    rot_teardown(NULL);
    rot_setup(NULL);
}

enum service_exit rot_try_open(void)
{
    enum service_exit code = rig_open(&rot_rig, rot_fs, rot_data, ROT_SEGMENT);
    if (code == EXIT_DONE)
        snprintf(rot_dir, sizeof rot_dir, "%s", rot_rig.log.dir);
    return code;
}

void rot_open(void)
{
    assert_int_equal(rot_try_open(), EXIT_DONE);
    assert_true(rig_prepare(&rot_rig));
}

void rot_crash(enum sim_loss loss)
{
    rig_kill(&rot_rig);
    sim_disk_crash(rot_disk, loss, 1);
}

/* The payload of the n-th entry. */
struct slice rot_payload(uint64_t n)
{
    static char text[ROT_PAYLOAD];
    snprintf(text, sizeof text, "entry %llu %090d", (unsigned long long)n, 0);
    return slice_of(text, sizeof text);
}

/* Entry n has LSN n and sequence n, as long as nothing is lost. */
void rot_append(uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++) {
        uint64_t number = rig_append(&rot_rig, 7, 1, n, rot_payload(n));
        assert_true(rig_commit(&rot_rig));
        assert_int_equal(rot_rig.answers[number].reply.lsn, n);
    }
}

/* As a producer whose earlier entries may be lost. */
void rot_append_anew(uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++) {
        uint64_t number = rig_append(&rot_rig, 0, 1, 0, rot_payload(n));
        assert_true(rig_commit(&rot_rig));
        assert_int_equal(rot_rig.answers[number].reply.lsn, n);
    }
}

void rot_append_noted(uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++) {
        rot_append(n, n);
        uint64_t bytes = FRAME_HEADER_BYTES + 6 + ROT_PAYLOAD; /* array, event, stream, bin */
        rot_places[n] =
            (struct rot_place){rot_rig.log.segment.base_lsn, rot_rig.log.offset - bytes, rot_rig.log.offset};
    }
}

const char *rot_path(uint64_t base)
{
    static char path[PATH_MAX];
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, rot_dir, name);
    return path;
}

uint8_t *rot_file(const char *path)
{
    struct slice file = sim_disk_file(rot_disk, path);
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

/* Rot: also the next loss of power finds it so. */
void rot_keep(const char *path)
{
    sim_disk_resize(rot_disk, path, sim_disk_file(rot_disk, path).len);
}

void rot_bytes(uint64_t base, uint64_t offset, uint64_t bytes)
{
    uint8_t *file = rot_file(rot_path(base));
    for (uint64_t i = 0; i < bytes; i++)
        file[offset + i] ^= 0x55;
    rot_keep(rot_path(base));
}

void rot_entry(uint64_t n)
{
    rot_bytes(rot_places[n].base, rot_places[n].offset + 20, 1);
}

size_t rot_ranges(struct log_damage_range *first)
{
    size_t count;
    struct log_damage_range *list = wal_damage_list(rot_rig.dir.damage, &count);
    if (count > 0)
        *first = list[0];
    free(list);
    return count;
}

struct seen {
    uint64_t last, missing;
};

static void check_frames(struct seen *seen, const struct log_read *read, struct slice out)
{
    for (size_t at = 0, size; at < out.len; at += size) {
        struct frame_header h;
        struct entry entry;
        uint32_t count;
        assert_int_equal(
            frame_verify(slice_of(out.data + at, out.len - at), read->salt, FRAME_BYTES_MAX, &h, &size),
            SH_OK);
        assert_int_equal(h.base_lsn, seen->last + 1);
        struct mp m = mp_of(slice_of(out.data + at + FRAME_HEADER_BYTES, h.body_bytes));
        assert_true(entries_open(&m, &count) && entry_next(&m, &entry) == SH_OK);
        assert_true(slice_equal(entry.value, rot_payload(h.base_lsn)));
        seen->last = h.base_lsn;
    }
}

/* Reads all of the log, past damage: exactly `count` entries from `first` on are missing, all others come
 * back with their bytes, up to `last`. Verify agrees. */
void rot_assert_log(uint64_t last, uint64_t first, uint64_t count)
{
    struct log_reader *reader = log_reader_open(rot_fs, rot_dir, rot_rig.dir.identity.log);
    struct log_read read = {.from = 1,
                            .durable_end = rot_rig.log.durable.end,
                            .durable_lsn = rot_rig.log.durable.lsn,
                            .max_bytes = 1 << 20,
                            .max_entries = 100000};
    struct seen seen = {0};
    struct buf out = {0};
    assert_int_equal(rot_rig.log.durable.lsn, last);
    while (read.from <= last) {
        out.len = 0;
        enum sh_error error = log_reader_read(reader, &read, &out);
        if (error == SH_CORRUPT) {
            assert_int_equal(read.from, first);
            assert_int_equal(read.good_lsn, first + count);
            seen.missing += read.good_lsn - read.from;
            seen.last = read.good_lsn - 1;
            read.from = read.good_lsn;
            continue;
        }
        assert_int_equal(error, SH_OK);
        assert_true(out.len > 0);
        check_frames(&seen, &read, buf_slice(&out));
        read.from = read.next;
    }
    assert_int_equal(seen.last, last);
    assert_int_equal(seen.missing, count);
    buf_free(&out);
    log_reader_close(reader);
}

static void print_damage(void *arg, const struct log_damage *d)
{
    (void)arg;
    print_message("%s offset %llu bytes %llu LSN %llu, %llu: %s\n", d->file, (unsigned long long)d->offset,
                  (unsigned long long)d->bytes, (unsigned long long)d->first_lsn,
                  (unsigned long long)d->next_lsn, d->what);
}

uint64_t rot_damages(void)
{
    struct log_verify_options options = {.on_damage = print_damage};
    struct log_verify_report report;
    enum sh_error error = log_verify(rot_fs, rot_data, &options, &report);
    assert_int_equal(error, report.damages > 0 ? SH_CORRUPT : SH_OK);
    return report.damages;
}

static bool add_kept(void *arg, const char *name)
{
    struct rot_kept *kept = arg;
    char path[PATH_MAX];
    vfs_path(path, "/data/quarantine", name);
    kept->files++;
    kept->bytes += sim_disk_file(rot_disk, path).len;
    return true;
}

struct rot_kept rot_kept(void)
{
    struct rot_kept sum = {0};
    rot_fs->list(rot_fs, "/data/quarantine", add_kept, &sum);
    return sum;
}

/* Entries up to the first that lies in the given segment (1 is the first), and ten more; the segment's base.
 */
uint64_t rot_fill(unsigned segment, uint64_t *last)
{
    uint64_t base = 1, n = 0;
    rot_open();
    for (unsigned i = 1; i < segment; i++) {
        base = rot_rig.log.segment.base_lsn;
        while (rot_rig.log.segment.base_lsn == base) {
            n++;
            rot_append_noted(n, n);
        }
    }
    rot_append_noted(n + 1, n + 10);
    *last = n + 10;
    return rot_rig.log.segment.base_lsn;
}

void rot_assert_goes_on(uint64_t lost, uint64_t last, uint64_t mark_end)
{
    struct log_damage_range range;
    rot_open();
    assert_int_equal(rot_rig.log.segment.base_lsn, last + 1);
    assert_int_equal(rot_rig.log.segment.position, mark_end);
    rot_assert_log(last, lost, last + 1 - lost);
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(range.first_lsn, lost);
    assert_int_equal(range.next_lsn, last + 1);
    assert_int_equal(range.position + range.bytes, mark_end);
    assert_int_equal(rot_damages(), 1);
    rot_append_anew(last + 1, last + 5);
    rot_crash(SIM_LOSE_ALL);
    rot_open();
    rot_assert_log(last + 5, lost, last + 1 - lost);
    assert_int_equal(rot_ranges(&range), 1);
    assert_int_equal(rot_damages(), 1);
}

uint64_t rot_make_ten(void)
{
    rot_open();
    rot_append_noted(1, 10);
    uint64_t end = rot_rig.log.durable.end;
    rig_close(&rot_rig);
    return end;
}
