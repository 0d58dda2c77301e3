/* Giving up what nobody has: what may be given up, the loss frame in the log, and what verify, readers and
 * recovery make of it. On the simulated disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hlc.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "verify_losses.h"
#include "wal_loss.h"
#include "wal_repair.h"
#include "wal_rig.h"

enum { SEGMENT = 64 << 10, ENTRIES = 1200, PAYLOAD = 100, FRAMES_MAX = 4000 };
static const char data[] = "/data";

static struct sim_disk *disk;
static struct wal_rig rig;
static struct log_loss loss;
static struct wal_loss_place where;
static struct wal_refusal refusal;

/* Every frame of the log as it was. */
static struct place {
    uint64_t base, offset, size, lsn, position;
    uint32_t count, checksum;
    uint8_t kind;
} places[FRAMES_MAX];
static size_t place_count;

static struct slice payload_of(uint64_t n)
{
    static char text[PAYLOAD];
    int len = snprintf(text, sizeof text, "entry %llu %080d", (unsigned long long)n, 0);
    return slice_of(text, (size_t)len);
}

static void append_entries(uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++) {
        rig_append(&rig, 7, 1, n, payload_of(n));
        assert_true(rig_commit(&rig));
    }
}

static bool add_place(void *arg, const struct log_frame *f)
{
    (void)arg;
    assert_true(place_count < FRAMES_MAX);
    places[place_count++] = (struct place){
        .base = f->segment->base_lsn,
        .offset = f->offset,
        .size = FRAME_HEADER_BYTES + f->body.len,
        .lsn = f->header->base_lsn,
        .position = f->segment->position + f->offset,
        .count = f->header->count,
        .checksum = f->header->checksum,
        .kind = f->header->kind,
    };
    return true;
}

static int setup(void **state)
{
    (void)state;
    struct log_verify_options options = {.on_frame = add_place};
    struct log_verify_report report;
    disk = sim_disk_open();
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    append_entries(1, ENTRIES);
    place_count = 0;
    assert_int_equal(log_verify(rig.fs, data, &options, &report), SH_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

/* ---------------------------------------------------------------- steps */

static const char *path_of(uint64_t base)
{
    static char path[PATH_MAX];
    char name[SEGMENT_NAME_MAX];
    segment_name(base, name);
    vfs_path(path, rig.dir.log, name);
    return path;
}

static uint8_t *bytes_of(uint64_t base)
{
    struct slice file = sim_disk_file(disk, path_of(base));
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

/* The frame with that entry. */
static const struct place *place_of(uint64_t lsn)
{
    for (size_t i = 0; i < place_count; i++)
        if (places[i].count > 0 && places[i].lsn == lsn)
            return &places[i];
    fail_msg("no frame of LSN %llu", (unsigned long long)lsn);
    return NULL;
}

/* Damage that a crash leaves where it is. */
static void overwrite(const char *path, uint64_t offset, const void *bytes, size_t len)
{
    int fd = rig.fs->open(rig.fs, path, O_RDWR, 0);
    assert_true(fd >= 0);
    assert_int_equal(vfs_write_all(rig.fs, fd, bytes, len, (int64_t)offset), 0);
    assert_int_equal(rig.fs->fdatasync(rig.fs, fd), 0);
    rig.fs->close(rig.fs, fd);
}

static void harm(const struct place *p)
{
    uint64_t at = p->offset + FRAME_HEADER_BYTES;
    uint8_t byte = bytes_of(p->base)[at] ^ 1;
    overwrite(path_of(p->base), at, &byte, 1);
}

static void harm_entries(uint64_t first, uint64_t last)
{
    for (uint64_t lsn = first; lsn <= last; lsn++)
        harm(place_of(lsn));
}

static uint64_t base_of(size_t segment)
{
    uint64_t *bases, base;
    size_t count;
    assert_int_equal(segment_list(rig.fs, rig.dir.log, &bases, &count), 0);
    assert_true(segment < count);
    base = bases[segment];
    free(bases);
    return base;
}

static enum sh_error find(uint64_t first, uint64_t last)
{
    memset(&loss, 0, sizeof loss);
    refusal = (struct wal_refusal){0};
    return wal_loss_find(rig.fs, data, rig.dir.log, rig.dir.identity.log, first, last, rig.log.durable.lsn,
                         &loss, &where, &refusal);
}

static void accept_loss(uint64_t first, uint64_t last)
{
    struct buf body = {0};
    unsigned before = rig.losses;
    if (find(first, last) != SH_OK)
        fail_msg("refused: %s", refusal.text);
    log_loss_encode(&loss, &body);
    wal_core_accept_loss(rig.core, buf_slice(&body), rig.now_ns);
    buf_free(&body);
    assert_int_equal(rig.losses, before); /* not before it is durable */
    assert_true(rig_commit(&rig));
    assert_int_equal(rig.losses, before + 1);
}

#define assert_refused(error, wanted, words)                                                                 \
    do {                                                                                                     \
        assert_int_equal(error, wanted);                                                                     \
        assert_int_equal(refusal.code, wanted);                                                              \
        if (strstr(refusal.text, words) == NULL)                                                             \
            fail_msg("another refusal: %s", refusal.text);                                                   \
    } while (0)

static struct log_damage last_damage;

static void on_damage(void *arg, const struct log_damage *d)
{
    (void)arg;
    last_damage = *d;
}

static struct log_verify_report report;

static enum sh_error verify(void)
{
    struct log_verify_options options = {.on_damage = on_damage};
    memset(&last_damage, 0, sizeof last_damage);
    return log_verify(rig.fs, data, &options, &report);
}

/* Reads one entry; *good gets where to go on when it is corrupt. */
static enum sh_error read_at(uint64_t lsn, uint64_t *good)
{
    struct log_reader *reader = log_reader_open(rig.fs, rig.dir.log, rig.dir.identity.log);
    struct log_read read = {
        .from = lsn, .durable_end = rig.log.durable.end, .max_bytes = 1, .max_entries = 1};
    struct buf out = {0};
    enum sh_error error = log_reader_read(reader, &read, &out);
    *good = read.good_lsn;
    buf_free(&out);
    log_reader_close(reader);
    return error;
}

/* ---------------------------------------------------------------- what may be given up */

static void test_what_a_loss_frame_says(void **state)
{
    (void)state;
    harm_entries(100, 104);
    assert_int_equal(find(100, 104), SH_OK);
    const struct place *before = place_of(99), *last = place_of(104), *behind = place_of(105);
    assert_int_equal(loss.first_lsn, 100);
    assert_int_equal(loss.last_lsn, 104);
    assert_int_equal(loss.begin, before->position + before->size);
    assert_int_equal(loss.end, behind->position);
    assert_int_equal(loss.checksum_before, before->checksum);
    assert_int_equal(loss.checksum_behind, last->checksum);
    assert_int_equal(where.base_lsn, before->base);
    assert_int_equal(where.offset, before->offset + before->size);
}

static void test_what_can_be_read_is_not_given_up(void **state)
{
    (void)state;
    assert_refused(find(100, 104), SH_CONFLICT, "LSN 100 can be read");
    harm_entries(100, 104);
    assert_refused(find(99, 104), SH_CONFLICT, "LSN 99 can be read");
    assert_refused(find(100, 105), SH_CONFLICT, "LSN 105 can be read");
    assert_refused(find(100, 110), SH_CONFLICT, "LSN 105 can be read");
    harm_entries(110, 111);
    assert_refused(find(100, 111), SH_CONFLICT, "LSN 105 can be read");
    assert_refused(find(1, 104), SH_CONFLICT, "LSN 1 can be read");
    assert_refused(find(1, ENTRIES), SH_CONFLICT, "LSN 1 can be read");
    assert_int_equal(find(110, 111), SH_OK);
}

static void test_all_that_is_missing_in_one_place_or_nothing(void **state)
{
    (void)state;
    harm_entries(100, 104);
    assert_refused(find(101, 104), SH_CONFLICT, "LSN 100 is missing too");
    assert_refused(find(100, 103), SH_CONFLICT, "LSN 104 is missing too");
    assert_refused(find(102, 102), SH_CONFLICT, "LSN 101 is missing too");
}

static void test_ranges_that_make_no_sense(void **state)
{
    (void)state;
    assert_refused(find(0, 5), SH_BAD_REQUEST, "range");
    assert_refused(find(5, 4), SH_BAD_REQUEST, "range");
    assert_refused(find(ENTRIES, ENTRIES + 1), SH_NOT_FOUND, "ends before");
    assert_refused(find(5, UINT64_MAX), SH_NOT_FOUND, "ends before");
    uint64_t second = base_of(1);
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(1)), 0); /* trimmed */
    assert_refused(find(1, 5), SH_TRIMMED, "begins behind");
    assert_int_equal(refusal.expected, second);
}

static void test_the_first_entries_of_the_log(void **state)
{
    (void)state;
    memset(bytes_of(1), 0, place_of(6)->offset); /* header and checkpoint too */
    assert_int_equal(find(1, 5), SH_OK);
    assert_int_equal(loss.begin, 0);
    assert_int_equal(where.base_lsn, 1);
    assert_int_equal(where.offset, 0);
    assert_int_equal(loss.end, place_of(6)->position);
}

static void test_the_last_entries_of_a_segment(void **state)
{
    (void)state;
    uint64_t base = base_of(1);
    harm_entries(base - 3, base - 1);
    assert_int_equal(find(base - 3, base - 1), SH_OK);
    /* The next segment's checkpoint is the first frame behind. */
    assert_int_equal(loss.end,
                     place_of(base - 1)->position + place_of(base - 1)->size + SEGMENT_HEADER_BYTES);
}

/* A loss that reaches over a segment's end, with its header and with a checkpoint that is good in the midst.
 */
static void test_a_loss_over_a_segments_end(void **state)
{
    (void)state;
    uint64_t base = base_of(1);
    harm_entries(base - 3, base + 2);
    assert_refused(find(base - 3, base - 1), SH_CONFLICT, "is missing too");
    assert_int_equal(find(base - 3, base + 2), SH_OK);
    assert_int_equal(loss.end, place_of(base + 3)->position);
    memset(bytes_of(base), 0, place_of(base)->offset);
    assert_int_equal(find(base - 3, base + 2), SH_OK);
    assert_int_equal(loss.end, place_of(base + 3)->position);
}

/* What stands between the entries and a damaged checkpoint bounds nothing: the loss reaches over both. */
static void test_a_loss_reaches_over_a_damaged_checkpoint(void **state)
{
    (void)state;
    uint64_t base = base_of(1);
    struct wal_loss_search search;
    const struct place *before = place_of(base - 2), *behind = place_of(base);
    struct frame_header h = {.base_lsn = before->lsn, .count = 1, .checksum = before->checksum};
    wal_loss_search_open(&search, base - 1, base - 1);
    assert_true(wal_loss_feed(&search, &h, before->position));
    /* A system frame that is good, then the one that should follow the bad one behind it. */
    h = (struct frame_header){.kind = FRAME_CLOCK, .base_lsn = base, .previous_checksum = 1, .checksum = 2};
    assert_true(wal_loss_feed(&search, &h, before->position + 500));
    h = (struct frame_header){.base_lsn = base, .count = 1, .previous_checksum = 3, .checksum = 4};
    assert_false(wal_loss_feed(&search, &h, behind->position));
    assert_int_equal(wal_loss_judge(&search, 1, &loss, &refusal), SH_OK);
    assert_int_equal(loss.end, behind->position);
    assert_int_equal(loss.checksum_behind, 3);
}

static void test_a_loss_at_the_end_of_the_active_segment_needs_something_behind(void **state)
{
    (void)state;
    harm_entries(ENTRIES, ENTRIES);
    assert_refused(find(ENTRIES, ENTRIES), SH_CONFLICT, "stands behind");
}

/* ---------------------------------------------------------------- afterwards */

static void test_an_accepted_loss_is_no_damage_to_verify(void **state)
{
    (void)state;
    uint64_t good;
    harm_entries(100, 104);
    assert_int_equal(verify(), SH_CORRUPT);
    assert_int_equal(report.damages, 1);
    assert_int_equal(last_damage.accepted_ms, 0);
    accept_loss(100, 104);
    assert_int_equal(verify(), SH_OK);
    assert_int_equal(report.damages, 0);
    assert_int_equal(report.accepted, 1);
    assert_int_equal(last_damage.first_lsn, 100);
    assert_int_equal(last_damage.next_lsn, 105);
    assert_true(last_damage.accepted_ms >= rig.now_ns / NS_PER_MS);
    assert_int_equal(read_at(102, &good), SH_CORRUPT); /* still */
    assert_int_equal(good, 105);
}

static void test_other_damage_stays_damage(void **state)
{
    (void)state;
    harm_entries(100, 104);
    accept_loss(100, 104);
    harm_entries(200, 200);
    assert_int_equal(verify(), SH_CORRUPT);
    assert_int_equal(report.damages, 1);
    assert_int_equal(report.accepted, 1);
    assert_int_equal(last_damage.first_lsn, 200);
    harm_entries(200, 200); /* good again */
    assert_int_equal(verify(), SH_OK);
    harm_entries(105, 105); /* the accepted one grows: that is news */
    assert_int_equal(verify(), SH_CORRUPT);
    assert_int_equal(report.accepted, 0);
    accept_loss(100, 105);
    assert_int_equal(verify(), SH_OK);
}

static void test_a_loss_with_headers_in_it_is_wholly_accepted(void **state)
{
    (void)state;
    uint64_t base = base_of(1);
    harm_entries(base - 3, base + 2);
    memset(bytes_of(base), 0, place_of(base)->offset);
    assert_int_equal(verify(), SH_CORRUPT);
    assert_true(report.damages > 1);
    accept_loss(base - 3, base + 2);
    assert_int_equal(verify(), SH_OK);
    assert_int_equal(report.damages, 0);
}

static void test_accepting_twice_is_fine(void **state)
{
    (void)state;
    harm_entries(100, 104);
    accept_loss(100, 104);
    struct log_loss once = loss;
    accept_loss(100, 104);
    assert_memory_equal(&loss, &once, sizeof loss);
    assert_int_equal(verify(), SH_OK);
    assert_int_equal(report.accepted, 1);
}

/* What was given up may still turn up. */
static void test_an_accepted_loss_can_be_repaired(void **state)
{
    (void)state;
    struct msg_repair_reply reply;
    const struct place *p = place_of(100), *behind = place_of(105);
    struct buf saved = {0};
    buf_append(&saved, bytes_of(p->base) + p->offset, behind->offset - p->offset);
    harm_entries(100, 104);
    accept_loss(100, 104);
    struct wal_repair repair = {.fs = rig.fs,
                                .dir = rig.dir.log,
                                .quarantine = rig.dir.quarantine,
                                .log = rig.dir.identity.log,
                                .damage = rig.dir.damage};
    struct msg_repair request = {.segment = p->base, .offset = p->offset, .bytes = buf_slice(&saved)};
    assert_int_equal(wal_repair(&repair, &request, rig.log.durable.end, &reply, &refusal), SH_OK);
    assert_true(reply.whole);
    assert_int_equal(verify(), SH_OK);
    assert_int_equal(report.accepted, 0);
    assert_int_equal(report.entries, ENTRIES);
    buf_free(&saved);
}

static void check_entry(void *arg, uint64_t lsn, const struct entry *entry)
{
    uint64_t *seen = arg;
    assert_int_equal(lsn, *seen + 1);
    assert_true(slice_equal(entry->value, payload_of(lsn)));
    *seen = lsn;
}

/* Loss frames are in the log like others: over restarts, power losses and rolls nothing is counted wrong. */
static void test_loss_frames_are_walked_over(void **state)
{
    (void)state;
    uint64_t seen = 0, good;
    const struct place *p = place_of(100);
    harm_entries(100, 100);
    accept_loss(100, 100);
    uint64_t end = rig.log.durable.end;
    assert_int_equal(rig.log.durable.lsn, ENTRIES);
    rig_kill(&rig);
    sim_disk_crash(disk, SIM_LOSE_ALL, 1);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_int_equal(rig.log.durable.end, end);
    assert_int_equal(rig.log.durable.lsn, ENTRIES);
    assert_true(rig_prepare(&rig));
    uint64_t again = rig_append(&rig, 7, 1, ENTRIES, payload_of(ENTRIES)); /* the producers are as before */
    assert_int_equal(rig.answers[again].reply.lsn, ENTRIES);
    append_entries(ENTRIES + 1, 2 * ENTRIES); /* rolls */
    assert_int_equal(verify(), SH_OK);
    assert_int_equal(report.entries, 2 * ENTRIES - 1);
    assert_int_equal(report.accepted, 1);
    assert_int_equal(read_at(100, &good), SH_CORRUPT);
    harm(p);
    assert_int_equal(rig_read_all(rig.fs, data, rig.log.durable.end, check_entry, &seen), SH_OK);
    assert_int_equal(seen, 2 * ENTRIES);
}

/* A crash while the loss frame is written leaves it, or not: never anything else. */
static void test_a_crash_while_a_loss_is_accepted(void **state)
{
    (void)state;
    harm_entries(100, 104);
    for (uint64_t calls = 0;; calls++) {
        struct buf body = {0};
        assert_int_equal(find(100, 104), SH_OK);
        log_loss_encode(&loss, &body);
        wal_core_accept_loss(rig.core, buf_slice(&body), rig.now_ns);
        buf_free(&body);
        sim_disk_stop_after(disk, calls);
        bool good = rig_commit(&rig);
        bool told = rig.losses > 0;
        sim_disk_stop_after(disk, UINT64_MAX / 2);
        rig_kill(&rig);
        sim_disk_crash(disk, SIM_LOSE_SOME, calls);
        assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
        enum sh_error error = verify();
        assert_int_equal(report.entries, ENTRIES - 5);
        assert_true(error == SH_OK || !told);
        if (good)
            break;
    }
}

/* The log went on in a new segment, at its durable end. */
static void test_the_last_entries_of_the_log(void **state)
{
    (void)state;
    uint64_t good;
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    rig_kill(&rig);
    harm_entries(ENTRIES - 1, ENTRIES);
    assert_int_equal(rig_open(&rig, sim_disk_vfs(disk), data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    assert_int_equal(verify(), SH_CORRUPT);
    accept_loss(ENTRIES - 1, ENTRIES);
    assert_int_equal(verify(), SH_OK);
    append_entries(ENTRIES + 1, ENTRIES + 3);
    assert_int_equal(read_at(ENTRIES, &good), SH_CORRUPT);
    assert_int_equal(good, ENTRIES + 1);
    assert_int_equal(verify(), SH_OK);
}

static void test_whole_segments_that_are_missing(void **state)
{
    (void)state;
    uint64_t a = base_of(1), b = base_of(2), behind = base_of(3);
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(a)), 0);
    assert_int_equal(rig.fs->unlink(rig.fs, path_of(b)), 0);
    assert_int_equal(verify(), SH_CORRUPT);
    assert_refused(find(a, b - 1), SH_CONFLICT, "is missing too");
    accept_loss(a, behind - 1);
    assert_int_equal(verify(), SH_OK);
    assert_true(report.accepted > 0);
}

static void keep_accepted_ms(void *arg, const struct log_damage *d)
{
    *(int64_t *)arg = d->accepted_ms;
}

/* What the verifier makes of one damage beside one loss of LSN 10 to 20, positions 1,000 to 2,000. */
static int64_t judged(uint64_t position, uint64_t bytes, uint64_t first_lsn, uint64_t next_lsn)
{
    struct verify_losses losses = {0};
    struct log_loss lost = {.first_lsn = 10, .last_lsn = 20, .begin = 1000, .end = 2000};
    struct log_damage d = {
        .file = "file", .bytes = bytes, .first_lsn = first_lsn, .next_lsn = next_lsn, .what = "bad"};
    int64_t accepted_ms = -1;
    assert_true(verify_losses_hold(&losses, &d, position));
    verify_losses_note(&losses, &lost, 77);
    verify_losses_tell(&losses, keep_accepted_ms, &accepted_ms);
    return accepted_ms;
}

static void test_which_damage_a_loss_covers(void **state)
{
    (void)state;
    assert_int_equal(judged(1000, 1000, 10, 21), 77);
    assert_int_equal(judged(1500, 10, 0, 0), 77); /* a header in it: its entries are not known */
    assert_int_equal(judged(2000, 0, 10, 10), 77);
    assert_int_equal(judged(999, 10, 9, 0), 0);
    assert_int_equal(judged(1000, 1001, 10, 22), 0);
    assert_int_equal(judged(1500, UINT64_MAX, 10, 0), 0);
    assert_int_equal(judged(5000, 10, 10, 21), 77); /* its position is a guess, its entries are known */
    assert_int_equal(judged(5000, 10, 9, 21), 0);
    assert_int_equal(judged(5000, 10, 10, 22), 0);
    assert_int_equal(judged(5000, 10, 15, 15), 0);
    assert_int_equal(judged(UINT64_MAX, 0, 10, 21), 0); /* of another file */
}

/* ---------------------------------------------------------------- the body */

static void test_bodies_of_loss_frames(void **state)
{
    (void)state;
    struct log_loss in = {10, 20, 1000, 3000, 7, UINT32_MAX}, out;
    struct buf body = {0};
    log_loss_encode(&in, &body);
    assert_true(log_loss_decode(buf_slice(&body), &out));
    assert_memory_equal(&in, &out, sizeof in);
    for (size_t len = 0; len < body.len; len++)
        assert_false(log_loss_decode(slice_of(body.data, len), &out));
    buf_append(&body, "x", 1);
    assert_false(log_loss_decode(buf_slice(&body), &out));
    struct log_loss bad[] = {{0, 5, 1, 2, 0, 0}, {5, 4, 1, 2, 0, 0}, {4, 5, 2, 1, 0, 0}};
    for (size_t i = 0; i < 3; i++) {
        body.len = 0;
        log_loss_encode(&bad[i], &body);
        assert_false(log_loss_decode(buf_slice(&body), &out));
    }
    /* A key of a later version is skipped, a missing one is not made up. */
    body.len = 0;
    msgpack_packer pk;
    mp_packer(&pk, &body);
    msgpack_pack_map(&pk, 7);
    for (uint64_t key = 1; key <= 7; key++) {
        msgpack_pack_uint64(&pk, key == 7 ? 99 : key);
        key == 7 ? mp_pack_cstr(&pk, "later") : msgpack_pack_uint64(&pk, 5);
    }
    assert_true(log_loss_decode(buf_slice(&body), &out));
    body.data[1] = 98;
    assert_false(log_loss_decode(buf_slice(&body), &out));
    buf_free(&body);
}

#define LOSS_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOSS_TEST(test_what_a_loss_frame_says),
        LOSS_TEST(test_what_can_be_read_is_not_given_up),
        LOSS_TEST(test_all_that_is_missing_in_one_place_or_nothing),
        LOSS_TEST(test_ranges_that_make_no_sense),
        LOSS_TEST(test_the_first_entries_of_the_log),
        LOSS_TEST(test_the_last_entries_of_a_segment),
        LOSS_TEST(test_a_loss_over_a_segments_end),
        LOSS_TEST(test_a_loss_reaches_over_a_damaged_checkpoint),
        LOSS_TEST(test_a_loss_at_the_end_of_the_active_segment_needs_something_behind),
        LOSS_TEST(test_an_accepted_loss_is_no_damage_to_verify),
        LOSS_TEST(test_other_damage_stays_damage),
        LOSS_TEST(test_a_loss_with_headers_in_it_is_wholly_accepted),
        LOSS_TEST(test_accepting_twice_is_fine),
        LOSS_TEST(test_an_accepted_loss_can_be_repaired),
        LOSS_TEST(test_loss_frames_are_walked_over),
        LOSS_TEST(test_a_crash_while_a_loss_is_accepted),
        LOSS_TEST(test_the_last_entries_of_the_log),
        LOSS_TEST(test_whole_segments_that_are_missing),
        cmocka_unit_test(test_which_damage_a_loss_covers),
        cmocka_unit_test(test_bodies_of_loss_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
