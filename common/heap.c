/* malloc's settings. Nothing here is fatal: without them it is only slower. */
#include "heap.h"

#include <malloc.h>

enum { KEPT_BYTES = 16 << 20, MAPPED_BYTES = 32 << 20 /* the most that glibc takes */ };

void heap_keep_messages(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
    mallopt(M_MMAP_THRESHOLD,
            MAPPED_BYTES); /* below, memory is taken from the arena, larger than any message */
}
