/* Counting, and telling obssvc of it: nothing is lost while nobody listens, but for events beyond the ring's
 * room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "obs_store.h"
#include "service.h"
#include "telemetry_push.h"

/* ---------------------------------------------------------------- counting */

/* What the process has counted as walsvc, by way of a message. */
static struct obs_store *told(void)
{
    msgpack_packer pk;
    struct buf all = {0}, series = {0};
    uint64_t taken;
    mp_packer(&pk, &series);
    uint32_t count = telemetry_pack(&pk, "walsvc");
    mp_packer(&pk, &all);
    msgpack_pack_array(&pk, count);
    buf_append(&all, series.data, series.len);
    const struct msg_telemetry m = {
        .service = slice_str("walsvc"), .series = buf_slice(&all), .happened = slice_of("\x90", 1)};
    struct obs_store *store = obs_store_open();
    assert_int_equal(obs_store_take(store, &m, 0, &taken), SH_OK);
    buf_free(&all);
    buf_free(&series);
    return store;
}

static int64_t total(unsigned metric, const char *label)
{
    struct obs_store *store = told();
    int64_t value = obs_store_total(store, metric, label, 0);
    obs_store_close(store);
    return value;
}

static void buckets(unsigned metric, uint64_t counts[TELEMETRY_BUCKETS])
{
    struct obs_store *store = told();
    memset(counts, 0, TELEMETRY_BUCKETS * sizeof *counts);
    obs_store_buckets(store, metric, NULL, 0, counts);
    obs_store_close(store);
}

static void test_bounds_grow_by_half_and_a_third(void **state)
{
    (void)state;
    static const uint64_t first[] = {1, 2, 3, 4, 6, 8, 12, 16};
    for (unsigned i = 0; i < sizeof first / sizeof *first; i++)
        assert_int_equal(telemetry_bound(i), first[i]);
    for (unsigned i = 1; i < TELEMETRY_BOUNDS; i++) {
        assert_true(telemetry_bound(i) > telemetry_bound(i - 1));
        assert_true(telemetry_bound(i) <= 2 * telemetry_bound(i - 1));
    }
    assert_int_equal(telemetry_bound(TELEMETRY_BOUNDS - 1), 1 << 26);
}

static void test_a_value_is_counted_where_it_belongs(void **state)
{
    uint64_t before[TELEMETRY_BUCKETS], after[TELEMETRY_BUCKETS];
    (void)state;
    buckets(TELEMETRY_wal_group, before);
    int64_t sum = total(TELEMETRY_wal_group, NULL);
    for (unsigned i = 0; i < TELEMETRY_BOUNDS; i++) {
        telemetry_take(TELEMETRY_wal_group, 0, telemetry_bound(i));
        telemetry_take(TELEMETRY_wal_group, 0, telemetry_bound(i) + 1); /* in the next one */
        sum += (int64_t)(2 * telemetry_bound(i) + 1);
    }
    telemetry_take(TELEMETRY_wal_group, 0, 0);
    telemetry_take(TELEMETRY_wal_group, 0, UINT64_C(1) << 50);
    buckets(TELEMETRY_wal_group, after);
    for (unsigned i = 0; i < TELEMETRY_BUCKETS; i++)
        assert_int_equal(after[i] - before[i], 2);
    assert_int_equal(total(TELEMETRY_wal_group, NULL), sum + (INT64_C(1) << 50));
}

static void test_seconds_have_buckets_of_microseconds(void **state)
{
    uint64_t before[TELEMETRY_BUCKETS], after[TELEMETRY_BUCKETS];
    (void)state;
    buckets(TELEMETRY_wal_sync, before);
    telemetry_take(TELEMETRY_wal_sync, 0, 1);             /* up to 1 µs */
    telemetry_take(TELEMETRY_wal_sync, 0, NS_PER_US);     /* the same */
    telemetry_take(TELEMETRY_wal_sync, 0, NS_PER_US + 1); /* up to 2 */
    telemetry_take(TELEMETRY_wal_sync, 0, 100 * NS_PER_S);
    buckets(TELEMETRY_wal_sync, after);
    assert_int_equal(after[0] - before[0], 2);
    assert_int_equal(after[1] - before[1], 1);
    assert_int_equal(after[TELEMETRY_BOUNDS] - before[TELEMETRY_BOUNDS], 1);
    assert_true(total(TELEMETRY_wal_sync, NULL) >= 100 * NS_PER_S);
}

static void test_labels_are_counted_apart(void **state)
{
    (void)state;
    int64_t local = total(TELEMETRY_wal_append, "local"), all = total(TELEMETRY_wal_append, "all");
    telemetry_take(TELEMETRY_wal_append, 2, 7 * NS_PER_US);
    assert_int_equal(total(TELEMETRY_wal_append, "local"), local);
    assert_int_equal(total(TELEMETRY_wal_append, "all"), all + 7 * NS_PER_US);
}

enum { THREADS = 4, EACH = 100000 };

static void *count_much(void *arg)
{
    for (unsigned i = 0; i < EACH; i++) {
        telemetry_add(TELEMETRY_wal_entries, 0, 2);
        telemetry_take(TELEMETRY_wal_group, 0, 3);
    }
    return arg;
}

static void test_threads_lose_nothing(void **state)
{
    pthread_t threads[THREADS];
    uint64_t before[TELEMETRY_BUCKETS], after[TELEMETRY_BUCKETS];
    (void)state;
    int64_t entries = total(TELEMETRY_wal_entries, NULL);
    buckets(TELEMETRY_wal_group, before);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    buckets(TELEMETRY_wal_group, after);
    assert_int_equal(total(TELEMETRY_wal_entries, NULL), entries + 2 * THREADS * EACH);
    assert_int_equal(after[2] - before[2], THREADS * EACH);
}

/* ---------------------------------------------------------------- telling */

/* This process as walsvc, and an obssvc that answers when the test says so. */
static struct rig {
    char dir[64];
    struct loop *loop;
    struct config config;
    struct config_node self;
    struct tree_node tree[2];
    struct service service;
    struct link_server *server;
    struct link_token token;
    unsigned messages;                  /* that have come */
    uint64_t first, last, events, lost; /* of the newest */
} rig;

static void note_events(struct slice happened)
{
    struct mp m = mp_of(happened);
    uint32_t count, parts;
    uint64_t number;
    struct slice skipped;
    assert_true(mp_array(&m, &count));
    rig.events = count;
    for (uint32_t i = 0; i < count; i++) {
        assert_true(mp_array(&m, &parts) && parts == 6 && mp_uint(&m, &number));
        assert_true(i == 0 || number == rig.last + 1);
        if (i == 0)
            rig.first = number;
        rig.last = number;
        for (unsigned part = 1; part < 6; part++)
            assert_true(mp_raw(&m, &skipped));
    }
}

static void on_request(void *arg, const struct link_request *request)
{
    struct msg_telemetry m;
    uint64_t taken;
    struct obs_store *store = obs_store_open();
    (void)arg;
    assert_int_equal(request->type, MSG_telemetry);
    assert_int_equal(msg_decode(request->type, request->body, &m), SH_OK);
    assert_int_equal(obs_store_take(store, &m, 0, &taken), SH_OK); /* whatever is told is well-formed */
    obs_store_close(store);
    note_events(m.happened);
    rig.lost = m.lost;
    rig.token = request->token;
    rig.messages++;
}

static void listen_at(void)
{
    char endpoint[LINK_ENDPOINT_MAX];
    const struct link_server_options options = {.loop = rig.loop,
                                                .limits = link_server_default_limits(),
                                                .cluster = rig.service.cluster,
                                                .node = slice_str("n1"),
                                                .boot = id16_random(),
                                                .on_request = on_request};
    snprintf(endpoint, sizeof endpoint, "ipc://%s/obs", rig.dir);
    rig.server = link_server_open(&options);
    assert_int_equal(link_server_listen(rig.server, endpoint), SH_OK);
}

static void answer(uint64_t taken)
{
    struct buf body = {0};
    msg_encode(MSG_telemetry_reply, &(struct msg_telemetry_reply){.happened = taken}, &body);
    link_server_answer(rig.server, rig.token, MSG_telemetry_reply, buf_slice(&body));
    buf_free(&body);
}

static void await_message(unsigned number)
{
    int64_t end_ns = clock_mono_ns() + 60 * NS_PER_S;
    while (rig.messages < number && clock_mono_ns() < end_ns)
        loop_step(rig.loop, 100);
    assert_true(rig.messages >= number);
}

/* The next message that has all up to this event. */
static void await_event(uint64_t number)
{
    do {
        await_message(rig.messages + 1);
        answer(0); /* as if it had taken none */
    } while (rig.last < number);
}

static int open_rig(void **state)
{
    static const uint8_t cluster[CLUSTER_ID_BYTES] = {1};
    (void)state;
    rig = (struct rig){.dir = "/tmp/telXXXXXX", .loop = loop_open()};
    assert_non_null(mkdtemp(rig.dir));
    snprintf(rig.self.id, sizeof rig.self.id, "n1");
    snprintf(rig.config.run_dir, sizeof rig.config.run_dir, "%s", rig.dir);
    rig.tree[1] = (struct tree_node){.kind = TREE_SERVICE, .name = "obssvc"};
    rig.config.tree = rig.tree;
    rig.config.tree_count = 2;
    rig.config.self = &rig.self;
    rig.service = (struct service){.loop = rig.loop,
                                   .config = &rig.config,
                                   .boot = id16_random(),
                                   .cluster = slice_of(cluster, sizeof cluster)};
    telemetry_push_open(&rig.service, "walsvc");
    return 0;
}

/* The server stays as it is: nng may never end its close (docs/adr/0001). */
static int close_rig(void **state)
{
    char path[128];
    (void)state;
    telemetry_push_close();
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/obs.%s", rig.dir, i == 0 ? "in" : "out");
        unlink(path);
    }
    return rmdir(rig.dir);
}

static void happen(unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        event_warn("tested", "something has happened", log_uint("i", i), log_text("text", "x"));
}

/* The story of one process, as there is one ring for it. */
static void test_events_wait_for_obssvc_and_go_when_it_has_them(void **state)
{
    enum { MORE = 44 };
    (void)state;
    happen(TELEMETRY_EVENTS + MORE); /* while nobody listens */
    listen_at();
    await_message(1);
    assert_int_equal(rig.events, TELEMETRY_EVENTS);
    assert_int_equal(rig.first, MORE + 1);
    assert_int_equal(rig.last, TELEMETRY_EVENTS + MORE);
    assert_int_equal(rig.lost, MORE);

    answer(100); /* it has taken those up to 100: only the others come again, at once */
    await_message(2);
    assert_int_equal(rig.first, 101);
    assert_int_equal(rig.events, TELEMETRY_EVENTS + MORE - 100);

    happen(1); /* no second message while one is under way */
    for (unsigned i = 0; i < 30; i++)
        loop_step(rig.loop, 50);
    assert_int_equal(rig.messages, 2);

    answer(0); /* it has taken none, and what has come meanwhile goes with the next */
    await_event(TELEMETRY_EVENTS + MORE + 1);
    assert_int_equal(rig.first, 101);
    answer(TELEMETRY_EVENTS + MORE + 1);
    unsigned before = rig.messages;
    do { /* counts go on to be told without any event */
        await_message(rig.messages + 1);
        answer(TELEMETRY_EVENTS + MORE + 1);
    } while (rig.events > 0 && rig.messages < before + 3);
    assert_int_equal(rig.events, 0);
    assert_int_equal(rig.lost, MORE);
}

static void test_an_event_is_cut_where_obssvc_takes_it(void **state)
{
    char text[2 * TELEMETRY_EVENT_BYTES], big[2 * TELEMETRY_EVENT_BYTES];
    (void)state;
    for (unsigned offset = 0; offset < 4; offset++) {
        memset(text, 'x', sizeof text);
        for (size_t i = offset; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "\xf0\x9f\x90\x9f", 4); /* one character */
        text[sizeof text - 1] = 0;
        memset(big, 'y', sizeof big - 1);
        big[sizeof big - 1] = 0;
        telemetry_event(LOG_INFO, "long", text, LOG_FIELDS(log_text("big", big), log_int("small", -1)));
        await_event(rig.last + 1); /* on_request has looked at it */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds_grow_by_half_and_a_third),
        cmocka_unit_test(test_a_value_is_counted_where_it_belongs),
        cmocka_unit_test(test_seconds_have_buckets_of_microseconds),
        cmocka_unit_test(test_labels_are_counted_apart),
        cmocka_unit_test(test_threads_lose_nothing),
        cmocka_unit_test(test_events_wait_for_obssvc_and_go_when_it_has_them), /* listens */
        cmocka_unit_test(test_an_event_is_cut_where_obssvc_takes_it),
    };
    log_set_level((enum log_level)(LOG_ERROR + 1));
    return cmocka_run_group_tests(tests, open_rig, close_rig);
}
