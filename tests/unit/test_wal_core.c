/* walsvc's core on its own: sequences, order, queues, HLC, watermarks. No disk: frames are taken from it and
 * declared durable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hlc.h"
#include "wal_core.h"

enum { SEGMENT = 64 << 10, QUEUE = 20000, ANSWERS = 2048 };

struct answer {
    unsigned times;
    enum sh_error code;
    uint64_t expected, retry_ms;
    struct msg_append_reply reply;
    struct msg_watermark_reply watermark;
    uint64_t settled_lsn;
};

static struct wal_core *core;
static struct wal_frame *first, **last;
static struct answer answers[ANSWERS];
static uint64_t requests;
static struct wal_durable durable;
static int64_t now_ns;

static void on_write(void *arg, struct wal_frame *frame)
{
    (void)arg;
    *last = frame;
    last = &frame->next;
}

static struct answer *answer_of(struct link_token token)
{
    answers[token.number].times++;
    return &answers[token.number];
}

static void on_reply(void *arg, struct link_token token, const struct msg_append_reply *reply)
{
    (void)arg;
    answer_of(token)->reply = *reply;
}

static void on_refuse(void *arg, struct link_token token, const struct msg_error *error)
{
    (void)arg;
    struct answer *answer = answer_of(token);
    answer->code = (enum sh_error)error->code;
    answer->expected = error->expected;
    answer->retry_ms = error->retry_ms;
}

static void on_watermark(void *arg, struct link_token token, const struct msg_watermark_reply *reply)
{
    (void)arg;
    answer_of(token)->watermark = *reply;
}

static unsigned accepted;
static enum sh_error loss_error;

static void on_accepted(void *arg)
{
    (void)arg;
    accepted++;
}

static void on_loss_refused(void *arg, enum sh_error error, const char *text)
{
    (void)arg, (void)text;
    loss_error = error;
}

static void on_settled(void *arg, struct link_token token, uint64_t durable_lsn)
{
    (void)arg;
    answer_of(token)->settled_lsn = durable_lsn;
}

static void on_unlend(void *arg, struct link_token token)
{
    (void)arg, (void)token;
    fail_msg("nothing here waits for others");
}

static enum wal_level acknowledged_level;
static int64_t acknowledged_ns; /* when that append came */

static void on_acknowledged(void *arg, enum wal_level wanted, int64_t came_ns)
{
    (void)arg;
    acknowledged_level = wanted;
    acknowledged_ns = came_ns;
}

static void free_frames(void)
{
    while (first != NULL) {
        struct wal_frame *next = first->next;
        wal_frame_free(first);
        first = next;
    }
    last = &first;
}

static int setup(void **state)
{
    (void)state;
    struct wal_core_options options = {
        .segment_size = SEGMENT,
        .queue_bytes = QUEUE,
        .offset = 200,
        .limit = SEGMENT,
        .durable = {.end = 200},
        .actions = {on_write, on_reply, on_refuse, on_watermark, on_accepted, on_loss_refused, on_settled,
                    on_unlend, NULL, on_acknowledged, NULL},
    };
    wal_state_init(&options.state);
    core = wal_core_open(&options);
    memset(answers, 0, sizeof answers);
    requests = 0;
    accepted = 0;
    acknowledged_ns = 0;
    loss_error = SH_OK;
    durable = options.durable;
    now_ns = INT64_C(1000000) * NS_PER_S;
    last = &first;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free_frames();
    wal_core_close(core);
    return 0;
}

/* One event with this many bytes of payload; valid for the next three calls. */
static struct slice body_of(size_t payload_bytes)
{
    static struct buf bodies[4];
    static unsigned turn;
    static uint8_t payload[SEGMENT];
    struct buf *body = &bodies[turn++ % 4];
    msgpack_packer pk;
    body->len = 0;
    mp_packer(&pk, body);
    msgpack_pack_array(&pk, 1);
    struct entry entry = {.kind = ENTRY_EVENT, .value = slice_of(payload, payload_bytes)};
    entry_pack(&pk, &entry);
    return buf_slice(body);
}

static struct answer *append_body(uint8_t producer, uint32_t epoch, uint64_t sequence, struct slice body)
{
    struct msg_append append = {
        .producer.bytes[0] = producer,
        .epoch = epoch,
        .sequence = sequence,
        .entries = body,
    };
    wal_core_append(core, (struct link_token){1, ++requests}, &append, now_ns, 0);
    return &answers[requests];
}

static struct answer *append(uint8_t producer, uint32_t epoch, uint64_t sequence)
{
    return append_body(producer, epoch, sequence, body_of(10));
}

/* Everything that was handed out so far is durable. */
static void commit(void)
{
    for (struct wal_frame *f = first; f != NULL; f = f->next) {
        durable.end += FRAME_HEADER_BYTES + f->body.len + (f->opens_segment ? SEGMENT_HEADER_BYTES : 0);
        durable.lsn += f->header.count;
    }
    free_frames();
    durable.commits++;
    wal_core_durable(core, &durable);
}

static void assert_done(const struct answer *answer, uint64_t lsn)
{
    assert_int_equal(answer->times, 1);
    assert_int_equal(answer->code, SH_OK);
    assert_int_equal(answer->reply.lsn, lsn);
}

static void assert_refused(const struct answer *answer, enum sh_error code, uint64_t expected)
{
    assert_int_equal(answer->times, 1);
    assert_int_equal(answer->code, code);
    assert_int_equal(answer->expected, expected);
}

/* ---------------------------------------------------------------- sequences */

/* A damaged frame lies between sequences 2 and 4: no answer of another request is given for them. */
static void test_a_gap_in_the_log_gives_no_wrong_answers(void **state)
{
    (void)state;
    struct wal_producers *table = wal_producers_open();
    struct id16 id = {.bytes = {1}};
    struct wal_answer answer;
    uint64_t expected;
    static const uint64_t sequences[] = {1, 2, 4, 5};
    for (unsigned i = 0; i < 4; i++)
        wal_producers_record(table, id, 1, sequences[i], (struct wal_answer){10 * sequences[i], 1});
    for (uint64_t sequence = 1; sequence <= 3; sequence++)
        assert_int_equal(wal_producers_judge(table, id, 1, sequence, &answer, &expected), WAL_EXPIRED);
    for (uint64_t sequence = 4; sequence <= 5; sequence++) {
        assert_int_equal(wal_producers_judge(table, id, 1, sequence, &answer, &expected), WAL_REPEATED);
        assert_int_equal(answer.lsn, 10 * sequence);
    }
    assert_int_equal(wal_producers_judge(table, id, 1, 6, &answer, &expected), WAL_NEW);
    wal_producers_free(table);
}

static void test_nothing_is_answered_before_it_is_durable(void **state)
{
    (void)state;
    struct answer *a = append(1, 1, 1), *b = append(2, 1, 1);
    assert_int_equal(a->times + b->times, 0);
    commit();
    assert_done(a, 1);
    assert_done(b, 2);
    assert_int_equal(a->reply.ack, 0);
    assert_int_equal(a->reply.count, 1);
}

static void test_an_acknowledgement_tells_when_the_append_came(void **state)
{
    (void)state;
    struct msg_append append = {.entries = body_of(10), .ack = WAL_QUORUM};
    wal_core_append(core, (struct link_token){1, ++requests}, &append, now_ns, 7);
    assert_int_equal(acknowledged_ns, 0);
    commit(); /* it has no time to wait for others */
    assert_int_equal(acknowledged_ns, 7);
    assert_int_equal(acknowledged_level, WAL_QUORUM);
}

static void test_a_repeated_sequence_gets_the_first_answer(void **state)
{
    (void)state;
    append(1, 1, 1);
    append(1, 1, 2);
    commit();
    assert_done(append(1, 1, 1), 1);
    assert_done(append(1, 1, 2), 2);
    assert_null(first);
}

static void test_a_repeated_sequence_waits_for_the_first_to_be_durable(void **state)
{
    (void)state;
    struct answer *a = append(1, 1, 1), *again = append(1, 1, 1);
    append(2, 1, 1);
    assert_int_equal(again->times, 0);
    commit();
    assert_done(a, 1);
    assert_done(again, 1);
    assert_int_equal(again->reply.hlc, 0);
    assert_int_equal(wal_core_stats(core).next_lsn, 3);
}

static void test_a_gap_is_refused_with_the_expected_sequence(void **state)
{
    (void)state;
    append(1, 1, 1);
    assert_refused(append(1, 1, 3), SH_CONFLICT, 2);
    commit();
    append(1, 1, 2);
    commit();
    assert_done(&answers[3], 2);
}

static void test_a_refused_request_consumes_nothing(void **state)
{
    (void)state;
    append(1, 1, 1);
    assert_refused(append_body(1, 1, 2, slice_str("rubbish")), SH_BAD_REQUEST, 0);
    assert_refused(append(1, 1, 3), SH_CONFLICT, 2);
    append(1, 1, 2);
    commit();
    assert_done(&answers[4], 2);
}

static void test_an_unknown_producer_begins_with_one(void **state)
{
    (void)state;
    assert_refused(append(1, 1, 2), SH_SEQUENCE_EXPIRED, 0);
    assert_refused(append(1, 1, 0), SH_BAD_REQUEST, 0);
    assert_null(first);
}

static void test_a_higher_epoch_starts_anew_and_fences_the_lower(void **state)
{
    (void)state;
    append(1, 1, 1);
    append(1, 1, 2);
    assert_refused(append(1, 2, 2), SH_CONFLICT, 1);
    append(1, 2, 1);
    commit();
    assert_done(&answers[4], 3);
    assert_refused(append(1, 1, 3), SH_CONFLICT, 0);
    assert_refused(append(1, 1, 1), SH_CONFLICT, 0);
    append(1, 2, 2);
    commit();
    assert_done(&answers[7], 4);
}

static void test_answers_are_remembered_for_256_requests(void **state)
{
    (void)state;
    for (uint64_t sequence = 1; sequence <= 300; sequence++) {
        append(1, 1, sequence);
        commit();
    }
    assert_done(append(1, 1, 45), 45);
    assert_done(append(1, 1, 300), 300);
    assert_refused(append(1, 1, 44), SH_SEQUENCE_EXPIRED, 0);
}

static void test_without_a_producer_nothing_is_deduplicated(void **state)
{
    (void)state;
    struct answer *a = append(0, 0, 0), *b = append(0, 0, 0);
    commit();
    assert_done(a, 1);
    assert_done(b, 2);
    assert_int_equal(wal_core_stats(core).producers, 0);
}

static void test_the_producer_that_was_quiet_for_longest_is_forgotten(void **state)
{
    (void)state;
    struct wal_producers *table = wal_producers_open();
    struct id16 id = {0};
    struct wal_answer answer;
    uint64_t expected;
    for (uint32_t i = 0; i <= WAL_PRODUCERS_MAX; i++) {
        memcpy(id.bytes, &(uint32_t){i + 1}, 4);
        wal_producers_record(table, id, 1, 1, (struct wal_answer){i + 1, 1});
        if (i == 5) { /* the first one writes again: the second is the oldest now */
            memcpy(id.bytes, &(uint32_t){1}, 4);
            wal_producers_record(table, id, 1, 2, (struct wal_answer){100000, 1});
        }
    }
    assert_int_equal(wal_producers_count(table), WAL_PRODUCERS_MAX);
    memcpy(id.bytes, &(uint32_t){1}, 4);
    assert_int_equal(wal_producers_judge(table, id, 1, 2, &answer, &expected), WAL_REPEATED);
    assert_int_equal(answer.lsn, 100000);
    memcpy(id.bytes, &(uint32_t){2}, 4);
    assert_int_equal(wal_producers_judge(table, id, 1, 1, &answer, &expected), WAL_NEW);
    assert_int_equal(wal_producers_judge(table, id, 1, 2, &answer, &expected), WAL_EXPIRED);
    wal_producers_free(table);
}

/* ---------------------------------------------------------------- what is checked */

static void test_what_a_frame_cannot_hold_is_too_large(void **state)
{
    (void)state;
    size_t most = frame_body_most(SEGMENT);
    struct slice body = body_of(most);
    assert_refused(append_body(1, 1, 1, body), SH_TOO_LARGE, 0);
    body = body_of(most - (body.len - most));
    assert_int_equal(body.len, most);
    append_body(1, 1, 1, body);
    commit();
    assert_done(&answers[2], 1);
}

static void test_entries_that_are_not_well_formed_are_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "", "\x90", "\xc0", "\x91\x93\x00\xa0", "\x91\x93\x00\xa0\xc4\x01\x61\x00", "\x91\x90"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++)
        assert_refused(append_body(1, 1, 1, slice_str(bodies[i])), SH_BAD_REQUEST, 0);
    assert_null(first);
}

/* ---------------------------------------------------------------- limits */

static void test_a_full_queue_is_overloaded(void **state)
{
    (void)state;
    struct slice body = body_of(6000);
    for (uint64_t sequence = 1; sequence <= 3; sequence++)
        append_body(1, 1, sequence, body);
    struct answer *refused = append_body(1, 1, 4, body);
    assert_refused(refused, SH_OVERLOADED, 0);
    assert_true(refused->retry_ms > 0);
    commit();
    append_body(1, 1, 4, body);
    commit();
    assert_done(&answers[5], 4);
    assert_int_equal(wal_core_stats(core).queued_bytes, 0);
}

/* Fills the active segment so that the next append needs another one. */
static uint64_t fill_segment(void)
{
    uint64_t sequence = 0, used = 200;
    struct slice body = body_of(6000);
    while (used + FRAME_HEADER_BYTES + body.len <= SEGMENT) {
        append_body(1, 1, ++sequence, body);
        commit();
        used += FRAME_HEADER_BYTES + body.len;
    }
    return sequence;
}

static void test_appends_wait_for_the_next_segment_in_order(void **state)
{
    (void)state;
    uint64_t sequence = fill_segment();
    uint64_t before = requests;
    append_body(1, 1, sequence + 1, body_of(6000));
    struct slice small = body_of(10);
    append_body(2, 1, 1, small); /* would fit, but comes behind */
    assert_null(first);
    assert_int_equal(wal_core_stats(core).stalled, 2);
    wal_core_next_segment(core, WAL_NEXT_READY, now_ns);
    assert_non_null(first);
    assert_true(first->opens_segment);
    uint64_t hlc = answers[before].reply.hlc;
    assert_int_equal(first->header.kind, FRAME_CHECKPOINT);
    assert_int_equal(first->header.base_lsn, sequence + 1);
    assert_true(first->header.hlc > hlc && first->next->header.hlc > first->header.hlc);
    commit();
    assert_done(&answers[before + 1], sequence + 1);
    assert_done(&answers[before + 2], sequence + 2);
}

static void test_without_room_for_a_segment_appends_get_disk_full(void **state)
{
    (void)state;
    uint64_t sequence = fill_segment(), before = requests;
    struct slice large = body_of(6000);
    append_body(1, 1, sequence + 1, large); /* waits */
    wal_core_next_segment(core, WAL_NEXT_DISK_FULL, now_ns);
    assert_refused(&answers[before + 1], SH_DISK_FULL, 0);
    assert_refused(append_body(1, 1, sequence + 1, large), SH_DISK_FULL, 0);
    append(2, 1, 1); /* still fits */
    assert_non_null(first);
    commit();
    assert_done(&answers[before + 3], sequence + 1);
    wal_core_next_segment(core, WAL_NEXT_DISK_FULL, now_ns);
    wal_core_next_segment(core, WAL_NEXT_READY, now_ns);
    append_body(1, 1, sequence + 1, large);
    commit();
    assert_done(&answers[before + 4], sequence + 2);
}

static void test_a_dropped_session_leaves_no_waiting_append(void **state)
{
    (void)state;
    uint64_t sequence = fill_segment();
    append_body(1, 1, sequence + 1, body_of(6000));
    wal_core_drop(core, 1);
    assert_int_equal(wal_core_stats(core).stalled, 0);
    assert_int_equal(wal_core_stats(core).queued_bytes, 0);
    wal_core_next_segment(core, WAL_NEXT_READY, now_ns);
    assert_null(first);
}

/* ---------------------------------------------------------------- clocks and marks */

static void test_hlc_only_grows_whatever_the_clock_does(void **state)
{
    (void)state;
    uint64_t before = 0;
    for (int i = 0; i < 100; i++) {
        now_ns += i % 3 == 0 ? -5 * NS_PER_S : (int64_t)NS_PER_MS;
        append(0, 0, 0);
    }
    for (struct wal_frame *f = first; f != NULL; f = f->next) {
        assert_true(f->header.hlc > before);
        before = f->header.hlc;
    }
    assert_true(hlc_ms(before) >= INT64_C(1000000) * MS_PER_S - 5 * MS_PER_S);
}

static struct answer *watermark(uint64_t newer_than, uint64_t wait_ms)
{
    struct msg_watermark request = {.newer_than = newer_than, .wait_ms = wait_ms};
    wal_core_watermark(core, (struct link_token){2, ++requests}, &request, 0);
    return &answers[requests];
}

static void test_watermark_is_held_until_there_is_a_newer_one(void **state)
{
    (void)state;
    struct answer *now = watermark(0, 1000), *later = watermark(200, 1000), *never = watermark(1 << 20, 1000);
    assert_int_equal(now->times, 1);
    assert_int_equal(now->watermark.durable_end, 200);
    assert_int_equal(later->times, 0);
    append(1, 1, 1);
    assert_int_equal(later->times, 0);
    commit();
    assert_int_equal(later->times, 1);
    assert_int_equal(later->watermark.durable_end, durable.end);
    assert_int_equal(later->watermark.durable_lsn, 1);
    assert_int_equal(later->watermark.commits, 1);
    assert_int_equal(never->times, 0);
}

static void test_watermark_is_answered_when_the_wait_is_over(void **state)
{
    (void)state;
    assert_true(wal_core_due_ns(core) == INT64_MAX);
    struct answer *at_once = watermark(200, 0), *waits = watermark(200, 1000);
    watermark(200, 2000);
    assert_int_equal(at_once->times, 1);
    assert_int_equal(wal_core_due_ns(core), NS_PER_S);
    wal_core_tick(core, NS_PER_S - 1);
    assert_int_equal(waits->times, 0);
    wal_core_tick(core, NS_PER_S);
    assert_int_equal(waits->times, 1);
    assert_int_equal(wal_core_due_ns(core), 2 * NS_PER_S);
    wal_core_drop(core, 2);
    assert_true(wal_core_due_ns(core) == INT64_MAX);
}

static struct answer *watermark_that_knows(enum wal_writes writes)
{
    struct msg_watermark request = {
        .newer_than = UINT64_MAX, .wait_ms = 1000, .writes = 1 + (uint64_t)writes};
    wal_core_watermark(core, (struct link_token){2, ++requests}, &request, 0);
    return &answers[requests];
}

static void test_who_waits_for_a_watermark_hears_that_the_disk_is_full_and_has_room_again(void **state)
{
    (void)state;
    uint64_t sequence = fill_segment();
    struct slice large = body_of(6000);
    wal_core_next_segment(core, WAL_NEXT_DISK_FULL, now_ns);
    struct answer *any = watermark(1 << 20, 1000), *knows = watermark_that_knows(WAL_WRITES_TAKEN);
    append(2, 1, 1); /* fits: nothing has been refused yet */
    assert_int_equal(any->times + knows->times, 0);
    append_body(1, 1, sequence + 1, large);
    assert_int_equal(any->times, 1);
    assert_int_equal(any->watermark.writes, WAL_WRITES_DISK_FULL);
    assert_int_equal(any->watermark.durable_end, durable.end);
    assert_int_equal(knows->times, 1);
    struct answer *late = watermark_that_knows(WAL_WRITES_TAKEN); /* was on its way when that changed */
    assert_int_equal(late->times, 1);
    assert_int_equal(late->watermark.writes, WAL_WRITES_DISK_FULL);
    struct answer *waits = watermark_that_knows(WAL_WRITES_DISK_FULL), *other = watermark(1 << 20, 1000);
    append_body(1, 1, sequence + 1, large);
    wal_core_next_segment(core, WAL_NEXT_DISK_FULL, now_ns);
    assert_int_equal(waits->times + other->times, 0);
    wal_core_next_segment(core, WAL_NEXT_READY, now_ns);
    assert_int_equal(waits->times, 1);
    assert_int_equal(waits->watermark.writes, WAL_WRITES_TAKEN);
    assert_int_equal(other->times, 1);
    assert_int_equal(watermark_that_knows(WAL_WRITES_TAKEN)->times, 0);
}

/* ---------------------------------------------------------------- without a permit */

static struct answer *settled(void)
{
    wal_core_when_settled(core, (struct link_token){3, ++requests});
    return &answers[requests];
}

static void test_without_a_permit_nothing_is_taken_and_what_was_is_answered(void **state)
{
    (void)state;
    struct answer *taken = append(1, 1, 1), *poll = watermark(1 << 20, 1000);
    wal_core_refuse_writes(core, "n1 has left");
    assert_int_equal(poll->times, 1);
    assert_int_equal(poll->watermark.writes, WAL_WRITES_READ_ONLY);
    struct answer *end = settled();
    assert_refused(append(1, 1, 2), SH_READ_ONLY, 0);
    assert_refused(append(1, 1, 3), SH_READ_ONLY, 0); /* was sent behind it */
    assert_refused(append(0, 0, 0), SH_READ_ONLY, 0);
    assert_refused(append(7, 1, 1), SH_READ_ONLY, 0);
    struct answer *again = append(1, 1, 1); /* its answer may have been lost */
    assert_int_equal(taken->times + again->times + end->times, 0);
    commit();
    assert_done(taken, 1);
    assert_done(again, 1);
    assert_int_equal(end->times, 1);
    assert_int_equal(end->settled_lsn, 1);
    assert_done(append(1, 1, 1), 1);
    assert_null(first);
    struct answer *at_once = settled(), *knows = watermark_that_knows(WAL_WRITES_READ_ONLY);
    assert_int_equal(at_once->times, 1);
    wal_core_allow_writes(core);
    assert_int_equal(knows->watermark.writes, WAL_WRITES_TAKEN);
    struct answer *next = append(1, 1, 2); /* a refused one consumed nothing */
    commit();
    assert_done(next, 2);
}

static void test_without_a_permit_what_waits_for_a_segment_is_refused(void **state)
{
    (void)state;
    uint64_t sequence = fill_segment(), before = requests;
    for (uint64_t i = 1; i <= 3; i++)
        append_body(1, 1, sequence + i, body_of(6000));
    wal_core_accept_loss(core, body_of(6000), now_ns);
    assert_int_equal(wal_core_stats(core).stalled, 3);
    wal_core_refuse_writes(core, "n1 has left");
    for (uint64_t i = 1; i <= 3; i++)
        assert_refused(&answers[before + i], SH_READ_ONLY, 0);
    assert_int_equal(loss_error, SH_READ_ONLY);
    assert_int_equal(wal_core_stats(core).queued_bytes, 0);
    wal_core_next_segment(core, WAL_NEXT_READY, now_ns);
    wal_core_accept_loss(core, body_of(10), now_ns);
    assert_null(first); /* no frame of any kind */
    assert_int_equal(accepted, 0);
}

static void test_a_permit_is_answered_behind_a_frame_without_an_lsn_too(void **state)
{
    (void)state;
    wal_core_accept_loss(core, body_of(10), now_ns);
    wal_core_refuse_writes(core, "n1 has left");
    struct answer *end = settled(), *dropped = settled();
    assert_int_equal(end->times, 0);
    wal_core_drop(core, 3);
    end = settled();
    commit();
    assert_int_equal(end->times, 1);
    assert_int_equal(dropped->times, 0);
    assert_int_equal(accepted, 1);
}

/* ---------------------------------------------------------------- checkpoints */

static void test_a_checkpoint_brings_the_state_back(void **state)
{
    (void)state;
    struct wal_state a, b;
    struct buf body = {0}, again = {0};
    wal_state_init(&a);
    wal_state_init(&b);
    for (uint32_t i = 0; i < 5000; i++) {
        struct frame_header h = {.base_lsn = a.next_lsn, .count = 1 + i % 7, .hlc = i + 1, .epoch = 1};
        h.producer.bytes[3] = (uint8_t)(i % 13);
        h.sequence = 1 + i / 13;
        wal_state_apply(&a, &h, (struct slice){0});
    }
    wal_state_checkpoint(&a, 1 << 20, &body);
    struct frame_header checkpoint = {.kind = FRAME_CHECKPOINT, .base_lsn = a.next_lsn, .hlc = a.hlc};
    assert_true(wal_state_apply(&b, &checkpoint, buf_slice(&body)));
    wal_state_checkpoint(&b, 1 << 20, &again);
    assert_true(slice_equal(buf_slice(&body), buf_slice(&again)));
    assert_int_equal(a.next_lsn, b.next_lsn);
    assert_int_equal(a.frames, b.frames);
    for (size_t len = 0; len < body.len; len++)
        assert_false(wal_state_apply(&b, &checkpoint, slice_of(body.data, len)));
    buf_free(&body);
    buf_free(&again);
    wal_state_free(&a);
    wal_state_free(&b);
}

static void test_a_full_table_fits_into_the_smallest_segment(void **state)
{
    (void)state;
    struct wal_state s;
    struct buf body = {0};
    wal_state_init(&s);
    for (uint32_t i = 0; i < WAL_PRODUCERS_MAX * WAL_ANSWERS_MAX; i++) {
        struct frame_header h = {
            .base_lsn = s.next_lsn, .count = ENTRIES_MAX, .hlc = i + 1, .epoch = UINT32_MAX};
        memcpy(h.producer.bytes, &(uint32_t){1 + i % WAL_PRODUCERS_MAX}, 4);
        h.sequence = (UINT64_C(1) << 40) + i / WAL_PRODUCERS_MAX;
        wal_state_apply(&s, &h, (struct slice){0});
    }
    size_t most = frame_body_most(4 << 20);
    wal_state_checkpoint(&s, most, &body);
    assert_true(body.len <= most);
    assert_int_equal(wal_producers_count(s.producers), WAL_PRODUCERS_MAX);
    struct wal_answer answer;
    uint64_t expected;
    struct id16 id = {0};
    memcpy(id.bytes, &(uint32_t){1}, 4);
    uint64_t last_sequence = (UINT64_C(1) << 40) + WAL_ANSWERS_MAX - 1;
    assert_int_equal(wal_producers_judge(s.producers, id, UINT32_MAX, last_sequence, &answer, &expected),
                     WAL_REPEATED);
    buf_free(&body);
    wal_state_free(&s);
}

/* ---------------------------------------------------------------- loss frames */

static void test_a_loss_frame_takes_no_lsn_and_is_told_when_durable(void **state)
{
    (void)state;
    append(1, 1, 1);
    wal_core_accept_loss(core, slice_str("lost"), now_ns);
    struct answer *behind = append(1, 1, 2);
    const struct wal_frame *loss = first->next;
    assert_int_equal(loss->header.kind, FRAME_LOSS);
    assert_int_equal(loss->header.count, 0);
    assert_int_equal(loss->header.base_lsn, 2);
    assert_true(loss->header.hlc > first->header.hlc);
    assert_true(loss->next->header.hlc > loss->header.hlc);
    assert_true(slice_is(loss->body, "lost"));
    assert_int_equal(accepted, 0);
    struct wal_durable part = durable; /* the first frame only */
    part.end += FRAME_HEADER_BYTES + first->body.len;
    part.lsn = 1;
    wal_core_durable(core, &part);
    assert_int_equal(accepted, 0);
    commit();
    assert_int_equal(accepted, 1);
    assert_done(behind, 2);
}

static void test_a_loss_frame_waits_for_the_next_segment(void **state)
{
    (void)state;
    fill_segment();
    wal_core_accept_loss(core, body_of(6000), now_ns);
    commit();
    assert_int_equal(accepted, 0);
    wal_core_next_segment(core, WAL_NEXT_READY, now_ns);
    assert_true(first->opens_segment);
    assert_int_equal(first->next->header.kind, FRAME_LOSS);
    struct wal_durable part = durable; /* all but its last byte */
    part.end += SEGMENT_HEADER_BYTES + 2 * FRAME_HEADER_BYTES + first->body.len + first->next->body.len - 1;
    wal_core_durable(core, &part);
    assert_int_equal(accepted, 0);
    commit();
    assert_int_equal(accepted, 1);
}

static void test_without_room_for_a_segment_a_loss_is_refused(void **state)
{
    (void)state;
    fill_segment();
    wal_core_accept_loss(core, body_of(6000), now_ns);
    wal_core_next_segment(core, WAL_NEXT_DISK_FULL, now_ns);
    assert_int_equal(loss_error, SH_DISK_FULL);
    wal_core_accept_loss(core, body_of(6000), now_ns); /* it may be asked again */
    assert_int_equal(accepted, 0);
}

#define CORE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CORE_TEST(test_nothing_is_answered_before_it_is_durable),
        CORE_TEST(test_a_gap_in_the_log_gives_no_wrong_answers),
        CORE_TEST(test_an_acknowledgement_tells_when_the_append_came),
        CORE_TEST(test_a_repeated_sequence_gets_the_first_answer),
        CORE_TEST(test_a_repeated_sequence_waits_for_the_first_to_be_durable),
        CORE_TEST(test_a_gap_is_refused_with_the_expected_sequence),
        CORE_TEST(test_a_refused_request_consumes_nothing),
        CORE_TEST(test_an_unknown_producer_begins_with_one),
        CORE_TEST(test_a_higher_epoch_starts_anew_and_fences_the_lower),
        CORE_TEST(test_answers_are_remembered_for_256_requests),
        CORE_TEST(test_without_a_producer_nothing_is_deduplicated),
        cmocka_unit_test(test_the_producer_that_was_quiet_for_longest_is_forgotten),
        CORE_TEST(test_what_a_frame_cannot_hold_is_too_large),
        CORE_TEST(test_entries_that_are_not_well_formed_are_refused),
        CORE_TEST(test_a_full_queue_is_overloaded),
        CORE_TEST(test_appends_wait_for_the_next_segment_in_order),
        CORE_TEST(test_without_room_for_a_segment_appends_get_disk_full),
        CORE_TEST(test_a_dropped_session_leaves_no_waiting_append),
        CORE_TEST(test_hlc_only_grows_whatever_the_clock_does),
        CORE_TEST(test_watermark_is_held_until_there_is_a_newer_one),
        CORE_TEST(test_watermark_is_answered_when_the_wait_is_over),
        CORE_TEST(test_who_waits_for_a_watermark_hears_that_the_disk_is_full_and_has_room_again),
        CORE_TEST(test_without_a_permit_nothing_is_taken_and_what_was_is_answered),
        CORE_TEST(test_without_a_permit_what_waits_for_a_segment_is_refused),
        CORE_TEST(test_a_permit_is_answered_behind_a_frame_without_an_lsn_too),
        CORE_TEST(test_a_loss_frame_takes_no_lsn_and_is_told_when_durable),
        CORE_TEST(test_a_loss_frame_waits_for_the_next_segment),
        CORE_TEST(test_without_room_for_a_segment_a_loss_is_refused),
        cmocka_unit_test(test_a_checkpoint_brings_the_state_back),
        cmocka_unit_test(test_a_full_table_fits_into_the_smallest_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
