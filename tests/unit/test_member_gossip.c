/* membersvc's cores: how news and watermarks spread, and what is compared when they don't. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "member_rig.h"
#include "telemetry.h"

static void begin(struct member_rig *rig, uint32_t count, uint64_t seed)
{
    cores_open(rig, count, seed);
    cores_start_all(rig);
    assert_true(cores_until(rig, 10000, cores_is_whole));
    cores_run(rig, 20000);
}

static bool all_know_of_the_leave(struct member_rig *rig)
{
    for (uint32_t i = 0; i + 1 < rig->count; i++)
        if (cores_record(rig, i, rig->count - 1).status != MEMBER_LEFT)
            return false;
    return true;
}

static void test_news_reaches_all_within_a_second_and_stops(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 12, 1);
    assert_int_equal(cores_leave(&rig, 0, 11), SH_OK);
    assert_true(cores_until(&rig, 1000, all_know_of_the_leave));
    cores_run(&rig, 20000);
    uint64_t before = 0, after = 0;
    for (uint32_t i = 0; i < 11; i++)
        before += rig.nodes[i].sent[MSG_gossip];
    cores_run(&rig, 600000);
    for (uint32_t i = 0; i < 11; i++)
        after += rig.nodes[i].sent[MSG_gossip];
    /* Only the node that left is told so, each time that it asks: at most five in an interval. */
    assert_true(after - before < 5 * 135);
    cores_close(&rig);
}

static void test_what_gossip_lost_is_found_by_comparing(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 6, 2);
    /* The leaver's news gets nowhere; heartbeats of others do, so nobody is down. */
    for (uint32_t i = 0; i < 6; i++)
        rig.cut[0][i] = true;
    assert_int_equal(cores_leave(&rig, 0, 5), SH_OK);
    cores_run(&rig, 6000);
    assert_false(all_know_of_the_leave(&rig));
    memset(rig.cut, 0, sizeof rig.cut);
    assert_true(cores_until(&rig, 60000, all_know_of_the_leave));
    cores_close(&rig);
}

/* What n2 says to n1, with its record as n1 has it. */
static struct buf record_of_second(const struct member_rig *rig)
{
    struct buf bytes = {0};
    struct member_record r = cores_record(rig, 0, 1);
    member_encode(&r, &bytes);
    return bytes;
}

static void test_older_records_and_wishes_are_answered_once(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 7);
    struct buf from = record_of_second(&rig), members = {0};
    struct member_record r = cores_record(&rig, 0, 2);
    r.status = MEMBER_JOINING; /* of the same incarnation: an older word */
    buf_append(&members, "\x91", 1);
    member_encode(&r, &members);
    struct msg_gossip g = {.from = buf_slice(&from), .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms};
    uint64_t sent = rig.nodes[0].sent[MSG_gossip];
    g.members = buf_slice(&members);
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(rig.nodes[0].sent[MSG_gossip], sent);
    g.reply = true;
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(rig.nodes[0].sent[MSG_gossip], sent + 1);
    g = (struct msg_gossip){.from = g.from, .wall_ms = g.wall_ms, .want = slice_str("\x92\xa2n3\xa2n9")};
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(rig.nodes[0].sent[MSG_gossip], sent + 2);
    /* A summary that nobody asked for gets nothing. */
    struct msg_summary s = {.from = g.from, .wall_ms = g.wall_ms, .entries = slice_str("\x91\x92\xa2n9\x05")};
    cores_run(&rig, 1);
    for (unsigned i = 0; i < 2; i++)
        cores_inject(&rig, 0, MSG_summary, &s, "n2", r.boot, 1, NULL);
    assert_in_range(rig.nodes[0].sent[MSG_gossip], sent + 2, sent + 3);
    buf_free(&from);
    buf_free(&members);
    cores_close(&rig);
}

static void test_whoever_hears_a_member_contradicts_once(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 8);
    struct buf from = record_of_second(&rig);
    struct member_record r = cores_record(&rig, 0, 2);
    struct msg_opinion o = {.from = buf_slice(&from),
                            .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms,
                            .subject = slice_str("n3"),
                            .generation = r.generation,
                            .incarnation = r.incarnation,
                            .silent_ms = 12000};
    for (unsigned i = 0; i < 3; i++)
        cores_inject(&rig, 0, MSG_opinion, &o, "n2", r.boot, 1, NULL);
    assert_int_equal(rig.nodes[0].sent[MSG_opinion], 1);
    cores_run(&rig, 2000);
    assert_int_equal(rig.nodes[1].sent[MSG_opinion], 0); /* which is not answered */
    o.silent_ms = 100;
    cores_inject(&rig, 0, MSG_opinion, &o, "n2", r.boot, 1, NULL);
    assert_int_equal(rig.nodes[0].sent[MSG_opinion], 1);
    buf_free(&from);
    cores_close(&rig);
}

static void test_equal_views_are_compared_by_one_small_message(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 5, 3);
    uint64_t summaries = 0, syncs = 0;
    for (uint32_t i = 0; i < 5; i++)
        memset(rig.nodes[i].sent, 0, sizeof rig.nodes[i].sent);
    cores_run(&rig, 100000);
    for (uint32_t i = 0; i < 5; i++) {
        summaries += rig.nodes[i].sent[MSG_summary];
        syncs += rig.nodes[i].sent[MSG_sync];
    }
    assert_int_equal(summaries, 0);
    assert_in_range(syncs, 40, 70); /* each second interval, each node */
    cores_close(&rig);
}

static void test_watermarks_reach_the_group(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 4, 4);
    struct member_watermark mark = {rig.nodes[0].log, 5, 500};
    member_core_watermark(rig.nodes[0].core, cores_time(&rig, 0), &mark);
    cores_run(&rig, 300); /* by gossip */
    for (uint32_t i = 1; i < 4; i++) {
        struct member_view view = cores_view(&rig, i, 0);
        assert_int_equal(view.watermark_count, 1);
        assert_int_equal(view.watermarks[0].lsn, 5);
        assert_int_equal(view.watermarks[0].end, 500);
    }
    assert_int_equal(cores_view(&rig, 0, 0).watermarks[0].lsn, 5);
    cores_stop(&rig, 3);
    cores_start(&rig, 3);
    cores_run(&rig, 6000); /* by heartbeat */
    assert_int_equal(cores_view(&rig, 3, 0).watermark_count, 1);
    for (unsigned i = 0; i < MEMBER_WATERMARKS_MAX + 5; i++) {
        mark.log.bytes[0] = (uint8_t)i;
        mark.log.bytes[1] ^= 1;
        member_core_watermark(rig.nodes[0].core, cores_time(&rig, 0), &mark);
    }
    cores_run(&rig, 6000);
    assert_int_equal(cores_view(&rig, 1, 0).watermark_count, MEMBER_WATERMARKS_MAX);
    cores_close(&rig);
}

/* Of every log that a node holds: its own, and copies. */
static void test_each_log_has_a_watermark_of_its_own(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 3);
    for (uint64_t round = 1; round <= 2; round++) {
        for (uint32_t i = 0; i < 3; i++) {
            struct member_watermark mark = {rig.nodes[i].log, round * 10 + i, round * 1000 + i};
            member_core_watermark(rig.nodes[0].core, cores_time(&rig, 0), &mark);
        }
        cores_run(&rig, 300);
        struct member_view view = cores_view(&rig, 1, 0);
        assert_int_equal(view.watermark_count, 3);
        for (uint32_t i = 0; i < 3; i++) {
            assert_true(id16_equal(view.watermarks[i].log, rig.nodes[i].log));
            assert_int_equal(view.watermarks[i].lsn, round * 10 + i);
            assert_int_equal(view.watermarks[i].end, round * 1000 + i);
        }
    }
    cores_close(&rig);
}

static void tell_holdings(struct member_rig *rig, uint32_t node, uint32_t logs)
{
    struct id16 held[4];
    for (uint32_t i = 0; i < logs; i++) {
        struct member_watermark mark = {rig->nodes[i].log, 10 + i, 1000 + i};
        member_core_watermark(rig->nodes[node].core, cores_time(rig, node), &mark);
        held[i] = mark.log;
    }
    member_core_holdings(rig->nodes[node].core, cores_time(rig, node), held, logs);
}

static size_t marks_of_first(struct member_rig *rig, uint32_t at)
{
    return cores_view(rig, at, 0).watermark_count;
}

static void test_a_log_that_is_dropped_leaves_the_vectors(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 3, 21);
    tell_holdings(&rig, 0, 3);
    cores_run(&rig, 300);
    assert_int_equal(marks_of_first(&rig, 1), 3);
    tell_holdings(&rig, 0, 2);
    assert_int_equal(marks_of_first(&rig, 0), 2);
    cores_run(&rig, 300); /* by gossip */
    assert_int_equal(marks_of_first(&rig, 1), 2);
    rig.cut[0][2] = true;
    tell_holdings(&rig, 0, 1);
    cores_run(&rig, 300);
    assert_int_equal(marks_of_first(&rig, 1), 1);
    assert_int_equal(marks_of_first(&rig, 2), 2);
    rig.cut[0][2] = false;
    cores_run(&rig, 6000); /* by heartbeat */
    assert_int_equal(marks_of_first(&rig, 2), 1);
    tell_holdings(&rig, 0, 3); /* it lives again */
    cores_run(&rig, 300);
    assert_int_equal(marks_of_first(&rig, 1), 3);
    cores_close(&rig);
}

/* As an older version of the software sends them, or one that has not heard its walsvc yet. */
static void test_watermarks_that_do_not_say_what_is_held_take_nothing_away(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 22);
    tell_holdings(&rig, 0, 2);
    cores_run(&rig, 300);
    cores_stop(&rig, 0);
    cores_start(&rig, 0); /* another boot, which knows nothing yet */
    cores_run(&rig, 6000);
    assert_int_equal(marks_of_first(&rig, 1), 2);
    struct member_watermark mark = {rig.nodes[0].log, 20, 2000};
    member_core_watermark(rig.nodes[0].core, cores_time(&rig, 0), &mark);
    cores_run(&rig, 300);
    assert_int_equal(marks_of_first(&rig, 1), 2);
    tell_holdings(&rig, 0, 1);
    cores_run(&rig, 300);
    assert_int_equal(marks_of_first(&rig, 1), 1);
    cores_close(&rig);
}

static void test_a_late_message_brings_nothing_back(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 2, 23);
    tell_holdings(&rig, 1, 2);
    tell_holdings(&rig, 1, 1);
    cores_run(&rig, 300);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 1);
    struct buf from = record_of_second(&rig);
    struct member_record r = cores_record(&rig, 0, 1);
    static const char late[] = "\x91\x93\xc4\x10late-late-late-!\x05\x07";
    struct msg_gossip g = {.from = buf_slice(&from),
                           .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms,
                           .watermarks = slice_of(late, sizeof late - 1),
                           .holdings = 1};
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 1);
    assert_true(id16_equal(cores_view(&rig, 0, 1).watermarks[0].log, rig.nodes[0].log));
    g.holdings = 0; /* nor one from before it knew what it holds */
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 1);
    g.holdings = 3; /* what comes later counts */
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 1);
    assert_int_equal(cores_view(&rig, 0, 1).watermarks[0].lsn, 5);
    buf_free(&from);
    cores_close(&rig);
}

/* A cluster of 1,024 with ids and hosts as long as they may be: nothing is larger than a message may be, and
 * records come in parts. */
static void test_the_largest_cluster_fits_into_messages(void **state)
{
    (void)state;
    struct member_rig rig;
    cores_open(&rig, 1, 5);
    cores_start(&rig, 0);
    uint32_t node = cores_add(&rig);
    struct msg_node_join join = {.port = 4000};
    char id[CONFIG_ID_MAX + 1], host[MEMBER_HOST_MAX + 1], text[MEMBER_TEXT_MAX];
    uint64_t generation;
    memset(host, 'h', sizeof host - 1);
    host[MEMBER_HOST_MAX] = 0;
    for (unsigned i = 0; i < MEMBER_LIVE_MAX - 2; i++) {
        snprintf(id, sizeof id, "%064u", i);
        snprintf(host, 9, "%08u", i);
        host[8] = 'h';
        join.id = slice_str(id);
        join.host = slice_str(host);
        assert_int_equal(member_core_join(rig.nodes[0].core, cores_time(&rig, 0), &join, &generation, text),
                         SH_OK);
    }
    struct member_send send;
    while (member_core_next_send(rig.nodes[0].core, &send))
        assert_true(send.message.len < 1024);
    assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
    cores_start(&rig, node);
    size_t largest = 0;
    for (unsigned ms = 0; ms < 5000; ms += 10) {
        cores_run(&rig, 10);
        for (size_t i = 0; i < rig.on_way_count; i++)
            if (rig.on_way[i].bytes.len > largest)
                largest = rig.on_way[i].bytes.len;
    }
    assert_int_equal(member_core_count(rig.nodes[node].core), MEMBER_LIVE_MAX);
    assert_int_equal(member_core_hash(rig.nodes[node].core), member_core_hash(rig.nodes[0].core));
    assert_true(largest < MEMBER_MESSAGE_MAX / 2);
    assert_true(rig.nodes[0].sent[MSG_gossip] > 40); /* 8 KiB each */
    cores_close(&rig);
}

static void test_a_silent_cluster_sends_little(void **state)
{
    (void)state;
    struct member_rig rig;
    begin(&rig, 12, 6);
    uint64_t sent = 0, bytes = 0;
    for (uint32_t i = 0; i < 12; i++) {
        sent -= member_core_counters(rig.nodes[i].core)->sent;
        bytes -= member_core_counters(rig.nodes[i].core)->sent_bytes;
    }
    cores_run(&rig, 1000000);
    for (uint32_t i = 0; i < 12; i++) {
        sent += member_core_counters(rig.nodes[i].core)->sent;
        bytes += member_core_counters(rig.nodes[i].core)->sent_bytes;
        assert_true(member_core_counters(rig.nodes[i].core)->received > 0);
        assert_true(member_core_counters(rig.nodes[i].core)->received_bytes > 0);
    }
    /* 5 observers, 211 intervals, a sync each second one, and with each fifth of these a probe and its answer
     */
    assert_true(sent / 12 < 5 * 211 + 200);
    assert_true(bytes / sent < 250);
    cores_close(&rig);
}

/* Of the metric that has this name, among those of the process: its count and sum. */
static void read_histogram(const char *name, uint64_t *count, uint64_t *sum)
{
    struct buf packed = {0};
    msgpack_packer pk;
    struct slice text;
    uint32_t parts, buckets;
    uint64_t bucket, more;
    mp_packer(&pk, &packed);
    uint32_t series = telemetry_pack(&pk, "membersvc");
    struct mp m = mp_of(buf_slice(&packed));
    *count = *sum = 0;
    while (series-- > 0) {
        assert_true(mp_array(&m, &parts) && parts == 3 && mp_str(&m, &text) && mp_skip(&m));
        if (!slice_is(text, name)) {
            assert_true(mp_skip(&m));
            continue;
        }
        assert_true(mp_array(&m, &parts) && parts == 2 && mp_uint(&m, sum) && mp_array(&m, &buckets));
        for (; buckets > 0; buckets -= 2, *count += more)
            assert_true(mp_uint(&m, &bucket) && mp_uint(&m, &more));
    }
    buf_free(&packed);
}

static void test_ways_to_members_that_are_well_are_timed(void **state)
{
    (void)state;
    struct member_rig rig;
    uint64_t count_before, count, sum_before, sum;
    begin(&rig, 3, 7);
    uint64_t acks = 0;
    for (uint32_t i = 0; i < 3; i++)
        acks -= rig.nodes[i].sent[MSG_probe_ack];
    read_histogram("shanghai_member_round_trip_seconds", &count_before, &sum_before);
    cores_run(&rig, 600000);
    read_histogram("shanghai_member_round_trip_seconds", &count, &sum);
    for (uint32_t i = 0; i < 3; i++) {
        acks += rig.nodes[i].sent[MSG_probe_ack];
        assert_int_equal(member_core_counters(rig.nodes[i].core)->probes, 0); /* nobody was silent */
    }
    assert_true(acks > 20);
    assert_in_range(count - count_before, acks - 3, acks + 3); /* some are on their way */
    assert_int_equal(sum - sum_before, (count - count_before) * 2 * NS_PER_MS);
    cores_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_news_reaches_all_within_a_second_and_stops),
        cmocka_unit_test(test_what_gossip_lost_is_found_by_comparing),
        cmocka_unit_test(test_older_records_and_wishes_are_answered_once),
        cmocka_unit_test(test_whoever_hears_a_member_contradicts_once),
        cmocka_unit_test(test_equal_views_are_compared_by_one_small_message),
        cmocka_unit_test(test_watermarks_reach_the_group),
        cmocka_unit_test(test_each_log_has_a_watermark_of_its_own),
        cmocka_unit_test(test_a_log_that_is_dropped_leaves_the_vectors),
        cmocka_unit_test(test_watermarks_that_do_not_say_what_is_held_take_nothing_away),
        cmocka_unit_test(test_a_late_message_brings_nothing_back),
        cmocka_unit_test(test_the_largest_cluster_fits_into_messages),
        cmocka_unit_test(test_a_silent_cluster_sends_little),
        cmocka_unit_test(test_ways_to_members_that_are_well_are_timed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
