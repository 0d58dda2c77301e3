/* Times as people read them. */
#ifndef LOCAL_TIME_H
#define LOCAL_TIME_H

#include <stdint.h>

enum { LOCAL_TIME = 32 };
/* "2026-11-26 03:30:00.123", in local time, of a wall clock's ns since 1970. Returns out. */
const char *local_time(int64_t real_ns, char out[LOCAL_TIME]);

#endif
