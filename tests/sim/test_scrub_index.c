/* The scrubber and the indexes: a digest that differs, an index that is damaged, damage that whoever makes
 * indexes has met. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kept_log.h"
#include "log.h"
#include "segment_index.h"
#include "wal_index.h"

/* Makes those that are missing; returns how many there are. */
static size_t make_indexes(void)
{
    struct wal_index *w = wal_index_open(kept_fs, kept_rig.log.dir, kept_rig.dir.identity.log);
    size_t found = 0, count;
    uint64_t first;
    char path[PATH_MAX];
    wal_index_look(w);
    while (wal_index_work(w) != WAL_INDEX_NONE)
        wal_index_step(w);
    wal_index_close(w);
    count = kept_list(&first, NULL);
    for (size_t i = 0; i < count; i++) {
        kept_path_of(kept_base_of(i), ".idx", path);
        found += kept_exists(strrchr(path, '/') + 1);
    }
    return found;
}

static void test_segments_agree_with_their_indexes(void **state)
{
    (void)state;
    uint64_t first;
    kept_setup_large();
    size_t sealed = kept_list(&first, NULL) - 1;
    assert_int_equal(make_indexes(), sealed);
    kept_scrub_a_pass();
    assert_int_equal(kept.damages, 0);
    assert_int_equal(kept.indexes_lost, 0);
    assert_int_equal(make_indexes(), sealed);
    kept_teardown();
}

/* An index with right checksums that tells another digest than the segment has. */
static void write_other_digest(uint64_t base)
{
    struct segment_index index;
    struct buf bytes = {0};
    char name[SEGMENT_NAME_MAX];
    assert_int_equal(segment_index_read(kept_fs, kept_rig.log.dir, kept_rig.dir.identity.log, base, &index),
                     SH_OK);
    index.digest.bytes[0] ^= 1;
    segment_index_encode(&index, &bytes);
    segment_index_name(base, name);
    assert_int_equal(vfs_replace_file(kept_fs, kept_rig.log.dir, name, bytes.data, bytes.len), 0);
    segment_index_free(&index);
    buf_free(&bytes);
}

/* It goes, and is made again; the segment, whose frames are all good, is not touched, and no damage. */
static void test_an_index_with_another_digest_is_made_again(void **state)
{
    (void)state;
    uint64_t first;
    char path[PATH_MAX];
    kept_setup_large();
    size_t sealed = kept_list(&first, NULL) - 1;
    for (unsigned damaged = 0; damaged < 2; damaged++) {
        unsigned before = kept.indexes_lost;
        uint64_t base = kept_base_of(1 + damaged);
        assert_int_equal(make_indexes(), sealed);
        kept_path_of(base, ".idx", path);
        if (damaged)
            kept_flip(path, 60);
        else
            write_other_digest(base);
        kept_scrub_a_pass();
        assert_int_equal(kept.indexes_lost, before + 1);
        assert_false(kept_exists(strrchr(path, '/') + 1));
        assert_int_equal(kept.damages, 0);
        assert_int_equal(upkeep_rig_ranges(&kept), 0);
        assert_int_equal(make_indexes(), sealed);
        kept_scrub_a_pass();
        assert_int_equal(kept.indexes_lost, before + 1);
    }
    kept_teardown();
}

/* What the digest says of a damaged segment is no news: the index describes it as it was, and may stay. */
static void test_damage_does_not_cost_the_index(void **state)
{
    (void)state;
    char path[PATH_MAX], index[PATH_MAX];
    kept_setup_large();
    make_indexes();
    uint64_t base = kept_base_of(1);
    kept_path_of(base, ".seg", path);
    kept_path_of(base, ".idx", index);
    const size_t places[] = {20, 400000}; /* in the header, in a frame */
    for (unsigned i = 0; i < 2; i++) {
        kept_flip(path, places[i]);
        kept_scrub_a_pass();
        assert_int_equal(kept.indexes_lost, 0);
        assert_true(kept_exists(strrchr(index, '/') + 1));
        kept_flip(path, places[i]);
    }
    assert_int_equal(kept.damages, 2);
    kept_teardown();
}

/* Met by whoever makes indexes: all of the segment is read, at once. */
static void test_damage_that_another_has_met_is_registered(void **state)
{
    (void)state;
    char path[PATH_MAX];
    uint64_t first, newest;
    kept_setup_large();
    uint64_t base = kept_base_of(1);
    kept_path_of(base, ".seg", path);
    kept_flip(path, 400000);
    kept_flip(path, 900000);
    assert_int_equal(wal_upkeep_look(&kept.upkeep, base), WAL_LOOK_DAMAGED);
    assert_int_equal(upkeep_rig_ranges(&kept), 2);
    assert_int_equal(kept.damage.base_lsn, base);
    assert_int_equal(kept.upkeep.rounds.damages, 0); /* that is of a pass */
    kept_list(&first, &newest);
    assert_int_equal(wal_upkeep_look(&kept.upkeep, newest), WAL_LOOK_NONE); /* no sealed one */
    assert_int_equal(wal_upkeep_look(&kept.upkeep, base + 1), WAL_LOOK_NONE);
    assert_int_equal(upkeep_rig_ranges(&kept), 2);
    kept_flip(path, 400000);
    kept_flip(path, 900000);
    assert_int_equal(wal_upkeep_look(&kept.upkeep, base), WAL_LOOK_WHOLE);
    assert_int_equal(upkeep_rig_ranges(&kept), 0); /* mended, by whomever */
    kept_teardown();
}

static uint64_t ask_about(uint64_t base, bool origin)
{
    const struct msg_look look = {.log = kept_rig.dir.identity.log, .segment = base, .origin = origin};
    struct msg_look_reply reply;
    struct buf request = {0}, answer = {0};
    uint32_t type;
    msg_encode(MSG_look, &look, &request);
    wal_upkeep_answer(&kept.upkeep, MSG_look, buf_slice(&request), kept.now, &type, &answer);
    assert_int_equal(type, MSG_look_reply);
    assert_int_equal(msg_decode(type, buf_slice(&answer), &reply), SH_OK);
    assert_true(id16_equal(reply.log, look.log));
    assert_int_equal(reply.segment, base);
    buf_free(&request);
    buf_free(&answer);
    return reply.found;
}

static uint64_t ask_to_look(uint64_t base)
{
    return ask_about(base, false);
}

/* Another member has another digest of it: asked for by replsvc. */
static void test_a_look_finds_an_index_that_lies(void **state)
{
    (void)state;
    uint64_t first;
    char path[PATH_MAX];
    kept_setup_large();
    size_t sealed = kept_list(&first, NULL) - 1;
    uint64_t base = kept_base_of(1);
    make_indexes();
    kept_path_of(base, ".idx", path);
    assert_int_equal(ask_to_look(base), WAL_LOOK_WHOLE);
    assert_int_equal(kept.indexes_lost, 0);
    write_other_digest(base);
    assert_int_equal(ask_to_look(base), WAL_LOOK_INDEX);
    assert_int_equal(kept.indexes_lost, 1);
    assert_false(kept_exists(strrchr(path, '/') + 1));
    assert_int_equal(make_indexes(), sealed);
    assert_int_equal(ask_to_look(base), WAL_LOOK_WHOLE);
    assert_int_equal(kept.damages, 0);
    kept_teardown();
}

/* Whole, and its index agrees, but the origin's digest is another one: all of it is damage that no checksum
 * tells, so neither a look, nor the scrubber, nor a restart takes it for mended. */
static void test_what_the_origin_has_otherwise_is_registered(void **state)
{
    (void)state;
    struct log_damage_range range;
    kept_setup_large();
    make_indexes();
    uint64_t base = kept_base_of(1), newest;
    write_other_digest(base);
    assert_int_equal(ask_about(base, true), WAL_LOOK_INDEX); /* it was only that */
    make_indexes();
    assert_int_equal(upkeep_rig_ranges(&kept), 0);
    for (unsigned i = 0; i < 2; i++) { /* the second time nothing is new */
        assert_int_equal(ask_about(base, true), WAL_LOOK_DIFFERS);
        assert_int_equal(upkeep_rig_ranges(&kept), 1);
    }
    assert_int_equal(ask_to_look(base), WAL_LOOK_WHOLE);
    kept_scrub_a_pass();
    kept_restart(SIM_LOSE_ALL, 1);
    assert_int_equal(upkeep_rig_ranges(&kept), 1);
    assert_true(wal_damage_find(kept_rig.dir.damage, base, 0, 1, &range));
    assert_true(range.differs);
    assert_int_equal(range.offset, 0);
    assert_int_equal(range.next_lsn, kept_base_of(2));
    assert_true(range.copy[0] != 0);
    kept_list(&range.base_lsn, &newest);
    assert_int_equal(ask_about(newest, true), WAL_LOOK_NONE);
    kept_teardown();
}

/* The scrubber has begun with the segment, and still has the old digest to compare with. */
static void test_a_look_in_the_middle_of_a_pass(void **state)
{
    (void)state;
    kept_setup_large();
    make_indexes();
    uint64_t base = kept_base_of(0);
    write_other_digest(base);
    kept.now.mono_ns += 1000 * NS_PER_S;
    kept.now.real_ns += 1000 * NS_PER_S;
    for (unsigned i = 0; i < 100 && kept.upkeep.rounds.scrub.fd < 0; i++)
        wal_upkeep_scrub(&kept.upkeep, kept.now);
    assert_int_equal(kept.upkeep.rounds.scrub.base_lsn, base);
    assert_true(kept.upkeep.rounds.scrub.fd >= 0);
    assert_int_equal(ask_to_look(base), WAL_LOOK_INDEX);
    make_indexes();
    kept_scrub_a_pass();
    assert_int_equal(kept.indexes_lost, 1); /* the new one stays */
    kept_teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments_agree_with_their_indexes),
        cmocka_unit_test(test_an_index_with_another_digest_is_made_again),
        cmocka_unit_test(test_damage_does_not_cost_the_index),
        cmocka_unit_test(test_damage_that_another_has_met_is_registered),
        cmocka_unit_test(test_a_look_finds_an_index_that_lies),
        cmocka_unit_test(test_what_the_origin_has_otherwise_is_registered),
        cmocka_unit_test(test_a_look_in_the_middle_of_a_pass),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
