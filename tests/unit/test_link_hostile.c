/* What no end of ours sends over a link. The daemon's end gives it a named error, or drops and counts it; the
 * client's end goes on, and names what it was refused for. Strangers speak nng's wire formats by hand: 8
 * bytes of greeting each way, then frames (ipc: a byte 1; the length in 8 bytes), in a poll after 4 bytes of
 * number. */
#include "link_ends.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

enum {
    PROTOCOL_PUSH = 0x50,
    PROTOCOL_PULL = 0x51,
    PROTOCOL_REQ = 0x30,
    PROTOCOL_REP = 0x31,
    GREETING_BYTES = 8,
    REQUEST_NUMBER_BYTES = 4,
    FRAME_MAX = 4 << 20,
    POLL_BYTES_MAX = 4096, /* link_inlet.c: what a poll may have */
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const char own_cluster[] = "12345678";
static const struct slice own = {(const uint8_t *)own_cluster, 8}, other = {(const uint8_t *)"87654321", 8};

/* ---- bytes on a socket ---- */

static bool write_all(int fd, const void *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, (const uint8_t *)data + done, len - done, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool read_all(int fd, void *out, size_t len)
{
    return recv(fd, out, len, MSG_WAITALL) == (ssize_t)len;
}

static bool greet(int fd, uint8_t protocol)
{
    const uint8_t mine[GREETING_BYTES] = {0, 'S', 'P', 0, 0, protocol, 0, 0};
    uint8_t theirs[GREETING_BYTES];
    return write_all(fd, mine, sizeof mine) && read_all(fd, theirs, sizeof theirs);
}

static bool write_frame(int fd, bool ipc, struct slice head, struct slice rest)
{
    struct buf b = {0};
    uint64_t len = htobe64(head.len + rest.len);
    if (ipc)
        buf_append(&b, "\x01", 1);
    buf_append(&b, &len, sizeof len);
    buf_append(&b, head.data, head.len);
    buf_append(&b, rest.data, rest.len);
    bool good = write_all(fd, b.data, b.len);
    buf_free(&b);
    return good;
}

/* What comes, without its frame; false: the connection is closed. */
static bool read_frame(int fd, bool ipc, struct buf *out)
{
    uint8_t head[9];
    size_t head_len = ipc ? 9 : 8;
    if (!read_all(fd, head, head_len))
        return false;
    uint64_t len;
    memcpy(&len, head + head_len - sizeof len, sizeof len);
    len = be64toh(len);
    out->len = 0;
    if (len > FRAME_MAX || !read_all(fd, buf_reserve(out, len), len))
        return false;
    out->len = len;
    return true;
}

/* ---- strangers ---- */

struct stranger {
    bool ipc;
    uint16_t port; /* of the far end's tcp link */
    char path[64];
    int push, req;
    struct id16 session;
};

static int connect_to(const struct stranger *s, bool to_req)
{
    struct timeval limit = {.tv_sec = 20};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)(s->port + to_req)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    snprintf(un.sun_path, sizeof un.sun_path, "%s.%s", s->path, to_req ? "out" : "in");
    int fd = socket(s->ipc ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    assert_int_equal(s->ipc ? connect(fd, (struct sockaddr *)&un, sizeof un)
                            : connect(fd, (struct sockaddr *)&in, sizeof in),
                     0);
    assert_true(greet(fd, to_req ? PROTOCOL_REQ : PROTOCOL_PUSH));
    return fd;
}

static void open_stranger(struct stranger *s, struct ends *ends, bool ipc)
{
    *s = (struct stranger){.ipc = ipc, .session = id16_random()};
    snprintf(s->path, sizeof s->path, "%s", ends->endpoint + strlen("ipc://"));
    if (!ipc) {
        char endpoint[64];
        do {
            s->port = (uint16_t)(5000 + random_u64() % 4800); /* below those of system tests' nodes */
            snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%u", s->port);
        } while (far_listen(ends, endpoint) != SH_OK);
    }
    s->push = connect_to(s, false);
    s->req = connect_to(s, true);
}

static void close_stranger(struct stranger *s)
{
    close(s->push);
    close(s->req);
}

static void push(struct stranger *s, struct slice bytes)
{
    assert_true(write_frame(s->push, s->ipc, bytes, no_rest));
}

static bool is_closed(int fd)
{
    uint8_t byte;
    ssize_t n = recv(fd, &byte, 1, 0);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* The code of the error that comes back for these bytes as a poll, or SH_OK for a poll's reply. */
static enum sh_error ask(struct stranger *s, struct slice bytes)
{
    struct buf b = {0};
    struct msg_envelope e;
    struct msg_error error;
    enum sh_error code = SH_OK;
    assert_true(write_frame(s->req, s->ipc, slice_of("\x80\0\0\x01", REQUEST_NUMBER_BYTES), bytes));
    assert_true(read_frame(s->req, s->ipc, &b));
    struct slice message = slice_of(b.data + REQUEST_NUMBER_BYTES, b.len - REQUEST_NUMBER_BYTES);
    assert_int_equal(msg_open(message, &e), SH_OK);
    if (e.type == MSG_error) {
        assert_int_equal(msg_decode(MSG_error, e.body, &error), SH_OK);
        code = (enum sh_error)error.code;
    } else {
        assert_int_equal(e.type, MSG_poll_reply);
    }
    buf_free(&b);
    return code;
}

/* ---- bad bytes ---- */

static struct slice pack(struct buf *b, const struct msg_envelope *e, uint32_t type, const void *body)
{
    b->len = 0;
    msg_pack_envelope(b, e);
    msg_encode(type, body, b);
    return buf_slice(b);
}

/* An envelope with a body of any bytes. */
static struct slice pack_raw(struct buf *b, const struct msg_envelope *e, struct slice body)
{
    b->len = 0;
    msg_pack_envelope(b, e);
    buf_append(b, body.data, body.len);
    return buf_slice(b);
}

static struct slice nested(uint8_t opener, size_t depth)
{
    static uint8_t bytes[2001];
    assert_true(depth < sizeof bytes);
    memset(bytes, opener, depth);
    bytes[depth] = 0xc0;
    return slice_of(bytes, depth + 1);
}

#define BYTES(text)                                                                                          \
    {                                                                                                        \
        (const uint8_t *)(text), sizeof(text) - 1                                                            \
    }

/* Bodies that are no map of fields, or promise more than they hold. */
static const struct slice bad_bodies[] = {
    BYTES("\x81\xa1x\x01"), /* a key that is no number; the only one that is well-formed */
    BYTES(""),
    BYTES("\xc0"),
    BYTES("\xc1"),
    BYTES("\x90"),
    BYTES("\x81"),                             /* a map that ends */
    BYTES("\xdf\xff\xff\xff\xff"),             /* 4 G fields */
    BYTES("\xde\xff\xff\x01\x01"),             /* 64 K fields */
    BYTES("\x81\x63\xdd\xff\xff\xff\xff"),     /* a field of 4 G values */
    BYTES("\x81\x01\xc6\xff\xff\xff\xff"),     /* 4 GiB of bytes */
    BYTES("\x81\x01\xdb\xff\xff\xff\xff"),     /* and of text */
    BYTES("\x81\x63\xc9\xff\xff\xff\xff\x01"), /* and of an extension */
    BYTES("\x82\x01\x01\x01\x01\xff"),         /* more bytes than the map */
    BYTES("\xdd\xff\xff\xff\xff\xdd\xff\xff\xff\xff"),
};
enum { BAD_BODIES = sizeof bad_bodies / sizeof bad_bodies[0] };

/* ---- the daemon's end ---- */

static void check_bad_polls(struct stranger *s)
{
    struct buf b = {0};
    struct msg_poll poll = {0};
    struct msg_envelope e = {.type = MSG_poll, .session = s->session, .cluster = own};
    assert_int_equal(ask(s, pack(&b, &e, MSG_poll, &poll)), SH_OK);
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(ask(s, slice_of(b.data, len)), SH_BAD_REQUEST);
    b.data[1] = 2; /* the version, packed as a small integer */
    assert_int_equal(ask(s, buf_slice(&b)), SH_VERSION_MISMATCH);
    for (unsigned i = 0; i < BAD_BODIES; i++) {
        assert_int_equal(ask(s, pack_raw(&b, &e, bad_bodies[i])), SH_BAD_REQUEST);
        assert_int_equal(ask(s, bad_bodies[i]), SH_BAD_REQUEST);
    }
    assert_int_equal(ask(s, pack_raw(&b, &e, nested(0x91, 2000))), SH_BAD_REQUEST);
    assert_int_equal(ask(s, nested(0x81, 2000)), SH_BAD_REQUEST);
    e.cluster = other;
    assert_int_equal(ask(s, pack(&b, &e, MSG_poll, &poll)), SH_BAD_REQUEST);
    e.cluster = own;
    e.session = (struct id16){0};
    assert_int_equal(ask(s, pack(&b, &e, MSG_poll, &poll)), SH_BAD_REQUEST);
    e.session = s->session;
    assert_int_equal(ask(s, pack(&b, &e, MSG_echo, &(struct msg_echo){0})), SH_BAD_REQUEST);
    for (int i = 0; i < 200; i++) {
        uint8_t noise[64];
        random_bytes(noise, sizeof noise);
        noise[0] |= 0x20; /* no array, whatever the rest is */
        noise[0] &= 0x7f;
        assert_int_equal(ask(s, slice_of(noise, sizeof noise)), SH_BAD_REQUEST);
    }
    assert_int_equal(ask(s, pack(&b, &e, MSG_poll, &poll)), SH_OK);
    buf_free(&b);
}

static void test_bad_polls_get_a_named_error(void **state)
{
    (void)state;
    for (int ipc = 0; ipc < 2; ipc++) {
        struct ends ends;
        struct stranger s;
        struct link_server_limits limits = small_limits();
        open_ends(&ends, &limits, own_cluster);
        open_stranger(&s, &ends, ipc);
        check_bad_polls(&s);
        assert_true(far_stats(&ends).refused_messages > 200);
        close_stranger(&s);
        stop_far_end(&ends);
        close_ends(&ends);
    }
}

/* Returns how many were sent. */
static unsigned push_bad_requests(struct stranger *s)
{
    struct buf b = {0};
    unsigned sent = 0;
    struct msg_envelope e = {.type = MSG_status, .session = s->session, .number = 1};
    pack(&b, &e, MSG_status, &(struct msg_status){0});
    for (size_t len = 0; len < b.len; len++, sent++)
        push(s, slice_of(b.data, len));
    b.data[1] = 2;
    push(s, buf_slice(&b));
    for (unsigned i = 0; i < BAD_BODIES; i++, sent++)
        push(s, bad_bodies[i]);
    push(s, nested(0x91, 2000));
    push(s, nested(0x81, 2000));
    e.number = 0;
    push(s, pack(&b, &e, MSG_status, &(struct msg_status){0}));
    e = (struct msg_envelope){.type = MSG_status, .number = 1}; /* of no session */
    push(s, pack(&b, &e, MSG_status, &(struct msg_status){0}));
    e = (struct msg_envelope){.type = MSG_poll, .session = s->session, .number = 1};
    push(s, pack(&b, &e, MSG_poll, &(struct msg_poll){0}));
    sent += 6;
    for (int i = 0; i < 200; i++, sent++) {
        uint8_t noise[300];
        random_bytes(noise, sizeof noise);
        push(s, slice_of(noise, sizeof noise));
    }
    buf_free(&b);
    return sent;
}

static void test_bad_requests_are_dropped_and_counted(void **state)
{
    (void)state;
    for (int ipc = 0; ipc < 2; ipc++) {
        struct ends ends;
        struct stranger s;
        struct caller caller;
        struct link_server_limits limits = small_limits();
        open_ends(&ends, &limits, own_cluster);
        open_stranger(&s, &ends, ipc);
        open_caller(&caller, &ends, no_rest);
        unsigned sent = push_bad_requests(&s);
        WAIT_UNTIL(&ends, far_stats(&ends).refused_messages == sent);
        assert_int_equal(ends.held_count, 0);
        sent += push_bad_requests(&s); /* their connection is still there */
        WAIT_UNTIL(&ends, far_stats(&ends).refused_messages == sent);
        send_bytes(&caller, MSG_echo, 10);
        WAIT_UNTIL(&ends, caller.answered == 1);
        link_client_close(caller.client);
        close_stranger(&s);
        stop_far_end(&ends);
        close_ends(&ends);
    }
}

static void test_a_service_sees_no_malformed_body(void **state)
{
    (void)state;
    struct ends ends;
    struct stranger s;
    struct buf b = {0};
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, own_cluster);
    open_stranger(&s, &ends, true);
    struct msg_envelope e = {.type = MSG_status, .session = s.session};
    for (unsigned i = 0; i < BAD_BODIES; i++) {
        e.number++;
        push(&s, pack_raw(&b, &e, bad_bodies[i]));
    }
    push(&s, pack_raw(&b, &e, nested(0x81, 2000)));
    /* Only the first is a map, if not one of fields. */
    WAIT_UNTIL(&ends, far_stats(&ends).refused_messages == BAD_BODIES && ends.held_count == 1);
    assert_int_equal(ends.held[0].token.number, 1);
    buf_free(&b);
    close_stranger(&s);
    close_ends(&ends);
}

static void test_a_session_beyond_its_credit_is_told_so(void **state)
{
    (void)state;
    struct ends ends;
    struct stranger s;
    struct buf b = {0};
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, NULL);
    open_stranger(&s, &ends, true);
    for (uint64_t i = 1; i <= 100; i++) {
        struct msg_envelope e = {.type = MSG_status, .session = s.session, .number = i, .previous = i - 1};
        push(&s, pack(&b, &e, MSG_status, &(struct msg_status){0}));
    }
    WAIT_UNTIL(&ends, far_stats(&ends).answers == 100 - 2 * limits.session_requests);
    assert_int_equal(ends.held_count, 2 * limits.session_requests);
    buf_free(&b);
    close_stranger(&s);
    close_ends(&ends);
}

static void test_an_oversized_message_ends_only_its_connection(void **state)
{
    (void)state;
    for (int ipc = 0; ipc < 2; ipc++) {
        struct ends ends;
        struct stranger s;
        struct caller caller;
        struct link_server_limits limits = small_limits();
        static const uint8_t zeros[5 << 20];
        open_ends(&ends, &limits, NULL);
        open_stranger(&s, &ends, ipc);
        open_caller(&caller, &ends, no_rest);
        WAIT_UNTIL(&ends, caller.ups == 1);
        write_frame(s.push, ipc, slice_of(zeros, sizeof zeros), no_rest);
        assert_true(is_closed(s.push));
        write_frame(s.req, ipc, slice_of("\x80\0\0\x01", REQUEST_NUMBER_BYTES),
                    slice_of(zeros, POLL_BYTES_MAX + 1));
        assert_true(is_closed(s.req));
        send_bytes(&caller, MSG_echo, 1000);
        WAIT_UNTIL(&ends, caller.answered == 1);
        assert_int_equal(caller.downs, 0);
        assert_int_equal(far_stats(&ends).refused_messages, 0);
        link_client_close(caller.client);
        close_stranger(&s);
        close_ends(&ends);
    }
}

/* Of the far end, without file pages; in KiB. */
static long far_memory(const struct ends *ends)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)ends->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (kib < 0 && fgets(line, sizeof line, file) != NULL)
        sscanf(line, "Pss_Anon: %ld kB", &kib);
    fclose(file);
    assert_true(kib >= 0);
    return kib;
}

static void test_bad_bytes_leave_no_memory_behind(void **state)
{
    (void)state;
    enum { ROUNDS = 30, GROWTH_MAX_KIB = 4 << 10 };
    struct ends ends;
    struct stranger s;
    struct link_server_limits limits = small_limits();
    long before = 0;
    if (SANITIZED)
        skip(); /* they keep what is freed */
    open_ends(&ends, &limits, own_cluster);
    open_stranger(&s, &ends, true);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t refused = far_stats(&ends).refused_messages;
        refused += push_bad_requests(&s);
        WAIT_UNTIL(&ends, far_stats(&ends).refused_messages == refused);
        check_bad_polls(&s);
        if (round == ROUNDS / 3)
            before = far_memory(&ends);
    }
    assert_true(far_memory(&ends) - before < GROWTH_MAX_KIB);
    close_stranger(&s);
    close_ends(&ends);
}

/* ---- other clusters ---- */

static void test_a_client_of_another_cluster_is_refused_by_name_at_both_ends(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, own_cluster);
    open_caller(&caller, &ends, other);
    send_bytes(&caller, MSG_echo, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.codes[0], SH_BAD_REQUEST);
    assert_int_equal(caller.ups, 0);
    assert_true(far_stats(&ends).refused_messages >= 1);
    assert_int_equal(far_stats(&ends).sessions, 0);
    assert_true(
        far_has_logged(&ends, "\"msg\":\"message refused\",\"what\":\"poll\",\"error\":\"bad_request\""));
    link_client_set_cluster(caller.client, own);
    send_bytes(&caller, MSG_echo, 1);
    WAIT_UNTIL(&ends, caller.answered == 2); /* asks again after a second */
    assert_int_equal(caller.types[1], MSG_echo);
    link_client_close(caller.client);
    close_ends(&ends);
}

static void test_a_request_of_another_cluster_is_refused(void **state)
{
    (void)state;
    struct ends ends;
    struct caller caller;
    struct link_server_limits limits = small_limits();
    open_ends(&ends, &limits, own_cluster);
    open_caller(&caller, &ends, own);
    WAIT_UNTIL(&ends, caller.ups == 1);
    WAIT_UNTIL(&ends, far_stats(&ends).parked_polls == 1); /* the next one will be refused too */
    link_client_set_cluster(caller.client, other);
    send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.codes[0], SH_BAD_REQUEST);
    assert_int_equal(ends.held_count, 0);
    assert_true(far_has_logged(&ends, "request of another cluster"));
    link_client_close(caller.client);
    close_ends(&ends);
}

/* ---- the client's end ---- */

/* A far end of the test's own, in a thread: greets all, and answers polls with what it was given, then well.
 * It listens where a real one would. */
struct impostor {
    char dir[32], endpoint[64];
    int listeners[2], stop[2];
    pthread_t thread;
    struct slice bad; /* the first replies, whole messages; header of the reply's frame included if framed */
    atomic_uint bad_count;
    bool framed;
};

static void answer_poll(struct impostor *im, int fd, const struct buf *request)
{
    struct slice number = slice_of(request->data, REQUEST_NUMBER_BYTES);
    struct buf b = {0};
    struct msg_envelope e;
    if (atomic_load(&im->bad_count) > 0) {
        atomic_fetch_sub(&im->bad_count, 1);
        if (im->framed)
            write_all(fd, im->bad.data, im->bad.len);
        else
            write_frame(fd, true, number, im->bad);
        return;
    }
    assert(msg_open(slice_of(request->data + number.len, request->len - number.len), &e) == SH_OK);
    struct msg_poll_reply reply = {
        .incarnation = 7, .credit_bytes = 1 << 20, .credit_requests = 8, .answers = slice_of("\x90", 1)};
    struct msg_envelope back = {.type = MSG_poll_reply, .session = e.session};
    write_frame(fd, true, number, pack(&b, &back, MSG_poll_reply, &reply));
    buf_free(&b);
}

static void *impersonate(void *arg)
{
    enum { PEERS_MAX = 64 };
    struct impostor *im = arg;
    struct pollfd fds[3 + PEERS_MAX] = {{.fd = im->stop[0], .events = POLLIN},
                                        {.fd = im->listeners[0], .events = POLLIN},
                                        {.fd = im->listeners[1], .events = POLLIN}};
    nfds_t count = 3;
    struct buf b = {0};
    while (poll(fds, count, -1) > 0 && fds[0].revents == 0) {
        for (nfds_t i = 3; i < count; i++) {
            if (fds[i].revents == 0)
                continue;
            if (fds[i].events != 0 && read_frame(fds[i].fd, true, &b) && b.len >= REQUEST_NUMBER_BYTES) {
                answer_poll(im, fds[i].fd, &b);
            } else {
                close(fds[i].fd);
                fds[i--] = fds[--count];
            }
        }
        for (int i = 1; i <= 2 && count < 3 + PEERS_MAX; i++) {
            int fd = fds[i].revents != 0 ? accept(fds[i].fd, NULL, NULL) : -1;
            /* Requests are left where they are. */
            if (fd >= 0 && greet(fd, i == 1 ? PROTOCOL_PULL : PROTOCOL_REP))
                fds[count++] = (struct pollfd){.fd = fd, .events = i == 1 ? 0 : POLLIN};
        }
    }
    while (count > 3)
        close(fds[--count].fd);
    buf_free(&b);
    return NULL;
}

static void open_impostor(struct impostor *im, struct slice bad, unsigned count, bool framed)
{
    *im = (struct impostor){.dir = "/tmp/shXXXXXX", .bad = bad, .bad_count = count, .framed = framed};
    assert_non_null(mkdtemp(im->dir));
    snprintf(im->endpoint, sizeof im->endpoint, "ipc://%s/link", im->dir);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        snprintf(un.sun_path, sizeof un.sun_path, "%s/link.%s", im->dir, i == 0 ? "in" : "out");
        im->listeners[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(im->listeners[i], (struct sockaddr *)&un, sizeof un), 0);
        assert_int_equal(listen(im->listeners[i], 16), 0);
    }
    assert_int_equal(pipe(im->stop), 0);
    assert_int_equal(pthread_create(&im->thread, NULL, impersonate, im), 0);
}

static void close_impostor(struct impostor *im)
{
    char path[64];
    close(im->stop[1]);
    pthread_join(im->thread, NULL);
    close(im->stop[0]);
    for (int i = 0; i < 2; i++) {
        close(im->listeners[i]);
        snprintf(path, sizeof path, "%s/link.%s", im->dir, i == 0 ? "in" : "out");
        unlink(path);
    }
    assert_int_equal(rmdir(im->dir), 0);
}

/* A client that gets this from the far end a few times, and then what it should. */
static void check_client_survives(struct slice bad, bool framed)
{
    struct impostor im;
    struct caller caller;
    struct ends ends = {.loop = loop_open()};
    open_impostor(&im, bad, 2, framed);
    memcpy(ends.endpoint, im.endpoint, sizeof im.endpoint);
    open_caller(&caller, &ends, own);
    send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, caller.ups == 1);
    assert_int_equal(caller.answered, 0);
    link_client_close(caller.client);
    loop_close(ends.loop);
    close_impostor(&im);
}

static void test_a_client_outlives_bad_replies(void **state)
{
    (void)state;
    struct buf b = {0};
    struct msg_envelope e = {.type = MSG_poll_reply, .session = id16_random()};
    struct msg_poll_reply reply = {.incarnation = 1, .answers = slice_of("\x90", 1)};
    uint8_t noise[500];
    random_bytes(noise, sizeof noise);
    noise[0] = 0;
    check_client_survives(no_rest, false);
    check_client_survives(slice_of(noise, sizeof noise), false);
    pack(&b, &e, MSG_poll_reply, &reply);
    check_client_survives(slice_of(b.data, b.len / 2), false);
    check_client_survives(pack_raw(&b, &e, nested(0x91, 2000)), false);
    check_client_survives(pack_raw(&b, &e, bad_bodies[6]), false);
    e.type = MSG_hello_reply;
    check_client_survives(pack(&b, &e, MSG_poll_reply, &reply), false);
    /* Announced, but too large for the client. */
    check_client_survives(slice_of("\x01\x00\x00\x00\x00\x01\x00\x00\x00", 9), true);
    check_client_survives(slice_of("\x01\xff\xff\xff\xff\xff\xff\xff\xff", 9), true);
    /* Not even a frame. */
    check_client_survives(slice_of(noise, 100), true);
    buf_free(&b);
}

static void test_a_far_end_of_another_version_is_refused_by_name(void **state)
{
    (void)state;
    struct impostor im;
    struct caller caller;
    struct buf b = {0};
    struct ends ends = {.loop = loop_open()};
    struct msg_envelope e = {.type = MSG_poll_reply, .session = id16_random()};
    struct msg_poll_reply reply = {.incarnation = 1, .answers = slice_of("\x90", 1)};
    pack(&b, &e, MSG_poll_reply, &reply);
    b.data[1] = 2;
    open_impostor(&im, buf_slice(&b), UINT_MAX, false);
    memcpy(ends.endpoint, im.endpoint, sizeof im.endpoint);
    open_caller(&caller, &ends, own);
    send_bytes(&caller, MSG_status, 1);
    WAIT_UNTIL(&ends, caller.answered == 1);
    assert_int_equal(caller.codes[0], SH_VERSION_MISMATCH);
    assert_int_equal(caller.ups, 0);
    atomic_store(&im.bad_count, 0);
    WAIT_UNTIL(&ends, caller.ups == 1); /* it is asked again, and was replaced meanwhile */
    link_client_close(caller.client);
    loop_close(ends.loop);
    close_impostor(&im);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_polls_get_a_named_error),
        cmocka_unit_test(test_bad_requests_are_dropped_and_counted),
        cmocka_unit_test(test_a_service_sees_no_malformed_body),
        cmocka_unit_test(test_a_session_beyond_its_credit_is_told_so),
        cmocka_unit_test(test_an_oversized_message_ends_only_its_connection),
        cmocka_unit_test(test_bad_bytes_leave_no_memory_behind),
        cmocka_unit_test(test_a_client_of_another_cluster_is_refused_by_name_at_both_ends),
        cmocka_unit_test(test_a_request_of_another_cluster_is_refused),
        cmocka_unit_test(test_a_client_outlives_bad_replies),
        cmocka_unit_test(test_a_far_end_of_another_version_is_refused_by_name),
    };
    log_setup("test_link_hostile", "test");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
