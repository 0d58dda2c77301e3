/* libshanghai: gets without waiting, and watches. */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GETS = 100, WAIT_MS = 10000 };

/* ---------------------------------------------------------------- gets without waiting */

struct got {
    atomic_uint called, values, nothing, failed, wrong;
    enum sh_error error;
    struct sh_client *client; /* asks for one more in each callback, so many times */
    atomic_int more;
};

static enum sh_error ask(struct sh_client *c, const char *key, struct got *got);

static void on_got(void *arg, enum sh_error error, const struct sh_row *row)
{
    struct got *g = arg;
    char expected[80];
    if (error != SH_OK) {
        g->error = error;
        atomic_fetch_add(&g->failed, 1);
        atomic_fetch_add(&g->wrong, row != NULL);
    } else if (!row->has_value) {
        atomic_fetch_add(&g->nothing, 1);
    } else {
        snprintf(expected, sizeof expected, "value of %.*s", (int)row->key_bytes, (const char *)row->key);
        bool good =
            row->value_bytes == strlen(expected) && memcmp(row->value, expected, row->value_bytes) == 0;
        atomic_fetch_add(good ? &g->values : &g->wrong, 1);
    }
    if (g->client != NULL && atomic_fetch_sub(&g->more, 1) > 0)
        assert_int_equal(ask(g->client, "from a callback", g), SH_OK);
    atomic_fetch_add(&g->called, 1);
}

static enum sh_error ask(struct sh_client *c, const char *key, struct got *got)
{
    const struct sh_key k = {key, strlen(key)};
    return sh_kv_get_async(c, &k, on_got, got);
}

static void ask_many(struct sh_client *c, unsigned count, struct got *got)
{
    char key[24];
    for (unsigned i = 0; i < count; i++) {
        snprintf(key, sizeof key, i % 5 == 4 ? "no%u" : "k%u", i);
        assert_int_equal(ask(c, key, got), SH_OK);
    }
}

static void await(const struct got *got, unsigned called)
{
    for (int i = 0; i < WAIT_MS && atomic_load(&got->called) < called; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&got->called), called);
    assert_int_equal(atomic_load(&got->wrong), 0);
}

static void test_each_get_is_answered_with_its_own_row(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK};
    ask_many(c, GETS, &got);
    await(&got, GETS);
    assert_int_equal(atomic_load(&got.values), GETS - GETS / 5);
    assert_int_equal(atomic_load(&got.nothing), GETS / 5);
    sh_close(c);
    node_stop(n);
}

/* There and back: what was going to be sent by now has been, for the worse. */
static void pass_by(struct sh_client *c)
{
    struct sh_log_info info;
    assert_int_equal(sh_log_info(c, NULL, &info), SH_OK);
    sh_log_info_free(&info);
}

static void test_gets_that_wait_go_out_together(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK};
    NODE_SET(n, n->hold = true);
    ask_many(c, 2, &got);
    NODE_WAIT(n, n->gets_held > 0);
    ask_many(c, GETS, &got);
    pass_by(c);
    NODE_SET(n, n->hold = false);
    await(&got, GETS + 2);
    NODE_SET(n, assert_int_equal(n->keys_asked, GETS + 2));
    NODE_SET(n, assert_in_range(n->gets, 2, 5));
    sh_close(c);
    node_stop(n);
}

static void test_keys_that_an_answer_had_no_room_for_are_asked_for_again(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK};
    NODE_SET(n, n->rows_most = 3; n->hold = true);
    ask_many(c, GETS, &got);
    NODE_SET(n, n->hold = false);
    await(&got, GETS);
    assert_int_equal(atomic_load(&got.values) + atomic_load(&got.nothing), GETS);
    NODE_SET(n, assert_true(n->keys_asked > GETS));
    sh_close(c);
    node_stop(n);
}

static void test_a_callback_may_ask_for_more(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.client = c};
    atomic_store(&got.more, 500);
    ask_many(c, 10, &got);
    await(&got, 510);
    sh_close(c);
    node_stop(n);
}

static void test_what_is_no_key_is_refused_at_once(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK};
    uint8_t bytes[KEY_MAX + 1] = {0};
    const struct sh_key none = {bytes, 0}, large = {bytes, sizeof bytes};
    assert_int_equal(sh_kv_get_async(c, &none, on_got, &got), SH_BAD_REQUEST);
    assert_int_equal(sh_kv_get_async(c, &large, on_got, &got), SH_TOO_LARGE);
    sh_close(c);
    assert_int_equal(atomic_load(&got.called), 0);
    node_stop(n);
}

static void test_an_error_and_an_answer_without_sense_reach_every_get(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK}, odd = {.error = SH_OK};
    NODE_SET(n, n->keys_refuse = SH_FORBIDDEN);
    ask_many(c, GETS, &got);
    await(&got, GETS);
    assert_int_equal(atomic_load(&got.failed), GETS);
    assert_int_equal(got.error, SH_FORBIDDEN);
    NODE_SET(n, n->keys_refuse = SH_OK; n->odd = true);
    ask_many(c, GETS, &odd);
    await(&odd, GETS);
    assert_true(atomic_load(&odd.failed) > 0);
    assert_int_equal(odd.error, SH_INTERNAL);
    sh_close(c);
    node_stop(n);
}

static void test_gets_without_an_answer_end_in_time(void **state)
{
    (void)state;
    struct node *n = node_start();
    const char *endpoint = n->query;
    struct sh_options o = client_options(&endpoint, 1);
    struct sh_client *c;
    struct got got = {.error = SH_OK};
    o.timeout_ms = 300;
    assert_int_equal(sh_open(&o, &c), SH_OK);
    NODE_SET(n, n->hold = true);
    ask_many(c, GETS, &got);
    await(&got, GETS);
    assert_int_equal(atomic_load(&got.failed), GETS);
    assert_int_equal(got.error, SH_TIMEOUT);
    sh_close(c);
    node_stop(n);
}

static void test_gets_are_told_when_their_client_is_closed(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK};
    NODE_SET(n, n->hold = true);
    ask_many(c, GETS, &got);
    NODE_WAIT(n, n->gets_held > 0);
    sh_close(c);
    assert_int_equal(atomic_load(&got.called), GETS);
    assert_int_equal(atomic_load(&got.failed), GETS);
    assert_int_equal(got.error, SH_UNAVAILABLE);
    node_stop(n);
}

static void test_gets_outlive_a_restart_of_the_node(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct got got = {.error = SH_OK};
    NODE_SET(n, n->hold = true);
    ask_many(c, GETS, &got);
    NODE_WAIT(n, n->gets_held > 0);
    node_kill(n);
    NODE_SET(n, n->hold = false);
    node_restart(n);
    await(&got, GETS);
    assert_int_equal(atomic_load(&got.failed), 0);
    sh_close(c);
    node_stop(n);
}

/* ---------------------------------------------------------------- watches */

static struct sh_watch *watch_from(struct sh_client *c, const struct sh_session *from)
{
    const struct sh_watch_options o = {.from = from};
    struct sh_watch *w = NULL;
    assert_int_equal(sh_watch_open(c, &o, &w), SH_OK);
    return w;
}

static void assert_change(struct sh_watch *w, const struct node *n, uint64_t lsn)
{
    struct sh_change change;
    char key[24], place[96], uuid[ID_TEXT];
    snprintf(key, sizeof key, "k%llu", (unsigned long long)lsn);
    assert_int_equal(sh_watch_next(w, WAIT_MS, &change), SH_OK);
    assert_int_equal(change.kind, SH_ENTRY_PUT);
    assert_int_equal(change.key_bytes, strlen(key));
    assert_memory_equal(change.key, key, strlen(key));
    assert_int_equal(change.value_bytes, 1);
    assert_int_equal(change.version.lsn, lsn);
    assert_int_equal(change.version.hlc, 100 + lsn);
    assert_memory_equal(change.version.log, n->log.bytes, sizeof change.version.log);
    id16_format(n->log, uuid);
    snprintf(place, sizeof place, "%s %llu\nhlc %llu\n", uuid, (unsigned long long)lsn,
             (unsigned long long)(100 + lsn));
    char *text = sh_session_text(sh_watch_position(w));
    assert_string_equal(text, place);
    free(text);
}

static void test_a_watch_tells_each_change_once(void **state)
{
    (void)state;
    struct node *n = node_start();
    NODE_SET(n, n->watch_last = 20);
    struct sh_client *c = client_open(n);
    struct sh_session *from = sh_session_new();
    struct sh_watch *w = watch_from(c, from);
    struct sh_change change;
    for (uint64_t lsn = 1; lsn <= 20; lsn++)
        if (lsn % 3 != 0)
            assert_change(w, n, lsn);
    assert_int_equal(sh_watch_next(w, 10, &change), SH_TIMEOUT);
    NODE_SET(n, n->watch_last = 22);
    assert_change(w, n, 22);
    sh_watch_close(w);
    sh_session_free(from);
    sh_close(c);
    node_stop(n);
}

static void test_a_watch_goes_on_from_its_position(void **state)
{
    (void)state;
    struct node *n = node_start();
    NODE_SET(n, n->watch_last = 20);
    struct sh_client *c = client_open(n);
    struct sh_session *from = sh_session_new();
    struct sh_watch *first = watch_from(c, from);
    for (uint64_t lsn = 1; lsn <= 7; lsn++) /* in the middle of an answer */
        if (lsn % 3 != 0)
            assert_change(first, n, lsn);
    struct sh_watch *second = watch_from(c, sh_watch_position(first));
    sh_watch_close(first);
    node_kill(n);
    node_restart(n);
    assert_change(second, n, 8);
    assert_change(second, n, 10);
    sh_watch_close(second);
    sh_session_free(from);
    sh_close(c);
    node_stop(n);
}

static void test_a_watch_from_now_begins_behind_what_there_is(void **state)
{
    (void)state;
    struct node *n = node_start();
    NODE_SET(n, n->watch_last = 10);
    struct sh_client *c = client_open(n);
    struct sh_watch *w = watch_from(c, NULL);
    struct sh_change change;
    assert_int_equal(sh_watch_next(w, 10, &change), SH_TIMEOUT);
    NODE_SET(n, n->watch_last = 11);
    assert_change(w, n, 11);
    sh_watch_close(w);
    sh_close(c);
    node_stop(n);
}

static void test_what_is_missing_is_told_once_and_passed_over(void **state)
{
    (void)state;
    struct node *n = node_start();
    NODE_SET(n, n->watch_last = 12; n->watch_first = 10);
    struct sh_client *c = client_open(n);
    struct sh_session *from = sh_session_new();
    struct sh_watch *w = watch_from(c, from);
    struct sh_change change;
    assert_int_equal(sh_watch_next(w, WAIT_MS, &change), SH_TRIMMED);
    assert_non_null(strstr(sh_last_error_detail(), "entries 1 to 9 of log "));
    assert_change(w, n, 10);
    sh_watch_close(w);
    sh_session_free(from);
    sh_close(c);
    node_stop(n);
}

static void test_a_watch_that_is_refused_says_why(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    uint8_t prefix[KEY_MAX + 1] = {0};
    const struct sh_watch_options now = {.from = NULL},
                                  large = {.prefix = prefix, .prefix_bytes = sizeof prefix};
    struct sh_session *from = sh_session_new();
    struct sh_watch *w = NULL;
    struct sh_change change;
    assert_int_equal(sh_watch_open(c, &large, &w), SH_TOO_LARGE);
    NODE_SET(n, n->keys_refuse = SH_FORBIDDEN);
    assert_int_equal(sh_watch_open(c, &now, &w), SH_FORBIDDEN);
    assert_null(w);
    w = watch_from(c, from);
    assert_int_equal(sh_watch_next(w, WAIT_MS, &change), SH_FORBIDDEN);
    NODE_SET(n, n->keys_refuse = SH_OK; n->watch_last = 5; n->odd = true);
    assert_int_equal(sh_watch_next(w, WAIT_MS, &change), SH_INTERNAL);
    NODE_SET(n, n->odd = false);
    assert_change(w, n, 1);
    sh_watch_close(w);
    sh_watch_close(NULL);
    sh_session_free(from);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_get_is_answered_with_its_own_row),
        cmocka_unit_test(test_gets_that_wait_go_out_together),
        cmocka_unit_test(test_keys_that_an_answer_had_no_room_for_are_asked_for_again),
        cmocka_unit_test(test_a_callback_may_ask_for_more),
        cmocka_unit_test(test_what_is_no_key_is_refused_at_once),
        cmocka_unit_test(test_an_error_and_an_answer_without_sense_reach_every_get),
        cmocka_unit_test(test_gets_without_an_answer_end_in_time),
        cmocka_unit_test(test_gets_are_told_when_their_client_is_closed),
        cmocka_unit_test(test_gets_outlive_a_restart_of_the_node),
        cmocka_unit_test(test_a_watch_tells_each_change_once),
        cmocka_unit_test(test_a_watch_goes_on_from_its_position),
        cmocka_unit_test(test_a_watch_from_now_begins_behind_what_there_is),
        cmocka_unit_test(test_what_is_missing_is_told_once_and_passed_over),
        cmocka_unit_test(test_a_watch_that_is_refused_says_why),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
