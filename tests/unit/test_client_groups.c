/* libshanghai in a cluster of two replication groups: what goes where, and how the way there is found. Of the
 * names used here group "a" has the keys x and user/2 and the stream x, group "b" the key user/1 and the
 * stream orders (test_group.c). */
#include "client_node.h"
#include "lib/sh_internal.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pair {
    struct node *a, *b;
};

static void set_text(char *out, size_t size, const char *text)
{
    assert_in_range(snprintf(out, size, "%s", text), 0, size - 1);
}

/* Each knows the other as the one node of its group. */
static struct pair start_pair(void)
{
    struct pair p = {node_start(), node_start()};
    NODE_SET(p.a, (set_text(p.a->group, sizeof p.a->group, "a"),
                   set_text(p.a->places[0], sizeof p.a->places[0], p.b->query), p.a->place_count = 1));
    NODE_SET(p.b, (set_text(p.b->group, sizeof p.b->group, "b"),
                   set_text(p.b->places[0], sizeof p.b->places[0], p.a->query), p.b->place_count = 1));
    return p;
}

static void stop_pair(struct pair p)
{
    assert_int_equal(p.a->strangers + p.b->strangers, 0); /* the library asks the right one at once */
    node_stop(p.a);
    node_stop(p.b);
}

static struct sh_entry put(const char *key)
{
    return (struct sh_entry){
        .kind = SH_ENTRY_PUT, .key = key, .key_bytes = strlen(key), .payload = "v", .payload_bytes = 1};
}

static struct sh_entry event(const char *stream)
{
    return (struct sh_entry){.stream = stream, .payload = "v", .payload_bytes = 1};
}

static enum sh_error append(struct sh_client *c, struct sh_entry entry, struct sh_append_result *result)
{
    return sh_append(c, &entry, 1, SH_ACK_LOCAL, result);
}

static void on_nothing(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    (void)arg, (void)error, (void)result;
}

static void assert_lands(struct sh_client *c, struct sh_entry entry, const struct node *n)
{
    struct sh_append_result result;
    assert_int_equal(append(c, entry, &result), SH_OK);
    assert_memory_equal(result.log, n->log.bytes, sizeof result.log);
}

/* Once for each group, and once more for each second in which a node of it does not answer. */
static void assert_asked(const struct node *n, unsigned groups, int64_t since_ns)
{
    unsigned seconds = (unsigned)((clock_mono_ns() - since_ns) / NS_PER_S);
    assert_in_range(n->group_asks, groups, groups * (1 + seconds));
}

static void test_each_key_and_stream_goes_to_its_group_and_the_way_is_remembered(void **state)
{
    (void)state;
    struct pair p = start_pair();
    int64_t began_ns = clock_mono_ns();
    struct sh_client *c = client_open(p.a);
    for (unsigned i = 0; i < 20; i++) {
        assert_lands(c, put("x"), p.a);
        assert_lands(c, put("user/1"), p.b);
        assert_lands(c, event("x"), p.a);
        assert_lands(c, event("orders"), p.b);
        assert_lands(c, event(""), p.a);
        const struct sh_entry together[] = {event(""), put("user/1"), event("orders")};
        struct sh_append_result result;
        assert_int_equal(sh_append(c, together, 3, SH_ACK_LOCAL, &result), SH_OK);
        assert_memory_equal(result.log, p.b->log.bytes, sizeof result.log);
    }
    assert_asked(p.a, 2, began_ns);
    assert_int_equal(p.b->group_asks, 0);
    sh_close(c);
    stop_pair(p);
}

enum { THREADS = 16 };

static void *append_one(void *arg)
{
    struct sh_client *c = arg;
    return append(c, put("user/1"), NULL) == SH_OK ? arg : NULL;
}

static void test_many_threads_that_come_at_once_share_the_way(void **state)
{
    (void)state;
    struct pair p = start_pair();
    int64_t began_ns = clock_mono_ns();
    struct sh_client *c = client_open(p.a);
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, append_one, c), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_ptr_equal(result, c);
    }
    assert_asked(p.a, 1, began_ns);
    assert_int_equal(p.b->next_lsn, THREADS + 1);
    sh_close(c);
    stop_pair(p);
}

static void test_what_belongs_to_two_groups_is_refused_and_nothing_is_sent(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct sh_client *c = client_open(p.a);
    const struct sh_entry entries[] = {put("x"), event("orders")};
    assert_int_equal(sh_append(c, entries, 2, SH_ACK_LOCAL, NULL), SH_BAD_REQUEST);
    assert_string_equal(sh_last_error_detail(),
                        "the keys belong to two groups: key `x` to `a`, stream `orders` to `b`");
    assert_int_equal(sh_append_async(c, entries, 2, SH_ACK_LOCAL, on_nothing, NULL), SH_BAD_REQUEST);
    assert_int_equal(p.a->appends + p.b->appends, 0);
    sh_close(c);
    stop_pair(p);
}

/* ---------------------------------------------------------------- callbacks */

enum { CALLS = 2000 };

struct counted {
    struct sh_client *client;
    atomic_uint inside, most_inside, called, failed;
    enum sh_error waited, appended;
};

static void on_counted(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct counted *counted = arg;
    (void)result;
    if (atomic_fetch_add(&counted->inside, 1) > 0)
        atomic_store(&counted->most_inside, 2);
    sched_yield();
    atomic_fetch_add(&counted->failed, error != SH_OK);
    atomic_fetch_add(&counted->called, 1);
    atomic_fetch_sub(&counted->inside, 1);
}

static void test_callbacks_come_one_at_a_time_and_flush_waits_for_all(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct counted counted = {.client = client_open(p.a)};
    for (unsigned i = 0; i < CALLS; i++) {
        const struct sh_entry entry = i % 3 == 0 ? put("x") : i % 3 == 1 ? put("user/1") : event("");
        assert_int_equal(sh_append_async(counted.client, &entry, 1, SH_ACK_LOCAL, on_counted, &counted),
                         SH_OK);
    }
    assert_int_equal(sh_flush(counted.client), SH_OK);
    assert_int_equal(counted.called, CALLS);
    assert_int_equal(counted.failed, 0);
    assert_int_equal(counted.most_inside, 0);
    assert_int_equal(p.a->next_lsn + p.b->next_lsn, CALLS + 2);
    sh_close(counted.client);
    stop_pair(p);
}

/* Of group b's client; it opens the one of group a. */
static void on_append_more(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct counted *counted = arg;
    const struct sh_entry entry = put("x");
    (void)error, (void)result;
    counted->waited = append(counted->client, entry, NULL);
    counted->appended = sh_append_async(counted->client, &entry, 1, SH_ACK_LOCAL, on_counted, counted);
    atomic_fetch_add(&counted->called, 1);
}

static void test_a_callback_may_append_to_another_group_but_not_wait(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct counted counted = {.client = client_open(p.a)};
    const struct sh_entry entry = put("user/1");
    assert_int_equal(sh_append_async(counted.client, &entry, 1, SH_ACK_LOCAL, on_append_more, &counted),
                     SH_OK);
    NODE_WAIT(p.a, atomic_load(&counted.called) == 2);
    assert_int_equal(counted.waited, SH_BAD_REQUEST);
    assert_int_equal(counted.appended, SH_OK);
    assert_int_equal(counted.failed, 0);
    assert_int_equal(p.a->next_lsn, 2);
    sh_close(counted.client);
    stop_pair(p);
}

/* ---------------------------------------------------------------- reads */

static void test_gets_of_both_groups_come_back_in_order(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct sh_client *c = client_open(p.b);
    const struct sh_key keys[] = {{"user/1", 6}, {"x", 1}, {"user/2", 6}, {"user/1", 6}, {"x", 1}};
    struct sh_rows rows;
    assert_lands(c, put("x"), p.a); /* so that the groups are known */
    assert_int_equal(sh_kv_get(c, NULL, keys, 5, &rows), SH_OK);
    assert_int_equal(rows.count, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_memory_equal(rows.rows[i].key, keys[i].bytes, keys[i].len);
        assert_string_equal(rows.rows[i].value, i == 0 || i == 3 ? "b" : "a");
    }
    sh_rows_free(&rows);
    assert_int_equal(p.a->gets, 1);
    assert_int_equal(p.b->gets, 1);
    sh_close(c);
    stop_pair(p);
}

static void test_the_first_get_of_all_finds_its_group(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct sh_client *c = client_open(p.a);
    const struct sh_key key = {"user/1", 6};
    struct sh_rows rows;
    assert_int_equal(sh_kv_get(c, NULL, &key, 1, &rows), SH_OK);
    assert_string_equal(rows.rows[0].value, "b");
    sh_rows_free(&rows);
    NODE_SET(p.a, p.a->strangers = 0); /* before the first hello is answered the first node is asked */
    sh_close(c);
    stop_pair(p);
}

/* ---------------------------------------------------------------- gets without waiting */

enum { LINGER_MS = 100 };

struct got {
    struct sh_client *client;
    atomic_uint inside, most_inside, called, of_a, of_b, failed;
    enum sh_error again; /* what asking for one more in a callback has given */
};

static void on_got(void *arg, enum sh_error error, const struct sh_row *row)
{
    struct got *got = arg;
    if (atomic_fetch_add(&got->inside, 1) > 0)
        atomic_store(&got->most_inside, 2);
    for (unsigned i = 0; i < LINGER_MS && atomic_load(&got->called) == 0 && atomic_load(&got->inside) == 1;
         i++)
        usleep(1000); /* the first one gives others the time to come in between */
    if (error != SH_OK)
        atomic_fetch_add(&got->failed, 1);
    else
        atomic_fetch_add(*(const char *)row->value == 'a' ? &got->of_a : &got->of_b, 1);
    atomic_fetch_add(&got->called, 1);
    atomic_fetch_sub(&got->inside, 1);
}

static enum sh_error ask(struct got *got, const char *key, sh_kv_get_fn *fn)
{
    const struct sh_key k = {key, strlen(key)};
    return sh_kv_get_async(got->client, &k, fn, got);
}

static void test_gets_without_waiting_go_to_the_groups_of_their_keys(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct got got = {.client = client_open(p.a)};
    assert_lands(got.client, put("x"), p.a); /* so that the groups are known */
    for (unsigned i = 0; i < CALLS; i++)
        assert_int_equal(ask(&got, i % 2 == 0 ? "x" : "user/1", on_got), SH_OK);
    NODE_WAIT(p.a, atomic_load(&got.called) == CALLS);
    assert_int_equal(got.of_a, CALLS / 2);
    assert_int_equal(got.of_b, CALLS / 2);
    assert_int_equal(got.most_inside, 0);
    sh_close(got.client);
    stop_pair(p);
}

/* The node that is met first refuses what is not its own, which tells of nobody's group but its own. */
static void test_gets_that_come_before_any_node_is_met_find_their_group(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct got got = {.client = client_open(p.a)};
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(ask(&got, i % 2 == 0 ? "user/1" : "x", on_got), SH_OK);
    NODE_WAIT(p.a, atomic_load(&got.called) == 10);
    assert_int_equal(got.of_a, 5);
    assert_int_equal(got.of_b, 5);
    NODE_SET(p.a, p.a->strangers = 0);
    sh_close(got.client);
    stop_pair(p);
}

/* Of group b's client, which is closed after that of group a. */
static void on_ask_more(void *arg, enum sh_error error, const struct sh_row *row)
{
    struct got *got = arg;
    (void)row;
    atomic_fetch_add(&got->failed, error == SH_UNAVAILABLE);
    got->again = ask(got, "x", on_got);
    atomic_fetch_add(&got->called, 1);
}

static void test_a_callback_that_asks_another_group_at_the_end_is_refused(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct got got = {.client = client_open(p.a)};
    assert_lands(got.client, put("x"), p.a);
    assert_lands(got.client, put("user/1"), p.b);
    node_kill(p.b);
    assert_int_equal(ask(&got, "user/1", on_ask_more), SH_OK);
    sh_close(got.client);
    assert_int_equal(got.called, 1);
    assert_int_equal(got.failed, 1);
    assert_int_equal(got.again, SH_UNAVAILABLE);
    stop_pair(p);
}

/* What calls about one key or stream are made of. */
static void test_a_call_goes_to_the_group_of_its_name(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct sh_client *c = client_open(p.a);
    struct shc_call call = {0};
    struct msg_kv_get_reply reply;
    const struct msg_kv_get ask = {.keys = slice_str("\x91\xc4\x06user/1")};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(shc_ask_group(c, &call, GROUP_KEY, slice_str("user/1"), MSG_kv_get, &ask,
                                       MSG_kv_get_reply, &reply),
                         SH_OK);
    assert_int_equal(p.b->gets, 2);
    shc_call_free(&call);
    NODE_SET(p.a, p.a->strangers = 0); /* as before */
    sh_close(c);
    c = client_open(p.a);
    struct sh_client *far = shc_client_wait(c, GROUP_KEY, slice_str("user/1"));
    assert_ptr_not_equal(far, c);
    assert_ptr_equal(shc_client_for(c, GROUP_STREAM, slice_str("orders")), far);
    assert_ptr_not_equal(shc_client_for(c, GROUP_KEY, slice_str("x")), far);
    assert_ptr_equal(shc_client_for(c, GROUP_STREAM, slice_str("")), c);
    sh_close(c);
    stop_pair(p);
}

static void test_any_node_says_where_a_name_belongs(void **state)
{
    (void)state;
    struct pair p = start_pair();
    struct sh_client *c = client_open(p.a);
    struct sh_group group, none = {0};
    assert_int_equal(sh_group_of(c, SH_GROUP_STREAM, "orders", 6, &group), SH_OK);
    assert_string_equal(group.name, "b");
    assert_false(group.here);
    assert_int_equal(group.endpoint_count, 1);
    assert_string_equal(group.endpoints[0], p.b->query);
    sh_group_free(&group);
    assert_int_equal(sh_group_of(c, SH_GROUP_KEY, "orders", 6, &group), SH_OK);
    assert_string_equal(group.name, "a");
    assert_true(group.here);
    sh_group_free(&group);
    assert_int_equal(sh_group_of(c, SH_GROUP_KEY, "", 0, &group), SH_BAD_REQUEST);
    assert_memory_equal(&group, &none, sizeof group);
    char long_key[KEY_MAX + 1] = {0};
    assert_int_equal(sh_group_of(c, SH_GROUP_KEY, long_key, sizeof long_key, &group), SH_TOO_LARGE);
    sh_close(c);
    stop_pair(p);
}

/* ---------------------------------------------------------------- nodes that are away */

static void test_endpoints_that_fail_are_tried_in_turn(void **state)
{
    (void)state;
    struct pair p = start_pair();
    NODE_SET(p.a, (snprintf(p.a->places[0], sizeof p.a->places[0], "ipc://%s/nobody", p.a->dir),
                   set_text(p.a->places[1], sizeof p.a->places[1], "nonsense"),
                   set_text(p.a->places[2], sizeof p.a->places[2], p.b->query), p.a->place_count = 3));
    struct sh_client *c = client_open(p.a);
    assert_lands(c, put("user/1"), p.b);
    sh_close(c);
    stop_pair(p);
}

/* An address may have changed hands. */
static void test_a_node_of_another_group_gets_nothing(void **state)
{
    (void)state;
    struct pair p = start_pair();
    NODE_SET(p.a, (set_text(p.a->places[0], sizeof p.a->places[0], p.a->query),
                   set_text(p.a->places[1], sizeof p.a->places[1], p.b->query), p.a->place_count = 2));
    struct sh_client *c = client_open(p.a);
    assert_lands(c, put("user/1"), p.b);
    sh_close(c);
    stop_pair(p);
}

/* The time of each try is short, the machine may be busy. */
static void assert_lands_in_the_end(struct sh_client *c, struct sh_entry entry, const struct node *n)
{
    struct sh_append_result result;
    enum sh_error e = SH_TIMEOUT;
    for (unsigned i = 0; i < 100 && e == SH_TIMEOUT; i++)
        e = append(c, entry, &result);
    assert_int_equal(e, SH_OK);
    assert_memory_equal(result.log, n->log.bytes, sizeof result.log);
}

static void test_a_group_without_nodes_is_named_in_time_and_found_later(void **state)
{
    (void)state;
    struct pair p = start_pair();
    NODE_SET(p.a, p.a->place_count = 0);
    const char *endpoint = p.a->query;
    struct sh_options options = client_options(&endpoint, 1);
    options.timeout_ms = 300;
    struct sh_client *c;
    const struct sh_key key = {"user/1", 6};
    struct sh_rows rows;
    assert_int_equal(sh_open(&options, &c), SH_OK);
    assert_lands_in_the_end(c, put("x"), p.a);
    assert_int_equal(append(c, put("user/1"), NULL), SH_TIMEOUT);
    assert_string_equal(sh_last_error_detail(), "no answer in time: no node of group `b` can be reached");
    assert_int_equal(sh_kv_get(c, NULL, &key, 1, &rows), SH_UNAVAILABLE);
    assert_string_equal(sh_last_error_detail(), "no node of group `b` can be reached");
    assert_lands_in_the_end(c, put("x"), p.a);
    NODE_SET(p.a, p.a->place_count = 1);
    assert_lands_in_the_end(c, put("user/1"), p.b);
    sh_close(c);
    stop_pair(p);
}

/* What was sent to the old one as it died may have landed there, and is not sent again; what comes later is.
 */
static void test_a_node_that_moved_is_found_again(void **state)
{
    (void)state;
    struct pair p = start_pair();
    const char *endpoint = p.a->query;
    struct sh_options options = client_options(&endpoint, 1);
    struct sh_client *c;
    struct node *next = node_start();
    NODE_SET(next, set_text(next->group, sizeof next->group, "b"));
    options.timeout_ms = 500;
    assert_int_equal(sh_open(&options, &c), SH_OK);
    assert_lands_in_the_end(c, put("user/1"), p.b);
    node_kill(p.b);
    NODE_SET(p.a, set_text(p.a->places[0], sizeof p.a->places[0], next->query));
    assert_lands_in_the_end(c, put("user/1"), next);
    assert_int_equal(next->strangers, 0);
    sh_close(c);
    node_stop(next);
    stop_pair(p);
}

/* ---------------------------------------------------------------- before the first hello */

static void *append_both(void *arg)
{
    struct sh_client *c = arg;
    struct sh_entry entries[] = {put("user/1"), put("x")};
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(sh_append_async(c, &entries[i], 1, SH_ACK_LOCAL, on_nothing, NULL), SH_OK);
    return NULL;
}

static void test_appends_wait_until_it_is_known_which_groups_there_are(void **state)
{
    (void)state;
    struct pair p = start_pair();
    pthread_t thread;
    node_kill(p.a);
    struct sh_client *c = client_open(p.a);
    struct sh_entry plain = event("");
    assert_int_equal(sh_append_async(c, &plain, 1, SH_ACK_LOCAL, on_nothing, NULL), SH_OK); /* at once */
    assert_int_equal(pthread_create(&thread, NULL, append_both, c), 0);
    node_restart(p.a);
    pthread_join(thread, NULL);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(p.a->next_lsn, 3);
    assert_int_equal(p.b->next_lsn, 2);
    sh_close(c);
    stop_pair(p);
}

static void test_without_a_node_nothing_is_appended(void **state)
{
    (void)state;
    static const char *const nobody = "ipc:///tmp/shanghai-nobody/query";
    struct sh_options options = client_options(&nobody, 1);
    struct sh_client *c;
    struct sh_entry entry = put("x");
    options.timeout_ms = 50;
    assert_int_equal(sh_open(&options, &c), SH_OK);
    assert_int_equal(sh_append_async(c, &entry, 1, SH_ACK_LOCAL, on_nothing, NULL), SH_TIMEOUT);
    assert_string_equal(sh_last_error_detail(), "the node cannot be reached; not appended");
    assert_int_equal(sh_append(c, &entry, 1, SH_ACK_LOCAL, NULL), SH_TIMEOUT);
    sh_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_key_and_stream_goes_to_its_group_and_the_way_is_remembered),
        cmocka_unit_test(test_many_threads_that_come_at_once_share_the_way),
        cmocka_unit_test(test_what_belongs_to_two_groups_is_refused_and_nothing_is_sent),
        cmocka_unit_test(test_callbacks_come_one_at_a_time_and_flush_waits_for_all),
        cmocka_unit_test(test_a_callback_may_append_to_another_group_but_not_wait),
        cmocka_unit_test(test_gets_of_both_groups_come_back_in_order),
        cmocka_unit_test(test_the_first_get_of_all_finds_its_group),
        cmocka_unit_test(test_gets_without_waiting_go_to_the_groups_of_their_keys),
        cmocka_unit_test(test_gets_that_come_before_any_node_is_met_find_their_group),
        cmocka_unit_test(test_a_callback_that_asks_another_group_at_the_end_is_refused),
        cmocka_unit_test(test_a_call_goes_to_the_group_of_its_name),
        cmocka_unit_test(test_any_node_says_where_a_name_belongs),
        cmocka_unit_test(test_endpoints_that_fail_are_tried_in_turn),
        cmocka_unit_test(test_a_node_of_another_group_gets_nothing),
        cmocka_unit_test(test_a_group_without_nodes_is_named_in_time_and_found_later),
        cmocka_unit_test(test_a_node_that_moved_is_found_again),
        cmocka_unit_test(test_appends_wait_until_it_is_known_which_groups_there_are),
        cmocka_unit_test(test_without_a_node_nothing_is_appended),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
