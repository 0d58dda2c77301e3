/* malloc's settings. Nothing here is fatal: without them it is only slower. */
#include "heap.h"

#include <malloc.h>

enum { ARENAS = 2, KEPT_BYTES = 16 << 20, MAPPED_BYTES = 32 << 20 /* the most that glibc takes */ };

void heap_keep_messages(void)
{
    mallopt(M_ARENA_MAX, ARENAS);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    /* Below, memory is taken from an arena; no message is larger. */
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
}
