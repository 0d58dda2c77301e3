/* Closing what nng 1.5.2 may never let go of (docs/adr/0001): in a thread of its own that nobody waits for.
 * What belongs to the socket is freed by that thread, or never. */
#ifndef COMMON_NNG_CLOSER_H
#define COMMON_NNG_CLOSER_H

/* Has closer(arg) run. */
void nng_closer_start(void (*closer)(void *arg), void *arg);
/* How many run now, in this process. */
unsigned nng_closer_count(void);

#endif
