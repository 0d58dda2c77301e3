/* Round trips of nng alone, many in flight: contexts and aio at both ends, as little code as can be. */
#include "bench_echo.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "buf.h"
#include "clock.h"

/* ---------------------------------------------------------------- the far end */

/* Receives and sends back, in turn. */
struct echo {
    nng_ctx context;
    nng_aio *aio;
    bool sending;
};

static void on_echo(void *arg)
{
    struct echo *e = arg;
    int result = nng_aio_result(e->aio);
    nng_msg *msg = result == 0 && !e->sending ? nng_aio_get_msg(e->aio) : NULL;
    if (result != 0 && e->sending)
        nng_msg_free(nng_aio_get_msg(e->aio));
    if (result == NNG_ECLOSED)
        return;
    e->sending = msg != NULL;
    if (msg == NULL) {
        nng_ctx_recv(e->context, e->aio);
        return;
    }
    nng_aio_set_msg(e->aio, msg);
    nng_ctx_send(e->context, e->aio);
}

bool bench_echo_answer(nng_socket socket)
{
    struct echo *all = xcalloc(BENCH_ECHOES, sizeof *all); /* until the process ends */
    for (int i = 0; i < BENCH_ECHOES; i++) {
        if (nng_aio_alloc(&all[i].aio, on_echo, &all[i]) != 0 || nng_ctx_open(&all[i].context, socket) != 0)
            return false;
        nng_ctx_recv(all[i].context, all[i].aio);
    }
    return true;
}

/* ---------------------------------------------------------------- this end */

struct asking {
    atomic_ullong answered;
    atomic_bool ends;
    atomic_int left; /* contexts that are not done */
};

struct ask {
    struct asking *all;
    nng_ctx context;
    nng_aio *aio;
    bool receiving;
};

static bool send_one(struct ask *a)
{
    nng_msg *msg;
    if (nng_msg_alloc(&msg, BENCH_ECHO_BYTES) != 0)
        return false;
    nng_aio_set_msg(a->aio, msg);
    a->receiving = false;
    nng_ctx_send(a->context, a->aio);
    return true;
}

static void on_asked(void *arg)
{
    struct ask *a = arg;
    bool good = nng_aio_result(a->aio) == 0;
    if (!good && !a->receiving)
        nng_msg_free(nng_aio_get_msg(a->aio));
    if (good && !a->receiving) {
        a->receiving = true;
        nng_ctx_recv(a->context, a->aio);
        return;
    }
    if (good) {
        nng_msg_free(nng_aio_get_msg(a->aio));
        atomic_fetch_add(&a->all->answered, 1);
    }
    if (!good || atomic_load(&a->all->ends) || !send_one(a))
        atomic_fetch_sub(&a->all->left, 1);
}

static bool start_asking(struct ask *asks, struct asking *all, nng_socket socket)
{
    atomic_store(&all->left, BENCH_ECHOES);
    for (int i = 0; i < BENCH_ECHOES; i++) {
        asks[i].all = all;
        if (nng_aio_alloc(&asks[i].aio, on_asked, &asks[i]) != 0 ||
            nng_ctx_open(&asks[i].context, socket) != 0 || !send_one(&asks[i]))
            return false;
    }
    return true;
}

static void sleep_ms(int64_t ms)
{
    const struct timespec pause = {ms / 1000, (long)(ms % 1000 * NS_PER_MS)};
    nanosleep(&pause, NULL);
}

double bench_echo_rate(nng_socket socket, int64_t duration_ms)
{
    enum { WARM_UP_MS = 100, FIRST_MS = 20000, END_MS = 2000 };
    struct ask *asks = xcalloc(BENCH_ECHOES, sizeof *asks); /* not freed: nng may still hold its aios */
    struct asking *all = xcalloc(1, sizeof *all);
    if (!start_asking(asks, all, socket))
        return 0;
    for (int i = 0; i < FIRST_MS && atomic_load(&all->answered) == 0; i++) /* the far end may have to start */
        sleep_ms(1);
    sleep_ms(WARM_UP_MS);
    int64_t start_ns = clock_mono_ns();
    unsigned long long before = atomic_load(&all->answered);
    unsigned long long answered = 0;
    for (int64_t slept_ms = 0; slept_ms < duration_ms || (answered == 0 && slept_ms < FIRST_MS);
         slept_ms += duration_ms) {
        sleep_ms(duration_ms);
        answered = atomic_load(&all->answered) - before;
    }
    double seconds = (double)(clock_mono_ns() - start_ns) / 1e9;
    atomic_store(&all->ends, true);
    for (int i = 0; i < END_MS && atomic_load(&all->left) > 0; i++)
        sleep_ms(1);
    return (double)answered / seconds;
}
