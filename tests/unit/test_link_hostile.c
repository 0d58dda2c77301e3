/* What no client of ours sends to the daemon's end of a link: each gets a named error, or is dropped and
 * counted. */
#include "link_ends.h"

#include <stdatomic.h>

#include <nng/nng.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/req.h>

#include "log.h"

struct raw {
    nng_socket push, req;
    struct id16 session;
};

static void open_raw(struct raw *raw, struct ends *ends)
{
    char in[LINK_ENDPOINT_MAX], out[LINK_ENDPOINT_MAX];
    assert_int_equal(link_endpoint_urls(ends->endpoint, in, out), SH_OK);
    raw->session = id16_random();
    assert_int_equal(nng_push0_open(&raw->push), 0);
    assert_int_equal(nng_req0_open(&raw->req), 0);
    assert_int_equal(nng_dial(raw->push, in, NULL, 0), 0);
    assert_int_equal(nng_dial(raw->req, out, NULL, 0), 0);
    nng_socket_set_ms(raw->req, NNG_OPT_RECVTIMEO, 10);
}

static void close_raw(struct raw *raw)
{
    nng_close(raw->push);
    nng_close(raw->req);
}

static void on_reply(void *arg)
{
    atomic_store((atomic_bool *)arg, true);
}

/* Whatever comes back for these bytes as a poll; the code of an error, or SH_OK. One receive, never
 * cancelled: nng 1.5.2 may lose the reply of a receive that is cancelled while the request is being sent. */
static enum sh_error ask(struct ends *ends, struct raw *raw, struct slice bytes)
{
    nng_aio *aio;
    atomic_bool done = false;
    struct msg_envelope e;
    struct msg_error error;
    assert_int_equal(nng_aio_alloc(&aio, on_reply, &done), 0);
    nng_aio_set_timeout(aio, 10000);
    assert_int_equal(nng_send(raw->req, (void *)bytes.data, bytes.len, 0), 0);
    nng_recv_aio(raw->req, aio);
    while (!atomic_load(&done))
        loop_step(ends->loop, 1);
    nng_aio_wait(aio);
    assert_int_equal(nng_aio_result(aio), 0);
    nng_msg *message = nng_aio_get_msg(aio);
    assert_int_equal(msg_open(slice_of(nng_msg_body(message), nng_msg_len(message)), &e), SH_OK);
    enum sh_error code = SH_OK;
    if (e.type == MSG_error) {
        assert_int_equal(msg_decode(MSG_error, e.body, &error), SH_OK);
        code = (enum sh_error)error.code;
    } else {
        assert_int_equal(e.type, MSG_poll_reply);
    }
    nng_msg_free(message);
    nng_aio_free(aio);
    return code;
}

static struct slice pack(struct buf *b, const struct msg_envelope *e, uint32_t type, const void *body)
{
    b->len = 0;
    msg_pack_envelope(b, e);
    msg_encode(type, body, b);
    return buf_slice(b);
}

static const struct slice own_cluster = {(const uint8_t *)"12345678", 8},
                          other_cluster = {(const uint8_t *)"87654321", 8};

static void test_bad_polls_get_a_named_error(void **state)
{
    (void)state;
    struct ends ends;
    struct raw raw;
    struct buf b = {0};
    struct msg_poll poll = {0};
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, own_cluster);
    open_raw(&raw, &ends);
    struct msg_envelope e = {.type = MSG_poll, .session = raw.session, .cluster = own_cluster};
    assert_int_equal(ask(&ends, &raw, pack(&b, &e, MSG_poll, &poll)), SH_OK);
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(ask(&ends, &raw, slice_of(b.data, len)), SH_BAD_REQUEST);
    b.data[1] = 2; /* the version, packed as a small integer */
    assert_int_equal(ask(&ends, &raw, buf_slice(&b)), SH_VERSION_MISMATCH);
    e.cluster = other_cluster;
    assert_int_equal(ask(&ends, &raw, pack(&b, &e, MSG_poll, &poll)), SH_BAD_REQUEST);
    e.cluster = own_cluster;
    e.session = (struct id16){0};
    assert_int_equal(ask(&ends, &raw, pack(&b, &e, MSG_poll, &poll)), SH_BAD_REQUEST);
    e.session = raw.session;
    assert_int_equal(ask(&ends, &raw, pack(&b, &e, MSG_echo, &(struct msg_echo){0})), SH_BAD_REQUEST);
    for (int i = 0; i < 200; i++) {
        uint8_t noise[64];
        random_bytes(noise, sizeof noise);
        assert_int_not_equal(ask(&ends, &raw, slice_of(noise, sizeof noise)), SH_OK);
    }
    e.type = MSG_poll;
    assert_int_equal(ask(&ends, &raw, pack(&b, &e, MSG_poll, &poll)), SH_OK);
    assert_true(link_server_stats(ends.server).refused_messages > 200);
    buf_free(&b);
    close_raw(&raw);
    close_ends(&ends);
}

static void push(struct raw *raw, struct slice bytes)
{
    assert_int_equal(nng_send(raw->push, (void *)bytes.data, bytes.len, 0), 0);
}

static void test_bad_requests_are_dropped_and_counted(void **state)
{
    (void)state;
    struct ends ends;
    struct raw raw;
    struct caller caller;
    struct buf b = {0};
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, own_cluster);
    open_raw(&raw, &ends);
    open_caller(&caller, &ends, no_rest);
    struct msg_envelope e = {.type = MSG_status, .session = raw.session, .number = 1};
    pack(&b, &e, MSG_status, &(struct msg_status){0});
    unsigned sent = 0;
    for (size_t len = 1; len < b.len; len++, sent++)
        push(&raw, slice_of(b.data, len));
    b.data[1] = 2;
    push(&raw, buf_slice(&b));
    e.number = 0;
    push(&raw, pack(&b, &e, MSG_status, &(struct msg_status){0}));
    e = (struct msg_envelope){.type = MSG_poll, .session = raw.session, .number = 1};
    push(&raw, pack(&b, &e, MSG_poll, &(struct msg_poll){0}));
    sent += 3;
    for (int i = 0; i < 200; i++, sent++) {
        uint8_t noise[300];
        random_bytes(noise, sizeof noise);
        push(&raw, slice_of(noise, sizeof noise));
    }
    WAIT_UNTIL(&ends, link_server_stats(ends.server).refused_messages == sent);
    assert_int_equal(ends.held_count, 0);
    send_bytes(&caller, MSG_echo, 10);
    WAIT_UNTIL(&ends, caller.answered == 1);
    buf_free(&b);
    link_client_close(caller.client);
    close_raw(&raw);
    close_ends(&ends);
}

static void test_a_session_beyond_its_credit_is_told_so(void **state)
{
    (void)state;
    struct ends ends;
    struct raw raw;
    struct buf b = {0};
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, no_rest);
    open_raw(&raw, &ends);
    for (uint64_t i = 1; i <= 100; i++) {
        struct msg_envelope e = {.type = MSG_status, .session = raw.session, .number = i, .previous = i - 1};
        push(&raw, pack(&b, &e, MSG_status, &(struct msg_status){0}));
    }
    WAIT_UNTIL(&ends, link_server_stats(ends.server).answers == 100 - 2 * limits.session_requests);
    assert_int_equal(ends.held_count, 2 * limits.session_requests);
    buf_free(&b);
    close_raw(&raw);
    close_ends(&ends);
}

static void test_an_oversized_message_ends_only_its_connection(void **state)
{
    (void)state;
    struct ends ends;
    struct raw raw;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    static const uint8_t zeros[5 << 20];
    open_ends(&ends, &limits, no_rest);
    open_raw(&raw, &ends);
    open_caller(&caller, &ends, no_rest);
    push(&raw, slice_of(zeros, sizeof zeros));
    for (unsigned i = 1; i <= 50; i++) {
        send_bytes(&caller, MSG_echo, 1000);
        WAIT_UNTIL(&ends, caller.answered == i);
    }
    assert_int_equal(link_server_stats(ends.server).refused_messages, 0);
    link_client_close(caller.client);
    close_raw(&raw);
    close_ends(&ends);
}

/* Connections are counted by nng's events: each must be counted off again, those too that were turned away.
 */
static void test_a_request_of_another_cluster_is_refused(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, own_cluster);
    open_caller(&caller, &ends, own_cluster);
    WAIT_UNTIL(&ends, caller.ups == 1);
    link_client_set_cluster(caller.client, other_cluster);
    send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.codes[0], SH_BAD_REQUEST);
    assert_int_equal(ends.held_count, 0);
    link_client_close(caller.client);
    close_ends(&ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_polls_get_a_named_error),
        cmocka_unit_test(test_bad_requests_are_dropped_and_counted),
        cmocka_unit_test(test_a_session_beyond_its_credit_is_told_so),
        cmocka_unit_test(test_an_oversized_message_ends_only_its_connection),
        cmocka_unit_test(test_a_request_of_another_cluster_is_refused),
    };
    log_setup("test_link_hostile", "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
