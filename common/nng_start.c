/* nng 1.5.2 starts its threads with the first socket, two for each processor that sysconf() counts, and takes
 * no wish. So it gets another count while it starts: this sysconf() stands before the C library's in programs
 * that link this file, and says the truth to all others and at all other times. Nothing is fatal; without
 * memory nng starts later, as it likes. */
#include "nng_start.h"

#include <nng/nng.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

static _Thread_local bool starting;

extern long __sysconf(int name); /* glibc's own name for the same */

/* The sanitizers ask before they can watch anything. */
__attribute__((no_sanitize("thread", "address", "undefined"))) long sysconf(int name)
{
    return starting && name == _SC_NPROCESSORS_ONLN ? 1 : __sysconf(name);
}

void nng_start(void)
{
    nng_aio *aio;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* its threads inherit that */
    starting = true;
    if (nng_aio_alloc(&aio, NULL, NULL) == 0)
        nng_aio_free(aio);
    starting = false;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
