/* How many threads nng starts; in a process of its own, since that happens once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "nng_start.h"

static unsigned threads_named(const char *wanted)
{
    unsigned count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%.16s/comm", task->d_name);
        FILE *file = task->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (file == NULL)
            continue;
        if (fgets(name, sizeof name, file) != NULL)
            count += strncmp(name, wanted, strlen(wanted)) == 0;
        fclose(file);
    }
    closedir(tasks);
    return count;
}

static void *do_nothing(void *arg)
{
    return arg;
}

static void test_nng_has_two_threads_for_callbacks(void **state)
{
    (void)state;
    nng_socket socket;
    pthread_t first;
    assert_int_equal(pthread_create(&first, NULL, do_nothing, NULL), 0); /* a sanitizer adds one of its own */
    pthread_join(first, NULL);
    unsigned own = threads_named("test_nng_start");
    nng_start();
    nng_start();
    assert_int_equal(nng_req0_open(&socket), 0);
    while (threads_named("test_nng_start") > own) /* each gives itself its name */
        sched_yield();
    assert_int_equal(threads_named("nng:task"), 2);
    nng_close(socket);
}

static void test_everybody_else_is_told_the_truth(void **state)
{
    (void)state;
    nng_start();
    assert_int_equal(sysconf(_SC_NPROCESSORS_ONLN), get_nprocs());
    assert_int_equal(sysconf(_SC_PAGESIZE), getpagesize());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nng_has_two_threads_for_callbacks),
        cmocka_unit_test(test_everybody_else_is_told_the_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
