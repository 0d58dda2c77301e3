/* malloc as programs of messages set it: memory that was used once is not given back and faulted in anew, and
 * few threads have memory of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "heap.h"

enum { MESSAGES = 12, MESSAGE_BYTES = 1 << 20, PAGES_EACH = MESSAGE_BYTES / 4096, ROUNDS = 20, THREADS = 8 };

static long page_faults(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return usage.ru_minflt;
}

static void *come_and_go(void *arg)
{
    char *messages[MESSAGES];
    for (int i = 0; i < MESSAGES; i++) {
        messages[i] = malloc(MESSAGE_BYTES);
        assert_non_null(messages[i]);
        memset(messages[i], i + 1, MESSAGE_BYTES);
    }
    for (int i = 0; i < MESSAGES; i++)
        free(messages[i]);
    return arg;
}

static void come_and_go_elsewhere(void)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void test_messages_memory_is_used_again_by_any_thread(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* another malloc */
#endif
    come_and_go(NULL);
    come_and_go_elsewhere();
    long before = page_faults();
    for (int i = 0; i < ROUNDS; i++) {
        come_and_go(NULL);
        come_and_go_elsewhere();
    }
    /* Threads' stacks cost some; a single message given back and taken again would cost PAGES_EACH a round.
     */
    assert_true(page_faults() - before < ROUNDS * PAGES_EACH / 2);
}

static pthread_barrier_t all_have_some;

static void *take_some(void *arg)
{
    volatile char *some = malloc(1000);
    assert_non_null((void *)some);
    *some = 1; /* or the compiler would leave it out */
    pthread_barrier_wait(&all_have_some);
    free((void *)some);
    return arg;
}

static void test_many_threads_share_two_arenas(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    pthread_t threads[THREADS];
    char *text = NULL;
    size_t len = 0, arenas = 0;
    pthread_barrier_init(&all_have_some, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_some, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    FILE *info = open_memstream(&text, &len);
    assert_non_null(info);
    malloc_info(0, info);
    fclose(info);
    for (const char *at = text; (at = strstr(at, "<heap nr")) != NULL; at++)
        arenas++;
    free(text);
    assert_int_equal(arenas, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads_share_two_arenas),
        cmocka_unit_test(test_messages_memory_is_used_again_by_any_thread),
    };
    heap_keep_messages();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
