/* When a self-ping goes out. (What becomes of a service whose pings are not answered is in test_service.c.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "descriptors.h"
#include "link_conn.h"
#include "self_ping.h"

enum { HELD_MAX = 1000, STEP_MS = 100, WAIT_MS = 20000 };

static void never(const char *endpoint)
{
    fail_msg("%s is called dead", endpoint);
}

/* A socket where connections wait, and nobody accepts them. */
static int listen_at(const char *dir, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.64s/%s", dir, name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static void remove_socket(int fd, const char *dir, const char *name)
{
    char path[128];
    close(fd);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
}

static void set_flag(void *arg)
{
    *(bool *)arg = true;
}

static void run_for(struct loop *loop, int64_t duration_ns)
{
    bool over = false;
    struct loop_timer timer = {.fn = set_flag, .arg = &over};
    loop_timer_after(loop, &timer, duration_ns);
    while (!over)
        loop_step(loop, STEP_MS);
}

/* nng ends a connection that has waited for 10 s, and what ends before it was accepted ends a listener. So it
 * must not wait behind a crowd that has taken the descriptors. */
static void test_none_is_sent_where_descriptors_are_few(void **state)
{
    (void)state;
    static int held[HELD_MAX];
    unsigned count = 0;
    char dir[] = "/tmp/shpingXXXXXX", endpoint[64];
    struct rlimit before;
    assert_non_null(mkdtemp(dir));
    int in = listen_at(dir, "svc.in"), out = listen_at(dir, "svc.out");
    snprintf(endpoint, sizeof endpoint, "ipc://%s/svc", dir);
    struct loop *loop = loop_open();
    struct self_ping *ping =
        self_ping_open(loop, endpoint, (struct slice){0}, slice_str("n1"), id16_random(), never);
    assert_non_null(ping);

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    descriptors_limit(0);
    while (descriptors_plenty()) {
        assert_true(count < HELD_MAX);
        held[count++] = open("/", O_PATH | O_CLOEXEC);
    }
    assert_true(descriptors_left());
    run_for(loop, 2 * NS_PER_S + NS_PER_S / 2);
    assert_int_equal(accept(in, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(accept(out, NULL, NULL), -1);

    while (count > 0)
        close(held[--count]);
    int fd = -1;
    for (int waited_ms = 0; fd < 0; waited_ms += STEP_MS) {
        assert_true(waited_ms < WAIT_MS);
        run_for(loop, STEP_MS * (int64_t)NS_PER_MS);
        fd = accept(in, NULL, NULL);
    }
    close(fd);
    self_ping_close(ping);
    while (link_conn_closing() > 0)
        usleep(1000);
    loop_close(loop);
    remove_socket(in, dir, "svc.in");
    remove_socket(out, dir, "svc.out");
    rmdir(dir);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_none_is_sent_where_descriptors_are_few)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
