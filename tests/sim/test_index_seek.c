/* Finding an LSN or a time by the indexes of sealed segments; and that a missing, damaged or lying one, or a
 * trim under a reader, never costs an entry. */
#include "index_story.h"

#include "log_time.h"

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

int main(void)
{
    log_set_level(LOG_ERROR + 1);
    const struct CMUnitTest tests[] = {
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
