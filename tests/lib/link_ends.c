/* Both ends of a link on one loop, for tests. */
#include "link_ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct slice no_rest = {0};

static void on_request(void *arg, const struct link_request *request)
{
    struct ends *ends = arg;
    assert_true(ends->held_count < HELD_MAX);
    ends->held[ends->held_count++] = *request;
}

static void on_drop(void *arg, uint64_t session)
{
    struct ends *ends = arg;
    ends->drops++;
    unsigned kept = 0;
    for (unsigned i = 0; i < ends->held_count; i++)
        if (ends->held[i].token.session != session)
            ends->held[kept++] = ends->held[i];
    ends->held_count = kept;
}

struct link_server_limits small_limits(void)
{
    struct link_server_limits limits = link_server_default_limits();
    limits.session_requests = 16;
    limits.session_bytes = 1 << 20;
    limits.total_bytes = 8 << 20;
    limits.sessions = 8;
    limits.polls = 8;
    limits.message_bytes = 4 << 20;
    return limits;
}

void open_server(struct ends *ends, const struct link_server_limits *limits, struct slice cluster)
{
    struct link_server_options options = {
        .loop = ends->loop,
        .limits = *limits,
        .cluster = cluster,
        .node = slice_str("n1"),
        .boot = id16_random(),
        .on_request = on_request,
        .on_drop = on_drop,
        .arg = ends,
    };
    ends->server = link_server_open(&options);
    assert_int_equal(link_server_listen(ends->server, ends->endpoint), SH_OK);
}

void open_ends(struct ends *ends, const struct link_server_limits *limits, struct slice cluster)
{
    *ends = (struct ends){.loop = loop_open(), .dir = "/tmp/shXXXXXX"};
    assert_non_null(mkdtemp(ends->dir));
    snprintf(ends->endpoint, sizeof ends->endpoint, "ipc://%s/link", ends->dir);
    open_server(ends, limits, cluster);
}

void close_ends(struct ends *ends)
{
    link_server_close(ends->server);
    loop_close(ends->loop);
    assert_int_equal(rmdir(ends->dir), 0); /* the sockets are gone */
}

static void on_answer(void *arg, uint64_t number, uint32_t type, struct slice body)
{
    struct caller *caller = arg;
    struct msg_error error = {0};
    assert_true(caller->answered < ANSWERS_MAX);
    if (type == MSG_error)
        assert_int_equal(msg_decode(MSG_error, body, &error), SH_OK);
    caller->codes[caller->answered] = (uint32_t)error.code;
    caller->types[caller->answered] = type;
    caller->numbers[caller->answered++] = number;
}

static void on_state(void *arg, bool connected)
{
    struct caller *caller = arg;
    caller->ups += connected;
    caller->downs += !connected;
    assert_int_equal(link_client_is_connected(caller->client), connected);
}

void open_caller(struct caller *caller, struct ends *ends, struct slice cluster)
{
    *caller = (struct caller){.ends = ends};
    struct link_client_options options = {
        .loop = ends->loop,
        .endpoint = ends->endpoint,
        .message_bytes = 4 << 20,
        .queue_bytes = 16 << 20,
        .cluster = cluster,
        .on_answer = on_answer,
        .on_state = on_state,
        .arg = caller,
    };
    assert_int_equal(link_client_open(&options, &caller->client), SH_OK);
}

uint64_t send_bytes(struct caller *caller, uint32_t type, size_t size)
{
    static const uint8_t zeros[4 << 20];
    struct buf body = {0};
    uint64_t number;
    msg_encode(MSG_echo, &(struct msg_echo){.payload = slice_of(zeros, size)}, &body);
    assert_int_equal(link_client_send(caller->client, type, 7, buf_slice(&body), no_rest, &number), SH_OK);
    buf_free(&body);
    return number;
}

void answer_held(struct ends *ends, unsigned index, size_t size)
{
    struct buf body = {0};
    uint8_t *zeros = xcalloc(size, 1);
    msg_encode(MSG_echo, &(struct msg_echo){.payload = slice_of(zeros, size)}, &body);
    link_server_answer(ends->server, ends->held[index].token, MSG_echo, buf_slice(&body));
    buf_free(&body);
    free(zeros);
}
