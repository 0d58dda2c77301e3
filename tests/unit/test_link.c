/* The two ends of a link together: requests, answers, credit, limits, and a server that goes and comes. */
#include "link_ends.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "link_conn.h"
#include "link_presence.h"
#include "log.h"

/* ---- endpoints ---- */

static void test_an_endpoint_names_two_sockets(void **state)
{
    (void)state;
    char in[LINK_ENDPOINT_MAX], out[LINK_ENDPOINT_MAX];
    assert_int_equal(link_endpoint_urls("ipc:///run/x/query", in, out), SH_OK);
    assert_string_equal(in, "ipc:///run/x/query.in");
    assert_string_equal(out, "ipc:///run/x/query.out");
    assert_int_equal(link_endpoint_urls("tcp://[::1]:4000", in, out), SH_OK);
    assert_string_equal(in, "tcp://[::1]:4000");
    assert_string_equal(out, "tcp://[::1]:4001");
}

static void test_bad_endpoints_are_refused(void **state)
{
    (void)state;
    char in[LINK_ENDPOINT_MAX], out[LINK_ENDPOINT_MAX], ipc[200];
    static const char *const bad[] = {"",           "ipc://",        "ipc://x",       "ipc:///",
                                      "tcp://",     "tcp://h",       "tcp://h:",      "tcp://:1",
                                      "tcp://h:0",  "tcp://h:65535", "tcp://h:70000", "tcp://h:1x",
                                      "tcp://h:-1", "tcp://h:+1",    "inproc://x",    "http://h:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(link_endpoint_urls(bad[i], in, out), SH_BAD_REQUEST);
    memset(ipc, 'x', sizeof ipc);
    memcpy(ipc, "ipc:///", 7);
    ipc[6 + 104] = 0; /* a path of 104 bytes and ".out": one too many */
    assert_int_equal(link_endpoint_urls(ipc, in, out), SH_BAD_REQUEST);
    ipc[6 + 103] = 0;
    assert_int_equal(link_endpoint_urls(ipc, in, out), SH_OK);
}

static void test_an_endpoint_that_nng_cannot_parse_opens_no_client(void **state)
{
    (void)state;
    struct ends ends = {.loop = loop_open()};
    static const char *const bad[] = {"tcp://[::1:4000", "tcp://[nonsense]x:4000"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct link_client *client;
        struct link_client_options options = {
            .loop = ends.loop, .endpoint = bad[i], .message_bytes = 1 << 20, .queue_bytes = 1 << 20};
        assert_int_equal(link_client_open(&options, &client), SH_BAD_REQUEST);
    }
    loop_close(ends.loop);
}

/* ---- requests and answers ---- */

static void test_echoes_come_back_in_order(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    for (uint64_t i = 1; i <= 1000; i++)
        assert_int_equal(send_bytes(&caller, MSG_echo, i * 10), i);
    WAIT_UNTIL(&ends, caller.answered == 1000);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(caller.numbers[i], i + 1);
        assert_int_equal(caller.types[i], MSG_echo);
    }
    assert_int_equal(link_client_unanswered(caller.client), 0);
    assert_int_equal(far_stats(&ends).requests, 1000);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_request_arrives_whole_and_its_answers_in_any_order(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    uint64_t number;
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    /* {1: "ab"} in two parts */
    assert_int_equal(link_client_send(caller.client, MSG_status, 42, slice_str("\x81\x01"),
                                      slice_str("\xa2"
                                                "ab"),
                                      &number),
                     SH_OK);
    send_bytes(&caller, MSG_status, 5);
    WAIT_UNTIL(&ends, ends.held_count == 2);
    assert_int_equal(ends.held[0].type, MSG_status);
    assert_int_equal(ends.held[0].correlation, 42);
    assert_int_equal(ends.held[0].body_len, 5);
    assert_memory_equal(ends.held[0].body,
                        "\x81\x01\xa2"
                        "ab",
                        5);
    assert_true(ends.held[0].local);
    answer_held(&ends, 1, 3);
    WAIT_UNTIL(&ends, caller.answered == 1);
    refuse_held(&ends, 0, SH_DISK_FULL, "no room");
    refuse_held(&ends, 0, SH_INTERNAL, "twice does nothing");
    WAIT_UNTIL(&ends, caller.answered == 2);
    assert_int_equal(caller.numbers[0], 2);
    assert_int_equal(caller.numbers[1], 1);
    assert_int_equal(caller.codes[1], SH_DISK_FULL);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_an_answer_from_a_hook_goes_out_at_once(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    int64_t start = clock_mono_ns();
    for (unsigned i = 1; i <= 5; i++) {
        send_bytes(&caller, MSG_log_info, 1); /* answered in a hook that runs behind the link's own */
        WAIT_UNTIL(&ends, caller.answered == i);
    }
    /* Not the length of a long poll each. */
    assert_true(clock_mono_ns() - start < 3 * LINK_POLL_MS * (int64_t)NS_PER_MS);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_large_answers_arrive_and_too_large_ones_become_an_error(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    for (unsigned i = 0; i < 4; i++)
        send_bytes(&caller, MSG_status, 0);
    WAIT_UNTIL(&ends, ends.held_count == 4);
    for (unsigned i = 0; i < 3; i++)
        answer_held(&ends, i, (2 << 20) + i);
    answer_held(&ends, 3, 4 << 20);
    WAIT_UNTIL(&ends, caller.answered == 4);
    assert_int_equal(caller.types[2], MSG_echo);
    assert_int_equal(caller.codes[3], SH_TOO_LARGE);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_the_client_bounds_its_queue_and_its_requests(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    static const uint8_t zeros[4 << 20];
    uint64_t number;
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    assert_int_equal(
        link_client_send(caller.client, MSG_status, 0, slice_of(zeros, sizeof zeros), no_rest, &number),
        SH_TOO_LARGE);
    unsigned queued = 0;
    while (link_client_send(caller.client, MSG_status, 0, slice_of(zeros, 1 << 20), no_rest, &number) ==
           SH_OK)
        queued++;
    assert_int_equal(queued, 15);
    assert_int_equal(link_client_unanswered(caller.client), 15);
    for (uint64_t i = 1; i <= 15; i++)
        link_client_forget(caller.client, i); /* none was sent yet */
    assert_int_equal(link_client_unanswered(caller.client), 0);
    send_bytes(&caller, MSG_echo, 1 << 20);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.numbers[0], 16);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_forgotten_request_gets_no_answer(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    uint64_t number = send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, ends.held_count == 1);
    link_client_forget(caller.client, number);
    link_client_forget(caller.client, number);
    assert_int_equal(link_client_unanswered(caller.client), 0);
    answer_held(&ends, 0, 1);
    send_bytes(&caller, MSG_echo, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.numbers[0], 2);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_credit_holds_requests_back(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    for (unsigned i = 0; i < 40; i++)
        send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, ends.held_count == limits.session_requests);
    assert_false(link_client_has_credit(caller.client, 1));
    assert_int_equal(far_stats(&ends).requests, limits.session_requests);
    for (unsigned i = 0; i < 40; i++) {
        WAIT_UNTIL(&ends, ends.held_count > i);
        answer_held(&ends, i, 1);
    }
    WAIT_UNTIL(&ends, caller.answered == 40);
    assert_true(link_client_has_credit(caller.client, 1));
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_bytes_that_are_given_back_count_for_their_session_alone(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    for (unsigned i = 0; i < 8; i++)
        send_bytes(&caller, MSG_status, 120000);
    WAIT_UNTIL(&ends, ends.held_count == 8);
    assert_true(far_stats(&ends).held_bytes > 8 * 120000);
    for (unsigned i = 0; i < 8; i++) {
        unlend_held(&ends, i);
        unlend_held(&ends, i); /* does nothing */
    }
    assert_int_equal(far_stats(&ends).held_bytes, 0);
    send_bytes(&caller, MSG_status, 120000); /* beyond the session's credit */
    assert_false(link_client_has_credit(caller.client, 120000));
    for (unsigned i = 0; i < 8; i++)
        answer_held(&ends, i, 1);
    WAIT_UNTIL(&ends, caller.answered == 8 && ends.held_count == 9);
    unlend_held(&ends, 8);
    stop_far_end(&ends); /* drops the session */
    start_far_end(&ends, &limits, NULL);
    WAIT_UNTIL(&ends, ends.held_count == 1);
    assert_true(far_stats(&ends).held_bytes > 120000);
    answer_held(&ends, 0, 1);
    WAIT_UNTIL(&ends, caller.answered == 9);
    link_client_close(caller.client);
    close_ends(&ends);
}

/* ---- a server that goes and comes, or is not there ---- */

static void test_the_last_answer_of_a_server_arrives(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, ends.held_count == 1 && far_stats(&ends).parked_polls == 1);
    stop_far_end_with_answer(&ends, 0);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.types[0], MSG_echo);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_restarted_server_gets_what_was_unanswered(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    for (unsigned i = 0; i < 10; i++)
        send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, ends.held_count == 10);
    answer_held(&ends, 3, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    stop_far_end(&ends);
    WAIT_UNTIL(&ends, caller.downs == 1);
    assert_int_equal(ends.drops, 1);
    start_far_end(&ends, &limits, NULL);
    WAIT_UNTIL(&ends, ends.held_count == 9);
    for (unsigned i = 0; i < 9; i++) {
        assert_int_equal(ends.held[i].token.number, i < 3 ? i + 1 : i + 2);
        answer_held(&ends, i, 1);
    }
    WAIT_UNTIL(&ends, caller.answered == 10);
    assert_int_equal(caller.ups, 2);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_client_may_come_first(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    stop_far_end(&ends);
    open_caller(&caller, &ends, no_rest);
    send_bytes(&caller, MSG_echo, 10);
    loop_step(ends.loop, 10);
    assert_int_equal(caller.ups + caller.downs + caller.answered, 0);
    assert_int_equal(link_client_unanswered(caller.client), 1);
    start_far_end(&ends, &limits, NULL);
    WAIT_UNTIL(&ends, caller.answered == 1);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_client_may_leave_without_ever_connecting(void **state)
{
    (void)state;
    struct ends ends = {.loop = loop_open(), .endpoint = "ipc:///tmp/shanghai-nobody-listens-here"};
    struct caller caller;
    open_caller(&caller, &ends, no_rest);
    send_bytes(&caller, MSG_echo, 10);
    loop_step(ends.loop, 10);
    assert_int_equal(caller.ups + caller.downs + caller.answered, 0);
    link_client_close(caller.client);
    loop_close(ends.loop);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

/* Its pairs of sockets that led to nothing dial again, rarely, and may wait to be accepted when the client is
 * closed: a connection that ends there would end the listener (nng #1518). */
static void test_a_client_that_is_closed_at_once_leaves_the_listener_alive(void **state)
{
    (void)state;
    enum { SOCKETS = 6 };
    struct ends ends;
    struct caller caller, next;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    WAIT_UNTIL(&ends, link_conn_closing() == 0); /* of earlier tests */
    unsigned before = open_descriptors();
    kill(ends.pid, SIGSTOP);
    open_caller(&caller, &ends, no_rest);
    send_bytes(&caller, MSG_echo, 10);
    WAIT_UNTIL(&ends, open_descriptors() >= before + SOCKETS); /* three pairs */
    kill_far_end(&ends);
    start_far_end(&ends, &limits, NULL);
    WAIT_UNTIL(&ends, caller.ups == 1); /* a second later the old ones go */
    kill(ends.pid, SIGSTOP);
    assert_true(open_descriptors() > before + 2); /* one of them is there too */
    link_client_close(caller.client);
    kill(ends.pid, SIGCONT);
    open_caller(&next, &ends, no_rest);
    send_bytes(&next, MSG_echo, 10);
    WAIT_UNTIL(&ends, next.answered == 1);
    link_client_close(next.client);
    close_ends(&ends);
}

static void test_a_stale_socket_file_is_replaced(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    char path[64];
    open_ends(&ends, &limits, NULL);
    kill_far_end(&ends);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/link.%s", ends.dir, i == 0 ? "in" : "out");
        assert_int_equal(unlink(path), 0);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fclose(file);
    }
    start_far_end(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    send_bytes(&caller, MSG_echo, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_taken_port_is_an_error(void **state)
{
    (void)state;
    struct ends ends;
    struct link_server_limits limits = small_limits();
    char endpoint[64];
    open_ends(&ends, &limits, NULL);
    unsigned port = 5000 + (unsigned)getpid() % 4800; /* below those of system tests' nodes */
    for (;; port += 2) {
        snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", port);
        if (far_listen(&ends, endpoint) == SH_OK)
            break;
    }
    assert_int_equal(far_listen(&ends, endpoint), SH_UNAVAILABLE);
    assert_int_equal(far_listen(&ends, "tcp://nonsense"), SH_BAD_REQUEST);
    close_ends(&ends);
}

/* ---- who is away ---- */

static atomic_uint looks, failed_dials;

/* In the place of the C library's, for nng too: counts those to ipc sockets. */
int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t len)
{
    int type = 0;
    socklen_t type_len = sizeof type;
    const struct sockaddr *address = to.__sockaddr__;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len);
    int rv = (int)syscall(SYS_connect, fd, address, len);
    int cause = errno;
    if (address->sa_family == AF_UNIX && type == SOCK_DGRAM)
        atomic_fetch_add(&looks, 1);
    else if (address->sa_family == AF_UNIX && rv < 0 && cause != EINPROGRESS)
        atomic_fetch_add(&failed_dials, 1);
    errno = cause;
    return rv;
}

static void test_a_far_end_that_is_away_is_looked_for_and_not_dialled(void **state)
{
    (void)state;
    enum {
        LOOKS = 45,
        DIALS_AT_ITS_END = 4
    }; /* it may still be there for a moment when its connections are gone */
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    stop_far_end(&ends);
    atomic_store(&looks, 0);
    atomic_store(&failed_dials, 0);
    open_caller(&caller, &ends, no_rest);
    WAIT_UNTIL(&ends, atomic_load(&looks) >= LOOKS); /* no socket file */
    assert_int_equal(atomic_load(&failed_dials), 0);
    for (unsigned life = 1; life <= 3; life++) {
        start_far_end(&ends, &limits, NULL);
        WAIT_UNTIL(&ends, caller.ups == life);
        atomic_store(&failed_dials, 0);
        kill_far_end(&ends);
        WAIT_UNTIL(&ends, caller.downs == life);
        atomic_store(&looks, 0);
        WAIT_UNTIL(&ends, atomic_load(&looks) >= LOOKS); /* a socket file that nobody holds */
        assert_in_range(atomic_load(&failed_dials), 0, DIALS_AT_ITS_END);
    }
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_look_tells_who_is_there_and_disturbs_no_listener(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    char in[LINK_ENDPOINT_MAX], out[LINK_ENDPOINT_MAX];
    open_ends(&ends, &limits, NULL);
    assert_int_equal(link_endpoint_urls(ends.endpoint, in, out), SH_OK);
    for (int i = 0; i < 2000; i++)
        assert_true(link_socket_is_bound(in) && link_socket_is_bound(out));
    open_caller(&caller, &ends, no_rest);
    send_bytes(&caller, MSG_echo, 100);
    WAIT_UNTIL(&ends, caller.answered == 1);
    link_client_close(caller.client);
    kill_far_end(&ends);
    assert_false(link_socket_is_bound(in) || link_socket_is_bound(out));
    assert_int_equal(unlink(in + strlen("ipc://")), 0);
    assert_false(link_socket_is_bound(in));
    FILE *file = fopen(in + strlen("ipc://"), "w");
    assert_non_null(file);
    fclose(file);
    assert_false(link_socket_is_bound(in));
    close_ends(&ends);
}

/* ---- limits ---- */

static void test_sessions_that_do_not_fetch_are_dropped_and_come_back(void **state)
{
    (void)state;
    struct ends ends;
    struct caller lazy, busy;
    struct loop *other = loop_open();
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    struct ends elsewhere = {.loop = other};
    memcpy(elsewhere.endpoint, ends.endpoint, sizeof ends.endpoint);
    open_caller(&lazy, &elsewhere, no_rest);
    open_caller(&busy, &ends, no_rest);
    for (unsigned i = 0; i < 10; i++)
        send_bytes(&lazy, MSG_status, 1);
    while (ends.held_count < 10) {
        loop_step(other, 1);
        loop_step(ends.loop, 1);
    }
    uint64_t session = ends.held[0].token.session;
    /* From now on the lazy one's loop stands still. */
    for (unsigned i = 0; i < 3; i++)
        answer_held(&ends, i, 2 << 20);
    assert_true(far_stats(&ends).held_bytes > 4 << 20);
    assert_true(far_unfetched(&ends, session) > 4 << 20);
    assert_int_equal(ends.drops, 0);
    send_bytes(&busy, MSG_echo, 100);
    WAIT_UNTIL(&ends, busy.answered == 1);
    answer_held(&ends, 3, 2 << 20);
    answer_held(&ends, 4, 2 << 20); /* of a session that may be gone by then */
    WAIT_UNTIL(&ends, ends.drops == 1);
    assert_true(far_stats(&ends).held_bytes < 1 << 20);
    assert_int_equal(far_unfetched(&ends, session), 0);
    /* It wakes up, and gets all its answers after all. */
    int64_t end_ns = clock_mono_ns() + 20 * NS_PER_S;
    while (lazy.answered < 10 && clock_mono_ns() < end_ns) {
        loop_step(other, 1);
        loop_step(ends.loop, 1);
        while (ends.held_count > 0)
            answer_held(&ends, --ends.held_count, 1);
    }
    assert_int_equal(lazy.answered, 10);
    link_client_close(lazy.client);
    loop_close(other);
    link_client_close(busy.client);
    close_ends(&ends);
}

static void test_idle_sessions_are_dropped(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    limits.session_idle_ns = NS_PER_S / 2;
    open_ends(&ends, &limits, NULL);
    open_caller(&caller, &ends, no_rest);
    WAIT_UNTIL(&ends, caller.ups == 1);
    link_client_close(caller.client);
    assert_int_equal(far_stats(&ends).sessions + ends.drops, 1); /* not for its client's end */
    WAIT_UNTIL(&ends, far_stats(&ends).sessions == 0);
    assert_int_equal(ends.drops, 1);
    close_ends(&ends);
}

static void test_clients_one_after_another_wait_for_nobody(void **state)
{
    (void)state;
    enum { CLIENTS = 20 };
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    for (unsigned i = 0; i < CLIENTS; i++) {
        open_caller(&caller, &ends, no_rest);
        send_bytes(&caller, MSG_echo, 100);
        WAIT_UNTIL(&ends, caller.answered == 1);
        assert_int_equal(far_stats(&ends).clients, 1);
        link_client_close(caller.client);
        WAIT_UNTIL(&ends, far_stats(&ends).clients == 0);
        assert_int_equal(far_stats(&ends).parked_polls, 0);
    }
    assert_int_equal(far_stats(&ends).refused_messages, 0);
    assert_int_equal(far_stats(&ends).sessions, limits.sessions);
    assert_int_equal(far_stats(&ends).dropped_sessions, CLIENTS - limits.sessions);
    close_ends(&ends);
}

static void test_who_is_away_with_a_request_or_an_answer_keeps_its_place(void **state)
{
    (void)state;
    enum { CLIENTS = 8 };
    struct ends ends;
    struct caller callers[CLIENTS], late;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    for (unsigned i = 0; i < CLIENTS; i++) {
        open_caller(&callers[i], &ends, no_rest);
        send_bytes(&callers[i], i == 0 ? MSG_status : MSG_echo, 100);
        WAIT_UNTIL(&ends, i == 0 ? ends.held_count == 1 : callers[i].answered == 1);
    }
    uint64_t session = ends.held[0].token.session;
    link_client_close(callers[0].client);
    WAIT_UNTIL(&ends, far_stats(&ends).clients == CLIENTS - 1);
    open_caller(&late, &ends, no_rest);
    send_bytes(&late, MSG_echo, 100);
    WAIT_UNTIL(&ends, far_stats(&ends).refused_messages >= 1);
    answer_held(&ends, 0, 100);
    uint64_t refused = far_stats(&ends).refused_messages; /* several, where it is slow */
    WAIT_UNTIL(&ends, far_stats(&ends).refused_messages > refused);
    assert_int_equal(late.answered, 0);
    link_client_close(callers[1].client);
    WAIT_UNTIL(&ends, late.answered == 1);
    assert_true(far_unfetched(&ends, session) > 100);
    link_client_close(late.client);
    for (unsigned i = 2; i < CLIENTS; i++)
        link_client_close(callers[i].client);
    close_ends(&ends);
}

static void test_a_client_too_many_waits_until_another_has_left(void **state)
{
    (void)state;
    enum { CLIENTS = 9 };
    struct ends ends;
    struct caller callers[CLIENTS];
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    for (unsigned i = 0; i < CLIENTS - 1; i++) {
        open_caller(&callers[i], &ends, no_rest);
        send_bytes(&callers[i], MSG_echo, 100);
        WAIT_UNTIL(&ends, callers[i].answered == 1);
    }
    struct caller *late = &callers[CLIENTS - 1];
    open_caller(late, &ends, no_rest);
    send_bytes(late, MSG_echo, 100);
    WAIT_UNTIL(&ends, far_stats(&ends).refused_messages >= 1);
    send_bytes(&callers[0], MSG_echo, 100);
    WAIT_UNTIL(&ends, callers[0].answered == 2);
    assert_int_equal(late->answered, 0);
    link_client_close(callers[3].client);
    WAIT_UNTIL(&ends, late->answered == 1);
    assert_int_equal(late->types[0], MSG_echo);
    for (unsigned i = 0; i < CLIENTS; i++)
        if (i != 3)
            link_client_close(callers[i].client);
    close_ends(&ends);
}

static void test_more_polls_than_the_limit_are_answered_early(void **state)
{
    (void)state;
    enum { CLIENTS = 6 };
    struct ends ends;
    struct caller callers[CLIENTS];
    struct link_server_limits limits = small_limits();
    limits.polls = 4;
    open_ends(&ends, &limits, NULL);
    for (unsigned i = 0; i < CLIENTS; i++) {
        open_caller(&callers[i], &ends, no_rest);
        send_bytes(&callers[i], MSG_echo, 100);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        WAIT_UNTIL(&ends, callers[i].answered == 1);
        assert_true(far_stats(&ends).parked_polls <= limits.polls);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        link_client_close(callers[i].client);
    close_ends(&ends);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_endpoint_names_two_sockets),
        cmocka_unit_test(test_bad_endpoints_are_refused),
        cmocka_unit_test(test_an_endpoint_that_nng_cannot_parse_opens_no_client),
        cmocka_unit_test(test_echoes_come_back_in_order),
        cmocka_unit_test(test_a_request_arrives_whole_and_its_answers_in_any_order),
        cmocka_unit_test(test_an_answer_from_a_hook_goes_out_at_once),
        cmocka_unit_test(test_large_answers_arrive_and_too_large_ones_become_an_error),
        cmocka_unit_test(test_the_client_bounds_its_queue_and_its_requests),
        cmocka_unit_test(test_a_forgotten_request_gets_no_answer),
        cmocka_unit_test(test_credit_holds_requests_back),
        cmocka_unit_test(test_bytes_that_are_given_back_count_for_their_session_alone),
        cmocka_unit_test(test_the_last_answer_of_a_server_arrives),
        cmocka_unit_test(test_a_restarted_server_gets_what_was_unanswered),
        cmocka_unit_test(test_a_client_may_come_first),
        cmocka_unit_test(test_a_client_may_leave_without_ever_connecting),
        cmocka_unit_test(test_a_client_that_is_closed_at_once_leaves_the_listener_alive),
        cmocka_unit_test(test_a_stale_socket_file_is_replaced),
        cmocka_unit_test(test_a_taken_port_is_an_error),
        cmocka_unit_test(test_a_far_end_that_is_away_is_looked_for_and_not_dialled),
        cmocka_unit_test(test_a_look_tells_who_is_there_and_disturbs_no_listener),
        cmocka_unit_test(test_sessions_that_do_not_fetch_are_dropped_and_come_back),
        cmocka_unit_test(test_idle_sessions_are_dropped),
        cmocka_unit_test(test_clients_one_after_another_wait_for_nobody),
        cmocka_unit_test(test_who_is_away_with_a_request_or_an_answer_keeps_its_place),
        cmocka_unit_test(test_a_client_too_many_waits_until_another_has_left),
        cmocka_unit_test(test_more_polls_than_the_limit_are_answered_early),
    };
    log_setup("test_link", "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
