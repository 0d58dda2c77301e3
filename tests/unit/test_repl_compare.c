/* replsvc: digests of sealed segments are compared with those of other members. */
#include <sys/stat.h>
#include <unistd.h>

#include "repl_story.h"

#include "repl_shell.h"
#include "segment_index.h"

enum { INTERVAL_MS = 60000, PAUSE_MS = 100, SEGMENT_BYTES = 1000 };

/* ---- what members answer ---- */

static struct repl_digest digest_of(uint64_t base, uint8_t what)
{
    struct repl_digest digest = {.base_lsn = base, .bytes = SEGMENT_BYTES};
    memset(digest.digest.bytes, what, sizeof digest.digest.bytes);
    return digest;
}

static struct slice packed(struct buf *out, const struct repl_digest *digests, size_t count)
{
    msgpack_packer pk;
    out->len = 0;
    mp_packer(&pk, out);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        msgpack_pack_array(&pk, 3);
        msgpack_pack_uint64(&pk, digests[i].base_lsn);
        msgpack_pack_uint64(&pk, digests[i].bytes);
        msgpack_pack_bin(&pk, sizeof digests[i].digest.bytes);
        msgpack_pack_bin_body(&pk, digests[i].digest.bytes, sizeof digests[i].digest.bytes);
    }
    return buf_slice(out);
}

static void answer(const struct repl_action *ask, const struct repl_digest *digests, size_t count,
                   uint64_t next)
{
    struct buf bytes = {0};
    const struct msg_digests_reply reply = {
        .log = ask->digests.log, .segments = packed(&bytes, digests, count), .next = next};
    peer_tell(&rig, ask, MSG_digests_reply, &reply);
    buf_free(&bytes);
}

static struct repl_action expect_question(unsigned log, unsigned node, uint64_t after)
{
    char id[16];
    struct repl_action ask = peer_expect(&rig, REPL_ASK_DIGESTS);
    snprintf(id, sizeof id, "n%u", node);
    assert_string_equal(ask.id, id);
    assert_int_equal(ask.port, RIG_BASE_PORT + 4);
    assert_true(id16_equal(ask.digests.log, peer_log(log)));
    assert_true(id16_equal(ask.digests.from, peer_log(1)));
    assert_int_equal(ask.digests.after, after);
    assert_int_equal(ask.digests.most, REPL_DIGESTS_MAX);
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0); /* one at a time */
    return ask;
}

static void answer_error(const struct repl_action *ask, enum sh_error code)
{
    peer_tell(&rig, ask, MSG_error, &(struct msg_error){.code = code});
}

static void looked(uint64_t found)
{
    peer_looked(&rig, MSG_look_reply, &(struct msg_look_reply){.found = found});
}

/* ---- n1 of three holds its own log and that of n2, and it is time to compare ---- */

static int begin_due(void **state)
{
    begin(state);
    rig.compare_interval_ns = INTERVAL_MS * (int64_t)NS_PER_MS;
    peer_hold(&rig, 2, model_log_end(&origin), 1);
    peer_watermark(&rig, 2, 1, peer_place(1, 100));
    peer_watermark(&rig, 3, 1, peer_place(1, 100));
    peer_watermark(&rig, 3, 2, model_log_end(&origin));
    peer_restart(&rig);
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
    peer_wait(&rig, INTERVAL_MS - 1000);
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0);
    peer_wait(&rig, 1000);
    return 0;
}

/* The own log has nothing sealed; now the copy of n2's is asked for. */
static struct repl_action come_to_the_copy(void)
{
    struct repl_action ask = expect_question(1, 2, 0);
    answer(&ask, NULL, 0, 0);
    peer_wait(&rig, PAUSE_MS);
    return expect_question(2, 2, 0);
}

static const struct repl_digest *expect_compare(size_t count)
{
    struct repl_action compare = peer_expect(&rig, REPL_COMPARE);
    assert_int_equal(compare.compare.count, count);
    return compare.compare.theirs;
}

static void test_all_logs_in_turn_then_a_rest(void **state)
{
    (void)state;
    const struct repl_digest both[] = {digest_of(1, 1), digest_of(11, 2)};
    struct repl_action ask = expect_question(1, 2, 0); /* the own log has no origin elsewhere */
    answer(&ask, both, 2, 11);
    assert_int_equal(expect_compare(2)[1].base_lsn, 11);
    peer_digests(&rig, both, 2);
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0); /* it takes its time */
    peer_wait(&rig, PAUSE_MS);
    ask = expect_question(1, 2, 11);
    answer(&ask, NULL, 0, 0);
    peer_wait(&rig, PAUSE_MS);
    ask = expect_question(2, 2, 0); /* the origin's copy of n2's log */
    answer(&ask, both, 1, 0);
    peer_digests(&rig, both, 1);
    assert_int_equal(peer_counters(&rig)->compared, 3);
    assert_int_equal(peer_counters(&rig)->differences, 0);
    peer_wait(&rig, INTERVAL_MS);
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0);
    peer_wait(&rig, PAUSE_MS);
    expect_question(1, 3, 0); /* another holder this time */
    assert_int_equal(peer_count(&rig, REPL_LOOK), 0);
}

static void test_a_difference_is_told_and_looked_at(void **state)
{
    (void)state;
    struct repl_digest there[] = {digest_of(1, 1), digest_of(11, 2), digest_of(21, 3)};
    struct repl_digest here[] = {there[0], digest_of(11, 9), there[2]};
    struct repl_action ask = come_to_the_copy();
    answer(&ask, there, 3, 0);
    peer_digests(&rig, here, 3);
    assert_int_equal(peer_counters(&rig)->differences, 1);
    struct repl_action alarm = peer_expect_notice(&rig, "not the same here and at another member");
    assert_int_equal(alarm.level, LOG_ERROR);
    assert_string_equal(alarm.id, "n2");
    assert_non_null(strstr(alarm.detail, "segment 11:"));
    assert_non_null(strstr(alarm.detail, "log 02020202"));
    assert_non_null(strstr(alarm.detail, "at n1"));
    alarm = peer_expect(&rig, REPL_ALARM);
    assert_string_equal(alarm.id, "n2");
    assert_non_null(strstr(alarm.detail, "log 02020202"));
    assert_non_null(strstr(alarm.detail, "segment 11 is not the same there and at n1"));
    struct repl_action look = peer_expect(&rig, REPL_LOOK);
    assert_true(id16_equal(look.look.log, peer_log(2)));
    assert_int_equal(look.look.segment, 11);
    peer_wait(&rig, INTERVAL_MS); /* it is not asked on before that has been read */
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0);
    looked(0);
    peer_expect_notice(&rig, "the other member has to look");
    peer_wait(&rig, PAUSE_MS);
    ask = expect_question(2, 2, 11); /* and on behind it */
    answer(&ask, there + 2, 1, 0);
    here[2].bytes++; /* another size is a difference too */
    peer_digests(&rig, here + 2, 1);
    assert_int_equal(peer_counters(&rig)->differences, 2);
    assert_int_equal(peer_count(&rig, REPL_ALARM), 0); /* one event for a log in a round */
    assert_int_equal(peer_expect(&rig, REPL_LOOK).look.segment, 21);
}

static void test_what_a_look_finds_is_told(void **state)
{
    (void)state;
    static const char *const texts[] = {"has to look at its own", "is repaired from a holder",
                                        "its index was wrong", "could not be read again",
                                        "it is fetched from there"};
    struct repl_digest there = digest_of(1, 1), here = digest_of(1, 2);
    struct repl_action ask = come_to_the_copy();
    for (unsigned i = 0; i < 6; i++) {
        answer(&ask, &there, 1, 0);
        peer_digests(&rig, &here, 1);
        peer_expect(&rig, REPL_LOOK);
        if (i < 5)
            looked(i);
        else
            peer_looked(&rig, MSG_error, &(struct msg_error){.code = SH_OVERLOADED});
        peer_expect_notice(&rig, texts[i < 5 ? i : 3]);
        peer_wait(&rig, PAUSE_MS);
        ask = expect_question(2, 2, there.base_lsn);
        there.base_lsn = ++here.base_lsn;
    }
}

/* Up to the look at what is said to differ in the copy of n2's log; the rest of the round. */
static bool look_names_the_origin(struct repl_action ask, struct repl_digest there)
{
    const struct repl_digest here = digest_of(there.base_lsn, 9);
    answer(&ask, &there, 1, 0);
    peer_digests(&rig, &here, 1);
    struct repl_action look = peer_expect(&rig, REPL_LOOK);
    assert_int_equal(look.look.segment, there.base_lsn);
    looked(0);
    peer_wait(&rig, PAUSE_MS);
    ask = peer_expect(&rig, REPL_ASK_DIGESTS);
    answer(&ask, NULL, 0, 0); /* nothing behind it */
    return look.look.origin;
}

static struct repl_action next_round(unsigned holder)
{
    peer_wait(&rig, 2 * PAUSE_MS + INTERVAL_MS);
    struct repl_action ask = expect_question(1, holder, 0);
    answer(&ask, NULL, 0, 0);
    peer_wait(&rig, PAUSE_MS);
    return expect_question(2, 2, 0);
}

/* In the first round it may be the origin's index that lies, which it finds out itself. */
static void test_what_the_origin_tells_for_two_rounds_is_what_it_has(void **state)
{
    (void)state;
    assert_false(look_names_the_origin(come_to_the_copy(), digest_of(1, 1)));
    assert_false(look_names_the_origin(next_round(3), digest_of(1, 2))); /* another one now */
    assert_false(look_names_the_origin(next_round(2), digest_of(1, 2)));
    assert_true(look_names_the_origin(next_round(3), digest_of(1, 2)));
    assert_true(look_names_the_origin(next_round(2), digest_of(1, 2)));
    assert_false(look_names_the_origin(next_round(3), digest_of(11, 2))); /* another segment */
}

static void test_what_another_holder_tells_is_not_what_the_origin_has(void **state)
{
    (void)state;
    peer_member(&rig, 2)->up = false;
    peer_tell_members(&rig);
    struct repl_action ask = expect_question(1, 2, 0); /* asked before */
    answer(&ask, NULL, 0, 0);
    peer_wait(&rig, PAUSE_MS);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(look_names_the_origin(expect_question(2, 3, 0), digest_of(1, 1)));
        peer_wait(&rig, 2 * PAUSE_MS + INTERVAL_MS);
        ask = expect_question(1, 3, 0);
        answer(&ask, NULL, 0, 0);
        peer_wait(&rig, PAUSE_MS);
    }
}

static void test_what_one_side_has_not_indexed_is_no_difference(void **state)
{
    (void)state;
    const struct repl_digest there[] = {digest_of(1, 1), digest_of(11, 2)};
    const struct repl_digest here[] = {{.base_lsn = 1}, there[1]};
    struct repl_action ask = come_to_the_copy();
    answer(&ask, there, 2, 0);
    peer_digests(&rig, here, 2);
    assert_int_equal(peer_counters(&rig)->compared, 1);
    assert_int_equal(peer_counters(&rig)->differences, 0);
    assert_int_equal(peer_count(&rig, REPL_LOOK), 0);
}

static void test_another_holder_is_asked_when_the_origin_is_no_use(void **state)
{
    (void)state;
    struct repl_action ask = come_to_the_copy();
    uint64_t failed = peer_counters(&rig)->failed;
    peer_fail(&rig, &ask);
    assert_int_equal(peer_counters(&rig)->failed, failed + 1);
    peer_wait(&rig, PAUSE_MS);
    ask = expect_question(2, 3, 0);
    answer_error(&ask, SH_NOT_FOUND);
    assert_int_equal(peer_counters(&rig)->refused, 1);
    peer_wait(&rig, INTERVAL_MS);
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0); /* that was everybody */
    peer_wait(&rig, PAUSE_MS);
    expect_question(1, 3, 0); /* the next round */
}

static void test_a_member_that_is_down_is_not_asked(void **state)
{
    (void)state;
    struct repl_action ask = expect_question(1, 2, 0);
    peer_member(&rig, 2)->up = false;
    peer_tell_members(&rig);
    answer(&ask, NULL, 0, 0);
    peer_wait(&rig, PAUSE_MS);
    expect_question(2, 3, 0);
}

static void test_a_member_that_does_not_answer_is_given_up(void **state)
{
    (void)state;
    struct repl_action ask = come_to_the_copy();
    peer_clear(&rig);
    peer_wait(&rig, 10000 + PAUSE_MS);
    struct repl_action cancel = peer_expect(&rig, REPL_CANCEL);
    while (cancel.slot != ask.slot) /* fetches of frames have had no answer either */
        cancel = peer_expect(&rig, REPL_CANCEL);
    struct repl_action next = expect_question(2, 3, 0);
    answer(&ask, NULL, 0, 0); /* too late */
    assert_int_equal(peer_count(&rig, REPL_COMPARE), 0);
    const struct repl_digest digest = digest_of(1, 1);
    answer(&next, &digest, 1, 0);
    expect_compare(1);
}

static void test_the_member_leaves_meanwhile(void **state)
{
    (void)state;
    struct repl_action ask = come_to_the_copy();
    peer_clear(&rig);
    peer_remove_member(&rig, 2);
    peer_tell_members(&rig);
    const struct repl_digest digest = digest_of(1, 1);
    answer(&ask, &digest, 1, 0);
    assert_int_equal(peer_count(&rig, REPL_COMPARE), 0);
    peer_wait(&rig, PAUSE_MS);
    expect_question(2, 3, 0);
}

static void test_looks_are_bounded(void **state)
{
    (void)state;
    struct repl_action ask = come_to_the_copy();
    unsigned looks = 0;
    for (uint64_t base = 1; looks < 1000; base++, looks++) {
        const struct repl_digest there = digest_of(base, 1), here = digest_of(base, 2);
        answer(&ask, &there, 1, base);
        peer_digests(&rig, &here, 1);
        peer_expect(&rig, REPL_LOOK);
        looked(0);
        peer_wait(&rig, PAUSE_MS);
        if (peer_count(&rig, REPL_ASK_DIGESTS) == 0)
            break;
        ask = expect_question(2, 2, base);
    }
    assert_int_equal(looks, 15); /* the 16th was the last one */
}

static void test_without_an_interval_nothing_is_compared(void **state)
{
    (void)state;
    peer_restart(&rig);
    peer_tell_members(&rig);
    peer_tell_logs(&rig);
    peer_wait(&rig, 3600000);
    assert_int_equal(peer_count(&rig, REPL_ASK_DIGESTS), 0);
}

/* ---- hostile answers ---- */

/* Counted, and the next holder is asked. */
static void assert_refused(uint64_t counter)
{
    assert_int_equal(counter, 1);
    assert_int_equal(peer_count(&rig, REPL_COMPARE), 0);
    assert_int_equal(peer_count(&rig, REPL_LOOK), 0);
    peer_wait(&rig, PAUSE_MS);
    expect_question(2, 3, 0);
}

static void test_digests_of_another_log_are_refused(void **state)
{
    (void)state;
    struct buf bytes = {0};
    struct repl_action ask = come_to_the_copy();
    const struct repl_digest digest = digest_of(1, 1);
    const struct msg_digests_reply reply = {.log = peer_log(3), .segments = packed(&bytes, &digest, 1)};
    peer_tell(&rig, &ask, MSG_digests_reply, &reply);
    buf_free(&bytes);
    assert_refused(peer_counters(&rig)->not_asked_for);
}

static void test_more_digests_than_were_asked_for_are_refused(void **state)
{
    (void)state;
    struct repl_digest many[REPL_DIGESTS_MAX + 1];
    struct repl_action ask = come_to_the_copy();
    for (size_t i = 0; i <= REPL_DIGESTS_MAX; i++)
        many[i] = digest_of(1 + i, 1);
    answer(&ask, many, REPL_DIGESTS_MAX + 1, 0);
    assert_refused(peer_counters(&rig)->malformed);
}

static void test_digests_that_do_not_go_on_are_refused(void **state)
{
    (void)state;
    const struct {
        struct repl_digest digests[2];
        size_t count;
        uint64_t next;
    } bad[] = {
        {{digest_of(11, 1), digest_of(11, 1)}, 2, 0}, /* twice the same */
        {{digest_of(0, 1)}, 1, 0},                    /* not behind what was asked */
        {{{.base_lsn = 1}}, 1, 0},                    /* of nothing */
        {{digest_of(1, 1)}, 1, 11},                   /* on from elsewhere */
        {{{0}}, 0, 11},                               /* for ever */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (i > 0) {
            end(state);
            begin_due(state);
        }
        struct repl_action ask = come_to_the_copy();
        answer(&ask, bad[i].digests, bad[i].count, bad[i].next);
        assert_refused(peer_counters(&rig)->malformed);
    }
}

static void test_what_is_no_answer_is_refused(void **state)
{
    (void)state;
    struct repl_action ask = come_to_the_copy();
    struct msg_digests_reply reply = {.log = peer_log(2), .segments = slice_of("\x91\x92\x01\x02", 4)};
    peer_tell(&rig, &ask, MSG_digests_reply, &reply);
    assert_int_equal(peer_counters(&rig)->malformed, 1);
    peer_wait(&rig, PAUSE_MS);
    ask = expect_question(2, 3, 0);
    peer_tell(&rig, &ask, MSG_position, &(struct msg_position){0});
    assert_int_equal(peer_counters(&rig)->malformed, 2);
}

/* ---- others ask ---- */

static void test_digests_are_served_to_members_only(void **state)
{
    (void)state;
    struct msg_digests ask = {.from = peer_log(3), .log = peer_log(2), .most = 5};
    peer_ask_digests(&rig, 70, 3, &ask);
    struct repl_action serve = peer_expect(&rig, REPL_SERVE_DIGESTS);
    assert_int_equal(serve.token, 70);
    assert_int_equal(serve.digests.most, 5);
    peer_ask_digests(&rig, 71, 2, &ask); /* with the log of another */
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).error, SH_NOT_MEMBER);
    ask.log = peer_log(9);
    peer_ask_digests(&rig, 72, 3, &ask);
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).error, SH_NOT_FOUND);
    ask.log = peer_log(2);
    ask.most = 0;
    peer_ask_digests(&rig, 73, 3, &ask);
    assert_int_equal(peer_expect(&rig, REPL_REFUSE).error, SH_BAD_REQUEST);
    assert_int_equal(peer_count(&rig, REPL_SERVE_DIGESTS), 0);
}

/* A folder with so many indexes; the digest of each begins with a byte of its base LSN. */
static void make_indexes(const char *data, struct id16 log, unsigned count)
{
    char dir[300], uuid[ID_TEXT], path[400], name[SEGMENT_NAME_MAX];
    struct buf bytes = {0};
    id16_format(log, uuid);
    snprintf(dir, sizeof dir, "%s/log", data);
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(dir, sizeof dir, "%s/log/%s", data, uuid);
    assert_int_equal(mkdir(dir, 0700), 0);
    for (unsigned i = 0; i < count; i++) {
        struct segment_index index = {.log = log,
                                      .base_lsn = 1 + 10 * i,
                                      .next_lsn = 11 + 10 * i,
                                      .end = SEGMENT_BYTES + i,
                                      .digest.bytes = {(uint8_t)i}};
        bytes.len = 0;
        segment_index_encode(&index, &bytes);
        bytes.data[i == 5 ? 100 : 0] ^= i == 5; /* this one is damaged */
        segment_index_name(index.base_lsn, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes.data, 1, bytes.len, file), bytes.len);
        fclose(file);
    }
    buf_free(&bytes);
}

static void remove_indexes(const char *data, unsigned count)
{
    char path[400], uuid[ID_TEXT], name[SEGMENT_NAME_MAX];
    id16_format(peer_log(2), uuid);
    for (unsigned i = 0; i < count; i++) {
        segment_index_name(1 + 10 * i, name);
        snprintf(path, sizeof path, "%s/log/%s/%s", data, uuid, name);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/log/%s", data, uuid);
    rmdir(path);
    snprintf(path, sizeof path, "%s/log", data);
    rmdir(path);
    assert_int_equal(rmdir(data), 0);
}

static void test_digests_come_from_the_indexes_in_order(void **state)
{
    (void)state;
    enum { COUNT = REPL_DIGESTS_MAX + 20 };
    char data[] = "/tmp/repl-digests-XXXXXX";
    struct repl_digest digests[REPL_DIGESTS_MAX];
    struct msg_digests ask = {.log = peer_log(2), .most = REPL_DIGESTS_MAX};
    uint64_t next;
    assert_non_null(mkdtemp(data));
    make_indexes(data, peer_log(2), COUNT);
    size_t count = repl_digests_list(vfs_posix(), data, &ask, digests, &next);
    assert_int_equal(count, REPL_DIGESTS_MAX - 1); /* the damaged one is left out */
    assert_int_equal(digests[4].base_lsn, 41);
    assert_int_equal(digests[5].base_lsn, 61);
    assert_int_equal(digests[5].bytes, SEGMENT_BYTES + 6);
    assert_int_equal(digests[5].digest.bytes[0], 6);
    assert_int_equal(next, 1 + 10 * (REPL_DIGESTS_MAX - 1));
    ask.after = next;
    count = repl_digests_list(vfs_posix(), data, &ask, digests, &next);
    assert_int_equal(count, 20);
    assert_int_equal(digests[0].base_lsn, ask.after + 10);
    assert_int_equal(next, 0);
    ask.after = 0;
    ask.most = 3;
    assert_int_equal(repl_digests_list(vfs_posix(), data, &ask, digests, &next), 3);
    assert_int_equal(next, 21);
    ask.log = peer_log(7); /* no such folder */
    assert_int_equal(repl_digests_list(vfs_posix(), data, &ask, digests, &next), 0);
    remove_indexes(data, COUNT);
}

#define DUE(name) cmocka_unit_test_setup_teardown(name, begin_due, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DUE(test_all_logs_in_turn_then_a_rest),
        DUE(test_a_difference_is_told_and_looked_at),
        DUE(test_what_a_look_finds_is_told),
        DUE(test_what_the_origin_tells_for_two_rounds_is_what_it_has),
        DUE(test_what_another_holder_tells_is_not_what_the_origin_has),
        DUE(test_what_one_side_has_not_indexed_is_no_difference),
        DUE(test_another_holder_is_asked_when_the_origin_is_no_use),
        DUE(test_a_member_that_is_down_is_not_asked),
        DUE(test_a_member_that_does_not_answer_is_given_up),
        DUE(test_the_member_leaves_meanwhile),
        DUE(test_looks_are_bounded),
        TEST(test_without_an_interval_nothing_is_compared),
        DUE(test_digests_of_another_log_are_refused),
        DUE(test_more_digests_than_were_asked_for_are_refused),
        DUE(test_digests_that_do_not_go_on_are_refused),
        DUE(test_what_is_no_answer_is_refused),
        DUE(test_digests_are_served_to_members_only),
        TEST(test_digests_come_from_the_indexes_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
