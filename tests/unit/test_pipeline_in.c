/* The receiving end of pipelines: whole messages in order, whatever strangers send beside them, and no more
 * of them in memory than was said. */
#include "wire_pull.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nng_start.h"
#include "pipeline.h"

enum { MESSAGE_BYTES = 64 << 10, WAITING_BYTES = 256 << 10, STRANGERS = 50, CROWD = 200 };

struct rig {
    struct loop *loop;
    struct pipeline_in *in;
    uint16_t port;
    uint64_t next; /* number that is expected */
    unsigned others;
};

static void on_message(void *arg, struct slice message)
{
    struct rig *rig = arg;
    uint64_t number = 0;
    assert_true(message.len <= MESSAGE_BYTES);
    if (message.len >= sizeof number)
        memcpy(&number, message.data, sizeof number);
    if (number == rig->next)
        rig->next++;
    else
        rig->others++;
}

/* A port that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void open_rig(struct rig *rig)
{
    enum sh_error error = SH_UNAVAILABLE;
    *rig = (struct rig){.loop = loop_open(), .next = 1};
    for (unsigned i = 0; i < 100 && error == SH_UNAVAILABLE;
         i++) { /* somebody else may have taken the port */
        rig->port = free_port();
        const struct pipeline_in_options options = {
            .loop = rig->loop,
            .host = "127.0.0.1",
            .port = rig->port,
            .message_bytes = MESSAGE_BYTES,
            .waiting_bytes = WAITING_BYTES,
            .on_message = on_message,
            .arg = rig,
        };
        error = pipeline_in_open(&options, &rig->in);
    }
    assert_int_equal(error, SH_OK);
}

static void close_rig(struct rig *rig)
{
    pipeline_in_close(rig->in);
    loop_close(rig->loop);
}

static bool push(int fd, uint64_t number, size_t len)
{
    static uint8_t bytes[2 * MESSAGE_BYTES];
    memcpy(bytes, &number, sizeof number);
    return wire_push(fd, bytes, len);
}

static void expect_more(struct rig *rig, int fd)
{
    uint64_t number = rig->next;
    assert_true(push(fd, number, 100));
    WIRE_WAIT(rig->loop, rig->next == number + 1);
}

static void test_whole_messages_arrive_in_order(void **state)
{
    struct rig rig;
    (void)state;
    open_rig(&rig);
    int fd = wire_push_connect(rig.port);
    for (uint64_t i = 1; i <= 500; i++)
        assert_true(push(fd, i, 8 + i));
    assert_true(push(fd, 501, MESSAGE_BYTES));
    WIRE_WAIT(rig.loop, rig.next == 502);
    assert_int_equal(rig.others, 0);
    close(fd);
    close_rig(&rig);
}

static void test_a_message_that_is_too_large_ends_its_own_connection_only(void **state)
{
    struct rig rig;
    uint8_t byte;
    (void)state;
    open_rig(&rig);
    int good = wire_push_connect(rig.port), bad = wire_push_connect(rig.port);
    expect_more(&rig, good);
    push(bad, 1, MESSAGE_BYTES + 1);
    assert_true(recv(bad, &byte, 1, 0) <= 0); /* closed there */
    expect_more(&rig, good);
    assert_int_equal(rig.others, 0);
    close(good);
    close(bad);
    close_rig(&rig);
}

static int connect_silently(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void test_strangers_disturb_nobody(void **state)
{
    static const uint8_t huge[] = {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct rig rig;
    int strangers[STRANGERS];
    (void)state;
    open_rig(&rig);
    int good = wire_push_connect(rig.port);
    for (unsigned i = 0; i < STRANGERS; i++) {
        uint8_t noise[64];
        random_bytes(noise, sizeof noise);
        strangers[i] = i % 4 == 0 ? wire_push_connect(rig.port) : connect_silently(rig.port);
        if (i % 4 == 0)
            send(strangers[i], huge, sizeof huge, MSG_NOSIGNAL); /* a length; no more comes */
        else if (i % 4 == 1)
            send(strangers[i], noise, sizeof noise, MSG_NOSIGNAL);
        else if (i % 4 == 2) {
            close(strangers[i]); /* as who only looks whether somebody listens */
            strangers[i] = -1;
        }
        expect_more(&rig, good);
    }
    for (unsigned i = 0; i < STRANGERS; i++)
        if (strangers[i] >= 0)
            close(strangers[i]);
    int late = wire_push_connect(rig.port);
    expect_more(&rig, late);
    expect_more(&rig, good);
    close(good);
    close(late);
    close_rig(&rig);
}

static void test_a_crowd_is_served(void **state)
{
    struct rig rig;
    int fds[CROWD];
    (void)state;
    open_rig(&rig);
    for (unsigned i = 0; i < CROWD; i++) {
        fds[i] = wire_push_connect(rig.port);
        expect_more(&rig, fds[i]);
    }
    for (unsigned i = 0; i < CROWD; i++)
        close(fds[i]);
    int late = wire_push_connect(rig.port);
    expect_more(&rig, late);
    close(late);
    close_rig(&rig);
}

/* As much as goes without waiting. */
static size_t send_what_goes(int fd, const uint8_t *bytes, size_t len)
{
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

/* The loop's thread has its turn all the time here and takes nothing, so that mail piles up. */
static void test_while_the_loop_is_behind_nothing_more_is_received(void **state)
{
    enum { LEN = 32 << 10, FRAME = 8 + LEN, SMALL_BUFFER = 64 << 10 };
    struct rig rig;
    int small = SMALL_BUFFER;
    (void)state;
    open_rig(&rig);
    int fd = wire_push_connect(rig.port);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    uint8_t frame[FRAME] = {0};
    size_t sent = 0, most = 64u << 20;
    int64_t stuck_ns = clock_mono_ns();
    /* Stuck: nothing goes for a while. What the kernel keeps is not known, that it is far from 64 MiB is. */
    while (sent < most && clock_mono_ns() - stuck_ns < NS_PER_S) {
        uint64_t number = sent / FRAME + 1;
        size_t at = sent % FRAME;
        frame[6] = LEN >> 8;
        memcpy(frame + 8, &number, sizeof number);
        size_t n = send_what_goes(fd, frame + at, FRAME - at);
        sent += n;
        if (n > 0)
            stuck_ns = clock_mono_ns();
    }
    assert_true(sent < most / 2);
    assert_int_equal(rig.next, 1);
    for (uint64_t whole = sent / FRAME; rig.next <= whole;)
        WIRE_WAIT(rig.loop, rig.next > whole);
    assert_int_equal(rig.others, 0);
    size_t rest = FRAME - sent % FRAME;
    if (rest < FRAME)
        assert_int_equal(send(fd, frame + sent % FRAME, rest, MSG_NOSIGNAL), rest);
    WIRE_WAIT(rig.loop, rig.next == (sent + FRAME - 1) / FRAME + 1);
    expect_more(&rig, fd);
    close(fd);
    close_rig(&rig);
}

static void test_a_port_in_use_is_told(void **state)
{
    struct rig rig;
    struct pipeline_in *second;
    (void)state;
    open_rig(&rig);
    const struct pipeline_in_options options = {.loop = rig.loop,
                                                .host = "127.0.0.1",
                                                .port = rig.port,
                                                .message_bytes = 1,
                                                .on_message = on_message};
    assert_int_equal(pipeline_in_open(&options, &second), SH_UNAVAILABLE);
    close_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_messages_arrive_in_order),
        cmocka_unit_test(test_a_message_that_is_too_large_ends_its_own_connection_only),
        cmocka_unit_test(test_strangers_disturb_nobody),
        cmocka_unit_test(test_a_crowd_is_served),
        cmocka_unit_test(test_while_the_loop_is_behind_nothing_more_is_received),
        cmocka_unit_test(test_a_port_in_use_is_told),
    };
    nng_start();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
