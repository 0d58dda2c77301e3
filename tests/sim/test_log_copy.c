/* Reading a log as its copies are made from it: byte for byte, from any place of it, in pieces of any size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "log_reader_copy.h"
#include "rot.h"

static struct log_reader *reader;
static struct buf got;

static struct log_copy ask(struct log_chain from, size_t most_bytes)
{
    return (struct log_copy){.from = from,
                             .durable_end = rot_rig.log.durable.end,
                             .max_bytes = most_bytes,
                             .max_entries = 1000000};
}

static enum sh_error read_at(struct log_copy *copy)
{
    got.len = 0;
    return log_reader_copy(reader, copy, &got);
}

static struct log_chain start_of_log(void)
{
    return (struct log_chain){.next_lsn = 1};
}

static void begin(void)
{
    reader = log_reader_open(rot_fs, rot_dir, rot_rig.dir.identity.log);
}

static void end(void)
{
    log_reader_close(reader);
    buf_free(&got);
    got = (struct buf){0};
}

/* All of the log up to the durable end, as its files have it. */
static void read_files(struct buf *out)
{
    uint64_t *bases, end = rot_rig.log.durable.end;
    size_t count;
    assert_int_equal(segment_list(rot_fs, rot_dir, &bases, &count), 0);
    uint8_t *zeros = xcalloc(1, end);
    buf_append(out, zeros, end);
    free(zeros);
    for (size_t i = count; i-- > 0;) {
        struct segment_header header;
        const uint8_t *bytes = rot_file(rot_path(bases[i]));
        assert_int_equal(segment_header_decode(slice_of(bytes, SEGMENT_HEADER_BYTES), &header), SH_OK);
        memcpy(out->data + header.position, bytes, end - header.position);
        end = header.position;
    }
    assert_int_equal(end, 0);
    free(bases);
}

static void assert_copied_in_pieces(const struct buf *all, size_t piece)
{
    struct log_chain at = start_of_log();
    for (;;) {
        struct log_copy copy = ask(at, piece);
        assert_int_equal(read_at(&copy), SH_OK);
        if (copy.state == LOG_COPY_END)
            break;
        assert_int_equal(copy.state, LOG_COPY_FRAMES);
        assert_true(got.len > 0);
        assert_memory_equal(got.data, all->data + at.position, got.len);
        assert_int_equal(copy.at.position, at.position + got.len);
        at = copy.at;
    }
    assert_int_equal(at.position, rot_rig.log.durable.end);
    assert_int_equal(at.next_lsn, rot_rig.log.durable.lsn + 1);
}

static void test_pieces_of_any_size_make_the_same_bytes(void **state)
{
    (void)state;
    uint64_t last;
    struct buf all = {0};
    rot_fill(3, &last);
    read_files(&all);
    begin();
    const size_t pieces[] = {1, 1000, 70000, 4 << 20};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        assert_copied_in_pieces(&all, pieces[i]);
    end();
    buf_free(&all);
}

/* Each place that a copy may stand at, by a reader that comes from nowhere: the bytes behind it follow. */
static void test_any_place_is_found(void **state)
{
    (void)state;
    uint64_t last, places = 0;
    struct buf all = {0};
    rot_fill(3, &last);
    read_files(&all);
    struct log_chain at = start_of_log();
    for (;; places++) {
        begin();
        struct log_copy copy = ask(at, 1);
        assert_int_equal(read_at(&copy), SH_OK);
        if (copy.state == LOG_COPY_FRAMES)
            assert_memory_equal(got.data, all.data + at.position, got.len);
        end();
        if (copy.state != LOG_COPY_FRAMES)
            break;
        at = copy.at;
    }
    assert_int_equal(at.position, rot_rig.log.durable.end);
    assert_true(places > 10);
    buf_free(&all);
}

static void test_another_chain_is_told(void **state)
{
    (void)state;
    uint64_t last;
    rot_fill(3, &last);
    begin();
    struct log_copy copy = ask(start_of_log(), 1);
    assert_int_equal(read_at(&copy), SH_OK);
    struct log_chain good = copy.at;
    struct log_chain lies[] = {good, good, good, good};
    lies[0].checksum ^= 1;
    lies[1].next_lsn += 1;
    lies[2].position += 1;
    lies[3].position -= 1;
    for (size_t i = 0; i < 4; i++) {
        copy = ask(lies[i], 1 << 20);
        assert_int_equal(read_at(&copy), SH_OK);
        assert_int_equal(copy.state, LOG_COPY_FORKED);
        assert_int_equal(copy.at.checksum, i < 2 ? good.checksum : 0);
        assert_int_equal(got.len, 0);
    }
    copy = ask((struct log_chain){.next_lsn = 1, .checksum = 7}, 1 << 20); /* at a segment's header */
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_FORKED);
    copy = ask(good, 1 << 20);
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_FRAMES);
    end();
}

static void test_nothing_beyond_the_durable_end(void **state)
{
    (void)state;
    uint64_t last;
    rot_fill(2, &last);
    begin();
    struct log_copy copy = ask(start_of_log(), 1);
    assert_int_equal(read_at(&copy), SH_OK);
    struct log_chain first = copy.at;
    copy = ask(first, 1 << 20);
    copy.durable_end = first.position;
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_END);
    copy = ask(first, 1 << 20);
    copy.durable_end = first.position - 1;
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_BEHIND);
    copy = ask(first, 0);
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_END);
    assert_int_equal(got.len, 0);
    end();
}

static void test_what_is_trimmed_is_told_and_a_copy_can_begin_behind(void **state)
{
    (void)state;
    uint64_t last, newest = rot_fill(4, &last), second = rot_places[newest - 1].base;
    begin();
    assert_true(second > 1);
    assert_int_equal(rot_fs->unlink(rot_fs, rot_path(1)), 0);
    struct log_copy copy = ask(start_of_log(), 1 << 20);
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_TRIMMED);
    struct log_chain left = copy.at;
    assert_true(left.next_lsn > 1 && left.position > 0);
    copy = ask((struct log_chain){left.next_lsn, 0, left.position}, 1 << 20);
    copy.anew = true;
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_FRAMES);
    assert_memory_equal(got.data, rot_file(rot_path(left.next_lsn)), got.len);
    copy =
        ask((struct log_chain){left.next_lsn, 0, left.position + 1}, 1 << 20); /* no segment begins there */
    copy.anew = true;
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.state, LOG_COPY_TRIMMED);
    assert_int_equal(copy.at.position, left.position);
    end();
}

static void test_damage_is_no_end(void **state)
{
    (void)state;
    uint64_t last;
    rot_fill(2, &last);
    begin();
    struct log_copy copy = ask(start_of_log(), 1);
    assert_int_equal(read_at(&copy), SH_OK);
    struct log_chain second = copy.at;
    rot_file(rot_path(1))[second.position + FRAME_HEADER_BYTES] ^= 1;
    end(); /* what a reader has read it need not read again */
    begin();
    copy = ask(second, 1 << 20);
    assert_int_equal(read_at(&copy), SH_CORRUPT);
    assert_int_equal(got.len, 0);
    copy = ask(start_of_log(), 1 << 20); /* what comes before is good */
    assert_int_equal(read_at(&copy), SH_OK);
    assert_int_equal(copy.at.position, second.position);
    rot_file(rot_path(1))[second.position + FRAME_HEADER_BYTES] ^= 1;
    end();
    begin();
    rot_file(rot_path(1))[20] ^= 1; /* the header that a copy would begin with */
    copy = ask(start_of_log(), 1 << 20);
    assert_int_equal(read_at(&copy), SH_CORRUPT);
    end();
}

#define COPY_TEST(f) cmocka_unit_test_setup_teardown(f, rot_setup, rot_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        COPY_TEST(test_pieces_of_any_size_make_the_same_bytes),
        COPY_TEST(test_any_place_is_found),
        COPY_TEST(test_another_chain_is_told),
        COPY_TEST(test_nothing_beyond_the_durable_end),
        COPY_TEST(test_what_is_trimmed_is_told_and_a_copy_can_begin_behind),
        COPY_TEST(test_damage_is_no_end),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
