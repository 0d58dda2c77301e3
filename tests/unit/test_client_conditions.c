/* libshanghai: appends with conditions and under a session, and the names of requests whose outcome is
 * unknown.
 */
#include "client_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_MS = 5000 }; /* for what gets no answer; what gets one has time enough on a busy machine */

static const struct sh_condition two_conditions[] = {
    {.kind = SH_IF_KEY, .name = "k", .name_bytes = 1},
    {.kind = SH_IF_STREAM, .name = "s", .name_bytes = 1, .at = {.log = {1}, .lsn = 7}},
};

static enum sh_error append_if(struct sh_client *c, struct sh_conflict *conflict,
                               struct sh_append_result *result)
{
    const struct sh_entry entries[] = {client_entry("x"), client_entry("y")};
    const struct sh_append_options o = {
        .conditions = two_conditions, .condition_count = 2, .conflict = conflict};
    return sh_append_with(c, entries, 2, SH_ACK_LOCAL, &o, result);
}

static bool asks(struct sh_client *c, const struct node *n)
{
    struct sh_log_info info;
    assert_int_equal(sh_log_info(c, NULL, &info), SH_OK);
    bool does = memcmp(info.log, n->log.bytes, sizeof info.log) == 0;
    sh_log_info_free(&info);
    return does;
}

/* It asks the first of them. */
static void open_all(struct node *const *nodes, size_t count, uint32_t timeout_ms, uint32_t in_flight,
                     struct sh_client **c)
{
    const char *endpoints[2];
    for (size_t i = 0; i < count; i++)
        endpoints[i] = nodes[i]->query;
    struct sh_options o = client_options(endpoints, count);
    o.timeout_ms = timeout_ms;
    o.in_flight = in_flight;
    assert_int_equal(sh_open(&o, c), SH_OK);
    while (count > 1 && !asks(*c, nodes[0])) { /* it took more than a second to start */
        sh_close(*c);
        assert_int_equal(sh_open(&o, c), SH_OK);
    }
}

/* ---------------------------------------------------------------- conditions */

static void test_what_holds_is_appended_and_what_does_not_is_told(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_conflict conflict;
    struct sh_append_result result;
    struct sh_append_id id;
    assert_int_equal(append_if(c, &conflict, &result), SH_OK);
    assert_int_equal(result.first_lsn, 1);
    assert_int_equal(result.count, 2);
    NODE_SET(n, n->current_lsn = 9);
    assert_int_equal(append_if(c, &conflict, &result), SH_CONFLICT);
    assert_int_equal(conflict.condition, 1);
    assert_int_equal(conflict.current.lsn, 9);
    assert_int_equal(conflict.current.hlc, 9 << 16);
    assert_memory_equal(conflict.current.log, n->log.bytes, sizeof conflict.current.log);
    assert_int_equal(append_if(c, NULL, NULL), SH_CONFLICT);
    assert_false(sh_last_append(&id)); /* it is known: nothing was appended */
    NODE_SET(n, n->current_lsn = 0);
    assert_int_equal(append_if(c, &conflict, &result), SH_OK);
    assert_int_equal(result.first_lsn, 3);
    assert_int_equal(n->frame_count, 2);
    assert_memory_equal(n->frames[0].producer.bytes, n->frames[1].producer.bytes, 16); /* the same goes on */
    sh_close(c);
    node_stop(n);
}

static void test_conditions_that_are_none_are_refused(void **state)
{
    (void)state;
    static char long_name[4097];
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_entry entry = client_entry("x");
    struct sh_condition *many = calloc(257, sizeof *many);
    const struct {
        struct sh_condition condition;
        enum sh_error error;
    } bad[] = {
        {{.kind = SH_IF_KEY, .name = ""}, SH_BAD_REQUEST},
        {{.kind = SH_IF_KEY, .name = long_name, .name_bytes = sizeof long_name}, SH_TOO_LARGE},
        {{.kind = SH_IF_STREAM, .name = long_name, .name_bytes = 256}, SH_TOO_LARGE},
        {{.kind = SH_IF_STREAM, .name = "\xff", .name_bytes = 1}, SH_BAD_REQUEST},
        {{.kind = (enum sh_condition_kind)2, .name = "k", .name_bytes = 1}, SH_BAD_REQUEST},
    };
    memset(long_name, 'k', sizeof long_name);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct sh_append_options o = {.conditions = &bad[i].condition, .condition_count = 1};
        assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, NULL), bad[i].error);
    }
    const struct sh_append_options o = {.conditions = many, .condition_count = 257};
    assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, NULL), SH_TOO_LARGE);
    assert_int_equal(append_if(c, NULL, NULL), SH_OK);
    assert_int_equal(n->appends, 1);
    free(many);
    sh_close(c);
    node_stop(n);
}

struct caller {
    struct sh_client *client;
    enum sh_error error;
    struct sh_append_result result;
};

static void *call(void *arg)
{
    struct caller *caller = arg;
    caller->error = append_if(caller->client, NULL, &caller->result);
    return NULL;
}

/* It is killed after it has taken it, before it has answered. */
static void test_one_that_is_sent_again_gets_the_first_answer(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct caller caller = {.client = client_open(n)};
    pthread_t thread;
    assert_int_equal(append_if(caller.client, NULL, NULL), SH_OK);
    NODE_SET(n, n->hold = true);
    assert_int_equal(pthread_create(&thread, NULL, call, &caller), 0);
    NODE_WAIT(n, n->held_count == 1);
    NODE_SET(n, (n->hold = false, n->current_lsn = 3)); /* what it depended on is its own work by now */
    node_kill(n);
    node_restart(n);
    pthread_join(thread, NULL);
    assert_int_equal(caller.error, SH_OK);
    assert_int_equal(caller.result.first_lsn, 3);
    assert_int_equal(n->frame_count, 2);
    sh_close(caller.client);
    node_stop(n);
}

static void test_what_may_have_landed_never_goes_to_another_node(void **state)
{
    (void)state;
    struct node *const nodes[] = {node_start(), node_start()};
    struct caller caller;
    struct sh_append_id id;
    struct sh_append_result result;
    pthread_t thread;
    open_all(nodes, 2, 10000, 4, &caller.client);
    NODE_SET(nodes[0], nodes[0]->hold = true);
    assert_int_equal(pthread_create(&thread, NULL, call, &caller), 0);
    NODE_WAIT(nodes[0], nodes[0]->held_count == 1);
    node_kill(nodes[0]);
    pthread_join(thread, NULL);
    assert_int_equal(caller.error, SH_TIMEOUT);
    assert_int_equal(nodes[1]->frame_count, 0);
    assert_int_equal(append_if(caller.client, NULL, &result), SH_OK); /* the next one does */
    assert_memory_equal(result.log, nodes[1]->log.bytes, sizeof result.log);
    assert_false(sh_last_append(&id));
    sh_close(caller.client);
    node_stop(nodes[0]);
    node_stop(nodes[1]);
}

static void test_a_producer_that_the_log_has_forgotten_begins_anew(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    assert_int_equal(append_if(c, NULL, NULL), SH_OK);
    assert_int_equal(append_if(c, NULL, NULL), SH_OK);
    NODE_SET(n, n->forget_producers = true);
    assert_int_equal(append_if(c, NULL, NULL), SH_OK);
    assert_int_equal(n->frame_count, 3);
    assert_int_equal(n->frames[2].epoch, 2);
    assert_int_equal(n->frames[2].sequence, 1);
    sh_close(c);
    node_stop(n);
}

/* ---------------------------------------------------------------- sessions */

static void test_what_a_session_writes_comes_after_what_it_saw(void **state)
{
    (void)state;
    const uint64_t seen = UINT64_C(1700000000000) << 16, later = seen + (UINT64_C(100) << 48);
    struct node *n = node_start();
    struct sh_client *c = client_open(n);
    struct sh_session *session = sh_session_new();
    struct sh_append_options o = {.session = session};
    const struct sh_append_result written = {.log = {9}, .first_lsn = 1, .count = 1, .hlc = seen};
    const struct sh_append_result again = {.log = {9}, .first_lsn = 1, .count = 1, .seen_hlc = later};
    struct sh_entry entry = client_entry("x");
    assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, NULL), SH_OK);
    sh_session_wrote(session, &written);
    assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, NULL), SH_OK);
    o.conditions = two_conditions;
    o.condition_count = 1;
    assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, NULL), SH_OK);
    sh_session_wrote(session, &again); /* the answer to a retry: its own HLC is not known */
    assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, NULL), SH_OK);
    assert_int_equal(client_append(c, "without", NULL), SH_OK);
    static const uint64_t zero = 0;
    const uint64_t expected[] = {zero, seen, seen, later, zero};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(n->frames[i].hlc, expected[i]);
    char *text = sh_session_text(session);
    assert_non_null(strstr(text, "hlc "));
    struct sh_session *copy = sh_session_new();
    assert_int_equal(sh_session_take(copy, text), SH_OK);
    char *same = sh_session_text(copy);
    assert_string_equal(same, text);
    free(same);
    free(text);
    sh_session_free(copy);
    sh_session_free(session);
    sh_close(c);
    node_stop(n);
}

/* The positions that the frame's first entry names, as "<first byte of the log>:<LSN> ..."; "": it names
 * none.
 */
static const char *after_of(const struct node *n, size_t frame)
{
    static char text[256];
    struct mp m = mp_of(slice_of(n->arena + n->frames[frame].at, n->frames[frame].len));
    uint32_t entries, parts, positions;
    uint64_t kind = 0, lsn;
    struct slice log;
    size_t len = 0;
    text[0] = 0;
    assert_true(mp_array(&m, &entries) && mp_array(&m, &parts) && mp_uint(&m, &kind));
    if (kind != 4)
        return text;
    assert_int_equal(parts, 2);
    assert_true(mp_array(&m, &positions));
    for (uint32_t i = 0; i < positions; i++) {
        assert_true(mp_array(&m, &parts) && parts == 2 && mp_bin(&m, &log) && log.len == 16 &&
                    mp_uint(&m, &lsn));
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%02x:%llu", i > 0 ? " " : "", log.data[0],
                                (unsigned long long)lsn);
    }
    return text;
}

static void write_one(struct sh_client *c, struct sh_session *session, bool on_condition,
                      struct sh_append_result *result)
{
    const struct sh_append_options o = {
        .session = session, .conditions = two_conditions, .condition_count = on_condition ? 1 : 0};
    const struct sh_entry entry = client_entry("x");
    assert_int_equal(sh_append_with(c, &entry, 1, SH_ACK_LOCAL, &o, result), SH_OK);
    assert_int_equal(result->count, 1);
}

static void saw(struct sh_session *session, uint8_t log, uint64_t lsn)
{
    sh_session_wrote(session, &(struct sh_append_result){.log = {log}, .first_lsn = lsn, .count = 1});
}

/* Once for each log that is written to, and again when it has seen more; on whatever way it goes. */
static void test_what_a_session_saw_elsewhere_is_named_before_its_entries(void **state)
{
    (void)state;
    struct node *const nodes[] = {node_start(), node_start()};
    struct node *a = nodes[0], *b = nodes[1];
    struct sh_session *session = sh_session_new();
    struct sh_append_result result;
    struct sh_client *c;
    char expected[64];
    open_all(nodes, 2, 30000, 4, &c);
    write_one(c, session, false, &result);
    assert_string_equal(after_of(a, 0), "");
    assert_int_equal(result.first_lsn, 1);
    saw(session, 0xee, 5);
    write_one(c, session, false, &result);
    assert_string_equal(after_of(a, 1), "ee:5");
    assert_int_equal(result.first_lsn, 3); /* the one before is at 2 */
    write_one(c, session, false, &result);
    assert_string_equal(after_of(a, 2), "");
    assert_int_equal(result.first_lsn, 4);
    saw(session, 0xdd, 1);
    write_one(c, session, true, &result);
    assert_string_equal(after_of(a, 3), "dd:1");
    assert_int_equal(result.first_lsn, 6);
    saw(session, 0xee, 7);
    write_one(c, session, true, &result);
    assert_string_equal(after_of(a, 4), "ee:7");
    assert_int_equal(result.first_lsn, 8);
    node_kill(a);
    while (!asks(c, b)) /* what is sent before it knows that a node is gone never goes to another one */
        continue;
    write_one(c, session, false, &result);
    snprintf(expected, sizeof expected, "%02x:8 ee:7 dd:1", a->log.bytes[0]);
    assert_string_equal(after_of(b, 0), expected);
    assert_int_equal(result.first_lsn, 2);
    write_one(c, session, true, &result);
    assert_string_equal(after_of(b, 1), "");
    assert_int_equal(client_append(c, "without", &result), SH_OK);
    assert_string_equal(after_of(b, 2), "");
    sh_session_free(session);
    sh_close(c);
    node_stop(a);
    node_stop(b);
}

/* ---------------------------------------------------------------- requests without an answer */

struct named {
    struct sh_append_id id;
    atomic_uint calls;
    bool is_named;
};

static void on_named(void *arg, enum sh_error error, const struct sh_append_result *result)
{
    struct named *named = arg;
    (void)result;
    assert_int_equal(error, SH_TIMEOUT);
    named->is_named = sh_last_append(&named->id);
    atomic_store(&named->calls, 1);
}

static void assert_landed(struct sh_client *c, const struct sh_append_id *id, uint64_t lsn)
{
    struct sh_producer_status status;
    assert_int_equal(sh_producer_status(c, id, &status), SH_OK);
    assert_int_equal(status.landed, SH_LANDED);
    assert_int_equal(status.first_lsn, lsn);
    assert_int_equal(status.count, 1);
}

static void test_a_request_without_an_answer_is_named(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c;
    struct sh_append_id id;
    struct sh_producer_status status;
    open_all(&n, 1, SHORT_MS, 4, &c);
    assert_int_equal(client_append(c, "1", NULL), SH_OK);
    assert_false(sh_last_append(&id));
    NODE_SET(n, n->hold = true);
    assert_int_equal(client_append(c, "2", NULL), SH_TIMEOUT);
    assert_true(sh_last_append(&id));
    assert_memory_equal(id.producer, n->frames[1].producer.bytes, sizeof id.producer);
    assert_int_equal(id.sequence, 2);
    assert_int_equal(id.epoch, 1);
    assert_landed(c, &id, 2);
    id.sequence++;
    assert_int_equal(sh_producer_status(c, &id, &status), SH_OK);
    assert_int_equal(status.landed, SH_NOT_LANDED);
    assert_int_equal(append_if(c, NULL, NULL), SH_TIMEOUT);
    assert_true(sh_last_append(&id));
    id.first++;
    id.count = 1; /* its second entry */
    assert_landed(c, &id, 4);
    id.count = 2;
    assert_int_equal(sh_producer_status(c, &id, &status), SH_INTERNAL);
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    sh_close(c);
    node_stop(n);
}

/* Which of its entries are whose is told too. */
static void test_callers_who_share_a_request_know_their_entries(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c;
    struct sh_options o;
    struct named named[2] = {0};
    const struct sh_entry entry = client_entry("x");
    const char *endpoints[] = {n->query};
    o = client_options(endpoints, 1);
    o.timeout_ms = 8000;
    o.linger_us = 3000000; /* until both are there, on a busy machine too */
    assert_int_equal(sh_open(&o, &c), SH_OK);
    NODE_SET(n, n->hold = true);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(sh_append_async(c, &entry, 1, SH_ACK_LOCAL, on_named, &named[i]), SH_OK);
    NODE_WAIT(n, atomic_load(&named[0].calls) == 1 && atomic_load(&named[1].calls) == 1);
    NODE_WAIT(n, n->frame_count > 0);
    assert_int_equal(n->frame_count, 1);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(named[i].is_named);
        assert_int_equal(named[i].id.first, i);
        assert_landed(c, &named[i].id, 1 + i);
    }
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    sh_close(c);
    node_stop(n);
}

static void test_what_was_never_sent_has_no_name_and_never_lands(void **state)
{
    (void)state;
    struct node *n = node_start();
    struct sh_client *c;
    struct sh_append_id id;
    open_all(&n, 1, SHORT_MS, 1, &c);
    NODE_SET(n, n->hold = true);
    assert_int_equal(client_append(c, "1", NULL), SH_TIMEOUT);
    assert_true(sh_last_append(&id));
    assert_int_equal(client_append(c, "2", NULL),
                     SH_TIMEOUT); /* one request at a time, and that one is out */
    assert_false(sh_last_append(&id));
    NODE_SET(n, n->hold = false);
    assert_int_equal(sh_flush(c), SH_OK);
    assert_int_equal(client_append(c, "3", NULL), SH_OK);
    assert_int_equal(n->frame_count, 2);
    sh_close(c);
    node_stop(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_holds_is_appended_and_what_does_not_is_told),
        cmocka_unit_test(test_conditions_that_are_none_are_refused),
        cmocka_unit_test(test_one_that_is_sent_again_gets_the_first_answer),
        cmocka_unit_test(test_what_may_have_landed_never_goes_to_another_node),
        cmocka_unit_test(test_a_producer_that_the_log_has_forgotten_begins_anew),
        cmocka_unit_test(test_what_a_session_writes_comes_after_what_it_saw),
        cmocka_unit_test(test_what_a_session_saw_elsewhere_is_named_before_its_entries),
        cmocka_unit_test(test_a_request_without_an_answer_is_named),
        cmocka_unit_test(test_callers_who_share_a_request_know_their_entries),
        cmocka_unit_test(test_what_was_never_sent_has_no_name_and_never_lands),
    };
    return cmocka_run_group_tests(tests, node_helper_start, NULL);
}
