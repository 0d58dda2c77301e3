/* REQ/REP of nng with 64 round trips in flight. */
#ifndef CTL_BENCH_ECHO_H
#define CTL_BENCH_ECHO_H

#include <nng/nng.h>
#include <stdbool.h>
#include <stdint.h>

enum { BENCH_ECHOES = 64, BENCH_ECHO_BYTES = 128 };

/* Begins to answer at a REP socket, in the background. */
bool bench_echo_answer(nng_socket socket);
/* Round trips a second by a REQ socket that is dialled; 0 when it failed. Once in a process's life. */
double bench_echo_rate(nng_socket socket, int64_t duration_ms);

#endif
