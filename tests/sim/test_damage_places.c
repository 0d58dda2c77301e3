/* A log of four segments with one bit flipped, or 4 KiB zeroed, at a random place: what is damaged is named
 * by `log verify` and met by a read, everything else reads back byte for byte, walsvc starts and goes on, and
 * no file is deleted or cut. $SHANGHAI_DAMAGE_PLACES: how many places (60; 1,000 with $SHANGHAI_LONG).
 * $SHANGHAI_SEED. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "log_verify.h"
#include "sim_disk.h"
#include "wal_rig.h"

enum { SEGMENT = 1 << 20, SEGMENTS = 4, PAGE = 4096, SPANS_MAX = 8192, FEW_PLACES = 60, ALL_PLACES = 1000 };
static const char data[] = "/data";

/* A header (count 0, LSN of the segment) or a frame. */
struct span {
    size_t from, to; /* in the file */
    bool is_data;
    uint64_t lsn;
    uint32_t count;
    bool damaged;
};

struct segment_image {
    uint64_t base;
    char path[PATH_MAX];
    struct buf bytes; /* as they should be */
    size_t used;      /* behind the last frame */
    struct span spans[SPANS_MAX];
    size_t span_count;
};

static struct segment_image segments[SEGMENTS];
static struct buf mark, node;
static char log_dir[PATH_MAX];
static uint64_t last_lsn, durable_end;
static struct sim_disk *disk;
static const struct vfs *fs;
static struct wal_rig rig;
static uint64_t random_state;

static uint64_t random_below(uint64_t bound)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 20) % bound;
}

/* ---------------------------------------------------------------- the image */

static void append_group(uint64_t *sequence)
{
    static uint8_t payload[6000];
    uint64_t count = 1 + random_below(4);
    for (uint64_t i = 0; i < count; i++) {
        size_t len = random_below(20) == 0 ? 6000 : 1 + (size_t)random_below(1500);
        for (size_t at = 0; at < len; at++)
            payload[at] = (uint8_t)(1 + random_below(255));
        rig_append_many(&rig, 7, ++*sequence, slice_of(payload, len), 1 + (uint32_t)random_below(3));
    }
    assert_true(rig_commit(&rig));
}

static void add_span(struct segment_image *s, size_t from, size_t to, const struct frame_header *h)
{
    assert_true(s->span_count < SPANS_MAX);
    s->spans[s->span_count++] = (struct span){.from = from,
                                              .to = to,
                                              .is_data = h != NULL && h->kind == FRAME_DATA,
                                              .lsn = h != NULL ? h->base_lsn : s->base,
                                              .count = h != NULL ? h->count : 0};
    s->used = to;
}

static void take_segment(struct segment_image *s, uint64_t base)
{
    char name[SEGMENT_NAME_MAX];
    struct frame_header h;
    size_t size;
    segment_name(base, name);
    s->base = base;
    vfs_path(s->path, rig.log.dir, name);
    struct slice file = sim_disk_file(disk, s->path);
    buf_append(&s->bytes, file.data, file.len);
    add_span(s, 0, SEGMENT_HEADER_BYTES, NULL);
    while (frame_verify(slice_of(file.data + s->used, file.len - s->used),
                        segment_salt(rig.dir.identity.log, base), FRAME_BYTES_MAX, &h, &size) == SH_OK)
        add_span(s, s->used, s->used + size, &h);
}

static void copy_file(const char *dir, const char *name, struct buf *out)
{
    char path[PATH_MAX];
    vfs_path(path, dir, name);
    struct slice file = sim_disk_file(disk, path);
    buf_append(out, file.data, file.len);
}

static void make_image(void)
{
    uint64_t *bases, sequence = 0;
    size_t count;
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
    assert_true(rig_prepare(&rig));
    do {
        append_group(&sequence);
        assert_int_equal(segment_list(fs, rig.log.dir, &bases, &count), 0);
        free(bases);
    } while (count < SEGMENTS || rig.log.offset < SEGMENT / 2);
    last_lsn = rig.log.durable.lsn;
    durable_end = rig.log.durable.end;
    assert_int_equal(wal_log_write_mark(&rig.log), 0);
    assert_int_equal(segment_list(fs, rig.log.dir, &bases, &count), 0);
    assert_int_equal(count, SEGMENTS);
    for (size_t i = 0; i < SEGMENTS; i++)
        take_segment(&segments[i], bases[i]);
    free(bases);
    snprintf(log_dir, sizeof log_dir, "%s", rig.log.dir);
    copy_file(log_dir, "mark", &mark);
    copy_file(data, "node", &node);
    rig_kill(&rig);
    sim_disk_close(disk);
}

static int setup_image(void **state)
{
    (void)state;
    make_image();
    return 0;
}

static int teardown_image(void **state)
{
    (void)state;
    for (size_t i = 0; i < SEGMENTS; i++)
        buf_free(&segments[i].bytes);
    buf_free(&mark);
    buf_free(&node);
    return 0;
}

static int open_disk(void **state)
{
    (void)state;
    disk = sim_disk_open();
    fs = sim_disk_vfs(disk);
    fs->mkdir(fs, data, 0);
    fs->mkdir(fs, "/data/log", 0);
    fs->mkdir(fs, log_dir, 0);
    for (size_t i = 0; i < SEGMENTS; i++) {
        struct segment_image *s = &segments[i];
        vfs_replace_file(fs, log_dir, strrchr(s->path, '/') + 1, s->bytes.data, s->bytes.len);
        for (size_t j = 0; j < s->span_count; j++)
            s->spans[j].damaged = false;
    }
    vfs_replace_file(fs, log_dir, "mark", mark.data, mark.len);
    vfs_replace_file(fs, data, "node", node.data, node.len);
    fs->sync_dir(fs, "/data/log");
    fs->sync_dir(fs, data);
    fs->sync_dir(fs, "/");
    return 0;
}

static int close_disk(void **state)
{
    (void)state;
    if (rig.opened)
        rig_kill(&rig);
    sim_disk_close(disk);
    return 0;
}

static uint8_t *bytes_of(const char *path)
{
    struct slice file = sim_disk_file(disk, path);
    assert_non_null(file.data);
    return (uint8_t *)(uintptr_t)file.data;
}

/* ---------------------------------------------------------------- damage */

static void mark_spans(struct segment_image *s, size_t from, size_t to)
{
    for (size_t i = 0; i < s->span_count; i++) {
        struct span *span = &s->spans[i];
        if (span->from < to && span->to > from)
            span->damaged |= memcmp(bytes_of(s->path) + span->from, s->bytes.data + span->from,
                                    span->to - span->from) != 0;
    }
}

/* False: the place held zeros already. */
static bool harm(struct segment_image *s, size_t at, bool one_bit)
{
    uint8_t *bytes = bytes_of(s->path);
    size_t to = one_bit ? at + 1 : at + PAGE < s->used ? at + PAGE : s->used;
    if (one_bit)
        bytes[at] ^= (uint8_t)(1 << random_below(8));
    else
        memset(bytes + at, 0, to - at);
    sim_disk_resize(disk, s->path, s->bytes.len); /* for good */
    bytes = bytes_of(s->path);
    mark_spans(s, at, to);
    return memcmp(bytes + at, s->bytes.data + at, to - at) != 0;
}

static bool harm_somewhere(struct segment_image **where, bool one_bit)
{
    size_t sum = 0;
    for (size_t i = 0; i < SEGMENTS; i++)
        sum += segments[i].used;
    size_t at = (size_t)random_below(sum), i = 0;
    for (; at >= segments[i].used; i++)
        at -= segments[i].used;
    *where = &segments[i];
    return harm(&segments[i], at, one_bit);
}

/* ---------------------------------------------------------------- what must hold */

struct found {
    unsigned count;
    char file[PATH_MAX];
    struct log_damage damage;
};

static void note_damage(void *arg, const struct log_damage *damage)
{
    struct found *found = arg;
    if (found->count++ > 0)
        return;
    found->damage = *damage;
    snprintf(found->file, sizeof found->file, "%s", damage->file);
}

/* One damage: the spans of `s` that are damaged. */
static void check_verify(const struct segment_image *s)
{
    struct found found = {0};
    struct log_verify_options options = {.on_damage = note_damage, .arg = &found};
    struct log_verify_report report;
    size_t first = 0, behind;
    while (!s->spans[first].damaged)
        first++;
    for (behind = first; behind < s->span_count && s->spans[behind].damaged; behind++)
        continue;
    assert_int_equal(log_verify(fs, data, &options, &report), SH_CORRUPT);
    assert_int_equal(found.count, 1);
    assert_string_equal(found.file, s->path);
    assert_int_equal(found.damage.offset, s->spans[first].from);
    assert_int_equal(found.damage.bytes, s->spans[behind - 1].to - s->spans[first].from);
    assert_int_equal(found.damage.first_lsn, s->spans[first].lsn);
    if (behind < s->span_count)
        assert_int_equal(found.damage.next_lsn, s->spans[behind].lsn);
}

/* The data frame that should come next in the image. */
struct cursor {
    size_t segment, span;
};

static const struct span *next_data(struct cursor *c)
{
    for (; c->segment < SEGMENTS; c->segment++, c->span = 0)
        for (; c->span < segments[c->segment].span_count; c->span++)
            if (segments[c->segment].spans[c->span].is_data)
                return &segments[c->segment].spans[c->span];
    return NULL;
}

/* Goes over damaged frames: the LSN of the next good one; last_lsn + 1 when there is none. */
static uint64_t good_behind(struct cursor *c)
{
    const struct span *span;
    while ((span = next_data(c)) != NULL && span->damaged)
        c->span++;
    return span != NULL ? span->lsn : last_lsn + 1;
}

/* Frames that were read are those of the image, byte for byte. */
static void check_frames(struct cursor *c, struct slice out)
{
    for (size_t at = 0; at < out.len; c->span++) {
        const struct span *span = next_data(c);
        if (span == NULL)
            return; /* what was appended since */
        const uint8_t *bytes = segments[c->segment].bytes.data + span->from;
        assert_false(span->damaged);
        assert_true(span->to - span->from <= out.len - at);
        assert_memory_equal(out.data + at, bytes, span->to - span->from);
        at += span->to - span->from;
    }
}

static void check_reads(uint64_t until_end, uint64_t until_lsn)
{
    struct log_reader *reader = log_reader_open(fs, log_dir, rig.dir.identity.log);
    struct log_read read = {.from = 1,
                            .durable_end = until_end,
                            .durable_lsn = until_lsn,
                            .max_bytes = 64 << 10,
                            .max_entries = 100000};
    struct cursor c = {0};
    struct buf out = {0};
    while (read.from <= until_lsn) {
        out.len = 0;
        enum sh_error error = log_reader_read(reader, &read, &out);
        const struct span *span = next_data(&c);
        if (span != NULL && span->damaged) {
            assert_int_equal(error, SH_CORRUPT);
            assert_int_equal(read.good_lsn, good_behind(&c));
            read.from = read.good_lsn;
            continue;
        }
        assert_int_equal(error, SH_OK);
        assert_true(out.len > 0);
        check_frames(&c, buf_slice(&out));
        read.from = read.next;
    }
    assert_null(next_data(&c));
    assert_int_equal(read.from, until_lsn + 1);
    buf_free(&out);
    log_reader_close(reader);
}

/* A read that begins in the damage, by a reader that comes from nowhere. */
static void check_reads_from_damage(void)
{
    for (struct cursor c = {0}; next_data(&c) != NULL; c.span++) {
        struct log_read read = {.from = next_data(&c)->lsn + next_data(&c)->count - 1,
                                .durable_end = durable_end,
                                .durable_lsn = last_lsn,
                                .max_bytes = 1,
                                .max_entries = 1};
        struct cursor behind = c;
        struct buf out = {0};
        if (!next_data(&c)->damaged)
            continue;
        struct log_reader *reader = log_reader_open(fs, log_dir, rig.dir.identity.log);
        assert_int_equal(log_reader_read(reader, &read, &out), SH_CORRUPT);
        assert_int_equal(read.good_lsn, good_behind(&behind));
        assert_int_equal(out.len, 0);
        log_reader_close(reader);
    }
}

/* No file is gone, none is cut, and the bytes below the durable end are as they were. */
static void check_files(const struct buf before[SEGMENTS])
{
    for (size_t i = 0; i < SEGMENTS; i++) {
        struct slice now = sim_disk_file(disk, segments[i].path);
        assert_non_null(now.data);
        assert_true(now.len >= segments[i].used);
        assert_memory_equal(now.data, before[i].data, segments[i].used);
    }
}

static void append_some(void)
{
    static const char payload[] = "behind the damage";
    for (unsigned i = 0; i < 20; i++) {
        uint64_t number = rig_append_many(&rig, 0, 0, slice_of(payload, sizeof payload), 2);
        assert_true(rig_commit(&rig));
        assert_int_equal(rig.answers[number].code, SH_OK);
    }
}

static size_t registered(void)
{
    size_t count;
    free(wal_damage_list(rig.dir.damage, &count));
    return count;
}

/* Recovery, twice; appends between. */
static void check_recovery(const struct segment_image *s)
{
    struct buf before[SEGMENTS] = {0};
    for (size_t i = 0; i < SEGMENTS; i++)
        buf_append(&before[i], bytes_of(segments[i].path), segments[i].bytes.len);
    for (unsigned start = 0; start < 2; start++) {
        assert_int_equal(rig_open(&rig, fs, data, SEGMENT), EXIT_DONE);
        assert_int_equal(rig.log.durable.lsn, last_lsn + start * 40u);
        assert_true(rig.log.durable.end >= durable_end);
        assert_int_equal(
            registered(),
            s == &segments[SEGMENTS - 1] || (s == &segments[SEGMENTS - 2] && s->spans[0].damaged) ? 1 : 0);
        append_some();
        check_reads(rig.log.durable.end, rig.log.durable.lsn);
        check_files(before);
        if (start == 0)
            rig_kill(&rig);
        else
            rig_close(&rig);
        sim_disk_crash(disk, SIM_LOSE_ALL, start);
    }
    check_verify(s);
    check_files(before);
    for (size_t i = 0; i < SEGMENTS; i++)
        buf_free(&before[i]);
}

static void check_place(struct segment_image *s)
{
    struct node_identity identity;
    assert_int_equal(node_identity_read(fs, data, &identity), SH_OK);
    rig.dir.identity = identity;
    check_verify(s);
    check_reads(durable_end, last_lsn);
    check_reads_from_damage();
    check_recovery(s);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != 0 ? strtoull(text, NULL, 10) : otherwise;
}

static void test_damage_at_random_places(void **state)
{
    uint64_t places =
        number_from("SHANGHAI_DAMAGE_PLACES", getenv("SHANGHAI_LONG") != NULL ? ALL_PLACES : FEW_PLACES);
    for (uint64_t i = 0; i < places; i++) {
        struct segment_image *s;
        uint64_t seed = random_state;
        open_disk(state);
        print_message("place %" PRIu64 ", state %" PRIu64 "\n", i, seed);
        if (harm_somewhere(&s, i % 2 == 0))
            check_place(s);
        close_disk(state);
    }
    print_message("figure: damage: %" PRIu64 " places of a log of %d segments\n", places, SEGMENTS);
}

/* The places that chance may miss: each segment's header, checkpoint, first and last frame. */
static void test_damage_at_the_edges(void **state)
{
    for (size_t i = 0; i < SEGMENTS; i++) {
        const struct segment_image *s = &segments[i];
        const size_t last = s->span_count - 1;
        const size_t places[] = {0,
                                 8,
                                 24,
                                 40,
                                 SEGMENT_HEADER_BYTES,
                                 SEGMENT_HEADER_BYTES + 8,
                                 s->spans[1].to - 1,
                                 s->spans[2].from,
                                 s->spans[2].from + 10,
                                 s->spans[last].from,
                                 s->spans[last].from + 8,
                                 s->spans[last].to - 1,
                                 s->spans[last - 1].to - 1};
        for (size_t j = 0; j < 2 * sizeof places / sizeof places[0]; j++) {
            open_disk(state);
            if (harm(&segments[i], places[j / 2], j % 2 == 0))
                check_place(&segments[i]);
            close_disk(state);
        }
    }
}

int main(void)
{
    random_state = number_from("SHANGHAI_SEED", random_u64() >> 1);
    print_message("SHANGHAI_SEED=%" PRIu64 "\n", random_state);
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage_at_the_edges),
        cmocka_unit_test(test_damage_at_random_places),
    };
    return cmocka_run_group_tests(tests, setup_image, teardown_image);
}
