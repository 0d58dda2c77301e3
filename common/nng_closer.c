/* Threads that close. Nothing here is fatal: out of threads, what was to be closed is left open, and counted.
 */
#include "nng_closer.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "log.h"

enum { CLOSER_STACK = 128 << 10 };

struct closer {
    void (*fn)(void *arg);
    void *arg;
};

static atomic_uint closing;

static void *run(void *arg)
{
    struct closer closer = *(struct closer *)arg;
    free(arg);
    closer.fn(closer.arg);
    atomic_fetch_sub(&closing, 1);
    return NULL;
}

void nng_closer_start(void (*fn)(void *arg), void *arg)
{
    struct closer *closer = xmalloc(sizeof *closer);
    pthread_attr_t attributes;
    pthread_t thread;
    *closer = (struct closer){fn, arg};
    atomic_fetch_add(&closing, 1);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, CLOSER_STACK);
    sigset_t all; /* whichever thread has the turn: signals are none of the closer's business */
    sigfillset(&all);
    pthread_attr_setsigmask_np(&attributes, &all);
    int rv = pthread_create(&thread, &attributes, run, closer);
    if (rv != 0) {
        log_error("cannot start a thread to close a connection", log_text("error", strerror(rv)));
        free(closer);
    }
    pthread_attr_destroy(&attributes);
}

unsigned nng_closer_count(void)
{
    return atomic_load(&closing);
}
