/* Starts nng with few threads (docs/adr/0008). */
#ifndef COMMON_NNG_START_H
#define COMMON_NNG_START_H

/* With two threads for callbacks, nng's least, instead of two for each processor; all of nng's threads block
 * all signals. To be called before anything else of nng; later it does nothing. For programs: a library has
 * no say in how its process uses nng. */
void nng_start(void);

#endif
