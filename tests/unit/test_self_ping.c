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

static struct {
    char dir[32], endpoint[64];
    int in, out; /* where nobody accepts */
    struct loop *loop;
    struct self_ping *ping;
    struct rlimit before;
    int held[HELD_MAX];
    unsigned count;
} rig;

static int setup(void **state)
{
    (void)state;
    memset(&rig, 0, sizeof rig);
    snprintf(rig.dir, sizeof rig.dir, "/tmp/shpingXXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    rig.in = listen_at(rig.dir, "svc.in");
    rig.out = listen_at(rig.dir, "svc.out");
    snprintf(rig.endpoint, sizeof rig.endpoint, "ipc://%s/svc", rig.dir);
    rig.loop = loop_open();
    rig.ping =
        self_ping_open(rig.loop, rig.endpoint, (struct slice){0}, slice_str("n1"), id16_random(), never);
    assert_non_null(rig.ping);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &rig.before), 0);
    descriptors_limit(0);
    return 0;
}

static void let_go(void)
{
    while (rig.count > 0)
        close(rig.held[--rig.count]);
}

static int teardown(void **state)
{
    (void)state;
    let_go();
    self_ping_close(rig.ping);
    while (link_conn_closing() > 0)
        usleep(1000);
    loop_close(rig.loop);
    remove_socket(rig.in, rig.dir, "svc.in");
    remove_socket(rig.out, rig.dir, "svc.out");
    rmdir(rig.dir);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &rig.before), 0);
    return 0;
}

static void take_most(void)
{
    while (descriptors_plenty()) {
        assert_true(rig.count < HELD_MAX);
        rig.held[rig.count++] = open("/", O_PATH | O_CLOEXEC);
    }
    int left = open("/", O_PATH | O_CLOEXEC);
    assert_true(left >= 0);
    close(left);
}

static int wait_for_ping(void)
{
    int fd = -1;
    for (int waited_ms = 0; fd < 0; waited_ms += STEP_MS) {
        assert_true(waited_ms < WAIT_MS);
        run_for(rig.loop, STEP_MS * (int64_t)NS_PER_MS);
        fd = accept(rig.in, NULL, NULL);
    }
    return fd;
}

static void assert_no_ping(void)
{
    run_for(rig.loop, 2 * NS_PER_S + NS_PER_S / 2);
    assert_int_equal(accept(rig.in, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
}

/* nng ends a connection that has waited for 10 s, and what ends before it was accepted ends a listener. So it
 * must not wait behind a crowd that has taken the descriptors. */
static void test_none_is_sent_where_descriptors_are_few(void **state)
{
    (void)state;
    take_most();
    assert_no_ping();
    assert_int_equal(accept(rig.out, NULL, NULL), -1);
    let_go();
    close(wait_for_ping());
}

/* Nor must a second one, when the first is not answered in time: nobody answers any here. */
static void test_no_second_one_is_sent_where_descriptors_are_few(void **state)
{
    (void)state;
    int first = wait_for_ping();
    take_most();
    assert_no_ping();
    let_go();
    close(wait_for_ping());
    close(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_none_is_sent_where_descriptors_are_few, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_second_one_is_sent_where_descriptors_are_few, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
