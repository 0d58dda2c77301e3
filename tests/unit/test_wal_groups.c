/* Appends of keys and streams that belong to another replication group: refused, and nothing is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "wal_core.h"

enum { SEGMENT = 64 << 10 };

static struct wal_core *core;
static struct group_set groups; /* "a", the own one, and "b" */
static struct wal_durable durable;
static struct buf body;

/* What the last append has got. */
static enum sh_error code;
static uint64_t lsn;
static char text[GROUP_TEXT_MAX], group[GROUP_NAME_MAX + 1];

/* Durable with the next commit. */
static void on_write(void *arg, struct wal_frame *frame)
{
    (void)arg;
    durable.end += FRAME_HEADER_BYTES + frame->body.len;
    durable.lsn += frame->header.count;
    wal_frame_free(frame);
}

static void on_reply(void *arg, struct link_token token, const struct msg_append_reply *reply)
{
    (void)arg, (void)token;
    code = SH_OK;
    lsn = reply->lsn;
}

static void on_refuse(void *arg, struct link_token token, const struct msg_error *error)
{
    (void)arg, (void)token;
    code = (enum sh_error)error->code;
    snprintf(text, sizeof text, "%.*s", (int)error->text.len, (const char *)error->text.data);
    snprintf(group, sizeof group, "%.*s", (int)error->group.len, (const char *)error->group.data);
}

static int setup(void **state)
{
    (void)state;
    assert_true(group_set_decode(&groups, slice_str("\x92\xa1"
                                                    "a\xa1"
                                                    "b")));
    groups.self = 0;
    durable = (struct wal_durable){.end = SEGMENT_HEADER_BYTES};
    struct wal_core_options options = {
        .groups = &groups,
        .segment_size = SEGMENT,
        .queue_bytes = SEGMENT,
        .offset = SEGMENT_HEADER_BYTES,
        .limit = SEGMENT,
        .durable = durable,
        .actions = {.write = on_write, .reply = on_reply, .refuse = on_refuse},
    };
    wal_state_init(&options.state);
    core = wal_core_open(&options);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    wal_core_close(core);
    group_set_free(&groups);
    buf_free(&body);
    return 0;
}

/* An event of the empty stream, which belongs to no group, a put, and an event of the stream. */
static void append(uint64_t sequence, const char *key, const char *stream)
{
    const struct entry entries[] = {
        {.kind = ENTRY_EVENT, .stream = slice_str("")},
        {.kind = ENTRY_PUT, .key = slice_str(key)},
        {.kind = ENTRY_EVENT, .stream = slice_str(stream)},
    };
    msgpack_packer pk;
    body.len = 0;
    mp_packer(&pk, &body);
    msgpack_pack_array(&pk, 3);
    for (size_t i = 0; i < 3; i++)
        entry_pack(&pk, &entries[i]);
    const struct msg_append m = {
        .producer.bytes[0] = 1, .epoch = 1, .sequence = sequence, .entries = buf_slice(&body)};
    code = SH_INTERNAL;
    wal_core_append(core, (struct link_token){1, sequence}, &m, 0, 0);
    durable.commits++;
    wal_core_durable(core, &durable);
}

static void test_keys_of_another_group_are_refused_and_the_sequence_stays_free(void **state)
{
    (void)state;
    append(1, "x", "x");
    assert_int_equal(code, SH_OK);
    append(2, "user/1", "");
    assert_int_equal(code, SH_WRONG_GROUP);
    assert_string_equal(group, "b");
    assert_string_equal(text, "key `user/1` belongs to group `b`; nothing was appended");
    assert_int_equal(wal_core_stats(core).next_lsn, 4);
    append(2, "x", "x");
    assert_int_equal(code, SH_OK);
    assert_int_equal(lsn, 4);
}

static void test_a_frame_of_two_groups_is_refused(void **state)
{
    (void)state;
    append(1, "x", "orders");
    assert_int_equal(code, SH_BAD_REQUEST);
    assert_string_equal(text, "the keys belong to two groups: key `x` to `a`, stream `orders` to `b`");
    assert_string_equal(group, "");
    assert_int_equal(wal_core_stats(core).next_lsn, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_keys_of_another_group_are_refused_and_the_sequence_stays_free,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_frame_of_two_groups_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
