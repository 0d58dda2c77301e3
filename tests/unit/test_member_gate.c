/* membersvc's cores: who may speak. Each row of the table in docs/cluster-protocol.md, with its counter, and
 * that nothing of it is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "log.h"
#include "member_rig.h"

static struct member_rig rig;
static uint64_t hash;

static int begin(void **state)
{
    (void)state;
    cores_open(&rig, 3, 1);
    cores_start_all(&rig);
    assert_true(cores_until(&rig, 10000, cores_is_whole));
    cores_run(&rig, 20000);
    hash = member_core_hash(rig.nodes[0].core);
    return 0;
}

static int end(void **state)
{
    (void)state;
    cores_close(&rig);
    return 0;
}

static struct member_counters counters(uint32_t node)
{
    return *member_core_counters(rig.nodes[node].core);
}

static void assert_unharmed(void)
{
    assert_int_equal(member_core_hash(rig.nodes[0].core), hash);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_UP);
}

/* A heartbeat to n1 with this record, as of now and a little later. */
static void speak_as(const struct member_record *r, int64_t ahead_ms, uint64_t version,
                     const uint8_t *cluster)
{
    struct buf from = {0};
    member_encode(r, &from);
    struct msg_heartbeat h = {.from = buf_slice(&from),
                              .wall_ms = (uint64_t)(cores_time(&rig, 0).wall_ms + ahead_ms),
                              .founded = true};
    cores_inject(&rig, 0, MSG_heartbeat, &h, r->id, r->boot, version, cluster);
    buf_free(&from);
}

static uint64_t sent_by_first(uint32_t type)
{
    return rig.nodes[0].sent[type];
}

static void test_bytes_that_are_no_message_are_counted(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t before = counters(0).malformed, random = 1;
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned k = 0; k < sizeof bytes; k++)
            bytes[k] = (uint8_t)((random = random * 6364136223846793005u + 1) >> 56);
        member_core_receive(rig.nodes[0].core, cores_time(&rig, 0), slice_of(bytes, i % sizeof bytes));
    }
    assert_true(counters(0).malformed + counters(0).other_version >= before + 200);
    member_core_receive(rig.nodes[0].core, cores_time(&rig, 0), slice_of(NULL, 0));
    cores_run(&rig, 10);
    assert_unharmed();
}

static void test_another_version_is_refused(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 1);
    r.boot.bytes[0] ^= 1; /* a second process */
    speak_as(&r, 0, 9, NULL);
    speak_as(&r, 0, 9, NULL);
    assert_int_equal(counters(0).other_version, 2);
    assert_int_equal(sent_by_first(MSG_refused), 1); /* one, not one for each */
    cores_run(&rig, 10);
    assert_true(cores_has_notice(&rig, "n1: n2: message of another protocol version"));
    assert_int_equal(counters(1).malformed, 1); /* n2 has not sent that */
    assert_unharmed();
}

static void test_a_refusal_of_another_version_gets_no_answer(void **state)
{
    (void)state;
    struct msg_refused m = {.code = SH_VERSION_MISMATCH, .text = slice_str("no")};
    cores_inject(&rig, 0, MSG_refused, &m, "n2", cores_record(&rig, 0, 1).boot, 9, NULL);
    assert_int_equal(counters(0).other_version, 1);
    assert_int_equal(sent_by_first(MSG_refused), 0);
}

static void test_another_cluster_is_refused_and_named_there(void **state)
{
    (void)state;
    static const uint8_t other[CLUSTER_ID_BYTES] = {9};
    struct member_record r = cores_record(&rig, 0, 1);
    speak_as(&r, 0, 1, other);
    assert_int_equal(counters(0).other_cluster, 1);
    cores_run(&rig, 10);
    assert_int_equal(counters(1).refusals, 1); /* its own boot: it is named at n2 */
    assert_true(
        cores_has_notice(&rig, "n2: n1: a member refuses our messages (the sender belongs to another"));
    assert_unharmed();
}

static void test_an_unknown_sender_is_not_heard(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 1);
    snprintf(r.id, sizeof r.id, "n9");
    r.generation = 1;
    speak_as(&r, 0, 1, NULL);
    assert_int_equal(counters(0).not_member, 1);
    assert_true(cores_has_notice(&rig, "n1: n9: message of a node that isn't a member"));
    assert_int_equal(sent_by_first(MSG_refused), 0);
    assert_unharmed();
}

static void test_one_that_left_is_told_so(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 2);
    assert_int_equal(cores_leave(&rig, 0, 2), SH_OK);
    cores_run(&rig, 2000);
    cores_stop(&rig, 2);
    cores_run(&rig, 10000);
    uint64_t gossip = sent_by_first(MSG_gossip), before = counters(0).not_member;
    speak_as(&r, 0, 1, NULL);
    speak_as(&r, 0, 1, NULL);
    assert_int_equal(counters(0).not_member, before + 2);
    assert_int_equal(sent_by_first(MSG_gossip), gossip + 1); /* once in a probe interval */
}

static void test_a_record_of_another_than_the_sender_is_malformed(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 1);
    struct buf from = {0};
    r.incarnation++;
    member_encode(&r, &from);
    struct msg_heartbeat h = {.from = buf_slice(&from), .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms};
    cores_inject(&rig, 0, MSG_heartbeat, &h, "n3", r.boot, 1, NULL);
    assert_int_equal(counters(0).malformed, 1);
    buf_free(&from);
    assert_unharmed();
}

static void test_another_identity_is_refused(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 1);
    r.log.bytes[0] ^= 1;
    r.incarnation += 7;
    speak_as(&r, 0, 1, NULL);
    assert_int_equal(counters(0).other_identity, 1);
    assert_int_equal(sent_by_first(MSG_refused), 1);
    assert_unharmed();
}

static void test_a_later_generation_of_another_identity_waits_for_others_word(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 1);
    r.log.bytes[0] ^= 1;
    r.generation++;
    speak_as(&r, 0, 1, NULL);
    assert_int_equal(counters(0).other_identity, 1);
    assert_int_equal(sent_by_first(MSG_refused), 0);
    assert_unharmed();
}

static void test_the_own_id_from_elsewhere_is_not_heard(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 0);
    r.log.bytes[0] ^= 1;
    r.incarnation += 7;
    speak_as(&r, 0, 1, NULL);
    assert_int_equal(counters(0).other_identity, 1);
    assert_int_equal(sent_by_first(MSG_refused), 0);
    assert_unharmed();
}

static void test_an_earlier_life_is_stale(void **state)
{
    (void)state;
    struct member_record old = cores_record(&rig, 0, 1);
    cores_stop(&rig, 1);
    cores_start(&rig, 1);
    cores_run(&rig, 3000);
    hash = member_core_hash(rig.nodes[0].core);
    speak_as(&old, 0, 1, NULL); /* it was on its way for long */
    assert_int_equal(counters(0).stale, 1);
    assert_unharmed();
}

static void test_an_older_generation_is_stale(void **state)
{
    (void)state;
    struct member_record old = cores_record(&rig, 0, 1);
    assert_int_equal(cores_join(&rig, 0, 1, true), SH_OK);
    hash = member_core_hash(rig.nodes[0].core);
    speak_as(&old, 0, 1, NULL);
    assert_int_equal(counters(0).stale, 1);
    assert_int_equal(member_core_hash(rig.nodes[0].core), hash);
}

static void test_a_drifting_clock_leaves_a_sign_of_life_only(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 1);
    struct buf from = {0};
    static const uint8_t marks[] = "\x91\x93\xc4\x10"
                                   "0123456789abcdef"
                                   "\x05\x06";
    member_encode(&r, &from);
    cores_run(&rig, 3000);
    uint64_t sent = sent_by_first(MSG_heartbeat);
    struct msg_heartbeat h = {.from = buf_slice(&from),
                              .wall_ms = (uint64_t)(cores_time(&rig, 0).wall_ms + 11000),
                              .answer = true,
                              .watermarks = slice_of(marks, sizeof marks - 1)};
    cores_inject(&rig, 0, MSG_heartbeat, &h, "n2", r.boot, 1, NULL);
    assert_int_equal(counters(0).clock_drift, 1);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_CLOCK_DRIFT), 1);
    assert_int_equal(cores_view(&rig, 0, 1).heard_ns, 0);
    assert_int_equal(cores_view(&rig, 0, 1).ahead_ms, 11000);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 0);
    assert_int_equal(sent_by_first(MSG_heartbeat), sent);
    struct msg_gossip g = {.from = h.from, .wall_ms = h.wall_ms, .watermarks = h.watermarks};
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 0);
    assert_unharmed();
    h.wall_ms -= 11000;
    cores_inject(&rig, 0, MSG_heartbeat, &h, "n2", r.boot, 1, NULL);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_CLOCK_GOOD), 1);
    assert_int_equal(cores_view(&rig, 0, 1).watermark_count, 1);
    assert_int_equal(sent_by_first(MSG_heartbeat), sent + 1);
    buf_free(&from);
}

static void test_a_new_identity_with_a_wrong_clock_is_not_bound(void **state)
{
    (void)state;
    uint32_t node = cores_add(&rig);
    rig.nodes[node].wall_offset_ms = -3600000; /* it would be older than whoever else comes */
    assert_int_equal(cores_join(&rig, 0, node, false), SH_OK);
    cores_start(&rig, node);
    cores_run(&rig, 30000);
    assert_int_equal(cores_record(&rig, 1, node).status, MEMBER_JOINING);
    assert_true(cores_has_notice(&rig, "n4: n1: the clock of a node is too far from ours"));
    rig.nodes[node].wall_offset_ms = 0;
    cores_run(&rig, 20000);
    assert_int_equal(cores_record(&rig, 1, node).status, MEMBER_UP);
}

static void test_a_leave_is_told_also_by_one_with_a_wrong_clock(void **state)
{
    (void)state;
    rig.nodes[0].wall_offset_ms = 3600000;
    assert_int_equal(cores_leave(&rig, 0, 2), SH_OK);
    cores_run(&rig, 3000);
    assert_int_equal(cores_record(&rig, 1, 2).status, MEMBER_LEFT);
}

static void test_a_member_with_a_wrong_clock_is_not_taken_for_down(void **state)
{
    (void)state;
    cores_stop(&rig, 1);
    rig.nodes[1].wall_offset_ms = 3600000;
    cores_start(&rig, 1);
    cores_run(&rig, 60000);
    assert_int_equal(cores_record(&rig, 0, 1).status, MEMBER_UP);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_DOWN), 0);
    assert_int_equal(cores_events(&rig, 0, 1, MEMBER_EVENT_CLOCK_DRIFT), 1);
}

/* A gossip from n2 with one record in it. */
static void gossip_about(const struct member_record *about)
{
    struct member_record r = cores_record(&rig, 0, 1);
    struct buf from = {0}, members = {0};
    member_encode(&r, &from);
    buf_append(&members, "\x91", 1);
    member_encode(about, &members);
    struct msg_gossip g = {.from = buf_slice(&from),
                           .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms,
                           .members = buf_slice(&members)};
    cores_inject(&rig, 0, MSG_gossip, &g, "n2", r.boot, 1, NULL);
    buf_free(&from);
    buf_free(&members);
}

/* A member must always be able to refute: no word may use up the numbers that it has for that. */
static void test_numbers_that_nobody_can_have_come_to_are_malformed(void **state)
{
    (void)state;
    const uint64_t leaps[] = {INT64_MAX, UINT64_C(1) << 33};
    uint64_t malformed = 0;
    for (unsigned i = 0; i < 2; i++) {
        for (uint32_t of = 0; of < 3; of++) {
            struct member_record r = cores_record(&rig, 0, of);
            r.incarnation = leaps[i];
            gossip_about(&r);
            r = cores_record(&rig, 0, of);
            r.generation = leaps[i];
            gossip_about(&r);
            assert_int_equal(counters(0).malformed, malformed += 2);
        }
        struct member_record r = cores_record(&rig, 0, 1);
        r.incarnation = leaps[i];
        speak_as(&r, 0, 1, NULL);
        assert_int_equal(counters(0).malformed, ++malformed);
    }
    assert_int_equal(counters(0).refutations, 0);
    assert_unharmed();
}

static void test_an_id_that_was_never_joined_is_named(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 2);
    snprintf(r.id, sizeof r.id, "n9");
    r.log = (struct id16){{0}}; /* it has never come */
    gossip_about(&r);
    assert_int_equal(counters(0).unknown_member, 1);
    assert_true(cores_has_notice(&rig, "n1: n9: a topology file names a node that was never joined"));
    assert_unharmed();
}

static void test_what_is_said_of_a_node_itself_is_refuted(void **state)
{
    (void)state;
    struct member_record r = cores_record(&rig, 0, 0);
    r.status = MEMBER_DOWN;
    uint64_t heartbeats = sent_by_first(MSG_heartbeat);
    gossip_about(&r);
    cores_run(&rig, 5);
    assert_int_equal(counters(0).refutations, 1);
    assert_int_equal(cores_record(&rig, 0, 0).incarnation, r.incarnation + 1);
    assert_int_equal(cores_record(&rig, 1, 0).incarnation, r.incarnation + 1);
    assert_true(sent_by_first(MSG_heartbeat) > heartbeats);
    r.incarnation = UINT64_MAX;
    gossip_about(&r);
    assert_int_equal(counters(0).malformed, 1); /* it could never be refuted */
}

static void test_a_refusal_for_another_boot_is_malformed(void **state)
{
    (void)state;
    struct msg_refused m = {.code = SH_CONFLICT, .text = slice_str("no"), .boot = {{1}}};
    cores_inject(&rig, 0, MSG_refused, &m, "n2", cores_record(&rig, 0, 1).boot, 1, NULL);
    assert_int_equal(counters(0).malformed, 1);
    assert_int_equal(member_core_self(rig.nodes[0].core).state, MEMBER_MEMBER);
}

/* Messages as they are, with a few bits changed: whatever they say, the node lives. */
static void test_damaged_messages_end_nothing(void **state)
{
    (void)state;
    uint64_t random = 7;
    assert_int_equal(cores_leave(&rig, 0, 2), SH_OK); /* so that there are messages of most kinds */
    for (unsigned round = 0; round < 300; round++) {
        cores_run(&rig, 100);
        for (size_t i = 0; i < rig.on_way_count; i++) {
            struct cores_message *m = &rig.on_way[i];
            struct buf bytes = {0};
            buf_append(&bytes, m->bytes.data, m->bytes.len);
            for (unsigned k = 0; k < 20 && rig.nodes[m->to].core != NULL; k++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                bytes.data[(random >> 33) % bytes.len] ^= (uint8_t)(1u << (random >> 60) % 8);
                member_core_receive(rig.nodes[m->to].core, cores_time(&rig, m->to), buf_slice(&bytes));
            }
            buf_free(&bytes);
        }
    }
    assert_true(counters(0).malformed + counters(1).malformed > 0);
    cores_run(&rig, 120000);
}

static void test_notices_are_limited(void **state)
{
    (void)state;
    struct member_notice notice;
    unsigned count = 0;
    for (unsigned i = 0; i < 10000; i++) {
        struct member_record r = cores_record(&rig, 0, 1);
        snprintf(r.id, sizeof r.id, "x%u", i);
        struct buf from = {0};
        member_encode(&r, &from);
        struct msg_heartbeat h = {.from = buf_slice(&from), .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms};
        struct buf bytes = {0};
        uint8_t cluster[] = {1, 2, 3, 4, 5, 6, 7, 8};
        msg_pack_envelope(&bytes, &(struct msg_envelope){.type = MSG_heartbeat,
                                                         .cluster = slice_of(cluster, sizeof cluster),
                                                         .sender = slice_str(r.id)});
        msg_encode(MSG_heartbeat, &h, &bytes);
        member_core_receive(rig.nodes[0].core, cores_time(&rig, 0), buf_slice(&bytes));
        buf_free(&bytes);
        buf_free(&from);
        while (member_core_next_notice(rig.nodes[0].core, &notice))
            count++;
    }
    assert_in_range(count, 1, 64);
    assert_int_equal(counters(0).not_member, 10000);
}

static void test_the_queue_of_sends_is_bounded(void **state)
{
    (void)state;
    struct member_send send;
    struct member_record r = cores_record(&rig, 0, 1);
    struct buf from = {0}, bytes = {0};
    member_encode(&r, &from);
    uint8_t cluster[] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct msg_probe p = {.from = buf_slice(&from),
                          .wall_ms = (uint64_t)cores_time(&rig, 0).wall_ms,
                          .target = slice_str("n1"),
                          .origin = slice_str("n2")};
    msg_pack_envelope(&bytes, &(struct msg_envelope){.type = MSG_probe,
                                                     .cluster = slice_of(cluster, sizeof cluster),
                                                     .sender = slice_str("n2"),
                                                     .session = r.boot});
    msg_encode(MSG_probe, &p, &bytes);
    for (unsigned i = 0; i < 10000; i++) /* each gets an answer, and nobody takes them */
        member_core_receive(rig.nodes[0].core, cores_time(&rig, 0), buf_slice(&bytes));
    assert_true(counters(0).dropped > 0);
    size_t left = 0;
    while (member_core_next_send(rig.nodes[0].core, &send))
        left += send.message.len;
    assert_in_range(left, 1, 1 << 20);
    buf_free(&from);
    buf_free(&bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_bytes_that_are_no_message_are_counted),
        TEST(test_another_version_is_refused),
        TEST(test_a_refusal_of_another_version_gets_no_answer),
        TEST(test_another_cluster_is_refused_and_named_there),
        TEST(test_an_unknown_sender_is_not_heard),
        TEST(test_one_that_left_is_told_so),
        TEST(test_a_record_of_another_than_the_sender_is_malformed),
        TEST(test_numbers_that_nobody_can_have_come_to_are_malformed),
        TEST(test_another_identity_is_refused),
        TEST(test_a_later_generation_of_another_identity_waits_for_others_word),
        TEST(test_the_own_id_from_elsewhere_is_not_heard),
        TEST(test_an_earlier_life_is_stale),
        TEST(test_an_older_generation_is_stale),
        TEST(test_a_drifting_clock_leaves_a_sign_of_life_only),
        TEST(test_a_new_identity_with_a_wrong_clock_is_not_bound),
        TEST(test_a_leave_is_told_also_by_one_with_a_wrong_clock),
        TEST(test_a_member_with_a_wrong_clock_is_not_taken_for_down),
        TEST(test_an_id_that_was_never_joined_is_named),
        TEST(test_what_is_said_of_a_node_itself_is_refuted),
        TEST(test_a_refusal_for_another_boot_is_malformed),
        TEST(test_damaged_messages_end_nothing),
        TEST(test_notices_are_limited),
        TEST(test_the_queue_of_sends_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
