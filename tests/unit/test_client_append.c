/* libshanghai appends: what lands where, what shares a frame, what the node refuses. */
#include "client_node.h"
#include "lib/sh_internal.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ================================================================ appends */

/* Callbacks of others must not run inside a call: its caller may hold a lock that they want. */
static _Thread_local bool in_call;

struct spied {
    struct sh_client *client;
    atomic_uint called, inside;
    atomic_bool done;
};

static void on_spied(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct spied *spied = arg;
    (void)error, (void)result;
    atomic_fetch_add(&spied->called, 1);
    if (in_call)
        atomic_fetch_add(&spied->inside, 1);
}

enum { SPIED = 10000 };

static void *append_without_waiting(void *arg)
{
    struct spied *spied = arg;
    struct sh_entry entry = client_entry("x");
    for (unsigned i = 0; i < SPIED; i++) {
        assert_int_equal(sh_append_async(spied->client, &entry, 1, SH_ACK_LOCAL, on_spied, spied), SH_OK);
        while (i > atomic_load(&spied->called) + 1) /* many small answers */
            sched_yield();
    }
    atomic_store(&spied->done, true);
    return NULL;
}

static void test_no_callback_runs_inside_the_call_of_another(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct spied spied = {.client = client_open(n)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, append_without_waiting, &spied), 0);
    for (unsigned i = 0; i + SPIED < FRAMES_MAX && !atomic_load(&spied.done); i++) {
        in_call = true;
        assert_int_equal(client_append(spied.client, "s", NULL), SH_OK);
        in_call = false;
    }
    pthread_join(thread, NULL);
    assert_int_equal(sh_flush(spied.client), SH_OK);
    assert_int_equal(spied.called, SPIED);
    assert_int_equal(spied.inside, 0);
    sh_close(spied.client);
    node_stop(n);
}

static void test_an_append_says_where_it_landed(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_append_result result;
    struct sh_entry entries[] = {client_entry("a"),
                                 {.stream = "s", .payload = "", .payload_bytes = 0},
                                 {.stream = "", .payload = "b", .payload_bytes = 1}};
    assert_int_equal(client_append(c, "first", &result), SH_OK);
    assert_int_equal(result.first_lsn, 1);
    assert_int_equal(sh_append(c, entries, 3, SH_ACK_QUORUM, &result), SH_OK);
    assert_int_equal(result.first_lsn, 2);
    assert_int_equal(result.count, 3);
    assert_int_equal(result.ack, SH_ACK_LOCAL);
    assert_memory_equal(result.log, n->log.bytes, 16);
    assert_int_equal(client_append(c, "last", NULL), SH_OK);
    sh_close(c);
    node_stop(n);
}

static void test_a_batch_keeps_its_correlation_id_over_resends(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    NODE_SET(n, {
        n->refuse = SH_OVERLOADED;
        n->refuse_count = 2;
    });
    assert_int_equal(client_append(c, "again and again", NULL), SH_OK);
    assert_int_equal(client_append(c, "another", NULL), SH_OK);
    assert_int_equal(n->appends, 4);
    assert_int_not_equal(n->correlations[0], 0);
    assert_int_equal(n->correlations[1], n->correlations[0]);
    assert_int_equal(n->correlations[2], n->correlations[0]);
    assert_int_not_equal(n->correlations[3], 0);
    assert_int_not_equal(n->correlations[3], n->correlations[0]);
    sh_close(c);
    node_stop(n);
}

static void test_entries_have_the_bytes_that_everybody_writes(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536, 200000};
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    char *payload = xcalloc(1, 200000);
    char stream[256];
    memset(stream, 's', sizeof stream);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t len = 0; len < 256; len += len == 31 ? 1 : 31) {
            stream[len] = 0;
            struct sh_entry e = {.stream = stream, .payload = payload, .payload_bytes = sizes[i]};
            struct entry same = {.stream = slice_of(stream, len), .value = slice_of(payload, sizes[i])};
            struct buf wanted = {0};
            msgpack_packer pk;
            mp_packer(&pk, &wanted);
            msgpack_pack_array(&pk, 1);
            entry_pack(&pk, &same);
            assert_int_equal(sh_append(c, &e, 1, SH_ACK_LOCAL, NULL), SH_OK);
            const struct stored *got = &n->frames[n->frame_count - 1];
            assert_int_equal(got->len, wanted.len);
            assert_memory_equal(n->arena + got->at, wanted.data, wanted.len);
            buf_free(&wanted);
            stream[len] = 's';
        }
    }
    free(payload);
    sh_close(c);
    node_stop(n);
}

static void test_what_waits_goes_out_as_one_frame(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct client_tally t = {0};
    assert_int_equal(client_append(c, "0", NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    client_append_numbers(c, &t, 1, 4);
    NODE_WAIT(n, n->appends >= 2);
    client_append_numbers(c, &t, 5, 1000);
    NODE_WAIT(n, n->held_count > 0);
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.called, 1000);
    assert_int_equal(t.failed, 0);
    assert_true(n->appends < 50);
    client_check_numbers(c, 1, 0, 1000);
    sh_close(c);
    node_stop(n);
}

static void test_a_frame_keeps_its_bounds(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.batch_entries = 7;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    client_append_numbers(c, &t, 1, 700);
    assert_int_equal(sh_flush(c), SH_OK);
    for (size_t i = 0; i < n->frame_count; i++)
        assert_true(n->frames[i].count <= 7);
    client_check_numbers(c, 1, 1, 700);
    sh_close(c);
    node_stop(n);
}

static void test_linger_waits_for_company(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    unsigned last = 0;
    bool in_time = false;
    o.linger_us = 100000;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    assert_int_equal(client_append(c, "0", NULL), SH_OK);
    for (; !in_time && last < 200; last += 2) { /* this thread may be held up between the two */
        uint32_t before = n->appends;
        int64_t began_ns = clock_mono_ns();
        client_append_numbers(c, &t, last + 1, last + 1);
        client_append_numbers(c, &t, last + 2, last + 2); /* without the linger the first one is on its way */
        in_time = clock_mono_ns() - began_ns < (int64_t)o.linger_us * NS_PER_US;
        assert_int_equal(sh_flush(c), SH_OK);
        assert_true(!in_time || n->appends == before + 1);
    }
    assert_true(in_time);
    client_check_numbers(c, 1, 0, last);
    sh_close(c);
    node_stop(n);
}

struct caller {
    pthread_t thread;
    struct sh_client *client;
    unsigned number, appends;
    uint64_t lsns[100];
};

static void *call_many(void *arg)
{
    struct caller *caller = arg;
    for (unsigned i = 0; i < caller->appends; i++) {
        char text[32];
        struct sh_append_result result;
        snprintf(text, sizeof text, "%u.%u", caller->number, i);
        if (client_append(caller->client, text, &result) == SH_OK)
            caller->lsns[i] = result.first_lsn;
    }
    return NULL;
}

static void call_at_once(struct caller *callers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pthread_create(&callers[i].thread, NULL, call_many, &callers[i]);
    for (unsigned i = 0; i < count; i++)
        pthread_join(callers[i].thread, NULL);
}

static void test_each_of_many_callers_gets_its_own_lsn(void **state)
{
    (void)state;
    enum { CALLERS = 12 };
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct caller callers[CALLERS];
    struct sh_reader *r;
    struct sh_event e;
    for (unsigned i = 0; i < CALLERS; i++)
        callers[i] = (struct caller){.client = c, .number = i, .appends = 100};
    call_at_once(callers, CALLERS);
    assert_int_equal(sh_read_open(c, &(struct sh_read_options){0}, &r), SH_OK);
    for (unsigned k = 0; k < CALLERS * 100; k++) {
        unsigned number, i;
        char text[32];
        assert_int_equal(sh_read_next(r, 0, &e), SH_OK);
        snprintf(text, sizeof text, "%.*s", (int)e.payload_bytes, (const char *)e.payload);
        assert_int_equal(sscanf(text, "%u.%u", &number, &i), 2);
        assert_int_equal(callers[number].lsns[i], e.lsn);
    }
    assert_int_equal(sh_read_next(r, 0, &e), SH_NOT_FOUND);
    sh_read_close(r);
    sh_close(c);
    node_stop(n);
}

struct again {
    struct sh_client *client;
    unsigned called;
    enum sh_error first, second;
};

static void append_again(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct again *a = arg;
    const struct sh_entry entry = {.payload = "again", .payload_bytes = 5};
    (void)result;
    a->called++;
    a->first = error;
    a->second = sh_append_async(a->client, &entry, 1, SH_ACK_LOCAL, append_again, a);
}

static void test_a_callback_during_the_close_appends_nothing_more(void **state)
{
    (void)state;
    const char *const nobody[] = {"ipc:///nonexistent/query"};
    struct sh_options options = sh_default_options();
    const struct sh_entry entry = {.payload = "first", .payload_bytes = 5};
    struct again a = {0};
    options.endpoints = nobody;
    options.endpoint_count = 1;
    assert_int_equal(sh_open(&options, &a.client), SH_OK);
    assert_int_equal(sh_append_async(a.client, &entry, 1, SH_ACK_LOCAL, append_again, &a), SH_OK);
    sh_close(a.client);
    assert_int_equal(a.called, 1);
    assert_int_equal(a.first, SH_UNAVAILABLE);
    assert_int_equal(a.second, SH_UNAVAILABLE);
}

/* Each answer leaves fewer who come back: the others' entries must not wait for those. */
static void test_nobody_waits_for_callers_who_stay_away(void **state)
{
    (void)state;
    enum { CALLERS = 12 };
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct caller callers[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++)
        callers[i] = (struct caller){.client = c, .number = i, .appends = 1 + 8 * i};
    call_at_once(callers, CALLERS);
    for (unsigned i = 0; i < CALLERS; i++)
        for (unsigned k = 0; k < callers[i].appends; k++)
            assert_true(callers[i].lsns[k] > 0);
    sh_close(c);
    node_stop(n);
}

/* Until somebody's entry waits for the next batch. */
static void wait_for_company(struct sh_client *c)
{
    bool waits;
    do {
        sched_yield();
        pthread_mutex_lock(&c->queue.lock);
        waits = c->queue.lanes[SH_ACK_LOCAL].open != NULL;
        pthread_mutex_unlock(&c->queue.lock);
    } while (!waits);
}

/* Two callers get their answers at once, and one of them comes back: how long its next append takes. */
static int64_t alone_again_ns(struct node *n, struct sh_client *c)
{
    struct client_tally t = {0};
    struct caller other = {.client = c, .appends = 1}, own = other;
    uint32_t before = n->appends;
    NODE_SET(n, n->hold = true);
    client_append_numbers(c, &t, 1, 1);
    NODE_WAIT(n, n->appends == before + 1); /* the only one that may be in flight */
    pthread_create(&other.thread, NULL, call_many, &other);
    wait_for_company(c);
    NODE_SET(n, n->hold = false);
    call_many(&own);
    int64_t came_back_ns = clock_mono_ns();
    call_many(&own);
    int64_t took_ns = clock_mono_ns() - came_back_ns;
    pthread_join(other.thread, NULL);
    assert_true(own.lsns[0] > 0 && other.lsns[0] > 0);
    return took_ns;
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Its first caller sends a batch that waits in vain, not the next tick, which comes each 250 ms: a quarter of
 * the tries is quick, on a busy machine too. */
static void test_the_wait_for_callers_who_stay_away_is_short(void **state)
{
    (void)state;
    enum { TRIES = 31 };
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct sh_client *c;
    int64_t took_ns[TRIES];
    o.in_flight = 1;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    for (int i = 0; i < TRIES; i++)
        took_ns[i] = alone_again_ns(n, c);
    qsort(took_ns, TRIES, sizeof took_ns[0], compare_times);
    assert_true(took_ns[TRIES / 4] < 50 * (int64_t)NS_PER_MS);
    sh_close(c);
    node_stop(n);
}

/* ================================================================ refusals */

static void test_overloaded_is_tried_again_in_order(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.batch_entries = 5;
    o.in_flight = 8;
    n->refuse = SH_OVERLOADED;
    n->refuse_count = 3;
    n->refuse_after = 5;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    NODE_SET(n, client_append_numbers(c, &t, 1, 500)); /* it answers none before all are there */
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(n->refuse_count, 0);
    assert_true(n->conflicts > 0);
    client_check_numbers(c, 1, 1, 500);
    sh_close(c);
    node_stop(n);
}

static void test_unknown_outcome_is_tried_again_under_its_sequence(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    NODE_SET(n, (n->refuse = SH_UNAVAILABLE, n->refuse_count = 2));
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    assert_int_equal(client_append(c, "2", NULL), SH_OK);
    client_check_numbers(c, 1, 1, 2);
    sh_close(c);
    node_stop(n);
}

static void test_a_refused_frame_fails_its_callers_only(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally bad = {0}, good = {0};
    struct sh_client *c;
    o.batch_entries = 1;
    o.in_flight = 16;
    n->refuse = SH_READ_ONLY;
    n->refuse_after = 10;
    n->refuse_count = 1;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    client_append_numbers(c, &good, 1, 10);
    client_append_numbers(c, &bad, 999, 999);
    client_append_numbers(c, &good, 11, 300);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(bad.failed, 1);
    assert_int_equal(bad.error, SH_READ_ONLY);
    assert_int_equal(good.failed, 0);
    client_check_numbers(c, 1, 1, 300);
    sh_close(c);
    node_stop(n);
}

/* With a time to wait that this test has not: nothing is tried again. */
static void test_a_node_that_takes_no_writes_says_so_at_once(void **state)
{
    (void)state;
    enum { APPENDS = 30, TIMEOUT_MS = 600000 };
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.batch_entries = 1;
    o.in_flight = 16;
    o.timeout_ms = TIMEOUT_MS;
    n->refuse = SH_READ_ONLY;
    n->refuse_count = UINT32_MAX;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    client_append_numbers(c, &t, 100, 100 + APPENDS - 1);
    assert_int_equal(client_append(c, "200", NULL), SH_READ_ONLY);
    assert_string_equal(sh_last_error_detail(), "as the test wants");
    assert_int_equal(atomic_load(&t.failed), APPENDS);
    assert_int_equal(t.error, SH_READ_ONLY);
    assert_int_equal(n->frame_count, 0);
    assert_int_equal(UINT32_MAX - n->refuse_count, APPENDS + 1); /* once each */
    NODE_SET(n, n->refuse_count = 0);
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    client_check_numbers(c, 1, 1, 1);
    sh_close(c);
    node_stop(n);
}

static void test_an_append_waits_for_room_on_a_full_disk(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.batch_entries = 1;
    o.in_flight = 16;
    n->refuse = SH_DISK_FULL;
    n->refuse_after = 10;
    n->refuse_count = 3;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    client_append_numbers(c, &t, 1, 300);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(n->refuse_count, 0);
    client_check_numbers(c, 1, 1, 300);
    sh_close(c);
    node_stop(n);
}

enum { KEPT_OUT = 21 };

struct told {
    atomic_uint full, late;
};

static void on_told(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct told *told = arg;
    (void)result;
    assert_true(error == SH_DISK_FULL || error == SH_TIMEOUT);
    atomic_fetch_add(error == SH_DISK_FULL ? &told->full : &told->late, 1);
}

/* Whether all were told so; where the client or the node is held up as the time is nearly over, it is over.
 */
static bool are_told(struct sh_client *c)
{
    struct told told = {0};
    const struct sh_entry entry = client_entry("kept out");
    for (unsigned i = 0; i < KEPT_OUT; i++)
        assert_int_equal(sh_append_async(c, &entry, 1, SH_ACK_LOCAL, on_told, &told), SH_OK);
    enum sh_error last = client_append(c, "never", NULL);
    assert_true(last == SH_DISK_FULL || last == SH_TIMEOUT);
    while (told.full + told.late < KEPT_OUT)
        usleep(1000);
    return told.full == KEPT_OUT && last == SH_DISK_FULL;
}

/* The time being over, the callers know that nothing has landed, and nothing lands later. */
static void test_a_disk_that_stays_full_is_told(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoints[] = {n->query};
    struct sh_options o = client_options(endpoints, 1);
    struct client_tally t = {0};
    struct sh_client *c;
    o.batch_entries = 1;
    o.timeout_ms = 6000;
    n->refuse = SH_DISK_FULL;
    n->refuse_count = UINT32_MAX;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    for (unsigned i = 0; i < 5 && !are_told(c); i++) {
        sh_close(c); /* nothing is known of what was late: it must not land */
        assert_int_equal(sh_open(&o, &c), SH_OK);
        assert_true(i < 4);
    }
    assert_int_equal(sh_flush(c), SH_OK);
    NODE_SET(n, n->refuse_count = 0);
    client_append_numbers(c, &t, 1, 5);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 0);
    assert_int_equal(n->frame_count, 5);
    client_check_numbers(c, 1, 1, 5);
    sh_close(c);
    node_stop(n);
}

static void test_a_forgotten_producer_starts_anew_unseen(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(client_append(c, "x", NULL), SH_OK);
    NODE_SET(n, n->forget_producers = true);
    struct sh_append_result result;
    assert_int_equal(client_append(c, "y", &result), SH_OK);
    assert_int_equal(result.first_lsn, 4);
    assert_int_equal(client_append(c, "z", &result), SH_OK);
    assert_int_equal(result.first_lsn, 5);
    assert_int_equal(n->frame_count, 5);
    sh_close(c);
    node_stop(n);
}

static void test_expired_after_an_unknown_outcome_is_told(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct client_tally t = {0};
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    client_append_numbers(c, &t, 2, 2);
    NODE_WAIT(n, n->held_count == 1);
    NODE_SET(n, (n->forget_producers = true, n->hold = false));
    node_restart(n); /* its answer is lost, and so is the memory of the producer */
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(t.failed, 1);
    assert_int_equal(t.error, SH_SEQUENCE_EXPIRED);
    assert_int_equal(client_append(c, "3", NULL), SH_OK);
    client_check_numbers(c, 1, 1, 3);
    sh_close(c);
    node_stop(n);
}

static void test_bad_entries_are_refused_before_they_spoil_anything(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = 0;
    char *big = xcalloc(1, 2 << 20);
    struct sh_entry long_name = {.stream = name, .payload = ""}, no_utf8 = {.stream = "\xff", .payload = ""},
                    missing = {.payload_bytes = 1};
    struct sh_entry too_big = {.payload = big, .payload_bytes = 2 << 20}, good = client_entry("x");
    assert_int_equal(client_append(c, "0", NULL), SH_OK);
    assert_int_equal(sh_append(c, &long_name, 1, 0, NULL), SH_TOO_LARGE);
    assert_int_equal(sh_append(c, &no_utf8, 1, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, &missing, 1, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, &too_big, 1, 0, NULL), SH_TOO_LARGE);
    assert_string_not_equal(sh_last_error_detail(), "");
    assert_int_equal(sh_append(c, &good, 0, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, &good, 1, (enum sh_ack)3, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append(c, NULL, 1, 0, NULL), SH_BAD_REQUEST);
    assert_int_equal(sh_append_async(c, &good, 1, 0, NULL, NULL), SH_BAD_REQUEST);
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    client_check_numbers(c, 1, 0, 1);
    free(big);
    sh_close(c);
    node_stop(n);
}

/* The node's limit isn't known yet when the call is made. */
static void test_too_large_for_the_node_before_it_is_known(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct client_tally small = {0}, large = {0};
    char *big = xcalloc(1, 2 << 20);
    struct sh_entry e = {.payload = big, .payload_bytes = 2 << 20};
    client_append_numbers(c, &small, 1, 1);
    enum sh_error at_once = sh_append_async(c, &e, 1, SH_ACK_LOCAL, client_on_done, &large);
    client_append_numbers(c, &small, 2, 3);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_true(at_once == SH_TOO_LARGE || (large.failed == 1 && large.error == SH_TOO_LARGE));
    assert_int_equal(small.failed, 0);
    client_check_numbers(c, 1, 1, 3);
    free(big);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_callback_runs_inside_the_call_of_another),
        cmocka_unit_test(test_an_append_says_where_it_landed),
        cmocka_unit_test(test_a_batch_keeps_its_correlation_id_over_resends),
        cmocka_unit_test(test_entries_have_the_bytes_that_everybody_writes),
        cmocka_unit_test(test_what_waits_goes_out_as_one_frame),
        cmocka_unit_test(test_a_frame_keeps_its_bounds),
        cmocka_unit_test(test_linger_waits_for_company),
        cmocka_unit_test(test_each_of_many_callers_gets_its_own_lsn),
        cmocka_unit_test(test_nobody_waits_for_callers_who_stay_away),
        cmocka_unit_test(test_the_wait_for_callers_who_stay_away_is_short),
        cmocka_unit_test(test_overloaded_is_tried_again_in_order),
        cmocka_unit_test(test_unknown_outcome_is_tried_again_under_its_sequence),
        cmocka_unit_test(test_a_refused_frame_fails_its_callers_only),
        cmocka_unit_test(test_a_node_that_takes_no_writes_says_so_at_once),
        cmocka_unit_test(test_an_append_waits_for_room_on_a_full_disk),
        cmocka_unit_test(test_a_disk_that_stays_full_is_told),
        cmocka_unit_test(test_a_forgotten_producer_starts_anew_unseen),
        cmocka_unit_test(test_expired_after_an_unknown_outcome_is_told),
        cmocka_unit_test(test_a_callback_during_the_close_appends_nothing_more),
        cmocka_unit_test(test_bad_entries_are_refused_before_they_spoil_anything),
        cmocka_unit_test(test_too_large_for_the_node_before_it_is_known),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
