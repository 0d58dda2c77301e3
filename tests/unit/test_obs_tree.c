/* What is told of the tree of services when it is looked at again and again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "config.h"
#include "obs_tree.h"

/* A line for each event: its kind and text. */
static struct buf told;

static void on_event(void *arg, const struct obs_event *event)
{
    (void)arg;
    buf_printf(&told, "%.*s: %.*s\n", (int)event->kind.len, (const char *)event->kind.data,
               (int)event->text.len, (const char *)event->text.data);
}

static void expect_told(const char *text)
{
    assert_string_equal(buf_cstr(&told), text);
    told.len = 0;
}

struct service {
    const char *name, *state;
    int pid, restarts;
};

static void pack_service(msgpack_packer *pk, const struct service *s)
{
    msgpack_pack_map(pk, 6);
    mp_pack_cstr(pk, "name");
    mp_pack_cstr(pk, s->name);
    mp_pack_cstr(pk, "kind");
    mp_pack_cstr(pk, s->state != NULL ? "service" : "supervisor");
    mp_pack_cstr(pk, "depth");
    msgpack_pack_int(pk, s->state != NULL);
    mp_pack_cstr(pk, "state");
    mp_pack_cstr(pk, s->state != NULL ? s->state : "running");
    mp_pack_cstr(pk, "pid");
    msgpack_pack_int(pk, s->pid);
    mp_pack_cstr(pk, "restarts");
    msgpack_pack_int(pk, s->restarts);
}

/* What differs, and is taken. */
static bool take(struct obs_tree *tree, const struct service *services, size_t count)
{
    static const struct service root = {"root", NULL, 1, 0};
    struct buf rows = {0};
    msgpack_packer pk;
    mp_packer(&pk, &rows);
    msgpack_pack_array(&pk, count + 1);
    pack_service(&pk, &root);
    for (size_t i = 0; i < count; i++)
        pack_service(&pk, &services[i]);
    bool differs = obs_tree_differs(tree, buf_slice(&rows));
    assert_true(obs_tree_take(tree, buf_slice(&rows), 1000));
    buf_free(&rows);
    return differs;
}

static void take_deaths(struct obs_tree *tree, const int *times_ms, size_t count, int64_t since_ms)
{
    struct buf rows = {0};
    msgpack_packer pk;
    mp_packer(&pk, &rows);
    msgpack_pack_array(&pk, count);
    for (size_t i = 0; i < count; i++) {
        msgpack_pack_map(&pk, 4);
        mp_pack_cstr(&pk, "service");
        mp_pack_cstr(&pk, "walsvc");
        mp_pack_cstr(&pk, "cause");
        mp_pack_cstr(&pk, times_ms[i] % 2 == 0 ? "hung" : "exit 1");
        mp_pack_cstr(&pk, "time_ms");
        msgpack_pack_int(&pk, times_ms[i]);
        mp_pack_cstr(&pk, "pid");
        msgpack_pack_int(&pk, times_ms[i] / 10);
    }
    assert_true(obs_tree_take_obituaries(tree, buf_slice(&rows), since_ms));
    buf_free(&rows);
}

static void test_the_first_look_tells_nothing(void **state)
{
    const struct service services[] = {{"a", "running", 7, 0}, {"b", "failed", 0, 3}};
    struct obs_tree *tree = obs_tree_open(on_event, NULL);
    (void)state;
    assert_true(take(tree, services, 2));
    assert_false(take(tree, services, 2));
    expect_told("");
    obs_tree_close(tree);
}

static void test_changes_are_told(void **state)
{
    struct service services[] = {{"a", "running", 7, 0}, {"b", "starting", 8, 0}};
    struct obs_tree *tree = obs_tree_open(on_event, NULL);
    (void)state;
    take(tree, services, 2);
    services[0].pid = 9; /* restarted between two looks */
    services[0].restarts = 1;
    services[1].state = "running";
    assert_true(take(tree, services, 2));
    expect_told("service_running: a runs\nservice_running: b runs\n");
    services[0].state = "backoff";
    services[1].state = "stopping";
    assert_true(take(tree, services, 2));
    expect_told("service_backoff: a waits to be started again\n");
    services[0].state = "failed";
    services[1].state = "stopped";
    assert_true(take(tree, services, 2));
    expect_told("service_failed: a has failed, and is not started again\nservice_stopped: b was stopped\n");
    obs_tree_close(tree);
}

static void test_each_death_is_told_once_and_in_order(void **state)
{
    struct obs_tree *tree = obs_tree_open(on_event, NULL);
    (void)state;
    take_deaths(tree, (const int[]){300, 201, 100}, 3, 150);
    expect_told("service_died: walsvc died: exit 1\nservice_died: walsvc died: hung\n");
    take_deaths(tree, (const int[]){300, 201, 100}, 3, 0);
    expect_told("");
    take_deaths(tree, (const int[]){500, 401, 300}, 3, 0);
    expect_told("service_died: walsvc died: exit 1\nservice_died: walsvc died: hung\n");
    take_deaths(tree, (const int[]){901, 801}, 2, 0); /* the last one is not kept any more */
    expect_told("service_died: walsvc died: exit 1\nservice_died: walsvc died: exit 1\n");
    obs_tree_close(tree);
}

static void test_the_first_death_of_all_is_told(void **state)
{
    struct obs_tree *tree = obs_tree_open(on_event, NULL);
    (void)state;
    take_deaths(tree, NULL, 0, 0);
    take_deaths(tree, (const int[]){100}, 1, 500);
    expect_told("service_died: walsvc died: hung\n");
    obs_tree_close(tree);
}

static void test_deaths_are_counted_by_cause(void **state)
{
    struct obs_tree *tree = obs_tree_open(on_event, NULL);
    const struct service service = {"walsvc", "running", 7, 4};
    struct buf packed = {0};
    struct mp m;
    uint32_t parts, labels, found = 0;
    struct slice name, text[2];
    int64_t value;
    msgpack_packer pk;
    (void)state;
    take_deaths(tree, (const int[]){301, 203, 100}, 3, 0);
    mp_packer(&pk, &packed);
    assert_int_equal(obs_tree_gather(tree, &pk), 0); /* the tree is not known */
    take(tree, &service, 1);
    uint32_t count = obs_tree_gather(tree, &pk);
    m = mp_of(buf_slice(&packed));
    for (uint32_t i = 0; i < count; i++) {
        assert_true(mp_array(&m, &parts) && mp_str(&m, &name) && mp_array(&m, &labels));
        for (uint32_t l = 0; l < labels; l++)
            assert_true(mp_str(&m, &text[l]));
        assert_true(mp_int(&m, &value));
        if (slice_is(name, "shanghai_service_deaths_total")) {
            assert_int_equal(value, slice_is(text[1], "exit 1") ? 2 : 1);
            found++;
        }
    }
    assert_true(mp_at_end(&m));
    assert_int_equal(found, 2);
    buf_free(&packed);
    obs_tree_close(tree);
    told.len = 0;
}

static void test_nonsense_is_refused(void **state)
{
    uint8_t many[3 + CONFIG_TREE_MAX + 1]; /* rows */
    struct obs_tree *tree = obs_tree_open(on_event, NULL);
    (void)state;
    assert_false(obs_tree_take(tree, slice_of("\x91", 1), 0));
    assert_false(obs_tree_take(tree, slice_of("\x07", 1), 0));
    assert_true(obs_tree_take(tree, slice_of("\x91\x07", 2), 0)); /* a row without a name */
    memset(many, 7, sizeof many);
    memcpy(many, "\xdc\x00\x41", 3);
    assert_false(obs_tree_take(tree, slice_of(many, sizeof many), 0));
    assert_false(obs_tree_take_obituaries(tree, slice_of("\x07", 1), 0));
    assert_false(obs_tree_take_obituaries(tree, (struct slice){0}, 0));
    obs_tree_close(tree);
}

static int free_told(void **state)
{
    (void)state;
    buf_free(&told);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_look_tells_nothing),
        cmocka_unit_test(test_changes_are_told),
        cmocka_unit_test(test_each_death_is_told_once_and_in_order),
        cmocka_unit_test(test_the_first_death_of_all_is_told),
        cmocka_unit_test(test_deaths_are_counted_by_cause),
        cmocka_unit_test(test_nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, free_told);
}
